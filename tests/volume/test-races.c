/* test-races.c: what objmap-volume(5) promises of a volume's content, in the
 * worst order of events: writers, readers, gc and administrators against one
 * another, with requests that come late, twice or not at all. */
#include <criterion/criterion.h>
#include <errno.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "src/clock.h"
#include "src/volume/volume.h"
#include "tests/store/fault_store.h"
#include "tests/volume/bucket.h"

#define CHUNK (64u << 10)
#define NR 16u			/* chunks of the volume */
#define LATE 1000000u		/* requests: not before fault_release() */

static struct bucket *bucket;
static struct fault *writer, *other, *twin;	/* sides of vol, vol and twin */
static const struct claim_options rude = { .take_over = true };
static uint64_t patience;			/* retry_for of what is opened, ns */

/* ---- the world --------------------------------------------------------------- */

static struct store *client(struct fault *side)
{
	struct store *store = fault_client(side);

	atomic_store(&store->retry_for, patience);
	return store;
}

static void setup(void)
{
	const struct volume_create_options options = { .size = NR * CHUNK,
						       .chunk_size = CHUNK };
	struct store *store;

	bucket = bucket_open();
	patience = 30 * CLOCK_SECOND;
	writer = fault_open(bucket_client(bucket, "vol"));
	other = fault_open(bucket_client(bucket, "vol"));
	twin = fault_open(bucket_client(bucket, "twin"));
	store = client(other);
	cr_assert_eq(volume_create(store, &options), 0);
	store_close(store);
}

static void teardown(void)
{
	fault_release(writer);
	fault_close(writer);
	fault_close(other);
	fault_close(twin);
	bucket_close(bucket);
}

TestSuite(races, .init = setup, .fini = teardown, .timeout = 300);

static struct volume *open_with(struct fault *side, const struct volume_options *options)
{
	struct volume *volume;

	cr_assert_eq(volume_open(client(side), options, &volume), 0);
	return volume;
}

static struct volume *open_writer(struct fault *side)
{
	const struct volume_options options = { .writable = true, .grace = 1000 };

	return open_with(side, &options);
}

static struct volume *take_over(struct fault *side)
{
	const struct volume_options options = { .writable = true, .take_over = true };

	return open_with(side, &options);
}

static struct volume *open_reader(struct fault *side, const char *snapshot)
{
	const struct volume_options options = { .snapshot = snapshot };

	return open_with(side, &options);
}

static void close_volume(struct volume *volume)
{
	stage_close(volume_stage(volume));
}

/* The process is gone: nothing more of it reaches the store. */
static void crash(struct fault *side, struct volume *volume)
{
	fault_add(side, &(struct fault_rule){ .op = NR_STORE_OPS, .kind = FAULT_FAIL });
	close_volume(volume);
	fault_clear(side);
}

static void put(struct volume *volume, uint32_t chunk, int value)
{
	static char content[CHUNK];

	memset(content, value, CHUNK);
	cr_assert_eq(stage_write(volume_stage(volume), content, CHUNK,
				 (uint64_t)chunk * CHUNK, 0), 0);
}

/* The value a whole chunk has, or a negative errno. */
static int get(struct volume *volume, uint32_t chunk)
{
	static unsigned char content[CHUNK];
	int error;

	error = stage_read(volume_stage(volume), content, CHUNK,
			   (uint64_t)chunk * CHUNK, 0);
	if (error)
		return error;
	cr_assert_eq(memcmp(content, content + 1, CHUNK - 1), 0, "a torn chunk");
	return content[0];
}

static int flush(struct volume *volume)
{
	return stage_flush(volume_stage(volume));
}

/* What somebody who opens it now reads. */
static int reads(struct fault *side, const char *snapshot, uint32_t chunk)
{
	struct volume *volume = open_reader(side, snapshot);
	int value = get(volume, chunk);

	close_volume(volume);
	return value;
}

static int with_store(struct fault *side, int (*act)(struct store *store))
{
	struct store *store = client(side);
	int error = act(store);

	store_close(store);
	return error;
}

static int act_snapshot(struct store *store)
{
	return volume_snapshot_create(store, "s", NULL);
}

static int act_unsnapshot(struct store *store)
{
	return volume_snapshot_delete(store, "s", NULL);
}

static int act_rollback(struct store *store)
{
	return volume_rollback(store, "s", &rude);
}

static int act_delete(struct store *store)
{
	return volume_delete(store, &rude);
}

static int act_create(struct store *store)
{
	const struct volume_create_options options = { .size = NR * CHUNK,
						       .chunk_size = CHUNK };

	return volume_create(store, &options);
}

