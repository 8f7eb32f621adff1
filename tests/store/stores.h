/* stores.h: the stores that what every store must do is tested on. */
#ifndef OBJMAP_TESTS_STORES_H
#define OBJMAP_TESTS_STORES_H

#include "tests/store/fault_store.h"

enum { STORE_MEM, STORE_DIR, STORE_SLOW_MEM, STORE_SLOW_DIR, STORE_GIVEN, STORE_SLOW_GIVEN,
       NR_TESTED_STORES };

struct tested_store {
	const char *name;
	struct store *store;
	struct store *other;	/* another client of the same objects */
	struct fault *fault;	/* of @store; NULL: none */
	char path[64];		/* dir: a folder of its own; "": none */
};

/* Which of them are tested: with OBJMAP_TEST_PLACE those that are given, else all
 * others; how many. */
unsigned int tested_stores(int which[NR_TESTED_STORES]);
/* Opens two clients of an empty store; ends the test where it cannot. */
void tested_store_open(struct tested_store *tested, int which);
void tested_store_close(struct tested_store *tested);

/* A new empty folder; remove_tree() takes it away again. */
void make_folder_for_test(char path[64]);
void remove_tree(const char *path);
struct store *open_dir_store(const char *path);

#endif
