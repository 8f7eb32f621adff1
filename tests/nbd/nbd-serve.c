/* nbd-serve.c: a server for the tests: a plain device, with a stage above it
 * that waits or fails where the test wants it.
 *
 *     nbd-serve PLACE [--export NAME:DESCRIPTION] [--read-only]
 *               [--unix PATH] [--tcp ADDRESS] [--port N] [--listen-fd N] [--fd IN,OUT]
 *               [--wait-from OFFSET --wait-for FILE] [--fail-from OFFSET --fail-errno N]
 *               [--minimum BYTES] [--tls-certificates DIR] [--tls-psk FILE]
 *               [--tls-verify-peer] [--max-clients N] [--max-client-bytes N]
 *               [--max-bytes N] [--handshake-ms N] [--threads N] [--no-poll]
 *               [--insecure-public]
 *
 * Prints "ready [PORT]" and serves until SIGTERM, or until its only connection has
 * ended.  Then, and at SIGUSR1, it prints its status as JSON. */
#include <errno.h>
#include <getopt.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "src/clock.h"
#include "src/export.h"
#include "src/frontend/nbd.h"
#include "src/log.h"

/* Reads, writes and zeroes from an offset on are done once a file exists, by a thread
 * of its own, or completed with an error. */
struct trouble_stage {
	struct stage stage;		/* must stay first */
	uint64_t wait_from, fail_from;
	const char *wait_for;
	int fail_errno;
	pthread_t thread;
	pthread_mutex_t lock;		/* guards the rest */
	pthread_cond_t changed;
	struct request *first, **last;
	bool end;
};

static struct trouble_stage *trouble_of(struct stage *stage)
{
	return (struct trouble_stage *)stage;
}

static void *trouble_run(void *arg)
{
	struct trouble_stage *trouble = arg;
	struct request *request;

	pthread_mutex_lock(&trouble->lock);
	while (!trouble->end || trouble->first) {
		request = trouble->first;
		if (!request) {
			pthread_cond_wait(&trouble->changed, &trouble->lock);
			continue;
		}
		trouble->first = request->next;
		if (!trouble->first)
			trouble->last = &trouble->first;
		pthread_mutex_unlock(&trouble->lock);
		while (trouble->wait_for && access(trouble->wait_for, F_OK) < 0)
			usleep(1000);
		stage_submit(trouble->stage.next, request);
		pthread_mutex_lock(&trouble->lock);
	}
	pthread_mutex_unlock(&trouble->lock);
	return NULL;
}

static void trouble_data(struct stage *stage, struct request *request)
{
	struct trouble_stage *trouble = trouble_of(stage);

	if (request->offset >= trouble->fail_from) {
		request_complete(request, -trouble->fail_errno);
		return;
	}
	if (request->offset < trouble->wait_from) {
		stage_submit(stage->next, request);
		return;
	}
	if (request->flags & REQUEST_NOWAIT) {
		request_complete(request, -EAGAIN);
		return;
	}
	pthread_mutex_lock(&trouble->lock);
	request->next = NULL;
	*trouble->last = request;
	trouble->last = &request->next;
	pthread_cond_signal(&trouble->changed);
	pthread_mutex_unlock(&trouble->lock);
}

static void trouble_close(struct stage *stage)
{
	struct trouble_stage *trouble = trouble_of(stage);

	pthread_mutex_lock(&trouble->lock);
	trouble->end = true;
	pthread_cond_signal(&trouble->changed);
	pthread_mutex_unlock(&trouble->lock);
	pthread_join(trouble->thread, NULL);
	free(trouble);
}

static const struct stage_ops trouble_ops = {
	.name = "trouble",
	.read = trouble_data,
	.write = trouble_data,
	.zero = trouble_data,
	.trim = trouble_data,
	.flush = stage_pass_flush,
	.extents = stage_pass_extents,
	.prefetch = stage_pass_prefetch,
	.close = trouble_close,
};

static void trouble_open(struct trouble_stage *trouble, struct stage *next)
{
	struct geometry geometry = next->geometry;

	geometry.flags &= ~(unsigned int)STAGE_NEVER_WAITS;
	trouble->last = &trouble->first;
	pthread_mutex_init(&trouble->lock, NULL);
	pthread_cond_init(&trouble->changed, NULL);
	stage_init(&trouble->stage, &trouble_ops, next, &geometry);
	if (pthread_create(&trouble->thread, NULL, trouble_run, trouble))
		abort();
}

