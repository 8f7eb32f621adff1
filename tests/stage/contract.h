/* contract.h: what every stage must do, written once: random operations
 * against a flat array. */
#ifndef OBJMAP_TESTS_CONTRACT_H
#define OBJMAP_TESTS_CONTRACT_H

#include "src/stage/stage.h"

/* A way to open something that takes any byte range; see pipelines.c. */
struct pipeline {
	const char *name;
	/* @folder: an empty one of this run's own. */
	int (*open)(const char *folder, struct stage **stage);
	enum { KEEPS, FORGETS, IS_PATTERN } content;
	const char *program;	/* that it needs on PATH; NULL: none */
};

/* All there are; with OBJMAP_TEST_PLACE only those in that place. */
const struct pipeline *contract_pipelines(unsigned int *nr);

/* NULL, or the program that @pipeline needs and this machine has not. */
const char *contract_lacks(const struct pipeline *pipeline);

/* OBJMAP_TEST_SEED, else a new one. */
uint64_t contract_seed(void);
/* OBJMAP_TEST_OPERATIONS, else 10,000. */
unsigned int contract_operations(void);

/* Opens @pipeline, carries out @nr_operations drawn from @seed, several at once,
 * closes it.  Returns 0, or 1 having said on standard error what was wrong. */
int contract_run(const struct pipeline *pipeline, uint64_t seed,
		 unsigned int nr_operations);

#endif
