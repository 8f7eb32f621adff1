/* test-commit.c: flushes and commits when all goes well, and when each step of
 * a commit fails in turn. */
#include <dirent.h>
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <unistd.h>

#include "src/crc32c.h"
#include "tests/volume/world.h"

#define CHUNK (64 * KIB)

TestSuite(commit, .timeout = 60);
/* Seconds for a test that makes a volume for each step, in a bucket, too. */
#define FOR_EACH_STEP 900

/* ---- flushes ----------------------------------------------------------------- */

Test(commit, a_flush_with_nothing_dirty_makes_no_request)
{
	struct world world;

	world_begin(&world, 100 * CHUNK, CHUNK);
	fault_count_reset(world.fault);
	cr_assert_eq(stage_flush(world.stage), 0);
	cr_assert_eq(volume_flush(world.volume), 0);
	cr_assert_eq(fault_count(world.fault, NR_STORE_OPS, NULL), 0);
	world_end(&world);
}

/* Holds the next put that begins with @prefix until fault_release(). */
static void hang(struct world *world, const char *prefix)
{
	world->store->retry_for = UINT64_MAX;
	fault_add(world->fault, &(struct fault_rule){ .op = STORE_PUT, .prefix = prefix,
						      .kind = FAULT_HANG, .times = 1 });
}

Test(commit, a_flush_that_arrives_after_capture_waits_for_the_next_commit)
{
	struct pending_call first, second;
	struct world world;

	world_begin(&world, 100 * CHUNK, CHUNK);
	hang(&world, "chunk/");
	world_write(&world, 1, 1);
	call_flush(&world, &first);
	cr_assert(fault_wait_held(world.fault, 1));
	world_write(&world, 2, 2);
	call_flush(&world, &second);
	fault_clear(world.fault);
	hang(&world, "chunk/02");
	fault_release(world.fault);	/* the first commit goes on */
	cr_assert_eq(call_wait(&first), 0);
	cr_assert(fault_wait_held(world.fault, 1));
	cr_assert(!call_is_done(&second), "its write is not committed yet");
	fault_release(world.fault);
	cr_assert_eq(call_wait(&second), 0);
	world_reopen(&world);
	cr_assert(world_reads(&world, 1, 1) && world_reads(&world, 2, 2));
	world_end(&world);
}

Test(commit, a_flush_waits_for_what_is_being_committed)
{
	struct pending_call first, second;
	struct world world;

	world_begin(&world, 100 * CHUNK, CHUNK);
	hang(&world, "chunk/");
	world_write(&world, 1, 1);
	call_flush(&world, &first);
	cr_assert(fault_wait_held(world.fault, 1));
	call_flush(&world, &second);	/* nothing was written since */
	cr_assert(!call_is_done(&second));
	fault_release(world.fault);
	cr_assert_eq(call_wait(&first), 0);
	cr_assert_eq(call_wait(&second), 0);
	world_end(&world);
}

Test(commit, flushes_that_arrive_together_share_one_commit)
{
	struct pending_call first, others[10];
	struct world world;
	unsigned int i;

	world_begin(&world, 100 * CHUNK, CHUNK);
	hang(&world, "chunk/");
	world_write(&world, 1, 1);
	call_flush(&world, &first);
	cr_assert(fault_wait_held(world.fault, 1));
	fault_count_reset(world.fault);
	for (i = 0; i < 10; i++) {
		world_write(&world, 10 + i, 2);
		call_flush(&world, &others[i]);
	}
	fault_release(world.fault);
	cr_assert_eq(call_wait(&first), 0);
	for (i = 0; i < 10; i++)
		cr_assert_eq(call_wait(&others[i]), 0);
	cr_assert_eq(fault_count(world.fault, STORE_PUT, "head"), 2);
	world_end(&world);
}

Test(commit, a_chunk_rewritten_during_the_upload_belongs_to_the_next_commit)
{
	struct pending_call flush;
	struct world world;

	world_begin(&world, 100 * CHUNK, CHUNK);
	hang(&world, "chunk/");
	world_write(&world, 1, 1);
	call_flush(&world, &flush);
	cr_assert(fault_wait_held(world.fault, 1));
	world_write(&world, 1, 2);
	cr_assert(world_reads(&world, 1, 2));
	fault_release(world.fault);
	cr_assert_eq(call_wait(&flush), 0);
	cr_assert(world_reads(&world, 1, 2));
	world_reopen(&world);			/* without a flush */
	cr_assert(world_reads(&world, 1, 1), "not torn, and not the later write");
	world_end(&world);
}

