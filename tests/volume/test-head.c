/* test-head.c: head as bytes: they never change, come back whole, and nothing
 * else is taken for a head. */
#include <criterion/criterion.h>
#include <errno.h>
#include <signal.h>
#include <stdlib.h>

#include "src/crc32c.h"
#include "src/volume/bytes.h"
#include "tests/volume/heads.h"

static struct head head, again;
static uint8_t bytes[HEAD_BYTES_MAX], other[HEAD_BYTES_MAX];
static struct format_fault fault;

/* Written by objmap 0.1.0.  If this changes, volumes out there cannot be read. */
static const char golden[] =
#include "tests/volume/golden-head.h"
	;

static void expect_hex(const uint8_t *data, size_t count, const char *hex)
{
	size_t i;
	char two[3];

	cr_assert_eq(strlen(hex), 2 * count);
	for (i = 0; i < count; i++) {
		snprintf(two, sizeof two, "%02x", data[i]);
		cr_assert(!memcmp(two, hex + 2 * i, 2), "byte %zu is %s", i, two);
	}
}

Test(head, its_bytes_never_change)
{
	size_t count;

	head_small(&head);
	count = head_encode(&head, bytes);
	expect_hex(bytes, count, golden);
}

static void expect_same(const struct head *a, const struct head *b)
{
	unsigned int i;

	cr_assert(!memcmp(a->uuid, b->uuid, 16));
	cr_assert_eq(a->state, b->state);
	cr_assert_eq(a->size, b->size);
	cr_assert_eq(a->created, b->created);
	cr_assert_eq(a->epoch, b->epoch);
	cr_assert_eq(a->writer, b->writer);
	cr_assert_eq(a->nonce, b->nonce);
	cr_assert_eq(a->committed, b->committed);
	cr_assert_eq(a->sequence, b->sequence);
	cr_assert_eq(a->holder.held, b->holder.held);
	cr_assert_eq(a->holder.journal, b->holder.journal);
	cr_assert_eq(a->holder.lock_inode, b->holder.lock_inode);
	cr_assert_str_eq(a->holder.host, b->holder.host);
	cr_assert_str_eq(a->holder.machine, b->holder.machine);
	cr_assert_str_eq(a->holder.boot, b->holder.boot);
	cr_assert_eq(a->nr_history, b->nr_history);
	for (i = 0; i < a->nr_history; i++)
		cr_assert_eq(a->history[i].sequence, b->history[i].sequence);
	cr_assert_eq(a->nr_root, b->nr_root);
	for (i = 0; i < a->nr_root; i++)
		cr_assert(ref_equal(&a->root[i], &b->root[i]));
	cr_assert_eq(a->nr_recent, b->nr_recent);
	for (i = 0; i < a->nr_recent; i++)
		cr_assert(a->recent[i].chunk == b->recent[i].chunk &&
			  ref_equal(&a->recent[i].ref, &b->recent[i].ref));
	cr_assert_eq(a->snapshot_newest, b->snapshot_newest);
	cr_assert_eq(a->nr_origins, b->nr_origins);
	for (i = 0; i < a->nr_origins; i++)
		cr_assert_str_eq(a->origins[i].prefix, b->origins[i].prefix);
}

static void expect_round_trip(void)
{
	size_t count = head_encode(&head, bytes);
	int error = head_decode(bytes, count, &again, &fault);

	cr_assert_eq(error, 0, "at %zu: %s", fault.offset, fault.what);
	expect_same(&head, &again);
	cr_assert_eq(head_encode(&again, other), count);
	cr_assert(!memcmp(bytes, other, count));
}

Test(head, a_small_one_comes_back)
{
	head_small(&head);
	expect_round_trip();
}

Test(head, the_largest_fits_and_comes_back_with_room_for_a_block)
{
	head_largest(&head);
	cr_assert_leq(head_encode(&head, bytes), HEAD_BYTES_MAX - 4096);
	expect_round_trip();
}

Test(head, a_tombstone_comes_back)
{
	head_small(&head);
	head.state = HEAD_DELETED;
	head.size = 0;
	head.nr_root = head.nr_recent = head.nr_origins = 0;
	head.snapshot_list_epoch = head.snapshot_list_nonce = head.snapshot_newest = 0;
	head.holder = (struct holder){ 0 };
	expect_round_trip();
}

