/* credentials-show.c: prints what s3_credentials_open() finds; for test_credentials.py.
 *
 * usage: credentials-show [--profile NAME] [--region NAME] [--anonymous]
 *                         [--setting NAME]... [--watch SECONDS]
 *
 * Lines of JSON: what is in force, again whenever it changes while it watches.  A
 * byte on standard input says that a store refused the keys, many times over.  The
 * secrets are said too: they are the test's. */
#include <errno.h>
#include <getopt.h>
#include <jansson.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "backends/s3/credentials.h"
#include "src/clock.h"

static void print_line(json_t *line)
{
	json_dumpf(line, stdout, JSON_COMPACT);
	putchar('\n');
	fflush(stdout);
	json_decref(line);
}

static void show(struct s3_credentials *credentials)
{
	struct s3_keys keys;
	char trouble[1024];
	int error = s3_credentials_get(credentials, &keys);

	s3_credentials_trouble(credentials, trouble, sizeof(trouble));
	if (error)
		memset(&keys, 0, sizeof(keys));
	print_line(json_pack("{si ss* sb ss ss ss sI sI ss}", "error", error, "source",
			     s3_credentials_source(credentials), "anonymous",
			     keys.anonymous, "id", keys.id, "secret", keys.secret, "token",
			     keys.token, "expires", (json_int_t)keys.expires, "generation",
			     (json_int_t)keys.generation, "trouble", trouble));
}

static void refuse_when_told(struct s3_credentials *credentials, uint64_t generation)
{
	struct pollfd in = { .fd = STDIN_FILENO, .events = POLLIN };
	char byte;

	if (poll(&in, 1, 20) <= 0)
		return;
	if (read(STDIN_FILENO, &byte, 1) != 1) {
		usleep(20000);
		return;
	}
	for (int i = 0; i < 1000; i++)
		s3_credentials_refused(credentials, generation);
}

/* Whatever shows is to be seen: keys, an end of them, a reason. */
static void watch(struct s3_credentials *credentials, uint64_t seconds)
{
	uint64_t end = clock_now() + seconds * CLOCK_SECOND, generation = 0, g;
	char before[1024] = "", trouble[1024];
	int error, had = 0;
	struct s3_keys keys;

	for (; clock_now() < end; refuse_when_told(credentials, generation)) {
		error = s3_credentials_get(credentials, &keys);
		g = error ? generation : keys.generation;
		s3_credentials_trouble(credentials, trouble, sizeof(trouble));
		if (g == generation && error == had && strcmp(before, trouble) == 0)
			continue;
		show(credentials);
		generation = g;
		had = error;
		strcpy(before, trouble);
	}
}

int main(int argc, char **argv)
{
	static const struct option options[] = {
		{ "profile", required_argument, NULL, 'p' },
		{ "region", required_argument, NULL, 'r' },
		{ "ca-bundle", required_argument, NULL, 'c' },
		{ "anonymous", no_argument, NULL, 'a' },
		{ "setting", required_argument, NULL, 's' },
		{ "watch", required_argument, NULL, 'w' },
		{ 0 },
	};
	struct s3_credentials_options of = { 0 };
	struct s3_credentials *credentials;
	const char *settings[16];
	unsigned int nr_settings = 0;
	uint64_t seconds = 0;
	int c, error;

	while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
		switch (c) {
		case 'p': of.profile = optarg; break;
		case 'r': of.region = optarg; break;
		case 'c': of.ca_bundle = optarg; break;
		case 'a': of.anonymous = true; break;
		case 's': settings[nr_settings++ % 16] = optarg; break;
		case 'w': seconds = strtoull(optarg, NULL, 10); break;
		default: return 2;
		}
	}
	for (unsigned int i = 0; i < nr_settings; i++) {
		char *value = s3_profile_setting(of.profile, settings[i]);

		print_line(json_pack("{ss ss*}", "setting", settings[i], "value", value));
		free(value);
	}
	if (nr_settings)
		return 0;
	error = s3_credentials_open(&of, &credentials);
	if (error) {
		print_line(json_pack("{ss}", "failed", strerrorname_np(-error)));
		return 1;
	}
	if (seconds)
		watch(credentials, seconds);
	else
		show(credentials);
	s3_credentials_close(credentials);
	return 0;
}
