/* list_s3.c: finds the volumes in a bucket.
 *
 * A folder is listed with '/' as the delimiter: one request says whether there is
 * a head in it and which folders there are.  Only a head is then read; what is
 * none of ours is a folder like others.  Several threads take folders from one
 * queue; how many requests that may cost is bounded. */
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backends/s3/xml.h"
#include "src/clock.h"
#include "src/cmd/list_s3.h"
#include "src/cmd/open.h"
#include "src/log.h"
#include "src/place_s3.h"

#define DEPTH_MAX    5		/* folders below the place */
#define REQUESTS_MAX 5000u	/* S3 asks about 0.005 dollars for 1,000 */
#define NR_THREADS   8u
#define TOKEN_MAX    4096u
#define LIST_BYTES   (8u << 20)	/* of a page: 1,000 keys of 1 KiB, escaped */

struct folder {
	struct folder *next;
	unsigned int depth;
	char prefix[];		/* "" or "a/b/" */
};

struct seen {
	char *place;
	struct head head;
};

struct search {
	const struct place *place;
	const char *parameters;		/* "?..." of the place, or "" */
	struct s3_client *client;
	uint64_t retry_for;		/* ns */
	pthread_mutex_t lock;		/* over all below */
	pthread_cond_t changed;
	struct folder *first, **last;
	unsigned int nr_busy;		/* threads with a folder */
	unsigned int nr_requests;
	unsigned int nr_folders;	/* ever */
	bool cut;			/* there was more than may be looked at */
	int error;			/* the first */
	struct seen **seen;
	unsigned int nr_seen;
};

static void search_fail(struct search *search, int error)
{
	pthread_mutex_lock(&search->lock);
	if (!search->error)
		search->error = error;
	pthread_cond_broadcast(&search->changed);
	pthread_mutex_unlock(&search->lock);
}

/* ---- requests -------------------------------------------------------------------- */

/* False: no more may be made. */
static bool may_ask(struct search *search)
{
	bool may;

	pthread_mutex_lock(&search->lock);
	may = !search->error && search->nr_requests < REQUESTS_MAX;
	if (may)
		search->nr_requests++;
	else if (!search->error)
		search->cut = true;
	pthread_mutex_unlock(&search->lock);
	return may;
}

/* GET of @key, or of the bucket with @query.  0, -ENOENT, or logged. */
static int ask_server(struct search *search, const char *key, const char *query,
		      struct s3_call *call)
{
	uint64_t now = clock_now();
	int error;

	*call = (struct s3_call){
		.method = "GET", .key = key, .query = query,
		.text_max = key ? HEAD_BYTES_MAX : LIST_BYTES,
		.deadline = search->retry_for > UINT64_MAX - now ? UINT64_MAX :
			    now + search->retry_for,
	};
	s3_wait_retrying(search->client, call, call->deadline, NULL);
	if (call->outcome == STORE_DONE)
		return 0;
	if (call->outcome == STORE_ABSENT && key)
		return -ENOENT;
	/* An object called head that is longer than any of ours. */
	if (key && call->error == -EFBIG)
		return -EBADMSG;
	error = call->error < 0 ? call->error : -EIO;
	pthread_mutex_lock(&search->lock);
	if (!search->error)
		log_error("%s: LIST: %s", search->place->base, call->message);
	pthread_mutex_unlock(&search->lock);
	return error;
}

/* "list-type=2&..." for the page that @token names, "" for the first; malloc'ed.
 * (A start-after that is a folder would give that folder again.) */
static char *list_query(const char *prefix, const char *token)
{
	char escaped[3 * STORE_KEY_MAX + 1], next[3 * TOKEN_MAX + 1], *query;

	if (s3_encode(prefix, false, escaped, sizeof(escaped)) < 0 ||
	    s3_encode(token, false, next, sizeof(next)) < 0)
		return NULL;
	if (asprintf(&query, "list-type=2&encoding-type=url&delimiter=%%2F&prefix=%s%s%s",
		     escaped, *token ? "&continuation-token=" : "", next) < 0)
		return NULL;
	return query;
}

