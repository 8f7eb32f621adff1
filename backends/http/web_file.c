/* web_file.c: gets ranges of one file of a web server.
 *
 * The first get finds the file's size and version, and where redirects lead.  Each
 * later one asks for that version (If-Match with a strong ETag, else
 * If-Unmodified-Since) and believes a reply only when it is exactly the range of
 * exactly that version: a file that is replaced gives an error, never a mixture.
 * What redirects led to may be good for a while only: when it is refused, the way is
 * gone again from its beginning. */
#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include <curl/curl.h>

#include "backends/http/http.h"
#include "backends/http/web_file.h"
#include "backends/s3/s3.h"
#include "src/clock.h"
#include "src/errors.h"
#include "src/log.h"

#define REDIRECTS_MAX 5
#define LOG_INTERVAL  (10 * CLOCK_SECOND)

struct web_file {
	struct store store;		/* must stay first */
	struct http_client *client;
	char *origin;			/* the URL as given */
	bool known;			/* version is; set before the second get */
	struct web_version version;

	pthread_mutex_t lock;		/* guards what follows */
	char *url;			/* where redirects led to last */
	bool lost;
	int logged_error;		/* latest that was logged, and when */
	uint64_t logged_at;
};

/* One get under way. */
struct fetch {
	struct http_request http;	/* must stay first */
	struct web_file *file;
	struct store_request *request;
	struct web_version version;	/* as the reply says */
	unsigned int redirects;
	bool from_origin;		/* not from where redirects led last */
	bool judged;			/* by its headers: outcome is the end of it */
	enum store_outcome outcome;
};

/* ---- the end ---------------------------------------------------------------------- */

/* Why it is no success.  Returns @error. */
__attribute__((format(printf, 4, 5)))
static int judge(struct fetch *fetch, enum store_outcome outcome, int error,
		 const char *format, ...)
{
	struct store_reply *reply = &fetch->request->reply;
	va_list arguments;

	va_start(arguments, format);
	vsnprintf(reply->message, sizeof(reply->message), format, arguments);
	va_end(arguments);
	reply->error = error;
	fetch->judged = true;
	fetch->outcome = outcome;
	return error;
}

/* A reply that cannot be believed: for good at first, then for a while. */
#define judge_strange(fetch, ...) \
	judge(fetch, (fetch)->file->known ? STORE_TRANSIENT : STORE_FAILED, -EPROTO, \
	      __VA_ARGS__)

static int judge_lost(struct fetch *fetch)
{
	struct web_file *file = fetch->file;

	pthread_mutex_lock(&file->lock);
	file->lost = true;
	pthread_mutex_unlock(&file->lock);
	return judge(fetch, STORE_FAILED, -ESTALE,
		     "the file was replaced since it was opened; unmount it and mount it again to read what is there now");
}

static void log_failure(struct web_file *file, const struct store_reply *reply)
{
	uint64_t now = clock_now();
	bool again;

	pthread_mutex_lock(&file->lock);
	again = file->logged_error == reply->error && now - file->logged_at < LOG_INTERVAL;
	if (!again) {
		file->logged_error = reply->error;
		file->logged_at = now;
	}
	pthread_mutex_unlock(&file->lock);
	if (!again)
		log_error("%s: %s", file->store.place, reply->message);
}

static void fetch_end(struct fetch *fetch)
{
	struct store_request *request = fetch->request;
	enum store_outcome outcome = fetch->outcome;
	struct web_file *file = fetch->file;

	if (outcome == STORE_FAILED && request->reply.error != -ECANCELED)
		log_failure(file, &request->reply);
	http_request_free(&fetch->http);
	free(fetch);
	store_complete(request, outcome);
}

/* ---- what a reply says --------------------------------------------------------------- */

static bool read_number(const char **at, char end, uint64_t *number)
{
	size_t length = strspn(*at, "0123456789");

	if (length == 0 || length > 18 || (*at)[length] != end)
		return false;
	*number = strtoull(*at, NULL, 10);
	*at += length + (end != 0);
	return true;
}

/* "bytes FIRST-LAST/SIZE" */
static bool read_content_range(const char *text, uint64_t *first, uint64_t *last,
			       uint64_t *size)
{
	if (!text || strncasecmp(text, "bytes ", 6) != 0)
		return false;
	text += 6;
	return read_number(&text, '-', first) && read_number(&text, '/', last) &&
	       read_number(&text, 0, size);
}

