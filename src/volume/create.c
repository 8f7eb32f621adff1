/* create.c: making a volume. */
#include <errno.h>
#include <string.h>
#include <time.h>

#include "src/log.h"
#include "src/random.h"
#include "src/units.h"
#include "src/volume/claim.h"
#include "src/volume/swap.h"
#include "src/volume/volume.h"

static int check_sizes(struct store *store, uint64_t size, uint32_t chunk_size)
{
	char least[UNITS_TEXT], most[UNITS_TEXT];

	if (!chunk_size_is_valid(chunk_size)) {
		log_error("%s: a chunk size must be a power of two from %s to %s",
			  store->place, size_format(CHUNK_SIZE_MIN, least),
			  size_format(CHUNK_SIZE_MAX, most));
		return -EINVAL;
	}
	if (size == 0) {
		log_error("%s: a volume has at least one byte: give it a size",
			  store->place);
		return -EINVAL;
	}
	if (size > VOLUME_CHUNKS_MAX * chunk_size) {
		log_error("%s: with chunks of %s a volume has at most %s%s",
			  store->place, size_format(chunk_size, least),
			  size_format(VOLUME_CHUNKS_MAX * chunk_size, most),
			  chunk_size < CHUNK_SIZE_MAX ? ": take larger chunks" : "");
		return -EINVAL;
	}
	return 0;
}

int volume_create(struct store *store,
		  const struct volume_create_options *options)
{
	struct head head = { .size = options->size };
	bool exclusive;
	int error;

	head.chunk_size = options->chunk_size ? options->chunk_size
					      : CHUNK_SIZE_DEFAULT;
	error = check_sizes(store, head.size, head.chunk_size);
	if (error)
		return error;
	random_bytes(head.uuid, sizeof(head.uuid));
	head.state = options->incomplete ? HEAD_INCOMPLETE : HEAD_LIVE;
	head.frame_size = frame_size_of(head.chunk_size);
	head.codec = CODEC_NONE;
	head.created = head.committed = (uint64_t)time(NULL);
	head.epoch = 1;
	head.writer = random_id();
	head.nr_root = map_nr_root(volume_nr_chunks(head.size, head.chunk_size));
	error = claim_probe(store, options->exclusive, &exclusive);
	if (!error)
		error = head_create(store, &head, exclusive);
	if (error == -EEXIST)
		log_error("%s: there is a volume already; choose another place, or "
			  "delete it first (objmap delete %s)", store->place,
			  store->place);
	return error;
}
