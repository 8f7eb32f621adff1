/* volume.h: a volume as the rest of objmap sees it.
 *
 * A volume is a device of a fixed size in a store: one immutable object per
 * chunk, a tree of map nodes that says which object is which chunk, and a head
 * that is only ever replaced by compare-and-swap.  A commit is data in
 * parallel, then one swap.  The protocol is in objmap-volume(5).
 *
 * Who writes a volume has claimed it (volume_open); who lost the claim to
 * another is fenced: reads go on, dirty data is kept, flushes fail with
 * -ESTALE.  Functions that take a struct store * wait for it, log what went
 * wrong once, with what to do, and return a negative errno.
 */
#ifndef OBJMAP_VOLUME_H
#define OBJMAP_VOLUME_H

#include "backends/store/store.h"
#include "src/stage/stage.h"
#include "src/volume/format.h"

struct volume;

struct volume_create_options {
	uint64_t size;		/* bytes, >= 1 */
	uint32_t chunk_size;	/* 0: CHUNK_SIZE_DEFAULT */
	bool incomplete;	/* begins as a copy that is not finished */
	bool exclusive;		/* though the store fails the probe */
};
/* Makes a volume that reads as zeros.  -EEXIST: there is one (a tombstone is
 * taken over).  -EINVAL: sizes that cannot be.  -EOPNOTSUPP: a store without
 * conditional puts. */
int volume_create(struct store *store,
		  const struct volume_create_options *options);

enum volume_durability { DURABILITY_REMOTE, DURABILITY_JOURNAL, DURABILITY_NONE };

struct volume_options {
	bool writable;
	const char *snapshot;	/* read-only: this one; NULL: the last commit */
	bool take_over;		/* claim it though somebody else holds it */
	bool abandon_journal;	/* ... though he keeps a journal elsewhere */
	bool exclusive;		/* the store failed the probe; the user's word that
				 * nobody else writes */
	bool follow;		/* read-only: move on to newer commits */
	bool accept_incomplete;	/* for a copy that goes on */
	enum volume_durability durability;
	uint64_t pending_limit;	/* bytes of rewritten chunks kept in memory; 0: 64 MiB */
	uint64_t map_memory;	/* bytes of map nodes kept; 0: 32 MiB */
	const char *runtime_dir;/* for UUID.lock; NULL: do not lock (tests) */
	const char *state_dir;	/* for volume_keep_unsaved(); NULL: keep nothing */
	uint32_t grace;		/* seconds a replaced object is kept for readers */
	uint64_t refresh_interval; /* follow: ns between looks at head; 0: 10 s */
	/* Told once when the volume is fenced, on any thread; may be NULL. */
	void (*fenced)(void *context, const char *by_whom);
	void *context;
};

/* Opens a volume; a writer claims it.  Takes a constant number of requests.
 * On success the volume owns @store, else the caller still does.
 * -ENOENT (no volume, or no such snapshot), -EBADMSG (damaged), -ENOTSUP (a
 * newer format), -EBUSY (held by another), -EUCLEAN (incomplete),
 * -EOPNOTSUPP (a store without conditional puts), or the store's error. */
int volume_open(struct store *store, const struct volume_options *options,
		struct volume **volume);

/* Ends what the volume does by itself and gives it back: a part of closing that takes
 * as long as the store does, 30 s if it does not answer.  No request is under way, and
 * none may come; volume_status() still tells. */
void volume_release(struct volume *volume);

/* The volume as the last stage of a pipeline: read_unit frame, write_unit
 * chunk.  Closing the stage closes the volume: what is pending is NOT
 * committed then; flush first.  A clean close empties holder. */
struct stage *volume_stage(struct volume *volume);

/* ---- commits ---------------------------------------------------------------- */

/* Stable content of one chunk, or of a run of chunks that become holes. */
struct commit_item {
	uint32_t chunk;
	uint32_t nr_chunks;	/* > 1 only for holes */
	const void *data;	/* chunk_size bytes; NULL: holes */
	const uint32_t *sums;	/* CRC-32C of each frame of it; NULL: not known yet */
	/* Not NULL: called once, on any thread, when @data and @sums are not needed any
	 * more, which is when they are uploaded; else they stay until all is settled. */
	void (*let_go)(void *context);
	void *context;
};
struct commit_batch {
	/* Ascending, not overlapping: first these, which have no let_go(), then what
	 * more() gives, if it is not NULL, until it says false.  It may wait. */
	const struct commit_item *items;
	unsigned int nr_items;
	bool (*more)(void *context, struct commit_item *item);
	void *context;
	uint64_t size;		/* new size in bytes; 0: unchanged */
	uint64_t sequence;	/* journal records contained; 0: unchanged */
};
/* One commit; waits until it is settled.  The content must not change until
 * then.  0: durable, and what reads see from now on.  -ESTALE: fenced.  Any
 * other error: given up; nothing of it is visible, its number is burnt. */
int volume_commit(struct volume *volume, const struct commit_batch *batch);

/* Commits everything pending (a sync form of the stage's flush, for umount). */
int volume_flush(struct volume *volume);

/* Begins to commit what is pending and does not wait for it; when that fails, the
 * next flush says so. */
void volume_push(struct volume *volume);

/* Commits what is pending with a new size.  Growing works at any time;
 * shrinking zeroes the tail and is for a volume nobody serves. */
int volume_resize(struct volume *volume, uint64_t size);

/* Turns an incomplete volume into a live one, durably. */
int volume_set_complete(struct volume *volume);

/* ---- what it is -------------------------------------------------------------- */

