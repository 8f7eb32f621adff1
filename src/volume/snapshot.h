/* snapshot.h: the list of a volume's snapshots and clones, and changing it. */
#ifndef OBJMAP_VOLUME_SNAPSHOT_H
#define OBJMAP_VOLUME_SNAPSHOT_H

#include "src/volume/swap.h"
#include "src/volume/volume.h"

/* The list that @head names; empty without one.  -ENOENT (not logged): it is
 * gone, so that head has been replaced, or else the volume is damaged. */
int snapshots_read(struct store *store, const struct head *head,
		   struct snapshot_list *list);

/* The head that @entry of @head's list pinned.  -ENOENT as above. */
int snapshot_body_read(struct store *store, const struct head *head,
		       const struct snapshot *entry, struct head *body);

/* The snapshot called @name, or NULL. */
const struct snapshot *snapshot_find(const struct snapshot_list *list,
				     const char *name);

/* Changes @list, which is @stored's.  1: swap it in; 0: it is already as it
 * shall be; or a negative errno, logged.  Called again for every head that a
 * swap was lost to. */
typedef int snapshots_change(void *context, struct store *store,
			     const struct stored_head *stored,
			     struct snapshot_list *list);

/* Reads head and list, changes the list and swaps it in on @terms, writer and
 * epoch unchanged; starts again from the new head when the swap was lost.
 * @what names the change for messages.  -EBUSY: a busy writer kept winning. */
int snapshots_edit(struct store *store, const char *what, struct swap_terms *terms,
		   snapshots_change *change, void *context);

/* Probes the store, unless @terms know the answer or are NULL.  Called before the
 * first PUT: a change that is refused leaves nothing.  -EOPNOTSUPP, or why it cannot
 * be found out; logged. */
int swap_terms_probe(struct store *store, struct swap_terms *terms);

int snapshots_add(struct snapshot_list *list, const struct snapshot *entry);
void snapshots_remove(struct snapshot_list *list, unsigned int i);

/* Whether the clone that @entry stands for lives: 1, 0, or a negative errno
 * when that cannot be told.  True of the head whose list was read only: who
 * acts on it must swap that head. */
int clone_lives(struct store *store, const struct snapshot *entry);

#endif
