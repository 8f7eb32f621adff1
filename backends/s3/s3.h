/* s3.h: an S3 server as it is spoken to: one bucket, one signed call at a time.
 *
 * backends/store/s3.c makes a store of it (keys to bytes, see store.h), and
 * backends/object.c a device of one object.  A call here is one HTTP request and its
 * judged reply; it is not retried, but for what is the protocol's own business: a
 * redirect to another region or endpoint, and a clock that was wrong.
 */
#ifndef OBJMAP_S3_H
#define OBJMAP_S3_H

#include <stdbool.h>
#include <stdint.h>

#include "backends/http/http.h"
#include "backends/s3/credentials.h"
#include "backends/s3/sign.h"
#include "backends/store/store.h"

#define S3_PART_MIN	(5ull << 20)	/* of every part but the last */
#define S3_PARTS_MAX	10000u
#define S3_UPLOAD_ID_MAX 1025		/* with the 0 */

enum s3_addressing { S3_ADDRESSING_AUTO, S3_PATH, S3_VIRTUAL };

/* As options and ?parameters of a place give it.  NULL or 0: not given. */
struct s3_options {
	const char *endpoint_url;	/* else AWS_ENDPOINT_URL_S3, AWS_ENDPOINT_URL,
					 * the profile, Amazon's of the region */
	const char *region;		/* else AWS_REGION, AWS_DEFAULT_REGION, the
					 * profile, what the server says, us-east-1 */
	const char *profile;
	bool no_sign_request;
	enum s3_addressing addressing;
	const char *ca_bundle;		/* else AWS_CA_BUNDLE, the profile */
	bool dual_stack;
	const char *sse;		/* "AES256", "aws:kms" */
	const char *sse_kms_key;
	const char *sse_c_key_file;	/* 32 bytes, or their base64 */
	const char *storage_class;
	bool requester_pays;
	const char *tags;		/* "NAME=VALUE&..." */
	unsigned int connections;
	uint64_t multipart_threshold;	/* bytes; 0: 8 MiB */
	uint64_t part_size;		/* bytes; 0: 8 MiB */
	bool exclusive;			/* do without conditional puts */
};

struct s3_client;

/* Opens @bucket: finds credentials and region, starts what HTTP needs.  Asks the
 * server nothing.  @place is for messages.  -EINVAL, -ENOKEY, ..., logged. */
int s3_client_open(const char *place, const char *bucket,
		   const struct s3_options *options, struct s3_client **client);
void s3_client_close(struct s3_client *client);
const char *s3_client_bucket(const struct s3_client *client);
const struct s3_options *s3_client_options(const struct s3_client *client);
/* "http://127.0.0.1:9000", and where keys and region come from, for doctor. */
/* Whether they can be; http://HOST[:PORT] or https://HOST[:PORT]. */
bool s3_endpoint_is_good(const char *url);
bool s3_region_is_good(const char *region);
const char *s3_client_endpoint(const struct s3_client *client);
const char *s3_client_region(const struct s3_client *client);
const char *s3_client_credentials(const struct s3_client *client);
/* Seconds that the server's clock is ahead of ours by its latest reply. */
int64_t s3_client_skew(const struct s3_client *client);

/* One call. */
struct s3_call;
typedef void s3_done(struct s3_call *call);
struct s3_route;

struct s3_call {
	/* Filled by the caller, stays until done. */
	const char *method;
	const char *key;		/* from the top of the bucket, not encoded;
					 * NULL: the bucket itself */
	const char *query;		/* "uploads", "partNumber=1&uploadId=..":
					 * encoded, in any order; NULL: none */
	struct http_headers headers;	/* of this call; the client's (SSE, requester
					 * pays, ..) are added as the method wants;
					 * freed by s3_call_free() */
	const struct iovec *body;
	unsigned int nr_body;
	uint64_t body_count;
	bool needs_md5;			/* Content-MD5 and a checksum header: DeleteObjects */
	bool repeatable;		/* twice does no harm: s3_wait_retrying() tries
					 * again when it is UNKNOWN, too */
	bool writes_object;		/* PUT of an object, CreateMultipartUpload,
					 * CopyObject: SSE, class and tags go with it */
	const struct iovec *sink;	/* as http.h's, down to text_max */
	unsigned int nr_sink;
	uint64_t sink_count;
	uint32_t *sums;
	uint32_t sum_unit;
	size_t text_max;		/* 0: 1 MiB */
	enum request_priority priority;
	uint64_t deadline;		/* clock_now() */
	uint64_t stall_timeout;		/* as http.h's */
	const _Atomic uint64_t *retry_for;	/* ns; s3_wait_retrying() looks at it before
					 * each try, so that it can be made shorter
					 * meanwhile; NULL: only the deadline counts */
	/* Told by s3_wait_retrying() of what will be tried again; may be NULL. */
	void (*retrying)(const struct s3_call *call);
	void *retrying_context;
	s3_done *done;			/* once, on any thread, no lock held */
	/* Asked when it is about to leave the queue, on an I/O thread; may be
	 * NULL.  True: nobody wants it any more; it ends with -ECANCELED. */
	bool (*unwanted)(struct s3_call *call);
	void *context;

