/* chunked.c: ChunkedReaderAt: lets only aligned, in-range operations through.
 *
 * The stage above has cut and aligned everything, so what is refused here is a
 * fault of ours: it is logged, and never reaches the volume. */
#include <errno.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdlib.h>

#include "src/log.h"
#include "src/stage/stage.h"

static bool is_aligned(const struct stage *stage, const struct request *request,
		       uint32_t unit)
{
	uint64_t end = request->offset + request->count;

	return request->offset % unit == 0 &&
	       (end % unit == 0 || stage_ends_at(stage, end));
}

static void refuse(const struct stage *stage, struct request *request,
		   uint32_t unit)
{
	log_error("%s of %" PRIu64 " bytes at %" PRIu64 " does not fit units of %" PRIu32
		  " bytes of a device of %" PRIu64 "; this is a fault of objmap, please report it",
		  request_op_name(request->op), request->count, request->offset,
		  unit, stage_size(stage));
	request_complete(request, -EINVAL);
}

static void chunked_read(struct stage *stage, struct request *request)
{
	if (is_aligned(stage, request, stage->geometry.read_unit))
		stage_submit(stage->next, request);
	else
		refuse(stage, request, stage->geometry.read_unit);
}

/* Write, zero and trim. */
static void chunked_change(struct stage *stage, struct request *request)
{
	if (is_aligned(stage, request, stage->geometry.write_unit))
		stage_submit(stage->next, request);
	else
		refuse(stage, request, stage->geometry.write_unit);
}

static void chunked_close(struct stage *stage)
{
	free(stage);
}

static const struct stage_ops chunked_ops = {
	.name	  = "chunked",
	.read	  = chunked_read,
	.write	  = chunked_change,
	.zero	  = chunked_change,
	.trim	  = chunked_change,
	.flush	  = stage_pass_flush,
	.extents  = stage_pass_extents,
	.prefetch = stage_pass_prefetch,
	.close	  = chunked_close,
};

int chunked_open(struct stage *next, struct stage **result)
{
	struct geometry geometry = next->geometry;
	struct stage *stage = calloc(1, sizeof(*stage));

	if (!stage)
		return -ENOMEM;
	geometry.size = stage_size(next);
	stage_init(stage, &chunked_ops, next, &geometry);
	*result = stage;
	return 0;
}
