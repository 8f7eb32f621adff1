/* test-format.c: keys, refs, nodes, frame tables, snapshot lists and condemned
 * lists as bytes. */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdlib.h>

#include "backends/store/store.h"
#include "src/crc32c.h"
#include "src/volume/bytes.h"
#include "tests/volume/heads.h"

static struct format_fault fault;

/* ---- keys ---------------------------------------------------------------------- */

Test(key, each_kind_is_written_as_documented_and_read_back)
{
	char key[VOLUME_KEY_MAX];
	struct key parsed;

	key_chunk(key, 0x12345, 0xabc, 0xdef);
	cr_assert_str_eq(key, "chunk/45/00012345-0000000000000abc-0000000000000def");
	key_parse(key, &parsed);
	cr_assert(parsed.kind == KEY_KIND_CHUNK && parsed.index == 0x12345 &&
		  parsed.epoch == 0xabc && parsed.writer == 0xdef);
	key_node(key, 1, 0x3ff, UINT64_MAX, 1);
	cr_assert_str_eq(key, "map/1/000003ff-ffffffffffffffff-0000000000000001");
	key_parse(key, &parsed);
	cr_assert(parsed.kind == KEY_KIND_NODE && parsed.level == 1 &&
		  parsed.index == 0x3ff && parsed.epoch == UINT64_MAX);
	key_snapshot_list(key, 1, 2);
	cr_assert_str_eq(key, "snapshot/list-0000000000000001-0000000000000002");
	key_parse(key, &parsed);
	cr_assert(parsed.kind == KEY_KIND_SNAPSHOT_LIST && parsed.writer == 2);
	key_snapshot_body(key, 1, 2);
	cr_assert_str_eq(key, "snapshot/body-0000000000000001-0000000000000002");
	key_parse(key, &parsed);
	cr_assert_eq(parsed.kind, KEY_KIND_SNAPSHOT_BODY);
	key_condemned(key, 1, 2);
	cr_assert_str_eq(key, "condemned/0000000000000001-0000000000000002");
	key_parse(key, &parsed);
	cr_assert_eq(parsed.kind, KEY_KIND_CONDEMNED);
	key_probe(key, 0xfe);
	cr_assert_str_eq(key, "probe/00000000000000fe");
	key_parse(key, &parsed);
	cr_assert(parsed.kind == KEY_KIND_PROBE && parsed.writer == 0xfe);
	key_parse("head", &parsed);
	cr_assert_eq(parsed.kind, KEY_KIND_HEAD);
}

static const char *const foreign[] = {
	"", "heads", "head/", "/head", "Head", "chunk", "chunk/",
	"chunk/45/00012345-0000000000000abc-0000000000000de",	/* short */
	"chunk/45/00012345-0000000000000abc-0000000000000def0",	/* long */
	"chunk/45/00012345-0000000000000abc-0000000000000deF",	/* upper case */
	"chunk/46/00012345-0000000000000abc-0000000000000def",	/* other shard */
	"chunk/45/40000045-0000000000000abc-0000000000000def",	/* beyond 2^30 */
	"chunk/45/00012345+0000000000000abc-0000000000000def",
	"chunk/45/0x012345-0000000000000abc-0000000000000def",
	"chunk/45/ 0012345-0000000000000abc-0000000000000def",
	"map/2/00000000-0000000000000abc-0000000000000def",	/* no such level */
	"map/1/00000400-0000000000000abc-0000000000000def",	/* beyond 2^30 */
	"map/0/00100000-0000000000000abc-0000000000000def",
	"snapshot/list-0000000000000001-0000000000000002.tmp",
	"chunk/map/1/000003ff-0000000000000001-0000000000000002",	/* a key in a key */
	"snapshot/list-condemned/0000000000000001-0000000000000002",
	"probe/00000000000000fe/x", "condemned/0000000000000001",
	"chunk/45/00012345-0000000000000abc-0000000000000def\n",
};

Test(key, anything_not_written_exactly_so_is_foreign)
{
	struct key parsed;
	size_t i;

	for (i = 0; i < sizeof foreign / sizeof *foreign; i++) {
		key_parse(foreign[i], &parsed);
		cr_assert_eq(parsed.kind, KEY_KIND_FOREIGN, "\"%s\"", foreign[i]);
	}
}

