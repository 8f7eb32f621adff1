/* export.h: what is served: a place opened as a pipeline, with a name. */
#ifndef OBJMAP_EXPORT_H
#define OBJMAP_EXPORT_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "src/place.h"
#include "src/stage/stage.h"
#include "src/volume/volume.h"

struct export_options {
	bool read_only;
	bool writable;			/* s3+object */
	uint64_t dirty_limit;		/* bytes; 0: its own */
	unsigned int max_requests;	/* doorway's limits; 0: default */
	uint64_t max_bytes;
	uint32_t block_size;		/* preferred block size told to clients; 0: the stage's */
	const char *description;	/* NULL: the place */
	struct store_open_options store;
	struct volume_options volume;	/* writable is set by read_only */
};

struct export {
	char *name;			/* NBD export name; "" is the default one */
	char *description;
	struct place place;
	struct stage *stage;		/* the top: arbitrary */
	struct volume *volume;		/* NULL: a plain device */
	bool read_only;
	uint32_t minimum_block, preferred_block, maximum_block;	/* bytes */
	atomic_uint nr_clients;
	struct export *next;		/* of the same server */
};

/* Opens @place direct: backend, chunked where it has units, arbitrary.  The
 * reason of a failure has been logged. */
int export_open(const struct place *place, const char *name,
		const struct export_options *options, struct export **export);

/* Puts chunked, where @backend has units, and arbitrary on it: *@top takes any byte
 * range.  On failure @backend is closed; logged. */
int export_stages(struct stage *backend, struct stage **top);

/* From now on its store or server is tried again for @retry_for ns when it fails for
 * a while; UINT64_MAX: without end.  Nothing where there is none. */
void export_set_retry_for(struct export *export, uint64_t retry_for);

/* Starts a push of what is dirty and does not wait for it. */
void export_start_push(struct export *export);

/* Refuses new requests, waits for those in flight. */
void export_drain(struct export *export);

/* Commits what is dirty.  0, or the reason why not (-ESTALE: it is lost to somebody
 * else). */
int export_flush(struct export *export);

/* Of one that is lost: keeps what is unsaved in the state folder, once; closing does
 * it, too.  0, or -errno, logged: then it can be tried again. */
int export_keep_unsaved(struct export *export);

/* After export_drain(): what of closing waits for a store, which status can still tell
 * about meanwhile.  Closing does it, too. */
void export_release(struct export *export);

/* After export_drain(): closes every stage, top first. */
void export_close(struct export *export);

#endif
