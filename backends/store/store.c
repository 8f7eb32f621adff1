/* store.c: the doorway before every store.
 *
 * Checks what is asked, counts it, hands it to the store, and sends again what
 * came back as transient, later and later, until its time is up.  So a store
 * tries once and says honestly what came of it; nobody else retries.
 *
 * A request that waits for its next try hangs in store_retry's list, looked
 * after by a thread that is started when it is first needed. */
#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backends/store/probe.h"
#include "backends/store/store.h"
#include "src/clock.h"
#include "src/crc32c.h"
#include "src/errors.h"
#include "src/log.h"
#include "src/random.h"
#include "src/units.h"

#define DELAY_FIRST	  (50 * CLOCK_MS)
#define DELAY_LAST	  (5 * CLOCK_SECOND)
#define SILENCE_LEAST	  (10 * CLOCK_SECOND)
#define CANCEL_POLL	  (100 * CLOCK_MS)	/* a parent's cancelling tells nobody */

struct store_retry {
	pthread_mutex_t lock;
	pthread_cond_t wake;
	pthread_t thread;
	bool started;
	atomic_bool closing;		/* set under the lock */
	struct store_request *waiting;	/* by ->next, in no order */
	struct random random;
};

/* ---- what may be asked ---------------------------------------------------- */

static bool is_control(char c)
{
	return (unsigned char)c < 0x20 || c == 0x7f;
}

static bool component_is_good(const char *text, size_t length)
{
	return length > 0 && !(length == 1 && text[0] == '.') &&
	       !(length == 2 && text[0] == '.' && text[1] == '.');
}

/* A key is components of at least one byte between slashes, none "." or "..",
 * without control characters; so every store can hold it. */
static bool key_is_good(const char *key)
{
	const char *start = key, *c;

	if (!key)
		return false;
	for (c = key; ; c++) {
		if ((size_t)(c - key) >= STORE_KEY_MAX)
			return false;
		if (*c && is_control(*c))
			return false;
		if (*c && *c != '/')
			continue;
		if (!component_is_good(start, (size_t)(c - start)))
			return false;
		if (!*c)
			return true;
		start = c + 1;
	}
}

/* What is read may lie outside the store's root: a clone's parent. */
static bool get_key_is_good(const struct store *store, const char *key)
{
	if (store->any_key)
		return key && *key && strlen(key) < STORE_KEY_MAX;
	return key && key_is_good(*key == '/' ? key + 1 : key);
}

/* A prefix is the beginning of a key; the last component may be cut anywhere. */
static bool prefix_is_good(const char *prefix)
{
	char key[STORE_KEY_MAX];
	size_t length;

	if (!prefix || !*prefix)
		return true;
	length = strnlen(prefix, STORE_KEY_MAX);
	if (length + 2 > STORE_KEY_MAX)
		return false;
	memcpy(key, prefix, length);
	memcpy(key + length, "x", 2);
	return key_is_good(key);
}

static bool iov_is_good(const struct store_request *request)
{
	uint64_t total = 0;
	unsigned int i;

	for (i = 0; i < request->nr_iov; i++)
		total += request->iov[i].iov_len;
	return total == request->count && request->offset + request->count >= request->offset;
}

static bool condition_is_good(const struct store_request *request)
{
	if (request->condition == STORE_IF_ABSENT)
		return request->op == STORE_PUT;
	if (request->condition == STORE_IF_MATCH)
		return request->tag && *request->tag &&
		       strlen(request->tag) < STORE_TAG_MAX;
	return request->condition == STORE_ALWAYS;
}

static bool check_request(const struct store *store, const struct store_request *request)
{
	unsigned int i;

	switch (request->op) {
	case STORE_GET:
		return get_key_is_good(store, request->key) && iov_is_good(request) &&
		       condition_is_good(request) &&
		       !(request->whole && request->offset);
	case STORE_PUT:
		return key_is_good(request->key) && iov_is_good(request) &&
		       condition_is_good(request) && request->offset == 0 &&
		       (!request->metadata ||
			request->metadata->length <= STORE_METADATA_MAX);
	case STORE_DELETE:
		if (request->nr_keys > STORE_DELETE_MAX)
			return false;
		for (i = 0; i < request->nr_keys; i++)
			if (!key_is_good(request->keys[i]))
				return false;
		return true;
	case STORE_LIST:
	case STORE_LIST_UPLOADS:
		return prefix_is_good(request->key);
	case STORE_ABORT_UPLOAD:
		return key_is_good(request->key) && request->upload;
	case STORE_PROBE:
		return key_is_good(request->key);
	case NR_STORE_OPS:
		break;
	}
	return false;
}