/* ---- geometry and nodes ------------------------------------------------------------ */

Test(map, levels_begin_where_the_root_is_full)
{
	static const struct { uint32_t chunks; unsigned int levels; uint32_t root; }
	expected[] = { { 1, 0, 1 }, { 1024, 0, 1024 }, { 1025, 1, 2 },
		       { 1 << 20, 1, 1024 }, { (1 << 20) + 1, 2, 2 },
		       { 1 << 24, 2, 16 }, { 1 << 30, 2, 1024 } };
	size_t i;

	for (i = 0; i < sizeof expected / sizeof *expected; i++) {
		cr_assert_eq(map_levels(expected[i].chunks), expected[i].levels);
		cr_assert_eq(map_nr_root(expected[i].chunks), expected[i].root);
	}
}

Test(map, a_size_is_rounded_up_to_chunks_and_bounded)
{
	cr_assert_eq(volume_nr_chunks(1, 65536), 1);
	cr_assert_eq(volume_nr_chunks(65536, 65536), 1);
	cr_assert_eq(volume_nr_chunks(65537, 65536), 2);
	cr_assert_eq(volume_nr_chunks(0, 65536), 0);
	cr_assert_eq(volume_nr_chunks(1ull << 46, 65536), 1u << 30);
	cr_assert_eq(volume_nr_chunks((1ull << 46) + 1, 65536), 0);
	cr_assert_eq(volume_nr_chunks(UINT64_MAX, 65536), 0);
	cr_assert_eq(frame_size_of(65536), 65536);
	cr_assert_eq(frame_size_of(8 << 20), 65536);
	cr_assert_eq(frame_size_of(16 << 20), 131072);
	cr_assert_eq(frame_size_of(64 << 20), 524288);
}

static struct ref refs[NODE_REFS], refs_again[NODE_REFS];
static uint8_t node[NODE_BYTES];

static void node_fill(uint32_t stored)
{
	unsigned int i;

	for (i = 0; i < NODE_REFS; i++)
		refs[i] = i % 3 ? test_ref(i, i * 7, stored) : (struct ref){ 0 };
}

Test(node, comes_back_whole)
{
	static const uint8_t first[24] = { 1, 0, 0, 0, 0, 0, 0, 0, 7, 0, 0, 0, 0, 0,
					   0, 0, 0, 0, 1, 0, 0xb1, 0x79, 0x37, 0x9e };
	unsigned int i;

	node_fill(65536);
	node_encode(refs, node);
	cr_assert(!memcmp(node + 24, first, 24));
	cr_assert_eq(node_decode(node, NODE_BYTES, refs_again, &fault), 0);
	for (i = 0; i < NODE_REFS; i++)
		cr_assert(ref_equal(&refs[i], &refs_again[i]));
}

Test(node, what_no_writer_can_have_meant_is_refused_and_where_is_said)
{
	node_fill(65536);
	node_encode(refs, node);
	cr_assert_eq(node_decode(node, NODE_BYTES - 1, refs_again, &fault), -EBADMSG);
	node[3 * 24 + 20] = 1;		/* a hole with a CRC */
	cr_assert_eq(node_decode(node, NODE_BYTES, refs_again, &fault), -EBADMSG);
	cr_assert_eq(fault.offset, 3 * 24);
	node_encode(refs, node);
	put_u32(node + 4 * 24 + 16, 0);	/* an object of no bytes */
	cr_assert_eq(node_decode(node, NODE_BYTES, refs_again, &fault), -EBADMSG);
	cr_assert_eq(fault.offset, 4 * 24);
	put_u32(node + 4 * 24 + 16, 65536 | 2u << 28);	/* a codec to come */
	cr_assert_eq(node_decode(node, NODE_BYTES, refs_again, &fault), -EBADMSG);
}

