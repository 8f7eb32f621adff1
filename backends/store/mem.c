/* mem.c: a store in memory: objects in a skip list, in the order of their keys.
 *
 * Completes every request before submit returns.  An object never changes: a
 * put makes a new one and swaps it in, so bytes are copied with no lock held.
 * Several handles, the clients of one store, can share the objects. */
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "backends/store/store.h"
#include "src/random.h"
#include "src/stage/iov.h"

#define LEVELS 16	/* one in four goes up: enough for 4^16 keys */

struct object {
	atomic_uint references;
	uint64_t version;		/* its tag: never comes back */
	uint64_t last_modified;		/* seconds */
	uint64_t count;			/* bytes of content */
	struct store_metadata *metadata;/* NULL: none */
	char content[];
};

struct node {
	struct object *object;
	char *key;
	unsigned int levels;
	struct node *next[];
};

struct objects {
	atomic_uint handles;
	pthread_rwlock_t lock;
	struct node *first;		/* before all keys; has LEVELS levels */
	uint64_t version;		/* the latest given */
	struct random random;
};

struct mem {
	struct store store;		/* must stay first */
	struct objects *objects;
};

/* ---- objects ---------------------------------------------------------------- */

static void object_put(struct object *object)
{
	if (atomic_fetch_sub(&object->references, 1) != 1)
		return;
	free(object->metadata);
	free(object);
}

static struct object *object_new(const struct store_request *request)
{
	struct object *object = malloc(sizeof(*object) + request->count);

	if (!object)
		return NULL;
	atomic_init(&object->references, 1);
	object->count = request->count;
	object->last_modified = (uint64_t)time(NULL);
	object->metadata = NULL;
	if (request->metadata && request->metadata->length) {
		object->metadata = malloc(sizeof(*object->metadata));
		if (!object->metadata) {
			free(object);
			return NULL;
		}
		memcpy(object->metadata, request->metadata, sizeof(*object->metadata));
	}
	iov_copy_out(request->iov, request->nr_iov, 0, object->content, request->count);
	return object;
}

static void object_tag(uint64_t version, char tag[STORE_TAG_MAX])
{
	snprintf(tag, STORE_TAG_MAX, "%016llx", (unsigned long long)version);
}

static bool object_has_tag(const struct object *object, const char *tag)
{
	char own[STORE_TAG_MAX];

	object_tag(object->version, own);
	return strcmp(own, tag) == 0;
}

/* ---- the skip list; its lock is held ------------------------------------------ */

/* Finds the last node before @key on each level; returns the one at @key. */
static struct node *list_find(struct objects *objects, const char *key,
			      struct node *before[LEVELS])
{
	struct node *node = objects->first;
	int level;

	for (level = LEVELS - 1; level >= 0; level--) {
		while (node->next[level] && strcmp(node->next[level]->key, key) < 0)
			node = node->next[level];
		before[level] = node;
	}
	node = node->next[0];
	return node && strcmp(node->key, key) == 0 ? node : NULL;
}

static struct node *node_new(const char *key, unsigned int levels)
{
	size_t length = key ? strlen(key) + 1 : 0;
	size_t fixed = sizeof(struct node) + levels * sizeof(struct node *);
	struct node *node = calloc(1, fixed + length);

	if (!node)
		return NULL;
	node->levels = levels;
	if (key) {
		node->key = (char *)node + fixed;
		memcpy(node->key, key, length);
	}
	return node;
}

static unsigned int list_levels(struct objects *objects)
{
	uint64_t bits = random_next(&objects->random);
	unsigned int levels = 1;

	for (; levels < LEVELS && (bits & 3) == 0; bits >>= 2)
		levels++;
	return levels;
}

static int list_insert(struct objects *objects, const char *key,
		       struct object *object, struct node *before[LEVELS])
{
	struct node *node = node_new(key, list_levels(objects));
	unsigned int level;

	if (!node)
		return -ENOMEM;
	node->object = object;
	for (level = 0; level < node->levels; level++) {
		node->next[level] = before[level]->next[level];
		before[level]->next[level] = node;
	}
	return 0;
}

