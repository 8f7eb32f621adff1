/* utf8.c: what of a text is UTF-8. */
#include <string.h>

#include "src/utf8.h"

size_t utf8_next(const void *text, size_t length, uint32_t *point)
{
	static const uint32_t least[5] = { 0, 0, 0x80, 0x800, 0x10000 };
	const uint8_t *at = text;
	size_t count, i;

	if (at[0] < 0x80) {
		*point = at[0];
		return 1;
	}
	if (at[0] >= 0xc2 && at[0] <= 0xdf)
		count = 2;
	else if ((at[0] & 0xf0) == 0xe0)
		count = 3;
	else if (at[0] >= 0xf0 && at[0] <= 0xf4)
		count = 4;
	else
		return 0;
	if (count > length)
		return 0;
	*point = at[0] & (0x7f >> count);
	for (i = 1; i < count; i++) {
		if ((at[i] & 0xc0) != 0x80)
			return 0;
		*point = *point << 6 | (at[i] & 0x3f);
	}
	if (*point < least[count] || *point > 0x10ffff ||
	    (*point >= 0xd800 && *point <= 0xdfff))
		return 0;
	return count;
}

bool utf8_is_text(const void *text, size_t count)
{
	const uint8_t *at = text;
	uint32_t point;
	size_t bytes;

	for (; count; at += bytes, count -= bytes) {
		bytes = utf8_next(at, count, &point);
		if (!bytes || !point)
			return false;
	}
	return true;
}

size_t utf8_cut(const char *text, size_t most)
{
	size_t count = strnlen(text, most + 1);

	if (count <= most)
		return count;
	for (count = most; count && ((unsigned char)text[count] & 0xc0) == 0x80; )
		count--;
	return count;
}

void utf8_mend(char *text)
{
	size_t left = strlen(text), bytes;
	uint32_t point;

	for (; left; text += bytes, left -= bytes) {
		bytes = utf8_next(text, left, &point);
		if (bytes && (point < 0x80 || point >= 0xa0))
			continue;
		bytes = 1;
		*text = '?';
	}
}
