/* test-protocol.c: head's swaps: claims, snapshots, clones, rollback, deletion,
 * each against lost, late and repeated requests and against one another.
 *
 * Here a writer is a claim and bare swaps; test-races.c has the same with
 * chunks. */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "src/clock.h"
#include "src/log.h"
#include "src/volume/claim.h"
#include "src/volume/snapshot.h"
#include "tests/store/fault_store.h"
#include "tests/volume/bucket.h"
#include "tests/volume/heads.h"

/* ---- the world: one bucket, and sides that see it through their own faults ---- */

struct side {
	struct fault *fault;
	struct store *store;
};

static struct bucket *bucket;
static const struct claim_options polite = { 0 };
static const struct claim_options rude = { .take_over = true };

static struct side side_open(const char *prefix)
{
	struct side side;

	side.fault = fault_open(bucket_client(bucket, prefix));
	side.store = fault_client(side.fault);
	atomic_store(&side.store->retry_for, 30 * CLOCK_SECOND);
	return side;
}

static void side_close(struct side *side)
{
	store_close(side->store);
	fault_release(side->fault);
	fault_close(side->fault);
}

/* A writer, an onlooker who snapshots, claims and the like, and a clone's place. */
static struct side writer, other, place;

static void setup(void)
{
	const struct volume_create_options options = { .size = 10 << 20 };

	bucket = bucket_open();
	writer = side_open("vol");
	other = side_open("vol");
	place = side_open("twin");
	cr_assert_eq(volume_create(other.store, &options), 0);
}

static void teardown(void)
{
	side_close(&writer);
	side_close(&other);
	side_close(&place);
	bucket_close(bucket);
}

TestSuite(protocol, .init = setup, .fini = teardown, .timeout = 300);

static struct head now(struct side *side)
{
	struct stored_head stored;

	cr_assert_eq(head_read(side->store, &stored), 0);
	return stored.head;
}

static struct claim claim(struct side *side, const struct claim_options *options)
{
	struct claim claim;

	cr_assert_eq(claim_take(side->store, options, true, NULL, NULL, &claim), 0);
	return claim;
}

static struct swap commit_swap(struct side *side, const struct claim *claim)
{
	struct swap swap = { .store = side->store, .base = claim->head,
			     .next = claim->head.head, .by_writer = true };

	swap.next.epoch++;
	swap.next.sequence = swap.next.epoch;	/* some content of its own */
	return swap;
}

static int commit(struct side *side, struct claim *claim)
{
	struct swap swap = commit_swap(side, claim);
	int error = head_swap(&swap);

	if (!error)
		claim->head = swap.base;
	return error;
}

static void on(struct side *side, enum store_op op, const char *prefix,
	       enum fault_kind kind, unsigned int times,
	       void (*call)(void *, const struct store_request *))
{
	fault_add(side->fault, &(struct fault_rule){ .op = op, .prefix = prefix,
		.kind = kind, .times = times, .call = call,
		.delay = kind == FAULT_LATE ? 1000000 : 0 });
}

/* The writer's next swap is on its way when it dies: nobody knows. */
static void die_while_swapping(struct side *side, struct claim *claim)
{
	struct swap swap = commit_swap(side, claim);

	on(side, STORE_PUT, "head", FAULT_LATE, 1, NULL);
	on(side, STORE_GET, "head", FAULT_FAIL, 0, NULL);
	cr_assert_neq(head_swap(&swap), 0);
	fault_clear(side->fault);
	cr_assert_eq(fault_held(side->fault), 1);
	claim_drop(claim);
}

static bool has_snapshot(struct side *side, const char *name)
{
	struct snapshot_list list;
	bool found;

	cr_assert_eq(volume_snapshots(side->store, &list), 0);
	found = snapshot_find(&list, name) != NULL;
	snapshot_list_free(&list);
	return found;
}

static unsigned int nr_entries(struct side *side)
{
	struct snapshot_list list;
	unsigned int nr;

	cr_assert_eq(volume_snapshots(side->store, &list), 0);
	nr = list.nr;
	snapshot_list_free(&list);
	return nr;
}

/* What the onlooker does in the middle of a request of somebody else. */
static void take_snapshot(void *context, const struct store_request *request)
{
	cr_expect_eq(volume_snapshot_create(other.store, "s", NULL), 0);
}

static void take_over(void *context, const struct store_request *request)
{
	struct claim theirs = claim(&other, &rude);

	claim_drop(&theirs);
}

static void claim_and_release(void *context, const struct store_request *request)
{
	struct claim theirs = claim(&other, &polite);

	cr_expect_eq(claim_release(other.store, &theirs), 0);
}

/* Sends the same bytes first, as a proxy or library that resends by itself. */
static void send_before(void *context, const struct store_request *request)
{
	cr_expect_eq(store_put_object(other.store, request->key, CAUSE_HEAD,
				      request->iov[0].iov_base, request->count,
				      request->condition, request->tag, NULL),
		     STORE_DONE);
}

/* ---- settling a commit ------------------------------------------------------------ */

Test(protocol, a_commit_whose_reply_was_lost_is_committed)
{
	struct claim mine = claim(&writer, &polite);
	uint64_t epoch = mine.head.head.epoch;

	on(&writer, STORE_PUT, "head", FAULT_LOSE_REPLY, 1, NULL);
	cr_assert_eq(commit(&writer, &mine), 0);
	cr_assert_eq(now(&other).epoch, epoch + 1);
	cr_assert_eq(commit(&writer, &mine), 0, "the tag that was read back is head's");
	claim_drop(&mine);
}

