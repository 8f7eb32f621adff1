/* utf8.h: what others say, made fit for JSON, which takes UTF-8 only. */
#ifndef OBJMAP_UTF8_H
#define OBJMAP_UTF8_H

/* Makes a '?' of each byte of @text that belongs to no character of UTF-8, as those of
 * one that was cut, or to a control character above 0x7f. */
void utf8_mend(char *text);

#endif
