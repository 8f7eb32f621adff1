/* listen.c: the sockets that clients come in by. */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <netdb.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "src/clock.h"
#include "src/frontend/nbd/connection.h"
#include "src/log.h"

#define BACKLOG 1024
#define LOCK_TRIES 500		/* 5 s in all */
#define ACCEPTS_PER_TURN 64
/* Without descriptors, accepting is tried again after this. */
#define ACCEPT_PAUSE (100 * CLOCK_MS)
/* A machine that vanished says no goodbye: after this many seconds without a
 * word it is asked, and so often. */
#define KEEPALIVE_IDLE	   60
#define KEEPALIVE_INTERVAL 15
#define KEEPALIVE_TRIES	   6
/* Room for replies in a UNIX socket; the kernel cuts it at its own bound. */
#define UNIX_SEND_BYTES (4 << 20)

static int listener_add(struct nbd_server *server, int fd, const char *address,
			struct nbd_listener **added)
{
	struct nbd_listener *listener = calloc(1, sizeof(*listener));

	if (!listener || !(listener->address = strdup(address))) {
		free(listener);
		return -ENOMEM;
	}
	listener->source.kind = NBD_LISTENER;
	listener->source.owner = listener;
	listener->fd = fd;
	STAILQ_INSERT_TAIL(&server->listeners, listener, link);
	server->only_descriptors = false;
	if (added)
		*added = listener;
	return 0;
}

void nbd_listener_close(struct nbd_listener *listener)
{
	struct stat st;

	close(listener->fd);
	if (listener->path && lstat(listener->path, &st) == 0 &&
	    st.st_dev == listener->device && st.st_ino == listener->inode)
		unlink(listener->path);
	free(listener->path);
	free(listener->address);
	free(listener);
}

/* ---- UNIX ------------------------------------------------------------------------- */

/* Removes a socket that nobody listens at.  The caller holds the folder's lock. */
static int replace_stale(const char *path, const struct sockaddr_un *address)
{
	struct stat st;
	int fd, live, saved;

	if (lstat(path, &st) < 0)
		return errno == ENOENT ? 0 : -errno;
	if (!S_ISSOCK(st.st_mode)) {
		log_error("%s exists and is no socket; remove it or give another path",
			  path);
		return -EEXIST;
	}
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return -errno;
	live = connect(fd, (const struct sockaddr *)address, sizeof(*address));
	saved = errno;
	close(fd);
	/* EAGAIN: somebody listens and has a full backlog. */
	if (live == 0 || saved == EAGAIN) {
		log_error("%s: somebody listens there already; unmount that or give another path",
			  path);
		return -EADDRINUSE;
	}
	if (saved != ECONNREFUSED) {
		log_error("%s: cannot tell whether it is in use: %s", path,
			  strerror(saved));
		return -saved;
	}
	return unlink(path) < 0 ? -errno : 0;
}

/* Two servers must not both find the same socket stale: the folder is locked
 * meanwhile.  Others may lock it too, whoever can read it: waiting for them has
 * an end.  Returns the lock's descriptor or -errno. */
