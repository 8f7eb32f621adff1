/* remote.c: the thread of a remote export: takes what slots hand over, keeps the
 * connections, sends by priority, completes.
 *
 * After a break the first connection is made anew, with growing pauses; when it
 * is there and the same export answers, what was kept is replayed over it
 * alone, then the other connections follow. */
#include <errno.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "backends/nbd/remote.h"
#include "src/log.h"
#include "src/random.h"

#define PAUSE_FIRST	 (50 * CLOCK_MS)
#define PAUSE_MAX	 (5 * CLOCK_SECOND)
#define PAUSE_FURTHER	 (60 * CLOCK_SECOND)	/* of connections after the first */
#define STEADY		 (5 * CLOCK_SECOND)	/* a connection that lived so long was good */
#define TICK		 (100 * CLOCK_MS)	/* for what is cancelled or late */
/* Under way on one connection: objmap's own server takes as many. */
#define LINK_CALLS	 128
#define LINK_BYTES	 (32u << 20)
/* The host is gone, though nobody said so: seconds until it is asked, between
 * two questions, how often; milliseconds for what was sent. */
#define KEEPALIVE_IDLE	   10
#define KEEPALIVE_INTERVAL 5
#define KEEPALIVE_COUNT	   4
#define UNSENT_TIMEOUT	   30000

void remote_healthy(struct remote *remote)
{
	if (!remote->silent)
		trouble_end(&remote->trouble, &remote->in_trouble, "answers again");
}

/* ---- connections ------------------------------------------------------------------ */

static void tell_opened(struct remote *remote, int error)
{
	pthread_mutex_lock(&remote->lock);
	remote->opened = true;
	remote->open_error = error;
	pthread_cond_signal(&remote->opened_cond);
	pthread_mutex_unlock(&remote->lock);
}

/* Doubles from try to try, less up to a quarter. */
static uint64_t pause_of(unsigned int failures)
{
	uint64_t pause = PAUSE_FIRST << (failures < 8 ? failures : 8);

	if (pause > PAUSE_MAX)
		pause = PAUSE_MAX;
	return pause - random_id() % (pause / 4);
}

/* What takes several commands begins with the first one again: a server that is
 * started anew may have forgotten them, and nothing of it is kept yet. */
static void restart_long_calls(struct remote *remote)
{
	struct call *call;

	for (unsigned int i = 0; i < NR_PRIORITIES; i++)
		TAILQ_FOREACH(call, &remote->queues[i], entry)
			call->done = 0;
	TAILQ_FOREACH(call, &remote->ended, entry)
		if (call->done + call->length < call->count)
			call->done = call->length = 0;
}

static void close_all(struct remote *remote)
{
	for (unsigned int i = 0; i < remote->nr_links; i++)
		link_close(&remote->links[i]);
	restart_long_calls(remote);
	flush_again(remote);
	/* From here on it could not be replayed. */
	if (remote->kept.missing) {
		remote->kept.missing = 0;
		remote->lost = -EIO;
		log_error("%s: the connection broke before what was written could be flushed or kept; the next flush fails",
			  remote->text);
	}
	remote->state = REMOTE_DOWN;
	remote->silent = false;
}

void remote_broken(struct link *link, int error, bool permanent,
		   const char *reason)
{
	struct remote *remote = link->remote;
	uint64_t now = clock_now(), since = now, retry_for = atomic_load(&remote->retry_for);
	bool given_up;

	if (link != &remote->links[0] && link->state != LINK_UP) {
		/* One that is not needed: the server may allow no more. */
		link_close(link);
		link->due = now + PAUSE_FURTHER;
		return;
	}
	if (link->state == LINK_UP && now - link->up_since > STEADY)
		remote->failures = 0;
	close_all(remote);
	if (!remote->known && permanent) {
		log_error("%s: %s", remote->text, reason);
		remote->links[0].due = UINT64_MAX;
		tell_opened(remote, error == -EINVAL ? -EIO : error);
		return;
	}
	remote->links[0].due = now + pause_of(remote->failures++);
	if (remote->in_trouble)
		since = remote->trouble.status.since;
	/* Without time for a first pause it is not tried again at all. */
	given_up = !remote->known && !remote->opened &&
		   (retry_for < PAUSE_FIRST || now - since >= retry_for);
	if (!given_up) {
		trouble_note(&remote->trouble, &remote->in_trouble, 0, "%s", reason);
	} else {
		log_error("%s: %s; given up", remote->text, reason);
		remote->links[0].due = UINT64_MAX;
		tell_opened(remote, -ETIMEDOUT);
	}
}

