/* format.h: the volume format, version 1: keys, refs, map nodes, frame tables,
 * head, snapshot list, condemned list, as structs and as bytes.
 *
 * objmap-volume(5) describes every byte.  Here is only what the code needs:
 * nothing below waits, allocates a lock or talks to a store.  All binary fields
 * are little-endian.  Every parser takes bytes from the world: it accepts
 * exactly what the man page allows, and says where the first fault is.
 */
#ifndef OBJMAP_VOLUME_FORMAT_H
#define OBJMAP_VOLUME_FORMAT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define VOLUME_FORMAT	      1u
#define CHUNK_SIZE_MIN	      (64u << 10)
#define CHUNK_SIZE_MAX	      (64u << 20)
#define CHUNK_SIZE_DEFAULT    (1u << 20)
#define FRAME_SIZE_MIN	      (64u << 10)
#define FRAMES_MAX	      128u
#define NODE_REFS	      1024u		/* refs of a map node, and of the root */
#define NODE_BYTES	      (NODE_REFS * REF_BYTES)
#define REF_BYTES	      24u
#define VOLUME_CHUNKS_MAX     (1ull << 30)
#define HEAD_BYTES_MAX	      (48u << 10)
#define RECENT_MAX	      512u
#define HISTORY_MAX	      16u
#define ORIGINS_MAX	      8u
#define ORIGIN_PREFIX_MAX     512u
#define CLAIM_EPOCH_STEP      65536u
#define MAP_LEVELS_MAX	      2u		/* levels of nodes below the root */
#define VOLUME_KEY_MAX	      (ORIGIN_PREFIX_MAX + 64u)
#define GRACE_DEFAULT	      (24u * 3600u)	/* seconds */
#define SNAPSHOT_NAME_MAX     128u		/* bytes */

/* Codec 0: an object is its chunk's bytes.  No other is defined in version 1. */
#define CODEC_NONE 0u

/* ---- refs --------------------------------------------------------------- */

/* Where a chunk or a node is: the object of this epoch and writer.  Epoch 0: a
 * hole, or an empty subtree; then all other fields are 0 too. */
struct ref {
	uint64_t epoch;
	uint64_t writer;
	uint32_t stored;	/* bits 0-27: bytes of the object; 28-31: codec */
	uint32_t crc;		/* a chunk's: CRC32C of its encoded frame table, so
				 * of content and table; a node's: of its bytes */
};

#define REF_STORED_MASK 0x0fffffffu
#define REF_CODEC_SHIFT 28

static inline uint32_t ref_stored(const struct ref *ref)	/* bytes */
{
	return ref->stored & REF_STORED_MASK;
}
static inline uint32_t ref_codec(const struct ref *ref)
{
	return ref->stored >> REF_CODEC_SHIFT;
}
static inline bool ref_is_hole(const struct ref *ref)
{
	return ref->epoch == 0;
}
bool ref_equal(const struct ref *a, const struct ref *b);
void ref_encode(const struct ref *ref, uint8_t bytes[REF_BYTES]);
/* Returns false for what no writer can have meant (a hole with other fields
 * set, a stored length of 0, an unknown codec). */
bool ref_decode(const uint8_t bytes[REF_BYTES], struct ref *ref);

/* ---- a fault found by a parser -------------------------------------------- */

struct format_fault {
	size_t offset;		/* byte of the object where it stands */
	char what[160];		/* "history is longer than 16 writers" */
};

/* ---- keys, relative to the volume's prefix --------------------------------- */

#define KEY_HEAD "head"

/* Each writes a key with its 0 into @key (at least VOLUME_KEY_MAX). */
void key_chunk(char *key, uint32_t index, uint64_t epoch, uint64_t writer);
void key_node(char *key, unsigned int level, uint32_t node, uint64_t epoch,
	      uint64_t writer);
void key_snapshot_list(char *key, uint64_t epoch, uint64_t nonce);
void key_snapshot_body(char *key, uint64_t epoch, uint64_t nonce);
void key_condemned(char *key, uint64_t epoch, uint64_t nonce);
void key_probe(char *key, uint64_t nonce);

enum key_kind {
	KEY_KIND_HEAD, KEY_KIND_CHUNK, KEY_KIND_NODE, KEY_KIND_SNAPSHOT_LIST,
	KEY_KIND_SNAPSHOT_BODY, KEY_KIND_CONDEMNED, KEY_KIND_PROBE,
	KEY_KIND_FOREIGN,	/* nothing of ours: never touched */
};
struct key {
	enum key_kind kind;
	unsigned int level;	/* node */
	uint32_t index;		/* chunk: its index; node: its number */
	uint64_t epoch;
	uint64_t writer;	/* or nonce */
};
/* Anything not written exactly as the functions above do is KEY_KIND_FOREIGN. */
void key_parse(const char *key, struct key *parsed);

/* ---- geometry of the map ---------------------------------------------------- */

