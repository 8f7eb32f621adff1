/* snapshot.c: the list of a volume's snapshots and clones, and changing it.
 *
 * A snapshot exists when head's list names it, not when its objects are there.
 * List and body are keyed by the epoch after head's, so that gc, which takes
 * nothing newer than the head it read, leaves them alone until head has moved
 * on and their swap is lost. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "src/clock.h"
#include "src/errors.h"
#include "src/log.h"
#include "src/random.h"
#include "src/volume/claim.h"
#include "src/volume/snapshot.h"
#include "src/volume/volume.h"

#define EDIT_TRIES  14			/* swaps lost in a row: about 5 s */
#define PAUSE_FIRST (4 * CLOCK_MS)
#define PAUSE_MOST  CLOCK_SECOND

/* ---- reading -------------------------------------------------------------- */

/* GET of a small object.  -ENOENT is not logged. */
static int get(struct store *store, const char *key, size_t max, void **data,
	       size_t *count)
{
	struct store_reply reply;
	int error = store_errno(store_get_object(store, key, CAUSE_HEAD, max, data,
						 count, &reply), &reply);

	if (error && error != -ENOENT)
		log_error("%s: GET %s: %s", store->place, key,
			  store_reply_reason(&reply));
	return error;
}

static int say_damaged(struct store *store, const char *key, int error,
		       const struct format_fault *fault)
{
	if (error)
		log_error("%s: %s is damaged at byte %zu: %s", store->place, key,
			  fault->offset, fault->what);
	return error;
}

int snapshots_read(struct store *store, const struct head *head,
		   struct snapshot_list *list)
{
	struct format_fault fault = { 0 };
	char key[VOLUME_KEY_MAX];
	unsigned int tries = 0;
	void *data;
	size_t count;
	int error;

	*list = (struct snapshot_list){ 0 };
	if (!head->snapshot_list_epoch)
		return 0;
	key_snapshot_list(key, head->snapshot_list_epoch, head->snapshot_list_nonce);
	do {
		error = get(store, key, SNAPSHOT_LIST_BYTES_MAX, &data, &count);
		if (error)
			return error;
		error = snapshot_list_decode(data, count, list, &fault);
		free(data);
		/* A bad transfer is worth one more try. */
	} while (error == -EBADMSG && tries++ == 0);
	return say_damaged(store, key, error, &fault);
}

int snapshot_body_read(struct store *store, const struct head *head,
		       const struct snapshot *entry, struct head *body)
{
	struct format_fault fault = { 0 };
	char key[VOLUME_KEY_MAX];
	unsigned int tries = 0;
	void *data;
	size_t count;
	int error;

	key_snapshot_body(key, entry->body_epoch, entry->body_nonce);
	do {
		error = get(store, key, HEAD_BYTES_MAX, &data, &count);
		if (error)
			return error;
		error = head_decode(data, count, body, &fault);
		free(data);
	} while (error == -EBADMSG && tries++ == 0);
	say_damaged(store, key, error, &fault);
	if (!error && (body->epoch != entry->epoch || body->size != entry->size ||
		       memcmp(body->uuid, head->uuid, sizeof(body->uuid)) != 0)) {
		log_error("%s: %s is not the head that snapshot %s pinned: it is damaged",
			  store->place, key, entry->name);
		error = -EBADMSG;
	}
	return error;
}

const struct snapshot *snapshot_find(const struct snapshot_list *list,
				     const char *name)
{
	unsigned int i;

	for (i = 0; i < list->nr; i++)
		if (list->snapshots[i].kind == SNAPSHOT_NAMED &&
		    strcmp(list->snapshots[i].name, name) == 0)
			return &list->snapshots[i];
	return NULL;
}

static int read_head(struct store *store, struct stored_head *stored)
{
	int error = head_read(store, stored);

	if (error == -ENOENT)
		log_error("%s: there is no volume here; objmap create makes one",
			  store->place);
	if (!error && stored->head.state == HEAD_DELETED) {
		log_error("%s: this volume was deleted", store->place);
		return -ENOENT;
	}
	return error;
}

/* Reads head and its list; what is gone while head stays is damage. */
static int read_both(struct store *store, struct stored_head *stored,
		     struct snapshot_list *list)
{
	uint64_t nonce = 0;
	int error;

