/* utf8.c: what others say, made fit for JSON, which takes UTF-8 only. */
#include "src/utf8.h"
#include "src/volume/sections.h"

#define LONGEST 4u	/* bytes of a character */

/* The bytes of the character at @text; 0: there is none. */
static size_t length_of(const char *text)
{
	for (size_t length = 1; length <= LONGEST && text[length - 1]; length++)
		if (text_is_printable(text, length))
			return length;
	return 0;
}

void utf8_mend(char *text)
{
	size_t length;

	while (*text) {
		length = (unsigned char)*text < 0x80 ? 1 : length_of(text);
		if (length)
			text += length;
		else
			*text++ = '?';
	}
}
