/* where.c: reads WHERE, and gives it the one name its control socket has.
 *
 * The canonical form must not depend on what the mount itself answers: a dead
 * FUSE mount cannot be looked at, so only the parent folder is resolved. */
#include <ctype.h>
#include <errno.h>
#include <limits.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "src/log.h"
#include "src/utf8.h"
#include "src/where.h"

#define HASH_BYTES 8	/* of SHA-256: 16 hex digits */

static int hex_digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	c = (char)tolower((unsigned char)c);
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* %XX to bytes; NULL where a % is not followed by two digits, or is %00. */
static char *percent_decode(const char *text, size_t length)
{
	char *out = malloc(length + 1);
	size_t n = 0;

	for (size_t i = 0; out && i < length; i++) {
		int high, low;

		if (text[i] != '%') {
			out[n++] = text[i];
			continue;
		}
		high = i + 2 < length ? hex_digit(text[i + 1]) : -1;
		low = high < 0 ? -1 : hex_digit(text[i + 2]);
		if (low < 0 || (high | low) == 0) {
			free(out);
			return NULL;
		}
		out[n++] = (char)(high << 4 | low);
		i += 2;
	}
	if (out)
		out[n] = 0;
	return out;
}

/* realpath() of the parent of @path, and its last component. */
static char *resolve_parent(const char *path)
{
	char *copy = strdup(path), *parent = NULL, *result = NULL;
	char *last;
	size_t length;

	if (!copy)
		return NULL;
	for (length = strlen(copy); length > 1 && copy[length - 1] == '/'; )
		copy[--length] = 0;
	last = strrchr(copy, '/');
	if (!last) {
		parent = realpath(".", NULL);
		last = copy;
	} else {
		*last++ = 0;
		parent = realpath(copy[0] ? copy : "/", NULL);
	}
	if (!parent) {
		log_error("%s: its folder %s: %s", path, copy, strerror(errno));
	} else if (!*last || strcmp(last, ".") == 0 || strcmp(last, "..") == 0) {
		/* The last component names a folder whatever it is. */
		errno = EISDIR;
		log_error("%s is a folder: mount on a file in it, such as %s/disk",
			  path, path);
	} else if (asprintf(&result, "%s/%s", parent[1] ? parent : "", last) < 0) {
		result = NULL;
	}
	free(parent);
	free(copy);
	return result;
}

static bool is_kernel_device(const char *text)
{
	if (strcmp(text, "nbd") == 0)
		return true;
	return strncmp(text, "/dev/nbd", 8) == 0 &&
	       isdigit((unsigned char)text[8]);
}

static int refuse_kernel_device(const char *text)
{
	log_error("%s: kernel nbd devices are not in this build: mount it on a file (DIR/NAME) or as nbd+unix:///?socket=PATH",
		  text);
	return -EINVAL;
}

static int parse_path(struct where *where)
{
	where->kind = WHERE_FUSE;
	where->path = resolve_parent(where->text);
	if (!where->path)
		return -EINVAL;
	if (is_kernel_device(where->path))
		return refuse_kernel_device(where->text);
	where->canonical = strdup(where->path);
	return where->canonical ? 0 : -ENOMEM;
}

/* The value of parameter socket= in @query, which is the only one there is. */
static int parse_socket(struct where *where, const char *query)
{
	char *socket;

	if (!query || strncmp(query, "socket=", 7) != 0 || !query[7] ||
	    strchr(query, '&')) {
		log_error("%s: write it as nbd+unix:///EXPORT?socket=PATH",
			  where->text);
		return -EINVAL;
	}
	socket = percent_decode(query + 7, strlen(query + 7));
	if (!socket) {
		log_error("%s: a %% in it must be followed by two hex digits",
			  where->text);
		return -EINVAL;
	}
	where->path = resolve_parent(socket);
	free(socket);
	if (!where->path)
		return -EINVAL;
	if (strlen(where->path) >= sizeof(((struct sockaddr_un *)0)->sun_path)) {
		log_error("%s: the path of a socket ends at %zu bytes, this one has %zu",
			  where->path,
			  sizeof(((struct sockaddr_un *)0)->sun_path) - 1,
			  strlen(where->path));
		return -EINVAL;
	}
	return 0;
}

/* ADDRESS[:PORT], [IPV6][:PORT], or nothing: this machine.  Only what has a ':'
 * stands in []: so there is one way to write each. */
