/* volume.c: head, snapshots, and the walk down the map.
 *
 * Of the map only one node a level is in memory at any time. */
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "contrib/rescue/volume.h"

#define EPOCH_NONCE "%016" PRIx64 "-%016" PRIx64

__attribute__((format(printf, 3, 4)))
static int fault(const struct volume *volume, const char *key, const char *format, ...)
{
	char text[2 * REASON_SIZE];
	va_list arguments;

	va_start(arguments, format);
	vsnprintf(text, sizeof(text), format, arguments);
	va_end(arguments);
	fprintf(stderr, "objmap-rescue: %s/%s: %s\n", volume->bucket_name, key, text);
	return -1;
}

/* PREFIX/FORMAT... */
__attribute__((format(printf, 3, 4)))
static bool make_key(char key[KEY_SIZE], const char *prefix, const char *format, ...)
{
	int length = snprintf(key, KEY_SIZE, "%s%s", prefix, *prefix ? "/" : "");
	va_list arguments;

	if (length < 0 || length >= KEY_SIZE)
		return false;
	va_start(arguments, format);
	length += vsnprintf(key + length, KEY_SIZE - (size_t)length, format, arguments);
	va_end(arguments);
	return length < KEY_SIZE;
}

static const char *prefix_of(const struct volume *volume, const struct ref *ref)
{
	const char *origin = origin_of(&volume->head, ref->epoch);

	return origin ? origin : volume->prefix;
}

bool chunk_key(const struct volume *volume, uint64_t index, const struct ref *ref,
	       char key[KEY_SIZE])
{
	return make_key(key, prefix_of(volume, ref), "chunk/%02x/%08x-" EPOCH_NONCE,
			(unsigned int)(index & 0xff), (unsigned int)index, ref->epoch,
			ref->writer);
}

/* ---- head and snapshots ---------------------------------------------------------------- */

/* GETs an object of at most @room bytes that has to be there. */
static int get_whole(const struct volume *volume, const char *key,
		     struct object *object, size_t room)
{
	object->room = room;
	object->bytes = malloc(room);
	if (!object->bytes)
		return fault(volume, key, "no memory for it");
	if (bucket_get(volume->bucket, key, object) == OBJECT_WHOLE)
		return 0;
	fault(volume, key, "%s", object->why);
	free(object->bytes);
	return -1;
}

/* What does not parse is fetched once more: it may have been damaged on the way. */
static int get_head(const struct volume *volume, const char *key, struct head *head)
{
	char why[REASON_SIZE];
	struct object object;
	int error = -1, tries;

	for (tries = 0; error && tries < 2; tries++) {
		if (get_whole(volume, key, &object, HEAD_SIZE_MAX))
			return -1;
		error = parse_head(object.bytes, object.count, head, why);
		free(object.bytes);
	}
	return error ? fault(volume, key, "%s", why) : 0;
}

/* Calls @each for the entries of the snapshot list, if there is one. */
static int each_snapshot(const struct volume *volume, const struct head *head,
			 int (*each)(const struct snapshot *entry, void *context),
			 void *context)
{
	char key[KEY_SIZE], why[REASON_SIZE] = "";
	struct object object;
	int result = -1, tries;

	if (!head->has_snapshots)
		return 0;
	if (!make_key(key, volume->prefix, "snapshot/list-" EPOCH_NONCE,
		      head->list_epoch, head->list_nonce))
		return fault(volume, volume->prefix, "too long for a prefix");
	for (tries = 0; result < 0 && tries < 2; tries++) {
		if (get_whole(volume, key, &object, LIST_SIZE_MAX))
			return -1;
		result = parse_list(object.bytes, object.count, each, context, why);
		free(object.bytes);
	}
	return result < 0 ? fault(volume, key, "%s", why) : result;
}

struct wanted {
	const char *name;
	struct snapshot found;
};

