/* test-multipart.c: puts in parts, and everything that can be lost of them. */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "src/clock.h"
#include "tests/s3/script.h"

#define MIB	 (1u << 20)
#define COUNT	 (6 * MIB)	/* a part of 5 MiB and one of 1 MiB */
#define TAG_1	 "\"0cc175b9c0f1b6a831c399e269772661\""
#define TAG_2	 "\"92eb5ffee6ae2fec3ad71c777531578f\""
#define WHOLE	 "\"96e024ba2074fe77e8e965ba43a704be-2\""	/* MD5 of both, by md5sum */
#define CREATE	 "POST /b/p/k?uploads="
#define PART_1	 "PUT /b/p/k?partNumber=1&uploadId=u%2F1 "
#define PART_2	 "PUT /b/p/k?partNumber=2&uploadId=u%2F1 "
#define COMPLETE "POST /b/p/k?uploadId=u%2F1 "
#define ABORT	 "DELETE /b/p/k?uploadId=u%2F1 "
#define LOOK	 "GET /b/p/k "

#define CREATED "<InitiateMultipartUploadResult><UploadId>u/1</UploadId>" \
		"</InitiateMultipartUploadResult>"
#define COMPLETED "<CompleteMultipartUploadResult><ETag>&quot;96e024ba2074fe77e8e965ba43a704" \
		  "be-2&quot;</ETag></CompleteMultipartUploadResult>"

#define LINE_CREATE   { CREATE, "200 OK", NULL, CREATED, 0, 0 }
#define LINE_PART_1   { PART_1, "200 OK", "ETag: " TAG_1 "\r\n", NULL, 0, 0 }
#define LINE_PART_2   { PART_2, "200 OK", "ETag: " TAG_2 "\r\n", NULL, 0, 0 }
#define LINE_COMPLETE { COMPLETE, "200 OK", NULL, COMPLETED, 0, 0 }
#define LINE_ABORT    { ABORT, "204 No Content", NULL, NULL, 0, 0 }
#define IT_IS(TAG)    { LOOK, "206 Partial Content", "ETag: " TAG "\r\nContent-Range: " \
			"bytes 0-0/6291456\r\nx-amz-meta-name: value\r\n", "x", 0, 0 }
#define IT_IS_NOT     { LOOK, "404 Not Found", NULL, XML_ERROR("NoSuchKey"), 0, 0 }

TestSuite(multipart, .timeout = 60, .init = script_environment);

struct put {
	struct script *script;
	struct store *store;
	enum store_outcome outcome;
	struct store_reply reply;
	unsigned int attempts;
	uint64_t parts, completes, aborts;
};

/* Puts 6 MiB, then closes the store. */
static struct put put(const struct line *lines, enum store_condition condition,
		      unsigned int seconds)
{
	struct store_metadata metadata = { 0 };
	struct put put = { .script = script_start(lines, false) };
	struct s3_options options = script_options(put.script);
	char *content = calloc(1, COUNT);
	struct iovec iov[2] = {
		{ .iov_base = content, .iov_len = 3 * MIB },
		{ .iov_base = content + 3 * MIB, .iov_len = 3 * MIB },
	};
	struct store_request request = {
		.key = "k", .iov = iov, .nr_iov = 2, .count = COUNT,
		.metadata = &metadata, .condition = condition, .tag = "\"old\"",
	};

	cr_assert_eq(store_metadata_add(&metadata, "name", "value"), 0);
	options.multipart_threshold = options.part_size = 5 * MIB;
	put.store = script_store(put.script, &options);
	atomic_store(&put.store->retry_for, seconds * CLOCK_SECOND);
	put.outcome = store_wait(put.store, STORE_PUT, &request);
	put.reply = request.reply;
	put.attempts = request.attempts;
	put.parts = atomic_load(&put.store->counters.parts);
	put.completes = atomic_load(&put.store->counters.completes);
	put.aborts = atomic_load(&put.store->counters.aborts);
	store_close(put.store);
	free(content);
	return put;
}

static unsigned int nr(const struct put *put, const char *request)
{
	return script_count(put->script, request);
}

static void end(struct put *put)
{
	cr_assert_eq(script_misfits(put->script), 0);
	script_stop(put->script);
}

