/* s3_get.c: gets from a bucket: the whole or a range, straight into the caller's
 * memory.
 *
 * HTTP has no empty range.  Who asks for no byte at OFFSET gets the byte before it,
 * which is there if OFFSET is not beyond the end, and it is thrown away. */
#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "backends/store/s3.h"

enum { AS_ASKED, EMPTY_OBJECT };

/* ---- what a reply says of the object -------------------------------------------------- */

static const char meta[] = "x-amz-meta-";

/* Our names are lower case letters, digits and '-'; other people's are left out. */
static bool copy_name(const char *from, size_t length, char name[64])
{
	size_t i;

	if (length == 0 || length >= 64)
		return false;
	for (i = 0; i < length; i++) {
		if (!isalnum((unsigned char)from[i]) && from[i] != '-')
			return false;
		name[i] = (char)tolower((unsigned char)from[i]);
	}
	name[length] = 0;
	return true;
}

static void take_metadata(const struct http_headers *headers,
			  struct store_metadata *metadata)
{
	const size_t skip = sizeof(meta) - 1;
	const char *line = NULL, *colon, *value;
	char name[64];

	metadata->length = 0;
	while ((line = http_headers_next(headers, line))) {
		colon = strchr(line, ':');
		if (!colon || strncasecmp(line, meta, skip) != 0 ||
		    !copy_name(line + skip, (size_t)(colon - line) - skip, name))
			continue;
		value = colon + 1 + strspn(colon + 1, " \t");
		/* Ours always fit; of what somebody else put, what does not is left
		 * out. */
		(void)store_metadata_add(metadata, name, value);
	}
}

void s3_take_object(const struct s3_call *call, struct store_reply *reply)
{
	const struct http_headers *headers = &call->http.reply;
	const char *etag = http_headers_find(headers, "ETag");

	snprintf(reply->tag, sizeof(reply->tag), "%s", etag ? etag : "");
	reply->size = s3_object_size(call);
	reply->last_modified = s3_date(http_headers_find(headers, "Last-Modified"));
	take_metadata(headers, &reply->metadata);
}

/* ---- the request ------------------------------------------------------------------------- */

static int add_range(struct s3_op *op)
{
	const struct store_request *request = op->request;
	uint64_t first = request->offset, last = first + request->count - 1;
	char range[64];

	if (request->count == 0) {
		first -= first > 0;
		last = first;
	}
	snprintf(range, sizeof(range), "bytes=%llu-%llu", (unsigned long long)first,
		 (unsigned long long)last);
	return http_headers_add(&op->call.headers, "Range", range);
}

/* What is longer than the sink is never read, so that an empty one needs no room. */
static void set_sink(struct s3_op *op)
{
	const struct store_request *request = op->request;

	op->call.sink = request->iov;
	op->call.nr_sink = request->nr_iov;
	op->call.sink_count = request->count;
	op->call.sums = request->count ? request->sums : NULL;
	op->call.sum_unit = request->sum_unit;
	if (request->count)
		return;
	op->iov = (struct iovec){ .iov_base = &op->byte, .iov_len = 1 };
	op->call.sink = &op->iov;
	op->call.nr_sink = 1;
	op->call.sink_count = request->whole || op->step == EMPTY_OBJECT ? 0 : 1;
}

/* "versionId=ID"; malloc'ed, or NULL. */
static char *version_query(const char *version)
{
	size_t room = 3 * strlen(version) + sizeof("versionId=");
	char *query = malloc(room);
	int length;

	if (!query)
		return NULL;
	length = snprintf(query, room, "versionId=");
	s3_encode(version, false, query + length, room - (size_t)length);
	return query;
}

static void get_done(struct s3_op *op);

static void get_send(struct s3_store *s3, struct store_request *request,
		     unsigned int step)
{
	struct s3_op *op = s3_op_new(s3, request, "GET", request->key);
	int error = 0;

	if (!op)
		return;
	op->step = step;
	if (!request->whole && step == AS_ASKED)
		error = add_range(op);
	if (!error && request->version)
		error = s3_op_query(op, version_query(request->version));
	if (!error && request->condition == STORE_IF_MATCH)
		error = http_headers_add(&op->call.headers, "If-Match", request->tag);
	set_sink(op);
	if (error)
		s3_op_fail(op, error);
	else
		s3_op_start(op, get_done);
}

void s3_get(struct s3_store *s3, struct store_request *request)
{
	get_send(s3, request, AS_ASKED);
}

/* ---- the reply ------------------------------------------------------------------------------ */

static void out_of_range(struct s3_op *op, uint64_t size)
{
	op->request->reply.count = 0;
	op->call.outcome = STORE_FAILED;
	op->call.error = -ERANGE;
	snprintf(op->call.message, sizeof(op->call.message), "it has only %llu bytes",
		 (unsigned long long)size);
}

static void got(struct s3_op *op)
{
	struct store_request *request = op->request;
	struct store_reply *reply = &request->reply;

	s3_take_object(&op->call, reply);
	reply->count = request->whole ? reply->size : request->count;
	if (request->offset > reply->size || reply->count > reply->size - request->offset)
		out_of_range(op, reply->size);
}

static void get_done(struct s3_op *op)
{
	struct store_request *request = op->request;
	struct s3_store *s3 = op->s3;

	if (op->call.outcome == STORE_DONE) {
		got(op);
	} else if (op->call.error == -EFBIG && op->step == AS_ASKED) {
		s3_take_object(&op->call, &request->reply);
	} else if (op->call.error == -EFBIG) {
		/* Empty a moment ago, and not any more. */
		s3_call_is_wrong(&op->call, "an object that changes while it is read");
	} else if (op->call.error == -ERANGE && !request->count && !request->offset) {
		s3_op_free(op);
		s3_count_call(s3, request);
		get_send(s3, request, EMPTY_OBJECT);
		return;
	}
	s3_op_complete(op);
}
