/* server.c: the NBD server as its users see it: open, add, start, stop. */
#include <errno.h>
#include <sched.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/resource.h>

#include "src/clock.h"
#include "src/export.h"
#include "src/frontend/nbd/connection.h"
#include "src/log.h"
#include "src/utf8.h"

/* Descriptors that the rest of the process needs beside one per client. */
#define OTHER_DESCRIPTORS 512

static unsigned int nr_cpus(void)
{
	cpu_set_t cpus;

	if (sched_getaffinity(0, sizeof(cpus), &cpus) < 0)
		return 1;
	return (unsigned int)CPU_COUNT(&cpus);
}

static void options_default(struct nbd_options *options)
{
	if (!options->max_clients)
		options->max_clients = 2048;
	if (!options->max_client_requests)
		options->max_client_requests = 128;
	if (!options->max_client_bytes)
		options->max_client_bytes = 64u << 20;
	if (!options->max_bytes)
		options->max_bytes = 256u << 20;
	if (!options->threads)
		options->threads = nr_cpus() < 8 ? nr_cpus() : 8;
	if (!options->handshake_timeout)
		options->handshake_timeout = 10 * CLOCK_SECOND;
}

/* As many descriptors as clients may come.  The hard limit may be raised by
 * root only; where it is too low, that is said and fewer clients are let in. */
static void raise_descriptors(struct nbd_options *options)
{
	struct rlimit limit, wanted;

	if (getrlimit(RLIMIT_NOFILE, &limit) < 0)
		return;
	wanted = limit;
	wanted.rlim_cur = (rlim_t)options->max_clients + OTHER_DESCRIPTORS;
	if (limit.rlim_cur >= wanted.rlim_cur)
		return;
	if (wanted.rlim_max < wanted.rlim_cur)
		wanted.rlim_max = wanted.rlim_cur;
	if (setrlimit(RLIMIT_NOFILE, &wanted) == 0)
		return;
	limit.rlim_cur = limit.rlim_max;
	if (setrlimit(RLIMIT_NOFILE, &limit) < 0 || limit.rlim_cur >= wanted.rlim_cur)
		return;
	options->max_clients = limit.rlim_cur > 2 * OTHER_DESCRIPTORS ?
			       (unsigned int)limit.rlim_cur - OTHER_DESCRIPTORS :
			       (unsigned int)limit.rlim_cur / 2;
	log_warning("nbd: the limit of %lu open files allows %u clients; raise it (ulimit -Hn) for more",
		    (unsigned long)limit.rlim_cur, options->max_clients);
}

int nbd_server_open(const struct nbd_options *options,
		    struct nbd_server **opened)
{
	struct nbd_server *server = calloc(1, sizeof(*server));
	unsigned int i;
	int error;

	if (!server)
		return -ENOMEM;
	server->options = *options;
	options_default(&server->options);
	raise_descriptors(&server->options);
	pthread_mutex_init(&server->lock, NULL);
	pthread_cond_init(&server->left_cond, NULL);
	STAILQ_INIT(&server->listeners);
	TAILQ_INIT(&server->waiting);
	server->only_descriptors = true;
	/* A loop that polls takes a CPU: at least half are the clients'. */
	server->max_pollers = options->no_poll ? 0 : nr_cpus() / 2;
	error = nbd_tls_open(server);
	if (error)
		goto out;
	server->loops = calloc(server->options.threads, sizeof(*server->loops));
	if (!server->loops) {
		error = -ENOMEM;
		goto out;
	}
	for (i = 0; i < server->options.threads && !error; i++) {
		server->nr_loops++;
		error = nbd_loop_open(server, &server->loops[i]);
	}
	if (error)
		log_error("nbd: cannot set up the server: %s", strerror(-error));
out:
	if (error)
		nbd_server_close(server);
	else
		*opened = server;
	return error;
}

int nbd_server_add(struct nbd_server *server, struct export *export)
{
	_Atomic(struct export *) *exports;
	size_t count = strlen(export->name);
	unsigned int i;

	if (count > NBD_STRING_MAX) {
		log_error("an export's name has at most %d bytes", NBD_STRING_MAX);
		return -ENAMETOOLONG;
	}
	if (!utf8_is_text(export->name, count)) {
		log_error("an export's name must be UTF-8");
		return -EINVAL;
	}
	for (i = 0; i < server->nr_exports; i++)
		if (strcmp(server->exports[i]->name, export->name) == 0) {
			log_error("there is an export \"%s\" already; give another name",
				  export->name);
			return -EEXIST;
		}
	exports = reallocarray(server->exports, server->nr_exports + 1, sizeof(*exports));
	if (!exports)
		return -ENOMEM;
	server->exports = exports;
	atomic_init(&exports[server->nr_exports++], export);
	return 0;
}

bool nbd_server_offers(const struct nbd_server *server, const struct export *export)
{
	for (unsigned int i = 0; i < server->nr_exports; i++)
		if (atomic_load(&server->exports[i]) == export)
			return true;
	return false;
}

/* Whether a loop may still touch the export of withdrawal number @nr.  The lock is
 * held. */
static bool is_used(struct nbd_server *server, const struct export *export,
		    unsigned int nr)
{
	struct nbd_connection *connection;
	bool used = false;

	for (unsigned int i = 0; i < server->nr_loops && !used; i++) {
		struct nbd_loop *loop = &server->loops[i];

		used = loop->running && loop->withdrawals_seen < nr;
		pthread_mutex_lock(&loop->lock);
		TAILQ_FOREACH(connection, &loop->connections, link)
			if (atomic_load(&connection->export) == export)
				used = true;
		pthread_mutex_unlock(&loop->lock);
	}
	return used;
}