static int parse_address(struct where *where, const char *text, size_t length)
{
	const char *end = text + length, *colon, *address_end;
	unsigned long port = NBD_PORT;
	char *stop;

	if (length && *text == '[') {
		address_end = memchr(text, ']', length);
		if (!address_end || !memchr(text, ':', (size_t)(address_end - text)))
			goto bad;
		text++;
		colon = address_end + 1;
		if (colon < end && *colon != ':')
			goto bad;
	} else {
		colon = memchr(text, ':', length);
		if (!colon)
			colon = end;
		else if (memchr(colon + 1, ':', (size_t)(end - colon - 1)))
			goto bad;	/* IPv6 without brackets */
		address_end = colon;
	}
	if (colon < end) {
		if (colon + 1 == end || !isdigit((unsigned char)colon[1]))
			goto bad;
		port = strtoul(colon + 1, &stop, 10);
		if (stop != end || port > 65535)
			goto bad;
	}
	where->address = address_end == text ? strdup("127.0.0.1") :
			 strndup(text, (size_t)(address_end - text));
	where->port = (uint16_t)port;
	return where->address ? 0 : -ENOMEM;
bad:
	log_error("%s: write it as nbd://ADDRESS[:PORT]/EXPORT, an IPv6 address in []",
		  where->text);
	return -EINVAL;
}

