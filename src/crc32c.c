/* crc32c.c: CRC-32C by the processor's own instruction where it has one, by
 * tables that take eight bytes at a time where it has not.
 *
 * The instruction takes three cycles, but a new one can begin in each: so three
 * lanes of a block are done side by side, and put together by what so many zero
 * bytes would have made of the earlier ones (which is linear). */
#include <pthread.h>
#include <string.h>

#include "src/crc32c.h"

#define POLYNOMIAL 0x82f63b78u	/* 0x1edc6f41, bits reversed */
#define LANE	   1024u	/* bytes; a multiple of 8 */

typedef uint32_t crc_function(uint32_t crc, const void *data, size_t count);

/* Filled once, by crc_prepare(). */
static uint32_t table[8][256];
static uint32_t lane_table[4][256];	/* [k][b]: byte k of a state is b, and LANE
					 * zero bytes follow */
static crc_function *fastest;
static pthread_once_t prepared = PTHREAD_ONCE_INIT;

/* ---- by the processor -------------------------------------------------------- */

#if defined(__x86_64__)
#include <nmmintrin.h>

#define HAVE_INSTRUCTION 1
#define WITH_INSTRUCTION __attribute__((target("sse4.2")))
#define CRC_WORD(state, word) ((uint32_t)_mm_crc32_u64(state, word))
#define CRC_BYTE(state, byte) _mm_crc32_u8(state, byte)

static int has_instruction(void)
{
	return __builtin_cpu_supports("sse4.2");
}

#elif defined(__aarch64__)
#include <arm_acle.h>
#include <sys/auxv.h>
#include <asm/hwcap.h>

#define HAVE_INSTRUCTION 1
#define WITH_INSTRUCTION __attribute__((target("+crc")))
#define CRC_WORD(state, word) __crc32cd(state, word)
#define CRC_BYTE(state, byte) __crc32cb(state, byte)

static int has_instruction(void)
{
	return (getauxval(AT_HWCAP) & HWCAP_CRC32) != 0;
}
#endif

#ifdef HAVE_INSTRUCTION
static uint64_t word_at(const uint8_t *byte)
{
	uint64_t word;

	memcpy(&word, byte, 8);
	return word;
}

/* What LANE zero bytes make of @state. */
static uint32_t after_a_lane(uint32_t state)
{
	return lane_table[0][state & 0xff] ^ lane_table[1][state >> 8 & 0xff] ^
	       lane_table[2][state >> 16 & 0xff] ^ lane_table[3][state >> 24];
}

WITH_INSTRUCTION
static uint32_t crc_by_instruction(uint32_t crc, const void *data, size_t count)
{
	const uint8_t *byte = data;
	uint32_t state = ~crc, second, third;

	for (; count >= 3 * LANE; count -= 3 * LANE, byte += 3 * LANE) {
		second = third = 0;
		for (size_t i = 0; i < LANE; i += 8) {
			state = CRC_WORD(state, word_at(byte + i));
			second = CRC_WORD(second, word_at(byte + LANE + i));
			third = CRC_WORD(third, word_at(byte + 2 * LANE + i));
		}
		state = after_a_lane(after_a_lane(state) ^ second) ^ third;
	}
	for (; count >= 8; count -= 8, byte += 8)
		state = CRC_WORD(state, word_at(byte));
	for (; count; count--)
		state = CRC_BYTE(state, *byte++);
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

/* By its single bits: the rest are their sums. */
static void lane_table_fill(void)
{
	for (uint32_t k = 0; k < 4; k++)
		for (uint32_t bit = 0; bit < 8; bit++) {
			uint32_t state = 1u << (8 * k + bit);

			for (unsigned int i = 0; i < LANE; i++)
				state = (state >> 8) ^ table[0][state & 0xff];
			for (uint32_t b = 0; b < 1u << bit; b++)
				lane_table[k][b | 1u << bit] = lane_table[k][b] ^ state;
		}
}

static void crc_prepare(void)
{
	table_fill();
	lane_table_fill();
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

void crc32c_sum(uint32_t *sums, uint32_t unit, uint64_t at, const void *data,
		size_t count)
{
	const uint8_t *byte = data;
	size_t part;

	for (; count; at += part, byte += part, count -= part) {
		uint64_t i = at / unit, within = at % unit;

		part = unit - within < count ? (size_t)(unit - within) : count;
		sums[i] = crc32c(within ? sums[i] : 0, byte, part);
	}
}

/* The product of two polynomials; the highest bit is that of x^0. */
static uint32_t multiply(uint32_t a, uint32_t b)
{
	uint32_t product = 0;

	for (; a; a <<= 1) {
		if (a >> 31)
			product ^= b;
		b = (b >> 1) ^ (b & 1 ? POLYNOMIAL : 0);
	}
	return product;
}

/* What @count zero bytes multiply a CRC by: x^(8 * count). */
static uint32_t shift_of(uint64_t count)
{
	uint32_t power = 1u << 23, result = 1u << 31;	/* x^8, 1 */

	for (; count; count >>= 1) {
		if (count & 1)
			result = multiply(power, result);
		power = multiply(power, power);
	}
	return result;
}

uint32_t crc32c_of_sums(const uint32_t *sums, uint32_t unit, uint64_t count)
{
	uint32_t shift = shift_of(unit), crc = 0;

	for (; count >= unit; count -= unit)
		crc = multiply(shift, crc) ^ *sums++;
	return count ? multiply(shift_of(count), crc) ^ *sums : crc;
}
