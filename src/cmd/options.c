/* options.c: reads the command line by the table, and keeps what was given. */
#include <assert.h>
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "src/cmd/options.h"
#include "src/log.h"
#include "src/nearest.h"
#include "src/units.h"

#define NR_OPTIONS_MAX	 128
#define NR_ARGUMENTS_MAX 4096

struct value {
	char *text;		/* NULL: not given */
	const char *source;
	uint64_t number;	/* bytes, nanoseconds or the number; flags: 0, 1 */
};

struct options {
	const struct verb *verb;
	struct value values[NR_OPTIONS_MAX];	/* as in option_table */
	char **arguments;
	int nr_arguments;
	char **command;		/* of the OPTION_COMMAND, inside main()'s argv */
};

const struct option_spec *option_find(const char *name)
{
	const struct option_spec *spec;

	for (spec = option_table; spec->name; spec++)
		if (strcmp(spec->name, name) == 0)
			return spec;
	return NULL;
}

bool verb_takes(const struct verb *verb, const char *name)
{
	const char *const *o;

	for (o = verb->options; *o; o++)
		if (strcmp(*o, name) == 0)
			return true;
	return false;
}

/* ---- values ------------------------------------------------------------------ */

static bool word_is_in(const char *words, const char *word)
{
	size_t length = strlen(word), n;

	while (words && *words) {
		n = strcspn(words, "|");
		if (n == length && strncmp(words, word, n) == 0)
			return true;
		words += n + (words[n] == '|');
	}
	return false;
}

int flag_parse(const char *text, uint64_t *value)
{
	if (word_is_in("yes|true|on|1", text))
		*value = 1;
	else if (word_is_in("no|false|off|0", text))
		*value = 0;
	else
		return -EINVAL;
	return 0;
}

static int number_parse(const char *text, uint64_t *value)
{
	char *end;

	if (*text < '0' || *text > '9')
		return -EINVAL;
	errno = 0;
	*value = strtoull(text, &end, 10);
	if (*end)
		return -EINVAL;
	return errno ? -ERANGE : 0;
}

/* What a value of this kind looks like, for messages. */
static const char *kind_example(enum option_kind kind)
{
	switch (kind) {
	case OPTION_FLAG:   return "yes or no";
	case OPTION_SIZE:   return "a size such as 64K, 10G or 4096";
	case OPTION_TIME:   return "a time such as 500ms, 30s, 5min or 24h";
	case OPTION_NUMBER: return "a number";
	default:	    return "a text";
	}
}

static const char *kind_format(enum option_kind kind, uint64_t value,
			       char text[UNITS_TEXT])
{
	if (kind == OPTION_SIZE)
		return size_format(value, text);
	if (kind == OPTION_TIME)
		return time_format(value, text);
	snprintf(text, UNITS_TEXT, "%llu", (unsigned long long)value);
	return text;
}

static int check_range(const struct option_spec *spec, uint64_t value,
		       int error, const char *where, const char *name)
{
	uint64_t maximum = spec->maximum ? spec->maximum : UINT64_MAX;
	char low[UNITS_TEXT], high[UNITS_TEXT];

	if (error == 0 && value >= spec->minimum && value <= maximum) {
		if (!spec->power_of_two || value == 0 ||
		    (value & (value - 1)) == 0)
			return 0;
		log_error("%s%s must be a power of two", where, name);
		return -EINVAL;
	}
	kind_format(spec->kind, spec->minimum, low);
	kind_format(spec->kind, maximum, high);
	if (spec->maximum)
		log_error("%s%s must be between %s and %s", where, name, low, high);
	else if (error == 0)
		log_error("%s%s must be at least %s", where, name, low);
	else
		log_error("%s%s is too large", where, name);
	return -EINVAL;
}

static int check_choice(const struct option_spec *spec, const char *text,
			const char *where, const char *name)
{
	if (word_is_in(spec->choices, text))
		return 0;
	if (word_is_in(spec->later, text))
		log_error("%s%s %s: not in this build (it has: %s)", where, name,
			  text, spec->choices);
	else
		log_error("%s%s is one of %s, not '%s'", where, name,
			  spec->choices, text);
	return -EINVAL;
}

