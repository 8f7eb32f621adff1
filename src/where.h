/* where.h: WHERE, as the command line names it: how a place is served. */
#ifndef OBJMAP_WHERE_H
#define OBJMAP_WHERE_H

#include <stdint.h>

enum where_kind {
	WHERE_FUSE,		/* a path with a '/' or an existing file */
	WHERE_NBD_UNIX,		/* nbd+unix:///EXPORT?socket=PATH */
	WHERE_NBD_TCP,		/* nbd://ADDRESS[:PORT]/EXPORT */
	WHERE_NBD_TLS,		/* nbds://..., nbds+unix://... */
	WHERE_FD,		/* fd:N */
	WHERE_STDIO,		/* - */
};

struct where {
	enum where_kind kind;
	char *text;		/* as written */
	char *canonical;	/* what the control socket is named by: realpath of
				 * the parent and the last component, or the URI */
	char *path;		/* FUSE: absolute; UNIX: the socket's */
	char *address;		/* TCP */
	uint16_t port;		/* TCP: 10809 unless given */
	int fd;
	char *export_name;
};

/* -EINVAL, logged with what to write instead. */
int where_parse(const char *text, struct where *where);
void where_free(struct where *where);

/* The runtime folder ($OBJMAP_RUNTIME_DIR, /run/objmap, ...), made 0700 and
 * its owner checked; NULL when it cannot be had, logged. */
const char *runtime_dir(void);
/* The state folder: @given (--state), else /var/lib/objmap for root, else
 * $XDG_STATE_HOME/objmap.  Network file systems are refused.  malloc'ed. */
char *state_dir(const char *given);
/* PATH of the control socket of @where: RUNTIME/HASH, 16 hex digits of the
 * SHA-256 of its canonical form.  malloc'ed. */
char *where_control_path(const struct where *where);

#endif
