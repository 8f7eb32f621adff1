/* reply.c: results become replies, in the order they are known.
 *
 * What one turn of the loop has answered leaves in one writev: the header of
 * each reply out of its request, the payload out of the buffer that the
 * stages filled. */
#include <errno.h>
#include <stdlib.h>

#include "src/frontend/nbd/connection.h"

/* Spare requests that a loop keeps while it is busy. */
#define SPARE_REQUESTS 1024

static uint32_t error_code(const struct nbd_request *request)
{
	switch (-request->error) {
	case 0:
		return 0;
	case EPERM:
	case EROFS:
		return NBD_EPERM;
	case EINVAL:
		return NBD_EINVAL;
	case ENOSPC:
	case EDQUOT:
	case EFBIG:
		return NBD_ENOSPC;
	case ENOMEM:
		return NBD_ENOMEM;
	case ESHUTDOWN:
		return NBD_ESHUTDOWN;
	case EOVERFLOW:		/* the protocol has it for this case only */
		return request->flags & NBD_CMD_FLAG_DF ? NBD_EOVERFLOW : NBD_EIO;
	case EOPNOTSUPP:	/* so here */
		return request->flags & NBD_CMD_FLAG_FAST_ZERO ? NBD_ENOTSUP : NBD_EIO;
	default:
		return NBD_EIO;
	}
}

static void reply_simple(struct nbd_request *request, uint32_t error)
{
	uint8_t *at = request->head;

	at = wire_put32(at, NBD_SIMPLE_REPLY_MAGIC);
	at = wire_put32(at, error);
	memcpy(at, &request->cookie, 8);
	request->head_count = NBD_SIMPLE_REPLY_BYTES;
}

/* The head of the only chunk of a structured reply; returns where its own
 * fields go, @fields bytes that stand in the head too. */
static uint8_t *reply_chunk(struct nbd_request *request, uint16_t type,
			    uint32_t fields)
{
	uint8_t *at = request->head;

	at = wire_put32(at, NBD_CHUNK_MAGIC);
	at = wire_put16(at, NBD_CHUNK_DONE);
	at = wire_put16(at, type);
	memcpy(at, &request->cookie, 8);
	at = wire_put32(at + 8, fields + request->body_count);
	request->head_count = NBD_CHUNK_BYTES + fields;
	return at;
}

/* Turns the extents into the wire's pairs of length and state, in place: a
 * pair is never longer than an extent. */
static void reply_extents(struct nbd_request *request)
{
	const struct extent *extents = request->extents.extents;
	uint8_t *first = request->buffer;
	uint8_t *at = first;
	uint64_t count = 0;
	uint32_t state, last = 0;
	unsigned int i;

	for (i = 0; i < request->extents.nr; i++) {
		struct extent extent = extents[i];

		state = (extent.flags & EXTENT_HOLE ? NBD_STATE_HOLE : 0) |
			(extent.flags & EXTENT_ZERO ? NBD_STATE_ZERO : 0);
		if (at > first && state == last)
			at -= 8;	/* differs in what this context does not tell */
		else
			count = 0;
		count += extent.count;
		last = state;
		at = wire_put32(at, (uint32_t)count);
		at = wire_put32(at, state);
	}
	request->body_count = (uint32_t)(at - first);
	request->iov.iov_base = first;
	wire_put32(reply_chunk(request, NBD_CHUNK_BLOCK_STATUS, 4), NBD_ALLOCATION_ID);
}

static void reply_data(struct nbd_request *request)
{
	request->body_count = request->count;
	if (request->connection->structured && request->count == 0)
		reply_chunk(request, NBD_CHUNK_NONE, 0);
	else if (request->connection->structured)
		wire_put64(reply_chunk(request, NBD_CHUNK_OFFSET_DATA, 8),
			   request->request.offset);
	else
		reply_simple(request, 0);
}

static void reply_error(struct nbd_request *request, uint32_t error)
{
	uint8_t *at;

	atomic_fetch_add_explicit(&request->connection->server->counters.errors,
				  1, memory_order_relaxed);
	if (request->connection->structured &&
	    (request->command == NBD_CMD_READ ||
	     request->command == NBD_CMD_BLOCK_STATUS)) {
		at = reply_chunk(request, NBD_CHUNK_ERROR, 6);
		at = wire_put32(at, error);
		wire_put16(at, 0);	/* no text */
	} else {
		reply_simple(request, error);
	}
}

