/* flat.h: what a volume shall read as, as a flat image: the walk's oracle. */
#ifndef OBJMAP_TESTS_FLAT_H
#define OBJMAP_TESTS_FLAT_H

#include "src/random.h"
#include "src/volume/volume.h"

#define IMAGE_CHUNK (64u << 10)
#define IMAGE_CHUNKS_MAX 1100u	/* more than the root of a map holds */

/* Each chunk is one 8-byte value again and again up to a byte, zeros after it. */
struct image {
	uint64_t size;				/* bytes */
	uint64_t value[IMAGE_CHUNKS_MAX];	/* 0: zeros; else no byte of it is 0 */
	uint32_t upto[IMAGE_CHUNKS_MAX];	/* bytes of the value */
};

uint32_t image_nr(const struct image *image);	/* chunks */
bool image_equal(const struct image *a, const struct image *b);
/* As a resize to @size does. */
void image_cut(struct image *image, uint64_t size);
/* Mostly few chunks, sometimes more than a root holds; often not a whole one at
 * the end. */
uint64_t image_random_size(struct random *random);

/* Reads all of @volume.  -EILSEQ: a chunk that was never written so; or the
 * volume's error. */
int image_read(struct volume *volume, struct image *image);
/* Fills chunk @chunk with @value (0: zeroes it), in @volume and, when that was
 * done, in @image. */
int image_write(struct image *image, struct volume *volume, uint32_t chunk,
		uint64_t value);

/* A set. */
struct images {
	unsigned int nr, room;
	struct image *list;
};
void images_add(struct images *images, const struct image *image);
bool images_have(const struct images *images, const struct image *image);

#endif
