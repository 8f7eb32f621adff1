/* call.c: one call: its request made, signed when its turn comes, judged, and sent
 * again where the protocol wants it (a redirect, a clock that was wrong). */
#include <assert.h>
#include <errno.h>
#include <semaphore.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "backends/s3/client.h"
#include "src/clock.h"
#include "src/errors.h"
#include "src/random.h"

#define TEXT_MAX   (1u << 20)
#define PATH_ROOM  (3 * STORE_KEY_MAX + 2 * S3_HOST_MAX)
#define DELAY_FIRST (50 * CLOCK_MS)
#define DELAY_LAST  (5 * CLOCK_SECOND)

/* ---- making the request ------------------------------------------------------------ */

static int make_path(struct s3_call *call)
{
	const struct s3_route *route = call->route;
	char path[PATH_ROOM];
	int length;

	length = snprintf(path, sizeof(path), "%s%s%s%s", route->base,
			  route->is_virtual ? "" : "/",
			  route->is_virtual ? "" : call->client->bucket,
			  call->key || route->is_virtual ? "/" : "");
	if (call->key && s3_encode(call->key, true, path + length,
				   sizeof(path) - (size_t)length) < 0)
		return -E2BIG;
	call->path = strdup(path);
	return call->path ? 0 : -ENOMEM;
}

static int make_url(struct s3_call *call)
{
	const struct s3_route *route = call->route;
	int made, error;

	if (call->other_host)
		call->host = strdup(call->other_host);
	else if (asprintf(&call->host, "%s%s%s", route->is_virtual ? call->client->bucket
			  : "", route->is_virtual ? "." : "", route->host) < 0)
		call->host = NULL;
	if (!call->host)
		return -ENOMEM;
	error = make_path(call);
	if (error)
		return error;
	made = asprintf(&call->http.url, "http%s://%s%s%s%s", route->tls ? "s" : "",
			call->host, call->path, call->query ? "?" : "",
			call->query ? call->query : "");
	if (made < 0)
		call->http.url = NULL;
	return made < 0 ? -ENOMEM : 0;
}

static void add(struct http_headers *to, const char *name, const char *value, int *error)
{
	if (!*error && value)
		*error = http_headers_add(to, name, value);
}

/* The key of one's own, and the same for the object that is copied from. */
static int add_sse_c(const struct s3_call *call, struct http_headers *to)
{
	const struct s3_client *client = call->client;
	bool copies = http_headers_find(&call->headers, "x-amz-copy-source");
	int error = 0;

	add(to, "x-amz-server-side-encryption-customer-algorithm", "AES256", &error);
	add(to, "x-amz-server-side-encryption-customer-key", client->sse_c_key, &error);
	add(to, "x-amz-server-side-encryption-customer-key-MD5", client->sse_c_md5, &error);
	if (!copies)
		return error;
	add(to, "x-amz-copy-source-server-side-encryption-customer-algorithm", "AES256",
	    &error);
	add(to, "x-amz-copy-source-server-side-encryption-customer-key",
	    client->sse_c_key, &error);
	add(to, "x-amz-copy-source-server-side-encryption-customer-key-MD5",
	    client->sse_c_md5, &error);
	return error;
}

/* What the client's options add, as the kind of call wants it. */
static int add_options(const struct s3_call *call, struct http_headers *to)
{
	const struct s3_options *options = &call->client->options;
	int error = 0;

	if (options->requester_pays)
		add(to, "x-amz-request-payer", "requester", &error);
	if (call->writes_object) {
		add(to, "x-amz-server-side-encryption", options->sse, &error);
		add(to, "x-amz-server-side-encryption-aws-kms-key-id",
		    options->sse_kms_key, &error);
		add(to, "x-amz-storage-class", options->storage_class, &error);
		add(to, "x-amz-tagging", options->tags, &error);
	}
	/* The end of an upload too: it looks at what it replaces. */
	if (!error && *call->client->sse_c_key && call->key &&
	    strcmp(call->method, "DELETE") != 0)
		error = add_sse_c(call, to);
	return error;
}

static int make_headers(struct s3_call *call)
{
	struct http_headers *to = &call->http.headers;
	int error = http_headers_add_all(to, &call->headers);

	/* As it is signed: libcurl would write some addresses in another way. */
	if (!error)
		error = http_headers_add(to, "Host", call->host);
	if (!error)
		error = add_options(call, to);
	if (!error && call->needs_md5)
		error = s3_add_md5(to, call->body, call->nr_body);
	if (!error && call->needs_md5)
		error = s3_add_crc32c(to, s3_crc32c(call->body, call->nr_body));
	return error;
}

/* The signature says what is sent; over TLS, which sees to that, and to this machine
 * itself it need not: SHA-256 costs more than all else of a put together. */
static void hash_payload(struct s3_call *call)
{
	if (!call->route->signs_payload)
		strcpy(call->payload_hash, S3_UNSIGNED_PAYLOAD);
	else if (!call->payload_hash[0])
		s3_payload_hash(call->body, call->nr_body, call->payload_hash);
}

/* ---- sending and what comes back ---------------------------------------------------------- */

/* On an I/O thread: the request is about to be sent. */
static int call_prepare(struct http_request *http)
{
	struct s3_call *call = http->context;
	struct s3_client *client = call->client;
	struct s3_keys keys;
	struct s3_scope scope = {
		.region = call->route->region, .service = "s3",
		.now = (uint64_t)(time(NULL) + atomic_load(&client->skew)),
	};
	int error;

	if (call->unwanted && call->unwanted(call))
		return -ECANCELED;
	if (!call->sent_at)
		call->sent_at = clock_now();
	error = s3_credentials_get(client->credentials, &keys);
	if (error)
		return error;
	if (!keys.anonymous)
		error = s3_sign(client->signing_key, &keys, &scope, call->method,
				call->host, call->path, call->query ? call->query : "",
				call->payload_hash, &http->headers);
	call->generation = keys.generation;
	explicit_bzero(&keys, sizeof(keys));
	return error;
}

