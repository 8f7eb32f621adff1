/* resize.c: `objmap resize`: asks the daemon that serves the volume here, or
 * claims it for one commit. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "src/cmd/open.h"
#include "src/cmd/print.h"
#include "src/cmd/verbs.h"
#include "src/control.h"
#include "src/log.h"

static int check_size(const char *text, const struct head *head, uint64_t *size)
{
	uint64_t most = VOLUME_CHUNKS_MAX * head->chunk_size;
	char limit[UNITS_TEXT];
	int error = size_parse(text, size);

	if (!error && *size >= 1 && *size <= most)
		return 0;
	if (error == -EINVAL)
		log_error("'%s' is no size; 10G or 4096 would be", text);
	else
		log_error("SIZE must be between 1 byte and %s (chunks of this volume times 2^30)",
			  size_format(most, limit));
	return -EINVAL;
}

static int confirm_shrink(const struct options *options, const struct head *head,
			  const struct place *place, uint64_t size)
{
	char question[4200], from[UNITS_TEXT], to[UNITS_TEXT];

	if (size >= head->size)
		return 0;
	snprintf(question, sizeof(question),
		 "shrink %s from %s to %s and lose what lies beyond", place->text,
		 size_format(head->size, from), size_format(size, to));
	return ask(options, question);
}

/* On success the store is the volume's. */
static int claim_and_resize(const struct options *options, struct store **store,
			    uint64_t size)
{
	struct claim_options claim;
	struct volume_options how = { .writable = true };
	struct volume *volume;
	int error = open_claim(options, &claim);

	if (error)
		return error;
	how.take_over = claim.take_over;
	how.abandon_journal = claim.abandon_journal;
	how.exclusive = claim.exclusive;
	how.runtime_dir = claim.runtime_dir;
	how.grace = GRACE_DEFAULT;
	error = volume_open(*store, &how, &volume);
	if (error)
		return error;
	*store = NULL;
	error = volume_resize(volume, size);
	stage_close(volume_stage(volume));
	return error;
}

static int resize(const struct options *options, struct store **store,
		  const struct place *place, const char *text, uint64_t *before,
		  uint64_t *after)
{
	struct head head;
	json_t *reply = NULL;
	int error = open_head(*store, &head, NULL);

	if (!error)
		error = check_size(text, &head, after);
	if (!error)
		error = confirm_shrink(options, &head, place, *after);
	if (error)
		return error;
	*before = head.size;
	error = control_ask_writer(head.uuid, json_pack("{s:s, s:I}", "command",
				   "resize", "size", (json_int_t)*after), &reply);
	json_decref(reply);
	return error == 1 ? claim_and_resize(options, store, *after) : error;
}

int resize_run(const struct options *options, int nr_arguments, char **arguments)
{
	uint64_t before = 0, after = 0;
	char from[UNITS_TEXT], to[UNITS_TEXT];
	struct store *store;
	struct place place;
	int error, status;

	error = open_volume_store(options, arguments[0], WANT_VOLUME, &place,
				  &store);
	if (error)
		return exit_status(error);
	error = resize(options, &store, &place, arguments[1], &before, &after);
	status = exit_status(error);
	if (!error && option_flag(options, "json"))
		status = print_json(json_pack("{s:s, s:I, s:I}", "place", place.text,
					      "size", (json_int_t)after,
					      "size_before", (json_int_t)before));
	else if (!error)
		printf("%s: %s, was %s\n", place.text, size_format(after, to),
		       size_format(before, from));
	if (store)
		store_close(store);
	place_free(&place);
	return status;
}