static int value_parse(const struct option_spec *spec, const char *text,
		       uint64_t *number, const char *where, const char *name)
{
	int error = 0;

	*number = 0;
	switch (spec->kind) {
	case OPTION_FLAG:
		error = flag_parse(text, number);
		break;
	case OPTION_SIZE:
		error = size_parse(text, number);
		break;
	case OPTION_TIME:
		error = time_parse(text, number);
		break;
	case OPTION_NUMBER:
		error = number_parse(text, number);
		break;
	case OPTION_CHOICE:
		return check_choice(spec, text, where, name);
	case OPTION_TEXT:
	case OPTION_PATH:
	case OPTION_COMMAND:
		if (*text)
			return 0;
		log_error("%s%s is empty", where, name);
		return -EINVAL;
	}
	if (error && error != -ERANGE) {
		log_error("%s%s takes %s, not '%s'", where, name,
			  kind_example(spec->kind), text);
		return -EINVAL;
	}
	return check_range(spec, *number, error, where, name);
}

int option_set(struct options *options, const struct option_spec *spec,
	       const char *text, const char *source, const char *where,
	       const char *name)
{
	struct value *value = &options->values[spec - option_table];
	uint64_t number;
	char *copy;
	int error;

	error = value_parse(spec, text, &number, where, name);
	if (error)
		return error;
	/* Sources are read strongest first: checked, but not taken twice. */
	if (value->text && strcmp(value->source, source) != 0)
		return 0;
	copy = strdup(text);
	if (!copy)
		return -ENOMEM;
	free(value->text);
	value->text = copy;
	value->number = number;
	value->source = source;
	return 0;
}

/* ---- the command line ----------------------------------------------------------- */

enum { GIVEN_HELP = 1000, GIVEN_LATER, GIVEN_NOT, GIVEN_OPTION };

struct getopt_table {
	struct option longs[3 * NR_OPTIONS_MAX];
	unsigned int nr_longs;
	char shorts[2 * NR_OPTIONS_MAX];
	char *negations[NR_OPTIONS_MAX];	/* "no-json" */
	unsigned int nr_negations;
};

static void table_add(struct getopt_table *table, const char *name,
		      int argument, int code)
{
	struct option *o = &table->longs[table->nr_longs++];

	o->name = name;
	o->has_arg = argument;
	o->val = code;
}

static void table_add_option(struct getopt_table *table, const char *name)
{
	const struct option_spec *spec = option_find(name);
	bool flag = spec->kind == OPTION_FLAG;
	int code = (int)(spec - option_table) * 2 + GIVEN_OPTION;
	size_t end = strlen(table->shorts);
	char *negation;

	table_add(table, name, flag ? no_argument : required_argument, code);
	if (spec->letter) {
		table->shorts[end++] = spec->letter;
		if (!flag)
			table->shorts[end] = ':';
	}
	if (flag && !spec->command_line_only &&
	    asprintf(&negation, "no-%s", name) > 0) {
		table->negations[table->nr_negations++] = negation;
		table_add(table, negation, no_argument, code + 1);
	}
}

static void table_build(struct getopt_table *table, const struct verb *verb)
{
	const char *const *o;

	memset(table, 0, sizeof(*table));
	/* '-': arguments come as code 1, in order; ':': own messages. */
	strcpy(table->shorts, "-:h");
	table_add(table, "help", no_argument, GIVEN_HELP);
	for (o = verb->options; *o; o++)
		table_add_option(table, *o);
	for (o = later_options; *o; o++)
		if (!verb_takes(verb, *o))
			table_add(table, *o, optional_argument, GIVEN_LATER);
}

static void table_free(struct getopt_table *table)
{
	while (table->nr_negations)
		free(table->negations[--table->nr_negations]);
}

