/* parts.h: how a new version of an object is put together: parts of a multipart
 * upload that are sent, and parts that the store copies from the old version. */
#ifndef OBJMAP_OBJECT_PARTS_H
#define OBJMAP_OBJECT_PARTS_H

#include <stdbool.h>
#include <stdint.h>

#include "backends/object/dirty.h"

/* S3's limits; tests have smaller ones. */
struct part_limits {
	uint64_t min;		/* bytes of every part but the last */
	uint64_t copy_max;	/* of a part that is copied; at least 2 * min */
	uint64_t send;		/* wanted of a part that is sent, at least min; they are
				 * shorter than twice that, unless nr_max forbids */
	unsigned int nr_max;	/* parts */
};

struct object_part {
	uint64_t offset, count;	/* bytes of the object */
	bool copy;		/* the old version has the same bytes there */
};

struct part_list {
	struct object_part *parts;
	unsigned int nr, room;
};

/* Plans the whole object of @size bytes, > 0: parts follow each other from 0 to
 * @size.  What @dirty covers is sent; runs nearer to each other than a part may be
 * short are sent as one, filled up with what is between them; a run that is too short
 * for a part is filled up with what follows.  0 or -ENOMEM; -E2BIG: the object cannot be
 * had in nr_max parts. */
int parts_plan(const struct dirty_map *dirty, uint64_t size,
	       const struct part_limits *limits, struct part_list *list);
void parts_free(struct part_list *list);

#endif
