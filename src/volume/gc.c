/* gc.c: deletes what a volume does not refer to any more.
 *
 *     head, list, bodies, nodes  ->  what is reachable
 *     condemned lists            ->  what an earlier run condemned, and which
 *                                    lists are older than the grace period
 *     LIST of everything         ->  for each key of ours that is not reachable
 *                                    and not newer than head:
 *                                      on an old list    deleted
 *                                      on a younger one  waits
 *                                      on none           condemned
 *
 * No clock stands against writers: what a head and its snapshots do not reach,
 * with an epoch that is not above it, can never be referred to again (law 2 in
 * objmap-volume(5)).  The grace period is for readers only, and is measured from
 * when the list was written, by the store's clock on both ends.
 *
 * What is above head's epoch may be a living writer's.  Of one that was killed it is
 * not: such a volume is claimed and closed first, when that is wanted.
 *
 * Memory is bounded: when what is reachable is too much for one set, the shards
 * of the chunks are gone over in several rounds. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "src/errors.h"
#include "src/log.h"
#include "src/random.h"
#include "src/volume/claim.h"
#include "src/volume/keyset.h"
#include "src/volume/snapshot.h"
#include "src/volume/walk.h"

#define MEMORY_DEFAULT (256u << 20)
#define OBJECT_BYTES  32u		/* of a keyset while it grows */
#define CONDEMNED_SET (4u << 20)	/* objects on lists that one run looks at */
#define PROBE_AGE     3600u		/* seconds a probe may take, and far more */
#define NR_SHARDS     256u

/* Keys to delete, or to condemn. */
struct key_batch {
	char **keys, **uploads;		/* uploads: NULL for an object */
	unsigned int nr, room;
	uint64_t bytes;			/* of the objects */
	size_t lines;			/* bytes that a condemned list takes for them */
};

struct gc {
	struct store *store;
	const struct gc_options *options;
	struct gc_result *result;
	struct stored_head stored;
	struct keyset reachable;
	struct keyset due, waiting;	/* on old lists, on younger ones */
	struct key_batch condemn, delete;
	struct key_batch lists;		/* old ones, to be deleted at the end */
	unsigned int first_shard, end_shard;
	uint64_t now;			/* the store's clock at the latest LIST */
};

static int say(struct gc *gc, const char *did, const char *key, int error,
	       const struct store_reply *reply)
{
	log_error("%s: gc: %s %s: %s", gc->store->place, did, key,
		  store_reply_reason(reply));
	return error;
}

static void progress(struct gc *gc, const char *what, uint64_t done)
{
	if (gc->options->progress)
		gc->options->progress(gc->options->context, what, done, 0);
}

/* ---- batches of keys -------------------------------------------------------------- */

static int batch_open(struct key_batch *batch, unsigned int room)
{
	*batch = (struct key_batch){ .room = room };
	batch->keys = calloc(room, sizeof(*batch->keys));
	batch->uploads = calloc(room, sizeof(*batch->uploads));
	return batch->keys && batch->uploads ? 0 : -ENOMEM;
}

static void batch_clear(struct key_batch *batch)
{
	while (batch->nr) {
		free(batch->keys[--batch->nr]);
		free(batch->uploads[batch->nr]);
	}
	batch->bytes = 0;
	batch->lines = 0;
}

static void batch_close(struct key_batch *batch)
{
	batch_clear(batch);
	free(batch->keys);
	free(batch->uploads);
}

static size_t line_bytes(const char *key, const char *upload)
{
	return strlen(key) + 1 + (upload ? strlen(upload) + 1 : 0);
}

static int batch_add(struct key_batch *batch, const char *key, const char *upload,
		     uint64_t bytes)
{
	char *copy = strdup(key), *id = upload ? strdup(upload) : NULL;

	if (!copy || (upload && !id)) {
		free(copy);
		free(id);
		return -ENOMEM;
	}
	batch->keys[batch->nr] = copy;
	batch->uploads[batch->nr++] = id;
	batch->bytes += bytes;
	batch->lines += line_bytes(key, upload);
	return 0;
}

