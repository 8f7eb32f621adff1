/* utf8.h: texts for NBD, JSON and the volume's format, which know no other encoding. */
#ifndef OBJMAP_UTF8_H
#define OBJMAP_UTF8_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Bytes of the character that the @count bytes at @text begin with, and its code point.
 * 0: it is none (cut, overlong, a surrogate, beyond Unicode). */
size_t utf8_next(const void *text, size_t count, uint32_t *point);

/* Whether the @count bytes at @text are UTF-8 without a zero byte. */
bool utf8_is_text(const void *text, size_t count);

/* Bytes of @text (UTF-8), at most @most, that end with a whole character. */
size_t utf8_cut(const char *text, size_t most);

/* Makes a '?' of each byte of @text that belongs to no character, as those of one that
 * was cut, or to a control character above 0x7f. */
void utf8_mend(char *text);

#endif
