/* connection.c: the life of one client: bytes come in, replies go out.
 *
 * What has come in and cannot be used yet (part of a request, or requests
 * that have to wait for room) is kept in connection->rest; everything else is
 * read into the loop's one buffer, so that an idle connection has none. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "src/clock.h"
#include "src/export.h"
#include "src/frontend/nbd/connection.h"
#include "src/log.h"

/* Reads of one connection before the others of its loop have their turn. */
#define RECEIVE_ROUNDS 16
/* For how long a loop with several busy connections does not favour one. */
#define CROWD_NS CLOCK_MS

static int set_nonblocking(int fd)
{
	int flags = fcntl(fd, F_GETFL);

	if (flags >= 0 && !(flags & O_NONBLOCK))
		fcntl(fd, F_SETFL, flags | O_NONBLOCK);
	return flags;
}

struct nbd_connection *nbd_connection_new(struct nbd_server *server, int in,
					  int out, bool given, char *peer)
{
	struct nbd_connection *connection = calloc(1, sizeof(*connection));

	if (!connection)
		return NULL;
	connection->source.kind = NBD_CONNECTION;
	connection->source.owner = connection;
	connection->id = atomic_fetch_add(&server->next_id, 1) + 1;
	connection->in = in;
	connection->out = out;
	connection->server = server;
	connection->in_flags = given ? set_nonblocking(in) : -1;
	connection->out_flags = given ? set_nonblocking(out) : -1;
	connection->peer = peer;
	TAILQ_INIT(&connection->in_flight);
	STAILQ_INIT(&connection->replies);
	atomic_store(&connection->handshaking, true);
	atomic_fetch_add(&server->nr_clients, 1);
	atomic_fetch_add(&server->nr_left, 1);
	atomic_fetch_add_explicit(&server->counters.accepted, 1, memory_order_relaxed);
	return connection;
}

void nbd_connection_free(struct nbd_connection *connection)
{
	free(connection->talk.bytes);
	if (connection->rest != connection->small_rest)
		free(connection->rest);
	free(connection->peer);
	free(connection);
}

bool nbd_connection_in_handshake(const struct nbd_connection *connection)
{
	return connection->phase <= NBD_TLS_START;
}

bool nbd_connection_has_deadline(const struct nbd_connection *connection)
{
	return nbd_connection_in_handshake(connection) || connection->talk.count;
}

void nbd_connection_settled(struct nbd_connection *connection)
{
	atomic_store(&connection->handshaking, false);
}

void nbd_connection_ready(struct nbd_connection *connection)
{
	if (connection->is_ready || connection->phase == NBD_CLOSED)
		return;
	connection->is_ready = true;
	TAILQ_INSERT_TAIL(&connection->loop->ready, connection, ready_link);
}

static void unready(struct nbd_connection *connection)
{
	if (connection->is_ready)
		TAILQ_REMOVE(&connection->loop->ready, connection, ready_link);
	connection->is_ready = false;
}

/* ---- what epoll is asked for ------------------------------------------------------ */

static void watch(int epoll, int fd, struct nbd_source *source, uint32_t *was,
		  uint32_t events)
{
	struct epoll_event event = { .events = events, .data.ptr = source };
	int operation = EPOLL_CTL_MOD;

	if (*was == events)
		return;
	/* Without interest it is taken out: a hang-up would be told forever. */
	if (events == 0)
		operation = EPOLL_CTL_DEL;
	else if (*was == 0)
		operation = EPOLL_CTL_ADD;
	if (epoll_ctl(epoll, operation, fd, &event) < 0)
		log_error("nbd: epoll: %s", strerror(errno));
	*was = events;
}