static void tell_unknown(const struct verb *verb, const char *word)
{
	const char *name = word + strspn(word, "-"), *near;
	size_t length = strcspn(name, "=");
	char given[64];
	const struct verb *v;

	snprintf(given, sizeof(given), "%.*s", (int)length, name);
	near = nearest_word(given, verb->options);
	if (option_find(given)) {
		for (v = verbs; !verb_takes(v, given); v++)
			;
		log_error("%s does not take --%s (%s does); see objmap %s --help",
			  verb->name, given, v->name, verb->name);
	} else if (near && word[1] == '-') {
		log_error("%s has no option --%s; did you mean --%s?",
			  verb->name, given, near);
	} else {
		log_error("%s has no option %s%s; see objmap %s --help",
			  verb->name, word[1] == '-' ? "--" : "-", given,
			  verb->name);
	}
}

/* Why getopt_long() said '?' to the long option @word. */
static void tell_bad_long(const struct getopt_table *table,
			  const struct verb *verb, const char *word)
{
	size_t length = strcspn(word + 2, "=");
	char matches[256] = "";
	unsigned int i, nr = 0;

	for (i = 0; i < table->nr_longs; i++) {
		size_t used = strlen(matches);

		if (strncmp(table->longs[i].name, word + 2, length) != 0)
			continue;
		nr++;
		snprintf(matches + used, sizeof(matches) - used, " --%s",
			 table->longs[i].name);
	}
	if (length > 0 && nr > 1)
		log_error("%.*s could be any of%s", (int)length + 2, word, matches);
	else
		tell_unknown(verb, word);
}

static int add_argument(struct options *options, char *argument)
{
	if (options->nr_arguments == NR_ARGUMENTS_MAX) {
		log_error("too many arguments");
		return -EINVAL;
	}
	options->arguments[options->nr_arguments++] = argument;
	return 0;
}

/* One answer of getopt_long(); returns -EINVAL, logged, or 0. */
static int take_option(struct options *options,
		       const struct getopt_table *table, int code, char *word)
{
	const struct option_spec *spec = NULL;
	unsigned int i;
	char name[80];

	if (code > 0 && code < 256 && code != '?' && code != ':') {
		for (spec = option_table; spec->name; spec++)
			if (spec->letter == code &&
			    verb_takes(options->verb, spec->name))
				break;
		snprintf(name, sizeof(name), "-%c", code);
	} else if (code >= GIVEN_OPTION) {
		spec = &option_table[(code - GIVEN_OPTION) / 2];
		snprintf(name, sizeof(name), "--%s", spec->name);
	}
	if (spec && spec->kind == OPTION_FLAG)
		return option_set(options, spec,
				  code >= GIVEN_OPTION && (code - GIVEN_OPTION) % 2
				  ? "no" : "yes", "command line", "", name);
	if (spec)
		return option_set(options, spec, optarg, "command line", "", name);
	if (code == GIVEN_LATER) {
		log_error("%.*s: not in this build",
			  (int)strcspn(word, "="), word);
	} else if (code == ':') {
		log_error("%s needs a value; see objmap %s --help", word,
			  options->verb->name);
	} else if (word[0] == '-' && word[1] == '-') {
		for (i = 0; optopt && i < table->nr_longs; i++)
			if (table->longs[i].val == optopt)
				break;
		if (optopt)
			log_error("--%s takes no value", table->longs[i].name);
		else
			tell_bad_long(table, options->verb, word);
	} else {
		char letter[3] = { '-', (char)optopt, 0 };

		tell_unknown(options->verb, letter);
	}
	return -EINVAL;
}

static bool is_command(int code)
{
	return code >= GIVEN_OPTION &&
	       option_table[(code - GIVEN_OPTION) / 2].kind == OPTION_COMMAND;
}

