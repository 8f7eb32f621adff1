/* test-stage.c: the doorway: what it refuses, holds back, counts and drains. */
#include <criterion/criterion.h>
#include <errno.h>
#include <pthread.h>
#include <unistd.h>

#include "src/place.h"
#include "tests/stage/call.h"
#include "tests/stage/fault_stage.h"

#define SIZE 100000u

static struct stage *stage;		/* a held fault stage over memory */
static char buffer[SIZE];

static void open_held(void)
{
	static const struct fault_options options = { .nr_threads = 2 };

	cr_assert_eq(memory_open(SIZE, &stage), 0);
	cr_assert_eq(fault_open(stage, &options, &stage), 0);
	fault_hold(stage);
}

static void close_stage(void)
{
	fault_release(stage);
	stage_close(stage);
}

TestSuite(stage, .init = open_held, .fini = close_stage, .timeout = 120);

Test(stage, what_is_outside_is_refused)
{
	struct extent extent;
	struct extent_list list = { &extent, 1, 0 };

	cr_expect_eq(stage_read(stage, buffer, 2, SIZE - 1, 0), -EINVAL);
	cr_expect_eq(stage_write(stage, buffer, 1, SIZE, 0), -EINVAL);
	cr_expect_eq(stage_zero(stage, UINT64_MAX, 1, 0), -EINVAL);
	cr_expect_eq(stage_trim(stage, 1, UINT64_MAX, 0), -EINVAL);
	cr_expect_eq(stage_extents(stage, SIZE + 1, 0, &list), -EINVAL);
	cr_expect_eq(stage_extents(stage, 0, 0, &list), -EINVAL);
	cr_expect_eq(stage->next->counters.requests[REQUEST_READ], 0);
}

Test(stage, flags_must_fit_the_operation)
{
	cr_expect_eq(stage_read(stage, buffer, 1, 0, REQUEST_FUA), -EINVAL);
	cr_expect_eq(stage_write(stage, buffer, 1, 0, REQUEST_MAY_TRIM), -EINVAL);
	cr_expect_eq(stage_trim(stage, 1, 0, REQUEST_FAST_ZERO), -EINVAL);
	cr_expect_eq(stage_zero(stage, 1, 0, 1 << 10), -EINVAL);
	cr_expect_eq(stage->counters.errors, 4);
}

Test(stage, an_empty_request_ends_at_once_and_reaches_nobody)
{
	cr_expect_eq(stage_read(stage, buffer, 0, SIZE, 0), 0);
	cr_expect_eq(stage_write(stage, buffer, 0, 7, 0), 0);
	cr_expect_eq(fault_held(stage), 0);
}

Test(stage, a_read_only_stage_refuses_changes)
{
	struct stage *pattern;

	cr_assert_eq(pattern_open(SIZE, &pattern), 0);
	cr_expect_eq(stage_write(pattern, buffer, 8, 0, 0), -EROFS);
	cr_expect_eq(stage_zero(pattern, 8, 0, 0), -EROFS);
	cr_expect_eq(stage_trim(pattern, 8, 0, 0), -EROFS);
	cr_expect_eq(stage_read(pattern, buffer, 8, 0, 0), 0);
	cr_expect_eq(stage_flush(pattern), 0);
	stage_close(pattern);
}

/* Keeps the order in which writes of one byte reach memory. */
static unsigned int order[64];
static atomic_uint nr_ordered;

static void note_order(struct request *request, void *context, int error)
{
	order[atomic_fetch_add(&nr_ordered, 1)] = (unsigned int)request->offset;
	sem_post(context);
}

Test(stage, no_more_requests_are_let_in_than_the_limit_says)
{
	struct call calls[10];

	cr_assert_eq(stage_limit(stage, 3, 0), 0);
	for (unsigned int i = 0; i < 10; i++)
		call_start(&calls[i], stage, REQUEST_WRITE, buffer + i, 1, i, 0);
	cr_expect_eq(fault_held(stage), 3);
	cr_expect_eq(stage_in_flight(stage), 10);
	fault_release(stage);
	for (unsigned int i = 0; i < 10; i++) {
		cr_expect_eq(call_wait(&calls[i]), 0);
		cr_expect_eq(calls[i].nr_completions, 1);
	}
	cr_expect_leq(fault_most_held(stage), 3);
}

