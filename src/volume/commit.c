/* commit.c: one commit: a number, uploads in parallel, one swap.
 *
 * Whoever has the turn runs one commit and no other runs meanwhile; so the image
 * changes under the turn only.  An attempt that fails before its swap was sent
 * is given up: its number is burnt, and its objects are deleted, because gc must
 * leave them while this writer lives, and a full store would stay full.  One whose
 * swap has no clear answer is kept: nothing conditional is sent before it is
 * settled, one way or the other, by the next commit. */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "src/clock.h"
#include "src/crc32c.h"
#include "src/errors.h"
#include "src/log.h"
#include "src/volume/engine.h"

/* ---- the turn ----------------------------------------------------------------- */

static void turn_take(struct volume *volume)
{
	pthread_mutex_lock(&volume->lock);
	while (volume->turn.taken)
		pthread_cond_wait(&volume->turn.free, &volume->lock);
	volume->turn.taken = true;
	pthread_mutex_unlock(&volume->lock);
}

static void turn_give(struct volume *volume)
{
	pthread_mutex_lock(&volume->lock);
	volume->turn.taken = false;
	volume->turn.bytes = 0;
	atomic_store(&volume->uploads.chunk_bytes, 0);
	pthread_cond_signal(&volume->turn.free);
	pthread_mutex_unlock(&volume->lock);
}

static struct attempt *attempt_new(struct volume *volume,
				   const struct commit_terms *terms)
{
	struct attempt *attempt = calloc(1, sizeof(*attempt));
	struct turn *turn = &volume->turn;
	struct head *next;

	if (!attempt)
		return NULL;
	attempt->volume = volume;
	attempt->priority = terms->priority;
	attempt->swap.store = volume->store;
	attempt->swap.by_writer = true;
	attempt->swap.exclusive = volume->claim.exclusive;
	pthread_mutex_lock(&volume->lock);
	attempt->swap.base = volume->image;
	if (turn->used < volume->image.head.epoch)
		turn->used = volume->image.head.epoch;
	attempt->epoch = ++turn->used;
	pthread_mutex_unlock(&volume->lock);

	next = &attempt->swap.next;
	*next = attempt->swap.base.head;
	next->epoch = attempt->epoch;
	next->writer = volume->writer;
	next->committed = (uint64_t)time(NULL);
	if (terms->batch->sequence)
		next->sequence = terms->batch->sequence;
	if (terms->complete)
		next->state = HEAD_LIVE;
	return attempt;
}

void attempt_free(struct attempt *attempt)
{
	if (!attempt)
		return;
	free(attempt->changes.list);
	free(attempt->replaced.objects);
	free(attempt->stored.objects);
	free(attempt);
}

/* ---- settling ------------------------------------------------------------------- */

/* @now is what head is. */
static void take_image(struct volume *volume, struct attempt *attempt,
		       const struct stored_head *now)
{
	pthread_mutex_lock(&volume->lock);
	volume->image = *now;
	stage_set_size(&volume->stage, now->head.size);
	volume->turn.nr_commits++;
	volume->turn.last = clock_now();
	reap_queue_add(volume, &attempt->replaced);
	pthread_mutex_unlock(&volume->lock);
}

/* Sends the swap, or asks what became of it.  0: committed.  -ESTALE: fenced.
 * Another error: it is kept as unsettled. */
static int attempt_settle(struct volume *volume, struct attempt *attempt)
{
	struct stored_head ours;
	int error = head_swap(&attempt->swap);

	switch (error) {
	case 0:
		take_image(volume, attempt, &attempt->swap.base);
		break;
	case -EALREADY:		/* it was ours, but is somebody else's by now */
		ours = attempt->swap.base;
		ours.head = attempt->swap.next;
		take_image(volume, attempt, &ours);
		volume_fence(volume, &attempt->swap.base);
		error = 0;
		break;
	case -ESTALE:
		volume_fence(volume, &attempt->swap.base);
		break;
	default:
		pthread_mutex_lock(&volume->lock);
		volume->turn.unsettled = attempt;
		pthread_mutex_unlock(&volume->lock);
		return error;
	}
	attempt_free(attempt);
	return error;
}

/* Whether the attempt that was left unsettled came through matters to nobody any
 * more: its data went back to the table, and will be committed again. */
static int settle_leftover(struct volume *volume)
{
	struct attempt *attempt = volume->turn.unsettled;

	if (!attempt)
		return 0;
	pthread_mutex_lock(&volume->lock);
	volume->turn.unsettled = NULL;
	pthread_mutex_unlock(&volume->lock);
	return attempt_settle(volume, attempt);
}

/* ---- uploading -------------------------------------------------------------------- */

static void let_go(const struct commit_item *item)
{
	if (item->let_go)
		item->let_go(item->context);
}

