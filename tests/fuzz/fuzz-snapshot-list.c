/* fuzz-snapshot-list.c: any bytes as a snapshot list, as they are and sealed. */
#include <errno.h>

#include "src/crc32c.h"
#include "src/volume/bytes.h"
#include "src/volume/format.h"
#include "tests/fuzz/fuzz.h"

static void check(const uint8_t *data, size_t count)
{
	struct format_fault fault = { 0 };
	struct snapshot_list list;
	unsigned int i;
	size_t length;
	void *bytes;
	int error = snapshot_list_decode(data, count, &list, &fault);

	if (error) {
		expect(error == -EBADMSG || error == -ENOTSUP);
		expect(fault.what[0] && fault.offset <= count && !list.snapshots);
		return;
	}
	for (i = 0; i < list.nr; i++)
		expect(snapshot_name_is_valid(list.snapshots[i].name));
	expect(snapshot_list_encode(&list, &bytes, &length) == 0);
	expect(length <= count && (length < count || !memcmp(bytes, data, count)));
	free(bytes);
	snapshot_list_free(&list);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t count)
{
	uint8_t *sealed;

	check(data, count);
	if (count < 20)
		return 0;
	sealed = malloc(count);		/* not larger: the sanitizer watches its end */
	if (!sealed)
		return 0;
	memcpy(sealed, data, count);
	memcpy(sealed, "OBJMSNAP", 8);
	put_u32(sealed + 12, (uint32_t)count);
	put_u32(sealed + count - 4, crc32c(0, sealed, count - 4));
	check(sealed, count);
	free(sealed);
	return 0;
}