Test(stage, no_more_bytes_are_let_in_than_the_limit_says)
{
	struct call calls[5];

	cr_assert_eq(stage_limit(stage, 0, 10000), 0);
	for (unsigned int i = 0; i < 5; i++)
		call_start(&calls[i], stage, REQUEST_WRITE, buffer, 4000, i * 4000, 0);
	cr_expect_eq(fault_held(stage), 2);
	fault_release(stage);
	for (unsigned int i = 0; i < 5; i++)
		cr_expect_eq(call_wait(&calls[i]), 0);
}

Test(stage, one_request_alone_passes_any_limit)
{
	fault_release(stage);
	cr_assert_eq(stage_limit(stage, 1, 10), 0);
	cr_expect_eq(stage_write(stage, buffer, SIZE, 0, 0), 0);
}

Test(stage, over_the_limit_nowait_is_eagain_and_leaves_no_trace)
{
	struct call first;

	cr_assert_eq(stage_limit(stage, 1, 0), 0);
	call_start(&first, stage, REQUEST_WRITE, buffer, 1, 0, 0);
	cr_expect_eq(stage_read(stage, buffer, 1, 0, REQUEST_NOWAIT), -EAGAIN);
	cr_expect_eq(stage_in_flight(stage), 1);
	fault_release(stage);
	cr_expect_eq(call_wait(&first), 0);
}

Test(stage, who_waits_for_a_limit_is_served_in_arrival_order)
{
	struct request requests[40];
	struct iovec iov = { buffer, 1 };
	sem_t done;

	cr_assert_eq(stage_limit(stage, 1, 0), 0);
	sem_init(&done, 0, 0);
	for (unsigned int i = 0; i < 40; i++) {
		request_init(&requests[i], REQUEST_WRITE, i, 1, note_order, &done);
		requests[i].iov = &iov;
		requests[i].nr_iov = 1;
		stage_submit(stage, &requests[i]);
	}
	fault_release(stage);
	for (unsigned int i = 0; i < 40; i++)
		sem_wait(&done);
	for (unsigned int i = 0; i < 40; i++)
		cr_expect_eq(order[i], i);
}

static void complete_at_once(struct stage *self, struct request *request)
{
	request_complete(request, 0);
}

Test(stage, a_long_queue_that_completes_at_once_does_not_nest)
{
	static struct request requests[1000];
	static struct depth depth;
	const struct stage_ops *ops = stage->ops;
	struct stage_ops quick = *ops;
	struct call first;

	sem_init(&depth.done, 0, 0);
	quick.prefetch = complete_at_once;
	stage->ops = &quick;
	cr_assert_eq(stage_limit(stage, 1, 0), 0);
	call_start(&first, stage, REQUEST_WRITE, buffer, 1, 0, 0);
	for (unsigned int i = 0; i < 1000; i++) {
		request_init(&requests[i], REQUEST_PREFETCH, 0, 1, depth_note, &depth);
		stage_submit(stage, &requests[i]);
	}
	fault_release(stage);
	for (unsigned int i = 0; i < 1000; i++)
		sem_wait(&depth.done);
	cr_expect_eq(call_wait(&first), 0);
	cr_expect_lt(depth.highest - depth.lowest, 4096);
	stage_drain(stage);
	stage->ops = ops;
}

Test(stage, a_cancelled_request_in_the_queue_still_completes)
{
	struct call first, second;

	cr_assert_eq(stage_limit(stage, 1, 0), 0);
	call_start(&first, stage, REQUEST_WRITE, buffer, 1, 0, 0);
	call_start(&second, stage, REQUEST_WRITE, buffer, 1, 1, 0);
	request_cancel(&second.request);
	cr_expect(!call_is_done(&second));
	fault_release(stage);
	cr_expect_eq(call_wait(&first), 0);
	cr_expect_eq(call_wait(&second), -ECANCELED);
	cr_expect_eq(stage->next->counters.requests[REQUEST_WRITE], 1);
}

