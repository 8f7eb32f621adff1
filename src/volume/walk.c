/* walk.c: going over a volume's map in the order of its chunks.
 *
 * The nodes below one root or node are read ahead, WINDOW at a time, and looked
 * at in order; two levels make two windows.  What head's recent refs say goes
 * before what nodes say, holes included. */
#include "src/volume/walk.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "src/crc32c.h"
#include "src/log.h"
#include "src/volume/sections.h"
#include "src/volume/swap.h"

#define WINDOW	  16u	/* nodes of one level being read: 400 KiB */
#define WHAT_TEXT 320

struct walker {
	const struct map_walk *walk;
	unsigned int recent;	/* the first of head's that was not passed */
};

/* ---- reading nodes ahead ----------------------------------------------------- */

struct fetch {
	struct store_request request;
	struct iovec iov;
	char key[VOLUME_KEY_MAX];
	uint8_t bytes[NODE_BYTES];
	uint32_t node;
	struct ref ref;
	bool over;
	enum store_outcome outcome;
	struct window *window;
};

struct window {
	pthread_mutex_t lock;
	pthread_cond_t wake;
	struct fetch fetches[WINDOW];
	unsigned int first, nr;		/* in flight or waiting to be looked at */
};

static struct window *window_new(void)
{
	struct window *window = calloc(1, sizeof(*window));

	if (!window)
		return NULL;
	pthread_mutex_init(&window->lock, NULL);
	pthread_cond_init(&window->wake, NULL);
	return window;
}

static void fetch_done(struct store_request *request, enum store_outcome outcome)
{
	struct fetch *fetch = request->context;
	struct window *window = fetch->window;

	pthread_mutex_lock(&window->lock);
	fetch->outcome = outcome;
	fetch->over = true;
	pthread_cond_signal(&window->wake);
	pthread_mutex_unlock(&window->lock);
}

static void fetch_submit(const struct map_walk *walk, struct fetch *fetch)
{
	fetch->over = false;
	fetch->iov = (struct iovec){ fetch->bytes, NODE_BYTES };
	fetch->request = (struct store_request){
		.op = STORE_GET, .cause = walk->cause, .key = fetch->key,
		.whole = true, .count = NODE_BYTES, .iov = &fetch->iov, .nr_iov = 1,
		.done = fetch_done, .context = fetch,
	};
	store_submit(walk->store, &fetch->request);
}

static void window_fetch(const struct map_walk *walk, struct window *window,
			 unsigned int level, uint32_t node, const struct ref *ref)
{
	struct fetch *fetch;

	fetch = &window->fetches[(window->first + window->nr++) % WINDOW];
	fetch->window = window;
	fetch->node = node;
	fetch->ref = *ref;
	head_node_key(walk->head, level, node, ref, fetch->key);
	fetch_submit(walk, fetch);
}

static void fetch_wait(struct fetch *fetch)
{
	struct window *window = fetch->window;

	pthread_mutex_lock(&window->lock);
	while (!fetch->over)
		pthread_cond_wait(&window->wake, &window->lock);
	pthread_mutex_unlock(&window->lock);
}

/* The oldest fetch, once it is over; it is still the window's. */
static struct fetch *window_first(struct window *window)
{
	struct fetch *fetch = &window->fetches[window->first];

	fetch_wait(fetch);
	return fetch;
}

static void window_pop(struct window *window)
{
	window->first = (window->first + 1) % WINDOW;
	window->nr--;
}

static void window_free(struct window *window)
{
	while (window->nr) {
		window_first(window);
		window_pop(window);
	}
	pthread_mutex_destroy(&window->lock);
	pthread_cond_destroy(&window->wake);
	free(window);
}

/* Turns what was fetched into refs.  0, -EBADMSG (it is not what its ref names) or
 * the store's error, and *what is wrong with it. */
