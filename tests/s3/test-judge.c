/* test-judge.c: what a reply of an S3 server is taken for. */
#include <criterion/criterion.h>
#include <criterion/parameterized.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "src/clock.h"
#include "tests/s3/script.h"

#define S3_HEADERS "Server: S3\r\nx-amz-request-id: 1\r\n"
#define OBJECT	   S3_HEADERS "ETag: \"e\"\r\nContent-Type: text/plain\r\n"
#define XML	   "Content-Type: application/xml\r\n"
#define PAGE	   "Content-Type: text/html; charset=utf-8\r\n"
#define HTML	   "<!DOCTYPE html><html><body>Please log in</body></html>"

TestSuite(judge, .timeout = 60);

/* One call to a fresh client; the caller frees it. */
static void ask(struct s3_client *client, struct s3_call *call, const char *method,
		const char *key, const char *header, const char *value)
{
	static char room[64];
	static struct iovec sink = { .iov_base = room, .iov_len = 10 };
	static struct iovec body = { .iov_base = (char *)"content", .iov_len = 7 };

	memset(call, 0, sizeof(*call));
	call->method = method;
	call->key = key;
	if (header)
		cr_assert_eq(http_headers_add(&call->headers, header, value), 0);
	if (strcmp(method, "GET") == 0) {
		call->sink = &sink;
		call->nr_sink = 1;
		call->sink_count = sink.iov_len;
	} else if (strcmp(method, "PUT") == 0) {
		call->body = &body;
		call->nr_body = 1;
		call->body_count = body.iov_len;
		call->writes_object = true;
	}
	call->deadline = clock_now() + 20 * CLOCK_SECOND;
	s3_wait(client, call);
}

/* ---- one reply each ------------------------------------------------------------------- */

struct judgement {
	const char *method, *header, *value;	/* of the request, with key "k" */
	const char *status, *headers, *body;	/* of the reply */
	size_t cut;
	enum store_outcome outcome;
	int error;
	const char *words;			/* in the message */
	bool has_succeeded;			/* the client, before */
};

