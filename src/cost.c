/* cost.c: what a store was asked for, and what for, as JSON. */
#include "src/cost.h"

static json_t *number(const atomic_ullong *counter)
{
	return json_integer((json_int_t)atomic_load(counter));
}

json_t *cost_by_cause(const struct store *store)
{
	static const char *const names[NR_STORE_CAUSES] = {
		[CAUSE_DEMAND] = "demand", [CAUSE_PREFETCH] = "prefetch",
		[CAUSE_PUSH] = "push",	   [CAUSE_MAP] = "map",
		[CAUSE_HEAD] = "head",	   [CAUSE_GC] = "gc",
		[CAUSE_LIST] = "list",
	};
	const struct store_counters *c = &store->counters;
	json_t *all = json_object();

	for (unsigned int i = 0; i < NR_STORE_CAUSES; i++)
		json_object_set_new(all, names[i], json_pack("{s:o, s:o, s:o}",
			"requests", number(&c->by_cause[i]),
			"bytes_in", number(&c->bytes_in[i]),
			"bytes_out", number(&c->bytes_out[i])));
	return all;
}

json_t *cost_by_operation(const struct store *store)
{
	static const struct { enum store_op op; const char *name; } names[] = {
		{ STORE_GET, "get" }, { STORE_PUT, "put" },
		{ STORE_DELETE, "delete" }, { STORE_LIST, "list" },
		{ STORE_LIST_UPLOADS, "list_uploads" },
		{ STORE_ABORT_UPLOAD, "abort_upload" },
	};
	json_t *all = json_object();

	for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++)
		json_object_set_new(all, names[i].name,
			number(&store->counters.requests[names[i].op]));
	return all;
}
