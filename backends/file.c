/* file.c: a plain file or a block device: file:PATH.
 *
 * Threads of its own do what may wait for the disk; a request with NOWAIT is
 * answered from the page cache in its slot, where the kernel can.
 *
 * Linux reports a failed write-back to one fsync only, and forgets the data.
 * So a failed sync is remembered here, and every later flush fails too: what
 * was lost stays lost until the file is opened again.
 *
 * Who writes has a lock on the file, which objmap and QEMU respect: two writers
 * would spoil what is in it.  Who reads has none: the kernel shows him every
 * write, as it does to other programs. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/fs.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "src/durable.h"
#include "src/log.h"
#include "src/place.h"
#include "src/units.h"
#include "src/workers.h"

#define NR_THREADS	8
#define PIECES_MAX	64		/* iovecs of one system call */
#define ZEROS_SIZE	65536u
#define LOCK_TRIES	100		/* one second in all */
#define LOCK_PAUSE_US	10000

struct file {
	struct stage stage;		/* must stay first */
	char *path;			/* as given, for messages */
	int fd;
	bool is_device;			/* a block device */
	uint32_t sector;		/* fallocate's alignment; files: 1 */
	struct workers *workers;
	atomic_bool no_punch, no_zero_range;	/* the file system has not */
	atomic_int logged;		/* the latest errno that was logged */
	pthread_mutex_t lock;		/* guards the next two */
	bool syncing;			/* some thread is in file_sync() */
	struct request *unsynced;	/* waits for the next sync */
	int sync_error;			/* the first failed sync; stays.  Of the thread
					 * that syncs */
};

struct file_job {
	struct job job;			/* must stay first */
	struct file *file;
	struct request *request;
	uint64_t done;			/* bytes that were written without waiting */
};

static const char zeros[ZEROS_SIZE];

static struct file *file_of(struct stage *stage)
{
	return (struct file *)stage;
}

/* Logs a failure unless it is just like the one before: a full disk says so
 * once, not once per write. */
static int file_failed(struct file *file, const char *what, uint64_t offset,
		       int error)
{
	if (atomic_exchange(&file->logged, error) != error)
		log_error("file:%s: %s at %" PRIu64 ": %s", file->path, what,
			  offset, strerror(-error));
	return error;
}

/* ---- read and write ----------------------------------------------------------- */

/* Describes what of the request's buffers follows byte @done, in at most
 * PIECES_MAX entries. */
static int pieces_after(const struct request *request, uint64_t done,
			struct iovec pieces[PIECES_MAX])
{
	int nr = 0;

	for (unsigned int i = 0; i < request->nr_iov && nr < PIECES_MAX; i++) {
		const struct iovec *iov = &request->iov[i];

		if (done >= iov->iov_len) {
			done -= iov->iov_len;
			continue;
		}
		pieces[nr].iov_base = (char *)iov->iov_base + done;
		pieces[nr++].iov_len = iov->iov_len - done;
		done = 0;
	}
	return nr;
}

/* One system call's worth from byte @done of @request on.  Returns bytes or
 * -errno. */
static ssize_t transfer(struct file *file, const struct request *request,
			uint64_t done, int flags)
{
	struct iovec pieces[PIECES_MAX];
	int nr = pieces_after(request, done, pieces);
	off_t offset = (off_t)(request->offset + done);
	ssize_t n;

	do {
		n = request->op == REQUEST_READ ?
			preadv2(file->fd, pieces, nr, offset, flags) :
			pwritev2(file->fd, pieces, nr, offset, flags);
	} while (n < 0 && errno == EINTR);
	return n < 0 ? -errno : n;
}

/* All of @request from byte @done on. */
static int transfer_rest(struct file *file, const struct request *request,
			 uint64_t done)
{
	while (done < request->count) {
		ssize_t n = transfer(file, request, done, 0);

		if (n == 0)	/* somebody has cut the file */
			n = request->op == REQUEST_READ ? -EIO : -ENOSPC;
		if (n < 0)
			return file_failed(file, request_op_name(request->op),
					   request->offset + done, (int)n);
		done += (uint64_t)n;
	}
	return 0;
}

/* ---- zero and trim ---------------------------------------------------------------- */

/* Returns 0, -EOPNOTSUPP (and remembers it in *@missing) or another -errno. */
static int file_allocate(struct file *file, int mode, uint64_t offset,
			 uint64_t count, atomic_bool *missing)
{
	int error;

	if (atomic_load_explicit(missing, memory_order_relaxed))
		return -EOPNOTSUPP;
	do
		error = fallocate(file->fd, mode | FALLOC_FL_KEEP_SIZE,
				  (off_t)offset, (off_t)count) < 0 ? -errno : 0;
	while (error == -EINTR);
	if (error == -EOPNOTSUPP || error == -ENOSYS || error == -ENODEV) {
		atomic_store_explicit(missing, true, memory_order_relaxed);
		return -EOPNOTSUPP;
	}
	return error;
}

