/* pipelines.c: everything the contract suite runs over. */
#include "config.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "src/place.h"
#include "src/volume/volume.h"
#include "tests/http/server.h"
#include "tests/stage/contract.h"
#include "tests/stage/fault_stage.h"
#include "tests/store/given.h"

#define ODD_SIZE  (6u * 1024 * 1024 + 12345)
#define KIB	  1024u
#define MIB	  (1024u * 1024)

/* Puts a fault stage, chunked and arbitrary on top of *@stage. */
static int stack(struct stage **stage, const struct fault_options *options)
{
	int error = fault_open(*stage, options, stage);

	if (!error)
		error = chunked_open(*stage, stage);
	if (!error)
		error = arbitrary_open(*stage, stage);
	return error;
}

static int open_memory(const char *folder, struct stage **stage)
{
	return memory_open(ODD_SIZE, stage);
}

static int open_null(const char *folder, struct stage **stage)
{
	return null_open(ODD_SIZE, stage);
}

static int open_pattern(const char *folder, struct stage **stage)
{
	return pattern_open(ODD_SIZE, stage);
}

static int open_file(const char *folder, struct stage **stage)
{
	struct device_options options = { .create = true, .size = ODD_SIZE };
	char path[PATH_MAX];

	snprintf(path, sizeof(path), "%s/device", folder);
	return file_open(path, &options, stage);
}

static int open_arbitrary_file(const char *folder, struct stage **stage)
{
	int error = open_file(folder, stage);

	return error ? error : arbitrary_open(*stage, stage);
}

static int open_arbitrary_memory(const char *folder, struct stage **stage)
{
	int error = open_memory(folder, stage);

	return error ? error : arbitrary_open(*stage, stage);
}

/* What a volume publishes, and at once. */
static int open_units(const char *folder, struct stage **stage)
{
	static const struct fault_options options = {
		.read_unit = 64 * KIB, .write_unit = MIB, .preferred = MIB,
		.max_request = MIB,
	};
	int error = open_memory(folder, stage);

	return error ? error : stack(stage, &options);
}

/* The same, slow and in any order, without native FUA. */
static int open_units_slow(const char *folder, struct stage **stage)
{
	static const struct fault_options options = {
		.seed = 1, .read_unit = 64 * KIB, .write_unit = MIB,
		.preferred = MIB, .max_request = MIB, .nr_threads = 3,
		.max_delay_us = 60, .clear_flags = STAGE_NATIVE_FUA,
	};
	int error = open_memory(folder, stage);

	return error ? error : stack(stage, &options);
}

/* What an NBD server with 4 KiB blocks publishes. */
static int open_blocks(const char *folder, struct stage **stage)
{
	static const struct fault_options options = {
		.read_unit = 4096, .write_unit = 4096, .preferred = 128 * KIB,
		.max_request = 512 * KIB,
	};
	int error = open_memory(folder, stage);

	return error ? error : stack(stage, &options);
}

/* Frames to read, bytes to write. */
static int open_frames(const char *folder, struct stage **stage)
{
	static const struct fault_options options = {
		.seed = 2, .read_unit = 64 * KIB, .preferred = 256 * KIB,
		.nr_threads = 2,
	};
	int error = open_memory(folder, stage);

	return error ? error : stack(stage, &options);
}

/* No units, but short requests. */
static int open_short(const char *folder, struct stage **stage)
{
	static const struct fault_options options = {
		.seed = 3, .max_request = 64 * KIB, .nr_threads = 2,
	};
	int error = open_memory(folder, stage);

	return error ? error : stack(stage, &options);
}

/* A last unit that is also the only one. */
static int open_tiny(const char *folder, struct stage **stage)
{
	static const struct fault_options options = {
		.read_unit = 64 * KIB, .write_unit = MIB, .preferred = MIB,
		.max_request = MIB,
	};
	int error = memory_open(5001, stage);

	return error ? error : stack(stage, &options);
}

/* A direct mount of a volume in @store: so little memory that writes wait for
 * commits. */
static int open_volume(struct store *store, uint32_t chunk_size,
		       struct stage **stage)
{
	const struct volume_create_options create = { .size = ODD_SIZE,
						      .chunk_size = chunk_size };
	const struct volume_options options = { .writable = true, .grace = GRACE_DEFAULT,
						.pending_limit = 3 * MIB };
	struct volume *volume;
	int error = volume_create(store, &create);

	if (!error)
		error = volume_open(store, &options, &volume);
	if (error)
		return error;
	*stage = volume_stage(volume);
	error = chunked_open(*stage, stage);
	return error ? error : arbitrary_open(*stage, stage);
}

static int open_volume_mem(const char *folder, struct stage **stage)
{
	struct store *store;
	int error = store_mem_open("mem:contract", &store);

	return error ? error : open_volume(store, MIB, stage);
}

static int open_volume_dir(const char *folder, struct stage **stage)
{
	struct store *store;
	int error = store_dir_open("dir:contract", folder, &(struct store_dir_options){ 0 },
				   &store);

	return error ? error : open_volume(store, 64 * KIB, stage);
}

