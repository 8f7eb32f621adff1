/* folders.c: the runtime folder (sockets and locks of this boot) and the state
 * folder (what must survive). */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "src/log.h"
#include "src/network.h"
#include "src/where.h"

/* mkdir -p, the last one 0700; what exists keeps its mode. */
static int make_folder(const char *path)
{
	char *copy = strdup(path);
	int error = 0;

	if (!copy)
		return -ENOMEM;
	for (char *slash = strchr(copy + 1, '/'); slash && !error;
	     slash = strchr(slash + 1, '/')) {
		*slash = 0;
		if (mkdir(copy, 0755) < 0 && errno != EEXIST && errno != EROFS)
			error = -errno;
		*slash = '/';
	}
	if (!error && mkdir(copy, 0700) < 0 && errno != EEXIST)
		error = -errno;
	free(copy);
	return error;
}

/* Nobody else may have put it there, or be able to put something into it. */
static int check_owner(const char *path)
{
	struct stat st;

	if (lstat(path, &st) < 0) {
		int error = -errno;

		log_error("runtime folder %s: %s", path, strerror(-error));
		return error;
	}
	if (!S_ISDIR(st.st_mode) || st.st_uid != geteuid() ||
	    (st.st_mode & 022)) {
		log_error("runtime folder %s must be a folder that is yours and that only you can write: set OBJMAP_RUNTIME_DIR to another one",
			  path);
		return -EPERM;
	}
	return 0;
}

static char *runtime_path(void)
{
	const char *given = getenv("OBJMAP_RUNTIME_DIR");
	const char *xdg = getenv("XDG_RUNTIME_DIR");
	char *path;
	int n;

	if (given && *given)
		return strdup(given);
	if (geteuid() == 0)
		return strdup("/run/objmap");
	if (xdg && *xdg)
		n = asprintf(&path, "%s/objmap", xdg);
	else
		n = asprintf(&path, "/tmp/objmap-%u", (unsigned int)geteuid());
	return n < 0 ? NULL : path;
}

static char *runtime;
static pthread_once_t runtime_once = PTHREAD_ONCE_INIT;

static void runtime_find(void)
{
	char *path = runtime_path();
	int error = path ? make_folder(path) : -ENOMEM;

	if (error)
		log_error("runtime folder %s: %s: set OBJMAP_RUNTIME_DIR to another one",
			  path ? path : "", strerror(-error));
	else if (check_owner(path) == 0)
		/* A daemon may change its working directory. */
		runtime = realpath(path, NULL);
	free(path);
}

const char *runtime_dir(void)
{
	pthread_once(&runtime_once, runtime_find);
	return runtime;
}

static char *state_path(const char *given)
{
	const char *xdg = getenv("XDG_STATE_HOME"), *home = getenv("HOME");
	char *path;
	int n;

	if (given && *given)
		return strdup(given);
	if (geteuid() == 0)
		return strdup("/var/lib/objmap");
	if (xdg && *xdg)
		n = asprintf(&path, "%s/objmap", xdg);
	else
		n = asprintf(&path, "%s/.local/state/objmap", home ? home : "");
	return n < 0 ? NULL : path;
}

char *state_dir(const char *given)
{
	char *path = state_path(given), *real = NULL;
	int error = path ? make_folder(path) : -ENOMEM;
	struct statfs fs;

	if (!error && (statfs(path, &fs) < 0 || access(path, W_OK | X_OK) < 0))
		error = -errno;
	if (error)
		log_error("state folder %s: %s: name another one with --state DIR",
			  path ? path : "", strerror(-error));
	else if (network_file_system(&fs))
		log_error("state folder %s is on a network file system (%s), where locks and fsync cannot be trusted: name a local one with --state DIR",
			  path, network_file_system(&fs));
	else
		real = realpath(path, NULL);
	free(path);
	return real;
}
