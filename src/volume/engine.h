/* engine.h: an open volume, as the files that make it up see it.
 *
 *     volume.c     the stage: who takes which request, status
 *     open.c       opening and closing
 *     chunk.c      reads: pending table, map, ranged gets, checksums
 *     extents.c    what is where
 *     write.c      writes, zeroes and trims into the pending table, or waiting
 *     committer.c  the thread that turns the pending table into commits
 *     commit.c     one commit: number, uploads, swap
 *     fold.c       the map of a commit: recent refs, changed nodes, root
 *     upload.c     puts under way, bounded
 *     map.c        map nodes in memory, and looking a chunk up
 *     resize.c     a new size: levels come and go, the tail is zeroed
 *     reap.c       what a settled commit replaced is deleted, a grace later
 *     fence.c      the claim was lost: read-only, unsaved chunks kept aside
 *     follow.c     a reader moves on to newer heads; an object is missing
 *
 * One lock, volume->lock, guards the image, the map, the pending tables and the
 * queues; it is held for lookups, never for I/O or for copying chunks. */
#ifndef OBJMAP_VOLUME_ENGINE_H
#define OBJMAP_VOLUME_ENGINE_H

#include <pthread.h>

#include "src/volume/buffer.h"
#include "src/volume/claim.h"
#include "src/volume/commit.h"
#include "src/volume/map.h"
#include "src/volume/pending.h"
#include "src/volume/reap.h"
#include "src/volume/upload.h"
#include "src/volume/volume.h"
#include "src/workers.h"
#include "src/zeros.h"

/* A write, zero or trim that found the table full, and how far it came. */
struct waiting_write {
	struct request *request;
	uint64_t done;		/* bytes */
	struct waiting_write *next;
};

/* Guarded by volume->lock. */
struct committer {
	pthread_t thread;
	bool started, stop;
	pthread_cond_t wake;		/* CLOCK_MONOTONIC */
	bool wanted;			/* somebody asks for a commit */
	struct pending open;		/* what the next commit takes */
	struct pending sealed;		/* what the running one took */
	uint64_t reserved;		/* bytes being copied into the table */
	uint64_t oldest;		/* clock_now() of the oldest write in open ... */
	uint64_t sealed_oldest;		/* ... and in sealed */
	struct request *flushes, **flushes_end;		/* by ->next */
	struct waiting_write *writes, **writes_end;
	uint64_t resize_to;		/* bytes; 0: no resize waits */
	int remembered;			/* error that no flush has reported yet */
	bool insist;			/* one of the flushes is nobody's but ours: what
					 * failed before is tried again, not told */
};

struct fence {				/* guarded by volume->lock */
	bool fenced;
	char by[128];
	bool kept;			/* what was unsaved is kept aside */
};

/* One commit after the other: who has the turn alone changes the image. */
struct turn {				/* guarded by volume->lock */
	bool taken;
	pthread_cond_t free;
	uint64_t used;			/* the highest epoch an attempt has taken */
	struct attempt *unsettled;	/* must be settled before anything else */
	uint64_t nr_commits, failed_commits;
	uint64_t last;			/* clock_now() when the last one settled */
	uint64_t bytes;			/* of the running one */
};

struct follow {				/* read-only */
	pthread_t thread;
	bool started, stop;		/* guarded by volume->lock */
	bool waits;			/* ... for a copy to be complete; was told */
	pthread_cond_t wake;
};

struct volume {
	struct stage stage;		/* must stay first */
	struct store *store;
	uint32_t chunk_size, frame_size;
	unsigned int chunk_shift;
	uint8_t uuid[16];
	bool writable;
	bool released;			/* by volume_release() */
	uint64_t writer;
	struct volume_options options;	/* strings are copies */
	struct claim claim;		/* writable; head is filled at the end */
	struct buffer_pool buffers;
	struct workers *workers;	/* for what waits: missing objects */
	struct upload_window uploads;	/* the turn's */

	pthread_mutex_t lock;
	pthread_cond_t quiet;		/* no node is being fetched, nothing deleted,
					 * no table committed any more */
	/* Guarded by it: */
	struct stored_head image;	/* the last settled */
	struct map map;
	struct committer committer;
	struct turn turn;
	struct fence fence;
	struct reap_queue reap;
	struct follow follow;
};

static inline struct volume *volume_of(struct stage *stage)
{
	return (struct volume *)stage;
}

extern const struct stage_ops volume_ops;
void volume_close(struct stage *stage);

/* ---- chunk.c, extents.c, write.c: slots of the stage -------------------------- */

void volume_read(struct stage *stage, struct request *request);
void volume_extents(struct stage *stage, struct request *request);
void volume_change(struct stage *stage, struct request *request);

/* Reads chunk @chunk, as @ref of @head names it, into @bytes (chunk_size) and
 * checks it.  Waits.  0 or a negative errno, logged. */
int chunk_read(struct volume *volume, const struct head *head, uint32_t chunk,
	       const struct ref *ref, void *bytes);

/* ---- write.c --------------------------------------------------------------------- */

/* Goes on with @write as far as there is room.  False: it must wait (again);
 * true: it is complete, and @write is free. */
bool waiting_write_go_on(struct volume *volume, struct waiting_write *write);

/* ---- committer.c -------------------------------------------------------------------- */

int committer_start(struct volume *volume);
void committer_stop(struct volume *volume);
/* The lock is held: wakes the thread for a commit. */
void committer_want(struct volume *volume);
/* Completes @request when all that was acknowledged before is durable. */
void committer_flush(struct volume *volume, struct request *request);
/* The same, waiting; with @resize_to (bytes) the commit changes the size. */
int committer_flush_wait(struct volume *volume, uint64_t resize_to);

/* ---- fence.c ---------------------------------------------------------------------------- */

/* The claim is lost to whoever @now names. */
void volume_fence(struct volume *volume, const struct stored_head *now);

/* ---- follow.c ------------------------------------------------------------------------------ */

int follow_start(struct volume *volume);
void follow_stop(struct volume *volume);

/* The object of a ref that is in @epoch's image is not there: finds out why.
 * Calls @done on another thread with 0 (look again: the image is newer), -EIO
 * (damaged) or -ESTALE (taken by gc, or fenced).  @key is copied. */
typedef void absence_done(void *context, int error);
void volume_absence(struct volume *volume, const char *key, uint64_t epoch,
		    absence_done *done, void *context);

#endif
