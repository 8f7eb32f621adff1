/* pool.c: the queue of requests, and who may use a connection next.
 *
 * Demand goes before prefetch before push; within a priority the clients take
 * turns.  What is not demand leaves some connections free, and pushes half of them
 * while anybody reads: so a read finds a connection, or gets the next one. */
#include "config.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "backends/http/pool.h"
#include "src/clock.h"
#include "src/log.h"

#define NR_THREADS	2
#define BYTES_MAX	(256ull << 20)	/* in flight, unless one alone has more */
#define READS_LAST	CLOCK_SECOND	/* reads are expected so long after one */
#define CONNECT_TIMEOUT (10 * CLOCK_SECOND)
#define STALL_TIMEOUT	(30 * CLOCK_SECOND)

static pthread_mutex_t life = PTHREAD_MUTEX_INITIALIZER;	/* opening and closing */

static struct {
	pthread_mutex_t lock;		/* guards what follows */
	struct http_client *clients;
	uint64_t last_id;
	unsigned int cap;		/* connections */
	struct http_ring {		/* clients with something queued */
		struct http_client *first, **last;
	} rings[NR_PRIORITIES];
	unsigned int nr_queued;
	uint64_t queue_due;		/* the earliest deadline in the queue */
	unsigned int busy[NR_PRIORITIES];
	uint64_t bytes[NR_PRIORITIES];	/* in flight */
	uint64_t last_demand;		/* clock_now() when one was last queued */
	struct http_thread *threads;
	unsigned int nr_threads;
} pool = { .lock = PTHREAD_MUTEX_INITIALIZER };

static atomic_int sockets;
static atomic_ullong connects;

/* ---- the queue; the lock is held -------------------------------------------- */

static void ring_add(struct http_client *client, int priority)
{
	struct http_ring *ring = &pool.rings[priority];

	client->queued[priority].next = NULL;
	*ring->last = client;
	ring->last = &client->queued[priority].next;
}

static void ring_remove(struct http_client *client, int priority)
{
	struct http_ring *ring = &pool.rings[priority];
	struct http_client **at = &ring->first;

	while (*at != client)
		at = &(*at)->queued[priority].next;
	*at = client->queued[priority].next;
	if (!*at)
		ring->last = at;
}

static void fifo_add(struct http_request *request)
{
	struct http_fifo *fifo = &request->client->queued[request->priority];

	request->place = HTTP_QUEUED;
	request->next = NULL;
	if (!fifo->first) {
		fifo->last = &fifo->first;
		ring_add(request->client, request->priority);
	}
	*fifo->last = request;
	fifo->last = &request->next;
	pool.nr_queued++;
	if (request->deadline && request->deadline < pool.queue_due)
		pool.queue_due = request->deadline;
}

/* Takes *@at, which is in @client's queue, out of it. */
static struct http_request *fifo_remove(struct http_client *client, int priority,
					struct http_request **at)
{
	struct http_fifo *fifo = &client->queued[priority];
	struct http_request *request = *at;

	*at = request->next;
	if (!*at)
		fifo->last = at;
	if (!fifo->first)
		ring_remove(client, priority);
	pool.nr_queued--;
	return request;
}

static uint64_t request_bytes(const struct http_request *request)
{
	return request->body_count + request->sink_count;
}

/* How many connections requests of @priority and later ones may have together. */
static unsigned int share(int priority, uint64_t now)
{
	unsigned int kept = pool.cap / 8 ? pool.cap / 8 : 1;

	if (priority == PRIORITY_DEMAND || pool.cap == 1)
		return pool.cap;
	if (priority == PRIORITY_PUSH && now - pool.last_demand < READS_LAST)
		kept = (pool.cap + 1) / 2;
	return pool.cap - kept;
}

static bool may_run(const struct http_request *request, uint64_t now)
{
	uint64_t bytes = 0, most = BYTES_MAX;
	unsigned int busy = 0, all = 0;

	for (int i = 0; i < NR_PRIORITIES; i++) {
		all += pool.busy[i];
		if (i >= (int)request->priority) {
			busy += pool.busy[i];
			bytes += pool.bytes[i];
		}
	}
	if (request->priority != PRIORITY_DEMAND)
		most /= 2;
	return all < pool.cap && busy < share(request->priority, now) &&
	       (!busy || bytes + request_bytes(request) <= most);
}