Test(commit, without_durability_a_flush_makes_no_request_and_unmounting_commits)
{
	struct world world;

	world_begin_with(&world, 100 * CHUNK, CHUNK,
			 &(struct volume_options){ .durability = DURABILITY_NONE });
	fault_count_reset(world.fault);
	world_write(&world, 1, 1);
	cr_assert_eq(stage_flush(world.stage), 0);
	cr_assert_eq(fault_count(world.fault, NR_STORE_OPS, NULL), 0);
	cr_assert_eq(volume_flush(world.volume), 0);
	world_reopen(&world);
	cr_assert(world_reads(&world, 1, 1));
	world_end(&world);
}

Test(commit, full_without_a_flush_is_committed_in_the_background)
{
	struct world world;
	uint32_t i;

	world_begin_with(&world, 1000 * CHUNK, CHUNK,
			 &(struct volume_options){ .pending_limit = 8 * CHUNK });
	for (i = 0; i < 100; i++)
		cr_assert_eq(world_write(&world, i, 1), 0);
	cr_assert_geq(fault_count(world.fault, STORE_PUT, "chunk/"), 92);
	world_end(&world);
}

/* ---- each step failing in turn --------------------------------------------------- */

static const struct {
	const char *name, *prefix;
	enum fault_kind kind;
	int error;
} steps[] = {
	{ "chunk refused", "chunk/", FAULT_FAIL, -EACCES },
	{ "no space for a chunk", "chunk/", FAULT_FAIL, -ENOSPC },
	{ "chunk's reply lost", "chunk/", FAULT_LOSE_REPLY, 0 },
	{ "chunk late", "chunk/", FAULT_LATE, 0 },
	{ "node refused", "map/", FAULT_FAIL, -EACCES },
	{ "no space for a node", "map/", FAULT_FAIL, -ENOSPC },
	{ "node's reply lost", "map/", FAULT_LOSE_REPLY, 0 },
	{ "head refused", "head", FAULT_FAIL, -EACCES },
	{ "no space for head", "head", FAULT_FAIL, -ENOSPC },
	{ "head transient", "head", FAULT_TRANSIENT, 0 },
	{ "head's reply lost", "head", FAULT_LOSE_REPLY, 0 },
	{ "head late", "head", FAULT_LATE, 0 },
	{ "head twice", "head", FAULT_DUPLICATE, 0 },
};

#define FIRST 20u
#define LAST  700u		/* more than recent holds, so that nodes are put */

/* Which image a fresh reader sees: 1 old, 2 new, 0 a mixture. */
static int image(struct world *world)
{
	struct store *store = fault_client(world->fault);
	struct volume_options how = { 0 };
	struct world reader = *world;
	unsigned int olds = 0, news = 0;
	uint32_t i;
	int byte;

	cr_assert_eq(volume_open(store, &how, &reader.volume), 0);
	reader.stage = volume_stage(reader.volume);
	for (i = FIRST; i < LAST; i++) {
		byte = world_byte(&reader, i);
		olds += byte == 1;
		news += byte == 2;
	}
	stage_close(reader.stage);
	return olds == LAST - FIRST ? 1 : news == LAST - FIRST ? 2 : 0;
}

/* A commit of many chunks and nodes in which the @skip'th such put goes wrong. */
static void fail_step(unsigned int step, unsigned int skip, uint64_t retry_for)
{
	struct world world;
	uint32_t i;
	int error, seen;

	/* Roomy: nothing is committed before the flush. */
	world_begin_with(&world, 3000 * CHUNK, CHUNK,
			 &(struct volume_options){ .pending_limit = 128 * MIB });
	for (i = FIRST; i < LAST; i++)
		world_write(&world, i, 1);
	cr_assert_eq(stage_flush(world.stage), 0);
	world.store->retry_for = retry_for;
	fault_add(world.fault, &(struct fault_rule){ .op = STORE_PUT,
		.prefix = steps[step].prefix, .kind = steps[step].kind,
		.error = steps[step].error, .skip = skip, .times = 1 });
	for (i = FIRST; i < LAST; i++)
		world_write(&world, i, 2);
	error = stage_flush(world.stage);
	seen = image(&world);
	cr_assert_neq(seen, 0, "%s: a mixture", steps[step].name);
	cr_assert(error || seen == 2, "%s: flush said 0, the image is old",
		  steps[step].name);
	if (steps[step].error && retry_for == 0)
		cr_assert(error == steps[step].error || strcmp(steps[step].prefix,
			  "head") == 0, "%s: %d", steps[step].name, error);
	for (i = FIRST; i < LAST; i++)
		cr_assert(world_reads(&world, i, 2), "what was written is read");
	fault_clear(world.fault);
	cr_assert_eq(stage_flush(world.stage), 0, "%s: the next flush tries again",
		     steps[step].name);
	cr_assert_eq(image(&world), 2, "%s", steps[step].name);
	fault_release(world.fault);	/* what was late arrives now */
	cr_assert_eq(image(&world), 2, "%s", steps[step].name);
	world_write(&world, 1, 9);
	cr_assert_eq(stage_flush(world.stage), 0);
	world_reopen(&world);
	cr_assert(world_reads(&world, 1, 9) && world_reads(&world, FIRST, 2));
	world_end(&world);
}

