/* doctor_uploads.c: whether a server can do uploads in parts, as chunks above the
 * threshold and writable s3+object: places want them. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backends/s3/xml.h"
#include "src/cmd/lab.h"

#define SOURCE_BYTES 4096u

/* *stray: one may have begun whose id never came. */
static enum store_outcome upload_begin(struct lab *lab, const char *key,
				       char id[S3_UPLOAD_ID_MAX], bool *stray)
{
	char nothing[1];
	struct s3_call call = { 0 };
	enum store_outcome outcome;

	outcome = lab_post(lab, key, "uploads", nothing, 0, NO_HEADERS, &call);
	*stray = call.http.resent;
	if (outcome == STORE_DONE &&
	    s3_upload_id(call.http.text, call.http.text_count, id) != 0) {
		snprintf(lab->why, sizeof(lab->why), "the answer names no upload");
		outcome = STORE_UNKNOWN;
	}
	*stray |= outcome == STORE_UNKNOWN;
	s3_call_free(&call);
	return outcome;
}

/* The only part of upload @id to @key: a copy of @source. */
static enum store_outcome upload_copy(struct lab *lab, const char *key, const char *id,
				      const char *source, struct s3_part *part)
{
	char escaped[3 * STORE_KEY_MAX + 80], *from = NULL, *query;
	enum store_outcome outcome = STORE_FAILED;
	struct s3_call call = { 0 };

	query = s3_upload_query(id, 1);
	if (query && s3_encode(source, true, escaped, sizeof(escaped)) >= 0 &&
	    asprintf(&from, "/%s/%s", s3_client_bucket(lab->client), escaped) >= 0 &&
	    lab_fill(lab, &call, "PUT", key, query,
		      HEADER("x-amz-copy-source", from)) == 0) {
		call.writes_object = false;
		outcome = lab_send(lab, &call);
		if (outcome == STORE_DONE &&
		    s3_xml_text(call.http.text, call.http.text_count, "CopyPartResult",
				"ETag", part->etag, sizeof(part->etag)) != 0)
			outcome = STORE_FAILED;
	}
	s3_call_free(&call);
	free(from);
	free(query);
	return outcome;
}

static enum store_outcome upload_end(struct lab *lab, const char *key, const char *id,
				     const struct s3_part *part,
				     const struct header *headers)
{
	char *query = s3_upload_query(id, 0), *body = s3_complete_body(part, 1);
	enum store_outcome outcome = STORE_FAILED;
	struct s3_call call = { 0 };

	if (query && body)
		outcome = lab_post(lab, key, query, body, strlen(body), headers, &call);
	s3_call_free(&call);
	free(query);
	free(body);
	return outcome;
}

/* Whether upload @id to @key is gone. */
static bool upload_abort(struct lab *lab, const char *key, const char *id)
{
	char *query = s3_upload_query(id, 0);
	enum store_outcome outcome = STORE_FAILED;
	struct s3_call call = { 0 };

	if (query && lab_fill(lab, &call, "DELETE", key, query, NO_HEADERS) == 0) {
		call.repeatable = true;
		outcome = lab_send(lab, &call);
	}
	s3_call_free(&call);
	free(query);
	return outcome == STORE_DONE || outcome == STORE_ABSENT;
}

/* The uploads to @key that are not ended; false: they cannot be listed. */
static bool uploads_list(struct lab *lab, const char *key, struct store_listing *found)
{
	char escaped[3 * STORE_KEY_MAX + 1], *query = NULL, *next[2] = { NULL, NULL };
	struct s3_call call = { 0 };
	bool listed = false;

	if (s3_encode(key, false, escaped, sizeof(escaped)) >= 0 &&
	    asprintf(&query, "encoding-type=url&prefix=%s&uploads", escaped) >= 0 &&
	    lab_fill(lab, &call, "GET", NULL, query, NO_HEADERS) == 0)
		listed = lab_send(lab, &call) == STORE_DONE &&
			 s3_xml_uploads(call.http.text ? call.http.text : "",
					call.http.text_count, found, &next[0],
					&next[1]) == 0;
	s3_call_free(&call);
	free(next[0]);
	free(next[1]);
	free(query);
	return listed;
}

static void tell_left(struct lab *lab, const char *key, const char *id)
{
	note(lab->findings, "cleaning up uploads", false,
	     "objmap gc of a volume there aborts it when it is an hour old; or abort it yourself",
	     "an upload to %s%s%s may be left, and is paid for: %s", key, *id ? ", id " : "",
	     id, lab->why[0] ? lab->why : "no answer");
}

static void upload_give_up(struct lab *lab, const char *key, const char *id)
{
	if (!upload_abort(lab, key, id))
		tell_left(lab, key, id);
}

/* Aborts all that is there, of which no id is known. */
static void uploads_give_up(struct lab *lab, const char *key)
{
	struct store_listing found = { 0 };
	unsigned int i;

	if (!uploads_list(lab, key, &found))
		tell_left(lab, key, "");
	for (i = 0; i < found.nr_entries; i++)
		if (strcmp(found.entries[i].key, key) == 0)
			upload_give_up(lab, key, found.entries[i].upload);
	store_listing_free(&found);
}

static const char remedy[] = "chunks above --multipart-threshold, and writable s3+object: places, do not work here";

/* Upload @id to @key, whose object has @tag. */
static void look_at_upload(struct lab *lab, const char *key, const char *source,
			   const char *id, const char *tag)
{
	struct s3_part part = { .size = SOURCE_BYTES };
	enum store_outcome outcome;

	if (upload_copy(lab, key, id, source, &part) != STORE_DONE) {
		lab_want(lab, "uploads in parts", true, "begun and aborted", NULL);
		lab_want(lab, "parts that are copies", false, "",
		     "a flush of a writable s3+object: place sends the whole object here");
		upload_give_up(lab, key, id);
		return;
	}
	/* Its object must not be there while the tag of another one is asked for. */
	outcome = upload_end(lab, key, id, &part, HEADER("If-Match", "\"0123456789abcdef0123456789abcdef\""));
	if (outcome == STORE_DONE)
		snprintf(lab->why, sizeof(lab->why), "the server does not look at it");
	lab_want(lab, "complete if-match", outcome == STORE_REFUSED,
	     "refused where the object is another one",
	     "a writable s3+object: place needs --exclusive here; volumes do not use it");
	if (outcome != STORE_DONE)
		outcome = upload_end(lab, key, id, &part, HEADER("If-Match", tag));
	if (outcome == STORE_DONE)
		outcome = lab_get(lab, key, NULL, NO_HEADERS, NULL);
	lab_want(lab, "uploads in parts", outcome == STORE_DONE, "with a part that is a copy", remedy);
	if (outcome != STORE_DONE)
		upload_give_up(lab, key, id);
}

void look_at_uploads(struct lab *lab)
{
	static const char content[SOURCE_BYTES] = "objmap doctor";
	const char *key = lab_key(lab), *source = lab_key(lab);
	char id[S3_UPLOAD_ID_MAX], tag[STORE_TAG_MAX];
	bool stray;

	if (lab_put(lab, source, content, SOURCE_BYTES, NO_HEADERS) != STORE_DONE ||
	    lab_put(lab, key, "1", 1, NO_HEADERS) != STORE_DONE)
		return;
	snprintf(tag, sizeof(tag), "%s", lab->tag);
	if (upload_begin(lab, key, id, &stray) == STORE_DONE)
		look_at_upload(lab, key, source, id, tag);
	else
		lab_want(lab, "uploads in parts", false, "", remedy);
	if (stray)
		uploads_give_up(lab, key);
}
