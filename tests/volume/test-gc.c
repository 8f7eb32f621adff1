/* test-gc.c: gc deletes what nothing can refer to any more, never anything else. */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>
#include <unistd.h>

#include "src/volume/claim.h"
#include "tests/store/fault_store.h"
#include "tests/store/given.h"
#include "tests/volume/bucket.h"
#include "tests/volume/images.h"

static struct fault *fault;
static struct image image;
static struct gc_result result;
static char first[VOLUME_KEY_MAX];	/* chunk 0, as it was written first */

static void setup(void)
{
	struct store *client;

	log_open("/dev/null", LOG_LEVEL_ERROR);
	fault = fault_open(given_store_or_mem());
	client = fault_client(fault);
	atomic_store(&client->retry_for, 0);
	image_new(&image, client, 3000);
	image_write(&image, 0, 1);
	image_write(&image, 1, 2);
	image_commit(&image);
	head_chunk_key(&image.stored.head, 0, &image.stored.head.recent[0].ref, first);
}

static void teardown(void)
{
	store_close(image.store);
	fault_close(fault);
}

static int gc(uint32_t grace)
{
	struct gc_options options = { .grace = grace };

	return volume_gc(image.store, &options, &result);
}

static void replace_first(void)
{
	image_write(&image, 0, 3);
	image_commit(&image);
}

static void expect_good(void)
{
	struct verify_options options = { 0 };
	struct verify_result verified;

	cr_assert_eq(volume_verify(image.store, &options, &verified), 0);
}

static unsigned int count_keys(const char *prefix)
{
	struct store_request request = { .key = prefix };
	unsigned int nr;

	cr_assert_eq(store_wait(image.store, STORE_LIST, &request), STORE_DONE);
	nr = request.reply.listing.nr_entries;
	store_listing_free(&request.reply.listing);
	return nr;
}

Test(gc, finds_nothing_in_a_new_volume, .init = setup, .fini = teardown)
{
	cr_assert_eq(gc(0), 0);
	cr_assert_eq(result.condemned + result.deleted, 0);
	cr_assert_eq(result.listed, 3);
	cr_assert_eq(result.reachable, 3);
	expect_good();
}

Test(gc, condemns_what_was_replaced_and_deletes_it_a_grace_period_later,
     .init = setup, .fini = teardown)
{
	replace_first();
	cr_assert_eq(gc(100), 0);
	cr_assert_eq(result.condemned, 1);
	cr_assert_eq(result.deleted, 0);
	cr_assert_eq(gc(100), 0);
	cr_assert_eq(result.condemned, 0);
	cr_assert_eq(result.waiting, 1);
	cr_assert(image_has(image.store, first));
	fault_clock_add(fault, 101);
	cr_assert_eq(gc(100), 0);
	cr_assert_eq(result.deleted, 1);
	cr_assert_eq(result.deleted_bytes, IMAGE_CHUNK);
	cr_assert(!image_has(image.store, first));
	cr_assert_eq(count_keys("condemned/"), 0);
	expect_good();
}

Test(gc, grace_runs_from_condemnation_not_from_birth, .init = setup, .fini = teardown)
{
	replace_first();
	fault_clock_add(fault, 1000);
	cr_assert_eq(gc(500), 0);	/* born 1000 s ago, condemned now */
	cr_assert_eq(result.condemned, 1);
	fault_clock_add(fault, -1000ull);	/* of which its list is dated */
	cr_assert_eq(gc(500), 0);
	cr_assert_eq(result.waiting, 1);
	cr_assert(image_has(image.store, first));
}

Test(gc, without_grace_it_goes_at_once, .init = setup, .fini = teardown)
{
	replace_first();
	cr_assert_eq(gc(0), 0);
	cr_assert_eq(result.condemned, 0);
	cr_assert_eq(result.deleted, 1);
	cr_assert_eq(result.deleted_bytes, IMAGE_CHUNK);
	cr_assert(!image_has(image.store, first));
	cr_assert_eq(count_keys("condemned/"), 0);
	expect_good();
}