Test(commit, a_step_that_fails_leaves_the_old_image_or_the_new_one, .timeout = FOR_EACH_STEP)
{
	unsigned int step;

	for (step = 0; step < sizeof(steps) / sizeof(steps[0]); step++)
		fail_step(step, 0, 0);
}

Test(commit, a_step_that_fails_once_is_retried_where_that_can_help, .timeout = FOR_EACH_STEP)
{
	unsigned int step;

	for (step = 0; step < sizeof(steps) / sizeof(steps[0]); step++)
		fail_step(step, strcmp(steps[step].prefix, "chunk/") ? 0 : 300,
			  2 * CLOCK_SECOND);
}

Test(commit, a_failed_attempt_burns_its_number)
{
	struct volume_status *status = malloc(sizeof(*status));
	struct world world;
	uint64_t epoch;

	world_begin(&world, 100 * CHUNK, CHUNK);
	volume_status(world.volume, status);
	epoch = status->head.epoch;
	world.store->retry_for = 0;
	fault_add(world.fault, &(struct fault_rule){ .op = STORE_PUT, .prefix = "chunk/",
						     .kind = FAULT_FAIL, .times = 3 });
	world_write(&world, 1, 1);
	for (int i = 0; i < 3; i++)
		cr_assert_eq(stage_flush(world.stage), -EIO);
	cr_assert_eq(stage_flush(world.stage), 0);
	volume_status(world.volume, status);
	cr_assert_eq(status->head.epoch, epoch + 4);
	cr_assert_eq(status->failed_commits, 3);
	free(status);
	world_end(&world);
}

static unsigned int nr_objects(struct world *world)
{
	struct store *store = fault_client(world->fault);
	struct store_request request = { .key = "" };
	unsigned int nr;

	cr_assert_eq(store_wait(store, STORE_LIST, &request), STORE_DONE);
	nr = request.reply.listing.nr_entries;
	cr_assert_not(request.reply.listing.more);
	store_listing_free(&request.reply.listing);
	store_close(store);
	return nr;
}

/* A flush whose @skip'th put below @prefix fails.  Returns how many objects more
 * there are in the store after it. */
static int left_by_a_failure(const char *prefix, unsigned int skip, int error,
			     unsigned int wanted)
{
	struct world world;
	unsigned int before, i;
	int left;

	world_begin_with(&world, 3000 * CHUNK, CHUNK,
			 &(struct volume_options){ .pending_limit = 128 * MIB });
	world_write(&world, 1, 1);
	cr_assert_eq(stage_flush(world.stage), 0);
	before = nr_objects(&world);
	world.store->retry_for = 0;
	fault_add(world.fault, &(struct fault_rule){ .op = STORE_PUT, .prefix = prefix,
		.kind = FAULT_FAIL, .skip = skip, .error = error });
	for (i = 0; i < wanted; i++)
		world_write(&world, 10 + 4 * i, 2);
	cr_assert_eq(stage_flush(world.stage), error);
	left = (int)(nr_objects(&world) - before);
	for (i = 0; error != -ENOSPC && left && i < 2000; i++) {
		usleep(10000);
		left = (int)(nr_objects(&world) - before);
	}
	fault_clear(world.fault);
	cr_assert_eq(stage_flush(world.stage), 0, "what it was for is here still");
	world_reopen(&world);
	for (i = 0; i < wanted; i++)
		cr_assert(world_reads(&world, 10 + 4 * i, 2));
	cr_assert(world_reads(&world, 1, 1));
	world_end(&world);
	return left;
}

