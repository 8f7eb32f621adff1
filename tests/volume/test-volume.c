/* test-volume.c: what an open volume does: content, requests, extents, readers. */
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/volume/bucket.h"
#include "tests/volume/world.h"

#define CHUNK (64 * KIB)

/* In a bucket of a busy machine, too. */
TestSuite(volume, .timeout = 300);

Test(volume, what_was_flushed_is_there_after_opening_again)
{
	struct world world;
	uint32_t chunk;

	world_begin(&world, 100 * CHUNK + 5, CHUNK);
	for (chunk = 0; chunk < 100; chunk += 3)
		cr_assert_eq(world_write(&world, chunk, 7), 0);
	cr_assert_eq(stage_write(world.stage, "tail!", 5, 100 * CHUNK, 0), 0);
	cr_assert_eq(stage_flush(world.stage), 0);
	world_reopen(&world);
	for (chunk = 0; chunk < 100; chunk++)
		cr_assert(world_reads(&world, chunk, chunk % 3 ? 0 : 7), "%u", chunk);
	{
		char tail[6] = "";
		cr_assert_eq(stage_read(world.stage, tail, 5, 100 * CHUNK, 0), 0);
		cr_assert_str_eq(tail, "tail!");
	}
	world_end(&world);
}

/* ---- random operations against an array of bytes, one for each chunk ------------ */

struct flat {
	struct world world;
	struct random random;
	uint32_t nr, chunks[64];	/* the ones that are looked at, ascending */
	uint8_t is[64];
};

static void flat_write(struct flat *flat, unsigned int i)
{
	uint8_t byte = (uint8_t)random_below(&flat->random, 5);
	uint64_t offset = flat->chunks[i] * CHUNK;

	if (byte) {
		cr_assert_eq(world_write(&flat->world, flat->chunks[i], byte), 0);
	} else {
		cr_assert_eq(stage_zero(flat->world.stage, CHUNK, offset,
					REQUEST_MAY_TRIM), 0);
	}
	flat->is[i] = byte;
}

static void flat_zero(struct flat *flat, unsigned int i)
{
	unsigned int last = i + (unsigned int)random_below(&flat->random, flat->nr - i);
	uint64_t offset = flat->chunks[i] * CHUNK;

	cr_assert_eq(stage_zero(flat->world.stage,
				(flat->chunks[last] + 1) * CHUNK - offset, offset, 0), 0);
	for (; i <= last; i++)
		flat->is[i] = 0;
}

static void flat_run(uint64_t nr_chunks, uint64_t seed)
{
	struct flat flat = { .nr = 64 };
	unsigned int step, i;

	world_begin_with(&flat.world, nr_chunks * CHUNK, CHUNK,
			 &(struct volume_options){ .pending_limit = 6 * CHUNK,
						   .map_memory = 1 });
	random_seed(&flat.random, seed);
	/* In clusters, at both ends of nodes. */
	for (i = 0; i < flat.nr; i++) {
		flat.chunks[i] = (uint32_t)(nr_chunks * (i / 8) / 8);
		flat.chunks[i] -= flat.chunks[i] % NODE_REFS % (nr_chunks / 8);
		flat.chunks[i] += i % 8 * 3;
	}
	for (step = 0; step < 1500; step++) {
		i = (unsigned int)random_below(&flat.random, flat.nr);
		switch (random_below(&flat.random, 40)) {
		case 0:
			cr_assert_eq(stage_flush(flat.world.stage), 0);
			world_reopen(&flat.world);
			break;
		case 1 ... 3:
			cr_assert_eq(stage_flush(flat.world.stage), 0);
			break;
		case 4 ... 5:
			flat_zero(&flat, i);
			break;
		case 6 ... 25:
			cr_assert(world_reads(&flat.world, flat.chunks[i], flat.is[i]),
				  "seed %llu step %u chunk %u", (unsigned long long)seed,
				  step, flat.chunks[i]);
			break;
		default:
			flat_write(&flat, i);
		}
	}
	cr_assert_eq(stage_flush(flat.world.stage), 0);
	world_reopen(&flat.world);
	for (i = 0; i < flat.nr; i++)
		cr_assert(world_reads(&flat.world, flat.chunks[i], flat.is[i]));
	world_end(&flat.world);
}

Test(volume, random_changes_match_a_flat_array_without_nodes)
{
	flat_run(1000, 11);
}

Test(volume, random_changes_match_a_flat_array_with_one_level)
{
	flat_run(3 * NODE_REFS + 17, 12);
	flat_run(NODE_REFS * NODE_REFS, 13);
}

Test(volume, random_changes_match_a_flat_array_with_two_levels)
{
	flat_run(5 * NODE_REFS * NODE_REFS + 1234, 14);
}

