/* fault_stage.c: delays, reorders, holds and fails requests, seeded. */
#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <unistd.h>

#include "src/random.h"
#include "tests/stage/fault_stage.h"

struct fault {
	struct stage stage;		/* must stay first */
	struct fault_options options;
	pthread_t *threads;
	pthread_mutex_t lock;		/* guards the rest */
	pthread_cond_t wake;
	struct random random;
	struct request *kept;		/* in no order that matters */
	unsigned int nr_kept, most_kept;
	bool held, closing;
	/* Held while memory below is copied: a store replaces an object at once,
	 * so a read of one never meets a write of it half way. */
	pthread_mutex_t store;
};

static struct fault *fault_of(struct stage *stage)
{
	return (struct fault *)stage;
}

static uint64_t draw(struct fault *fault, uint64_t limit)
{
	uint64_t n;

	pthread_mutex_lock(&fault->lock);
	n = random_below(&fault->random, limit);
	pthread_mutex_unlock(&fault->lock);
	return n;
}

/* 0, or the error with which @request shall fail. */
static int fault_of_request(struct fault *fault, const struct request *request)
{
	unsigned int one_in, ops;
	int error;

	pthread_mutex_lock(&fault->lock);
	one_in = fault->options.fail_one_in;
	ops = fault->options.fail_ops;
	error = fault->options.error;
	if (one_in == 0 || (ops && !(ops & 1u << request->op)) ||
	    random_below(&fault->random, one_in) != 0)
		error = 0;
	pthread_mutex_unlock(&fault->lock);
	return error;
}

/* It was carried out below, but its answer is lost. */
static void fault_after(struct request *request, void *context, int error)
{
	struct fault *fault = context;

	request_complete(request, error ? error : fault->options.error);
}

static void keep_error(struct request *request, void *context, int error)
{
	*(int *)context = error;
}

static void pass_on(struct fault *fault, struct request *request)
{
	struct stage *next = fault->stage.next;
	int error = -EIO;

	if (!(next->geometry.flags & STAGE_NEVER_WAITS)) {
		stage_submit(next, request);
		return;
	}
	request_push(request, keep_error, &error);
	pthread_mutex_lock(&fault->store);
	stage_submit(next, request);
	pthread_mutex_unlock(&fault->store);
	request_complete(request, error);
}

static void fault_perform(struct fault *fault, struct request *request)
{
	int error = fault_of_request(fault, request);

	if (error && draw(fault, 2)) {
		request_complete(request, error);
		return;
	}
	if (error)
		request_push(request, fault_after, fault);
	pass_on(fault, request);
}

static struct request *take_any(struct fault *fault)
{
	struct request **place = &fault->kept, *request;

	for (uint64_t n = random_below(&fault->random, fault->nr_kept); n; n--)
		place = &(*place)->next;
	request = *place;
	*place = request->next;
	fault->nr_kept--;
	return request;
}

static void *fault_run(void *context)
{
	struct fault *fault = context;
	struct request *request;
	unsigned int delay;

	pthread_mutex_lock(&fault->lock);
	for (;;) {
		if (!fault->kept || fault->held) {
			if (fault->closing)
				break;
			pthread_cond_wait(&fault->wake, &fault->lock);
			continue;
		}
		request = take_any(fault);
		delay = (unsigned int)random_below(&fault->random,
						   fault->options.max_delay_us + 1ull);
		pthread_mutex_unlock(&fault->lock);
		if (delay)
			usleep(delay);
		fault_perform(fault, request);
		pthread_mutex_lock(&fault->lock);
	}
	pthread_mutex_unlock(&fault->lock);
	return NULL;
}

static void fault_submit(struct stage *stage, struct request *request)
{
	struct fault *fault = fault_of(stage);

	assert(request->op == REQUEST_EXTENTS || request->op == REQUEST_PREFETCH ||
	       request->offset % (request->op == REQUEST_READ ?
			stage->geometry.read_unit : stage->geometry.write_unit) == 0);
	if (fault->options.nr_threads == 0) {
		fault_perform(fault, request);
		return;
	}
	if (request->flags & REQUEST_NOWAIT) {
		if (draw(fault, 2))
			request_complete(request, -EAGAIN);
		else
			pass_on(fault, request);
		return;
	}
	pthread_mutex_lock(&fault->lock);
	request->next = fault->kept;
	fault->kept = request;
	if (++fault->nr_kept > fault->most_kept)
		fault->most_kept = fault->nr_kept;
	pthread_cond_signal(&fault->wake);
	pthread_mutex_unlock(&fault->lock);
}