enum { EXPORT = 256, READ_ONLY, UNIX, TCP, PORT, LISTEN_FD, FD, WAIT_FROM, WAIT_FOR, FAIL_FROM,
       FAIL_ERRNO, MINIMUM, CERTIFICATES, PSK, VERIFY, MAX_CLIENTS, MAX_CLIENT_BYTES,
       MAX_BYTES, HANDSHAKE_MS, THREADS, NO_POLL, INSECURE };

static const struct option long_options[] = {
	{ "export", 1, 0, EXPORT },
	{ "read-only", 0, 0, READ_ONLY },
	{ "unix", 1, 0, UNIX },
	{ "tcp", 1, 0, TCP },
	{ "port", 1, 0, PORT },
	{ "listen-fd", 1, 0, LISTEN_FD },
	{ "fd", 1, 0, FD },
	{ "wait-from", 1, 0, WAIT_FROM },
	{ "wait-for", 1, 0, WAIT_FOR },
	{ "fail-from", 1, 0, FAIL_FROM },
	{ "fail-errno", 1, 0, FAIL_ERRNO },
	{ "minimum", 1, 0, MINIMUM },
	{ "tls-certificates", 1, 0, CERTIFICATES },
	{ "tls-psk", 1, 0, PSK },
	{ "tls-verify-peer", 0, 0, VERIFY },
	{ "max-clients", 1, 0, MAX_CLIENTS },
	{ "max-client-bytes", 1, 0, MAX_CLIENT_BYTES },
	{ "max-bytes", 1, 0, MAX_BYTES },
	{ "handshake-ms", 1, 0, HANDSHAKE_MS },
	{ "threads", 1, 0, THREADS },
	{ "no-poll", 0, 0, NO_POLL },
	{ "insecure-public", 0, 0, INSECURE },
	{ 0 }
};

#define EXPORTS_MAX 64

static struct nbd_options options;
static struct export *exports[EXPORTS_MAX];
static unsigned int nr_exports, minimum = 1;
static const char *unix_path, *tcp_address;
static int listen_fd = -1, in = -1, out = -1;
static struct trouble_stage setup = { .wait_from = UINT64_MAX, .fail_from = UINT64_MAX };
static uint16_t tcp_port;
static bool read_only;

static void add_export(const char *text)
{
	struct export *export = calloc(1, sizeof(*export));
	const char *colon = strchr(text, ':');

	if (!export || nr_exports == EXPORTS_MAX)
		abort();
	export->name = colon ? strndup(text, (size_t)(colon - text)) : strdup(text);
	export->description = colon ? strdup(colon + 1) : NULL;
	exports[nr_exports++] = export;
}

static void take_option(int option)
{
	uint64_t number = optarg ? strtoull(optarg, NULL, 0) : 0;

	switch (option) {
	case EXPORT: add_export(optarg); break;
	case READ_ONLY: read_only = true; break;
	case UNIX: unix_path = optarg; break;
	case TCP: tcp_address = optarg; break;
	case PORT: tcp_port = (uint16_t)number; break;
	case LISTEN_FD: listen_fd = (int)number; break;
	case FD:
		in = (int)number;
		out = strchr(optarg, ',') ? atoi(strchr(optarg, ',') + 1) : in;
		break;
	case WAIT_FROM: setup.wait_from = number; break;
	case WAIT_FOR: setup.wait_for = optarg; break;
	case FAIL_FROM: setup.fail_from = number; break;
	case FAIL_ERRNO: setup.fail_errno = (int)number; break;
	case MINIMUM: minimum = (unsigned int)number; break;
	case CERTIFICATES: options.tls_certificates = optarg; break;
	case PSK: options.tls_psk = optarg; break;
	case VERIFY: options.tls_verify_peer = true; break;
	case MAX_CLIENTS: options.max_clients = (unsigned int)number; break;
	case MAX_CLIENT_BYTES: options.max_client_bytes = number; break;
	case MAX_BYTES: options.max_bytes = number; break;
	case HANDSHAKE_MS: options.handshake_timeout = number * CLOCK_MS; break;
	case THREADS: options.threads = (unsigned int)number; break;
	case NO_POLL: options.no_poll = true; break;
	case INSECURE: options.insecure_public = true; break;
	default: exit(2);
	}
}

