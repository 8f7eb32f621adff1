/* nbd-limit.c: the least that an NBD server can do, to measure ours against.
 *
 *     nbd-limit SOCKET MIB [poll]
 *
 * A flat buffer, one thread per connection, no checks: whatever one recv()
 * brought is answered by one writev().  With "poll" it polls without end
 * before it blocks.  What a client reaches here is the limit of socket and
 * client on this machine, with the structured replies that ours has to give,
 * too.  For measurements only: it trusts its client. */
#include <errno.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <unistd.h>

#include "src/frontend/nbd/wire.h"

#define RECEIVE_BYTES 65536u
#define REPLIES_MAX 512		/* two pieces each, within IOV_MAX */
#define POLLS 2000

static uint8_t *memory;
static uint64_t size;
static int polls;

struct peer {
	int fd;
	size_t have;
	bool structured;		/* replies, as every client of today asks for */
	int nr_pieces, nr_replies;
	uint8_t in[RECEIVE_BYTES];
	uint8_t heads[REPLIES_MAX][NBD_CHUNK_BYTES + 8];
	struct iovec pieces[2 * REPLIES_MAX];
};

static int read_all(int fd, void *buffer, size_t count)
{
	while (count) {
		ssize_t got = read(fd, buffer, count);

		if (got <= 0)
			return -1;
		buffer = (uint8_t *)buffer + got;
		count -= (size_t)got;
	}
	return 0;
}

static int write_all(int fd, struct iovec *pieces, int nr)
{
	while (nr) {
		ssize_t sent = writev(fd, pieces, nr);

		if (sent < 0)
			return -1;
		while (nr && (size_t)sent >= pieces->iov_len) {
			sent -= (ssize_t)pieces->iov_len;
			pieces++;
			nr--;
		}
		if (nr) {
			pieces->iov_base = (uint8_t *)pieces->iov_base + sent;
			pieces->iov_len -= (size_t)sent;
		}
	}
	return 0;
}

static int say(int fd, uint32_t option, uint32_t type, const void *data, uint32_t count)
{
	uint8_t head[NBD_OPTION_REPLY_BYTES], *at = head;
	struct iovec pieces[2] = { { head, sizeof(head) }, { (void *)data, count } };

	at = wire_put64(at, NBD_OPTION_REPLY_MAGIC);
	at = wire_put32(at, option);
	at = wire_put32(at, type);
	wire_put32(at, count);
	return write_all(fd, pieces, count ? 2 : 1);
}

static int handshake(struct peer *peer)
{
	int fd = peer->fd;
	uint8_t buffer[RECEIVE_BYTES], *at = buffer;
	uint8_t entry[12];
	uint32_t option, count;

	at = wire_put64(at, NBD_MAGIC);
	at = wire_put64(at, NBD_OPTION_MAGIC);
	wire_put16(at, NBD_FIXED_NEWSTYLE | NBD_NO_ZEROES);
	if (write(fd, buffer, 18) != 18 || read_all(fd, buffer, 4))
		return -1;
	for (;;) {
		if (read_all(fd, buffer, NBD_OPTION_BYTES))
			return -1;
		option = wire_get32(buffer + 8);
		count = wire_get32(buffer + 12);
		if (count > sizeof(buffer) || read_all(fd, buffer, count))
			return -1;
		if (option == NBD_OPT_STRUCTURED_REPLY) {
			peer->structured = true;
			if (say(fd, option, NBD_REP_ACK, NULL, 0))
				return -1;
			continue;
		}
		if (option != NBD_OPT_GO && option != NBD_OPT_INFO) {
			if (say(fd, option, NBD_REP_ERR_UNSUP, NULL, 0) ||
			    option == NBD_OPT_ABORT)
				return -1;
			continue;
		}
		at = wire_put16(entry, NBD_INFO_EXPORT);
		at = wire_put64(at, size);
		wire_put16(at, NBD_HAS_FLAGS | NBD_SEND_FLUSH | NBD_CAN_MULTI_CONN);
		if (say(fd, option, NBD_REP_INFO, entry, 12) ||
		    say(fd, option, NBD_REP_ACK, NULL, 0))
			return -1;
		if (option == NBD_OPT_GO)
			return 0;
	}
}

