/* status.c: says what the mounts of this machine are doing. */
#include "config.h"
#include "src/errors.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "src/clock.h"
#include "src/cmd/print.h"
#include "src/cmd/verbs.h"
#include "src/control.h"
#include "src/frontend/fuse/mountpoint.h"
#include "src/log.h"
#include "src/where.h"

#define ANSWER_TIMEOUT (5 * CLOCK_SECOND)
#define DEAD_ADVICE "its daemon has died: objmap umount takes it away, mount replaces it"

static const char *text_of(const json_t *object, const char *name)
{
	const char *text = json_string_value(json_object_get(object, name));

	return text ? text : "";
}

static uint64_t number_of(const json_t *object, const char *name)
{
	json_int_t number = json_integer_value(json_object_get(object, name));

	return number > 0 ? (uint64_t)number : 0;
}

static const char *age_of(const json_t *object, const char *name,
			  char text[UNITS_TEXT])
{
	double seconds = json_real_value(json_object_get(object, name));

	if (!json_is_real(json_object_get(object, name)))
		return "never";
	time_format((uint64_t)(seconds * 1e3) * CLOCK_MS, text);
	return strcat(text, " ago");
}

/* ---- one mount -------------------------------------------------------------------------- */

static void print_volume(const json_t *volume)
{
	char size[UNITS_TEXT], age[UNITS_TEXT + 8];
	uint64_t dirty = number_of(volume, "dirty_bytes");

	if (!volume)
		return;
	printf("  volume      %s, epoch %llu\n", text_of(volume, "uuid"),
	       (unsigned long long)number_of(volume, "epoch"));
	printf("  not saved   %s", size_format(dirty, size));
	if (dirty)
		printf(", the oldest written %s",
		       age_of(volume, "oldest_dirty_seconds", age));
	printf("\n  commits     %llu, the last %s",
	       (unsigned long long)number_of(volume, "commits"),
	       age_of(volume, "last_commit_seconds", age));
	if (number_of(volume, "failed_commits"))
		printf("; %llu failed",
		       (unsigned long long)number_of(volume, "failed_commits"));
	putchar('\n');
	if (json_is_true(json_object_get(volume, "fenced")))
		printf("  FENCED      by %s: read-only, nothing more is saved\n",
		       text_of(volume, "fenced_by"));
}

static void print_push(const json_t *push)
{
	if (!number_of(push, "batches"))
		return;
	printf("  pushed      %llu batches: %llu PUTs", (unsigned long long)
	       number_of(push, "batches"), (unsigned long long)number_of(push, "puts"));
	if (number_of(push, "parts"))
		printf(", %llu parts, %llu uploads completed, %llu aborted",
		       (unsigned long long)number_of(push, "parts"),
		       (unsigned long long)number_of(push, "completes"),
		       (unsigned long long)number_of(push, "aborts"));
	putchar('\n');
}

static void print_store(const json_t *store)
{
	json_t *causes = json_object_get(store, "causes");
	const json_t *trouble;
	char age[UNITS_TEXT + 8];

	if (!store)
		return;
	print_costs(json_incref(causes), "requests of the store");
	trouble = json_object_get(store, "trouble");
	if (json_is_object(trouble))
		printf("  TROUBLE     %s (began %s, %llu attempts)\n",
		       text_of(trouble, "reason"), age_of(trouble, "seconds", age),
		       (unsigned long long)number_of(trouble, "attempts"));
}

static void print_requests(const json_t *requests)
{
	static const char *const shown[] = { "read", "write", "zero", "trim", "flush" };
	char size[UNITS_TEXT];

	for (size_t i = 0; i < sizeof(shown) / sizeof(*shown); i++) {
		const json_t *op = json_object_get(requests, shown[i]);

		if (!number_of(op, "requests"))
			continue;
		printf("  %-10s  %llu requests of clients, %s\n", shown[i],
		       (unsigned long long)number_of(op, "requests"),
		       size_format(number_of(op, "bytes"), size));
	}
	printf("  errors      %llu\n",
	       (unsigned long long)number_of(requests, "errors"));
}

static void print_mount(const json_t *mount)
{
	char size[UNITS_TEXT];

	printf("%s\n  place       %s\n  state       %s, mode %s%s, process %llu\n",
	       text_of(mount, "where"), text_of(mount, "place"),
	       text_of(mount, "state"), text_of(mount, "mode"),
	       json_is_true(json_object_get(mount, "read_only")) ?
	       ", read-only" : "", (unsigned long long)number_of(mount, "pid"));
	printf("  size        %s\n  clients     %llu\n",
	       size_format(number_of(mount, "size"), size),
	       (unsigned long long)number_of(mount, "clients"));
	print_volume(json_object_get(mount, "volume"));
	print_push(json_object_get(mount, "push"));
	print_store(json_object_get(mount, "store"));
	print_requests(json_object_get(mount, "requests"));
}

/* ---- asking --------------------------------------------------------------------------------- */

