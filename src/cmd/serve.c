/* serve.c: serves what a file lists from one daemon.
 *
 *     # /etc/objmap/serve.conf
 *     [mount]
 *     place = dir:/srv/vm7
 *     where = nbd://127.0.0.1/vm7
 *     read-only = yes
 *
 * The whole file is read and checked before anything is opened. */
#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "src/cmd/serving.h"
#include "src/cmd/verbs.h"
#include "src/log.h"

#define MAX_MOUNTS  256
#define MAX_OPTIONS 64		/* of a section */

struct section {
	unsigned int line;
	char *place, *where;
	unsigned int nr_options;
	char *options[MAX_OPTIONS];	/* "--name=value", "--name", "--no-name" */
};

struct serve_file {
	const char *path;
	unsigned int line;
	unsigned int nr_sections;
	struct section *sections;
	struct options *scratch;	/* values are checked with their line */
};

static const struct verb *find_verb(const char *name)
{
	const struct verb *verb = verbs;

	while (strcmp(verb->name, name) != 0)
		verb++;
	return verb;
}

static char *trim(char *text)
{
	size_t length;

	while (isspace((unsigned char)*text))
		text++;
	for (length = strlen(text);
	     length && isspace((unsigned char)text[length - 1]); )
		text[--length] = 0;
	return text;
}

/* Whether a section may set @name: what belongs to one export, and no word
 * that can hurt but exclusive. */
static bool is_of_export(const struct option_spec *spec)
{
	if (strcmp(spec->name, "exclusive") == 0)
		return true;
	return verb_takes(find_verb("mount"), spec->name) &&
	       !verb_takes(find_verb("serve"), spec->name) &&
	       !spec->command_line_only && spec->kind != OPTION_COMMAND;
}

/* "--name=value"; of a flag "--name" or "--no-name".  malloc'ed; NULL: logged. */
static char *option_argument(struct serve_file *file,
			     const struct option_spec *spec, const char *value)
{
	char place[512], *argument = NULL;
	uint64_t yes;
	int n;

	snprintf(place, sizeof(place), "%s:%u: ", file->path, file->line);
	if (option_set(file->scratch, spec, value, file->path, place,
		       spec->name) != 0)
		return NULL;
	if (spec->kind != OPTION_FLAG || flag_parse(value, &yes) != 0)
		n = asprintf(&argument, "--%s=%s", spec->name, value);
	/* Words that can hurt have no --no- form: no is their default. */
	else if (spec->command_line_only && !yes)
		n = asprintf(&argument, "%s", "");
	else
		n = asprintf(&argument, "--%s%s", yes ? "" : "no-", spec->name);
	return n < 0 ? NULL : argument;
}

static int read_setting(struct serve_file *file, struct section *section,
			const char *name, const char *value)
{
	const struct option_spec *spec = option_find(name);
	char **text = strcmp(name, "place") == 0 ? &section->place :
		      strcmp(name, "where") == 0 ? &section->where : NULL;

	if (text && *text) {
		log_error("%s:%u: a second %s in one [mount]", file->path,
			  file->line, name);
		return -EINVAL;
	}
	if (text) {
		*text = strdup(value);
		return *text ? 0 : -ENOMEM;
	}
	if (!spec || !is_of_export(spec)) {
		log_error("%s:%u: %s is no setting of a [mount]%s", file->path,
			  file->line, name, spec ?
			  ": it is given on the command line of serve or not at all" : "");
		return -EINVAL;
	}
	if (section->nr_options == MAX_OPTIONS) {
		log_error("%s:%u: too many settings", file->path, file->line);
		return -EINVAL;
	}
	section->options[section->nr_options] = option_argument(file, spec, value);
	if (!section->options[section->nr_options])
		return -EINVAL;
	if (*section->options[section->nr_options])
		section->nr_options++;
	else
		free(section->options[section->nr_options]);
	return 0;
}

static int begin_section(struct serve_file *file, const char *line)
{
	struct section *sections;

	if (strcmp(line, "[mount]") != 0) {
		log_error("%s:%u: the sections of this file are called [mount], not %s",
			  file->path, file->line, line);
		return -EINVAL;
	}
	if (file->nr_sections == MAX_MOUNTS) {
		log_error("%s:%u: one daemon takes %d mounts", file->path,
			  file->line, MAX_MOUNTS);
		return -EINVAL;
	}
	sections = realloc(file->sections,
			   (file->nr_sections + 1) * sizeof(*sections));
	if (!sections)
		return -ENOMEM;
	file->sections = sections;
	sections[file->nr_sections++] = (struct section){ .line = file->line };
	return 0;
}

