/* config.c: `objmap config`: every option's value and where it comes from. */
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "src/cmd/print.h"
#include "src/cmd/verbs.h"

static bool is_configurable(const struct option_spec *spec)
{
	return !spec->command_line_only && spec->kind != OPTION_COMMAND;
}

static int print_all_json(const struct options *options)
{
	json_t *all = json_object();
	const struct option_spec *spec;
	const char *text, *source;

	for (spec = option_table; spec->name; spec++) {
		if (!is_configurable(spec))
			continue;
		option_shown(options, spec, &text, &source);
		json_object_set_new(all, spec->name,
				    json_pack("{s:o, s:s}", "value",
					      print_json_text(text), "source", text ? source : "none"));
	}
	return print_json(all);
}

/* In the form of objmap.conf(5), which this can be stored as. */
static void print_line(const char *name, const char *text, const char *source)
{
	/* One that has a '"' came without quotes around it: there it may stand. */
	bool quoted = *text == 0 || (strpbrk(text, "# \t") && !strchr(text, '"'));

	printf("%-20s = %s%s%s%*s # %s\n", name, quoted ? "\"" : "", text,
	       quoted ? "\"" : "", strlen(text) < 14 ? 14 - (int)strlen(text) : 0, "",
	       source);
}

int config_run(const struct options *options, int nr_arguments, char **arguments)
{
	const struct option_spec *spec;
	const char *text, *source;

	if (option_flag(options, "json"))
		return print_all_json(options);
	for (spec = option_table; spec->name; spec++) {
		if (!is_configurable(spec))
			continue;
		option_shown(options, spec, &text, &source);
		if (!text && spec->kind == OPTION_FLAG)
			text = "no";
		if (text)
			print_line(spec->name, text, source);
		else
			printf("# %s is not set\n", spec->name);
	}
	return 0;
}
