/* node.c: map nodes, 1024 refs of chunks or of nodes of the level below. */
#include "src/volume/sections.h"

#include <errno.h>

void node_encode(const struct ref refs[NODE_REFS], uint8_t bytes[NODE_BYTES])
{
	size_t i;

	for (i = 0; i < NODE_REFS; i++)
		ref_encode(&refs[i], bytes + i * REF_BYTES);
}

int node_decode(const void *bytes, size_t count, struct ref refs[NODE_REFS],
		struct format_fault *fault)
{
	const uint8_t *at = bytes;
	size_t i;

	if (count != NODE_BYTES)
		return format_bad(fault, count, "a map node of %zu bytes, not %u",
				  count, NODE_BYTES);
	for (i = 0; i < NODE_REFS; i++)
		if (!ref_decode(at + i * REF_BYTES, &refs[i]))
			return format_bad(fault, i * REF_BYTES,
					  "ref %zu is none that a writer can have meant",
					  i);
	return 0;
}

int node_check(const struct head *head, unsigned int level, uint32_t node,
	       const struct ref *self, const struct ref refs[NODE_REFS],
	       struct format_fault *fault)
{
	uint32_t nr_chunks = volume_nr_chunks(head->size, head->chunk_size);
	uint32_t length = level ? NODE_BYTES : head->chunk_size;
	unsigned int shift = 10 * level;
	uint64_t i;

	for (i = 0; i < NODE_REFS; i++) {
		if (ref_is_hole(&refs[i]))
			continue;
		if (refs[i].epoch > self->epoch)
			return format_bad(fault, i * REF_BYTES,
					  "ref %u is newer than the node", (unsigned int)i);
		if (ref_stored(&refs[i]) != length)
			return format_bad(fault, i * REF_BYTES + 16,
					  "ref %u names an object of %u bytes, not %u",
					  (unsigned int)i, ref_stored(&refs[i]), length);
		if (((uint64_t)node * NODE_REFS + i) << shift >= nr_chunks)
			return format_bad(fault, i * REF_BYTES,
					  "ref %u lies beyond the volume's last chunk",
					  (unsigned int)i);
	}
	return 0;
}
