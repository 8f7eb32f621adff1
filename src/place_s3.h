/* place_s3.h: what an s3: place says of its server, and whether its names can be. */
#ifndef OBJMAP_PLACE_S3_H
#define OBJMAP_PLACE_S3_H

#include "src/place.h"

#define S3_CONNECTIONS_MAX 512u

/* What may follow the '?' of an s3: place: the S3 options by their long names;
 * NULL at the end. */
extern const char *const place_s3_params[];
/* Those that mean something to an s3+object: place, and versionId. */
extern const char *const place_object_params[];

/* -EINVAL, logged, unless each parameter is one that can be. */
int place_s3_check_params(const struct place *place);

/* *options: what @given says, and what the place says, which wins.  Its texts stay
 * those of @place and @given.  -EINVAL, logged: one that cannot be, or two that do
 * not go together. */
int place_s3_options(const struct place *place, const struct s3_options *given,
		     struct s3_options *options);

/* -EINVAL, logged, unless @bucket can be a bucket's name. */
int place_s3_check_bucket(const char *text, const char *bucket);
/* What is wrong with @prefix as a volume's, in words; NULL: nothing. */
const char *place_s3_prefix_fault(const char *prefix);

/* ... @key an object's. */
int place_s3_check_key(const char *text, const char *key);

#endif
