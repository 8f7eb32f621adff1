/* object.c: one object as a stage: reads, writes and zeros; see object.h.
 *
 * A read is cut into what the maps say: zeros are filled in at once, written bytes
 * are read from the spill by a worker, the rest comes from the store, all at the same
 * time.  What is read from the store may be replaced by our own publishing meanwhile:
 * the store then refuses it, and it is asked of the new version, whose bytes there
 * are the same. */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "backends/object/object.h"
#include "src/log.h"
#include "src/stage/iov.h"

static struct object *object_of(struct stage *stage)
{
	return (struct object *)stage;
}

void object_lost(struct object *object)
{
	if (object->lost)
		return;
	object->lost = -ESTALE;
	log_error("%s: somebody has replaced the object; this mount reads and writes it no more%s",
		  object->place, object->open.count || object->sealed.count ?
		  ", and keeps what was written since the last flush aside when it is unmounted" :
		  "");
}

/* ---- reads ------------------------------------------------------------------------ */

enum piece_kind { PIECE_ZERO, PIECE_SPILL, PIECE_STORE };

struct piece {
	enum piece_kind kind;
	uint64_t offset, count;		/* of the device */
	struct spill *spill;
	uint64_t at;
	struct read *read;
	const struct iovec *iov;	/* nr_iov of the read's slices */
	unsigned int nr_iov;
	char tag[STORE_TAG_MAX];	/* the version that was asked */
	struct store_request get;
};

struct read {
	struct job job;			/* of the spill's pieces; must stay first */
	struct object *object;
	struct request *request;
	atomic_uint left;		/* pieces not ended, and the starter */
	atomic_int error;
	unsigned int nr_pieces, room;
	struct piece *pieces;
	struct iovec *slices;
};

static void read_free(struct read *read)
{
	free(read->pieces);
	free(read->slices);
	free(read);
}

static int add_piece(struct read *read, const struct piece *piece)
{
	if (read->nr_pieces == read->room) {
		unsigned int room = read->room ? read->room * 2 : 4;
		void *grown = realloc(read->pieces, room * sizeof(*read->pieces));

		if (!grown)
			return -ENOMEM;
		read->pieces = grown;
		read->room = room;
	}
	read->pieces[read->nr_pieces++] = *piece;
	return 0;
}

/* Where byte @offset is, and how far up to @end the same holds. */
static struct piece locate(const struct object *object, uint64_t offset, uint64_t end)
{
	const struct dirty_map *maps[2] = { &object->open, &object->sealed };
	struct piece piece = { .kind = PIECE_STORE, .offset = offset };

	for (unsigned int i = 0; i < 2; i++) {
		struct dirty_range range;

		if (!dirty_next(maps[i], offset, &range))
			continue;
		if (range.start > offset) {	/* the map below may say more */
			end = range.start < end ? range.start : end;
			continue;
		}
		piece.kind = range.spill ? PIECE_SPILL : PIECE_ZERO;
		piece.spill = range.spill;
		piece.at = range.at;
		end = range.end < end ? range.end : end;
		break;
	}
	piece.count = end - offset;
	return piece;
}

/* Finds the pieces of @read and holds their spill files.  The lock is held. */
static int read_locate(struct read *read)
{
	const struct request *request = read->request;
	uint64_t at = request->offset, end = at + request->count;

	while (at < end) {
		struct piece piece = locate(read->object, at, end);
		int error;

		memcpy(piece.tag, read->object->tag, sizeof(piece.tag));
		error = add_piece(read, &piece);
		if (error)
			return error;
		at += piece.count;
	}
	return 0;
}

static void hold_spills(struct read *read, int by)
{
	for (unsigned int i = 0; i < read->nr_pieces; i++)
		if (read->pieces[i].kind == PIECE_SPILL)
			read->pieces[i].spill->readers += (unsigned int)by;
}

/* @request was refused by the store: whether it shall be tried again, because it is
 * our own new version that is there, or may be. */
