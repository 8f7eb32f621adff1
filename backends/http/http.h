/* http.h: HTTP requests, many at once, by libcurl's multi interface.
 *
 * One pool of I/O threads and kept-alive HTTP/1.1 connections serves the whole
 * process.  Each store or device that speaks HTTP is a client of the pool; the
 * pool's caps on connections and on bytes in flight are shared by all clients,
 * its queue is fair between them, and demand goes before prefetch before push.
 * It knows nothing of S3: who signs is called back when a request leaves the
 * queue, because a signature carries the time.  Nothing is retried here.
 */
#ifndef OBJMAP_HTTP_H
#define OBJMAP_HTTP_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "src/stage/stage.h"

#define HTTP_CONNECTIONS 32u		/* unless --connections says otherwise */
#define HTTP_HEADERS_MAX (64u << 10)	/* bytes of a reply's headers */

/* Lines "Name: value", in order; request or reply.  A name is found whatever
 * its case. */
struct http_headers {
	char *text;		/* malloc'ed: lines, each with its 0 at the end */
	size_t length, room;
};
/* 0; -ENOMEM; -EINVAL: a control character (but a tab in the value) or a name that
 * is none; -E2BIG: HTTP_HEADERS_MAX. */
int http_headers_add(struct http_headers *headers, const char *name,
		     const char *value);
/* The same of a line as it came, "Name: value\r\n", or as it is kept. */
int http_headers_add_line(struct http_headers *headers, const char *line,
			  size_t count);
/* ... of all lines of @from. */
int http_headers_add_all(struct http_headers *headers,
			 const struct http_headers *from);
/* The value of the first such line, or NULL. */
const char *http_headers_find(const struct http_headers *headers,
			      const char *name);
/* Takes away every such line; none is fine. */
void http_headers_remove(struct http_headers *headers, const char *name);
/* Walks the lines: NULL gives the first; NULL at the end. */
const char *http_headers_next(const struct http_headers *headers,
			      const char *line);
void http_headers_free(struct http_headers *headers);

struct http_client_options {
	unsigned int connections;	/* 0: HTTP_CONNECTIONS.  The process's cap is
					 * the largest of its clients' */
	const char *ca_bundle;		/* PEM file; NULL: the system's */
	const char *client_name;	/* User-Agent; NULL: "objmap/VERSION" */
	bool no_proxy;			/* do not heed http_proxy etc. (metadata) */
	uint64_t connect_timeout;	/* ns; 0: 10 s */
	uint64_t stall_timeout;		/* ns without progress: a byte, a KiB of what
					 * goes into a sink; 0: 30 s */
};

struct http_client;
struct http_thread;

/* How far a request came that has no reply. */
enum http_failure {
	HTTP_REPLIED,		/* it has one: status says which */
	HTTP_NOT_SENT,		/* surely nothing of it reached a server: no such
				 * name, no connection, TLS refused, cancelled
				 * in the queue, prepare() said no */
	HTTP_LOST,		/* sent at least in part; what became of it is
				 * not known; or its reply was cut or too long */
};

struct http_request;
typedef void http_done(struct http_request *request);

struct http_request {
	/* Filled by the caller; stays until done. */
	const char *method;		/* GET, HEAD, PUT, POST, DELETE */
	char *url;			/* malloc'ed, freed by http_request_free() */
	struct http_headers headers;	/* without Content-Length; Host is the URL's
					 * unless it is among them */
	const struct iovec *body;	/* sent; NULL: none */
	unsigned int nr_body;
	uint64_t body_count;		/* Content-Length; sent with PUT and POST
					 * when 0, too */
	/* Where the content of a 200 or 206 goes when its Content-Length is at
	 * most @sink_count; longer ones end the request with -EFBIG.  Without
	 * a sink, and for any other status, content goes to @text, at most
	 * @text_max bytes (the rest of an error's is left out; a longer 2xx
	 * ends with -EFBIG). */
	const struct iovec *sink;
	unsigned int nr_sink;
	uint64_t sink_count;
	/* CRC-32C of each @sum_unit bytes that are put into the sink; NULL: none. */
	uint32_t *sums;
	uint32_t sum_unit;
	size_t text_max;
	enum request_priority priority;
	uint64_t deadline;		/* clock_now() ns; 0: none */
	uint64_t stall_timeout;		/* as the client's; 0: that one.  For what a
					 * server does in silence */
	/* Called on an I/O thread whenever it is about to be sent; adds or
	 * replaces what depends on the time.  Must not wait.  0, or -errno: it
	 * ends NOT_SENT with that. */
	int (*prepare)(struct http_request *request);
	/* Called on an I/O thread when the reply's status and headers are there,
	 * before any content; may be NULL.  Not 0: end it with that error. */
	int (*headed)(struct http_request *request);
	http_done *done;		/* once, on an I/O thread, no lock held */
	void *context;

	/* The reply. */
	enum http_failure failure;
	int error;			/* 0 when the reply is whole: as long as its
					 * Content-Length or its chunked end says.
					 * -ETIMEDOUT (deadline or stall), -ECANCELED,
					 * -ENOENT (no such host), -ECONNREFUSED,
					 * -ECONNRESET, -EPROTO (TLS or not HTTP),
					 * -EACCES (certificate), -EFBIG, -EIO ... */
	char message[160];		/* why, in words; no secret */
	int status;
	struct http_headers reply;
	uint64_t length;		/* of the content, as the reply says;
					 * UINT64_MAX: it does not */
	uint64_t sunk;			/* bytes put into the sink */
	char *text;			/* malloc'ed, 0 after its end, or NULL */
	size_t text_count;
	bool resent;			/* libcurl may have sent it twice */

	/* The pool's. */
	struct http_client *client;
	enum { HTTP_IDLE, HTTP_QUEUED, HTTP_HANDED, HTTP_ENDED } place;
	struct http_thread *thread;	/* that it was handed to */
	atomic_bool cancelled;
	struct http_request *next;
};

/* The first client starts the pool (call it after fork), the last one to close
 * ends it.  -ENOMEM, -ENOENT (ca_bundle), logged. */
int http_client_open(const struct http_client_options *options,
		     struct http_client **client);
/* Nothing of it is in flight.  Not from done(). */
void http_client_close(struct http_client *client);

/* Never waits for the network.  @request is zeroed but for what the caller
 * fills in. */
void http_submit(struct http_client *client, struct http_request *request);
/* From any thread until done().  Queued: it ends at once.  Under way: it is cut
 * (which costs its connection) only when much is left to transfer. */
void http_cancel(struct http_request *request);
/* The same, waiting; done and context are used by it.  Not from done(). */
void http_wait(struct http_client *client, struct http_request *request);
/* Frees url, headers, reply and text; zeroes the reply's fields, so that it can be
 * filled again. */
void http_request_free(struct http_request *request);

/* For `status`: of the whole process. */
struct http_counts {
	unsigned int connections;	/* open */
	unsigned int busy, queued;	/* requests */
	uint64_t connects;		/* ever made */
};
void http_counts(struct http_counts *counts);

#endif
