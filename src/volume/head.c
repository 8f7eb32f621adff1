/* head.c: head as bytes.
 *
 * An envelope (sections.h) with at most one section of each type below,
 * ascending; a section that would be empty is left out.  head_is_valid() is what
 * both directions rest on: nothing it refuses is ever written or believed. */
#include "src/volume/sections.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "src/log.h"
#include "src/volume/bytes.h"

static const char head_magic[8] = "OBJMHEAD";

enum head_section {
	SECTION_IDENTITY = 1,
	SECTION_COMMIT,
	SECTION_HOLDER,		/* only while held */
	SECTION_HISTORY,
	SECTION_ROOT,
	SECTION_RECENT,
	SECTION_SNAPSHOTS,
	SECTION_ORIGINS,
	SECTION_INCOMPLETE,	/* no payload */
	NR_HEAD_SECTIONS
};

static const char *const section_names[NR_HEAD_SECTIONS] = {
	[SECTION_IDENTITY] = "identity", [SECTION_COMMIT] = "commit",
	[SECTION_HOLDER] = "holder", [SECTION_HISTORY] = "history",
	[SECTION_ROOT] = "root", [SECTION_RECENT] = "recent",
	[SECTION_SNAPSHOTS] = "snapshots", [SECTION_ORIGINS] = "origins",
	[SECTION_INCOMPLETE] = "incomplete",
};

#define IDENTITY_BYTES	48u
#define COMMIT_BYTES	40u
#define HOLDER_BYTES	178u	/* 5 u64, flags, 64 + 33 + 37 of text */
#define HISTORY_BYTES	24u	/* each */
#define RECENT_BYTES	28u	/* each */
#define SNAPSHOTS_BYTES 24u
#define ORIGIN_BYTES	12u	/* each, and its prefix */

#define HOLDER_JOURNAL	1u

/* Head at its largest, with at least a 4 KiB block's room for a section of small
 * dirty blocks to come. */
_Static_assert(SECTIONS_HEADER_BYTES + SECTIONS_CRC_BYTES +
	       SECTION_BYTES(IDENTITY_BYTES) + SECTION_BYTES(COMMIT_BYTES) +
	       SECTION_BYTES(HOLDER_BYTES) +
	       SECTION_BYTES(HISTORY_MAX * HISTORY_BYTES) +
	       SECTION_BYTES(NODE_REFS * REF_BYTES) +
	       SECTION_BYTES(RECENT_MAX * RECENT_BYTES) +
	       SECTION_BYTES(SNAPSHOTS_BYTES) +
	       SECTION_BYTES(ORIGINS_MAX * (ORIGIN_BYTES + ORIGIN_PREFIX_MAX)) +
	       SECTION_BYTES(0) + SECTION_BYTES(4096 + 16) <= HEAD_BYTES_MAX,
	       "the largest head fits into HEAD_BYTES_MAX");

/* ---- what a head may say -------------------------------------------------------- */

bool origin_prefix_is_valid(const char *prefix)
{
	size_t length = strnlen(prefix, ORIGIN_PREFIX_MAX + 1), part;
	const char *at = prefix;

	if (!length || length > ORIGIN_PREFIX_MAX || !text_is_printable(prefix, length))
		return false;
	for (;; at += part + 1) {
		part = strcspn(at, "/");
		if (!part || (part == 1 && at[0] == '.') ||
		    (part == 2 && at[0] == '.' && at[1] == '.'))
			return false;
		if (!at[part])
			return true;
	}
}

/* Where the faults of head_check() stand: the payload of each section. */
struct head_offsets {
	size_t of[NR_HEAD_SECTIONS];
};

static int check_identity(const struct head *head, size_t at,
			  struct format_fault *fault)
{
	if (head->state != HEAD_LIVE && head->state != HEAD_INCOMPLETE &&
	    head->state != HEAD_DELETED)
		return format_bad(fault, at + 44, "unknown state %u",
				  (unsigned int)head->state);
	if (!chunk_size_is_valid(head->chunk_size))
		return format_bad(fault, at + 32, "chunk size %u is not a power of two "
				  "between 64 KiB and 64 MiB", head->chunk_size);
	if (head->frame_size != frame_size_of(head->chunk_size))
		return format_bad(fault, at + 36, "frame size %u does not belong to "
				  "chunk size %u", head->frame_size, head->chunk_size);
	if (head->codec != CODEC_NONE)
		return format_bad(fault, at + 40, "unknown codec %u", head->codec);
	if (head->state == HEAD_DELETED && head->size)
		return format_bad(fault, at + 24, "a deleted volume has a size");
	if (head->state != HEAD_DELETED &&
	    !volume_nr_chunks(head->size, head->chunk_size))
		return format_bad(fault, at + 24,
				  "size %llu is 0 or more than 2^30 chunks",
				  (unsigned long long)head->size);
	return 0;
}

