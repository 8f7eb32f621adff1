/* transmission.c: requests of a client become requests to the stages.
 *
 * A request is first submitted with NOWAIT, which answers what is at hand on
 * the spot, and a second time without it where that said -EAGAIN.  A request
 * that cannot be served is answered with an error and its payload skipped, so
 * that the connection stays in step; only what makes no sense of the stream
 * (a wrong magic, a payload beyond the protocol's bound) closes it. */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>

#include "src/export.h"
#include "src/frontend/nbd/connection.h"
#include "src/log.h"

/* From this payload on it pays to receive it straight into its buffer, though
 * the header then takes a read of its own. */
#define BIG_WRITE_BYTES (32u << 10)

/* So much of replies does not wait for the rest of its turn: the client can
 * work on it meanwhile, and it is still in the CPU's cache. */
#define SEND_SOON_BYTES (256u << 10)

/* A connection with nothing in flight may have one request of this size even
 * when all connections together are over their limit: peers that hold memory
 * and do not read must not shut the others out. */
#define SPARE_BYTES (64u << 10)

/* How many extents one BLOCK_STATUS answers; the client asks on from there. */
#define EXTENTS_MAX 512

struct command {
	uint16_t command, flags;
	uint64_t cookie, offset;
	uint32_t count;
};

uint32_t nbd_export_payload(const struct export *export)
{
	return export->maximum_block < NBD_PAYLOAD_MAX ? export->maximum_block
						       : NBD_PAYLOAD_MAX;
}

/* ---- what may pass ------------------------------------------------------------ */

static bool flags_valid(const struct nbd_connection *connection,
			const struct command *command)
{
	static const uint16_t valid[NR_NBD_COMMANDS] = {
		[NBD_CMD_READ]	       = NBD_CMD_FLAG_DF,
		[NBD_CMD_WRITE_ZEROES] = NBD_CMD_FLAG_NO_HOLE | NBD_CMD_FLAG_FAST_ZERO,
		[NBD_CMD_BLOCK_STATUS] = NBD_CMD_FLAG_REQ_ONE,
	};

	/* FUA may stand on every command, it means something on some. */
	if (command->flags & ~(valid[command->command] | NBD_CMD_FLAG_FUA))
		return false;
	return connection->structured || !(command->flags & NBD_CMD_FLAG_DF);
}

static bool is_change(uint16_t command)
{
	return command == NBD_CMD_WRITE || command == NBD_CMD_TRIM ||
	       command == NBD_CMD_WRITE_ZEROES;
}

static bool has_payload(uint16_t command)
{
	return command == NBD_CMD_READ || command == NBD_CMD_WRITE;
}

/* 0, or the error that the protocol text has for it. */
static int command_check(const struct nbd_connection *connection,
			 const struct export *export,
			 const struct command *command)
{
	uint64_t size = stage_size(export->stage);
	uint64_t end = command->offset + command->count;
	uint32_t unit = export->minimum_block;

	if (command->command >= NR_NBD_COMMANDS || !flags_valid(connection, command))
		return -EINVAL;
	if (is_change(command->command) && export->read_only)
		return -EPERM;
	if (command->command == NBD_CMD_FLUSH)
		return command->offset || command->count ? -EINVAL : 0;
	if (command->offset > size || command->count > size - command->offset)
		return command->command == NBD_CMD_WRITE ||
		       command->command == NBD_CMD_WRITE_ZEROES ? -ENOSPC : -EINVAL;
	if (unit > 1 && (command->offset % unit || (command->count % unit && end != size)))
		return -EINVAL;
	if (has_payload(command->command) &&
	    command->count > nbd_export_payload(export))
		return command->flags & NBD_CMD_FLAG_DF ? -EOVERFLOW : -EINVAL;
	if (command->command == NBD_CMD_BLOCK_STATUS &&
	    (!connection->allocation || command->count == 0))
		return -EINVAL;
	return 0;
}

