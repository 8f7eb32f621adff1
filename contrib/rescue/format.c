/* format.c: head, snapshot list, nodes and frame tables, from their bytes. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "contrib/rescue/format.h"

enum { IDENTITY = 1, COMMIT, HOLDER, HISTORY, ROOT, RECENT, SNAPSHOTS, ORIGINS,
       INCOMPLETE, HEAD_SECTIONS };
enum { SNAPSHOT = 1, CLONE };

#define ENVELOPE_SIZE 16
#define CRC_SIZE 4

static uint16_t u16(const uint8_t *p)
{
	return (uint16_t)(p[0] | p[1] << 8);
}

static uint32_t u32(const uint8_t *p)
{
	return u16(p) | (uint32_t)u16(p + 2) << 16;
}

static uint64_t u64(const uint8_t *p)
{
	return u32(p) | (uint64_t)u32(p + 4) << 32;
}

__attribute__((format(printf, 2, 3)))
static int bad(char why[REASON_SIZE], const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	vsnprintf(why, REASON_SIZE, format, arguments);
	va_end(arguments);
	return -1;
}

static bool all_zero(const uint8_t *p, size_t count)
{
	for (; count; count--)
		if (*p++)
			return false;
	return true;
}

/* ---- text ----------------------------------------------------------------------- */

/* The length of the UTF-8 sequence at @p, of at most @count bytes; 0 when it is
 * none, not the shortest, a surrogate, beyond U+10FFFF, or a control character. */
static size_t character(const uint8_t *p, size_t count)
{
	static const uint32_t least[] = { 0, 0, 0x80, 0x800, 0x10000 };
	size_t length = p[0] < 0x80 ? 1 : p[0] >> 5 == 6 ? 2 : p[0] >> 4 == 14 ? 3 :
			p[0] >> 3 == 30 ? 4 : 0;
	uint32_t value;
	size_t i;

	if (!length || length > count)
		return 0;
	value = length == 1 ? p[0] : p[0] & (0x7fu >> length);
	for (i = 1; i < length; i++) {
		if (p[i] >> 6 != 2)
			return 0;
		value = value << 6 | (p[i] & 0x3f);
	}
	if (value < least[length] || value > 0x10ffff || value >> 11 == 27)
		return 0;
	return value < 0x20 || (value >= 0x7f && value < 0xa0) ? 0 : length;
}

static bool is_text(const uint8_t *p, size_t count)
{
	size_t at, length;

	for (at = 0; at < count; at += length) {
		length = character(p + at, count - at);
		if (!length)
			return false;
	}
	return true;
}

/* No slash at either end, no component that is empty, "." or "..". */
static bool is_prefix(const uint8_t *p, size_t count)
{
	size_t at, end;

	if (!count || count > PREFIX_MAX || !is_text(p, count))
		return false;
	for (at = 0; at <= count; at = end + 1) {
		for (end = at; end < count && p[end] != '/'; end++)
			;
		if (end == at || (end - at == 1 && p[at] == '.') ||
		    (end - at == 2 && p[at] == '.' && p[at + 1] == '.'))
			return false;
	}
	return true;
}

/* Printable ASCII, then zeros, at least one. */
static bool is_padded_ascii(const uint8_t *p, size_t count)
{
	size_t at;

	for (at = 0; at < count && p[at] >= 0x20 && p[at] < 0x7f; at++)
		;
	return at < count && all_zero(p + at, count - at);
}

/* ---- envelope and sections -------------------------------------------------------- */

struct section {
	unsigned int type;
	bool must;
	const uint8_t *payload;
	size_t length;
};

static int parse_envelope(const uint8_t *bytes, size_t count, const char *magic,
			  size_t most, char why[REASON_SIZE])
{
	if (count < ENVELOPE_SIZE + CRC_SIZE || memcmp(bytes, magic, 8) != 0)
		return bad(why, "it does not begin with %s", magic);
	if (count > most || u32(bytes + 12) != count)
		return bad(why, "it is %zu bytes long but says %u", count,
			   u32(bytes + 12));
	if (u32(bytes + count - CRC_SIZE) != checksum(0, bytes, count - CRC_SIZE))
		return bad(why, "its checksum is wrong");
	if (u32(bytes + 8) != 1)
		return bad(why, "it is of version %u; this program knows version 1",
			   u32(bytes + 8));
	return 0;
}

