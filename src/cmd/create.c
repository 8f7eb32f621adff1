/* create.c: `objmap create`: a volume that reads as zeros. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>

#include "src/cmd/open.h"
#include "src/cmd/print.h"
#include "src/cmd/verbs.h"
#include "src/log.h"

/* Before anything is made. */
static int check_sizes(uint64_t size, uint64_t chunk_size)
{
	char most[UNITS_TEXT], chunk[UNITS_TEXT];

	if (size <= VOLUME_CHUNKS_MAX * chunk_size)
		return 0;
	log_error("--size must be at most %s with chunks of %s%s",
		  size_format(VOLUME_CHUNKS_MAX * chunk_size, most),
		  size_format(chunk_size, chunk),
		  chunk_size < CHUNK_SIZE_MAX ? "; a larger --chunk-size allows more" : "");
	return -EINVAL;
}

static int print_made(const struct options *options, const struct place *place,
		      struct store *store)
{
	char uuid[37], size[UNITS_TEXT], chunk[UNITS_TEXT];
	struct head head;
	int error = open_head(store, &head, NULL);

	if (error)
		return exit_status(error);
	uuid_format(head.uuid, uuid);
	if (option_flag(options, "json"))
		return print_json(json_pack("{s:s, s:s, s:I, s:I}",
					    "place", place->text, "uuid", uuid,
					    "size", (json_int_t)head.size,
					    "chunk_size", (json_int_t)head.chunk_size));
	printf("%s: %s in chunks of %s\n", place->text,
	       size_format(head.size, size), size_format(head.chunk_size, chunk));
	return 0;
}

int create_run(const struct options *options, int nr_arguments, char **arguments)
{
	struct volume_create_options create = {
		.size = option_size(options, "size"),
		.chunk_size = (uint32_t)option_size(options, "chunk-size"),
		.exclusive = option_flag(options, "exclusive"),
	};
	struct store *store;
	struct place place;
	int error, status;

	if (create.size == 0) {
		log_error("how large? create takes --size SIZE");
		return EXIT_USAGE;
	}
	error = check_sizes(create.size, create.chunk_size);
	if (!error)
		error = open_place(options, arguments[0], WANT_VOLUME, &place);
	if (error)
		return exit_status(error);
	error = open_store(options, &place, true, &store);
	if (!error) {
		error = volume_create(store, &create);
		status = error ? exit_status(error)
			       : print_made(options, &place, store);
		store_close(store);
	} else {
		status = exit_status(error);
	}
	place_free(&place);
	return status;
}