static int folder_lock(const char *path)
{
	const struct timespec pause = { 0, 10000000 };
	char *copy = strdup(path);
	unsigned int tries = LOCK_TRIES;
	int fd;

	if (!copy)
		return -ENOMEM;
	fd = open(dirname(copy), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	free(copy);
	if (fd < 0)
		return -errno;
	while (flock(fd, LOCK_EX | LOCK_NB) < 0) {
		int error = errno;

		if (error == EINTR || (error == EWOULDBLOCK && --tries)) {
			nanosleep(&pause, NULL);
			continue;
		}
		close(fd);
		return error == EWOULDBLOCK ? -EBUSY : -error;
	}
	return fd;
}

/* The mode of the socket itself is what bind() gives to its name (less the
 * umask), so that it is never open to others, not even for a moment. */
static int bind_private(int fd, const struct sockaddr_un *address)
{
	if (fchmod(fd, 0600) < 0 ||
	    bind(fd, (const struct sockaddr *)address, sizeof(*address)) < 0 ||
	    chmod(address->sun_path, 0600) < 0 || listen(fd, BACKLOG) < 0)
		return -errno;
	return 0;
}

int nbd_server_listen_unix(struct nbd_server *server, const char *path)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	struct nbd_listener *listener;
	struct stat st;
	char text[sizeof(address.sun_path) + 8];
	int lock, fd, error;

	if (strlen(path) >= sizeof(address.sun_path)) {
		log_error("%s: a socket's path has at most %zu bytes; give a shorter one",
			  path, sizeof(address.sun_path) - 1);
		return -ENAMETOOLONG;
	}
	strcpy(address.sun_path, path);
	lock = folder_lock(path);
	if (lock == -EBUSY) {
		log_error("%s: somebody holds a lock (flock) on its folder; give a path in another one",
			  path);
		return lock;
	} else if (lock < 0) {
		log_error("%s: its folder cannot be used: %s", path, strerror(-lock));
		return lock;
	}
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	error = fd < 0 ? -errno : replace_stale(path, &address);
	if (!error) {
		error = bind_private(fd, &address);
		if (error)
			log_error("cannot listen at %s: %s", path, strerror(-error));
	}
	close(lock);
	snprintf(text, sizeof(text), "unix:%s", path);
	if (!error)
		error = listener_add(server, fd, text, &listener);
	if (error) {
		if (fd >= 0)
			close(fd);
		return error;
	}
	listener->path = strdup(path);
	if (lstat(path, &st) == 0) {
		listener->device = st.st_dev;
		listener->inode = st.st_ino;
	}
	return 0;
}

/* ---- TCP --------------------------------------------------------------------------- */

static bool is_loopback(const struct sockaddr *address)
{
	const struct sockaddr_in *v4 = (const void *)address;
	const struct sockaddr_in6 *v6 = (const void *)address;

	if (address->sa_family == AF_INET)
		return ntohl(v4->sin_addr.s_addr) >> 24 == 127;
	return address->sa_family == AF_INET6 && IN6_IS_ADDR_LOOPBACK(&v6->sin6_addr);
}

/* What others can reach must be protected, or meant. */
static int check_public(const struct nbd_server *server,
			const struct sockaddr *address, const char *text)
{
	if (server->tls || server->options.insecure_public || is_loopback(address))
		return 0;
	log_error("%s can be reached from other machines and is not protected: use nbds: with --tls-certificates or --tls-psk, or say --insecure-public",
		  text);
	return -EINVAL;
}

static void address_text(const struct sockaddr *address, socklen_t size,
			 char *text, size_t room)
{
	char host[NI_MAXHOST], port[NI_MAXSERV];

	if (getnameinfo(address, size, host, sizeof(host), port, sizeof(port),
			NI_NUMERICHOST | NI_NUMERICSERV) != 0)
		snprintf(text, room, "unknown address");
	else
		snprintf(text, room, strchr(host, ':') ? "[%s]:%s" : "%s:%s", host, port);
}

static int bind_tcp(const struct addrinfo *info, uint16_t port)
{
	struct sockaddr_storage address;
	int fd, error, yes = 1;

	memcpy(&address, info->ai_addr, info->ai_addrlen);
	if (address.ss_family == AF_INET6)
		((struct sockaddr_in6 *)&address)->sin6_port = htons(port);
	else
		((struct sockaddr_in *)&address)->sin_port = htons(port);
	fd = socket(info->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return -errno;
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof(yes));
	if (info->ai_family == AF_INET6)
		setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &yes, sizeof(yes));
	if (bind(fd, (struct sockaddr *)&address, info->ai_addrlen) < 0 ||
	    listen(fd, BACKLOG) < 0) {
		error = -errno;
		close(fd);
		return error;
	}
	return fd;
}

static uint16_t bound_port(int fd)
{
	struct sockaddr_storage address;
	socklen_t size = sizeof(address);

	if (getsockname(fd, (struct sockaddr *)&address, &size) < 0)
		return 0;
	return ntohs(address.ss_family == AF_INET6 ?
		     ((struct sockaddr_in6 *)&address)->sin6_port :
		     ((struct sockaddr_in *)&address)->sin_port);
}

/* A name may stand for several addresses (localhost: 127.0.0.1 and ::1): all
 * that this machine has get the same port. */
