/* s3_delete.c: deleting objects, up to 1,000 with one request, and abandoned
 * uploads.  What is not there any more is as wished. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backends/store/s3.h"

static void one_deleted(struct s3_op *op)
{
	/* Some servers say that it was not there. */
	if (op->call.outcome == STORE_FAILED && strcmp(op->call.code, "NoSuchKey") == 0)
		op->call.outcome = STORE_DONE;
	s3_op_complete(op);
}

static bool is_passing(const char *code)
{
	static const char *const codes[] = {
		"InternalError", "SlowDown", "ServiceUnavailable", "OperationAborted",
		"RequestTimeout", "TooManyRequests",
	};
	size_t i;

	for (i = 0; i < sizeof(codes) / sizeof(codes[0]); i++)
		if (strcmp(codes[i], code) == 0)
			return true;
	return false;
}

/* Each key has an outcome of its own; the first that is not gone is told. */
static void many_deleted(struct s3_op *op)
{
	struct s3_call *call = &op->call;
	char key[STORE_KEY_MAX];
	struct s3_error error;
	int result = 0;

	if (call->outcome == STORE_DONE)
		result = s3_xml_deleted(call->http.text ? call->http.text : "", call->http.text_count, key,
					sizeof(key), &error);
	if (result == -EIO) {
		s3_call_says(call, is_passing(error.code) ? STORE_TRANSIENT : STORE_FAILED,
			     strcmp(error.code, "AccessDenied") == 0 ? -EACCES : -EREMOTEIO,
			     "%.80s: %s: %.80s", key, error.code, error.message);
	} else if (result) {
		s3_call_is_wrong(call, "no DeleteResult");
	}
	s3_op_complete(op);
}

static void delete_many(struct s3_store *s3, struct store_request *request)
{
	struct s3_op *op = s3_op_new(s3, request, "POST", NULL);
	size_t count = 0;
	char *body;

	if (!op)
		return;
	body = s3_xml_delete(request->keys, request->nr_keys, s3->prefix, &count);
	if (s3_op_query(op, strdup("delete=")) || s3_op_body(op, body, count) ||
	    http_headers_add(&op->call.headers, "Content-Type", "application/xml")) {
		s3_op_fail(op, -ENOMEM);
		return;
	}
	op->call.needs_md5 = true;
	s3_op_start(op, many_deleted);
}

void s3_delete(struct s3_store *s3, struct store_request *request)
{
	struct s3_op *op;

	if (request->nr_keys == 0) {
		store_complete(request, STORE_DONE);
	} else if (request->nr_keys > 1) {
		delete_many(s3, request);
	} else {
		op = s3_op_new(s3, request, "DELETE", request->keys[0]);
		if (op)
			s3_op_start(op, one_deleted);
	}
}

/* ---- uploads ---------------------------------------------------------------------- */

static void aborted(struct s3_op *op)
{
	if (op->call.outcome == STORE_ABSENT)
		op->call.outcome = STORE_DONE;
	s3_op_complete(op);
}

void s3_abort_upload(struct s3_store *s3, struct store_request *request)
{
	struct s3_op *op = s3_op_new(s3, request, "DELETE", request->key);

	if (!op)
		return;
	if (s3_op_query(op, s3_upload_query(request->upload, 0))) {
		s3_op_fail(op, -ENOMEM);
		return;
	}
	atomic_fetch_add(&s3->store.counters.aborts, 1);
	s3_op_start(op, aborted);
}
