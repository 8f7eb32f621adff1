/* dir.h: the parts of the directory store.
 *
 *	dir.c		 opening, jobs, and what each operation does
 *	dir_path.c	 finding keys below the root and never beside it
 *	dir_object.c	 an object as a file: its bytes, reading and writing them
 *	dir_temporary.c	 temporary names and locks, and what a crash left of them
 *	dir_list.c	 keys in order
 *
 * Below the root a key is the path of its file.  The folder DIR_OWN there is
 * the store's own: files being written, and locks.
 */
#ifndef OBJMAP_STORE_DIR_H
#define OBJMAP_STORE_DIR_H

#include <pthread.h>

#include "backends/store/store.h"
#include "src/workers.h"

#define DIR_OWN ".objmap"

struct dir {
	struct store store;		/* must stay first */
	char *path;			/* of the root, for messages */
	int root;
	struct workers *readers;	/* gets and lists: never behind an fsync */
	struct workers *writers;
	atomic_bool broken;		/* a folder's fsync failed: nothing seen
					 * here can be relied on any more */

	pthread_mutex_t lock;
	int own;			/* DIR_OWN; -1 until something is changed */
	int own_lock;			/* held: our temporaries are in use; -1: there
					 * are none yet */
	char own_id[17];		/* their names begin with it */
	uint64_t next_temporary;
	int logged_error;		/* what fail() last said, and when */
	uint64_t logged_at;
};

/* ---- dir_path.c */

/* Opens @path below @root; a path that leaves it, or passes a symbolic link,
 * is -ELOOP or -EXDEV.  Returns the descriptor or -errno. */
int beneath_open(int root, const char *path, int flags);
/* Opens the folder that holds @key, and points @name at the key's last
 * component.  With @made, makes it where it is missing and says so: then
 * folders_sync() must follow, when the key is in it. */
int parent_open(int root, const char *key, bool *made, const char **name);
/* Makes every folder from @root to that of @key durable. */
int folders_sync(int root, const char *key);
/* Whether @key lies where the store keeps its own, or the file system does. */
bool key_is_reserved(const char *key);
/* The kind of file system that @fd is on, where it is or may be another
 * machine's (sshfs, a mounted bucket: whatever FUSE serves), or NULL. */
const char *foreign_file_system(int fd);

/* ---- dir_object.c */

struct object_head {		/* what the trailer says, checked */
	uint64_t count;		/* bytes of content, from byte 0 of the file */
	uint64_t id;
	uint64_t last_modified;
};
/* Writes content, metadata and trailer to the empty file @fd. */
int object_write(int fd, const struct store_request *request, uint64_t id);
/* Reads the trailer, and the metadata unless NULL.  -EBADMSG: no whole object. */
int object_read_head(int fd, struct object_head *head,
		     struct store_metadata *metadata);
/* Reads @count bytes of content at @offset into the request's iov. */
int object_read(int fd, const struct store_request *request, uint64_t offset,
		uint64_t count);
void object_tag(uint64_t id, char tag[STORE_TAG_MAX]);

/* ---- dir_temporary.c */

#define TEMPORARY_NAME 48
/* Makes DIR_OWN ready and removes what crashed processes left there; once. */
int temporaries_open(struct dir *dir);
/* The same for who needs locks only: also where there is no room for a file more. */
int locks_open(struct dir *dir);
void temporaries_close(struct dir *dir);
/* Creates an empty file; @name gets its name in DIR_OWN. */
int temporary_create(struct dir *dir, char name[TEMPORARY_NAME]);
/* Locks @key against every other change, by any process, until the returned
 * descriptor is closed; a process that dies lets go.  Without room for the lock's
 * file nobody has it. */
int key_lock(struct dir *dir, const char *key);

/* ---- dir_list.c */
int dir_list(struct dir *dir, struct store_request *request);

#endif
