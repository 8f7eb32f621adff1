/* volume.c: an open volume as the last stage of a pipeline, and its status.
 *
 * Reads are chunk.c's, changes go into the pending table (write.c), flushes to
 * the committer.  Nothing here waits. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "src/volume/engine.h"

static void volume_flush_slot(struct stage *stage, struct request *request)
{
	committer_flush(volume_of(stage), request);
}

/* Without a cache there is no place to put what is fetched ahead. */
static void volume_prefetch(struct stage *stage, struct request *request)
{
	request_complete(request, 0);
}

struct stage *volume_stage(struct volume *volume)
{
	return &volume->stage;
}

struct store *volume_store(struct volume *volume)
{
	return volume->store;
}

void volume_status(struct volume *volume, struct volume_status *status)
{
	const struct committer *committer = &volume->committer;

	memset(status, 0, sizeof(*status));
	pthread_mutex_lock(&volume->lock);
	status->head = volume->image.head;
	status->writable = volume->writable;
	status->fenced = volume->fence.fenced;
	memcpy(status->fenced_by, volume->fence.by, sizeof(status->fenced_by));
	status->pending_chunks = committer->open.nr_data + committer->sealed.nr_data;
	status->pending_bytes = status->pending_chunks * volume->chunk_size;
	status->committing_bytes = volume->turn.bytes;
	status->uploaded_bytes = atomic_load(&volume->uploads.chunk_bytes);
	if (status->uploaded_bytes > status->committing_bytes)
		status->uploaded_bytes = status->committing_bytes;
	status->last_commit = volume->turn.last;
	if (committer->sealed.top)
		status->oldest_dirty = committer->sealed_oldest;
	else if (committer->open.top)
		status->oldest_dirty = committer->oldest;
	status->nr_commits = volume->turn.nr_commits;
	status->failed_commits = volume->turn.failed_commits;
	status->map_nodes = volume->map.nr_nodes;
	status->map_bytes = volume->map.nr_nodes * (uint64_t)MAP_NODE_BYTES;
	pthread_mutex_unlock(&volume->lock);
}

int volume_read_head(struct store *store, struct head *head,
		     struct store_reply *reply)
{
	struct stored_head *stored = malloc(sizeof(*stored));
	struct store_reply unwanted;
	int error;

	if (!stored)
		return -ENOMEM;
	error = head_read_reply(store, stored, reply ? reply : &unwanted);
	if (!error)
		*head = stored->head;
	free(stored);
	return error;
}

const struct stage_ops volume_ops = {
	.name	  = "volume",
	.read	  = volume_read,
	.write	  = volume_change,
	.zero	  = volume_change,
	.trim	  = volume_change,
	.flush	  = volume_flush_slot,
	.extents  = volume_extents,
	.prefetch = volume_prefetch,
	.close	  = volume_close,
};
