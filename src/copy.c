/* copy.c: copies a device or a stream, piece by piece, in parallel.
 *
 * The calling thread walks the source and hands out pieces; workers read them.
 * What goes into a plain device is written by the same worker; a volume and a
 * stream take pieces in order, from a queue that one more thread consumes: it
 * puts what stands finished at the queue's beginning into a commit, or writes it
 * out. */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "src/copy_parts.h"
#include "src/errors.h"
#include "src/log.h"
#include "src/units.h"

#define PIECE_SIZE    (1u << 20)	/* where the target is no volume */
#define PIECES_MIN    4u
#define PIECES_SPARE  4u
#define PIECES_QUEUED 32u
#define LARGE_PAGE    ((size_t)2 << 20)

static void submit_piece(struct copy *copy, struct piece *piece)
{
	queue_add(copy, piece);
	workers_submit(copy->workers, &piece->job);
}

/* Makes @count bytes at @offset zeros without reading or writing any; whole
 * pieces, or up to the end of the source. */
static int copy_hole(struct copy *copy, uint64_t offset, uint64_t count)
{
	const struct copy_options *options = copy->options;
	struct piece *piece;
	int error;

	if (options->target_is_blank) {
		copy_add_progress(copy, count);
		return 0;
	}
	if (!options->target_volume) {
		error = stage_zero(options->target, count, offset,
				   REQUEST_MAY_TRIM);
		if (error)
			copy_tell_failure(copy, options->target_name, "written",
				     offset, error);
		copy_add_progress(copy, count);
		return error;
	}
	piece = piece_take(copy, offset, 0);
	if (!piece)
		return -ECANCELED;
	piece->nr_chunks = (uint32_t)((count + copy->piece_size - 1) /
				      copy->piece_size);
	piece->zero = true;
	queue_add(copy, piece);
	piece_done(piece);
	copy_add_progress(copy, count);
	return 0;
}

/* One step at @offset; *count says how far it went. */
static int walk_step(struct copy *copy, struct walk *walk, uint64_t offset,
		     uint64_t *count)
{
	uint64_t left = copy->options->size - offset;
	struct piece *piece;
	bool zero;
	int error;

	error = walk_next(walk, offset, count, &zero);
	if (error) {
		copy_tell_failure(copy, copy->options->source_name, "read", offset,
			     error);
		return error;
	}
	if (*count < left)	/* only whole pieces are skipped */
		*count -= *count % copy->piece_size;
	else
		*count = left;
	/* A stream has no holes. */
	if (zero && *count > 0 && copy->options->target)
		return copy_hole(copy, offset, *count);
	*count = left < copy->piece_size ? left : copy->piece_size;
	piece = piece_take(copy, offset, *count);
	if (!piece)
		return -ECANCELED;
	submit_piece(copy, piece);
	return 0;
}

static void walk_source(struct copy *copy)
{
	struct walk walk = { .stage = copy->options->source };
	uint64_t offset, count;

	for (offset = 0; offset < copy->options->size; offset += count)
		if (copy_has_failed(copy) ||
		    walk_step(copy, &walk, offset, &count) != 0)
			return;
	copy->result->bytes = offset;
}

/* Fills @buffer from the stream; short only at its end.  Bytes or -errno. */
static ssize_t stream_read(const struct copy *copy, char *buffer, size_t count)
{
	size_t got = 0;
	ssize_t n;

	while (got < count) {
		n = read(copy->options->source_fd, buffer + got, count - got);
		if (n < 0 && errno == EINTR && !(copy->options->stop &&
					atomic_load(copy->options->stop)))
			continue;
		if (n < 0)
			return errno == EINTR ? -ECANCELED : -errno;
		if (n == 0)
			break;
		got += (size_t)n;
	}
	return (ssize_t)got;
}

