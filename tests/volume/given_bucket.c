/* given_bucket.c: a bucket of bucket.h that is a folder of a real server's.
 *
 * Every request goes to the server as it is, and its answer comes when it comes.
 * What no server does for a test is done on the way: its clock runs ahead in what
 * it answers, conditions are taken out of puts, and an upload in parts is left
 * before its end.  Answers are given by threads of their own, because a test may
 * do much in the middle of one. */
#include "tests/volume/given_bucket.h"

#include <errno.h>
#include <pthread.h>
#include <search.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backends/store/s3.h"
#include "src/place.h"
#include "tests/store/given.h"

/* How far the clock was ahead when an object was put. */
struct birth {
	uint64_t clock_added;
	char key[];			/* from the bucket's top */
};

/* An upload that stands before its end. */
struct held_upload {
	struct s3_client *client;	/* of the store root, which stays */
	struct store_request *put;	/* not answered; NULL: its client is gone */
	char *key;			/* from the top of the server's bucket */
	char id[S3_UPLOAD_ID_MAX];
	struct s3_part part;
	struct held_upload *next;
};

struct given_bucket {
	pthread_mutex_t lock;
	pthread_cond_t change;
	char name[64];			/* below the place */
	char *top;			/* of the place, from the server's top, with a '/' */
	struct store *root;
	void *births;			/* a tree of struct birth */
	uint64_t clock_added;		/* seconds */
	bool unconditional;
	uint64_t held;			/* puts of so many bytes are; 0: none */
	unsigned int nr_beginning;	/* uploads not yet among these */
	struct held_upload *uploads;
	unsigned int nr_answering;	/* threads */
};

struct client {
	struct store store;		/* must stay first */
	struct given_bucket *bucket;
	struct store *inner;
	char prefix[512];
};

/* A request on its way to the server. */
struct passage {
	struct store_request inner;
	struct client *client;
	struct store_request *outer;
	enum store_outcome outcome;
	uint64_t clock_added;		/* when it was sent */
	char key[STORE_KEY_MAX];	/* where it has another than the outer one */
};

static void *must(void *memory)
{
	if (!memory)
		abort();
	return memory;
}

/* ---- the clock; the bucket's lock is held ------------------------------------------ */

static int compare_births(const void *a, const void *b)
{
	return strcmp(((const struct birth *)a)->key, ((const struct birth *)b)->key);
}

/* The birth of the object of @key below @prefix; NULL: a new one, which is its
 * owner's, or none. */
static struct birth *find_birth(struct given_bucket *bucket, const char *prefix,
				const char *key, bool create)
{
	size_t length = strlen(prefix) + strlen(key) + 2;
	struct birth *birth = must(calloc(1, sizeof(*birth) + length)), **found;

	snprintf(birth->key, length, "%s/%s", prefix, key);
	found = create ? must(tsearch(birth, &bucket->births, compare_births)) :
		tfind(birth, &bucket->births, compare_births);
	if (!found || *found != birth)
		free(birth);
	return found ? *found : NULL;
}

/* When the server put an object, as this bucket's clock shows it. */
static void make_late(struct client *client, const char *key, uint64_t *last_modified)
{
	struct birth *birth;

	if (*key == '/')	/* from the top already */
		birth = find_birth(client->bucket, "", key + 1, false);
	else
		birth = find_birth(client->bucket, client->prefix, key, false);
	if (birth)
		*last_modified += birth->clock_added;
}

static void adjust_clock(struct passage *passage)
{
	struct store_reply *reply = &passage->inner.reply;
	struct client *client = passage->client;
	struct store_listing *listing = &reply->listing;
	const struct store_request *outer = passage->outer;
	unsigned int i;

	if (passage->outcome == STORE_DONE && outer->op == STORE_PUT)
		find_birth(client->bucket, client->prefix, outer->key, true)->clock_added =
			passage->clock_added;
	if (passage->outcome == STORE_DONE && outer->op == STORE_GET)
		make_late(client, outer->key, &reply->last_modified);
	for (i = 0; outer->op == STORE_LIST && i < listing->nr_entries; i++)
		make_late(client, listing->entries[i].key,
			  &listing->entries[i].last_modified);
	reply->date += client->bucket->clock_added;
}

/* ---- answers --------------------------------------------------------------------------- */

