/* object_open.c: finds the object, and whether the store keeps the conditions on which
 * writing it depends. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "backends/object/object.h"
#include "src/clock.h"
#include "src/log.h"
#include "src/random.h"
#include "src/units.h"

#define PREFERRED    (1u << 20)
#define REQUEST_MAX  (8u << 20)
#define KEPT_NAME_MAX 256	/* of metadata; longer ones are left out */
#define COPY_MAX     (1ull << 30)	/* of S3's 5 GiB: shorter ones go side by side */
#define NR_DISK	     4
#define DIRTY_LIMIT  (1ull << 30)

void object_free(struct object *object)
{
	if (object->disk)
		workers_close(object->disk);
	if (object->senders)
		workers_close(object->senders);
	if (object->store)
		store_close(object->store);
	while (object->spills) {
		struct spill *next = object->spills->next;

		spill_close(object->spills);
		object->spills = next;
	}
	while (object->sealed_spills) {
		struct spill *next = object->sealed_spills->next;

		spill_close(object->sealed_spills);
		object->sealed_spills = next;
	}
	dirty_clear(&object->open);
	dirty_clear(&object->sealed);
	http_headers_free(&object->kept);
	pthread_cond_destroy(&object->wake);
	pthread_mutex_destroy(&object->lock);
	free(object->place);
	free(object->read_key);
	free(object->version);
	free(object->state);
	free(object);
}

/* ---- finding it ----------------------------------------------------------------------- */

/* What clients note of an object's content, which the next content makes wrong: they
 * would call it corrupted, or not see that it has changed. */
static bool tells_of_content(const char *name, size_t length)
{
	static const char *const names[] = {
		"md5chksum", "mtime",	/* rclone */
		"s3cmd-attrs",		/* s3cmd: checksum and times */
	};

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		if (strlen(names[i]) == length && strncasecmp(name, names[i], length) == 0)
			return true;
	return false;
}

/* What a new version gets from the old one. */
static int keep_header(struct http_headers *kept, const char *line)
{
	static const char *const names[] = {
		"Content-Type", "Cache-Control", "Content-Disposition",
		"Content-Encoding", "Content-Language", "Expires",
	};
	size_t length = strcspn(line, ":");
	bool wanted = strncasecmp(line, "x-amz-meta-", 11) == 0 &&
		      strncasecmp(line, "x-amz-meta-objmap-", 18) != 0 &&
		      !tells_of_content(line + 11, length - 11);

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		if (strlen(names[i]) == length && strncasecmp(line, names[i], length) == 0)
			wanted = true;
	if (!wanted || length >= KEPT_NAME_MAX)
		return 0;
	return http_headers_add_line(kept, line, strlen(line));
}

static int read_reply(struct object *object, const struct s3_call *call, uint64_t *size)
{
	const char *tag = http_headers_find(&call->http.reply, "ETag"), *line = NULL;
	int error = 0;

	*size = s3_object_size(call);
	if (*size == UINT64_MAX || !tag || tag[0] != '"' || strlen(tag) >= STORE_TAG_MAX) {
		log_error("%s: the server says neither how long the object is nor which version it is (Content-Range, a strong ETag); 'objmap copy' from another place may do",
			  object->place);
		return -EPROTO;
	}
	snprintf(object->tag, sizeof(object->tag), "%s", tag);
	while (!error && (line = http_headers_next(&call->http.reply, line)))
		error = keep_header(&object->kept, line);
	return error;
}

/* One GET of one byte tells length, version and metadata. */
static int find_object(struct object *object, uint64_t retry_for, uint64_t *size)
{
	char byte, query[3 * 1100] = "versionId=";
	struct iovec iov = { &byte, 1 };
	struct s3_call call = { .method = "GET", .key = object->key, .sink = &iov,
				.nr_sink = 1, .sink_count = 1 };
	int error = http_headers_add(&call.headers, "Range", "bytes=0-0");

	if (!error && object->version) {
		error = s3_encode(object->version, false, query + strlen(query),
				  sizeof(query) - strlen(query));
		error = error < 0 ? error : 0;
		call.query = query;
	}
	if (!error) {
		s3_wait_retrying(object->client, &call, clock_now() + retry_for, NULL);
		if (call.outcome == STORE_DONE) {
			error = read_reply(object, &call, size);
		} else if (call.http.status == 416) {
			log_error("%s: the object is empty, and a device has at least one byte",
				  object->place);
			error = -ENODATA;
		} else {
			log_error("%s: %s", object->place, call.message);
			error = call.outcome == STORE_ABSENT ? -ENOENT :
				call.error ? call.error : -EIO;
		}
	}
	s3_call_free(&call);
	return error;
}

/* ---- are conditions kept? ---------------------------------------------------------------- */

/* Runs @call, which a store that keeps conditions refuses.  1: refused; 0: it was done;
 * -errno, logged. */
static int is_refused(struct object *object, struct s3_call *call, const char *what)
{
	int refused;

	s3_wait_retrying(object->client, call, clock_now() + 30 * CLOCK_SECOND, NULL);
	if (call->outcome == STORE_DONE)
		refused = 0;
	else if (call->outcome == STORE_REFUSED || call->outcome == STORE_ABSENT)
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

static int probe_put(struct object *object, const char *key)
{
	struct iovec iov = { (void *)(uintptr_t)"?", 1 };
	struct s3_call put = { .method = "PUT", .key = key, .writes_object = true,
			       .body = &iov, .nr_body = 1, .body_count = 1,
			       .repeatable = true };
	struct s3_call gone = { .method = "DELETE", .key = key, .repeatable = true };
	int refused, error = http_headers_add(&put.headers, "If-Match", NO_TAG);

	if (error)
		return error;
	refused = is_refused(object, &put, "a PUT with If-Match beside the object");
	if (refused == 0) {
		s3_wait_retrying(object->client, &gone, clock_now() + 30 * CLOCK_SECOND,
				 NULL);
		s3_call_free(&gone);
	}
	return refused;
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
	struct s3_call gone = { .method = "DELETE", .key = key, .repeatable = true };
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
		if (refused == 0) {
			s3_wait_retrying(object->client, &gone,
					 clock_now() + 30 * CLOCK_SECOND, NULL);
			s3_call_free(&gone);
		}
	}
	free(body);
	free(part_query);
	free(query);
	return refused;
}