static void walk_stream(struct copy *copy)
{
	uint64_t offset = 0, room = COPY_SIZE_UNKNOWN;
	char text[UNITS_TEXT];
	struct piece *piece;
	ssize_t n;

	if (copy->options->target)
		room = stage_size(copy->options->target);
	while ((piece = piece_take(copy, offset, copy->piece_size))) {
		n = stream_read(copy, piece->buffer, copy->piece_size);
		if (n < 0)
			copy_tell_failure(copy, copy->options->source_name, "read",
				     offset, (int)n);
		if (n > 0 && (uint64_t)n > room - offset) {
			log_error("%s: has more bytes than %s has room for (%s)",
				  copy->options->source_name,
				  copy->options->target_name,
				  size_format(room, text));
			copy_fail(copy, -EFBIG);
		}
		/* An interrupt often ends who feeds us as well: then the stream ends,
		 * and its content does not. */
		if (copy_has_failed(copy) || n <= 0) {
			piece->count = 0;
			piece_free(piece);
			break;
		}
		piece->count = (uint32_t)n;
		piece->loaded = true;
		submit_piece(copy, piece);
		offset += (uint64_t)n;
	}
	copy->result->bytes = offset;
}

/* A volume larger than what was copied into it ends in zeros. */
static void zero_rest(struct copy *copy)
{
	uint64_t end = copy->result->bytes, size;

	if (!copy->options->target_volume || copy->options->target_is_blank ||
	    copy_has_failed(copy))
		return;
	size = stage_size(copy->options->target);
	end = (end + copy->piece_size - 1) / copy->piece_size * copy->piece_size;
	if (end < size)
		copy_hole(copy, end, size - end);
}

/* ---- verifying ------------------------------------------------------------------ */

static void wait_until_idle(struct copy *copy)
{
	pthread_mutex_lock(&copy->lock);
	while (copy->nr_busy > 0)
		pthread_cond_wait(&copy->changed, &copy->lock);
	pthread_mutex_unlock(&copy->lock);
}

/* Whether the pieces of @count bytes at @offset were all zeros. */
static bool was_zero(const struct copy *copy, uint64_t offset, uint64_t count)
{
	uint64_t first = offset / copy->piece_size;
	uint64_t end = (offset + count + copy->piece_size - 1) / copy->piece_size;

	for (; first < end; first++)
		if (!bytes_are_zero(copy->digests + first * DIGEST_BYTES,
				    DIGEST_BYTES))
			return false;
	return true;
}

/* Whole pieces that the target says are zeros are not read. */
static int verify_step(struct copy *copy, struct walk *walk, uint64_t offset,
		       uint64_t *count)
{
	uint64_t left = copy->result->bytes - offset;
	struct piece *piece;
	bool zero;
	int error = walk_next(walk, offset, count, &zero);

	if (error) {
		copy_tell_failure(copy, copy->options->target_name, "read back",
				  offset, error);
		return error;
	}
	*count = *count < left ? *count - *count % copy->piece_size : left;
	if (zero && *count > 0 && was_zero(copy, offset, *count)) {
		copy_add_progress(copy, *count);
		return 0;
	}
	*count = left < copy->piece_size ? left : copy->piece_size;
	piece = piece_take(copy, offset, *count);
	if (!piece)
		return -ECANCELED;
	piece->job.run = piece_verify;
	workers_submit(copy->workers, &piece->job);
	return 0;
}

static void verify(struct copy *copy)
{
	struct walk walk = { .stage = copy->options->target };
	uint64_t offset, count;

	copy->what = "verifying";
	copy->finished = 0;
	copy->total = copy->result->bytes;
	for (offset = 0; offset < copy->result->bytes; offset += count)
		if (verify_step(copy, &walk, offset, &count) != 0)
			break;
	wait_until_idle(copy);
}

/* ---- the whole ------------------------------------------------------------------- */

/* Pieces beside those that are read: they wait for a worker, for their turn in order,
 * or are on their way to a store.  No more than are of use: those that were used a
 * moment ago are still in the CPU's cache. */
static unsigned int nr_spare(const struct copy_options *options, bool ordered)
{
	if (!ordered)
		return PIECES_SPARE;
	return options->uploads > PIECES_QUEUED ? options->uploads : PIECES_QUEUED;
}