static void set_keepalive(int fd)
{
	static const struct {
		int level, name, value;
	} options[] = {
		{ SOL_SOCKET, SO_KEEPALIVE, 1 },
		{ IPPROTO_TCP, TCP_KEEPIDLE, KEEPALIVE_IDLE },
		{ IPPROTO_TCP, TCP_KEEPINTVL, KEEPALIVE_INTERVAL },
		{ IPPROTO_TCP, TCP_KEEPCNT, KEEPALIVE_COUNT },
		{ IPPROTO_TCP, TCP_USER_TIMEOUT, UNSENT_TIMEOUT },
	};

	for (unsigned int i = 0; i < sizeof(options) / sizeof(*options); i++)
		setsockopt(fd, options[i].level, options[i].name,
			   &options[i].value, sizeof(options[i].value));
}

/* Whether the server that is there now is the one that was opened. */
static bool is_same_peer(struct remote *remote, struct link *link)
{
	struct peer peer;
	const char *what = NULL;

	if (link_peer(remote, link->handle, &peer) != 0)
		what = "the server makes no sense any more";
	else if (peer.size != remote->peer.size)
		what = "the export has another size than before";
	else if (memcmp(&peer, &remote->peer, sizeof(peer)) != 0)
		what = "the server's block sizes or abilities are not those of before";
	if (!what)
		return true;
	if (!remote->refused)
		log_error("%s: %s; requests fail until the former export is back, or it is mounted anew",
			  remote->text, what);
	remote->refused = true;
	remote_broken(&remote->links[0], -EIO, false, what);
	return false;
}

void remote_connected(struct link *link)
{
	struct remote *remote = link->remote;
	int error;

	if (!remote->place.socket)
		set_keepalive(nbd_aio_get_fd(link->handle));
	if (link != &remote->links[0]) {
		is_same_peer(remote, link);
		return;
	}
	if (!remote->known) {
		error = link_peer(remote, link->handle, &remote->peer);
		if (error) {
			link_close(link);
			link->due = UINT64_MAX;
			tell_opened(remote, error);
			return;
		}
		remote->known = true;
		if (remote->read_only || remote->peer.read_only ||
		    remote->peer.multi_conn)
			remote->nr_links = remote->place.connections;
		/* The rest is done by who opens it, who reads the peer now. */
		tell_opened(remote, 0);
	} else if (!is_same_peer(remote, link)) {
		return;
	}
	remote->refused = false;
	remote->replay_next = TAILQ_FIRST(&remote->kept.calls);
	remote->state = REMOTE_REPLAYING;
}

static bool link_has_room(const struct link *link, const struct call *call)
{
	uint64_t payload = call_payload(call);
	unsigned int share = call->priority == PRIORITY_DEMAND ? 1 : 2;

	/* What nobody waits for leaves half of it free. */
	return link->state == LINK_UP && link->nr_calls < LINK_CALLS / share &&
	       (!link->nr_calls || link->bytes + payload <= LINK_BYTES / share);
}

static void connect_others(struct remote *remote, uint64_t now)
{
	for (unsigned int i = 1; i < remote->nr_links; i++) {
		struct link *link = &remote->links[i];

		if (link->state == LINK_DOWN && link->due <= now)
			link_connect(link);
		/* That may have taken all of them down. */
		if (remote->state != REMOTE_UP)
			return;
	}
}

/* The changes that were kept, in their order, those that do not overlap at
 * once. */
static void replay(struct remote *remote)
{
	struct link *link = &remote->links[0];
	struct call *call;

	while ((call = remote->replay_next) && link_has_room(link, call) &&
	       !calls_overlap(link, call)) {
		remote->replay_next = TAILQ_NEXT(call, kept_entry);
		call->done = 0;
		link_issue(link, call);
	}
	if (remote->replay_next || link->nr_calls || !TAILQ_EMPTY(&remote->ended))
		return;
	if (!TAILQ_EMPTY(&remote->kept.calls))
		log_notice("%s: what was not flushed when the connection broke was written again",
			   remote->text);
	remote->state = REMOTE_UP;
}

static void advance(struct remote *remote, uint64_t now)
{
	struct link *first = &remote->links[0];

	if (remote->state == REMOTE_DOWN && first->due <= now) {
		remote->state = REMOTE_CONNECTING;
		link_connect(first);
	}
	for (unsigned int i = 0; i < remote->nr_links; i++)
		if (remote->links[i].state == LINK_CONNECTING &&
		    remote->links[i].give_up <= now)
			remote_broken(&remote->links[i], -ETIMEDOUT, false,
				      "the server does not answer the handshake");
	if (remote->state == REMOTE_REPLAYING)
		replay(remote);
	if (remote->state == REMOTE_UP)
		connect_others(remote, now);
}

