/* open.h: what verbs do first: read the place, open its store, read its head. */
#ifndef OBJMAP_CMD_OPEN_H
#define OBJMAP_CMD_OPEN_H

#include "src/cmd/options.h"
#include "src/place.h"
#include "src/volume/volume.h"

/* The exit status of a negative errno whose reason has been logged. */
int exit_status(int error);

enum wanted {
	WANT_PLACE,		/* any */
	WANT_VOLUME,		/* a volume without @SNAPSHOT */
	WANT_SNAPSHOT,		/* VOLUME@SNAPSHOT */
	WANT_VOLUME_OR_SNAPSHOT,
	WANT_FOLDER,		/* a volume, or where volumes are */
};
/* -EINVAL, logged, unless @text names what is wanted, and goes with the options. */
int open_place(const struct options *options, const char *text, enum wanted wanted,
	       struct place *place);
/* The latter alone: what the options and the place say of a server cannot be. */
int open_check(const struct options *options, const struct place *place);

/* What the options say of stores; the verb takes them (see STORE in table.c). */
void open_options(const struct options *options, struct store_open_options *how);
/* The same for a plain device. */
void open_device_options(const struct options *options, struct device_options *how);

/* What --jobs says, or what is good for such a place: as many requests as there are
 * connections where each takes a round trip. */
unsigned int open_jobs(const struct options *options, const struct place *place);

/* The store of a volume's place. */
int open_store(const struct options *options, const struct place *place,
	       bool create, struct store **store);

/* open_place() and open_store() in one; on failure neither is open. */
int open_volume_store(const struct options *options, const char *text,
		      enum wanted wanted, struct place *place,
		      struct store **store);

/* Head of a volume, and what its store said of it; a deleted one is -ENOENT.
 * Logged. */
int open_head(struct store *store, struct head *head, struct store_reply *reply);

/* take-over, abandon-journal, exclusive, and the runtime folder.  -EIO, logged,
 * when there is no such folder. */
int open_claim(const struct options *options, struct claim_options *claim);

/* Asks on the terminal unless --yes: 0, or -ECANCELED (not wanted), or -EINVAL
 * (no terminal to ask on), logged. */
int ask(const struct options *options, const char *question);

#endif
