/* copy_queue.c: targets that take pieces in order: volumes and streams.
 *
 * One thread takes what stands finished at the queue's beginning and commits
 * it, or writes it out, while later pieces are being read. */
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "src/copy_parts.h"

void queue_add(struct copy *copy, struct piece *piece)
{
	if (!copy->ordered)
		return;
	pthread_mutex_lock(&copy->lock);
	*copy->last = piece;
	copy->last = &piece->next;
	pthread_mutex_unlock(&copy->lock);
}

static int commit_pieces(struct copy *copy, struct piece *first)
{
	const struct copy_options *options = copy->options;
	struct commit_item items[PIECES_MAX];
	struct commit_batch batch = { .items = items };
	struct piece *piece;
	int error;

	for (piece = first; piece; piece = piece->next) {
		struct commit_item *item = &items[batch.nr_items];

		if (piece->same || (piece->zero && options->target_is_blank))
			continue;
		item->chunk = (uint32_t)(piece->offset / copy->piece_size);
		item->nr_chunks = piece->nr_chunks ? piece->nr_chunks : 1;
		item->data = piece->zero ? NULL : piece->buffer;
		batch.nr_items++;
	}
	if (batch.nr_items == 0)
		return 0;
	error = volume_commit(options->target_volume, &batch);
	if (error)
		copy_tell_failure(copy, options->target_name, "written",
			     first->offset, error);
	return error;
}

static int stream_write(struct copy *copy, const struct piece *piece)
{
	uint32_t at = 0;
	ssize_t n;

	/* An empty file: what is skipped reads as zeros, once its size is set. */
	if (piece->zero && copy->options->target_is_blank &&
	    lseek(copy->options->target_fd, piece->count, SEEK_CUR) >= 0)
		return 0;
	while (at < piece->count) {
		n = write(copy->options->target_fd, piece->buffer + at,
			  piece->count - at);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0) {
			int error = -errno;

			copy_tell_failure(copy, copy->options->target_name,
				     "written", piece->offset + at, error);
			return error;
		}
		at += (uint32_t)n;
	}
	return 0;
}

/* Takes what is finished at the queue's beginning once that is worth a commit,
 * or the rest when no more will come; NULL: there is no more. */
static struct piece *queue_take(struct copy *copy)
{
	unsigned int least = copy->options->target_volume ? copy->nr_pieces / 2 : 1;
	struct piece *first, *end;
	unsigned int nr;

	pthread_mutex_lock(&copy->lock);
	for (;;) {
		nr = 0;
		for (end = copy->first; end && end->done &&
		     nr < copy->nr_pieces / 2; end = end->next)
			nr++;
		if (nr > 0 && (nr >= least || copy->error ||
			       (copy->ended && !end)))
			break;
		if (copy->ended && !copy->first)
			break;
		pthread_cond_wait(&copy->changed, &copy->lock);
	}
	first = nr > 0 ? copy->first : NULL;
	copy->first = first ? end : copy->first;
	if (!copy->first)
		copy->last = &copy->first;
	for (end = first; nr > 1; nr--)
		end = end->next;
	if (end)
		end->next = NULL;
	pthread_mutex_unlock(&copy->lock);
	return first;
}

void *queue_consume(void *context)
{
	struct copy *copy = context;
	struct piece *first, *next;
	int error;

	while ((first = queue_take(copy))) {
		if (!copy_has_failed(copy) && copy->options->target_volume)
			commit_pieces(copy, first);
		for (; first; first = next) {
			next = first->next;
			error = 0;
			if (!copy->options->target_volume && !copy_has_failed(copy))
				error = stream_write(copy, first);
			if (error)
				copy_fail(copy, error);
			piece_free(first);
		}
	}
	return NULL;
}