/* ---- what is reachable ---------------------------------------------------------------- */

/* What lies in an origin is none of this volume's keys. */
static bool lies_in_origin(const struct gc *gc, uint64_t epoch)
{
	const struct head *head = &gc->stored.head;

	return head->nr_origins && epoch <= head->origins[head->nr_origins - 1].epoch;
}

static int reach(struct gc *gc, const struct key *key)
{
	int added = keyset_add(&gc->reachable, key, NULL);

	return added < 0 ? added : 0;
}

/* A node that was seen whole need not be gone into again. */
static int reach_node(void *context, unsigned int level, uint32_t node,
		      const struct ref *ref, bool whole)
{
	struct key key = { KEY_KIND_NODE, level, node, ref->epoch, ref->writer };
	struct key seen_whole = key;
	struct gc *gc = context;
	int added;

	if (lies_in_origin(gc, ref->epoch) && whole)
		return 1;
	added = keyset_add(&gc->reachable, &key, NULL);
	if (added < 0 || !whole)
		return added < 0 ? added : 0;
	seen_whole.level += MAP_LEVELS_MAX;	/* no key of ours is written so */
	added = keyset_add(&gc->reachable, &seen_whole, NULL);
	return added < 0 ? added : !added;
}

static int reach_chunk(void *context, uint32_t chunk, const struct ref *ref)
{
	struct key key = { KEY_KIND_CHUNK, 0, chunk, ref->epoch, ref->writer };
	struct gc *gc = context;
	unsigned int shard = chunk % NR_SHARDS;

	if (lies_in_origin(gc, ref->epoch) || shard < gc->first_shard ||
	    shard >= gc->end_shard)
		return 0;
	return reach(gc, &key);
}

static int stop_at_lost(void *context, const char *key, int error, const char *what)
{
	struct gc *gc = context;

	error = walk_say_lost(gc->store, &gc->stored.head, key, error, what);
	log_error("%s: gc stops, and has deleted nothing that this could reach",
		  gc->store->place);
	return error;
}

static int reach_image(struct gc *gc, const struct head *image)
{
	struct map_walk walk = { .store = gc->store, .head = image,
				 .cause = CAUSE_GC, .node = reach_node,
				 .chunk = reach_chunk, .lost = stop_at_lost,
				 .context = gc };

	return map_walk(&walk);
}

static int reach_snapshot(struct gc *gc, const struct snapshot *entry,
			  struct head *body)
{
	struct key key = { KEY_KIND_SNAPSHOT_BODY, 0, 0, entry->body_epoch,
			   entry->body_nonce };
	char name[VOLUME_KEY_MAX];
	int added = keyset_add(&gc->reachable, &key, NULL), error;

	if (added <= 0)
		return added;		/* a clone's entry shares the snapshot's */
	error = snapshot_body_read(gc->store, &gc->stored.head, entry, body);
	if (error) {
		key_snapshot_body(name, entry->body_epoch, entry->body_nonce);
		return stop_at_lost(gc, name, error, error == -ENOENT ? "missing"
								      : "damaged");
	}
	return reach_image(gc, body);
}

static int reach_snapshots(struct gc *gc)
{
	const struct head *head = &gc->stored.head;
	struct key key = { KEY_KIND_SNAPSHOT_LIST, 0, 0, head->snapshot_list_epoch,
			   head->snapshot_list_nonce };
	char name[VOLUME_KEY_MAX];
	struct snapshot_list list;
	struct head *body;
	unsigned int i;
	int error;

	if (!head->snapshot_list_epoch)
		return 0;
	error = snapshots_read(gc->store, head, &list);
	if (error) {
		key_snapshot_list(name, key.epoch, key.writer);
		return stop_at_lost(gc, name, error, error == -ENOENT ? "missing"
								      : "damaged");
	}
	body = malloc(sizeof(*body));
	error = body ? reach(gc, &key) : -ENOMEM;
	for (i = 0; i < list.nr && !error; i++)
		error = reach_snapshot(gc, &list.snapshots[i], body);
	free(body);
	snapshot_list_free(&list);
	return error;
}