static const struct judgement judgements[] = {
	/* What is there. */
	{ "GET", NULL, NULL, "200 OK", OBJECT, "0123456789", 0, STORE_DONE, 0, "", false },
	{ "GET", "Range", "bytes=2-4", "206 Partial Content",
	  OBJECT "Content-Range: bytes 2-4/10\r\n", "234", 0, STORE_DONE, 0, "", false },
	{ "GET", "Range", "bytes=0-9", "200 OK", OBJECT, "0123456789", 0, STORE_DONE, 0, "",
	  false },
	{ "GET", "If-Match", "\"e\"", "200 OK", OBJECT, "0123456789", 0, STORE_DONE, 0, "",
	  false },
	{ "HEAD", NULL, NULL, "200 OK", OBJECT, NULL, 0, STORE_DONE, 0, "", false },
	{ "PUT", NULL, NULL, "200 OK", OBJECT, NULL, 0, STORE_DONE, 0, "", false },
	{ "DELETE", NULL, NULL, "204 No Content", S3_HEADERS, NULL, 0, STORE_DONE, 0, "",
	  false },

	/* What is not there, and what only looks so. */
	{ "GET", NULL, NULL, "404 Not Found", S3_HEADERS, XML_ERROR("NoSuchKey"), 0,
	  STORE_ABSENT, 0, "", false },
	{ "GET", NULL, NULL, "404 Not Found", S3_HEADERS, XML_ERROR("NoSuchBucket"), 0,
	  STORE_FAILED, -ENODEV, "make the bucket", false },
	{ "GET", NULL, NULL, "404 Not Found", S3_HEADERS, XML_ERROR("NoSuchBucket"), 0,
	  STORE_FAILED, -ENODEV, "make the bucket", true },
	{ "GET", NULL, NULL, "404 Not Found", PAGE, HTML, 0, STORE_FAILED, -ENODATA,
	  "--endpoint-url", false },
	{ "GET", NULL, NULL, "404 Not Found", PAGE, HTML, 0, STORE_TRANSIENT, -ENODATA,
	  "--endpoint-url", true },
	{ "GET", NULL, NULL, "404 Not Found", S3_HEADERS, NULL, 0, STORE_TRANSIENT, -ENODATA,
	  "404, and no word of S3's why", false },
	{ "GET", NULL, NULL, "404 Not Found", NULL, NULL, 0, STORE_TRANSIENT, -ENODATA,
	  "--endpoint-url", false },
	{ "GET", NULL, NULL, "404 Not Found", NULL, "<?xml version=\"1.0\"?><Error><Co\1e>No",
	  0, STORE_TRANSIENT, -ENODATA, "damaged on its way", false },
	{ "GET", NULL, NULL, "404 Not Found", XML, "\1?xml version=\"1.0\"?><Error><Code>No",
	  0, STORE_TRANSIENT, -ENODATA, "damaged on its way", true },
	{ "GET", NULL, NULL, "404 Not Found", NULL, "{\"error\":\"no such route\"}", 0,
	  STORE_FAILED, -ENODATA, "--endpoint-url", false },
	{ "GET", NULL, NULL, "403 Forbidden", XML, "<Error><Code>AccessDen", 0,
	  STORE_TRANSIENT, -EACCES, "damaged on its way", false },
	{ "GET", NULL, NULL, "403 Forbidden", NULL, NULL, 0, STORE_FAILED, -EACCES,
	  "--endpoint-url", false },
	{ "PUT", NULL, NULL, "404 Not Found", S3_HEADERS, NULL, 0, STORE_UNKNOWN, -ENODATA,
	  "404", false },
	{ "HEAD", NULL, NULL, "404 Not Found", S3_HEADERS, NULL, 0, STORE_FAILED, -ENODATA,
	  "404", false },
	{ "GET", NULL, NULL, "404 Not Found", S3_HEADERS, XML_ERROR("NoSuchKey"), 20,
	  STORE_TRANSIENT, 0, "", true },
	{ "PUT", NULL, NULL, "404 Not Found", S3_HEADERS, XML_ERROR("NoSuchKey"), 0,
	  STORE_FAILED, -ENODATA, "NoSuchKey", false },
	{ "GET", NULL, NULL, "403 Forbidden", S3_HEADERS, XML_ERROR("AccessDenied"), 0,
	  STORE_FAILED, -EACCES, "s3:ListBucket", true },
	{ "PUT", NULL, NULL, "403 Forbidden", S3_HEADERS, XML_ERROR("AccessDenied"), 0,
	  STORE_FAILED, -EACCES, "right", false },

	/* A server that refuses is no wrong use of ours: never -EINVAL. */
	{ "GET", NULL, NULL, "400 Bad Request", PAGE, HTML, 0, STORE_FAILED, -EIO,
	  "--endpoint-url", false },
	{ "GET", NULL, NULL, "400 Bad Request", S3_HEADERS,
	  "<Error><Code>InvalidRequest</Code><Message>The object was stored using a form "
	  "of Server Side Encryption. The correct parameters must be provided to retrieve "
	  "the object.</Message></Error>", 0, STORE_FAILED, -EIO, "--sse-c-key-file", true },

	/* Keys. */
	{ "GET", NULL, NULL, "403 Forbidden", S3_HEADERS, XML_ERROR("SignatureDoesNotMatch"),
	  0, STORE_FAILED, -EACCES, "secret key", false },
	{ "GET", NULL, NULL, "403 Forbidden", S3_HEADERS, XML_ERROR("SignatureDoesNotMatch"),
	  0, STORE_TRANSIENT, -EACCES, "secret key", true },
	{ "GET", NULL, NULL, "403 Forbidden", S3_HEADERS, XML_ERROR("InvalidAccessKeyId"),
	  0, STORE_FAILED, -EACCES, "access key", false },
	{ "GET", NULL, NULL, "400 Bad Request", S3_HEADERS, XML_ERROR("ExpiredToken"), 0,
	  STORE_TRANSIENT, -EKEYEXPIRED, "new credentials", true },

	/* A MinIO that is told to end. */
	{ "GET", NULL, NULL, "499 Client Closed Request", S3_HEADERS,
	  XML_ERROR("ClientDisconnected"), 0, STORE_TRANSIENT, -ECONNRESET, "", false },
	{ "PUT", NULL, NULL, "499 Client Closed Request", S3_HEADERS,
	  XML_ERROR("ClientDisconnected"), 0, STORE_UNKNOWN, -ECONNRESET, "", false },
	{ "GET", NULL, NULL, "499 Client Closed Request", S3_HEADERS,
	  XML_ERROR("SomethingElse"), 0, STORE_TRANSIENT, -ECONNRESET, "", false },

	/* Conditions. */
	{ "PUT", "If-None-Match", "*", "412 Precondition Failed", S3_HEADERS,
	  XML_ERROR("PreconditionFailed"), 0, STORE_REFUSED, 0, "", false },
	{ "PUT", "If-Match", "\"x\"", "412 Precondition Failed", S3_HEADERS, NULL, 0,
	  STORE_REFUSED, 0, "", false },
	{ "PUT", "If-Match", "\"x\"", "404 Not Found", S3_HEADERS, XML_ERROR("NoSuchKey"), 0,
	  STORE_REFUSED, 0, "", false },
	{ "PUT", "If-None-Match", "*", "409 Conflict", S3_HEADERS,
	  XML_ERROR("ConditionalRequestConflict"), 0, STORE_TRANSIENT, -EBUSY, "", false },
	{ "GET", "If-Match", "\"x\"", "412 Precondition Failed", S3_HEADERS,
	  XML_ERROR("PreconditionFailed"), 0, STORE_REFUSED, 0, "", false },
	{ "PUT", "If-None-Match", "*", "501 Not Implemented", S3_HEADERS,
	  XML_ERROR("NotImplemented"), 0, STORE_FAILED, -EOPNOTSUPP, "", false },

	/* Later, perhaps. */
	{ "GET", NULL, NULL, "503 Slow Down", S3_HEADERS, XML_ERROR("SlowDown"), 0,
	  STORE_TRANSIENT, -EAGAIN, "503 SlowDown: words", false },
	{ "PUT", NULL, NULL, "503 Slow Down", S3_HEADERS, XML_ERROR("SlowDown"), 0,
	  STORE_UNKNOWN, -EAGAIN, "SlowDown", false },
	{ "GET", NULL, NULL, "500 Oops", S3_HEADERS, XML_ERROR("InternalError"), 0,
	  STORE_TRANSIENT, -EREMOTEIO, "500", false },
	{ "GET", NULL, NULL, "502 Bad Gateway", PAGE, HTML, 0, STORE_TRANSIENT, -EREMOTEIO,
	  "502", false },
	{ "PUT", NULL, NULL, "502 Bad Gateway", PAGE, HTML, 0, STORE_UNKNOWN, -EREMOTEIO,
	  "502", false },
	{ "GET", NULL, NULL, "429 Too Many", NULL, NULL, 0, STORE_TRANSIENT, -EAGAIN, "",
	  false },
	{ "PUT", NULL, NULL, "429 Too Many", NULL, NULL, 0, STORE_TRANSIENT, -EAGAIN, "",
	  false },
	{ "GET", NULL, NULL, "408 Request Timeout", NULL, NULL, 0, STORE_TRANSIENT,
	  -ETIMEDOUT, "", false },
	{ "PUT", NULL, NULL, "400 Bad Request", S3_HEADERS, XML_ERROR("RequestTimeout"), 0,
	  STORE_TRANSIENT, -ETIMEDOUT, "", false },
	{ "PUT", NULL, NULL, "400 Bad Request", S3_HEADERS,
	  XML_ERROR("XAmzContentSHA256Mismatch"), 0, STORE_TRANSIENT, -EBADMSG, "", false },
	{ "PUT", NULL, NULL, "507 Storage Full", S3_HEADERS, XML_ERROR("XMinioStorageFull"),
	  0, STORE_UNKNOWN, -ENOSPC, "make room", false },
	{ "GET", NULL, NULL, NULL, NULL, NULL, 0, STORE_TRANSIENT, 0, "127.0.0.1", true },
	{ "PUT", NULL, NULL, NULL, NULL, NULL, 0, STORE_UNKNOWN, 0, "127.0.0.1", true },

	/* What S3 would not say. */
	{ "GET", NULL, NULL, "200 OK", OBJECT, "0123456789", 3, STORE_TRANSIENT, 0, "",
	  false },
	{ "GET", NULL, NULL, "200 OK", PAGE, "Log in!", 0, STORE_TRANSIENT, -EPROTO,
	  "not an object's", false },
	{ "GET", NULL, NULL, "200 OK", PAGE "ETag: \"e\"\r\n", "Log in!", 0, STORE_TRANSIENT,
	  -EPROTO, "not an object's", false },
	{ "GET", NULL, NULL, "200 OK", S3_HEADERS, "0123456789", 0, STORE_TRANSIENT,
	  -EPROTO, "not an object's", false },
	{ "GET", "Range", "bytes=2-4", "200 OK", OBJECT, "012", 0, STORE_TRANSIENT,
	  -EPROTO, "whole object", false },
	{ "GET", "Range", "bytes=2-4", "206 Partial Content",
	  OBJECT "Content-Range: bytes 3-5/10\r\n", "345", 0, STORE_TRANSIENT, -EPROTO,
	  "another range", false },
	{ "GET", "Range", "bytes=2-4", "206 Partial Content",
	  OBJECT "Content-Range: bytes 2-4/10\r\n", "23", 0, STORE_TRANSIENT, -EPROTO,
	  "length", false },
	{ "GET", "Range", "bytes=2-4", "206 Partial Content",
	  OBJECT "Content-Range: bytes 2-3/10\r\n", "23", 0, STORE_TRANSIENT, -EPROTO,
	  "another range", false },
	{ "GET", "Range", "bytes=2-4", "206 Partial Content", OBJECT, "234", 0,
	  STORE_TRANSIENT, -EPROTO, "no word", false },
	{ "GET", NULL, NULL, "206 Partial Content",
	  OBJECT "Content-Range: bytes 0-2/10\r\n", "012", 0, STORE_TRANSIENT, -EPROTO,
	  "a part", false },
	{ "GET", "If-Match", "\"x\"", "200 OK", OBJECT, "0123456789", 0, STORE_TRANSIENT,
	  -EPROTO, "version", false },
	{ "GET", "Range", "bytes=2-4", "416 Range", S3_HEADERS, XML_ERROR("InvalidRange"), 0,
	  STORE_FAILED, -ERANGE, "", false },
	{ "GET", NULL, NULL, "200 OK", OBJECT, "0123456789a", 0, STORE_FAILED, -EFBIG, "",
	  false },
	{ "GET", "Range", "bytes=0-9", "200 OK", OBJECT, "0123456789a", 0, STORE_TRANSIENT,
	  -EPROTO, "longer", false },
	{ "PUT", NULL, NULL, "200 OK", PAGE, HTML, 0, STORE_UNKNOWN, -EPROTO, "web page",
	  false },
	{ "PUT", NULL, NULL, "200 OK", S3_HEADERS, NULL, 0, STORE_UNKNOWN, -EPROTO,
	  "no ETag", false },
	{ "PUT", NULL, NULL, "200 OK", OBJECT, XML_ERROR("InternalError"), 0, STORE_UNKNOWN,
	  -EREMOTEIO, "InternalError", false },
	{ "PUT", NULL, NULL, "200 OK", OBJECT, XML_ERROR("AccessDenied"), 0, STORE_FAILED,
	  -EACCES, "AccessDenied", false },
	{ "GET", NULL, NULL, "302 Found", "Location: http://portal.example/\r\n", NULL, 0,
	  STORE_FAILED, -EPROTO, "portal.example", false },
};
#define NR_JUDGEMENTS (sizeof(judgements) / sizeof(judgements[0]))

