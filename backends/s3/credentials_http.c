/* credentials_http.c: asking over HTTP for keys: metadata services and STS. */
#include <curl/curl.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "backends/s3/credentials_find.h"
#include "src/clock.h"
#include "src/errors.h"

#define REPLY_MAX	(64u << 10)
#define PAUSE_MS	300		/* doubled for each further try */

static struct http_client *client_open(struct search *search, struct http_client **client,
				       const struct http_client_options *options)
{
	int error = *client ? 0 : http_client_open(options, client);

	if (error) {
		*client = NULL;
		search_fails(search, error, "HTTP: %s", strerror(-error));
	}
	return *client;
}

/* They are on this machine or next to it: a proxy would be somebody else. */
struct http_client *search_metadata_client(struct search *search)
{
	const struct http_client_options options = {
		.connections = 1, .no_proxy = true, .connect_timeout = CLOCK_SECOND,
		.stall_timeout = 2 * CLOCK_SECOND,
	};

	return client_open(search, &search->metadata, &options);
}

struct http_client *search_web_client(struct search *search)
{
	const struct http_client_options options = {
		.connections = 1, .ca_bundle = search->options.ca_bundle,
		.connect_timeout = 5 * CLOCK_SECOND, .stall_timeout = 10 * CLOCK_SECOND,
	};

	return client_open(search, &search->web, &options);
}

void search_close_clients(struct search *search)
{
	if (search->metadata)
		http_client_close(search->metadata);
	if (search->web)
		http_client_close(search->web);
	search->metadata = search->web = NULL;
}

/* A reply says what time its sender has, and so when keys from it end for us. */
static void note_skew(struct search *search, const struct http_request *request)
{
	const char *date = http_headers_find(&request->reply, "Date");
	time_t theirs = date ? curl_getdate(date, NULL) : -1;
	int64_t skew = theirs < 0 ? 0 : (int64_t)theirs - (int64_t)time(NULL);

	/* Less is rounding, and the time a reply takes. */
	search->skew = skew > 2 || skew < -2 ? skew : 0;
}

static void pause_before(struct search *search, unsigned int try)
{
	uint64_t end = clock_now() + ((uint64_t)PAUSE_MS << try) * CLOCK_MS;
	const struct timespec moment = { .tv_nsec = 20 * (long)CLOCK_MS };

	while (clock_now() < end && !atomic_load(search->closing))
		nanosleep(&moment, NULL);
}

static bool may_help(const struct http_request *request)
{
	if (request->failure == HTTP_REPLIED)
		return request->status == 408 || request->status == 429 ||
		       request->status >= 500;
	/* Certificates and names do not change by asking again. */
	return request->error == -ETIMEDOUT || request->error == -ECONNREFUSED ||
	       request->error == -ECONNRESET || request->error == -EIO;
}

static void reply_forget(struct http_request *request)
{
	free(request->text);
	request->text = NULL;
	request->text_count = 0;
	http_headers_free(&request->reply);
}

int search_fetch(struct search *search, struct http_client *client,
		 struct http_request *request, uint64_t patience, unsigned int tries)
{
	request->text_max = REPLY_MAX;
	request->priority = PRIORITY_DEMAND;
	for (unsigned int try = 0; ; try++) {
		request->deadline = clock_now() + patience;
		if (request->deadline > search->deadline)
			request->deadline = search->deadline;
		http_wait(client, request);
		if (try + 1 >= tries || !may_help(request) ||
		    atomic_load(search->closing) || clock_now() >= search->deadline)
			break;
		reply_forget(request);
		pause_before(search, try);
	}
	if (request->failure == HTTP_REPLIED && !request->error) {
		note_skew(search, request);
		return 0;
	}
	return search_fails(search, request->error ? request->error : -EIO, "%s",
			    request->message[0] ? request->message :
			    error_words(request->error ? request->error : -EIO));
}
