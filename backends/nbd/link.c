/* link.c: one connection to the server.
 *
 * libnbd calls back with its lock held, from the calls that this thread makes:
 * a callback only puts its call aside.  A connection that breaks ends its
 * commands with ENOTCONN, which no server can send: they stay with the link,
 * whose end sends them back to the queues. */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backends/nbd/remote.h"
#include "src/log.h"

#define HANDSHAKE_TIMEOUT (15 * CLOCK_SECOND)
#define GOODBYE_TIMEOUT	  500			/* ms, for sending it */
#define REPLIES_A_TURN	  64
#define LENGTH_MAX	  (1ull << 31)		/* of commands without payload; the
						 * protocol has 32 bits */

void libnbd_words(char *text, size_t size)
{
	const char *said = nbd_get_error(), *colon;

	if (!said || !*said)
		said = "the server has closed the connection";
	colon = strncmp(said, "nbd_", 4) == 0 ? strstr(said, ": ") : NULL;
	snprintf(text, size, "%s", colon ? colon + 2 : said);
}

/* ---- connecting ------------------------------------------------------------------- */

static int set_keys(const struct nbd_place *place, struct nbd_handle *handle)
{
	if (nbd_set_tls(handle, place->tls ? LIBNBD_TLS_REQUIRE :
			LIBNBD_TLS_DISABLE) < 0)
		return -1;
	if (!place->tls)
		return 0;
	if (nbd_set_tls_verify_peer(handle, place->verify_peer) < 0)
		return -1;
	if (place->certificates &&
	    nbd_set_tls_certificates(handle, place->certificates) < 0)
		return -1;
	if (place->psk_file && nbd_set_tls_psk_file(handle, place->psk_file) < 0)
		return -1;
	return place->user ? nbd_set_tls_username(handle, place->user) : 0;
}

int link_handle(const struct nbd_place *place, struct nbd_handle **result)
{
	struct nbd_handle *handle = nbd_create();
	char why[256];

	/* What never came is noticed by us: nothing need be cleared before. */
	if (handle && nbd_set_pread_initialize(handle, false) == 0 &&
	    nbd_set_export_name(handle, place->export_name) == 0 &&
	    set_keys(place, handle) == 0) {
		*result = handle;
		return 0;
	}
	libnbd_words(why, sizeof(why));
	log_error("libnbd: %s", why);
	if (handle)
		nbd_close(handle);
	return -EIO;
}

int link_connect_handle(struct nbd_handle *handle, const struct nbd_place *place)
{
	return place->socket ? nbd_aio_connect_unix(handle, place->socket) :
	       nbd_aio_connect_tcp(handle, place->host, place->port);
}

void link_connect(struct link *link)
{
	const struct nbd_place *place = &link->remote->place;
	int error = link_handle(place, &link->handle);

	link->closing = link->leaving = false;
	link->give_up = clock_now() + HANDSHAKE_TIMEOUT;
	if (error) {
		remote_broken(link, error, true, "libnbd cannot be set up");
		return;
	}
	link->state = LINK_CONNECTING;
	if (nbd_add_meta_context(link->handle, LIBNBD_CONTEXT_BASE_ALLOCATION) == 0)
		link_connect_handle(link->handle, place);
	link_check(link);
}

/* Whether @why is of libnbd's first step, before the server says a word. */
static bool is_of_connect(const char *why)
{
	return strncmp(why, "connect:", 8) == 0 || strncmp(why, "socket:", 7) == 0;
}

bool failure_is_permanent(int error, const char *why)
{
	if (strstr(why, "getaddrinfo"))
		return true;
	if (is_of_connect(why))
		return error == ENOENT || error == EACCES || error == EPERM ||
		       error == ENOTDIR || error == ENOTSOCK;
	if (strstr(why, "gnutls") || strstr(why, "TLS"))
		return true;
	switch (error) {
	case 0:
	case ECONNRESET:
	case ECONNREFUSED:
	case ECONNABORTED:
	case ENOTCONN:
	case EPIPE:
	case ESHUTDOWN:
	case ETIMEDOUT:
	case EHOSTUNREACH:
	case ENETUNREACH:
		return false;
	default:
		return true;
	}
}

