/* s3_multipart.c: a put in parts: create, upload them all at once, complete.
 *
 *	CREATE	   -> an id; the metadata goes with it
 *	PARTS	   -> each part's tag; they queue where all requests do, so that the
 *		      parts of many puts share the connections
 *	COMPLETE   -> the object, whole, under its condition; when its reply was lost
 *		      or the upload is not known (any more):
 *	SETTLE	   -> is the object there what these parts make?
 *
 * What went well is kept in the request from one try to the next, so that a part
 * that failed is all that is sent again.  An upload that will not be completed is
 * aborted when nothing of it is under way any more; what that misses is gc's. */
#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backends/store/s3.h"
#include "src/clock.h"
#include "src/stage/iov.h"

#define ABORT_WITHIN (10 * CLOCK_SECOND)

struct upload {
	char id[S3_UPLOAD_ID_MAX];	/* empty: not created */
	struct s3_part *parts;		/* without an etag: not there yet */
	unsigned int nr_parts;
	uint64_t part_size;
	atomic_uint nr_under_way;
	/* Of the parts under way; under the store's lock. */
	enum store_outcome outcome;	/* DONE, or the worst of the failures */
	struct s3_op *failed;		/* its op, kept for its words */
	bool is_gone;			/* the server does not know the id */
	atomic_bool stop;		/* the other parts need not be sent */
	bool no_memory;			/* for one of them */
};

/* ---- the upload -------------------------------------------------------------------- */

static struct upload *upload_new(uint64_t count, uint64_t part_size)
{
	struct upload *upload = calloc(1, sizeof(*upload));

	/* The parts of one object are at most 10,000. */
	while (upload && count / part_size >= S3_PARTS_MAX)
		part_size *= 2;
	if (upload) {
		upload->part_size = part_size;
		upload->nr_parts = (unsigned int)((count + part_size - 1) / part_size);
		upload->parts = calloc(upload->nr_parts, sizeof(*upload->parts));
	}
	if (upload && !upload->parts) {
		free(upload);
		upload = NULL;
	}
	return upload;
}

static void upload_free(struct upload *upload)
{
	free(upload->parts);
	free(upload);
}

/* The server has forgotten it: the next try begins anew. */
static void upload_restart(struct upload *upload)
{
	upload->id[0] = 0;
	memset(upload->parts, 0, upload->nr_parts * sizeof(*upload->parts));
}

static void upload_continue(struct s3_store *s3, struct store_request *request);

/* Completes as @outcome; what must not stay for another try is forgotten. */
static void upload_end(struct s3_op *op, enum store_outcome outcome)
{
	struct store_request *request = op->request;
	struct upload *upload = request->kept;

	if (outcome == STORE_DONE) {
		request->kept = NULL;
		upload_free(upload);
	}
	s3_op_complete_as(op, outcome);
}

/* ---- aborting ---------------------------------------------------------------------------- */

static void abort_done(struct s3_op *op)
{
	s3_op_free(op);
}

void s3_forget(struct store *store, struct store_request *request)
{
	struct s3_store *s3 = (struct s3_store *)store;
	struct upload *upload = request->kept;
	struct s3_op *op = NULL;

	if (upload->id[0])
		op = s3_op_new(s3, NULL, "DELETE", request->key);
	if (op && s3_op_query(op, s3_upload_query(upload->id, 0)) == 0) {
		op->call.priority = request->priority;
		op->call.deadline = clock_now() + ABORT_WITHIN;
		atomic_fetch_add(&s3->store.counters.aborts, 1);
		s3_count_call(s3, request);
		s3_op_start(op, abort_done);
	} else if (op) {
		s3_op_free(op);
	}
	upload_free(upload);
}

/* ---- create ---------------------------------------------------------------------------------- */

