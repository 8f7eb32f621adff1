/* follow.c: when the image that is read is no longer the newest.
 *
 * A reader keeps the head it has pinned; with `follow` it looks at head from
 * time to time and moves on to a newer one, at once for all of it.  An object
 * that a ref names and that is not there is never a hole: head says whether it
 * was replaced, taken by gc, or lost. */
#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "src/clock.h"
#include "src/log.h"
#include "src/units.h"
#include "src/volume/engine.h"

#define REFRESH_DEFAULT (10 * CLOCK_SECOND)

/* ---- moving on -------------------------------------------------------------------- */

/* Nobody mounts a copy that is not complete, so nobody moves on into one. */
static int wait_for_copy(struct volume *volume)
{
	bool told;

	pthread_mutex_lock(&volume->lock);
	told = volume->follow.waits;
	volume->follow.waits = true;
	pthread_mutex_unlock(&volume->lock);
	if (!told)
		log_notice("%s: is being copied into: its last state is read until the "
			   "copy is complete", volume->store->place);
	return 0;
}

/* @now becomes the image when it is a newer one of this volume.  -ESTALE: this
 * volume is gone. */
static int move_on(struct volume *volume, const struct stored_head *now)
{
	const struct head *old = &volume->image.head;
	char was[UNITS_TEXT], is[UNITS_TEXT];
	uint64_t old_epoch, old_size;

	if (now->head.state == HEAD_DELETED ||
	    memcmp(now->head.uuid, old->uuid, sizeof(old->uuid)) != 0) {
		log_error("%s: the volume was deleted; what is read here is its last "
			  "state, for as long as gc leaves it", volume->store->place);
		return -ESTALE;
	}
	if (now->head.state == HEAD_INCOMPLETE && !volume->options.accept_incomplete)
		return wait_for_copy(volume);
	pthread_mutex_lock(&volume->lock);
	volume->follow.waits = false;
	old_epoch = old->epoch;
	old_size = old->size;
	if (now->head.epoch > old_epoch) {
		volume->image = *now;
		stage_set_size(&volume->stage, now->head.size);
	}
	pthread_mutex_unlock(&volume->lock);
	if (now->head.epoch <= old_epoch)
		return 0;
	log_notice("%s: moved on from commit %" PRIu64 " to %" PRIu64,
		   volume->store->place, old_epoch, now->head.epoch);
	if (now->head.size != old_size)
		log_notice("%s: its size was %s and is %s; clients see it when they "
			   "connect again", volume->store->place,
			   size_format(old_size, was), size_format(now->head.size, is));
	return 0;
}

static void *follow_run(void *context)
{
	struct volume *volume = context;
	struct follow *follow = &volume->follow;
	struct stored_head *now = malloc(sizeof(*now));
	uint64_t interval = volume->options.refresh_interval, due;
	struct timespec t;
	bool gone = now == NULL;

	due = clock_now();
	pthread_mutex_lock(&volume->lock);
	while (!follow->stop && !gone) {
		due += interval ? interval : REFRESH_DEFAULT;
		t = (struct timespec){ (time_t)(due / CLOCK_SECOND),
				       (long)(due % CLOCK_SECOND) };
		while (!follow->stop && clock_now() < due)
			pthread_cond_timedwait(&follow->wake, &volume->lock, &t);
		if (follow->stop)
			break;
		pthread_mutex_unlock(&volume->lock);
		if (head_read(volume->store, now) == 0)
			gone = move_on(volume, now) < 0;
		if (clock_now() > due)
			due = clock_now();
		pthread_mutex_lock(&volume->lock);
	}
	pthread_mutex_unlock(&volume->lock);
	free(now);
	return NULL;
}

int follow_start(struct volume *volume)
{
	sigset_t all, old;
	int error;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	error = pthread_create(&volume->follow.thread, NULL, follow_run, volume);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	volume->follow.started = error == 0;
	return -error;
}

