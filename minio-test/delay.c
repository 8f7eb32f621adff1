/* delay.c: a TCP proxy on the loopback that adds a round-trip time and nothing else,
 * for measurements.
 *
 *     delay HOST:PORT MILLISECONDS [PORT]
 *
 * prints http://127.0.0.1:PORT and runs until it is killed.  Bytes wait in a pipe,
 * into and out of which they are spliced, so they are not copied on their way; each
 * direction adds half of the time.  What a new connection sends first waits for one
 * round trip more, as a handshake over such a line would take. */
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#define PIPE_BYTES (1u << 20)
#define QUEUE	   512			/* portions on their way, at most */
#define EVENTS	   64

struct portion {
	uint64_t due;			/* nanoseconds, monotonic */
	size_t count;			/* 0: the end */
};

/* One direction. */
struct way {
	struct line *line;
	int from, to, pipe[2];
	struct portion queue[QUEUE];
	unsigned int first, nr;
	uint64_t not_before;		/* nothing arrives before this */
	bool readable, writable, ended, done;
};

struct line {
	struct line *next;
	struct way ways[2];
	bool broken;
};

static struct line *lines;
static uint64_t half;			/* nanoseconds of one direction */
static int timer;

static uint64_t clock_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void must(bool good, const char *what)
{
	if (good)
		return;
	perror(what);
	exit(1);
}

static void take_in(struct way *way, uint64_t now)
{
	while (way->readable && !way->ended && way->nr < QUEUE) {
		ssize_t got = splice(way->from, NULL, way->pipe[1], NULL, PIPE_BYTES,
				     SPLICE_F_NONBLOCK | SPLICE_F_MOVE);
		uint64_t due = now + half;

		if (got < 0 && errno == EAGAIN) {
			/* Either is to blame: a full pipe is tried again when
			 * it has given something. */
			if (!way->nr)
				way->readable = false;
			return;
		}
		if (got < 0) {
			way->line->broken = true;
			return;
		}
		if (due < way->not_before)
			due = way->not_before;
		way->queue[(way->first + way->nr++) % QUEUE] =
			(struct portion){ .due = due, .count = (size_t)got };
		way->ended = got == 0;
	}
}

/* Whether something was given out, so that there is room again. */
static bool give_out(struct way *way, uint64_t now)
{
	bool gave = false;

	while (way->writable && way->nr && way->queue[way->first].due <= now) {
		struct portion *p = &way->queue[way->first];

		if (p->count) {
			ssize_t sent = splice(way->pipe[0], NULL, way->to, NULL, p->count,
					      SPLICE_F_NONBLOCK | SPLICE_F_MOVE);

			if (sent < 0 && errno == EAGAIN) {
				way->writable = false;
				return gave;
			}
			if (sent <= 0) {
				way->line->broken = true;
				return gave;
			}
			gave = true;
			p->count -= (size_t)sent;
			if (p->count)
				continue;
		} else {
			shutdown(way->to, SHUT_WR);
			way->done = true;
		}
		way->first = (way->first + 1) % QUEUE;
		way->nr--;
	}
	return gave;
}

static void move_way(struct way *way)
{
	uint64_t now = clock_ns();

	do
		take_in(way, now);
	while (give_out(way, now));
}

static void line_free(struct line *line)
{
	struct linger reset = { .l_onoff = 1 };
	unsigned int i;

	for (i = 0; i < 2; i++) {
		struct way *way = &line->ways[i];

		if (line->broken)
			setsockopt(way->from, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset));
		close(way->from);
		close(way->pipe[0]);
		close(way->pipe[1]);
	}
	free(line);
}

/* Moves what can be; when the next portion is due, 0: none waits for time. */
static uint64_t move_all(void)
{
	struct line **at = &lines;
	uint64_t next = 0;

	while (*at) {
		struct line *line = *at;
		unsigned int i;

		for (i = 0; i < 2; i++) {
			struct way *way = &line->ways[i];
			uint64_t due;

			move_way(way);
			if (!way->nr || !way->writable)
				continue;
			due = way->queue[way->first].due;
			if (!next || due < next)
				next = due;
		}
		if (line->broken || (line->ways[0].done && line->ways[1].done)) {
			*at = line->next;
			line_free(line);
			continue;
		}
		at = &line->next;
	}
	return next;
}

static void way_init(struct way *way, struct line *line, int from, int to)
{
	way->line = line;
	way->from = from;
	way->to = to;
	must(pipe2(way->pipe, O_NONBLOCK) == 0, "pipe");
	/* Less is slower, not wrong. */
	if (fcntl(way->pipe[1], F_SETPIPE_SZ, PIPE_BYTES) < 0)
		perror("F_SETPIPE_SZ");
}