static int write_zeros(struct file *file, uint64_t offset, uint64_t count)
{
	struct iovec pieces[16];	/* 1 MiB a call */

	while (count) {
		uint64_t planned = 0;
		int nr = 0;
		ssize_t n;

		for (; nr < 16 && planned < count; nr++) {
			uint64_t left = count - planned;

			pieces[nr].iov_base = (void *)zeros;
			pieces[nr].iov_len = left < ZEROS_SIZE ? left : ZEROS_SIZE;
			planned += pieces[nr].iov_len;
		}
		n = pwritev(file->fd, pieces, nr, (off_t)offset);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return file_failed(file, "writing zeros", offset,
					   n < 0 ? -errno : -ENOSPC);
		offset += (uint64_t)n;
		count -= (uint64_t)n;
	}
	return 0;
}

/* The part of [*offset, *end) that is aligned to sectors; perhaps empty. */
static void whole_sectors(const struct file *file, uint64_t *offset, uint64_t *end)
{
	uint64_t mask = file->sector - 1;

	*offset = (*offset + mask) & ~mask;
	*end &= ~mask;
	if (*end < *offset)
		*end = *offset;
}

static int file_zero(struct file *file, const struct request *request)
{
	uint64_t start = request->offset, end = start + request->count;
	uint64_t from = start, to = end;
	int error = -EOPNOTSUPP;

	whole_sectors(file, &from, &to);
	if (from < to) {
		if (request->flags & REQUEST_MAY_TRIM)
			error = file_allocate(file, FALLOC_FL_PUNCH_HOLE, from,
					      to - from, &file->no_punch);
		if (error == -EOPNOTSUPP)
			error = file_allocate(file, FALLOC_FL_ZERO_RANGE, from,
					      to - from, &file->no_zero_range);
	}
	if (error == -EOPNOTSUPP) {
		if (request->flags & REQUEST_FAST_ZERO)
			return -EOPNOTSUPP;
		return write_zeros(file, start, end - start);
	}
	if (error)
		return file_failed(file, "zeroing", from, error);
	error = write_zeros(file, start, from - start);
	return error ? error : write_zeros(file, to, end - to);
}

static int file_trim(struct file *file, const struct request *request)
{
	uint64_t from = request->offset, to = from + request->count;
	int error = 0;

	whole_sectors(file, &from, &to);
	if (from < to)
		error = file_allocate(file, FALLOC_FL_PUNCH_HOLE, from,
				      to - from, &file->no_punch);
	if (error && error != -EOPNOTSUPP)
		return file_failed(file, "trimming", from, error);
	return 0;
}

/* ---- flush, extents, prefetch ------------------------------------------------------- */

/* Returns 0 or the error of the first sync that failed. */
static int sync_once(struct file *file)
{
	int error;

	if (file->sync_error)
		return file->sync_error;
	do
		error = fdatasync(file->fd) < 0 ? -errno : 0;
	while (error == -EINTR);
	if (error) {
		file->sync_error = error;
		log_error("file:%s: fdatasync: %s; what was written since the last flush may be lost: check the disk, then mount again",
			  file->path, strerror(-error));
	}
	return error;
}

/* Completes @request after a sync that began after this call.  One thread
 * syncs at a time: the kernel tells only one of two of an error that concerns
 * both, and whoever comes during a sync shares the next. */
static void file_sync(struct file *file, struct request *request)
{
	struct request *list;

	pthread_mutex_lock(&file->lock);
	request->next = file->unsynced;
	file->unsynced = request;
	if (file->syncing) {
		pthread_mutex_unlock(&file->lock);
		return;
	}
	file->syncing = true;
	while ((list = file->unsynced)) {
		int error;

		file->unsynced = NULL;
		pthread_mutex_unlock(&file->lock);
		error = sync_once(file);
		while (list) {
			request = list;
			list = request->next;
			request_complete(request, error);
		}
		pthread_mutex_lock(&file->lock);
	}
	file->syncing = false;
	pthread_mutex_unlock(&file->lock);
}

/* Where there is no data from @at on: whether that is a hole of the file, or somebody
 * has cut it there, which a read has to tell; where that ends. */
