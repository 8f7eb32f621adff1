/* doctor_s3.c: what an S3 server does that a volume needs, tried out.
 *
 * Everything is done to objects below PREFIX/probe/, which are deleted again
 * whatever happens; should even that fail, they have names that gc knows.  The
 * first SIGINT or SIGTERM ends the trials and cleans up, the second ends at once. */
#include <errno.h>
#include <semaphore.h>
#include <stdlib.h>
#include <string.h>

#include "backends/s3/xml.h"
#include "src/clock.h"
#include "src/cmd/lab.h"
#include "src/cmd/open.h"
#include "src/cmd/stop.h"
#include "src/log.h"
#include "src/place_s3.h"
#include "src/random.h"
#include "src/units.h"

#define NR_RIVALS   8u			/* that put at once */
#define SMALL	    4096u
#define LARGE	    (1u << 20)
#define NR_LARGE    8u
#define NR_READS    32u			/* of large ones, at once */
#define NR_TIMES    9u			/* of which the median is told */
#define SKEW_MAX    300			/* S3 refuses requests 15 minutes off */
#define PATIENCE    (10 * CLOCK_SECOND)	/* for each request, at least */

/* ---- who and where ----------------------------------------------------------------- */

static bool look_at_bucket(struct lab *lab)
{
	struct findings *findings = lab->findings;
	int64_t skew;

	note(findings, "credentials", true, NULL, "%s",
	     s3_client_credentials(lab->client));
	if (!lab_must(lab, "bucket", lab_get(lab, NULL, "list-type=2&max-keys=1", NO_HEADERS,
					 NULL) == STORE_DONE, "can be listed",
		  "the message says what is wrong: a name, a right (s3:ListBucket), credentials, or the server"))
		return false;
	skew = s3_client_skew(lab->client);
	note(findings, "endpoint", true, NULL, "%s, region %s",
	     s3_client_endpoint(lab->client), s3_client_region(lab->client));
	note(findings, "clock", skew < SKEW_MAX && skew > -SKEW_MAX,
	     "set this machine's clock (requests are dated by the server's meanwhile)",
	     "the server's is %lld s ahead of this machine's", (long long)skew);
	return lab_must(lab, "absence", lab_get(lab, lab_key(lab), NULL, NO_HEADERS, NULL) ==
		    STORE_ABSENT, "a missing object is said to be missing",
		    "without the right s3:ListBucket on the bucket a server says 403 instead");
}

/* ---- objects ----------------------------------------------------------------------- */

static const char small_content[SMALL] = "objmap doctor";

/* Bytes 0-12 of what was put, and the metadata that was put with it. */
static const char *check_range(const struct s3_call *call)
{
	const char *value = http_headers_find(&call->http.reply, "x-amz-meta-objmap-doctor");

	if (call->http.status != 206 || call->http.text_count != 13 ||
	    memcmp(call->http.text, small_content, 13) != 0)
		return "a range is not answered by these bytes";
	return value && strcmp(value, "was here") == 0 ? NULL :
	       "its reply has not the object's metadata";
}

static bool look_at_objects(struct lab *lab, const char *key, char tag[STORE_TAG_MAX])
{
	char first[STORE_TAG_MAX];
	bool told_alike;

	if (!lab_must(lab, "writing", lab_put(lab, key, small_content, SMALL - 1,
					  HEADER("x-amz-meta-objmap-doctor", "was here")) ==
		  STORE_DONE, "an object can be put",
		  "give the right s3:PutObject, or room"))
		return false;
	snprintf(first, sizeof(first), "%s", lab->tag);
	lab_must(lab, "ranges with metadata", lab_get(lab, key, NULL,
						  HEADER("Range", "bytes=0-12"),
						  check_range) == STORE_DONE,
	     "a range comes with the object's metadata",
	     "use another server: every read of a volume is a range that is checked by it");
	told_alike = strcmp(first, lab->tag) == 0;
	if (lab_put(lab, key, small_content, SMALL, NO_HEADERS) != STORE_DONE)
		return lab_must(lab, "overwriting", false, "", "give the right s3:PutObject");
	snprintf(tag, STORE_TAG_MAX, "%s", lab->tag);
	if (strcmp(first, tag) == 0)
		snprintf(lab->why, sizeof(lab->why), "other content has the same ETag");
	else if (!told_alike)
		snprintf(lab->why, sizeof(lab->why), "a GET tells another one than the PUT did");
	lab_must(lab, "ETags", strcmp(first, tag) != 0 && *tag && told_alike,
	     "change with the content",
	     "use another server: a commit is told from another by it");
	lab_want(lab, "GET if-match", lab_get(lab, key, NULL, HEADER("If-Match", first), NULL) ==
	     STORE_REFUSED, "refused where the object is another one",
	     "s3+object: places are not safe against a replaced object here");
	return true;
}

