/* bucket.h: a bucket for the tests of volumes, in memory, where it behaves like S3,
 * or below the place that is given (tests/store/given.h), where it is S3: several
 * volumes under prefixes of their own, keys with one leading '/' from the top (gets
 * only), tags that are the content's hash, so that the same bytes have the same tag
 * again. */
#ifndef OBJMAP_TESTS_BUCKET_H
#define OBJMAP_TESTS_BUCKET_H

#include "backends/store/store.h"

struct bucket;

struct bucket *bucket_open(void);
/* All clients are closed. */
void bucket_close(struct bucket *bucket);

/* A handle for the volume under @prefix; NULL: no memory. */
struct store *bucket_client(struct bucket *bucket, const char *prefix);

/* How many keys begin with @prefix, which is from the top. */
unsigned int bucket_count(struct bucket *bucket, const char *prefix);
/* Prints them to standard error. */
void bucket_print(struct bucket *bucket, const char *prefix);
/* Takes the first object whose key begins with @prefix away; false: none. */
bool bucket_lose(struct bucket *bucket, const char *prefix);

/* Time passes: the store's clock, for all that is put and asked from now on. */
void bucket_clock_add(struct bucket *bucket, uint64_t seconds);

/* From now on conditions of puts are not looked at. */
void bucket_ignore_conditions(struct bucket *bucket);

/* From now on a put of at least @count bytes (0: none) is a multipart upload that
 * stops before its end, as if its client was paused: the put is not answered. */
void bucket_hold_uploads(struct bucket *bucket, uint64_t count);
/* The ends of those uploads arrive: what was not aborted is an object now. */
void bucket_finish_uploads(struct bucket *bucket);
/* Their clients are gone: the puts fail, the uploads stay; bucket_finish_uploads()
 * then is a completion that was under way for long. */
void bucket_orphan_uploads(struct bucket *bucket);
unsigned int bucket_count_uploads(struct bucket *bucket);

#endif