/* Every chunk of a long write, so that recent overflows again and again. */
Test(volume, a_folded_map_reads_as_it_was_written)
{
	struct world world;
	uint32_t chunk, round;

	world_begin(&world, 4000 * CHUNK, CHUNK);
	for (round = 1; round < 4; round++) {
		for (chunk = round; chunk < 4000; chunk += 2) {
			cr_assert_eq(world_write(&world, chunk, (uint8_t)round), 0);
			if (chunk % 301 == 0)
				cr_assert_eq(stage_flush(world.stage), 0);
		}
	}
	cr_assert_eq(stage_flush(world.stage), 0);
	cr_assert_gt(fault_count(world.fault, STORE_PUT, "map/"), 4);
	world_reopen(&world);
	cr_assert(world_reads(&world, 0, 0));
	cr_assert(world_reads(&world, 1, 1));
	for (chunk = 2; chunk < 4000; chunk++)
		cr_assert(world_reads(&world, chunk, chunk % 2 ? 3 : 2), "%u", chunk);
	world_end(&world);
}

/* ---- how many requests ------------------------------------------------------------ */

static uint64_t requests_to_open(uint64_t size, bool writable)
{
	struct world world;
	uint64_t nr;

	world_begin(&world, size, MIB);
	world_write(&world, 0, 1);
	stage_flush(world.stage);
	world_close(&world);
	fault_count_reset(world.fault);
	world.options.writable = writable;
	world_open(&world);
	nr = fault_count(world.fault, NR_STORE_OPS, NULL);
	world_end(&world);
	return nr;
}

Test(volume, opening_takes_the_same_few_requests_at_any_size)
{
	cr_assert_eq(requests_to_open(16 * TIB, true), requests_to_open(GIB, true));
	cr_assert_leq(requests_to_open(16 * TIB, true), 12);
	cr_assert_eq(requests_to_open(16 * TIB, false), 1);
}

Test(volume, a_whole_chunk_write_and_flush_is_two_puts_and_no_get)
{
	struct world world;

	world_begin(&world, 16 * TIB, MIB);
	fault_count_reset(world.fault);
	cr_assert_eq(world_write(&world, 12345678, 9), 0);
	cr_assert_eq(fault_count(world.fault, NR_STORE_OPS, NULL), 0);
	cr_assert_eq(stage_flush(world.stage), 0);
	cr_assert_eq(fault_count(world.fault, STORE_PUT, "chunk/"), 1);
	cr_assert_eq(fault_count(world.fault, STORE_PUT, "head"), 1);
	cr_assert_eq(fault_count(world.fault, NR_STORE_OPS, NULL), 2);
	cr_assert_eq(stage_flush(world.stage), 0);
	cr_assert_eq(fault_count(world.fault, NR_STORE_OPS, NULL), 2, "nothing is dirty");
	world_end(&world);
}

Test(volume, fua_is_two_puts)
{
	struct world world;
	uint8_t *data = calloc(1, MIB);

	data[5] = 1;
	world_begin(&world, 16 * TIB, MIB);
	fault_count_reset(world.fault);
	cr_assert_eq(stage_write(world.stage, data, MIB, 77 * MIB, REQUEST_FUA), 0);
	cr_assert_eq(fault_count(world.fault, NR_STORE_OPS, NULL), 2);
	free(data);
	world_end(&world);
}

Test(volume, maps_of_random_commits_cost_what_they_may)
{
	struct world world;
	struct random random;
	unsigned int commit, i, folds = 0;
	uint64_t puts, total = 0;

	world_begin_with(&world, 64 * GIB, CHUNK,	/* 2^20 chunks, 1024 leaves */
			 &(struct volume_options){ .pending_limit = 80 * MIB });
	random_seed(&random, 3);
	for (commit = 0; commit < 8; commit++) {
		fault_count_reset(world.fault);
		for (i = 0; i < 512; i++)
			world_write(&world, (uint32_t)random_below(&random, 1 << 20), 1);
		cr_assert_eq(stage_flush(world.stage), 0);
		puts = fault_count(world.fault, STORE_PUT, "map/");
		cr_assert(puts == 0 || (puts > 500 && puts < 700), "%llu",
			  (unsigned long long)puts);
		folds += puts > 0;
		total += puts;
		cr_assert_eq(fault_count(world.fault, STORE_PUT, "head"), 1);
		cr_assert_leq(fault_count(world.fault, STORE_PUT, "chunk/"), 512);
	}
	cr_assert_leq(folds, 4);
	cr_assert_lt(total / 8, 400, "%llu a commit", (unsigned long long)total / 8);
	world_end(&world);
}

