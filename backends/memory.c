/* memory.c: a device that is anonymous memory: memory:SIZE.
 *
 * Sparse: what was never written takes no memory, and reads as zeros.  A byte
 * per 64 KiB block says whether the block may hold anything else, so extents
 * can tell holes from data without touching them. */
#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "src/log.h"
#include "src/place.h"
#include "src/stage/iov.h"
#include "src/units.h"

#define BLOCK_SIZE	65536u
#define EXTENTS_SCAN	(1u << 20)	/* blocks one extents request looks at */

struct memory {
	struct stage stage;		/* must stay first */
	char *data;			/* mapped_size bytes */
	size_t mapped_size;		/* size, rounded up to whole blocks */
	atomic_uchar *written;		/* per block: 1 from its first write on */
	uint64_t nr_blocks;
};

static struct memory *memory_of(struct stage *stage)
{
	return (struct memory *)stage;
}

static void memory_read(struct stage *stage, struct request *request)
{
	iov_copy_in(request->iov, request->nr_iov, 0,
		    memory_of(stage)->data + request->offset, request->count);
	request_complete(request, 0);
}

static void mark_written(struct memory *memory, const struct request *request)
{
	uint64_t last = (request->offset + request->count - 1) / BLOCK_SIZE;

	for (uint64_t b = request->offset / BLOCK_SIZE; b <= last; b++)
		if (!atomic_load_explicit(&memory->written[b],
					  memory_order_relaxed))
			atomic_store_explicit(&memory->written[b], 1,
					      memory_order_relaxed);
}

/* Marked before, so that nobody takes its first bytes for zeros; and again
 * after, because a zero of the same blocks may have come between: whichever
 * wins, a block with data in it must not count as a hole for good. */
static void memory_write(struct stage *stage, struct request *request)
{
	struct memory *memory = memory_of(stage);

	mark_written(memory, request);
	iov_copy_out(request->iov, request->nr_iov, 0,
		     memory->data + request->offset, request->count);
	atomic_thread_fence(memory_order_seq_cst);
	mark_written(memory, request);
	request_complete(request, 0);
}

/* Gives whole blocks of [offset, offset + count) back to the system; what is
 * beside them in the first and last block becomes zeros byte by byte. */
static int memory_clear(struct memory *memory, uint64_t offset, uint64_t count)
{
	uint64_t end = offset + count;
	uint64_t first = (offset + BLOCK_SIZE - 1) / BLOCK_SIZE;
	uint64_t last = end / BLOCK_SIZE;	/* one after the last whole one */

	if (end == stage_size(&memory->stage))
		last = memory->nr_blocks;
	if (first >= last) {
		uint64_t b = offset / BLOCK_SIZE, border = (b + 1) * BLOCK_SIZE;
		uint64_t head = end < border ? count : border - offset;

		/* Zeros written where there are zeros would only take memory. */
		if (atomic_load_explicit(&memory->written[b], memory_order_relaxed))
			memset(memory->data + offset, 0, head);
		if (end > border &&
		    atomic_load_explicit(&memory->written[b + 1], memory_order_relaxed))
			memset(memory->data + border, 0, end - border);
		return 0;
	}
	if (offset < first * BLOCK_SIZE && memory->written[first - 1])
		memset(memory->data + offset, 0, first * BLOCK_SIZE - offset);
	if (end > last * BLOCK_SIZE && memory->written[last])
		memset(memory->data + last * BLOCK_SIZE, 0, end - last * BLOCK_SIZE);
	/* First the marks: a write that comes between sets its own again. */
	for (uint64_t b = first; b < last; b++)
		if (atomic_load_explicit(&memory->written[b], memory_order_relaxed))
			atomic_store_explicit(&memory->written[b], 0,
					      memory_order_seq_cst);
	if (madvise(memory->data + first * BLOCK_SIZE, (last - first) * BLOCK_SIZE,
		    MADV_DONTNEED) < 0)
		return -errno;
	return 0;
}

