/* chunk.c: reads.
 *
 * A read is cut at chunk borders.  What is pending or a hole is answered on the
 * spot; the rest are pieces, each one ranged get of its frames, straight into
 * the caller's memory, all at once.  A piece starts again from the pending
 * table whenever it had to wait for a map node or its object has gone, so it
 * always sees one whole write of its chunk.
 *
 * Nothing is data before it is verified: the object's frame table against the
 * ref's checksum, the volume's id, then each frame against the table. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "src/log.h"
#include "src/stage/iov.h"
#include "src/volume/engine.h"

/* A read that needs the store: complete when its last piece is. */
struct chunked_read {
	struct volume *volume;
	struct request *request;
	atomic_uint nr_pieces;
	atomic_int error;		/* the first */
};

struct piece {
	struct map_waiter waiter;	/* must stay first */
	struct chunked_read *read;
	uint32_t chunk;
	uint32_t offset, count;		/* bytes of the chunk */
	size_t skip;			/* bytes of the request before it */
	struct ref ref;			/* what is being read */
	uint64_t epoch;			/* of the image that named it */
	unsigned int damaged;		/* how often what came was no good */
	struct store_request get;
	char key[VOLUME_KEY_MAX];
	uint32_t sums[FRAMES_MAX];	/* of the frames that came */
	void *beyond;			/* where bytes beyond the volume's size go */
	struct iovec iov[];		/* of the request, and one for beyond */
};

/* ---- checking what came ---------------------------------------------------------- */

/* NULL: the frames of @get are those that @ref names.  Else what is wrong. */
static const char *check_frames(const struct volume *volume, const struct ref *ref,
				const struct store_request *get, char text[64])
{
	char frames[FRAMES_TEXT_MAX], uuid_text[64];
	uint32_t frame = (uint32_t)(get->offset / volume->frame_size), i;
	struct frame_table table;
	uint8_t uuid[16];

	if (get->reply.count != get->count || get->reply.size != ref_stored(ref))
		return "its length is not the one its ref names";
	if (store_metadata_find(&get->reply.metadata, METADATA_FRAMES, frames,
				sizeof(frames)) < 0 ||
	    frame_table_parse(frames, volume->chunk_size / volume->frame_size,
			      &table) < 0)
		return "its frame table cannot be read";
	if (frame_table_crc(&table) != ref->crc)
		return "its frame table is not the one its ref names";
	/* What a clone has of its parent bears the parent's id. */
	if (get->key[0] != '/' &&
	    (store_metadata_find(&get->reply.metadata, METADATA_VOLUME, uuid_text,
				 sizeof(uuid_text)) < 0 ||
	     !uuid_parse(uuid_text, uuid) || memcmp(uuid, volume->uuid, 16) != 0))
		return "it belongs to another volume";
	for (i = 0; i < get->count / volume->frame_size; i++) {
		if (get->sums[i] == table.frames[frame + i].crc)
			continue;
		snprintf(text, 64, "frame %u does not match its checksum", frame + i);
		return text;
	}
	return NULL;
}

static void log_damage(struct volume *volume, const char *key, const char *what)
{
	log_error("%s: GET %s: %s, twice: this chunk is damaged; objmap verify finds "
		  "all that is", volume->store->place, key, what);
}

/* ---- a piece that needs the store -------------------------------------------------- */

static void piece_start(struct piece *piece);

static void read_end(struct chunked_read *read)
{
	struct request *request = read->request;
	int error;

	if (atomic_fetch_sub(&read->nr_pieces, 1) > 1)
		return;
	error = atomic_load(&read->error);
	free(read);
	request_complete(request, error);
}

static void piece_end(struct piece *piece, int error)
{
	struct chunked_read *read = piece->read;
	int none = 0;

	if (error)
		atomic_compare_exchange_strong(&read->error, &none, error);
	free(piece->beyond);
	free(piece);
	read_end(read);
}

static void piece_wake(struct map_waiter *waiter, int error)
{
	struct piece *piece = (struct piece *)waiter;

	if (error && error != -EAGAIN)
		piece_end(piece, error);
	else
		piece_start(piece);
}

static void piece_absent(void *context, int error)
{
	if (error)
		piece_end(context, error);
	else
		piece_start(context);
}

static void piece_get(struct piece *piece);

