/* fuse.h: an export as one file, through libfuse 3.
 *
 * The mount is on the file itself: WHERE is the file.  The kernel's page cache
 * is on, so the file can be mapped MAP_SHARED; its write-back cache is off, so
 * a write() that returned is known here, and fsync, msync and fdatasync are a
 * flush.  O_DIRECT goes past the page cache by the kernel's own way, which
 * keeps the two in step; FOPEN_DIRECT_IO, which would forbid MAP_SHARED, is not
 * used.
 */
#ifndef OBJMAP_FUSE_H
#define OBJMAP_FUSE_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "src/export.h"

struct fuse_file;

struct fuse_options {
	const char *place;	/* for messages, and what mount(8) shows */
	bool over;		/* mount over a file that is not empty */
	bool allow_other;
	bool follow;		/* the content may change under us: do not keep
				 * the page cache from one open to the next */
	unsigned int threads;	/* 0: one per CPU, 2 to 8 */
	/* Told, on any thread, when somebody else unmounted the file. */
	void (*ended)(void *context);
	void *context;
};

/* Whether @where can be mounted on: creates it when it is missing (and then
 * removes it when it is closed), refuses a directory (-EISDIR, "DIR/NAME"
 * suggested), a file that is not empty without @over (-EEXIST), one that is
 * mounted (-EBUSY; a dead objmap mount is cleaned up first), and where FUSE
 * cannot be had (-ENODEV, -EPERM: names the cause and the same command with
 * nbd+unix:).  To be called before anything is claimed.  Logged. */
int fuse_file_prepare(const char *where, const struct fuse_options *options,
		      struct fuse_file **file);

/* Mounts it and starts serving @export on threads of its own. */
int fuse_file_start(struct fuse_file *file, struct export *export);

enum fuse_stop {
	FUSE_STOP_ASK,	/* with users on it: -EBUSY, and it goes on serving */
	FUSE_STOP_SAVE,	/* its users get ENOTCONN; what they wrote through
			 * mappings is fetched before */
	FUSE_STOP_DROP,	/* ... is lost */
};

/* Unmounts, answers what is in flight, joins the threads.  Once stopped it may
 * be called again and does nothing. */
int fuse_file_stop(struct fuse_file *file, enum fuse_stop how);
void fuse_file_close(struct fuse_file *file);

/* The export's size has changed. */
void fuse_file_resized(struct fuse_file *file);

/* The export's content has changed by itself (--follow). */
void fuse_file_changed(struct fuse_file *file);

json_t *fuse_file_status(struct fuse_file *file);

#endif
