/* objmap.h: a place in object storage as a device, from C and C++.
 *
 * Open a place as the command line names it (objmap(1): "dir:/srv/vm7",
 * "dir:/srv/vm7@monday", "file:/tmp/image", "memory:1G", ...), read and write
 * any bytes of it, flush, close.  libobjmap(3) tells the whole.
 *
 * Functions may be called by several threads at once, objmap_close() only when
 * all others have returned.  They return 0 or a negative errno; what went wrong
 * is also said in a line on standard error.  A process that forks uses a device
 * in the one that opened it only.
 */
#ifndef OBJMAP_H
#define OBJMAP_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

struct objmap;

enum objmap_flags {
	OBJMAP_READ_ONLY = 1 << 0,
	OBJMAP_TAKE_OVER = 1 << 1,	/* a volume that another holds: fence him */
};

/* Opens @place and stores a device in *@device.
 * -EINVAL (no such kind of place), -ENOENT, -EBUSY (somebody else has the
 * volume open for writing), -EBADMSG (damaged), -ENOTSUP (written by a newer
 * objmap), or what the system said. */
int objmap_open(const char *place, unsigned int flags, struct objmap **device);

/* Opening tries a server that is away again for 30 s.  From then on it is waited for
 * without end, and a line on standard error says so: a slow store is no I/O error.
 * This bounds the wait: after @ms milliseconds of trying, an operation fails with
 * what the server did, and can be tried again.  UINT64_MAX: without end. */
void objmap_set_retry_for(struct objmap *device, uint64_t ms);

/* Bytes of the device. */
uint64_t objmap_size(const struct objmap *device);

/* Reads or writes @count bytes at byte @offset: all of them, or an error.
 * -EINVAL outside the device, -EROFS, -EIO (no verified bytes could be had),
 * -ESTALE (somebody else took the volume over). */
int objmap_pread(struct objmap *device, void *buffer, size_t count,
		 uint64_t offset);
int objmap_pwrite(struct objmap *device, const void *buffer, size_t count,
		  uint64_t offset);

/* @count bytes at @offset read as zeros from now on; their storage may go. */
int objmap_zero(struct objmap *device, uint64_t count, uint64_t offset);

/* The bytes are not needed any more; they read as they did, or as zeros. */
int objmap_trim(struct objmap *device, uint64_t count, uint64_t offset);

/* Everything written before is durable when this returns 0. */
int objmap_flush(struct objmap *device);

/* Flushes and closes.  The device is gone whatever is returned; an error says
 * that the last writes are not durable. */
int objmap_close(struct objmap *device);

#ifdef __cplusplus
}
#endif
#endif