/* gc must not touch what is newer than head: nobody else could make that room. */
Test(commit, what_a_commit_had_stored_when_it_was_given_up_is_deleted, .timeout = FOR_EACH_STEP)
{
	cr_assert_eq(left_by_a_failure("chunk/", 30, -ENOSPC, 40), 0);
	cr_assert_eq(left_by_a_failure("chunk/", 30, -EACCES, 40), 0);
	cr_assert_eq(left_by_a_failure("map/", 1, -ENOSPC, 700), 0);
}

Test(commit, closing_takes_a_number_that_no_attempt_has_taken)
{
	struct volume_status *status = malloc(sizeof(*status));
	struct world world;
	struct store *store;
	struct head *head = malloc(sizeof(*head));
	unsigned int i;

	world_begin(&world, 100 * CHUNK, CHUNK);
	world.store->retry_for = 0;
	world_write(&world, 1, 1);
	fault_add(world.fault, &(struct fault_rule){ .op = STORE_PUT, .prefix = "chunk/",
		.kind = FAULT_FAIL });
	for (i = 0; i < 5; i++)
		cr_assert_neq(stage_flush(world.stage), 0);
	volume_status(world.volume, status);
	world_close(&world);
	store = fault_client(world.fault);
	cr_assert_eq(volume_read_head(store, head, NULL), 0);
	store_close(store);
	cr_assert(!head->holder.held);
	cr_assert_gt(head->epoch, status->head.epoch + 5);
	free(head);
	free(status);
	world_end(&world);
}

/* Half of the table is full, and its commit has failed. */
static void fail_in_the_background(struct world *world, struct volume_status *status)
{
	unsigned int i;

	world_begin_with(world, 1000 * CHUNK, CHUNK,
			 &(struct volume_options){ .pending_limit = 8 * CHUNK });
	world->store->retry_for = 0;
	fault_add(world->fault, &(struct fault_rule){ .op = STORE_PUT, .prefix = "chunk/",
		.kind = FAULT_FAIL, .error = -ENOSPC, .times = 1 });
	for (i = 0; i < 4; i++)
		world_write(world, i, 1);
	for (i = 0; i < 1000; i++) {
		volume_status(world->volume, status);
		if (status->failed_commits)
			break;
		usleep(10000);
	}
	cr_assert_eq(status->failed_commits, 1);
}

Test(commit, a_failure_in_the_background_is_told_to_the_next_flush_once)
{
	struct volume_status *status = malloc(sizeof(*status));
	struct world world;
	unsigned int i;

	fail_in_the_background(&world, status);
	cr_assert_eq(stage_flush(world.stage), -ENOSPC);
	cr_assert_eq(stage_flush(world.stage), 0);
	world_reopen(&world);
	for (i = 0; i < 4; i++)
		cr_assert(world_reads(&world, i, 1));
	free(status);
	world_end(&world);
}

/* Who unmounts has no client that could flush once more. */
Test(commit, a_failure_in_the_background_does_not_keep_the_last_flush_from_trying)
{
	struct volume_status *status = malloc(sizeof(*status));
	struct world world;
	unsigned int i;

	fail_in_the_background(&world, status);
	cr_assert_eq(volume_flush(world.volume), 0);
	volume_status(world.volume, status);
	cr_assert_eq(status->pending_bytes, 0);
	cr_assert_eq(stage_flush(world.stage), 0);
	world_reopen(&world);
	for (i = 0; i < 4; i++)
		cr_assert(world_reads(&world, i, 1));
	free(status);
	world_end(&world);
}

Test(commit, a_push_that_fails_is_told_to_the_next_flush)
{
	struct volume_status *status = malloc(sizeof(*status));
	struct world world;
	unsigned int i;

	world_begin(&world, 1000 * CHUNK, CHUNK);
	world.store->retry_for = 0;
	fault_add(world.fault, &(struct fault_rule){ .op = STORE_PUT, .prefix = "chunk/",
		.kind = FAULT_FAIL, .error = -ENOSPC, .times = 1 });
	world_write(&world, 1, 1);
	volume_push(world.volume);
	for (i = 0; i < 1000; i++) {
		volume_status(world.volume, status);
		if (status->failed_commits)
			break;
		usleep(10000);
	}
	cr_assert_eq(status->failed_commits, 1);
	volume_push(world.volume);	/* nor does another push take it away */
	for (i = 0; i < 1000 && status->pending_bytes; i++) {
		usleep(10000);
		volume_status(world.volume, status);
	}
	cr_assert_eq(status->pending_bytes, 0);
	cr_assert_eq(stage_flush(world.stage), -ENOSPC);
	cr_assert_eq(stage_flush(world.stage), 0);
	free(status);
	world_end(&world);
}

