/* swap.h: replacing head, and settling what came of it.
 *
 * The only way anything replaces head.  A swap whose answer was not a plain
 * success is settled by reading head, as objmap-volume(5) says:
 *
 *     PUT if-match --done--------------------------------> committed
 *         |  refused, unknown, any failure
 *         v
 *     GET head --my nonce, or my writer, epoch >= mine---> committed
 *         |    --history has me at >= mine---------------> committed, then fenced
 *         |    --same tag as base------------------------> PUT the same bytes again
 *         |    --base's writer and epoch, other nonce----> a commit takes its snapshot
 *         |                                                list, PUT on the new tag
 *         |    --unreadable------------------------------> unsettled: try again
 *         `----otherwise---------------------------------> lost
 */
#ifndef OBJMAP_VOLUME_SWAP_H
#define OBJMAP_VOLUME_SWAP_H

#include "backends/store/store.h"
#include "src/volume/format.h"

/* A head as it is in the store. */
struct stored_head {
	struct head head;
	char tag[STORE_TAG_MAX];
};

struct swap {
	struct store *store;
	struct stored_head base;	/* what is to be replaced */
	struct head next;		/* what shall be there: own writer and epoch */
	bool by_writer;			/* a commit: takes over a snapshot list that
					 * changed meanwhile.  Claims and snapshots
					 * judged the list: they start again instead */
	bool exclusive;			/* the store cannot do conditional puts: plain
					 * put after a get that still shows base */
	/* swap.c's: */
	bool sent;
};

/* Sends @swap and settles it.  A nonce is chosen here.
 *  0		committed; base is now what head is (our next, its tag)
 *  -ESTALE	not committed, and never will be; base is what head is instead.
 *		(A swap that kept writer and epoch may also have been committed
 *		and built upon: look into base's snapshot list.)
 *  -EALREADY	committed, but somebody else has claimed since; base is his head
 *  other	unsettled: it may or may not have been applied; call again with the
 *		same @swap until one of the above, and send nothing else
 *		conditional meanwhile.  Logged once a call. */
int head_swap(struct swap *swap);

/* GET head.  0, -ENOENT, -EBADMSG, -ENOTSUP or the store's error; logged,
 * except -ENOENT. */
int head_read(struct store *store, struct stored_head *stored);
/* The same; *@reply tells when it was written, and the store's clock. */
int head_read_reply(struct store *store, struct stored_head *stored,
		    struct store_reply *reply);

/* Makes @next the head of a volume that is new; a tombstone is swapped on, and
 * @next then takes its history and an epoch above it.  -EEXIST (not logged):
 * there is a volume; other errors as head_swap()'s.  @exclusive: as in struct swap. */
int head_create(struct store *store, struct head *next, bool exclusive);

/* @head passes to @writer: what was becomes history, the epoch jumps, nobody
 * holds it. */
void head_pass_on(struct head *head, uint64_t writer);

/* 0, or the -errno of an outcome that is not STORE_DONE. */
int store_errno(enum store_outcome outcome, const struct store_reply *reply);

#endif
