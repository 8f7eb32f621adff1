/* sign-request.c: signs what it is told, for minio-test/test_sign.py.
 *
 * A line of JSON asks, {"method", "host", "path", "query", "time", "headers": [[NAME,
 * VALUE], ...], "body" or "unsigned": true, or "presign": SECONDS}, and one answers:
 * {"path", "headers"} or {"path", "query"}.  "key" instead of "path" is encoded first;
 * "encode" of the query likewise: [[NAME, VALUE], ...].  Keys come from the
 * environment. */
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backends/s3/sign.h"

static const char *text_of(const json_t *ask, const char *name, const char *without)
{
	const char *value = json_string_value(json_object_get(ask, name));

	return value ? value : without;
}

static void must(bool good, const char *what)
{
	if (good)
		return;
	fprintf(stderr, "sign-request: %s\n", what);
	exit(1);
}

static void path_of(const json_t *ask, char *path, size_t room)
{
	const char *key = text_of(ask, "key", NULL);

	if (key)
		must(s3_encode(key, true, path, room) > 0, "key");
	else
		snprintf(path, room, "%s", text_of(ask, "path", "/"));
}

static void query_of(const json_t *ask, char *query, size_t room)
{
	json_t *pair;
	size_t i, used = 0;

	snprintf(query, room, "%s", text_of(ask, "query", ""));
	json_array_foreach(json_object_get(ask, "encode"), i, pair) {
		used += (size_t)snprintf(query + used, room - used, i ? "&" : "");
		used += (size_t)s3_encode(json_string_value(json_array_get(pair, 0)), false,
					  query + used, room - used);
		used += (size_t)snprintf(query + used, room - used, "=");
		used += (size_t)s3_encode(json_string_value(json_array_get(pair, 1)), false,
					  query + used, room - used);
	}
}

static void keys_of(struct s3_keys *keys)
{
	const char *token = getenv("AWS_SESSION_TOKEN");

	memset(keys, 0, sizeof(*keys));
	snprintf(keys->id, sizeof(keys->id), "%s", getenv("AWS_ACCESS_KEY_ID"));
	snprintf(keys->secret, sizeof(keys->secret), "%s", getenv("AWS_SECRET_ACCESS_KEY"));
	snprintf(keys->token, sizeof(keys->token), "%s", token ? token : "");
}

static json_t *lines_of(const struct http_headers *headers)
{
	json_t *list = json_array();
	const char *line = NULL, *colon;

	while ((line = http_headers_next(headers, line))) {
		colon = strchr(line, ':');
		json_array_append_new(list, json_pack("[s%s]", line, (size_t)(colon - line),
						      colon + 2));
	}
	return list;
}

static json_t *answer(struct s3_signing_key *key, const json_t *ask)
{
	const char *body = text_of(ask, "body", ""), *method = text_of(ask, "method", "GET");
	struct iovec iov = { (void *)(uintptr_t)body, strlen(body) };
	struct s3_scope scope = {
		text_of(ask, "region", "us-east-1"), text_of(ask, "service", "s3"),
		(uint64_t)json_integer_value(json_object_get(ask, "time")),
	};
	int presign = (int)json_integer_value(json_object_get(ask, "presign"));
	char path[4096], query[8192], hash[S3_HASH_SIZE], *presigned;
	struct http_headers headers = { 0 };
	struct s3_keys keys;
	json_t *reply, *pair;
	size_t i;

	keys_of(&keys);
	path_of(ask, path, sizeof(path));
	query_of(ask, query, sizeof(query));
	if (presign) {
		presigned = s3_presign(key, &keys, &scope, method, text_of(ask, "host", ""),
				       path, query, (uint64_t)presign);
		must(presigned, "presign");
		reply = json_pack("{ssss}", "path", path, "query", presigned);
		free(presigned);
		return reply;
	}
	json_array_foreach(json_object_get(ask, "headers"), i, pair)
		must(!http_headers_add(&headers, json_string_value(json_array_get(pair, 0)),
				       json_string_value(json_array_get(pair, 1))),
		     "headers");
	s3_payload_hash(&iov, 1, hash);
	if (json_is_true(json_object_get(ask, "unsigned")))
		strcpy(hash, S3_UNSIGNED_PAYLOAD);
	must(!s3_sign(key, &keys, &scope, method, text_of(ask, "host", ""), path, query,
		      hash, &headers), "sign");
	reply = json_pack("{ssssso}", "path", path, "query", query, "headers",
			  lines_of(&headers));
	http_headers_free(&headers);
	return reply;
}

int main(void)
{
	struct s3_signing_key *key = s3_signing_key_new();
	char line[65536];
	json_t *ask, *reply;

	while (fgets(line, sizeof(line), stdin)) {
		ask = json_loads(line, 0, NULL);
		must(ask, "no JSON");
		reply = answer(key, ask);
		json_dumpf(reply, stdout, JSON_COMPACT);
		putchar('\n');
		fflush(stdout);
		json_decref(reply);
		json_decref(ask);
	}
	s3_signing_key_free(key);
	return 0;
}