static int act_clone(struct store *store)
{
	struct store *to = client(twin);
	int error = volume_clone(store, "vol", "s", to, "twin", NULL);

	store_close(to);
	return error;
}

static struct gc_result collected;

static int gc(struct fault *side, uint32_t grace)
{
	const struct gc_options options = { .grace = grace };
	struct store *store = client(side);
	int error = volume_gc(store, &options, &collected);

	store_close(store);
	return error;
}

static void on(struct fault *side, enum store_op op, const char *prefix,
	       enum fault_kind kind, unsigned int times,
	       void (*call)(void *, const struct store_request *))
{
	fault_add(side, &(struct fault_rule){ .op = op, .prefix = prefix, .kind = kind,
		.times = times, .call = call,
		.delay = kind == FAULT_LATE || kind == FAULT_DUPLICATE ? LATE : 0 });
}

/* A flush whose swap arrives when everybody thinks its writer dead. */
static void die_while_swapping(struct volume *volume)
{
	on(writer, STORE_PUT, "head", FAULT_LATE, 1, NULL);
	on(writer, STORE_GET, "head", FAULT_FAIL, 0, NULL);
	cr_assert_neq(flush(volume), 0);
	crash(writer, volume);
	cr_assert_eq(fault_held(writer), 1);
}

/* ---- attempts ----------------------------------------------------------------- */

Test(races, a_late_put_of_an_abandoned_attempt_changes_nothing)
{
	struct volume *volume;

	patience = 0;
	volume = open_writer(writer);
	put(volume, 0, 1);
	on(writer, STORE_PUT, "chunk/", FAULT_LATE, 1, NULL);
	cr_assert_neq(flush(volume), 0);
	put(volume, 0, 2);
	cr_assert_eq(flush(volume), 0);
	cr_assert_eq(fault_held(writer), 1);
	fault_release(writer);
	cr_assert_eq(reads(other, NULL, 0), 2);
	close_volume(volume);
}

Test(races, a_commit_sent_twice_is_one)
{
	struct volume *volume = open_writer(writer);

	put(volume, 0, 1);
	on(writer, STORE_PUT, NULL, FAULT_DUPLICATE, 0, NULL);
	cr_assert_eq(flush(volume), 0);
	put(volume, 0, 2);
	cr_assert_eq(flush(volume), 0);
	fault_release(writer);
	cr_assert_eq(reads(other, NULL, 0), 2);
	close_volume(volume);
}

Test(races, a_failed_flush_says_so_and_the_next_one_saves_the_data)
{
	struct volume *volume;

	patience = 0;
	volume = open_writer(writer);
	put(volume, 3, 1);
	on(writer, STORE_PUT, "head", FAULT_LATE, 1, NULL);
	on(writer, STORE_GET, "head", FAULT_FAIL, 1, NULL);
	cr_assert_neq(flush(volume), 0);
	cr_assert_eq(get(volume, 3), 1);
	fault_clear(writer);
	fault_release(writer);		/* it was applied after all */
	put(volume, 4, 2);
	cr_assert_eq(flush(volume), 0);
	cr_assert_eq(reads(other, NULL, 3), 1);
	cr_assert_eq(reads(other, NULL, 4), 2);
	close_volume(volume);
}

/* More nodes than stay in memory, and chunks in them than recent refs. */
#define NR_NODES 66u
#define NR_IN_NODE 8u

/* The node of a chunk that no commit has touched is replaced by one that has been made
 * and is not known to have been. */
Test(races, a_node_that_gc_took_while_a_swap_was_unsettled_is_looked_for_in_the_new_map)
{
	const struct volume_create_options wide = { .size = NR_NODES * 1024ull * CHUNK,
						    .chunk_size = CHUNK };
	const struct volume_options options = { .writable = true, .map_memory = 1,
						.pending_limit = 1 << 30 };
	struct volume *volume;
	struct store *store;
	uint32_t node, i;

	cr_assert_eq(with_store(other, act_delete), 0);
	store = client(other);
	cr_assert_eq(volume_create(store, &wide), 0);
	store_close(store);
	patience = 0;
	volume = open_with(writer, &options);
	for (node = 0; node < NR_NODES; node++)
		for (i = 0; i < NR_IN_NODE; i++)
			put(volume, node * 1024 + i, 1);
	cr_assert_eq(flush(volume), 0);
	for (node = 0; node < NR_NODES; node++)
		cr_assert_eq(stage_zero(volume_stage(volume), NR_IN_NODE * CHUNK,
					(node * 1024ull + 1) * CHUNK, 0), 0);
	on(writer, STORE_PUT, "head", FAULT_LOSE_REPLY, 1, NULL);
	on(writer, STORE_GET, "head", FAULT_FAIL, 1, NULL);
	cr_assert_neq(flush(volume), 0, "it is not settled");
	cr_assert_eq(gc(other, 0), 0);
	cr_assert_geq(collected.deleted, NR_NODES);

	cr_assert_eq(get(volume, 0), 1);
	cr_assert_eq(get(volume, 1), 0);
	cr_assert_eq(flush(volume), 0);
	cr_assert_eq(reads(other, NULL, 1024), 1);
	cr_assert_eq(reads(other, NULL, 1025), 0);
	close_volume(volume);
}