/* From first_shard on, as many shards as there is room for. */
static int reach_all(struct gc *gc)
{
	int error;

	for (;; gc->end_shard = (gc->first_shard + gc->end_shard) / 2) {
		keyset_clear(&gc->reachable);
		error = reach_image(gc, &gc->stored.head);
		if (!error)
			error = reach_snapshots(gc);
		if (error != -ENOSPC || gc->end_shard == gc->first_shard + 1)
			break;
	}
	if (error == -ENOSPC)
		log_error("%s: gc: too little memory for the map of this volume",
			  gc->store->place);
	return error;
}

/* ---- condemned lists ------------------------------------------------------------------- */

static int add_list(struct gc *gc, const struct condemned *list, bool old)
{
	struct keyset *set = old ? &gc->due : &gc->waiting;
	struct key key;
	unsigned int i;
	int added;

	for (i = 0; i < list->nr; i++) {
		key_parse(list->entries[i].key, &key);
		added = keyset_add(set, &key, list->entries[i].upload);
		if (added < 0)
			return added;
	}
	return 0;
}

/* Reads one list.  A damaged one is of no use: what it names is condemned anew,
 * and it is deleted like one that was used. */
static int read_list(struct gc *gc, const char *key)
{
	struct format_fault fault;
	struct condemned list = { 0 };
	struct store_reply reply;
	void *data;
	size_t count;
	bool old;
	int error = store_errno(store_get_object(gc->store, key, CAUSE_GC,
						 CONDEMNED_BYTES_MAX, &data, &count,
						 &reply), &reply);

	if (error == -ENOENT)
		return 0;		/* another gc has used it up */
	if (error)
		return say(gc, "GET", key, error, &reply);
	old = reply.date >= reply.last_modified &&
	      reply.date - reply.last_modified >= gc->options->grace;
	error = condemned_decode(data, count, &list, &fault);
	free(data);
	if (error == -EBADMSG)
		log_warning("%s: %s is damaged at byte %zu: %s; what it names is "
			    "condemned again", gc->store->place, key, fault.offset,
			    fault.what);
	if (error == -EBADMSG)
		error = 0;
	else if (!error)
		error = add_list(gc, &list, old);
	condemned_free(&list);
	if (error == -ENOSPC)
		return 0;		/* enough for one run; the next goes on */
	if (!error && old && gc->lists.nr < gc->lists.room)
		error = batch_add(&gc->lists, key, NULL, 0);
	return error;
}

typedef int gc_visit(struct gc *gc, const struct store_entry *entry);

/* Where a page of a listing begins. */
struct page {
	char key[STORE_KEY_MAX], upload[STORE_KEY_MAX + 1];	/* S3: ids to 1,024 */
	bool more;
};

static int page_turn(struct page *page, const struct store_listing *listing)
{
	const char *key = listing->next_key, *upload = listing->next_upload;

	page->more = listing->more && (listing->nr_entries || key);
	if (!page->more)
		return 0;
	if (!key)
		key = listing->entries[listing->nr_entries - 1].key;
	if (strlen(key) >= sizeof(page->key) ||
	    (upload && strlen(upload) >= sizeof(page->upload)))
		return -ENAMETOOLONG;
	strcpy(page->key, key);
	strcpy(page->upload, upload ? upload : "");
	return 0;
}

