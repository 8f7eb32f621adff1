/* credentials_files.c: keys from the environment and from a profile.
 *
 * What a profile says goes in the order of the AWS command line: a role first, then
 * keys in ~/.aws/credentials, credential_process, keys in ~/.aws/config.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "backends/s3/credentials_find.h"
#include "backends/s3/profile.h"
#include "backends/s3/xml.h"
#include "src/log.h"

#define ROLES_MAX 5	/* one assumed with the keys of another, and so on */

/* ---- the environment ------------------------------------------------------ */

int find_in_environment(struct search *search, struct s3_keys *keys)
{
	const char *id = environment("AWS_ACCESS_KEY_ID");
	const char *secret = environment("AWS_SECRET_ACCESS_KEY");
	const char *expiration = environment("AWS_CREDENTIAL_EXPIRATION");
	int error;

	if (!id && !secret)
		return search_fails(search, -ENODATA, "AWS_ACCESS_KEY_ID is not set");
	if (!id || !secret)
		return search_fails(search, -EINVAL, "%s is set, but %s is not",
				    id ? "AWS_ACCESS_KEY_ID" : "AWS_SECRET_ACCESS_KEY",
				    id ? "AWS_SECRET_ACCESS_KEY" : "AWS_ACCESS_KEY_ID");
	error = keys_fill(search, keys, "environment", id, secret,
			  environment("AWS_SESSION_TOKEN"));
	if (!error && expiration && s3_xml_time(expiration, &keys->expires))
		error = search_fails(search, -EINVAL,
				     "AWS_CREDENTIAL_EXPIRATION is no time");
	snprintf(search->source, sizeof(search->source), "environment");
	return error;
}

static const char *region_of(const struct search *search,
			     const struct profiles *profiles, const char *profile)
{
	const char *region = search->options.region;

	if (!region)
		region = environment("AWS_REGION");
	if (!region)
		region = environment("AWS_DEFAULT_REGION");
	return region ? region : profile_value(profiles, profile, "region");
}

static const char *sts_endpoint(const struct profiles *profiles, const char *profile)
{
	const char *ignore = environment("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS");
	const char *endpoint = NULL;

	if (!ignore || strcasecmp(ignore, "true") != 0) {
		endpoint = environment("AWS_ENDPOINT_URL_STS");
		if (!endpoint)
			endpoint = environment("AWS_ENDPOINT_URL");
	}
	return endpoint ? endpoint : profile_endpoint(profiles, profile, "sts");
}

/* Both files, or why not. */
static int read_files(struct search *search, struct profiles **profiles)
{
	return profiles_read(profiles, search->why, sizeof(search->why));
}

int find_by_web_identity(struct search *search, struct s3_keys *keys)
{
	const char *file = environment("AWS_WEB_IDENTITY_TOKEN_FILE");
	const char *profile = profile_chosen(search->options.profile);
	struct role role = {
		.arn = environment("AWS_ROLE_ARN"),
		.session = environment("AWS_ROLE_SESSION_NAME"),
	};
	struct profiles *profiles;
	int error;

	if (!file)
		return search_fails(search, -ENODATA,
				    "AWS_WEB_IDENTITY_TOKEN_FILE is not set");
	if (!role.arn)
		return search_fails(search, -EINVAL, "AWS_WEB_IDENTITY_TOKEN_FILE is set, "
				    "but AWS_ROLE_ARN is not");
	error = read_files(search, &profiles);
	if (error)
		return error;
	role.region = region_of(search, profiles, profile);
	role.endpoint = sts_endpoint(profiles, profile);
	error = keys_by_web_identity(search, keys, &role, file);
	snprintf(search->source, sizeof(search->source), "web identity for %s", role.arn);
	profiles_free(profiles);
	return error;
}

/* ---- a profile ------------------------------------------------------------ */

static int keys_of_profile(struct search *search, const struct profiles *profiles,
			   const char *profile, unsigned int roles,
			   struct s3_keys *keys);

static int no_source(struct search *search, const char *profile, int error)
{
	char why[sizeof(search->why)];

	if (error != -ENODATA)
		return error;
	snprintf(why, sizeof(why), "%s", search->why);
	return search_fails(search, -ENOKEY, "profile %s: no keys to assume its role "
			    "with: %s", profile, why);
}

