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
	pool->nr_free = 0;
	pool->max_free = (unsigned int)(keep / size);
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

struct buffer *buffer_new(struct buffer_pool *pool)
{
	struct buffer *buffer;

	pthread_mutex_lock(&pool->lock);
	buffer = pool->free;
	if (buffer) {
		pool->free = buffer->next;
		pool->nr_free--;
	}
	pthread_mutex_unlock(&pool->lock);
	if (!buffer) {
		buffer = malloc(sizeof(*buffer));
		if (!buffer)
			return NULL;
		buffer->bytes = mmap(NULL, pool->size, PROT_READ | PROT_WRITE,
				     MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
		if (buffer->bytes == MAP_FAILED) {
			free(buffer);
			return NULL;
		}
		buffer->pool = pool;
	}
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
	if (pool->nr_free < pool->max_free) {
		buffer->next = pool->free;
		pool->free = buffer;
		pool->nr_free++;
		buffer = NULL;
	}
	pthread_mutex_unlock(&pool->lock);
	if (buffer)
		buffer_free(buffer);
}
