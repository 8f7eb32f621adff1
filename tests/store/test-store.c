/* test-store.c: what every store must do. */
#include <criterion/criterion.h>
#include <criterion/parameterized.h>
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "src/crc32c.h"
#include "src/random.h"
#include "tests/store/given.h"
#include "tests/store/stores.h"

static int which[NR_TESTED_STORES];

/* A claim about every store, on a fresh one called t. */
#define CLAIM(NAME)							\
	static void NAME(struct tested_store *t);			\
	ParameterizedTestParameters(store, NAME)			\
	{								\
		return cr_make_param_array(int, which, tested_stores(which)); \
	}								\
	ParameterizedTest(int *index, store, NAME, .timeout = 300)	\
	{								\
		struct tested_store tested;				\
		tested_store_open(&tested, *index);			\
		NAME(&tested);						\
		tested_store_close(&tested);				\
	}								\
	static void NAME(struct tested_store *t)

static enum store_outcome put(struct store *store, const char *key, const char *text,
			      enum store_condition condition, const char *tag,
			      struct store_reply *reply)
{
	return store_put_object(store, key, CAUSE_PUSH, text, strlen(text), condition,
				tag, reply);
}

static void must_put(struct store *store, const char *key, const char *text)
{
	cr_assert_eq(put(store, key, text, STORE_ALWAYS, NULL, NULL), STORE_DONE,
		     "put %s", key);
}

static void must_hold(struct store *store, const char *key, const char *text)
{
	struct store_reply reply;
	size_t count;
	void *data;

	cr_assert_eq(store_get_object(store, key, CAUSE_DEMAND, 1 << 20, &data, &count,
				      &reply), STORE_DONE, "get %s", key);
	cr_assert_eq(count, strlen(text));
	cr_assert_arr_eq(data, text, count);
	cr_assert_eq(reply.size, count);
	free(data);
}

static enum store_outcome get_range(struct store *store, const char *key, char *buffer,
				    uint64_t count, uint64_t offset, const char *tag,
				    struct store_reply *reply)
{
	struct iovec iov = { .iov_base = buffer, .iov_len = count };
	struct store_request request = {
		.key = key, .offset = offset, .count = count, .iov = &iov, .nr_iov = 1,
		.tag = tag, .condition = tag ? STORE_IF_MATCH : STORE_ALWAYS,
	};
	enum store_outcome outcome = store_wait(store, STORE_GET, &request);

	if (reply)
		*reply = request.reply;
	return outcome;
}

CLAIM(an_object_is_what_was_put_last)
{
	must_put(t->store, "chunk/00/a", "first");
	must_hold(t->other, "chunk/00/a", "first");
	must_put(t->other, "chunk/00/a", "second, longer");
	must_hold(t->store, "chunk/00/a", "second, longer");
}

CLAIM(a_get_brings_the_checksums_of_what_it_got)
{
	char *object = malloc(100000), *buffer = malloc(90000);
	struct iovec iov[] = { { buffer, 33333 }, { buffer + 33333, 90000 - 33333 } };
	uint32_t sums[6] = { 0 }, unit = 16384;
	struct store_request request = {
		.key = "sums", .offset = 777, .count = 90000, .iov = iov, .nr_iov = 2,
		.sums = sums, .sum_unit = unit,
	};
	unsigned int i;

	for (i = 0; i < 100000; i++)
		object[i] = (char)(i * 2654435761u >> 13);
	cr_assert_eq(store_put_object(t->store, "sums", CAUSE_PUSH, object, 100000,
				      STORE_ALWAYS, NULL, NULL), STORE_DONE);
	cr_assert_eq(store_wait(t->other, STORE_GET, &request), STORE_DONE);
	for (i = 0; i < 6; i++)
		cr_expect_eq(sums[i], crc32c(0, object + 777 + i * unit,
					     i < 5 ? unit : 90000 - 5 * unit));
	free(object);
	free(buffer);
}

