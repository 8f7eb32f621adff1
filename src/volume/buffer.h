/* buffer.h: the content of one chunk, never changed once it is shared.
 *
 * A rewrite of a chunk makes a new buffer and swaps the pointer, so a read or a
 * commit that holds a reference sees one whole write, without a copy. */
#ifndef OBJMAP_VOLUME_BUFFER_H
#define OBJMAP_VOLUME_BUFFER_H

#include <pthread.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

struct buffer_pool {
	size_t size;		/* bytes of a buffer */
	pthread_mutex_t lock;
	unsigned int nr_made;	/* in use or free */
	unsigned int max_made;	/* above it, what is put goes back to the system */
	struct buffer *free;
};

struct buffer {
	uint8_t *bytes;		/* page aligned */
	atomic_uint refs;
	struct buffer_pool *pool;
	struct buffer *next;	/* the pool's */
};

/* Keeps unused buffers as long as all together have at most @keep bytes. */
void buffer_pool_init(struct buffer_pool *pool, size_t size, uint64_t keep);
void buffer_pool_deinit(struct buffer_pool *pool);

/* A buffer with undefined content and one reference, or NULL: no memory. */
struct buffer *buffer_new(struct buffer_pool *pool);
struct buffer *buffer_get(struct buffer *buffer);
void buffer_put(struct buffer *buffer);	/* NULL is fine */

#endif
