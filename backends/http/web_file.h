/* web_file.h: one file of a web server, as a store that can only get it.
 *
 * So what fails for a while is tried again by the stores' one doorway, which tells of
 * it in `status` as well. */
#ifndef OBJMAP_WEB_FILE_H
#define OBJMAP_WEB_FILE_H

#include "backends/store/store.h"
#include "src/place.h"

/* What the first reply says of a file; all later ones must agree. */
struct web_version {
	uint64_t size;			/* bytes */
	char tag[STORE_TAG_MAX];	/* a strong ETag, or Last-Modified */
	bool by_date;			/* tag is a date */
};

/* Finds the file at @url and whether its server can be read in ranges; @place is for
 * messages.  What has to be got of it has any key.  0 or -errno, logged. */
int web_file_open(const char *place, const char *url,
		  const struct device_options *options, struct store **store,
		  struct web_version *version);
/* Whether it was replaced since: gets fail with -ESTALE for good. */
bool web_file_is_lost(struct store *store);

#endif
