/* place_s3.c: s3://BUCKET/PREFIX?NAME=VALUE: names, and settings of the server.
 *
 * One table says which settings there are and where each goes; the options of the
 * command line have the same names. */
#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "src/log.h"
#include "src/place_s3.h"
#include "src/units.h"
#include "src/volume/format.h"

#define GIB (1ull << 30)

enum kind { TEXT, FLAG, NUMBER, SIZE, ADDRESSING, SSE };

/* S3: parts and single PUTs are at most 5 GiB, parts at least 5 MiB. */
#define EACH_OF_OBJECTS(X)						\
	X("endpoint-url", TEXT, endpoint_url, 0, 0)			\
	X("region", TEXT, region, 0, 0)					\
	X("profile", TEXT, profile, 0, 0)				\
	X("no-sign-request", FLAG, no_sign_request, 0, 0)		\
	X("addressing", ADDRESSING, addressing, 0, 0)			\
	X("ca-bundle", TEXT, ca_bundle, 0, 0)				\
	X("dual-stack", FLAG, dual_stack, 0, 0)				\
	X("sse", SSE, sse, 0, 0)					\
	X("sse-kms-key", TEXT, sse_kms_key, 0, 0)			\
	X("sse-c-key-file", TEXT, sse_c_key_file, 0, 0)			\
	X("storage-class", TEXT, storage_class, 0, 0)			\
	X("requester-pays", FLAG, requester_pays, 0, 0)			\
	X("tags", TEXT, tags, 0, 0)					\
	X("connections", NUMBER, connections, 1, S3_CONNECTIONS_MAX)	\
	X("part-size", SIZE, part_size, S3_PART_MIN, 5 * GIB)

/* A new version of an object is an upload in parts whatever its size. */
#define EACH_SETTING(X)							\
	EACH_OF_OBJECTS(X)						\
	X("multipart-threshold", SIZE, multipart_threshold, S3_PART_MIN, 5 * GIB)

struct setting {
	enum kind kind;
	size_t at;		/* in struct s3_options */
	uint64_t minimum, maximum;
};

#define AS_SETTING(name, kind, field, minimum, maximum)	\
	{ kind, offsetof(struct s3_options, field), minimum, maximum },
#define AS_NAME(name, kind, field, minimum, maximum) name,

static const struct setting settings[] = { EACH_SETTING(AS_SETTING) };
#define NR_SETTINGS (sizeof(settings) / sizeof(settings[0]))

const char *const place_s3_params[] = { EACH_SETTING(AS_NAME) NULL };
const char *const place_object_params[] = { EACH_OF_OBJECTS(AS_NAME) "versionId", NULL };

/* ---- values ---------------------------------------------------------------------- */

static int set_flag(const char *text, bool *flag)
{
	*flag = strcmp(text, "yes") == 0;
	return *flag || strcmp(text, "no") == 0 ? 0 : -EINVAL;
}

static int set_addressing(const char *text, enum s3_addressing *addressing)
{
	*addressing = strcmp(text, "path") == 0 ? S3_PATH : S3_VIRTUAL;
	return *addressing == S3_PATH || strcmp(text, "virtual") == 0 ? 0 : -EINVAL;
}

static int set_number(const struct setting *setting, const char *text, void *to)
{
	uint64_t value;
	char *end;

	if (setting->kind == SIZE) {
		if (size_parse(text, &value) != 0)
			return -EINVAL;
	} else {
		value = strtoull(text, &end, 10);
		if (*text < '0' || *text > '9' || *end)
			return -EINVAL;
	}
	if (value < setting->minimum || value > setting->maximum)
		return -EINVAL;
	if (setting->kind == SIZE)
		*(uint64_t *)to = value;
	else
		*(unsigned int *)to = (unsigned int)value;
	return 0;
}

static int set(const struct setting *setting, const char *text, void *to)
{
	switch (setting->kind) {
	case TEXT:
		*(const char **)to = text;
		return *text ? 0 : -EINVAL;
	case FLAG:
		return set_flag(text, to);
	case ADDRESSING:
		return set_addressing(text, to);
	case SSE:
		*(const char **)to = text;
		return strcmp(text, "AES256") == 0 ||
		       strcmp(text, "aws:kms") == 0 ? 0 : -EINVAL;
	case NUMBER:
	case SIZE:
		break;
	}
	return set_number(setting, text, to);
}

