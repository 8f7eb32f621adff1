/* sign.h: AWS Signature Version 4, of our own over OpenSSL.
 *
 * Source: "Signature Version 4 signing process" of Amazon's reference, with
 * S3's exceptions: the path is encoded once and not normalised.
 */
#ifndef OBJMAP_S3_SIGN_H
#define OBJMAP_S3_SIGN_H

#include <stdint.h>
#include <sys/uio.h>

#include "backends/http/http.h"
#include "backends/s3/credentials.h"

#define S3_UNSIGNED_PAYLOAD "UNSIGNED-PAYLOAD"
#define S3_HASH_SIZE 65		/* hexadecimal SHA-256 and a 0 */

/* Caches the signing key of one day, region, service and secret. */
struct s3_signing_key;
struct s3_signing_key *s3_signing_key_new(void);	/* NULL: no memory */
void s3_signing_key_free(struct s3_signing_key *key);	/* wipes it */

struct s3_scope {
	const char *region;
	const char *service;	/* "s3", "sts" */
	uint64_t now;		/* seconds since 1970 by the server's clock */
};

/* The SHA-256 of what iov holds, in hexadecimal; empty: no memory, which s3_sign()
 * then says. */
void s3_payload_hash(const struct iovec *iov, unsigned int nr_iov,
		     char hash[S3_HASH_SIZE]);

/* Signs a request to @host, @path (as it is sent: %-encoded, begins with '/') and
 * @query (as sent, "" for none): adds x-amz-date, x-amz-content-sha256 (service s3),
 * x-amz-security-token and Authorization to @headers, after taking away those of an
 * earlier signing.  All of @headers is signed but what proxies change (User-Agent,
 * Accept-Encoding, Expect, ...).  Anonymous keys: nothing is added.  @key may be used
 * by many threads at once.  0, -ENOMEM, -EINVAL (no such region or time), -E2BIG. */
int s3_sign(struct s3_signing_key *key, const struct s3_keys *keys,
	    const struct s3_scope *scope, const char *method, const char *host,
	    const char *path, const char *query, const char *payload_hash,
	    struct http_headers *headers);

/* A presigned URL's query, "QUERY&X-Amz-Algorithm=...&X-Amz-Signature=...", valid for
 * @seconds; malloc'ed, or NULL. */
char *s3_presign(struct s3_signing_key *key, const struct s3_keys *keys,
		 const struct s3_scope *scope, const char *method,
		 const char *host, const char *path, const char *query,
		 uint64_t seconds);

/* Writes @text %-encoded as S3 signs it to @to, which has @room bytes, with a 0: all
 * but letters, digits, '-', '.', '_', '~', and '/' when @path.  Its length, or
 * -E2BIG. */
int s3_encode(const char *text, bool path, char *to, size_t room);

#endif
