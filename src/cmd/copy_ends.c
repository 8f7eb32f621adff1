/* copy_ends.c: opens what is copied from, and makes or opens what is copied to.
 *
 * A volume that is copied into is marked incomplete first, so that a cut copy
 * can never be mounted for a whole one, and complete last. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "src/cmd/copy_ends.h"
#include "src/cmd/open.h"
#include "src/durable.h"
#include "src/log.h"
#include "src/place_nbd.h"
#include "src/units.h"
#include "src/where.h"

static bool is_plain_file(const struct copy_end *end)
{
	return !end->stream && strcmp(end->place.scheme, "file") == 0;
}

static void stream_end(struct copy_end *end, int fd)
{
	end->stream = true;
	end->fd = dup(fd);
	end->size = COPY_SIZE_UNKNOWN;
}

static int open_export(const struct options *options, struct copy_end *end,
		       struct export_options *how)
{
	int error;

	open_options(options, &how->store);
	error = export_open(&end->place, "", how, &end->export);
	if (error)
		return error == -EINVAL ? -EIO : error;
	end->stage = end->export->stage;
	end->size = stage_size(end->stage);
	return 0;
}

/* With what makes any byte range of any length fit it. */
static int open_device_stages(struct copy_end *end, const struct device_options *device)
{
	struct stage *backend;
	int error = place_open_device(&end->place, device, &backend);

	if (!error)
		error = export_stages(backend, &end->stage);
	return error;
}

int source_open(const struct options *options, const char *text,
		struct copy_end *source)
{
	struct export_options how = { .read_only = true };
	struct device_options device;
	int error;

	memset(source, 0, sizeof(*source));
	source->text = text;
	source->fd = -1;
	if (strcmp(text, "-") == 0) {
		stream_end(source, STDIN_FILENO);
		return 0;
	}
	error = place_parse(text, PLACE_FILE, &source->place);
	if (!error)
		error = open_check(options, &source->place);
	if (error)
		return error;
	if (source->place.is_volume)
		return open_export(options, source, &how);
	open_device_options(options, &device);
	device.read_only = true;
	error = open_device_stages(source, &device);
	if (!error)
		source->size = stage_size(source->stage);
	return error;
}

/* ---- a plain file or device -------------------------------------------------------- */

static int tell_exists(const struct options *options, const char *text)
{
	log_error("%s: exists; --overwrite writes into it", text);
	return -EEXIST;
}

static int tell_no_room(const char *text, uint64_t has, uint64_t wanted)
{
	char a[UNITS_TEXT], b[UNITS_TEXT];

	log_error("%s: has room for %s, the source has %s", text,
		  size_format(has, a), size_format(wanted, b));
	return -ENOSPC;
}

static bool is_same_file(const struct copy_end *source, const struct stat *st)
{
	struct stat other;
	int error;

	if (source->stream)
		error = fstat(source->fd, &other);
	else if (is_plain_file(source))
		error = stat(source->place.path, &other);
	else
		return false;
	return error == 0 && other.st_dev == st->st_dev &&
	       other.st_ino == st->st_ino &&
	       (S_ISREG(st->st_mode) || S_ISBLK(st->st_mode));
}

static int tell_errno(const struct copy_end *end)
{
	int error = -errno;

	log_error("%s: %s", end->text, strerror(-error));
	return error;
}

/* What of the file may be used, and how. */
static int judge_file(const struct options *options, const struct copy_end *source,
		      struct copy_end *target)
{
	bool overwrite = option_flag(options, "overwrite");
	bool resume = option_flag(options, "resume");
	struct stat st;

	target->blank = target->plain_file = true;
	if (stat(target->place.path, &st) != 0)
		return errno == ENOENT ? 0 : tell_errno(target);
	if (S_ISDIR(st.st_mode)) {
		log_error("%s: is a directory; write %s/NAME", target->text,
			  target->text);
		return -EISDIR;
	}
	if (is_same_file(source, &st)) {
		log_error("%s and %s are the same file", source->text, target->text);
		return -EINVAL;
	}
	target->plain_file = S_ISREG(st.st_mode);
	/* Only a regular file can be emptied; a device keeps what it has. */
	target->blank = target->plain_file && !resume;
	target->compare = resume;
	if (!overwrite && !resume && !(S_ISREG(st.st_mode) && st.st_size == 0))
		return tell_exists(options, target->text);
	return 0;
}