static void ended(void *context)
{
	kill(getpid(), SIGTERM);
}

/* All exports show the one device. */
static struct stage *open_stage(const char *text)
{
	struct device_options device = { .read_only = read_only };
	struct place place;
	struct stage *stage;
	struct trouble_stage *trouble;

	if (place_parse(text, 0, &place) < 0 ||
	    place_open_device(&place, &device, &stage) < 0)
		exit(1);
	place_free(&place);
	if (setup.wait_from == UINT64_MAX && setup.fail_from == UINT64_MAX)
		return stage;
	trouble = malloc(sizeof(*trouble));
	if (!trouble)
		abort();
	*trouble = setup;
	trouble_open(trouble, stage);
	return &trouble->stage;
}

static void fill_export(struct export *export, struct stage *stage)
{
	export->stage = stage;
	export->read_only = read_only || (stage->geometry.flags & STAGE_READ_ONLY);
	export->minimum_block = minimum;
	export->preferred_block = 4096;
	export->maximum_block = 64u << 20;
}

static int listen_everywhere(struct nbd_server *server)
{
	int error = 0;

	if (unix_path)
		error = nbd_server_listen_unix(server, unix_path);
	if (!error && tcp_address)
		error = nbd_server_listen_tcp(server, tcp_address, &tcp_port);
	if (!error && listen_fd >= 0)
		error = nbd_server_listen_fd(server, listen_fd);
	if (!error && in >= 0)
		error = nbd_server_serve_fd(server, in, out);
	return error;
}

static void print_status(struct nbd_server *server)
{
	json_t *json = nbd_server_status(server);
	char *text = json_dumps(json, JSON_SORT_KEYS);

	fprintf(stderr, "%s\n", text ? text : "no status");
	free(text);
	json_decref(json);
}

/* Serves until a signal comes; the exit status. */
static int serve(struct nbd_server *server, struct stage *stage)
{
	sigset_t signals;
	unsigned int i;
	int error = 0, signal_number;

	sigemptyset(&signals);
	sigaddset(&signals, SIGTERM);
	sigaddset(&signals, SIGINT);
	sigaddset(&signals, SIGUSR1);
	for (i = 0; i < nr_exports && !error; i++) {
		fill_export(exports[i], stage);
		error = nbd_server_add(server, exports[i]);
	}
	if (!error)
		error = listen_everywhere(server);
	if (!error)
		error = nbd_server_start(server);
	if (!error) {
		fprintf(stderr, "ready %u\n", tcp_port);
		do {
			sigwait(&signals, &signal_number);
			print_status(server);
		} while (signal_number == SIGUSR1);
		nbd_server_stop(server, 10 * CLOCK_SECOND);
	}
	nbd_server_close(server);
	return error ? 1 : 0;
}

int main(int argc, char **argv)
{
	struct nbd_server *server;
	struct stage *stage;
	sigset_t signals;
	unsigned int i;
	int option, status;

	while ((option = getopt_long(argc, argv, "", long_options, NULL)) != -1)
		take_option(option);
	if (optind != argc - 1)
		return 2;
	sigemptyset(&signals);
	sigaddset(&signals, SIGTERM);
	sigaddset(&signals, SIGINT);
	sigaddset(&signals, SIGUSR1);
	sigprocmask(SIG_BLOCK, &signals, NULL);
	if (options.tls_certificates || options.tls_psk)
		options.tls = NBD_TLS_REQUIRE;
	options.ended = ended;
	stage = open_stage(argv[optind]);
	if (nr_exports == 0)
		add_export("");
	status = nbd_server_open(&options, &server) < 0 ? 1 : serve(server, stage);
	stage_drain(stage);
	stage_close(stage);
	for (i = 0; i < nr_exports; i++) {
		free(exports[i]->name);
		free(exports[i]->description);
		free(exports[i]);
	}
	return status;
}
