/* dir_path.c: finding keys below the root and never beside it.
 *
 * The doorway refused keys with "..", but a symbolic link could still lead
 * away; so none is followed. */
#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <linux/openat2.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "backends/store/dir.h"
#include "src/network.h"

static int open_step(int folder, const char *name, int flags)
{
	int fd = openat(folder, name, flags | O_NOFOLLOW | O_CLOEXEC);

	return fd < 0 ? -errno : fd;
}

/* The way without openat2(2): Linux before 5.6, or a sandbox that denies it. */
static int beneath_walk(int root, const char *path, int flags)
{
	char name[STORE_KEY_MAX];
	const char *slash;
	int folder = root, fd;

	for (; (slash = strchr(path, '/')); path = slash + 1) {
		memcpy(name, path, (size_t)(slash - path));
		name[slash - path] = 0;
		fd = open_step(folder, name, O_PATH | O_DIRECTORY);
		if (folder != root)
			close(folder);
		if (fd < 0)
			return fd;
		folder = fd;
	}
	fd = open_step(folder, path, flags);
	if (folder != root)
		close(folder);
	return fd;
}

int beneath_open(int root, const char *path, int flags)
{
	struct open_how how = {
		.flags = (uint64_t)(flags | O_CLOEXEC),
		.resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS,
	};
	int fd;

	do {
		fd = (int)syscall(SYS_openat2, root, path, &how, sizeof(how));
	} while (fd < 0 && errno == EINTR);
	if (fd >= 0)
		return fd;
	/* EAGAIN: a rename elsewhere made the kernel unsure; the walk is sure. */
	if (errno == ENOSYS || errno == EPERM || errno == EAGAIN)
		return beneath_walk(root, path, flags);
	return -errno;
}

static int make_folders(int root, char *path)
{
	char *name = path, *slash;
	int parent = root, fd;

	for (;; name = slash + 1) {
		slash = strchr(name, '/');
		if (slash)
			*slash = 0;
		if (mkdirat(parent, name, 0777) < 0 && errno != EEXIST)
			fd = -errno;
		else
			fd = open_step(parent, name, O_RDONLY | O_DIRECTORY);
		if (parent != root)
			close(parent);
		if (fd < 0 || !slash)
			return fd;
		parent = fd;
	}
}

int parent_open(int root, const char *key, bool *made, const char **name)
{
	const char *slash = strrchr(key, '/');
	char path[STORE_KEY_MAX];
	int fd;

	*name = slash ? slash + 1 : key;
	if (!slash)
		return beneath_open(root, ".", O_RDONLY | O_DIRECTORY);
	memcpy(path, key, (size_t)(slash - key));
	path[slash - key] = 0;
	fd = beneath_open(root, path, O_RDONLY | O_DIRECTORY);
	if (fd != -ENOENT || !made)
		return fd;
	*made = true;
	return make_folders(root, path);
}

int folders_sync(int root, const char *key)
{
	const char *slash = strchr(key, '/');
	char path[STORE_KEY_MAX];
	int fd = beneath_open(root, ".", O_RDONLY | O_DIRECTORY), error;

	for (;;) {
		if (fd < 0)	/* ENOENT: deleted again, folder and all */
			return fd == -ENOENT ? 0 : fd;
		error = fsync(fd) < 0 && errno != EINVAL ? -errno : 0;
		close(fd);
		if (error || !slash)
			return error;
		memcpy(path, key, (size_t)(slash - key));
		path[slash - key] = 0;
		fd = beneath_open(root, path, O_RDONLY | O_DIRECTORY);
		slash = strchr(slash + 1, '/');
	}
}

bool key_is_reserved(const char *key)
{
	/* Where a volume is a file system's top folder, fsck keeps one there. */
	static const char *const reserved[] = { DIR_OWN, "lost+found" };
	size_t i, length;

	for (i = 0; i < sizeof(reserved) / sizeof(reserved[0]); i++) {
		length = strlen(reserved[i]);
		if (strncmp(key, reserved[i], length) == 0 &&
		    (key[length] == 0 || key[length] == '/'))
			return true;
	}
	return false;
}

const char *foreign_file_system(int fd)
{
	const char *kind;
	struct statfs fs;

	if (fstatfs(fd, &fs) < 0)
		return NULL;
	kind = network_file_system(&fs);
	return kind || fs.f_type != FUSE_SUPER_MAGIC ? kind : "FUSE";
}
