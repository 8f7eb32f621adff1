/* judge.c: what a reply means: done, absent, refused, unknown, transient, failed.
 *
 *	no reply		not sent, or lost on the way
 *	2xx			is it S3's, of what was asked for, and no <Error>?
 *	3xx, wrong clock	redirect.c: put right and sent again
 *	anything else		by the code of its <Error>, else by its status
 *
 * Nothing is done or absent here that the reply does not say in S3's own words. */
#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>

#include "backends/s3/client.h"
#include "src/errors.h"
#include "src/utf8.h"

/* How an error is taken. */
enum kind {
	NONE,		/* not known: by its status */
	ABSENT,		/* of a GET; of an upload */
	REFUSED,	/* the condition did not hold */
	NOT_NOW,	/* surely nothing was changed; worth another try */
	LATER,		/* worth another try; what it was to change may have been */
	FOR_GOOD,
	SIGNATURE,	/* for good before the first success */
	KEYS_WRONG,	/* the same; there may be others by now */
	KEYS_OVER,	/* the keys have expired */
};

struct meaning {
	const char *code;
	enum kind kind;
	int error;
	const char *advice;
};

/* Amazon's "Error responses", and what MinIO and Ceph say besides.  Never ENOENT:
 * that would be taken for absence. */
static const struct meaning meanings[] = {
	{ "NoSuchUpload", ABSENT, 0, "" },
	{ "NoSuchBucket", FOR_GOOD, -ENODEV, "; make the bucket, or correct its name" },
	{ "NoSuchVersion", FOR_GOOD, -ENODATA, "" },
	{ "PreconditionFailed", REFUSED, 0, "" },
	{ "ConditionalRequestConflict", NOT_NOW, -EBUSY, "" },
	{ "OperationAborted", NOT_NOW, -EBUSY, "" },

	{ "SlowDown", LATER, -EAGAIN, "" },
	{ "SlowDownRead", LATER, -EAGAIN, "" },
	{ "SlowDownWrite", LATER, -EAGAIN, "" },
	{ "ServiceUnavailable", LATER, -EAGAIN, "" },
	{ "TooManyRequests", NOT_NOW, -EAGAIN, "" },
	{ "RequestLimitExceeded", NOT_NOW, -EAGAIN, "" },
	{ "Throttling", NOT_NOW, -EAGAIN, "" },
	{ "ThrottlingException", NOT_NOW, -EAGAIN, "" },
	{ "InternalError", LATER, -EREMOTEIO, "" },
	{ "XMinioServerNotInitialized", NOT_NOW, -EAGAIN, "" },
	{ "XMinioStorageFull", LATER, -ENOSPC, "; make room on the server" },
	{ "RequestTimeout", NOT_NOW, -ETIMEDOUT, "" },
	/* MinIO, when it is told to end while it works on a request. */
	{ "ClientDisconnected", LATER, -ECONNRESET, "" },
	{ "IncompleteBody", NOT_NOW, -EBADMSG, "" },
	{ "BadDigest", NOT_NOW, -EBADMSG, "" },
	{ "XAmzContentSHA256Mismatch", NOT_NOW, -EBADMSG, "" },
	{ "XAmzContentChecksumMismatch", NOT_NOW, -EBADMSG, "" },

	{ "SignatureDoesNotMatch", KEYS_WRONG, -EACCES, "; check the secret key" },
	{ "InvalidAccessKeyId", KEYS_WRONG, -EACCES, "; check the access key" },
	{ "AuthorizationHeaderMalformed", SIGNATURE, -EACCES, "; check --region" },
	{ "ExpiredToken", KEYS_OVER, -EKEYEXPIRED, "; get new credentials" },
	{ "ExpiredTokenException", KEYS_OVER, -EKEYEXPIRED, "; get new credentials" },
	{ "InvalidToken", KEYS_OVER, -EKEYEXPIRED, "; get new credentials" },
	{ "TokenRefreshRequired", KEYS_OVER, -EKEYEXPIRED, "; get new credentials" },
	{ "RequestTimeTooSkewed", NOT_NOW, -ETIME, "; set the clock of this machine" },
	{ "AccessDenied", FOR_GOOD, -EACCES, NULL },
	{ "AllAccessDisabled", FOR_GOOD, -EACCES, "" },
	{ "AccountProblem", FOR_GOOD, -EACCES, "" },
	{ "InvalidObjectState", FOR_GOOD, -EACCES,
	  "; it is archived: restore it in the store first" },
	{ "QuotaExceeded", FOR_GOOD, -EDQUOT, "; raise the quota or make room" },
	{ "XMinioAdminBucketQuotaExceeded", FOR_GOOD, -EDQUOT,
	  "; raise the bucket's quota or make room" },
	{ "InvalidRange", FOR_GOOD, -ERANGE, "" },
	{ "EntityTooLarge", FOR_GOOD, -EFBIG, "" },
	{ "NotImplemented", FOR_GOOD, -EOPNOTSUPP, "" },
	{ "MethodNotAllowed", FOR_GOOD, -EOPNOTSUPP, "" },
};

