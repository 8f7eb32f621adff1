/* fault_stage.h: a stage for tests: publishes other units than the one below,
 * and delays, reorders, holds and fails requests on a seeded schedule. */
#ifndef OBJMAP_TESTS_FAULT_STAGE_H
#define OBJMAP_TESTS_FAULT_STAGE_H

#include "src/stage/stage.h"

struct fault_options {
	uint64_t seed;
	/* Geometry, fixed at open; 0: as the next stage's. */
	uint32_t read_unit, write_unit, preferred, max_request;
	unsigned int clear_flags;	/* enum stage_flags not to publish */
	/* 0: requests go on in their slot; else these threads take them in a
	 * random order, each after up to @max_delay_us. */
	unsigned int nr_threads, max_delay_us;
	/* One in so many requests fails with @error, before or after it was
	 * carried out; 0: none.  @fail_ops: bits 1 << op, 0: any. */
	unsigned int fail_one_in, fail_ops;
	int error;
};

/* Owns nothing of @next until it has succeeded.  What was requested is in the
 * stage's counters. */
int fault_open(struct stage *next, const struct fault_options *options,
	       struct stage **stage);

/* From now on requests fail as said. */
void fault_fail(struct stage *stage, unsigned int one_in, unsigned int ops,
		int error);

/* Keeps requests until fault_release(); with nr_threads only. */
void fault_hold(struct stage *stage);
void fault_release(struct stage *stage);

/* How many are kept now, and how many were at most. */
unsigned int fault_held(struct stage *stage);
unsigned int fault_most_held(struct stage *stage);

#endif