/* Counts a request of @bytes, if the limits let it in now. */
static bool admit(struct nbd_connection *connection, uint64_t bytes)
{
	struct nbd_server *server = connection->server;
	uint64_t all;

	if (connection->nr_requests >= server->options.max_client_requests)
		return false;
	if (bytes && connection->bytes &&
	    connection->bytes + bytes > server->options.max_client_bytes)
		return false;
	if (bytes) {
		all = atomic_fetch_add(&server->bytes, bytes) + bytes;
		if (all > server->options.max_bytes && all != bytes &&
		    (connection->nr_requests || bytes > SPARE_BYTES)) {
			atomic_fetch_sub(&server->bytes, bytes);
			if (!connection->starved) {
				connection->starved = true;
				connection->loop->nr_starved++;
				atomic_fetch_add(&server->nr_starved, 1);
			}
			return false;
		}
	}
	connection->nr_requests++;
	connection->bytes += bytes;
	nbd_connection_fed(connection);
	return true;
}

/* As admit(), but makes room first by sending what is answered already. */
static bool admit_or_block(struct nbd_connection *connection, uint64_t bytes)
{
	if (admit(connection, bytes))
		return true;
	if (!connection->unsent && nbd_reply_send(connection) < 0) {
		nbd_connection_close(connection);
		return false;
	}
	if (admit(connection, bytes))
		return true;
	connection->blocked = true;
	return false;
}

/* ---- one request ---------------------------------------------------------------- */

static struct nbd_request *request_new(struct nbd_connection *connection,
				       const struct command *command,
				       size_t charged)
{
	struct nbd_loop *loop = connection->loop;
	struct nbd_request *request = loop->requests;

	if (request) {
		loop->requests = request->next;
		loop->nr_requests--;
	} else {
		request = malloc(sizeof(*request));
		if (!request)
			return NULL;
	}
	atomic_store_explicit(&connection->nr_taken,
		atomic_load_explicit(&connection->nr_taken, memory_order_relaxed) + 1,
		memory_order_relaxed);
	request->connection = connection;
	request->next = NULL;
	request->command = command->command;
	request->flags = command->flags;
	request->cookie = command->cookie;
	request->request.offset = command->offset;
	request->count = command->count;
	request->error = 0;
	request->done = false;
	request->charged = charged;
	request->buffer = NULL;
	request->room = 0;
	request->iov.iov_base = NULL;
	request->iov.iov_len = command->count;
	return request;
}

static int request_buffer(struct nbd_request *request, size_t count)
{
	request->buffer = nbd_pool_get(&request->connection->loop->pool, count);
	if (!request->buffer)
		return -ENOMEM;
	request->room = count;
	request->iov.iov_base = request->buffer;
	return 0;
}

static int request_prepare(struct nbd_request *request)
{
	int error;

	if (request->command == NBD_CMD_READ)
		return request_buffer(request, request->count);
	if (request->command != NBD_CMD_BLOCK_STATUS)
		return 0;
	request->extents.max = request->flags & NBD_CMD_FLAG_REQ_ONE ? 1 : EXTENTS_MAX;
	request->extents.nr = 0;
	error = request_buffer(request, EXTENTS_MAX * sizeof(struct extent));
	request->extents.extents = request->buffer;
	return error;
}

/* The client's flags as the stages have them. */
static unsigned int request_flags(const struct nbd_request *request)
{
	unsigned int flags = 0;

	if (!is_change(request->command))
		return 0;
	if (request->flags & NBD_CMD_FLAG_FUA)
		flags |= REQUEST_FUA;
	if (request->command != NBD_CMD_WRITE_ZEROES)
		return flags;
	if (!(request->flags & NBD_CMD_FLAG_NO_HOLE))
		flags |= REQUEST_MAY_TRIM;
	if (request->flags & NBD_CMD_FLAG_FAST_ZERO)
		flags |= REQUEST_FAST_ZERO;
	return flags;
}

/* A stage is done with it, on whatever thread. */
static void request_done_by_stage(struct request *done, void *context, int error)
{
	struct nbd_request *request = context;
	struct nbd_loop *loop = request->connection->loop;

	request->error = error;
	/* One that is to be submitted again takes the way over the list, so
	 * that the stage that said so has returned. */
	if (nbd_loop_is_current(loop) &&
	    !(error == -EAGAIN && (done->flags & REQUEST_NOWAIT)))
		nbd_request_settle(request);
	else
		nbd_loop_completed(loop, request);
}

