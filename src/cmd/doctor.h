/* doctor.h: what `objmap doctor` has found. */
#ifndef OBJMAP_CMD_DOCTOR_H
#define OBJMAP_CMD_DOCTOR_H

#include <jansson.h>
#include <stdbool.h>

#include "src/cmd/options.h"
#include "src/place.h"

struct findings {
	json_t *list;
	bool place_failed;	/* the place cannot carry a volume that is written */
};

/* @remedy: what helps when it is not @ok; may be NULL. */
void note(struct findings *findings, const char *name, bool ok, const char *remedy,
	  const char *format, ...) __attribute__((format(printf, 5, 6)));

/* doctor_s3.c: what a server does that a volume in @place needs. */
void look_at_s3(const struct options *options, struct findings *findings,
		const struct place *place);

#endif
