/* call.c: a request on its way to the server, and what becomes of it. */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "backends/nbd/remote.h"
#include "src/errors.h"
#include "src/log.h"
#include "src/stage/iov.h"

struct call *call_new(struct remote *remote, struct request *request)
{
	struct call *call = calloc(1, sizeof(*call));

	if (!call)
		return NULL;
	call->remote = remote;
	call->request = request;
	call->op = request->op;
	call->flags = request->flags;
	call->priority = request->priority;
	call->offset = request->offset;
	call->count = request->count;
	call->deadline = request->deadline;
	return call;
}

void call_free(struct call *call)
{
	free(call->data);
	free(call);
}

bool call_arrived(struct call *call, uint64_t from, uint64_t to)
{
	struct arrived *a = &call->arrived;
	unsigned int at = a->nr;

	while (at > 0 && a->ranges[at - 1].from >= to)
		at--;
	/* Now everything from @at on comes after it. */
	if (at > 0 && a->ranges[at - 1].to > from)
		return false;
	if (at > 0 && a->ranges[at - 1].to == from) {
		a->ranges[at - 1].to = to;
		from = a->ranges[at - 1].from;
	} else {
		if (a->nr == ARRIVED_MAX)
			return false;
		memmove(&a->ranges[at + 1], &a->ranges[at],
			(a->nr - at) * sizeof(a->ranges[0]));
		a->ranges[at].from = from;
		a->ranges[at].to = to;
		a->nr++;
		at++;
	}
	if (at < a->nr && a->ranges[at].from == to) {
		a->ranges[at - 1].to = a->ranges[at].to;
		a->nr--;
		memmove(&a->ranges[at], &a->ranges[at + 1],
			(a->nr - at) * sizeof(a->ranges[0]));
	}
	return true;
}

static bool has_all_arrived(const struct call *call)
{
	const struct arrived *a = &call->arrived;

	return a->nr == 1 && a->ranges[0].from == call->offset &&
	       a->ranges[0].to == call->offset + call->count;
}

int call_prepare(struct call *call)
{
	const struct request *request = call->request;
	unsigned int nr_used = 0;

	if (call->data || call->buffer || !call_payload(call))
		return 0;
	for (unsigned int i = 0; i < request->nr_iov; i++)
		if (request->iov[i].iov_len) {
			nr_used++;
			call->buffer = request->iov[i].iov_base;
		}
	/* A read that may be given up under way must not fill the buffer of a
	 * caller who has gone. */
	if (call->op == REQUEST_READ && nr_used == 1 && !call->deadline)
		return 0;
	call->buffer = NULL;
	call->data = malloc(call->count);
	if (!call->data)
		return -ENOMEM;
	if (call->op == REQUEST_WRITE)
		iov_copy_out(request->iov, request->nr_iov, 0, call->data,
			     call->count);
	return 0;
}

void call_complete(struct call *call, int error)
{
	struct remote *remote = call->remote;
	struct request *request = call->request;
	bool durable = call->flags & REQUEST_FUA && remote->peer.fua;
	bool keep = !error && call_is_change(call) && remote->peer.flush;
	bool flush = keep && call->flags & REQUEST_FUA && !durable;

	/* A durable one would be undone by the replay of an older one. */
	if (keep && durable && TAILQ_EMPTY(&remote->kept.calls))
		keep = false;
	if (!error && request && call->op == REQUEST_READ && call->data)
		iov_copy_in(request->iov, request->nr_iov, 0, call->data,
			    call->count);
	call->request = NULL;
	if (keep)
		kept_add(&remote->kept, call);
	else
		call_free(call);
	if (flush && request)
		flush_add(remote, request);
	else if (request)
		request_complete(request, error);
}

/* A kept change was sent again. */
static void replay_settle(struct call *call)
{
	struct remote *remote = call->remote;

	if (!call->error) {
		call->done += call->length;
		if (call->done < call->count && remote->links[0].state == LINK_UP)
			link_issue(&remote->links[0], call);
		return;
	}
	log_error("%s: a write that was acknowledged before the connection broke cannot be repeated (%" PRIu64
		  " bytes at %" PRIu64 "): %s; the next flush fails",
		  remote->text, call->count, call->offset, error_words(call->error));
	remote->lost = call->error;
	kept_remove(&remote->kept, call);
}

void call_settle(struct call *call)
{
	struct remote *remote = call->remote;

	if (call->is_kept) {
		replay_settle(call);
		return;
	}
	remote_healthy(remote);
	if (call->op == REQUEST_FLUSH) {
		flush_ended(remote, call);
		return;
	}
	/* libnbd 1.14 calls a read done of which bytes never came. */
	if (!call->error &&
	    ((call->op == REQUEST_EXTENTS && !call->answered) ||
	     (call->op == REQUEST_READ && !has_all_arrived(call))))
		call->error = -EPROTO;
	if (call->error) {
		if (call->error != -EOPNOTSUPP && call->op != REQUEST_PREFETCH)
			log_error("%s: %s of %" PRIu64 " bytes at %" PRIu64 ": %s",
				  remote->text, request_op_name(call->op),
				  call->count, call->offset,
				  error_words(call->error));
		call_complete(call, call->error == -EPROTO ? -EIO : call->error);
		return;
	}
	call->done += call->length;
	if (call->done >= call->count || call->op == REQUEST_EXTENTS)
		call_complete(call, 0);
	else if (call->request)
		remote_requeue(remote, call);
	else
		call_free(call);	/* its caller has gone in the middle */
}
