/* nearest.h: the word somebody probably meant. */
#ifndef OBJMAP_NEAREST_H
#define OBJMAP_NEAREST_H

/* The entry of @words (NULL at the end) that takes the fewest insertions,
 * deletions, replacements and swaps of neighbours to become @word; NULL when
 * none is near enough to be worth saying. */
const char *nearest_word(const char *word, const char *const *words);

#endif
