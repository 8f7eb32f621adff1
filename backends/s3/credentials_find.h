/* credentials_find.h: the links of the chain that S3 credentials come from. */
#ifndef OBJMAP_S3_CREDENTIALS_FIND_H
#define OBJMAP_S3_CREDENTIALS_FIND_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "backends/http/http.h"
#include "backends/s3/credentials.h"

/* One look for credentials; also what a later one of the same kind needs. */
struct search {
	struct s3_credentials_options options;
	uint64_t deadline;		/* clock_now() */
	bool renewing;			/* this link had an answer before */
	const atomic_bool *closing;	/* give up soon */
	/* Opened when first needed. */
	struct http_client *metadata;	/* no proxy, little patience */
	struct http_client *web;
	/* What comes out. */
	int64_t skew;			/* seconds that the issuer's clock is ahead */
	char source[256];
	char why[1024];			/* why there are none; no secret */
};

/* A link: 0; -ENODATA: it has nothing to say, @why tells what was looked at; any
 * other error ends the chain. */
typedef int search_link(struct search *search, struct s3_keys *keys);
search_link find_nobody, find_in_environment, find_role_in_profile;
search_link find_by_web_identity, find_in_profile, find_in_container, find_in_instance;

/* Says why, and gives @error back. */
int search_fails(struct search *search, int error, const char *format, ...)
	__attribute__((format(printf, 3, 4)));

/* Keys from their texts; @token may be NULL.  @whose is for the message. */
int keys_fill(struct search *search, struct s3_keys *keys, const char *whose,
	      const char *id, const char *secret, const char *token);
/* From {"AccessKeyId": .., "SecretAccessKey": .., @token_name: .., "Expiration": ..}. */
int keys_from_json(struct search *search, struct s3_keys *keys, const char *whose,
		   const char *text, size_t count, const char *token_name,
		   bool is_process);

/* The content of a small file, malloc'ed, without blanks at its end. */
int secret_file_read(struct search *search, const char *path, char **text);

/* Runs @command (split as a shell does, without one) and takes its JSON. */
int keys_from_process(struct search *search, struct s3_keys *keys, const char *command);

/* The clients, opened when first needed; NULL: @why says it. */
struct http_client *search_metadata_client(struct search *search);
struct http_client *search_web_client(struct search *search);
void search_close_clients(struct search *search);
/* Sends @request, a few times where that may help, each try at most @patience (ns).
 * 0: there is a whole reply, whatever its status; its text is in request->text, and
 * search->skew is known.  Or -errno and why. */
int search_fetch(struct search *search, struct http_client *client,
		 struct http_request *request, uint64_t patience, unsigned int tries);

struct role {
	const char *arn, *session, *external_id, *duration;
	const char *region;	/* or NULL */
	const char *endpoint;	/* of STS, or NULL */
};
/* STS: the keys of a role, for somebody with keys or with a token in a file. */
int keys_by_assume_role(struct search *search, struct s3_keys *keys,
			const struct role *role, const struct s3_keys *caller);
int keys_by_web_identity(struct search *search, struct s3_keys *keys,
			 const struct role *role, const char *token_file);

#endif
