/* stop.h: a verb that ends in order when it is told to. */
#ifndef OBJMAP_CMD_STOP_H
#define OBJMAP_CMD_STOP_H

#include <stdatomic.h>

extern atomic_bool stop;	/* a signal has come */

/* The first SIGINT or SIGTERM sets stop, the second ends the process at once.  One that
 * whoever started us ignores (nohup, a script's background) stays ignored. */
void stop_on_signals(void);

#endif
