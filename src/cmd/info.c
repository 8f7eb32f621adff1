/* info.c: `objmap info`: what a place is, where its data is, what it costs. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "src/cmd/open.h"
#include "src/cmd/picture.h"
#include "src/cmd/print.h"
#include "src/cmd/verbs.h"
#include "src/copy.h"
#include "src/cost.h"
#include "src/errors.h"
#include "src/log.h"

#define PICTURE_UNITS_MAX (1u << 24)	/* of a plain device */

/* What is stored for one head, by whom it is used. */
struct usage {
	uint64_t chunks, bytes;			/* that it refers to */
	uint64_t origin_chunks, origin_bytes;	/* of them in a clone's origins */
	uint64_t pinned_chunks;			/* of them kept by a snapshot too */
	uint64_t nodes;				/* of the map */
};

struct volume_view {
	struct store *store;
	const struct place *place;
	struct head head;
	struct snapshot_list snapshots;
	struct usage usage;
	struct picture picture;
	const char *state;
};

/* ---- reading ------------------------------------------------------------------------ */

static int visit_chunk(void *context, uint32_t chunk, const struct ref *ref)
{
	struct volume_view *view = context;
	const struct head *head = &view->head;
	uint64_t bytes = ref->stored & 0x0fffffff;

	if (view->picture.data)
		picture_mark(&view->picture, chunk, 1);
	view->usage.chunks++;
	view->usage.bytes += bytes;
	if (head->nr_origins &&
	    ref->epoch <= head->origins[head->nr_origins - 1].epoch) {
		view->usage.origin_chunks++;
		view->usage.origin_bytes += bytes;
	} else if (ref->epoch <= head->snapshot_newest) {
		view->usage.pinned_chunks++;
	}
	return 0;
}

static const char *state_name(enum head_state state)
{
	return state == HEAD_INCOMPLETE ? "incomplete" : "live";
}

static int view_read(const struct options *options, struct volume_view *view)
{
	bool map = option_flag(options, "map");
	int error = open_head(view->store, &view->head, NULL);

	if (error)
		return error;
	view->state = state_name(view->head.state);
	error = volume_snapshots(view->store, &view->snapshots);
	if (!error && view->place->snapshot)
		error = volume_snapshot_head(view->store, view->place->snapshot,
					     &view->head);
	/* The holder that a snapshot keeps is whoever wrote when it was taken. */
	if (view->place->snapshot)
		memset(&view->head.holder, 0, sizeof(view->head.holder));
	if (!error && map)
		error = picture_open(&view->picture, view->head.size,
				     view->head.chunk_size);
	if (!error && (map || option_flag(options, "cost")))
		error = volume_walk(view->store, &view->head, visit_chunk, view,
				    &view->usage.nodes);
	return error;
}

/* ---- JSON ------------------------------------------------------------------------------ */

static json_t *holder_json(const struct holder *holder)
{
	if (!holder->held)
		return json_null();
	return json_pack("{s:s, s:I, s:I, s:b}", "host", holder->host,
			 "pid", (json_int_t)holder->pid,
			 "since", (json_int_t)holder->since,
			 "journal", (int)holder->journal);
}

static json_t *origins_json(const struct head *head)
{
	json_t *all = json_array();
	unsigned int i;

	for (i = 0; i < head->nr_origins; i++)
		json_array_append_new(all, json_pack("{s:s, s:I}",
			"prefix", head->origins[i].prefix,
			"epoch", (json_int_t)head->origins[i].epoch));
	return all;
}

static json_t *cost_json(const struct volume_view *view)
{
	const struct usage *u = &view->usage;

	return json_pack("{s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:o}",
			 "chunks", (json_int_t)u->chunks,
			 "bytes", (json_int_t)u->bytes,
			 "origin_chunks", (json_int_t)u->origin_chunks,
			 "origin_bytes", (json_int_t)u->origin_bytes,
			 "snapshot_chunks", (json_int_t)u->pinned_chunks,
			 "nodes", (json_int_t)u->nodes,
			 "node_bytes", (json_int_t)(u->nodes * NODE_BYTES),
			 "requests", cost_by_cause(view->store));
}

