/* aside.c: writes that could not go where they belong, kept in the state folder. */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "src/aside.h"
#include "src/durable.h"

/* Makes STATE, STATE/OWNER and STATE/OWNER/NAME, and makes sure that they stay. */
static int make_folders(const char *state, const char *parent, const char *folder)
{
	int error;

	if ((mkdir(state, 0700) < 0 && errno != EEXIST) ||
	    (mkdir(parent, 0700) < 0 && errno != EEXIST) || mkdir(folder, 0700) < 0)
		return -errno;
	error = durable_name(state);
	if (!error)
		error = durable_folder(state);
	if (!error)
		error = durable_folder(parent);
	if (error)
		rmdir(folder);
	return error;
}

static void file_path(const struct aside *aside, const char *name,
		      char path[PATH_MAX + 32])
{
	snprintf(path, PATH_MAX + 32, "%s/%s", aside->folder, name);
}

static int make_file(const struct aside *aside, const char *name)
{
	char path[PATH_MAX + 32];
	int fd;

	file_path(aside, name, path);
	fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	return fd < 0 ? -errno : fd;
}

int aside_open(struct aside *aside, const char *state, const char *owner,
	       const char *name, const char *bytes)
{
	char parent[PATH_MAX - 64];
	int length, error, fd;

	aside->index = NULL;
	aside->bytes = NULL;
	aside->fd = -1;
	aside->position = 0;
	length = snprintf(parent, sizeof(parent), "%s/%s", state, owner);
	snprintf(aside->folder, sizeof(aside->folder), "%s/%s", parent, name);
	if (length < 0 || (size_t)length >= sizeof(parent))
		return -ENAMETOOLONG;
	error = make_folders(state, parent, aside->folder);
	if (error)
		return error;
	aside->bytes = bytes;
	aside->fd = make_file(aside, bytes);
	if (aside->fd < 0)
		return aside->fd;
	fd = make_file(aside, "index");
	if (fd < 0)
		return fd;
	aside->index = fdopen(fd, "w");
	if (aside->index)
		return 0;
	error = -errno;
	close(fd);
	return error;
}

int aside_write(struct aside *aside, const void *data, size_t count)
{
	const char *at = data;
	ssize_t n;

	while (count) {
		n = write(aside->fd, at, count);
		if (n < 0 && errno != EINTR)
			return -errno;
		if (n > 0) {
			at += n;
			count -= (size_t)n;
			aside->position += (uint64_t)n;
		}
	}
	return 0;
}

static int make_durable(struct aside *aside)
{
	if (fflush(aside->index) != 0 || ferror(aside->index))
		return errno ? -errno : -EIO;
	if (fsync(aside->fd) < 0 || fsync(fileno(aside->index)) < 0)
		return -errno;
	return durable_folder(aside->folder);
}

/* The folder and what is in it: half of it would only be in the way of the whole. */
static void take_away(const struct aside *aside)
{
	const char *const names[] = { aside->bytes, "index" };
	char path[PATH_MAX + 32];

	for (unsigned int i = 0; i < 2; i++) {
		file_path(aside, names[i], path);
		unlink(path);
	}
	rmdir(aside->folder);
}

int aside_close(struct aside *aside, int error)
{
	if (!error)
		error = make_durable(aside);
	if (aside->index)
		fclose(aside->index);
	if (aside->fd >= 0)
		close(aside->fd);
	if (error && aside->bytes)
		take_away(aside);
	return error;
}
