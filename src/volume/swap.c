/* swap.c: replacing head by compare-and-swap, and settling every answer that
 * is not a plain success, as swap.h draws it. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "src/clock.h"
#include "src/log.h"
#include "src/random.h"
#include "src/volume/swap.h"

#define PAUSE_FIRST (10 * CLOCK_MS)	/* before the same bytes are put again */
#define PAUSE_MOST  CLOCK_SECOND

/* Some errors say something here that only an outcome may say: that a key is
 * absent, a swap lost or made, head another one.  What a disk means by them (a
 * stale handle, a name that is gone) is that it cannot be read. */
static int error_of_store(int error)
{
	switch (-error) {
	case ENOENT:
	case ENODATA:
	case ESTALE:
	case EALREADY:
	case EAGAIN:
	case EEXIST:
	case EINPROGRESS:
		return -EIO;
	default:
		return error < 0 ? error : -EIO;
	}
}

int store_errno(enum store_outcome outcome, const struct store_reply *reply)
{
	switch (outcome) {
	case STORE_DONE:
		return 0;
	case STORE_ABSENT:
		return -ENOENT;
	case STORE_REFUSED:
		return -ESTALE;
	default:
		return error_of_store(reply->error);
	}
}

/* ---- reading head ---------------------------------------------------------- */

/* Says why there was nothing to decode. */
static int say_unread(struct store *store, int error, const struct store_reply *reply)
{
	if (error == -EFBIG) {
		log_error("%s: head is longer than any objmap writes: it is damaged",
			  store->place);
		return -EBADMSG;
	}
	/* -EBADMSG: the store has said which file is none of its own. */
	if (error != -ENOENT && error != -EBADMSG)
		log_error("%s: GET head: %s", store->place, store_reply_reason(reply));
	return error;
}

int head_read_reply(struct store *store, struct stored_head *stored,
		    struct store_reply *reply)
{
	struct format_fault fault = { 0 };
	unsigned int tries = 0;
	void *data = NULL;
	size_t count = 0;
	int error;

	do {
		error = store_errno(store_get_object(store, KEY_HEAD, CAUSE_HEAD,
						     HEAD_BYTES_MAX, &data, &count,
						     reply), reply);
		if (error)
			return say_unread(store, error, reply);
		error = head_decode(data, count, &stored->head, &fault);
		free(data);
		/* A bad transfer is worth one more try. */
	} while (error == -EBADMSG && tries++ == 0);
	if (error == -ENOTSUP)
		log_error("%s: head: %s: a newer objmap is needed for this volume",
			  store->place, fault.what);
	else if (error)
		log_error("%s: head is damaged at byte %zu: %s", store->place,
			  fault.offset, fault.what);
	memcpy(stored->tag, reply->tag, sizeof(stored->tag));
	return error;
}

int head_read(struct store *store, struct stored_head *stored)
{
	struct store_reply reply;

	return head_read_reply(store, stored, &reply);
}

void head_pass_on(struct head *head, uint64_t writer)
{
	if (head->nr_history < HISTORY_MAX)
		head->nr_history++;
	memmove(&head->history[1], &head->history[0],
		(head->nr_history - 1) * sizeof(head->history[0]));
	head->history[0] = (struct past_writer){ .writer = head->writer,
						 .epoch = head->epoch,
						 .sequence = head->sequence };
	head->writer = writer;
	head->epoch += CLAIM_EPOCH_STEP;
	head->sequence = 0;
	memset(&head->holder, 0, sizeof(head->holder));
}

/* ---- putting head ----------------------------------------------------------- */

static enum store_outcome head_put(struct store *store, const struct head *head,
				   enum store_condition condition,
				   const char *tag, struct store_reply *reply)
{
	uint8_t bytes[HEAD_BYTES_MAX];
	size_t count = head_encode(head, bytes);

	memset(reply, 0, sizeof(*reply));
	return store_put_object(store, KEY_HEAD, CAUSE_HEAD, bytes, count,
				condition, tag, reply);
}