static void list_remove(struct node *node, struct node *before[LEVELS])
{
	unsigned int level;

	for (level = 0; level < node->levels; level++)
		before[level]->next[level] = node->next[level];
	free(node);
}

/* ---- operations ----------------------------------------------------------------- */

static enum store_outcome mem_get(struct objects *objects, struct store_request *request)
{
	struct store_reply *reply = &request->reply;
	struct node *before[LEVELS], *node;
	struct object *object = NULL;
	enum store_outcome outcome = STORE_DONE;

	pthread_rwlock_rdlock(&objects->lock);
	node = list_find(objects, request->key, before);
	if (node) {
		object = node->object;
		atomic_fetch_add(&object->references, 1);
	}
	pthread_rwlock_unlock(&objects->lock);
	if (!object)
		return STORE_ABSENT;

	object_tag(object->version, reply->tag);
	reply->size = object->count;
	reply->last_modified = object->last_modified;
	if (object->metadata)
		memcpy(&reply->metadata, object->metadata, sizeof(reply->metadata));
	reply->count = request->whole ? object->count : request->count;
	if (request->condition == STORE_IF_MATCH && strcmp(reply->tag, request->tag) != 0) {
		outcome = STORE_REFUSED;
	} else if (request->whole && object->count > request->count) {
		reply->error = -EFBIG;
		outcome = STORE_FAILED;
	} else if (request->offset > object->count ||
		   reply->count > object->count - request->offset) {
		reply->error = -ERANGE;
		outcome = STORE_FAILED;
	} else {
		iov_copy_in(request->iov, request->nr_iov, 0,
			    object->content + request->offset, reply->count);
	}
	if (outcome != STORE_DONE)
		reply->count = 0;
	object_put(object);
	return outcome;
}

/* The lock is held for writing.  On DONE, *@old is the object replaced. */
static enum store_outcome swap_in(struct objects *objects, struct store_request *request,
				  struct object *object, struct object **old)
{
	struct node *before[LEVELS];
	struct node *node = list_find(objects, request->key, before);

	if (request->condition == STORE_IF_ABSENT && node)
		return STORE_REFUSED;
	if (request->condition == STORE_IF_MATCH &&
	    (!node || !object_has_tag(node->object, request->tag)))
		return STORE_REFUSED;
	object->version = ++objects->version;
	if (node) {
		*old = node->object;
		node->object = object;
		return STORE_DONE;
	}
	request->reply.error = list_insert(objects, request->key, object, before);
	return request->reply.error ? STORE_FAILED : STORE_DONE;
}

static enum store_outcome mem_put(struct objects *objects, struct store_request *request)
{
	struct object *object = object_new(request), *old = NULL;
	enum store_outcome outcome;

	if (!object) {
		request->reply.error = -ENOMEM;
		return STORE_FAILED;
	}
	pthread_rwlock_wrlock(&objects->lock);
	outcome = swap_in(objects, request, object, &old);
	if (outcome == STORE_DONE)
		object_tag(object->version, request->reply.tag);
	pthread_rwlock_unlock(&objects->lock);
	if (outcome != STORE_DONE)
		old = object;
	if (old)
		object_put(old);
	return outcome;
}

static enum store_outcome mem_delete(struct objects *objects, struct store_request *request)
{
	struct node *before[LEVELS], *node;
	struct object *object;
	unsigned int i;

	for (i = 0; i < request->nr_keys; i++) {
		object = NULL;
		pthread_rwlock_wrlock(&objects->lock);
		node = list_find(objects, request->keys[i], before);
		if (node) {
			object = node->object;
			list_remove(node, before);
		}
		pthread_rwlock_unlock(&objects->lock);
		if (object)
			object_put(object);
	}
	return STORE_DONE;
}

static int add_entry(struct store_listing *listing, const struct node *node)
{
	struct store_entry *entry = &listing->entries[listing->nr_entries];

	entry->key = strdup(node->key);
	if (!entry->key)
		return -ENOMEM;
	entry->size = node->object->count;
	entry->last_modified = node->object->last_modified;
	listing->nr_entries++;
	return 0;
}