Test(volume, zeroing_everything_is_a_few_requests)
{
	struct world world;
	uint32_t i;

	world_begin(&world, 16 * TIB, MIB);
	for (i = 0; i < 40; i++)
		world_write(&world, i * 400000, 3);
	cr_assert_eq(stage_flush(world.stage), 0);
	world_reopen(&world);
	fault_count_reset(world.fault);
	/* All but the first and the last chunk: both borders are inside nodes. */
	cr_assert_eq(stage_zero(world.stage, 16 * TIB - 2 * MIB, MIB, 0), 0);
	cr_assert(world_reads(&world, 400000, 0));
	cr_assert_eq(fault_count(world.fault, NR_STORE_OPS, NULL), 0);
	cr_assert_eq(stage_flush(world.stage), 0);
	cr_assert_leq(fault_count(world.fault, NR_STORE_OPS, NULL), 9);
	cr_assert_eq(fault_count(world.fault, STORE_PUT, "chunk/"), 0);
	world_reopen(&world);
	cr_assert(world_reads(&world, 0, 3));
	for (i = 1; i < 40; i++)
		cr_assert(world_reads(&world, i * 400000, 0));
	/* And what is a hole already needs no commit. */
	fault_count_reset(world.fault);
	cr_assert_eq(stage_zero(world.stage, TIB, 4 * TIB, 0), 0);
	cr_assert_eq(stage_flush(world.stage), 0);
	cr_assert_eq(fault_count(world.fault, STORE_PUT, NULL), 0);
	world_end(&world);
}

Test(volume, chunks_of_zeros_are_never_stored)
{
	struct world world;

	world_begin(&world, GIB, MIB);
	cr_assert_eq(world_write(&world, 0, 0), 0);	/* index 0: all zeros */
	cr_assert_eq(stage_flush(world.stage), 0);
	cr_assert_eq(fault_count(world.fault, STORE_PUT, "chunk/"), 0);
	world_end(&world);
}

/* ---- nowait, extents, bounds ------------------------------------------------------- */

Test(volume, nowait_answers_what_is_here_and_only_that)
{
	struct world world;
	uint8_t byte[64 * KIB];

	world_begin(&world, 100 * CHUNK, CHUNK);
	world_write(&world, 1, 5);
	cr_assert_eq(stage_read(world.stage, byte, CHUNK, CHUNK, REQUEST_NOWAIT), 0);
	cr_assert_eq(byte[100], 5);
	cr_assert_eq(stage_read(world.stage, byte, CHUNK, 2 * CHUNK, REQUEST_NOWAIT), 0);
	cr_assert_eq(byte[100], 0);
	cr_assert_eq(stage_flush(world.stage), 0);
	cr_assert_eq(stage_read(world.stage, byte, CHUNK, CHUNK, REQUEST_NOWAIT), -EAGAIN);
	cr_assert_eq(stage_read(world.stage, byte, CHUNK, CHUNK, 0), 0);
	world_end(&world);
}

Test(volume, extents_tell_holes_data_and_what_is_dirty)
{
	struct world world;
	struct extent extents[8];
	struct extent_list list = { .extents = extents, .max = 8 };
	const struct extent expected[] = {
		{ 10 * CHUNK, EXTENT_HOLE | EXTENT_ZERO }, { 2 * CHUNK, 0 },
		{ CHUNK, EXTENT_LOCAL | EXTENT_DIRTY },
		{ 2000 * CHUNK, EXTENT_HOLE | EXTENT_ZERO | EXTENT_DIRTY },
		{ 2987 * CHUNK, EXTENT_HOLE | EXTENT_ZERO } };
	unsigned int i;

	world_begin(&world, 5000 * CHUNK, CHUNK);
	for (i = 10; i < 14; i++)
		world_write(&world, i, 1);
	cr_assert_eq(stage_flush(world.stage), 0);
	world_write(&world, 12, 2);
	cr_assert_eq(stage_zero(world.stage, 2000 * CHUNK, 13 * CHUNK, 0), 0);
	cr_assert_eq(stage_extents(world.stage, 5000 * CHUNK, 0, &list), 0);
	cr_assert_eq(list.nr, 5);
	for (i = 0; i < 5; i++) {
		cr_assert_eq(extents[i].count, expected[i].count, "%u", i);
		cr_assert_eq(extents[i].flags, expected[i].flags, "%u", i);
	}
	list.max = 2;
	cr_assert_eq(stage_extents(world.stage, 100 * CHUNK, 11 * CHUNK + 3, &list), 0);
	cr_assert_eq(list.nr, 2);
	cr_assert_eq(extents[0].count, CHUNK - 3);
	cr_assert_eq(extents[1].count, CHUNK);
	world_end(&world);
}

#define STORM 200

