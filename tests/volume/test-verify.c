/* test-verify.c: walking a map and verifying a volume: all of it is looked at,
 * once, and every fault is named. */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>

#include "tests/store/fault_store.h"
#include "tests/store/given.h"
#include "tests/volume/images.h"

static struct fault *fault;
static struct image image;

static void setup_size(uint64_t nr_chunks)
{
	struct store *client;

	log_open("/dev/null", LOG_LEVEL_ERROR);
	fault = fault_open(given_store_or_mem());
	client = fault_client(fault);
	atomic_store(&client->retry_for, 0);
	image_new(&image, client, nr_chunks);
}

static void setup(void)
{
	setup_size(3000);	/* three leaves below the root */
}

static void teardown(void)
{
	store_close(image.store);
	fault_close(fault);
}

/* ---- walking --------------------------------------------------------------------- */

static char walked[4096];

static int note_chunk(void *context, uint32_t chunk, const struct ref *ref)
{
	size_t length = strlen(walked);

	snprintf(walked + length, sizeof(walked) - length, "%u@%llu ", chunk,
		 (unsigned long long)ref->epoch);
	return chunk == *(uint32_t *)context ? -77 : 0;
}

static int walk_noting(uint32_t stop_at)
{
	walked[0] = 0;
	return volume_walk(image.store, &image.stored.head, note_chunk, &stop_at, NULL);
}

static void commit_leaf(void)
{
	struct ref refs[3] = { [0] = image_chunk(&image, 1025, 1),
			       [2] = image_chunk(&image, 1027, 2) };

	image.next.root[1] = image_node(&image, 0, 1, 1, refs, 3);
	image_commit(&image);
}

Test(walk, goes_over_all_chunks_in_order_recent_ones_first_of_all,
     .init = setup, .fini = teardown)
{
	commit_leaf();
	image_write(&image, 7, 3);		/* in a hole's subtree */
	image_write(&image, 1026, 4);		/* a hole of a node */
	image_write(&image, 1027, 5);		/* a chunk of a node */
	image_write(&image, 2999, 6);
	image_commit(&image);
	image_recent(&image, 1025, (struct ref){ 0 });	/* becomes a hole */
	image_commit(&image);
	cr_assert_eq(walk_noting(0), 0);
	cr_assert_str_eq(walked, "7@3 1026@3 1027@3 2999@3 ");
}

Test(walk, stops_where_it_is_told_to, .init = setup, .fini = teardown)
{
	commit_leaf();
	cr_assert_eq(walk_noting(1025), -77);
	cr_assert_str_eq(walked, "1025@2 ");
}

Test(walk, goes_through_two_levels, .fini = teardown)
{
	struct ref chunk, nodes[2];

	setup_size((1u << 20) + 5000);
	chunk = image_chunk(&image, 3, 1);
	nodes[0] = image_node(&image, 0, 0, 3, &chunk, 1);
	image.next.root[0] = image_node(&image, 1, 0, 0, nodes, 1);
	chunk = image_chunk(&image, (1u << 20) + 1024 + 5, 2);
	nodes[0] = (struct ref){ 0 };
	nodes[1] = image_node(&image, 0, 1025, 5, &chunk, 1);
	image.next.root[1] = image_node(&image, 1, 1, 0, nodes, 2);
	image_write(&image, (1u << 20) + 9, 3);
	image_commit(&image);
	cr_assert_eq(walk_noting(0), 0);
	cr_assert_str_eq(walked, "3@2 1048585@2 1049605@2 ");
}

Test(walk, a_missing_node_is_never_a_hole, .init = setup, .fini = teardown)
{
	char key[VOLUME_KEY_MAX];

	commit_leaf();
	head_node_key(&image.stored.head, 0, 1, &image.stored.head.root[1], key);
	image_delete(image.store, key);
	cr_assert_eq(walk_noting(0), -EIO);
}

Test(walk, a_node_that_went_because_head_moved_on_says_so,
     .init = setup, .fini = teardown)
{
	char key[VOLUME_KEY_MAX];
	struct image reader;

	commit_leaf();
	reader = image;
	image.next.root[1] = (struct ref){ 0 };
	image_commit(&image);
	head_node_key(&reader.stored.head, 0, 1, &reader.stored.head.root[1], key);
	image_delete(image.store, key);
	image.stored = reader.stored;
	cr_assert_eq(walk_noting(0), -ESTALE);
}

/* ---- verifying ------------------------------------------------------------------------- */

static struct verify_result result;
static char told[4096];

static void note_fault(void *context, const char *key, const char *what)
{
	size_t length = strlen(told);

	snprintf(told + length, sizeof(told) - length, "%s: %s\n", key, what);
}

static int verify(struct verify_options *options)
{
	options->fault = note_fault;
	told[0] = 0;
	return volume_verify(image.store, options, &result);
}

