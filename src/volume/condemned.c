/* condemned.c: what gc is going to delete, as text.
 *
 *     objmap-condemned 1 EPOCH
 *     KEY			an object
 *     KEY UPLOAD		a multipart upload to that key
 *     crc32c XXXXXXXX		of everything before this line
 *
 * A list names nothing but a volume's own keys, none of them head and none
 * newer than EPOCH, so that not even a forged one makes gc delete anything else. */
#include "src/volume/sections.h"

#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "src/crc32c.h"

#define FIRST_FORMAT "objmap-condemned 1 %016" PRIx64 "\n"
#define FIRST_BYTES  (19 + 16 + 1)
#define LAST_BYTES   (7 + 8 + 1)

/* What may stand in a list of @epoch. */
static bool key_may_go(const char *key, uint64_t epoch)
{
	struct key parsed;

	key_parse(key, &parsed);
	return parsed.kind != KEY_KIND_FOREIGN && parsed.kind != KEY_KIND_HEAD &&
	       parsed.epoch <= epoch;
}

bool upload_id_is_valid(const char *upload)
{
	size_t length = strnlen(upload, UPLOAD_ID_MAX + 1), i;

	for (i = 0; i < length; i++)
		if (upload[i] <= ' ' || upload[i] >= 0x7f)
			return false;
	return length && length <= UPLOAD_ID_MAX;
}

/* ---- writing ------------------------------------------------------------------- */

int condemned_encode(const struct condemned *list, void **bytes, size_t *count)
{
	const struct condemned_entry *entry;
	size_t room = FIRST_BYTES + LAST_BYTES + 1;
	unsigned int i;
	char *text, *at;

	if (list->nr > CONDEMNED_MAX)
		return -E2BIG;
	for (i = 0; i < list->nr; i++) {
		entry = &list->entries[i];
		if (!key_may_go(entry->key, list->epoch) ||
		    (entry->upload && !upload_id_is_valid(entry->upload)))
			return -EINVAL;
		room += strlen(entry->key) + 1;
		if (entry->upload)
			room += strlen(entry->upload) + 1;
	}
	if (room > CONDEMNED_BYTES_MAX)
		return -E2BIG;
	text = malloc(room);
	if (!text)
		return -ENOMEM;
	at = text + sprintf(text, FIRST_FORMAT, list->epoch);
	for (i = 0; i < list->nr; i++) {
		entry = &list->entries[i];
		at += entry->upload ? sprintf(at, "%s %s\n", entry->key, entry->upload)
				    : sprintf(at, "%s\n", entry->key);
	}
	at += sprintf(at, "crc32c %08x\n", crc32c(0, text, (size_t)(at - text)));
	*bytes = text;
	*count = (size_t)(at - text);
	return 0;
}

/* ---- reading -------------------------------------------------------------------- */

/* Checks the first and the last line. */
static int check_envelope(const char *text, size_t count, struct condemned *list,
			  struct format_fault *fault)
{
	char line[FIRST_BYTES + LAST_BYTES + 2], *end;
	size_t covered = count - LAST_BYTES;

	if (count < FIRST_BYTES + LAST_BYTES)
		return format_bad(fault, count, "only %zu bytes long", count);
	memcpy(line, text, FIRST_BYTES);
	line[FIRST_BYTES] = 0;
	if (strncmp(line, "objmap-condemned ", 17))
		return format_bad(fault, 0, "is not a condemned list");
	list->epoch = strtoull(line + 19, &end, 16);
	snprintf(line, sizeof line, FIRST_FORMAT, list->epoch);
	if (memcmp(line, text, FIRST_BYTES))
		return format_bad(fault, 17, "the first line is no version and epoch");
	snprintf(line, sizeof line, "crc32c %08x\n", crc32c(0, text, covered));
	if (memcmp(line, text + covered, LAST_BYTES))
		return format_bad(fault, covered, "the last line is not \"%.15s\"", line);
	return 0;
}

/* One line of @length bytes without its newline. */
static int decode_line(const char *line, size_t length, struct condemned *list)
{
	struct condemned_entry *entry = &list->entries[list->nr];
	char *space;

	if (memchr(line, 0, length))
		return -EBADMSG;
	entry->upload = NULL;
	entry->key = strndup(line, length);
	if (!entry->key)
		return -ENOMEM;
	list->nr++;
	space = strchr(entry->key, ' ');
	if (space) {
		entry->upload = strdup(space + 1);
		if (!entry->upload)
			return -ENOMEM;
		*space = 0;
		if (!upload_id_is_valid(entry->upload))
			return -EBADMSG;
	}
	return key_may_go(entry->key, list->epoch) ? 0 : -EBADMSG;
}

static int decode_lines(const char *text, size_t end, struct condemned *list,
			struct format_fault *fault)
{
	const char *newline;
	size_t at, nr = 0;
	int error;

	for (at = FIRST_BYTES; at < end; at++)
		nr += text[at] == '\n';
	if (nr > CONDEMNED_MAX)
		return format_bad(fault, FIRST_BYTES, "%zu lines, more than %u", nr,
				  CONDEMNED_MAX);
	list->entries = calloc(nr ? nr : 1, sizeof *list->entries);
	if (!list->entries)
		return -ENOMEM;
	for (at = FIRST_BYTES; at < end; at = (size_t)(newline + 1 - text)) {
		newline = memchr(text + at, '\n', end - at);
		if (!newline)
			return format_bad(fault, at, "a line without an end");
		error = decode_line(text + at, (size_t)(newline - (text + at)), list);
		if (error == -EBADMSG)
			return format_bad(fault, at,
					  "line %u names nothing that gc may delete",
					  list->nr + 1);
		if (error)
			return error;
	}
	return 0;
}

int condemned_decode(const void *bytes, size_t count, struct condemned *list,
		     struct format_fault *fault)
{
	int error;

	*list = (struct condemned){ 0 };
	if (count > CONDEMNED_BYTES_MAX)
		return format_bad(fault, CONDEMNED_BYTES_MAX, "longer than %u bytes",
				  CONDEMNED_BYTES_MAX);
	error = check_envelope(bytes, count, list, fault);
	if (!error)
		error = decode_lines(bytes, count - LAST_BYTES, list, fault);
	if (error)
		condemned_free(list);
	return error;
}

void condemned_free(struct condemned *list)
{
	unsigned int i;

	for (i = 0; i < list->nr; i++) {
		free(list->entries[i].key);
		free(list->entries[i].upload);
	}
	free(list->entries);
	*list = (struct condemned){ 0 };
}