/* The keys that a role is assumed with. */
static int keys_of_caller(struct search *search, const struct profiles *profiles,
			  const char *profile, unsigned int roles, struct s3_keys *keys)
{
	const char *source = profile_value(profiles, profile, "source_profile");
	const char *kind = profile_value(profiles, profile, "credential_source");
	static const struct { const char *name; search_link *find; } kinds[] = {
		{ "Environment", find_in_environment },
		{ "Ec2InstanceMetadata", find_in_instance },
		{ "EcsContainer", find_in_container },
	};

	if (source && kind)
		return search_fails(search, -EINVAL, "profile %s: has both source_profile "
				    "and credential_source: remove one", profile);
	if (source && !profile_exists(profiles, source))
		return search_fails(search, -EINVAL, "profile %s: its source_profile %s is "
				    "not there", profile, source);
	if (source && roles >= ROLES_MAX)
		return search_fails(search, -ELOOP, "profile %s: more than %d roles are "
				    "assumed one after the other: does source_profile go "
				    "round in a circle?", profile, ROLES_MAX);
	/* Its own source: then it has keys besides the role. */
	if (source)
		return no_source(search, profile,
				 keys_of_profile(search, profiles, source,
						 strcmp(source, profile) ? roles + 1 :
						 UINT32_MAX, keys));
	for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++)
		if (strcmp(kind, kinds[i].name) == 0)
			return no_source(search, profile, kinds[i].find(search, keys));
	return search_fails(search, -EINVAL, "profile %s: credential_source is none of "
			    "Environment, Ec2InstanceMetadata, EcsContainer", profile);
}

static bool has_role(const struct profiles *profiles, const char *profile)
{
	return profile_value(profiles, profile, "role_arn") &&
	       (profile_value(profiles, profile, "source_profile") ||
		profile_value(profiles, profile, "credential_source"));
}

static void role_of(const struct search *search, const struct profiles *profiles,
		    const char *profile, struct role *role)
{
	*role = (struct role){
		.arn = profile_value(profiles, profile, "role_arn"),
		.session = profile_value(profiles, profile, "role_session_name"),
		.external_id = profile_value(profiles, profile, "external_id"),
		.duration = profile_value(profiles, profile, "duration_seconds"),
		.region = region_of(search, profiles, profile),
		.endpoint = sts_endpoint(profiles, profile),
	};
}

static int assume_role(struct search *search, const struct profiles *profiles,
		       const char *profile, unsigned int roles, struct s3_keys *keys)
{
	struct s3_keys caller;
	struct role role;
	int error;

	if (profile_value(profiles, profile, "mfa_serial"))
		return search_fails(search, -EOPNOTSUPP, "profile %s: its role wants the "
				    "code of an MFA device, and nobody can be asked: let a "
				    "program get the keys, as in credential_process = aws "
				    "configure export-credentials --profile %s", profile,
				    profile);
	role_of(search, profiles, profile, &role);
	error = keys_of_caller(search, profiles, profile, roles, &caller);
	if (!error)
		error = keys_by_assume_role(search, keys, &role, &caller);
	explicit_bzero(&caller, sizeof(caller));
	snprintf(search->source, sizeof(search->source), "role %s of profile %s",
		 role.arn, profile);
	return error;
}

static int web_identity_of(struct search *search, const struct profiles *profiles,
			   const char *profile, struct s3_keys *keys)
{
	struct role role;
	int error;

	role_of(search, profiles, profile, &role);
	error = keys_by_web_identity(search, keys, &role,
				     profile_value(profiles, profile,
						   "web_identity_token_file"));
	snprintf(search->source, sizeof(search->source),
		 "web identity for %s of profile %s", role.arn, profile);
	return error;
}

static int static_keys(struct search *search, const struct profiles *profiles,
		       enum profile_file file, const char *profile,
		       struct s3_keys *keys)
{
	const char *path = profiles_path(profiles, file);

	snprintf(search->source, sizeof(search->source), "profile %s of %s", profile,
		 path);
	if (profiles_is_open_to_others(profiles, file) && !search->renewing)
		log_warning("%s holds secrets, and others can read it: chmod 600 %s", path,
			    path);
	return keys_fill(search, keys, search->source,
			 profile_value_in(profiles, file, profile, "aws_access_key_id"),
			 profile_value_in(profiles, file, profile,
					  "aws_secret_access_key"),
			 profile_value_in(profiles, file, profile, "aws_session_token"));
}

static bool has_keys(const struct profiles *profiles, enum profile_file file,
		     const char *profile)
{
	return profile_value_in(profiles, file, profile, "aws_access_key_id") ||
	       profile_value_in(profiles, file, profile, "aws_secret_access_key");
}

