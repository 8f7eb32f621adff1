/* output.c: writing a file that stays sparse, or a device of which nothing old may
 * be left. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/fs.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "contrib/rescue/output.h"

static int failed(const struct output *output, const char *what)
{
	fprintf(stderr, "objmap-rescue: %s: %s: %m\n", output->path, what);
	return -1;
}

static int open_device(struct output *output, uint64_t size)
{
	uint64_t room;

	output->fd = open(output->path, O_WRONLY | O_EXCL | O_CLOEXEC);
	if (output->fd < 0)
		return failed(output, "open");
	if (ioctl(output->fd, BLKGETSIZE64, &room)) {
		failed(output, "size");
	} else if (room < size) {
		fprintf(stderr, "objmap-rescue: %s has %" PRIu64 " bytes, and %" PRIu64
			" are needed\n", output->path, room, size);
	} else {
		output->device = true;
		return 0;
	}
	close(output->fd);
	return -1;
}

int output_open(struct output *output, const char *path, uint64_t size, bool overwrite)
{
	struct stat status;

	*output = (struct output) { .path = path };
	if (stat(path, &status) == 0) {
		if (!overwrite) {
			fprintf(stderr, "objmap-rescue: %s exists; --overwrite replaces "
				"what is in it\n", path);
			return -1;
		}
		if (S_ISBLK(status.st_mode))
			return open_device(output, size);
		if (!S_ISREG(status.st_mode)) {
			fprintf(stderr, "objmap-rescue: %s is neither a file nor a block "
				"device\n", path);
			return -1;
		}
	}
	output->fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC |
			  (overwrite ? 0 : O_EXCL), 0666);
	if (output->fd < 0)
		return failed(output, "open");
	if (size > INT64_MAX) {
		errno = EFBIG;
	} else if (!ftruncate(output->fd, (off_t)size)) {
		return 0;
	}
	failed(output, "set its size");
	close(output->fd);
	return -1;
}

static int write_all(const struct output *output, const uint8_t *bytes, size_t count,
		     uint64_t offset)
{
	ssize_t done;

	for (; count; count -= (size_t)done, bytes += done, offset += (uint64_t)done) {
		done = pwrite(output->fd, bytes, count, (off_t)offset);
		if (done < 0 && errno == EINTR)
			done = 0;
		else if (done < 0)
			return failed(output, "write");
	}
	return 0;
}

static bool all_zero(const uint8_t *bytes, size_t count)
{
	return !bytes[0] && memcmp(bytes, bytes + 1, count - 1) == 0;
}

int output_write(const struct output *output, const uint8_t *bytes, size_t count,
		 uint64_t offset)
{
	if (!count || (!output->device && all_zero(bytes, count)))
		return 0;
	return write_all(output, bytes, count, offset);
}

int output_zero(const struct output *output, uint64_t offset, uint64_t count)
{
	static const uint8_t zeros[1 << 20];
	uint64_t part;

	if (!output->device || !count)
		return 0;
	/* On a block device this is defined to read as zeros afterwards. */
	if (!fallocate(output->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
		       (off_t)offset, (off_t)count))
		return 0;
	for (; count; count -= part, offset += part) {
		part = count < sizeof(zeros) ? count : sizeof(zeros);
		if (write_all(output, zeros, part, offset))
			return -1;
	}
	return 0;
}

int output_close(struct output *output)
{
	int error = 0;

	if (fsync(output->fd))
		error = failed(output, "fsync");
	if (close(output->fd) && !error)
		error = failed(output, "close");
	return error;
}