Test(protocol, own_commit_answered_412_is_committed)
{
	struct claim mine = claim(&writer, &polite);

	on(&writer, STORE_PUT, "head", FAULT_CALL, 1, send_before);
	cr_assert_eq(commit(&writer, &mine), 0);
	cr_assert_eq(now(&other).epoch, mine.head.head.epoch);
	claim_drop(&mine);
}

Test(protocol, a_swap_that_was_not_applied_is_sent_again_with_the_same_bytes)
{
	struct claim mine = claim(&writer, &polite);

	on(&writer, STORE_PUT, "head", FAULT_LATE, 1, NULL);
	cr_assert_eq(commit(&writer, &mine), 0);
	fault_release(writer.fault);
	cr_assert_eq(now(&other).nonce, mine.head.head.nonce);
	cr_assert_eq(commit(&writer, &mine), 0, "the late one changed nothing");
	claim_drop(&mine);
}

Test(protocol, an_unsettled_swap_is_settled_by_a_later_call)
{
	struct claim mine = claim(&writer, &polite);
	struct swap swap = commit_swap(&writer, &mine);

	on(&writer, STORE_PUT, "head", FAULT_LOSE_REPLY, 1, NULL);
	on(&writer, STORE_GET, "head", FAULT_FAIL, 1, NULL);
	cr_assert_eq(head_swap(&swap), -EIO);
	fault_count_reset(writer.fault);
	cr_assert_eq(head_swap(&swap), 0);
	cr_assert_eq(fault_count(writer.fault, STORE_PUT, "head"), 0);
	cr_assert_eq(now(&other).nonce, swap.next.nonce);
	claim_drop(&mine);
}

Test(protocol, a_put_of_head_that_fails_for_good_fails_the_call_and_is_no_fence)
{
	struct claim mine = claim(&writer, &polite);
	struct swap swap = commit_swap(&writer, &mine);

	fault_add(writer.fault, &(struct fault_rule){ .op = STORE_PUT, .prefix = "head",
		.kind = FAULT_FAIL, .error = -ENOSPC, .times = 1 });
	cr_assert_eq(head_swap(&swap), -ENOSPC);
	cr_assert_eq(head_swap(&swap), 0);
	claim_drop(&mine);
}

Test(protocol, a_store_that_refuses_every_swap_is_told_of_in_words)
{
	struct claim mine = claim(&writer, &polite);
	struct swap swap = commit_swap(&writer, &mine);
	char said[1024];

	atomic_store(&writer.store->retry_for, 100 * CLOCK_MS);
	on(&writer, STORE_PUT, "head", FAULT_REFUSE, 0, NULL);
	log_capture(said, sizeof(said));
	cr_assert_eq(head_swap(&swap), -EIO, "it is no fence");
	log_capture(NULL, 0);
	cr_assert(strstr(said, "PUT head: refused each time") &&
		  strstr(said, "objmap doctor"), "%s", said);
	cr_assert(!strstr(said, strerror(ESTALE)), "%s", said);
	fault_clear(writer.fault);
	cr_assert_eq(head_swap(&swap), 0);
	claim_drop(&mine);
}

Test(protocol, what_a_disk_says_of_itself_is_no_verdict_on_a_swap)
{
	static const int errors[] = { -ESTALE, -EALREADY, -ENOENT, -EAGAIN };
	struct claim mine = claim(&writer, &polite);
	struct swap swap;
	size_t i;
	int error;

	for (i = 0; i < sizeof(errors) / sizeof(errors[0]); i++) {
		swap = commit_swap(&writer, &mine);
		on(&writer, STORE_PUT, "head", FAULT_FAIL, 1, NULL);
		fault_add(writer.fault, &(struct fault_rule){ .op = STORE_GET,
			.prefix = "head", .kind = FAULT_FAIL, .error = errors[i],
			.times = 1 });
		error = head_swap(&swap);
		cr_expect_eq(error, -EIO, "%d for %d", error, errors[i]);
		cr_assert_eq(head_swap(&swap), 0);
		mine.head = swap.base;
		fault_clear(writer.fault);
	}
	claim_drop(&mine);
}

Test(protocol, a_later_head_that_hides_mine_still_says_it_was_committed)
{
	struct claim mine = claim(&writer, &polite);
	uint64_t epoch = mine.head.head.epoch;

	on(&writer, STORE_PUT, "head", FAULT_LOSE_REPLY, 1, NULL);
	on(&writer, STORE_GET, "head", FAULT_CALL, 1, take_over);
	cr_assert_eq(commit(&writer, &mine), -EALREADY);
	cr_assert_eq(now(&other).history[0].epoch, epoch + 1);
	claim_drop(&mine);
}

Test(protocol, a_swap_that_lost_to_another_owner_is_lost_though_he_was_me_before)
{
	struct claim mine = claim(&writer, &polite);

	on(&writer, STORE_PUT, "head", FAULT_LATE, 1, NULL);
	on(&writer, STORE_GET, "head", FAULT_CALL, 1, take_over);
	cr_assert_eq(commit(&writer, &mine), -ESTALE);
	fault_release(writer.fault);
	cr_assert_neq(now(&other).writer, mine.writer);
	claim_drop(&mine);
}

