/* chunk_locks.h: locks on ranges of chunks that never make a thread wait. */
#ifndef OBJMAP_CHUNK_LOCKS_H
#define OBJMAP_CHUNK_LOCKS_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

struct chunk_lock {
	uint64_t first, last;		/* chunks, both locked */
	void (*granted)(struct chunk_lock *lock);
	/* chunk_locks.c's: */
	unsigned int nr_blockers;	/* earlier locks that overlap this one */
	struct chunk_lock *previous, *next;
	struct chunk_lock *next_granted;
};

/* All locks held or waited for, in the order in which they were asked for.  A
 * lock is granted when nothing before it overlaps: first come, first served,
 * and nobody starves. */
struct chunk_locks {
	pthread_mutex_t lock;		/* guards the list */
	struct chunk_lock *oldest, *newest;
};

void chunk_locks_init(struct chunk_locks *locks);
void chunk_locks_destroy(struct chunk_locks *locks);	/* none is held */

/* Asks for chunks @lock->first to @lock->last.  Returns true when they are
 * locked now; else @lock->granted runs once they are (also on another thread,
 * also before this returns).  With @try it is not waited for. */
bool chunk_locks_acquire(struct chunk_locks *locks, struct chunk_lock *lock,
			 bool try);

/* Lets @lock go.  Returns the list of those that hold theirs now, for
 * chunk_locks_run(); meanwhile the caller may complete what it did. */
struct chunk_lock *chunk_locks_release(struct chunk_locks *locks,
				       struct chunk_lock *lock);

/* Calls granted() of each in @list. */
void chunk_locks_run(struct chunk_lock *list);

#endif