static void watch_both(struct nbd_connection *connection)
{
	/* Not while STARTTLS is still being granted: nothing would read it. */
	bool takes = !connection->blocked && !connection->answering &&
		     connection->phase != NBD_FINISHING &&
		     !(connection->phase == NBD_TLS_START && connection->talk.count);
	uint32_t in = takes ? EPOLLIN : 0;
	uint32_t out = connection->unsent ? EPOLLOUT : 0;
	int epoll = connection->loop->epoll;

	if (connection->in != connection->out) {
		watch(epoll, connection->in, &connection->source,
		      &connection->in_events, in);
		/* EPOLLET: a reader that went away is told once. */
		watch(epoll, connection->out, &connection->source,
		      &connection->out_events, out | (uint32_t)EPOLLET);
	} else {
		watch(epoll, connection->in, &connection->source,
		      &connection->in_events, in | out);
	}
}

/* ---- what has come in ----------------------------------------------------------------- */

static void rest_drop(struct nbd_connection *connection)
{
	if (connection->rest != connection->small_rest)
		free(connection->rest);
	connection->rest = NULL;
	connection->rest_count = 0;
}

static void rest_keep(struct nbd_connection *connection, const uint8_t *data,
		      size_t count)
{
	rest_drop(connection);
	if (count == 0)
		return;
	connection->rest = count <= sizeof(connection->small_rest) ?
			   connection->small_rest : malloc(count);
	if (!connection->rest) {
		log_error("nbd: %s: no memory, closed", connection->peer);
		nbd_connection_close(connection);
		return;
	}
	memcpy(connection->rest, data, count);
	connection->rest_count = count;
}

/* Uses the first @count bytes of the loop's buffer, keeps what has to wait.
 * Returns whether any were used. */
static bool consume(struct nbd_connection *connection, size_t count)
{
	uint8_t *data = connection->loop->in;
	size_t used = 0;

	if (nbd_connection_in_handshake(connection))
		used = nbd_handshake_take(connection, data, count);
	if (connection->phase == NBD_TRANSMISSION)
		used += nbd_transmission_take(connection, data + used, count - used);
	if (connection->phase == NBD_CLOSED)
		return false;
	rest_keep(connection, data + used,
		  connection->phase == NBD_FINISHING ? 0 : count - used);
	return used > 0;
}

/* The peer says no more, or nothing can come any more. */
static void receive_ended(struct nbd_connection *connection, int error)
{
	if (nbd_connection_in_handshake(connection))
		atomic_fetch_add(&connection->server->counters.failed_handshakes, 1);
	if (error == 0)
		nbd_connection_finish(connection);
	else
		nbd_connection_close(connection);
}

/* One read.  Returns false when there was nothing (or there is no connection
 * any more). */
static bool receive_once(struct nbd_connection *connection)
{
	struct nbd_loop *loop = connection->loop;
	struct nbd_request *receiving = connection->receiving;
	size_t kept = connection->rest_count, part = 0;
	unsigned long long taken;
	struct iovec iov[2];
	int nr_iov = 0;
	ssize_t got;

	if (receiving) {
		iov[nr_iov].iov_base = (uint8_t *)receiving->buffer + connection->received;
		iov[nr_iov++].iov_len = receiving->count - connection->received;
	}
	if (kept)
		memcpy(loop->in, connection->rest, kept);
	iov[nr_iov].iov_base = loop->in + kept;
	iov[nr_iov++].iov_len = (connection->big_writes && !connection->drain &&
				 kept < NBD_REQUEST_BYTES ?
				 NBD_REQUEST_BYTES : NBD_RECEIVE_BYTES) - kept;
	got = nbd_stream_read(connection, iov, nr_iov);
	if (got <= 0) {
		if (got != -EAGAIN)
			receive_ended(connection, (int)got);
		return false;
	}
	atomic_store_explicit(&connection->bytes_in,
		atomic_load_explicit(&connection->bytes_in, memory_order_relaxed) +
		(unsigned long long)got, memory_order_relaxed);
	if (receiving) {
		part = iov[0].iov_len < (size_t)got ? iov[0].iov_len : (size_t)got;
		connection->received += part;
		if (connection->received == receiving->count)
			nbd_transmission_received(connection);
	}
	taken = atomic_load_explicit(&connection->nr_taken, memory_order_relaxed);
	if (kept + (size_t)got - part)
		consume(connection, kept + (size_t)got - part);
	loop->batch = (unsigned int)(atomic_load_explicit(&connection->nr_taken,
						memory_order_relaxed) - taken);
	return true;
}

