/* http.c: a file on a web server as a device, read-only: http://, https://.
 *
 * A read is one range GET of what is asked; see http/web_file.c for what makes its
 * reply good.  Gives: any byte range. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backends/http/web_file.h"
#include "src/log.h"
#include "src/place.h"

#define PREFERRED   (1u << 20)
#define REQUEST_MAX (8u << 20)

struct http_device {
	struct stage stage;		/* must stay first */
	struct store *store;
};

struct http_read {
	struct store_request get;	/* must stay first */
	struct request *request;
	char key[64];			/* what it is called in messages */
};

static void read_done(struct store_request *get, enum store_outcome outcome)
{
	struct http_read *read = (struct http_read *)get;
	struct request *request = read->request;
	int error = outcome == STORE_DONE ? 0 : get->reply.error;

	if (outcome != STORE_DONE && !error)
		error = -EIO;
	free(read);
	request_complete(request, error);
}

static void http_read(struct stage *stage, struct request *request)
{
	struct http_device *device = (struct http_device *)stage;
	struct http_read *read;

	if (request->count == 0 || request->flags & REQUEST_NOWAIT) {
		request_complete(request, request->count ? -EAGAIN : 0);
		return;
	}
	read = calloc(1, sizeof(*read));
	if (!read) {
		request_complete(request, -ENOMEM);
		return;
	}
	snprintf(read->key, sizeof(read->key), "bytes %" PRIu64 " to %" PRIu64,
		 request->offset, request->offset + request->count - 1);
	read->request = request;
	read->get = (struct store_request){
		.op = STORE_GET, .key = read->key,
		.cause = request->priority == PRIORITY_PREFETCH ? CAUSE_PREFETCH :
								  CAUSE_DEMAND,
		.priority = request->priority, .deadline = request->deadline,
		.offset = request->offset, .count = request->count,
		.iov = request->iov, .nr_iov = request->nr_iov,
		.parent = request, .done = read_done,
	};
	store_submit(device->store, &read->get);
}

/* The doorway lets no change through. */
static void http_refuse(struct stage *stage, struct request *request)
{
	request_complete(request, -EROFS);
}

/* Flush and prefetch. */
static void http_accept(struct stage *stage, struct request *request)
{
	request_complete(request, 0);
}

static void http_extents(struct stage *stage, struct request *request)
{
	extent_list_add(request->extents, request->count, 0);
	request_complete(request, 0);
}

static void http_close(struct stage *stage)
{
	struct http_device *device = (struct http_device *)stage;

	store_close(device->store);
	free(device);
}

static const struct stage_ops http_ops = {
	.name	  = "http",
	.read	  = http_read,
	.write	  = http_refuse,
	.zero	  = http_refuse,
	.trim	  = http_refuse,
	.flush	  = http_accept,
	.extents  = http_extents,
	.prefetch = http_accept,
	.close	  = http_close,
};

static void set_retry_for(struct stage *stage, uint64_t retry_for)
{
	atomic_store(&((struct http_device *)stage)->store->retry_for, retry_for);
}

static void tell_trouble(struct stage *stage, struct trouble_status *trouble)
{
	trouble_status(&((struct http_device *)stage)->store->trouble, trouble);
}

static bool is_lost(struct stage *stage)
{
	return web_file_is_lost(((struct http_device *)stage)->store);
}

static const struct stage_server http_server = {
	.set_retry_for = set_retry_for,
	.trouble       = tell_trouble,
	.is_lost       = is_lost,
	.keep_unsaved  = stage_keeps_nothing,
};

int http_open(const struct place *place, const struct device_options *options,
	      struct stage **stage)
{
	struct geometry geometry = {
		.read_unit = 1, .write_unit = 1, .preferred = PREFERRED,
		.max_request = REQUEST_MAX, .flags = STAGE_READ_ONLY,
	};
	struct http_device *device = calloc(1, sizeof(*device));
	struct web_version version;
	int error;

	if (!device)
		return -ENOMEM;
	error = web_file_open(place->text, place->path, options, &device->store, &version);
	if (error) {
		free(device);
		return error;
	}
	geometry.size = version.size;
	stage_init(&device->stage, &http_ops, NULL, &geometry);
	device->stage.server = &http_server;
	*stage = &device->stage;
	return 0;
}