Test(volume, a_storm_of_writes_stays_within_the_limit)
{
	static struct pending_call calls[STORM];
	static struct iovec iov[STORM];
	struct world world;
	struct volume_status *status = malloc(sizeof(*status));
	unsigned int i;

	world_begin_with(&world, 1000 * CHUNK, CHUNK,
			 &(struct volume_options){ .pending_limit = 8 * CHUNK });
	world.store->retry_for = UINT64_MAX;
	fault_add(world.fault, &(struct fault_rule){ .op = STORE_PUT, .prefix = "chunk/",
						     .kind = FAULT_HANG, .times = 1 });
	for (i = 0; i < STORM; i++) {
		iov[i] = (struct iovec){ malloc(CHUNK), CHUNK };
		memset(iov[i].iov_base, (int)i + 1, CHUNK);
		memcpy(iov[i].iov_base, &i, sizeof(i));
		sem_init(&calls[i].done, 0, 0);
		request_init(&calls[i].request, REQUEST_WRITE, i * CHUNK, CHUNK,
			     pending_call_done, &calls[i]);
		calls[i].request.iov = &iov[i];
		calls[i].request.nr_iov = 1;
		stage_submit(world.stage, &calls[i].request);
	}
	cr_assert(fault_wait_held(world.fault, 1));
	volume_status(world.volume, status);
	cr_assert_leq(status->pending_bytes, 8 * CHUNK);
	cr_assert(!call_is_done(&calls[STORM - 1]));
	cr_assert_eq(stage_write(world.stage, iov[0].iov_base, CHUNK, 500 * CHUNK,
				 REQUEST_NOWAIT), -EAGAIN);
	fault_release(world.fault);
	for (i = 0; i < STORM; i++)
		cr_assert_eq(call_wait(&calls[i]), 0);
	cr_assert_eq(stage_flush(world.stage), 0);
	for (i = 0; i < STORM; i++)
		cr_assert(world_reads(&world, i, (uint8_t)(i + 1)), "%u", i);
	free(status);
	world_end(&world);
}

Test(volume, a_chunk_larger_than_the_limit_is_let_in_alone)
{
	struct world world;

	world_begin_with(&world, 10 * CHUNK, CHUNK,
			 &(struct volume_options){ .pending_limit = 4096 });
	cr_assert_eq(world_write(&world, 1, 1), 0);
	cr_assert_eq(world_write(&world, 2, 2), 0);
	cr_assert_eq(stage_flush(world.stage), 0);
	cr_assert(world_reads(&world, 1, 1) && world_reads(&world, 2, 2));
	world_end(&world);
}

/* ---- what comes back wrong ----------------------------------------------------------- */

Test(volume, a_bad_transfer_is_tried_again_and_damage_is_an_error)
{
	struct world world;
	uint8_t byte[64 * KIB];

	world_begin(&world, 2000 * CHUNK, CHUNK);
	world_write(&world, 1, 5);
	cr_assert_eq(stage_flush(world.stage), 0);
	fault_add(world.fault, &(struct fault_rule){ .op = STORE_GET, .prefix = "chunk/",
						     .kind = FAULT_CORRUPT, .times = 1 });
	cr_assert(world_reads(&world, 1, 5));
	fault_add(world.fault, &(struct fault_rule){ .op = STORE_GET, .prefix = "chunk/",
						     .kind = FAULT_CORRUPT });
	cr_assert_eq(stage_read(world.stage, byte, CHUNK, CHUNK, 0), -EIO);
	fault_clear(world.fault);
	fault_add(world.fault, &(struct fault_rule){ .op = STORE_GET, .prefix = "chunk/",
						     .kind = FAULT_TRUNCATE });
	cr_assert_neq(stage_read(world.stage, byte, CHUNK, CHUNK, 0), 0);
	fault_clear(world.fault);
	cr_assert(world_reads(&world, 1, 5));
	world_end(&world);
}

Test(volume, a_damaged_node_is_an_error_and_is_not_kept)
{
	struct world world;
	uint8_t byte[64 * KIB];
	unsigned int i;

	world_begin(&world, 2000 * CHUNK, CHUNK);
	for (i = 1; i < 600; i++)
		world_write(&world, i, 5);
	cr_assert_eq(stage_flush(world.stage), 0);
	world_reopen(&world);
	fault_add(world.fault, &(struct fault_rule){ .op = STORE_GET, .prefix = "map/",
						     .kind = FAULT_CORRUPT });
	cr_assert_eq(stage_read(world.stage, byte, CHUNK, CHUNK, 0), -EIO);
	fault_clear(world.fault);
	cr_assert(world_reads(&world, 1, 5));
	world_end(&world);
}

/* Deletes every object whose key begins with @prefix. */
static void lose(struct world *world, const char *prefix)
{
	struct store *store = fault_client(world->fault);
	struct store_request list = { .key = prefix, .cause = CAUSE_GC }, del;
	const char *key;
	unsigned int i;

	cr_assert_eq(store_wait(store, STORE_LIST, &list), STORE_DONE);
	cr_assert_gt(list.reply.listing.nr_entries, 0);
	for (i = 0; i < list.reply.listing.nr_entries; i++) {
		key = list.reply.listing.entries[i].key;
		del = (struct store_request){ .keys = &key, .nr_keys = 1 };
		cr_assert_eq(store_wait(store, STORE_DELETE, &del), STORE_DONE);
	}
	store_listing_free(&list.reply.listing);
	store_close(store);
}

Test(volume, a_missing_object_is_never_a_hole)
{
	struct world world;
	uint8_t byte[64 * KIB];

	world_begin(&world, 2000 * CHUNK, CHUNK);
	world_write(&world, 1, 5);
	cr_assert_eq(stage_flush(world.stage), 0);
	lose(&world, "chunk/");
	cr_assert_eq(stage_read(world.stage, byte, CHUNK, CHUNK, 0), -EIO);
	world_end(&world);
}

