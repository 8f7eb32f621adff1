/* credentials_metadata.c: keys from the container or the machine we run in.
 *
 * Both are small HTTP services on an address of this machine's own network.  Where
 * they are not there, nothing answers, and that is found out within a second.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "backends/s3/credentials_find.h"
#include "backends/s3/profile.h"
#include "src/clock.h"

#define URL_MAX		512
#define BASE_MAX	256
#define ROLE_MAX	65	/* IAM: 64 characters */
#define TOKEN_MAX	256
#define FIRST_PATIENCE	(1 * CLOCK_SECOND)	/* is it there? */
#define PATIENCE	(5 * CLOCK_SECOND)
#define TRIES		3

/* One request with one header of its own; *text is malloc'ed.  -ENODATA: 404. */
static int metadata_get(struct search *search, const char *method, const char *url,
			const char *header, const char *value, unsigned int tries,
			char **text)
{
	struct http_request request = { .method = method, .url = strdup(url) };
	struct http_client *client = search_metadata_client(search);
	char why[sizeof(search->why)];
	int error = 0;

	*text = NULL;
	if (!client)
		error = -EIO;
	else if (!request.url)
		error = search_fails(search, -ENOMEM, "no memory");
	else if (header && http_headers_add(&request.headers, header, value))
		error = search_fails(search, -EINVAL, "%s: the token for it has a line "
				     "break or another character that none can have", url);
	if (error)
		goto out;
	error = search_fetch(search, client, &request,
			     tries == 1 ? FIRST_PATIENCE : PATIENCE, tries);
	if (error) {
		snprintf(why, sizeof(why), "%s", search->why);
		error = search_fails(search, error, "%s: %.512s", url, why);
	} else if (request.status != 200) {
		error = search_fails(search, request.status == 404 ? -ENODATA :
				     request.status >= 500 ? -EIO : -EACCES,
				     "%s: HTTP status %d", url, request.status);
	} else {
		*text = request.text ? request.text : strdup("");
		request.text = NULL;
		if (!*text)
			error = search_fails(search, -ENOMEM, "no memory");
	}
out:
	http_request_free(&request);
	return error;
}

static void wipe(char *text)
{
	if (text)
		explicit_bzero(text, strlen(text));
	free(text);
}

/* ---- containers ----------------------------------------------------------- */

/* Over plain http only to where no stranger can listen. */
static bool is_near(const char *url)
{
	static const char *const known[] = { "localhost", "169.254.170.2",
					     "169.254.170.23", "fd00:ec2::23" };
	char host[256];
	struct in6_addr six;
	struct in_addr four;
	size_t length;

	url = strstr(url, "://") + 3;
	if (memchr(url, '@', strcspn(url, "/?#")))	/* a name before the host's */
		return false;
	if (*url == '[')
		length = strcspn(++url, "]/");
	else
		length = strcspn(url, ":/?#");
	if (length >= sizeof(host))
		return false;
	memcpy(host, url, length);
	host[length] = 0;
	for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++)
		if (strcasecmp(host, known[i]) == 0)
			return true;
	if (inet_pton(AF_INET, host, &four) == 1)
		return ntohl(four.s_addr) >> 24 == 127;
	return inet_pton(AF_INET6, host, &six) == 1 && IN6_IS_ADDR_LOOPBACK(&six);
}

static int container_url(struct search *search, char url[URL_MAX])
{
	const char *relative = environment("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI");
	const char *full = environment("AWS_CONTAINER_CREDENTIALS_FULL_URI");
	int length;

	if (!relative && !full)
		return search_fails(search, -ENODATA, "AWS_CONTAINER_CREDENTIALS_FULL_URI "
				    "and _RELATIVE_URI are not set");
	length = snprintf(url, URL_MAX, "%s%s", relative ? "http://169.254.170.2" : "",
			  relative ? relative : full);
	if (length >= URL_MAX || strpbrk(url, " \t\r\n") ||
	    (relative && relative[0] != '/') ||
	    (strncasecmp(url, "http://", 7) != 0 && strncasecmp(url, "https://", 8) != 0))
		return search_fails(search, -EINVAL, "AWS_CONTAINER_CREDENTIALS_%s_URI is "
				    "not right: %.128s", relative ? "RELATIVE" : "FULL",
				    relative ? relative : full);
	if (strncasecmp(url, "https://", 8) != 0 && !is_near(url))
		return search_fails(search, -EINVAL, "AWS_CONTAINER_CREDENTIALS_FULL_URI: "
				    "%s is neither https nor on this machine", url);
	return 0;
}

/* The file's content changes, so it is read anew each time. */
static int container_token(struct search *search, char **token)
{
	const char *file = environment("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE");
	const char *given = environment("AWS_CONTAINER_AUTHORIZATION_TOKEN");

	*token = NULL;
	if (file)
		return secret_file_read(search, file, token);
	if (!given)
		return 0;
	*token = strdup(given);
	return *token ? 0 : search_fails(search, -ENOMEM, "no memory");
}

