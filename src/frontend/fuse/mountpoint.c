/* mountpoint.c: looks at, frees and unmounts the path of a FUSE file.
 *
 * A dead mount answers every look at it with ENOTCONN, so /proc/self/mounts
 * says what is there and the path itself is touched last. */
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <mntent.h>
#include <pthread.h>
#include <semaphore.h>
#include <spawn.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <sys/wait.h>
#include <unistd.h>

#include "src/frontend/fuse/mountpoint.h"
#include "src/log.h"

#define FUSE_TYPE    "fuse.objmap"
#define LOOK_SECONDS 5

extern char **environ;

/* 0: nothing is mounted on @path; 1: a mount of objmap; 2: something else.
 * The topmost counts, which is the last line. */
static int mounted(const char *path)
{
	FILE *table = setmntent("/proc/self/mounts", "re");
	struct mntent entry;
	char line[8192];
	int found = 0;

	while (table && getmntent_r(table, &entry, line, sizeof(line)))
		if (strcmp(entry.mnt_dir, path) == 0)
			found = strcmp(entry.mnt_type, FUSE_TYPE) == 0 ? 1 : 2;
	if (table)
		endmntent(table);
	return found;
}

/* One question to a file system that may never answer. */
struct question {
	char *path;
	int error;
	sem_t answered;
	atomic_uint askers;		/* the last one frees it */
};

static void question_leave(struct question *question)
{
	if (atomic_fetch_sub(&question->askers, 1) > 1)
		return;
	sem_destroy(&question->answered);
	free(question->path);
	free(question);
}

static void *ask(void *context)
{
	struct question *question = context;
	struct statfs fs;

	/* Not stat(): the kernel answers that from what it remembers. */
	question->error = statfs(question->path, &fs) < 0 ? errno : 0;
	sem_post(&question->answered);
	question_leave(question);
	return NULL;
}

/* The kernel itself answers for a dead daemon, and at once; one that hangs is not
 * waited for, but by a thread that may stay behind. */
static bool is_dead(const char *path)
{
	struct question *question = calloc(1, sizeof(*question));
	struct timespec until;
	bool dead = false;
	pthread_t thread;
	int error;

	if (!question)
		return false;
	question->path = strdup(path);
	sem_init(&question->answered, 0, 0);
	atomic_init(&question->askers, 2);
	if (!question->path || pthread_create(&thread, NULL, ask, question) != 0) {
		atomic_store(&question->askers, 1);
	} else {
		pthread_detach(thread);
		clock_gettime(CLOCK_REALTIME, &until);
		until.tv_sec += LOOK_SECONDS;
		do
			error = sem_timedwait(&question->answered, &until);
		while (error && errno == EINTR);
		/* ECONNABORTED: it is dying at this moment. */
		dead = !error && (question->error == ENOTCONN ||
				  question->error == ECONNABORTED);
	}
	question_leave(question);
	return dead;
}

enum mountpoint_state mountpoint_look(const char *path)
{
	switch (mounted(path)) {
	case 0:
		return MOUNTPOINT_FREE;
	case 1:
		return is_dead(path) ? MOUNTPOINT_DEAD : MOUNTPOINT_LIVE;
	default:
		return MOUNTPOINT_FOREIGN;
	}
}

bool mountpoint_is_foreign(const char *path)
{
	return mounted(path) == 2;
}

void mountpoint_each(void (*visit)(void *context, const char *path,
				   const char *place), void *context)
{
	FILE *table = setmntent("/proc/self/mounts", "re");
	struct mntent entry;
	char line[8192];

	while (table && getmntent_r(table, &entry, line, sizeof(line)))
		if (strcmp(entry.mnt_type, FUSE_TYPE) == 0)
			visit(context, entry.mnt_dir, entry.mnt_fsname);
	if (table)
		endmntent(table);
}

/* Runs fusermount3 and puts what it says on standard error into @said, without
 * its end of line.  Returns its exit status, or -errno. */
