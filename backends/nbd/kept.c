/* kept.c: the changes that were acknowledged and not flushed yet.
 *
 * What a server has acknowledged may be in its memory only, and gone when it is
 * started again.  So every change stays here, in the order of its
 * acknowledgement, until a flush that was sent later has succeeded; after a
 * reconnect all are written again.  (Of two that overlapped while both were
 * under way, the later acknowledged one may win then.)
 *
 * Flushes that fail leave no room in the end: then the changes are given up,
 * and when the connection breaks before a flush succeeds, the next flush has to
 * fail. */
#include <stdlib.h>

#include "backends/nbd/remote.h"

static uint64_t memory_of(const struct call *call)
{
	return sizeof(*call) + (call->data ? call->count : 0);
}

void kept_add(struct kept *kept, struct call *call)
{
	call->is_kept = true;
	call->number = ++kept->newest;
	kept->bytes += memory_of(call);
	TAILQ_INSERT_TAIL(&kept->calls, call, kept_entry);
}

void kept_remove(struct kept *kept, struct call *call)
{
	TAILQ_REMOVE(&kept->calls, call, kept_entry);
	kept->bytes -= memory_of(call);
	call_free(call);
}

void kept_forget(struct kept *kept, uint64_t number)
{
	struct call *call;

	while ((call = TAILQ_FIRST(&kept->calls)) && call->number <= number)
		kept_remove(kept, call);
	if (kept->missing <= number)
		kept->missing = 0;
}

void kept_give_up(struct kept *kept)
{
	kept_forget(kept, kept->newest);
	kept->missing = kept->newest;
}

bool calls_overlap(const struct link *link, const struct call *call)
{
	const struct call *other;

	TAILQ_FOREACH(other, &link->calls, entry)
		if (call->offset < other->offset + other->count &&
		    other->offset < call->offset + call->count)
			return true;
	return false;
}
