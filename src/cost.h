/* cost.h: what a store was asked for, and what for: for `status` and `info`. */
#ifndef OBJMAP_COST_H
#define OBJMAP_COST_H

#include <jansson.h>

#include "backends/store/store.h"

/* {"demand": {"requests", "bytes_in", "bytes_out"}, "push": ...}.  New. */
json_t *cost_by_cause(const struct store *store);
/* {"get": requests, "put": ...}, tries again counted too.  New. */
json_t *cost_by_operation(const struct store *store);

#endif