static void piece_done(struct store_request *get, enum store_outcome outcome)
{
	struct piece *piece = get->context;
	struct volume *volume = piece->read->volume;
	const char *wrong;
	char text[64];

	if (outcome == STORE_ABSENT) {
		volume_absence(volume, piece->key, piece->epoch, piece_absent, piece);
		return;
	}
	if (outcome != STORE_DONE) {
		piece_end(piece, store_errno(outcome, &get->reply));
		return;
	}
	wrong = check_frames(volume, &piece->ref, get, text);
	if (!wrong) {
		piece_end(piece, 0);
	} else if (piece->damaged++ == 0) {
		piece_get(piece);	/* a bad transfer is worth one more try */
	} else {
		log_damage(volume, piece->key, wrong);
		piece_end(piece, -EIO);
	}
}

static const enum store_cause cause_of[] = {
	[PRIORITY_DEMAND] = CAUSE_DEMAND, [PRIORITY_PREFETCH] = CAUSE_PREFETCH,
	[PRIORITY_PUSH] = CAUSE_PUSH,
};

static void piece_get(struct piece *piece)
{
	struct chunked_read *read = piece->read;
	struct request *request = read->request;
	uint32_t frame = read->volume->frame_size;
	uint32_t whole = (piece->count + frame - 1) / frame * frame;
	unsigned int nr;

	/* Only at the volume's end can a read end inside a frame. */
	if (whole > piece->count && !piece->beyond) {
		piece->beyond = malloc(whole - piece->count);
		if (!piece->beyond) {
			piece_end(piece, -ENOMEM);
			return;
		}
	}
	nr = iov_slice(request->iov, request->nr_iov, piece->skip, piece->count,
		       piece->iov);
	if (whole > piece->count)
		piece->iov[nr++] = (struct iovec){ piece->beyond, whole - piece->count };
	piece->get = (struct store_request){
		.op = STORE_GET, .cause = cause_of[request->priority],
		.priority = request->priority, .deadline = request->deadline,
		.key = piece->key, .offset = piece->offset, .count = whole,
		.iov = piece->iov, .nr_iov = nr, .parent = request,
		.sums = piece->sums, .sum_unit = frame,
		.done = piece_done, .context = piece,
	};
	store_submit(read->volume->store, &piece->get);
}

/* ---- where a chunk's bytes are ------------------------------------------------------- */

/* What is pending: newer first.  The lock is held. */
static const struct pending_entry *find_pending(const struct volume *volume,
						uint32_t chunk)
{
	const struct pending_entry *entry;

	entry = pending_find(&volume->committer.open, chunk);
	if (entry && entry->first <= chunk)
		return entry;
	entry = pending_find(&volume->committer.sealed, chunk);
	return entry && entry->first <= chunk ? entry : NULL;
}

struct found {
	struct buffer *buffer;		/* a reference: the chunk is pending */
	bool hole;
	struct map_find find;		/* neither: the object of find.ref */
	uint64_t epoch;
};

/* 0, or what map_look() says.  The lock is not held. */
static int chunk_find(struct volume *volume, uint32_t chunk,
		      struct map_waiter *waiter, struct found *found)
{
	const struct pending_entry *entry;
	int error = 0;

	found->buffer = NULL;
	found->hole = false;
	found->find = (struct map_find){ .chunk = chunk };
	pthread_mutex_lock(&volume->lock);
	entry = find_pending(volume, chunk);
	if (!entry) {
		error = map_look(volume, &volume->image.head, &found->find, waiter);
		found->hole = !error && ref_is_hole(&found->find.ref);
		found->epoch = volume->image.head.epoch;
	} else if (entry->buffer) {
		found->buffer = buffer_get(entry->buffer);
	} else {
		found->hole = true;
	}
	pthread_mutex_unlock(&volume->lock);
	return error;
}

/* Fills the bytes when they are here.  False: they are in the store. */
static bool answer_here(const struct request *request, size_t skip, uint32_t offset,
			uint32_t count, struct found *found)
{
	if (found->buffer) {
		iov_copy_in(request->iov, request->nr_iov, skip,
			    found->buffer->bytes + offset, count);
		buffer_put(found->buffer);
		return true;
	}
	if (found->hole)
		iov_zero(request->iov, request->nr_iov, skip, count);
	return found->hole;
}

