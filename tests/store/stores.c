/* stores.c: opens the stores of the contract suite. */
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/store/given.h"
#include "tests/store/stores.h"

static const char *const names[NR_TESTED_STORES] = {
	"mem", "dir", "mem behind delays", "dir behind delays",
	"given", "given behind delays",
};

static void must(bool good, const char *what)
{
	if (good)
		return;
	perror(what);
	abort();
}

void make_folder_for_test(char path[64])
{
	const char *tmp = getenv("TMPDIR");

	snprintf(path, 64, "%.40s/objmap-XXXXXX", tmp ? tmp : "/tmp");
	must(mkdtemp(path) != NULL, path);
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	(void)st, (void)type, (void)ftw;
	return remove(path);
}

void remove_tree(const char *path)
{
	nftw(path, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

struct store *open_dir_store(const char *path)
{
	const struct store_dir_options options = { .network_ok = true };
	struct store *store;

	must(store_dir_open("dir:test", path, &options, &store) == 0, path);
	return store;
}

unsigned int tested_stores(int which[NR_TESTED_STORES])
{
	int first = given_place() ? STORE_GIVEN : STORE_MEM;
	int end = given_place() ? NR_TESTED_STORES : STORE_GIVEN;
	int i;

	for (i = first; i < end; i++)
		which[i - first] = i;
	return (unsigned int)(end - first);
}

void tested_store_open(struct tested_store *tested, int which)
{
	memset(tested, 0, sizeof(*tested));
	tested->name = names[which];
	if (which == STORE_DIR || which == STORE_SLOW_DIR) {
		make_folder_for_test(tested->path);
		tested->store = open_dir_store(tested->path);
		tested->other = open_dir_store(tested->path);
	} else if (which == STORE_GIVEN || which == STORE_SLOW_GIVEN) {
		char name[64];

		tested->store = given_store_new(name);
		tested->other = given_store_open(name);
	} else {
		must(store_mem_open("mem:test", &tested->store) == 0, "mem");
		must(store_mem_share(tested->store, &tested->other) == 0, "mem");
	}
	if (which != STORE_SLOW_MEM && which != STORE_SLOW_DIR && which != STORE_SLOW_GIVEN)
		return;
	tested->fault = fault_open(tested->store);
	tested->store = fault_client(tested->fault);
	fault_schedule(tested->fault, 7, 300, 1 << FAULT_DELAY);
}

void tested_store_close(struct tested_store *tested)
{
	store_close(tested->store);
	if (tested->fault)
		fault_close(tested->fault);
	store_close(tested->other);
	if (tested->path[0])
		remove_tree(tested->path);
}
