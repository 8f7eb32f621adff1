/* send.c: one new version of the object, as one multipart upload, however small: the
 * end of an upload that arrives late finds no upload any more, where a PUT could find
 * the very content, and so the ETag, that it was conditional on once more.
 *
 * Parts that were written are put together in memory (long ones in a file without a
 * name) and sent; the others are copied by the store from the version that this mount
 * reads.  Copies and the last call are conditional on that version, so that nobody
 * else's is overwritten.  When the last call's answer is lost, the object itself tells:
 * each version carries in its metadata which mount published it, and its number there.
 *
 * Somebody waits for all that is sent here, a flush or a write that needs room: it goes
 * with demand, or readers could keep it waiting for ever. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#include "backends/object/object.h"
#include "backends/s3/xml.h"
#include "src/clock.h"
#include "src/log.h"

#define ID_HEADER      "x-amz-meta-objmap-publish"
#define MALLOC_MAX     (32ull << 20)	/* longer parts are put together in a file */
#define LOOK_WAIT_MS   500
#define ABORT_SHORTEST (2 * CLOCK_SECOND)
#define ABORT_LONGEST  (10 * CLOCK_SECOND)
#define COPY_STALL     (30 * CLOCK_SECOND)
#define COPY_SLOWEST   (1u << 20)	/* bytes a second */

struct sending {
	struct object *object;
	const struct dirty_map *map;	/* does not change meanwhile */
	char tag[STORE_TAG_MAX];	/* of the version it goes on from */
	char id[OBJECT_SESSION + 10];	/* SESSION-NUMBER */
	char upload[S3_UPLOAD_ID_MAX];
	struct part_list list;
	struct s3_part *parts;		/* list.nr, as the store has them */
	atomic_uint next;		/* part to take */
	atomic_int error;		/* the first */
	pthread_mutex_t lock;
	pthread_cond_t ended;
	unsigned int nr_busy;		/* senders; under the lock */
};

/* A stretch of the new version. */
struct content {
	char *bytes;
	uint64_t count;
	bool mapped;
};

static uint64_t deadline_of(const struct object *object)
{
	uint64_t retry_for = atomic_load(&object->store->retry_for);
	uint64_t now = clock_now();

	return retry_for > UINT64_MAX - now ? UINT64_MAX : now + retry_for;
}

static void note_retry(const struct s3_call *call)
{
	struct object *object = call->retrying_context;

	trouble_note(&object->trouble, &object->in_trouble, 0, "publishing: %s",
		     call->message);
}

/* Runs @call until it ends well, or is given up. */
static void wait_for(struct object *object, struct s3_call *call, uint64_t deadline)
{
	call->retry_for = &object->store->retry_for;
	call->retrying = note_retry;
	call->retrying_context = object;
	s3_wait_retrying(object->client, call, deadline, &object->stop);
}

/* Runs @call, and logs why it did not end well.  0, -ESTALE: refused; -errno. */
static int run(struct object *object, struct s3_call *call, const char *what)
{
	/* An upload begun twice is found by gc; a part sent twice is one. */
	call->repeatable = true;
	wait_for(object, call, deadline_of(object));
	if (call->outcome == STORE_DONE)
		return 0;
	if (call->outcome == STORE_REFUSED)
		return -ESTALE;
	log_error("%s: %s: %s", object->place, what, call->message);
	return call->error ? call->error : -EIO;
}

/* ---- what a part holds ------------------------------------------------------------- */

static int content_open(struct object *object, uint64_t count, struct content *content)
{
	struct spill *file;
	int error;

	*content = (struct content){ .count = count };
	if (count <= MALLOC_MAX) {
		content->bytes = malloc(count);
		return content->bytes ? 0 : -ENOMEM;
	}
	error = spill_open(object->state, &file);
	if (error)
		return error;
	error = -posix_fallocate(file->fd, 0, (off_t)count);
	if (!error) {
		void *bytes = mmap(NULL, count, PROT_READ | PROT_WRITE, MAP_SHARED,
				   file->fd, 0);

		content->mapped = bytes != MAP_FAILED;
		content->bytes = content->mapped ? bytes : NULL;
		error = content->mapped ? 0 : -errno;
	}
	spill_close(file);
	return error;
}

static void content_close(struct content *content)
{
	if (content->mapped)
		munmap(content->bytes, content->count);
	else
		free(content->bytes);
}

