/* server.h: inside the NBD server: the server, its listeners and event loops.
 *
 *     listener -> loop 0 accepts -> connection, on one loop for all its life
 *     connection: handshake.c, options.c, then transmission.c -> stages
 *     a stage completes, on any thread -> loop's list -> reply.c -> the socket
 *
 * What belongs to a loop or one of its connections is touched by the loop's
 * thread only, except what says otherwise. */
#ifndef OBJMAP_NBD_SERVER_H
#define OBJMAP_NBD_SERVER_H

#include <openssl/ssl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/queue.h>
#include <sys/types.h>
#include <sys/uio.h>

#include "src/frontend/nbd.h"
#include "src/frontend/nbd/pool.h"

/* Read from a socket at once: many small requests or the longest option. */
#define NBD_RECEIVE_BYTES (64u << 10)
/* Answers in one writev: two pieces each, within IOV_MAX. */
#define NBD_SEND_PIECES 512

struct nbd_connection;
struct nbd_request;

/* What an epoll event is about. */
struct nbd_source {
	enum nbd_source_kind { NBD_WAKE, NBD_LISTENER, NBD_CONNECTION } kind;
	void *owner;
};

struct nbd_listener {
	struct nbd_source source;
	int fd;
	char *address;		/* for status and messages */
	char *path;		/* a UNIX socket of our making, removed at the end */
	dev_t device;		/* ... if it still is this one */
	ino_t inode;
	STAILQ_ENTRY(nbd_listener) link;
};

TAILQ_HEAD(nbd_connections, nbd_connection);

struct nbd_loop {
	struct nbd_server *server;
	pthread_t thread;
	int epoll;
	struct nbd_source wake;
	int wake_fd;			/* eventfd */
	atomic_bool sleeping;		/* needs a wake for what comes from outside */
	atomic_bool attention;		/* something below changed: look */
	_Atomic(struct nbd_request *) completed;	/* by any thread, newest first */

	pthread_mutex_t lock;		/* guards membership of the next two */
	struct nbd_connections connections;
	struct nbd_connections arriving;	/* accepted, not yet looked at */
	atomic_uint nr_connections;	/* both together */

	struct nbd_connections ready;	/* to work on before the next wait */
	struct nbd_connections graves;	/* closed, nothing in flight any more */
	struct nbd_connection *hot;	/* whose requests came last */
	unsigned int poll_credit;	/* how well polling did lately */
	unsigned int nr_turns;
	uint32_t hot_id;		/* its id, or of the one before */
	uint64_t crowd_until;		/* several connections were busy lately */
	unsigned int nr_starved;
	uint64_t next_deadline;		/* of a handshake; 0: none */
	bool stopping, closing;		/* stop was seen; its deadline has passed */
	bool running;
	unsigned int withdrawals_seen;	/* uses what was withdrawn before no more */
	uint64_t now;			/* of this turn */
	unsigned int batch;		/* requests that came in the last read */
	uint64_t next_look;		/* for stalled peers */
	uint64_t pause_until;		/* no accept before: out of descriptors */

	struct nbd_pool pool;
	struct nbd_request *requests;	/* free ones */
	unsigned int nr_requests;
	uint8_t *in;			/* NBD_RECEIVE_BYTES */
	uint8_t *gather;		/* TLS: small replies go out together */
	struct iovec pieces[NBD_SEND_PIECES];
};

struct nbd_counters {
	atomic_ullong accepted, refused, evicted, failed_handshakes, errors;
};

struct nbd_server {
	struct nbd_options options;	/* defaults filled in */
	SSL_CTX *tls;			/* NULL: no TLS */
	struct psk *psk;
	_Atomic(struct export *) *exports;	/* NULL: it was withdrawn */
	unsigned int nr_exports;	/* withdrawn ones too */
	atomic_uint nr_withdrawals;
	pthread_mutex_t lock;		/* guards, once started, listeners, and of the
					 * loops running and withdrawals_seen */
	pthread_cond_t left_cond;	/* a loop saw a withdrawal, lost a connection
					 * after one, or has ended */
	STAILQ_HEAD(, nbd_listener) listeners;
	bool only_descriptors;		/* ends with its last connection */
	unsigned int nr_loops, nr_started;
	struct nbd_loop *loops;
	struct nbd_connections waiting;	/* given before the start */
	atomic_uint nr_clients;		/* with an open descriptor */
	atomic_uint nr_left;		/* not freed yet */
	atomic_uint next_id;
	atomic_ullong bytes;		/* payload in flight, all connections */
	atomic_uint nr_starved;		/* connections that wait for less of it */
	unsigned int max_pollers;
	atomic_uint nr_pollers;		/* loops that poll at this moment */
	atomic_bool stop;
	_Atomic uint64_t stop_at;	/* when peers that do not read are cut off */
	struct nbd_counters counters;
};

/* ---- server.c ---------------------------------------------------------------- */

/* Whether @export, which may be closed already, is not withdrawn. */
bool nbd_server_offers(const struct nbd_server *server, const struct export *export);

/* ---- loop.c ------------------------------------------------------------------ */

int nbd_loop_open(struct nbd_server *server, struct nbd_loop *loop);
int nbd_loop_start(struct nbd_loop *loop, unsigned int index);
void nbd_loop_join(struct nbd_loop *loop);
void nbd_loop_close(struct nbd_loop *loop);
/* From any thread: makes the loop look at what changed. */
void nbd_loop_attend(struct nbd_loop *loop);
/* From any thread: @request, whose error is set, goes back to its connection. */
void nbd_loop_completed(struct nbd_loop *loop, struct nbd_request *request);
/* Whether the calling thread is this loop's. */
bool nbd_loop_is_current(const struct nbd_loop *loop);

/* ---- listen.c ------------------------------------------------------------------ */

void nbd_listener_close(struct nbd_listener *listener);
/* Accepts what waits at @listener, on @loop, and spreads it over the loops. */
void nbd_listener_accept(struct nbd_loop *loop, struct nbd_listener *listener);

/* ---- tls.c ----------------------------------------------------------------------- */

/* Loads what the options name.  0 or -errno, logged. */
int nbd_tls_open(struct nbd_server *server);
void nbd_tls_close(struct nbd_server *server);

#endif
