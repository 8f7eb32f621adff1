/* test-sign.c: signatures that Amazon published, and what they leave open.
 *
 * The first table is of the "aws4_testsuite", the second of the examples in "S3 API
 * reference: authenticating requests".  They are the only oracle: whoever signs
 * otherwise is refused. */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backends/s3/sign.h"

#define LINES 8

struct vector {
	const char *name, *method, *path, *query;
	const char *headers[LINES][2];
	const char *body;
	const char *names;
	const char *signature;
};

/* aws4_testsuite: service "service", 2015-08-30 12:36:00 */
static const struct vector suite[] = {
	{ "get-vanilla", "GET", "/", "", { { 0 } }, "", "host;x-amz-date",
	  "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31" },
	{ "get-vanilla-empty-query-key", "GET", "/", "Param1=value1", { { 0 } }, "",
	  "host;x-amz-date",
	  "a67d582fa61cc504c4bae71f336f98b97f1ea3c7a6bfe1b6e45aec72011b9aeb" },
	{ "get-vanilla-query-order-key-case", "GET", "/",
	  "Param2=value2&Param1=value1", { { 0 } }, "", "host;x-amz-date",
	  "b97d918cfa904a5beff61c982a1b6f458b799221646efd99d3219ec94cdf2500" },
	{ "get-vanilla-query-unreserved", "GET", "/",
	  "-._~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz="
	  "-._~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz",
	  { { 0 } }, "", "host;x-amz-date",
	  "9c3e54bfcdf0b19771a7f523ee5669cdf59bc7cc0884027167c21bb143a40197" },
	{ "get-vanilla-utf8-query", "GET", "/", "\xe1\x88\xb4=bar", { { 0 } }, "",
	  "host;x-amz-date",
	  "2cdec8eed098649ff3a119c94853b13c643bcf08f8b0a1d91e12c9027818dd04" },
	{ "get-unreserved", "GET",
	  "/-._~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz", "",
	  { { 0 } }, "", "host;x-amz-date",
	  "07ef7494c76fa4850883e2b006601f940f8a34d404d0cfa977f52a65bbf5f24f" },
	{ "get-header-key-duplicate", "GET", "/", "",
	  { { "My-Header1", "value2" }, { "My-Header1", "value2" },
	    { "My-Header1", "value1" } }, "", "host;my-header1;x-amz-date",
	  "c9d5ea9f3f72853aea855b47ea873832890dbdd183b4468f858259531a5138ea" },
	{ "get-header-value-order", "GET", "/", "",
	  { { "My-Header1", "value4" }, { "My-Header1", "value1" },
	    { "My-Header1", "value3" }, { "My-Header1", "value2" } }, "",
	  "host;my-header1;x-amz-date",
	  "08c7e5a9acfcfeb3ab6b2185e75ce8b1deb5e634ec47601a50643f830c755c01" },
	{ "get-header-value-trim", "GET", "/", "",
	  { { "My-Header1", " value1" }, { "My-Header2", " \"a   b   c\"" } }, "",
	  "host;my-header1;my-header2;x-amz-date",
	  "acc3ed3afb60bb290fc8d2dd0098b9911fcaa05412b367055dee359757a9c736" },
	{ "post-vanilla", "POST", "/", "", { { 0 } }, "", "host;x-amz-date",
	  "5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b" },
	{ "post-vanilla-query", "POST", "/", "Param1=value1", { { 0 } }, "",
	  "host;x-amz-date",
	  "28038455d6de14eafc1f9222cf5aa6f1a96197d7deb8263271d420d138af7f11" },
	{ "post-header-key-sort", "POST", "/", "", { { "My-Header1", "value1" } }, "",
	  "host;my-header1;x-amz-date",
	  "c5410059b04c1ee005303aed430f6e6645f61f4dc9e1461ec8f8916fdf18852c" },
	{ "post-header-value-case", "POST", "/", "", { { "My-Header1", "VALUE1" } }, "",
	  "host;my-header1;x-amz-date",
	  "cdbc9802e29d2942e5e10b5bccfdd67c5f22c7c4e8ae67b53629efa58b974b7d" },
	{ "post-x-www-form-urlencoded", "POST", "/", "",
	  { { "Content-Type", "application/x-www-form-urlencoded" } }, "Param1=value1",
	  "content-type;host;x-amz-date",
	  "ff11897932ad3f4e8b18135d722051e5ac45fc38421b1da7b9d196a0fe09473a" },
};

