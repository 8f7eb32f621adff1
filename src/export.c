/* export.c: opens a place as a pipeline, and closes it in the right order.
 *
 *     arbitrary -> chunked (only where the backend has units) -> backend
 *
 * The doorway of the top stage keeps the export's limits. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "src/export.h"
#include "src/log.h"
#include "src/units.h"

#define DEFAULT_MAX_REQUESTS 4096
#define DEFAULT_MAX_BYTES    (256ull << 20)
#define MINIMUM_PREFERRED    4096u	/* a page: what most clients work in */
#define MAXIMUM_BLOCK	     (64u << 20)	/* the longest NBD payload */

/* mem:NAME?size=SIZE is made when it is mounted; place_parse() has looked at both. */
static int create_in_memory(const struct place *place, struct store *store)
{
	struct volume_create_options create = { 0 };
	const char *chunk = place_param(place, "chunk-size");
	uint64_t chunk_size = 0;
	int error = size_parse(place_param(place, "size"), &create.size);

	if (!error && chunk)
		error = size_parse(chunk, &chunk_size);
	create.chunk_size = (uint32_t)chunk_size;
	return error ? error : volume_create(store, &create);
}

static int open_volume(struct export *export,
		       const struct export_options *options,
		       struct stage **backend)
{
	struct volume_options volume = options->volume;
	struct store *store;
	int error;

	error = place_open_store(&export->place, &options->store, &store);
	if (error)
		return error;
	if (strcmp(export->place.scheme, "mem") == 0)
		error = create_in_memory(&export->place, store);
	volume.writable = !export->read_only;
	volume.snapshot = export->place.snapshot;
	if (!error)
		error = volume_open(store, &volume, &export->volume);
	if (error) {
		store_close(store);
		return error;
	}
	*backend = volume_stage(export->volume);
	return 0;
}

static int open_device(struct export *export, const struct export_options *options,
		       struct stage **backend)
{
	struct device_options device = {
		.read_only = export->read_only,
		.retry_for = options->store.retry_for, .s3 = options->store.s3,
		.writable = options->writable && !export->read_only,
		.dirty_limit = options->dirty_limit,
		.state = options->volume.state_dir,
	};

	return place_open_device(&export->place, &device, backend);
}

int export_stages(struct stage *backend, struct stage **top)
{
	struct stage *below = backend;
	int error = 0;

	if (backend->geometry.read_unit > 1 || backend->geometry.write_unit > 1)
		error = chunked_open(backend, &below);
	if (!error)
		error = arbitrary_open(below, top);
	if (error) {
		log_error("cannot build the pipeline of %s: %s", backend->ops->name,
			  strerror(-error));
		stage_close(below);
	}
	return error;
}

/* Puts the stages on @backend.  On failure everything is closed. */
static int build(struct export *export, struct stage *backend,
		 const struct export_options *options)
{
	struct stage *top;
	int error = export_stages(backend, &top);

	if (!error) {
		error = stage_limit(top, options->max_requests ? options->max_requests :
				    DEFAULT_MAX_REQUESTS,
				    options->max_bytes ? options->max_bytes :
				    DEFAULT_MAX_BYTES);
		if (error) {
			log_error("%s: cannot limit its requests: %s",
				  export->place.text, strerror(-error));
			stage_close(top);
		}
	}
	if (error) {
		export->volume = NULL;
		return error;
	}
	if (backend->geometry.flags & STAGE_READ_ONLY)
		export->read_only = true;
	/* A place opened read-only stays so, whatever its backend could do. */
	if (export->read_only)
		top->geometry.flags |= STAGE_READ_ONLY;
	export->stage = top;
	return 0;
}

static void set_block_sizes(struct export *export, uint32_t block_size)
{
	uint32_t preferred = export->stage->geometry.preferred;

	if (preferred < MINIMUM_PREFERRED)
		preferred = MINIMUM_PREFERRED;
	export->minimum_block = 1;	/* arbitrary takes any byte range */
	export->preferred_block = block_size ? block_size : preferred;
	export->maximum_block = MAXIMUM_BLOCK;
	if (export->preferred_block > export->maximum_block)
		export->preferred_block = export->maximum_block;
}

int export_open(const struct place *place, const char *name,
		const struct export_options *options, struct export **result)
{
	struct export *export = calloc(1, sizeof(*export));
	struct stage *backend;
	int error = -ENOMEM;

	if (!export)
		return -ENOMEM;
	export->name = strdup(name);
	export->description = strdup(options->description ?
				     options->description : place->text);
	if (!export->name || !export->description)
		goto out;
	error = place_copy(place, &export->place);
	if (error)
		goto out;
	export->read_only = options->read_only || export->place.snapshot;
	error = export->place.is_volume ?
		open_volume(export, options, &backend) :
		open_device(export, options, &backend);
	if (!error)
		error = build(export, backend, options);
	if (error) {
		place_free(&export->place);
		goto out;
	}
	set_block_sizes(export, options->block_size);
	*result = export;
	return 0;
out:
	free(export->name);
	free(export->description);
	free(export);
	return error;
}

void export_set_retry_for(struct export *export, uint64_t retry_for)
{
	struct stage *backend = stage_backend(export->stage);

	if (export->volume)
		atomic_store(&volume_store(export->volume)->retry_for, retry_for);
	else if (backend->server)
		backend->server->set_retry_for(backend, retry_for);
}

void export_start_push(struct export *export)
{
	if (export->volume && !export->read_only)
		volume_push(export->volume);
}

void export_drain(struct export *export)
{
	stage_drain(export->stage);
}

int export_flush(struct export *export)
{
	if (export->read_only)
		return 0;
	if (export->volume)
		return volume_flush(export->volume);
	/* Not through the top, which refuses after export_drain(). */
	return stage_flush(stage_backend(export->stage));
}

int export_keep_unsaved(struct export *export)
{
	struct stage *backend = stage_backend(export->stage);

	if (export->volume)
		return volume_keep_unsaved(export->volume);
	return backend->server ? backend->server->keep_unsaved(backend) : 0;
}

void export_release(struct export *export)
{
	if (export->volume)
		volume_release(export->volume);
}

void export_close(struct export *export)
{
	stage_close(export->stage);
	place_free(&export->place);
	free(export->name);
	free(export->description);
	free(export);
}
