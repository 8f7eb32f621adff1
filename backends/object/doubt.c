/* doubt.c: reads that wait until it is known which version of the object is there.
 *
 * The store refuses to read a version that our own publishing may have replaced.  When
 * that is settled, publish.c has such a read tried again.  Until then a thread looks
 * now and then whether it was cancelled, or its time is up. */
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <time.h>

#include "backends/object/object.h"
#include "src/clock.h"

#define LOOK_PAUSE_NS (100 * 1000000l)

struct doubted {
	struct request *request;
	uint64_t until;			/* clock_now() */
	struct doubted *next;
};

int doubt_add(struct object *object, struct request *request)
{
	struct doubted *doubted = malloc(sizeof(*doubted));
	uint64_t retry_for = atomic_load(&object->store->retry_for), now = clock_now();

	if (!doubted)
		return -ENOMEM;
	doubted->request = request;
	doubted->until = retry_for > UINT64_MAX - now ? UINT64_MAX : now + retry_for;
	if (request->deadline && request->deadline < doubted->until)
		doubted->until = request->deadline;
	doubted->next = object->doubted;
	object->doubted = doubted;
	pthread_cond_broadcast(&object->wake);
	return 0;
}

void doubt_end(struct object *object)
{
	struct doubted *doubted = object->doubted, *next;

	object->doubted = NULL;
	pthread_mutex_unlock(&object->lock);
	for (; doubted; doubted = next) {
		next = doubted->next;
		object_read_again(object, doubted->request);
		free(doubted);
	}
	pthread_mutex_lock(&object->lock);
}

/* 0, or why it waits no longer. */
static int is_over(const struct doubted *doubted, uint64_t now)
{
	if (request_is_cancelled(doubted->request))
		return -ECANCELED;
	return doubted->until <= now ? -ETIMEDOUT : 0;
}

/* Completes what is over.  The lock is held, and let go meanwhile. */
static void expire(struct object *object)
{
	struct doubted **link = &object->doubted, *doubted, *over = NULL;
	uint64_t now = clock_now();

	while ((doubted = *link)) {
		if (!is_over(doubted, now)) {
			link = &doubted->next;
			continue;
		}
		*link = doubted->next;
		doubted->next = over;
		over = doubted;
	}
	if (!over)
		return;
	pthread_mutex_unlock(&object->lock);
	while ((doubted = over)) {
		over = doubted->next;
		request_complete(doubted->request, is_over(doubted, now));
		free(doubted);
	}
	pthread_mutex_lock(&object->lock);
}

static void *watch_main(void *context)
{
	struct object *object = context;
	struct timespec until;

	pthread_mutex_lock(&object->lock);
	while (!object->stopping) {
		expire(object);
		if (!object->doubted) {
			pthread_cond_wait(&object->wake, &object->lock);
			continue;
		}
		clock_gettime(CLOCK_REALTIME, &until);
		until.tv_nsec += LOOK_PAUSE_NS;
		if (until.tv_nsec >= 1000000000) {
			until.tv_nsec -= 1000000000;
			until.tv_sec++;
		}
		pthread_cond_timedwait(&object->wake, &object->lock, &until);
	}
	pthread_mutex_unlock(&object->lock);
	return NULL;
}

int doubt_start(struct object *object)
{
	sigset_t all, before;
	int error;

	sigfillset(&all);
	pthread_sigmask(SIG_BLOCK, &all, &before);
	error = -pthread_create(&object->watcher, NULL, watch_main, object);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	object->watcher_runs = !error;
	return error;
}

void doubt_stop(struct object *object)
{
	if (object->watcher_runs)
		pthread_join(object->watcher, NULL);
	object->watcher_runs = false;
}