ParameterizedTestParameters(judge, each_reply_means_one_thing)
{
	static size_t index[NR_JUDGEMENTS];
	size_t i;

	for (i = 0; i < NR_JUDGEMENTS; i++)
		index[i] = i;
	return cr_make_param_array(size_t, index, NR_JUDGEMENTS);
}

ParameterizedTest(size_t *index, judge, each_reply_means_one_thing, .timeout = 60)
{
	const struct judgement *j = &judgements[*index];
	char first_line[64];
	struct line lines[] = {
		{ "GET /b/first", "200 OK", OBJECT, "1", 0, 0 },
		{ first_line, j->status, j->headers, j->body, 0, j->cut },
		{ 0 },
	};
	struct script *script;
	struct s3_client *client;
	struct s3_call call;

	snprintf(first_line, sizeof(first_line), "%s /b/k ", j->method);
	script_environment();
	script = script_start(lines, false);
	client = script_client(script);
	if (j->has_succeeded) {
		ask(client, &call, "GET", "first", NULL, NULL);
		cr_assert_eq(call.outcome, STORE_DONE, "%s", call.message);
		s3_call_free(&call);
	}
	ask(client, &call, j->method, "k", j->header, j->value);
	cr_assert_eq(call.outcome, j->outcome, "row %zu: outcome %d: %s", *index,
		     call.outcome, call.message);
	if (j->error)
		cr_assert_eq(call.error, j->error, "row %zu: %d", *index, call.error);
	cr_assert(strstr(call.message, j->words), "row %zu: %s", *index, call.message);
	if (call.outcome == STORE_TRANSIENT || call.outcome == STORE_FAILED)
		cr_assert(call.message[0] && call.error, "row %zu", *index);
	cr_assert_eq(script_misfits(script), 0);
	s3_call_free(&call);
	s3_client_close(client);
	script_stop(script);
}

