/* test-place.c: places, and the nearest word. */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "src/log.h"
#include "src/nearest.h"
#include "src/place.h"
#include "src/place_s3.h"

static char said[2048];

static int parse(const char *text, struct place *place)
{
	int error;

	log_open("/dev/null", LOG_LEVEL_ERROR);
	log_capture(said, sizeof(said));
	error = place_parse(text, 0, place);
	log_capture(NULL, 0);
	return error;
}

Test(place, a_snapshot_is_named_after_the_last_unescaped_at_behind_the_last_slash)
{
	static const struct {
		const char *text, *path, *snapshot, *base;
	} cases[] = {
		{ "dir:/a/b", "/a/b", NULL, "dir:/a/b" },
		{ "dir:/a/b@n", "/a/b", "n", "dir:/a/b" },
		{ "dir:/a@x/b", "/a@x/b", NULL, "dir:/a@x/b" },
		{ "dir:/a@x/b@n", "/a@x/b", "n", "dir:/a@x/b" },
		{ "dir:a%40b@n", "a@b", "n", "dir:a%40b" },
		{ "dir:/a%40n", "/a@n", NULL, "dir:/a%40n" },
		{ "dir:/a%40b@n%20o", "/a@b", "n o", "dir:/a%40b" },
		{ "dir:a@n?network=yes", "a", "n", "dir:a" },
		{ "dir:a%3fb", "a?b", NULL, "dir:a%3fb" },
		{ "file:/a@n", "/a@n", NULL, "file:/a@n" },
		{ "memory:1G", "1G", NULL, "memory:1G" },
	};
	struct place place;
	unsigned int i;

	for (i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		cr_assert_eq(parse(cases[i].text, &place), 0, "%s: %s",
			     cases[i].text, said);
		cr_expect_str_eq(place.path, cases[i].path, "%s", cases[i].text);
		cr_expect_str_eq(place.base, cases[i].base, "%s", cases[i].text);
		if (cases[i].snapshot)
			cr_expect_str_eq(place.snapshot, cases[i].snapshot);
		else
			cr_expect_null(place.snapshot, "%s", cases[i].text);
		place_free(&place);
	}
}

Test(place, two_ats_in_the_last_component_are_ambiguous)
{
	struct place place;

	cr_expect_eq(parse("dir:a@b@n", &place), -EINVAL);
	cr_expect_not_null(strstr(said, "%40"), "%s", said);
	cr_assert_eq(parse("dir:a@b/c@n", &place), 0, "%s", said);
	place_free(&place);
}

Test(place, parameters_are_decoded_and_an_unknown_or_second_one_is_refused)
{
	struct place place;

	cr_assert_eq(parse("mem:x?size=1%47&chunk-size=64K", &place), 0);
	cr_expect_str_eq(place_param(&place, "size"), "1G");
	cr_expect_str_eq(place_param(&place, "chunk-size"), "64K");
	cr_expect_null(place_param(&place, "network"));
	place_free(&place);
	cr_expect_eq(parse("mem:x?sizes=1G", &place), -EINVAL);
	cr_expect_not_null(strstr(said, "did you mean 'size'?"), "%s", said);
	cr_expect_eq(parse("mem:x?size=1G&size=2G", &place), -EINVAL);
	cr_expect_not_null(strstr(said, "given twice"), "%s", said);
	cr_expect_eq(parse("mem:x?size", &place), -EINVAL);
	cr_expect_not_null(strstr(said, "needs a value"), "%s", said);
	cr_expect_eq(parse("file:x?size=1", &place), -EINVAL);
	cr_expect_not_null(strstr(said, "%3f"), "%s", said);
}

Test(place, a_broken_escape_is_refused_and_nothing_behind_the_end_is_read)
{
	static const char *const broken[] = {
		"dir:%", "dir:a%4", "dir:a%zz", "dir:a%00", "dir:a@%", "dir:a@n%4",
		"mem:x?%=1", "mem:x?size=%4", "dir:%4@0",
	};
	struct place place;
	unsigned int i;

	for (i = 0; i < sizeof(broken) / sizeof(broken[0]); i++) {
		cr_expect_eq(parse(broken[i], &place), -EINVAL, "%s", broken[i]);
		cr_expect_not_null(strstr(said, "two hexadecimal digits"), "%s", said);
	}
}

Test(place, a_plain_path_is_taken_as_it_is_where_the_verb_takes_files)
{
	static const char *const paths[] = { "a%40b", "./dir:x", "/x?y", "a@b" };
	struct place place;
	unsigned int i;

	for (i = 0; i < sizeof(paths) / sizeof(paths[0]); i++) {
		cr_assert_eq(place_parse(paths[i], PLACE_FILE, &place), 0);
		cr_expect_str_eq(place.scheme, "file");
		cr_expect_str_eq(place.path, paths[i]);
		place_free(&place);
		cr_expect_eq(parse(paths[i], &place), -EINVAL, "%s", paths[i]);
	}
}

