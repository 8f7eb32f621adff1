/* stage.h: the contract between the stages of a pipeline.
 *
 * A frontend (NBD, FUSE, the library) turns what its client wants into
 * requests and submits them to the top stage of an export.  Every call from
 * one stage to the next goes through the doorway, stage_submit(), which checks
 * range, flags and read-only, applies limits, counts and traces; so a stage
 * may trust what it is given, and may not be called any other way.
 *
 *     frontend -> [doorway] arbitrary -> [doorway] chunked -> [doorway] backend
 *
 * The life of a request
 *   - A slot never waits for the network.  It either completes the request
 *     before it returns, or keeps it and completes it later, on any thread,
 *     with no lock held.
 *   - request_complete() runs exactly once for every stage that was given the
 *     request.  A stage that wants to see the result pushes a frame of its own
 *     with request_push() before it submits the request further down.
 *   - Buffers (iov) belong to the submitter again once the request is
 *     complete, and are not touched after that.  A read that fails leaves
 *     their content undefined, a read that succeeds has filled every byte.
 *   - Cancelling is advisory: the request still completes, with -ECANCELED or
 *     with its result.
 *   - Errors are 0 or a negative errno.  Only frontends translate them to the
 *     codes of a wire.
 *
 * What the operations promise
 *   read      the whole range or an error, never a short read.
 *   write     the whole range; with FUA it is durable on completion.
 *   zero      reads back as zeros.  MAY_TRIM lets the storage go.  FAST_ZERO
 *             fails with -EOPNOTSUPP when it would be no faster than a write.
 *   trim      a hint; afterwards the range reads as its old bytes or as zeros,
 *             whichever the backend says, the same at each read.
 *             Zero and trim cost O(extents touched), never O(bytes).
 *   flush     every write, zero and trim acknowledged before the flush was
 *             submitted, on whatever connection, is durable; or the flush
 *             fails.  After buffered data was lost the next flush fails.
 *   extents   what is where, contiguous from @offset; at least one extent
 *             when it succeeds, perhaps not all of @count.
 *   prefetch  a hint; a stage reports no error ever (the doorway still refuses
 *             what is outside).
 *   close     frees this stage only; nothing is in flight any more then.
 *
 * Extents and prefetch take any byte range, whatever the units.
 *
 * With REQUEST_NOWAIT a slot completes with -EAGAIN, before it returns,
 * where it would have to wait for the network, a disk, a busy lock or memory;
 * it then has had no effect.  Frontends use it to answer hits on the spot and
 * submit the request again without it.
 */
#ifndef OBJMAP_STAGE_H
#define OBJMAP_STAGE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <semaphore.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

struct request;
struct stage;

enum request_op {
	REQUEST_READ,
	REQUEST_WRITE,
	REQUEST_ZERO,
	REQUEST_TRIM,
	REQUEST_FLUSH,
	REQUEST_EXTENTS,
	REQUEST_PREFETCH,
	NR_REQUEST_OPS
};

enum request_flags {
	REQUEST_FUA	  = 1 << 0,	/* write, zero, trim: durable on completion */
	REQUEST_NOWAIT	  = 1 << 1,	/* -EAGAIN rather than wait */
	REQUEST_MAY_TRIM  = 1 << 2,	/* zero: the storage may go */
	REQUEST_FAST_ZERO = 1 << 3,	/* zero: -EOPNOTSUPP unless faster than a write */
};

/* Lower goes first.  A stage or store may hold back a later priority while
 * an earlier one waits, never the other way round. */
enum request_priority {
	PRIORITY_DEMAND,	/* somebody waits for these bytes */
	PRIORITY_PREFETCH,	/* somebody probably will */
	PRIORITY_PUSH,		/* write-back */
};

enum extent_flags {
	EXTENT_HOLE  = 1 << 0,	/* no storage is allocated */
	EXTENT_ZERO  = 1 << 1,	/* reads as zeros */
	EXTENT_LOCAL = 1 << 2,	/* can be read without the network */
	EXTENT_DIRTY = 1 << 3,	/* acknowledged, not yet committed */
};

struct extent {
	uint64_t count;		/* bytes, > 0 */
	unsigned int flags;	/* enum extent_flags; 0: data */
};

/* Where an extents request puts its answer: the caller gives @extents with
 * room for @max; the stage fills @nr of them, the first at the request's
 * offset, the others following it without a gap.  Neighbours differ in flags.
 * They may end before offset + count (then ask again from there), never after. */
struct extent_list {
	struct extent *extents;
	unsigned int max;	/* >= 1 */
	unsigned int nr;
};

