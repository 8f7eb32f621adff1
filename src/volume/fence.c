/* fence.c: the claim was lost: somebody else commits to this volume now.
 *
 * From then on changes and flushes fail with -ESTALE; reads go on, from the
 * last image that was settled and what is pending on top of it.  At close what
 * is unsaved is written to STATE/UUID/fenced-EPOCH: `chunks`, the content of
 * one chunk after the other, and `index`, a text that says where each belongs;
 * objmap-volume(5) describes it. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

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
	FILE *index;
	int fd;				/* chunks */
	uint64_t position, nr, bytes;
};

static int write_all(int fd, const void *data, size_t count)
{
	const char *at = data;
	ssize_t n;

	while (count) {
		n = write(fd, at, count);
		if (n < 0 && errno != EINTR)
			return -errno;
		if (n > 0) {
			at += n;
			count -= (size_t)n;
		}
	}
	return 0;
}

static int save_entry(struct save *save, const struct pending_entry *entry)
{
	uint32_t chunk_size = save->volume->chunk_size;
	uint64_t size = save->volume->image.head.size;
	uint64_t offset = (uint64_t)entry->first * chunk_size;
	uint64_t count = (uint64_t)entry->nr * chunk_size;
	int error;

	if (count > size - offset)
		count = size - offset;
	save->nr++;
	save->bytes += count;
	if (!entry->buffer) {
		fprintf(save->index, "zero %" PRIu64 " %" PRIu64 "\n", offset, count);
		return 0;
	}
	error = write_all(save->fd, entry->buffer->bytes, count);
	fprintf(save->index, "chunk %" PRIu64 " %" PRIu64 " %08" PRIx32 " %" PRIu64 "\n",
		offset, count, crc32c(0, entry->buffer->bytes, count), save->position);
	save->position += count;
	return error;
}

static int save_table(struct save *save)
{
	const struct pending *open = &save->volume->committer.open;
	const struct head *head = &save->volume->image.head;
	const struct pending_entry *entry = pending_find(open, 0);
	char uuid[37];
	int error = 0;

	uuid_format(head->uuid, uuid);
	fprintf(save->index, "objmap fenced 1\nvolume %s\nplace %s\nepoch %" PRIu64
		"\nwriter %016" PRIx64 "\nsize %" PRIu64 "\n", uuid,
		save->volume->store->place, head->epoch, save->volume->writer,
		head->size);
	for (; !error && entry; entry = pending_find(open, entry->first + entry->nr))
		error = save_entry(save, entry);
	fprintf(save->index, "end %" PRIu64 "\n", save->nr);
	if (!error && (fflush(save->index) != 0 || ferror(save->index)))
		error = errno ? -errno : -EIO;
	if (!error && (fsync(save->fd) < 0 || fsync(fileno(save->index)) < 0))
		error = -errno;
	return error;
}

static int sync_folder(const char *path)
{
	int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	int error = fd < 0 || fsync(fd) < 0 ? -errno : 0;

	if (fd >= 0)
		close(fd);
	return error;
}

/* Makes STATE, STATE/UUID and @folder, and makes sure that they stay. */
static int make_folders(const char *state, const char *parent, const char *folder)
{
	int error;

	if ((mkdir(state, 0700) < 0 && errno != EEXIST) ||
	    (mkdir(parent, 0700) < 0 && errno != EEXIST) || mkdir(folder, 0700) < 0)
		return -errno;
	error = sync_folder(state);
	return error ? error : sync_folder(parent);
}

static int save_into(struct save *save, const char *folder)
{
	char path[PATH_MAX + 64];
	int fd, error;

	snprintf(path, sizeof(path), "%s/chunks", folder);
	save->fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	snprintf(path, sizeof(path), "%s/index", folder);
	fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	save->index = save->fd >= 0 && fd >= 0 ? fdopen(fd, "w") : NULL;
	error = save->index ? save_table(save) : -errno;
	if (save->index)
		fclose(save->index);
	else if (fd >= 0)
		close(fd);
	if (save->fd >= 0)
		close(save->fd);
	return error ? error : sync_folder(folder);
}

int fence_save(struct volume *volume)
{
	struct save save = { .volume = volume, .fd = -1 };
	const char *state = volume->options.state_dir;
	char parent[PATH_MAX], folder[PATH_MAX + 32], uuid[37], kept[UNITS_TEXT];
	int error;

	if (!volume->committer.open.top)
		return 0;
	if (!state) {
		log_error("%s: what was written after the last flush is lost: the "
			  "volume is held by %s", volume->store->place, volume->fence.by);
		return -ESTALE;
	}
	uuid_format(volume->image.head.uuid, uuid);
	if (snprintf(parent, sizeof(parent), "%s/%s", state, uuid) >= PATH_MAX)
		return -ENAMETOOLONG;
	snprintf(folder, sizeof(folder), "%s/fenced-%016" PRIx64, parent,
		 volume->image.head.epoch);
	error = make_folders(state, parent, folder);
	if (!error)
		error = save_into(&save, folder);
	if (error)
		log_error("%s: unsaved writes could not be kept in %s: %s",
			  volume->store->place, folder, strerror(-error));
	else
		log_error("%s: %s of unsaved writes were kept in %s; its index says "
			  "where each chunk belongs", volume->store->place,
			  size_format(save.bytes, kept), folder);
	return error;
}
