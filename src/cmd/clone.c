/* clone.c: `objmap clone`: a volume that begins as another's snapshot. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "src/cmd/open.h"
#include "src/cmd/print.h"
#include "src/cmd/verbs.h"
#include "src/log.h"

static char *prefix_of(const struct place *place)
{
	char *prefix = place_prefix(place);

	if (!prefix)
		log_error("%s: %s", place->text, strerror(errno));
	return prefix;
}

static int clone_into(const struct options *options, struct store *from,
		      const struct place *parent, struct store *to,
		      const struct place *new)
{
	struct swap_terms terms = { .exclusive_word = option_flag(options, "exclusive") };
	char *from_prefix = prefix_of(parent), *to_prefix = prefix_of(new);
	int error = -EIO;

	if (from_prefix && to_prefix)
		error = volume_clone(from, from_prefix, parent->snapshot, to,
				     to_prefix, &terms);
	free(from_prefix);
	free(to_prefix);
	return error;
}

static int print_cloned(const struct options *options,
			const struct place *parent, const struct place *new)
{
	if (option_flag(options, "json"))
		return print_json(json_pack("{s:s, s:s}", "place", new->text,
					    "origin", parent->text));
	printf("%s is a clone of %s\n", new->text, parent->text);
	return 0;
}

static bool same_store(const struct options *options, const struct place *a,
		       const struct place *b)
{
	struct store_open_options how;

	open_options(options, &how);
	return place_same_store(a, b, &how.s3);
}

/* The parent is open; NEW is made only when there is something to clone. */
static int run(const struct options *options, const struct place *parent,
	       struct store *from, const char *new_text)
{
	struct store *to;
	struct place new;
	struct head head;
	int error, status;

	error = open_place(options, new_text, WANT_VOLUME, &new);
	if (error)
		return exit_status(error);
	error = same_store(options, parent, &new) ? 0 : -EXDEV;
	if (error)
		log_error("%s: a clone lives in the same %s as %s: use objmap copy",
			  new.text, parent->bucket ? "bucket of the same server"
						   : "kind of store", parent->text);
	if (!error)
		error = volume_snapshot_head(from, parent->snapshot, &head);
	if (!error)
		error = open_store(options, &new, true, &to);
	if (!error) {
		error = clone_into(options, from, parent, to, &new);
		store_close(to);
	}
	status = error ? exit_status(error) : print_cloned(options, parent, &new);
	place_free(&new);
	return status;
}

int clone_run(const struct options *options, int nr_arguments, char **arguments)
{
	struct store *from;
	struct place parent;
	int error, status;

	error = open_volume_store(options, arguments[0], WANT_SNAPSHOT, &parent,
				  &from);
	if (error)
		return exit_status(error);
	status = run(options, &parent, from, arguments[1]);
	store_close(from);
	place_free(&parent);
	return status;
}
