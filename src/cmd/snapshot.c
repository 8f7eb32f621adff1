/* snapshot.c: `objmap snapshot create|list|delete`. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "src/cmd/open.h"
#include "src/cmd/print.h"
#include "src/cmd/snapshots.h"
#include "src/cmd/verbs.h"
#include "src/control.h"
#include "src/log.h"

/* A daemon here that holds the volume flushes first; else it is the last
 * commit, whose age is said when somebody elsewhere may have newer writes. */
static int create(const struct options *options, struct store *store,
		  const char *name, bool *flushed)
{
	struct swap_terms terms = { .exclusive_word = option_flag(options, "exclusive") };
	struct head head;
	json_t *reply = NULL;
	char since[PRINT_TIME_TEXT];
	int error = open_head(store, &head, NULL);

	if (error)
		return error;
	if (!snapshot_name_is_valid(name)) {
		log_error("'%s' cannot be a snapshot's name: 1 to %u bytes, no '/' or '@'",
			  name, SNAPSHOT_NAME_MAX);
		return -EINVAL;
	}
	error = control_ask_writer(head.uuid, json_pack("{s:s, s:s}", "command",
				   "snapshot create", "name", name), &reply);
	json_decref(reply);
	*flushed = error == 0;
	if (error != 1)
		return error;
	if (head.holder.held)
		log_notice("%s: held by %s; the snapshot is of the last commit, %s",
			   store->place, head.holder.host,
			   print_time(head.committed, since));
	return volume_snapshot_create(store, name, &terms);
}

int snapshot_create_run(const struct options *options, int nr_arguments,
			char **arguments)
{
	struct store *store;
	struct place place;
	bool flushed = false;
	int error, status;

	error = open_volume_store(options, arguments[0], WANT_VOLUME, &place,
				  &store);
	if (error)
		return exit_status(error);
	error = create(options, store, arguments[1], &flushed);
	status = exit_status(error);
	if (!error && option_flag(options, "json"))
		status = print_json(json_pack("{s:s, s:s, s:b}", "place", place.text,
					      "snapshot", arguments[1], "flushed",
					      (int)flushed));
	else if (!error)
		printf("%s@%s\n", place.base, arguments[1]);
	store_close(store);
	place_free(&place);
	return status;
}

/* ---- list ------------------------------------------------------------------------ */

static json_t *snapshot_json(const struct snapshot *s)
{
	if (s->kind == SNAPSHOT_CLONE)
		return json_pack("{s:s, s:s, s:s, s:I, s:I, s:I}", "kind", "clone",
				 "name", s->name, "prefix", s->prefix,
				 "created", (json_int_t)s->created,
				 "size", (json_int_t)s->size,
				 "epoch", (json_int_t)s->epoch);
	return json_pack("{s:s, s:s, s:I, s:I, s:I}", "kind", "snapshot",
			 "name", s->name, "created", (json_int_t)s->created,
			 "size", (json_int_t)s->size,
			 "epoch", (json_int_t)s->epoch);
}

json_t *snapshots_json(const struct snapshot_list *list)
{
	json_t *all = json_array();
	unsigned int i;

	for (i = 0; i < list->nr; i++)
		json_array_append_new(all, snapshot_json(&list->snapshots[i]));
	return all;
}

static int add_row(struct table *table, const struct snapshot *s)
{
	char size[UNITS_TEXT], created[PRINT_TIME_TEXT], at[sizeof(s->prefix) + 1];
	const char *cells[] = {
		s->name, size_format(s->size, size),
		print_time(s->created, created),
		s->kind == SNAPSHOT_CLONE ? "pinned for clone" : "",
		s->kind == SNAPSHOT_CLONE ? at : "",
	};

	snprintf(at, sizeof(at), "/%s", s->prefix);
	return table_add(table, cells);
}

int snapshots_print(const struct snapshot_list *list)
{
	static const char *const titles[] = { "NAME", "SIZE", "CREATED", "", "" };
	struct table table = { .nr_columns = 5, .right = 1 << 1 };
	unsigned int i;
	int error;

	error = table_add(&table, titles);
	for (i = 0; !error && i < list->nr; i++)
		error = add_row(&table, &list->snapshots[i]);
	if (!error && list->nr)
		table_print(&table);
	table_free(&table);
	return exit_status(error);
}

int snapshot_list_run(const struct options *options, int nr_arguments,
		      char **arguments)
{
	struct snapshot_list list;
	struct store *store;
	struct place place;
	struct head head;
	int error, status;

	error = open_volume_store(options, arguments[0], WANT_VOLUME, &place,
				  &store);
	if (error)
		return exit_status(error);
	error = open_head(store, &head, NULL);
	if (!error)
		error = volume_snapshots(store, &list);
	if (error) {
		status = exit_status(error);
	} else {
		status = option_flag(options, "json")
			 ? print_json(snapshots_json(&list))
			 : snapshots_print(&list);
		snapshot_list_free(&list);
	}
	store_close(store);
	place_free(&place);
	return status;
}

/* ---- delete ------------------------------------------------------------------------ */

int snapshot_delete_run(const struct options *options, int nr_arguments,
			char **arguments)
{
	struct swap_terms terms = { .exclusive_word = option_flag(options, "exclusive") };
	struct store *store;
	struct place place;
	int error, status;

	error = open_volume_store(options, arguments[0], WANT_SNAPSHOT, &place,
				  &store);
	if (error)
		return exit_status(error);
	error = volume_snapshot_delete(store, place.snapshot, &terms);
	status = exit_status(error);
	if (!error && option_flag(options, "json"))
		status = print_json(json_pack("{s:s, s:s}", "place", place.base,
					      "snapshot", place.snapshot));
	else if (!error)
		printf("%s is deleted; objmap gc %s frees what only it used\n",
		       place.text, place.base);
	store_close(store);
	place_free(&place);
	return status;
}