static void piece_start(struct piece *piece)
{
	struct volume *volume = piece->read->volume;
	struct found found;
	int error;

	if (request_is_cancelled(piece->read->request)) {
		piece_end(piece, -ECANCELED);
		return;
	}
	error = chunk_find(volume, piece->chunk, &piece->waiter, &found);
	if (error == -EINPROGRESS) {
		map_fetch(volume, found.find.fetch);
		return;
	}
	if (error || answer_here(piece->read->request, piece->skip, piece->offset,
				 piece->count, &found)) {
		piece_end(piece, error);
		return;
	}
	piece->ref = found.find.ref;
	piece->epoch = found.epoch;
	pthread_mutex_lock(&volume->lock);
	head_chunk_key(&volume->image.head, piece->chunk, &piece->ref, piece->key);
	pthread_mutex_unlock(&volume->lock);
	piece_get(piece);
}

/* ---- the request ------------------------------------------------------------------------ */

static int piece_new(struct volume *volume, struct request *request, size_t skip,
		     struct chunked_read **read)
{
	struct piece *piece;
	uint64_t offset = request->offset + skip;
	uint64_t left = request->count - skip;

	if (!*read) {
		*read = calloc(1, sizeof(**read));
		if (!*read)
			return -ENOMEM;
		(*read)->volume = volume;
		(*read)->request = request;
		atomic_init(&(*read)->nr_pieces, 1);	/* volume_read()'s own */
	}
	piece = malloc(sizeof(*piece) + (request->nr_iov + 1) * sizeof(piece->iov[0]));
	if (!piece)
		return -ENOMEM;
	piece->waiter.wake = piece_wake;
	piece->read = *read;
	piece->chunk = (uint32_t)(offset >> volume->chunk_shift);
	piece->offset = (uint32_t)(offset & (volume->chunk_size - 1));
	piece->count = volume->chunk_size - piece->offset < left ?
		       volume->chunk_size - piece->offset : (uint32_t)left;
	piece->skip = skip;
	piece->damaged = 0;
	piece->beyond = NULL;
	atomic_fetch_add(&(*read)->nr_pieces, 1);
	piece_start(piece);
	return 0;
}

void volume_read(struct stage *stage, struct request *request)
{
	struct volume *volume = volume_of(stage);
	struct chunked_read *read = NULL;
	uint32_t offset, count;
	struct found found;
	uint64_t at;
	size_t skip;
	int error = 0, none = 0;

	/* chunked, or arbitrary, sees to it. */
	if (request->offset % volume->frame_size ||
	    (request->count % volume->frame_size &&
	     !stage_ends_at(stage, request->offset + request->count)))
		error = -EINVAL;
	for (skip = 0; !error && skip < request->count; skip += count) {
		at = request->offset + skip;
		offset = (uint32_t)(at & (volume->chunk_size - 1));
		count = volume->chunk_size - offset;
		if (count > request->count - skip)
			count = (uint32_t)(request->count - skip);
		error = chunk_find(volume, (uint32_t)(at >> volume->chunk_shift), NULL,
				   &found);
		if (!error && answer_here(request, skip, offset, count, &found))
			continue;
		if (request->flags & REQUEST_NOWAIT)
			error = -EAGAIN;	/* and no piece was started */
		else
			error = piece_new(volume, request, skip, &read);
	}
	if (!read) {
		request_complete(request, error);
		return;
	}
	if (error)
		atomic_compare_exchange_strong(&read->error, &none, error);
	read_end(read);
}

int chunk_read(struct volume *volume, const struct head *head, uint32_t chunk,
	       const struct ref *ref, void *bytes)
{
	struct store_request get;
	struct iovec iov = { bytes, volume->chunk_size };
	enum store_outcome outcome;
	char key[VOLUME_KEY_MAX], text[64];
	uint32_t sums[FRAMES_MAX];
	const char *wrong = NULL;
	unsigned int tries;

	head_chunk_key(head, chunk, ref, key);
	for (tries = 0; tries < 2; tries++) {
		get = (struct store_request){
			.cause = CAUSE_PUSH, .priority = PRIORITY_DEMAND, .key = key,
			.count = volume->chunk_size, .iov = &iov, .nr_iov = 1,
			.sums = sums, .sum_unit = volume->frame_size,
		};
		outcome = store_wait(volume->store, STORE_GET, &get);
		if (outcome == STORE_ABSENT) {
			log_error("%s: %s, which the map names, is missing: the volume "
				  "is damaged", volume->store->place, key);
			return -EIO;
		}
		if (outcome != STORE_DONE)
			return store_errno(outcome, &get.reply);
		wrong = check_frames(volume, ref, &get, text);
		if (!wrong)
			return 0;
	}
	log_damage(volume, key, wrong);
	return -EIO;
}
