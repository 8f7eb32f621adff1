/* store.h: the contract of a store: keys to bytes.
 *
 * Stages speak bytes and offsets, stores speak keys; src/volume is the only
 * bridge between them.  A store is asynchronous like a stage: a request is
 * submitted with its priority, deadline and cancellation, and completes
 * exactly once, on any thread, with no lock held, perhaps before
 * store_submit() returns.  The synchronous forms at the end wait for it.
 *
 * What a store promises
 *   - put: when it is done the object is durable, whole, with its metadata,
 *     and seen by every later get, by anybody.  An object is never seen in part.
 *   - get: exactly the bytes asked for, or an outcome that is not STORE_DONE.
 *     What is short, cut, of another range or of another tag is never done.
 *   - A conditional put answers done, refused or unknown.  Unknown means that
 *     it may have been applied, or may yet be; the volume settles it.
 *   - absent is said only where the store is sure that there is no such key:
 *     never for a missing bucket, a refused permission or a time-out.
 */
#ifndef OBJMAP_STORE_H
#define OBJMAP_STORE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "src/stage/stage.h"
#include "src/trouble.h"

#define STORE_KEY_MAX	   1024	/* S3: bytes of a key; with the 0 at the end */
#define STORE_TAG_MAX	   128
#define STORE_METADATA_MAX 1536	/* S3 allows 2 KiB of user metadata */
#define STORE_DELETE_MAX   1000	/* S3: keys in one DeleteObjects */
#define STORE_LIST_MAX	   1000	/* S3: keys in one ListObjectsV2 page */

struct store;
struct store_request;

enum store_op {
	STORE_GET,
	STORE_PUT,
	STORE_DELETE,
	STORE_LIST,
	STORE_PROBE,		/* are conditional puts really conditional? */
	STORE_LIST_UPLOADS,	/* multipart uploads left unfinished */
	STORE_ABORT_UPLOAD,
	NR_STORE_OPS
};

enum store_outcome {
	STORE_DONE,
	STORE_ABSENT,		/* get: surely no such key */
	STORE_REFUSED,		/* conditional put, get with if_match: the
				 * condition did not hold; nothing was changed */
	STORE_UNKNOWN,		/* put: it may have been or may yet be applied */
	STORE_TRANSIENT,	/* worth another try (consumed by the retrying
				 * doorway, store_submit(), until its deadline) */
	STORE_FAILED,		/* for good: error says why */
};

enum store_condition {
	STORE_ALWAYS,
	STORE_IF_ABSENT,
	STORE_IF_MATCH,		/* the object's tag is @tag */
};

/* What a request was for; the counters of `status` and `info --cost` are kept
 * by it. */
enum store_cause {
	CAUSE_DEMAND, CAUSE_PREFETCH, CAUSE_PUSH, CAUSE_MAP, CAUSE_HEAD,
	CAUSE_GC, CAUSE_LIST, NR_STORE_CAUSES
};

/* Names and values kept with an object and returned by every get, ranged ones
 * too (S3: x-amz-meta-NAME headers).  Lines of NAME=VALUE\n; names are lower
 * case letters, digits and '-', values printable ASCII. */
struct store_metadata {
	size_t length;				/* bytes of @text, no 0 at the end */
	char text[STORE_METADATA_MAX];
};

/* Adds NAME=VALUE.  Returns 0, or -E2BIG when there is no room. */
int store_metadata_add(struct store_metadata *metadata, const char *name,
		       const char *value);
/* Finds NAME; @value gets at most @size bytes with the 0.  Returns the
 * value's length, or -ENOENT, or -E2BIG. */
int store_metadata_find(const struct store_metadata *metadata,
			const char *name, char *value, size_t size);

struct store_entry {		/* of a listing */
	char *key;		/* multipart uploads: the object's key */
	char *upload;		/* list_uploads only, else NULL */
	uint64_t size;		/* bytes of content; dir: of the file, which
				 * holds the metadata and a trailer too */
	uint64_t last_modified;	/* seconds since 1970 by the store's clock */
};

struct store_listing {
	struct store_entry *entries;	/* in the order of the keys' bytes */
	unsigned int nr_entries;
	bool more;			/* list: ask again after the last key;
					 * list_uploads: after these */
	char *next_key, *next_upload;	/* list_uploads with more, else NULL */
};
void store_listing_free(struct store_listing *listing);

