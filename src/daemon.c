/* daemon.c: the process that stays. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "src/daemon.h"
#include "src/log.h"

#define LISTEN_FDS_START 3	/* sd_listen_fds(3) */
#define FIRST_FD	 3	/* after the standard ones */
#define READY		 'R'	/* first byte to the parent; the line follows */

extern char **environ;

/* ---- systemd ---------------------------------------------------------------------- */

unsigned int daemon_listen_fds(void)
{
	const char *pid = getenv("LISTEN_PID"), *nr_text = getenv("LISTEN_FDS");
	unsigned long nr = 0;

	if (pid && nr_text && strtol(pid, NULL, 10) == (long)getpid())
		nr = strtoul(nr_text, NULL, 10);
	unsetenv("LISTEN_PID");
	unsetenv("LISTEN_FDS");
	unsetenv("LISTEN_FDNAMES");
	for (unsigned long i = 0; i < nr && i < 1024; i++)
		fcntl(LISTEN_FDS_START + (int)i, F_SETFD, FD_CLOEXEC);
	return nr < 1024 ? (unsigned int)nr : 0;
}

static void systemd_notify(const char *state)
{
	const char *path = getenv("NOTIFY_SOCKET");
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	size_t length = path ? strlen(path) : 0;
	int fd;

	if (!length || length >= sizeof(address.sun_path))
		return;
	memcpy(address.sun_path, path, length);
	if (*path == '@')
		address.sun_path[0] = 0;	/* an abstract socket */
	fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return;
	if (sendto(fd, state, strlen(state), MSG_NOSIGNAL, (void *)&address,
		   (socklen_t)(offsetof(struct sockaddr_un, sun_path) + length)) < 0)
		log_warning("NOTIFY_SOCKET %s: %s", path, strerror(errno));
	close(fd);
}

/* ---- beginning -------------------------------------------------------------------- */

static int block_signals(struct daemon *daemon)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGHUP);
	daemon->signal_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	sigaddset(&set, SIGPIPE);
	if (daemon->signal_fd < 0 || sigprocmask(SIG_BLOCK, &set, NULL) < 0) {
		int error = -errno;

		log_error("signals cannot be blocked: %s", strerror(errno));
		return error;
	}
	return 0;
}

/* The parent: prints what the daemon says when it is ready, or takes over the
 * exit status it fails with. */
static int wait_for_daemon(int fd, pid_t pid)
{
	FILE *said = fdopen(fd, "r");
	int status, c;

	if (said && getc(said) == READY) {
		while ((c = getc(said)) != EOF)
			putchar(c);
		fclose(said);
		if (fflush(stdout) == 0 && !ferror(stdout))
			return 0;
		/* Whoever fails must leave nothing behind. */
		log_error("standard output: %s: it is unmounted again", strerror(errno));
		kill(pid, SIGTERM);
		while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
			;
		return 1;
	}
	if (said)
		fclose(said);
	else
		close(fd);
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	if (WIFEXITED(status))
		return WEXITSTATUS(status) ? WEXITSTATUS(status) : 1;
	log_error("the daemon was ended by signal %d before it was ready",
		  WTERMSIG(status));
	return 1;
}

/* What the caller had open (a lock, a pipe that somebody reads to its end) must
 * not stay open for as long as the daemon lives.  Returns @fd as it is then. */
static int keep_only(int fd)
{
	if (fd != FIRST_FD && dup3(fd, FIRST_FD, O_CLOEXEC) >= 0)
		fd = FIRST_FD;
	if (fd == FIRST_FD)
		close_range(FIRST_FD + 1, ~0u, 0);	/* Linux 5.9 */
	return fd;
}

int daemon_begin(struct daemon *daemon, bool foreground, bool core, int *status)
{
	struct rlimit none = { 0, 0 };
	int ready[2];
	pid_t pid;

	*daemon = (struct daemon){ .ready_fd = -1, .signal_fd = -1 };
	if (!core)
		setrlimit(RLIMIT_CORE, &none);	/* memory holds credentials */
	if (foreground)
		return block_signals(daemon);
	if (pipe2(ready, O_CLOEXEC) < 0)
		return -errno;
	fflush(NULL);
	pid = fork();
	if (pid < 0) {
		int error = -errno;

		log_error("fork: %s", strerror(errno));
		close(ready[0]);
		close(ready[1]);
		return error;
	}
	if (pid > 0) {
		close(ready[1]);
		*status = wait_for_daemon(ready[0], pid);
		return 1;
	}
	daemon->forked = true;
	daemon->ready_fd = keep_only(ready[1]);
	return block_signals(daemon);
}

