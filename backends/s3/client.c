/* client.c: one bucket's client: what options, environment and profile say of
 * endpoint, region, encryption and the rest, found once when it opens. */
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "backends/s3/client.h"
#include "backends/s3/profile.h"
#include "src/log.h"

#define PART_DEFAULT	(8ull << 20)
#define PART_MAX	(5ull << 30)	/* S3: of a part, and of a PUT */
#define SSE_C_KEY	32		/* AES-256 */

/* ---- what the user said ----------------------------------------------------------- */

/* The first that is given: an option, one of two variables, the profile.
 * malloc'ed; NULL: none is. */
static char *setting(const struct s3_client *client, const char *option,
		     const char *variable, const char *other_variable,
		     const char *in_profile)
{
	const char *given = option;

	if (!given && variable)
		given = environment(variable);
	if (!given && other_variable)
		given = environment(other_variable);
	return given ? strdup(given) : s3_profile_setting(client->profile, in_profile);
}

static int copy_string(const char **string)
{
	if (!*string)
		return 0;
	*string = strdup(*string);
	return *string ? 0 : -ENOMEM;
}

/* Makes the strings of @client->options its own. */
static int copy_options(struct s3_client *client, const struct s3_options *options)
{
	struct s3_options *own = &client->options;
	const char **strings[] = {
		&own->endpoint_url, &own->region, &own->profile, &own->ca_bundle,
		&own->sse, &own->sse_kms_key, &own->sse_c_key_file,
		&own->storage_class, &own->tags,
	};
	size_t i, nr = sizeof(strings) / sizeof(strings[0]);
	int error = 0;

	if (options)
		*own = *options;
	for (i = 0; i < nr; i++) {
		if (error)
			*strings[i] = NULL;	/* not ours: not to be freed */
		else
			error = copy_string(strings[i]);
	}
	if (!own->multipart_threshold)
		own->multipart_threshold = PART_DEFAULT;
	if (!own->part_size)
		own->part_size = PART_DEFAULT;
	return error;
}

static void free_options(struct s3_options *own)
{
	const char *strings[] = {
		own->endpoint_url, own->region, own->profile, own->ca_bundle, own->sse,
		own->sse_kms_key, own->sse_c_key_file, own->storage_class, own->tags,
	};
	size_t i;

	for (i = 0; i < sizeof(strings) / sizeof(strings[0]); i++)
		free((void *)(uintptr_t)strings[i]);
}

static int refuse(const struct s3_client *client, const char *what)
{
	log_error("%s: %s", client->place, what);
	return -EINVAL;
}

static int check_options(const struct s3_client *client)
{
	const struct s3_options *options = &client->options;
	const char *c;

	for (c = client->bucket; *c; c++)
		if (!isalnum((unsigned char)*c) && !strchr("-._", *c))
			return refuse(client, "a bucket's name has letters, digits, "
					      "'-', '.' and '_' only");
	if (c == client->bucket || c - client->bucket > 255 ||
	    strspn(client->bucket, ".") == (size_t)(c - client->bucket))
		return refuse(client, "that is no bucket's name: write s3://BUCKET/PREFIX");
	if (options->part_size < S3_PART_MIN || options->part_size > PART_MAX)
		return refuse(client, "--part-size is from 5M to 5G");
	if (options->multipart_threshold < S3_PART_MIN ||
	    options->multipart_threshold > PART_MAX)
		return refuse(client, "--multipart-threshold is from 5M to 5G");
	if (options->sse && strcmp(options->sse, "AES256") != 0 &&
	    strncmp(options->sse, "aws:kms", 7) != 0)
		return refuse(client, "--sse is AES256 or aws:kms");
	if (options->sse_kms_key && (!options->sse || *options->sse != 'a'))
		return refuse(client, "--sse-kms-key goes with --sse aws:kms");
	if (options->sse_c_key_file && options->sse)
		return refuse(client, "--sse and --sse-c-key-file exclude each other");
	return 0;
}

/* ---- SSE-C: the key goes with every request ------------------------------------------ */

/* @text of @count bytes: the key itself, or its base64 and perhaps a newline. */
static bool decode_key(const unsigned char *text, size_t count,
		       unsigned char key[SSE_C_KEY])
{
	unsigned char decoded[64];
	bool good;

	if (count == SSE_C_KEY) {
		memcpy(key, text, SSE_C_KEY);
		return true;
	}
	while (count && isspace(text[count - 1]))
		count--;
	/* 44 characters, the last a '=', are 33 bytes, the last a 0. */
	good = count == 44 && text[43] == '=' &&
	       EVP_DecodeBlock(decoded, text, 44) == 33 && text[42] != '=';
	if (good)
		memcpy(key, decoded, SSE_C_KEY);
	explicit_bzero(decoded, sizeof(decoded));
	return good;
}

