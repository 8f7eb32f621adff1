/* test-arbitrary.c: what arbitrary asks of the next stage, and what it does
 * when that fails, is slow, or answers in any order. */
#include <criterion/criterion.h>
#include <errno.h>
#include <pthread.h>
#include <string.h>

#include "src/place.h"
#include "src/random.h"
#include "tests/stage/call.h"
#include "tests/stage/fault_stage.h"

#define FRAME	65536u
#define CHUNK	(1024u * 1024)
#define SIZE	(8u * CHUNK + 1000)

static struct stage *memory, *fault, *top;
static char buffer[SIZE], got[SIZE];

static void open_over(const struct fault_options *options)
{
	cr_assert_eq(memory_open(SIZE, &memory), 0);
	cr_assert_eq(fault_open(memory, options, &fault), 0);
	cr_assert_eq(chunked_open(fault, &top), 0);
	cr_assert_eq(arbitrary_open(top, &top), 0);
	for (unsigned int i = 0; i < SIZE; i++)
		buffer[i] = (char)(i * 7 + i / 1000);
}

static void open_chunks(void)
{
	static const struct fault_options options = {
		.read_unit = FRAME, .write_unit = CHUNK, .preferred = CHUNK,
		.max_request = CHUNK, .clear_flags = STAGE_NATIVE_FUA,
	};

	open_over(&options);
}

static void open_slow_chunks(void)
{
	static const struct fault_options options = {
		.seed = 9, .read_unit = FRAME, .write_unit = CHUNK,
		.preferred = CHUNK, .max_request = CHUNK, .nr_threads = 3,
		.max_delay_us = 50, .clear_flags = STAGE_NATIVE_FUA,
	};

	open_over(&options);
}

static void close_top(void)
{
	stage_close(top);
}

static unsigned int nr(enum request_op op)
{
	return (unsigned int)fault->counters.requests[op];
}

/* ---- what is asked of the next stage ------------------------------------------- */

TestSuite(arbitrary, .init = open_chunks, .fini = close_top, .timeout = 120);

Test(arbitrary, a_write_of_a_whole_chunk_reads_nothing)
{
	cr_expect_eq(stage_write(top, buffer, CHUNK, CHUNK, 0), 0);
	cr_expect_eq(nr(REQUEST_READ), 0);
	cr_expect_eq(nr(REQUEST_WRITE), 1);
	/* The part of a chunk at the end of the device is whole too. */
	cr_expect_eq(stage_write(top, buffer, CHUNK + 1000, 7 * CHUNK, 0), 0);
	cr_expect_eq(nr(REQUEST_READ), 0);
	cr_expect_eq(nr(REQUEST_WRITE), 3);
}

static const void *seen_buffer;

static void look_at_buffer(struct stage *stage, struct request *request)
{
	seen_buffer = request->iov[0].iov_base;
	request_complete(request, 0);
}

Test(arbitrary, whole_chunks_are_written_from_the_callers_own_buffer)
{
	const struct stage_ops *ops = fault->ops;
	struct stage_ops spying = *ops;

	spying.write = look_at_buffer;
	fault->ops = &spying;
	cr_expect_eq(stage_write(top, buffer + 5, CHUNK, 2 * CHUNK, 0), 0);
	cr_expect_eq(seen_buffer, buffer + 5);
	fault->ops = ops;
}

Test(arbitrary, a_write_to_a_part_reads_and_writes_one_chunk)
{
	cr_expect_eq(stage_write(top, buffer, 10, 100, 0), 0);
	cr_expect_eq(nr(REQUEST_READ), 1);
	cr_expect_eq(nr(REQUEST_WRITE), 1);
	cr_expect_eq(fault->counters.bytes[REQUEST_WRITE], CHUNK);
}

Test(arbitrary, a_rewrite_of_one_end_reads_only_the_other)
{
	cr_expect_eq(stage_write(top, buffer, CHUNK - FRAME, 0, 0), 0);
	cr_expect_eq(fault->counters.bytes[REQUEST_READ], FRAME);
	cr_expect_eq(stage_write(top, buffer, CHUNK - 10, CHUNK + 10, 0), 0);
	cr_expect_eq(fault->counters.bytes[REQUEST_READ], 2 * FRAME);
}