/* ---- what is found ---------------------------------------------------------------- */

/* As a place is written: what would mean something else is escaped. */
static char *place_of(const struct search *search, const char *prefix)
{
	static const char digits[] = "0123456789abcdef";
	size_t length = strlen(prefix) - 1, i;	/* without the last '/' */
	char *escaped = malloc(3 * length + 1), *to = escaped, *text = NULL;

	for (i = 0; escaped && i < length; i++) {
		if (strchr("%?@", prefix[i])) {
			*to++ = '%';
			*to++ = digits[(unsigned char)prefix[i] / 16];
			*to++ = digits[(unsigned char)prefix[i] % 16];
		} else {
			*to++ = prefix[i];
		}
	}
	if (escaped)
		*to = 0;
	if (!escaped || asprintf(&text, "s3://%s/%s%s", search->place->bucket,
				 escaped, search->parameters) < 0)
		text = NULL;
	free(escaped);
	return text;
}

static int add_seen(struct search *search, const char *prefix, const struct head *head)
{
	struct seen *seen = malloc(sizeof(*seen)), **all;
	int error = -ENOMEM;

	if (!seen)
		return -ENOMEM;
	seen->head = *head;
	seen->place = place_of(search, prefix);
	pthread_mutex_lock(&search->lock);
	all = realloc(search->seen, (search->nr_seen + 1) * sizeof(*all));
	if (all)
		search->seen = all;
	if (all && seen->place) {
		all[search->nr_seen++] = seen;
		error = 0;
	}
	pthread_mutex_unlock(&search->lock);
	if (error) {
		free(seen->place);
		free(seen);
	}
	return error;
}

/* -EBADMSG: it is none of ours. */
static int read_head(struct search *search, const char *prefix, struct head *head,
		     struct format_fault *fault)
{
	struct s3_call call;
	char key[STORE_KEY_MAX];
	int error;

	snprintf(key, sizeof(key), "%shead", prefix);
	error = ask_server(search, key, NULL, &call);
	if (!error)
		error = head_decode(call.http.text ? call.http.text : "",
				    call.http.text_count, head, fault);
	s3_call_free(&call);
	return error;
}

/* There is an object @prefix/head.  1: it is a volume's; 0: none of ours. */
static int look_at_head(struct search *search, const char *prefix)
{
	struct format_fault fault = { .what = "it is longer than a head can be" };
	struct head *head;
	int error;

	if (!may_ask(search))
		return 1;	/* nobody looks below either */
	head = malloc(sizeof(*head));
	if (!head)
		return -ENOMEM;
	error = read_head(search, prefix, head, &fault);
	/* Neither a bad transfer nor a wrong 404 hides a volume. */
	if ((error == -EBADMSG || error == -ENOENT) && may_ask(search))
		error = read_head(search, prefix, head, &fault);
	if (error == -ENOTSUP)
		log_warning("s3://%s/%s: a volume, but of a newer objmap: %s",
			    search->place->bucket, prefix, fault.what);
	else if (!error && head->state != HEAD_DELETED)
		error = add_seen(search, prefix, head);
	free(head);
	if (error == -EBADMSG)
		log_warning("s3://%s/%shead: no volume's, or damaged: %s",
			    search->place->bucket, prefix, fault.what);
	if (error == -ENOENT)
		log_warning("s3://%s/%shead: listed, but not there: deleted just now, "
			    "or the server's word cannot be trusted",
			    search->place->bucket, prefix);
	if (error == -ENOENT || error == -EBADMSG)
		return 0;
	return error && error != -ENOTSUP ? error : 1;
}

/* ---- folders ----------------------------------------------------------------------- */

