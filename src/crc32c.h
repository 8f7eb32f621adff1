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

/* Goes on with the CRCs of a content's pieces of @unit bytes each, of which @sums[0]
 * is the first's: @count bytes at @data are those from byte @at of the content on. */
void crc32c_sum(uint32_t *sums, uint32_t unit, uint64_t at, const void *data,
		size_t count);
/* The CRC of the whole of such a content, @count bytes. */
uint32_t crc32c_of_sums(const uint32_t *sums, uint32_t unit, uint64_t count);

#endif
