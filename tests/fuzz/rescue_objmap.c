/* rescue_objmap.c: objmap's side of fuzz-rescue. */
#include <string.h>

#include "src/crc32c.h"
#include "src/volume/format.h"
#include "tests/fuzz/rescue_objmap.h"

char objmap_why[160];

static bool refused(const struct format_fault *fault)
{
	memcpy(objmap_why, fault->what, sizeof(objmap_why));
	return false;
}

bool objmap_takes_head(const uint8_t *data, size_t count, struct said_head *said)
{
	static struct head head;
	struct format_fault fault;
	unsigned int i;

	if (head_decode(data, count, &head, &fault))
		return refused(&fault);
	memset(said, 0, sizeof(*said));
	said->size = head.size;
	said->epoch = head.epoch;
	said->nonce = head.nonce;
	said->list_epoch = head.snapshot_list_epoch;
	said->chunk_size = head.chunk_size;
	said->nr_root = head.nr_root;
	said->nr_recent = head.nr_recent;
	said->nr_origins = head.nr_origins;
	said->deleted = head.state == HEAD_DELETED;
	said->incomplete = head.state == HEAD_INCOMPLETE;
	said->held = head.holder.host[0];
	if (head.nr_root)
		said->last_root_writer = head.root[head.nr_root - 1].writer;
	for (i = 0; i < head.nr_origins && !said->origin[0]; i++)
		if (head.origins[i].epoch >= 1000)
			strcpy(said->origin, head.origins[i].prefix);
	return true;
}

bool objmap_takes_list(const uint8_t *data, size_t count, unsigned int *nr_entries)
{
	struct format_fault fault;
	struct snapshot_list list;

	if (snapshot_list_decode(data, count, &list, &fault))
		return refused(&fault);
	*nr_entries = list.nr;
	snapshot_list_free(&list);
	return true;
}

bool objmap_takes_node(const uint8_t *data, uint64_t size, unsigned int level,
		       uint32_t number)
{
	static struct ref refs[NODE_REFS];
	struct ref self = { 1000, 1, NODE_BYTES, 0 };
	static struct head head;
	struct format_fault fault;

	head.size = size;
	head.chunk_size = 65536;
	if (node_decode(data, NODE_BYTES, refs, &fault) ||
	    node_check(&head, level, number, &self, refs, &fault))
		return refused(&fault);
	return true;
}

bool objmap_takes_frames(const char *text, unsigned int nr_frames, uint32_t *crc)
{
	struct frame_table table;
	unsigned int i;

	if (frame_table_parse(text, nr_frames, &table))
		return false;
	*crc = frame_table_crc(&table);
	for (i = 0; i < nr_frames; i++)
		if (table.frames[i].stored != 65536)
			return false;
	return true;
}

uint32_t objmap_crc(const uint8_t *data, size_t count)
{
	return crc32c(0, data, count);
}