CLAIM(a_put_may_bring_its_checksums)
{
	char object[50000], buffer[50000];
	struct iovec iov = { object, sizeof(object) };
	uint32_t sums[4], unit = 16384;
	struct store_request request = {
		.key = "brought", .count = sizeof(object), .iov = &iov, .nr_iov = 1,
		.sums = sums, .sum_unit = unit,
	};

	for (unsigned int i = 0; i < sizeof(object); i++)
		object[i] = (char)(i * 2654435761u >> 15);
	crc32c_sum(sums, unit, 0, object, sizeof(object));
	cr_assert_eq(store_wait(t->store, STORE_PUT, &request), STORE_DONE);
	cr_assert_eq(get_range(t->other, "brought", buffer, sizeof(buffer), 0, NULL, NULL),
		     STORE_DONE);
	cr_expect_arr_eq(buffer, object, sizeof(object));
}

CLAIM(an_empty_object_is_an_object)
{
	struct store_reply reply;

	must_put(t->store, "empty", "");
	must_hold(t->store, "empty", "");
	cr_assert_eq(get_range(t->store, "empty", NULL, 0, 0, NULL, &reply), STORE_DONE);
	cr_assert_neq(reply.tag[0], 0);
}

CLAIM(what_was_never_put_is_absent)
{
	struct store_reply reply;
	char byte;

	cr_assert_eq(get_range(t->store, "no", &byte, 1, 0, NULL, NULL), STORE_ABSENT);
	cr_assert_eq(get_range(t->store, "no/such/key", &byte, 1, 0, "x", &reply),
		     STORE_ABSENT);
	cr_assert_neq(reply.date, 0);
}

CLAIM(a_range_is_exact_or_an_error)
{
	struct store_reply reply;
	char buffer[16] = "";

	must_put(t->store, "k", "0123456789");
	cr_assert_eq(get_range(t->store, "k", buffer, 3, 4, NULL, &reply), STORE_DONE);
	cr_assert_arr_eq(buffer, "456", 3);
	cr_assert_eq(reply.count, 3);
	cr_assert_eq(reply.size, 10);
	cr_assert_eq(get_range(t->store, "k", buffer, 10, 0, NULL, NULL), STORE_DONE);
	cr_assert_eq(get_range(t->store, "k", buffer, 3, 8, NULL, &reply), STORE_FAILED);
	cr_assert_eq(reply.error, -ERANGE);
	cr_assert_eq(get_range(t->store, "k", buffer, 1, 10, NULL, &reply), STORE_FAILED);
	cr_assert_eq(get_range(t->store, "k", buffer, 1, 1ull << 40, NULL, &reply),
		     STORE_FAILED);
	cr_assert_eq(reply.error, -ERANGE);
}

CLAIM(the_whole_must_fit)
{
	struct store_reply reply;
	size_t count;
	void *data;

	must_put(t->store, "k", "0123456789");
	cr_assert_eq(store_get_object(t->store, "k", CAUSE_HEAD, 9, &data, &count, &reply),
		     STORE_FAILED);
	cr_assert_eq(reply.error, -EFBIG);
	cr_assert_eq(reply.size, 10);
	cr_assert_null(data);
	cr_assert_eq(store_get_object(t->store, "k", CAUSE_HEAD, 10, &data, &count, &reply),
		     STORE_DONE);
	free(data);
}

CLAIM(many_buffers_are_one_object)
{
	static char out[3000], in[3000];
	struct iovec iov[3000];
	struct store_request request = {
		.key = "k", .iov = iov, .nr_iov = 3000, .count = 3000,
	};
	int i;

	for (i = 0; i < 3000; i++) {
		out[i] = (char)(i * 7);
		iov[i] = (struct iovec){ .iov_base = &out[i], .iov_len = 1 };
	}
	cr_assert_eq(store_wait(t->store, STORE_PUT, &request), STORE_DONE);
	for (i = 0; i < 3000; i++)
		iov[i].iov_base = &in[i];
	cr_assert_eq(store_wait(t->store, STORE_GET, &request), STORE_DONE);
	cr_assert_arr_eq(in, out, sizeof(in));
}

