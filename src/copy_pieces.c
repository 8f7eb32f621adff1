/* copy_pieces.c: pieces of a copy: the pool of them, and what a worker does. */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include <openssl/sha.h>

#include "src/copy_parts.h"
#include "src/crc32c.h"
#include "src/errors.h"
#include "src/log.h"

#define HOLE_UNIT (64u << 10)	/* shorter runs of zeros are written out */

void copy_fail(struct copy *copy, int error)
{
	pthread_mutex_lock(&copy->lock);
	if (!copy->error)
		copy->error = error;
	pthread_cond_broadcast(&copy->changed);
	pthread_mutex_unlock(&copy->lock);
}

void copy_tell_failure(struct copy *copy, const char *name, const char *tried,
			 uint64_t offset, int error)
{
	pthread_mutex_lock(&copy->lock);
	if (!copy->error)
		log_error("%s: cannot be %s at byte %" PRIu64 ": %s", name, tried,
			  offset, error_words(error));
	pthread_mutex_unlock(&copy->lock);
	copy_fail(copy, error);
}

bool copy_has_failed(struct copy *copy)
{
	bool failed;

	if (copy->options->stop && atomic_load(copy->options->stop))
		copy_fail(copy, -ECANCELED);
	pthread_mutex_lock(&copy->lock);
	failed = copy->error != 0;
	pthread_mutex_unlock(&copy->lock);
	return failed;
}

struct piece *piece_take(struct copy *copy, uint64_t offset, uint64_t count)
{
	struct piece *piece;

	if (copy_has_failed(copy))
		return NULL;
	pthread_mutex_lock(&copy->lock);
	while (!copy->free && !copy->error)
		pthread_cond_wait(&copy->changed, &copy->lock);
	piece = copy->error ? NULL : copy->free;
	if (piece) {
		copy->free = piece->next;
		copy->nr_busy++;
	}
	pthread_mutex_unlock(&copy->lock);
	if (!piece)
		return NULL;
	piece->offset = offset;
	piece->count = count < copy->piece_size ? (uint32_t)count
						: copy->piece_size;
	piece->nr_chunks = piece->written = 0;
	piece->loaded = piece->zero = piece->same = piece->done = false;
	piece->next = NULL;
	return piece;
}

void copy_add_progress(struct copy *copy, uint64_t bytes)
{
	uint64_t finished;

	pthread_mutex_lock(&copy->lock);
	finished = copy->finished += bytes;
	pthread_mutex_unlock(&copy->lock);
	if (copy->options->progress)
		copy->options->progress(copy->options->context, copy->what,
					finished, copy->total);
}

void piece_free(struct piece *piece)
{
	struct copy *copy = piece->copy;

	copy_add_progress(copy, piece->count);
	pthread_mutex_lock(&copy->lock);
	piece->next = copy->free;
	copy->free = piece;
	copy->nr_busy--;
	pthread_cond_broadcast(&copy->changed);
	pthread_mutex_unlock(&copy->lock);
}

void piece_done(struct piece *piece)
{
	struct copy *copy = piece->copy;

	if (!copy->ordered) {
		piece_free(piece);
		return;
	}
	pthread_mutex_lock(&copy->lock);
	piece->done = true;
	if (piece == copy->first)
		pthread_cond_signal(&copy->ready);
	pthread_mutex_unlock(&copy->lock);
}

/* ---- reading ------------------------------------------------------------------- */

static int digest(struct copy *copy, const struct piece *piece)
{
	unsigned char whole[SHA256_DIGEST_LENGTH];

	if (!copy->digests || piece->zero)
		return 0;
	if (!SHA256((const unsigned char *)piece->buffer, piece->count, whole))
		return -EIO;
	memcpy(copy->digests + piece->offset / copy->piece_size * DIGEST_BYTES,
	       whole, DIGEST_BYTES);
	return 0;
}

/* What is here already is read by this thread, and stays in its CPU's cache. */
static int piece_load(struct piece *piece)
{
	struct stage *source = piece->copy->options->source;
	int error = stage_read(source, piece->buffer, piece->count, piece->offset,
			       REQUEST_NOWAIT);

	if (error == -EAGAIN)
		error = stage_read(source, piece->buffer, piece->count, piece->offset, 0);
	return error;
}

static int piece_read(struct piece *piece)
{
	struct copy *copy = piece->copy;
	int error = piece->loaded ? 0 : piece_load(piece);

	if (error) {
		copy_tell_failure(copy, copy->options->source_name, "read",
			     piece->offset, error);
		return error;
	}
	memset(piece->buffer + piece->count, 0, copy->piece_size - piece->count);
	piece->zero = bytes_are_zero(piece->buffer, piece->count);
	return digest(copy, piece);
}

