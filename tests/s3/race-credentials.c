/* race-credentials.c: many threads sign while keys are renewed under them; for the
 * thread sanitizer, with which Criterion does not work.
 *
 * The keys come from a credential_process whose answers end every few seconds; each
 * answer's three texts carry one number, so that a mixture of two shows. */
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "backends/s3/credentials.h"
#include "backends/s3/sign.h"
#include "src/clock.h"

#define NR_THREADS 4
#define SECONDS	   5
#define SECONDS_MAX 60		/* where the machine is slow */

static struct s3_credentials *credentials;
static struct s3_signing_key *key;
static atomic_uint nr_signed, nr_wrong;
static _Atomic uint64_t newest;

static const char program[] =
	"#!/bin/sh\n"
	"n=$(cat \"$0.n\" 2>/dev/null || echo 100); n=$((n+1)); echo $n >\"$0.n\"\n"
	"e=$(date -u -d '+3 seconds' +%Y-%m-%dT%H:%M:%SZ)\n"
	"echo \"{\\\"Version\\\":1,\\\"AccessKeyId\\\":\\\"ID$n\\\",\\\"SecretAccessKey\\\":"
	"\\\"SECRET$n\\\",\\\"SessionToken\\\":\\\"TOKEN$n\\\",\\\"Expiration\\\":"
	"\\\"$e\\\"}\"\n";

static int write_file(const char *path, const char *text, mode_t mode)
{
	FILE *file = fopen(path, "w");

	if (!file || fputs(text, file) == EOF || fclose(file) || chmod(path, mode)) {
		perror(path);
		return -1;
	}
	return 0;
}

static int make_world(char *folder)
{
	char path[256], config[512];

	if (!mkdtemp(folder))
		return -1;
	snprintf(path, sizeof(path), "%s/program", folder);
	snprintf(config, sizeof(config), "[default]\ncredential_process = %s\n", path);
	if (write_file(path, program, 0700))
		return -1;
	snprintf(path, sizeof(path), "%s/config", folder);
	setenv("AWS_CONFIG_FILE", path, 1);
	setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent", 1);
	unsetenv("AWS_PROFILE");
	unsetenv("AWS_ACCESS_KEY_ID");
	unsetenv("AWS_SECRET_ACCESS_KEY");
	unsetenv("AWS_WEB_IDENTITY_TOKEN_FILE");
	return write_file(path, config, 0600);
}

static void sign_once(const struct s3_keys *keys)
{
	const struct s3_scope scope = { "us-east-1", "s3", (uint64_t)time(NULL) };
	struct http_headers headers = { 0 };
	const char *authorization;
	char expected[S3_KEY_ID_MAX + 16];

	if (s3_sign(key, keys, &scope, "GET", "h", "/k", "", S3_UNSIGNED_PAYLOAD,
		    &headers)) {
		atomic_fetch_add(&nr_wrong, 1);
		return;
	}
	authorization = http_headers_find(&headers, "Authorization");
	snprintf(expected, sizeof(expected), "Credential=%s/", keys->id);
	if (strcmp(keys->id + 2, keys->secret + 6) != 0 ||
	    strcmp(keys->id + 2, keys->token + 5) != 0 || !authorization ||
	    !strstr(authorization, expected))
		atomic_fetch_add(&nr_wrong, 1);
	atomic_fetch_add(&nr_signed, 1);
	http_headers_free(&headers);
}

static bool was_enough(void)
{
	return atomic_load(&nr_signed) > 100 && atomic_load(&newest) >= 3;
}

static bool goes_on(uint64_t began)
{
	uint64_t gone = (clock_now() - began) / CLOCK_SECOND;

	return gone < SECONDS || (!was_enough() && gone < SECONDS_MAX);
}

static void *sign_along(void *context)
{
	uint64_t began = clock_now();
	struct s3_keys keys;
	char trouble[256];
	unsigned int n;

	for (n = 0; goes_on(began); n++) {
		if (s3_credentials_get(credentials, &keys) == 0) {
			sign_once(&keys);
			if (keys.generation > atomic_load(&newest))
				atomic_store(&newest, keys.generation);
		}
		if (n % 64 == 0) {
			s3_credentials_refused(credentials, keys.generation);
			s3_credentials_trouble(credentials, trouble, sizeof(trouble));
		}
		usleep(200);
	}
	return NULL;
}

int main(void)
{
	const struct s3_credentials_options options = { 0 };
	char folder[] = "/tmp/omXXXXXX", command[64];
	pthread_t threads[NR_THREADS];
	bool good;

	if (make_world(folder) || !(key = s3_signing_key_new()) ||
	    s3_credentials_open(&options, &credentials))
		return 1;
	for (int i = 0; i < NR_THREADS; i++)
		if (pthread_create(&threads[i], NULL, sign_along, NULL))
			return 1;
	for (int i = 0; i < NR_THREADS; i++)
		pthread_join(threads[i], NULL);
	s3_credentials_close(credentials);
	s3_signing_key_free(key);
	snprintf(command, sizeof(command), "rm -r %s", folder);
	good = system(command) == 0 && nr_wrong == 0 && was_enough();
	printf("race-credentials: %u signatures, %u wrong, %llu generations of keys\n",
	       nr_signed, nr_wrong, (unsigned long long)newest);
	return good ? 0 : 1;
}