/* Waits a little longer each time; false when the store's patience is over. */
struct patience {
	struct store *store;
	uint64_t pause, began;	/* ns; clock_now() */
};

static struct patience patience_of(struct store *store)
{
	return (struct patience){ .store = store, .pause = PAUSE_FIRST,
				  .began = clock_now() };
}

static bool patience_wait(struct patience *patience)
{
	/* Read each time: closing shortens it for a swap that is under way. */
	uint64_t all = atomic_load(&patience->store->retry_for);
	uint64_t gone = clock_now() - patience->began;
	uint64_t left = all > gone ? all - gone : 0, pause = patience->pause;
	struct timespec t;

	if (left < PAUSE_FIRST)
		return false;
	if (pause > left / 2)
		pause = left / 2;	/* the time that is left is used */
	t = (struct timespec){ .tv_sec = (time_t)(pause / CLOCK_SECOND),
			       .tv_nsec = (long)(pause % CLOCK_SECOND) };
	nanosleep(&t, NULL);
	patience->pause *= 2;
	if (patience->pause > PAUSE_MOST)
		patience->pause = PAUSE_MOST;
	return true;
}

/* ---- settling ------------------------------------------------------------------ */

enum verdict { COMMITTED, COMMITTED_AND_FENCED, SEND_AGAIN, MERGE, LOST };

/* What head, as it is @now, says about @swap.  412 alone says nothing: it may
 * be the answer to one's own commit whose first reply was lost. */
static enum verdict swap_judge(const struct swap *swap,
			       const struct stored_head *now)
{
	const struct head *next = &swap->next, *base = &swap->base.head;
	const struct past_writer *past;

	if (swap->sent && now->head.nonce == next->nonce)
		return COMMITTED;
	if (strcmp(now->tag, swap->base.tag) == 0)
		return SEND_AGAIN;
	/* An administrator's swap keeps writer and epoch, which then say nothing. */
	if (next->epoch > base->epoch) {
		if (now->head.writer == next->writer && now->head.epoch >= next->epoch)
			return COMMITTED;
		past = now->head.history;
		for (; past < now->head.history + now->head.nr_history; past++)
			if (past->writer == next->writer && past->epoch >= next->epoch)
				return COMMITTED_AND_FENCED;
	}
	if (swap->by_writer && now->head.writer == base->writer &&
	    now->head.epoch == base->epoch)
		return MERGE;
	return LOST;
}

enum { PUT_AGAIN = 1, PUT_ON_NEW_TAG = 2 };

/* Reads head and judges.  What to put, or head_swap()'s answer. */
static int swap_settle(struct swap *swap)
{
	struct stored_head now;
	enum verdict verdict;
	int error = head_read(swap->store, &now);

	if (error == -ENOENT)
		log_error("%s: head is gone: it cannot be told whether the last commit "
			  "was made; nothing more is committed", swap->store->place);
	if (error)
		return error;
	verdict = swap_judge(swap, &now);
	if (verdict == SEND_AGAIN)
		return PUT_AGAIN;
	swap->base = now;
	switch (verdict) {
	case COMMITTED:
		return 0;
	case COMMITTED_AND_FENCED:
		return -EALREADY;
	case MERGE:
		/* What was sent on the old base can never be applied any more,
		 * but its bytes must not come back: a new nonce. */
		swap->next.snapshot_list_epoch = now.head.snapshot_list_epoch;
		swap->next.snapshot_list_nonce = now.head.snapshot_list_nonce;
		swap->next.snapshot_newest = now.head.snapshot_newest;
		swap->next.nonce = random_id();
		return PUT_ON_NEW_TAG;
	default:
		return -ESTALE;
	}
}

static enum store_outcome swap_put(struct swap *swap, struct store_reply *reply)
{
	enum store_outcome outcome;

	swap->sent = true;
	outcome = head_put(swap->store, &swap->next,
			   swap->exclusive ? STORE_ALWAYS : STORE_IF_MATCH,
			   swap->exclusive ? NULL : swap->base.tag, reply);
	if (outcome == STORE_DONE) {
		swap->base.head = swap->next;
		memcpy(swap->base.tag, reply->tag, sizeof(swap->base.tag));
	}
	return outcome;
}