/* ---- the claim is lost --------------------------------------------------------------- */

Test(races, a_zombie_is_fenced_and_the_new_owners_data_stays)
{
	struct volume *zombie = open_writer(writer), *owner;
	struct volume_status status;

	put(zombie, 0, 1);
	cr_assert_eq(flush(zombie), 0);
	put(zombie, 0, 2);
	owner = take_over(other);
	cr_assert_eq(get(owner, 0), 1);
	put(owner, 0, 3);
	cr_assert_eq(flush(owner), 0);
	cr_assert_eq(flush(zombie), -ESTALE);
	cr_assert_eq(flush(zombie), -ESTALE, "it stays so");
	volume_status(zombie, &status);
	cr_assert(status.fenced);
	cr_assert_eq(get(zombie, 0), 2, "unsaved data is kept");
	cr_assert_eq(flush(owner), 0);
	cr_assert_eq(reads(other, NULL, 0), 3);
	close_volume(zombie);
	close_volume(owner);
}

static struct volume *owner;

static void own(void *context, const struct store_request *request)
{
	owner = take_over(other);
}

Test(races, a_later_head_that_hides_mine_lets_the_flush_succeed_and_no_other)
{
	struct volume *volume = open_writer(writer);

	put(volume, 0, 1);
	on(writer, STORE_PUT, "head", FAULT_LOSE_REPLY, 1, NULL);
	on(writer, STORE_GET, "head", FAULT_CALL, 1, own);
	cr_assert_eq(flush(volume), 0);
	cr_assert_eq(get(owner, 0), 1);
	cr_assert_eq(flush(volume), -ESTALE);
	close_volume(volume);
	close_volume(owner);
}

Test(races, a_late_swap_of_a_dead_writer_does_not_reach_the_new_owner)
{
	struct volume *zombie, *next;

	patience = 0;
	zombie = open_writer(writer);
	put(zombie, 0, 1);
	cr_assert_eq(flush(zombie), 0);
	put(zombie, 0, 2);
	die_while_swapping(zombie);
	next = take_over(other);
	put(next, 1, 3);
	cr_assert_eq(flush(next), 0);
	cr_assert_eq(gc(other, 0), 0);
	fault_release(writer);
	cr_assert_eq(reads(other, NULL, 0), 1);
	cr_assert_eq(flush(next), 0);
	close_volume(next);
}

/* ---- gc ------------------------------------------------------------------------------- */

static void collect(void *context, const struct store_request *request)
{
	cr_expect_eq(gc(other, 0), 0);
}

Test(races, gc_leaves_a_writer_alone_that_paused_between_upload_and_swap)
{
	struct volume *volume = open_writer(writer);

	put(volume, 0, 1);
	on(writer, STORE_PUT, "head", FAULT_CALL, 1, collect);
	cr_assert_eq(flush(volume), 0);
	cr_assert_eq(reads(other, NULL, 0), 1);
	close_volume(volume);
}

Test(races, gc_takes_what_an_abandoned_attempt_left_once_head_is_past_it)
{
	struct volume *volume;

	patience = 0;
	volume = open_writer(writer);
	put(volume, 0, 1);
	on(writer, STORE_PUT, "head", FAULT_FAIL, 1, NULL);
	on(writer, STORE_GET, "head", FAULT_FAIL, 0, NULL);
	cr_assert_neq(flush(volume), 0);
	crash(writer, volume);
	cr_assert_eq(bucket_count(bucket, "vol/chunk/"), 1);
	cr_assert_eq(gc(other, 0), 0);
	cr_assert_eq(bucket_count(bucket, "vol/chunk/"), 1, "it may be a living one's");
	close_volume(take_over(other));
	cr_assert_eq(gc(other, 0), 0);
	cr_assert_eq(bucket_count(bucket, "vol/chunk/"), 0);
}

/* ---- a store without conditional puts -------------------------------------------------- */

