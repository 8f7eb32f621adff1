/* test-doorway.c: what the doorway before every store does with what goes wrong. */
#include <criterion/criterion.h>
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "src/clock.h"
#include "src/log.h"
#include "src/random.h"
#include "tests/store/stores.h"

static struct fault *fault;
static struct store *store, *beside;

static void open_stores(void)
{
	struct store *mem;

	if (store_mem_open("mem:test", &mem) < 0 || store_mem_share(mem, &beside) < 0)
		abort();
	fault = fault_open(mem);
	store = fault_client(fault);
	atomic_store(&store->retry_for, 20 * CLOCK_SECOND);
}

static void close_stores(void)
{
	if (store)
		store_close(store);
	fault_close(fault);
	store_close(beside);
}

TestSuite(doorway, .init = open_stores, .fini = close_stores, .timeout = 60);

static enum store_outcome put(struct store *to, const char *key, const char *text,
			      enum store_condition condition, const char *tag,
			      struct store_reply *reply)
{
	return store_put_object(to, key, CAUSE_PUSH, text, strlen(text), condition, tag,
				reply);
}

static bool holds(const char *key, const char *text)
{
	struct store_reply reply;
	size_t count;
	void *data;
	bool same;

	if (store_get_object(beside, key, CAUSE_DEMAND, 100, &data, &count, &reply) !=
	    STORE_DONE)
		return false;
	same = count == strlen(text) && memcmp(data, text, count) == 0;
	free(data);
	return same;
}

Test(doorway, what_is_transient_is_tried_again)
{
	struct store_reply reply;

	fault_add(fault, &(struct fault_rule){ .op = STORE_PUT, .kind = FAULT_TRANSIENT,
					       .times = 3 });
	cr_assert_eq(put(store, "k", "x", STORE_ALWAYS, NULL, &reply), STORE_DONE);
	cr_assert(holds("k", "x"));
	cr_assert_eq(fault_count(fault, STORE_PUT, NULL), 4);
	cr_assert_eq(atomic_load(&store->counters.retries), 3);
	cr_assert_eq(atomic_load(&store->counters.requests[STORE_PUT]), 4);
	cr_assert_eq(atomic_load(&store->counters.in_flight), 0);
}

Test(doorway, tries_come_later_and_later)
{
	uint64_t begin = clock_now(), took;

	fault_add(fault, &(struct fault_rule){ .op = STORE_GET, .kind = FAULT_TRANSIENT,
					       .times = 5 });
	cr_assert_not(holds("none", ""));
	struct store_request get = { .key = "none" };
	cr_assert_eq(store_wait(store, STORE_GET, &get), STORE_ABSENT);
	took = clock_now() - begin;
	/* Half to all of 50 + 100 + 200 + 400 + 800 ms. */
	cr_assert_gt(took, 770 * CLOCK_MS);
	cr_assert_lt(took, 20 * CLOCK_SECOND);
}

Test(doorway, a_get_fails_with_the_last_error_when_its_time_is_up)
{
	struct store_request get;
	uint64_t nr = 0;

	fault_add(fault, &(struct fault_rule){ .op = STORE_GET, .kind = FAULT_TRANSIENT,
					       .error = -EHOSTUNREACH });
	/* A machine that pauses leaves no time for three tries: then once more. */
	for (unsigned int i = 0; i < 20 && nr < 3; i++) {
		fault_count_reset(fault);
		get = (struct store_request){
			.key = "k", .deadline = clock_now() + 300 * CLOCK_MS };
		cr_assert_eq(store_wait(store, STORE_GET, &get), STORE_FAILED);
		cr_assert_geq(clock_now(), get.deadline);
		cr_assert_lt(clock_now(), get.deadline + 20 * CLOCK_SECOND);
		nr = fault_count(fault, STORE_GET, NULL);
	}
	cr_assert_geq(nr, 3);
	cr_assert_eq(get.reply.error, -EHOSTUNREACH);
}

Test(doorway, retry_for_bounds_a_request_without_deadline)
{
	struct store_request get = { .key = "k" };
	uint64_t begin = clock_now();

	atomic_store(&store->retry_for, 200 * CLOCK_MS);
	fault_add(fault, &(struct fault_rule){ .op = STORE_GET, .kind = FAULT_TRANSIENT });
	cr_assert_eq(store_wait(store, STORE_GET, &get), STORE_FAILED);
	cr_assert_geq(clock_now() - begin, 200 * CLOCK_MS);
}

