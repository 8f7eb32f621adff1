/* flat.c: what a volume shall read as, as a flat image. */
#include "tests/volume/flat.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "src/stage/stage.h"

uint32_t image_nr(const struct image *image)
{
	return volume_nr_chunks(image->size, IMAGE_CHUNK);
}

/* Bytes of chunk @chunk below the end. */
static uint32_t bytes_of(const struct image *image, uint32_t chunk)
{
	uint64_t left = image->size - (uint64_t)chunk * IMAGE_CHUNK;

	return left < IMAGE_CHUNK ? (uint32_t)left : IMAGE_CHUNK;
}

bool image_equal(const struct image *a, const struct image *b)
{
	uint32_t nr = image_nr(a);

	return a->size == b->size &&
	       memcmp(a->value, b->value, nr * sizeof(a->value[0])) == 0 &&
	       memcmp(a->upto, b->upto, nr * sizeof(a->upto[0])) == 0;
}

void image_cut(struct image *image, uint64_t size)
{
	uint32_t old = image_nr(image), nr, i;

	image->size = size;
	nr = image_nr(image);
	for (i = nr; i < old; i++)
		image->value[i] = image->upto[i] = 0;
	if (image->upto[nr - 1] > bytes_of(image, nr - 1))
		image->upto[nr - 1] = bytes_of(image, nr - 1);
	/* What fewer than 8 bytes leave over is not read back. */
	if (image->upto[nr - 1] < 8)
		memset((char *)&image->value[nr - 1] + image->upto[nr - 1], 0,
		       8 - image->upto[nr - 1]);
}

uint64_t image_random_size(struct random *random)
{
	uint64_t nr = 1 + random_below(random, 24);

	if (random_below(random, 40) == 0)
		nr = 1000 + random_below(random, IMAGE_CHUNKS_MAX - 1000);
	if (random_below(random, 2))
		return nr * IMAGE_CHUNK;
	return (nr - 1) * IMAGE_CHUNK + 1 + random_below(random, IMAGE_CHUNK);
}

/* ---- reading and writing -------------------------------------------------------- */

static void fill(unsigned char *bytes, uint64_t value, size_t count)
{
	size_t i;

	for (i = 0; i + 8 <= count; i += 8)
		memcpy(bytes + i, &value, 8);
	memcpy(bytes + i, &value, count - i);
}

static bool all_zero(const unsigned char *bytes, size_t count)
{
	return !count || (!bytes[0] && !memcmp(bytes, bytes + 1, count - 1));
}

/* Finds out what chunk holds that was read as @bytes. */
static int recognize(const unsigned char *bytes, uint32_t count, uint64_t *value,
		     uint32_t *upto)
{
	unsigned char word[8] = { 0 };
	uint32_t i;

	memcpy(word, bytes, count < 8 ? count : 8);
	*value = 0;
	*upto = 0;
	if (!word[0])
		return all_zero(bytes, count) ? 0 : -EILSEQ;
	memcpy(value, word, 8);
	/* Each byte is the one 8 before it: the value to the end. */
	if (count > 8 && !memcmp(bytes, bytes + 8, count - 8)) {
		*upto = count;
		return 0;
	}
	for (i = 0; i < count && bytes[i] && bytes[i] == word[i % 8]; i++)
		;
	*upto = i;
	return all_zero(bytes + i, count - i) ? 0 : -EILSEQ;
}

int image_read(struct volume *volume, struct image *image)
{
	static unsigned char bytes[IMAGE_CHUNK];
	uint32_t i, nr, count;
	int error;

	memset(image, 0, sizeof(*image));
	image->size = stage_size(volume_stage(volume));
	nr = image_nr(image);
	for (i = 0; i < nr; i++) {
		count = bytes_of(image, i);
		error = stage_read(volume_stage(volume), bytes, count,
				   (uint64_t)i * IMAGE_CHUNK, 0);
		if (!error)
			error = recognize(bytes, count, &image->value[i],
					  &image->upto[i]);
		if (error)
			return error;
	}
	return 0;
}

int image_write(struct image *image, struct volume *volume, uint32_t chunk,
		uint64_t value)
{
	static unsigned char bytes[IMAGE_CHUNK];
	uint32_t count = bytes_of(image, chunk);
	uint64_t offset = (uint64_t)chunk * IMAGE_CHUNK;
	int error;

	fill(bytes, value, count);
	if (value)
		error = stage_write(volume_stage(volume), bytes, count, offset, 0);
	else
		error = stage_zero(volume_stage(volume), count, offset,
				   REQUEST_MAY_TRIM);
	if (error)
		return error;
	/* What fewer than 8 bytes leave over is not read back. */
	image->value[chunk] = 0;
	memcpy(&image->value[chunk], &value, count < 8 ? count : 8);
	image->upto[chunk] = value ? count : 0;
	return 0;
}

/* ---- sets ---------------------------------------------------------------------------- */

void images_add(struct images *images, const struct image *image)
{
	if (images_have(images, image))
		return;
	if (images->nr == images->room) {
		images->room = images->room ? 2 * images->room : 16;
		images->list = realloc(images->list, images->room * sizeof(*image));
		if (!images->list)
			abort();
	}
	images->list[images->nr++] = *image;
}

bool images_have(const struct images *images, const struct image *image)
{
	unsigned int i;

	for (i = 0; i < images->nr; i++)
		if (image_equal(&images->list[i], image))
			return true;
	return false;
}
