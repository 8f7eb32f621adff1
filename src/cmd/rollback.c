/* rollback.c: `objmap rollback`: a volume becomes what it was at a snapshot. */
#include <stdio.h>

#include "src/cmd/open.h"
#include "src/cmd/print.h"
#include "src/cmd/verbs.h"

static int roll_back(const struct options *options, struct store *store,
		     const struct place *place, const struct claim_options *claim)
{
	char question[4200];
	struct head head;
	int error = volume_snapshot_head(store, place->snapshot, &head);

	if (error)
		return error;
	snprintf(question, sizeof(question),
		 "give up what %s holds now and go back to snapshot %s",
		 place->base, place->snapshot);
	error = ask(options, question);
	return error ? error : volume_rollback(store, place->snapshot, claim);
}

int rollback_run(const struct options *options, int nr_arguments, char **arguments)
{
	struct claim_options claim;
	struct store *store;
	struct place place;
	int error, status;

	error = open_claim(options, &claim);
	if (!error)
		error = open_volume_store(options, arguments[0], WANT_SNAPSHOT,
					  &place, &store);
	if (error)
		return exit_status(error);
	error = roll_back(options, store, &place, &claim);
	status = exit_status(error);
	if (!error && option_flag(options, "json"))
		status = print_json(json_pack("{s:s, s:s}", "place", place.base,
					      "snapshot", place.snapshot));
	else if (!error)
		printf("%s is what it was at snapshot %s\n", place.base,
		       place.snapshot);
	store_close(store);
	place_free(&place);
	return status;
}
