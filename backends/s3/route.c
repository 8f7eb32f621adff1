/* route.c: which host, path and region a bucket's requests go to.
 *
 * An endpoint given by the user stays; only its region may turn out to be another.
 * Amazon's own hosts follow the region. */
#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "backends/s3/client.h"
#include "src/log.h"

/* ---- hosts ------------------------------------------------------------------- */

static bool has_suffix(const char *text, const char *suffix)
{
	size_t length = strlen(text), end = strlen(suffix);

	return length >= end && strcasecmp(text + length - end, suffix) == 0;
}

/* Copies @authority without its port. */
static void host_of(const char *authority, char host[S3_HOST_MAX])
{
	const char *end = strrchr(authority, ':');

	if (*authority == '[')
		end = strchr(authority, ']') ? strchr(authority, ']') + 1 : NULL;
	snprintf(host, S3_HOST_MAX, "%.*s",
		 (int)(end ? (size_t)(end - authority) : strlen(authority)), authority);
}

static bool is_address(const char *host)
{
	struct in_addr address;

	return *host == '[' || inet_pton(AF_INET, host, &address) == 1;
}

/* This machine itself: nobody stands between. */
static bool is_loopback(const char *host)
{
	struct in_addr address;

	if (inet_pton(AF_INET, host, &address) == 1)
		return ntohl(address.s_addr) >> 24 == 127;
	return strcmp(host, "[::1]") == 0 || strcasecmp(host, "localhost") == 0;
}

static bool is_amazon(const char *host)
{
	return has_suffix(host, ".amazonaws.com") || has_suffix(host, ".amazonaws.com.cn");
}

bool s3_host_is_trusted(const struct s3_route *route, const char *bucket,
			const char *authority)
{
	char own[S3_HOST_MAX], host[S3_HOST_MAX], below[S3_HOST_MAX + 1];
	size_t length = strlen(bucket);

	host_of(route->host, own);
	host_of(authority, host);
	if (strcasecmp(own, host) == 0)
		return true;
	if (is_address(own) || is_address(host))
		return false;
	if (is_amazon(own) && is_amazon(host))
		return true;
	/* The endpoint may have been given with the bucket before it. */
	if (strncasecmp(own, bucket, length) == 0 && own[length] == '.')
		memmove(own, own + length + 1, strlen(own + length + 1) + 1);
	snprintf(below, sizeof(below), ".%s", own);
	return strchr(own, '.') && (strcasecmp(own, host) == 0 || has_suffix(host, below));
}

/* Letters, digits, '.', '-', '_'; [address]; an optional :port. */
static bool authority_is_good(const char *text)
{
	const char *port = strrchr(text, ':'), *c;
	size_t length;

	if (*text == '[') {
		length = strspn(text + 1, "0123456789abcdefABCDEF:.");
		if (!length || text[length + 1] != ']')
			return false;
		port = text + length + 2;
		if (!*port)
			return true;
	} else {
		for (c = text; *c && c != port; c++)
			if (!isalnum((unsigned char)*c) && !strchr(".-_", *c))
				return false;
		if (c == text)
			return false;
	}
	return !port || (*port == ':' && port[1] && strlen(port) <= 6 &&
			 strspn(port + 1, "0123456789") == strlen(port + 1));
}

/* ---- endpoints ----------------------------------------------------------------- */

static void describe(struct s3_route *route)
{
	char host[S3_HOST_MAX];

	host_of(route->host, host);
	route->signs_payload = !route->tls && !is_loopback(host);
	snprintf(route->endpoint, sizeof(route->endpoint), "%s://%s%s",
		 route->tls ? "https" : "http", route->host, route->base);
}

static void amazon_host(struct s3_route *route, bool dual_stack)
{
	snprintf(route->host, sizeof(route->host), "s3.%s%s.amazonaws.com%s",
		 dual_stack ? "dualstack." : "", route->region,
		 strncmp(route->region, "cn-", 3) == 0 ? ".cn" : "");
	describe(route);
}

/* The port that goes without saying is not said in the Host header either. */
static void drop_default_port(struct s3_route *route)
{
	const char *port = route->tls ? ":443" : ":80";

	if (has_suffix(route->host, port))
		route->host[strlen(route->host) - strlen(port)] = 0;
}