Test(gc, a_dry_run_counts_and_changes_nothing, .init = setup, .fini = teardown)
{
	struct gc_options options = { .dry_run = true };

	replace_first();
	fault_count_reset(fault);
	cr_assert_eq(volume_gc(image.store, &options, &result), 0);
	cr_assert_eq(result.condemned, 0);
	cr_assert_eq(result.deleted, 1);
	cr_assert_eq(fault_count(fault, STORE_PUT, NULL), 0);
	cr_assert_eq(fault_count(fault, STORE_DELETE, NULL), 0);
}

Test(gc, what_a_snapshot_holds_stays_until_it_is_deleted,
     .init = setup, .fini = teardown)
{
	cr_assert_eq(volume_snapshot_create(image.store, "one", NULL), 0);
	image_begin(&image);
	replace_first();
	cr_assert_eq(gc(0), 0);
	cr_assert_eq(result.deleted, 0);
	cr_assert(image_has(image.store, first));
	expect_good();
	cr_assert_eq(volume_snapshot_delete(image.store, "one", NULL), 0);
	image_claim(&image);	/* lists are keyed by the epoch after head's */
	cr_assert_eq(gc(0), 0);
	cr_assert_eq(result.deleted, 3);	/* chunk, list and body */
	cr_assert(!image_has(image.store, first));
	cr_assert_eq(count_keys("snapshot/"), 0);
	expect_good();
}

Test(gc, what_a_clone_holds_stays_though_the_snapshot_is_deleted)
{
	struct bucket *bucket = bucket_open();
	struct verify_options options = { 0 };
	struct verify_result verified;
	struct store *clone = bucket_client(bucket, "clone");

	log_open("/dev/null", LOG_LEVEL_ERROR);
	image_new(&image, bucket_client(bucket, "parent"), 3000);
	image_write(&image, 0, 1);
	image_commit(&image);
	head_chunk_key(&image.stored.head, 0, &image.stored.head.recent[0].ref, first);
	cr_assert_eq(volume_snapshot_create(image.store, "one", NULL), 0);
	cr_assert_eq(volume_clone(image.store, "parent", "one", clone, "clone", NULL), 0);
	cr_assert_eq(volume_snapshot_delete(image.store, "one", NULL), 0);
	image_claim(&image);
	replace_first();
	cr_assert_eq(gc(0), 0);
	cr_assert(image_has(image.store, first));
	/* The clone reads it there, and its own gc looks at nothing there. */
	cr_assert_eq(volume_verify(clone, &options, &verified), 0);
	cr_assert_eq(verified.chunks, 1);
	cr_assert_eq(volume_gc(clone, &(struct gc_options){ 0 }, &result), 0);
	cr_assert_eq(result.listed, 1);
	cr_assert_eq(result.deleted, 0);
	/* Once the clone is gone, so is its hold. */
	cr_assert_eq(volume_delete(clone, &(struct claim_options){ 0 }), 0);
	cr_assert_eq(volume_snapshot_create(image.store, "two", NULL), 0);
	cr_assert_eq(volume_snapshot_delete(image.store, "two", NULL), 0);
	image_claim(&image);
	cr_assert_eq(gc(0), 0);
	cr_assert(!image_has(image.store, first));
	store_close(clone);
	store_close(image.store);
	bucket_close(bucket);
}

Test(gc, a_paused_writers_uploads_are_spared_and_its_swap_is_good,
     .init = setup, .fini = teardown)
{
	image_write(&image, 5, 7);		/* uploaded, not swapped in */
	cr_assert_eq(gc(0), 0);
	cr_assert_eq(result.deleted, 0);
	image_commit(&image);
	expect_good();
}

