/* chunk.c: one chunk's object, every frame of it checked against the frame table,
 * and the table against the ref. */
#include <stdio.h>
#include <string.h>

#include "contrib/rescue/volume.h"

static void all_bad(const struct volume *volume, struct chunk *chunk)
{
	chunk->nr_bad = volume->head.chunk_size / volume->head.frame_size;
	memset(chunk->bad, true, chunk->nr_bad * sizeof(chunk->bad[0]));
}

/* Whether the object says that it belongs to this volume.  What a clone has of its
 * origins bears their uuid, which the clone does not know. */
static bool belongs(const struct volume *volume, const struct ref *ref,
		    const struct object *object)
{
	char uuid[UUID_TEXT_SIZE];

	if (origin_of(&volume->head, ref->epoch))
		return true;
	uuid_text(volume->head.uuid, uuid);
	return strcmp(uuid, object->volume) == 0;
}

static void check_frames(const struct volume *volume, const struct frames *frames,
			 const struct object *object, struct chunk *chunk)
{
	uint32_t size = volume->head.frame_size;
	unsigned int i, first = 0;
	size_t end;

	for (i = 0; i < frames->count; i++) {
		end = (size_t)(i + 1) * size;
		chunk->bad[i] = end > object->count ||
			checksum(0, object->bytes + end - size, size) != frames->crc[i];
		if (chunk->bad[i] && !chunk->nr_bad++)
			first = i;
	}
	if (object->count != volume->head.chunk_size && !chunk->why[0])
		snprintf(chunk->why, REASON_SIZE, "it is truncated: %zu bytes, not %u",
			 object->count, volume->head.chunk_size);
	else if (chunk->nr_bad && !chunk->why[0])
		snprintf(chunk->why, REASON_SIZE, "it is altered: %u of %u frames do not "
			 "match their checksum, first frame %u", chunk->nr_bad,
			 frames->count, first);
}

static void check_object(const struct volume *volume, const struct ref *ref,
			 const struct object *object, struct chunk *chunk)
{
	struct frames frames;

	/* None at all may be a proxy's doing, not the store's. */
	if (!object->frames[0] && !object->volume[0])
		snprintf(chunk->why, REASON_SIZE, "it comes without its x-amz-meta-objmap-"
			 "headers (libs3 sees them in lower case only)");
	else if (!belongs(volume, ref, object))
		snprintf(chunk->why, REASON_SIZE, "it belongs to another volume");
	else if (!parse_frames(object->frames, &volume->head, ref, &frames, chunk->why)) {
		check_frames(volume, &frames, object, chunk);
		return;
	}
	all_bad(volume, chunk);
}

void chunk_get(const struct volume *volume, uint64_t index, const struct ref *ref,
	       struct chunk *chunk)
{
	struct object object = {
		.bytes = chunk->bytes, .room = volume->head.chunk_size,
	};
	enum outcome outcome;
	char key[KEY_SIZE];
	int tries;

	chunk->lost_store = false;
	for (tries = 0; tries < 2; tries++) {
		chunk->nr_bad = 0;
		chunk->why[0] = 0;
		memset(chunk->bad, false, sizeof(chunk->bad));
		if (!chunk_key(volume, index, ref, key)) {
			snprintf(chunk->why, REASON_SIZE, "its key is too long");
			all_bad(volume, chunk);
			return;
		}
		outcome = bucket_get(volume->bucket, key, &object);
		if (outcome != OBJECT_WHOLE)
			memcpy(chunk->why, object.why, sizeof(chunk->why));
		if (outcome == OBJECT_WHOLE || outcome == OBJECT_CUT)
			check_object(volume, ref, &object, chunk);
		else
			all_bad(volume, chunk);
		chunk->lost_store = outcome == STORE_LOST;
		/* These have been tried often enough. */
		if (!chunk->nr_bad || outcome == OBJECT_CUT ||
		    outcome == OBJECT_REFUSED || outcome == STORE_LOST)
			return;
	}
}
