/* images.h: volumes made by hand, object by object, for tests of what reads
 * them: no engine stands between. */
#ifndef OBJMAP_TESTS_IMAGES_H
#define OBJMAP_TESTS_IMAGES_H

#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#include "src/crc32c.h"
#include "src/log.h"
#include "src/random.h"
#include "src/volume/snapshot.h"
#include "src/volume/volume.h"

#define IMAGE_CHUNK 65536u

struct image {
	struct store *store;
	struct stored_head stored;
	struct head next;	/* being prepared, epoch and writer new */
};

static inline void image_put(struct store *store, const char *key, const void *data,
			     size_t count, const struct store_metadata *metadata)
{
	struct iovec iov = { (void *)(uintptr_t)data, count };
	struct store_request request = { .key = key, .count = count, .iov = &iov,
					 .nr_iov = 1, .metadata = metadata };

	cr_assert_eq(store_wait(store, STORE_PUT, &request), STORE_DONE, "%s", key);
}

static inline void image_delete(struct store *store, const char *key)
{
	struct store_request request = { .keys = &key, .nr_keys = 1 };

	cr_assert_eq(store_wait(store, STORE_DELETE, &request), STORE_DONE);
}

static inline bool image_has(struct store *store, const char *key)
{
	void *data;
	size_t count;
	enum store_outcome outcome = store_get_object(store, key, CAUSE_GC, 1 << 20,
						      &data, &count, NULL);

	free(data);
	return outcome == STORE_DONE;
}

static inline void image_begin(struct image *image)
{
	cr_assert_eq(head_read(image->store, &image->stored), 0);
	image->next = image->stored.head;
	image->next.epoch++;
}

static inline void image_new(struct image *image, struct store *store,
			     uint64_t nr_chunks)
{
	struct volume_create_options options = { .size = nr_chunks * IMAGE_CHUNK,
						 .chunk_size = IMAGE_CHUNK };

	cr_assert_eq(volume_create(store, &options), 0);
	image->store = store;
	image_begin(image);
}

/* Stores a chunk filled by @seed and returns its ref. */
static inline struct ref image_chunk(struct image *image, uint32_t chunk, uint64_t seed)
{
	static uint64_t content[IMAGE_CHUNK / 8];
	struct ref ref = { image->next.epoch, image->next.writer, IMAGE_CHUNK, 0 };
	struct store_metadata metadata = { 0 };
	char key[VOLUME_KEY_MAX], text[FRAMES_TEXT_MAX];
	struct frame_table table;
	struct random random;
	uint32_t sum;
	size_t i;

	random_seed(&random, seed);
	for (i = 0; i < IMAGE_CHUNK / 8; i++)
		content[i] = random_next(&random);
	sum = crc32c(0, content, IMAGE_CHUNK);
	frame_table_fill(&table, &sum, 1, IMAGE_CHUNK);
	uuid_format(image->next.uuid, text);
	store_metadata_add(&metadata, METADATA_VOLUME, text);
	frame_table_format(&table, text);
	store_metadata_add(&metadata, METADATA_FRAMES, text);
	key_chunk(key, chunk, ref.epoch, ref.writer);
	image_put(image->store, key, content, IMAGE_CHUNK, &metadata);
	ref.crc = frame_table_crc(&table);
	return ref;
}

/* Lets @chunk be @ref in the next head's recent refs. */
static inline void image_recent(struct image *image, uint32_t chunk, struct ref ref)
{
	struct head *head = &image->next;
	unsigned int i = 0;

	while (i < head->nr_recent && head->recent[i].chunk < chunk)
		i++;
	if (i == head->nr_recent || head->recent[i].chunk != chunk) {
		memmove(&head->recent[i + 1], &head->recent[i],
			(head->nr_recent - i) * sizeof(head->recent[0]));
		head->nr_recent++;
	}
	head->recent[i] = (struct recent_ref){ chunk, ref };
}

static inline void image_write(struct image *image, uint32_t chunk, uint64_t seed)
{
	image_recent(image, chunk, image_chunk(image, chunk, seed));
}

/* Stores a node with @nr refs from @first on and returns its ref. */
static inline struct ref image_node(struct image *image, unsigned int level,
				    uint32_t node, uint32_t first,
				    const struct ref *some, unsigned int nr)
{
	static struct ref refs[NODE_REFS];
	static uint8_t bytes[NODE_BYTES];
	char key[VOLUME_KEY_MAX];

	memset(refs, 0, sizeof(refs));
	memcpy(refs + first, some, nr * sizeof(*some));
	node_encode(refs, bytes);
	key_node(key, level, node, image->next.epoch, image->next.writer);
	image_put(image->store, key, bytes, NODE_BYTES, NULL);
	return (struct ref){ image->next.epoch, image->next.writer, NODE_BYTES,
			     crc32c(0, bytes, NODE_BYTES) };
}

/* Swaps the next head in; returns what came of it. */
static inline int image_try_commit(struct image *image)
{
	struct swap swap = { .store = image->store, .base = image->stored,
			     .next = image->next, .by_writer = true };
	int error = head_swap(&swap);

	image_begin(image);
	return error;
}

static inline void image_commit(struct image *image)
{
	cr_assert_eq(image_try_commit(image), 0);
}

/* What a claim does to head. */
static inline void image_claim(struct image *image)
{
	image_begin(image);
	image->next = image->stored.head;
	head_pass_on(&image->next, random_id());
	image_commit(image);
}

#endif