/* Longer than what a bucket takes with one request. */
CLAIM(a_long_object_is_whole_or_not_there)
{
	const size_t count = 19 * 1000 * 1000 + 1;
	struct store_metadata metadata = { 0 };
	struct store_request request = {
		.key = "long", .nr_iov = 3, .count = count, .metadata = &metadata,
		.condition = STORE_IF_ABSENT,
	};
	unsigned char *data = malloc(count), *found = malloc(count);
	struct iovec iov[3] = {
		{ .iov_base = data, .iov_len = 1 },
		{ .iov_base = data + 1, .iov_len = 9 * 1000 * 1000 },
		{ .iov_base = data + 1 + 9 * 1000 * 1000, .iov_len = 10 * 1000 * 1000 },
	};
	struct store_reply reply;
	char value[16];
	size_t i;

	for (i = 0; i < count; i++)
		data[i] = (unsigned char)(i * 2654435761u >> 13);
	cr_assert_eq(store_metadata_add(&metadata, "name", "value"), 0);
	request.iov = iov;
	cr_assert_eq(store_wait(t->store, STORE_PUT, &request), STORE_DONE, "%s",
		     request.reply.message);
	cr_assert_eq(get_range(t->other, "long", (char *)found, count, 0,
			       request.reply.tag, &reply), STORE_DONE);
	cr_assert_eq(memcmp(data, found, count), 0);
	cr_assert_eq(store_metadata_find(&reply.metadata, "name", value, 16), 5);
	cr_assert_eq(get_range(t->other, "long", (char *)found, 3, 9 * 1000 * 1000, NULL,
			       NULL), STORE_DONE);
	cr_assert_arr_eq(found, data + 9 * 1000 * 1000, 3);
	cr_assert_eq(store_wait(t->other, STORE_PUT, &request), STORE_REFUSED);
	request.condition = STORE_IF_MATCH;
	request.tag = reply.tag;
	cr_assert_eq(store_wait(t->other, STORE_PUT, &request), STORE_DONE);
	free(data);
	free(found);
}

CLAIM(metadata_comes_with_every_range)
{
	struct store_metadata metadata = { 0 };
	struct iovec iov = { .iov_base = (char[]){ "0123456789" }, .iov_len = 10 };
	struct store_request request = {
		.key = "k", .iov = &iov, .nr_iov = 1, .count = 10, .metadata = &metadata,
	};
	static char value[1500], found[1500], buffer[4];
	struct store_reply reply;

	memset(value, 'v', 1400);
	cr_assert_eq(store_metadata_add(&metadata, "objmap-volume", "some id"), 0);
	cr_assert_eq(store_metadata_add(&metadata, "objmap-frames", value), 0);
	cr_assert_eq(store_metadata_add(&metadata, "x", value), -E2BIG);
	cr_assert_eq(store_wait(t->store, STORE_PUT, &request), STORE_DONE);
	cr_assert_eq(get_range(t->other, "k", buffer, 4, 3, NULL, &reply), STORE_DONE);
	cr_assert_arr_eq(buffer, "3456", 4);
	cr_assert_eq(store_metadata_find(&reply.metadata, "objmap-frames", found,
					 sizeof(found)), 1400);
	cr_assert_str_eq(found, value);
	cr_assert_eq(store_metadata_find(&reply.metadata, "objmap-volume", found, 8), 7);
	cr_assert_eq(store_metadata_find(&reply.metadata, "objmap-volume", found, 7), -E2BIG);
	cr_assert_eq(store_metadata_find(&reply.metadata, "objmap", found, 8), -ENOENT);
}

CLAIM(if_absent_never_replaces)
{
	struct store_reply reply;

	cr_assert_eq(put(t->store, "p/k", "mine", STORE_IF_ABSENT, NULL, &reply), STORE_DONE);
	cr_assert_neq(reply.tag[0], 0);
	cr_assert_eq(put(t->other, "p/k", "yours", STORE_IF_ABSENT, NULL, NULL),
		     STORE_REFUSED);
	must_hold(t->store, "p/k", "mine");
}

