/* map.h: the nodes of the map that are in memory, and looking chunks up.
 *
 * Nodes are immutable and named by level, number, epoch and writer, so what is
 * in memory is never out of date: a newer head names other nodes.  A node that
 * is not there is fetched once for all who want it; they look again when it
 * has come.  Guarded by volume->lock. */
#ifndef OBJMAP_VOLUME_MAP_H
#define OBJMAP_VOLUME_MAP_H

#include "src/volume/format.h"

struct node;
struct volume;

struct map {
	struct node **buckets;
	uint32_t nr_buckets;		/* a power of two */
	struct node *newest, *oldest;	/* by last use */
	uint32_t nr_nodes;
	uint32_t max_nodes;
	uint32_t nr_fetching;		/* the volume stays until it is 0 */
};

struct map_waiter {
	/* The node has come (0) or not; no lock is held. */
	void (*wake)(struct map_waiter *waiter, int error);
	struct map_waiter *next;
};

/* An answer about chunk @chunk and the chunks after it. */
struct map_find {
	uint32_t chunk;
	bool below_recent;		/* as if head had no recent refs */
	uint32_t run;			/* so many chunks are alike: holes or data */
	struct ref ref;			/* of the first; with -EAGAIN: of the node ... */
	unsigned int level;		/* ... at this level ... */
	uint32_t number;		/* ... with this number, which is not there */
	struct node *fetch;		/* map_fetch() it once the lock is gone */
};

int map_init(struct map *map, uint64_t memory);		/* 0 or -ENOMEM */
void map_deinit(struct map *map);
#define MAP_NODE_BYTES (NODE_BYTES + 128u)		/* memory of a node */

/* Looks @find->chunk up in @head: recent refs, root, nodes.  The lock is held.
 * 0, -EINPROGRESS (@waiter will be woken: look again then; fetch @find->fetch
 * unless it is NULL), -EAGAIN (@waiter is NULL and a node is not there), -EIO
 * (there is no such chunk), or -ENOMEM. */
int map_look(struct volume *volume, const struct head *head,
	     struct map_find *find, struct map_waiter *waiter);

/* The same, waiting for nodes; the lock is not held. */
int map_look_wait(struct volume *volume, const struct head *head,
		  struct map_find *find);

/* Starts fetching; the lock is not held.  NULL is fine. */
void map_fetch(struct volume *volume, struct node *node);

/* Copies the refs of a node of @volume's image, fetching it when it is not there;
 * waits.  A hole gives holes.  0 or a negative errno, logged. */
int map_read_node(struct volume *volume, unsigned int level, uint32_t number,
		  const struct ref *ref, struct ref refs[NODE_REFS]);

/* Remembers a node that was just made. */
void map_add(struct volume *volume, unsigned int level, uint32_t number,
	     const struct ref *ref, const struct ref refs[NODE_REFS]);

#endif
