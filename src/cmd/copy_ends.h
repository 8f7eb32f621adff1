/* copy_ends.h: the two ends of a copy: opening, making and finishing them. */
#ifndef OBJMAP_CMD_COPY_ENDS_H
#define OBJMAP_CMD_COPY_ENDS_H

#include "src/cmd/options.h"
#include "src/copy.h"
#include "src/export.h"

struct copy_end {
	const char *text;	/* as written */
	struct place place;	/* not of a stream */
	bool stream;		/* "-" */
	int fd;			/* a stream's; -1 */
	struct export *export;	/* of a volume */
	struct stage *stage;	/* NULL: a stream */
	uint64_t size;		/* COPY_SIZE_UNKNOWN: a stream's */
	/* Targets only. */
	bool blank;		/* reads as zeros all over */
	bool compare;		/* holds what an earlier copy wrote */
	bool plain_file;	/* to be cut to size at the end */
	char *state_dir;	/* of a volume */
};

/* Each returns 0 or -errno (-EINVAL: usage), logged; close what was opened in
 * any case.  Nothing of a target is touched before the source is open. */
int source_open(const struct options *options, const char *text,
		struct copy_end *source);
int target_open(const struct options *options, const char *text,
		const struct copy_end *source, struct copy_end *target);

/* After a good copy of @bytes: cuts a plain file, makes it durable, marks a
 * volume complete. */
int target_finish(struct copy_end *target, uint64_t bytes);

void copy_end_close(struct copy_end *end);

#endif