static void memory_zero(struct stage *stage, struct request *request)
{
	request_complete(request, memory_clear(memory_of(stage), request->offset,
					       request->count));
}

static void memory_flush(struct stage *stage, struct request *request)
{
	request_complete(request, 0);	/* it is as durable as it will ever be */
}

static void memory_extents(struct stage *stage, struct request *request)
{
	struct memory *memory = memory_of(stage);
	uint64_t at = request->offset, end = at + request->count;

	for (unsigned int scanned = 0; at < end && scanned < EXTENTS_SCAN;
	     scanned++) {
		uint64_t b = at / BLOCK_SIZE, next = (b + 1) * BLOCK_SIZE;
		bool data = atomic_load_explicit(&memory->written[b],
						 memory_order_relaxed);

		if (next > end)
			next = end;
		if (!extent_list_add(request->extents, next - at, EXTENT_LOCAL |
				     (data ? 0 : EXTENT_HOLE | EXTENT_ZERO)))
			break;
		at = next;
	}
	request_complete(request, 0);
}

static void memory_prefetch(struct stage *stage, struct request *request)
{
	request_complete(request, 0);
}

static void memory_free(struct memory *memory)
{
	if (memory->data)
		munmap(memory->data, memory->mapped_size);
	if (memory->written)
		munmap(memory->written, memory->nr_blocks);
	free(memory);
}

static void memory_close(struct stage *stage)
{
	memory_free(memory_of(stage));
}

static const struct stage_ops memory_ops = {
	.name	  = "memory",
	.read	  = memory_read,
	.write	  = memory_write,
	.zero	  = memory_zero,
	.trim	  = memory_zero,
	.flush	  = memory_flush,
	.extents  = memory_extents,
	.prefetch = memory_prefetch,
	.close	  = memory_close,
};

/* Whether the whole of it would be no great loss of this machine's memory. */
static bool is_small(size_t size)
{
	return size / (size_t)sysconf(_SC_PAGESIZE) <= (size_t)sysconf(_SC_PHYS_PAGES) / 8;
}

/* Address space only: pages come with the first write.  Huge ones save a read
 * at random much of its way to the bytes, but make a scattered device dense. */
static void *map_sparse(size_t size)
{
	void *data = mmap(NULL, size, PROT_READ | PROT_WRITE,
			  MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (data == MAP_FAILED)
		return NULL;
	if (is_small(size))
		madvise(data, size, MADV_HUGEPAGE);	/* a wish */
	return data;
}

int memory_open(uint64_t size, struct stage **stage)
{
	struct geometry geometry = {
		.size = size, .read_unit = 1, .write_unit = 1,
		.preferred = 4096, .max_request = 1u << 30,
		.flags = STAGE_NATIVE_FUA | STAGE_FAST_ZERO | STAGE_NEVER_WAITS,
	};
	struct memory *memory;
	char text[UNITS_TEXT];

	if (size == 0 || size > INT64_MAX - BLOCK_SIZE) {
		log_error("memory: %s is no size of a device; give one from 1 byte to what this machine can address",
			  size_format(size, text));
		return -EINVAL;
	}
	memory = calloc(1, sizeof(*memory));
	if (!memory)
		return -ENOMEM;
	memory->nr_blocks = (size + BLOCK_SIZE - 1) / BLOCK_SIZE;
	memory->mapped_size = memory->nr_blocks * BLOCK_SIZE;
	memory->data = map_sparse(memory->mapped_size);
	memory->written = map_sparse(memory->nr_blocks);
	if (!memory->data || !memory->written) {
		log_error("memory: no address space for %s; give a smaller size",
			  size_format(size, text));
		memory_free(memory);
		return -ENOMEM;
	}
	stage_init(&memory->stage, &memory_ops, NULL, &geometry);
	*stage = &memory->stage;
	return 0;
}
