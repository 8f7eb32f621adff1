/* dirty.h: which bytes of a device were written and where they are now: ranges in
 * the order of their offsets, never overlapping.
 *
 * Kept as sorted leaves of a few hundred ranges each, so that a change in a map of a
 * million ranges moves kilobytes, not megabytes.  Whoever uses a map locks it. */
#ifndef OBJMAP_OBJECT_DIRTY_H
#define OBJMAP_OBJECT_DIRTY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct spill;

struct dirty_range {
	uint64_t start, end;	/* bytes of the device: [start, end), not empty */
	struct spill *spill;	/* the file that has them; NULL: they are zeros */
	uint64_t at;		/* byte of the file where @start is */
};

struct dirty_leaf;

struct dirty_map {
	struct dirty_leaf **leaves;
	size_t nr_leaves, room;
	struct dirty_leaf *spare;	/* so that a change that began cannot fail */
	size_t nr;		/* ranges */
	uint64_t count;		/* bytes covered */
};

/* Bytes [start, end) are at @at of @spill now, wherever they were.  0, or -ENOMEM
 * with nothing changed. */
int dirty_set(struct dirty_map *map, uint64_t start, uint64_t end,
	      struct spill *spill, uint64_t at);

/* The first range that ends after @offset, cut to begin at @offset or later.
 * False: there is none. */
bool dirty_next(const struct dirty_map *map, uint64_t offset,
		struct dirty_range *range);

/* Lays @above over @below, which then holds both; @above is empty then.  0, or
 * -ENOMEM: @below holds both as far as it goes, and @above is as it was, so that
 * reading through both still gives the same, and it can be tried again. */
int dirty_merge(struct dirty_map *below, struct dirty_map *above);

void dirty_clear(struct dirty_map *map);

#endif