static int read_command_line(struct options *options, int argc, char **argv)
{
	struct getopt_table table;
	int code, error = 0;

	table_build(&table, options->verb);
	optind = 1;
	opterr = 0;
	while (!error) {
		char *word = argv[optind];

		code = getopt_long(argc, argv, table.shorts, table.longs, NULL);
		if (code == -1)
			break;
		if (code == 1) {
			error = add_argument(options, optarg);
		} else if (code == GIVEN_HELP || code == 'h') {
			help_print_verb(options->verb);
			error = -ECANCELED;
		} else {
			error = take_option(options, &table, code, word);
		}
		if (!error && is_command(code)) {
			/* The command's own words are none of ours. */
			options->command = argv + optind - 1;
			if (optarg != argv[optind - 1])	/* --run=COMMAND */
				options->command[0] = optarg;
			optind = argc;
		}
	}
	while (!error && optind < argc)
		error = add_argument(options, argv[optind++]);
	table_free(&table);
	return error;
}

static int check_nr_arguments(const struct options *options)
{
	const struct verb *verb = options->verb;
	int nr = options->nr_arguments;

	if (nr < verb->min_arguments)
		log_error("%s needs %s; usage: objmap %s %s", verb->name,
			  nr ? "more arguments" : "arguments", verb->name,
			  verb->usage);
	else if (verb->max_arguments >= 0 && nr > verb->max_arguments)
		log_error("%s: '%s' is one argument too many; usage: objmap %s %s",
			  verb->name, options->arguments[verb->max_arguments],
			  verb->name, verb->usage);
	else
		return 0;
	return -EINVAL;
}

int options_parse(const struct verb *verb, int argc, char **argv,
		  struct options **options, int *nr_arguments,
		  char ***arguments)
{
	struct options *o = calloc(1, sizeof(*o));
	int error = -ENOMEM;

	*options = NULL;
	if (!o)
		return -ENOMEM;
	o->verb = verb;
	o->arguments = calloc(NR_ARGUMENTS_MAX + 1, sizeof(*o->arguments));
	if (!o->arguments)
		goto out;
	error = read_command_line(o, argc, argv);
	if (!error)
		error = check_nr_arguments(o);
	if (!error)
		error = options_read_environment(o);
	if (!error)
		error = options_read_files(o);
	if (error)
		goto out;
	*options = o;
	*nr_arguments = o->nr_arguments;
	*arguments = o->arguments;
	o = NULL;
out:
	options_free(o);
	return error;
}

void options_free(struct options *options)
{
	unsigned int i;

	if (!options)
		return;
	for (i = 0; i < NR_OPTIONS_MAX; i++)
		free(options->values[i].text);
	free(options->arguments);
	free(options);
}

/* ---- fetching --------------------------------------------------------------------- */

static const struct value *value_of(const struct options *options,
				    const char *name)
{
	const struct option_spec *spec = option_find(name);

	assert(spec && verb_takes(options->verb, name));
	return &options->values[spec - option_table];
}

static uint64_t number_of(const struct options *options, const char *name)
{
	const struct value *value = value_of(options, name);
	const struct option_spec *spec = option_find(name);
	uint64_t number = 0;

	if (value->text)
		return value->number;
	if (spec->fallback && value_parse(spec, spec->fallback, &number,
					  "default: ", name) != 0)
		abort();	/* the table is wrong; a test reads all of it */
	return number;
}

bool option_given(const struct options *options, const char *name)
{
	return value_of(options, name)->text != NULL;
}

bool option_flag(const struct options *options, const char *name)
{
	return number_of(options, name) != 0;
}

uint64_t option_size(const struct options *options, const char *name)
{
	return number_of(options, name);
}

uint64_t option_time(const struct options *options, const char *name)
{
	return number_of(options, name);
}

uint64_t option_number(const struct options *options, const char *name)
{
	return number_of(options, name);
}

const char *option_text(const struct options *options, const char *name)
{
	const struct value *value = value_of(options, name);

	return value->text ? value->text : option_find(name)->fallback;
}

char **option_command(const struct options *options, const char *name)
{
	return value_of(options, name)->text ? options->command : NULL;
}

const char *option_source(const struct options *options, const char *name)
{
	const struct value *value = value_of(options, name);

	return value->text ? value->source : "default";
}

void option_shown(const struct options *options,
		  const struct option_spec *spec, const char **text,
		  const char **source)
{
	const struct value *value = &options->values[spec - option_table];

	*text = value->text ? value->text : spec->fallback;
	*source = value->text ? value->source : "default";
}