Test(races, a_store_that_looks_at_no_condition_is_refused_for_writing)
{
	const struct volume_create_options create = { .size = CHUNK, .chunk_size = CHUNK };
	const struct volume_options options = { .writable = true };
	struct store *store = client(twin);
	struct volume *volume;

	bucket_ignore_conditions(bucket);
	cr_assert_eq(volume_create(store, &create), -EOPNOTSUPP);
	cr_assert_eq(bucket_count(bucket, "twin/"), 0);
	store_close(store);
	store = client(writer);
	cr_assert_eq(volume_open(store, &options, &volume), -EOPNOTSUPP);
	cr_assert_eq(volume_delete(store, &rude), -EOPNOTSUPP);
	cr_assert_eq(bucket_count(bucket, "vol/"), 1);
	store_close(store);
	close_volume(open_reader(writer, NULL));
}

/* Snapshots and clones of a store like that: by a word, and with one probe each. */
static void snapshots_on_terms(bool word, int expected)
{
	struct store *store = client(other), *to = client(twin);
	struct swap_terms terms = { .exclusive_word = word };

	fault_count_reset(other);
	cr_expect_eq(volume_snapshot_create(store, "t", &terms), expected);
	cr_expect_eq(fault_count(other, STORE_PUT, "probe/"), 4);
	terms.probed = false;
	fault_count_reset(other);
	cr_expect_eq(volume_clone(store, "vol", "s", to, "twin", &terms), expected);
	cr_expect_eq(fault_count(other, STORE_PUT, "probe/"), 4);
	cr_expect_eq(fault_count(twin, STORE_PUT, "probe/"), 0);
	terms.probed = false;
	cr_expect_eq(volume_snapshot_delete(store, "s", &terms), expected);
	store_close(to);
	store_close(store);
}

Test(races, a_store_that_looks_at_no_condition_takes_snapshots_and_clones_by_a_word_only)
{
	unsigned int before;

	cr_assert_eq(with_store(other, act_snapshot), 0);
	bucket_ignore_conditions(bucket);
	before = bucket_count(bucket, "");
	snapshots_on_terms(false, -EOPNOTSUPP);
	cr_assert_eq(bucket_count(bucket, ""), before, "nothing was written");
	snapshots_on_terms(true, 0);
	cr_assert_eq(reads(other, "t", 0), 0);
	cr_assert_eq(reads(twin, NULL, 0), 0);
}

static struct volume *committing;

static void *snapshot_of_ours(void *context)
{
	*(int *)context = volume_snapshot(committing, "s");
	return NULL;
}

static pthread_t snapshooter;
static int snapshot_error = 1;

/* A commit is about to be swapped in; the snapshot must wait for that. */
static void snapshot_in_commit(void *context, const struct store_request *request)
{
	pthread_create(&snapshooter, NULL, snapshot_of_ours, &snapshot_error);
	nanosleep(&(struct timespec){ 0, 200000000 }, NULL);
	cr_expect_eq(fault_count(writer, STORE_PUT, "snapshot/"), 0);
}

Test(races, without_conditions_a_writers_own_snapshot_undoes_no_commit_of_its)
{
	const struct volume_options options = { .writable = true, .exclusive = true };

	bucket_ignore_conditions(bucket);
	committing = open_with(writer, &options);
	put(committing, 0, 1);
	on(writer, STORE_PUT, "head", FAULT_CALL, 1, snapshot_in_commit);
	cr_assert_eq(flush(committing), 0);
	pthread_join(snapshooter, NULL);
	cr_assert_eq(snapshot_error, 0);
	put(committing, 1, 2);
	cr_assert_eq(flush(committing), 0, "it is still the writer");
	close_volume(committing);
	cr_assert_eq(reads(other, NULL, 0), 1);
	cr_assert_eq(reads(other, NULL, 1), 2);
	cr_assert_eq(reads(other, "s", 0), 1);
	cr_assert_eq(reads(other, "s", 1), 0);
}

Test(races, the_word_that_nobody_else_writes_does_without_conditions)
{
	const struct volume_create_options create = { .size = CHUNK, .chunk_size = CHUNK,
						      .exclusive = true };
	const struct volume_options options = { .writable = true, .exclusive = true };
	struct store *store = client(twin);
	struct volume *volume;

	bucket_ignore_conditions(bucket);
	cr_assert_eq(volume_create(store, &create), 0);
	store_close(store);
	volume = open_with(twin, &options);
	put(volume, 0, 1);
	cr_assert_eq(flush(volume), 0);
	close_volume(volume);
	cr_assert_eq(reads(twin, NULL, 0), 1);
}

/* ---- multipart uploads ---------------------------------------------------------------- */

struct late_flush {
	struct request request;
	sem_t done;
	int error;
};