Test(node, refs_that_do_not_fit_the_volume_are_found)
{
	static struct head head;
	struct ref self = test_ref(2000, 1, NODE_BYTES);

	head_small(&head);
	head.size = 65536ull * (5 * 1024 + 1024);
	node_fill(65536);
	cr_assert_eq(node_check(&head, 0, 5, &self, refs, &fault), 0);
	self.epoch = 1021;
	cr_assert_eq(node_check(&head, 0, 5, &self, refs, &fault), -EBADMSG);
	cr_assert_eq(fault.offset, 1022 * 24);
	self.epoch = 2000;
	cr_assert_eq(node_check(&head, 1, 5, &self, refs, &fault), -EBADMSG);
	cr_assert_eq(fault.offset, 24 + 16);
	cr_assert_eq(node_check(&head, 0, 6, &self, refs, &fault), -EBADMSG);
	head.size -= 65536;
	cr_assert_eq(node_check(&head, 0, 5, &self, refs, &fault), 0);
	head.size -= 65536;
	cr_assert_eq(node_check(&head, 0, 5, &self, refs, &fault), -EBADMSG);
	cr_assert_eq(fault.offset, 1022 * 24);
}

/* ---- frame tables and metadata ---------------------------------------------------------- */

Test(frames, the_table_of_64_mib_fits_the_metadata_with_its_names)
{
	static struct frame_table table, again;
	static struct store_metadata metadata;
	uint8_t uuid[16] = { 0xff, 1, 2, 3 }, uuid_again[16];
	char text[FRAMES_TEXT_MAX], uuid_text[37], found[FRAMES_TEXT_MAX];
	uint8_t *chunk = calloc(1, CHUNK_SIZE_MAX);
	uint32_t sums[FRAMES_MAX], i;

	cr_assert(chunk);
	for (i = 0; i < CHUNK_SIZE_MAX; i += 4096)
		put_u32(chunk + i, i);
	crc32c_sum(sums, frame_size_of(CHUNK_SIZE_MAX), 0, chunk, CHUNK_SIZE_MAX);
	frame_table_fill(&table, sums, FRAMES_MAX, frame_size_of(CHUNK_SIZE_MAX));
	cr_assert_eq(table.nr_frames, FRAMES_MAX);
	frame_table_format(&table, text);
	cr_assert_eq(strlen(text) + 1, FRAMES_TEXT_MAX);
	uuid_format(uuid, uuid_text);
	cr_assert_eq(store_metadata_add(&metadata, METADATA_VOLUME, uuid_text), 0);
	cr_assert_eq(store_metadata_add(&metadata, METADATA_FRAMES, text), 0);
	cr_assert_eq(store_metadata_find(&metadata, METADATA_FRAMES, found,
					 sizeof found), (int)strlen(text));
	cr_assert_eq(frame_table_parse(found, FRAMES_MAX, &again), 0);
	cr_assert(!memcmp(&table, &again, sizeof table));
	cr_assert_eq(frame_table_crc(&table), frame_table_crc(&again));
	cr_assert_eq(again.frames[5].crc, crc32c(0, chunk + 5 * 524288, 524288));
	cr_assert(uuid_parse(uuid_text, uuid_again) && !memcmp(uuid, uuid_again, 16));
	free(chunk);
}

Test(frames, the_text_of_a_table_never_changes)
{
	struct frame_table table = { 2, { { 65536, 0x01020304 }, { 65536, 0xfffefdfc } } };
	char text[FRAMES_TEXT_MAX];

	frame_table_format(&table, text);
	cr_assert_str_eq(text, "AAABAAQDAgEAAAEA/P3+/w==");
	cr_assert_eq(frame_table_crc(&table), 0x6ef73a4f);
}

static const char *const no_tables[] = {
	"", "AAABAAQDAgEAAAEA/P3+/w=", "AAABAAQDAgEAAAEA/P3+/w", "AAABAAQDAgEAAAEA/P3+/x==",
	"AAABAAQDAgEAAAEA/P3+/wA=", "AAABAAQDAgEAAAEA/P3-/w==", " AAABAAQDAgEAAAEA/P3+/w==",
	"AAABAAQDAgEAAAEA/P3+/w==\n", "AAABAAQDAgEAAAEA/P3+====", "\nAABAAQDAgEAAAEA/P3+/w==",
	"AAABAAQDAgEAAAEA/P3+/w==AAABAAQDAgEAAAEA/P3+/w==", "AAABAAQDAgEAAAE\xff/P3+/w==",
};