/* As percent_decode() reads it; what a shell or a URI could mistake becomes %XX. */
static char *percent_encode(const char *text)
{
	static const char plain[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
				    "0123456789-._~/+,:@=";
	char *out = malloc(3 * strlen(text) + 1), *at = out;

	for (; out && *text; text++) {
		if (strchr(plain, *text))
			*at++ = *text;
		else
			at += sprintf(at, "%%%02X", (unsigned char)*text);
	}
	if (out)
		*at = 0;
	return out;
}

static int set_canonical(struct where *where)
{
	const char *tls = where->kind == WHERE_NBD_TLS ? "s" : "";
	char *name = percent_encode(where->export_name);
	char *path = where->path ? percent_encode(where->path) : NULL;
	int n = -1;

	free(where->canonical);
	if (name && path)
		n = asprintf(&where->canonical, "nbd%s+unix:///%s?socket=%s", tls,
			     name, path);
	else if (name && !where->path)
		n = asprintf(&where->canonical,
			     strchr(where->address, ':') ? "nbd%s://[%s]:%u/%s" :
			     "nbd%s://%s:%u/%s", tls, where->address, where->port,
			     name);
	free(name);
	free(path);
	if (n < 0)
		where->canonical = NULL;
	return n < 0 ? -ENOMEM : 0;
}

/* @rest is what follows nbd[s][+unix]:// */
static int parse_nbd(struct where *where, const char *rest, bool unix_socket)
{
	const char *query = strchr(rest, '?');
	const char *end = query ? query : rest + strlen(rest);
	const char *slash = memchr(rest, '/', (size_t)(end - rest));
	const char *name = slash ? slash + 1 : end;
	int error;

	if (unix_socket) {
		if (slash != rest) {
			log_error("%s: write it as nbd+unix:///EXPORT?socket=PATH, with three slashes",
				  where->text);
			return -EINVAL;
		}
		error = parse_socket(where, query ? query + 1 : NULL);
	} else if (query) {
		log_error("%s: it takes no parameter: write it as nbd://ADDRESS[:PORT]/EXPORT",
			  where->text);
		return -EINVAL;
	} else {
		error = parse_address(where, rest,
				      (size_t)((slash ? slash : end) - rest));
	}
	if (error)
		return error;
	where->export_name = percent_decode(name, (size_t)(end - name));
	if (!where->export_name || strlen(where->export_name) > 4096) {
		log_error("%s: the export's name is too long or has a bad %%",
			  where->text);
		return -EINVAL;
	}
	return set_canonical(where);
}

/* A descriptor means nothing to others: its name has our process in it. */
static int parse_descriptor(struct where *where, enum where_kind kind, int fd)
{
	where->kind = kind;
	where->fd = fd;
	where->export_name = strdup("");
	if (!where->export_name ||
	    asprintf(&where->canonical, "%s of process %d", where->text,
		     (int)getpid()) < 0)
		return -ENOMEM;
	return 0;
}

static int parse_fd(struct where *where, const char *number)
{
	char *end;
	unsigned long fd = strtoul(number, &end, 10);

	if (!isdigit((unsigned char)*number) || *end || fd > INT_MAX) {
		log_error("%s: write it as fd:N, N an open descriptor", where->text);
		return -EINVAL;
	}
	return parse_descriptor(where, WHERE_FD, (int)fd);
}

/* Whether @text begins with letters and a ':': a URI or a mistake, no path. */
static bool has_scheme(const char *text)
{
	size_t n = 0;

	while (isalnum((unsigned char)text[n]) || (n && strchr("+.-", text[n]) &&
						   text[n]))
		n++;
	return n > 1 && text[n] == ':';
}

static int parse_kind(struct where *where)
{
	static const struct {
		const char *prefix;
		enum where_kind kind;
		bool unix_socket;
	} nbd[] = {
		{ "nbd+unix://", WHERE_NBD_UNIX, true },
		{ "nbds+unix://", WHERE_NBD_TLS, true },
		{ "nbd://", WHERE_NBD_TCP, false },
		{ "nbds://", WHERE_NBD_TLS, false },
	};
	const char *text = where->text;
	struct stat st;

	if (strcmp(text, "-") == 0)
		return parse_descriptor(where, WHERE_STDIO, STDIN_FILENO);
	if (strncmp(text, "fd:", 3) == 0)
		return parse_fd(where, text + 3);
	for (size_t i = 0; i < sizeof(nbd) / sizeof(*nbd); i++) {
		if (strncmp(text, nbd[i].prefix, strlen(nbd[i].prefix)) == 0) {
			where->kind = nbd[i].kind;
			return parse_nbd(where, text + strlen(nbd[i].prefix),
					 nbd[i].unix_socket);
		}
	}
	if (is_kernel_device(text))
		return refuse_kernel_device(text);
	if (strncmp(text, "uffd:", 5) == 0) {
		log_error("%s: userfaultfd is not in this build: mount it on a file (DIR/NAME) and map that",
			  text);
		return -EINVAL;
	}
	if (has_scheme(text)) {
		log_error("%s: not a WHERE: it is a path, nbd+unix:///EXPORT?socket=PATH, nbd://ADDRESS[:PORT]/EXPORT, fd:N or - (a file of this name: ./%s)",
			  text, text);
		return -EINVAL;
	}
	if (strchr(text, '/') || lstat(text, &st) == 0 || errno == ENOTCONN)
		return parse_path(where);
	log_error("%s: no such file; to make one here write ./%s", text, text);
	return -EINVAL;
}

int where_parse(const char *text, struct where *where)
{
	int error = -ENOMEM;

	memset(where, 0, sizeof(*where));
	where->fd = -1;
	if (!*text) {
		log_error("WHERE is empty: it is a path, nbd+unix:///EXPORT?socket=PATH, nbd://ADDRESS[:PORT]/EXPORT, fd:N or -");
		return -EINVAL;
	}
	where->text = strdup(text);
	if (where->text)
		error = parse_kind(where);
	if (!error && !(utf8_is_text(text, strlen(text)) &&
			utf8_is_text(where->canonical, strlen(where->canonical)))) {
		log_error("%s: its name is not UTF-8, and status could not tell of it: give another one",
			  where->canonical);
		error = -EINVAL;
	}
	if (error == -ENOMEM)
		log_error("%s: out of memory", text);
	if (error)
		where_free(where);
	return error;
}

void where_free(struct where *where)
{
	free(where->text);
	free(where->canonical);
	free(where->path);
	free(where->address);
	free(where->export_name);
	memset(where, 0, sizeof(*where));
	where->fd = -1;
}

int where_set_port(struct where *where, uint16_t port)
{
	char *text;
	int error;

	if (!where->address || where->port == port)
		return 0;
	where->port = port;
	error = set_canonical(where);
	if (error)
		return error;
	text = strdup(where->canonical);
	if (!text)
		return -ENOMEM;
	free(where->text);
	where->text = text;
	return 0;
}

bool where_same_address(const struct where *a, const struct where *b)
{
	if (a->kind != b->kind || a->kind == WHERE_FUSE || a->fd >= 0 || b->fd >= 0)
		return false;
	if (a->path || b->path)
		return a->path && b->path && strcmp(a->path, b->path) == 0;
	return a->port && a->port == b->port && strcmp(a->address, b->address) == 0;
}

char *where_control_path(const struct where *where)
{
	const char *dir = runtime_dir();
	unsigned char digest[EVP_MAX_MD_SIZE];
	char name[2 * HASH_BYTES + 1];
	char *path;

	if (!dir)
		return NULL;
	if (EVP_Digest(where->canonical, strlen(where->canonical), digest, NULL,
		       EVP_sha256(), NULL) != 1) {
		log_error("SHA-256 is not to be had from OpenSSL");
		return NULL;
	}
	for (size_t i = 0; i < HASH_BYTES; i++)
		snprintf(name + 2 * i, 3, "%02x", digest[i]);
	if (asprintf(&path, "%s/%s", dir, name) < 0)
		return NULL;
	return path;
}
