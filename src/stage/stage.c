/* stage.c: requests, and the doorway that every one of them passes on its way
 * from one stage to the next.
 *
 * The doorway pushes a frame of its own, so it sees the end of what it let in:
 * it counts, lets go of the limits, starts what waited for them, and tells a
 * drain when the last request has gone. */
#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "src/clock.h"
#include "src/log.h"
#include "src/stage/iov.h"
#include "src/stage/stage.h"

#define GATE_DRAINING (1u << 31)

struct stage_limits {
	unsigned int max_requests;	/* UINT_MAX: no bound */
	uint64_t max_bytes;		/* UINT64_MAX: no bound */
	uint32_t read_unit, write_unit;	/* the next stage's */
	pthread_mutex_t lock;		/* guards the rest */
	unsigned int nr_requests;	/* let in */
	uint64_t bytes;
	struct request *first;		/* waiting, in arrival order */
	struct request **last;
};

/* The limits whose queue this thread is working off further up its stack. */
static _Thread_local struct stage_limits *dispatching;

const char *request_op_name(enum request_op op)
{
	static const char *const names[NR_REQUEST_OPS] = {
		[REQUEST_READ] = "read",   [REQUEST_WRITE] = "write",
		[REQUEST_ZERO] = "zero",   [REQUEST_TRIM] = "trim",
		[REQUEST_FLUSH] = "flush", [REQUEST_EXTENTS] = "extents",
		[REQUEST_PREFETCH] = "prefetch",
	};

	return names[op];
}

bool extent_list_add(struct extent_list *list, uint64_t count,
		     unsigned int flags)
{
	struct extent *last = list->nr ? &list->extents[list->nr - 1] : NULL;

	if (last && last->flags == flags) {
		last->count += count;
		return true;
	}
	if (list->nr == list->max)
		return false;
	list->extents[list->nr++] = (struct extent){ count, flags };
	return true;
}

/* ---- a request --------------------------------------------------------------- */

void request_init(struct request *request, enum request_op op,
		  uint64_t offset, uint64_t count,
		  request_done *done, void *context)
{
	/* The frames need no clearing, and are most of it. */
	memset(request, 0, offsetof(struct request, frames));
	request->next = NULL;
	request->op = op;
	request->offset = offset;
	request->count = count;
	request_push(request, done, context);
}

void request_inherit(struct request *child, struct request *parent)
{
	child->priority = parent->priority;
	child->stream = parent->stream;
	child->deadline = parent->deadline;
	child->parent = parent;
}

void request_push(struct request *request, request_done *done, void *context)
{
	struct request_frame *frame = &request->frames[request->nr_frames++];

	assert(request->nr_frames <= REQUEST_MAX_FRAMES);
	frame->done = done;
	frame->context = context;
}

void request_complete(struct request *request, int error)
{
	struct request_frame *frame;

	assert(request->nr_frames > 0);
	assert(error <= 0);
	frame = &request->frames[--request->nr_frames];
	frame->done(request, frame->context, error);
}

void request_cancel(struct request *request)
{
	atomic_store_explicit(&request->cancelled, true, memory_order_relaxed);
}

bool request_is_cancelled(const struct request *request)
{
	for (; request; request = request->parent)
		if (atomic_load_explicit(&request->cancelled,
					 memory_order_relaxed))
			return true;
	return false;
}

/* ---- limits -------------------------------------------------------------------- */

static uint64_t round_out(uint64_t offset, uint64_t count, uint64_t unit)
{
	uint64_t start = offset & ~(unit - 1);

	return ((offset + count - start) + unit - 1) & ~(unit - 1);
}

/* What @request weighs against max_bytes: the most it can make the stage hold. */
static uint64_t limits_bytes(const struct stage_limits *limits,
			     const struct request *request)
{
	switch (request->op) {
	case REQUEST_READ:
		return round_out(request->offset, request->count,
				 limits->read_unit);
	case REQUEST_WRITE:
		return round_out(request->offset, request->count,
				 limits->write_unit);
	case REQUEST_ZERO:	/* head and tail are rewritten */
		return limits->write_unit > 1 ? 2 * (uint64_t)limits->write_unit : 0;
	default:
		return 0;
	}
}

