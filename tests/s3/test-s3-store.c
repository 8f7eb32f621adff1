/* test-s3-store.c: a bucket as a store, where the server does what a real one does
 * too seldom. */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "src/clock.h"
#include "src/log.h"
#include "tests/s3/script.h"

#define OBJECT	"ETag: \"e\"\r\nContent-Type: text/plain\r\n"
#define LISTING(BODY) "<ListBucketResult><EncodingType>url</EncodingType>" BODY \
		      "</ListBucketResult>"
#define ENTRY(KEY)    "<Contents><Key>" KEY "</Key><Size>3</Size><ETag>&quot;e&quot;</ETag>" \
		      "<LastModified>2026-01-02T03:04:05.000Z</LastModified></Contents>"

TestSuite(s3_store, .timeout = 60, .init = script_environment);

static enum store_outcome get(struct store *store, const char *key, void *buffer,
			      uint64_t count, uint64_t offset, struct store_reply *reply)
{
	struct iovec iov = { .iov_base = buffer, .iov_len = count };
	struct store_request request = {
		.key = key, .offset = offset, .count = count, .iov = &iov, .nr_iov = 1,
	};
	enum store_outcome outcome = store_wait(store, STORE_GET, &request);

	*reply = request.reply;
	return outcome;
}

/* ---- get -------------------------------------------------------------------------- */

Test(s3_store, a_range_brings_times_tag_size_and_metadata)
{
	struct line lines[] = {
		{ "GET /b/p/a%20b%2Bc/%C3%A9 ", "206 Partial Content", "ETag: \"e\"\r\n"
		  "Content-Range: bytes 2-4/10\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\n"
		  "Last-Modified: Sun, 06 Nov 1994 08:49:35 GMT\r\n"
		  "X-Amz-Meta-Objmap-Volume: some id\r\nx-amz-meta-x: =\r\n"
		  "x-amz-meta-bad_name: 1\r\n", "234", 0, 0 },
		{ 0 },
	};
	struct script *script = script_start(lines, false);
	struct store *store = script_store(script, NULL);
	struct store_reply reply;
	char buffer[3], value[16];

	cr_assert_eq(get(store, "a b+c/\xc3\xa9", buffer, 3, 2, &reply), STORE_DONE, "%s",
		     reply.message);
	cr_assert_arr_eq(buffer, "234", 3);
	cr_assert_str_eq(reply.tag, "\"e\"");
	cr_assert_eq(reply.size, 10);
	cr_assert_eq(reply.count, 3);
	cr_assert_eq(reply.date, 784111777);
	cr_assert_eq(reply.last_modified, 784111775);
	cr_assert_eq(store_metadata_find(&reply.metadata, "objmap-volume", value, 16), 7);
	cr_assert_str_eq(value, "some id");
	cr_assert_eq(store_metadata_find(&reply.metadata, "x", value, 16), 1);
	cr_assert_eq(reply.metadata.length, strlen("objmap-volume=some id\nx==\n"));
	store_close(store);
	script_stop(script);
}

Test(s3_store, a_range_that_ends_beyond_the_object_is_none)
{
	struct line lines[] = {
		{ "GET", "206 Partial Content", OBJECT "Content-Range: bytes 2-9/10\r\n",
		  "23456789", 0, 0 },
		{ 0 },
	};
	struct script *script = script_start(lines, false);
	struct store *store = script_store(script, NULL);
	struct store_reply reply;
	char buffer[9];

	cr_assert_eq(get(store, "k", buffer, 9, 2, &reply), STORE_FAILED);
	cr_assert_eq(reply.error, -ERANGE);
	cr_assert_eq(reply.count, 0);
	store_close(store);
	script_stop(script);
}

Test(s3_store, a_key_from_the_top_has_no_prefix)
{
	struct line lines[] = {
		{ "GET /b/parent/chunk ", "404 Not Found", NULL, XML_ERROR("NoSuchKey"), 0, 0 },
		{ 0 },
	};
	struct script *script = script_start(lines, false);
	struct store *store = script_store(script, NULL);
	struct store_reply reply;
	char buffer[1];

	cr_assert_eq(get(store, "/parent/chunk", buffer, 1, 0, &reply), STORE_ABSENT);
	store_close(store);
	script_stop(script);
}

