/* fuzz-frames.c: any text as a frame table and as a uuid: one way to write each. */
#include <errno.h>

#include "src/volume/format.h"
#include "tests/fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t count)
{
	struct frame_table table;
	char again[FRAMES_TEXT_MAX], uuid_again[37];
	char *text = malloc(count + 1);
	uint8_t uuid[16];
	uint32_t nr;
	int error;

	if (!text)
		return 0;
	memcpy(text, data, count);
	text[count] = 0;
	for (nr = 0; nr <= FRAMES_MAX + 1; nr++) {
		error = frame_table_parse(text, nr, &table);
		expect(!error || error == -EBADMSG);
		if (error)
			continue;
		expect(table.nr_frames == nr && nr >= 1 && nr <= FRAMES_MAX);
		frame_table_format(&table, again);
		expect(!strcmp(text, again));
		frame_table_crc(&table);
	}
	if (uuid_parse(text, uuid)) {
		uuid_format(uuid, uuid_again);
		expect(!strcmp(text, uuid_again));
	}
	free(text);
	return 0;
}