	for (;;) {
		error = read_head(store, stored);
		if (error)
			return error;
		error = snapshots_read(store, &stored->head, list);
		if (error != -ENOENT)
			return error;
		if (stored->head.nonce == nonce) {
			log_error("%s: the list of snapshots is missing: the volume is "
				  "damaged; see objmap verify", store->place);
			return -EIO;
		}
		nonce = stored->head.nonce;
	}
}

int volume_snapshots(struct store *store, struct snapshot_list *list)
{
	struct stored_head stored;

	return read_both(store, &stored, list);
}

int volume_snapshot_head(struct store *store, const char *name,
			 struct head *head)
{
	const struct snapshot *entry;
	struct stored_head stored;
	struct snapshot_list list;
	uint64_t missing = 0;
	int error;

	do {
		error = read_both(store, &stored, &list);
		if (error)
			return error;
		entry = snapshot_find(&list, name);
		if (!entry) {
			log_error("%s: there is no snapshot %s; see objmap snapshot list",
				  store->place, name);
			error = -ENOENT;
		} else {
			error = snapshot_body_read(store, &stored.head, entry, head);
			if (error == -ENOENT && missing == entry->body_nonce) {
				log_error("%s: the body of snapshot %s is missing: the "
					  "volume is damaged; see objmap verify",
					  store->place, name);
				error = -EIO;
			} else if (error == -ENOENT) {
				missing = entry->body_nonce;
				error = -EAGAIN;
			}
		}
		snapshot_list_free(&list);
	} while (error == -EAGAIN);
	return error;
}

/* ---- changing ---------------------------------------------------------------- */

int snapshots_add(struct snapshot_list *list, const struct snapshot *entry)
{
	struct snapshot *larger = realloc(list->snapshots,
					  (list->nr + 1) * sizeof(*larger));

	if (!larger)
		return -ENOMEM;
	list->snapshots = larger;
	list->snapshots[list->nr++] = *entry;
	return 0;
}

void snapshots_remove(struct snapshot_list *list, unsigned int i)
{
	memmove(&list->snapshots[i], &list->snapshots[i + 1],
		(--list->nr - i) * sizeof(list->snapshots[0]));
}

static int put(struct store *store, const char *key, const void *data, size_t count)
{
	struct store_reply reply;
	int error = store_errno(store_put_object(store, key, CAUSE_HEAD, data, count,
						 STORE_ALWAYS, NULL, &reply), &reply);

	if (error)
		log_error("%s: PUT %s: %s", store->place, key,
			  store_reply_reason(&reply));
	return error;
}

/* Stores @list and lets @next name it. */
static int list_put(struct store *store, const struct snapshot_list *list,
		    struct head *next)
{
	char key[VOLUME_KEY_MAX];
	void *bytes;
	size_t count;
	unsigned int i;
	int error;

	next->snapshot_list_epoch = next->snapshot_list_nonce = 0;
	next->snapshot_newest = 0;
	if (list->nr == 0)
		return 0;
	error = snapshot_list_encode(list, &bytes, &count);
	if (error) {
		log_error("%s: the list of snapshots %s", store->place,
			  error == -E2BIG ? "is full: delete some" : error_words(error));
		return error;
	}
	/* Clones count too: what they pin must outlive the snapshot. */
	for (i = 0; i < list->nr; i++)
		if (list->snapshots[i].epoch > next->snapshot_newest)
			next->snapshot_newest = list->snapshots[i].epoch;
	next->snapshot_list_epoch = next->epoch + 1;
	next->snapshot_list_nonce = random_id();
	key_snapshot_list(key, next->snapshot_list_epoch, next->snapshot_list_nonce);
	error = put(store, key, bytes, count);
	free(bytes);
	return error;
}

int swap_terms_probe(struct store *store, struct swap_terms *terms)
{
	int error;

	if (!terms || terms->probed)
		return 0;
	error = claim_probe(store, terms->exclusive_word, &terms->exclusive);
	terms->probed = error == 0;
	return error;
}

/* -ESTALE: head was another one by then. */
static int edit_once(struct store *store, struct swap_terms *terms,
		     snapshots_change *change, void *context)
{
	struct swap swap = { .store = store };
	struct snapshot_list list;
	int error = read_both(store, &swap.base, &list);

	if (error)
		return error;
	error = change(context, store, &swap.base, &list);
	if (error == 1) {
		swap.next = swap.base.head;
		error = swap_terms_probe(store, terms);
		swap.exclusive = terms && terms->exclusive;
		if (!error)
			error = list_put(store, &list, &swap.next);
		if (!error)
			error = head_swap(&swap);
	}
	snapshot_list_free(&list);
	return error;
}

