/* session.c: the life of a mounted file: prepared, mounted, served by threads,
 * unmounted.
 *
 * It is unmounted while its threads still serve, because the kernel then
 * writes back what mappings have changed.  The threads end when the kernel
 * says that the mount has gone, whoever took it away. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "src/frontend/fuse/mountpoint.h"
#include "src/frontend/fuse/session.h"
#include "src/log.h"

#define MAX_SPARE 32	/* ops, each with its buffer, kept for the next requests */
#define GONE_MS	  2000	/* the kernel ends a session with its last mount at once */
#define BUSY_TRIES 10
#define BUSY_MS	   50

/* ---- ops and their buffers --------------------------------------------------------- */

/* NULL: no memory. */
static struct fuse_op *op_take(struct fuse_file *file)
{
	struct fuse_op *op;

	pthread_mutex_lock(&file->lock);
	op = file->spare;
	if (op) {
		file->spare = op->next;
		file->nr_spare--;
	}
	pthread_mutex_unlock(&file->lock);
	if (!op)
		op = calloc(1, sizeof(*op));
	if (op)
		op->file = file;
	return op;
}

static void op_free(struct fuse_op *op)
{
	free(op->buffer);
	free(op);
}

void fuse_op_give(struct fuse_op *op)
{
	struct fuse_file *file = op->file;
	bool keep;

	pthread_mutex_lock(&file->lock);
	keep = file->nr_spare < MAX_SPARE;
	if (keep) {
		op->next = file->spare;
		file->spare = op;
		file->nr_spare++;
	}
	pthread_mutex_unlock(&file->lock);
	if (!keep)
		op_free(op);
}

/* ---- serving ------------------------------------------------------------------------- */

/* Receives one request into an op's buffer and hands it to ops.c, which keeps
 * the op when it needs it longer.  False: the mount has gone. */
static bool serve_one(struct fuse_file *file)
{
	struct fuse_op *op = op_take(file);
	struct fuse_buf buf = { 0 };
	int count, state;

	if (!op) {
		struct timespec pause = { 0, 10000000 };

		nanosleep(&pause, NULL);	/* the request waits in the kernel */
		return true;
	}
	buf.mem = op->buffer;
	fuse_received = op;	/* serve_threads_end() frees it when cancelled */
	pthread_setcancelstate(PTHREAD_CANCEL_ENABLE, &state);
	count = fuse_session_receive_buf(file->session, &buf);
	pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &state);
	op->buffer = buf.mem;
	if (count > 0)
		fuse_session_process_buf(file->session, &buf);
	if (fuse_received)
		fuse_op_give(fuse_received);
	fuse_received = NULL;
	return count > 0 || count == -EINTR || count == -EAGAIN;
}

static void serve_end(void *context)
{
	struct fuse_file *file = context;

	if (fuse_received)
		fuse_op_give(fuse_received);
	fuse_received = NULL;
	if (atomic_fetch_sub(&file->nr_serving, 1) == 1 &&
	    !atomic_load(&file->stopping) && file->options.ended)
		file->options.ended(file->options.context);
}

static void *serve(void *context)
{
	struct fuse_file *file = context;
	int state;

	pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &state);
	pthread_cleanup_push(serve_end, file);
	while (!fuse_session_exited(file->session) && serve_one(file))
		;
	pthread_cleanup_pop(1);
	return NULL;
}

static int start_threads(struct fuse_file *file)
{
	long cpus = sysconf(_SC_NPROCESSORS_ONLN);
	unsigned int wanted = file->options.threads;
	int error = 0;

	if (!wanted)
		wanted = cpus < 2 ? 2 : cpus > 8 ? 8 : (unsigned int)cpus;
	if (wanted > FUSE_MAX_THREADS)
		wanted = FUSE_MAX_THREADS;
	atomic_store(&file->nr_serving, wanted);
	while (file->nr_threads < wanted) {
		error = pthread_create(&file->threads[file->nr_threads], NULL,
				       serve, file);
		if (error)
			break;
		pthread_setname_np(file->threads[file->nr_threads++], "fuse");
	}
	if (error && file->nr_threads) {
		/* Fewer will do. */
		atomic_fetch_sub(&file->nr_serving, wanted - file->nr_threads);
		error = 0;
	}
	return -error;
}