/* Bytes of the version this one goes on from. */
static int fill_from_object(struct sending *sending, char *to, uint64_t offset,
			    uint64_t count)
{
	struct object *object = sending->object;
	struct iovec iov = { to, count };
	struct store_request get = {
		.cause = CAUSE_PUSH, .priority = PRIORITY_DEMAND,
		.key = object->read_key, .offset = offset, .count = count,
		.iov = &iov, .nr_iov = 1, .condition = STORE_IF_MATCH,
		.tag = sending->tag,
	};

	switch (store_wait(object->store, STORE_GET, &get)) {
	case STORE_DONE:
		return get.reply.count == count ? 0 : -EIO;
	case STORE_REFUSED:
	case STORE_ABSENT:
		return -ESTALE;
	default:
		return get.reply.error ? get.reply.error : -EIO;
	}
}

/* Bytes [offset, offset + count) of the new version. */
static int fill(struct sending *sending, char *to, uint64_t offset, uint64_t count)
{
	uint64_t end = offset + count;

	while (offset < end) {
		struct dirty_range range = { .start = end };
		uint64_t stop = end;
		int error = 0;

		if (dirty_next(sending->map, offset, &range) && range.start < end)
			stop = range.start > offset ? range.start : range.end;
		if (stop > end)
			stop = end;
		if (range.start > offset) {
			error = fill_from_object(sending, to, offset, stop - offset);
		} else if (range.spill) {
			struct iovec iov = { to, stop - offset };

			error = spill_read(range.spill, range.at, &iov, 1);
			if (error)
				log_error("%s: reading unsaved writes back: %s",
					  sending->object->place, strerror(-error));
		} else {
			memset(to, 0, stop - offset);
		}
		if (error)
			return error;
		to += stop - offset;
		offset = stop;
	}
	return 0;
}

/* ---- headers ---------------------------------------------------------------------------- */

/* What the object had besides its bytes, and the id of this publishing. */
static int add_kept(struct sending *sending, struct http_headers *headers)
{
	int error = http_headers_add(headers, ID_HEADER, sending->id);

	return error ? error : http_headers_add_all(headers, &sending->object->kept);
}

static int add_condition(const struct sending *sending, struct http_headers *headers)
{
	if (sending->object->exclusive)
		return 0;
	return http_headers_add(headers, "If-Match", sending->tag);
}

static int add_copy_source(const struct sending *sending,
			   const struct object_part *part, struct http_headers *headers)
{
	const struct object *object = sending->object;
	char path[3 * (STORE_KEY_MAX + 80)], range[64];
	int length = snprintf(path, sizeof(path), "/%s/",
			      s3_client_bucket(object->client));
	int error = s3_encode(object->key, true, path + length,
			      sizeof(path) - (size_t)length);

	if (error < 0)
		return error;
	snprintf(range, sizeof(range), "bytes=%" PRIu64 "-%" PRIu64, part->offset,
		 part->offset + part->count - 1);
	error = http_headers_add(headers, "x-amz-copy-source", path);
	if (!error)
		error = http_headers_add(headers, "x-amz-copy-source-range", range);
	if (!error && !object->exclusive)
		error = http_headers_add(headers, "x-amz-copy-source-if-match",
					 sending->tag);
	return error;
}

static int keep_etag(const char *etag, char to[STORE_TAG_MAX])
{
	size_t length = strlen(etag);

	if (!length || length + 3 > STORE_TAG_MAX)
		return -EBADMSG;
	/* In XML some servers leave the quotes away. */
	snprintf(to, STORE_TAG_MAX, etag[0] == '"' ? "%s" : "\"%s\"", etag);
	return 0;
}

/* ---- parts ------------------------------------------------------------------------------ */