static int volume_print_json(const struct options *options,
			     const struct volume_view *view)
{
	const struct head *head = &view->head;
	char uuid[37];
	json_t *all;

	uuid_format(head->uuid, uuid);
	all = json_pack("{s:s, s:s, s:s, s:i, s:I, s:I, s:I, s:s, s:I, s:I, s:I, s:o, s:i, s:o}",
			"place", view->place->text, "uuid", uuid,
			"state", view->state, "format", (int)VOLUME_FORMAT,
			"size", (json_int_t)head->size,
			"chunk_size", (json_int_t)head->chunk_size,
			"frame_size", (json_int_t)head->frame_size,
			"codec", "none",
			"created", (json_int_t)head->created,
			"committed", (json_int_t)head->committed,
			"epoch", (json_int_t)head->epoch,
			"holder", holder_json(&head->holder),
			"snapshots", (int)view->snapshots.nr,
			"origins", origins_json(head));
	if (all && option_flag(options, "cost"))
		json_object_set_new(all, "cost", cost_json(view));
	if (all && view->picture.data)
		json_object_set_new(all, "map", picture_json(&view->picture));
	return print_json(all);
}

/* ---- text -------------------------------------------------------------------------------- */

static void print_holder(const struct head *head)
{
	char since[PRINT_TIME_TEXT];

	if (head->holder.held)
		printf("  held by      %s (pid %" PRIu64 ") since %s%s\n",
		       head->holder.host, head->holder.pid,
		       print_time(head->holder.since, since),
		       head->holder.journal ? ", with a local journal" : "");
	else
		printf("  held by      nobody\n");
}

static void print_cost(const struct volume_view *view)
{
	const struct usage *u = &view->usage;
	char a[UNITS_TEXT];

	printf("  stored       %" PRIu64 " chunks, %s\n", u->chunks,
	       size_format(u->bytes, a));
	printf("  map          %" PRIu64 " node%s, %s\n", u->nodes, plural(u->nodes),
	       size_format(u->nodes * NODE_BYTES, a));
	if (view->head.nr_origins)
		printf("  in origins   %" PRIu64 " of them, %s\n",
		       u->origin_chunks, size_format(u->origin_bytes, a));
	printf("  in snapshots %" PRIu64 " of them too\n", u->pinned_chunks);
	print_costs(cost_by_cause(view->store), "this command's");
}

static void volume_print(const struct options *options,
			 const struct volume_view *view)
{
	const struct head *head = &view->head;
	char a[UNITS_TEXT], b[UNITS_TEXT], t[PRINT_TIME_TEXT], uuid[37];
	unsigned int i;

	uuid_format(head->uuid, uuid);
	printf("%s\n", view->place->text);
	printf("  uuid         %s\n", uuid);
	printf("  size         %s (%" PRIu64 " bytes)\n",
	       size_format(head->size, a), head->size);
	printf("  chunks       %s, checked in frames of %s\n",
	       size_format(head->chunk_size, a), size_format(head->frame_size, b));
	if (view->head.state == HEAD_INCOMPLETE)
		printf("  state        incomplete: a copy into it was cut; copy --resume goes on\n");
	else
		printf("  state        live\n");
	print_holder(head);
	printf("  created      %s\n", print_time(head->created, t));
	printf("  last commit  %s (epoch %" PRIu64 ")\n",
	       print_time(head->committed, t), head->epoch);
	if (!view->place->snapshot)
		printf("  snapshots    %u\n", view->snapshots.nr);
	for (i = 0; i < head->nr_origins; i++)
		printf("  origin       /%s up to epoch %" PRIu64 "\n",
		       head->origins[i].prefix, head->origins[i].epoch);
	if (option_flag(options, "cost"))
		print_cost(view);
	if (view->picture.data) {
		putchar('\n');
		picture_print(&view->picture,
			      (unsigned int)option_number(options, "width"));
	}
}

