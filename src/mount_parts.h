/* mount_parts.h: what mount.c, mounts.c, mount_status.c and mount_control.c
 * share. */
#ifndef OBJMAP_MOUNT_PARTS_H
#define OBJMAP_MOUNT_PARTS_H

#include <jansson.h>
#include <pthread.h>
#include <stdatomic.h>

#include "src/control.h"
#include "src/mount.h"

struct fuse_file;

/* An NBD server and how many mounts it serves. */
struct mount_server {
	struct nbd_server *nbd;
	const struct where *where;	/* of its first mount */
	unsigned int nr_mounts;		/* under mounts->lock, once started, as: */
	bool started, stopped;
	struct mount_server *next;
};

struct mount {
	struct mounts *mounts;
	struct mount_spec spec;
	struct control *control;
	struct mount_server *server;	/* NBD */
	struct fuse_file *file;		/* FUSE */
	struct export *export;		/* NULL: not open yet, or ended */
	uint64_t seen_epoch;		/* --follow: of what the page cache holds */
	atomic_bool gone;		/* its users are: to be ended */
	atomic_bool drop;		/* may end without being saved */
	atomic_bool ending;		/* nobody is served any more */
	pthread_rwlock_t open_lock;	/* the export and the file stay as long as
					 * it is held for reading */
	pthread_mutex_t end_lock;	/* held by who ends it, flushes or resizes
					 * it, however long; guards
					 * ended and status as they change */
	atomic_bool ended;
	int status;			/* exit status */
	struct mount *next;
};

struct mounts {
	struct mounts_options options;
	int wake_fd;			/* a mount is gone or has ended */
	struct mount *first, **last;
	struct mount_server *servers;
	pthread_mutex_t lock;		/* of the servers' stopping */
};

enum mount_users {
	MOUNT_ASK_USERS,	/* -EBUSY while it is in use */
	MOUNT_FORCE,		/* they lose it; users of another one do not */
	MOUNT_WITHOUT_USERS,	/* they all lose it */
};

int mount_prepare(struct mount *mount);
int mount_open_export(struct mount *mount);
int mount_serve(struct mount *mount);

/* How long its store is tried again from now on: its users cannot be told to come
 * back later, so that a slow store must not become an I/O error; but what may be
 * dropped waits for nothing. */
void mount_set_patience(struct mount *mount);

/* Saves and ends it.  -EBUSY (in use) or why it cannot be saved: it lives on.
 * 0: it has ended, perhaps a while ago.  @client, when not NULL, is told of
 * the progress.  Logged. */
int mount_end(struct mount *mount, enum mount_users users,
	      struct control_client *client);

/* Takes back what the first three did, of a mount that never served. */
void mount_undo(struct mount *mount);
void mount_free(struct mount *mount);

/* Commits what is dirty, telling @client how far it is. */
int mount_flush(struct mount *mount, struct control_client *client);

void mounts_wake(struct mounts *mounts);
bool mounts_all_ended(struct mounts *mounts);

/* A new object. */
json_t *mount_status(struct mount *mount);

control_command mount_command;	/* context: the struct mount */

#endif
