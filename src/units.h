/* units.h: sizes and times as people write them. */
#ifndef OBJMAP_UNITS_H
#define OBJMAP_UNITS_H

#include <stddef.h>
#include <stdint.h>

/* "10G", "64K", "4096", "1.5T": bytes; K, M, G, T, P are powers of 1024, with
 * an optional "iB" or "B" after them.  Returns 0, -EINVAL (no size) or -ERANGE. */
int size_parse(const char *text, uint64_t *bytes);

/* "10s", "5min", "2h", "1d", "250ms"; a bare number is seconds; "inf" is
 * UINT64_MAX.  Nanoseconds.  Returns 0, -EINVAL or -ERANGE. */
int time_parse(const char *text, uint64_t *ns);

/* "1.5 GiB"; exact when it can be: 1048576 is "1 MiB".  Returns @text, which
 * has room for UNITS_TEXT bytes. */
#define UNITS_TEXT 32
const char *size_format(uint64_t bytes, char text[UNITS_TEXT]);
const char *time_format(uint64_t ns, char text[UNITS_TEXT]);

#endif