CLAIM(if_match_replaces_only_what_it_names)
{
	struct store_reply first, second;

	cr_assert_eq(put(t->store, "head", "a", STORE_ALWAYS, NULL, &first), STORE_DONE);
	cr_assert_eq(put(t->other, "head", "b", STORE_IF_MATCH, first.tag, &second),
		     STORE_DONE);
	cr_assert_str_neq(first.tag, second.tag);
	cr_assert_eq(put(t->store, "head", "c", STORE_IF_MATCH, first.tag, NULL),
		     STORE_REFUSED);
	must_hold(t->store, "head", "b");
	cr_assert_eq(put(t->store, "none", "c", STORE_IF_MATCH, second.tag, NULL),
		     STORE_REFUSED);
	cr_assert_eq(get_range(t->store, "none", NULL, 0, 0, NULL, NULL), STORE_ABSENT);
}

CLAIM(a_tag_never_comes_back)
{
	const char *place = given_place();
	struct store_reply first, again;

	/* S3's tag is of the content: who needs new tags puts new content. */
	if (place && strncmp(place, "s3:", 3) == 0)
		return;
	cr_assert_eq(put(t->store, "head", "a", STORE_ALWAYS, NULL, &first), STORE_DONE);
	must_put(t->store, "head", "b");
	cr_assert_eq(put(t->store, "head", "a", STORE_ALWAYS, NULL, &again), STORE_DONE);
	cr_assert_str_neq(first.tag, again.tag);
	cr_assert_eq(put(t->store, "head", "c", STORE_IF_MATCH, first.tag, NULL),
		     STORE_REFUSED);
}

CLAIM(get_if_match_never_mixes_versions)
{
	struct store_reply put_reply, reply;
	char buffer[2];

	cr_assert_eq(put(t->store, "k", "one", STORE_ALWAYS, NULL, &put_reply), STORE_DONE);
	cr_assert_eq(get_range(t->other, "k", buffer, 2, 1, put_reply.tag, &reply),
		     STORE_DONE);
	cr_assert_str_eq(reply.tag, put_reply.tag);
	must_put(t->store, "k", "two");
	cr_assert_eq(get_range(t->other, "k", buffer, 2, 1, put_reply.tag, NULL),
		     STORE_REFUSED);
}

CLAIM(times_are_the_stores)
{
	uint64_t before = (uint64_t)time(NULL);
	struct store_reply reply;

	must_put(t->store, "k", "x");
	cr_assert_eq(get_range(t->store, "k", NULL, 0, 0, NULL, &reply), STORE_DONE);
	cr_assert_geq(reply.last_modified + 1, before);
	/* Some servers renew the date they send once a second. */
	cr_assert_leq(reply.last_modified, reply.date + 1);
	cr_assert_leq(reply.date, (uint64_t)time(NULL));
}

CLAIM(deleting_many_leaves_the_others)
{
	const char *keys[] = { "a/1", "a/3", "b/c/1", "missing", "no/folder/1", "a/4" };
	struct store_request request = { .keys = keys, .nr_keys = 6 };

	must_put(t->store, "a/1", "1");
	must_put(t->store, "a/2", "2");
	must_put(t->store, "a/3", "3");
	must_put(t->store, "a/4", "4");
	must_put(t->store, "b/c/1", "1");
	cr_assert_eq(store_wait(t->other, STORE_DELETE, &request), STORE_DONE);
	must_hold(t->store, "a/2", "2");
	cr_assert_eq(get_range(t->store, "a/1", NULL, 0, 0, NULL, NULL), STORE_ABSENT);
	cr_assert_eq(get_range(t->store, "a/3", NULL, 0, 0, NULL, NULL), STORE_ABSENT);
	cr_assert_eq(get_range(t->store, "a/4", NULL, 0, 0, NULL, NULL), STORE_ABSENT);
	cr_assert_eq(get_range(t->store, "b/c/1", NULL, 0, 0, NULL, NULL), STORE_ABSENT);
	must_put(t->store, "b/c/1", "again");
	must_hold(t->store, "b/c/1", "again");
}

/* ---- lists ------------------------------------------------------------------- */

