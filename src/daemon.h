/* daemon.h: leaving a daemon behind: fork, readiness, signals.
 *
 * The process that serves is forked before any thread exists.  Its parent waits
 * until it is ready or has failed: failures are seen where the command was
 * typed, with the daemon's exit status.
 */
#ifndef OBJMAP_DAEMON_H
#define OBJMAP_DAEMON_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct daemon {
	bool forked;
	int ready_fd;		/* to the parent; -1: none */
	int signal_fd;		/* SIGTERM, SIGINT, SIGHUP are read here */
};

/* Sockets that systemd has passed: how many, from descriptor 3 on.  Takes the
 * variables away; with them a daemon stays in the foreground. */
unsigned int daemon_listen_fds(void);

/* Becomes the process that serves.  Returns 0 there; in the parent 1, after it
 * has waited, with the exit status.  Also limits core files to nothing unless
 * @core, and blocks SIGPIPE and the signals above in every thread to come.
 * -errno, logged. */
int daemon_begin(struct daemon *daemon, bool foreground, bool core, int *status);

/* All is served: has the parent print @line (NULL: nothing) and leave; in the
 * foreground prints it.  Tells systemd.  From then on logs go to @log (NULL:
 * syslog, in the foreground standard error).  0; -EPIPE: the parent has gone,
 * nobody knows of this daemon, it should end; or -errno, logged. */
int daemon_ready(struct daemon *daemon, const char *line, const char *log,
		 int log_level);

void daemon_stopping(struct daemon *daemon);

/* Runs @command with every {} in its arguments replaced by @where, which is
 * also in OBJMAP_WHERE.  Returns its pid, or -errno, logged. */
pid_t daemon_run(char **command, const char *where);

#endif
