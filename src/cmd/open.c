/* open.c: reads places, opens stores, asks. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "src/cmd/open.h"
#include "src/log.h"
#include "src/place_s3.h"
#include "src/where.h"

#define JOBS_LOCAL  8
#define JOBS_SERVER 36	/* an eighth more than connections: the next one waits for it */
#define JOBS_MAX    256

int exit_status(int error)
{
	if (error == 0)
		return EXIT_SUCCESS;
	return error == -EINVAL ? EXIT_USAGE : EXIT_FAILURE;
}

int open_check(const struct options *options, const struct place *place)
{
	struct store_open_options how;
	struct s3_options s3;

	if (!place->bucket)
		return 0;
	open_options(options, &how);
	return place_s3_options(place, &how.s3, &s3);
}

int open_place(const struct options *options, const char *text, enum wanted wanted,
	       struct place *place)
{
	const char *wrong = NULL;
	int error = place_parse(text, wanted == WANT_FOLDER ? PLACE_FOLDER : 0, place);

	if (error)
		return error;
	if (wanted != WANT_PLACE && !place->is_volume)
		wrong = "is a plain device; a volume is wanted (s3://BUCKET/PREFIX, dir:PATH)";
	else if (wanted != WANT_PLACE && strcmp(place->scheme, "mem") == 0)
		wrong = "lives in the process that mounts it only";
	else if ((wanted == WANT_VOLUME || wanted == WANT_FOLDER) && place->snapshot)
		wrong = "names a snapshot; the volume itself is wanted, without '@NAME'";
	else if (wanted == WANT_SNAPSHOT && !place->snapshot)
		wrong = "names no snapshot; VOLUME@NAME is wanted";
	if (wrong)
		log_error("%s: %s", text, wrong);
	error = wrong ? -EINVAL : open_check(options, place);
	if (error)
		place_free(place);
	return error;
}

void open_options(const struct options *options, struct store_open_options *how)
{
	const char *addressing = option_text(options, "addressing");

	*how = (struct store_open_options){
		.retry_for = option_time(options, "retry-for"),
		.s3 = {
			.endpoint_url = option_text(options, "endpoint-url"),
			.region = option_text(options, "region"),
			.profile = option_text(options, "profile"),
			.no_sign_request = option_flag(options, "no-sign-request"),
			.addressing = !addressing ? S3_ADDRESSING_AUTO :
				      strcmp(addressing, "path") == 0 ? S3_PATH
								      : S3_VIRTUAL,
			.ca_bundle = option_text(options, "ca-bundle"),
			.dual_stack = option_flag(options, "dual-stack"),
			.sse = option_text(options, "sse"),
			.sse_kms_key = option_text(options, "sse-kms-key"),
			.sse_c_key_file = option_text(options, "sse-c-key-file"),
			.storage_class = option_text(options, "storage-class"),
			.requester_pays = option_flag(options, "requester-pays"),
			.tags = option_text(options, "tags"),
			.connections = (unsigned int)
				       option_number(options, "connections"),
			.multipart_threshold =
				option_size(options, "multipart-threshold"),
			.part_size = option_size(options, "part-size"),
		},
	};
}

unsigned int open_jobs(const struct options *options, const struct place *place)
{
	static const char *const local[] = { "dir", "mem", "file", "memory", "null",
					     "pattern" };
	unsigned int connections = (unsigned int)option_number(options, "connections");

	if (option_given(options, "jobs"))
		return (unsigned int)option_number(options, "jobs");
	for (size_t i = 0; i < sizeof(local) / sizeof(*local); i++)
		if (!place->scheme || strcmp(place->scheme, local[i]) == 0)
			return JOBS_LOCAL;
	if (!connections)
		return JOBS_SERVER;
	connections += connections / 8;
	return connections < JOBS_MAX ? connections : JOBS_MAX;
}

void open_device_options(const struct options *options, struct device_options *how)
{
	struct store_open_options store;

	open_options(options, &store);
	*how = (struct device_options){ .retry_for = store.retry_for, .s3 = store.s3 };
}

int open_store(const struct options *options, const struct place *place,
	       bool create, struct store **store)
{
	struct store_open_options how;

	open_options(options, &how);
	how.create = create;
	return place_open_store(place, &how, store);
}

int open_volume_store(const struct options *options, const char *text,
		      enum wanted wanted, struct place *place,
		      struct store **store)
{
	int error = open_place(options, text, wanted, place);

	if (error)
		return error;
	error = open_store(options, place, false, store);
	if (error)
		place_free(place);
	/* Bad input was found above; this is the machine's answer. */
	return error == -EINVAL ? -EIO : error;
}

int open_head(struct store *store, struct head *head, struct store_reply *reply)
{
	int error = volume_read_head(store, head, reply);

	if (error == -ENOENT || (!error && head->state == HEAD_DELETED)) {
		log_error("%s: there is no volume here%s", store->place,
			  error ? "; objmap create makes one"
				: " any more; it was deleted");
		return -ENOENT;
	}
	return error;
}

int open_claim(const struct options *options, struct claim_options *claim)
{
	memset(claim, 0, sizeof(*claim));
	claim->take_over = option_flag(options, "take-over");
	claim->abandon_journal = option_flag(options, "abandon-journal");
	claim->exclusive = option_flag(options, "exclusive");
	claim->runtime_dir = runtime_dir();
	return claim->runtime_dir ? 0 : -EIO;
}

int ask(const struct options *options, const char *question)
{
	char answer[16];

	if (option_flag(options, "yes"))
		return 0;
	if (!isatty(STDIN_FILENO) || !isatty(STDERR_FILENO)) {
		log_error("%s: there is no terminal to ask on; say --yes", question);
		return -EINVAL;
	}
	fprintf(stderr, "%s? [y/N] ", question);
	fflush(stderr);
	if (fgets(answer, sizeof(answer), stdin) &&
	    (strcmp(answer, "y\n") == 0 || strcmp(answer, "yes\n") == 0))
		return 0;
	log_error("nothing was changed");
	return -ECANCELED;
}