static int probe_upload(struct object *object, const char *key)
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
	refused = probe_copy(object, key, upload);
	if (refused == 1)
		refused = probe_complete(object, key, upload);
	probe_abort(object, key, upload);
	return refused;
}

/* On a key of its own beside the object, which nothing is left of. */
static int probe(struct object *object, uint64_t size)
{
	char key[STORE_KEY_MAX + 64];
	int refused;

	if (snprintf(key, sizeof(key), "%s.objmap-probe-%016" PRIx64, object->key,
		     random_id()) >= STORE_KEY_MAX) {
		log_error("%s: the key is too long to be written", object->place);
		return -ENAMETOOLONG;
	}
	refused = probe_put(object, key);
	if (refused == 1 && size > object->whole_max)
		refused = probe_upload(object, key);
	if (refused == 0)
		log_error("%s: this store ignores If-Match, so two writers would undo each other; --exclusive says that nobody else writes it",
			  object->place);
	return refused == 1 ? 0 : refused == 0 ? -EOPNOTSUPP : refused;
}

/* ---- its server ---------------------------------------------------------------------- */

static struct object *object_of(struct stage *stage)
{
	return (struct object *)stage;
}

static void set_retry_for(struct stage *stage, uint64_t retry_for)
{
	atomic_store(&object_of(stage)->store->retry_for, retry_for);
}

static void trouble(struct stage *stage, struct store_trouble *trouble)
{
	store_trouble(object_of(stage)->store, trouble);
}

static bool is_lost(struct stage *stage)
{
	struct object *object = object_of(stage);
	bool lost;

	pthread_mutex_lock(&object->lock);
	lost = object->lost != 0;
	pthread_mutex_unlock(&object->lock);
	return lost;
}

static const struct stage_server object_server = {
	.set_retry_for = set_retry_for,
	.trouble       = trouble,
	.is_lost       = is_lost,
};

/* ---- the whole ------------------------------------------------------------------------- */

static int open_for_writing(struct object *object, const struct device_options *options,
			    uint64_t size)
{
	int error = 0;

	if (object->version) {
		log_error("%s: one version of an object cannot be written; leave ?versionId= away",
			  object->place);
		return -EINVAL;
	}
	object->dirty_limit = options->dirty_limit ? options->dirty_limit : DIRTY_LIMIT;
	object->state = strdup(options->state);
	if (!object->state)
		return -ENOMEM;
	if (!object->exclusive)
		error = probe(object, size);
	if (!error)
		error = spill_open(object->state, &object->spills);
	if (!error)
		error = workers_open("object-send", OBJECT_SENDERS, &object->senders);
	if (!error)
		error = publisher_start(object);
	return error;
}

static void set_limits(struct object *object, const struct s3_options *s3)
{
	uint64_t send = s3->part_size ? s3->part_size : 8ull << 20;

	object->whole_max = s3->multipart_threshold ? s3->multipart_threshold : 8ull << 20;
	object->limits = (struct part_limits){
		.min = S3_PART_MIN, .copy_max = COPY_MAX,
		.send = send < S3_PART_MIN ? S3_PART_MIN : send,
		.nr_max = S3_PARTS_MAX,
	};
}

int s3_object_open(const char *place, const char *bucket, const char *key,
		   const char *version, const struct s3_options *s3,
		   const struct device_options *options, struct stage **stage)
{
	struct geometry geometry = {
		.read_unit = 1, .write_unit = 1, .preferred = PREFERRED,
		.max_request = REQUEST_MAX,
		.flags = options->writable ? STAGE_FAST_ZERO : STAGE_READ_ONLY,
	};
	struct object *object = calloc(1, sizeof(*object));
	int error;

	if (!object)
		return -ENOMEM;
	pthread_mutex_init(&object->lock, NULL);
	pthread_cond_init(&object->wake, NULL);
	object->writable = options->writable;
	object->exclusive = s3->exclusive;
	object->place = strdup(place);
	object->version = version ? strdup(version) : NULL;
	if (asprintf(&object->read_key, "/%s", key) < 0)
		object->read_key = NULL;
	error = object->place && object->read_key && (object->version || !version) ?
		0 : -ENOMEM;
	if (!error) {
		object->key = object->read_key + 1;
		set_limits(object, s3);
		error = store_s3_open(place, bucket, "", s3, &object->store);
	}
	if (!error) {
		object->client = store_s3_client(object->store);
		atomic_store(&object->store->retry_for, options->retry_for);
		error = find_object(object, options->retry_for, &geometry.size);
	}
	if (!error)
		error = workers_open("object-disk", NR_DISK, &object->disk);
	if (!error) {
		stage_init(&object->stage, &object_ops, NULL, &geometry);
		object->stage.server = &object_server;
		if (options->writable)
			error = open_for_writing(object, options, geometry.size);
	}
	if (error) {
		publisher_stop(object);
		object_free(object);
		return error;
	}
	*stage = &object->stage;
	return 0;
}
