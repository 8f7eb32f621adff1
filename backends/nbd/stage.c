/* stage.c: a remote NBD export as a stage: its slots, its geometry, its opening
 * and its end. */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "backends/nbd/nbd.h"
#include "backends/nbd/remote.h"
#include "src/log.h"

/* The protocol: what a server takes that has not said how much it takes. */
#define LONGEST	    (32u << 20)
/* Of servers with blocks: the stage above cuts at multiples of it. */
#define PREFERRED   (256u << 10)

/* ---- slots ------------------------------------------------------------------------- */

static void submit(struct stage *stage, struct request *request)
{
	struct remote *remote = remote_of(stage);
	struct call *call;
	bool asleep;

	if (request->flags & REQUEST_NOWAIT) {
		request_complete(request, -EAGAIN);
		return;
	}
	call = call_new(remote, request);
	if (!call) {
		request_complete(request, -ENOMEM);
		return;
	}
	pthread_mutex_lock(&remote->lock);
	TAILQ_INSERT_TAIL(&remote->arrived, call, entry);
	asleep = remote->asleep;
	remote->asleep = false;
	pthread_mutex_unlock(&remote->lock);
	if (asleep)
		remote_wake(remote);
}

static void remote_zero(struct stage *stage, struct request *request)
{
	if (request->flags & REQUEST_FAST_ZERO && !remote_of(stage)->peer.fast_zero)
		request_complete(request, -EOPNOTSUPP);
	else
		submit(stage, request);
}

static void remote_trim(struct stage *stage, struct request *request)
{
	if (remote_of(stage)->peer.trim)
		submit(stage, request);
	else
		request_complete(request, 0);
}

static void remote_flush(struct stage *stage, struct request *request)
{
	if (stage->geometry.flags & STAGE_READ_ONLY)
		request_complete(request, 0);
	else
		submit(stage, request);
}

/* All of it is data, as far as such a server tells. */
static void remote_extents(struct stage *stage, struct request *request)
{
	if (remote_of(stage)->peer.allocation) {
		submit(stage, request);
		return;
	}
	extent_list_add(request->extents, request->count, 0);
	request_complete(request, 0);
}

static void remote_prefetch(struct stage *stage, struct request *request)
{
	if (remote_of(stage)->peer.cache)
		submit(stage, request);
	else
		request_complete(request, 0);
}

/* ---- the end ------------------------------------------------------------------------- */

static void remote_free(struct remote *remote)
{
	kept_forget(&remote->kept, remote->kept.newest);
	free(remote->flush);
	pthread_cond_destroy(&remote->opened_cond);
	pthread_mutex_destroy(&remote->lock);
	trouble_deinit(&remote->trouble);
	if (remote->wake_fd >= 0)
		close(remote->wake_fd);
	nbd_place_free(&remote->place);
	free(remote->zeros);
	free(remote->text);
	free(remote);
}

static void stop(struct remote *remote)
{
	pthread_mutex_lock(&remote->lock);
	remote->stop = true;
	pthread_mutex_unlock(&remote->lock);
	remote_wake(remote);
	pthread_join(remote->thread, NULL);
}

static void remote_close(struct stage *stage)
{
	stop(remote_of(stage));
	remote_free(remote_of(stage));
}

static const struct stage_ops remote_ops = {
	.name	  = "nbd",
	.read	  = submit,
	.write	  = submit,
	.zero	  = remote_zero,
	.trim	  = remote_trim,
	.flush	  = remote_flush,
	.extents  = remote_extents,
	.prefetch = remote_prefetch,
	.close	  = remote_close,
};

/* ---- its server ------------------------------------------------------------------------ */

static void set_retry_for(struct stage *stage, uint64_t retry_for)
{
	atomic_store(&remote_of(stage)->retry_for, retry_for);
}

static void tell_trouble(struct stage *stage, struct trouble_status *trouble)
{
	trouble_status(&remote_of(stage)->trouble, trouble);
}

/* Nobody takes an export away for good. */
static bool is_lost(struct stage *stage)
{
	return false;
}

static const struct stage_server remote_server = {
	.set_retry_for = set_retry_for,
	.trouble       = tell_trouble,
	.is_lost       = is_lost,
	.keep_unsaved  = stage_keeps_nothing,
	.failed_flush_loses = true,
};

/* ---- open ------------------------------------------------------------------------------ */

static int need_file(const struct remote *remote, const char *path, const char *what)
{
	int error;

	if (access(path, R_OK) == 0)
		return 0;
	error = -errno;
	log_error("%s: %s: %s: %s", remote->text, what, path, strerror(-error));
	return error;
}

/* libnbd would just say that it cannot. */
static int check_keys(const struct remote *remote)
{
	const struct nbd_place *place = &remote->place;
	char path[4096];
	int error = 0;

	if (place->psk_file)
		error = need_file(remote, place->psk_file, "pre-shared keys");
	if (!error && place->certificates) {
		if ((size_t)snprintf(path, sizeof(path), "%s/ca-cert.pem",
				     place->certificates) >= sizeof(path))
			return -ENAMETOOLONG;
		error = need_file(remote, path,
				  "the certificate of the authority that signs the server's");
	}
	return error;
}

