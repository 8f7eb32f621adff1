/* place_nbd.c: reads the place of a remote NBD export. */
#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/un.h>
#include <unistd.h>

#include "src/log.h"
#include "src/place_nbd.h"
#include "src/where.h"

#define NAME_MAX_NBD 4096	/* the protocol: bytes of an export's name */

bool place_is_nbd(const struct place *place)
{
	return strncmp(place->scheme, "nbd", 3) == 0;
}

void nbd_place_free(struct nbd_place *nbd)
{
	free(nbd->user);
	free(nbd->host);
	free(nbd->port);
	free(nbd->socket);
	free(nbd->export_name);
	free(nbd->certificates);
	free(nbd->psk_file);
	memset(nbd, 0, sizeof(*nbd));
}

/* A daemon leaves its working directory, and connects again from elsewhere. */
static int absolute(const char *path, char **result)
{
	char *here;
	int n;

	if (*path == '/') {
		*result = strdup(path);
		return *result ? 0 : -ENOMEM;
	}
	here = getcwd(NULL, 0);
	if (!here)
		return -errno;
	n = asprintf(result, "%s/%s", strcmp(here, "/") == 0 ? "" : here, path);
	free(here);
	if (n < 0)
		*result = NULL;
	return n < 0 ? -ENOMEM : 0;
}

static int read_port(const struct place *place, const char *text, char **port)
{
	unsigned long number = NBD_PORT;
	char *end;

	if (text) {
		number = strtoul(text, &end, 10);
		if (!isdigit((unsigned char)*text) || *end || number < 1 ||
		    number > 65535) {
			log_error("%s: a port is a number from 1 to 65535, not '%s'",
				  place->text, text);
			return -EINVAL;
		}
	}
	return asprintf(port, "%lu", number) < 0 ? -ENOMEM : 0;
}

/* HOST[:PORT], [IPV6][:PORT], or nothing: this machine, as of a WHERE. */
static int read_host(const struct place *place, char *text, struct nbd_place *nbd)
{
	char *colon, *end;

	if (*text == '[') {
		end = strchr(text++, ']');
		if (!end || (end[1] && end[1] != ':'))
			goto bad;
		colon = end[1] ? end + 1 : NULL;
		*end = 0;
	} else {
		colon = strchr(text, ':');
		if (colon && strchr(colon + 1, ':'))
			goto bad;	/* IPv6 without brackets */
	}
	if (colon)
		*colon++ = 0;
	nbd->host = strdup(*text ? text : "127.0.0.1");
	return nbd->host ? read_port(place, colon, &nbd->port) : -ENOMEM;
bad:
	log_error("%s: write it as %s://HOST[:PORT]/EXPORT, an IPv6 address in []",
		  place->text, place->scheme);
	return -EINVAL;
}

static int read_socket(const struct place *place, struct nbd_place *nbd)
{
	const char *path = place_param(place, "socket");
	size_t longest = sizeof(((struct sockaddr_un *)0)->sun_path) - 1;
	int error;

	if (!path || !*path) {
		log_error("%s: write it as %s:///EXPORT?socket=PATH", place->text,
			  place->scheme);
		return -EINVAL;
	}
	error = absolute(path, &nbd->socket);
	if (!error && strlen(nbd->socket) > longest) {
		log_error("%s: the path of a socket ends at %zu bytes, this one has %zu",
			  nbd->socket, longest, strlen(nbd->socket));
		return -EINVAL;
	}
	return error;
}

/* @authority: [USER@][HOST[:PORT]] */
static int read_authority(const struct place *place, char *authority,
			  struct nbd_place *nbd)
{
	char *at = strrchr(authority, '@');

	if (at) {
		*at = 0;
		nbd->user = strdup(authority);
		if (!nbd->user)
			return -ENOMEM;
		authority = at + 1;
		if (!nbd->tls || !*nbd->user) {
			log_error("%s: a user is named for pre-shared keys: nbds://USER@HOST/EXPORT?tls-psk-file=FILE",
				  place->text);
			return -EINVAL;
		}
	}
	if (strstr(place->scheme, "+unix")) {
		if (!*authority)
			return read_socket(place, nbd);
		log_error("%s: write it as %s:///EXPORT?socket=PATH, with three slashes",
			  place->text, place->scheme);
		return -EINVAL;
	}
	if (place_param(place, "socket")) {
		log_error("%s: a socket has no host: write %s+unix:///EXPORT?socket=PATH",
			  place->text, place->scheme);
		return -EINVAL;
	}
	return read_host(place, authority, nbd);
}

