/* tls.c: certificates and pre-shared keys, loaded once for the server.
 *
 * The names of the files are QEMU's and libnbd's: a folder with ca-cert.pem,
 * server-cert.pem and server-key.pem; keys are lines USER:HEX, as GnuTLS's
 * psktool writes them. */
#include <errno.h>
#include <openssl/crypto.h>
#include <openssl/err.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "src/frontend/nbd/server.h"
#include "src/log.h"

#define PSK_LINE_MAX 1024
/* TLS 1.3 in OpenSSL takes keys up to this. */
#define PSK_KEY_MAX 256

struct psk {
	struct psk *next;
	size_t count;
	uint8_t key[PSK_KEY_MAX];
	char user[];
};

static int server_index = -1;	/* of the server in an SSL_CTX */

/* Why OpenSSL refused, without any secret in it. */
static void log_openssl(const char *what, const char *path)
{
	unsigned long first = ERR_peek_error();
	const char *reason = ERR_reason_error_string(ERR_peek_last_error());

	/* A file that cannot be opened: the last words are just "system lib". */
	if (ERR_SYSTEM_ERROR(first))
		reason = strerror((int)ERR_GET_REASON(first));
	log_error("%s: %s: %s", path, what, reason ? reason : "unknown reason");
	ERR_clear_error();
}

/* ---- pre-shared keys --------------------------------------------------------------- */

static int hex_digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

static int psk_key_parse(const char *hex, struct psk *psk)
{
	size_t count = strlen(hex), i;

	if (count == 0 || count % 2 || count / 2 > PSK_KEY_MAX)
		return -EINVAL;
	for (i = 0; i < count; i += 2) {
		int high = hex_digit(hex[i]), low = hex_digit(hex[i + 1]);

		if (high < 0 || low < 0)
			return -EINVAL;
		psk->key[i / 2] = (uint8_t)(high << 4 | low);
	}
	psk->count = count / 2;
	return 0;
}

static int psk_line(struct nbd_server *server, char *line)
{
	char *colon;
	struct psk *psk;
	int error;

	line[strcspn(line, "\r\n")] = 0;
	if (line[0] == 0 || line[0] == '#')
		return 0;
	colon = strrchr(line, ':');
	if (!colon || colon == line)
		return -EINVAL;
	*colon = 0;
	psk = calloc(1, sizeof(*psk) + strlen(line) + 1);
	if (!psk)
		return -ENOMEM;
	strcpy(psk->user, line);
	error = psk_key_parse(colon + 1, psk);
	psk->next = server->psk;
	server->psk = psk;
	return error;
}

static int psk_load(struct nbd_server *server, const char *path)
{
	char line[PSK_LINE_MAX];
	unsigned int number = 0;
	struct stat st;
	FILE *file = fopen(path, "re");
	int error = 0;

	if (!file || fstat(fileno(file), &st) < 0) {
		error = -errno;
		log_error("%s: cannot read pre-shared keys: %s", path, strerror(errno));
		goto out;
	}
	if (st.st_mode & (S_IRWXG | S_IRWXO)) {
		log_error("%s holds keys and others may use it: chmod 600 it", path);
		error = -EPERM;
		goto out;
	}
	while (!error && fgets(line, sizeof(line), file)) {
		number++;
		error = psk_line(server, line);
	}
	if (!error && ferror(file))
		error = -EIO;
	if (!error && !server->psk) {
		log_error("%s holds no key; psktool writes one", path);
		error = -EBADMSG;
	} else if (error) {
		log_error("%s line %u: expected USER:HEX, as psktool writes it", path,
			  number);
		error = -EBADMSG;
	}
out:
	OPENSSL_cleanse(line, sizeof(line));
	if (file)
		fclose(file);
	return error;
}

/* Serves TLS 1.2 and 1.3 alike: OpenSSL asks here for both. */
static unsigned int psk_ask(SSL *ssl, const char *user, unsigned char *key,
			    unsigned int room)
{
	struct nbd_server *server = SSL_CTX_get_ex_data(SSL_get_SSL_CTX(ssl),
							server_index);
	const struct psk *psk;

	for (psk = server->psk; user && psk; psk = psk->next)
		if (strcmp(psk->user, user) == 0 && psk->count <= room) {
			memcpy(key, psk->key, psk->count);
			return (unsigned int)psk->count;
		}
	return 0;
}