Test(frames, any_other_text_is_refused)
{
	struct frame_table table;
	size_t i;

	cr_assert_eq(frame_table_parse("AAABAAQDAgEAAAEA/P3+/w==", 2, &table), 0);
	cr_assert_eq(frame_table_parse("AAABAAQDAgEAAAEA/P3+/w==", 1, &table), -EBADMSG);
	cr_assert_eq(frame_table_parse("AAABAAQDAgEAAAEA/P3+/w==", 0, &table), -EBADMSG);
	cr_assert_eq(frame_table_parse("AAABAAQDAgEAAAEA/P3+/w==", 129, &table), -EBADMSG);
	for (i = 0; i < sizeof no_tables / sizeof *no_tables; i++)
		cr_assert_eq(frame_table_parse(no_tables[i], 2, &table), -EBADMSG,
			     "\"%s\"", no_tables[i]);
}

Test(uuid, only_its_canonical_text_is_read)
{
	uint8_t uuid[16];

	cr_assert(uuid_parse("01234567-89ab-cdef-fedc-ba9876543210", uuid));
	cr_assert(!uuid_parse("01234567-89AB-cdef-fedc-ba9876543210", uuid));
	cr_assert(!uuid_parse("01234567-89ab-cdef-fedc-ba987654321", uuid));
	cr_assert(!uuid_parse("01234567-89ab-cdef-fedc-ba98765432100", uuid));
	cr_assert(!uuid_parse("012345678-9ab-cdef-fedc-ba9876543210", uuid));
	cr_assert(!uuid_parse("------------------------------------", uuid));
	cr_assert(!uuid_parse("01-23-45-67-89-ab-cd-ef-fe-dc-ba-987", uuid));
}

/* ---- snapshot lists ------------------------------------------------------------------------- */

static struct snapshot entries[] = {
	{ SNAPSHOT_NAMED, 5, 6, 0x66, 1700000000, 150000, "monday", "" },
	{ SNAPSHOT_CLONE, 5, 6, 0x67, 1700000001, 150000, "monday", "images/vm7" },
	{ SNAPSHOT_NAMED, 4, 5, 0x68, 1700000002, 140000, "G\xc3\xa4ste 2", "" },
};
static struct snapshot_list three = { 3, entries }, list_again;

Test(snapshot_list, its_bytes_never_change)
{
	static const char start[] =
		"\x4f\x42\x4a\x4d\x53\x4e\x41\x50\x01\0\0\0\xdc\0\0\0"
		"\x01\0\x01\0\x32\0\0\0" "\x05\0\0\0\0\0\0\0" "\x06\0\0\0\0\0\0\0"
		"\x66\0\0\0\0\0\0\0" "\0\xf1\x53\x65\0\0\0\0" "\xf0\x49\x02\0\0\0\0\0"
		"\x06\0\0\0" "monday\0\0\0\0\0\0" "\x02\0\x01\0\x3c\0\0\0";
	void *bytes;
	size_t count;

	cr_assert_eq(snapshot_list_encode(&three, &bytes, &count), 0);
	cr_assert_eq(count, 0xdc);
	cr_assert(!memcmp(bytes, start, sizeof start - 1));
	cr_assert_eq(get_u32((uint8_t *)bytes + count - 4), crc32c(0, bytes, count - 4));
	free(bytes);
}

Test(snapshot_list, comes_back_whole)
{
	void *bytes, *other;
	size_t count, other_count;
	unsigned int i;

	cr_assert_eq(snapshot_list_encode(&three, &bytes, &count), 0);
	cr_assert_eq(snapshot_list_decode(bytes, count, &list_again, &fault), 0, "%s",
		     fault.what);
	cr_assert_eq(list_again.nr, 3);
	for (i = 0; i < 3; i++) {
		cr_assert_str_eq(list_again.snapshots[i].name, entries[i].name);
		cr_assert_str_eq(list_again.snapshots[i].prefix, entries[i].prefix);
		cr_assert_eq(list_again.snapshots[i].body_nonce, entries[i].body_nonce);
	}
	cr_assert_eq(snapshot_list_encode(&list_again, &other, &other_count), 0);
	cr_assert(other_count == count && !memcmp(bytes, other, count));
	snapshot_list_free(&list_again);
	free(bytes);
	free(other);
}

