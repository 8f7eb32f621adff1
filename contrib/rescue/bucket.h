/* bucket.h: whole objects of one bucket, by libs3.
 *
 * libs3 2.0 calls a body that was cut a success: what it says is not believed, the
 * length is counted here.  Any number of threads may call bucket_get(). */
#ifndef OBJMAP_RESCUE_BUCKET_H
#define OBJMAP_RESCUE_BUCKET_H

#include <stddef.h>
#include <stdint.h>

#include "contrib/rescue/format.h"

struct credentials {
	char *access_key, *secret_key;
};

/* From AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, else from the profile
 * $AWS_PROFILE (default) of $AWS_SHARED_CREDENTIALS_FILE (~/.aws/credentials).
 * 0, or -1 after a message: none, half of a pair, or a session token, which libs3
 * cannot send. */
int credentials_find(struct credentials *credentials);
void credentials_free(struct credentials *credentials);

struct bucket;

/* @endpoint: http://HOST[:PORT].  NULL after a message. */
struct bucket *bucket_open(const char *endpoint, const char *name,
			   const struct credentials *credentials);
void bucket_close(struct bucket *bucket);

enum outcome {
	OBJECT_WHOLE,		/* as many bytes as the store announced */
	OBJECT_MISSING,
	OBJECT_CUT,		/* .count bytes came, of .announced */
	OBJECT_TOO_LONG,	/* .announced, more than .room; no byte kept */
	OBJECT_REFUSED,		/* the store answered something else, again and again */
	STORE_LOST,		/* nobody answers, or nobody listens to these keys */
};

struct object {
	uint8_t *bytes;			/* the caller's, of .room bytes */
	size_t room;
	size_t count;
	uint64_t announced;
	char volume[UUID_TEXT_SIZE + 1];	/* metadata; empty if none */
	char frames[FRAMES_TEXT_SIZE + 1];
	char why[REASON_SIZE];		/* unless OBJECT_WHOLE */
};

/* GETs the object of @key, and tries again for some seconds while there is hope. */
enum outcome bucket_get(const struct bucket *bucket, const char *key,
			struct object *object);

#endif