static void created(struct s3_op *op)
{
	struct store_request *request = op->request;
	struct upload *upload = request->kept;
	struct s3_call *call = &op->call;
	struct s3_store *s3 = op->s3;

	if (call->outcome == STORE_DONE &&
	    s3_upload_id(call->http.text ? call->http.text : "", call->http.text_count,
			 upload->id) < 0)
		s3_call_is_wrong(call, "no UploadId");
	if (call->outcome != STORE_DONE) {
		/* An upload that nobody knows the id of changes nothing. */
		upload_end(op, call->outcome == STORE_UNKNOWN ? STORE_TRANSIENT
							       : call->outcome);
		return;
	}
	s3_op_free(op);
	upload_continue(s3, request);
}

static void send_create(struct s3_store *s3, struct store_request *request)
{
	struct s3_op *op = s3_op_new(s3, request, "POST", request->key);
	struct http_headers *headers;
	int error;

	if (!op)
		return;
	headers = &op->call.headers;
	op->call.writes_object = true;
	error = s3_op_query(op, strdup("uploads="));
	if (!error)
		error = http_headers_add(headers, "Content-Type",
					 "application/octet-stream");
	if (!error)
		error = s3_add_metadata(headers, request->metadata);
	if (error)
		s3_op_fail(op, error);
	else
		s3_op_start(op, created);
}

/* ---- settle and complete ------------------------------------------------------------------------ */

/* Every name and value that was put is there. */
static bool metadata_is_there(const struct store_metadata *put,
			      const struct store_metadata *found)
{
	static const struct store_metadata none;
	const char *a, *line, *newline;

	if (!put)
		put = &none;
	if (put->length != found->length)
		return false;
	for (a = put->text; a < put->text + put->length; a = newline + 1) {
		newline = memchr(a, '\n', (size_t)(put->text + put->length - a));
		if (!newline)
			return false;
		line = memmem(found->text, found->length, a, (size_t)(newline - a) + 1);
		if (!line || (line > found->text && line[-1] != '\n'))
			return false;
	}
	return true;
}

/* The tag tells, where the parts' tags are MD5s, as Amazon's and MinIO's are;
 * where they are not (a server's own encryption, say), size and metadata must. */
static bool is_this_upload(const struct store_request *request,
			   const struct upload *upload, const struct store_reply *found)
{
	char etag[STORE_TAG_MAX];

	if (found->size != request->count ||
	    !metadata_is_there(request->metadata, &found->metadata))
		return false;
	if (strchr(found->tag, '-') &&
	    s3_upload_etag(upload->parts, upload->nr_parts, etag) == 0)
		return strcmp(found->tag, etag) == 0;
	return true;
}

enum { COMPLETE_LOST, UPLOAD_GONE };

static void settled(struct s3_op *op)
{
	struct store_request *request = op->request;
	struct upload *upload = request->kept;

	if (op->call.outcome == STORE_DONE)
		s3_take_object(&op->call, &request->reply);
	if (op->call.outcome == STORE_DONE &&
	    is_this_upload(request, upload, &request->reply)) {
		request->reply.metadata.length = 0;
		upload_end(op, STORE_DONE);
		return;
	}
	request->reply.tag[0] = 0;
	if (op->step == UPLOAD_GONE)
		upload_restart(upload);
	/* Completing once more, or putting once more, does no harm. */
	if (op->call.outcome == STORE_DONE || op->call.outcome == STORE_ABSENT)
		s3_call_says(&op->call, STORE_TRANSIENT, -EREMOTEIO,
			     op->step == UPLOAD_GONE ? "the server has lost the upload"
			     : "no reply to the end of the upload, nor the object");
	upload_end(op, STORE_TRANSIENT);
}

/* @step: why it is not known whether the object is there. */
static void send_settle(struct s3_store *s3, struct store_request *request,
			unsigned int step)
{
	struct s3_op *op = s3_op_new(s3, request, "GET", request->key);

	if (!op)
		return;
	op->step = step;
	op->iov = (struct iovec){ .iov_base = &op->byte, .iov_len = 1 };
	op->call.sink = &op->iov;
	op->call.nr_sink = 1;
	op->call.sink_count = 1;
	s3_count_call(s3, request);
	if (http_headers_add(&op->call.headers, "Range", "bytes=0-0"))
		s3_op_fail(op, -ENOMEM);
	else
		s3_op_start(op, settled);
}

