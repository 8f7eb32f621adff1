/* random.h: random bits for ids (from the kernel) and for tests (seeded). */
#ifndef OBJMAP_RANDOM_H
#define OBJMAP_RANDOM_H

#include <stddef.h>
#include <stdint.h>

/* Fills @buffer from the kernel; aborts where it has none. */
void random_bytes(void *buffer, size_t count);

/* 64 random bits, never 0. */
uint64_t random_id(void);

/* A small seeded generator (xoshiro256**), for back-off jitter and tests. */
struct random { uint64_t s[4]; };
void random_seed(struct random *random, uint64_t seed);
uint64_t random_next(struct random *random);
uint64_t random_below(struct random *random, uint64_t limit);	/* limit > 0 */

#endif
