/* control.c: the daemon's side of the control socket.
 *
 * One thread accepts; each client gets a thread of its own, because a command
 * such as umount waits as long as a push takes. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "src/clock.h"
#include "src/control.h"
#include "src/errors.h"
#include "src/log.h"
#include "src/process.h"
#include "src/volume/format.h"
#include "src/where.h"

#define MAX_CLIENTS	16
#define MAX_REQUEST	(64u << 10)	/* bytes of a request's line */
#define REQUEST_SECONDS 10		/* a client that connects must ask */
#define FULL_PATIENCE	CLOCK_SECOND	/* with a queue that is full: others wait for us */
#define ACCEPT_PAUSE_US 100000		/* without descriptors: tried again after this */

struct control_client {
	struct control *control;
	int fd;
	bool used, ended;		/* under control->lock */
	pthread_t thread;
};

struct control {
	char *path;
	int fd, stop_fd;
	control_command *command;
	void *context;
	bool started;
	pthread_t thread;
	pthread_mutex_t lock;
	struct control_client clients[MAX_CLIENTS];
};

static int socket_address(const char *path, struct sockaddr_un *address)
{
	memset(address, 0, sizeof(*address));
	address->sun_family = AF_UNIX;
	if (strlen(path) >= sizeof(address->sun_path)) {
		log_error("control socket %s: its path is too long: set OBJMAP_RUNTIME_DIR to a shorter one",
			  path);
		return -ENAMETOOLONG;
	}
	strcpy(address->sun_path, path);
	return 0;
}

/* Whether a daemon listens there; one that was killed a moment ago does not
 * count once it is gone, which is waited for.  One that hangs does. */
static bool is_answered(const char *path)
{
	bool answered, ending;
	int tries = 0, fd;
	pid_t pid;

	do {
		fd = control_connect(path, tries ? 0 : FULL_PATIENCE);
		answered = fd >= 0 || fd == -EAGAIN;
		pid = fd >= 0 ? control_peer(fd) : 0;
		ending = pid > 0 && process_is_ending(pid);
		if (fd >= 0)
			close(fd);
		if (ending)
			usleep(PROCESS_ENDING_PAUSE_US);
	} while (ending && ++tries < PROCESS_ENDING_TRIES);
	return answered;
}

/* Under RUNTIME/lock, so that two daemons do not both find the name free. */
static int claim_name(struct control *control, const struct sockaddr_un *address)
{
	mode_t mask;
	int error = 0;

	if (is_answered(control->path))
		return -EBUSY;
	unlink(control->path);
	mask = umask(0177);
	if (bind(control->fd, (const void *)address, sizeof(*address)) < 0 ||
	    listen(control->fd, MAX_CLIENTS) < 0)
		error = -errno;
	umask(mask);
	if (error)
		log_error("control socket %s: %s", control->path, strerror(-error));
	return error;
}

int control_open(const char *path, struct control **result)
{
	struct control *control = calloc(1, sizeof(*control));
	struct sockaddr_un address;
	char *lock_path = NULL;
	int lock = -1, error = -ENOMEM;

	if (!control)
		return -ENOMEM;
	pthread_mutex_init(&control->lock, NULL);
	control->stop_fd = -1;
	control->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	control->path = strdup(path);
	if (control->fd < 0 || !control->path ||
	    asprintf(&lock_path, "%s/lock", runtime_dir()) < 0)
		goto out;
	control->stop_fd = eventfd(0, EFD_CLOEXEC);
	error = socket_address(path, &address);
	if (error)
		goto out;
	lock = open(lock_path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (lock < 0 || control->stop_fd < 0 || flock(lock, LOCK_EX) < 0) {
		error = -errno;
		log_error("%s: %s", lock_path, strerror(errno));
		goto out;
	}
	error = claim_name(control, &address);
	if (!error)
		*result = control;
out:
	if (lock >= 0)
		close(lock);
	free(lock_path);
	if (error) {
		if (control->fd >= 0)
			close(control->fd);
		if (control->stop_fd >= 0)
			close(control->stop_fd);
		pthread_mutex_destroy(&control->lock);
		free(control->path);
		free(control);
	}
	return error;
}

/* ---- a client -------------------------------------------------------------------- */

static bool is_allowed(int fd)
{
	struct ucred peer;
	socklen_t length = sizeof(peer);

	return getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &length) == 0 &&
	       (peer.uid == geteuid() || peer.uid == 0);
}

/* A client that has gone away does not end what it asked for. */
static void send_line(int fd, const json_t *line)
{
	char *text = json_dumps(line, JSON_COMPACT);
	size_t length = text ? strlen(text) : 0, sent = 0;

	if (text)
		text[length++] = '\n';
	while (sent < length) {
		ssize_t n = send(fd, text + sent, length - sent, MSG_NOSIGNAL);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			break;
		sent += (size_t)n;
	}
	free(text);
}

void control_progress(struct control_client *client, json_t *progress)
{
	json_t *line = json_pack("{s:o}", "progress", progress);

	send_line(client->fd, line);
	json_decref(line);
}

static json_t *receive_request(int fd)
{
	char *text = malloc(MAX_REQUEST);
	json_t *request = NULL;
	size_t length = 0;
	ssize_t n;

	while (text && length < MAX_REQUEST) {
		n = recv(fd, text + length, MAX_REQUEST - length, 0);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			break;
		length += (size_t)n;
		if (text[length - 1] == '\n') {
			request = json_loadb(text, length, 0, NULL);
			break;
		}
	}
	free(text);
	return request;
}

