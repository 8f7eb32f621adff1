/* list_nbd.c: `objmap list nbd://HOST`: what an NBD server exports, and whether it
 * can be written to. */
#include <errno.h>
#include <stdio.h>

#include "backends/nbd/nbd.h"
#include "src/cmd/list_nbd.h"
#include "src/cmd/open.h"
#include "src/cmd/print.h"
#include "src/log.h"
#include "src/place_nbd.h"

static int print_as_json(const struct nbd_exports *all)
{
	json_t *list = json_array();

	for (unsigned int i = 0; i < all->nr; i++) {
		const struct nbd_export *e = &all->exports[i];
		bool told = e->size >= 0;

		json_array_append_new(list, json_pack("{s:s, s:s, s:o, s:o}",
			"name", e->name, "description", e->description,
			"size", told ? json_integer(e->size) : json_null(),
			"read_only", told ? json_boolean(e->read_only) :
				     json_null()));
	}
	return print_json(list);
}

static int print_as_text(const struct place *place, const struct nbd_exports *all)
{
	static const char *const titles[] = {
		"EXPORT", "SIZE", "WRITABLE", "DESCRIPTION"
	};
	struct table table = { .nr_columns = 4, .right = 1 << 1 };
	int error = table_add(&table, titles);

	for (unsigned int i = 0; i < all->nr && !error; i++) {
		const struct nbd_export *e = &all->exports[i];
		char size[UNITS_TEXT];
		const char *cells[] = {
			*e->name ? e->name : "(default)",
			e->size < 0 ? "?" : size_format((uint64_t)e->size, size),
			e->size < 0 ? "?" : e->read_only ? "no" : "yes",
			e->description,
		};

		error = table_add(&table, cells);
	}
	if (!error && all->nr)
		table_print(&table);
	else if (!error)
		log_notice("%s: its server lists no export", place->text);
	table_free(&table);
	return exit_status(error);
}

int list_exports(const struct options *options, const char *text)
{
	struct nbd_exports all;
	struct place place;
	int error, status;

	error = open_place(options, text, WANT_PLACE, &place);
	if (error)
		return exit_status(error);
	error = nbd_list(&place, option_time(options, "retry-for"), &all);
	if (error) {
		status = exit_status(error);
	} else {
		status = option_flag(options, "json") ? print_as_json(&all) :
			 print_as_text(&place, &all);
		nbd_exports_free(&all);
	}
	place_free(&place);
	return status;
}
