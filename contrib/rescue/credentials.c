/* credentials.c: keys from the environment, else from the file that the AWS tools
 * share; never from a command line, which everybody on the machine can read. */
#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "contrib/rescue/bucket.h"

static const char *from_environment(const char *name)
{
	const char *value = getenv(name);

	return value && *value ? value : NULL;
}

static char *trimmed(char *text)
{
	char *end;

	while (isspace((unsigned char)*text))
		text++;
	for (end = text + strlen(text); end > text && isspace((unsigned char)end[-1]);)
		*--end = 0;
	return text;
}

static int no_token(const char *from)
{
	fprintf(stderr, "objmap-rescue: %s: libs3 cannot send a session token; use keys "
		"that need none\n", from);
	return -1;
}

/* One line of the file, inside the wanted profile. */
static int take_line(char *line, const char *path, struct credentials *found)
{
	char *equals = strchr(line, '='), *name, *value, **place;

	if (!equals)
		return 0;
	*equals = 0;
	name = trimmed(line);
	value = trimmed(equals + 1);
	if (strcmp(name, "aws_session_token") == 0 && *value)
		return no_token(path);
	place = strcmp(name, "aws_access_key_id") == 0 ? &found->access_key :
		strcmp(name, "aws_secret_access_key") == 0 ? &found->secret_key : NULL;
	if (!place)
		return 0;
	free(*place);
	*place = *value ? strdup(value) : NULL;
	return 0;
}

static int read_profile(FILE *file, const char *path, const char *profile,
			struct credentials *found)
{
	char *line = NULL, *text;
	bool inside = false, seen = false;
	size_t size = 0, length;
	int error = 0;

	while (!error && getline(&line, &size, file) >= 0) {
		text = trimmed(line);
		length = strlen(text);
		if (*text == '#' || *text == ';')
			continue;
		if (*text == '[' && length > 1 && text[length - 1] == ']') {
			text[length - 1] = 0;
			inside = strcmp(trimmed(text + 1), profile) == 0;
			seen |= inside;
		} else if (inside) {
			error = take_line(text, path, found);
		}
	}
	if (!error && !seen && from_environment("AWS_PROFILE")) {
		fprintf(stderr, "objmap-rescue: %s has no profile %s\n", path, profile);
		error = -1;
	}
	free(line);
	return error;
}

static int from_file(struct credentials *found)
{
	const char *profile = from_environment("AWS_PROFILE");
	const char *path = from_environment("AWS_SHARED_CREDENTIALS_FILE");
	const char *home = from_environment("HOME");
	char *made = NULL;
	FILE *file;
	int error;

	if (!path) {
		if (!home || asprintf(&made, "%s/.aws/credentials", home) < 0)
			return 0;
		path = made;
	}
	file = fopen(path, "re");
	if (file) {
		error = read_profile(file, path, profile ? profile : "default", found);
		fclose(file);
	} else {
		error = errno == ENOENT && !profile ? 0 : -1;
		if (error)
			fprintf(stderr, "objmap-rescue: %s: %m\n", path);
	}
	free(made);
	return error;
}

int credentials_find(struct credentials *credentials)
{
	const char *access_key = from_environment("AWS_ACCESS_KEY_ID");
	const char *secret_key = from_environment("AWS_SECRET_ACCESS_KEY");

	*credentials = (struct credentials) { NULL, NULL };
	if (access_key || secret_key) {
		if (from_environment("AWS_SESSION_TOKEN"))
			return no_token("AWS_SESSION_TOKEN");
		credentials->access_key = access_key ? strdup(access_key) : NULL;
		credentials->secret_key = secret_key ? strdup(secret_key) : NULL;
	} else if (from_file(credentials)) {
		credentials_free(credentials);
		return -1;
	}
	/* libs3 does not live without: it has no anonymous requests. */
	if (!credentials->access_key || !credentials->secret_key) {
		fprintf(stderr, "objmap-rescue: the access key or its secret is missing; "
			"set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or have both in "
			"~/.aws/credentials\n");
		credentials_free(credentials);
		return -1;
	}
	return 0;
}

void credentials_free(struct credentials *credentials)
{
	if (credentials->secret_key)
		explicit_bzero(credentials->secret_key, strlen(credentials->secret_key));
	free(credentials->access_key);
	free(credentials->secret_key);
	*credentials = (struct credentials) { NULL, NULL };
}
