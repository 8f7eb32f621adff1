/* trouble.c: what fails for a while and is tried again, told to people. */
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "src/clock.h"
#include "src/log.h"
#include "src/trouble.h"
#include "src/units.h"
#include "src/utf8.h"

#define LOG_INTERVAL (10 * CLOCK_SECOND)	/* between two announced troubles */

void trouble_init(struct trouble *trouble, const char *place)
{
	memset(trouble, 0, sizeof(*trouble));
	pthread_mutex_init(&trouble->lock, NULL);
	trouble->place = place;
}

void trouble_deinit(struct trouble *trouble)
{
	pthread_mutex_destroy(&trouble->lock);
}

void trouble_note(struct trouble *trouble, bool *in, uint64_t since,
		  const char *format, ...)
{
	struct trouble_status *status = &trouble->status;
	char reason[sizeof(status->reason)];
	uint64_t now = clock_now();
	va_list values;
	bool announce;

	va_start(values, format);
	vsnprintf(reason, sizeof(reason), format, values);
	va_end(values);
	utf8_mend(reason);
	pthread_mutex_lock(&trouble->lock);
	if (!*in && trouble->nr++ == 0)
		status->since = since ? since : now;
	*in = true;
	status->attempts += !since;
	strcpy(status->reason, reason);
	announce = !trouble->announced && now >= trouble->quiet_until;
	if (announce) {
		trouble->announced = true;
		trouble->quiet_until = now + LOG_INTERVAL;
	}
	pthread_mutex_unlock(&trouble->lock);
	if (announce)
		log_warning("%s: %s; %s", trouble->place, reason,
			    since ? "still waiting" : "trying again");
}

void trouble_end(struct trouble *trouble, bool *in, const char *how)
{
	char time[UNITS_TEXT];
	uint64_t since = 0;

	if (!*in)
		return;
	*in = false;
	pthread_mutex_lock(&trouble->lock);
	if (--trouble->nr == 0) {
		if (trouble->announced && how)
			since = trouble->status.since;
		memset(&trouble->status, 0, sizeof(trouble->status));
		trouble->announced = false;
	}
	pthread_mutex_unlock(&trouble->lock);
	if (since)
		log_notice("%s: %s, after %s", trouble->place, how,
			   time_format(clock_now() - since, time));
}

void trouble_status(struct trouble *trouble, struct trouble_status *status)
{
	pthread_mutex_lock(&trouble->lock);
	*status = trouble->status;
	pthread_mutex_unlock(&trouble->lock);
}