static void choose_pieces(struct copy *copy)
{
	const struct copy_options *options = copy->options;

	copy->ordered = options->target_volume || !options->target;
	copy->piece_size = PIECE_SIZE;
	copy->nr_pieces = options->jobs + nr_spare(options, copy->ordered);
	if (options->target_volume) {
		struct volume_status status;

		volume_status(options->target_volume, &status);
		copy->piece_size = status.head.chunk_size;
		copy->frame_size = status.head.frame_size;
		if (copy->nr_pieces > COPY_VOLUME_MEMORY / copy->piece_size)
			copy->nr_pieces = COPY_VOLUME_MEMORY / copy->piece_size;
	}
	if (copy->nr_pieces < PIECES_MIN)
		copy->nr_pieces = PIECES_MIN;
	if (copy->nr_pieces > PIECES_MAX)
		copy->nr_pieces = PIECES_MAX;
}

/* How many digests there can be. */
static uint64_t nr_digests(const struct copy *copy)
{
	uint64_t size = copy->options->size;

	if (size == COPY_SIZE_UNKNOWN)
		size = stage_size(copy->options->target);
	return (size + copy->piece_size - 1) / copy->piece_size;
}

/* In large pages, if there are: each small one costs a fault. */
static char *pieces_memory(size_t count)
{
	char *memory = aligned_alloc(LARGE_PAGE, (count + LARGE_PAGE - 1) &
						 ~(LARGE_PAGE - 1));

	if (memory)
		(void)madvise(memory, count, MADV_HUGEPAGE);
	return memory;
}

static int copy_open(struct copy *copy)
{
	struct piece *piece;
	unsigned int i;

	choose_pieces(copy);
	copy->last = &copy->first;
	copy->what = "copying";
	copy->total = copy->options->size;
	copy->pieces = calloc(copy->nr_pieces, sizeof(*copy->pieces));
	copy->memory = pieces_memory((size_t)copy->nr_pieces * copy->piece_size);
	if (!copy->pieces || !copy->memory)
		return -ENOMEM;
	if (copy->options->verify) {
		copy->digests = calloc(nr_digests(copy), DIGEST_BYTES);
		if (!copy->digests)
			return -ENOMEM;
	}
	for (i = 0; i < copy->nr_pieces; i++) {
		piece = &copy->pieces[i];
		piece->copy = copy;
		piece->job.run = piece_run;
		piece->job.priority = PRIORITY_DEMAND;
		piece->buffer = copy->memory + (size_t)i * copy->piece_size;
		piece->next = copy->free;
		copy->free = piece;
	}
	return workers_open("copy", copy->options->jobs, &copy->workers);
}

static void copy_close(struct copy *copy)
{
	if (copy->workers)
		workers_close(copy->workers);
	pthread_cond_destroy(&copy->changed);
	pthread_cond_destroy(&copy->ready);
	pthread_mutex_destroy(&copy->lock);
	free(copy->digests);
	free(copy->memory);
	free(copy->pieces);
}

static int copy_all(struct copy *copy)
{
	pthread_t consumer;
	int error;

	if (copy->ordered) {
		error = -pthread_create(&consumer, NULL, queue_consume, copy);
		if (error)
			return error;
	}
	if (copy->options->source)
		walk_source(copy);
	else
		walk_stream(copy);
	zero_rest(copy);
	pthread_mutex_lock(&copy->lock);
	copy->ended = true;
	pthread_cond_signal(&copy->ready);
	pthread_mutex_unlock(&copy->lock);
	wait_until_idle(copy);
	if (copy->ordered)
		pthread_join(consumer, NULL);
	return copy->error;
}

int copy_run(const struct copy_options *options, struct copy_result *result)
{
	struct copy copy = { .options = options, .result = result,
			     .lock = PTHREAD_MUTEX_INITIALIZER,
			     .changed = PTHREAD_COND_INITIALIZER,
			     .ready = PTHREAD_COND_INITIALIZER };
	int error;

	memset(result, 0, sizeof(*result));
	error = copy_open(&copy);
	if (!error)
		error = copy_all(&copy);
	if (!error && options->target) {
		error = stage_flush(options->target);
		if (error)
			log_error("%s: cannot be flushed: %s",
				  options->target_name, error_words(error));
	}
	if (!error && options->verify) {
		verify(&copy);
		error = copy.error;
	}
	if (error == -ENOMEM)
		log_error("out of memory");
	copy_close(&copy);
	return error;
}