void nbd_request_submit(struct nbd_request *request, unsigned int flags)
{
	static const enum request_op ops[NR_NBD_COMMANDS] = {
		[NBD_CMD_READ]	       = REQUEST_READ,
		[NBD_CMD_WRITE]	       = REQUEST_WRITE,
		[NBD_CMD_FLUSH]	       = REQUEST_FLUSH,
		[NBD_CMD_TRIM]	       = REQUEST_TRIM,
		[NBD_CMD_CACHE]	       = REQUEST_PREFETCH,
		[NBD_CMD_WRITE_ZEROES] = REQUEST_ZERO,
		[NBD_CMD_BLOCK_STATUS] = REQUEST_EXTENTS,
	};
	struct nbd_connection *connection = request->connection;
	struct export *export = atomic_load_explicit(&connection->export,
						     memory_order_relaxed);
	uint64_t offset = request->request.offset;

	/* A flush waits by its nature, a hint never does. */
	if (request->command == NBD_CMD_FLUSH || request->command == NBD_CMD_CACHE)
		flags &= ~(unsigned int)REQUEST_NOWAIT;
	request_init(&request->request, ops[request->command], offset,
		     request->count, request_done_by_stage, request);
	request->request.flags = request_flags(request) | flags;
	request->request.stream = connection->id;
	if (has_payload(request->command)) {
		request->request.iov = &request->iov;
		request->request.nr_iov = 1;
	} else if (request->command == NBD_CMD_BLOCK_STATUS) {
		request->extents.nr = 0;
		request->request.extents = &request->extents;
	}
	stage_submit(export->stage, &request->request);
}

void nbd_request_settle(struct nbd_request *request)
{
	struct nbd_connection *connection = request->connection;

	TAILQ_REMOVE(&connection->in_flight, request, in_flight);
	request->done = true;
	if (connection->phase == NBD_CLOSED) {
		nbd_request_free(request);
		return;
	}
	nbd_reply_queue(request);
	nbd_connection_ready(connection);
}

static void request_begin(struct nbd_request *request)
{
	TAILQ_INSERT_TAIL(&request->connection->in_flight, request, in_flight);
	nbd_request_submit(request, REQUEST_NOWAIT);
}

/* Answers @request without asking the stages. */
static void request_refuse(struct nbd_request *request, int error)
{
	request->error = error;
	request->done = true;
	nbd_reply_queue(request);
}

/* The same of a write: when its payload has come, because a client that is still
 * sending it expects no answer. */
static void write_refuse(struct nbd_request *request, int error)
{
	struct nbd_connection *connection = request->connection;

	if (request->count == 0) {
		request_refuse(request, error);
		return;
	}
	request->error = error;
	connection->drain = request->count;
	connection->refused = request;
}

/* ---- writes ---------------------------------------------------------------------- */

/* Takes the payload, as far as it is in @data (@count bytes); returns how
 * much that was. */
static size_t write_take(struct nbd_request *request, uint8_t *data, size_t count)
{
	struct nbd_connection *connection = request->connection;
	size_t part = request->count < count ? request->count : count;

	if (!request->charged) {	/* it stays where it is: see write_charge() */
		request->iov.iov_base = data;
		request_begin(request);
		assert(request->done);
		return part;
	}
	if (request_buffer(request, request->count) < 0) {
		write_refuse(request, -ENOMEM);
		return 0;
	}
	memcpy(request->buffer, data, part);
	connection->receiving = request;
	connection->received = part;
	if (part == request->count)
		nbd_transmission_received(connection);
	return part;
}

/* Memory that a write needs: none when its payload is here and the stages
 * are done with it when they return. */
static size_t write_charge(const struct export *export,
			   const struct command *command, size_t count)
{
	if (count >= command->count &&
	    (export->stage->geometry.flags & STAGE_NEVER_WAITS))
		return 0;
	return nbd_pool_room(command->count);
}

void nbd_transmission_received(struct nbd_connection *connection)
{
	struct nbd_request *request = connection->receiving;

	connection->receiving = NULL;
	request_begin(request);
}

/* ---- the stream of requests -------------------------------------------------------- */

