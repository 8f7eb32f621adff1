/* fault_store.c: a store for tests that goes wrong on purpose.
 *
 * A client's request is passed on as a copy, so that whatever becomes of one
 * of them, the other can go its own way.  What is held (delayed, hanging, late)
 * waits in one list, looked after by a thread that a first delay starts. */
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "src/clock.h"
#include "src/random.h"
#include "tests/store/fault_store.h"

#define RULES_MAX 64
#define POLL_MS 2

static const char *const kinds[] = {
	"head", "map/", "chunk/", "snapshot/", "condemned/", "probe/", "",
};
#define NR_KINDS (sizeof(kinds) / sizeof(kinds[0]))

/* A request on its way to the inner store. */
struct passage {
	struct store_request inner;
	struct fault *fault;
	struct store_request *outer;	/* NULL: a copy that nobody waits for */
	struct fault_rule rule;		/* what becomes of the answer */
	bool has_rule;
	bool hangs;
	bool released;			/* counted in fault->applying */
	uint64_t due;			/* clock_now() when it is passed on; 0: see after */
	uint64_t after;			/* fault->nr_requests when it is; 0: never */
	struct iovec iov;		/* a copy's own content and names */
	struct store_metadata metadata;
	char tag[STORE_TAG_MAX];
	char **keys;
	struct passage *next;
};

struct fault {
	struct store *inner;
	pthread_mutex_t lock;
	pthread_cond_t change;
	pthread_t thread;
	bool started, closing;
	struct passage *held;		/* oldest first */
	unsigned int nr_held, applying;
	struct fault_rule rules[RULES_MAX];
	unsigned int nr_rules;
	uint64_t seen[RULES_MAX];
	struct random random;
	unsigned int permille, kinds;
	uint64_t nr_requests;
	uint64_t counts[NR_STORE_OPS][NR_KINDS];
	uint64_t clock_added;
};

struct client {
	struct store store;	/* must stay first */
	struct fault *fault;
};

static const char *request_key(const struct store_request *request)
{
	if (request->op == STORE_DELETE)
		return request->nr_keys ? request->keys[0] : "";
	return request->key ? request->key : "";
}

static bool begins(const char *text, const char *prefix)
{
	return strncmp(text, prefix, strlen(prefix)) == 0;
}

/* ---- answers ------------------------------------------------------------------ */

static enum store_outcome lost_reply(struct store_request *outer)
{
	outer->reply.error = -ETIMEDOUT;
	if (outer->op == STORE_PUT && outer->condition != STORE_ALWAYS)
		return STORE_UNKNOWN;
	return STORE_TRANSIENT;
}

static void flip_bit(struct store_request *outer, uint64_t where)
{
	uint64_t at = outer->reply.count ? where % outer->reply.count : 0;
	unsigned int i;

	for (i = 0; i < outer->nr_iov; i++) {
		if (at < outer->iov[i].iov_len) {
			((unsigned char *)outer->iov[i].iov_base)[at] ^= 0x10;
			return;
		}
		at -= outer->iov[i].iov_len;
	}
}

static enum store_outcome truncate_reply(struct store_request *outer)
{
	struct store_reply *reply = &outer->reply;

	reply->size /= 2;
	if (outer->whole) {
		reply->count = reply->size;
	} else if (outer->offset + outer->count > reply->size) {
		reply->count = 0;
		reply->error = -ERANGE;
		return STORE_FAILED;
	}
	return STORE_DONE;
}

/* What the client hears of an answer, by the rule that fell on it. */
static enum store_outcome bend(struct passage *passage, enum store_outcome outcome)
{
	struct store_request *outer = passage->outer;
	struct fault *fault = passage->fault;
	uint64_t where;

