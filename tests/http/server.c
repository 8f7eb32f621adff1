/* server.c: the tests' HTTP server; see server.h. */
#include <arpa/inet.h>
#include <assert.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/ssl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "tests/http/server.h"

#define CONNECTIONS_MAX 8192

struct server {
	struct server_options options;
	SSL_CTX *tls;
	int fd;
	unsigned int port;
	pthread_t acceptor;
	pthread_mutex_t lock;		/* guards what follows */
	pthread_cond_t changed;
	bool stopping, shut;
	unsigned int nr_connections, nr_requests, now, most;
	int fds[CONNECTIONS_MAX];	/* -1: closed */
	pthread_t threads[CONNECTIONS_MAX];
};

struct connection {
	struct server *server;
	unsigned int number;
	int fd;
};

/* ---- bytes -------------------------------------------------------------------- */

static ssize_t visit_read(struct visit *visit, void *data, size_t count)
{
	if (visit->tls)
		return SSL_read(visit->tls, data, (int)count);
	return recv(visit->fd, data, count, 0);
}

void visit_write(struct visit *visit, const void *data, size_t count)
{
	const char *at = data;

	while (count) {
		ssize_t n = visit->tls ? SSL_write(visit->tls, at, (int)count) :
					 send(visit->fd, at, count, MSG_NOSIGNAL);

		if (n <= 0)
			return;		/* the client has gone: its business */
		at += n;
		count -= (size_t)n;
	}
}

void visit_say(struct visit *visit, const char *text)
{
	visit_write(visit, text, strlen(text));
}

void visit_reply(struct visit *visit, const void *data, size_t count)
{
	char head[128];

	snprintf(head, sizeof(head),
		 "HTTP/1.1 200 OK\r\nContent-Length: %zu\r\n\r\n", count);
	visit_say(visit, head);
	if (strcmp(visit->method, "HEAD"))
		visit_write(visit, data, count);
}

bool visit_reset(struct visit *visit)
{
	struct linger now = { .l_onoff = 1 };

	setsockopt(visit->fd, SOL_SOCKET, SO_LINGER, &now, sizeof(now));
	return false;
}

bool visit_is(const struct visit *visit, const char *target)
{
	return !strcmp(visit->target, target);
}

bool visit_header(const struct visit *visit, const char *name, char *value, size_t size)
{
	const char *line = strstr(visit->head, "\r\n");
	size_t length = strlen(name), count;

	for (; line && line[2]; line = strstr(line + 2, "\r\n")) {
		if (strncasecmp(line + 2, name, length) || line[2 + length] != ':')
			continue;
		line += 3 + length;
		line += strspn(line, " ");
		count = strcspn(line, "\r");
		snprintf(value, size, "%.*s", (int)count, line);
		return true;
	}
	return false;
}

/* ---- one connection ----------------------------------------------------------- */

/* Takes from the connection what belongs to the head and no more: as much as there
 * is at once, but through TLS, where nothing can be looked at first. */
static ssize_t read_some_head(struct visit *visit, size_t at)
{
	size_t room = sizeof(visit->head) - 1 - at, from = at > 3 ? at - 3 : 0;
	const char *end;
	ssize_t n;

	if (visit->tls)
		return visit_read(visit, visit->head + at, room ? 1 : 0);
	n = recv(visit->fd, visit->head + at, room, MSG_PEEK);
	if (n <= 0)
		return n;
	visit->head[at + (size_t)n] = 0;
	end = strstr(visit->head + from, "\r\n\r\n");
	if (end)
		n = end + 4 - (visit->head + at);
	return recv(visit->fd, visit->head + at, (size_t)n, 0);
}

static bool read_head(struct visit *visit)
{
	char value[32];
	size_t at = 0;
	ssize_t n;

	do {
		n = read_some_head(visit, at);
		if (n <= 0)
			return false;
		at += (size_t)n;
		visit->head[at] = 0;
		if (visit->head[0] == 0x16) {	/* TLS, as real servers say to it */
			visit_say(visit, "HTTP/1.1 400 Bad Request\r\n\r\n");
			return false;
		}
	} while (at < 4 || memcmp(visit->head + at - 4, "\r\n\r\n", 4) != 0);
	if (sscanf(visit->head, "%15s %1023s", visit->method, visit->target) != 2)
		return false;
	visit->length = visit_header(visit, "Content-Length", value, sizeof(value)) ?
				strtoull(value, NULL, 10) : 0;
	return true;
}

static bool read_body(struct visit *visit)
{
	ssize_t n;

	visit->body = malloc(visit->length + 1);
	for (visit->body_count = 0; visit->body_count < visit->length;
	     visit->body_count += (uint64_t)n) {
		n = visit_read(visit, visit->body + visit->body_count,
			       visit->length - visit->body_count);
		if (n <= 0)
			return false;
	}
	visit->body[visit->length] = 0;
	return true;
}

static void count_request(struct server *server, int change)
{
	pthread_mutex_lock(&server->lock);
	server->now += (unsigned int)change;
	if (change > 0)
		server->nr_requests++;
	if (server->now > server->most)
		server->most = server->now;
	pthread_cond_broadcast(&server->changed);
	pthread_mutex_unlock(&server->lock);
}

static bool serve_one(struct visit *visit)
{
	struct server *server = visit->server;
	bool stays;

	free(visit->body);
	visit->body = NULL;
	visit->body_count = 0;
	if (!read_head(visit))
		return false;
	if (!server->options.leaves_body && !read_body(visit))
		return false;
	count_request(server, 1);
	stays = server->options.answer(visit);
	count_request(server, -1);
	visit->number++;
	return stays;
}