Test(head, a_host_name_of_strange_bytes_still_makes_a_readable_head)
{
	head_small(&head);
	strcpy(head.holder.host, "a\nb\x1b[31m \xff");
	cr_assert_eq(head_decode(bytes, head_encode(&head, bytes), &again, &fault), 0);
	cr_assert_str_eq(again.holder.host, "a?b?[31m ?");
}

Test(head, one_that_nobody_could_read_is_never_written, .signal = SIGABRT)
{
	head_small(&head);
	head.recent[0].chunk = 2;
	head_encode(&head, bytes);
}

/* ---- what is refused ---------------------------------------------------------- */

static void seal(size_t count)
{
	put_u32(bytes + 12, (uint32_t)count);
	put_u32(bytes + count - 4, crc32c(0, bytes, count - 4));
}

/* Where the payload of section @type begins. */
static size_t payload(size_t count, unsigned int type)
{
	size_t at = 16;

	while (at < count - 4 && get_u16(bytes + at) != type)
		at += 8 + ((get_u32(bytes + at + 4) + 7) & ~7u);
	cr_assert_lt(at, count - 4, "no section %u", type);
	return at + 8;
}

/* One field of head_small() set to something else. */
static const struct change {
	unsigned int section, offset, width;
	uint64_t value;
	unsigned int fault;		/* offset in the payload */
	const char *what;
} changes[] = {
	{ 1, 32, 4, 65535, 32, "not a power of two" },
	{ 1, 32, 4, 32768, 32, "not a power of two" },
	{ 1, 32, 4, 128 << 20, 32, "not a power of two" },
	{ 1, 36, 4, 4096, 36, "frame size 4096" },
	{ 1, 40, 4, 1, 40, "unknown codec 1" },
	{ 1, 44, 4, 2, 44, "unknown state 2" },
	{ 1, 44, 4, 4, 44, "unknown state 4" },
	{ 1, 44, 4, 3, 24, "a deleted volume has a size" },
	{ 1, 24, 8, 0, 24, "size 0" },
	{ 1, 24, 8, UINT64_MAX, 24, "more than 2^30 chunks" },
	{ 1, 24, 8, 300000, 0, "root of 3 refs; the size needs 5" },
	{ 2, 0, 8, 0, 0, "epoch is 0" },
	{ 2, 0, 8, UINT64_MAX, 0, "epoch is the last" },
	{ 2, 0, 8, 0x20002, 0, "recent ref 0 is newer than head" },
	{ 2, 0, 8, 0x10000, 8, "too new an epoch" },
	{ 3, 40, 4, 2, 40, "unknown flags of holder" },
	{ 3, 45, 1, '\n', 44, "host of holder is no text" },
	{ 3, 60, 1, 'x', 44, "host of holder is no text" },
	{ 3, 140, 1, 'x', 108, "machine id of holder is no text" },
	{ 3, 177, 1, 'x', 141, "boot id of holder is no text" },
	{ 3, 178, 1, 1, 178, "padding of section 3 is not zero" },
	{ 4, 8, 8, 0x20004, 8, "too new an epoch" },
	{ 5, 0, 8, 0x20004, 0, "ref 0 of root is newer than head" },
	{ 5, 16, 4, 0, 0, "ref 0 of root is none" },
	{ 5, 16, 4, 65536 | 1u << 28, 0, "ref 0 of root is none" },
	{ 5, 16, 4, 65535, 0, "wrong length" },
	{ 5, 32, 8, 1, 24, "ref 1 of root is none" },
	{ 5, 44, 4, 1, 24, "ref 1 of root is none" },
	{ 6, 0, 4, 2, 28, "recent ref 1 is out of order" },
	{ 6, 28, 4, 3, 28, "recent ref 1 lies beyond" },
	{ 6, 4, 8, 0x20004, 0, "recent ref 0 is newer" },
	{ 6, 20, 4, 24576, 0, "wrong length" },
	{ 7, 0, 8, 0, 0, "without a list" },
	{ 7, 0, 8, 0x20005, 0, "snapshot list is newer than head" },
	{ 7, 16, 8, 0x20004, 16, "newest snapshot is newer" },
	{ 8, 0, 8, 0, 0, "epoch of origin 0" },
	{ 8, 0, 8, 0x20004, 0, "epoch of origin 0" },
	{ 8, 8, 4, 12, 0, "origin 0 is cut" },
	{ 8, 8, 4, UINT32_MAX, 0, "origin 0 is cut" },
	{ 8, 8, 4, 10, 22, "origin 1 is cut" },
	{ 8, 12, 1, '/', 0, "prefix of origin 0" },
	{ 8, 13, 1, 0, 0, "origin 0 is cut" },
	{ 8, 13, 1, 0x7f, 0, "prefix of origin 0" },
	{ 8, 13, 1, 0xff, 0, "prefix of origin 0" },
	{ 8, 22, 1, '/', 0, "prefix of origin 0" },
};

