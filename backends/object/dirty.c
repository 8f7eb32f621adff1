/* dirty.c: a sorted map of byte ranges; see dirty.h. */
#include "backends/object/dirty.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define LEAF_MAX 256u

struct dirty_leaf {
	size_t nr;			/* > 0 */
	struct dirty_range ranges[LEAF_MAX];
};

/* A place in the map: before range @at of leaf @leaf. */
struct spot {
	size_t leaf, at;
};

static uint64_t leaf_end(const struct dirty_leaf *leaf)
{
	return leaf->ranges[leaf->nr - 1].end;
}

/* The first range that ends after @offset; leaf nr_leaves when there is none. */
static struct spot find(const struct dirty_map *map, uint64_t offset)
{
	struct spot spot = { 0, 0 };
	size_t high = map->nr_leaves;

	while (spot.leaf < high) {
		size_t middle = spot.leaf + (high - spot.leaf) / 2;

		if (leaf_end(map->leaves[middle]) > offset)
			high = middle;
		else
			spot.leaf = middle + 1;
	}
	if (spot.leaf == map->nr_leaves)
		return spot;
	high = map->leaves[spot.leaf]->nr;
	while (spot.at < high) {
		size_t middle = spot.at + (high - spot.at) / 2;

		if (map->leaves[spot.leaf]->ranges[middle].end > offset)
			high = middle;
		else
			spot.at = middle + 1;
	}
	return spot;
}

static struct dirty_range *range_at(const struct dirty_map *map, struct spot spot)
{
	if (spot.leaf == map->nr_leaves)
		return NULL;
	return &map->leaves[spot.leaf]->ranges[spot.at];
}

bool dirty_next(const struct dirty_map *map, uint64_t offset,
		struct dirty_range *range)
{
	const struct dirty_range *found = range_at(map, find(map, offset));

	if (!found)
		return false;
	*range = *found;
	if (range->start < offset) {
		range->at += offset - range->start;
		range->start = offset;
	}
	return true;
}

/* ---- changing it -------------------------------------------------------------- */

/* Whatever dirty_set() does takes at most one leaf more. */
static int prepare(struct dirty_map *map)
{
	if (map->nr_leaves == map->room) {
		size_t room = map->room ? map->room * 2 : 8;
		void *grown = realloc(map->leaves, room * sizeof(*map->leaves));

		if (!grown)
			return -ENOMEM;
		map->leaves = grown;
		map->room = room;
	}
	if (!map->spare)
		map->spare = malloc(sizeof(*map->spare));
	return map->spare ? 0 : -ENOMEM;
}

/* The spare leaf becomes number @at of the list. */
static struct dirty_leaf *add_leaf(struct dirty_map *map, size_t at)
{
	struct dirty_leaf *leaf = map->spare;

	map->spare = NULL;
	leaf->nr = 0;
	memmove(&map->leaves[at + 1], &map->leaves[at],
		(map->nr_leaves - at) * sizeof(*map->leaves));
	map->leaves[at] = leaf;
	map->nr_leaves++;
	return leaf;
}

static void remove_leaf(struct dirty_map *map, size_t at)
{
	if (map->spare)
		free(map->leaves[at]);
	else
		map->spare = map->leaves[at];
	map->nr_leaves--;
	memmove(&map->leaves[at], &map->leaves[at + 1],
		(map->nr_leaves - at) * sizeof(*map->leaves));
}

/* Between changes every leaf has room for two more ranges. */
static void split_if_full(struct dirty_map *map, size_t at)
{
	struct dirty_leaf *full = map->leaves[at], *second;

	if (full->nr + 2 <= LEAF_MAX)
		return;
	second = add_leaf(map, at + 1);
	second->nr = full->nr / 2;
	full->nr -= second->nr;
	memcpy(second->ranges, &full->ranges[full->nr],
	       second->nr * sizeof(*second->ranges));
}

/* Puts @range before @spot; there is room. */
static void insert(struct dirty_map *map, struct spot spot,
		   const struct dirty_range *range)
{
	struct dirty_leaf *leaf;

	if (spot.leaf == map->nr_leaves) {	/* behind all others */
		spot.leaf--;
		spot.at = map->leaves[spot.leaf]->nr;
	}
	leaf = map->leaves[spot.leaf];
	assert(leaf->nr < LEAF_MAX);
	memmove(&leaf->ranges[spot.at + 1], &leaf->ranges[spot.at],
		(leaf->nr - spot.at) * sizeof(*leaf->ranges));
	leaf->ranges[spot.at] = *range;
	leaf->nr++;
	map->nr++;
	map->count += range->end - range->start;
}