static int check_history(const struct head *head, size_t at,
			 struct format_fault *fault)
{
	unsigned int i;

	if (head->nr_history > HISTORY_MAX)
		return format_bad(fault, at, "history of %u writers, more than %u",
				  head->nr_history, HISTORY_MAX);
	for (i = 0; i < head->nr_history; i++)
		if (head->history[i].epoch >
		    (i ? head->history[i - 1].epoch : head->epoch))
			return format_bad(fault, at + i * HISTORY_BYTES + 8,
					  "writer %u of history has too new an epoch",
					  i);
	return 0;
}

/* A ref in head, of an object of @length bytes. */
static const char *ref_fault(const struct head *head, const struct ref *ref,
			     uint32_t length)
{
	uint8_t bytes[REF_BYTES];
	struct ref again;

	ref_encode(ref, bytes);
	if (!ref_decode(bytes, &again))
		return "is none that a writer can have meant";
	if (ref->epoch > head->epoch)
		return "is newer than head";
	if (!ref_is_hole(ref) && ref_stored(ref) != length)
		return "names an object of the wrong length";
	return NULL;
}

static int check_root(const struct head *head, size_t at, struct format_fault *fault)
{
	uint32_t nr_chunks = volume_nr_chunks(head->size, head->chunk_size), i;
	uint32_t length = map_levels(nr_chunks) ? NODE_BYTES : head->chunk_size;
	const char *wrong;

	if (head->nr_root != map_nr_root(nr_chunks))
		return format_bad(fault, at, "root of %u refs; the size needs %u",
				  head->nr_root, map_nr_root(nr_chunks));
	for (i = 0; i < head->nr_root; i++) {
		wrong = ref_fault(head, &head->root[i], length);
		if (wrong)
			return format_bad(fault, at + i * REF_BYTES,
					  "ref %u of root %s", i, wrong);
	}
	return 0;
}

static int check_recent(const struct head *head, size_t at,
			struct format_fault *fault)
{
	uint32_t nr_chunks = volume_nr_chunks(head->size, head->chunk_size);
	const struct recent_ref *recent = head->recent;
	const char *wrong;
	unsigned int i;

	if (head->nr_recent > RECENT_MAX)
		return format_bad(fault, at, "%u recent refs, more than %u",
				  head->nr_recent, RECENT_MAX);
	for (i = 0; i < head->nr_recent; i++) {
		wrong = ref_fault(head, &recent[i].ref, head->chunk_size);
		if (!wrong && recent[i].chunk >= nr_chunks)
			wrong = "lies beyond the last chunk";
		if (!wrong && i && recent[i].chunk <= recent[i - 1].chunk)
			wrong = "is out of order";
		if (wrong)
			return format_bad(fault, at + i * RECENT_BYTES,
					  "recent ref %u %s", i, wrong);
	}
	return 0;
}

/* A snapshot is kept under the epoch after that of the head it was taken of. */
static int check_snapshots(const struct head *head, size_t at,
			   struct format_fault *fault)
{
	if (head->snapshot_list_epoch > head->epoch + 1)
		return format_bad(fault, at, "snapshot list is newer than head");
	if (!head->snapshot_list_epoch &&
	    (head->snapshot_list_nonce || head->snapshot_newest))
		return format_bad(fault, at, "no snapshot list but a snapshot");
	if (head->snapshot_newest > head->epoch)
		return format_bad(fault, at + 16, "newest snapshot is newer than head");
	if (head->state == HEAD_DELETED && head->snapshot_list_epoch)
		return format_bad(fault, at, "a deleted volume has snapshots");
	return 0;
}

static int check_origins(const struct head *head, size_t at,
			 struct format_fault *fault)
{
	const struct origin *origin;
	unsigned int i;