static int add_folder(struct search *search, const char *prefix, unsigned int depth)
{
	struct folder *folder = malloc(sizeof(*folder) + strlen(prefix) + 1);

	if (!folder)
		return -ENOMEM;
	folder->next = NULL;
	folder->depth = depth;
	strcpy(folder->prefix, prefix);
	pthread_mutex_lock(&search->lock);
	/* Each costs a request. */
	if (search->nr_folders == REQUESTS_MAX) {
		search->cut = true;
		free(folder);
	} else {
		search->nr_folders++;
		*search->last = folder;
		search->last = &folder->next;
		pthread_cond_signal(&search->changed);
	}
	pthread_mutex_unlock(&search->lock);
	return 0;
}

/* One page: its folders go to *folders, one after the other with their 0; *nr counts
 * them, and of more than can be looked at none is kept. */
static int read_page(const struct folder *folder, const struct store_listing *page,
		     bool *has_head, FILE *folders, unsigned int *nr)
{
	size_t length = strlen(folder->prefix);
	unsigned int i;

	for (i = 0; i < page->nr_entries; i++)
		if (strncmp(page->entries[i].key, folder->prefix, length) != 0)
			return -EBADMSG;
	for (i = 0; i < page->nr_entries; i++) {
		const char *key = page->entries[i].key;
		size_t n = strlen(key);

		if (strcmp(key + length, "head") == 0)
			*has_head = true;
		if (page->entries[i].size == UINT64_MAX && n && key[n - 1] == '/' &&
		    *nr <= REQUESTS_MAX) {
			fwrite(key, 1, n + 1, folders);
			++*nr;
		}
	}
	return 0;
}

/* The token of the page behind the one of @token. */
static int read_token(const struct s3_call *call, const char *token, char next[TOKEN_MAX])
{
	int error = s3_xml_text(call->http.text, call->http.text_count, "ListBucketResult",
				"NextContinuationToken", next, TOKEN_MAX);

	/* The same page again, and again. */
	return !error && strcmp(next, token) == 0 ? -EBADMSG : error;
}

/* Lists @folder page by page.  0: all of it, or as much as may be. */
static int list_folder(struct search *search, const struct folder *folder,
		       bool *has_head, FILE *folders)
{
	char token[TOKEN_MAX] = "", next[TOKEN_MAX], *query;
	struct store_listing page;
	struct s3_call call;
	bool more = true, again = false;
	unsigned int nr = 0;
	int error = 0;

	while (!error && more && may_ask(search)) {
		query = list_query(folder->prefix, token);
		if (!query)
			return -ENOMEM;
		memset(&page, 0, sizeof(page));
		error = ask_server(search, NULL, query, &call);
		if (!error)
			error = s3_xml_list(call.http.text ? call.http.text : "",
					    call.http.text_count, &page);
		more = page.more;
		if (!error && more)
			error = read_token(&call, token, next);
		if (!error)
			error = read_page(folder, &page, has_head, folders, &nr);
		if (!error && more)
			strcpy(token, next);
		s3_call_free(&call);
		free(query);
		store_listing_free(&page);
		if (error == -EBADMSG && !again) {
			again = more = true;	/* a bad transfer is worth one more try */
			error = 0;
		} else if (error == -EBADMSG || error == -E2BIG) {
			log_error("%s: LIST: this is no listing", search->place->base);
		}
	}
	return error;
}

/* What cannot be a volume's prefix, nor can hold one, is left out. */
static int look_below(struct search *search, const struct folder *folder,
		      const char *folders, size_t count)
{
	const char *prefix;
	char name[STORE_KEY_MAX];
	int error = 0;

	for (prefix = folders; prefix < folders + count && !error;
	     prefix += strlen(prefix) + 1) {
		snprintf(name, sizeof(name), "%.*s", (int)strlen(prefix) - 1, prefix);
		if (!place_s3_prefix_fault(name))
			error = add_folder(search, prefix, folder->depth + 1);
	}
	return error;
}

