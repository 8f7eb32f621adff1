/* probe.h: finding out whether a store's conditional puts are conditional. */
#ifndef OBJMAP_STORE_PROBE_H
#define OBJMAP_STORE_PROBE_H

#include "backends/store/store.h"

/* Carries out a STORE_PROBE for the doorway: puts under its key what a store
 * that keeps its word must refuse, deletes the key, and completes @request:
 * DONE (conditional), REFUSED (not), or FAILED. */
void store_probe(struct store *store, struct store_request *request);

#endif