/* Lets @bytes in if they fit.  The lock is held. */
static bool limits_enter(struct stage_limits *limits, uint64_t bytes)
{
	if (limits->nr_requests &&
	    (limits->nr_requests >= limits->max_requests ||
	     bytes > limits->max_bytes || limits->bytes > limits->max_bytes - bytes))
		return false;
	limits->nr_requests++;
	limits->bytes += bytes;
	return true;
}

enum limits_verdict { LIMITS_ENTERED, LIMITS_QUEUED, LIMITS_FULL };

static enum limits_verdict limits_ask(struct stage_limits *limits,
				      struct request *request)
{
	enum limits_verdict verdict = LIMITS_ENTERED;

	pthread_mutex_lock(&limits->lock);
	if (limits->first || !limits_enter(limits, limits_bytes(limits, request))) {
		verdict = LIMITS_FULL;
		if (!(request->flags & REQUEST_NOWAIT)) {
			request->next = NULL;
			*limits->last = request;
			limits->last = &request->next;
			verdict = LIMITS_QUEUED;
		}
	}
	pthread_mutex_unlock(&limits->lock);
	return verdict;
}

static void doorway_enter(struct stage *stage, struct request *request);

/* Gives @bytes back and starts what waited for them.  A request started here
 * may complete here and come back: it then leaves the queue to the loop that
 * is on this thread's stack already. */
static void limits_leave(struct stage *stage, uint64_t bytes)
{
	struct stage_limits *limits = stage->limits;
	struct stage_limits *outer = dispatching;
	struct request *request;

	pthread_mutex_lock(&limits->lock);
	limits->nr_requests--;
	limits->bytes -= bytes;
	if (outer == limits || !limits->first) {
		pthread_mutex_unlock(&limits->lock);
		return;
	}
	dispatching = limits;
	while ((request = limits->first) &&
	       limits_enter(limits, limits_bytes(limits, request))) {
		limits->first = request->next;
		if (!limits->first)
			limits->last = &limits->first;
		pthread_mutex_unlock(&limits->lock);
		doorway_enter(stage, request);
		pthread_mutex_lock(&limits->lock);
	}
	pthread_mutex_unlock(&limits->lock);
	dispatching = outer;
}

int stage_limit(struct stage *stage, unsigned int max_requests,
		uint64_t max_bytes)
{
	const struct stage *next = stage->next;
	struct stage_limits *limits;

	if (stage->geometry.flags & STAGE_NEVER_WAITS)
		return 0;
	limits = calloc(1, sizeof(*limits));
	if (!limits)
		return -ENOMEM;
	pthread_mutex_init(&limits->lock, NULL);
	limits->max_requests = max_requests ? max_requests : UINT32_MAX;
	limits->max_bytes = max_bytes ? max_bytes : UINT64_MAX;
	limits->read_unit = next ? next->geometry.read_unit : 1;
	limits->write_unit = next ? next->geometry.write_unit : 1;
	limits->last = &limits->first;
	stage->limits = limits;
	return 0;
}

/* ---- the doorway ------------------------------------------------------------------ */

static bool gate_enter(struct stage *stage)
{
	unsigned int gate = atomic_load_explicit(&stage->gate,
						 memory_order_relaxed);

	do {
		if (gate & GATE_DRAINING)
			return false;
	} while (!atomic_compare_exchange_weak_explicit(&stage->gate, &gate,
				gate + 1, memory_order_acquire,
				memory_order_relaxed));
	return true;
}

/* The last one out tells the drain.  Nobody touches the stage after this. */
static void gate_leave(struct stage *stage)
{
	if (atomic_fetch_sub_explicit(&stage->gate, 1, memory_order_acq_rel) ==
	    (GATE_DRAINING | 1))
		sem_post(&stage->drained);
}