static int tell_bad(const struct place *place, const char *name,
		    const struct setting *setting, const char *value)
{
	static const char *const wanted[] = {
		[TEXT] = "a text that is not empty", [FLAG] = "yes or no",
		[ADDRESSING] = "path or virtual", [SSE] = "AES256 or aws:kms",
	};
	char low[UNITS_TEXT], high[UNITS_TEXT];

	if (setting->kind == SIZE)
		log_error("%s: %s is a size between %s and %s, not '%s'", place->text,
			  name, size_format(setting->minimum, low),
			  size_format(setting->maximum, high), value);
	else if (setting->kind == NUMBER)
		log_error("%s: %s is a number between %llu and %llu, not '%s'",
			  place->text, name, (unsigned long long)setting->minimum,
			  (unsigned long long)setting->maximum, value);
	else
		log_error("%s: %s is %s, not '%s'", place->text, name,
			  wanted[setting->kind], value);
	return -EINVAL;
}

static int check_together(const struct place *place, const struct s3_options *options)
{
	const char *wrong = NULL;

	if (options->sse_kms_key && (!options->sse ||
				     strcmp(options->sse, "aws:kms") != 0))
		wrong = "sse-kms-key needs sse=aws:kms";
	else if (options->sse_c_key_file && options->sse)
		wrong = "sse-c-key-file is a key of your own, sse one of the server's: choose one";
	else if (options->no_sign_request && options->profile)
		wrong = "no-sign-request uses no credentials, so no profile either: choose one";
	else if (options->endpoint_url && !s3_endpoint_is_good(options->endpoint_url))
		wrong = "endpoint-url is http://HOST[:PORT] or https://HOST[:PORT]";
	else if (options->region && !s3_region_is_good(options->region))
		wrong = "region is the name of one, such as eu-central-1";
	if (!wrong)
		return 0;
	log_error("%s: %s", place->text, wrong);
	return -EINVAL;
}

static int set_all(const struct place *place, struct s3_options *options)
{
	const char *value;
	unsigned int i;

	for (i = 0; i < NR_SETTINGS; i++) {
		value = place_param(place, place_s3_params[i]);
		if (value && set(&settings[i], value,
				 (char *)options + settings[i].at) != 0)
			return tell_bad(place, place_s3_params[i], &settings[i],
					value);
	}
	return 0;
}

int place_s3_check_params(const struct place *place)
{
	struct s3_options options;

	return set_all(place, &options);
}

int place_s3_options(const struct place *place, const struct s3_options *given,
		     struct s3_options *options)
{
	int error;

	*options = *given;
	error = set_all(place, options);
	return error ? error : check_together(place, options);
}

/* ---- names ----------------------------------------------------------------------------- */

static bool is_letter_or_digit(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9');
}

/* S3: 3 to 63 lower-case letters, digits, '-' and '.', at both ends a letter or
 * digit, no two dots together, and not like an IP address. */
static bool bucket_is_valid(const char *bucket)
{
	size_t length = strlen(bucket), i;

	if (length < 3 || length > 63 || !is_letter_or_digit(bucket[0]) ||
	    !is_letter_or_digit(bucket[length - 1]) || strstr(bucket, ".."))
		return false;
	for (i = 0; i < length; i++)
		if (!is_letter_or_digit(bucket[i]) && bucket[i] != '-' &&
		    bucket[i] != '.')
			return false;
	return strspn(bucket, "0123456789.") < length || !strchr(bucket, '.');
}

int place_s3_check_bucket(const char *text, const char *bucket)
{
	if (bucket_is_valid(bucket))
		return 0;
	log_error("%s: '%s' is no bucket's name: 3 to 63 lower-case letters, digits, '-' and '.', beginning and ending with a letter or digit",
		  text, bucket);
	return -EINVAL;
}

const char *place_s3_prefix_fault(const char *prefix)
{
	const char *c = prefix;
	size_t length;

	if (!*prefix)
		return "names a bucket only; a volume has a prefix in it: s3://BUCKET/PREFIX (objmap list s3://BUCKET/ shows what is there)";
	if (strlen(prefix) > ORIGIN_PREFIX_MAX)
		return "a volume's prefix has at most 512 bytes";
	for (; *c; c++)
		if ((unsigned char)*c < ' ' || *c == 0x7f)
			return "a prefix has no control characters";
	/* Clients, proxies and servers make other keys of such ones. */
	for (c = prefix; *c; c += length + (c[length] == '/')) {
		length = strcspn(c, "/");
		if (length == 0 || (length == 1 && c[0] == '.') ||
		    (length == 2 && c[0] == '.' && c[1] == '.'))
			return "a prefix has no empty, '.' or '..' component";
		if (c[length] == '/' && c[length + 1] == 0)
			return "a volume's prefix does not end in '/'";
	}
	return NULL;
}

int place_s3_check_key(const char *text, const char *key)
{
	if (*key && strlen(key) < STORE_KEY_MAX && key[strlen(key) - 1] != '/')
		return 0;
	if (!*key || key[strlen(key) - 1] == '/')
		log_error("%s: no object is named: s3+object://BUCKET/KEY", text);
	else
		log_error("%s: a key has at most %d bytes", text, STORE_KEY_MAX - 1);
	return -EINVAL;
}
