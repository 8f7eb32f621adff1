/* snapshot_list.c: the list of a volume's snapshots and clones as bytes.
 *
 * An envelope (sections.h) with a section for each entry, in the order they
 * were made: type 1 a snapshot with a name, type 2 a clone. */
#include "src/volume/sections.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "src/volume/bytes.h"

static const char list_magic[8] = "OBJMSNAP";

/* 5 u64, u16 length of the name, u16 length of the prefix, and both texts. */
#define ENTRY_BYTES 44u

bool snapshot_name_is_valid(const char *name)
{
	size_t length = strnlen(name, SNAPSHOT_NAME_MAX + 1);

	return length && length <= SNAPSHOT_NAME_MAX &&
	       text_is_printable(name, length) && !strpbrk(name, "/@");
}

static int by_name(const void *a, const void *b)
{
	const struct snapshot *const *x = a, *const *y = b;

	return strcmp((*x)->name, (*y)->name);
}

/* 0, or -EEXIST when two snapshots have one name, or -ENOMEM. */
static int check_names(const struct snapshot_list *list)
{
	const struct snapshot **named;
	unsigned int nr = 0, i;
	int error = 0;

	if (!list->nr)
		return 0;
	named = malloc(list->nr * sizeof *named);
	if (!named)
		return -ENOMEM;
	for (i = 0; i < list->nr; i++)
		if (list->snapshots[i].kind == SNAPSHOT_NAMED)
			named[nr++] = &list->snapshots[i];
	qsort(named, nr, sizeof *named, by_name);
	for (i = 1; i < nr; i++)
		if (!strcmp(named[i - 1]->name, named[i]->name))
			error = -EEXIST;
	free(named);
	return error;
}

/* What is wrong with an entry, or NULL. */
static const char *entry_fault(const struct snapshot *entry)
{
	if (!entry->epoch || !entry->size)
		return "has no epoch or no size";
	if (entry->body_epoch <= entry->epoch)
		return "has a body that is not newer than its head";
	if (!snapshot_name_is_valid(entry->name))
		return "has a name that cannot be";
	if (entry->kind == SNAPSHOT_CLONE ? !origin_prefix_is_valid(entry->prefix)
					  : entry->prefix[0] != 0)
		return "has a prefix that cannot be";
	return NULL;
}

/* ---- writing -------------------------------------------------------------------- */

static void encode_entry(struct sections_out *out, const struct snapshot *entry)
{
	size_t name = strlen(entry->name), prefix = strlen(entry->prefix);
	uint8_t *at;

	section_begin(out, entry->kind);
	at = section_add(out, ENTRY_BYTES + name + prefix);
	put_u64(at, entry->epoch);
	put_u64(at + 8, entry->body_epoch);
	put_u64(at + 16, entry->body_nonce);
	put_u64(at + 24, entry->created);
	put_u64(at + 32, entry->size);
	put_u16(at + 40, (uint16_t)name);
	put_u16(at + 42, (uint16_t)prefix);
	memcpy(at + ENTRY_BYTES, entry->name, name);
	memcpy(at + ENTRY_BYTES + name, entry->prefix, prefix);
	section_end(out);
}

int snapshot_list_encode(const struct snapshot_list *list, void **bytes,
			 size_t *count)
{
	size_t room = SECTIONS_HEADER_BYTES + SECTIONS_CRC_BYTES;
	const struct snapshot *entry;
	struct sections_out out;
	unsigned int i;
	int error;

	for (i = 0; i < list->nr; i++) {
		entry = &list->snapshots[i];
		if ((entry->kind != SNAPSHOT_NAMED && entry->kind != SNAPSHOT_CLONE) ||
		    entry_fault(entry))
			return -EINVAL;
		room += SECTION_BYTES(ENTRY_BYTES + strlen(entry->name) +
				      strlen(entry->prefix));
	}
	if (room > SNAPSHOT_LIST_BYTES_MAX)
		return -E2BIG;
	error = check_names(list);
	if (error)
		return error;
	*bytes = malloc(room);
	if (!*bytes)
		return -ENOMEM;
	sections_begin(&out, list_magic, *bytes, room);
	for (i = 0; i < list->nr; i++)
		encode_entry(&out, &list->snapshots[i]);
	*count = sections_end(&out);
	return 0;
}

