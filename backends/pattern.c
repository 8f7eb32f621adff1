/* pattern.c: a read-only device whose every 8 bytes hold their own offset,
 * big-endian: pattern:SIZE.  The oracle of tests and benchmarks: whoever reads
 * it knows what each byte must be. */
#include <endian.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "src/log.h"
#include "src/place.h"

/* Fills @count bytes with those of the device from @offset on. */
static void pattern_fill(char *to, size_t count, uint64_t offset)
{
	uint64_t word;

	while (count) {
		size_t skip = offset % 8, length = 8 - skip;

		if (length > count)
			length = count;
		word = htobe64(offset - skip);
		if (length == 8)
			memcpy(to, &word, 8);	/* the compiler makes a store of it */
		else
			memcpy(to, (char *)&word + skip, length);
		to += length;
		count -= length;
		offset += length;
	}
}

static void pattern_read(struct stage *stage, struct request *request)
{
	uint64_t offset = request->offset;

	for (unsigned int i = 0; i < request->nr_iov; i++) {
		pattern_fill(request->iov[i].iov_base, request->iov[i].iov_len,
			     offset);
		offset += request->iov[i].iov_len;
	}
	request_complete(request, 0);
}

/* The doorway lets no change through. */
static void pattern_refuse(struct stage *stage, struct request *request)
{
	request_complete(request, -EROFS);
}

/* Flush and prefetch. */
static void pattern_accept(struct stage *stage, struct request *request)
{
	request_complete(request, 0);
}

static void pattern_extents(struct stage *stage, struct request *request)
{
	extent_list_add(request->extents, request->count, EXTENT_LOCAL);
	request_complete(request, 0);
}

static void pattern_close(struct stage *stage)
{
	free(stage);
}

static const struct stage_ops pattern_ops = {
	.name	  = "pattern",
	.read	  = pattern_read,
	.write	  = pattern_refuse,
	.zero	  = pattern_refuse,
	.trim	  = pattern_refuse,
	.flush	  = pattern_accept,
	.extents  = pattern_extents,
	.prefetch = pattern_accept,
	.close	  = pattern_close,
};

int pattern_open(uint64_t size, struct stage **result)
{
	struct geometry geometry = {
		.size = size, .read_unit = 1, .write_unit = 1,
		.preferred = 4096, .max_request = 1u << 30,
		.flags = STAGE_READ_ONLY | STAGE_NEVER_WAITS,
	};
	struct stage *stage;

	if (size == 0 || size > INT64_MAX) {
		log_error("pattern: a device has from 1 byte to 8 EiB; give pattern:SIZE");
		return -EINVAL;
	}
	stage = calloc(1, sizeof(*stage));
	if (!stage)
		return -ENOMEM;
	stage_init(stage, &pattern_ops, NULL, &geometry);
	*result = stage;
	return 0;
}