static int take_wanted(const struct snapshot *entry, void *context)
{
	struct wanted *wanted = context;

	if (entry->is_clone || strlen(wanted->name) != entry->name_length ||
	    memcmp(wanted->name, entry->name, entry->name_length) != 0)
		return 0;
	wanted->found = *entry;
	return 1;
}

/* Puts the snapshot's head in the place of the volume's. */
static int open_snapshot(struct volume *volume, const char *name)
{
	struct wanted wanted = { .name = name };
	int got = each_snapshot(volume, &volume->head, take_wanted, &wanted);
	struct head *body;
	char key[KEY_SIZE];
	int error = -1;

	if (got < 0)
		return -1;
	if (!got)
		return fault(volume, volume->prefix, "it has no snapshot %s; --list shows "
			     "those it has", name);
	body = malloc(sizeof(*body));
	if (!body)
		return fault(volume, volume->prefix, "no memory");
	if (!make_key(key, volume->prefix, "snapshot/body-" EPOCH_NONCE,
		      wanted.found.body_epoch, wanted.found.body_nonce) ||
	    get_head(volume, key, body))
		goto out;
	if (body->epoch != wanted.found.epoch || body->size != wanted.found.size ||
	    memcmp(body->uuid, volume->head.uuid, sizeof(body->uuid)) != 0) {
		fault(volume, key, "it is not the head that snapshot %s pins", name);
		goto out;
	}
	volume->head = *body;
	volume->pinned = true;
	error = 0;
out:
	free(body);
	return error;
}

int volume_open(struct volume *volume, const char *snapshot)
{
	char key[KEY_SIZE];

	volume->pinned = false;
	if (!make_key(key, volume->prefix, "head"))
		return fault(volume, volume->prefix, "too long for a prefix");
	if (get_head(volume, key, &volume->head))
		return -1;
	volume->head_nonce = volume->head.nonce;
	if (volume->head.deleted)
		return fault(volume, volume->prefix, "this volume was deleted");
	return snapshot ? open_snapshot(volume, snapshot) : 0;
}

bool volume_has_moved(const struct volume *volume)
{
	struct head *head = malloc(sizeof(*head));
	char key[KEY_SIZE];
	bool moved;

	moved = head && make_key(key, volume->prefix, "head") &&
		get_head(volume, key, head) == 0 && head->nonce != volume->head_nonce;
	free(head);
	return moved;
}

static int print_entry(const struct snapshot *entry, void *context)
{
	if (entry->is_clone)
		printf("clone\t%.*s\tof %.*s\tepoch %" PRIu64 "\t%" PRIu64 " bytes\n",
		       (int)entry->prefix_length, entry->prefix,
		       (int)entry->name_length, entry->name, entry->epoch, entry->size);
	else
		printf("snapshot\t%.*s\tcreated %" PRIu64 "\tepoch %" PRIu64 "\t%" PRIu64
		       " bytes\n", (int)entry->name_length, entry->name, entry->created,
		       entry->epoch, entry->size);
	return 0;
}

int volume_list(const struct volume *volume)
{
	char uuid[UUID_TEXT_SIZE];

	uuid_text(volume->head.uuid, uuid);
	printf("volume\t%s\tcommitted %" PRIu64 "\tepoch %" PRIu64 "\t%" PRIu64 " bytes\n",
	       uuid, volume->head.committed, volume->head.epoch, volume->head.size);
	return each_snapshot(volume, &volume->head, print_entry, NULL);
}

/* ---- the walk ---------------------------------------------------------------------------- */

struct walk {
	const struct volume *volume;
	unsigned int nr_recent_past;	/* recent refs go before what nodes say */
	int (*take)(const struct piece *piece, void *context);
	void *context;
};

static int give(struct walk *walk, int kind, uint64_t first, uint64_t count,
		const struct ref *ref)
{
	struct piece piece = { .first = first, .count = count };

	piece.kind = kind;
	if (ref)
		piece.ref = *ref;
	return count ? walk->take(&piece, walk->context) : 0;
}