Test(judge, the_host_that_is_signed_is_the_one_that_is_sent)
{
	struct line lines[] = { { "GET /b/k ", "200 OK", OBJECT, "1", 0, 0 }, { 0 } };
	struct s3_options options = { 0 };
	char url[64], host[64];
	struct script *script;
	struct s3_client *client;
	struct s3_call call;

	script_environment();
	script = script_start(lines, false);
	/* libcurl by itself would make 127.0.0.1 of it. */
	snprintf(url, sizeof(url), "http://127.1:%u", script_port(script));
	options.endpoint_url = url;
	cr_assert_eq(s3_client_open("s3://b", "b", &options, &client), 0);
	ask(client, &call, "GET", "k", NULL, NULL);
	cr_assert_eq(call.outcome, STORE_DONE, "%s", call.message);
	cr_assert(script_header(script, "GET", 0, "Host", host, sizeof(host)));
	cr_expect_str_eq(host, url + strlen("http://"));
	s3_call_free(&call);
	s3_client_close(client);
	script_stop(script);
}

Test(judge, what_stands_in_an_object_is_no_word_of_the_server_s)
{
	struct line lines[] = {
		{ "GET /b/k ", "200 OK", OBJECT, XML_ERROR("NoSuchBucket"), 0, 0 }, { 0 },
	};
	struct s3_call call = { .method = "GET", .key = "k" };
	struct script *script;
	struct s3_client *client;

	script_environment();
	script = script_start(lines, false);
	client = script_client(script);
	s3_wait(client, &call);
	cr_assert_eq(call.outcome, STORE_DONE, "%s", call.message);
	cr_expect_str_eq(call.http.text, XML_ERROR("NoSuchBucket"));
	s3_call_free(&call);
	s3_client_close(client);
	script_stop(script);
}

