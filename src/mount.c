/* mount.c: one mount, from its name to its end.
 *
 * The name is taken first, so that a busy one costs nothing; then the place is
 * opened, then served.  It ends in the opposite order: users off, drained,
 * committed, closed. */
#include "config.h"
#include "src/errors.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "src/clock.h"
#include "src/frontend/fuse.h"
#include "src/log.h"
#include "src/mount_parts.h"

#define STOP_TIMEOUT  (10 * CLOCK_SECOND)	/* for NBD peers that do not read */
#define PROGRESS_MS   500
#define RETRY_SECONDS 5
#define DROP_PATIENCE CLOCK_SECOND	/* with a store that is away, once all may be dropped */

static void mount_gone(void *context)
{
	struct mount *mount = context;

	atomic_store(&mount->gone, true);
	mounts_wake(mount->mounts);
}

/* ---- its name ---------------------------------------------------------------------- */

static int take_name(struct mount *mount)
{
	char *path = where_control_path(&mount->spec.where);
	int error;

	if (!path)
		return -EIO;	/* logged */
	error = control_open(path, &mount->control);
	free(path);
	if (error == -EBUSY)
		log_error("%s is mounted already by another objmap: objmap umount '%s'",
			  mount->spec.where.text, mount->spec.where.text);
	return error;
}

#ifdef HAVE_FUSE
static int prepare_file(struct mount *mount)
{
	struct fuse_options options = {
		.place = mount->spec.place.text,
		.over = mount->spec.over,
		.allow_other = mount->spec.allow_other,
		.follow = mount->spec.export.volume.follow,
		.threads = mount->mounts->options.nbd.threads,
		.ended = mount_gone,
		.context = mount,
	};

	return fuse_file_prepare(mount->spec.where.path, &options, &mount->file);
}
#else
static int prepare_file(struct mount *mount)
{
	log_error("%s: this build has no FUSE: objmap mount '%s' 'nbd+unix:///?socket=%s'",
		  mount->spec.where.text, mount->spec.place.text,
		  mount->spec.where.path);
	return -ENODEV;
}
#endif

/* Standard input and output are the connection: nothing else may use them. */
static int take_stdio(int *in, int *out)
{
	int null = open("/dev/null", O_RDWR | O_CLOEXEC);

	*in = fcntl(STDIN_FILENO, F_DUPFD_CLOEXEC, 3);
	*out = fcntl(STDOUT_FILENO, F_DUPFD_CLOEXEC, 3);
	if (null < 0 || *in < 0 || *out < 0) {
		log_error("standard input and output: %s", strerror(errno));
		return -EBADF;
	}
	dup2(null, STDIN_FILENO);
	dup2(STDERR_FILENO, STDOUT_FILENO);
	close(null);
	return 0;
}

static int serve_stream(struct mount *mount)
{
	int in = mount->spec.where.fd, out = in, error;

	if (mount->spec.where.kind == WHERE_STDIO) {
		error = take_stdio(&in, &out);
		if (error)
			return error;
	} else {
		fcntl(in, F_SETFD, FD_CLOEXEC);
	}
	return nbd_server_serve_fd(mount->server->nbd, in, out);
}

static int listen_at(struct mount *mount)
{
	struct nbd_server *nbd = mount->server->nbd;
	struct mounts *mounts = mount->mounts;
	struct where *where = &mount->spec.where;
	uint16_t port = where->port;
	int error = 0;

	if (where->fd >= 0)
		return 0;	/* connected already; see mount_serve() */
	if (mounts->options.nr_listen_fds) {
		for (unsigned int i = 0; i < mounts->options.nr_listen_fds &&
					 !error; i++)
			error = nbd_server_listen_fd(nbd, 3 + (int)i);
		mounts->options.nr_listen_fds = 0;
		return error;
	}
	if (where->path)
		return nbd_server_listen_unix(nbd, where->path);
	error = nbd_server_listen_tcp(nbd, where->address, &port);
	if (!error)
		error = where_set_port(where, port);
	return error;
}

