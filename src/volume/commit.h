/* commit.h: one attempt at a commit, and what it changes in the map. */
#ifndef OBJMAP_VOLUME_COMMIT_H
#define OBJMAP_VOLUME_COMMIT_H

#include "src/volume/reap.h"
#include "src/volume/swap.h"
#include "src/volume/volume.h"

/* Chunks (or, a level up, nodes) @first to @first + @nr have this ref now. */
struct change {
	uint32_t first;
	uint32_t nr;			/* > 1 only for holes */
	struct ref ref;
};
struct changes {
	struct change *list;		/* ascending, not overlapping */
	size_t nr, room;
};
int changes_add(struct changes *changes, uint32_t first, uint32_t nr,
		const struct ref *ref);	/* 0 or -ENOMEM */

struct attempt {
	struct volume *volume;
	struct swap swap;		/* from the settled head to ours */
	uint64_t epoch;			/* its number */
	enum request_priority priority;
	struct changes changes;		/* of chunks */
	struct reap_list replaced;	/* what it makes unreachable */
	struct reap_list stored;		/* what it has put, or tried to */
};

/* What a commit changes beside chunks. */
struct commit_terms {
	const struct commit_batch *batch;
	enum request_priority priority;
	bool complete;			/* an incomplete volume becomes live */
	bool keeps;			/* when it fails, the next one has it all again */
};

/* volume_commit() and all the others.  Waits for its turn and until settled. */
int commit_run(struct volume *volume, const struct commit_terms *terms);

void attempt_free(struct attempt *attempt);

/* ---- fold.c ---------------------------------------------------------------- */

/* Puts the changes of @attempt into its next head: into recent, or, when they
 * don't fit, into new nodes, which are uploaded.  With @cut, into nodes, and
 * what these hold beyond the last chunk becomes holes.  0 or -errno. */
int fold_changes(struct attempt *attempt, bool cut);

/* Makes the node @number of @level with these @refs and uploads it. */
int fold_put_node(struct attempt *attempt, unsigned int level, uint32_t number,
		  const struct ref refs[NODE_REFS], struct ref *self);

/* ---- resize.c ---------------------------------------------------------------- */

/* Before the chunks are uploaded: the new size into the next head, levels that
 * a smaller map does not need taken off, and the changes that cut the rest
 * off.  *@tail: malloc'ed content of the last chunk when what is committed of it
 * is cut inside and @batch has nothing newer, else NULL. */
int resize_begin(struct attempt *attempt, const struct commit_batch *batch,
		 void **tail);
/* After the fold: levels that a larger map needs. */
int resize_end(struct attempt *attempt, const struct commit_batch *batch);

#endif