static int open_file_stream(const struct options *options, struct copy_end *target)
{
	int error;

	if (option_flag(options, "verify") || target->compare) {
		log_error("--verify and --resume of standard input into a file need its --size");
		return -EINVAL;
	}
	target->fd = open(target->place.path, O_WRONLY | O_CREAT | O_CLOEXEC, 0666);
	target->size = COPY_SIZE_UNKNOWN;
	if (target->fd < 0)
		return tell_errno(target);
	if (!target->plain_file)
		return 0;
	error = file_lock(target->fd, target->place.path);
	if (!error && target->blank && ftruncate(target->fd, 0) != 0)
		error = tell_errno(target);
	return error;
}

static int open_file(const struct options *options, const struct copy_end *source,
		     struct copy_end *target)
{
	struct device_options device = { .create = true, .size = source->size };
	int error = judge_file(options, source, target);

	if (error)
		return error;
	if (device.size == COPY_SIZE_UNKNOWN)
		device.size = option_size(options, "size");
	if (device.size == 0)
		return open_file_stream(options, target);
	device.empty = target->blank;
	if (!target->plain_file)
		device.size = 0;	/* a device has the size it has */
	return open_device_stages(target, &device);
}

static int open_device(const struct options *options, const struct copy_end *source,
		       struct copy_end *target)
{
	struct device_options device;
	int error;

	open_device_options(options, &device);
	if (is_plain_file(target))
		error = open_file(options, source, target);
	else if (place_is_nbd(&target->place) && !option_flag(options, "overwrite") &&
		 !option_flag(options, "resume"))
		return tell_exists(options, target->text);
	else
		error = open_device_stages(target, &device);
	if (error || !target->stage)
		return error;
	target->size = stage_size(target->stage);
	if (target->stage->geometry.flags & STAGE_READ_ONLY) {
		log_error("%s: cannot be written to", target->text);
		return -EROFS;
	}
	if (source->size != COPY_SIZE_UNKNOWN && target->size < source->size)
		return tell_no_room(target->text, target->size, source->size);
	return 0;
}

/* ---- a volume ---------------------------------------------------------------------------- */

static int check_not_same(const struct options *options,
			  const struct copy_end *source,
			  const struct copy_end *target)
{
	struct store_open_options how;
	char *from, *to;
	bool same;

	open_options(options, &how);
	if (source->stream || !source->place.is_volume ||
	    !place_same_store(&source->place, &target->place, &how.s3))
		return 0;
	from = place_prefix(&source->place);
	to = place_prefix(&target->place);
	same = from && to && strcmp(from, to) == 0;
	free(from);
	free(to);
	if (!same)
		return 0;
	if (source->place.snapshot)
		log_error("%s and %s are the same volume; objmap rollback makes it what it was",
			  source->text, target->text);
	else
		log_error("%s and %s are the same volume", source->text, target->text);
	return -EINVAL;
}

static int make_volume(const struct options *options, const struct copy_end *source,
		       struct copy_end *target, struct store *store)
{
	struct volume_create_options create = {
		.size = source->size,
		.chunk_size = (uint32_t)option_size(options, "chunk-size"),
		.incomplete = true,
		.exclusive = option_flag(options, "exclusive"),
	};
	uint64_t size = option_size(options, "size");

	if (size && source->size != COPY_SIZE_UNKNOWN && size < source->size)
		return tell_no_room("--size", size, source->size);
	if (size)
		create.size = size;
	if (create.size == COPY_SIZE_UNKNOWN) {
		log_error("%s: how large? standard input does not say; --size does",
			  target->text);
		return -EINVAL;
	}
	target->blank = true;
	return volume_create(store, &create);
}

/* A volume is there: may it be written, and is it to be marked first? */
static int judge_volume(const struct options *options, const struct copy_end *source,
			struct copy_end *target, const struct head *head,
			bool *mark)
{
	bool overwrite = option_flag(options, "overwrite");
	bool resume = option_flag(options, "resume");

	*mark = head->state == HEAD_LIVE;
	target->compare = resume;
	if (head->state == HEAD_INCOMPLETE && !overwrite && !resume) {
		log_error("%s: is incomplete, an earlier copy was cut; --resume goes on with it, --overwrite begins again",
			  target->text);
		return -EUCLEAN;
	}
	if (head->state == HEAD_LIVE && !overwrite) {
		if (!resume)
			return tell_exists(options, target->text);
		log_error("%s: is complete, there is nothing to resume; --overwrite writes over it",
			  target->text);
		return -EEXIST;
	}
	if (option_given(options, "size")) {
		log_error("%s: exists with its own size; --size is for a new volume, objmap resize for this one",
			  target->text);
		return -EINVAL;
	}
	if (source->size != COPY_SIZE_UNKNOWN && head->size < source->size)
		return tell_no_room(target->text, head->size, source->size);
	return 0;
}