Test(head, a_field_that_cannot_be_is_refused_and_where_is_said)
{
	const struct change *c;
	size_t count, at, i;
	int error;

	for (c = changes; c < changes + sizeof changes / sizeof *changes; c++) {
		head_small(&head);
		count = head_encode(&head, bytes);
		at = payload(count, c->section);
		for (i = 0; i < c->width; i++)
			bytes[at + c->offset + i] = (uint8_t)(c->value >> 8 * i);
		seal(count);
		error = head_decode(bytes, count, &again, &fault);
		cr_expect_eq(error, -EBADMSG, "section %u offset %u: %d", c->section,
			     c->offset, error);
		cr_expect(strstr(fault.what, c->what), "section %u offset %u says: %s",
			  c->section, c->offset, fault.what);
		if (strstr(c->what, "root of") || strstr(c->what, "too new") ||
		    strstr(c->what, "recent ref 0 is newer than"))
			continue;	/* stands in another section */
		cr_expect_eq(fault.offset, at + c->fault,
			     "section %u offset %u: fault at %zu, not %zu", c->section,
			     c->offset, fault.offset, at + c->fault);
	}
}

/* Adds a section behind the last one. */
static size_t append(size_t count, unsigned int type, unsigned int flags,
		     uint32_t length)
{
	size_t at = count - 4;

	memset(bytes + at, 0, 8 + ((length + 7) & ~7u));
	put_u16(bytes + at, (uint16_t)type);
	put_u16(bytes + at + 2, (uint16_t)flags);
	put_u32(bytes + at + 4, length);
	count += 8 + ((length + 7) & ~7u);
	seal(count);
	return count;
}

Test(head, an_unknown_section_is_passed_over)
{
	size_t count;

	head_small(&head);
	count = append(head_encode(&head, bytes), 77, 0, 5);
	cr_assert_eq(head_decode(bytes, count, &again, &fault), 0, "%s", fault.what);
	expect_same(&head, &again);
}

Test(head, an_unknown_section_marked_must_is_refused_by_name)
{
	size_t count;

	head_small(&head);
	count = append(head_encode(&head, bytes), 77, 1, 0);
	cr_assert_eq(head_decode(bytes, count, &again, &fault), -ENOTSUP);
	cr_assert(strstr(fault.what, "section of type 77"));
	cr_assert_eq(fault.offset, count - 12);
}

Test(head, a_section_twice_or_out_of_order_is_refused)
{
	size_t count, before;

	head_small(&head);
	before = head_encode(&head, bytes);
	count = append(before, 7, 1, 24);
	cr_assert_eq(head_decode(bytes, count, &again, &fault), -EBADMSG);
	cr_assert(strstr(fault.what, "section of type 7 after one of type 8"));
	cr_assert_eq(fault.offset, before - 4);
	head_small(&head);
	count = append(head_encode(&head, bytes), 8, 1, 24);
	cr_assert_eq(head_decode(bytes, count, &again, &fault), -EBADMSG);
}

Test(head, a_section_without_its_must_or_with_other_flags_is_refused)
{
	size_t count, at;

	head_small(&head);
	count = head_encode(&head, bytes);
	at = payload(count, 5) - 6;
	bytes[at] = 0;
	seal(count);
	cr_assert_eq(head_decode(bytes, count, &again, &fault), -EBADMSG);
	cr_assert(strstr(fault.what, "root is not marked must"));
	bytes[at] = 3;
	seal(count);
	cr_assert_eq(head_decode(bytes, count, &again, &fault), -EBADMSG);
	cr_assert(strstr(fault.what, "unknown flags"));
	cr_assert_eq(fault.offset, at);
}