/* ---- certificates ---------------------------------------------------------------------- */

/* An encrypted key must be an error, not a question on somebody's terminal. */
static int no_passphrase(char *buffer, int size, int writing, void *context)
{
	return -1;
}

static int file_in(const char *folder, const char *name, char *path, size_t room)
{
	if ((size_t)snprintf(path, room, "%s/%s", folder, name) >= room)
		return -ENAMETOOLONG;
	return 0;
}

static int certificates_load(struct nbd_server *server, const char *folder)
{
	SSL_CTX *tls = server->tls;
	bool verify = server->options.tls_verify_peer;
	char ca[4096], certificate[4096], key[4096];

	if (file_in(folder, "ca-cert.pem", ca, sizeof(ca)) ||
	    file_in(folder, "server-cert.pem", certificate, sizeof(certificate)) ||
	    file_in(folder, "server-key.pem", key, sizeof(key)))
		return -ENAMETOOLONG;
	SSL_CTX_set_default_passwd_cb(tls, no_passphrase);
	if (SSL_CTX_use_certificate_chain_file(tls, certificate) != 1) {
		log_openssl("cannot use this certificate", certificate);
		return -EBADMSG;
	}
	if (SSL_CTX_use_PrivateKey_file(tls, key, SSL_FILETYPE_PEM) != 1) {
		log_openssl("cannot use this private key (it must be PEM, without a passphrase, and belong to server-cert.pem)",
			    key);
		return -EBADMSG;
	}
	if (SSL_CTX_check_private_key(tls) != 1) {
		log_openssl("this private key does not belong to server-cert.pem", key);
		return -EBADMSG;
	}
	if (!verify)
		return 0;
	if (SSL_CTX_load_verify_locations(tls, ca, NULL) != 1) {
		log_openssl("cannot use this certificate authority", ca);
		return -EBADMSG;
	}
	SSL_CTX_set_client_CA_list(tls, SSL_load_client_CA_file(ca));
	SSL_CTX_set_verify(tls, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, NULL);
	return 0;
}

/* ---- both --------------------------------------------------------------------------------- */

int nbd_tls_open(struct nbd_server *server)
{
	const struct nbd_options *options = &server->options;
	int error = 0;

	if (options->tls == NBD_TLS_OFF)
		return 0;
	if (!options->tls_certificates && !options->tls_psk) {
		log_error("TLS needs --tls-certificates DIR or --tls-psk FILE");
		return -EINVAL;
	}
	if (options->tls_verify_peer && !options->tls_certificates) {
		log_error("--tls-verify-peer needs --tls-certificates DIR, whose ca-cert.pem signs the clients' certificates");
		return -EINVAL;
	}
	server->tls = SSL_CTX_new(TLS_server_method());
	if (!server->tls)
		return -ENOMEM;
	if (server_index < 0)
		server_index = SSL_CTX_get_ex_new_index(0, NULL, NULL, NULL, NULL);
	SSL_CTX_set_ex_data(server->tls, server_index, server);
	SSL_CTX_set_min_proto_version(server->tls, TLS1_2_VERSION);
	SSL_CTX_set_options(server->tls, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_TICKET |
			    SSL_OP_CIPHER_SERVER_PREFERENCE);
	SSL_CTX_set_num_tickets(server->tls, 0);
	SSL_CTX_set_session_cache_mode(server->tls, SSL_SESS_CACHE_OFF);
	SSL_CTX_set_mode(server->tls, SSL_MODE_ENABLE_PARTIAL_WRITE |
			 SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER |
			 SSL_MODE_RELEASE_BUFFERS);
	if (options->tls_certificates)
		error = certificates_load(server, options->tls_certificates);
	if (!error && options->tls_psk) {
		error = psk_load(server, options->tls_psk);
		SSL_CTX_set_psk_server_callback(server->tls, psk_ask);
	}
	return error;
}

void nbd_tls_close(struct nbd_server *server)
{
	struct psk *psk;

	while ((psk = server->psk)) {
		server->psk = psk->next;
		OPENSSL_cleanse(psk->key, sizeof(psk->key));
		free(psk);
	}
	SSL_CTX_free(server->tls);
	server->tls = NULL;
}
