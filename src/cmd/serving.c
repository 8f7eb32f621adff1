/* serving.c: from options to a daemon that serves. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "src/cmd/open.h"
#include "src/cmd/serving.h"
#include "src/daemon.h"
#include "src/log.h"
#include "src/utf8.h"

/* ---- options ------------------------------------------------------------------------ */

static void read_volume_options(const struct options *options,
				struct volume_options *volume)
{
	volume->take_over = option_flag(options, "take-over");
	volume->abandon_journal = option_flag(options, "abandon-journal");
	volume->exclusive = option_flag(options, "exclusive");
	volume->follow = option_flag(options, "follow");
	volume->durability = strcmp(option_text(options, "durability"), "none") ?
			     DURABILITY_REMOTE : DURABILITY_NONE;
	volume->pending_limit = option_size(options, "memory-limit");
	volume->map_memory = option_size(options, "map-memory");
	volume->grace = (uint32_t)(option_time(options, "grace") / 1000000000);
	volume->refresh_interval = option_time(options, "refresh-interval");
}

static void read_export_options(const struct options *options,
				struct mount_spec *spec)
{
	struct export_options *export = &spec->export;

	export->read_only = option_flag(options, "read-only");
	export->writable = option_flag(options, "writable");
	export->dirty_limit = option_size(options, "dirty-limit");
	export->max_requests = (unsigned int)option_number(options, "max-requests");
	export->max_bytes = option_size(options, "max-bytes");
	export->block_size = (uint32_t)option_size(options, "block-size");
	export->description = option_text(options, "description");
	open_options(options, &export->store);
	export->store.s3.exclusive = option_flag(options, "exclusive");
	spec->retry_for_given = option_given(options, "retry-for");
	spec->allow_other = option_flag(options, "allow-other");
	read_volume_options(options, &export->volume);
}

/* A socket that two programs talk over: it has a beginning and an end of bytes, and
 * nobody is to be accepted from it. */
static bool is_stream_socket(int fd)
{
	int type = 0, listening = 0;
	socklen_t size = sizeof(type);

	return getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &size) == 0 &&
	       type == SOCK_STREAM &&
	       getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listening, &size) == 0 &&
	       !listening;
}

static bool is_stream(int fd)
{
	struct stat st;

	return is_stream_socket(fd) || (fstat(fd, &st) == 0 && S_ISFIFO(st.st_mode));
}

/* Before anything is opened, which could take the number of a descriptor that
 * was never handed over. */
static int check_stream(const struct where *where)
{
	if (where->kind == WHERE_STDIO) {
		if (is_stream(STDIN_FILENO) && is_stream(STDOUT_FILENO))
			return 0;
		log_error("-: standard input and output are no connected stream: inetd, ssh and the like give a socket or two pipes");
		return 1;
	}
	if (where->kind != WHERE_FD || is_stream_socket(where->fd))
		return 0;
	log_error("fd:%d: %s", where->fd, fcntl(where->fd, F_GETFD) < 0 ?
		  "no such descriptor is open" :
		  "it is no connected stream: NBD needs a socket");
	return 1;
}

static bool is_same(int a, int b)
{
	struct stat x, y;

	return fstat(a, &x) == 0 && fstat(b, &y) == 0 && x.st_dev == y.st_dev &&
	       x.st_ino == y.st_ino;
}

/* inetd makes the connection standard error, too: what is told there would come
 * between the answers.  Returns whether it was so, and is no more. */
static bool free_standard_error(const struct where *where)
{
	int null;

	if (!is_same(STDERR_FILENO, where->fd) &&
	    !(where->kind == WHERE_STDIO && is_same(STDERR_FILENO, STDOUT_FILENO)))
		return false;
	null = open("/dev/null", O_RDWR | O_CLOEXEC);
	if (null >= 0) {
		dup2(null, STDERR_FILENO);
		close(null);
	}
	return true;
}