static void completed(struct s3_op *op)
{
	struct store_request *request = op->request;
	bool conditional = request->condition != STORE_ALWAYS;
	struct s3_call *call = &op->call;
	struct s3_store *s3 = op->s3;
	unsigned int why;

	request->resent |= call->http.resent;
	if (call->outcome == STORE_DONE &&
	    s3_xml_text(call->http.text ? call->http.text : "", call->http.text_count,
			"CompleteMultipartUploadResult", "ETag", request->reply.tag,
			sizeof(request->reply.tag)) < 0)
		s3_call_is_wrong(call, "no CompleteMultipartUploadResult");
	if (call->outcome == STORE_ABSENT && !conditional) {
		why = UPLOAD_GONE;
	} else if (call->outcome == STORE_UNKNOWN && !conditional) {
		why = COMPLETE_LOST;
	} else {
		/* Two writers' objects can be equal; who asked settles a condition. */
		upload_end(op, call->outcome == STORE_ABSENT ? STORE_UNKNOWN
							      : call->outcome);
		return;
	}
	s3_op_free(op);
	send_settle(s3, request, why);
}

static void send_complete(struct s3_store *s3, struct store_request *request)
{
	struct s3_op *op = s3_op_new(s3, request, "POST", request->key);
	const struct upload *upload = request->kept;
	char *body;
	int error;

	if (!op)
		return;
	body = s3_complete_body(upload->parts, upload->nr_parts);
	error = s3_op_body(op, body, body ? strlen(body) : 0);
	if (!error)
		error = s3_op_query(op, s3_upload_query(upload->id, 0));
	if (!error)
		error = http_headers_add(&op->call.headers, "Content-Type",
					 "application/xml");
	if (!error)
		error = s3_add_condition(&op->call.headers, request);
	atomic_fetch_add(&s3->store.counters.completes, 1);
	s3_count_call(s3, request);
	if (error)
		s3_op_fail(op, error);
	else
		s3_op_start(op, completed);
}

/* ---- parts ------------------------------------------------------------------------------------------ */

static bool part_is_unwanted(struct s3_call *call)
{
	const struct s3_op *op = (const struct s3_op *)call;
	const struct upload *upload = op->request->kept;

	return atomic_load(&upload->stop) || store_request_is_cancelled(op->request);
}

/* Failed for good is worse than for now.  Returns the op that is not kept. */
static struct s3_op *keep_worst(struct upload *upload, struct s3_op *op)
{
	enum store_outcome outcome = op->call.outcome;
	struct s3_op *other = upload->failed;

	if (outcome == STORE_ABSENT)
		upload->is_gone = true;
	/* A part that may have come through is sent once more; that harms nobody. */
	if (outcome != STORE_FAILED)
		outcome = STORE_TRANSIENT;
	if (other && (upload->outcome == STORE_FAILED || outcome != STORE_FAILED))
		return op;
	upload->outcome = outcome;
	upload->failed = op;
	return other;
}

static void parts_over(struct s3_store *s3, struct store_request *request)
{
	struct upload *upload = request->kept;
	struct s3_op *failed = upload->failed;

	if (!failed && upload->no_memory) {
		request->reply.error = -ENOMEM;
		store_complete(request, STORE_TRANSIENT);
		return;
	}
	if (!failed) {
		send_complete(s3, request);
		return;
	}
	upload->failed = NULL;
	if (upload->is_gone) {
		upload_restart(upload);
		s3_call_says(&failed->call, STORE_TRANSIENT, -EREMOTEIO,
			     "the server has lost the upload");
	}
	upload_end(failed, upload->is_gone ? STORE_TRANSIENT : upload->outcome);
}