/* Its requests keep coming: it is worth polling for. */
static void note_hot(struct nbd_connection *connection)
{
	struct nbd_loop *loop = connection->loop;

	if (loop->hot_id != connection->id)
		loop->crowd_until = loop->now + CROWD_NS;
	loop->hot_id = connection->id;
	loop->hot = connection;
}

bool nbd_connection_receive(struct nbd_connection *connection)
{
	unsigned int round;

	if (connection->phase == NBD_TLS_START || connection->phase >= NBD_FINISHING ||
	    connection->blocked || connection->answering)
		return false;
	connection->read_again = false;
	for (round = 0; round < RECEIVE_ROUNDS; round++) {
		if (!receive_once(connection))
			break;
		if (connection->phase == NBD_TRANSMISSION)
			note_hot(connection);
		if (connection->phase >= NBD_FINISHING || connection->blocked)
			return true;
		/* More is on its way, or waits inside OpenSSL. */
		if (!connection->receiving && !connection->tls)
			return true;
		if (round + 1 == RECEIVE_ROUNDS)
			connection->read_again = connection->tls != NULL;
	}
	return round > 0;
}

void nbd_connection_fed(struct nbd_connection *connection)
{
	if (!connection->starved)
		return;
	connection->starved = false;
	connection->loop->nr_starved--;
	atomic_fetch_sub(&connection->server->nr_starved, 1);
}

/* Takes requests that had to wait.  Returns whether one went on. */
static bool resume(struct nbd_connection *connection)
{
	size_t count = connection->rest_count;

	connection->blocked = false;
	nbd_connection_fed(connection);
	if (connection->tls)
		connection->read_again = true;
	if (count == 0)
		return true;
	memcpy(connection->loop->in, connection->rest, count);
	return consume(connection, count);
}

/* ---- turns ------------------------------------------------------------------------------ */

static void go_on_with_tls(struct nbd_connection *connection)
{
	int error = nbd_stream_start_tls(connection);

	if (error == -EAGAIN)
		return;
	if (error) {
		log_notice("nbd: %s: the TLS handshake failed", connection->peer);
		atomic_fetch_add(&connection->server->counters.failed_handshakes, 1);
		nbd_connection_close(connection);
		return;
	}
	/* What was agreed in clear does not count. */
	connection->structured = connection->allocation = false;
	connection->allocation_export = NULL;
	atomic_store(&connection->secure, true);
	connection->phase = NBD_OPTIONS;
	connection->read_again = true;
}

void nbd_connection_work(struct nbd_connection *connection)
{
	bool again;

	do {
		again = false;
		unready(connection);
		if (connection->phase == NBD_CLOSED)
			return;
		if (!connection->unsent && nbd_reply_send(connection) < 0) {
			nbd_connection_close(connection);
			return;
		}
		if (connection->phase == NBD_TLS_START && connection->talk.count == 0)
			go_on_with_tls(connection);
		if (connection->phase < NBD_FINISHING && connection->blocked)
			again = resume(connection);
	} while (again && !connection->unsent);
	if (connection->phase == NBD_CLOSED)
		return;
	if (connection->phase == NBD_FINISHING && connection->nr_requests == 0 &&
	    connection->talk.count == 0) {
		nbd_connection_close(connection);
		return;
	}
	if (connection->read_again && !connection->blocked && !connection->answering &&
	    connection->phase < NBD_FINISHING)
		nbd_connection_ready(connection);
	atomic_store_explicit(&connection->status_in_flight, connection->nr_requests,
			      memory_order_relaxed);
	watch_both(connection);
}