static void *answer(void *context)
{
	struct passage *passage = context;
	struct given_bucket *bucket = passage->client->bucket;
	struct store_request *outer = passage->outer;
	enum store_outcome outcome = passage->outcome;

	pthread_mutex_lock(&bucket->lock);
	adjust_clock(passage);
	pthread_mutex_unlock(&bucket->lock);
	outer->reply = passage->inner.reply;
	free(passage);
	store_complete(outer, outcome);
	pthread_mutex_lock(&bucket->lock);
	bucket->nr_answering--;
	pthread_cond_broadcast(&bucket->change);
	pthread_mutex_unlock(&bucket->lock);
	return NULL;
}

static void passage_done(struct store_request *inner, enum store_outcome outcome)
{
	struct passage *passage = inner->context;
	struct given_bucket *bucket = passage->client->bucket;
	pthread_t thread;

	passage->outcome = outcome;
	pthread_mutex_lock(&bucket->lock);
	bucket->nr_answering++;
	pthread_mutex_unlock(&bucket->lock);
	if (pthread_create(&thread, NULL, answer, passage) != 0)
		abort();
	pthread_detach(thread);
}

/* ---- uploads that are held ---------------------------------------------------------------- */

/* Waits for one call of @upload, which must be done; false: the upload is gone. */
static bool call_upload(struct held_upload *upload, struct s3_call *call)
{
	call->key = upload->key;
	s3_wait(upload->client, call);
	if (call->outcome != STORE_DONE && call->outcome != STORE_ABSENT) {
		fprintf(stderr, "%s %s: %s\n", call->method, upload->key, call->message);
		abort();
	}
	return call->outcome == STORE_DONE;
}

static void create_upload(struct held_upload *upload)
{
	struct s3_call call = { .method = "POST", .query = "uploads=",
				.writes_object = true };

	if (s3_add_metadata(&call.headers, upload->put->metadata) ||
	    !call_upload(upload, &call) ||
	    s3_upload_id(call.http.text, call.http.text_count, upload->id))
		abort();
	s3_call_free(&call);
}

/* All of the content is its one part. */
static void upload_part(struct held_upload *upload)
{
	const struct store_request *put = upload->put;
	char *query = must(s3_upload_query(upload->id, 1));
	struct s3_call call = { .method = "PUT", .query = query, .body = put->iov,
				.nr_body = put->nr_iov, .body_count = put->count };
	const char *etag;

	if (!call_upload(upload, &call))
		abort();
	etag = must((void *)(uintptr_t)http_headers_find(&call.http.reply, "ETag"));
	snprintf(upload->part.etag, sizeof(upload->part.etag), "%s", etag);
	upload->part.size = put->count;
	s3_call_free(&call);
	free(query);
}

/* False: it was aborted meanwhile. */
static bool complete_upload(struct held_upload *upload)
{
	char *query = must(s3_upload_query(upload->id, 0));
	char *body = must(s3_complete_body(&upload->part, 1));
	struct iovec iov = { body, strlen(body) };
	struct s3_call call = { .method = "POST", .query = query, .body = &iov,
				.nr_body = 1, .body_count = iov.iov_len };
	bool done;

	if (http_headers_add(&call.headers, "Content-Type", "application/xml"))
		abort();
	done = call_upload(upload, &call);
	s3_call_free(&call);
	free(query);
	free(body);
	return done;
}

static void upload_begin(struct client *client, struct store_request *put)
{
	struct held_upload *upload = must(calloc(1, sizeof(*upload)));
	struct given_bucket *bucket = client->bucket;
	size_t room = 2 * STORE_KEY_MAX;

	upload->client = store_s3_client(bucket->root);
	upload->put = put;
	upload->key = must(malloc(room));
	snprintf(upload->key, room, "%s%s/%s/%s", bucket->top, bucket->name,
		 client->prefix, put->key);
	create_upload(upload);
	upload_part(upload);
	pthread_mutex_lock(&bucket->lock);
	upload->next = bucket->uploads;
	bucket->uploads = upload;
	bucket->nr_beginning--;
	pthread_cond_broadcast(&bucket->change);
	pthread_mutex_unlock(&bucket->lock);
}

void given_bucket_hold_uploads(struct given_bucket *bucket, uint64_t count)
{
	pthread_mutex_lock(&bucket->lock);
	bucket->held = count;
	pthread_mutex_unlock(&bucket->lock);
}