static int send_part(struct sending *sending, unsigned int n)
{
	const struct object_part *part = &sending->list.parts[n];
	struct object *object = sending->object;
	struct s3_call call = { .method = "PUT", .key = object->key,
				.priority = PRIORITY_DEMAND };
	struct content content = { 0 };
	char *query = s3_upload_query(sending->upload, n + 1), etag[STORE_TAG_MAX];
	struct iovec iov;
	const char *found;
	int error = query ? 0 : -ENOMEM;

	call.query = query;
	if (!error && part->copy) {
		error = add_copy_source(sending, part, &call.headers);
		/* MinIO says nothing until it has copied all of it. */
		call.stall_timeout = COPY_STALL + part->count / COPY_SLOWEST * CLOCK_SECOND;
	} else if (!error) {
		error = content_open(object, part->count, &content);
		if (!error)
			error = fill(sending, content.bytes, part->offset, part->count);
		iov = (struct iovec){ content.bytes, part->count };
		call.body = &iov;
		call.nr_body = 1;
		call.body_count = part->count;
		/* Nothing else tells that it was altered on the way. */
		if (!error && !s3_client_signs_payload(object->client))
			error = s3_add_md5(&call.headers, &iov, 1);
	}
	if (!error)
		error = run(object, &call, part->copy ? "copying a part" :
			    "sending a part");
	if (!error && part->copy) {
		error = s3_xml_text(call.http.text, call.http.text_count,
				    "CopyPartResult", "ETag", etag, sizeof(etag));
		found = error ? NULL : etag;
	} else if (!error) {
		found = http_headers_find(&call.http.reply, "ETag");
	}
	if (!error)
		error = found ? keep_etag(found, sending->parts[n].etag) : -EBADMSG;
	sending->parts[n].size = part->count;
	content_close(&content);
	s3_call_free(&call);
	free(query);
	return error;
}

struct sender {
	struct job job;			/* must stay first */
	struct sending *sending;
};

static void sender_run(struct job *job)
{
	struct sending *sending = ((struct sender *)job)->sending;
	unsigned int n;
	int error, none = 0;

	while (!atomic_load(&sending->error) && !atomic_load(&sending->object->stop) &&
	       (n = atomic_fetch_add(&sending->next, 1)) < sending->list.nr) {
		error = send_part(sending, n);
		if (error) {
			none = 0;
			atomic_compare_exchange_strong(&sending->error, &none, error);
		}
	}
	pthread_mutex_lock(&sending->lock);
	if (--sending->nr_busy == 0)
		pthread_cond_signal(&sending->ended);
	pthread_mutex_unlock(&sending->lock);
}

static int send_parts(struct sending *sending)
{
	struct sender senders[OBJECT_SENDERS];
	int error;

	sending->nr_busy = OBJECT_SENDERS;
	for (unsigned int i = 0; i < OBJECT_SENDERS; i++) {
		senders[i] = (struct sender){ { .run = sender_run,
						.priority = PRIORITY_DEMAND }, sending };
		workers_submit(sending->object->senders, &senders[i].job);
	}
	pthread_mutex_lock(&sending->lock);
	while (sending->nr_busy)
		pthread_cond_wait(&sending->ended, &sending->lock);
	pthread_mutex_unlock(&sending->lock);
	error = atomic_load(&sending->error);
	return !error && atomic_load(&sending->object->stop) ? -ECANCELED : error;
}

/* ---- the call that makes the new version ---------------------------------------------------- */

enum seen {
	SEEN_OURS,
	SEEN_EARLIER,		/* one of ours, of which it was not known whether it came */
	SEEN_OLD, SEEN_OTHER, SEEN_NOTHING
};

static void set_doubtful(struct object *object, bool doubtful)
{
	pthread_mutex_lock(&object->lock);
	object->doubtful = doubtful;
	pthread_mutex_unlock(&object->lock);
}

static enum seen seen_by(const struct sending *sending, const char *id, const char *tag)
{
	if (id && strcmp(id, sending->id) == 0)
		return SEEN_OURS;
	if (strcmp(tag, sending->tag) == 0)
		return SEEN_OLD;
	if (id && strncmp(id, sending->object->session, OBJECT_SESSION) == 0)
		return SEEN_EARLIER;
	return SEEN_OTHER;
}

/* Looks which version is there. */
static enum seen look(struct sending *sending, char tag[STORE_TAG_MAX])
{
	struct object *object = sending->object;
	char byte;
	struct iovec iov = { &byte, 1 };
	struct s3_call call = { .method = "GET", .key = object->key, .sink = &iov,
				.nr_sink = 1, .sink_count = 1,
				.priority = PRIORITY_DEMAND };
	enum seen seen = SEEN_NOTHING;
	const char *etag;

	if (http_headers_add(&call.headers, "Range", "bytes=0-0") == 0)
		wait_for(object, &call, deadline_of(object));
	if (call.outcome == STORE_DONE && call.http.status) {
		etag = http_headers_find(&call.http.reply, "ETag");
		if (etag && keep_etag(etag, tag) == 0)
			seen = seen_by(sending, http_headers_find(&call.http.reply,
								  ID_HEADER), tag);
	} else if (call.outcome == STORE_ABSENT) {
		seen = SEEN_OTHER;
	}
	s3_call_free(&call);
	return seen;
}

