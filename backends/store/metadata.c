/* metadata.c: the lines of NAME=VALUE that a store keeps with an object. */
#include <errno.h>
#include <string.h>

#include "backends/store/store.h"

int store_metadata_add(struct store_metadata *metadata, const char *name,
		       const char *value)
{
	size_t name_length = strlen(name), value_length = strlen(value);
	char *end = metadata->text + metadata->length;

	if (name_length + value_length + 2 > sizeof(metadata->text) - metadata->length)
		return -E2BIG;
	memcpy(end, name, name_length);
	end[name_length] = '=';
	memcpy(end + name_length + 1, value, value_length);
	end[name_length + 1 + value_length] = '\n';
	metadata->length += name_length + value_length + 2;
	return 0;
}

int store_metadata_find(const struct store_metadata *metadata,
			const char *name, char *value, size_t size)
{
	const char *line = metadata->text, *newline;
	const char *end = line + metadata->length;
	size_t name_length = strlen(name), length;

	for (; line < end; line = newline + 1) {
		newline = memchr(line, '\n', (size_t)(end - line));
		if (!newline)
			break;
		if ((size_t)(newline - line) <= name_length ||
		    line[name_length] != '=' || memcmp(line, name, name_length) != 0)
			continue;
		length = (size_t)(newline - line) - name_length - 1;
		if (length + 1 > size)
			return -E2BIG;
		memcpy(value, line + name_length + 1, length);
		value[length] = 0;
		return (int)length;
	}
	return -ENOENT;
}