/* Says why the swap is given up while head is still the one it goes on from. */
static void say_unswapped(const struct swap *swap, enum store_outcome outcome,
			  const struct store_reply *reply)
{
	if (outcome == STORE_REFUSED)
		log_error("%s: PUT head: refused each time, as if another commit had come "
			  "before, and each GET shows that none has: the store, or a proxy "
			  "before it, does not keep conditions; objmap doctor tries them",
			  swap->store->place);
	else if (outcome == STORE_UNKNOWN && !reply->error)
		log_error("%s: PUT head: the store gave no clear answer in time; head is "
			  "the one before", swap->store->place);
	else
		log_error("%s: PUT head: %s", swap->store->place,
			  store_reply_reason(reply));
}

int head_swap(struct swap *swap)
{
	struct patience patience = patience_of(swap->store);
	enum store_outcome outcome;
	struct store_reply reply;
	int next = PUT_AGAIN, error;

	if (swap->sent || swap->exclusive)
		next = swap_settle(swap);
	if (!swap->sent)
		swap->next.nonce = random_id();
	while (next > 0) {
		outcome = swap_put(swap, &reply);
		if (outcome == STORE_DONE)
			return 0;
		error = store_errno(outcome, &reply);
		next = swap_settle(swap);
		/* Failed for good (no right, no space) or for too long: the caller
		 * decides when to come back. */
		if (next == PUT_AGAIN && (outcome == STORE_FAILED ||
					  !patience_wait(&patience))) {
			say_unswapped(swap, outcome, &reply);
			return error == -ESTALE ? -EIO : error;
		}
	}
	return next;
}

/* ---- the first head --------------------------------------------------------------- */

static int create_on_tombstone(struct store *store, const struct stored_head *tomb,
			       struct head *next, bool exclusive)
{
	struct swap swap = { .store = store, .base = *tomb, .next = *next,
			     .exclusive = exclusive };
	struct head *head = &swap.next;

	head->nr_history = tomb->head.nr_history;
	memcpy(head->history, tomb->head.history, sizeof(head->history));
	head->writer = tomb->head.writer;
	if (head->epoch < tomb->head.epoch)
		head->epoch = tomb->head.epoch;
	head->sequence = tomb->head.sequence;
	head_pass_on(head, next->writer);
	/* The tombstone's last writer stands in history at its own epoch. */
	head->history[0].epoch = tomb->head.epoch;
	*next = *head;
	return head_swap(&swap);
}

int head_create(struct store *store, struct head *next, bool exclusive)
{
	struct patience patience = patience_of(store);
	const struct head wanted = *next;
	struct stored_head now;
	enum store_outcome outcome;
	struct store_reply reply;
	int error;

	next->nonce = random_id();
	do {
		error = head_read(store, &now);
		if (error == -ENOENT) {
			outcome = head_put(store, next, STORE_IF_ABSENT, NULL, &reply);
			error = store_errno(outcome, &reply);
			if (!error)
				return 0;
			if (outcome == STORE_FAILED) {
				log_error("%s: PUT head: %s", store->place,
					  store_reply_reason(&reply));
				return error;
			}
			continue;	/* refused or unknown: look who is there */
		}
		if (error)
			return error;
		if (memcmp(now.head.uuid, next->uuid, sizeof(next->uuid)) == 0) {
			*next = now.head;
			return 0;	/* the reply was lost */
		}
		if (now.head.state != HEAD_DELETED)
			return -EEXIST;
		*next = wanted;
		error = create_on_tombstone(store, &now, next, exclusive);
		if (error != -ESTALE)
			return error == -EALREADY ? 0 : error;
	} while (patience_wait(&patience));
	log_error("%s: PUT head: the store gave no clear answer in time; look with "
		  "objmap info whether the volume exists before trying again",
		  store->place);
	return error == -ESTALE ? -ETIMEDOUT : error;
}
