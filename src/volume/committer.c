/* committer.c: the thread that turns the pending table into commits.
 *
 * A flush waits for the commit whose capture begins after the flush arrived:
 * the thread takes all flushes that wait, seals the table, commits it, and
 * completes them together.  Writes go on meanwhile, into a new table.  When a
 * commit fails, what it held goes back under what was written since; the
 * flushes it was for report the error, and when there was none the next flush
 * does.  Then the next one tries again.
 *
 * Its state, guarded by volume->lock, is struct committer in engine.h. */
#include <errno.h>
#include <semaphore.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "src/clock.h"
#include "src/volume/engine.h"

void committer_want(struct volume *volume)
{
	volume->committer.wanted = true;
	pthread_cond_broadcast(&volume->committer.wake);
}

static void complete_all(struct request *requests, int error)
{
	struct request *next;

	for (; requests; requests = next) {
		next = requests->next;
		request_complete(requests, error);
	}
}

/* ---- one commit of the table ------------------------------------------------------ */

/* What is sealed as a batch.  It does not change: no lock is needed. */
static int batch_of(const struct pending *sealed, struct commit_batch *batch)
{
	struct commit_item *items = malloc((sealed->nr_entries + 1) * sizeof(*items));
	const struct pending_entry *entry = pending_find(sealed, 0);

	if (!items)
		return -ENOMEM;
	batch->items = items;
	for (; entry; entry = pending_find(sealed, entry->first + entry->nr))
		items[batch->nr_items++] = (struct commit_item){
			.chunk = entry->first, .nr_chunks = entry->nr,
			.data = entry->buffer ? entry->buffer->bytes : NULL };
	return 0;
}

/* The lock is held, and let go meanwhile. */
static int commit_open(struct volume *volume, uint64_t resize_to, bool awaited)
{
	struct committer *committer = &volume->committer;
	struct commit_batch batch = { .size = resize_to };
	const struct commit_terms terms = { .batch = &batch, .keeps = true,
		.priority = awaited ? PRIORITY_DEMAND : PRIORITY_PUSH };
	int error;

	committer->sealed = committer->open;
	committer->sealed_oldest = committer->oldest;
	memset(&committer->open, 0, sizeof(committer->open));
	committer->open.seed = committer->sealed.seed;
	pthread_mutex_unlock(&volume->lock);
	error = batch_of(&committer->sealed, &batch);
	if (!error)
		error = commit_run(volume, &terms);
	free((void *)(uintptr_t)batch.items);
	pthread_mutex_lock(&volume->lock);
	if (error) {
		pending_merge(&committer->sealed, &committer->open);
		committer->open = committer->sealed;
		committer->oldest = committer->sealed_oldest;
		memset(&committer->sealed, 0, sizeof(committer->sealed));
	} else {
		pending_clear(&committer->sealed);
		if (resize_to)
			pending_cut(&committer->open,
				    volume_nr_chunks(resize_to, volume->chunk_size));
	}
	pthread_cond_broadcast(&volume->quiet);
	return error;
}

/* There may be room now: those who wait go on in their order.  After a failure
 * they get its error.  The lock is held, and let go meanwhile. */
static void writes_go_on(struct volume *volume, int error)
{
	struct committer *committer = &volume->committer;
	struct waiting_write *write;
	bool done = true;

	while (done && (write = committer->writes)) {
		committer->writes = write->next;
		if (!committer->writes)
			committer->writes_end = &committer->writes;
		pthread_mutex_unlock(&volume->lock);
		if (error) {
			request_complete(write->request, error);
			free(write);
		} else {
			done = waiting_write_go_on(volume, write);
		}
		pthread_mutex_lock(&volume->lock);
	}
	if (done)
		return;
	write->next = committer->writes;
	committer->writes = write;
	if (!write->next)
		committer->writes_end = &write->next;
	committer->wanted = true;
}

/* The lock is held, and let go meanwhile. */
static void committer_once(struct volume *volume)
{
	struct committer *committer = &volume->committer;
	struct request *flushes = committer->flushes;
	uint64_t resize_to = committer->resize_to;
	bool insist = committer->insist || resize_to;
	int error = 0, reported = 0;

	committer->flushes = NULL;
	committer->flushes_end = &committer->flushes;
	committer->resize_to = 0;
	committer->wanted = committer->insist = false;
	if (volume->fence.fenced) {
		error = -ESTALE;
	} else if (committer->remembered && flushes && !insist) {
		reported = committer->remembered;
		committer->remembered = 0;
	} else if (committer->open.top || resize_to) {
		error = commit_open(volume, resize_to, flushes != NULL);
		if (error && !flushes)
			committer->remembered = error;
		else if (flushes)
			committer->remembered = 0;
	}
	writes_go_on(volume, error);
	pthread_mutex_unlock(&volume->lock);
	complete_all(flushes, error ? error : reported);
	pthread_mutex_lock(&volume->lock);
}

