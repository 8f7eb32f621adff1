/* durable.c: names that must still be there after a crash. */
#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "src/durable.h"

int durable_folder(const char *path)
{
	int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	/* EINVAL: a file system whose folders cannot be fsynced. */
	int error = fd < 0 || (fsync(fd) < 0 && errno != EINVAL) ? -errno : 0;

	if (fd >= 0)
		close(fd);
	return error;
}

int durable_name(const char *path)
{
	char *copy = strdup(path);
	int error = copy ? durable_folder(dirname(copy)) : -ENOMEM;

	free(copy);
	return error;
}
