/* absent.c: what a build without libnbd says; place.c refuses the places. */
#include <errno.h>

#include "backends/nbd/nbd.h"

int nbd_remote_open(const struct place *place,
		    const struct device_options *options, struct stage **stage)
{
	return -EOPNOTSUPP;
}

int nbd_list(const struct place *place, uint64_t retry_for,
	     struct nbd_exports *exports)
{
	return -EOPNOTSUPP;
}

void nbd_exports_free(struct nbd_exports *exports)
{
}
