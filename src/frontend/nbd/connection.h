/* connection.h: one client's connection and its requests. */
#ifndef OBJMAP_NBD_CONNECTION_H
#define OBJMAP_NBD_CONNECTION_H

#include "src/frontend/nbd/server.h"
#include "src/frontend/nbd/wire.h"

/* The id of base:allocation, which clients learn by SET_META_CONTEXT. */
#define NBD_ALLOCATION_ID 1

enum nbd_phase {
	NBD_FLAGS,		/* greeted; the client's flags are to come */
	NBD_OPTIONS,
	NBD_TLS_START,		/* STARTTLS was granted; its handshake runs */
	NBD_TRANSMISSION,
	NBD_FINISHING,		/* takes no more; what is in flight is answered */
	NBD_CLOSED,		/* no descriptor any more; requests come back */
};

struct nbd_request {
	struct request request;		/* what the stages see */
	struct nbd_connection *connection;
	struct nbd_request *next;	/* completed, or free */
	TAILQ_ENTRY(nbd_request) in_flight;
	STAILQ_ENTRY(nbd_request) in_order;	/* of the replies */
	uint16_t command, flags;	/* the client's */
	uint64_t cookie;		/* as on the wire */
	uint32_t count;
	int error;
	bool done;
	size_t charged;			/* bytes counted against the limits */
	void *buffer;			/* of the pool: payload or extents */
	size_t room;			/* what was asked of the pool */
	struct iovec iov;
	struct extent_list extents;
	uint8_t head[NBD_CHUNK_BYTES + 8];	/* the reply; its payload is iov */
	uint32_t head_count;
	uint32_t body_count;
};

/* Handshake replies that wait for the socket. */
struct nbd_talk {
	uint8_t *bytes;
	size_t count, sent, room;
};

struct nbd_connection {
	struct nbd_source source;
	struct nbd_server *server;
	struct nbd_loop *loop;
	TAILQ_ENTRY(nbd_connection) link;	/* connections or arriving */
	TAILQ_ENTRY(nbd_connection) ready_link;	/* ready or graves */
	bool is_ready, is_grave;
	uint32_t id;
	int in, out;			/* descriptors; often the same */
	int in_flags, out_flags;	/* as they were; -1: of our making */
	uint32_t in_events, out_events;	/* what epoll is asked for */
	char *peer;
	enum nbd_phase phase;
	atomic_bool evict;		/* gives way to a new client */
	atomic_bool handshaking;	/* has not begun transmission */
	atomic_bool secure;		/* TLS is on */

	/* handshake */
	uint64_t deadline;
	bool no_zeroes, structured, allocation;
	struct export *allocation_export;	/* of which allocation was asked */
	unsigned int nr_options;
	uint64_t option_bytes;
	struct nbd_talk talk;
	SSL *tls;

	/* transmission */
	_Atomic(struct export *) export;	/* status reads it */
	bool discarding;		/* DISC came */
	bool starved;			/* waits for memory of all connections */
	bool blocked;			/* takes nothing more until replies left */
	bool unsent;			/* the socket took no more */
	bool read_again;		/* there may be more than epoll tells */
	bool answering;			/* TLS reads on when what it says itself has left */
	bool big_writes;		/* payload goes straight into its buffer */
	uint64_t drain;			/* bytes of a refused payload to skip */
	struct nbd_request *refused;	/* its write, answered when it is skipped */
	struct nbd_request *receiving;	/* a write whose payload arrives */
	size_t received;
	uint8_t *rest;			/* came in and could not be used yet */
	size_t rest_count;
	uint8_t small_rest[NBD_REQUEST_BYTES];
	TAILQ_HEAD(, nbd_request) in_flight;	/* given to the stages */
	STAILQ_HEAD(, nbd_request) replies;
	size_t sent;			/* bytes of the first reply */
	uint64_t queued;		/* bytes of all, sent ones of the first too */
	unsigned int nr_requests;	/* taken, reply not yet sent */
	uint64_t bytes;			/* charged, all of them together */
	uint64_t seen_moved, seen_until; /* of check_stalls() */

	/* for status */
	atomic_uint status_in_flight;
	atomic_ullong bytes_in, bytes_out, nr_taken;
};

/* ---- connection.c --------------------------------------------------------------- */

/* A connection of the stream @in, @out, which it owns from now on; @given: by
 * the user, with flags to restore.  NULL: no memory (both stay open). */
struct nbd_connection *nbd_connection_new(struct nbd_server *server, int in,
					  int out, bool given, char *peer);