static int prepare_server(struct mount *mount)
{
	struct mounts *mounts = mount->mounts;
	struct nbd_options options = mounts->options.nbd;
	struct where *where = &mount->spec.where;
	struct mount_server *server;
	int error;

	for (server = mounts->servers; server; server = server->next)
		if (where_same_address(server->where, where))
			break;
	if (server) {
		server->nr_mounts++;
		mount->server = server;
		return 0;
	}
	options.tls = where->kind == WHERE_NBD_TLS ? NBD_TLS_REQUIRE : NBD_TLS_OFF;
	options.ended = mount_gone;
	options.context = mount;
	server = calloc(1, sizeof(*server));
	if (!server)
		return -ENOMEM;
	error = nbd_server_open(&options, &server->nbd);
	if (error) {
		free(server);
		return error;
	}
	server->where = where;
	server->nr_mounts = 1;
	server->next = mounts->servers;
	mounts->servers = server;
	mount->server = server;
	return listen_at(mount);
}

int mount_prepare(struct mount *mount)
{
	int error;

	/* A file's name is taken first: what its control socket answers tells a
	 * live mount from a dead one.  A port is only known when it is bound. */
	if (mount->spec.where.kind == WHERE_FUSE) {
		error = take_name(mount);
		return error ? error : prepare_file(mount);
	}
	error = prepare_server(mount);
	return error ? error : take_name(mount);
}

/* ---- open, serve ---------------------------------------------------------------------- */

/* Before the server starts, for any of its exports. */
static int offer_export(struct mount *mount)
{
	int error = mount->server ? nbd_server_add(mount->server->nbd, mount->export) : 0;

	if (error == -EEXIST)
		log_error("%s: two exports of this name at one address",
			  mount->spec.where.text);
	return error;
}

int mount_open_export(struct mount *mount)
{
	struct mount_spec *spec = &mount->spec;
	struct volume_status status;
	const char *name = spec->where.export_name ? spec->where.export_name : "";
	int error;

	spec->export.volume.runtime_dir = runtime_dir();
	error = export_open(&spec->place, name, &spec->export, &mount->export);
	if (!error)
		error = offer_export(mount);
	if (error)
		return error;
	if (!mount->export->volume)
		return 0;
	volume_status(mount->export->volume, &status);
	mount->seen_epoch = status.head.epoch;
	if (!mount->export->read_only)
		error = control_link_volume(mount->control, status.head.uuid);
	return error;
}

static int serve_nbd(struct mount *mount)
{
	struct mount_server *server = mount->server;
	int error = 0;

	if (mount->spec.where.fd >= 0)
		error = serve_stream(mount);
	if (error || server->started)
		return error;
	server->started = true;
	return nbd_server_start(server->nbd);
}

void mount_set_patience(struct mount *mount)
{
	const struct mount_spec *spec = &mount->spec;
	uint64_t patience = UINT64_MAX;

	if (spec->retry_for_given)
		patience = spec->export.store.retry_for;
	if (atomic_load(&mount->drop))
		patience = DROP_PATIENCE;
	pthread_rwlock_rdlock(&mount->open_lock);
	if (mount->export)
		export_set_retry_for(mount->export, patience);
	pthread_rwlock_unlock(&mount->open_lock);
}

int mount_serve(struct mount *mount)
{
	int error;

#ifdef HAVE_FUSE
	if (mount->file)
		error = fuse_file_start(mount->file, mount->export);
	else
#endif
		error = serve_nbd(mount);
	if (error)
		return error;
	mount_set_patience(mount);
	return control_start(mount->control, mount_command, mount);
}

/* ---- flush, with progress ------------------------------------------------------------- */

struct flush_job {
	struct export *export;
	pthread_mutex_t lock;		/* guards: */
	pthread_cond_t done_cond;
	bool done;
	int error;
};

static void *flush_run(void *context)
{
	struct flush_job *job = context;
	int error = export_flush(job->export);

	pthread_mutex_lock(&job->lock);
	job->error = error;
	job->done = true;
	pthread_cond_signal(&job->done_cond);
	pthread_mutex_unlock(&job->lock);
	return NULL;
}

/* What a flush has still to store. */
static uint64_t unsaved_bytes(struct export *export)
{
	struct volume_status status;

	if (!export->volume)
		return 0;
	volume_status(export->volume, &status);
	return status.pending_bytes < status.uploaded_bytes ? 0 :
	       status.pending_bytes - status.uploaded_bytes;
}

/* Nobody but us hears that it failed: then the mount has not ended well, even if the
 * next one succeeds. */