/* ---- no reply at all --------------------------------------------------------------------- */

static void ask_endpoint(const char *url, struct s3_call *call)
{
	struct s3_options options = { .endpoint_url = url };
	struct s3_client *client;

	script_environment();
	cr_assert_eq(s3_client_open("s3://b", "b", &options, &client), 0);
	ask(client, call, "GET", "k", NULL, NULL);
	s3_call_free(call);
	s3_client_close(client);
}

Test(judge, a_refused_connection_is_worth_another_try)
{
	struct line lines[] = { { 0 } };
	struct script *script = script_start(lines, false);
	struct s3_call call;
	char url[64];

	snprintf(url, sizeof(url), "http://127.0.0.1:%u", script_port(script));
	script_stop(script);
	ask_endpoint(url, &call);
	cr_assert_eq(call.outcome, STORE_TRANSIENT);
	cr_assert_eq(call.error, -ECONNREFUSED);
	cr_assert(strstr(call.message, url), "%s", call.message);
}

Test(judge, a_host_that_is_not_there_is_for_good)
{
	struct s3_call call;

	ask_endpoint("http://no-such-host.invalid", &call);
	cr_assert_eq(call.outcome, STORE_FAILED, "%s", call.message);
	cr_assert_eq(call.error, -EHOSTUNREACH);
	cr_assert(strstr(call.message, "no-such-host.invalid"), "%s", call.message);
}

Test(judge, a_stranger_s_certificate_is_for_good)
{
	struct line lines[] = { { 0 } };
	struct script *script = script_start(lines, true);
	struct s3_call call;
	char url[64];

	snprintf(url, sizeof(url), "https://127.0.0.1:%u", script_port(script));
	ask_endpoint(url, &call);
	cr_assert_eq(call.outcome, STORE_FAILED, "%s", call.message);
	cr_assert_eq(call.error, -EACCES);
	script_stop(script);
}

Test(judge, a_refusal_of_what_was_sent_twice_is_unknown)
{
	struct line lines[] = {
		{ "GET /b/first", "200 OK", OBJECT, "1", 0, 0 },
		{ "PUT /b/k", NULL, NULL, NULL, 1, 0 },
		{ "PUT /b/k", "412 Precondition Failed", S3_HEADERS,
		  XML_ERROR("PreconditionFailed"), 0, 0 },
		{ 0 },
	};
	struct script *script = script_start(lines, false);
	struct s3_client *client;
	struct s3_call call;

	script_environment();
	client = script_client(script);
	/* Makes the connection that the put then finds dead. */
	ask(client, &call, "GET", "first", NULL, NULL);
	s3_call_free(&call);
	ask(client, &call, "PUT", "k", "If-None-Match", "*");
	cr_assert_eq(call.outcome, STORE_UNKNOWN, "%s", call.message);
	s3_call_free(&call);
	s3_client_close(client);
	script_stop(script);
}

/* ---- asking again at once ----------------------------------------------------------------- */

