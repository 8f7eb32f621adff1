/* rescue_objmap.h: what objmap makes of the bytes that objmap-rescue is given; apart,
 * because both have their own idea of a head and of a ref. */
#ifndef OBJMAP_TESTS_FUZZ_RESCUE_OBJMAP_H
#define OBJMAP_TESTS_FUZZ_RESCUE_OBJMAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The head, of which one chunk's place and what is around it are said. */
struct said_head {
	uint64_t size, epoch, nonce, list_epoch;
	uint32_t chunk_size;
	unsigned int nr_root, nr_recent, nr_origins;
	bool deleted, incomplete, held;
	uint64_t last_root_writer;
	char origin[513];	/* of a ref of epoch 1000 */
};

/* Each: whether objmap takes it; objmap_why is its reason for the last that it did not. */
extern char objmap_why[160];

bool objmap_takes_head(const uint8_t *data, size_t count, struct said_head *said);
bool objmap_takes_list(const uint8_t *data, size_t count, unsigned int *nr_entries);
/* @data has 24576 bytes; the node is number @number of @level of a volume of @size
 * bytes in chunks of 64 KiB, and the ref that names it has epoch 1000. */
bool objmap_takes_node(const uint8_t *data, uint64_t size, unsigned int level,
		       uint32_t number);
/* Of a chunk of @nr_frames frames of 64 KiB; then *crc is the table's. */
bool objmap_takes_frames(const char *text, unsigned int nr_frames, uint32_t *crc);
uint32_t objmap_crc(const uint8_t *data, size_t count);

#endif
