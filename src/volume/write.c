/* write.c: writes, zeroes and trims into the pending table.
 *
 * A written chunk is copied once, into a buffer of its own, which then takes
 * the place of whatever the table had; a chunk of zeros becomes a hole.  When
 * the table is full, changes wait in their order of arrival, and a commit makes
 * room; with nothing else in the table a chunk is always let in. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "src/clock.h"
#include "src/stage/iov.h"
#include "src/volume/engine.h"

/* ---- room ------------------------------------------------------------------------- */

/* The lock is held: bytes in the table, in the commit, and on their way in. */
static uint64_t bytes_taken(const struct volume *volume)
{
	const struct committer *committer = &volume->committer;

	return pending_cost(&committer->open, volume->chunk_size) +
	       pending_cost(&committer->sealed, volume->chunk_size) +
	       committer->reserved;
}

/* Takes @bytes of room for a change of @chunk.  The lock is held. */
static bool reserve(struct volume *volume, uint32_t chunk, uint64_t bytes)
{
	struct committer *committer = &volume->committer;
	const struct pending_entry *entry = pending_find(&committer->open, chunk);
	uint64_t used = bytes_taken(volume);
	bool rewrite = entry && entry->first <= chunk && entry->buffer;

	if (used && !rewrite && used + bytes > volume->options.pending_limit)
		return false;
	committer->reserved += bytes;
	return true;
}

/* Ends what reserve() began: the change goes into the table. */
static int enter(struct volume *volume, uint32_t first, uint32_t nr,
		 struct buffer *buffer, uint64_t bytes)
{
	struct committer *committer = &volume->committer;
	int error = 0;

	pthread_mutex_lock(&volume->lock);
	committer->reserved -= bytes;
	if (volume->fence.fenced)
		error = -ESTALE;
	else if (nr && !committer->open.top)
		committer->oldest = clock_now();
	if (!error && nr)
		error = pending_put(&committer->open, first, nr, buffer);
	/* Half full: upload this half while the other fills.  After a failure,
	 * only when somebody needs it. */
	if (committer->writes ||
	    (!committer->remembered &&
	     2 * pending_cost(&committer->open, volume->chunk_size) >=
	     volume->options.pending_limit))
		committer_want(volume);
	pthread_mutex_unlock(&volume->lock);
	if (error)
		buffer_put(buffer);
	return error;
}

/* 0, -EAGAIN (no room), or -ESTALE. */
static int take_room(struct volume *volume, uint32_t chunk, uint64_t bytes)
{
	int error = 0;

	pthread_mutex_lock(&volume->lock);
	if (volume->fence.fenced)
		error = -ESTALE;
	else if (!reserve(volume, chunk, bytes))
		error = -EAGAIN;
	pthread_mutex_unlock(&volume->lock);
	return error;
}

/* ---- a change, as far as there is room ------------------------------------------------ */

/* The next chunk of a write, from byte *@done of it. */
static int write_chunk(struct volume *volume, const struct request *request,
		       uint64_t *done)
{
	uint64_t left = request->count - *done;
	uint32_t chunk = (uint32_t)((request->offset + *done) >> volume->chunk_shift);
	size_t count = left < volume->chunk_size ? left : volume->chunk_size;
	struct buffer *buffer;
	int error = take_room(volume, chunk, volume->chunk_size);

	if (error)
		return error;
	buffer = buffer_new(&volume->buffers);
	if (!buffer) {
		enter(volume, chunk, 0, NULL, volume->chunk_size);
		return -ENOMEM;
	}
	iov_copy_out(request->iov, request->nr_iov, *done, buffer->bytes, count);
	/* The last chunk is kept at full length. */
	memset(buffer->bytes + count, 0, volume->chunk_size - count);
	if (bytes_are_zero(buffer->bytes, count)) {
		buffer_put(buffer);
		buffer = NULL;
	}
	error = enter(volume, chunk, 1, buffer, volume->chunk_size);
	if (!error)
		*done += count;
	return error;
}

