/* volume-open.c: what it costs to open a volume of 16 TiB with 1 MiB chunks:
 * store requests, time and peak memory, for a writer and for a reader.
 *
 *	bench/volume-open FOLDER	a new volume in FOLDER, 600 MiB of it used
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "src/clock.h"
#include "src/random.h"
#include "src/volume/volume.h"

#define MIB	  (1024 * 1024ull)
#define SIZE	  (16 * 1024 * 1024 * MIB)
#define NR_CHUNKS 600u			/* more than head holds: there are map nodes */

static struct store *open_store(const char *path)
{
	const struct store_dir_options options = { .create = true };
	struct store *store;

	if (store_dir_open(path, path, &options, &store) < 0)
		exit(1);
	return store;
}

static struct volume *open_volume(struct store *store, bool writable)
{
	const struct volume_options options = { .writable = writable,
						.grace = GRACE_DEFAULT };
	struct volume *volume;

	if (volume_open(store, &options, &volume) < 0)
		exit(1);
	return volume;
}

static void populate(const char *path)
{
	const struct volume_create_options create = { .size = SIZE,
						      .chunk_size = MIB };
	struct store *store = open_store(path);
	uint8_t *data = malloc(MIB);
	struct volume *volume;
	struct random random;
	uint64_t chunk;
	unsigned int i;

	random_seed(&random, 1);
	if (!data || volume_create(store, &create) < 0)
		exit(1);
	volume = open_volume(store, true);
	for (i = 0; i < NR_CHUNKS; i++) {
		memset(data, (int)(i % 255 + 1), MIB);
		chunk = i ? random_below(&random, SIZE / MIB) : 0;
		if (stage_write(volume_stage(volume), data, MIB, chunk * MIB, 0) < 0)
			exit(1);
	}
	if (volume_flush(volume) < 0)
		exit(1);
	stage_close(volume_stage(volume));
	free(data);
}

static uint64_t nr_requests(const struct store *store)
{
	uint64_t nr = 0;
	unsigned int op;

	for (op = 0; op < NR_STORE_OPS; op++)
		nr += atomic_load(&store->counters.requests[op]);
	return nr;
}

/* In a process of its own: the peak is that of opening alone. */
static void measure(const char *path, bool writable)
{
	struct store *store = open_store(path);
	uint64_t began = clock_now(), opened, after_open, read;
	struct volume *volume = open_volume(store, writable);
	uint8_t *frame = malloc(64 * 1024);
	struct rusage usage;

	opened = clock_now();
	after_open = nr_requests(store);
	if (!frame || stage_read(volume_stage(volume), frame, 64 * 1024, 0, 0) < 0)
		exit(1);
	read = clock_now();
	getrusage(RUSAGE_SELF, &usage);
	printf("%s: open %" PRIu64 " requests, %.1f ms; first 64 KiB %" PRIu64
	       " more, %.1f ms; peak memory %ld KiB\n", writable ? "writer" : "reader",
	       after_open, (double)(opened - began) / 1e6,
	       nr_requests(store) - after_open, (double)(read - opened) / 1e6,
	       usage.ru_maxrss);
	stage_close(volume_stage(volume));
	free(frame);
}

static int run_self(const char *self, const char *path, const char *how)
{
	int status;
	pid_t pid = fork();

	if (pid == 0) {
		execl(self, self, path, how, (char *)NULL);
		_exit(127);
	}
	return pid < 0 || waitpid(pid, &status, 0) < 0 || status != 0;
}

int main(int argc, char **argv)
{
	if (argc == 3) {
		measure(argv[1], strcmp(argv[2], "writer") == 0);
		return 0;
	}
	if (argc != 2) {
		fprintf(stderr, "usage: volume-open FOLDER\n");
		return 2;
	}
	populate(argv[1]);
	return run_self("/proc/self/exe", argv[1], "writer") |
	       run_self("/proc/self/exe", argv[1], "reader");
}
