/* verbs.h: what runs each verb; the table in table.c says the rest.
 *
 * Each returns the exit status: 0, 1 (failure) or 2 (usage), logged. */
#ifndef OBJMAP_VERBS_H
#define OBJMAP_VERBS_H

#include "src/cmd/options.h"

typedef int verb_run(const struct options *options, int nr_arguments,
		     char **arguments);

verb_run clone_run, config_run, copy_verb_run, create_run, delete_run, doctor_run,
	 gc_run, help_run, info_run, list_run, mount_run, resize_run,
	 rollback_run, serve_run, snapshot_create_run, snapshot_delete_run,
	 snapshot_list_run, status_run, umount_run, verify_run;

#endif
