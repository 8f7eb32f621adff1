/* sign.c: AWS Signature Version 4.
 *
 * The request in its canonical form is hashed as it is walked; date, scope and that
 * hash are signed with a key that is made of the secret, the day, the region and
 * the service, and kept until one of them changes.
 */
#include <ctype.h>
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>

#include "backends/s3/sign.h"

#define HASH_BYTES	32
#define SCOPE_MAX	160	/* DAY/REGION/SERVICE/aws4_request */
#define ALGORITHM	"AWS4-HMAC-SHA256"

struct s3_signing_key {
	pthread_mutex_t lock;		/* guards all below */
	char scope[SCOPE_MAX];		/* that it was made for; empty: none yet */
	char secret[S3_SECRET_MAX];
	unsigned char key[HASH_BYTES];
};

struct moment {
	char time[17];			/* 20130524T000000Z */
	char scope[SCOPE_MAX];
};

/* ---- hashes --------------------------------------------------------------- */

static void to_hex(const unsigned char *bytes, char hex[S3_HASH_SIZE])
{
	static const char digits[] = "0123456789abcdef";

	for (int i = 0; i < HASH_BYTES; i++) {
		hex[2 * i] = digits[bytes[i] >> 4];
		hex[2 * i + 1] = digits[bytes[i] & 15];
	}
	hex[2 * HASH_BYTES] = 0;
}

/* Frees @hash; *hex is empty when there was no memory for it. */
static void hash_end(EVP_MD_CTX *hash, char hex[S3_HASH_SIZE])
{
	unsigned char bytes[HASH_BYTES];

	hex[0] = 0;
	if (hash && EVP_DigestFinal_ex(hash, bytes, NULL))
		to_hex(bytes, hex);
	EVP_MD_CTX_free(hash);
}

static EVP_MD_CTX *hash_begin(void)
{
	EVP_MD_CTX *hash = EVP_MD_CTX_new();

	if (hash && !EVP_DigestInit_ex(hash, EVP_sha256(), NULL)) {
		EVP_MD_CTX_free(hash);
		hash = NULL;
	}
	return hash;
}

static void hash_text(EVP_MD_CTX *hash, const char *text)
{
	EVP_DigestUpdate(hash, text, strlen(text));
}

void s3_payload_hash(const struct iovec *iov, unsigned int nr_iov,
		     char hex[S3_HASH_SIZE])
{
	EVP_MD_CTX *hash = hash_begin();
	unsigned int i;

	for (i = 0; hash && i < nr_iov; i++)
		EVP_DigestUpdate(hash, iov[i].iov_base, iov[i].iov_len);
	hash_end(hash, hex);
}

static int hmac(const void *key, size_t key_count, const char *text,
		unsigned char mac[HASH_BYTES])
{
	return HMAC(EVP_sha256(), key, (int)key_count, (const unsigned char *)text,
		    strlen(text), mac, NULL) ? 0 : -ENOMEM;
}

/* ---- the signing key ------------------------------------------------------ */

struct s3_signing_key *s3_signing_key_new(void)
{
	struct s3_signing_key *key = calloc(1, sizeof(*key));

	if (key)
		pthread_mutex_init(&key->lock, NULL);
	return key;
}

void s3_signing_key_free(struct s3_signing_key *key)
{
	if (!key)
		return;
	pthread_mutex_destroy(&key->lock);
	OPENSSL_cleanse(key, sizeof(*key));
	free(key);
}

static int key_make(const char *secret, const char *scope,
		    unsigned char mac[HASH_BYTES])
{
	char start[4 + S3_SECRET_MAX], parts[SCOPE_MAX], *rest = parts, *part;
	int error;

	snprintf(start, sizeof(start), "AWS4%s", secret);
	strcpy(parts, scope);
	part = strsep(&rest, "/");
	error = hmac(start, strlen(start), part, mac);
	while (!error && (part = strsep(&rest, "/")))
		error = hmac(mac, HASH_BYTES, part, mac);
	OPENSSL_cleanse(start, sizeof(start));
	return error;
}

static int key_get(struct s3_signing_key *key, const char *secret,
		   const char *scope, unsigned char bytes[HASH_BYTES])
{
	int error = 0;

	pthread_mutex_lock(&key->lock);
	if (strcmp(key->scope, scope) != 0 || strcmp(key->secret, secret) != 0) {
		error = key_make(secret, scope, key->key);
		strcpy(key->scope, error ? "" : scope);
		strcpy(key->secret, secret);
	}
	memcpy(bytes, key->key, HASH_BYTES);
	pthread_mutex_unlock(&key->lock);
	return error;
}