Test(gc, an_abandoned_attempt_goes_once_somebody_else_has_claimed,
     .init = setup, .fini = teardown)
{
	struct image paused = image;
	char key[VOLUME_KEY_MAX];

	image_write(&paused, 5, 7);
	key_chunk(key, 5, paused.next.epoch, paused.next.writer);
	image_claim(&image);
	cr_assert_eq(gc(0), 0);
	cr_assert_eq(result.deleted, 1);
	cr_assert(!image_has(image.store, key));
	cr_assert_eq(image_try_commit(&paused), -ESTALE);
	expect_good();
}

Test(gc, a_put_that_arrives_late_is_garbage_too, .init = setup, .fini = teardown)
{
	struct image late = image;

	image_claim(&image);
	cr_assert_eq(gc(0), 0);
	image_chunk(&late, 5, 7);
	cr_assert_eq(gc(0), 0);
	cr_assert_eq(result.deleted, 1);
	expect_good();
}

/* ---- a volume whose writer is held, or was killed ------------------------------------ */

static char runtime[40];
static struct claim held;
static char begun[VOLUME_KEY_MAX];	/* what its writer has uploaded and not swapped in */

/* A writer that has begun a commit. */
static void begin_to_write(void)
{
	struct claim_options options = { .runtime_dir = runtime };

	snprintf(runtime, sizeof(runtime), "/tmp/objmap-test-XXXXXX");
	cr_assert_not_null(mkdtemp(runtime));
	cr_assert_eq(claim_take(image.store, &options, true, NULL, NULL, &held), 0);
	image_begin(&image);
	image_write(&image, 5, 7);
	key_chunk(begun, 5, image.next.epoch, image.next.writer);
}

static void runtime_remove(void)
{
	char command[80];

	snprintf(command, sizeof(command), "rm -r %s", runtime);
	cr_assert_eq(system(command), 0);
}

static int gc_here(bool dry_run)
{
	const struct claim_options claim = { .runtime_dir = runtime };
	struct gc_options options = { .dry_run = dry_run, .close_killed = &claim };

	return volume_gc(image.store, &options, &result);
}

static struct head head_now(void)
{
	struct stored_head stored;

	cr_assert_eq(head_read(image.store, &stored), 0);
	return stored.head;
}

Test(gc, what_a_writer_that_was_killed_here_had_begun_goes_at_once,
     .init = setup, .fini = teardown)
{
	struct head before, after;

	begin_to_write();
	claim_drop(&held);	/* as the kernel does of a dead process */
	before = head_now();
	cr_assert_eq(gc_here(true), 0);
	cr_assert_eq(head_now().nonce, before.nonce, "a dry run claims nothing");
	cr_assert_eq(gc(0), 0);
	cr_assert_eq(head_now().nonce, before.nonce);
	cr_assert(image_has(image.store, begun));
	cr_assert_eq(gc_here(false), 0);
	cr_assert_eq(result.deleted, 1);
	cr_assert(!image_has(image.store, begun));
	after = head_now();
	cr_assert_not(after.holder.held);
	cr_assert_eq(after.epoch, before.epoch + CLAIM_EPOCH_STEP);
	cr_assert_eq(after.history[0].writer, before.writer);
	cr_assert_eq(image_try_commit(&image), -ESTALE, "its late swap is lost");
	cr_assert_eq(gc_here(false), 0);
	cr_assert_eq(head_now().nonce, after.nonce, "once is enough");
	expect_good();
	runtime_remove();
}

Test(gc, a_living_writer_here_is_left_alone, .init = setup, .fini = teardown)
{
	uint64_t nonce;

	begin_to_write();
	nonce = head_now().nonce;
	fault_count_reset(fault);
	cr_assert_eq(gc_here(false), 0);
	cr_assert_eq(result.deleted, 0);
	cr_assert_eq(head_now().nonce, nonce);
	cr_assert_eq(fault_count(fault, STORE_PUT, NULL), 0, "not even a probe");
	image_commit(&image);
	claim_drop(&held);
	expect_good();
	runtime_remove();
}

