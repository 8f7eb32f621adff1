/* dir.c: a store in a directory, one file per key.
 *
 * A put writes a temporary file, makes it durable, and renames it to its key
 * under the key's lock, where conditions are checked; then the folder's new
 * name is made durable.  So an object is never seen in part, and a conditional
 * put has one winner, whatever process is killed when.
 *
 * Each request is a job of a thread that may wait for the disk: puts and
 * deletes of one set of threads, gets and lists of another. */
#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "backends/store/dir.h"
#include "src/clock.h"
#include "src/errors.h"
#include "src/log.h"
#include "src/random.h"

/* A put waits for the disk twice, for its file and for its folder's new name.
 * Puts that wait at once share the file system's commits; measured on ext4,
 * sixteen are 1.2 to 1.7 times as fast together as eight. */
#define NR_WRITERS 16
#define NR_READERS 4
#define LOG_INTERVAL (10 * CLOCK_SECOND)
#define PUBLISH_TRIES 256	/* somebody else may be removing empty folders */

struct dir_job {
	struct job job;			/* must stay first */
	struct dir *dir;
	struct store_request *request;
};

/* ---- errors, to people ------------------------------------------------------ */

static const char *advice(int error)
{
	switch (-error) {
	case ENOSPC:
		return "; make room there (objmap gc may help), then try again";
	case EDQUOT:
		return "; the quota is used up: raise it or make room, then try again";
	case EROFS:
		return "; mount that file system read-write, or use --read-only";
	case EACCES:
	case EPERM:
		return "; check its owner and mode";
	case EIO:
		return "; check the disk (dmesg)";
	case EBADMSG:
		return "; if it was copied here, copy it again";
	case ELOOP:
	case EXDEV:
		return ": a symbolic link in a store is not followed";
	case ENODEV:
		return "; mount the file system it is on, or move the volume back to "
		       "where it was";
	case ESTALE:
		return "; mount it anew";
	case EMFILE:
	case ENFILE:
		return "; raise the limit of open files (ulimit -n)";
	default:
		return "";
	}
}

static const char *words(int error)
{
	switch (-error) {
	case EBADMSG:
		return "it is no whole object";
	case ENODEV:
		return "its folder is missing";
	case ESTALE:
		return "it was deleted";
	default:
		return strerror(-error);
	}
}

/* Logs that @what of @name (a key, or NULL: the root) failed and what to do,
 * but not the same cause over and over.  Returns @error. */
static int fail(struct dir *dir, int error, const char *what, const char *name)
{
	uint64_t now = clock_now();
	bool again;

	pthread_mutex_lock(&dir->lock);
	again = dir->logged_error == error && now - dir->logged_at < LOG_INTERVAL;
	if (!again) {
		dir->logged_error = error;
		dir->logged_at = now;
	}
	pthread_mutex_unlock(&dir->lock);
	if (!again)
		log_error("%s: cannot %s %s%s%s: %s%s", dir->store.place, what,
			  name && *name == '/' ? "" : dir->path,
			  name && *name != '/' ? "/" : "", name ? name : "",
			  words(error), advice(error));
	return error;
}

/* A folder that could not be made durable: what it shows may be gone after a
 * crash, and the kernel reports that once only.  So nothing is answered from
 * here any more; who opens the store again sees what the disk has. */
static int sync_failed(struct dir *dir, int error, const char *key)
{
	atomic_store(&dir->broken, true);
	log_error("%s: cannot make the folder of %s/%s durable: %s; this store is not "
		  "used any more: check the disk, then mount again", dir->store.place,
		  dir->path, key, strerror(-error));
	return error;
}

static int sync_folder(struct dir *dir, int folder, const char *key)
{
	/* EINVAL: a file system whose folders cannot be fsynced. */
	if (fsync(folder) == 0 || errno == EINVAL)
		return 0;
	return sync_failed(dir, -errno, key);
}

static enum store_outcome failed(struct store_request *request, int error)
{
	request->reply.error = error;
	return STORE_FAILED;
}

/* ---- get ---------------------------------------------------------------------- */

/* No such file; but is the directory itself still there? */
static enum store_outcome absent(struct dir *dir, struct store_request *request)
{
	struct stat st;

	if (fstat(dir->root, &st) == 0 && st.st_nlink > 0)
		return STORE_ABSENT;
	return failed(request, fail(dir, -ESTALE, "use", NULL));
}

static enum store_outcome get_from(struct dir *dir, struct store_request *request, int fd)
{
	struct store_reply *reply = &request->reply;
	struct object_head head;
	uint64_t count = request->count;
	int error;