/* ---- ready ------------------------------------------------------------------------- */

/* Lets go of the terminal and of the working directory; standard error too,
 * unless logs go there. */
static void detach(bool keep_stderr)
{
	int null = open("/dev/null", O_RDWR | O_CLOEXEC);

	setsid();
	if (chdir("/") < 0)
		log_warning("chdir /: %s", strerror(errno));
	if (null < 0)
		return;
	dup2(null, STDIN_FILENO);
	dup2(null, STDOUT_FILENO);
	if (!keep_stderr)
		dup2(null, STDERR_FILENO);
	close(null);
}

static int tell_parent(struct daemon *daemon, const char *line)
{
	char *text;
	ssize_t n;
	int length = asprintf(&text, "%c%s%s", READY, line ? line : "",
			      line ? "\n" : "");

	if (length < 0)
		return -ENOMEM;
	n = write(daemon->ready_fd, text, (size_t)length);
	free(text);
	close(daemon->ready_fd);
	daemon->ready_fd = -1;
	return n == length ? 0 : n < 0 ? -errno : -EIO;
}

int daemon_ready(struct daemon *daemon, const char *line, const char *log,
		 int log_level)
{
	int error;

	if (!log)
		log = daemon->forked ? "syslog" : "stderr";
	error = log_open(log, (enum log_level)log_level);
	if (error) {
		log_error("--log %s: %s", log, strerror(-error));
		return error;
	}
	systemd_notify("READY=1");
	if (daemon->forked) {
		/* First: the terminal may be gone with the parent, which would be
		 * SIGHUP, and that would end us. */
		detach(strcmp(log, "stderr") == 0);
		return tell_parent(daemon, line);
	}
	if (line) {
		printf("%s\n", line);
		fflush(stdout);
	}
	return 0;
}

void daemon_stopping(struct daemon *daemon)
{
	(void)daemon;
	systemd_notify("STOPPING=1");
}

/* ---- --run --------------------------------------------------------------------------- */

/* @text with each {} replaced; malloc'ed. */
static char *fill_in(const char *text, const char *where)
{
	size_t size = strlen(text) + 1, length = strlen(where);
	char *out, *at;

	for (const char *p = strstr(text, "{}"); p; p = strstr(p + 2, "{}"))
		size += length;
	out = at = malloc(size);
	while (out && *text) {
		if (text[0] == '{' && text[1] == '}') {
			at = stpcpy(at, where);
			text += 2;
		} else {
			*at++ = *text++;
		}
	}
	if (out)
		*at = 0;
	return out;
}

static int spawn(char **argv, pid_t *pid)
{
	posix_spawnattr_t attributes;
	sigset_t none;
	int error;

	sigemptyset(&none);	/* the command gets its signals */
	error = posix_spawnattr_init(&attributes);
	if (error)
		return -error;
	posix_spawnattr_setsigmask(&attributes, &none);
	posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK);
	error = posix_spawnp(pid, argv[0], NULL, &attributes, argv, environ);
	posix_spawnattr_destroy(&attributes);
	return -error;
}

pid_t daemon_run(char **command, const char *where)
{
	size_t nr = 0;
	char **argv;
	pid_t pid = 0;
	int error = 0;

	while (command[nr])
		nr++;
	argv = calloc(nr + 1, sizeof(*argv));
	if (!argv)
		return -ENOMEM;
	for (size_t i = 0; i < nr; i++) {
		argv[i] = fill_in(command[i], where);
		if (!argv[i])
			error = -ENOMEM;
	}
	if (!error && setenv("OBJMAP_WHERE", where, 1) < 0)
		error = -errno;
	if (!error)
		error = spawn(argv, &pid);
	if (error)
		log_error("--run %s: %s", command[0], strerror(-error));
	for (size_t i = 0; i < nr; i++)
		free(argv[i]);
	free(argv);
	return error ? error : pid;
}
