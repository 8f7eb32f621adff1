/* umount.c: commits what is not saved, and ends a mount. */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "config.h"
#include "src/cmd/print.h"
#include "src/cmd/verbs.h"
#include "src/control.h"
#include "src/errors.h"
#include "src/frontend/fuse/mountpoint.h"
#include "src/log.h"
#include "src/progress.h"
#include "src/where.h"

#define EXIT_SECONDS 10	/* a daemon that has answered ends in no time */

static void show_progress(void *context, const json_t *news)
{
	json_int_t done = json_integer_value(json_object_get(news, "done"));
	json_int_t total = json_integer_value(json_object_get(news, "total"));

	progress_update(context, "saving", (uint64_t)done, (uint64_t)total);
}

/* Until process @pid has gone: what it held (sockets, locks) is free then. */
static void wait_for_exit(pid_t pid)
{
	struct pollfd wait = { .fd = (int)syscall(SYS_pidfd_open, pid, 0),
			       .events = POLLIN };

	if (wait.fd < 0)
		return;
	poll(&wait, 1, EXIT_SECONDS * 1000);
	close(wait.fd);
}

/* Until the name is free again, where the daemon lives on for other mounts. */
static void wait_for_name(const char *control)
{
	struct timespec pause = { 0, 10000000 };

	for (int i = 0; i < EXIT_SECONDS * 100 && access(control, F_OK) == 0; i++)
		nanosleep(&pause, NULL);
}

/* Nobody answers: perhaps a dead mount is left. */
static int clean_up(const struct where *where)
{
	int nr = 0;

#ifdef HAVE_FUSE
	if (where->kind == WHERE_FUSE) {
		nr = mountpoint_clean(where->path);
		if (nr < 0)
			return 1;
		if (!nr && mountpoint_look(where->path) == MOUNTPOINT_LIVE) {
			log_error("%s is mounted, but its daemon does not answer in %s: was it started by another user or with another OBJMAP_RUNTIME_DIR?",
				  where->text, runtime_dir());
			return 1;
		}
	}
#endif
	if (!nr) {
		log_error("%s is not mounted", where->text);
		return 1;
	}
	log_notice("%s: its daemon had gone; the mount it left is taken away. What it had not saved before is lost",
		   where->text);
	return 0;
}

static int tell(const struct options *options, const struct where *where,
		const char *control, const json_t *reply)
{
	int error = (int)json_integer_value(json_object_get(reply, "error"));
	int status = (int)json_integer_value(json_object_get(reply, "status"));
	pid_t pid = (pid_t)json_integer_value(json_object_get(reply, "pid"));
	const char *message = json_string_value(json_object_get(reply, "message"));

	if (error) {
		log_error("%s", message ? message : error_words(-error));
		return 1;
	}
	if (json_is_true(json_object_get(reply, "last")) && pid > 0)
		wait_for_exit(pid);
	else
		wait_for_name(control);
	if (status && message)
		log_error("%s", message);
	else if (status)
		log_error("%s has ended, but not all was saved: its log says what",
			  where->text);
	if (option_flag(options, "json"))
		print_json(json_pack("{s:s, s:b}", "where", where->text,
				     "saved", !status));
	return status ? 1 : 0;
}

static int ask(const struct options *options, const struct where *where,
	       const char *control)
{
	json_t *request = json_pack("{s:s, s:b, s:b}", "command", "umount",
				    "drop", option_flag(options, "no-drain"),
				    "lazy", option_flag(options, "force"));
	struct progress *progress;
	json_t *reply = NULL;
	int error, status;

	error = progress_open(option_flag(options, "quiet"), PROGRESS_BYTES,
			      &progress);
	if (error) {
		json_decref(request);
		log_error("%s: %s", where->text, error_words(error));
		return 1;
	}
	error = control_call(control, request, option_time(options, "timeout"),
			     show_progress, progress, &reply, NULL);
	progress_close(progress);
	if (error == -ECONNREFUSED || error == -ENOENT)
		return clean_up(where);
	if (error == -EAGAIN) {
		log_error("%s: its daemon does not answer", where->text);
		return 1;
	}
	if (error == -ETIMEDOUT) {
		log_error("%s is still being saved; it ends when that is done (objmap status '%s')",
			  where->text, where->text);
		return 1;
	}
	if (error) {
		log_error("%s: its daemon ended without an answer: %s",
			  where->text, error_words(error));
		return 1;
	}
	status = tell(options, where, control, reply);
	json_decref(reply);
	return status;
}

int umount_run(const struct options *options, int nr_arguments, char **arguments)
{
	struct where where;
	char *control;
	int status = 1;

	(void)nr_arguments;
	if (option_flag(options, "no-drain") && !option_flag(options, "force")) {
		log_error("--no-drain drops what is not saved: add --force to say that you mean it");
		return EXIT_USAGE;
	}
	if (where_parse(arguments[0], &where) != 0)
		return EXIT_USAGE;
	control = where_control_path(&where);
	if (control)
		status = ask(options, &where, control);
	free(control);
	where_free(&where);
	return status;
}
