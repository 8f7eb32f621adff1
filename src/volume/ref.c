/* ref.c: refs, 24 bytes that say which object is a chunk or a node, and the
 * geometry of the map they stand in. */
#include "src/volume/format.h"

#include "src/volume/bytes.h"

bool ref_equal(const struct ref *a, const struct ref *b)
{
	return a->epoch == b->epoch && a->writer == b->writer &&
	       a->stored == b->stored && a->crc == b->crc;
}

void ref_encode(const struct ref *ref, uint8_t bytes[REF_BYTES])
{
	put_u64(bytes, ref->epoch);
	put_u64(bytes + 8, ref->writer);
	put_u32(bytes + 16, ref->stored);
	put_u32(bytes + 20, ref->crc);
}

bool ref_decode(const uint8_t bytes[REF_BYTES], struct ref *ref)
{
	ref->epoch = get_u64(bytes);
	ref->writer = get_u64(bytes + 8);
	ref->stored = get_u32(bytes + 16);
	ref->crc = get_u32(bytes + 20);
	if (ref_is_hole(ref))
		return !ref->writer && !ref->stored && !ref->crc;
	return ref_stored(ref) > 0 && ref_codec(ref) == CODEC_NONE;
}

bool chunk_size_is_valid(uint64_t chunk_size)
{
	return chunk_size >= CHUNK_SIZE_MIN && chunk_size <= CHUNK_SIZE_MAX &&
	       !(chunk_size & (chunk_size - 1));
}

uint32_t volume_nr_chunks(uint64_t size, uint32_t chunk_size)
{
	uint64_t nr;

	if (!size)
		return 0;
	nr = (size - 1) / chunk_size + 1;
	return nr <= VOLUME_CHUNKS_MAX ? (uint32_t)nr : 0;
}

unsigned int map_levels(uint32_t nr_chunks)
{
	if (nr_chunks <= NODE_REFS)
		return 0;
	return nr_chunks <= NODE_REFS * NODE_REFS ? 1 : 2;
}

uint32_t map_nr_root(uint32_t nr_chunks)
{
	unsigned int shift = 10 * map_levels(nr_chunks);

	return nr_chunks ? ((nr_chunks - 1) >> shift) + 1 : 0;
}

uint32_t frame_size_of(uint32_t chunk_size)
{
	uint32_t size = chunk_size / FRAMES_MAX;

	return size > FRAME_SIZE_MIN ? size : FRAME_SIZE_MIN;
}