/* Other machines, boots and journals: nothing of them is proved by our lock. */
Test(gc, a_holder_that_may_live_or_comes_back_to_a_journal_is_left_alone,
     .init = setup, .fini = teardown)
{
	static const char *const what[] = { "another boot", "another lock", "a journal" };
	struct holder *holder;
	unsigned int i;

	begin_to_write();
	claim_drop(&held);
	for (i = 0; i < 3; i++) {
		image_begin(&image);
		holder = &image.next.holder;
		if (i == 0)
			snprintf(holder->boot, sizeof(holder->boot), "another");
		else if (i == 1)
			holder->lock_inode++;
		else
			holder->journal = true;
		image_commit(&image);
		image_begin(&image);
		image_write(&image, 6 + i, 7);
		cr_assert_eq(gc_here(false), 0, "%s", what[i]);
		cr_assert(head_now().holder.held, "%s", what[i]);
		/* Back to what it was. */
		image_begin(&image);
		image.next.holder = held.head.head.holder;
		image_commit(&image);
	}
	cr_assert_eq(gc_here(false), 0);
	cr_assert_not(head_now().holder.held);
	runtime_remove();
}

/* A leaf with one chunk; returns the leaf's key. */
static const char *commit_leaf(void)
{
	static char key[VOLUME_KEY_MAX];
	struct ref chunk = image_chunk(&image, 1024, 1);

	image.next.root[1] = image_node(&image, 0, 1, 0, &chunk, 1);
	image_commit(&image);
	head_node_key(&image.stored.head, 0, 1, &image.stored.head.root[1], key);
	return key;
}

Test(gc, a_missing_node_stops_it, .init = setup, .fini = teardown)
{
	const char *key = commit_leaf();

	replace_first();
	image_delete(image.store, key);
	fault_count_reset(fault);
	cr_assert_eq(gc(0), -EIO);
	cr_assert_eq(fault_count(fault, STORE_DELETE, NULL), 0);
	cr_assert_eq(fault_count(fault, STORE_PUT, NULL), 0);
	cr_assert(image_has(image.store, first));
}

Test(gc, a_node_that_cannot_be_read_stops_it, .init = setup, .fini = teardown)
{
	commit_leaf();
	replace_first();
	fault_add(fault, &(struct fault_rule){ .op = STORE_GET, .prefix = "map/",
					       .kind = FAULT_CORRUPT, .times = 2 });
	fault_count_reset(fault);
	cr_assert_eq(gc(0), -EIO);
	cr_assert_eq(fault_count(fault, STORE_DELETE, NULL), 0);
	cr_assert_eq(fault_count(fault, STORE_PUT, NULL), 0);
	fault_add(fault, &(struct fault_rule){ .op = STORE_GET, .prefix = "map/",
					       .kind = FAULT_FAIL, .error = -EACCES,
					       .times = 1 });
	cr_assert_eq(gc(0), -EACCES);
	cr_assert(image_has(image.store, first));
	cr_assert_eq(gc(0), 0);
	cr_assert(!image_has(image.store, first));
	expect_good();
}

Test(gc, a_node_that_comes_wrong_once_does_not, .init = setup, .fini = teardown)
{
	static const enum fault_kind kinds[] = { FAULT_CORRUPT, FAULT_TRUNCATE };
	size_t i;

	commit_leaf();
	replace_first();
	for (i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
		fault_add(fault, &(struct fault_rule){ .op = STORE_GET,
			.prefix = "map/", .kind = kinds[i], .times = 1 });
		cr_assert_eq(gc(0), 0, "kind %d", kinds[i]);
	}
	cr_assert(!image_has(image.store, first));
	expect_good();
}

