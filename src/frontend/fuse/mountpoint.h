/* mountpoint.h: the path a FUSE file is mounted on, as the kernel sees it. */
#ifndef OBJMAP_FUSE_MOUNTPOINT_H
#define OBJMAP_FUSE_MOUNTPOINT_H

#include <stdbool.h>

enum mountpoint_state {
	MOUNTPOINT_FREE,	/* nothing is mounted there */
	MOUNTPOINT_LIVE,	/* a mount of objmap */
	MOUNTPOINT_DEAD,	/* one whose daemon has gone */
	MOUNTPOINT_FOREIGN,	/* something else */
};

/* What is mounted on @path (canonical: no symbolic link, no "..").  A daemon that
 * hangs is not waited for longer than a few seconds, and not dead. */
enum mountpoint_state mountpoint_look(const char *path);

/* Whether something else than a mount of objmap is on @path, topmost.  Touches
 * nothing there, so that the daemon itself can ask. */
bool mountpoint_is_foreign(const char *path);

/* Calls @visit for every mount of objmap that this process can see, topmost or
 * not, with its path and the place that is in it. */
void mountpoint_each(void (*visit)(void *context, const char *path,
				   const char *place), void *context);

/* Unmounts @path, through fusermount3 where this process is not root.  @lazy:
 * users keep what they have open.  0, -EBUSY, or another -errno; what fusermount3
 * says beside "busy" is logged, nothing else. */
int mountpoint_unmount(const char *path, bool lazy);

/* Takes dead mounts of objmap off @path.  Returns how many; -errno, logged. */
int mountpoint_clean(const char *path);

/* Whether this process can mount by FUSE: 0; or -ENODEV or -EPERM, logged with
 * the cause and with what to type instead to serve @place. */
int mountpoint_can_fuse(const char *path, const char *place);

#endif