static bool is_hole_at_end(const struct file *file, uint64_t at, uint64_t end, uint64_t *next)
{
	struct stat st;
	uint64_t size = fstat(file->fd, &st) == 0 ? (uint64_t)st.st_size : 0;

	*next = at < size && size < end ? size : end;
	return at < size;
}

static int file_extents(struct file *file, const struct request *request)
{
	uint64_t at = request->offset, end = at + request->count, next;

	while (at < end) {
		unsigned int flags = EXTENT_HOLE | EXTENT_ZERO | EXTENT_LOCAL;
		off_t found = file->is_device ? (off_t)at :
			      lseek(file->fd, (off_t)at, SEEK_DATA);

		if (found < 0 && errno == ENXIO) {	/* no data follows */
			if (!is_hole_at_end(file, at, end, &next))
				flags = EXTENT_LOCAL;
		} else if (found > (off_t)at) {
			next = (uint64_t)found;
		} else {
			flags = EXTENT_LOCAL;
			found = file->is_device || found < 0 ? -1 :
				lseek(file->fd, (off_t)at, SEEK_HOLE);
			next = found > (off_t)at ? (uint64_t)found : end;
		}
		if (next > end)
			next = end;
		if (!extent_list_add(request->extents, next - at, flags))
			break;
		at = next;
	}
	return 0;
}

/* ---- requests ------------------------------------------------------------------------ */

static int file_perform(struct file *file, const struct request *request, uint64_t done)
{
	switch (request->op) {
	case REQUEST_READ:
	case REQUEST_WRITE:
		return transfer_rest(file, request, done);
	case REQUEST_ZERO:
		return file_zero(file, request);
	case REQUEST_TRIM:
		return file_trim(file, request);
	case REQUEST_EXTENTS:
		return file_extents(file, request);
	case REQUEST_PREFETCH:
		posix_fadvise(file->fd, (off_t)request->offset,
			      (off_t)request->count, POSIX_FADV_WILLNEED);
		return 0;
	default:			/* a flush is its sync */
		return 0;
	}
}

static void file_run(struct job *job)
{
	struct file_job *file_job = (struct file_job *)job;
	struct request *request = file_job->request;
	struct file *file = file_job->file;
	uint64_t done = file_job->done;
	int error;

	free(file_job);
	error = request_is_cancelled(request) ? -ECANCELED :
		file_perform(file, request, done);
	if (!error && (request->op == REQUEST_FLUSH ||
		       request->flags & REQUEST_FUA))
		file_sync(file, request);
	else
		request_complete(request, error);
}

/* Does what is left of it, on a thread that may wait. */
static void submit_rest(struct file *file, struct request *request, uint64_t done)
{
	struct file_job *job = malloc(sizeof(*job));

	if (!job) {
		request_complete(request, -ENOMEM);
		return;
	}
	job->job.run = file_run;
	job->job.priority = request->priority;
	job->file = file;
	job->request = request;
	job->done = done;
	workers_submit(file->workers, &job->job);
}

static void file_submit(struct stage *stage, struct request *request)
{
	if (request->flags & REQUEST_NOWAIT)
		request_complete(request, -EAGAIN);
	else
		submit_rest(file_of(stage), request, 0);
}

/* What can be had without waiting.  A write of which only a part went at once is
 * finished all the same: -EAGAIN promises that nothing was done. */
static void file_nowait(struct file *file, struct request *request)
{
	ssize_t n = request->flags & REQUEST_FUA ? -EAGAIN :
		    transfer(file, request, 0, RWF_NOWAIT);

	if (n == (ssize_t)request->count)
		request_complete(request, 0);
	else if (n <= 0 || request->op == REQUEST_READ)
		request_complete(request, -EAGAIN);
	else
		submit_rest(file, request, (uint64_t)n);
}

static void file_read_or_write(struct stage *stage, struct request *request)
{
	if (request->flags & REQUEST_NOWAIT)
		file_nowait(file_of(stage), request);
	else
		file_submit(stage, request);
}

static void file_free(struct file *file)
{
	if (file->workers)
		workers_close(file->workers);
	if (file->fd >= 0)
		close(file->fd);
	pthread_mutex_destroy(&file->lock);
	free(file->path);
	free(file);
}

static void file_close(struct stage *stage)
{
	file_free(file_of(stage));
}

static const struct stage_ops file_ops = {
	.name	  = "file",
	.read	  = file_read_or_write,
	.write	  = file_read_or_write,
	.zero	  = file_submit,
	.trim	  = file_submit,
	.flush	  = file_submit,
	.extents  = file_submit,
	.prefetch = file_submit,
	.close	  = file_close,
};

