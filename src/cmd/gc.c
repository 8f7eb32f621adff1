/* gc.c: `objmap gc`: deletes the objects that nothing refers to any more. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "src/clock.h"
#include "src/cmd/open.h"
#include "src/cmd/print.h"
#include "src/cmd/verbs.h"
#include "src/progress.h"
#include "src/where.h"

static void show_progress(void *context, const char *what, uint64_t done,
			  uint64_t total)
{
	progress_update(context, what, done, total);
}

static int print_result(const struct options *options, const struct place *place,
			const struct gc_result *r)
{
	bool dry = option_flag(options, "dry-run");
	char bytes[UNITS_TEXT];

	if (option_flag(options, "json"))
		return print_json(json_pack("{s:s, s:b, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I}",
			"place", place->text, "dry_run", (int)dry,
			"listed", (json_int_t)r->listed,
			"reachable", (json_int_t)r->reachable,
			"condemned", (json_int_t)r->condemned,
			"deleted", (json_int_t)r->deleted,
			"deleted_bytes", (json_int_t)r->deleted_bytes,
			"waiting", (json_int_t)r->waiting,
			"foreign", (json_int_t)r->foreign,
			"aborted_uploads", (json_int_t)r->aborted_uploads));
	printf("%s: %" PRIu64 " objects, %" PRIu64 " in use\n", place->text,
	       r->listed, r->reachable);
	printf("  %s %" PRIu64 " (%s)\n", dry ? "would delete" : "deleted",
	       r->deleted, size_format(r->deleted_bytes, bytes));
	if (r->aborted_uploads)
		printf("  %s %" PRIu64 " unfinished uploads\n",
		       dry ? "would abort" : "aborted", r->aborted_uploads);
	if (r->condemned)
		printf("  %s %" PRIu64 ", to be deleted by a gc after the grace period\n",
		       dry ? "would condemn" : "condemned", r->condemned);
	if (r->waiting)
		printf("  %" PRIu64 " condemned earlier, still within it\n", r->waiting);
	if (r->foreign)
		printf("  %" PRIu64 " are not objmap's and stay\n", r->foreign);
	return 0;
}

/* An object: what killed writers have left of their uploads to it. */
static int gc_object(const struct options *options, const struct place *place)
{
	struct store_open_options how;
	struct object_gc_options gc = {
		.grace = (uint32_t)(option_time(options, "grace") / CLOCK_SECOND),
		.dry_run = option_flag(options, "dry-run"),
	};
	struct object_gc_result result;
	int error;

	open_options(options, &how);
	gc.retry_for = how.retry_for;
	gc.s3 = how.s3;
	error = place_gc_object(place, &gc, &result);
	if (error)
		return exit_status(error);
	if (option_flag(options, "json"))
		return print_json(json_pack("{s:s, s:b, s:I, s:I}", "place", place->text,
			"dry_run", (int)gc.dry_run,
			"aborted_uploads", (json_int_t)result.aborted,
			"waiting", (json_int_t)result.waiting));
	printf("%s: %s %" PRIu64 " unfinished uploads\n", place->text,
	       gc.dry_run ? "would abort" : "aborted", result.aborted);
	if (result.waiting)
		printf("  %" PRIu64 " are younger than the grace period\n",
		       result.waiting);
	return 0;
}

int gc_run(const struct options *options, int nr_arguments, char **arguments)
{
	struct gc_options gc = {
		.grace = (uint32_t)(option_time(options, "grace") / CLOCK_SECOND),
		.dry_run = option_flag(options, "dry-run"),
		.progress = show_progress,
	};
	struct gc_result result = { 0 };
	struct claim_options claim = {
		.exclusive = option_flag(options, "exclusive"),
		.runtime_dir = runtime_dir(),
	};
	struct progress *progress;
	struct store *store;
	struct place place;
	int error, status;

	error = open_place(options, arguments[0], WANT_PLACE, &place);
	if (error)
		return exit_status(error);
	if (strcmp(place.scheme, "s3+object") == 0) {
		status = gc_object(options, &place);
		place_free(&place);
		return status;
	}
	place_free(&place);
	if (!claim.runtime_dir)
		return exit_status(-EIO);
	gc.close_killed = &claim;
	error = open_volume_store(options, arguments[0], WANT_VOLUME, &place,
				  &store);
	if (error)
		return exit_status(error);
	error = progress_open(option_flag(options, "quiet"), PROGRESS_COUNT,
			      &progress);
	if (!error) {
		gc.context = progress;
		error = volume_gc(store, &gc, &result);
		progress_close(progress);
	}
	status = error ? exit_status(error) : print_result(options, &place, &result);
	store_close(store);
	place_free(&place);
	return status;
}