/* The map is a tree of 1024-way nodes over the chunks; its top is the root in
 * head.  Level 0 nodes hold refs of chunks, level 1 nodes refs of level 0
 * nodes.  With no levels the root holds refs of chunks. */
bool chunk_size_is_valid(uint64_t chunk_size);	/* a power of two in range */
/* 0 for a size of 0, and for one of more than VOLUME_CHUNKS_MAX chunks. */
uint32_t volume_nr_chunks(uint64_t size, uint32_t chunk_size);
/* Levels of nodes below the root: up to 1,024 chunks 0, up to 2^20 1, else 2. */
unsigned int map_levels(uint32_t nr_chunks);
uint32_t map_nr_root(uint32_t nr_chunks);	/* refs in the root, 1 .. 1024 */
uint32_t frame_size_of(uint32_t chunk_size);	/* max(64 KiB, chunk / 128) */

/* ---- head -------------------------------------------------------------------- */

enum head_state {
	HEAD_LIVE = 1,
	HEAD_INCOMPLETE = 2,	/* a copy into it was cut: mount refuses */
	HEAD_DELETED = 3,	/* tombstone: no refs; a create goes on from it */
};

/* Who has the volume open for writing; all empty when nobody has.  Where a
 * text holds what is not printable ASCII, a head carries '?' instead. */
struct holder {
	bool held;
	bool journal;		/* keeps acknowledged writes in a local journal */
	uint64_t since;		/* seconds since 1970 */
	uint64_t pid;
	uint64_t pid_namespace;	/* inode of /proc/self/ns/pid */
	uint64_t lock_device;	/* of UUID.lock in the runtime folder */
	uint64_t lock_inode;
	char host[64];
	char machine[33];	/* /etc/machine-id, empty where there is none */
	char boot[37];		/* boot_id */
};

struct past_writer {
	uint64_t writer;
	uint64_t epoch;		/* the last it committed */
	uint64_t sequence;	/* of its journal, in that commit */
};

struct recent_ref {
	uint32_t chunk;
	struct ref ref;		/* epoch 0: became a hole */
};

struct origin {			/* of a clone: refs up to @epoch lie under @prefix */
	uint64_t epoch;
	char prefix[ORIGIN_PREFIX_MAX + 1];	/* from the top of the bucket, or of the
						 * file system; without a '/' around it */
};
/* Whether a clone's origin can lie under @prefix: 1 to ORIGIN_PREFIX_MAX bytes of
 * UTF-8 without control characters, empty, "." or ".." components. */
bool origin_prefix_is_valid(const char *prefix);

struct head {
	uint8_t uuid[16];
	enum head_state state;	/* a tombstone has no size, root, recent refs,
				 * snapshots or origins */
	uint64_t size;		/* bytes, >= 1 (a tombstone's: 0) */
	uint32_t chunk_size;
	uint32_t frame_size;
	uint32_t codec;
	uint64_t created;	/* seconds since 1970 */
	uint64_t epoch;
	uint64_t writer;
	uint64_t nonce;		/* new in every swap: no ETag ever comes back */
	uint64_t committed;	/* seconds since 1970, the writer's clock */
	struct holder holder;
	uint64_t sequence;	/* last journal record contained */
	unsigned int nr_history;
	struct past_writer history[HISTORY_MAX];	/* newest first */
	uint32_t nr_root;
	struct ref root[NODE_REFS];
	unsigned int nr_recent;
	struct recent_ref recent[RECENT_MAX];		/* ascending by chunk */
	uint64_t snapshot_list_epoch;	/* 0: no snapshots, no clones */
	uint64_t snapshot_list_nonce;
	uint64_t snapshot_newest;	/* epoch of the newest entry; 0: none */
	unsigned int nr_origins;
	struct origin origins[ORIGINS_MAX];		/* ascending by epoch */
};

/* Whether @head is one that head_decode() would accept; *fault says why not. */
bool head_is_valid(const struct head *head, struct format_fault *fault);

/* Writes @head to @bytes (HEAD_BYTES_MAX of room).  A head within the limits
 * above always fits.  Returns its length.  Aborts on a head that is not valid:
 * no caller may ever store one. */
size_t head_encode(const struct head *head, uint8_t *bytes);

/* Returns 0, or -EBADMSG (damaged; *fault says where) or -ENOTSUP (written by
 * a newer objmap: an unknown version or an unknown section marked must). */
int head_decode(const void *bytes, size_t count, struct head *head,
		struct format_fault *fault);

/* The key of the object that a ref of @head names, in @key (VOLUME_KEY_MAX).  In
 * a clone, what is not newer than an origin lies there: then the key begins
 * with '/', and is one from the top of the bucket or file system. */
void head_chunk_key(const struct head *head, uint32_t index,
		    const struct ref *ref, char *key);
void head_node_key(const struct head *head, unsigned int level, uint32_t node,
		   const struct ref *ref, char *key);

/* ---- map nodes ----------------------------------------------------------------- */

