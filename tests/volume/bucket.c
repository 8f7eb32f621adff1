/* bucket.c: a bucket in memory that behaves like S3.
 *
 * Objects lie in one array sorted by key.  Every request is completed before
 * submit returns, but for uploads that a test holds.  Where a place is given, all is
 * given_bucket.c's. */
#include "tests/volume/bucket.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "tests/store/given.h"
#include "tests/volume/given_bucket.h"

struct thing {
	char *key;		/* from the top */
	char *content;
	size_t count;
	char tag[STORE_TAG_MAX];
	uint64_t last_modified;
	struct store_metadata metadata;
};

/* A multipart upload that stands before its end. */
struct upload {
	struct thing *thing;		/* what it will be */
	struct store_request *put;	/* not answered; NULL: its client is gone */
	char id[24];
	struct upload *next;
};

struct bucket {
	struct given_bucket *given;	/* a real one; then all else here is nothing */
	pthread_mutex_t lock;
	struct upload *uploads;		/* the latest first */
	bool unconditional;
	uint64_t held;			/* puts of so many bytes are; 0: none */
	unsigned int nr_uploads;	/* ever begun */
	struct thing **things;	/* sorted by key */
	unsigned int nr, room;
	uint64_t clock_added;	/* seconds */
};

struct client {
	struct store store;	/* must stay first */
	struct bucket *bucket;
	char prefix[512];
};

/* ---- the array; its lock is held --------------------------------------------- */