/* An object that somebody else has named. */
Test(s3_store, any_key_there_is_can_be_read_where_that_was_said)
{
	struct line lines[] = {
		{ "GET /b//a//../b ", "404 Not Found", NULL, XML_ERROR("NoSuchKey"), 0, 0 },
		{ 0 },
	};
	struct script *script = script_start(lines, false);
	struct store *store = script_store(script, NULL);
	struct store_reply reply;
	char buffer[1];

	cr_assert_eq(get(store, "//a//../b", buffer, 1, 0, &reply), STORE_FAILED);
	cr_assert_eq(reply.error, -EINVAL);
	store->any_key = true;
	cr_assert_eq(get(store, "//a//../b", buffer, 1, 0, &reply), STORE_ABSENT);
	store_close(store);
	script_stop(script);
}

/* ---- trouble ------------------------------------------------------------------------- */

Test(s3_store, the_server_s_words_reach_who_waits)
{
	struct line lines[] = {
		{ "GET /b/p/k", "503 Slow Down", NULL, XML_ERROR("SlowDown"), 0, 0 },
		{ "GET /b/p/none", "404 Not Found", NULL, XML_ERROR("NoSuchBucket"), 0, 0 },
		{ 0 },
	};
	struct script *script = script_start(lines, false);
	struct store *store = script_store(script, NULL);
	struct store_reply reply;
	char log[1024] = "", buffer[1];

	cr_assert_eq(get(store, "k", buffer, 1, 0, &reply), STORE_FAILED);
	cr_assert(strstr(reply.message, "503 SlowDown: words of SlowDown"), "%s",
		  reply.message);
	log_capture(log, sizeof(log));
	cr_assert_eq(get(store, "none", buffer, 1, 0, &reply), STORE_FAILED);
	log_capture(NULL, 0);
	cr_assert(strstr(reply.message, "NoSuchBucket"), "%s", reply.message);
	store_close(store);
	script_stop(script);
}


static void note_outcome(struct store_request *request, enum store_outcome outcome)
{
	atomic_int *noted = request->context;

	atomic_store(noted, (int)outcome + 1);
}

static int wait_for(atomic_int *noted)
{
	int i;

	for (i = 0; i < 1500 && !atomic_load(noted); i++)
		usleep(10000);
	return atomic_load(noted) - 1;
}

Test(s3_store, what_is_waited_for_is_told_meanwhile_and_then_no_more)
{
	struct line lines[] = {
		{ "GET /b/p/k", "503 Slow Down", NULL, XML_ERROR("SlowDown"), 5, 0 },
		{ "GET /b/p/k", "200 OK", OBJECT, "x", 0, 0 },
		{ 0 },
	};
	struct script *script = script_start(lines, false);
	struct store *store = script_store(script, NULL);
	struct trouble_status trouble = { "", 0, 0 };
	char buffer[1];
	struct iovec iov = { .iov_base = buffer, .iov_len = 1 };
	atomic_int noted = 0;
	struct store_request request = {
		.op = STORE_GET, .key = "k", .count = 1, .iov = &iov, .nr_iov = 1,
		.done = note_outcome, .context = &noted,
	};

	atomic_store(&store->retry_for, UINT64_MAX);
	script_shut_after(script, 3);
	store_submit(store, &request);
	while (!trouble.reason[0] && !atomic_load(&noted)) {
		usleep(1000);
		trouble_status(&store->trouble, &trouble);
	}
	script_open(script);
	cr_assert_str_eq(trouble.reason, "GET k: 503 SlowDown: words of SlowDown");
	cr_assert_eq(wait_for(&noted), STORE_DONE);
	cr_assert_eq(request.attempts, 6);
	trouble_status(&store->trouble, &trouble);
	cr_assert_eq(trouble.reason[0], 0);
	store_close(store);
	script_stop(script);
}

/* ---- lists ------------------------------------------------------------------------------ */

static enum store_outcome list(struct store *store, enum store_op op, const char *prefix,
			       const char *after, struct store_request *request)
{
	*request = (struct store_request){ .key = prefix, .after = after };
	return store_wait(store, op, request);
}

