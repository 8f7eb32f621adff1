/* print.c: JSON and aligned columns on standard output. */
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "src/cmd/print.h"
#include "src/log.h"
#include "src/utf8.h"

int print_json(json_t *value)
{
	int error;

	if (!value) {
		log_error("out of memory");
		return EXIT_FAILURE;
	}
	error = json_dumpf(value, stdout, JSON_INDENT(2) | JSON_PRESERVE_ORDER);
	putchar('\n');
	json_decref(value);
	return error ? EXIT_FAILURE : EXIT_SUCCESS;
}

json_t *print_json_text(const char *text)
{
	json_t *value;
	char *copy;

	if (!text)
		return json_null();
	copy = strdup(text);
	if (!copy)
		return NULL;
	utf8_mend(copy);
	value = json_string(copy);
	free(copy);
	return value;
}

const char *print_time(uint64_t seconds, char text[PRINT_TIME_TEXT])
{
	time_t when = (time_t)seconds;
	struct tm parts;

	if (seconds == 0 || !localtime_r(&when, &parts) ||
	    strftime(text, PRINT_TIME_TEXT, "%Y-%m-%d %H:%M:%S", &parts) == 0)
		snprintf(text, PRINT_TIME_TEXT, seconds ? "?" : "never");
	return text;
}

const char *plural(uint64_t nr)
{
	return nr == 1 ? "" : "s";
}

/* Columns a text takes on a terminal, by its UTF-8 characters. */
static unsigned int columns_of(const char *text)
{
	unsigned int nr = 0;

	for (; *text; text++)
		nr += ((unsigned char)*text & 0xc0) != 0x80;
	return nr;
}

int table_add(struct table *table, const char *const *cells)
{
	size_t used = (size_t)table->nr_rows * table->nr_columns;
	char **all = realloc(table->cells, (used + table->nr_columns) *
			     sizeof(*all));
	unsigned int c;

	if (!all)
		return -ENOMEM;
	table->cells = all;
	for (c = 0; c < table->nr_columns; c++) {
		all[used + c] = strdup(cells[c]);
		if (!all[used + c])
			break;
	}
	if (c == table->nr_columns) {
		table->nr_rows++;
		return 0;
	}
	while (c > 0)
		free(all[used + --c]);
	return -ENOMEM;
}

static void print_cell(const char *text, unsigned int width, bool right,
		       bool last)
{
	int blanks = (int)(width - columns_of(text));

	if (right)
		printf("%*s%s", blanks, "", text);
	else if (last)
		fputs(text, stdout);
	else
		printf("%s%*s", text, blanks, "");
	fputs(last ? "\n" : "  ", stdout);
}

void table_print(const struct table *table)
{
	unsigned int widths[TABLE_COLUMNS] = { 0 }, r, c, width;

	for (r = 0; r < table->nr_rows; r++)
		for (c = 0; c < table->nr_columns; c++) {
			width = columns_of(table->cells[r * table->nr_columns + c]);
			if (width > widths[c])
				widths[c] = width;
		}
	for (r = 0; r < table->nr_rows; r++)
		for (c = 0; c < table->nr_columns; c++)
			print_cell(table->cells[r * table->nr_columns + c],
				   widths[c], table->right >> c & 1,
				   c + 1 == table->nr_columns);
}

void table_free(struct table *table)
{
	size_t i;

	for (i = 0; i < (size_t)table->nr_rows * table->nr_columns; i++)
		free(table->cells[i]);
	free(table->cells);
	table->cells = NULL;
	table->nr_rows = 0;
}

void print_costs(json_t *costs, const char *of_whom)
{
	char in[UNITS_TEXT], out[UNITS_TEXT];
	json_int_t requests;
	const char *name;
	json_t *cost;

	json_object_foreach(costs, name, cost) {
		requests = json_integer_value(json_object_get(cost, "requests"));
		if (!requests)
			continue;
		size_format((uint64_t)json_integer_value(
				json_object_get(cost, "bytes_in")), in);
		size_format((uint64_t)json_integer_value(
				json_object_get(cost, "bytes_out")), out);
		printf("  %-11s %lld requests, %s in, %s out (%s)\n", name,
		       (long long)requests, in, out, of_whom);
	}
	json_decref(costs);
}