/* The next one to run, or NULL.  An earlier priority that may not run yet is not
 * overtaken. */
static struct http_request *queue_take(uint64_t now)
{
	struct http_client *client;
	struct http_fifo *fifo;

	for (int i = 0; i < NR_PRIORITIES; i++) {
		client = pool.rings[i].first;
		if (!client)
			continue;
		fifo = &client->queued[i];
		if (!may_run(fifo->first, now))
			return NULL;
		ring_remove(client, i);
		ring_add(client, i);	/* the others' turn first */
		return fifo_remove(client, i, &fifo->first);
	}
	return NULL;
}

static struct http_thread *least_busy(void)
{
	struct http_thread *least = &pool.threads[0];

	for (unsigned int i = 1; i < pool.nr_threads; i++)
		if (pool.threads[i].busy < least->busy)
			least = &pool.threads[i];
	return least;
}

static void hand(struct http_request *request)
{
	struct http_thread *thread = least_busy();

	request->place = HTTP_HANDED;
	request->thread = thread;
	request->next = NULL;
	*thread->handed_end = request;
	thread->handed_end = &request->next;
	thread->busy++;
	pool.busy[request->priority]++;
	pool.bytes[request->priority] += request_bytes(request);
}

static void hand_out(uint64_t now)
{
	struct http_request *request;

	while (pool.nr_queued && (request = queue_take(now)))
		hand(request);
}

static void give_back(struct http_request *request)
{
	request->place = HTTP_ENDED;
	request->thread->busy--;
	pool.busy[request->priority]--;
	pool.bytes[request->priority] -= request_bytes(request);
}

/* Out of the queue; @thread will tell. */
static void give_up(struct http_thread *thread, struct http_request *request,
		    int error, const char *why)
{
	request->place = HTTP_ENDED;
	request->error = error;
	request->failure = HTTP_NOT_SENT;
	snprintf(request->message, sizeof(request->message), "%s", why);
	request->next = thread->given_up;
	thread->given_up = request;
}

static void expire_queue(struct http_thread *thread, uint64_t now)
{
	struct http_client *client;
	struct http_request **at;

	pool.queue_due = UINT64_MAX;
	for (client = pool.clients; client; client = client->next) {
		for (int i = 0; i < NR_PRIORITIES; i++) {
			at = &client->queued[i].first;
			while (*at) {
				if (!(*at)->deadline || (*at)->deadline > now) {
					if ((*at)->deadline &&
					    (*at)->deadline < pool.queue_due)
						pool.queue_due = (*at)->deadline;
					at = &(*at)->next;
					continue;
				}
				give_up(thread, fifo_remove(client, i, at), -ETIMEDOUT,
					"no connection became free in time");
			}
		}
	}
}

/* Which threads have to be woken (bits): those that sleep and have got work, and
 * the first when it would sleep past a deadline in the queue. */
static unsigned int to_be_woken(void)
{
	unsigned int bits = 0;

	for (unsigned int i = 0; i < pool.nr_threads; i++) {
		struct http_thread *thread = &pool.threads[i];

		if (!thread->sleeping)
			continue;
		if (thread->handed || thread->given_up || thread->look ||
		    thread->ending || (i == 0 && pool.queue_due < thread->until)) {
			thread->sleeping = false;
			bits |= 1u << i;
		}
	}
	return bits;
}

/* ---- without the lock -------------------------------------------------------- */

static void wake(unsigned int bits)
{
	for (unsigned int i = 0; bits >> i; i++)
		if (bits >> i & 1)
			http_thread_wake(&pool.threads[i]);
}

void pool_turn(struct http_thread *thread, struct http_request *ended,
	       struct http_work *work)
{
	unsigned int bits;

