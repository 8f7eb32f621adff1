/* test-pending.c: the table of uncommitted chunks, against a flat array. */
#include <criterion/criterion.h>
#include <string.h>

#include "src/random.h"
#include "src/volume/pending.h"

TestSuite(pending, .timeout = 60);

#define NR 300u			/* chunks of the flat array */

enum { NOTHING = 0, HOLE = 1 };	/* else: the byte a buffer is filled with */

static struct buffer_pool pool;
static int flat[NR];

static struct buffer *filled(uint8_t byte)
{
	struct buffer *buffer = buffer_new(&pool);

	memset(buffer->bytes, byte, pool.size);
	return buffer;
}

static void expect_same(const struct pending *table, const int *expected)
{
	const struct pending_entry *entry;
	uint64_t nr_data = 0, nr_entries = 0;
	uint32_t chunk;
	int is;

	for (chunk = 0; chunk < NR; chunk++) {
		entry = pending_find(table, chunk);
		if (entry && entry->first > chunk)
			entry = NULL;
		is = !entry ? NOTHING : !entry->buffer ? HOLE : entry->buffer->bytes[0];
		cr_assert_eq(is, expected[chunk], "chunk %u is %d, not %d", chunk, is,
			     expected[chunk]);
	}
	for (entry = pending_find(table, 0); entry;
	     entry = pending_find(table, entry->first + entry->nr)) {
		nr_entries++;
		nr_data += entry->buffer != NULL;
		cr_assert(entry->nr == 1 || !entry->buffer);
	}
	cr_assert_eq(nr_entries, table->nr_entries);
	cr_assert_eq(nr_data, table->nr_data);
}

static void change(struct pending *table, int *model, struct random *random)
{
	uint32_t first = (uint32_t)random_below(random, NR), nr, i;
	uint8_t byte;

	if (random_below(random, 3) == 0) {
		nr = 1 + (uint32_t)random_below(random, NR - first);
		if (random_below(random, 2))
			nr = 1 + nr % 5;
		if (nr > NR - first)
			nr = NR - first;
		cr_assert_eq(pending_put(table, first, nr, NULL), 0);
		for (i = first; i < first + nr; i++)
			model[i] = HOLE;
	} else {
		byte = (uint8_t)(2 + random_below(random, 250));
		cr_assert_eq(pending_put(table, first, 1, filled(byte)), 0);
		model[first] = byte;
	}
}

Test(pending, random_changes_and_merges_match_a_flat_array)
{
	struct pending table = { .seed = 1 }, newer = { .seed = 2 };
	int over[NR];
	struct random random;
	unsigned int round, i;
	uint64_t seed = 20240607;

	random_seed(&random, seed);
	buffer_pool_init(&pool, 4096, 1 << 20);
	for (round = 0; round < 2000; round++) {
		for (i = 0; i < 10; i++)
			change(&table, flat, &random);
		if (round % 7 == 0) {
			memset(over, 0, sizeof(over));
			for (i = 0; i < round % 40; i++)
				change(&newer, over, &random);
			expect_same(&newer, over);
			pending_merge(&table, &newer);
			cr_assert_null(newer.top);
			for (i = 0; i < NR; i++)
				flat[i] = over[i] ? over[i] : flat[i];
		}
		if (round % 31 == 0) {
			i = (unsigned int)random_below(&random, NR + 1);
			pending_cut(&table, i);
			for (; i < NR; i++)
				flat[i] = NOTHING;
		}
		if (round % 20 == 0)
			expect_same(&table, flat);
	}
	pending_clear(&table);
	cr_assert_eq(table.nr_entries + table.nr_data + table.nr_spare, 0);
	cr_assert_eq(newer.nr_spare, 0);
	buffer_pool_deinit(&pool);
}

Test(pending, neighbouring_holes_become_one_entry)
{
	struct pending table = { .seed = 1 };
	uint32_t chunk;

	for (chunk = 0; chunk < 10000; chunk++)
		cr_assert_eq(pending_put(&table, chunk, 1, NULL), 0);
	cr_assert_eq(table.nr_entries, 1);
	cr_assert_eq(pending_put(&table, 20000, 1u << 29, NULL), 0);
	cr_assert_eq(pending_put(&table, 10000, 10000, NULL), 0);
	cr_assert_eq(table.nr_entries, 1);
	cr_assert_eq(pending_cost(&table, 1 << 20), PENDING_ENTRY_COST);
	pending_clear(&table);
}

Test(pending, a_reference_outlives_a_rewrite)
{
	struct pending table = { .seed = 1 };
	struct buffer *held;

	buffer_pool_init(&pool, 4096, 0);
	pending_put(&table, 5, 1, filled(3));
	held = buffer_get(pending_find(&table, 5)->buffer);
	pending_put(&table, 5, 1, filled(4));
	cr_assert_eq(held->bytes[100], 3);
	cr_assert_eq(pending_find(&table, 5)->buffer->bytes[100], 4);
	buffer_put(held);
	pending_clear(&table);
	buffer_pool_deinit(&pool);
}
