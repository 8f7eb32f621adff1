/* ops.c: turns the kernel's requests into requests to the export.
 *
 * No thread that serves the kernel ever waits for a stage: a read or write is
 * submitted with NOWAIT, and where that does not do, again without it; whoever
 * completes it answers the kernel.  What waits can be interrupted: when the
 * process that asked is dying, its request is cancelled. */
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "src/frontend/fuse/session.h"
#include "src/log.h"

/* Only a resize changes what the kernel keeps, and that tells it. */
#define ATTRIBUTES_VALID 3600.0
#define SEEK_EXTENTS	 1024

_Thread_local struct fuse_op *fuse_received;

static struct fuse_file *file_of(fuse_req_t req)
{
	return fuse_req_userdata(req);
}

static uint64_t file_size(struct fuse_file *file)
{
	return stage_size(file->export->stage);
}

static int wire_error(int error)
{
	switch (error) {
	case -ECANCELED:
		return EINTR;
	case -ESHUTDOWN:
		return EIO;
	default:
		return -error;
	}
}

/* ---- an op's life -------------------------------------------------------------- */

/* Takes over what this thread has just received, buffer and all. */
static struct fuse_op *op_begin(fuse_req_t req)
{
	struct fuse_op *op = fuse_received;

	fuse_received = NULL;
	op->req = req;
	pthread_mutex_lock(&op->file->lock);
	op->file->in_flight++;
	pthread_mutex_unlock(&op->file->lock);
	return op;
}

static void op_end(struct fuse_op *op)
{
	struct fuse_file *file = op->file;

	fuse_op_give(op);
	pthread_mutex_lock(&file->lock);
	if (--file->in_flight == 0)
		pthread_cond_broadcast(&file->idle);
	pthread_mutex_unlock(&file->lock);
}

static void op_unlist(struct fuse_op *op)
{
	struct fuse_file *file = op->file;

	if (!op->listed)
		return;
	pthread_mutex_lock(&file->lock);
	if (op->previous)
		op->previous->next = op->next;
	else
		file->slow = op->next;
	if (op->next)
		op->next->previous = op->previous;
	pthread_mutex_unlock(&file->lock);
	op->listed = false;
}

/* The kernel tells of any signal.  One that kills shows as a pending SIGKILL;
 * others must not make a read of a file fail. */
static bool is_dying(pid_t pid)
{
	unsigned long long pending = 0;
	char name[64], line[256];
	FILE *status;

	snprintf(name, sizeof(name), "/proc/%d/status", (int)pid);
	status = fopen(name, "re");
	if (!status)
		return false;
	while (fgets(line, sizeof(line), status)) {
		unsigned long long bits;

		if (sscanf(line, "SigPnd: %llx", &bits) == 1 ||
		    sscanf(line, "ShdPnd: %llx", &bits) == 1)
			pending |= bits;
	}
	fclose(status);
	return pending & (1ull << (SIGKILL - 1));
}

static void op_interrupted(fuse_req_t req, void *data)
{
	struct fuse_file *file = file_of(req);
	struct fuse_op *op;

	if (!is_dying(fuse_req_ctx(req)->pid))
		return;
	/* The op may be over by now: it counts only while it is listed. */
	pthread_mutex_lock(&file->lock);
	for (op = file->slow; op; op = op->next)
		if (op == data && op->req == req)
			request_cancel(&op->request);
	pthread_mutex_unlock(&file->lock);
}

static void op_list(struct fuse_op *op)
{
	struct fuse_file *file = op->file;

	pthread_mutex_lock(&file->lock);
	op->previous = NULL;
	op->next = file->slow;
	if (op->next)
		op->next->previous = op;
	file->slow = op;
	pthread_mutex_unlock(&file->lock);
	op->listed = true;
	atomic_fetch_add(&file->waited, 1);
	fuse_req_interrupt_func(op->req, op_interrupted, op);
}