Test(s3_store, a_list_is_relative_to_the_prefix_and_goes_on_after_a_key)
{
	struct line lines[] = {
		{ "GET /b?", "200 OK", NULL, LISTING("<IsTruncated>true</IsTruncated>"
		  ENTRY("p/c/") ENTRY("p/c/a%2Bb+c") ENTRY("p/c/%C3%A9")), 0, 0 },
		{ 0 },
	};
	struct script *script = script_start(lines, false);
	struct store *store = script_store(script, NULL);
	struct store_request request;
	struct store_listing *listing = &request.reply.listing;

	cr_assert_eq(list(store, STORE_LIST, "c/", "c", &request), STORE_DONE, "%s",
		     request.reply.message);
	cr_assert_eq(listing->nr_entries, 3);
	cr_assert(listing->more);
	cr_assert_str_eq(listing->entries[1].key, "c/a+b c");
	cr_assert_str_eq(listing->entries[2].key, "c/\xc3\xa9");
	cr_assert_eq(listing->entries[0].size, 3);
	cr_assert_eq(script_count(script, "GET /b?list-type=2&encoding-type=url&max-keys="
				  "1000&prefix=p%2Fc%2F&start-after=p%2Fc "), 1);
	store_listing_free(listing);
	store_close(store);
	script_stop(script);
}

Test(s3_store, a_folder_s_own_object_is_no_entry)
{
	struct line lines[] = {
		{ "GET /b?", "200 OK", NULL, LISTING("<IsTruncated>false</IsTruncated>"
		  ENTRY("p/") ENTRY("p/head")), 0, 0 },
		{ 0 },
	};
	struct script *script = script_start(lines, false);
	struct store *store = script_store(script, NULL);
	struct store_request request;

	cr_assert_eq(list(store, STORE_LIST, "", NULL, &request), STORE_DONE);
	cr_assert_eq(request.reply.listing.nr_entries, 1);
	cr_assert_str_eq(request.reply.listing.entries[0].key, "head");
	store_listing_free(&request.reply.listing);
	store_close(store);
	script_stop(script);
}

static void must_not_list(const char *body, const char *words)
{
	struct line lines[] = { { "GET /b?", "200 OK", NULL, body, 0, 0 }, { 0 } };
	struct script *script = script_start(lines, false);
	struct store *store = script_store(script, NULL);
	struct store_request request;

	cr_assert_eq(list(store, STORE_LIST, "", "c", &request), STORE_FAILED, "%s", body);
	cr_assert_eq(request.reply.listing.nr_entries, 0);
	cr_assert(strstr(request.reply.message, words), "%s", request.reply.message);
	store_close(store);
	script_stop(script);
}

Test(s3_store, a_list_that_is_not_what_was_asked_for_is_none)
{
	must_not_list(LISTING("<IsTruncated>false</IsTruncated>" ENTRY("p/e") ENTRY("p/d")),
		      "ListBucketResult");
	must_not_list(LISTING("<IsTruncated>false</IsTruncated>" ENTRY("p/b") ENTRY("p/d")),
		      "order");
	must_not_list(LISTING("<IsTruncated>false</IsTruncated>" ENTRY("q/d")),
		      "not asked for");
	must_not_list("<html>", "ListBucketResult");
	must_not_list("", "ListBucketResult");
}

Test(s3_store, an_empty_page_is_not_the_end)
{
	struct line lines[] = {
		{ "GET /b?list-type=2&encoding-type=url&max-keys=1000&prefix=p%2F "
		  , "200 OK", NULL, LISTING("<IsTruncated>true</IsTruncated>"
		  "<NextContinuationToken>t/1</NextContinuationToken>"), 0, 0 },
		{ "GET /b?list-type=2&encoding-type=url&max-keys=1000&prefix=p%2F"
		  "&continuation-token=t%2F1 ", "200 OK", NULL,
		  LISTING("<IsTruncated>false</IsTruncated>" ENTRY("p/d")), 0, 0 },
		{ 0 },
	};
	struct script *script = script_start(lines, false);
	struct store *store = script_store(script, NULL);
	struct store_request request;

	cr_assert_eq(list(store, STORE_LIST, "", NULL, &request), STORE_DONE, "%s",
		     request.reply.message);
	cr_assert_eq(request.reply.listing.nr_entries, 1);
	cr_assert_not(request.reply.listing.more);
	store_listing_free(&request.reply.listing);
	store_close(store);
	script_stop(script);
}