Test(arbitrary, a_read_is_rounded_out_to_frames_not_to_chunks)
{
	cr_expect_eq(stage_read(top, got, 10, FRAME + 5, 0), 0);
	cr_expect_eq(nr(REQUEST_READ), 1);
	cr_expect_eq(fault->counters.bytes[REQUEST_READ], FRAME);
	cr_expect_eq(stage_read(top, got, 10, FRAME - 5, 0), 0);
	cr_expect_eq(fault->counters.bytes[REQUEST_READ], 3 * FRAME);
	cr_expect_eq(nr(REQUEST_READ), 2);
}

Test(arbitrary, zeros_and_trims_of_many_chunks_are_one_request)
{
	cr_expect_eq(stage_zero(top, SIZE, 0, 0), 0);
	cr_expect_eq(nr(REQUEST_ZERO), 1);
	cr_expect_eq(stage_zero(top, 6 * CHUNK, 100, 0), 0);
	cr_expect_eq(nr(REQUEST_ZERO), 2);
	cr_expect_eq(nr(REQUEST_WRITE), 2);	/* head and tail */
	cr_expect_eq(fault->counters.bytes[REQUEST_ZERO], SIZE + 5ull * CHUNK);
	cr_expect_eq(stage_trim(top, 6 * CHUNK, 100, 0), 0);
	cr_expect_eq(nr(REQUEST_TRIM), 1);
	cr_expect_eq(nr(REQUEST_WRITE), 2);
	cr_expect_eq(fault->counters.bytes[REQUEST_TRIM], 5 * CHUNK);
	cr_expect_eq(stage_trim(top, 100, 100, 0), 0);
	cr_expect_eq(nr(REQUEST_TRIM), 1);
}

Test(arbitrary, a_part_is_no_fast_zero)
{
	cr_expect_eq(stage_zero(top, 100, 100, REQUEST_FAST_ZERO), -EOPNOTSUPP);
	cr_expect_eq(nr(REQUEST_WRITE), 0);
	cr_expect_eq(stage_zero(top, CHUNK, CHUNK, REQUEST_FAST_ZERO), 0);
}

Test(arbitrary, fua_of_a_cut_write_is_one_flush_after_the_pieces)
{
	cr_expect_eq(stage_write(top, buffer, 3 * CHUNK, 10, REQUEST_FUA), 0);
	cr_expect_eq(nr(REQUEST_FLUSH), 1);
	cr_expect_eq(stage_write(top, buffer, 3 * CHUNK, 10, 0), 0);
	cr_expect_eq(nr(REQUEST_FLUSH), 1);
	fault_fail(fault, 1, 1 << REQUEST_FLUSH, -EIO);
	cr_expect_eq(stage_write(top, buffer, 3 * CHUNK, 10, REQUEST_FUA), -EIO);
	cr_expect_eq(stage_write(top, buffer, CHUNK, 0, REQUEST_FUA), -EIO);
	cr_expect_eq(stage_zero(top, 10, 0, REQUEST_FUA), -EIO);
	cr_expect_eq(stage_write(top, buffer, 3 * CHUNK, 10, 0), 0);
}

Test(arbitrary, an_error_of_any_piece_reaches_the_caller)
{
	fault_fail(fault, 1, 1 << REQUEST_READ, -EIO);
	cr_expect_eq(stage_read(top, got, 10, 10, 0), -EIO);
	cr_expect_eq(stage_read(top, got, 3 * CHUNK, 10, 0), -EIO);
	cr_expect_eq(stage_write(top, buffer, 10, 10, 0), -EIO);
	cr_expect_eq(stage_zero(top, 10, 10, 0), -EIO);
	cr_expect_eq(nr(REQUEST_WRITE), 0);
	fault_fail(fault, 1, 1 << REQUEST_WRITE, -ENOSPC);
	cr_expect_eq(stage_write(top, buffer, 10, 10, 0), -ENOSPC);
	cr_expect_eq(stage_write(top, buffer, 4 * CHUNK, 0, 0), -ENOSPC);
	fault_fail(fault, 0, 0, 0);
	cr_expect_eq(stage_write(top, buffer, 10, 10, 0), 0);	/* no lock was left */
	cr_expect_eq(stage_write(top, buffer, SIZE, 0, 0), 0);
}

