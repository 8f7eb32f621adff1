/* place_open.c: opens what a place names, as a store or as a backend. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "backends/nbd/nbd.h"
#include "src/log.h"
#include "src/place.h"
#include "src/place_nbd.h"
#include "src/place_s3.h"
#include "src/place_url.h"
#include "src/units.h"

int place_open_store(const struct place *place,
		     const struct store_open_options *options,
		     struct store **store)
{
	const char *network = place_param(place, "network");
	/* dir:PATH?network=yes: locks of a network file system are good enough. */
	struct store_dir_options dir = {
		.create = options->create,
		.network_ok = network && strcmp(network, "yes") == 0,
	};
	struct s3_options s3;
	int error;

	if (strcmp(place->scheme, "s3") == 0) {
		error = place_s3_options(place, &options->s3, &s3);
		if (!error)
			error = store_s3_open(place->base, place->bucket, place->path,
					      &s3, store);
	} else if (strcmp(place->scheme, "dir") == 0) {
		error = store_dir_open(place->base, place->path, &dir, store);
	} else {
		error = store_mem_open(place->base, store);
	}
	if (error)
		return error;
	atomic_store(&(*store)->retry_for, options->retry_for);
	return 0;
}

char *place_prefix(const struct place *place)
{
	char *path;

	if (strcmp(place->scheme, "dir") != 0)
		return strdup(place->path);
	path = realpath(place->path, NULL);
	if (path)
		memmove(path, path + 1, strlen(path));
	return path;
}

/* The endpoint that a place asks for, without the slashes that say nothing. */
static size_t endpoint_of(const struct place *place, const struct s3_options *given,
			  const char **endpoint)
{
	const char *own = place_param(place, "endpoint-url");
	size_t length;

	*endpoint = own ? own : given->endpoint_url ? given->endpoint_url : "";
	length = strlen(*endpoint);
	while (length && (*endpoint)[length - 1] == '/')
		length--;
	return length;
}

bool place_same_store(const struct place *a, const struct place *b,
		      const struct s3_options *given)
{
	const char *at_a, *at_b;
	size_t length;

	if (strcmp(a->scheme, b->scheme) != 0)
		return false;
	if (!a->bucket)
		return true;
	length = endpoint_of(a, given, &at_a);
	return strcmp(a->bucket, b->bucket) == 0 &&
	       length == endpoint_of(b, given, &at_b) &&
	       strncasecmp(at_a, at_b, length) == 0;
}

static int open_object(const struct place *place, const struct device_options *options,
		       struct stage **stage)
{
	struct s3_options s3;
	int error = place_s3_options(place, &options->s3, &s3);

	return error ? error :
	       s3_object_open(place->base, place->bucket, place->path,
			      place_param(place, "versionId"), &s3, options, stage);
}

int place_gc_object(const struct place *place, const struct object_gc_options *options,
		    struct object_gc_result *result)
{
	struct s3_options s3;
	int error = place_s3_options(place, &options->s3, &s3);

	return error ? error : s3_object_gc(place->base, place->bucket, place->path,
					    &s3, options, result);
}

int place_open_device(const struct place *place,
		      const struct device_options *options,
		      struct stage **stage)
{
	uint64_t size;
	int error;

	if (strcmp(place->scheme, "file") == 0)
		return file_open(place->path, options, stage);
	if (place_is_nbd(place))
		return nbd_remote_open(place, options, stage);
	if (strcmp(place->scheme, "s3+object") == 0)
		return open_object(place, options, stage);
	if (place_is_url(place))
		return http_open(place, options, stage);
	error = size_parse(place->path, &size);	/* place_parse() has looked */
	if (error)
		return error;
	if (strcmp(place->scheme, "memory") == 0)
		return memory_open(size, stage);
	if (strcmp(place->scheme, "null") == 0)
		return null_open(size, stage);
	return pattern_open(size, stage);
}