/* ---- s3: ------------------------------------------------------------------------ */

Test(place_s3, bucket_prefix_and_snapshot_are_told_apart)
{
	static const struct {
		const char *text, *bucket, *path, *snapshot, *base;
	} cases[] = {
		{ "s3://images/vm7", "images", "vm7", NULL, "s3://images/vm7" },
		{ "s3://im.a-9/a/b@n", "im.a-9", "a/b", "n", "s3://im.a-9/a/b" },
		{ "s3://images/a@b/c", "images", "a@b/c", NULL, "s3://images/a@b/c" },
		{ "s3://images/a%40b%3f", "images", "a@b?", NULL, "s3://images/a%40b%3f" },
		{ "s3://images/v?region=eu-1", "images", "v", NULL, "s3://images/v" },
		{ "s3://images/v@n?sse=AES256", "images", "v", "n", "s3://images/v" },
	};
	struct place place;
	unsigned int i;

	for (i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		cr_assert_eq(parse(cases[i].text, &place), 0, "%s: %s",
			     cases[i].text, said);
		cr_expect_str_eq(place.bucket, cases[i].bucket);
		cr_expect_str_eq(place.path, cases[i].path);
		cr_expect_str_eq(place.base, cases[i].base);
		cr_expect(cases[i].snapshot ? place.snapshot &&
			  !strcmp(place.snapshot, cases[i].snapshot) : !place.snapshot);
		place_free(&place);
	}
}

Test(place_s3, names_that_cannot_be_are_refused_with_the_reason)
{
	static const struct { const char *text, *says; } cases[] = {
		{ "s3:images/vm", "s3://BUCKET/" }, { "s3:/images/vm", "s3://BUCKET/" },
		{ "s3://Images/vm", "lower-case" }, { "s3://im_a/vm", "lower-case" },
		{ "s3://im/vm", "3 to 63" }, { "s3://-ima/vm", "no bucket's name" },
		{ "s3://ima-/vm", "no bucket's name" }, { "s3://i..a/vm", "no bucket's" },
		{ "s3://192.168.5.4/vm", "no bucket's name" }, { "s3:///vm", "no bucket's" },
		{ "s3://im%61ges/vm", "no bucket's name" },
		{ "s3://images", "a bucket only" }, { "s3://images/", "a bucket only" },
		{ "s3://images/@n", "a bucket only" }, { "s3://images@n", "a bucket only" },
		{ "s3://images/a/", "does not end in '/'" },
		{ "s3://images//a", "no empty" }, { "s3://images/a//b", "no empty" },
		{ "s3://images/./a", "no empty" }, { "s3://images/a/..", "no empty" },
		{ "s3://images/a%0ab", "control" },
		{ "s3://images/a@n@m", "%40" }, { "s3://images/a@", "no snapshot" },
	};
	char text[600] = "s3://images/";
	struct place place;
	unsigned int i;

	for (i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		cr_expect_eq(parse(cases[i].text, &place), -EINVAL, "%s", cases[i].text);
		cr_expect_not_null(strstr(said, cases[i].says), "%s: %s", cases[i].text,
				   said);
	}
	memset(text + 12, 'a', 512);
	cr_assert_eq(parse(text, &place), 0);
	place_free(&place);
	text[12 + 512] = 'a';
	cr_expect_eq(parse(text, &place), -EINVAL);
}

Test(place_s3, where_volumes_are_listed_a_bucket_or_folder_will_do)
{
	static const struct { const char *text, *path; } cases[] = {
		{ "s3://images", "" }, { "s3://images/", "" }, { "s3://images/a/", "a" },
		{ "s3://images/a/b", "a/b" }, { "s3://images?region=x", "" },
	};
	struct place place;
	unsigned int i;

	for (i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		cr_assert_eq(place_parse(cases[i].text, PLACE_FOLDER, &place), 0);
		cr_expect_str_eq(place.path, cases[i].path);
		place_free(&place);
	}
	log_capture(said, sizeof(said));
	cr_expect_eq(place_parse("s3://images//", PLACE_FOLDER, &place), -EINVAL);
	cr_expect_eq(place_parse("s3://images/@n", PLACE_FOLDER, &place), -EINVAL);
	log_capture(NULL, 0);
}

Test(place_s3, what_the_place_says_wins_over_the_options)
{
	const struct s3_options given = { .region = "here", .connections = 5,
					  .requester_pays = true, .profile = "p" };
	struct s3_options options;
	struct place place;

	cr_assert_eq(parse("s3://images/v?region=there&connections=7&requester-pays=no"
			   "&part-size=16M&addressing=virtual&tags=a%3db%26c%3dd", &place),
		     0, "%s", said);
	cr_assert_eq(place_s3_options(&place, &given, &options), 0);
	cr_expect_str_eq(options.region, "there");
	cr_expect_str_eq(options.profile, "p");
	cr_expect_str_eq(options.tags, "a=b&c=d");
	cr_expect_eq(options.connections, 7);
	cr_expect_eq(options.part_size, 16 << 20);
	cr_expect_eq(options.addressing, S3_VIRTUAL);
	cr_expect_not(options.requester_pays);
	place_free(&place);
}

