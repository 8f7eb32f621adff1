/* output.h: where the volume goes: a new sparse file, or a block device.
 *
 * All functions but open and close may be called by any number of threads, for
 * ranges that do not overlap. */
#ifndef OBJMAP_RESCUE_OUTPUT_H
#define OBJMAP_RESCUE_OUTPUT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct output {
	const char *path;
	int fd;
	bool device;		/* holds something else until it is written */
};

/* A file of @size bytes that reads as zeros, or a device that has at least as many.
 * What exists is refused unless @overwrite.  0, or -1 after a message. */
int output_open(struct output *output, const char *path, uint64_t size, bool overwrite);

/* 0, or -1 after a message. */
int output_write(const struct output *output, const uint8_t *bytes, size_t count,
		 uint64_t offset);
int output_zero(const struct output *output, uint64_t offset, uint64_t count);

/* Makes it durable.  0, or -1 after a message. */
int output_close(struct output *output);

#endif