const char *failure_hint(const struct nbd_place *place, int error,
			 const char *why)
{
	if (strstr(why, "getaddrinfo"))
		return "; check the name of the host";
	if (is_of_connect(why))
		return error == ENOENT ?
		       "; no server has made that socket: check the path" : "";
	if (strstr(why, "certificate"))
		return "; is it the right host, and the right tls-certificates=DIR?";
	if (place->psk_file && strstr(why, "gnutls"))
		return "; are the user and the key in tls-psk-file those of the server?";
	if (!place->tls && strstr(why, "TLS"))
		return "; write nbds: for nbd:";
	if (place->tls && strstr(why, "TLS"))
		return "; a server without TLS is nbd:";
	if (error == ENOENT)
		return "; objmap list shows what a server exports";
	return "";
}

bool link_check(struct link *link)
{
	char said[256], why[400];
	int error = nbd_get_errno();

	libnbd_words(said, sizeof(said));
	if (!link->handle)
		return false;
	if (link->leaving) {
		remote_broken(link, -ESHUTDOWN, false, "the server is shutting down");
		return false;
	}
	if (nbd_aio_is_created(link->handle) <= 0 &&
	    nbd_aio_is_dead(link->handle) <= 0 &&
	    nbd_aio_is_closed(link->handle) <= 0) {
		if (link->state == LINK_CONNECTING &&
		    nbd_aio_is_ready(link->handle) > 0) {
			link->state = LINK_UP;
			link->up_since = clock_now();
			remote_connected(link);
		}
		return link->state != LINK_DOWN;
	}
	snprintf(why, sizeof(why), "%s%s", said, link->remote->known ? "" :
		 failure_hint(&link->remote->place, error, said));
	remote_broken(link, error ? -error : -ECONNRESET,
		      failure_is_permanent(error, said), why);
	return false;
}

/* ---- what the server is ------------------------------------------------------------- */

static int tell_nonsense(struct remote *remote, const char *what)
{
	log_error("%s: the server makes no sense: %s", remote->text, what);
	return -EPROTO;
}

static int check_sizes(struct remote *remote, const struct peer *peer)
{
	int64_t unit = peer->minimum ? peer->minimum : 1;

	if (peer->size <= 0)
		return tell_nonsense(remote, "the export is empty");
	/* The protocol: at most 64 KiB. */
	if (unit < 1 || unit > 65536 || unit & (unit - 1))
		return tell_nonsense(remote, "its least block is no power of two up to 64K");
	if (peer->maximum && peer->maximum < unit)
		return tell_nonsense(remote, "its largest block is smaller than its least");
	if (peer->size % unit)
		return tell_nonsense(remote, "the export does not end where a block does");
	return 0;
}

int link_peer(struct remote *remote, struct nbd_handle *h, struct peer *peer)
{
	memset(peer, 0, sizeof(*peer));
	peer->size = nbd_get_size(h);
	peer->minimum = nbd_get_block_size(h, LIBNBD_SIZE_MINIMUM);
	peer->preferred = nbd_get_block_size(h, LIBNBD_SIZE_PREFERRED);
	peer->maximum = nbd_get_block_size(h, LIBNBD_SIZE_MAXIMUM);
	peer->read_only = nbd_is_read_only(h) > 0;
	peer->rotational = nbd_is_rotational(h) > 0;
	peer->flush = nbd_can_flush(h) > 0;
	peer->fua = nbd_can_fua(h) > 0;
	peer->trim = nbd_can_trim(h) > 0;
	peer->zero = nbd_can_zero(h) > 0;
	peer->fast_zero = peer->zero && nbd_can_fast_zero(h) > 0;
	peer->cache = nbd_can_cache(h) > 0;
	peer->multi_conn = nbd_can_multi_conn(h) > 0;
	peer->allocation =
		nbd_can_meta_context(h, LIBNBD_CONTEXT_BASE_ALLOCATION) > 0;
	return check_sizes(remote, peer);
}

/* ---- commands ------------------------------------------------------------------------- */

static void link_add(struct link *link, struct call *call)
{
	call->link = link;
	call->sent = clock_now();
	TAILQ_INSERT_TAIL(&link->calls, call, entry);
	link->nr_calls++;
	link->bytes += call_payload(call);
	if (call->op == REQUEST_WRITE && !call->is_kept)
		link->remote->changing += call->count;
}

static void link_remove(struct link *link, struct call *call)
{
	call->link = NULL;
	TAILQ_REMOVE(&link->calls, call, entry);
	link->nr_calls--;
	link->bytes -= call_payload(call);
	if (call->op == REQUEST_WRITE && !call->is_kept)
		link->remote->changing -= call->count;
}