const char *store_request_name(const struct store_request *request, char *text,
			       size_t size)
{
	static const char *const verbs[NR_STORE_OPS] = {
		"GET", "PUT", "DELETE", "LIST", "PROBE", "LIST UPLOADS", "ABORT UPLOAD",
	};
	const char *verb = request->op < NR_STORE_OPS ? verbs[request->op] : "?";
	char *c;

	if (request->op != STORE_DELETE)
		snprintf(text, size, "%s %s", verb, request->key ? request->key : "");
	else if (request->nr_keys == 1)
		snprintf(text, size, "%s %s", verb, request->keys[0]);
	else
		snprintf(text, size, "%s of %u keys", verb, request->nr_keys);
	for (c = text; *c; c++)
		if (is_control(*c))
			*c = '?';
	return text;
}

const char *store_reply_reason(const struct store_reply *reply)
{
	return reply->message[0] ? reply->message : error_words(reply->error);
}

/* ---- sending and completing -------------------------------------------------- */

static void reply_clear(struct store_reply *reply)
{
	/* Not the text of the metadata, which length bounds. */
	reply->error = 0;
	reply->message[0] = reply->tag[0] = 0;
	reply->size = reply->count = reply->last_modified = reply->date = 0;
	reply->metadata.length = 0;
	memset(&reply->listing, 0, sizeof(reply->listing));
}

static void send_request(struct store *store, struct store_request *request)
{
	request->attempts++;
	atomic_fetch_add(&store->counters.requests[request->op], 1);
	atomic_fetch_add(&store->counters.by_cause[request->cause], 1);
	store->ops->submit(store, request);
}

static void sum_what_was_got(struct store_request *request)
{
	uint64_t at, left = request->reply.count;
	const struct iovec *iov = request->iov;
	size_t part;

	for (at = 0; left; at += part, left -= part, iov++) {
		part = iov->iov_len < left ? iov->iov_len : (size_t)left;
		crc32c_sum(request->sums, request->sum_unit, at, iov->iov_base, part);
	}
}

/* The end of a request.  Nothing of it or the store is touched after done(). */
static void finish(struct store *store, struct store_request *request,
		   enum store_outcome outcome)
{
	struct store_counters *counters = &store->counters;
	bool given_up = outcome == STORE_FAILED || outcome == STORE_UNKNOWN;

	trouble_end(&store->trouble, &request->retried, given_up ? NULL :
		    "nothing waits for another try any more");
	if (request->kept) {
		store->ops->forget(store, request);
		request->kept = NULL;
	}
	if (outcome == STORE_FAILED)
		atomic_fetch_add(&counters->failures, 1);
	if (outcome == STORE_DONE && request->op == STORE_GET && request->sums &&
	    !store->ops->sums)
		sum_what_was_got(request);
	if (outcome == STORE_DONE && request->op == STORE_GET)
		atomic_fetch_add(&counters->bytes_in[request->cause],
				 request->reply.count);
	if (outcome == STORE_DONE && request->op == STORE_PUT)
		atomic_fetch_add(&counters->bytes_out[request->cause], request->count);
	atomic_fetch_sub(&counters->in_flight, 1);
	request->done(request, outcome);
}

/* What a transient failure is for good.  A put that was sent may yet arrive. */
static enum store_outcome given_up(const struct store_request *request)
{
	return request->op == STORE_PUT && request->attempts > 0 ? STORE_UNKNOWN
								  : STORE_FAILED;
}

static uint64_t give_up_at(const struct store *store,
			   const struct store_request *request)
{
	uint64_t retry_for = atomic_load(&store->retry_for);

	if (request->deadline)
		return request->deadline;
	if (retry_for > UINT64_MAX - request->started)
		return UINT64_MAX;
	return request->started + retry_for;
}

uint64_t store_silence(const struct store *store)
{
	uint64_t retry_for = atomic_load(&store->retry_for);

	if (retry_for >= STORE_RETRY_FOR)
		return 0;
	return retry_for > SILENCE_LEAST ? retry_for : SILENCE_LEAST;
}

