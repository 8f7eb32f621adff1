/* test-dirty.c: the map of written ranges against a flat array. */
#include <criterion/criterion.h>
#include <string.h>

#include "backends/object/dirty.h"
#include "src/random.h"

#define SIZE 20000u

/* Byte of a device: which file and which byte of it; 0: not written. */
struct byte {
	uintptr_t spill;
	uint64_t at;
};
static struct byte flat[SIZE];

static void expect_same(const struct dirty_map *map)
{
	static struct byte seen[SIZE];
	struct dirty_range range;
	uint64_t offset = 0, count = 0;
	size_t nr = 0;

	memset(seen, 0, sizeof(seen));
	for (; dirty_next(map, offset, &range); offset = range.end, nr++) {
		cr_assert(range.start >= offset && range.start < range.end &&
			  range.end <= SIZE);
		for (uint64_t i = range.start; i < range.end; i++)
			seen[i] = (struct byte){ (uintptr_t)range.spill + 1,
				range.spill ? range.at + i - range.start : 0 };
		count += range.end - range.start;
	}
	cr_assert(memcmp(seen, flat, sizeof(seen)) == 0);
	cr_assert_eq(count, map->count);
	cr_assert_eq(nr, map->nr);
}

static void set(struct dirty_map *map, uint64_t start, uint64_t end,
		uintptr_t spill, uint64_t at)
{
	cr_assert_eq(dirty_set(map, start, end, (struct spill *)spill, at), 0);
	for (uint64_t i = start; i < end; i++)
		flat[i] = (struct byte){ spill + 1, spill ? at + i - start : 0 };
}

Test(dirty, any_order_of_writes_gives_what_a_flat_array_holds)
{
	for (uint64_t seed = 1; seed <= 6; seed++) {
		struct dirty_map map = { 0 };
		struct random random;
		uint64_t longest = seed % 3 == 0 ? 3 : seed % 3 == 1 ? 40 : 9000;

		random_seed(&random, seed);
		memset(flat, 0, sizeof(flat));
		for (unsigned int i = 0; i < 12000; i++) {
			uint64_t start = random_below(&random, SIZE);
			uint64_t end = start + 1 + random_below(&random, longest);

			if (end > SIZE)
				end = SIZE;
			set(&map, start, end, random_below(&random, 3),
			    random_below(&random, 1 << 20));
			if (i % 500 == 0)
				expect_same(&map);
		}
		expect_same(&map);
		dirty_clear(&map);
	}
}

Test(dirty, writes_that_follow_each_other_are_one_range)
{
	struct dirty_map map = { 0 };

	memset(flat, 0, sizeof(flat));
	for (uint64_t at = 0; at < 10000; at += 10)
		set(&map, at, at + 10, 1, 500 + at);
	cr_assert_eq(map.nr, 1);
	set(&map, 10000, 10010, 1, 3);		/* elsewhere in the file */
	cr_assert_eq(map.nr, 2);
	set(&map, 10010, 10020, 0, 77);		/* zeros need no place */
	set(&map, 10020, 10030, 0, 99);
	cr_assert_eq(map.nr, 3);
	expect_same(&map);
	dirty_clear(&map);
}

Test(dirty, a_range_asked_for_is_cut_to_where_it_was_asked)
{
	struct dirty_map map = { 0 };
	struct dirty_range range;

	memset(flat, 0, sizeof(flat));
	set(&map, 100, 200, 1, 1000);
	cr_assert(dirty_next(&map, 150, &range));
	cr_assert(range.start == 150 && range.end == 200 && range.at == 1050);
	cr_assert(dirty_next(&map, 0, &range) && range.start == 100);
	cr_assert_not(dirty_next(&map, 200, &range));
	dirty_clear(&map);
}

Test(dirty, what_is_laid_above_hides_what_is_below)
{
	struct dirty_map below = { 0 }, above = { 0 };
	struct random random;

	random_seed(&random, 7);
	memset(flat, 0, sizeof(flat));
	for (int i = 0; i < 3000; i++) {
		uint64_t start = random_below(&random, SIZE - 20);

		set(&below, start, start + 13, 1, i * 100u);
	}
	for (int i = 0; i < 3000; i++) {
		uint64_t start = random_below(&random, SIZE - 20);

		set(&above, start, start + 7, 2, i * 100u);
	}
	cr_assert_eq(dirty_merge(&below, &above), 0);
	expect_same(&below);
	cr_assert_eq(above.nr, 0);
	dirty_clear(&below);
}
