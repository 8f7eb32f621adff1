/* workers.c: threads that run jobs which may block, the lowest priority first. */
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdlib.h>

#include "src/workers.h"

#define NR_PRIORITIES (PRIORITY_PUSH + 1)

struct workers {
	unsigned int nr_threads;
	pthread_mutex_t lock;		/* guards what follows, up to threads */
	pthread_cond_t wake;
	struct job *first[NR_PRIORITIES];
	struct job **last[NR_PRIORITIES];
	bool closing;
	pthread_t threads[];
};

/* The next job, or NULL when there is none.  The lock is held. */
static struct job *job_take(struct workers *workers)
{
	for (int i = 0; i < NR_PRIORITIES; i++) {
		struct job *job = workers->first[i];

		if (!job)
			continue;
		workers->first[i] = job->next;
		if (!job->next)
			workers->last[i] = &workers->first[i];
		return job;
	}
	return NULL;
}

static void *worker_run(void *context)
{
	struct workers *workers = context;
	struct job *job;

	pthread_mutex_lock(&workers->lock);
	for (;;) {
		job = job_take(workers);
		if (job) {
			pthread_mutex_unlock(&workers->lock);
			job->run(job);
			pthread_mutex_lock(&workers->lock);
		} else if (workers->closing) {
			break;
		} else {
			pthread_cond_wait(&workers->wake, &workers->lock);
		}
	}
	pthread_mutex_unlock(&workers->lock);
	return NULL;
}

void workers_submit(struct workers *workers, struct job *job)
{
	job->next = NULL;
	pthread_mutex_lock(&workers->lock);
	*workers->last[job->priority] = job;
	workers->last[job->priority] = &job->next;
	pthread_cond_signal(&workers->wake);
	pthread_mutex_unlock(&workers->lock);
}

void workers_close(struct workers *workers)
{
	pthread_mutex_lock(&workers->lock);
	workers->closing = true;
	pthread_cond_broadcast(&workers->wake);
	pthread_mutex_unlock(&workers->lock);
	for (unsigned int i = 0; i < workers->nr_threads; i++)
		pthread_join(workers->threads[i], NULL);
	pthread_cond_destroy(&workers->wake);
	pthread_mutex_destroy(&workers->lock);
	free(workers);
}

int workers_open(const char *name, unsigned int nr_threads,
		 struct workers **result)
{
	struct workers *workers;
	sigset_t all, old;
	int error = 0;

	workers = calloc(1, sizeof(*workers) + nr_threads * sizeof(pthread_t));
	if (!workers)
		return -ENOMEM;
	pthread_mutex_init(&workers->lock, NULL);
	pthread_cond_init(&workers->wake, NULL);
	for (int i = 0; i < NR_PRIORITIES; i++)
		workers->last[i] = &workers->first[i];

	/* A thread inherits the mask: signals are for the main thread. */
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	for (unsigned int i = 0; i < nr_threads && !error; i++) {
		error = -pthread_create(&workers->threads[i], NULL, worker_run,
					workers);
		if (error)
			break;
		pthread_setname_np(workers->threads[i], name);
		workers->nr_threads++;
	}
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	if (error) {
		workers_close(workers);
		return error;
	}
	*result = workers;
	return 0;
}