Test(place_s3, parameters_that_cannot_be_are_refused)
{
	static const char *const cases[] = {
		"connections=0", "connections=x", "connections=100000", "part-size=1M",
		"multipart-threshold=6G", "sse=des", "requester-pays=maybe",
		"addressing=auto", "region=", "regio=x", "exclusive=yes", "size=1G",
		"region=a&region=b",
	};
	const struct s3_options none = { 0 };
	struct s3_options options;
	struct place place;
	char text[200];
	unsigned int i;

	for (i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		snprintf(text, sizeof(text), "s3://images/v?%s", cases[i]);
		cr_expect_eq(parse(text, &place), -EINVAL, "%s", text);
	}
	cr_expect_eq(parse("s3+object://images/v?multipart-threshold=6M", &place),
		     -EINVAL, "a version is never one PUT");
	/* Only with the options is it known what stands together. */
	cr_assert_eq(parse("s3://images/v?sse-kms-key=k", &place), 0);
	log_capture(said, sizeof(said));
	cr_expect_eq(place_s3_options(&place, &none, &options), -EINVAL);
	log_capture(NULL, 0);
	place_free(&place);
}

Test(place_s3, one_store_is_one_bucket_of_one_server)
{
	static const struct { const char *a, *b; bool same; } cases[] = {
		{ "s3://images/a", "s3://images/b", true },
		{ "s3://images/a", "s3://imagez/a", false },
		{ "s3://images/a?endpoint-url=http://x/", "s3://images/b", true },
		{ "s3://images/a?endpoint-url=http://y", "s3://images/b", false },
		{ "s3://images/a?endpoint-url=http://y&region=r",
		  "s3://images/b?endpoint-url=HTTP://y//", true },
		{ "s3://images/a", "dir:/images/b", false },
		{ "dir:/a", "dir:/b", true },
	};
	const struct s3_options given = { .endpoint_url = "http://x" };
	struct place a, b;
	unsigned int i;

	for (i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		cr_assert_eq(parse(cases[i].a, &a), 0);
		cr_assert_eq(parse(cases[i].b, &b), 0);
		cr_expect_eq(place_same_store(&a, &b, &given), cases[i].same, "%s",
			     cases[i].a);
		place_free(&a);
		place_free(&b);
	}
}

Test(nearest, one_slip_is_understood_and_another_word_is_not_guessed)
{
	static const char *const words[] = { "create", "copy", "clone", "gc", NULL };

	cr_expect_str_eq(nearest_word("crate", words), "create");
	cr_expect_str_eq(nearest_word("ceate", words), "create");
	cr_expect_str_eq(nearest_word("coyp", words), "copy");
	cr_expect_str_eq(nearest_word("colne", words), "clone");
	cr_expect_null(nearest_word("mount", words));
	cr_expect_null(nearest_word("", words));
	cr_expect_null(nearest_word("a word that is far longer than any that we know of", words));
}

Test(place, a_URL_is_taken_whole_and_shown_without_what_may_be_a_key)
{
	static const struct {
		const char *text, *path, *shown, *base;
	} cases[] = {
		{ "http://h/a%20b@c", "http://h/a%20b@c", "http://h/a%20b@c",
		  "http://h/a%20b@c" },
		{ "https://h:8443/a@n?sig=%2F&x@y", "https://h:8443/a@n?sig=%2F&x@y",
		  "https://h:8443/a@n?...", "https://h:8443/a@n" },
	};
	struct place place, copy;

	for (unsigned int i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		cr_assert_eq(parse(cases[i].text, &place), 0, "%s", said);
		cr_assert_eq(place_copy(&place, &copy), 0);
		place_free(&place);
		cr_expect_str_eq(copy.path, cases[i].path);
		cr_expect_str_eq(copy.text, cases[i].shown);
		cr_expect_str_eq(copy.base, cases[i].base);
		cr_expect_null(copy.snapshot);
		cr_expect_not(copy.is_volume);
		place_free(&copy);
	}
}

Test(place, a_URL_that_cannot_be_is_told_without_a_password)
{
	static const struct {
		const char *text, *says;
	} cases[] = {
		{ "http://me:hunter2@h/a", "user and password" },
		{ "https://me@h/a", "user and password" },
		{ "http:/h/a", "http://HOST/PATH" },
		{ "http:", "http://HOST/PATH" },
		{ "http:///a", "no host" },
		{ "http://?a", "no host" },
		{ "http://h/a b", "no spaces" },
	};
	struct place place;

	for (unsigned int i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		cr_assert_eq(parse(cases[i].text, &place), -EINVAL, "%s", cases[i].text);
		cr_expect(strstr(said, cases[i].says), "%s: %s", cases[i].text, said);
		cr_expect_null(strstr(said, "hunter2"));
	}
}