static unsigned int list_all(struct store *store, const char *prefix, char **keys,
			     unsigned int max, unsigned int *pages)
{
	char after[STORE_KEY_MAX] = "";
	unsigned int nr = 0, i;
	bool more = true;

	for (*pages = 0; more; ++*pages) {
		struct store_request request = {
			.key = prefix, .after = after[0] ? after : NULL,
		};
		struct store_listing *listing = &request.reply.listing;

		cr_assert_eq(store_wait(store, STORE_LIST, &request), STORE_DONE);
		more = listing->more;
		cr_assert(!more || listing->nr_entries > 0);
		for (i = 0; i < listing->nr_entries; i++) {
			cr_assert_lt(nr, max);
			keys[nr] = strdup(listing->entries[i].key);
			cr_assert(nr == 0 || strcmp(keys[nr - 1], keys[nr]) < 0,
				  "%s before %s", nr ? keys[nr - 1] : "", keys[nr]);
			nr++;
		}
		if (nr)
			snprintf(after, sizeof(after), "%s", keys[nr - 1]);
		store_listing_free(listing);
	}
	return nr;
}

static void free_keys(char **keys, unsigned int nr)
{
	while (nr-- > 0)
		free(keys[nr]);
}

CLAIM(a_list_is_in_the_order_of_bytes)
{
	/* '-' and '.' sort before '/', '0' behind it. */
	static const char *const sorted[] = {
		"a", "a-b", "a.b/1", "a/1", "a/b/2", "a0", "a0/1", "b", "\xc3\xa9",
	};
	static const char *const put_order[] = {
		"b", "a0/1", "a.b/1", "\xc3\xa9", "a/b/2", "a-b", "a/1",
	};
	char *keys[16];
	unsigned int i, nr, pages, expected = 0;

	for (i = 0; i < 7; i++)
		must_put(t->store, put_order[i], "x");
	nr = list_all(t->store, "", keys, 16, &pages);
	cr_assert_eq(nr, 7);
	for (i = 0; i < 9; i++) {
		if (strcmp(sorted[i], "a") == 0 || strcmp(sorted[i], "a0") == 0)
			continue;
		cr_assert_str_eq(keys[expected++], sorted[i]);
	}
	free_keys(keys, nr);
	nr = list_all(t->store, "a/", keys, 16, &pages);
	cr_assert_eq(nr, 2);
	free_keys(keys, nr);
	nr = list_all(t->store, "a", keys, 16, &pages);
	cr_assert_eq(nr, 5);
	free_keys(keys, nr);
	nr = list_all(t->store, "a/b/2", keys, 16, &pages);
	cr_assert_eq(nr, 1);
	free_keys(keys, nr);
	cr_assert_eq(list_all(t->store, "nothing/", keys, 16, &pages), 0);
	cr_assert_eq(list_all(t->store, "b/", keys, 16, &pages), 0);
}

CLAIM(pages_of_a_list_make_the_whole)
{
	static char *keys[4000];
	char key[64];
	unsigned int i, nr, pages;

	for (i = 0; i < 2300; i++) {
		snprintf(key, sizeof(key), "chunk/%02x/%08x", i % 5, i);
		must_put(t->other, key, "x");
	}
	must_put(t->other, "head", "x");
	nr = list_all(t->store, "chunk/", keys, 4000, &pages);
	cr_assert_eq(nr, 2300);
	cr_assert_eq(pages, 3);
	free_keys(keys, nr);
	nr = list_all(t->store, NULL, keys, 4000, &pages);
	cr_assert_eq(nr, 2301);
	cr_assert_str_eq(keys[2300], "head");
	free_keys(keys, nr);
}

CLAIM(a_full_page_says_whether_there_is_more)
{
	static char *keys[4000];
	char key[64];
	unsigned int i, nr, pages;

	for (i = 0; i < STORE_LIST_MAX; i++) {
		snprintf(key, sizeof(key), "k%04u", i);
		must_put(t->other, key, "x");
	}
	nr = list_all(t->store, "k", keys, 4000, &pages);
	cr_assert_eq(nr, STORE_LIST_MAX);
	cr_assert_eq(pages, 1);
	free_keys(keys, nr);
}

CLAIM(there_are_no_unfinished_uploads)
{
	struct store_request list = { .key = "chunk/" };
	struct store_request abort = { .key = "chunk/1", .upload = "x" };

	cr_assert_eq(store_wait(t->store, STORE_LIST_UPLOADS, &list), STORE_DONE);
	cr_assert_eq(list.reply.listing.nr_entries, 0);
	cr_assert_eq(store_wait(t->store, STORE_ABORT_UPLOAD, &abort), STORE_DONE);
}

