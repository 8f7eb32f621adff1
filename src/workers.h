/* workers.h: a fixed number of threads that run jobs which may block. */
#ifndef OBJMAP_WORKERS_H
#define OBJMAP_WORKERS_H

#include "src/stage/stage.h"

struct workers;

struct job {
	void (*run)(struct job *job);
	enum request_priority priority;	/* lower first, then first come */
	struct job *next;		/* the queue's */
};

/* Starts @nr_threads threads called @name (at most 15 bytes).  They block all
 * signals.  Returns 0 or -errno. */
int workers_open(const char *name, unsigned int nr_threads,
		 struct workers **workers);

/* Queues @job, which must stay in place until it has run. */
void workers_submit(struct workers *workers, struct job *job);

/* Runs what is queued, then ends the threads. */
void workers_close(struct workers *workers);

#endif
