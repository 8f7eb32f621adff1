/* test-library.c: libobjmap as a program that links it sees it: by objmap.h alone.
 * OBJMAP_PROGRAM is the built program, for what the library does not do. */
#include "config.h"

#include <criterion/criterion.h>
#include <dirent.h>
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "src/objmap.h"

#define MIB (1u << 20)

static char folder[64], place[128];

/* Runs objmap with arguments that a shell splits; it must succeed. */
__attribute__((format(printf, 1, 2)))
static void run(const char *format, ...)
{
	char command[512] = OBJMAP_PROGRAM " ";
	size_t length = strlen(command);
	va_list arguments;

	va_start(arguments, format);
	vsnprintf(command + length, sizeof(command) - length, format, arguments);
	va_end(arguments);
	cr_assert_eq(system(command), 0, "%s", command);
}

static void make_world(void)
{
	strcpy(folder, "/tmp/omlibXXXXXX");
	cr_assert(mkdtemp(folder));
	setenv("OBJMAP_RUNTIME_DIR", folder, 1);
	setenv("OBJMAP_STATE", folder, 1);
	snprintf(place, sizeof(place), "dir:%s/vol", folder);
	run("create %s --size 8M >/dev/null", place);
}

static void end_world(void)
{
	char command[128];

	snprintf(command, sizeof(command), "rm -rf %s", folder);
	cr_assert_eq(system(command), 0);
}

TestSuite(library, .init = make_world, .fini = end_world, .timeout = 60);

static struct objmap *opened(const char *what, unsigned int flags)
{
	struct objmap *device = NULL;

	cr_assert_eq(objmap_open(what, flags, &device), 0, "%s", what);
	cr_assert(device);
	return device;
}

/* Bytes that tell @seed and their place. */
static void fill(char *bytes, size_t count, unsigned int seed)
{
	for (size_t i = 0; i < count; i++)
		bytes[i] = (char)((i * 2654435761u >> 7) + seed);
}

Test(library, what_was_flushed_outlives_the_program_and_what_was_closed_too)
{
	static char data[3 * MIB / 2], there[sizeof(data)];
	struct objmap *device;
	int status;
	pid_t pid;

	fill(data, sizeof(data), 1);
	pid = fork();
	if (pid == 0) {			/* who opens must not fork afterwards */
		if (objmap_open(place, 0, &device) ||
		    objmap_pwrite(device, data, sizeof(data), 12345) ||
		    objmap_flush(device))
			_exit(1);
		kill(getpid(), SIGKILL);
	}
	cr_assert_eq(waitpid(pid, &status, 0), pid);
	cr_assert(WIFSIGNALED(status));

	device = opened(place, 0);	/* his lock is gone: no --take-over is needed */
	cr_assert_eq(objmap_size(device), 8 * MIB);
	cr_assert_eq(objmap_pread(device, there, sizeof(there), 12345), 0);
	cr_assert_eq(memcmp(there, data, sizeof(data)), 0);
	fill(data, 100, 2);
	cr_assert_eq(objmap_pwrite(device, data, 100, 8 * MIB - 100), 0);
	cr_assert_eq(objmap_close(device), 0);

	device = opened(place, OBJMAP_READ_ONLY);
	cr_assert_eq(objmap_pread(device, there, 100, 8 * MIB - 100), 0);
	cr_assert_eq(memcmp(there, data, 100), 0);
	cr_assert_eq(objmap_close(device), 0);
}

Test(library, what_is_outside_or_not_allowed_is_refused)
{
	struct objmap *device = opened(place, 0), *none = NULL;
	char byte = 'x';

	cr_assert_eq(objmap_pread(device, &byte, 1, 8 * MIB), -EINVAL);
	cr_assert_eq(objmap_pwrite(device, &byte, 1, 8 * MIB), -EINVAL);
	cr_assert_eq(objmap_pwrite(device, &byte, 0, 8 * MIB), 0);
	cr_assert_eq(objmap_zero(device, 2, 8 * MIB - 1), -EINVAL);
	cr_assert_eq(objmap_open(place, 1 << 5, &none), -EINVAL);
	cr_assert_eq(objmap_open("nothing:", 0, &none), -EINVAL);
	cr_assert_eq(objmap_open("dir:/nowhere/at/all", 0, &none), -ENOENT);
	cr_assert_eq(objmap_open(place, 0, &none), -EBUSY);
	cr_assert_eq(objmap_close(device), 0);

	run("snapshot create %s one >/dev/null", place);
	strcat(place, "@one");
	device = opened(place, 0);
	cr_assert_eq(objmap_pwrite(device, &byte, 1, 0), -EROFS);
	cr_assert_eq(objmap_pread(device, &byte, 1, 0), 0);
	cr_assert_eq(byte, 0);
	cr_assert_eq(objmap_flush(device), 0);
	cr_assert_eq(objmap_close(device), 0);
}

/* More than what goes into one request of a stage. */
Test(library, one_call_moves_any_number_of_bytes_that_the_device_has)
{
	const size_t count = (5ull << 30) + 5, size = 6ull << 30;
	struct objmap *device = opened("null:6G", 0);
	char *bytes = mmap(NULL, count, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS |
			   MAP_NORESERVE, -1, 0);

	cr_assert_neq(bytes, MAP_FAILED);
	cr_assert_eq(objmap_pwrite(device, bytes, count, 7), 0);
	cr_assert_eq(objmap_pwrite(device, bytes, count, size - count + 1), -EINVAL);
	cr_assert_eq(objmap_pwrite(device, bytes, count, UINT64_MAX), -EINVAL);
	munmap(bytes, count);
	cr_assert_eq(objmap_close(device), 0);
}