static int fetch_check(const struct map_walk *walk, unsigned int level,
		       const struct fetch *fetch, struct ref refs[NODE_REFS],
		       char what[WHAT_TEXT])
{
	struct format_fault fault = { 0 };
	const struct store_reply *reply = &fetch->request.reply;
	uint32_t crc;
	int error = store_errno(fetch->outcome, reply);

	if (error == -EFBIG) {
		snprintf(what, WHAT_TEXT, "longer than %u bytes", NODE_BYTES);
		return -EBADMSG;
	}
	if (error) {
		snprintf(what, WHAT_TEXT, "%s", error == -ENOENT ? "missing" :
			 store_reply_reason(reply));
		return error;
	}
	crc = crc32c(0, fetch->bytes, reply->count);
	if (crc != fetch->ref.crc)
		error = format_bad(&fault, 0, "CRC32C is %08x, its ref says %08x", crc,
				   fetch->ref.crc);
	if (!error)
		error = node_decode(fetch->bytes, reply->count, refs, &fault);
	if (!error)
		error = node_check(walk->head, level, fetch->node, &fetch->ref, refs,
				   &fault);
	snprintf(what, WHAT_TEXT, "damaged at byte %zu: %s", fault.offset, fault.what);
	return error;
}

/* The same, told to who walks: 0 with *lost or not, or what lost() says. */
static int fetch_decode(const struct map_walk *walk, unsigned int level,
			struct fetch *fetch, struct ref refs[NODE_REFS], bool *lost)
{
	char what[WHAT_TEXT];
	int error = fetch_check(walk, level, fetch, refs, what);

	if (error == -EBADMSG) {	/* a bad transfer is worth one more try */
		fetch_submit(walk, fetch);
		fetch_wait(fetch);
		error = fetch_check(walk, level, fetch, refs, what);
	}
	*lost = error != 0;
	return error ? walk->lost(walk->context, fetch->key, error, what) : 0;
}

/* ---- chunks ------------------------------------------------------------------------ */

static int visit(const struct map_walk *walk, uint32_t chunk, const struct ref *ref)
{
	if (ref_is_hole(ref) || !walk->chunk)
		return 0;
	return walk->chunk(walk->context, chunk, ref);
}

/* Chunks @first .. @end, whose refs are @refs (NULL: all holes). */
static int walk_chunks(struct walker *walker, uint64_t first, uint64_t end,
		       const struct ref *refs)
{
	const struct head *head = walker->walk->head;
	const struct recent_ref *recent;
	uint64_t chunk = first;
	int error = 0;

	while (chunk < end && !error) {
		recent = &head->recent[walker->recent];
		if (walker->recent < head->nr_recent && recent->chunk < end &&
		    (!refs || recent->chunk == chunk)) {
			chunk = (uint64_t)recent->chunk + 1;
			walker->recent++;
			error = visit(walker->walk, recent->chunk, &recent->ref);
		} else if (refs) {
			error = visit(walker->walk, (uint32_t)chunk, &refs[chunk - first]);
			chunk++;
		} else {
			break;
		}
	}
	return error;
}

/* Whether anything recent lies in chunks @first .. @end. */
static bool has_recent(const struct head *head, uint64_t first, uint64_t end)
{
	unsigned int low = 0, high = head->nr_recent, middle;

	while (low < high) {
		middle = (low + high) / 2;
		if (head->recent[middle].chunk < first)
			low = middle + 1;
		else
			high = middle;
	}
	return low < head->nr_recent && head->recent[low].chunk < end;
}

static void pass_recent(struct walker *walker, uint64_t end)
{
	const struct head *head = walker->walk->head;

	while (walker->recent < head->nr_recent &&
	       head->recent[walker->recent].chunk < end)
		walker->recent++;
}

/* ---- nodes --------------------------------------------------------------------------- */

static int walk_nodes(struct walker *walker, unsigned int level, uint32_t first,
		      const struct ref *refs, uint32_t nr);

/* What lies below a node of @level that was fetched. */
static int walk_below(struct walker *walker, unsigned int level, struct fetch *fetch)
{
	uint64_t first = (uint64_t)fetch->node * NODE_REFS;
	struct ref *refs = malloc(NODE_REFS * sizeof(*refs));
	bool lost;
	int error;

	if (!refs)
		return -ENOMEM;
	error = fetch_decode(walker->walk, level, fetch, refs, &lost);
	if (!error && level == 0)
		error = walk_chunks(walker, first, first + NODE_REFS, lost ? NULL : refs);
	else if (!error && lost)
		error = walk_chunks(walker, first << 10, (first + NODE_REFS) << 10, NULL);
	else if (!error)
		error = walk_nodes(walker, level - 1, (uint32_t)first, refs, NODE_REFS);
	free(refs);
	return error;
}