struct store_reply {
	int error;			/* -errno beside FAILED and TRANSIENT */
	char message[256];		/* why, for people, where the store knows more
					 * than @error says; empty: it does not */
	char tag[STORE_TAG_MAX];	/* get, put: of the object; opaque */
	uint64_t size;			/* get: bytes of the whole object */
	uint64_t count;			/* get: bytes put into iov */
	uint64_t last_modified;		/* get: seconds, by the store's clock */
	uint64_t date;			/* seconds, the store's clock at the reply */
	struct store_metadata metadata;	/* get */
	struct store_listing listing;	/* list, list_uploads: caller frees */
};

typedef void store_done(struct store_request *request,
			enum store_outcome outcome);

struct store_request {
	enum store_op op;
	enum store_cause cause;
	enum request_priority priority;
	uint64_t deadline;		/* clock_now() nanoseconds; 0: as the store's
					 * retry_for says */
	const char *key;		/* get, put, abort_upload; list: prefix.
					 * Relative to the store's root; a get's
					 * may begin with '/': from the top of the
					 * bucket or file system (a clone's parent) */
	const char *after;		/* list: keys after this one; NULL: all */
	const char *after_upload;	/* list_uploads, beside @after: next_upload of
					 * the page before */
	const char *upload;		/* abort_upload */
	const char *const *keys;	/* delete: at most STORE_DELETE_MAX */
	unsigned int nr_keys;

	/* get: bytes offset .. offset + count of the object into iov.  With
	 * @whole: the object from its first byte to its last, which must fit.
	 * put: the whole content. */
	uint64_t offset;
	uint64_t count;
	bool whole;
	const struct iovec *iov;
	unsigned int nr_iov;
	/* CRC-32C of each @sum_unit bytes of these, the last perhaps of fewer.  A get
	 * that is DONE has filled them in, when the bytes came: that is cheap while
	 * they are in the CPU's cache.  With a put they come when they are known, to
	 * be used and not taken again.  NULL: not wanted, not known. */
	uint32_t *sums;
	uint32_t sum_unit;

	const struct store_metadata *metadata;	/* put; NULL: none */
	const char *version;			/* get: S3's versionId; NULL: the newest */
	enum store_condition condition;		/* put; get: STORE_IF_MATCH too */
	const char *tag;

	atomic_bool cancelled;		/* set by store_cancel() */
	struct request *parent;		/* cancelled with it; NULL: none */
	store_done *done;
	void *context;

	struct store_reply reply;

	/* The doorway's: */
	struct store *_Atomic store;	/* where it was submitted */
	unsigned int attempts;		/* how often it was sent */
	bool resent;			/* after any resend a refusal is unknown; a
					 * store that resends by itself sets it too */
	bool retried;			/* in the store's trouble until it completes */
	uint64_t started;		/* clock_now() at store_submit(); a store that
					 * queues sets it to when the first try was
					 * sent: retry_for runs from there */
	void *kept;			/* the store's: what it keeps from one try to
					 * the next; see forget() */
	uint64_t due;			/* clock_now() of the next try */
	struct store_request *next;	/* the store's, while it holds the request */
};

/* submit: never waits for the network or a disk; ends in store_complete().  It
 * is given no STORE_PROBE, which the doorway makes of puts and deletes.
 * forget: there will be no other try of @request, whose @kept is not NULL; never
 * waits.
 * close: nothing is in flight; frees the store, store_deinit() last. */
struct store_ops {
	const char *name;
	void (*submit)(struct store *store, struct store_request *request);
	void (*forget)(struct store *store, struct store_request *request);
	void (*close)(struct store *store);
	bool sums;		/* its gets fill in their sums; else the doorway does */
};

struct store_counters {
	atomic_ullong requests[NR_STORE_OPS];		/* sent, retries too */
	atomic_ullong by_cause[NR_STORE_CAUSES];
	atomic_ullong bytes_in[NR_STORE_CAUSES];	/* got */
	atomic_ullong bytes_out[NR_STORE_CAUSES];	/* put */
	atomic_ullong retries;
	atomic_ullong failures;
	/* A put above the store's multipart threshold is an upload in parts. */
	atomic_ullong parts, completes, aborts;
	atomic_uint in_flight;
};