/* The S3 reference: examplebucket, 2013-05-24 */
static const struct vector s3_examples[] = {
	{ "GET object", "GET", "/test.txt", "", { { "Range", "bytes=0-9" } }, "",
	  "host;range;x-amz-content-sha256;x-amz-date",
	  "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41" },
	{ "PUT object", "PUT", "/test%24file.text", "",
	  { { "Date", "Fri, 24 May 2013 00:00:00 GMT" },
	    { "x-amz-storage-class", "REDUCED_REDUNDANCY" } }, "Welcome to Amazon S3.",
	  "date;host;x-amz-content-sha256;x-amz-date;x-amz-storage-class",
	  "98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd" },
	{ "GET bucket lifecycle", "GET", "/", "lifecycle", { { 0 } }, "",
	  "host;x-amz-content-sha256;x-amz-date",
	  "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543" },
	{ "GET bucket (list objects)", "GET", "/", "max-keys=2&prefix=J", { { 0 } }, "",
	  "host;x-amz-content-sha256;x-amz-date",
	  "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7" },
};

static const struct s3_keys suite_keys = {
	.id = "AKIDEXAMPLE", .secret = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY",
};
static const struct s3_keys example_keys = {
	.id = "AKIAIOSFODNN7EXAMPLE",
	.secret = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
};
static const struct s3_scope suite_scope = { "us-east-1", "service", 1440938160 };
static const struct s3_scope example_scope = { "us-east-1", "s3", 1369353600 };
#define EXAMPLE_HOST "examplebucket.s3.amazonaws.com"

static void expect_vector(struct s3_signing_key *key, const struct vector *v,
			  const struct s3_keys *keys, const struct s3_scope *scope,
			  const char *host)
{
	struct iovec body = { (void *)(uintptr_t)v->body, strlen(v->body) };
	struct http_headers headers = { 0 };
	char hash[S3_HASH_SIZE], *expected;
	const char *got;

	for (int i = 0; i < LINES && v->headers[i][0]; i++)
		cr_assert_eq(http_headers_add(&headers, v->headers[i][0],
					      v->headers[i][1]), 0);
	s3_payload_hash(&body, 1, hash);
	cr_assert_eq(s3_sign(key, keys, scope, v->method, host, v->path, v->query,
			     hash, &headers), 0);
	cr_assert(asprintf(&expected, "AWS4-HMAC-SHA256 Credential=%s/%s/us-east-1/%s/"
			   "aws4_request, SignedHeaders=%s, Signature=%s", keys->id,
			   strcmp(scope->service, "s3") ? "20150830" : "20130524",
			   scope->service, v->names, v->signature) > 0);
	got = http_headers_find(&headers, "authorization");
	cr_assert_not_null(got);
	cr_expect_str_eq(got, expected, "%s:\n%s\n%s", v->name, got, expected);
	free(expected);
	http_headers_free(&headers);
}

Test(sign, the_vectors_of_the_test_suite_are_met)
{
	struct s3_signing_key *key = s3_signing_key_new();

	for (size_t i = 0; i < sizeof(suite) / sizeof(suite[0]); i++)
		expect_vector(key, &suite[i], &suite_keys, &suite_scope,
			      "example.amazonaws.com");
	s3_signing_key_free(key);
}

Test(sign, the_examples_of_the_s3_reference_are_met)
{
	struct s3_signing_key *key = s3_signing_key_new();

	for (size_t i = 0; i < sizeof(s3_examples) / sizeof(s3_examples[0]); i++)
		expect_vector(key, &s3_examples[i], &example_keys, &example_scope,
			      EXAMPLE_HOST);
	s3_signing_key_free(key);
}