static int listen_tcp_at(struct nbd_server *server, const struct addrinfo *info,
			 uint16_t *port)
{
	struct sockaddr_storage address;
	socklen_t size = sizeof(address);
	char text[NI_MAXHOST + 16];
	int fd = bind_tcp(info, *port);
	int error;

	if (fd < 0)
		return fd;
	*port = bound_port(fd);
	if (getsockname(fd, (struct sockaddr *)&address, &size) < 0)
		size = 0;
	address_text((struct sockaddr *)&address, size, text, sizeof(text));
	error = listener_add(server, fd, text, NULL);
	if (error)
		close(fd);
	return error;
}

int nbd_server_listen_tcp(struct nbd_server *server, const char *address,
			  uint16_t *port)
{
	const struct addrinfo hints = { .ai_flags = AI_PASSIVE,
					.ai_socktype = SOCK_STREAM };
	bool any = address && strcmp(address, "*") == 0;
	struct addrinfo *all, *info;
	int error = 0, result, nr = 0;

	if (!address || !*address)
		address = "localhost";
	result = getaddrinfo(any ? NULL : address, "0", &hints, &all);
	if (result) {
		log_error("%s: no such address: %s", address, gai_strerror(result));
		return -EADDRNOTAVAIL;
	}
	for (info = all; info && !error; info = info->ai_next)
		error = check_public(server, info->ai_addr, address);
	if (error) {
		freeaddrinfo(all);
		return error;
	}
	for (info = all; info; info = info->ai_next) {
		result = listen_tcp_at(server, info, port);
		if (result == 0)
			nr++;
		else if (!error)
			error = result;
	}
	freeaddrinfo(all);
	/* A machine without IPv6 may have ::1 in its hosts file; a port in use
	 * is another matter. */
	if (nr && error != -EADDRINUSE)
		return 0;
	log_error("cannot listen at %s port %u: %s", address, *port, strerror(-error));
	return error ? error : -EADDRNOTAVAIL;
}

/* ---- given sockets ------------------------------------------------------------------ */

int nbd_server_listen_fd(struct nbd_server *server, int fd)
{
	struct sockaddr_storage address = { 0 };
	socklen_t size = sizeof(address), int_size = sizeof(int);
	char text[NI_MAXHOST + 16] = "unix";
	int listening = 0, error = 0, flags;

	if (getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listening, &int_size) < 0 ||
	    !listening || getsockname(fd, (struct sockaddr *)&address, &size) < 0) {
		log_error("descriptor %d is no listening socket", fd);
		return -ENOTSOCK;
	}
	if (address.ss_family != AF_UNIX) {
		address_text((struct sockaddr *)&address, size, text, sizeof(text));
		error = check_public(server, (struct sockaddr *)&address, text);
	} else if (((struct sockaddr_un *)&address)->sun_path[0]) {
		snprintf(text, sizeof(text), "unix:%.*s",
			 (int)sizeof(((struct sockaddr_un *)&address)->sun_path),
			 ((struct sockaddr_un *)&address)->sun_path);
	}
	if (error)
		return error;
	flags = fcntl(fd, F_GETFL);
	fcntl(fd, F_SETFL, flags | O_NONBLOCK);
	fcntl(fd, F_SETFD, FD_CLOEXEC);
	return listener_add(server, fd, text, NULL);
}

int nbd_server_serve_fd(struct nbd_server *server, int in, int out)
{
	struct nbd_connection *connection;
	struct stat in_st, out_st;
	char *peer;

	if (fstat(in, &in_st) < 0 || fstat(out, &out_st) < 0 ||
	    (!S_ISSOCK(in_st.st_mode) && !S_ISFIFO(in_st.st_mode)) ||
	    (!S_ISSOCK(out_st.st_mode) && !S_ISFIFO(out_st.st_mode))) {
		log_error("descriptors %d and %d are no connected stream: NBD needs a socket or two pipes",
			  in, out);
		return -ENOTSOCK;
	}
	if (asprintf(&peer, in == out ? "descriptor %d" : "descriptors %d and %d",
		     in, out) < 0)
		return -ENOMEM;
	connection = nbd_connection_new(server, in, out, true, peer);
	if (!connection) {
		free(peer);
		return -ENOMEM;
	}
	TAILQ_INSERT_TAIL(&server->waiting, connection, link);
	return 0;
}