bool s3_call_changes(const struct s3_call *call)
{
	return strcmp(call->method, "GET") != 0 && strcmp(call->method, "HEAD") != 0;
}

void s3_call_says(struct s3_call *call, enum store_outcome outcome, int error,
		  const char *format, ...)
{
	va_list arguments;
	char *c;

	call->outcome = outcome;
	call->error = error;
	va_start(arguments, format);
	vsnprintf(call->message, sizeof(call->message), format, arguments);
	va_end(arguments);
	for (c = call->message; *c; c++)
		if ((unsigned char)*c < ' ' || *c == 0x7f)
			*c = ' ';
	utf8_mend(call->message);
}

void s3_call_is_wrong(struct s3_call *call, const char *why)
{
	s3_call_says(call, s3_call_changes(call) ? STORE_UNKNOWN : STORE_TRANSIENT,
		     -EPROTO, "a wrong reply from %s: %s",
		     s3_client_endpoint(call->client), why);
}

static bool has_succeeded(const struct s3_call *call)
{
	return atomic_load(&call->client->succeeded);
}

/* ---- no reply -------------------------------------------------------------------------- */

static void judge_not_sent(struct s3_call *call)
{
	const struct http_request *http = &call->http;
	const char *endpoint = s3_client_endpoint(call->client);
	enum store_outcome outcome = STORE_TRANSIENT;
	int error = http->error ? http->error : -EIO;
	char trouble[160];

	switch (-error) {
	case ECANCELED:
		s3_call_says(call, STORE_FAILED, error, "cancelled");
		return;
	case EKEYEXPIRED:
		s3_credentials_trouble(call->client->credentials, trouble,
				       sizeof(trouble));
		s3_call_says(call, outcome, error, "the credentials have expired and "
			     "cannot be renewed: %s", trouble);
		return;
	case EINVAL:
	case E2BIG:
		outcome = STORE_FAILED;
		break;
	case ENOENT:		/* no such host; ENOENT would be absence */
		error = -EHOSTUNREACH;
		__attribute__((fallthrough));
	case EACCES:
	case EPROTO:
		if (!has_succeeded(call))
			outcome = STORE_FAILED;
		break;
	default:
		break;
	}
	s3_call_says(call, outcome, error, "%s: %s", endpoint,
		     http->message[0] ? http->message : error_words(error));
}

/* Sent, at least in part; or its reply was cut, or is longer than it may be. */
static void judge_lost(struct s3_call *call)
{
	const struct http_request *http = &call->http;
	bool changes = s3_call_changes(call);
	bool object = call->sink || (call->key && !call->query);
	int error = http->error ? http->error : -EIO;

	if (error == -EFBIG && !changes && object &&
	    !http_headers_find(&call->headers, "Range") && http->status == 200)
		s3_call_says(call, STORE_FAILED, error, "it is longer than it may be");
	else if (error == -EFBIG)
		s3_call_is_wrong(call, "longer than what was asked for");
	else if (error == -ECANCELED && !changes)
		s3_call_says(call, STORE_FAILED, error, "cancelled");
	else
		s3_call_says(call, changes ? STORE_UNKNOWN : STORE_TRANSIENT, error,
			     "%s: %s", s3_client_endpoint(call->client),
			     http->message[0] ? http->message : error_words(error));
}

/* ---- 2xx ------------------------------------------------------------------------------------ */

static bool is_html(const struct http_request *http)
{
	const char *type = http_headers_find(&http->reply, "Content-Type");

	return type && strncasecmp(type, "text/html", 9) == 0;
}

/* Decimal digits at *at, which is set behind them. */
static bool read_number(const char **at, uint64_t *number)
{
	char *end;

	if (!isdigit((unsigned char)**at))
		return false;
	errno = 0;
	*number = strtoull(*at, &end, 10);
	*at = end;
	return errno == 0;
}

/* "bytes FIRST-LAST/SIZE". */
static bool parse_content_range(const char *text, uint64_t *first, uint64_t *last,
				uint64_t *size)
{
	if (strncasecmp(text, "bytes ", 6) != 0)
		return false;
	text += 6;
	if (!read_number(&text, first) || *text++ != '-' || !read_number(&text, last) ||
	    *text++ != '/' || !read_number(&text, size))
		return false;
	return !*text && *first <= *last && *last < *size;
}

