/* test-dir.c: what the directory store must do beyond what every store must. */
#include <criterion/criterion.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "backends/store/dir.h"
#include "src/log.h"
#include "src/random.h"
#include "tests/store/stores.h"

static char folder[64];

static void open_folder(void)
{
	make_folder_for_test(folder);
}

static void remove_folder(void)
{
	remove_tree(folder);
}

TestSuite(dir, .init = open_folder, .fini = remove_folder, .timeout = 60);

static enum store_outcome put(struct store *store, const char *key, const void *data,
			      size_t count, struct store_reply *reply)
{
	return store_put_object(store, key, CAUSE_PUSH, data, count, STORE_ALWAYS, NULL,
				reply);
}

static enum store_outcome get(struct store *store, const char *key,
			      struct store_reply *reply)
{
	enum store_outcome outcome;
	size_t count;
	void *data;

	outcome = store_get_object(store, key, CAUSE_DEMAND, 1 << 22, &data, &count, reply);
	free(data);
	return outcome;
}

static char *path_of(const char *name)
{
	static char path[256];

	snprintf(path, sizeof(path), "%s/%s", folder, name);
	return path;
}

/* Files in DIR_OWN that are no locks. */
static unsigned int count_temporaries(void)
{
	DIR *own = opendir(path_of(DIR_OWN));
	struct dirent *entry;
	unsigned int nr = 0;

	cr_assert_not_null(own);
	while ((entry = readdir(own)))
		nr += entry->d_name[0] != '.' && !strstr(entry->d_name, "lock");
	closedir(own);
	return nr;
}

Test(dir, a_file_begins_with_the_content)
{
	struct store *store = open_dir_store(folder);
	struct store_reply reply;
	unsigned char file[64];
	int fd;

	cr_assert_eq(put(store, "a/b", "content", 7, &reply), STORE_DONE);
	fd = open(path_of("a/b"), O_RDONLY);
	/* The layout is a promise of objmap-volume(5). */
	cr_assert_eq(read(fd, file, sizeof(file)), 7 + 40);
	cr_assert_arr_eq(file, "contentobjmapF1\7\0\0\0\0\0\0\0\0\0\0\0\1\0\0\0", 7 + 24);
	close(fd);
	store_close(store);
}

Test(dir, damaged_files_are_errors_and_never_data)
{
	static char content[5000];
	struct store *store = open_dir_store(folder);
	struct store_reply reply;
	struct stat st;
	char byte;
	int fd;

	cr_assert_eq(put(store, "a/b", content, sizeof(content), &reply), STORE_DONE);
	cr_assert_eq(stat(path_of("a/b"), &st), 0);
	/* Each byte of the trailer. */
	for (off_t at = 5000; at < st.st_size; at++) {
		fd = open(path_of("a/b"), O_RDWR);
		cr_assert_eq(pread(fd, &byte, 1, at), 1);
		byte ^= 4;
		cr_assert_eq(pwrite(fd, &byte, 1, at), 1);
		cr_assert_eq(get(store, "a/b", &reply), STORE_FAILED, "byte %ld", (long)at);
		cr_assert_eq(reply.error, -EBADMSG);
		byte ^= 4;
		cr_assert_eq(pwrite(fd, &byte, 1, at), 1);
		close(fd);
	}
	cr_assert_eq(get(store, "a/b", &reply), STORE_DONE);
	for (off_t size = st.st_size + 3; size > 0; size -= 37) {
		if (size == st.st_size)
			continue;
		cr_assert_eq(truncate(path_of("a/b"), size), 0);
		cr_assert_eq(get(store, "a/b", &reply), STORE_FAILED, "size %ld", (long)size);
	}
	store_close(store);

	store = open_dir_store(folder);
	cr_assert_eq(truncate(path_of("a/b"), 0), 0);
	fd = open(path_of("foreign"), O_CREAT | O_WRONLY, 0600);
	cr_assert_eq(write(fd, content, sizeof(content)), 5000);
	close(fd);
	cr_assert_eq(get(store, "foreign", &reply), STORE_FAILED);
	cr_assert_eq(reply.error, -EBADMSG);
	cr_assert_eq(mkfifo(path_of("pipe"), 0600), 0);
	cr_assert_eq(get(store, "pipe", &reply), STORE_FAILED);
	cr_assert_eq(get(store, "a", &reply), STORE_FAILED);
	store_close(store);
}

