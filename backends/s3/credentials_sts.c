/* credentials_sts.c: keys of a role, from Amazon's Security Token Service or
 * another that speaks like it (MinIO does). */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "backends/s3/credentials_find.h"
#include "backends/s3/sign.h"
#include "backends/s3/xml.h"
#include "src/clock.h"

#define PATIENCE	(8 * CLOCK_SECOND)	/* of one try */
#define TRIES		3
#define SKEW_ALLOWED	240	/* s; STS refuses at 300 */
#define URL_MAX		512

/* One call: its form is the body. */
struct call {
	struct search *search;
	const struct role *role;
	const char *action;		/* "AssumeRole" */
	const struct s3_keys *caller;	/* who signs; NULL: nobody */
	char url[URL_MAX];
	char *form;
	size_t count;
	/* A part each of url, for signing. */
	char host[URL_MAX], path[URL_MAX];
};

/* ---- the form ------------------------------------------------------------- */

/* Adds NAME=VALUE; NULL: not given. */
static int form_add(struct call *call, const char *name, const char *value)
{
	size_t room = value ? call->count + strlen(name) + 3 * strlen(value) + 3 : 0;
	char *form;
	int length;

	if (!value)
		return 0;
	form = malloc(room);
	if (!form)
		return search_fails(call->search, -ENOMEM, "no memory");
	length = snprintf(form, room, "%s%s%s=", call->form ? call->form : "",
			  call->form ? "&" : "", name);
	length += s3_encode(value, false, form + length, room - (size_t)length);
	if (call->form)
		explicit_bzero(call->form, call->count);
	free(call->form);
	call->form = form;
	call->count = (size_t)length;
	return 0;
}

static int form_begin(struct call *call)
{
	const struct role *role = call->role;
	char session[40];
	int error;

	snprintf(session, sizeof(session), "objmap-%lld", (long long)time(NULL));
	error = form_add(call, "Action", call->action);
	if (!error)
		error = form_add(call, "Version", "2011-06-15");
	if (!error)
		error = form_add(call, "RoleArn", role->arn);
	if (!error)
		error = form_add(call, "RoleSessionName",
				 role->session ? role->session : session);
	if (!error)
		error = form_add(call, "DurationSeconds", role->duration);
	return error;
}

static void form_end(struct call *call)
{
	if (call->form)
		explicit_bzero(call->form, call->count);
	free(call->form);
}

/* ---- where it goes -------------------------------------------------------- */

/* "https://HOST[:PORT][/PATH]", or Amazon's own of the region. */
static int call_address(struct call *call)
{
	const char *endpoint = call->role->endpoint, *region = call->role->region, *host;
	size_t length;

	if (endpoint)
		length = (size_t)snprintf(call->url, URL_MAX, "%s", endpoint);
	else if (!region)
		length = (size_t)snprintf(call->url, URL_MAX, "https://sts.amazonaws.com");
	else
		length = (size_t)snprintf(call->url, URL_MAX, "https://sts.%s.amazonaws.com%s",
					  region, strncmp(region, "cn-", 3) ? "" : ".cn");
	host = strstr(call->url, "://");
	if (length >= URL_MAX - 1 || !host || strpbrk(call->url, "?# ") ||
	    (strncmp(call->url, "https:", 6) != 0 && strncmp(call->url, "http:", 5) != 0))
		return search_fails(call->search, -EINVAL, "STS: %s is no endpoint: give "
				    "https://HOST[:PORT]", call->url);
	host += 3;
	length = strcspn(host, "/");
	memcpy(call->host, host, length);
	call->host[length] = 0;
	if (!host[length])
		strcat(call->url, "/");
	snprintf(call->path, URL_MAX, "%s", host + length);
	return 0;
}

static int call_sign(struct call *call, struct http_request *request, int64_t skew)
{
	const struct iovec body = { call->form, call->count };
	const struct s3_scope scope = {
		call->role->region ? call->role->region : "us-east-1", "sts",
		(uint64_t)((int64_t)time(NULL) + skew),
	};
	struct s3_signing_key *key = s3_signing_key_new();
	char hash[S3_HASH_SIZE];
	int error = -ENOMEM;

	s3_payload_hash(&body, 1, hash);
	if (key)
		error = s3_sign(key, call->caller, &scope, "POST", call->host, call->path,
				"", hash, &request->headers);
	s3_signing_key_free(key);
	return error;
}

/* ---- the reply ------------------------------------------------------------ */