Test(commit, status_tells_how_much_of_the_running_commit_is_stored)
{
	struct volume_status *status = malloc(sizeof(*status));
	struct world world;
	unsigned int i;

	world_begin(&world, 1000 * CHUNK, CHUNK);
	world.store->retry_for = UINT64_MAX;
	for (i = 0; i < 5; i++)
		world_write(&world, i, 1);
	volume_status(world.volume, status);
	cr_assert_eq(status->pending_bytes, 5 * CHUNK);
	cr_assert_eq(status->committing_bytes, 0);
	fault_add(world.fault, &(struct fault_rule){ .op = STORE_PUT, .prefix = "chunk/",
		.kind = FAULT_HANG, .skip = 3 });
	volume_push(world.volume);
	cr_assert(fault_wait_held(world.fault, 2));
	for (i = 0; i < 1000; i++) {
		volume_status(world.volume, status);
		if (status->uploaded_bytes == 3 * CHUNK)
			break;
		usleep(10000);
	}
	cr_assert_eq(status->uploaded_bytes, 3 * CHUNK);
	cr_assert_eq(status->committing_bytes, 5 * CHUNK);
	cr_assert_eq(status->pending_bytes, 5 * CHUNK);
	world_write(&world, 9, 1);	/* of the next commit */
	volume_status(world.volume, status);
	cr_assert_eq(status->committing_bytes, 5 * CHUNK);
	cr_assert_eq(status->pending_bytes, 6 * CHUNK);
	fault_clear(world.fault);
	fault_release(world.fault);
	cr_assert_eq(stage_flush(world.stage), 0);
	volume_status(world.volume, status);
	cr_assert_eq(status->pending_bytes, 0);
	cr_assert_eq(status->uploaded_bytes, 0);
	free(status);
	world_end(&world);
}

Test(commit, writers_that_wait_get_the_error_and_the_table_keeps_the_data)
{
	struct world world;
	unsigned int i, accepted;
	int error = 0;

	world_begin_with(&world, 1000 * CHUNK, CHUNK,
			 &(struct volume_options){ .pending_limit = 8 * CHUNK });
	world.store->retry_for = 0;
	fault_add(world.fault, &(struct fault_rule){ .op = STORE_PUT, .prefix = "chunk/",
		.kind = FAULT_FAIL, .error = -ENOSPC });
	for (i = 0; i < 50 && !error; i++)
		error = world_write(&world, i, 1);
	cr_assert_eq(error, -ENOSPC);
	accepted = i - 1;
	cr_assert_geq(accepted, 7);
	fault_clear(world.fault);
	stage_flush(world.stage);	/* may have to report it */
	cr_assert_eq(stage_flush(world.stage), 0);
	world_reopen(&world);
	for (i = 0; i < accepted; i++)
		cr_assert(world_reads(&world, i, 1));
	world_end(&world);
}

Test(commit, an_unsettled_swap_is_settled_before_the_next_commit)
{
	struct world world;

	world_begin(&world, 100 * CHUNK, CHUNK);
	world_write(&world, 1, 1);
	world.store->retry_for = 0;
	fault_add(world.fault, &(struct fault_rule){ .op = STORE_PUT, .prefix = "head",
		.kind = FAULT_LOSE_REPLY, .times = 1 });
	fault_add(world.fault, &(struct fault_rule){ .op = STORE_GET, .prefix = "head",
		.kind = FAULT_FAIL });
	cr_assert_neq(stage_flush(world.stage), 0, "nobody knows whether it is durable");
	fault_count_reset(world.fault);
	cr_assert_neq(stage_flush(world.stage), 0);
	cr_assert_eq(fault_count(world.fault, STORE_PUT, NULL), 0,
		     "nothing is sent before it is settled");
	fault_clear(world.fault);
	cr_assert_eq(stage_flush(world.stage), 0);
	world_reopen(&world);
	cr_assert(world_reads(&world, 1, 1));
	world_end(&world);
}

