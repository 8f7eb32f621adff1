/* bucket.c: GETs of whole objects through libs3, their length counted and what may
 * pass tried again. */
#include <libs3.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>

#include "contrib/rescue/bucket.h"

#define TRIES 6			/* with pauses of 0.2 s, doubled: 6 s in all */

struct bucket {
	char *host, *name;
	S3BucketContext context;
};

/* ---- open and close --------------------------------------------------------------- */

/* The HOST[:PORT] of an endpoint that libs3 can be trusted with; NULL after a
 * message. */
static const char *endpoint_host(const char *endpoint, size_t *length)
{
	static const char plain[] = "http://";
	const char *host = endpoint + sizeof(plain) - 1;

	if (strncasecmp(endpoint, "https://", 8) == 0) {
		fprintf(stderr, "objmap-rescue: %s: libs3 does not check who answers over "
			"TLS; give an http:// endpoint that is reached through a trusted "
			"network (or through a TLS tunnel that does check)\n", endpoint);
		return NULL;
	}
	if (strncasecmp(endpoint, plain, sizeof(plain) - 1) != 0) {
		fprintf(stderr, "objmap-rescue: endpoint %s: not http://HOST[:PORT]\n",
			endpoint);
		return NULL;
	}
	*length = strcspn(host, "/?#");
	if (!*length || *length > S3_MAX_HOSTNAME_SIZE || memchr(host, '@', *length) ||
	    host[*length + strspn(host + *length, "/")]) {
		fprintf(stderr, "objmap-rescue: endpoint %s: not http://HOST[:PORT]\n",
			endpoint);
		return NULL;
	}
	return host;
}

struct bucket *bucket_open(const char *endpoint, const char *name,
			   const struct credentials *credentials)
{
	S3Status status = S3_validate_bucket_name(name, S3UriStylePath);
	struct bucket *bucket;
	const char *host;
	size_t length;

	if (status != S3StatusOK) {
		fprintf(stderr, "objmap-rescue: %s is no name of a bucket: %s\n", name,
			S3_get_status_name(status));
		return NULL;
	}
	host = endpoint_host(endpoint, &length);
	if (!host)
		return NULL;
	status = S3_initialize("objmap-rescue", S3_INIT_ALL, NULL);
	if (status != S3StatusOK) {
		fprintf(stderr, "objmap-rescue: libs3 does not start: %s\n",
			S3_get_status_name(status));
		return NULL;
	}
	bucket = calloc(1, sizeof(*bucket));
	if (bucket) {
		bucket->host = strndup(host, length);
		bucket->name = strdup(name);
	}
	if (!bucket || !bucket->host || !bucket->name) {
		fprintf(stderr, "objmap-rescue: no memory\n");
		bucket_close(bucket);
		return NULL;
	}
	bucket->context = (S3BucketContext) {
		.hostName = bucket->host, .bucketName = bucket->name,
		.protocol = S3ProtocolHTTP, .uriStyle = S3UriStylePath,
		.accessKeyId = credentials->access_key,
		.secretAccessKey = credentials->secret_key,
	};
	return bucket;
}

void bucket_close(struct bucket *bucket)
{
	S3_deinitialize();
	if (!bucket)
		return;
	free(bucket->host);
	free(bucket->name);
	free(bucket);
}

/* ---- one GET ------------------------------------------------------------------------- */

struct get {
	struct object *object;
	bool answered;			/* with success, so far */
	bool too_long;
	S3Status status;
	char message[96];		/* the store's own words */
};

static void keep_metadata(char *place, size_t size, const char *value)
{
	/* What is longer than it may be is as good as none. */
	if (strlen(value) < size)
		strcpy(place, value);
}

static S3Status get_properties(const S3ResponseProperties *properties, void *context)
{
	struct get *get = context;
	struct object *object = get->object;
	const S3NameValue *meta = properties->metaData;
	int i;

	get->answered = true;
	object->announced = properties->contentLength;
	for (i = 0; i < properties->metaDataCount; i++) {
		if (strcmp(meta[i].name, "objmap-volume") == 0)
			keep_metadata(object->volume, sizeof(object->volume),
				      meta[i].value);
		else if (strcmp(meta[i].name, "objmap-frames") == 0)
			keep_metadata(object->frames, sizeof(object->frames),
				      meta[i].value);
	}
	get->too_long = object->announced > object->room;
	return get->too_long ? S3StatusAbortedByCallback : S3StatusOK;
}

