/* given_bucket.h: bucket.h's operations on a bucket of a real server. */
#ifndef OBJMAP_TESTS_GIVEN_BUCKET_H
#define OBJMAP_TESTS_GIVEN_BUCKET_H

#include "backends/store/store.h"

struct given_bucket;

/* A new one below given_place(), and the operations that bucket.h describes. */
struct given_bucket *given_bucket_open(void);
void given_bucket_close(struct given_bucket *bucket);
struct store *given_bucket_client(struct given_bucket *bucket, const char *prefix);
unsigned int given_bucket_count(struct given_bucket *bucket, const char *prefix);
void given_bucket_print(struct given_bucket *bucket, const char *prefix);
bool given_bucket_lose(struct given_bucket *bucket, const char *prefix);
void given_bucket_clock_add(struct given_bucket *bucket, uint64_t seconds);
void given_bucket_ignore_conditions(struct given_bucket *bucket);
void given_bucket_hold_uploads(struct given_bucket *bucket, uint64_t count);
void given_bucket_finish_uploads(struct given_bucket *bucket);
void given_bucket_orphan_uploads(struct given_bucket *bucket);
unsigned int given_bucket_count_uploads(struct given_bucket *bucket);

#endif
