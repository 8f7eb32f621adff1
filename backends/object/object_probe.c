/* object_probe.c: whether the store keeps the conditions on which writing an object
 * depends. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backends/object/object.h"
#include "src/clock.h"
#include "src/log.h"
#include "src/random.h"

/* Runs @call, which a store that keeps conditions refuses.  1: refused; 0: it was done;
 * -errno, logged. */
static int is_refused(struct object *object, struct s3_call *call, const char *what)
{
	int refused;

	s3_wait_retrying(object->client, call, clock_now() + 30 * CLOCK_SECOND, NULL);
	if (call->outcome == STORE_DONE)
		refused = 0;
	else if (call->outcome == STORE_REFUSED)
		refused = 1;
	else
		refused = call->error ? call->error : -EIO;
	if (refused < 0)
		log_error("%s: %s, to see whether the store keeps conditions: %s",
			  object->place, what, call->message);
	s3_call_free(call);
	return refused;
}

#define NO_TAG "\"00000000000000000000000000000000\""

/* An object of one byte, whose tag is another. */
static int probe_put(struct object *object, const char *key)
{
	struct iovec iov = { (void *)(uintptr_t)"?", 1 };
	struct s3_call put = { .method = "PUT", .key = key, .writes_object = true,
			       .body = &iov, .nr_body = 1, .body_count = 1,
			       .repeatable = true };
	int error = 0;

	s3_wait_retrying(object->client, &put, clock_now() + 30 * CLOCK_SECOND, NULL);
	if (put.outcome != STORE_DONE) {
		log_error("%s: a PUT beside the object, to see whether the store keeps conditions: %s",
			  object->place, put.message);
		error = put.error ? put.error : -EIO;
	}
	s3_call_free(&put);
	return error;
}

static void probe_delete(struct object *object, const char *key)
{
	struct s3_call gone = { .method = "DELETE", .key = key, .repeatable = true };

	s3_wait_retrying(object->client, &gone, clock_now() + 30 * CLOCK_SECOND, NULL);
	s3_call_free(&gone);
}

static void probe_abort(struct object *object, const char *key, const char *upload)
{
	char *query = s3_upload_query(upload, 0);
	struct s3_call call = { .method = "DELETE", .key = key, .query = query,
				.repeatable = true };

	if (query)
		s3_wait_retrying(object->client, &call, clock_now() + 10 * CLOCK_SECOND,
				 NULL);
	s3_call_free(&call);
	free(query);
}

static int probe_copy(struct object *object, const char *key, const char *upload)
{
	char source[3 * (STORE_KEY_MAX + 80)], *query = s3_upload_query(upload, 1);
	struct s3_call call = { .method = "PUT", .key = key, .query = query,
				.repeatable = true };
	int length = snprintf(source, sizeof(source), "/%s/",
			      s3_client_bucket(object->client));
	int error = s3_encode(object->key, true, source + length,
			      sizeof(source) - (size_t)length);

	error = error < 0 ? error : 0;
	if (!error)
		error = http_headers_add(&call.headers, "x-amz-copy-source", source);
	if (!error)
		error = http_headers_add(&call.headers, "x-amz-copy-source-range",
					 "bytes=0-5242879");
	if (!error)
		error = http_headers_add(&call.headers, "x-amz-copy-source-if-match",
					 NO_TAG);
	if (!error && query)
		error = is_refused(object, &call, "UploadPartCopy with a condition");
	free(query);
	return error;
}

static int probe_complete(struct object *object, const char *key, const char *upload)
{
	char *part_query = s3_upload_query(upload, 1), *query = s3_upload_query(upload, 0);
	struct iovec iov = { (void *)(uintptr_t)"?", 1 }, body_iov;
	struct s3_call part = { .method = "PUT", .key = key, .query = part_query,
				.body = &iov, .nr_body = 1, .body_count = 1,
				.repeatable = true };
	struct s3_call call = { .method = "POST", .key = key, .query = query,
				.body = &body_iov, .nr_body = 1,
				.repeatable = true };
	struct s3_part sent = { .size = 1 };
	const char *etag;
	char *body = NULL;
	int refused = -EIO;

	s3_wait_retrying(object->client, &part, clock_now() + 30 * CLOCK_SECOND, NULL);
	etag = http_headers_find(&part.http.reply, "ETag");
	if (part.outcome == STORE_DONE && etag) {
		snprintf(sent.etag, sizeof(sent.etag), "%s", etag);
		body = s3_complete_body(&sent, 1);
	} else {
		log_error("%s: UploadPart beside the object: %s", object->place,
			  part.message);
	}
	s3_call_free(&part);
	if (body && http_headers_add(&call.headers, "If-Match", NO_TAG) == 0) {
		body_iov = (struct iovec){ body, strlen(body) };
		call.body_count = body_iov.iov_len;
		refused = is_refused(object, &call,
				     "CompleteMultipartUpload with If-Match");
	}
	free(body);
	free(part_query);
	free(query);
	return refused;
}

static int probe_upload(struct object *object, const char *key, uint64_t size)
{
	struct s3_call create = { .method = "POST", .key = key, .query = "uploads",
				  .writes_object = true, .repeatable = true };
	char upload[S3_UPLOAD_ID_MAX];
	int refused = 0;

	s3_wait_retrying(object->client, &create, clock_now() + 30 * CLOCK_SECOND, NULL);
	if (create.outcome != STORE_DONE ||
	    s3_upload_id(create.http.text, create.http.text_count, upload) != 0) {
		log_error("%s: CreateMultipartUpload beside the object: %s",
			  object->place, create.message);
		refused = create.error ? create.error : -EIO;
	}
	s3_call_free(&create);
	if (refused)
		return refused;
	/* A shorter one is sent whole. */
	refused = size > S3_PART_MIN ? probe_copy(object, key, upload) : 1;
	if (refused == 1)
		refused = probe_complete(object, key, upload);
	probe_abort(object, key, upload);
	return refused;
}

/* On an object of its own beside it, which nothing is left of: a store that looks at
 * no condition where there is an object must not be trusted with this one. */
int object_probe(struct object *object, uint64_t size)
{
	char key[STORE_KEY_MAX + 64];
	int refused;

	if (snprintf(key, sizeof(key), "%s.objmap-probe-%016" PRIx64, object->key,
		     random_id()) >= STORE_KEY_MAX) {
		log_error("%s: the key is too long to be written", object->place);
		return -ENAMETOOLONG;
	}
	refused = probe_put(object, key);
	if (!refused) {
		refused = probe_upload(object, key, size);
		probe_delete(object, key);
	}
	if (refused == 0)
		log_error("%s: this store ignores If-Match, so two writers would undo each other; --exclusive says that nobody else writes it",
			  object->place);
	return refused == 1 ? 0 : refused == 0 ? -EOPNOTSUPP : refused;
}
