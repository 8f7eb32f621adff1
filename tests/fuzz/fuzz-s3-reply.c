/* fuzz-s3-reply.c: any header lines and body as a reply of an S3 server: nothing is
 * done that the reply does not say, and its words can be shown to people.
 *
 * The first line is "STATUS METHOD", the second the Range that was asked for, or
 * empty; then header lines until an empty one, then the body. */
#include <ctype.h>

#include "backends/s3/client.h"
#include "backends/store/s3.h"
#include "src/log.h"
#include "tests/fuzz/fuzz.h"

static const struct s3_options options = {
	.endpoint_url = "https://s3.example.org", .region = "us-east-1",
	.no_sign_request = true };

/* One for all replies, until one of them has taught it something. */
static struct s3_client *client;
static const struct s3_route *first_route;

static void open_client(void)
{
	expect(s3_client_open("s3://bucket", "bucket", &options, &client) == 0);
	first_route = atomic_load(&client->route);
}

static void forget_reply(void)
{
	atomic_store(&client->succeeded, false);
	atomic_store(&client->skew, 0);
	if (atomic_load(&client->route) == first_route)
		return;
	s3_client_close(client);
	open_client();
}

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	unsetenv("AWS_CA_BUNDLE");
	setenv("HOME", "/nonexistent", 1);
	open_client();
	return log_open("/dev/null", LOG_LEVEL_ERROR);
}

/* Takes a line off @text, without its end. */
static char *take_line(char **text, char *end)
{
	char *line = *text, *newline = memchr(line, '\n', (size_t)(end - line));

	*text = newline ? newline + 1 : end;
	*(newline ? newline : end) = 0;
	return line;
}

static const char *method_of(const char *line)
{
	static const char *const methods[] = { "PUT", "POST", "HEAD", "DELETE" };
	size_t i;

	for (i = 0; i < sizeof(methods) / sizeof(methods[0]); i++)
		if (strstr(line, methods[i]))
			return methods[i];
	return "GET";
}

/* Whether it is digits of a number below 2^64 (and not more than 18). */
static bool read_digits(const char **at, uint64_t *number)
{
	unsigned int n = 0;

	for (*number = 0; isdigit((unsigned char)**at) && n < 18; ++*at, n++)
		*number = 10 * *number + (uint64_t)(**at - '0');
	return n > 0 && n < 18;
}

/* "bytes=A-B" of what was asked for against "bytes C-D/E" of what came. */
static void check_range(const struct s3_call *call)
{
	const char *asked = http_headers_find(&call->headers, "Range");
	const char *came = http_headers_find(&call->http.reply, "Content-Range");
	uint64_t first, last, got_first, got_last, size;

	asked += strlen("bytes=");
	if (!read_digits(&asked, &first) || *asked++ != '-' || !read_digits(&asked, &last))
		return;
	expect(came && strncasecmp(came, "bytes ", 6) == 0);
	came += strlen("bytes ");
	if (!read_digits(&came, &got_first) || *came++ != '-' ||
	    !read_digits(&came, &got_last) || *came++ != '/' || !read_digits(&came, &size))
		return;
	expect(got_first == first && got_last < size);
	expect(got_last == last || (got_last < last && got_last == size - 1));
	expect(s3_object_size(call) == size);
}

static void check_judgement(const struct s3_call *call)
{
	const char *range = http_headers_find(&call->headers, "Range"), *c;
	const struct http_request *http = &call->http;
	struct store_reply reply = { 0 };

	for (c = call->message; *c; c++)
		expect((unsigned char)*c >= ' ' && *c != 0x7f);
	expect(call->outcome == STORE_DONE || call->message[0]);
	if (call->outcome == STORE_DONE) {
		expect(http->status / 100 == 2);
		s3_take_object(call, &reply);
		if (strcmp(call->method, "GET") == 0 && http->status == 206 && range &&
		    strncmp(range, "bytes=", 6) == 0)
			check_range(call);
	}
	if (call->outcome == STORE_ABSENT)
		expect(http->status == 404 || strcmp(call->code, "NoSuchUpload") == 0);
	if (call->outcome == STORE_ABSENT && strcmp(call->method, "GET") == 0)
		expect(strncmp(call->code, "NoSuch", 6) == 0);
	expect(call->outcome != STORE_UNKNOWN || s3_call_changes(call));
}

static void judge(char *text, char *end)
{
	char *line = take_line(&text, end), *range = take_line(&text, end);
	struct s3_call call = { .method = method_of(line), .key = "k", .client = client };
	struct http_request *http = &call.http;
	char *host = strdup("s3.example.org");

	call.route = atomic_load(&client->route);
	call.host = host;
	http->status = atoi(line) % 1000;
	if (http->status < 100)
		http->status = 200;
	if (*range)
		http_headers_add(&call.headers, "Range", range);
	while (*(line = take_line(&text, end)) && text < end)
		http_headers_add_line(&http->reply, line, strlen(line));
	http->text_count = (size_t)(end - text);
	http->length = http->sunk = http->text_count;
	if (http->text_count) {
		http->text = malloc(http->text_count + 1);
		expect(http->text);
		memcpy(http->text, text, http->text_count + 1);
	}
	s3_date(http_headers_find(&http->reply, "Last-Modified"));
	if (s3_judge(&call) == S3_JUDGED)
		check_judgement(&call);
	s3_call_free(&call);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t count)
{
	char *text = malloc(count + 1);

	expect(text);
	memcpy(text, data, count);
	text[count] = 0;
	judge(text, text + count);
	forget_reply();
	free(text);
	return 0;
}