	if (head->nr_origins > ORIGINS_MAX)
		return format_bad(fault, at, "%u origins, more than %u",
				  head->nr_origins, ORIGINS_MAX);
	if (head->state == HEAD_DELETED && head->nr_origins)
		return format_bad(fault, at, "a deleted volume has origins");
	for (i = 0; i < head->nr_origins; i++) {
		origin = &head->origins[i];
		if (!origin->epoch || origin->epoch > head->epoch)
			return format_bad(fault, at,
					  "epoch of origin %u is 0 or newer than head", i);
		if (i && origin->epoch <= origin[-1].epoch)
			return format_bad(fault, at, "origin %u is out of order", i);
		if (!origin_prefix_is_valid(origin->prefix))
			return format_bad(fault, at, "prefix of origin %u is none", i);
		at += ORIGIN_BYTES + strlen(origin->prefix);
	}
	return 0;
}

static int head_check(const struct head *head, const struct head_offsets *at,
		      struct format_fault *fault)
{
	int error = check_identity(head, at->of[SECTION_IDENTITY], fault);

	if (!error && (!head->epoch || head->epoch == UINT64_MAX))
		error = format_bad(fault, at->of[SECTION_COMMIT], "epoch is %s",
				   head->epoch ? "the last there is" : "0");
	if (!error)
		error = check_history(head, at->of[SECTION_HISTORY], fault);
	if (!error)
		error = check_root(head, at->of[SECTION_ROOT], fault);
	if (!error)
		error = check_recent(head, at->of[SECTION_RECENT], fault);
	if (!error)
		error = check_snapshots(head, at->of[SECTION_SNAPSHOTS], fault);
	if (!error)
		error = check_origins(head, at->of[SECTION_ORIGINS], fault);
	return error;
}

bool head_is_valid(const struct head *head, struct format_fault *fault)
{
	static const struct head_offsets nowhere;

	return head_check(head, &nowhere, fault) == 0;
}

/* ---- writing ------------------------------------------------------------------------ */

/* @text into a field of @size bytes, zero to its end: printable ASCII only. */
static void put_text(uint8_t *at, const char *text, size_t size)
{
	size_t i;

	for (i = 0; i + 1 < size && text[i]; i++)
		at[i] = text[i] >= ' ' && text[i] < 0x7f ? (uint8_t)text[i] : '?';
}

static void encode_identity(struct sections_out *out, const struct head *head)
{
	uint8_t *at;

	section_begin(out, SECTION_IDENTITY);
	at = section_add(out, IDENTITY_BYTES);
	memcpy(at, head->uuid, 16);
	put_u64(at + 16, head->created);
	put_u64(at + 24, head->size);
	put_u32(at + 32, head->chunk_size);
	put_u32(at + 36, head->frame_size);
	put_u32(at + 40, head->codec);
	put_u32(at + 44, head->state == HEAD_DELETED ? HEAD_DELETED : HEAD_LIVE);
	section_end(out);
}

static void encode_commit(struct sections_out *out, const struct head *head)
{
	uint8_t *at;

	section_begin(out, SECTION_COMMIT);
	at = section_add(out, COMMIT_BYTES);
	put_u64(at, head->epoch);
	put_u64(at + 8, head->writer);
	put_u64(at + 16, head->nonce);
	put_u64(at + 24, head->committed);
	put_u64(at + 32, head->sequence);
	section_end(out);
}

static void encode_holder(struct sections_out *out, const struct holder *holder)
{
	uint8_t *at;

	if (!holder->held)
		return;
	section_begin(out, SECTION_HOLDER);
	at = section_add(out, HOLDER_BYTES);
	put_u64(at, holder->since);
	put_u64(at + 8, holder->pid);
	put_u64(at + 16, holder->pid_namespace);
	put_u64(at + 24, holder->lock_device);
	put_u64(at + 32, holder->lock_inode);
	put_u32(at + 40, holder->journal ? HOLDER_JOURNAL : 0);
	put_text(at + 44, holder->host, sizeof holder->host);
	put_text(at + 108, holder->machine, sizeof holder->machine);
	put_text(at + 141, holder->boot, sizeof holder->boot);
	section_end(out);
}

static void encode_history(struct sections_out *out, const struct head *head)
{
	const struct past_writer *past = head->history;
	unsigned int i;
	uint8_t *at;

	if (!head->nr_history)
		return;
	section_begin(out, SECTION_HISTORY);
	for (i = 0; i < head->nr_history; i++) {
		at = section_add(out, HISTORY_BYTES);
		put_u64(at, past[i].writer);
		put_u64(at + 8, past[i].epoch);
		put_u64(at + 16, past[i].sequence);
	}
	section_end(out);
}

