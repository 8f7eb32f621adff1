/* lab.c: requests by which `objmap doctor` tries a server, and how it tells. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "src/clock.h"
#include "src/cmd/lab.h"
#include "src/random.h"
#include "src/volume/format.h"

#define TEXT_MAX (4u << 20)	/* of a reply */

/* ---- one request --------------------------------------------------------------- */

const char *lab_key(struct lab *lab)
{
	char name[VOLUME_KEY_MAX], *key;

	key_probe(name, random_id());
	if (lab->nr_keys == LAB_KEYS_MAX ||
	    asprintf(&key, "%s/%s", lab->prefix, name) < 0)
		return NULL;
	lab->keys[lab->nr_keys++] = key;
	return key;
}

int lab_fill(struct lab *lab, struct s3_call *call, const char *method,
	      const char *key, const char *query, const struct header *headers)
{
	uint64_t now = clock_now();
	int error = 0;

	*call = (struct s3_call){
		.method = method, .key = key, .query = query,
		.writes_object = strcmp(method, "PUT") == 0,
		.deadline = lab->patience > UINT64_MAX - now ? UINT64_MAX :
			    now + lab->patience,
	};
	for (; headers->name && !error; headers++)
		error = http_headers_add(&call->headers, headers->name, headers->value);
	return error;
}

enum store_outcome lab_send(struct lab *lab, struct s3_call *call)
{
	const char *tag;

	s3_wait_retrying(lab->client, call, call->deadline, lab->stop);
	lab->why[0] = 0;
	if (call->outcome != STORE_DONE) {
		snprintf(lab->why, sizeof(lab->why), "%s",
			 call->outcome == STORE_REFUSED ? "refused" : call->message);
		return call->outcome;
	}
	tag = http_headers_find(&call->http.reply, "ETag");
	if (tag)
		snprintf(lab->tag, sizeof(lab->tag), "%s", tag);
	return STORE_DONE;
}

enum store_outcome lab_put(struct lab *lab, const char *key, const void *data,
			   size_t count, const struct header *headers)
{
	struct iovec iov = { (void *)(uintptr_t)data, count };
	enum store_outcome outcome = STORE_FAILED;
	struct s3_call call;

	if (key && lab_fill(lab, &call, "PUT", key, NULL, headers) == 0) {
		call.body = &iov;
		call.nr_body = 1;
		call.body_count = count;
		outcome = lab_send(lab, &call);
		s3_call_free(&call);
	}
	return outcome;
}

enum store_outcome lab_get(struct lab *lab, const char *key, const char *query,
			   const struct header *headers, reply_check *check)
{
	enum store_outcome outcome = STORE_FAILED;
	const char *wrong = NULL;
	struct s3_call call;

	if ((key || query) && lab_fill(lab, &call, "GET", key, query, headers) == 0) {
		call.text_max = TEXT_MAX;
		outcome = lab_send(lab, &call);
		if (outcome == STORE_DONE && check)
			wrong = check(&call);
		s3_call_free(&call);
	}
	if (!wrong)
		return outcome;
	snprintf(lab->why, sizeof(lab->why), "%s", wrong);
	return STORE_FAILED;
}

enum store_outcome lab_post(struct lab *lab, const char *key, const char *query,
			    char *body, size_t count,
			    const struct header *headers, struct s3_call *call)
{
	struct iovec iov = { body, count };

	if (lab_fill(lab, call, "POST", key, query, headers) != 0)
		return STORE_FAILED;
	call->body = &iov;
	call->nr_body = 1;
	call->body_count = count;
	call->needs_md5 = strcmp(query, "delete") == 0;
	call->writes_object = strcmp(query, "uploads") == 0;
	return lab_send(lab, call);
}

/* ---- what is told ------------------------------------------------------------------ */

bool lab_must(struct lab *lab, const char *name, bool ok, const char *good,
	  const char *remedy)
{
	note(lab->findings, name, ok, remedy, "%s", ok ? good : lab->why[0] ? lab->why :
	     "no answer");
	lab->findings->place_failed |= !ok;
	return ok;
}

bool lab_must_refuse(struct lab *lab, const char *name, enum store_outcome outcome,
		 const char *good)
{
	if (outcome == STORE_DONE)
		snprintf(lab->why, sizeof(lab->why),
			 "the server let it through: two writers could not be told apart");
	return lab_must(lab, name, outcome == STORE_REFUSED, good,
		    "use another server or a newer release; or --exclusive, where nobody else ever writes");
}

void lab_want(struct lab *lab, const char *name, bool ok, const char *good,
	  const char *remedy)
{
	note(lab->findings, name, ok, remedy, "%s", ok ? good : lab->why[0] ? lab->why :
	     "no answer");
}

enum store_outcome lab_delete(struct lab *lab, const char *key)
{
	struct s3_call call;
	enum store_outcome outcome = STORE_FAILED;

	if (lab_fill(lab, &call, "DELETE", key, NULL, NO_HEADERS) == 0) {
		outcome = lab_send(lab, &call);
		s3_call_free(&call);
	}
	return outcome;
}