/* Calls @visit for every key below @prefix, or every upload. */
static int list_each(struct gc *gc, enum store_op op, const char *prefix,
		     gc_visit *visit)
{
	struct store_request request = { 0 };
	struct store_listing *listing = &request.reply.listing;
	struct page page = { .more = true };
	enum store_outcome outcome;
	unsigned int i;
	int error = 0;

	while (page.more && !error) {
		request = (struct store_request){
			.cause = CAUSE_GC, .key = prefix,
			.after = *page.key ? page.key : NULL,
			.after_upload = *page.upload ? page.upload : NULL,
		};
		outcome = store_wait(gc->store, op, &request);
		if (outcome != STORE_DONE)
			return say(gc, "LIST", prefix,
				   store_errno(outcome, &request.reply),
				   &request.reply);
		gc->now = request.reply.date;
		for (i = 0; i < listing->nr_entries && !error; i++)
			error = visit(gc, &listing->entries[i]);
		if (!error)
			error = page_turn(&page, listing);
		store_listing_free(listing);
	}
	return error;
}

static int visit_list(struct gc *gc, const struct store_entry *entry)
{
	struct key key;

	key_parse(entry->key, &key);
	return key.kind == KEY_KIND_CONDEMNED ? read_list(gc, entry->key) : 0;
}

/* ---- deleting --------------------------------------------------------------------------- */

static int delete_objects(struct gc *gc, struct key_batch *batch)
{
	struct store_request request = { 0 };
	const char *keys[STORE_DELETE_MAX];
	enum store_outcome outcome;
	unsigned int i, nr = 0;

	for (i = 0; i < batch->nr; i++)
		if (!batch->uploads[i])
			keys[nr++] = batch->keys[i];
	if (!nr)
		return 0;
	request.cause = CAUSE_GC;
	request.keys = keys;
	request.nr_keys = nr;
	outcome = store_wait(gc->store, STORE_DELETE, &request);
	if (outcome != STORE_DONE)
		return say(gc, "DELETE", keys[0], store_errno(outcome, &request.reply),
			   &request.reply);
	return 0;
}

static int abort_uploads(struct gc *gc, struct key_batch *batch)
{
	struct store_request request;
	enum store_outcome outcome;
	unsigned int i;

	for (i = 0; i < batch->nr; i++) {
		if (!batch->uploads[i])
			continue;
		request = (struct store_request){ .cause = CAUSE_GC,
			.key = batch->keys[i], .upload = batch->uploads[i] };
		outcome = store_wait(gc->store, STORE_ABORT_UPLOAD, &request);
		if (outcome != STORE_DONE && outcome != STORE_ABSENT)
			return say(gc, "abort the upload to", batch->keys[i],
				   store_errno(outcome, &request.reply),
				   &request.reply);
	}
	return 0;
}

/* Deletes what @batch holds, at most STORE_DELETE_MAX, and empties it. */
static int delete_batch(struct gc *gc, struct key_batch *batch)
{
	unsigned int i;
	int error = 0;

	if (!gc->options->dry_run) {
		error = delete_objects(gc, batch);
		if (!error)
			error = abort_uploads(gc, batch);
	}
	for (i = 0; i < batch->nr && !error; i++) {
		if (batch->uploads[i])
			gc->result->aborted_uploads++;
		else
			gc->result->deleted++;
	}
	if (!error)
		gc->result->deleted_bytes += batch->bytes;
	batch_clear(batch);
	progress(gc, "deleted", gc->result->deleted);
	return error;
}

static int delete_later(struct gc *gc, const struct store_entry *entry)
{
	int error = batch_add(&gc->delete, entry->key, entry->upload, entry->size);

	if (!error && gc->delete.nr == gc->delete.room)
		error = delete_batch(gc, &gc->delete);
	return error;
}

/* ---- condemning --------------------------------------------------------------------------- */

static int put_condemned(struct gc *gc, const struct key_batch *batch, char *key)
{
	uint64_t epoch = gc->stored.head.epoch;
	struct condemned list = { .epoch = epoch, .nr = batch->nr };
	struct store_reply reply;
	unsigned int i;
	void *bytes;
	size_t count;
	int error;

	list.entries = calloc(batch->nr, sizeof(*list.entries));
	if (!list.entries)
		return -ENOMEM;
	for (i = 0; i < batch->nr; i++)
		list.entries[i] = (struct condemned_entry){ batch->keys[i],
							    batch->uploads[i] };
	error = condemned_encode(&list, &bytes, &count);
	free(list.entries);
	if (error)
		return error;
	key_condemned(key, epoch, random_id());
	error = store_errno(store_put_object(gc->store, key, CAUSE_GC, bytes, count,
					     STORE_ALWAYS, NULL, &reply), &reply);
	free(bytes);
	return error ? say(gc, "PUT", key, error, &reply) : 0;
}

