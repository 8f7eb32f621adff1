/* process.h: is another process on its way out? */
#ifndef OBJMAP_PROCESS_H
#define OBJMAP_PROCESS_H

#include <stdbool.h>
#include <sys/types.h>

/* Whether @pid is gone or a zombie.  The threads of a killed process end one by
 * one: until the last has, its locks are held and its sockets still listen. */
bool process_is_ending(pid_t pid);

/* How often, and how many times, to look again before giving up: 5 s in all. */
#define PROCESS_ENDING_PAUSE_US 10000
#define PROCESS_ENDING_TRIES	500

#endif