/* Begins the reply to the request at @at; returns the length of its head. */
static size_t reply_head(const struct peer *peer, uint8_t *head, const uint8_t *at)
{
	bool data = wire_get16(at + 6) == NBD_CMD_READ;
	uint8_t *next;

	if (!peer->structured) {
		wire_put32(wire_put32(head, NBD_SIMPLE_REPLY_MAGIC), 0);
		memcpy(head + 8, at + 8, 8);
		return NBD_SIMPLE_REPLY_BYTES;
	}
	next = wire_put16(wire_put32(head, NBD_CHUNK_MAGIC), NBD_CHUNK_DONE);
	next = wire_put16(next, data ? NBD_CHUNK_OFFSET_DATA : NBD_CHUNK_NONE);
	memcpy(next, at + 8, 8);
	next = wire_put32(next + 8, data ? wire_get32(at + 24) + 8 : 0);
	if (data)
		memcpy(next, at + 16, 8);
	return NBD_CHUNK_BYTES + (data ? 8 : 0);
}

/* Answers what is whole in the buffer. */
static int answer(struct peer *peer)
{
	uint8_t *at = peer->in, *end = peer->in + peer->have, *head;

	peer->nr_pieces = peer->nr_replies = 0;
	while (end - at >= NBD_REQUEST_BYTES && peer->nr_replies < REPLIES_MAX) {
		uint16_t command = wire_get16(at + 6);
		uint64_t offset = wire_get64(at + 16);
		uint32_t count = wire_get32(at + 24);
		size_t here;

		if (command == NBD_CMD_DISC)
			return -1;
		head = peer->heads[peer->nr_replies++];
		peer->pieces[peer->nr_pieces++] =
			(struct iovec){ head, reply_head(peer, head, at) };
		at += NBD_REQUEST_BYTES;
		if (command == NBD_CMD_READ)
			peer->pieces[peer->nr_pieces++] =
				(struct iovec){ memory + offset, count };
		if (command == NBD_CMD_WRITE) {
			here = (size_t)(end - at) < count ? (size_t)(end - at) : count;
			memcpy(memory + offset, at, here);
			at += here;
			if (here < count &&
			    read_all(peer->fd, memory + offset + here, count - here))
				return -1;
		}
	}
	peer->have = (size_t)(end - at);
	memmove(peer->in, at, peer->have);
	return write_all(peer->fd, peer->pieces, peer->nr_pieces);
}

static void *serve(void *arg)
{
	struct peer *peer = arg;
	int tries, flags;
	ssize_t got;

	if (handshake(peer))
		goto out;
	for (;;) {
		tries = polls;
		do {
			flags = tries ? MSG_DONTWAIT : 0;
			got = recv(peer->fd, peer->in + peer->have,
				   sizeof(peer->in) - peer->have, flags);
		} while (got < 0 && errno == EAGAIN && tries-- > 0);
		if (got < 0 && errno == EAGAIN)
			continue;
		if (got <= 0)
			break;
		peer->have += (size_t)got;
		if (answer(peer))
			break;
	}
out:
	close(peer->fd);
	free(peer);
	return NULL;
}

int main(int argc, char **argv)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	int listener, room = 4 << 20;
	struct peer *peer;
	pthread_t thread;

	if (argc < 3 || strlen(argv[1]) >= sizeof(address.sun_path))
		return 2;
	size = strtoull(argv[2], NULL, 0) << 20;
	polls = argc > 3 ? POLLS : 0;
	memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
		      -1, 0);
	if (memory == MAP_FAILED)
		return 1;
	memset(memory, 1, size);
	strcpy(address.sun_path, argv[1]);
	unlink(argv[1]);
	listener = socket(AF_UNIX, SOCK_STREAM, 0);
	if (bind(listener, (struct sockaddr *)&address, sizeof(address)) < 0 ||
	    listen(listener, 64) < 0)
		return 1;
	for (;;) {
		peer = calloc(1, sizeof(*peer));
		if (!peer)
			return 1;
		peer->fd = accept(listener, NULL, NULL);
		setsockopt(peer->fd, SOL_SOCKET, SO_SNDBUF, &room, sizeof(room));
		if (pthread_create(&thread, NULL, serve, peer))
			return 1;
		pthread_detach(thread);
	}
}