static struct remote *remote_new(const struct place *place,
				 const struct device_options *options)
{
	struct remote *remote = calloc(1, sizeof(*remote));

	if (!remote)
		return NULL;
	pthread_mutex_init(&remote->lock, NULL);
	pthread_cond_init(&remote->opened_cond, NULL);
	TAILQ_INIT(&remote->arrived);
	TAILQ_INIT(&remote->ended);
	TAILQ_INIT(&remote->kept.calls);
	for (unsigned int i = 0; i < NR_PRIORITIES; i++)
		TAILQ_INIT(&remote->queues[i]);
	for (unsigned int i = 0; i < NBD_CONNECTIONS_MAX; i++) {
		remote->links[i].remote = remote;
		TAILQ_INIT(&remote->links[i].calls);
	}
	remote->nr_links = 1;
	remote->flushing_last = &remote->flushing;
	remote->unflushed_last = &remote->unflushed;
	remote->read_only = options->read_only;
	atomic_init(&remote->retry_for, options->retry_for);
	remote->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	remote->text = strdup(place->text);
	trouble_init(&remote->trouble, remote->text);
	if (remote->text && remote->wake_fd >= 0)
		return remote;
	remote_free(remote);
	return NULL;
}

/* A thread that gets no signal. */
static int start(struct remote *remote)
{
	sigset_t all, before;
	int error;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	error = -pthread_create(&remote->thread, NULL, remote_run, remote);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	if (error) {
		log_error("%s: no thread: %s", remote->text, strerror(-error));
		return error;
	}
	pthread_setname_np(remote->thread, "nbd");
	return 0;
}

static int wait_opened(struct remote *remote)
{
	int error;

	pthread_mutex_lock(&remote->lock);
	while (!remote->opened)
		pthread_cond_wait(&remote->opened_cond, &remote->lock);
	error = remote->open_error;
	pthread_mutex_unlock(&remote->lock);
	return error;
}

static int set_geometry(struct remote *remote, struct geometry *geometry)
{
	const struct peer *peer = &remote->peer;
	uint32_t unit = peer->minimum ? (uint32_t)peer->minimum : 1;
	uint64_t longest = peer->maximum ? (uint64_t)peer->maximum : LONGEST;

	if (longest > LONGEST)
		longest = LONGEST;
	remote->longest = longest & ~(uint64_t)(unit - 1);
	geometry->size = (uint64_t)peer->size;
	geometry->read_unit = geometry->write_unit = unit;
	geometry->max_request = (uint32_t)remote->longest;
	geometry->preferred = 4096;
	if (peer->preferred > 4096 && peer->preferred <= (int64_t)LONGEST &&
	    !(peer->preferred & (peer->preferred - 1)))
		geometry->preferred = (uint32_t)peer->preferred;
	if (unit > 1 && geometry->preferred < PREFERRED)
		geometry->preferred = PREFERRED;
	if (geometry->preferred > remote->longest)
		geometry->preferred = 1u << (31 - __builtin_clz((uint32_t)remote->longest));
	if (remote->read_only || peer->read_only)
		geometry->flags |= STAGE_READ_ONLY;
	if (peer->fua)
		geometry->flags |= STAGE_NATIVE_FUA;
	if (peer->fast_zero)
		geometry->flags |= STAGE_FAST_ZERO;
	if (peer->rotational)
		geometry->flags |= STAGE_ROTATIONAL;
	if (!(geometry->flags & STAGE_READ_ONLY) && !peer->flush && !peer->fua) {
		log_error("%s: its server offers neither flush nor FUA, so nothing written could be made durable; --read-only opens it",
			  remote->text);
		return -EOPNOTSUPP;
	}
	if (!peer->zero) {
		remote->zeros = calloc(1, ZEROS_SIZE);
		if (!remote->zeros)
			return -ENOMEM;
	}
	return 0;
}

int nbd_remote_open(const struct place *place,
		    const struct device_options *options, struct stage **stage)
{
	struct remote *remote = remote_new(place, options);
	struct geometry geometry = { 0 };
	int error;

	if (!remote)
		return -ENOMEM;
	error = nbd_place_parse(place, &remote->place);
	if (!error)
		error = check_keys(remote);
	if (!error)
		error = start(remote);
	if (error) {
		remote_free(remote);
		return error;
	}
	error = wait_opened(remote);
	if (!error)
		error = set_geometry(remote, &geometry);
	if (error) {
		stop(remote);
		remote_free(remote);
		return error;
	}
	stage_init(&remote->stage, &remote_ops, NULL, &geometry);
	remote->stage.server = &remote_server;
	*stage = &remote->stage;
	return 0;
}