static void doorway_count(struct stage *stage, const struct request *request,
			  bool again)
{
	unsigned long long one = again ? -1ull : 1, bytes = request->count;

	atomic_fetch_add_explicit(&stage->counters.requests[request->op], one,
				  memory_order_relaxed);
	atomic_fetch_add_explicit(&stage->counters.bytes[request->op],
				  again ? -bytes : bytes, memory_order_relaxed);
}

static void doorway_done(struct request *request, void *context, int error)
{
	struct stage *stage = context;
	uint64_t bytes = 0;

	if (stage->limits)
		bytes = limits_bytes(stage->limits, request);
	if (request->op == REQUEST_PREFETCH)
		error = 0;
	if (error && error != -EAGAIN)
		atomic_fetch_add_explicit(&stage->counters.errors, 1,
					  memory_order_relaxed);
	/* It had no effect, and comes again without NOWAIT. */
	if (error == -EAGAIN && request->flags & REQUEST_NOWAIT)
		doorway_count(stage, request, true);
	request_complete(request, error);
	if (stage->limits)
		limits_leave(stage, bytes);
	gate_leave(stage);
}

/* @request is within the limits; its frame is pushed. */
static void doorway_enter(struct stage *stage, struct request *request)
{
	if (request_is_cancelled(request)) {
		request_complete(request, -ECANCELED);
		return;
	}
	switch (request->op) {
	case REQUEST_READ:
		stage->ops->read(stage, request);
		break;
	case REQUEST_WRITE:
		stage->ops->write(stage, request);
		break;
	case REQUEST_ZERO:
		stage->ops->zero(stage, request);
		break;
	case REQUEST_TRIM:
		stage->ops->trim(stage, request);
		break;
	case REQUEST_FLUSH:
		stage->ops->flush(stage, request);
		break;
	case REQUEST_EXTENTS:
		stage->ops->extents(stage, request);
		break;
	case REQUEST_PREFETCH:
		stage->ops->prefetch(stage, request);
		break;
	case NR_REQUEST_OPS:
		assert(0);
	}
}

/* Which flags mean something beside each operation. */
static const unsigned int flags_allowed[NR_REQUEST_OPS] = {
	[REQUEST_READ]	   = REQUEST_NOWAIT,
	[REQUEST_WRITE]	   = REQUEST_NOWAIT | REQUEST_FUA,
	[REQUEST_ZERO]	   = REQUEST_NOWAIT | REQUEST_FUA | REQUEST_MAY_TRIM |
			     REQUEST_FAST_ZERO,
	[REQUEST_TRIM]	   = REQUEST_NOWAIT | REQUEST_FUA,
	[REQUEST_FLUSH]	   = REQUEST_NOWAIT,
	[REQUEST_EXTENTS]  = REQUEST_NOWAIT,
	[REQUEST_PREFETCH] = REQUEST_NOWAIT,
};

static int doorway_check(const struct stage *stage,
			 const struct request *request)
{
	uint64_t size = stage_size(stage);

	if ((unsigned int)request->op >= NR_REQUEST_OPS ||
	    request->flags & ~flags_allowed[request->op])
		return -EINVAL;
	if (request->offset > size || request->count > size - request->offset)
		return -EINVAL;
	if (stage->geometry.flags & STAGE_READ_ONLY &&
	    (request->op == REQUEST_WRITE || request->op == REQUEST_ZERO ||
	     request->op == REQUEST_TRIM))
		return -EROFS;
	switch (request->op) {
	case REQUEST_READ:
	case REQUEST_WRITE:
		if (request->count > stage->geometry.max_request)
			return -EINVAL;
		assert(iov_count(request->iov, request->nr_iov) == request->count);
		return 0;
	case REQUEST_FLUSH:
		return request->offset || request->count ? -EINVAL : 0;
	case REQUEST_EXTENTS:
		assert(request->extents && request->extents->max);
		return request->count ? 0 : -EINVAL;
	default:
		return 0;
	}
}

