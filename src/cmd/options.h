/* options.h: the one table of verbs and their options, and what was given.
 *
 * table.c holds the table.  Parsing, --help, the completion, `objmap config`
 * and the tests of the man pages are all driven from it.  A value comes from,
 * in this order, the command line, the environment (OBJMAP_CHUNK_SIZE for
 * --chunk-size), ~/.config/objmap.conf, /etc/objmap.conf, the default; words
 * that can hurt come from the command line only.  Values are checked when they
 * are read in, by kind, so the functions that fetch them cannot fail.
 */
#ifndef OBJMAP_OPTIONS_H
#define OBJMAP_OPTIONS_H

#include <stdbool.h>
#include <stdint.h>

#define EXIT_USAGE 2

enum option_kind {
	OPTION_FLAG,	/* --force; --no-direct where a file or the environment set it */
	OPTION_TEXT,
	OPTION_PATH,
	OPTION_SIZE,	/* bytes, see size_parse() */
	OPTION_TIME,	/* nanoseconds, see time_parse() */
	OPTION_NUMBER,
	OPTION_CHOICE,	/* one of the words in @choices, separated by '|' */
	OPTION_COMMAND,	/* a command and its arguments: the rest of the line */
};

struct option_spec {
	const char *name;	/* long name without -- */
	char letter;		/* short form, 0: none */
	enum option_kind kind;
	const char *argument;	/* name of the value in --help: SIZE */
	const char *choices;
	const char *later;	/* words as in @choices that this build has not */
	const char *fallback;	/* the default as text; NULL: none */
	uint64_t minimum, maximum;	/* of a size, time or number; maximum 0: any */
	bool power_of_two;
	bool command_line_only;	/* can hurt */
	bool of_s3;		/* of an s3: place's server: also a ?parameter there */
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

/* Both end with an entry without a name.  A verb's run function is in its own
 * file, src/cmd/NAME.c, and declared in verbs.h. */
extern const struct verb verbs[];
extern const struct option_spec option_table[];

/* Options and verbs that are known, but not in this build; NULL at the end. */
extern const char *const later_options[];
extern const char *const later_verbs[];

const struct option_spec *option_find(const char *name);	/* or NULL */
bool verb_takes(const struct verb *verb, const char *name);

/* Reads the files, the environment and the command line after the verb.
 * Arguments come out in order in *arguments (NULL at the end), which belongs
 * to *options.  Returns 0, or -EINVAL, logged. */
int options_parse(const struct verb *verb, int argc, char **argv,
		  struct options **options, int *nr_arguments,
		  char ***arguments);
void options_free(struct options *options);

/* What the verb was given.  @name must be one the verb takes. */
bool option_given(const struct options *options, const char *name);
bool option_flag(const struct options *options, const char *name);
/* NULL when not given and without a default. */
const char *option_text(const struct options *options, const char *name);
/* 0 when not given and without a default. */
uint64_t option_size(const struct options *options, const char *name);
uint64_t option_time(const struct options *options, const char *name);
uint64_t option_number(const struct options *options, const char *name);
/* An OPTION_COMMAND: NULL at the end, as execvp() takes it; NULL: not given. */
char **option_command(const struct options *options, const char *name);
/* "command line", "environment", the file's path, or "default". */
const char *option_source(const struct options *options, const char *name);

/* For `objmap config`: any entry of option_table, whatever the verb takes. */
void option_shown(const struct options *options,
		  const struct option_spec *spec, const char **text,
		  const char **source);

/* ---- options.c, for sources.c and serve.c ------------------------------------------------ */

/* Checks @text by the kind of @spec and keeps it, unless a stronger source has
 * set it.  A failure is told as "WHERENAME what is wrong", so @where ends in
 * ": " or is empty.  @source stays valid.  Returns 0 or -EINVAL, logged. */
int option_set(struct options *options, const struct option_spec *spec,
	       const char *text, const char *source, const char *where,
	       const char *name);

/* The words of a flag, the same in every file: yes, true, on, 1; no, false, off,
 * 0.  Returns 0 or -EINVAL. */
int flag_parse(const char *text, uint64_t *value);

/* sources.c.  0, -EINVAL or -ENOMEM, logged. */
int options_read_files(struct options *options);
int options_read_environment(struct options *options);

/* ---- help.c ------------------------------------------------------------------- */

/* --help, on standard output. */
void help_print_overview(void);
void help_print_verb(const struct verb *verb);

#endif