/* A date is a version only when nothing can have changed within its second after it
 * was said. */
static void read_version(const struct http_headers *headers, struct web_version *version)
{
	const char *tag = http_headers_find(headers, "ETag");
	const char *date = http_headers_find(headers, "Last-Modified");
	uint64_t changed = s3_date(date), said = s3_date(http_headers_find(headers, "Date"));

	version->tag[0] = 0;
	version->by_date = !tag || tag[0] != '"' || strlen(tag) >= STORE_TAG_MAX;
	if (!version->by_date)
		snprintf(version->tag, sizeof(version->tag), "%s", tag);
	else if (date && strlen(date) < STORE_TAG_MAX && changed && said > changed)
		snprintf(version->tag, sizeof(version->tag), "%s", date);
}

static int check_version(struct fetch *fetch)
{
	const struct web_version *version = &fetch->file->version;
	const char *tag;

	if (!fetch->file->known) {
		read_version(&fetch->http.reply, &fetch->version);
		if (fetch->version.tag[0])
			return 0;
		return judge(fetch, STORE_FAILED, -EOPNOTSUPP,
			     "the server says neither a strong ETag nor a Last-Modified of a while ago, so nobody would see the file change; download it, and mount it as file:PATH");
	}
	tag = http_headers_find(&fetch->http.reply,
				version->by_date ? "Last-Modified" : "ETag");
	if (!tag)
		return judge_strange(fetch, "the server does not say which version of the file this is");
	if (fetch->version.size != version->size || strcmp(tag, version->tag) != 0)
		return judge_lost(fetch);
	return 0;
}

static int check_part(struct fetch *fetch)
{
	const struct http_headers *headers = &fetch->http.reply;
	const struct store_request *request = fetch->request;
	const char *encoding = http_headers_find(headers, "Content-Encoding");
	uint64_t first, last;

	if (encoding && strcasecmp(encoding, "identity") != 0)
		return judge_strange(fetch, "the server sends it encoded (%.40s), though asked not to; download it, and mount it as file:PATH",
				     encoding);
	if (!read_content_range(http_headers_find(headers, "Content-Range"), &first, &last,
				&fetch->version.size))
		return judge_strange(fetch, "the server answers a range without saying which it is");
	if (first != request->offset || last != request->offset + request->count - 1 ||
	    last >= fetch->version.size)
		return judge_strange(fetch, "the server answers with another range than it was asked for");
	return check_version(fetch);
}

static int fetch_headed(struct http_request *http)
{
	struct fetch *fetch = (struct fetch *)http;

	if (http->status == 206)
		return check_part(fetch);
	if (http->status != 200)
		return 0;
	return judge_strange(fetch, "the server does not give parts of the file (no ranges); download it, and mount it as file:PATH");
}

/* ---- one get -------------------------------------------------------------------------- */

static int fetch_prepare(struct http_request *http)
{
	const struct fetch *fetch = (struct fetch *)http;

	return store_request_is_cancelled(fetch->request) ? -ECANCELED : 0;
}

static void fetch_done(struct http_request *http);

static int set_headers(const struct fetch *fetch, struct http_headers *headers)
{
	const struct store_request *request = fetch->request;
	const struct web_file *file = fetch->file;
	char range[64];
	int error;

	snprintf(range, sizeof(range), "bytes=%" PRIu64 "-%" PRIu64, request->offset,
		 request->offset + request->count - 1);
	error = http_headers_add(headers, "Range", range);
	if (!error)
		error = http_headers_add(headers, "Accept-Encoding", "identity");
	if (!error && file->known)
		error = http_headers_add(headers, file->version.by_date ?
					 "If-Unmodified-Since" : "If-Match",
					 file->version.tag);
	return error;
}

/* Takes @url, malloc'ed. */
static void fetch_start(struct fetch *fetch, char *url)
{
	const struct store_request *request = fetch->request;
	struct http_request *http = &fetch->http;
	int error;

	http_request_free(http);
	memset(http, 0, sizeof(*http));
	http->url = url;
	error = url ? set_headers(fetch, &http->headers) : -ENOMEM;
	if (error) {
		judge(fetch, STORE_FAILED, error, "%s", error_words(error));
		fetch_end(fetch);
		return;
	}
	http->method = "GET";
	http->sink = request->iov;
	http->nr_sink = request->nr_iov;
	http->sink_count = request->count;
	http->priority = request->priority;
	http->deadline = request->deadline;
	http->stall_timeout = store_silence(&fetch->file->store);
	http->prepare = fetch_prepare;
	http->headed = fetch_headed;
	http->done = fetch_done;
	http_submit(fetch->file->client, http);
}

