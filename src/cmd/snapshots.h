/* snapshots.h: showing a volume's snapshots and clones (snapshot.c). */
#ifndef OBJMAP_CMD_SNAPSHOTS_H
#define OBJMAP_CMD_SNAPSHOTS_H

#include <jansson.h>

#include "src/volume/format.h"

json_t *snapshots_json(const struct snapshot_list *list);
/* Returns an exit status; prints nothing of an empty list. */
int snapshots_print(const struct snapshot_list *list);

#endif