/* A list is what the grace of readers runs from: without grace there is none to
 * write. */
static int condemn_without_grace(struct gc *gc, const struct key_batch *batch)
{
	struct store_entry entry = { 0 };
	int error = 0;

	gc->delete.bytes += batch->bytes;
	for (unsigned int i = 0; i < batch->nr && !error; i++) {
		entry.key = batch->keys[i];
		entry.upload = batch->uploads[i];
		error = delete_later(gc, &entry);
	}
	return error;
}

/* Writes down what is condemned.  What is due goes before: there may be no room. */
static int condemn_batch(struct gc *gc)
{
	struct key_batch *batch = &gc->condemn;
	char key[VOLUME_KEY_MAX];
	int error = 0;

	if (!batch->nr)
		return 0;
	if (!gc->options->grace) {
		error = condemn_without_grace(gc, batch);
	} else {
		error = delete_batch(gc, &gc->delete);
		if (!error && !gc->options->dry_run)
			error = put_condemned(gc, batch, key);
		if (!error)
			gc->result->condemned += batch->nr;
	}
	batch_clear(batch);
	progress(gc, "condemned", gc->result->condemned);
	return error;
}

static int condemn(struct gc *gc, const struct store_entry *entry)
{
	struct key_batch *batch = &gc->condemn;
	int error = 0;

	if (batch->nr == batch->room ||
	    batch->lines + line_bytes(entry->key, entry->upload) > CONDEMNED_LINES_MAX)
		error = condemn_batch(gc);
	return error ? error :
	       batch_add(batch, entry->key, entry->upload, entry->size);
}

/* ---- judging what is there ------------------------------------------------------------------ */

static int judge_unreached(struct gc *gc, const struct store_entry *entry,
			   const struct key *key)
{
	if (keyset_has(&gc->due, key, entry->upload))
		return delete_later(gc, entry);
	if (keyset_has(&gc->waiting, key, entry->upload)) {
		gc->result->waiting++;
		return 0;
	}
	return condemn(gc, entry);
}

/* Whether the probe that made @entry may be going on. */
static bool may_go_on(const struct gc *gc, const struct store_entry *entry)
{
	return !entry->last_modified || entry->last_modified + PROBE_AGE > gc->now;
}

static int judge(struct gc *gc, const struct store_entry *entry)
{
	struct key key;

	key_parse(entry->key, &key);
	if (key.kind == KEY_KIND_CHUNK && (key.index % NR_SHARDS < gc->first_shard ||
					   key.index % NR_SHARDS >= gc->end_shard))
		return 0;		/* another round's */
	gc->result->listed++;
	if (gc->result->listed % STORE_LIST_MAX == 0)
		progress(gc, "listed", gc->result->listed);
	if (key.kind == KEY_KIND_FOREIGN) {
		gc->result->foreign++;
		return 0;
	}
	if (key.kind == KEY_KIND_HEAD || keyset_has(&gc->reachable, &key, NULL)) {
		gc->result->reachable++;
		return 0;
	}
	/* Lists are used up, not condemned; what is newer is being written; a
	 * probe may be going on. */
	if (key.kind == KEY_KIND_CONDEMNED || key.epoch > gc->stored.head.epoch ||
	    (key.kind == KEY_KIND_PROBE && may_go_on(gc, entry)))
		return 0;
	return judge_unreached(gc, entry, &key);
}