static bool read_later(struct object *object, struct request *request)
{
	bool wait, again;
	int error = 0;

	pthread_mutex_lock(&object->lock);
	wait = object->settling;
	again = !wait && !object->lost;
	if (wait)
		error = doubt_add(object, request);
	pthread_mutex_unlock(&object->lock);
	if (again)
		object_read_again(object, request);
	else if (error)
		request_complete(request, error);
	return wait || again;
}

/* One piece more has ended. */
static void read_ended(struct read *read, int error)
{
	struct object *object = read->object;
	struct request *request = read->request;
	int none = 0;

	if (error)
		atomic_compare_exchange_strong(&read->error, &none, error);
	if (atomic_fetch_sub(&read->left, 1) != 1)
		return;
	error = atomic_load(&read->error);
	read_free(read);
	if (error != -ESTALE || !read_later(object, request))
		request_complete(request, error);
}

static void submit_get(struct piece *piece);

static void get_done(struct store_request *get, enum store_outcome outcome)
{
	struct piece *piece = get->context;
	struct object *object = piece->read->object;
	bool again = false;
	int error = get->reply.error;

	switch (outcome) {
	case STORE_DONE:
		error = get->reply.count == piece->count ? 0 : -EIO;
		break;
	case STORE_ABSENT:
	case STORE_REFUSED:
		error = -ESTALE;
		pthread_mutex_lock(&object->lock);
		if (strcmp(object->tag, piece->tag) != 0) {
			memcpy(piece->tag, object->tag, sizeof(piece->tag));
			again = true;
		} else if (!object->settling) {
			object_lost(object);
		}
		pthread_mutex_unlock(&object->lock);
		break;
	default:
		if (!error)
			error = -EIO;
	}
	if (again)
		submit_get(piece);
	else
		read_ended(piece->read, error);
}

static void submit_get(struct piece *piece)
{
	struct object *object = piece->read->object;
	struct request *request = piece->read->request;

	piece->get = (struct store_request){
		.op = STORE_GET, .cause = request->priority == PRIORITY_DEMAND ?
			CAUSE_DEMAND : CAUSE_PREFETCH,
		.priority = request->priority, .deadline = request->deadline,
		.key = object->read_key, .offset = piece->offset,
		.count = piece->count, .iov = piece->iov, .nr_iov = piece->nr_iov,
		.condition = STORE_IF_MATCH, .tag = piece->tag,
		.version = object->version,
		.parent = request, .done = get_done, .context = piece,
	};
	store_submit(object->store, &piece->get);
}

/* The spill's pieces, by a worker. */
static void read_spilled(struct job *job)
{
	struct read *read = (struct read *)job;
	struct object *object = read->object;
	int error = 0;

	for (unsigned int i = 0; i < read->nr_pieces && !error; i++) {
		struct piece *piece = &read->pieces[i];

		if (piece->kind == PIECE_SPILL)
			error = spill_read(piece->spill, piece->at, piece->iov,
					   piece->nr_iov);
	}
	if (error)
		log_error("%s: reading unsaved writes back: %s", object->place,
			  strerror(-error));
	pthread_mutex_lock(&object->lock);
	hold_spills(read, -1);
	pthread_cond_broadcast(&object->wake);
	pthread_mutex_unlock(&object->lock);
	read_ended(read, error);
}

/* Cuts the request's buffers for the pieces. */
static int read_slice(struct read *read)
{
	const struct request *request = read->request;
	struct iovec *slice;
	uint64_t done = 0;

	/* Neighbouring pieces share at most one buffer. */
	slice = calloc((size_t)request->nr_iov + read->nr_pieces, sizeof(*slice));
	if (!slice)
		return -ENOMEM;
	read->slices = slice;
	for (unsigned int i = 0; i < read->nr_pieces; i++) {
		struct piece *piece = &read->pieces[i];

		piece->read = read;
		piece->iov = slice;
		piece->nr_iov = iov_slice(request->iov, request->nr_iov, done,
					  piece->count, slice);
		slice += piece->nr_iov;
		done += piece->count;
	}
	return 0;
}