void follow_stop(struct volume *volume)
{
	if (!volume->follow.started)
		return;
	pthread_mutex_lock(&volume->lock);
	volume->follow.stop = true;
	pthread_cond_broadcast(&volume->follow.wake);
	pthread_mutex_unlock(&volume->lock);
	pthread_join(volume->follow.thread, NULL);
	volume->follow.started = false;
}

/* ---- an object that is not there ------------------------------------------------------ */

struct absence {
	struct job job;			/* must stay first */
	struct volume *volume;
	uint64_t epoch;
	absence_done *done;
	void *context;
	char key[VOLUME_KEY_MAX];
};

static int absence_damaged(struct volume *volume, const char *key)
{
	log_error("%s: %s, which the map names, is missing: the volume is damaged; "
		  "objmap verify finds all that is", volume->store->place, key);
	return -EIO;
}

static int absence_taken(struct volume *volume, const char *key)
{
	log_error("%s: %s is gone: this mount reads an older state than its grace "
		  "period allows, and gc has taken it; mount it again",
		  volume->store->place, key);
	return -ESTALE;
}

static int absence_of_snapshot(struct volume *volume, const char *key)
{
	struct head *head = malloc(sizeof(*head));
	int error = head ? volume_snapshot_head(volume->store, volume->options.snapshot,
						head) : -ENOMEM;

	free(head);
	if (error == -ENOENT)
		return absence_taken(volume, key);
	return error ? error : absence_damaged(volume, key);
}

/* A commit of ours was made and is not settled yet: what it replaced may be gone, and
 * @now names what is there instead. */
static void take_ours(struct volume *volume, const struct stored_head *now)
{
	pthread_mutex_lock(&volume->lock);
	if (now->head.epoch > volume->image.head.epoch) {
		volume->image = *now;
		stage_set_size(&volume->stage, now->head.size);
	}
	pthread_mutex_unlock(&volume->lock);
}

static int absence_judge(struct absence *absence, struct stored_head *now)
{
	struct volume *volume = absence->volume;
	uint64_t epoch;
	bool moved;
	int error;

	pthread_mutex_lock(&volume->lock);
	epoch = volume->image.head.epoch;
	pthread_mutex_unlock(&volume->lock);
	if (epoch != absence->epoch)
		return 0;		/* the image moved on meanwhile */
	if (volume->options.snapshot)
		return absence_of_snapshot(volume, absence->key);
	error = head_read(volume->store, now);
	if (error)
		return error == -ENOENT ? -EIO : error;
	if (volume->writable && now->head.writer != volume->writer) {
		volume_fence(volume, now);
		return -ESTALE;
	}
	if (now->head.epoch == epoch)
		return absence_damaged(volume, absence->key);
	if (volume->writable) {
		take_ours(volume, now);
		return 0;
	}
	error = volume->options.follow ? move_on(volume, now) : 0;
	if (error)
		return error;
	pthread_mutex_lock(&volume->lock);
	moved = volume->image.head.epoch != epoch;
	pthread_mutex_unlock(&volume->lock);
	return moved ? 0 : absence_taken(volume, absence->key);
}

static void absence_run(struct job *job)
{
	struct absence *absence = (struct absence *)job;
	struct stored_head *now = malloc(sizeof(*now));
	int error = now ? absence_judge(absence, now) : -ENOMEM;

	free(now);
	absence->done(absence->context, error);
	free(absence);
}

void volume_absence(struct volume *volume, const char *key, uint64_t epoch,
		    absence_done *done, void *context)
{
	struct absence *absence = malloc(sizeof(*absence));

	if (!absence) {
		done(context, -ENOMEM);
		return;
	}
	*absence = (struct absence){ .job = { .run = absence_run }, .volume = volume,
				     .epoch = epoch, .done = done, .context = context };
	strcpy(absence->key, key);
	workers_submit(volume->workers, &absence->job);
}
