/* arbitrary.c: ArbitraryReadWriterAt: takes any byte range, gives the next
 * stage what fits its units.
 *
 * A request that fits passes straight on.  Any other is cut into pieces that
 * run together; the caller sees one result, the first error, when the last
 * piece has ended.
 *
 *     a read:    |  scratch [ the caller's buffers, cut at borders ] scratch  |
 *     a change:  | [ head ] | whole units of the caller's buffers | [ tail ]  |
 *                  rewritten                                       rewritten
 *
 * A read is rounded out to read_unit: what is beside the caller's bytes goes
 * to scratch memory, the rest straight to its place.  A change of a part of a
 * write_unit (here: unit; a volume's is its chunk) reads the unit, changes it
 * and writes it back, under the lock of that unit.  Whole units take the lock
 * as well: a rewrite that had read old data would undo them.  Nothing is kept
 * here once a request has completed, so a flush just passes.
 *
 * Needs from the next stage: its units, preferred and max_request. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "src/stage/chunk_locks.h"
#include "src/stage/iov.h"
#include "src/stage/stage.h"

#define MAX_REQUEST (1u << 30)

struct arbitrary {
	struct stage stage;		/* must stay first */
	uint32_t read_unit, unit;	/* the next stage's; unit: of writing */
	uint32_t border;		/* reads and writes are cut at multiples of it, a
					 * power of two */
	struct chunk_locks locks;	/* by unit; unused when unit is 1 */
};

/* What one request to the next stage does for a cut. */
struct piece {
	struct request request;
	struct cut *cut;
	/* A unit that is rewritten: */
	char *unit;			/* its bytes; NULL: not rewritten */
	struct iovec iov;		/* describes them */
	uint64_t start;			/* where the unit begins */
	uint64_t offset, count;		/* what the caller changes of the device */
};

/* A request of the caller that does not pass straight on. */
struct cut {
	struct arbitrary *arbitrary;
	struct request *request;
	uint64_t size;			/* of the device, as the cut took it */
	struct chunk_lock lock;		/* of a change, when units are locked */
	bool locked;
	atomic_uint pending;		/* pieces under way, and the one who starts them */
	atomic_int error;		/* the first */
	unsigned int nr_pieces;
	struct iovec *iov;		/* room for those of all pieces */
	struct piece pieces[];
};

static struct arbitrary *arbitrary_of(struct stage *stage)
{
	return (struct arbitrary *)stage;
}

static uint64_t round_down(uint64_t offset, uint64_t unit)
{
	return offset & ~(unit - 1);
}

static uint64_t round_up(uint64_t offset, uint64_t unit)
{
	return round_down(offset + unit - 1, unit);
}

