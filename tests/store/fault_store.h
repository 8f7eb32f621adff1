/* fault_store.h: a store for tests that goes wrong on purpose, over any other.
 *
 *	struct fault *fault = fault_open(inner);	owns inner from now on
 *	struct store *store = fault_client(fault);	what the engine is given
 *	fault_add(fault, &(struct fault_rule){
 *		.op = STORE_PUT, .prefix = "head", .kind = FAULT_LOSE_REPLY,
 *		.skip = 1, .times = 1 });		the second PUT of head
 *	...
 *	store_close(store);				inner lives on
 *	fault_close(fault);				closes inner
 *
 * What a dead client had sent (FAULT_LATE, FAULT_DUPLICATE) outlives its
 * handle, and arrives when fault_release() says so.  To treat two writers of
 * one store differently, wrap each in a fault of its own (store_mem_share()).
 * A client has the doorway's retries: set store->retry_for to 0 to see each
 * fault as it is.  All functions may be called from any thread.
 */
#ifndef OBJMAP_TESTS_FAULT_STORE_H
#define OBJMAP_TESTS_FAULT_STORE_H

#include "backends/store/store.h"

struct fault;

enum fault_kind {
	FAULT_FAIL,	/* not applied, FAILED with rule.error (0: -EIO) */
	FAULT_TRANSIENT,/* not applied, TRANSIENT with rule.error (0: -ECONNRESET) */
	FAULT_REFUSE,	/* put with a condition: not applied, REFUSED */
	FAULT_DELAY,	/* applied and answered after rule.delay ms: others overtake */
	FAULT_LOSE_REPLY, /* applied; a conditional put is answered UNKNOWN, all
			 * else TRANSIENT */
	FAULT_LATE,	/* put, delete: answered like LOSE_REPLY, and applied only
			 * after rule.delay further requests or at fault_release() */
	FAULT_DUPLICATE,/* put, delete: applied and answered, and applied once more
			 * like LATE */
	FAULT_TRUNCATE,	/* get: as if the object ended in the middle: of the whole
			 * the first half is DONE, a range beyond it is -ERANGE */
	FAULT_CORRUPT,	/* get: DONE, with one bit of the content wrong */
	FAULT_HANG,	/* no answer until fault_release(), its deadline or its
			 * cancelling (then not applied); then applied and answered */
	FAULT_CALL,	/* rule.call() runs, and may block, before it is passed on */
	FAULT_CALL_AFTER, /* ... after it was applied, before it is answered */
	NR_FAULT_KINDS
};

/* Requests that match are counted; the first @skip of them pass, the next
 * @times (0: all) go wrong.  The first rule that applies is followed. */
struct fault_rule {
	enum store_op op;	/* NR_STORE_OPS: every one */
	const char *prefix;	/* of the key (delete: of the first); NULL: all */
	enum fault_kind kind;
	unsigned int skip, times;
	unsigned int delay;
	int error;
	void (*call)(void *context, const struct store_request *request);
	void *context;
};

struct fault *fault_open(struct store *inner);
/* A handle of @fault's store; NULL: no memory. */
struct store *fault_client(struct fault *fault);
/* All clients are closed, nothing hangs.  What is still to arrive never does. */
void fault_close(struct fault *fault);

/* Adds @rule; its strings must stay. */
void fault_add(struct fault *fault, const struct fault_rule *rule);
/* Forgets all rules and the schedule. */
void fault_clear(struct fault *fault);

/* From now on @permille of all requests go wrong in one of the ways whose bit
 * (1 << FAULT_x) is in @kinds and that fit the operation; the sequence follows
 * from @seed as far as the sequence of requests does. */
#define FAULT_HONEST ((1 << FAULT_FAIL) | (1 << FAULT_TRANSIENT) | \
		      (1 << FAULT_DELAY) | (1 << FAULT_LOSE_REPLY) | \
		      (1 << FAULT_LATE) | (1 << FAULT_DUPLICATE))
void fault_schedule(struct fault *fault, uint64_t seed, unsigned int permille,
		    unsigned int kinds);

/* Lets what hangs go on and what is late arrive, and waits until all of that
 * was applied.  Rules stay. */
void fault_release(struct fault *fault);
/* How many requests hang now, and how many copies are still to arrive. */
unsigned int fault_held(struct fault *fault);
/* Waits at most 10 s until @nr are held; false: they are not. */
bool fault_wait_held(struct fault *fault, unsigned int nr);

/* Requests the clients sent since the last reset, by operation
 * (NR_STORE_OPS: all) and by what the key begins with: "head", "map/",
 * "chunk/", "snapshot/", "condemned/", "probe/"; NULL: all. */
uint64_t fault_count(struct fault *fault, enum store_op op, const char *kind);
void fault_count_reset(struct fault *fault);

/* The store's clock shows @seconds more than it is: what is there is that
 * much older. */
void fault_clock_add(struct fault *fault, uint64_t seconds);

#endif