void given_bucket_finish_uploads(struct given_bucket *bucket)
{
	struct held_upload *upload, *next;
	bool done;

	pthread_mutex_lock(&bucket->lock);
	upload = bucket->uploads;
	bucket->uploads = NULL;
	pthread_mutex_unlock(&bucket->lock);
	for (; upload; upload = next) {
		next = upload->next;
		done = complete_upload(upload);
		if (upload->put) {
			upload->put->reply.error = done ? 0 : -EIO;
			store_complete(upload->put, done ? STORE_DONE : STORE_FAILED);
		}
		free(upload->key);
		free(upload);
	}
}

void given_bucket_orphan_uploads(struct given_bucket *bucket)
{
	struct store_request *put;
	struct held_upload *upload;

	do {
		put = NULL;
		pthread_mutex_lock(&bucket->lock);
		for (upload = bucket->uploads; upload && !put; upload = upload->next) {
			put = upload->put;
			upload->put = NULL;
		}
		pthread_mutex_unlock(&bucket->lock);
		if (put) {
			put->reply.error = -EIO;
			store_complete(put, STORE_FAILED);
		}
	} while (put);
}

unsigned int given_bucket_count_uploads(struct given_bucket *bucket)
{
	struct store_request request = { .key = "" };
	unsigned int nr;

	if (store_wait(bucket->root, STORE_LIST_UPLOADS, &request) != STORE_DONE ||
	    request.reply.listing.more)
		abort();
	nr = request.reply.listing.nr_entries;
	store_listing_free(&request.reply.listing);
	/* What was seen beginning shall be found among the held ones. */
	pthread_mutex_lock(&bucket->lock);
	while (bucket->nr_beginning)
		pthread_cond_wait(&bucket->change, &bucket->lock);
	pthread_mutex_unlock(&bucket->lock);
	return nr;
}

/* ---- a handle ------------------------------------------------------------------------------- */

static struct passage *passage_new(struct client *client, struct store_request *outer)
{
	struct passage *passage = must(calloc(1, sizeof(*passage)));
	struct given_bucket *bucket = client->bucket;
	struct store_request *inner = &passage->inner;

	inner->op = outer->op;
	inner->cause = outer->cause;
	inner->priority = outer->priority;
	inner->deadline = outer->deadline;
	inner->key = outer->key;
	inner->after = outer->after;
	inner->after_upload = outer->after_upload;
	inner->upload = outer->upload;
	inner->keys = outer->keys;
	inner->nr_keys = outer->nr_keys;
	inner->offset = outer->offset;
	inner->count = outer->count;
	inner->whole = outer->whole;
	inner->iov = outer->iov;
	inner->nr_iov = outer->nr_iov;
	inner->metadata = outer->metadata;
	inner->version = outer->version;
	inner->condition = outer->condition;
	inner->tag = outer->tag;
	inner->parent = outer->parent;
	inner->done = passage_done;
	inner->context = passage;
	passage->client = client;
	passage->outer = outer;
	passage->clock_added = bucket->clock_added;
	if (outer->op == STORE_PUT && bucket->unconditional)
		inner->condition = STORE_ALWAYS;
	if (outer->op == STORE_GET && outer->key[0] == '/') {
		snprintf(passage->key, sizeof(passage->key), "/%s%s%s", bucket->top,
			 bucket->name, outer->key);
		inner->key = passage->key;
	}
	return passage;
}

static void client_submit(struct store *store, struct store_request *request)
{
	struct client *client = (struct client *)store;
	struct given_bucket *bucket = client->bucket;
	struct passage *passage = NULL;

	pthread_mutex_lock(&bucket->lock);
	if (request->op == STORE_PUT && bucket->held && request->count >= bucket->held)
		bucket->nr_beginning++;
	else
		passage = passage_new(client, request);
	pthread_mutex_unlock(&bucket->lock);
	if (passage)
		store_submit(client->inner, &passage->inner);
	else
		upload_begin(client, request);
}

static void client_close(struct store *store)
{
	struct client *client = (struct client *)store;

	store_close(client->inner);
	store_deinit(store);
	free(client);
}

static const struct store_ops client_ops = {
	.name	= "given bucket",
	.submit = client_submit,
	.forget = store_keeps_nothing,
	.close	= client_close,
};

struct store *given_bucket_client(struct given_bucket *bucket, const char *prefix)
{
	struct client *client = must(calloc(1, sizeof(*client)));
	char name[640];