/* Says what chunk @item will be: its ref and its metadata. */
static int describe_chunk(struct attempt *attempt, const struct commit_item *item,
			  const uint32_t *sums, struct store_metadata *metadata)
{
	struct volume *volume = attempt->volume;
	struct ref ref = { .epoch = attempt->epoch, .writer = volume->writer,
			   .stored = volume->chunk_size };
	char frames[FRAMES_TEXT_MAX], uuid[37];
	struct frame_table table;
	int error;

	frame_table_fill(&table, sums, volume->chunk_size / volume->frame_size,
			 volume->frame_size);
	frame_table_format(&table, frames);
	uuid_format(attempt->swap.base.head.uuid, uuid);
	ref.crc = frame_table_crc(&table);
	metadata->length = 0;
	error = store_metadata_add(metadata, METADATA_VOLUME, uuid);
	if (!error)
		error = store_metadata_add(metadata, METADATA_FRAMES, frames);
	if (!error)
		error = changes_add(&attempt->changes, item->chunk, 1, &ref);
	if (!error)
		reap_list_add(&attempt->stored, REAP_CHUNK, item->chunk, &ref);
	return error;
}

static int put_chunk(struct attempt *attempt, const struct commit_item *item)
{
	struct volume *volume = attempt->volume;
	uint32_t sums[FRAMES_MAX];
	struct upload_content content = {
		.data = item->data, .count = volume->chunk_size,
		.sums = item->sums ? item->sums : sums, .sum_unit = volume->frame_size,
		.let_go = item->let_go, .context = item->context,
	};
	struct store_metadata metadata;
	char key[VOLUME_KEY_MAX];
	int error;

	if (!item->sums)
		crc32c_sum(sums, volume->frame_size, 0, item->data, volume->chunk_size);
	error = describe_chunk(attempt, item, content.sums, &metadata);
	if (error) {
		let_go(item);
		return error;
	}
	key_chunk(key, item->chunk, attempt->epoch, volume->writer);
	return upload_put(&volume->uploads, CAUSE_PUSH, key, &content, &metadata);
}

/* Whether all of @item is holes already, as far as is known without waiting. */
static bool is_hole_already(struct volume *volume, const struct head *head,
			    const struct commit_item *item)
{
	struct map_find find = { .chunk = item->chunk };
	bool hole;

	pthread_mutex_lock(&volume->lock);
	hole = map_look(volume, head, &find, NULL) == 0 && ref_is_hole(&find.ref) &&
	       find.run >= item->nr_chunks;
	pthread_mutex_unlock(&volume->lock);
	return hole;
}

/* Puts @chunk, whose content was malloc'ed. */
static int put_own(struct attempt *attempt, uint32_t chunk, void *data)
{
	const struct commit_item own = { .chunk = chunk, .nr_chunks = 1, .data = data,
					 .let_go = free, .context = data };

	return put_chunk(attempt, &own);
}

/* Of the last chunk what lies beyond @end (bytes of the volume) is stored as
 * zeros: a table may hold more, from before the volume was cut. */
static int put_data(struct attempt *attempt, const struct commit_item *item,
		    uint64_t end)
{
	static const struct ref hole;
	uint32_t chunk_size = attempt->volume->chunk_size;
	uint64_t left = end - (uint64_t)item->chunk * chunk_size;
	const uint8_t *data = item->data;
	uint8_t *cut;
	bool zero;

	if (left >= chunk_size || bytes_are_zero(data + left, chunk_size - left))
		return put_chunk(attempt, item);
	zero = bytes_are_zero(data, left);
	cut = zero ? NULL : calloc(1, chunk_size);
	if (cut)
		memcpy(cut, data, left);
	let_go(item);
	if (zero)
		return changes_add(&attempt->changes, item->chunk, 1, &hole);
	return cut ? put_own(attempt, item->chunk, cut) : -ENOMEM;
}

static int put_item(struct attempt *attempt, const struct commit_item *item,
		    uint32_t nr_chunks, uint64_t end)
{
	static const struct ref hole;
	struct commit_item cut = *item;

	if (item->chunk >= nr_chunks) {
		let_go(item);
		return 0;
	}
	if (cut.data)
		return put_data(attempt, item, end);
	if (nr_chunks - cut.chunk < cut.nr_chunks)
		cut.nr_chunks = nr_chunks - cut.chunk;
	if (is_hole_already(attempt->volume, &attempt->swap.next, &cut))
		return 0;
	return changes_add(&attempt->changes, cut.chunk, cut.nr_chunks, &hole);
}

static bool next_item(const struct commit_batch *batch, unsigned int *at,
		      struct commit_item *item)
{
	if (*at < batch->nr_items)
		*item = batch->items[(*at)++];
	else if (!batch->more || !batch->more(batch->context, item))
		return false;
	return true;
}

/* All chunks of @batch below the end; @tail is the last one's, when it is cut. */
static int put_chunks(struct attempt *attempt, const struct commit_batch *batch,
		      void *tail)
{
	static const struct ref hole;
	const struct head *next = &attempt->swap.next;
	uint32_t nr = volume_nr_chunks(next->size, next->chunk_size);
	uint64_t end = batch->size > next->size ? batch->size : next->size;
	struct commit_item item;
	unsigned int at = 0;
	int error = 0;

	while (!error && next_item(batch, &at, &item))
		error = put_item(attempt, &item, nr - (tail != NULL), end);
	if (!tail)
		return error;
	if (error || bytes_are_zero(tail, next->chunk_size)) {
		free(tail);
		return error ? error :
		       changes_add(&attempt->changes, nr - 1, 1, &hole);
	}
	return put_own(attempt, nr - 1, tail);
}