/* The section at *@at, which goes on behind it.  1: got one, 0: there is none,
 * -1: it is damaged. */
static int next_section(const uint8_t *bytes, size_t count, size_t *at,
			struct section *section, char why[REASON_SIZE])
{
	size_t left = count - CRC_SIZE - *at, padded;
	const uint8_t *p = bytes + *at;

	if (!left)
		return 0;
	if (left < 8)
		return bad(why, "it has bytes behind its last section");
	section->type = u16(p);
	section->must = u16(p + 2) & 1;
	section->length = u32(p + 4);
	section->payload = p + 8;
	padded = (section->length + 7) / 8 * 8;
	if (u16(p + 2) & ~1u || padded > left - 8 ||
	    !all_zero(p + 8 + section->length, padded - section->length))
		return bad(why, "its section at byte %zu cannot be", *at);
	*at += 8 + padded;
	return 1;
}

/* ---- refs -------------------------------------------------------------------------- */

/* A ref whose object has @stored bytes and whose epoch is at most @newest. */
static int parse_ref(const uint8_t *p, uint32_t stored, uint64_t newest,
		     struct ref *ref, char why[REASON_SIZE])
{
	ref->epoch = u64(p);
	ref->writer = u64(p + 8);
	ref->stored = u32(p + 16);
	ref->crc = u32(p + 20);
	if (!ref->epoch && all_zero(p, 24))
		return 0;
	if (!ref->epoch)
		return bad(why, "it has a hole that names something");
	if (ref->epoch > newest)
		return bad(why, "it has a ref that is newer than itself");
	if (ref->stored != stored)
		return bad(why, "it has a ref to an object of length or codec 0x%x",
			   ref->stored);
	return 0;
}

int parse_node(const uint8_t bytes[NODE_SIZE], const struct head *head,
	       const struct ref *named, unsigned int level, uint64_t number,
	       struct ref refs[NODE_REFS], char why[REASON_SIZE])
{
	uint32_t stored = level ? NODE_SIZE : head->chunk_size;
	uint64_t child;
	unsigned int i;

	for (i = 0; i < NODE_REFS; i++) {
		if (parse_ref(bytes + 24 * i, stored, named->epoch, &refs[i], why))
			return -1;
		child = number * NODE_REFS + i;
		if (refs[i].epoch && child << (10 * level) >= head->nr_chunks)
			return bad(why, "it has refs beyond the last chunk");
	}
	return 0;
}

/* ---- head ---------------------------------------------------------------------------- */

static int parse_identity(const uint8_t *p, size_t length, struct head *head,
			  char why[REASON_SIZE])
{
	uint32_t chunk, state;

	if (length != 48)
		return bad(why, "its identity has %zu bytes", length);
	memcpy(head->uuid, p, 16);
	head->size = u64(p + 24);
	head->chunk_size = chunk = u32(p + 32);
	head->frame_size = u32(p + 36);
	state = u32(p + 44);
	if (chunk < 65536 || chunk > CHUNK_SIZE_MAX || chunk & (chunk - 1))
		return bad(why, "it has chunks of %u bytes", chunk);
	if (head->frame_size != (chunk / 128 > 65536 ? chunk / 128 : 65536))
		return bad(why, "it has frames of %u bytes", head->frame_size);
	if (u32(p + 40))
		return bad(why, "it has codec %u", u32(p + 40));
	if (state != 1 && state != 3)
		return bad(why, "it has state %u", state);
	head->deleted = state == 3;
	if (head->deleted != !head->size)
		return bad(why, "it has a size that does not go with its state");
	head->nr_chunks = head->size / chunk + (head->size % chunk != 0);
	if (head->nr_chunks > 1u << 30)
		return bad(why, "it has more than 2^30 chunks");
	head->levels = head->nr_chunks > 1u << 20 ? 2 : head->nr_chunks > 1024;
	return 0;
}

static int parse_commit(const uint8_t *p, size_t length, struct head *head,
			char why[REASON_SIZE])
{
	if (length != 40)
		return bad(why, "its commit has %zu bytes", length);
	head->epoch = u64(p);
	head->writer = u64(p + 8);
	head->nonce = u64(p + 16);
	head->committed = u64(p + 24);
	if (!head->epoch || head->epoch == UINT64_MAX)
		return bad(why, "it has an epoch that cannot be");
	return 0;
}

