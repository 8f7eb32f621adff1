/* fence.c: the claim was lost: somebody else commits to this volume now.
 *
 * From then on changes and flushes fail with -ESTALE; reads go on, from the
 * last image that was settled and what is pending on top of it.  When it is
 * unmounted, what is unsaved is written to STATE/UUID/fenced-EPOCH: `chunks`, the
 * content of one chunk after the other, and `index`, a text that says where each
 * belongs; objmap-volume(5) describes it. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "src/aside.h"
#include "src/crc32c.h"
#include "src/log.h"
#include "src/units.h"
#include "src/volume/engine.h"

static void describe_holder(const struct head *head, char *text, size_t size)
{
	const struct holder *holder = &head->holder;
	time_t since = (time_t)holder->since;
	char when[32] = "";
	struct tm tm;

	if (head->state == HEAD_DELETED) {
		snprintf(text, size, "nobody: the volume was deleted");
	} else if (holder->held) {
		if (localtime_r(&since, &tm))
			strftime(when, sizeof(when), "%F %T", &tm);
		snprintf(text, size, "%s (pid %" PRIu64 ") since %s", holder->host,
			 holder->pid, when);
	} else {
		snprintf(text, size, "nobody any more: writer %016" PRIx64
			 " has had it since", head->writer);
	}
}

void volume_fence(struct volume *volume, const struct stored_head *now)
{
	struct fence *fence = &volume->fence;
	char unsaved[UNITS_TEXT];
	uint64_t bytes;

	pthread_mutex_lock(&volume->lock);
	if (fence->fenced) {
		pthread_mutex_unlock(&volume->lock);
		return;
	}
	fence->fenced = true;
	describe_holder(&now->head, fence->by, sizeof(fence->by));
	bytes = (volume->committer.open.nr_data + volume->committer.sealed.nr_data) *
		volume->chunk_size;
	committer_want(volume);		/* who waits is told */
	pthread_mutex_unlock(&volume->lock);

	log_error("%s: the volume is held by %s; this mount is now read-only, with %s "
		  "of unsaved writes that %s", volume->store->place, fence->by,
		  size_format(bytes, unsaved), volume->options.state_dir ?
		  "are kept aside when it is unmounted" : "end with it");
	if (volume->options.fenced)
		volume->options.fenced(volume->options.context, fence->by);
}

/* ---- keeping what is unsaved ----------------------------------------------------- */

struct save {
	struct volume *volume;
	struct aside aside;
	uint64_t nr, bytes;
};

static int save_entry(struct save *save, const struct pending_entry *entry)
{
	uint32_t chunk_size = save->volume->chunk_size;
	uint64_t size = save->volume->image.head.size;
	uint64_t offset = (uint64_t)entry->first * chunk_size;
	uint64_t count = (uint64_t)entry->nr * chunk_size;

	if (count > size - offset)
		count = size - offset;
	save->nr++;
	save->bytes += count;
	if (!entry->buffer) {
		fprintf(save->aside.index, "zero %" PRIu64 " %" PRIu64 "\n", offset,
			count);
		return 0;
	}
	fprintf(save->aside.index, "chunk %" PRIu64 " %" PRIu64 " %08" PRIx32 " %" PRIu64
		"\n", offset, count, crc32c(0, entry->buffer->bytes, count),
		save->aside.position);
	return aside_write(&save->aside, entry->buffer->bytes, count);
}

static int save_table(struct save *save)
{
	const struct pending *open = &save->volume->committer.open;
	const struct head *head = &save->volume->image.head;
	const struct pending_entry *entry = pending_find(open, 0);
	FILE *index = save->aside.index;
	char uuid[37];
	int error = 0;

	uuid_format(head->uuid, uuid);
	fprintf(index, "objmap fenced 1\nvolume %s\nplace %s\nepoch %" PRIu64
		"\nwriter %016" PRIx64 "\nsize %" PRIu64 "\n", uuid,
		save->volume->store->place, head->epoch, save->volume->writer,
		head->size);
	for (; !error && entry; entry = pending_find(open, entry->first + entry->nr))
		error = save_entry(save, entry);
	if (!error)
		fprintf(index, "end %" PRIu64 "\n", save->nr);
	return error;
}

/* Nothing changes the table any more. */
static int save_all(struct volume *volume, struct save *save)
{
	char uuid[37], name[32];
	int error;

	uuid_format(volume->image.head.uuid, uuid);
	snprintf(name, sizeof(name), "fenced-%016" PRIx64, volume->image.head.epoch);
	error = aside_open(&save->aside, volume->options.state_dir, uuid, name,
			   "chunks");
	if (!error)
		error = save_table(save);
	return aside_close(&save->aside, error);
}

/* Whether there is something to keep.  The lock is held, and let go meanwhile. */
static bool has_unsaved(struct volume *volume)
{
	struct committer *committer = &volume->committer;

	/* Nothing can be committed any more: what the last commit took goes back to
	 * the table in a moment. */
	upload_stop(&volume->uploads);
	while (committer->sealed.top)
		pthread_cond_wait(&volume->quiet, &volume->lock);
	return committer->open.top && !volume->fence.kept;
}

int volume_keep_unsaved(struct volume *volume)
{
	struct save save = { .volume = volume };
	char kept[UNITS_TEXT];
	bool unsaved;
	int error;

	pthread_mutex_lock(&volume->lock);
	unsaved = volume->fence.fenced && has_unsaved(volume);
	pthread_mutex_unlock(&volume->lock);
	if (!unsaved)
		return 0;
	error = volume->options.state_dir ? save_all(volume, &save) : 0;
	if (!volume->options.state_dir)
		log_error("%s: what was written after the last flush is lost: the "
			  "volume is held by %s", volume->store->place, volume->fence.by);
	else if (error)
		log_error("%s: unsaved writes could not be kept in %s: %s",
			  volume->store->place, save.aside.folder, strerror(-error));
	else
		log_error("%s: %s of unsaved writes were kept in %s; its index says where "
			  "each chunk belongs", volume->store->place,
			  size_format(save.bytes, kept), save.aside.folder);
	if (error)
		return error;
	pthread_mutex_lock(&volume->lock);
	volume->fence.kept = true;
	pthread_mutex_unlock(&volume->lock);
	return 0;
}
