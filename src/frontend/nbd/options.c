/* options.c: what a client may ask before transmission, one function each. */
#include <errno.h>
#include <stdlib.h>

#include "src/export.h"
#include "src/frontend/nbd/connection.h"
#include "src/log.h"
#include "src/utf8.h"

#define ALLOCATION "base:allocation"

/* The export that a client calls @name (not 0-terminated); NULL: none. */
static struct export *find_export(const struct nbd_server *server,
				  const uint8_t *name, size_t count)
{
	struct export *export;
	unsigned int i;

	for (i = 0; i < server->nr_exports; i++) {
		export = atomic_load(&server->exports[i]);
		if (export && strlen(export->name) == count &&
		    memcmp(export->name, name, count) == 0)
			return export;
	}
	/* The empty name is the default export: with one only, that one.  Not the last
	 * that is left: who comes back for another shall not get it. */
	if (count == 0 && server->nr_exports == 1)
		return atomic_load(&server->exports[0]);
	return NULL;
}

/* The transmission flags of @export for this client. */
static uint16_t export_flags(const struct nbd_connection *connection,
			     const struct export *export)
{
	uint16_t flags = NBD_HAS_FLAGS | NBD_SEND_FLUSH | NBD_SEND_FUA |
			 NBD_SEND_CACHE | NBD_CAN_MULTI_CONN;

	if (export->read_only)
		flags |= NBD_READ_ONLY;
	else
		flags |= NBD_SEND_TRIM | NBD_SEND_WRITE_ZEROES | NBD_SEND_FAST_ZERO;
	if (connection->structured)
		flags |= NBD_SEND_DF;
	if (export->stage->geometry.flags & STAGE_ROTATIONAL)
		flags |= NBD_ROTATIONAL;
	return flags;
}

/* Cuts a string with a 32-bit length before it from @data.  0, -EINVAL or
 * -E2BIG. */
static int take_string(const uint8_t **data, size_t *count,
		       const uint8_t **string, uint32_t *length)
{
	if (*count < 4)
		return -EINVAL;
	*length = wire_get32(*data);
	if (*length > *count - 4)
		return -EINVAL;
	if (*length > NBD_STRING_MAX)
		return -E2BIG;
	*string = *data + 4;
	*data += 4 + *length;
	*count -= 4 + *length;
	return utf8_is_text(*string, *length) ? 0 : -EINVAL;
}

static void refuse(struct nbd_connection *connection, uint32_t option, int error)
{
	if (error == -E2BIG)
		nbd_talk_error(connection, option, NBD_REP_ERR_TOO_BIG,
			       "a string is longer than 4096 bytes");
	else if (error == -ENOENT)
		nbd_talk_error(connection, option, NBD_REP_ERR_UNKNOWN,
			       "there is no export of this name");
	else
		nbd_talk_error(connection, option, NBD_REP_ERR_INVALID,
			       "the option is malformed or out of place");
}

static void take_export_name(struct nbd_connection *connection,
			     const uint8_t *data, size_t count)
{
	struct export *export = NULL;
	uint8_t answer[10 + NBD_EXPORT_ZEROES] = { 0 };
	uint8_t *at = answer;

	if (count <= NBD_STRING_MAX)
		export = find_export(connection->server, data, count);
	if (!export) {
		/* This option has no way to say no. */
		log_debug("nbd: %s: asks for an export that there is not",
			  connection->peer);
		nbd_connection_close(connection);
		return;
	}
	at = wire_put64(at, stage_size(export->stage));
	wire_put16(at, export_flags(connection, export));
	nbd_talk_add(connection, answer,
		     connection->no_zeroes ? 10 : sizeof(answer));
	if (connection->phase == NBD_OPTIONS)
		nbd_handshake_done(connection, export);
}