/* Sets every piece going; the spill's together. */
static void read_start(struct read *read)
{
	struct object *object = read->object;
	unsigned int nr_stored = 0, spilled = 0;

	for (unsigned int i = 0; i < read->nr_pieces; i++) {
		struct piece *piece = &read->pieces[i];

		if (piece->kind == PIECE_ZERO)
			iov_zero(piece->iov, piece->nr_iov, 0, piece->count);
		else if (piece->kind == PIECE_STORE)
			nr_stored++;
		else
			spilled = 1;
	}
	atomic_store(&read->left, nr_stored + spilled + 1);
	/* @read lives until the last read_ended() below. */
	for (unsigned int i = 0; i < read->nr_pieces; i++)
		if (read->pieces[i].kind == PIECE_STORE)
			submit_get(&read->pieces[i]);
	if (spilled) {
		read->job.run = read_spilled;
		read->job.priority = read->request->priority;
		workers_submit(object->disk, &read->job);
	}
	read_ended(read, 0);
}

void object_read_again(struct object *object, struct request *request)
{
	struct read *read = calloc(1, sizeof(*read));
	int error = read ? 0 : -ENOMEM;

	if (!error) {
		read->object = object;
		read->request = request;
		pthread_mutex_lock(&object->lock);
		error = read_locate(read);
		if (!error)
			error = read_slice(read);
		if (!error)
			hold_spills(read, 1);
		pthread_mutex_unlock(&object->lock);
	}
	if (!error) {
		read_start(read);
		return;
	}
	if (read)
		read_free(read);
	request_complete(request, error);
}

static void object_read(struct stage *stage, struct request *request)
{
	if (request->flags & REQUEST_NOWAIT)
		request_complete(request, -EAGAIN);
	else
		object_read_again(object_of(stage), request);
}

/* ---- writes ------------------------------------------------------------------------- */

struct write {
	struct job job;			/* must stay first */
	struct object *object;
	struct request *request;
};

static void write_ended(struct object *object, struct request *request, int error)
{
	if (!error && request->flags & REQUEST_FUA)
		object_flush(object, request);
	else
		request_complete(request, error);
}

static void add_up(const struct spill *spill, uint64_t *bytes, unsigned int *files)
{
	for (; spill; spill = spill->next) {
		*bytes += spill->at;
		++*files;
	}
}

/* Whether @count bytes more must wait for the publisher.  The lock is held. */
static bool is_full(const struct object *object, uint64_t count)
{
	unsigned int files = 0;
	uint64_t used = 0;

	if (object->open.nr >= OBJECT_RANGES_MAX)
		return true;
	add_up(object->spills, &used, &files);
	add_up(object->sealed_spills, &used, &files);
	return (used && used + count > object->dirty_limit) ||
	       (object->publishing && files > OBJECT_SPILLS_MAX);
}

/* The lock is held. */
static void wait_for_room(struct object *object, struct request *request)
{
	request->next = object->writes;
	object->writes = request;
	pthread_cond_broadcast(&object->wake);
}

/* A place for @request's bytes.  1: found, and its spill is held; 0: it waits for
 * room now; -errno.  *again: the map knows it already.  The lock is held. */
static int find_room(struct object *object, struct request *request, uint64_t *at,
		     bool *again)
{
	uint64_t start = request->offset, end = start + request->count;
	struct spill *spill = object->spills;
	struct dirty_range range;

	if (object->lost)
		return object->lost;
	/* Written again since the last flush: in the same place. */
	*again = dirty_next(&object->open, start, &range) && range.spill == spill &&
		 range.start == start && range.end >= end;
	*at = *again ? range.at : spill->at;
	if (!*again) {
		if (is_full(object, request->count)) {
			wait_for_room(object, request);
			return 0;
		}
		spill->at += request->count;
	}
	spill->writers++;
	return 1;
}

static void write_run(struct job *job)
{
	struct write *write = (struct write *)job;
	struct request *request = write->request;
	struct object *object = write->object;
	struct spill *spill;
	bool again = false;
	uint64_t at = 0;
	int error;

	free(write);
	pthread_mutex_lock(&object->lock);
	spill = object->spills;
	error = find_room(object, request, &at, &again);
	pthread_mutex_unlock(&object->lock);
	if (error == 0)
		return;
	if (error < 0) {
		request_complete(request, error);
		return;
	}
	error = spill_write(spill, at, request->iov, request->nr_iov);
	if (error)
		log_error("%s: keeping a write of %llu bytes until it is published: %s",
			  object->place, (unsigned long long)request->count,
			  strerror(-error));
	pthread_mutex_lock(&object->lock);
	/* A publishing that begins meanwhile waits for this: see publish.c. */
	if (!error && !again)
		error = dirty_set(spill == object->spills ? &object->open :
				  &object->sealed, request->offset,
				  request->offset + request->count, spill, at);
	spill->writers--;
	pthread_cond_broadcast(&object->wake);
	pthread_mutex_unlock(&object->lock);
	write_ended(object, request, error);
}

