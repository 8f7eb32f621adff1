/* pending.c: the table of uncommitted chunks: a treap of intervals.
 *
 * Every change is made of three steps: split the tree at a chunk (which may cut
 * a run of holes in two), work on the middle, join the parts again.  Cutting a
 * run takes an entry; so that returning a failed commit to the table can never
 * fail, a table filled by pending_put() keeps a spare entry for each one it has. */
#include <errno.h>
#include <stdlib.h>

#include "src/volume/pending.h"

/* Only balances the tree (splitmix64). */
static uint32_t next_weight(struct pending *table)
{
	uint64_t z = (table->seed += 0x9e3779b97f4a7c15ull);

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
	return (uint32_t)(z >> 32);
}

static void spare_add(struct pending *table, struct pending_entry *entry)
{
	entry->right = table->spare;
	table->spare = entry;
	table->nr_spare++;
}

static struct pending_entry *spare_take(struct pending *table)
{
	struct pending_entry *entry = table->spare;

	table->spare = entry->right;
	table->nr_spare--;
	return entry;
}

static struct pending_entry *entry_make(struct pending *table, uint32_t first,
					uint32_t nr, struct buffer *buffer)
{
	struct pending_entry *entry = spare_take(table);

	entry->first = first;
	entry->nr = nr;
	entry->buffer = buffer;
	entry->weight = next_weight(table);
	entry->left = entry->right = NULL;
	table->nr_entries++;
	table->nr_data += buffer != NULL;
	return entry;
}

static void entry_drop(struct pending *table, struct pending_entry *entry)
{
	table->nr_entries--;
	if (entry->buffer) {
		table->nr_data--;
		buffer_put(entry->buffer);
	}
	spare_add(table, entry);
}

/* ---- split and join ----------------------------------------------------------- */

static struct pending_entry *join(struct pending_entry *left,
				  struct pending_entry *right)
{
	if (!left)
		return right;
	if (!right)
		return left;
	if (left->weight > right->weight) {
		left->right = join(left->right, right);
		return left;
	}
	right->left = join(left, right->left);
	return right;
}

/* Entries that begin before @chunk go to *left, the others to *right; a run
 * that lies on both sides is cut.  @chunk is 64 bits: one past the last. */
static void split(struct pending *table, struct pending_entry *top, uint64_t chunk,
		  struct pending_entry **left, struct pending_entry **right)
{
	struct pending_entry *rest;
	uint64_t end;

	if (!top) {
		*left = *right = NULL;
		return;
	}
	if (top->first >= chunk) {
		*right = top;
		split(table, top->left, chunk, left, &top->left);
		return;
	}
	*left = top;
	end = (uint64_t)top->first + top->nr;
	if (end <= chunk) {
		split(table, top->right, chunk, &top->right, right);
		return;
	}
	rest = entry_make(table, (uint32_t)chunk, (uint32_t)(end - chunk), NULL);
	top->nr = (uint32_t)(chunk - top->first);
	*right = join(rest, top->right);
	top->right = NULL;
}

static void drop_all(struct pending *table, struct pending_entry *top)
{
	struct pending_entry *right;

	while (top) {
		drop_all(table, top->left);
		right = top->right;
		entry_drop(table, top);
		top = right;
	}
}

/* Takes the last entry of @top out when it is a run of holes that ends at
 * @chunk, so that neighbouring runs become one. */
static struct pending_entry *take_hole_before(struct pending *table,
					      struct pending_entry **top,
					      uint32_t chunk)
{
	struct pending_entry **link = top, *last;

	while (*link && (*link)->right)
		link = &(*link)->right;
	last = *link;
	if (!last || last->buffer || last->first + last->nr != chunk)
		return NULL;
	*link = last->left;
	last->left = NULL;
	return last;
}

static struct pending_entry *take_hole_at(struct pending_entry **top, uint64_t chunk)
{
	struct pending_entry **link = top, *entry;

	while (*link && (*link)->left)
		link = &(*link)->left;
	entry = *link;
	if (!entry || entry->buffer || entry->first != chunk)
		return NULL;
	*link = entry->right;
	entry->right = NULL;
	return entry;
}

/* There are at least two spares. */
static void put(struct pending *table, uint32_t first, uint32_t nr,
		struct buffer *buffer)
{
	uint64_t end = (uint64_t)first + nr;
	struct pending_entry *left, *middle, *right, *entry, *beside;

	split(table, table->top, first, &left, &right);
	split(table, right, end, &middle, &right);
	drop_all(table, middle);
	entry = entry_make(table, first, nr, buffer);
	if (!buffer && (beside = take_hole_before(table, &left, first))) {
		entry->first = beside->first;
		entry->nr += beside->nr;
		entry_drop(table, beside);
	}
	if (!buffer && (beside = take_hole_at(&right, end))) {
		entry->nr += beside->nr;
		entry_drop(table, beside);
	}
	table->top = join(join(left, entry), right);
}

/* ---- the table ------------------------------------------------------------------ */

uint64_t pending_cost(const struct pending *table, uint32_t chunk_size)
{
	return table->nr_entries * PENDING_ENTRY_COST + table->nr_data * chunk_size;
}

const struct pending_entry *pending_find(const struct pending *table, uint32_t chunk)
{
	const struct pending_entry *entry = table->top, *after = NULL;

	while (entry) {
		if (entry->first > chunk) {
			after = entry;
			entry = entry->left;
		} else if (chunk - entry->first < entry->nr) {
			return entry;
		} else {
			entry = entry->right;
		}
	}
	return after;
}

/* What put() may take. */
static int spares_for_put(struct pending *table)
{
	struct pending_entry *entry;
	unsigned int nr;

	for (nr = 0; nr < 4; nr++) {
		entry = malloc(sizeof(*entry));
		if (!entry)
			return -ENOMEM;
		spare_add(table, entry);
	}
	return 0;
}

static void spares_trim(struct pending *table)
{
	while (table->nr_spare > table->nr_entries)
		free(spare_take(table));
}

int pending_put(struct pending *table, uint32_t first, uint32_t nr,
		struct buffer *buffer)
{
	int error = spares_for_put(table);

	if (!error)
		put(table, first, nr, buffer);
	spares_trim(table);
	return error;
}

static void merge_from(struct pending *table, struct pending *newer,
		       struct pending_entry *top)
{
	struct pending_entry *right;

	while (top) {
		merge_from(table, newer, top->left);
		right = top->right;
		/* Its own entry and its spare are the two that put() may take. */
		spare_add(table, spare_take(newer));
		spare_add(table, top);
		put(table, top->first, top->nr, top->buffer);
		top = right;
	}
}

void pending_merge(struct pending *table, struct pending *newer)
{
	struct pending_entry *top = newer->top;

	newer->top = NULL;
	newer->nr_entries = newer->nr_data = 0;
	merge_from(table, newer, top);
	spares_trim(table);
	spares_trim(newer);
}

void pending_cut(struct pending *table, uint32_t first)
{
	struct pending_entry *entry = table->top, *cut;

	/* Cut inside a run by shortening it: no entry is needed. */
	while (entry && !(entry->first < first && first - entry->first < entry->nr))
		entry = entry->first >= first ? entry->left : entry->right;
	if (entry)
		entry->nr = first - entry->first;
	split(table, table->top, first, &table->top, &cut);
	drop_all(table, cut);
	spares_trim(table);
}

void pending_clear(struct pending *table)
{
	pending_cut(table, 0);
}