static int moment_of(const struct s3_scope *scope, struct moment *moment)
{
	time_t now = (time_t)scope->now;
	struct tm tm;
	size_t length;

	if (!gmtime_r(&now, &tm) ||
	    !strftime(moment->time, sizeof(moment->time), "%Y%m%dT%H%M%SZ", &tm))
		return -EINVAL;
	length = (size_t)snprintf(moment->scope, sizeof(moment->scope),
				  "%.8s/%s/%s/aws4_request", moment->time,
				  scope->region, scope->service);
	return length < sizeof(moment->scope) ? 0 : -EINVAL;
}

static int signature_make(struct s3_signing_key *key, const struct s3_keys *keys,
			  const struct moment *moment, const char *canonical_hash,
			  char signature[S3_HASH_SIZE])
{
	unsigned char bytes[HASH_BYTES];
	char text[sizeof(ALGORITHM) + sizeof(*moment) + S3_HASH_SIZE + 3];
	int error;

	if (!canonical_hash[0])
		return -ENOMEM;
	snprintf(text, sizeof(text), ALGORITHM "\n%s\n%s\n%s", moment->time,
		 moment->scope, canonical_hash);
	error = key_get(key, keys->secret, moment->scope, bytes);
	if (!error)
		error = hmac(bytes, sizeof(bytes), text, bytes);
	to_hex(bytes, signature);
	OPENSSL_cleanse(bytes, sizeof(bytes));
	return error;
}

/* ---- the canonical query -------------------------------------------------- */

