/* sections.c: the envelope of head and of the snapshot list: magic, version,
 * length, tagged sections, CRC. */
#include "src/volume/sections.h"

#include <assert.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "src/crc32c.h"
#include "src/utf8.h"
#include "src/volume/bytes.h"

int format_bad(struct format_fault *fault, size_t offset, const char *what, ...)
{
	va_list arguments;

	if (fault) {
		fault->offset = offset;
		va_start(arguments, what);
		vsnprintf(fault->what, sizeof fault->what, what, arguments);
		va_end(arguments);
	}
	return -EBADMSG;
}

bool text_is_printable(const char *text, size_t length)
{
	const uint8_t *at = (const uint8_t *)text;
	uint32_t point;
	size_t count;

	for (; length; at += count, length -= count) {
		count = utf8_next(at, length, &point);
		if (!count || point < 0x20 || (point >= 0x7f && point < 0xa0))
			return false;
	}
	return true;
}

/* ---- writing -------------------------------------------------------------- */

/* The next @count bytes, zeroed. */
static uint8_t *out_take(struct sections_out *out, size_t count)
{
	uint8_t *at = out->bytes + out->count;

	assert(count <= out->room - out->count);
	memset(at, 0, count);
	out->count += count;
	return at;
}

void sections_begin(struct sections_out *out, const char magic[8],
		    void *bytes, size_t room)
{
	uint8_t *at;

	*out = (struct sections_out){ .bytes = bytes, .room = room };
	at = out_take(out, SECTIONS_HEADER_BYTES);
	memcpy(at, magic, 8);
	put_u32(at + 8, VOLUME_FORMAT);
}

void section_begin(struct sections_out *out, unsigned int type)
{
	uint8_t *at;

	out->section = out->count;
	at = out_take(out, SECTION_HEADER_BYTES);
	put_u16(at, (uint16_t)type);
	put_u16(at + 2, SECTION_MUST);
}

uint8_t *section_add(struct sections_out *out, size_t count)
{
	return out_take(out, count);
}

void section_end(struct sections_out *out)
{
	size_t length = out->count - out->section - SECTION_HEADER_BYTES;

	put_u32(out->bytes + out->section + 4, (uint32_t)length);
	out_take(out, -length & 7);
}

size_t sections_end(struct sections_out *out)
{
	size_t covered = out->count;
	uint8_t *at = out_take(out, SECTIONS_CRC_BYTES);

	put_u32(out->bytes + 12, (uint32_t)out->count);
	put_u32(at, crc32c(0, out->bytes, covered));
	return out->count;
}

/* ---- reading --------------------------------------------------------------- */

int sections_open(struct sections_in *in, const char magic[8],
		  const void *bytes, size_t count, struct format_fault *fault)
{
	const uint8_t *at = bytes;
	uint32_t version, length, crc, computed;

	if (count < SECTIONS_HEADER_BYTES + SECTIONS_CRC_BYTES)
		return format_bad(fault, count, "only %zu bytes long", count);
	if (memcmp(at, magic, 8))
		return format_bad(fault, 0, "does not begin with \"%.8s\"", magic);
	length = get_u32(at + 12);
	if (length != count)
		return format_bad(fault, 12, "is %zu bytes long but says %u",
				  count, length);
	crc = get_u32(at + count - SECTIONS_CRC_BYTES);
	computed = crc32c(0, bytes, count - SECTIONS_CRC_BYTES);
	if (crc != computed)
		return format_bad(fault, count - SECTIONS_CRC_BYTES,
				  "CRC32C is %08x, its bytes have %08x", crc,
				  computed);
	version = get_u32(at + 8);
	if (version != VOLUME_FORMAT) {
		format_bad(fault, 8, "format version %u; this objmap knows version %u",
			   version, VOLUME_FORMAT);
		return version > VOLUME_FORMAT ? -ENOTSUP : -EBADMSG;
	}
	*in = (struct sections_in){ .bytes = bytes, .at = SECTIONS_HEADER_BYTES,
				    .end = count - SECTIONS_CRC_BYTES };
	return 0;
}

int sections_next(struct sections_in *in, struct section *section,
		  struct format_fault *fault)
{
	size_t left = in->end - in->at, i, padded;
	const uint8_t *at = in->bytes + in->at;

	if (!left)
		return 0;
	if (left < SECTION_HEADER_BYTES)
		return format_bad(fault, in->at, "%zu bytes after the last section",
				  left);
	section->type = get_u16(at);
	section->flags = get_u16(at + 2);
	section->length = get_u32(at + 4);
	section->payload = at + SECTION_HEADER_BYTES;
	section->offset = in->at + SECTION_HEADER_BYTES;
	left -= SECTION_HEADER_BYTES;
	padded = ((size_t)section->length + 7) & ~(size_t)7;
	if (padded > left)
		return format_bad(fault, in->at + 4,
				  "section of type %u has %u bytes, %zu are left",
				  section->type, section->length, left);
	if (section->flags & ~SECTION_MUST)
		return format_bad(fault, in->at + 2,
				  "section of type %u has unknown flags %#x",
				  section->type, section->flags);
	for (i = section->length; i < padded; i++)
		if (section->payload[i])
			return format_bad(fault, section->offset + i,
					  "padding of section %u is not zero",
					  section->type);
	in->at += SECTION_HEADER_BYTES + padded;
	return 1;
}
