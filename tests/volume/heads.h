/* heads.h: heads for tests: a small one whose bytes are fixed for ever, and the
 * largest there can be. */
#ifndef OBJMAP_TESTS_HEADS_H
#define OBJMAP_TESTS_HEADS_H

#include <stdio.h>
#include <string.h>

#include "src/volume/format.h"

static inline struct ref test_ref(uint64_t epoch, uint64_t writer, uint32_t stored)
{
	return (struct ref){ .epoch = epoch, .writer = writer, .stored = stored,
			     .crc = (uint32_t)(epoch * 2654435761u) };
}

/* Three chunks of 64 KiB, the last one cut; held, with a snapshot. */
static inline void head_small(struct head *head)
{
	memset(head, 0, sizeof *head);
	memcpy(head->uuid, "\x01\x23\x45\x67\x89\xab\xcd\xef\xfe\xdc\xba\x98\x76\x54\x32\x10", 16);
	head->state = HEAD_LIVE;
	head->size = 150000;
	head->chunk_size = 65536;
	head->frame_size = 65536;
	head->created = 1700000000;
	head->epoch = 0x20003;
	head->writer = 0x1111222233334444;
	head->nonce = 0x5555666677778888;
	head->committed = 1700000100;
	head->sequence = 7;
	head->holder = (struct holder){ .held = true, .journal = true,
		.since = 1700000050, .pid = 812, .pid_namespace = 4026531836,
		.lock_device = 0x19, .lock_inode = 4711, .host = "web-3",
		.machine = "0123456789abcdef0123456789abcdef",
		.boot = "00112233-4455-6677-8899-aabbccddeeff" };
	head->nr_history = 1;
	head->history[0] = (struct past_writer){ 0x9999aaaabbbbcccc, 0x10001, 3 };
	head->nr_root = 3;
	head->root[0] = test_ref(0x10001, 0x9999aaaabbbbcccc, 65536);
	head->root[2] = test_ref(0x20002, 0x1111222233334444, 65536);
	head->nr_recent = 2;
	head->recent[0] = (struct recent_ref){ 1, test_ref(0x20003, 0x1111222233334444,
							   65536) };
	head->recent[1] = (struct recent_ref){ .chunk = 2 };
	head->snapshot_list_epoch = 0x20002;
	head->snapshot_list_nonce = 0xabcdef;
	head->snapshot_newest = 0x20001;
	head->nr_origins = 1;
	head->origins[0].epoch = 0x100;
	strcpy(head->origins[0].prefix, "images/base");
}

/* Every list full, every text at its longest; marked incomplete. */
static inline void head_largest(struct head *head)
{
	unsigned int i;

	head_small(head);
	head->state = HEAD_INCOMPLETE;
	head->chunk_size = CHUNK_SIZE_MAX;
	head->frame_size = frame_size_of(CHUNK_SIZE_MAX);
	head->size = (uint64_t)VOLUME_CHUNKS_MAX * CHUNK_SIZE_MAX;
	memset(head->holder.host, 'h', sizeof head->holder.host - 1);
	head->nr_root = NODE_REFS;
	for (i = 0; i < NODE_REFS; i++)
		head->root[i] = test_ref(0x10000 + i, i, NODE_BYTES);
	head->nr_recent = RECENT_MAX;
	for (i = 0; i < RECENT_MAX; i++)
		head->recent[i] = (struct recent_ref){ i * 1000000,
			test_ref(0x10000 + i, i, CHUNK_SIZE_MAX) };
	head->nr_history = HISTORY_MAX;
	for (i = 0; i < HISTORY_MAX; i++)
		head->history[i] = (struct past_writer){ i, 0x20000 - i, i };
	head->nr_origins = ORIGINS_MAX;
	for (i = 0; i < ORIGINS_MAX; i++) {
		head->origins[i].epoch = i + 1;
		memset(head->origins[i].prefix, 'a' + (int)i, ORIGIN_PREFIX_MAX);
		head->origins[i].prefix[ORIGIN_PREFIX_MAX] = 0;
	}
}

#endif