static void zero_run(struct object *object, struct request *request)
{
	bool full = false;
	int error;

	pthread_mutex_lock(&object->lock);
	error = object->lost;
	if (!error && object->open.nr >= OBJECT_RANGES_MAX) {
		full = true;
		if (request->flags & REQUEST_NOWAIT)
			error = -EAGAIN;
		else
			wait_for_room(object, request);
	} else if (!error) {
		error = dirty_set(&object->open, request->offset,
				  request->offset + request->count, NULL, 0);
	}
	pthread_mutex_unlock(&object->lock);
	if (error || !full)
		write_ended(object, request, error);
}

void object_write_again(struct object *object, struct request *request)
{
	struct write *write;

	if (request->op == REQUEST_ZERO) {
		zero_run(object, request);
		return;
	}
	write = malloc(sizeof(*write));
	if (!write) {
		request_complete(request, -ENOMEM);
		return;
	}
	*write = (struct write){ { .run = write_run, .priority = request->priority },
				 object, request };
	workers_submit(object->disk, &write->job);
}

static void object_write(struct stage *stage, struct request *request)
{
	if (request->flags & REQUEST_NOWAIT)
		request_complete(request, -EAGAIN);
	else
		object_write_again(object_of(stage), request);
}

static void object_zero(struct stage *stage, struct request *request)
{
	if (request->flags & REQUEST_NOWAIT && request->flags & REQUEST_FUA)
		request_complete(request, -EAGAIN);
	else
		zero_run(object_of(stage), request);
}

/* ---- the rest ------------------------------------------------------------------------- */

/* An object has no holes: what is trimmed stays. */
static void object_trim(struct stage *stage, struct request *request)
{
	if (request->flags & REQUEST_NOWAIT && request->flags & REQUEST_FUA)
		request_complete(request, -EAGAIN);
	else
		write_ended(object_of(stage), request, 0);
}

static void object_flush_slot(struct stage *stage, struct request *request)
{
	if (request->flags & REQUEST_NOWAIT)
		request_complete(request, -EAGAIN);
	else
		object_flush(object_of(stage), request);
}

static void object_extents(struct stage *stage, struct request *request)
{
	static const unsigned int flags[] = {
		[PIECE_ZERO] = EXTENT_ZERO | EXTENT_LOCAL | EXTENT_DIRTY,
		[PIECE_SPILL] = EXTENT_LOCAL | EXTENT_DIRTY,
		[PIECE_STORE] = 0,
	};
	struct object *object = object_of(stage);
	uint64_t at = request->offset, end = at + request->count;

	pthread_mutex_lock(&object->lock);
	while (at < end) {
		struct piece piece = locate(object, at, end);

		if (!extent_list_add(request->extents, piece.count,
				     flags[piece.kind]))
			break;
		at += piece.count;
	}
	pthread_mutex_unlock(&object->lock);
	request_complete(request, 0);
}

/* Without a cache there is nowhere to put it. */
static void object_prefetch(struct stage *stage, struct request *request)
{
	(void)stage;
	request_complete(request, 0);
}

static void object_close(struct stage *stage)
{
	struct object *object = object_of(stage);

	publisher_stop(object);
	object_keep_unsaved(stage);
	object_free(object);
}

const struct stage_ops object_ops = {
	.name	  = "s3+object",
	.read	  = object_read,
	.write	  = object_write,
	.zero	  = object_zero,
	.trim	  = object_trim,
	.flush	  = object_flush_slot,
	.extents  = object_extents,
	.prefetch = object_prefetch,
	.close	  = object_close,
};