/* Puts it on the least busy loop, where it begins. */
void nbd_connection_place(struct nbd_connection *connection);
/* On its loop: starts the handshake. */
void nbd_connection_begin(struct nbd_connection *connection);
void nbd_connection_event(struct nbd_connection *connection, uint32_t events);
/* Takes what has arrived.  Returns false when there was nothing. */
bool nbd_connection_receive(struct nbd_connection *connection);
/* Sends what is ready, goes on with what was blocked, sets what to wait for. */
void nbd_connection_work(struct nbd_connection *connection);
/* Has nbd_connection_work() called before the loop waits. */
void nbd_connection_ready(struct nbd_connection *connection);
/* Takes no more requests; closes when what is in flight is answered. */
void nbd_connection_finish(struct nbd_connection *connection);
/* Closes at once.  Freed when its last request has come back. */
void nbd_connection_close(struct nbd_connection *connection);
/* It waits for no memory of all connections any more. */
void nbd_connection_fed(struct nbd_connection *connection);
/* Closed: to be freed at the end of this turn, once nothing is in flight. */
void nbd_connection_bury(struct nbd_connection *connection);
void nbd_connection_free(struct nbd_connection *connection);
/* The handshake is over, well or not. */
void nbd_connection_settled(struct nbd_connection *connection);
bool nbd_connection_in_handshake(const struct nbd_connection *connection);
/* Whether it ends at its deadline: the handshake goes on, or its replies are not
 * read, whatever the peer has said since. */
bool nbd_connection_has_deadline(const struct nbd_connection *connection);

/* ---- stream.c: bytes in and out, plain or TLS; never waits ------------------------ */

/* Bytes moved; 0 (read: the peer has ended), -EAGAIN or another -errno. */
ssize_t nbd_stream_read(struct nbd_connection *connection,
			const struct iovec *iov, int nr_iov);
ssize_t nbd_stream_write(struct nbd_connection *connection,
			 const struct iovec *iov, int nr_iov);
/* Goes on with the TLS handshake: 0 when it is done, -EAGAIN, or -errno. */
int nbd_stream_start_tls(struct nbd_connection *connection);
void nbd_stream_close(struct nbd_connection *connection);

/* ---- handshake.c ------------------------------------------------------------------ */

/* Queues the server's greeting. */
void nbd_handshake_begin(struct nbd_connection *connection);
/* Uses what it can of @count bytes at @data and returns how many. */
size_t nbd_handshake_take(struct nbd_connection *connection,
			  const uint8_t *data, size_t count);
/* Queues bytes, or an option's reply, for the client. */
void nbd_talk_add(struct nbd_connection *connection, const void *data,
		  size_t count);
void nbd_talk_reply(struct nbd_connection *connection, uint32_t option,
		    uint32_t type, const void *data, size_t count);
/* An error reply that tells people why. */
void nbd_talk_error(struct nbd_connection *connection, uint32_t option,
		    uint32_t type, const char *why);
/* Sends what it can: 0 when all is sent, -EAGAIN or -errno. */
int nbd_talk_send(struct nbd_connection *connection);
/* Enters the transmission phase on @export. */
void nbd_handshake_done(struct nbd_connection *connection,
			struct export *export);

/* ---- options.c -------------------------------------------------------------------- */

/* Answers one whole option. */
void nbd_option_take(struct nbd_connection *connection, uint32_t option,
		     const uint8_t *data, size_t count);

/* ---- transmission.c ----------------------------------------------------------------- */

/* Uses what it can of @count bytes at @data and returns how many; with
 * connection->blocked the others have to wait. */
size_t nbd_transmission_take(struct nbd_connection *connection,
			     uint8_t *data, size_t count);
/* The payload of connection->receiving is complete. */
void nbd_transmission_received(struct nbd_connection *connection);
/* Gives @request to the stages; @flags: REQUEST_NOWAIT or 0. */
void nbd_request_submit(struct nbd_request *request, unsigned int flags);
/* A request that the stages are done with, on its loop. */
void nbd_request_settle(struct nbd_request *request);
/* Payload that a write or read may have, in bytes. */
uint32_t nbd_export_payload(const struct export *export);

/* ---- reply.c ------------------------------------------------------------------------- */

/* @request has its result in @error: queues the reply. */
void nbd_reply_queue(struct nbd_request *request);
/* Sends what the socket takes: 0 or -errno (the connection is of no use). */
int nbd_reply_send(struct nbd_connection *connection);
void nbd_request_free(struct nbd_request *request);
/* Gives the loop's spare requests back to the system. */
void nbd_requests_trim(struct nbd_loop *loop);

#endif
