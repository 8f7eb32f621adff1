/* keep.c: writes that a lost object could not take are kept aside, not dropped.
 *
 * STATE/object-HASH/unsaved-TIME/bytes holds one range after the other, and `index`, a
 * text, says where each belongs. */
#include <errno.h>
#include <inttypes.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "backends/object/object.h"
#include "src/aside.h"
#include "src/log.h"
#include "src/units.h"

#define PIECE (1u << 20)

static int copy_range(const struct dirty_range *range, struct aside *aside, char *buffer)
{
	uint64_t done = 0, count = range->end - range->start;

	while (done < count) {
		struct iovec iov = { buffer, count - done < PIECE ? count - done : PIECE };
		int error = spill_read(range->spill, range->at + done, &iov, 1);

		if (!error)
			error = aside_write(aside, buffer, iov.iov_len);
		if (error)
			return error;
		done += iov.iov_len;
	}
	return 0;
}

/* Both maps are one by now, or the upper lies in `open`, the lower in `sealed`: as
 * their order of reading says, the lower is written first. */
static int save_map(const struct dirty_map *map, struct aside *aside, char *buffer)
{
	struct dirty_range range;
	uint64_t offset = 0;
	int error = 0;

	for (; !error && dirty_next(map, offset, &range); offset = range.end) {
		uint64_t count = range.end - range.start;

		if (!range.spill) {
			fprintf(aside->index, "zero %" PRIu64 " %" PRIu64 "\n",
				range.start, count);
			continue;
		}
		fprintf(aside->index, "bytes %" PRIu64 " %" PRIu64 " %" PRIu64 "\n",
			range.start, count, aside->position);
		error = copy_range(&range, aside, buffer);
	}
	return error;
}

static int save_all(struct object *object, struct aside *aside)
{
	char *buffer = malloc(PIECE);
	int error;

	if (!buffer)
		return -ENOMEM;
	fprintf(aside->index, "objmap unsaved 1\nplace %s\netag %s\nsize %" PRIu64 "\n",
		object->place, object->tag, stage_size(&object->stage));
	error = save_map(&object->sealed, aside, buffer);
	if (!error)
		error = save_map(&object->open, aside, buffer);
	if (!error)
		fprintf(aside->index, "end\n");
	free(buffer);
	return error;
}

/* "object-HASH": the hash of the place, 16 hexadecimal digits. */
static int name_owner(const struct object *object, char name[32])
{
	unsigned char hash[32];
	int length = sprintf(name, "object-");

	if (EVP_Digest(object->place, strlen(object->place), hash, NULL, EVP_sha256(),
		       NULL) != 1)
		return -EIO;
	for (int i = 0; i < 8; i++)
		length += sprintf(name + length, "%02x", hash[i]);
	return 0;
}

/* Whether there is something to keep, and nothing more can come. */
static bool has_unsaved(struct object *object)
{
	bool unsaved;

	pthread_mutex_lock(&object->lock);
	unsaved = object->lost && !object->kept_aside;
	if (unsaved)
		atomic_store(&object->stop, true);	/* nothing is published any more */
	while (unsaved && (object->publishing || spill_has_writers(object->spills) ||
			   spill_has_writers(object->sealed_spills)))
		pthread_cond_wait(&object->wake, &object->lock);
	unsaved = unsaved && (object->open.nr || object->sealed.nr);
	pthread_mutex_unlock(&object->lock);
	return unsaved;
}

int object_keep_unsaved(struct stage *stage)
{
	struct object *object = (struct object *)stage;
	char owner[32], name[48], kept[UNITS_TEXT];
	struct aside aside;
	int error;

	if (!has_unsaved(object))
		return 0;
	snprintf(name, sizeof(name), "unsaved-%llu", (unsigned long long)time(NULL));
	error = name_owner(object, owner);
	if (!error) {
		error = aside_open(&aside, object->state, owner, name, "bytes");
		if (!error)
			error = save_all(object, &aside);
		error = aside_close(&aside, error);
	}
	if (error) {
		log_error("%s: unsaved writes could not be kept below %s: %s",
			  object->place, object->state, strerror(-error));
		return error;
	}
	log_error("%s: %s of unsaved writes were kept in %s; its index says where each range belongs",
		  object->place, size_format(aside.position, kept), aside.folder);
	pthread_mutex_lock(&object->lock);
	object->kept_aside = true;
	pthread_mutex_unlock(&object->lock);
	return 0;
}