Test(gc, a_missing_body_or_list_stops_it, .init = setup, .fini = teardown)
{
	struct snapshot_list list;
	char key[VOLUME_KEY_MAX];

	cr_assert_eq(volume_snapshot_create(image.store, "one", NULL), 0);
	image_begin(&image);
	replace_first();
	cr_assert_eq(snapshots_read(image.store, &image.stored.head, &list), 0);
	key_snapshot_body(key, list.snapshots[0].body_epoch,
			  list.snapshots[0].body_nonce);
	snapshot_list_free(&list);
	image_delete(image.store, key);
	cr_assert_eq(gc(0), -EIO);
	key_snapshot_list(key, image.stored.head.snapshot_list_epoch,
			  image.stored.head.snapshot_list_nonce);
	image_delete(image.store, key);
	cr_assert_eq(gc(0), -EIO);
	cr_assert(image_has(image.store, first));
}

Test(gc, a_listing_that_fails_deletes_nothing, .init = setup, .fini = teardown)
{
	replace_first();
	fault_add(fault, &(struct fault_rule){ .op = STORE_LIST, .skip = 1,
					       .kind = FAULT_FAIL });
	cr_assert_eq(gc(0), -EIO);
	cr_assert(image_has(image.store, first));
}

Test(gc, foreign_keys_and_newer_ones_are_counted_or_left_never_touched,
     .init = setup, .fini = teardown)
{
	static const char *const keys[] = {
		"README", "head.old", "chunk/00/notes", "condemned/x",
		"chunk/05/00000005-00000000000fffff-0000000000000001",
		"snapshot/list-00000000000fffff-0000000000000001",
	};
	size_t i;

	for (i = 0; i < 6; i++)
		image_put(image.store, keys[i], "x", 1, NULL);
	cr_assert_eq(gc(0), 0);
	cr_assert_eq(result.foreign, 4);
	cr_assert_eq(result.deleted, 0);
	for (i = 0; i < 6; i++)
		cr_assert(image_has(image.store, keys[i]), "%s", keys[i]);
}

Test(gc, a_deleted_volume_keeps_its_tombstone_only, .init = setup, .fini = teardown)
{
	struct claim_options claim = { 0 };

	cr_assert_eq(volume_snapshot_create(image.store, "one", NULL), 0);
	cr_assert_eq(volume_delete(image.store, &claim), 0);
	cr_assert_eq(gc(0), 0);
	cr_assert_eq(count_keys(""), 1);
	cr_assert(image_has(image.store, KEY_HEAD));
}

Test(gc, a_damaged_condemned_list_frees_nothing_and_is_made_anew,
     .init = setup, .fini = teardown)
{
	replace_first();
	image_put(image.store, "condemned/0000000000000001-0000000000000001",
		  "objmap-condemned", 16, NULL);
	fault_clock_add(fault, 200);
	cr_assert_eq(gc(100), 0);
	cr_assert_eq(result.condemned, 1);
	cr_assert_eq(result.deleted, 0);
	cr_assert_eq(count_keys("condemned/"), 1);
	fault_clock_add(fault, 101);
	cr_assert_eq(gc(100), 0);
	cr_assert_eq(result.deleted, 1);
	cr_assert_eq(count_keys("condemned/"), 0);
}

Test(gc, a_list_cannot_condemn_what_is_reachable, .init = setup, .fini = teardown)
{
	struct condemned_entry entry = { first, NULL };
	struct condemned list = { image.stored.head.epoch, 1, &entry };
	void *bytes;
	size_t count;

	cr_assert_eq(condemned_encode(&list, &bytes, &count), 0);
	image_put(image.store, "condemned/0000000000000002-0000000000000001", bytes,
		  count, NULL);
	free(bytes);
	fault_clock_add(fault, 200);
	cr_assert_eq(gc(100), 0);
	cr_assert_eq(result.deleted, 0);
	cr_assert(image_has(image.store, first));
	expect_good();
}

Test(gc, a_leftover_of_a_probe_goes_when_no_probe_can_be_going_on,
     .init = setup, .fini = teardown)
{
	image_put(image.store, "probe/0000000000000001", "x", 1, NULL);
	cr_assert_eq(gc(0), 0);
	cr_assert(image_has(image.store, "probe/0000000000000001"));
	fault_clock_add(fault, 3601);
	cr_assert_eq(gc(0), 0);
	cr_assert_eq(count_keys("probe/"), 0);
}

