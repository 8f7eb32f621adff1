/* fuzz-node.c: any bytes as a map node, padded to its length; what is accepted
 * is written again as the same bytes, and can be judged against a head. */
#include <errno.h>

#include "src/volume/format.h"
#include "tests/fuzz/fuzz.h"

static struct ref refs[NODE_REFS];
static uint8_t node[NODE_BYTES], again[NODE_BYTES];

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t count)
{
	static struct head head = { .chunk_size = 65536, .size = 1ull << 37 };
	struct format_fault fault = { 0 };
	struct ref self = { 1000, 1, NODE_BYTES, 0 };
	unsigned int level;
	int error;

	expect(count == NODE_BYTES || node_decode(data, count, refs, &fault) == -EBADMSG);
	if (count > NODE_BYTES)
		return 0;
	memset(node, 0, sizeof(node));
	memcpy(node, data, count);
	error = node_decode(node, NODE_BYTES, refs, &fault);
	expect(!error || (error == -EBADMSG && fault.offset < NODE_BYTES));
	if (error)
		return 0;
	node_encode(refs, again);
	expect(!memcmp(node, again, NODE_BYTES));
	for (level = 0; level < MAP_LEVELS_MAX; level++) {
		error = node_check(&head, level, 1000, &self, refs, &fault);
		expect(!error || (error == -EBADMSG && fault.offset < NODE_BYTES));
	}
	return 0;
}
