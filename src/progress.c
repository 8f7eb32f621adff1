/* progress.c: a thread that shows how far something is. */
#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "src/clock.h"
#include "src/progress.h"
#include "src/units.h"

#define BAR_INTERVAL  (200 * CLOCK_MS)
#define LINE_INTERVAL (5 * CLOCK_SECOND)
#define RATE_INTERVAL (1 * CLOCK_SECOND)	/* between samples of the rate */
#define BAR_WIDTH     24u
#define BAR_LEAST     6u	/* where the terminal is narrow; less is no bar */

struct progress {
	enum progress_unit unit;
	bool terminal;
	pthread_t thread;
	/* The thread's own. */
	const char *shown;		/* the word of the bar being shown */
	uint64_t sampled, sampled_at;	/* done, then */
	double rate;			/* units a second, smoothed; 0: unknown */

	pthread_mutex_t lock;		/* guards what follows */
	pthread_cond_t changed;
	const char *what;		/* NULL: nothing to show yet */
	uint64_t done, total;
	bool closing;
};

static void sample_rate(struct progress *p, const char *what, uint64_t done)
{
	uint64_t now = clock_now();
	double rate;

	if (what != p->shown || done < p->sampled) {
		p->shown = what;
		p->sampled = done;
		p->sampled_at = now;
		p->rate = 0;
	}
	if (now - p->sampled_at < RATE_INTERVAL)
		return;
	rate = (double)(done - p->sampled) * CLOCK_SECOND /
	       (double)(now - p->sampled_at);
	p->rate = p->rate > 0 ? 0.7 * p->rate + 0.3 * rate : rate;
	p->sampled = done;
	p->sampled_at = now;
}

static const char *amount_format(const struct progress *p, uint64_t amount,
				 char text[UNITS_TEXT])
{
	if (p->unit == PROGRESS_BYTES)
		return size_format(amount, text);
	snprintf(text, UNITS_TEXT, "%" PRIu64, amount);
	return text;
}

static void bar_format(char *bar, unsigned int width, uint64_t done, uint64_t total)
{
	unsigned int i, full = total ? (unsigned int)((double)done * width /
						      (double)total) : 0;

	for (i = 0; i < width; i++)
		bar[i] = i < full ? '=' : i == full ? '>' : ' ';
	bar[width] = 0;
}

/* "45 %, 1.2 GiB of 2.7 GiB, 310 MiB/s, 5 s left" */
static void text_format(const struct progress *p, uint64_t done, uint64_t total,
			char *text, size_t size)
{
	char a[UNITS_TEXT], b[UNITS_TEXT];
	int used;

	if (total == UINT64_MAX)
		used = snprintf(text, size, "%s", amount_format(p, done, a));
	else
		used = snprintf(text, size, "%3u %%  %s of %s",
				total ? (unsigned int)((double)done * 100 /
						       (double)total) : 100,
				amount_format(p, done, a),
				amount_format(p, total, b));
	if (p->rate <= 0)
		return;
	used += snprintf(text + used, size - (size_t)used, "  %s/s",
			 amount_format(p, (uint64_t)p->rate, a));
	if (total != UINT64_MAX && done < total)
		snprintf(text + used, size - (size_t)used, "  %s left",
			 time_format((uint64_t)((double)(total - done) / p->rate) *
				     CLOCK_SECOND + CLOCK_SECOND, a));
}

static unsigned int terminal_width(void)
{
	struct winsize size;

	return ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col ?
	       size.ws_col : 80;
}

static void show(struct progress *p, const char *what, uint64_t done,
		 uint64_t total)
{
	char text[160], line[256], bar[BAR_WIDTH + 1];
	unsigned int width, used;

	sample_rate(p, what, done);
	text_format(p, done, total, text, sizeof(text));
	if (!p->terminal) {
		fprintf(stderr, "objmap: %s: %s\n", what, text + strspn(text, " "));
		return;
	}
	width = terminal_width();
	used = (unsigned int)(strlen(what) + strlen(text) + strlen("  [] ") + 1);
	if (total == UINT64_MAX || width < used + BAR_LEAST) {
		snprintf(line, sizeof(line), "%.60s  %s", what, text);
	} else {
		bar_format(bar, width - used < BAR_WIDTH ? width - used : BAR_WIDTH,
			   done, total);
		snprintf(line, sizeof(line), "%.60s  [%s] %s", what, bar, text);
	}
	fprintf(stderr, "\r%.*s\033[K", (int)width - 1, line);
	fflush(stderr);
}

static void *run(void *context)
{
	struct progress *p = context;
	uint64_t interval = p->terminal ? BAR_INTERVAL : LINE_INTERVAL, until;
	const char *what;
	uint64_t done, total;
	struct timespec t;

	pthread_mutex_lock(&p->lock);
	while (!p->closing) {
		until = clock_now() + interval;
		t.tv_sec = (time_t)(until / CLOCK_SECOND);
		t.tv_nsec = (long)(until % CLOCK_SECOND);
		while (!p->closing && clock_now() < until)
			pthread_cond_timedwait(&p->changed, &p->lock, &t);
		if (p->closing || !p->what)
			continue;
		what = p->what;
		done = p->done;
		total = p->total;
		pthread_mutex_unlock(&p->lock);
		show(p, what, done, total);
		pthread_mutex_lock(&p->lock);
	}
	pthread_mutex_unlock(&p->lock);
	return NULL;
}

int progress_open(bool quiet, enum progress_unit unit,
		  struct progress **progress)
{
	struct progress *p;
	pthread_condattr_t clock;
	sigset_t all, old;
	int error;

	*progress = NULL;
	if (quiet)
		return 0;
	p = calloc(1, sizeof(*p));
	if (!p)
		return -ENOMEM;
	p->unit = unit;
	p->terminal = isatty(STDERR_FILENO);
	pthread_mutex_init(&p->lock, NULL);
	pthread_condattr_init(&clock);
	pthread_condattr_setclock(&clock, CLOCK_MONOTONIC);
	pthread_cond_init(&p->changed, &clock);
	pthread_condattr_destroy(&clock);
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	error = -pthread_create(&p->thread, NULL, run, p);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	if (error)
		free(p);
	else
		*progress = p;
	return error;
}

void progress_update(struct progress *p, const char *what, uint64_t done,
		     uint64_t total)
{
	if (!p)
		return;
	pthread_mutex_lock(&p->lock);
	p->what = what;
	p->done = done;
	p->total = total;
	pthread_mutex_unlock(&p->lock);
}

void progress_close(struct progress *p)
{
	if (!p)
		return;
	pthread_mutex_lock(&p->lock);
	p->closing = true;
	pthread_cond_signal(&p->changed);
	pthread_mutex_unlock(&p->lock);
	pthread_join(p->thread, NULL);
	if (p->terminal && p->shown)
		fputs("\r\033[K", stderr);
	pthread_cond_destroy(&p->changed);
	pthread_mutex_destroy(&p->lock);
	free(p);
}