/* ---- reading --------------------------------------------------------------------- */

static int decode_entry(const struct section *section, struct snapshot *entry,
			struct format_fault *fault)
{
	const uint8_t *at = section->payload;
	size_t name, prefix;
	const char *wrong;

	memset(entry, 0, sizeof *entry);
	if (section->length < ENTRY_BYTES)
		return format_bad(fault, section->offset, "an entry of %u bytes",
				  section->length);
	name = get_u16(at + 40);
	prefix = get_u16(at + 42);
	if (name > SNAPSHOT_NAME_MAX || prefix > ORIGIN_PREFIX_MAX ||
	    section->length != ENTRY_BYTES + name + prefix ||
	    memchr(at + ENTRY_BYTES, 0, name + prefix))
		return format_bad(fault, section->offset + 40,
				  "an entry of %u bytes with a name of %zu and a prefix "
				  "of %zu", section->length, name, prefix);
	entry->kind = (enum snapshot_kind)section->type;
	entry->epoch = get_u64(at);
	entry->body_epoch = get_u64(at + 8);
	entry->body_nonce = get_u64(at + 16);
	entry->created = get_u64(at + 24);
	entry->size = get_u64(at + 32);
	memcpy(entry->name, at + ENTRY_BYTES, name);
	memcpy(entry->prefix, at + ENTRY_BYTES + name, prefix);
	wrong = entry_fault(entry);
	if (wrong)
		return format_bad(fault, section->offset, "an entry %s", wrong);
	return 0;
}

/* Room for one more entry, or NULL. */
static struct snapshot *list_grow(struct snapshot_list *list)
{
	struct snapshot *larger;

	if (!(list->nr & (list->nr - 1))) {	/* full at each power of two */
		larger = realloc(list->snapshots,
				 (list->nr ? 2 * (size_t)list->nr : 1) * sizeof *larger);
		if (!larger)
			return NULL;
		list->snapshots = larger;
	}
	return &list->snapshots[list->nr];
}

static int decode_entries(struct sections_in *in, struct snapshot_list *list,
			  struct format_fault *fault)
{
	struct section section;
	struct snapshot *entry;
	int more;

	while ((more = sections_next(in, &section, fault)) > 0) {
		if (section.type != SNAPSHOT_NAMED && section.type != SNAPSHOT_CLONE) {
			if (!(section.flags & SECTION_MUST))
				continue;
			format_bad(fault, section.offset - SECTION_HEADER_BYTES,
				   "section of type %u, which a newer objmap wrote and "
				   "this one must not ignore", section.type);
			return -ENOTSUP;
		}
		if (!(section.flags & SECTION_MUST))
			return format_bad(fault, section.offset - 6,
					  "an entry is not marked must");
		entry = list_grow(list);
		if (!entry)
			return -ENOMEM;
		more = decode_entry(&section, entry, fault);
		if (more)
			return more;
		list->nr++;
	}
	return more;
}

int snapshot_list_decode(const void *bytes, size_t count,
			 struct snapshot_list *list, struct format_fault *fault)
{
	struct sections_in in;
	int error;

	*list = (struct snapshot_list){ 0 };
	if (count > SNAPSHOT_LIST_BYTES_MAX)
		return format_bad(fault, SNAPSHOT_LIST_BYTES_MAX,
				  "longer than %u bytes", SNAPSHOT_LIST_BYTES_MAX);
	error = sections_open(&in, list_magic, bytes, count, fault);
	if (!error)
		error = decode_entries(&in, list, fault);
	if (!error)
		error = check_names(list);
	if (error == -EEXIST)
		error = format_bad(fault, SECTIONS_HEADER_BYTES,
				   "two snapshots have the same name");
	if (error)
		snapshot_list_free(list);
	return error;
}

void snapshot_list_free(struct snapshot_list *list)
{
	free(list->snapshots);
	*list = (struct snapshot_list){ 0 };
}
