/* test-place.c: places, and the nearest word. */
#include <criterion/criterion.h>
#include <errno.h>
#include <string.h>

#include "src/log.h"
#include "src/nearest.h"
#include "src/place.h"

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