static int check_spec(const struct mount_spec *spec)
{
	const struct volume_options *volume = &spec->export.volume;

	if (spec->export.writable && spec->export.read_only) {
		log_error("--writable and --read-only: choose one");
		return EXIT_USAGE;
	}
	if (spec->export.writable && strncmp(spec->place.scheme, "http", 4) == 0) {
		log_error("%s: a web server's files are never writable; 'objmap copy' it somewhere that is",
			  spec->place.text);
		return EXIT_USAGE;
	}
	if (spec->export.description &&
	    !utf8_is_text(spec->export.description, strlen(spec->export.description))) {
		log_error("--description is not UTF-8, which NBD wants");
		return EXIT_USAGE;
	}
	if (volume->follow && !spec->place.is_volume) {
		log_error("--follow: %s is no volume", spec->place.text);
		return EXIT_USAGE;
	}
	if (volume->follow && spec->place.snapshot) {
		log_error("--follow: %s is a snapshot, which never changes",
			  spec->place.text);
		return EXIT_USAGE;
	}
	if (volume->follow && !spec->export.read_only) {
		log_error("--follow is for readers: add --read-only");
		return EXIT_USAGE;
	}
	return 0;
}

int serving_spec(const struct options *options, const char *place,
		 const char *where, const char *state, struct mount_spec *spec)
{
	int status = EXIT_USAGE;

	memset(spec, 0, sizeof(*spec));
	if (place_parse(place, 0, &spec->place) != 0)
		return EXIT_USAGE;
	if (where_parse(where, &spec->where) != 0) {
		place_free(&spec->place);
		return EXIT_USAGE;
	}
	read_export_options(options, spec);
	status = open_check(options, &spec->place) ? EXIT_USAGE : check_spec(spec);
	/* What a fenced writer has not saved is kept there. */
	if (!status && !spec->export.read_only && !spec->place.snapshot &&
	    (spec->place.is_volume || spec->export.writable)) {
		spec->state = state_dir(state);
		spec->export.volume.state_dir = spec->state;
		status = spec->state ? 0 : 1;
	}
	if (status)
		mount_spec_free(spec);
	return status;
}

static void read_server_options(const struct options *options,
				struct nbd_options *nbd)
{
	nbd->max_clients = (unsigned int)option_number(options, "max-clients");
	nbd->max_client_requests =
		(unsigned int)option_number(options, "max-client-requests");
	nbd->max_client_bytes = option_size(options, "max-client-bytes");
	nbd->max_bytes = option_size(options, "max-total-bytes");
	nbd->threads = (unsigned int)option_number(options, "threads");
	nbd->no_poll = option_flag(options, "no-poll");
	nbd->handshake_timeout = option_time(options, "handshake-timeout");
	nbd->tls_certificates = option_text(options, "tls-certificates");
	nbd->tls_psk = option_text(options, "tls-psk");
	nbd->tls_verify_peer = option_flag(options, "tls-verify-peer");
	nbd->insecure_public = option_flag(options, "insecure-public");
}

static enum log_level read_log_level(const struct options *options)
{
	static const char *const names[] = {
		[LOG_LEVEL_ERROR] = "error",   [LOG_LEVEL_WARNING] = "warning",
		[LOG_LEVEL_NOTICE] = "notice", [LOG_LEVEL_DEBUG] = "debug",
	};
	const char *given = option_text(options, "log-level");
	unsigned int level = LOG_LEVEL_ERROR;

	while (level < LOG_LEVEL_DEBUG && strcmp(names[level], given) != 0)
		level++;
	return level;
}

/* ---- serving ----------------------------------------------------------------------------- */

/* What is printed when all is served: a line for each mount; malloc'ed. */
static char *ready_text(const struct mounts *mounts, bool json)
{
	char *text = NULL;
	size_t size;
	FILE *out = open_memstream(&text, &size);
	const char *where;

	for (unsigned int n = 0; out && (where = mounts_where(mounts, n)); n++) {
		fputs(n ? "\n" : "", out);
		if (json) {
			json_t *line = json_pack("{s:s, s:i}", "where", where,
						 "pid", (int)getpid());

			json_dumpf(line, out, JSON_COMPACT);
			json_decref(line);
		} else {
			fputs(where, out);
		}
	}
	if (out)
		fclose(out);
	return text;
}

static int command_status(int wait_status)
{
	if (WIFSIGNALED(wait_status))
		return 128 + WTERMSIG(wait_status);	/* as a shell says it */
	return WEXITSTATUS(wait_status);
}