CLAIM(the_probe_finds_conditions_kept_and_leaves_nothing)
{
	struct store_request request = { .key = "probe/0123456789abcdef" };
	char *keys[1];
	unsigned int pages;

	cr_assert_eq(store_wait(t->store, STORE_PROBE, &request), STORE_DONE);
	cr_assert_eq(list_all(t->store, "", keys, 1, &pages), 0);
}

CLAIM(keys_that_cannot_be_are_refused)
{
	static const char *const bad[] = {
		"", "/a", "a/", "a//b", ".", "..", "a/..", "../a", "a/./b", "a\nb",
		"\x7f", "a/../../etc/passwd",
	};
	static char long_key[STORE_KEY_MAX + 1];
	struct store_reply reply;
	size_t i;

	for (i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		cr_assert_eq(put(t->store, bad[i], "x", STORE_ALWAYS, NULL, &reply),
			     STORE_FAILED, "'%s'", bad[i]);
		cr_assert_eq(reply.error, -EINVAL);
		/* A get may name a clone's parent, from the top. */
		if (strcmp(bad[i], "/a") == 0)
			continue;
		cr_assert_eq(get_range(t->store, bad[i], NULL, 0, 0, NULL, &reply),
			     STORE_FAILED);
		cr_assert_eq(reply.error, -EINVAL);
	}
	memset(long_key, 'k', STORE_KEY_MAX);
	cr_assert_eq(put(t->store, long_key, "x", STORE_ALWAYS, NULL, &reply), STORE_FAILED);
	must_put(t->store, "a/...", "dots are letters elsewhere");
}

CLAIM(a_cancelled_request_is_not_sent)
{
	struct store_request request = { .key = "k", .cancelled = true };
	struct store_request absent = { .key = "k" };

	cr_assert_eq(store_wait(t->store, STORE_PUT, &request), STORE_FAILED);
	cr_assert_eq(request.reply.error, -ECANCELED);
	cr_assert_eq(store_wait(t->store, STORE_GET, &absent), STORE_ABSENT);
}

/* ---- races --------------------------------------------------------------------- */

#define RACERS 6
#define ROUNDS 20

struct race {
	struct store *store;
	enum store_condition condition;
	char key[32], tag[STORE_TAG_MAX], text[48];
	enum store_outcome outcome;
	char new_tag[STORE_TAG_MAX];
};

static void *race_run(void *context)
{
	struct race *race = context;
	struct store_reply reply;

	race->outcome = put(race->store, race->key, race->text, race->condition,
			    race->tag, &reply);
	strcpy(race->new_tag, reply.tag);
	return NULL;
}

/* Lets all racers put at once; returns the one that won. */
static struct race *race_round(struct tested_store *t, struct race race[RACERS])
{
	pthread_t threads[RACERS];
	struct race *winner = NULL;
	int i;

	for (i = 0; i < RACERS; i++) {
		race[i].store = i % 2 ? t->store : t->other;
		/* New content in every round: a tag may be of the content. */
		snprintf(race[i].text, sizeof(race[i].text), "racer %d, %llx", i,
			 (unsigned long long)random_id());
		pthread_create(&threads[i], NULL, race_run, &race[i]);
	}
	for (i = 0; i < RACERS; i++) {
		pthread_join(threads[i], NULL);
		if (race[i].outcome != STORE_DONE) {
			cr_assert_eq(race[i].outcome, STORE_REFUSED);
			continue;
		}
		cr_assert_null(winner, "two won");
		winner = &race[i];
	}
	cr_assert_not_null(winner, "nobody won");
	must_hold(t->store, winner->key, winner->text);
	return winner;
}

CLAIM(of_many_if_absent_one_wins)
{
	struct race race[RACERS];
	int round, i;

	for (round = 0; round < ROUNDS; round++) {
		for (i = 0; i < RACERS; i++) {
			race[i].condition = STORE_IF_ABSENT;
			snprintf(race[i].key, sizeof(race[i].key), "r/%d/k", round);
		}
		race_round(t, race);
	}
}

