/* nbd.h: the NBD server: fixed newstyle, over UNIX sockets, TCP and TLS.
 *
 * One server listens at any number of addresses and offers any number of
 * exports.  A few threads share the connections; each runs one event loop.
 * Hostile peers cost bounded memory and time: themselves only.
 */
#ifndef OBJMAP_NBD_H
#define OBJMAP_NBD_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "src/export.h"

struct nbd_server;

enum nbd_tls { NBD_TLS_OFF, NBD_TLS_REQUIRE };

struct nbd_options {
	unsigned int max_clients;	/* 0: 2,048 */
	unsigned int max_client_requests; /* in flight, a connection; 0: 128 */
	uint64_t max_client_bytes;	/* payload in flight, a connection; 0: 64 MiB */
	uint64_t max_bytes;		/* payload in flight, all; 0: 256 MiB */
	unsigned int threads;		/* 0: one per CPU, at most 8 */
	bool no_poll;			/* never poll before blocking */
	uint64_t handshake_timeout;	/* ns; 0: 10 s */
	enum nbd_tls tls;
	const char *tls_certificates;	/* directory: ca-cert.pem, server-cert.pem, server-key.pem */
	const char *tls_psk;		/* file of USER:HEX lines */
	bool tls_verify_peer;
	bool insecure_public;
	/* Told when the last connection of a server that serves given
	 * descriptors only has ended; may be NULL. */
	void (*ended)(void *context);
	void *context;
};

/* Loads certificates and keys, raises RLIMIT_NOFILE; starts no thread.
 * Returns 0 or -errno, logged. */
int nbd_server_open(const struct nbd_options *options,
		    struct nbd_server **server);

/* Before the start.  A client that asks for "" gets the export of that name,
 * or the only one there is.  -EEXIST (the name is taken), -EINVAL (a name that
 * is not UTF-8), -ENAMETOOLONG (above 4,096 bytes). */
int nbd_server_add(struct nbd_server *server, struct export *export);

/* Each binds and listens; connections wait until nbd_server_start().
 * UNIX: made 0600; a stale socket is replaced, a live one refused (-EADDRINUSE).
 * TCP: @port 0 takes a free one, and *port says which.  A public address
 * without TLS needs insecure_public (-EINVAL). */
int nbd_server_listen_unix(struct nbd_server *server, const char *path);
int nbd_server_listen_tcp(struct nbd_server *server, const char *address,
			  uint16_t *port);
/* Sockets that listen already (systemd). */
int nbd_server_listen_fd(struct nbd_server *server, int fd);
/* A connected stream, a socket or two pipes; @in and @out may be the same.
 * The server owns them from now on, and gives them their flags back when it
 * closes them. */
int nbd_server_serve_fd(struct nbd_server *server, int in, int out);

int nbd_server_start(struct nbd_server *server);

/* While the others go on: offers @export no more, cuts its clients off, and waits until
 * nothing of theirs is under way in its stages.  What they read is cancelled. */
void nbd_server_remove(struct nbd_server *server, struct export *export);

/* Stops listening, answers what is in flight (at most @timeout ns for a peer
 * that does not read), closes every connection, joins the threads, removes
 * its sockets. */
void nbd_server_stop(struct nbd_server *server, uint64_t timeout);
void nbd_server_close(struct nbd_server *server);

/* For status: addresses, connections (peer, export, requests in flight, bytes
 * in and out, TLS), counters.  A new reference. */
json_t *nbd_server_status(struct nbd_server *server);

#endif
