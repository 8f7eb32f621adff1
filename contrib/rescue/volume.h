/* volume.h: a volume or one of its snapshots in a bucket: its head, its snapshot
 * list, and the way from head to every chunk. */
#ifndef OBJMAP_RESCUE_VOLUME_H
#define OBJMAP_RESCUE_VOLUME_H

#include "contrib/rescue/bucket.h"

enum { KEY_SIZE = 1025 };		/* S3: at most 1024 bytes */

struct volume {
	const struct bucket *bucket;
	const char *bucket_name, *prefix;	/* the caller's */
	bool pinned;			/* a snapshot: nothing takes its objects away */
	uint64_t head_nonce;		/* of the volume's head when it was read */
	struct head head;		/* of the volume, or the snapshot's */
};

/* GETs head, and of @snapshot (unless NULL) the list and the body.
 * 0, or -1 after a message. */
int volume_open(struct volume *volume, const char *snapshot);

/* Prints the snapshots and clones, one a line.  0, or -1 after a message. */
int volume_list(const struct volume *volume);

/* Whether head was replaced since it was read: what is missing may just be old. */
bool volume_has_moved(const struct volume *volume);

/* Consecutive chunks, all holes or all lost with their node, or one stored chunk. */
struct piece {
	enum { PIECE_HOLE, PIECE_LOST, PIECE_CHUNK } kind;
	uint64_t first, count;		/* chunks */
	struct ref ref;
};

/* Gives @take all pieces in ascending order, without gaps, until it returns not 0.
 * A node that cannot be had is told on standard error; what it held is lost.
 * 0, or what @take returned, or -1 after a message: the store is lost. */
int volume_walk(const struct volume *volume,
		int (*take)(const struct piece *piece, void *context), void *context);

/* The key of chunk @index, which @ref names.  False: too long for any object. */
bool chunk_key(const struct volume *volume, uint64_t index, const struct ref *ref,
	       char key[KEY_SIZE]);

/* One chunk, fetched and verified. */
struct chunk {
	uint8_t *bytes;			/* the caller's, of chunk_size bytes */
	bool lost_store;		/* the store is lost: no word about the chunk */
	bool bad[FRAMES_MAX];
	unsigned int nr_bad;
	char why[REASON_SIZE];		/* if any frame is bad */
};

/* Fills @chunk; what is bad is fetched once more before it is called so. */
void chunk_get(const struct volume *volume, uint64_t index, const struct ref *ref,
	       struct chunk *chunk);

#endif