/* Appends @count bytes with @flags, joined to the last extent when the flags
 * are the same.  Returns false when the list is full (nothing was added). */
bool extent_list_add(struct extent_list *list, uint64_t count,
		     unsigned int flags);

typedef void request_done(struct request *request, void *context, int error);

/* How many frames a request can carry: the doorway and the stage itself push
 * at most one each, for at most seven stages, and one for the submitter. */
#define REQUEST_MAX_FRAMES 16

struct request_frame {
	request_done *done;
	void *context;
};

struct request {
	enum request_op op;
	unsigned int flags;		/* enum request_flags */
	enum request_priority priority;
	uint32_t stream;		/* connection or thread, for read-ahead */
	uint64_t offset;		/* bytes */
	uint64_t count;			/* bytes; 0 for flush */
	const struct iovec *iov;	/* read, write: exactly @count bytes */
	unsigned int nr_iov;
	struct extent_list *extents;	/* extents only */
	uint64_t deadline;		/* clock_now() nanoseconds; 0: none */
	struct request *parent;		/* cancelled with it; NULL: none */
	atomic_bool cancelled;
	unsigned int nr_frames;
	struct request_frame frames[REQUEST_MAX_FRAMES];
	struct request *next;		/* free for whoever holds the request now */
};

/* Prepares @request for one submission; @done(request, context, error) tells
 * its end.  Everything not named here is zero, and may be set before submitting. */
void request_init(struct request *request, enum request_op op,
		  uint64_t offset, uint64_t count,
		  request_done *done, void *context);

/* Makes @child carry on for @parent: priority, stream, deadline and
 * cancellation.  @parent must not complete before @child has. */
void request_inherit(struct request *child, struct request *parent);

/* Lets @done see the end of @request before whoever submitted it does.  @done
 * must, in the end, call request_complete() to hand the result on. */
void request_push(struct request *request, request_done *done, void *context);

/* Ends the stage's work on @request: pops the latest frame and calls it.
 * No lock may be held. */
void request_complete(struct request *request, int error);

/* Asks for the end of @request.  It may be called from any thread until the
 * request has completed. */
void request_cancel(struct request *request);

/* Whether @request, or one it carries on for, was cancelled. */
bool request_is_cancelled(const struct request *request);

/* ---- a stage ------------------------------------------------------------ */

/* Every slot is filled.  What passes through does so by the stage_pass_
 * functions below; NULL never means pass. */
struct stage_ops {
	const char *name;
	void (*read)(struct stage *stage, struct request *request);
	void (*write)(struct stage *stage, struct request *request);
	void (*zero)(struct stage *stage, struct request *request);
	void (*trim)(struct stage *stage, struct request *request);
	void (*flush)(struct stage *stage, struct request *request);
	void (*extents)(struct stage *stage, struct request *request);
	void (*prefetch)(struct stage *stage, struct request *request);
	void (*close)(struct stage *stage);
};

enum stage_flags {
	STAGE_READ_ONLY	 = 1 << 0,
	STAGE_NATIVE_FUA = 1 << 1,	/* FUA is cheaper than write and flush */
	STAGE_FAST_ZERO	 = 1 << 2,	/* zero never writes zeros */
	STAGE_ROTATIONAL = 1 << 3,	/* neighbours are cheaper than strangers */
	STAGE_NEVER_WAITS = 1 << 4,	/* memory: every request completes in its slot */
};

/* Fixed when the stage opens (only a resize changes the size).  All in bytes;
 * the units are powers of two. */
struct geometry {
	uint64_t size;
	uint32_t read_unit;	/* reads begin and end at multiples of it (or at size) */
	uint32_t write_unit;	/* so do writes; zero and trim too */
	uint32_t preferred;	/* what is cheap; a multiple of both units */
	uint32_t max_request;	/* the longest read or write; a multiple of both */
	unsigned int flags;	/* enum stage_flags */
};

struct stage_counters {
	atomic_ullong requests[NR_REQUEST_OPS];
	atomic_ullong bytes[NR_REQUEST_OPS];
	atomic_ullong errors;		/* completed with an error (not -EAGAIN) */
};

/* Limits of an export, kept by the doorway of its top stage.  What is over a
 * limit waits in arrival order (with REQUEST_NOWAIT: -EAGAIN); one request
 * alone is always let through.  Bytes are counted as the next stage will see
 * them, rounded out to its units, so they bound the buffers for that too. */
struct stage_limits;

/* Of a backend that lives by a server somewhere else.  What it waits for is told in
 * `status`; see src/trouble.h. */
