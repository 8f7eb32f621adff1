/* buffer.c: chunk buffers, and a short list of those that are free.
 *
 * Fresh pages cost a fault each; a buffer that was used before costs nothing.
 * So some are kept, bounded by what the pool was told. */
#include <stdlib.h>
#include <sys/mman.h>

#include "src/volume/buffer.h"

void buffer_pool_init(struct buffer_pool *pool, size_t size, uint64_t keep)
{
	pool->size = size;
	pthread_mutex_init(&pool->lock, NULL);
	pool->nr_made = 0;
	pool->max_made = (unsigned int)(keep / size);
	pool->free = NULL;
}

static void buffer_free(struct buffer *buffer)
{
	munmap(buffer->bytes, buffer->pool->size);
	free(buffer);
}

void buffer_pool_deinit(struct buffer_pool *pool)
{
	struct buffer *buffer;

	while ((buffer = pool->free)) {
		pool->free = buffer->next;
		buffer_free(buffer);
	}
	pthread_mutex_destroy(&pool->lock);
}

static struct buffer *buffer_make(struct buffer_pool *pool)
{
	struct buffer *buffer = malloc(sizeof(*buffer));

	if (buffer) {
		buffer->pool = pool;
		buffer->bytes = mmap(NULL, pool->size, PROT_READ | PROT_WRITE,
				     MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
		if (buffer->bytes != MAP_FAILED)
			return buffer;
	}
	free(buffer);
	pthread_mutex_lock(&pool->lock);
	pool->nr_made--;
	pthread_mutex_unlock(&pool->lock);
	return NULL;
}

struct buffer *buffer_new(struct buffer_pool *pool)
{
	struct buffer *buffer;

	pthread_mutex_lock(&pool->lock);
	buffer = pool->free;
	if (buffer)
		pool->free = buffer->next;
	else
		pool->nr_made++;
	pthread_mutex_unlock(&pool->lock);
	if (!buffer)
		buffer = buffer_make(pool);
	if (buffer)
		atomic_init(&buffer->refs, 1);
	return buffer;
}

struct buffer *buffer_get(struct buffer *buffer)
{
	atomic_fetch_add_explicit(&buffer->refs, 1, memory_order_relaxed);
	return buffer;
}

void buffer_put(struct buffer *buffer)
{
	struct buffer_pool *pool;

	if (!buffer || atomic_fetch_sub(&buffer->refs, 1) > 1)
		return;
	pool = buffer->pool;
	pthread_mutex_lock(&pool->lock);
	if (pool->nr_made <= pool->max_made) {
		buffer->next = pool->free;
		pool->free = buffer;
		buffer = NULL;
	} else {
		pool->nr_made--;
	}
	pthread_mutex_unlock(&pool->lock);
	if (buffer)
		buffer_free(buffer);
}