/* The first thing whose key is not below @key. */
static unsigned int find(const struct bucket *bucket, const char *key)
{
	unsigned int low = 0, high = bucket->nr, middle;

	while (low < high) {
		middle = (low + high) / 2;
		if (strcmp(bucket->things[middle]->key, key) < 0)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

static struct thing *thing_at(const struct bucket *bucket, const char *key)
{
	unsigned int i = find(bucket, key);

	if (i == bucket->nr || strcmp(bucket->things[i]->key, key) != 0)
		return NULL;
	return bucket->things[i];
}

static void thing_free(struct thing *thing)
{
	free(thing->key);
	free(thing->content);
	free(thing);
}

static void thing_insert(struct bucket *bucket, struct thing *thing)
{
	unsigned int i = find(bucket, thing->key);

	if (i < bucket->nr && strcmp(bucket->things[i]->key, thing->key) == 0) {
		thing_free(bucket->things[i]);
		bucket->things[i] = thing;
		return;
	}
	if (bucket->nr == bucket->room) {
		bucket->room = bucket->room ? 2 * bucket->room : 64;
		bucket->things = realloc(bucket->things,
					 bucket->room * sizeof(*bucket->things));
		if (!bucket->things)
			abort();
	}
	memmove(&bucket->things[i + 1], &bucket->things[i],
		(bucket->nr++ - i) * sizeof(*bucket->things));
	bucket->things[i] = thing;
}

static void thing_remove(struct bucket *bucket, unsigned int i)
{
	thing_free(bucket->things[i]);
	memmove(&bucket->things[i], &bucket->things[i + 1],
		(--bucket->nr - i) * sizeof(*bucket->things));
}

/* The hash of the content, as S3's ETag is.  (FNV-1a; no CRC: head ends with its
 * own, which makes the CRC of all heads the same.) */
static void tag_of(const void *content, size_t count, char tag[STORE_TAG_MAX])
{
	const unsigned char *byte = content;
	uint64_t hash = 0xcbf29ce484222325ull;
	size_t i;

	for (i = 0; i < count; i++)
		hash = (hash ^ byte[i]) * 0x100000001b3ull;
	snprintf(tag, STORE_TAG_MAX, "\"%016llx%zx\"", (unsigned long long)hash, count);
}

/* ---- operations ------------------------------------------------------------------ */

static enum store_outcome bucket_get(struct bucket *bucket, const char *key,
				     struct store_request *request)
{
	const struct thing *thing = thing_at(bucket, key);
	struct store_reply *reply = &request->reply;
	const char *from;
	size_t left, part;
	unsigned int i;

	if (!thing)
		return STORE_ABSENT;
	memcpy(reply->tag, thing->tag, sizeof(reply->tag));
	reply->size = thing->count;
	reply->last_modified = thing->last_modified;
	reply->metadata = thing->metadata;
	if (request->condition == STORE_IF_MATCH && strcmp(reply->tag, request->tag) != 0)
		return STORE_REFUSED;
	left = request->whole ? thing->count : request->count;
	reply->error = request->whole && left > request->count ? -EFBIG :
		       request->offset + left > thing->count ? -ERANGE : 0;
	if (reply->error)
		return STORE_FAILED;
	reply->count = left;
	from = thing->content + request->offset;
	for (i = 0; left; i++) {
		part = request->iov[i].iov_len < left ? request->iov[i].iov_len : left;
		if (part)
			memcpy(request->iov[i].iov_base, from, part);
		from += part;
		left -= part;
	}
	return STORE_DONE;
}

static struct thing *thing_of_put(const struct bucket *bucket, const char *key,
				  const struct store_request *request)
{
	struct thing *thing = calloc(1, sizeof(*thing));
	unsigned int i;

	thing->key = strdup(key);
	thing->content = malloc(request->count + 1);
	for (i = 0; i < request->nr_iov; i++) {
		if (request->iov[i].iov_len)
			memcpy(thing->content + thing->count,
			       request->iov[i].iov_base, request->iov[i].iov_len);
		thing->count += request->iov[i].iov_len;
	}
	thing->last_modified = (uint64_t)time(NULL) + bucket->clock_added;
	if (request->metadata)
		thing->metadata = *request->metadata;
	tag_of(thing->content, thing->count, thing->tag);
	return thing;
}

static enum store_outcome bucket_put(struct bucket *bucket, const char *key,
				     struct store_request *request)
{
	const struct thing *there = thing_at(bucket, key);
	struct thing *thing;

	if (request->condition == STORE_IF_ABSENT && there && !bucket->unconditional)
		return STORE_REFUSED;
	if (request->condition == STORE_IF_MATCH && !bucket->unconditional &&
	    (!there || strcmp(there->tag, request->tag) != 0))
		return STORE_REFUSED;
	thing = thing_of_put(bucket, key, request);
	memcpy(request->reply.tag, thing->tag, sizeof(thing->tag));
	thing_insert(bucket, thing);
	return STORE_DONE;
}

static enum store_outcome bucket_list(struct bucket *bucket, const struct client *client,
				      const char *prefix, struct store_request *request)
{
	struct store_listing *listing = &request->reply.listing;
	size_t own = strlen(client->prefix) + 1;
	const struct thing *thing;
	unsigned int i;

	listing->entries = calloc(STORE_LIST_MAX, sizeof(*listing->entries));
	for (i = find(bucket, prefix); i < bucket->nr; i++) {
		thing = bucket->things[i];
		if (strncmp(thing->key, prefix, strlen(prefix)) != 0)
			break;
		if (request->after && strcmp(thing->key + own, request->after) <= 0)
			continue;
		listing->more = listing->nr_entries == STORE_LIST_MAX;
		if (listing->more)
			break;
		listing->entries[listing->nr_entries++] = (struct store_entry){
			.key = strdup(thing->key + own), .size = thing->count,
			.last_modified = thing->last_modified };
	}
	return STORE_DONE;
}

static void bucket_delete(struct bucket *bucket, const struct client *client,
			  struct store_request *request)
{
	char key[2 * STORE_KEY_MAX];
	unsigned int i, at;

	for (i = 0; i < request->nr_keys; i++) {
		snprintf(key, sizeof(key), "%s/%s", client->prefix, request->keys[i]);
		at = find(bucket, key);
		if (at < bucket->nr && strcmp(bucket->things[at]->key, key) == 0)
			thing_remove(bucket, at);
	}
}

/* ---- multipart uploads ---------------------------------------------------------- */

static void upload_begin(struct bucket *bucket, const char *key,
			 struct store_request *request)
{
	struct upload *upload = calloc(1, sizeof(*upload));

	upload->thing = thing_of_put(bucket, key, request);
	upload->put = request;
	snprintf(upload->id, sizeof(upload->id), "upload-%u", ++bucket->nr_uploads);
	upload->next = bucket->uploads;
	bucket->uploads = upload;
}

static enum store_outcome bucket_abort(struct bucket *bucket, const char *key,
				       const struct store_request *request)
{
	struct upload **link = &bucket->uploads, *upload;

	for (; (upload = *link); link = &upload->next) {
		if (strcmp(upload->id, request->upload) != 0 ||
		    strcmp(upload->thing->key, key) != 0)
			continue;
		if (upload->put)
			abort();	/* no test does this to a living client */
		*link = upload->next;
		thing_free(upload->thing);
		free(upload);
		return STORE_DONE;
	}
	return STORE_ABSENT;
}

static enum store_outcome bucket_list_uploads(struct bucket *bucket,
					      const struct client *client,
					      const char *prefix,
					      struct store_request *request)
{
	struct store_listing *listing = &request->reply.listing;
	size_t own = strlen(client->prefix) + 1;
	const struct upload *upload;

	listing->entries = calloc(bucket->nr_uploads + 1, sizeof(*listing->entries));
	for (upload = bucket->uploads; upload; upload = upload->next)
		if (strncmp(upload->thing->key, prefix, strlen(prefix)) == 0)
			listing->entries[listing->nr_entries++] = (struct store_entry){
				.key = strdup(upload->thing->key + own),
				.upload = strdup(upload->id) };
	return STORE_DONE;
}

void bucket_ignore_conditions(struct bucket *bucket)
{
	if (bucket->given) {
		given_bucket_ignore_conditions(bucket->given);
		return;
	}
	pthread_mutex_lock(&bucket->lock);
	bucket->unconditional = true;
	pthread_mutex_unlock(&bucket->lock);
}

void bucket_hold_uploads(struct bucket *bucket, uint64_t count)
{
	if (bucket->given) {
		given_bucket_hold_uploads(bucket->given, count);
		return;
	}
	pthread_mutex_lock(&bucket->lock);
	bucket->held = count;
	pthread_mutex_unlock(&bucket->lock);
}

void bucket_finish_uploads(struct bucket *bucket)
{
	struct upload *upload, *next;

	if (bucket->given) {
		given_bucket_finish_uploads(bucket->given);
		return;
	}
	pthread_mutex_lock(&bucket->lock);
	upload = bucket->uploads;
	bucket->uploads = NULL;
	for (next = upload; next; next = next->next)
		thing_insert(bucket, next->thing);
	pthread_mutex_unlock(&bucket->lock);
	for (; upload; upload = next) {
		next = upload->next;
		if (upload->put)
			store_complete(upload->put, STORE_DONE);
		free(upload);
	}
}

void bucket_orphan_uploads(struct bucket *bucket)
{
	struct store_request *put;
	struct upload *upload;

	if (bucket->given) {
		given_bucket_orphan_uploads(bucket->given);
		return;
	}
	for (;;) {
		pthread_mutex_lock(&bucket->lock);
		for (upload = bucket->uploads; upload && !upload->put; )
			upload = upload->next;
		put = upload ? upload->put : NULL;
		if (upload)
			upload->put = NULL;
		pthread_mutex_unlock(&bucket->lock);
		if (!put)
			return;
		put->reply.error = -EIO;
		store_complete(put, STORE_FAILED);
	}
}

unsigned int bucket_count_uploads(struct bucket *bucket)
{
	const struct upload *upload;
	unsigned int nr = 0;

	if (bucket->given)
		return given_bucket_count_uploads(bucket->given);
	pthread_mutex_lock(&bucket->lock);
	for (upload = bucket->uploads; upload; upload = upload->next)
		nr++;
	pthread_mutex_unlock(&bucket->lock);
	return nr;
}

/* ---- a handle ------------------------------------------------------------------- */

static void client_submit(struct store *store, struct store_request *request)
{
	struct client *client = (struct client *)store;
	struct bucket *bucket = client->bucket;
	enum store_outcome outcome = STORE_DONE;
	char key[2 * STORE_KEY_MAX];
	bool held = false;

	if (request->key && request->key[0] == '/' && request->op == STORE_GET)
		snprintf(key, sizeof(key), "%s", request->key + 1);
	else
		snprintf(key, sizeof(key), "%s/%s", client->prefix,
			 request->key ? request->key : "");
	pthread_mutex_lock(&bucket->lock);
	request->reply.date = (uint64_t)time(NULL) + bucket->clock_added;
	held = request->op == STORE_PUT && bucket->held &&
	       request->count >= bucket->held;
	if (held)
		upload_begin(bucket, key, request);
	else if (request->op == STORE_GET)
		outcome = bucket_get(bucket, key, request);
	else if (request->op == STORE_PUT)
		outcome = bucket_put(bucket, key, request);
	else if (request->op == STORE_LIST)
		outcome = bucket_list(bucket, client, key, request);
	else if (request->op == STORE_DELETE)
		bucket_delete(bucket, client, request);
	else if (request->op == STORE_LIST_UPLOADS)
		outcome = bucket_list_uploads(bucket, client, key, request);
	else if (request->op == STORE_ABORT_UPLOAD)
		outcome = bucket_abort(bucket, key, request);
	pthread_mutex_unlock(&bucket->lock);
	if (!held)
		store_complete(request, outcome);
}

/* ---- opening and closing ------------------------------------------------------------ */

static void client_close(struct store *store)
{
	store_deinit(store);
	free(store);
}

static const struct store_ops client_ops = {
	.name	= "bucket",
	.submit = client_submit,
	.forget = store_keeps_nothing,
	.close	= client_close,
};

struct store *bucket_client(struct bucket *bucket, const char *prefix)
{
	struct client *client;
	char place[600];

	if (bucket->given)
		return given_bucket_client(bucket->given, prefix);
	client = calloc(1, sizeof(*client));
	snprintf(place, sizeof(place), "bucket:%s", prefix);
	if (!client || store_init(&client->store, &client_ops, place) < 0) {
		free(client);
		return NULL;
	}
	client->bucket = bucket;
	snprintf(client->prefix, sizeof(client->prefix), "%s", prefix);
	return &client->store;
}

struct bucket *bucket_open(void)
{
	struct bucket *bucket = calloc(1, sizeof(*bucket));

	if (!bucket)
		abort();
	pthread_mutex_init(&bucket->lock, NULL);
	if (given_place())
		bucket->given = given_bucket_open();
	return bucket;
}

void bucket_close(struct bucket *bucket)
{
	if (bucket->given)
		given_bucket_close(bucket->given);
	bucket->given = NULL;
	bucket_finish_uploads(bucket);
	while (bucket->nr)
		thing_free(bucket->things[--bucket->nr]);
	free(bucket->things);
	pthread_mutex_destroy(&bucket->lock);
	free(bucket);
}

unsigned int bucket_count(struct bucket *bucket, const char *prefix)
{
	unsigned int i, nr = 0;

	if (bucket->given)
		return given_bucket_count(bucket->given, prefix);
	pthread_mutex_lock(&bucket->lock);
	for (i = find(bucket, prefix); i < bucket->nr; i++, nr++)
		if (strncmp(bucket->things[i]->key, prefix, strlen(prefix)) != 0)
			break;
	pthread_mutex_unlock(&bucket->lock);
	return nr;
}

void bucket_print(struct bucket *bucket, const char *prefix)
{
	unsigned int i;

	if (bucket->given) {
		given_bucket_print(bucket->given, prefix);
		return;
	}
	pthread_mutex_lock(&bucket->lock);
	for (i = find(bucket, prefix); i < bucket->nr; i++) {
		if (strncmp(bucket->things[i]->key, prefix, strlen(prefix)) != 0)
			break;
		fprintf(stderr, "  %s, %zu bytes\n", bucket->things[i]->key,
			bucket->things[i]->count);
	}
	pthread_mutex_unlock(&bucket->lock);
}

bool bucket_lose(struct bucket *bucket, const char *prefix)
{
	unsigned int i;
	bool found;

	if (bucket->given)
		return given_bucket_lose(bucket->given, prefix);
	pthread_mutex_lock(&bucket->lock);
	i = find(bucket, prefix);
	found = i < bucket->nr &&
		strncmp(bucket->things[i]->key, prefix, strlen(prefix)) == 0;
	if (found)
		thing_remove(bucket, i);
	pthread_mutex_unlock(&bucket->lock);
	return found;
}

void bucket_clock_add(struct bucket *bucket, uint64_t seconds)
{
	if (bucket->given) {
		given_bucket_clock_add(bucket->given, seconds);
		return;
	}
	pthread_mutex_lock(&bucket->lock);
	bucket->clock_added += seconds;
	pthread_mutex_unlock(&bucket->lock);
}