static int parse_holder(const uint8_t *p, size_t length, struct head *head,
			char why[REASON_SIZE])
{
	if (length != 178 || u32(p + 40) & ~1u || !is_padded_ascii(p + 44, 64) ||
	    !is_padded_ascii(p + 108, 33) || !is_padded_ascii(p + 141, 37))
		return bad(why, "its holder cannot be");
	memcpy(head->holder, p + 44, 64);
	return 0;
}

static int parse_history(const uint8_t *p, size_t length, const struct head *head,
			 char why[REASON_SIZE])
{
	uint64_t newest = head->epoch;

	if (!length || length % 24 || length > 16 * 24)
		return bad(why, "its history has %zu bytes", length);
	for (; length; length -= 24, p += 24) {
		if (u64(p + 8) > newest)
			return bad(why, "its history is out of order");
		newest = u64(p + 8);
	}
	return 0;
}

static int parse_root(const uint8_t *p, size_t length, struct head *head,
		      char why[REASON_SIZE])
{
	uint64_t span = 1ull << (10 * head->levels);
	uint64_t count = (head->nr_chunks + span - 1) / span;
	unsigned int i;

	if (head->deleted || length != 24 * count)
		return bad(why, "its root has %zu bytes", length);
	head->nr_root = (unsigned int)count;
	for (i = 0; i < count; i++)
		if (parse_ref(p + 24 * i, head->levels ? NODE_SIZE : head->chunk_size,
			      head->epoch, &head->root[i], why))
			return -1;
	return 0;
}

static int parse_recent(const uint8_t *p, size_t length, struct head *head,
			char why[REASON_SIZE])
{
	struct recent *recent = head->recent;

	if (head->deleted || !length || length % 28 || length > 28 * RECENT_MAX)
		return bad(why, "it has %zu bytes of recent refs", length);
	for (; length; length -= 28, p += 28, recent++) {
		recent->chunk = u32(p);
		if (recent->chunk >= head->nr_chunks ||
		    (head->nr_recent && recent->chunk <= recent[-1].chunk))
			return bad(why, "its recent refs are out of order");
		if (parse_ref(p + 4, head->chunk_size, head->epoch, &recent->ref, why))
			return -1;
		head->nr_recent++;
	}
	return 0;
}

static int parse_snapshots(const uint8_t *p, size_t length, struct head *head,
			   char why[REASON_SIZE])
{
	if (head->deleted || length != 24 || !u64(p) || u64(p) > head->epoch + 1 ||
	    u64(p + 16) > head->epoch)
		return bad(why, "its place of the snapshot list cannot be");
	head->has_snapshots = true;
	head->list_epoch = u64(p);
	head->list_nonce = u64(p + 8);
	return 0;
}

static int parse_origins(const uint8_t *p, size_t length, struct head *head,
			 char why[REASON_SIZE])
{
	struct origin *origin = head->origins;
	size_t count;

	if (head->deleted || !length)
		return bad(why, "it has origins that cannot be");
	for (; length; length -= 12 + count, p += 12 + count, origin++) {
		if (head->nr_origins == ORIGINS_MAX || length < 12 ||
		    u32(p + 8) > length - 12 || !u64(p) || u64(p) > head->epoch ||
		    (head->nr_origins && u64(p) <= origin[-1].epoch))
			return bad(why, "origin %u cannot be", head->nr_origins);
		count = u32(p + 8);
		if (!is_prefix(p + 12, count))
			return bad(why, "the prefix of origin %u cannot be",
				   head->nr_origins);
		origin->epoch = u64(p);
		memcpy(origin->prefix, p + 12, count);
		origin->prefix[count] = 0;
		head->nr_origins++;
	}
	return 0;
}