static void nothing_leads_out(void)
{
	struct store *store = open_dir_store(folder);
	char outside[64], link[128];
	struct store_reply reply;

	make_folder_for_test(outside);
	snprintf(link, sizeof(link), "%s/secret", outside);
	close(open(link, O_CREAT | O_WRONLY, 0600));
	cr_assert_eq(symlink(outside, path_of("away")), 0);
	cr_assert_eq(symlink(link, path_of("file")), 0);
	cr_assert_eq(symlink("..", path_of("up")), 0);

	cr_assert_eq(put(store, "away/k", "x", 1, &reply), STORE_FAILED);
	cr_assert_eq(put(store, "up/k", "x", 1, &reply), STORE_FAILED);
	cr_assert_eq(get(store, "away/secret", &reply), STORE_FAILED);
	cr_assert_eq(get(store, "file", &reply), STORE_FAILED);
	cr_assert(reply.error == -ELOOP || reply.error == -EXDEV);
	struct store_request delete = {
		.keys = (const char *[]){ "away/secret" }, .nr_keys = 1,
	};
	cr_assert_eq(store_wait(store, STORE_DELETE, &delete), STORE_FAILED);
	struct store_request list = { .key = "" };
	cr_assert_eq(store_wait(store, STORE_LIST, &list), STORE_DONE);
	cr_assert_eq(list.reply.listing.nr_entries, 0);
	store_listing_free(&list.reply.listing);
	cr_assert_eq(access(link, F_OK), 0);
	snprintf(link, sizeof(link), "%s/k", outside);
	cr_assert_neq(access(link, F_OK), 0);
	/* A link where a key shall be is replaced, not followed. */
	cr_assert_eq(put(store, "file", "x", 1, &reply), STORE_DONE);
	cr_assert_eq(get(store, "file", &reply), STORE_DONE);
	remove_tree(outside);
	store_close(store);
}

Test(dir, symbolic_links_lead_nowhere)
{
	nothing_leads_out();
}

/* From here on this process and its threads have no openat2(2). */
static void deny_openat2(void)
{
	struct sock_filter filter[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_openat2, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | ENOSYS),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog program = { .len = 4, .filter = filter };

	cr_assert_eq(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
	cr_assert_eq(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program), 0);
	cr_assert_eq(syscall(SYS_openat2, -1, "", NULL, 0), -1);
	cr_assert_eq(errno, ENOSYS);
}

Test(dir, without_openat2_symbolic_links_lead_nowhere_either)
{
	struct store_reply reply;
	struct store *store;

	deny_openat2();
	store = open_dir_store(folder);
	cr_assert_eq(put(store, "a/b/c", "x", 1, &reply), STORE_DONE);
	cr_assert_eq(get(store, "a/b/c", &reply), STORE_DONE);
	cr_assert_eq(get(store, "a/b/d", &reply), STORE_ABSENT);
	cr_assert_eq(get(store, "a/x/c", &reply), STORE_ABSENT);
	store_close(store);
	remove_tree(path_of("a"));
	cr_assert_eq(symlink("/", path_of("root")), 0);
	store = open_dir_store(folder);
	cr_assert_eq(get(store, "root/etc/passwd", &reply), STORE_FAILED);
	cr_assert_eq(put(store, "root/tmp/k", "x", 1, &reply), STORE_FAILED);
	store_close(store);
}

Test(dir, its_own_folder_is_nobodys_key)
{
	struct store *store = open_dir_store(folder);
	struct store_reply reply;

	cr_assert_eq(put(store, "k", "x", 1, &reply), STORE_DONE);
	cr_assert_eq(put(store, DIR_OWN "/k", "x", 1, &reply), STORE_FAILED);
	cr_assert_eq(get(store, DIR_OWN "/lock-00", &reply), STORE_FAILED);
	cr_assert_eq(put(store, DIR_OWN "-not", "x", 1, &reply), STORE_DONE);
	store_close(store);
}

Test(dir, a_directory_that_was_removed_is_not_a_store_where_all_is_absent)
{
	char path[64];
	struct store_reply reply;
	struct store *store;

	make_folder_for_test(path);
	store = open_dir_store(path);
	cr_assert_eq(get(store, "head", &reply), STORE_ABSENT);
	cr_assert_eq(rmdir(path), 0);
	cr_assert_eq(get(store, "head", &reply), STORE_FAILED);
	cr_assert_eq(reply.error, -ESTALE);
	store_close(store);
}

