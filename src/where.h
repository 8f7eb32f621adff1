/* where.h: WHERE, as the command line names it: how a place is served. */
#ifndef OBJMAP_WHERE_H
#define OBJMAP_WHERE_H

#include <stdbool.h>
#include <stdint.h>

#define NBD_PORT 10809		/* IANA's for nbd */

enum where_kind {
	WHERE_FUSE,		/* a path with a '/' or an existing file */
	WHERE_NBD_UNIX,		/* nbd+unix:///EXPORT?socket=PATH */
	WHERE_NBD_TCP,		/* nbd://ADDRESS[:PORT]/EXPORT */
	WHERE_NBD_TLS,		/* nbds://..., nbds+unix://... (then path is set) */
	WHERE_FD,		/* fd:N */
	WHERE_STDIO,		/* - */
};

struct where {
	enum where_kind kind;
	char *text;		/* as written; a port that was 0 is filled in */
	char *canonical;	/* what the control socket is named by: realpath of
				 * the parent and the last component, or the URI */
	char *path;		/* FUSE: absolute; UNIX: the socket's; else NULL */
	char *address;		/* TCP, without the brackets of IPv6; else NULL */
	uint16_t port;		/* TCP: 10809 unless given */
	int fd;
	char *export_name;	/* NBD: %-decoded; "" unless given */
};

/* -EINVAL, logged with what to write instead. */
int where_parse(const char *text, struct where *where);
void where_free(struct where *where);

/* Fills in the port that the kernel chose.  Returns 0 or -ENOMEM. */
int where_set_port(struct where *where, uint16_t port);

/* Whether one NBD server serves both: the same socket or address and port,
 * with TLS or without. */
bool where_same_address(const struct where *a, const struct where *b);

/* The runtime folder ($OBJMAP_RUNTIME_DIR, /run/objmap, ...), made 0700 and
 * its owner checked; NULL when it cannot be had, logged. */
const char *runtime_dir(void);
/* The state folder: @given (--state), else /var/lib/objmap for root, else
 * $XDG_STATE_HOME/objmap.  Made 0700.  Network file systems are refused.
 * malloc'ed; NULL when it cannot be had, logged. */
char *state_dir(const char *given);
/* PATH of the control socket of @where: RUNTIME/HASH, 16 hex digits of the
 * SHA-256 of its canonical form.  malloc'ed; NULL: logged. */
char *where_control_path(const struct where *where);

#endif
