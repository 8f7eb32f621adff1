/* map.c: map nodes in a bounded memory, least recently used out first, and the
 * way from a chunk to its ref.
 *
 * The lock of everything here is volume->lock.  A node with @ready false is on
 * its way; its waiters are woken once, together, and look again.  While they
 * are, the node is pinned, so that memory that is short can't take it away
 * before the first of them has seen it. */
#include <errno.h>
#include <semaphore.h>
#include <stdlib.h>
#include <string.h>

#include "src/crc32c.h"
#include "src/log.h"
#include "src/volume/engine.h"

#define MAP_NODES_MIN 64u	/* a commit looks ahead by half of it */

struct node {
	struct node *next;		/* of the bucket */
	struct node *newer, *older;
	unsigned int level;
	uint32_t number;
	struct ref self;		/* as its parent names it */
	bool ready;
	unsigned int pins;
	struct map_waiter *waiters;
	struct ref refs[NODE_REFS];
};

/* A node on its way. */
struct node_fetch {
	struct volume *volume;
	struct node *node;
	uint64_t epoch;			/* of the image that names it */
	unsigned int attempts;
	struct store_request get;
	struct iovec iov;
	char key[VOLUME_KEY_MAX];
	uint8_t bytes[NODE_BYTES];
};

int map_init(struct map *map, uint64_t memory)
{
	uint64_t max = memory / MAP_NODE_BYTES;

	map->max_nodes = max < MAP_NODES_MIN ? MAP_NODES_MIN :
			 max > UINT32_MAX / 4 ? UINT32_MAX / 4 : (uint32_t)max;
	for (map->nr_buckets = 256; map->nr_buckets < map->max_nodes;)
		map->nr_buckets *= 2;
	map->buckets = calloc(map->nr_buckets, sizeof(*map->buckets));
	return map->buckets ? 0 : -ENOMEM;
}

void map_deinit(struct map *map)
{
	struct node *node;

	while ((node = map->newest)) {
		map->newest = node->older;
		free(node);
	}
	free(map->buckets);
	map->buckets = NULL;
}

/* ---- the nodes in memory -------------------------------------------------------- */

static struct node **bucket_of(struct map *map, unsigned int level,
			       uint32_t number, const struct ref *ref)
{
	uint64_t h = (ref->epoch * 0x9e3779b97f4a7c15ull) ^ ref->writer;

	h = (h ^ number ^ ((uint64_t)level << 60)) * 0xbf58476d1ce4e5b9ull;
	return &map->buckets[(h >> 32) & (map->nr_buckets - 1)];
}

static void unlink_used(struct map *map, struct node *node)
{
	*(node->newer ? &node->newer->older : &map->newest) = node->older;
	*(node->older ? &node->older->newer : &map->oldest) = node->newer;
}

static void link_newest(struct map *map, struct node *node)
{
	node->newer = NULL;
	node->older = map->newest;
	*(map->newest ? &map->newest->newer : &map->oldest) = node;
	map->newest = node;
}

static void node_remove(struct map *map, struct node *node)
{
	struct node **link = bucket_of(map, node->level, node->number, &node->self);

	while (*link != node)
		link = &(*link)->next;
	*link = node->next;
	unlink_used(map, node);
	map->nr_nodes--;
}

static void map_evict(struct map *map)
{
	struct node *node = map->oldest, *newer;

	for (; node && map->nr_nodes > map->max_nodes; node = newer) {
		newer = node->newer;
		if (node->ready && !node->pins) {
			node_remove(map, node);
			free(node);
		}
	}
}

static struct node *node_find(struct map *map, unsigned int level,
			      uint32_t number, const struct ref *ref)
{
	struct node *node = *bucket_of(map, level, number, ref);

	while (node && !(node->level == level && node->number == number &&
			 ref_equal(&node->self, ref)))
		node = node->next;
	if (node && map->newest != node) {
		unlink_used(map, node);
		link_newest(map, node);
	}
	return node;
}

static struct node *node_new(struct map *map, unsigned int level,
			     uint32_t number, const struct ref *ref)
{
	struct node *node = malloc(sizeof(*node)), **bucket;

	if (!node)
		return NULL;
	bucket = bucket_of(map, level, number, ref);
	node->level = level;
	node->number = number;
	node->self = *ref;
	node->ready = false;
	node->pins = 0;
	node->waiters = NULL;
	node->next = *bucket;
	*bucket = node;
	link_newest(map, node);
	map->nr_nodes++;
	return node;
}

/* The node when it is there; else 0 nodes and as map_look() says. */
static int node_look(struct map *map, unsigned int level, uint32_t number,
		     const struct ref *ref, struct map_waiter *waiter,
		     struct node **found, struct node **fetch)
{
	struct node *node = node_find(map, level, number, ref);

