/* fuzz-where.c: any text as WHERE: what is taken has a canonical form that is taken
 * for the same. */
#include "src/log.h"
#include "src/where.h"
#include "tests/fuzz/fuzz.h"

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	return log_open("/dev/null", LOG_LEVEL_ERROR);
}

static bool is_nbd(const struct where *where)
{
	return where->kind == WHERE_NBD_UNIX || where->kind == WHERE_NBD_TCP ||
	       where->kind == WHERE_NBD_TLS;
}

static bool same_text(const char *a, const char *b)
{
	return a && b ? strcmp(a, b) == 0 : a == b;
}

static void check_again(const struct where *where)
{
	struct where again;

	expect(where_parse(where->canonical, &again) == 0);
	expect(again.kind == where->kind);
	expect(same_text(again.canonical, where->canonical));
	expect(same_text(again.path, where->path));
	expect(same_text(again.address, where->address));
	expect(same_text(again.export_name, where->export_name));
	expect(again.port == where->port);
	expect(!is_nbd(where) || !(where->path || where->port) ||
	       where_same_address(&again, where));
	where_free(&again);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t count)
{
	struct where where;
	char *text = malloc(count + 1);

	expect(text);
	memcpy(text, data, count);
	text[count] = 0;
	if (where_parse(text, &where) == 0) {
		expect(where.canonical && strcmp(where.text, text) == 0);
		expect(where.kind != WHERE_FUSE || where.path[0] == '/');
		if (is_nbd(&where) || where.kind == WHERE_FUSE)
			check_again(&where);
		if (where.address) {
			expect(where_set_port(&where, 4711) == 0 && where.port == 4711);
			check_again(&where);
		}
		where_free(&where);
	}
	free(text);
	return 0;
}