/* What the map says of @count chunks from @first, with the recent refs laid over. */
static int lay_over(struct walk *walk, int kind, uint64_t first, uint64_t count,
		    const struct ref *ref)
{
	const struct head *head = &walk->volume->head;
	uint64_t end = first + count < head->nr_chunks ? first + count : head->nr_chunks;
	const struct recent *recent;
	int result;

	while (walk->nr_recent_past < head->nr_recent) {
		recent = &head->recent[walk->nr_recent_past];
		if (recent->chunk >= end)
			break;
		result = give(walk, kind, first, recent->chunk - first, ref);
		if (!result)
			result = give(walk, recent->ref.epoch ? PIECE_CHUNK : PIECE_HOLE,
				      recent->chunk, 1, &recent->ref);
		if (result)
			return result;
		first = recent->chunk + 1;
		walk->nr_recent_past++;
	}
	return give(walk, kind, first, end - first, ref);
}

/* The refs of a node.  1: its subtree is lost; -1: the store is. */
static int get_node(const struct volume *volume, unsigned int level, uint64_t number,
		    const struct ref *ref, struct ref refs[NODE_REFS])
{
	uint64_t span = (uint64_t)volume->head.chunk_size << (10 * (level + 1));
	uint64_t begin = number * span, end = begin + span;
	uint8_t bytes[NODE_SIZE];
	struct object object = { .bytes = bytes, .room = NODE_SIZE };
	enum outcome outcome;
	char key[KEY_SIZE];
	int tries;

	if (!make_key(key, prefix_of(volume, ref), "map/%x/%08x-" EPOCH_NONCE, level,
		      (unsigned int)number, ref->epoch, ref->writer))
		return fault(volume, volume->prefix, "too long for a prefix");
	for (tries = 0; tries < 2; tries++) {
		outcome = bucket_get(volume->bucket, key, &object);
		if (outcome == STORE_LOST)
			return fault(volume, key, "%s", object.why);
		if (outcome != OBJECT_WHOLE)
			break;
		if (object.count != NODE_SIZE ||
		    checksum(0, bytes, NODE_SIZE) != ref->crc)
			snprintf(object.why, REASON_SIZE, "it has not the length and "
				 "checksum that its ref names");
		else if (!parse_node(bytes, &volume->head, ref, level, number, refs,
				     object.why))
			return 0;
	}
	if (end > volume->head.size)
		end = volume->head.size;
	fault(volume, key, "%s; with it goes the way to bytes %" PRIu64 " to %" PRIu64,
	      object.why, begin, end - 1);
	return 1;
}

/* All chunks below the refs of a node of @level, the first of which is @first. */
static int walk_refs(struct walk *walk, unsigned int level, uint64_t first,
		     const struct ref *refs, unsigned int count)
{
	uint64_t span = 1ull << (10 * level), number;
	struct ref *below = NULL;
	unsigned int i;
	int result = 0;

	if (level) {
		below = malloc(NODE_REFS * sizeof(*below));
		if (!below)
			return fault(walk->volume, walk->volume->prefix, "no memory");
	}
	for (i = 0; i < count && !result; i++) {
		number = first + i;
		if (number * span >= walk->volume->head.nr_chunks)
			break;
		if (!refs[i].epoch || !level) {
			result = lay_over(walk, refs[i].epoch ? PIECE_CHUNK : PIECE_HOLE,
					  number * span, span, &refs[i]);
			continue;
		}
		result = get_node(walk->volume, level - 1, number, &refs[i], below);
		if (result == 1)
			result = lay_over(walk, PIECE_LOST, number * span, span, NULL);
		else if (!result)
			result = walk_refs(walk, level - 1, number * NODE_REFS, below,
					   NODE_REFS);
	}
	free(below);
	return result;
}

int volume_walk(const struct volume *volume,
		int (*take)(const struct piece *piece, void *context), void *context)
{
	struct walk walk = { .volume = volume, .take = take, .context = context };

	return walk_refs(&walk, volume->head.levels, 0, volume->head.root,
			 volume->head.nr_root);
}