static bool start_tls(struct visit *visit)
{
	if (!visit->server->tls)
		return true;
	visit->tls = SSL_new(visit->server->tls);
	SSL_set_fd(visit->tls, visit->fd);
	return SSL_accept(visit->tls) == 1;
}

static void *connection_run(void *context)
{
	struct connection *connection = context;
	struct server *server = connection->server;
	struct visit *visit = calloc(1, sizeof(*visit));
	int one = 1;

	visit->server = server;
	visit->connection = connection->number;
	visit->fd = connection->fd;
	setsockopt(visit->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	if (start_tls(visit))
		while (serve_one(visit))
			;
	SSL_free(visit->tls);
	pthread_mutex_lock(&server->lock);
	server->fds[connection->number] = -1;
	close(visit->fd);
	pthread_mutex_unlock(&server->lock);
	free(visit->body);
	free(visit);
	free(connection);
	return NULL;
}

/* ---- the server --------------------------------------------------------------- */

static void *accept_run(void *context)
{
	struct server *server = context;
	struct connection *connection;
	unsigned int number;
	int fd;

	while ((fd = accept(server->fd, NULL, NULL)) >= 0) {
		connection = calloc(1, sizeof(*connection));
		pthread_mutex_lock(&server->lock);
		number = server->nr_connections++;
		assert(number < CONNECTIONS_MAX);
		connection->server = server;
		connection->number = number;
		connection->fd = server->fds[number] = fd;
		pthread_create(&server->threads[number], NULL, connection_run,
			       connection);
		pthread_mutex_unlock(&server->lock);
	}
	return NULL;
}

struct server *server_start(const struct server_options *options)
{
	struct sockaddr_in address = { .sin_family = AF_INET };
	struct server *server = calloc(1, sizeof(*server));
	socklen_t length = sizeof(address);

	signal(SIGPIPE, SIG_IGN);	/* OpenSSL writes without MSG_NOSIGNAL */
	server->options = *options;
	pthread_mutex_init(&server->lock, NULL);
	pthread_cond_init(&server->changed, NULL);
	if (options->certificate) {
		server->tls = SSL_CTX_new(TLS_server_method());
		assert(SSL_CTX_use_certificate_file(server->tls, options->certificate,
						    SSL_FILETYPE_PEM) == 1);
		assert(SSL_CTX_use_PrivateKey_file(server->tls, options->certificate,
						   SSL_FILETYPE_PEM) == 1);
	}
	server->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	if (bind(server->fd, (struct sockaddr *)&address, sizeof(address)) < 0 ||
	    listen(server->fd, 128) < 0)
		abort();
	getsockname(server->fd, (struct sockaddr *)&address, &length);
	server->port = ntohs(address.sin_port);
	pthread_create(&server->acceptor, NULL, accept_run, server);
	return server;
}

void server_stop(struct server *server)
{
	unsigned int nr;

	pthread_mutex_lock(&server->lock);
	server->stopping = true;
	pthread_cond_broadcast(&server->changed);
	pthread_mutex_unlock(&server->lock);
	shutdown(server->fd, SHUT_RDWR);
	pthread_join(server->acceptor, NULL);
	pthread_mutex_lock(&server->lock);
	nr = server->nr_connections;
	for (unsigned int i = 0; i < nr; i++)
		if (server->fds[i] >= 0)
			shutdown(server->fds[i], SHUT_RDWR);
	pthread_mutex_unlock(&server->lock);
	for (unsigned int i = 0; i < nr; i++)
		pthread_join(server->threads[i], NULL);
	close(server->fd);
	SSL_CTX_free(server->tls);
	pthread_cond_destroy(&server->changed);
	pthread_mutex_destroy(&server->lock);
	free(server);
}

void *server_context(const struct server *server)
{
	return server->options.context;
}

unsigned int server_port(const struct server *server)
{
	return server->port;
}

static unsigned int look(const struct server *server, const unsigned int *at)
{
	struct server *locked = (struct server *)server;
	unsigned int value;

	pthread_mutex_lock(&locked->lock);
	value = *at;
	pthread_mutex_unlock(&locked->lock);
	return value;
}

unsigned int server_connections(const struct server *server)
{
	return look(server, &server->nr_connections);
}

unsigned int server_requests(const struct server *server)
{
	return look(server, &server->nr_requests);
}

unsigned int server_most(const struct server *server)
{
	return look(server, &server->most);
}

char *server_url(const struct server *server, const char *path)
{
	char *url;

	if (asprintf(&url, "http%s://127.0.0.1:%u%s", server->tls ? "s" : "",
		     server->port, path) < 0)
		abort();
	return url;
}

void server_shut_gate(struct server *server)
{
	pthread_mutex_lock(&server->lock);
	server->shut = true;
	pthread_mutex_unlock(&server->lock);
}

void server_open_gate(struct server *server)
{
	pthread_mutex_lock(&server->lock);
	server->shut = false;
	pthread_cond_broadcast(&server->changed);
	pthread_mutex_unlock(&server->lock);
}

void server_wait_open(struct server *server)
{
	pthread_mutex_lock(&server->lock);
	while (server->shut && !server->stopping)
		pthread_cond_wait(&server->changed, &server->lock);
	pthread_mutex_unlock(&server->lock);
}

bool server_wait_requests(struct server *server, unsigned int nr)
{
	struct timespec until;
	int error = 0;
	bool came;

	clock_gettime(CLOCK_REALTIME, &until);
	until.tv_sec += 30;
	pthread_mutex_lock(&server->lock);
	while (server->nr_requests < nr && !error)
		error = pthread_cond_timedwait(&server->changed, &server->lock, &until);
	came = server->nr_requests >= nr;
	pthread_mutex_unlock(&server->lock);
	return came;
}
