/* server.h: a small HTTP server inside a test, that answers what the test says.
 *
 * Every connection has a thread.  It reads a request and has the test's function
 * answer it, which may write anything at all, or hang up. */
#ifndef OBJMAP_TESTS_HTTP_SERVER_H
#define OBJMAP_TESTS_HTTP_SERVER_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct server;

struct visit {				/* one request that came in */
	struct server *server;
	unsigned int connection;	/* its number, from 0 */
	unsigned int number;		/* of the request on this connection */
	char method[16], target[1024];
	char head[16384];		/* request line and headers */
	uint64_t length;		/* Content-Length */
	char *body;			/* what was read of it */
	uint64_t body_count;
	int fd;
	void *tls;			/* SSL *, or NULL */
};

/* Returns whether the connection stays. */
typedef bool server_answer(struct visit *visit);

struct server_options {
	server_answer *answer;
	void *context;
	const char *certificate;	/* PEM with the key in it: speak TLS */
	bool leaves_body;		/* answer() is called before the body is read */
};

struct server *server_start(const struct server_options *options);
/* One that has ranges of what pattern:*SIZE holds, at any path. */
struct server *server_start_pattern(uint64_t *size);
void server_stop(struct server *server);
void *server_context(const struct server *server);
unsigned int server_port(const struct server *server);
unsigned int server_connections(const struct server *server);	/* ever */
unsigned int server_requests(const struct server *server);	/* ever */
unsigned int server_most(const struct server *server);	/* requests at once */
/* malloc'ed "http://127.0.0.1:PORT/PATH". */
char *server_url(const struct server *server, const char *path);
/* Requests wait in server_wait_open() while it is closed. */
void server_shut_gate(struct server *server);
void server_open_gate(struct server *server);
void server_wait_open(struct server *server);
/* Until so many requests came in, or 30 s have passed. */
bool server_wait_requests(struct server *server, unsigned int nr);

void visit_write(struct visit *visit, const void *data, size_t count);
void visit_say(struct visit *visit, const char *text);
/* 200 with a Content-Length. */
void visit_reply(struct visit *visit, const void *data, size_t count);
/* Ends the connection with a reset. */
bool visit_reset(struct visit *visit);
bool visit_is(const struct visit *visit, const char *target);
/* The value of a header of the request in @value (at most @size with the 0), or
 * false. */
bool visit_header(const struct visit *visit, const char *name, char *value,
		  size_t size);

/* Writes a certificate for @name ("DNS:localhost", "IP:127.0.0.1"), signed by itself,
 * and its key to the file @path. */
void certificate_make(const char *path, const char *name);

#endif