Test(head, a_list_too_long_by_one_is_refused)
{
	static const unsigned int types[] = { 4, 5, 6 };
	static const unsigned int units[] = { 24, 24, 28 };
	size_t count, at, i, tail;

	for (i = 0; i < 3; i++) {
		head_largest(&head);
		count = head_encode(&head, bytes);
		at = payload(count, types[i]);
		tail = at + get_u32(bytes + at - 4);
		tail = (tail + 7) & ~(size_t)7;
		memmove(bytes + tail + 32, bytes + tail, count - tail);
		put_u32(bytes + at - 4, get_u32(bytes + at - 4) + units[i]);
		memset(bytes + tail, 0, 32);
		seal(count + 32);
		cr_assert_eq(head_decode(bytes, count + 32, &again, &fault), -EBADMSG);
	}
}

Test(head, one_without_identity_or_commit_is_refused)
{
	size_t count;

	memset(bytes, 0, sizeof bytes);
	memcpy(bytes, "OBJMHEAD", 8);
	put_u32(bytes + 8, 1);
	seal(20);
	cr_assert_eq(head_decode(bytes, 20, &again, &fault), -EBADMSG);
	cr_assert(strstr(fault.what, "no section identity"));
	count = append(20, 1, 1, 48);
	put_u32(bytes + 24 + 44, 1);
	seal(count);
	cr_assert_eq(head_decode(bytes, count, &again, &fault), -EBADMSG);
	cr_assert(strstr(fault.what, "no section commit"));
}

Test(head, every_flipped_bit_is_noticed)
{
	size_t count, i;

	head_small(&head);
	count = head_encode(&head, bytes);
	for (i = 0; i < 8 * count; i++) {
		bytes[i / 8] ^= (uint8_t)(1 << i % 8);
		cr_assert_eq(head_decode(bytes, count, &again, &fault), -EBADMSG,
			     "bit %zu", i);
		bytes[i / 8] ^= (uint8_t)(1 << i % 8);
	}
}

Test(head, every_cut_and_every_longer_one_is_noticed)
{
	size_t count, i;

	head_small(&head);
	count = head_encode(&head, bytes);
	bytes[count] = 0;
	cr_assert_eq(head_decode(bytes, count + 1, &again, &fault), -EBADMSG);
	for (i = 0; i < count; i++)
		cr_assert_eq(head_decode(bytes, i, &again, &fault), -EBADMSG);
	/* ... and a cut one that was sealed again. */
	for (i = 24; i < count - 4; i += 8) {
		head_encode(&head, bytes);
		seal(i);
		if (head_decode(bytes, i, &again, &fault) == 0)
			cr_assert_eq(head_encode(&again, other), i);
	}
}

Test(head, a_newer_version_is_not_called_damaged)
{
	size_t count;

	head_small(&head);
	count = head_encode(&head, bytes);
	put_u32(bytes + 8, 2);
	seal(count);
	cr_assert_eq(head_decode(bytes, count, &again, &fault), -ENOTSUP);
	cr_assert(strstr(fault.what, "format version 2"));
	put_u32(bytes + 8, 0);
	seal(count);
	cr_assert_eq(head_decode(bytes, count, &again, &fault), -EBADMSG);
}

/* ---- keys of refs -------------------------------------------------------------- */

Test(head, what_is_not_newer_than_an_origin_lies_there)
{
	struct ref ref = test_ref(0x100, 0xab, 65536);
	char key[VOLUME_KEY_MAX];

	head_small(&head);
	head_chunk_key(&head, 0x1ff, &ref, key);
	cr_assert_str_eq(key, "/images/base/chunk/ff/000001ff-0000000000000100-00000000000000ab");
	head_node_key(&head, 1, 2, &ref, key);
	cr_assert_str_eq(key, "/images/base/map/1/00000002-0000000000000100-00000000000000ab");
	ref.epoch++;
	head_chunk_key(&head, 0x1ff, &ref, key);
	cr_assert_str_eq(key, "chunk/ff/000001ff-0000000000000101-00000000000000ab");
}

Test(head, the_oldest_origin_that_reaches_is_taken)
{
	struct ref ref = test_ref(3, 1, 65536);
	char key[VOLUME_KEY_MAX];

	head_largest(&head);
	head_chunk_key(&head, 1, &ref, key);
	cr_assert_eq(key[1], 'c');
	cr_assert_lt(strlen(key), VOLUME_KEY_MAX);
	ref.epoch = ORIGINS_MAX + 1;
	head_chunk_key(&head, 1, &ref, key);
	cr_assert_eq(key[0], 'c');
}