Test(arbitrary, without_units_the_request_itself_is_passed_on)
{
	static const struct fault_options options = { 0 };

	stage_close(top);
	open_over(&options);
	cr_expect_eq(stage_write(top, buffer, 3 * CHUNK, 17, 0), 0);
	cr_expect_eq(stage_read(top, got, 3 * CHUNK, 17, 0), 0);
	cr_expect_eq(nr(REQUEST_WRITE), 1);
	cr_expect_eq(nr(REQUEST_READ), 1);
	cr_expect_eq(memcmp(buffer, got, 3 * CHUNK), 0);
}

/* 1 GiB is the longest piece of a device without units. */
Test(arbitrary, who_never_waits_takes_a_change_across_a_border_in_its_slot)
{
	const uint64_t offset = (1u << 30) - CHUNK / 2;
	struct stage *stage;
	struct call call;

	cr_assert_eq(memory_open(2ull << 30, &stage), 0);
	cr_assert_eq(arbitrary_open(stage, &stage), 0);
	cr_assert(stage->geometry.flags & STAGE_NEVER_WAITS);
	call_start(&call, stage, REQUEST_WRITE, buffer, CHUNK, offset, REQUEST_NOWAIT);
	cr_assert(call_is_done(&call));
	cr_assert_eq(call.error, 0);
	cr_assert_eq(stage_read(stage, got, CHUNK, offset, REQUEST_NOWAIT), 0);
	cr_assert_eq(memcmp(got, buffer, CHUNK), 0);
	stage_close(stage);
}

Test(arbitrary, a_rewrite_of_the_last_chunk_goes_on_when_the_device_grows)
{
	static const struct fault_options slow = {
		.read_unit = FRAME, .write_unit = CHUNK, .preferred = CHUNK,
		.max_request = CHUNK, .nr_threads = 1,
	};
	struct call call;

	stage_close(top);
	open_over(&slow);
	stage_resized(top, SIZE - 500);
	fault_hold(fault);
	call_start(&call, top, REQUEST_WRITE, buffer, 10, SIZE - 510, 0);
	stage_resized(top, SIZE);
	fault_release(fault);
	cr_expect_eq(call_wait(&call), 0);
	cr_expect_eq(stage_read(top, got, 510, SIZE - 510, 0), 0);
	cr_expect_eq(memcmp(got, buffer, 10), 0);
	for (unsigned int i = 10; i < 510; i++)
		cr_assert_eq(got[i], 0);
}

Test(chunked, what_is_not_aligned_is_refused)
{
	struct stage *chunked;

	open_chunks();
	chunked = top->next;
	cr_expect_eq(stage_read(chunked, got, FRAME, 1, 0), -EINVAL);
	cr_expect_eq(stage_read(chunked, got, FRAME - 1, 0, 0), -EINVAL);
	cr_expect_eq(stage_write(chunked, buffer, FRAME, 0, 0), -EINVAL);
	cr_expect_eq(stage_zero(chunked, CHUNK, FRAME, 0), -EINVAL);
	cr_expect_eq(stage_trim(chunked, FRAME, 0, 0), -EINVAL);
	cr_expect_eq(stage_read(chunked, got, FRAME, FRAME, 0), 0);
	cr_expect_eq(stage_write(chunked, buffer, 1000, 8 * CHUNK, 0), 0);
	cr_expect_eq(stage_zero(chunked, SIZE - CHUNK, CHUNK, 0), 0);
	close_top();
}

/* ---- many at once ------------------------------------------------------------------- */

TestSuite(arbitrary_slow, .init = open_slow_chunks, .fini = close_top, .timeout = 300);