static bool has_user(CURLU *url)
{
	char *user = NULL;
	bool has = curl_url_get(url, CURLUPART_USER, &user, 0) == CURLUE_OK;

	curl_free(user);
	return has;
}

static bool is_scheme(CURLU *url, const char *wanted)
{
	char *scheme = NULL;
	bool is = curl_url_get(url, CURLUPART_SCHEME, &scheme, 0) == CURLUE_OK &&
		  strcmp(scheme, wanted) == 0;

	curl_free(scheme);
	return is;
}

/* Where @location leads from @base; malloc'ed, or NULL: nowhere we go. */
static char *resolve(const char *base, const char *location)
{
	CURLU *url = curl_url();
	char *whole = NULL, *copy = NULL;
	bool was_tls;

	if (!url || curl_url_set(url, CURLUPART_URL, base, 0) != CURLUE_OK)
		goto out;
	was_tls = is_scheme(url, "https");
	if (curl_url_set(url, CURLUPART_URL, location, 0) != CURLUE_OK || has_user(url))
		goto out;
	if (!is_scheme(url, "https") && (was_tls || !is_scheme(url, "http")))
		goto out;
	if (curl_url_get(url, CURLUPART_URL, &whole, 0) == CURLUE_OK)
		copy = strdup(whole);
out:
	curl_free(whole);
	curl_url_cleanup(url);
	return copy;
}

/* Returns whether it is on its way again. */
static bool follow_redirect(struct fetch *fetch)
{
	const char *location = http_headers_find(&fetch->http.reply, "Location");
	char *url;

	if (!location || fetch->redirects++ == REDIRECTS_MAX) {
		judge_strange(fetch, "the server redirects %s",
			      location ? "too often" : "to nowhere");
		return false;
	}
	url = resolve(fetch->http.url, location);
	if (!url) {
		judge_strange(fetch, "the server redirects to what is not followed: only http: and https: are, without a password, and never from https: to http:");
		return false;
	}
	fetch_start(fetch, url);
	return true;
}

/* Where redirects led is refused: is it so from the beginning?  Returns whether it is
 * on its way again. */
static bool start_over(struct fetch *fetch)
{
	if (fetch->from_origin || strcmp(fetch->http.url, fetch->file->origin) == 0)
		return false;
	fetch->from_origin = true;
	fetch->redirects = 0;
	fetch_start(fetch, strdup(fetch->file->origin));
	return true;
}

static void judge_status(struct fetch *fetch)
{
	int status = fetch->http.status;

	if (status == 412 || (status == 416 && fetch->file->known))
		judge_lost(fetch);
	else if (status == 416)
		judge(fetch, STORE_FAILED, -ENODATA,
		      "the file is empty, and a device has at least one byte");
	else if (status == 408 || status == 429 || status >= 500)
		judge(fetch, STORE_TRANSIENT, -EIO, "the server answers %d", status);
	else if (status == 404 || status == 410)
		judge(fetch, STORE_FAILED, -ENOENT, "the server has no such file (%d)",
		      status);
	else if (status == 401 || status == 403 || status == 407)
		judge(fetch, STORE_FAILED, -EACCES,
		      "the server does not allow it (%d); a URL that has run out is asked for anew where it came from",
		      status);
	else
		judge(fetch, STORE_FAILED, -EPROTO, "the server answers %d, which is nothing to go by",
		      status);
}

/* It has no whole reply.  What cannot be reached at all at first is a mistake. */
static void judge_failure(struct fetch *fetch)
{
	const struct http_request *http = &fetch->http;
	bool mistake = http->error == -EINVAL || http->error == -ENOENT ||
		       http->error == -EACCES;

	if (http->error == -ECANCELED || (mistake && !fetch->file->known))
		judge(fetch, STORE_FAILED, http->error, "%s", http->message);
	else
		judge(fetch, STORE_TRANSIENT, http->error, "%s", http->message);
}

