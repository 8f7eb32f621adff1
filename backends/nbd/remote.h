/* remote.h: a remote NBD export as a backend.
 *
 * One thread (remote.c) owns the connections and everything in struct remote that
 * is not under its lock.  Slots turn requests into calls and hand them over;
 * the thread sends them by priority over whichever connection has the least to
 * do (link.c), and completes them.
 *
 *     down -> connecting -> replaying -> up -> down ...
 *
 * A connection that breaks takes all of them down: whether the server has died,
 * and with it what it had only in memory, cannot be told.  Calls under way go
 * back to the queue.  What was acknowledged and not yet flushed is kept here
 * (kept.c), and written again on the new connection before anything else, so
 * that a flush stays true.
 */
#ifndef OBJMAP_NBD_REMOTE_H
#define OBJMAP_NBD_REMOTE_H

#include <libnbd.h>
#include <pthread.h>
#include <sys/queue.h>

#include "src/clock.h"
#include "src/place_nbd.h"
#include "src/trouble.h"

#define NR_PRIORITIES 3
#define ZEROS_SIZE    (1u << 20)

/* What a server says of itself; nothing of it may change at a reconnect.
 * Compared as bytes: no padding that is not cleared. */
struct peer {
	int64_t size;
	int64_t minimum, preferred, maximum;	/* block sizes; 0: not told */
	bool read_only, rotational, flush, fua, trim, zero, fast_zero, cache,
	     multi_conn, allocation;
};

/* What of a read has come: ranges that do not touch, in their order.  Servers
 * send a few pieces, mostly one after the other. */
#define ARRIVED_MAX 16
struct arrived {
	struct { uint64_t from, to; } ranges[ARRIVED_MAX];
	unsigned int nr;
};

/* One command, or several in turn for what is too long for one.  A change
 * stays in the log of kept ones after its request has completed. */
struct call {
	TAILQ_ENTRY(call) entry;	/* of arrived, a queue, a link or ended */
	TAILQ_ENTRY(call) kept_entry;
	struct remote *remote;
	struct link *link;		/* it is under way there */
	struct request *request;	/* NULL: nobody waits for it */
	enum request_op op;
	unsigned int flags;		/* enum request_flags */
	enum request_priority priority;
	uint64_t offset, count;		/* bytes; flush: 0 */
	uint64_t done;			/* bytes of it that are settled */
	uint64_t length;		/* bytes of the command under way */
	uint64_t deadline;		/* clock_now(); 0: none */
	uint64_t sent;			/* clock_now(), of the command under way */
	uint64_t stuck_since;		/* clock_now(): there was no connection for
					 * it, or that broke; 0: never */
	uint64_t covers;		/* flush: remote->kept.newest when it was sent */
	uint64_t number;		/* in the log of kept changes, from 1 */
	bool is_kept;
	bool answered;			/* extents: at least one came */
	struct arrived arrived;		/* read */
	int error;
	char *data;			/* malloc'ed: a copy of what is written, or
					 * room for what is read; NULL: */
	char *buffer;			/* read: the caller's */
};
TAILQ_HEAD(calls, call);

enum link_state { LINK_DOWN, LINK_CONNECTING, LINK_UP };

struct link {
	struct remote *remote;
	struct nbd_handle *handle;	/* NULL: down */
	enum link_state state;
	bool closing;			/* what libnbd says now is not heard */
	bool leaving;			/* the server says that it shuts down */
	uint64_t give_up;		/* clock_now(): of its handshake */
	uint64_t due;			/* clock_now(): of its next connect */
	uint64_t up_since;		/* clock_now() */
	uint64_t heard;			/* clock_now(): bytes came or went */
	struct calls calls;		/* under way */
	unsigned int nr_calls;
	uint64_t bytes;			/* of their reads and writes */
};

/* Changes that were acknowledged and not flushed, oldest first. */
struct kept {
	struct calls calls;
	uint64_t bytes;			/* of memory */
	uint64_t newest;		/* number given last */
	uint64_t missing;		/* changes up to this one are not all here;
					 * 0: none is missing */
};

enum remote_state { REMOTE_DOWN, REMOTE_CONNECTING, REMOTE_REPLAYING, REMOTE_UP };

struct remote {
	struct stage stage;		/* must stay first */
	struct nbd_place place;
	char *text;			/* the place as written, for messages */
	struct peer peer;		/* known once it is open */
	bool read_only;			/* was asked to be */
	uint64_t longest;		/* bytes of a read or write command */
	_Atomic uint64_t retry_for;	/* ns; UINT64_MAX: without end */
	pthread_t thread;
	int wake_fd;			/* eventfd */

	pthread_mutex_t lock;		/* guards the next five */
	pthread_cond_t opened_cond;
	struct calls arrived;
	bool asleep;			/* the thread needs a wake-up to see them */
	bool stop;
	bool opened;			/* open_error says how that went */
	int open_error;
	struct trouble trouble;		/* the thread alone notes and ends it */

