/* redirect.c: a server that says to ask elsewhere, or at another time.
 *
 *	301, 400, 403 naming another region	remembered for all calls
 *	301 naming another host			remembered
 *	307, 302, 308 to another host		for this call only
 *	RequestTimeTooSkewed			our clock is put right, once a call
 *
 * Only by the same scheme, and never to a host that the endpoint's owner does not
 * own: the session token and the key of SSE-C go along. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>

#include "backends/s3/client.h"
#include "src/log.h"

#define SKEW_SAME 2	/* seconds: not another clock, just the way */

/* ---- the clock ------------------------------------------------------------------- */

static bool clock_put_right(struct s3_call *call)
{
	struct s3_client *client = call->client;
	uint64_t date = s3_date(http_headers_find(&call->http.reply, "Date"));
	int64_t skew = (int64_t)date - (int64_t)time(NULL);
	int64_t old = atomic_load(&client->skew);

	if (!date || call->clock_was_set ||
	    (skew - old <= SKEW_SAME && old - skew <= SKEW_SAME))
		return false;
	call->clock_was_set = true;
	if (atomic_exchange(&client->skew, skew) == old)
		log_notice("%s: the clock of %s is %lld s %s ours: following it",
			   client->place, s3_client_endpoint(client),
			   (long long)(skew < 0 ? -skew : skew),
			   skew < 0 ? "behind" : "ahead of");
	return true;
}

/* ---- the region -------------------------------------------------------------------- */

static bool region_is_good(const char *region)
{
	size_t length = strlen(region);

	return length && length < S3_REGION_MAX &&
	       strspn(region, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
		      "0123456789-_") == length;
}

/* The region that the reply names and that is not the one signed for, or NULL. */
static const char *other_region(const struct s3_call *call, const struct s3_error *error)
{
	const char *region = http_headers_find(&call->http.reply, "x-amz-bucket-region");

	if (!region || !*region)
		region = error->region;
	if (!region_is_good(region) || strcmp(region, call->route->region) == 0)
		return NULL;
	return region;
}

static bool follow_region(struct s3_call *call, const char *region)
{
	if (s3_route_learn(call->client, call->route, region, NULL) < 0)
		return false;
	free(call->other_host);
	call->other_host = NULL;
	return true;
}

/* ---- the host ------------------------------------------------------------------------ */

/* The HOST[:PORT] of where a reply points to; the scheme must be the same. */
static bool target_host(const struct s3_call *call, const struct s3_error *error,
			char host[S3_HOST_MAX])
{
	const char *location = http_headers_find(&call->http.reply, "Location");
	const char *scheme = call->route->tls ? "https://" : "http://";
	size_t length;

	if (location && strncasecmp(location, scheme, strlen(scheme)) == 0)
		location += strlen(scheme);
	else if (location && strstr(location, "://"))
		return false;
	else
		location = error->endpoint;
	length = strcspn(location, "/?#");
	if (!length || length >= S3_HOST_MAX || memchr(location, '@', length))
		return false;
	memcpy(host, location, length);
	host[length] = 0;
	return true;
}

/* What a redirect names has the bucket before it when ours has, too. */
static bool fits_addressing(const struct s3_call *call, const char *host)
{
	const char *bucket = call->client->bucket;
	size_t length = strlen(bucket);
	bool has_bucket = strncasecmp(host, bucket, length) == 0 && host[length] == '.';

	return has_bucket == call->route->is_virtual;
}

static bool follow_host(struct s3_call *call, const char *host)
{
	size_t skip = call->route->is_virtual ? strlen(call->client->bucket) + 1 : 0;

	if (call->http.status == 301)
		return s3_route_learn(call->client, call->route, NULL, host + skip) == 0;
	free(call->other_host);
	call->other_host = strdup(host);
	return call->other_host;
}

static bool redirected_to_host(struct s3_call *call, const struct s3_error *error)
{
	char host[S3_HOST_MAX];
	const char *now = call->host;

	if (!target_host(call, error, host)) {
		s3_call_says(call, STORE_FAILED, -EPROTO, "%s redirects to somewhere that "
			     "cannot be followed; check --endpoint-url",
			     call->route->endpoint);
		return false;
	}
	if (!s3_host_is_trusted(call->route, call->client->bucket, host)) {
		s3_call_says(call, STORE_FAILED, -EPROTO, "%s redirects to %.80s, which is "
			     "not of its domain; give --endpoint-url with it if it is "
			     "yours", call->route->endpoint, host);
		return false;
	}
	if (!fits_addressing(call, host) || strcasecmp(now, host) == 0) {
		s3_call_says(call, STORE_FAILED, -EPROTO, "%s redirects to %.80s, which "
			     "helps nothing; try --addressing %s", call->route->endpoint,
			     host, call->route->is_virtual ? "path" : "virtual");
		return false;
	}
	return follow_host(call, host);
}

bool s3_redirected(struct s3_call *call, const struct s3_error *error)
{
	int status = call->http.status;
	const char *region;
	bool skewed = strcmp(error->code, "RequestTimeTooSkewed") == 0 ||
		      strcmp(error->code, "RequestInTheFuture") == 0;

	if (call->redirects >= S3_REDIRECTS_MAX)
		return false;
	call->redirects++;
	if (skewed)
		return clock_put_right(call);
	if (status != 301 && status != 302 && status != 307 && status != 308 &&
	    status != 400 && status != 403)
		return false;
	region = other_region(call, error);
	if (region && follow_region(call, region))
		return true;
	return status / 100 == 3 && redirected_to_host(call, error);
}
