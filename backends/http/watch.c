/* watch.c: which sockets an I/O thread waits for.
 *
 * libcurl asks for a socket when a request begins and no longer when it has ended.
 * Between two requests on a kept-alive connection the socket stays in epoll, so that
 * most requests need no call of epoll_ctl() at all; when something happens on it then,
 * it is taken out.
 *
 * libcurl tells when it closes a socket that carried a request, before it does.  One
 * that did not get so far it may close first and take back after, when its number may
 * be somebody else's already: such a one is forgotten without asking the kernel, which
 * has forgotten it too. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "backends/http/pool.h"
#include "src/log.h"

struct watch {
	uint8_t has, wants;		/* EPOLLIN | EPOLLOUT */
	bool carried;			/* a request */
};

static struct watch *watch_of(struct watches *watches, int fd)
{
	unsigned int nr = (unsigned int)fd + 1;
	struct watch *more;

	if (nr <= watches->nr)
		return &watches->of[fd];
	nr *= 2;
	more = realloc(watches->of, nr * sizeof(*more));
	if (!more)
		return NULL;
	memset(more + watches->nr, 0, (nr - watches->nr) * sizeof(*more));
	watches->of = more;
	watches->nr = nr;
	return &more[fd];
}

int watches_open(struct watches *watches, int wake_fd)
{
	struct epoll_event event = { .events = EPOLLIN, .data.fd = wake_fd };

	watches->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	if (watches->epoll_fd < 0 ||
	    epoll_ctl(watches->epoll_fd, EPOLL_CTL_ADD, wake_fd, &event) < 0)
		return -errno;
	return 0;
}

void watches_close(struct watches *watches)
{
	if (watches->epoll_fd >= 0)
		close(watches->epoll_fd);
	free(watches->of);
}

/* What epoll has may be behind what we know, see above. */
static int epoll_set(int epoll_fd, int fd, unsigned int events, bool known)
{
	struct epoll_event event = { .events = events, .data.fd = fd };
	int op = known ? EPOLL_CTL_MOD : EPOLL_CTL_ADD;

	if (epoll_ctl(epoll_fd, op, fd, &event) == 0)
		return 0;
	if (errno != ENOENT && errno != EEXIST)
		return -errno;
	op = errno == ENOENT ? EPOLL_CTL_ADD : EPOLL_CTL_MOD;
	return epoll_ctl(epoll_fd, op, fd, &event) == 0 ? 0 : -errno;
}

int watch_set(struct watches *watches, int fd, unsigned int events)
{
	struct watch *watch = watch_of(watches, fd);
	int error;

	if (!watch)
		return -ENOMEM;
	watch->wants = (uint8_t)events;
	if (!events && !watch->carried)
		watch->has = 0;
	if (!events || events == watch->has)
		return 0;
	error = epoll_set(watches->epoll_fd, fd, events, watch->has);
	if (error)
		log_error("http: epoll: %s", strerror(-error));
	else
		watch->has = (uint8_t)events;
	return error;
}

bool watch_is_wanted(struct watches *watches, int fd)
{
	struct watch *watch = watch_of(watches, fd);

	if (watch && watch->wants)
		return true;
	epoll_ctl(watches->epoll_fd, EPOLL_CTL_DEL, fd, NULL);
	if (watch)
		watch->has = 0;
	return false;
}

void watch_carries(struct watches *watches, int fd)
{
	struct watch *watch = watch_of(watches, fd);

	if (watch)
		watch->carried = true;
}

bool watch_fresh(struct watches *watches, int fd)
{
	struct watch *watch = watch_of(watches, fd);
	bool carried = watch && watch->carried;

	if (watch)
		memset(watch, 0, sizeof(*watch));
	return carried;
}
