/* keys.c: the names of a volume's objects, written and read back. */
#include "src/volume/format.h"

#include <stdio.h>
#include <string.h>

#include <inttypes.h>

void key_chunk(char *key, uint32_t index, uint64_t epoch, uint64_t writer)
{
	snprintf(key, VOLUME_KEY_MAX, "chunk/%02x/%08x-%016" PRIx64 "-%016" PRIx64,
		 (unsigned int)(index & 0xff), index, epoch, writer);
}

void key_node(char *key, unsigned int level, uint32_t node, uint64_t epoch,
	      uint64_t writer)
{
	snprintf(key, VOLUME_KEY_MAX, "map/%x/%08x-%016" PRIx64 "-%016" PRIx64,
		 level & 0xf, node, epoch, writer);
}

void key_snapshot_list(char *key, uint64_t epoch, uint64_t nonce)
{
	snprintf(key, VOLUME_KEY_MAX, "snapshot/list-%016" PRIx64 "-%016" PRIx64,
		 epoch, nonce);
}

void key_snapshot_body(char *key, uint64_t epoch, uint64_t nonce)
{
	snprintf(key, VOLUME_KEY_MAX, "snapshot/body-%016" PRIx64 "-%016" PRIx64,
		 epoch, nonce);
}

void key_condemned(char *key, uint64_t epoch, uint64_t nonce)
{
	snprintf(key, VOLUME_KEY_MAX, "condemned/%016" PRIx64 "-%016" PRIx64,
		 epoch, nonce);
}

void key_probe(char *key, uint64_t nonce)
{
	snprintf(key, VOLUME_KEY_MAX, "probe/%016" PRIx64, nonce);
}

/* ---- reading ----------------------------------------------------------------- */

static bool take_text(const char **at, const char *text)
{
	size_t length = strlen(text);

	if (strncmp(*at, text, length))
		return false;
	*at += length;
	return true;
}

/* Exactly @digits digits of lower-case hex. */
static bool take_hex(const char **at, unsigned int digits, uint64_t *value)
{
	*value = 0;
	for (; digits; digits--, (*at)++) {
		char c = **at;

		if (c >= '0' && c <= '9')
			*value = *value << 4 | (uint64_t)(c - '0');
		else if (c >= 'a' && c <= 'f')
			*value = *value << 4 | (uint64_t)(c - 'a' + 10);
		else
			return false;
	}
	return true;
}

/* EPOCH-WRITER, or EPOCH-NONCE, and the key's end. */
static bool take_epoch_and_end(const char **at, struct key *parsed)
{
	return take_hex(at, 16, &parsed->epoch) && take_text(at, "-") &&
	       take_hex(at, 16, &parsed->writer) && **at == 0;
}

static bool take_chunk(const char **at, struct key *parsed)
{
	uint64_t shard, index;

	if (!take_hex(at, 2, &shard) || !take_text(at, "/") ||
	    !take_hex(at, 8, &index) || !take_text(at, "-"))
		return false;
	parsed->index = (uint32_t)index;
	return shard == (index & 0xff) && index < VOLUME_CHUNKS_MAX &&
	       take_epoch_and_end(at, parsed);
}

static bool take_node(const char **at, struct key *parsed)
{
	uint64_t level, node;

	if (!take_hex(at, 1, &level) || !take_text(at, "/") ||
	    !take_hex(at, 8, &node) || !take_text(at, "-"))
		return false;
	parsed->level = (unsigned int)level;
	parsed->index = (uint32_t)node;
	return level < MAP_LEVELS_MAX &&
	       node < VOLUME_CHUNKS_MAX >> (10 * (level + 1)) &&
	       take_epoch_and_end(at, parsed);
}

/* Whether @key begins with @text; then *@rest is what follows. */
static bool begins(const char *key, const char *text, const char **rest)
{
	*rest = key;
	return take_text(rest, text);
}

static enum key_kind key_kind(const char *key, struct key *parsed)
{
	const char *rest;

	if (!strcmp(key, KEY_HEAD))
		return KEY_KIND_HEAD;
	if (begins(key, "chunk/", &rest) && take_chunk(&rest, parsed))
		return KEY_KIND_CHUNK;
	if (begins(key, "map/", &rest) && take_node(&rest, parsed))
		return KEY_KIND_NODE;
	if (begins(key, "snapshot/list-", &rest) && take_epoch_and_end(&rest, parsed))
		return KEY_KIND_SNAPSHOT_LIST;
	if (begins(key, "snapshot/body-", &rest) && take_epoch_and_end(&rest, parsed))
		return KEY_KIND_SNAPSHOT_BODY;
	if (begins(key, "condemned/", &rest) && take_epoch_and_end(&rest, parsed))
		return KEY_KIND_CONDEMNED;
	if (begins(key, "probe/", &rest) && take_hex(&rest, 16, &parsed->writer) && !*rest)
		return KEY_KIND_PROBE;
	return KEY_KIND_FOREIGN;
}

void key_parse(const char *key, struct key *parsed)
{
	struct key found = { 0 };

	found.kind = key_kind(key, &found);
	if (found.kind == KEY_KIND_FOREIGN)
		found = (struct key){ .kind = KEY_KIND_FOREIGN };
	*parsed = found;
}
