/* picture.c: draws which parts of a place have data.
 *
 * Each cell stands for the same number of units; its shade says how many of
 * them have data.  A cell is blank only if none has, so no data is overlooked. */
#include <errno.h>
#include <langinfo.h>
#include <locale.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "src/cmd/picture.h"
#include "src/units.h"

#define ROWS_MAX  16
#define WIDTH_MIN 20
#define LABEL	  12	/* columns of the offset before each row */
#define NR_SHADES 5

static const char *const shades_utf8[NR_SHADES] = { "·", "░", "▒", "▓", "█" };
static const char *const shades_ascii[NR_SHADES] = { ".", "-", "+", "x", "#" };

int picture_open(struct picture *picture, uint64_t size, uint64_t unit)
{
	picture->size = size;
	picture->unit = unit;
	picture->nr_units = (size + unit - 1) / unit;
	picture->data = calloc(picture->nr_units / 8 + 1, 1);
	return picture->data ? 0 : -ENOMEM;
}

void picture_mark(struct picture *picture, uint64_t index, uint64_t nr)
{
	for (; nr > 0 && index < picture->nr_units; index++, nr--)
		picture->data[index / 8] |= (unsigned char)(1 << index % 8);
}

void picture_close(struct picture *picture)
{
	free(picture->data);
	picture->data = NULL;
}

static bool has_data(const struct picture *picture, uint64_t index)
{
	return picture->data[index / 8] >> index % 8 & 1;
}

static unsigned int terminal_width(void)
{
	struct winsize size;

	if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col)
		return size.ws_col;
	return 80;
}

/* 0: no data; NR_SHADES - 1: all of it. */
static unsigned int shade_of(const struct picture *picture, uint64_t index,
			     uint64_t nr)
{
	uint64_t found = 0, i;

	for (i = index; i < index + nr; i++)
		found += has_data(picture, i);
	if (found == 0)
		return 0;
	if (found == nr)
		return NR_SHADES - 1;
	return 1 + (unsigned int)(found * (NR_SHADES - 2) / nr);
}

/* Units a cell stands for: a power of two, so that rows begin at round offsets. */
static uint64_t units_per_cell(const struct picture *picture, unsigned int cells)
{
	uint64_t per_cell = 1;

	while (per_cell * cells * ROWS_MAX < picture->nr_units)
		per_cell *= 2;
	return per_cell;
}

static void print_rows(const struct picture *picture, unsigned int cells,
		       uint64_t per_cell, const char *const *shades)
{
	char label[UNITS_TEXT];
	uint64_t index, nr, end;
	unsigned int column;

	for (index = 0; index < picture->nr_units;) {
		printf("%*s ", LABEL - 2,
		       size_format(index * picture->unit, label));
		putchar('|');
		for (column = 0; column < cells && index < picture->nr_units;
		     column++, index += nr) {
			end = picture->nr_units - index;
			nr = per_cell < end ? per_cell : end;
			fputs(shades[shade_of(picture, index, nr)], stdout);
		}
		puts("|");
	}
}

void picture_print(const struct picture *picture, unsigned int width)
{
	const char *const *shades;
	char unit[UNITS_TEXT], cell[UNITS_TEXT];
	unsigned int cells = 1, i;
	uint64_t per_cell;

	setlocale(LC_CTYPE, "");
	shades = strcmp(nl_langinfo(CODESET), "UTF-8") == 0 ? shades_utf8
							    : shades_ascii;
	if (width == 0)
		width = terminal_width();
	if (width < WIDTH_MIN)
		width = WIDTH_MIN;
	while (cells * 2 <= width - LABEL - 1)
		cells *= 2;
	per_cell = units_per_cell(picture, cells);
	print_rows(picture, cells, per_cell, shades);
	printf("%*s %s no data ", LABEL - 2, "", shades[0]);
	for (i = 1; i < NR_SHADES - 1; i++)
		fputs(shades[i], stdout);
	printf(" some %s all;  a cell is %s", shades[NR_SHADES - 1],
	       size_format(per_cell * picture->unit, cell));
	if (per_cell > 1)
		printf(", %llu times %s", (unsigned long long)per_cell,
		       size_format(picture->unit, unit));
	putchar('\n');
}

json_t *picture_json(const struct picture *picture)
{
	json_t *runs = json_array();
	uint64_t from, to, end;
	bool data;

	for (from = 0; from < picture->nr_units; from = to) {
		data = has_data(picture, from);
		for (to = from + 1; to < picture->nr_units; to++)
			if (has_data(picture, to) != data)
				break;
		end = to * picture->unit;
		if (end > picture->size)
			end = picture->size;
		json_array_append_new(runs, json_pack("{s:I, s:I, s:b}",
			"offset", (json_int_t)(from * picture->unit),
			"count", (json_int_t)(end - from * picture->unit),
			"data", (int)data));
	}
	return runs;
}