/* A second handle of the volume, read-only. */
static struct volume *open_reader(struct world *world, const struct volume_options *how)
{
	struct store *store = fault_client(world->fault);
	struct volume *reader;

	store->retry_for = 0;
	cr_assert_eq(volume_open(store, how, &reader), 0);
	return reader;
}

Test(volume, a_reader_keeps_its_image_and_says_when_gc_took_it)
{
	struct volume_options how = { 0 };
	struct world world;
	struct volume *reader;
	uint8_t byte[64 * KIB];

	world_begin(&world, 2000 * CHUNK, CHUNK);
	world_write(&world, 1, 5);
	cr_assert_eq(stage_flush(world.stage), 0);
	reader = open_reader(&world, &how);
	world_write(&world, 1, 6);
	cr_assert_eq(stage_flush(world.stage), 0);
	cr_assert_eq(stage_read(volume_stage(reader), byte, CHUNK, CHUNK, 0), 0);
	cr_assert_eq(byte[9], 5);
	cr_assert_eq(stage_write(volume_stage(reader), byte, CHUNK, CHUNK, 0), -EROFS);
	lose(&world, "chunk/");
	cr_assert_eq(stage_read(volume_stage(reader), byte, CHUNK, CHUNK, 0), -ESTALE);
	stage_close(volume_stage(reader));
	world_end(&world);
}

Test(volume, a_following_reader_moves_on)
{
	struct volume_options how = { .follow = true,
				      .refresh_interval = 5 * CLOCK_MS };
	struct world world;
	struct volume *reader;
	uint8_t byte[64 * KIB];
	unsigned int i;

	world_begin(&world, 2000 * CHUNK, CHUNK);
	reader = open_reader(&world, &how);
	world_write(&world, 1, 6);
	cr_assert_eq(stage_flush(world.stage), 0);
	for (i = 0; i < 20000; i++) {
		cr_assert_eq(stage_read(volume_stage(reader), byte, CHUNK, CHUNK, 0), 0);
		if (byte[9] == 6)
			break;
		usleep(1000);
	}
	cr_assert_eq(byte[9], 6);
	stage_close(volume_stage(reader));
	world_end(&world);
}

/* What a reader that follows was doing when its volume shrank. */
struct late_read {
	struct request request;
	struct iovec iov;
	sem_t done;
	int error;
	uint8_t bytes[64 * KIB];
};

static void late_read_done(struct request *request, void *context, int error)
{
	struct late_read *read = context;

	read->error = error;
	sem_post(&read->done);
}

Test(volume, a_read_beyond_the_end_of_a_volume_that_shrank_is_an_error)
{
	struct volume_options how = { .follow = true,
				      .refresh_interval = 5 * CLOCK_MS };
	struct late_read *late = calloc(1, sizeof(*late));
	struct world world;
	struct volume *reader;
	uint32_t i;

	world_begin(&world, 5000 * CHUNK, CHUNK);
	for (i = 0; i < 600; i++)	/* more than recent holds: there are nodes */
		world_write(&world, 1100 + i, 5);
	cr_assert_eq(stage_flush(world.stage), 0);
	reader = open_reader(&world, &how);
	atomic_store(&volume_store(reader)->retry_for, 30 * CLOCK_SECOND);
	fault_add(world.fault, &(struct fault_rule){ .op = STORE_GET, .prefix = "map/",
		.kind = FAULT_HANG });
	late->iov = (struct iovec){ late->bytes, CHUNK };
	sem_init(&late->done, 0, 0);
	request_init(&late->request, REQUEST_READ, 1300 * CHUNK, CHUNK, late_read_done,
		     late);
	late->request.iov = &late->iov;
	late->request.nr_iov = 1;
	stage_submit(volume_stage(reader), &late->request);
	cr_assert(fault_wait_held(world.fault, 1));
	fault_clear(world.fault);
	cr_assert_eq(volume_resize(world.volume, 10 * CHUNK), 0);
	for (i = 0; i < 20000 && stage_size(volume_stage(reader)) != 10 * CHUNK; i++)
		usleep(1000);
	cr_assert_eq(stage_size(volume_stage(reader)), 10 * CHUNK);
	fault_release(world.fault);
	while (sem_wait(&late->done) < 0)
		;
	cr_assert_eq(late->error, -EIO, "neither zeros nor another chunk's bytes");
	stage_close(volume_stage(reader));
	sem_destroy(&late->done);
	free(late);
	world_end(&world);
}

