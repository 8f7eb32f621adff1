/* sources.c: options from the environment and from configuration files.
 *
 * A file has lines NAME = VALUE, NAME being a long option without its dashes.
 * It is checked whole, whatever the verb takes, so that a mistake is told at
 * the next command and not on the day its option is wanted. */
#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "src/cmd/options.h"
#include "src/log.h"
#include "src/nearest.h"

#define SYSTEM_FILE "/etc/objmap.conf"
#define USER_FILE   ".config/objmap.conf"	/* below $HOME */

extern char **environ;

/* Variables that are no options. */
static const char *const other_variables[] = {
	"OBJMAP_RUNTIME_DIR", "OBJMAP_WHERE", NULL
};

static bool is_word_in(const char *const *words, const char *word)
{
	for (; *words; words++)
		if (strcmp(*words, word) == 0)
			return true;
	return false;
}

/* @where: "FILE:LINE: " or "". */
static int set_outside(struct options *options, const char *option,
		       const char *text, const char *source,
		       const char *where, const char *name)
{
	const struct option_spec *spec = option_find(option);

	if (is_word_in(later_options, option)) {
		log_error("%s%s: not in this build", where, name);
		return -EINVAL;
	}
	if (spec->command_line_only || spec->kind == OPTION_COMMAND) {
		log_error("%s%s: --%s is taken from the command line only%s",
			  where, name, option, spec->command_line_only ?
			  ", because it can destroy what others rely on" : "");
		return -EINVAL;
	}
	return option_set(options, spec, text, source, where, name);
}

/* ---- the environment ----------------------------------------------------------- */

/* OBJMAP_CHUNK_SIZE is chunk-size. */
static void variable_to_option(const char *variable, size_t length, char *option)
{
	size_t i;

	for (i = strlen("OBJMAP_"); i < length; i++)
		*option++ = variable[i] == '_' ? '-'
			    : (char)tolower((unsigned char)variable[i]);
	*option = 0;
}

static const char *nearest_option(const char *name)
{
	const char *names[256];
	unsigned int i;

	for (i = 0; option_table[i].name; i++)
		names[i] = option_table[i].name;
	names[i] = NULL;
	return nearest_word(name, names);
}

static int read_variable(struct options *options, const char *entry)
{
	size_t length = strcspn(entry, "=");
	char name[80], option[80];
	const char *near;

	if (length >= sizeof(name) || entry[length] == 0 ||
	    entry[length + 1] == 0)	/* empty is as good as not set */
		return 0;
	memcpy(name, entry, length);
	name[length] = 0;
	if (is_word_in(other_variables, name))
		return 0;
	variable_to_option(name, length, option);
	if (option_find(option) || is_word_in(later_options, option))
		return set_outside(options, option, entry + length + 1,
				   "environment", "", name);
	near = nearest_option(option);
	if (near)
		log_warning("%s in the environment is no option; is --%s meant?",
			    name, near);
	return 0;
}

int options_read_environment(struct options *options)
{
	char **entry;
	int error;

	for (entry = environ; *entry; entry++) {
		if (strncmp(*entry, "OBJMAP_", strlen("OBJMAP_")) != 0)
			continue;
		error = read_variable(options, *entry);
		if (error)
			return error;
	}
	return 0;
}

/* ---- files ------------------------------------------------------------------------ */

static char *trim(char *text)
{
	char *end;

	text += strspn(text, " \t");
	end = text + strlen(text);
	while (end > text && strchr(" \t\r\n", end[-1]))
		*--end = 0;
	return text;
}

/* Ends @value at a comment (# after a blank), and takes quotes off. */
static char *read_value(char *value)
{
	char *c;

	value = trim(value);
	if (*value == '"') {
		c = strchr(value + 1, '"');
		if (!c || (*trim(c + 1) && *trim(c + 1) != '#'))
			return NULL;
		*c = 0;
		return value + 1;
	}
	for (c = value; *c; c++)
		if (*c == '#' && (c == value || c[-1] == ' ' || c[-1] == '\t')) {
			*c = 0;
			break;
		}
	return trim(value);
}

static int read_line(struct options *options, char *line, const char *source,
		     const char *where)
{
	char *name = trim(line), *value;
	const char *near;

	if (*name == 0 || *name == '#')
		return 0;
	value = strchr(name, '=');
	if (!value) {
		log_error("%sa line is NAME = VALUE, not '%s'", where, name);
		return -EINVAL;
	}
	*value++ = 0;
	name = trim(name);
	value = read_value(value);
	if (!value) {
		log_error("%s%s has text after its quoted value, or no closing quote",
			  where, name);
		return -EINVAL;
	}
	if (!option_find(name) && !is_word_in(later_options, name)) {
		near = nearest_option(name);
		log_error("%sno option is called '%s'%s%s%s", where, name,
			  near ? "; did you mean '" : "", near ? near : "",
			  near ? "'?" : "");
		return -EINVAL;
	}
	return set_outside(options, name, value, source, where, name);
}

/* @path stays valid.  No file is fine. */
static int read_file(struct options *options, const char *path)
{
	FILE *file = fopen(path, "re");
	char *line = NULL, *where = NULL;
	unsigned int number = 0;
	size_t room = 0;
	int error = 0;

	if (!file) {
		if (errno == ENOENT || errno == ENOTDIR)
			return 0;
		log_error("%s: cannot be read: %s", path, strerror(errno));
		return -EINVAL;
	}
	while (!error && getline(&line, &room, file) >= 0) {
		free(where);
		if (asprintf(&where, "%s:%u: ", path, ++number) < 0) {
			where = NULL;
			error = -ENOMEM;
		} else {
			error = read_line(options, line, path, where);
		}
	}
	if (!error && ferror(file)) {
		log_error("%s: cannot be read: %s", path, strerror(errno));
		error = -EINVAL;
	}
	free(where);
	free(line);
	fclose(file);
	return error;
}

int options_read_files(struct options *options)
{
	static char user_file[4096];	/* named as a source until the end */
	const char *home = getenv("HOME");
	int error = 0;

	if (home && *home == '/' &&
	    (size_t)snprintf(user_file, sizeof(user_file), "%s/%s", home,
			     USER_FILE) < sizeof(user_file))
		error = read_file(options, user_file);
	return error ? error : read_file(options, SYSTEM_FILE);
}
