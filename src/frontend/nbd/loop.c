/* loop.c: one thread that serves its share of the connections.
 *
 * A turn: wait, take what arrived, take what the stages completed, send all
 * replies, wait again.  Completions come from any thread over a list without
 * a lock; the eventfd is written only when the loop really sleeps.
 *
 * Waking an idle CPU costs more than a small request, so while requests keep
 * coming the loop polls a little before it blocks; not when that did not pay
 * lately, and never so many loops that clients lack a CPU. */
#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "src/clock.h"
#include "src/export.h"
#include "src/frontend/nbd/connection.h"
#include "src/log.h"

#define EVENTS_MAX 64
/* A client on this machine answers a reply within this, or is busy elsewhere. */
#define POLL_NS 50000
/* A client that has several requests out sends the next ones one by one: a
 * short pause between tries lets more of them come together, so that they
 * share a read and a writev.  Not at depth 1, where it would only be late. */
#define GAP_NS 4000
/* Polls that fail in a row before polling is only tried now and then. */
#define POLL_CREDIT 8
#define POLL_RETRY 32
/* Turns before other connections are looked at although one keeps coming. */
#define TURNS_ALONE 8
/* Memory that nobody used for this long goes back. */
#define IDLE_MS 1000
/* While connections wait for memory, how often stalled peers are looked for,
 * and what part of the memory that a peer holds must move in which time: one
 * that sends a byte now and then would otherwise keep it for good.  Who gets
 * memory while others wait has waited too: its first bytes are here already. */
#define STARVED_MS 100
#define STALL_NS (10 * CLOCK_SECOND)
#define STALL_FIRST_NS (2 * CLOCK_SECOND)
#define STALL_SHARE 32

static _Thread_local struct nbd_loop *current;

bool nbd_loop_is_current(const struct nbd_loop *loop)
{
	return current == loop;
}

/* ---- from other threads ------------------------------------------------------------ */

static void loop_wake(struct nbd_loop *loop)
{
	uint64_t one = 1;

	if (atomic_load(&loop->sleeping) && atomic_exchange(&loop->sleeping, false))
		while (write(loop->wake_fd, &one, sizeof(one)) < 0 && errno == EINTR)
			;
}

void nbd_loop_attend(struct nbd_loop *loop)
{
	atomic_store(&loop->attention, true);
	loop_wake(loop);
}

void nbd_loop_completed(struct nbd_loop *loop, struct nbd_request *request)
{
	struct nbd_request *first = atomic_load_explicit(&loop->completed,
							 memory_order_relaxed);

	do
		request->next = first;
	while (!atomic_compare_exchange_weak(&loop->completed, &first, request));
	loop_wake(loop);
}

/* ---- what a turn does --------------------------------------------------------------- */

/* Takes completions, oldest first. */
static void collect(struct nbd_loop *loop)
{
	struct nbd_request *request, *next, *oldest = NULL;

	request = atomic_exchange(&loop->completed, NULL);
	for (; request; request = next) {
		next = request->next;
		request->next = oldest;
		oldest = request;
	}
	for (request = oldest; request; request = next) {
		bool refused = request->error == -EAGAIN &&
			       (request->request.flags & REQUEST_NOWAIT);
		bool unwanted = request->connection->phase == NBD_CLOSED &&
				request->command == NBD_CMD_READ;

		next = request->next;
		if (refused && !unwanted)
			nbd_request_submit(request, 0);
		else
			nbd_request_settle(request);
	}
}

static void work_ready(struct nbd_loop *loop)
{
	struct nbd_connection *last = TAILQ_LAST(&loop->ready, nbd_connections);
	struct nbd_connection *connection;

	if (!last)
		return;
	do {
		connection = TAILQ_FIRST(&loop->ready);
		if (connection->read_again)
			nbd_connection_receive(connection);
		nbd_connection_work(connection);
	} while (connection != last);
}