static void op_fill(struct fuse_op *op, enum request_op kind, uint64_t offset,
		    uint64_t count, unsigned int flags, request_done *done)
{
	request_init(&op->request, kind, offset, count, done, op);
	op->request.flags = flags;
	if (kind == REQUEST_READ || kind == REQUEST_WRITE) {
		op->request.iov = &op->iov;
		op->request.nr_iov = 1;
	}
}

/* Submits what may take its time. */
static void op_submit(struct fuse_op *op, enum request_op kind, uint64_t offset,
		      uint64_t count, unsigned int flags, request_done *done)
{
	op_fill(op, kind, offset, count, flags, done);
	op_list(op);
	stage_submit(op->file->export->stage, &op->request);
}

/* For a completion: whether the answer was "not without waiting", and the
 * request is on its way again. */
static bool op_again(struct fuse_op *op, int error, request_done *done)
{
	if (error != -EAGAIN || !(op->request.flags & REQUEST_NOWAIT))
		return false;
	op_submit(op, op->request.op, op->request.offset, op->request.count,
		  op->request.flags & ~(unsigned int)REQUEST_NOWAIT, done);
	return true;
}

/* Tells the kernel an op's end where success carries nothing. */
static void op_answer(struct fuse_op *op, int error)
{
	op_unlist(op);
	fuse_reply_err(op->req, error ? wire_error(error) : 0);
	op_end(op);
}

/* ---- read and write ------------------------------------------------------------- */

static void read_done(struct request *request, void *context, int error)
{
	struct fuse_op *op = context;

	if (op_again(op, error, read_done))
		return;
	if (error) {
		op_answer(op, error);
		return;
	}
	atomic_fetch_add(&op->file->read_bytes, request->count);
	op_unlist(op);
	fuse_reply_buf(op->req, op->iov.iov_base, (size_t)request->count);
	op_end(op);
}

static void on_read(fuse_req_t req, fuse_ino_t ino, size_t count, off_t offset,
		      struct fuse_file_info *info)
{
	struct fuse_file *file = file_of(req);
	uint64_t size = file_size(file);
	struct fuse_op *op;

	(void)ino;
	(void)info;
	if ((uint64_t)offset >= size || !count) {
		fuse_reply_buf(req, NULL, 0);
		return;
	}
	if (count > FUSE_MAX_TRANSFER) {
		fuse_reply_err(req, EINVAL);
		return;
	}
	if (count > size - (uint64_t)offset)
		count = (size_t)(size - (uint64_t)offset);
	op = op_begin(req);
	op->iov.iov_base = (char *)op->buffer + FUSE_HEADER_ROOM;
	op->iov.iov_len = count;
	atomic_fetch_add(&file->reads, 1);
	op_fill(op, REQUEST_READ, (uint64_t)offset, count, REQUEST_NOWAIT, read_done);
	stage_submit(file->export->stage, &op->request);
}

static void touch(struct fuse_file *file)
{
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	pthread_mutex_lock(&file->lock);
	file->modified = now;
	pthread_mutex_unlock(&file->lock);
}

static void write_done(struct request *request, void *context, int error)
{
	struct fuse_op *op = context;

	if (op_again(op, error, write_done))
		return;
	if (error) {
		op_answer(op, error);
		return;
	}
	atomic_fetch_add(&op->file->written_bytes, request->count);
	touch(op->file);
	op_unlist(op);
	fuse_reply_write(op->req, (size_t)request->count);
	op_end(op);
}