	switch (passage->rule.kind) {
	case FAULT_LOSE_REPLY:
		store_listing_free(&outer->reply.listing);
		return lost_reply(outer);
	case FAULT_TRUNCATE:
		return outcome == STORE_DONE ? truncate_reply(outer) : outcome;
	case FAULT_CORRUPT:
		pthread_mutex_lock(&fault->lock);
		where = random_next(&fault->random);
		pthread_mutex_unlock(&fault->lock);
		if (outcome == STORE_DONE)
			flip_bit(outer, where);
		return outcome;
	case FAULT_CALL_AFTER:
		passage->rule.call(passage->rule.context, outer);
		return outcome;
	default:
		return outcome;
	}
}

static void passage_free(struct passage *passage)
{
	unsigned int i;

	for (i = 0; passage->keys && i < passage->inner.nr_keys; i++)
		free(passage->keys[i]);
	free(passage->keys);
	if (!passage->outer) {
		free((char *)(uintptr_t)passage->inner.key);
		free(passage->iov.iov_base);
	}
	free(passage);
}

static void passage_done(struct store_request *inner, enum store_outcome outcome)
{
	struct passage *passage = inner->context;
	struct fault *fault = passage->fault;
	struct store_request *outer = passage->outer;

	pthread_mutex_lock(&fault->lock);
	if (passage->released)	/* fault_release() waits for it */
		fault->applying--;
	pthread_cond_broadcast(&fault->change);
	inner->reply.date += fault->clock_added;
	pthread_mutex_unlock(&fault->lock);
	if (outer) {
		outer->reply = inner->reply;
		if (passage->has_rule)
			outcome = bend(passage, outcome);
	} else {
		store_listing_free(&inner->reply.listing);
	}
	passage_free(passage);
	if (outer)
		store_complete(outer, outcome);
}

/* ---- passing on ------------------------------------------------------------------ */

static struct passage *passage_new(struct fault *fault, struct store_request *outer,
				   const struct fault_rule *rule)
{
	struct passage *passage = calloc(1, sizeof(*passage));
	struct store_request *inner;

	if (!passage)
		abort();
	inner = &passage->inner;
	inner->op = outer->op;
	inner->cause = outer->cause;
	inner->priority = outer->priority;
	inner->key = outer->key;
	inner->after = outer->after;
	inner->after_upload = outer->after_upload;
	inner->upload = outer->upload;
	inner->keys = outer->keys;
	inner->nr_keys = outer->nr_keys;
	inner->offset = outer->offset;
	inner->count = outer->count;
	inner->whole = outer->whole;
	inner->iov = outer->iov;
	inner->nr_iov = outer->nr_iov;
	inner->metadata = outer->metadata;
	inner->condition = outer->condition;
	inner->tag = outer->tag;
	inner->done = passage_done;
	inner->context = passage;
	passage->fault = fault;
	passage->outer = outer;
	if (rule) {
		passage->rule = *rule;
		passage->has_rule = true;
	}
	return passage;
}

static void *must(void *memory)
{
	if (!memory)
		abort();
	return memory;
}

/* A copy that needs nothing of the client's any more. */
static struct passage *passage_copy(struct fault *fault, struct store_request *outer)
{
	struct passage *passage = passage_new(fault, outer, NULL);
	struct store_request *inner = &passage->inner;
	char *end = must(malloc(outer->count + 1));
	unsigned int i;

	passage->outer = NULL;
	passage->iov.iov_base = end;
	passage->iov.iov_len = outer->count;
	for (i = 0; i < outer->nr_iov; i++) {
		memcpy(end, outer->iov[i].iov_base, outer->iov[i].iov_len);
		end += outer->iov[i].iov_len;
	}
	inner->iov = &passage->iov;
	inner->nr_iov = 1;
	if (outer->op == STORE_DELETE) {
		inner->iov = NULL;
		inner->nr_iov = 0;
		passage->keys = must(calloc(outer->nr_keys + 1, sizeof(char *)));
		for (i = 0; i < outer->nr_keys; i++)
			passage->keys[i] = must(strdup(outer->keys[i]));
		inner->keys = (const char *const *)passage->keys;
	}
	inner->key = outer->key ? must(strdup(outer->key)) : NULL;
	if (outer->metadata) {
		passage->metadata = *outer->metadata;
		inner->metadata = &passage->metadata;
	}
	if (outer->tag) {
		strncpy(passage->tag, outer->tag, sizeof(passage->tag) - 1);
		inner->tag = passage->tag;
	}
	return passage;
}