void nbd_connection_event(struct nbd_connection *connection, uint32_t events)
{
	bool received = false, takes;

	if (connection->phase == NBD_CLOSED)
		return;
	takes = connection->phase < NBD_FINISHING && !connection->blocked;
	if (events & EPOLLOUT) {
		connection->unsent = false;
		if (connection->answering)
			connection->read_again = true;
		connection->answering = false;
	}
	if (takes && (events & (EPOLLIN | EPOLLHUP | EPOLLERR)))
		received = nbd_connection_receive(connection);
	/* Gone for good: nobody is left to read a reply. */
	if (!received && (events & (EPOLLHUP | EPOLLERR)) &&
	    connection->phase != NBD_CLOSED && connection->phase != NBD_TLS_START &&
	    (connection->in == connection->out || (events & EPOLLERR))) {
		nbd_connection_close(connection);
		return;
	}
	nbd_connection_work(connection);
}

void nbd_connection_place(struct nbd_connection *connection)
{
	struct nbd_server *server = connection->server;
	struct nbd_loop *best = &server->loops[0];
	unsigned int i;

	for (i = 1; i < server->nr_loops; i++)
		if (atomic_load(&server->loops[i].nr_connections) <
		    atomic_load(&best->nr_connections))
			best = &server->loops[i];
	connection->loop = best;
	atomic_fetch_add(&best->nr_connections, 1);
	pthread_mutex_lock(&best->lock);
	TAILQ_INSERT_TAIL(&best->arriving, connection, link);
	pthread_mutex_unlock(&best->lock);
	nbd_loop_attend(best);
}

void nbd_connection_begin(struct nbd_connection *connection)
{
	struct nbd_loop *loop = connection->loop;

	connection->deadline = loop->now + connection->server->options.handshake_timeout;
	if (loop->next_deadline == 0 || connection->deadline < loop->next_deadline)
		loop->next_deadline = connection->deadline;
	nbd_handshake_begin(connection);
	nbd_connection_work(connection);
}

/* ---- the end ------------------------------------------------------------------------------ */

void nbd_connection_finish(struct nbd_connection *connection)
{
	struct nbd_request *receiving = connection->receiving;
	struct nbd_request *refused = connection->refused;

	if (connection->phase >= NBD_FINISHING)
		return;
	nbd_connection_settled(connection);
	connection->phase = NBD_FINISHING;
	connection->receiving = connection->refused = NULL;
	connection->blocked = false;
	rest_drop(connection);
	if (receiving)		/* it never arrived whole: it never was */
		nbd_request_free(receiving);
	if (refused)
		nbd_request_free(refused);
	nbd_connection_ready(connection);
}

void nbd_connection_bury(struct nbd_connection *connection)
{
	if (connection->is_grave || connection->nr_requests)
		return;
	connection->is_grave = true;
	TAILQ_INSERT_TAIL(&connection->loop->graves, connection, ready_link);
}

void nbd_connection_close(struct nbd_connection *connection)
{
	struct nbd_loop *loop = connection->loop;
	struct nbd_request *request;
	struct export *export = atomic_load(&connection->export);

	if (connection->phase == NBD_CLOSED)
		return;
	nbd_connection_finish(connection);
	unready(connection);
	connection->phase = NBD_CLOSED;
	if (connection->in_events)
		epoll_ctl(loop->epoll, EPOLL_CTL_DEL, connection->in, NULL);
	if (connection->out_events)
		epoll_ctl(loop->epoll, EPOLL_CTL_DEL, connection->out, NULL);
	nbd_stream_close(connection);
	if (loop->hot == connection)
		loop->hot = NULL;
	nbd_connection_fed(connection);
	if (export)
		atomic_fetch_sub(&export->nr_clients, 1);
	atomic_fetch_sub(&connection->server->nr_clients, 1);
	while ((request = STAILQ_FIRST(&connection->replies))) {
		STAILQ_REMOVE_HEAD(&connection->replies, in_order);
		nbd_request_free(request);
	}
	/* Nobody waits for what is being read; what is written goes on. */
	TAILQ_FOREACH(request, &connection->in_flight, in_flight)
		if (request->command == NBD_CMD_READ ||
		    request->command == NBD_CMD_CACHE)
			request_cancel(&request->request);
	nbd_connection_bury(connection);
}