Test(snapshot_list, an_empty_one_comes_back)
{
	struct snapshot_list none = { 0, NULL };
	void *bytes;
	size_t count;

	cr_assert_eq(snapshot_list_encode(&none, &bytes, &count), 0);
	cr_assert_eq(snapshot_list_decode(bytes, count, &list_again, &fault), 0);
	cr_assert_eq(list_again.nr, 0);
	free(bytes);
}

Test(snapshot_list, what_cannot_be_is_neither_written_nor_read)
{
	struct snapshot two[2] = { entries[0], entries[2] };
	struct snapshot_list list = { 2, two };
	void *bytes;
	size_t count, i;

	strcpy(two[1].name, "monday");
	cr_assert_eq(snapshot_list_encode(&list, &bytes, &count), -EEXIST);
	strcpy(two[1].name, "a/b");
	cr_assert_eq(snapshot_list_encode(&list, &bytes, &count), -EINVAL);
	strcpy(two[1].name, "tuesda");
	strcpy(two[1].prefix, "x");
	cr_assert_eq(snapshot_list_encode(&list, &bytes, &count), -EINVAL);
	two[1].prefix[0] = 0;
	two[1].body_epoch = two[1].epoch;
	cr_assert_eq(snapshot_list_encode(&list, &bytes, &count), -EINVAL);
	two[1].body_epoch++;
	cr_assert_eq(snapshot_list_encode(&list, &bytes, &count), 0);
	/* The same faults in bytes. */
	memcpy((uint8_t *)bytes + 16 + 64 + 8 + 44, "monday", 6);
	put_u32((uint8_t *)bytes + count - 4, crc32c(0, bytes, count - 4));
	cr_assert_eq(snapshot_list_decode(bytes, count, &list_again, &fault), -EBADMSG);
	cr_assert(strstr(fault.what, "same name"));
	memcpy((uint8_t *)bytes + 16 + 64 + 8 + 44, "mon@ay", 6);
	put_u32((uint8_t *)bytes + count - 4, crc32c(0, bytes, count - 4));
	cr_assert_eq(snapshot_list_decode(bytes, count, &list_again, &fault), -EBADMSG);
	cr_assert_eq(fault.offset, 16 + 64 + 8);
	for (i = 0; i < count; i++)
		cr_assert_eq(snapshot_list_decode(bytes, i, &list_again, &fault),
			     -EBADMSG);
	free(bytes);
}

Test(snapshot_list, a_name_is_text_without_slash_and_at)
{
	char longest[SNAPSHOT_NAME_MAX + 2];

	memset(longest, 'x', sizeof longest);
	longest[SNAPSHOT_NAME_MAX + 1] = 0;
	cr_assert(!snapshot_name_is_valid(longest));
	longest[SNAPSHOT_NAME_MAX] = 0;
	cr_assert(snapshot_name_is_valid(longest));
	cr_assert(snapshot_name_is_valid("\xf0\x9f\x98\x80"));
	cr_assert(!snapshot_name_is_valid(""));
	cr_assert(!snapshot_name_is_valid("a@b"));
	cr_assert(!snapshot_name_is_valid("a/b"));
	cr_assert(!snapshot_name_is_valid("a\tb"));
	cr_assert(!snapshot_name_is_valid("a\x7f"));
	cr_assert(!snapshot_name_is_valid("a\xc2\x85"));	/* C1 */
	cr_assert(!snapshot_name_is_valid("a\xc0\xaf"));	/* overlong '/' */
	cr_assert(!snapshot_name_is_valid("a\xed\xa0\x80"));	/* surrogate */
	cr_assert(!snapshot_name_is_valid("a\xe2\x82"));	/* cut */
}

/* ---- condemned lists ------------------------------------------------------------------------------ */