static int open_volume_given(const char *folder, struct stage **stage)
{
	char name[64];

	return open_volume(given_store_new(name), MIB, stage);
}

static int open_volume_given_small(const char *folder, struct stage **stage)
{
	char name[64];

	return open_volume(given_store_new(name), 64 * KIB, stage);
}

static const struct pipeline given[] = {
	{ "volume in the given place", open_volume_given },
	{ "volume of small chunks in the given place", open_volume_given_small },
};

#ifdef HAVE_LIBNBD
/* Starts nbdkit on FOLDER/socket; it ends with this process. */
static int start_nbdkit(const char *folder, const char *filters, uint64_t size)
{
	char command[PATH_MAX], path[100];
	pid_t pid;

	snprintf(path, sizeof(path), "%s/socket", folder);
	snprintf(command, sizeof(command),
		 "exec nbdkit --exit-with-parent -f -U %s memory size=%llu %s", path,
		 (unsigned long long)size, filters);
	pid = fork();
	if (pid == 0) {
		execl("/bin/sh", "sh", "-c", command, (char *)NULL);
		_exit(127);
	}
	for (int i = 0; pid > 0 && i < 1000; i++) {
		if (access(path, F_OK) == 0)
			return 0;
		if (waitpid(pid, NULL, WNOHANG) == pid)
			break;
		usleep(10000);
	}
	return -EIO;
}

static int open_remote_with(const char *folder, const char *filters,
			    uint64_t size, struct stage **stage)
{
	const struct device_options options = { .retry_for = STORE_RETRY_FOR };
	char text[PATH_MAX];
	struct place place;
	int error = start_nbdkit(folder, filters, size);

	if (error)
		return error;
	snprintf(text, sizeof(text), "nbd+unix:///?socket=%s/socket", folder);
	error = place_parse(text, 0, &place);
	if (error)
		return error;
	error = place_open_device(&place, &options, stage);
	place_free(&place);
	if (!error && (*stage)->geometry.write_unit > 1)
		error = chunked_open(*stage, stage);
	return error ? error : arbitrary_open(*stage, stage);
}

static int open_remote(const char *folder, struct stage **stage)
{
	return open_remote_with(folder, "", ODD_SIZE, stage);
}

static int open_remote_blocks(const char *folder, struct stage **stage)
{
	return open_remote_with(folder, "--filter=blocksize-policy blocksize-minimum=4096 "
				"blocksize-preferred=64K blocksize-maximum=512K "
				"blocksize-error-policy=error", 6 * MIB + 3 * 4096, stage);
}

/* Can neither zero nor FUA nor tell extents. */
static int open_remote_plain(const char *folder, struct stage **stage)
{
	return open_remote_with(folder, "--filter=nozero --filter=noextents --filter=fua",
				ODD_SIZE, stage);
}
#endif

/* One server for all runs; it ends with the test. */
static struct server *web;

static void stop_web(void)
{
	server_stop(web);
}

static int open_web(const char *folder, struct stage **stage)
{
	static const struct device_options options = { .read_only = true };
	static uint64_t size = ODD_SIZE;
	struct place place;
	char *url;
	int error;

	if (!web) {
		web = server_start_pattern(&size);
		atexit(stop_web);
	}
	url = server_url(web, "/pattern?of=64%20bits@once");
	error = place_parse(url, 0, &place);
	free(url);
	if (error)
		return error;
	error = place_open_device(&place, &options, stage);
	place_free(&place);
	return error ? error : arbitrary_open(*stage, stage);
}

static const struct pipeline pipelines[] = {
	{ "memory", open_memory },
	{ "null", open_null, FORGETS },
	{ "pattern", open_pattern, IS_PATTERN },
	{ "file", open_file },
	{ "arbitrary over memory", open_arbitrary_memory },
	{ "arbitrary over file", open_arbitrary_file },
	{ "arbitrary over chunks", open_units },
	{ "arbitrary over slow chunks", open_units_slow },
	{ "arbitrary over blocks", open_blocks },
	{ "arbitrary over frames", open_frames },
	{ "arbitrary over short requests", open_short },
	{ "arbitrary over one part of a chunk", open_tiny },
	{ "volume in memory", open_volume_mem },
	{ "volume in a directory", open_volume_dir },
	{ "file on a web server", open_web, IS_PATTERN },
#ifdef HAVE_LIBNBD
	{ "remote", open_remote, .program = "nbdkit" },
	{ "remote with blocks", open_remote_blocks, .program = "nbdkit" },
	{ "remote that can little", open_remote_plain, .program = "nbdkit" },
#endif
};

const char *contract_lacks(const struct pipeline *pipeline)
{
	char command[64];

	if (!pipeline->program)
		return NULL;
	snprintf(command, sizeof(command), "command -v %s >/dev/null", pipeline->program);
	return system(command) == 0 ? NULL : pipeline->program;
}

const struct pipeline *contract_pipelines(unsigned int *nr)
{
	*nr = given_place() ? sizeof(given) / sizeof(given[0]) :
			      sizeof(pipelines) / sizeof(pipelines[0]);
	return given_place() ? given : pipelines;
}