static void pass_on(struct passage *passage)
{
	store_submit(passage->fault->inner, &passage->inner);
}

/* The lock is held.  Takes out of the held what shall go now. */
static struct passage *take_ready(struct fault *fault, bool all)
{
	struct passage **link = &fault->held, *passage, *ready = NULL, **end = &ready;
	uint64_t now = clock_now();

	while ((passage = *link)) {
		if (!all && !(passage->due && passage->due <= now) &&
		    !(passage->after && passage->after <= fault->nr_requests)) {
			link = &passage->next;
			continue;
		}
		*link = passage->next;
		passage->next = NULL;
		*end = passage;
		end = &passage->next;
		fault->nr_held--;
		passage->released = true;
		fault->applying++;
	}
	return ready;
}

static void pass_all(struct passage *ready)
{
	struct passage *next;

	for (; ready; ready = next) {
		next = ready->next;
		pass_on(ready);
	}
}

/* The lock is held.  Takes out one that hangs and whose time is up. */
static struct passage *take_expired(struct fault *fault)
{
	struct passage **link, *passage;
	uint64_t now = clock_now(), retry_for, end;
	struct store_request *outer;

	for (link = &fault->held; (passage = *link); link = &passage->next) {
		outer = passage->outer;
		if (!outer || !passage->hangs)
			continue;
		retry_for = atomic_load(&atomic_load(&outer->store)->retry_for);
		end = outer->deadline;
		if (!end && retry_for < UINT64_MAX - outer->started)
			end = outer->started + retry_for;
		if (!store_request_is_cancelled(outer) && !(end && end <= now))
			continue;
		*link = passage->next;
		fault->nr_held--;
		return passage;
	}
	return NULL;
}

static void *fault_run(void *context)
{
	struct timespec pause = { .tv_nsec = POLL_MS * 1000000 };
	struct fault *fault = context;
	struct passage *ready, *expired;
	struct store_request *outer;
	bool closing;

	do {
		nanosleep(&pause, NULL);
		pthread_mutex_lock(&fault->lock);
		ready = take_ready(fault, false);
		expired = take_expired(fault);
		closing = fault->closing;
		pthread_mutex_unlock(&fault->lock);
		pass_all(ready);
		if (expired) {
			outer = expired->outer;
			passage_free(expired);
			outer->reply.error = -ETIMEDOUT;
			store_complete(outer, STORE_TRANSIENT);
		}
	} while (!closing);
	return NULL;
}

static void hold(struct fault *fault, struct passage *passage)
{
	struct passage **end;

	pthread_mutex_lock(&fault->lock);
	for (end = &fault->held; *end; end = &(*end)->next)
		;
	*end = passage;
	fault->nr_held++;
	if (!fault->started) {
		if (pthread_create(&fault->thread, NULL, fault_run, fault) != 0)
			abort();
		fault->started = true;
	}
	pthread_cond_broadcast(&fault->change);
	pthread_mutex_unlock(&fault->lock);
}

/* ---- which fault --------------------------------------------------------------------- */

static bool kind_fits(enum fault_kind kind, enum store_op op)
{
	if (kind == FAULT_LATE || kind == FAULT_DUPLICATE)
		return op == STORE_PUT || op == STORE_DELETE;
	if (kind == FAULT_REFUSE)
		return op == STORE_PUT;
	if (kind == FAULT_TRUNCATE || kind == FAULT_CORRUPT)
		return op == STORE_GET;
	return true;
}

/* The lock is held. */
static bool schedule_rule(struct fault *fault, enum store_op op, struct fault_rule *rule)
{
	unsigned int kind;

	if (!fault->kinds || random_below(&fault->random, 1000) >= fault->permille)
		return false;
	do {
		kind = (unsigned int)random_below(&fault->random, NR_FAULT_KINDS);
	} while (!(fault->kinds & 1u << kind));
	*rule = (struct fault_rule){ .op = op, .kind = kind };
	rule->delay = 1 + (unsigned int)random_below(&fault->random,
						     kind == FAULT_DELAY ? 4 : 20);
	return kind_fits(kind, op);
}

