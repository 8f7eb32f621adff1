/* control_call.c: a verb's side of the control socket. */
#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "src/clock.h"
#include "src/control.h"
#include "src/errors.h"
#include "src/log.h"
#include "src/where.h"

#define MAX_REPLY	 (16u << 20)	/* bytes of a line */
#define CONNECT_PATIENCE (5 * CLOCK_SECOND)	/* a daemon that lives accepts at once */
#define CONNECT_PAUSE_US 10000

struct reader {
	int fd;
	char *text;
	size_t length, room;
	uint64_t end;		/* clock_now(); UINT64_MAX: none */
};

/* Never blocks in connect(): the queue of a daemon that hangs stays full. */
int control_connect(const char *path, uint64_t patience)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	uint64_t end = clock_now() + patience;
	int fd, error;

	if (strlen(path) >= sizeof(address.sun_path))
		return -ENOENT;
	strcpy(address.sun_path, path);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return -errno;
	while (connect(fd, (const void *)&address, sizeof(address)) < 0) {
		error = -errno;
		if ((error == -EAGAIN && clock_now() < end) || error == -EINTR) {
			usleep(CONNECT_PAUSE_US);
			continue;
		}
		close(fd);
		return error;
	}
	fcntl(fd, F_SETFL, 0);
	return fd;
}

pid_t control_peer(int fd)
{
	struct ucred peer = { 0 };
	socklen_t size = sizeof(peer);

	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) < 0)
		return 0;
	return peer.pid;
}

static int send_request(int fd, const json_t *request)
{
	char *text = json_dumps(request, JSON_COMPACT);
	size_t length, sent = 0;
	int error = 0;

	if (!text)
		return -ENOMEM;
	length = strlen(text);
	text[length++] = '\n';
	while (sent < length && !error) {
		ssize_t n = send(fd, text + sent, length - sent, MSG_NOSIGNAL);

		if (n > 0)
			sent += (size_t)n;
		else if (errno != EINTR)
			error = -errno;
	}
	free(text);
	return error;
}

static int wait_readable(const struct reader *reader)
{
	struct pollfd wait = { .fd = reader->fd, .events = POLLIN };
	uint64_t now = clock_now();
	int timeout = -1, n;

	if (reader->end != UINT64_MAX) {
		if (now >= reader->end)
			return -ETIMEDOUT;
		timeout = reader->end - now > 3600 * CLOCK_SECOND ? 3600000 :
			  (int)((reader->end - now) / CLOCK_MS) + 1;
	}
	n = poll(&wait, 1, timeout);
	return n < 0 && errno != EINTR ? -errno : 0;
}

/* The next line as JSON, a new reference. */
static int read_line(struct reader *reader, json_t **line)
{
	char *newline;
	ssize_t n;
	int error;

	while (!(newline = reader->length ?
		 memchr(reader->text, '\n', reader->length) : NULL)) {
		if (reader->length == reader->room) {
			size_t room = reader->room ? 2 * reader->room : 65536;
			char *text = room > MAX_REPLY ? NULL :
				     realloc(reader->text, room);

			if (!text)
				return -ENOMEM;
			reader->text = text;
			reader->room = room;
		}
		error = wait_readable(reader);
		if (error)
			return error;
		n = recv(reader->fd, reader->text + reader->length,
			 reader->room - reader->length, MSG_DONTWAIT);
		if (n == 0)
			return -ECONNRESET;
		if (n < 0 && errno != EINTR && errno != EAGAIN)
			return -errno;
		if (n > 0)
			reader->length += (size_t)n;
	}
	n = newline + 1 - reader->text;
	*line = json_loadb(reader->text, (size_t)n, 0, NULL);
	reader->length -= (size_t)n;
	memmove(reader->text, newline + 1, reader->length);
	return *line ? 0 : -EPROTO;
}

int control_call(const char *path, json_t *request, uint64_t timeout,
		 control_told *told, void *context, json_t **reply, pid_t *pid)
{
	struct reader reader = { .end = UINT64_MAX };
	json_t *line = NULL;
	int error;

	if (timeout != UINT64_MAX)
		reader.end = clock_now() + timeout;
	reader.fd = control_connect(path, timeout < CONNECT_PATIENCE ? timeout :
					  CONNECT_PATIENCE);
	if (pid)
		*pid = reader.fd < 0 ? 0 : control_peer(reader.fd);
	error = reader.fd < 0 ? reader.fd : send_request(reader.fd, request);
	json_decref(request);
	while (!error) {
		json_t *progress;

		error = read_line(&reader, &line);
		if (error)
			break;
		progress = json_object_get(line, "progress");
		if (!progress) {
			/* Nothing that is not said to be well is. */
			if (json_is_integer(json_object_get(line, "error")))
				*reply = line;
			else
				error = -EPROTO;
			break;
		}
		if (told)
			told(context, progress);
		json_decref(line);
	}
	if (error == -EPROTO)
		json_decref(line);
	if (reader.fd >= 0)
		close(reader.fd);
	free(reader.text);
	return error == -EPIPE ? -ECONNRESET : error;
}

int control_ask_writer(const uint8_t uuid[16], json_t *request, json_t **reply)
{
	char *path = control_of_volume(uuid);
	const char *message = "no reason given";
	json_t *answer = NULL;
	int error, said = 0;

	if (!path) {
		json_decref(request);
		return 1;
	}
	error = control_call(path, request, UINT64_MAX, NULL, NULL, &answer, NULL);
	free(path);
	if (error == -ECONNREFUSED || error == -ENOENT)
		return 1;
	if (error == -EAGAIN) {
		log_error("the daemon that holds the volume does not answer");
		return error;
	}
	if (error) {
		log_error("the daemon that holds the volume: %s", error_words(error));
		return error;
	}
	json_unpack(answer, "{s:i, s?s}", "error", &said, "message", &message);
	if (said)
		log_error("%s", message);
	if (!said && reply)
		*reply = answer;
	else
		json_decref(answer);
	return -said;
}

int control_each(void (*visit)(void *context, const char *path), void *context)
{
	const char *dir = runtime_dir();
	struct dirent **names = NULL;
	int nr = dir ? scandir(dir, &names, NULL, alphasort) : -1;

	if (nr < 0)
		return -EIO;
	for (int i = 0; i < nr; i++) {
		const char *name = names[i]->d_name;
		char *path;

		if (strlen(name) == 16 &&
		    strspn(name, "0123456789abcdef") == 16 &&
		    asprintf(&path, "%s/%s", dir, name) >= 0) {
			visit(context, path);
			free(path);
		}
		free(names[i]);
	}
	free(names);
	return 0;
}
