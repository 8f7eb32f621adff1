/* durable.h: names that must still be there after a crash.
 *
 * fsync() of a file says nothing of its name: that is in its folder. */
#ifndef OBJMAP_DURABLE_H
#define OBJMAP_DURABLE_H

/* What is in the folder @path.  0 or -errno. */
int durable_folder(const char *path);
/* The name of @path itself: in the folder above. */
int durable_name(const char *path);

#endif
