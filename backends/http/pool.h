/* pool.h: between the pool's queue (pool.c), its I/O threads (thread.c) and what
 * libcurl is told of one request (transfer.c).  For backends/http only.
 *
 *	http_submit()                thread and transfer
 *	   queued  ----->  handed  ----->  running  ----->  ended, done()
 *	     `------------> given up ------------------------^
 */
#ifndef OBJMAP_HTTP_POOL_H
#define OBJMAP_HTTP_POOL_H

#include <curl/curl.h>
#include <pthread.h>

#include "backends/http/http.h"

#define NR_PRIORITIES (PRIORITY_PUSH + 1)


/* ---- sockets: watch.c ----------------------------------------------------- */

struct watches {
	int epoll_fd;
	struct watch *of;		/* by the socket's number */
	unsigned int nr;
};

/* 0 or -errno; to be closed in either case. */
int watches_open(struct watches *watches, int wake_fd);
void watches_close(struct watches *watches);
/* Waits for EPOLLIN, EPOLLOUT; 0: no longer. */
int watch_set(struct watches *watches, int fd, unsigned int events);
/* Something happened on @fd: is that of interest? */
bool watch_is_wanted(struct watches *watches, int fd);
/* A request goes out on @fd. */
void watch_carries(struct watches *watches, int fd);
/* @fd is new, or will be closed now: what was known of that number is no longer so.
 * True: it carried a request. */
bool watch_fresh(struct watches *watches, int fd);

/* ---- an I/O thread: thread.c ---------------------------------------------- */

struct http_thread {
	unsigned int number;
	pthread_t thread;
	int wake_fd;
	struct watches watches;
	CURLM *multi;
	CURLSH *share;			/* TLS sessions */
	unsigned int connections;	/* what the multi was told to keep */
	uint64_t now;			/* clock_now() of this turn */
	uint64_t timer;			/* libcurl's; UINT64_MAX: none */
	uint64_t due;			/* look at deadlines and progress then */
	struct transfer *running;
	struct transfer *idle;
	struct http_request *ended;	/* of this turn */

	/* The pool's lock guards these. */
	struct http_request *handed, **handed_end;
	struct http_request *given_up;
	unsigned int busy;		/* handed and running */
	bool look;			/* some of what it runs is cancelled */
	bool sleeping;
	uint64_t until;			/* it sleeps until then */
	bool ending;
};

int http_thread_start(struct http_thread *thread);
void http_thread_wake(struct http_thread *thread);
/* It was told to end, and woken. */
void http_thread_join(struct http_thread *thread);

/* ---- the queue: pool.c ---------------------------------------------------- */

struct http_client {
	struct http_client_options options;	/* the strings are its own */
	uint64_t id;			/* never used twice */

	/* The pool's lock guards these. */
	struct http_client *next;	/* of the pool's clients */
	struct http_fifo {
		struct http_request *first, **last;
		struct http_client *next;	/* in the ring while not empty */
	} queued[NR_PRIORITIES];
};

/* What a thread is to do next. */
struct http_work {
	struct http_request *handed;	/* start these */
	struct http_request *given_up;	/* end these; error and failure are set */
	bool look;			/* for cancelled ones among the running */
	bool ending;
	unsigned int connections;	/* to keep at most */
	uint64_t until;			/* nothing to do: it may sleep so long */
};

/* The thread's turn at the queue: gives back what @ended took, hands out what may
 * run now, to any thread, and takes what is for @thread. */
void pool_turn(struct http_thread *thread, struct http_request *ended,
	       struct http_work *work);
void pool_count_sockets(int change);
void pool_count_connects(unsigned int connects);

/* ---- one request: transfer.c ---------------------------------------------- */

struct cursor {			/* into the pieces of a body or a sink */
	const struct iovec *iov;
	unsigned int nr_iov, index;
	size_t at;			/* in iov[index] */
	uint64_t total;			/* bytes passed */
};

#define FRESH_MAX 8

struct transfer {			/* an easy handle and what it carries */
	CURL *easy;
	struct http_thread *thread;
	struct http_request *request;
	struct transfer *next, **link;	/* of the thread's running or idle */
	uint64_t client_id;		/* whose options the handle has */
	struct curl_slist *lines;	/* an array over the request's headers */
	unsigned int lines_room;
	char *no_values;		/* lines of headers without a value */
	struct cursor body, sink;
	size_t text_room;
	uint64_t received;		/* bytes of content */
	int fresh[FRESH_MAX];		/* sockets made for it, none sent on yet */
	unsigned int nr_fresh;
	int fd;				/* that libcurl waits for; -1: none */
	unsigned int sends;		/* times libcurl set out to send it */
	unsigned int nr_interim;	/* replies of 1xx */
	bool headed;			/* the reply's headers are complete */
	bool to_sink;
	bool chunked, closes;		/* says the reply */
	int error;			/* why it was ended by us; 0: it was not */
	const char *why;
	uint64_t progress, progress_at;	/* bytes seen to move, and when */
	char curl_error[CURL_ERROR_SIZE];
};

struct transfer *transfer_new(struct http_thread *thread);
void transfer_free(struct transfer *transfer);
/* Tells libcurl all of @request.  0 or -errno. */
int transfer_load(struct transfer *transfer, struct http_request *request);
/* Whether more is to be won by cutting it than its connection is worth. */
bool transfer_has_much_left(const struct transfer *transfer);
/* All bytes that moved so far, either way. */
uint64_t transfer_progress(const struct transfer *transfer);
/* Fills in the request's end: error, failure, message. */
void transfer_judge(struct transfer *transfer, CURLcode code);

#endif
