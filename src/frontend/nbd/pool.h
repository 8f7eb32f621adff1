/* pool.h: buffers for payload, kept by one event loop while it is busy. */
#ifndef OBJMAP_NBD_POOL_H
#define OBJMAP_NBD_POOL_H

#include <stddef.h>
#include <stdint.h>

/* Powers of two, from a page to the largest payload. */
#define POOL_FIRST_SHIFT 12
#define POOL_LAST_SHIFT	 26
#define POOL_NR_CLASSES	 (POOL_LAST_SHIFT - POOL_FIRST_SHIFT + 1)

struct nbd_pool {
	void *free[POOL_NR_CLASSES];	/* each begins with a pointer to the next */
	uint64_t kept;			/* bytes in free[] */
};

/* Bytes that a buffer for @count (at most NBD_PAYLOAD_MAX) takes. */
size_t nbd_pool_room(size_t count);

/* A page-aligned buffer of nbd_pool_room(@count) bytes, not cleared, or NULL. */
void *nbd_pool_get(struct nbd_pool *pool, size_t count);
void nbd_pool_put(struct nbd_pool *pool, void *buffer, size_t count);

/* Gives everything that is kept back to the system. */
void nbd_pool_trim(struct nbd_pool *pool);

#endif