static int parse_endpoint(struct s3_route *route, const char *url)
{
	const char *authority, *path;
	size_t length;

	route->tls = strncasecmp(url, "https://", 8) == 0;
	if (!route->tls && strncasecmp(url, "http://", 7) != 0)
		return -EINVAL;
	authority = url + (route->tls ? 8 : 7);
	length = strcspn(authority, "/?#");
	path = authority + length;
	if (length >= sizeof(route->host) || strlen(path) >= sizeof(route->base))
		return -EINVAL;
	memcpy(route->host, authority, length);
	if (!authority_is_good(route->host))
		return -EINVAL;
	if (strspn(path, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
		   "0123456789-._~/") != strlen(path) || strstr(path, "//"))
		return -EINVAL;
	strcpy(route->base, path);
	length = strlen(route->base);
	if (length && route->base[length - 1] == '/')
		route->base[length - 1] = 0;
	drop_default_port(route);
	describe(route);
	return 0;
}

/* A bucket's name can stand before the host when it is a name of DNS; with a dot
 * in it no certificate for *.host fits. */
static bool can_be_virtual(const char *bucket, bool tls)
{
	size_t length = strlen(bucket);

	if (length < 3 || length > 63 || !isalnum((unsigned char)bucket[0]) ||
	    !isalnum((unsigned char)bucket[length - 1]))
		return false;
	if (tls && strchr(bucket, '.'))
		return false;
	return !strstr(bucket, "..") &&
	       strspn(bucket, "abcdefghijklmnopqrstuvwxyz0123456789-.") == length;
}

bool s3_endpoint_is_good(const char *url)
{
	struct s3_route route = { .region = "" };

	return parse_endpoint(&route, url) == 0;
}

bool s3_region_is_good(const char *region)
{
	size_t length = strlen(region);

	return length && length < sizeof(((struct s3_route *)0)->region) &&
	       strspn(region, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
		      "0123456789-_") == length;
}

int s3_route_open(struct s3_client *client, const char *url, const char *region,
		  enum s3_addressing addressing)
{
	struct s3_route *route;

	if (!s3_region_is_good(region)) {
		log_error("%s: %s is no region", client->place, region);
		return -EINVAL;
	}
	route = calloc(1, sizeof(*route));
	if (!route)
		return -ENOMEM;
	strcpy(route->region, region);
	route->tls = route->amazon = !url;
	if (!url) {
		amazon_host(route, client->options.dual_stack);
	} else if (parse_endpoint(route, url) < 0) {
		log_error("%s: the endpoint %s is not http://HOST[:PORT] or "
			  "https://HOST[:PORT]", client->place, url);
		free(route);
		return -EINVAL;
	}
	route->is_virtual = addressing == S3_VIRTUAL ||
			    (addressing == S3_ADDRESSING_AUTO && !url &&
			     can_be_virtual(client->bucket, route->tls));
	atomic_store(&client->route, route);
	return 0;
}

int s3_route_learn(struct s3_client *client, const struct s3_route *from,
		   const char *region, const char *host)
{
	const struct s3_route *now;
	struct s3_route *route = calloc(1, sizeof(*route));
	int error = 0;

	if (!route)
		return -ENOMEM;
	pthread_mutex_lock(&client->lock);
	now = atomic_load(&client->route);
	*route = *from;
	route->older = now;
	route->nr_older = now->nr_older + 1;
	if (region)
		snprintf(route->region, sizeof(route->region), "%s", region);
	if (host) {
		snprintf(route->host, sizeof(route->host), "%s", host);
		route->amazon = false;
		drop_default_port(route);
		describe(route);
	} else if (route->amazon) {
		amazon_host(route, client->options.dual_stack);
	}
	/* Another call may have learned the same a moment ago. */
	if (strcmp(now->region, route->region) == 0 && strcmp(now->host, route->host) == 0)
		error = 1;
	else if (route->nr_older >= S3_ROUTES_MAX)
		error = -ELOOP;
	else
		atomic_store(&client->route, route);
	pthread_mutex_unlock(&client->lock);
	if (error)
		free(route);
	else
		log_notice("%s: the bucket is in region %s: using %s", client->place,
			   route->region, route->endpoint);
	return error > 0 ? 0 : error;
}

void s3_route_close(struct s3_client *client)
{
	const struct s3_route *route = atomic_load(&client->route), *older;

	for (; route; route = older) {
		older = route->older;
		free((void *)(uintptr_t)route);
	}
}