static int call_ended(void *context, int *error)
{
	struct call *call = context;
	struct link *link = call->link;

	if (!link || link->closing || *error == ENOTCONN)
		return 1;
	if (*error == ESHUTDOWN) {
		link->leaving = true;
		return 1;
	}
	link_remove(link, call);
	call->error = -*error;
	TAILQ_INSERT_TAIL(&call->remote->ended, call, entry);
	return 1;
}

/* A piece of a read is in the buffer. */
static int call_piece(void *context, const void *data, size_t count,
		      uint64_t offset, unsigned int status, int *error)
{
	struct call *call = context;

	if (status == LIBNBD_READ_ERROR || count == 0 ||
	    call_arrived(call, offset, offset + count))
		return 0;
	*error = EPROTO;
	return -1;
}

/* BLOCK_STATUS: pairs of length and flags, from where it was asked on; the last
 * may be longer than what was asked for. */
static int call_extents(void *context, const char *name, uint64_t offset,
			uint32_t *entries, size_t nr_entries, int *error)
{
	struct call *call = context;
	uint64_t end = call->offset + call->count, at = offset;
	struct extent_list *list;

	if (!call->request || call->answered ||
	    strcmp(name, LIBNBD_CONTEXT_BASE_ALLOCATION) != 0)
		return 0;
	list = call->request->extents;
	for (size_t i = 0; i + 1 < nr_entries && at < end; i += 2) {
		uint64_t from = at < call->offset ? call->offset : at;
		unsigned int flags = 0;

		if (entries[i] == 0) {
			*error = EPROTO;
			return -1;
		}
		at += entries[i];
		if (at <= from)
			continue;
		if (entries[i + 1] & LIBNBD_STATE_HOLE)
			flags |= EXTENT_HOLE;
		if (entries[i + 1] & LIBNBD_STATE_ZERO)
			flags |= EXTENT_ZERO;
		if (!extent_list_add(list, (at < end ? at : end) - from, flags))
			break;
	}
	call->answered = list->nr > 0;
	return 0;
}