static void command_read(struct command *command, const uint8_t *data)
{
	command->flags = wire_get16(data + 4);
	command->command = wire_get16(data + 6);
	memcpy(&command->cookie, data + 8, 8);
	command->offset = wire_get64(data + 16);
	command->count = wire_get32(data + 24);
}

static size_t command_charge(const struct export *export,
			     const struct command *command, size_t count)
{
	if (command->command == NBD_CMD_WRITE)
		return write_charge(export, command, count);
	if (command->command == NBD_CMD_READ)
		return nbd_pool_room(command->count);
	if (command->command == NBD_CMD_BLOCK_STATUS)
		return nbd_pool_room(EXTENTS_MAX * sizeof(struct extent));
	return 0;
}

/* Starts a request that has passed; returns the payload used. */
static size_t command_start(struct nbd_request *request, uint8_t *data, size_t count)
{
	int error;

	if (request->count == 0 && request->command != NBD_CMD_FLUSH) {
		request_refuse(request, 0);
		return 0;
	}
	if (request->command == NBD_CMD_WRITE)
		return write_take(request, data, count);
	error = request_prepare(request);
	if (error)
		request_refuse(request, error);
	else
		request_begin(request);
	return 0;
}

/* Takes one request, of which at least the header is at @data.  Returns the
 * bytes used; 0 when it has to wait, or the connection is closed. */
static size_t command_take(struct nbd_connection *connection, uint8_t *data,
			   size_t count)
{
	struct export *export = atomic_load_explicit(&connection->export,
						     memory_order_relaxed);
	struct nbd_request *request;
	struct command command;
	size_t charged;
	int error;

	command_read(&command, data);
	if (wire_get32(data) != NBD_REQUEST_MAGIC ||
	    (command.command == NBD_CMD_WRITE && command.count > NBD_PAYLOAD_MAX)) {
		log_warning("nbd: %s: sends what is no request, closed",
			    connection->peer);
		nbd_connection_close(connection);
		return 0;
	}
	if (command.command == NBD_CMD_DISC) {
		connection->discarding = true;
		nbd_connection_finish(connection);
		return NBD_REQUEST_BYTES;
	}
	data += NBD_REQUEST_BYTES;
	count -= NBD_REQUEST_BYTES;
	error = command_check(connection, export, &command);
	charged = error || command.count == 0 ? 0 : command_charge(export, &command, count);
	if (!admit_or_block(connection, charged))
		return 0;
	request = request_new(connection, &command, charged);
	if (!request) {
		log_error("nbd: %s: no memory for a request, closed", connection->peer);
		atomic_fetch_sub(&connection->server->bytes, charged);
		connection->nr_requests--;
		nbd_connection_close(connection);
		return 0;
	}
	connection->big_writes = command.command == NBD_CMD_WRITE &&
				 command.count >= BIG_WRITE_BYTES;
	if (!error)
		return NBD_REQUEST_BYTES + command_start(request, data, count);
	if (command.command == NBD_CMD_WRITE)
		write_refuse(request, error);
	else
		request_refuse(request, error);
	return NBD_REQUEST_BYTES;
}

/* Skips what there is of a refused payload; returns how much that was. */
static size_t skip_payload(struct nbd_connection *connection, size_t count)
{
	struct nbd_request *refused = connection->refused;

	if (count > connection->drain)
		count = (size_t)connection->drain;
	connection->drain -= count;
	if (!connection->drain) {
		connection->refused = NULL;
		request_refuse(refused, refused->error);
	}
	return count;
}

size_t nbd_transmission_take(struct nbd_connection *connection, uint8_t *data,
			     size_t count)
{
	size_t used = 0, step;

	while (used < count && connection->phase == NBD_TRANSMISSION) {
		if (connection->drain) {
			step = skip_payload(connection, count - used);
		} else if (count - used < NBD_REQUEST_BYTES) {
			break;
		} else {
			step = command_take(connection, data + used, count - used);
			if (step == 0)
				break;
		}
		if (connection->queued >= SEND_SOON_BYTES && !connection->unsent &&
		    nbd_reply_send(connection) < 0)
			nbd_connection_close(connection);
		used += step;
	}
	return used;
}
