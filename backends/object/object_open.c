/* object_open.c: finds the object, and opens it. */
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

#define PREFERRED    (1u << 20)
#define REQUEST_MAX  (8u << 20)
#define KEPT_NAME_MAX 256	/* of metadata; longer ones are left out */
#define COPY_MAX     (128ull << 20)	/* of S3's 5 GiB: shorter ones go side by side */
#define SEND_MAX     (2ull << 30)	/* parts are shorter than twice that */
#define METADATA_MAX 2048u		/* S3: of names and values */
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
	trouble_deinit(&object->trouble);
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

/* ---- its server ---------------------------------------------------------------------- */

static struct object *object_of(struct stage *stage)
{
	return (struct object *)stage;
}

static void set_retry_for(struct stage *stage, uint64_t retry_for)
{
	atomic_store(&object_of(stage)->store->retry_for, retry_for);
}

static void tell_trouble(struct stage *stage, struct trouble_status *trouble)
{
	struct object *object = object_of(stage);

	trouble_status(&object->trouble, trouble);
	if (!trouble->reason[0])
		trouble_status(&object->store->trouble, trouble);
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
	.trouble       = tell_trouble,
	.is_lost       = is_lost,
	.keep_unsaved  = object_keep_unsaved,
};

/* ---- the whole ------------------------------------------------------------------------- */

/* What a new version carries has to fit, or every flush would fail. */
static int check_metadata(const struct object *object)
{
	size_t bytes = sizeof("objmap-publish") + sizeof(object->session) + 10;
	const char *line = NULL;

	while ((line = http_headers_next(&object->kept, line)))
		if (strncasecmp(line, "x-amz-meta-", 11) == 0)
			bytes += strlen(line) - 11;
	if (bytes <= METADATA_MAX)
		return 0;
	log_error("%s: its metadata leaves no room for objmap's, S3 takes %u bytes; 'objmap copy' it to another object",
		  object->place, METADATA_MAX);
	return -E2BIG;
}

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
	error = check_metadata(object);
	if (!error && !object->exclusive)
		error = object_probe(object, size);
	if (!error)
		error = spill_open(object->state, &object->spills);
	if (!error)
		error = workers_open("object-send", OBJECT_SENDERS, &object->senders);
	if (!error)
		error = publisher_start(object);
	return error;
}

static void set_limits(struct object *object, const struct s3_options *s3, uint64_t size)
{
	uint64_t send = s3->part_size ? s3->part_size : 8ull << 20;

	object->limits = (struct part_limits){
		.min = S3_PART_MIN, .copy_max = COPY_MAX,
		.send = send < S3_PART_MIN ? S3_PART_MIN : send > SEND_MAX ? SEND_MAX : send,
		.nr_max = S3_PARTS_MAX,
	};
	/* Half of the parts are enough for copies. */
	while (size / object->limits.copy_max > S3_PARTS_MAX / 2)
		object->limits.copy_max *= 2;
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
	trouble_init(&object->trouble, object->place);
	object->version = version ? strdup(version) : NULL;
	if (asprintf(&object->read_key, "/%s", key) < 0)
		object->read_key = NULL;
	error = object->place && object->read_key && (object->version || !version) ?
		0 : -ENOMEM;
	if (!error) {
		object->key = object->read_key + 1;
		snprintf(object->session, sizeof(object->session), "%016" PRIx64, random_id());
		error = store_s3_open(place, bucket, "", s3, &object->store);
	}
	if (!error) {
		object->client = store_s3_client(object->store);
		atomic_store(&object->store->retry_for, options->retry_for);
		object->store->any_key = true;
		error = find_object(object, options->retry_for, &geometry.size);
	}
	if (!error)
		set_limits(object, s3, geometry.size);
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