static int read_connections(const struct place *place, struct nbd_place *nbd)
{
	const char *text = place_param(place, "connections");
	unsigned long number = NBD_CONNECTIONS_DEFAULT;
	char *end;

	if (text) {
		number = strtoul(text, &end, 10);
		if (!isdigit((unsigned char)*text) || *end || number < 1 ||
		    number > NBD_CONNECTIONS_MAX) {
			log_error("%s: connections is a number from 1 to %d, not '%s'",
				  place->text, NBD_CONNECTIONS_MAX, text);
			return -EINVAL;
		}
	}
	nbd->connections = (unsigned int)number;
	return 0;
}

static int read_verify(const struct place *place, struct nbd_place *nbd)
{
	const char *text = place_param(place, "tls-verify-peer");

	nbd->verify_peer = !text || strcmp(text, "yes") == 0;
	if (!nbd->verify_peer && strcmp(text, "no") != 0) {
		log_error("%s: tls-verify-peer is yes or no, not '%s'", place->text,
			  text);
		return -EINVAL;
	}
	/* libnbd 1.14 has no name to check a certificate against there, and
	 * then checks nothing. */
	if (nbd->tls && nbd->socket && nbd->verify_peer && !nbd->psk_file) {
		log_error("%s: a certificate names a host, and a socket has none: use tls-psk-file=FILE, or tls-verify-peer=no, which encrypts but believes any server",
			  place->text);
		return -EINVAL;
	}
	return 0;
}

static int read_keys(const struct place *place, struct nbd_place *nbd)
{
	static const char *const names[] = { "tls-certificates", "tls-psk-file",
					     "tls-verify-peer" };
	const char *certificates = place_param(place, "tls-certificates");
	const char *psk_file = place_param(place, "tls-psk-file");
	int error = 0;

	for (unsigned int i = 0; !nbd->tls && i < 3; i++)
		if (place_param(place, names[i])) {
			log_error("%s: %s is for TLS: write nbds%s", place->text,
				  names[i], place->text + 3);
			return -EINVAL;
		}
	if (certificates && psk_file) {
		log_error("%s: either tls-certificates or tls-psk-file, not both",
			  place->text);
		return -EINVAL;
	}
	if (nbd->user && !psk_file) {
		log_error("%s: a user is named for pre-shared keys: add tls-psk-file=FILE",
			  place->text);
		return -EINVAL;
	}
	if (certificates)
		error = absolute(certificates, &nbd->certificates);
	if (!error && psk_file)
		error = absolute(psk_file, &nbd->psk_file);
	return error ? error : read_verify(place, nbd);
}

int nbd_place_parse(const struct place *place, struct nbd_place *nbd)
{
	char *text = NULL, *slash;
	int error = -ENOMEM;

	memset(nbd, 0, sizeof(*nbd));
	nbd->tls = place->scheme[3] == 's';
	if (strncmp(place->path, "//", 2) != 0) {
		log_error("%s: write it as %s%s", place->text, place->scheme,
			  strstr(place->scheme, "+unix") ? ":///EXPORT?socket=PATH"
							 : "://HOST[:PORT]/EXPORT");
		return -EINVAL;
	}
	text = strdup(place->path + 2);
	if (!text)
		return -ENOMEM;
	slash = strchr(text, '/');
	nbd->export_name = strdup(slash ? slash + 1 : "");
	if (slash)
		*slash = 0;
	if (nbd->export_name)
		error = read_authority(place, text, nbd);
	if (!error && strlen(nbd->export_name) > NAME_MAX_NBD) {
		log_error("%s: the export's name is too long", place->text);
		error = -EINVAL;
	}
	if (!error)
		error = read_keys(place, nbd);
	if (!error)
		error = read_connections(place, nbd);
	free(text);
	if (error)
		nbd_place_free(nbd);
	return error;
}