static int ask(const char *control, json_t **status)
{
	int error = control_call(control, json_pack("{s:s}", "command", "status"),
				 ANSWER_TIMEOUT, NULL, NULL, status);

	if (!error)
		json_object_del(*status, "error");	/* the answer's, not the mount's */
	return error;
}

static void add_mount(void *context, const char *control)
{
	json_t *mounts = context, *status;

	if (ask(control, &status) == 0)
		json_array_append_new(mounts, status);
}

/* Whether a dead daemon's file is still at @where.  To be asked when nobody
 * answers: the file of one that only hangs would keep us waiting a while. */
static bool left_by_the_dead(const struct where *where)
{
#ifdef HAVE_FUSE
	return where->kind == WHERE_FUSE &&
	       mountpoint_look(where->path) == MOUNTPOINT_DEAD;
#else
	(void)where;
	return false;
#endif
}

#ifdef HAVE_FUSE
/* Such a file is in nobody's answer. */
static void add_if_dead(void *context, const char *path, const char *place)
{
	json_t *mounts = context, *mount, *status;
	struct where where;
	char *control;
	size_t i;
	int error;

	json_array_foreach(mounts, i, mount)
		if (strcmp(text_of(mount, "where"), path) == 0)
			return;
	if (where_parse(path, &where) != 0)
		return;
	control = where_control_path(&where);
	error = control ? ask(control, &status) : -EIO;
	if (!error)	/* mounted this very moment */
		json_array_append_new(mounts, status);
	else if ((error == -ECONNREFUSED || error == -ENOENT) &&
		 left_by_the_dead(&where))
		json_array_append_new(mounts, json_pack("{s:s, s:s, s:s}",
			"where", path, "place", place, "state", "dead"));
	free(control);
	where_free(&where);
}
#endif

static bool is_dead(const json_t *mount)
{
	return strcmp(text_of(mount, "state"), "dead") == 0;
}

static int add_row(struct table *table, const json_t *mount)
{
	const json_t *volume = json_object_get(mount, "volume");
	char size[UNITS_TEXT], dirty[UNITS_TEXT], clients[24];
	char unsaved[UNITS_TEXT + 16];
	const char *dead[] = { text_of(mount, "where"), text_of(mount, "place"),
			       "-", "-", "DEAD" };
	const char *cells[] = { text_of(mount, "where"), text_of(mount, "place"),
		size_format(number_of(mount, "size"), size), clients, unsaved };

	snprintf(unsaved, sizeof(unsaved), "%s%s",
		 size_format(number_of(volume, "dirty_bytes"), dirty),
		 json_is_true(json_object_get(volume, "fenced")) ? " FENCED" : "");
	snprintf(clients, sizeof(clients), "%llu",
		 (unsigned long long)number_of(mount, "clients"));
	return table_add(table, is_dead(mount) ? dead : cells);
}

static int print_all(const struct options *options)
{
	json_t *mounts = json_array(), *mount;
	struct table table = { .nr_columns = 5, .right = 1 << 2 | 1 << 3 | 1 << 4 };
	const char *heads[] = { "WHERE", "PLACE", "SIZE", "CLIENTS", "NOT SAVED" };
	int status = 0;
	size_t i;

	if (control_each(add_mount, mounts) < 0) {
		json_decref(mounts);
		return 1;
	}
#ifdef HAVE_FUSE
	mountpoint_each(add_if_dead, mounts);
#endif
	if (option_flag(options, "json"))
		return print_json(mounts);
	table_add(&table, heads);
	json_array_foreach(mounts, i, mount) {
		if (add_row(&table, mount) != 0)
			status = 1;
		if (is_dead(mount))
			log_notice("%s: " DEAD_ADVICE, text_of(mount, "where"));
	}
	if (json_array_size(mounts))
		table_print(&table);
	else
		log_notice("nothing is mounted");
	table_free(&table);
	json_decref(mounts);
	return status;
}

static int print_one(const struct options *options, const char *text)
{
	struct where where;
	json_t *status = NULL;
	char *control;
	int error, exit_status = 1;

	if (where_parse(text, &where) != 0)
		return EXIT_USAGE;
	control = where_control_path(&where);
	error = control ? ask(control, &status) : -EIO;
	if (error == -ETIMEDOUT)
		log_error("%s: its daemon does not answer", text);
	else if ((error == -ECONNREFUSED || error == -ENOENT) && left_by_the_dead(&where))
		log_error("%s: " DEAD_ADVICE, text);
	else if (error == -ECONNREFUSED || error == -ENOENT)
		log_error("%s is not mounted", text);
	else if (error)
		log_error("%s: %s", text, error_words(error));
	else if (option_flag(options, "json"))
		exit_status = print_json(json_incref(status));
	else {
		print_mount(status);
		exit_status = 0;
	}
	json_decref(status);
	free(control);
	where_free(&where);
	return exit_status;
}

int status_run(const struct options *options, int nr_arguments, char **arguments)
{
	return nr_arguments ? print_one(options, arguments[0]) : print_all(options);
}
