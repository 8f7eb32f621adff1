/* keyset.h: a set of a volume's objects, 8 bytes each, with a bound.
 *
 * Kept as hashes under a seed of this process: a key may be taken for one that
 * was added though it was not, about once in 2^64 over the set's size; one that
 * was added is always found. */
#ifndef OBJMAP_VOLUME_KEYSET_H
#define OBJMAP_VOLUME_KEYSET_H

#include "src/volume/format.h"

struct keyset {
	uint64_t *slots;	/* 0: free */
	size_t nr, room, max;
	uint64_t seed;
};

void keyset_init(struct keyset *set, size_t max);
void keyset_clear(struct keyset *set);
void keyset_free(struct keyset *set);

/* 1: added; 0: was there; -ENOSPC: @max are there; -ENOMEM.  @upload: the
 * multipart upload of that name to the key; NULL: the object. */
int keyset_add(struct keyset *set, const struct key *key, const char *upload);
bool keyset_has(const struct keyset *set, const struct key *key,
		const char *upload);

#endif