Test(multipart, a_long_put_is_an_upload_in_parts)
{
	struct line lines[] = { LINE_CREATE, LINE_PART_1, LINE_PART_2, LINE_COMPLETE, { 0 } };
	struct put p = put(lines, STORE_ALWAYS, 0);
	char value[64];

	cr_assert_eq(p.outcome, STORE_DONE, "%s", p.reply.message);
	cr_assert_str_eq(p.reply.tag, WHOLE);
	cr_assert(script_header(p.script, CREATE, 0, "x-amz-meta-name", value, 64));
	cr_assert_str_eq(value, "value");
	cr_assert(script_header(p.script, PART_1, 0, "Content-Length", value, 64));
	cr_assert_str_eq(value, "5242880");
	cr_assert(script_header(p.script, PART_2, 0, "Content-Length", value, 64));
	cr_assert_str_eq(value, "1048576");
	cr_assert_not(script_header(p.script, PART_1, 0, "x-amz-meta-name", value, 64));
	cr_assert(strstr(script_body(p.script, COMPLETE, 0), "<Part><PartNumber>1"
			 "</PartNumber><ETag>&quot;0cc175b9c0f1b6a831c399e269772661&quot;"
			 "</ETag></Part><Part><PartNumber>2</PartNumber>"));
	cr_assert_not(script_header(p.script, COMPLETE, 0, "If-Match", value, 64));
	cr_assert_eq(p.parts, 2);
	cr_assert_eq(p.completes, 1);
	cr_assert_eq(p.aborts, 0);
	end(&p);
}

Test(multipart, a_part_that_fails_is_all_that_is_sent_again)
{
	struct line lines[] = {
		LINE_CREATE, LINE_PART_1,
		{ PART_2, "503 Slow Down", NULL, XML_ERROR("SlowDown"), 1, 0 },
		{ PART_2, NULL, NULL, NULL, 1, 0 },
		LINE_PART_2, LINE_COMPLETE, { 0 },
	};
	struct put p = put(lines, STORE_ALWAYS, 20);

	cr_assert_eq(p.outcome, STORE_DONE, "%s", p.reply.message);
	cr_assert_eq(nr(&p, CREATE), 1);
	cr_assert_eq(nr(&p, PART_1), 1);
	cr_assert_geq(nr(&p, PART_2), 3);
	cr_assert_eq(nr(&p, COMPLETE), 1);
	cr_assert_eq(nr(&p, ABORT), 0);
	end(&p);
}

Test(multipart, an_upload_given_up_is_aborted_before_the_store_is_closed)
{
	struct line lines[] = {
		LINE_CREATE, LINE_PART_1,
		{ PART_2, "503 Slow Down", NULL, XML_ERROR("SlowDown"), 0, 0 },
		LINE_ABORT, { 0 },
	};
	struct put p = put(lines, STORE_ALWAYS, 0);

	cr_assert_neq(p.outcome, STORE_DONE);
	cr_assert(strstr(p.reply.message, "SlowDown"), "%s", p.reply.message);
	cr_assert_eq(nr(&p, ABORT), 1);
	cr_assert_eq(nr(&p, COMPLETE), 0);
	cr_assert_eq(p.aborts, 1);
	end(&p);
}

Test(multipart, a_part_refused_for_good_fails_the_put_at_once)
{
	struct line lines[] = {
		LINE_CREATE, LINE_PART_1,
		{ PART_2, "403 Forbidden", NULL, XML_ERROR("AccessDenied"), 0, 0 },
		LINE_ABORT, { 0 },
	};
	struct put p = put(lines, STORE_ALWAYS, 20);

	cr_assert_eq(p.outcome, STORE_FAILED);
	cr_assert_eq(p.reply.error, -EACCES);
	cr_assert_eq(p.attempts, 1);
	cr_assert_eq(nr(&p, ABORT), 1);
	end(&p);
}

Test(multipart, an_upload_the_server_forgot_is_begun_anew)
{
	struct line lines[] = {
		LINE_CREATE, LINE_PART_1,
		{ PART_2, "404 Not Found", NULL, XML_ERROR("NoSuchUpload"), 1, 0 },
		LINE_PART_2, LINE_COMPLETE, { 0 },
	};
	struct put p = put(lines, STORE_ALWAYS, 20);

	cr_assert_eq(p.outcome, STORE_DONE, "%s", p.reply.message);
	cr_assert_eq(nr(&p, CREATE), 2);
	end(&p);
}

/* ---- the end of it ------------------------------------------------------------------ */

Test(multipart, a_lost_end_is_settled_by_looking)
{
	struct line lines[] = {
		LINE_CREATE, LINE_PART_1, LINE_PART_2,
		{ COMPLETE, NULL, NULL, NULL, 0, 0 }, IT_IS(WHOLE), { 0 },
	};
	struct put p = put(lines, STORE_ALWAYS, 0);

	cr_assert_eq(p.outcome, STORE_DONE, "%s", p.reply.message);
	cr_assert_str_eq(p.reply.tag, WHOLE);
	cr_assert_eq(nr(&p, ABORT), 0);
	end(&p);
}

