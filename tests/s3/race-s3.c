/* race-s3.c: many threads at one bucket, for the thread sanitizer: puts (long ones in
 * parts), gets, deletes and cancelling at once, at a server that fails now and then.
 * Ends with 0 when every request completed once and no get was torn. */
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "src/clock.h"
#include "src/random.h"
#include "tests/s3/script.h"

#define NR_THREADS 6
#define ROUNDS	   40
#define LONG	   (6u << 20)

#define OBJECT "ETag: \"0cc175b9c0f1b6a831c399e269772661\"\r\n"

static const struct line lines[] = {
	{ "GET /b/p/short", "503 Slow Down", NULL, XML_ERROR("SlowDown"), 20, 0 },
	{ "GET /b/p/short", NULL, NULL, NULL, 10, 0 },
	{ "GET /b/p/short", "200 OK", OBJECT, "0123456789", 0, 0 },
	{ "GET /b/p/long", "404 Not Found", NULL, XML_ERROR("NoSuchKey"), 0, 0 },
	{ "PUT /b/p/long?partNumber=2", "503 Slow Down", NULL, XML_ERROR("SlowDown"), 5, 0 },
	{ "PUT", "200 OK", OBJECT, NULL, 0, 0 },
	{ "POST /b/p/long?uploads=", "200 OK", NULL, "<InitiateMultipartUploadResult>"
	  "<UploadId>u</UploadId></InitiateMultipartUploadResult>", 0, 0 },
	{ "POST /b/p/long?uploadId", NULL, NULL, NULL, 3, 0 },
	{ "POST /b/p/long?uploadId", "200 OK", NULL, "<CompleteMultipartUploadResult>"
	  "<ETag>e</ETag></CompleteMultipartUploadResult>", 0, 0 },
	{ "DELETE", "204 No Content", NULL, NULL, 0, 0 },
	{ 0 },
};

static struct store *store;
static char content[LONG];

static void check(bool good, const char *what)
{
	if (good)
		return;
	fprintf(stderr, "race-s3: %s\n", what);
	_Exit(1);
}

struct trial {
	struct store_request request;
	struct iovec iov;
	pthread_mutex_t lock;
	pthread_cond_t wake;
	unsigned int nr_ends;
	enum store_outcome outcome;
	char got[10];
};

static void ended(struct store_request *request, enum store_outcome outcome)
{
	struct trial *trial = request->context;

	pthread_mutex_lock(&trial->lock);
	trial->nr_ends++;
	trial->outcome = outcome;
	pthread_cond_signal(&trial->wake);
	pthread_mutex_unlock(&trial->lock);
}

static void begin(struct trial *trial, struct random *random)
{
	static const char *const key = "long";
	struct store_request *request = &trial->request;

	memset(trial, 0, sizeof(*trial));
	pthread_mutex_init(&trial->lock, NULL);
	pthread_cond_init(&trial->wake, NULL);
	request->done = ended;
	request->context = trial;
	request->iov = &trial->iov;
	request->nr_iov = 1;
	switch (random_below(random, 4)) {
	case 0:
		request->op = STORE_PUT;
		request->key = random_below(random, 2) ? "long" : "other";
		trial->iov.iov_base = content;
		trial->iov.iov_len = strcmp(request->key, "long") == 0 ? LONG : 1000;
		break;
	case 1:
		request->op = STORE_DELETE;
		request->keys = &key;
		request->nr_keys = 1;
		request->iov = NULL;
		request->nr_iov = 0;
		break;
	default:
		request->op = STORE_GET;
		request->key = "short";
		request->whole = true;
		trial->iov = (struct iovec){ .iov_base = trial->got, .iov_len = 10 };
	}
	request->count = trial->iov.iov_len;
	store_submit(store, request);
}

static void end(struct trial *trial, bool was_cancelled)
{
	pthread_mutex_lock(&trial->lock);
	while (!trial->nr_ends)
		pthread_cond_wait(&trial->wake, &trial->lock);
	pthread_mutex_unlock(&trial->lock);
	check(trial->nr_ends == 1, "a request ended twice");
	check(trial->outcome == STORE_DONE || was_cancelled, "a request failed");
	if (trial->outcome == STORE_DONE && trial->request.op == STORE_GET)
		check(memcmp(trial->got, "0123456789", 10) == 0, "a get is torn");
	pthread_mutex_destroy(&trial->lock);
	pthread_cond_destroy(&trial->wake);
}

static void *race(void *context)
{
	struct trial trials[3];
	struct random random;
	bool cancelled[3];
	int round, i;

	random_seed(&random, (uint64_t)(uintptr_t)context);
	for (round = 0; round < ROUNDS; round++) {
		for (i = 0; i < 3; i++)
			begin(&trials[i], &random);
		for (i = 0; i < 3; i++) {
			cancelled[i] = random_below(&random, 4) == 0;
			if (cancelled[i])
				store_cancel(&trials[i].request);
		}
		for (i = 0; i < 3; i++)
			end(&trials[i], cancelled[i]);
	}
	return NULL;
}

int main(void)
{
	struct script *script;
	struct s3_options options;
	pthread_t threads[NR_THREADS];
	uintptr_t i;

	script_environment();
	script = script_start(lines, false);
	options = script_options(script);
	options.multipart_threshold = options.part_size = S3_PART_MIN;
	store = script_store(script, &options);
	atomic_store(&store->retry_for, 60 * CLOCK_SECOND);
	for (i = 0; i < NR_THREADS; i++)
		check(pthread_create(&threads[i], NULL, race, (void *)(i + 1)) == 0,
		      "no thread");
	for (i = 0; i < NR_THREADS; i++)
		pthread_join(threads[i], NULL);
	check(atomic_load(&store->counters.in_flight) == 0, "something is still in flight");
	check(script_misfits(script) == 0, "something else was asked for");
	store_close(store);
	script_stop(script);
	return 0;
}