/* ---- the queues ---------------------------------------------------------------------- */

void remote_requeue(struct remote *remote, struct call *call)
{
	if (!call->stuck_since && remote->state != REMOTE_UP)
		call->stuck_since = clock_now();
	TAILQ_INSERT_HEAD(&remote->queues[call->priority], call, entry);
	remote->nr_queued++;
}

static void unqueue(struct remote *remote, struct call *call)
{
	TAILQ_REMOVE(&remote->queues[call->priority], call, entry);
	remote->nr_queued--;
}

/* Whether there is memory to keep it once it is acknowledged. */
static bool kept_has_room(const struct remote *remote, const struct call *call)
{
	uint64_t used = remote->kept.bytes + remote->changing;

	if (!call_is_change(call) || !remote->peer.flush)
		return true;
	return used + call_payload(call) <= KEPT_MAX ||
	       (!remote->changing && remote->kept.bytes < KEPT_MAX / 2);
}

static struct link *pick_link(struct remote *remote, const struct call *call)
{
	struct link *best = NULL;

	for (unsigned int i = 0; i < remote->nr_links; i++) {
		struct link *link = &remote->links[i];

		if (link_has_room(link, call) &&
		    (!best || link->bytes < best->bytes ||
		     (link->bytes == best->bytes && link->nr_calls < best->nr_calls)))
			best = link;
	}
	return best;
}

static void dispatch_queue(struct remote *remote, struct calls *queue)
{
	struct call *call, *next;
	struct link *link;
	int error;

	for (call = TAILQ_FIRST(queue); call; call = next) {
		next = TAILQ_NEXT(call, entry);
		if (!kept_has_room(remote, call))
			continue;
		link = pick_link(remote, call);
		if (!link)
			return;
		unqueue(remote, call);
		error = request_is_cancelled(call->request) ? -ECANCELED :
			call_prepare(call);
		if (error)
			call_complete(call, error);
		else
			link_issue(link, call);
	}
}

static void dispatch(struct remote *remote)
{
	if (remote->state != REMOTE_UP)
		return;
	flush_advance(remote);
	for (unsigned int i = 0; i < NR_PRIORITIES; i++)
		dispatch_queue(remote, &remote->queues[i]);
	for (unsigned int i = 0; i < remote->nr_links; i++)
		if (remote->links[i].state != LINK_DOWN)
			link_check(&remote->links[i]);
}

static void settle(struct remote *remote)
{
	struct call *call;

	while ((call = TAILQ_FIRST(&remote->ended))) {
		TAILQ_REMOVE(&remote->ended, call, entry);
		call_settle(call);
	}
}

/* What slots have handed over.  Whether to go on. */
static bool take_arrived(struct remote *remote)
{
	struct call *call;
	bool stop;

	for (;;) {
		pthread_mutex_lock(&remote->lock);
		remote->asleep = false;
		stop = remote->stop;
		call = TAILQ_FIRST(&remote->arrived);
		if (call)
			TAILQ_REMOVE(&remote->arrived, call, entry);
		pthread_mutex_unlock(&remote->lock);
		if (!call)
			return !stop;
		if (call->op == REQUEST_FLUSH) {
			flush_add(remote, call->request);
			call_free(call);
			continue;
		}
		TAILQ_INSERT_TAIL(&remote->queues[call->priority], call, entry);
		remote->nr_queued++;
	}
}

/* ---- what is over before its time ------------------------------------------------------ */

static int call_is_over(struct remote *remote, struct call *call, uint64_t now)
{
	if (remote->refused)
		return -EIO;
	if (request_is_cancelled(call->request))
		return -ECANCELED;
	if (call->deadline && call->deadline <= now)
		return -ETIMEDOUT;
	if (!call->stuck_since && remote->state != REMOTE_UP)
		call->stuck_since = now;
	/* Even without time for another try it waits for one that is being made. */
	if (call->stuck_since &&
	    now - call->stuck_since > atomic_load(&remote->retry_for))
		return -ETIMEDOUT;
	return 0;
}

/* Late ones that are under way: their callers go, they stay. */
static void expire_link(struct link *link, uint64_t now)
{
	struct call *call;
	struct request *request;

	TAILQ_FOREACH(call, &link->calls, entry) {
		if (!call->request || !call->deadline || call->deadline > now)
			continue;
		request = call->request;
		call->request = NULL;
		request_complete(request, -ETIMEDOUT);
	}
}

