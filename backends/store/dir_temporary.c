/* dir_temporary.c: temporary names and locks, and what a crash left of them.
 *
 * In DIR_OWN: ID.lock, held by flock() as long as the store with this id is
 * open; ID.N, files it is writing; and lock-NN, one of which is held while a
 * key is changed.  The kernel lets go of the locks of whoever dies, so a
 * temporary whose ID.lock is free or gone is a leftover. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "backends/store/dir.h"
#include "src/crc32c.h"
#include "src/errors.h"
#include "src/random.h"

#define ID_DIGITS 16
#define NR_KEY_LOCKS 64	/* keys share them; a change holds one for microseconds */

static int open_own(int own, const char *name, int flags)
{
	int fd = openat(own, name, flags | O_NOFOLLOW | O_CLOEXEC, 0666);

	return fd < 0 ? -errno : fd;
}

static int wait_lock(int fd)
{
	while (flock(fd, LOCK_EX) < 0)
		if (errno != EINTR)
			return -errno;
	return 0;
}

/* Whether the store that made the temporary @name is gone. */
static bool owner_is_gone(int own, const char *name)
{
	char lock[TEMPORARY_NAME];
	int fd;
	bool gone;

	snprintf(lock, sizeof(lock), "%.16s.lock", name);
	fd = open_own(own, lock, O_RDWR);
	if (fd < 0)
		return fd == -ENOENT;
	gone = flock(fd, LOCK_EX | LOCK_NB) == 0;
	/* Unlinked while it is held: who made it meanwhile sees that, and makes
	 * another (take_id). */
	if (gone)
		unlinkat(own, lock, 0);
	close(fd);
	return gone;
}

static void remove_leftovers(int own)
{
	int fd = open_own(own, ".", O_RDONLY | O_DIRECTORY);
	DIR *folder = fd < 0 ? NULL : fdopendir(fd);
	struct dirent *entry;

	if (!folder) {
		if (fd >= 0)
			close(fd);
		return;
	}
	while ((entry = readdir(folder))) {
		if (strspn(entry->d_name, "0123456789abcdef") != ID_DIGITS ||
		    entry->d_name[ID_DIGITS] != '.')
			continue;
		if (owner_is_gone(own, entry->d_name))
			unlinkat(own, entry->d_name, 0);
	}
	closedir(folder);
}

/* Chooses an id and holds its lock. */
static int take_id(int own, char id[ID_DIGITS + 1])
{
	char lock[TEMPORARY_NAME];
	struct stat st;
	int fd;

	for (;;) {
		snprintf(id, ID_DIGITS + 1, "%016llx", (unsigned long long)random_id());
		snprintf(lock, sizeof(lock), "%s.lock", id);
		fd = open_own(own, lock, O_CREAT | O_EXCL | O_RDWR);
		if (fd < 0 && fd != -EEXIST)
			return fd;
		if (fd < 0)
			continue;
		errno = 0;
		if (flock(fd, LOCK_EX | LOCK_NB) == 0 && fstat(fd, &st) == 0 &&
		    st.st_nlink > 0)
			return fd;
		if (errno == EOPNOTSUPP || errno == ENOLCK) {
			close(fd);
			unlinkat(own, lock, 0);
			return -EOPNOTSUPP;
		}
		close(fd);	/* somebody took it for a leftover: another one */
	}
}

/* The lock is held. */
static int open_folder(struct dir *dir)
{
	int own;

	if (dir->own >= 0)
		return 0;
	if (mkdirat(dir->root, DIR_OWN, 0777) < 0 && errno != EEXIST)
		return -errno;
	own = beneath_open(dir->root, DIR_OWN, O_RDONLY | O_DIRECTORY);
	if (own < 0)
		return own;
	dir->own = own;
	return 0;
}

int temporaries_open(struct dir *dir)
{
	int error, lock;

	pthread_mutex_lock(&dir->lock);
	error = open_folder(dir);
	if (!error && dir->own_lock < 0) {
		remove_leftovers(dir->own);	/* what they took may be needed */
		lock = take_id(dir->own, dir->own_id);
		if (lock < 0)
			error = lock;
		else
			dir->own_lock = lock;
	}
	pthread_mutex_unlock(&dir->lock);
	return error;
}

int locks_open(struct dir *dir)
{
	int error = temporaries_open(dir);

	if (!error_is_no_room(error))
		return error;
	pthread_mutex_lock(&dir->lock);
	error = open_folder(dir);
	pthread_mutex_unlock(&dir->lock);
	return error;
}

void temporaries_close(struct dir *dir)
{
	char lock[TEMPORARY_NAME];

	if (dir->own_lock >= 0) {
		snprintf(lock, sizeof(lock), "%s.lock", dir->own_id);
		unlinkat(dir->own, lock, 0);
		close(dir->own_lock);
	}
	if (dir->own >= 0)
		close(dir->own);
}

int temporary_create(struct dir *dir, char name[TEMPORARY_NAME])
{
	uint64_t number;

	pthread_mutex_lock(&dir->lock);
	number = dir->next_temporary++;
	pthread_mutex_unlock(&dir->lock);
	snprintf(name, TEMPORARY_NAME, "%s.%llu", dir->own_id,
		 (unsigned long long)number);
	return open_own(dir->own, name, O_CREAT | O_EXCL | O_WRONLY);
}

int key_lock(struct dir *dir, const char *key)
{
	char name[TEMPORARY_NAME];
	int fd, error;

	snprintf(name, sizeof(name), "lock-%02x",
		 crc32c(0, key, strlen(key)) % NR_KEY_LOCKS);
	fd = open_own(dir->own, name, O_CREAT | O_RDWR);
	if (fd < 0)
		return fd;
	error = wait_lock(fd);
	if (error) {
		close(fd);
		return error;
	}
	return fd;
}