/* post-sts-header-after says the token may stay out of the signature; S3 wants it
 * in, as post-sts-header-before has it. */
Test(sign, a_session_token_is_signed)
{
	struct s3_signing_key *key = s3_signing_key_new();
	struct s3_keys keys = suite_keys;
	struct http_headers headers = { 0 };
	char hash[S3_HASH_SIZE];

	strcpy(keys.token, "AQoDYXdzEPT//////////wEXAMPLEtc764bNrC9SAPBSM22wDOk4x4HIZ8j4"
	       "FZTwdQWLWsKWHGBuFqwAeMicRXmxfpSPfIeoIYRqTflfKD8YUuwthAx7mSEI/qkPpKPi/"
	       "kMcGdQrmGdeehM4IC1NtBmUpp2wUE8phUZampKsburEDy0KPkyQDYwT7WZ0wq5VSXDvp7"
	       "5YU9HFvlRd8Tx6q6fE8YQcHNVXAkiY9q6d+xo0rKwT38xVqr7ZD0u0iPPkUL64lIZbqBA"
	       "z+scqKmlzm8FDrypNC9Yjc8fPOLn9FX9KSYvKTr4rvx3iSIlTJabIQwj2ICCR/oLxBA==");
	s3_payload_hash(NULL, 0, hash);
	cr_assert_eq(s3_sign(key, &keys, &suite_scope, "POST", "example.amazonaws.com",
			     "/", "", hash, &headers), 0);
	cr_expect_str_eq(http_headers_find(&headers, "x-amz-security-token"), keys.token);
	cr_expect_not_null(strstr(http_headers_find(&headers, "Authorization"),
		"SignedHeaders=host;x-amz-date;x-amz-security-token, Signature="
		"85d96828115b5dc0cfc3bd16ad9e210dd772bbebba041836c64533a82be05ead"));
	http_headers_free(&headers);
	s3_signing_key_free(key);
}

Test(sign, the_presigned_example_of_the_s3_reference_is_met)
{
	struct s3_signing_key *key = s3_signing_key_new();
	char *query = s3_presign(key, &example_keys, &example_scope, "GET", EXAMPLE_HOST,
				 "/test.txt", "", 86400);

	cr_assert_not_null(query);
	cr_expect_str_eq(query, "X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential="
		"AKIAIOSFODNN7EXAMPLE%2F20130524%2Fus-east-1%2Fs3%2Faws4_request"
		"&X-Amz-Date=20130524T000000Z&X-Amz-Expires=86400"
		"&X-Amz-SignedHeaders=host&X-Amz-Signature="
		"aeeed9bbccd4d02ee5c0109b86d86835f995330da4c265957d157751f604d404");
	free(query);
	s3_signing_key_free(key);
}

Test(sign, signing_again_replaces_the_earlier_signature)
{
	struct s3_signing_key *key = s3_signing_key_new();
	struct s3_keys keys = example_keys;
	struct s3_scope later = example_scope;
	struct http_headers headers = { 0 };
	const char *line = NULL;
	char hash[S3_HASH_SIZE];
	int nr = 0;

	strcpy(keys.token, "first");
	s3_payload_hash(NULL, 0, hash);
	cr_assert_eq(http_headers_add(&headers, "Range", "bytes=0-9"), 0);
	cr_assert_eq(s3_sign(key, &keys, &later, "GET", EXAMPLE_HOST, "/test.txt", "",
			     S3_UNSIGNED_PAYLOAD, &headers), 0);
	/* An hour before: another time, and keys without a token. */
	later.now -= 3600;
	cr_assert_eq(s3_sign(key, &example_keys, &later, "GET", EXAMPLE_HOST,
			     "/test.txt", "", hash, &headers), 0);
	later.now += 3600;
	cr_assert_eq(s3_sign(key, &example_keys, &later, "GET", EXAMPLE_HOST,
			     "/test.txt", "", hash, &headers), 0);
	while ((line = http_headers_next(&headers, line)))
		nr++;
	cr_expect_eq(nr, 4);
	cr_expect_null(http_headers_find(&headers, "x-amz-security-token"));
	cr_expect_str_eq(http_headers_find(&headers, "x-amz-date"), "20130524T000000Z");
	cr_expect_not_null(strstr(http_headers_find(&headers, "Authorization"),
				  s3_examples[0].signature));
	http_headers_free(&headers);
	s3_signing_key_free(key);
}