static int process_of(struct search *search, const char *profile, const char *command,
		      struct s3_keys *keys)
{
	snprintf(search->source, sizeof(search->source),
		 "credential_process of profile %s", profile);
	return keys_from_process(search, keys, command);
}

/* A sign-in that needs a browser. */
static bool wants_sign_in(const struct profiles *profiles, const char *profile)
{
	return profile_value(profiles, profile, "sso_session") ||
	       profile_value(profiles, profile, "sso_start_url") ||
	       profile_value(profiles, profile, "login_session");
}

/* @roles: how many are on the way already; UINT32_MAX: take none here. */
static int keys_of_profile(struct search *search, const struct profiles *profiles,
			   const char *profile, unsigned int roles,
			   struct s3_keys *keys)
{
	const char *process = profile_value(profiles, profile, "credential_process");

	if (roles != UINT32_MAX && has_role(profiles, profile))
		return assume_role(search, profiles, profile, roles, keys);
	if (roles != UINT32_MAX && profile_value(profiles, profile, "role_arn") &&
	    profile_value(profiles, profile, "web_identity_token_file"))
		return web_identity_of(search, profiles, profile, keys);
	if (has_keys(profiles, PROFILE_CREDENTIALS, profile))
		return static_keys(search, profiles, PROFILE_CREDENTIALS, profile, keys);
	if (process)
		return process_of(search, profile, process, keys);
	if (has_keys(profiles, PROFILE_CONFIG, profile))
		return static_keys(search, profiles, PROFILE_CONFIG, profile, keys);
	if (wants_sign_in(profiles, profile))
		return search_fails(search, -EOPNOTSUPP, "profile %s: signs in with SSO, "
				    "which needs the AWS command line: sign in with it, and "
				    "use a profile with credential_process = aws configure "
				    "export-credentials --profile %s", profile, profile);
	if (roles != UINT32_MAX && profile_value(profiles, profile, "role_arn"))
		return search_fails(search, -EINVAL, "profile %s: has role_arn, but no "
				    "source_profile, credential_source or "
				    "web_identity_token_file", profile);
	return search_fails(search, -ENODATA, "profile %s of %s and %s has no keys", profile,
			    profiles_path(profiles, PROFILE_CREDENTIALS),
			    profiles_path(profiles, PROFILE_CONFIG));
}

static const char *not_there(const struct profiles *profiles, enum profile_file file)
{
	return profiles_has_file(profiles, file) ? "" : " (no such file)";
}

/* The files, and the chosen profile when it is there. */
static int open_profile(struct search *search, struct profiles **profiles,
			const char **profile)
{
	const char *given = search->options.profile;
	int error = read_files(search, profiles);

	if (error)
		return error;
	*profile = profile_chosen(given);
	if (profile_exists(*profiles, *profile))
		return 0;
	/* One that was asked for must be there; "default" need not. */
	error = given || environment("AWS_PROFILE") ? -ENOKEY : -ENODATA;
	search_fails(search, error, "there is no profile %s in %s%s or %s%s", *profile,
		     profiles_path(*profiles, PROFILE_CREDENTIALS),
		     not_there(*profiles, PROFILE_CREDENTIALS),
		     profiles_path(*profiles, PROFILE_CONFIG),
		     not_there(*profiles, PROFILE_CONFIG));
	profiles_free(*profiles);
	return error;
}

int find_in_profile(struct search *search, struct s3_keys *keys)
{
	struct profiles *profiles;
	const char *profile;
	int error = open_profile(search, &profiles, &profile);

	if (error)
		return error;
	error = keys_of_profile(search, profiles, profile, 0, keys);
	profiles_free(profiles);
	return error;
}

int find_role_in_profile(struct search *search, struct s3_keys *keys)
{
	struct profiles *profiles;
	const char *profile;
	int error = open_profile(search, &profiles, &profile);

	if (error)
		return error;
	if (has_role(profiles, profile))
		error = assume_role(search, profiles, profile, 0, keys);
	else
		error = search_fails(search, -ENODATA, "profile %s has no role", profile);
	profiles_free(profiles);
	return error;
}

int find_nobody(struct search *search, struct s3_keys *keys)
{
	struct profiles *profiles;
	const char *profile;
	int error = open_profile(search, &profiles, &profile);

	/* The profile is asked for region and endpoint. */
	if (error && error != -ENODATA)
		return error;
	if (!error)
		profiles_free(profiles);
	memset(keys, 0, sizeof(*keys));
	keys->anonymous = true;
	snprintf(search->source, sizeof(search->source), "anonymous");
	return 0;
}