	error = object_read_head(fd, &head, &reply->metadata);
	if (error)
		return failed(request, fail(dir, error, "read", request->key));
	object_tag(head.id, reply->tag);
	reply->size = head.count;
	reply->last_modified = head.last_modified;
	if (request->condition == STORE_IF_MATCH && strcmp(reply->tag, request->tag) != 0)
		return STORE_REFUSED;
	if (request->whole && head.count > count)
		return failed(request, -EFBIG);
	if (request->whole)
		count = head.count;
	if (request->offset > head.count || count > head.count - request->offset)
		return failed(request, -ERANGE);
	error = object_read(fd, request, request->offset, count);
	if (error)
		return failed(request, fail(dir, error, "read", request->key));
	reply->count = count;
	return STORE_DONE;
}

/* Opens the file of a key from the top of the file system: a clone's parent. */
static int open_from_top(const char *key)
{
	int top = open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC), fd, folder;
	const char *name;

	if (top < 0)
		return -errno;
	fd = beneath_open(top, key, O_RDONLY | O_NONBLOCK);
	if (fd == -ENOENT) {
		/* Moved away, or not mounted?  Then nothing is surely absent. */
		folder = parent_open(top, key, NULL, &name);
		if (folder < 0)
			fd = -ENODEV;
		else
			close(folder);
	}
	close(top);
	return fd;
}

static enum store_outcome get_from_top(struct dir *dir, struct store_request *request)
{
	int fd = open_from_top(request->key + 1);
	enum store_outcome outcome;

	if (fd == -ENOENT)
		return STORE_ABSENT;
	if (fd < 0)
		return failed(request, fail(dir, fd, "open", request->key));
	outcome = get_from(dir, request, fd);
	close(fd);
	return outcome;
}

static enum store_outcome dir_get(struct dir *dir, struct store_request *request)
{
	/* O_NONBLOCK: a FIFO there must not hold the thread. */
	int fd = beneath_open(dir->root, request->key, O_RDONLY | O_NONBLOCK);
	enum store_outcome outcome;

	if (fd == -ENOENT)
		return absent(dir, request);
	if (fd < 0)
		return failed(request, fail(dir, fd, "open", request->key));
	outcome = get_from(dir, request, fd);
	close(fd);
	return outcome;
}

/* ---- put ---------------------------------------------------------------------- */