static struct condemned_entry condemned_entries[] = {
	{ (char *)"chunk/45/00012345-0000000000000abc-0000000000000def", NULL },
	{ (char *)"chunk/46/00012346-0000000000000abc-0000000000000def", (char *)"Up.load-1" },
	{ (char *)"probe/00000000000000fe", NULL },
};
static struct condemned three_condemned = { 0xabc, 3, condemned_entries }, condemned_again;

static const char condemned_text[] =
	"objmap-condemned 1 0000000000000abc\n"
	"chunk/45/00012345-0000000000000abc-0000000000000def\n"
	"chunk/46/00012346-0000000000000abc-0000000000000def Up.load-1\n"
	"probe/00000000000000fe\n";

static size_t sealed(const char *text, char *out)
{
	size_t length = strlen(text);

	memcpy(out, text, length);
	return length + (size_t)sprintf(out + length, "crc32c %08x\n",
					crc32c(0, text, length));
}

Test(condemned, its_text_never_changes_and_comes_back)
{
	char expected[1024];
	size_t count, length = sealed(condemned_text, expected);
	void *bytes;

	cr_assert_eq(condemned_encode(&three_condemned, &bytes, &count), 0);
	cr_assert_eq(count, length);
	cr_assert(!memcmp(bytes, expected, count));
	cr_assert_eq(condemned_decode(bytes, count, &condemned_again, &fault), 0);
	cr_assert_eq(condemned_again.nr, 3);
	cr_assert_eq(condemned_again.epoch, 0xabc);
	cr_assert_str_eq(condemned_again.entries[1].upload, "Up.load-1");
	cr_assert_null(condemned_again.entries[0].upload);
	cr_assert_str_eq(condemned_again.entries[2].key, "probe/00000000000000fe");
	condemned_free(&condemned_again);
	free(bytes);
}

static const char *const bad_lists[] = {
	"",
	"objmap-condemned 2 0000000000000abc\n",
	"objmap-condemned 1 0000000000000ABC\n",
	"objmap-condemned 1 0x00000000000abc\n",
	"objmap-condemned 1 0000000000000abc\nhead\n",
	"objmap-condemned 1 0000000000000abc\nmy/holiday.jpg\n",
	"objmap-condemned 1 0000000000000abc\n\n",
	"objmap-condemned 1 0000000000000abc\nprobe/00000000000000fe",
	"objmap-condemned 1 0000000000000abc\nprobe/00000000000000fe \n",
	"objmap-condemned 1 0000000000000abc\nprobe/00000000000000fe a b\n",
	"objmap-condemned 1 0000000000000abc\nprobe/00000000000000fe\r\n",
	"objmap-condemned 1 0000000000000abc\n/probe/00000000000000fe\n",
	/* newer than the list */
	"objmap-condemned 1 0000000000000abb\nchunk/45/00012345-0000000000000abc-0000000000000def\n",
};

Test(condemned, nothing_but_old_keys_of_a_volume_can_be_condemned)
{
	char text[1024];
	size_t i, count;

	for (i = 0; i < sizeof bad_lists / sizeof *bad_lists; i++) {
		count = sealed(bad_lists[i], text);
		cr_assert_eq(condemned_decode(text, count, &condemned_again, &fault),
			     -EBADMSG, "list %zu", i);
		cr_assert_null(condemned_again.entries);
	}
}

Test(condemned, neither_writes_the_encoder_one)
{
	struct condemned_entry head_entry = { (char *)"head", NULL };
	struct condemned list = { 0xabc, 1, &head_entry };
	void *bytes;
	size_t count;

	cr_assert_eq(condemned_encode(&list, &bytes, &count), -EINVAL);
	three_condemned.epoch--;
	cr_assert_eq(condemned_encode(&three_condemned, &bytes, &count), -EINVAL);
}

Test(condemned, every_changed_byte_is_noticed)
{
	char text[1024];
	size_t count = sealed(condemned_text, text), i;

	for (i = 0; i < count; i++) {
		text[i] ^= 1;
		cr_assert_eq(condemned_decode(text, count, &condemned_again, &fault),
			     -EBADMSG, "byte %zu", i);
		text[i] ^= 1;
		cr_assert_eq(condemned_decode(text, i, &condemned_again, &fault),
			     -EBADMSG, "cut at %zu", i);
	}
}
