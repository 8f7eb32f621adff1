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
#include "src/workers.h"

#define ANSWER_TIMEOUT (5 * CLOCK_SECOND)
#define ASKED_AT_ONCE  64
#define NOT_ANSWERING  "not answering"	/* a state of ours; the others are the daemons' */
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

static int ask(const char *control, json_t **status, pid_t *pid)
{
	int error = control_call(control, json_pack("{s:s}", "command", "status"),
				 ANSWER_TIMEOUT, NULL, NULL, status, pid);

	if (error)
		return error;
	error = (int)-number_of(*status, "error");
	if (error) {
		json_decref(*status);
		*status = NULL;
	} else {
		json_object_del(*status, "error");	/* the answer's, not the mount's */
	}
	return error;
}

static bool nobody_is_there(int error)
{
	return error == -ECONNREFUSED || error == -ENOENT;
}

/* One of those that are asked all at once, so that it takes no longer when several
 * of them do not answer. */
struct question {
	struct job job;		/* must stay first */
	char *control;		/* the socket */
	json_t *status;
	pid_t pid;
	int error;
	struct question *next;
};

struct questions {
	struct question *first, **last;
	unsigned int nr;
};

static void question_run(struct job *job)
{
	struct question *question = (struct question *)job;

	question->error = ask(question->control, &question->status, &question->pid);
	/* It was ending, or too many asked it. */
	if (question->error && question->error != -ETIMEDOUT && question->error != -EAGAIN)
		question->error = ask(question->control, &question->status,
				      &question->pid);
}

static void add_question(void *context, const char *control)
{
	struct questions *questions = context;
	struct question *question = calloc(1, sizeof(*question));

	if (!question)
		return;
	question->control = strdup(control);
	if (!question->control) {
		free(question);
		return;
	}
	question->job.run = question_run;
	*questions->last = question;
	questions->last = &question->next;
	questions->nr++;
}

/* Its socket is named by a hash: of where and place nothing is known. */
static json_t *silent_mount(const struct question *question)
{
	return json_pack("{s:n, s:n, s:s, s:o, s:s}", "where", "place",
			 "state", NOT_ANSWERING,
			 "pid", question->pid ? json_integer(question->pid) : json_null(),
			 "control", question->control);
}

/* Asks all daemons for their mounts. */
static int ask_all(json_t *mounts)
{
	struct questions questions = { .last = &questions.first };
	struct question *question, *next;
	struct workers *workers;
	int error = control_each(add_question, &questions);

	if (!error && questions.nr)
		error = workers_open("status", questions.nr < ASKED_AT_ONCE ?
				     questions.nr : ASKED_AT_ONCE, &workers);
	if (!error && questions.nr) {
		for (question = questions.first; question; question = question->next)
			workers_submit(workers, &question->job);
		workers_close(workers);
	}
	for (question = questions.first; question; question = next) {
		next = question->next;
		if (!error && !question->error)
			json_array_append_new(mounts, question->status);
		else if (!error && !nobody_is_there(question->error))
			json_array_append_new(mounts, silent_mount(question));
		free(question->control);
		free(question);
	}
	return error;
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
/* The row of a daemon that does not answer at @control; NULL: it has none. */
static json_t *find_silent(json_t *mounts, const char *control)
{
	json_t *mount;
	size_t i;

	json_array_foreach(mounts, i, mount)
		if (strcmp(text_of(mount, "control"), control) == 0)
			return mount;
	return NULL;
}

/* The file of a daemon that says nothing of it: a dead one, or one that hangs. */
static void add_file(json_t *mounts, const struct where *where, const char *control,
		     const char *place)
{
	json_t *silent = find_silent(mounts, control), *status;
	int error;

	if (silent) {
		json_object_set_new(silent, "where", json_string(where->path));
		json_object_set_new(silent, "place", json_string(place));
		return;
	}
	error = ask(control, &status, NULL);
	if (!error)	/* mounted this very moment */
		json_array_append_new(mounts, status);
	else if (nobody_is_there(error) && left_by_the_dead(where))
		json_array_append_new(mounts, json_pack("{s:s, s:s, s:s}",
			"where", where->path, "place", place, "state", "dead"));
}

static void add_if_untold(void *context, const char *path, const char *place)
{
	json_t *mounts = context, *mount;
	struct where where;
	char *control;
	size_t i;

	json_array_foreach(mounts, i, mount)
		if (strcmp(text_of(mount, "where"), path) == 0)
			return;
	if (where_parse(path, &where) != 0)
		return;
	control = where_control_path(&where);
	if (control)
		add_file(mounts, &where, control, place);
	free(control);
	where_free(&where);
}
#endif

static bool is_dead(const json_t *mount)
{
	return strcmp(text_of(mount, "state"), "dead") == 0;
}

static bool is_silent(const json_t *mount)
{
	return strcmp(text_of(mount, "state"), NOT_ANSWERING) == 0;
}

/* Says what is to be done about @mount. */
static void advise(const json_t *mount)
{
	const char *what = *text_of(mount, "where") ? text_of(mount, "where") :
			   text_of(mount, "control");
	char process[40] = "";

	if (number_of(mount, "pid"))
		snprintf(process, sizeof(process), ", process %llu,",
			 (unsigned long long)number_of(mount, "pid"));
	if (is_dead(mount))
		log_notice("%s: " DEAD_ADVICE, what);
	if (is_silent(mount))
		log_error("%s: its daemon%s does not answer: it is stopped, hangs, or has not opened its place yet",
			  what, process);
}

static int add_silent_row(struct table *table, const json_t *mount)
{
	const char *where = text_of(mount, "where"), *place = text_of(mount, "place");
	char process[40] = "?";
	const char *cells[] = { *where ? where : process,
				*place ? place : text_of(mount, "control"),
				"-", "-", "NOT ANSWERING" };

	if (number_of(mount, "pid"))
		snprintf(process, sizeof(process), "process %llu",
			 (unsigned long long)number_of(mount, "pid"));
	return table_add(table, cells);
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

	if (ask_all(mounts) < 0) {
		log_error("the daemons cannot be asked");
		json_decref(mounts);
		return 1;
	}
#ifdef HAVE_FUSE
	mountpoint_each(add_if_untold, mounts);
#endif
	json_array_foreach(mounts, i, mount)
		if (is_silent(mount))
			status = 1;
	if (option_flag(options, "json"))
		return print_json(mounts) ? 1 : status;
	table_add(&table, heads);
	json_array_foreach(mounts, i, mount) {
		if ((is_silent(mount) ? add_silent_row(&table, mount) :
					add_row(&table, mount)) != 0)
			status = 1;
		advise(mount);
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
	pid_t pid = 0;
	int error, exit_status = 1;

	if (where_parse(text, &where) != 0)
		return EXIT_USAGE;
	control = where_control_path(&where);
	error = control ? ask(control, &status, &pid) : -EIO;
	if (error == -ETIMEDOUT && pid)
		log_error("%s: its daemon, process %d, does not answer", text, (int)pid);
	else if (error == -ETIMEDOUT || error == -EAGAIN)
		log_error("%s: its daemon does not answer", text);
	else if (nobody_is_there(error) && left_by_the_dead(&where))
		log_error("%s: " DEAD_ADVICE, text);
	else if (nobody_is_there(error))
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
