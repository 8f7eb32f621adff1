/* credentials.h: who we are for S3, from the usual chain, kept fresh.
 *
 * In this order: options given (profile), environment, ~/.aws/config and
 * ~/.aws/credentials (AWS_PROFILE, source_profile and role_arn by STS,
 * web identity, credential_process), container metadata, instance metadata
 * version 2.  What expires is fetched anew before it does, by a thread of its
 * own, so that nobody who signs ever waits.
 */
#ifndef OBJMAP_S3_CREDENTIALS_H
#define OBJMAP_S3_CREDENTIALS_H

#include <stdbool.h>
#include <stdint.h>

#define S3_KEY_ID_MAX 256
#define S3_SECRET_MAX 256
#define S3_TOKEN_MAX  8192

struct s3_keys {
	bool anonymous;			/* do not sign */
	char id[S3_KEY_ID_MAX];
	char secret[S3_SECRET_MAX];
	char token[S3_TOKEN_MAX];	/* empty: none */
	uint64_t expires;		/* seconds since 1970; 0: never */
	uint64_t generation;		/* another number: other keys */
};

struct s3_credentials;

struct s3_credentials_options {
	const char *profile;		/* --profile; NULL: AWS_PROFILE, "default" */
	bool anonymous;			/* --no-sign-request */
	const char *region;		/* of STS; NULL: as the profile says */
	const char *ca_bundle;		/* for STS */
};

/* Finds the first link of the chain that answers, and waits for it (bounded,
 * 30 s).  Logged: -ENOKEY (none found: names what was looked at), -EINVAL (a
 * file that is not right: where and what), -EACCES, -ETIMEDOUT. */
int s3_credentials_open(const struct s3_credentials_options *options,
			struct s3_credentials **credentials);
void s3_credentials_close(struct s3_credentials *credentials);

/* Copies what is in force; never waits.  0, or -EKEYEXPIRED: it expired and could
 * not be renewed (yet); the renewal's reason is in `s3_credentials_trouble`. */
int s3_credentials_get(struct s3_credentials *credentials,
		       struct s3_keys *keys);
/* The store said that keys of @generation have expired or are not known: renew
 * them now, if they can be.  Never waits. */
void s3_credentials_refused(struct s3_credentials *credentials,
			    uint64_t generation);
/* Why renewal fails, in words without secrets; empty: it does not. */
void s3_credentials_trouble(struct s3_credentials *credentials, char *text,
			    unsigned int size);
/* Where they came from, for `doctor`: "environment", "profile ci of
 * ~/.aws/credentials", "instance metadata". */
const char *s3_credentials_source(const struct s3_credentials *credentials);

/* ---- ~/.aws/config and ~/.aws/credentials, for whoever wants a setting ---- */

/* What [profile NAME] says of @name ("region", "endpoint_url", "ca_bundle",
 * "s3.addressing_style" for a nested one; "services" sections are followed for
 * endpoint_url).  malloc'ed; NULL: it does not say. */
char *s3_profile_setting(const char *profile, const char *name);

#endif
