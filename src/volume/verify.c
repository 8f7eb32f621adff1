/* verify.c: reads everything a volume refers to and compares every checksum.
 *
 * Two rounds.  The first reads maps: head, the list of snapshots, their bodies,
 * all nodes; and counts the chunks.  The second reads the chunks, some at once,
 * each in a buffer of its own.  What several snapshots share is looked at once,
 * as far as the set of what was seen has room.  Every fault is told, and the
 * rest is looked at all the same. */
#include <errno.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "src/crc32c.h"
#include "src/log.h"
#include "src/volume/keyset.h"
#include "src/volume/snapshot.h"
#include "src/volume/walk.h"

#define JOBS_DEFAULT  8u
#define JOBS_MAX      64u
#define BUFFERS_BYTES (256u << 20)	/* of all jobs, unless one chunk is larger */
#define SEEN_MAX      (16u << 20)	/* objects: 170 MiB at most */

struct check {				/* of one chunk */
	struct store_request request;
	struct iovec iov;
	char key[VOLUME_KEY_MAX];
	struct ref ref;
	struct verify *verify;
	struct check *next;		/* idle */
	bool again;			/* the second look at it */
	bool is_bad;			/* the first look found something */
};

struct verify {
	struct store *store;
	const struct verify_options *options;
	struct verify_result *result;
	const struct head *image;	/* the head, or body, being walked */
	bool second_round;
	struct keyset seen;
	struct check *checks;
	unsigned int nr_checks;
	uint64_t expected;		/* chunks, as counted in the first round */
	int error;			/* what stops it: no fault of the volume */

	pthread_mutex_t lock;
	pthread_cond_t wake;		/* one is idle again */
	struct check *idle;
	unsigned int nr_idle;
	/* ... and, once chunks are read, result and the calls to options. */
};

__attribute__((format(printf, 3, 0)))
static void tell(struct verify *verify, const char *key, const char *format,
		 va_list arguments)
{
	char what[512];

	vsnprintf(what, sizeof(what), format, arguments);
	pthread_mutex_lock(&verify->lock);
	verify->result->faults++;
	if (verify->options->fault)
		verify->options->fault(verify->options->context, key, what);
	pthread_mutex_unlock(&verify->lock);
}

static void fault(struct verify *verify, const char *key, const char *format, ...)
	__attribute__((format(printf, 3, 4)));

static void fault(struct verify *verify, const char *key, const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	tell(verify, key, format, arguments);
	va_end(arguments);
}

static void chunk_fault(struct check *check, const char *format, ...)
	__attribute__((format(printf, 2, 3)));

/* Told when a second look finds it, too: a bad transfer is no damage. */
static void chunk_fault(struct check *check, const char *format, ...)
{
	va_list arguments;

	check->is_bad = true;
	if (!check->again)
		return;
	va_start(arguments, format);
	tell(check->verify, check->key, format, arguments);
	va_end(arguments);
}

/* ---- one chunk ------------------------------------------------------------------ */

static bool lies_in_origin(const struct check *check)
{
	return check->key[0] == '/';
}

/* The metadata of a chunk: which volume's it is, and its frame table. */
static bool check_metadata(struct check *check, struct frame_table *table)
{
	const struct store_metadata *metadata = &check->request.reply.metadata;
	const struct head *image = check->verify->image;
	char text[FRAMES_TEXT_MAX], own[37];

	uuid_format(image->uuid, own);
	if (store_metadata_find(metadata, METADATA_VOLUME, text, sizeof(text)) < 0)
		chunk_fault(check, "has no metadata " METADATA_VOLUME);
	else if (!lies_in_origin(check) && strcmp(text, own) != 0)
		chunk_fault(check, "belongs to volume %.36s, not %s", text,
		      own);
	else if (store_metadata_find(metadata, METADATA_FRAMES, text, sizeof(text)) < 0)
		chunk_fault(check, "has no metadata " METADATA_FRAMES);
	else if (frame_table_parse(text, image->chunk_size / image->frame_size, table))
		chunk_fault(check, "has a frame table that is none");
	else if (frame_table_crc(table) != check->ref.crc)
		chunk_fault(check, "has a frame table of CRC32C %08x, its ref says %08x",
		      frame_table_crc(table), check->ref.crc);
	else
		return true;
	return false;
}

static void check_content(struct check *check)
{
	const struct head *image = check->verify->image;
	const uint8_t *frame = check->iov.iov_base;
	struct frame_table table;
	uint32_t i, crc;

	if (check->request.reply.count != image->chunk_size) {
		chunk_fault(check, "is %llu bytes long, not %u",
		      (unsigned long long)check->request.reply.count,
		      image->chunk_size);
		return;
	}
	if (!check_metadata(check, &table))
		return;
	for (i = 0; i < table.nr_frames; i++, frame += image->frame_size) {
		crc = crc32c(0, frame, image->frame_size);
		if (table.frames[i].stored != image->frame_size)
			chunk_fault(check, "frame %u has a stored length "
			      "of %u, not %u", i, table.frames[i].stored,
			      image->frame_size);
		else if (crc != table.frames[i].crc)
			chunk_fault(check, "frame %u (bytes %llu to %llu) "
			      "has CRC32C %08x, its table says %08x", i,
			      (unsigned long long)i * image->frame_size,
			      (unsigned long long)(i + 1) * image->frame_size, crc,
			      table.frames[i].crc);
	}
}