static void doorway_trace(const struct stage *stage,
			  const struct request *request)
{
	log_debug("%s: %s %" PRIu64 "+%" PRIu64 "%s%s%s%s stream %" PRIu32,
		  stage->ops->name, request_op_name(request->op), request->offset,
		  request->count, request->flags & REQUEST_FUA ? " fua" : "",
		  request->flags & REQUEST_NOWAIT ? " nowait" : "",
		  request->flags & REQUEST_MAY_TRIM ? " may-trim" : "",
		  request->flags & REQUEST_FAST_ZERO ? " fast-zero" : "",
		  request->stream);
}

static void doorway_refuse(struct stage *stage, struct request *request,
			   int error)
{
	atomic_fetch_add_explicit(&stage->counters.errors, 1,
				  memory_order_relaxed);
	request_complete(request, error);
}

void stage_submit(struct stage *stage, struct request *request)
{
	int error = doorway_check(stage, request);

	if (error) {
		doorway_refuse(stage, request, error);
		return;
	}
	if (log_wants(LOG_LEVEL_DEBUG))
		doorway_trace(stage, request);
	doorway_count(stage, request, false);
	if (!gate_enter(stage)) {
		doorway_refuse(stage, request, -ESHUTDOWN);
		return;
	}
	if (request->count == 0 && request->op != REQUEST_FLUSH) {
		request_complete(request, 0);
		gate_leave(stage);
		return;
	}
	if (stage->limits) {
		enum limits_verdict verdict;

		request_push(request, doorway_done, stage);
		verdict = limits_ask(stage->limits, request);
		if (verdict == LIMITS_QUEUED)
			return;
		if (verdict == LIMITS_FULL) {
			request->nr_frames--;
			doorway_count(stage, request, true);
			request_complete(request, -EAGAIN);
			gate_leave(stage);
			return;
		}
	} else {
		request_push(request, doorway_done, stage);
	}
	doorway_enter(stage, request);
}

/* ---- the life of a stage --------------------------------------------------------- */

void stage_init(struct stage *stage, const struct stage_ops *ops,
		struct stage *next, const struct geometry *geometry)
{
	assert(ops->read && ops->write && ops->zero && ops->trim && ops->flush &&
	       ops->extents && ops->prefetch && ops->close);
	assert(geometry->read_unit && geometry->write_unit &&
	       !(geometry->read_unit & (geometry->read_unit - 1)) &&
	       !(geometry->write_unit & (geometry->write_unit - 1)));
	assert(geometry->max_request >= geometry->write_unit &&
	       geometry->max_request >= geometry->read_unit);
	stage->ops = ops;
	stage->next = next;
	stage->geometry = *geometry;
	atomic_store(&stage->size, geometry->size);
	atomic_store(&stage->former_size, geometry->size);
	sem_init(&stage->drained, 0, 0);
}

uint64_t stage_size(const struct stage *stage)
{
	return atomic_load_explicit(&stage->size, memory_order_acquire);
}

void stage_set_size(struct stage *stage, uint64_t size)
{
	uint64_t former = stage_size(stage);

	if (former == size)
		return;
	atomic_store_explicit(&stage->former_size, former, memory_order_release);
	atomic_store_explicit(&stage->size, size, memory_order_release);
}

bool stage_ends_at(const struct stage *stage, uint64_t end)
{
	return end == stage_size(stage) ||
	       end == atomic_load_explicit(&stage->former_size, memory_order_acquire);
}

struct stage *stage_backend(struct stage *stage)
{
	while (stage->next)
		stage = stage->next;
	return stage;
}

unsigned int stage_in_flight(const struct stage *stage)
{
	return atomic_load_explicit(&stage->gate, memory_order_relaxed) &
	       ~GATE_DRAINING;
}

void stage_resized(struct stage *stage, uint64_t size)
{
	/* The backend first: no stage may let in what the next one refuses. */
	if (stage->next)
		stage_resized(stage->next, size);
	stage_set_size(stage, size);
}

void stage_follow_size(struct stage *stage)
{
	if (!stage->next)
		return;
	stage_follow_size(stage->next);
	if (stage_size(stage) != stage_size(stage->next))
		stage_set_size(stage, stage_size(stage->next));
}

