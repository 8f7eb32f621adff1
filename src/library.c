/* library.c: libobjmap: an export whose frontend is a C program. */
#include <errno.h>
#include <stdlib.h>

#include "backends/store/store.h"
#include "src/clock.h"
#include "src/export.h"
#include "src/objmap.h"
#include "src/where.h"

struct objmap {
	struct export *export;
	char *state;
};

int objmap_open(const char *text, unsigned int flags, struct objmap **device)
{
	struct export_options options = {
		.store.retry_for = STORE_RETRY_FOR, .volume.grace = GRACE_DEFAULT,
	};
	struct objmap *new;
	struct place place;
	int error;

	if (flags & ~(unsigned int)(OBJMAP_READ_ONLY | OBJMAP_TAKE_OVER))
		return -EINVAL;
	error = place_parse(text, 0, &place);
	if (error)
		return error;
	new = calloc(1, sizeof(*new));
	if (!new) {
		error = -ENOMEM;
		goto out;
	}
	options.read_only = flags & OBJMAP_READ_ONLY || place.snapshot;
	options.volume.take_over = flags & OBJMAP_TAKE_OVER;
	if (place.is_volume && !options.read_only) {
		options.volume.runtime_dir = runtime_dir();
		new->state = state_dir(getenv("OBJMAP_STATE"));
		options.volume.state_dir = new->state;
		if (!options.volume.runtime_dir || !new->state) {
			error = -EACCES;
			goto out;
		}
	}
	error = export_open(&place, "", &options, &new->export);
	/* As on a mount: a store that is away for a while is no I/O error. */
	if (!error)
		export_set_retry_for(new->export, UINT64_MAX);
out:
	place_free(&place);
	if (error && new) {
		free(new->state);
		free(new);
	} else if (!error) {
		*device = new;
	}
	return error;
}

void objmap_set_retry_for(struct objmap *device, uint64_t ms)
{
	export_set_retry_for(device->export, ms > UINT64_MAX / CLOCK_MS ? UINT64_MAX :
					     ms * CLOCK_MS);
}

uint64_t objmap_size(const struct objmap *device)
{
	return stage_size(device->export->stage);
}

/* How much of @count bytes one request takes. */
static size_t request_part(const struct objmap *device, size_t count)
{
	size_t longest = device->export->stage->geometry.max_request;

	return count < longest ? count : longest;
}

/* Whether all of the range is there: what lies outside is refused before a part of
 * it is written. */
static bool has_range(const struct objmap *device, size_t count, uint64_t offset)
{
	uint64_t size = objmap_size(device);

	return offset <= size && count <= size - offset;
}

int objmap_pread(struct objmap *device, void *buffer, size_t count,
		 uint64_t offset)
{
	int error = count && !has_range(device, count, offset) ? -EINVAL : 0;
	size_t done, part;

	for (done = 0; !error && done < count; done += part) {
		part = request_part(device, count - done);
		error = stage_read(device->export->stage, (char *)buffer + done, part,
				   offset + done, 0);
	}
	return error;
}

int objmap_pwrite(struct objmap *device, const void *buffer, size_t count,
		  uint64_t offset)
{
	int error = count && !has_range(device, count, offset) ? -EINVAL : 0;
	size_t done, part;

	for (done = 0; !error && done < count; done += part) {
		part = request_part(device, count - done);
		error = stage_write(device->export->stage, (const char *)buffer + done,
				    part, offset + done, 0);
	}
	return error;
}

int objmap_zero(struct objmap *device, uint64_t count, uint64_t offset)
{
	if (!count)
		return 0;
	return stage_zero(device->export->stage, count, offset, REQUEST_MAY_TRIM);
}

int objmap_trim(struct objmap *device, uint64_t count, uint64_t offset)
{
	return count ? stage_trim(device->export->stage, count, offset, 0) : 0;
}

int objmap_flush(struct objmap *device)
{
	return stage_flush(device->export->stage);
}

int objmap_close(struct objmap *device)
{
	int error;

	export_drain(device->export);
	error = device->export->read_only ? 0 : export_flush(device->export);
	export_close(device->export);
	free(device->state);
	free(device);
	return error;
}