static void fetch_succeed(struct fetch *fetch)
{
	struct store_request *request = fetch->request;
	struct web_file *file = fetch->file;
	char *old = NULL;

	if (fetch->http.sunk != request->count) {
		judge_strange(fetch, "the server answers with less than it says");
		return;
	}
	if (!file->known) {		/* the first get: nobody else is here yet */
		file->version = fetch->version;
		file->known = true;
	}
	request->reply.count = request->count;
	request->reply.size = file->version.size;
	fetch->outcome = STORE_DONE;
	pthread_mutex_lock(&file->lock);
	if (strcmp(file->url, fetch->http.url) != 0) {
		old = file->url;
		file->url = fetch->http.url;
		fetch->http.url = NULL;
	}
	pthread_mutex_unlock(&file->lock);
	free(old);
}

static void fetch_done(struct http_request *http)
{
	struct fetch *fetch = (struct fetch *)http;
	int status = http->status;

	if (fetch->judged)
		;
	else if (http->error)
		judge_failure(fetch);
	else if (status == 206)
		fetch_succeed(fetch);
	else if (status == 301 || status == 302 || status == 303 || status == 307 ||
		 status == 308) {
		if (follow_redirect(fetch))
			return;
	} else if ((status == 401 || status == 403 || status == 404 || status == 410) &&
		   start_over(fetch)) {
		return;
	} else {
		judge_status(fetch);
	}
	fetch_end(fetch);
}

/* ---- the store --------------------------------------------------------------------------- */

static void web_file_submit(struct store *store, struct store_request *request)
{
	struct web_file *file = (struct web_file *)store;
	struct fetch *fetch = calloc(1, sizeof(*fetch));
	char *url = NULL;
	bool lost;

	if (!fetch || request->op != STORE_GET || request->count == 0) {
		request->reply.error = fetch ? -EROFS : -ENOMEM;
		free(fetch);
		store_complete(request, STORE_FAILED);
		return;
	}
	fetch->file = file;
	fetch->request = request;
	pthread_mutex_lock(&file->lock);
	lost = file->lost;
	if (!lost)
		url = strdup(file->url);
	pthread_mutex_unlock(&file->lock);
	if (lost) {
		judge_lost(fetch);
		fetch_end(fetch);
	} else {
		fetch_start(fetch, url);
	}
}

static void web_file_close(struct store *store)
{
	struct web_file *file = (struct web_file *)store;

	if (file->client)
		http_client_close(file->client);
	pthread_mutex_destroy(&file->lock);
	free(file->origin);
	free(file->url);
	store_deinit(store);
	free(file);
}

static const struct store_ops web_file_ops = {
	.name	= "http",
	.submit = web_file_submit,
	.forget = store_keeps_nothing,
	.close	= web_file_close,
};

bool web_file_is_lost(struct store *store)
{
	struct web_file *file = (struct web_file *)store;
	bool lost;

	pthread_mutex_lock(&file->lock);
	lost = file->lost;
	pthread_mutex_unlock(&file->lock);
	return lost;
}

/* One byte tells all. */
static int find(struct web_file *file)
{
	char byte;
	struct iovec iov = { &byte, 1 };
	struct store_request request = {
		.key = "its first byte", .cause = CAUSE_HEAD, .count = 1, .iov = &iov,
		.nr_iov = 1,
	};

	if (store_wait(&file->store, STORE_GET, &request) == STORE_DONE)
		return 0;
	return request.reply.error ? request.reply.error : -EIO;
}

int web_file_open(const char *place, const char *url,
		  const struct device_options *options, struct store **store,
		  struct web_version *version)
{
	const struct http_client_options client = {
		.connections = options->s3.connections,
		.ca_bundle = options->s3.ca_bundle,
	};
	struct web_file *file = calloc(1, sizeof(*file));
	int error;

	if (!file || store_init(&file->store, &web_file_ops, place) < 0) {
		free(file);
		return -ENOMEM;
	}
	pthread_mutex_init(&file->lock, NULL);
	atomic_store(&file->store.retry_for, options->retry_for);
	file->origin = strdup(url);
	file->url = strdup(url);
	error = file->origin && file->url ? 0 : -ENOMEM;
	if (!error)
		error = http_client_open(&client, &file->client);
	if (!error)
		error = find(file);
	if (error) {
		store_close(&file->store);
		return error;
	}
	*version = file->version;
	*store = &file->store;
	return 0;
}