Test(commit, closing_does_not_wait_for_an_upload_that_hangs)
{
	struct world world;
	uint64_t began;
	uint32_t i;

	world_begin_with(&world, 1000 * CHUNK, CHUNK,
			 &(struct volume_options){ .pending_limit = 8 * CHUNK });
	world.store->retry_for = UINT64_MAX;	/* as when an export is served */
	fault_add(world.fault, &(struct fault_rule){ .op = STORE_PUT, .prefix = "chunk/",
		.kind = FAULT_HANG });
	for (i = 0; i < 4; i++)
		cr_assert_eq(world_write(&world, i, 1), 0);
	cr_assert(fault_wait_held(world.fault, 4));
	began = clock_now();
	world_close(&world);
	cr_assert_lt(clock_now() - began, 10 * CLOCK_SECOND);
	fault_clear(world.fault);
	world_open(&world);
	cr_assert(world_reads(&world, 0, 0), "what was not flushed is not there");
	world_end(&world);
}

/* ---- fenced --------------------------------------------------------------------------- */

static char fenced_by[128];

static void told(void *context, const char *by_whom)
{
	(*(unsigned int *)context)++;
	snprintf(fenced_by, sizeof(fenced_by), "%s", by_whom);
}

static struct volume *take_over(struct world *world)
{
	struct volume_options how = { .writable = true, .take_over = true,
				      .grace = GRACE_DEFAULT };
	struct store *store = fault_client(world->fault);
	struct volume *other;

	store->retry_for = CLOCK_SECOND;
	cr_assert_eq(volume_open(store, &how, &other), 0);
	return other;
}

/* The only folder in @path whose name begins with @prefix. */
static void find_folder(char *path, size_t size, const char *prefix)
{
	DIR *dir = opendir(path);
	struct dirent *entry;
	size_t length = strlen(path);

	cr_assert_not_null(dir, "%s", path);
	while ((entry = readdir(dir)))
		if (entry->d_name[0] != '.' &&
		    strncmp(entry->d_name, prefix, strlen(prefix)) == 0)
			snprintf(path + length, size - length, "/%s", entry->d_name);
	closedir(dir);
	cr_assert_gt(strlen(path), length);
}

Test(commit, who_lost_the_volume_reads_on_and_keeps_what_is_unsaved)
{
	char state[] = "/tmp/objmap-test-XXXXXX", path[512], line[600];
	unsigned int nr_told = 0, chunks = 0, zeros = 0;
	struct volume_options options = { .fenced = told, .context = &nr_told };
	struct volume *other;
	struct world world;
	uint8_t *data = malloc(CHUNK), *kept = malloc(CHUNK);
	FILE *file;

	options.state_dir = mkdtemp(state);
	world_begin_with(&world, 100 * CHUNK + 9, CHUNK, &options);
	world_write(&world, 1, 1);
	cr_assert_eq(stage_flush(world.stage), 0);
	world_write(&world, 2, 2);
	other = take_over(&world);
	memset(data, 7, CHUNK);
	cr_assert_eq(stage_write(volume_stage(other), data, CHUNK, CHUNK, 0), 0);
	cr_assert_eq(stage_flush(volume_stage(other)), 0);

	cr_assert_eq(stage_zero(world.stage, 90 * CHUNK + 9, 10 * CHUNK, 0), 0);
	cr_assert_eq(stage_flush(world.stage), -ESTALE);
	cr_assert_eq(nr_told, 1);
	cr_assert_eq(stage_flush(world.stage), -ESTALE);
	cr_assert_eq(world_write(&world, 3, 3), -ESTALE);
	cr_assert_eq(nr_told, 1);
	cr_assert(strstr(fenced_by, "pid"));
	cr_assert(world_reads(&world, 1, 1), "its own last image");
	cr_assert(world_reads(&world, 2, 2), "and what is unsaved on top of it");
	world_close(&world);
	stage_close(volume_stage(other));

	snprintf(path, sizeof(path), "%s", state);
	find_folder(path, sizeof(path), "");
	find_folder(path, sizeof(path), "fenced-");
	snprintf(line, sizeof(line), "%s/chunks", path);
	file = fopen(line, "r");
	cr_assert_eq(fread(kept, 1, CHUNK, file), CHUNK);
	cr_assert_eq(kept[CHUNK - 1], 2);
	fclose(file);
	snprintf(line, sizeof(line), "%s/index", path);
	file = fopen(line, "r");
	cr_assert_not_null(fgets(line, sizeof(line), file));
	cr_assert_str_eq(line, "objmap fenced 1\n");
	while (fgets(line, sizeof(line), file)) {
		chunks += strncmp(line, "chunk 131072 65536 ", 19) == 0;
		zeros += strcmp(line, "zero 655360 5898249\n") == 0;
	}
	fclose(file);
	cr_assert_eq(chunks, 1);
	cr_assert_eq(zeros, 1);
	cr_assert_str_neq(line, "");
	free(data);
	free(kept);
	snprintf(line, sizeof(line), "rm -r %s", state);
	cr_assert_eq(system(line), 0);
	world.volume = NULL;
	fault_close(world.fault);
}