int find_in_container(struct search *search, struct s3_keys *keys)
{
	char url[URL_MAX], *token = NULL, *text = NULL;
	int error = container_url(search, url);

	if (error)
		return error;
	snprintf(search->source, sizeof(search->source), "container metadata");
	error = container_token(search, &token);
	if (!error)
		error = metadata_get(search, "GET", url, token ? "Authorization" : NULL,
				     token, TRIES, &text);
	if (error == -ENODATA)	/* it was named, so it must answer */
		error = -EACCES;
	if (!error)
		error = keys_from_json(search, keys, url, text, strlen(text), "Token",
				       false);
	wipe(token);
	wipe(text);
	return error;
}

/* ---- instances ------------------------------------------------------------ */

static int instance_endpoint(struct search *search, char base[BASE_MAX])
{
	const char *given = environment("AWS_EC2_METADATA_SERVICE_ENDPOINT");
	const char *mode = environment("AWS_EC2_METADATA_SERVICE_ENDPOINT_MODE");
	const char *disabled = environment("AWS_EC2_METADATA_DISABLED");
	size_t length;

	if (disabled && strcasecmp(disabled, "true") == 0)
		return search_fails(search, -ENODATA, "AWS_EC2_METADATA_DISABLED is true");
	if (!given)
		given = mode && strcasecmp(mode, "IPv6") == 0 ? "http://[fd00:ec2::254]" :
			"http://169.254.169.254";
	length = (size_t)snprintf(base, BASE_MAX, "%s", given);
	while (length && length < BASE_MAX && base[length - 1] == '/')
		base[--length] = 0;
	if (length >= BASE_MAX || strpbrk(base, " \t\r\n?#") ||
	    (strncasecmp(base, "http://", 7) != 0 && strncasecmp(base, "https://", 8) != 0))
		return search_fails(search, -EINVAL, "AWS_EC2_METADATA_SERVICE_ENDPOINT is "
				    "no http://ADDRESS");
	return 0;
}

/* Asks whether there is a metadata service at all: version 2 begins with this. */
static int instance_token(struct search *search, const char base[BASE_MAX], char **token)
{
	char url[URL_MAX];
	int error;

	snprintf(url, sizeof(url), "%s/latest/api/token", base);
	error = metadata_get(search, "PUT", url, "X-aws-ec2-metadata-token-ttl-seconds",
			     "300", search->renewing ? TRIES : 1, token);
	/* Nobody there: that is how most machines are. */
	if (error && !search->renewing && error != -EACCES)
		return search_fails(search, -ENODATA, "no instance metadata: %s answers no "
				    "request for a token", base);
	if (!error && strlen(*token) > TOKEN_MAX)
		error = search_fails(search, -EBADMSG, "%s: this is no token", url);
	return error;
}

static int instance_role(struct search *search, const char base[BASE_MAX], const char *token,
			 char role[ROLE_MAX])
{
	char url[URL_MAX], *text;
	int error;

	snprintf(url, sizeof(url), "%s/latest/meta-data/iam/security-credentials/", base);
	error = metadata_get(search, "GET", url, "X-aws-ec2-metadata-token", token, TRIES,
			     &text);
	if (error == -ENODATA)
		return search_fails(search, error, "no role is given to this instance "
				    "(%s: not found)", url);
	if (error)
		return error;
	text[strcspn(text, "\r\n")] = 0;
	if (!text[0] || strlen(text) >= ROLE_MAX || strpbrk(text, "/?# \t<>%"))
		error = search_fails(search, -EBADMSG, "%s: this is no role's name", url);
	else
		strcpy(role, text);
	free(text);
	return error;
}

int find_in_instance(struct search *search, struct s3_keys *keys)
{
	char base[BASE_MAX], url[URL_MAX], role[ROLE_MAX], *token = NULL, *text = NULL;
	int error = instance_endpoint(search, base);

	if (error)
		return error;
	error = instance_token(search, base, &token);
	if (!error)
		error = instance_role(search, base, token, role);
	if (!error) {
		snprintf(search->source, sizeof(search->source),
			 "instance metadata, role %s", role);
		snprintf(url, sizeof(url), "%s/latest/meta-data/iam/"
			 "security-credentials/%s", base, role);
		error = metadata_get(search, "GET", url, "X-aws-ec2-metadata-token", token,
				     TRIES, &text);
		if (error == -ENODATA)
			error = -EACCES;
	}
	if (!error)
		error = keys_from_json(search, keys, url, text, strlen(text), "Token",
				       false);
	wipe(token);
	wipe(text);
	return error;
}