struct trouble_status;
struct stage_server {
	/* From now on, what fails for a while is tried again for @retry_for ns;
	 * 0: not again, UINT64_MAX: without end. */
	void (*set_retry_for)(struct stage *stage, uint64_t retry_for);
	void (*trouble)(struct stage *stage, struct trouble_status *trouble);
	/* Whether the device is somebody else's now: flushes fail with -ESTALE for
	 * good. */
	bool (*is_lost)(struct stage *stage);
	/* Of a lost device: keeps what is unsaved in the state folder, once; closing
	 * does it, too.  0, or -errno, logged: then it can be tried again. */
	int (*keep_unsaved)(struct stage *stage);
	/* A flush that failed may have lost what it covered, though a later one
	 * succeeds. */
	bool failed_flush_loses;
};
/* The keep_unsaved slot of a device that is never lost, or never written. */
int stage_keeps_nothing(struct stage *stage);

struct stage {
	const struct stage_ops *ops;
	const struct stage_server *server;	/* set at open; NULL: none */
	struct stage *next;		/* NULL: a backend */
	atomic_ullong size;		/* bytes now; geometry.size is at open */
	atomic_ullong former_size;	/* before it was changed last */
	struct geometry geometry;
	struct stage_counters counters;
	struct stage_limits *limits;	/* NULL: none */
	atomic_uint gate;		/* requests in flight; top bit: draining */
	sem_t drained;			/* posted by the last one out */
};

/* Fills the base struct of a stage that publishes @geometry; the rest of it is
 * zero already. */
void stage_init(struct stage *stage, const struct stage_ops *ops,
		struct stage *next, const struct geometry *geometry);

/* Bounds what may be under way in @stage at once: @max_requests and
 * @max_bytes (of read, write, zero), 0 for no bound.  Before the first request.
 * A stage that never waits needs none: its callers' threads are the bound.
 * Returns 0 or -ENOMEM. */
int stage_limit(struct stage *stage, unsigned int max_requests,
		uint64_t max_bytes);

/* The doorway.  Completes @request with -EINVAL (outside the stage, or flags
 * that do not fit the operation), -EROFS (a change of a read-only stage),
 * -ESHUTDOWN (draining) or whatever the stage says. */
void stage_submit(struct stage *stage, struct request *request);

/* "read", "write", ...: for messages. */
const char *request_op_name(enum request_op op);

/* Refuses further requests with -ESHUTDOWN and waits until none is in flight
 * and no completion is still running.  Not from a completion. */
void stage_drain(struct stage *stage);

/* Drains and closes @stage and all below it, top first. */
void stage_close(struct stage *stage);

uint64_t stage_size(const struct stage *stage);		/* bytes */

/* For a backend whose own size has changed. */
void stage_set_size(struct stage *stage, uint64_t size);

/* Whether what ends at byte @end ends where the device does, or did before its
 * size changed last: a request may have been cut to that on its way here. */
bool stage_ends_at(const struct stage *stage, uint64_t end);
unsigned int stage_in_flight(const struct stage *stage);	/* requests */
struct stage *stage_backend(struct stage *stage);	/* the lowest below @stage */

/* Tells @stage and all below it their new size; the backend has it already. */
void stage_resized(struct stage *stage, uint64_t size);
/* The same where the backend changes its size by itself, now and again. */
void stage_follow_size(struct stage *stage);

/* Slots for what a stage does not change. */
void stage_pass_flush(struct stage *stage, struct request *request);
void stage_pass_extents(struct stage *stage, struct request *request);
void stage_pass_prefetch(struct stage *stage, struct request *request);

/* The synchronous forms: submit and wait, on a thread that may wait.  Each
 * returns 0 or a negative errno; @flags are enum request_flags. */
int stage_read(struct stage *stage, void *buffer, size_t count,
	       uint64_t offset, unsigned int flags);
int stage_write(struct stage *stage, const void *buffer, size_t count,
		uint64_t offset, unsigned int flags);
int stage_zero(struct stage *stage, uint64_t count, uint64_t offset,
	       unsigned int flags);
int stage_trim(struct stage *stage, uint64_t count, uint64_t offset,
	       unsigned int flags);
int stage_flush(struct stage *stage);
int stage_extents(struct stage *stage, uint64_t count, uint64_t offset,
		  struct extent_list *list);

/* ---- the stages above a backend ------------------------------------------ */

/* ArbitraryReadWriterAt: takes any byte range; see arbitrary.c.  Each returns
 * 0 and the stage, or a negative errno with @next still open. */
int arbitrary_open(struct stage *next, struct stage **stage);

/* ChunkedReaderAt: lets only aligned, in-range operations through. */
int chunked_open(struct stage *next, struct stage **stage);

#endif