Test(volume, a_following_reader_does_not_move_on_into_a_copy_that_is_not_complete)
{
	struct volume_options how = { .follow = true,
				      .refresh_interval = 5 * CLOCK_MS };
	struct world world;
	struct volume *reader;
	uint8_t byte[64 * KIB];

	world_begin(&world, 2000 * CHUNK, CHUNK);
	world_write(&world, 1, 5);
	cr_assert_eq(stage_flush(world.stage), 0);
	reader = open_reader(&world, &how);
	world_close(&world);
	world.store = fault_client(world.fault);
	cr_assert_eq(volume_set_incomplete(world.store, &(struct claim_options){ 0 }), 0);
	store_close(world.store);
	world.options.accept_incomplete = true;
	world_open(&world);
	world_write(&world, 1, 6);
	cr_assert_eq(stage_flush(world.stage), 0);
	usleep(100000);
	cr_assert_eq(stage_read(volume_stage(reader), byte, CHUNK, CHUNK, 0), 0);
	cr_assert_eq(byte[9], 5, "half a copy is shown to nobody");
	cr_assert_eq(volume_set_complete(world.volume), 0);
	for (unsigned int i = 0; i < 20000 && byte[9] != 6; i++) {
		usleep(1000);
		cr_assert_eq(stage_read(volume_stage(reader), byte, CHUNK, CHUNK, 0), 0);
	}
	cr_assert_eq(byte[9], 6);
	stage_close(volume_stage(reader));
	world_end(&world);
}

Test(volume, what_a_follower_misses_of_the_last_whole_image_is_an_error)
{
	struct volume_options how = { .follow = true,
				      .refresh_interval = CLOCK_SECOND * 1000 };
	struct world world;
	struct volume *reader;
	uint8_t byte[64 * KIB];

	world_begin(&world, 2000 * CHUNK, CHUNK);
	world_write(&world, 1, 5);
	cr_assert_eq(stage_flush(world.stage), 0);
	reader = open_reader(&world, &how);
	world_close(&world);
	world.store = fault_client(world.fault);
	cr_assert_eq(volume_set_incomplete(world.store, &(struct claim_options){ 0 }), 0);
	store_close(world.store);
	lose(&world, "chunk/");
	cr_assert_eq(stage_read(volume_stage(reader), byte, CHUNK, CHUNK, 0), -ESTALE);
	stage_close(volume_stage(reader));
	world_end(&world);
}

Test(volume, a_snapshot_reads_as_the_volume_was)
{
	struct volume_options how = { .snapshot = "then" };
	struct world world;
	struct volume *reader;
	uint8_t byte[64 * KIB];

	world_begin(&world, 2000 * CHUNK, CHUNK);
	world_write(&world, 1, 5);
	cr_assert_eq(stage_flush(world.stage), 0);
	cr_assert_eq(volume_snapshot_create(world.store, "then", NULL), 0);
	world_write(&world, 1, 6);
	cr_assert_eq(stage_flush(world.stage), 0);
	reader = open_reader(&world, &how);
	cr_assert_eq(stage_read(volume_stage(reader), byte, CHUNK, CHUNK, 0), 0);
	cr_assert_eq(byte[9], 5);
	stage_close(volume_stage(reader));
	cr_assert(world_reads(&world, 1, 6));
	world_end(&world);
}

Test(volume, an_incomplete_copy_opens_only_for_who_goes_on_with_it)
{
	const struct volume_create_options create = { .size = GIB, .incomplete = true };
	struct volume_options how = { .writable = true };
	struct bucket *bucket = bucket_open();
	struct store *first = bucket_client(bucket, "vol");
	struct store *second = bucket_client(bucket, "vol");
	struct volume *volume;

	log_open("/dev/null", LOG_LEVEL_ERROR);
	cr_assert_eq(volume_create(first, &create), 0);
	cr_assert_eq(volume_open(first, &how, &volume), -EUCLEAN);
	how.writable = false;
	cr_assert_eq(volume_open(first, &how, &volume), -EUCLEAN);
	how.writable = how.accept_incomplete = true;
	cr_assert_eq(volume_open(second, &how, &volume), 0);
	cr_assert_eq(volume_set_complete(volume), 0);
	stage_close(volume_stage(volume));
	how.accept_incomplete = false;
	cr_assert_eq(volume_open(first, &how, &volume), 0);
	stage_close(volume_stage(volume));
	bucket_close(bucket);
}

/* ---- replaced objects ------------------------------------------------------------------ */

static unsigned int objects(struct world *world, const char *prefix)
{
	struct store *store = fault_client(world->fault);
	struct store_request list = { .key = prefix, .cause = CAUSE_GC };
	unsigned int nr;

	cr_assert_eq(store_wait(store, STORE_LIST, &list), STORE_DONE);
	nr = list.reply.listing.nr_entries;
	store_listing_free(&list.reply.listing);
	store_close(store);
	return nr;
}

/* Waits at most 20 s for deletions. */
static bool objects_become(struct world *world, const char *prefix, unsigned int nr)
{
	unsigned int i;

	for (i = 0; i < 2000 && objects(world, prefix) != nr; i++)
		usleep(10000);
	return i < 2000;
}