/* The lock is held.  Counts @request and finds what shall become of it. */
static bool choose_rule(struct fault *fault, const struct store_request *request,
			struct fault_rule *rule)
{
	const char *key = request_key(request);
	const struct fault_rule *r;
	unsigned int i = 0;

	while (!begins(key, kinds[i]))
		i++;
	fault->counts[request->op][i]++;
	fault->nr_requests++;
	for (i = 0; i < fault->nr_rules; i++) {
		r = &fault->rules[i];
		if ((r->op != NR_STORE_OPS && r->op != request->op) ||
		    (r->prefix && !begins(key, r->prefix)) ||
		    !kind_fits(r->kind, request->op))
			continue;
		fault->seen[i]++;
		if (fault->seen[i] <= r->skip ||
		    (r->times && fault->seen[i] > (uint64_t)r->skip + r->times))
			continue;
		*rule = *r;
		return true;
	}
	return schedule_rule(fault, request->op, rule);
}

static void hold_late(struct fault *fault, struct store_request *request,
		      const struct fault_rule *rule)
{
	struct passage *copy = passage_copy(fault, request);

	pthread_mutex_lock(&fault->lock);
	copy->after = rule->delay ? fault->nr_requests + rule->delay : 0;
	pthread_mutex_unlock(&fault->lock);
	hold(fault, copy);
}

static void apply_fault(struct fault *fault, struct store_request *request,
			const struct fault_rule *rule)
{
	struct passage *passage;

	switch (rule->kind) {
	case FAULT_FAIL:
		request->reply.error = rule->error ? rule->error : -EIO;
		store_complete(request, STORE_FAILED);
		return;
	case FAULT_TRANSIENT:
		request->reply.error = rule->error ? rule->error : -ECONNRESET;
		store_complete(request, STORE_TRANSIENT);
		return;
	case FAULT_REFUSE:
		store_complete(request, STORE_REFUSED);
		return;
	case FAULT_LATE:
		hold_late(fault, request, rule);
		store_complete(request, lost_reply(request));
		return;
	case FAULT_DUPLICATE:
		hold_late(fault, request, rule);
		break;
	case FAULT_DELAY:
	case FAULT_HANG:
		passage = passage_new(fault, request, rule);
		passage->hangs = rule->kind == FAULT_HANG;
		if (!passage->hangs)
			passage->due = clock_now() + rule->delay * CLOCK_MS + 1;
		hold(fault, passage);
		return;
	case FAULT_CALL:
		rule->call(rule->context, request);
		break;
	default:
		break;
	}
	pass_on(passage_new(fault, request, rule));
}

static void client_submit(struct store *store, struct store_request *request)
{
	struct fault *fault = ((struct client *)store)->fault;
	struct fault_rule rule;
	struct passage *ready;
	bool wrong;

	pthread_mutex_lock(&fault->lock);
	wrong = choose_rule(fault, request, &rule);
	ready = take_ready(fault, false);
	pthread_mutex_unlock(&fault->lock);
	pass_all(ready);
	if (wrong)
		apply_fault(fault, request, &rule);
	else
		pass_on(passage_new(fault, request, NULL));
}

static void client_close(struct store *store)
{
	store_deinit(store);
	free(store);
}

static const struct store_ops client_ops = {
	.name	= "fault",
	.submit = client_submit,
	.forget = store_keeps_nothing,
	.close	= client_close,
};

/* ---- for tests --------------------------------------------------------------------------- */

struct fault *fault_open(struct store *inner)
{
	struct fault *fault = must(calloc(1, sizeof(*fault)));

	pthread_mutex_init(&fault->lock, NULL);
	pthread_cond_init(&fault->change, NULL);
	fault->inner = inner;
	random_seed(&fault->random, 1);
	return fault;
}