Test(library, who_is_taken_over_is_told_by_his_flush)
{
	struct objmap *first = opened(place, 0), *second;
	char byte = 'a';

	cr_assert_eq(objmap_pwrite(first, &byte, 1, 0), 0);
	cr_assert_eq(objmap_flush(first), 0);
	second = opened(place, OBJMAP_TAKE_OVER);
	byte = 'b';
	cr_assert_eq(objmap_pwrite(first, &byte, 1, 0), 0);	/* he cannot know yet */
	cr_assert_eq(objmap_flush(first), -ESTALE);
	cr_assert_lt(objmap_close(first), 0);
	cr_assert_eq(objmap_pread(second, &byte, 1, 0), 0);
	cr_assert_eq(byte, 'a');
	cr_assert_eq(objmap_close(second), 0);
}

Test(library, zeros_and_trims_take_no_longer_for_more)
{
	struct objmap *device = opened("mem:x?size=16T", 0);
	char data[8192], there[8192];

	fill(data, sizeof(data), 3);
	cr_assert_eq(objmap_pwrite(device, data, sizeof(data), 1ull << 40), 0);
	cr_assert_eq(objmap_zero(device, (1ull << 44) - 4096 - (1ull << 40),
				 (1ull << 40) + 4096), 0);
	cr_assert_eq(objmap_trim(device, 1ull << 40, 0), 0);
	cr_assert_eq(objmap_flush(device), 0);
	cr_assert_eq(objmap_pread(device, there, sizeof(there), 1ull << 40), 0);
	memset(data + 4096, 0, 4096);
	cr_assert_eq(memcmp(there, data, sizeof(data)), 0);
	cr_assert_eq(objmap_close(device), 0);
}

static unsigned int count_chunks(void)
{
	char path[192];
	unsigned int nr = 0, shard;
	struct dirent *entry;
	DIR *dir;

	for (shard = 0; shard < 8; shard++) {
		snprintf(path, sizeof(path), "%s/vol/chunk/%02x", folder, shard);
		dir = opendir(path);
		while (dir && (entry = readdir(dir)))
			nr += entry->d_name[0] != '.';
		if (dir)
			closedir(dir);
	}
	return nr;
}

/* As under any other writer: somebody may be reading the older state. */
Test(library, what_a_commit_replaces_stays_for_readers)
{
	struct objmap *device = opened(place, 0), *reader;
	char byte = '1';

	cr_assert_eq(objmap_pwrite(device, &byte, 1, 0), 0);
	cr_assert_eq(objmap_flush(device), 0);
	reader = opened(place, OBJMAP_READ_ONLY);
	byte = '2';
	cr_assert_eq(objmap_pwrite(device, &byte, 1, 0), 0);
	cr_assert_eq(objmap_flush(device), 0);
	cr_assert_eq(objmap_close(device), 0);
	cr_assert_eq(count_chunks(), 2);
	cr_assert_eq(objmap_pread(reader, &byte, 1, 0), 0);
	cr_assert_eq(byte, '1');
	cr_assert_eq(objmap_close(reader), 0);
}

struct user {
	struct objmap *device;
	unsigned int number;
	int wrong;
};

static void *use(void *context)
{
	struct user *user = context;
	char data[5000], there[5000];

	for (unsigned int i = 0; i < 50 && !user->wrong; i++) {
		/* Neighbours in one chunk: each rewrites a part of it. */
		uint64_t at = i * 40000 + user->number * 5000;

		fill(data, sizeof(data), i * 8 + user->number);
		user->wrong = objmap_pwrite(user->device, data, sizeof(data), at) ||
			      (i % 10 == 0 && objmap_flush(user->device)) ||
			      objmap_pread(user->device, there, sizeof(there), at) ||
			      memcmp(there, data, sizeof(data));
	}
	return NULL;
}

Test(library, several_threads_use_one_device)
{
	struct user users[8];
	pthread_t threads[8];
	struct objmap *device = opened(place, 0);

	for (unsigned int i = 0; i < 8; i++) {
		users[i] = (struct user){ device, i, 0 };
		cr_assert_eq(pthread_create(&threads[i], NULL, use, &users[i]), 0);
	}
	for (unsigned int i = 0; i < 8; i++) {
		pthread_join(threads[i], NULL);
		cr_assert_eq(users[i].wrong, 0, "thread %u", i);
	}
	cr_assert_eq(objmap_close(device), 0);
}

#ifdef HAVE_LIBNBD
static void *read_one(void *context)
{
	struct user *user = context;
	char byte;

	user->wrong = objmap_pread(user->device, &byte, 1, 0);
	return NULL;
}

Test(library, a_server_that_is_away_is_waited_for_as_long_as_was_said)
{
	struct user user = { 0 };
	struct timespec soon = { 0, 300000000 };
	struct objmap *device;
	pthread_t thread;
	char byte;

	run("mount memory:1M 'nbd+unix:///?socket=%s/s' >/dev/null", folder);
	snprintf(place, sizeof(place), "nbd+unix:///?socket=%s/s", folder);
	device = opened(place, 0);
	run("umount 'nbd+unix:///?socket=%s/s' --quiet", folder);

	user.device = device;
	cr_assert_eq(pthread_create(&thread, NULL, read_one, &user), 0);
	nanosleep(&soon, NULL);
	run("mount memory:1M 'nbd+unix:///?socket=%s/s' >/dev/null", folder);
	pthread_join(thread, NULL);
	cr_assert_eq(user.wrong, 0);

	run("umount 'nbd+unix:///?socket=%s/s' --quiet", folder);
	objmap_set_retry_for(device, 200);
	cr_assert_lt(objmap_pread(device, &byte, 1, 0), 0);
	objmap_close(device);
}
#endif