#define STORE_RETRY_FOR 30000000000ull	/* ns; what verbs and opening wait */

struct store {
	const struct store_ops *ops;
	char *place;			/* as the user wrote it, for messages */
	_Atomic uint64_t retry_for;	/* ns a transient failure is retried;
					 * UINT64_MAX: without end */
	bool any_key;			/* gets may be of any key: it is somebody else's */
	struct store_counters counters;
	struct trouble trouble;		/* what is being retried */
	struct store_retry *retry;	/* store.c's: its timer thread */
};

/* Fills the base struct and starts what the doorway needs. */
int store_init(struct store *store, const struct store_ops *ops,
	       const char *place);
/* Takes down what store_init() made; for the close slot, last. */
void store_deinit(struct store *store);
/* The forget slot of a store that keeps nothing between tries. */
void store_keeps_nothing(struct store *store, struct store_request *request);

/* How long one try may wait in silence: ns; 0: as long as usual.  A short retry_for
 * bounds that too, but fails no server that is only slow. */
uint64_t store_silence(const struct store *store);

/* The doorway: checks the request, counts it, retries what is transient with
 * jittered exponential back-off until its deadline, and completes it.  Logs
 * one line when retrying begins and one when it ends.
 * FAILED carries -EINVAL (a request that cannot be: see check_request() in
 * store.c), -ERANGE (get: beyond the end), -EFBIG (get of the whole: it is
 * longer than the iov), -ECANCELED, -ETIMEDOUT, or the store's error.
 * A put whose time is up, or that is cancelled, after it was sent is UNKNOWN. */
void store_submit(struct store *store, struct store_request *request);

/* Asks for the end of @request.  It may be called from any thread until the
 * request has completed. */
void store_cancel(struct store_request *request);
bool store_request_is_cancelled(const struct store_request *request);

/* A store ends its work on a request with this, once, with no lock held. */
void store_complete(struct store_request *request, enum store_outcome outcome);

/* Gives up what still waits for another try (-ESHUTDOWN) and closes @store.
 * Nothing else is in flight any more. */
void store_close(struct store *store);

/* Writes "VERB KEY" for messages, as in "PUT head". */
const char *store_request_name(const struct store_request *request, char *text,
			       size_t size);

/* Why, for people: what the store says, or else what errno says. */
const char *store_reply_reason(const struct store_reply *reply);

/* ---- synchronous forms --------------------------------------------------- */

/* Each submits @request (op and done are set here) and waits.  The names say
 * what must be filled in beforehand. */
enum store_outcome store_wait(struct store *store, enum store_op op,
			      struct store_request *request);

/* Get a whole object of at most @max bytes into *@data (malloc; the caller
 * frees it) and its length; @reply may be NULL.  STORE_FAILED with -EFBIG in
 * reply when it is longer. */
enum store_outcome store_get_object(struct store *store, const char *key,
				    enum store_cause cause, size_t max,
				    void **data, size_t *count,
				    struct store_reply *reply);
enum store_outcome store_put_object(struct store *store, const char *key,
				    enum store_cause cause, const void *data,
				    size_t count, enum store_condition condition,
				    const char *tag, struct store_reply *reply);

/* ---- the stores ----------------------------------------------------------- */

/* mem: in this process, gone with it. */
int store_mem_open(const char *place, struct store **store);
/* Another client of the same objects, which are gone when the last one closes. */
int store_mem_share(struct store *mem, struct store **store);

struct store_dir_options {
	bool create;		/* make the root directory when it is missing */
	bool network_ok;	/* a network file system is accepted */
};
/* dir: one file per key below @path.  -ENOENT, -ENOTDIR, -EACCES, -EROFS,
 * -EOPNOTSUPP (a network file system), each logged with what to do. */
int store_dir_open(const char *place, const char *path,
		   const struct store_dir_options *options,
		   struct store **store);

struct s3_options;	/* backends/s3/s3.h */
/* s3: the objects of @bucket whose keys begin with @prefix and a '/'.  A put above
 * the multipart threshold is an upload in parts, whole or not there.  Asks the
 * server nothing.  As s3_client_open() fails, logged. */
int store_s3_open(const char *place, const char *bucket, const char *prefix,
		  const struct s3_options *options, struct store **store);
struct s3_client *store_s3_client(struct store *s3);	/* stays the store's */

#endif