static void encode_map(struct sections_out *out, const struct head *head)
{
	uint32_t i;
	uint8_t *at;

	if (head->nr_root) {
		section_begin(out, SECTION_ROOT);
		for (i = 0; i < head->nr_root; i++)
			ref_encode(&head->root[i], section_add(out, REF_BYTES));
		section_end(out);
	}
	if (head->nr_recent) {
		section_begin(out, SECTION_RECENT);
		for (i = 0; i < head->nr_recent; i++) {
			at = section_add(out, RECENT_BYTES);
			put_u32(at, head->recent[i].chunk);
			ref_encode(&head->recent[i].ref, at + 4);
		}
		section_end(out);
	}
}

static void encode_snapshots(struct sections_out *out, const struct head *head)
{
	uint8_t *at;

	if (!head->snapshot_list_epoch)
		return;
	section_begin(out, SECTION_SNAPSHOTS);
	at = section_add(out, SNAPSHOTS_BYTES);
	put_u64(at, head->snapshot_list_epoch);
	put_u64(at + 8, head->snapshot_list_nonce);
	put_u64(at + 16, head->snapshot_newest);
	section_end(out);
}

static void encode_origins(struct sections_out *out, const struct head *head)
{
	const struct origin *origin = head->origins;
	unsigned int i;
	size_t length;
	uint8_t *at;

	if (!head->nr_origins)
		return;
	section_begin(out, SECTION_ORIGINS);
	for (i = 0; i < head->nr_origins; i++) {
		length = strlen(origin[i].prefix);
		at = section_add(out, ORIGIN_BYTES + length);
		put_u64(at, origin[i].epoch);
		put_u32(at + 8, (uint32_t)length);
		memcpy(at + ORIGIN_BYTES, origin[i].prefix, length);
	}
	section_end(out);
}

size_t head_encode(const struct head *head, uint8_t *bytes)
{
	struct sections_out out;
	struct format_fault fault;

	if (!head_is_valid(head, &fault)) {
		log_error("refusing to write a head that nobody could read: %s",
			  fault.what);
		abort();
	}
	sections_begin(&out, head_magic, bytes, HEAD_BYTES_MAX);
	encode_identity(&out, head);
	encode_commit(&out, head);
	encode_holder(&out, &head->holder);
	encode_history(&out, head);
	encode_map(&out, head);
	encode_snapshots(&out, head);
	encode_origins(&out, head);
	if (head->state == HEAD_INCOMPLETE) {
		section_begin(&out, SECTION_INCOMPLETE);
		section_end(&out);
	}
	return sections_end(&out);
}

/* ---- reading -------------------------------------------------------------------------- */

static int decode_identity(const struct section *section, struct head *head,
			   struct format_fault *fault)
{
	const uint8_t *at = section->payload;
	uint32_t state = get_u32(at + 44);

	memcpy(head->uuid, at, 16);
	head->created = get_u64(at + 16);
	head->size = get_u64(at + 24);
	head->chunk_size = get_u32(at + 32);
	head->frame_size = get_u32(at + 36);
	head->codec = get_u32(at + 40);
	if (state != HEAD_LIVE && state != HEAD_DELETED)
		return format_bad(fault, section->offset + 44, "unknown state %u",
				  state);
	head->state = (enum head_state)state;
	return 0;
}

static int decode_commit(const struct section *section, struct head *head,
			 struct format_fault *fault)
{
	const uint8_t *at = section->payload;

	head->epoch = get_u64(at);
	head->writer = get_u64(at + 8);
	head->nonce = get_u64(at + 16);
	head->committed = get_u64(at + 24);
	head->sequence = get_u64(at + 32);
	return 0;
}

/* A field of @size bytes: printable ASCII, then zeros, at least one. */
static bool get_text(const uint8_t *at, char *text, size_t size)
{
	size_t length = strnlen((const char *)at, size), i;

	if (length == size)
		return false;
	for (i = 0; i < size; i++)
		if (i < length ? at[i] < ' ' || at[i] >= 0x7f : at[i] != 0)
			return false;
	memcpy(text, at, size);
	return true;
}

static int decode_holder(const struct section *section, struct head *head,
			 struct format_fault *fault)
{
	const uint8_t *at = section->payload;
	struct holder *holder = &head->holder;
	uint32_t flags = get_u32(at + 40);

