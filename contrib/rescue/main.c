/* main.c: objmap-rescue BUCKET PREFIX[@SNAPSHOT] FILE.
 *
 * The way out of a bucket that does not need objmap: written from objmap-volume(5)
 * alone, with no line of objmap's own code. */
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "contrib/rescue/restore.h"
#include "config.h"

struct options {
	bool list, check, overwrite, quiet;
	const char *endpoint;
	unsigned int connections;
	const char *bucket, *file;
	char *prefix, *snapshot;
};

static const char usage[] =
	"usage: objmap-rescue [OPTIONS] BUCKET PREFIX[@SNAPSHOT] FILE\n"
	"       objmap-rescue [OPTIONS] --check BUCKET PREFIX[@SNAPSHOT]\n"
	"       objmap-rescue [OPTIONS] --list BUCKET PREFIX\n"
	"\n"
	"Restores an objmap volume from an S3 bucket, without objmap.\n"
	"\n"
	"  --list               print the volume's snapshots and clones\n"
	"  --check              verify everything, write nothing\n"
	"  --overwrite          FILE may exist, or be a block device\n"
	"  --endpoint-url URL   http://HOST[:PORT] (else AWS_ENDPOINT_URL_S3)\n"
	"  --connections N      requests at once, 1 to 64 (8)\n"
	"  --quiet              no progress\n"
	"  --help, --version\n"
	"\n"
	"Keys come from AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or ~/.aws/credentials.\n"
	"Exit status: 0 all is good; 1 something is bad, and named; 2 usage.\n";

enum { LIST = 256, CHECK, OVERWRITE, ENDPOINT, CONNECTIONS, QUIET, HELP, VERSION_ };

static const struct option long_options[] = {
	{ "list", no_argument, NULL, LIST },
	{ "check", no_argument, NULL, CHECK },
	{ "overwrite", no_argument, NULL, OVERWRITE },
	{ "endpoint-url", required_argument, NULL, ENDPOINT },
	{ "connections", required_argument, NULL, CONNECTIONS },
	{ "quiet", no_argument, NULL, QUIET },
	{ "help", no_argument, NULL, HELP },
	{ "version", no_argument, NULL, VERSION_ },
	{ NULL, 0, NULL, 0 },
};

__attribute__((noreturn))
static void wrong_usage(const char *what)
{
	fprintf(stderr, "objmap-rescue: %s; see objmap-rescue --help\n", what);
	exit(2);
}

static unsigned int parse_connections(const char *text)
{
	char *end;
	unsigned long value = strtoul(text, &end, 10);

	if (*text < '0' || *text > '9' || *end || value < 1 || value > 64)
		wrong_usage("--connections takes 1 to 64");
	return (unsigned int)value;
}

/* %40 is a literal '@', and %25 a literal '%'. */
static void unescape(char *text)
{
	char *to = text;

	while (*text) {
		if (strncmp(text, "%40", 3) == 0 || strncmp(text, "%25", 3) == 0) {
			*to++ = text[1] == '4' ? '@' : '%';
			text += 3;
		} else {
			*to++ = *text++;
		}
	}
	*to = 0;
}

/* PREFIX[@SNAPSHOT]: an '@' after the last '/' begins the snapshot's name. */
static void parse_place(char *place, struct options *options)
{
	char *last = strrchr(place, '/');
	char *at = strchr(last ? last : place, '@');
	size_t length;

	if (at) {
		*at = 0;
		options->snapshot = at + 1;
		unescape(options->snapshot);
		if (!*options->snapshot)
			wrong_usage("no name behind the @");
	}
	length = strlen(place);
	while (length && place[length - 1] == '/')
		place[--length] = 0;
	unescape(place);
	options->prefix = place;
}

