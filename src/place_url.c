/* place_url.c: reads places that are a URL of the web. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "src/log.h"
#include "src/place_url.h"

bool place_is_url(const struct place *place)
{
	return strcmp(place->scheme, "http") == 0 || strcmp(place->scheme, "https") == 0;
}

static bool is_sound(const char *url)
{
	for (; *url; url++)
		if ((unsigned char)*url <= ' ' || *url == 0x7f)
			return false;
	return true;
}

int place_read_url(struct place *place)
{
	const char *host = place->text + strlen(place->scheme) + 3;
	char *shown = NULL;
	size_t host_length, length;

	if (strncmp(host - 3, "://", 3) != 0 || !host[strspn(host, "/")]) {
		log_error("%s: write it as %s://HOST/PATH", place->scheme, place->scheme);
		return -EINVAL;
	}
	host_length = strcspn(host, "/?#");
	if (memchr(host, '@', host_length)) {
		log_error("%s: a user and password in a place would be seen by everybody on this machine; take a URL that needs none (a presigned one), or download the file and mount it as file:PATH",
			  place->scheme);
		return -EINVAL;
	}
	if (host_length == 0 || !is_sound(host)) {
		log_error("%s: %s", place->scheme, host_length ?
			  "a URL has no spaces and control characters; %20 is a space" :
			  "the URL names no host");
		return -EINVAL;
	}
	length = strcspn(place->text, "?#");
	place->base = strndup(place->text, length);
	if (asprintf(&shown, "%s%s", place->base ? place->base : "",
		     place->text[length] == '?' ? "?..." : "") < 0 || !place->base) {
		free(shown);
		return -ENOMEM;
	}
	place->path = place->text;
	place->text = shown;
	return 0;
}
