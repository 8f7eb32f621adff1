/* headers.c: the header lines of a request or a reply.
 *
 * They lie one behind the other in one piece of memory, each with a 0 at its end,
 * so that the lines are C strings in the form libcurl takes and gives. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "backends/http/pool.h"

/* A line break in a header would be a header of somebody else's choice. */
static bool name_is_sound(const char *name, size_t length)
{
	for (size_t i = 0; i < length; i++) {
		unsigned char c = (unsigned char)name[i];

		if (c <= ' ' || c >= 0x7f || c == ':')
			return false;
	}
	return length;
}

static bool value_is_sound(const char *value, size_t length)
{
	for (size_t i = 0; i < length; i++) {
		unsigned char c = (unsigned char)value[i];

		if ((c < ' ' && c != '\t') || c == 0x7f)
			return false;
	}
	return true;
}

static int make_room(struct http_headers *headers, size_t count)
{
	size_t room = headers->room ? headers->room : 512;
	char *text;

	if (count > HTTP_HEADERS_MAX - headers->length)
		return -E2BIG;
	while (room - headers->length < count)
		room *= 2;
	if (room == headers->room)
		return 0;
	text = realloc(headers->text, room);
	if (!text)
		return -ENOMEM;
	headers->text = text;
	headers->room = room;
	return 0;
}

static int add(struct http_headers *headers, const char *name, size_t name_length,
	       const char *value, size_t value_length)
{
	char *at;
	int error;

	if (!name_is_sound(name, name_length) || !value_is_sound(value, value_length))
		return -EINVAL;
	if (name_length > HTTP_HEADERS_MAX || value_length > HTTP_HEADERS_MAX)
		return -E2BIG;
	error = make_room(headers, name_length + value_length + 3);
	if (error)
		return error;
	at = headers->text + headers->length;
	memcpy(at, name, name_length);
	memcpy(at + name_length, ": ", 2);
	memcpy(at + name_length + 2, value, value_length);
	at[name_length + 2 + value_length] = 0;
	headers->length += name_length + value_length + 3;
	return 0;
}

int http_headers_add(struct http_headers *headers, const char *name,
		     const char *value)
{
	return add(headers, name, strlen(name), value, strlen(value));
}

static bool is_space(char c)
{
	return c == ' ' || c == '\t' || c == '\r' || c == '\n';
}

int http_headers_add_line(struct http_headers *headers, const char *line,
			  size_t count)
{
	const char *colon = memchr(line, ':', count), *value, *end = line + count;

	if (!colon)
		return -EINVAL;
	for (value = colon + 1; value < end && is_space(*value); value++)
		;
	while (end > value && is_space(end[-1]))
		end--;
	return add(headers, line, (size_t)(colon - line), value, (size_t)(end - value));
}

const char *http_headers_next(const struct http_headers *headers, const char *line)
{
	const char *next = line ? line + strlen(line) + 1 : headers->text;

	return next && next < headers->text + headers->length ? next : NULL;
}

static bool line_has_name(const char *line, const char *name, size_t length)
{
	return strncasecmp(line, name, length) == 0 && line[length] == ':';
}

const char *http_headers_find(const struct http_headers *headers, const char *name)
{
	size_t length = strlen(name);
	const char *line = NULL;

	while ((line = http_headers_next(headers, line)))
		if (line_has_name(line, name, length))
			return line + length + 1 + strspn(line + length + 1, " \t");
	return NULL;
}

void http_headers_remove(struct http_headers *headers, const char *name)
{
	size_t length = strlen(name), line_length, offset = 0;
	char *line;

	while (offset < headers->length) {
		line = headers->text + offset;
		line_length = strlen(line) + 1;
		if (line_has_name(line, name, length)) {
			headers->length -= line_length;
			memmove(line, line + line_length, headers->length - offset);
		} else {
			offset += line_length;
		}
	}
}

int http_headers_add_all(struct http_headers *headers,
			 const struct http_headers *from)
{
	const char *line = NULL;
	int error = 0;

	while (!error && (line = http_headers_next(from, line)))
		error = http_headers_add_line(headers, line, strlen(line));
	return error;
}

/* What was sent may have been a secret. */
void http_headers_free(struct http_headers *headers)
{
	if (headers->text)
		explicit_bzero(headers->text, headers->room);
	free(headers->text);
	memset(headers, 0, sizeof(*headers));
}
