/* probe.c: finding out whether a store's conditional puts are conditional.
 *
 * Some stores take If-None-Match or If-Match and do not look at it; a volume
 * there would lose commits.  So before the first writing, on keys of its own:
 *
 *     PUT			must be done
 *     PUT if-absent		must be refused: there is one	     \
 *     PUT if-match wrong tag	must be refused			      > at once
 *     PUT if-match elsewhere	must be refused: there is none there /
 *     DELETE of both		always, whatever came before
 *
 * Three round trips.  What is unknown (a lost reply, a resend) is asked again. */
#include <ctype.h>
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "backends/store/probe.h"
#include "src/log.h"

#define UNKNOWN_MAX 8	/* times one question is asked again */

enum question { Q_PUT, Q_IF_ABSENT, Q_WRONG_TAG, Q_MISSING, Q_CLEAN_UP, NR_QUESTIONS };

struct probe {
	struct store *store;
	struct store_request *asked;	/* the caller's */
	struct store_request requests[NR_QUESTIONS];
	unsigned int unknown[NR_QUESTIONS];
	char tag[STORE_TAG_MAX];	/* of what was put */
	char wrong_tag[STORE_TAG_MAX];
	char missing[STORE_KEY_MAX];	/* a key beside the caller's */
	const char *keys[2];
	struct iovec iov;
	pthread_mutex_t lock;		/* over what follows */
	unsigned int nr_open;		/* questions without an answer */
	enum store_outcome verdict;
	int error;
	const struct store_reply *why;	/* whose words go with @error, or NULL */
};

/* Another text, that looks like this one: the last letter or digit is another. */
static void spoil(char *text)
{
	size_t i = strlen(text);

	while (i-- > 0) {
		if (!isalnum((unsigned char)text[i]))
			continue;
		text[i] = text[i] == '0' ? '1' : '0';
		return;
	}
}

static void probe_answer(struct store_request *request, enum store_outcome outcome);

static void probe_ask(struct probe *probe, enum question question)
{
	struct store_request *request = &probe->requests[question];

	*request = (struct store_request){
		.op = STORE_PUT,
		.cause = probe->asked->cause,
		.priority = probe->asked->priority,
		.deadline = probe->asked->deadline,
		.key = probe->asked->key,
		.iov = &probe->iov, .nr_iov = 1, .count = probe->iov.iov_len,
		.done = probe_answer, .context = probe,
	};
	switch (question) {
	case Q_IF_ABSENT:
		request->condition = STORE_IF_ABSENT;
		break;
	case Q_WRONG_TAG:
		request->condition = STORE_IF_MATCH;
		request->tag = probe->wrong_tag;
		break;
	case Q_MISSING:
		request->condition = STORE_IF_MATCH;
		request->key = probe->missing;
		request->tag = probe->tag;
		break;
	case Q_CLEAN_UP:
		request->op = STORE_DELETE;
		request->keys = probe->keys;
		request->nr_keys = 2;
		request->iov = NULL;
		request->nr_iov = 0;
		request->count = 0;
		break;
	default:
		break;
	}
	store_submit(probe->store, request);
}

static void probe_end(struct probe *probe)
{
	struct store_request *asked = probe->asked;
	enum store_outcome verdict = probe->verdict;

	asked->reply.error = probe->error;
	if (probe->why)
		memcpy(asked->reply.message, probe->why->message,
		       sizeof(asked->reply.message));
	pthread_mutex_destroy(&probe->lock);
	free(probe);
	store_complete(asked, verdict);
}

static void ask_the_three(struct probe *probe)
{
	probe->nr_open = 3;
	memcpy(probe->tag, probe->requests[Q_PUT].reply.tag, sizeof(probe->tag));
	memcpy(probe->wrong_tag, probe->tag, sizeof(probe->tag));
	spoil(probe->wrong_tag);
	/* The last answer may free the probe. */
	probe_ask(probe, Q_IF_ABSENT);
	probe_ask(probe, Q_WRONG_TAG);
	probe_ask(probe, Q_MISSING);
}

/* What a conditional store answers with a refusal was answered; the lock is held. */
static void probe_judge(struct probe *probe, enum question question,
			enum store_outcome outcome)
{
	static const char *const asked[] = {
		[Q_IF_ABSENT] = "a PUT that must not replace (If-None-Match)",
		[Q_WRONG_TAG] = "a PUT over other content (If-Match, wrong tag)",
		[Q_MISSING] = "a PUT over a missing object (If-Match)",
	};
	int error = probe->requests[question].reply.error;

	if (outcome == STORE_DONE) {
		log_error("%s: the store accepted %s: it cannot keep two writers apart",
			  probe->store->place, asked[question]);
		probe->verdict = STORE_REFUSED;
	} else if (outcome != STORE_REFUSED && probe->verdict == STORE_DONE) {
		probe->verdict = STORE_FAILED;
		probe->error = error ? error : -EIO;
		probe->why = &probe->requests[question].reply;
	}
}

static void probe_answer(struct store_request *request, enum store_outcome outcome)
{
	struct probe *probe = request->context;
	enum question question = (enum question)(request - probe->requests);
	bool cancelled = store_request_is_cancelled(probe->asked), last;

	if (question == Q_CLEAN_UP) {
		/* What could not be deleted is garbage, and gc's. */
		probe_end(probe);
		return;
	}
	if (question == Q_PUT && outcome == STORE_DONE && !cancelled) {
		ask_the_three(probe);
		return;
	}
	if (question != Q_PUT && outcome == STORE_UNKNOWN && !cancelled &&
	    probe->unknown[question]++ < UNKNOWN_MAX) {
		probe_ask(probe, question);
		return;
	}
	pthread_mutex_lock(&probe->lock);
	if (cancelled) {
		probe->verdict = STORE_FAILED;
		probe->error = -ECANCELED;
	} else if (question == Q_PUT) {
		probe->verdict = STORE_FAILED;
		probe->error = request->reply.error ? request->reply.error : -EIO;
		probe->why = &request->reply;
	} else {
		probe_judge(probe, question, outcome);
	}
	last = --probe->nr_open == 0;
	pthread_mutex_unlock(&probe->lock);
	if (last)
		probe_ask(probe, Q_CLEAN_UP);
}

void store_probe(struct store *store, struct store_request *request)
{
	static char content[] = "objmap probe\n";
	struct probe *probe = calloc(1, sizeof(*probe));

	if (!probe) {
		request->reply.error = -ENOMEM;
		store_complete(request, STORE_FAILED);
		return;
	}
	probe->store = store;
	probe->asked = request;
	probe->verdict = STORE_DONE;
	probe->iov = (struct iovec){ content, sizeof(content) - 1 };
	strcpy(probe->missing, request->key);	/* checked: STORE_KEY_MAX */
	spoil(probe->missing);
	probe->keys[0] = request->key;
	probe->keys[1] = probe->missing;
	probe->nr_open = 1;
	pthread_mutex_init(&probe->lock, NULL);
	probe_ask(probe, Q_PUT);
}