static int tag_of_reply(const struct s3_call *call, char tag[STORE_TAG_MAX])
{
	char etag[STORE_TAG_MAX];

	if (s3_xml_text(call->http.text, call->http.text_count,
			"CompleteMultipartUploadResult", "ETag", etag, sizeof(etag)) != 0)
		return -EBADMSG;
	return keep_etag(etag, tag);
}

/* Whether it may be there, or come yet: it was sent, and not refused. */
static bool may_have_come(const struct s3_call *call)
{
	return call->sent_at && call->outcome != STORE_REFUSED;
}

/* What @call's answer and what was seen after it mean.  0: it is there; 1: try again;
 * -errno. */
static int judge(struct sending *sending, const struct s3_call *call, enum seen seen)
{
	if (seen == SEEN_OURS)
		return 0;
	if (seen == SEEN_OTHER || seen == SEEN_EARLIER)
		return -ESTALE;
	if (call->outcome != STORE_FAILED && call->outcome != STORE_ABSENT)
		return 1;
	log_error("%s: publishing a new version: %s", sending->object->place,
		  call->message);
	return call->error ? call->error : -EIO;
}

/* @error ends the tries, of which @may_come is still to be seen later. */
static int give_up(struct sending *sending, bool may_come, int error)
{
	if (may_come && error != -ESTALE)
		set_doubtful(sending->object, true);
	return error;
}

static void wait_ms(unsigned int ms)
{
	struct timespec t = { ms / 1000, (long)(ms % 1000) * 1000000 };

	nanosleep(&t, NULL);
}

/* Ends the upload by @call, again and again until it is known what became of it. */
static int make_version(struct sending *sending, struct s3_call *call,
			char tag[STORE_TAG_MAX])
{
	struct object *object = sending->object;
	uint64_t begun = clock_now(), deadline = deadline_of(object);
	const struct s3_call model = *call;
	bool may_come = false;
	int verdict;

	pthread_mutex_lock(&object->lock);
	object->settling = true;
	pthread_mutex_unlock(&object->lock);
	for (;;) {
		*call = model;
		verdict = add_condition(sending, &call->headers);
		if (!verdict) {
			wait_for(object, call, deadline);
			may_come |= may_have_come(call);
			verdict = call->outcome == STORE_DONE &&
				  tag_of_reply(call, tag) == 0 ? 0 :
				  judge(sending, call, look(sending, tag));
		}
		if (verdict > 0)
			note_retry(call);
		s3_call_free(call);
		if (verdict == 0)
			return 0;
		if (verdict < 0)
			return give_up(sending, may_come, verdict);
		if (atomic_load(&object->stop))
			return -ECANCELED;
		if (clock_now() >= deadline ||
		    clock_now() - begun >= atomic_load(&object->store->retry_for)) {
			set_doubtful(object, true);
			log_error("%s: whether the new version is there could not be found out in time; the next flush tries again",
				  object->place);
			return -ETIMEDOUT;
		}
		wait_ms(LOOK_WAIT_MS);
	}
}

/* ---- the upload --------------------------------------------------------------------- */

static int create_upload(struct sending *sending)
{
	struct object *object = sending->object;
	struct s3_call call = { .method = "POST", .key = object->key,
				.query = "uploads", .writes_object = true,
				.priority = PRIORITY_DEMAND };
	int error = add_kept(sending, &call.headers);

	if (!error)
		error = run(object, &call, "beginning an upload");
	if (!error)
		error = s3_upload_id(call.http.text, call.http.text_count,
				     sending->upload);
	s3_call_free(&call);
	return error;
}

/* Whether it cannot end any more: 0; -EACCES: the store does not let us; -ETIMEDOUT. */
static int abort_upload(struct object *object, const char *upload)
{
	char *query = s3_upload_query(upload, 0);
	struct s3_call call = { .method = "DELETE", .key = object->key, .query = query,
				.repeatable = true };
	uint64_t patience = atomic_load(&object->store->retry_for);
	int error = -ETIMEDOUT;

	if (patience > ABORT_LONGEST)
		patience = ABORT_LONGEST;
	else if (patience < ABORT_SHORTEST)
		patience = ABORT_SHORTEST;
	if (query) {
		s3_wait_retrying(object->client, &call, clock_now() + patience, NULL);
		if (call.outcome == STORE_DONE || strcmp(call.code, "NoSuchUpload") == 0)
			error = 0;
		else if (call.outcome == STORE_FAILED)
			error = -EACCES;
		if (error)
			log_warning("%s: an upload could not be aborted: %s; 'objmap gc' finds it later",
				    object->place, call.message);
	}
	s3_call_free(&call);
	free(query);
	return error;
}

