/* race-http.c: many threads at the pool, for the thread sanitizer: two clients, all
 * priorities, replies that are good, slow, cut and refused, cancelling at any moment,
 * deadlines, and clients that come and go.  Ends with 0 when every request ended once,
 * and what was called a success was one. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "backends/http/http.h"
#include "src/clock.h"
#include "src/random.h"
#include "tests/http/server.h"

#define NR_THREADS 4
#define ROUNDS	   40
#define NR_AT_ONCE 8
#define COUNT	   20000

static struct server *server;
static struct http_client *clients[2];
static char data[COUNT];

struct one {
	struct http_request request;
	struct iovec iov;
	char buffer[COUNT];
	atomic_uint ended;
	pthread_mutex_t lock;		/* cancel only before done */
	bool done;
};

static void check(bool good, const char *what)
{
	if (good)
		return;
	fprintf(stderr, "race-http: %s\n", what);
	_Exit(1);
}

static bool answer(struct visit *visit)
{
	switch (visit->target[1]) {
	case 's':
		usleep(3000);
		break;
	case 'c':
		visit_say(visit, "HTTP/1.1 200 OK\r\nContent-Length: 20000\r\n\r\nabc");
		return false;
	case 'r':
		return visit_reset(visit);
	case 'e':
		visit_say(visit, "HTTP/1.1 503 Slow\r\nContent-Length: 4\r\n\r\nslow");
		return true;
	}
	visit_reply(visit, data, COUNT);
	return true;
}

static void one_done(struct http_request *request)
{
	struct one *one = request->context;

	pthread_mutex_lock(&one->lock);
	one->done = true;
	pthread_mutex_unlock(&one->lock);
	check(atomic_fetch_add(&one->ended, 1) == 0, "a request ended twice");
}

static void one_start(struct one *one, struct random *random)
{
	static const char *const paths[] = { "/good", "/slow", "/cut", "/reset", "/error",
					     "/good" };
	struct http_request *request = &one->request;
	const char *path = paths[random_below(random, 6)];

	memset(one, 0, sizeof(*one));
	pthread_mutex_init(&one->lock, NULL);
	one->iov = (struct iovec){ one->buffer, COUNT };
	request->method = random_below(random, 3) ? "GET" : "PUT";
	request->url = server_url(server, path);
	request->sink = &one->iov;
	request->nr_sink = 1;
	request->sink_count = COUNT;
	request->text_max = 100;
	if (request->method[0] == 'P') {
		request->body = &one->iov;
		request->nr_body = 1;
		request->body_count = COUNT;
		request->sink = NULL;
		request->sink_count = 0;
		request->text_max = COUNT;
	}
	request->priority = random_below(random, 3);
	if (!random_below(random, 4))
		request->deadline = clock_now() + random_below(random, 5000000);
	request->done = one_done;
	request->context = one;
	http_submit(clients[random_below(random, 2)], request);
}

static void one_cancel(struct one *one)
{
	pthread_mutex_lock(&one->lock);
	if (!one->done)
		http_cancel(&one->request);
	pthread_mutex_unlock(&one->lock);
}

static void one_judge(struct one *one)
{
	struct http_request *request = &one->request;

	for (int i = 0; !atomic_load(&one->ended); i++) {
		check(i < 20000, "a request does not end");
		usleep(1000);
	}
	pthread_mutex_lock(&one->lock);	/* one_done() is out of it */
	pthread_mutex_unlock(&one->lock);
	if (!request->error && request->status == 200 && request->sink)
		check(request->sunk == COUNT && !memcmp(one->buffer, data, COUNT),
		      "a success with other bytes");
	if (!request->error)
		check(request->status == 200 || request->status == 503,
		      "a success without a status");
	pthread_mutex_destroy(&one->lock);
	http_request_free(request);
}

static void *race(void *context)
{
	struct random random;
	struct one *all = calloc(NR_AT_ONCE, sizeof(*all));

	random_seed(&random, *(uint64_t *)context);
	for (int round = 0; round < ROUNDS; round++) {
		for (int i = 0; i < NR_AT_ONCE; i++)
			one_start(&all[i], &random);
		for (int i = 0; i < NR_AT_ONCE; i++)
			if (!random_below(&random, 3))
				one_cancel(&all[random_below(&random, NR_AT_ONCE)]);
		for (int i = 0; i < NR_AT_ONCE; i++)
			one_judge(&all[i]);
	}
	free(all);
	return NULL;
}

static void come_and_go(unsigned int connections)
{
	struct http_client_options options = { .connections = connections,
					       .no_proxy = true };
	struct http_request request = { .method = "GET", .text_max = COUNT };
	struct http_client *client;

	check(http_client_open(&options, &client) == 0, "no client");
	request.url = server_url(server, "/good");
	http_wait(client, &request);
	check(!request.error && request.text_count == COUNT, "a GET failed");
	http_request_free(&request);
	http_client_close(client);
}

int main(void)
{
	struct server_options options = { .answer = answer };
	struct http_client_options own = { .connections = 6, .no_proxy = true };
	pthread_t threads[NR_THREADS];
	uint64_t seeds[NR_THREADS];

	memset(data, 'x', sizeof(data));
	server = server_start(&options);
	for (int life = 0; life < 2; life++) {
		for (int i = 0; i < 2; i++)
			check(http_client_open(&own, &clients[i]) == 0, "no client");
		for (int i = 0; i < NR_THREADS; i++) {
			seeds[i] = (uint64_t)(i + 1 + life * NR_THREADS);
			pthread_create(&threads[i], NULL, race, &seeds[i]);
		}
		for (unsigned int i = 0; i < 5; i++)
			come_and_go(1 + i * 5);
		for (int i = 0; i < NR_THREADS; i++)
			pthread_join(threads[i], NULL);
		for (int i = 0; i < 2; i++)
			http_client_close(clients[i]);
	}
	server_stop(server);
	return 0;
}
