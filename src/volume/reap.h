/* reap.h: what a writer deletes: objects that settled commits replaced, a grace
 * later, and those of a commit that was given up, at once. */
#ifndef OBJMAP_VOLUME_REAP_H
#define OBJMAP_VOLUME_REAP_H

#include "src/volume/format.h"

struct volume;

struct reap_object {
	uint64_t epoch, writer;
	uint32_t number;		/* of the chunk or node */
	uint8_t level;			/* of the node; REAP_CHUNK: a chunk */
};
#define REAP_CHUNK 0xff
#define REAP_MAX   65536u		/* what is over is left to gc */

/* Of one attempt: what it replaces, or what it stored; at most REAP_MAX. */
struct reap_list {
	struct reap_object *objects;
	unsigned int nr, room;
};
/* Adds the object that @ref names (a hole: none).  Forgotten when there is no
 * memory: gc finds it. */
void reap_list_add(struct reap_list *list, uint8_t level, uint32_t number,
		   const struct ref *ref);

struct reap_entry {
	uint64_t due;			/* clock_now() */
	struct reap_object object;
};
struct reap_queue {			/* guarded by volume->lock */
	struct reap_entry *ring;	/* REAP_MAX, made at first use */
	unsigned int first, nr;
	bool deleting;
};

/* After the settled commit: @replaced is queued, but for what a snapshot or an
 * origin may still hold.  The lock is held. */
void reap_queue_add(struct volume *volume, const struct reap_list *replaced);

/* After a commit that failed with @error before its swap was sent: @stored is due
 * now.  Where room was missing, waits a little until it is deleted, so that whoever
 * makes room and flushes again finds both.  By whoever has the turn, without the
 * lock. */
void reap_given_up(struct volume *volume, const struct reap_list *stored, int error);

/* Deletes what is due, without waiting for it.  The lock is held, and is let go
 * meanwhile.  Returns clock_now() of the next look; UINT64_MAX: none. */
uint64_t reap_due(struct volume *volume);

void reap_deinit(struct reap_queue *queue);

#endif