Test(doorway, a_put_that_was_sent_is_unknown_when_its_time_is_up)
{
	struct store_reply reply;

	atomic_store(&store->retry_for, 0);
	fault_add(fault, &(struct fault_rule){ .op = STORE_PUT, .kind = FAULT_LOSE_REPLY });
	cr_assert_eq(put(store, "k", "x", STORE_ALWAYS, NULL, &reply), STORE_UNKNOWN);
	cr_assert(holds("k", "x"));
	cr_assert_neq(reply.error, 0);
}

Test(doorway, a_past_deadline_sends_nothing)
{
	struct store_request get = { .key = "k", .deadline = 1 };

	cr_assert_eq(store_wait(store, STORE_GET, &get), STORE_FAILED);
	cr_assert_eq(get.reply.error, -ETIMEDOUT);
	cr_assert_eq(fault_count(fault, NR_STORE_OPS, NULL), 0);
}

Test(doorway, a_refusal_after_a_resend_is_unknown)
{
	struct store_reply first, reply;

	cr_assert_eq(put(store, "head", "a", STORE_ALWAYS, NULL, &first), STORE_DONE);
	/* Answered TRANSIENT, so sent again; somebody else wins in between. */
	fault_add(fault, &(struct fault_rule){ .op = STORE_PUT, .kind = FAULT_TRANSIENT,
					       .times = 1 });
	cr_assert_eq(put(beside, "head", "b", STORE_IF_MATCH, first.tag, &reply), STORE_DONE);
	cr_assert_eq(put(store, "head", "c", STORE_IF_MATCH, first.tag, &reply),
		     STORE_UNKNOWN);
	cr_assert_eq(put(store, "head", "c", STORE_IF_MATCH, first.tag, &reply),
		     STORE_REFUSED);
	cr_assert(holds("head", "b"));
}

Test(doorway, a_lost_conditional_put_is_unknown_at_once)
{
	struct store_reply reply;

	fault_add(fault, &(struct fault_rule){ .op = STORE_PUT, .kind = FAULT_LOSE_REPLY,
					       .times = 1 });
	cr_assert_eq(put(store, "head", "a", STORE_IF_ABSENT, NULL, &reply), STORE_UNKNOWN);
	cr_assert_eq(fault_count(fault, STORE_PUT, "head"), 1);
	cr_assert(holds("head", "a"));
}

Test(doorway, a_failure_for_good_is_not_tried_again)
{
	struct store_reply reply;

	fault_add(fault, &(struct fault_rule){ .op = STORE_PUT, .kind = FAULT_FAIL,
					       .error = -ENOSPC });
	cr_assert_eq(put(store, "k", "a", STORE_ALWAYS, NULL, &reply), STORE_FAILED);
	cr_assert_eq(reply.error, -ENOSPC);
	cr_assert_eq(fault_count(fault, STORE_PUT, NULL), 1);
	cr_assert_eq(atomic_load(&store->counters.failures), 1);
}

/* ---- waiting, seen from another thread ------------------------------------------ */

struct waiting {
	struct store_request request;
	pthread_t thread;
	enum store_outcome outcome;
	enum store_op op;
};

static void *wait_run(void *context)
{
	struct waiting *waiting = context;

	waiting->outcome = store_wait(store, waiting->op, &waiting->request);
	return NULL;
}

static void wait_until_retrying(struct trouble_status *trouble)
{
	struct timespec pause = { .tv_nsec = 2000000 };
	int i;

	for (i = 0; i < 5000; i++) {
		trouble_status(&store->trouble, trouble);
		if (trouble->reason[0])
			return;
		nanosleep(&pause, NULL);
	}
	cr_assert_fail("nothing is retried");
}

Test(doorway, trouble_has_a_reason_while_it_lasts)
{
	struct waiting waiting = { .request.key = "chunk/00/1", .op = STORE_GET };
	struct trouble_status trouble;

	trouble_status(&store->trouble, &trouble);
	cr_assert_eq(trouble.reason[0], 0);
	fault_add(fault, &(struct fault_rule){ .op = STORE_GET, .kind = FAULT_TRANSIENT,
					       .error = -ECONNREFUSED });
	pthread_create(&waiting.thread, NULL, wait_run, &waiting);
	wait_until_retrying(&trouble);
	cr_assert_str_eq(trouble.reason, "GET chunk/00/1: Connection refused");
	cr_assert_gt(trouble.since, 0);
	cr_assert_geq(trouble.attempts, 1);
	fault_clear(fault);
	pthread_join(waiting.thread, NULL);
	cr_assert_eq(waiting.outcome, STORE_ABSENT);
	trouble_status(&store->trouble, &trouble);
	cr_assert_eq(trouble.reason[0], 0);
	cr_assert_eq(trouble.since, 0);
}

