/* pending.h: what was written and is not yet committed, by chunk.
 *
 * An ordered set of entries that do not overlap: one chunk with its content, or
 * a run of any length that became a hole.  Putting an entry over others costs
 * O(entries touched + log n).  It has no lock: whoever owns the table guards it. */
#ifndef OBJMAP_VOLUME_PENDING_H
#define OBJMAP_VOLUME_PENDING_H

#include <stdbool.h>
#include <stdint.h>

#include "src/volume/buffer.h"

struct pending_entry {
	uint32_t first;		/* chunk */
	uint32_t nr;		/* chunks; 1 when there is content */
	struct buffer *buffer;	/* a reference; NULL: holes */
	uint32_t weight;	/* a treap: higher is nearer to the top */
	struct pending_entry *left, *right;
};

struct pending {
	struct pending_entry *top;
	uint64_t nr_entries, nr_data, nr_spare;
	struct pending_entry *spare;	/* by ->right; see pending.c */
	uint64_t seed;
};

/* What an entry costs beside its content, counted against the limit. */
#define PENDING_ENTRY_COST (2 * sizeof(struct pending_entry))

/* Bytes of memory that @table holds. */
uint64_t pending_cost(const struct pending *table, uint32_t chunk_size);

/* The entry that has @chunk, else the next after it, else NULL. */
const struct pending_entry *pending_find(const struct pending *table,
					 uint32_t chunk);

/* Chunks @first to @first + @nr are from now on @buffer (then @nr is 1, and the
 * caller's reference becomes the table's), or holes.  Returns 0 or -ENOMEM;
 * nothing has changed then. */
int pending_put(struct pending *table, uint32_t first, uint32_t nr,
		struct buffer *buffer);

/* Moves all of @newer over what is in @table; @newer is empty afterwards.
 * Cannot fail; @newer was filled by pending_put() only. */
void pending_merge(struct pending *table, struct pending *newer);

/* Forgets everything from chunk @first on. */
void pending_cut(struct pending *table, uint32_t first);
void pending_clear(struct pending *table);

#endif
