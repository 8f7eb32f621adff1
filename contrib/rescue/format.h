/* format.h: what objmap-volume(5) says about the bytes of a volume, read only.
 *
 * Nothing here does I/O or allocates more than it says, and nothing is believed:
 * every function refuses what the page does not allow, with the reason in words. */
#ifndef OBJMAP_RESCUE_FORMAT_H
#define OBJMAP_RESCUE_FORMAT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
	NODE_REFS = 1024,
	NODE_SIZE = 24576,
	HEAD_SIZE_MAX = 49152,
	LIST_SIZE_MAX = 16 << 20,
	RECENT_MAX = 512,
	ORIGINS_MAX = 8,
	PREFIX_MAX = 512,
	NAME_MAX_BYTES = 128,
	CHUNK_SIZE_MAX = 64 << 20,
	FRAME_SIZE_MIN = 65536,
	FRAMES_MAX = 128,
	FRAMES_TEXT_SIZE = 1368 + 1,	/* base64 of 128 entries of 8 bytes */
	UUID_TEXT_SIZE = 36 + 1,
	REASON_SIZE = 160,
};

struct ref {
	uint64_t epoch;			/* 0: a hole, or an empty subtree */
	uint64_t writer;
	uint32_t stored;		/* length in bytes; codec 0 in the upper bits */
	uint32_t crc;
};

struct recent {
	uint32_t chunk;
	struct ref ref;
};

struct origin {
	uint64_t epoch;			/* refs up to it lie under the prefix */
	char prefix[PREFIX_MAX + 1];
};

struct head {
	uint8_t uuid[16];
	uint64_t size, nr_chunks;	/* bytes; the last chunk may be partly used */
	uint32_t chunk_size, frame_size;
	bool deleted, incomplete;
	uint64_t epoch, writer, nonce, committed;
	char holder[65];		/* host name; empty when nobody has it open */
	unsigned int levels;		/* of nodes between the root and the chunks */
	unsigned int nr_root, nr_recent, nr_origins;
	struct ref root[NODE_REFS];
	struct recent recent[RECENT_MAX];
	struct origin origins[ORIGINS_MAX];
	bool has_snapshots;
	uint64_t list_epoch, list_nonce;
};

/* One entry of the snapshot list; the texts point into the list. */
struct snapshot {
	bool is_clone;
	uint64_t epoch, body_epoch, body_nonce, created, size;
	const char *name, *prefix;
	unsigned int name_length, prefix_length;
};

struct frames {
	unsigned int count;
	uint32_t crc[FRAMES_MAX];
};

/* CRC32C of @count bytes, going on from @crc (0 at the beginning). */
uint32_t checksum(uint32_t crc, const void *bytes, size_t count);

/* Each returns 0, or -1 with the reason in @why. */
int parse_head(const uint8_t *bytes, size_t count, struct head *head,
	       char why[REASON_SIZE]);

/* The refs of a node of @level (0: of chunks) and @number that @named names,
 * whose bytes have been checked against @named already. */
int parse_node(const uint8_t bytes[NODE_SIZE], const struct head *head,
	       const struct ref *named, unsigned int level, uint64_t number,
	       struct ref refs[NODE_REFS], char why[REASON_SIZE]);

/* Calls @each for all entries of a list, in order, until it returns not 0; then
 * that is returned.  The whole list has been checked before the first call. */
int parse_list(const uint8_t *bytes, size_t count,
	       int (*each)(const struct snapshot *entry, void *context), void *context,
	       char why[REASON_SIZE]);

/* The frame table of a chunk that @ref names, from its text in base64. */
int parse_frames(const char *text, const struct head *head, const struct ref *ref,
		 struct frames *frames, char why[REASON_SIZE]);

void uuid_text(const uint8_t uuid[16], char text[UUID_TEXT_SIZE]);

/* The prefix of the origin that a ref of @epoch lies in; NULL: the volume's own. */
const char *origin_of(const struct head *head, uint64_t epoch);

#endif
