/* incomplete.c: marks a volume as one that a copy is writing over. */
#include "src/volume/claim.h"

static int change_incomplete(void *context, const struct stored_head *stored,
			     struct head *next)
{
	next->state = HEAD_INCOMPLETE;
	return 0;
}

int volume_set_incomplete(struct store *store, const struct claim_options *options)
{
	struct claim claim;
	int error = claim_take(store, options, false, change_incomplete, NULL,
			       &claim);

	if (!error)
		claim_drop(&claim);
	return error;
}
