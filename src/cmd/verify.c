/* verify.c: `objmap verify`: reads everything and compares every checksum; of a plain
 * device see verify_device.c. */
#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

#include "src/cmd/open.h"
#include "src/cmd/print.h"
#include "src/cmd/verbs.h"
#include "src/cmd/verify_device.h"
#include "src/log.h"
#include "src/progress.h"

struct faults {
	struct store *store;
	struct progress *progress;
	pthread_mutex_t lock;	/* guards list */
	json_t *list;
};

static void show_progress(void *context, uint64_t done, uint64_t total)
{
	struct faults *faults = context;

	progress_update(faults->progress, "verifying", done, total);
}

static void note_fault(void *context, const char *key, const char *what)
{
	struct faults *faults = context;

	log_error("%s: %s: %s", faults->store->place, key, what);
	pthread_mutex_lock(&faults->lock);
	json_array_append_new(faults->list, json_pack("{s:s, s:s}", "object", key,
						      "what", what));
	pthread_mutex_unlock(&faults->lock);
}

static int print_result(const struct options *options, const struct place *place,
			const struct verify_result *r, struct faults *faults)
{
	char bytes[UNITS_TEXT];

	if (option_flag(options, "json"))
		return print_json(json_pack("{s:s, s:I, s:I, s:I, s:O}", "place",
			place->text, "chunks", (json_int_t)r->chunks,
			"nodes", (json_int_t)r->nodes,
			"bytes", (json_int_t)r->bytes, "faults", faults->list));
	if (r->faults)
		printf("%s: %" PRIu64 " fault%s in ", place->text, r->faults,
		       plural(r->faults));
	else
		printf("%s: all good: ", place->text);
	printf("%" PRIu64 " chunk%s and %" PRIu64 " map node%s (%s)\n", r->chunks,
	       plural(r->chunks), r->nodes, plural(r->nodes),
	       size_format(r->bytes, bytes));
	return 0;
}

static int run(const struct options *options, const struct place *place,
	       struct store *store)
{
	struct faults faults = { .store = store, .list = json_array(),
				 .lock = PTHREAD_MUTEX_INITIALIZER };
	struct verify_options verify = {
		.snapshot = place->snapshot,
		.metadata_only = option_flag(options, "metadata-only"),
		.jobs = open_jobs(options, place),
		.progress = show_progress, .fault = note_fault,
		.context = &faults,
	};
	struct verify_result result = { 0 };
	struct head head;
	int error, status;

	error = open_head(store, &head, NULL);
	if (!error && place->snapshot)
		error = volume_snapshot_head(store, place->snapshot, &head);
	if (!error)
		error = progress_open(option_flag(options, "quiet"), PROGRESS_COUNT,
			      &faults.progress);
	if (error) {
		json_decref(faults.list);
		return exit_status(error);
	}
	error = volume_verify(store, &verify, &result);
	progress_close(faults.progress);
	if (error && error != -EBADMSG)
		status = exit_status(error);
	else
		status = print_result(options, place, &result, &faults);
	if (error == -EBADMSG && status == EXIT_SUCCESS)
		status = EXIT_FAILURE;
	json_decref(faults.list);
	return status;
}

int verify_run(const struct options *options, int nr_arguments, char **arguments)
{
	struct store *store;
	struct place place;
	int error, status;

	error = open_place(options, arguments[0], WANT_PLACE, &place);
	if (error)
		return exit_status(error);
	if (!place.is_volume) {
		status = verify_device(options, &place);
		place_free(&place);
		return status;
	}
	place_free(&place);
	error = open_volume_store(options, arguments[0], WANT_VOLUME_OR_SNAPSHOT,
				  &place, &store);
	if (error)
		return exit_status(error);
	status = run(options, &place, store);
	store_close(store);
	place_free(&place);
	return status;
}
