/* fold.c: the map of a commit.
 *
 * Few changes go into head's recent refs and touch no node.  When those would
 * overflow, recent and the changes together are folded into the tree, level by
 * level from the leaves: each pass turns changes of chunks into changes of
 * nodes, and those of nodes into changes of the level above, until what is left
 * changes the root.  A changed node's ref needs its bytes only, not the store's
 * reply, so the nodes of all levels are uploaded together with the chunks.
 *
 * A run of holes that covers whole nodes empties their refs without reading
 * them: zeroing any length costs its two ends. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "src/crc32c.h"
#include "src/volume/engine.h"

#define LOOK_AHEAD 32u		/* nodes fetched before they are needed */

int changes_add(struct changes *changes, uint32_t first, uint32_t nr,
		const struct ref *ref)
{
	struct change *larger;
	size_t room;

	if (changes->nr == changes->room) {
		room = changes->room ? 2 * changes->room : 64;
		larger = realloc(changes->list, room * sizeof(*larger));
		if (!larger)
			return -ENOMEM;
		changes->list = larger;
		changes->room = room;
	}
	changes->list[changes->nr++] = (struct change){ first, nr, *ref };
	return 0;
}

/* ---- recent ------------------------------------------------------------------ */

/* All changes of chunks against the nodes: @base's recent refs, and over them
 * those of the commit. */
static int merge_recent(struct attempt *attempt, struct changes *merged)
{
	const struct head *base = &attempt->swap.next;
	const struct change *change = attempt->changes.list;
	const struct change *end = change ? change + attempt->changes.nr : NULL;
	const struct recent_ref *recent = base->recent;
	const struct recent_ref *recent_end = recent + base->nr_recent;
	int error = 0;

	while (!error && (change < end || recent < recent_end)) {
		if (change == end ||
		    (recent < recent_end && recent->chunk < change->first)) {
			error = changes_add(merged, recent->chunk, 1, &recent->ref);
			recent++;
			continue;
		}
		for (; recent < recent_end &&
		       recent->chunk - change->first < change->nr; recent++)
			if (!ref_equal(&recent->ref, &change->ref))
				reap_list_add(&attempt->replaced, REAP_CHUNK,
					     recent->chunk, &recent->ref);
		error = changes_add(merged, change->first, change->nr, &change->ref);
		change++;
	}
	return error;
}

static bool fits_recent(const struct changes *merged)
{
	uint64_t nr = 0;
	size_t i;

	for (i = 0; i < merged->nr && nr <= RECENT_MAX; i++)
		nr += merged->list[i].nr;
	return nr <= RECENT_MAX;
}

static void store_recent(struct head *next, const struct changes *merged)
{
	next->nr_recent = 0;
	for (size_t n = 0; n < merged->nr; n++) {
		const struct change *change = &merged->list[n];

		for (uint32_t i = 0; i < change->nr; i++)
			next->recent[next->nr_recent++] =
				(struct recent_ref){ change->first + i, change->ref };
	}
}

/* ---- looking ahead --------------------------------------------------------------- */

/* Fetches nodes before the fold comes to them, a few at a time. */
struct ahead {
	struct volume *volume;
	const struct head *base;	/* whose nodes are read */
	const struct changes *changes;	/* of chunks */
	size_t next;			/* change to look at */
	uint32_t last;			/* leaf asked for last; UINT32_MAX: none */
	pthread_mutex_t lock;
	pthread_cond_t ended;
	unsigned int nr_busy;		/* guarded by lock */
};

struct ahead_leaf {
	struct map_waiter waiter;
	struct ahead *ahead;
	uint32_t chunk;
};

static void ahead_go_on(struct map_waiter *waiter, int error)
{
	struct ahead_leaf *leaf = (struct ahead_leaf *)waiter;
	struct ahead *ahead = leaf->ahead;
	struct map_find find = { .chunk = leaf->chunk, .below_recent = true };

	if (!error) {
		pthread_mutex_lock(&ahead->volume->lock);
		error = map_look(ahead->volume, ahead->base, &find, waiter);
		pthread_mutex_unlock(&ahead->volume->lock);
		map_fetch(ahead->volume, find.fetch);
		if (error == -EINPROGRESS)
			return;
	}
	free(leaf);	/* an error will show again where it matters */
	pthread_mutex_lock(&ahead->lock);
	ahead->nr_busy--;
	pthread_cond_signal(&ahead->ended);
	pthread_mutex_unlock(&ahead->lock);
}

/* The next change that edits another leaf than the one before; false: none. */
static bool ahead_next(struct ahead *ahead, uint32_t *chunk)
{
	const struct change *change;

	while (ahead->next < ahead->changes->nr) {
		change = &ahead->changes->list[ahead->next++];
		if (change->nr >= NODE_REFS || change->first / NODE_REFS == ahead->last)
			continue;
		*chunk = change->first;
		ahead->last = change->first / NODE_REFS;
		return true;
	}
	return false;
}

