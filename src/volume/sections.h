/* sections.h: the envelope of head and of the snapshot list.
 *
 *     magic   8 bytes
 *     u32     version
 *     u32     length of the whole object
 *     sections, each: u16 type, u16 flags, u32 length, payload, zeros up to 8
 *     u32     CRC32C of everything before
 *
 * The first 16 bytes and the CRC are the same in every version to come.
 */
#ifndef OBJMAP_VOLUME_SECTIONS_H
#define OBJMAP_VOLUME_SECTIONS_H

#include "src/volume/format.h"

#define SECTION_MUST 1u		/* who does not know this type refuses the object */

#define SECTIONS_HEADER_BYTES 16u
#define SECTION_HEADER_BYTES  8u
#define SECTIONS_CRC_BYTES    4u
#define SECTION_BYTES(payload) (SECTION_HEADER_BYTES + (((payload) + 7u) & ~7u))

/* ---- writing: into a buffer that is large enough (asserted) ---- */

struct sections_out {
	uint8_t *bytes;
	size_t room;
	size_t count;		/* written so far */
	size_t section;		/* where the open section begins */
};
void sections_begin(struct sections_out *out, const char magic[8],
		    void *bytes, size_t room);
void section_begin(struct sections_out *out, unsigned int type);
/* Room for @count bytes of the open section's payload, already zero. */
uint8_t *section_add(struct sections_out *out, size_t count);
void section_end(struct sections_out *out);
size_t sections_end(struct sections_out *out);	/* the object's length */

/* ---- reading ---- */

struct section {
	unsigned int type, flags;
	uint32_t length;
	const uint8_t *payload;
	size_t offset;		/* of the payload in the object */
};
struct sections_in {
	const uint8_t *bytes;
	size_t at, end;
};
/* Checks the envelope.  0, -EBADMSG or -ENOTSUP (a newer version). */
int sections_open(struct sections_in *in, const char magic[8],
		  const void *bytes, size_t count, struct format_fault *fault);
/* 1 and the next section; 0 after the last; -EBADMSG. */
int sections_next(struct sections_in *in, struct section *section,
		  struct format_fault *fault);

/* ---- faults ---- */

/* Fills @fault (which may be NULL) and returns -EBADMSG. */
int format_bad(struct format_fault *fault, size_t offset, const char *what, ...)
	__attribute__((format(printf, 3, 4)));

/* Whether @text of @length bytes is UTF-8 without control characters (C0, DEL
 * and C1). */
bool text_is_printable(const char *text, size_t length);

#endif
