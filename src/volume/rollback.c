/* rollback.c: going back to a snapshot: a claim that takes its content.
 *
 * Epochs go on, so no swap prepared before it can be applied after it. */
#include <errno.h>
#include <string.h>

#include "src/log.h"
#include "src/volume/claim.h"
#include "src/volume/snapshot.h"

struct rollback {
	struct store *store;
	const char *name;
	uint64_t missing;	/* nonce of a head whose snapshot could not be read */
};

static int rollback_read(struct rollback *rollback, const struct head *head,
			 struct head *body)
{
	const struct snapshot *entry;
	struct snapshot_list list;
	int error = snapshots_read(rollback->store, head, &list);

	if (error)
		return error;
	entry = snapshot_find(&list, rollback->name);
	if (entry) {
		error = snapshot_body_read(rollback->store, head, entry, body);
	} else {
		log_error("%s: there is no snapshot %s; see objmap snapshot list",
			  rollback->store->place, rollback->name);
		error = -ENODATA;
	}
	snapshot_list_free(&list);
	return error;
}

static int change_rollback(void *context, const struct stored_head *stored,
			   struct head *next)
{
	struct rollback *rollback = context;
	struct head body;
	int error = rollback_read(rollback, &stored->head, &body);

	if (error == -ENODATA)
		return -ENOENT;
	if (error == -ENOENT && rollback->missing != stored->head.nonce) {
		rollback->missing = stored->head.nonce;
		return -EAGAIN;		/* head has moved on, or: */
	}
	if (error == -ENOENT) {
		log_error("%s: snapshot %s is missing objects: the volume is damaged; "
			  "see objmap verify", rollback->store->place, rollback->name);
		return -EIO;
	}
	if (error)
		return error;
	next->state = body.state;
	next->size = body.size;
	next->nr_root = body.nr_root;
	memcpy(next->root, body.root, sizeof(next->root));
	next->nr_recent = body.nr_recent;
	memcpy(next->recent, body.recent, sizeof(next->recent));
	return 0;
}

int volume_rollback(struct store *store, const char *name,
		    const struct claim_options *options)
{
	struct rollback rollback = { .store = store, .name = name };
	struct claim claim;
	int error = claim_take(store, options, false, change_rollback, &rollback,
			       &claim);

	if (!error)
		claim_drop(&claim);
	return error;
}
