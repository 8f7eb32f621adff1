/* list_s3.h: finding the volumes in a bucket. */
#ifndef OBJMAP_CMD_LIST_S3_H
#define OBJMAP_CMD_LIST_S3_H

#include "src/cmd/options.h"
#include "src/place.h"
#include "src/volume/format.h"

/* Calls @found for every volume below @place, ascending by place; no other thread
 * runs then.  Stops when it returns not 0, and returns that.  A server that fails
 * is -EIO and the like, logged; too many folders to look at all of them: -E2BIG,
 * logged, after @found was told of those that were seen. */
typedef int list_found(void *context, const char *place, const struct head *head);
int list_s3(const struct options *options, const struct place *place,
	    list_found *found, void *context);

#endif
