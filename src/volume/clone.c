/* clone.c: a volume that begins as a snapshot of another one.
 *
 * Three swaps.  The parent's list gets an entry of the clone's own, which pins
 * what the snapshot pinned and outlives it; then the clone's head is made; then
 * the parent's head is swapped once more with the entry still in it.  Who drops
 * the entries of dead clones, or deletes the parent, looks for the clone's head
 * before he swaps: so either he sees it, or the last swap sees that the entry
 * is gone and the clone is given up.  After a crash in between the same command
 * finds its own entry. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "src/log.h"
#include "src/random.h"
#include "src/volume/snapshot.h"
#include "src/volume/volume.h"

int clone_lives(struct store *store, const struct snapshot *entry)
{
	char key[VOLUME_KEY_MAX];
	struct format_fault fault;
	struct store_reply reply;
	struct head *head;
	void *data;
	size_t count;
	unsigned int i;
	int error, lives = 0;

	snprintf(key, sizeof(key), "/%s/" KEY_HEAD, entry->prefix);
	error = store_errno(store_get_object(store, key, CAUSE_HEAD, HEAD_BYTES_MAX,
					     &data, &count, &reply), &reply);
	if (error == -ENOENT)
		return 0;
	if (error) {
		log_error("%s: GET %s: %s", store->place, key,
			  store_reply_reason(&reply));
		return error;
	}
	head = malloc(sizeof(*head));
	if (!head) {
		free(data);
		return -ENOMEM;
	}
	/* What cannot be read may be a clone of a newer objmap: it lives. */
	if (head_decode(data, count, head, &fault) != 0)
		lives = 1;
	else if (head->state != HEAD_DELETED)
		for (i = 0; i < head->nr_origins; i++)
			lives |= head->origins[i].epoch == entry->epoch;
	free(head);
	free(data);
	return lives;
}

/* ---- the entry in the parent's list ------------------------------------------- */

struct pin {
	const char *name, *prefix;	/* of the snapshot; where the clone will be */
	struct snapshot entry;
	bool ours;			/* we, not an earlier try, added it */
	struct head parent;
};

static unsigned int find_entry(const struct snapshot_list *list,
			       const struct snapshot *entry)
{
	const struct snapshot *at = list->snapshots;
	unsigned int i;

	for (i = 0; i < list->nr; i++, at++)
		if (at->kind == SNAPSHOT_CLONE && at->body_nonce == entry->body_nonce &&
		    strcmp(at->name, entry->name) == 0 &&
		    strcmp(at->prefix, entry->prefix) == 0)
			break;
	return i;
}

/* An earlier try's entry, when the snapshot has been deleted since. */
static const struct snapshot *find_earlier(const struct snapshot_list *list,
					   const struct pin *pin)
{
	unsigned int i;

	for (i = 0; i < list->nr; i++)
		if (list->snapshots[i].kind == SNAPSHOT_CLONE &&
		    strcmp(list->snapshots[i].name, pin->name) == 0 &&
		    strcmp(list->snapshots[i].prefix, pin->prefix) == 0)
			return &list->snapshots[i];
	return NULL;
}

static int change_pin(void *context, struct store *store,
		      const struct stored_head *stored, struct snapshot_list *list)
{
	const struct snapshot *named;
	struct pin *pin = context;
	int error;

	named = snapshot_find(list, pin->name);
	if (!named)
		named = find_earlier(list, pin);
	if (!named) {
		log_error("%s: there is no snapshot %s; see objmap snapshot list",
			  store->place, pin->name);
		return -ENOENT;
	}
	if (stored->head.nr_origins == ORIGINS_MAX) {
		log_error("%s: a clone of a clone %u deep cannot be cloned: use objmap "
			  "copy", store->place, ORIGINS_MAX);
		return -E2BIG;
	}
	pin->parent = stored->head;
	pin->entry = *named;
	pin->entry.kind = SNAPSHOT_CLONE;
	snprintf(pin->entry.prefix, sizeof(pin->entry.prefix), "%s", pin->prefix);
	if (find_entry(list, &pin->entry) < list->nr)
		return 0;
	pin->entry.created = (uint64_t)time(NULL);
	error = snapshots_add(list, &pin->entry);
	pin->ours = true;
	return error ? error : 1;
}

/* The third swap. */
static int change_confirm(void *context, struct store *store,
			  const struct stored_head *stored,
			  struct snapshot_list *list)
{
	struct pin *pin = context;

	return find_entry(list, &pin->entry) < list->nr ? 1 : -ENODATA;
}