static S3Status get_data(int count, const char *bytes, void *context)
{
	struct get *get = context;
	struct object *object = get->object;

	if (count < 0 || (size_t)count > object->room - object->count) {
		get->too_long = true;
		return S3StatusAbortedByCallback;
	}
	memcpy(object->bytes + object->count, bytes, (size_t)count);
	object->count += (size_t)count;
	return S3StatusOK;
}

static void get_complete(S3Status status, const S3ErrorDetails *details, void *context)
{
	struct get *get = context;

	get->status = status;
	if (details && details->message)
		snprintf(get->message, sizeof(get->message), ": %s", details->message);
}

static void get_once(const struct bucket *bucket, const char *key, struct get *get,
		     struct object *object)
{
	static const S3GetObjectHandler handler = {
		{ get_properties, get_complete }, get_data,
	};

	*get = (struct get) { .object = object };
	object->count = 0;
	object->announced = 0;
	object->volume[0] = object->frames[0] = 0;
	S3_get_object(&bucket->context, key, NULL, 0, 0, NULL, &handler, get);
}

/* ---- what came of it -------------------------------------------------------------------- */

static bool nobody_answers(S3Status status)
{
	return status == S3StatusNameLookupError || status == S3StatusFailedToConnect;
}

static bool is_absent(S3Status status)
{
	return status == S3StatusErrorNoSuchKey || status == S3StatusHttpErrorNotFound;
}

/* Answers that do not change, whatever the object. */
static bool nobody_listens(S3Status status)
{
	switch (status) {
	case S3StatusErrorNoSuchBucket:
	case S3StatusErrorInvalidAccessKeyId:
	case S3StatusErrorSignatureDoesNotMatch:
	case S3StatusErrorRequestTimeTooSkewed:
	case S3StatusErrorExpiredToken:
	case S3StatusErrorInvalidBucketName:
		return true;
	default:
		return false;
	}
}

static bool may_pass(const struct get *get)
{
	switch (get->status) {
	case S3StatusErrorAccessDenied:
	case S3StatusHttpErrorForbidden:
	case S3StatusErrorMethodNotAllowed:
	case S3StatusErrorNotImplemented:
	case S3StatusKeyTooLong:
	case S3StatusUriTooLong:
	case S3StatusErrorKeyTooLong:
		return false;
	case S3StatusErrorRequestTimeTooSkewed:
		/* libs3 asks gmtime() for the date, which threads share: it may be
		 * wrong once, where an hour ends. */
		return true;
	default:
		return !get->too_long && !is_absent(get->status) &&
		       !nobody_listens(get->status);
	}
}

static enum outcome judge(const struct get *get, struct object *object)
{
	const char *hint = get->status == S3StatusErrorSignatureDoesNotMatch ?
		" (libs3 signs with Version 2 only)" : "";

	if (get->too_long) {
		snprintf(object->why, REASON_SIZE, "it is %ju bytes long, more than the "
			 "%zu it may have",
			 (uintmax_t)object->announced, object->room);
		return OBJECT_TOO_LONG;
	}
	if (get->answered && object->count < object->announced) {
		snprintf(object->why, REASON_SIZE, "its body is cut: %zu bytes came of "
			 "%ju", object->count, (uintmax_t)object->announced);
		return OBJECT_CUT;
	}
	if (get->answered && get->status == S3StatusOK)
		return OBJECT_WHOLE;
	if (is_absent(get->status)) {
		snprintf(object->why, REASON_SIZE, "it is missing");
		return OBJECT_MISSING;
	}
	snprintf(object->why, REASON_SIZE, "the store does not give it: %s%s%s",
		 S3_get_status_name(get->status), get->message, hint);
	return nobody_answers(get->status) || nobody_listens(get->status) ?
	       STORE_LOST : OBJECT_REFUSED;
}

enum outcome bucket_get(const struct bucket *bucket, const char *key,
			struct object *object)
{
	struct timespec pause = { .tv_nsec = 200 * 1000 * 1000 };
	enum outcome outcome;
	struct get get;
	int tries;

	if (strchr(key, ' ')) {		/* it would send a + */
		object->count = 0;
		snprintf(object->why, REASON_SIZE, "libs3 cannot ask for a key with a "
			 "space in it");
		return OBJECT_REFUSED;
	}
	for (tries = 1;; tries++) {
		get_once(bucket, key, &get, object);
		outcome = judge(&get, object);
		if (outcome == OBJECT_WHOLE || !may_pass(&get) || tries == TRIES)
			return outcome;
		nanosleep(&pause, NULL);
		pause.tv_nsec *= 2;
		pause.tv_sec = pause.tv_sec * 2 + pause.tv_nsec / 1000000000;
		pause.tv_nsec %= 1000000000;
	}
}