/* Whether the condition holds; the key's lock is held.  1, 0 or -errno. */
static int condition_holds(struct store_request *request, int folder, const char *name)
{
	char tag[STORE_TAG_MAX];
	struct object_head head;
	struct stat st;
	int fd, error;

	if (request->condition == STORE_ALWAYS)
		return 1;
	if (fstatat(folder, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
		return errno != ENOENT ? -errno : request->condition == STORE_IF_ABSENT;
	if (request->condition == STORE_IF_ABSENT)
		return 0;
	fd = openat(folder, name, O_RDONLY | O_NONBLOCK | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	error = object_read_head(fd, &head, NULL);
	close(fd);
	if (error)
		return error;
	object_tag(head.id, tag);
	return strcmp(tag, request->tag) == 0;
}

/* Gives the durable file @temporary its key.  1: done; 0: refused; -errno. */
static int publish(struct dir *dir, struct store_request *request,
		   const char *temporary, int folder, const char *name)
{
	int lock = key_lock(dir, request->key), holds;

	if (lock < 0)
		return lock;
	holds = condition_holds(request, folder, name);
	if (holds == 1 && renameat(dir->own, temporary, folder, name) < 0)
		holds = -errno;
	close(lock);
	return holds;
}

static enum store_outcome publish_durably(struct dir *dir, struct store_request *request,
					  const char *temporary)
{
	unsigned int tries = 0;
	const char *name;
	bool made = false;
	int folder, published, error;

	do {
		published = folder = parent_open(dir->root, request->key, &made, &name);
		if (folder < 0)
			continue;
		published = publish(dir, request, temporary, folder, name);
		if (published != 1)
			close(folder);
	} while (published == -ENOENT && ++tries < PUBLISH_TRIES);
	if (published != 1)
		unlinkat(dir->own, temporary, 0);
	if (published == 0)
		return STORE_REFUSED;
	if (published < 0)
		return failed(request, fail(dir, published, "write", request->key));
	error = sync_folder(dir, folder, request->key);
	close(folder);
	/* A folder that somebody else just made is durable, too, before what is
	 * in it: file systems log in order. */
	if (!error && made) {
		error = folders_sync(dir->root, request->key);
		if (error)
			sync_failed(dir, error, request->key);
	}
	if (!error)
		return STORE_DONE;
	request->reply.error = error;
	return request->condition == STORE_ALWAYS ? STORE_FAILED : STORE_UNKNOWN;
}

/* Writes the object to a new file in DIR_OWN, durably. */
static int write_temporary(struct dir *dir, struct store_request *request,
			   uint64_t id, char name[TEMPORARY_NAME])
{
	int error = temporaries_open(dir), fd;

	if (error)
		return fail(dir, error, "make", DIR_OWN);
	fd = temporary_create(dir, name);
	if (fd < 0)
		return fail(dir, fd, "make a file in", DIR_OWN);
	error = object_write(fd, request, id);
	if (!error && fsync(fd) < 0)
		error = -errno;
	close(fd);
	if (!error)
		return 0;
	unlinkat(dir->own, name, 0);
	return fail(dir, error, "write", request->key);
}

static enum store_outcome dir_put(struct dir *dir, struct store_request *request)
{
	char temporary[TEMPORARY_NAME];
	enum store_outcome outcome;
	uint64_t id = random_id();
	int error = write_temporary(dir, request, id, temporary);

	if (error)
		return failed(request, error);
	outcome = publish_durably(dir, request, temporary);
	if (outcome == STORE_DONE)
		object_tag(id, request->reply.tag);
	return outcome;
}

/* ---- delete -------------------------------------------------------------------- */

static int delete_in(struct dir *dir, int folder, const char *key, const char *name)
{
	int lock = key_lock(dir, key), error = 0;

	/* Without room it goes unlocked, and makes some. */
	if (lock < 0 && !error_is_no_room(lock))
		return lock;
	if (unlinkat(folder, name, 0) < 0 && errno != ENOENT)
		error = -errno;
	if (lock >= 0)
		close(lock);
	return error;
}

static size_t folder_length(const char *key)
{
	const char *slash = strrchr(key, '/');

	return slash ? (size_t)(slash - key) + 1 : 0;
}

static bool is_same_folder(const char *a, const char *b)
{
	size_t length = folder_length(a);

	return length == folder_length(b) && memcmp(a, b, length) == 0;
}

/* Makes durable what was deleted beside @key, and closes @folder if it is one. */
static int leave_folder(struct dir *dir, int folder, const char *key)
{
	int error;

	if (folder < 0)
		return 0;
	error = sync_folder(dir, folder, key);
	close(folder);
	return error;
}

/* Keys most often come sorted: a folder is left when the next key lies in
 * another. */
static int delete_keys(struct dir *dir, const char *const *keys, unsigned int nr)
{
	int folder = -1, error = 0, left;
	const char *name;
	unsigned int i;

	for (i = 0; i < nr && !error; i++) {
		if (i == 0 || !is_same_folder(keys[i - 1], keys[i])) {
			error = i == 0 ? 0 : leave_folder(dir, folder, keys[i - 1]);
			folder = parent_open(dir->root, keys[i], NULL, &name);
			if (folder < 0 && folder != -ENOENT)
				return fail(dir, folder, "open the folder of", keys[i]);
		}
		if (folder < 0 || error)
			continue;
		error = delete_in(dir, folder, keys[i], keys[i] + folder_length(keys[i]));
		if (error)
			fail(dir, error, "delete", keys[i]);
	}
	left = leave_folder(dir, folder, i ? keys[i - 1] : "");
	return error ? error : left;
}

static enum store_outcome dir_delete(struct dir *dir, struct store_request *request)
{
	int error = locks_open(dir);

	if (error)
		return failed(request, fail(dir, error, "make", DIR_OWN));
	error = delete_keys(dir, request->keys, request->nr_keys);
	return error ? failed(request, error) : STORE_DONE;
}

/* ---- requests as jobs ------------------------------------------------------------ */

static bool touches_reserved(const struct store_request *request)
{
	unsigned int i;

	if (request->op == STORE_GET || request->op == STORE_PUT)
		return key_is_reserved(request->key);
	for (i = 0; request->op == STORE_DELETE && i < request->nr_keys; i++)
		if (key_is_reserved(request->keys[i]))
			return true;
	return false;
}

static enum store_outcome dir_do(struct dir *dir, struct store_request *request)
{
	int error;

	if (store_request_is_cancelled(request))
		return failed(request, -ECANCELED);
	if (atomic_load(&dir->broken))
		return failed(request, -EIO);
	if (touches_reserved(request))
		return failed(request, -EINVAL);
	switch (request->op) {
	case STORE_GET:
		return *request->key == '/' ? get_from_top(dir, request)
					    : dir_get(dir, request);
	case STORE_PUT:
		return dir_put(dir, request);
	case STORE_DELETE:
		return dir_delete(dir, request);
	case STORE_LIST:
		error = dir_list(dir, request);
		if (error)
			return failed(request, fail(dir, error, "list", request->key));
		return STORE_DONE;
	case STORE_LIST_UPLOADS:	/* a file appears whole: there are none */
	case STORE_ABORT_UPLOAD:
	case STORE_PROBE:
	case NR_STORE_OPS:
		break;
	}
	return STORE_DONE;
}

static void dir_run(struct job *job)
{
	struct dir_job *dir_job = (struct dir_job *)job;
	struct store_request *request = dir_job->request;
	enum store_outcome outcome = dir_do(dir_job->dir, request);

	free(dir_job);
	request->reply.date = (uint64_t)time(NULL);
	store_complete(request, outcome);
}

static void dir_submit(struct store *store, struct store_request *request)
{
	struct dir *dir = (struct dir *)store;
	struct dir_job *job = malloc(sizeof(*job));

	if (!job) {
		store_complete(request, failed(request, -ENOMEM));
		return;
	}
	job->job.run = dir_run;
	job->job.priority = request->priority;
	job->dir = dir;
	job->request = request;
	if (request->op == STORE_PUT || request->op == STORE_DELETE)
		workers_submit(dir->writers, &job->job);
	else
		workers_submit(dir->readers, &job->job);
}

/* ---- opening and closing ----------------------------------------------------------- */

static void dir_free(struct dir *dir)
{
	if (dir->writers)
		workers_close(dir->writers);
	if (dir->readers)
		workers_close(dir->readers);
	temporaries_close(dir);
	if (dir->root >= 0)
		close(dir->root);
	pthread_mutex_destroy(&dir->lock);
	free(dir->path);
	store_deinit(&dir->store);
	free(dir);
}

static void dir_close(struct store *store)
{
	dir_free((struct dir *)store);
}

static const struct store_ops dir_ops = {
	.name	= "dir",
	.submit = dir_submit,
	.forget = store_keeps_nothing,
	.close	= dir_close,
};

/* Makes the last component of @path, durably. */
static int make_root(const char *place, const char *path)
{
	char *copy = strdup(path);
	int parent, error = 0;

	if (!copy)
		return -ENOMEM;
	if (mkdir(path, 0777) < 0) {
		error = errno == EEXIST ? 0 : -errno;
	} else {
		parent = open(dirname(copy), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		if (parent < 0 || (fsync(parent) < 0 && errno != EINVAL))
			error = -errno;
		if (parent >= 0)
			close(parent);
	}
	free(copy);
	if (error)
		log_error("%s: cannot make the directory %s: %s%s", place, path,
			  strerror(-error), error == -ENOENT ?
			  "; make the one above it first" : advice(error));
	return error;
}

static int open_root(struct dir *dir, const struct store_dir_options *options)
{
	const char *place = dir->store.place, *foreign;
	int error;

	if (options->create) {
		error = make_root(place, dir->path);
		if (error)
			return error;
	}
	dir->root = open(dir->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (dir->root < 0) {
		error = -errno;
		log_error("%s: cannot open the directory %s: %s%s", place, dir->path,
			  strerror(-error), error == -ENOTDIR ?
			  "; a volume is a directory (for an image use file:PATH)" :
			  error == -ENOENT ?
			  "; check the path (objmap create makes a volume)" :
			  advice(error));
		return error;
	}
	foreign = options->network_ok ? NULL : foreign_file_system(dir->root);
	if (!foreign)
		return 0;
	log_error("%s: %s is on a network file system (%s), whose locks may not keep two "
		  "writers apart; ?network=yes behind the place uses it all the same",
		  place, dir->path, foreign);
	return -EOPNOTSUPP;
}

int store_dir_open(const char *place, const char *path,
		   const struct store_dir_options *options, struct store **store)
{
	struct dir *dir = calloc(1, sizeof(*dir));
	int error;

	if (!dir)
		return -ENOMEM;
	if (store_init(&dir->store, &dir_ops, place) < 0) {
		free(dir);
		return -ENOMEM;
	}
	pthread_mutex_init(&dir->lock, NULL);
	dir->root = dir->own = dir->own_lock = -1;
	dir->path = strdup(path);
	error = dir->path ? open_root(dir, options) : -ENOMEM;
	if (!error)
		error = workers_open("dir-read", NR_READERS, &dir->readers);
	if (!error)
		error = workers_open("dir-write", NR_WRITERS, &dir->writers);
	if (error) {
		dir_free(dir);
		return error;
	}
	*store = &dir->store;
	return 0;
}