/* ---- before and after ------------------------------------------------------------------ */

/* Whether what is at the path can be mounted on; makes it when it is missing. */
static int prepare_file(struct fuse_file *file)
{
	const char *path = file->path;
	struct stat st;
	int fd;

	if (lstat(path, &st) < 0 && errno == ENOENT) {
		fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
		if (fd < 0) {
			int error = -errno;

			log_error("%s: cannot be made: %s", path, strerror(errno));
			return error;
		}
		close(fd);
		file->created = true;
		return 0;
	}
	if (lstat(path, &st) < 0) {
		int error = -errno;

		log_error("%s: %s", path, strerror(errno));
		return error;
	}
	if (S_ISDIR(st.st_mode)) {
		log_error("%s is a folder, and a volume is one file: mount on a file in it, such as %s/disk",
			  path, path);
		return -EISDIR;
	}
	if (!S_ISREG(st.st_mode)) {
		log_error("%s is no regular file%s", path, S_ISLNK(st.st_mode) ?
			  " but a symbolic link: name what it points to" : "");
		return -ENXIO;
	}
	if (st.st_size && !file->options.over) {
		log_error("%s is not empty: name another file, or hide its content while mounted with --over",
			  path);
		return -EEXIST;
	}
	return 0;
}

static int prepare_mountpoint(struct fuse_file *file)
{
	int nr = mountpoint_clean(file->path);

	if (nr < 0)
		return nr;
	if (nr > 0)
		log_notice("%s: took away a mount whose daemon had gone", file->path);
	switch (mountpoint_look(file->path)) {
	case MOUNTPOINT_FREE:
		return 0;
	case MOUNTPOINT_FOREIGN:
		log_error("%s: something else is mounted there", file->path);
		return -EBUSY;
	default:
		log_error("%s is mounted already: objmap umount %s",
			  file->path, file->path);
		return -EBUSY;
	}
}

__attribute__((format(printf, 2, 0)))
static void log_libfuse(enum fuse_log_level level, const char *format,
			va_list args)
{
	char line[512];
	size_t length;

	vsnprintf(line, sizeof(line), format, args);
	for (length = strlen(line); length && line[length - 1] == '\n'; )
		line[--length] = 0;
	if (level <= FUSE_LOG_WARNING && length)
		log_warning("%s", line);
	else if (length)
		log_debug("%s", line);
}

int fuse_file_prepare(const char *where, const struct fuse_options *options,
		      struct fuse_file **result)
{
	struct fuse_file *file = calloc(1, sizeof(*file));
	int error = -ENOMEM;

	if (!file)
		return -ENOMEM;
	pthread_mutex_init(&file->lock, NULL);
	pthread_cond_init(&file->idle, NULL);
	file->options = *options;
	file->path = strdup(where);
	file->place = strdup(options->place ? options->place : "objmap");
	file->uid = geteuid();
	file->gid = getegid();
	clock_gettime(CLOCK_REALTIME, &file->modified);
	if (file->path && file->place)
		error = mountpoint_can_fuse(file->path, file->place);
	if (!error)
		error = prepare_mountpoint(file);
	if (!error)
		error = prepare_file(file);
	if (error) {
		fuse_file_close(file);
		return error;
	}
	fuse_set_log_func(log_libfuse);
	*result = file;
	return 0;
}

static struct fuse_session *new_session(struct fuse_file *file)
{
	struct fuse_args args = FUSE_ARGS_INIT(0, NULL);
	struct fuse_session *session = NULL;
	char *options = NULL, *name = NULL;