static void check_done(struct store_request *request, enum store_outcome outcome);

static void check_submit(struct check *check)
{
	check->is_bad = false;
	check->request = (struct store_request){
		.op = STORE_GET, .cause = CAUSE_GC, .priority = PRIORITY_PREFETCH,
		.key = check->key, .whole = true, .count = check->iov.iov_len,
		.iov = &check->iov, .nr_iov = 1,
		.done = check_done, .context = check,
	};
	store_submit(check->verify->store, &check->request);
}

static void check_done(struct store_request *request, enum store_outcome outcome)
{
	struct check *check = request->context;
	struct verify *verify = check->verify;

	if (outcome == STORE_DONE)
		check_content(check);
	else if (outcome == STORE_ABSENT)
		fault(verify, check->key, "missing");
	else if (request->reply.error == -EFBIG)
		chunk_fault(check, "longer than %u bytes", verify->image->chunk_size);
	else
		fault(verify, check->key, "cannot be read: %s",
		      store_reply_reason(&request->reply));
	if (check->is_bad && !check->again) {
		check->again = true;
		check_submit(check);
		return;
	}
	pthread_mutex_lock(&verify->lock);
	verify->result->chunks++;
	verify->result->bytes += request->reply.count;
	if (verify->options->progress)
		verify->options->progress(verify->options->context,
					  verify->result->chunks, verify->expected);
	check->next = verify->idle;
	verify->idle = check;
	verify->nr_idle++;
	pthread_cond_signal(&verify->wake);
	pthread_mutex_unlock(&verify->lock);
}

static void check_start(struct verify *verify, uint32_t chunk, const struct ref *ref)
{
	struct check *check;

	pthread_mutex_lock(&verify->lock);
	while (!verify->idle)
		pthread_cond_wait(&verify->wake, &verify->lock);
	check = verify->idle;
	verify->idle = check->next;
	verify->nr_idle--;
	pthread_mutex_unlock(&verify->lock);

	check->ref = *ref;
	check->again = false;
	head_chunk_key(verify->image, chunk, ref, check->key);
	check_submit(check);
}

/* All that was started is over: the image may change. */
static void checks_wait(struct verify *verify)
{
	pthread_mutex_lock(&verify->lock);
	while (verify->nr_idle < verify->nr_checks)
		pthread_cond_wait(&verify->wake, &verify->lock);
	pthread_mutex_unlock(&verify->lock);
}

static void checks_free(struct verify *verify)
{
	while (verify->nr_checks)
		free(verify->checks[--verify->nr_checks].iov.iov_base);
	free(verify->checks);
}

static int checks_new(struct verify *verify, uint32_t chunk_size)
{
	unsigned int jobs = verify->options->jobs ? verify->options->jobs : JOBS_DEFAULT;
	struct check *check;

	if (jobs > JOBS_MAX)
		jobs = JOBS_MAX;
	if (jobs > BUFFERS_BYTES / chunk_size)
		jobs = BUFFERS_BYTES / chunk_size;
	verify->checks = calloc(jobs, sizeof(*verify->checks));
	while (verify->checks && verify->nr_checks < jobs) {
		check = &verify->checks[verify->nr_checks];
		check->verify = verify;
		check->iov.iov_base = malloc(chunk_size);
		check->iov.iov_len = chunk_size;
		if (!check->iov.iov_base)
			break;
		check->next = verify->idle;
		verify->idle = check;
		verify->nr_idle++;
		verify->nr_checks++;
	}
	return verify->nr_checks ? 0 : -ENOMEM;
}

/* ---- one image: head, or a snapshot's body ----------------------------------------- */

/* Whether @key was looked at before; also true, with verify->error set, when that
 * cannot be told for want of memory. */
static bool was_seen(struct verify *verify, const struct key *key)
{
	int added = keyset_add(&verify->seen, key, NULL);

	if (added == -ENOMEM)
		verify->error = added;
	return added == 0 || added == -ENOMEM;
}

static int visit_node(void *context, unsigned int level, uint32_t node,
		      const struct ref *ref, bool whole)
{
	struct key key = { KEY_KIND_NODE, level, node, ref->epoch, ref->writer };
	struct verify *verify = context;

	if (!verify->second_round && !was_seen(verify, &key))
		verify->result->nodes++;
	return verify->error;
}

static int visit_chunk(void *context, uint32_t chunk, const struct ref *ref)
{
	struct key key = { KEY_KIND_CHUNK, 0, chunk, ref->epoch, ref->writer };
	struct verify *verify = context;

	if (was_seen(verify, &key))
		return verify->error;
	if (verify->second_round)
		check_start(verify, chunk, ref);
	else
		verify->expected++;
	return 0;
}