	*found = node;
	if (node && node->ready)
		return 0;
	if (!waiter)
		return -EAGAIN;
	if (!node) {
		node = *fetch = node_new(map, level, number, ref);
		if (!node)
			return -ENOMEM;
		map->nr_fetching++;
		map_evict(map);
	}
	waiter->next = node->waiters;
	node->waiters = waiter;
	return -EINPROGRESS;
}

/* ---- fetching one ------------------------------------------------------------------ */

static void node_wake(struct volume *volume, struct node *node, int error)
{
	struct map_waiter *waiters, *waiter;

	pthread_mutex_lock(&volume->lock);
	waiters = node->waiters;
	node->waiters = NULL;
	if (error) {
		node_remove(&volume->map, node);
	} else {
		node->ready = true;
		node->pins++;
	}
	pthread_mutex_unlock(&volume->lock);

	while ((waiter = waiters)) {
		waiters = waiter->next;
		waiter->wake(waiter, error);
	}
	pthread_mutex_lock(&volume->lock);
	if (error) {
		free(node);
	} else {
		node->pins--;
		map_evict(&volume->map);
	}
	if (--volume->map.nr_fetching == 0)
		pthread_cond_broadcast(&volume->quiet);
	pthread_mutex_unlock(&volume->lock);
}

static void fetch_end(struct node_fetch *fetch, int error)
{
	struct volume *volume = fetch->volume;
	struct node *node = fetch->node;

	free(fetch);
	node_wake(volume, node, error);
}

static void fetch_absent(void *context, int error)
{
	/* With 0 the image is another one, which names another node: those who
	 * wait look again, so no node is needed.  -EAGAIN tells them. */
	fetch_end(context, error ? error : -EAGAIN);
}

/* Whether what came is the node that the ref names. */
static int fetch_check(struct node_fetch *fetch, struct format_fault *fault)
{
	struct volume *volume = fetch->volume;
	struct node *node = fetch->node;
	int error;

	fault->offset = 0;
	strcpy(fault->what, "the checksum is not the one its parent names");
	if (fetch->get.reply.count != NODE_BYTES ||
	    fetch->get.reply.size != NODE_BYTES) {
		strcpy(fault->what, "its length is not that of a map node");
		return -EBADMSG;
	}
	if (crc32c(0, fetch->bytes, NODE_BYTES) != node->self.crc)
		return -EBADMSG;
	error = node_decode(fetch->bytes, NODE_BYTES, node->refs, fault);
	if (error)
		return error;
	/* What its refs can be is known of the image that named it only. */
	pthread_mutex_lock(&volume->lock);
	if (volume->image.head.epoch == fetch->epoch)
		error = node_check(&volume->image.head, node->level, node->number,
				   &node->self, node->refs, fault);
	pthread_mutex_unlock(&volume->lock);
	return error;
}

static void fetch_submit(struct node_fetch *fetch);

static void fetch_done(struct store_request *get, enum store_outcome outcome)
{
	struct node_fetch *fetch = get->context;
	struct volume *volume = fetch->volume;
	struct format_fault fault;
	int error = 0;

	if (outcome == STORE_ABSENT) {
		volume_absence(volume, fetch->key, fetch->epoch, fetch_absent, fetch);
		return;
	}
	if (outcome != STORE_DONE) {
		error = store_errno(outcome, &get->reply);
	} else if (fetch_check(fetch, &fault) < 0) {
		if (fetch->attempts++ == 0) {
			fetch_submit(fetch);	/* a bad transfer is worth one more try */
			return;
		}
		log_error("%s: GET %s: %s (at byte %zu): this map node is damaged; "
			  "objmap verify finds all that is", volume->store->place,
			  fetch->key, fault.what, fault.offset);
		error = -EIO;
	}
	fetch_end(fetch, error);
}

static void fetch_submit(struct node_fetch *fetch)
{
	fetch->iov = (struct iovec){ fetch->bytes, NODE_BYTES };
	fetch->get = (struct store_request){
		.op = STORE_GET, .cause = CAUSE_MAP, .priority = PRIORITY_DEMAND,
		.key = fetch->key, .count = NODE_BYTES, .whole = true,
		.iov = &fetch->iov, .nr_iov = 1,
		.done = fetch_done, .context = fetch,
	};
	store_submit(fetch->volume->store, &fetch->get);
}

void map_fetch(struct volume *volume, struct node *node)
{
	struct node_fetch *fetch;

	if (!node)
		return;
	fetch = malloc(sizeof(*fetch));
	if (!fetch) {
		node_wake(volume, node, -ENOMEM);
		return;
	}
	fetch->volume = volume;
	fetch->node = node;
	fetch->attempts = 0;
	pthread_mutex_lock(&volume->lock);
	fetch->epoch = volume->image.head.epoch;
	head_node_key(&volume->image.head, node->level, node->number, &node->self,
		      fetch->key);
	pthread_mutex_unlock(&volume->lock);
	fetch_submit(fetch);
}

/* ---- looking up ------------------------------------------------------------------------ */