static enum store_outcome mem_list(struct objects *objects, struct store_request *request)
{
	const char *prefix = request->key ? request->key : "";
	const char *after = request->after ? request->after : "";
	struct store_reply *reply = &request->reply;
	struct store_listing *listing = &reply->listing;
	struct node *before[LEVELS], *node;
	size_t length = strlen(prefix);

	listing->entries = calloc(STORE_LIST_MAX, sizeof(*listing->entries));
	if (!listing->entries) {
		reply->error = -ENOMEM;
		return STORE_FAILED;
	}
	pthread_rwlock_rdlock(&objects->lock);
	node = list_find(objects, strcmp(after, prefix) > 0 ? after : prefix, before);
	if (!node)
		node = before[0]->next[0];
	if (node && request->after && strcmp(node->key, after) == 0)
		node = node->next[0];
	for (; node && !reply->error; node = node->next[0]) {
		if (strncmp(node->key, prefix, length) != 0)
			break;
		listing->more = listing->nr_entries == STORE_LIST_MAX;
		if (listing->more)
			break;
		reply->error = add_entry(listing, node);
	}
	pthread_rwlock_unlock(&objects->lock);
	if (!reply->error)
		return STORE_DONE;
	store_listing_free(listing);
	return STORE_FAILED;
}

static void mem_submit(struct store *store, struct store_request *request)
{
	struct objects *objects = ((struct mem *)store)->objects;
	enum store_outcome outcome = STORE_DONE;

	switch (request->op) {
	case STORE_GET:
		outcome = mem_get(objects, request);
		break;
	case STORE_PUT:
		outcome = mem_put(objects, request);
		break;
	case STORE_DELETE:
		outcome = mem_delete(objects, request);
		break;
	case STORE_LIST:
		outcome = mem_list(objects, request);
		break;
	case STORE_LIST_UPLOADS:	/* an object is put at once: there are none */
	case STORE_ABORT_UPLOAD:
	case STORE_PROBE:
	case NR_STORE_OPS:
		break;
	}
	request->reply.date = (uint64_t)time(NULL);
	store_complete(request, outcome);
}

/* ---- opening and closing ------------------------------------------------------------ */

static void objects_release(struct objects *objects)
{
	struct node *node, *next;

	if (atomic_fetch_sub(&objects->handles, 1) != 1)
		return;
	for (node = objects->first; node; node = next) {
		next = node->next[0];
		if (node->object)
			object_put(node->object);
		free(node);
	}
	pthread_rwlock_destroy(&objects->lock);
	free(objects);
}

static void mem_close(struct store *store)
{
	struct mem *mem = (struct mem *)store;

	objects_release(mem->objects);
	store_deinit(store);
	free(mem);
}

static const struct store_ops mem_ops = {
	.name	= "mem",
	.submit = mem_submit,
	.forget = store_keeps_nothing,
	.close	= mem_close,
};

static int mem_open(const char *place, struct objects *objects, struct store **store)
{
	struct mem *mem = calloc(1, sizeof(*mem));

	if (!mem)
		return -ENOMEM;
	if (store_init(&mem->store, &mem_ops, place) < 0) {
		free(mem);
		return -ENOMEM;
	}
	atomic_fetch_add(&objects->handles, 1);
	mem->objects = objects;
	*store = &mem->store;
	return 0;
}

int store_mem_open(const char *place, struct store **store)
{
	struct objects *objects = calloc(1, sizeof(*objects));
	int error = -ENOMEM;

	if (!objects)
		return -ENOMEM;
	objects->first = node_new(NULL, LEVELS);
	if (!objects->first) {
		free(objects);
		return -ENOMEM;
	}
	atomic_init(&objects->handles, 1);
	pthread_rwlock_init(&objects->lock, NULL);
	random_seed(&objects->random, random_id());
	error = mem_open(place, objects, store);
	objects_release(objects);
	return error;
}

int store_mem_share(struct store *mem, struct store **store)
{
	return mem_open(mem->place, ((struct mem *)mem)->objects, store);
}
