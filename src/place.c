/* place.c: reads a place: SCHEME:PATH[@SNAPSHOT][?NAME=VALUE[&NAME=VALUE]]. */
#include "config.h"
#include "src/volume/format.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "src/log.h"
#include "src/nearest.h"
#include "src/place.h"
#include "src/place_nbd.h"
#include "src/place_s3.h"
#include "src/place_url.h"
#include "src/units.h"
#include "src/utf8.h"

#ifdef HAVE_LIBNBD
#define NBD_IS_BUILT true
#else
#define NBD_IS_BUILT false
#endif

struct scheme {
	const char *name;
	bool is_volume;
	bool built;		/* this build opens it */
	const char *const *params;	/* what may follow '?'; NULL at the end */
	bool is_size;		/* what follows is a size */
	bool has_bucket;	/* //BUCKET/ comes first */
};

#define PARAMS(...) (const char *const[]){ __VA_ARGS__, NULL }
static const char *const no_params[] = { NULL };
static const char *const nbd_params[] = {
	"connections", "socket", "tls-certificates", "tls-psk-file",
	"tls-verify-peer", NULL
};

static const struct scheme schemes[] = {
	{ "dir", true, true, PARAMS("network") },
	{ "mem", true, true, PARAMS("size", "chunk-size") },
	{ "file", false, true, no_params },
	{ "memory", false, true, no_params, true },
	{ "null", false, true, no_params, true },
	{ "pattern", false, true, no_params, true },
	{ "s3", true, true, place_s3_params, .has_bucket = true },
	{ "s3+object", false, true, place_object_params, .has_bucket = true },
	{ "http", false, true, no_params },
	{ "https", false, true, no_params },
	/* What does not belong to one of them is told in place_nbd.c. */
	{ "nbd", false, NBD_IS_BUILT, nbd_params },
	{ "nbds", false, NBD_IS_BUILT, nbd_params },
	{ "nbd+unix", false, NBD_IS_BUILT, nbd_params },
	{ "nbds+unix", false, NBD_IS_BUILT, nbd_params },
};
#define NR_SCHEMES (sizeof(schemes) / sizeof(schemes[0]))

const char *const *place_schemes(void)
{
	static const char *names[NR_SCHEMES + 1];
	unsigned int i, nr = 0;

	for (i = 0; i < NR_SCHEMES; i++)
		if (schemes[i].built)
			names[nr++] = schemes[i].name;
	return names;
}

const char *place_param(const struct place *place, const char *name)
{
	unsigned int i;

	for (i = 0; i < place->nr_params; i++)
		if (strcmp(place->params[i].name, name) == 0)
			return place->params[i].value;
	return NULL;
}

int place_copy(const struct place *from, struct place *to)
{
	memset(to, 0, sizeof(*to));
	to->text = strdup(from->text);
	to->base = strdup(from->base);
	to->scheme = strdup(from->scheme);
	to->bucket = from->bucket ? strdup(from->bucket) : NULL;
	to->path = strdup(from->path);
	to->snapshot = from->snapshot ? strdup(from->snapshot) : NULL;
	to->is_volume = from->is_volume;
	for (unsigned int i = 0; i < from->nr_params; i++) {
		struct place_param *param = &to->params[to->nr_params++];

		param->name = strdup(from->params[i].name);
		param->value = strdup(from->params[i].value);
		if (!param->name || !param->value)
			goto out;
	}
	if (to->text && to->base && to->scheme && to->path &&
	    !to->bucket == !from->bucket && !to->snapshot == !from->snapshot)
		return 0;
out:
	place_free(to);
	return -ENOMEM;
}

void place_free(struct place *place)
{
	unsigned int i;

	for (i = 0; i < place->nr_params; i++) {
		free(place->params[i].name);
		free(place->params[i].value);
	}
	free(place->text);
	free(place->base);
	free(place->scheme);
	free(place->bucket);
	free(place->path);
	free(place->snapshot);
	memset(place, 0, sizeof(*place));
}

/* ---- the scheme ------------------------------------------------------------------ */