static int zero_chunks(struct volume *volume, const struct request *request,
		       uint64_t *done)
{
	uint32_t first = (uint32_t)(request->offset >> volume->chunk_shift);
	uint64_t end = (request->offset + request->count + volume->chunk_size - 1) >>
		       volume->chunk_shift;
	int error = take_room(volume, first, PENDING_ENTRY_COST);

	if (!error)
		error = enter(volume, first, (uint32_t)(end - first), NULL,
			      PENDING_ENTRY_COST);
	if (!error)
		*done = request->count;
	return error;
}

/* 0: all of it; -EAGAIN: no room for the rest yet. */
static int change_go_on(struct volume *volume, const struct request *request,
			uint64_t *done)
{
	int error = 0;

	while (!error && *done < request->count) {
		if (request_is_cancelled(request))
			error = -ECANCELED;
		else if (request->op == REQUEST_WRITE)
			error = write_chunk(volume, request, done);
		else
			error = zero_chunks(volume, request, done);
	}
	return error;
}

static void change_end(struct volume *volume, struct request *request, int error)
{
	if (!error && (request->flags & REQUEST_FUA))
		committer_flush(volume, request);
	else
		request_complete(request, error);
}

bool waiting_write_go_on(struct volume *volume, struct waiting_write *write)
{
	int error = change_go_on(volume, write->request, &write->done);

	if (error == -EAGAIN)
		return false;
	change_end(volume, write->request, error);
	free(write);
	return true;
}

/* Waits in line behind the others; a commit makes room. */
static void change_wait(struct volume *volume, struct request *request, uint64_t done)
{
	struct committer *committer = &volume->committer;
	struct waiting_write *write = malloc(sizeof(*write));

	if (!write) {
		request_complete(request, -ENOMEM);
		return;
	}
	*write = (struct waiting_write){ .request = request, .done = done };
	pthread_mutex_lock(&volume->lock);
	*committer->writes_end = write;
	committer->writes_end = &write->next;
	committer_want(volume);
	pthread_mutex_unlock(&volume->lock);
}

/* Whether every chunk of a write with NOWAIT would find room, so that it has an
 * effect as a whole or none. */
static bool has_room(struct volume *volume, const struct request *request)
{
	uint64_t need = request->op == REQUEST_WRITE ?
			request->count + volume->chunk_size : PENDING_ENTRY_COST;
	bool room;

	pthread_mutex_lock(&volume->lock);
	room = !volume->committer.writes &&
	       bytes_taken(volume) + need <= volume->options.pending_limit;
	pthread_mutex_unlock(&volume->lock);
	return room;
}

void volume_change(struct stage *stage, struct request *request)
{
	struct volume *volume = volume_of(stage);
	uint64_t done = 0, end = request->offset + request->count;
	uint32_t mask = volume->chunk_size - 1;
	bool queue;
	int error;

	/* chunked, or arbitrary, sees to it. */
	if ((request->offset & mask) || ((end & mask) && !stage_ends_at(stage, end))) {
		request_complete(request, -EINVAL);
		return;
	}
	if (request->flags & REQUEST_NOWAIT) {
		if ((request->flags & REQUEST_FUA) || !has_room(volume, request)) {
			request_complete(request, -EAGAIN);
			return;
		}
	}
	pthread_mutex_lock(&volume->lock);
	queue = volume->committer.writes != NULL;
	pthread_mutex_unlock(&volume->lock);
	error = queue ? -EAGAIN : change_go_on(volume, request, &done);
	/* Others may have taken the room since; with an effect it has to wait. */
	if (error == -EAGAIN && (request->flags & REQUEST_NOWAIT) && !done)
		request_complete(request, error);
	else if (error == -EAGAIN)
		change_wait(volume, request, done);
	else
		change_end(volume, request, error);
}
