/* options.h: the one table of verbs and their options, and what was given.
 *
 * options.c holds the table.  Parsing, --help, the completion, `objmap config`
 * and the tests of the man pages are all driven from it.  A value comes from,
 * in this order, the command line, the environment (OBJMAP_CACHE_SIZE for
 * --cache-size), ~/.config/objmap.conf, /etc/objmap.conf, the default; words
 * that can hurt come from the command line only.  Values are checked when they
 * are read in, by kind, so the functions that fetch them cannot fail.
 */
#ifndef OBJMAP_OPTIONS_H
#define OBJMAP_OPTIONS_H

#include <stdbool.h>
#include <stdint.h>

enum option_kind {
	OPTION_FLAG,	/* --force; --no-force where a file or the environment set it */
	OPTION_TEXT,
	OPTION_PATH,
	OPTION_SIZE,	/* bytes, see size_parse() */
	OPTION_TIME,	/* nanoseconds, see time_parse() */
	OPTION_NUMBER,
	OPTION_CHOICE,	/* one of the words in @choices, separated by '|' */
};

struct option_spec {
	const char *name;	/* long name without -- */
	char letter;		/* short form, 0: none */
	enum option_kind kind;
	const char *argument;	/* name of the value in --help: SIZE */
	const char *choices;
	const char *fallback;	/* the default as text; NULL: none */
	uint64_t minimum, maximum;	/* of a size, time or number; 0, 0: any */
	bool command_line_only;	/* can hurt */
	const char *text;	/* one line of --help */
};

struct options;		/* what was given to one verb */

struct verb {
	const char *name;	/* "mount", "snapshot create" */
	const char *usage;	/* "PLACE WHERE [OPTION ...]" */
	const char *text;	/* one line */
	const char *const *options;	/* names in the table; NULL at the end */
	int min_arguments, max_arguments;	/* max -1: any */
	/* Returns the exit status: 0, 1 (failure, logged), 2 (usage, logged). */
	int (*run)(const struct options *options, int nr_arguments,
		   char **arguments);
};

/* NULL at the end (.name).  A verb's run function is in its own file,
 * src/cmd/NAME.c, and declared in verbs.h. */
extern const struct verb verbs[];

const struct option_spec *option_find(const char *name);

bool option_given(const struct options *options, const char *name);
bool option_flag(const struct options *options, const char *name);
/* NULL when not given and without a default. */
const char *option_text(const struct options *options, const char *name);
/* 0 when not given and without a default. */
uint64_t option_size(const struct options *options, const char *name);
uint64_t option_time(const struct options *options, const char *name);
uint64_t option_number(const struct options *options, const char *name);
/* "command line", "environment", the file's path, or "default". */
const char *option_source(const struct options *options, const char *name);

#endif
