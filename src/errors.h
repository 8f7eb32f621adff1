/* errors.h: what an error code of ours means, in words for people. */
#ifndef OBJMAP_ERRORS_H
#define OBJMAP_ERRORS_H

#include <stdbool.h>

/* @error is 0 or -errno.  Some codes mean something here that libc's words for them
 * ("Stale file handle") do not say; of the others these are libc's.  For what a
 * system call has just returned, strerror() is right. */
const char *error_words(int error);

/* Whether @error (0 or -errno) says that there is no room: on a disk, or by a quota. */
bool error_is_no_room(int error);

#endif
