/* dir_object.c: an object as a file.
 *
 * The content comes first, so that a range of it lies at its own offset and
 * dd or cp can take it out; then the metadata's text; then a trailer of 40
 * bytes, by which a file is known as a whole object.  Little-endian:
 *
 *	byte  bytes
 *	0     n		content
 *	n     m		metadata, lines of NAME=VALUE\n, at most 1536 bytes
 *	n+m   8		"objmapF1"
 *	n+m+8   8	n
 *	n+m+16  4	m
 *	n+m+20  4	version of this layout: 1
 *	n+m+24  8	id: random, new at every put; its tag, as 16 hex digits
 *	n+m+32  4	zero
 *	n+m+36  4	CRC-32C of the metadata and of the trailer's first 36 bytes
 *
 * The file ends there; one that is shorter, longer or does not match is no
 * object.  The content has no checksum here: a volume's refs and frame tables
 * have, and check every byte whatever store it came from. */
#include <endian.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include "backends/store/dir.h"
#include "src/crc32c.h"
#include "src/stage/iov.h"

#define VERSION 1

static const char magic[8] = { 'o', 'b', 'j', 'm', 'a', 'p', 'F', '1' };

struct trailer {
	char magic[8];
	uint64_t count;
	uint32_t metadata;
	uint32_t version;
	uint64_t id;
	uint32_t zero;
	uint32_t crc;
};
_Static_assert(sizeof(struct trailer) == 40, "the layout of the file");
_Static_assert(offsetof(struct trailer, crc) == 36, "the layout of the file");

static uint32_t trailer_crc(const struct trailer *trailer, const char *metadata,
			    size_t length)
{
	return crc32c(crc32c(0, metadata, length), trailer,
		      offsetof(struct trailer, crc));
}

typedef ssize_t transfer(int fd, const struct iovec *iov, int nr, off_t offset);

/* Moves all of @iov, which is used up, in as few calls as it takes. */
static int move_all(transfer *move, int fd, struct iovec *iov, unsigned int nr,
		    off_t offset)
{
	ssize_t moved;

	for (;;) {
		while (nr > 0 && iov->iov_len == 0) {
			iov++;
			nr--;
		}
		if (nr == 0)
			return 0;
		moved = move(fd, iov, nr < IOV_MAX ? (int)nr : IOV_MAX, offset);
		if (moved < 0 && errno == EINTR)
			continue;
		if (moved < 0)
			return -errno;
		if (moved == 0)
			return move == pwritev ? -ENOSPC : -EBADMSG;
		offset += moved;
		for (; nr > 0 && (size_t)moved >= iov->iov_len; iov++, nr--)
			moved -= (ssize_t)iov->iov_len;
		if (nr > 0) {
			iov->iov_base = (char *)iov->iov_base + moved;
			iov->iov_len -= (size_t)moved;
		}
	}
}

int object_write(int fd, const struct store_request *request, uint64_t id)
{
	const struct store_metadata *metadata = request->metadata;
	size_t length = metadata ? metadata->length : 0;
	struct trailer trailer = {
		.count = htole64(request->count), .metadata = htole32((uint32_t)length),
		.version = htole32(VERSION), .id = htole64(id),
	};
	struct iovec *iov = malloc((request->nr_iov + 2) * sizeof(*iov));
	unsigned int nr = request->nr_iov;
	int error;

	if (!iov)
		return -ENOMEM;
	memcpy(trailer.magic, magic, sizeof(magic));
	trailer.crc = htole32(trailer_crc(&trailer, metadata ? metadata->text : "", length));
	if (nr)
		memcpy(iov, request->iov, nr * sizeof(*iov));
	iov[nr].iov_base = metadata ? (char *)(uintptr_t)metadata->text : NULL;
	iov[nr++].iov_len = length;
	iov[nr].iov_base = &trailer;
	iov[nr++].iov_len = sizeof(trailer);
	error = move_all(pwritev, fd, iov, nr, 0);
	free(iov);
	return error;
}

int object_read_head(int fd, struct object_head *head,
		     struct store_metadata *metadata)
{
	char end[STORE_METADATA_MAX + sizeof(struct trailer)];
	struct trailer trailer;
	size_t want, length;
	struct iovec iov;
	struct stat st;
	uint64_t size;
	int error;

	if (fstat(fd, &st) < 0)
		return -errno;
	size = (uint64_t)st.st_size;
	if (!S_ISREG(st.st_mode) || size < sizeof(trailer))
		return -EBADMSG;
	want = size < sizeof(end) ? size : sizeof(end);
	iov = (struct iovec){ .iov_base = end, .iov_len = want };
	error = move_all(preadv, fd, &iov, 1, (off_t)(size - want));
	if (error)
		return error;

	memcpy(&trailer, end + want - sizeof(trailer), sizeof(trailer));
	length = le32toh(trailer.metadata);
	if (memcmp(trailer.magic, magic, sizeof(magic)) != 0 ||
	    le32toh(trailer.version) != VERSION || trailer.zero ||
	    length > STORE_METADATA_MAX ||
	    length + sizeof(trailer) > size ||
	    le64toh(trailer.count) != size - sizeof(trailer) - length ||
	    le32toh(trailer.crc) !=
	    trailer_crc(&trailer, end + want - sizeof(trailer) - length, length))
		return -EBADMSG;
	head->count = le64toh(trailer.count);
	head->id = le64toh(trailer.id);
	head->last_modified = (uint64_t)st.st_mtim.tv_sec;
	if (metadata) {
		metadata->length = length;
		memcpy(metadata->text, end + want - sizeof(trailer) - length, length);
	}
	return 0;
}

int object_read(int fd, const struct store_request *request, uint64_t offset,
		uint64_t count)
{
	struct iovec *iov;
	unsigned int nr;
	int error;

	if (count == 0)
		return 0;
	iov = malloc(request->nr_iov * sizeof(*iov));
	if (!iov)
		return -ENOMEM;
	nr = iov_slice(request->iov, request->nr_iov, 0, count, iov);
	error = move_all(preadv, fd, iov, nr, (off_t)offset);
	free(iov);
	return error;
}

void object_tag(uint64_t id, char tag[STORE_TAG_MAX])
{
	snprintf(tag, STORE_TAG_MAX, "%016llx", (unsigned long long)id);
}