Test(volume, what_a_commit_replaced_is_deleted_unless_a_snapshot_holds_it)
{
	struct world world;
	unsigned int i;

	world_begin(&world, 2000 * CHUNK, CHUNK);
	world.options.grace = 0;
	world_reopen(&world);
	for (i = 1; i < 6; i++) {
		world_write(&world, 1, (uint8_t)i);
		cr_assert_eq(stage_flush(world.stage), 0);
	}
	cr_assert(objects_become(&world, "chunk/", 1));
	cr_assert_eq(volume_snapshot_create(world.store, "then", NULL), 0);
	world_write(&world, 1, 7);
	cr_assert_eq(stage_flush(world.stage), 0);
	world_write(&world, 1, 8);
	cr_assert_eq(stage_flush(world.stage), 0);
	cr_assert(objects_become(&world, "chunk/", 2));	/* 5, held, and 8 */
	cr_assert(world_reads(&world, 1, 8));
	world_end(&world);
}

Test(volume, more_than_one_request_can_delete_goes_without_another_commit)
{
	struct world world;
	uint32_t round, i;

	world_begin_with(&world, 2000 * CHUNK, CHUNK,
			 &(struct volume_options){ .pending_limit = 1 * GIB });
	world.options.grace = 0;
	world_reopen(&world);
	for (round = 1; round < 3; round++) {
		for (i = 0; i < STORE_DELETE_MAX + 100; i++)
			world_write(&world, i, (uint8_t)round);
		cr_assert_eq(stage_flush(world.stage), 0);
	}
	for (i = 0; i < 2000 && fault_count(world.fault, STORE_DELETE, "chunk/") < 2; i++)
		usleep(10000);
	cr_assert_eq(fault_count(world.fault, STORE_DELETE, "chunk/"), 2);
	world_end(&world);
}

Test(volume, within_the_grace_period_nothing_is_deleted)
{
	struct world world;
	unsigned int i;

	world_begin(&world, 2000 * CHUNK, CHUNK);
	for (i = 1; i < 6; i++) {
		world_write(&world, 1, (uint8_t)i);
		cr_assert_eq(stage_flush(world.stage), 0);
	}
	usleep(50000);
	cr_assert_eq(objects(&world, "chunk/"), 5);
	cr_assert_eq(fault_count(world.fault, STORE_DELETE, "chunk/"), 0);
	world_end(&world);
}

/* ---- a new size -------------------------------------------------------------------------- */

static void resize_round(uint64_t large, uint64_t small)
{
	struct world world;
	uint32_t last = (uint32_t)(small - 1);

	world_begin(&world, large * CHUNK, CHUNK);
	world_write(&world, 0, 1);
	world_write(&world, last, 2);
	world_write(&world, (uint32_t)small, 3);
	world_write(&world, (uint32_t)large - 1, 4);
	cr_assert_eq(stage_flush(world.stage), 0);
	world_write(&world, (uint32_t)large - 2, 5);	/* pending when it shrinks */
	/* Half of chunk `last` goes. */
	cr_assert_eq(volume_resize(world.volume, last * CHUNK + CHUNK / 2), 0);
	cr_assert_eq(stage_size(world.stage), last * CHUNK + CHUNK / 2);
	cr_assert(world_reads(&world, 0, 1));
	cr_assert(world_reads(&world, last, 2));
	world_reopen(&world);
	cr_assert(world_reads(&world, last, 2));
	cr_assert_eq(volume_resize(world.volume, large * CHUNK), 0);
	cr_assert(world_reads(&world, 0, 1));
	cr_assert(world_reads(&world, (uint32_t)small, 0));
	cr_assert(world_reads(&world, (uint32_t)large - 1, 0));
	cr_assert(world_reads(&world, (uint32_t)large - 2, 0));
	{
		uint8_t half[64 * KIB];
		cr_assert_eq(stage_read(world.stage, half, CHUNK, last * CHUNK, 0), 0);
		cr_assert_eq(half[CHUNK / 2 - 1], 2);
		cr_assert(half[CHUNK / 2] == 0 && half[CHUNK - 1] == 0);
	}
	world_write(&world, (uint32_t)large - 1, 6);
	cr_assert_eq(stage_flush(world.stage), 0);
	world_reopen(&world);
	cr_assert(world_reads(&world, 0, 1));
	cr_assert(world_reads(&world, (uint32_t)small, 0));
	cr_assert(world_reads(&world, (uint32_t)large - 1, 6));
	world_end(&world);
}

Test(volume, shrink_then_grow_reads_zeros_within_a_level)
{
	resize_round(900, 300);
	resize_round(9000, 3000);
	resize_round(9000, 3072);
}

Test(volume, shrink_then_grow_reads_zeros_over_level_borders)
{
	resize_round(5000, 300);
	resize_round(5000, 1024);
	resize_round(3 << 20, 5000);
	resize_round(3 << 20, 1000);
	resize_round(3 << 20, 1 << 20);
	resize_round((3 << 20) + 77, (2 << 20) + 1);
}

/* Reads and writes the last bytes that it knows of, over and over. */
struct tail {
	struct stage *top;
	atomic_bool stop;
	atomic_uint nr;
	unsigned int nr_failed;
};