/* A put whose condition does not hold; asked again where the answer was lost, because
 * a refusal after that says nothing. */
static enum store_outcome lab_put_wrongly(struct lab *lab, const char *key,
					  const struct header *header)
{
	enum store_outcome outcome;
	unsigned int tries = 0;

	do {
		outcome = lab_put(lab, key, "x", 1, header);
	} while (outcome == STORE_UNKNOWN && tries++ < 3);
	return outcome;
}

static void look_at_conditions(struct lab *lab, const char *key, const char *tag)
{
	char wrong[STORE_TAG_MAX], right[STORE_TAG_MAX];
	size_t length = strlen(tag);
	bool kept;

	snprintf(wrong, sizeof(wrong), "%s", tag);
	if (length > 2)
		wrong[length - 2] = wrong[length - 2] == '0' ? '1' : '0';
	kept = lab_must_refuse(lab, "PUT if-none-match",
			       lab_put_wrongly(lab, key, HEADER("If-None-Match", "*")),
			       "refused where there is an object");
	kept &= lab_must_refuse(lab, "PUT if-match",
				lab_put_wrongly(lab, key, HEADER("If-Match", wrong)),
				"refused where the object is another one");
	lab_must_refuse(lab, "PUT if-match, missing", lab_put_wrongly(lab, lab_key(lab),
								  HEADER("If-Match", tag)),
		    "refused where there is no object");
	snprintf(right, sizeof(right), "%s", tag);
	/* What was let through has made it another object. */
	if (!kept && lab_put(lab, key, "w", 1, NO_HEADERS) == STORE_DONE)
		snprintf(right, sizeof(right), "%s", lab->tag);
	lab_must(lab, "PUT if-match, right", lab_put(lab, key, "y", 1, HEADER("If-Match", right)) ==
	     STORE_DONE, "done where it is this very object",
	     "use another server: no commit could be made");
}

/* ---- rivals ------------------------------------------------------------------------ */

static void rival_done(struct s3_call *call)
{
	sem_post(call->context);
}

/* NR_RIVALS puts of different content under one condition, at once; how many were
 * done. */
static unsigned int nr_winners(struct lab *lab, const char *key, const struct header *header)
{
	struct s3_call *calls = calloc(NR_RIVALS, sizeof(*calls));
	char content[NR_RIVALS];
	struct iovec iov[NR_RIVALS];
	unsigned int i, nr = 0;
	sem_t done;

	sem_init(&done, 0, 0);
	for (i = 0; calls && i < NR_RIVALS; i++) {
		lab_fill(lab, &calls[i], "PUT", key, NULL, header);
		content[i] = (char)('a' + i);
		iov[i] = (struct iovec){ &content[i], 1 };
		calls[i].body = &iov[i];
		calls[i].nr_body = 1;
		calls[i].body_count = 1;
		calls[i].done = rival_done;
		calls[i].context = &done;
		s3_submit(lab->client, &calls[i]);
	}
	for (i = 0; calls && i < NR_RIVALS; i++)
		while (sem_wait(&done) < 0)
			;
	for (i = 0; calls && i < NR_RIVALS; i++) {
		nr += calls[i].outcome == STORE_DONE;
		s3_call_free(&calls[i]);
	}
	sem_destroy(&done);
	free(calls);
	return nr;
}

