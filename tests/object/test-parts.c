/* test-parts.c: a plan of parts is one that a store takes and says all that was
 * written. */
#include <criterion/criterion.h>
#include <errno.h>

#include "backends/object/parts.h"
#include "src/random.h"

static const struct part_limits small = {
	.min = 5, .copy_max = 100, .send = 8, .nr_max = 1000,
};

/* The plan is whole, in order, within the limits, and copies nothing dirty. */
static void expect_valid(const struct dirty_map *map, uint64_t size,
			 const struct part_limits *limits,
			 const struct part_list *list)
{
	uint64_t offset = 0;

	cr_assert(list->nr > 0 && list->nr <= limits->nr_max);
	for (unsigned int i = 0; i < list->nr; i++) {
		const struct object_part *part = &list->parts[i];
		struct dirty_range range;

		cr_assert_eq(part->offset, offset);
		cr_assert(part->count > 0);
		if (i + 1 < list->nr)
			cr_assert(part->count >= limits->min, "part %u of %u: %lu",
				  i, list->nr, (unsigned long)part->count);
		if (part->copy)
			cr_assert(part->count <= limits->copy_max &&
				  (!dirty_next(map, part->offset, &range) ||
				   range.start >= part->offset + part->count));
		offset += part->count;
	}
	cr_assert_eq(offset, size);
}

static uint64_t bytes_sent(const struct part_list *list)
{
	uint64_t bytes = 0;

	for (unsigned int i = 0; i < list->nr; i++)
		if (!list->parts[i].copy)
			bytes += list->parts[i].count;
	return bytes;
}

Test(parts, any_pattern_of_writes_gives_a_plan_a_store_takes)
{
	for (uint64_t seed = 1; seed <= 400; seed++) {
		struct dirty_map map = { 0 };
		struct part_list list = { 0 };
		struct random random;
		uint64_t size, nr;

		random_seed(&random, seed);
		size = 1 + random_below(&random, seed % 2 ? 5000 : 40);
		nr = random_below(&random, seed % 5 ? 40 : 3);
		for (uint64_t i = 0; i < nr; i++) {
			uint64_t start = random_below(&random, size);
			uint64_t end = start + 1 + random_below(&random, 60);

			cr_assert_eq(dirty_set(&map, start, end < size ? end : size,
					       NULL, 0), 0);
		}
		cr_assert_eq(parts_plan(&map, size, &small, &list), 0);
		expect_valid(&map, size, &small, &list);
		/* Each run costs at most what its ends must be filled up with. */
		cr_assert(bytes_sent(&list) <= map.count + map.nr * 3 * small.min);
		parts_free(&list);
		dirty_clear(&map);
	}
}

Test(parts, one_byte_in_the_middle_sends_one_short_part_and_copies_the_rest)
{
	struct dirty_map map = { 0 };
	struct part_list list = { 0 };

	dirty_set(&map, 500, 501, NULL, 0);
	cr_assert_eq(parts_plan(&map, 1000, &small, &list), 0);
	expect_valid(&map, 1000, &small, &list);
	cr_assert_eq(bytes_sent(&list), small.min);
	parts_free(&list);
	dirty_clear(&map);
}

Test(parts, a_plan_of_too_many_parts_is_made_of_longer_ones)
{
	const struct part_limits few = { .min = 5, .copy_max = 2000, .send = 8,
					 .nr_max = 20 };
	struct dirty_map map = { 0 };
	struct part_list list = { 0 };

	for (uint64_t at = 0; at < 20000; at += 40)
		dirty_set(&map, at, at + 1, NULL, 0);
	cr_assert_eq(parts_plan(&map, 20000, &few, &list), 0);
	expect_valid(&map, 20000, &few, &list);
	parts_free(&list);
	dirty_clear(&map);
}

Test(parts, an_object_of_five_tebibytes_written_everywhere_fits_in_ten_thousand)
{
	const struct part_limits s3 = { .min = 5 << 20, .copy_max = 1ull << 30,
					.send = 8 << 20, .nr_max = 10000 };
	struct dirty_map map = { 0 };
	struct part_list list = { 0 };
	uint64_t size = 5ull << 40;

	for (uint64_t at = 0; at < size; at += 64ull << 20)
		dirty_set(&map, at, at + 4096, NULL, 0);
	cr_assert_eq(parts_plan(&map, size, &s3, &list), 0);
	expect_valid(&map, size, &s3, &list);
	parts_free(&list);
	dirty_clear(&map);
}
