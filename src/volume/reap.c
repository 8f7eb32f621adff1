/* reap.c: a writer deletes what its settled commits replaced, and what those that
 * were given up had stored.
 *
 * An object may go when no head from now on reaches it (its replacement is
 * settled), no snapshot does (it is newer than the newest) and no clone's
 * parent owns it (it is newer than the origins); and not before readers that
 * had pinned an older head had their grace.  What was stored for a head that
 * never was, nobody can reach.  All else is gc's, which knows more: what does not
 * fit into the queue, or is left at close or by a failed delete. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "src/clock.h"
#include "src/errors.h"
#include "src/volume/engine.h"

/* How long a commit that found no room waits for what it stored to go. */
#define ROOM_PATIENCE (10 * CLOCK_SECOND)

void reap_list_add(struct reap_list *list, uint8_t level, uint32_t number,
		   const struct ref *ref)
{
	struct reap_object *larger;
	unsigned int room;

	if (ref_is_hole(ref) || list->nr == REAP_MAX)
		return;
	if (list->nr == list->room) {
		room = list->room ? 2 * list->room : 64;
		larger = realloc(list->objects, room * sizeof(*larger));
		if (!larger)
			return;
		list->objects = larger;
		list->room = room;
	}
	list->objects[list->nr++] = (struct reap_object){
		.epoch = ref->epoch, .writer = ref->writer,
		.number = number, .level = level,
	};
}

/* Makes the ring at first use.  The lock is held. */
static bool has_ring(struct reap_queue *queue)
{
	if (!queue->ring)
		queue->ring = malloc(REAP_MAX * sizeof(*queue->ring));
	return queue->ring;
}

void reap_queue_add(struct volume *volume, const struct reap_list *replaced)
{
	struct reap_queue *queue = &volume->reap;
	const struct head *head = &volume->image.head;
	uint64_t kept = head->snapshot_newest;
	uint64_t due = clock_now() + volume->options.grace * CLOCK_SECOND;
	unsigned int i;

	if (head->nr_origins && head->origins[head->nr_origins - 1].epoch > kept)
		kept = head->origins[head->nr_origins - 1].epoch;
	if (!replaced->nr || !has_ring(queue))
		return;
	for (i = 0; i < replaced->nr && queue->nr < REAP_MAX; i++) {
		if (replaced->objects[i].epoch <= kept)
			continue;
		queue->ring[(queue->first + queue->nr++) % REAP_MAX] =
			(struct reap_entry){ due, replaced->objects[i] };
	}
}

/* One DeleteObjects. */
struct reap_batch {
	struct volume *volume;
	struct store_request request;
	unsigned int nr;
	const char *keys[STORE_DELETE_MAX];
	char text[STORE_DELETE_MAX][64];	/* our own keys only: never absolute */
};

static void reap_done(struct store_request *request, enum store_outcome outcome)
{
	struct reap_batch *batch = request->context;
	struct volume *volume = batch->volume;

	free(batch);		/* what was not deleted, gc finds */
	pthread_mutex_lock(&volume->lock);
	volume->reap.deleting = false;
	pthread_cond_broadcast(&volume->committer.wake);
	pthread_cond_broadcast(&volume->quiet);
	pthread_mutex_unlock(&volume->lock);
}

static void reap_take(struct reap_queue *queue, struct reap_batch *batch,
		      uint64_t now)
{
	const struct reap_object *object;
	char key[VOLUME_KEY_MAX];

	while (queue->nr && batch->nr < STORE_DELETE_MAX &&
	       queue->ring[queue->first].due <= now) {
		object = &queue->ring[queue->first].object;
		if (object->level == REAP_CHUNK)
			key_chunk(key, object->number, object->epoch, object->writer);
		else
			key_node(key, object->level, object->number, object->epoch,
				 object->writer);
		memcpy(batch->text[batch->nr], key, sizeof(batch->text[0]));
		batch->text[batch->nr][sizeof(batch->text[0]) - 1] = 0;
		batch->keys[batch->nr] = batch->text[batch->nr];
		batch->nr++;
		queue->first = (queue->first + 1) % REAP_MAX;
		queue->nr--;
	}
}

uint64_t reap_due(struct volume *volume)
{
	struct reap_queue *queue = &volume->reap;
	struct reap_batch *batch;
	uint64_t now = clock_now();

	if (queue->deleting || !queue->nr || volume->fence.fenced)
		return UINT64_MAX;
	if (queue->ring[queue->first].due > now)
		return queue->ring[queue->first].due;
	batch = calloc(1, sizeof(*batch));
	if (!batch)
		return now + CLOCK_SECOND;
	batch->volume = volume;
	reap_take(queue, batch, now);
	batch->request = (struct store_request){
		.op = STORE_DELETE, .cause = CAUSE_GC, .priority = PRIORITY_PUSH,
		.keys = batch->keys, .nr_keys = batch->nr,
		.done = reap_done, .context = batch,
	};
	queue->deleting = true;
	pthread_mutex_unlock(&volume->lock);
	store_submit(volume->store, &batch->request);
	pthread_mutex_lock(&volume->lock);
	/* Its end wakes the committer, unless it has come already. */
	return queue->deleting ? UINT64_MAX : now;
}

/* The lock is held, and let go meanwhile. */
static void delete_due(struct volume *volume)
{
	struct reap_queue *queue = &volume->reap;
	uint64_t until = clock_now() + ROOM_PATIENCE;
	struct timespec t = { (time_t)(until / CLOCK_SECOND), (long)(until % CLOCK_SECOND) };

	while (clock_now() < until && !volume->committer.stop) {
		uint64_t next = reap_due(volume);

		if (queue->deleting)
			pthread_cond_timedwait(&volume->quiet, &volume->lock, &t);
		else if (next > clock_now())
			return;
	}
}

void reap_given_up(struct volume *volume, const struct reap_list *stored, int error)
{
	struct reap_queue *queue = &volume->reap;
	unsigned int i;

	if (!stored->nr)
		return;
	pthread_mutex_lock(&volume->lock);
	for (i = 0; i < stored->nr && queue->nr < REAP_MAX && has_ring(queue); i++) {
		queue->first = (queue->first + REAP_MAX - 1) % REAP_MAX;
		queue->ring[queue->first] = (struct reap_entry){ 0, stored->objects[i] };
		queue->nr++;
	}
	pthread_cond_broadcast(&volume->committer.wake);
	if (error_is_no_room(error))
		delete_due(volume);
	pthread_mutex_unlock(&volume->lock);
}

void reap_deinit(struct reap_queue *queue)
{
	free(queue->ring);
}
