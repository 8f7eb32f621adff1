/* credentials.c: the keys in force, and the thread that renews them.
 *
 * The first link of the chain that has an answer is kept, and only it is asked
 * again: nobody becomes somebody else because a file went away.
 */
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "backends/s3/credentials_find.h"
#include "src/clock.h"
#include "src/log.h"
#include "src/random.h"

#define PATIENCE	(30 * CLOCK_SECOND)	/* of one look */
#define SLEEP_MOST	30	/* s: clocks are set, and machines sleep */
#define RENEW_BEFORE	300	/* s before the end, and up to RENEW_JITTER more */
#define RENEW_JITTER	600
#define RETRY_FIRST	2	/* s, doubled while it fails */
#define RETRY_MOST	60
#define REFUSED_PAUSE	(10 * CLOCK_SECOND)	/* between renewals a store asks for */
#define NEVER		INT64_MAX

struct s3_credentials {
	search_link *find;	/* the link that answered */
	struct search search;	/* once the thread runs, its own */
	pthread_t thread;
	bool has_thread;
	atomic_bool closing;
	char source[256];	/* as it was found first */

	pthread_mutex_t lock;	/* guards all below */
	pthread_cond_t changed;
	struct s3_keys keys;
	int64_t skew;		/* s that their issuer's clock is ahead of ours */
	char trouble[1024];	/* why renewal fails; empty: it does not */
	bool refused;		/* renew now */
	uint64_t refused_at;	/* clock_now() of the last time; 0: never */
	int64_t due;		/* s since 1970 by our clock */
	unsigned int pause;	/* s before the next try; 0: the last one was good */
};

static int64_t seconds_now(void)
{
	return (int64_t)time(NULL);
}

static bool have_expired(const struct s3_keys *keys, int64_t skew)
{
	return keys->expires && seconds_now() + skew >= (int64_t)keys->expires;
}

/* When to renew keys that we just got: a while before they end, and not all
 * machines at once. */
static int64_t due_of(const struct s3_keys *keys, int64_t skew)
{
	int64_t now = seconds_now(), end = (int64_t)keys->expires - skew;
	int64_t left = end > now ? end - now : 0, before;

	if (!keys->expires)
		return NEVER;
	before = RENEW_BEFORE + (int64_t)(random_id() % RENEW_JITTER);
	if (before > left / 2)
		before = 1 + left / 4 + (int64_t)(random_id() % (uint64_t)(left / 4 + 1));
	return end - before > now ? end - before : now + 1;
}

/* ---- looking -------------------------------------------------------------- */

/* What a link answers must be good for something. */
static int ask(struct search *search, search_link *find, struct s3_keys *keys)
{
	int error;

	search->skew = 0;
	search->why[0] = 0;
	error = find(search, keys);
	if (!error && have_expired(keys, search->skew))
		error = search_fails(search, -EKEYEXPIRED, "%s: its keys have expired",
				     search->source);
	return error;
}

/* One link after the other, as the AWS command line asks them. */
static int ask_chain(struct search *search, struct s3_keys *keys, search_link **find)
{
	static search_link *const chain[] = {
		find_in_environment, find_role_in_profile, find_by_web_identity,
		find_in_profile, find_in_container, find_in_instance,
	};
	/* A profile on the command line is meant more than the environment. */
	bool named = search->options.profile;
	char looked[sizeof(search->why)] = "";
	size_t used = 0;
	int error;

	for (size_t i = 0; i < sizeof(chain) / sizeof(chain[0]); i++) {
		*find = chain[i];
		if (named && (*find == find_in_environment ||
			      *find == find_by_web_identity))
			continue;
		error = ask(search, *find, keys);
		if (error != -ENODATA)
			return error;
		/* find_in_profile says it again. */
		if (*find != find_role_in_profile && used < sizeof(looked))
			used += (size_t)snprintf(looked + used, sizeof(looked) - used,
						 "%s%s", used ? "; " : "", search->why);
	}
	return search_fails(search, -ENOKEY, "none found: %.*s: set AWS_ACCESS_KEY_ID and "
			    "AWS_SECRET_ACCESS_KEY, choose a profile with --profile, or "
			    "give --no-sign-request for a public bucket",
			    (int)sizeof(looked), looked);
}

