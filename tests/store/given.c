/* given.c: opens stores below the place that the environment names. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "src/place.h"
#include "src/random.h"
#include "tests/store/given.h"

const char *given_place(void)
{
	const char *place = getenv("OBJMAP_TEST_PLACE");

	return place && *place ? place : NULL;
}

struct store *given_store_open(const char *name)
{
	const struct store_open_options options = { .create = true,
		.retry_for = STORE_RETRY_FOR };
	struct store *store;
	struct place place;
	char text[512];

	snprintf(text, sizeof(text), "%s/%s", given_place(), name);
	if (place_parse(text, 0, &place) || place_open_store(&place, &options, &store)) {
		fprintf(stderr, "OBJMAP_TEST_PLACE: %s cannot be opened\n", text);
		abort();
	}
	place_free(&place);
	return store;
}

struct store *given_store_new(char name[64])
{
	snprintf(name, 64, "test-%016" PRIx64, random_id());
	return given_store_open(name);
}

struct store *given_store_or_mem(void)
{
	struct store *store;
	char name[64];

	if (given_place())
		return given_store_new(name);
	if (store_mem_open("mem:test", &store))
		abort();
	return store;
}
