/* parts.c: cuts an object into parts that are sent or copied; see parts.h. */
#include "backends/object/parts.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

void parts_free(struct part_list *list)
{
	free(list->parts);
	memset(list, 0, sizeof(*list));
}

static int add(struct part_list *list, uint64_t offset, uint64_t count, bool copy)
{
	if (list->nr == list->room) {
		unsigned int room = list->room ? list->room * 2 : 64;
		void *grown = realloc(list->parts, room * sizeof(*list->parts));

		if (!grown)
			return -ENOMEM;
		list->parts = grown;
		list->room = room;
	}
	list->parts[list->nr++] = (struct object_part){ offset, count, copy };
	return 0;
}

/* Bytes [start, end) in @pieces parts of about the same length. */
static int add_pieces(struct part_list *list, uint64_t start, uint64_t end,
		      uint64_t pieces, bool copy, unsigned int nr_max)
{
	for (; start < end && pieces; pieces--) {
		uint64_t count = (end - start) / pieces;
		int error;

		if (list->nr > nr_max)
			return -E2BIG;
		error = add(list, start, count, copy);
		if (error)
			return error;
		start += count;
	}
	return 0;
}

static int add_copy(struct part_list *list, uint64_t start, uint64_t end,
		    const struct part_limits *limits)
{
	uint64_t pieces = (end - start + limits->copy_max - 1) / limits->copy_max;

	return add_pieces(list, start, end, pieces, true, limits->nr_max);
}

/* Rounded down: no piece is shorter than what is wanted. */
static int add_sent(struct part_list *list, uint64_t start, uint64_t end,
		    const struct part_limits *limits)
{
	uint64_t pieces = (end - start) / limits->send;

	return add_pieces(list, start, end, pieces ? pieces : 1, false,
			  limits->nr_max);
}

/* Finds the next run that is sent, from @from on, where a part begins: *start and
 * *end.  What is left before and behind it is long enough to be parts of its own. */
static bool next_run(const struct dirty_map *dirty, uint64_t from, uint64_t size,
		     uint64_t min, uint64_t *start, uint64_t *end)
{
	struct dirty_range range;
	uint64_t wanted;

	if (!dirty_next(dirty, from, &range))
		return false;
	*start = range.start - from < min ? from : range.start;
	*end = range.end;
	for (;;) {
		wanted = *start + min;
		if (*end < wanted)
			*end = wanted < size ? wanted : size;
		if (!dirty_next(dirty, *end, &range) || range.start - *end >= min)
			return true;
		*end = range.end;
	}
}

static int plan_once(const struct dirty_map *dirty, uint64_t size,
		     const struct part_limits *limits, struct part_list *list)
{
	uint64_t from = 0, start, end;
	int error = 0;

	while (!error && from < size &&
	       next_run(dirty, from, size, limits->min, &start, &end)) {
		error = add_copy(list, from, start, limits);
		if (!error)
			error = add_sent(list, start, end, limits);
		from = end;
	}
	if (!error && from < size)
		error = add_copy(list, from, size, limits);
	return !error && list->nr > limits->nr_max ? -E2BIG : error;
}

int parts_plan(const struct dirty_map *dirty, uint64_t size,
	       const struct part_limits *limits, struct part_list *list)
{
	struct part_limits wider = *limits;
	int error;

	for (;;) {
		list->nr = 0;
		error = plan_once(dirty, size, &wider, list);
		if (error != -E2BIG || wider.min > size)
			return error;
		/* Fewer and longer parts, filled up from the object. */
		wider.min *= 2;
		wider.send = wider.send * 2 > wider.copy_max ? wider.copy_max :
			     wider.send * 2;
		if (wider.send < wider.min)
			wider.send = wider.min;
	}
}