Test(multipart, an_upload_that_is_gone_may_have_succeeded)
{
	struct line lines[] = {
		LINE_CREATE, LINE_PART_1, LINE_PART_2,
		{ COMPLETE, "404 Not Found", NULL, XML_ERROR("NoSuchUpload"), 0, 0 },
		IT_IS(WHOLE), { 0 },
	};
	struct put p = put(lines, STORE_ALWAYS, 0);

	cr_assert_eq(p.outcome, STORE_DONE, "%s", p.reply.message);
	end(&p);
}

Test(multipart, another_object_is_not_taken_for_the_lost_end)
{
	struct line lines[] = {
		LINE_CREATE, LINE_PART_1, LINE_PART_2,
		{ COMPLETE, NULL, NULL, NULL, 0, 0 },
		IT_IS("\"00000000000000000000000000000000-2\""), LINE_ABORT, { 0 },
	};
	struct put p = put(lines, STORE_ALWAYS, 0);

	cr_assert_neq(p.outcome, STORE_DONE);
	cr_assert_eq(nr(&p, ABORT), 1);
	end(&p);
}

Test(multipart, an_end_that_was_not_made_is_sent_again_without_the_parts)
{
	struct line lines[] = {
		LINE_CREATE, LINE_PART_1, LINE_PART_2,
		{ COMPLETE, "200 OK", NULL, XML_ERROR("InternalError"), 1, 0 },
		IT_IS_NOT, LINE_COMPLETE, { 0 },
	};
	struct put p = put(lines, STORE_ALWAYS, 20);

	cr_assert_eq(p.outcome, STORE_DONE, "%s", p.reply.message);
	cr_assert_eq(nr(&p, PART_1), 1);
	cr_assert_eq(nr(&p, PART_2), 1);
	cr_assert_eq(nr(&p, COMPLETE), 2);
	end(&p);
}

Test(multipart, an_upload_that_is_gone_for_nothing_is_begun_anew)
{
	struct line lines[] = {
		LINE_CREATE, LINE_PART_1, LINE_PART_2,
		{ COMPLETE, "404 Not Found", NULL, XML_ERROR("NoSuchUpload"), 1, 0 },
		IT_IS_NOT, LINE_COMPLETE, { 0 },
	};
	struct put p = put(lines, STORE_ALWAYS, 20);

	cr_assert_eq(p.outcome, STORE_DONE, "%s", p.reply.message);
	cr_assert_eq(nr(&p, CREATE), 2);
	cr_assert_eq(nr(&p, PART_1), 2);
	end(&p);
}

/* ---- conditions ---------------------------------------------------------------------- */

Test(multipart, the_condition_goes_with_the_end)
{
	struct line lines[] = {
		LINE_CREATE, LINE_PART_1, LINE_PART_2,
		{ COMPLETE, "412 Precondition Failed", NULL, XML_ERROR("PreconditionFailed"),
		  0, 0 },
		LINE_ABORT, { 0 },
	};
	struct put p = put(lines, STORE_IF_ABSENT, 20);
	char value[32];

	cr_assert_eq(p.outcome, STORE_REFUSED, "%s", p.reply.message);
	cr_assert(script_header(p.script, COMPLETE, 0, "If-None-Match", value, 32));
	cr_assert_str_eq(value, "*");
	cr_assert_eq(nr(&p, ABORT), 1);
	end(&p);
	p = put(lines, STORE_IF_MATCH, 20);
	cr_assert_eq(p.outcome, STORE_REFUSED, "%s", p.reply.message);
	cr_assert(script_header(p.script, COMPLETE, 0, "If-Match", value, 32));
	cr_assert_str_eq(value, "\"old\"");
	end(&p);
}

Test(multipart, a_lost_end_under_a_condition_is_unknown)
{
	struct line lines[] = {
		LINE_CREATE, LINE_PART_1, LINE_PART_2,
		{ COMPLETE, NULL, NULL, NULL, 0, 0 }, LINE_ABORT, { 0 },
	};
	struct put p = put(lines, STORE_IF_ABSENT, 20);

	cr_assert_eq(p.outcome, STORE_UNKNOWN, "%s", p.reply.message);
	cr_assert_eq(nr(&p, LOOK), 0);
	end(&p);
}