Test(judge, a_wrong_clock_is_put_right_at_once_and_for_later_calls)
{
	time_t there = time(NULL) + 7200;
	char date[128], stamp[32], expected[32];
	struct line lines[] = {
		{ "GET /b/k", "403 Forbidden", date, XML_ERROR("RequestTimeTooSkewed"), 1, 0 },
		{ "GET /b/k", "200 OK", OBJECT, "0123456789", 0, 0 },
		{ 0 },
	};
	struct script *script;
	struct s3_client *client;
	struct s3_call call;
	int i;

	script_environment();
	strftime(date, sizeof(date), "Date: %a, %d %b %Y %H:%M:%S GMT\r\n", gmtime(&there));
	script = script_start(lines, false);
	client = script_client(script);
	for (i = 0; i < 2; i++) {
		ask(client, &call, "GET", "k", NULL, NULL);
		cr_assert_eq(call.outcome, STORE_DONE, "%s", call.message);
		s3_call_free(&call);
	}
	cr_assert_eq(script_count(script, "GET /b/k"), 3);
	/* The day and hour of there. */
	strftime(expected, sizeof(expected), "%Y%m%dT%H", gmtime(&there));
	for (i = 1; i < 3; i++) {
		cr_assert(script_header(script, "GET /b/k", (unsigned int)i, "x-amz-date",
					stamp, sizeof(stamp)));
		cr_assert_eq(strncmp(stamp, expected, strlen(expected)), 0, "%s", stamp);
	}
	cr_assert_gt(s3_client_skew(client), 7000);
	s3_client_close(client);
	script_stop(script);
}

Test(judge, a_clock_that_stays_wrong_is_tried_once_only)
{
	struct line lines[] = {
		{ "GET /b/k", "403 Forbidden", "Date: Sun, 06 Nov 2044 08:49:37 GMT\r\n",
		  XML_ERROR("RequestTimeTooSkewed"), 0, 0 },
		{ 0 },
	};
	struct script *script = script_start(lines, false);
	struct s3_client *client;
	struct s3_call call;

	script_environment();
	client = script_client(script);
	ask(client, &call, "GET", "k", NULL, NULL);
	cr_assert_eq(call.outcome, STORE_TRANSIENT, "%s", call.message);
	cr_assert_eq(script_count(script, "GET"), 2);
	s3_call_free(&call);
	s3_client_close(client);
	script_stop(script);
}

Test(judge, another_region_is_remembered)
{
	struct line lines[] = {
		{ "GET /b/k", "400 Bad Request", NULL, "<Error><Code>Authorization"
		  "HeaderMalformed</Code><Region>eu-west-3</Region></Error>", 1, 0 },
		{ "GET /b/k", "200 OK", OBJECT, "0123456789", 0, 0 },
		{ 0 },
	};
	struct script *script = script_start(lines, false);
	struct s3_client *client;
	struct s3_call call;
	char text[512];
	int i;

	script_environment();
	client = script_client(script);
	cr_assert_str_eq(s3_client_region(client), "us-east-1");
	for (i = 0; i < 2; i++) {
		ask(client, &call, "GET", "k", NULL, NULL);
		cr_assert_eq(call.outcome, STORE_DONE, "%s", call.message);
		s3_call_free(&call);
	}
	cr_assert_str_eq(s3_client_region(client), "eu-west-3");
	cr_assert_eq(script_count(script, "GET"), 3);
	cr_assert(script_header(script, "GET", 2, "Authorization", text, sizeof(text)));
	cr_assert(strstr(text, "/eu-west-3/s3/aws4_request"), "%s", text);
	s3_client_close(client);
	script_stop(script);
}

Test(judge, a_redirect_to_the_same_host_is_followed_for_one_call)
{
	struct line there[] = {
		{ "GET /b/k", "200 OK", OBJECT, "0123456789", 0, 0 }, { 0 },
	};
	char location[128];
	struct line here[] = {
		{ "GET /b/k", "307 Temporary Redirect", location, NULL, 0, 0 }, { 0 },
	};
	struct script *second = script_start(there, false);
	struct script *first = script_start(here, false);
	struct s3_client *client;
	struct s3_call call;
	int i;

	script_environment();
	snprintf(location, sizeof(location), "Location: http://127.0.0.1:%u/b/k\r\n",
		 script_port(second));
	client = script_client(first);
	for (i = 0; i < 2; i++) {
		ask(client, &call, "GET", "k", NULL, NULL);
		cr_assert_eq(call.outcome, STORE_DONE, "%s", call.message);
		s3_call_free(&call);
	}
	cr_assert_eq(script_count(first, "GET"), 2);
	cr_assert_eq(script_count(second, "GET"), 2);
	s3_client_close(client);
	script_stop(first);
	script_stop(second);
}