static void look_at_rivals(struct lab *lab)
{
	const char *key = lab_key(lab);
	unsigned int nr = key ? nr_winners(lab, key, HEADER("If-None-Match", "*")) : 0;
	char tag[STORE_TAG_MAX];

	snprintf(lab->why, sizeof(lab->why), "%u of %u that created one object at once were told that they did",
		 nr, NR_RIVALS);
	lab_must(lab, "creators at once", nr == 1, "one of them wins",
	     "use another server or a newer release; or --exclusive, where nobody else ever writes");
	if (lab_put(lab, key, "z", 1, NO_HEADERS) != STORE_DONE)
		return;
	snprintf(tag, sizeof(tag), "%s", lab->tag);
	nr = nr_winners(lab, key, HEADER("If-Match", tag));
	snprintf(lab->why, sizeof(lab->why), "%u of %u that replaced one object at once were told that they did",
		 nr, NR_RIVALS);
	lab_must(lab, "swaps at once", nr == 1, "one of them wins",
	     "use another server or a newer release; or --exclusive, where nobody else ever writes");
}

/* ---- listing and deleting ---------------------------------------------------------- */

/* Objects below PREFIX/probe/ whose key is @key; -1: it cannot be listed. */
static int nr_listed(struct lab *lab, const char *key)
{
	char escaped[3 * STORE_KEY_MAX + 1], *query = NULL;
	struct store_listing listing = { 0 };
	struct s3_call call;
	int nr = -1;

	if (s3_encode(key, false, escaped, sizeof(escaped)) < 0 ||
	    asprintf(&query, "list-type=2&encoding-type=url&prefix=%s", escaped) < 0 ||
	    lab_fill(lab, &call, "GET", NULL, query, NO_HEADERS) != 0) {
		free(query);
		return -1;
	}
	if (lab_send(lab, &call) == STORE_DONE &&
	    s3_xml_list(call.http.text, call.http.text_count, &listing) == 0)
		nr = (int)listing.nr_entries;
	store_listing_free(&listing);
	s3_call_free(&call);
	free(query);
	return nr;
}

/* Two keys with one request. */
static bool delete_two(struct lab *lab, const char *keys[2])
{
	enum store_outcome outcome = STORE_FAILED;
	struct s3_call call = { 0 };
	struct s3_error error;
	char key[STORE_KEY_MAX], *body;
	size_t count;
	bool gone = false;

	body = s3_xml_delete(keys, 2, NULL, &count);
	if (body)
		outcome = lab_post(lab, NULL, "delete", body, count, NO_HEADERS, &call);
	if (outcome == STORE_DONE) {
		gone = s3_xml_deleted(call.http.text ? call.http.text : "",
				      call.http.text_count, key, sizeof(key),
				      &error) == 0;
		if (!gone)
			snprintf(lab->why, sizeof(lab->why), "a key was not deleted, or the answer is none");
	}
	s3_call_free(&call);
	free(body);
	return gone;
}

static void look_at_listing(struct lab *lab)
{
	const char *keys[2] = { lab_key(lab), lab_key(lab) };
	bool listed, gone;

	if (lab_put(lab, keys[0], "1", 1, NO_HEADERS) != STORE_DONE ||
	    lab_put(lab, keys[1], "2", 1, NO_HEADERS) != STORE_DONE)
		return;
	listed = nr_listed(lab, keys[0]) == 1 && nr_listed(lab, keys[1]) == 1;
	if (!listed && !lab->why[0])
		snprintf(lab->why, sizeof(lab->why), "an object that was just put is not listed");
	lab_must(lab, "list after put", listed, "shows it at once",
	     "use another server: gc would not see what it must");
	gone = delete_two(lab, keys);
	lab_want(lab, "delete many", gone, "with one request",
	     "gc and delete are slow here, or do not work: give the right s3:DeleteObject");
	if (!gone)
		gone = lab_delete(lab, keys[0]) == STORE_DONE &&
		       lab_delete(lab, keys[1]) == STORE_DONE;
	if (gone && nr_listed(lab, keys[0]) != 0) {
		gone = false;
		snprintf(lab->why, sizeof(lab->why), "an object that was just deleted is still listed");
	}
	lab_must(lab, "list after delete", gone, "shows it no more",
	     "give the right s3:DeleteObject, or use another server");
}