static void *use_tail(void *context)
{
	struct tail *tail = context;
	char bytes[512];
	uint64_t size;

	memset(bytes, 7, sizeof(bytes));
	for (; !atomic_load(&tail->stop); atomic_fetch_add(&tail->nr, 1)) {
		size = stage_size(tail->top);
		tail->nr_failed += stage_write(tail->top, bytes, sizeof(bytes),
					       size - sizeof(bytes), 0) != 0;
		size = stage_size(tail->top);
		tail->nr_failed += stage_read(tail->top, bytes, sizeof(bytes),
					      size - sizeof(bytes), 0) != 0;
	}
	return NULL;
}

Test(volume, its_end_is_read_and_written_while_it_grows)
{
	uint64_t size = 10 * CHUNK + CHUNK / 2;
	struct tail tail = { 0 };
	struct stage *chunked;
	struct world world;
	pthread_t thread;
	unsigned int i, nr;

	world_begin(&world, size, CHUNK);
	cr_assert_eq(chunked_open(world.stage, &chunked), 0);
	cr_assert_eq(arbitrary_open(chunked, &tail.top), 0);
	pthread_create(&thread, NULL, use_tail, &tail);
	for (i = 1; i < 500; i++) {
		cr_assert_eq(volume_resize(world.volume, size + 512 * i), 0);
		stage_resized(tail.top, size + 512 * i);
		/* Nothing is under way any more that knows an older end. */
		for (nr = atomic_load(&tail.nr); atomic_load(&tail.nr) < nr + 2;)
			usleep(50);
	}
	atomic_store(&tail.stop, true);
	pthread_join(thread, NULL);
	cr_assert_eq(tail.nr_failed, 0, "%u of %u", tail.nr_failed,
		     atomic_load(&tail.nr));
	world.stage = tail.top;
	world_end(&world);
}

Test(volume, shrinking_a_folded_map_leaves_nothing_behind)
{
	struct world world;
	uint32_t i;

	world_begin(&world, 5000 * CHUNK, CHUNK);
	for (i = 0; i < 2000; i++)
		world_write(&world, i * 2 + 1, 7);
	cr_assert_eq(stage_flush(world.stage), 0);
	cr_assert_eq(volume_resize(world.volume, 1500 * CHUNK), 0);
	cr_assert_eq(volume_resize(world.volume, 5000 * CHUNK), 0);
	world_reopen(&world);
	for (i = 0; i < 4000; i++)
		cr_assert(world_reads(&world, i, i % 2 && i < 1500 ? 7 : 0), "%u", i);
	cr_assert_eq(volume_resize(world.volume, 100 * CHUNK), 0);
	cr_assert_eq(volume_resize(world.volume, 5000 * CHUNK), 0);
	world_reopen(&world);
	for (i = 0; i < 4000; i++)
		cr_assert(world_reads(&world, i, i % 2 && i < 100 ? 7 : 0), "%u", i);
	world_end(&world);
}

/* ---- clones --------------------------------------------------------------------------- */

static struct volume *open_in(struct bucket *bucket, const char *prefix)
{
	struct volume_options how = { .writable = true };	/* grace 0 */
	struct store *store = bucket_client(bucket, prefix);
	struct volume *volume;

	atomic_store(&store->retry_for, CLOCK_SECOND);
	cr_assert_eq(volume_open(store, &how, &volume), 0);
	return volume;
}

Test(volume, a_clone_reads_its_parents_chunks_and_nodes_and_deletes_none)
{
	const struct volume_create_options create = { .size = 2000 * CHUNK,
						      .chunk_size = CHUNK };
	struct bucket *bucket = bucket_open();
	struct store *parent, *clone;
	struct world world = { .chunk_size = CHUNK };
	unsigned int kept;
	uint32_t i;

	log_open("/dev/null", LOG_LEVEL_ERROR);
	parent = bucket_client(bucket, "parent");
	cr_assert_eq(volume_create(parent, &create), 0);
	world.volume = open_in(bucket, "parent");
	world.stage = volume_stage(world.volume);
	for (i = 1; i < 600; i++)
		world_write(&world, i, 3);
	cr_assert_eq(stage_flush(world.stage), 0);
	world_close(&world);
	cr_assert_eq(volume_snapshot_create(parent, "then", NULL), 0);
	clone = bucket_client(bucket, "clone");
	cr_assert_eq(volume_clone(parent, "parent", "then", clone, "clone", NULL), 0);
	kept = bucket_count(bucket, "parent/chunk/");

	world.volume = open_in(bucket, "clone");
	world.stage = volume_stage(world.volume);
	for (i = 1; i < 600; i++)
		cr_assert(world_reads(&world, i, 3), "%u", i);
	for (i = 1; i < 550; i++)
		world_write(&world, i, 4);
	cr_assert_eq(stage_flush(world.stage), 0);
	for (i = 1; i < 600; i++)
		cr_assert(world_reads(&world, i, i < 550 ? 4 : 3), "%u", i);
	world_close(&world);
	cr_assert_eq(bucket_count(bucket, "parent/chunk/"), kept);
	cr_assert_eq(bucket_count(bucket, "clone/chunk/"), 549);
	store_close(clone);
	store_close(parent);
	bucket_close(bucket);
}