/* Credentials go to nobody else: not to another host, nor out of TLS. */
static void must_not_follow(const char *location_format, bool tls)
{
	struct line there[] = { { 0 } };
	char location[128];
	struct line here[] = {
		{ "GET /b/k", "307 Temporary Redirect", location, NULL, 0, 0 }, { 0 },
	};
	struct script *second = script_start(there, false);
	struct script *first = script_start(here, tls);
	struct s3_client *client;
	struct s3_call call;

	script_environment();
	snprintf(location, sizeof(location), "Location: %s:%u/b/k\r\n", location_format,
		 script_port(second));
	client = script_client(first);
	ask(client, &call, "GET", "k", NULL, NULL);
	cr_assert_eq(call.outcome, STORE_FAILED, "%s", call.message);
	cr_assert_eq(script_count(second, ""), 0);
	s3_call_free(&call);
	s3_client_close(client);
	script_stop(first);
	script_stop(second);
}

Test(judge, a_redirect_to_another_host_is_not_followed)
{
	must_not_follow("http://localhost", false);
}

Test(judge, a_redirect_out_of_tls_is_not_followed)
{
	must_not_follow("http://127.0.0.1", true);
}

Test(judge, redirects_in_a_circle_end)
{
	char to_second[128], to_first[128];
	struct line here[] = { { "GET", "307 Temporary Redirect", to_second, NULL, 0, 0 },
			       { 0 } };
	struct line there[] = { { "GET", "307 Temporary Redirect", to_first, NULL, 0, 0 },
				{ 0 } };
	struct script *first = script_start(here, false);
	struct script *second = script_start(there, false);
	struct s3_client *client;
	struct s3_call call;

	script_environment();
	snprintf(to_first, sizeof(to_first), "Location: http://127.0.0.1:%u/\r\n",
		 script_port(first));
	snprintf(to_second, sizeof(to_second), "Location: http://127.0.0.1:%u/\r\n",
		 script_port(second));
	client = script_client(first);
	ask(client, &call, "GET", "k", NULL, NULL);
	cr_assert_neq(call.outcome, STORE_DONE);
	cr_assert_leq(script_count(first, "GET") + script_count(second, "GET"), 5);
	s3_call_free(&call);
	s3_client_close(client);
	script_stop(first);
	script_stop(second);
}

/* ---- what goes along ------------------------------------------------------------------------- */

Test(judge, a_key_of_one_s_own_goes_with_reads_and_puts_and_over_tls_only)
{
	static const char name[] = "x-amz-server-side-encryption-customer-key";
	struct line lines[] = {
		{ "GET", "200 OK", OBJECT, "0123456789", 0, 0 },
		{ "PUT", "200 OK", OBJECT, NULL, 0, 0 },
		{ "DELETE", "204 No Content", S3_HEADERS, NULL, 0, 0 },
		{ 0 },
	};
	static const char *const methods[] = { "GET", "PUT", "DELETE" };
	struct script *script = script_start(lines, true);
	struct s3_options options = script_options(script);
	char path[] = "/tmp/objmap-key-XXXXXX", value[64];
	struct s3_client *client;
	struct s3_call call;
	FILE *file = fdopen(mkstemp(path), "w");
	int i;

	script_environment();
	fputs("01234567890123456789012345678901", file);
	fclose(file);
	options.sse_c_key_file = path;
	cr_assert_eq(s3_client_open("s3://b", "b", &options, &client), 0);
	for (i = 0; i < 3; i++) {
		ask(client, &call, methods[i], "k", NULL, NULL);
		cr_assert_eq(call.outcome, STORE_DONE, "%s", call.message);
		cr_assert_eq(script_header(script, methods[i], 0, name, value,
					   sizeof(value)), i < 2);
		if (i < 2)
			cr_assert_str_eq(value,
					 "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=");
		s3_call_free(&call);
	}
	s3_client_close(client);
	options.endpoint_url = "http://127.0.0.1:1";
	cr_assert_eq(s3_client_open("s3://b", "b", &options, &client), -EINVAL);
	remove(path);
	script_stop(script);
}

