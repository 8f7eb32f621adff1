/* thread.c: an I/O thread: one libcurl multi driven by epoll.
 *
 * A turn: wait, let libcurl work on the connections that are ready, collect what
 * has ended, look at deadlines, exchange with the queue, start what it gave, and
 * only then tell the callers: the connections are busy while they compute. */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "backends/http/pool.h"
#include "src/clock.h"
#include "src/errors.h"
#include "src/log.h"

#define NR_EVENTS 64
#define NEVER	  UINT64_MAX

/* ---- lists of transfers ---------------------------------------------------- */

static void transfer_push(struct transfer **list, struct transfer *transfer)
{
	transfer->next = *list;
	transfer->link = list;
	if (*list)
		(*list)->link = &transfer->next;
	*list = transfer;
}

static void transfer_unlink(struct transfer *transfer)
{
	*transfer->link = transfer->next;
	if (transfer->next)
		transfer->next->link = transfer->link;
}

/* ---- what libcurl asks for -------------------------------------------------- */

static int on_watch(CURL *easy, curl_socket_t fd, int what, void *context, void *own)
{
	struct http_thread *thread = context;
	struct transfer *transfer = NULL;
	unsigned int events = 0;

	curl_easy_getinfo(easy, CURLINFO_PRIVATE, &transfer);
	if (transfer && what != CURL_POLL_REMOVE)
		transfer->fd = fd;
	else if (transfer && transfer->fd == fd)
		transfer->fd = -1;
	if (what != CURL_POLL_REMOVE && what & CURL_POLL_IN)
		events |= EPOLLIN;
	if (what != CURL_POLL_REMOVE && what & CURL_POLL_OUT)
		events |= EPOLLOUT;
	return watch_set(&thread->watches, fd, events) ? -1 : 0;
}

static int on_timer(CURLM *multi, long ms, void *context)
{
	struct http_thread *thread = context;

	/* At once is at once: thread->now is older than the clock by now, and a wait is
	 * in whole milliseconds. */
	thread->timer = ms < 0 ? NEVER : ms == 0 ? 0 :
			clock_now() + (uint64_t)ms * CLOCK_MS;
	return 0;
}

/* ---- the ways a request ends ------------------------------------------------ */

/* Its end is told at the end of the turn. */
static void transfer_end(struct transfer *transfer, CURLcode code)
{
	struct http_thread *thread = transfer->thread;
	struct http_request *request = transfer->request;

	transfer_judge(transfer, code);
	curl_multi_remove_handle(thread->multi, transfer->easy);
	transfer_unlink(transfer);
	transfer->request = NULL;
	transfer_push(&thread->idle, transfer);
	request->next = thread->ended;
	thread->ended = request;
}

static void transfer_cut(struct transfer *transfer, int error, const char *why)
{
	transfer->error = error;
	transfer->why = why;
	transfer_end(transfer, CURLE_ABORTED_BY_CALLBACK);
}

/* It never started. */
static void request_give_up(struct http_thread *thread, struct http_request *request,
			    int error, const char *why)
{
	request->error = error;
	request->failure = HTTP_NOT_SENT;
	if (!request->message[0])
		snprintf(request->message, sizeof(request->message), "%s", why);
	request->next = thread->ended;
	thread->ended = request;
}

static void collect_ended(struct http_thread *thread)
{
	struct transfer *transfer;
	CURLMsg *message;
	int left;

	while ((message = curl_multi_info_read(thread->multi, &left))) {
		if (message->msg != CURLMSG_DONE)
			continue;
		curl_easy_getinfo(message->easy_handle, CURLINFO_PRIVATE, &transfer);
		transfer_end(transfer, message->data.result);
	}
}

/* Content that comes in drops would keep somebody for ever: bytes in the time of a
 * stall.  A modem that 32 connections share gives each of them five times as many.
 * Other replies may be blanks that only say: wait. */
#define LEAST_CONTENT 1024u

static uint64_t stall_timeout_of(const struct http_request *request)
{
	return request->stall_timeout ? request->stall_timeout :
					request->client->options.stall_timeout;
}