static int prepare_volume(const struct options *options,
			  const struct copy_end *source, struct copy_end *target,
			  const struct claim_options *claim)
{
	struct store *store;
	struct head head;
	bool mark = false;
	int error;

	error = open_store(options, &target->place, true, &store);
	if (error)
		return error == -EINVAL ? -EIO : error;
	error = volume_read_head(store, &head, NULL);
	if (error == -ENOENT || (!error && head.state == HEAD_DELETED))
		error = make_volume(options, source, target, store);
	else if (!error)
		error = judge_volume(options, source, target, &head, &mark);
	if (!error && mark)
		error = volume_set_incomplete(store, claim);
	store_close(store);
	return error;
}

static int open_target_volume(const struct options *options,
			      const struct copy_end *source,
			      struct copy_end *target)
{
	struct export_options how = { .volume = {
		.accept_incomplete = true, .grace = GRACE_DEFAULT,
		.pending_limit = COPY_VOLUME_MEMORY } };
	struct claim_options claim;
	int error;

	error = check_not_same(options, source, target);
	if (!error)
		error = open_claim(options, &claim);
	if (!error && !option_given(options, "size") && source->stream &&
	    !option_flag(options, "overwrite") && !option_flag(options, "resume")) {
		log_error("%s: how large? standard input does not say; --size does",
			  target->text);
		error = -EINVAL;
	}
	if (error)
		return error;
	target->state_dir = state_dir(option_text(options, "state"));
	if (!target->state_dir)
		return -EIO;
	error = prepare_volume(options, source, target, &claim);
	if (error)
		return error;
	how.volume.take_over = claim.take_over;
	how.volume.abandon_journal = claim.abandon_journal;
	how.volume.exclusive = claim.exclusive;
	how.volume.runtime_dir = claim.runtime_dir;
	how.volume.state_dir = target->state_dir;
	return open_export(options, target, &how);
}

int target_open(const struct options *options, const char *text,
		const struct copy_end *source, struct copy_end *target)
{
	int error;

	memset(target, 0, sizeof(*target));
	target->text = text;
	target->fd = -1;
	if (strcmp(text, "-") == 0) {
		stream_end(target, STDOUT_FILENO);
		if (!option_flag(options, "verify"))
			return 0;
		log_error("--verify cannot read standard output back");
		return -EINVAL;
	}
	error = place_parse(text, PLACE_FILE, &target->place);
	if (!error)
		error = open_check(options, &target->place);
	if (error)
		return error;
	if (target->place.snapshot) {
		log_error("%s: a snapshot cannot be written to", text);
		return -EINVAL;
	}
	return target->place.is_volume ? open_target_volume(options, source, target)
				       : open_device(options, source, target);
}

/* ---- the end ----------------------------------------------------------------------------------- */

static int finish_file(struct copy_end *target, uint64_t bytes)
{
	int fd = target->fd >= 0 ? dup(target->fd)
				 : open(target->place.path, O_WRONLY | O_CLOEXEC);
	int error = 0;

	if (fd < 0 || (target->plain_file && ftruncate(fd, (off_t)bytes) != 0) ||
	    fsync(fd) != 0)
		error = -errno;
	if (fd >= 0)
		close(fd);
	if (!error)
		error = durable_name(target->place.path);
	if (error)
		log_error("%s: cannot be made durable: %s", target->text,
			  strerror(-error));
	return error;
}

/* Some file systems tell only now that there was no room. */
static int finish_stream(struct copy_end *target)
{
	int error = close(target->fd) != 0 ? tell_errno(target) : 0;

	target->fd = -1;
	return error;
}

int target_finish(struct copy_end *target, uint64_t bytes)
{
	if (target->export)
		return volume_set_complete(target->export->volume);
	if (target->stream)
		return finish_stream(target);
	if (is_plain_file(target))
		return finish_file(target, bytes);
	return 0;
}

void copy_end_close(struct copy_end *end)
{
	if (end->export) {
		export_drain(end->export);
		export_close(end->export);
	} else if (end->stage) {
		stage_close(end->stage);
	}
	if (end->fd >= 0)
		close(end->fd);
	free(end->state_dir);
	place_free(&end->place);
	memset(end, 0, sizeof(*end));
	end->fd = -1;
}
