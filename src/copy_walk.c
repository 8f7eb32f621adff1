/* copy_walk.c: walks a stage by its extents. */
#include "src/copy.h"

static int walk_fill(struct walk *walk, uint64_t offset)
{
	struct extent_list list = { .extents = walk->extents, .max = WALK_EXTENTS };
	int error;

	walk->nr = walk->at = 0;
	walk->offset = offset;
	error = stage_extents(walk->stage, stage_size(walk->stage) - offset,
			      offset, &list);
	if (!error)
		walk->nr = list.nr;
	return error;
}

static bool extent_is_zero(const struct extent *extent)
{
	return (extent->flags & EXTENT_ZERO) != 0;
}

int walk_next(struct walk *walk, uint64_t offset, uint64_t *count, bool *zero)
{
	struct extent *extent;
	int error;

	while (walk->at < walk->nr &&
	       walk->offset + walk->extents[walk->at].count <= offset)
		walk->offset += walk->extents[walk->at++].count;
	if (walk->at == walk->nr) {
		error = walk_fill(walk, offset);
		if (error)
			return error;
	}
	extent = &walk->extents[walk->at];
	*zero = extent_is_zero(extent);
	*count = walk->offset + extent->count - offset;
	/* Neighbours may differ in flags that do not matter here. */
	while (walk->at + 1 < walk->nr &&
	       extent_is_zero(&walk->extents[walk->at + 1]) == *zero) {
		walk->offset += walk->extents[walk->at++].count;
		*count += walk->extents[walk->at].count;
	}
	return 0;
}