static void answer(struct control_client *client)
{
	struct control *control = client->control;
	json_t *request = receive_request(client->fd);
	json_t *reply = json_object();
	char message[2048];
	int error = -EINVAL;

	log_capture(message, sizeof(message));
	if (json_is_object(request))
		error = control->command(control->context, request, reply, client);
	else
		snprintf(message, sizeof(message), "not a request");
	log_capture(NULL, 0);
	json_object_set_new(reply, "error", json_integer(-error));
	if ((error || *message) && !json_object_get(reply, "message"))
		json_object_set_new(reply, "message", json_string(
			*message ? message : error_words(error)));
	send_line(client->fd, reply);
	json_decref(reply);
	json_decref(request);
}

static void *client_serve(void *context)
{
	struct control_client *client = context;

	if (is_allowed(client->fd))
		answer(client);
	pthread_mutex_lock(&client->control->lock);
	close(client->fd);
	client->ended = true;
	pthread_mutex_unlock(&client->control->lock);
	return NULL;
}

/* Joins those that have ended, and finds a free place. */
static struct control_client *free_client(struct control *control)
{
	struct control_client *found = NULL;

	pthread_mutex_lock(&control->lock);
	for (unsigned int i = 0; i < MAX_CLIENTS; i++) {
		struct control_client *client = &control->clients[i];

		if (client->used && client->ended) {
			pthread_join(client->thread, NULL);
			client->used = false;
		}
		if (!client->used)
			found = client;
	}
	pthread_mutex_unlock(&control->lock);
	return found;
}

static void accept_one(struct control *control)
{
	struct timeval patience = { REQUEST_SECONDS, 0 };
	struct control_client *client;
	int fd = accept4(control->fd, NULL, NULL, SOCK_CLOEXEC);

	if (fd < 0) {
		usleep(ACCEPT_PAUSE_US);	/* it waits on: do not spin */
		return;
	}
	client = free_client(control);
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
	setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience));
	if (!client) {
		close(fd);
		return;
	}
	*client = (struct control_client){ .control = control, .fd = fd };
	if (pthread_create(&client->thread, NULL, client_serve, client) == 0)
		client->used = true;
	else
		close(fd);
}

static void *control_serve(void *context)
{
	struct control *control = context;
	struct pollfd wait[2] = {
		{ .fd = control->fd, .events = POLLIN },
		{ .fd = control->stop_fd, .events = POLLIN },
	};

	for (;;) {
		if (poll(wait, 2, -1) < 0 && errno != EINTR)
			break;
		if (wait[1].revents)
			break;
		if (wait[0].revents)
			accept_one(control);
	}
	return NULL;
}

int control_start(struct control *control, control_command *command,
		  void *context)
{
	int error;

	control->command = command;
	control->context = context;
	error = pthread_create(&control->thread, NULL, control_serve, control);
	control->started = !error;
	return -error;
}

void control_close(struct control *control)
{
	uint64_t one = 1;

	/* The name goes first: who connects now finds nobody. */
	unlink(control->path);
	if (control->started) {
		if (write(control->stop_fd, &one, sizeof(one)) < 0)
			log_error("eventfd: %s", strerror(errno));
		pthread_join(control->thread, NULL);
		pthread_mutex_lock(&control->lock);
		for (unsigned int i = 0; i < MAX_CLIENTS; i++)	/* no request yet? */
			if (control->clients[i].used && !control->clients[i].ended)
				shutdown(control->clients[i].fd, SHUT_RD);
		pthread_mutex_unlock(&control->lock);
		for (unsigned int i = 0; i < MAX_CLIENTS; i++)
			if (control->clients[i].used)
				pthread_join(control->clients[i].thread, NULL);
	}
	close(control->fd);
	close(control->stop_fd);
	pthread_mutex_destroy(&control->lock);
	free(control->path);
	free(control);
}

/* ---- the name of a volume ------------------------------------------------------------ */

static char *volume_link(const uint8_t uuid[16])
{
	const char *dir = runtime_dir();
	char text[37], *path;

	uuid_format(uuid, text);
	if (!dir || asprintf(&path, "%s/volume-%s", dir, text) < 0)
		return NULL;
	return path;
}

int control_link_volume(struct control *control, const uint8_t uuid[16])
{
	char *path = volume_link(uuid);
	int error = 0;

	if (!path)
		return -ENOMEM;
	unlink(path);
	if (symlink(strrchr(control->path, '/') + 1, path) < 0) {
		error = -errno;
		log_error("%s: %s", path, strerror(-error));
	}
	free(path);
	return error;
}

void control_unlink_volume(struct control *control, const uint8_t uuid[16])
{
	char *path = volume_link(uuid);
	char target[64] = "";

	/* Only while it is ours: somebody may have taken the volume over. */
	if (path && readlink(path, target, sizeof(target) - 1) > 0 &&
	    strcmp(target, strrchr(control->path, '/') + 1) == 0)
		unlink(path);
	free(path);
}

char *control_of_volume(const uint8_t uuid[16])
{
	char *path = volume_link(uuid), *control = NULL;
	char target[64] = "";

	if (path && readlink(path, target, sizeof(target) - 1) > 0 &&
	    asprintf(&control, "%s/%s", runtime_dir(), target) < 0)
		control = NULL;
	free(path);
	if (control && !is_answered(control)) {
		free(control);
		control = NULL;
	}
	return control;
}