static void on_write(fuse_req_t req, fuse_ino_t ino, const char *data,
		       size_t count, off_t offset, struct fuse_file_info *info)
{
	struct fuse_file *file = file_of(req);
	uint64_t size = file_size(file);
	unsigned int flags = REQUEST_NOWAIT;
	struct fuse_op *op;

	(void)ino;
	if ((uint64_t)offset >= size) {
		fuse_reply_err(req, ENOSPC);	/* as a block device says */
		return;
	}
	if (count > size - (uint64_t)offset)
		count = (size_t)(size - (uint64_t)offset);
	/* What the kernel writes back from mappings is nobody's O_SYNC. */
	if (!info->writepage && (info->flags & O_DSYNC))
		flags |= REQUEST_FUA;
	op = op_begin(req);
	op->iov.iov_base = (void *)data;	/* in op->buffer */
	op->iov.iov_len = count;
	atomic_fetch_add(&file->writes, 1);
	op_fill(op, REQUEST_WRITE, (uint64_t)offset, count, flags, write_done);
	stage_submit(file->export->stage, &op->request);
}

/* ---- flush, zero --------------------------------------------------------------------- */

static void plain_done(struct request *request, void *context, int error)
{
	(void)request;
	op_answer(context, error);
}

static void on_fsync(fuse_req_t req, fuse_ino_t ino, int datasync,
		       struct fuse_file_info *info)
{
	struct fuse_file *file = file_of(req);

	(void)ino;
	(void)datasync;
	(void)info;
	atomic_fetch_add(&file->flushes, 1);
	op_submit(op_begin(req), REQUEST_FLUSH, 0, 0, 0, plain_done);
}

static void zero_done(struct request *request, void *context, int error)
{
	struct fuse_op *op = context;

	(void)request;
	if (!error)
		touch(op->file);
	op_answer(op, error);
}

static void on_fallocate(fuse_req_t req, fuse_ino_t ino, int mode,
			   off_t offset, off_t length,
			   struct fuse_file_info *info)
{
	const int known = FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE |
			  FALLOC_FL_ZERO_RANGE;
	struct fuse_file *file = file_of(req);
	uint64_t size = file_size(file), start = (uint64_t)offset;
	uint64_t count = (uint64_t)length;

	(void)ino;
	(void)info;
	/* Plain preallocation: no store can promise room. */
	if ((mode & ~known) ||
	    !(mode & (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE))) {
		fuse_reply_err(req, EOPNOTSUPP);
		return;
	}
	if (!(mode & FALLOC_FL_KEEP_SIZE) &&
	    (start > size || count > size - start)) {
		fuse_reply_err(req, ENOSPC);	/* a device does not grow */
		return;
	}
	if (start >= size) {
		fuse_reply_err(req, 0);
		return;
	}
	if (count > size - start)
		count = size - start;
	op_submit(op_begin(req), REQUEST_ZERO, start, count,
		  mode & FALLOC_FL_PUNCH_HOLE ? REQUEST_MAY_TRIM : 0, zero_done);
}

/* ---- lseek ------------------------------------------------------------------------------ */

/* Looks through the extents that came: true when the kernel has its answer. */
static bool seek_step(struct fuse_op *op, int error)
{
	uint64_t at = op->request.offset;
	bool want_hole = op->whence == SEEK_HOLE;
	unsigned int i;

	for (i = 0; !error && i < op->extents.nr; i++) {
		const struct extent *e = &op->extents.extents[i];

		if (!!(e->flags & EXTENT_ZERO) == want_hole)
			break;
		at += e->count;
	}
	if (!error && op->extents.nr == 0)	/* no stage says nothing */
		error = -EIO;
	if (!error && i == op->extents.nr && at < file_size(op->file)) {
		op->request.offset = at;
		return false;
	}
	if (!error && i == op->extents.nr) {	/* there is a hole at the end */
		at = file_size(op->file);
		error = want_hole ? 0 : -ENXIO;
	}
	op_unlist(op);
	if (error)
		fuse_reply_err(op->req, wire_error(error));
	else
		fuse_reply_lseek(op->req, (off_t)at);
	op_end(op);
	return true;
}

static void seek_run(struct fuse_op *op);

/* The completion and the submission each take a turn; who comes second goes
 * on.  So a backend that answers at once makes a loop, not a recursion. */
