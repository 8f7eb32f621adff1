/* object.h: one existing object of a bucket as a device: s3+object://BUCKET/KEY.
 *
 * Reads are range GETs pinned by If-Match to the version that was opened, so that an
 * object that somebody replaces gives an error and never a mixture.  Written bytes
 * wait in a spill file, found by a map of ranges; a flush seals the map and publishes
 * a new version of the object, in which what did not change is copied by the store.
 *
 *   object_open.c     finds the object
 *   object_probe.c    probes whether conditions are kept
 *   object.c          the stage: reads, writes, zeros
 *   spill.c           files of written bytes
 *   dirty.c           where written bytes are
 *   publish.c         the thread that publishes; its flushes
 *   doubt.c           reads that wait until it is known which version is there
 *   parts.c           cuts the new version into parts
 *   send.c            sends them, as one multipart upload
 *   keep.c            unsaved writes of a lost object, kept aside
 *
 * Locks: object->lock guards what is said below; nothing waits under it. */
#ifndef OBJMAP_OBJECT_H
#define OBJMAP_OBJECT_H

#include <pthread.h>

#include "backends/object/dirty.h"
#include "backends/object/parts.h"
#include "backends/s3/s3.h"
#include "src/place.h"
#include "src/trouble.h"
#include "src/workers.h"

/* Bytes written while the same map was open: a file without a name. */
struct spill {
	int fd;
	uint64_t at;		/* bytes given out */
	unsigned int readers, writers;	/* under way */
	struct spill *next;
};

/* 0 or -errno, logged: the folder cannot hold it. */
int spill_open(const char *folder, struct spill **spill);
void spill_close(struct spill *spill);
/* All of [at, at + count), or -errno. */
int spill_read(const struct spill *spill, uint64_t at, const struct iovec *iov,
	       unsigned int nr_iov);
int spill_write(const struct spill *spill, uint64_t at, const struct iovec *iov,
		unsigned int nr_iov);
/* Whether something is under way in one of them. */
bool spill_has_writers(const struct spill *spills);
bool spill_has_readers(const struct spill *spills);

#define OBJECT_SESSION 16

struct object {
	struct stage stage;		/* must stay first */
	char *place;			/* for messages */
	char *key;			/* from the top of the bucket */
	char *read_key;			/* the same with a '/': as store_get() takes it */
	char *version;			/* ?versionId=; NULL: the newest */
	struct store *store;		/* reads */
	struct s3_client *client;	/* publishes; belongs to the store */
	struct http_headers kept;	/* of the object, given to its new versions */
	struct part_limits limits;
	char session[OBJECT_SESSION + 1];	/* hex; of this mount, in what it publishes */
	unsigned int nr_published;	/* tries; the publisher's */
	bool writable, exclusive;
	char *state;			/* folder for the spill; NULL: read-only */
	uint64_t dirty_limit;		/* bytes of all spill files */
	struct workers *disk, *senders;
	pthread_t publisher, watcher;
	bool publisher_runs, watcher_runs;
	atomic_bool stop;		/* ends what the publisher waits for */
	struct trouble trouble;		/* of publishing */
	bool in_trouble;		/* guarded by it */

	pthread_mutex_t lock;
	pthread_cond_t wake;		/* the publisher: wanted, stopping, a spill unused */
	/* Guarded by it: */
	char tag[STORE_TAG_MAX];	/* of the version that reads go to */
	struct dirty_map open, sealed;	/* open lies above sealed */
	struct spill *spills;		/* newest first; writes go to the first */
	struct spill *sealed_spills;
	struct request *flushes;	/* wait for the next publishing */
	struct request *writes;		/* wait for room, newest first */
	struct doubted *doubted;	/* reads refused while settling */
	bool publishing;		/* something is sealed and under way */
	bool settling;			/* a new version may be there already */
	bool doubtful;			/* of a publishing it was never known whether it
					 * is there ... */
	char late[S3_UPLOAD_ID_MAX];	/* ... and its upload, if it could not be aborted:
					 * it may end yet; the publisher's */
	bool stopping;
	int lost;			/* -ESTALE: somebody replaced the object ... */
	bool kept_aside;		/* ... and what was unsaved is in the state folder */
};

#define OBJECT_SENDERS	  4u		/* parts sent at a time */
#define OBJECT_SPILLS_MAX 64u		/* files, while publishing fails again and again */
#define OBJECT_RANGES_MAX 1000000u	/* 40 bytes each; then it is published */

extern const struct stage_ops object_ops;

/* object_open.c.  Of one that is whole or not. */
void object_free(struct object *object);

/* object_probe.c.  0, -EOPNOTSUPP: they are not kept, other -errno; logged. */
int object_probe(struct object *object, uint64_t size);

/* object.c.  Sends @request (a read, a write) on its way again. */
void object_read_again(struct object *object, struct request *request);
void object_write_again(struct object *object, struct request *request);
/* The object is not what was opened any more.  The lock is held. */
void object_lost(struct object *object);

/* publish.c */
int publisher_start(struct object *object);
void publisher_stop(struct object *object);
/* Completes @request, a flush, after what was written before it is published. */
void object_flush(struct object *object, struct request *request);

/* doubt.c.  With the lock held: lets @request, a read, wait until doubt_end(), which lets
 * go of the lock meanwhile; 0 or -ENOMEM.  One that is cancelled, or whose time (the
 * store's retry_for, its deadline) is up, completes before. */
int doubt_add(struct object *object, struct request *request);
void doubt_end(struct object *object);
int doubt_start(struct object *object);
void doubt_stop(struct object *object);	/* after object->stopping */

/* send.c.  Sends what object->sealed says as a new version; its tag comes out.  0;
 * -ESTALE: the object was replaced; other -errno.  Logged. */
int object_send(struct object *object, char tag[STORE_TAG_MAX]);

/* keep.c.  Writes what a lost object could not take to
 * STATE/object-HASH/unsaved-TIME, as objmap-object(7) describes it: see
 * struct stage_server. */
int object_keep_unsaved(struct stage *stage);

#endif
