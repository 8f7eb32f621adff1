/* units.c: reads and prints sizes and times as people write them. */
#include <errno.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "src/units.h"

#define NS_MS	1000000ull
#define NS_S	1000000000ull

struct unit {
	const char *name;
	uint64_t factor;
};

static const struct unit time_units[] = {
	{ "", NS_S }, { "ns", 1 }, { "us", 1000 }, { "ms", NS_MS }, { "s", NS_S },
	{ "min", 60 * NS_S }, { "h", 3600 * NS_S }, { "d", 86400 * NS_S },
	{ NULL, 0 }
};

/* The factor of a size's unit: "", "B", or K M G T P E with B or iB or neither
 * after it; 0: it is none. */
static uint64_t size_unit(const char *unit)
{
	static const char prefixes[] = "KMGTPE";
	const char *prefix;
	char upper;

	if (!*unit || strcasecmp(unit, "B") == 0)
		return 1;
	upper = (char)(*unit & ~0x20);
	prefix = upper ? strchr(prefixes, upper) : NULL;
	if (!prefix || (unit[1] && strcasecmp(unit + 1, "B") != 0 &&
			strcasecmp(unit + 1, "iB") != 0))
		return 0;
	return 1ull << 10 * (prefix - prefixes + 1);
}

static uint64_t time_unit(const char *name)
{
	const struct unit *unit = time_units;

	while (unit->name && strcmp(unit->name, name) != 0)
		unit++;
	return unit->factor;
}

/* Reads DIGITS[.DIGITS], and leaves the number as whole + fraction / scale. */
static int number_parse(const char **text, uint64_t *whole, uint64_t *fraction,
			uint64_t *scale)
{
	const char *c = *text;
	bool overflow = false;

	*whole = *fraction = 0;
	*scale = 1;
	if (*c < '0' || *c > '9')
		return -EINVAL;
	for (; *c >= '0' && *c <= '9'; c++)
		overflow |= __builtin_mul_overflow(*whole, 10, whole) ||
			    __builtin_add_overflow(*whole, (uint64_t)(*c - '0'), whole);
	if (*c == '.') {
		c++;
		if (*c < '0' || *c > '9')
			return -EINVAL;
		for (; *c >= '0' && *c <= '9'; c++) {
			if (*scale >= 1000000000)
				continue;	/* finer than anybody means */
			*fraction = *fraction * 10 + (uint64_t)(*c - '0');
			*scale *= 10;
		}
	}
	*text = c;
	return overflow ? -ERANGE : 0;
}

/* @text is a number and a unit whose factor @unit knows. */
static int quantity_parse(const char *text, uint64_t (*unit)(const char *),
			  uint64_t *result)
{
	uint64_t whole, fraction, scale, factor;
	unsigned __int128 sum;
	int error = number_parse(&text, &whole, &fraction, &scale);

	factor = error == -EINVAL ? 0 : unit(text);
	if (!factor)
		return -EINVAL;
	if (error)
		return error;
	sum = (unsigned __int128)whole * factor +
	      (unsigned __int128)fraction * factor / scale;
	/* "1.3" bytes are no size. */
	if (factor == 1 && fraction)
		return -EINVAL;
	if (sum > UINT64_MAX)
		return -ERANGE;
	*result = (uint64_t)sum;
	return 0;
}

int size_parse(const char *text, uint64_t *bytes)
{
	return quantity_parse(text, size_unit, bytes);
}

int time_parse(const char *text, uint64_t *ns)
{
	if (strcmp(text, "inf") == 0) {
		*ns = UINT64_MAX;
		return 0;
	}
	return quantity_parse(text, time_unit, ns);
}

const char *size_format(uint64_t bytes, char text[UNITS_TEXT])
{
	static const char *const names[] = { "B", "KiB", "MiB", "GiB", "TiB",
					     "PiB", "EiB" };
	int i = 0;

	while (i < 6 && bytes >> 10 * (i + 1))
		i++;
	if (bytes & ((1ull << 10 * i) - 1))
		snprintf(text, UNITS_TEXT, "%.1f %s",
			 (double)bytes / (double)(1ull << 10 * i), names[i]);
	else
		snprintf(text, UNITS_TEXT, "%" PRIu64 " %s", bytes >> 10 * i,
			 names[i]);
	return text;
}

const char *time_format(uint64_t ns, char text[UNITS_TEXT])
{
	static const struct unit units[] = {
		{ "d", 86400 * NS_S }, { "h", 3600 * NS_S }, { "min", 60 * NS_S },
		{ "s", NS_S }, { "ms", NS_MS }, { "us", 1000 }, { "ns", 1 },
	};
	const struct unit *unit = units;

	if (ns == UINT64_MAX)
		return strcpy(text, "inf");
	if (ns == 0)
		return strcpy(text, "0 s");
	while (ns < unit->factor)
		unit++;
	if (ns % unit->factor)
		snprintf(text, UNITS_TEXT, "%.1f %s",
			 (double)ns / (double)unit->factor, unit->name);
	else
		snprintf(text, UNITS_TEXT, "%" PRIu64 " %s", ns / unit->factor,
			 unit->name);
	return text;
}
