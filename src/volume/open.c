/* open.c: opening a volume and closing it.
 *
 * A writer claims the volume, a reader reads head or a snapshot's body: the same
 * few requests whatever the size.  Nodes of the map are read when they are
 * needed. */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "src/clock.h"
#include "src/errors.h"
#include "src/log.h"
#include "src/volume/engine.h"

#define PENDING_DEFAULT (64ull << 20)
#define MAP_DEFAULT	(32ull << 20)
#define MAX_REQUEST	(64u << 20)
#define CLOSE_PATIENCE	(30 * CLOCK_SECOND)

/* ---- what may be opened -------------------------------------------------------- */

static int check_state(struct store *store, const struct volume_options *options,
		       const struct head *head)
{
	if (head->state == HEAD_DELETED) {
		log_error("%s: there is no volume here any more; it was deleted",
			  store->place);
		return -ENOENT;
	}
	if (head->state == HEAD_INCOMPLETE && !options->accept_incomplete) {
		log_error("%s: the copy into this volume was cut: finish it with objmap "
			  "copy --resume, or delete it", store->place);
		return -EUCLEAN;
	}
	return 0;
}

struct claim_check {
	struct store *store;
	const struct volume_options *options;
};

static int check_claim(void *context, const struct stored_head *stored,
		       struct head *next)
{
	const struct claim_check *check = context;

	return check_state(check->store, check->options, &stored->head);
}

static int claim_volume(struct volume *volume)
{
	const struct volume_options *options = &volume->options;
	const struct claim_options how = {
		.take_over = options->take_over,
		.abandon_journal = options->abandon_journal,
		.exclusive = options->exclusive,
		.runtime_dir = options->runtime_dir,
	};
	struct claim_check check = { volume->store, options };
	int error;

	error = claim_take(volume->store, &how, true, check_claim, &check,
			   &volume->claim);
	if (!error) {
		volume->image = volume->claim.head;
		volume->writer = volume->claim.writer;
	}
	return error;
}

/* Pins a head or a snapshot. */
static int pin_image(struct volume *volume)
{
	struct store *store = volume->store;
	int error;

	if (volume->options.snapshot)
		return volume_snapshot_head(store, volume->options.snapshot,
					    &volume->image.head);
	error = head_read(store, &volume->image);
	if (error == -ENOENT)
		log_error("%s: there is no volume here; objmap create makes one",
			  store->place);
	return error ? error : check_state(store, &volume->options, &volume->image.head);
}

/* ---- open and close ------------------------------------------------------------------ */

static int copy_string(const char **string)
{
	if (!*string)
		return 0;
	*string = strdup(*string);
	return *string ? 0 : -ENOMEM;
}

static int copy_options(struct volume *volume, const struct volume_options *options)
{
	struct volume_options *copy = &volume->options;
	int error;

	*copy = *options;
	copy->snapshot = copy->state_dir = copy->runtime_dir = NULL;
	if (!copy->pending_limit)
		copy->pending_limit = PENDING_DEFAULT;
	if (!copy->map_memory)
		copy->map_memory = MAP_DEFAULT;
	copy->snapshot = options->snapshot;
	error = copy_string(&copy->snapshot);
	if (error)
		return error;
	copy->state_dir = options->state_dir;
	error = copy_string(&copy->state_dir);
	if (error)
		return error;
	copy->runtime_dir = options->runtime_dir;
	return copy_string(&copy->runtime_dir);
}

static void cond_init(pthread_cond_t *cond)
{
	pthread_condattr_t attr;

	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(cond, &attr);
	pthread_condattr_destroy(&attr);
}

static struct volume *volume_new(struct store *store)
{
	struct volume *volume = calloc(1, sizeof(*volume));

	if (!volume)
		return NULL;
	volume->store = store;
	volume->claim.lock_fd = -1;
	pthread_mutex_init(&volume->lock, NULL);
	cond_init(&volume->committer.wake);
	cond_init(&volume->follow.wake);
	pthread_cond_init(&volume->turn.free, NULL);
	cond_init(&volume->quiet);
	volume->committer.flushes_end = &volume->committer.flushes;
	volume->committer.writes_end = &volume->committer.writes;
	return volume;
}

