/* test-words.c: checksums, sizes, times, random numbers, pieces, workers, trouble. */
#include <criterion/criterion.h>
#include <errno.h>
#include <semaphore.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "src/clock.h"
#include "src/crc32c.h"
#include "src/log.h"
#include "src/place.h"
#include "src/random.h"
#include "src/stage/iov.h"
#include "src/trouble.h"
#include "src/units.h"
#include "src/workers.h"

/* RFC 3720, appendix B.4 */
Test(crc32c, the_rfc_examples_hold)
{
	unsigned char data[32] = { 0 };

	cr_expect_eq(crc32c(0, data, 32), 0x8a9136aa);
	memset(data, 0xff, 32);
	cr_expect_eq(crc32c(0, data, 32), 0x62a8ab43);
	for (unsigned int i = 0; i < 32; i++)
		data[i] = (unsigned char)i;
	cr_expect_eq(crc32c(0, data, 32), 0x46dd794e);
	for (unsigned int i = 0; i < 32; i++)
		data[i] = (unsigned char)(31 - i);
	cr_expect_eq(crc32c(0, data, 32), 0x113fdb5c);
	cr_expect_eq(crc32c(0, "123456789", 9), 0xe3069283);
}

Test(crc32c, the_instruction_and_the_table_agree_however_it_is_cut)
{
	struct random random;
	unsigned char data[20000];

	random_seed(&random, 1);
	for (unsigned int i = 0; i < sizeof(data); i++)
		data[i] = (unsigned char)random_next(&random);
	for (unsigned int round = 0; round < 2000; round++) {
		size_t start = random_below(&random, 64);
		size_t count = random_below(&random, sizeof(data) - start);
		size_t cut = random_below(&random, count + 1);
		uint32_t whole = crc32c(0, data + start, count);

		cr_assert_eq(whole, crc32c_by_table(0, data + start, count));
		cr_assert_eq(whole, crc32c(crc32c(0, data + start, cut),
					   data + start + cut, count - cut));
	}
}

Test(crc32c, sums_of_pieces_are_those_of_the_whole_however_it_comes)
{
	struct random random;
	unsigned char data[20000];
	uint32_t sums[sizeof(data) / 16 + 1];

	random_seed(&random, 2);
	for (unsigned int i = 0; i < sizeof(data); i++)
		data[i] = (unsigned char)random_next(&random);
	for (unsigned int round = 0; round < 500; round++) {
		uint32_t unit = 16 + (uint32_t)random_below(&random, 5000);
		size_t count = random_below(&random, sizeof(data)), at = 0, part;

		memset(sums, 0xa5, sizeof(sums));	/* of an earlier try */
		for (; at < count; at += part) {
			part = 1 + random_below(&random, count - at);
			crc32c_sum(sums, unit, at, data + at, part);
		}
		for (at = 0; at < count; at += part) {
			part = count - at < unit ? count - at : unit;
			cr_assert_eq(sums[at / unit], crc32c(0, data + at, part));
		}
		cr_assert_eq(crc32c_of_sums(sums, unit, count), crc32c(0, data, count));
	}
}