Test(sign, what_proxies_change_is_not_signed)
{
	struct s3_signing_key *key = s3_signing_key_new();
	struct http_headers headers = { 0 };
	char hash[S3_HASH_SIZE];

	cr_assert_eq(http_headers_add(&headers, "User-Agent", "objmap"), 0);
	cr_assert_eq(http_headers_add(&headers, "RANGE", "bytes=0-9"), 0);
	cr_assert_eq(http_headers_add(&headers, "accept-encoding", "identity"), 0);
	s3_payload_hash(NULL, 0, hash);
	cr_assert_eq(s3_sign(key, &example_keys, &example_scope, "GET", EXAMPLE_HOST,
			     "/test.txt", "", hash, &headers), 0);
	cr_expect_not_null(strstr(http_headers_find(&headers, "Authorization"),
				  s3_examples[0].signature));
	http_headers_free(&headers);
	s3_signing_key_free(key);
}

Test(sign, the_key_follows_day_region_service_and_secret)
{
	struct s3_signing_key *key = s3_signing_key_new();
	struct s3_keys other = suite_keys;
	struct s3_scope scope = suite_scope;
	struct http_headers headers = { 0 };
	char hash[S3_HASH_SIZE];

	s3_payload_hash(NULL, 0, hash);
	for (int round = 0; round < 4; round++) {
		scope = suite_scope;
		other = suite_keys;
		if (round == 0)
			scope.now += 86400;
		else if (round == 1)
			scope.region = "eu-west-1";
		else if (round == 2)
			scope.service = "s3";
		else
			strcpy(other.secret, "another");
		cr_assert_eq(s3_sign(key, &other, &scope, "GET", "h", "/", "", hash,
				     &headers), 0);
		expect_vector(key, &suite[0], &suite_keys, &suite_scope,
			      "example.amazonaws.com");
	}
	http_headers_free(&headers);
	s3_signing_key_free(key);
}

Test(sign, anonymous_requests_carry_no_signature)
{
	struct s3_signing_key *key = s3_signing_key_new();
	struct s3_keys nobody = { .anonymous = true };
	struct http_headers headers = { 0 };

	cr_assert_eq(s3_sign(key, &example_keys, &example_scope, "GET", "h", "/", "",
			     S3_UNSIGNED_PAYLOAD, &headers), 0);
	cr_assert_eq(s3_sign(key, &nobody, &example_scope, "GET", "h", "/", "",
			     S3_UNSIGNED_PAYLOAD, &headers), 0);
	cr_expect_null(http_headers_next(&headers, NULL));
	http_headers_free(&headers);
	s3_signing_key_free(key);
}

Test(sign, a_region_that_is_none_is_refused_and_not_cut)
{
	struct s3_signing_key *key = s3_signing_key_new();
	struct http_headers headers = { 0 };
	struct s3_scope scope = example_scope;
	char region[300] = { 0 };

	memset(region, 'r', sizeof(region) - 1);
	scope.region = region;
	cr_expect_eq(s3_sign(key, &example_keys, &scope, "GET", "h", "/", "",
			     S3_UNSIGNED_PAYLOAD, &headers), -EINVAL);
	cr_expect_null(s3_presign(key, &example_keys, &scope, "GET", "h", "/", "", 60));
	http_headers_free(&headers);
	s3_signing_key_free(key);
}