	holder->held = true;
	holder->since = get_u64(at);
	holder->pid = get_u64(at + 8);
	holder->pid_namespace = get_u64(at + 16);
	holder->lock_device = get_u64(at + 24);
	holder->lock_inode = get_u64(at + 32);
	holder->journal = flags & HOLDER_JOURNAL;
	if (flags & ~HOLDER_JOURNAL)
		return format_bad(fault, section->offset + 40,
				  "unknown flags of holder, %#x", flags);
	if (!get_text(at + 44, holder->host, sizeof holder->host))
		return format_bad(fault, section->offset + 44, "host of holder is no text");
	if (!get_text(at + 108, holder->machine, sizeof holder->machine))
		return format_bad(fault, section->offset + 108,
				  "machine id of holder is no text");
	if (!get_text(at + 141, holder->boot, sizeof holder->boot))
		return format_bad(fault, section->offset + 141,
				  "boot id of holder is no text");
	return 0;
}

static int decode_history(const struct section *section, struct head *head,
			  struct format_fault *fault)
{
	const uint8_t *at = section->payload;
	struct past_writer *past = head->history;

	for (; head->nr_history < section->length / HISTORY_BYTES;
	     head->nr_history++, past++, at += HISTORY_BYTES) {
		past->writer = get_u64(at);
		past->epoch = get_u64(at + 8);
		past->sequence = get_u64(at + 16);
	}
	return 0;
}

static int decode_root(const struct section *section, struct head *head,
		       struct format_fault *fault)
{
	uint32_t i;

	head->nr_root = section->length / REF_BYTES;
	for (i = 0; i < head->nr_root; i++)
		if (!ref_decode(section->payload + i * REF_BYTES, &head->root[i]))
			return format_bad(fault, section->offset + i * REF_BYTES,
					  "ref %u of root is none that a writer can "
					  "have meant", i);
	return 0;
}

static int decode_recent(const struct section *section, struct head *head,
			 struct format_fault *fault)
{
	const uint8_t *at = section->payload;
	unsigned int i;

	head->nr_recent = section->length / RECENT_BYTES;
	for (i = 0; i < head->nr_recent; i++, at += RECENT_BYTES) {
		head->recent[i].chunk = get_u32(at);
		if (!ref_decode(at + 4, &head->recent[i].ref))
			return format_bad(fault, section->offset + i * RECENT_BYTES + 4,
					  "recent ref %u is none that a writer can "
					  "have meant", i);
	}
	return 0;
}

static int decode_snapshots(const struct section *section, struct head *head,
			    struct format_fault *fault)
{
	const uint8_t *at = section->payload;

	head->snapshot_list_epoch = get_u64(at);
	head->snapshot_list_nonce = get_u64(at + 8);
	head->snapshot_newest = get_u64(at + 16);
	if (!head->snapshot_list_epoch)
		return format_bad(fault, section->offset,
				  "section snapshots without a list");
	return 0;
}

static int decode_origins(const struct section *section, struct head *head,
			  struct format_fault *fault)
{
	const uint8_t *at = section->payload;
	size_t left = section->length, length;
	struct origin *origin;

	while (left) {
		if (left < ORIGIN_BYTES || head->nr_origins == ORIGINS_MAX)
			break;
		length = get_u32(at + 8);
		if (length > ORIGIN_PREFIX_MAX || length > left - ORIGIN_BYTES ||
		    memchr(at + ORIGIN_BYTES, 0, length))
			break;
		origin = &head->origins[head->nr_origins++];
		origin->epoch = get_u64(at);
		memcpy(origin->prefix, at + ORIGIN_BYTES, length);
		at += ORIGIN_BYTES + length;
		left -= ORIGIN_BYTES + length;
	}
	if (left)
		return format_bad(fault, section->offset + section->length - left,
				  "origin %u is cut, too long or one too many",
				  head->nr_origins);
	return 0;
}

static int decode_incomplete(const struct section *section, struct head *head,
			     struct format_fault *fault)
{
	if (head->state != HEAD_LIVE)
		return format_bad(fault, section->offset,
				  "a deleted volume is marked incomplete");
	head->state = HEAD_INCOMPLETE;
	return 0;
}