Test(gc, with_little_memory_it_takes_rounds_and_finds_the_same,
     .init = setup, .fini = teardown)
{
	struct gc_options options = { .memory = 40 * 32 };	/* 40 objects */
	uint32_t i;

	for (i = 2; i < 300; i++)
		image_write(&image, i, i);
	image_commit(&image);
	for (i = 0; i < 300; i += 3)
		image_write(&image, i, 1000 + i);
	image_commit(&image);
	cr_assert_eq(volume_gc(image.store, &options, &result), 0);
	cr_assert_eq(result.deleted, 100);
	cr_assert_eq(result.reachable, 301);
	cr_assert_eq(result.listed, 401);
	expect_good();
}

Test(gc, nodes_that_snapshots_share_are_read_once, .init = setup, .fini = teardown)
{
	static const char *const names[] = { "a", "b", "c", "d" };
	unsigned int i;

	commit_leaf();
	for (i = 0; i < 4; i++)
		cr_assert_eq(volume_snapshot_create(image.store, names[i], NULL), 0);
	fault_count_reset(fault);
	cr_assert_eq(gc(0), 0);
	cr_assert_eq(fault_count(fault, STORE_GET, "map/"), 1);
	expect_good();
}

Test(gc, what_a_recent_ref_replaced_in_a_shared_node_is_held_by_the_snapshot_only,
     .init = setup, .fini = teardown)
{
	char key[VOLUME_KEY_MAX];

	key_chunk(key, 1024, image.next.epoch, image.next.writer);
	commit_leaf();
	cr_assert_eq(volume_snapshot_create(image.store, "one", NULL), 0);
	image_begin(&image);
	image_write(&image, 1024, 9);
	image_commit(&image);
	cr_assert_eq(gc(0), 0);
	cr_assert(image_has(image.store, key));
	cr_assert_eq(volume_snapshot_delete(image.store, "one", NULL), 0);
	image_claim(&image);
	cr_assert_eq(gc(0), 0);
	cr_assert(!image_has(image.store, key));
	expect_good();
}

/* ---- multipart uploads: a store that has some --------------------------------------- */

static struct store *uploads_inner;
static unsigned int nr_aborted;
static unsigned int nr_long;	/* uploads with long ids that there are */
static uint64_t uploads_now;	/* when a doctor's upload of second 1000 is listed; 0: none */
static const char old_upload[] =
	"chunk/05/00000005-0000000000000002-0000000000000001";
static const char new_upload[] =
	"chunk/05/00000005-00000000000fffff-0000000000000001";

static void add_upload(struct store_listing *listing, const char *key, const char *id)
{
	struct store_entry *entry = &listing->entries[listing->nr_entries++];

	*entry = (struct store_entry){ .key = strdup(key), .upload = strdup(id) };
}

/* Their ids are as long as S3 lets them be; one cannot be written down. */
static void list_long(struct store_listing *listing)
{
	char id[UPLOAD_ID_MAX + 1];
	unsigned int i;

	listing->entries = calloc(nr_long + 1, sizeof(*listing->entries));
	for (i = nr_aborted; i < nr_long; i++) {
		snprintf(id, sizeof(id), "%0*u", (int)UPLOAD_ID_MAX, i);
		add_upload(listing, old_upload, id);
	}
	add_upload(listing, old_upload, "a b");
}