/* The first recent ref at or after @chunk. */
static unsigned int recent_from(const struct head *head, uint32_t chunk)
{
	unsigned int low = 0, high = head->nr_recent, middle;

	while (low < high) {
		middle = (low + high) / 2;
		if (head->recent[middle].chunk < chunk)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

/* How many of @refs from @from on, at most @nr, are holes like the first, or not. */
static uint32_t run_of(const struct ref *refs, uint32_t from, uint32_t nr)
{
	bool hole = ref_is_hole(&refs[from]);
	uint32_t i;

	for (i = from + 1; i < nr && ref_is_hole(&refs[i]) == hole; i++)
		;
	return i - from;
}

int map_look(struct volume *volume, const struct head *head,
	     struct map_find *find, struct map_waiter *waiter)
{
	uint32_t nr_chunks = volume_nr_chunks(head->size, head->chunk_size);
	uint32_t end = nr_chunks, number, slot;
	unsigned int level = map_levels(nr_chunks), at, shift;
	const struct ref *refs = head->root;
	struct node *node;
	int error;

	find->fetch = NULL;
	if (find->chunk >= nr_chunks)	/* of a reader whose volume shrank meanwhile */
		return -EIO;
	at = find->below_recent ? head->nr_recent : recent_from(head, find->chunk);
	if (at < head->nr_recent && head->recent[at].chunk == find->chunk) {
		find->ref = head->recent[at].ref;
		find->run = 1;
		return 0;
	}
	if (at < head->nr_recent)
		end = head->recent[at].chunk;

	/* Down from the root: a ref at level n covers 1024^n chunks. */
	for (;; level--) {
		shift = 10 * level;
		number = find->chunk >> shift;
		slot = refs == head->root ? number : number % NODE_REFS;
		find->ref = refs[slot];
		if (!level || ref_is_hole(&find->ref))
			break;
		error = node_look(&volume->map, level - 1, number, &find->ref,
				  waiter, &node, &find->fetch);
		if (error) {
			find->level = level - 1;
			find->number = number;
			return error;
		}
		refs = node->refs;
	}
	if (level)	/* an empty subtree: up to where it ends */
		find->run = (uint32_t)((((uint64_t)number + 1) << shift) - find->chunk);
	else
		find->run = run_of(refs, slot, refs == head->root ? head->nr_root
								  : NODE_REFS);
	if (find->run > end - find->chunk)
		find->run = end - find->chunk;
	return 0;
}

/* ---- for a commit ------------------------------------------------------------------------ */

struct node_wait {
	struct map_waiter waiter;
	sem_t woken;
	int error;
};

static void node_wait_wake(struct map_waiter *waiter, int error)
{
	struct node_wait *wait = (struct node_wait *)waiter;

	wait->error = error;
	sem_post(&wait->woken);
}

int map_read_node(struct volume *volume, unsigned int level, uint32_t number,
		  const struct ref *ref, struct ref refs[NODE_REFS])
{
	struct node_wait wait = { .waiter = { .wake = node_wait_wake } };
	struct node *node, *fetch;
	int error;

	if (ref_is_hole(ref)) {
		memset(refs, 0, NODE_REFS * sizeof(*refs));
		return 0;
	}
	sem_init(&wait.woken, 0, 0);
	do {
		fetch = NULL;
		wait.error = 0;
		pthread_mutex_lock(&volume->lock);
		error = node_look(&volume->map, level, number, ref, &wait.waiter,
				  &node, &fetch);
		if (!error)
			memcpy(refs, node->refs, NODE_REFS * sizeof(*refs));
		pthread_mutex_unlock(&volume->lock);
		if (error != -EINPROGRESS)
			break;
		map_fetch(volume, fetch);
		while (sem_wait(&wait.woken) < 0)
			;
		/* A writer's own image never moves on under its commit. */
		if (wait.error == -EAGAIN)
			wait.error = -EIO;
	} while (!wait.error);
	sem_destroy(&wait.woken);
	return error == -EINPROGRESS ? wait.error : error;
}

int map_look_wait(struct volume *volume, const struct head *head,
		  struct map_find *find)
{
	struct ref *refs = malloc(NODE_REFS * sizeof(*refs));
	struct ref self;
	int error = refs ? 0 : -ENOMEM;

	while (!error) {
		pthread_mutex_lock(&volume->lock);
		error = map_look(volume, head, find, NULL);
		pthread_mutex_unlock(&volume->lock);
		if (error != -EAGAIN)
			break;
		self = find->ref;
		error = map_read_node(volume, find->level, find->number, &self, refs);
	}
	free(refs);
	return error;
}

void map_add(struct volume *volume, unsigned int level, uint32_t number,
	     const struct ref *ref, const struct ref refs[NODE_REFS])
{
	struct node *node;

	pthread_mutex_lock(&volume->lock);
	node = node_new(&volume->map, level, number, ref);
	if (node) {
		memcpy(node->refs, refs, NODE_REFS * sizeof(*refs));
		node->ready = true;
		map_evict(&volume->map);
	}
	pthread_mutex_unlock(&volume->lock);
}