Test(commit, who_lost_the_volume_hears_it_from_a_full_store_too)
{
	struct volume *other;
	struct world world;

	world_begin(&world, 100 * CHUNK, CHUNK);
	world_write(&world, 1, 1);
	other = take_over(&world);
	fault_add(world.fault, &(struct fault_rule){ .op = STORE_PUT, .prefix = "chunk/",
		.kind = FAULT_FAIL, .error = -ENOSPC });
	cr_assert_eq(stage_flush(world.stage), -ESTALE);
	cr_assert_eq(world_write(&world, 2, 2), -ESTALE);
	fault_clear(world.fault);
	stage_close(volume_stage(other));
	world_end(&world);
}

Test(commit, a_commit_that_was_ours_before_we_lost_the_volume_is_acknowledged)
{
	struct pending_call flush;
	struct volume *other;
	struct world world;

	world_begin(&world, 100 * CHUNK, CHUNK);
	world_write(&world, 1, 1);
	world.store->retry_for = UINT64_MAX;
	fault_add(world.fault, &(struct fault_rule){ .op = STORE_PUT, .prefix = "head",
		.kind = FAULT_LOSE_REPLY, .times = 1 });
	fault_add(world.fault, &(struct fault_rule){ .op = STORE_GET, .prefix = "head",
		.kind = FAULT_HANG, .times = 1 });
	call_flush(&world, &flush);
	cr_assert(fault_wait_held(world.fault, 1));
	other = take_over(&world);
	fault_release(world.fault);
	cr_assert_eq(call_wait(&flush), 0, "history shows that it was committed");
	cr_assert_eq(world_write(&world, 1, 2), -ESTALE);
	stage_close(volume_stage(other));
	world_end(&world);
}

Test(commit, a_snapshot_made_meanwhile_survives_the_commit)
{
	struct snapshot_list list;
	struct world world;

	world_begin(&world, 100 * CHUNK, CHUNK);
	world_write(&world, 1, 1);
	cr_assert_eq(stage_flush(world.stage), 0);
	cr_assert_eq(volume_snapshot_create(world.store, "then", NULL), 0);
	world_write(&world, 1, 2);
	cr_assert_eq(stage_flush(world.stage), 0);
	cr_assert_eq(volume_snapshots(world.store, &list), 0);
	cr_assert_eq(list.nr, 1);
	snapshot_list_free(&list);
	world_end(&world);
}

Test(commit, a_batch_from_outside_goes_the_same_way)
{
	struct world world;
	uint8_t *data = malloc(CHUNK);
	struct commit_item items[] = { { .chunk = 3, .nr_chunks = 1, .data = data },
				       { .chunk = 10, .nr_chunks = 50 } };
	struct commit_batch batch = { .items = items, .nr_items = 2, .sequence = 77 };
	struct volume_status *status = malloc(sizeof(*status));
	uint32_t index = 3;

	world_begin(&world, 100 * CHUNK, CHUNK);
	world_write(&world, 12, 5);
	cr_assert_eq(stage_flush(world.stage), 0);
	memset(data, 4, CHUNK);
	memcpy(data, &index, sizeof(index));
	cr_assert_eq(volume_commit(world.volume, &batch), 0);
	world_reopen(&world);
	cr_assert(world_reads(&world, 3, 4));
	cr_assert(world_reads(&world, 12, 0));
	free(status);
	free(data);
	world_end(&world);
}

struct stream {
	uint32_t nr, given;
	atomic_uint let_go;
	struct streamed { struct stream *stream; uint8_t *data; } chunks[100];
	uint32_t sums[100];
};

static void stream_let_go(void *context)
{
	struct streamed *chunk = context;

	atomic_fetch_add(&chunk->stream->let_go, 1);
	memset(chunk->data, 0xee, CHUNK);
	free(chunk->data);
	chunk->data = NULL;	/* twice would crash */
}