	if (asprintf(&name, "fsname=%s", file->place) < 0)
		name = NULL;
	if (asprintf(&options, "subtype=objmap,default_permissions,max_read=%u%s%s",
		     FUSE_MAX_TRANSFER, file->export->read_only ? ",ro" : "",
		     file->options.allow_other ? ",allow_other" : "") < 0)
		options = NULL;
	/* A place may have commas in it: escaped, they are not libfuse's. */
	if (name && options && fuse_opt_add_arg(&args, "objmap") == 0 &&
	    fuse_opt_add_arg(&args, "-o") == 0 &&
	    fuse_opt_add_opt_escaped(&options, name) == 0 &&
	    fuse_opt_add_arg(&args, options) == 0)
		session = fuse_session_new(&args, &fuse_file_ops,
					   sizeof(fuse_file_ops), file);
	fuse_opt_free_args(&args);
	free(options);
	free(name);
	return session;
}

int fuse_file_start(struct fuse_file *file, struct export *export)
{
	int error = -ENOMEM;

	file->export = export;
	file->session = new_session(file);
	if (!file->session)
		goto out;
	error = -EPERM;
	if (fuse_session_mount(file->session, file->path) < 0)
		goto out;
	error = start_threads(file);
	if (error) {
		mountpoint_unmount(file->path, true);
		goto out;
	}
	return 0;
out:
	log_error("%s: cannot be mounted as a file: %s; without FUSE: objmap mount '%s' 'nbd+unix:///?socket=%s'",
		  file->path, strerror(-error), file->place, file->path);
	if (file->session)
		fuse_session_destroy(file->session);
	file->session = NULL;
	return error;
}

/* Takes the file from its path under the eyes of its users.  What they wrote
 * through mappings is written back first, while it still can be. */
static int detach(struct fuse_file *file, enum fuse_stop how)
{
	int fd = how == FUSE_STOP_SAVE ?
		 open(file->path, O_RDONLY | O_CLOEXEC) : -1;
	int error;

	error = mountpoint_unmount(file->path, true);
	if (fd >= 0) {
		if (!error && fsync(fd) < 0)
			log_error("%s: fsync before it is taken from its users: %s",
				  file->path, strerror(errno));
		close(fd);
	}
	return error;
}

static void serve_threads_end(struct fuse_file *file, bool cancel)
{
	for (unsigned int i = 0; i < file->nr_threads; i++)
		if (cancel)
			pthread_cancel(file->threads[i]);
	for (unsigned int i = 0; i < file->nr_threads; i++)
		pthread_join(file->threads[i], NULL);
	file->nr_threads = 0;
	pthread_mutex_lock(&file->lock);
	while (file->in_flight)
		pthread_cond_wait(&file->idle, &file->lock);
	pthread_mutex_unlock(&file->lock);
}

/* Of a detached mount libfuse would unmount whatever is at the path now, unless
 * polling its descriptor says POLLERR, as it does once a mount has gone.  So
 * does a pipe that nobody reads. */
static bool cut_off(struct fuse_session *session)
{
	int ends[2];
	bool cut;

	if (pipe2(ends, O_CLOEXEC) < 0)
		return false;
	close(ends[0]);
	cut = dup3(ends[1], fuse_session_fd(session), O_CLOEXEC) >= 0;
	close(ends[1]);
	return cut;
}

/* Whether the kernel ends the session, now that it is unmounted here.  A mount
 * namespace that has a copy of the mount would keep it for good. */
static bool session_ends(struct fuse_file *file)
{
	struct pollfd device = { .fd = fuse_session_fd(file->session) };

	while (poll(&device, 1, GONE_MS) < 0 && errno == EINTR)
		;
	if (device.revents & POLLERR)
		return true;
	log_warning("%s: another mount namespace has it still; its users there lose it",
		    file->path);
	return false;
}

/* Whoever looks at the path at this very moment (a status, an lsof) makes it busy,
 * too: that is over soon. */