static void ahead_fill(struct ahead *ahead)
{
	struct ahead_leaf *leaf;
	uint32_t chunk;
	bool room;

	for (;;) {
		pthread_mutex_lock(&ahead->lock);
		room = ahead->nr_busy < LOOK_AHEAD;
		ahead->nr_busy += room;
		pthread_mutex_unlock(&ahead->lock);
		if (!room)
			return;
		leaf = ahead_next(ahead, &chunk) ? malloc(sizeof(*leaf)) : NULL;
		if (!leaf)
			break;
		leaf->waiter.wake = ahead_go_on;
		leaf->ahead = ahead;
		leaf->chunk = chunk;
		ahead_go_on(&leaf->waiter, 0);
	}
	pthread_mutex_lock(&ahead->lock);
	ahead->nr_busy--;
	pthread_mutex_unlock(&ahead->lock);
}

static void ahead_end(struct ahead *ahead)
{
	pthread_mutex_lock(&ahead->lock);
	while (ahead->nr_busy)
		pthread_cond_wait(&ahead->ended, &ahead->lock);
	pthread_mutex_unlock(&ahead->lock);
	pthread_mutex_destroy(&ahead->lock);
	pthread_cond_destroy(&ahead->ended);
}

/* ---- one level --------------------------------------------------------------------- */

struct fold {
	struct attempt *attempt;
	struct head *next;
	unsigned int levels, level;	/* level: of the nodes being changed */
	const struct changes *in;	/* of their children */
	struct changes *out;		/* of themselves */
	size_t at;			/* change being looked at */
	uint32_t done;			/* children below this are dealt with */
	struct ahead *ahead;
	uint32_t parent;		/* number of the node in parent_refs */
	struct ref parent_refs[NODE_REFS];
	struct ref refs[NODE_REFS];	/* of the node being changed */
};

int fold_put_node(struct attempt *attempt, unsigned int level, uint32_t number,
		  const struct ref refs[NODE_REFS], struct ref *self)
{
	struct volume *volume = attempt->volume;
	uint8_t *bytes = malloc(NODE_BYTES);
	struct upload_content content;
	char key[VOLUME_KEY_MAX];
	int error;

	if (!bytes)
		return -ENOMEM;
	node_encode(refs, bytes);
	*self = (struct ref){ .epoch = attempt->epoch, .writer = volume->writer,
			      .stored = NODE_BYTES,
			      .crc = crc32c(0, bytes, NODE_BYTES) };
	reap_list_add(&attempt->stored, (uint8_t)level, number, self);
	key_node(key, level, number, self->epoch, self->writer);
	content = (struct upload_content){ .data = bytes, .count = NODE_BYTES,
					   .let_go = free, .context = bytes };
	error = upload_put(&volume->uploads, CAUSE_MAP, key, &content, NULL);
	if (!error)
		map_add(volume, level, number, self, refs);
	return error;
}

/* The ref of node @number as it is before this commit. */
static int old_ref(struct fold *fold, uint32_t number, struct ref *ref)
{
	uint32_t parent = number / NODE_REFS;
	int error;

	if (fold->level + 1 == fold->levels) {
		*ref = fold->next->root[number];
		return 0;
	}
	if (fold->parent != parent) {
		fold->parent = UINT32_MAX;
		error = map_read_node(fold->attempt->volume, fold->level + 1, parent,
				      &fold->next->root[parent], fold->parent_refs);
		if (error)
			return error;
		fold->parent = parent;
	}
	*ref = fold->parent_refs[number % NODE_REFS];
	return 0;
}

static bool ref_set(struct fold *fold, struct ref *slot, uint32_t child,
		    const struct ref *ref)
{
	if (ref_equal(slot, ref))
		return false;
	reap_list_add(&fold->attempt->replaced,
		     fold->level ? (uint8_t)(fold->level - 1) : REAP_CHUNK, child, slot);
	*slot = *ref;
	return true;
}

/* Applies all changes of children below @end to fold->refs, which begin with
 * child @first.  Returns whether anything differs now. */
static bool apply(struct fold *fold, struct ref *refs, uint32_t first, uint32_t end)
{
	const struct change *change;
	bool differs = false;
	uint64_t change_end;
	uint32_t i;

	for (; fold->at < fold->in->nr; fold->at++) {
		change = &fold->in->list[fold->at];
		if (change->first >= end)
			break;
		change_end = (uint64_t)change->first + change->nr;
		i = change->first > fold->done ? change->first : fold->done;
		for (; i < end && i < change_end; i++)
			if (ref_set(fold, &refs[i - first], i, &change->ref))
				differs = true;
		if (change_end > end)
			break;
	}
	fold->done = end;
	return differs;
}