static int load_sse_c_key(struct s3_client *client)
{
	const char *path = client->options.sse_c_key_file;
	unsigned char text[64], key[SSE_C_KEY], md5[16];
	struct iovec iov = { .iov_base = key, .iov_len = sizeof(key) };
	ssize_t count;
	int fd, error = 0;

	if (!path)
		return 0;
	if (!atomic_load(&client->route)->tls)
		return refuse(client, "a key of one's own (--sse-c-key-file) is only sent "
				      "over https");
	fd = open(path, O_RDONLY | O_CLOEXEC);
	count = fd < 0 ? -1 : read(fd, text, sizeof(text));
	if (count < 0) {
		error = -errno;
		log_error("%s: cannot read %s: %s", client->place, path, strerror(errno));
	} else if (!decode_key(text, (size_t)count, key)) {
		error = -EINVAL;
		log_error("%s: %s holds neither the 32 bytes of a key nor their base64",
			  client->place, path);
	} else {
		error = s3_md5(&iov, 1, md5);
		s3_base64(key, sizeof(key), client->sse_c_key, sizeof(client->sse_c_key));
		s3_base64(md5, sizeof(md5), client->sse_c_md5, sizeof(client->sse_c_md5));
	}
	if (fd >= 0)
		close(fd);
	explicit_bzero(text, sizeof(text));
	explicit_bzero(key, sizeof(key));
	return error;
}

/* ---- opening and closing --------------------------------------------------------------- */

static enum s3_addressing addressing_of(const struct s3_client *client)
{
	enum s3_addressing found = client->options.addressing;
	char *style;

	if (found != S3_ADDRESSING_AUTO)
		return found;
	style = s3_profile_setting(client->profile, "s3.addressing_style");
	if (style && strcmp(style, "path") == 0)
		found = S3_PATH;
	else if (style && strcmp(style, "virtual") == 0)
		found = S3_VIRTUAL;
	free(style);
	return found;
}

static int find_route(struct s3_client *client)
{
	const struct s3_options *options = &client->options;
	char *url = setting(client, options->endpoint_url, "AWS_ENDPOINT_URL_S3",
			    "AWS_ENDPOINT_URL", "endpoint_url");
	char *region = setting(client, options->region, "AWS_REGION",
			       "AWS_DEFAULT_REGION", "region");
	int error = s3_route_open(client, url, region ? region : S3_REGION_DEFAULT,
				  addressing_of(client));

	free(url);
	free(region);
	return error;
}

static int open_parts(struct s3_client *client)
{
	struct http_client_options http = {
		.connections = client->options.connections,
		.ca_bundle = client->ca_bundle,
	};
	struct s3_credentials_options credentials = {
		.profile = client->options.profile,
		.anonymous = client->options.no_sign_request,
		.region = atomic_load(&client->route)->region,
		.ca_bundle = client->ca_bundle,
	};
	int error;

	client->signing_key = s3_signing_key_new();
	if (!client->signing_key)
		return -ENOMEM;
	error = s3_credentials_open(&credentials, &client->credentials);
	return error ? error : http_client_open(&http, &client->http);
}

int s3_client_open(const char *place, const char *bucket,
		   const struct s3_options *options, struct s3_client **opened)
{
	struct s3_client *client = calloc(1, sizeof(*client));
	const char *profile;
	int error;

	if (!client)
		return -ENOMEM;
	pthread_mutex_init(&client->lock, NULL);
	client->place = strdup(place);
	client->bucket = strdup(bucket);
	error = copy_options(client, options);
	if (!client->place || !client->bucket)
		error = -ENOMEM;
	if (!error)
		error = check_options(client);
	if (error)
		goto out;
	profile = client->options.profile;
	if (!profile)
		profile = environment("AWS_PROFILE");
	client->profile = strdup(profile ? profile : "default");
	if (!client->profile) {
		error = -ENOMEM;
		goto out;
	}
	client->ca_bundle = setting(client, client->options.ca_bundle, "AWS_CA_BUNDLE",
				    NULL, "ca_bundle");
	error = find_route(client);
	if (!error)
		error = load_sse_c_key(client);
	if (!error)
		error = open_parts(client);
out:
	if (error)
		s3_client_close(client);
	else
		*opened = client;
	return error;
}

void s3_client_close(struct s3_client *client)
{
	if (client->http)
		http_client_close(client->http);
	if (client->credentials)
		s3_credentials_close(client->credentials);
	s3_signing_key_free(client->signing_key);
	s3_route_close(client);
	explicit_bzero(client->sse_c_key, sizeof(client->sse_c_key));
	free_options(&client->options);
	pthread_mutex_destroy(&client->lock);
	free(client->profile);
	free(client->ca_bundle);
	free(client->place);
	free(client->bucket);
	free(client);
}

/* ---- for people ---------------------------------------------------------------------------- */

const char *s3_client_bucket(const struct s3_client *client)
{
	return client->bucket;
}

const struct s3_options *s3_client_options(const struct s3_client *client)
{
	return &client->options;
}

const char *s3_client_endpoint(const struct s3_client *client)
{
	return atomic_load(&client->route)->endpoint;
}

const char *s3_client_region(const struct s3_client *client)
{
	return atomic_load(&client->route)->region;
}

const char *s3_client_credentials(const struct s3_client *client)
{
	return s3_credentials_source(client->credentials);
}

int64_t s3_client_skew(const struct s3_client *client)
{
	return atomic_load(&client->ahead);
}

bool s3_client_signs_payload(const struct s3_client *client)
{
	return atomic_load(&client->route)->signs_payload;
}