/* How long it may still take, as far as is known now; or cuts it. */
static uint64_t transfer_look(struct transfer *transfer, uint64_t now)
{
	const struct http_request *request = transfer->request;
	uint64_t stall = stall_timeout_of(request);
	uint64_t progress = transfer_progress(transfer), due;
	uint64_t least = request->nr_sink ? LEAST_CONTENT : 1;

	if (request->deadline && now >= request->deadline) {
		transfer_cut(transfer, -ETIMEDOUT, "it took too long");
		return NEVER;
	}
	/* Until it is sent it has the time for connecting, which libcurl knows. */
	if (progress - transfer->progress >= least || !transfer->sends) {
		transfer->progress = progress;
		transfer->progress_at = now;
	} else if (now - transfer->progress_at >= stall) {
		transfer_cut(transfer, -ETIMEDOUT, "nothing has moved for too long");
		return NEVER;
	}
	/* Progress is seen when looked at: look often enough to be only a quarter
	 * late. */
	due = now + stall / 4;
	return request->deadline && request->deadline < due ? request->deadline : due;
}

static void look_at_times(struct http_thread *thread)
{
	struct transfer *transfer, *next;
	uint64_t due;

	thread->due = NEVER;
	for (transfer = thread->running; transfer; transfer = next) {
		next = transfer->next;
		due = transfer_look(transfer, thread->now);
		if (due < thread->due)
			thread->due = due;
	}
}

static void look_for_cancelled(struct http_thread *thread)
{
	struct transfer *transfer, *next;

	for (transfer = thread->running; transfer; transfer = next) {
		next = transfer->next;
		if (atomic_load(&transfer->request->cancelled) &&
		    transfer_has_much_left(transfer))
			transfer_cut(transfer, -ECANCELED, "cancelled");
	}
}

/* ---- starting --------------------------------------------------------------- */

static struct transfer *transfer_take(struct http_thread *thread)
{
	struct transfer *transfer = thread->idle;

	if (!transfer)
		return transfer_new(thread);
	transfer_unlink(transfer);
	return transfer;
}

static void request_start(struct http_thread *thread, struct http_request *request)
{
	uint64_t due = thread->now + stall_timeout_of(request) / 4;
	struct transfer *transfer;
	int error;

	if (atomic_load(&request->cancelled)) {
		request_give_up(thread, request, -ECANCELED, "cancelled");
		return;
	}
	error = request->prepare ? request->prepare(request) : 0;
	if (error) {
		request_give_up(thread, request, error, error_words(error));
		return;
	}
	transfer = transfer_take(thread);
	if (!transfer) {
		request_give_up(thread, request, -ENOMEM, strerror(ENOMEM));
		return;
	}
	transfer_push(&thread->running, transfer);
	error = transfer_load(transfer, request);
	if (!error && curl_multi_add_handle(thread->multi, transfer->easy) != CURLM_OK)
		error = -ENOMEM;
	if (error) {
		transfer_cut(transfer, error, error_words(error));
		return;
	}
	transfer->progress_at = thread->now;
	if (request->deadline && request->deadline < due)
		due = request->deadline;
	if (due < thread->due)
		thread->due = due;
}

/* ---- turns ------------------------------------------------------------------ */

static void keep_connections(struct http_thread *thread, unsigned int connections)
{
	if (connections == thread->connections)
		return;
	curl_multi_setopt(thread->multi, CURLMOPT_MAXCONNECTS, (long)connections);
	thread->connections = connections;
}

static void tell(struct http_request *list)
{
	struct http_request *next;

	for (; list; list = next) {
		next = list->next;
		list->done(list);
	}
}

/* Exchanges with the queue until there is nothing more to do at once.  Returns
 * until when to sleep, or 0: never again. */
static uint64_t exchange(struct http_thread *thread)
{
	struct http_request *ended, *handed, *next;
	struct http_work work;

	do {
		ended = thread->ended;
		thread->ended = NULL;
		pool_turn(thread, ended, &work);
		keep_connections(thread, work.connections);
		for (handed = work.handed; handed; handed = next) {
			next = handed->next;
			request_start(thread, handed);
		}
		if (work.look)
			look_for_cancelled(thread);
		tell(ended);
		tell(work.given_up);
	} while (ended || work.handed || work.given_up || work.look);
	return work.ending ? 0 : work.until;
}

static int wait_ms(const struct http_thread *thread, uint64_t until)
{
	uint64_t left;

	if (thread->timer < until)
		until = thread->timer;
	if (thread->due < until)
		until = thread->due;
	if (until == NEVER)
		return -1;
	if (until <= thread->now)
		return 0;
	left = (until - thread->now + CLOCK_MS - 1) / CLOCK_MS;
	return left < 3600000 ? (int)left : 3600000;
}