/* Of the content, whether its length was said beforehand or not (chunked). */
static uint64_t content_count(const struct http_request *http)
{
	return http->length != UINT64_MAX ? http->length : http->sunk;
}

uint64_t s3_object_size(const struct s3_call *call)
{
	const struct http_request *http = &call->http;
	const char *range = http_headers_find(&http->reply, "Content-Range");
	uint64_t first, last, size;

	if (http->status == 200 && (http->length != UINT64_MAX || call->sink))
		return content_count(http);
	if (!range)
		return UINT64_MAX;
	if (http->status == 416 && strncasecmp(range, "bytes */", 8) == 0) {
		range += 8;
		return read_number(&range, &size) && !*range ? size : UINT64_MAX;
	}
	return parse_content_range(range, &first, &last, &size) ? size : UINT64_MAX;
}

/* "bytes=FIRST-LAST" was asked for.  NULL, or what is wrong with the answer. */
static const char *wrong_range(const struct s3_call *call, const char *asked)
{
	const struct http_request *http = &call->http;
	const char *range = http_headers_find(&http->reply, "Content-Range");
	uint64_t asked_first, asked_last, first, last, size;

	asked += strlen("bytes=");
	if (!read_number(&asked, &asked_first) || *asked++ != '-' ||
	    !read_number(&asked, &asked_last))
		return NULL;		/* a form that only the caller can check */
	/* The whole, when the whole was asked for, is right too. */
	if (http->status == 200)
		return asked_first == 0 && content_count(http) == asked_last + 1
			       ? NULL : "the whole object instead of a range";
	if (http->status != 206 || !range ||
	    !parse_content_range(range, &first, &last, &size))
		return "no word of which range it is";
	if (asked_last >= size)
		asked_last = size - 1;
	if (first != asked_first || last != asked_last)
		return "another range than was asked for";
	return content_count(http) == last - first + 1 ? NULL
						       : "a length that is not its range's";
}

/* NULL, or why this is not what S3 answers to a GET or HEAD of an object. */
static const char *wrong_object(const struct s3_call *call)
{
	const struct http_request *http = &call->http;
	const char *etag = http_headers_find(&http->reply, "ETag");
	const char *match = http_headers_find(&call->headers, "If-Match");
	const char *range = http_headers_find(&call->headers, "Range");
	const char *why = NULL;

	/* A page that asks to log in to the network may carry an ETag, too. */
	if (!etag || (is_html(http) && !http_headers_find(&http->reply,
							  "x-amz-request-id")))
		return "not an object's";
	if (strlen(etag) >= STORE_TAG_MAX)
		return "an ETag that is too long";
	if (match && strcmp(match, etag) != 0)
		return "another version than was asked for (ETag)";
	if (strcmp(call->method, "GET") != 0)
		return NULL;
	if (range && strncmp(range, "bytes=", 6) == 0)
		why = wrong_range(call, range);
	else if (http->status != 200)
		why = "a part of what was asked for";
	if (!why && call->sink && http->sunk != content_count(http))
		why = "a length that is not the content's";
	return why;
}

static bool reads_object(const struct s3_call *call)
{
	bool of_object = call->key && (!call->query || strncmp(call->query, "versionId=",
							       10) == 0);

	return of_object && !s3_call_changes(call);
}

/* NULL, or why this is not what S3 answers to what was asked. */
static const char *wrong_success(const struct s3_call *call)
{
	const struct http_request *http = &call->http;
	const char *etag;

	if (reads_object(call))
		return wrong_object(call);
	if (is_html(http))
		return "a web page";
	if (strcmp(call->method, "PUT") == 0 && call->key &&
	    !http_headers_find(&call->headers, "x-amz-copy-source")) {
		etag = http_headers_find(&http->reply, "ETag");
		if (!etag || !*etag || strlen(etag) >= STORE_TAG_MAX)
			return "no ETag of what was put";
	}
	return NULL;
}

bool s3_is_minio(const struct s3_call *call)
{
	const char *server = http_headers_find(&call->http.reply, "Server");

	return server && strncmp(server, "MinIO", 5) == 0;
}

/* ---- errors -------------------------------------------------------------------------------------- */

static const struct meaning *find_meaning(const char *code)
{
	size_t i;

	for (i = 0; i < sizeof(meanings) / sizeof(meanings[0]); i++)
		if (strcmp(meanings[i].code, code) == 0)
			return &meanings[i];
	return NULL;
}

