/* walk.h: going over a volume's map, nodes read ahead. */
#ifndef OBJMAP_VOLUME_WALK_H
#define OBJMAP_VOLUME_WALK_H

#include "src/volume/volume.h"

struct map_walk {
	struct store *store;
	const struct head *head;
	enum store_cause cause;
	/* Told of every node before it is read, in order, but somewhat ahead of the
	 * chunks.  @whole: no chunk below it is
	 * overridden by head's recent refs.  0: go on below it; 1: pass over it (of
	 * what is recent too); negative: stop.  NULL: go on. */
	int (*node)(void *context, unsigned int level, uint32_t node,
		    const struct ref *ref, bool whole);
	/* Told of every chunk that is no hole, ascending.  0: go on.  NULL: the
	 * chunks are not wanted. */
	volume_visit *chunk;
	/* Told of a node that is missing (-ENOENT), damaged (-EBADMSG) or could not
	 * be read.  0: go on without it; else stop with that. */
	int (*lost)(void *context, const char *key, int error, const char *what);
	void *context;
};

/* Returns 0, or what stopped it. */
int map_walk(const struct map_walk *walk);

/* Says why @key, which @head names, cannot be had, and what to do: -ESTALE where
 * head has moved on since (gc may have taken it), else -EIO. */
int walk_say_lost(struct store *store, const struct head *head, const char *key,
		  int error, const char *what);

#endif