static uint64_t least(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

/* How many pieces [start, end) has when it is cut at every @border. */
static uint64_t nr_windows(uint64_t start, uint64_t end, uint64_t border)
{
	return start < end ? (end - 1) / border - start / border + 1 : 0;
}

/* ---- the end of a cut ------------------------------------------------------------ */

static void cut_complete(struct cut *cut, int error)
{
	struct request *request = cut->request;

	free(cut);
	request_complete(request, error);
}

static void cut_flushed(struct request *request, void *context, int error)
{
	cut_complete(context, error);
}

static bool is_native_fua(const struct cut *cut)
{
	return cut->nr_pieces == 1 &&
	       cut->arbitrary->stage.next->geometry.flags & STAGE_NATIVE_FUA;
}

/* The last piece has ended.  The lock goes before the flush of a FUA request,
 * so that writers of one chunk share flushes instead of queueing for them. */
static void cut_end(struct cut *cut)
{
	struct arbitrary *arbitrary = cut->arbitrary;
	struct chunk_lock *granted = NULL;
	int error = atomic_load(&cut->error);

	if (cut->locked)
		granted = chunk_locks_release(&arbitrary->locks, &cut->lock);
	if (!error && cut->request->flags & REQUEST_FUA && !is_native_fua(cut)) {
		struct request *flush = &cut->pieces[0].request;

		request_init(flush, REQUEST_FLUSH, 0, 0, cut_flushed, cut);
		request_inherit(flush, cut->request);
		stage_submit(arbitrary->stage.next, flush);
	} else {
		cut_complete(cut, error);
	}
	/* The stage may be gone by now, unless somebody is granted. */
	chunk_locks_run(granted);
}

static void cut_put(struct cut *cut, int error)
{
	int none = 0;

	if (error)
		atomic_compare_exchange_strong(&cut->error, &none, error);
	if (atomic_fetch_sub(&cut->pending, 1) == 1)
		cut_end(cut);
}

/* ---- pieces ----------------------------------------------------------------------- */

static void piece_done(struct request *request, void *context, int error)
{
	struct piece *piece = context;

	free(piece->unit);
	cut_put(piece->cut, error);
}

static void piece_init(struct piece *piece, enum request_op op, uint64_t offset,
		       uint64_t count, request_done *done)
{
	struct request *parent = piece->cut->request;

	request_init(&piece->request, op, offset, count, done, piece);
	request_inherit(&piece->request, parent);
	piece->request.flags = parent->flags & REQUEST_NOWAIT;
}

/* The unit is here: put the caller's bytes into it and write it back. */
static void piece_rewrite(struct request *request, void *context, int error)
{
	struct piece *piece = context;
	struct cut *cut = piece->cut;
	struct request *parent = cut->request;
	struct stage *next = cut->arbitrary->stage.next;
	char *changed = piece->unit + (piece->offset - piece->start);
	uint64_t length;

	if (error) {
		piece_done(request, piece, error);
		return;
	}
	if (parent->op == REQUEST_WRITE)
		iov_copy_out(parent->iov, parent->nr_iov,
			     piece->offset - parent->offset, changed, piece->count);
	else
		memset(changed, 0, piece->count);
	/* A device that has grown meanwhile: its new bytes are zeros, and nobody
	 * else can have changed those in this unit. */
	length = least(cut->arbitrary->unit, stage_size(next) - piece->start);
	if (length > cut->size - piece->start)
		memset(piece->unit + (cut->size - piece->start), 0,
		       length - (cut->size - piece->start));
	piece_init(piece, REQUEST_WRITE, piece->start, length, piece_done);
	if (is_native_fua(cut))
		piece->request.flags |= parent->flags & REQUEST_FUA;
	piece->iov = (struct iovec){ piece->unit, length };
	piece->request.iov = &piece->iov;
	piece->request.nr_iov = 1;
	stage_submit(next, &piece->request);
}

/* Reads what the rewrite does not replace: all of the unit, or, when only one
 * end of it stays, as much of that end as the read unit asks for. */
static void piece_fetch(struct piece *piece)
{
	struct arbitrary *arbitrary = piece->cut->arbitrary;
	uint64_t unit_end = least(piece->start + arbitrary->unit, piece->cut->size);
	uint64_t end = piece->offset + piece->count;
	uint64_t from = piece->start, to = unit_end;

	if (piece->offset == piece->start)
		from = round_down(end, arbitrary->read_unit);
	else if (end == unit_end)
		to = least(round_up(piece->offset, arbitrary->read_unit), unit_end);
	piece_init(piece, REQUEST_READ, from, to - from, piece_rewrite);
	piece->iov = (struct iovec){ piece->unit + (from - piece->start), to - from };
	piece->request.iov = &piece->iov;
	piece->request.nr_iov = 1;
	stage_submit(arbitrary->stage.next, &piece->request);
}

static void piece_submit(struct piece *piece)
{
	if (piece->unit)
		piece_fetch(piece);
	else
		stage_submit(piece->cut->arbitrary->stage.next, &piece->request);
}

/* ---- making and starting a cut ------------------------------------------------------ */

/* For a device of @size bytes, for which the pieces were counted. */
static struct cut *cut_new(struct arbitrary *arbitrary, struct request *request,
			   uint64_t size, uint64_t nr_pieces, size_t scratch)
{
	uint64_t nr_iov = request->nr_iov + nr_pieces + 2;
	size_t fixed = sizeof(struct cut) + nr_pieces * sizeof(struct piece);
	struct cut *cut = malloc(fixed + nr_iov * sizeof(struct iovec) + scratch);

	if (!cut)
		return NULL;
	cut->arbitrary = arbitrary;
	cut->request = request;
	cut->size = size;
	cut->locked = false;
	atomic_init(&cut->pending, 0);
	atomic_init(&cut->error, 0);
	cut->nr_pieces = 0;
	cut->iov = (struct iovec *)((char *)cut + fixed);
	return cut;
}

static struct piece *cut_add(struct cut *cut)
{
	struct piece *piece = &cut->pieces[cut->nr_pieces++];

	piece->cut = cut;
	piece->unit = NULL;
	return piece;
}

/* Runs all pieces; the last to end ends the cut. */
static void cut_run(struct cut *cut)
{
	unsigned int nr_pieces = cut->nr_pieces;

	atomic_store(&cut->pending, nr_pieces + 1);
	for (unsigned int i = 0; i < nr_pieces; i++)
		piece_submit(&cut->pieces[i]);
	cut_put(cut, 0);
}

/* Walks once through the caller's buffers, however many pieces take from it. */
struct walk {
	const struct iovec *iov;
	unsigned int nr_iov;
	size_t skip;			/* of iov[0] */
};

/* Describes the next @count bytes in @slice, and steps over them. */
static unsigned int walk_take(struct walk *walk, uint64_t count,
			      struct iovec *slice)
{
	unsigned int nr = iov_slice(walk->iov, walk->nr_iov, walk->skip, count,
				    slice);

	walk->skip += count;
	while (walk->nr_iov && walk->skip >= walk->iov->iov_len) {
		walk->skip -= walk->iov->iov_len;
		walk->iov++;
		walk->nr_iov--;
	}
	return nr;
}

/* ---- reads ----------------------------------------------------------------------------- */

/* Cuts [start, end), which is the request's range rounded out, at the borders. */
static void cut_read(struct cut *cut, uint64_t start, uint64_t end)
{
	struct request *request = cut->request;
	struct walk walk = { request->iov, request->nr_iov, 0 };
	uint64_t request_end = request->offset + request->count;
	struct iovec *iov = cut->iov;
	char *scratch = (char *)(iov + request->nr_iov + 2 +
				 nr_windows(start, end, cut->arbitrary->border));

	for (uint64_t at = start, to; at < end; at = to) {
		struct piece *piece = cut_add(cut);
		uint64_t from = at < request->offset ? request->offset : at;
		unsigned int nr = 0;

		to = least(round_down(at, cut->arbitrary->border) +
			   cut->arbitrary->border, end);
		piece_init(piece, REQUEST_READ, at, to - at, piece_done);
		if (at < from) {
			iov[nr++] = (struct iovec){ scratch, from - at };
			scratch += from - at;
		}
		nr += walk_take(&walk, least(to, request_end) - from, iov + nr);
		if (to > request_end)
			iov[nr++] = (struct iovec){ scratch, to - request_end };
		piece->request.iov = iov;
		piece->request.nr_iov = nr;
		iov += nr;
	}
}

static void arbitrary_read(struct stage *stage, struct request *request)
{
	struct arbitrary *arbitrary = arbitrary_of(stage);
	uint64_t request_end = request->offset + request->count;
	uint64_t start = round_down(request->offset, arbitrary->read_unit);
	uint64_t size = stage_size(stage->next);
	uint64_t end = least(round_up(request_end, arbitrary->read_unit), size);
	uint64_t nr = nr_windows(start, end, arbitrary->border);
	struct cut *cut;

	if (request_end > size) {	/* it has shrunk since the doorway */
		request_complete(request, -EINVAL);
		return;
	}
	if (nr == 1 && start == request->offset && end == request_end) {
		stage_submit(stage->next, request);
		return;
	}
	cut = cut_new(arbitrary, request, size, nr, end - start - request->count);
	if (!cut) {
		request_complete(request, -ENOMEM);
		return;
	}
	cut_read(cut, start, end);
	cut_run(cut);
}

/* ---- changes: write, zero, trim ----------------------------------------------------------- */

/* How a change lies on the units: [offset, whole) and [rest, end) are parts of
 * units, [whole, rest) are whole ones. */
struct layout {
	uint64_t offset, whole, rest, end;
};

static struct layout layout_of(const struct arbitrary *arbitrary,
			       const struct request *request, uint64_t size)
{
	struct layout l = { .offset = request->offset,
			    .end = request->offset + request->count };

	l.whole = least(round_up(l.offset, arbitrary->unit), l.end);
	l.rest = l.end == size ? l.end : round_down(l.end, arbitrary->unit);
	if (l.rest < l.whole)
		l.rest = l.whole;
	return l;
}

static bool cut_add_part(struct cut *cut, uint64_t offset, uint64_t end)
{
	struct piece *piece;

	if (offset == end)
		return true;
	piece = cut_add(cut);
	piece->start = round_down(offset, cut->arbitrary->unit);
	piece->offset = offset;
	piece->count = end - offset;
	piece->unit = malloc(cut->arbitrary->unit);
	return piece->unit;
}

static void cut_add_whole(struct cut *cut, uint64_t start, uint64_t end)
{
	struct request *request = cut->request;
	struct walk walk = { request->iov, request->nr_iov,
			     start - request->offset };
	struct iovec *iov = cut->iov;
	uint32_t border = cut->arbitrary->border;

	for (uint64_t at = start, to; at < end; at = to) {
		struct piece *piece = cut_add(cut);

		/* Zero and trim are O(1) below: one piece, however long. */
		to = request->op == REQUEST_WRITE ?
		     least(round_down(at, border) + border, end) : end;
		piece_init(piece, request->op, at, to - at, piece_done);
		piece->request.flags = request->flags & ~(unsigned int)REQUEST_FUA;
		if (request->op != REQUEST_WRITE)
			continue;
		piece->request.iov = iov;
		piece->request.nr_iov = walk_take(&walk, to - at, iov);
		iov += piece->request.nr_iov;
	}
}

/* The units are locked, if they need to be: makes the pieces and runs them. */
static void cut_change(struct cut *cut)
{
	struct request *request = cut->request;
	struct layout l = layout_of(cut->arbitrary, request, cut->size);

	if (request_is_cancelled(request)) {
		atomic_store(&cut->error, -ECANCELED);
	} else if (request->op == REQUEST_TRIM) {
		cut_add_whole(cut, l.whole, l.rest);
	} else if (cut_add_part(cut, l.offset, l.whole) &&
		   cut_add_part(cut, l.rest, l.end)) {
		cut_add_whole(cut, l.whole, l.rest);
	} else {
		for (unsigned int i = 0; i < cut->nr_pieces; i++)
			free(cut->pieces[i].unit);
		cut->nr_pieces = 0;
		atomic_store(&cut->error, -ENOMEM);
	}
	if (cut->nr_pieces == 1 && !cut->pieces[0].unit && is_native_fua(cut))
		cut->pieces[0].request.flags |= request->flags & REQUEST_FUA;
	cut_run(cut);
}

static void arbitrary_change(struct stage *stage, struct request *request);

static void change_granted(struct chunk_lock *lock)
{
	struct cut *cut = (struct cut *)((char *)lock - offsetof(struct cut, lock));
	struct arbitrary *arbitrary = cut->arbitrary;
	struct request *request = cut->request;
	struct chunk_lock *granted;

	if (cut->size == stage_size(arbitrary->stage.next)) {
		cut_change(cut);
		return;
	}
	/* The device was resized meanwhile: what was whole may be a part now. */
	granted = chunk_locks_release(&arbitrary->locks, lock);
	free(cut);
	arbitrary_change(&arbitrary->stage, request);
	chunk_locks_run(granted);
}

/* @request is not what the next stage takes as it is. */
static void arbitrary_change(struct stage *stage, struct request *request)
{
	struct arbitrary *arbitrary = arbitrary_of(stage);
	bool nowait = request->flags & REQUEST_NOWAIT;
	uint64_t size = stage_size(stage->next);
	struct layout l = layout_of(arbitrary, request, size);
	uint64_t nr_parts = (l.offset < l.whole) + (l.rest < l.end);
	uint64_t nr_whole = request->op == REQUEST_WRITE ?
		nr_windows(l.whole, l.rest, arbitrary->border) : l.whole < l.rest;
	struct cut *cut;

	if (request->op == REQUEST_TRIM)
		nr_parts = 0;		/* a hint: parts are left as they are */
	if (nr_parts + nr_whole == 0) {
		request_complete(request, 0);
		return;
	}
	/* To rewrite a unit costs as much as to write to it. */
	if (request->flags & REQUEST_FAST_ZERO && nr_whole == 0) {
		request_complete(request, -EOPNOTSUPP);
		return;
	}
	/* -EAGAIN of one piece, or of the flush, could not undo the others; who never
	 * waits never says it. */
	if (nowait && !(stage->geometry.flags & STAGE_NEVER_WAITS) &&
	    (nr_parts + nr_whole > 1 ||
	     (request->flags & REQUEST_FUA &&
	      !(stage->next->geometry.flags & STAGE_NATIVE_FUA)))) {
		request_complete(request, -EAGAIN);
		return;
	}
	cut = cut_new(arbitrary, request, size, nr_parts + nr_whole, 0);
	if (!cut) {
		request_complete(request, -ENOMEM);
		return;
	}
	if (arbitrary->unit > 1) {
		cut->locked = true;
		cut->lock.first = l.offset / arbitrary->unit;
		cut->lock.last = (l.end - 1) / arbitrary->unit;
		cut->lock.granted = change_granted;
		if (!chunk_locks_acquire(&arbitrary->locks, &cut->lock, nowait)) {
			if (nowait) {
				free(cut);
				request_complete(request, -EAGAIN);
			}
			return;
		}
	}
	cut_change(cut);
}

static void arbitrary_write(struct stage *stage, struct request *request)
{
	struct arbitrary *arbitrary = arbitrary_of(stage);

	if (arbitrary->unit == 1 &&
	    nr_windows(request->offset, request->offset + request->count,
		       arbitrary->border) == 1)
		stage_submit(stage->next, request);
	else
		arbitrary_change(stage, request);
}

static void arbitrary_zero_or_trim(struct stage *stage, struct request *request)
{
	if (arbitrary_of(stage)->unit == 1)
		stage_submit(stage->next, request);
	else
		arbitrary_change(stage, request);
}

/* ---- the stage -------------------------------------------------------------------------------- */

static void arbitrary_close(struct stage *stage)
{
	chunk_locks_destroy(&arbitrary_of(stage)->locks);
	free(stage);
}

static const struct stage_ops arbitrary_ops = {
	.name	  = "arbitrary",
	.read	  = arbitrary_read,
	.write	  = arbitrary_write,
	.zero	  = arbitrary_zero_or_trim,
	.trim	  = arbitrary_zero_or_trim,
	.flush	  = stage_pass_flush,
	.extents  = stage_pass_extents,
	.prefetch = stage_pass_prefetch,
	.close	  = arbitrary_close,
};

/* With units: what is preferred, which is a volume's chunk, as two chunks are
 * two objects and come at once.  Without: only what is too long is cut. */
static uint32_t border_of(const struct geometry *geometry)
{
	uint32_t units = geometry->read_unit | geometry->write_unit;
	uint32_t longest = units == 1 || geometry->preferred > geometry->max_request ?
			   geometry->max_request : geometry->preferred;
	uint32_t border = 1u << (31 - __builtin_clz(longest));

	while (border < geometry->read_unit || border < geometry->write_unit)
		border <<= 1;
	return border;
}

int arbitrary_open(struct stage *next, struct stage **stage)
{
	struct geometry geometry = next->geometry;
	struct arbitrary *arbitrary = calloc(1, sizeof(*arbitrary));

	if (!arbitrary)
		return -ENOMEM;
	arbitrary->read_unit = geometry.read_unit;
	arbitrary->unit = geometry.write_unit;
	arbitrary->border = border_of(&geometry);
	/* Locks make a request wait for another thread's. */
	if (geometry.write_unit > 1)
		geometry.flags &= ~(unsigned int)STAGE_NEVER_WAITS;
	chunk_locks_init(&arbitrary->locks);
	geometry.size = stage_size(next);
	geometry.read_unit = geometry.write_unit = 1;
	geometry.max_request = MAX_REQUEST;
	stage_init(&arbitrary->stage, &arbitrary_ops, next, &geometry);
	*stage = &arbitrary->stage;
	return 0;
}
