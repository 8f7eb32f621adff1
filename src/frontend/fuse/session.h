/* session.h: what session.c (a mounted file's life) and ops.c (the kernel's
 * requests) share. */
#ifndef OBJMAP_FUSE_SESSION_H
#define OBJMAP_FUSE_SESSION_H

#define FUSE_USE_VERSION 35
#include <fuse_lowlevel.h>
#include <pthread.h>
#include <stdatomic.h>
#include <time.h>

#include "src/frontend/fuse.h"
#include "src/stage/stage.h"

/* The kernel's longest transfer by default: 256 pages. */
#define FUSE_MAX_TRANSFER (1u << 20)
/* In front of the payload in a receive buffer; libfuse's FUSE_BUFFER_HEADER_SIZE. */
#define FUSE_HEADER_ROOM 4096u
#define FUSE_MAX_THREADS 64

/* One request of the kernel, with the buffer it was received in: the payload of
 * a write stays there until it is written, and a read is read into it. */
struct fuse_op {
	struct request request;
	struct fuse_file *file;
	fuse_req_t req;
	void *buffer;		/* libfuse's malloc; FUSE_HEADER_ROOM + FUSE_MAX_TRANSFER */
	struct iovec iov;
	struct extent_list extents;
	int whence;		/* lseek */
	atomic_uint turn;	/* lseek: who goes on, see op_seek_run() */
	bool listed;		/* in file->slow */
	struct fuse_op *previous, *next;	/* in file->slow or file->spare */
};

struct fuse_file {
	char *path;
	char *place;
	struct fuse_options options;
	bool created;		/* the file below: ours, removed at the end */
	struct export *export;
	struct fuse_session *session;	/* NULL: not mounted */
	uid_t uid;
	gid_t gid;
	atomic_bool stopping;
	atomic_uint nr_serving;		/* threads in their loop */
	pthread_t threads[FUSE_MAX_THREADS];
	unsigned int nr_threads;

	pthread_mutex_t lock;		/* guards: */
	pthread_cond_t idle;		/* in_flight became 0 */
	unsigned int in_flight;		/* ops that are with a stage */
	struct fuse_op *slow;		/* those that had to wait: can be interrupted */
	struct fuse_op *spare;		/* with a buffer, free */
	unsigned int nr_spare;
	unsigned int nr_open, nr_writers;
	struct timespec modified;
	bool truncation_told;

	atomic_ullong reads, writes, read_bytes, written_bytes, flushes, waited;
};

extern const struct fuse_lowlevel_ops fuse_file_ops;

/* What the thread has received and no operation has taken yet. */
extern _Thread_local struct fuse_op *fuse_received;

void fuse_op_give(struct fuse_op *op);

#endif