/* ---- the thread ---------------------------------------------------------------------- */

static void *committer_run(void *context)
{
	struct volume *volume = context;
	struct committer *committer = &volume->committer;
	struct timespec t;
	uint64_t next;

	pthread_mutex_lock(&volume->lock);
	while (!committer->stop) {
		next = reap_due(volume);
		if (committer->stop)
			break;
		if (committer->wanted) {
			committer_once(volume);
		} else if (next == UINT64_MAX) {
			pthread_cond_wait(&committer->wake, &volume->lock);
		} else {
			t = (struct timespec){ (time_t)(next / CLOCK_SECOND),
					       (long)(next % CLOCK_SECOND) };
			pthread_cond_timedwait(&committer->wake, &volume->lock, &t);
		}
	}
	pthread_mutex_unlock(&volume->lock);
	return NULL;
}

int committer_start(struct volume *volume)
{
	struct committer *committer = &volume->committer;
	sigset_t all, old;
	int error;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	error = pthread_create(&committer->thread, NULL, committer_run, volume);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	committer->started = error == 0;
	return -error;
}

void committer_stop(struct volume *volume)
{
	struct committer *committer = &volume->committer;

	if (!committer->started)
		return;
	pthread_mutex_lock(&volume->lock);
	committer->stop = true;
	pthread_cond_broadcast(&committer->wake);
	pthread_mutex_unlock(&volume->lock);
	/* Nobody waits for a commit that runs now: it need not be completed. */
	upload_stop(&volume->uploads);
	pthread_join(committer->thread, NULL);
	committer->started = false;
}

/* ---- flushing ------------------------------------------------------------------------------ */

/* The lock is held.  Whether something is not committed; -ESTALE. */
static int needs_commit(const struct volume *volume)
{
	if (volume->fence.fenced)
		return -ESTALE;
	return volume->committer.open.top || volume->committer.sealed.top;
}

/* The lock is held.  What a flush that needs no commit says; 1: it needs one. */
static int flush_now(struct volume *volume)
{
	struct committer *committer = &volume->committer;
	int error = committer->remembered;

	if (volume->fence.fenced || !error)
		return needs_commit(volume);
	committer->remembered = 0;
	return error;
}

/* The lock is held. */
static void flush_queue(struct volume *volume, struct request *request)
{
	struct committer *committer = &volume->committer;

	request->next = NULL;
	*committer->flushes_end = request;
	committer->flushes_end = &request->next;
	committer_want(volume);
}

void committer_flush(struct volume *volume, struct request *request)
{
	int error;

	if (!volume->writable) {
		request_complete(request, 0);
		return;
	}
	pthread_mutex_lock(&volume->lock);
	error = flush_now(volume);
	if (error == 1 && volume->options.durability == DURABILITY_NONE)
		error = 0;	/* durable at unmount */
	if (error == 1)
		flush_queue(volume, request);
	pthread_mutex_unlock(&volume->lock);
	if (error != 1)
		request_complete(request, error);
}

struct flush_wait {
	struct request request;
	sem_t done;
	int error;
};

static void flush_waited(struct request *request, void *context, int error)
{
	struct flush_wait *wait = context;

	wait->error = error;
	sem_post(&wait->done);
}

int committer_flush_wait(struct volume *volume, uint64_t resize_to)
{
	struct committer *committer = &volume->committer;
	struct flush_wait wait;
	int error;

	if (!volume->writable)
		return resize_to ? -EROFS : 0;
	sem_init(&wait.done, 0, 0);
	request_init(&wait.request, REQUEST_FLUSH, 0, 0, flush_waited, &wait);
	pthread_mutex_lock(&volume->lock);
	if (resize_to)
		error = committer->resize_to ? -EBUSY : 1;
	else
		error = needs_commit(volume);
	if (error == 1) {
		committer->resize_to = resize_to ? resize_to : committer->resize_to;
		committer->insist = true;
		flush_queue(volume, &wait.request);
	}
	pthread_mutex_unlock(&volume->lock);
	if (error == 1) {
		while (sem_wait(&wait.done) < 0)
			;	/* EINTR */
		error = wait.error;
	}
	sem_destroy(&wait.done);
	return error;
}

void volume_push(struct volume *volume)
{
	pthread_mutex_lock(&volume->lock);
	if (volume->committer.open.top &&
	    volume->options.durability != DURABILITY_NONE)
		committer_want(volume);
	pthread_mutex_unlock(&volume->lock);
}

int volume_flush(struct volume *volume)
{
	return committer_flush_wait(volume, 0);
}