static void take_list(struct nbd_connection *connection, size_t count)
{
	const struct nbd_server *server = connection->server;
	uint8_t entry[4 + 2 * NBD_STRING_MAX];
	unsigned int i;

	if (count != 0) {
		refuse(connection, NBD_OPT_LIST, -EINVAL);
		return;
	}
	for (i = 0; i < server->nr_exports; i++) {
		const struct export *export = atomic_load(&server->exports[i]);
		size_t name_count, description_count;
		const char *description;
		uint8_t *at;

		if (!export)
			continue;
		description = export->description ? export->description : "";
		name_count = strlen(export->name);
		description_count = utf8_cut(description, NBD_STRING_MAX);
		at = wire_put32(entry, (uint32_t)name_count);
		memcpy(at, export->name, name_count);
		memcpy(at + name_count, description, description_count);
		nbd_talk_reply(connection, NBD_OPT_LIST, NBD_REP_SERVER, entry,
			       4 + name_count + description_count);
	}
	nbd_talk_reply(connection, NBD_OPT_LIST, NBD_REP_ACK, NULL, 0);
}

static void tell_text(struct nbd_connection *connection, uint32_t option,
		      uint16_t type, const char *text)
{
	uint8_t entry[2 + NBD_STRING_MAX];
	size_t count = utf8_cut(text, NBD_STRING_MAX);

	memcpy(wire_put16(entry, type), text, count);
	nbd_talk_reply(connection, option, NBD_REP_INFO, entry, 2 + count);
}

static void tell_export(struct nbd_connection *connection, uint32_t option,
			const struct export *export)
{
	uint8_t entry[12];
	uint8_t *at = wire_put16(entry, NBD_INFO_EXPORT);

	at = wire_put64(at, stage_size(export->stage));
	wire_put16(at, export_flags(connection, export));
	nbd_talk_reply(connection, option, NBD_REP_INFO, entry, sizeof(entry));
}

static void tell_block_size(struct nbd_connection *connection, uint32_t option,
			    const struct export *export)
{
	uint8_t entry[14];
	uint8_t *at = wire_put16(entry, NBD_INFO_BLOCK_SIZE);

	at = wire_put32(at, export->minimum_block);
	at = wire_put32(at, export->preferred_block);
	wire_put32(at, nbd_export_payload(export));
	nbd_talk_reply(connection, option, NBD_REP_INFO, entry, sizeof(entry));
}

/* INFO tells about an export, GO begins to use it. */
static void take_go(struct nbd_connection *connection, uint32_t option,
		    const uint8_t *data, size_t count)
{
	struct export *export;
	const uint8_t *name;
	uint32_t length;
	bool asked[NBD_INFO_BLOCK_SIZE + 1] = { false };
	uint16_t nr, type, i;
	int error;

	error = take_string(&data, &count, &name, &length);
	if (!error && (count < 2 || count != 2 + 2 * (size_t)wire_get16(data)))
		error = -EINVAL;
	if (error) {
		refuse(connection, option, error);
		return;
	}
	export = find_export(connection->server, name, length);
	if (!export) {
		refuse(connection, option, -ENOENT);
		return;
	}
	nr = wire_get16(data);
	for (i = 0; i < nr; i++) {
		type = wire_get16(data + 2 + 2 * i);
		if (type <= NBD_INFO_BLOCK_SIZE)
			asked[type] = true;
	}
	tell_export(connection, option, export);
	if (asked[NBD_INFO_NAME])
		tell_text(connection, option, NBD_INFO_NAME, export->name);
	if (asked[NBD_INFO_DESCRIPTION] && export->description)
		tell_text(connection, option, NBD_INFO_DESCRIPTION, export->description);
	if (asked[NBD_INFO_BLOCK_SIZE])
		tell_block_size(connection, option, export);
	nbd_talk_reply(connection, option, NBD_REP_ACK, NULL, 0);
	if (option == NBD_OPT_GO && connection->phase == NBD_OPTIONS)
		nbd_handshake_done(connection, export);
}

static void take_structured(struct nbd_connection *connection, size_t count)
{
	if (count != 0 || connection->structured) {
		refuse(connection, NBD_OPT_STRUCTURED_REPLY, -EINVAL);
		return;
	}
	connection->structured = true;
	nbd_talk_reply(connection, NBD_OPT_STRUCTURED_REPLY, NBD_REP_ACK, NULL, 0);
}

