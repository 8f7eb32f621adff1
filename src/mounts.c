/* mounts.c: all mounts of one daemon: started together, served, ended. */
#include "config.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "src/daemon.h"
#include "src/frontend/fuse.h"
#include "src/log.h"
#include "src/mount_parts.h"

#define FOLLOW_MS 1000	/* how often a followed volume's epoch is looked at */

int mounts_open(const struct mounts_options *options, struct mounts **result)
{
	struct mounts *mounts = calloc(1, sizeof(*mounts));

	if (!mounts)
		return -ENOMEM;
	mounts->options = *options;
	mounts->last = &mounts->first;
	mounts->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (mounts->wake_fd < 0) {
		int error = -errno;

		log_error("eventfd: %s", strerror(errno));
		free(mounts);
		return error;
	}
	pthread_mutex_init(&mounts->lock, NULL);
	*result = mounts;
	return 0;
}

void mounts_wake(struct mounts *mounts)
{
	uint64_t one = 1;

	if (write(mounts->wake_fd, &one, sizeof(one)) < 0 && errno != EAGAIN)
		log_error("eventfd: %s", strerror(errno));
}

int mounts_add(struct mounts *mounts, struct mount_spec *spec)
{
	struct mount *mount = calloc(1, sizeof(*mount));
	int error;

	if (!mount)
		return -ENOMEM;
	mount->mounts = mounts;
	mount->spec = *spec;
	memset(spec, 0, sizeof(*spec));
	pthread_rwlock_init(&mount->open_lock, NULL);
	pthread_mutex_init(&mount->end_lock, NULL);
	*mounts->last = mount;
	mounts->last = &mount->next;
	error = mount_prepare(mount);
	if (error)
		for (mount = mounts->first; mount; mount = mount->next)
			mount_undo(mount);
	return error;
}

int mounts_start(struct mounts *mounts)
{
	struct mount *mount;
	int error = 0;

	for (mount = mounts->first; mount && !error; mount = mount->next)
		error = mount_open_export(mount);
	for (mount = mounts->first; mount && !error; mount = mount->next)
		error = mount_serve(mount);
	if (mounts->options.nr_listen_fds)
		log_warning("sockets were passed (LISTEN_FDS), but WHERE is no NBD address: they are not used");
	if (error)
		for (mount = mounts->first; mount; mount = mount->next)
			mount_undo(mount);
	return error;
}

const char *mounts_where(const struct mounts *mounts, unsigned int n)
{
	const struct mount *mount = mounts->first;

	while (mount && n--)
		mount = mount->next;
	if (!mount)
		return NULL;
	return mount->spec.where.kind == WHERE_FUSE ? mount->spec.where.path :
						      mount->spec.where.text;
}

/* ---- serving --------------------------------------------------------------------------- */

bool mounts_all_ended(struct mounts *mounts)
{
	for (struct mount *m = mounts->first; m; m = m->next)
		if (!atomic_load(&m->ended))
			return false;
	return true;
}

/* Gives the names of those that have ended back. */
static void reap(struct mounts *mounts)
{
	for (struct mount *m = mounts->first; m; m = m->next) {
		if (!atomic_load(&m->ended) || !m->control)
			continue;
		control_close(m->control);
		m->control = NULL;
	}
}

static void end_gone(struct mounts *mounts)
{
	for (struct mount *m = mounts->first; m; m = m->next)
		if (atomic_load(&m->gone))
			mount_end(m, MOUNT_WITHOUT_USERS, NULL);
}

int mounts_end(struct mounts *mounts)
{
	int error = 0;

	for (struct mount *m = mounts->first; m; m = m->next) {
		int one = mount_end(m, MOUNT_WITHOUT_USERS, NULL);

		error = error ? error : one;
	}
	return error;
}

/* The kernel's page cache must not outlive what a followed volume has left. */
static bool look_at_followed(struct mounts *mounts)
{
	struct volume_status status;
	bool any = false;

	for (struct mount *m = mounts->first; m; m = m->next) {
		if (!m->spec.export.volume.follow)
			continue;
		any = true;
		if (pthread_mutex_trylock(&m->end_lock) != 0)
			continue;
		if (m->export && m->export->volume) {
			volume_status(m->export->volume, &status);
			stage_follow_size(m->export->stage);
#ifdef HAVE_FUSE
			if (m->file && status.head.epoch != m->seen_epoch) {
				fuse_file_resized(m->file);
				fuse_file_changed(m->file);
			}
#endif
			m->seen_epoch = status.head.epoch;
		}
		pthread_mutex_unlock(&m->end_lock);
	}
	return any;
}

static void handle_signals(struct mounts *mounts, struct daemon *daemon)
{
	struct signalfd_siginfo info;

	if (read(daemon->signal_fd, &info, sizeof(info)) != sizeof(info))
		return;
	daemon_stopping(daemon);
	mounts_end(mounts);	/* what lives on has said why */
}

void mounts_wait(struct mounts *mounts, struct daemon *daemon, pid_t child,
		 int *child_status)
{
	struct pollfd wait[3] = {
		{ .fd = mounts->wake_fd, .events = POLLIN },
		{ .fd = daemon->signal_fd, .events = POLLIN },
		{ .fd = -1, .events = POLLIN },
	};
	bool follow = look_at_followed(mounts);
	uint64_t nr;

	if (child)
		wait[2].fd = (int)syscall(SYS_pidfd_open, child, 0);
	while (!mounts_all_ended(mounts)) {
		if (poll(wait, 3, follow ? FOLLOW_MS : -1) < 0 && errno != EINTR)
			break;
		if (follow)
			look_at_followed(mounts);
		if (wait[0].revents && read(mounts->wake_fd, &nr, sizeof(nr)) > 0)
			end_gone(mounts);
		reap(mounts);
		if (wait[1].revents)
			handle_signals(mounts, daemon);
		if (wait[2].revents)
			break;
	}
	if (!child)
		return;
	/* A signal to us is one to the command: it shall not lose its disk and
	 * go on. */
	if (!wait[2].revents)
		kill(child, SIGTERM);
	while (waitpid(child, child_status, 0) < 0 && errno == EINTR)
		;
	if (wait[2].fd >= 0)
		close(wait[2].fd);
}

int mounts_close(struct mounts *mounts)
{
	struct mount_server *server;
	struct mount *mount;
	int status = 0;

	/* Sockets first: commands under way use the rest. */
	while ((mount = mounts->first)) {
		mounts->first = mount->next;
		status = mount->status ? mount->status : status;
		mount_free(mount);
	}
	while ((server = mounts->servers)) {
		mounts->servers = server->next;
		nbd_server_close(server->nbd);
		free(server);
	}
	close(mounts->wake_fd);
	pthread_mutex_destroy(&mounts->lock);
	free(mounts);
	return status;
}