void node_encode(const struct ref refs[NODE_REFS], uint8_t bytes[NODE_BYTES]);
int node_decode(const void *bytes, size_t count, struct ref refs[NODE_REFS],
		struct format_fault *fault);
/* The CRC32C of an encoded node is what the ref above it carries. */

/* Whether the refs of node @node of level @level, which @self names, are such as
 * a writer of @head's volume can have meant: none newer than the node itself,
 * objects of the right length, nothing but holes beyond the last chunk.
 * Returns 0 or -EBADMSG. */
int node_check(const struct head *head, unsigned int level, uint32_t node,
	       const struct ref *self, const struct ref refs[NODE_REFS],
	       struct format_fault *fault);

/* ---- frame tables ---------------------------------------------------------------- */

struct frame_entry {
	uint32_t stored;	/* bytes in the object; codec none: the frame size */
	uint32_t crc;		/* CRC32C of those bytes */
};
struct frame_table {
	uint32_t nr_frames;	/* chunk size / frame size */
	struct frame_entry frames[FRAMES_MAX];
};
/* Makes the table of a chunk whose frames have these CRC32Cs. */
void frame_table_fill(struct frame_table *table, const uint32_t *sums,
		      uint32_t nr_frames, uint32_t frame_size);
/* CRC32C of the encoded table: what a chunk's ref carries. */
uint32_t frame_table_crc(const struct frame_table *table);

/* The metadata of a chunk object: names and values for the store.  uuid_text
 * takes 37 bytes; frames_text FRAMES_TEXT_MAX. */
#define METADATA_VOLUME	 "objmap-volume"
#define METADATA_FRAMES	 "objmap-frames"
#define FRAMES_TEXT_MAX	 (((FRAMES_MAX * 8 + 2) / 3) * 4 + 1)
void uuid_format(const uint8_t uuid[16], char text[37]);
bool uuid_parse(const char *text, uint8_t uuid[16]);
void frame_table_format(const struct frame_table *table, char *text);
/* @nr_frames: how many the chunk has.  Returns 0 or -EBADMSG. */
int frame_table_parse(const char *text, uint32_t nr_frames,
		      struct frame_table *table);

/* ---- snapshot list ------------------------------------------------------------------ */

enum snapshot_kind { SNAPSHOT_NAMED = 1, SNAPSHOT_CLONE = 2 };

struct snapshot {
	enum snapshot_kind kind;
	uint64_t epoch;		/* of the head it pins */
	uint64_t body_epoch;	/* names its body object */
	uint64_t body_nonce;
	uint64_t created;	/* seconds since 1970 */
	uint64_t size;		/* bytes of the volume then */
	char name[SNAPSHOT_NAME_MAX + 1];		/* clones: of the snapshot */
	char prefix[ORIGIN_PREFIX_MAX + 1];		/* clones: where it lives */
};
struct snapshot_list {
	unsigned int nr;
	struct snapshot *snapshots;	/* malloc */
};
#define SNAPSHOT_LIST_BYTES_MAX (16u << 20)
/* *bytes is malloc'ed.  Returns 0, -ENOMEM, -E2BIG, -EEXIST (two of one name) or
 * -EINVAL (a name or prefix that cannot be). */
int snapshot_list_encode(const struct snapshot_list *list, void **bytes,
			 size_t *count);
int snapshot_list_decode(const void *bytes, size_t count,
			 struct snapshot_list *list,
			 struct format_fault *fault);
void snapshot_list_free(struct snapshot_list *list);
/* 1 to SNAPSHOT_NAME_MAX bytes of UTF-8 without control characters, '/' and '@'. */
bool snapshot_name_is_valid(const char *name);

/* ---- condemned list: what gc will delete, one a line, and a CRC ----------------------- */

#define CONDEMNED_MAX	    65536u	/* entries of one list; gc writes several */
#define CONDEMNED_BYTES_MAX (16u << 20)
#define CONDEMNED_LINES_MAX (CONDEMNED_BYTES_MAX - 64u)	/* without first and last */
#define UPLOAD_ID_MAX	    1024u

struct condemned_entry {
	char *key;		/* of ours, never head; epoch <= the list's */
	char *upload;		/* a multipart upload to this key; NULL: the object */
};
struct condemned {
	uint64_t epoch;		/* of the head that did not reach them */
	unsigned int nr;
	struct condemned_entry *entries;	/* malloc, and each key and upload */
};
/* *bytes is malloc'ed.  Returns 0, -ENOMEM, -E2BIG or -EINVAL (a key that must
 * not be deleted). */
int condemned_encode(const struct condemned *list, void **bytes, size_t *count);
int condemned_decode(const void *bytes, size_t count, struct condemned *list,
		     struct format_fault *fault);
void condemned_free(struct condemned *list);
/* Whether a list can name it: 1 to UPLOAD_ID_MAX printable bytes without spaces. */
bool upload_id_is_valid(const char *upload);

#endif