static int volume_info(const struct options *options, const struct place *place)
{
	struct volume_view *view = calloc(1, sizeof(*view));
	int error, status = 0;

	if (!view)
		return EXIT_FAILURE;
	view->place = place;
	error = open_store(options, place, false, &view->store);
	if (error) {
		free(view);
		return EXIT_FAILURE;
	}
	error = view_read(options, view);
	if (error)
		status = exit_status(error);
	else if (option_flag(options, "json"))
		status = volume_print_json(options, view);
	else
		volume_print(options, view);
	picture_close(&view->picture);
	snapshot_list_free(&view->snapshots);
	store_close(view->store);
	free(view);
	return status;
}

/* ---- a plain device ------------------------------------------------------------------------- */

static int device_map(struct stage *stage, struct picture *picture)
{
	struct walk walk = { .stage = stage };
	uint64_t size = stage_size(stage), unit = 64 << 10, offset, count;
	bool zero;
	int error;

	while (size / unit > PICTURE_UNITS_MAX)
		unit *= 2;
	error = picture_open(picture, size, unit);
	for (offset = 0; !error && offset < size; offset += count) {
		error = walk_next(&walk, offset, &count, &zero);
		if (!error && !zero)
			picture_mark(picture, offset / unit,
				     (offset + count - 1) / unit - offset / unit + 1);
	}
	return error;
}

static int device_print(const struct options *options, const struct place *place,
			struct stage *stage, struct picture *picture)
{
	const struct geometry *g = &stage->geometry;
	char a[UNITS_TEXT];
	json_t *all;

	if (option_flag(options, "json")) {
		all = json_pack("{s:s, s:s, s:I, s:I, s:I}",
				"place", place->text, "kind", place->scheme,
				"size", (json_int_t)stage_size(stage),
				"preferred", (json_int_t)g->preferred,
				"max_request", (json_int_t)g->max_request);
		if (all && picture->data)
			json_object_set_new(all, "map", picture_json(picture));
		return print_json(all);
	}
	printf("%s\n", place->text);
	printf("  size         %s (%" PRIu64 " bytes)\n",
	       size_format(stage_size(stage), a), stage_size(stage));
	printf("  preferred    %s at once\n", size_format(g->preferred, a));
	if (picture->data) {
		putchar('\n');
		picture_print(picture, (unsigned int)option_number(options, "width"));
	}
	return 0;
}

static int device_info(const struct options *options, const struct place *place)
{
	struct device_options device;
	struct picture picture = { 0 };
	struct stage *stage;
	int error, status;

	if (option_flag(options, "cost")) {
		log_error("--cost is for volumes: %s is a plain device, of which objmap stores nothing",
			  place->text);
		return EXIT_USAGE;
	}
	open_device_options(options, &device);
	device.read_only = true;
	error = place_open_device(place, &device, &stage);
	if (error)
		return exit_status(error);
	if (option_flag(options, "map"))
		error = device_map(stage, &picture);
	if (error)
		log_error("%s: its extents cannot be read: %s", place->text,
			  error_words(error));
	status = error ? EXIT_FAILURE
		       : device_print(options, place, stage, &picture);
	picture_close(&picture);
	stage_close(stage);
	return status;
}

int info_run(const struct options *options, int nr_arguments, char **arguments)
{
	struct place place;
	int error, status;

	error = open_place(options, arguments[0], WANT_PLACE, &place);
	if (!error && place.is_volume) {
		place_free(&place);
		error = open_place(options, arguments[0], WANT_VOLUME_OR_SNAPSHOT, &place);
	}
	if (error)
		return exit_status(error);
	status = place.is_volume ? volume_info(options, &place)
				 : device_info(options, &place);
	place_free(&place);
	return status;
}