static void part_over(struct s3_store *s3, struct store_request *request)
{
	struct upload *upload = request->kept;

	if (atomic_fetch_sub(&upload->nr_under_way, 1) == 1)
		parts_over(s3, request);
}

static void part_done(struct s3_op *op)
{
	struct store_request *request = op->request;
	struct upload *upload = request->kept;
	struct s3_part *part = &upload->parts[op->step];
	struct s3_store *s3 = op->s3;
	const char *etag;

	if (op->call.outcome == STORE_DONE) {
		etag = http_headers_find(&op->call.http.reply, "ETag");
		snprintf(part->etag, sizeof(part->etag), "%s", etag);
		part->size = op->call.body_count;
	} else {
		bool stop = op->call.outcome == STORE_FAILED ||
			    op->call.outcome == STORE_ABSENT;

		pthread_mutex_lock(&s3->lock);
		op = keep_worst(upload, op);
		pthread_mutex_unlock(&s3->lock);
		/* Only now: those that it stops are cancelled, which is no reason. */
		if (stop)
			atomic_store(&upload->stop, true);
	}
	if (op)
		s3_op_free(op);
	part_over(s3, request);
}

/* The first error in making a part ends them all; NULL: it is noted. */
static struct s3_op *make_part(struct s3_store *s3, struct store_request *request,
			       unsigned int i)
{
	struct upload *upload = request->kept;
	uint64_t at = i * upload->part_size, count = request->count - at;
	struct s3_op *op = s3_op_new(s3, NULL, "PUT", request->key);

	if (!op)
		return NULL;
	if (count > upload->part_size)
		count = upload->part_size;
	op->request = request;
	op->step = i;
	op->pieces = calloc(request->nr_iov, sizeof(*op->pieces));
	if (!op->pieces || s3_op_query(op, s3_upload_query(upload->id, i + 1))) {
		s3_op_free(op);
		return NULL;
	}
	op->call.unwanted = part_is_unwanted;
	op->call.priority = request->priority;
	op->call.deadline = request->deadline;
	op->call.nr_body = iov_slice(request->iov, request->nr_iov, at, count, op->pieces);
	op->call.body = op->pieces;
	op->call.body_count = count;
	return op;
}

static void send_parts(struct s3_store *s3, struct store_request *request)
{
	struct upload *upload = request->kept;
	unsigned int i, nr = upload->nr_parts;
	struct s3_op *op;

	upload->outcome = STORE_DONE;
	upload->is_gone = upload->no_memory = false;
	atomic_store(&upload->stop, false);
	/* One more than there are: none of them ends it before all were sent. */
	atomic_store(&upload->nr_under_way, 1);
	for (i = 0; i < nr; i++) {
		if (upload->parts[i].etag[0])
			continue;
		op = make_part(s3, request, i);
		if (!op) {
			upload->no_memory = true;
			break;
		}
		atomic_fetch_add(&upload->nr_under_way, 1);
		atomic_fetch_add(&s3->store.counters.parts, 1);
		s3_count_call(s3, request);
		s3_op_start(op, part_done);
	}
	part_over(s3, request);
}

/* ---- the put ------------------------------------------------------------------------------------------ */

/* What is next for an upload of which nothing is under way. */
static void upload_continue(struct s3_store *s3, struct store_request *request)
{
	const struct upload *upload = request->kept;
	unsigned int i;

	if (!upload->id[0]) {
		send_create(s3, request);
		return;
	}
	for (i = 0; i < upload->nr_parts; i++)
		if (!upload->parts[i].etag[0])
			break;
	if (i < upload->nr_parts)
		send_parts(s3, request);
	else
		send_complete(s3, request);
}

void s3_put_parts(struct s3_store *s3, struct store_request *request)
{
	if (!request->kept)
		request->kept = upload_new(request->count,
					   s3_client_options(s3->client)->part_size);
	if (!request->kept) {
		request->reply.error = -ENOMEM;
		store_complete(request, STORE_FAILED);
		return;
	}
	upload_continue(s3, request);
}
