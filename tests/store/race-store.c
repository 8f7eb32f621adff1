/* race-store.c: many threads at two clients of one store, for the thread
 * sanitizer: puts, gets, lists and deletes of the same keys, swaps of one head,
 * retries and cancelling.  Ends with 0 when every swap had one winner. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "src/clock.h"
#include "src/random.h"
#include "tests/store/stores.h"

#define NR_THREADS 6
#define ROUNDS 60
#define NR_KEYS 5

struct racer {
	struct store *store;
	uint64_t seed;
	uint32_t swaps;		/* done */
};

static void check(bool good, const char *what)
{
	if (good)
		return;
	fprintf(stderr, "race-store: %s\n", what);
	_Exit(1);
}

static void swap_head(struct racer *racer)
{
	struct store_reply reply;
	enum store_outcome outcome;
	uint32_t *number;
	size_t count;
	void *data;

	check(store_get_object(racer->store, "head", CAUSE_HEAD, 4, &data, &count,
			       &reply) == STORE_DONE && count == 4, "head is gone");
	number = data;
	++*number;
	outcome = store_put_object(racer->store, "head", CAUSE_HEAD, number, 4,
				   STORE_IF_MATCH, reply.tag, NULL);
	check(outcome == STORE_DONE || outcome == STORE_REFUSED, "a swap failed");
	racer->swaps += outcome == STORE_DONE;
	free(data);
}

static void get_one(struct racer *racer, const char *key)
{
	struct store_reply reply;
	enum store_outcome outcome;
	size_t count;
	char *text;
	void *data;

	outcome = store_get_object(racer->store, key, CAUSE_DEMAND, 4096, &data, &count,
				   &reply);
	check(outcome == STORE_DONE || outcome == STORE_ABSENT, "a get failed");
	text = data;
	if (text)
		check(count == 4096 && text[0] == text[4095], "an object is torn");
	free(data);
}

static void *race(void *context)
{
	struct racer *racer = context;
	char key[32], content[4096];
	const char *keys[1] = { key };
	struct random random;
	int i;

	random_seed(&random, racer->seed);
	for (i = 0; i < ROUNDS; i++) {
		struct store_request delete = { .keys = keys, .nr_keys = 1 };
		struct store_request list = { .key = "c/" };

		snprintf(key, sizeof(key), "c/%d", (int)random_below(&random, NR_KEYS));
		memset(content, (int)random_below(&random, 256), sizeof(content));
		switch (random_below(&random, 5)) {
		case 0:
			check(store_put_object(racer->store, key, CAUSE_PUSH, content,
					       sizeof(content), STORE_ALWAYS, NULL,
					       NULL) == STORE_DONE, "a put failed");
			break;
		case 1:
			check(store_wait(racer->store, STORE_DELETE, &delete) ==
			      STORE_DONE, "a delete failed");
			break;
		case 2:
			check(store_wait(racer->store, STORE_LIST, &list) == STORE_DONE,
			      "a list failed");
			store_listing_free(&list.reply.listing);
			break;
		case 3:
			swap_head(racer);
			break;
		default:
			get_one(racer, key);
		}
	}
	return NULL;
}

static void race_on(struct store *one, struct store *other)
{
	struct racer racers[NR_THREADS];
	pthread_t threads[NR_THREADS];
	uint32_t number = 0, swaps = 0;
	size_t count;
	void *data;
	int i;

	check(store_put_object(one, "head", CAUSE_HEAD, &number, 4, STORE_ALWAYS, NULL,
			       NULL) == STORE_DONE, "the first put failed");
	for (i = 0; i < NR_THREADS; i++) {
		racers[i] = (struct racer){ i % 2 ? one : other, random_id(), 0 };
		check(pthread_create(&threads[i], NULL, race, &racers[i]) == 0, "no thread");
	}
	for (i = 0; i < NR_THREADS; i++) {
		pthread_join(threads[i], NULL);
		swaps += racers[i].swaps;
	}
	check(store_get_object(one, "head", CAUSE_HEAD, 4, &data, &count, NULL) ==
	      STORE_DONE, "head is gone");
	memcpy(&number, data, 4);
	free(data);
	check(number == swaps, "a swap was lost or counted twice");
}

struct cancelled {
	struct store *store;
	struct store_request request;
};

static void *wait_for_ever(void *context)
{
	struct cancelled *cancelled = context;

	store_wait(cancelled->store, STORE_GET, &cancelled->request);
	return NULL;
}

/* Requests that are retried, seen by status, cancelled, or given up by close. */
static void race_retries(void)
{
	struct cancelled cancelled[NR_THREADS];
	pthread_t threads[NR_THREADS];
	struct trouble_status trouble;
	struct store *mem, *store;
	struct fault *fault;
	int i;

	check(store_mem_open("mem:race", &mem) == 0, "no store");
	fault = fault_open(mem);
	store = fault_client(fault);
	atomic_store(&store->retry_for, UINT64_MAX);
	fault_add(fault, &(struct fault_rule){ .op = STORE_GET, .kind = FAULT_TRANSIENT });
	memset(cancelled, 0, sizeof(cancelled));
	for (i = 0; i < NR_THREADS; i++) {
		cancelled[i].store = store;
		cancelled[i].request.key = "k";
		pthread_create(&threads[i], NULL, wait_for_ever, &cancelled[i]);
	}
	do {
		trouble_status(&store->trouble, &trouble);
	} while (trouble.attempts < 2 * NR_THREADS);
	for (i = 0; i < NR_THREADS; i += 2)
		store_cancel(&cancelled[i].request);
	for (i = 0; i < NR_THREADS; i += 2)
		pthread_join(threads[i], NULL);
	store_close(store);
	for (i = 1; i < NR_THREADS; i += 2)
		pthread_join(threads[i], NULL);
	fault_close(fault);
}

int main(void)
{
	struct tested_store tested;
	int which[NR_TESTED_STORES];
	unsigned int i, nr = tested_stores(which);

	for (i = 0; i < nr; i++) {
		tested_store_open(&tested, which[i]);
		race_on(tested.store, tested.other);
		tested_store_close(&tested);
	}
	race_retries();
	return 0;
}