Test(s3_store, empty_pages_that_go_in_a_circle_end)
{
	struct line lines[] = {
		{ "GET /b?list-type=2", "200 OK", NULL,
		  LISTING("<IsTruncated>true</IsTruncated>"
			  "<NextContinuationToken>t/1</NextContinuationToken>"), 0, 0 },
		{ 0 },
	};
	struct script *script = script_start(lines, false);
	struct store *store = script_store(script, NULL);
	struct store_request request;

	cr_assert_eq(list(store, STORE_LIST, "", NULL, &request), STORE_FAILED);
	cr_expect_eq(script_count(script, "GET"), 2);
	store_close(store);
	script_stop(script);
}

/* ---- unfinished uploads --------------------------------------------------------------------- */

#define UPLOADS(BODY) "<ListMultipartUploadsResult><EncodingType>url</EncodingType>" BODY \
		      "</ListMultipartUploadsResult>"
#define UPLOAD(KEY, ID) "<Upload><Key>" KEY "</Key><UploadId>" ID "</UploadId>" \
			"<Initiated>2026-01-02T03:04:05.000Z</Initiated></Upload>"
#define UPLOADS_QUERY "GET /b?uploads=&encoding-type=url&max-uploads=1000"

Test(s3_store, a_page_of_uploads_says_from_where_the_next_goes_on)
{
	struct line lines[] = {
		{ UPLOADS_QUERY "&prefix=p%2Fc%2F ", "200 OK", NULL,
		  UPLOADS("<IsTruncated>true</IsTruncated><NextKeyMarker>p/c/1"
			  "</NextKeyMarker><NextUploadIdMarker>two</NextUploadIdMarker>"
			  UPLOAD("p/c/1", "one") UPLOAD("p/c/1", "two")), 0, 0 },
		{ UPLOADS_QUERY "&prefix=p%2Fc%2F&key-marker=p%2Fc%2F1&upload-id-marker=two ",
		  "200 OK", NULL, UPLOADS("<IsTruncated>false</IsTruncated>"
					  UPLOAD("p/c/1", "three")), 0, 0 },
		{ 0 },
	};
	struct script *script = script_start(lines, false);
	struct store *store = script_store(script, NULL);
	struct store_request request, second;
	struct store_listing *page = &request.reply.listing;

	cr_assert_eq(list(store, STORE_LIST_UPLOADS, "c/", NULL, &request), STORE_DONE);
	cr_assert_eq(page->nr_entries, 2);
	cr_assert(page->more);
	cr_assert_str_eq(page->next_key, "c/1");
	cr_assert_str_eq(page->next_upload, "two");
	second = (struct store_request){ .key = "c/", .after = page->next_key,
					 .after_upload = page->next_upload };
	cr_assert_eq(store_wait(store, STORE_LIST_UPLOADS, &second), STORE_DONE);
	cr_assert_eq(second.reply.listing.nr_entries, 1);
	cr_assert_str_eq(second.reply.listing.entries[0].key, "c/1");
	cr_assert_str_eq(second.reply.listing.entries[0].upload, "three");
	cr_assert_not(second.reply.listing.more);
	store_listing_free(page);
	store_listing_free(&second.reply.listing);
	store_close(store);
	script_stop(script);
}

