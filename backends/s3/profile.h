/* profile.h: ~/.aws/config and ~/.aws/credentials, read once. */
#ifndef OBJMAP_S3_PROFILE_H
#define OBJMAP_S3_PROFILE_H

#include <stdbool.h>
#include <stddef.h>

/* In the order in which they are asked. */
enum profile_file { PROFILE_CREDENTIALS, PROFILE_CONFIG, NR_PROFILE_FILES };

struct profiles;

/* Reads both files; one that is not there is empty.  0, -ENOMEM, or -EINVAL,
 * -EACCES, ... with what is wrong, and where, in @why. */
int profiles_read(struct profiles **profiles, char *why, size_t room);
void profiles_free(struct profiles *profiles);	/* wipes what was read */

/* "~/.aws/config", or as the environment says. */
const char *profiles_path(const struct profiles *profiles, enum profile_file file);
bool profiles_has_file(const struct profiles *profiles, enum profile_file file);
/* Whether others than its owner may read it. */
bool profiles_is_open_to_others(const struct profiles *profiles,
				enum profile_file file);

/* @given, else AWS_PROFILE, "default". */
const char *profile_chosen(const char *given);
bool profile_exists(const struct profiles *profiles, const char *profile);
/* What a profile says of @name ("region", "s3.addressing_style" for one that is
 * nested below "s3 ="), in one file or in the first that says it.  NULL: nothing;
 * an empty value is none. */
const char *profile_value_in(const struct profiles *profiles, enum profile_file file,
			     const char *profile, const char *name);
const char *profile_value(const struct profiles *profiles, const char *profile,
			  const char *name);
/* The endpoint_url of @service ("s3", "sts"): of the profile's services section,
 * else its own; NULL also when configured endpoints are to be ignored. */
const char *profile_endpoint(const struct profiles *profiles, const char *profile,
			     const char *service);

/* A value of the environment; an empty one is none. */
const char *environment(const char *name);

#endif
