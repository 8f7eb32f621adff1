/* copy.c: `objmap copy`: a place, a file or a stream into another. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "src/clock.h"
#include "src/cmd/copy_ends.h"
#include "src/cmd/open.h"
#include "src/cmd/print.h"
#include "src/cmd/stop.h"
#include "src/cmd/verbs.h"
#include "src/log.h"
#include "src/progress.h"

static void show_progress(void *context, const char *what, uint64_t done,
			  uint64_t total)
{
	progress_update(context, what, done, total);
}

static int print_result(const struct options *options,
			const struct copy_end *source,
			const struct copy_end *target,
			const struct copy_result *r, uint64_t elapsed)
{
	double seconds = (double)elapsed / CLOCK_SECOND;
	char all[UNITS_TEXT], written[UNITS_TEXT], rate[UNITS_TEXT];
	/* Standard output may be the copy itself. */
	FILE *out = target->stream ? stderr : stdout;

	if (option_flag(options, "json") && !target->stream)
		return print_json(json_pack("{s:o, s:o, s:I, s:I, s:I, s:f, s:b}",
			"source", print_json_text(source->text),
			"destination", print_json_text(target->text),
			"bytes", (json_int_t)r->bytes,
			"read_bytes", (json_int_t)r->read_bytes,
			"written_bytes", (json_int_t)r->written_bytes,
			"seconds", seconds,
			"verified", (int)option_flag(options, "verify")));
	if (option_flag(options, "quiet"))
		return 0;
	fprintf(out, "%s: %s copied (%s written) in %.1f s, %s/s%s\n",
		target->text, size_format(r->bytes, all),
		size_format(r->written_bytes, written), seconds,
		size_format((uint64_t)((double)r->bytes / (seconds > 0.001 ?
							   seconds : 0.001)), rate),
		option_flag(options, "verify") ? ", verified" : "");
	return 0;
}

static void tell_cut(const struct copy_end *source, const struct copy_end *target,
		     int error)
{
	if (target->stream || target->fd >= 0)
		return;
	if (error == -EILSEQ)
		log_error("%s: is not what was copied%s", target->text,
			  target->export ? " and stays incomplete; copy --overwrite begins again" : "");
	else if (error == -EFBIG && target->export)
		log_error("%s: is too small for this copy, and incomplete; delete it (objmap delete), then copy again with a larger --size",
			  target->text);
	else
		log_error("%s: the copy was cut%s; the same command with --resume%s goes on",
			  target->text,
			  target->export ? " and the volume is incomplete" : "",
			  source->stream ? " and the same input" : "");
}

/* What is read; of an end that is farther away more.  Into a volume, writing is the
 * commit's, unless it is read, too. */
static unsigned int nr_jobs(const struct options *options, const struct copy_end *source,
			    const struct copy_end *target)
{
	unsigned int from = open_jobs(options, &source->place);
	unsigned int to = open_jobs(options, &target->place);

	if (target->export && !target->compare && !option_flag(options, "verify"))
		return from;
	return from > to ? from : to;
}

static int run(const struct options *options, const struct copy_end *source,
	       struct copy_end *target)
{
	struct copy_options copy = {
		.source_name = source->text, .target_name = target->text,
		.source = source->stage, .source_fd = source->fd,
		.target = target->stage, .target_fd = target->fd,
		.target_volume = target->export ? target->export->volume : NULL,
		.size = source->size, .target_is_blank = target->blank,
		.compare = target->compare,
		.verify = option_flag(options, "verify"),
		.jobs = nr_jobs(options, source, target),
		.uploads = (unsigned int)option_number(options, "connections"),
		.stop = &stop, .progress = show_progress,
	};
	struct copy_result result;
	struct progress *progress;
	uint64_t started = clock_now();
	int error;

	error = progress_open(option_flag(options, "quiet"), PROGRESS_BYTES,
			      &progress);
	if (error)
		return EXIT_FAILURE;
	copy.context = progress;
	error = copy_run(&copy, &result);
	progress_close(progress);
	if (!error)
		error = target_finish(target, result.bytes);
	if (error) {
		tell_cut(source, target, error);
		return EXIT_FAILURE;
	}
	return print_result(options, source, target, &result,
			    clock_now() - started);
}

int copy_verb_run(const struct options *options, int nr_arguments, char **arguments)
{
	struct copy_end source, target = { .fd = -1 };
	int error, status;

	/* Nothing of a stream has to be ended in order, and who does not read on would
	 * keep the end waiting. */
	if (strcmp(arguments[1], "-") != 0)
		stop_on_signals();
	error = source_open(options, arguments[0], &source);
	if (!error)
		error = target_open(options, arguments[1], &source, &target);
	status = error ? exit_status(error) : run(options, &source, &target);
	copy_end_close(&target);
	copy_end_close(&source);
	return status;
}
