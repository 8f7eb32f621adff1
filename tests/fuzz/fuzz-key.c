/* fuzz-key.c: any text as a key: what is ours is written in one way only; and as
 * the name of a snapshot and the prefix of an origin. */
#include "src/volume/format.h"
#include "tests/fuzz/fuzz.h"

static void write_key(const struct key *parsed, char *key)
{
	switch (parsed->kind) {
	case KEY_KIND_CHUNK:
		key_chunk(key, parsed->index, parsed->epoch, parsed->writer);
		break;
	case KEY_KIND_NODE:
		key_node(key, parsed->level, parsed->index, parsed->epoch,
			 parsed->writer);
		break;
	case KEY_KIND_SNAPSHOT_LIST:
		key_snapshot_list(key, parsed->epoch, parsed->writer);
		break;
	case KEY_KIND_SNAPSHOT_BODY:
		key_snapshot_body(key, parsed->epoch, parsed->writer);
		break;
	case KEY_KIND_CONDEMNED:
		key_condemned(key, parsed->epoch, parsed->writer);
		break;
	case KEY_KIND_PROBE:
		key_probe(key, parsed->writer);
		break;
	case KEY_KIND_HEAD:
		strcpy(key, KEY_HEAD);
		break;
	case KEY_KIND_FOREIGN:
		break;
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t count)
{
	char *text = malloc(count + 1), key[VOLUME_KEY_MAX];
	struct key parsed;

	if (!text)
		return 0;
	memcpy(text, data, count);
	text[count] = 0;
	key_parse(text, &parsed);
	if (parsed.kind != KEY_KIND_FOREIGN) {
		write_key(&parsed, key);
		expect(!strcmp(text, key));
	}
	if (snapshot_name_is_valid(text))
		expect(strlen(text) <= SNAPSHOT_NAME_MAX && !strpbrk(text, "/@\n"));
	if (origin_prefix_is_valid(text))
		expect(strlen(text) <= ORIGIN_PREFIX_MAX && *text != '/' &&
		       !strstr(text, "//") && strcmp(text, ".."));
	free(text);
	return 0;
}