static int find_first(struct s3_credentials *credentials)
{
	struct search *search = &credentials->search;
	int error;

	search->deadline = clock_now() + PATIENCE;
	credentials->find = find_nobody;
	if (search->options.anonymous)
		error = ask(search, find_nobody, &credentials->keys);
	else
		error = ask_chain(search, &credentials->keys, &credentials->find);
	if (error)
		log_error("S3 credentials: %s", search->why);
	return error;
}

/* ---- renewing ------------------------------------------------------------- */

static void take(struct s3_credentials *credentials, struct s3_keys *keys)
{
	struct s3_keys *old = &credentials->keys;

	keys->generation = old->generation;
	if (strcmp(keys->id, old->id) || strcmp(keys->secret, old->secret) ||
	    strcmp(keys->token, old->token))
		keys->generation++;
	*old = *keys;
	credentials->skew = credentials->search.skew;
	credentials->due = due_of(keys, credentials->skew);
	credentials->pause = 0;
	if (credentials->trouble[0])
		log_notice("S3 credentials: renewed: %s", credentials->search.source);
	credentials->trouble[0] = 0;
}

/* Keeps what there is: it may be good for a while. */
static void fail(struct s3_credentials *credentials)
{
	unsigned int pause = credentials->pause ? 2 * credentials->pause : RETRY_FIRST;

	if (!credentials->trouble[0])
		log_warning("S3 credentials: not renewed: %s: trying again",
			    credentials->search.why);
	snprintf(credentials->trouble, sizeof(credentials->trouble), "%s",
		 credentials->search.why);
	credentials->pause = pause < RETRY_MOST ? pause : RETRY_MOST;
	credentials->due = seconds_now() + credentials->pause / 2 + 1 +
			   (int64_t)(random_id() % (credentials->pause / 2 + 1));
}

static void renew(struct s3_credentials *credentials)
{
	struct search *search = &credentials->search;
	struct s3_keys keys;
	int error;

	search->deadline = clock_now() + PATIENCE;
	error = ask(search, credentials->find, &keys);
	pthread_mutex_lock(&credentials->lock);
	if (!error)
		take(credentials, &keys);
	else if (!atomic_load(&credentials->closing))
		fail(credentials);
	pthread_mutex_unlock(&credentials->lock);
	explicit_bzero(&keys, sizeof(keys));
}

/* Sleeps until there is something to do; the lock is held. */
static void wait_until_due(struct s3_credentials *credentials)
{
	struct timespec until;
	int64_t left;

	while (!credentials->refused && !atomic_load(&credentials->closing)) {
		left = credentials->due - seconds_now();
		if (left <= 0)
			return;
		clock_gettime(CLOCK_MONOTONIC, &until);
		until.tv_sec += left < SLEEP_MOST ? left : SLEEP_MOST;
		pthread_cond_timedwait(&credentials->changed, &credentials->lock, &until);
	}
}

static void *credentials_run(void *context)
{
	struct s3_credentials *credentials = context;
	bool closing;

	for (;;) {
		pthread_mutex_lock(&credentials->lock);
		wait_until_due(credentials);
		credentials->refused = false;
		closing = atomic_load(&credentials->closing);
		pthread_mutex_unlock(&credentials->lock);
		if (closing)
			return NULL;
		renew(credentials);
	}
}

static int thread_start(struct s3_credentials *credentials)
{
	sigset_t all, before;
	int error;

	/* What is fixed as long as we live needs nobody to look after it. */
	if (credentials->find == find_nobody || credentials->find == find_in_environment)
		return 0;
	credentials->search.renewing = true;
	credentials->due = due_of(&credentials->keys, credentials->skew);
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	error = pthread_create(&credentials->thread, NULL, credentials_run, credentials);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	credentials->has_thread = !error;
	if (error)
		log_error("S3 credentials: no thread to renew them: %s", strerror(error));
	return -error;
}

/* ---- for whoever signs ---------------------------------------------------- */