/* What is there instead of an <Error>: a web page, or other words of a server that is
 * none of S3's?  XML that cannot be read, or a 404 with nothing behind it, is what is
 * left of an <Error> that was damaged on its way. */
static bool is_of_a_stranger(const struct http_request *http)
{
	const char *type = http_headers_find(&http->reply, "Content-Type");

	if (is_html(http))
		return true;
	if (http_headers_find(&http->reply, "x-amz-request-id") ||
	    (type && strstr(type, "/xml")))
		return false;
	return http->text_count ? *http->text != '<' : http->status != 404;
}

/* Of a 4xx that does not say more. */
static enum kind kind_of_4xx(const struct s3_call *call, bool said_by_s3)
{
	if (said_by_s3)
		return FOR_GOOD;
	return is_of_a_stranger(&call->http) ? SIGNATURE : LATER;
}

/* By the status alone: a code that is not known, or no <Error> at all. */
static struct meaning status_meaning(const struct s3_call *call, bool said_by_s3)
{
	struct meaning meaning = { "", kind_of_4xx(call, said_by_s3), -EIO, "" };
	int status = call->http.status;

	if (status == 412) {
		meaning.kind = REFUSED;
	} else if (status == 408) {
		meaning.kind = LATER;
		meaning.error = -ETIMEDOUT;
	} else if (status == 499) {	/* nginx's and MinIO's: it thinks we have gone */
		meaning.kind = LATER;
		meaning.error = -ECONNRESET;
	} else if (status == 429) {
		meaning.kind = NOT_NOW;
		meaning.error = -EAGAIN;
	} else if (status == 501) {
		meaning.kind = FOR_GOOD;
		meaning.error = -EOPNOTSUPP;
	} else if (status < 400 || status >= 500) {
		meaning.kind = LATER;
		meaning.error = -EREMOTEIO;
	} else if (status == 401 || status == 403) {
		meaning.error = -EACCES;
	} else if (status == 404) {
		meaning.error = -ENODATA;
	} else if (status == 409) {
		meaning.kind = NOT_NOW;
		meaning.error = -EBUSY;
	}
	return meaning;
}

/* NoSuchKey is absence to who reads, and a condition that did not hold to who
 * writes over what is there. */
static struct meaning no_such_key(const struct s3_call *call)
{
	struct meaning meaning = { "", FOR_GOOD, -ENODATA, "" };

	if (strcmp(call->method, "GET") == 0 && call->http.status == 404)
		meaning.kind = ABSENT;
	else if (s3_call_changes(call) && http_headers_find(&call->headers, "If-Match"))
		meaning.kind = REFUSED;
	return meaning;
}

static struct meaning meaning_of(const struct s3_call *call, bool said_by_s3)
{
	const struct meaning *found;

	if (strcmp(call->code, "NoSuchKey") == 0)
		return no_such_key(call);
	found = find_meaning(call->code);
	return found ? *found : status_meaning(call, said_by_s3);
}

/* Whether keys that have expired can be others soon. */
static bool keys_will_come(const struct s3_call *call)
{
	struct s3_keys keys;
	bool come;

	s3_credentials_refused(call->client->credentials, call->generation);
	come = s3_credentials_get(call->client->credentials, &keys) != 0 ||
	       keys.expires || keys.generation != call->generation;
	explicit_bzero(&keys, sizeof(keys));
	return come;
}

static enum store_outcome outcome_of(const struct s3_call *call, enum kind kind)
{
	bool changes = s3_call_changes(call);

	switch (kind) {
	case ABSENT:
		return STORE_ABSENT;
	case REFUSED:
		/* The refusal of what libcurl sent a second time may be the answer
		 * to the success of the first. */
		return changes && call->http.resent ? STORE_UNKNOWN : STORE_REFUSED;
	case LATER:
		return changes ? STORE_UNKNOWN : STORE_TRANSIENT;
	case NOT_NOW:
		return STORE_TRANSIENT;
	case KEYS_WRONG:	/* somebody may have put new ones in their place */
		s3_credentials_refused(call->client->credentials, call->generation);
		__attribute__((fallthrough));
	case SIGNATURE:
		return has_succeeded(call) ? STORE_TRANSIENT : STORE_FAILED;
	case KEYS_OVER:
		return keys_will_come(call) || has_succeeded(call) ? STORE_TRANSIENT
								   : STORE_FAILED;
	case NONE:
	case FOR_GOOD:
		break;
	}
	return STORE_FAILED;
}

