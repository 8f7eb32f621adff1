/* s3.c: a store in a bucket: the objects whose keys begin with a prefix.
 *
 * A request becomes one call, or several one after the other, to the client
 * (backends/s3), whose judgement is the outcome; the doorway alone tries again.
 * What differs between operations is in s3_get.c, s3_put.c, s3_multipart.c,
 * s3_list.c and s3_delete.c.
 *
 * Nobody tells when a request is cancelled, nor its parent: while calls are under
 * way a thread looks now and then, and one that still waits in a queue is looked at
 * when its turn comes. */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backends/store/s3.h"
#include "src/clock.h"
#include "src/log.h"

#define CANCEL_POLL  (100 * CLOCK_MS)
#define LOG_INTERVAL (10 * CLOCK_SECOND)

/* ---- one call --------------------------------------------------------------------- */

static bool is_unwanted(struct s3_call *call)
{
	const struct s3_op *op = (const struct s3_op *)call;

	return op->request && store_request_is_cancelled(op->request);
}

static void fail_at_once(struct store_request *request, int error)
{
	request->reply.error = error;
	store_complete(request, STORE_FAILED);
}

static bool make_key(const struct s3_store *s3, const char *key, char full[STORE_KEY_MAX])
{
	bool from_top = *key == '/';

	return snprintf(full, STORE_KEY_MAX, "%s%s", from_top ? "" : s3->prefix,
			key + from_top) < STORE_KEY_MAX;
}

struct s3_op *s3_op_new(struct s3_store *s3, struct store_request *request,
			const char *method, const char *key)
{
	struct s3_op *op = calloc(1, sizeof(*op));

	if (!op || (key && !make_key(s3, key, op->key))) {
		if (request)
			fail_at_once(request, op ? -ENAMETOOLONG : -ENOMEM);
		free(op);
		return NULL;
	}
	op->s3 = s3;
	op->request = request;
	op->call.client = s3->client;
	op->call.method = method;
	op->call.key = key ? op->key : NULL;
	op->call.unwanted = is_unwanted;
	if (request) {
		op->call.priority = request->priority;
		op->call.deadline = request->deadline;
	}
	return op;
}

int s3_op_query(struct s3_op *op, char *query)
{
	free(op->query);
	op->call.query = op->query = query;
	return query ? 0 : -ENOMEM;
}

int s3_op_body(struct s3_op *op, char *body, size_t count)
{
	op->body = body;
	op->iov = (struct iovec){ .iov_base = body, .iov_len = count };
	op->call.body = &op->iov;
	op->call.nr_body = 1;
	op->call.body_count = count;
	return body ? 0 : -ENOMEM;
}

void s3_op_free(struct s3_op *op)
{
	s3_call_free(&op->call);
	store_listing_free(&op->found);
	free(op->query);
	free(op->body);
	free(op->pieces);
	free(op);
}

static void op_done(struct s3_call *call)
{
	struct s3_op *op = (struct s3_op *)call;
	struct s3_store *s3 = op->s3;

	pthread_mutex_lock(&s3->lock);
	if (op->previous)
		op->previous->next = op->next;
	else
		s3->under_way = op->next;
	if (op->next)
		op->next->previous = op->previous;
	if (s3->closing && !s3->under_way)
		pthread_cond_broadcast(&s3->change);
	pthread_mutex_unlock(&s3->lock);
	op->done(op);
}

void s3_op_start(struct s3_op *op, void (*done)(struct s3_op *op))
{
	struct s3_store *s3 = op->s3;

	op->done = done;
	op->call.done = op_done;
	/* At what is posted (the end of an upload, a thousand deletions) a server may
	 * work for long without a word. */
	if (strcmp(op->call.method, "POST") != 0)
		op->call.stall_timeout = store_silence(&s3->store);
	pthread_mutex_lock(&s3->lock);
	op->previous = NULL;
	op->next = s3->under_way;
	if (op->next)
		op->next->previous = op;
	s3->under_way = op;
	if (s3->idle)
		pthread_cond_broadcast(&s3->change);
	pthread_mutex_unlock(&s3->lock);
	s3_submit(s3->client, &op->call);
}

/* ---- completing ---------------------------------------------------------------------- */

/* What is for good is told here, once for many of a kind; what is retried is the
 * doorway's to tell. */
static void log_failure(const struct s3_op *op)
{
	char name[STORE_KEY_MAX + 16];
	struct s3_store *s3 = op->s3;
	uint64_t now = clock_now();
	int error = op->call.error;
	bool again;

	if (error == -ECANCELED || error == -ERANGE || error == -EFBIG)
		return;		/* the caller's to judge */
	pthread_mutex_lock(&s3->lock);
	again = s3->logged_error == error && now - s3->logged_at < LOG_INTERVAL;
	if (!again) {
		s3->logged_error = error;
		s3->logged_at = now;
	}
	pthread_mutex_unlock(&s3->lock);
	if (!again)
		log_error("%s: %s: %s", s3->store.place,
			  store_request_name(op->request, name, sizeof(name)),
			  op->call.message);
}

void s3_op_complete_as(struct s3_op *op, enum store_outcome outcome)
{
	struct store_request *request = op->request;
	struct store_reply *reply = &request->reply;
	const struct s3_call *call = &op->call;

	reply->error = outcome == STORE_DONE || outcome == STORE_ABSENT ? 0 : call->error;
	if (reply->error)
		snprintf(reply->message, sizeof(reply->message), "%s", call->message);
	reply->date = s3_date(http_headers_find(&call->http.reply, "Date"));
	/* Time in the queue is not the store's. */
	if (outcome == STORE_TRANSIENT && request->attempts == 1 && call->sent_at)
		request->started = call->sent_at;
	/* Of a put that was sent before, cancelled or not, nothing is sure. */
	if (outcome == STORE_FAILED && call->error == -ECANCELED &&
	    request->op == STORE_PUT && request->attempts > 1)
		outcome = STORE_UNKNOWN;
	if (outcome == STORE_FAILED)
		log_failure(op);
	s3_op_free(op);
	store_complete(request, outcome);
}