Test(s3_store, minio_s_uploads_are_found_among_all_of_the_bucket_s)
{
	static const char minio[] = "Server: MinIO\r\n";
	struct line lines[] = {
		{ UPLOADS_QUERY "&prefix=p%2F ", "200 OK", minio,
		  UPLOADS("<IsTruncated>false</IsTruncated>"), 0, 0 },
		{ UPLOADS_QUERY " ", "200 OK", minio,
		  UPLOADS("<IsTruncated>true</IsTruncated><NextKeyMarker>p/1</NextKeyMarker>"
			  "<NextUploadIdMarker>a</NextUploadIdMarker>"
			  UPLOAD("other", "x") UPLOAD("p/1", "a")), 0, 0 },
		{ UPLOADS_QUERY "&key-marker=p%2F1&upload-id-marker=a ", "200 OK", minio,
		  UPLOADS("<IsTruncated>false</IsTruncated>" UPLOAD("p/2", "b")
			  UPLOAD("q", "y")), 0, 0 },
		{ 0 },
	};
	struct script *script = script_start(lines, false);
	struct store *store = script_store(script, NULL);
	struct store_request request;
	struct store_listing *all = &request.reply.listing;

	cr_assert_eq(list(store, STORE_LIST_UPLOADS, "", NULL, &request), STORE_DONE, "%s",
		     request.reply.message);
	cr_assert_eq(all->nr_entries, 2);
	cr_assert_str_eq(all->entries[0].key, "1");
	cr_assert_str_eq(all->entries[1].key, "2");
	cr_assert_str_eq(all->entries[1].upload, "b");
	cr_assert_not(all->more);
	store_listing_free(all);
	store_close(store);
	script_stop(script);
}

Test(s3_store, pages_of_uploads_that_go_in_a_circle_end)
{
	struct line lines[] = {
		{ UPLOADS_QUERY, "200 OK", NULL,
		  UPLOADS("<IsTruncated>true</IsTruncated><NextKeyMarker>p/1</NextKeyMarker>"
			  "<NextUploadIdMarker>a</NextUploadIdMarker>"), 0, 0 },
		{ 0 },
	};
	struct script *script = script_start(lines, false);
	struct store *store = script_store(script, NULL);
	struct store_request request;

	cr_assert_eq(list(store, STORE_LIST_UPLOADS, "", NULL, &request), STORE_FAILED);
	cr_assert_eq(request.reply.listing.nr_entries, 0);
	cr_assert_eq(script_count(script, "GET"), 2);
	store_close(store);
	script_stop(script);
}

/* ---- delete ------------------------------------------------------------------------------------ */

static enum store_outcome delete_two(const char *reply_body, struct script **script,
				     struct store_reply *reply)
{
	static struct line lines[2];
	const char *keys[] = { "a", "b&c" };
	struct store_request request = { .keys = keys, .nr_keys = 2 };
	struct store *store;
	enum store_outcome outcome;

	lines[0] = (struct line){ "POST /b?delete=", "200 OK", NULL, reply_body, 0, 0 };
	*script = script_start(lines, false);
	store = script_store(*script, NULL);
	outcome = store_wait(store, STORE_DELETE, &request);
	*reply = request.reply;
	store_close(store);
	return outcome;
}

Test(s3_store, many_are_deleted_with_one_request)
{
	struct store_reply reply;
	struct script *script;
	const char *body;
	char md5[32];

	cr_assert_eq(delete_two("<DeleteResult/>", &script, &reply), STORE_DONE);
	body = script_body(script, "POST", 0);
	cr_assert(strstr(body, "<Key>p/a</Key>"), "%s", body);
	cr_assert(strstr(body, "<Key>p/b&amp;c</Key>"), "%s", body);
	cr_assert(script_header(script, "POST", 0, "Content-MD5", md5, sizeof(md5)));
	cr_assert_eq(strlen(md5), 24);
	script_stop(script);
}

Test(s3_store, one_key_that_stays_fails_the_deletion)
{
	struct store_reply reply;
	struct script *script;

	cr_assert_eq(delete_two("<DeleteResult><Error><Key>p/b&amp;c</Key><Code>AccessDenied"
				"</Code><Message>no</Message></Error></DeleteResult>",
				&script, &reply), STORE_FAILED);
	cr_assert_eq(reply.error, -EACCES);
	cr_assert(strstr(reply.message, "p/b&c: AccessDenied: no"), "%s", reply.message);
	script_stop(script);
	cr_assert_eq(delete_two("<DeleteResult><Error><Key>p/a</Key><Code>NoSuchKey</Code>"
				"</Error></DeleteResult>", &script, &reply), STORE_DONE);
	script_stop(script);
	cr_assert_eq(delete_two("", &script, &reply), STORE_FAILED);
	script_stop(script);
	cr_assert_eq(delete_two("<html>deleted</html>", &script, &reply), STORE_FAILED);
	script_stop(script);
}

