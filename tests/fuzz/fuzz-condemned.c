/* fuzz-condemned.c: any bytes as a condemned list, as they are and with the line
 * of the CRC added.  Nothing but old keys of a volume ever comes out of one. */
#include <errno.h>

#include "src/crc32c.h"
#include "src/volume/format.h"
#include "tests/fuzz/fuzz.h"

static void check(const char *data, size_t count)
{
	struct format_fault fault = { 0 };
	struct condemned list;
	struct key key;
	unsigned int i;
	size_t length;
	void *bytes;
	int error = condemned_decode(data, count, &list, &fault);

	if (error) {
		expect(error == -EBADMSG && fault.what[0] && fault.offset <= count);
		expect(!list.entries);
		return;
	}
	for (i = 0; i < list.nr; i++) {
		key_parse(list.entries[i].key, &key);
		expect(key.kind != KEY_KIND_FOREIGN && key.kind != KEY_KIND_HEAD);
		expect(key.epoch <= list.epoch);
	}
	expect(condemned_encode(&list, &bytes, &length) == 0);
	expect(length == count && !memcmp(bytes, data, count));
	free(bytes);
	condemned_free(&list);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t count)
{
	char *sealed;

	check((const char *)data, count);
	sealed = malloc(count + 17);
	if (!sealed)
		return 0;
	memcpy(sealed, data, count);
	snprintf(sealed + count, 17, "crc32c %08x\n", crc32c(0, data, count));
	check(sealed, count + 16);
	free(sealed);
	return 0;
}