static uint64_t least(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

/* Rounded out to blocks of the server. */
static int64_t issue_extents(struct link *link, struct call *call,
			     nbd_completion_callback completion)
{
	nbd_extent_callback extent = { .callback = call_extents, .user_data = call };
	uint64_t unit = link->remote->stage.geometry.read_unit;
	uint64_t from = call->offset & ~(unit - 1);
	uint64_t to = (call->offset + call->count + unit - 1) & ~(unit - 1);

	call->answered = false;
	if (call->request)
		call->request->extents->nr = 0;
	return nbd_aio_block_status(link->handle, least(to - from, LENGTH_MAX),
				    from, extent, completion, 0);
}

/* A hint: blocks that are not whole are left out. */
static int64_t issue_cache(struct link *link, struct call *call,
			   nbd_completion_callback completion)
{
	struct remote *remote = link->remote;
	uint64_t unit = remote->stage.geometry.read_unit;
	uint64_t from = (call->offset + call->done) & ~(unit - 1);
	uint64_t to = (call->offset + call->count + unit - 1) & ~(unit - 1);
	uint64_t length = least(to - from, remote->longest);

	call->length = least(from + length - (call->offset + call->done),
			     call->count - call->done);
	return nbd_aio_cache(link->handle, length, from, completion, 0);
}

static int64_t issue_zero(struct link *link, struct call *call, uint32_t fua,
			  nbd_completion_callback completion)
{
	struct remote *remote = link->remote;
	uint64_t at = call->offset + call->done;
	uint32_t flags = fua;

	if (!remote->peer.zero) {
		call->length = least(call->length, least(ZEROS_SIZE, remote->longest));
		return nbd_aio_pwrite(link->handle, remote->zeros, call->length,
				      at, completion, fua);
	}
	call->length = least(call->length, LENGTH_MAX);
	if (!(call->flags & REQUEST_MAY_TRIM))
		flags |= LIBNBD_CMD_FLAG_NO_HOLE;
	if (call->flags & REQUEST_FAST_ZERO)
		flags |= LIBNBD_CMD_FLAG_FAST_ZERO;
	return nbd_aio_zero(link->handle, call->length, at, completion, flags);
}

static int64_t issue(struct link *link, struct call *call)
{
	struct remote *remote = link->remote;
	nbd_completion_callback completion = { .callback = call_ended,
					       .user_data = call };
	nbd_chunk_callback piece = { .callback = call_piece, .user_data = call };
	uint64_t at = call->offset + call->done;
	uint32_t fua = 0;

	if (remote->peer.fua && call_is_change(call) &&
	    (call->flags & REQUEST_FUA || !remote->peer.flush))
		fua = LIBNBD_CMD_FLAG_FUA;
	call->length = call->count - call->done;
	switch (call->op) {
	case REQUEST_READ:
		call->arrived.nr = 0;
		return nbd_aio_pread_structured(link->handle, call->data ?
						call->data : call->buffer,
						call->count, at, piece,
						completion, 0);
	case REQUEST_WRITE:
		return nbd_aio_pwrite(link->handle, call->data, call->count, at,
				      completion, fua);
	case REQUEST_ZERO:
		return issue_zero(link, call, fua, completion);
	case REQUEST_TRIM:
		call->length = least(call->length, LENGTH_MAX);
		return nbd_aio_trim(link->handle, call->length, at, completion, fua);
	case REQUEST_FLUSH:
		return nbd_aio_flush(link->handle, completion, 0);
	case REQUEST_EXTENTS:
		return issue_extents(link, call, completion);
	default:
		return issue_cache(link, call, completion);
	}
}

void link_issue(struct link *link, struct call *call)
{
	int refused;

	call->error = 0;
	link_add(link, call);
	if (issue(link, call) >= 0 || call->link != link ||
	    nbd_aio_is_dead(link->handle) > 0 || nbd_aio_is_closed(link->handle) > 0)
		return;
	/* libnbd has refused it. */
	refused = nbd_get_errno();
	call_ended(call, &refused);
}

static bool has_come(struct nbd_handle *handle)
{
	struct pollfd fd = { .fd = nbd_aio_get_fd(handle), .events = POLLIN };

	return nbd_aio_get_direction(handle) & LIBNBD_AIO_DIRECTION_READ &&
	       poll(&fd, 1, 0) > 0;
}

/* libnbd takes one reply at a call.  It is not asked for what has not come:
 * 1.14 then forgets that it was in the middle of sending. */
static void take_replies(struct link *link)
{
	for (unsigned int i = 0; i < REPLIES_A_TURN; i++)
		if (nbd_aio_notify_read(link->handle) < 0 || !link->nr_calls ||
		    !has_come(link->handle))
			return;
}

void link_notify(struct link *link, short revents)
{
	unsigned int direction = nbd_aio_get_direction(link->handle);

	link->heard = clock_now();
	if (revents & (POLLIN | POLLHUP | POLLERR) &&
	    direction & LIBNBD_AIO_DIRECTION_READ) {
		take_replies(link);
	} else if (revents & (POLLOUT | POLLHUP | POLLERR) &&
		   direction & LIBNBD_AIO_DIRECTION_WRITE) {
		nbd_aio_notify_write(link->handle);
	} else if (revents & (POLLERR | POLLHUP | POLLNVAL)) {
		remote_broken(link, -ECONNRESET, false, "the connection has broken");
		return;
	}
	link_check(link);
}

/* ---- the end ------------------------------------------------------------------------------ */

/* A server that is told ends its side at once. */
static void say_goodbye(struct nbd_handle *handle)
{
	struct pollfd fd = { .fd = nbd_aio_get_fd(handle), .events = POLLOUT };

	if (nbd_aio_disconnect(handle, 0) < 0)
		return;
	while (nbd_aio_get_direction(handle) & LIBNBD_AIO_DIRECTION_WRITE) {
		if (poll(&fd, 1, GOODBYE_TIMEOUT) <= 0 ||
		    nbd_aio_notify_write(handle) < 0)
			return;
	}
}

void link_close(struct link *link)
{
	struct remote *remote = link->remote;
	struct call *call;

	link->closing = true;
	if (link->handle) {
		if (nbd_aio_is_ready(link->handle) > 0)
			say_goodbye(link->handle);
		nbd_close(link->handle);
	}
	link->handle = NULL;
	link->state = LINK_DOWN;
	/* From the last to the first: each goes before its kind. */
	while ((call = TAILQ_LAST(&link->calls, calls))) {
		link_remove(link, call);
		call->done = 0;
		if (call->is_kept || call == remote->flush)
			continue;
		if (call->request)
			remote_requeue(remote, call);
		else
			call_free(call);
	}
}
