/* claim.h: becoming a volume's one writer, and ceasing to be it. */
#ifndef OBJMAP_VOLUME_CLAIM_H
#define OBJMAP_VOLUME_CLAIM_H

#include "src/volume/swap.h"
#include "src/volume/volume.h"

struct claim {
	struct stored_head head;	/* ours: holder filled, epoch jumped */
	uint64_t writer;
	uint64_t used;			/* the highest epoch an attempt has taken, if it
					 * is above head's */
	int lock_fd;			/* flock()ed UUID.lock; -1: none */
	bool exclusive;
};

/* Are the store's conditional puts conditional?  0 (*exclusive: it must be done
 * without them, and @exclusive_word allows that), -EOPNOTSUPP, or why that cannot be
 * found out; logged. */
int claim_probe(struct store *store, bool exclusive_word, bool *exclusive);

/* What the claim shall change besides writer, holder, history and epoch; may
 * refuse with a negative errno, logged.  @stored is head before the claim. */
typedef int claim_change(void *context, const struct stored_head *stored,
			 struct head *next);

/* Probes the store (once), takes the lock, refuses a volume held by somebody
 * else (-EBUSY, named, with what to do), and swaps head.  @keep: holder stays
 * filled until claim_release(); else this very swap leaves it empty (rollback,
 * delete).  @change may be NULL. */
int claim_take(struct store *store, const struct claim_options *options,
	       bool keep, claim_change *change, void *context,
	       struct claim *claim);

/* Closes a volume whose writer here was killed: claims it and lets it go, in one swap,
 * so that all that writer has sent, or will yet be seen to have sent, is at or below
 * head's epoch.  @head is what was read of it.  Only where the writer's own lock could be
 * locked, and it had no journal, which is replayed only while head's last writer is its
 * own; that another boot means a dead writer is left to who wants to write: machines
 * that are copies of one another look so.
 * 1: closed; 0: nothing of this kind, nothing was done; or claim_take()'s error. */
int claim_close_killed(struct store *store, const struct claim_options *options,
		       const struct head *head);

/* A clean close: empties holder (when @claim is still head's writer) and lets
 * the lock go.  @claim->head is what the writer last settled. */
int claim_release(struct store *store, struct claim *claim);

/* Lets the lock go and leaves head as it is (fenced, or a failed close). */
void claim_drop(struct claim *claim);

#endif