static void end_connection(struct nbd_loop *loop, struct nbd_connection *connection)
{
	struct nbd_server *server = loop->server;
	struct export *export = atomic_load(&connection->export);

	if (export && connection->discarding)
		export_start_push(export);
	pthread_mutex_lock(&loop->lock);
	TAILQ_REMOVE(&loop->connections, connection, link);
	pthread_mutex_unlock(&loop->lock);
	atomic_fetch_sub(&loop->nr_connections, 1);
	nbd_connection_free(connection);
	if (atomic_load(&server->nr_withdrawals)) {
		pthread_mutex_lock(&server->lock);
		pthread_cond_broadcast(&server->left_cond);
		pthread_mutex_unlock(&server->lock);
	}
	if (atomic_fetch_sub(&server->nr_left, 1) == 1 && server->only_descriptors &&
	    server->options.ended)
		server->options.ended(server->options.context);
}

static void bury(struct nbd_loop *loop)
{
	struct nbd_connection *connection;

	while ((connection = TAILQ_FIRST(&loop->graves))) {
		TAILQ_REMOVE(&loop->graves, connection, ready_link);
		end_connection(loop, connection);
	}
}

/* Handshakes that take too long. */
static void check_deadlines(struct nbd_loop *loop)
{
	struct nbd_connection *connection;

	if (loop->next_deadline == 0 || loop->now < loop->next_deadline)
		return;
	loop->next_deadline = 0;
	TAILQ_FOREACH(connection, &loop->connections, link) {
		if (!nbd_connection_has_deadline(connection))
			continue;
		if (connection->deadline <= loop->now) {
			log_debug("nbd: %s: no handshake in time, closed",
				  connection->peer);
			atomic_fetch_add(&loop->server->counters.failed_handshakes, 1);
			nbd_connection_close(connection);
		} else if (loop->next_deadline == 0 ||
			   connection->deadline < loop->next_deadline) {
			loop->next_deadline = connection->deadline;
		}
	}
}

static void wake_starved(struct nbd_loop *loop)
{
	struct nbd_connection *connection;

	if (loop->nr_starved == 0)
		return;
	TAILQ_FOREACH(connection, &loop->connections, link)
		if (connection->starved)
			nbd_connection_ready(connection);
}

/* Whether a peer that holds memory goes on fast enough; @fresh: nobody waited
 * for memory until now. */
static bool goes_on(struct nbd_loop *loop, struct nbd_connection *connection,
		    bool fresh)
{
	uint64_t moved = atomic_load_explicit(&connection->bytes_in, memory_order_relaxed) +
			 atomic_load_explicit(&connection->bytes_out, memory_order_relaxed);
	bool holds = connection->bytes && (connection->unsent || connection->receiving);

	if (!fresh && holds &&
	    moved - connection->seen_moved <= connection->bytes / STALL_SHARE)
		return loop->now < connection->seen_until;
	connection->seen_moved = moved;
	connection->seen_until = loop->now + (holds ? STALL_NS : STALL_FIRST_NS);
	return true;
}

/* While connections wait for memory, a peer that holds some and hardly sends
 * or reads is cut off. */
static void check_stalls(struct nbd_loop *loop)
{
	struct nbd_connection *connection;
	bool fresh = loop->now > loop->next_look + CLOCK_SECOND;

	if (atomic_load(&loop->server->nr_starved) == 0 || loop->now < loop->next_look)
		return;
	loop->next_look = loop->now + STARVED_MS * CLOCK_MS;
	wake_starved(loop);
	TAILQ_FOREACH(connection, &loop->connections, link) {
		if (connection->phase == NBD_CLOSED ||
		    goes_on(loop, connection, fresh))
			continue;
		log_warning("nbd: %s: holds memory that others wait for and hardly goes on, closed",
			    connection->peer);
		nbd_connection_close(connection);
	}
}