static void call_done(struct http_request *http);

static int make_request(struct s3_call *call)
{
	struct http_request *http = &call->http;
	int error;

	memset(http, 0, sizeof(*http));
	if (!call->other_host)
		call->route = atomic_load(&call->client->route);
	http->method = call->method;
	http->body = call->body;
	http->nr_body = call->nr_body;
	http->body_count = call->body_count;
	http->sink = call->sink;
	http->nr_sink = call->nr_sink;
	http->sink_count = call->sink_count;
	http->sums = call->sums;
	http->sum_unit = call->sum_unit;
	http->text_max = call->text_max ? call->text_max : TEXT_MAX;
	http->priority = call->priority;
	http->deadline = call->deadline;
	http->stall_timeout = call->stall_timeout;
	http->prepare = call_prepare;
	http->done = call_done;
	http->context = call;
	error = make_url(call);
	if (!error)
		error = make_headers(call);
	if (!error)
		hash_payload(call);
	return error;
}

static void free_request(struct s3_call *call)
{
	http_request_free(&call->http);
	free(call->host);
	free(call->path);
	call->host = call->path = NULL;
}

static void call_send(struct s3_call *call)
{
	struct s3_client *client = call->client;
	int error = make_request(call);

	pthread_mutex_lock(&client->lock);
	if (!error && call->cancelled)
		error = -ECANCELED;
	call->in_pool = !error;
	/* Under the lock, so that who cancels finds it in the pool or not yet. */
	if (!error)
		http_submit(client->http, &call->http);
	pthread_mutex_unlock(&client->lock);
	if (!error)
		return;
	s3_call_says(call, STORE_FAILED, error, "the request cannot be made: %s",
		     error_words(error));
	call->done(call);
}

static void call_done(struct http_request *http)
{
	struct s3_call *call = http->context;

	pthread_mutex_lock(&call->client->lock);
	call->in_pool = false;
	pthread_mutex_unlock(&call->client->lock);
	if (s3_judge(call) == S3_AGAIN) {
		free_request(call);
		call_send(call);
		return;
	}
	call->done(call);
}

void s3_submit(struct s3_client *client, struct s3_call *call)
{
	/* Already there when the call can be cancelled before it is submitted. */
	if (!call->client)
		call->client = client;
	call_send(call);
}

void s3_cancel(struct s3_call *call)
{
	struct s3_client *client = call->client;

	pthread_mutex_lock(&client->lock);
	call->cancelled = true;
	if (call->in_pool)
		http_cancel(&call->http);
	pthread_mutex_unlock(&client->lock);
}

void s3_call_free(struct s3_call *call)
{
	free_request(call);
	http_headers_free(&call->headers);
	free(call->other_host);
	call->other_host = NULL;
}

/* ---- waiting ---------------------------------------------------------------------------------- */

static void wait_done(struct s3_call *call)
{
	sem_post(call->context);
}

void s3_wait(struct s3_client *client, struct s3_call *call)
{
	sem_t done;

	sem_init(&done, 0, 0);
	call->done = wait_done;
	call->context = &done;
	s3_submit(client, call);
	while (sem_wait(&done) < 0)	/* EINTR */
		;
	sem_destroy(&done);
}

/* Makes a judged call fit to be sent again. */
static void call_clear(struct s3_call *call)
{
	free_request(call);
	free(call->other_host);
	call->other_host = NULL;
	call->redirects = 0;
	call->clock_was_set = false;
	call->error = 0;
	call->code[0] = call->message[0] = 0;
}

static bool is_worth_another(const struct s3_call *call)
{
	return call->outcome == STORE_TRANSIENT ||
	       (call->repeatable && call->outcome == STORE_UNKNOWN);
}

/* When it is not tried again any more, for a call that began at @begun. */
static uint64_t end_of(const struct s3_call *call, uint64_t begun, uint64_t deadline)
{
	uint64_t retry_for = call->retry_for ? atomic_load(call->retry_for) : UINT64_MAX;
	uint64_t end = retry_for > UINT64_MAX - begun ? UINT64_MAX : begun + retry_for;

	return deadline && deadline < end ? deadline : end;
}

void s3_wait_retrying(struct s3_client *client, struct s3_call *call,
		      uint64_t deadline, const atomic_bool *stop)
{
	uint64_t delay = DELAY_FIRST, begun = clock_now(), wait, now, end, left;
	struct random random;
	struct timespec t;

	random_seed(&random, random_id());
	for (;;) {
		s3_wait(client, call);
		if (!is_worth_another(call) || (stop && atomic_load(stop)))
			return;
		if (call->retrying)
			call->retrying(call);
		wait = delay / 2 + random_below(&random, delay / 2 + 1);
		now = clock_now();
		end = end_of(call, begun, deadline);
		left = end > now ? end - now : 0;
		if (left < DELAY_FIRST)
			return;
		if (wait > left / 2)
			wait = left / 2;	/* the time that is left is used */
		t.tv_sec = (time_t)(wait / CLOCK_SECOND);
		t.tv_nsec = (long)(wait % CLOCK_SECOND);
		nanosleep(&t, NULL);
		delay = delay * 2 < DELAY_LAST ? delay * 2 : DELAY_LAST;
		if (stop && atomic_load(stop))
			return;
		call_clear(call);
	}
}
