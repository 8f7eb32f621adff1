/* extents.c: what is where, from the pending table and the map.
 *
 * The walk goes run by run: holes of any length and stretches of data are one
 * step each, so it costs what it finds, and no memory.  It ends when the list
 * is full, or when it has fetched as many map nodes as one answer should wait
 * for; the caller asks again from there. */
#include <errno.h>
#include <stdlib.h>

#include "src/volume/engine.h"

#define EXTENTS_NODES_MAX 16u		/* fetched for one answer */

struct extents_walk {
	struct map_waiter waiter;	/* must stay first */
	struct volume *volume;
	struct request *request;
	uint64_t at;			/* bytes; everything before is in the list */
	unsigned int nr_fetched;
};

/* How the chunk at walk->at is, and up to which chunk (not included) it stays
 * like that.  The lock is held.  As map_look(). */
static int next_run(struct volume *volume, uint32_t chunk, struct map_waiter *waiter,
		    struct map_find *find, uint32_t *end, unsigned int *flags)
{
	const struct pending *tables[] = { &volume->committer.open,
					   &volume->committer.sealed };
	const struct pending_entry *entry;
	uint32_t limit = UINT32_MAX;
	unsigned int i;
	int error;

	*find = (struct map_find){ .chunk = chunk };
	for (i = 0; i < 2; i++) {
		entry = pending_find(tables[i], chunk);
		if (!entry)
			continue;
		if (entry->first <= chunk) {
			*end = entry->first + entry->nr < limit ?
			       entry->first + entry->nr : limit;
			*flags = entry->buffer ? EXTENT_LOCAL | EXTENT_DIRTY :
				 EXTENT_HOLE | EXTENT_ZERO | EXTENT_DIRTY;
			return 0;
		}
		if (entry->first < limit)
			limit = entry->first;
	}
	error = map_look(volume, &volume->image.head, find, waiter);
	if (error)
		return error;
	*end = chunk + find->run < limit ? chunk + find->run : limit;
	*flags = ref_is_hole(&find->ref) ? EXTENT_HOLE | EXTENT_ZERO : 0;
	return 0;
}

static void walk_go_on(struct map_waiter *waiter, int error)
{
	struct extents_walk *walk = (struct extents_walk *)waiter;
	struct volume *volume = walk->volume;
	struct request *request = walk->request;
	uint64_t end = request->offset + request->count, until;
	bool wait = !(request->flags & REQUEST_NOWAIT);
	struct map_find find;
	unsigned int flags;
	uint32_t run_end;

	if (error == -EAGAIN)
		error = 0;
	while (!error && walk->at < end) {
		if (request->extents->nr && walk->nr_fetched >= EXTENTS_NODES_MAX)
			wait = false;
		pthread_mutex_lock(&volume->lock);
		error = next_run(volume, (uint32_t)(walk->at >> volume->chunk_shift),
				 wait ? &walk->waiter : NULL, &find, &run_end, &flags);
		pthread_mutex_unlock(&volume->lock);
		if (error == -EINPROGRESS) {
			walk->nr_fetched++;
			map_fetch(volume, find.fetch);
			return;
		}
		if (error)
			break;
		until = (uint64_t)run_end << volume->chunk_shift;
		if (until > end)
			until = end;
		if (!extent_list_add(request->extents, until - walk->at, flags))
			break;
		walk->at = until;
	}
	if (error == -EAGAIN && request->extents->nr)
		error = 0;		/* what is known is answer enough */
	free(walk);
	request_complete(request, error);
}

void volume_extents(struct stage *stage, struct request *request)
{
	struct extents_walk *walk = malloc(sizeof(*walk));

	if (!walk) {
		request_complete(request, -ENOMEM);
		return;
	}
	walk->waiter.wake = walk_go_on;
	walk->volume = volume_of(stage);
	walk->request = request;
	walk->at = request->offset;
	walk->nr_fetched = 0;
	request->extents->nr = 0;
	walk_go_on(&walk->waiter, 0);
}