/* ---- accepting ------------------------------------------------------------------------ */

static char *peer_text(int fd, const struct sockaddr *address, socklen_t size)
{
	char text[NI_MAXHOST + 16];
	struct ucred peer;
	socklen_t peer_size = sizeof(peer);

	if (address->sa_family != AF_UNIX)
		address_text(address, size, text, sizeof(text));
	else if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &peer_size) == 0)
		snprintf(text, sizeof(text), "pid %d uid %u", peer.pid, peer.uid);
	else
		snprintf(text, sizeof(text), "unix");
	return strdup(text);
}

/* The server is full: the oldest client that has not finished its handshake
 * gives way.  Returns whether there was one. */
static bool evict_oldest(struct nbd_server *server)
{
	struct nbd_connection *connection, *oldest = NULL;
	struct nbd_loop *loop = NULL;
	unsigned int i;

	/* All locks at once, in order: a connection that is on a list under its
	 * loop's lock is not freed. */
	for (i = 0; i < server->nr_loops; i++) {
		pthread_mutex_lock(&server->loops[i].lock);
		TAILQ_FOREACH(connection, &server->loops[i].connections, link)
			if (atomic_load(&connection->handshaking) &&
			    !atomic_load(&connection->evict) &&
			    (!oldest || connection->id - oldest->id > UINT32_MAX / 2)) {
				oldest = connection;
				loop = &server->loops[i];
			}
	}
	if (oldest)
		atomic_store(&oldest->evict, true);
	while (i-- > 0)
		pthread_mutex_unlock(&server->loops[i].lock);
	if (!oldest)
		return false;
	atomic_fetch_add(&server->counters.evicted, 1);
	nbd_loop_attend(loop);
	return true;
}

static void tune_tcp(int fd)
{
	int yes = 1, idle = KEEPALIVE_IDLE, interval = KEEPALIVE_INTERVAL,
	    tries = KEEPALIVE_TRIES;

	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof(yes));
	setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &yes, sizeof(yes));
	setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle, sizeof(idle));
	setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &interval, sizeof(interval));
	setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &tries, sizeof(tries));
}

static void arrive(struct nbd_server *server, int fd,
		   const struct sockaddr *address, socklen_t size)
{
	struct nbd_connection *connection = NULL;
	int room = UNIX_SEND_BYTES;
	char *peer;

	if (atomic_load(&server->nr_clients) >= server->options.max_clients &&
	    !evict_oldest(server)) {
		if (atomic_fetch_add(&server->counters.refused, 1) == 0)
			log_warning("nbd: %u clients are connected and one more was refused; more are let in with --max-clients",
				    server->options.max_clients);
		close(fd);
		return;
	}
	if (address->sa_family == AF_UNIX)
		setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &room, sizeof(room));
	else
		tune_tcp(fd);
	peer = peer_text(fd, address, size);
	if (peer)
		connection = nbd_connection_new(server, fd, fd, false, peer);
	if (!connection) {
		log_error("nbd: no memory for a client");
		free(peer);
		close(fd);
		return;
	}
	nbd_connection_place(connection);
}

void nbd_listener_accept(struct nbd_loop *loop, struct nbd_listener *listener)
{
	struct epoll_event none = { 0, { .ptr = &listener->source } };
	struct sockaddr_storage address;
	unsigned int i;
	socklen_t size;
	int fd;

	for (i = 0; i < ACCEPTS_PER_TURN; i++) {
		size = sizeof(address);
		fd = accept4(listener->fd, (struct sockaddr *)&address, &size,
			     SOCK_CLOEXEC | SOCK_NONBLOCK);
		if (fd >= 0) {
			arrive(loop->server, fd, (struct sockaddr *)&address, size);
			continue;
		}
		if (errno == EINTR || errno == ECONNABORTED)
			continue;
		if (errno == EAGAIN)
			return;
		/* Descriptors or memory: level-triggered, it would spin. */
		log_error("nbd: cannot accept at %s: %s; trying on",
			  listener->address, strerror(errno));
		epoll_ctl(loop->epoll, EPOLL_CTL_MOD, listener->fd, &none);
		loop->pause_until = loop->now + ACCEPT_PAUSE;
		return;
	}
}
