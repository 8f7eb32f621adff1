/* nbd.h: remote NBD exports, through libnbd; see remote.h for how.  A build
 * without libnbd has absent.c instead. */
#ifndef OBJMAP_BACKENDS_NBD_H
#define OBJMAP_BACKENDS_NBD_H

#include "src/place.h"

/* Connects, trying again for options->retry_for (0: not), and opens the export as a
 * stage with the server's geometry.  A read-only export becomes a read-only
 * stage.  -EPROTO (a server that makes no sense), -ENOENT, -ETIMEDOUT, ... (never
 * -EINVAL), logged. */
int nbd_remote_open(const struct place *place,
		    const struct device_options *options, struct stage **stage);

/* What a server exports. */
struct nbd_export {
	char *name, *description;	/* malloc'ed; printable */
	int64_t size;			/* bytes; -1: it would not say */
	bool read_only;
};
struct nbd_exports {
	struct nbd_export *exports;
	unsigned int nr;
};
/* Asks the server of @place for its exports, or for the one that is named
 * there; @retry_for as above.  0 or -errno, logged. */
int nbd_list(const struct place *place, uint64_t retry_for,
	     struct nbd_exports *exports);
void nbd_exports_free(struct nbd_exports *exports);

#endif