/* ---- cancelling ------------------------------------------------------------------------------------ */

Test(s3_store, a_cancelled_get_ends_though_the_server_never_answers)
{
	struct line lines[] = { { "GET", "200 OK", OBJECT, "x", 0, 0 }, { 0 } };
	struct script *script = script_start(lines, false);
	struct store *store = script_store(script, NULL);
	static char buffer[4 << 20];
	struct iovec iov = { .iov_base = buffer, .iov_len = sizeof(buffer) };
	atomic_int noted = 0;
	struct request parent = { 0 };
	struct store_request request = {
		.op = STORE_GET, .key = "k", .count = sizeof(buffer), .iov = &iov,
		.nr_iov = 1, .done = note_outcome, .context = &noted, .parent = &parent,
	};

	atomic_store(&store->retry_for, UINT64_MAX);
	script_shut(script);
	store_submit(store, &request);
	while (script_count(script, "GET") == 0)
		usleep(1000);
	request_cancel(&parent);
	cr_assert_eq(wait_for(&noted), STORE_FAILED);
	cr_assert_eq(request.reply.error, -ECANCELED);
	script_open(script);
	store_close(store);
	script_stop(script);
}

/* ---- keys that expire --------------------------------------------------------------------------------- */

Test(s3_store, expired_keys_are_renewed_and_used)
{
	struct line lines[] = {
		{ "GET", "400 Bad Request", NULL, XML_ERROR("ExpiredToken"), 1, 0 },
		{ "GET", "200 OK", OBJECT, "x", 0, 0 },
		{ 0 },
	};
	struct script *script = script_start(lines, false);
	char folder[] = "/tmp/objmap-XXXXXX", path[64], text[512];
	struct store_reply reply;
	struct store *store;
	FILE *file;
	size_t count;
	void *data;

	cr_assert(mkdtemp(folder));
	snprintf(path, sizeof(path), "%s/config", folder);
	file = fopen(path, "w");
	/* Other keys at each run. */
	fprintf(file, "[default]\ncredential_process = /bin/sh -c \"echo x >>%s/runs; "
		"echo '{\\\"Version\\\":1,\\\"AccessKeyId\\\":\\\"AK'$(wc -l <%s/runs)'\\\","
		"\\\"SecretAccessKey\\\":\\\"s\\\",\\\"Expiration\\\":"
		"\\\"2099-01-01T00:00:00Z\\\"}'\"\n", folder, folder);
	fclose(file);
	unsetenv("AWS_ACCESS_KEY_ID");
	unsetenv("AWS_SECRET_ACCESS_KEY");
	setenv("AWS_CONFIG_FILE", path, 1);
	store = script_store(script, NULL);
	atomic_store(&store->retry_for, 20 * CLOCK_SECOND);
	cr_assert_eq(store_get_object(store, "k", CAUSE_HEAD, 1, &data, &count, &reply),
		     STORE_DONE, "%s", reply.message);
	free(data);
	cr_assert(script_header(script, "GET", 0, "Authorization", text, sizeof(text)));
	cr_assert(strstr(text, "Credential=AK1/"), "%s", text);
	/* This script takes the old ones too, so the new ones may come a little later. */
	for (unsigned int i = 0; i < 500 && !strstr(text, "Credential=AK2/"); i++) {
		cr_assert_eq(store_get_object(store, "k", CAUSE_HEAD, 1, &data, &count,
					      &reply), STORE_DONE, "%s", reply.message);
		free(data);
		cr_assert(script_header(script, "GET", script_count(script, "GET") - 1,
					"Authorization", text, sizeof(text)));
		usleep(20000);
	}
	cr_assert(strstr(text, "Credential=AK2/"), "%s", text);
	store_close(store);
	script_stop(script);
	unlink(path);
	snprintf(path, sizeof(path), "%s/runs", folder);
	unlink(path);
	rmdir(folder);
}