static void take_arriving(struct nbd_loop *loop)
{
	struct nbd_connection *connection;

	for (;;) {
		pthread_mutex_lock(&loop->lock);
		connection = TAILQ_FIRST(&loop->arriving);
		if (connection) {
			TAILQ_REMOVE(&loop->arriving, connection, link);
			TAILQ_INSERT_TAIL(&loop->connections, connection, link);
		}
		pthread_mutex_unlock(&loop->lock);
		if (!connection)
			return;
		if (loop->stopping)
			nbd_connection_close(connection);
		else
			nbd_connection_begin(connection);
	}
}

/* Clients in their handshake are let go, the others finish. */
static void begin_stop(struct nbd_loop *loop)
{
	struct nbd_connection *connection;
	struct nbd_listener *listener;

	loop->stopping = true;
	if (loop == &loop->server->loops[0])
		STAILQ_FOREACH(listener, &loop->server->listeners, link)
			epoll_ctl(loop->epoll, EPOLL_CTL_DEL, listener->fd, NULL);
	TAILQ_FOREACH(connection, &loop->connections, link) {
		if (nbd_connection_in_handshake(connection))
			nbd_connection_close(connection);
		else
			nbd_connection_finish(connection);
	}
}

static void close_all(struct nbd_loop *loop)
{
	struct nbd_connection *connection;

	loop->closing = true;
	TAILQ_FOREACH(connection, &loop->connections, link)
		nbd_connection_close(connection);
}

/* Who uses an export that was withdrawn is cut off. */
static void see_withdrawals(struct nbd_loop *loop)
{
	struct nbd_server *server = loop->server;
	unsigned int nr = atomic_load(&server->nr_withdrawals);
	struct nbd_connection *connection;
	struct export *export;

	if (nr == loop->withdrawals_seen)
		return;
	TAILQ_FOREACH(connection, &loop->connections, link) {
		export = atomic_load(&connection->export);
		if (export && !nbd_server_offers(server, export))
			nbd_connection_close(connection);
	}
	pthread_mutex_lock(&server->lock);
	loop->withdrawals_seen = nr;
	pthread_cond_broadcast(&server->left_cond);
	pthread_mutex_unlock(&server->lock);
}

static void set_running(struct nbd_loop *loop, bool running)
{
	pthread_mutex_lock(&loop->server->lock);
	loop->running = running;
	pthread_cond_broadcast(&loop->server->left_cond);
	pthread_mutex_unlock(&loop->server->lock);
}

/* Something changed from outside. */
static void attend(struct nbd_loop *loop)
{
	struct nbd_connection *connection;

	take_arriving(loop);
	wake_starved(loop);
	TAILQ_FOREACH(connection, &loop->connections, link)
		if (atomic_load(&connection->evict) &&
		    nbd_connection_in_handshake(connection))
			nbd_connection_close(connection);
	see_withdrawals(loop);
	if (atomic_load(&loop->server->stop) && !loop->stopping)
		begin_stop(loop);
}

static void dispatch(struct nbd_loop *loop, const struct epoll_event *event)
{
	struct nbd_source *source = event->data.ptr;
	uint64_t count;

	switch (source->kind) {
	case NBD_WAKE:
		if (read(loop->wake_fd, &count, sizeof(count)) < 0 && errno != EAGAIN)
			log_error("nbd: eventfd: %s", strerror(errno));
		break;
	case NBD_LISTENER:
		nbd_listener_accept(loop, source->owner);
		break;
	case NBD_CONNECTION:
		nbd_connection_event(source->owner, event->events);
		break;
	}
}

/* ---- waiting --------------------------------------------------------------------------- */

static bool has_news(struct nbd_loop *loop)
{
	return atomic_load_explicit(&loop->completed, memory_order_relaxed) ||
	       atomic_load_explicit(&loop->attention, memory_order_relaxed);
}

/* Between two tries: whoever else wants this CPU, often the client, has it. */
static void give_way(uint64_t ns)
{
	uint64_t until = clock_now() + ns;

	do
		sched_yield();
	while (clock_now() < until);
}