static const char *advice_of(const struct s3_call *call, const struct meaning *meaning,
			     const struct s3_error *error, bool said_by_s3)
{
	if (meaning->kind == SIGNATURE && !said_by_s3)
		return "; that is not how S3 answers: check --endpoint-url";
	if (!said_by_s3 && call->http.status / 100 == 4 && !*meaning->advice)
		return ", and no word of S3's why: was it damaged on its way? check --endpoint-url";
	/* InvalidRequest, as many others */
	if (strstr(error->message, "form of Server Side Encryption"))
		return "; name the key that it was stored with: --sse-c-key-file";
	if (meaning->advice)
		return meaning->advice;
	/* AccessDenied */
	if (*call->client->sse_c_key && call->key)
		return "; the keys lack s3:GetObject or s3:PutObject, or it was stored "
		       "with another key than --sse-c-key-file has";
	if (strcmp(call->method, "GET") == 0 && call->key)
		return "; the keys need s3:GetObject, and s3:ListBucket to be told "
		       "that an object is missing";
	return "; the keys lack a right that this needs";
}

static void judge_error(struct s3_call *call, const struct s3_error *error,
			bool said_by_s3)
{
	struct meaning meaning;
	enum store_outcome outcome;

	snprintf(call->code, sizeof(call->code), "%s", said_by_s3 ? error->code : "");
	/* There is no room for an <Error> in the reply to a HEAD. */
	said_by_s3 |= strcmp(call->method, "HEAD") == 0;
	meaning = meaning_of(call, said_by_s3);
	outcome = outcome_of(call, meaning.kind);
	if (outcome == STORE_UNKNOWN && !meaning.error)
		meaning.error = -EIO;
	s3_call_says(call, outcome, meaning.error, "%d%s%s%s%.100s%s", call->http.status,
		     call->code[0] ? " " : "", call->code,
		     said_by_s3 && error->message[0] ? ": " : "",
		     said_by_s3 ? error->message : "",
		     advice_of(call, &meaning, error, said_by_s3));
}

/* ---- all of it ------------------------------------------------------------------------------------- */

/* "Sun, 06 Nov 1994 08:49:37 GMT", whatever the locale. */
uint64_t s3_date(const char *text)
{
	static const char months[] = "JanFebMarAprMayJunJulAugSepOctNovDec";
	const char *comma = text ? strchr(text, ',') : NULL, *found;
	struct tm tm = { 0 };
	char month[4];
	time_t when;

	if (!comma || sscanf(comma + 1, "%2d %3[A-Za-z] %4d %2d:%2d:%2d", &tm.tm_mday,
			     month, &tm.tm_year, &tm.tm_hour, &tm.tm_min, &tm.tm_sec) != 6)
		return 0;
	found = strstr(months, month);
	if (!found || strlen(month) != 3 || (found - months) % 3)
		return 0;
	tm.tm_mon = (int)(found - months) / 3;
	tm.tm_year -= 1900;
	when = timegm(&tm);
	return when > 0 ? (uint64_t)when : 0;
}

static void note_clock(struct s3_call *call)
{
	uint64_t date = s3_date(http_headers_find(&call->http.reply, "Date"));

	if (date)
		atomic_store(&call->client->ahead, (int64_t)date - (int64_t)time(NULL));
}

enum s3_verdict s3_judge(struct s3_call *call)
{
	struct http_request *http = &call->http;
	struct s3_error error = { "", "", "", "" };
	const char *wrong;
	bool succeeds = http->status / 100 == 2, said_by_s3;

	if (http->failure == HTTP_NOT_SENT) {
		judge_not_sent(call);
		return S3_JUDGED;
	}
	if (http->failure == HTTP_LOST || http->error) {
		judge_lost(call);
		return S3_JUDGED;
	}
	note_clock(call);
	/* An <Error> can come with 200, too: Complete and copies answer early.  But what
	 * stands in an object is its owner's word. */
	said_by_s3 = http->text && !(succeeds && reads_object(call)) &&
		     s3_xml_error(http->text, http->text_count, &error);
	if (succeeds && !said_by_s3) {
		wrong = wrong_success(call);
		if (wrong)
			s3_call_is_wrong(call, wrong);
		else
			s3_call_says(call, STORE_DONE, 0, "%s", "");
	} else if (s3_redirected(call, &error)) {
		return S3_AGAIN;
	} else if (!call->message[0]) {
		judge_error(call, &error, said_by_s3);
	}
	if (call->outcome == STORE_DONE || call->outcome == STORE_ABSENT ||
	    call->outcome == STORE_REFUSED)
		atomic_store(&call->client->succeeded, true);
	return S3_JUDGED;
}
