/* object_gc.c: aborts what a daemon that was killed has left of its uploads: parts that
 * nobody sees and somebody pays for. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "backends/object/object.h"
#include "backends/s3/xml.h"
#include "src/clock.h"
#include "src/log.h"

struct sweep {
	const char *place, *key;
	struct s3_client *client;
	uint64_t retry_for;
	uint32_t grace;			/* seconds */
	bool dry_run;
	bool whole_bucket;		/* of MinIO, which lists by whole keys only */
	struct object_gc_result *result;
};

#define PAUSE_NS (100 * 1000000l)	/* before a list that cannot be read is asked for again */

/* Uploads to the object itself, and to the keys that a probe has used. */
static bool is_ours(const struct sweep *sweep, const char *key)
{
	size_t length = strlen(sweep->key);

	return strncmp(key, sweep->key, length) == 0 &&
	       (!key[length] || strncmp(key + length, ".objmap-probe-", 14) == 0);
}

static int abort_one(struct sweep *sweep, const struct store_entry *entry)
{
	char *query = s3_upload_query(entry->upload, 0);
	struct s3_call call = { .method = "DELETE", .key = entry->key, .query = query,
				.repeatable = true };
	int error = query ? 0 : -ENOMEM;

	if (query) {
		s3_wait_retrying(sweep->client, &call, clock_now() + sweep->retry_for,
				 NULL);
		if (call.outcome != STORE_DONE && strcmp(call.code, "NoSuchUpload") != 0) {
			log_error("%s: aborting an upload to %s: %s", sweep->place,
				  entry->key, call.message);
			error = call.error ? call.error : -EIO;
		}
	}
	s3_call_free(&call);
	free(query);
	return error;
}

static int sweep_page(struct sweep *sweep, const struct store_listing *listing,
		      uint64_t now)
{
	int error = 0;

	for (unsigned int i = 0; i < listing->nr_entries && !error; i++) {
		const struct store_entry *entry = &listing->entries[i];

		if (!is_ours(sweep, entry->key))
			continue;
		if (entry->last_modified + sweep->grace > now) {
			sweep->result->waiting++;
			continue;
		}
		if (!sweep->dry_run)
			error = abort_one(sweep, entry);
		if (!error)
			sweep->result->aborted++;
	}
	return error;
}

/* "uploads&prefix=KEY&key-marker=..&upload-id-marker=.."; malloc'ed, or NULL. */
static char *page_query(const char *key, const char *next_key, const char *next_upload)
{
	const char *const names[] = { "uploads&encoding-type=url&prefix=", "&key-marker=",
				      "&upload-id-marker=" };
	const char *const values[] = { key, next_key, next_upload };
	size_t room = 3 * (2 * STORE_KEY_MAX + S3_UPLOAD_ID_MAX) + 128;
	char *query = malloc(room);
	size_t length = 0;

	if (!query)
		return NULL;
	for (int i = 0; i < 3 && (i == 0 || values[i]); i++) {
		length += (size_t)snprintf(query + length, room - length, "%s", names[i]);
		if (s3_encode(values[i], false, query + length, room - length) < 0) {
			free(query);
			return NULL;
		}
		length += strlen(query + length);
	}
	return query;
}

/* One page of what @query asks for; @call is the caller's to free.  A list that was
 * damaged on its way is asked for again. */
static int ask_page(struct sweep *sweep, const char *query, struct s3_call *call,
		    struct store_listing *listing, char **next_key, char **next_upload)
{
	const struct timespec pause = { 0, PAUSE_NS };
	uint64_t deadline = clock_now() + sweep->retry_for;

	for (;;) {
		*call = (struct s3_call){ .method = "GET", .query = query,
					  .text_max = 4u << 20 };
		s3_wait_retrying(sweep->client, call, deadline, NULL);
		if (call->outcome != STORE_DONE)
			break;
		if (s3_xml_uploads(call->http.text ? call->http.text : "",
				   call->http.text_count, listing, next_key,
				   next_upload) == 0)
			return 0;
		s3_call_is_wrong(call, "no list of uploads that can be read");
		if (clock_now() + PAUSE_NS >= deadline)
			break;
		s3_call_free(call);
		nanosleep(&pause, NULL);
	}
	log_error("%s: listing its uploads: %s", sweep->place, call->message);
	return call->error ? call->error : -EIO;
}

static bool same(const char *a, const char *b)
{
	return a && b ? strcmp(a, b) == 0 : a == b;
}

/* One page; *next_key and *next_upload are where the next begins, NULL: none. */
static int list_page(struct sweep *sweep, char **next_key, char **next_upload)
{
	char *query = page_query(sweep->whole_bucket ? "" : sweep->key, *next_key,
				 *next_upload);
	char *last_key = *next_key, *last_upload = *next_upload;
	struct store_listing listing = { 0 };
	struct s3_call call = { 0 };
	bool again = false;
	const char *date;
	int error = -ENOMEM;

	*next_key = *next_upload = NULL;
	if (query)
		error = ask_page(sweep, query, &call, &listing, next_key, next_upload);
	if (!error && *next_key && same(*next_key, last_key) &&
	    same(*next_upload, last_upload)) {
		log_error("%s: listing its uploads: a page that is followed by itself",
			  sweep->place);
		error = -EPROTO;
	}
	if (!error && !sweep->whole_bucket && s3_is_minio(&call)) {
		sweep->whole_bucket = again = true;
		free(*next_key);
		free(*next_upload);
		*next_key = *next_upload = NULL;
	} else if (!error) {
		date = http_headers_find(&call.http.reply, "Date");
		error = sweep_page(sweep, &listing, date ? s3_date(date) : 0);
	}
	free(last_key);
	free(last_upload);
	store_listing_free(&listing);
	s3_call_free(&call);
	free(query);
	return again ? list_page(sweep, next_key, next_upload) : error;
}

int s3_object_gc(const char *place, const char *bucket, const char *key,
		 const struct s3_options *s3, const struct object_gc_options *options,
		 struct object_gc_result *result)
{
	struct sweep sweep = {
		.place = place, .key = key, .retry_for = options->retry_for,
		.grace = options->grace, .dry_run = options->dry_run, .result = result,
	};
	char *next_key = NULL, *next_upload = NULL;
	int error = s3_client_open(place, bucket, s3, &sweep.client);

	if (error)
		return error;
	memset(result, 0, sizeof(*result));
	do
		error = list_page(&sweep, &next_key, &next_upload);
	while (!error && next_key);
	free(next_key);
	free(next_upload);
	s3_client_close(sweep.client);
	return error;
}