Test(dir, opening_says_what_is_wrong)
{
	struct store_dir_options options = { 0 };
	struct store *store;
	char text[1024] = "";

	log_capture(text, sizeof(text));
	cr_assert_eq(store_dir_open("dir:x", path_of("none"), &options, &store), -ENOENT);
	cr_assert_not_null(strstr(text, "none: No such file or directory"));
	close(open(path_of("file"), O_CREAT | O_WRONLY, 0600));
	cr_assert_eq(store_dir_open("dir:x", path_of("file"), &options, &store), -ENOTDIR);
	options.create = true;
	cr_assert_eq(store_dir_open("dir:x", path_of("no/ne"), &options, &store), -ENOENT);
	cr_assert_not_null(strstr(text, "make the one above it first"));
	cr_assert_eq(store_dir_open("dir:x", path_of("new"), &options, &store), 0);
	store_close(store);
	log_capture(NULL, 0);
}

Test(dir, a_folder_that_others_remove_is_made_again)
{
	struct store *store = open_dir_store(folder);
	struct store_reply reply;
	pid_t child = fork();
	int i;

	if (child == 0)
		for (;;) {
			rmdir(path_of("p/q"));
			rmdir(path_of("p"));
			usleep(50);
		}
	for (i = 0; i < 200; i++) {
		struct store_request delete = {
			.keys = (const char *[]){ "p/q/k" }, .nr_keys = 1,
		};

		cr_expect_eq(put(store, "p/q/k", "x", 1, &reply), STORE_DONE, "%s", strerror(-reply.error));
		cr_expect_eq(store_wait(store, STORE_DELETE, &delete), STORE_DONE);
	}
	kill(child, SIGKILL);
	waitpid(child, NULL, 0);
	store_close(store);
}

/* ---- crashes -------------------------------------------------------------------- */

#define CRASH_KEYS 8

/* Content that says of itself whether it is whole. */
static size_t fill_content(char *content, uint64_t seed)
{
	struct random random;
	size_t count, i;

	random_seed(&random, seed);
	count = 16 + (size_t)random_below(&random, 300000) / 8 * 8;
	memcpy(content, &seed, 8);
	memcpy(content + 8, &count, 8);
	for (i = 16; i < count; i += 8)
		memcpy(content + i, (uint64_t[]){ random_next(&random) }, 8);
	return count & ~7ull;
}

static void put_for_ever(const char *path, uint64_t seed, int begun)
{
	static char content[400000];
	struct store *store = open_dir_store(path);
	struct store_reply reply;
	char key[32];

	if (write(begun, "b", 1) != 1)
		_exit(2);
	for (;; seed++) {
		snprintf(key, sizeof(key), "c/%llu", (unsigned long long)seed % CRASH_KEYS);
		put(store, key, content, fill_content(content, seed), &reply);
	}
}

static unsigned int check_whole(struct store *store)
{
	static char expected[400000];
	struct store_reply reply;
	unsigned int nr = 0, i;
	uint64_t seed;
	char key[32];
	size_t count;
	void *data;

	for (i = 0; i < CRASH_KEYS; i++) {
		snprintf(key, sizeof(key), "c/%u", i);
		if (store_get_object(store, key, CAUSE_DEMAND, sizeof(expected), &data,
				     &count, &reply) == STORE_ABSENT)
			continue;
		cr_assert_not_null(data, "%s: %s", key, strerror(-reply.error));
		memcpy(&seed, data, 8);
		cr_assert_eq(seed % CRASH_KEYS, i);
		cr_assert_eq(count, fill_content(expected, seed));
		cr_assert_arr_eq(data, expected, count);
		free(data);
		nr++;
	}
	return nr;
}

Test(dir, a_killed_writer_leaves_whole_objects_and_no_lock)
{
	uint64_t seed = random_id();
	unsigned int round, seen = 0, leftovers = 0;
	struct store_reply reply;
	struct random random;
	struct store *store;
	int begun[2];
	pid_t child;
	char byte;

	fprintf(stderr, "seed %llu\n", (unsigned long long)seed);
	random_seed(&random, seed);
	cr_assert_eq(pipe(begun), 0);
	/* On a busy machine fewer puts are cut: it goes on until there were some. */
	for (round = 0; round < 30 || (leftovers <= 5 && round < 300); round++) {
		child = fork();
		if (child == 0)
			put_for_ever(folder, random_next(&random) >> 1, begun[1]);
		random_next(&random);
		cr_assert_eq(read(begun[0], &byte, 1), 1);
		usleep((useconds_t)random_below(&random, 40000));
		kill(child, SIGKILL);
		waitpid(child, NULL, 0);
		if (access(path_of(DIR_OWN), F_OK) == 0)
			leftovers += count_temporaries();
		store = open_dir_store(folder);
		seen += check_whole(store);
		cr_assert_eq(put(store, "c/9", "x", 1, &reply), STORE_DONE);
		cr_assert_eq(count_temporaries(), 0, "a leftover stays");
		store_close(store);
	}
	cr_assert_gt(seen, 30);
	cr_assert_gt(leftovers, 5, "no put was cut: the test proves nothing");
	close(begun[0]);
	close(begun[1]);
}