Test(units, sizes_as_people_write_them)
{
	static const struct { const char *text; uint64_t bytes; } good[] = {
		{ "0", 0 }, { "4096", 4096 }, { "64K", 65536 }, { "64k", 65536 },
		{ "10G", 10ull << 30 }, { "1.5T", 3ull << 39 }, { "1MiB", 1 << 20 },
		{ "1MB", 1 << 20 }, { "7B", 7 }, { "2P", 2ull << 50 },
		{ "18446744073709551615", UINT64_MAX }, { "0.5K", 512 },
	};
	static const char *const bad[] = { "", "K", "-1", "1X", "1 G", "1.", ".5",
		"1.5", "1KK", "0x10", "1e3", "1iB", " 1" };
	static const char *const large[] = { "18446744073709551616", "16E", "99999P" };
	uint64_t bytes;

	for (unsigned int i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
		cr_expect_eq(size_parse(good[i].text, &bytes), 0, "%s", good[i].text);
		cr_expect_eq(bytes, good[i].bytes, "%s", good[i].text);
	}
	for (unsigned int i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		cr_expect_eq(size_parse(bad[i], &bytes), -EINVAL, "%s", bad[i]);
	for (unsigned int i = 0; i < sizeof(large) / sizeof(large[0]); i++)
		cr_expect_eq(size_parse(large[i], &bytes), -ERANGE, "%s", large[i]);
}

Test(units, times_as_people_write_them)
{
	uint64_t ns;

	cr_expect(time_parse("10s", &ns) == 0 && ns == 10000000000ull);
	cr_expect(time_parse("7", &ns) == 0 && ns == 7000000000ull);
	cr_expect(time_parse("5min", &ns) == 0 && ns == 300000000000ull);
	cr_expect(time_parse("0.5h", &ns) == 0 && ns == 1800000000000ull);
	cr_expect(time_parse("250ms", &ns) == 0 && ns == 250000000);
	cr_expect(time_parse("inf", &ns) == 0 && ns == UINT64_MAX);
	cr_expect_eq(time_parse("5m", &ns), -EINVAL);
	cr_expect_eq(time_parse("", &ns), -EINVAL);
	cr_expect_eq(time_parse("999999999d", &ns), -ERANGE);
}

Test(units, formatted_exactly_when_it_can_be)
{
	char text[UNITS_TEXT];

	cr_expect_str_eq(size_format(1048576, text), "1 MiB");
	cr_expect_str_eq(size_format(1536ull << 20, text), "1.5 GiB");
	cr_expect_str_eq(size_format(0, text), "0 B");
	cr_expect_str_eq(size_format(1000, text), "1000 B");
	cr_expect_str_eq(size_format(1ull << 63, text), "8 EiB");
	cr_expect_str_eq(time_format(90ull * 1000000000, text), "1.5 min");
	cr_expect_str_eq(time_format(250000000, text), "250 ms");
	cr_expect_str_eq(time_format(UINT64_MAX, text), "inf");
	cr_expect_str_eq(time_format(0, text), "0 s");
}

Test(random, the_generator_is_xoshiro256_starstar)
{
	/* From the reference implementation with this state. */
	static const uint64_t expected[] = { 11520, 0, 1509978240,
					     1215971899390074240ull };
	struct random random = { { 1, 2, 3, 4 } };

	for (unsigned int i = 0; i < 4; i++)
		cr_expect_eq(random_next(&random), expected[i]);
}

Test(random, below_stays_below_and_reaches_everything)
{
	unsigned int seen[7] = { 0 };
	struct random random;

	random_seed(&random, 0);
	for (unsigned int i = 0; i < 7000; i++) {
		uint64_t n = random_below(&random, 7);

		cr_assert_lt(n, 7);
		seen[n]++;
	}
	for (unsigned int i = 0; i < 7; i++)
		cr_expect(seen[i] > 800 && seen[i] < 1200);
	cr_expect_neq(random_id(), random_id());
}

Test(iov, slices_and_copies_agree_with_a_flat_array)
{
	char flat[1000], pieces[1000], out[1000];
	struct iovec iov[20], slice[20];
	struct random random;

	random_seed(&random, 3);
	for (unsigned int round = 0; round < 3000; round++) {
		unsigned int nr = 1 + (unsigned int)random_below(&random, 20), used;
		size_t at = 0, skip, count;

		for (unsigned int i = 0; i < nr; i++) {
			size_t length = random_below(&random, 50);

			iov[i] = (struct iovec){ pieces + at, length };
			at += length;
		}
		cr_assert_eq(iov_count(iov, nr), at);
		skip = random_below(&random, at + 1);
		count = random_below(&random, at - skip + 1);
		for (unsigned int i = 0; i < at; i++)
			flat[i] = pieces[i] = (char)random_next(&random);
		memset(out, 0, sizeof(out));
		iov_copy_out(iov, nr, skip, out, count);
		cr_assert_eq(memcmp(out, flat + skip, count), 0);
		used = iov_slice(iov, nr, skip, count, slice);
		cr_assert_leq(used, nr);
		cr_assert_eq(iov_count(slice, used), count);
		iov_zero(slice, used, 0, count);
		memset(flat + skip, 0, count);
		cr_assert_eq(memcmp(pieces, flat, at), 0);
		iov_copy_in(iov, nr, skip, out, count);
		memcpy(flat + skip, out, count);
		cr_assert_eq(memcmp(pieces, flat, at), 0);
	}
}

static char ran[8];
static unsigned int nr_ran;

static sem_t all_queued;

static void run_until_queued(struct job *job)
{
	sem_wait(&all_queued);
}

struct letter {
	struct job job;
	char letter;
};

static void run_letter(struct job *job)
{
	ran[nr_ran++] = ((struct letter *)job)->letter;
}

Test(workers, demand_goes_before_prefetch_and_push_each_in_order, .timeout = 60)
{
	struct job first = { run_until_queued, PRIORITY_DEMAND, NULL };
	struct letter letters[] = {
		{ { run_letter, PRIORITY_PUSH, NULL }, 'e' },
		{ { run_letter, PRIORITY_PREFETCH, NULL }, 'c' },
		{ { run_letter, PRIORITY_DEMAND, NULL }, 'a' },
		{ { run_letter, PRIORITY_PREFETCH, NULL }, 'd' },
		{ { run_letter, PRIORITY_DEMAND, NULL }, 'b' },
	};
	struct workers *workers;

	cr_assert_eq(workers_open("test", 1, &workers), 0);
	sem_init(&all_queued, 0, 0);
	workers_submit(workers, &first);
	for (unsigned int i = 0; i < 5; i++)
		workers_submit(workers, &letters[i].job);
	sem_post(&all_queued);
	workers_close(workers);		/* runs what is queued */
	cr_expect_str_eq(ran, "abcde");
}

/* Whether the log at @path has @nr lines and @line among them. */
static bool said(const char *path, const char *line, unsigned int nr)
{
	char text[1000];
	FILE *file = fopen(path, "r");
	size_t count = fread(text, 1, sizeof(text) - 1, file);

	fclose(file);
	text[count] = 0;
	for (const char *c = text; (c = strchr(c, '\n')); c++)
		nr--;
	return nr == 0 && strstr(text, line);
}

Test(trouble, the_log_tells_its_beginning_and_its_end_once)
{
	char path[] = "/tmp/trouble-XXXXXX";
	struct trouble trouble;
	bool in = false;

	close(mkstemp(path));
	log_open(path, LOG_LEVEL_NOTICE);
	trouble_init(&trouble, "mem:x");
	trouble_end(&trouble, &in, "is well");		/* there was none */
	trouble_note(&trouble, &in, 0, "no %s", "answer");
	cr_expect(said(path, "objmap: mem:x: no answer; trying again\n", 1));
	trouble_note(&trouble, &in, 0, "no connection");
	trouble_end(&trouble, &in, "is well");
	cr_expect(said(path, "\nobjmap: mem:x: is well, after ", 2));
	/* So soon after it, another is shown by status only. */
	trouble_note(&trouble, &in, 0, "no answer");
	trouble_end(&trouble, &in, "is well");
	cr_expect(said(path, "is well", 2));
	trouble_deinit(&trouble);
	/* Who waits says so; who gives up says nothing here. */
	trouble_init(&trouble, "mem:y");
	trouble_note(&trouble, &in, clock_now(), "no answer");
	cr_expect(said(path, "objmap: mem:y: no answer; still waiting\n", 3));
	trouble_end(&trouble, &in, NULL);
	cr_expect(said(path, "mem:y", 3));
	trouble_deinit(&trouble);
	log_open("stderr", LOG_LEVEL_NOTICE);
	unlink(path);
}

Test(trouble, lasts_until_the_last_is_out_of_it)
{
	struct trouble_status status;
	struct trouble trouble;
	bool one = false, other = false;

	trouble_init(&trouble, "mem:x");
	trouble_note(&trouble, &one, 1000, "one waits");
	trouble_status(&trouble, &status);
	cr_expect_eq(status.attempts, 0);
	trouble_note(&trouble, &one, 0, "one tries");
	trouble_note(&trouble, &other, 0, "other tries");
	trouble_end(&trouble, &one, "is well");
	trouble_end(&trouble, &one, "is well");
	trouble_status(&trouble, &status);
	cr_expect_str_eq(status.reason, "other tries");
	cr_expect_eq(status.since, 1000);
	cr_expect_eq(status.attempts, 2);
	trouble_end(&trouble, &other, "is well");
	trouble_status(&trouble, &status);
	cr_expect_str_empty(status.reason);
	cr_expect_eq(status.since, 0);
	cr_expect_eq(status.attempts, 0);
	trouble_deinit(&trouble);
}

Test(pattern, every_8_bytes_hold_their_offset)
{
	unsigned char got[24];
	struct stage *stage;

	cr_assert_eq(pattern_open(1ull << 40, &stage), 0);
	cr_assert_eq(stage_read(stage, got, 24, 0x123456789cull - 4, 0), 0);
	cr_expect_eq(memcmp(got, "\0\0\0\x12\x34\x56\x78\x98\0\0\0\x12\x34\x56\x78\xa0", 16), 0);
	cr_assert_eq(stage_read(stage, got, 3, 0x1234567805ull, 0), 0);
	cr_expect_eq(memcmp(got, "\x56\x78\0", 3), 0);
	stage_close(stage);
}

Test(memory, holes_are_known_and_trims_make_them)
{
	struct extent extents[8];
	struct extent_list list = { extents, 8, 0 };
	struct stage *stage;
	char data[10] = "written";

	cr_assert_eq(memory_open(1ull << 40, &stage), 0);
	cr_assert_eq(stage_write(stage, data, 10, 1 << 20, 0), 0);
	cr_assert_eq(stage_extents(stage, 4 << 20, 0, &list), 0);
	cr_assert_eq(list.nr, 3);
	cr_expect(extents[0].flags & EXTENT_HOLE && extents[0].count == 1 << 20);
	cr_expect(!(extents[1].flags & (EXTENT_HOLE | EXTENT_ZERO)));
	cr_assert_eq(stage_trim(stage, 1 << 20, 1 << 20, 0), 0);
	cr_assert_eq(stage_extents(stage, 4 << 20, 0, &list), 0);
	cr_expect_eq(list.nr, 1);
	stage_close(stage);
}