struct store *fault_client(struct fault *fault)
{
	struct client *client = must(calloc(1, sizeof(*client)));

	if (store_init(&client->store, &client_ops, fault->inner->place) < 0) {
		free(client);
		return NULL;
	}
	client->fault = fault;
	return &client->store;
}

void fault_close(struct fault *fault)
{
	struct passage *passage;

	pthread_mutex_lock(&fault->lock);
	fault->closing = true;
	pthread_mutex_unlock(&fault->lock);
	if (fault->started)
		pthread_join(fault->thread, NULL);
	while ((passage = fault->held)) {
		fault->held = passage->next;
		passage_free(passage);
	}
	store_close(fault->inner);
	pthread_mutex_destroy(&fault->lock);
	pthread_cond_destroy(&fault->change);
	free(fault);
}

void fault_add(struct fault *fault, const struct fault_rule *rule)
{
	pthread_mutex_lock(&fault->lock);
	if (fault->nr_rules == RULES_MAX)
		abort();
	fault->seen[fault->nr_rules] = 0;
	fault->rules[fault->nr_rules++] = *rule;
	pthread_mutex_unlock(&fault->lock);
}

void fault_clear(struct fault *fault)
{
	pthread_mutex_lock(&fault->lock);
	fault->nr_rules = 0;
	fault->permille = fault->kinds = 0;
	pthread_mutex_unlock(&fault->lock);
}

void fault_schedule(struct fault *fault, uint64_t seed, unsigned int permille,
		    unsigned int mask)
{
	pthread_mutex_lock(&fault->lock);
	random_seed(&fault->random, seed);
	fault->permille = permille;
	fault->kinds = mask & ~((1u << FAULT_CALL) | (1u << FAULT_CALL_AFTER));
	pthread_mutex_unlock(&fault->lock);
}

void fault_release(struct fault *fault)
{
	struct passage *ready;

	pthread_mutex_lock(&fault->lock);
	ready = take_ready(fault, true);
	pthread_mutex_unlock(&fault->lock);
	pass_all(ready);
	pthread_mutex_lock(&fault->lock);
	while (fault->applying > 0)
		pthread_cond_wait(&fault->change, &fault->lock);
	pthread_mutex_unlock(&fault->lock);
}

unsigned int fault_held(struct fault *fault)
{
	unsigned int nr;

	pthread_mutex_lock(&fault->lock);
	nr = fault->nr_held;
	pthread_mutex_unlock(&fault->lock);
	return nr;
}

bool fault_wait_held(struct fault *fault, unsigned int nr)
{
	struct timespec until;
	bool held;

	clock_gettime(CLOCK_REALTIME, &until);
	until.tv_sec += 30;
	pthread_mutex_lock(&fault->lock);
	while (fault->nr_held < nr)
		if (pthread_cond_timedwait(&fault->change, &fault->lock, &until) != 0)
			break;
	held = fault->nr_held >= nr;
	pthread_mutex_unlock(&fault->lock);
	return held;
}

uint64_t fault_count(struct fault *fault, enum store_op op, const char *kind)
{
	uint64_t total = 0;
	unsigned int o, k;

	pthread_mutex_lock(&fault->lock);
	for (o = 0; o < NR_STORE_OPS; o++)
		for (k = 0; k < NR_KINDS; k++)
			if ((op == NR_STORE_OPS || op == o) &&
			    (!kind || strcmp(kind, kinds[k]) == 0))
				total += fault->counts[o][k];
	pthread_mutex_unlock(&fault->lock);
	return total;
}

void fault_count_reset(struct fault *fault)
{
	pthread_mutex_lock(&fault->lock);
	memset(fault->counts, 0, sizeof(fault->counts));
	pthread_mutex_unlock(&fault->lock);
}

void fault_clock_add(struct fault *fault, uint64_t seconds)
{
	pthread_mutex_lock(&fault->lock);
	fault->clock_added += seconds;
	pthread_mutex_unlock(&fault->lock);
}