/* Everything is served.  @log: where to log, unless it is given; NULL: as ever.
 * Returns 0, or the command's exit status. */
static int serve(const struct options *options, struct mounts *mounts,
		 struct daemon *daemon, char **command, bool silent, const char *log)
{
	char *text = command || silent ? NULL :
		     ready_text(mounts, option_flag(options, "json"));
	int error, wait_status = 0;
	pid_t child = 0;

	if (option_text(options, "log"))
		log = option_text(options, "log");
	error = daemon_ready(daemon, text, log, read_log_level(options));
	free(text);
	if (!error && command) {
		child = daemon_run(command, mounts_where(mounts, 0));
		error = child < 0 ? child : 0;
	}
	if (!error)
		mounts_wait(mounts, daemon, child, &wait_status);
	/* A command has ended, or it was never begun; what cannot be saved waits
	 * for its store, or for objmap umount. */
	while (mounts_end(mounts) != 0)
		mounts_wait(mounts, daemon, 0, NULL);
	if (error == -ENOENT && command)
		return 127;	/* as a shell says it */
	return error ? 1 : child ? command_status(wait_status) : 0;
}

/* TLS is for nbds: only, and needs keys: who asks for it must not be served
 * without.  What a file or the environment says may be meant for other mounts. */
static int check_tls(const struct options *options, const struct mount_spec *specs,
		     unsigned int nr_specs)
{
	static const char *const names[] = { "tls-certificates", "tls-psk",
					     "tls-verify-peer" };
	const char *certificates = option_text(options, "tls-certificates");
	const struct mount_spec *tls = NULL;

	for (unsigned int i = 0; i < nr_specs; i++)
		if (specs[i].where.kind == WHERE_NBD_TLS)
			tls = &specs[i];
	for (size_t i = 0; !tls && i < sizeof(names) / sizeof(*names); i++)
		if (strcmp(option_source(options, names[i]), "command line") == 0) {
			log_error("--%s is for TLS, and %s is without: write nbds: for nbd:",
				  names[i], specs[0].where.text);
			return EXIT_USAGE;
		}
	if (tls && !certificates && !option_text(options, "tls-psk")) {
		log_error("%s: TLS needs --tls-certificates DIR or --tls-psk FILE",
			  tls->where.text);
		return EXIT_USAGE;
	}
	if (tls && !certificates && option_flag(options, "tls-verify-peer")) {
		log_error("--tls-verify-peer needs --tls-certificates DIR, whose ca-cert.pem signs the clients' certificates");
		return EXIT_USAGE;
	}
	return 0;
}

int serving_run(const struct options *options, struct mount_spec *specs,
		unsigned int nr_specs, char **command)
{
	struct mounts_options mounts_options = {
		.nr_listen_fds = daemon_listen_fds(),
	};
	bool foreground = command || option_flag(options, "foreground") ||
			  mounts_options.nr_listen_fds;
	bool silent = false;
	const char *log = NULL;
	struct mounts *mounts = NULL;
	struct daemon daemon;
	int error, status = check_tls(options, specs, nr_specs), end_status;

	log_open("stderr", read_log_level(options));
	for (unsigned int i = 0; i < nr_specs && !status; i++) {
		if (specs[i].where.fd < 0)
			continue;
		silent = foreground = true;
		status = check_stream(&specs[i].where);
		if (!status && free_standard_error(&specs[i].where)) {
			log = "syslog";
			log_open(log, read_log_level(options));
		}
	}
	if (status)
		return status;
	read_server_options(options, &mounts_options.nbd);
	error = daemon_begin(&daemon, foreground, option_flag(options, "core"),
			     &status);
	if (error > 0)
		return status;
	if (!error)
		error = mounts_open(&mounts_options, &mounts);
	for (unsigned int i = 0; i < nr_specs && !error; i++)
		error = mounts_add(mounts, &specs[i]);
	if (!error)
		error = mounts_start(mounts);
	if (error)
		status = error == -EINVAL ? EXIT_USAGE : 1;
	else
		status = serve(options, mounts, &daemon, command, silent, log);
	end_status = mounts ? mounts_close(mounts) : 0;
	return status ? status : end_status;
}
