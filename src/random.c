/* random.c: random bits from the kernel, and a small seeded generator. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/random.h>

#include "src/random.h"

void random_bytes(void *buffer, size_t count)
{
	char *byte = buffer;

	while (count) {
		ssize_t got = getrandom(byte, count, 0);

		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0) {
			/* Ids that are not unique would lose data later. */
			perror("objmap: getrandom");
			abort();
		}
		byte += got;
		count -= (size_t)got;
	}
}

uint64_t random_id(void)
{
	uint64_t id;

	do
		random_bytes(&id, sizeof(id));
	while (id == 0);
	return id;
}

static uint64_t rotate_left(uint64_t x, int bits)
{
	return x << bits | x >> (64 - bits);
}

/* The state comes from the seed by splitmix64, so that it is never all 0. */
void random_seed(struct random *random, uint64_t seed)
{
	for (int i = 0; i < 4; i++) {
		uint64_t z = seed += 0x9e3779b97f4a7c15ull;

		z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
		z = (z ^ z >> 27) * 0x94d049bb133111ebull;
		random->s[i] = z ^ z >> 31;
	}
}

uint64_t random_next(struct random *random)
{
	uint64_t *s = random->s;
	uint64_t result = rotate_left(s[1] * 5, 7) * 9;
	uint64_t t = s[1] << 17;

	s[2] ^= s[0];
	s[3] ^= s[1];
	s[1] ^= s[2];
	s[0] ^= s[3];
	s[2] ^= t;
	s[3] = rotate_left(s[3], 45);
	return result;
}

/* Draws again from the uneven end, so that every value is equally likely. */
uint64_t random_below(struct random *random, uint64_t limit)
{
	uint64_t uneven = -limit % limit;
	uint64_t x;

	do
		x = random_next(random);
	while (x < uneven);
	return x % limit;
}