static int tell_unknown_scheme(const char *text, const char *scheme)
{
	const char *names[NR_SCHEMES + 1], *near;
	unsigned int i, nr = 0;

	for (i = 0; i < NR_SCHEMES; i++)
		names[nr++] = schemes[i].name;
	names[nr] = NULL;
	near = nearest_word(scheme, names);
	if (near)
		log_error("%s: there is no '%s:'; did you mean '%s:'?", text,
			  scheme, near);
	else
		log_error("%s: there is no '%s:'; a place begins with s3:, dir:, file: or another word that objmap --help lists",
			  text, scheme);
	return -EINVAL;
}

/* A text without a scheme is a path that somebody forgot to say is one. */
static int tell_bare_path(const char *text)
{
	struct stat st;

	if (stat(text, &st) == 0 && S_ISDIR(st.st_mode))
		log_error("%s is no place; a volume in that directory is 'dir:%s'",
			  text, text);
	else
		log_error("%s is no place; a file or device is 'file:%s', a volume in a directory 'dir:%s'",
			  text, text, text);
	return -EINVAL;
}

/* The scheme of @text ends at its first ':', unless a '/' comes before. */
static size_t scheme_length(const char *text)
{
	size_t length = strcspn(text, ":/?@");

	return text[length] == ':' ? length : 0;
}

static int find_scheme(const char *text, size_t length,
		       const struct scheme **scheme)
{
	char name[24];
	unsigned int i;

	snprintf(name, sizeof(name), "%.*s", (int)length, text);
	for (i = 0; i < NR_SCHEMES; i++)
		if (strcmp(schemes[i].name, name) == 0)
			break;
	if (i == NR_SCHEMES)
		return tell_unknown_scheme(text, name);
	if (!schemes[i].built) {
		log_error("%s: %s: is not in this build", text, name);
		return -EINVAL;
	}
	*scheme = &schemes[i];
	return 0;
}

/* ---- %-escapes --------------------------------------------------------------------- */

static int hex_digit(char c)
{
	const char *digits = "0123456789abcdefABCDEF", *found;

	if (c == 0)
		return -1;
	found = strchr(digits, c);
	if (!found)
		return -1;
	return (int)(found - digits) - (found - digits > 15 ? 6 : 0);
}

/* Decodes @count bytes at @from into *decoded (malloc).  -EINVAL, logged: a
 * broken escape or a zero byte. */
static int decode(const char *text, const char *from, size_t count,
		  char **decoded)
{
	char *to = malloc(count + 1);
	size_t i, length = 0;

	*decoded = to;
	if (!to)
		return -ENOMEM;
	for (i = 0; i < count; i++) {
		int high, low;

		if (from[i] != '%') {
			to[length++] = from[i];
			continue;
		}
		high = i + 2 < count ? hex_digit(from[i + 1]) : -1;
		low = i + 2 < count ? hex_digit(from[i + 2]) : -1;
		if (high < 0 || low < 0 || (high == 0 && low == 0)) {
			log_error("%s: %% is followed by two hexadecimal digits (%%25 is %% itself)",
				  text);
			return -EINVAL;
		}
		to[length++] = (char)(high * 16 + low);
		i += 2;
	}
	to[length] = 0;
	return 0;
}

/* ---- what follows '?' ----------------------------------------------------------------- */

static int check_param(const struct place *place, const struct scheme *scheme,
		       const char *name)
{
	const char *near;
	const char *const *p;

	for (p = scheme->params; *p; p++)
		if (strcmp(*p, name) == 0)
			break;
	if (*p && !place_param(place, name))
		return 0;
	if (*p) {
		log_error("%s: '%s' is given twice", place->text, name);
		return -EINVAL;
	}
	near = nearest_word(name, scheme->params);
	if (!scheme->params[0])
		log_error("%s: %s: takes nothing after '?'; a literal ? is %%3f",
			  place->text, scheme->name);
	else
		log_error("%s: %s: takes no '%s'%s%s%s", place->text,
			  scheme->name, name, near ? "; did you mean '" : "",
			  near ? near : "", near ? "'?" : "");
	return -EINVAL;
}

