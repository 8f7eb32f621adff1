/* list.c: `objmap list`: the volumes below a folder or in a bucket, or a volume's
 * snapshots; list_nbd.c has what an NBD server exports. */
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "src/cmd/list_nbd.h"
#include "src/cmd/list_s3.h"
#include "src/cmd/open.h"
#include "src/cmd/print.h"
#include "src/cmd/snapshots.h"
#include "src/cmd/verbs.h"
#include "src/log.h"

#define DEPTH_MAX 4	/* folders below the place */

static const char *const states[] = {
	[HEAD_LIVE] = "live", [HEAD_INCOMPLETE] = "incomplete",
	[HEAD_DELETED] = "deleted",
};

struct volumes {
	const struct options *options;
	struct table table;
	json_t *json;
	unsigned int nr;
	bool unread;	/* something could not be looked at; it was told */
};

static int add_volume(void *context, const char *place, const struct head *head)
{
	struct volumes *all = context;
	char size[UNITS_TEXT], chunk[UNITS_TEXT];
	char committed[PRINT_TIME_TEXT], uuid[37];
	const char *cells[] = {
		place, size_format(head->size, size),
		size_format(head->chunk_size, chunk), states[head->state],
		print_time(head->committed, committed),
		head->holder.held ? head->holder.host : "-",
	};

	uuid_format(head->uuid, uuid);
	all->nr++;
	json_array_append_new(all->json, json_pack(
		"{s:s, s:s, s:I, s:I, s:s, s:I, s:s?}", "place", place,
		"uuid", uuid, "size", (json_int_t)head->size,
		"chunk_size", (json_int_t)head->chunk_size,
		"state", states[head->state],
		"committed", (json_int_t)head->committed,
		"holder", head->holder.held ? head->holder.host : NULL));
	return table_add(&all->table, cells);
}

static int walk_folder(struct volumes *all, const char *path, unsigned int depth);

/* A volume is listed, another folder looked into. */
static int look_at(struct volumes *all, const char *path, unsigned int depth)
{
	const struct store_dir_options how = { .network_ok = true };
	struct store *store;
	struct head head;
	char place[4200];
	int error = store_dir_open(path, path, &how, &store);

	if (!error) {
		error = volume_read_head(store, &head, NULL);
		store_close(store);
	}
	if (error == -ENOENT)
		return depth < DEPTH_MAX ? walk_folder(all, path, depth + 1) : 0;
	/* No reason not to list the others.  A file called head may be anybody's. */
	if (error && error != -EBADMSG && error != -ENOTSUP)
		all->unread = true;
	if (error || head.state == HEAD_DELETED)
		return 0;
	snprintf(place, sizeof(place), "dir:%s", path);
	return add_volume(all, place, &head);
}

static int walk_folder(struct volumes *all, const char *path, unsigned int depth)
{
	struct dirent **entries;
	char below[4096];
	int nr = scandir(path, &entries, NULL, alphasort), i, error = 0;

	if (nr < 0) {
		error = -errno;
		log_error("dir:%s: %s", path, strerror(-error));
		all->unread = true;
		return depth == 0 ? error : 0;
	}
	for (i = 0; i < nr; i++) {
		if (!error && entries[i]->d_type == DT_DIR &&
		    entries[i]->d_name[0] != '.' &&
		    (size_t)snprintf(below, sizeof(below), "%s/%s", path,
				     entries[i]->d_name) < sizeof(below))
			error = look_at(all, below, depth);
		free(entries[i]);
	}
	free(entries);
	return error;
}

static int list_volumes(const struct options *options, const struct place *place)
{
	static const char *const titles[] = {
		"VOLUME", "SIZE", "CHUNKS", "STATE", "LAST COMMIT", "HELD BY"
	};
	struct volumes all = { .options = options, .json = json_array(),
			       .table = { .nr_columns = 6, .right = 6 } };
	int error, status;

	error = table_add(&all.table, titles);
	if (!error && strcmp(place->scheme, "s3") == 0)
		error = list_s3(options, place, add_volume, &all);
	else if (!error)
		error = walk_folder(&all, place->path, 0);
	/* Of too many, some are better than none. */
	if (error && error != -E2BIG) {
		status = EXIT_FAILURE;
		json_decref(all.json);
	} else if (option_flag(options, "json")) {
		status = print_json(all.json);
	} else {
		status = 0;
		json_decref(all.json);
		if (all.nr)
			table_print(&all.table);
		else
			log_notice("%s: no volume is there or below", place->text);
	}
	table_free(&all.table);
	return error || all.unread ? EXIT_FAILURE : status;
}

static int list_snapshots(const struct options *options, struct store *store)
{
	struct snapshot_list list;
	int error = volume_snapshots(store, &list), status;

	if (error)
		return exit_status(error);
	status = option_flag(options, "json") ? print_json(snapshots_json(&list))
					      : snapshots_print(&list);
	snapshot_list_free(&list);
	return status;
}

int list_run(const struct options *options, int nr_arguments, char **arguments)
{
	struct store *store;
	struct place place;
	struct head head;
	int error, status;

	if (strncmp(arguments[0], "nbd", 3) == 0)
		return list_exports(options, arguments[0]);
	error = open_place(options, arguments[0], WANT_FOLDER, &place);
	if (error)
		return exit_status(error);
	if (!*place.path) {		/* a bucket */
		status = list_volumes(options, &place);
		place_free(&place);
		return status;
	}
	error = open_store(options, &place, false, &store);
	if (error) {
		place_free(&place);
		return EXIT_FAILURE;
	}
	error = volume_read_head(store, &head, NULL);
	if (error == -ENOENT || (!error && head.state == HEAD_DELETED))
		status = list_volumes(options, &place);
	else
		status = error ? exit_status(error) : list_snapshots(options, store);
	store_close(store);
	place_free(&place);
	return status;
}