static void back_off(unsigned int try)
{
	uint64_t pause = PAUSE_FIRST << (try < 8 ? try : 8);
	struct timespec t = { 0 };

	if (pause > PAUSE_MOST)
		pause = PAUSE_MOST;
	pause = pause / 2 + random_id() % (pause / 2);
	t.tv_nsec = (long)pause;
	nanosleep(&t, NULL);
}

int snapshots_edit(struct store *store, const char *what, struct swap_terms *terms,
		   snapshots_change *change, void *context)
{
	unsigned int try;
	int error;

	for (try = 0; try < EDIT_TRIES; try++) {
		if (try)
			back_off(try);
		error = edit_once(store, terms, change, context);
		if (error != -ESTALE)
			return error;
	}
	log_error("%s: %s: a busy writer changed the volume each time; ask its own "
		  "machine, or try again when it writes less", store->place, what);
	return -EBUSY;
}

/* ---- create and delete --------------------------------------------------------- */

struct snapshot_edit {
	const char *name;
	struct swap_terms *terms;
	uint64_t nonce;		/* create: of the body put last; delete: of the
				 * snapshot that is meant; 0: none yet */
};

static int change_create(void *context, struct store *store,
			 const struct stored_head *stored,
			 struct snapshot_list *list)
{
	struct snapshot_edit *edit = context;
	const struct snapshot *there = snapshot_find(list, edit->name);
	struct snapshot entry = { .kind = SNAPSHOT_NAMED };
	uint8_t bytes[HEAD_BYTES_MAX];
	char key[VOLUME_KEY_MAX];
	int error;

	if (there && edit->nonce && there->body_nonce == edit->nonce)
		return 0;	/* it landed, and somebody built on it */
	if (there) {
		log_error("%s: there is a snapshot %s already", store->place, edit->name);
		return -EEXIST;
	}
	edit->nonce = random_id();
	entry.epoch = stored->head.epoch;
	entry.body_epoch = stored->head.epoch + 1;
	entry.body_nonce = edit->nonce;
	entry.created = (uint64_t)time(NULL);
	entry.size = stored->head.size;
	snprintf(entry.name, sizeof(entry.name), "%s", edit->name);
	key_snapshot_body(key, entry.body_epoch, entry.body_nonce);
	error = swap_terms_probe(store, edit->terms);
	if (!error)
		error = put(store, key, bytes, head_encode(&stored->head, bytes));
	if (!error)
		error = snapshots_add(list, &entry);
	return error ? error : 1;
}

static bool name_is_valid(struct store *store, const char *name)
{
	if (snapshot_name_is_valid(name))
		return true;
	log_error("%s: \"%s\" cannot name a snapshot: take 1 to %u bytes without '/', "
		  "'@' and control characters", store->place, name, SNAPSHOT_NAME_MAX);
	return false;
}

int volume_snapshot_create(struct store *store, const char *name,
			   struct swap_terms *terms)
{
	struct snapshot_edit edit = { .name = name, .terms = terms };

	if (!name_is_valid(store, name))
		return -EINVAL;
	return snapshots_edit(store, "snapshot create", terms, change_create, &edit);
}

/* The entries of clones that were deleted, or never made, go with it. */
static void drop_dead_clones(struct store *store, struct snapshot_list *list)
{
	unsigned int i = 0;

	while (i < list->nr) {
		if (list->snapshots[i].kind == SNAPSHOT_CLONE &&
		    clone_lives(store, &list->snapshots[i]) == 0)
			snapshots_remove(list, i);
		else
			i++;
	}
}

static int change_delete(void *context, struct store *store,
			 const struct stored_head *stored,
			 struct snapshot_list *list)
{
	struct snapshot_edit *edit = context;
	const struct snapshot *there = snapshot_find(list, edit->name);

	if (edit->nonce && (!there || there->body_nonce != edit->nonce))
		return 0;	/* it landed, and somebody built on it */
	if (!there) {
		log_error("%s: there is no snapshot %s; see objmap snapshot list",
			  store->place, edit->name);
		return -ENOENT;
	}
	edit->nonce = there->body_nonce;
	snapshots_remove(list, (unsigned int)(there - list->snapshots));
	drop_dead_clones(store, list);
	return 1;
}

int volume_snapshot_delete(struct store *store, const char *name,
			   struct swap_terms *terms)
{
	struct snapshot_edit edit = { .name = name };

	return snapshots_edit(store, "snapshot delete", terms, change_delete, &edit);
}