Test(sign, encoding_is_that_of_the_reference)
{
	char to[64];

	cr_expect_eq(s3_encode("a b+c/d=~.-_%\xc3\xa4", false, to, sizeof(to)), 29);
	cr_expect_str_eq(to, "a%20b%2Bc%2Fd%3D~.-_%25%C3%A4");
	cr_expect_eq(s3_encode("a//b c/", true, to, sizeof(to)), 9);
	cr_expect_str_eq(to, "a//b%20c/");
	cr_expect_eq(s3_encode("", true, to, sizeof(to)), 0);
	cr_expect_str_eq(to, "");
	cr_expect_eq(s3_encode("ab", true, to, 2), -E2BIG);
	cr_expect_eq(s3_encode("ab", true, to, 3), 2);
	cr_expect_eq(s3_encode(" ", true, to, 3), -E2BIG);
}

Test(sign, a_query_is_signed_in_one_form_however_it_is_written)
{
	static const char *const forms[] = {
		"prefix=a%20b%2Fc&x&list-type=2", "x=&list-type=2&prefix=a%20b/c",
		"list-type=2&prefix=a+b%2fc&x=", "&list-type=2&&prefix=a b/c&x&",
	};
	struct s3_signing_key *key = s3_signing_key_new();
	char *first = NULL;

	for (size_t i = 0; i < sizeof(forms) / sizeof(forms[0]); i++) {
		struct http_headers headers = { 0 };
		const char *got;

		cr_assert_eq(s3_sign(key, &example_keys, &example_scope, "GET", "h", "/",
				     forms[i], S3_UNSIGNED_PAYLOAD, &headers), 0);
		got = http_headers_find(&headers, "Authorization");
		if (!first)
			first = strdup(got);
		cr_expect_str_eq(got, first, "%s", forms[i]);
		http_headers_free(&headers);
	}
	free(first);
	s3_signing_key_free(key);
}

Test(headers, a_line_break_is_refused)
{
	struct http_headers headers = { 0 };

	cr_expect_eq(http_headers_add(&headers, "Name", "a\r\nOther: b"), -EINVAL);
	cr_expect_eq(http_headers_add(&headers, "Na\nme", "a"), -EINVAL);
	cr_expect_eq(http_headers_add(&headers, "Name:", "a"), -EINVAL);
	cr_expect_eq(http_headers_add(&headers, "", "a"), -EINVAL);
	cr_expect_null(http_headers_next(&headers, NULL));
	cr_expect_null(http_headers_find(&headers, "Name"));
	http_headers_free(&headers);
}

Test(headers, are_found_whatever_their_case_and_taken_away_all)
{
	struct http_headers headers = { 0 };
	const char *line;

	cr_assert_eq(http_headers_add(&headers, "ETag", "\"1\""), 0);
	cr_assert_eq(http_headers_add(&headers, "X-Tag", "2"), 0);
	cr_assert_eq(http_headers_add(&headers, "etag", ""), 0);
	cr_expect_str_eq(http_headers_find(&headers, "ETAG"), "\"1\"");
	cr_expect_null(http_headers_find(&headers, "Tag"));
	cr_expect_null(http_headers_find(&headers, "ETagg"));
	http_headers_remove(&headers, "eTag");
	line = http_headers_next(&headers, NULL);
	cr_expect_str_eq(line, "X-Tag: 2");
	cr_expect_null(http_headers_next(&headers, line));
	http_headers_free(&headers);
}

Test(headers, are_bounded)
{
	struct http_headers headers = { 0 };
	char *value = calloc(1, HTTP_HEADERS_MAX + 2);
	int error = 0, nr = 0;

	memset(value, 'v', HTTP_HEADERS_MAX);
	cr_expect_eq(http_headers_add(&headers, "a", value), -E2BIG);
	value[1000] = 0;
	while (!error && nr < 1000) {
		error = http_headers_add(&headers, "a", value);
		nr += !error;
	}
	cr_expect_eq(error, -E2BIG);
	cr_expect_eq(nr, (int)(HTTP_HEADERS_MAX / 1004));
	free(value);
	http_headers_free(&headers);
}