	pthread_mutex_lock(&pool.lock);
	thread->sleeping = false;
	for (; ended; ended = ended->next)
		give_back(ended);
	if (thread->now >= pool.queue_due)
		expire_queue(thread, thread->now);
	hand_out(thread->now);
	work->handed = thread->handed;
	work->given_up = thread->given_up;
	work->look = thread->look;
	work->ending = thread->ending;
	work->connections = (pool.cap + pool.nr_threads - 1) / pool.nr_threads;
	work->until = thread->number == 0 ? pool.queue_due : UINT64_MAX;
	thread->handed = thread->given_up = NULL;
	thread->handed_end = &thread->handed;
	thread->look = false;
	bits = to_be_woken();
	if (!work->handed && !work->given_up && !work->look && !thread->ending) {
		thread->sleeping = true;
		thread->until = work->until;
	}
	pthread_mutex_unlock(&pool.lock);
	wake(bits);
}

void pool_count_sockets(int change)
{
	atomic_fetch_add(&sockets, change);
}

void pool_count_connects(unsigned int count)
{
	atomic_fetch_add(&connects, count);
}

static void reply_clear(struct http_request *request)
{
	request->failure = HTTP_REPLIED;
	request->error = 0;
	request->message[0] = 0;
	request->status = 0;
	request->reply.length = 0;
	request->length = UINT64_MAX;
	request->sunk = 0;
	free(request->text);
	request->text = NULL;
	request->text_count = 0;
	request->resent = false;
}

void http_submit(struct http_client *client, struct http_request *request)
{
	uint64_t now = clock_now();
	unsigned int bits;

	reply_clear(request);
	request->client = client;
	request->thread = NULL;
	pthread_mutex_lock(&pool.lock);
	if (request->priority == PRIORITY_DEMAND)
		pool.last_demand = now;
	fifo_add(request);
	hand_out(now);
	bits = to_be_woken();
	pthread_mutex_unlock(&pool.lock);
	wake(bits);
}

/* The lock is held. */
static void take_cancelled(struct http_request *request)
{
	struct http_fifo *fifo = &request->client->queued[request->priority];
	struct http_request **at = &fifo->first;

	while (*at != request)
		at = &(*at)->next;
	fifo_remove(request->client, request->priority, at);
	give_up(&pool.threads[0], request, -ECANCELED, "cancelled");
}

void http_cancel(struct http_request *request)
{
	unsigned int bits;

	atomic_store(&request->cancelled, true);
	pthread_mutex_lock(&pool.lock);
	if (request->place == HTTP_QUEUED)
		take_cancelled(request);
	else if (request->place == HTTP_HANDED)
		request->thread->look = true;
	bits = to_be_woken();
	pthread_mutex_unlock(&pool.lock);
	wake(bits);
}

static void wait_done(struct http_request *request)
{
	sem_post(request->context);
}

void http_wait(struct http_client *client, struct http_request *request)
{
	sem_t done;

	sem_init(&done, 0, 0);
	request->done = wait_done;
	request->context = &done;
	http_submit(client, request);
	while (sem_wait(&done) < 0)	/* EINTR */
		;
	sem_destroy(&done);
}

void http_request_free(struct http_request *request)
{
	free(request->url);
	request->url = NULL;
	http_headers_free(&request->headers);
	http_headers_free(&request->reply);
	reply_clear(request);
	atomic_store(&request->cancelled, false);
	request->place = HTTP_IDLE;
}

void http_counts(struct http_counts *counts)
{
	memset(counts, 0, sizeof(*counts));
	pthread_mutex_lock(&pool.lock);
	for (int i = 0; i < NR_PRIORITIES; i++)
		counts->busy += pool.busy[i];
	counts->queued = pool.nr_queued;
	pthread_mutex_unlock(&pool.lock);
	counts->connections = (unsigned int)atomic_load(&sockets);
	counts->connects = atomic_load(&connects);
}

/* ---- clients ------------------------------------------------------------------ */

static void client_free(struct http_client *client)
{
	free((char *)client->options.ca_bundle);
	free((char *)client->options.client_name);
	free(client);
}

