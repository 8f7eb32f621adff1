/* resize.c: what a new size does to the map.
 *
 * A map of more chunks may need more levels: the old root becomes the first node
 * of a new level, uploaded with the commit.  One of fewer chunks may need fewer:
 * its root is then what the first node of the old level held.  What is cut off
 * becomes holes, and the last chunk's bytes beyond the size become zeros, so
 * that growing again reads zeros. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "src/log.h"
#include "src/volume/engine.h"

/* Takes levels off until the tree is as high as @levels. */
static int lower(struct attempt *attempt, unsigned int from, unsigned int levels)
{
	struct head *next = &attempt->swap.next;
	struct ref refs[NODE_REFS];
	unsigned int level;
	int error;

	for (level = from; level > levels; level--) {
		error = map_read_node(attempt->volume, level - 1, 0, &next->root[0], refs);
		if (error)
			return error;
		reap_list_add(&attempt->replaced, (uint8_t)(level - 1), 0, &next->root[0]);
		memcpy(next->root, refs, sizeof(refs));
	}
	return 0;
}

/* What is committed of the last chunk, with zeros from byte @keep on; NULL: a
 * hole, or @batch has its content, which is cut when it is put. */
static int read_tail(struct attempt *attempt, uint32_t chunk, uint32_t keep,
		     const struct commit_batch *batch, void **tail)
{
	struct volume *volume = attempt->volume;
	const struct head *base = &attempt->swap.base.head;
	struct map_find find = { .chunk = chunk };
	int error;

	for (unsigned int i = 0; i < batch->nr_items; i++)
		if (chunk - batch->items[i].chunk < batch->items[i].nr_chunks)
			return 0;
	*tail = malloc(volume->chunk_size);
	if (!*tail)
		return -ENOMEM;
	error = map_look_wait(volume, base, &find);
	if (!error && !ref_is_hole(&find.ref))
		error = chunk_read(volume, base, chunk, &find.ref, *tail);
	if (error || ref_is_hole(&find.ref)) {
		free(*tail);
		*tail = NULL;
		return error;
	}
	memset((uint8_t *)*tail + keep, 0, volume->chunk_size - keep);
	return 0;
}

/* Refs in head beyond the end are of no use any more. */
static void cut_head(struct attempt *attempt, uint32_t nr)
{
	struct head *next = &attempt->swap.next;
	unsigned int levels = map_levels(nr);
	uint32_t i;

	while (next->nr_recent && next->recent[next->nr_recent - 1].chunk >= nr) {
		next->nr_recent--;
		reap_list_add(&attempt->replaced, REAP_CHUNK,
			     next->recent[next->nr_recent].chunk,
			     &next->recent[next->nr_recent].ref);
	}
	next->nr_root = map_nr_root(nr);
	for (i = next->nr_root; i < NODE_REFS; i++) {
		reap_list_add(&attempt->replaced,
			     levels ? (uint8_t)(levels - 1) : REAP_CHUNK, i,
			     &next->root[i]);
		memset(&next->root[i], 0, sizeof(next->root[i]));
	}
}

int resize_begin(struct attempt *attempt, const struct commit_batch *batch,
		 void **tail)
{
	const struct head *base = &attempt->swap.base.head;
	uint32_t old_nr = volume_nr_chunks(base->size, base->chunk_size);
	uint32_t nr = volume_nr_chunks(batch->size, base->chunk_size);
	uint32_t keep = (uint32_t)(batch->size % base->chunk_size);
	int error;

	*tail = NULL;
	if (!batch->size || batch->size >= base->size)
		return 0;		/* growing is resize_end()'s */
	if (keep) {
		error = read_tail(attempt, nr - 1, keep, batch, tail);
		if (error)
			return error;
	}
	error = lower(attempt, map_levels(old_nr), map_levels(nr));
	if (error) {
		free(*tail);
		*tail = NULL;
		return error;
	}
	attempt->swap.next.size = batch->size;
	cut_head(attempt, nr);
	return 0;
}

/* Puts one level on: the root becomes the first node of it. */
static int raise_level(struct attempt *attempt, unsigned int level)
{
	struct head *next = &attempt->swap.next;
	struct ref self = { 0 };
	uint32_t i;
	int error;

	for (i = 0; i < NODE_REFS && ref_is_hole(&next->root[i]); i++)
		;
	if (i < NODE_REFS) {
		error = fold_put_node(attempt, level, 0, next->root, &self);
		if (error)
			return error;
	}
	memset(next->root, 0, sizeof(next->root));
	next->root[0] = self;
	return 0;
}

int resize_end(struct attempt *attempt, const struct commit_batch *batch)
{
	struct head *next = &attempt->swap.next;
	uint32_t old_nr = volume_nr_chunks(next->size, next->chunk_size);
	uint32_t nr = volume_nr_chunks(batch->size, next->chunk_size);
	unsigned int level;
	int error;

	if (batch->size <= next->size)
		return 0;
	for (level = map_levels(old_nr); level < map_levels(nr); level++) {
		error = raise_level(attempt, level);
		if (error)
			return error;
	}
	next->size = batch->size;
	next->nr_root = map_nr_root(nr);
	return 0;
}

int volume_resize(struct volume *volume, uint64_t size)
{
	uint64_t nr = (size + volume->chunk_size - 1) / volume->chunk_size;

	if (!volume->writable)
		return -EROFS;
	if (!size || size > INT64_MAX || nr > VOLUME_CHUNKS_MAX) {
		log_error("%s: a size of %llu bytes cannot be: 1 byte to %llu chunks of "
			  "%u bytes", volume->store->place, (unsigned long long)size,
			  (unsigned long long)VOLUME_CHUNKS_MAX, volume->chunk_size);
		return -EINVAL;
	}
	if (size == stage_size(&volume->stage))
		return 0;
	return committer_flush_wait(volume, size);
}
