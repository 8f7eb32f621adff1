/* swap.h: replacing head, and settling what came of it.
 *
 * The only way anything replaces head.  A swap whose answer was not a plain
 * success is settled by reading head, as objmap-volume(5) says:
 *
 *     PUT if-match --done--------------------------------> committed
 *         |  refused, unknown, any failure
 *         v
 *     GET head --my writer, epoch >= mine----------------> committed
 *         |    --history has me at >= mine---------------> committed, then fenced
 *         |    --same tag as base------------------------> PUT the same bytes again
 *         |    --my writer and base's epoch, other nonce-> take its snapshot list,
 *         |                                                 PUT on the new tag
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
	bool by_writer;			/* a commit or claim, which may take over a
					 * changed snapshot list; else an
					 * administrator's, who starts again */
	bool exclusive;			/* the store cannot do conditional puts: plain
					 * put after a get that still shows base */
	/* swap.c's: */
	bool sent;
};

/* Sends @swap and settles it.  A nonce is chosen here.
 *  0		committed; base is now what head is (our next, its tag)
 *  -ESTALE	not committed, and never will be; base is what head is instead
 *  -EALREADY	committed, but somebody else has claimed since; base is his head
 *  other	unsettled: it may or may not have been applied; call again with the
 *		same @swap until one of the above, and send nothing else
 *		conditional meanwhile.  Logged once. */
int head_swap(struct swap *swap);

/* GET head.  0, -ENOENT, -EBADMSG, -ENOTSUP or the store's error; logged,
 * except -ENOENT. */
int head_read(struct store *store, struct stored_head *stored);

#endif