static bool is_plain(unsigned char c)
{
	return (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') ||
	       (c >= '0' && c <= '9') || c == '-' || c == '.' || c == '_' || c == '~';
}

static size_t encode_byte(unsigned char c, char *to)
{
	static const char digits[] = "0123456789ABCDEF";

	if (is_plain(c)) {
		to[0] = (char)c;
		return 1;
	}
	to[0] = '%';
	to[1] = digits[c >> 4];
	to[2] = digits[c & 15];
	return 3;
}

int s3_encode(const char *text, bool path, char *to, size_t room)
{
	size_t length = 0, count;
	char code[3];

	for (; *text; text++) {
		count = 1;
		code[0] = '/';
		if (!path || *text != '/')
			count = encode_byte((unsigned char)*text, code);
		if (length + count >= room)
			return -E2BIG;
		memcpy(to + length, code, count);
		length += count;
	}
	if (!room)
		return -E2BIG;
	to[length] = 0;
	return (int)length;
}

static int hex_digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	c = (char)(c | 0x20);
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* Servers decode a query and encode it again before they sign it; so what was
 * encoded otherwise (or not at all) is signed as they will.  At most three bytes
 * for one. */
static char *recode(const char *from, size_t count, char *to)
{
	unsigned char c;
	size_t i;

	for (i = 0; i < count; i++) {
		c = (unsigned char)from[i];
		if (c == '+') {
			c = ' ';
		} else if (c == '%' && count - i > 2 && hex_digit(from[i + 1]) >= 0 &&
			   hex_digit(from[i + 2]) >= 0) {
			c = (unsigned char)(hex_digit(from[i + 1]) << 4 |
					    hex_digit(from[i + 2]));
			i += 2;
		}
		to += encode_byte(c, to);
	}
	*to++ = 0;
	return to;
}

struct parameter { char *name, *value; };

static int compare_parameters(const void *a, const void *b)
{
	const struct parameter *x = a, *y = b;
	int order = strcmp(x->name, y->name);

	return order ? order : strcmp(x->value, y->value);
}

static int hash_query(EVP_MD_CTX *hash, const char *query)
{
	size_t length = strlen(query), most = length + 2, nr = 0, i, count, name;
	struct parameter *all = calloc(most, sizeof(*all));
	char *text = malloc(3 * length + 2 * most);
	char *at = text;
	int error = -ENOMEM;

	if (!all || !text)
		goto out;
	for (; *query; query += count + (query[count] != 0)) {
		count = strcspn(query, "&");
		if (!count)
			continue;
		for (name = 0; name < count && query[name] != '='; )
			name++;
		all[nr].name = at;
		at = recode(query, name, at);
		all[nr++].value = at;
		at = recode(query + name + 1, name < count ? count - name - 1 : 0, at);
	}
	qsort(all, nr, sizeof(*all), compare_parameters);
	for (i = 0; i < nr; i++) {
		hash_text(hash, i ? "&" : "");
		hash_text(hash, all[i].name);
		hash_text(hash, "=");
		hash_text(hash, all[i].value);
	}
	error = 0;
out:
	free(all);
	free(text);
	return error;
}

/* ---- the canonical headers ------------------------------------------------ */

struct header {
	const char *name, *value;
	size_t length;			/* of the name */
};

/* What proxies and HTTP libraries change on the way is not signed. */
static bool is_signed(const char *line)
{
	static const char *const not_signed[] = {
		"accept-encoding:", "authorization:", "connection:", "content-length:",
		"expect:", "host:", "te:", "transfer-encoding:", "user-agent:",
		"x-amzn-trace-id:",
	};
	size_t i;

	for (i = 0; i < sizeof(not_signed) / sizeof(not_signed[0]); i++)
		if (strncasecmp(line, not_signed[i], strlen(not_signed[i])) == 0)
			return false;
	return true;
}

static bool same_name(const struct header *a, const struct header *b)
{
	return a->length == b->length && !strncasecmp(a->name, b->name, a->length);
}

static int compare_headers(const void *a, const void *b)
{
	const struct header *x = a, *y = b;
	size_t shorter = x->length < y->length ? x->length : y->length;
	int order = strncasecmp(x->name, y->name, shorter);

	if (order)
		return order;
	if (x->length != y->length)
		return x->length < y->length ? -1 : 1;
	/* Lines of one name stay in their order, which is that of memory. */
	return x->name < y->name ? -1 : 1;
}

/* The lines that are signed, sorted; malloc'ed, or NULL. */
static struct header *headers_sorted(const char *host,
				     const struct http_headers *headers, size_t *nr)
{
	const char *line = NULL;
	struct header *all;
	size_t most = 1;

	while ((line = http_headers_next(headers, line)))
		most++;
	all = calloc(most, sizeof(*all));
	if (!all)
		return NULL;
	all[0] = (struct header){ "host", host, 4 };
	*nr = 1;
	while ((line = http_headers_next(headers, line))) {
		if (!is_signed(line))
			continue;
		all[*nr].name = line;
		all[*nr].length = strcspn(line, ":");
		all[*nr].value = line + all[*nr].length + 1;
		(*nr)++;
	}
	qsort(all, *nr, sizeof(*all), compare_headers);
	return all;
}

static void hash_lower(EVP_MD_CTX *hash, const struct header *header)
{
	char c;

	for (size_t i = 0; i < header->length; i++) {
		c = (char)tolower((unsigned char)header->name[i]);
		EVP_DigestUpdate(hash, &c, 1);
	}
}

/* Without blanks around it, and one for several inside. */
static void hash_value(EVP_MD_CTX *hash, const char *value)
{
	size_t word;
	bool first = true;

	for (;; value += word, first = false) {
		value += strspn(value, " \t");
		word = strcspn(value, " \t");
		if (!word)
			return;
		if (!first)
			hash_text(hash, " ");
		EVP_DigestUpdate(hash, value, word);
	}
}

static void hash_headers(EVP_MD_CTX *hash, const struct header *all, size_t nr)
{
	size_t i;

	for (i = 0; i < nr; i++) {
		if (i && same_name(&all[i - 1], &all[i])) {
			hash_text(hash, ",");
		} else {
			hash_text(hash, i ? "\n" : "");
			hash_lower(hash, &all[i]);
			hash_text(hash, ":");
		}
		hash_value(hash, all[i].value);
	}
	hash_text(hash, "\n\n");
}

/* "host;x-amz-date"; malloc'ed, or NULL. */
static char *names_of(const struct header *all, size_t nr)
{
	size_t i, j, room = 1;
	char *text, *at;

	for (i = 0; i < nr; i++)
		room += all[i].length + 1;
	text = at = malloc(room);
	if (!text)
		return NULL;
	for (i = 0; i < nr; i++) {
		if (i && same_name(&all[i - 1], &all[i]))
			continue;
		if (i)
			*at++ = ';';
		for (j = 0; j < all[i].length; j++)
			*at++ = (char)tolower((unsigned char)all[i].name[j]);
	}
	*at = 0;
	return text;
}

/* ---- signing -------------------------------------------------------------- */

struct canonical {
	const char *method, *host, *path, *query, *payload_hash;
};

/* The hash of the canonical request, and the names of the headers in it (malloc'ed). */
static int canonical_hash(const struct canonical *request,
			  const struct http_headers *headers,
			  char hex[S3_HASH_SIZE], char **names)
{
	EVP_MD_CTX *hash = hash_begin();
	struct header *all;
	size_t nr = 0;
	int error = -ENOMEM;

	hex[0] = 0;
	*names = NULL;
	all = headers_sorted(request->host, headers, &nr);
	if (all)
		*names = names_of(all, nr);
	if (!hash || !*names)
		goto out;
	hash_text(hash, request->method);
	hash_text(hash, "\n");
	hash_text(hash, request->path);
	hash_text(hash, "\n");
	error = hash_query(hash, request->query);
	hash_text(hash, "\n");
	hash_headers(hash, all, nr);
	hash_text(hash, *names);
	hash_text(hash, "\n");
	hash_text(hash, request->payload_hash);
out:
	free(all);
	if (error)
		EVP_MD_CTX_free(hash);
	else
		hash_end(hash, hex);
	return error;
}

static int add_authorization(struct http_headers *headers, const struct s3_keys *keys,
			     const struct moment *moment, const char *names,
			     const char *signature)
{
	char *value;
	int error;

	if (asprintf(&value, ALGORITHM " Credential=%s/%s, SignedHeaders=%s, "
		     "Signature=%s", keys->id, moment->scope, names, signature) < 0)
		return -ENOMEM;
	error = http_headers_add(headers, "Authorization", value);
	free(value);
	return error;
}

int s3_sign(struct s3_signing_key *key, const struct s3_keys *keys,
	    const struct s3_scope *scope, const char *method, const char *host,
	    const char *path, const char *query, const char *payload_hash,
	    struct http_headers *headers)
{
	const struct canonical request = { method, host, path, query, payload_hash };
	char hash[S3_HASH_SIZE], signature[S3_HASH_SIZE], *names = NULL;
	struct moment moment;
	int error;

	http_headers_remove(headers, "x-amz-date");
	http_headers_remove(headers, "x-amz-content-sha256");
	http_headers_remove(headers, "x-amz-security-token");
	http_headers_remove(headers, "Authorization");
	if (keys->anonymous)
		return 0;
	if (!payload_hash[0])
		return -ENOMEM;
	error = moment_of(scope, &moment);
	if (!error)
		error = http_headers_add(headers, "x-amz-date", moment.time);
	if (!error && strcmp(scope->service, "s3") == 0)
		error = http_headers_add(headers, "x-amz-content-sha256", payload_hash);
	if (!error && keys->token[0])
		error = http_headers_add(headers, "x-amz-security-token", keys->token);
	if (!error)
		error = canonical_hash(&request, headers, hash, &names);
	if (!error)
		error = signature_make(key, keys, &moment, hash, signature);
	if (!error)
		error = add_authorization(headers, keys, &moment, names, signature);
	free(names);
	return error;
}

/* All of a presigned query but the signature; malloc'ed, or NULL. */
static char *presigned_query(const struct s3_keys *keys, const struct moment *moment,
			     const char *query, uint64_t seconds)
{
	char credential[3 * (S3_KEY_ID_MAX + SCOPE_MAX)], id[S3_KEY_ID_MAX + SCOPE_MAX];
	char *token = calloc(3, S3_TOKEN_MAX), *text = NULL;

	snprintf(id, sizeof(id), "%s/%s", keys->id, moment->scope);
	if (token && s3_encode(id, false, credential, sizeof(credential)) > 0 &&
	    s3_encode(keys->token, false, token, 3 * S3_TOKEN_MAX) >= 0 &&
	    asprintf(&text, "%s%sX-Amz-Algorithm=" ALGORITHM "&X-Amz-Credential=%s"
		     "&X-Amz-Date=%s&X-Amz-Expires=%llu%s%s&X-Amz-SignedHeaders=host",
		     query, query[0] ? "&" : "", credential, moment->time,
		     (unsigned long long)seconds, token[0] ? "&X-Amz-Security-Token=" : "",
		     token) < 0)
		text = NULL;
	free(token);
	return text;
}

char *s3_presign(struct s3_signing_key *key, const struct s3_keys *keys,
		 const struct s3_scope *scope, const char *method,
		 const char *host, const char *path, const char *query,
		 uint64_t seconds)
{
	struct canonical request = { method, host, path, NULL, S3_UNSIGNED_PAYLOAD };
	const struct http_headers no_headers = { 0 };
	char hash[S3_HASH_SIZE], signature[S3_HASH_SIZE];
	char *unsigned_query, *names = NULL, *text = NULL;
	struct moment moment;

	if (moment_of(scope, &moment))
		return NULL;
	unsigned_query = presigned_query(keys, &moment, query, seconds);
	request.query = unsigned_query;
	if (!unsigned_query || canonical_hash(&request, &no_headers, hash, &names) ||
	    signature_make(key, keys, &moment, hash, signature) ||
	    asprintf(&text, "%s&X-Amz-Signature=%s", unsigned_query, signature) < 0)
		text = NULL;
	free(names);
	free(unsigned_query);
	return text;
}