/* Asks about node @i of @refs and, if it is wanted, begins to fetch it.
 * 0, 1 (passed over), or negative. */
static int begin_node(struct walker *walker, struct window *window,
		      unsigned int level, uint32_t node, const struct ref *ref)
{
	const struct map_walk *walk = walker->walk;
	unsigned int shift = 10 * (level + 1);
	int verdict = 0;

	if (ref_is_hole(ref))
		return 0;
	if (walk->node)
		verdict = walk->node(walk->context, level, node, ref,
				     !has_recent(walk->head, (uint64_t)node << shift,
						 ((uint64_t)node + 1) << shift));
	if (!verdict)
		window_fetch(walk, window, level, node, ref);
	return verdict;
}

static int walk_nodes(struct walker *walker, unsigned int level, uint32_t first,
		      const struct ref *refs, uint32_t nr)
{
	struct window *window = window_new();
	unsigned int shift = 10 * (level + 1);
	int verdicts[NODE_REFS];
	uint32_t i, ahead = 0;
	uint64_t start, end;
	int error = 0;

	if (!window)
		return -ENOMEM;
	for (i = 0; i < nr && !error; i++) {
		for (; ahead < nr && window->nr < WINDOW; ahead++)
			verdicts[ahead] = begin_node(walker, window, level,
						     first + ahead, &refs[ahead]);
		start = (uint64_t)(first + i) << shift;
		end = (uint64_t)(first + i + 1) << shift;
		if (verdicts[i] < 0) {
			error = verdicts[i];
		} else if (verdicts[i]) {
			pass_recent(walker, end);
		} else if (ref_is_hole(&refs[i])) {
			error = walk_chunks(walker, start, end, NULL);
		} else {
			error = walk_below(walker, level, window_first(window));
			window_pop(window);
		}
	}
	window_free(window);
	return error;
}

int map_walk(const struct map_walk *walk)
{
	const struct head *head = walk->head;
	uint32_t nr_chunks = volume_nr_chunks(head->size, head->chunk_size);
	unsigned int levels = map_levels(nr_chunks);
	struct walker walker = { .walk = walk };

	if (!levels)
		return walk_chunks(&walker, 0, nr_chunks, head->root);
	return walk_nodes(&walker, levels - 1, 0, head->root, head->nr_root);
}

/* ---- for who wants the chunks of one head, all of them ------------------------------ */

int walk_say_lost(struct store *store, const struct head *head, const char *key,
		  int error, const char *what)
{
	struct stored_head now;

	if (error == -ENOENT && head_read(store, &now) == 0 &&
	    now.head.nonce != head->nonce) {
		log_error("%s: %s is missing: the volume has been written since, and "
			  "what was replaced is cleaned up; try again", store->place, key);
		return -ESTALE;
	}
	log_error("%s: %s is %s%s", store->place, key, what,
		  error == -ENOENT || error == -EBADMSG ?
			  ": the volume is damaged; objmap verify names all faults" : "");
	return error == -ENOENT || error == -EBADMSG ? -EIO : error;
}

struct plain_walk {
	const struct map_walk *walk;
	volume_visit *visit;
	void *context;
	uint64_t nr_nodes;
};

static int plain_node(void *context, unsigned int level, uint32_t node,
		      const struct ref *ref, bool whole)
{
	struct plain_walk *plain = context;

	plain->nr_nodes++;
	return 0;
}

static int plain_chunk(void *context, uint32_t chunk, const struct ref *ref)
{
	struct plain_walk *plain = context;

	return plain->visit(plain->context, chunk, ref);
}

static int plain_lost(void *context, const char *key, int error, const char *what)
{
	struct plain_walk *plain = context;

	return walk_say_lost(plain->walk->store, plain->walk->head, key, error, what);
}

int volume_walk(struct store *store, const struct head *head,
		volume_visit *visit_chunk, void *context, uint64_t *nr_nodes)
{
	struct plain_walk plain = { .visit = visit_chunk, .context = context };
	struct map_walk walk = { .store = store, .head = head, .cause = CAUSE_MAP,
				 .node = plain_node, .chunk = plain_chunk,
				 .lost = plain_lost, .context = &plain };
	int error;

	plain.walk = &walk;
	error = map_walk(&walk);
	if (nr_nodes)
		*nr_nodes = plain.nr_nodes;
	return error;
}