Test(dir, cleaning_up_leaves_a_living_writers_files_alone)
{
	static char content[400000];
	struct store_reply reply;
	struct store *store;
	int i, failures = 0, pipe_fds[2];
	char answer = 0;
	pid_t child;

	cr_assert_eq(pipe(pipe_fds), 0);
	child = fork();
	if (child == 0) {
		store = open_dir_store(folder);
		for (i = 0; i < 60; i++)
			failures += put(store, "c/1", content, sizeof(content), &reply) !=
				    STORE_DONE;
		answer = (char)(failures + 1);
		if (write(pipe_fds[1], &answer, 1) != 1)
			_exit(2);
		_exit(0);
	}
	for (i = 0; waitpid(child, NULL, WNOHANG) == 0; i++) {
		store = open_dir_store(folder);
		cr_assert_eq(put(store, "c/2", "x", 1, &reply), STORE_DONE);
		store_close(store);
	}
	cr_assert_gt(i, 3);
	cr_assert_eq(read(pipe_fds[0], &answer, 1), 1);
	cr_assert_eq(answer, 1, "%d puts failed", answer - 1);
}

/* Several processes; each adds one to the number in "head", by if-match. */
static void count_up(int rounds)
{
	struct store *store = open_dir_store(folder);
	enum store_outcome outcome;
	struct store_reply reply;
	uint32_t *number;
	size_t count;
	void *data;

	while (rounds > 0) {
		outcome = store_get_object(store, "head", CAUSE_HEAD, 4, &data, &count,
					   &reply);
		if (outcome != STORE_DONE || count != 4)
			_exit(1);
		number = data;
		++*number;
		outcome = store_put_object(store, "head", CAUSE_HEAD, number, 4,
					   STORE_IF_MATCH, reply.tag, NULL);
		free(data);
		if (outcome == STORE_DONE)
			rounds--;
		else if (outcome != STORE_REFUSED)
			_exit(1);
	}
	store_close(store);
	_exit(0);
}

Test(dir, of_many_processes_that_swap_one_wins_each_time)
{
	struct store *store = open_dir_store(folder);
	uint32_t number = 0;
	struct store_reply reply;
	int i, status;
	size_t count;
	void *data;

	cr_assert_eq(put(store, "head", &number, 4, &reply), STORE_DONE);
	for (i = 0; i < 4; i++)
		if (fork() == 0)
			count_up(30);
	for (i = 0; i < 4; i++) {
		cr_assert_gt(wait(&status), 0);
		cr_assert_eq(status, 0);
	}
	cr_assert_eq(store_get_object(store, "head", CAUSE_HEAD, 4, &data, &count, &reply),
		     STORE_DONE);
	cr_assert_eq(*(uint32_t *)data, 4 * 30);
	free(data);
	store_close(store);
}

/* ---- a full disk, a disk that cannot be written ------------------------------------- */

static void mount_small(const char *options)
{
	cr_assert_eq(mount("objmap-test", folder, "tmpfs", 0, options), 0,
		     "needs root to mount a small tmpfs: %s", strerror(errno));
}

Test(dir, a_full_disk_fails_the_put_and_leaves_nothing)
{
	static char content[300000];
	struct store_reply reply;
	struct store *store;
	char text[1024] = "", key[32], log[64];
	unsigned int i;
	FILE *lines;

	make_folder_for_test(log);
	strcat(log, "/log");
	cr_assert_eq(log_open(log, LOG_LEVEL_NOTICE), 0);
	mount_small("size=1m");
	store = open_dir_store(folder);
	for (i = 0; i < 20; i++) {
		snprintf(key, sizeof(key), "c/%u", i);
		if (put(store, key, content, sizeof(content), &reply) != STORE_DONE)
			break;
	}
	cr_expect_eq(i, 3);
	cr_expect_eq(reply.error, -ENOSPC);
	cr_expect_eq(count_temporaries(), 0);
	cr_expect_eq(get(store, key, &reply), STORE_ABSENT);
	cr_expect_eq(get(store, "c/0", &reply), STORE_DONE);
	struct store_request delete = { .keys = (const char *[]){ "c/0" }, .nr_keys = 1 };
	cr_expect_eq(store_wait(store, STORE_DELETE, &delete), STORE_DONE);
	cr_expect_eq(put(store, key, content, sizeof(content), &reply), STORE_DONE);
	store_close(store);
	umount(folder);
	lines = fopen(log, "r");
	cr_assert_not_null(lines);
	cr_expect_not_null(fgets(text, sizeof(text), lines));
	cr_expect_not_null(strstr(text, "c/3: No space left on device; make room"), "%s", text);
	cr_expect_null(fgets(text, sizeof(text), lines), "more than one line: %s", text);
	fclose(lines);
	*strrchr(log, '/') = 0;
	remove_tree(log);
}

