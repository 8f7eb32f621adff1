/* delete.c: the end of a volume: a claim that leaves a tombstone.
 *
 * The head stays, so that no late swap brings the volume back and a new one in
 * its place goes on with its epochs.  The objects are gc's. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "src/log.h"
#include "src/volume/claim.h"
#include "src/volume/snapshot.h"

/* Counts the clones of @list that live, their places in @names. */
static int count_clones(struct store *store, const struct snapshot_list *list,
			char *names, size_t size, unsigned int *nr)
{
	const struct snapshot *entry;
	size_t used = 0;
	unsigned int i;
	int lives;

	*nr = 0;
	for (i = 0; i < list->nr; i++) {	/* an empty list has no array */
		entry = &list->snapshots[i];
		if (entry->kind != SNAPSHOT_CLONE)
			continue;
		lives = clone_lives(store, entry);
		if (lives < 0)
			return lives;
		if (!lives)
			continue;
		if (used < size)
			used += (size_t)snprintf(names + used, size - used, "%s/%s",
						 *nr ? ", " : "", entry->prefix);
		++*nr;
	}
	return 0;
}

struct deletion {
	struct store *store;
	uint64_t missing;	/* nonce of a head whose list could not be found */
};

/* The claim swaps the very head whose clones are looked for here: one that is
 * made meanwhile changes head, and the claim starts over. */
static int change_delete(void *context, const struct stored_head *stored,
			 struct head *next)
{
	struct deletion *deletion = context;
	struct store *store = deletion->store;
	struct snapshot_list list;
	char names[1024] = "";
	unsigned int nr;
	int error = snapshots_read(store, &stored->head, &list);

	if (error == -ENOENT && deletion->missing != stored->head.nonce) {
		deletion->missing = stored->head.nonce;
		return -EAGAIN;		/* head has moved on, or: */
	}
	if (error == -ENOENT) {
		log_error("%s: the list of snapshots is missing, so clones may need this "
			  "volume; see objmap verify", store->place);
		return -EIO;
	}
	if (error)
		return error;
	error = count_clones(store, &list, names, sizeof(names), &nr);
	snapshot_list_free(&list);
	if (error)
		return error;
	if (nr) {
		log_error("%s: has %u clone%s that need%s it: %s: delete %s first",
			  store->place, nr, nr > 1 ? "s" : "", nr > 1 ? "" : "s",
			  names, nr > 1 ? "them" : "it");
		return -EBUSY;
	}
	next->state = HEAD_DELETED;
	next->size = 0;
	next->nr_root = next->nr_recent = 0;
	next->nr_origins = 0;
	next->snapshot_list_epoch = next->snapshot_list_nonce = 0;
	next->snapshot_newest = 0;
	return 0;
}

int volume_delete(struct store *store, const struct claim_options *options)
{
	struct deletion deletion = { .store = store };
	struct claim claim;
	int error = claim_take(store, options, false, change_delete, &deletion, &claim);

	if (!error)
		claim_drop(&claim);
	return error;
}