static int unmount_unless_used(const char *path)
{
	int error = mountpoint_unmount(path, false);

	for (int tries = 0; error == -EBUSY && tries < BUSY_TRIES; tries++) {
		usleep(BUSY_MS * 1000);
		error = mountpoint_unmount(path, false);
	}
	return error;
}

/* Takes the file from its path.  *@detached: the kernel will not end the
 * session by itself, or the path is not ours any more. */
static int unmount(struct fuse_file *file, enum fuse_stop how, bool *detached)
{
	int error;

	/* umount(2) takes what is on top, and that is somebody else's. */
	if (mountpoint_is_foreign(file->path)) {
		*detached = how == FUSE_STOP_DROP;
		if (*detached)
			return 0;
		log_error("%s: something else is mounted over it: unmount that first",
			  file->path);
		return -EBUSY;
	}
	error = unmount_unless_used(file->path);
	if (error == -EBUSY && how != FUSE_STOP_ASK) {
		error = detach(file, how);
		*detached = !error;
	} else if (error == 0) {
		*detached = !session_ends(file);
	}
	/* Somebody else was faster, or the file is only in others' namespaces. */
	if (error == -EINVAL || error == -ENOENT) {
		*detached = true;
		error = 0;
	}
	return error;
}

int fuse_file_stop(struct fuse_file *file, enum fuse_stop how)
{
	bool detached = false;
	int error = 0;

	if (!file->session)
		return 0;
	atomic_store(&file->stopping, true);
	if (atomic_load(&file->nr_serving))
		error = unmount(file, how, &detached);
	if (error) {
		atomic_store(&file->stopping, false);
		/* Somebody may have unmounted it meanwhile, untold. */
		if (!atomic_load(&file->nr_serving) && file->options.ended)
			file->options.ended(file->options.context);
		return error;
	}
	serve_threads_end(file, detached);
	/* Only closes the descriptor, and frees what libfuse keeps. */
	if (!detached || cut_off(file->session))
		fuse_session_unmount(file->session);
	fuse_session_destroy(file->session);
	file->session = NULL;
	return 0;
}

void fuse_file_close(struct fuse_file *file)
{
	struct fuse_op *op;

	while ((op = file->spare)) {
		file->spare = op->next;
		op_free(op);
	}
	if (file->created && unlink(file->path) < 0 && errno != ENOENT)
		log_warning("%s: cannot be removed: %s", file->path,
			    strerror(errno));
	pthread_cond_destroy(&file->idle);
	pthread_mutex_destroy(&file->lock);
	free(file->path);
	free(file->place);
	free(file);
}

/* ---- news for the kernel, and of it ----------------------------------------------------- */

void fuse_file_resized(struct fuse_file *file)
{
	/* A negative offset: attributes only. */
	fuse_lowlevel_notify_inval_inode(file->session, FUSE_ROOT_ID, -1, 0);
}

void fuse_file_changed(struct fuse_file *file)
{
	fuse_lowlevel_notify_inval_inode(file->session, FUSE_ROOT_ID, 0, 0);
}

json_t *fuse_file_status(struct fuse_file *file)
{
	json_int_t nr_open, nr_writers, in_flight;

	pthread_mutex_lock(&file->lock);
	nr_open = file->nr_open;
	nr_writers = file->nr_writers;
	in_flight = file->in_flight;
	pthread_mutex_unlock(&file->lock);
	return json_pack("{s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I}",
			 "path", file->path, "open", nr_open,
			 "writers", nr_writers, "in_flight", in_flight,
			 "reads", (json_int_t)atomic_load(&file->reads),
			 "writes", (json_int_t)atomic_load(&file->writes),
			 "read_bytes", (json_int_t)atomic_load(&file->read_bytes),
			 "written_bytes", (json_int_t)atomic_load(&file->written_bytes),
			 "flushes", (json_int_t)atomic_load(&file->flushes),
			 "waited", (json_int_t)atomic_load(&file->waited));
}