void s3_op_complete(struct s3_op *op)
{
	/* No operation but a get and an upload can be of something absent. */
	s3_op_complete_as(op, op->call.outcome);
}

void s3_op_fail(struct s3_op *op, int error)
{
	struct store_request *request = op->request;

	s3_op_free(op);
	fail_at_once(request, error);
}

void s3_count_call(struct s3_store *s3, const struct store_request *request)
{
	atomic_fetch_add(&s3->store.counters.by_cause[request->cause], 1);
}

/* ---- the thread that looks for what was cancelled --------------------------------------- */

static void wait_a_little(struct s3_store *s3)
{
	uint64_t until = clock_now() + CANCEL_POLL;
	struct timespec t = {
		.tv_sec = (time_t)(until / CLOCK_SECOND),
		.tv_nsec = (long)(until % CLOCK_SECOND),
	};

	pthread_cond_timedwait(&s3->change, &s3->lock, &t);
}

static void *watch_run(void *context)
{
	struct s3_store *s3 = context;
	struct s3_op *op;

	pthread_mutex_lock(&s3->lock);
	while (!s3->closing) {
		if (!s3->under_way) {
			s3->idle = true;
			pthread_cond_wait(&s3->change, &s3->lock);
			s3->idle = false;
			continue;
		}
		for (op = s3->under_way; op; op = op->next) {
			if (op->cut || !is_unwanted(&op->call))
				continue;
			op->cut = true;
			/* Under the lock: an op in the list is not freed. */
			s3_cancel(&op->call);
		}
		wait_a_little(s3);
	}
	pthread_mutex_unlock(&s3->lock);
	return NULL;
}

static int watch_start(struct s3_store *s3)
{
	sigset_t all, old;
	int error;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	error = pthread_create(&s3->watch, NULL, watch_run, s3);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	s3->watching = error == 0;
	return -error;
}

/* ---- the store ------------------------------------------------------------------------------ */

static void s3_store_submit(struct store *store, struct store_request *request)
{
	struct s3_store *s3 = (struct s3_store *)store;

	switch (request->op) {
	case STORE_GET:
		s3_get(s3, request);
		return;
	case STORE_PUT:
		s3_put(s3, request);
		return;
	case STORE_DELETE:
		s3_delete(s3, request);
		return;
	case STORE_LIST:
		s3_list(s3, request);
		return;
	case STORE_LIST_UPLOADS:
		s3_list_uploads(s3, request);
		return;
	case STORE_ABORT_UPLOAD:
		s3_abort_upload(s3, request);
		return;
	case STORE_PROBE:
	case NR_STORE_OPS:
		break;
	}
	fail_at_once(request, -EINVAL);
}

/* Aborts of uploads that were given up may be under way still. */
static void s3_store_close(struct store *store)
{
	struct s3_store *s3 = (struct s3_store *)store;

	pthread_mutex_lock(&s3->lock);
	s3->closing = true;
	pthread_cond_broadcast(&s3->change);
	while (s3->under_way)
		pthread_cond_wait(&s3->change, &s3->lock);
	pthread_mutex_unlock(&s3->lock);
	if (s3->watching)
		pthread_join(s3->watch, NULL);
	if (s3->client)
		s3_client_close(s3->client);
	pthread_mutex_destroy(&s3->lock);
	pthread_cond_destroy(&s3->change);
	free(s3->prefix);
	store_deinit(store);
	free(s3);
}

static const struct store_ops s3_ops = {
	.name	= "s3",
	.submit = s3_store_submit,
	.forget = s3_forget,
	.close	= s3_store_close,
	.sums	= true,
};

static struct s3_store *s3_store_new(const char *place, const char *prefix)
{
	struct s3_store *s3 = calloc(1, sizeof(*s3));
	pthread_condattr_t attributes;

	if (!s3 || store_init(&s3->store, &s3_ops, place) < 0) {
		free(s3);
		return NULL;
	}
	pthread_mutex_init(&s3->lock, NULL);
	pthread_condattr_init(&attributes);
	pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
	pthread_cond_init(&s3->change, &attributes);
	pthread_condattr_destroy(&attributes);
	if (asprintf(&s3->prefix, "%s%s", prefix, *prefix ? "/" : "") < 0)
		s3->prefix = NULL;
	s3->prefix_length = s3->prefix ? strlen(s3->prefix) : 0;
	return s3;
}

int store_s3_open(const char *place, const char *bucket, const char *prefix,
		  const struct s3_options *options, struct store **store)
{
	struct s3_store *s3 = s3_store_new(place, prefix ? prefix : "");
	int error = s3 && s3->prefix ? 0 : -ENOMEM;

	if (!s3)
		return error;
	/* Half of what a key may be is left for what comes behind. */
	if (!error && s3->prefix_length > STORE_KEY_MAX / 2) {
		log_error("%s: a prefix has at most %d bytes", place, STORE_KEY_MAX / 2);
		error = -EINVAL;
	}
	if (!error)
		error = s3_client_open(place, bucket, options, &s3->client);
	if (!error)
		error = watch_start(s3);
	if (error)
		store_close(&s3->store);
	else
		*store = &s3->store;
	return error;
}

struct s3_client *store_s3_client(struct store *store)
{
	return ((struct s3_store *)store)->client;
}
