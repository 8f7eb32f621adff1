/* stop.c: a verb that ends in order when it is told to. */
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>

#include "src/cmd/stop.h"

atomic_bool stop;

static void on_signal(int signal)
{
	atomic_store(&stop, true);
}

static void catch_one(int signal)
{
	struct sigaction action = { .sa_handler = on_signal,
				    .sa_flags = (int)SA_RESETHAND };
	struct sigaction before;

	if (sigaction(signal, NULL, &before) == 0 && before.sa_handler != SIG_IGN)
		sigaction(signal, &action, NULL);
}

void stop_on_signals(void)
{
	catch_one(SIGINT);
	catch_one(SIGTERM);
}