/* Takes away the ranges that lie in [start, end) wholly, from @spot on. */
static void remove_inner(struct dirty_map *map, struct spot spot, uint64_t end)
{
	while (spot.leaf < map->nr_leaves) {
		struct dirty_leaf *leaf = map->leaves[spot.leaf];
		size_t nr = 0;

		while (spot.at + nr < leaf->nr &&
		       leaf->ranges[spot.at + nr].end <= end) {
			map->count -= leaf->ranges[spot.at + nr].end -
				      leaf->ranges[spot.at + nr].start;
			nr++;
		}
		leaf->nr -= nr;
		map->nr -= nr;
		memmove(&leaf->ranges[spot.at], &leaf->ranges[spot.at + nr],
			(leaf->nr - spot.at) * sizeof(*leaf->ranges));
		if (spot.at < leaf->nr)
			return;			/* this one ends later */
		if (leaf->nr == 0)
			remove_leaf(map, spot.leaf);
		else
			spot.leaf++;
		spot.at = 0;
	}
}

/* Takes [start, end) out of the map; there is room for one more range. */
static void cut_out(struct dirty_map *map, uint64_t start, uint64_t end)
{
	struct spot spot = find(map, start);
	struct dirty_range *range = range_at(map, spot), rest;

	if (range && range->start < start) {
		rest = *range;
		map->count -= range->end - start;
		range->end = start;
		if (rest.end > end) {
			rest.at += end - rest.start;
			rest.start = end;
			insert(map, (struct spot){ spot.leaf, spot.at + 1 }, &rest);
			return;
		}
		spot = find(map, start);
	}
	remove_inner(map, spot, end);
	range = range_at(map, find(map, start));
	if (range && range->start < end) {
		map->count -= end - range->start;
		range->at += end - range->start;
		range->start = end;
	}
}

/* Whether @range only goes on what is before @spot: then it was made longer. */
static bool joined(struct dirty_map *map, struct spot spot,
		   const struct dirty_range *range)
{
	struct dirty_range *before;

	if (map->nr == 0)
		return false;
	if (spot.at > 0) {
		before = &map->leaves[spot.leaf]->ranges[spot.at - 1];
	} else if (spot.leaf > 0) {
		struct dirty_leaf *leaf = map->leaves[spot.leaf - 1];

		before = &leaf->ranges[leaf->nr - 1];
	} else {
		return false;
	}
	if (before->end != range->start || before->spill != range->spill ||
	    (range->spill &&
	     before->at + (before->end - before->start) != range->at))
		return false;
	before->end = range->end;
	map->count += range->end - range->start;
	return true;
}

int dirty_set(struct dirty_map *map, uint64_t start, uint64_t end,
	      struct spill *spill, uint64_t at)
{
	struct dirty_range range = { start, end, spill, at };
	struct spot spot;
	int error = prepare(map);

	if (error)
		return error;
	cut_out(map, start, end);
	spot = find(map, start);
	if (map->nr_leaves == 0) {
		add_leaf(map, 0);
		spot.leaf = 1;		/* insert() puts it behind all others */
	}
	if (!joined(map, spot, &range))
		insert(map, spot, &range);
	if (spot.leaf == map->nr_leaves)
		spot.leaf--;
	split_if_full(map, spot.leaf);
	return 0;
}

int dirty_merge(struct dirty_map *below, struct dirty_map *above)
{
	struct dirty_range range;
	uint64_t offset = 0;
	int error;

	while (dirty_next(above, offset, &range)) {
		error = dirty_set(below, range.start, range.end, range.spill,
				  range.at);
		if (error)
			return error;
		offset = range.end;
	}
	dirty_clear(above);
	return 0;
}

void dirty_clear(struct dirty_map *map)
{
	for (size_t i = 0; i < map->nr_leaves; i++)
		free(map->leaves[i]);
	free(map->leaves);
	free(map->spare);
	memset(map, 0, sizeof(*map));
}
