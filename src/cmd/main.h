/* main.h: finding a verb by its words. */
#ifndef OBJMAP_MAIN_H
#define OBJMAP_MAIN_H

#include "src/cmd/options.h"

/* Finds the verb whose words @words begin with; *used says how many they are.
 * Returns 0, -EINVAL (none; logged with the nearest), or -EINPROGRESS (the
 * first word of several verbs, such as "snapshot", alone; not logged). */
int verb_find(int nr_words, char **words, const struct verb **verb, int *used);

/* One usage line for each verb that begins with @word. */
void verb_print_family(const char *word);

#endif