void nbd_server_remove(struct nbd_server *server, struct export *export)
{
	unsigned int nr, i;

	for (i = 0; i < server->nr_exports; i++)
		if (atomic_load(&server->exports[i]) == export)
			atomic_store(&server->exports[i], NULL);
	nr = atomic_fetch_add(&server->nr_withdrawals, 1) + 1;
	for (i = 0; i < server->nr_loops; i++)
		nbd_loop_attend(&server->loops[i]);
	pthread_mutex_lock(&server->lock);
	while (is_used(server, export, nr))
		pthread_cond_wait(&server->left_cond, &server->lock);
	pthread_mutex_unlock(&server->lock);
}

int nbd_server_start(struct nbd_server *server)
{
	struct nbd_connection *connection;
	struct nbd_listener *listener;
	unsigned int i;
	int error = 0;

	STAILQ_FOREACH(listener, &server->listeners, link) {
		struct epoll_event event = { EPOLLIN, { .ptr = &listener->source } };

		if (epoll_ctl(server->loops[0].epoll, EPOLL_CTL_ADD, listener->fd,
			      &event) < 0)
			return -errno;
	}
	for (i = 0; i < server->nr_loops && !error; i++) {
		error = nbd_loop_start(&server->loops[i], i);
		if (!error)
			server->nr_started++;
	}
	if (error) {
		log_error("nbd: cannot start a thread: %s", strerror(-error));
		nbd_server_stop(server, 0);
		return error;
	}
	while ((connection = TAILQ_FIRST(&server->waiting))) {
		TAILQ_REMOVE(&server->waiting, connection, link);
		nbd_connection_place(connection);
	}
	return 0;
}

void nbd_server_stop(struct nbd_server *server, uint64_t timeout)
{
	struct nbd_listener *listener;
	unsigned int i;

	atomic_store(&server->stop_at, clock_now() + timeout);
	atomic_store(&server->stop, true);
	for (i = 0; i < server->nr_started; i++)
		nbd_loop_attend(&server->loops[i]);
	for (i = 0; i < server->nr_started; i++)
		nbd_loop_join(&server->loops[i]);
	server->nr_started = 0;
	pthread_mutex_lock(&server->lock);	/* status may be under way */
	while ((listener = STAILQ_FIRST(&server->listeners))) {
		STAILQ_REMOVE_HEAD(&server->listeners, link);
		nbd_listener_close(listener);
	}
	pthread_mutex_unlock(&server->lock);
}

static void drop_waiting(struct nbd_connections *connections)
{
	struct nbd_connection *connection;

	while ((connection = TAILQ_FIRST(connections))) {
		TAILQ_REMOVE(connections, connection, link);
		nbd_stream_close(connection);
		nbd_connection_free(connection);
	}
}

void nbd_server_close(struct nbd_server *server)
{
	unsigned int i;

	if (!server)
		return;
	nbd_server_stop(server, 0);
	drop_waiting(&server->waiting);
	for (i = 0; i < server->nr_loops; i++) {
		drop_waiting(&server->loops[i].arriving);
		nbd_loop_close(&server->loops[i]);
	}
	free(server->loops);
	nbd_tls_close(server);
	pthread_cond_destroy(&server->left_cond);
	pthread_mutex_destroy(&server->lock);
	free(server->exports);
	free(server);
}

/* ---- status ------------------------------------------------------------------------------ */

static json_t *connection_status(struct nbd_connection *connection)
{
	struct export *export = atomic_load(&connection->export);

	return json_pack("{s:s, s:s?, s:b, s:I, s:I, s:I, s:I}",
		"peer", connection->peer,
		"export", export ? export->name : NULL,
		"tls", atomic_load(&connection->secure),
		"in_flight", (json_int_t)atomic_load(&connection->status_in_flight),
		"requests", (json_int_t)atomic_load(&connection->nr_taken),
		"bytes_in", (json_int_t)atomic_load(&connection->bytes_in),
		"bytes_out", (json_int_t)atomic_load(&connection->bytes_out));
}

json_t *nbd_server_status(struct nbd_server *server)
{
	const struct nbd_counters *counters = &server->counters;
	json_t *addresses = json_array(), *connections = json_array();
	struct nbd_connection *connection;
	struct nbd_listener *listener;
	unsigned int i;

	pthread_mutex_lock(&server->lock);
	STAILQ_FOREACH(listener, &server->listeners, link)
		json_array_append_new(addresses, json_string(listener->address));
	pthread_mutex_unlock(&server->lock);
	for (i = 0; i < server->nr_loops; i++) {
		struct nbd_loop *loop = &server->loops[i];

		pthread_mutex_lock(&loop->lock);
		TAILQ_FOREACH(connection, &loop->connections, link)
			json_array_append_new(connections, connection_status(connection));
		pthread_mutex_unlock(&loop->lock);
	}
	return json_pack("{s:o, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:o}",
		"addresses", addresses,
		"clients", (json_int_t)atomic_load(&server->nr_clients),
		"max_clients", (json_int_t)server->options.max_clients,
		"bytes_in_flight", (json_int_t)atomic_load(&server->bytes),
		"accepted", (json_int_t)atomic_load(&counters->accepted),
		"refused", (json_int_t)atomic_load(&counters->refused),
		"evicted", (json_int_t)atomic_load(&counters->evicted),
		"failed_handshakes", (json_int_t)atomic_load(&counters->failed_handshakes),
		"errors", (json_int_t)atomic_load(&counters->errors),
		"connections", connections);
}