static char *copy_of(const char *text, bool *short_of_memory)
{
	char *copy = text ? strdup(text) : NULL;

	*short_of_memory |= text && !copy;
	return copy;
}

static struct s3_credentials *credentials_new(const struct s3_credentials_options *options)
{
	struct s3_credentials *credentials = calloc(1, sizeof(*credentials));
	struct s3_credentials_options *own;
	pthread_condattr_t attributes;
	bool short_of_memory = false;

	if (!credentials)
		return NULL;
	own = &credentials->search.options;
	own->anonymous = options->anonymous;
	own->profile = copy_of(options->profile, &short_of_memory);
	own->region = copy_of(options->region, &short_of_memory);
	own->ca_bundle = copy_of(options->ca_bundle, &short_of_memory);
	credentials->search.closing = &credentials->closing;
	pthread_mutex_init(&credentials->lock, NULL);
	pthread_condattr_init(&attributes);
	pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
	pthread_cond_init(&credentials->changed, &attributes);
	pthread_condattr_destroy(&attributes);
	if (short_of_memory) {
		s3_credentials_close(credentials);
		credentials = NULL;
	}
	return credentials;
}

int s3_credentials_open(const struct s3_credentials_options *options,
			struct s3_credentials **out)
{
	struct s3_credentials *credentials = credentials_new(options);
	int error = -ENOMEM;

	*out = NULL;
	if (!credentials) {
		log_error("S3 credentials: no memory");
		return error;
	}
	error = find_first(credentials);
	if (!error) {
		credentials->keys.generation = 1;
		credentials->skew = credentials->search.skew;
		strcpy(credentials->source, credentials->search.source);
		error = thread_start(credentials);
	}
	if (error)
		s3_credentials_close(credentials);
	else
		*out = credentials;
	return error;
}

void s3_credentials_close(struct s3_credentials *credentials)
{
	struct s3_credentials_options *own = &credentials->search.options;

	pthread_mutex_lock(&credentials->lock);
	atomic_store(&credentials->closing, true);
	pthread_cond_signal(&credentials->changed);
	pthread_mutex_unlock(&credentials->lock);
	if (credentials->has_thread)
		pthread_join(credentials->thread, NULL);
	search_close_clients(&credentials->search);
	free((char *)(uintptr_t)own->profile);
	free((char *)(uintptr_t)own->region);
	free((char *)(uintptr_t)own->ca_bundle);
	pthread_cond_destroy(&credentials->changed);
	pthread_mutex_destroy(&credentials->lock);
	explicit_bzero(credentials, sizeof(*credentials));
	free(credentials);
}

int s3_credentials_get(struct s3_credentials *credentials, struct s3_keys *keys)
{
	int error = 0;

	pthread_mutex_lock(&credentials->lock);
	if (have_expired(&credentials->keys, credentials->skew))
		error = -EKEYEXPIRED;
	else
		*keys = credentials->keys;
	pthread_mutex_unlock(&credentials->lock);
	return error;
}

void s3_credentials_refused(struct s3_credentials *credentials, uint64_t generation)
{
	uint64_t now = clock_now();

	pthread_mutex_lock(&credentials->lock);
	if (credentials->has_thread && generation == credentials->keys.generation &&
	    (!credentials->refused_at || now - credentials->refused_at >= REFUSED_PAUSE)) {
		credentials->refused_at = now;
		credentials->refused = true;
		pthread_cond_signal(&credentials->changed);
	}
	pthread_mutex_unlock(&credentials->lock);
}

void s3_credentials_trouble(struct s3_credentials *credentials, char *text,
			    unsigned int size)
{
	pthread_mutex_lock(&credentials->lock);
	if (!credentials->trouble[0] &&
	    have_expired(&credentials->keys, credentials->skew))
		snprintf(text, size, "%s: its keys have expired", credentials->source);
	else
		snprintf(text, size, "%s", credentials->trouble);
	pthread_mutex_unlock(&credentials->lock);
}

const char *s3_credentials_source(const struct s3_credentials *credentials)
{
	return credentials->source;
}