static struct http_client *client_new(const struct http_client_options *options)
{
	struct http_client *client = calloc(1, sizeof(*client));
	const char *name = options->client_name;

	if (!client)
		return NULL;
	client->options = *options;
	client->options.client_name = strdup(name ? name : "objmap/" VERSION);
	client->options.ca_bundle = options->ca_bundle ? strdup(options->ca_bundle) : NULL;
	if (!client->options.client_name ||
	    (options->ca_bundle && !client->options.ca_bundle)) {
		client_free(client);
		return NULL;
	}
	if (!client->options.connections)
		client->options.connections = HTTP_CONNECTIONS;
	if (!client->options.connect_timeout)
		client->options.connect_timeout = CONNECT_TIMEOUT;
	if (!client->options.stall_timeout)
		client->options.stall_timeout = STALL_TIMEOUT;
	return client;
}

/* The lock is held. */
static void find_cap(void)
{
	struct http_client *client;

	pool.cap = 0;
	for (client = pool.clients; client; client = client->next)
		if (client->options.connections > pool.cap)
			pool.cap = client->options.connections;
}

static void threads_stop(void)
{
	unsigned int bits;

	pthread_mutex_lock(&pool.lock);
	for (unsigned int i = 0; i < pool.nr_threads; i++)
		pool.threads[i].ending = true;
	bits = to_be_woken();
	pthread_mutex_unlock(&pool.lock);
	wake(bits);
	for (unsigned int i = 0; i < pool.nr_threads; i++)
		http_thread_join(&pool.threads[i]);
	free(pool.threads);
	pool.threads = NULL;
	pool.nr_threads = 0;
}

static int threads_start(void)
{
	struct http_thread *threads = calloc(NR_THREADS, sizeof(*threads));
	int error = threads ? 0 : -ENOMEM;

	if (!error && curl_global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK)
		error = -ENOMEM;
	pthread_mutex_lock(&pool.lock);	/* the first ones wait for the last */
	for (int i = 0; i < NR_PRIORITIES; i++)
		pool.rings[i].last = &pool.rings[i].first;
	pool.queue_due = UINT64_MAX;
	pool.threads = threads;
	while (!error && pool.nr_threads < NR_THREADS) {
		threads[pool.nr_threads].number = pool.nr_threads;
		error = http_thread_start(&threads[pool.nr_threads]);
		if (error)
			break;
		pool.nr_threads++;
	}
	pthread_mutex_unlock(&pool.lock);
	if (error)
		threads_stop();
	return error;
}

int http_client_open(const struct http_client_options *options,
		     struct http_client **result)
{
	struct http_client *client;
	int error = 0;

	if (options->ca_bundle && access(options->ca_bundle, R_OK) < 0) {
		error = -errno;
		log_error("cannot read the CA bundle %s: %s", options->ca_bundle,
			  strerror(errno));
		return error;
	}
	client = client_new(options);
	if (!client) {
		log_error("http: %s", strerror(ENOMEM));
		return -ENOMEM;
	}
	pthread_mutex_lock(&life);
	if (!pool.clients)
		error = threads_start();
	if (!error) {
		pthread_mutex_lock(&pool.lock);
		client->id = ++pool.last_id;
		client->next = pool.clients;
		pool.clients = client;
		find_cap();
		pthread_mutex_unlock(&pool.lock);
	}
	pthread_mutex_unlock(&life);
	if (error) {
		log_error("http: cannot start its threads: %s", strerror(-error));
		client_free(client);
		return error;
	}
	*result = client;
	return 0;
}

void http_client_close(struct http_client *client)
{
	struct http_client **at;

	pthread_mutex_lock(&life);
	pthread_mutex_lock(&pool.lock);
	for (int i = 0; i < NR_PRIORITIES; i++)
		assert(!client->queued[i].first);
	for (at = &pool.clients; *at != client; at = &(*at)->next)
		;
	*at = client->next;
	find_cap();
	pthread_mutex_unlock(&pool.lock);
	if (!pool.clients)
		threads_stop();
	pthread_mutex_unlock(&life);
	client_free(client);
}
