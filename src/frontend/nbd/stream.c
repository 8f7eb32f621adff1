/* stream.c: the bytes of a connection, plain or through TLS; never waits. */
#include <errno.h>
#include <fcntl.h>
#include <openssl/err.h>
#include <unistd.h>

#include "src/frontend/nbd/connection.h"
#include "src/log.h"

/* What goes into one SSL_write: four TLS records of the longest kind. */
#define GATHER_BYTES NBD_RECEIVE_BYTES

/* Why OpenSSL did not go on, as -errno. */
static int tls_error(struct nbd_connection *connection, int result)
{
	char text[120];
	unsigned long reason;
	int saved = errno;

	switch (SSL_get_error(connection->tls, result)) {
	case SSL_ERROR_WANT_READ:
	case SSL_ERROR_WANT_WRITE:
		return -EAGAIN;
	case SSL_ERROR_ZERO_RETURN:
		return 0;
	case SSL_ERROR_SYSCALL:
		return saved ? -saved : -ECONNRESET;
	default:
		reason = ERR_peek_error();
		ERR_error_string_n(reason, text, sizeof(text));
		log_debug("nbd: %s: TLS: %s", connection->peer, text);
		return -EPROTO;
	}
}

static ssize_t tls_read(struct nbd_connection *connection,
			const struct iovec *iov, int nr_iov)
{
	ssize_t all = 0;
	int i = 0, got, error;
	size_t done = 0;

	while (i < nr_iov) {
		if (iov[i].iov_len == done) {
			i++;
			done = 0;
			continue;
		}
		ERR_clear_error();
		errno = 0;
		got = SSL_read(connection->tls, (uint8_t *)iov[i].iov_base + done,
			       (int)(iov[i].iov_len - done));
		if (got <= 0) {
			error = tls_error(connection, got);
			/* It has to answer the peer (a new key was asked for). */
			if (error == -EAGAIN && SSL_want_write(connection->tls))
				connection->answering = connection->unsent = true;
			return all ? all : error;
		}
		done += (size_t)got;
		all += got;
	}
	/* All that was asked for: epoll does not know what OpenSSL still has. */
	connection->read_again = true;
	return all;
}

/* Small pieces go together into one record, big ones straight.  A write that
 * had to stop is tried again with the same bytes at its front, as OpenSSL
 * wants it, because replies leave in order. */
static ssize_t tls_write(struct nbd_connection *connection,
			 const struct iovec *iov, int nr_iov)
{
	uint8_t *gather = connection->loop->gather;
	const void *from = iov[0].iov_base;
	size_t count = iov[0].iov_len;
	int i, sent, error;

	if (count < GATHER_BYTES && nr_iov > 1) {
		count = 0;
		for (i = 0; i < nr_iov && count < GATHER_BYTES; i++) {
			size_t part = iov[i].iov_len;

			if (part > GATHER_BYTES - count)
				part = GATHER_BYTES - count;
			memcpy(gather + count, iov[i].iov_base, part);
			count += part;
		}
		from = gather;
	}
	ERR_clear_error();
	errno = 0;
	sent = SSL_write(connection->tls, from, (int)count);
	if (sent > 0)
		return sent;
	error = tls_error(connection, sent);
	return error ? error : -EPIPE;
}

int nbd_stream_start_tls(struct nbd_connection *connection)
{
	int result;

	if (!connection->tls) {
		connection->tls = SSL_new(connection->server->tls);
		if (!connection->tls ||
		    SSL_set_rfd(connection->tls, connection->in) != 1 ||
		    SSL_set_wfd(connection->tls, connection->out) != 1)
			return -ENOMEM;
		SSL_set_accept_state(connection->tls);
	}
	ERR_clear_error();
	errno = 0;
	result = SSL_do_handshake(connection->tls);
	if (result == 1)
		return 0;
	connection->unsent = SSL_want_write(connection->tls);
	result = tls_error(connection, result);
	return result ? result : -ECONNRESET;
}

ssize_t nbd_stream_read(struct nbd_connection *connection,
			const struct iovec *iov, int nr_iov)
{
	ssize_t got;

	if (connection->tls)
		return tls_read(connection, iov, nr_iov);
	do {
		if (nr_iov == 1)
			got = read(connection->in, iov[0].iov_base, iov[0].iov_len);
		else
			got = readv(connection->in, iov, nr_iov);
	} while (got < 0 && errno == EINTR);
	return got < 0 ? -errno : got;
}

ssize_t nbd_stream_write(struct nbd_connection *connection,
			 const struct iovec *iov, int nr_iov)
{
	ssize_t sent;

	if (connection->tls) {
		sent = tls_write(connection, iov, nr_iov);
	} else {
		do
			sent = writev(connection->out, iov, nr_iov);
		while (sent < 0 && errno == EINTR);
		if (sent < 0)
			sent = -errno;
	}
	if (sent > 0) {
		atomic_store_explicit(&connection->bytes_out,
			atomic_load_explicit(&connection->bytes_out, memory_order_relaxed) +
			(unsigned long long)sent, memory_order_relaxed);
	}
	return sent;
}

static void give_back(int fd, int flags)
{
	if (flags >= 0)		/* whoever shares it may not expect O_NONBLOCK */
		fcntl(fd, F_SETFL, flags);
	close(fd);
}

void nbd_stream_close(struct nbd_connection *connection)
{
	if (connection->tls) {
		ERR_clear_error();
		if (SSL_is_init_finished(connection->tls))
			SSL_shutdown(connection->tls);
		SSL_free(connection->tls);
		connection->tls = NULL;
	}
	if (connection->out != connection->in)
		give_back(connection->out, connection->out_flags);
	give_back(connection->in, connection->in_flags);
	connection->in = connection->out = -1;
}