static int change_unpin(void *context, struct store *store,
			const struct stored_head *stored,
			struct snapshot_list *list)
{
	struct pin *pin = context;
	unsigned int i = find_entry(list, &pin->entry);

	if (i == list->nr)
		return 0;
	snapshots_remove(list, i);
	return 1;
}

/* ---- the clone ------------------------------------------------------------------- */

static bool prefixes_are_valid(struct store *from, const char *from_prefix,
			       struct store *to, const char *to_prefix)
{
	if (origin_prefix_is_valid(from_prefix) && origin_prefix_is_valid(to_prefix))
		return true;
	log_error("%s: cannot be cloned to %s: a clone and its parent need places of "
		  "at most %u bytes below the top, without odd characters: use "
		  "objmap copy", from->place, to->place, ORIGIN_PREFIX_MAX);
	return false;
}

/* The head of the clone from the snapshot's @body. */
static void clone_head(struct head *head, const struct pin *pin,
		       const char *from_prefix)
{
	struct origin *origin = &head->origins[head->nr_origins++];

	origin->epoch = pin->entry.epoch;
	snprintf(origin->prefix, sizeof(origin->prefix), "%s", from_prefix);
	random_bytes(head->uuid, sizeof(head->uuid));
	head->created = head->committed = (uint64_t)time(NULL);
	head->epoch = pin->entry.epoch + CLAIM_EPOCH_STEP;
	head->writer = random_id();
	head->sequence = 0;
	head->nr_history = 0;
	memset(&head->holder, 0, sizeof(head->holder));
	head->snapshot_list_epoch = head->snapshot_list_nonce = 0;
	head->snapshot_newest = 0;
}

/* Refuses a place that is taken, before the parent hears of it. */
static int check_target(struct store *to, const char *from_prefix)
{
	struct stored_head there;
	int error = head_read(to, &there);
	const struct head *head = &there.head;

	if (error == -ENOENT)
		return 0;
	if (error)
		return error;
	if (head->state == HEAD_DELETED)
		return 0;
	/* Perhaps made by an earlier try that could not confirm it. */
	if (head->nr_origins && strcmp(head->origins[head->nr_origins - 1].prefix,
				       from_prefix) == 0)
		return 0;
	return -EEXIST;
}

static int clone_make(struct store *from, const char *from_prefix,
		      struct store *to, const struct pin *pin, struct swap_terms *terms)
{
	struct head head;
	int error = snapshot_body_read(from, &pin->parent, &pin->entry, &head);

	if (error == -ENOENT) {
		log_error("%s: the body of snapshot %s is missing: the volume is "
			  "damaged; see objmap verify", from->place, pin->name);
		return -EIO;
	}
	if (error)
		return error;
	clone_head(&head, pin, from_prefix);
	error = swap_terms_probe(from, terms);	/* an earlier try has pinned it */
	return error ? error : head_create(to, &head, terms && terms->exclusive);
}

static int clone_confirm(struct store *from, struct store *to, struct pin *pin,
			 struct swap_terms *terms)
{
	const struct claim_options claim = { .exclusive = terms && terms->exclusive };
	int error = snapshots_edit(from, "clone", terms, change_confirm, pin);

	if (error != -ENODATA && error != -ENOENT)
		return error;
	log_error("%s: the snapshot was given up while it was being cloned: %s is "
		  "deleted again", from->place, to->place);
	volume_delete(to, &claim);
	return -ESTALE;
}

int volume_clone(struct store *from, const char *from_prefix, const char *name,
		 struct store *to, const char *to_prefix, struct swap_terms *terms)
{
	struct pin pin = { .name = name, .prefix = to_prefix };
	int error, made;

	if (!prefixes_are_valid(from, from_prefix, to, to_prefix))
		return -EINVAL;
	made = check_target(to, from_prefix);
	if (!made) {
		error = snapshots_edit(from, "clone", terms, change_pin, &pin);
		if (error)
			return error;
		made = clone_make(from, from_prefix, to, &pin, terms);
	}
	if (made == -EEXIST)
		log_error("%s: there is a volume already; choose another place",
			  to->place);
	/* What is there may be this very clone, made by an earlier try whose entry
	 * was dropped before it could confirm it: then it needs the new one. */
	if (made == -EEXIST && pin.ours && clone_lives(from, &pin.entry) == 0)
		snapshots_edit(from, "clone", terms, change_unpin, &pin);
	if (made)
		return made;
	return clone_confirm(from, to, &pin, terms);
}
