/* given.h: a place from outside, on which the suites run instead of on stores of
 * their own: OBJMAP_TEST_PLACE=s3://BUCKET/FOLDER. */
#ifndef OBJMAP_TESTS_GIVEN_H
#define OBJMAP_TESTS_GIVEN_H

#include "backends/store/store.h"

/* NULL: none is given. */
const char *given_place(void);

/* A new empty store somewhere below the place, and its name there; ends the
 * program where it cannot be opened. */
struct store *given_store_new(char name[64]);
/* The same, or one in memory where no place is given. */
struct store *given_store_or_mem(void);
/* Another client of the one that is called @name. */
struct store *given_store_open(const char *name);

#endif
