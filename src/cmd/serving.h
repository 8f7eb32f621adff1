/* serving.h: what mount and serve share: options to mounts, and serving them. */
#ifndef OBJMAP_SERVING_H
#define OBJMAP_SERVING_H

#include "src/cmd/options.h"
#include "src/mount.h"

/* Reads what the export options of @options say into *spec.  @state: what
 * --state says, or NULL.  Returns 0; EXIT_USAGE or 1, logged. */
int serving_spec(const struct options *options, const char *place,
		 const char *where, const char *state, struct mount_spec *spec);

/* Mounts all of @specs (each is emptied) as the server options say, leaves a
 * daemon behind or stays, runs @command (NULL: none) meanwhile.  Returns the
 * exit status. */
int serving_run(const struct options *options, struct mount_spec *specs,
		unsigned int nr_specs, char **command);

#endif
