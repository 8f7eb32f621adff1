/* upload.h: the puts of one commit, under way together, in bounded number and
 * bytes.  Used by whoever has the turn, from one thread. */
#ifndef OBJMAP_VOLUME_UPLOAD_H
#define OBJMAP_VOLUME_UPLOAD_H

#include <pthread.h>
#include <stdatomic.h>

#include "backends/store/store.h"

#define UPLOADS_MAX 64u

struct upload;

struct upload_window {
	struct store *store;
	uint64_t max_bytes;		/* one put alone is always let in */
	enum request_priority priority;
	struct upload *uploads;		/* UPLOADS_MAX */
	pthread_mutex_t lock;
	pthread_cond_t ended;
	_Atomic uint64_t chunk_bytes;	/* of chunks that this commit has put */
	/* Guarded by it: */
	unsigned int nr_busy;
	uint64_t bytes;
	int error;			/* the first failure of this commit */
	bool given_up;			/* the others were cancelled */
	bool stopped;
};

int upload_open(struct upload_window *window, struct store *store,
		uint64_t max_bytes);			/* 0 or -ENOMEM */
void upload_close(struct upload_window *window);

/* A commit begins. */
void upload_begin(struct upload_window *window, enum request_priority priority);

struct upload_content {
	const void *data;
	size_t count;			/* bytes */
	const uint32_t *sums;		/* as a put's; copied; NULL: not known */
	uint32_t sum_unit;
	/* Called once, on any thread, when @data is not needed any more.  NULL: it
	 * stays until upload_end(). */
	void (*let_go)(void *context);
	void *context;
};

/* Puts @content under @key; waits for room only.  @metadata may be NULL; it is
 * copied.  0, or the error of an earlier put: then all are cancelled and nothing
 * was sent. */
int upload_put(struct upload_window *window, enum store_cause cause,
	       const char *key, const struct upload_content *content,
	       const struct store_metadata *metadata);

/* Gives up the commit that runs, if any, and every later one: the volume is
 * being closed.  From any thread. */
void upload_stop(struct upload_window *window);

/* Gives the commit up: @error is what upload_end() says. */
void upload_abort(struct upload_window *window, int error);

/* Waits until no put is under way.  0: all are confirmed. */
int upload_end(struct upload_window *window);

#endif
