/* test-file.c: the file backend: what the disk says, and what it hides. */
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include "src/place.h"
#include "tests/stage/call.h"

#define SIZE (4u * 1024 * 1024 + 77)

static char folder[] = "/tmp/objmap-XXXXXX", path[64];
static char buffer[SIZE], got[SIZE];
static struct stage *stage;

/* The system calls that can be made to fail stand before libc's. */
static atomic_int sync_error, write_error, allocate_error;
static atomic_uint nr_syncs;

int fdatasync(int fd)
{
	int error = atomic_exchange(&sync_error, 0);	/* Linux tells it once */

	atomic_fetch_add(&nr_syncs, 1);
	if (error) {
		errno = error;
		return -1;
	}
	return (int)syscall(SYS_fdatasync, fd);
}

ssize_t pwritev2(int fd, const struct iovec *iov, int nr, off_t offset, int flags)
{
	if (write_error) {
		errno = write_error;
		return -1;
	}
	/* Short, as it may be at any time. */
	if (nr > 1)
		nr = 1;
	return syscall(SYS_pwritev2, fd, iov, (unsigned long)nr,
		       (unsigned long)offset, 0ul, flags);
}

int fallocate(int fd, int mode, off_t offset, off_t count)
{
	if (allocate_error) {
		errno = allocate_error;
		return -1;
	}
	return (int)syscall(SYS_fallocate, fd, mode, offset, count);
}

static void open_new(void)
{
	struct device_options options = { .create = true, .size = SIZE };

	cr_assert(mkdtemp(folder));
	snprintf(path, sizeof(path), "%s/device", folder);
	cr_assert_eq(file_open(path, &options, &stage), 0);
	for (unsigned int i = 0; i < SIZE; i++)
		buffer[i] = (char)(i * 13 + i / 4096);
}

static void remove_all(void)
{
	if (stage)
		stage_close(stage);
	unlink(path);
	rmdir(folder);
}

static void reopen(const struct device_options *options)
{
	stage_close(stage);
	stage = NULL;
	cr_assert_eq(file_open(path, options, &stage), 0);
}

TestSuite(file, .init = open_new, .fini = remove_all, .timeout = 120);

Test(file, what_was_written_is_there_after_opening_again)
{
	struct device_options options = { 0 };

	cr_expect_eq(stage_write(stage, buffer, SIZE, 0, REQUEST_FUA), 0);
	reopen(&options);
	cr_expect_eq(stage_size(stage), SIZE);
	cr_expect_eq(stage_read(stage, got, SIZE, 0, 0), 0);
	cr_expect_eq(memcmp(got, buffer, SIZE), 0);
}

Test(file, it_has_one_writer_and_any_number_of_readers)
{
	struct device_options writer = { 0 }, reader = { .read_only = true };
	struct stage *second = NULL, *readers[2];

	cr_expect_eq(file_open(path, &writer, &second), -EBUSY);
	for (int i = 0; i < 2; i++)
		cr_assert_eq(file_open(path, &reader, &readers[i]), 0);
	cr_expect_eq(stage_write(stage, buffer, 100, 0, 0), 0);
	cr_expect_eq(stage_read(readers[0], got, 100, 0, 0), 0);
	cr_expect_eq(memcmp(got, buffer, 100), 0);
	stage_close(stage);
	stage = NULL;
	cr_expect_eq(file_open(path, &writer, &stage), 0);
	for (int i = 0; i < 2; i++)
		stage_close(readers[i]);
}

Test(file, after_a_failed_sync_every_flush_fails)
{
	cr_expect_eq(stage_write(stage, buffer, 100, 0, 0), 0);
	cr_expect_eq(stage_flush(stage), 0);
	sync_error = EIO;
	cr_expect_eq(stage_flush(stage), -EIO);
	cr_expect_eq(stage_flush(stage), -EIO);
	cr_expect_eq(stage_write(stage, buffer, 100, 0, REQUEST_FUA), -EIO);
	cr_expect_eq(stage_read(stage, got, 100, 0, 0), 0);
}

Test(file, fua_syncs_and_a_plain_write_does_not)
{
	unsigned int before = nr_syncs;

	cr_expect_eq(stage_write(stage, buffer, 100, 0, 0), 0);
	cr_expect_eq(nr_syncs, before);
	cr_expect_eq(stage_write(stage, buffer, 100, 0, REQUEST_FUA), 0);
	cr_expect_eq(nr_syncs, before + 1);
	cr_expect_eq(stage_zero(stage, 100, 0, REQUEST_FUA), 0);
	cr_expect_eq(nr_syncs, before + 2);
}

Test(file, a_full_disk_is_enospc)
{
	write_error = ENOSPC;
	cr_expect_eq(stage_write(stage, buffer, 100, 0, 0), -ENOSPC);
	write_error = 0;
	cr_expect_eq(stage_write(stage, buffer, 100, 0, 0), 0);
}

