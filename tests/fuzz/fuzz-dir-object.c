/* fuzz-dir-object.c: any bytes as a file of the directory store: what is taken for
 * a whole object is, byte for byte, what writing that object makes. */
#include <endian.h>
#include <sys/mman.h>
#include <unistd.h>

#include "backends/store/dir.h"
#include "src/crc32c.h"
#include "src/volume/format.h"
#include "tests/fuzz/fuzz.h"

#define TRAILER 40u	/* objmap-volume(5) */

static int fd, again;

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	fd = memfd_create("object", MFD_CLOEXEC);
	again = memfd_create("again", MFD_CLOEXEC);
	return fd < 0 || again < 0;
}

static void check_metadata(const struct store_metadata *metadata)
{
	static const char *const names[] = { METADATA_VOLUME, METADATA_FRAMES, "a", "" };
	static const size_t rooms[] = { 1, 37, STORE_METADATA_MAX };
	char value[STORE_METADATA_MAX];
	size_t i, k;
	int length;

	for (i = 0; i < 4; i++)
		for (k = 0; k < 3; k++) {
			length = store_metadata_find(metadata, names[i], value, rooms[k]);
			expect(length < 0 || ((size_t)length < rooms[k] && !value[length]));
		}
}

/* Reads the object of @file, and writes it anew. */
static void check_object(const uint8_t *file, size_t size)
{
	struct store_metadata metadata;
	struct store_request request = { .metadata = &metadata };
	uint8_t *content = malloc(size + 1), *back = malloc(size + 1);
	struct object_head head;
	struct iovec iov;

	expect(content && back);
	expect(ftruncate(fd, 0) == 0 && pwrite(fd, file, size, 0) == (ssize_t)size);
	if (object_read_head(fd, &head, &metadata) == 0) {
		expect(head.count + metadata.length + TRAILER == size);
		check_metadata(&metadata);
		iov = (struct iovec){ content, head.count };
		request.iov = &iov;
		request.nr_iov = 1;
		request.count = head.count;
		expect(object_read(fd, &request, 0, head.count) == 0);
		expect(memcmp(content, file, head.count) == 0);
		expect(ftruncate(again, 0) == 0);
		expect(object_write(again, &request, head.id) == 0);
		expect(pread(again, back, size + 1, 0) == (ssize_t)size);
		expect(memcmp(back, file, size) == 0);
	}
	free(content);
	free(back);
}

/* Lets the trailer's checksum be right. */
static void mend(uint8_t *file, size_t size)
{
	uint32_t length, crc;

	memcpy(&length, file + size - TRAILER + 16, sizeof(length));
	length = le32toh(length);
	if (length > size - TRAILER)
		return;
	crc = htole32(crc32c(0, file + size - TRAILER - length, length + TRAILER - 4));
	memcpy(file + size - 4, &crc, sizeof(crc));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t count)
{
	uint8_t *file = malloc(count + 1);

	expect(file);
	if (count)
		memcpy(file, data, count);
	check_object(file, count);
	if (count >= TRAILER) {
		mend(file, count);
		check_object(file, count);
	}
	free(file);
	return 0;
}
