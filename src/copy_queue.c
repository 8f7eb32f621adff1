/* copy_queue.c: targets that take pieces in order: volumes and streams.
 *
 * One thread takes what stands finished at the queue's beginning and puts it into
 * a commit, or writes it out, while later pieces are being read. */
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "src/clock.h"
#include "src/copy_parts.h"

/* A commit is put together while its first chunks are uploaded already, and ends in a
 * round trip or two that nothing else is sent in.  What it has when the copy is
 * killed is copied again; what it changes is kept in memory until then. */
#define COMMIT_EVERY (10 * CLOCK_SECOND)
#define COMMIT_ITEMS 16384u

void queue_add(struct copy *copy, struct piece *piece)
{
	if (!copy->ordered)
		return;
	pthread_mutex_lock(&copy->lock);
	*copy->last = piece;
	copy->last = &piece->next;
	pthread_mutex_unlock(&copy->lock);
}

/* The queue's first piece, once it is done; NULL: there will be no more. */
static struct piece *queue_take(struct copy *copy)
{
	struct piece *piece;

	pthread_mutex_lock(&copy->lock);
	while (copy->first ? !copy->first->done : !copy->ended)
		pthread_cond_wait(&copy->ready, &copy->lock);
	piece = copy->first;
	if (piece)
		copy->first = piece->next;
	if (!copy->first)
		copy->last = &copy->first;
	pthread_mutex_unlock(&copy->lock);
	return piece;
}

/* ---- into a volume ---------------------------------------------------------------- */

struct commit {
	struct copy *copy;
	struct piece *first;		/* was taken already */
	unsigned int nr;		/* chunks and holes */
	uint64_t until;			/* clock_now() */
};

static void piece_let_go(void *context)
{
	piece_free(context);
}

static void make_item(struct piece *piece, struct commit_item *item)
{
	*item = (struct commit_item){
		.chunk = (uint32_t)(piece->offset / piece->copy->piece_size),
		.nr_chunks = piece->nr_chunks ? piece->nr_chunks : 1,
	};
	if (piece->zero) {
		piece_free(piece);
		return;
	}
	item->data = piece->buffer;
	item->sums = piece->sums;
	item->let_go = piece_let_go;
	item->context = piece;
}

/* What has been read when the copy fails is committed: a resumed one goes on there. */
static bool commit_more(void *context, struct commit_item *item)
{
	struct commit *commit = context;
	struct copy *copy = commit->copy;
	struct piece *piece;

	while (commit->nr < COMMIT_ITEMS && (!commit->nr || clock_now() < commit->until)) {
		piece = commit->first ? commit->first : queue_take(copy);
		commit->first = NULL;
		if (!piece)
			return false;
		if (copy_has_failed(copy)) {
			piece_free(piece);
			return false;
		}
		if (!piece->same && !(piece->zero && copy->options->target_is_blank)) {
			make_item(piece, item);
			commit->nr++;
			return true;
		}
		piece_free(piece);
	}
	return false;
}

/* Commits @first and what follows it. */
static void commit_pieces(struct copy *copy, struct piece *first)
{
	struct commit commit = { .copy = copy, .first = first,
				 .until = clock_now() + COMMIT_EVERY };
	const struct commit_batch batch = { .more = commit_more, .context = &commit };
	uint64_t offset = first->offset;
	int error = volume_commit(copy->options->target_volume, &batch);

	if (commit.first)
		piece_free(commit.first);	/* it did not come so far */
	if (error)
		copy_tell_failure(copy, copy->options->target_name, "written", offset,
				  error);
}

/* ---- into a stream ---------------------------------------------------------------- */

static void stream_write(struct copy *copy, const struct piece *piece)
{
	uint32_t at = 0;
	ssize_t n;

	/* An empty file: what is skipped reads as zeros, once its size is set. */
	if (piece->zero && copy->options->target_is_blank &&
	    lseek(copy->options->target_fd, piece->count, SEEK_CUR) >= 0)
		return;
	while (at < piece->count) {
		n = write(copy->options->target_fd, piece->buffer + at,
			  piece->count - at);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0) {
			copy_tell_failure(copy, copy->options->target_name, "written",
					  piece->offset + at, -errno);
			return;
		}
		at += (uint32_t)n;
	}
}

void *queue_consume(void *context)
{
	struct copy *copy = context;
	struct piece *piece;

	while ((piece = queue_take(copy))) {
		if (copy_has_failed(copy)) {
			piece_free(piece);
		} else if (copy->options->target_volume) {
			commit_pieces(copy, piece);
		} else {
			stream_write(copy, piece);
			piece_free(piece);
		}
	}
	return NULL;
}
