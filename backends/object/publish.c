/* publish.c: the thread that turns what was written into new versions of the object.
 *
 * A flush waits for the publishing that is sealed after the flush arrived: the thread
 * takes all flushes that wait, seals the map, sends it, and completes them together.
 * Writes go on meanwhile, into a new map and a new spill file.  When it fails, what was
 * sealed goes back below what was written since, and the flushes report the error.
 * Without a flush it publishes only when the spill is full; should that fail, the next
 * flush sends all of it again, and says what came of it. */
#include <assert.h>
#include <errno.h>
#include <signal.h>
#include <string.h>
#include <time.h>

#include "backends/object/object.h"

void object_flush(struct object *object, struct request *request)
{
	if (!object->writable) {
		request_complete(request, 0);
		return;
	}
	pthread_mutex_lock(&object->lock);
	request->next = object->flushes;
	object->flushes = request;
	pthread_cond_broadcast(&object->wake);
	pthread_mutex_unlock(&object->lock);
}

static bool is_wanted(const struct object *object)
{
	return object->flushes || object->writes ||
	       object->open.nr >= OBJECT_RANGES_MAX ||
	       (object->doubted && object->doubtful);
}

static void complete_all(struct request *requests, int error)
{
	struct request *next;

	for (; requests; requests = next) {
		next = requests->next;
		request_complete(requests, error);
	}
}

/* Where no range is in the map, the files hold nothing but what was left of writes
 * that failed, which must not keep others from their room for ever.  The lock is held,
 * and let go while writes end that may yet be in the map. */
static void reclaim(struct object *object)
{
	struct spill *spill;

	while (object->writes && !object->open.nr && spill_has_writers(object->spills))
		pthread_cond_wait(&object->wake, &object->lock);
	if (object->open.nr || spill_has_writers(object->spills) || spill_has_readers(object->spills))
		return;
	for (spill = object->spills; spill; spill = spill->next)
		spill->at = 0;
}

/* Seals the map; @spill takes the writes from now on.  The lock is held, and let go
 * while writes into the sealed files end. */
static void seal(struct object *object, struct spill *spill)
{
	assert(!object->sealed.nr && !object->sealed_spills);
	object->sealed = object->open;
	memset(&object->open, 0, sizeof(object->open));
	object->sealed_spills = object->spills;
	object->spills = spill;
	while (spill_has_writers(object->sealed_spills))
		pthread_cond_wait(&object->wake, &object->lock);
}

/* What was sealed goes back below what was written since.  Without memory for that it
 * is sealed still, which reads do not mind; false then.  The lock is held. */
static bool unseal(struct object *object)
{
	struct spill **end = &object->spills;

	if (dirty_merge(&object->sealed, &object->open) != 0)
		return false;
	dirty_clear(&object->open);
	object->open = object->sealed;
	memset(&object->sealed, 0, sizeof(object->sealed));
	while (*end)
		end = &(*end)->next;
	*end = object->sealed_spills;
	object->sealed_spills = NULL;
	return true;
}

/* After a failure: an empty file is the next one again, so that a flush that fails
 * leaves none behind.  The lock is held. */
static struct spill *take_unused(struct object *object)
{
	struct spill *spill = object->spills;

	if (spill->at || !spill->next)
		return NULL;
	object->spills = spill->next;
	spill->next = NULL;
	return spill;
}

/* The sealed map is in the object: its files go when nobody reads them.  The lock is
 * held, and let go meanwhile. */
static void retire(struct object *object)
{
	struct spill *spills = object->sealed_spills;

	dirty_clear(&object->sealed);
	while (spill_has_readers(spills))
		pthread_cond_wait(&object->wake, &object->lock);
	object->sealed_spills = NULL;
	pthread_mutex_unlock(&object->lock);
	while (spills) {
		struct spill *next = spills->next;

		spill_close(spills);
		spills = next;
	}
	pthread_mutex_lock(&object->lock);
}

