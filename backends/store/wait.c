/* wait.c: the synchronous forms of a store's operations. */
#include <errno.h>
#include <semaphore.h>
#include <stdlib.h>
#include <string.h>

#include "backends/store/store.h"

struct waiter {
	sem_t done;
	enum store_outcome outcome;
};

static void waiter_done(struct store_request *request, enum store_outcome outcome)
{
	struct waiter *waiter = request->context;

	waiter->outcome = outcome;
	sem_post(&waiter->done);
}

enum store_outcome store_wait(struct store *store, enum store_op op,
			      struct store_request *request)
{
	struct waiter waiter;

	sem_init(&waiter.done, 0, 0);
	request->op = op;
	request->done = waiter_done;
	request->context = &waiter;
	store_submit(store, request);
	while (sem_wait(&waiter.done) < 0)	/* EINTR */
		;
	sem_destroy(&waiter.done);
	return waiter.outcome;
}

enum store_outcome store_get_object(struct store *store, const char *key,
				    enum store_cause cause, size_t max,
				    void **data, size_t *count,
				    struct store_reply *reply)
{
	/* One byte more than asked for: malloc(0) may be NULL. */
	struct iovec iov = { .iov_base = malloc(max + 1), .iov_len = max };
	struct store_request request = {
		.cause = cause, .key = key, .whole = true, .count = max,
		.iov = &iov, .nr_iov = 1,
	};
	enum store_outcome outcome = STORE_FAILED;
	void *shrunk;

	*data = NULL;
	*count = 0;
	if (iov.iov_base)
		outcome = store_wait(store, STORE_GET, &request);
	else
		request.reply.error = -ENOMEM;
	if (outcome == STORE_DONE) {
		shrunk = realloc(iov.iov_base, request.reply.count + 1);
		*data = shrunk ? shrunk : iov.iov_base;
		*count = request.reply.count;
	} else {
		free(iov.iov_base);
	}
	if (reply)
		*reply = request.reply;
	return outcome;
}

enum store_outcome store_put_object(struct store *store, const char *key,
				    enum store_cause cause, const void *data,
				    size_t count, enum store_condition condition,
				    const char *tag, struct store_reply *reply)
{
	struct iovec iov = { .iov_base = (void *)(uintptr_t)data, .iov_len = count };
	struct store_request request = {
		.cause = cause, .key = key, .count = count, .iov = &iov, .nr_iov = 1,
		.condition = condition, .tag = tag,
	};
	enum store_outcome outcome = store_wait(store, STORE_PUT, &request);

	if (reply)
		*reply = request.reply;
	return outcome;
}