static void give_up(struct store *store, struct store_request *request, int why)
{
	char name[STORE_KEY_MAX + 16], time[UNITS_TEXT];

	if (why) {
		request->reply.error = why;
		request->reply.message[0] = 0;
	} else {
		log_error("%s: %s: given up after %s: %s", store->place,
			  store_request_name(request, name, sizeof(name)),
			  time_format(clock_now() - request->started, time),
			  store_reply_reason(&request->reply));
	}
	finish(store, request, given_up(request));
}

static void *retry_run(void *context);

/* The lock is held. */
static int retry_start(struct store *store)
{
	struct store_retry *retry = store->retry;
	sigset_t all, old;
	int error;

	if (retry->started)
		return 0;
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	error = pthread_create(&retry->thread, NULL, retry_run, store);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	retry->started = error == 0;
	return -error;
}

/* Lets @request wait for its next try.  Returns false when there shall be none. */
static bool retry_later(struct store *store, struct store_request *request)
{
	struct store_retry *retry = store->retry;
	unsigned int shift = request->attempts < 8 ? request->attempts - 1 : 7;
	uint64_t delay = DELAY_FIRST << shift, now = clock_now();
	uint64_t end = give_up_at(store, request);
	char name[STORE_KEY_MAX + 16];

	if (now >= end || store_request_is_cancelled(request) ||
	    atomic_load(&retry->closing))
		return false;
	if (delay > DELAY_LAST)
		delay = DELAY_LAST;
	trouble_note(&store->trouble, &request->retried, 0, "%.80s: %.170s",
		     store_request_name(request, name, sizeof(name)),
		     store_reply_reason(&request->reply));
	pthread_mutex_lock(&retry->lock);
	/* It may be closing by now: nobody would send the request. */
	if (retry->closing || retry_start(store) < 0) {
		pthread_mutex_unlock(&retry->lock);
		return false;
	}
	delay = delay / 2 + random_below(&retry->random, delay / 2 + 1);
	request->due = delay < end - now ? now + delay : end;
	request->resent = request->op == STORE_PUT;
	atomic_fetch_add(&store->counters.retries, 1);
	/* Unlocked, it may be sent, completed and freed at any moment. */
	request->next = retry->waiting;
	retry->waiting = request;
	pthread_cond_signal(&retry->wake);
	pthread_mutex_unlock(&retry->lock);
	return true;
}

void store_complete(struct store_request *request, enum store_outcome outcome)
{
	struct store *store = atomic_load(&request->store);
	bool conditional_put = request->op == STORE_PUT &&
			       request->condition != STORE_ALWAYS;

	/* Sending a key's one content again does no harm; only of a condition
	 * the caller must know that it cannot be told. */
	if (outcome == STORE_UNKNOWN && !conditional_put)
		outcome = STORE_TRANSIENT;
	if (outcome == STORE_REFUSED && conditional_put && request->resent)
		outcome = STORE_UNKNOWN;
	if (outcome != STORE_TRANSIENT) {
		finish(store, request, outcome);
		return;
	}
	if (!request->reply.error)
		request->reply.error = -EIO;
	if (retry_later(store, request))
		return;
	give_up(store, request, store_request_is_cancelled(request) ? -ECANCELED : 0);
}

/* ---- the thread that sends again ------------------------------------------------ */

/* The lock is held.  Takes out of the list what is due or cancelled, all of it
 * when closing, and says when to look again. */
static struct store_request *take_due(struct store_retry *retry, uint64_t *next_look)
{
	struct store_request **link = &retry->waiting, *request, *due = NULL;
	uint64_t now = clock_now();

	*next_look = now + CANCEL_POLL;
	while ((request = *link)) {
		if (retry->closing || request->due <= now ||
		    store_request_is_cancelled(request)) {
			*link = request->next;
			request->next = due;
			due = request;
			continue;
		}
		if (request->due < *next_look)
			*next_look = request->due;
		link = &request->next;
	}
	return due;
}

static void send_again(struct store *store, struct store_request *request, bool closing)
{
	if (closing) {
		give_up(store, request, -ESHUTDOWN);
	} else if (store_request_is_cancelled(request)) {
		give_up(store, request, -ECANCELED);
	} else {
		reply_clear(&request->reply);
		send_request(store, request);
	}
}

static void wait_until(struct store_retry *retry, uint64_t when)
{
	struct timespec t = {
		.tv_sec = (time_t)(when / CLOCK_SECOND),
		.tv_nsec = (long)(when % CLOCK_SECOND),
	};

	pthread_cond_timedwait(&retry->wake, &retry->lock, &t);
}