static int read_param(struct place *place, const struct scheme *scheme,
		      const char *from, size_t count)
{
	const char *equals = memchr(from, '=', count);
	size_t name_length = equals ? (size_t)(equals - from) : count;
	struct place_param *param;
	char *name, *value = NULL;
	int error;

	error = decode(place->text, from, name_length, &name);
	if (!error)
		error = check_param(place, scheme, name);
	if (!error && !equals) {
		log_error("%s: '%s' needs a value", place->text, name);
		error = -EINVAL;
	}
	if (!error)
		error = decode(place->text, equals + 1, count - name_length - 1,
			       &value);
	if (error) {
		free(name);
		free(value);
		return error;
	}
	param = &place->params[place->nr_params++];
	param->name = name;
	param->value = value;
	return 0;
}

static int read_params(struct place *place, const struct scheme *scheme,
		       const char *from)
{
	size_t count;
	int error;

	for (;;) {
		count = strcspn(from, "&");
		error = read_param(place, scheme, from, count);
		if (error || from[count] == 0)
			return error;
		from += count + 1;
	}
}

/* ---- the whole --------------------------------------------------------------------------- */

/* Whether the last component of @path, up to @end, has an '@'. */
static bool has_other_at(const char *path, size_t end)
{
	while (end > 0 && path[end - 1] != '/')
		if (path[--end] == '@')
			return true;
	return false;
}

/* Reads //BUCKET/ at *path, which is moved behind it. */
static int read_bucket(struct place *place, const char **path)
{
	const char *bucket = *path + 2;
	size_t length;

	if (strncmp(*path, "//", 2) != 0) {
		log_error("%s: write it as %s://BUCKET/...", place->text,
			  place->scheme);
		return -EINVAL;
	}
	length = strcspn(bucket, "/?@");
	place->bucket = strndup(bucket, length);
	if (!place->bucket)
		return -ENOMEM;
	*path = bucket + length + (bucket[length] == '/');
	return place_s3_check_bucket(place->text, place->bucket);
}

/* Where the @ of @SNAPSHOT is in the @length bytes at @path; @length: nowhere.
 * -EINVAL, logged, when it could be two places. */
static int find_snapshot(const char *text, const char *path, size_t length, size_t *at)
{
	size_t end = length;

	while (end > 0 && path[end - 1] != '@' && path[end - 1] != '/')
		end--;
	*at = length;
	if (end == 0 || path[end - 1] == '/')
		return 0;
	*at = end - 1;
	if (!has_other_at(path, *at))
		return 0;
	log_error("%s: more than one '@' follows the last '/'; a literal @ is %%40",
		  text);
	return -EINVAL;
}

static int read_snapshot(struct place *place, const char *name, size_t length)
{
	int error = decode(place->text, name, length, &place->snapshot);

	if (!error && place->snapshot[0] == 0) {
		log_error("%s: no snapshot is named after '@'; a literal @ is %%40",
			  place->text);
		error = -EINVAL;
	}
	return error;
}

/* Reads @place->text, whose scheme is known: [//BUCKET/]PATH[@SNAPSHOT][?PARAMS]. */
static int read_rest(struct place *place, const struct scheme *scheme)
{
	const char *path = place->text + strlen(scheme->name) + 1;
	size_t length, at;
	int error = scheme->has_bucket ? read_bucket(place, &path) : 0;

	length = at = strcspn(path, "?");
	if (!error && scheme->is_volume)	/* a plain device has no snapshots */
		error = find_snapshot(place->text, path, length, &at);
	if (!error && at < length)
		error = read_snapshot(place, path + at + 1, length - at - 1);
	if (!error)
		error = decode(place->text, path, at, &place->path);
	if (error)
		return error;
	place->base = strndup(place->text, (size_t)(path - place->text) + at);
	if (!place->base)
		return -ENOMEM;
	if (place->path[0] == 0 && !scheme->has_bucket) {
		log_error("%s: nothing follows '%s:'", place->text, scheme->name);
		return -EINVAL;
	}
	if (path[length] == '?')
		return read_params(place, scheme, path + length + 1);
	return 0;
}

static int check_size(const struct place *place)
{
	uint64_t size;

	if (size_parse(place->path, &size) == 0 && size > 0)
		return 0;
	log_error("%s: a size such as %s:10G is wanted, not '%s'", place->text,
		  place->scheme, place->path);
	return -EINVAL;
}