static void seek_done(struct request *request, void *context, int error)
{
	struct fuse_op *op = context;

	(void)request;
	op->whence = error ? error : op->whence;
	if (atomic_exchange(&op->turn, 1) == 1 &&
	    !seek_step(op, op->whence < 0 ? op->whence : 0))
		seek_run(op);
}

static void seek_run(struct fuse_op *op)
{
	do {
		uint64_t at = op->request.offset;

		op->extents.extents = (struct extent *)
			((char *)op->buffer + FUSE_HEADER_ROOM);
		op->extents.max = SEEK_EXTENTS;
		op->extents.nr = 0;
		op_unlist(op);
		op_fill(op, REQUEST_EXTENTS, at, file_size(op->file) - at, 0,
			seek_done);
		op->request.extents = &op->extents;
		atomic_store(&op->turn, 0);
		op_list(op);
		stage_submit(op->file->export->stage, &op->request);
		if (atomic_exchange(&op->turn, 1) == 0)
			return;		/* seek_done() goes on */
	} while (!seek_step(op, op->whence < 0 ? op->whence : 0));
}

static void on_lseek(fuse_req_t req, fuse_ino_t ino, off_t offset, int whence,
		       struct fuse_file_info *info)
{
	struct fuse_op *op;

	(void)ino;
	(void)info;
	if (whence != SEEK_DATA && whence != SEEK_HOLE) {
		fuse_reply_err(req, EINVAL);
		return;
	}
	if (offset < 0 || (uint64_t)offset >= file_size(file_of(req))) {
		fuse_reply_err(req, ENXIO);
		return;
	}
	op = op_begin(req);
	op->whence = whence;
	op->request.offset = (uint64_t)offset;
	seek_run(op);
}

/* ---- attributes, opening -------------------------------------------------------------- */

static void fill_attributes(struct fuse_file *file, struct stat *st)
{
	mode_t mode = file->options.allow_other ? 0666 : 0600;

	memset(st, 0, sizeof(*st));
	st->st_ino = FUSE_ROOT_ID;
	if (file->export->read_only)
		mode &= 0444;
	st->st_mode = S_IFREG | mode;
	st->st_nlink = 1;
	st->st_uid = file->uid;
	st->st_gid = file->gid;
	st->st_size = (off_t)file_size(file);
	/* Not what is stored: programs that see few blocks take shortcuts. */
	st->st_blocks = (st->st_size + 511) / 512;
	st->st_blksize = (blksize_t)file->export->preferred_block;
	pthread_mutex_lock(&file->lock);
	st->st_mtim = st->st_ctim = st->st_atim = file->modified;
	pthread_mutex_unlock(&file->lock);
}

static void on_getattr(fuse_req_t req, fuse_ino_t ino,
			 struct fuse_file_info *info)
{
	struct stat st;

	(void)ino;
	(void)info;
	fill_attributes(file_of(req), &st);
	fuse_reply_attr(req, &st, ATTRIBUTES_VALID);
}

/* A device keeps its size.  Opening it with O_TRUNC, which arrives here as a
 * truncation to 0 without a descriptor, changes nothing, as with any block
 * device: "dd of=FILE" works. */
static int check_size(struct fuse_file *file, off_t size, bool by_descriptor)
{
	bool tell;

	if ((uint64_t)size == file_size(file))
		return 0;
	if (size != 0 || by_descriptor)
		return EINVAL;
	pthread_mutex_lock(&file->lock);
	tell = !file->truncation_told;
	file->truncation_told = true;
	pthread_mutex_unlock(&file->lock);
	if (tell)
		log_notice("%s was opened to be truncated: it keeps its size and its content; cp of a sparse file onto it needs --sparse=never, or use objmap copy",
			   file->path);
	return 0;
}

