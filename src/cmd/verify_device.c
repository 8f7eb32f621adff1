/* verify_device.c: `objmap verify` of a plain device: every byte can be read.
 *
 * A device has no checksums to compare; but what its server, its disk or its pinned
 * version refuses is found here and not when somebody needs it.  Some readers take one
 * piece after the other.  A piece that cannot be read is a fault and the rest is looked
 * at all the same; but when the device itself is lost (replaced, no answer in time),
 * that is the end. */
#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

#include "src/cmd/open.h"
#include "src/cmd/print.h"
#include "src/cmd/verify_device.h"
#include "src/errors.h"
#include "src/log.h"
#include "src/progress.h"
#include "src/units.h"
#include "src/workers.h"

#define PIECE (1u << 20)

struct device_check {
	const struct place *place;
	struct stage *stage;
	struct progress *progress;
	uint64_t size;
	uint32_t piece;			/* bytes */
	pthread_mutex_t lock;		/* guards the rest */
	uint64_t next;			/* where the next piece begins */
	uint64_t bytes;			/* read well */
	uint64_t nr_faults;
	json_t *faults;
	int error;			/* that ends it */
};

struct reader {
	struct job job;			/* must stay first */
	struct device_check *check;
};

/* The next piece to read; false: there is none. */
static bool take_piece(struct device_check *check, uint64_t *offset, uint32_t *count)
{
	bool taken;

	pthread_mutex_lock(&check->lock);
	taken = !check->error && check->next < check->size;
	if (taken) {
		*offset = check->next;
		*count = check->size - *offset < check->piece ?
			 (uint32_t)(check->size - *offset) : check->piece;
		check->next += *count;
	}
	pthread_mutex_unlock(&check->lock);
	return taken;
}

static void note_fault(struct device_check *check, uint64_t offset, uint32_t count,
		       int error)
{
	log_error("%s: bytes %" PRIu64 " to %" PRIu64 " cannot be read: %s",
		  check->place->text, offset, offset + count, error_words(error));
	check->nr_faults++;
	json_array_append_new(check->faults, json_pack("{s:I, s:I, s:s}",
			      "offset", (json_int_t)offset, "count", (json_int_t)count,
			      "what", error_words(error)));
	/* A bad sector is one of its own; all else concerns the device. */
	if (error != -EIO && !check->error)
		check->error = error;
}

static void reader_run(struct job *job)
{
	struct device_check *check = ((struct reader *)job)->check;
	void *buffer = malloc(check->piece);
	uint64_t offset;
	uint32_t count;
	int error;

	while (take_piece(check, &offset, &count)) {
		error = buffer ? stage_read(check->stage, buffer, count, offset, 0)
			       : -ENOMEM;
		pthread_mutex_lock(&check->lock);
		if (error)
			note_fault(check, offset, count, error);
		else
			check->bytes += count;
		progress_update(check->progress, "reading", check->bytes, check->size);
		pthread_mutex_unlock(&check->lock);
	}
	free(buffer);
}

static int read_all(struct device_check *check, unsigned int nr_readers)
{
	struct reader *readers = calloc(nr_readers, sizeof(*readers));
	struct workers *workers;
	int error = readers ? workers_open("verify", nr_readers, &workers) : -ENOMEM;

	for (unsigned int i = 0; !error && i < nr_readers; i++) {
		readers[i] = (struct reader){ { .run = reader_run }, check };
		workers_submit(workers, &readers[i].job);
	}
	if (!error)
		workers_close(workers);
	else
		log_error("%s: cannot be verified: %s", check->place->text,
			  error_words(error));
	free(readers);
	return error;
}

static int print_result(const struct options *options, const struct device_check *check)
{
	char bytes[UNITS_TEXT];

	if (option_flag(options, "json"))
		return print_json(json_pack("{s:s, s:I, s:I, s:O}", "place",
			check->place->text, "size", (json_int_t)check->size,
			"bytes", (json_int_t)check->bytes, "faults", check->faults));
	if (!check->nr_faults)
		printf("%s: all %s can be read; a plain device has no checksums to compare\n",
		       check->place->text, size_format(check->bytes, bytes));
	else
		printf("%s: %" PRIu64 " fault%s; %s could be read%s\n", check->place->text,
		       check->nr_faults, plural(check->nr_faults),
		       size_format(check->bytes, bytes), check->error ?
		       ", and the rest was not looked at" : "");
	return 0;
}

int verify_device(const struct options *options, const struct place *place)
{
	struct device_check check = { .place = place, .faults = json_array(),
				      .lock = PTHREAD_MUTEX_INITIALIZER };
	struct device_options device;
	int error, status = EXIT_FAILURE;

	if (option_flag(options, "metadata-only")) {
		log_error("--metadata-only is for volumes: %s is a plain device, which has none",
			  place->text);
		json_decref(check.faults);
		return EXIT_USAGE;
	}
	open_device_options(options, &device);
	device.read_only = true;
	error = place_open_device(place, &device, &check.stage);
	if (error)
		goto out;
	check.size = stage_size(check.stage);
	check.piece = check.stage->geometry.max_request < PIECE ?
		      check.stage->geometry.max_request : PIECE;
	error = progress_open(option_flag(options, "quiet"), PROGRESS_BYTES,
			      &check.progress);
	if (!error) {
		error = read_all(&check, open_jobs(options, place));
		progress_close(check.progress);
	}
	stage_close(check.stage);
	if (!error)
		status = print_result(options, &check);
	if (!error && check.nr_faults)
		status = EXIT_FAILURE;
out:
	json_decref(check.faults);
	return status;
}
