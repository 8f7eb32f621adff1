/* mount_status.c: what a mount says about itself. */
#include "config.h"

#include <string.h>
#include <unistd.h>

#include "backends/http/http.h"
#include "src/clock.h"
#include "src/cost.h"
#include "src/frontend/fuse.h"
#include "src/mount_parts.h"

static json_t *count(unsigned long long value)
{
	return json_integer((json_int_t)value);
}

/* Seconds since @then of clock_now(), null when it never was. */
static json_t *age(uint64_t then)
{
	uint64_t now = clock_now();

	if (!then)
		return json_null();
	return json_real(then < now ? (double)(now - then) / CLOCK_SECOND : 0.0);
}

static json_t *doorway_status(const struct stage *stage)
{
	const struct stage_counters *c = &stage->counters;
	json_t *all = json_object();

	for (int op = 0; op < NR_REQUEST_OPS; op++)
		json_object_set_new(all, request_op_name(op), json_pack("{s:o, s:o}",
			"requests", count(atomic_load(&c->requests[op])),
			"bytes", count(atomic_load(&c->bytes[op]))));
	json_object_set_new(all, "errors", count(atomic_load(&c->errors)));
	json_object_set_new(all, "in_flight", count(stage_in_flight(stage)));
	return all;
}

/* What it waits for; null: nothing. */
static json_t *trouble_part(const struct trouble_status *trouble)
{
	if (!*trouble->reason)
		return json_null();
	return json_pack("{s:s, s:o, s:i}", "reason", trouble->reason,
			 "seconds", age(trouble->since),
			 "attempts", (int)trouble->attempts);
}

/* Of a device that lives by a server. */
static json_t *server_status(struct stage *backend)
{
	struct trouble_status trouble;

	backend->server->trouble(backend, &trouble);
	return json_pack("{s:o, s:b}", "trouble", trouble_part(&trouble),
			 "lost", backend->server->is_lost(backend));
}

static json_t *store_status(struct store *store)
{
	const struct store_counters *c = &store->counters;
	struct trouble_status trouble;
	json_t *all = json_pack("{s:o, s:o, s:o, s:o, s:o}",
				"causes", cost_by_cause(store),
				"operations", cost_by_operation(store),
				"retries", count(atomic_load(&c->retries)),
				"failures", count(atomic_load(&c->failures)),
				"in_flight", count(atomic_load(&c->in_flight)));

	trouble_status(&store->trouble, &trouble);
	json_object_set_new(all, "trouble", trouble_part(&trouble));
	return all;
}

/* Of the whole daemon; null: it has spoken none. */
static json_t *http_status(void)
{
	struct http_counts counts;

	http_counts(&counts);
	if (!counts.connects)
		return json_null();
	return json_pack("{s:i, s:i, s:i, s:o}", "connections", (int)counts.connections,
			 "busy", (int)counts.busy, "queued", (int)counts.queued,
			 "connects", count(counts.connects));
}

/* A batch is a commit; what of it is longer than the store's threshold goes in
 * parts, each upload of them ending in a complete or an abort. */
static json_t *push_status(struct volume *volume)
{
	const struct store_counters *c = &volume_store(volume)->counters;
	struct volume_status v;

	volume_status(volume, &v);
	return json_pack("{s:o, s:o, s:o, s:o, s:o}",
			 "batches", count(v.nr_commits),
			 "puts", count(atomic_load(&c->requests[STORE_PUT])),
			 "parts", count(atomic_load(&c->parts)),
			 "completes", count(atomic_load(&c->completes)),
			 "aborts", count(atomic_load(&c->aborts)));
}

static json_t *volume_part(struct volume *volume)
{
	struct volume_status v;
	char uuid[37];

	volume_status(volume, &v);
	uuid_format(v.head.uuid, uuid);
	return json_pack("{s:s, s:o, s:i, s:o, s:o, s:o, s:o, s:o, s:o, s:o, "
			 "s:b, s:s, s:o, s:o}",
			 "uuid", uuid, "epoch", count(v.head.epoch),
			 "chunk_size", (int)v.head.chunk_size,
			 "dirty_bytes", count(v.pending_bytes),
			 "dirty_chunks", count(v.pending_chunks),
			 "oldest_dirty_seconds", age(v.oldest_dirty),
			 "committing_bytes", count(v.committing_bytes),
			 "commits", count(v.nr_commits),
			 "failed_commits", count(v.failed_commits),
			 "last_commit_seconds", age(v.last_commit),
			 "fenced", v.fenced, "fenced_by", v.fenced_by,
			 "map_nodes", count(v.map_nodes),
			 "map_bytes", count(v.map_bytes));
}

static json_t *frontend_status(struct mount *mount)
{
#ifdef HAVE_FUSE
	if (mount->file)
		return fuse_file_status(mount->file);
#endif
	return mount->server && mount->server->started ?
	       nbd_server_status(mount->server->nbd) : json_null();
}

json_t *mount_status(struct mount *mount)
{
	static const char *const durability[] = {
		[DURABILITY_REMOTE] = "remote", [DURABILITY_JOURNAL] = "journal",
		[DURABILITY_NONE] = "none",
	};
	const struct mount_spec *spec = &mount->spec;
	struct export *export;
	json_t *all = json_pack("{s:s, s:s, s:s, s:i}",
				"where", spec->where.kind == WHERE_FUSE ?
				spec->where.path : spec->where.text,
				"place", spec->place.text, "mode", "direct",
				"pid", (int)getpid());

	pthread_rwlock_rdlock(&mount->open_lock);
	export = mount->export;
	json_object_set_new(all, "state", json_string(
		!export ? "ended" : atomic_load(&mount->ending) ? "ending" : "serving"));
	if (export) {
		json_object_set_new(all, "size", count(stage_size(export->stage)));
		json_object_set_new(all, "read_only", json_boolean(export->read_only));
		json_object_set_new(all, "clients",
				    count(atomic_load(&export->nr_clients)));
		json_object_set_new(all, "requests", doorway_status(export->stage));
		json_object_set_new(all, "frontend", frontend_status(mount));
	}
	if (export && export->volume) {
		json_object_set_new(all, "durability", json_string(
			durability[spec->export.volume.durability]));
		json_object_set_new(all, "volume", volume_part(export->volume));
		json_object_set_new(all, "push", push_status(export->volume));
		json_object_set_new(all, "store",
				    store_status(volume_store(export->volume)));
	} else if (export && stage_backend(export->stage)->server) {
		json_object_set_new(all, "store",
				    server_status(stage_backend(export->stage)));
	}
	pthread_rwlock_unlock(&mount->open_lock);
	json_object_set_new(all, "http", http_status());
	return all;
}