static bool changes_nothing(const struct attempt *attempt)
{
	const struct head *base = &attempt->swap.base.head;
	const struct head *next = &attempt->swap.next;
	unsigned int i;

	if (base->size != next->size || base->state != next->state ||
	    base->sequence != next->sequence || base->nr_recent != next->nr_recent)
		return false;
	for (i = 0; i < next->nr_recent; i++)
		if (base->recent[i].chunk != next->recent[i].chunk ||
		    !ref_equal(&base->recent[i].ref, &next->recent[i].ref))
			return false;
	for (i = 0; i < next->nr_root; i++)
		if (!ref_equal(&base->root[i], &next->root[i]))
			return false;
	return true;
}

/* All that comes before the swap. */
static int attempt_prepare(struct attempt *attempt, const struct commit_batch *batch)
{
	struct upload_window *uploads = &attempt->volume->uploads;
	bool cut = batch->size && batch->size < attempt->swap.base.head.size;
	void *tail;
	int error;

	error = resize_begin(attempt, batch, &tail);
	if (error)
		return error;
	upload_begin(uploads, attempt->priority);
	error = put_chunks(attempt, batch, tail);
	if (!error)
		error = fold_changes(attempt, cut);
	if (!error)
		error = resize_end(attempt, batch);
	if (error)
		upload_abort(uploads, error);
	return upload_end(uploads);
}

/* ---- a commit ------------------------------------------------------------------------ */

/* A store without room refuses before the swap, which would tell that the volume is
 * somebody else's by now: then it is no use to wait for room. */
static bool has_lost_it(struct volume *volume)
{
	struct stored_head *now = malloc(sizeof(*now));
	bool lost = now && head_read(volume->store, now) == 0 &&
		    now->head.writer != volume->writer;

	if (lost)
		volume_fence(volume, now);
	free(now);
	return lost;
}

static int commit_try(struct volume *volume, const struct commit_terms *terms)
{
	struct attempt *attempt;
	bool fenced;
	int error;

	error = settle_leftover(volume);
	if (error)
		return error;
	pthread_mutex_lock(&volume->lock);
	fenced = volume->fence.fenced;
	pthread_mutex_unlock(&volume->lock);
	if (fenced)
		return -ESTALE;
	attempt = attempt_new(volume, terms);
	if (!attempt)
		return -ENOMEM;
	error = attempt_prepare(attempt, terms->batch);
	if (error || changes_nothing(attempt)) {
		reap_given_up(volume, &attempt->stored, error);
		attempt_free(attempt);
		if (error_is_no_room(error) && has_lost_it(volume))
			return -ESTALE;
		/* -ESTALE means fenced, and this is not. */
		return error == -ESTALE ? -EIO : error;
	}
	return attempt_settle(volume, attempt);
}

static uint64_t batch_bytes(const struct commit_batch *batch, uint32_t chunk_size)
{
	uint64_t bytes = 0;
	unsigned int i;

	for (i = 0; i < batch->nr_items; i++)
		bytes += batch->items[i].data ? chunk_size : 0;
	return bytes;
}

int commit_run(struct volume *volume, const struct commit_terms *terms)
{
	int error;

	if (!volume->writable)
		return -EROFS;
	turn_take(volume);
	pthread_mutex_lock(&volume->lock);
	volume->turn.bytes = batch_bytes(terms->batch, volume->chunk_size);
	pthread_mutex_unlock(&volume->lock);
	error = commit_try(volume, terms);
	if (error) {
		pthread_mutex_lock(&volume->lock);
		volume->turn.failed_commits++;
		pthread_mutex_unlock(&volume->lock);
	}
	turn_give(volume);
	if (error && error != -ESTALE && error != -ECANCELED)
		log_error("%s: a commit failed: %s%s", volume->store->place,
			  error_words(error), terms->keeps ? "; what it held is kept in "
			  "memory, and goes into the next one" : "");
	return error;
}

int volume_commit(struct volume *volume, const struct commit_batch *batch)
{
	const struct commit_terms terms = { .batch = batch, .priority = PRIORITY_PUSH };

	return commit_run(volume, &terms);
}

int volume_snapshot(struct volume *volume, const char *name)
{
	struct swap_terms terms = { .probed = true,
				    .exclusive = volume->claim.exclusive };
	int error;

	/* Where head is swapped without a condition nothing else keeps the two apart. */
	turn_take(volume);
	error = settle_leftover(volume);
	if (!error)
		error = volume_snapshot_create(volume->store, name, &terms);
	turn_give(volume);
	return error;
}

int volume_set_complete(struct volume *volume)
{
	static const struct commit_batch nothing;
	const struct commit_terms terms = { .batch = &nothing, .complete = true };

	return commit_run(volume, &terms);
}
