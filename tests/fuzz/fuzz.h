/* fuzz.h: what the fuzz targets share.  Each is one file with
 * LLVMFuzzerTestOneInput(); whatever it finds wrong aborts. */
#ifndef OBJMAP_TESTS_FUZZ_H
#define OBJMAP_TESTS_FUZZ_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t count);

#define expect(condition) do {							\
	if (!(condition)) {							\
		fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__,	\
			#condition);						\
		abort();							\
	}									\
} while (0)

#endif
