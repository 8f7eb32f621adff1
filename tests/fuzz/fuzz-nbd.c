/* fuzz-nbd.c: any bytes from a client, against a whole server.  The first byte
 * says where they begin: after the greeting, or after a handshake that asked
 * for everything.  The server must answer or close, in time. */
#include <errno.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include "src/export.h"
#include "src/frontend/nbd.h"
#include "src/frontend/nbd/wire.h"
#include "src/log.h"
#include "tests/fuzz/fuzz.h"

static struct sockaddr_un address = { .sun_family = AF_UNIX };
static socklen_t address_size = sizeof(sa_family_t);	/* the kernel names it */

static void serve(void)
{
	static struct export export = {
		.name = (char *)"a", .description = (char *)"an export",
		.minimum_block = 1, .preferred_block = 4096, .maximum_block = 1u << 20,
	};
	struct nbd_options options = { .max_bytes = 64u << 20, .threads = 1, .no_poll = true };
	struct nbd_server *server;
	int listener = socket(AF_UNIX, SOCK_STREAM, 0);

	expect(bind(listener, (struct sockaddr *)&address, address_size) == 0);
	address_size = sizeof(address);
	expect(getsockname(listener, (struct sockaddr *)&address, &address_size) == 0);
	expect(listen(listener, 16) == 0);
	log_open("stderr", LOG_LEVEL_ERROR);
	expect(memory_open(1u << 20, &export.stage) == 0);
	expect(nbd_server_open(&options, &server) == 0);
	expect(nbd_server_add(server, &export) == 0);
	expect(nbd_server_listen_fd(server, listener) == 0);
	expect(nbd_server_start(server) == 0);
}

static uint8_t *put_option(uint8_t *at, uint32_t option, const char *data, uint32_t count)
{
	at = wire_put64(at, NBD_OPTION_MAGIC);
	at = wire_put32(at, option);
	at = wire_put32(at, count);
	memcpy(at, data, count);
	return at + count;
}

/* Returns how long it is. */
static size_t handshake(uint8_t *at, int whole)
{
	static const char context[] = "\0\0\0\1a\0\0\0\1\0\0\0\17base:allocation";
	static const char go[] = "\0\0\0\1a\0\0";
	uint8_t *first = at;

	at = wire_put32(at, NBD_FIXED_NEWSTYLE | NBD_NO_ZEROES);
	if (whole) {
		at = put_option(at, NBD_OPT_STRUCTURED_REPLY, "", 0);
		at = put_option(at, NBD_OPT_SET_META_CONTEXT, context, sizeof(context) - 1);
		at = put_option(at, NBD_OPT_GO, go, sizeof(go) - 1);
	}
	return (size_t)(at - first);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t count)
{
	static int serving;
	static uint8_t answer[1u << 16];
	struct timeval limit = { .tv_sec = 8 };
	uint8_t opening[256];
	size_t opening_count;
	ssize_t got;
	int fd;

	if (!serving++)
		serve();
	if (count == 0)
		return 0;
	fd = socket(AF_UNIX, SOCK_STREAM, 0);
	expect(connect(fd, (struct sockaddr *)&address, address_size) == 0);
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
	setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit));
	opening_count = handshake(opening, data[0] & 1);
	/* The server may have closed already: that is its right. */
	if (send(fd, opening, opening_count, MSG_NOSIGNAL) == (ssize_t)opening_count &&
	    send(fd, data + 1, count - 1, MSG_NOSIGNAL | MSG_DONTWAIT) >= 0)
		shutdown(fd, SHUT_WR);
	else
		shutdown(fd, SHUT_RDWR);
	do
		got = recv(fd, answer, sizeof(answer), 0);
	while (got > 0);
	expect(got == 0 || (errno != EAGAIN && errno != EWOULDBLOCK));
	close(fd);
	return 0;
}