/* Whether the target holds these very bytes already. */
static int piece_compare(struct piece *piece)
{
	struct copy *copy = piece->copy;
	uint64_t size = stage_size(copy->options->target);
	uint64_t count = size - piece->offset < copy->piece_size ?
			 size - piece->offset : copy->piece_size;
	char *there;
	int error;

	if (!copy->options->target_volume)
		count = piece->count;	/* what lies behind is not ours */
	there = malloc(count);
	if (!there)
		return -ENOMEM;
	error = stage_read(copy->options->target, there, count, piece->offset, 0);
	if (error)
		copy_tell_failure(copy, copy->options->target_name, "read",
			     piece->offset, error);
	else
		piece->same = memcmp(there, piece->buffer, count) == 0;
	free(there);
	return error;
}

/* ---- writing to a plain device ------------------------------------------------- */

/* Length of the run of zeros, or of other bytes, at @from; borders are at
 * multiples of HOLE_UNIT. */
static uint32_t run_length(const struct piece *piece, uint32_t from, bool *zero)
{
	uint32_t to = from, unit;
	bool z;

	while (to < piece->count) {
		unit = piece->count - to < HOLE_UNIT ? piece->count - to : HOLE_UNIT;
		z = bytes_are_zero(piece->buffer + to, unit);
		if (to == from)
			*zero = z;
		else if (z != *zero)
			break;
		to += unit;
	}
	return to - from;
}

static int piece_write(struct piece *piece)
{
	const struct copy_options *options = piece->copy->options;
	uint32_t from, count;
	bool zero = false;
	int error = 0;

	for (from = 0; !error && from < piece->count; from += count) {
		count = run_length(piece, from, &zero);
		if (!zero)
			piece->written += count;
		if (!zero)
			error = stage_write(options->target, piece->buffer + from,
					    count, piece->offset + from, 0);
		else if (!options->target_is_blank)
			error = stage_zero(options->target, count,
					   piece->offset + from, REQUEST_MAY_TRIM);
	}
	if (error)
		copy_tell_failure(piece->copy, options->target_name, "written",
			     piece->offset, error);
	return error;
}

/* For the queue.  While it is in the CPU's cache its checksums are cheap. */
static void piece_prepare(struct piece *piece)
{
	struct copy *copy = piece->copy;

	if (piece->zero)
		return;
	piece->written = piece->count;
	if (copy->frame_size)
		crc32c_sum(piece->sums, copy->frame_size, 0, piece->buffer,
			   copy->piece_size);
}

static void count_piece(struct piece *piece)
{
	struct copy *copy = piece->copy;

	pthread_mutex_lock(&copy->lock);
	copy->result->read_bytes += piece->count;
	copy->result->written_bytes += piece->written;
	pthread_mutex_unlock(&copy->lock);
}

void piece_run(struct job *job)
{
	struct piece *piece = (struct piece *)job;
	struct copy *copy = piece->copy;
	int error = copy_has_failed(copy) ? -ECANCELED : 0;

	if (!error)
		error = piece_read(piece);
	if (!error && copy->options->compare)
		error = piece_compare(piece);
	if (!error && !piece->same && copy->ordered)
		piece_prepare(piece);
	else if (!error && !piece->same)
		error = piece_write(piece);
	if (error)
		copy_fail(copy, error);
	else
		count_piece(piece);
	piece_done(piece);
}

/* ---- reading back ----------------------------------------------------------- */

static void tell_difference(struct copy *copy, uint64_t offset, uint64_t count)
{
	pthread_mutex_lock(&copy->lock);
	if (!copy->error)
		log_error("%s: differs from what was copied, between byte %" PRIu64
			  " and %" PRIu64, copy->options->target_name, offset,
			  offset + count);
	pthread_mutex_unlock(&copy->lock);
	copy_fail(copy, -EILSEQ);
}

void piece_verify(struct job *job)
{
	struct piece *piece = (struct piece *)job;
	struct copy *copy = piece->copy;
	unsigned char whole[SHA256_DIGEST_LENGTH] = { 0 };
	int error;

	if (copy_has_failed(copy))
		goto out;
	error = stage_read(copy->options->target, piece->buffer, piece->count,
			   piece->offset, 0);
	if (error) {
		copy_tell_failure(copy, copy->options->target_name, "read back",
			     piece->offset, error);
		goto out;
	}
	if (!bytes_are_zero(piece->buffer, piece->count) &&
	    !SHA256((const unsigned char *)piece->buffer, piece->count, whole))
		copy_fail(copy, -EIO);
	else if (memcmp(whole, copy->digests + piece->offset / copy->piece_size *
			DIGEST_BYTES, DIGEST_BYTES) != 0)
		tell_difference(copy, piece->offset, piece->count);
out:
	piece_free(piece);
}
