/* credentials_keys.c: keys out of texts: checked, copied, and wiped behind them. */
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "backends/s3/credentials_find.h"
#include "backends/s3/xml.h"

#define SECRET_FILE_MAX (64u << 10)

int search_fails(struct search *search, int error, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	vsnprintf(search->why, sizeof(search->why), format, args);
	va_end(args);
	return error;
}

/* They go into headers, and the secret into a hash: a stray blank or line end is
 * easier to find here than in a signature that does not match. */
static int text_take(struct search *search, const char *whose, const char *what,
		     const char *text, char *to, size_t room)
{
	const char *at;

	if (!text)
		return 0;
	for (at = text; *at > ' ' && *at < 0x7f; at++)
		;
	if (*at)
		return search_fails(search, -EINVAL, "%s: the %s has a blank or another "
				    "character that none can have", whose, what);
	if (strlen(text) >= room)
		return search_fails(search, -EINVAL, "%s: the %s is longer than %zu "
				    "characters", whose, what, room - 1);
	strcpy(to, text);
	return 0;
}

int keys_fill(struct search *search, struct s3_keys *keys, const char *whose,
	      const char *id, const char *secret, const char *token)
{
	int error;

	memset(keys, 0, sizeof(*keys));
	error = text_take(search, whose, "access key id", id, keys->id, sizeof(keys->id));
	if (!error)
		error = text_take(search, whose, "secret access key", secret,
				  keys->secret, sizeof(keys->secret));
	if (!error)
		error = text_take(search, whose, "session token", token, keys->token,
				  sizeof(keys->token));
	if (!error && (!keys->id[0] || !keys->secret[0]))
		error = search_fails(search, -EINVAL, "%s: there is no %s", whose,
				     keys->id[0] ? "secret access key" : "access key id");
	return error;
}

/* ---- JSON ----------------------------------------------------------------- */

static const char *member(const json_t *object, const char *name)
{
	const char *value = json_string_value(json_object_get(object, name));

	return value && value[0] ? value : NULL;
}

static void wipe_members(json_t *object)
{
	const char *name;
	json_t *value;

	json_object_foreach(object, name, value) {
		if (json_is_string(value))
			explicit_bzero((char *)(uintptr_t)json_string_value(value),
				       json_string_length(value));
	}
}

static int check_answer(struct search *search, const json_t *answer, const char *whose,
			bool is_process)
{
	const char *code = member(answer, "Code"), *message = member(answer, "Message");

	if (code && strcmp(code, "Success") != 0)
		return search_fails(search, -EACCES, "%s: %s%s%s", whose, code,
				    message ? ": " : "", message ? message : "");
	if (is_process && json_integer_value(json_object_get(answer, "Version")) != 1)
		return search_fails(search, -EINVAL, "%s: its \"Version\" is not 1",
				    whose);
	return 0;
}

int keys_from_json(struct search *search, struct s3_keys *keys, const char *whose,
		   const char *text, size_t count, const char *token_name,
		   bool is_process)
{
	json_t *answer = json_loadb(text, count, JSON_REJECT_DUPLICATES, NULL);
	const char *expiration;
	int error;

	if (!json_is_object(answer)) {
		json_decref(answer);
		return search_fails(search, -EINVAL, "%s: its answer is no JSON object",
				    whose);
	}
	error = check_answer(search, answer, whose, is_process);
	if (!error)
		error = keys_fill(search, keys, whose, member(answer, "AccessKeyId"),
				  member(answer, "SecretAccessKey"),
				  member(answer, token_name));
	expiration = member(answer, "Expiration");
	if (!error && expiration && s3_xml_time(expiration, &keys->expires))
		error = search_fails(search, -EINVAL, "%s: its \"Expiration\" is no time",
				     whose);
	wipe_members(answer);
	json_decref(answer);
	return error;
}

/* ---- files ---------------------------------------------------------------- */

int secret_file_read(struct search *search, const char *path, char **text)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC), error = 0;
	char *content = calloc(1, SECRET_FILE_MAX + 1);
	ssize_t count = fd < 0 || !content ? -1 : read(fd, content, SECRET_FILE_MAX);

	if (count < 0)
		error = search_fails(search, -errno, "%s: %s", path, strerror(errno));
	else if (count == SECRET_FILE_MAX)
		error = search_fails(search, -EFBIG, "%s: is too large for a token", path);
	while (count > 0 && strchr(" \t\r\n", content[count - 1]))
		content[--count] = 0;
	if (count == 0)
		error = search_fails(search, -EINVAL, "%s: is empty", path);
	if (fd >= 0)
		close(fd);
	if (error) {
		free(content);
		content = NULL;
	}
	*text = content;
	return error;
}