/* Tries for a short while whether something comes.  Returns whether it did;
 * *@nr events are to be dispatched then. */
static bool poll_for_a_while(struct nbd_loop *loop, struct epoll_event *events,
			     int *nr)
{
	struct nbd_connection *hot = loop->hot;
	uint64_t now = clock_now(), until = now + POLL_NS;
	bool crowd = now < loop->crowd_until;
	unsigned int tries = 0;

	do {
		if (has_news(loop))
			return true;
		if (!crowd) {
			if (nbd_connection_receive(hot))
				nbd_connection_work(hot);
			else if (TAILQ_EMPTY(&loop->ready) && loop->hot == hot)
				goto next;
			return true;
		}
next:
		give_way(loop->batch < 2 ? 0 : GAP_NS);
		if (crowd || ++tries % TURNS_ALONE == 0) {
			*nr = epoll_wait(loop->epoll, events, EVENTS_MAX, 0);
			if (*nr > 0)
				return true;
		}
	} while (clock_now() < until);
	return false;
}

/* Whether to poll this time. */
static bool poll_wanted(struct nbd_loop *loop)
{
	if (!loop->hot || loop->server->max_pollers == 0 || loop->stopping ||
	    loop->hot->blocked || loop->hot->phase != NBD_TRANSMISSION)
		return false;
	return loop->poll_credit > 0 || loop->nr_turns % POLL_RETRY == 0;
}

static bool poll_before_blocking(struct nbd_loop *loop, struct epoll_event *events,
				 int *nr)
{
	struct nbd_server *server = loop->server;
	bool found = false;

	*nr = 0;
	if (!poll_wanted(loop))
		return false;
	if (atomic_fetch_add(&server->nr_pollers, 1) < server->max_pollers) {
		found = poll_for_a_while(loop, events, nr);
		if (found && loop->poll_credit < POLL_CREDIT)
			loop->poll_credit++;
		else if (!found && loop->poll_credit > 0)
			loop->poll_credit--;
	}
	atomic_fetch_sub(&server->nr_pollers, 1);
	if (!found)		/* until the next request has come */
		loop->hot = NULL;
	return found;
}

/* Milliseconds that the loop may sleep; -1: no bound. */
static int sleep_bound(const struct nbd_loop *loop)
{
	uint64_t until = loop->next_deadline;
	uint64_t stop_at = loop->stopping && !loop->closing ?
			   atomic_load(&loop->server->stop_at) : 0;
	int bound = -1;

	if (loop->pause_until && (!until || loop->pause_until < until))
		until = loop->pause_until;
	if (stop_at && (!until || stop_at < until))
		until = stop_at;
	if (!TAILQ_EMPTY(&loop->ready))
		return 0;
	if (until)
		bound = until <= loop->now ? 0 :
			(int)((until - loop->now) / CLOCK_MS) + 1;
	if (atomic_load(&loop->server->nr_starved) && (bound < 0 || bound > STARVED_MS))
		bound = STARVED_MS;
	if ((loop->pool.kept || loop->nr_requests) && (bound < 0 || bound > IDLE_MS))
		bound = IDLE_MS;
	return bound;
}

static int loop_wait(struct nbd_loop *loop, struct epoll_event *events)
{
	int bound = sleep_bound(loop);
	int nr;

	/* Whoever keeps coming must not keep the others out. */
	if (++loop->nr_turns % TURNS_ALONE == 0 && loop->hot) {
		nr = epoll_wait(loop->epoll, events, EVENTS_MAX, 0);
		if (nr > 0)
			return nr;
	}
	if (bound != 0 && poll_before_blocking(loop, events, &nr))
		return nr;
	atomic_store(&loop->sleeping, true);
	if (atomic_load(&loop->completed) || atomic_load(&loop->attention))
		bound = 0;
	nr = epoll_wait(loop->epoll, events, EVENTS_MAX, bound);
	atomic_store(&loop->sleeping, false);
	if (nr == 0 && bound == IDLE_MS) {
		nbd_pool_trim(&loop->pool);
		nbd_requests_trim(loop);
	}
	return nr < 0 ? 0 : nr;
}

