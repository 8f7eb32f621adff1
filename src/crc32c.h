/* crc32c.h: CRC-32C (Castagnoli), as in RFC 3720 appendix B.4. */
#ifndef OBJMAP_CRC32C_H
#define OBJMAP_CRC32C_H

#include <stddef.h>
#include <stdint.h>

/* The CRC of @count bytes at @data, going on from @crc (0 at the start):
 * crc32c(crc32c(0, a, n), b, m) is the CRC of a and b one after the other. */
uint32_t crc32c(uint32_t crc, const void *data, size_t count);

/* The same without the processor's own instruction: for machines that have
 * none, and as a second opinion. */
uint32_t crc32c_by_table(uint32_t crc, const void *data, size_t count);

#endif