static void expire(struct remote *remote, uint64_t now)
{
	bool given_up = remote->state != REMOTE_UP && remote->in_trouble &&
		clock_now() - remote->trouble.status.since >= atomic_load(&remote->retry_for);
	struct call *call, *next;
	int error;

	for (unsigned int i = 0; i < NR_PRIORITIES; i++)
		for (call = TAILQ_FIRST(&remote->queues[i]); call; call = next) {
			next = TAILQ_NEXT(call, entry);
			error = call_is_over(remote, call, now);
			if (!error)
				continue;
			unqueue(remote, call);
			call_complete(call, error);
		}
	for (unsigned int i = 0; i < remote->nr_links; i++)
		expire_link(&remote->links[i], now);
	flush_expire(remote, now, remote->refused ? -EIO : given_up ? -ETIMEDOUT : 0);
}

/* ---- the thread ---------------------------------------------------------------------------- */

static uint64_t earlier(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

static int wait_ms(const struct remote *remote, uint64_t now)
{
	bool busy = remote->nr_queued || remote->unflushed || remote->flushing ||
		    remote->silent;
	uint64_t next = UINT64_MAX;

	for (unsigned int i = 0; i < remote->nr_links; i++) {
		const struct link *link = &remote->links[i];

		if (link->nr_calls)
			busy = true;
		if (link->state == LINK_CONNECTING)
			next = earlier(next, link->give_up);
		if (link->state == LINK_DOWN &&
		    (i == 0 || remote->state == REMOTE_UP))
			next = earlier(next, link->due);
	}
	if (busy)
		next = earlier(next, now + TICK);
	if (next == UINT64_MAX)
		return -1;
	return next <= now ? 0 : (int)((next - now) / CLOCK_MS + 1);
}

/* Whether the thread may sleep: nothing has arrived. */
static bool fall_asleep(struct remote *remote)
{
	bool asleep;

	pthread_mutex_lock(&remote->lock);
	asleep = TAILQ_EMPTY(&remote->arrived) && !remote->stop;
	remote->asleep = asleep;
	pthread_mutex_unlock(&remote->lock);
	return asleep;
}

static void wait_for_events(struct remote *remote)
{
	struct pollfd fds[1 + NBD_CONNECTIONS_MAX];
	struct link *links[1 + NBD_CONNECTIONS_MAX];
	unsigned int nr = 1;
	uint64_t count;
	int ms = wait_ms(remote, clock_now());

	fds[0] = (struct pollfd){ .fd = remote->wake_fd, .events = POLLIN };
	for (unsigned int i = 0; i < remote->nr_links; i++) {
		struct link *link = &remote->links[i];
		unsigned int direction;

		if (!link->handle)
			continue;
		direction = nbd_aio_get_direction(link->handle);
		fds[nr] = (struct pollfd){ .fd = nbd_aio_get_fd(link->handle) };
		if (direction & LIBNBD_AIO_DIRECTION_READ)
			fds[nr].events |= POLLIN;
		if (direction & LIBNBD_AIO_DIRECTION_WRITE)
			fds[nr].events |= POLLOUT;
		links[nr++] = link;
	}
	if (!TAILQ_EMPTY(&remote->ended) || !fall_asleep(remote))
		ms = 0;
	if (poll(fds, nr, ms) <= 0)
		return;
	if (fds[0].revents && read(remote->wake_fd, &count, sizeof(count)) < 0)
		count = 0;
	/* One that breaks takes the others with it. */
	for (unsigned int i = 1; i < nr; i++)
		if (fds[i].revents && links[i]->handle)
			link_notify(links[i], fds[i].revents);
}

void remote_wake(struct remote *remote)
{
	uint64_t one = 1;

	while (write(remote->wake_fd, &one, sizeof(one)) < 0 && errno == EINTR)
		;
}

void *remote_run(void *context)
{
	struct remote *remote = context;
	uint64_t now, last_expiry = 0;

	while (take_arrived(remote)) {
		now = clock_now();
		if (now - last_expiry >= TICK) {
			silence_check(remote, now);
			expire(remote, now);
			last_expiry = now;
		}
		advance(remote, now);
		dispatch(remote);
		settle(remote);
		if (remote->state == REMOTE_UP && !remote->nr_queued &&
		    !remote->links[0].nr_calls)
			remote_healthy(remote);
		wait_for_events(remote);
		settle(remote);
	}
	for (unsigned int i = 0; i < remote->nr_links; i++)
		link_close(&remote->links[i]);
	return NULL;
}
