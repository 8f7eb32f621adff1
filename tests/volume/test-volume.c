/* test-volume.c: what an open volume does: content, requests, extents, readers. */
#include <errno.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/volume/world.h"

#define CHUNK (64 * KIB)

TestSuite(volume, .timeout = 60);

Test(volume, what_was_flushed_is_there_after_opening_again)
{
	struct world world;
	uint32_t chunk;

	world_begin(&world, 100 * CHUNK + 5, CHUNK);
	for (chunk = 0; chunk < 100; chunk += 3)
		cr_assert_eq(world_write(&world, chunk, 7), 0);
	cr_assert_eq(stage_write(world.stage, "tail!", 5, 100 * CHUNK, 0), 0);
	cr_assert_eq(stage_flush(world.stage), 0);
	world_reopen(&world);
	for (chunk = 0; chunk < 100; chunk++)
		cr_assert(world_reads(&world, chunk, chunk % 3 ? 0 : 7), "%u", chunk);
	{
		char tail[6] = "";
		cr_assert_eq(stage_read(world.stage, tail, 5, 100 * CHUNK, 0), 0);
		cr_assert_str_eq(tail, "tail!");
	}
	world_end(&world);
}
