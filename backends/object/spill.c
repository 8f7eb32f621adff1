/* spill.c: files of written bytes that wait to be published. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "backends/object/object.h"
#include "src/log.h"

#define PIECES_MAX 64

static int open_unnamed(const char *folder)
{
	char path[PATH_MAX];
	int fd = open(folder, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);

	if (fd >= 0 || (errno != EOPNOTSUPP && errno != EISDIR && errno != ENOENT))
		return fd;
	snprintf(path, sizeof(path), "%s/spill-XXXXXX", folder);
	fd = mkostemp(path, O_CLOEXEC);
	if (fd >= 0)
		unlink(path);
	return fd;
}

int spill_open(const char *folder, struct spill **result)
{
	struct spill *spill = calloc(1, sizeof(*spill));

	if (!spill)
		return -ENOMEM;
	spill->fd = open_unnamed(folder);
	if (spill->fd < 0) {
		int error = -errno;

		log_error("%s: no file for unsaved writes can be made there: %s; --state DIR names another folder",
			  folder, strerror(-error));
		free(spill);
		return error;
	}
	*result = spill;
	return 0;
}

void spill_close(struct spill *spill)
{
	close(spill->fd);
	free(spill);
}

/* All bytes of @iov from or to byte @at on. */
static int transfer(const struct spill *spill, uint64_t at, const struct iovec *iov,
		    unsigned int nr_iov, bool write)
{
	struct iovec pieces[PIECES_MAX];
	size_t skip = 0;

	while (nr_iov) {
		int nr = 0;
		ssize_t n;

		for (; nr < PIECES_MAX && (unsigned int)nr < nr_iov; nr++)
			pieces[nr] = iov[nr];
		pieces[0].iov_base = (char *)pieces[0].iov_base + skip;
		pieces[0].iov_len -= skip;
		n = write ? pwritev(spill->fd, pieces, nr, (off_t)at) :
			    preadv(spill->fd, pieces, nr, (off_t)at);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		if (n == 0 && pieces[0].iov_len)
			return write ? -ENOSPC : -EIO;
		at += (uint64_t)n;
		skip += (size_t)n;
		while (nr_iov && skip >= iov->iov_len) {
			skip -= iov->iov_len;
			iov++;
			nr_iov--;
		}
	}
	return 0;
}

int spill_read(const struct spill *spill, uint64_t at, const struct iovec *iov,
	       unsigned int nr_iov)
{
	return transfer(spill, at, iov, nr_iov, false);
}

int spill_write(const struct spill *spill, uint64_t at, const struct iovec *iov,
		unsigned int nr_iov)
{
	return transfer(spill, at, iov, nr_iov, true);
}

bool spill_has_writers(const struct spill *spills)
{
	for (; spills; spills = spills->next)
		if (spills->writers)
			return true;
	return false;
}

bool spill_has_readers(const struct spill *spills)
{
	for (; spills; spills = spills->next)
		if (spills->readers)
			return true;
	return false;
}
