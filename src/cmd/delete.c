/* delete.c: `objmap delete`: a volume, its snapshots and all their objects. */
#include <stdio.h>
#include <stdlib.h>

#include "src/cmd/open.h"
#include "src/cmd/print.h"
#include "src/cmd/verbs.h"
#include "src/progress.h"

static void show_progress(void *context, const char *what, uint64_t done,
			  uint64_t total)
{
	progress_update(context, what, done, total);
}

/* The tombstone has no refs and no readers that could go on: no grace. */
static int delete_objects(const struct options *options, struct store *store,
			  struct gc_result *result)
{
	struct gc_options gc = { .progress = show_progress };
	struct progress *progress;
	int error = progress_open(option_flag(options, "quiet"), PROGRESS_COUNT,
				  &progress);

	if (error)
		return error;
	gc.context = progress;
	error = volume_gc(store, &gc, result);
	progress_close(progress);
	return error;
}

static int confirm(const struct options *options, struct store *store,
		   const struct place *place)
{
	char question[4200], size[UNITS_TEXT];
	struct snapshot_list list;
	struct head head;
	int error = open_head(store, &head, NULL);

	if (!error)
		error = volume_snapshots(store, &list);
	if (error)
		return error;
	snprintf(question, sizeof(question),
		 "delete %s (%s) and its %u snapshots for good", place->text,
		 size_format(head.size, size), list.nr);
	snapshot_list_free(&list);
	return ask(options, question);
}

static int print_deleted(const struct options *options,
			 const struct place *place, const struct gc_result *gc)
{
	char freed[UNITS_TEXT];

	if (option_flag(options, "json"))
		return print_json(json_pack("{s:s, s:I, s:I}", "place", place->text,
				"deleted_objects", (json_int_t)gc->deleted,
				"deleted_bytes", (json_int_t)gc->deleted_bytes));
	printf("%s is deleted, %s freed\n", place->text,
	       size_format(gc->deleted_bytes, freed));
	return 0;
}

int delete_run(const struct options *options, int nr_arguments, char **arguments)
{
	struct gc_result result = { 0 };
	struct claim_options claim;
	struct store *store;
	struct place place;
	int error, status;

	error = open_claim(options, &claim);
	if (!error)
		error = open_volume_store(options, arguments[0], WANT_VOLUME,
					  &place, &store);
	if (error)
		return exit_status(error);
	error = confirm(options, store, &place);
	if (!error)
		error = volume_delete(store, &claim);
	if (!error)
		error = delete_objects(options, store, &result);
	status = error ? exit_status(error)
		       : print_deleted(options, &place, &result);
	store_close(store);
	place_free(&place);
	return status;
}