	/* Judged.  DONE: status 2xx, reply whole, of what was asked for (its
	 * Range, its If-Match), and no <Error> in it.
	 * ABSENT: NoSuchKey of a GET (or NoSuchUpload, see code), nothing else.
	 * REFUSED: 412, or 404 NoSuchKey to an If-Match of what changes something.
	 * UNKNOWN is said of calls that change something and may have, or may yet.
	 * TRANSIENT, FAILED: error and message say why.  Permanent (FAILED) before
	 * the client's first success and TRANSIENT after it: no such host, a
	 * certificate or a signature refused, replies that are not S3's. */
	enum store_outcome outcome;
	int error;			/* -errno beside TRANSIENT, FAILED, UNKNOWN */
	char code[64];			/* S3's: "NoSuchKey"; empty: none */
	char message[256];		/* for people: what failed and why, and what
					 * to do; no secret */
	struct http_request http;	/* status, reply headers, text */
	uint64_t sent_at;		/* clock_now() when it first left the queue;
					 * 0: it never did */

	/* call.c's. */
	struct s3_client *client;
	const struct s3_route *route;
	unsigned int redirects;
	bool clock_was_set;
	bool in_pool, cancelled;	/* under the client's lock */
	char *host, *path;		/* as signed */
	char *other_host;		/* of a redirect for this call only */
	char payload_hash[S3_HASH_SIZE];
	uint64_t generation;		/* of the keys that signed it */
};

/* Everything but what the caller fills in is zero; @client too may be filled in, for
 * a call that may be cancelled before it is submitted. */
void s3_submit(struct s3_client *client, struct s3_call *call);
/* From any thread until done(). */
void s3_cancel(struct s3_call *call);
void s3_wait(struct s3_client *client, struct s3_call *call);
/* The same, tried again while TRANSIENT until @deadline (clock_now() ns) or until
 * *stop; for callers that are threads of their own.  May be NULL. */
void s3_wait_retrying(struct s3_client *client, struct s3_call *call,
		      uint64_t deadline, const atomic_bool *stop);
/* Frees what the calls above hold, and the caller's headers. */
void s3_call_free(struct s3_call *call);
/* For whoever reads a reply that was DONE further, and finds it wrong: it becomes
 * UNKNOWN when the call changes something, else TRANSIENT, with -EPROTO. */
void s3_call_is_wrong(struct s3_call *call, const char *why);

/* Sets outcome and error, and the message from a format. */
void s3_call_says(struct s3_call *call, enum store_outcome outcome, int error,
		  const char *format, ...) __attribute__((format(printf, 4, 5)));

/* Of a GET's reply: bytes of the whole object, by Content-Range or Content-Length;
 * UINT64_MAX: it does not say.  And of a 416. */
uint64_t s3_object_size(const struct s3_call *call);
/* By its reply: MinIO lists uploads by whole keys only, or all of the bucket. */
bool s3_is_minio(const struct s3_call *call);
/* "Sun, 06 Nov 1994 08:49:37 GMT" in seconds since 1970; 0: that is no date. */
uint64_t s3_date(const char *text);
/* "x-amz-checksum-crc32c", and "Content-MD5" of @iov.  0 or as http_headers_add(). */
uint32_t s3_crc32c(const struct iovec *iov, unsigned int nr_iov);
int s3_add_crc32c(struct http_headers *headers, uint32_t crc);
int s3_add_md5(struct http_headers *headers, const struct iovec *iov,
	       unsigned int nr_iov);
/* Whether the signature holds a hash of what is sent.  Not over TLS, nor to this
 * machine itself: a checksum may go with it there. */
bool s3_client_signs_payload(const struct s3_client *client);

/* ---- multipart uploads ----------------------------------------------------- */

struct s3_part { char etag[STORE_TAG_MAX]; uint64_t size; };
/* The body of CompleteMultipartUpload; malloc'ed, or NULL. */
char *s3_complete_body(const struct s3_part *parts, unsigned int nr_parts);
/* The UploadId of CreateMultipartUpload's reply.  0 or -EBADMSG. */
int s3_upload_id(const char *text, size_t count, char id[S3_UPLOAD_ID_MAX]);
/* The ETag that the object will have: MD5 of the parts' and their number, in
 * quotes.  0, or -EINVAL: the parts' tags are no MD5s. */
int s3_upload_etag(const struct s3_part *parts, unsigned int nr_parts,
		   char etag[STORE_TAG_MAX]);
/* "partNumber=N&uploadId=ID", "uploadId=ID" when @part is 0; encoded, malloc'ed,
 * or NULL. */
char *s3_upload_query(const char *id, unsigned int part);

#endif
