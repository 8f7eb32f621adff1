/* keyset.c: a bounded set of a volume's objects: open addressing over hashes. */
#include "src/volume/keyset.h"

#include <errno.h>
#include <stdlib.h>

#include "src/random.h"

#define FIRST_ROOM 1024u	/* slots; a power of two */

void keyset_init(struct keyset *set, size_t max)
{
	*set = (struct keyset){ .max = max, .seed = random_id() };
}

void keyset_clear(struct keyset *set)
{
	size_t max = set->max;

	keyset_free(set);
	keyset_init(set, max);
}

void keyset_free(struct keyset *set)
{
	free(set->slots);
	set->slots = NULL;
	set->nr = set->room = 0;
}

/* splitmix64's finisher: every bit of @v counts in every bit of the result. */
static uint64_t mix(uint64_t v)
{
	v = (v ^ (v >> 30)) * 0xbf58476d1ce4e5b9ull;
	v = (v ^ (v >> 27)) * 0x94d049bb133111ebull;
	return v ^ (v >> 31);
}

static uint64_t hash(const struct keyset *set, const struct key *key,
		     const char *upload)
{
	uint64_t h = set->seed;

	h = mix(h ^ ((uint64_t)key->kind << 40 | (uint64_t)key->level << 32 |
		     key->index));
	h = mix(h ^ key->epoch);
	h = mix(h ^ key->writer);
	for (; upload && *upload; upload++)
		h = mix(h ^ (unsigned char)*upload);
	if (upload)
		h = mix(~h);
	return h ? h : 1;
}

/* Where @h is, or the free slot where it belongs. */
static uint64_t *slot_of(const struct keyset *set, uint64_t h)
{
	size_t i = h & (set->room - 1);

	while (set->slots[i] && set->slots[i] != h)
		i = (i + 1) & (set->room - 1);
	return &set->slots[i];
}

/* Keeps a quarter of the slots free. */
static int make_room(struct keyset *set)
{
	struct keyset larger = *set;
	size_t i;

	if (set->nr + 1 <= set->room / 4 * 3)
		return 0;
	larger.room = set->room ? 2 * set->room : FIRST_ROOM;
	larger.slots = calloc(larger.room, sizeof(*larger.slots));
	if (!larger.slots)
		return -ENOMEM;
	for (i = 0; i < set->room; i++)
		if (set->slots[i])
			*slot_of(&larger, set->slots[i]) = set->slots[i];
	free(set->slots);
	*set = larger;
	return 0;
}

int keyset_add(struct keyset *set, const struct key *key, const char *upload)
{
	uint64_t h = hash(set, key, upload), *slot;
	int error = make_room(set);

	if (error)
		return error;
	slot = slot_of(set, h);
	if (*slot)
		return 0;
	if (set->nr == set->max)
		return -ENOSPC;
	*slot = h;
	set->nr++;
	return 1;
}

bool keyset_has(const struct keyset *set, const struct key *key,
		const char *upload)
{
	return set->nr && *slot_of(set, hash(set, key, upload));
}