static void late_flush_done(struct request *request, void *context, int error)
{
	struct late_flush *late = context;

	late->error = error;
	sem_post(&late->done);
}

static void late_flush_start(struct volume *volume, struct late_flush *late)
{
	sem_init(&late->done, 0, 0);
	request_init(&late->request, REQUEST_FLUSH, 0, 0, late_flush_done, late);
	stage_submit(volume_stage(volume), &late->request);
}

/* Begins to commit chunk 0, whose upload is held; returns when it is there. */
static void begin_upload(struct volume *volume, struct late_flush *late)
{
	bucket_hold_uploads(bucket, CHUNK);
	put(volume, 0, 1);
	late_flush_start(volume, late);
	while (!bucket_count_uploads(bucket))
		nanosleep(&(struct timespec){ 0, 1000000 }, NULL);
	bucket_hold_uploads(bucket, 0);
}

static int late_flush_wait(struct late_flush *late)
{
	while (sem_wait(&late->done) < 0)
		;
	return late->error;
}

/* The writer dies in the middle of its upload; somebody else goes on. */
static void die_in_upload(void)
{
	struct volume *volume = open_writer(writer);
	struct late_flush late;

	begin_upload(volume, &late);
	fault_add(writer, &(struct fault_rule){ .op = NR_STORE_OPS, .kind = FAULT_FAIL });
	bucket_orphan_uploads(bucket);
	cr_assert_neq(late_flush_wait(&late), 0);
	crash(writer, volume);
}

Test(races, gc_leaves_the_upload_of_a_paused_writer_alone)
{
	struct volume *volume = open_writer(writer);
	struct late_flush late;

	begin_upload(volume, &late);
	cr_assert_eq(gc(other, 0), 0);
	cr_assert_eq(collected.aborted_uploads, 0);
	cr_assert_eq(bucket_count_uploads(bucket), 1);
	bucket_finish_uploads(bucket);
	cr_assert_eq(late_flush_wait(&late), 0);
	cr_assert_eq(reads(other, NULL, 0), 1);
	close_volume(volume);
}

Test(races, gc_aborts_the_upload_of_a_dead_writer_once_head_is_past_it)
{
	die_in_upload();
	cr_assert_eq(gc(other, 0), 0);
	cr_assert_eq(bucket_count_uploads(bucket), 1, "it may be a living one's");
	close_volume(take_over(other));
	cr_assert_eq(gc(other, 0), 0);
	cr_assert_eq(collected.aborted_uploads, 1);
	cr_assert_eq(bucket_count_uploads(bucket), 0);
	cr_assert_eq(reads(other, NULL, 0), 0);
}

Test(races, an_upload_that_ends_after_gc_condemned_it_is_garbage_and_never_read)
{
	die_in_upload();
	close_volume(take_over(other));
	cr_assert_eq(gc(other, 1000), 0);
	cr_assert_eq(collected.condemned, 1);
	bucket_finish_uploads(bucket);
	cr_assert_eq(bucket_count(bucket, "vol/chunk/"), 1);
	cr_assert_eq(reads(other, NULL, 0), 0);
	bucket_clock_add(bucket, 1001);
	cr_assert_eq(gc(other, 1000), 0);
	bucket_clock_add(bucket, 1001);
	cr_assert_eq(gc(other, 1000), 0);
	cr_assert_eq(bucket_count(bucket, "vol/chunk/"), 0);
	cr_assert_eq(bucket_count(bucket, "vol/condemned/"), 0);
	cr_assert_eq(reads(other, NULL, 0), 0);
}

Test(races, deleting_a_volume_takes_its_unfinished_uploads_along)
{
	struct store *store;

	die_in_upload();
	store = client(other);
	cr_assert_eq(volume_delete(store, &rude), 0);
	store_close(store);
	cr_assert_eq(gc(other, 0), 0);
	cr_assert_eq(bucket_count_uploads(bucket), 0);
}

Test(races, a_reader_within_grace_reads_what_was_replaced_long_after_its_birth)
{
	struct volume *volume = open_writer(writer), *reader;

	put(volume, 0, 1);
	cr_assert_eq(flush(volume), 0);
	bucket_clock_add(bucket, 5000);		/* far older than any grace */
	reader = open_reader(other, NULL);
	put(volume, 0, 2);
	cr_assert_eq(flush(volume), 0);
	cr_assert_eq(gc(other, 1000), 0);
	cr_assert_eq(collected.deleted, 0);
	nanosleep(&(struct timespec){ 0, 50000000 }, NULL);
	cr_assert_eq(bucket_count(bucket, "vol/chunk/"), 2, "the writer waits, too");
	bucket_clock_add(bucket, 900);
	cr_assert_eq(gc(other, 1000), 0);
	cr_assert_eq(get(reader, 0), 1);
	bucket_clock_add(bucket, 200);
	cr_assert_eq(gc(other, 1000), 0);
	cr_assert_eq(collected.deleted, 1);
	cr_assert_eq(get(reader, 0), -ESTALE, "gone is an error, never a hole");
	cr_assert_eq(reads(other, NULL, 0), 2);
	close_volume(reader);
	close_volume(volume);
}

