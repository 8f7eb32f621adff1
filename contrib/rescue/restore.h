/* restore.h: a whole volume, verified, to an output or to nowhere. */
#ifndef OBJMAP_RESCUE_RESTORE_H
#define OBJMAP_RESCUE_RESTORE_H

#include "contrib/rescue/output.h"
#include "contrib/rescue/volume.h"

/* Fetches all chunks, several at once, and writes what is verified to @output
 * (NULL: nowhere).  Tells what is bad on standard error, chunk by chunk, and on
 * standard output as lines "bad OFFSET COUNT", ascending; with @show also its
 * progress.  0: all is good, 1: some is bad, -1 after a message: it had to stop. */
int restore(const struct volume *volume, const struct output *output,
	    unsigned int connections, bool show);

#endif