static void resume_accepting(struct nbd_loop *loop)
{
	struct nbd_listener *listener;

	if (loop->pause_until == 0 || loop->now < loop->pause_until || loop->stopping)
		return;
	loop->pause_until = 0;
	STAILQ_FOREACH(listener, &loop->server->listeners, link) {
		struct epoll_event event = { EPOLLIN, { .ptr = &listener->source } };

		epoll_ctl(loop->epoll, EPOLL_CTL_MOD, listener->fd, &event);
	}
}

static void *loop_run(void *arg)
{
	struct nbd_loop *loop = arg;
	struct epoll_event events[EVENTS_MAX];
	int nr, i;

	current = loop;
	loop->now = clock_now();
	while (!loop->stopping || !TAILQ_EMPTY(&loop->connections)) {
		nr = loop_wait(loop, events);
		loop->now = clock_now();
		for (i = 0; i < nr; i++)
			dispatch(loop, &events[i]);
		if (atomic_load_explicit(&loop->attention, memory_order_relaxed)) {
			atomic_store(&loop->attention, false);
			attend(loop);
		}
		if (atomic_load_explicit(&loop->completed, memory_order_relaxed))
			collect(loop);
		work_ready(loop);
		check_deadlines(loop);
		check_stalls(loop);
		resume_accepting(loop);
		if (loop->stopping && !loop->closing &&
		    loop->now >= atomic_load(&loop->server->stop_at))
			close_all(loop);
		bury(loop);
	}
	set_running(loop, false);
	return NULL;
}

/* ---- the life of a loop -------------------------------------------------------------------- */

int nbd_loop_open(struct nbd_server *server, struct nbd_loop *loop)
{
	struct epoll_event event = { EPOLLIN, { .ptr = &loop->wake } };

	loop->server = server;
	loop->poll_credit = POLL_CREDIT;
	loop->wake.kind = NBD_WAKE;
	pthread_mutex_init(&loop->lock, NULL);
	TAILQ_INIT(&loop->connections);
	TAILQ_INIT(&loop->arriving);
	TAILQ_INIT(&loop->ready);
	TAILQ_INIT(&loop->graves);
	loop->epoll = epoll_create1(EPOLL_CLOEXEC);
	loop->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	loop->in = malloc(NBD_RECEIVE_BYTES);
	loop->gather = malloc(NBD_RECEIVE_BYTES);
	if (loop->epoll < 0 || loop->wake_fd < 0 ||
	    epoll_ctl(loop->epoll, EPOLL_CTL_ADD, loop->wake_fd, &event) < 0)
		return -errno;
	return loop->in && loop->gather ? 0 : -ENOMEM;
}

int nbd_loop_start(struct nbd_loop *loop, unsigned int index)
{
	sigset_t all, before;
	char name[16];
	int error;

	set_running(loop, true);
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	error = pthread_create(&loop->thread, NULL, loop_run, loop);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	if (error) {
		set_running(loop, false);
		return -error;
	}
	snprintf(name, sizeof(name), "nbd-%u", index);
	pthread_setname_np(loop->thread, name);
	return 0;
}

void nbd_loop_join(struct nbd_loop *loop)
{
	pthread_join(loop->thread, NULL);
}

void nbd_loop_close(struct nbd_loop *loop)
{
	nbd_pool_trim(&loop->pool);
	nbd_requests_trim(loop);
	pthread_mutex_destroy(&loop->lock);
	if (loop->epoll >= 0)
		close(loop->epoll);
	if (loop->wake_fd >= 0)
		close(loop->wake_fd);
	free(loop->in);
	free(loop->gather);
}