Test(dir, a_disk_without_room_for_another_file_is_freed_by_deleting)
{
	struct store_request delete = { .keys = (const char *[]){ "c/1" }, .nr_keys = 1 };
	struct store_reply reply;
	struct store *store;
	char key[32];
	int i, fd;

	mount_small("size=1m,nr_inodes=64");
	store = open_dir_store(folder);
	cr_expect_eq(put(store, "c/1", "x", 1, &reply), STORE_DONE);
	store_close(store);
	/* Nor is there a lock file of its key yet, as after an update or a copy. */
	remove_tree(path_of(".objmap"));
	cr_assert_eq(mkdir(path_of(".objmap"), 0777), 0);
	for (i = 0, fd = 0; fd >= 0; i++) {
		snprintf(key, sizeof(key), "filler-%d", i);
		fd = open(path_of(key), O_CREAT | O_WRONLY, 0600);
		close(fd);
	}
	store = open_dir_store(folder);
	cr_expect_eq(store_wait(store, STORE_DELETE, &delete), STORE_DONE);
	cr_expect_eq(get(store, "c/1", &reply), STORE_ABSENT);
	cr_expect_eq(put(store, "c/2", "x", 1, &reply), STORE_FAILED);
	cr_expect_eq(reply.error, -ENOSPC);
	for (i = 0; i < 3; i++) {
		snprintf(key, sizeof(key), "filler-%d", i);
		cr_expect_eq(unlink(path_of(key)), 0);
	}
	cr_expect_eq(put(store, "c/2", "x", 1, &reply), STORE_DONE);
	store_close(store);
	umount(folder);
}

Test(dir, a_read_only_disk_is_read_and_not_written)
{
	struct store_reply reply;
	struct store *store;

	mount_small("size=1m");
	store = open_dir_store(folder);
	cr_expect_eq(put(store, "k", "x", 1, &reply), STORE_DONE);
	store_close(store);
	cr_expect_eq(mount(NULL, folder, NULL, MS_REMOUNT | MS_RDONLY, NULL), 0);
	store = open_dir_store(folder);
	cr_expect_eq(get(store, "k", &reply), STORE_DONE);
	cr_expect_eq(put(store, "k2", "x", 1, &reply), STORE_FAILED);
	cr_expect_eq(reply.error, -EROFS);
	store_close(store);
	umount(folder);
}

Test(dir, a_key_from_the_top_reads_another_volume_and_changes_nothing)
{
	struct store *store, *parent;
	struct store_reply reply;
	const char *key;
	char top[512];

	cr_assert_eq(mkdir(path_of("clone"), 0700), 0);
	cr_assert_eq(mkdir(path_of("parent"), 0700), 0);
	store = open_dir_store(path_of("clone"));
	parent = open_dir_store(path_of("parent"));
	cr_assert_eq(put(parent, "chunk/00/a", "content", 7, &reply), STORE_DONE);
	snprintf(top, sizeof(top), "%s/parent/chunk/00/a", folder);
	cr_assert_eq(get(store, top, &reply), STORE_DONE);
	cr_assert_eq(reply.size, 7);
	snprintf(top, sizeof(top), "%s/parent/head", folder);
	cr_assert_eq(get(store, top, &reply), STORE_ABSENT);
	/* A parent that is not there, and a way through a link, are no absence. */
	snprintf(top, sizeof(top), "%s/moved/head", folder);
	cr_assert_eq(get(store, top, &reply), STORE_FAILED);
	cr_assert_eq(symlink("parent", path_of("moved")), 0);
	cr_assert_eq(get(store, top, &reply), STORE_FAILED);
	cr_assert_eq(put(store, top, "x", 1, &reply), STORE_FAILED);
	key = top;
	cr_assert_eq(store_wait(store, STORE_DELETE, &(struct store_request){
		.keys = &key, .nr_keys = 1 }), STORE_FAILED);
	store_close(parent);
	store_close(store);
}
