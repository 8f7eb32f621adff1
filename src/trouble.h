/* trouble.h: what fails for a while and is tried again, told to people.
 *
 * Whoever tries again notes why.  `status` shows the newest reason, since when it lasts
 * and how often it was tried.  The log gets one line while it lasts and one when it is
 * over, or none where it is over within ten seconds of the line before: a server that
 * stumbles now and then would fill it.
 *
 * Any thread may call, holding no lock, for these may log; trouble's own is let go before
 * a line is written. */
#ifndef OBJMAP_TROUBLE_H
#define OBJMAP_TROUBLE_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>	/* pthread_mutex_t, and not all of pthread.h */

struct trouble_status {
	char reason[512];	/* empty: none, and the rest is 0 */
	uint64_t since;		/* clock_now() */
	unsigned int attempts;
};

struct trouble {
	const char *place;	/* for messages; the owner's */
	pthread_mutex_t lock;	/* guards the rest */
	struct trouble_status status;
	unsigned int nr;	/* how many are in it */
	bool announced;		/* a line was logged for this trouble */
	uint64_t quiet_until;	/* clock_now(): no further line before */
};

void trouble_init(struct trouble *trouble, const char *place);
void trouble_deinit(struct trouble *trouble);

/* Notes why somebody tries again; with a @since, that he still waits since then, which
 * is no attempt.  *@in says whether he is in it already, and does so from now on; threads
 * that share it may note at once. */
void trouble_note(struct trouble *trouble, bool *in, uint64_t since,
		  const char *format, ...) __attribute__((format(printf, 4, 5)));

/* Takes him out if *@in, while he notes nothing.  With the last one it is over: @how is
 * said in the log, NULL where he gave up, which he tells himself. */
void trouble_end(struct trouble *trouble, bool *in, const char *how);

void trouble_status(struct trouble *trouble, struct trouble_status *status);

#endif