/* ---- the bucket's settings --------------------------------------------------------- */

static const char *check_versioning(const struct s3_call *call)
{
	return call->http.text && strstr(call->http.text, "<Status>Enabled</Status>") ?
	       "is on: every version of head, and all that gc deletes, is kept and paid for"
	       : NULL;
}

static void look_at_settings(struct lab *lab)
{
	bool versioned, lifecycle;

	versioned = lab_get(lab, NULL, "versioning", NO_HEADERS, check_versioning) ==
		    STORE_FAILED && strncmp(lab->why, "is on", 5) == 0;
	if (!versioned) {
		lab_want(lab, "versioning", true, lab->why[0] ? "cannot be asked for" : "is off",
		     NULL);
		return;
	}
	lifecycle = lab_get(lab, NULL, "lifecycle", NO_HEADERS, NULL) == STORE_DONE;
	snprintf(lab->why, sizeof(lab->why),
		 "is on, and no lifecycle rule is seen: what gc deletes is kept, and paid for");
	lab_want(lab, "versioning", lifecycle,
	     "is on, with a lifecycle rule (does it expire noncurrent versions?)",
	     "add a lifecycle rule that expires noncurrent versions and removes expired delete markers");
}

/* ---- how fast ---------------------------------------------------------------------- */

static int by_size(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return x < y ? -1 : x > y;
}

static void look_at_latency(struct lab *lab, const char *key)
{
	uint64_t times[NR_TIMES], started;
	unsigned int i;

	for (i = 0; i < NR_TIMES && !atomic_load(&stop); i++) {
		started = clock_now();
		if (lab_get(lab, key, NULL, NO_HEADERS, NULL) != STORE_DONE)
			return;
		times[i] = clock_now() - started;
	}
	if (i < NR_TIMES)
		return;
	qsort(times, NR_TIMES, sizeof(times[0]), by_size);
	note(lab->findings, "latency", true, NULL, "a small GET takes %.2f ms",
	     (double)times[NR_TIMES / 2] / CLOCK_MS);
}

/* @nr calls at once; bytes per second, 0 when one was not done. */
static uint64_t rate_of(struct lab *lab, struct s3_call *calls, unsigned int nr)
{
	uint64_t started = clock_now(), taken;
	bool good = true;
	unsigned int i;
	sem_t done;

	sem_init(&done, 0, 0);
	for (i = 0; i < nr; i++) {
		calls[i].done = rival_done;
		calls[i].context = &done;
		s3_submit(lab->client, &calls[i]);
	}
	for (i = 0; i < nr; i++)
		while (sem_wait(&done) < 0)
			;
	taken = clock_now() - started;
	for (i = 0; i < nr; i++) {
		good &= calls[i].outcome == STORE_DONE;
		s3_call_free(&calls[i]);
	}
	sem_destroy(&done);
	return good && taken ? (uint64_t)((double)nr * LARGE * CLOCK_SECOND / (double)taken) : 0;
}