/* ---- open -------------------------------------------------------------------------------- */

/* Tries for a while: a daemon that was killed a moment ago holds its lock until
 * its last thread has ended. */
int file_lock(int fd, const char *path)
{
	/* The descriptor's: another one of this very process is refused, too. */
	struct flock lock = { .l_type = F_WRLCK, .l_whence = SEEK_SET };

	for (int i = 0; i < LOCK_TRIES; i++) {
		if (fcntl(fd, F_OFD_SETLK, &lock) == 0)
			return 0;
		if (errno != EAGAIN && errno != EACCES) {
			log_warning("file:%s: cannot be locked (%s): see to it that nobody else writes it",
				    path, strerror(errno));
			return 0;
		}
		usleep(LOCK_PAUSE_US);
	}
	log_error("file:%s: somebody else has it open for writing, another objmap or QEMU: end that first (objmap status), or mount it with --read-only",
		  path);
	return -EBUSY;
}

static int file_open_fd(struct file *file, const struct device_options *options)
{
	const char *hint = "";
	int error;

	/* O_NONBLOCK: opening a FIFO must not wait; files do not mind. */
	file->fd = open(file->path, (options->read_only ? O_RDONLY : O_RDWR) |
			(options->create ? O_CREAT : 0) | O_CLOEXEC | O_NONBLOCK,
			0666);
	if (file->fd >= 0)
		return options->read_only ? 0 : file_lock(file->fd, file->path);
	error = -errno;
	if (error == -EISDIR)
		hint = "; a folder is no device, dir:PATH is a volume in one";
	else if (error == -ENOENT && !options->create)
		hint = "; check the path";
	else if ((error == -EACCES || error == -EROFS) && !options->read_only)
		hint = "; --read-only needs no right to write";
	log_error("file:%s: %s%s", file->path, strerror(-error), hint);
	return error;
}

/* Finds what the file is and how large, and makes it as large as asked. */
static int file_measure(struct file *file, const struct device_options *options,
			struct geometry *geometry)
{
	struct stat st;
	int sector = 1, error = 0;
	uint64_t size;

	if (fstat(file->fd, &st) < 0)
		return file_failed(file, "fstat", 0, -errno);
	if (S_ISBLK(st.st_mode)) {
		file->is_device = true;
		if (ioctl(file->fd, BLKGETSIZE64, &size) < 0 ||
		    ioctl(file->fd, BLKSSZGET, &sector) < 0)
			return file_failed(file, "asking for its size", 0, -errno);
	} else if (S_ISREG(st.st_mode)) {
		size = (uint64_t)st.st_size;
		if (options->empty && size && ftruncate(file->fd, 0) < 0)
			return file_failed(file, "emptying it", 0, -errno);
		if (options->empty)
			size = 0;
	} else {
		log_error("file:%s: neither a file nor a block device", file->path);
		return -EINVAL;
	}
	file->sector = (uint32_t)sector;
	if (options->size > size && file->is_device)
		error = -ENOSPC;
	else if (options->size > size &&
		 ftruncate(file->fd, (off_t)options->size) < 0)
		error = -errno;
	if (error) {
		char text[UNITS_TEXT];

		log_error("file:%s: cannot grow to %s: %s", file->path,
			  size_format(options->size, text), strerror(-error));
		return error;
	}
	if (options->size > size)
		size = options->size;
	if (size == 0) {
		log_error("file:%s: empty, and a device has at least one byte; make it longer with truncate -s SIZE",
			  file->path);
		return -EINVAL;
	}
	geometry->size = size;
	return 0;
}

int file_open(const char *path, const struct device_options *options,
	      struct stage **stage)
{
	struct geometry geometry = {
		.read_unit = 1, .write_unit = 1, .preferred = 4096,
		.max_request = 1u << 30,
		.flags = options->read_only ? STAGE_READ_ONLY : 0,
	};
	struct file *file = calloc(1, sizeof(*file));
	int error;

	if (!file)
		return -ENOMEM;
	file->fd = -1;
	pthread_mutex_init(&file->lock, NULL);
	file->path = strdup(path);
	error = file->path ? file_open_fd(file, options) : -ENOMEM;
	if (!error)
		error = file_measure(file, options, &geometry);
	if (!error && options->create) {
		error = durable_name(path);
		if (error)
			file_failed(file, "making its name durable", 0, error);
	}
	if (!error)
		error = workers_open("file", NR_THREADS, &file->workers);
	if (error) {
		file_free(file);
		return error;
	}
	stage_init(&file->stage, &file_ops, NULL, &geometry);
	*stage = &file->stage;
	return 0;
}