void stage_drain(struct stage *stage)
{
	/* The drain counts as one more, so that exactly one is the last. */
	unsigned int gate = atomic_fetch_add(&stage->gate, 1);

	if (gate & GATE_DRAINING) {		/* done before */
		atomic_fetch_sub(&stage->gate, 1);
		return;
	}
	atomic_fetch_or(&stage->gate, GATE_DRAINING);
	gate_leave(stage);
	while (sem_wait(&stage->drained) < 0)
		;
}

void stage_close(struct stage *stage)
{
	struct stage *next;

	for (; stage; stage = next) {
		next = stage->next;
		stage_drain(stage);
		sem_destroy(&stage->drained);
		if (stage->limits) {
			pthread_mutex_destroy(&stage->limits->lock);
			free(stage->limits);
		}
		stage->ops->close(stage);
	}
}

/* ---- passing on ------------------------------------------------------------------- */

void stage_pass_flush(struct stage *stage, struct request *request)
{
	stage_submit(stage->next, request);
}

void stage_pass_extents(struct stage *stage, struct request *request)
{
	stage_submit(stage->next, request);
}

void stage_pass_prefetch(struct stage *stage, struct request *request)
{
	stage_submit(stage->next, request);
}

/* ---- synchronous forms -------------------------------------------------------------- */

struct waiter {
	sem_t done;
	int error;
};

static void waiter_done(struct request *request, void *context, int error)
{
	struct waiter *waiter = context;

	waiter->error = error;
	sem_post(&waiter->done);
}

/* @request is prepared with waiter_done and @waiter. */
static int submit_and_wait(struct stage *stage, struct request *request,
			   struct waiter *waiter)
{
	sem_init(&waiter->done, 0, 0);
	stage_submit(stage, request);
	while (sem_wait(&waiter->done) < 0)
		;
	sem_destroy(&waiter->done);
	return waiter->error;
}

static int transfer(struct stage *stage, enum request_op op, void *buffer,
		    size_t count, uint64_t offset, unsigned int flags)
{
	struct iovec iov = { buffer, count };
	struct waiter waiter;
	struct request request;

	request_init(&request, op, offset, count, waiter_done, &waiter);
	request.flags = flags;
	request.iov = &iov;
	request.nr_iov = 1;
	return submit_and_wait(stage, &request, &waiter);
}

int stage_read(struct stage *stage, void *buffer, size_t count,
	       uint64_t offset, unsigned int flags)
{
	return transfer(stage, REQUEST_READ, buffer, count, offset, flags);
}

int stage_write(struct stage *stage, const void *buffer, size_t count,
		uint64_t offset, unsigned int flags)
{
	return transfer(stage, REQUEST_WRITE, (void *)buffer, count, offset,
			flags);
}

static int command(struct stage *stage, enum request_op op, uint64_t count,
		   uint64_t offset, unsigned int flags,
		   struct extent_list *list)
{
	struct waiter waiter;
	struct request request;

	request_init(&request, op, offset, count, waiter_done, &waiter);
	request.flags = flags;
	request.extents = list;
	return submit_and_wait(stage, &request, &waiter);
}

int stage_zero(struct stage *stage, uint64_t count, uint64_t offset,
	       unsigned int flags)
{
	return command(stage, REQUEST_ZERO, count, offset, flags, NULL);
}

int stage_trim(struct stage *stage, uint64_t count, uint64_t offset,
	       unsigned int flags)
{
	return command(stage, REQUEST_TRIM, count, offset, flags, NULL);
}

int stage_flush(struct stage *stage)
{
	return command(stage, REQUEST_FLUSH, 0, 0, 0, NULL);
}

int stage_extents(struct stage *stage, uint64_t count, uint64_t offset,
		  struct extent_list *list)
{
	list->nr = 0;
	return command(stage, REQUEST_EXTENTS, count, offset, 0, list);
}

/* ---- slots ------------------------------------------------------------------------- */

int stage_keeps_nothing(struct stage *stage)
{
	return 0;
}
