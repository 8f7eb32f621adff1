/* test-memory.c: what only the memory backend can get wrong. */
#include <criterion/criterion.h>
#include <pthread.h>
#include <stdint.h>
#include <string.h>

#include "src/place.h"
#include "src/stage/stage.h"

#define SIZE (1u << 20)

static struct stage *stage;
static char data[SIZE], got[SIZE];

static void *write_all(void *context)
{
	(void)context;
	return (void *)(intptr_t)stage_write(stage, data, SIZE, 0, 0);
}

static void *zero_all(void *context)
{
	(void)context;
	return (void *)(intptr_t)stage_zero(stage, SIZE, 0, REQUEST_MAY_TRIM);
}

/* The bytes that extents calls zeros must read as zeros. */
static bool holes_are_zeros(void)
{
	struct extent extents[64];
	struct extent_list list = { extents, 64, 0 };
	uint64_t at = 0;

	cr_assert_eq(stage_extents(stage, SIZE, 0, &list), 0);
	cr_assert_eq(stage_read(stage, got, SIZE, 0, 0), 0);
	for (unsigned int i = 0; i < list.nr; i++) {
		for (uint64_t k = at; k < at + extents[i].count; k++)
			if (extents[i].flags & EXTENT_ZERO && got[k])
				return false;
		at += extents[i].count;
	}
	return at == SIZE;
}

Test(memory, a_write_and_a_zero_of_the_same_blocks_leave_no_data_in_a_hole)
{
	memset(data, 'x', SIZE);
	cr_assert_eq(memory_open(SIZE, &stage), 0);
	for (unsigned int round = 0; round < 300; round++) {
		pthread_t writer, zeroer;
		void *error;

		pthread_create(&writer, NULL, write_all, NULL);
		pthread_create(&zeroer, NULL, zero_all, NULL);
		pthread_join(writer, &error);
		cr_assert_null(error);
		pthread_join(zeroer, &error);
		cr_assert_null(error);
		cr_assert(holes_are_zeros(), "round %u", round);
	}
	stage_close(stage);
}
