/* nearest.c: edit distance (with swaps of neighbours) over short words. */
#include <stdbool.h>
#include <stddef.h>
#include <string.h>

#include "src/nearest.h"

#define WORD_MAX 40	/* longer ones are not worth a guess */

static unsigned int least(unsigned int a, unsigned int b)
{
	return a < b ? a : b;
}

static unsigned int distance(const char *a, const char *b)
{
	size_t length_a = strlen(a), length_b = strlen(b);
	unsigned int row[3][WORD_MAX + 1];
	unsigned int *before = row[0], *above = row[1], *current = row[2], *spare;
	size_t i, j;

	if (length_a > WORD_MAX || length_b > WORD_MAX)
		return WORD_MAX;
	for (j = 0; j <= length_b; j++)
		before[j] = above[j] = (unsigned int)j;
	for (i = 1; i <= length_a; i++) {
		current[0] = (unsigned int)i;
		for (j = 1; j <= length_b; j++) {
			bool same = a[i - 1] == b[j - 1];

			current[j] = least(above[j - 1] + !same,
					   least(above[j], current[j - 1]) + 1);
			if (i > 1 && j > 1 && a[i - 1] == b[j - 2] &&
			    a[i - 2] == b[j - 1])
				current[j] = least(current[j], before[j - 2] + 1);
		}
		spare = before;
		before = above;
		above = current;
		current = spare;
	}
	return above[length_b];
}

const char *nearest_word(const char *word, const char *const *words)
{
	unsigned int best = (unsigned int)strlen(word) / 3 + 1, found;
	const char *nearest = NULL;

	if (best > 4)
		best = 4;
	for (; *words; words++) {
		found = distance(word, *words);
		if (found < best) {
			best = found;
			nearest = *words;
		}
	}
	return nearest;
}