/* An upload is no object until it is completed; then judge() sees it. */
static int judge_upload(struct gc *gc, const struct store_entry *entry)
{
	struct key key;

	key_parse(entry->key, &key);
	if (key.kind == KEY_KIND_FOREIGN || key.kind == KEY_KIND_HEAD ||
	    key.epoch > gc->stored.head.epoch ||
	    (key.kind == KEY_KIND_PROBE && may_go_on(gc, entry)))
		return 0;
	if (!upload_id_is_valid(entry->upload)) {
		log_warning("%s: gc: leaves an upload to %s alone, whose id no objmap can write down",
			    gc->store->place, entry->key);
		gc->result->foreign++;
		return 0;
	}
	return judge_unreached(gc, entry, &key);
}

/* ---- all of it ------------------------------------------------------------------------------ */

/* The first round also judges all that is no chunk. */
static int gc_round(struct gc *gc)
{
	char prefix[16];
	unsigned int shard;
	int error = reach_all(gc);

	if (!error && gc->first_shard == 0)
		return list_each(gc, STORE_LIST, "", judge);
	for (shard = gc->first_shard; shard < gc->end_shard && !error; shard++) {
		snprintf(prefix, sizeof(prefix), "chunk/%02x/", shard);
		error = list_each(gc, STORE_LIST, prefix, judge);
	}
	return error;
}

static int gc_run(struct gc *gc)
{
	int error = list_each(gc, STORE_LIST, "condemned/", visit_list);

	for (; gc->first_shard < NR_SHARDS && !error; gc->first_shard = gc->end_shard) {
		gc->end_shard = NR_SHARDS;
		error = gc_round(gc);
	}
	if (!error)
		error = list_each(gc, STORE_LIST_UPLOADS, "", judge_upload);
	if (!error)
		error = condemn_batch(gc);
	if (!error)
		error = delete_batch(gc, &gc->delete);
	/* Last of all: what is named there is gone now. */
	if (!error && !gc->options->dry_run)
		error = delete_objects(gc, &gc->lists);
	return error;
}

/* Head as it is, of a volume that no killed writer holds any more. */
static int gc_read_head(struct gc *gc)
{
	const struct claim_options *claim = gc->options->close_killed;
	int error = head_read(gc->store, &gc->stored);

	int closed = 0;

	if (!error && claim && !gc->options->dry_run)
		closed = claim_close_killed(gc->store, claim, &gc->stored.head);
	/* On a full disk there is no room for a claim; but what is garbage without
	 * one can go. */
	if (closed < 0)
		log_warning("%s: gc: what the killed writer had begun stays, because the volume could not be closed: %s",
			    gc->store->place, error_words(closed));
	if (closed)
		error = head_read(gc->store, &gc->stored);
	if (error == -ENOENT)
		log_error("%s: there is no volume here", gc->store->place);
	return error;
}

static int gc_open(struct gc *gc)
{
	int error = gc_read_head(gc);

	keyset_init(&gc->reachable, (gc->options->memory ? gc->options->memory
				     : MEMORY_DEFAULT) / OBJECT_BYTES);
	keyset_init(&gc->due, CONDEMNED_SET);
	keyset_init(&gc->waiting, CONDEMNED_SET);
	if (!error)
		error = batch_open(&gc->condemn, CONDEMNED_MAX);
	if (!error)
		error = batch_open(&gc->delete, STORE_DELETE_MAX);
	if (!error)
		error = batch_open(&gc->lists, STORE_DELETE_MAX);
	return error;
}

int volume_gc(struct store *store, const struct gc_options *options,
	      struct gc_result *result)
{
	struct gc *gc = calloc(1, sizeof(*gc));
	int error;

	*result = (struct gc_result){ 0 };
	if (!gc)
		return -ENOMEM;
	gc->store = store;
	gc->options = options;
	gc->result = result;
	error = gc_open(gc);
	if (!error)
		error = gc_run(gc);
	batch_close(&gc->condemn);
	batch_close(&gc->delete);
	batch_close(&gc->lists);
	keyset_free(&gc->reachable);
	keyset_free(&gc->due);
	keyset_free(&gc->waiting);
	free(gc);
	return error;
}
