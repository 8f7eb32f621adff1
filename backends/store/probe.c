/* probe.c: finding out whether a store's conditional puts are conditional.
 *
 * Some stores take If-None-Match or If-Match and do not look at it; a volume
 * there would lose commits.  So before the first writing, on a key of its own:
 *
 *     PUT			must be done
 *     PUT if-absent		must be refused: there is one
 *     PUT if-match wrong tag	must be refused
 *     DELETE, PUT if-match	must be refused: there is none
 *     DELETE			always, whatever came before
 *
 * What is unknown (a lost reply, a resend) is asked again. */
#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "backends/store/probe.h"
#include "src/log.h"

#define UNKNOWN_MAX 8	/* times one question is asked again */

enum question {
	Q_PUT, Q_IF_ABSENT, Q_WRONG_TAG, Q_DELETE, Q_MATCH_MISSING, Q_CLEAN_UP,
};

struct probe {
	struct store *store;
	struct store_request *asked;	/* the caller's */
	struct store_request request;
	enum question question;
	unsigned int unknown;
	enum store_outcome verdict;
	char tag[STORE_TAG_MAX];
	struct iovec iov;
};

/* A tag that looks like the store's own and is not: the last letter or digit
 * is another one. */
static void spoil_tag(char *tag)
{
	size_t i = strlen(tag);

	while (i-- > 0) {
		if (!isalnum((unsigned char)tag[i]))
			continue;
		tag[i] = tag[i] == '0' ? '1' : '0';
		return;
	}
}

static void probe_answer(struct store_request *request, enum store_outcome outcome);

static void probe_ask(struct probe *probe, enum question question)
{
	static char content[] = "objmap probe\n";
	struct store_request *request = &probe->request;

	probe->question = question;
	memset(request, 0, sizeof(*request));
	request->op = STORE_PUT;
	request->cause = probe->asked->cause;
	request->priority = probe->asked->priority;
	request->deadline = probe->asked->deadline;
	request->key = probe->asked->key;
	request->done = probe_answer;
	request->context = probe;
	request->tag = probe->tag;
	probe->iov.iov_base = content;
	probe->iov.iov_len = request->count = sizeof(content) - 1;
	request->iov = &probe->iov;
	request->nr_iov = 1;
	switch (question) {
	case Q_PUT:
		break;
	case Q_IF_ABSENT:
		request->condition = STORE_IF_ABSENT;
		break;
	case Q_WRONG_TAG:
	case Q_MATCH_MISSING:
		request->condition = STORE_IF_MATCH;
		break;
	case Q_DELETE:
	case Q_CLEAN_UP:
		request->op = STORE_DELETE;
		request->keys = &probe->asked->key;
		request->nr_keys = 1;
		request->iov = NULL;
		request->nr_iov = 0;
		request->count = 0;
		break;
	}
	store_submit(probe->store, request);
}

static void probe_end(struct probe *probe)
{
	struct store_request *asked = probe->asked;
	enum store_outcome verdict = probe->verdict;

	free(probe);
	store_complete(asked, verdict);
}

static void probe_fail(struct probe *probe, int error)
{
	probe->verdict = STORE_FAILED;
	probe->asked->reply.error = error ? error : -EIO;
	probe_ask(probe, Q_CLEAN_UP);
}

/* A question that a conditional store answers with a refusal was answered. */
static void probe_judge(struct probe *probe, enum store_outcome outcome)
{
	static const char *const asked[] = {
		[Q_IF_ABSENT] = "a PUT that must not replace (If-None-Match)",
		[Q_WRONG_TAG] = "a PUT over other content (If-Match, wrong tag)",
		[Q_MATCH_MISSING] = "a PUT over a missing object (If-Match)",
	};

	if (outcome == STORE_DONE) {
		log_error("%s: the store accepted %s: it cannot keep two writers apart",
			  probe->store->place, asked[probe->question]);
		probe->verdict = STORE_REFUSED;
		probe_ask(probe, Q_CLEAN_UP);
	} else if (outcome == STORE_UNKNOWN && probe->unknown++ < UNKNOWN_MAX) {
		probe_ask(probe, probe->question);
	} else if (outcome != STORE_REFUSED) {
		probe_fail(probe, probe->request.reply.error);
	} else {
		probe->unknown = 0;
		if (probe->question == Q_IF_ABSENT)
			spoil_tag(probe->tag);
		probe_ask(probe, probe->question + 1);
	}
}

static void probe_answer(struct store_request *request, enum store_outcome outcome)
{
	struct probe *probe = request->context;

	if (probe->question != Q_CLEAN_UP &&
	    store_request_is_cancelled(probe->asked)) {
		probe_fail(probe, -ECANCELED);
		return;
	}
	switch (probe->question) {
	case Q_PUT:
		memcpy(probe->tag, request->reply.tag, sizeof(probe->tag));
		if (outcome == STORE_DONE)
			probe_ask(probe, Q_IF_ABSENT);
		else
			probe_fail(probe, request->reply.error);
		break;
	case Q_IF_ABSENT:
	case Q_WRONG_TAG:
	case Q_MATCH_MISSING:
		probe_judge(probe, outcome);
		break;
	case Q_DELETE:
		if (outcome == STORE_DONE)
			probe_ask(probe, Q_MATCH_MISSING);
		else
			probe_fail(probe, request->reply.error);
		break;
	case Q_CLEAN_UP:
		/* What could not be deleted is garbage, and gc's. */
		probe_end(probe);
		break;
	}
}

void store_probe(struct store *store, struct store_request *request)
{
	struct probe *probe = calloc(1, sizeof(*probe));

	if (!probe) {
		request->reply.error = -ENOMEM;
		store_complete(request, STORE_FAILED);
		return;
	}
	probe->store = store;
	probe->asked = request;
	probe->verdict = STORE_DONE;
	probe_ask(probe, Q_PUT);
}