static int read_line(struct serve_file *file, char *line)
{
	char *text = trim(line), *value;

	if (*text == 0 || *text == '#' || *text == ';')
		return 0;
	if (*text == '[')
		return begin_section(file, text);
	value = strchr(text, '=');
	if (!value || value == text) {
		log_error("%s:%u: write it as NAME = VALUE", file->path,
			  file->line);
		return -EINVAL;
	}
	if (!file->nr_sections) {
		log_error("%s:%u: a setting before the first [mount]",
			  file->path, file->line);
		return -EINVAL;
	}
	*value++ = 0;
	return read_setting(file, &file->sections[file->nr_sections - 1],
			    trim(text), trim(value));
}

static int read_file(struct serve_file *file)
{
	FILE *in = fopen(file->path, "re");
	char *line = NULL;
	size_t room = 0;
	int error = 0;

	if (!in) {
		error = -errno;
		log_error("%s: %s", file->path, strerror(errno));
		return error;
	}
	while (!error && getline(&line, &room, in) >= 0) {
		file->line++;
		error = read_line(file, line);
	}
	if (!error && ferror(in)) {
		error = -EIO;
		log_error("%s: cannot be read: %s", file->path, strerror(errno));
	}
	free(line);
	fclose(in);
	if (!error && !file->nr_sections) {
		log_error("%s: it has no [mount]", file->path);
		error = -EINVAL;
	}
	return error;
}

/* Reads a section the way mount's command line is read. */
static int section_spec(struct serve_file *file, struct section *section,
			const char *state, struct mount_spec *spec,
			struct options **options)
{
	char *argv[MAX_OPTIONS + 4], verb[] = "mount";
	int argc = 0, nr, status;
	char **arguments;

	if (!section->place || !section->where) {
		log_error("%s:%u: this [mount] has no %s", file->path,
			  section->line, section->place ? "where" : "place");
		return EXIT_USAGE;
	}
	argv[argc++] = verb;
	for (unsigned int i = 0; i < section->nr_options; i++)
		argv[argc++] = section->options[i];
	argv[argc++] = section->place;
	argv[argc++] = section->where;
	argv[argc] = NULL;
	if (options_parse(find_verb("mount"), argc, argv, options, &nr,
			  &arguments) != 0)
		status = EXIT_USAGE;
	else
		status = serving_spec(*options, section->place, section->where,
				      state, spec);
	if (status)
		log_error("%s:%u: this [mount] is the one with the mistake; nothing was started",
			  file->path, section->line);
	else if (spec->where.fd >= 0) {
		log_error("%s:%u: %s is for mount, one connection is no server",
			  file->path, section->line, section->where);
		mount_spec_free(spec);
		status = EXIT_USAGE;
	}
	return status;
}

/* Whether the last of @specs is named as an earlier one. */
static bool is_named_twice(const struct serve_file *file,
			   const struct mount_spec *specs, unsigned int nr_specs)
{
	const struct where *last = &specs[nr_specs - 1].where;
	unsigned int i;

	for (i = 0; i + 1 < nr_specs; i++)
		if (strcmp(specs[i].where.canonical, last->canonical) == 0)
			break;
	if (i + 1 >= nr_specs)
		return false;
	log_error("%s:%u: %s is served by the [mount] of line %u already",
		  file->path, file->sections[nr_specs - 1].line, last->text,
		  file->sections[i].line);
	return true;
}

static void file_free(struct serve_file *file)
{
	for (unsigned int i = 0; i < file->nr_sections; i++) {
		struct section *section = &file->sections[i];

		free(section->place);
		free(section->where);
		for (unsigned int k = 0; k < section->nr_options; k++)
			free(section->options[k]);
	}
	free(file->sections);
	if (file->scratch)
		options_free(file->scratch);
}

int serve_run(const struct options *options, int nr_arguments, char **arguments)
{
	struct serve_file file = { .path = arguments[0] };
	struct mount_spec *specs = NULL;
	struct options **each = NULL;	/* specs point into them */
	int nr, status = EXIT_USAGE;
	unsigned int nr_specs = 0;
	char word[] = "mount", *none[] = { word, word, word, NULL }, **rest;

	(void)nr_arguments;
	if (options_parse(find_verb("mount"), 3, none, &file.scratch, &nr,
			  &rest) != 0 || read_file(&file) != 0)
		goto out;
	status = 1;
	specs = calloc(file.nr_sections, sizeof(*specs));
	each = calloc(file.nr_sections, sizeof(*each));
	if (!specs || !each)
		goto out;
	for (status = 0; nr_specs < file.nr_sections && !status; ) {
		status = section_spec(&file, &file.sections[nr_specs],
				      option_text(options, "state"),
				      &specs[nr_specs], &each[nr_specs]);
		nr_specs++;
		if (!status && is_named_twice(&file, specs, nr_specs))
			status = EXIT_USAGE;
	}
	if (!status)
		status = serving_run(options, specs, nr_specs, NULL);
out:
	for (unsigned int i = 0; i < nr_specs; i++) {
		mount_spec_free(&specs[i]);
		if (each[i])
			options_free(each[i]);
	}
	free(specs);
	free(each);
	file_free(&file);
	return status;
}
