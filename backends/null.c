/* null.c: a device that reads as zeros and forgets what is written:
 * null:SIZE.  It makes the cost of everything above it measurable. */
#include <errno.h>
#include <stdlib.h>

#include "src/log.h"
#include "src/place.h"
#include "src/stage/iov.h"

static void null_read(struct stage *stage, struct request *request)
{
	iov_zero(request->iov, request->nr_iov, 0, request->count);
	request_complete(request, 0);
}

/* Write, zero, trim, flush, prefetch. */
static void null_accept(struct stage *stage, struct request *request)
{
	request_complete(request, 0);
}

static void null_extents(struct stage *stage, struct request *request)
{
	extent_list_add(request->extents, request->count,
			EXTENT_HOLE | EXTENT_ZERO | EXTENT_LOCAL);
	request_complete(request, 0);
}

static void null_close(struct stage *stage)
{
	free(stage);
}

static const struct stage_ops null_ops = {
	.name	  = "null",
	.read	  = null_read,
	.write	  = null_accept,
	.zero	  = null_accept,
	.trim	  = null_accept,
	.flush	  = null_accept,
	.extents  = null_extents,
	.prefetch = null_accept,
	.close	  = null_close,
};

int null_open(uint64_t size, struct stage **result)
{
	struct geometry geometry = {
		.size = size, .read_unit = 1, .write_unit = 1,
		.preferred = 4096, .max_request = 1u << 30,
		.flags = STAGE_NATIVE_FUA | STAGE_FAST_ZERO | STAGE_NEVER_WAITS,
	};
	struct stage *stage;

	if (size == 0 || size > INT64_MAX) {
		log_error("null: a device has from 1 byte to 8 EiB; give null:SIZE");
		return -EINVAL;
	}
	stage = calloc(1, sizeof(*stage));
	if (!stage)
		return -ENOMEM;
	stage_init(stage, &null_ops, NULL, &geometry);
	*result = stage;
	return 0;
}
