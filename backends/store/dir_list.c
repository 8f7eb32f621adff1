/* dir_list.c: keys in the order of their bytes, a page at a time.
 *
 * A folder's names are sorted with a '/' behind those of folders, which is the
 * order of the whole keys.  Folders that end before the page are not entered,
 * so a page costs the folders on its way and those it shows. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "backends/store/dir.h"

struct walk {
	const char *prefix, *after;
	size_t prefix_length;
	struct store_listing *listing;
	char path[STORE_KEY_MAX];	/* of the folder, with its '/' */
};

struct names {
	char **names;
	size_t nr, room;
};

static void names_free(struct names *names)
{
	while (names->nr > 0)
		free(names->names[--names->nr]);
	free(names->names);
}

static int names_add(struct names *names, const char *name, bool is_folder)
{
	size_t length = strlen(name);
	char **more, *copy;

	if (names->nr == names->room) {
		names->room = names->room ? names->room * 2 : 256;
		more = realloc(names->names, names->room * sizeof(char *));
		if (!more)
			return -ENOMEM;
		names->names = more;
	}
	copy = malloc(length + 2);
	if (!copy)
		return -ENOMEM;
	memcpy(copy, name, length + 1);
	if (is_folder)
		memcpy(copy + length, "/", 2);
	names->names[names->nr++] = copy;
	return 0;
}

static int compare_names(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

/* Whether keys at (or, of a folder, below) @name in walk->path can be on the page. */
static bool is_wanted(const struct walk *walk, size_t length, const char *name,
		      bool is_folder)
{
	char path[STORE_KEY_MAX];
	size_t count = strlen(name);
	int order;

	if (length + count + 2 > sizeof(path))
		return false;
	memcpy(path, walk->path, length);
	memcpy(path + length, name, count + 1);
	if (length == 0 && key_is_reserved(name))
		return false;
	count += length;
	if (is_folder) {
		path[count++] = '/';
		path[count] = 0;
	} else if (count < walk->prefix_length) {
		return false;
	}
	if (strncmp(path, walk->prefix,
		    count < walk->prefix_length ? count : walk->prefix_length) != 0)
		return false;
	order = strcmp(path, walk->after);
	return order > 0 || (is_folder && strncmp(path, walk->after, count) == 0);
}

static bool entry_is_folder(int fd, const struct dirent *entry)
{
	struct stat st;

	if (entry->d_type != DT_UNKNOWN)
		return entry->d_type == DT_DIR;
	return fstatat(fd, entry->d_name, &st, AT_SYMLINK_NOFOLLOW) == 0 &&
	       S_ISDIR(st.st_mode);
}

static int read_names(const struct walk *walk, int fd, size_t length,
		      struct names *names)
{
	int copy = fcntl(fd, F_DUPFD_CLOEXEC, 0), error = 0;
	DIR *folder = copy < 0 ? NULL : fdopendir(copy);
	struct dirent *entry;
	bool is_folder;

	if (!folder) {
		error = -errno;
		if (copy >= 0)
			close(copy);
		return error;
	}
	for (errno = 0; !error && (entry = readdir(folder)); errno = 0) {
		if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
			continue;
		is_folder = entry_is_folder(fd, entry);
		if (is_wanted(walk, length, entry->d_name, is_folder))
			error = names_add(names, entry->d_name, is_folder);
	}
	if (!error)
		error = -errno;
	closedir(folder);
	if (names->nr > 1)
		qsort(names->names, names->nr, sizeof(char *), compare_names);
	return error;
}

/* Adds the object walk->path, which is @name in @fd, unless it is gone. */
static int add_object(struct walk *walk, int fd, const char *name)
{
	struct store_listing *listing = walk->listing;
	struct store_entry *entry;
	struct stat st;

	if (fstatat(fd, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
		return errno == ENOENT ? 0 : -errno;
	if (!S_ISREG(st.st_mode))
		return 0;
	if (listing->nr_entries == STORE_LIST_MAX) {
		listing->more = true;
		return 0;
	}
	entry = &listing->entries[listing->nr_entries];
	entry->key = strdup(walk->path);
	if (!entry->key)
		return -ENOMEM;
	entry->size = (uint64_t)st.st_size;
	entry->last_modified = (uint64_t)st.st_mtim.tv_sec;
	listing->nr_entries++;
	return 0;
}

/* Lists what is below the folder @fd, whose path has @length bytes. */
static int walk_folder(struct walk *walk, int fd, size_t length)
{
	struct names names = { 0 };
	int error = read_names(walk, fd, length, &names), below;
	size_t i, count;
	char *name;

	for (i = 0; i < names.nr && !error && !walk->listing->more; i++) {
		name = names.names[i];
		count = strlen(name);
		memcpy(walk->path + length, name, count + 1);
		if (name[count - 1] != '/') {
			error = add_object(walk, fd, name);
			continue;
		}
		name[count - 1] = 0;
		below = openat(fd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
		if (below < 0) {
			error = errno == ENOENT ? 0 : -errno;
			continue;
		}
		error = walk_folder(walk, below, length + count);
		close(below);
	}
	names_free(&names);
	return error;
}

int dir_list(struct dir *dir, struct store_request *request)
{
	struct walk walk = {
		.prefix = request->key ? request->key : "",
		.after = request->after ? request->after : "",
		.listing = &request->reply.listing,
	};
	const char *slash = strrchr(walk.prefix, '/');
	size_t length = slash ? (size_t)(slash - walk.prefix) : 0;
	int fd, error;

	walk.prefix_length = strlen(walk.prefix);
	memcpy(walk.path, walk.prefix, length);
	fd = beneath_open(dir->root, slash ? walk.path : ".", O_RDONLY | O_DIRECTORY);
	if (fd == -ENOENT || fd == -ENOTDIR)
		return 0;
	if (fd < 0)
		return fd;
	walk.listing->entries = calloc(STORE_LIST_MAX, sizeof(struct store_entry));
	if (!walk.listing->entries) {
		close(fd);
		return -ENOMEM;
	}
	if (slash)
		walk.path[length++] = '/';
	error = walk_folder(&walk, fd, length);
	close(fd);
	if (error)
		store_listing_free(walk.listing);
	return error;
}