Test(stage, a_request_is_cancelled_with_its_parent)
{
	struct request parent, child;

	request_init(&parent, REQUEST_READ, 0, 1, NULL, NULL);
	request_init(&child, REQUEST_READ, 0, 1, NULL, NULL);
	parent.priority = PRIORITY_PUSH;
	parent.deadline = 77;
	parent.stream = 5;
	request_inherit(&child, &parent);
	cr_expect_eq(child.priority, PRIORITY_PUSH);
	cr_expect_eq(child.deadline, 77);
	cr_expect_eq(child.stream, 5);
	cr_expect(!request_is_cancelled(&child));
	request_cancel(&parent);
	cr_expect(request_is_cancelled(&child));
}

static void *release_soon(void *context)
{
	usleep(30000);
	fault_release(context);
	return NULL;
}

Test(stage, a_drain_waits_for_what_is_in_flight_and_refuses_the_rest)
{
	struct call calls[4];
	pthread_t thread;

	cr_assert_eq(stage_limit(stage, 2, 0), 0);
	for (unsigned int i = 0; i < 4; i++)
		call_start(&calls[i], stage, REQUEST_WRITE, buffer, 1, i, 0);
	pthread_create(&thread, NULL, release_soon, stage);
	stage_drain(stage);
	for (unsigned int i = 0; i < 4; i++) {
		cr_expect(call_is_done(&calls[i]));
		cr_expect_eq(call_wait(&calls[i]), 0);
	}
	cr_expect_eq(stage_in_flight(stage), 0);
	cr_expect_eq(stage_read(stage, buffer, 1, 0, 0), -ESHUTDOWN);
	stage_drain(stage);		/* once more does no harm */
	pthread_join(thread, NULL);
}

Test(stage, counters_count_requests_bytes_and_errors)
{
	fault_release(stage);
	cr_expect_eq(stage_write(stage, buffer, 100, 0, 0), 0);
	cr_expect_eq(stage_write(stage, buffer, 50, 0, 0), 0);
	fault_fail(stage, 1, 0, -EIO);
	cr_expect_eq(stage_read(stage, buffer, 10, 0, 0), -EIO);
	cr_expect_eq(stage->counters.requests[REQUEST_WRITE], 2);
	cr_expect_eq(stage->counters.bytes[REQUEST_WRITE], 150);
	cr_expect_eq(stage->counters.bytes[REQUEST_READ], 10);
	cr_expect_eq(stage->counters.errors, 1);
}

Test(stage, a_prefetch_reports_no_error)
{
	struct call call;

	fault_release(stage);
	fault_fail(stage, 1, 0, -EIO);
	call_start(&call, stage, REQUEST_PREFETCH, NULL, 10, 0, 0);
	cr_expect_eq(call_wait(&call), 0);
	cr_expect_eq(stage->counters.errors, 0);
}

Test(stage, a_resize_reaches_every_stage)
{
	stage_resized(stage, SIZE / 2);
	cr_expect_eq(stage_size(stage->next), SIZE / 2);
	cr_expect_eq(stage_read(stage, buffer, 1, SIZE / 2, 0), -EINVAL);
}

Test(stage, an_extent_list_joins_what_is_alike_and_refuses_what_is_too_much)
{
	struct extent extents[2];
	struct extent_list list = { extents, 2, 0 };

	cr_expect(extent_list_add(&list, 10, EXTENT_HOLE));
	cr_expect(extent_list_add(&list, 5, EXTENT_HOLE));
	cr_expect(extent_list_add(&list, 1, 0));
	cr_expect(!extent_list_add(&list, 1, EXTENT_HOLE));
	cr_expect(extent_list_add(&list, 1, 0));
	cr_expect_eq(extents[0].count, 15);
	cr_expect_eq(extents[1].count, 2);
}