static int complete_upload(struct sending *sending, char tag[STORE_TAG_MAX])
{
	struct object *object = sending->object;
	char *query = s3_upload_query(sending->upload, 0);
	char *body = s3_complete_body(sending->parts, sending->list.nr);
	struct iovec iov = { body, body ? strlen(body) : 0 };
	struct s3_call call = { .method = "POST", .key = object->key, .query = query,
				.body = &iov, .nr_body = 1, .body_count = iov.iov_len,
				.priority = PRIORITY_DEMAND };
	int error = query && body ? make_version(sending, &call, tag) : -ENOMEM;

	free(query);
	free(body);
	return error;
}

static int send_upload(struct sending *sending, char tag[STORE_TAG_MAX])
{
	struct object *object = sending->object;
	int error = parts_plan(sending->map, stage_size(&object->stage),
			       &object->limits, &sending->list);

	if (!error) {
		sending->parts = calloc(sending->list.nr, sizeof(*sending->parts));
		error = sending->parts ? create_upload(sending) : -ENOMEM;
	}
	if (!error) {
		error = send_parts(sending);
		if (!error)
			error = complete_upload(sending, tag);
		if (error && abort_upload(object, sending->upload) == -ETIMEDOUT &&
		    object->doubtful)
			strcpy(object->late, sending->upload);
	}
	return error;
}

/* An end that comes late must come before we look, or never: it could find the bytes
 * that it was conditional on once more, and undo what was published in between. */
static int end_late(struct object *object)
{
	if (!object->late[0])
		return 0;
	if (abort_upload(object, object->late) == -ETIMEDOUT)
		return -ETIMEDOUT;
	object->late[0] = 0;
	return 0;
}

/* Whether an earlier publishing of which nothing was known is there: then this one
 * goes on from it.  Its bytes differ from the version before only where the map says. */
static int settle_doubt(struct sending *sending)
{
	struct object *object = sending->object;
	char tag[STORE_TAG_MAX];

	switch (end_late(object) ? SEEN_NOTHING : look(sending, tag)) {
	case SEEN_OURS:
	case SEEN_EARLIER:
		memcpy(sending->tag, tag, sizeof(tag));
		pthread_mutex_lock(&object->lock);
		memcpy(object->tag, tag, sizeof(tag));
		pthread_mutex_unlock(&object->lock);
		break;
	case SEEN_OLD:
		break;
	case SEEN_OTHER:
		return -ESTALE;
	default:
		log_error("%s: whether the last version is there is still not known",
			  object->place);
		return -ETIMEDOUT;
	}
	return 0;
}

static int send_once(struct sending *sending, char tag[STORE_TAG_MAX])
{
	int error = sending->object->doubtful ? settle_doubt(sending) : 0;

	return error ? error : send_upload(sending, tag);
}

static void forget_parts(struct sending *sending)
{
	parts_free(&sending->list);
	free(sending->parts);
	sending->parts = NULL;
	atomic_store(&sending->next, 0);
	atomic_store(&sending->error, 0);
}

int object_send(struct object *object, char tag[STORE_TAG_MAX])
{
	struct sending sending = { .object = object, .map = &object->sealed };
	bool doubtful = object->doubtful;
	int error;

	pthread_mutex_init(&sending.lock, NULL);
	pthread_cond_init(&sending.ended, NULL);
	snprintf(sending.id, sizeof(sending.id), "%s-%x", object->session,
		 ++object->nr_published);
	memcpy(sending.tag, object->tag, sizeof(sending.tag));
	error = send_once(&sending, tag);
	if (error == -ESTALE && doubtful) {
		/* Did it come late, in the middle of this one?  Then we go on from it. */
		error = settle_doubt(&sending);
		forget_parts(&sending);
		if (!error)
			error = send_once(&sending, tag);
	}
	if (!error)
		set_doubtful(object, false);
	trouble_end(&object->trouble, &object->in_trouble,
		    error ? NULL : "publishing succeeded");
	forget_parts(&sending);
	pthread_cond_destroy(&sending.ended);
	pthread_mutex_destroy(&sending.lock);
	return error;
}
