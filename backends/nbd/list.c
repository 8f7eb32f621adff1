/* list.c: what a server exports, asked before any export is opened. */
#include <errno.h>
#include <jansson.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "backends/nbd/nbd.h"
#include "backends/nbd/remote.h"
#include "src/log.h"

#define ANSWER_IN    (15 * CLOCK_SECOND)	/* each question */
#define EXPORTS_MAX  10000
#define PAUSE_US     500000

/* One conversation. */
struct asking {
	struct nbd_handle *handle;
	struct nbd_exports *exports;
	bool answered;		/* the question under way is */
	int error;		/* of that question, positive */
	bool failed;		/* no memory, or too many */
};

void nbd_exports_free(struct nbd_exports *exports)
{
	for (unsigned int i = 0; i < exports->nr; i++) {
		free(exports->exports[i].name);
		free(exports->exports[i].description);
	}
	free(exports->exports);
	memset(exports, 0, sizeof(*exports));
}

/* A copy that is UTF-8 and moves no terminal. */
static char *printable(const char *text)
{
	char *copy = strdup(text);
	json_t *valid = json_string(text);

	for (unsigned char *c = (unsigned char *)copy; c && *c; c++)
		if (*c < 0x20 || *c == 0x7f || (*c >= 0x80 && !valid) ||
		    (*c == 0xc2 && c[1] < 0xa0))
			*c = '?';
	/* The second byte of a control character was left alone. */
	for (unsigned char *c = (unsigned char *)copy; c && *c; c++)
		if (*c == '?' && c[1] >= 0x80 && c[1] < 0xc0)
			c[1] = '?';
	json_decref(valid);
	return copy;
}

static int add_export(void *context, const char *name, const char *description)
{
	struct asking *asking = context;
	struct nbd_exports *all = asking->exports;
	struct nbd_export *grown;

	if (asking->failed || all->nr == EXPORTS_MAX) {
		asking->failed = true;
		return -1;
	}
	grown = realloc(all->exports, (all->nr + 1) * sizeof(*grown));
	if (!grown) {
		asking->failed = true;
		return -1;
	}
	all->exports = grown;
	grown[all->nr].name = strdup(name);
	grown[all->nr].description = printable(description);
	grown[all->nr].size = -1;
	grown[all->nr].read_only = false;
	all->nr++;
	return 0;
}

static int has_answered(void *context, int *error)
{
	struct asking *asking = context;

	asking->answered = true;
	asking->error = *error;
	return 1;
}

/* Goes on until @done, or the connection ends, or time is up. */
static int converse(struct asking *asking, bool (*done)(struct asking *asking))
{
	uint64_t until = clock_now() + ANSWER_IN, now;
	struct pollfd fd;
	unsigned int direction;

	while (!done(asking)) {
		/* After a connect that no address took it is as if just made. */
		if (nbd_aio_is_created(asking->handle) > 0 ||
		    nbd_aio_is_dead(asking->handle) > 0 ||
		    nbd_aio_is_closed(asking->handle) > 0)
			return -1;
		now = clock_now();
		if (now >= until)
			return -ETIMEDOUT;
		direction = nbd_aio_get_direction(asking->handle);
		fd = (struct pollfd){ .fd = nbd_aio_get_fd(asking->handle) };
		if (direction & LIBNBD_AIO_DIRECTION_READ)
			fd.events |= POLLIN;
		if (direction & LIBNBD_AIO_DIRECTION_WRITE)
			fd.events |= POLLOUT;
		if (poll(&fd, 1, (int)((until - now) / CLOCK_MS) + 1) <= 0)
			continue;
		if (fd.revents & POLLOUT)
			nbd_aio_notify_write(asking->handle);
		else
			nbd_aio_notify_read(asking->handle);
	}
	return 0;
}

static bool is_negotiating(struct asking *asking)
{
	return nbd_aio_is_negotiating(asking->handle) > 0;
}

static bool is_answered(struct asking *asking)
{
	return asking->answered;
}