void nbd_reply_queue(struct nbd_request *request)
{
	uint32_t error;

	/* A stage that answers with nothing has not answered. */
	if (request->error == 0 && request->command == NBD_CMD_BLOCK_STATUS &&
	    request->extents.nr == 0)
		request->error = -EIO;
	error = error_code(request);
	request->body_count = 0;
	if (error)
		reply_error(request, error);
	else if (request->command == NBD_CMD_READ)
		reply_data(request);
	else if (request->command == NBD_CMD_BLOCK_STATUS)
		reply_extents(request);
	else
		reply_simple(request, 0);
	STAILQ_INSERT_TAIL(&request->connection->replies, request, in_order);
	request->connection->queued += request->head_count + request->body_count;
}

/* ---- sending ------------------------------------------------------------------------ */

/* Describes what waits, from byte connection->sent of the first reply on. */
static int replies_gather(struct nbd_connection *connection, struct iovec *pieces)
{
	struct nbd_request *request;
	size_t skip = connection->sent;
	int nr = 0;

	STAILQ_FOREACH(request, &connection->replies, in_order) {
		if (nr + 2 > NBD_SEND_PIECES)
			break;
		if (skip < request->head_count) {
			pieces[nr].iov_base = request->head + skip;
			pieces[nr++].iov_len = request->head_count - skip;
			skip = 0;
		} else {
			skip -= request->head_count;
		}
		if (request->body_count) {
			pieces[nr].iov_base = (uint8_t *)request->iov.iov_base + skip;
			pieces[nr++].iov_len = request->body_count - skip;
		}
		skip = 0;
	}
	return nr;
}

/* Lets go of the replies that are sent whole. */
static void replies_retire(struct nbd_connection *connection, size_t sent)
{
	struct nbd_request *request;

	sent += connection->sent;
	while ((request = STAILQ_FIRST(&connection->replies))) {
		if (sent < request->head_count + request->body_count)
			break;
		sent -= request->head_count + request->body_count;
		STAILQ_REMOVE_HEAD(&connection->replies, in_order);
		connection->queued -= request->head_count + request->body_count;
		nbd_request_free(request);
	}
	connection->sent = sent;
}

int nbd_reply_send(struct nbd_connection *connection)
{
	struct iovec *pieces = connection->loop->pieces;
	ssize_t sent;
	int error;

	if (connection->talk.count) {
		error = nbd_talk_send(connection);
		if (error) {
			connection->unsent = true;
			return error == -EAGAIN ? 0 : error;
		}
	}
	while (!STAILQ_EMPTY(&connection->replies)) {
		sent = nbd_stream_write(connection, pieces,
					replies_gather(connection, pieces));
		if (sent < 0) {
			connection->unsent = true;
			return sent == -EAGAIN ? 0 : (int)sent;
		}
		replies_retire(connection, (size_t)sent);
	}
	return 0;
}

/* ---- letting go ----------------------------------------------------------------------- */

static void uncharge(struct nbd_connection *connection, size_t charged)
{
	struct nbd_server *server = connection->server;
	unsigned int i;

	connection->bytes -= charged;
	atomic_fetch_sub(&server->bytes, charged);
	if (atomic_load(&server->nr_starved) == 0)
		return;
	for (i = 0; i < server->nr_loops; i++)
		nbd_loop_attend(&server->loops[i]);
}

void nbd_request_free(struct nbd_request *request)
{
	struct nbd_connection *connection = request->connection;
	struct nbd_loop *loop = connection->loop;

	nbd_pool_put(&loop->pool, request->buffer, request->room);
	connection->nr_requests--;
	if (request->charged)
		uncharge(connection, request->charged);
	if (loop->nr_requests < SPARE_REQUESTS) {
		request->next = loop->requests;
		loop->requests = request;
		loop->nr_requests++;
	} else {
		free(request);
	}
	if (connection->phase == NBD_CLOSED)
		nbd_connection_bury(connection);
}

void nbd_requests_trim(struct nbd_loop *loop)
{
	struct nbd_request *request;

	while ((request = loop->requests)) {
		loop->requests = request->next;
		free(request);
	}
	loop->nr_requests = 0;
}