static void on_setattr(fuse_req_t req, fuse_ino_t ino, struct stat *wanted,
			 int which, struct fuse_file_info *info)
{
	struct fuse_file *file = file_of(req);
	int error = 0;

	if (which & (FUSE_SET_ATTR_MODE | FUSE_SET_ATTR_UID | FUSE_SET_ATTR_GID))
		error = EPERM;
	else if (which & FUSE_SET_ATTR_SIZE)
		error = check_size(file, wanted->st_size, info != NULL);
	if (error)
		fuse_reply_err(req, error);
	else
		on_getattr(req, ino, info);
}

static bool opened_to_write(const struct fuse_file_info *info)
{
	return (info->flags & O_ACCMODE) != O_RDONLY;
}

static void on_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *info)
{
	struct fuse_file *file = file_of(req);
	bool writer = opened_to_write(info);

	(void)ino;
	if (writer && file->export->read_only) {
		fuse_reply_err(req, EROFS);
		return;
	}
	info->keep_cache = !file->options.follow;
	pthread_mutex_lock(&file->lock);
	file->nr_open++;
	file->nr_writers += writer;
	pthread_mutex_unlock(&file->lock);
	atomic_fetch_add(&file->export->nr_clients, 1);
	fuse_reply_open(req, info);
}

/* The last writer has gone: a good moment to begin saving, as at an NBD
 * client's DISC.  It is no flush: nobody waits for it. */
static void on_release(fuse_req_t req, fuse_ino_t ino,
			 struct fuse_file_info *info)
{
	struct fuse_file *file = file_of(req);
	bool last_writer = false;

	(void)ino;
	pthread_mutex_lock(&file->lock);
	file->nr_open--;
	if (opened_to_write(info))
		last_writer = --file->nr_writers == 0;
	pthread_mutex_unlock(&file->lock);
	atomic_fetch_sub(&file->export->nr_clients, 1);
	fuse_reply_err(req, 0);
	if (last_writer)
		export_start_push(file->export);
}

static void on_statfs(fuse_req_t req, fuse_ino_t ino)
{
	struct fuse_file *file = file_of(req);
	struct statvfs fs = {
		.f_bsize = 4096, .f_frsize = 4096, .f_files = 1,
		.f_namemax = 255,
		.f_blocks = (fsblkcnt_t)((file_size(file) + 4095) / 4096),
	};

	(void)ino;
	fuse_reply_statfs(req, &fs);
}

static void on_init(void *context, struct fuse_conn_info *conn)
{
	(void)context;
	/* Payloads are received into the buffer they are written from. */
	conn->want &= ~(unsigned int)(FUSE_CAP_SPLICE_READ | FUSE_CAP_SPLICE_WRITE |
				      FUSE_CAP_SPLICE_MOVE);
	/* A write that returned is known to us, not to the kernel alone. */
	conn->want &= ~(unsigned int)FUSE_CAP_WRITEBACK_CACHE;
	/* Nobody else writes: a new mtime must not empty the page cache. */
	conn->want &= ~(unsigned int)FUSE_CAP_AUTO_INVAL_DATA;
	/* O_TRUNC comes as a setattr, which can answer with the true size; by
	 * itself the kernel would drop what mappings have not written yet. */
	conn->want &= ~(unsigned int)FUSE_CAP_ATOMIC_O_TRUNC;
	if (conn->capable & FUSE_CAP_ASYNC_DIO)
		conn->want |= FUSE_CAP_ASYNC_DIO;
	conn->max_write = FUSE_MAX_TRANSFER;
	conn->max_read = FUSE_MAX_TRANSFER;
	conn->max_background = 128;
	conn->congestion_threshold = 96;
}

const struct fuse_lowlevel_ops fuse_file_ops = {
	.init	   = on_init,
	.getattr   = on_getattr,
	.setattr   = on_setattr,
	.open	   = on_open,
	.read	   = on_read,
	.write	   = on_write,
	.fsync	   = on_fsync,
	.fallocate = on_fallocate,
	.lseek	   = on_lseek,
	.release   = on_release,
	.statfs	   = on_statfs,
};