	/* The thread's own: */
	enum remote_state state;
	bool known;			/* peer is; the first connect went well */
	bool refused;			/* the last server was another one */
	bool in_trouble;
	bool silent;			/* this trouble is that it does not answer */
	unsigned int failures;		/* connects in a row, for back-off */
	struct link links[NBD_CONNECTIONS_MAX];
	unsigned int nr_links;		/* 1, or as many as may be */
	struct calls queues[NR_PRIORITIES];
	unsigned int nr_queued;
	struct calls ended;		/* the server has answered them */
	struct kept kept;
	struct call *replay_next;	/* of kept.calls */
	struct call *flush;		/* under way or queued; NULL: none */
	struct request *flushing, **flushing_last;	/* its callers */
	struct request *unflushed, **unflushed_last;	/* those of the next one */
	int lost;			/* what the next flush has to report */
	uint64_t changing;		/* bytes of writes under way */
	char *zeros;			/* ZEROS_SIZE, for servers that cannot zero */
};

static inline struct remote *remote_of(struct stage *stage)
{
	return (struct remote *)stage;
}

/* ---- call.c ------------------------------------------------------------------ */

/* NULL: no memory. */
struct call *call_new(struct remote *remote, struct request *request);
void call_free(struct call *call);

/* Notes that these bytes of a read have come.  false: some had before, or there
 * are too many pieces. */
bool call_arrived(struct call *call, uint64_t from, uint64_t to);

/* Before it is sent first: takes a copy of what it writes, which stays when the
 * request is gone, or room for what it reads. */
int call_prepare(struct call *call);

static inline bool call_is_change(const struct call *call)
{
	return call->op == REQUEST_WRITE || call->op == REQUEST_ZERO ||
	       call->op == REQUEST_TRIM;
}

/* Bytes that a command of it carries, in either direction. */
static inline uint64_t call_payload(const struct call *call)
{
	return call->op == REQUEST_READ || call->op == REQUEST_WRITE ?
	       call->count : 0;
}

/* The server has answered, on whatever: goes on with it, or ends it. */
void call_settle(struct call *call);
/* Its request is over; what was acknowledged is kept. */
void call_complete(struct call *call, int error);

/* ---- kept.c ------------------------------------------------------------------ */

/* Memory that unflushed changes may take; at half of it a flush is begun. */
#define KEPT_MAX (64u << 20)

/* @call is acknowledged. */
void kept_add(struct kept *kept, struct call *call);
/* Everything up to @number is durable. */
void kept_forget(struct kept *kept, uint64_t number);
/* There is no room: from now on they cannot be replayed. */
void kept_give_up(struct kept *kept);
void kept_remove(struct kept *kept, struct call *call);
/* Whether @call touches what another one that is under way on @link does. */
bool calls_overlap(const struct link *link, const struct call *call);

/* ---- link.c ------------------------------------------------------------------ */

/* A handle with everything set but the connection.  0 or -errno, logged. */
int link_handle(const struct nbd_place *place, struct nbd_handle **handle);
int link_connect_handle(struct nbd_handle *handle, const struct nbd_place *place);

/* What libnbd says that failed, without the name of its function in front. */
void libnbd_words(char *text, size_t size);
/* Of a connect that failed with @error (0: not told) and @why, libnbd's words:
 * whether another try would fail too; what to do about it, for the one who typed
 * the place. */
bool failure_is_permanent(int error, const char *why);
const char *failure_hint(const struct nbd_place *place, int error,
			 const char *why);

/* Begins to connect.  How it went is told by remote_connected() or
 * remote_broken(). */
void link_connect(struct link *link);
/* Something came, or can be sent: goes on. */
void link_notify(struct link *link, short revents);
/* Sends the next command of @call.  Whether the link broke of it is seen by
 * link_check() only. */
void link_issue(struct link *link, struct call *call);
/* Tells remote_broken() if it is.  Whether it is good. */
bool link_check(struct link *link);
/* Takes it down; its calls go to the front of the queues. */
void link_close(struct link *link);

/* Reads what the server has said.  -EPROTO, logged: it makes no sense. */
int link_peer(struct remote *remote, struct nbd_handle *handle,
	      struct peer *peer);

/* ---- remote.c ------------------------------------------------------------------- */

void *remote_run(void *context);

/* @link is ready. */
void remote_connected(struct link *link);
/* @link broke, or was never up; @permanent: no further try would help. */
void remote_broken(struct link *link, int error, bool permanent,
		   const char *reason);
void remote_wake(struct remote *remote);
/* The server does what it is asked to. */
void remote_healthy(struct remote *remote);
/* Puts @call back, to be sent before its kind. */
void remote_requeue(struct remote *remote, struct call *call);

/* ---- silence.c ------------------------------------------------------------------ */

/* Now and then: tells of what has waited for long, takes down what is silent. */
void silence_check(struct remote *remote, uint64_t now);

/* ---- flush.c ------------------------------------------------------------------- */

/* Fails or begins what waits for a flush; sends one when much is kept. */
void flush_advance(struct remote *remote);
void flush_ended(struct remote *remote, struct call *call);
void flush_add(struct remote *remote, struct request *request);
/* Completes waiting callers that are cancelled, late, or (@error) all. */
void flush_expire(struct remote *remote, uint64_t now, int error);
/* The connection broke under it. */
void flush_again(struct remote *remote);

#endif
