/* stage-cost.c: what a request costs on its way through the stages, without
 * network, disk or frontend.  Prints nanoseconds a request. */
#include <stdio.h>
#include <stdlib.h>

#include "src/clock.h"
#include "src/crc32c.h"
#include "src/place.h"

#define SIZE	(64ull << 20)
#define SPAN	(512ull << 10)		/* stays in the caches: not their cost is asked */
#define ROUNDS	500000u
#define TIMES	7u

static char buffer[1 << 20];

static void count_done(struct request *request, void *context, int error)
{
	if (error)
		abort();
	++*(unsigned int *)context;
}

/* Time of this thread only: other work on the machine does not count. */
static uint64_t time_used(void)
{
	struct timespec t;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
	return (uint64_t)t.tv_sec * CLOCK_SECOND + (uint64_t)t.tv_nsec;
}

static double measure_once(struct stage *stage, enum request_op op, uint64_t count)
{
	struct iovec iov = { buffer, count };
	unsigned int nr_done = 0;
	struct request request;
	uint64_t start = time_used();

	for (unsigned int i = 0; i < ROUNDS; i++) {
		request_init(&request, op, i * 4096ull % SPAN, count,
			     count_done, &nr_done);
		request.iov = &iov;
		request.nr_iov = 1;
		stage_submit(stage, &request);
	}
	if (nr_done != ROUNDS)
		abort();
	return (double)(time_used() - start) / ROUNDS;
}

/* The best of some times: what it costs when nothing is in its way. */
static double measure(struct stage *stage, enum request_op op, uint64_t count)
{
	double best = measure_once(stage, op, count);

	for (unsigned int i = 1; i < TIMES; i++) {
		double next = measure_once(stage, op, count);

		if (next < best)
			best = next;
	}
	return best;
}

static void measure_crc(void)
{
	uint64_t start = time_used();
	uint32_t crc = 0;

	for (unsigned int i = 0; i < 1000; i++)
		crc = crc32c(crc, buffer, sizeof(buffer));
	printf("%-44s %8.2f GB/s (%08x)\n", "crc32c of 1 MiB",
	       1000.0 * sizeof(buffer) / (double)(time_used() - start), crc);
}

int main(void)
{
	static const struct {
		const char *name;
		enum request_op op;
		uint64_t count;
		bool memory;
	} rows[] = {
		{ "empty read: one doorway", REQUEST_READ, 0, true },
		{ "8 byte read: two doorways, arbitrary, memory", REQUEST_READ, 8, true },
		{ "4 KiB read: two doorways, arbitrary, memory", REQUEST_READ, 4096, true },
		{ "4 KiB write: two doorways, arbitrary, memory", REQUEST_WRITE, 4096, true },
		{ "4 KiB read: two doorways, arbitrary, null", REQUEST_READ, 4096, false },
	};
	struct stage *memory, *null;

	if (memory_open(SIZE, &memory) || arbitrary_open(memory, &memory) ||
	    null_open(SIZE, &null) || arbitrary_open(null, &null))
		return 1;
	measure(memory, REQUEST_WRITE, 4096);	/* pages come with the first write */
	for (unsigned int i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
		printf("%-44s %8.1f ns\n", rows[i].name,
		       measure(rows[i].memory ? memory : null, rows[i].op,
			       rows[i].count));
	measure_crc();
	stage_close(memory);
	stage_close(null);
	return 0;
}
