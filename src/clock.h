/* clock.h: the clock of deadlines and intervals. */
#ifndef OBJMAP_CLOCK_H
#define OBJMAP_CLOCK_H

#include <stdint.h>
#include <time.h>

#define CLOCK_SECOND 1000000000ull
#define CLOCK_MS     1000000ull

/* Nanoseconds since some fixed moment; never goes back (CLOCK_MONOTONIC). */
static inline uint64_t clock_now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * CLOCK_SECOND + (uint64_t)t.tv_nsec;
}

#endif
