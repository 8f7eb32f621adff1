/* fuse.h: an export as one file, through libfuse 3.
 *
 * The mount is on the file itself: WHERE is the file.
 */
#ifndef OBJMAP_FUSE_H
#define OBJMAP_FUSE_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "src/export.h"

struct fuse_file;

struct fuse_options {
	bool over;		/* mount over a file that is not empty */
	bool allow_other;
	unsigned int threads;	/* 0: default */
	/* Told, on any thread, when somebody else unmounted the file. */
	void (*ended)(void *context);
	void *context;
};

/* Whether @where can be mounted on: creates it when it is missing (and then
 * removes it at unmount), refuses a directory (-EISDIR, "DIR/NAME" suggested),
 * a file that is not empty without @over (-EEXIST), one that is mounted
 * (-EBUSY; a dead objmap mount is cleaned up first), and where FUSE cannot be
 * had (-ENODEV, -EPERM: names the cause and the same command with nbd+unix:).
 * To be called before anything is claimed.  Logged. */
int fuse_file_prepare(const char *where, const struct fuse_options *options,
		      struct fuse_file **file);

/* Mounts it and starts serving @export on threads of its own. */
int fuse_file_start(struct fuse_file *file, struct export *export);

/* Unmounts, answers what is in flight, joins the threads.  With users on it:
 * -EBUSY and goes on serving, unless @lazy. */
int fuse_file_stop(struct fuse_file *file, bool lazy);
void fuse_file_close(struct fuse_file *file);

/* The export's size has changed. */
void fuse_file_resized(struct fuse_file *file);

json_t *fuse_file_status(struct fuse_file *file);

#endif