static void fault_close(struct stage *stage)
{
	struct fault *fault = fault_of(stage);

	pthread_mutex_lock(&fault->lock);
	fault->closing = true;
	pthread_cond_broadcast(&fault->wake);
	pthread_mutex_unlock(&fault->lock);
	for (unsigned int i = 0; i < fault->options.nr_threads; i++)
		pthread_join(fault->threads[i], NULL);
	pthread_cond_destroy(&fault->wake);
	pthread_mutex_destroy(&fault->lock);
	pthread_mutex_destroy(&fault->store);
	free(fault->threads);
	free(fault);
}

static const struct stage_ops fault_ops = {
	.name	  = "fault",
	.read	  = fault_submit,
	.write	  = fault_submit,
	.zero	  = fault_submit,
	.trim	  = fault_submit,
	.flush	  = fault_submit,
	.extents  = fault_submit,
	.prefetch = fault_submit,
	.close	  = fault_close,
};

int fault_open(struct stage *next, const struct fault_options *options,
	       struct stage **stage)
{
	struct fault *fault = calloc(1, sizeof(*fault));
	struct geometry geometry = next->geometry;

	if (!fault)
		abort();
	fault->options = *options;
	random_seed(&fault->random, options->seed);
	pthread_mutex_init(&fault->lock, NULL);
	pthread_mutex_init(&fault->store, NULL);
	pthread_cond_init(&fault->wake, NULL);
	geometry.size = stage_size(next);
	if (options->read_unit)
		geometry.read_unit = options->read_unit;
	if (options->write_unit)
		geometry.write_unit = options->write_unit;
	if (options->preferred)
		geometry.preferred = options->preferred;
	if (options->max_request)
		geometry.max_request = options->max_request;
	geometry.flags &= ~options->clear_flags;
	if (options->nr_threads)
		geometry.flags &= ~(unsigned int)STAGE_NEVER_WAITS;
	stage_init(&fault->stage, &fault_ops, next, &geometry);
	fault->threads = calloc(options->nr_threads + 1, sizeof(pthread_t));
	for (unsigned int i = 0; i < options->nr_threads; i++)
		if (pthread_create(&fault->threads[i], NULL, fault_run, fault))
			abort();
	*stage = &fault->stage;
	return 0;
}

void fault_fail(struct stage *stage, unsigned int one_in, unsigned int ops,
		int error)
{
	struct fault *fault = fault_of(stage);

	pthread_mutex_lock(&fault->lock);
	fault->options.fail_one_in = one_in;
	fault->options.fail_ops = ops;
	fault->options.error = error;
	pthread_mutex_unlock(&fault->lock);
}

static void fault_set_held(struct stage *stage, bool held)
{
	struct fault *fault = fault_of(stage);

	pthread_mutex_lock(&fault->lock);
	fault->held = held;
	pthread_cond_broadcast(&fault->wake);
	pthread_mutex_unlock(&fault->lock);
}

void fault_hold(struct stage *stage)
{
	fault_set_held(stage, true);
}

void fault_release(struct stage *stage)
{
	fault_set_held(stage, false);
}

unsigned int fault_held(struct stage *stage)
{
	struct fault *fault = fault_of(stage);
	unsigned int nr;

	pthread_mutex_lock(&fault->lock);
	nr = fault->nr_kept;
	pthread_mutex_unlock(&fault->lock);
	return nr;
}

unsigned int fault_most_held(struct stage *stage)
{
	struct fault *fault = fault_of(stage);
	unsigned int nr;

	pthread_mutex_lock(&fault->lock);
	nr = fault->most_kept;
	pthread_mutex_unlock(&fault->lock);
	return nr;
}