/* ---- snapshots, clones ------------------------------------------------------------------ */

static struct volume *busy;

static unsigned int chunks(void)
{
	return bucket_count(bucket, "vol/chunk/");
}

/* Waits until @nr chunk objects are left; a writer deletes in the background. */
static bool wait_for_chunks(unsigned int nr)
{
	const struct timespec t = { 0, 5000000 };
	unsigned int i;

	for (i = 0; i < 4000 && chunks() != nr; i++)
		nanosleep(&t, NULL);
	return chunks() == nr;
}

static void overwrite_and_delete(void *context, const struct store_request *request)
{
	put(busy, 0, 2);
	cr_expect_eq(flush(busy), 0);
	cr_expect(wait_for_chunks(1), "the writer deletes what it replaced");
}

static struct volume *open_tidy(void)
{
	const struct volume_options options = { .writable = true, .grace = 0 };

	return open_with(writer, &options);
}

Test(races, a_snapshot_whose_creator_paused_while_a_writer_deleted_is_whole)
{
	busy = open_tidy();
	put(busy, 0, 1);
	cr_assert_eq(flush(busy), 0);
	on(other, STORE_PUT, "head", FAULT_CALL, 1, overwrite_and_delete);
	cr_assert_eq(with_store(other, act_snapshot), 0);
	cr_assert_eq(reads(other, "s", 0), 2);
	close_volume(busy);
}

static void snapshot_meanwhile(void *context, const struct store_request *request)
{
	cr_expect_eq(with_store(other, act_snapshot), 0);
}

Test(races, a_writer_spares_what_a_snapshot_took_during_its_swap)
{
	busy = open_tidy();
	put(busy, 0, 1);
	cr_assert_eq(flush(busy), 0);
	put(busy, 0, 2);
	on(writer, STORE_PUT, "head", FAULT_CALL, 1, snapshot_meanwhile);
	cr_assert_eq(flush(busy), 0);
	put(busy, 1, 3);
	cr_assert_eq(flush(busy), 0);
	put(busy, 1, 4);
	cr_assert_eq(flush(busy), 0);
	cr_assert(wait_for_chunks(3), "only the first 3 of chunk 1 goes");
	cr_assert_eq(gc(other, 0), 0);
	cr_assert_eq(reads(other, "s", 0), 1);
	cr_assert_eq(reads(other, NULL, 0), 2);
	cr_assert_eq(with_store(other, act_unsnapshot), 0);
	put(busy, 2, 5);
	cr_assert_eq(flush(busy), 0);
	cr_assert_eq(gc(other, 0), 0);
	cr_assert_eq(chunks(), 3);
	close_volume(busy);
}

Test(races, a_clone_reads_on_after_its_snapshot_is_deleted)
{
	struct volume *volume = open_tidy(), *clone;
	struct fault *fork = fault_open(bucket_client(bucket, "twin"));

	put(volume, 0, 1);
	put(volume, 1, 1);
	cr_assert_eq(flush(volume), 0);
	cr_assert_eq(with_store(other, act_snapshot), 0);
	cr_assert_eq(with_store(other, act_clone), 0);
	cr_assert_eq(with_store(other, act_unsnapshot), 0);
	put(volume, 0, 2);
	put(volume, 1, 2);
	cr_assert_eq(flush(volume), 0);
	cr_assert_eq(gc(other, 0), 0);
	cr_assert_eq(reads(twin, NULL, 0), 1);
	clone = open_with(fork, &(struct volume_options){ .writable = true });
	put(clone, 0, 3);
	cr_assert_eq(flush(clone), 0);
	cr_assert_eq(gc(twin, 0), 0);
	cr_assert_eq(gc(other, 0), 0);
	cr_assert_eq(reads(twin, NULL, 0), 3);
	cr_assert_eq(reads(twin, NULL, 1), 1);
	cr_assert_eq(reads(other, NULL, 1), 2);
	close_volume(clone);
	close_volume(volume);
	cr_assert_eq(with_store(twin, act_delete), 0);
	cr_assert_eq(gc(twin, 0), 0);
	cr_assert_eq(bucket_count(bucket, "twin/"), 1, "the tombstone");
	cr_assert_eq(reads(other, NULL, 1), 2);
	cr_assert_eq(with_store(other, act_delete), 0);
	cr_assert_eq(gc(other, 0), 0);
	cr_assert_eq(bucket_count(bucket, "vol/"), 1);
	fault_close(fork);
}

