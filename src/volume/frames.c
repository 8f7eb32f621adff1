/* frames.c: frame tables, and the metadata of a chunk that carries them. */
#include "src/volume/sections.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include <openssl/evp.h>

#include "src/crc32c.h"
#include "src/volume/bytes.h"

#define ENTRY_BYTES 8u

void frame_table_fill(struct frame_table *table, const uint32_t *sums,
		      uint32_t nr_frames, uint32_t frame_size)
{
	uint32_t i;

	table->nr_frames = nr_frames;
	for (i = 0; i < nr_frames; i++) {
		table->frames[i].stored = frame_size;
		table->frames[i].crc = sums[i];
	}
}

static size_t table_encode(const struct frame_table *table,
			   uint8_t bytes[FRAMES_MAX * ENTRY_BYTES])
{
	uint32_t i;

	for (i = 0; i < table->nr_frames; i++) {
		put_u32(bytes + i * ENTRY_BYTES, table->frames[i].stored);
		put_u32(bytes + i * ENTRY_BYTES + 4, table->frames[i].crc);
	}
	return table->nr_frames * ENTRY_BYTES;
}

uint32_t frame_table_crc(const struct frame_table *table)
{
	uint8_t bytes[FRAMES_MAX * ENTRY_BYTES];
	size_t count = table_encode(table, bytes);

	return crc32c(0, bytes, count);
}

void frame_table_format(const struct frame_table *table, char *text)
{
	uint8_t bytes[FRAMES_MAX * ENTRY_BYTES];
	size_t count = table_encode(table, bytes);

	EVP_EncodeBlock((unsigned char *)text, bytes, (int)count);
}

int frame_table_parse(const char *text, uint32_t nr_frames,
		      struct frame_table *table)
{
	/* EVP_DecodeBlock writes whole groups of 3 bytes. */
	uint8_t bytes[(FRAMES_TEXT_MAX / 4) * 3];
	char again[FRAMES_TEXT_MAX];
	size_t length = strlen(text);
	uint32_t i;

	if (!nr_frames || nr_frames > FRAMES_MAX ||
	    length != (nr_frames * ENTRY_BYTES + 2) / 3 * 4)
		return -EBADMSG;
	if (EVP_DecodeBlock(bytes, (const unsigned char *)text, (int)length) < 0)
		return -EBADMSG;
	table->nr_frames = nr_frames;
	for (i = 0; i < nr_frames; i++) {
		table->frames[i].stored = get_u32(bytes + i * ENTRY_BYTES);
		table->frames[i].crc = get_u32(bytes + i * ENTRY_BYTES + 4);
	}
	/* OpenSSL forgives blanks, wrong padding and stray bits at the end; there
	 * is one way to write a table, and only that is one. */
	frame_table_format(table, again);
	return strcmp(text, again) ? -EBADMSG : 0;
}

/* ---- uuid --------------------------------------------------------------------- */

void uuid_format(const uint8_t uuid[16], char text[37])
{
	unsigned int i;

	for (i = 0; i < 16; i++) {
		if (i == 4 || i == 6 || i == 8 || i == 10)
			*text++ = '-';
		text += snprintf(text, 3, "%02x", uuid[i]);
	}
}

static int hex_digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	return -1;
}

bool uuid_parse(const char *text, uint8_t uuid[16])
{
	unsigned int i;
	int high, low;

	if (strlen(text) != 36)
		return false;
	for (i = 0; i < 16; i++, text += 2) {
		if ((i == 4 || i == 6 || i == 8 || i == 10) && *text++ != '-')
			return false;
		high = hex_digit(text[0]);
		low = high < 0 ? -1 : hex_digit(text[1]);
		if (low < 0)
			return false;
		uuid[i] = (uint8_t)(high << 4 | low);
	}
	return true;
}
