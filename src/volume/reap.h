/* reap.h: objects that settled commits replaced, to be deleted a grace later. */
#ifndef OBJMAP_VOLUME_REAP_H
#define OBJMAP_VOLUME_REAP_H

#include "src/volume/format.h"

struct volume;

struct replaced_object {
	uint64_t epoch, writer;
	uint32_t number;		/* of the chunk or node */
	uint8_t level;			/* of the node; REAP_CHUNK: a chunk */
};
#define REAP_CHUNK 0xff
#define REAP_MAX   65536u		/* what is over is left to gc */

/* What one attempt replaces; bounded by REAP_MAX. */
struct replaced {
	struct replaced_object *objects;
	unsigned int nr, room;
};
/* The object that @ref named (a hole: none) is no longer reached.  Forgotten when
 * there is no memory: gc finds it. */
void replaced_add(struct replaced *replaced, uint8_t level, uint32_t number,
		  const struct ref *ref);

struct reap_entry {
	uint64_t due;			/* clock_now() */
	struct replaced_object object;
};
struct reap_queue {			/* guarded by volume->lock */
	struct reap_entry *ring;	/* REAP_MAX, made at first use */
	unsigned int first, nr;
	bool deleting;
};

/* After the settled commit: @replaced is queued, but for what a snapshot or an
 * origin may still hold.  The lock is held. */
void reap_queue_add(struct volume *volume, const struct replaced *replaced);

/* Deletes what is due, without waiting for it.  The lock is held, and is let go
 * meanwhile.  Returns clock_now() of the next look; UINT64_MAX: none. */
uint64_t reap_due(struct volume *volume);

void reap_deinit(struct reap_queue *queue);

#endif