static void take_start_tls(struct nbd_connection *connection, size_t count)
{
	if (!connection->server->tls) {
		nbd_talk_error(connection, NBD_OPT_STARTTLS, NBD_REP_ERR_UNSUP,
			       "TLS is not set up on this server");
	} else if (count != 0 || connection->tls) {
		refuse(connection, NBD_OPT_STARTTLS, -EINVAL);
	} else {
		nbd_talk_reply(connection, NBD_OPT_STARTTLS, NBD_REP_ACK, NULL, 0);
		connection->phase = NBD_TLS_START;
	}
}

/* Whether a query names base:allocation; LIST takes "base:" for all of base. */
static bool query_matches(uint32_t option, const uint8_t *query, uint32_t length)
{
	if (length == strlen(ALLOCATION) && memcmp(query, ALLOCATION, length) == 0)
		return true;
	return option == NBD_OPT_LIST_META_CONTEXT && length == 5 &&
	       memcmp(query, "base:", 5) == 0;
}

static void take_meta_context(struct nbd_connection *connection, uint32_t option,
			      const uint8_t *data, size_t count)
{
	const uint8_t *name, *query;
	uint32_t length, query_length, nr = 0, i;
	struct export *export = NULL;
	uint8_t entry[4 + sizeof(ALLOCATION) - 1];
	bool found = false;
	int error;

	if (option == NBD_OPT_SET_META_CONTEXT)
		connection->allocation = false;
	error = connection->structured ? take_string(&data, &count, &name, &length)
				       : -EINVAL;
	if (!error && count < 4)
		error = -EINVAL;
	if (!error) {
		nr = wire_get32(data);
		data += 4;
		count -= 4;
		export = find_export(connection->server, name, length);
		if (!export)
			error = -ENOENT;
	}
	for (i = 0; !error && i < nr; i++) {
		error = take_string(&data, &count, &query, &query_length);
		if (!error && query_matches(option, query, query_length))
			found = true;
	}
	if (!error && count != 0)
		error = -EINVAL;
	if (error) {
		refuse(connection, option, error);
		return;
	}
	if (found || (option == NBD_OPT_LIST_META_CONTEXT && nr == 0)) {
		memcpy(wire_put32(entry, option == NBD_OPT_SET_META_CONTEXT ?
				  NBD_ALLOCATION_ID : 0),
		       ALLOCATION, strlen(ALLOCATION));
		nbd_talk_reply(connection, option, NBD_REP_META_CONTEXT, entry,
			       sizeof(entry));
	}
	if (option == NBD_OPT_SET_META_CONTEXT) {
		connection->allocation = found;
		connection->allocation_export = export;
	}
	nbd_talk_reply(connection, option, NBD_REP_ACK, NULL, 0);
}

void nbd_option_take(struct nbd_connection *connection, uint32_t option,
		     const uint8_t *data, size_t count)
{
	if (connection->server->tls && !connection->tls &&
	    option != NBD_OPT_STARTTLS && option != NBD_OPT_ABORT) {
		/* Nothing is told in clear, not even which options there are. */
		if (option == NBD_OPT_EXPORT_NAME)
			nbd_connection_close(connection);
		else
			nbd_talk_error(connection, option, NBD_REP_ERR_TLS_REQD,
				       "this server requires TLS");
		return;
	}
	switch (option) {
	case NBD_OPT_EXPORT_NAME:
		take_export_name(connection, data, count);
		break;
	case NBD_OPT_ABORT:
		nbd_talk_reply(connection, option, NBD_REP_ACK, NULL, 0);
		nbd_connection_finish(connection);
		break;
	case NBD_OPT_LIST:
		take_list(connection, count);
		break;
	case NBD_OPT_STARTTLS:
		take_start_tls(connection, count);
		break;
	case NBD_OPT_INFO:
	case NBD_OPT_GO:
		take_go(connection, option, data, count);
		break;
	case NBD_OPT_STRUCTURED_REPLY:
		take_structured(connection, count);
		break;
	case NBD_OPT_LIST_META_CONTEXT:
	case NBD_OPT_SET_META_CONTEXT:
		take_meta_context(connection, option, data, count);
		break;
	default:
		nbd_talk_error(connection, option, NBD_REP_ERR_UNSUP,
			       "this option is not known here");
	}
}
