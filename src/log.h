/* log.h: one line an event, to people.
 *
 * Whoever translates a foreign failure into -errno logs it once, with what was
 * tried, on what, and what to do.  Messages name things in the words of the
 * command line, begin in lower case, have no full stop at the end, and never
 * hold a secret.  Lines come out as "objmap: MESSAGE".
 */
#ifndef OBJMAP_LOG_H
#define OBJMAP_LOG_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>

enum log_level { LOG_LEVEL_ERROR, LOG_LEVEL_WARNING, LOG_LEVEL_NOTICE,
		 LOG_LEVEL_DEBUG };

#define log_error(...)	 log_line(LOG_LEVEL_ERROR, __VA_ARGS__)
#define log_warning(...) log_line(LOG_LEVEL_WARNING, __VA_ARGS__)
#define log_notice(...)	 log_line(LOG_LEVEL_NOTICE, __VA_ARGS__)
#define log_debug(...)	 log_line(LOG_LEVEL_DEBUG, __VA_ARGS__)
void log_line(enum log_level level, const char *format, ...)
	__attribute__((format(printf, 2, 3)));

/* Whether a line of @level would come out: for what is costly to say. */
bool log_wants(enum log_level level);

/* Where lines go: "stderr", "syslog", or a file's path (appended to).
 * Returns 0 or -errno.  Lines above @level are dropped. */
int log_open(const char *where, enum log_level level);

/* Keeps what this thread logs as errors and warnings in @text as well (newest
 * last, cut at @size), until called with NULL: a control connection sends it
 * to whoever asked. */
void log_capture(char *text, size_t size);

#endif
