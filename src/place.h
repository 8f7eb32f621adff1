/* place.h: places, as the command line names them, and what opens them.
 *
 * A place is a volume in a store (s3://BUCKET/PREFIX, dir:PATH,
 * mem:NAME?size=SIZE; with @SNAPSHOT one of its snapshots) or a plain device
 * (file:PATH, memory:SIZE, null:SIZE, pattern:SIZE, ...).
 */
#ifndef OBJMAP_PLACE_H
#define OBJMAP_PLACE_H

#include <stdbool.h>
#include <stdint.h>

#include "backends/s3/s3.h"
#include "backends/store/store.h"
#include "src/stage/stage.h"

#define PLACE_PARAMS_MAX 32

struct place_param {
	char *name, *value;
};

struct place {
	char *text;		/* as written, for messages (no secret is in it) */
	char *base;		/* text without ?params and @SNAPSHOT */
	char *scheme;		/* "dir" */
	char *bucket;		/* s3: only */
	char *path;		/* what follows the scheme or bucket, %-decoded,
				 * without @SNAPSHOT; http, https: the whole URL */
	char *snapshot;		/* NULL: none */
	unsigned int nr_params;
	struct place_param params[PLACE_PARAMS_MAX];
	bool is_volume;		/* a volume in a store, not a plain device */
};

enum place_accept {
	PLACE_FILE   = 1 << 0,	/* a bare path too: it becomes file:PATH */
	PLACE_FOLDER = 1 << 1,	/* s3: what volumes lie below too: s3://BUCKET,
				 * s3://BUCKET/, s3://BUCKET/FOLDER/ (path is then
				 * empty or FOLDER) */
};
/* Reads @text.  -EINVAL, logged: no scheme, an unknown one (with the nearest
 * suggested), a known one that this build has not, a name or parameter that cannot
 * be, a bare path where none is accepted (with "file:PATH" suggested). */
int place_parse(const char *text, unsigned int accept, struct place *place);
int place_copy(const struct place *from, struct place *to);	/* 0 or -ENOMEM */
void place_free(struct place *place);
/* NULL when it was not given. */
const char *place_param(const struct place *place, const char *name);

/* Opens the store of a volume's place. */
struct store_open_options {
	bool create;		/* dir: make the directory */
	uint64_t retry_for;	/* ns a store that fails for a while is tried again; 0:
				 * not again */
	struct s3_options s3;	/* what the place itself says wins */
};
int place_open_store(const struct place *place,
		     const struct store_open_options *options,
		     struct store **store);

/* Where a volume's objects are, from the top of its bucket or file system and
 * without a '/' around it: what clones and their parents know each other by.
 * The place must exist.  malloc'ed; NULL: errno says why, not logged. */
char *place_prefix(const struct place *place);

/* Whether both are in one store: the same bucket of the same server.  Of places
 * whose scheme has no server: whether the scheme is the same. */
bool place_same_store(const struct place *a, const struct place *b,
		      const struct s3_options *given);

/* Opens a plain device as a backend stage. */
struct device_options {
	bool read_only;
	bool create;		/* file: make it, with @size */
	bool empty;		/* file: what it holds goes, once it is locked */
	uint64_t size;		/* bytes; file: grow or make it to this; 0: as it is */
	uint64_t retry_for;	/* ns a server that fails for a while is tried again;
				 * 0: not again */
	struct s3_options s3;	/* s3+object, http: what the place itself says wins */
	bool writable;		/* s3+object: else it is read-only */
	uint64_t dirty_limit;	/* s3+object: bytes of unsaved writes; 0: its own */
	const char *state;	/* s3+object: the folder for them */
};
int place_open_device(const struct place *place,
		      const struct device_options *options,
		      struct stage **stage);

/* s3+object: aborts what killed writers have left of their uploads. */
struct object_gc_options {
	uint32_t grace;		/* seconds; younger ones stay */
	bool dry_run;
	uint64_t retry_for;	/* ns */
	struct s3_options s3;
};
struct object_gc_result {
	uint64_t aborted, waiting;	/* uploads */
};
int place_gc_object(const struct place *place, const struct object_gc_options *options,
		    struct object_gc_result *result);

/* Every scheme this build can open, for help and messages; NULL at the end. */
const char *const *place_schemes(void);

/* ---- backends (backends/NAME.c), each opened by place_open_device() --------- */

int memory_open(uint64_t size, struct stage **stage);
int null_open(uint64_t size, struct stage **stage);
int pattern_open(uint64_t size, struct stage **stage);
int file_open(const char *path, const struct device_options *options,
	      struct stage **stage);
/* The lock of who writes @path, which objmap and QEMU respect; it goes with @fd.
 * -EBUSY, logged; a file system that has no locks is warned of. */
int file_lock(int fd, const char *path);
int http_open(const struct place *place, const struct device_options *options,
	      struct stage **stage);
int s3_object_open(const char *place, const char *bucket, const char *key,
		   const char *version, const struct s3_options *s3,
		   const struct device_options *options, struct stage **stage);
int s3_object_gc(const char *place, const char *bucket, const char *key,
		 const struct s3_options *s3, const struct object_gc_options *options,
		 struct object_gc_result *result);

#endif