Test(races, a_stale_swap_does_not_undo_a_rollback)
{
	struct volume *zombie;

	patience = 0;
	zombie = open_writer(writer);
	put(zombie, 0, 1);
	cr_assert_eq(flush(zombie), 0);
	cr_assert_eq(with_store(other, act_snapshot), 0);
	put(zombie, 0, 2);
	cr_assert_eq(flush(zombie), 0);
	put(zombie, 0, 3);
	die_while_swapping(zombie);
	cr_assert_eq(with_store(other, act_rollback), 0);
	cr_assert_eq(gc(other, 0), 0);
	fault_release(writer);
	cr_assert_eq(reads(other, NULL, 0), 1);
	cr_assert_eq(reads(other, "s", 0), 1);
	cr_assert_eq(with_store(other, act_unsnapshot), 0);
	cr_assert_eq(gc(other, 0), 0);
	cr_assert_eq(reads(other, NULL, 0), 1);
}

Test(races, a_volume_made_again_keeps_its_data_under_late_puts_and_deletes)
{
	struct volume *zombie, *volume;

	patience = 0;
	zombie = open_writer(writer);
	put(zombie, 0, 1);
	on(writer, STORE_PUT, "chunk/", FAULT_DUPLICATE, 0, NULL);
	cr_assert_eq(flush(zombie), 0);
	put(zombie, 0, 2);
	fault_add(writer, &(struct fault_rule){ .op = STORE_PUT, .prefix = "head",
		.kind = FAULT_LATE, .times = 1, .delay = LATE });
	on(writer, STORE_GET, "head", FAULT_FAIL, 0, NULL);
	cr_assert_neq(flush(zombie), 0);
	crash(writer, zombie);
	cr_assert_eq(with_store(other, act_delete), 0);
	on(other, STORE_DELETE, NULL, FAULT_DUPLICATE, 0, NULL);
	cr_assert_eq(gc(other, 0), 0);
	cr_assert_eq(with_store(other, act_create), 0);
	fault_clear(other);
	volume = open_with(other, &(struct volume_options){ .writable = true });
	put(volume, 0, 7);
	cr_assert_eq(flush(volume), 0);
	fault_release(writer);
	fault_release(other);
	cr_assert_eq(reads(other, NULL, 0), 7);
	close_volume(volume);
	cr_assert_eq(gc(other, 0), 0);
	cr_assert_eq(chunks(), 1);
	cr_assert_eq(reads(other, NULL, 0), 7);
}

/* ---- sizes and flushes ------------------------------------------------------------------------ */

Test(races, what_was_cut_off_reads_as_zeros_when_it_grows_again)
{
	struct volume *volume = open_writer(writer);
	static unsigned char content[CHUNK];
	unsigned int i;

	for (i = 0; i < NR; i++)
		put(volume, i, 1);
	cr_assert_eq(flush(volume), 0);
	cr_assert_eq(volume_resize(volume, 9 * CHUNK + 100), 0);
	cr_assert_eq(volume_resize(volume, NR * CHUNK), 0);
	cr_assert_eq(stage_read(volume_stage(volume), content, CHUNK, 9 * CHUNK, 0), 0);
	for (i = 0; i < CHUNK; i++)
		cr_assert_eq(content[i], i < 100 ? 1 : 0, "byte %u of what was committed", i);
	put(volume, 5, 2);		/* not yet committed */
	cr_assert_eq(volume_resize(volume, 5 * CHUNK + 4096), 0);
	cr_assert_eq(volume_resize(volume, NR * CHUNK), 0);
	close_volume(volume);
	volume = open_reader(other, NULL);
	for (i = 0; i < NR; i++)
		if (i != 5)
			cr_assert_eq(get(volume, i), i < 5 ? 1 : 0, "chunk %u", i);
	cr_assert_eq(stage_read(volume_stage(volume), content, CHUNK, 5 * CHUNK, 0), 0);
	for (i = 0; i < CHUNK; i++)
		cr_assert_eq(content[i], i < 4096 ? 2 : 0, "byte %u", i);
	close_volume(volume);
}