/* Sends the sealed map.  The lock is held, and let go meanwhile. */
static int send_sealed(struct object *object)
{
	char tag[STORE_TAG_MAX] = "";
	int error;

	pthread_mutex_unlock(&object->lock);
	error = object_send(object, tag);
	pthread_mutex_lock(&object->lock);
	if (error == -ESTALE) {
		/* Somebody else's is there: nothing is left to be settled, and no
		 * read waits for it. */
		object->doubtful = false;
		object_lost(object);
	} else if (!error) {
		memcpy(object->tag, tag, sizeof(object->tag));
	}
	object->settling = object->doubtful;
	if (!object->settling)
		doubt_end(object);
	return error;
}

/* Seals and sends what is open, with @spill for the next writes; *spill is NULL when it
 * was taken.  The lock is held. */
static int publish(struct object *object, struct spill **spill)
{
	int error;

	if (object->lost)
		return object->lost;
	if (object->sealed.nr && !unseal(object))
		return -ENOMEM;
	if (!object->open.nr)
		reclaim(object);
	if (!object->open.nr)
		return 0;
	object->publishing = true;
	seal(object, *spill);
	*spill = NULL;
	error = send_sealed(object);
	object->publishing = false;
	pthread_cond_broadcast(&object->wake);
	if (!error)
		retire(object);
	else if (unseal(object))
		*spill = take_unused(object);
	return error;
}

/* Writes that waited for room go on, or fail as the publishing did. */
static void let_writes_go(struct object *object, struct request *writes, int error)
{
	struct request *in_order = NULL, *next;

	for (; writes; writes = next) {
		next = writes->next;
		writes->next = in_order;
		in_order = writes;
	}
	for (; in_order; in_order = next) {
		next = in_order->next;
		if (error)
			request_complete(in_order, error);
		else
			object_write_again(object, in_order);
	}
}

/* After a failure nobody asks the store again at once.  The lock is held, and let go
 * meanwhile. */
static void rest(struct object *object)
{
	struct timespec until;

	clock_gettime(CLOCK_REALTIME, &until);
	until.tv_sec++;
	pthread_cond_timedwait(&object->wake, &object->lock, &until);
}

static void serve(struct object *object)
{
	struct spill *spare = NULL;
	int error = 0;

	pthread_mutex_lock(&object->lock);
	while (!object->stopping) {
		struct request *flushes, *writes;

		if (!is_wanted(object)) {
			pthread_cond_wait(&object->wake, &object->lock);
			continue;
		}
		if (!spare) {
			pthread_mutex_unlock(&object->lock);
			error = spill_open(object->state, &spare);
			pthread_mutex_lock(&object->lock);
		}
		/* Whoever asked before the seal is answered by it. */
		flushes = object->flushes;
		object->flushes = NULL;
		if (spare)
			error = publish(object, &spare);
		writes = object->writes;
		object->writes = NULL;
		pthread_mutex_unlock(&object->lock);
		complete_all(flushes, error);
		let_writes_go(object, writes, error);
		pthread_mutex_lock(&object->lock);
		if (error && !object->flushes && !object->stopping)
			rest(object);
	}
	pthread_mutex_unlock(&object->lock);
	if (spare)
		spill_close(spare);
}

static void *publisher_main(void *context)
{
	serve(context);
	return NULL;
}

int publisher_start(struct object *object)
{
	sigset_t all, before;
	int error;

	sigfillset(&all);
	pthread_sigmask(SIG_BLOCK, &all, &before);
	error = -pthread_create(&object->publisher, NULL, publisher_main, object);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	object->publisher_runs = !error;
	return error ? error : doubt_start(object);
}

void publisher_stop(struct object *object)
{
	if (!object->publisher_runs)
		return;
	pthread_mutex_lock(&object->lock);
	object->stopping = true;
	atomic_store(&object->stop, true);
	pthread_cond_broadcast(&object->wake);
	pthread_mutex_unlock(&object->lock);
	pthread_join(object->publisher, NULL);
	object->publisher_runs = false;
	doubt_stop(object);
}