#define NR_WRITERS  6
#define NR_WRITES   150
#define SLOT	    64

/* Each writer has slots of its own, all writers' in the same two chunks. */
static void *write_slots(void *context)
{
	unsigned int writer = (unsigned int)(uintptr_t)context;
	char slot[SLOT];

	for (unsigned int i = 0; i < NR_WRITES; i++) {
		uint64_t offset = CHUNK - (NR_WRITERS * NR_WRITES / 2) * SLOT +
				  (uint64_t)(i * NR_WRITERS + writer) * SLOT;

		memset(slot, (int)(writer + i * 3 + 1), SLOT);
		if (stage_write(top, slot, SLOT, offset, 0) != 0)
			return (void *)1;
	}
	return NULL;
}

Test(arbitrary_slow, no_update_is_lost_when_many_rewrite_one_chunk)
{
	pthread_t threads[NR_WRITERS];
	uint64_t start = CHUNK - (NR_WRITERS * NR_WRITES / 2) * SLOT;

	for (uintptr_t i = 0; i < NR_WRITERS; i++)
		pthread_create(&threads[i], NULL, write_slots, (void *)i);
	for (unsigned int i = 0; i < NR_WRITERS; i++) {
		void *failed;

		pthread_join(threads[i], &failed);
		cr_expect_null(failed);
	}
	cr_assert_eq(stage_read(top, got, NR_WRITERS * NR_WRITES * SLOT, start, 0), 0);
	for (unsigned int i = 0; i < NR_WRITES; i++)
		for (unsigned int w = 0; w < NR_WRITERS; w++)
			for (unsigned int b = 0; b < SLOT; b++)
				cr_assert_eq(got[(i * NR_WRITERS + w) * SLOT + b],
					     (char)(w + i * 3 + 1));
}

Test(arbitrary_slow, a_rewrite_does_not_undo_a_whole_write_or_zero)
{
	for (unsigned int round = 0; round < 60; round++) {
		struct call part, whole;
		bool zero = round % 2;

		memset(got, (int)round + 1, CHUNK);
		call_start(&part, top, REQUEST_WRITE, buffer, 100, 500, 0);
		call_start(&whole, top, zero ? REQUEST_ZERO : REQUEST_WRITE,
			   zero ? NULL : got, CHUNK, 0, 0);
		cr_assert_eq(call_wait(&part), 0);
		cr_assert_eq(call_wait(&whole), 0);
		cr_assert_eq(stage_read(top, got + CHUNK, CHUNK, 0, 0), 0);
		for (unsigned int i = 0; i < CHUNK; i++) {
			if (i >= 500 && i < 600)
				continue;	/* either may be the later one */
			cr_assert_eq(got[CHUNK + i], zero ? 0 : (char)(round + 1));
		}
	}
}

Test(arbitrary_slow, nowait_on_a_busy_chunk_is_eagain_and_changes_nothing)
{
	struct call busy;

	fault_hold(fault);
	call_start(&busy, top, REQUEST_WRITE, buffer, 10, 10, 0);
	for (unsigned int i = 0; i < 20; i++)
		cr_expect_eq(stage_write(top, buffer, 10, 100, REQUEST_NOWAIT), -EAGAIN);
	cr_expect_eq(stage_write(top, buffer, CHUNK, 0, REQUEST_NOWAIT), -EAGAIN);
	fault_release(fault);
	cr_expect_eq(call_wait(&busy), 0);
	cr_expect_eq(stage_read(top, got, 10, 100, 0), 0);
	for (unsigned int i = 0; i < 10; i++)
		cr_expect_eq(got[i], 0);
}

Test(arbitrary, nowait_with_fua_writes_nothing_where_it_takes_a_flush)
{
	cr_expect_eq(stage_write(top, buffer, CHUNK, 0, REQUEST_NOWAIT | REQUEST_FUA), -EAGAIN);
	cr_expect_eq(stage_write(top, buffer, 10, 10, REQUEST_NOWAIT | REQUEST_FUA), -EAGAIN);
	cr_expect_eq(nr(REQUEST_WRITE), 0);
}

