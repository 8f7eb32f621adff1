/* checksum.c: CRC32C (RFC 3720), eight bytes a step by tables made at first use. */
#include <pthread.h>
#include <string.h>

#include "contrib/rescue/format.h"

static uint32_t tables[8][256];
static pthread_once_t tables_once = PTHREAD_ONCE_INIT;

static void make_tables(void)
{
	unsigned int i, bit, t;
	uint32_t crc;

	for (i = 0; i < 256; i++) {
		for (crc = i, bit = 0; bit < 8; bit++)
			crc = crc >> 1 ^ (crc & 1 ? 0x82f63b78 : 0);
		tables[0][i] = crc;
	}
	for (t = 1; t < 8; t++)
		for (i = 0; i < 256; i++)
			tables[t][i] = tables[t - 1][i] >> 8 ^
				       tables[0][tables[t - 1][i] & 0xff];
}

uint32_t checksum(uint32_t crc, const void *bytes, size_t count)
{
	const uint8_t *p = bytes;

	pthread_once(&tables_once, make_tables);
	crc = ~crc;
	for (; count >= 8; count -= 8, p += 8) {
		crc ^= p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 |
		       (uint32_t)p[3] << 24;
		crc = tables[7][crc & 0xff] ^ tables[6][crc >> 8 & 0xff] ^
		      tables[5][crc >> 16 & 0xff] ^ tables[4][crc >> 24] ^
		      tables[3][p[4]] ^ tables[2][p[5]] ^ tables[1][p[6]] ^
		      tables[0][p[7]];
	}
	for (; count; count--, p++)
		crc = tables[0][(crc ^ *p) & 0xff] ^ crc >> 8;
	return ~crc;
}