/* Told once, in the first round, though several images may have the node. */
static int lost_node(void *context, const char *name, int error, const char *what)
{
	struct verify *verify = context;

	if (!verify->second_round)
		fault(verify, name, "%s", what);
	return 0;
}

static int verify_image(struct verify *verify, const struct head *image)
{
	struct map_walk walk = { .store = verify->store, .head = image,
				 .cause = CAUSE_GC, .node = visit_node,
				 .chunk = visit_chunk, .lost = lost_node,
				 .context = verify };
	int error;

	verify->image = image;
	error = map_walk(&walk);
	checks_wait(verify);
	return error ? error : verify->error;
}

/* ---- all images -------------------------------------------------------------------- */

static int verify_snapshot(struct verify *verify, const struct head *head,
			   const struct snapshot *entry)
{
	struct key key = { KEY_KIND_SNAPSHOT_BODY, 0, 0, entry->body_epoch,
			   entry->body_nonce };
	char name[VOLUME_KEY_MAX];
	struct head *body;
	int error;

	if (was_seen(verify, &key))
		return verify->error;	/* a clone's entry shares the snapshot's body */
	body = malloc(sizeof(*body));
	if (!body)
		return -ENOMEM;
	error = snapshot_body_read(verify->store, head, entry, body);
	if (!error) {
		error = verify_image(verify, body);
	} else if (error == -ENOENT || error == -EBADMSG) {
		key_snapshot_body(name, entry->body_epoch, entry->body_nonce);
		if (!verify->second_round)
			fault(verify, name, "the body of snapshot %s is %s", entry->name,
			      error == -ENOENT ? "missing" : "damaged");
		error = 0;
	}
	free(body);
	return error;
}

static int verify_round(struct verify *verify, const struct head *head,
			const struct snapshot_list *list)
{
	const char *wanted = verify->options->snapshot;
	unsigned int i;
	int error = 0;

	keyset_clear(&verify->seen);
	if (!wanted)
		error = verify_image(verify, head);
	for (i = 0; i < list->nr && !error; i++)
		if (!wanted || (list->snapshots[i].kind == SNAPSHOT_NAMED &&
				strcmp(list->snapshots[i].name, wanted) == 0))
			error = verify_snapshot(verify, head, &list->snapshots[i]);
	return error;
}

static int verify_both_rounds(struct verify *verify, const struct head *head,
			      const struct snapshot_list *list)
{
	int error = verify_round(verify, head, list);

	if (error || verify->options->metadata_only)
		return error;
	error = checks_new(verify, head->chunk_size);
	if (error)
		return error;
	verify->second_round = true;
	return verify_round(verify, head, list);
}

/* Head and the list of snapshots; what is damaged there is told as a fault. */
static int read_images(struct verify *verify, struct stored_head *stored,
		       struct snapshot_list *list)
{
	char name[VOLUME_KEY_MAX];
	int error = head_read(verify->store, stored);

	*list = (struct snapshot_list){ 0 };
	if (error == -EBADMSG)
		fault(verify, KEY_HEAD, "damaged");
	if (error == -ENOENT)
		log_error("%s: the volume was there a moment ago and is gone: its head "
			  "is missing", verify->store->place);
	if (error)
		return error;
	error = snapshots_read(verify->store, &stored->head, list);
	if (error == -ENOENT || error == -EBADMSG) {
		key_snapshot_list(name, stored->head.snapshot_list_epoch,
				  stored->head.snapshot_list_nonce);
		fault(verify, name, "the list of snapshots is %s",
		      error == -ENOENT ? "missing" : "damaged");
		error = 0;
	}
	if (!error && verify->options->snapshot &&
	    !snapshot_find(list, verify->options->snapshot)) {
		log_error("%s: there is no snapshot %s any more", verify->store->place,
			  verify->options->snapshot);
		error = -ENOENT;
	}
	return error;
}

int volume_verify(struct store *store, const struct verify_options *options,
		  struct verify_result *result)
{
	struct verify verify = { .store = store, .options = options,
				 .result = result,
				 .lock = PTHREAD_MUTEX_INITIALIZER,
				 .wake = PTHREAD_COND_INITIALIZER };
	struct stored_head *stored = malloc(sizeof(*stored));
	struct snapshot_list list = { 0 };
	int error = stored ? 0 : -ENOMEM;

	*result = (struct verify_result){ 0 };
	keyset_init(&verify.seen, SEEN_MAX);
	if (!error)
		error = read_images(&verify, stored, &list);
	if (!error)
		error = verify_both_rounds(&verify, &stored->head, &list);
	checks_free(&verify);
	keyset_free(&verify.seen);
	snapshot_list_free(&list);
	free(stored);
	pthread_cond_destroy(&verify.wake);
	pthread_mutex_destroy(&verify.lock);
	return error ? error : result->faults ? -EBADMSG : 0;
}