static int check_network(const struct place *place)
{
	const char *value = place_param(place, "network");

	if (!value || strcmp(value, "yes") == 0 || strcmp(value, "no") == 0)
		return 0;
	log_error("%s: network is yes or no, not '%s'", place->text, value);
	return -EINVAL;
}

/* mem:NAME?size=SIZE[&chunk-size=SIZE] */
static int check_memory(const struct place *place)
{
	const char *size = place_param(place, "size");
	const char *chunk = place_param(place, "chunk-size");
	uint64_t bytes;

	if (!size) {
		log_error("%s: how large is it? mem:NAME?size=SIZE", place->text);
		return -EINVAL;
	}
	if (size_parse(size, &bytes) != 0 || bytes == 0) {
		log_error("%s: size is a size such as 10G, not '%s'", place->text, size);
		return -EINVAL;
	}
	if (!chunk || (size_parse(chunk, &bytes) == 0 && chunk_size_is_valid(bytes)))
		return 0;
	log_error("%s: chunk-size is a power of two from 64K to 64M, not '%s'",
		  place->text, chunk);
	return -EINVAL;
}

static int check_nbd(const struct place *place)
{
	struct nbd_place nbd;
	int error = nbd_place_parse(place, &nbd);

	if (!error)
		nbd_place_free(&nbd);
	return error;
}

/* A plain file as an argument of copy: no escapes, no parameters. */
static int plain_file(const char *text, struct place *place)
{
	place->text = strdup(text);
	place->scheme = strdup("file");
	place->path = strdup(text);
	if (asprintf(&place->base, "file:%s", text) < 0)
		place->base = NULL;
	if (place->text && place->scheme && place->path && place->base)
		return 0;
	place_free(place);
	return -ENOMEM;
}

/* A volume's prefix, or with @folder that of volumes, whose last '/' goes. */
static int check_s3(struct place *place, bool folder)
{
	size_t length = strlen(place->path);
	const char *fault;

	if (place->snapshot)
		folder = false;
	if (folder && length > 1 && place->path[length - 1] == '/')
		place->path[--length] = 0;
	fault = folder && !length ? NULL : place_s3_prefix_fault(place->path);
	if (fault) {
		log_error("%s: %s", place->text, fault);
		return -EINVAL;
	}
	return place_s3_check_params(place);
}

static int check_object(const struct place *place)
{
	int error = place_s3_check_key(place->text, place->path);

	return error ? error : place_s3_check_params(place);
}

int place_parse(const char *text, unsigned int accept, struct place *place)
{
	const struct scheme *scheme = NULL;
	size_t length = scheme_length(text);
	int error;

	memset(place, 0, sizeof(*place));
	if (*text == 0) {
		log_error("a place is empty");
		return -EINVAL;
	}
	if (length == 0 || strncmp(text, ".", 1) == 0)
		return accept & PLACE_FILE ? plain_file(text, place)
				      : tell_bare_path(text);
	error = find_scheme(text, length, &scheme);
	if (error)
		return error;
	if (!utf8_is_text(text, strlen(text))) {
		log_error("%s: is not UTF-8: write its other bytes as %%XX", text);
		return -EINVAL;
	}
	place->text = strdup(text);
	place->scheme = strdup(scheme->name);
	place->is_volume = scheme->is_volume;
	if (!place->text || !place->scheme)
		error = -ENOMEM;
	else
		error = place_is_url(place) ? place_read_url(place) :
					      read_rest(place, scheme);
	if (!error && scheme->is_size)
		error = check_size(place);
	if (!error && strcmp(scheme->name, "dir") == 0)
		error = check_network(place);
	if (!error && strcmp(scheme->name, "mem") == 0)
		error = check_memory(place);
	if (!error && strcmp(scheme->name, "s3") == 0)
		error = check_s3(place, accept & PLACE_FOLDER);
	if (!error && place_is_nbd(place))
		error = check_nbd(place);
	if (!error && strcmp(scheme->name, "s3+object") == 0)
		error = check_object(place);
	if (error)
		place_free(place);
	return error;
}
