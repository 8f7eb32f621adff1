/* pool.c: buffers for payload, kept by one event loop while it is busy.
 *
 * Mapping and unmapping memory for each request would cost more than the
 * request, so buffers stay on a list per size, up to POOL_KEEP bytes.  A loop
 * that goes idle gives them back.  Only its loop's thread touches a pool. */
#include <stdlib.h>
#include <sys/mman.h>

#include "src/frontend/nbd/pool.h"

#define POOL_KEEP (32u << 20)

/* From here on buffers are mapped, so that giving back really gives back. */
#define POOL_MAP_SHIFT 17

static unsigned int pool_class(size_t count)
{
	if (count <= (size_t)1 << POOL_FIRST_SHIFT)
		return 0;
	return 64 - (unsigned int)__builtin_clzll(count - 1) - POOL_FIRST_SHIFT;
}

size_t nbd_pool_room(size_t count)
{
	return (size_t)1 << (pool_class(count) + POOL_FIRST_SHIFT);
}

static void *buffer_new(size_t room)
{
	void *buffer;

	if (room < (size_t)1 << POOL_MAP_SHIFT)
		return aligned_alloc((size_t)1 << POOL_FIRST_SHIFT, room);
	buffer = mmap(NULL, room, PROT_READ | PROT_WRITE,
		      MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	return buffer == MAP_FAILED ? NULL : buffer;
}

static void buffer_free(void *buffer, size_t room)
{
	if (room < (size_t)1 << POOL_MAP_SHIFT)
		free(buffer);
	else
		munmap(buffer, room);
}

void *nbd_pool_get(struct nbd_pool *pool, size_t count)
{
	void **first = &pool->free[pool_class(count)];
	void *buffer = *first;

	if (!buffer)
		return buffer_new(nbd_pool_room(count));
	*first = *(void **)buffer;
	pool->kept -= nbd_pool_room(count);
	return buffer;
}

void nbd_pool_put(struct nbd_pool *pool, void *buffer, size_t count)
{
	size_t room = nbd_pool_room(count);
	void **first = &pool->free[pool_class(count)];

	if (!buffer)
		return;
	if (pool->kept + room > POOL_KEEP) {
		buffer_free(buffer, room);
		return;
	}
	*(void **)buffer = *first;
	*first = buffer;
	pool->kept += room;
}

void nbd_pool_trim(struct nbd_pool *pool)
{
	unsigned int i;
	void *buffer;

	for (i = 0; i < POOL_NR_CLASSES; i++) {
		while ((buffer = pool->free[i])) {
			pool->free[i] = *(void **)buffer;
			buffer_free(buffer, (size_t)1 << (i + POOL_FIRST_SHIFT));
		}
	}
	pool->kept = 0;
}
