/* keep.c: writes that a lost object could not take are kept aside, not dropped.
 *
 * STATE/object-HASH/unsaved-TIME/bytes holds one range after the other, and `index`, a
 * text, says where each belongs. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "backends/object/object.h"
#include "src/log.h"
#include "src/units.h"

#define PIECE (1u << 20)

static int write_all(int fd, const char *at, size_t count)
{
	while (count) {
		ssize_t n = write(fd, at, count);

		if (n < 0 && errno != EINTR)
			return -errno;
		if (n > 0) {
			at += n;
			count -= (size_t)n;
		}
	}
	return 0;
}

static int copy_range(const struct dirty_range *range, int fd, char *buffer)
{
	uint64_t done = 0, count = range->end - range->start;

	while (done < count) {
		struct iovec iov = { buffer, count - done < PIECE ? count - done : PIECE };
		int error = spill_read(range->spill, range->at + done, &iov, 1);

		if (!error)
			error = write_all(fd, buffer, iov.iov_len);
		if (error)
			return error;
		done += iov.iov_len;
	}
	return 0;
}

/* Both maps are one by now, or the upper lies in `open`, the lower in `sealed`: as
 * their order of reading says, the lower is written first. */
static int save_map(const struct dirty_map *map, FILE *index, int fd, char *buffer,
		    uint64_t *position)
{
	struct dirty_range range;
	uint64_t offset = 0;
	int error = 0;

	for (; !error && dirty_next(map, offset, &range); offset = range.end) {
		uint64_t count = range.end - range.start;

		if (!range.spill) {
			fprintf(index, "zero %" PRIu64 " %" PRIu64 "\n", range.start,
				count);
			continue;
		}
		fprintf(index, "bytes %" PRIu64 " %" PRIu64 " %" PRIu64 "\n",
			range.start, count, *position);
		error = copy_range(&range, fd, buffer);
		*position += count;
	}
	return error;
}

static int sync_folder(const char *path)
{
	int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	int error = fd < 0 || fsync(fd) < 0 ? -errno : 0;

	if (fd >= 0)
		close(fd);
	return error;
}

static int save_into(struct object *object, const char *folder, uint64_t *bytes)
{
	char path[PATH_MAX + 16], *buffer = malloc(PIECE);
	FILE *index = NULL;
	int error, fd;

	snprintf(path, sizeof(path), "%s/bytes", folder);
	fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	snprintf(path, sizeof(path), "%s/index", folder);
	if (fd >= 0)
		index = fopen(path, "wxe");
	error = !buffer ? -ENOMEM : !index ? -errno : 0;
	if (!error) {
		fprintf(index, "objmap unsaved 1\nplace %s\netag %s\nsize %" PRIu64 "\n",
			object->place, object->tag, stage_size(&object->stage));
		error = save_map(&object->sealed, index, fd, buffer, bytes);
	}
	if (!error)
		error = save_map(&object->open, index, fd, buffer, bytes);
	if (!error)
		fprintf(index, "end\n");
	if (!error && (fflush(index) != 0 || ferror(index) || fsync(fileno(index)) < 0 ||
		       fsync(fd) < 0))
		error = errno ? -errno : -EIO;
	if (index)
		fclose(index);
	if (fd >= 0)
		close(fd);
	free(buffer);
	return error ? error : sync_folder(folder);
}

/* STATE/object-HASH: the hash of the place, 16 hexadecimal digits. */
static int name_folder(const struct object *object, char *parent, char *folder,
		       size_t size)
{
	unsigned char hash[32];
	int length;

	if (EVP_Digest(object->place, strlen(object->place), hash, NULL, EVP_sha256(),
		       NULL) != 1)
		return -EIO;
	length = snprintf(parent, size, "%s/object-", object->state);
	for (int i = 0; i < 8 && length > 0 && (size_t)length < size; i++)
		length += snprintf(parent + length, size - (size_t)length, "%02x", hash[i]);
	if (length < 0 || (size_t)length + 64 > size)
		return -ENAMETOOLONG;
	memcpy(folder, parent, (size_t)length);
	snprintf(folder + length, size - (size_t)length, "/unsaved-%llu",
		 (unsigned long long)time(NULL));
	return 0;
}

void object_keep_unsaved(struct object *object)
{
	char parent[PATH_MAX], folder[PATH_MAX], kept[UNITS_TEXT];
	uint64_t bytes = 0;
	int error;

	if (!object->lost || (!object->open.nr && !object->sealed.nr))
		return;
	error = name_folder(object, parent, folder, sizeof(folder));
	if (!error && ((mkdir(parent, 0700) < 0 && errno != EEXIST) ||
		       mkdir(folder, 0700) < 0))
		error = -errno;
	if (!error)
		error = sync_folder(object->state);
	if (!error)
		error = sync_folder(parent);
	if (!error)
		error = save_into(object, folder, &bytes);
	if (error)
		log_error("%s: unsaved writes could not be kept below %s: %s",
			  object->place, object->state, strerror(-error));
	else
		log_error("%s: %s of unsaved writes were kept in %s; its index says where each range belongs",
			  object->place, size_format(bytes, kept), folder);
}