static int parse_section(const struct section *s, struct head *head,
			 char why[REASON_SIZE])
{
	if (s->type >= HEAD_SECTIONS)
		return s->must ? bad(why, "it has a section of type %u, which this "
				     "program does not know", s->type) : 0;
	if (!s->must)
		return bad(why, "its section %u is not marked must", s->type);
	switch (s->type) {
	case IDENTITY:	return parse_identity(s->payload, s->length, head, why);
	case COMMIT:	return parse_commit(s->payload, s->length, head, why);
	case HOLDER:	return parse_holder(s->payload, s->length, head, why);
	case HISTORY:	return parse_history(s->payload, s->length, head, why);
	case ROOT:	return parse_root(s->payload, s->length, head, why);
	case RECENT:	return parse_recent(s->payload, s->length, head, why);
	case SNAPSHOTS:	return parse_snapshots(s->payload, s->length, head, why);
	case ORIGINS:	return parse_origins(s->payload, s->length, head, why);
	}
	head->incomplete = true;
	return s->length ? bad(why, "its section 9 has a payload") : 0;
}

int parse_head(const uint8_t *bytes, size_t count, struct head *head,
	       char why[REASON_SIZE])
{
	unsigned int seen = 0, before = 0;
	size_t at = ENVELOPE_SIZE;
	struct section section;
	int got;

	memset(head, 0, sizeof(*head));
	if (parse_envelope(bytes, count, "OBJMHEAD", HEAD_SIZE_MAX, why))
		return -1;
	while ((got = next_section(bytes, count, &at, &section, why)) > 0) {
		if (section.type <= before)
			return bad(why, "its sections are out of order");
		before = section.type;
		/* What follows needs what these say. */
		if (section.type > COMMIT && (seen & 6) != 6)
			return bad(why, "it has no identity or no commit");
		if (parse_section(&section, head, why))
			return -1;
		seen |= section.type < 31 ? 1u << section.type : 1;
	}
	if (got < 0)
		return -1;
	if ((seen & 6) != 6 || (!head->deleted && !(seen & 1u << ROOT)))
		return bad(why, "it has no identity, no commit or no root");
	return 0;
}

const char *origin_of(const struct head *head, uint64_t epoch)
{
	unsigned int i;

	for (i = 0; i < head->nr_origins; i++)
		if (epoch <= head->origins[i].epoch)
			return head->origins[i].prefix;
	return NULL;
}

void uuid_text(const uint8_t uuid[16], char text[UUID_TEXT_SIZE])
{
	static const char digits[] = "0123456789abcdef";
	unsigned int i;

	for (i = 0; i < 16; i++) {
		if (i == 4 || i == 6 || i == 8 || i == 10)
			*text++ = '-';
		*text++ = digits[uuid[i] >> 4];
		*text++ = digits[uuid[i] & 15];
	}
	*text = 0;
}

/* ---- snapshot list ----------------------------------------------------------------------- */

static int parse_entry(const struct section *section, struct snapshot *entry,
		       char why[REASON_SIZE])
{
	const uint8_t *p = section->payload;

	if (!section->must || section->length < 44)
		return bad(why, "it has an entry of %zu bytes", section->length);
	entry->is_clone = section->type == CLONE;
	entry->epoch = u64(p);
	entry->body_epoch = u64(p + 8);
	entry->body_nonce = u64(p + 16);
	entry->created = u64(p + 24);
	entry->size = u64(p + 32);
	entry->name_length = u16(p + 40);
	entry->prefix_length = u16(p + 42);
	entry->name = (const char *)p + 44;
	entry->prefix = entry->name + entry->name_length;
	if (!entry->epoch || entry->body_epoch <= entry->epoch || !entry->size)
		return bad(why, "it has an entry with impossible epochs or size");
	if (section->length != 44u + entry->name_length + entry->prefix_length ||
	    !entry->name_length || entry->name_length > NAME_MAX_BYTES ||
	    !is_text(p + 44, entry->name_length) ||
	    memchr(entry->name, '/', entry->name_length) ||
	    memchr(entry->name, '@', entry->name_length))
		return bad(why, "it has an entry with an impossible name");
	if (entry->is_clone ? !is_prefix((const uint8_t *)entry->prefix,
					 entry->prefix_length) : entry->prefix_length)
		return bad(why, "it has an entry with an impossible prefix");
	return 0;
}

/* 1: an entry, 0: the end, -1: damaged.  Unknown sections are passed over. */
static int next_entry(const uint8_t *bytes, size_t count, size_t *at,
		      struct snapshot *entry, char why[REASON_SIZE])
{
	struct section section;
	int got;

