/* aside.h: writes that could not go where they belong, kept in the state folder.
 *
 * STATE/OWNER/NAME holds one file of bytes, one piece after the other, and `index`, a
 * text that says where each belongs; what stands in it is the caller's.  Nothing of it
 * is said to be kept before it is durable. */
#ifndef OBJMAP_ASIDE_H
#define OBJMAP_ASIDE_H

#include <limits.h>
#include <stdint.h>
#include <stdio.h>

struct aside {
	char folder[PATH_MAX];		/* for messages, whatever failed */
	FILE *index;			/* printed to by the caller */
	const char *bytes;		/* the other's name, once the folder is ours */
	int fd;
	uint64_t position;		/* bytes written */
};

/* Makes the folders and the two files, the one of bytes called @bytes.  0 or -errno
 * (-EEXIST: NAME is there already); aside_close() follows in any case. */
int aside_open(struct aside *aside, const char *state, const char *owner,
	       const char *name, const char *bytes);

/* 0 or -errno. */
int aside_write(struct aside *aside, const void *data, size_t count);

/* Makes all of it durable, unless there was an @error before.  Returns that, or what
 * failed now: then NAME is not there any more, and can be made again. */
int aside_close(struct aside *aside, int error);

#endif