Test(protocol, a_confirmed_snapshot_survives_a_retried_swap_with_the_old_list)
{
	struct claim mine = claim(&writer, &polite);

	on(&writer, STORE_PUT, "head", FAULT_LATE, 1, NULL);
	on(&writer, STORE_GET, "head", FAULT_CALL, 1, take_snapshot);
	cr_assert_eq(commit(&writer, &mine), 0);
	fault_release(writer.fault);
	cr_assert_eq(now(&other).epoch, mine.head.head.epoch);
	cr_assert(has_snapshot(&other, "s"));
	cr_assert_neq(mine.head.head.snapshot_newest, 0, "the writer knows of it");
	claim_drop(&mine);
}

Test(protocol, no_head_comes_back_byte_for_byte)
{
	struct claim mine = claim(&writer, &polite);
	struct head before = now(&other);

	die_while_swapping(&writer, &mine);
	cr_assert_eq(volume_snapshot_create(other.store, "s", NULL), 0);
	cr_assert_eq(volume_snapshot_delete(other.store, "s", NULL), 0);
	fault_release(writer.fault);
	cr_assert_eq(now(&other).epoch, before.epoch);
}

Test(protocol, a_head_at_its_largest_is_swapped_settled_and_read_byte_for_byte)
{
	static uint8_t put[HEAD_BYTES_MAX], found[HEAD_BYTES_MAX];
	struct claim mine = claim(&writer, &polite);
	struct swap swap = commit_swap(&writer, &mine);
	struct head head;
	size_t count;

	head_largest(&swap.next);
	memcpy(swap.next.uuid, mine.head.head.uuid, sizeof(swap.next.uuid));
	swap.next.writer = mine.writer;
	cr_assert_gt(swap.next.epoch, mine.head.head.epoch);
	on(&writer, STORE_PUT, "head", FAULT_LOSE_REPLY, 1, NULL);
	cr_assert_eq(head_swap(&swap), 0);
	head = now(&other);
	count = head_encode(&head, found);
	cr_assert_gt(count, 40u << 10);
	cr_assert_eq(head_encode(&swap.base.head, put), count);
	cr_assert_arr_eq(put, found, count);
	claim_drop(&mine);
}

/* ---- late swaps against everything else -------------------------------------------- */

Test(protocol, a_zombie_cannot_commit_after_the_new_owner_opened)
{
	struct claim zombie = claim(&writer, &polite);
	struct claim mine = claim(&other, &rude);

	cr_assert_eq(commit(&writer, &zombie), -ESTALE);
	cr_assert_eq(now(&other).writer, mine.writer);
	cr_assert_eq(commit(&other, &mine), 0);
	cr_assert_eq(claim_release(writer.store, &zombie), 0);
	cr_assert(now(&other).holder.held, "the zombie's close is not the owner's");
	claim_drop(&mine);
}

Test(protocol, a_dead_writers_late_swap_is_nothing_to_the_new_owner)
{
	struct claim zombie = claim(&writer, &polite), mine;

	die_while_swapping(&writer, &zombie);
	mine = claim(&other, &rude);
	fault_release(writer.fault);
	cr_assert_eq(now(&other).nonce, mine.head.head.nonce);
	cr_assert_eq(commit(&other, &mine), 0);
	claim_drop(&mine);
}

Test(protocol, a_stale_swap_does_not_undo_a_rollback)
{
	struct claim zombie;

	cr_assert_eq(volume_snapshot_create(other.store, "s", NULL), 0);
	zombie = claim(&writer, &polite);
	cr_assert_eq(commit(&writer, &zombie), 0);
	die_while_swapping(&writer, &zombie);
	cr_assert_eq(volume_rollback(other.store, "s", &rude), 0);
	cr_assert_gt(now(&other).epoch, zombie.head.head.epoch + 1);
	fault_release(writer.fault);
	cr_assert_neq(now(&other).writer, zombie.writer);
	cr_assert_not(now(&other).holder.held);
}

Test(protocol, a_late_swap_does_not_resurrect_a_deleted_volume)
{
	const struct volume_create_options options = { .size = 1 << 20 };
	struct claim zombie = claim(&writer, &polite);
	struct head before, after;

	die_while_swapping(&writer, &zombie);
	cr_assert_eq(volume_delete(other.store, &polite), -EBUSY);
	cr_assert_eq(volume_delete(other.store, &rude), 0);
	fault_release(writer.fault);
	before = now(&other);
	cr_assert_eq(before.state, HEAD_DELETED);
	cr_assert_eq(volume_create(other.store, &options), 0);
	after = now(&other);
	cr_assert_eq(after.state, HEAD_LIVE);
	cr_assert_gt(after.epoch, before.epoch);
	cr_assert_neq(memcmp(after.uuid, before.uuid, 16), 0);
}

Test(protocol, a_late_create_does_not_bring_a_deleted_volume_back)
{
	const struct volume_create_options options = { .size = 1 << 20 };

	on(&place, STORE_PUT, "head", FAULT_LATE, 1, NULL);
	cr_assert_eq(volume_create(place.store, &options), 0);
	cr_assert_eq(volume_delete(place.store, &polite), 0);
	fault_release(place.fault);
	cr_assert_eq(now(&place).state, HEAD_DELETED);
}

/* ---- create -------------------------------------------------------------------------- */

Test(protocol, a_create_whose_reply_was_lost_is_done)
{
	const struct volume_create_options options = { .size = 1 << 20 };

	on(&place, STORE_PUT, "head", FAULT_LOSE_REPLY, 1, NULL);
	cr_assert_eq(volume_create(place.store, &options), 0);
	cr_assert_eq(volume_create(place.store, &options), -EEXIST);
}