static nbd_completion_callback answer_to(struct asking *asking)
{
	asking->answered = false;
	asking->error = 0;
	return (nbd_completion_callback){ .callback = has_answered,
					  .user_data = asking };
}

/* Size and flags of each; those that would not say are left so. */
static int ask_each(struct asking *asking)
{
	struct nbd_handle *h = asking->handle;

	for (unsigned int i = 0; i < asking->exports->nr; i++) {
		struct nbd_export *export = &asking->exports->exports[i];
		char *text, *description;
		int error;

		if (!export->name || !export->description ||
		    nbd_set_export_name(h, export->name) < 0 ||
		    nbd_set_full_info(h, true) < 0 ||
		    nbd_aio_opt_info(h, answer_to(asking)) < 0)
			return -1;
		error = converse(asking, is_answered);
		if (error)
			return error;
		if (!asking->error) {
			export->size = nbd_get_size(h);
			export->read_only = nbd_is_read_only(h) > 0;
			description = nbd_get_export_description(h);
			if (description && !*export->description) {
				free(export->description);
				export->description = printable(description);
			}
			free(description);
		}
		text = printable(export->name);
		free(export->name);
		export->name = text;
	}
	return 0;
}

/* The server is connected.  0, -ETIMEDOUT, or -1: libnbd says why. */
static int ask(struct asking *asking, const struct nbd_place *place)
{
	nbd_list_callback each = { .callback = add_export, .user_data = asking };
	int error = converse(asking, is_negotiating);

	if (error)
		return error;
	if (*place->export_name) {
		add_export(asking, place->export_name, "");
		error = ask_each(asking);
		if (error || !asking->error)
			return error;
		return -1;
	}
	if (nbd_aio_opt_list(asking->handle, each, answer_to(asking)) < 0)
		return -1;
	error = converse(asking, is_answered);
	if (!error && asking->error)
		return -1;
	return error ? error : ask_each(asking);
}

/* 0; -EAGAIN: worth another try; else for good.  @why says it. */
static int ask_once(const struct nbd_place *place, struct nbd_exports *exports,
		    char *why, size_t size)
{
	struct asking asking = { .exports = exports };
	int error = link_handle(place, &asking.handle), code;
	char said[256];

	if (error)
		return error;
	nbd_set_opt_mode(asking.handle, true);
	link_connect_handle(asking.handle, place);
	error = ask(&asking, place);
	code = asking.error ? asking.error : nbd_get_errno();
	libnbd_words(said, sizeof(said));
	if (!error)
		nbd_aio_opt_abort(asking.handle);
	nbd_close(asking.handle);
	if (!error && !asking.failed)
		return 0;
	nbd_exports_free(exports);
	if (asking.failed) {
		snprintf(why, size, "it lists more exports than can be shown");
		return -E2BIG;
	}
	if (error == -ETIMEDOUT) {
		snprintf(why, size, "the server does not answer");
		return -EAGAIN;
	}
	snprintf(why, size, "%s%s", said,
		 failure_hint(place, code, said));
	return failure_is_permanent(code, said) ? -EIO : -EAGAIN;
}

int nbd_list(const struct place *place, uint64_t retry_for,
	     struct nbd_exports *exports)
{
	uint64_t now = clock_now();
	uint64_t until = retry_for > UINT64_MAX - now ? UINT64_MAX : now + retry_for;
	struct nbd_place nbd;
	char why[400] = "";
	bool announced = false;
	int error = nbd_place_parse(place, &nbd);

	memset(exports, 0, sizeof(*exports));
	if (error)
		return error;
	while ((error = ask_once(&nbd, exports, why, sizeof(why))) == -EAGAIN &&
	       clock_now() + PAUSE_US * 1000 < until) {
		if (!announced)
			log_warning("%s: %s; trying again", place->text, why);
		announced = true;
		usleep(PAUSE_US);
	}
	if (error && *why)
		log_error("%s: %s", place->text, why);
	nbd_place_free(&nbd);
	return error == -EAGAIN ? -ETIMEDOUT : error;
}