static int flush_device(struct mount *mount)
{
	const struct stage_server *server = stage_backend(mount->export->stage)->server;
	int error = export_flush(mount->export);

	if (error && error != -ETIMEDOUT && error != -ECANCELED && server &&
	    server->failed_flush_loses)
		mount->status = 1;
	return error;
}

int mount_flush(struct mount *mount, struct control_client *client)
{
	struct flush_job job = { .export = mount->export };
	uint64_t total, left;
	struct timespec until;
	pthread_t thread;

	if (!mount->export->volume)
		return flush_device(mount);
	if (!client)
		return export_flush(mount->export);
	total = unsaved_bytes(mount->export);
	pthread_mutex_init(&job.lock, NULL);
	pthread_cond_init(&job.done_cond, NULL);
	if (pthread_create(&thread, NULL, flush_run, &job) != 0)
		return export_flush(mount->export);
	pthread_mutex_lock(&job.lock);
	while (!job.done) {
		clock_gettime(CLOCK_REALTIME, &until);
		until.tv_nsec += PROGRESS_MS * 1000000l;
		until.tv_sec += until.tv_nsec / 1000000000l;
		until.tv_nsec %= 1000000000l;
		if (pthread_cond_timedwait(&job.done_cond, &job.lock,
					   &until) != ETIMEDOUT)
			continue;
		pthread_mutex_unlock(&job.lock);
		left = unsaved_bytes(mount->export);
		if (left > total)
			total = left;
		control_progress(client, json_pack("{s:s, s:I, s:I}",
			"what", "saving", "done", (json_int_t)(total - left),
			"total", (json_int_t)total));
		pthread_mutex_lock(&job.lock);
	}
	pthread_mutex_unlock(&job.lock);
	pthread_join(thread, NULL);
	pthread_cond_destroy(&job.done_cond);
	pthread_mutex_destroy(&job.lock);
	return job.error;
}

/* ---- the end --------------------------------------------------------------------------- */

static void server_stop(struct mount_server *server)
{
	if (server->started && !server->stopped)
		nbd_server_stop(server->nbd, STOP_TIMEOUT);
	server->stopped = true;
}

static int stop_serving(struct mount *mount, enum mount_users users)
{
	struct mounts *mounts = mount->mounts;
	struct mount_server *server = mount->server;
	bool alone;
	int error = 0;

#ifdef HAVE_FUSE
	if (mount->file) {
		error = fuse_file_stop(mount->file, users == MOUNT_ASK_USERS ?
				       FUSE_STOP_ASK : atomic_load(&mount->drop) ?
				       FUSE_STOP_DROP : FUSE_STOP_SAVE);
		if (error == -EBUSY)
			log_error("%s is in use: something has it open or mapped, or a loop device is on it (lsof %s; losetup -j %s)",
				  mount->spec.where.text, mount->spec.where.path,
				  mount->spec.where.path);
		else if (error)
			log_error("%s: unmount: %s", mount->spec.where.text,
				  strerror(-error));
		return error;
	}
#endif
	pthread_mutex_lock(&mounts->lock);
	alone = users == MOUNT_WITHOUT_USERS || server->nr_mounts == 1 || server->stopped;
	if (alone) {
		server_stop(server);
	} else if (atomic_load(&mount->drop)) {
		server->nr_mounts--;
	} else {
		log_error("%s shares its address with %u other export%s of one daemon: they end together (kill %d)",
			  mount->spec.where.text, server->nr_mounts - 1,
			  server->nr_mounts == 2 ? "" : "s", (int)getpid());
		error = -EBUSY;
	}
	pthread_mutex_unlock(&mounts->lock);
	/* Not with the lock: what is under way may take a while. */
	if (!alone && !error)
		nbd_server_remove(server->nbd, mount->export);
	return error;
}

static bool is_fenced(struct mount *mount)
{
	struct stage *backend = stage_backend(mount->export->stage);
	struct volume_status status;

	if (!mount->export->volume)
		return backend->server && backend->server->is_lost(backend);
	volume_status(mount->export->volume, &status);
	return status.fenced;
}

/* Its users have gone, so what is not saved now has nobody but us: try until it
 * is, or until somebody says that it may be dropped. */