Test(doorway, cancelling_ends_the_waiting_for_another_try)
{
	struct waiting waiting = { .request.key = "k", .op = STORE_GET };
	struct trouble_status trouble;
	uint64_t begin;

	atomic_store(&store->retry_for, UINT64_MAX);
	fault_add(fault, &(struct fault_rule){ .op = STORE_GET, .kind = FAULT_TRANSIENT });
	pthread_create(&waiting.thread, NULL, wait_run, &waiting);
	wait_until_retrying(&trouble);
	begin = clock_now();
	store_cancel(&waiting.request);
	pthread_join(waiting.thread, NULL);
	cr_assert_eq(waiting.outcome, STORE_FAILED);
	cr_assert_eq(waiting.request.reply.error, -ECANCELED);
	cr_assert_lt(clock_now() - begin, 20 * CLOCK_SECOND);
}

static void parent_done(struct request *request, void *context, int error)
{
	(void)request, (void)context, (void)error;
}

Test(doorway, a_put_cancelled_with_its_parent_after_it_was_sent_is_unknown)
{
	struct waiting waiting = { .request.key = "k", .op = STORE_PUT };
	struct trouble_status trouble;
	struct request parent;

	request_init(&parent, REQUEST_FLUSH, 0, 0, parent_done, NULL);
	waiting.request.parent = &parent;
	fault_add(fault, &(struct fault_rule){ .op = STORE_PUT, .kind = FAULT_TRANSIENT });
	pthread_create(&waiting.thread, NULL, wait_run, &waiting);
	wait_until_retrying(&trouble);
	request_cancel(&parent);
	pthread_join(waiting.thread, NULL);
	cr_assert_eq(waiting.outcome, STORE_UNKNOWN);
	cr_assert_eq(waiting.request.reply.error, -ECANCELED);
}

Test(doorway, closing_gives_up_what_waits_for_another_try)
{
	struct waiting waiting = { .request.key = "k", .op = STORE_GET };
	struct trouble_status trouble;

	atomic_store(&store->retry_for, UINT64_MAX);
	fault_add(fault, &(struct fault_rule){ .op = STORE_GET, .kind = FAULT_TRANSIENT });
	pthread_create(&waiting.thread, NULL, wait_run, &waiting);
	wait_until_retrying(&trouble);
	store_close(store);
	store = NULL;
	pthread_join(waiting.thread, NULL);
	cr_assert_eq(waiting.outcome, STORE_FAILED);
	cr_assert_eq(waiting.request.reply.error, -ESHUTDOWN);
}

/* ---- the probe ---------------------------------------------------------------------- */

/* A store that does not look at If-None-Match does as if nothing were there. */
static void forget_object(void *context, const struct store_request *request)
{
	(void)context;
	store_wait(beside, STORE_DELETE, &(struct store_request){
		.keys = &request->key, .nr_keys = 1 });
}

Test(doorway, the_probe_finds_a_store_that_replaces_despite_if_absent)
{
	struct store_request probe = { .key = "probe/1" };
	char text[1024] = "";

	fault_add(fault, &(struct fault_rule){ .op = STORE_PUT, .kind = FAULT_CALL,
					       .skip = 1, .times = 1,
					       .call = forget_object });
	log_capture(text, sizeof(text));
	cr_assert_eq(store_wait(store, STORE_PROBE, &probe), STORE_REFUSED);
	log_capture(NULL, 0);
	cr_assert_not_null(strstr(text, "If-None-Match"));
	cr_assert_not(holds("probe/1", "objmap probe\n"));
}

Test(doorway, the_probe_asks_again_what_is_unknown)
{
	struct store_request probe = { .key = "probe/1" };

	fault_add(fault, &(struct fault_rule){ .op = STORE_PUT, .kind = FAULT_LOSE_REPLY,
					       .skip = 1, .times = 1 });
	fault_add(fault, &(struct fault_rule){ .op = STORE_PUT, .kind = FAULT_TRANSIENT,
					       .skip = 2, .times = 1 });
	cr_assert_eq(store_wait(store, STORE_PROBE, &probe), STORE_DONE);
}

Test(doorway, the_probe_fails_with_what_failed)
{
	struct store_request probe = { .key = "probe/1" };

	fault_add(fault, &(struct fault_rule){ .op = STORE_PUT, .kind = FAULT_FAIL,
					       .error = -EACCES });
	cr_assert_eq(store_wait(store, STORE_PROBE, &probe), STORE_FAILED);
	cr_assert_eq(probe.reply.error, -EACCES);
}

/* ---- the fault store itself ------------------------------------------------------------ */

