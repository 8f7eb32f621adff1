/* fuzz-rescue.c: any bytes to the parsers of objmap-rescue, which were written from
 * objmap-volume(5) by itself, and to objmap's own: what one takes, the other takes,
 * and they say the same of it.  The first byte chooses the kind. */
#include "contrib/rescue/format.h"
#include "tests/fuzz/fuzz.h"
#include "tests/fuzz/rescue_objmap.h"

#define expect_same(kind, ours, theirs) do {					\
	if ((ours) != (theirs)) {						\
		fprintf(stderr, "%s: only %s takes it; the other says: %s\n",	\
			kind, (ours) ? "objmap-rescue" : "objmap",		\
			(ours) ? objmap_why : why);				\
		abort();							\
	}									\
} while (0)

static void check_head(const uint8_t *data, size_t count)
{
	static struct head head;
	static struct said_head said;
	char why[REASON_SIZE] = "", text[UUID_TEXT_SIZE];
	const char *origin;
	bool taken = parse_head(data, count, &head, why) == 0;

	expect_same("head", taken, objmap_takes_head(data, count, &said));
	if (!taken) {
		expect(why[0]);
		return;
	}
	expect(head.size == said.size && head.epoch == said.epoch);
	expect(head.nonce == said.nonce && head.chunk_size == said.chunk_size);
	expect(head.nr_root == said.nr_root && head.nr_recent == said.nr_recent);
	expect(head.nr_origins == said.nr_origins && head.deleted == said.deleted);
	expect(head.incomplete == said.incomplete && head.list_epoch == said.list_epoch);
	expect(!!head.holder[0] == said.held);
	expect(!head.nr_root ||
	       head.root[head.nr_root - 1].writer == said.last_root_writer);
	origin = origin_of(&head, 1000);
	expect(!strcmp(origin ? origin : "", said.origin));
	uuid_text(head.uuid, text);
	expect(strlen(text) == 36);
}

static int count_entry(const struct snapshot *entry, void *context)
{
	expect(entry->name_length && entry->name_length <= NAME_MAX_BYTES);
	expect(entry->prefix_length <= PREFIX_MAX);
	++*(unsigned int *)context;
	return 0;
}

static void check_list(const uint8_t *data, size_t count)
{
	unsigned int ours = 0, theirs = 0;
	char why[REASON_SIZE] = "";
	bool taken = parse_list(data, count, count_entry, &ours, why) == 0;

	expect_same("list", taken, objmap_takes_list(data, count, &theirs));
	expect(ours == theirs || !taken);
}

static void check_node(const uint8_t *data, size_t count)
{
	static uint8_t node[NODE_SIZE];
	static struct ref refs[NODE_REFS];
	/* The last node of either level is not full. */
	static struct head head = { .chunk_size = 65536, .nr_chunks = (1 << 21) - 5 };
	struct ref named = { 1000, 1, NODE_SIZE, 0 };
	char why[REASON_SIZE] = "";
	unsigned int level = count ? data[0] & 1 : 0;
	uint32_t number = (level ? 1 : 2047) - (count ? data[0] >> 1 & 1 : 0);
	uint64_t size = (uint64_t)head.nr_chunks << 16;
	bool taken;

	if (!count)
		return;
	memset(node, 0, sizeof(node));
	memcpy(node, data + 1, count - 1 < NODE_SIZE ? count - 1 : NODE_SIZE);
	taken = parse_node(node, &head, &named, level, number, refs, why) == 0;
	expect_same("node", taken, objmap_takes_node(node, size, level, number));
}

static void check_frames(const uint8_t *data, size_t count)
{
	static struct head head = { .frame_size = 65536 };
	struct ref ref = { 1, 1, 0, 0 };
	char why[REASON_SIZE] = "", *text = malloc(count + 1);
	struct frames frames;
	unsigned int nr;
	bool theirs;

	if (!text)
		return;
	memcpy(text, data, count);
	text[count] = 0;
	for (nr = 1; nr <= FRAMES_MAX; nr *= 2) {
		head.chunk_size = nr * 65536;
		ref.crc = 0;
		theirs = objmap_takes_frames(text, nr, &ref.crc);
		expect_same("frames", parse_frames(text, &head, &ref, &frames, why) == 0,
			    theirs);
	}
	free(text);
}

/* Gives @data its length and checksum, or no mutation would get beyond them. */
static uint8_t *sealed(const uint8_t *data, size_t count, const char *magic)
{
	uint8_t *copy = malloc(count);
	uint32_t crc;
	int i;

	if (!copy)
		return NULL;
	memcpy(copy, data, count);
	memcpy(copy, magic, 8);
	for (i = 0; i < 4; i++)
		copy[12 + i] = (uint8_t)(count >> (8 * i));
	crc = checksum(0, copy, count - 4);
	expect(crc == objmap_crc(copy, count - 4));
	for (i = 0; i < 4; i++)
		copy[count - 4 + (size_t)i] = (uint8_t)(crc >> (8 * i));
	return copy;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t count)
{
	uint8_t kind, *copy;

	if (!count)
		return 0;
	kind = data[0] % 4;
	data++;
	count--;
	if (kind == 2)
		check_node(data, count);
	if (kind == 3)
		check_frames(data, count);
	if (kind > 1)
		return 0;
	(kind ? check_list : check_head)(data, count);
	if (count < 20)
		return 0;
	copy = sealed(data, count, kind ? "OBJMSNAP" : "OBJMHEAD");
	if (copy)
		(kind ? check_list : check_head)(copy, count);
	free(copy);
	return 0;
}
