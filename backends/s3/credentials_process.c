/* credentials_process.c: keys from a program: credential_process of a profile.
 *
 * Its line is split as a shell would, but no shell sees it: nothing in it is a
 * variable, a pattern or a second command.  It has no input, a process group and
 * 30 s of its own; what it says on standard error is the user's to see.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "backends/s3/credentials_find.h"
#include "src/clock.h"

#define WORDS_MAX	64
#define ANSWER_MAX	(64u << 10)
#define PATIENCE	(30 * CLOCK_SECOND)
#define LOOK_MS		20

extern char **environ;

/* Splits @line in place; the words' pointers end with NULL.  -EINVAL: a quote
 * without its end; -E2BIG. */
static int split(char *line, char *words[WORDS_MAX + 1])
{
	unsigned int nr = 0;
	char *to = line, quote = 0;
	bool in_word = false;

	for (; *line; line++) {
		if (!quote && strchr(" \t\r\n", *line)) {
			if (in_word)
				*to++ = 0;
			in_word = false;
			continue;
		}
		if (!in_word) {
			if (nr == WORDS_MAX)
				return -E2BIG;
			in_word = true;
			to = line;
			words[nr++] = to;
		}
		if (quote && *line == quote)
			quote = 0;
		else if (!quote && (*line == '"' || *line == '\''))
			quote = *line;
		else if (*line == '\\' && line[1] && quote != '\'' &&
			 (!quote || strchr("\"\\", line[1])))
			*to++ = *++line;
		else
			*to++ = *line;
	}
	if (in_word)
		*to = 0;
	words[nr] = NULL;
	return quote || !nr ? -EINVAL : 0;
}

static int process_start(char **words, int out, pid_t *pid)
{
	posix_spawn_file_actions_t actions;
	posix_spawnattr_t attributes;
	sigset_t none, all;
	int error;

	sigemptyset(&none);
	sigfillset(&all);
	if (posix_spawn_file_actions_init(&actions))
		return -ENOMEM;
	if (posix_spawnattr_init(&attributes)) {
		posix_spawn_file_actions_destroy(&actions);
		return -ENOMEM;
	}
	posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
	posix_spawn_file_actions_adddup2(&actions, out, STDOUT_FILENO);
	posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETPGROUP |
				 POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
	posix_spawnattr_setsigmask(&attributes, &none);
	posix_spawnattr_setsigdefault(&attributes, &all);
	error = posix_spawnp(pid, words[0], &actions, &attributes, words, environ);
	posix_spawnattr_destroy(&attributes);
	posix_spawn_file_actions_destroy(&actions);
	return -error;
}

/* Reads what is there: 1: more may come, 0: the end, or -errno. */
static int read_some(int fd, char *text, size_t *count)
{
	ssize_t got;

	for (;;) {
		if (*count == ANSWER_MAX)
			return -EFBIG;
		got = read(fd, text + *count, ANSWER_MAX - *count);
		if (got < 0)
			return errno == EAGAIN || errno == EINTR ? 1 : -errno;
		if (!got)
			return 0;
		*count += (size_t)got;
	}
}

/* Reads until the program has ended; whoever it left behind may keep the pipe. */
static int process_wait(struct search *search, pid_t pid, int fd, char *text,
			size_t *count, int *status)
{
	struct pollfd poll_fd = { .fd = fd, .events = POLLIN };
	uint64_t end = clock_now() + PATIENCE;
	int more = 1;
	pid_t ended;

	if (search->deadline && search->deadline < end)
		end = search->deadline;
	for (;;) {
		ended = waitpid(pid, status, WNOHANG);
		/* Where SIGCHLD is ignored, nobody is told how it ended. */
		if (ended < 0 && errno == ECHILD)
			ended = pid;
		if (more > 0)
			more = read_some(fd, text, count);
		if (ended == pid)
			return more < 0 ? more : 0;
		if (more < 0)
			break;
		if (clock_now() > end) {
			more = -ETIMEDOUT;
			break;
		}
		if (atomic_load(search->closing)) {
			more = -ESHUTDOWN;
			break;
		}
		poll(&poll_fd, more > 0, LOOK_MS);
	}
	kill(-pid, SIGKILL);
	while (waitpid(pid, status, 0) < 0 && errno == EINTR)
		;
	return more;
}

static int process_run(struct search *search, char **words, char *text, size_t *count)
{
	int fds[2], error, status = 0;
	pid_t pid = 0;

	if (pipe2(fds, O_CLOEXEC) < 0)
		return search_fails(search, -errno, "%s: %s", words[0], strerror(errno));
	error = process_start(words, fds[1], &pid);
	close(fds[1]);
	if (!error) {
		fcntl(fds[0], F_SETFL, O_NONBLOCK);
		error = process_wait(search, pid, fds[0], text, count, &status);
	}
	close(fds[0]);
	if (error == -ETIMEDOUT)
		return search_fails(search, error, "credential_process %s: gave no keys in "
				    "time and was ended", words[0]);
	if (error == -EFBIG)
		return search_fails(search, error, "credential_process %s: says more than "
				    "%u bytes", words[0], ANSWER_MAX);
	if (error)
		return search_fails(search, error, "credential_process %s: %s", words[0],
				    strerror(-error));
	if (WIFSIGNALED(status))
		return search_fails(search, -EACCES, "credential_process %s: was ended by "
				    "signal %d", words[0], WTERMSIG(status));
	if (WEXITSTATUS(status))
		return search_fails(search, -EACCES, "credential_process %s: failed with "
				    "status %d", words[0], WEXITSTATUS(status));
	return 0;
}

int keys_from_process(struct search *search, struct s3_keys *keys, const char *command)
{
	char *words[WORDS_MAX + 1], *line = strdup(command), *text = malloc(ANSWER_MAX);
	char whose[128];
	size_t count = 0;
	int error;

	error = line && text ? split(line, words) :
		search_fails(search, -ENOMEM, "no memory");
	if (error == -EINVAL)
		search_fails(search, error, "credential_process: a quote has no end");
	else if (error == -E2BIG)
		search_fails(search, error, "credential_process: has more than %d words",
			     WORDS_MAX);
	if (!error)
		error = process_run(search, words, text, &count);
	if (!error) {
		snprintf(whose, sizeof(whose), "credential_process %s", words[0]);
		error = keys_from_json(search, keys, whose, text, count, "SessionToken",
				       true);
	}
	if (text)
		explicit_bzero(text, ANSWER_MAX);
	free(text);
	free(line);
	return error;
}