	while ((got = next_section(bytes, count, at, &section, why)) > 0) {
		if (section.type == SNAPSHOT || section.type == CLONE)
			return parse_entry(&section, entry, why) ? -1 : 1;
		if (section.must)
			return bad(why, "it has an entry of type %u, which this program "
				   "does not know", section.type);
	}
	return got;
}

static int by_name(const void *a, const void *b)
{
	const struct snapshot *left = a, *right = b;
	unsigned int shorter = left->name_length < right->name_length ?
			       left->name_length : right->name_length;
	int order = memcmp(left->name, right->name, shorter);

	return order ? order : (left->name_length > right->name_length) -
			       (left->name_length < right->name_length);
}

/* No two snapshots have the same name.  Takes 80 bytes an entry, which takes 56. */
static int check_names(const uint8_t *bytes, size_t count, size_t nr_entries,
		       char why[REASON_SIZE])
{
	struct snapshot *entries = calloc(nr_entries + 1, sizeof(*entries)), entry;
	size_t at = ENVELOPE_SIZE, n = 0, i;
	int error = 0;

	if (!entries)
		return bad(why, "no memory for its %zu entries", nr_entries);
	while (n < nr_entries && next_entry(bytes, count, &at, &entry, why) > 0)
		if (!entry.is_clone)
			entries[n++] = entry;
	qsort(entries, n, sizeof(*entries), by_name);
	for (i = 1; i < n && !error; i++)
		if (!by_name(&entries[i - 1], &entries[i]))
			error = bad(why, "it has two snapshots %.*s",
				    (int)entries[i].name_length, entries[i].name);
	free(entries);
	return error;
}

int parse_list(const uint8_t *bytes, size_t count,
	       int (*each)(const struct snapshot *entry, void *context), void *context,
	       char why[REASON_SIZE])
{
	size_t at = ENVELOPE_SIZE, nr_entries = 0;
	struct snapshot entry;
	int got, result = 0;

	if (parse_envelope(bytes, count, "OBJMSNAP", LIST_SIZE_MAX, why))
		return -1;
	while ((got = next_entry(bytes, count, &at, &entry, why)) > 0)
		nr_entries++;
	if (got < 0 || check_names(bytes, count, nr_entries, why))
		return -1;
	at = ENVELOPE_SIZE;
	while (!result && next_entry(bytes, count, &at, &entry, why) > 0)
		result = each(&entry, context);
	return result;
}

/* ---- frame tables -------------------------------------------------------------------------- */

static int base64_digit(char c)
{
	return c >= 'A' && c <= 'Z' ? c - 'A' : c >= 'a' && c <= 'z' ? c - 'a' + 26 :
	       c >= '0' && c <= '9' ? c - '0' + 52 : c == '+' ? 62 : c == '/' ? 63 : -1;
}

/* Exactly @count bytes from @text: RFC 4648 section 4, padded, no stray bits. */
static int base64_decode(const char *text, uint8_t *bytes, size_t count)
{
	size_t digits = (count * 8 + 5) / 6, i, at = 0;
	unsigned int value = 0, bits = 0;
	int digit;

	if (strlen(text) != (count + 2) / 3 * 4)
		return -1;
	for (i = 0; i < digits; i++) {
		digit = base64_digit(text[i]);
		if (digit < 0)
			return -1;
		value = (value << 6 | (unsigned int)digit) & 0xffff;
		bits += 6;
		if (bits >= 8) {
			bits -= 8;
			bytes[at++] = (uint8_t)(value >> bits);
		}
	}
	if (value & ((1u << bits) - 1))
		return -1;
	for (; text[i]; i++)
		if (text[i] != '=')
			return -1;
	return 0;
}

int parse_frames(const char *text, const struct head *head, const struct ref *ref,
		 struct frames *frames, char why[REASON_SIZE])
{
	uint8_t table[8 * FRAMES_MAX];
	unsigned int i;

	frames->count = head->chunk_size / head->frame_size;
	if (base64_decode(text, table, 8 * frames->count))
		return bad(why, "it has no frame table of %u frames", frames->count);
	if (checksum(0, table, 8 * frames->count) != ref->crc)
		return bad(why, "its frame table is not the one that its ref names");
	for (i = 0; i < frames->count; i++) {
		if (u32(table + 8 * i) != head->frame_size)
			return bad(why, "its frame %u has another length", i);
		frames->crc[i] = u32(table + 8 * i + 4);
	}
	return 0;
}
