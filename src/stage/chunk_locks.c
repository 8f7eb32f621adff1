/* chunk_locks.c: locks on ranges of chunks that never make a thread wait.
 *
 * One list in order of arrival, walked from end to end: it holds as many locks
 * as writes are in flight, which the export's limits bound. */
#include "src/stage/chunk_locks.h"

/* While this thread is in chunk_locks_run(): where the list it works off ends.
 * A granted() that ends at once releases its lock, which grants the next: on
 * the stack of the first this would nest as deep as the queue is long. */
static _Thread_local struct chunk_lock **running;

void chunk_locks_init(struct chunk_locks *locks)
{
	pthread_mutex_init(&locks->lock, NULL);
	locks->oldest = locks->newest = NULL;
}

void chunk_locks_destroy(struct chunk_locks *locks)
{
	pthread_mutex_destroy(&locks->lock);
}

static bool overlaps(const struct chunk_lock *a, const struct chunk_lock *b)
{
	return a->first <= b->last && b->first <= a->last;
}

bool chunk_locks_acquire(struct chunk_locks *locks, struct chunk_lock *lock,
			 bool try)
{
	unsigned int nr_blockers = 0;

	pthread_mutex_lock(&locks->lock);
	for (struct chunk_lock *l = locks->oldest; l; l = l->next)
		nr_blockers += overlaps(l, lock);
	if (nr_blockers == 0 || !try) {
		lock->nr_blockers = nr_blockers;
		lock->next = NULL;
		lock->previous = locks->newest;
		if (lock->previous)
			lock->previous->next = lock;
		else
			locks->oldest = lock;
		locks->newest = lock;
	}
	pthread_mutex_unlock(&locks->lock);
	return nr_blockers == 0;
}

struct chunk_lock *chunk_locks_release(struct chunk_locks *locks,
				       struct chunk_lock *lock)
{
	struct chunk_lock *granted = NULL, **end = &granted;

	pthread_mutex_lock(&locks->lock);
	if (lock->previous)
		lock->previous->next = lock->next;
	else
		locks->oldest = lock->next;
	if (lock->next)
		lock->next->previous = lock->previous;
	else
		locks->newest = lock->previous;
	for (struct chunk_lock *l = lock->next; l; l = l->next) {
		if (!overlaps(l, lock) || --l->nr_blockers > 0)
			continue;
		l->next_granted = NULL;
		*end = l;
		end = &l->next_granted;
	}
	pthread_mutex_unlock(&locks->lock);
	return granted;
}

void chunk_locks_run(struct chunk_lock *list)
{
	struct chunk_lock **end = &list;

	if (running) {
		*running = list;
		while (*running)
			running = &(*running)->next_granted;
		return;
	}
	while (*end)
		end = &(*end)->next_granted;
	running = end;
	while (list) {
		struct chunk_lock *lock = list;

		list = lock->next_granted;
		if (!list)
			running = &list;
		lock->granted(lock);
	}
	running = NULL;
}
