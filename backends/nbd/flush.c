/* flush.c: flushes, one under way at a time; whoever comes meanwhile shares the
 * next one.
 *
 * A flush that is sent covers what was acknowledged before, on every
 * connection: there are several for writing only where the server says
 * MULTI_CONN, which promises that.  What was lost for good is told once, by the
 * next flush. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "backends/nbd/remote.h"
#include "src/errors.h"
#include "src/log.h"

void flush_add(struct remote *remote, struct request *request)
{
	request->next = NULL;
	*remote->unflushed_last = request;
	remote->unflushed_last = &request->next;
}

static void complete_all(struct request *list, int error)
{
	struct request *request;

	while ((request = list)) {
		list = request->next;
		request_complete(request, error);
	}
}

static struct request *take_unflushed(struct remote *remote)
{
	struct request *list = remote->unflushed;

	remote->unflushed = NULL;
	remote->unflushed_last = &remote->unflushed;
	return list;
}

static struct request *take_flushing(struct remote *remote)
{
	struct request *list = remote->flushing;

	remote->flushing = NULL;
	remote->flushing_last = &remote->flushing;
	return list;
}

void flush_advance(struct remote *remote)
{
	struct call *call;
	int error;

	if (remote->state != REMOTE_UP || remote->flush)
		return;
	if (remote->unflushed && (remote->lost || !remote->peer.flush)) {
		/* Without flush every change was sent with FUA. */
		error = remote->lost;
		remote->lost = 0;
		complete_all(take_unflushed(remote), error);
		return;
	}
	if (!remote->unflushed && remote->kept.bytes < KEPT_MAX / 2)
		return;
	call = calloc(1, sizeof(*call));
	if (!call) {
		complete_all(take_unflushed(remote), -ENOMEM);
		return;
	}
	call->remote = remote;
	call->op = REQUEST_FLUSH;
	call->covers = remote->kept.newest;
	remote->flush = call;
	if (remote->unflushed) {
		remote->flushing = remote->unflushed;
		remote->flushing_last = remote->unflushed_last;
		take_unflushed(remote);
	}
	link_issue(&remote->links[0], call);
}

void flush_ended(struct remote *remote, struct call *call)
{
	struct request *callers = take_flushing(remote);
	int error = call->error;

	remote->flush = NULL;
	if (error)
		log_error("%s: flush: %s", remote->text, error_words(error));
	if (!error)
		kept_forget(&remote->kept, call->covers);
	else if (!callers)
		remote->lost = error;
	if (error && remote->kept.bytes >= KEPT_MAX / 2)
		kept_give_up(&remote->kept);
	call_free(call);
	complete_all(callers, error);
}

/* Whether it was answered, and is settled later in this turn. */
static bool flush_is_answered(const struct remote *remote)
{
	const struct call *call;

	TAILQ_FOREACH(call, &remote->ended, entry)
		if (call == remote->flush)
			return true;
	return false;
}

void flush_again(struct remote *remote)
{
	if (!remote->flush)
		return;
	if (flush_is_answered(remote)) {
		if (!remote->flush->error)	/* what it covers needs no replay */
			kept_forget(&remote->kept, remote->flush->covers);
		return;
	}
	call_free(remote->flush);
	remote->flush = NULL;
	if (!remote->flushing)
		return;
	*remote->flushing_last = remote->unflushed;
	if (!remote->unflushed)
		remote->unflushed_last = remote->flushing_last;
	remote->unflushed = take_flushing(remote);
}

static bool is_over(const struct request *request, uint64_t now, int *error)
{
	if (!*error && request_is_cancelled(request))
		*error = -ECANCELED;
	if (!*error && request->deadline && request->deadline <= now)
		*error = -ETIMEDOUT;
	return *error;
}

/* Takes what is over out of the list that ends at **@last. */
static void expire_list(struct request **list, struct request ***last,
			uint64_t now, int error)
{
	struct request *request, *over = NULL, **at = list;

	while ((request = *at)) {
		int why = error;

		if (!is_over(request, now, &why)) {
			at = &request->next;
			continue;
		}
		*at = request->next;
		request->next = over;
		over = request;
	}
	*last = at;
	while ((request = over)) {
		int why = error;

		over = request->next;
		is_over(request, now, &why);
		request_complete(request, why);
	}
}

void flush_expire(struct remote *remote, uint64_t now, int error)
{
	expire_list(&remote->unflushed, &remote->unflushed_last, now, error);
	expire_list(&remote->flushing, &remote->flushing_last, now, error);
}
