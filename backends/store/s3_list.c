/* s3_list.c: lists of objects and of unfinished uploads, a page at a time.
 *
 * Pages of objects go on after a key (start-after), so that a listing needs no
 * token that could grow old. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backends/store/s3.h"

#define QUERY_ROOM (9 * STORE_KEY_MAX + 3 * S3_UPLOAD_ID_MAX + 256)

struct query {
	char text[QUERY_ROOM];
	size_t length;
	bool too_long;
};

/* Appends "&NAME=VALUE"; the value is one after the other of two texts, encoded. */
static void query_add(struct query *query, const char *name, const char *value,
		      const char *rest)
{
	size_t room = sizeof(query->text) - query->length;
	int made = snprintf(query->text + query->length, room, "%s%s=",
			    query->length ? "&" : "", name);
	const char *const values[] = { value, rest };
	size_t i;

	query->length += (size_t)made;
	query->too_long |= (size_t)made >= room;
	for (i = 0; i < 2 && !query->too_long; i++) {
		made = s3_encode(values[i], false, query->text + query->length,
				 sizeof(query->text) - query->length);
		query->too_long |= made < 0;
		query->length += made < 0 ? 0 : (size_t)made;
	}
}

static int query_take(const struct query *query, struct s3_op *op)
{
	return query->too_long ? -E2BIG : s3_op_query(op, strdup(query->text));
}

static const char *text_of(const struct s3_call *call)
{
	return call->http.text ? call->http.text : "";
}

/* ---- keys, relative to the prefix ------------------------------------------------------- */

static bool is_ours(const struct s3_store *s3, const char *key)
{
	return strncmp(key, s3->prefix, s3->prefix_length) == 0;
}

static void make_relative(const struct s3_store *s3, char *key)
{
	memmove(key, key + s3->prefix_length, strlen(key + s3->prefix_length) + 1);
}

static void drop_entry(struct store_listing *listing, unsigned int i)
{
	free(listing->entries[i].key);
	free(listing->entries[i].upload);
	listing->nr_entries--;
	memmove(&listing->entries[i], &listing->entries[i + 1],
		(listing->nr_entries - i) * sizeof(*listing->entries));
}

/* ---- objects ------------------------------------------------------------------------------ */

static void listed(struct s3_op *op);

static void list_send(struct s3_store *s3, struct store_request *request,
		      const char *token)
{
	struct s3_op *op = s3_op_new(s3, request, "GET", NULL);
	struct query *query = calloc(1, sizeof(*query));
	int error = query ? 0 : -ENOMEM;

	if (!op || error) {
		free(query);
		if (op)
			s3_op_fail(op, error);
		return;
	}
	query_add(query, "list-type", "2", "");
	query_add(query, "encoding-type", "url", "");
	query_add(query, "max-keys", "1000", "");
	query_add(query, "prefix", s3->prefix, request->key ? request->key : "");
	if (token)
		query_add(query, "continuation-token", token, "");
	else if (request->after)
		query_add(query, "start-after", s3->prefix, request->after);
	error = query_take(query, op);
	free(query);
	op->call.text_max = 8u << 20;	/* 1,000 keys of 1,024 bytes, encoded */
	if (error)
		s3_op_fail(op, error);
	else
		s3_op_start(op, listed);
}

void s3_list(struct s3_store *s3, struct store_request *request)
{
	list_send(s3, request, NULL);
}

/* NULL, or what is wrong with a page. */
static const char *check_page(struct s3_op *op, struct store_listing *listing)
{
	const struct store_request *request = op->request;
	const char *prefix = request->key ? request->key : "", *before = request->after;
	size_t length = strlen(prefix);
	unsigned int i;

	for (i = 0; i < listing->nr_entries; i++) {
		if (!is_ours(op->s3, listing->entries[i].key))
			return "a key that was not asked for";
		make_relative(op->s3, listing->entries[i].key);
		if (strncmp(listing->entries[i].key, prefix, length) != 0)
			return "a key that was not asked for";
		if (before && strcmp(before, listing->entries[i].key) >= 0)
			return "keys out of order";
		before = listing->entries[i].key;
	}
	return NULL;
}

