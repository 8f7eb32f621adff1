/* log.c: lines to standard error, a file or syslog. */
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <syslog.h>
#include <unistd.h>

#include "src/log.h"

#define LINE_MAX_BYTES 2048

static atomic_int log_fd = STDERR_FILENO;	/* -1: syslog */
static atomic_int log_limit = LOG_LEVEL_NOTICE;
static _Thread_local char *captured;
static _Thread_local size_t captured_size;

static void capture(const char *line)
{
	size_t used = strlen(captured);

	snprintf(captured + used, captured_size - used, "%s%s",
		 used ? "; " : "", line);
}

bool log_wants(enum log_level level)
{
	return (int)level <= atomic_load_explicit(&log_limit, memory_order_relaxed);
}

/* Names come from the world: one line an event, and nothing for a terminal to
 * obey. */
static void disarm(char *line)
{
	for (; *line; line++)
		if ((unsigned char)*line < ' ' || *line == 0x7f)
			*line = '?';
}

void log_line(enum log_level level, const char *format, ...)
{
	static const int priority[] = { LOG_ERR, LOG_WARNING, LOG_NOTICE, LOG_DEBUG };
	char line[LINE_MAX_BYTES];
	int saved = errno;
	int fd = atomic_load(&log_fd);
	size_t start, length;
	va_list args;

	if (!log_wants(level))
		return;
	start = (size_t)snprintf(line, sizeof(line), "objmap: ");
	errno = saved;
	va_start(args, format);
	vsnprintf(line + start, sizeof(line) - start - 1, format, args);
	va_end(args);
	disarm(line + start);
	if (captured && level <= LOG_LEVEL_WARNING)
		capture(line + start);
	if (fd < 0) {
		syslog(priority[level], "%s", line + start);
	} else {
		/* One write per line: lines of several threads do not mix. */
		length = strlen(line);
		line[length++] = '\n';
		while (write(fd, line, length) < 0 && errno == EINTR)
			;
	}
	errno = saved;
}

int log_open(const char *where, enum log_level level)
{
	int fd = STDERR_FILENO;

	atomic_store(&log_limit, level);
	if (strcmp(where, "syslog") == 0) {
		openlog("objmap", LOG_PID, LOG_DAEMON);
		fd = -1;
	} else if (strcmp(where, "stderr") != 0) {
		/* A pipe that nobody reads must hold nobody up. */
		fd = open(where, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NONBLOCK,
			  0640);
		if (fd < 0)
			return -errno;
	}
	fd = atomic_exchange(&log_fd, fd);
	if (fd > STDERR_FILENO)
		close(fd);
	return 0;
}

void log_capture(char *text, size_t size)
{
	captured = text;
	captured_size = size;
	if (text)
		text[0] = 0;
}