static void look_at_folder(struct search *search, const struct folder *folder)
{
	bool has_head = false;
	char *folders = NULL;
	size_t count = 0;
	FILE *out = open_memstream(&folders, &count);
	int error, is_volume = 0;

	error = out ? list_folder(search, folder, &has_head, out) : -ENOMEM;
	if (out && fclose(out) != 0 && !error)
		error = -ENOMEM;
	if (!error && has_head && *folder->prefix) {
		is_volume = look_at_head(search, folder->prefix);
		error = is_volume < 0 ? is_volume : 0;
	}
	if (!error && !is_volume && folder->depth < DEPTH_MAX)
		error = look_below(search, folder, folders, count);
	free(folders);
	if (error)
		search_fail(search, error);
}

static void *search_run(void *context)
{
	struct search *search = context;
	struct folder *folder;

	pthread_mutex_lock(&search->lock);
	for (;;) {
		while (!search->first && search->nr_busy && !search->error)
			pthread_cond_wait(&search->changed, &search->lock);
		folder = search->error ? NULL : search->first;
		if (!folder)
			break;
		search->first = folder->next;
		if (!search->first)
			search->last = &search->first;
		search->nr_busy++;
		pthread_mutex_unlock(&search->lock);
		look_at_folder(search, folder);
		free(folder);
		pthread_mutex_lock(&search->lock);
		search->nr_busy--;
		pthread_cond_broadcast(&search->changed);
	}
	pthread_cond_broadcast(&search->changed);
	pthread_mutex_unlock(&search->lock);
	return NULL;
}

/* ---- the whole ----------------------------------------------------------------------- */

static int by_place(const void *a, const void *b)
{
	return strcmp((*(struct seen *const *)a)->place,
		      (*(struct seen *const *)b)->place);
}

/* This thread searches too. */
static void search_all(struct search *search)
{
	pthread_t threads[NR_THREADS - 1];
	unsigned int nr = 0;

	while (nr < NR_THREADS - 1 &&
	       pthread_create(&threads[nr], NULL, search_run, search) == 0)
		nr++;
	search_run(search);
	while (nr)
		pthread_join(threads[--nr], NULL);
}

static void search_free(struct search *search)
{
	struct folder *folder;
	unsigned int i;

	while ((folder = search->first)) {
		search->first = folder->next;
		free(folder);
	}
	for (i = 0; i < search->nr_seen; i++) {
		free(search->seen[i]->place);
		free(search->seen[i]);
	}
	free(search->seen);
	pthread_mutex_destroy(&search->lock);
	pthread_cond_destroy(&search->changed);
}

int list_s3(const struct options *options, const struct place *place,
	    list_found *found, void *context)
{
	const char *parameters = strchr(place->text, '?');
	struct search search = { .place = place,
				 .parameters = parameters ? parameters : "" };
	struct store_open_options how;
	struct s3_options s3;
	char prefix[STORE_KEY_MAX];
	unsigned int i;
	int error;

	open_options(options, &how);
	search.retry_for = how.retry_for;
	search.last = &search.first;
	pthread_mutex_init(&search.lock, NULL);
	pthread_cond_init(&search.changed, NULL);
	error = place_s3_options(place, &how.s3, &s3);
	if (!error)
		error = s3_client_open(place->base, place->bucket, &s3, &search.client);
	if (error)
		goto out;
	snprintf(prefix, sizeof(prefix), "%s%s", place->path, *place->path ? "/" : "");
	error = add_folder(&search, prefix, 0);
	if (!error)
		search_all(&search);
	s3_client_close(search.client);
	if (!error)
		error = search.error;
	qsort(search.seen, search.nr_seen, sizeof(*search.seen), by_place);
	for (i = 0; i < search.nr_seen && !error; i++)
		error = found(context, search.seen[i]->place, &search.seen[i]->head);
	if (!error && search.cut) {
		log_error("%s: there is more than %u requests show; name a folder: s3://%s/%s...",
			  place->base, REQUESTS_MAX, place->bucket, prefix);
		error = -E2BIG;
	}
out:
	search_free(&search);
	return error;
}
