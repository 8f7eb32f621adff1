/* fuzz-head.c: any bytes as a head, as they are and sealed (length and CRC put
 * right, or no mutation would get beyond them).  What is accepted is valid, and
 * written again it is accepted again and says the same. */
#include <errno.h>

#include "src/crc32c.h"
#include "src/volume/bytes.h"
#include "src/volume/format.h"
#include "tests/fuzz/fuzz.h"

static struct head head, again;
static uint8_t sealed[HEAD_BYTES_MAX + 1], first[HEAD_BYTES_MAX], second[HEAD_BYTES_MAX];

static void check(const uint8_t *data, size_t count)
{
	struct format_fault fault = { 0 };
	int error = head_decode(data, count, &head, &fault);
	size_t length;

	if (error) {
		expect(error == -EBADMSG || error == -ENOTSUP);
		expect(fault.what[0] && fault.offset <= count);
		return;
	}
	expect(head_is_valid(&head, &fault));
	length = head_encode(&head, first);
	/* Shorter only by sections that were passed over. */
	expect(length <= count && (length < count || !memcmp(first, data, count)));
	expect(head_decode(first, length, &again, &fault) == 0);
	expect(head_encode(&again, second) == length && !memcmp(first, second, length));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t count)
{
	check(data, count);
	if (count < 20 || count > sizeof(sealed))
		return 0;
	memcpy(sealed, data, count);
	memcpy(sealed, "OBJMHEAD", 8);
	put_u32(sealed + 12, (uint32_t)count);
	put_u32(sealed + count - 4, crc32c(0, sealed, count - 4));
	check(sealed, count);
	return 0;
}
