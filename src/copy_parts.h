/* copy_parts.h: the parts of the copy engine (copy.c, copy_pieces.c, copy_queue.c). */
#ifndef OBJMAP_COPY_PARTS_H
#define OBJMAP_COPY_PARTS_H

#include <pthread.h>

#include "src/copy.h"
#include "src/workers.h"
#include "src/zeros.h"

#define DIGEST_BYTES 16		/* of each piece's SHA-256; all zeros: all zeros */
#define PIECES_MAX   1024u

struct copy;

struct piece {
	struct job job;		/* must stay first */
	struct copy *copy;
	uint64_t offset;
	uint32_t count;		/* bytes that count; the buffer is zero after them */
	uint32_t nr_chunks;	/* > 0: chunks of a volume that become holes */
	char *buffer;
	uint32_t sums[FRAMES_MAX];	/* into a volume: of its frames */
	uint32_t written;	/* bytes of it that had to be */
	bool loaded;		/* the buffer is filled already */
	bool zero, same;	/* found out when it was read */
	bool done;
	struct piece *next;
};

struct copy {
	const struct copy_options *options;
	struct copy_result *result;
	uint32_t piece_size;
	uint32_t frame_size;	/* into a volume; else 0 */
	unsigned int nr_pieces;
	bool ordered;		/* the target takes pieces in order */
	struct piece *pieces;
	char *memory;
	struct workers *workers;
	unsigned char *digests;	/* NULL: nothing will be verified */
	uint64_t total;		/* for progress; COPY_SIZE_UNKNOWN */
	const char *what;

	pthread_mutex_t lock;	/* guards what follows */
	pthread_cond_t changed;	/* a piece is free, or all is over */
	pthread_cond_t ready;	/* the queue's first piece is, or there will be none */
	struct piece *free;
	struct piece *first, **last;	/* the queue of an ordered target */
	unsigned int nr_busy;	/* pieces that are not free */
	bool ended;		/* no piece will be added */
	int error;		/* the first one */
	uint64_t finished;	/* bytes */
};

/* ---- copy_pieces.c ------------------------------------------------------------ */

/* The first error counts. */
void copy_fail(struct copy *copy, int error);
/* ... and is told: "NAME: cannot be TRIED at byte OFFSET: why". */
void copy_tell_failure(struct copy *copy, const char *name, const char *tried,
		       uint64_t offset, int error);
bool copy_has_failed(struct copy *copy);
void copy_add_progress(struct copy *copy, uint64_t bytes);

/* Waits for a free piece; NULL: the copy has failed. */
struct piece *piece_take(struct copy *copy, uint64_t offset, uint64_t count);
/* @piece is written, or given up. */
void piece_free(struct piece *piece);
/* @piece is read: free, or for the queue's consumer. */
void piece_done(struct piece *piece);

/* Jobs: read a piece, compare it, write it to a plain device; read it back. */
void piece_run(struct job *job);
void piece_verify(struct job *job);

/* ---- copy_queue.c ------------------------------------------------------------- */

/* Adds @piece at the end; nothing where the target takes pieces in any order. */
void queue_add(struct copy *copy, struct piece *piece);
/* The thread of an ordered target; @context is the copy. */
void *queue_consume(void *context);

#endif
