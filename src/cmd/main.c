/* main.c: finds the verb and runs it. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "config.h"
#include "src/cmd/main.h"
#include "src/log.h"
#include "src/nearest.h"

#define NR_VERBS_MAX 64

/* Whether @word is the first of the two words of @verb's name. */
static bool begins_with(const struct verb *verb, const char *word)
{
	size_t length = strcspn(verb->name, " ");

	return verb->name[length] == ' ' && strlen(word) == length &&
	       strncmp(verb->name, word, length) == 0;
}

static int tell_unknown(const char *word)
{
	const char *names[NR_VERBS_MAX + 1], *near;
	const char *const *later;
	unsigned int nr = 0;
	const struct verb *verb;

	for (later = later_verbs; *later; later++)
		if (strcmp(*later, word) == 0) {
			log_error("%s: not in this build", word);
			return -EINVAL;
		}
	for (verb = verbs; verb->name && nr < NR_VERBS_MAX; verb++)
		names[nr++] = verb->name;
	names[nr] = NULL;
	near = nearest_word(word, names);
	if (near)
		log_error("there is no verb '%s'; did you mean '%s'?", word, near);
	else
		log_error("there is no verb '%s'; objmap --help lists them", word);
	return -EINVAL;
}

int verb_find(int nr_words, char **words, const struct verb **verb, int *used)
{
	const struct verb *v;
	char name[64];
	bool family = false;

	snprintf(name, sizeof(name), "%s %s", words[0],
		 nr_words > 1 ? words[1] : "");
	for (v = verbs; v->name; v++) {
		*verb = v;
		*used = 1 + (strcmp(v->name, name) == 0);
		if (*used == 2 || strcmp(v->name, words[0]) == 0)
			return 0;
		family |= begins_with(v, words[0]);
	}
	if (!family)
		return tell_unknown(words[0]);
	if (nr_words > 1 && words[1][0] != '-')
		return tell_unknown(name);
	return -EINPROGRESS;
}

void verb_print_family(const char *word)
{
	const struct verb *verb;

	for (verb = verbs; verb->name; verb++)
		if (begins_with(verb, word))
			printf("usage: objmap %s %s\n", verb->name, verb->usage);
}

static int run_verb(int argc, char **argv)
{
	const struct verb *verb;
	struct options *options;
	int used, error, status, nr_arguments;
	char **arguments;

	error = verb_find(argc - 1, argv + 1, &verb, &used);
	if (error == -EINPROGRESS) {
		if (argc > 2 && (strcmp(argv[2], "--help") == 0 ||
				 strcmp(argv[2], "-h") == 0)) {
			verb_print_family(argv[1]);
			return 0;
		}
		log_error("%s what? objmap %s --help says", argv[1], argv[1]);
	}
	if (error)
		return EXIT_USAGE;
	error = options_parse(verb, argc - used, argv + used, &options,
			      &nr_arguments, &arguments);
	if (error == -ECANCELED)	/* --help was wanted */
		return 0;
	if (error)
		return EXIT_USAGE;
	status = verb->run(options, nr_arguments, arguments);
	options_free(options);
	return status;
}

/* What was printed must have arrived: a full disk is a failure. */
static int finish_output(int status)
{
	if ((fflush(stdout) != 0 || ferror(stdout)) && errno != EPIPE &&
	    status == 0) {
		log_error("standard output: %s", strerror(errno));
		return EXIT_FAILURE;
	}
	return status;
}

/* Where the caller has closed a standard descriptor, the next file that is opened
 * would have its number, and what is logged or printed would be written into an
 * image.  What stands there instead can be used no more than a closed one. */
static bool occupy_standard_descriptors(void)
{
	for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++)
		if (fcntl(fd, F_GETFD) < 0 &&
		    open("/dev/null", fd == STDIN_FILENO ? O_WRONLY : O_RDONLY) != fd)
			return false;
	return true;
}

int main(int argc, char **argv)
{
	if (!occupy_standard_descriptors())
		return EXIT_FAILURE;
	/* Who started us may have ignored it, and then no child would tell its end. */
	signal(SIGCHLD, SIG_DFL);
	if (argc < 2) {
		log_error("a verb is missing; objmap --help lists them");
		return EXIT_USAGE;
	}
	if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0) {
		help_print_overview();
		return finish_output(0);
	}
	if (strcmp(argv[1], "--version") == 0 || strcmp(argv[1], "-V") == 0) {
		puts("objmap " VERSION);
		return finish_output(0);
	}
	if (argv[1][0] == '-') {
		log_error("the verb comes first: objmap VERB [OPTION ...] ARGUMENTS");
		return EXIT_USAGE;
	}
	return finish_output(run_verb(argc, argv));
}
