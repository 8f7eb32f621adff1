/* mount.c: serves a place as a file or as an NBD export. */
#include "src/cmd/serving.h"
#include "src/cmd/verbs.h"
#include "src/log.h"

int mount_run(const struct options *options, int nr_arguments, char **arguments)
{
	char **command = option_command(options, "run");
	struct mount_spec spec;
	int status;

	if (nr_arguments != 2) {
		log_error("mount takes PLACE and WHERE; a command comes last, after --run");
		return EXIT_USAGE;
	}
	status = serving_spec(options, arguments[0], arguments[1],
			      option_text(options, "state"), &spec);
	if (status)
		return status;
	spec.over = option_flag(options, "over");
	if (command && spec.where.fd >= 0) {
		log_error("--run: the command could not reach %s: name a path or an NBD address",
			  spec.where.text);
		status = EXIT_USAGE;
	} else {
		status = serving_run(options, &spec, 1, command);
	}
	mount_spec_free(&spec);
	return status;
}