static int edit_node(struct fold *fold, uint32_t number, uint32_t end)
{
	struct ref self;
	uint32_t i;
	int error;

	error = old_ref(fold, number, &self);
	if (!error)
		error = map_read_node(fold->attempt->volume, fold->level, number, &self,
				      fold->refs);
	if (error)
		return error;
	if (!apply(fold, fold->refs, number * NODE_REFS, end))
		return 0;
	memset(&self, 0, sizeof(self));
	for (i = 0; i < NODE_REFS && ref_is_hole(&fold->refs[i]); i++)
		;
	if (i < NODE_REFS)
		error = fold_put_node(fold->attempt, fold->level, number, fold->refs,
				      &self);
	return error ? error : changes_add(fold->out, number, 1, &self);
}

/* Changes of children become changes of nodes.  There are @nr_children. */
static int fold_level(struct fold *fold, uint32_t nr_children)
{
	static const struct ref hole;
	const struct change *change;
	uint32_t start, number, end, last;
	uint64_t change_end;
	int error = 0;

	fold->at = 0;
	fold->done = 0;
	fold->parent = UINT32_MAX;
	while (!error && fold->at < fold->in->nr) {
		change = &fold->in->list[fold->at];
		start = change->first > fold->done ? change->first : fold->done;
		change_end = (uint64_t)change->first + change->nr;
		number = start / NODE_REFS;
		end = nr_children - number * NODE_REFS < NODE_REFS ? nr_children :
		      (number + 1) * NODE_REFS;
		if (ref_is_hole(&change->ref) && start % NODE_REFS == 0 &&
		    change_end >= end) {
			/* Whole nodes; the last one may be short. */
			last = change_end == nr_children ?
			       (nr_children + NODE_REFS - 1) / NODE_REFS :
			       (uint32_t)(change_end / NODE_REFS);
			error = changes_add(fold->out, number, last - number, &hole);
			fold->done = change_end == nr_children ? nr_children :
				     last * NODE_REFS;
			if (fold->done >= change_end)
				fold->at++;
			continue;
		}
		if (fold->ahead)
			ahead_fill(fold->ahead);
		error = edit_node(fold, number, end);
	}
	return error;
}

/* ---- all levels --------------------------------------------------------------------- */

/* The rest of the last node becomes holes. */
static int cut_last(struct changes *changes, uint32_t *nr_children)
{
	static const struct ref hole;
	uint32_t rest = (NODE_REFS - *nr_children % NODE_REFS) % NODE_REFS;

	*nr_children += rest;
	return rest ? changes_add(changes, *nr_children - rest, rest, &hole) : 0;
}

static int fold_tree(struct fold *fold, struct changes *merged, uint32_t nr_chunks,
		     bool cut)
{
	struct changes out[MAP_LEVELS_MAX] = { { 0 } }, *in = merged;
	uint32_t nr_children = nr_chunks;
	int error = 0;

	for (fold->level = 0; !error && fold->level < fold->levels; fold->level++) {
		if (cut)
			error = cut_last(in, &nr_children);
		fold->in = in;
		fold->out = &out[fold->level];
		if (!error)
			error = fold_level(fold, nr_children);
		in = fold->out;
		fold->ahead = NULL;
		nr_children = (nr_children + NODE_REFS - 1) / NODE_REFS;
	}
	if (!error) {
		fold->in = in;
		fold->at = 0;
		fold->done = 0;
		apply(fold, fold->next->root, 0, nr_children);
		fold->next->nr_recent = 0;
	}
	for (fold->level = 0; fold->level < MAP_LEVELS_MAX; fold->level++)
		free(out[fold->level].list);
	return error;
}

static int fold_all(struct attempt *attempt, struct changes *merged, bool cut)
{
	struct head *next = &attempt->swap.next;
	uint32_t nr_chunks = volume_nr_chunks(next->size, next->chunk_size);
	struct fold *fold = malloc(sizeof(*fold));
	struct head *base = malloc(sizeof(*base));
	struct ahead ahead = { .volume = attempt->volume, .base = base,
			       .changes = merged, .last = UINT32_MAX,
			       .lock = PTHREAD_MUTEX_INITIALIZER,
			       .ended = PTHREAD_COND_INITIALIZER };
	int error = -ENOMEM;

	if (fold && base) {
		*base = *next;	/* its root is changed only after the last level */
		fold->attempt = attempt;
		fold->next = next;
		fold->levels = map_levels(nr_chunks);
		fold->ahead = fold->levels ? &ahead : NULL;
		error = fold_tree(fold, merged, nr_chunks, cut);
	}
	ahead_end(&ahead);
	free(fold);
	free(base);
	return error;
}

int fold_changes(struct attempt *attempt, bool cut)
{
	struct head *next = &attempt->swap.next;
	bool flat = map_levels(volume_nr_chunks(next->size, next->chunk_size)) == 0;
	struct changes merged = { 0 };
	int error;

	error = merge_recent(attempt, &merged);
	if (!error && (flat || cut || !fits_recent(&merged)))
		error = fold_all(attempt, &merged, cut);
	else if (!error)
		store_recent(next, &merged);
	free(merged.list);
	return error;
}
