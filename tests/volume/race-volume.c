/* race-volume.c: readers, writers, zeroers and flushers on one volume with small
 * limits, over a store that fails and delays, for ThreadSanitizer (under which
 * Criterion does not work).  Each chunk holds a generation; a reader must never
 * see an older one than was acknowledged before it began, nor a torn chunk. */
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "src/clock.h"
#include "src/log.h"
#include "src/random.h"
#include "src/volume/volume.h"
#include "tests/store/fault_store.h"
#include "tests/store/given.h"

#define CHUNK	   (64u << 10)
#define NR_CHUNKS  3000u
#define NR_HOT	   40u		/* chunks that are written, far apart */
#define NR_WRITERS 4u
#define NR_READERS 3u

static struct stage *stage;
static struct volume *volume;
static atomic_bool stop;
static atomic_uint acknowledged[NR_HOT];	/* generation */
static atomic_uint nr_reads, nr_writes, nr_flushes, nr_errors, nr_wrong;

static uint64_t offset_of(unsigned int hot)
{
	return (uint64_t)(hot * 73 % NR_CHUNKS) * CHUNK;
}

/* Writer w owns the chunks that are w modulo the number of writers. */
static void *write_on(void *context)
{
	unsigned int w = (unsigned int)(uintptr_t)context, hot, generation = 1;
	uint32_t *data = malloc(CHUNK);
	struct random random;
	size_t i;
	int error;

	random_seed(&random, 100 + w);
	while (!atomic_load(&stop)) {
		hot = (unsigned int)random_below(&random, NR_HOT / NR_WRITERS) * NR_WRITERS + w;
		generation++;
		for (i = 0; i < CHUNK / sizeof(*data); i++)
			data[i] = generation;
		error = stage_write(stage, data, CHUNK, offset_of(hot),
				    random_below(&random, 20) ? 0 : REQUEST_FUA);
		if (!error)
			atomic_store(&acknowledged[hot], generation);
		atomic_fetch_add(error ? &nr_errors : &nr_writes, 1);
		/* Elsewhere, so that runs of holes come and go. */
		if (random_below(&random, 10) == 0)
			stage_zero(stage, 3 * CHUNK, (2990ull + w) * CHUNK, 0);
	}
	free(data);
	return NULL;
}

static void *read_on(void *context)
{
	uint32_t *data = malloc(CHUNK), least;
	struct random random;
	unsigned int hot;
	size_t i;

	random_seed(&random, 200 + (uintptr_t)context);
	while (!atomic_load(&stop)) {
		hot = (unsigned int)random_below(&random, NR_HOT);
		least = atomic_load(&acknowledged[hot]);
		if (stage_read(stage, data, CHUNK, offset_of(hot), 0) != 0) {
			atomic_fetch_add(&nr_errors, 1);
			continue;
		}
		for (i = 1; i < CHUNK / sizeof(*data) && data[i] == data[0]; i++)
			;
		if (i < CHUNK / sizeof(*data) || data[0] < least) {
			fprintf(stderr, "chunk %u: generation %u after %u, same to word %zu\n",
				hot, data[0], least, i);
			atomic_fetch_add(&nr_wrong, 1);
		}
		atomic_fetch_add(&nr_reads, 1);
	}
	free(data);
	return NULL;
}

static void *flush_on(void *context)
{
	struct extent extents[16];
	struct extent_list list = { .extents = extents, .max = 16 };
	struct volume_status *status = malloc(sizeof(*status));

	while (!atomic_load(&stop)) {
		atomic_fetch_add(stage_flush(stage) ? &nr_errors : &nr_flushes, 1);
		stage_extents(stage, NR_CHUNKS * (uint64_t)CHUNK, 0, &list);
		volume_status(volume, status);
	}
	free(status);
	return NULL;
}

static struct store *client(struct fault *fault)
{
	struct store *store = fault_client(fault);

	if (!store)
		exit(2);
	atomic_store(&store->retry_for, 50 * CLOCK_MS);
	return store;
}

/* After all is quiet and the store is well again, everything is there. */
static int check_end(struct fault *fault)
{
	const struct volume_options how = { 0 };
	uint32_t *data = malloc(CHUNK);
	struct store *store = client(fault);
	unsigned int hot, wrong = 0;
	struct volume *reader;

	if (volume_open(store, &how, &reader) < 0)
		return 1;
	for (hot = 0; hot < NR_HOT; hot++) {
		if (stage_read(volume_stage(reader), data, CHUNK, offset_of(hot), 0) != 0 ||
		    data[0] < atomic_load(&acknowledged[hot]))
			wrong++;
	}
	stage_close(volume_stage(reader));
	free(data);
	return wrong != 0;
}

int main(int argc, char **argv)
{
	const struct volume_create_options create = {
		.size = NR_CHUNKS * (uint64_t)CHUNK, .chunk_size = CHUNK };
	const struct volume_options how = { .writable = true,
		.pending_limit = 8 * CHUNK, .map_memory = 1 };
	unsigned int seconds = argc > 1 ? (unsigned int)atoi(argv[1]) : 3, i;
	pthread_t threads[NR_WRITERS + NR_READERS + 2];
	unsigned int nr = 0, tries;
	struct fault *fault;
	struct store *store;
	int failed = 0;

	log_open("/dev/null", LOG_LEVEL_ERROR);
	fault = fault_open(given_store_or_mem());
	store = client(fault);
	if (volume_create(store, &create) < 0)
		return 2;
	store_close(store);
	store = client(fault);
	if (volume_open(store, &how, &volume) < 0)
		return 2;
	stage = volume_stage(volume);
	fault_schedule(fault, 42, 20, FAULT_HONEST);

	for (i = 0; i < NR_WRITERS; i++)
		pthread_create(&threads[nr++], NULL, write_on, (void *)(uintptr_t)i);
	for (i = 0; i < NR_READERS; i++)
		pthread_create(&threads[nr++], NULL, read_on, (void *)(uintptr_t)i);
	for (i = 0; i < 2; i++)
		pthread_create(&threads[nr++], NULL, flush_on, NULL);
	for (i = 0; i < seconds * 10 || (i < 600 && !(atomic_load(&nr_reads) &&
						       atomic_load(&nr_flushes))); i++)
		nanosleep(&(struct timespec){ .tv_nsec = 100000000 }, NULL);
	atomic_store(&stop, true);
	for (i = 0; i < nr; i++)
		pthread_join(threads[i], NULL);
	fault_clear(fault);
	fault_release(fault);
	for (tries = 0; tries < 3 && volume_flush(volume) < 0; tries++)
		;
	failed = tries == 3;
	stage_close(stage);
	failed |= check_end(fault);
	printf("%u reads, %u writes, %u flushes, %u errors, %u wrong\n",
	       atomic_load(&nr_reads), atomic_load(&nr_writes),
	       atomic_load(&nr_flushes), atomic_load(&nr_errors),
	       atomic_load(&nr_wrong));
	fault_close(fault);
	return failed || atomic_load(&nr_wrong) || !atomic_load(&nr_reads) ||
	       !atomic_load(&nr_flushes);
}
