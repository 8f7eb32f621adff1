/* race-stage.c: many threads through the doorway's limits, arbitrary's locks
 * and a slow next stage at once, for ThreadSanitizer: a plain program, because
 * Criterion does not run under it. */
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "src/place.h"
#include "src/random.h"
#include "tests/stage/call.h"
#include "tests/stage/contract.h"
#include "tests/stage/fault_stage.h"

#define NR_THREADS 6
#define NR_ROUNDS  200
#define CHUNK	   65536u
#define OWN	   3000u		/* bytes of each thread, several in a chunk */

static struct stage *top;

static int fail(const char *what, unsigned int thread, int error)
{
	fprintf(stderr, "race-stage: thread %u: %s: %s\n", thread, what,
		strerror(-error));
	return 1;
}

/* Writes, zeroes and reads back what belongs to this thread; flushes, prefetches
 * and asks for extents of everything; cancels now and then. */
static void *run_thread(void *context)
{
	unsigned int thread = (unsigned int)(uintptr_t)context;
	uint64_t start = thread * OWN;
	char data[OWN], got[OWN];
	struct extent extents[4];
	struct extent_list list = { extents, 4, 0 };
	struct random random;
	struct call call;
	int error;

	random_seed(&random, thread);
	for (unsigned int round = 0; round < NR_ROUNDS; round++) {
		bool zero = random_below(&random, 4) == 0;

		memset(data, zero ? 0 : (int)round, OWN);
		error = zero ? stage_zero(top, OWN, start, 0) :
			stage_write(top, data, OWN, start,
				    random_below(&random, 4) ? 0 : REQUEST_FUA);
		if (error)
			return (void *)(intptr_t)fail("write", thread, error);
		error = stage_read(top, got, OWN, start, 0);
		if (error || memcmp(got, data, OWN) != 0)
			return (void *)(intptr_t)fail("read", thread, error);
		error = stage_flush(top);
		if (!error)
			error = stage_extents(top, OWN, start, &list);
		if (error)
			return (void *)(intptr_t)fail("flush or extents", thread, error);
		call_start(&call, top, REQUEST_WRITE, data, OWN, start, 0);
		request_cancel(&call.request);
		error = call_wait(&call);
		if (error && error != -ECANCELED)
			return (void *)(intptr_t)fail("cancelled write", thread, error);
	}
	return NULL;
}

static void *drain(void *context)
{
	stage_drain(context);
	return NULL;
}

/* Reads until the drain shuts the door. */
static void *read_until_shut(void *context)
{
	char got[100];
	int error;

	do
		error = stage_read(top, got, sizeof(got), 10, 0);
	while (!error);
	return error == -ESHUTDOWN ? NULL : (void *)1;
}

static int run_all(void *(*run)(void *), void *(*also)(void *))
{
	pthread_t threads[NR_THREADS], other;
	int failed = 0;

	for (uintptr_t i = 0; i < NR_THREADS; i++)
		pthread_create(&threads[i], NULL, run, (void *)i);
	if (also) {
		pthread_create(&other, NULL, also, top);
		pthread_join(other, NULL);
	}
	for (unsigned int i = 0; i < NR_THREADS; i++) {
		void *result;

		pthread_join(threads[i], &result);
		failed |= result != NULL;
	}
	return failed;
}

int main(void)
{
	static const struct fault_options options = {
		.read_unit = 4096, .write_unit = CHUNK, .preferred = CHUNK,
		.max_request = CHUNK, .nr_threads = 3, .max_delay_us = 20,
		.clear_flags = STAGE_NATIVE_FUA,
	};
	const struct pipeline *pipelines;
	unsigned int nr;
	int failed;

	if (memory_open(4 * CHUNK + 100, &top) || fault_open(top, &options, &top) ||
	    chunked_open(top, &top) || arbitrary_open(top, &top) ||
	    stage_limit(top, 4, 3 * CHUNK))
		return 1;
	failed = run_all(run_thread, NULL);
	failed |= run_all(read_until_shut, drain);
	stage_close(top);
	pipelines = contract_pipelines(&nr);
	for (unsigned int i = 0; i < nr; i++)
		if (contract_lacks(&pipelines[i])) {
			printf("race-stage: %s: %s is not on PATH\n",
			       pipelines[i].name, contract_lacks(&pipelines[i]));
			failed = 1;
		} else {
			failed |= contract_run(&pipelines[i], contract_seed(), 300);
		}
	puts(failed ? "race-stage: FAILED" : "race-stage: ok");
	return failed;
}
