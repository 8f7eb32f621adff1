/* crc32c.c: CRC-32C by the processor's own instruction where it has one, by
 * tables that take eight bytes at a time where it has not. */
#include <pthread.h>
#include <string.h>

#include "src/crc32c.h"

#define POLYNOMIAL 0x82f63b78u	/* 0x1edc6f41, bits reversed */

typedef uint32_t crc_function(uint32_t crc, const void *data, size_t count);

/* Filled once, by crc_prepare(). */
static uint32_t table[8][256];
static crc_function *fastest;
static pthread_once_t prepared = PTHREAD_ONCE_INIT;

/* ---- by the processor -------------------------------------------------------- */

#if defined(__x86_64__)
#include <nmmintrin.h>

#define HAVE_INSTRUCTION 1

static int has_instruction(void)
{
	return __builtin_cpu_supports("sse4.2");
}

__attribute__((target("sse4.2")))
static uint32_t crc_by_instruction(uint32_t crc, const void *data, size_t count)
{
	const uint8_t *byte = data;
	uint64_t state = (uint32_t)~crc, word;

	for (; count >= 8; count -= 8, byte += 8) {
		memcpy(&word, byte, 8);
		state = _mm_crc32_u64(state, word);
	}
	for (; count; count--)
		state = _mm_crc32_u8((uint32_t)state, *byte++);
	return ~(uint32_t)state;
}

#elif defined(__aarch64__)
#include <arm_acle.h>
#include <sys/auxv.h>
#include <asm/hwcap.h>

#define HAVE_INSTRUCTION 1

static int has_instruction(void)
{
	return (getauxval(AT_HWCAP) & HWCAP_CRC32) != 0;
}

__attribute__((target("+crc")))
static uint32_t crc_by_instruction(uint32_t crc, const void *data, size_t count)
{
	const uint8_t *byte = data;
	uint32_t state = ~crc;
	uint64_t word;

	for (; count >= 8; count -= 8, byte += 8) {
		memcpy(&word, byte, 8);
		state = __crc32cd(state, word);
	}
	for (; count; count--)
		state = __crc32cb(state, *byte++);
	return ~state;
}
#endif

/* ---- by table ------------------------------------------------------------------ */

/* table[k][b] is the CRC of byte b with k zero bytes after it. */
static void table_fill(void)
{
	for (uint32_t b = 0; b < 256; b++) {
		uint32_t crc = b;

		for (int bit = 0; bit < 8; bit++)
			crc = (crc >> 1) ^ (crc & 1 ? POLYNOMIAL : 0);
		table[0][b] = crc;
	}
	for (int k = 1; k < 8; k++)
		for (uint32_t b = 0; b < 256; b++)
			table[k][b] = (table[k - 1][b] >> 8) ^
				      table[0][table[k - 1][b] & 0xff];
}

static void crc_prepare(void)
{
	table_fill();
	fastest = crc32c_by_table;
#ifdef HAVE_INSTRUCTION
	if (has_instruction())
		fastest = crc_by_instruction;
#endif
}

uint32_t crc32c_by_table(uint32_t crc, const void *data, size_t count)
{
	const uint8_t *byte = data;

	pthread_once(&prepared, crc_prepare);
	crc = ~crc;
	for (; count >= 8; count -= 8, byte += 8) {
		crc ^= (uint32_t)byte[0] | (uint32_t)byte[1] << 8 |
		       (uint32_t)byte[2] << 16 | (uint32_t)byte[3] << 24;
		crc = table[7][crc & 0xff] ^ table[6][crc >> 8 & 0xff] ^
		      table[5][crc >> 16 & 0xff] ^ table[4][crc >> 24] ^
		      table[3][byte[4]] ^ table[2][byte[5]] ^
		      table[1][byte[6]] ^ table[0][byte[7]];
	}
	for (; count; count--)
		crc = (crc >> 8) ^ table[0][(crc ^ *byte++) & 0xff];
	return ~crc;
}

uint32_t crc32c(uint32_t crc, const void *data, size_t count)
{
	pthread_once(&prepared, crc_prepare);
	return fastest(crc, data, count);
}
