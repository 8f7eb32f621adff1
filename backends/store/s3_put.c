/* s3_put.c: puts into a bucket, in one request; above the multipart threshold
 * s3_multipart.c takes them. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backends/store/s3.h"
#include "src/crc32c.h"

enum { AS_ASKED, WITHOUT_CONDITION };

int s3_add_metadata(struct http_headers *headers, const struct store_metadata *metadata)
{
	char line[STORE_METADATA_MAX + 1], name[STORE_METADATA_MAX + 16], *value;
	const char *at, *end, *newline;
	int error = 0;

	if (!metadata)
		return 0;
	end = metadata->text + metadata->length;
	for (at = metadata->text; at < end && !error; at = newline + 1) {
		newline = memchr(at, '\n', (size_t)(end - at));
		if (!newline)
			return -EINVAL;
		memcpy(line, at, (size_t)(newline - at));
		line[newline - at] = 0;
		value = strchr(line, '=');
		if (!value)
			return -EINVAL;
		*value++ = 0;
		snprintf(name, sizeof(name), "x-amz-meta-%s", line);
		error = http_headers_add(headers, name, value);
	}
	return error;
}

int s3_add_condition(struct http_headers *headers, const struct store_request *request)
{
	switch (request->condition) {
	case STORE_IF_ABSENT:
		return http_headers_add(headers, "If-None-Match", "*");
	case STORE_IF_MATCH:
		return http_headers_add(headers, "If-Match", request->tag);
	case STORE_ALWAYS:
		break;
	}
	return 0;
}

static uint32_t content_crc(const struct store_request *request)
{
	if (request->sums)
		return crc32c_of_sums(request->sums, request->sum_unit, request->count);
	return s3_crc32c(request->iov, request->nr_iov);
}

static void put_done(struct s3_op *op);

static void put_send(struct s3_store *s3, struct store_request *request,
		     unsigned int step)
{
	struct s3_op *op = s3_op_new(s3, request, "PUT", request->key);
	struct http_headers *headers;
	int error;

	if (!op)
		return;
	op->step = step;
	headers = &op->call.headers;
	op->call.writes_object = true;
	op->call.body = request->iov;
	op->call.nr_body = request->nr_iov;
	op->call.body_count = request->count;
	error = http_headers_add(headers, "Content-Type", "application/octet-stream");
	if (!error)
		error = s3_add_metadata(headers, request->metadata);
	if (!error && step == AS_ASKED)
		error = s3_add_condition(headers, request);
	if (!error && !s3_client_signs_payload(s3->client))
		error = s3_add_crc32c(headers, content_crc(request));
	if (error)
		s3_op_fail(op, error);
	else
		s3_op_start(op, put_done);
}

void s3_put(struct s3_store *s3, struct store_request *request)
{
	if (request->count > s3_client_options(s3->client)->multipart_threshold)
		s3_put_parts(s3, request);
	else
		put_send(s3, request, AS_ASKED);
}

static void put_done(struct s3_op *op)
{
	struct store_request *request = op->request;
	struct s3_store *s3 = op->s3;

	if (op->call.outcome == STORE_DONE)
		s3_take_object(&op->call, &request->reply);
	request->resent |= op->call.http.resent;
	/* The user's word that nobody else writes stands for a condition that the
	 * store does not know. */
	if (op->call.error == -EOPNOTSUPP && request->condition != STORE_ALWAYS &&
	    op->step == AS_ASKED && s3_client_options(s3->client)->exclusive) {
		s3_op_free(op);
		s3_count_call(s3, request);
		put_send(s3, request, WITHOUT_CONDITION);
		return;
	}
	s3_op_complete(op);
}
