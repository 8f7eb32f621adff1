/* progress.h: how far a verb is, on standard error.
 *
 * On a terminal a bar with rate and time left, elsewhere a line every few
 * seconds, with --quiet nothing.
 */
#ifndef OBJMAP_PROGRESS_H
#define OBJMAP_PROGRESS_H

#include <stdbool.h>
#include <stdint.h>

enum progress_unit { PROGRESS_BYTES, PROGRESS_COUNT };

struct progress;

/* Returns 0 and *progress (NULL when @quiet), or -errno. */
int progress_open(bool quiet, enum progress_unit unit,
		  struct progress **progress);

/* From any thread, as often as it likes.  @what: a word such as "copying",
 * which stays valid; when it changes, a new bar begins.  @total: UINT64_MAX
 * when nobody knows.  @progress may be NULL. */
void progress_update(struct progress *progress, const char *what, uint64_t done,
		     uint64_t total);

/* Takes the bar away. */
void progress_close(struct progress *progress);

#endif
