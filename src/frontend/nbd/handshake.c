/* handshake.c: the greeting, the client's flags, and options one by one.
 *
 * A client may send anything here, so everything is bounded: the length of an
 * option, their number, their bytes together, replies it does not read, and
 * (by the loop) the time until transmission begins. */
#include <errno.h>
#include <stdlib.h>

#include "src/export.h"
#include "src/frontend/nbd/connection.h"
#include "src/log.h"

/* Two strings of 4,096 bytes and many queries fit; what is longer is drained
 * and refused.  Must fit NBD_RECEIVE_BYTES with its header. */
#define OPTION_MAX_BYTES (32u << 10)
/* A client that lists and looks at every export of a big server stays below. */
#define HANDSHAKE_MAX_OPTIONS 1024
#define HANDSHAKE_MAX_BYTES (1u << 20)
/* Replies that wait before options are not read any more. */
#define TALK_MAX_BYTES (256u << 10)

void nbd_handshake_begin(struct nbd_connection *connection)
{
	uint8_t greeting[18];
	uint8_t *at = greeting;

	at = wire_put64(at, NBD_MAGIC);
	at = wire_put64(at, NBD_OPTION_MAGIC);
	wire_put16(at, NBD_FIXED_NEWSTYLE | NBD_NO_ZEROES);
	nbd_talk_add(connection, greeting, sizeof(greeting));
}

static void take_flags(struct nbd_connection *connection, uint32_t flags)
{
	if (flags & ~(uint32_t)(NBD_FIXED_NEWSTYLE | NBD_NO_ZEROES)) {
		log_debug("nbd: %s: unknown client flags %#x", connection->peer, flags);
		nbd_connection_close(connection);
		return;
	}
	connection->no_zeroes = flags & NBD_NO_ZEROES;
	connection->phase = NBD_OPTIONS;
}

/* Whether this option may still be looked at; closes the connection if not. */
static bool option_admitted(struct nbd_connection *connection, uint32_t count)
{
	connection->nr_options++;
	connection->option_bytes += count;
	if (connection->nr_options <= HANDSHAKE_MAX_OPTIONS &&
	    connection->option_bytes <= HANDSHAKE_MAX_BYTES)
		return true;
	log_debug("nbd: %s: too many options", connection->peer);
	nbd_connection_close(connection);
	return false;
}

/* Returns how many bytes were used; 0: more are needed. */
static size_t take_option(struct nbd_connection *connection,
			  const uint8_t *data, size_t count)
{
	uint32_t option, length;

	if (count < NBD_OPTION_BYTES)
		return 0;
	if (wire_get64(data) != NBD_OPTION_MAGIC) {
		log_debug("nbd: %s: not an option", connection->peer);
		nbd_connection_close(connection);
		return 0;
	}
	option = wire_get32(data + 8);
	length = wire_get32(data + 12);
	if (length <= OPTION_MAX_BYTES && count < NBD_OPTION_BYTES + length)
		return 0;
	if (!option_admitted(connection, length))
		return 0;
	if (length > OPTION_MAX_BYTES) {
		connection->drain = length;
		if (option == NBD_OPT_EXPORT_NAME)
			nbd_connection_close(connection);
		else
			nbd_talk_error(connection, option, NBD_REP_ERR_TOO_BIG,
				       "the option is too long");
		return NBD_OPTION_BYTES;
	}
	nbd_option_take(connection, option, data + NBD_OPTION_BYTES, length);
	return NBD_OPTION_BYTES + length;
}

static size_t drain(struct nbd_connection *connection, size_t count)
{
	if (count > connection->drain)
		count = (size_t)connection->drain;
	connection->drain -= count;
	return count;
}

size_t nbd_handshake_take(struct nbd_connection *connection,
			  const uint8_t *data, size_t count)
{
	size_t used = 0, step;

	while (used < count) {
		if (connection->drain) {
			used += drain(connection, count - used);
			continue;
		}
		if (connection->phase == NBD_FLAGS) {
			if (count - used < 4)
				break;
			take_flags(connection, wire_get32(data + used));
			used += 4;
			continue;
		}
		if (connection->phase != NBD_OPTIONS)
			break;
		if (connection->talk.count - connection->talk.sent > TALK_MAX_BYTES) {
			connection->blocked = true;
			break;
		}
		step = take_option(connection, data + used, count - used);
		if (step == 0)
			break;
		used += step;
	}
	/* Whatever follows STARTTLS in clear could have been slipped in by
	 * somebody between: it must not count as said under TLS. */
	if (connection->phase == NBD_TLS_START && used < count) {
		log_warning("nbd: %s: clear text after STARTTLS, closed",
			    connection->peer);
		nbd_connection_close(connection);
	}
	return used;
}

void nbd_talk_add(struct nbd_connection *connection, const void *data,
		  size_t count)
{
	struct nbd_talk *talk = &connection->talk;
	size_t room = talk->room ? talk->room : 512;
	uint8_t *bytes;

	if (connection->phase == NBD_CLOSED)
		return;
	while (room < talk->count + count)
		room *= 2;
	if (room != talk->room) {
		bytes = realloc(talk->bytes, room);
		if (!bytes) {
			log_error("nbd: %s: no memory for a handshake", connection->peer);
			nbd_connection_close(connection);
			return;
		}
		talk->bytes = bytes;
		talk->room = room;
	}
	if (count)
		memcpy(talk->bytes + talk->count, data, count);
	talk->count += count;
}

void nbd_talk_reply(struct nbd_connection *connection, uint32_t option,
		    uint32_t type, const void *data, size_t count)
{
	uint8_t head[NBD_OPTION_REPLY_BYTES];
	uint8_t *at = head;

	at = wire_put64(at, NBD_OPTION_REPLY_MAGIC);
	at = wire_put32(at, option);
	at = wire_put32(at, type);
	wire_put32(at, (uint32_t)count);
	nbd_talk_add(connection, head, sizeof(head));
	nbd_talk_add(connection, data, count);
}

void nbd_talk_error(struct nbd_connection *connection, uint32_t option,
		    uint32_t type, const char *why)
{
	nbd_talk_reply(connection, option, type, why, strlen(why));
}

int nbd_talk_send(struct nbd_connection *connection)
{
	struct nbd_talk *talk = &connection->talk;
	struct iovec iov;
	ssize_t sent;

	while (talk->sent < talk->count) {
		iov.iov_base = talk->bytes + talk->sent;
		iov.iov_len = talk->count - talk->sent;
		sent = nbd_stream_write(connection, &iov, 1);
		if (sent < 0)
			return (int)sent;
		talk->sent += (size_t)sent;
	}
	/* Mostly said: the transmission phase has no use for it. */
	free(talk->bytes);
	memset(talk, 0, sizeof(*talk));
	return 0;
}

void nbd_handshake_done(struct nbd_connection *connection,
			struct export *export)
{
	/* A context counts for the export it was asked for. */
	if (connection->allocation_export != export)
		connection->allocation = false;
	atomic_store(&connection->export, export);
	atomic_fetch_add(&export->nr_clients, 1);
	connection->phase = NBD_TRANSMISSION;
	nbd_connection_settled(connection);
	log_debug("nbd: %s: uses export \"%s\"", connection->peer, export->name);
}
