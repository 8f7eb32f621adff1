/* zeros.h: knowing zeros when one sees them. */
#ifndef OBJMAP_ZEROS_H
#define OBJMAP_ZEROS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* Whether @count bytes are all zero. */
static inline bool bytes_are_zero(const void *bytes, size_t count)
{
	static const uint8_t zeros[16];
	const uint8_t *p = bytes;

	/* Each byte is compared with the one 16 before it: equal all along, and
	 * the first 16 are zero. */
	if (count <= sizeof(zeros))
		return memcmp(p, zeros, count) == 0;
	return memcmp(p, zeros, sizeof(zeros)) == 0 &&
	       memcmp(p, p + sizeof(zeros), count - sizeof(zeros)) == 0;
}

#endif