/* The "folder" that consoles make has the prefix itself as its key. */
static void drop_folder(struct store_listing *listing)
{
	if (listing->nr_entries && !listing->entries[0].key[0])
		drop_entry(listing, 0);
}

/* Whether @token is the one that this page was asked for with: it would come again
 * and again. */
static bool token_is_of(const struct s3_op *op, const char *token)
{
	struct query *query = calloc(1, sizeof(*query));
	size_t length = strlen(op->query);
	bool same;

	if (!query)
		return true;
	query_add(query, "continuation-token", token, "");
	same = query->too_long || (query->length < length &&
		strcmp(op->query + length - query->length, query->text) == 0);
	free(query);
	return same;
}

static void listed(struct s3_op *op)
{
	struct store_request *request = op->request;
	struct store_listing *listing = &request->reply.listing;
	struct s3_store *s3 = op->s3;
	const char *wrong = NULL;
	char token[1025];

	if (op->call.outcome != STORE_DONE) {
		s3_op_complete(op);
		return;
	}
	if (s3_xml_list(text_of(&op->call), op->call.http.text_count, listing) < 0)
		wrong = "no ListBucketResult";
	else
		wrong = check_page(op, listing);
	if (!wrong)
		drop_folder(listing);
	/* A page may be empty and not the last: of delete markers, say. */
	if (!wrong && listing->more && !listing->nr_entries) {
		if (s3_xml_text(text_of(&op->call), op->call.http.text_count,
				"ListBucketResult", "NextContinuationToken", token,
				sizeof(token)) == 0 && !token_is_of(op, token)) {
			store_listing_free(listing);
			s3_op_free(op);
			s3_count_call(s3, request);
			list_send(s3, request, token);
			return;
		}
		wrong = "an empty page that is not the last and has no token of another";
	}
	if (wrong) {
		store_listing_free(listing);
		s3_call_is_wrong(&op->call, wrong);
	}
	s3_op_complete(op);
}

/* ---- unfinished uploads ---------------------------------------------------------------------
 *
 * MinIO lists them by whole keys only, or all of the bucket.  So where it is MinIO
 * that knows of none, all of the bucket's are gone through. */

enum { BY_PREFIX, ALL_OF_BUCKET };

static void uploads_listed(struct s3_op *op);

/* @key and @upload: behind which to go on, @key from the top; NULL: from the first. */
static void uploads_send(struct s3_store *s3, struct store_request *request,
			 unsigned int step, const char *key, const char *upload,
			 struct store_listing *found)
{
	struct s3_op *op = s3_op_new(s3, request, "GET", NULL);
	struct query *query = calloc(1, sizeof(*query));
	int error = query ? 0 : -ENOMEM;

	if (!op || error) {
		free(query);
		if (found)
			store_listing_free(found);
		if (op)
			s3_op_fail(op, error);
		return;
	}
	op->step = step;
	if (found)
		op->found = *found;
	query_add(query, "uploads", "", "");
	query_add(query, "encoding-type", "url", "");
	query_add(query, "max-uploads", "1000", "");
	if (step == BY_PREFIX)
		query_add(query, "prefix", s3->prefix, request->key ? request->key : "");
	if (key)
		query_add(query, "key-marker", key, "");
	if (key && upload)
		query_add(query, "upload-id-marker", upload, "");
	error = query_take(query, op);
	free(query);
	op->call.text_max = 16u << 20;
	if (error)
		s3_op_fail(op, error);
	else
		s3_op_start(op, uploads_listed);
}

void s3_list_uploads(struct s3_store *s3, struct store_request *request)
{
	char key[2 * STORE_KEY_MAX];

	snprintf(key, sizeof(key), "%s%s", s3->prefix, request->after ? request->after : "");
	uploads_send(s3, request, BY_PREFIX, request->after ? key : NULL,
		     request->after_upload, NULL);
}