static int verify_all(void)
{
	struct verify_options options = { 0 };

	return verify(&options);
}

/* Changes one byte of the object of @key, whose metadata stays. */
static void damage(const char *key, size_t at)
{
	static uint8_t bytes[IMAGE_CHUNK];
	struct iovec iov = { bytes, sizeof(bytes) };
	struct store_request get = { .key = key, .whole = true,
				     .count = sizeof(bytes), .iov = &iov, .nr_iov = 1 };

	cr_assert_eq(store_wait(image.store, STORE_GET, &get), STORE_DONE);
	bytes[at] ^= 0x10;
	image_put(image.store, key, bytes, get.reply.count, &get.reply.metadata);
}

Test(verify, a_good_volume_has_no_faults_and_all_of_it_was_read,
     .init = setup, .fini = teardown)
{
	commit_leaf();
	image_write(&image, 7, 3);
	image_commit(&image);
	fault_count_reset(fault);
	cr_assert_eq(verify_all(), 0, "%s", told);
	cr_assert_eq(result.chunks, 3);
	cr_assert_eq(result.nodes, 1);
	cr_assert_eq(result.bytes, 3 * IMAGE_CHUNK);
	cr_assert_eq(fault_count(fault, STORE_GET, "chunk/"), 3);
}

Test(verify, what_snapshots_share_is_read_once, .init = setup, .fini = teardown)
{
	commit_leaf();
	cr_assert_eq(volume_snapshot_create(image.store, "one", NULL), 0);
	image_begin(&image);
	image_write(&image, 1025, 9);
	image_commit(&image);
	cr_assert_eq(volume_snapshot_create(image.store, "two", NULL), 0);
	fault_count_reset(fault);
	cr_assert_eq(verify_all(), 0, "%s", told);
	cr_assert_eq(result.chunks, 3);
	cr_assert_eq(fault_count(fault, STORE_GET, "chunk/"), 3);
}

Test(verify, one_snapshot_is_all_that_is_read_when_asked, .init = setup,
     .fini = teardown)
{
	struct verify_options options = { .snapshot = "one" };
	char key[VOLUME_KEY_MAX];

	commit_leaf();
	cr_assert_eq(volume_snapshot_create(image.store, "one", NULL), 0);
	image_begin(&image);
	image_write(&image, 1025, 9);
	image_commit(&image);
	head_chunk_key(&image.stored.head, 1025, &image.stored.head.recent[0].ref, key);
	image_delete(image.store, key);
	cr_assert_eq(verify(&options), 0, "%s", told);
	cr_assert_eq(result.chunks, 2);
	cr_assert_eq(verify_all(), -EBADMSG);
	options.snapshot = "none";
	cr_assert_eq(verify(&options), -ENOENT);
}

Test(verify, of_maps_only_reads_no_chunk, .init = setup, .fini = teardown)
{
	struct verify_options options = { .metadata_only = true };

	commit_leaf();
	fault_count_reset(fault);
	cr_assert_eq(verify(&options), 0);
	cr_assert_eq(fault_count(fault, STORE_GET, "chunk/"), 0);
	cr_assert_eq(result.nodes, 1);
}

Test(verify, every_fault_is_named_and_the_rest_is_read,
     .init = setup, .fini = teardown)
{
	const struct recent_ref *recent = image.stored.head.recent;
	char keys[6][VOLUME_KEY_MAX];
	struct store_metadata metadata = { 0 };
	unsigned int i;

	for (i = 0; i < 6; i++)
		image_write(&image, i, i);
	image_commit(&image);
	for (i = 0; i < 6; i++)
		head_chunk_key(&image.stored.head, i, &recent[i].ref, keys[i]);
	image_delete(image.store, keys[0]);
	damage(keys[1], 1234);
	image_put(image.store, keys[2], "short", 5, &metadata);
	image_put(image.store, keys[3], image.store, 0, NULL);
	cr_assert_eq(verify_all(), -EBADMSG);
	cr_assert_eq(result.chunks, 6);
	cr_assert_eq(result.faults, 4, "%s", told);
	cr_assert(strstr(told, "chunk/00/00000000-"));
	cr_assert(strstr(told, ": missing"));
	cr_assert(strstr(told, "frame 0 (bytes 0 to 65536) has CRC32C"));
	cr_assert(strstr(told, "is 5 bytes long, not 65536"));
}

/* Puts chunk 0 again with other metadata. */
static void with_metadata(const char *uuid, const char *frames)
{
	const struct recent_ref *recent = image.stored.head.recent;
	static const uint8_t zeros[IMAGE_CHUNK];
	struct store_metadata metadata = { 0 };
	char key[VOLUME_KEY_MAX];

	if (uuid)
		store_metadata_add(&metadata, METADATA_VOLUME, uuid);
	if (frames)
		store_metadata_add(&metadata, METADATA_FRAMES, frames);
	head_chunk_key(&image.stored.head, 0, &recent[0].ref, key);
	image_put(image.store, key, zeros, sizeof(zeros), &metadata);
}