static void uploads_submit(struct store *store, struct store_request *request)
{
	struct store_listing *listing = &request->reply.listing;

	if (request->op == STORE_LIST_UPLOADS && uploads_now) {
		listing->entries = calloc(1, sizeof(*listing->entries));
		if (!nr_aborted) {
			add_upload(listing, "probe/0000000000000001", "one");
			listing->entries[0].last_modified = 1000;
		}
		request->reply.date = uploads_now;
		store_complete(request, STORE_DONE);
	} else if (request->op == STORE_LIST_UPLOADS && nr_long) {
		list_long(listing);
		store_complete(request, STORE_DONE);
	} else if (request->op == STORE_LIST_UPLOADS) {
		listing->entries = calloc(3, sizeof(*listing->entries));
		if (!nr_aborted)
			add_upload(listing, old_upload, "one");
		add_upload(listing, new_upload, "two");
		add_upload(listing, "somebody/else", "three");
		store_complete(request, STORE_DONE);
	} else if (request->op == STORE_ABORT_UPLOAD && (nr_long || uploads_now)) {
		nr_aborted++;
		store_complete(request, STORE_DONE);
	} else if (request->op == STORE_ABORT_UPLOAD) {
		cr_assert_str_eq(request->key, old_upload);
		cr_assert_str_eq(request->upload, "one");
		nr_aborted++;
		store_complete(request, STORE_DONE);
	} else {
		uploads_inner->ops->submit(uploads_inner, request);
	}
}

static void uploads_close(struct store *store)
{
	store_deinit(store);
}

static const struct store_ops uploads_ops = { "uploads", uploads_submit, store_keeps_nothing,
						uploads_close };

Test(gc, an_abandoned_upload_is_condemned_then_aborted, .init = setup,
     .fini = teardown)
{
	struct gc_options options = { .grace = 100 };
	struct store uploads = { 0 };

	uploads_inner = image.store;
	cr_assert_eq(store_init(&uploads, &uploads_ops, "uploads"), 0);
	cr_assert_eq(volume_gc(&uploads, &options, &result), 0);
	cr_assert_eq(result.condemned, 1);
	cr_assert_eq(nr_aborted, 0);
	cr_assert_eq(volume_gc(&uploads, &options, &result), 0);
	cr_assert_eq(result.waiting, 1);
	fault_clock_add(fault, 101);
	cr_assert_eq(volume_gc(&uploads, &options, &result), 0);
	cr_assert_eq(result.aborted_uploads, 1);
	cr_assert_eq(nr_aborted, 1);
	cr_assert_eq(count_keys("condemned/"), 0);
	store_close(&uploads);
}

Test(gc, an_upload_that_doctor_left_goes_when_no_doctor_can_be_going_on,
     .init = setup, .fini = teardown)
{
	struct gc_options options = { .grace = 0 };
	struct store uploads = { 0 };

	uploads_inner = image.store;
	cr_assert_eq(store_init(&uploads, &uploads_ops, "uploads"), 0);
	uploads_now = 1000 + 3599;
	cr_assert_eq(volume_gc(&uploads, &options, &result), 0);
	cr_assert_eq(nr_aborted, 0);
	uploads_now++;
	cr_assert_eq(volume_gc(&uploads, &options, &result), 0);
	cr_assert_eq(nr_aborted, 1);
	cr_assert_eq(result.aborted_uploads, 1);
	store_close(&uploads);
}

Test(gc, uploads_with_long_ids_take_several_lists, .init = setup, .fini = teardown)
{
	struct gc_options options = { .grace = 100 };
	struct store uploads = { 0 };

	nr_long = CONDEMNED_BYTES_MAX / UPLOAD_ID_MAX + 100;
	uploads_inner = image.store;
	cr_assert_eq(store_init(&uploads, &uploads_ops, "uploads"), 0);
	cr_assert_eq(volume_gc(&uploads, &options, &result), 0);
	cr_assert_eq(result.condemned, nr_long);
	cr_assert_eq(result.foreign, 1);
	cr_assert_eq(count_keys("condemned/"), 2);
	fault_clock_add(fault, 101);
	cr_assert_eq(volume_gc(&uploads, &options, &result), 0);
	cr_assert_eq(result.aborted_uploads, nr_long);
	cr_assert_eq(nr_aborted, nr_long);
	cr_assert_eq(count_keys("condemned/"), 0);
	store_close(&uploads);
}