static int run_fusermount(const char *path, bool lazy, char *said, size_t room)
{
	const char *argv[] = { "fusermount3", lazy ? "-uz" : "-u", "--", path, NULL };
	posix_spawn_file_actions_t actions;
	int ends[2], status = 0, error;
	size_t length = 0;
	ssize_t n;
	pid_t pid;

	if (pipe2(ends, O_CLOEXEC) < 0)
		return -errno;
	error = posix_spawn_file_actions_init(&actions);
	if (!error) {
		error = posix_spawn_file_actions_adddup2(&actions, ends[1],
							 STDERR_FILENO);
		if (!error)
			error = posix_spawnp(&pid, argv[0], &actions, NULL,
					     (char *const *)argv, environ);
		posix_spawn_file_actions_destroy(&actions);
	}
	close(ends[1]);
	while (!error && length < room - 1) {
		n = read(ends[0], said + length, room - 1 - length);
		if (n == 0 || (n < 0 && errno != EINTR))
			break;
		length += n > 0 ? (size_t)n : 0;
	}
	close(ends[0]);
	if (error)
		return -error;
	while (length && said[length - 1] == '\n')
		length--;
	said[length] = 0;
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	return WIFEXITED(status) ? WEXITSTATUS(status) : 1;
}

/* It fails in one way for all reasons, and names them in words only. */
static int unmount_by_program(const char *path, bool lazy)
{
	char said[512] = "";
	int status = run_fusermount(path, lazy, said, sizeof(said));

	if (status <= 0 || !mounted(path))
		return status < 0 ? status : 0;
	if (strstr(said, strerror(EBUSY)))
		return -EBUSY;
	log_error("%s: %s", path, *said ? said : "fusermount3 does not unmount it");
	return -EPERM;
}

int mountpoint_unmount(const char *path, bool lazy)
{
	if (geteuid() != 0)
		return unmount_by_program(path, lazy);
	if (umount2(path, UMOUNT_NOFOLLOW | (lazy ? MNT_DETACH : 0)) < 0)
		return -errno;
	return 0;
}

int mountpoint_clean(const char *path)
{
	int nr = 0, error;

	while (mountpoint_look(path) == MOUNTPOINT_DEAD) {
		error = mountpoint_unmount(path, true);
		if (error) {
			log_error("%s: a mount whose daemon has gone is left there and cannot be taken away: %s",
				  path, strerror(-error));
			return error;
		}
		nr++;
	}
	return nr;
}

static bool may_mount(void)
{
	struct __user_cap_header_struct header = { _LINUX_CAPABILITY_VERSION_3, 0 };
	struct __user_cap_data_struct data[2] = { 0 };

	if (syscall(SYS_capget, &header, data) < 0)
		return false;
	return data[CAP_SYS_ADMIN / 32].effective & (1u << (CAP_SYS_ADMIN % 32));
}

static bool on_path(const char *program)
{
	const char *path = getenv("PATH");
	char *copy = strdup(path ? path : "/usr/bin:/bin"), *save = NULL;
	char name[4096];
	bool found = false;

	for (char *dir = copy ? strtok_r(copy, ":", &save) : NULL; dir && !found;
	     dir = strtok_r(NULL, ":", &save)) {
		snprintf(name, sizeof(name), "%s/%s", dir, program);
		found = access(name, X_OK) == 0;
	}
	free(copy);
	return found;
}

int mountpoint_can_fuse(const char *path, const char *place)
{
	int fd = open("/dev/fuse", O_RDWR | O_CLOEXEC);
	const char *cause = NULL;
	int error = -EPERM;

	if (fd < 0 && (errno == EACCES || errno == EPERM)) {
		cause = "no right to open /dev/fuse";
	} else if (fd < 0) {
		cause = errno == ENOENT ? "there is no /dev/fuse (modprobe fuse)" :
					  "the kernel has no FUSE";
		error = -ENODEV;
	} else if (geteuid() == 0 && !may_mount()) {
		cause = "root has no right to mount here (CAP_SYS_ADMIN)";
	} else if (geteuid() != 0 && !on_path("fusermount3")) {
		cause = "fusermount3 is not installed, and only root can mount without it";
	}
	if (fd >= 0)
		close(fd);
	if (!cause)
		return 0;
	log_error("%s: cannot be mounted as a file: %s; without FUSE: objmap mount '%s' 'nbd+unix:///?socket=%s'",
		  path, cause, place, path);
	return error;
}