static void look_at_rates(struct lab *lab)
{
	struct s3_call *calls = calloc(NR_READS, sizeof(*calls));
	char *content = malloc(LARGE), a[UNITS_TEXT], b[UNITS_TEXT];
	struct iovec iov = { content, LARGE };
	const char *keys[NR_LARGE];
	uint64_t put, get;
	unsigned int i;

	if (!calls || !content)
		goto out;
	random_bytes(content, LARGE);
	for (i = 0; i < NR_LARGE; i++) {
		keys[i] = lab_key(lab);
		if (!keys[i])
			goto out;
		lab_fill(lab, &calls[i], "PUT", keys[i], NULL, NO_HEADERS);
		calls[i].body = &iov;
		calls[i].nr_body = 1;
		calls[i].body_count = LARGE;
	}
	put = rate_of(lab, calls, NR_LARGE);
	for (i = 0; i < NR_READS; i++) {
		lab_fill(lab, &calls[i], "GET", keys[i % NR_LARGE], NULL, NO_HEADERS);
		calls[i].text_max = LARGE;
	}
	get = put ? rate_of(lab, calls, NR_READS) : 0;
	if (get)
		note(lab->findings, "throughput", true, NULL,
		     "about %s/s written, %s/s read, by a few objects of 1 MiB at once",
		     size_format(put, a), size_format(get, b));
out:
	free(calls);
	free(content);
}

/* ---- all of it --------------------------------------------------------------------- */

static void look_at_volume(struct lab *lab)
{
	char key[STORE_KEY_MAX];
	enum store_outcome outcome;

	snprintf(key, sizeof(key), "%s/head", lab->prefix);
	outcome = lab_get(lab, key, NULL, NO_HEADERS, NULL);
	lab_want(lab, "volume", outcome == STORE_DONE || outcome == STORE_ABSENT,
	     outcome == STORE_DONE ? "there is one (objmap info)"
				   : "none yet; objmap create makes one", NULL);
}

static void try_all(struct lab *lab)
{
	const char *key;
	char tag[STORE_TAG_MAX];

	if (!look_at_bucket(lab))
		return;
	look_at_volume(lab);
	key = lab_key(lab);
	if (!look_at_objects(lab, key, tag))
		return;
	if (!atomic_load(&stop))
		look_at_conditions(lab, key, tag);
	if (!atomic_load(&stop))
		look_at_rivals(lab);
	if (!atomic_load(&stop))
		look_at_listing(lab);
	if (!atomic_load(&stop))
		look_at_uploads(lab);
	if (!atomic_load(&stop))
		look_at_settings(lab);
	if (!atomic_load(&stop))
		look_at_latency(lab, key);
	if (!atomic_load(&stop))
		look_at_rates(lab);
}

/* Also what may exist only because a reply was lost. */
static void clean_up(struct lab *lab)
{
	bool stopped = atomic_exchange(&stop, false), left = false;
	char why[sizeof(lab->why)] = "";
	enum store_outcome outcome;
	unsigned int i;

	for (i = 0; i < lab->nr_keys; i++) {
		outcome = lab_delete(lab, lab->keys[i]);
		if (outcome != STORE_DONE && outcome != STORE_ABSENT) {
			left = true;
			snprintf(why, sizeof(why), "%s", lab->why);
		}
		free(lab->keys[i]);
	}
	if (left)
		note(lab->findings, "cleaning up", false,
		     "objmap gc of a volume there does it later, or delete PREFIX/probe/",
		     "not all could be deleted: %s", why[0] ? why : "no answer");
	if (stopped) {
		note(lab->findings, "trials", false, "let it run to its end",
		     "ended by a signal");
		lab->findings->place_failed = true;
	}
}

void look_at_s3(const struct options *options, struct findings *findings,
		const struct place *place)
{
	struct lab lab = { .findings = findings, .prefix = place->path,
			   .stop = &stop };
	struct store_open_options how;
	struct s3_options s3;
	char why[512];
	int error;

	open_options(options, &how);
	/* Not less than a server that is only slow may need. */
	lab.patience = how.retry_for < PATIENCE ? PATIENCE : how.retry_for;
	log_capture(why, sizeof(why));
	error = place_s3_options(place, &how.s3, &s3);
	if (!error)
		error = s3_client_open(place->base, place->bucket, &s3, &lab.client);
	log_capture(NULL, 0);
	if (error) {
		note(findings, "credentials", false,
		     "put that right; objmap-s3(7) says where they are looked for",
		     "%s", why);
		findings->place_failed = true;
		return;
	}
	stop_on_signals();
	try_all(&lab);
	clean_up(&lab);
	s3_client_close(lab.client);
}
