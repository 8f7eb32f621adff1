/* client.h: what the files of the S3 client share; nobody else includes it. */
#ifndef OBJMAP_S3_CLIENT_H
#define OBJMAP_S3_CLIENT_H

#include <pthread.h>

#include "backends/s3/s3.h"
#include "backends/s3/xml.h"

#define S3_REDIRECTS_MAX 4	/* of one call */
#define S3_ROUTES_MAX	 16	/* that a client can learn */
#define S3_REGION_DEFAULT "us-east-1"
#define S3_REGION_MAX	 64
#define S3_HOST_MAX	 256

/* Where requests go and for which region they are signed.  Never changes; a server
 * that says better is followed by another route, and those of before stay until
 * the client closes, because calls under way still refer to them. */
struct s3_route {
	bool tls;
	bool amazon;			/* the host follows the region */
	bool is_virtual;		/* the bucket stands before the host */
	bool signs_payload;		/* what is sent could be altered on the way */
	char region[S3_REGION_MAX];
	char host[S3_HOST_MAX];		/* HOST[:PORT], without the bucket */
	char base[S3_HOST_MAX];		/* the endpoint's own path; "" or "/s3" */
	char endpoint[S3_HOST_MAX * 2 + 16]; /* the three of them, for people */
	unsigned int nr_older;
	const struct s3_route *older;
};

struct s3_client {
	char *place, *bucket;
	struct s3_options options;	/* strings are copies */
	char *profile, *ca_bundle;	/* as they were found */
	struct http_client *http;
	struct s3_credentials *credentials;
	struct s3_signing_key *signing_key;
	char sse_c_key[48], sse_c_md5[32]; /* base64; empty: none */

	atomic_bool succeeded;		/* the server has answered as S3 does */
	_Atomic int64_t skew;		/* seconds added to our clock in signatures */
	_Atomic int64_t ahead;		/* the latest reply's Date against our clock */
	const struct s3_route *_Atomic route;
	pthread_mutex_t lock;		/* over learning routes, and each call's
					 * in_pool and cancelled */
};

/* ---- route.c ---------------------------------------------------------------- */

/* The first route: @url as options or environment say, NULL: Amazon's.  -EINVAL,
 * logged. */
int s3_route_open(struct s3_client *client, const char *url, const char *region,
		  enum s3_addressing addressing);
void s3_route_close(struct s3_client *client);
/* Remembers that the bucket is in @region, and with @host (NULL: as the region
 * says) where.  -ELOOP: too much was learned already, -ENOMEM. */
int s3_route_learn(struct s3_client *client, const struct s3_route *from,
		   const char *region, const char *host);
/* Whether what is meant for @route's host may be sent to @host. */
bool s3_host_is_trusted(const struct s3_route *route, const char *bucket,
			const char *host);

/* ---- judge.c and redirect.c ---------------------------------------------------- */

enum s3_verdict { S3_JUDGED, S3_AGAIN };
/* Fills outcome, error, code and message of @call, or says that it is to be sent
 * again at once: its route, or the client's clock, was put right. */
enum s3_verdict s3_judge(struct s3_call *call);
/* What the reply says of another region, host or time was taken. */
bool s3_redirected(struct s3_call *call, const struct s3_error *error);
bool s3_call_changes(const struct s3_call *call);

/* ---- checksum.c ------------------------------------------------------------------ */

/* base64 of @count bytes with a 0; @room at least 4 * ((count + 2) / 3) + 1. */
void s3_base64(const void *data, size_t count, char *text, size_t room);
int s3_md5(const struct iovec *iov, unsigned int nr_iov, unsigned char md5[16]);

#endif