/* Leaves only what lies below the prefix, relative to it. */
static void keep_ours(struct s3_op *op, struct store_listing *listing)
{
	const char *prefix = op->request->key ? op->request->key : "";
	const struct s3_store *s3 = op->s3;
	unsigned int i = 0;

	while (i < listing->nr_entries) {
		const char *key = listing->entries[i].key;

		if (!is_ours(s3, key) || !key[s3->prefix_length] ||
		    strncmp(key + s3->prefix_length, prefix, strlen(prefix)) != 0) {
			drop_entry(listing, i);
			continue;
		}
		make_relative(s3, listing->entries[i++].key);
	}
}

/* Moves what @more holds behind what @listing does. */
static int join_listings(struct store_listing *listing, struct store_listing *more)
{
	unsigned int nr = listing->nr_entries + more->nr_entries;
	struct store_entry *entries;

	if (!more->nr_entries)
		return 0;
	entries = realloc(listing->entries, nr * sizeof(*entries));
	if (!entries)
		return -ENOMEM;
	memcpy(entries + listing->nr_entries, more->entries,
	       more->nr_entries * sizeof(*entries));
	listing->entries = entries;
	listing->nr_entries = nr;
	more->nr_entries = 0;
	return 0;
}

/* Whether the page says to go on from where it began. */
static bool goes_nowhere(const struct s3_op *op, const struct store_listing *page)
{
	struct query *query = calloc(1, sizeof(*query));
	bool nowhere;

	if (!query)
		return true;
	query_add(query, "key-marker", page->next_key, "");
	query_add(query, "upload-id-marker", page->next_upload ? page->next_upload : "", "");
	nowhere = query->too_long || strstr(op->query, query->text);
	free(query);
	return nowhere;
}

/* Takes one page in; returns whether the next one was asked for. */
static bool take_page(struct s3_op *op, struct store_listing *page)
{
	struct store_request *request = op->request;
	struct store_listing *listing = &request->reply.listing;
	struct store_listing found = op->found;
	char *key = page->next_key, *upload = page->next_upload;
	struct s3_store *s3 = op->s3;
	unsigned int step = op->step;
	bool all_instead = step == BY_PREFIX && !page->nr_entries && !page->more &&
			   !request->after && s3_is_minio(&op->call);

	op->found = (struct store_listing){ 0 };
	keep_ours(op, page);
	if (page->more && goes_nowhere(op, page)) {
		store_listing_free(&found);
		s3_call_is_wrong(&op->call, "a page that is followed by itself");
		return false;
	}
	if (join_listings(&found, page) < 0) {
		store_listing_free(&found);
		s3_call_is_wrong(&op->call, strerror(ENOMEM));
		return false;
	}
	if (all_instead || (page->more && (step == ALL_OF_BUCKET || !found.nr_entries))) {
		s3_op_free(op);
		s3_count_call(s3, request);
		uploads_send(s3, request, all_instead ? ALL_OF_BUCKET : step, key, upload,
			     &found);
		return true;
	}
	*listing = found;
	listing->more = page->more;
	if (page->more) {
		make_relative(s3, key);
		listing->next_key = key;
		listing->next_upload = upload;
		page->next_key = page->next_upload = NULL;
	}
	return false;
}

static void uploads_listed(struct s3_op *op)
{
	struct store_listing page = { 0 };
	struct s3_call *call = &op->call;
	const char *wrong = NULL;

	if (call->outcome != STORE_DONE) {
		s3_op_complete(op);
		return;
	}
	if (s3_xml_uploads(text_of(call), call->http.text_count, &page, &page.next_key,
			   &page.next_upload) < 0)
		wrong = "no ListMultipartUploadsResult";
	else if (page.more && !page.next_key)
		wrong = "a page that is not the last and does not say what follows";
	else if (page.more && op->step == BY_PREFIX && !is_ours(op->s3, page.next_key))
		wrong = "uploads that were not asked for";
	if (wrong)
		s3_call_is_wrong(call, wrong);
	if (wrong || !take_page(op, &page))
		s3_op_complete(op);
	store_listing_free(&page);
}