Test(protocol, create_refuses_sizes_that_cannot_be)
{
	static const struct volume_create_options bad[] = {
		{ .size = 0 },
		{ .size = 1 << 20, .chunk_size = 100000 },
		{ .size = 1 << 20, .chunk_size = 32 << 10 },
		{ .size = 1 << 20, .chunk_size = 128 << 20 },
		{ .size = (VOLUME_CHUNKS_MAX << 16) + 1, .chunk_size = 64 << 10 },
	};
	const struct volume_create_options most = {
		.size = VOLUME_CHUNKS_MAX << 16, .chunk_size = 64 << 10 };
	unsigned int i;

	for (i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		cr_expect_eq(volume_create(place.store, &bad[i]), -EINVAL, "case %u", i);
	cr_assert_eq(bucket_count(bucket, "twin/"), 0);
	cr_assert_eq(volume_create(place.store, &most), 0);
}

/* ---- claims ---------------------------------------------------------------------------- */

Test(protocol, a_held_volume_is_refused_until_it_is_closed)
{
	struct claim mine = claim(&writer, &polite), theirs;

	cr_assert_eq(claim_take(other.store, &polite, true, NULL, NULL, &theirs), -EBUSY);
	cr_assert_eq(now(&other).writer, mine.writer, "nothing was changed");
	cr_assert_eq(claim_release(writer.store, &mine), 0);
	cr_assert_not(now(&other).holder.held);
	theirs = claim(&other, &polite);
	cr_assert_eq(theirs.head.head.history[0].writer, mine.writer);
	cr_assert_eq(theirs.head.head.epoch, mine.head.head.epoch + 1 + CLAIM_EPOCH_STEP);
	claim_drop(&theirs);
}

Test(protocol, a_close_keeps_a_snapshot_taken_meanwhile)
{
	struct claim mine = claim(&writer, &polite);

	on(&writer, STORE_PUT, "head", FAULT_CALL, 1, take_snapshot);
	cr_assert_eq(claim_release(writer.store, &mine), 0);
	cr_assert_not(now(&other).holder.held);
	cr_assert(has_snapshot(&other, "s"));
}

/* A runtime folder of the test's own. */
static const char *runtime_make(char path[40])
{
	snprintf(path, 40, "/tmp/objmap-test-XXXXXX");
	cr_assert_not_null(mkdtemp(path));
	return path;
}

static void runtime_remove(const char *path)
{
	char command[80];

	snprintf(command, sizeof(command), "rm -r %s", path);
	cr_assert_eq(system(command), 0);
}

Test(protocol, ones_own_crash_is_known_by_the_very_lock)
{
	char here[40], elsewhere[40];
	const struct claim_options locked = { .runtime_dir = runtime_make(here) };
	const struct claim_options apart = { .runtime_dir = runtime_make(elsewhere) };
	struct claim mine = claim(&writer, &locked), theirs;

	cr_assert_neq(mine.head.head.holder.lock_inode, 0);
	cr_assert_eq(claim_take(other.store, &locked, true, NULL, NULL, &theirs), -EBUSY);
	claim_drop(&mine);	/* as the kernel does of a dead process */
	cr_assert_eq(claim_take(other.store, &polite, true, NULL, NULL, &theirs), -EBUSY,
		     "without the lock nobody can know");
	cr_assert_eq(claim_take(other.store, &apart, true, NULL, NULL, &theirs), -EBUSY,
		     "another runtime folder, another lock");
	theirs = claim(&other, &locked);
	claim_drop(&theirs);
	runtime_remove(here);
	runtime_remove(elsewhere);
}

Test(protocol, a_take_over_on_the_same_machine_gets_a_lock_of_its_own)
{
	char here[40];
	const struct claim_options locked = { .runtime_dir = runtime_make(here) };
	struct claim_options forced = locked;
	struct claim mine = claim(&writer, &locked), theirs, third;

	forced.take_over = true;
	theirs = claim(&other, &forced);
	claim_drop(&mine);
	cr_assert_eq(claim_take(writer.store, &locked, true, NULL, NULL, &third), -EBUSY,
		     "the old lock's end is not the new owner's");
	claim_drop(&theirs);
	third = claim(&writer, &locked);
	claim_drop(&third);
	runtime_remove(here);
}

static const char *pretend_host;

/* Lets head say that somebody else holds the volume. */
static void pretend(struct claim *mine, bool journal, const char *machine,
		    const char *boot)
{
	struct swap swap = commit_swap(&writer, mine);
	struct holder *holder = &swap.next.holder;

	holder->journal = journal;
	if (pretend_host)
		snprintf(holder->host, sizeof(holder->host), "%s", pretend_host);
	if (machine)
		snprintf(holder->machine, sizeof(holder->machine), "%s", machine);
	if (boot)
		snprintf(holder->boot, sizeof(holder->boot), "%s", boot);
	cr_assert_eq(head_swap(&swap), 0);
	claim_drop(mine);
}

Test(protocol, a_holder_of_an_earlier_boot_is_dead_only_on_this_very_machine)
{
	struct claim mine = claim(&writer, &polite), theirs;

	pretend(&mine, false, "0123456789abcdef0123456789abcdef", "another-boot");
	cr_assert_eq(claim_take(other.store, &polite, true, NULL, NULL, &theirs), -EBUSY);
	mine = claim(&writer, &rude);
	if (!mine.head.head.holder.machine[0]) {
		/* No machine-id here: then no boot proves anything. */
		pretend(&mine, false, NULL, "another-boot");
		cr_assert_eq(claim_take(other.store, &polite, true, NULL, NULL, &theirs),
			     -EBUSY);
		return;
	}
	/* Machines that were made from one image have one id. */
	pretend_host = "its-twin";
	pretend(&mine, false, NULL, "another-boot");
	pretend_host = NULL;
	cr_assert_eq(claim_take(other.store, &polite, true, NULL, NULL, &theirs), -EBUSY);
	mine = claim(&writer, &rude);
	pretend(&mine, false, NULL, "another-boot");
	theirs = claim(&other, &polite);
	claim_drop(&theirs);
}

Test(protocol, who_has_the_lock_is_claiming_though_head_names_a_dead_holder)
{
	char here[40];
	const struct claim_options locked = { .runtime_dir = runtime_make(here) };
	struct claim mine = claim(&writer, &locked), theirs;
	int lock = dup(mine.lock_fd);

	pretend(&mine, false, NULL, "another-boot");
	cr_assert_eq(claim_take(other.store, &locked, true, NULL, NULL, &theirs), -EBUSY);
	close(lock);
	runtime_remove(here);
}

Test(protocol, a_journal_elsewhere_is_given_up_only_in_so_many_words)
{
	const struct claim_options both = { .take_over = true, .abandon_journal = true };
	struct claim mine = claim(&writer, &polite), theirs;

	pretend(&mine, true, "0123456789abcdef0123456789abcdef", NULL);
	cr_assert_eq(claim_take(other.store, &rude, true, NULL, NULL, &theirs), -EBUSY);
	theirs = claim(&other, &both);
	claim_drop(&theirs);
}

Test(protocol, a_claim_that_lost_to_a_snapshot_starts_over_and_keeps_it)
{
	struct claim mine;

	on(&writer, STORE_PUT, "head", FAULT_CALL, 1, take_snapshot);
	mine = claim(&writer, &polite);
	cr_assert_eq(now(&other).writer, mine.writer);
	cr_assert(has_snapshot(&other, "s"));
	claim_drop(&mine);
}

Test(protocol, a_claim_that_lost_to_a_short_one_starts_over)
{
	struct claim mine;

	on(&writer, STORE_PUT, "head", FAULT_CALL, 1, claim_and_release);
	mine = claim(&writer, &polite);
	cr_assert_eq(now(&other).writer, mine.writer);
	cr_assert_eq(now(&other).nr_history, 2, "creator and the short one");
	claim_drop(&mine);
}

Test(protocol, a_take_over_does_not_take_over_one_who_claimed_meanwhile)
{
	struct claim mine;

	on(&writer, STORE_PUT, "head", FAULT_CALL, 1, take_over);
	cr_assert_eq(claim_take(writer.store, &rude, true, NULL, NULL, &mine), -EBUSY);
}

Test(protocol, of_two_claims_at_one_epoch_one_is_made)
{
	struct claim mine, theirs;

	/* Both read the same head; ours is late, theirs is there first. */
	on(&writer, STORE_PUT, "head", FAULT_LATE, 1, NULL);
	fault_add(writer.fault, &(struct fault_rule){ .op = STORE_GET, .prefix = "head",
		.kind = FAULT_CALL, .skip = 1, .times = 1, .call = take_over });
	cr_assert_eq(claim_take(writer.store, &polite, true, NULL, NULL, &mine), -EBUSY);
	fault_release(writer.fault);
	theirs = claim(&other, &rude);
	cr_assert_eq(theirs.head.head.nr_history, 2, "creator and one claim");
	claim_drop(&theirs);
}

Test(protocol, a_claim_whose_reply_was_lost_is_made_once)
{
	struct claim mine;

	on(&writer, STORE_PUT, "head", FAULT_LOSE_REPLY, 1, NULL);
	mine = claim(&writer, &polite);
	cr_assert_eq(now(&other).writer, mine.writer);
	cr_assert_eq(now(&other).nr_history, 1);
	claim_drop(&mine);
}

Test(protocol, history_keeps_the_last_sixteen_writers)
{
	struct claim mine;
	struct head head;
	unsigned int i;

	for (i = 0; i < HISTORY_MAX + 3; i++) {
		mine = claim(&writer, &polite);
		cr_assert_eq(claim_release(writer.store, &mine), 0);
	}
	head = now(&other);
	cr_assert_eq(head.nr_history, HISTORY_MAX);
	for (i = 1; i < HISTORY_MAX; i++)
		cr_assert_lt(head.history[i].epoch, head.history[i - 1].epoch);
}

/* ---- snapshots ----------------------------------------------------------------------------- */

Test(protocol, a_snapshot_pins_heads_epoch_and_leaves_writer_and_epoch_alone)
{
	struct claim mine = claim(&writer, &polite);
	struct head before = now(&other), after, body;

	cr_assert_eq(volume_snapshot_create(other.store, "s", NULL), 0);
	after = now(&other);
	cr_assert_eq(after.epoch, before.epoch);
	cr_assert_eq(after.writer, before.writer);
	cr_assert_neq(after.nonce, before.nonce);
	cr_assert_eq(after.snapshot_newest, before.epoch);
	cr_assert_eq(after.snapshot_list_epoch, before.epoch + 1);
	cr_assert_eq(volume_snapshot_head(other.store, "s", &body), 0);
	cr_assert_eq(body.nonce, before.nonce);
	cr_assert_eq(commit(&writer, &mine), 0);
	cr_assert_eq(volume_snapshot_create(other.store, "t", NULL), 0);
	cr_assert_eq(volume_snapshot_delete(other.store, "t", NULL), 0);
	cr_assert_eq(now(&other).snapshot_newest, before.epoch);
	cr_assert_eq(volume_snapshot_delete(other.store, "s", NULL), 0);
	cr_assert_eq(now(&other).snapshot_newest, 0);
	cr_assert_eq(now(&other).snapshot_list_epoch, 0);
	claim_drop(&mine);
}

Test(protocol, names_of_snapshots_are_unique_and_proper)
{
	struct head body;

	cr_assert_eq(volume_snapshot_create(other.store, "a/b", NULL), -EINVAL);
	cr_assert_eq(volume_snapshot_create(other.store, "", NULL), -EINVAL);
	cr_assert_eq(volume_snapshot_delete(other.store, "s", NULL), -ENOENT);
	cr_assert_eq(volume_snapshot_create(other.store, "s", NULL), 0);
	cr_assert_eq(volume_snapshot_create(other.store, "s", NULL), -EEXIST);
	cr_assert_eq(volume_snapshot_head(other.store, "t", &body), -ENOENT);
	cr_assert_eq(volume_rollback(other.store, "t", &polite), -ENOENT);
	cr_assert_eq(nr_entries(&other), 1);
}

Test(protocol, a_snapshot_whose_reply_was_lost_is_taken_once)
{
	on(&other, STORE_PUT, "head", FAULT_LOSE_REPLY, 1, NULL);
	cr_assert_eq(volume_snapshot_create(other.store, "s", NULL), 0);
	cr_assert_eq(fault_count(other.fault, STORE_PUT, "snapshot/"), 2);
	on(&other, STORE_PUT, "head", FAULT_LOSE_REPLY, 1, NULL);
	cr_assert_eq(volume_snapshot_delete(other.store, "s", NULL), 0);
	cr_assert_eq(nr_entries(&other), 0);
}

static struct claim *busy;

static void commit_meanwhile(void *context, const struct store_request *request)
{
	cr_expect_eq(commit(&writer, busy), 0);
}

Test(protocol, a_snapshot_that_a_commit_was_built_upon_is_taken_once)
{
	struct claim mine = claim(&writer, &polite);

	busy = &mine;
	on(&other, STORE_PUT, "head", FAULT_LOSE_REPLY, 1, NULL);
	fault_add(other.fault, &(struct fault_rule){ .op = STORE_GET, .prefix = "head",
		.kind = FAULT_CALL, .skip = 1, .times = 1, .call = commit_meanwhile });
	cr_assert_eq(volume_snapshot_create(other.store, "s", NULL), 0);
	cr_assert_eq(nr_entries(&other), 1);
	claim_drop(&mine);
}

Test(protocol, a_deletion_that_a_commit_was_built_upon_is_done)
{
	struct claim mine = claim(&writer, &polite);

	busy = &mine;
	cr_assert_eq(volume_snapshot_create(other.store, "s", NULL), 0);
	cr_assert_eq(commit(&writer, &mine), 0);
	on(&other, STORE_PUT, "head", FAULT_LOSE_REPLY, 1, NULL);
	fault_add(other.fault, &(struct fault_rule){ .op = STORE_GET, .prefix = "head",
		.kind = FAULT_CALL, .skip = 1, .times = 1, .call = commit_meanwhile });
	cr_assert_eq(volume_snapshot_delete(other.store, "s", NULL), 0);
	cr_assert_eq(nr_entries(&other), 0);
	claim_drop(&mine);
}

Test(protocol, a_snapshot_that_lost_to_a_commit_is_taken_of_the_new_head)
{
	struct claim mine = claim(&writer, &polite);
	struct head body;

	busy = &mine;
	on(&other, STORE_PUT, "head", FAULT_CALL, 1, commit_meanwhile);
	cr_assert_eq(volume_snapshot_create(other.store, "s", NULL), 0);
	cr_assert_eq(volume_snapshot_head(other.store, "s", &body), 0);
	cr_assert_eq(body.epoch, mine.head.head.epoch);
	claim_drop(&mine);
}

Test(protocol, under_a_busy_writer_a_snapshot_backs_off_and_gives_up)
{
	struct claim mine = claim(&writer, &polite);

	busy = &mine;
	on(&other, STORE_PUT, "head", FAULT_CALL, 0, commit_meanwhile);
	cr_assert_eq(volume_snapshot_create(other.store, "s", NULL), -EBUSY);
	cr_assert_eq(nr_entries(&writer), 0);
	claim_drop(&mine);
}

Test(protocol, a_rollback_takes_the_body_and_epochs_go_on)
{
	struct claim mine = claim(&writer, &polite);
	struct swap swap;
	struct head before, after;

	cr_assert_eq(volume_snapshot_create(other.store, "s", NULL), 0);
	swap = commit_swap(&writer, &mine);
	swap.next.size = 5 << 20;
	swap.next.nr_root = map_nr_root(volume_nr_chunks(swap.next.size,
							 swap.next.chunk_size));
	cr_assert_eq(head_swap(&swap), 0);
	mine.head = swap.base;
	cr_assert_eq(volume_rollback(other.store, "s", &polite), -EBUSY, "it is held");
	cr_assert_eq(claim_release(writer.store, &mine), 0);
	before = now(&other);
	cr_assert_eq(volume_rollback(other.store, "s", &polite), 0);
	after = now(&other);
	cr_assert_eq(before.size, 5 << 20);
	cr_assert_eq(after.size, 10 << 20);
	cr_assert_eq(after.nr_root, 10);
	cr_assert_gt(after.epoch, before.epoch);
	cr_assert_neq(after.writer, before.writer);
	cr_assert(has_snapshot(&other, "s"));
}

static void delete_snapshot(void *context, const struct store_request *request)
{
	cr_expect_eq(volume_snapshot_delete(writer.store, "s", NULL), 0);
}

Test(protocol, a_rollback_to_a_snapshot_deleted_meanwhile_does_nothing)
{
	uint64_t epoch;

	cr_assert_eq(volume_snapshot_create(other.store, "s", NULL), 0);
	epoch = now(&other).epoch;
	on(&other, STORE_PUT, "head", FAULT_CALL, 1, delete_snapshot);
	cr_assert_eq(volume_rollback(other.store, "s", &polite), -ENOENT);
	cr_assert_eq(now(&other).epoch, epoch);
}

Test(protocol, a_missing_list_or_body_is_damage_and_never_an_empty_one)
{
	struct snapshot_list list;
	struct head body;

	cr_assert_eq(volume_snapshot_create(other.store, "s", NULL), 0);
	cr_assert(bucket_lose(bucket, "vol/snapshot/body"));
	cr_assert_eq(volume_snapshot_head(other.store, "s", &body), -EIO);
	cr_assert_eq(volume_rollback(other.store, "s", &polite), -EIO);
	cr_assert_eq(volume_clone(other.store, "vol", "s", place.store, "twin", NULL), -EIO);
	while (bucket_lose(bucket, "vol/snapshot/list"))
		;	/* the clone's try has left one more */
	cr_assert_eq(volume_snapshots(other.store, &list), -EIO);
	cr_assert_eq(volume_snapshot_create(other.store, "t", NULL), -EIO);
	cr_assert_eq(volume_rollback(other.store, "s", &polite), -EIO);
	cr_assert_eq(volume_delete(other.store, &polite), -EIO);
	cr_assert_eq(now(&other).state, HEAD_LIVE);
}

/* ---- clones --------------------------------------------------------------------------------- */

static int clone(const char *name)
{
	return volume_clone(other.store, "vol", name, place.store, "twin", NULL);
}

Test(protocol, a_clone_pins_what_its_snapshot_pinned_and_outlives_it)
{
	struct head parent, twin;

	cr_assert_eq(clone("s"), -ENOENT);
	cr_assert_eq(volume_snapshot_create(other.store, "s", NULL), 0);
	cr_assert_eq(clone("s"), 0);
	cr_assert_eq(clone("s"), -EEXIST);
	cr_assert_eq(volume_snapshot_delete(other.store, "s", NULL), 0);
	parent = now(&other);
	twin = now(&place);
	cr_assert_eq(nr_entries(&other), 1);
	cr_assert_eq(parent.snapshot_newest, 1);
	cr_assert_eq(twin.nr_origins, 1);
	cr_assert_eq(twin.origins[0].epoch, 1);
	cr_assert_str_eq(twin.origins[0].prefix, "vol");
	cr_assert_gt(twin.epoch, 1);
	cr_assert_eq(twin.size, parent.size);
	cr_assert_neq(memcmp(twin.uuid, parent.uuid, 16), 0);
}

Test(protocol, a_parent_is_deleted_after_its_clones_only)
{
	cr_assert_eq(volume_snapshot_create(other.store, "s", NULL), 0);
	cr_assert_eq(clone("s"), 0);
	cr_assert_eq(volume_delete(other.store, &polite), -EBUSY);
	cr_assert_eq(now(&other).state, HEAD_LIVE);
	cr_assert_eq(volume_delete(place.store, &polite), 0);
	cr_assert_eq(volume_delete(other.store, &polite), 0);
	cr_assert_eq(now(&other).state, HEAD_DELETED);
}

Test(protocol, a_clone_cut_after_its_entry_is_finished_by_a_retry)
{
	cr_assert_eq(volume_snapshot_create(other.store, "s", NULL), 0);
	on(&place, STORE_PUT, "head", FAULT_FAIL, 1, NULL);
	cr_assert_eq(clone("s"), -EIO);
	cr_assert_eq(nr_entries(&other), 2);
	cr_assert_eq(clone("s"), 0);
	cr_assert_eq(nr_entries(&other), 2);
}

Test(protocol, a_clone_onto_a_volume_leaves_no_entry_behind)
{
	const struct volume_create_options options = { .size = 1 << 20 };

	cr_assert_eq(volume_snapshot_create(other.store, "s", NULL), 0);
	cr_assert_eq(volume_create(place.store, &options), 0);
	cr_assert_eq(clone("s"), -EEXIST);
	cr_assert_eq(nr_entries(&other), 1);
	cr_assert_eq(volume_delete(place.store, &polite), 0);
	cr_assert_eq(clone("s"), 0, "a tombstone gives way");
	cr_assert_eq(now(&place).nr_origins, 1);
}

static void create_there(void *context, const struct store_request *request)
{
	const struct volume_create_options options = { .size = 1 << 20 };
	struct side side = side_open("twin");

	cr_expect_eq(volume_create(side.store, &options), 0);
	side_close(&side);
}

Test(protocol, a_clone_that_lost_its_place_meanwhile_leaves_no_entry_behind)
{
	cr_assert_eq(volume_snapshot_create(other.store, "s", NULL), 0);
	on(&place, STORE_PUT, "head", FAULT_CALL, 1, create_there);
	cr_assert_eq(clone("s"), -EEXIST);
	cr_assert_eq(nr_entries(&other), 1);
	cr_assert_eq(now(&place).nr_origins, 0);
}

Test(protocol, entries_of_dead_clones_go_with_the_next_snapshot)
{
	cr_assert_eq(volume_snapshot_create(other.store, "s", NULL), 0);
	cr_assert_eq(clone("s"), 0);
	cr_assert_eq(volume_delete(place.store, &polite), 0);
	cr_assert_eq(volume_snapshot_delete(other.store, "s", NULL), 0);
	cr_assert_eq(nr_entries(&other), 0);
}

Test(protocol, a_clone_that_cannot_be_looked_at_is_not_dead)
{
	cr_assert_eq(volume_snapshot_create(other.store, "s", NULL), 0);
	cr_assert_eq(clone("s"), 0);
	fault_add(other.fault, &(struct fault_rule){ .op = STORE_GET,
		.prefix = "/twin/head", .kind = FAULT_FAIL, .error = -ENOENT });
	cr_assert_eq(volume_snapshot_delete(other.store, "s", NULL), 0);
	cr_assert_eq(nr_entries(&other), 1, "what it needs is still pinned");
}

static void clone_meanwhile(void *context, const struct store_request *request)
{
	/* The entry is there, head is put, and all is confirmed. */
	cr_expect_eq(volume_clone(writer.store, "vol", "s", place.store, "twin", NULL), 0);
}

Test(protocol, who_took_a_clone_for_dead_looks_again_when_it_was_made_meanwhile)
{
	cr_assert_eq(volume_snapshot_create(other.store, "s", NULL), 0);
	cr_assert_eq(volume_snapshot_create(other.store, "t", NULL), 0);
	on(&place, STORE_PUT, "head", FAULT_FAIL, 1, NULL);
	cr_assert_eq(clone("s"), -EIO);
	/* Now there is an entry without a clone; it is made in the middle. */
	on(&other, STORE_PUT, "head", FAULT_CALL, 1, clone_meanwhile);
	cr_assert_eq(volume_snapshot_delete(other.store, "t", NULL), 0);
	cr_assert_eq(nr_entries(&other), 2, "s and its clone");
}

static void drop_entry(void *context, const struct store_request *request)
{
	cr_expect_eq(volume_snapshot_delete(writer.store, "s", NULL), 0);
}

Test(protocol, a_clone_whose_entry_was_dropped_meanwhile_is_given_up)
{
	cr_assert_eq(volume_snapshot_create(other.store, "s", NULL), 0);
	on(&place, STORE_PUT, "head", FAULT_CALL, 1, drop_entry);
	cr_assert_eq(clone("s"), -ESTALE);
	cr_assert_eq(nr_entries(&other), 0);
	cr_assert_eq(now(&place).state, HEAD_DELETED);
}

static void drop_dead_entries(void *context, const struct store_request *request)
{
	cr_expect_eq(volume_snapshot_delete(writer.store, "t", NULL), 0);
}

Test(protocol, a_clone_left_without_its_entry_is_pinned_again_by_the_same_command)
{
	cr_assert_eq(volume_snapshot_create(other.store, "s", NULL), 0);
	cr_assert_eq(volume_snapshot_create(other.store, "t", NULL), 0);
	/* Taken for dead just before it is made, and cut before it can be confirmed. */
	on(&place, STORE_PUT, "head", FAULT_CALL, 1, drop_dead_entries);
	fault_add(other.fault, &(struct fault_rule){ .op = STORE_GET, .prefix = "head",
		.kind = FAULT_FAIL, .skip = 1, .times = 1 });
	cr_assert_eq(clone("s"), -EIO);
	cr_assert_eq(now(&place).nr_origins, 1, "it is there");
	cr_assert_eq(nr_entries(&other), 1, "but nothing pins what it needs");
	cr_assert_eq(clone("s"), -EEXIST);
	cr_assert_eq(nr_entries(&other), 2);
	cr_assert_eq(volume_snapshot_delete(other.store, "s", NULL), 0);
	cr_assert_eq(nr_entries(&other), 1);
}

Test(protocol, clones_of_clones_end_at_eight)
{
	char from[20], to[20];
	struct side parent, child;
	unsigned int i;

	cr_assert_eq(volume_snapshot_create(other.store, "s", NULL), 0);
	for (i = 0; i <= ORIGINS_MAX; i++) {
		snprintf(from, sizeof(from), i ? "c%u" : "vol", i - 1);
		snprintf(to, sizeof(to), "c%u", i);
		parent = side_open(from);
		child = side_open(to);
		cr_assert_eq(volume_clone(parent.store, from, "s", child.store, to, NULL),
			     i < ORIGINS_MAX ? 0 : -E2BIG, "clone %u", i);
		if (i < ORIGINS_MAX)
			cr_assert_eq(volume_snapshot_create(child.store, "s", NULL), 0);
		side_close(&parent);
		side_close(&child);
	}
}
