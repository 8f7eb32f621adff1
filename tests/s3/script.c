/* script.c: an S3 server that plays what a test wrote down; see script.h. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/http/server.h"
#include "tests/s3/script.h"

#define LINES_MAX    64
#define REQUESTS_MAX 8192

struct script {
	const struct line *lines;
	struct server *server;
	bool tls;
	char certificate[64];
	pthread_mutex_t lock;		/* guards what follows */
	unsigned int used[LINES_MAX];
	char *heads[REQUESTS_MAX], *bodies[REQUESTS_MAX];
	unsigned int nr_requests, nr_misfits, nr_open;	/* requests whom no gate holds */
};

static bool begins(const char *text, const char *with)
{
	return strncmp(text, with, strlen(with)) == 0;
}

/* The lock is held. */
static void record(struct script *script, const struct visit *visit)
{
	if (script->nr_requests >= REQUESTS_MAX)
		abort();
	script->heads[script->nr_requests] = strdup(visit->head);
	script->bodies[script->nr_requests++] = strdup(visit->body ? visit->body : "");
}

static const struct line *find_line(struct script *script, const struct visit *visit,
				    bool *waits)
{
	const struct line *line = script->lines, *found = NULL;

	pthread_mutex_lock(&script->lock);
	record(script, visit);
	for (; line->request && !found; line++) {
		unsigned int *used = &script->used[line - script->lines];

		if (!begins(visit->head, line->request) ||
		    (line->times && *used == line->times))
			continue;
		++*used;
		found = line;
	}
	script->nr_misfits += !found;
	*waits = script->nr_requests > script->nr_open;
	pthread_mutex_unlock(&script->lock);
	return found;
}

static bool answer(struct visit *visit)
{
	static const struct line misfit = { "", "500 Not In The Script", NULL, NULL, 0, 0 };
	struct script *script = server_context(visit->server);
	bool waits;
	const struct line *line = find_line(script, visit, &waits);
	const char *body;
	char head[256];
	size_t count;

	if (waits)
		server_wait_open(visit->server);
	if (!line)
		line = &misfit;
	if (!line->status)
		return false;
	body = line->body ? line->body : "";
	count = strlen(body);
	snprintf(head, sizeof(head), "HTTP/1.1 %s\r\nContent-Length: %zu\r\n", line->status,
		 count);
	visit_say(visit, head);
	visit_say(visit, line->headers ? line->headers : "");
	visit_say(visit, "\r\n");
	if (strcmp(visit->method, "HEAD") != 0)
		visit_write(visit, body, count - line->cut);
	return line->cut == 0;
}

struct script *script_start(const struct line *lines, bool tls)
{
	struct script *script = calloc(1, sizeof(*script));
	struct server_options options = { .answer = answer, .context = script };
	int fd;

	if (!script)
		abort();
	pthread_mutex_init(&script->lock, NULL);
	script->lines = lines;
	script->tls = tls;
	if (tls) {
		strcpy(script->certificate, "/tmp/objmap-XXXXXX");
		fd = mkstemp(script->certificate);
		if (fd < 0)
			abort();
		close(fd);
		certificate_make(script->certificate, "IP:127.0.0.1");
		options.certificate = script->certificate;
	}
	script->server = server_start(&options);
	return script;
}

void script_stop(struct script *script)
{
	unsigned int i;

	server_stop(script->server);
	for (i = 0; i < script->nr_requests; i++) {
		free(script->heads[i]);
		free(script->bodies[i]);
	}
	if (script->tls)
		unlink(script->certificate);
	pthread_mutex_destroy(&script->lock);
	free(script);
}

void script_shut_after(struct script *script, unsigned int nr)
{
	pthread_mutex_lock(&script->lock);
	script->nr_open = nr;
	pthread_mutex_unlock(&script->lock);
	server_shut_gate(script->server);
}

void script_shut(struct script *script)
{
	script_shut_after(script, 0);
}

void script_open(struct script *script)
{
	server_open_gate(script->server);
}

unsigned int script_port(const struct script *script)
{
	return server_port(script->server);
}

unsigned int script_count(struct script *script, const char *request)
{
	unsigned int i, nr = 0;

	pthread_mutex_lock(&script->lock);
	for (i = 0; i < script->nr_requests; i++)
		nr += begins(script->heads[i], request);
	pthread_mutex_unlock(&script->lock);
	return nr;
}

unsigned int script_misfits(struct script *script)
{
	unsigned int nr;

	pthread_mutex_lock(&script->lock);
	nr = script->nr_misfits;
	pthread_mutex_unlock(&script->lock);
	return nr;
}

/* The number of that request, or REQUESTS_MAX. */
static unsigned int find(struct script *script, const char *request, unsigned int nr)
{
	unsigned int i, found = REQUESTS_MAX;

	pthread_mutex_lock(&script->lock);
	for (i = 0; i < script->nr_requests && found == REQUESTS_MAX; i++)
		if (begins(script->heads[i], request) && nr-- == 0)
			found = i;
	pthread_mutex_unlock(&script->lock);
	return found;
}

bool script_header(struct script *script, const char *request, unsigned int nr,
		   const char *name, char *value, size_t size)
{
	unsigned int i = find(script, request, nr);
	struct visit *visit = calloc(1, sizeof(*visit));
	bool found = false;

	if (!visit)
		abort();
	if (i < REQUESTS_MAX) {
		snprintf(visit->head, sizeof(visit->head), "%s", script->heads[i]);
		found = visit_header(visit, name, value, size);
	}
	free(visit);
	return found;
}

const char *script_body(struct script *script, const char *request, unsigned int nr)
{
	unsigned int i = find(script, request, nr);

	return i < REQUESTS_MAX ? script->bodies[i] : NULL;
}

/* ---- clients ------------------------------------------------------------------------ */

void script_environment(void)
{
	static const char *const gone[] = {
		"AWS_SESSION_TOKEN", "AWS_PROFILE", "AWS_REGION", "AWS_DEFAULT_REGION",
		"AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_CA_BUNDLE", "http_proxy",
		"https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY",
	};
	size_t i;

	for (i = 0; i < sizeof(gone) / sizeof(gone[0]); i++)
		unsetenv(gone[i]);
	setenv("AWS_ACCESS_KEY_ID", "AKID", 1);
	setenv("AWS_SECRET_ACCESS_KEY", "SECRET", 1);
	setenv("AWS_CONFIG_FILE", "/dev/null", 1);
	setenv("AWS_SHARED_CREDENTIALS_FILE", "/dev/null", 1);
	setenv("AWS_EC2_METADATA_DISABLED", "true", 1);
}

struct s3_options script_options(const struct script *script)
{
	static char url[64];
	struct s3_options options = { .endpoint_url = url };

	snprintf(url, sizeof(url), "http%s://127.0.0.1:%u", script->tls ? "s" : "",
		 script_port(script));
	if (script->tls)
		options.ca_bundle = script->certificate;
	return options;
}

struct s3_client *script_client(const struct script *script)
{
	struct s3_options options = script_options(script);
	struct s3_client *client;

	if (s3_client_open("s3://b", "b", &options, &client) != 0)
		abort();
	return client;
}

struct store *script_store(const struct script *script, const struct s3_options *options)
{
	struct s3_options own = script_options(script);
	struct store *store;

	if (store_s3_open("s3://b/p", "b", "p", options ? options : &own, &store) != 0)
		abort();
	atomic_store(&store->retry_for, 0);
	return store;
}