Test(races, a_shrink_whose_reply_was_lost_cuts_what_is_committed_after_it)
{
	static unsigned char content[CHUNK];
	struct volume *volume;
	unsigned int i;

	patience = 0;
	volume = open_writer(writer);
	put(volume, 5, 2);
	put(volume, 7, 2);
	on(writer, STORE_PUT, "head", FAULT_LOSE_REPLY, 1, NULL);
	on(writer, STORE_GET, "head", FAULT_FAIL, 1, NULL);
	cr_assert_neq(volume_resize(volume, 5 * CHUNK + 4096), 0);
	fault_clear(writer);
	cr_assert_eq(flush(volume), 0);
	cr_assert_eq(stage_size(volume_stage(volume)), 5 * CHUNK + 4096);
	cr_assert_eq(volume_resize(volume, NR * CHUNK), 0);
	cr_assert_eq(get(volume, 7), 0);
	cr_assert_eq(stage_read(volume_stage(volume), content, CHUNK, 5 * CHUNK, 0), 0);
	for (i = 0; i < CHUNK; i++)
		cr_assert_eq(content[i], i < 4096 ? 2 : 0, "byte %u", i);
	close_volume(volume);
}

static void *flush_thread(void *context)
{
	return (void *)(intptr_t)flush(context);
}

Test(races, a_flush_that_arrives_after_the_capture_began_waits_for_the_next_commit)
{
	struct volume *volume = open_writer(writer);
	pthread_t first, second;
	void *result;

	put(volume, 0, 1);
	put(volume, 1, 1);
	on(writer, STORE_PUT, "chunk/", FAULT_HANG, 1, NULL);
	cr_assert_eq(pthread_create(&first, NULL, flush_thread, volume), 0);
	cr_assert(fault_wait_held(writer, 1));
	put(volume, 0, 2);		/* its old content is on its way */
	cr_assert_eq(get(volume, 0), 2);
	cr_assert_eq(pthread_create(&second, NULL, flush_thread, volume), 0);
	fault_release(writer);
	pthread_join(first, &result);
	cr_assert_eq((intptr_t)result, 0);
	pthread_join(second, &result);
	cr_assert_eq((intptr_t)result, 0);
	crash(writer, volume);
	cr_assert_eq(reads(other, NULL, 0), 2);
	cr_assert_eq(reads(other, NULL, 1), 1);
}

Test(races, flushes_that_arrive_together_share_a_commit_and_idle_ones_cost_nothing)
{
	struct volume *volume = open_writer(writer);
	struct late_flush flushes[4];
	unsigned int i;

	put(volume, 0, 1);
	on(writer, STORE_PUT, "chunk/", FAULT_HANG, 1, NULL);
	fault_count_reset(writer);
	late_flush_start(volume, &flushes[0]);
	cr_assert(fault_wait_held(writer, 1));
	put(volume, 1, 1);
	for (i = 1; i < 4; i++)
		late_flush_start(volume, &flushes[i]);
	fault_release(writer);
	for (i = 0; i < 4; i++)
		cr_assert_eq(late_flush_wait(&flushes[i]), 0);
	cr_assert_eq(fault_count(writer, STORE_PUT, "head"), 2);
	cr_assert_eq(flush(volume), 0);
	cr_assert_eq(fault_count(writer, STORE_PUT, "head"), 2);
	close_volume(volume);
}

Test(races, a_chunk_of_64_mib_keeps_its_frame_table)
{
	const struct volume_create_options options = { .size = 64 << 20,
						       .chunk_size = 64 << 20 };
	struct store *store = client(twin);
	struct fault *side = fault_open(bucket_client(bucket, "twin"));
	struct volume *volume;
	char *content = malloc(64 << 20), *back = malloc(512 << 10);
	unsigned int i;

	for (i = 0; i < 64 << 20; i++)
		content[i] = (char)(i >> 9 ^ i);
	cr_assert_eq(volume_create(store, &options), 0);
	store_close(store);
	volume = open_with(twin, &(struct volume_options){ .writable = true,
				   .pending_limit = 128 << 20 });
	cr_assert_eq(stage_write(volume_stage(volume), content, 64 << 20, 0, 0), 0);
	cr_assert_eq(flush(volume), 0);
	close_volume(volume);
	volume = open_reader(side, NULL);
	for (i = 0; i < FRAMES_MAX; i += 127) {
		cr_assert_eq(stage_read(volume_stage(volume), back, 512 << 10,
					(uint64_t)i * (512 << 10), 0), 0);
		cr_assert_eq(memcmp(back, content + i * (512 << 10), 512 << 10), 0);
	}
	fault_add(side, &(struct fault_rule){ .op = STORE_GET, .prefix = "chunk/",
		.kind = FAULT_CORRUPT });
	cr_assert_eq(stage_read(volume_stage(volume), back, 512 << 10, 5 << 20, 0), -EIO);
	close_volume(volume);
	fault_close(side);
	free(content);
	free(back);
}
