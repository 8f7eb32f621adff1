/* silence.c: a server that is alive and does not answer.
 *
 * No hang is without a word: what has waited for long is told in the log, once, and in
 * `status`, until all is answered.  A connection on which nothing moves for as long as
 * failures are tried again (--retry-for, if given), but at least 5 s, or one request
 * waits for 30 s more than that time, is lost like one that breaks, and the requests that
 * waited so long on it have failed. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>

#include "backends/nbd/remote.h"
#include "src/units.h"

#define SILENT_AFTER (10 * CLOCK_SECOND)	/* no byte came or went */
#define LOST_AFTER   (5 * CLOCK_SECOND)		/* at least: who is slow has not failed */
#define LATE_AFTER   (30 * CLOCK_SECOND)	/* ... of this request: others may have */

/* How long nothing has moved on @link, though its oldest @call waits. */
static uint64_t silence_of(const struct link *link, const struct call *call, uint64_t now)
{
	uint64_t heard = link->heard > call->sent ? link->heard : call->sent;

	return now - heard;
}

static void describe(const struct call *call, uint64_t waited, char *text, size_t size)
{
	char time[UNITS_TEXT];
	int length = snprintf(text, size, "the server has not answered a %s",
			      request_op_name(call->op));

	if (call->op != REQUEST_FLUSH)
		length += snprintf(text + length, size - (size_t)length, " of %" PRIu64
				   " bytes at %" PRIu64, call->count, call->offset);
	snprintf(text + length, size - (size_t)length, " for %s",
		 time_format(waited - waited % CLOCK_SECOND, time));
}

/* Its calls have waited since they were sent.  Flushes fail at once: there has
 * been trouble for as long as they wait. */
static void give_up(struct link *link, uint64_t now, const char *why)
{
	struct call *call;

	TAILQ_FOREACH(call, &link->calls, entry)
		if (!call->stuck_since)
			call->stuck_since = call->sent;
	remote_broken(link, -ETIMEDOUT, false, why);
	flush_expire(link->remote, now, -ETIMEDOUT);
}

void silence_check(struct remote *remote, uint64_t now)
{
	uint64_t retry_for = atomic_load(&remote->retry_for), waited, late;
	uint64_t lost_after = retry_for > LOST_AFTER ? retry_for : LOST_AFTER;
	bool silent = false;
	char text[160];

	for (unsigned int i = 0; i < remote->nr_links; i++) {
		struct link *link = &remote->links[i];
		const struct call *call = TAILQ_FIRST(&link->calls);

		if (link->state != LINK_UP || !call)
			continue;
		waited = silence_of(link, call, now);
		late = now - call->sent;
		/* Others may be answered all the while, but not for this long. */
		if (waited >= lost_after || (late >= LATE_AFTER && late - LATE_AFTER >= retry_for)) {
			describe(call, late, text, sizeof(text));
			give_up(link, now, text);
			return;		/* that has taken all of them down */
		}
		if (waited < SILENT_AFTER && late < LATE_AFTER)
			continue;
		silent = true;
		if (!remote->silent) {
			describe(call, late, text, sizeof(text));
			remote->silent = true;
			trouble_note(&remote->trouble, &remote->in_trouble, call->sent,
				     "%s", text);
		}
	}
	if (remote->silent && !silent) {
		remote->silent = false;
		remote_healthy(remote);
	}
}