/* All but the store and the claim. */
static void volume_free(struct volume *volume)
{
	committer_stop(volume);
	follow_stop(volume);
	if (volume->workers)
		workers_close(volume->workers);
	pending_clear(&volume->committer.open);
	if (volume->turn.unsettled)
		attempt_free(volume->turn.unsettled);
	reap_deinit(&volume->reap);
	upload_close(&volume->uploads);
	map_deinit(&volume->map);
	if (volume->buffers.size)
		buffer_pool_deinit(&volume->buffers);
	pthread_cond_destroy(&volume->committer.wake);
	pthread_cond_destroy(&volume->follow.wake);
	pthread_cond_destroy(&volume->turn.free);
	pthread_cond_destroy(&volume->quiet);
	pthread_mutex_destroy(&volume->lock);
	free((char *)(uintptr_t)volume->options.snapshot);
	free((char *)(uintptr_t)volume->options.state_dir);
	free((char *)(uintptr_t)volume->options.runtime_dir);
	free(volume);
}

static void init_geometry(struct volume *volume)
{
	const struct head *head = &volume->image.head;
	const struct geometry geometry = {
		.size = head->size,
		.read_unit = head->frame_size,
		.write_unit = head->chunk_size,
		.preferred = head->chunk_size,
		.max_request = MAX_REQUEST,
		.flags = STAGE_NATIVE_FUA | STAGE_FAST_ZERO |
			 (volume->writable ? 0 : STAGE_READ_ONLY),
	};

	stage_init(&volume->stage, &volume_ops, NULL, &geometry);
	memcpy(volume->uuid, head->uuid, sizeof(volume->uuid));
	volume->chunk_size = head->chunk_size;
	volume->frame_size = head->frame_size;
	volume->chunk_shift = (unsigned int)__builtin_ctz(head->chunk_size);
}

static int volume_start(struct volume *volume)
{
	const struct volume_options *options = &volume->options;
	int error;

	init_geometry(volume);
	buffer_pool_init(&volume->buffers, volume->chunk_size,
			 options->pending_limit);
	error = map_init(&volume->map, options->map_memory);
	if (!error)
		error = workers_open("objmap-volume", 1, &volume->workers);
	if (!error && volume->writable)
		error = upload_open(&volume->uploads, volume->store,
				    options->pending_limit);
	if (!error && volume->writable)
		error = committer_start(volume);
	if (!error && !volume->writable && options->follow && !options->snapshot)
		error = follow_start(volume);
	if (error)
		log_error("%s: %s", volume->store->place, error_words(error));
	return error;
}

int volume_open(struct store *store, const struct volume_options *options,
		struct volume **opened)
{
	struct volume *volume;
	int error;

	*opened = NULL;
	if (options->durability == DURABILITY_JOURNAL ||
	    (options->writable && options->snapshot))
		return -EINVAL;
	volume = volume_new(store);
	if (!volume)
		return -ENOMEM;
	volume->writable = options->writable;
	error = copy_options(volume, options);
	if (!error)
		error = volume->writable ? claim_volume(volume) : pin_image(volume);
	if (error) {
		volume_free(volume);
		return error;
	}
	error = volume_start(volume);
	if (error) {
		if (volume->writable)
			claim_release(store, &volume->claim);
		volume_free(volume);
		return error;
	}
	*opened = volume;
	return 0;
}

/* Gives the volume back, or says why it cannot be. */
static void give_back(struct volume *volume)
{
	struct committer *committer = &volume->committer;

	if (committer->open.top && !volume->fence.fenced)
		log_warning("%s: closed with unsaved writes in %" PRIu64 " chunks",
			    volume->store->place, committer->open.nr_entries);
	volume_keep_unsaved(volume);
	if (volume->fence.fenced || volume->turn.unsettled) {
		claim_drop(&volume->claim);
		return;
	}
	volume->claim.head = volume->image;
	volume->claim.used = volume->turn.used;
	claim_release(volume->store, &volume->claim);
}

void volume_release(struct volume *volume)
{
	struct store *store = volume->store;

	if (volume->released)
		return;
	/* A store that does not answer must not keep us for ever. */
	if (atomic_load(&store->retry_for) > CLOSE_PATIENCE)
		atomic_store(&store->retry_for, CLOSE_PATIENCE);
	committer_stop(volume);
	follow_stop(volume);
	if (volume->writable)
		give_back(volume);
	volume->released = true;
}

void volume_close(struct stage *stage)
{
	struct volume *volume = volume_of(stage);
	struct store *store = volume->store;

	volume_release(volume);
	/* A fetch goes on a little after those who waited for it were told. */
	pthread_mutex_lock(&volume->lock);
	while (volume->reap.deleting || volume->map.nr_fetching)
		pthread_cond_wait(&volume->quiet, &volume->lock);
	pthread_mutex_unlock(&volume->lock);
	volume_free(volume);
	store_close(store);
}
