/* fuzz-config.c: any text as objmap.conf, as the file of serve, or as a file of
 * pre-shared keys, as the first byte says.  What `objmap config` prints of an
 * objmap.conf is one that says the same. */
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "src/cmd/serving.h"
#include "src/cmd/verbs.h"
#include "src/frontend/nbd/server.h"
#include "src/log.h"
#include "tests/fuzz/fuzz.h"

static int conf;		/* $HOME/.config/objmap.conf */
static int file;		/* another one, whose name is @path */
static char path[64];
static char home[] = "/tmp/objmap-fuzz-XXXXXX";

/* ---- what the files read would start ---------------------------------------------- */

#define VERB(name) int name(const struct options *options, int nr_arguments,	\
			    char **arguments) { abort(); }
VERB(clone_run) VERB(copy_verb_run) VERB(create_run) VERB(delete_run) VERB(doctor_run)
VERB(gc_run) VERB(help_run) VERB(info_run) VERB(list_run) VERB(mount_run)
VERB(resize_run) VERB(rollback_run) VERB(snapshot_create_run)
VERB(snapshot_delete_run) VERB(snapshot_list_run) VERB(status_run) VERB(umount_run)
VERB(verify_run)

void help_print_verb(const struct verb *verb)
{
	abort();
}

int serving_spec(const struct options *options, const char *place, const char *where,
		 const char *state, struct mount_spec *spec)
{
	memset(spec, 0, sizeof(*spec));
	if (place_parse(place, PLACE_FILE, &spec->place))
		return EXIT_USAGE;
	if (where_parse(where, &spec->where)) {
		place_free(&spec->place);
		return EXIT_USAGE;
	}
	return 0;
}

int serving_run(const struct options *options, struct mount_spec *specs,
		unsigned int nr_specs, char **command)
{
	unsigned int i;

	for (i = 0; i < nr_specs; i++)
		expect(specs[i].place.text && specs[i].where.canonical);
	return 0;
}

/* ---- the readers --------------------------------------------------------------------- */

static const struct verb *find_verb(const char *name)
{
	const struct verb *verb = verbs;

	while (strcmp(verb->name, name) != 0)
		verb++;
	return verb;
}

/* As `objmap VERB` would; NULL: the files are refused. */
static struct options *read_options(const char *name)
{
	char word[] = "objmap", *argv[] = { word, word, NULL }, **arguments;
	const struct verb *verb = find_verb(name);
	struct options *options;
	int nr;

	if (options_parse(verb, 1 + verb->min_arguments, argv, &options, &nr, &arguments))
		return NULL;
	return options;
}

static void fill(int fd, const void *data, size_t count)
{
	expect(ftruncate(fd, 0) == 0);
	expect(pwrite(fd, data, count, 0) == (ssize_t)count);
}

/* What `objmap config` prints becomes objmap.conf. */
static void store_what_is_printed(const struct options *options)
{
	int out = dup(STDOUT_FILENO);

	fflush(stdout);
	fill(conf, "", 0);
	expect(lseek(conf, 0, SEEK_SET) == 0);
	expect(out >= 0 && dup2(conf, STDOUT_FILENO) >= 0);
	expect(config_run(options, 0, NULL) == 0);
	fflush(stdout);
	expect(dup2(out, STDOUT_FILENO) >= 0);
	close(out);
}

static void read_conf(const uint8_t *data, size_t count)
{
	struct options *options, *again;
	const struct option_spec *spec;
	const char *a, *b, *source;

	fill(conf, data, count);
	options = read_options("config");
	if (!options || option_flag(options, "json"))
		goto out;
	store_what_is_printed(options);
	again = read_options("config");
	expect(again);
	for (spec = option_table; spec->name; spec++) {
		option_shown(options, spec, &a, &source);
		option_shown(again, spec, &b, &source);
		if (!a && spec->kind == OPTION_FLAG)
			a = "no";
		if (!spec->command_line_only && spec->kind != OPTION_COMMAND)
			expect(a && b ? strcmp(a, b) == 0 : a == b);
	}
	options_free(again);
out:
	options_free(options);
}

static void read_serve(const uint8_t *data, size_t count)
{
	struct options *options;
	char *arguments[] = { path, NULL };

	fill(conf, "", 0);
	fill(file, data, count);
	options = read_options("serve");
	expect(options);
	serve_run(options, 1, arguments);
	options_free(options);
}

static void read_keys(const uint8_t *data, size_t count)
{
	struct nbd_server server = { .options = { .tls = NBD_TLS_REQUIRE,
						  .tls_psk = path } };

	fill(file, data, count);
	if (nbd_tls_open(&server) == 0)
		expect(server.psk);
	nbd_tls_close(&server);
}

/* ---- the target ------------------------------------------------------------------------ */

static int open_file(char *name, size_t room)
{
	int fd = memfd_create("config", MFD_CLOEXEC);

	expect(fd >= 0 && fchmod(fd, 0600) == 0);
	snprintf(name, room, "/proc/self/fd/%d", fd);
	return fd;
}

static void remove_home(void)
{
	char name[80];

	snprintf(name, sizeof(name), "%s/.config/objmap.conf", home);
	unlink(name);
	*strrchr(name, '/') = 0;
	rmdir(name);
	rmdir(home);
}

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	char name[80], target[64];

	clearenv();
	file = open_file(path, sizeof(path));
	conf = open_file(target, sizeof(target));
	expect(mkdtemp(home) && atexit(remove_home) == 0 && setenv("HOME", home, 1) == 0);
	snprintf(name, sizeof(name), "%s/.config", home);
	expect(mkdir(name, 0700) == 0);
	strcat(name, "/objmap.conf");
	expect(symlink(target, name) == 0);
	return log_open("/dev/null", LOG_LEVEL_ERROR);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t count)
{
	if (count == 0)
		return 0;
	if (data[0] % 3 == 0)
		read_conf(data + 1, count - 1);
	else if (data[0] % 3 == 1)
		read_serve(data + 1, count - 1);
	else
		read_keys(data + 1, count - 1);
	return 0;
}
