/* count-yields.c: preloaded, adds a byte to the file YIELDS at every sched_yield():
 * how often a program span rather than slept, however busy the machine. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

int sched_yield(void);

int sched_yield(void)
{
	int (*real)(void) = (int (*)(void))dlsym(RTLD_NEXT, "sched_yield");
	const char *file = getenv("YIELDS");
	int fd = file ? open(file, O_WRONLY | O_CREAT | O_APPEND, 0600) : -1;

	if (fd >= 0) {
		if (write(fd, "y", 1) < 0)
			abort();
		close(fd);
	}
	return real();
}