static void watch(int poll, int fd, struct way *reads)
{
	struct epoll_event event = { .events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET,
				     .data.ptr = reads };
	int on = 1;

	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	must(fcntl(fd, F_SETFL, O_NONBLOCK) == 0, "O_NONBLOCK");
	must(epoll_ctl(poll, EPOLL_CTL_ADD, fd, &event) == 0, "epoll_ctl");
}

static void accept_line(int poll, int listener, const struct addrinfo *server)
{
	int client = accept(listener, NULL, NULL), peer;
	struct line *line;

	if (client < 0)
		return;
	peer = socket(server->ai_family, SOCK_STREAM, 0);
	if (peer < 0 || connect(peer, server->ai_addr, server->ai_addrlen)) {
		perror("connect");
		close(peer);
		close(client);
		return;
	}
	line = calloc(1, sizeof(*line));
	must(line != NULL, "memory");
	way_init(&line->ways[0], line, client, peer);
	way_init(&line->ways[1], line, peer, client);
	line->ways[0].not_before = clock_ns() + 3 * half;
	line->next = lines;
	lines = line;
	watch(poll, client, &line->ways[0]);
	watch(poll, peer, &line->ways[1]);
}

static int listen_on(const char *port)
{
	struct sockaddr_in address = { .sin_family = AF_INET,
				       .sin_addr.s_addr = htonl(INADDR_LOOPBACK),
				       .sin_port = htons((uint16_t)atoi(port)) };
	socklen_t length = sizeof(address);
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), on = 1;

	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	must(bind(fd, (struct sockaddr *)&address, length) == 0, "bind");
	must(listen(fd, 1024) == 0, "listen");
	must(getsockname(fd, (struct sockaddr *)&address, &length) == 0, "getsockname");
	printf("http://127.0.0.1:%d\n", ntohs(address.sin_port));
	fflush(stdout);
	return fd;
}

static void mark_ready(const struct epoll_event *event)
{
	struct way *way = event->data.ptr;
	struct way *other = &way->line->ways[way == &way->line->ways[0]];

	if (event->events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR))
		way->readable = true;
	if (event->events & (EPOLLOUT | EPOLLHUP | EPOLLERR))
		other->writable = true;
}

static void run(int poll, int listener, const struct addrinfo *server)
{
	struct epoll_event events[EVENTS];

	for (;;) {
		int i, nr = epoll_wait(poll, events, EVENTS, -1);
		bool accepts = false;
		uint64_t next;

		must(nr >= 0 || errno == EINTR, "epoll_wait");
		for (i = 0; i < nr; i++) {
			uint64_t expired;

			if (events[i].data.ptr == &timer) {
				if (read(timer, &expired, sizeof(expired)) < 0)
					continue;
			} else if (!events[i].data.ptr) {
				accepts = true;
			} else {
				mark_ready(&events[i]);
			}
		}
		if (accepts)
			accept_line(poll, listener, server);
		next = move_all();
		if (next) {
			struct itimerspec at = { .it_value = {
				.tv_sec = (time_t)(next / 1000000000u),
				.tv_nsec = (long)(next % 1000000000u) } };

			must(timerfd_settime(timer, TFD_TIMER_ABSTIME, &at, NULL) == 0, "timer");
		}
	}
}

int main(int argc, char **argv)
{
	struct addrinfo *server, hints = { .ai_socktype = SOCK_STREAM };
	char *host, *port, *end;
	int poll, listener;
	struct epoll_event event = { .events = EPOLLIN };
	double ms;

	if (argc < 3 || argc > 4 || !(port = strrchr(argv[1], ':'))) {
		fprintf(stderr, "usage: delay HOST:PORT MILLISECONDS [PORT]\n");
		return 2;
	}
	host = argv[1];
	*port++ = '\0';
	ms = strtod(argv[2], &end);
	if (*end || ms < 0 || getaddrinfo(host, port, &hints, &server)) {
		fprintf(stderr, "delay: no such address, or no number of milliseconds\n");
		return 2;
	}
	half = (uint64_t)(ms * 1e6 / 2);
	signal(SIGPIPE, SIG_IGN);
	poll = epoll_create1(0);
	timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK);
	must(poll >= 0 && timer >= 0, "epoll");
	listener = listen_on(argc == 4 ? argv[3] : "0");
	must(epoll_ctl(poll, EPOLL_CTL_ADD, listener, &event) == 0, "epoll_ctl");
	event.data.ptr = &timer;
	must(epoll_ctl(poll, EPOLL_CTL_ADD, timer, &event) == 0, "epoll_ctl");
	run(poll, listener, server);
	return 0;
}
