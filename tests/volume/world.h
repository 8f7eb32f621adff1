/* world.h: a volume in a store that can be made to go wrong, for the tests of
 * the engine.  Everything here ends the test when it fails. */
#ifndef OBJMAP_TESTS_WORLD_H
#define OBJMAP_TESTS_WORLD_H

#include <criterion/criterion.h>
#include <semaphore.h>
#include <stdlib.h>
#include <string.h>

#include "src/clock.h"
#include "src/log.h"
#include "src/random.h"
#include "src/volume/volume.h"
#include "tests/store/fault_store.h"
#include "tests/store/given.h"

#define KIB 1024ull
#define MIB (1024 * KIB)
#define GIB (1024 * MIB)
#define TIB (1024 * GIB)

struct world {
	struct fault *fault;
	struct store *store;		/* the open volume's */
	struct volume *volume;
	struct stage *stage;
	struct volume_options options;
	uint32_t chunk_size;
	uint64_t retry_for;		/* ns */
};

static inline void world_open(struct world *world)
{
	world->store = fault_client(world->fault);
	cr_assert_not_null(world->store);
	world->store->retry_for = world->retry_for;
	cr_assert_eq(volume_open(world->store, &world->options, &world->volume), 0);
	world->stage = volume_stage(world->volume);
}

static inline void world_close(struct world *world)
{
	stage_close(world->stage);
	world->volume = NULL;
}

static inline void world_reopen(struct world *world)
{
	world_close(world);
	world_open(world);
}

/* A new volume of @size bytes in chunks of @chunk_size, open for writing. */
static inline void world_begin_with(struct world *world, uint64_t size,
				    uint32_t chunk_size,
				    const struct volume_options *options)
{
	const struct volume_create_options create = { .size = size,
						      .chunk_size = chunk_size };
	struct store *store;

	log_open("/dev/null", LOG_LEVEL_ERROR);
	memset(world, 0, sizeof(*world));
	world->fault = fault_open(given_store_or_mem());
	world->chunk_size = chunk_size;
	world->retry_for = 30 * CLOCK_SECOND;
	world->options = *options;
	world->options.writable = true;
	world->options.grace = GRACE_DEFAULT;
	store = fault_client(world->fault);
	cr_assert_eq(volume_create(store, &create), 0);
	store_close(store);
	world_open(world);
}

static inline void world_begin(struct world *world, uint64_t size, uint32_t chunk_size)
{
	world_begin_with(world, size, chunk_size, &(struct volume_options){ 0 });
}

static inline void world_end(struct world *world)
{
	if (world->volume)
		world_close(world);
	fault_close(world->fault);
}

/* Chunk @chunk filled with @byte (and its index, so that no two are alike). */
static inline int world_write(struct world *world, uint32_t chunk, uint8_t byte)
{
	uint8_t *data = malloc(world->chunk_size);
	int error;

	memset(data, byte, world->chunk_size);
	memcpy(data, &chunk, sizeof(chunk));
	error = stage_write(world->stage, data, world->chunk_size,
			    (uint64_t)chunk * world->chunk_size, 0);
	memset(data, 0xee, world->chunk_size);	/* it was copied */
	free(data);
	return error;
}

/* The byte that world_write() filled chunk @chunk with, 0 when it reads as zeros;
 * -1 when it cannot be read or is neither. */
static inline int world_byte(struct world *world, uint32_t chunk)
{
	uint8_t *data = malloc(world->chunk_size);
	uint64_t offset = (uint64_t)chunk * world->chunk_size;
	uint64_t size = stage_size(world->stage);
	size_t count = size - offset < world->chunk_size ? size - offset :
		       world->chunk_size;
	uint32_t index;
	int byte = -1;

	memset(data, 0xdd, world->chunk_size);
	if (stage_read(world->stage, data, count, offset, 0) == 0) {
		memcpy(&index, data, sizeof(index));
		if (memcmp(data + 4, data + 5, count - 5) == 0 &&
		    index == (data[4] ? chunk : 0))
			byte = data[4];
	}
	free(data);
	return byte;
}

static inline bool world_reads(struct world *world, uint32_t chunk, uint8_t byte)
{
	return world_byte(world, chunk) == byte;
}

/* A request that nobody waits for yet. */
struct pending_call {
	struct request request;
	sem_t done;
	int error;
};

static inline void pending_call_done(struct request *request, void *context, int error)
{
	struct pending_call *call = context;

	call->error = error;
	sem_post(&call->done);
}

static inline void call_flush(struct world *world, struct pending_call *call)
{
	sem_init(&call->done, 0, 0);
	request_init(&call->request, REQUEST_FLUSH, 0, 0, pending_call_done, call);
	stage_submit(world->stage, &call->request);
}

static inline bool call_is_done(struct pending_call *call)
{
	int value;

	sem_getvalue(&call->done, &value);
	return value > 0;
}

static inline int call_wait(struct pending_call *call)
{
	while (sem_wait(&call->done) < 0)
		;
	return call->error;
}

#endif