struct volume_status {
	struct head head;	/* the last settled one */
	bool writable, fenced;
	char fenced_by[128];
	uint64_t pending_bytes;	/* dirty: acknowledged, not committed */
	uint64_t pending_chunks;
	uint64_t committing_bytes;	/* of them, or of volume_commit(): in the commit
					 * that runs */
	uint64_t uploaded_bytes;	/* of those, stored already */
	uint64_t last_commit;	/* clock_now() ns when the last commit settled; 0 */
	uint64_t oldest_dirty;	/* clock_now() ns of the oldest pending write; 0 */
	uint64_t nr_commits, failed_commits;
	uint64_t map_nodes, map_bytes;	/* in memory */
};
void volume_status(struct volume *volume, struct volume_status *status);

/* Of a fenced volume: writes what is unsaved to STATE/UUID/fenced-EPOCH (see
 * objmap-volume(5)), once; closing does it, too.  0 (also when there is nothing, or
 * no state folder), or -errno, logged: it is all in memory still, and can be tried
 * again. */
int volume_keep_unsaved(struct volume *volume);
struct store *volume_store(struct volume *volume);

/* Reads head only; @reply may be NULL.  -ENOENT, -EBADMSG, -ENOTSUP. */
int volume_read_head(struct store *store, struct head *head,
		     struct store_reply *reply);

/* Calls @visit for every ref of a chunk that is no hole, ascending, reading
 * nodes as needed, which are counted in *@nr_nodes (NULL: not wanted).  Stops when it
 * returns non-zero, and returns that.  The refs are those of @head (a snapshot's body
 * works too). */
typedef int volume_visit(void *context, uint32_t chunk, const struct ref *ref);
int volume_walk(struct store *store, const struct head *head,
		volume_visit *visit, void *context, uint64_t *nr_nodes);

/* ---- snapshots, clones, life and death ---------------------------------------- */

/* How head is swapped by who has not claimed the volume. */
struct swap_terms {
	bool exclusive_word;	/* the user's word that nobody else writes */
	bool probed;		/* the store was probed; this was found: */
	bool exclusive;		/* it fails the probe: do without conditions */
};

/* Of the last commit.  @terms NULL: the store is known to be conditional; else it is
 * probed before anything is written, and they learn the answer.  -EEXIST, -EINVAL
 * (a name that cannot be), -EBUSY (a busy writer elsewhere kept winning), -ENOENT,
 * -EOPNOTSUPP. */
int volume_snapshot_create(struct store *store, const char *name,
			   struct swap_terms *terms);
int volume_snapshot_delete(struct store *store, const char *name,
			   struct swap_terms *terms);
/* The same of a volume that is open for writing: no commit of ours runs meanwhile. */
int volume_snapshot(struct volume *volume, const char *name);
int volume_snapshots(struct store *store, struct snapshot_list *list);
/* The head a snapshot pinned. */
int volume_snapshot_head(struct store *store, const char *name,
			 struct head *head);

/* Makes the volume at @prefix (of @to, a store over the same bucket or
 * directory) a clone of @name.  @from_prefix is this volume's own.  @terms as
 * above: one probe is enough for both. */
int volume_clone(struct store *from, const char *from_prefix, const char *name,
		 struct store *to, const char *to_prefix, struct swap_terms *terms);

struct claim_options {
	bool take_over, abandon_journal, exclusive;
	const char *runtime_dir;
};
/* Each claims the volume, changes it and lets it go. */
/* From now on mounts refuse it, until volume_set_complete(). */
int volume_set_incomplete(struct store *store, const struct claim_options *claim);
int volume_rollback(struct store *store, const char *name,
		    const struct claim_options *claim);
int volume_delete(struct store *store, const struct claim_options *claim);

/* ---- garbage and health --------------------------------------------------------- */

struct gc_options {
	uint32_t grace;		/* seconds; 0 where there are no readers */
	bool dry_run;		/* count only, change nothing */
	/* A volume whose writer on this machine was killed is claimed by these and
	 * closed first: then what he had begun is garbage, too.  NULL: it is not. */
	const struct claim_options *close_killed;
	uint64_t memory;	/* bytes for what is reachable; more of it takes several
				 * rounds; 0: 256 MiB */
	void (*progress)(void *context, const char *what, uint64_t done,
			 uint64_t total);	/* total 0: not known */
	void *context;
};
/* Deletes what nothing refers to, in two steps a grace period apart: condemn,
 * then delete.  -EIO: something that is referred to is missing or damaged, and
 * nothing was deleted.  -ESTALE: head moved on meanwhile; try again. */
struct gc_result {
	uint64_t listed, reachable, condemned, deleted, waiting, foreign;
	uint64_t deleted_bytes;
	uint64_t aborted_uploads;
};
int volume_gc(struct store *store, const struct gc_options *options,
	      struct gc_result *result);

struct verify_options {
	const char *snapshot;	/* NULL: the head and every snapshot */
	bool metadata_only;	/* maps only, no chunk content */
	unsigned int jobs;	/* gets at once; 0: 8 */
	void (*progress)(void *context, uint64_t done, uint64_t total);
	/* Told of every fault found: where, and what. */
	void (*fault)(void *context, const char *key, const char *what);
	void *context;
};
struct verify_result {
	uint64_t chunks, nodes, bytes, faults;
};
/* Reads everything reachable and compares every checksum.  0: all good;
 * -EBADMSG: faults were found. */
int volume_verify(struct store *store, const struct verify_options *options,
		  struct verify_result *result);

#endif