static void parse_options(int argc, char **argv, struct options *options)
{
	static char program[] = "objmap-rescue";
	int option, wanted;

	*options = (struct options) { .connections = 8 };
	argv[0] = program;	/* as getopt_long() begins its messages */
	while ((option = getopt_long(argc, argv, "", long_options, NULL)) != -1) {
		switch (option) {
		case LIST:	options->list = true; break;
		case CHECK:	options->check = true; break;
		case OVERWRITE:	options->overwrite = true; break;
		case ENDPOINT:	options->endpoint = optarg; break;
		case CONNECTIONS: options->connections = parse_connections(optarg); break;
		case QUIET:	options->quiet = true; break;
		case HELP:	fputs(usage, stdout); exit(0);
		case VERSION_:
			puts("objmap-rescue " PACKAGE_VERSION "\n"
			     "Its own sources: Apache License 2.0.  Linked with libs3, this "
			     "program is under the GPL, version 3.");
			exit(0);
		default:
			fputs("see objmap-rescue --help\n", stderr);
			exit(2);
		}
	}
	if (options->list && (options->check || options->overwrite))
		wrong_usage("--list goes with neither --check nor --overwrite");
	if (options->check && options->overwrite)
		wrong_usage("--check writes nothing to overwrite");
	wanted = options->list || options->check ? 2 : 3;
	if (argc - optind != wanted)
		wrong_usage(wanted == 2 ? "wanted are BUCKET and PREFIX" :
			    "wanted are BUCKET, PREFIX and FILE");
	options->bucket = argv[optind];
	parse_place(argv[optind + 1], options);
	options->file = wanted == 3 ? argv[optind + 2] : NULL;
	if (options->list && options->snapshot)
		wrong_usage("--list takes a volume, without a snapshot");
}

static const char *find_endpoint(const struct options *options)
{
	static const char *const names[] = { "AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL" };
	const char *endpoint = options->endpoint;
	unsigned int i;

	for (i = 0; i < 2 && (!endpoint || !*endpoint); i++)
		endpoint = getenv(names[i]);
	return endpoint && *endpoint ? endpoint : NULL;
}

/* Status for the shell: 0 or 1. */
static int rescue(const struct options *options, struct volume *volume)
{
	struct output output;
	int result;

	if (volume_open(volume, options->snapshot))
		return 1;
	if (options->list)
		return volume_list(volume) ? 1 : 0;
	if (volume->head.holder[0] && !volume->pinned && !options->quiet)
		fprintf(stderr, "objmap-rescue: %s/%s is open for writing on %s; this is "
			"its last commit\n", options->bucket, options->prefix,
			volume->head.holder);
	if (options->file && output_open(&output, options->file, volume->head.size,
					 options->overwrite))
		return 1;
	result = restore(volume, options->file ? &output : NULL, options->connections,
			 !options->quiet && isatty(STDERR_FILENO));
	if (options->file && output_close(&output))
		result = -1;
	if (result > 0 && !volume->pinned && volume_has_moved(volume))
		fprintf(stderr, "objmap-rescue: the volume was written to meanwhile, and "
			"what is missing may just be old: try again, or restore a "
			"snapshot\n");
	if (volume->head.incomplete) {
		fprintf(stderr, "objmap-rescue: a copy into this volume was cut: its "
			"content means nothing yet\n");
		result = 1;
	}
	return result ? 1 : 0;
}

int main(int argc, char **argv)
{
	struct volume *volume = calloc(1, sizeof(*volume));
	struct credentials credentials;
	struct options options;
	struct bucket *bucket;
	const char *endpoint;
	int status;

	parse_options(argc, argv, &options);
	endpoint = find_endpoint(&options);
	if (!endpoint)
		wrong_usage("no endpoint: give --endpoint-url http://HOST[:PORT] or set "
			    "AWS_ENDPOINT_URL_S3");
	signal(SIGPIPE, SIG_IGN);
	if (!volume || credentials_find(&credentials)) {
		free(volume);
		return 1;
	}
	bucket = bucket_open(endpoint, options.bucket, &credentials);
	if (!bucket) {
		credentials_free(&credentials);
		free(volume);
		return 2;
	}
	volume->bucket = bucket;
	volume->bucket_name = options.bucket;
	volume->prefix = options.prefix;
	status = rescue(&options, volume);
	bucket_close(bucket);
	credentials_free(&credentials);
	free(volume);
	if (fflush(stdout) || ferror(stdout)) {
		fprintf(stderr, "objmap-rescue: standard output: %m\n");
		status = 1;
	}
	return status;
}