Test(verify, metadata_that_does_not_belong_is_a_fault, .init = setup,
     .fini = teardown)
{
	char uuid[37];

	image_write(&image, 0, 1);
	image_commit(&image);
	uuid_format(image.stored.head.uuid, uuid);
	with_metadata(NULL, "AAABAAAAAAA=");
	cr_assert(verify_all() == -EBADMSG && strstr(told, "no metadata objmap-volume"));
	with_metadata("01234567-89ab-cdef-fedc-ba9876543210", "AAABAAAAAAA=");
	cr_assert(verify_all() == -EBADMSG && strstr(told, "belongs to volume 0123"));
	with_metadata(uuid, NULL);
	cr_assert(verify_all() == -EBADMSG && strstr(told, "no metadata objmap-frames"));
	with_metadata(uuid, "AAABAAAAAAA");
	cr_assert(verify_all() == -EBADMSG && strstr(told, "frame table that is none"));
	with_metadata(uuid, "AAABAAAAAAA=");
	cr_assert(verify_all() == -EBADMSG && strstr(told, "its ref says"));
}

Test(verify, faults_of_nodes_are_named_once, .init = setup, .fini = teardown)
{
	char key[VOLUME_KEY_MAX];

	commit_leaf();
	image_write(&image, 7, 3);
	image_commit(&image);
	head_node_key(&image.stored.head, 0, 1, &image.stored.head.root[1], key);
	damage(key, 100);
	cr_assert_eq(verify_all(), -EBADMSG);
	cr_assert(strstr(told, "map/0/00000001-") && strstr(told, "its ref says"));
	cr_assert_eq(result.faults, 1);
	cr_assert_eq(result.chunks, 1);		/* the recent one */
	image_delete(image.store, key);
	cr_assert_eq(verify_all(), -EBADMSG);
	cr_assert(strstr(told, ": missing"));
}

Test(verify, a_node_that_comes_wrong_once_is_no_fault, .init = setup, .fini = teardown)
{
	static const enum fault_kind kinds[] = { FAULT_CORRUPT, FAULT_TRUNCATE };
	size_t i;

	commit_leaf();
	for (i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
		fault_add(fault, &(struct fault_rule){ .op = STORE_GET,
			.prefix = "map/", .kind = kinds[i], .times = 1 });
		cr_assert_eq(verify_all(), 0, "kind %d: %s", kinds[i], told);
		cr_assert_eq(result.chunks, 2);
	}
}

Test(verify, what_cannot_be_read_is_told_with_the_reason, .init = setup,
     .fini = teardown)
{
	commit_leaf();
	fault_add(fault, &(struct fault_rule){ .op = STORE_GET, .prefix = "chunk/",
		.kind = FAULT_FAIL, .error = -EKEYEXPIRED });
	cr_assert_eq(verify_all(), -EBADMSG);
	cr_assert(strstr(told, "cannot be read: the credentials have expired"), "%s", told);
}

Test(verify, a_snapshot_whose_body_or_list_is_gone_is_a_fault,
     .init = setup, .fini = teardown)
{
	struct snapshot_list list;
	char key[VOLUME_KEY_MAX];

	cr_assert_eq(volume_snapshot_create(image.store, "one", NULL), 0);
	image_begin(&image);
	cr_assert_eq(snapshots_read(image.store, &image.stored.head, &list), 0);
	key_snapshot_body(key, list.snapshots[0].body_epoch,
			  list.snapshots[0].body_nonce);
	damage(key, 50);
	cr_assert(verify_all() == -EBADMSG &&
		  strstr(told, "the body of snapshot one is damaged"));
	image_delete(image.store, key);
	cr_assert(verify_all() == -EBADMSG &&
		  strstr(told, "the body of snapshot one is missing"));
	snapshot_list_free(&list);
	key_snapshot_list(key, image.stored.head.snapshot_list_epoch,
			  image.stored.head.snapshot_list_nonce);
	image_delete(image.store, key);
	cr_assert(verify_all() == -EBADMSG &&
		  strstr(told, "the list of snapshots is missing"));
}

Test(verify, a_damaged_head_is_a_fault_and_a_missing_one_no_volume,
     .init = setup, .fini = teardown)
{
	damage(KEY_HEAD, 60);
	cr_assert(verify_all() == -EBADMSG && strstr(told, "head: damaged"));
	image_delete(image.store, KEY_HEAD);
	cr_assert_eq(verify_all(), -ENOENT);
}