static void drive(struct http_thread *thread, const struct epoll_event *events, int nr)
{
	uint64_t wakes;
	int running;

	for (int i = 0; i < nr; i++) {
		int what = 0;

		if (events[i].data.fd == thread->wake_fd) {
			while (read(thread->wake_fd, &wakes, sizeof(wakes)) > 0)
				;
			continue;
		}
		if (!watch_is_wanted(&thread->watches, events[i].data.fd))
			continue;
		if (events[i].events & (EPOLLIN | EPOLLHUP))
			what |= CURL_CSELECT_IN;
		if (events[i].events & EPOLLOUT)
			what |= CURL_CSELECT_OUT;
		if (events[i].events & EPOLLERR)
			what |= CURL_CSELECT_ERR;
		curl_multi_socket_action(thread->multi, events[i].data.fd, what,
					 &running);
	}
	if (thread->timer <= thread->now) {
		thread->timer = NEVER;
		curl_multi_socket_action(thread->multi, CURL_SOCKET_TIMEOUT, 0,
					 &running);
	}
}

static void *http_thread_run(void *context)
{
	struct http_thread *thread = context;
	struct epoll_event events[NR_EVENTS];
	uint64_t until;
	int nr;

	thread->now = clock_now();
	while ((until = exchange(thread))) {
		nr = epoll_wait(thread->watches.epoll_fd, events, NR_EVENTS,
				wait_ms(thread, until));
		thread->now = clock_now();
		drive(thread, events, nr);
		collect_ended(thread);
		if (thread->now >= thread->due)
			look_at_times(thread);
	}
	return NULL;
}

void http_thread_wake(struct http_thread *thread)
{
	uint64_t one = 1;

	if (write(thread->wake_fd, &one, sizeof(one)) < 0)
		log_error("http: cannot wake a thread: %s", strerror(errno));
}

/* ---- life ------------------------------------------------------------------- */

static void http_thread_clear(struct http_thread *thread)
{
	struct transfer *transfer;

	while ((transfer = thread->idle)) {
		transfer_unlink(transfer);
		transfer_free(transfer);
	}
	if (thread->multi)
		curl_multi_cleanup(thread->multi);
	if (thread->share)
		curl_share_cleanup(thread->share);
	if (thread->wake_fd >= 0)
		close(thread->wake_fd);
	watches_close(&thread->watches);
}

static int http_thread_open(struct http_thread *thread)
{
	thread->multi = curl_multi_init();
	thread->share = curl_share_init();
	if (!thread->multi || !thread->share)
		return -ENOMEM;
	curl_share_setopt(thread->share, CURLSHOPT_SHARE, CURL_LOCK_DATA_SSL_SESSION);
	curl_multi_setopt(thread->multi, CURLMOPT_PIPELINING, (long)CURLPIPE_NOTHING);
	curl_multi_setopt(thread->multi, CURLMOPT_SOCKETFUNCTION, on_watch);
	curl_multi_setopt(thread->multi, CURLMOPT_SOCKETDATA, thread);
	curl_multi_setopt(thread->multi, CURLMOPT_TIMERFUNCTION, on_timer);
	curl_multi_setopt(thread->multi, CURLMOPT_TIMERDATA, thread);
	thread->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (thread->wake_fd < 0)
		return -errno;
	return watches_open(&thread->watches, thread->wake_fd);
}

int http_thread_start(struct http_thread *thread)
{
	sigset_t all, old;
	char name[16];
	int error;

	thread->wake_fd = thread->watches.epoll_fd = -1;
	thread->timer = thread->due = NEVER;
	thread->handed_end = &thread->handed;
	error = http_thread_open(thread);
	if (error)
		goto out;
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	error = -pthread_create(&thread->thread, NULL, http_thread_run, thread);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	if (error)
		goto out;
	snprintf(name, sizeof(name), "http-%u", thread->number);
	pthread_setname_np(thread->thread, name);
	return 0;
out:
	http_thread_clear(thread);
	return error;
}

void http_thread_join(struct http_thread *thread)
{
	pthread_join(thread->thread, NULL);
	http_thread_clear(thread);
}