CLAIM(of_many_if_match_one_wins)
{
	struct race race[RACERS], *winner;
	char tag[STORE_TAG_MAX];
	struct store_reply reply;
	int round, i;

	cr_assert_eq(put(t->store, "head", "x", STORE_ALWAYS, NULL, &reply), STORE_DONE);
	strcpy(tag, reply.tag);
	for (round = 0; round < ROUNDS; round++) {
		for (i = 0; i < RACERS; i++) {
			race[i].condition = STORE_IF_MATCH;
			strcpy(race[i].key, "head");
			strcpy(race[i].tag, tag);
		}
		winner = race_round(t, race);
		strcpy(tag, winner->new_tag);
	}
}

/* ---- random operations against what they should have done ------------------------- */

#define NR_KEYS 24

struct expected {
	char key[16], text[256], tag[STORE_TAG_MAX];
	size_t count;
	bool there;
};

static void random_put(struct store *store, struct random *random, struct expected *e)
{
	char text[256], old_tag[STORE_TAG_MAX];
	size_t count = (size_t)random_below(random, sizeof(text)), i;
	enum store_condition condition = (enum store_condition)random_below(random, 3);
	bool right_tag = e->there && random_below(random, 2);
	struct store_reply reply;
	enum store_outcome outcome;
	bool holds = condition == STORE_ALWAYS ||
		     (condition == STORE_IF_ABSENT ? !e->there : right_tag);

	for (i = 0; i < count; i++)
		text[i] = (char)random_next(random);
	strcpy(old_tag, right_tag ? e->tag : "0000000000000000");
	outcome = store_put_object(store, e->key, CAUSE_PUSH, text, count, condition,
				   old_tag, &reply);
	cr_assert_eq(outcome, holds ? STORE_DONE : STORE_REFUSED);
	if (!holds)
		return;
	memcpy(e->text, text, count);
	e->count = count;
	e->there = true;
	strcpy(e->tag, reply.tag);
}

static void random_get(struct store *store, struct random *random,
		       const struct expected *e)
{
	uint64_t offset = random_below(random, 256), count = random_below(random, 256);
	bool inside = offset <= e->count && count <= e->count - offset;
	char buffer[256];
	struct store_reply reply;
	enum store_outcome outcome = get_range(store, e->key, buffer, count, offset, NULL,
					       &reply);

	cr_assert_eq(outcome, !e->there ? STORE_ABSENT : inside ? STORE_DONE : STORE_FAILED);
	if (outcome == STORE_DONE) {
		cr_assert_arr_eq(buffer, e->text + offset, count);
		cr_assert_str_eq(reply.tag, e->tag);
	}
}

static void check_list(struct store *store, const struct expected *e)
{
	char *keys[NR_KEYS];
	unsigned int pages, nr = list_all(store, "w/", keys, NR_KEYS, &pages), i, seen = 0;

	for (i = 0; i < NR_KEYS; i++)
		if (e[i].there)
			cr_assert_str_eq(keys[seen++], e[i].key);
	cr_assert_eq(nr, seen);
	free_keys(keys, nr);
}

CLAIM(random_operations_do_what_they_should)
{
	struct expected e[NR_KEYS];
	struct random random;
	uint64_t seed = random_id();
	unsigned int step, i;

	memset(e, 0, sizeof(e));
	fprintf(stderr, "%s: seed %llu\n", t->name, (unsigned long long)seed);
	random_seed(&random, seed);
	for (i = 0; i < NR_KEYS; i++)
		snprintf(e[i].key, sizeof(e[i].key), "w/%u/%02u", i / 8, i);
	for (step = 0; step < 1500; step++) {
		struct store *store = random_below(&random, 2) ? t->store : t->other;
		struct expected *one = &e[random_below(&random, NR_KEYS)];
		const char *keys[1] = { one->key };
		struct store_request request = { .keys = keys, .nr_keys = 1 };

		switch (random_below(&random, 8)) {
		case 0:
			cr_assert_eq(store_wait(store, STORE_DELETE, &request), STORE_DONE);
			one->there = false;
			one->count = 0;
			break;
		case 1:
			check_list(store, e);
			break;
		case 2: case 3: case 4:
			random_put(store, &random, one);
			break;
		default:
			random_get(store, &random, one);
		}
	}
}