static int text_of(const struct call *call, const struct http_request *request,
		   const char *element, char *value, size_t room)
{
	char document[64], path[128];

	snprintf(document, sizeof(document), "%sResponse", call->action);
	snprintf(path, sizeof(path), "%sResult/Credentials/%s", call->action, element);
	return s3_xml_text(request->text, request->text_count, document, path, value,
			   room);
}

static int call_take(const struct call *call, const struct http_request *request,
		     struct s3_keys *keys)
{
	char expiration[64];
	int error = -EBADMSG;

	memset(keys, 0, sizeof(*keys));
	if (request->text)
		error = text_of(call, request, "AccessKeyId", keys->id, sizeof(keys->id));
	if (!error)
		error = text_of(call, request, "SecretAccessKey", keys->secret,
				sizeof(keys->secret));
	if (!error)
		error = text_of(call, request, "SessionToken", keys->token,
				sizeof(keys->token));
	if (!error)
		error = text_of(call, request, "Expiration", expiration,
				sizeof(expiration));
	if (!error)
		error = s3_xml_time(expiration, &keys->expires);
	if (error || !keys->id[0] || !keys->secret[0])
		return search_fails(call->search, -EBADMSG, "%s at %s: the reply is not "
				    "STS's", call->action, call->url);
	return 0;
}

static int call_refused(const struct call *call, const struct http_request *request)
{
	struct s3_error error;

	if (request->text && s3_xml_error(request->text, request->text_count, &error))
		return search_fails(call->search, -EACCES, "%s of %s at %s: %s: %s",
				    call->action, call->role->arn, call->url, error.code,
				    error.message);
	return search_fails(call->search, request->status >= 500 ? -EIO : -EACCES,
			    "%s of %s at %s: HTTP status %d", call->action,
			    call->role->arn, call->url, request->status);
}

static int call_once(struct call *call, struct s3_keys *keys, int64_t skew)
{
	const struct iovec body = { call->form, call->count };
	struct http_request request = {
		.method = "POST", .body = &body, .nr_body = 1, .body_count = body.iov_len,
		.url = strdup(call->url),
	};
	struct http_client *client = search_web_client(call->search);
	char why[sizeof(call->search->why)];
	int error;

	if (!client)
		error = -EIO;
	else if (!request.url ||
		 http_headers_add(&request.headers, "Content-Type",
				  "application/x-www-form-urlencoded; charset=utf-8") ||
		 (call->caller && call_sign(call, &request, skew)))
		error = search_fails(call->search, -ENOMEM, "no memory");
	else
		error = search_fetch(call->search, client, &request, PATIENCE, TRIES);
	if (error && client) {
		snprintf(why, sizeof(why), "%s", call->search->why);
		search_fails(call->search, error, "%s at %s: %.512s", call->action,
			     call->url, why);
	} else if (!error && request.status == 200) {
		error = call_take(call, &request, keys);
	} else if (!error) {
		error = call_refused(call, &request);
	}
	if (request.text)
		explicit_bzero(request.text, request.text_count);
	http_request_free(&request);
	return error;
}

/* A signature by a wrong clock is refused, and the reply says what time it is. */
static int call_run(struct call *call, struct s3_keys *keys)
{
	int64_t skew;
	int error = call_address(call);

	if (!error)
		error = call_once(call, keys, 0);
	skew = call->search->skew;
	if (error == -EACCES && call->caller &&
	    (skew > SKEW_ALLOWED || skew < -SKEW_ALLOWED))
		error = call_once(call, keys, skew);
	return error;
}

int keys_by_assume_role(struct search *search, struct s3_keys *keys,
			const struct role *role, const struct s3_keys *caller)
{
	struct call call = {
		.search = search, .role = role, .action = "AssumeRole", .caller = caller,
	};
	int error = form_begin(&call);

	if (!error)
		error = form_add(&call, "ExternalId", role->external_id);
	if (!error)
		error = call_run(&call, keys);
	form_end(&call);
	return error;
}

int keys_by_web_identity(struct search *search, struct s3_keys *keys,
			 const struct role *role, const char *token_file)
{
	struct call call = {
		.search = search, .role = role, .action = "AssumeRoleWithWebIdentity",
	};
	char *token;
	int error = secret_file_read(search, token_file, &token);

	if (error)
		return error;
	error = form_begin(&call);
	if (!error)
		error = form_add(&call, "WebIdentityToken", token);
	explicit_bzero(token, strlen(token));
	free(token);
	if (!error)
		error = call_run(&call, keys);
	form_end(&call);
	return error;
}