Test(doorway, a_late_put_arrives_when_released)
{
	struct store_reply reply;

	fault_add(fault, &(struct fault_rule){ .op = STORE_PUT, .kind = FAULT_LATE,
					       .times = 1 });
	cr_assert_eq(put(store, "head", "old", STORE_IF_ABSENT, NULL, &reply),
		     STORE_UNKNOWN);
	cr_assert_eq(fault_held(fault), 1);
	cr_assert_not(holds("head", "old"));
	fault_release(fault);
	cr_assert(holds("head", "old"));
	cr_assert_eq(fault_held(fault), 0);
}

Test(doorway, a_duplicate_undoes_what_came_after_it)
{
	struct store_reply reply;

	fault_add(fault, &(struct fault_rule){ .op = STORE_PUT, .kind = FAULT_DUPLICATE,
					       .times = 1, .delay = 2 });
	cr_assert_eq(put(store, "k", "old", STORE_ALWAYS, NULL, &reply), STORE_DONE);
	cr_assert_eq(put(store, "k", "new", STORE_ALWAYS, NULL, &reply), STORE_DONE);
	cr_assert(holds("k", "new"));
	cr_assert_eq(put(store, "other", "x", STORE_ALWAYS, NULL, &reply), STORE_DONE);
	cr_assert(holds("k", "old"));
}

Test(doorway, what_hangs_goes_on_when_released)
{
	struct waiting waiting = { .request.key = "k", .op = STORE_GET };

	fault_add(fault, &(struct fault_rule){ .op = STORE_GET, .kind = FAULT_HANG });
	pthread_create(&waiting.thread, NULL, wait_run, &waiting);
	cr_assert(fault_wait_held(fault, 1));
	fault_clear(fault);
	fault_release(fault);
	pthread_join(waiting.thread, NULL);
	cr_assert_eq(waiting.outcome, STORE_ABSENT);
}

Test(doorway, what_hangs_ends_at_its_deadline)
{
	struct waiting waiting = { .request.key = "k", .op = STORE_GET };

	waiting.request.deadline = clock_now() + 100 * CLOCK_MS;
	fault_add(fault, &(struct fault_rule){ .op = STORE_GET, .kind = FAULT_HANG });
	pthread_create(&waiting.thread, NULL, wait_run, &waiting);
	pthread_join(waiting.thread, NULL);
	cr_assert_eq(waiting.outcome, STORE_FAILED);
	cr_assert_eq(waiting.request.reply.error, -ETIMEDOUT);
}

Test(doorway, cut_and_corrupted_gets_are_told_apart_from_good_ones)
{
	char data[8];
	struct iovec iov = { .iov_base = data, .iov_len = 8 };
	struct store_request get = { .key = "k", .iov = &iov, .nr_iov = 1, .count = 8 };
	struct store_reply reply;

	cr_assert_eq(put(store, "k", "01234567", STORE_ALWAYS, NULL, &reply), STORE_DONE);
	fault_add(fault, &(struct fault_rule){ .op = STORE_GET, .kind = FAULT_TRUNCATE,
					       .times = 1 });
	cr_assert_eq(store_wait(store, STORE_GET, &get), STORE_FAILED);
	cr_assert_eq(get.reply.error, -ERANGE);
	fault_clear(fault);
	fault_add(fault, &(struct fault_rule){ .op = STORE_GET, .kind = FAULT_CORRUPT,
					       .times = 1 });
	cr_assert_eq(store_wait(store, STORE_GET, &get), STORE_DONE);
	cr_assert_arr_neq(data, "01234567", 8);
	cr_assert_eq(store_wait(store, STORE_GET, &get), STORE_DONE);
	cr_assert_arr_eq(data, "01234567", 8);
}

Test(doorway, under_every_honest_fault_what_is_done_is_there)
{
	uint64_t seed = random_id();
	struct store_reply reply;
	enum store_outcome outcome;
	char key[32];
	int i, done = 0;

	fprintf(stderr, "seed %llu\n", (unsigned long long)seed);
	atomic_store(&store->retry_for, 0);
	fault_schedule(fault, seed, 300, FAULT_HONEST);
	for (i = 0; i < 500; i++) {
		snprintf(key, sizeof(key), "chunk/%d", i);
		outcome = put(store, key, key, STORE_IF_ABSENT, NULL, &reply);
		if (outcome == STORE_DONE) {
			cr_assert(holds(key, key), "%s", key);
			done++;
		}
	}
	cr_assert_gt(done, 300);
	cr_assert_lt(done, 500);
	fault_clear(fault);
	fault_release(fault);
}
