/* pattern.c: serves ranges of what pattern:SIZE holds, as a web server does. */
#include <endian.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/http/server.h"

#define TAG "\"a version\""

static uint64_t size_of(const struct visit *visit)
{
	return *(uint64_t *)server_context(visit->server);
}

static void fill(char *to, uint64_t offset, uint64_t count)
{
	for (uint64_t i = 0; i < count; i++) {
		uint64_t word = htobe64((offset + i) & ~7ull);

		to[i] = ((char *)&word)[(offset + i) % 8];
	}
}

static bool answer(struct visit *visit)
{
	uint64_t size = size_of(visit), first, last;
	char range[64], match[64], head[256], *data;

	if (!visit_header(visit, "Range", range, sizeof(range)) ||
	    sscanf(range, "bytes=%" SCNu64 "-%" SCNu64, &first, &last) != 2 ||
	    first > last || last >= size ||
	    (visit_header(visit, "If-Match", match, sizeof(match)) && strcmp(match, TAG))) {
		visit_say(visit, "HTTP/1.1 400 Bad\r\nContent-Length: 0\r\n\r\n");
		return true;
	}
	data = malloc(last - first + 1);
	fill(data, first, last - first + 1);
	snprintf(head, sizeof(head),
		 "HTTP/1.1 206 Partial Content\r\nETag: " TAG "\r\nContent-Length: %" PRIu64
		 "\r\nContent-Range: bytes %" PRIu64 "-%" PRIu64 "/%" PRIu64 "\r\n\r\n",
		 last - first + 1, first, last, size);
	visit_say(visit, head);
	visit_write(visit, data, last - first + 1);
	free(data);
	return true;
}

struct server *server_start_pattern(uint64_t *size)
{
	const struct server_options options = { .answer = answer, .context = size };

	return server_start(&options);
}