static void *retry_run(void *context)
{
	struct store *store = context;
	struct store_retry *retry = store->retry;
	struct store_request *due, *request;
	uint64_t next_look;
	bool closing;

	pthread_mutex_lock(&retry->lock);
	for (;;) {
		due = take_due(retry, &next_look);
		closing = retry->closing;
		if (due) {
			pthread_mutex_unlock(&retry->lock);
			while ((request = due)) {
				due = request->next;
				send_again(store, request, closing);
			}
			pthread_mutex_lock(&retry->lock);
		} else if (closing) {
			break;
		} else if (retry->waiting) {
			wait_until(retry, next_look);
		} else {
			pthread_cond_wait(&retry->wake, &retry->lock);
		}
	}
	pthread_mutex_unlock(&retry->lock);
	return NULL;
}

/* ---- the doorway ------------------------------------------------------------------ */

void store_submit(struct store *store, struct store_request *request)
{
	char name[STORE_KEY_MAX + 16];

	request->attempts = 0;
	request->resent = request->retried = false;
	request->kept = NULL;
	request->started = clock_now();
	reply_clear(&request->reply);
	atomic_store(&request->store, store);
	atomic_fetch_add(&store->counters.in_flight, 1);

	if (!check_request(store, request)) {
		log_error("%s: %s: no store can be asked for this", store->place,
			  store_request_name(request, name, sizeof(name)));
		request->reply.error = -EINVAL;
	} else if (store_request_is_cancelled(request)) {
		request->reply.error = -ECANCELED;
	} else if (request->deadline && request->started >= request->deadline) {
		request->reply.error = -ETIMEDOUT;
	}
	if (request->reply.error)
		finish(store, request, STORE_FAILED);
	else if (request->op == STORE_PROBE)
		store_probe(store, request);
	else
		send_request(store, request);
}

bool store_request_is_cancelled(const struct store_request *request)
{
	return atomic_load(&request->cancelled) ||
	       (request->parent && request_is_cancelled(request->parent));
}

void store_cancel(struct store_request *request)
{
	struct store *store;

	atomic_store(&request->cancelled, true);
	store = atomic_load(&request->store);
	if (!store)
		return;
	pthread_mutex_lock(&store->retry->lock);
	pthread_cond_signal(&store->retry->wake);
	pthread_mutex_unlock(&store->retry->lock);
}

void store_listing_free(struct store_listing *listing)
{
	unsigned int i;

	for (i = 0; i < listing->nr_entries; i++) {
		free(listing->entries[i].key);
		free(listing->entries[i].upload);
	}
	free(listing->entries);
	free(listing->next_key);
	free(listing->next_upload);
	memset(listing, 0, sizeof(*listing));
}

int store_init(struct store *store, const struct store_ops *ops, const char *place)
{
	pthread_condattr_t attributes;
	struct store_retry *retry;

	memset(store, 0, sizeof(*store));
	store->place = strdup(place);
	retry = calloc(1, sizeof(*retry));
	if (!store->place || !retry) {
		free(store->place);
		free(retry);
		return -ENOMEM;
	}
	pthread_mutex_init(&retry->lock, NULL);
	pthread_condattr_init(&attributes);
	pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
	pthread_cond_init(&retry->wake, &attributes);
	pthread_condattr_destroy(&attributes);
	random_seed(&retry->random, random_id());
	store->ops = ops;
	store->retry = retry;
	trouble_init(&store->trouble, store->place);
	atomic_store(&store->retry_for, STORE_RETRY_FOR);
	return 0;
}

void store_deinit(struct store *store)
{
	pthread_mutex_destroy(&store->retry->lock);
	pthread_cond_destroy(&store->retry->wake);
	trouble_deinit(&store->trouble);
	free(store->retry);
	free(store->place);
}

void store_keeps_nothing(struct store *store, struct store_request *request)
{
	(void)store;
	assert(!request->kept);
}

void store_close(struct store *store)
{
	struct store_retry *retry = store->retry;
	bool started;

	pthread_mutex_lock(&retry->lock);
	retry->closing = true;
	started = retry->started;
	pthread_cond_signal(&retry->wake);
	pthread_mutex_unlock(&retry->lock);
	if (started)
		pthread_join(retry->thread, NULL);
	store->ops->close(store);
}