static bool stream_more(void *context, struct commit_item *item)
{
	struct stream *stream = context;
	uint32_t i = stream->given;

	if (i == stream->nr)
		return false;
	stream->given++;
	stream->chunks[i] = (struct streamed){ stream, malloc(CHUNK) };
	memset(stream->chunks[i].data, 9, CHUNK);
	memcpy(stream->chunks[i].data, &i, sizeof(i));
	stream->sums[i] = crc32c(0, stream->chunks[i].data, CHUNK);
	*item = (struct commit_item){
		.chunk = i, .nr_chunks = 1, .data = stream->chunks[i].data,
		.sums = i % 2 ? &stream->sums[i] : NULL,
		.let_go = stream_let_go, .context = &stream->chunks[i],
	};
	return true;
}

Test(commit, a_stream_of_chunks_is_one_commit_and_each_is_let_go_once)
{
	struct world world;
	struct stream stream = { .nr = 100 };
	struct commit_batch batch = { .more = stream_more, .context = &stream };

	/* The last chunk is cut by the end, and put as a copy. */
	world_begin(&world, 100 * CHUNK - 100, CHUNK);
	fault_count_reset(world.fault);
	cr_assert_eq(volume_commit(world.volume, &batch), 0);
	cr_assert_eq(stream.given, 100);
	cr_assert_eq(atomic_load(&stream.let_go), 100);
	cr_assert_eq(fault_count(world.fault, STORE_PUT, "chunk/"), 100);
	cr_assert_eq(fault_count(world.fault, STORE_PUT, "head"), 1);
	world_reopen(&world);
	for (uint32_t i = 0; i < 100; i++)
		cr_assert(world_reads(&world, i, 9), "chunk %u", i);
	world_end(&world);
}

Test(commit, a_stream_that_fails_lets_go_of_all_it_was_given)
{
	struct world world;
	struct stream stream = { .nr = 100 };
	struct commit_batch batch = { .more = stream_more, .context = &stream };

	world_begin(&world, 100 * CHUNK, CHUNK);
	fault_add(world.fault, &(struct fault_rule){ .op = STORE_PUT, .prefix = "chunk/",
		.kind = FAULT_FAIL, .skip = 7, .times = 1, .error = -ENOSPC });
	cr_assert_eq(volume_commit(world.volume, &batch), -ENOSPC);
	cr_assert(stream.given > 7);
	cr_assert_eq(atomic_load(&stream.let_go), stream.given);
	world_reopen(&world);
	for (uint32_t i = 0; i < 100; i++)
		cr_assert(world_reads(&world, i, 0), "chunk %u", i);
	world_end(&world);
}

/* ---- reads beside it -------------------------------------------------------------------- */

struct rewriter {
	struct world *world;
	atomic_bool stop;
	atomic_uint nr;
	unsigned int torn;
};

static void *read_on(void *context)
{
	struct rewriter *rewriter = context;
	uint8_t *data = malloc(CHUNK);
	size_t i;

	while (!atomic_load(&rewriter->stop)) {
		if (stage_read(rewriter->world->stage, data, CHUNK, CHUNK, 0) != 0)
			rewriter->torn++;
		for (i = 5; i < CHUNK; i++)
			if (data[i] != data[4])
				break;
		rewriter->torn += i < CHUNK;
		atomic_fetch_add(&rewriter->nr, 1);
	}
	free(data);
	return NULL;
}

Test(commit, reads_beside_rewrites_and_commits_see_whole_writes)
{
	struct rewriter rewriter = { 0 };
	struct world world;
	pthread_t thread;
	unsigned int i;

	world_begin(&world, 100 * CHUNK, CHUNK);
	world.options.grace = 0;	/* what was replaced goes at once */
	world_reopen(&world);
	world_write(&world, 1, 1);
	rewriter.world = &world;
	pthread_create(&thread, NULL, read_on, &rewriter);
	for (i = 0; i < 400 || atomic_load(&rewriter.nr) <= 10; i++) {
		world_write(&world, 1, (uint8_t)(1 + i % 250));
		if (i % 3 == 0)
			cr_assert_eq(stage_flush(world.stage), 0);
	}
	atomic_store(&rewriter.stop, true);
	pthread_join(thread, NULL);
	cr_assert_eq(rewriter.torn, 0);
	world_end(&world);
}
