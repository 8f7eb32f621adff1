/* help.c: --help out of the table, and `objmap help`, which shows manual pages. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "src/cmd/verbs.h"
#include "src/cmd/main.h"
#include "src/log.h"
#include "src/place.h"

#define COLUMN	   28	/* where the text of an option begins */
#define LINE_WIDTH 78

/* What a place begins with in this build; the completion reads it. */
static void print_places(void)
{
	const char *const *name;
	int used = 0;

	puts("\nplaces begin with:");
	for (name = place_schemes(); *name; name++) {
		if ((size_t)used + strlen(*name) + 2 > LINE_WIDTH)
			used = printf("\n") - 1;
		used += printf("%s%s:", used ? " " : "  ", *name);
	}
	putchar('\n');
}

void help_print_overview(void)
{
	const struct verb *verb;

	puts("usage: objmap VERB [OPTION ...] ARGUMENTS\n\n"
	     "objmap keeps volumes as chunks in object storage or a directory and\n"
	     "serves them as files and as NBD exports.\n\nverbs:");
	for (verb = verbs; verb->name; verb++)
		printf("  %-16s %s\n", verb->name, verb->text);
	print_places();
	puts("\nobjmap VERB --help says what a verb takes, objmap help VERB shows its\n"
	     "manual page, objmap --version the version.");
}

static void print_option(const struct option_spec *spec)
{
	char left[80];
	int used;

	used = snprintf(left, sizeof(left), "  %c%c%s --%s",
			spec->letter ? '-' : ' ',
			spec->letter ? spec->letter : ' ',
			spec->letter ? "," : " ", spec->name);
	if (spec->argument)
		snprintf(left + used, sizeof(left) - (size_t)used, " %s",
			 spec->choices ? spec->choices : spec->argument);
	printf("%-*s", COLUMN, left);
	if (strlen(left) >= COLUMN)
		printf("\n%*s", COLUMN, "");
	fputs(spec->text, stdout);
	if (spec->fallback)
		printf(" (%s)", spec->fallback);
	putchar('\n');
}

void help_print_verb(const struct verb *verb)
{
	const struct option_spec *spec;

	printf("usage: objmap %s %s\n\n%s\n", verb->name, verb->usage, verb->text);
	if (!verb->options[0])
		return;
	puts("\noptions:");
	for (spec = option_table; spec->name; spec++)
		if (verb_takes(verb, spec->name) && !spec->of_s3)
			print_option(spec);
	printf("  -h, --%-*s%s\n", COLUMN - 8, "help", "show this");
	if (!verb_takes(verb, "endpoint-url"))
		return;
	puts("\noptions for s3: places, each also as ?NAME=VALUE of one:");
	for (spec = option_table; spec->name; spec++)
		if (spec->of_s3)
			print_option(spec);
}

/* ---- manual pages ------------------------------------------------------------------ */

/* The page in the build tree this program still stands in; else its name,
 * for man to find. */
static void page_path(const char *page, char *path, size_t size)
{
	char self[4096];
	ssize_t length = readlink("/proc/self/exe", self, sizeof(self) - 1);
	char *slash;

	if (length > 0) {
		self[length] = 0;
		slash = strrchr(self, '/');
		*slash = 0;
		snprintf(path, size, "%s/man/%s.1", self, page);
		if (access(path, R_OK) == 0)
			return;
	}
	snprintf(path, size, "%s", page);
}

/* Whether man showed it. */
static bool show_page(const char *page)
{
	char path[4200];
	int status;
	pid_t pid;

	page_path(page, path, sizeof(path));
	fflush(stdout);
	pid = fork();
	if (pid < 0)
		return false;
	if (pid == 0) {
		/* "No manual entry" is not the user's trouble: --help follows. */
		if (!freopen("/dev/null", "w", stderr))
			_exit(127);
		execlp("man", "man", path, (char *)NULL);
		_exit(127);
	}
	while (waitpid(pid, &status, 0) < 0)
		if (errno != EINTR)
			return false;
	return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

int help_run(const struct options *options, int nr_arguments, char **arguments)
{
	const struct verb *verb;
	int used, error;
	char page[64];
	char *c;

	if (nr_arguments == 0) {
		if (!show_page("objmap"))
			help_print_overview();
		return 0;
	}
	error = verb_find(nr_arguments, arguments, &verb, &used);
	if (error == -EINPROGRESS) {	/* "snapshot": the page of all of them */
		snprintf(page, sizeof(page), "objmap-%s", arguments[0]);
		verb = NULL;
	} else if (error) {
		return EXIT_USAGE;
	} else {
		snprintf(page, sizeof(page), "objmap-%s", verb->name);
		/* "snapshot create" stands in objmap-snapshot(1). */
		c = strchr(page, ' ');
		if (c)
			*c = 0;
	}
	if (show_page(page))
		return 0;
	if (verb)
		help_print_verb(verb);
	else
		verb_print_family(arguments[0]);
	return 0;
}