Test(file, a_short_write_goes_on)
{
	struct iovec iov[3] = { { buffer, 10 }, { buffer + 10, 4000 },
				{ buffer + 4010, 90 } };
	struct call call;

	sem_init(&call.done, 0, 0);
	atomic_init(&call.nr_completions, 0);
	request_init(&call.request, REQUEST_WRITE, 50, 4100, call_done, &call);
	call.request.iov = iov;
	call.request.nr_iov = 3;
	stage_submit(stage, &call.request);
	cr_expect_eq(call_wait(&call), 0);
	cr_expect_eq(stage_read(stage, got, 4100, 50, 0), 0);
	cr_expect_eq(memcmp(got, buffer, 4100), 0);
}

Test(file, without_fallocate_zeros_are_written_but_not_fast)
{
	allocate_error = EOPNOTSUPP;
	cr_expect_eq(stage_write(stage, buffer, SIZE, 0, 0), 0);
	cr_expect_eq(stage_zero(stage, SIZE - 10, 5, REQUEST_FAST_ZERO), -EOPNOTSUPP);
	cr_expect_eq(stage_zero(stage, SIZE - 10, 5, 0), 0);
	cr_expect_eq(stage_trim(stage, SIZE, 0, 0), 0);
	cr_expect_eq(stage_read(stage, got, SIZE, 0, 0), 0);
	cr_expect_eq(memcmp(got, buffer, 5), 0);
	cr_expect_eq(memcmp(got + SIZE - 5, buffer + SIZE - 5, 5), 0);
	for (unsigned int i = 5; i < SIZE - 5; i++)
		cr_assert_eq(got[i], 0);
}

Test(file, a_failed_fallocate_is_no_success)
{
	allocate_error = EIO;
	cr_expect_eq(stage_zero(stage, 4096, 0, REQUEST_MAY_TRIM), -EIO);
	cr_expect_eq(stage_trim(stage, 4096, 0, 0), -EIO);
}

Test(file, a_trim_gives_the_storage_back_and_shows_as_a_hole)
{
	struct extent extents[8];
	struct extent_list list = { extents, 8, 0 };
	struct stat full, trimmed;

	cr_expect_eq(stage_write(stage, buffer, SIZE, 0, REQUEST_FUA), 0);
	cr_assert_eq(stat(path, &full), 0);
	cr_expect_eq(stage_trim(stage, 2 << 20, 1 << 20, REQUEST_FUA), 0);
	cr_assert_eq(stat(path, &trimmed), 0);
	cr_expect_lt(trimmed.st_blocks, full.st_blocks);
	cr_expect_eq(stage_extents(stage, SIZE, 0, &list), 0);
	cr_assert_eq(list.nr, 3);
	cr_expect_eq(extents[0].count, 1 << 20);
	cr_expect_eq(extents[1].count, 2 << 20);
	cr_expect(extents[1].flags & EXTENT_HOLE && extents[1].flags & EXTENT_ZERO);
	cr_expect(!(extents[2].flags & EXTENT_ZERO));
}

Test(file, a_file_that_was_cut_by_somebody_is_an_error_not_zeros)
{
	cr_expect_eq(truncate(path, 1000), 0);
	cr_expect_eq(stage_read(stage, got, 4096, 0, 0), -EIO);
}

Test(file, read_only_refuses_changes_and_needs_no_right_to_write)
{
	struct device_options options = { .read_only = true };

	reopen(&options);
	cr_expect_eq(stage_write(stage, buffer, 1, 0, 0), -EROFS);
	cr_expect_eq(stage_read(stage, got, 1, 0, 0), 0);
	cr_expect(stage->geometry.flags & STAGE_READ_ONLY);
}

Test(file, it_grows_as_asked_and_is_never_cut)
{
	struct device_options larger = { .size = 2 * SIZE }, smaller = { .size = 10 };

	reopen(&larger);
	cr_expect_eq(stage_size(stage), 2 * SIZE);
	reopen(&smaller);
	cr_expect_eq(stage_size(stage), 2 * SIZE);
}

Test(file, what_is_no_device_is_refused)
{
	struct device_options options = { 0 };
	struct stage *other;
	char name[80];

	cr_expect_eq(file_open("/nonexistent/x", &options, &other), -ENOENT);
	cr_expect_eq(file_open(folder, &options, &other), -EISDIR);
	cr_expect_eq(file_open("/dev/null", &options, &other), -EINVAL);
	snprintf(name, sizeof(name), "%s/empty", folder);
	close(open(name, O_CREAT | O_WRONLY, 0600));
	cr_expect_eq(file_open(name, &options, &other), -EINVAL);
	unlink(name);
}

Test(file, nowait_answers_from_the_page_cache_or_not_at_all)
{
	int error;

	cr_expect_eq(stage_write(stage, buffer, 4096, 0, 0), 0);
	error = stage_read(stage, got, 4096, 0, REQUEST_NOWAIT);
	cr_expect(error == 0 || error == -EAGAIN);
	if (error == 0)
		cr_expect_eq(memcmp(got, buffer, 4096), 0);
	cr_expect_eq(stage_write(stage, buffer, 1, 0, REQUEST_NOWAIT | REQUEST_FUA), -EAGAIN);
	cr_expect_eq(stage_zero(stage, 1, 0, REQUEST_NOWAIT), -EAGAIN);
}