Test(judge, options_of_an_object_go_with_what_writes_it)
{
	struct line lines[] = {
		{ "GET", "200 OK", OBJECT, "0123456789", 0, 0 },
		{ "PUT", "200 OK", OBJECT, NULL, 0, 0 },
		{ 0 },
	};
	static const char *const names[] = {
		"x-amz-server-side-encryption", "x-amz-server-side-encryption-aws-kms-key-id",
		"x-amz-storage-class", "x-amz-tagging", "x-amz-request-payer",
	};
	static const char *const values[] = {
		"aws:kms", "key", "STANDARD_IA", "a=b", "requester",
	};
	struct script *script = script_start(lines, false);
	struct s3_options options = script_options(script);
	struct s3_client *client;
	struct s3_call call;
	char value[64];
	int i;

	script_environment();
	options.sse = "aws:kms";
	options.sse_kms_key = "key";
	options.storage_class = "STANDARD_IA";
	options.tags = "a=b";
	options.requester_pays = true;
	cr_assert_eq(s3_client_open("s3://b", "b", &options, &client), 0);
	ask(client, &call, "PUT", "k", NULL, NULL);
	s3_call_free(&call);
	ask(client, &call, "GET", "k", NULL, NULL);
	s3_call_free(&call);
	for (i = 0; i < 5; i++) {
		cr_assert(script_header(script, "PUT", 0, names[i], value, sizeof(value)),
			  "%s", names[i]);
		cr_assert_str_eq(value, values[i]);
		cr_assert_eq(script_header(script, "GET", 0, names[i], value,
					   sizeof(value)), i == 4, "%s", names[i]);
	}
	s3_client_close(client);
	script_stop(script);
}

/* What the signature of a put says of its content, "content". */
static void must_sign(const char *host, bool tls, const char *hash)
{
	struct line lines[] = { { "PUT", "200 OK", OBJECT, NULL, 0, 0 }, { 0 } };
	struct script *script = script_start(lines, tls);
	struct s3_options options = script_options(script);
	struct s3_client *client;
	struct s3_call call;
	char value[80], url[64];

	script_environment();
	snprintf(url, sizeof(url), "http%s://%s:%u", tls ? "s" : "", host,
		 script_port(script));
	options.endpoint_url = url;
	cr_assert_eq(s3_client_open("s3://b", "b", &options, &client), 0);
	ask(client, &call, "PUT", "k", NULL, NULL);
	cr_assert_eq(call.outcome, STORE_DONE, "%s", call.message);
	cr_assert(script_header(script, "PUT", 0, "x-amz-content-sha256", value,
				sizeof(value)));
	cr_assert_str_eq(value, hash, "%s", host);
	s3_call_free(&call);
	s3_client_close(client);
	script_stop(script);
}

Test(judge, a_payload_is_signed_where_somebody_could_alter_it)
{
	/* Linux takes 0.0.0.0 for this machine, too; we do not. */
	must_sign("0.0.0.0", false, "ed7002b439e9ac845f22357d822bac1444730fbdb6016d3ec943"
		  "2297b9ec9f73");
	must_sign("127.0.0.1", false, "UNSIGNED-PAYLOAD");
	must_sign("127.0.0.1", true, "UNSIGNED-PAYLOAD");
}

/* ---- endpoints ------------------------------------------------------------------------------------ */

static void must_be_endpoint(const struct s3_options *options, const char *bucket,
			     const char *endpoint)
{
	struct s3_client *client;

	script_environment();
	cr_assert_eq(s3_client_open("s3://b", bucket, options, &client), 0);
	cr_assert_str_eq(s3_client_endpoint(client), endpoint);
	s3_client_close(client);
}

Test(judge, endpoints_follow_options_environment_and_region)
{
	struct s3_options options = { .region = "eu-central-1" };

	must_be_endpoint(&options, "b", "https://s3.eu-central-1.amazonaws.com");
	options.dual_stack = true;
	must_be_endpoint(&options, "b", "https://s3.dualstack.eu-central-1.amazonaws.com");
	options.endpoint_url = "https://store.example:443/s3/";
	must_be_endpoint(&options, "b", "https://store.example/s3");
	options.endpoint_url = "http://[::1]:9000";
	must_be_endpoint(&options, "b", "http://[::1]:9000");
}

Test(judge, what_is_no_endpoint_or_bucket_is_refused)
{
	static const char *const bad[] = {
		"127.0.0.1:9000", "ftp://x", "http://", "http://a b", "http://a/?x",
		"http://user@host", "http://host:", "http://host:x", "http://[::1",
	};
	struct s3_options options = { 0 };
	struct s3_client *client;
	size_t i;

	script_environment();
	for (i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		options.endpoint_url = bad[i];
		cr_assert_eq(s3_client_open("s3://b", "b", &options, &client), -EINVAL,
			     "%s", bad[i]);
	}
	options.endpoint_url = "http://127.0.0.1:1";
	cr_assert_eq(s3_client_open("s3://b", "a/b", &options, &client), -EINVAL);
	cr_assert_eq(s3_client_open("s3://b", "", &options, &client), -EINVAL);
	cr_assert_eq(s3_client_open("s3://b", "..", &options, &client), -EINVAL);
	options.part_size = 1 << 20;
	cr_assert_eq(s3_client_open("s3://b", "b", &options, &client), -EINVAL);
}
