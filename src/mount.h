/* mount.h: mounts: each is an export, what serves it, and a control socket.
 *
 * One daemon has any number of them; NBD exports at one address share a server.
 * The order of the calls is that of the declarations.
 *
 *     prepared -> open -> serving -> ended
 *
 * A mount ends when it was asked to (the control socket, a signal), or when
 * its last user cannot come back (fusermount3 -u, the end of a given
 * connection).  Ending it saves everything first: what cannot be saved keeps
 * the mount alive, unless it may be dropped.
 */
#ifndef OBJMAP_MOUNT_H
#define OBJMAP_MOUNT_H

#include <stdbool.h>
#include <stdint.h>

#include "src/export.h"
#include "src/frontend/nbd.h"
#include "src/where.h"

struct daemon;
struct mounts;

/* What shall be mounted. */
struct mount_spec {
	struct place place;	/* both are taken over by mounts_add() */
	struct where where;
	struct export_options export;
	char *state;		/* export.volume.state_dir, malloc'ed */
	bool over, allow_other;	/* FUSE */
	bool retry_for_given;	/* also once it is served */
};

struct mounts_options {
	struct nbd_options nbd;	/* ended and context are set here */
	unsigned int nr_listen_fds;	/* from daemon_listen_fds() */
};

int mounts_open(const struct mounts_options *options, struct mounts **mounts);

void mount_spec_free(struct mount_spec *spec);

/* Takes @spec's name (its control socket, its address or its file), before
 * anything is claimed.  *spec is emptied in any case.  0 or -errno, logged. */
int mounts_add(struct mounts *mounts, struct mount_spec *spec);

/* Opens every export, which claims volumes, and serves them.  On failure all
 * is closed again, in order; mounts_close() is still to be called. */
int mounts_start(struct mounts *mounts);

/* WHERE of the mount of number @n as its users type it, with the port filled
 * in; NULL: there are not so many. */
const char *mounts_where(const struct mounts *mounts, unsigned int n);

/* Serves until all mounts have ended; SIGTERM and SIGINT end them.  With @child
 * (a pid, 0: none) also when that process has ended: *child_status is then
 * what waitpid() said. */
void mounts_wait(struct mounts *mounts, struct daemon *daemon, pid_t child,
		 int *child_status);

/* Ends every mount, also under its users.  0, or -errno: some live on, because
 * they cannot be saved. */
int mounts_end(struct mounts *mounts);

/* After all have ended: the exit status, 1 if any was fenced, or a plain device
 * could not be flushed.  What was dropped was dropped as asked: 0. */
int mounts_close(struct mounts *mounts);

#endif
