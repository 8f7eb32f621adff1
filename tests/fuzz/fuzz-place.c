/* fuzz-place.c: any text as a place: what is taken is taken again from its own
 * base, with the same path and without snapshot and parameters; but mem: without
 * its size is no place, and the path of a URL loses its query. */
#include "src/log.h"
#include "src/place.h"
#include "src/place_url.h"
#include "tests/fuzz/fuzz.h"

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	return log_open("/dev/null", LOG_LEVEL_ERROR);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t count)
{
	struct place place, again;
	char *text = malloc(count + 1);

	expect(text);
	memcpy(text, data, count);
	text[count] = 0;
	if (place_parse(text, 0, &place) != 0)
		goto out;
	if (place_parse(place.base, 0, &again) == 0) {
		expect(strcmp(again.path, place_is_url(&place) ? place.base : place.path) == 0);
		expect(!again.snapshot && again.nr_params == 0);
		place_free(&again);
	} else {
		expect(strcmp(place.scheme, "mem") == 0);
	}
	place_free(&place);
out:
	free(text);
	return 0;
}