static void save_the_rest(struct mount *mount, struct control_client *client)
{
	int error;

	export_drain(mount->export);
	for (;;) {
		if (atomic_load(&mount->drop))
			return;
		error = mount_flush(mount, client);
		if (error && is_fenced(mount))
			error = export_keep_unsaved(mount->export);
		if (!error)
			return;
		/* What a file or a disk could not write is gone already. */
		if (!mount->export->volume &&
		    !stage_backend(mount->export->stage)->server) {
			log_error("%s: flush of %s: %s", mount->spec.where.text,
				  mount->spec.place.text, error_words(error));
			mount->status = 1;
			return;
		}
		log_error("%s: cannot be saved: %s; trying again, until objmap umount --no-drain --force drops it",
			  mount->spec.where.text, error_words(error));
		for (int i = 0; i < RETRY_SECONDS * 10 && !atomic_load(&mount->drop); i++)
			usleep(100000);
	}
}

static void close_export(struct mount *mount)
{
	struct volume_status status;
	bool unsaved;

	if (mount->export->volume) {
		volume_status(mount->export->volume, &status);
		unsaved = status.oldest_dirty != 0;	/* zeros have no bytes */
		if (status.fenced)
			mount->status = 1;
		if (status.fenced && !unsaved)
			log_warning("%s: %s was taken over by somebody else; nothing of it was unsaved",
				    mount->spec.where.text, mount->spec.place.text);
		if (unsaved && !status.fenced)
			log_warning("%s: what was not committed is dropped, %llu bytes beside zeros",
				    mount->spec.where.text,
				    (unsigned long long)status.pending_bytes);
		control_unlink_volume(mount->control, status.head.uuid);
	} else if (is_fenced(mount)) {
		mount->status = 1;
	}
	export_release(mount->export);
	pthread_rwlock_wrlock(&mount->open_lock);
	export_close(mount->export);
	mount->export = NULL;
	pthread_rwlock_unlock(&mount->open_lock);
}

static void close_file(struct mount *mount)
{
#ifdef HAVE_FUSE
	pthread_rwlock_wrlock(&mount->open_lock);
	if (mount->file)
		fuse_file_close(mount->file);
	mount->file = NULL;
	pthread_rwlock_unlock(&mount->open_lock);
#else
	(void)mount;
#endif
}

static int end_locked(struct mount *mount, enum mount_users users,
		      struct control_client *client)
{
	int error;

	if (!atomic_load(&mount->drop) && !atomic_load(&mount->gone)) {
		error = mount_flush(mount, client);
		if (error && is_fenced(mount))
			error = export_keep_unsaved(mount->export);
		if (error) {
			log_error("%s: cannot be saved: %s; it stays mounted (umount --no-drain --force drops what is not saved)",
				  mount->spec.where.text, error_words(error));
			return error;
		}
	}
	error = stop_serving(mount, users);
	if (error)
		return error;
	atomic_store(&mount->ending, true);
	save_the_rest(mount, client);
	close_export(mount);
	close_file(mount);
	mount->ended = true;
	mounts_wake(mount->mounts);
	return 0;
}

int mount_end(struct mount *mount, enum mount_users users,
	      struct control_client *client)
{
	int error = 0;

	pthread_mutex_lock(&mount->end_lock);
	if (!mount->ended)
		error = end_locked(mount, users, client);
	pthread_mutex_unlock(&mount->end_lock);
	return error;
}

static void undo_locked(struct mount *mount)
{
	if (mount->server)
		server_stop(mount->server);
#ifdef HAVE_FUSE
	if (mount->file) {
		fuse_file_stop(mount->file, FUSE_STOP_DROP);
		if (mount->export)
			export_drain(mount->export);
	}
#endif
	if (mount->export)
		close_export(mount);
	close_file(mount);
	mount->ended = true;
	mount->status = 1;
}

/* When one mount of several cannot be had, others may take commands already. */
void mount_undo(struct mount *mount)
{
	pthread_mutex_lock(&mount->end_lock);
	if (!mount->ended)
		undo_locked(mount);
	pthread_mutex_unlock(&mount->end_lock);
}

void mount_spec_free(struct mount_spec *spec)
{
	place_free(&spec->place);
	where_free(&spec->where);
	free(spec->state);
	memset(spec, 0, sizeof(*spec));
}

void mount_free(struct mount *mount)
{
	if (mount->control)
		control_close(mount->control);
	mount_spec_free(&mount->spec);
	pthread_rwlock_destroy(&mount->open_lock);
	pthread_mutex_destroy(&mount->end_lock);
	free(mount);
}