/* Each section: its length is a multiple of @unit, between @least and @most. */
static const struct section_rule {
	uint32_t unit, least, most;
	int (*decode)(const struct section *section, struct head *head,
		      struct format_fault *fault);
} rules[NR_HEAD_SECTIONS] = {
	[SECTION_IDENTITY] = { 1, IDENTITY_BYTES, IDENTITY_BYTES, decode_identity },
	[SECTION_COMMIT] = { 1, COMMIT_BYTES, COMMIT_BYTES, decode_commit },
	[SECTION_HOLDER] = { 1, HOLDER_BYTES, HOLDER_BYTES, decode_holder },
	[SECTION_HISTORY] = { HISTORY_BYTES, HISTORY_BYTES,
			      HISTORY_BYTES * HISTORY_MAX, decode_history },
	[SECTION_ROOT] = { REF_BYTES, REF_BYTES, REF_BYTES * NODE_REFS, decode_root },
	[SECTION_RECENT] = { RECENT_BYTES, RECENT_BYTES, RECENT_BYTES * RECENT_MAX,
			     decode_recent },
	[SECTION_SNAPSHOTS] = { 1, SNAPSHOTS_BYTES, SNAPSHOTS_BYTES,
				decode_snapshots },
	[SECTION_ORIGINS] = { 1, ORIGIN_BYTES,
			      ORIGINS_MAX * (ORIGIN_BYTES + ORIGIN_PREFIX_MAX),
			      decode_origins },
	[SECTION_INCOMPLETE] = { 1, 0, 0, decode_incomplete },
};

static int decode_section(const struct section *section, unsigned int before,
			  struct head *head, struct head_offsets *offsets,
			  struct format_fault *fault)
{
	const struct section_rule *rule;
	size_t at = section->offset - SECTION_HEADER_BYTES;

	if (section->type <= before)
		return format_bad(fault, at, "section of type %u after one of type %u",
				  section->type, before);
	if (section->type >= NR_HEAD_SECTIONS) {
		if (!(section->flags & SECTION_MUST))
			return 0;
		format_bad(fault, at, "section of type %u, which a newer objmap wrote "
			   "and this one must not ignore", section->type);
		return -ENOTSUP;
	}
	rule = &rules[section->type];
	if (!(section->flags & SECTION_MUST))
		return format_bad(fault, at + 2, "section %s is not marked must",
				  section_names[section->type]);
	if (section->length < rule->least || section->length > rule->most ||
	    section->length % rule->unit)
		return format_bad(fault, at + 4, "section %s cannot have %u bytes",
				  section_names[section->type], section->length);
	offsets->of[section->type] = section->offset;
	return rule->decode(section, head, fault);
}

int head_decode(const void *bytes, size_t count, struct head *head,
		struct format_fault *fault)
{
	struct sections_in in;
	struct section section;
	struct head_offsets offsets = { 0 };
	unsigned int before = 0;
	int more;

	memset(head, 0, sizeof *head);
	if (count > HEAD_BYTES_MAX)
		return format_bad(fault, HEAD_BYTES_MAX, "longer than %u bytes",
				  HEAD_BYTES_MAX);
	more = sections_open(&in, head_magic, bytes, count, fault);
	if (more)
		return more;
	while ((more = sections_next(&in, &section, fault)) > 0) {
		more = decode_section(&section, before, head, &offsets, fault);
		if (more)
			return more;
		before = section.type;
	}
	if (more)
		return more;
	if (!offsets.of[SECTION_IDENTITY] || !offsets.of[SECTION_COMMIT])
		return format_bad(fault, count, "no section %s",
				  section_names[offsets.of[SECTION_IDENTITY] ?
						SECTION_COMMIT : SECTION_IDENTITY]);
	return head_check(head, &offsets, fault);
}

/* ---- keys of what a head refers to ------------------------------------------------------- */

/* Writes the prefix under which an object of @epoch lies, and returns its length. */
static size_t origin_of(const struct head *head, uint64_t epoch, char *key)
{
	unsigned int i;

	for (i = 0; i < head->nr_origins; i++)
		if (epoch <= head->origins[i].epoch)
			return (size_t)snprintf(key, VOLUME_KEY_MAX, "/%s/",
						head->origins[i].prefix);
	return 0;
}

static void join(const struct head *head, uint64_t epoch, const char *name,
		 char *key)
{
	size_t length = origin_of(head, epoch, key);

	assert(length + strlen(name) < VOLUME_KEY_MAX);
	strcpy(key + length, name);
}

void head_chunk_key(const struct head *head, uint32_t index,
		    const struct ref *ref, char *key)
{
	char name[VOLUME_KEY_MAX];

	key_chunk(name, index, ref->epoch, ref->writer);
	join(head, ref->epoch, name, key);
}

void head_node_key(const struct head *head, unsigned int level, uint32_t node,
		   const struct ref *ref, char *key)
{
	char name[VOLUME_KEY_MAX];

	key_node(name, level, node, ref->epoch, ref->writer);
	join(head, ref->epoch, name, key);
}