Test(arbitrary_slow, many_waiters_of_one_chunk_do_not_nest)
{
	static struct request requests[1000];
	static struct depth depth;
	struct iovec iov = { buffer, 1 };
	struct call first;

	sem_init(&depth.done, 0, 0);
	fault_hold(fault);
	call_start(&first, top, REQUEST_ZERO, NULL, 1, 0, 0);
	for (unsigned int i = 0; i < 1000; i++) {
		request_init(&requests[i], REQUEST_WRITE, i, 1, depth_note, &depth);
		requests[i].iov = &iov;
		requests[i].nr_iov = 1;
		stage_submit(top, &requests[i]);
		/* What is cancelled ends as soon as it has the lock. */
		request_cancel(&requests[i]);
	}
	fault_release(fault);
	for (unsigned int i = 0; i < 1000; i++)
		sem_wait(&depth.done);
	cr_expect_eq(call_wait(&first), 0);
	cr_expect_lt(depth.highest - depth.lowest, 4096);
}

Test(arbitrary_slow, a_lock_waiter_that_is_cancelled_ends_and_writes_nothing)
{
	struct call first, second, third;

	fault_hold(fault);
	call_start(&first, top, REQUEST_WRITE, buffer, 10, 0, 0);
	call_start(&second, top, REQUEST_WRITE, buffer, 10, 20, 0);
	call_start(&third, top, REQUEST_WRITE, buffer, 10, 40, 0);
	request_cancel(&second.request);
	fault_release(fault);
	cr_expect_eq(call_wait(&first), 0);
	cr_expect_eq(call_wait(&second), -ECANCELED);
	cr_expect_eq(call_wait(&third), 0);
	cr_expect_eq(stage_read(top, got, 10, 20, 0), 0);
	cr_expect_eq(got[3], 0);
}

Test(arbitrary_slow, limits_count_the_chunks_that_are_rewritten)
{
	struct call calls[8];

	cr_assert_eq(stage_limit(top, 0, 2 * CHUNK), 0);
	fault_hold(fault);
	for (unsigned int i = 0; i < 8; i++)
		call_start(&calls[i], top, REQUEST_WRITE, buffer, 1, i * CHUNK + 5, 0);
	cr_expect_eq(fault_held(fault), 2);
	fault_release(fault);
	for (unsigned int i = 0; i < 8; i++)
		cr_expect_eq(call_wait(&calls[i]), 0);
	cr_expect_leq(fault_most_held(fault), 2);
}

Test(arbitrary_slow, under_faults_every_request_ends_once_and_no_good_read_is_wrong)
{
	struct call calls[8];
	struct random random;
	unsigned int nr_failed = 0;

	random_seed(&random, 4);
	cr_assert_eq(stage_write(top, buffer, SIZE, 0, 0), 0);
	fault_fail(fault, 5, 0, -EIO);
	for (unsigned int round = 0; round < 100; round++) {
		for (unsigned int i = 0; i < 8; i++) {
			uint64_t offset = i * CHUNK + random_below(&random, 1000);

			/* The same bytes again: whatever fails, they stay. */
			call_start(&calls[i], top, i % 2 ? REQUEST_READ : REQUEST_WRITE,
				   (i % 2 ? got : buffer) + offset, CHUNK - 2000,
				   offset, 0);
		}
		for (unsigned int i = 0; i < 8; i++) {
			struct request *r = &calls[i].request;
			int error = call_wait(&calls[i]);

			cr_assert(error == 0 || error == -EIO);
			cr_assert_eq(calls[i].nr_completions, 1);
			nr_failed += error != 0;
			if (i % 2 && !error)
				cr_assert_eq(memcmp(got + r->offset, buffer + r->offset,
						    r->count), 0);
		}
	}
	cr_expect_gt(nr_failed, 10);
	fault_fail(fault, 0, 0, 0);
	cr_assert_eq(stage_read(top, got, SIZE, 0, 0), 0);
	cr_expect_eq(memcmp(got, buffer, SIZE), 0);
}
