/* upload.c: the puts of one commit.
 *
 * A put that fails for good ends the commit: the others are cancelled, and
 * waited for, because their buffers are in use until they have completed. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "src/volume/format.h"
#include "src/volume/swap.h"
#include "src/volume/upload.h"

struct upload {
	struct upload_window *window;
	bool busy;			/* guarded by window->lock */
	void (*let_go)(void *context);
	void *context;
	struct iovec iov;
	uint32_t sums[FRAMES_MAX];
	struct store_request put;
	struct store_metadata metadata;
	char key[VOLUME_KEY_MAX];
};

int upload_open(struct upload_window *window, struct store *store,
		uint64_t max_bytes)
{
	memset(window, 0, sizeof(*window));
	window->uploads = calloc(UPLOADS_MAX, sizeof(*window->uploads));
	if (!window->uploads)
		return -ENOMEM;
	window->store = store;
	window->max_bytes = max_bytes;
	pthread_mutex_init(&window->lock, NULL);
	pthread_cond_init(&window->ended, NULL);
	return 0;
}

void upload_close(struct upload_window *window)
{
	if (!window->uploads)
		return;
	free(window->uploads);
	window->uploads = NULL;
	pthread_mutex_destroy(&window->lock);
	pthread_cond_destroy(&window->ended);
}

void upload_begin(struct upload_window *window, enum request_priority priority)
{
	pthread_mutex_lock(&window->lock);
	window->priority = priority;
	window->error = window->stopped ? -ECANCELED : 0;
	window->given_up = false;
	atomic_store(&window->chunk_bytes, 0);
	pthread_mutex_unlock(&window->lock);
}

static void upload_done(struct store_request *put, enum store_outcome outcome)
{
	struct upload *upload = put->context;
	struct upload_window *window = upload->window;
	int error = store_errno(outcome, &put->reply);

	if (upload->let_go)
		upload->let_go(upload->context);
	if (!error && put->cause == CAUSE_PUSH)
		atomic_fetch_add(&window->chunk_bytes, upload->iov.iov_len);
	pthread_mutex_lock(&window->lock);
	upload->busy = false;
	window->nr_busy--;
	window->bytes -= upload->iov.iov_len;
	if (error && !window->error)
		window->error = error;
	pthread_cond_signal(&window->ended);
	pthread_mutex_unlock(&window->lock);
}

/* The lock is held. */
static void cancel_all(struct upload_window *window)
{
	unsigned int i;

	if (window->given_up)
		return;
	window->given_up = true;
	for (i = 0; i < UPLOADS_MAX; i++)
		if (window->uploads[i].busy)
			store_cancel(&window->uploads[i].put);
}

/* The lock is held.  A free upload, or NULL after a failure. */
static struct upload *wait_for_room(struct upload_window *window, size_t count)
{
	unsigned int i;

	while (!window->error && window->nr_busy &&
	       (window->nr_busy == UPLOADS_MAX ||
		window->bytes + count > window->max_bytes))
		pthread_cond_wait(&window->ended, &window->lock);
	if (window->error) {
		cancel_all(window);
		return NULL;
	}
	for (i = 0; window->uploads[i].busy; i++)
		;
	window->uploads[i].busy = true;
	window->nr_busy++;
	window->bytes += count;
	return &window->uploads[i];
}

int upload_put(struct upload_window *window, enum store_cause cause,
	       const char *key, const struct upload_content *content,
	       const struct store_metadata *metadata)
{
	struct upload *upload;
	int error;

	pthread_mutex_lock(&window->lock);
	upload = wait_for_room(window, content->count);
	error = window->error;
	pthread_mutex_unlock(&window->lock);
	if (!upload) {
		if (content->let_go)
			content->let_go(content->context);
		return error;
	}
	upload->window = window;
	upload->let_go = content->let_go;
	upload->context = content->context;
	upload->iov = (struct iovec){ (void *)(uintptr_t)content->data, content->count };
	strcpy(upload->key, key);
	if (metadata)
		upload->metadata = *metadata;
	if (content->sums)
		memcpy(upload->sums, content->sums,
		       content->count / content->sum_unit * sizeof(upload->sums[0]));
	upload->put = (struct store_request){
		.op = STORE_PUT, .cause = cause, .priority = window->priority,
		.key = upload->key, .count = content->count, .iov = &upload->iov,
		.nr_iov = 1, .sums = content->sums ? upload->sums : NULL,
		.sum_unit = content->sum_unit,
		.metadata = metadata ? &upload->metadata : NULL,
		.done = upload_done, .context = upload,
	};
	store_submit(window->store, &upload->put);
	return 0;
}

void upload_abort(struct upload_window *window, int error)
{
	pthread_mutex_lock(&window->lock);
	if (!window->error)
		window->error = error;
	pthread_mutex_unlock(&window->lock);
}

void upload_stop(struct upload_window *window)
{
	pthread_mutex_lock(&window->lock);
	window->stopped = true;
	if (!window->error)
		window->error = -ECANCELED;
	/* Who waits for a put cancels them all now. */
	pthread_cond_signal(&window->ended);
	pthread_mutex_unlock(&window->lock);
}

int upload_end(struct upload_window *window)
{
	int error;

	pthread_mutex_lock(&window->lock);
	while (window->nr_busy) {
		if (window->error)
			cancel_all(window);
		pthread_cond_wait(&window->ended, &window->lock);
	}
	error = window->error;
	pthread_mutex_unlock(&window->lock);
	return error;
}
