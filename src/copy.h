/* copy.h: copies one device or stream into another, in parallel.
 *
 *     walk source -> pieces -> workers read -> a stage: written at once
 *     (extents, or                             a volume: in order into a commit
 *      a stream)                                  that runs while others are read
 *                                              a stream: in order
 *
 * A piece is a chunk where the target is a volume, else 1 MiB.  What the source
 * says is a hole, or reads as zeros, is no byte of traffic.  Memory is bounded
 * by the number of pieces.
 */
#ifndef OBJMAP_COPY_H
#define OBJMAP_COPY_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "src/stage/stage.h"
#include "src/volume/volume.h"

#define COPY_SIZE_UNKNOWN UINT64_MAX
/* Bytes of pieces on their way into a volume, at most. */
#define COPY_VOLUME_MEMORY (256u << 20)

struct copy_options {
	const char *source_name, *target_name;	/* for messages */
	struct stage *source;		/* NULL: a stream, @source_fd */
	int source_fd;
	struct stage *target;		/* NULL: a stream, @target_fd */
	struct volume *target_volume;	/* of @target, which is a volume; or NULL */
	int target_fd;
	uint64_t size;			/* bytes; COPY_SIZE_UNKNOWN: to the
					 * stream's end, at most @target's size */
	bool target_is_blank;		/* reads as zeros all over; a stream: is an
					 * empty file, whose size is set afterwards */
	bool compare;			/* write only what differs (resume) */
	bool verify;			/* afterwards read the target and compare */
	unsigned int jobs;		/* pieces that are read at once */
	unsigned int uploads;		/* of a volume's chunks at once; 0: 32 */
	atomic_bool *stop;		/* set: ends with -ECANCELED */
	/* On any thread; @what is "copying" or "verifying". */
	void (*progress)(void *context, const char *what, uint64_t done,
			 uint64_t total);
	void *context;
};

struct copy_result {
	uint64_t bytes;		/* of the source, holes too */
	uint64_t read_bytes;	/* of them read */
	uint64_t written_bytes;	/* of them written: neither zeros nor the same */
};

/* Copies, flushes the target and verifies it.  Where the target is a volume
 * and larger than the source, the rest of it becomes zeros.
 * Returns 0, -EFBIG (a stream longer than the target), -ECANCELED, -EILSEQ
 * (verify found a difference), or what a stage said; logged. */
int copy_run(const struct copy_options *options, struct copy_result *result);

/* ---- copy_walk.c: where a stage has data -------------------------------------- */

#define WALK_EXTENTS 256
struct walk {
	struct stage *stage;
	uint64_t offset;	/* of extents[at] */
	unsigned int nr, at;
	struct extent extents[WALK_EXTENTS];
};
/* The run at @offset (never less than before): *count bytes that all read as
 * zeros without being looked at (*zero), or that do not.  0 or -errno. */
int walk_next(struct walk *walk, uint64_t offset, uint64_t *count, bool *zero);

#endif
