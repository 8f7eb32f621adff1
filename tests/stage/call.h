/* call.h: a request that a test submits now and waits for later. */
#ifndef OBJMAP_TESTS_CALL_H
#define OBJMAP_TESTS_CALL_H

#include <semaphore.h>
#include <stdint.h>
#include <time.h>

#include "src/stage/stage.h"

struct call {
	struct request request;
	struct iovec iov;
	sem_t done;
	atomic_uint nr_completions;	/* must end as 1 */
	int error;
};

static inline void call_done(struct request *request, void *context, int error)
{
	struct call *call = context;

	call->error = error;
	atomic_fetch_add(&call->nr_completions, 1);
	sem_post(&call->done);
}

/* Where on the stack completions ran: what nests shows as a long way. */
struct depth {
	atomic_uintptr_t lowest, highest;
	sem_t done;
};

static inline void depth_note(struct request *request, void *context, int error)
{
	struct depth *depth = context;
	uintptr_t here = (uintptr_t)&error;

	if (!depth->lowest || here < depth->lowest)
		depth->lowest = here;
	if (here > depth->highest)
		depth->highest = here;
	sem_post(&depth->done);
}

/* @buffer NULL: an operation without data. */
static inline void call_start(struct call *call, struct stage *stage,
			      enum request_op op, void *buffer, uint64_t count,
			      uint64_t offset, unsigned int flags)
{
	sem_init(&call->done, 0, 0);
	atomic_init(&call->nr_completions, 0);
	request_init(&call->request, op, offset, count, call_done, call);
	call->iov = (struct iovec){ buffer, count };
	call->request.iov = &call->iov;
	call->request.nr_iov = buffer ? 1 : 0;
	call->request.flags = flags;
	stage_submit(stage, &call->request);
}

static inline bool call_is_done(struct call *call)
{
	return atomic_load(&call->nr_completions) > 0;
}

/* Its error; -ETIME when it never ends. */
static inline int call_wait(struct call *call)
{
	struct timespec until;

	clock_gettime(CLOCK_REALTIME, &until);
	until.tv_sec += 60;
	while (sem_timedwait(&call->done, &until) < 0)
		if (time(NULL) > until.tv_sec)
			return -ETIME;
	return call->error;
}

#endif
