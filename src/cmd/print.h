/* print.h: what verbs print: JSON, and aligned columns. */
#ifndef OBJMAP_PRINT_H
#define OBJMAP_PRINT_H

#include <jansson.h>
#include <stdint.h>

#include "src/units.h"

/* Prints @value on standard output and gives it up.  Returns an exit status. */
int print_json(json_t *value);

/* A path or a value as JSON has it: what is not UTF-8 becomes '?'.  NULL stays null. */
json_t *print_json_text(const char *text);

/* Seconds since 1970 as "2026-03-01 10:02:11" in local time, "never" for 0. */
#define PRINT_TIME_TEXT 32
const char *print_time(uint64_t seconds, char text[PRINT_TIME_TEXT]);

/* What a word gets behind @nr: "s", or "" for one. */
const char *plural(uint64_t nr);

/* Prints what cost_by_cause() said, a line for each cause that cost anything; takes
 * the reference. */
void print_costs(json_t *costs, const char *of_whom);

/* A table: rows of texts, each column as wide as its widest text. */
#define TABLE_COLUMNS 8
struct table {
	unsigned int nr_columns;
	unsigned int nr_rows;
	char **cells;		/* malloc, each too */
	unsigned int right;	/* bit C: column C is aligned to the right */
};
/* @cells: nr_columns texts, which are copied.  -ENOMEM. */
int table_add(struct table *table, const char *const *cells);
void table_print(const struct table *table);
void table_free(struct table *table);

#endif