	snprintf(name, sizeof(name), "%s/%s", bucket->name, prefix);
	if (store_init(&client->store, &client_ops, name) < 0)
		abort();
	client->bucket = bucket;
	client->inner = given_store_open(name);
	snprintf(client->prefix, sizeof(client->prefix), "%s", prefix);
	return &client->store;
}

/* ---- the bucket ------------------------------------------------------------------------------- */

/* "FOLDER/", or "" for the top itself. */
static char *top_of_place(void)
{
	struct place place;
	char *path, *top;

	if (place_parse(given_place(), PLACE_FOLDER, &place))
		abort();
	path = must(place_prefix(&place));
	top = must(malloc(strlen(path) + 2));
	sprintf(top, *path ? "%s/" : "%s", path);
	free(path);
	place_free(&place);
	return top;
}

struct given_bucket *given_bucket_open(void)
{
	struct given_bucket *bucket = must(calloc(1, sizeof(*bucket)));

	pthread_mutex_init(&bucket->lock, NULL);
	pthread_cond_init(&bucket->change, NULL);
	bucket->root = given_store_new(bucket->name);
	bucket->top = top_of_place();
	return bucket;
}

void given_bucket_close(struct given_bucket *bucket)
{
	given_bucket_finish_uploads(bucket);
	pthread_mutex_lock(&bucket->lock);
	while (bucket->nr_answering)
		pthread_cond_wait(&bucket->change, &bucket->lock);
	pthread_mutex_unlock(&bucket->lock);
	store_close(bucket->root);
	tdestroy(bucket->births, free);
	pthread_mutex_destroy(&bucket->lock);
	pthread_cond_destroy(&bucket->change);
	free(bucket->top);
	free(bucket);
}

void given_bucket_clock_add(struct given_bucket *bucket, uint64_t seconds)
{
	pthread_mutex_lock(&bucket->lock);
	bucket->clock_added += seconds;
	pthread_mutex_unlock(&bucket->lock);
}

void given_bucket_ignore_conditions(struct given_bucket *bucket)
{
	pthread_mutex_lock(&bucket->lock);
	bucket->unconditional = true;
	pthread_mutex_unlock(&bucket->lock);
}

/* ---- what is in it ------------------------------------------------------------------------------ */

/* Calls @each for the objects whose key begins with @prefix until it says false. */
static void for_all(struct given_bucket *bucket, const char *prefix,
		    bool (*each)(void *context, const struct store_entry *entry),
		    void *context)
{
	struct store_request request = { .key = prefix };
	struct store_listing *listing = &request.reply.listing;
	char after[STORE_KEY_MAX];
	bool more = true;
	unsigned int i;

	while (more) {
		if (store_wait(bucket->root, STORE_LIST, &request) != STORE_DONE)
			abort();
		for (i = 0; i < listing->nr_entries && more; i++)
			more = each(context, &listing->entries[i]);
		if (i)
			snprintf(after, sizeof(after), "%s", listing->entries[i - 1].key);
		more = more && listing->more;
		store_listing_free(listing);
		request = (struct store_request){ .key = prefix, .after = after };
	}
}

static bool count_one(void *context, const struct store_entry *entry)
{
	(void)entry;
	++*(unsigned int *)context;
	return true;
}

static bool print_one(void *context, const struct store_entry *entry)
{
	(void)context;
	fprintf(stderr, "  %s, %llu bytes\n", entry->key, (unsigned long long)entry->size);
	return true;
}

static bool take_one(void *context, const struct store_entry *entry)
{
	snprintf(context, STORE_KEY_MAX, "%s", entry->key);
	return false;
}

unsigned int given_bucket_count(struct given_bucket *bucket, const char *prefix)
{
	unsigned int nr = 0;

	for_all(bucket, prefix, count_one, &nr);
	return nr;
}

void given_bucket_print(struct given_bucket *bucket, const char *prefix)
{
	for_all(bucket, prefix, print_one, NULL);
}

bool given_bucket_lose(struct given_bucket *bucket, const char *prefix)
{
	char found[STORE_KEY_MAX] = "";
	const char *key = found;
	struct store_request request = { .keys = &key, .nr_keys = 1 };

	for_all(bucket, prefix, take_one, found);
	if (!found[0])
		return false;
	if (store_wait(bucket->root, STORE_DELETE, &request) != STORE_DONE)
		abort();
	return true;
}
