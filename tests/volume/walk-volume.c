/* walk-volume.c: a random walk over all that can be done to a volume, in the
 * worst order: two writers, an administrator, gc, readers, clones; requests that
 * fail, come late, twice or not at all; crashes; operations in the middle of
 * others.  What is read is compared with flat images, after each step.
 *
 *	walk-volume [--seed N] [--seconds S] [--verbose]
 *
 * A walk is a row of lives of one volume, from create to delete; a violation
 * names the seed of its life, which begins the walk that finds it again.  On a given
 * place (tests/store/given.h) it does so only as far as requests that are under way
 * together end in the same order; and the last life is cut short there. */
#include <errno.h>
#include <getopt.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "src/clock.h"
#include "src/log.h"
#include "src/random.h"
#include "src/volume/claim.h"
#include "src/volume/volume.h"
#include "tests/store/fault_store.h"
#include "tests/store/given.h"
#include "tests/volume/bucket.h"
#include "tests/volume/flat.h"

#define NR_NAMES   3
#define NR_CLONES  2
#define NR_READERS 2
#define GRACE	   1000u	/* seconds of the bucket's clock */
#define STEPS	   250u		/* of a life */

enum side { SIDE_A, SIDE_B, SIDE_ADMIN, SIDE_GC, NR_SIDES };

struct writer {
	struct volume *volume;		/* NULL: not open */
	uint64_t id;
	struct image now;		/* what it must read */
	struct image committed;		/* what its last good commit made */
	bool unsure;			/* a commit failed since, or so it said */
};

/* Something that may be there. */
enum being { ABSENT, PRESENT, UNSURE };
struct named {
	enum being being;
	bool has_image;			/* UNSURE: else nobody knows what it holds */
	struct image image;
	uint64_t stain;			/* nonce of the head that a late swap may yet
					 * replace; UNSURE lasts as long */
};

static struct random rng;
static uint64_t life_seed;
static struct bucket *bucket;
static struct fault *sides[NR_SIDES];
static bool noisy[NR_SIDES];
static struct writer writers[2];	/* on SIDE_A and SIDE_B */
static struct named names[NR_NAMES], clones[NR_CLONES];
static struct { struct volume *volume; struct image image; uint64_t since; }
	readers[NR_READERS];
static uint64_t clock_added;
static unsigned int depth;		/* of operations inside others */
static uint64_t nr_steps, nr_lives;
static bool eager;			/* a writer that deletes at once was open */

/* What head may hold: the last that is sure, and what was on its way since. */
static struct images possible;
/* What head held at some moment since the outermost operation began. */
static struct images seen;
/* What a rollback that runs may yet make of any head it meets; or NULL. */
static const struct image *rolling;
static uint64_t owner;			/* head's writer, as last observed */
static unsigned int generation;		/* how often that changed */
static struct image adopted[64];	/* what the claims found ... */
static bool rolled_back[64];		/* ... or made of it */

static unsigned int below(unsigned int limit)
{
	return (unsigned int)random_below(&rng, limit);
}

static bool one_in(unsigned int n)
{
	return below(n) == 0;
}

/* ---- the story, and its end ---------------------------------------------------- */

static char story[64][120];
static unsigned int nr_told;

static void tell(const char *format, ...) __attribute__((format(printf, 1, 2)));
static void tell(const char *format, ...)
{
	char *line = story[nr_told++ % 64];
	va_list args;

	va_start(args, format);
	line += snprintf(line, 8, "%*s", (int)(2 * depth), "");
	vsnprintf(line, 110, format, args);
	va_end(args);
	log_notice("---- %s", story[(nr_told - 1) % 64]);
}

static void violated(const char *format, ...)
	__attribute__((format(printf, 1, 2), noreturn));
static void violated(const char *format, ...)
{
	unsigned int i = nr_told > 64 ? nr_told - 64 : 0;
	va_list args;

	for (; i < nr_told; i++)
		fprintf(stderr, "  %s\n", story[i % 64]);
	va_start(args, format);
	fprintf(stderr, "walk-volume: ");
	vfprintf(stderr, format, args);
	fprintf(stderr, "\nwalk-volume: violated at step %llu; again with --seed %llu\n",
		(unsigned long long)nr_steps, (unsigned long long)life_seed);
	va_end(args);
	exit(1);
}

/* ---- clients ---------------------------------------------------------------------- */

static void noise(enum side side)
{
	fault_clear(sides[side]);
	noisy[side] = one_in(2);
	if (noisy[side])
		fault_schedule(sides[side], random_next(&rng), 20 + below(120),
			       FAULT_HONEST & ~(1 << FAULT_DELAY));
}

static struct store *client(enum side side)
{
	struct store *store = fault_client(sides[side]);

	atomic_store(&store->retry_for, one_in(2) ? 0 : 30 * CLOCK_MS);
	return store;
}

/* One that nothing goes wrong with. */
static struct store *clean(const char *prefix)
{
	return bucket_client(bucket, prefix);
}

/* What a reader finds now: 0 and *@image, or a negative errno. */
static int look(const char *prefix, const char *snapshot, struct image *image)
{
	const struct volume_options options = { .snapshot = snapshot };
	struct store *store = clean(prefix);
	struct volume *volume;
	int error = volume_open(store, &options, &volume);

	if (error) {
		store_close(store);
		return error;
	}
	error = image_read(volume, image);
	stage_close(volume_stage(volume));
	if (error == -EILSEQ)
		violated("I2: a torn chunk in %s@%s", prefix, snapshot ? snapshot : "");
	return error;
}

static struct head head_now(void)
{
	struct store *store = clean("vol");
	struct stored_head stored;

	if (head_read(store, &stored) != 0)
		violated("head cannot be read");
	store_close(store);
	return stored.head;
}

/* ---- the oracle ----------------------------------------------------------------------- */

/* @image is on its way into head. */
static void may_become(const struct image *image)
{
	images_add(&possible, image);
	images_add(&seen, image);
}

/* Head holds @image, and nothing else that was on its way can come any more. */
static void settle(const struct image *image)
{
	possible.nr = 0;
	may_become(image);
	if (rolling)
		may_become(rolling);
}

/* Looks who head's writer is now: a claim that came through, whoever heard of
 * it, settles what head holds. */
static void observe(void)
{
	struct image image;
	uint64_t writer = head_now().writer;
	int error;

	if (writer == owner)
		return;
	error = look("vol", NULL, &image);
	if (error)
		violated("I2: head cannot be read: %s", strerror(-error));
	if (!images_have(&possible, &image))
		violated("I1: after a claim head reads what nobody flushed, or has lost "
			 "what somebody did");
	owner = writer;
	adopted[++generation % 64] = image;
	rolled_back[generation % 64] = rolling && image_equal(&image, rolling);
	settle(&image);
}

static void check_head(void)
{
	struct image image;
	int error = look("vol", NULL, &image);

	if (error)
		violated("I2: head cannot be read: %s", strerror(-error));
	if (!images_have(&possible, &image))
		violated("I1/I2: head reads what nobody meant");
}

static void check_names(const char *prefix, const struct named *named, const char *name)
{
	struct image image;
	int error;

	if (named->being != PRESENT)
		return;
	error = look(prefix, name, &image);
	if (error)
		violated("I3: %s@%s: %s", prefix, name ? name : "", strerror(-error));
	if (!image_equal(&image, &named->image))
		violated("I3: %s@%s reads something else than it pinned", prefix,
			 name ? name : "");
}

/* ---- writers ------------------------------------------------------------------------------ */

static bool owns(const struct writer *writer)
{
	return writer->volume && writer->id == owner;
}

static void crash(unsigned int w)
{
	tell("writer %u crashes", w);
	fault_clear(sides[w]);
	fault_add(sides[w], &(struct fault_rule){ .op = NR_STORE_OPS, .kind = FAULT_FAIL });
	stage_close(volume_stage(writers[w].volume));
	writers[w].volume = NULL;
	noise(w);
}

static bool any_reader(void)
{
	unsigned int i;

	for (i = 0; i < NR_READERS; i++)
		if (readers[i].volume)
			return true;
	return false;
}

static void writer_open(unsigned int w)
{
	struct volume_options options = { .writable = true, .take_over = !one_in(4),
					  .pending_limit = 1u << 30, .grace = 3600 };
	struct writer *writer = &writers[w];
	struct store *store = client(w);
	struct volume_status status;
	int error;

	if (!any_reader() && one_in(2)) {
		options.grace = 0;
		eager = true;
	}
	error = volume_open(store, &options, &writer->volume);
	tell("writer %u opens: %d", w, error);
	if (error)
		store_close(store);
	observe();
	if (error)
		return;
	volume_status(writer->volume, &status);
	writer->id = status.head.writer;
	writer->unsure = false;
	/* Somebody may have claimed it since. */
	if (!owns(writer)) {
		crash(w);
		return;
	}
	writer->now = writer->committed = adopted[generation % 64];
}

static void writer_write(unsigned int w)
{
	struct writer *writer = &writers[w];
	/* Mostly the same few chunks: rewriting makes the trouble. */
	unsigned int nr = image_nr(&writer->now);
	unsigned int chunk = below(nr < 3 || one_in(3) ? nr : 3), many = 1;
	uint64_t value = one_in(5) ? 0 : random_next(&rng) | 0x0101010101010101ull;
	int error = 0;

	if (one_in(8))
		many = 1 + below(nr - chunk < 20 || !one_in(8) ? 20 : nr - chunk);
	for (; many && chunk < nr && !error; many--, chunk++) {
		error = image_write(&writer->now, writer->volume, chunk, value);
	}
	tell("writer %u writes to chunk %u: %d", w, chunk, error);
	if (error && error != -ESTALE)
		violated("a write failed: %s", strerror(-error));
}

/* The last epoch that @writer has committed, as head and its history say; 0:
 * they no longer know. */
static uint64_t epoch_of(uint64_t writer)
{
	struct head head = head_now();
	unsigned int i;

	if (head.writer == writer)
		return head.epoch;
	for (i = 0; i < head.nr_history; i++)
		if (head.history[i].writer == writer)
			return head.history[i].epoch;
	return 0;
}

/* Whether the first claim after generation @began leaves room for a commit of
 * @next before it.  A rollback does away with what it finds; then history must
 * show that the writer had come further than @epoch. */
static bool was_found(const struct writer *writer, const struct image *next,
		      unsigned int began, uint64_t epoch)
{
	if (image_equal(&adopted[(began + 1) % 64], next))
		return true;
	return rolled_back[(began + 1) % 64] && epoch_of(writer->id) > epoch;
}

/* A commit of @next has ended with @error; it began in generation @began, when
 * its writer had come to @epoch. */
static void judge_commit(unsigned int w, const struct image *next, int error,
			 unsigned int began, uint64_t epoch)
{
	struct writer *writer = &writers[w];

	observe();
	if (error == 0 && generation == began) {
		settle(next);
	} else if (error == 0 && !was_found(writer, next, began, epoch)) {
		violated("I1: writer %u's flush was acknowledged, and the next owner did "
			 "not find it", w);
	} else if (error == -ESTALE && generation == began) {
		violated("I7: writer %u was fenced by nobody", w);
	}
	writer->unsure = error != 0;
	if (error == 0)
		writer->committed = *next;
}

static void writer_flush(unsigned int w)
{
	struct writer *writer = &writers[w];
	/* Zeros over a hole change nothing: nobody need be asked. */
	bool dirty = writer->unsure || !image_equal(&writer->now, &writer->committed);
	bool had = owns(writer);
	unsigned int began = generation;
	struct image next = writer->now;
	uint64_t epoch = epoch_of(writer->id);
	int error;

	if (had)
		may_become(&next);
	error = stage_flush(volume_stage(writer->volume));
	tell("writer %u flushes: %d%s", w, error, had ? "" : ", a zombie");
	if (had && dirty)
		judge_commit(w, &next, error, began, epoch);
	/* Zeros over what was never filled: what it has is what it left. */
	else if (!had && error == 0 && !image_equal(&writer->now, &writer->committed))
		violated("I4: the zombie writer %u acknowledged a flush", w);
	observe();
}

static void writer_resize(unsigned int w)
{
	struct writer *writer = &writers[w];
	bool had = owns(writer);
	unsigned int began = generation;
	struct image next = writer->now;
	uint64_t epoch = epoch_of(writer->id);
	int error;

	image_cut(&next, image_random_size(&rng));
	if (had)
		may_become(&next);
	error = volume_resize(writer->volume, next.size);
	tell("writer %u resizes to %llu: %d", w, (unsigned long long)next.size, error);
	if (!had && error == 0 && next.size != writer->now.size)
		violated("I4: the zombie writer %u changed the size", w);
	if (had && (next.size != writer->now.size || error))
		judge_commit(w, &next, error, began, epoch);
	if (error == 0)
		writer->now = next;
	else
		crash(w);	/* nobody knows its size */
}

static void writer_check(unsigned int w)
{
	struct writer *writer = &writers[w];
	struct image image;
	int error = image_read(writer->volume, &image);

	if (error == -EILSEQ)
		violated("I2: writer %u reads a torn chunk", w);
	if (!error && !image_equal(&image, &writer->now))
		violated("writer %u does not read what it wrote", w);
	if (error == -ESTALE && owns(writer))
		violated("I7: writer %u was fenced by nobody", w);
}

static void writer_close(unsigned int w)
{
	tell("writer %u closes", w);
	stage_close(volume_stage(writers[w].volume));
	writers[w].volume = NULL;
	observe();
}

/* A commit is given up while one of its puts is still on its way, and the same
 * chunks are written again. */
static void writer_stumble(unsigned int w)
{
	unsigned int i;

	tell("writer %u stumbles", w);
	fault_clear(sides[w]);
	fault_add(sides[w], &(struct fault_rule){ .op = STORE_PUT,
		.prefix = one_in(2) ? "head" : one_in(2) ? "map/" : "chunk/",
		.kind = FAULT_LATE, .times = 1, .delay = 1000000 });
	atomic_store(&volume_store(writers[w].volume)->retry_for, 0);
	for (i = 0; i < 6; i++) {
		if (i == 3 && one_in(3))
			fault_release(sides[w]);
		if (i % 3 == 2)
			writer_flush(w);
		else
			writer_write(w);
	}
	if (one_in(2))
		fault_release(sides[w]);
}

static void writer_step(unsigned int w)
{
	struct writer *writer = &writers[w];

	if (!writer->volume)
		writer_open(w);
	else if (one_in(30))
		crash(w);
	else if (one_in(25))
		writer_close(w);
	else if (one_in(12))
		writer_resize(w);
	else if (one_in(8))
		writer_check(w);
	else if (one_in(12) && !depth)
		writer_stumble(w);
	else if (one_in(2))
		writer_write(w);
	else
		writer_flush(w);
}

/* ---- the administrator ------------------------------------------------------------------------ */

/* An answer that says whether it is there, unless a late swap may change that. */
static void resolve(struct named *named, enum being being)
{
	if (named->being == UNSURE && named->stain == head_now().nonce)
		return;
	named->being = being;
}

static void unsure(struct named *named, bool has_image)
{
	named->being = UNSURE;
	named->has_image = has_image;
	named->stain = head_now().nonce;
}

static void snapshot_create(struct named *named, const char *name, struct store *store)
{
	int error = volume_snapshot_create(store, name, NULL);
	struct image image;

	tell("snapshot create %s: %d", name, error);
	observe();
	if (error == -EEXIST && named->being == ABSENT)
		violated("snapshot %s cannot be there", name);
	if (error == 0 && named->being == PRESENT)
		violated("snapshot %s was there already", name);
	if (error && error != -EEXIST) {
		/* Unsure before: now from this head on, and of which image. */
		if (named->being != PRESENT)
			unsure(named, false);
		return;
	}
	if (error && named->being == PRESENT)
		return;
	if (look("vol", name, &image) != 0) {
		if (error == 0)
			violated("I3: snapshot %s was confirmed and is not there", name);
		return;
	}
	if (error == 0 && !images_have(&seen, &image))
		violated("I3: snapshot %s holds what head never held", name);
	if (error && named->has_image && !image_equal(&image, &named->image))
		violated("I3: snapshot %s has changed", name);
	named->image = image;
	named->has_image = true;
	if (error)
		resolve(named, PRESENT);
	else
		named->being = PRESENT;
}

static void snapshot_delete(struct named *named, const char *name, struct store *store)
{
	enum being was = named->being;
	int error;

	/* From the moment it begins nobody may count on it. */
	if (was == PRESENT)
		unsure(named, true);
	error = volume_snapshot_delete(store, name, NULL);
	tell("snapshot delete %s: %d", name, error);
	observe();
	if (error == -ENOENT && was == PRESENT)
		violated("I3: snapshot %s was lost", name);
	if (error == 0 && was == ABSENT)
		violated("snapshot %s cannot have been there", name);
	if (error == 0)
		named->being = ABSENT;
	else if (error == -ENOENT)
		resolve(named, ABSENT);
	else if (was != ABSENT)
		unsure(named, named->has_image);
}

static void rollback(struct named *named, const char *name, struct store *store)
{
	const struct claim_options options = { .take_over = !one_in(3) };
	int error;

	if (named->being != PRESENT)
		return;
	may_become(&named->image);
	rolling = &named->image;
	error = volume_rollback(store, name, &options);
	observe();
	rolling = NULL;
	tell("rollback to %s: %d", name, error);
	if (error == -ENOENT)
		violated("I3: snapshot %s was lost", name);
}

static void clone_make(struct named *named, const char *name, struct store *store)
{
	unsigned int c = below(NR_CLONES);
	struct named *clone = &clones[c];
	struct store *to;
	char prefix[8];
	int error;

	if (named->being != PRESENT)
		return;
	snprintf(prefix, sizeof(prefix), "c%u", c);
	to = clean(prefix);
	error = volume_clone(store, "vol", name, to, prefix, NULL);
	store_close(to);
	tell("clone %s to %s: %d", name, prefix, error);
	observe();
	if (error == 0 && clone->being == PRESENT)
		violated("%s was there already", prefix);
	if (error == -EEXIST && clone->being == ABSENT)
		violated("%s cannot be there", prefix);
	if (error == 0) {
		clone->being = PRESENT;
		clone->image = named->image;
	} else if (clone->being == ABSENT) {
		clone->being = UNSURE;
	}
}

static void clone_delete(unsigned int c)
{
	const struct claim_options options = { .take_over = true };
	struct gc_options gc = { 0 };
	struct gc_result result;
	struct store *store;
	char prefix[8];
	int error;

	snprintf(prefix, sizeof(prefix), "c%u", c);
	store = clean(prefix);
	error = volume_delete(store, &options);
	tell("delete %s: %d", prefix, error);
	if (error && clones[c].being == PRESENT)
		violated("I3: %s was lost", prefix);
	clones[c].being = ABSENT;
	if (!error && volume_gc(store, &gc, &result) != 0)
		violated("gc of the deleted %s failed", prefix);
	store_close(store);
}

/* Somebody uses a clone for a while. */
static void clone_use(unsigned int c)
{
	const struct volume_options options = { .writable = true };
	const struct gc_options grace = { 0 };
	struct gc_result result;
	struct volume *volume;
	struct store *store;
	char prefix[8];
	int error;

	if (clones[c].being != PRESENT)
		return;
	snprintf(prefix, sizeof(prefix), "c%u", c);
	tell("%s is written to", prefix);
	store = clean(prefix);
	error = volume_open(store, &options, &volume);
	if (error)
		violated("I3: %s cannot be opened: %s", prefix, strerror(-error));
	image_write(&clones[c].image, volume, below(image_nr(&clones[c].image)),
		    random_next(&rng) | 0x0101010101010101ull);
	if (stage_flush(volume_stage(volume)) != 0)
		violated("a flush of %s failed", prefix);
	stage_close(volume_stage(volume));
	store = clean(prefix);
	if (volume_gc(store, &grace, &result) != 0)
		violated("gc of %s failed", prefix);
	store_close(store);
}

static void admin_step(void)
{
	struct store *store = client(SIDE_ADMIN);
	unsigned int n = below(NR_NAMES);
	char name[8];

	snprintf(name, sizeof(name), "s%u", n);
	switch (below(8)) {
	case 0: case 1: case 2:
		snapshot_create(&names[n], name, store);
		break;
	case 3: case 4:
		snapshot_delete(&names[n], name, store);
		break;
	case 5:
		rollback(&names[n], name, store);
		break;
	case 6:
		clone_make(&names[n], name, store);
		break;
	default:
		if (depth)
			break;
		if (one_in(3))
			clone_delete(below(NR_CLONES));
		else
			clone_use(below(NR_CLONES));
	}
	store_close(store);
}

/* ---- gc, readers, time ---------------------------------------------------------------------------- */

static void gc_step(void)
{
	const struct gc_options options = { .grace = any_reader() || one_in(2) ? GRACE : 0 };
	struct store *store = client(SIDE_GC);
	struct gc_result result;
	int error = volume_gc(store, &options, &result);

	tell("gc with grace %u: %d, condemned %llu, deleted %llu", options.grace, error,
	     (unsigned long long)result.condemned, (unsigned long long)result.deleted);
	store_close(store);
}

static void reader_step(unsigned int r)
{
	const struct volume_options options = { 0 };
	struct image image;
	struct store *store;
	int error;

	if (!readers[r].volume && !eager) {
		store = clean("vol");
		if (volume_open(store, &options, &readers[r].volume) != 0 ||
		    image_read(readers[r].volume, &readers[r].image) != 0 ||
		    !images_have(&possible, &readers[r].image))
			violated("I2: a reader cannot read head as it was meant");
		readers[r].since = clock_added;
		tell("reader %u opens", r);
	} else if (readers[r].volume && one_in(4)) {
		stage_close(volume_stage(readers[r].volume));
		readers[r].volume = NULL;
		tell("reader %u closes", r);
	} else if (readers[r].volume) {
		error = image_read(readers[r].volume, &image);
		tell("reader %u reads: %d", r, error);
		if (error && clock_added - readers[r].since < GRACE)
			violated("I6: a reader within grace: %s", strerror(-error));
		if (!error && !image_equal(&image, &readers[r].image))
			violated("I6: a reader's image has changed");
	}
}

/* ---- the walk ----------------------------------------------------------------------------------------- */

/* Somebody else acts in the middle of a request of side @context. */
static void meanwhile(void *context, const struct store_request *request)
{
	enum side outer = (enum side)(intptr_t)context;
	unsigned int w = outer == SIDE_A ? SIDE_B : outer == SIDE_B ? SIDE_A : below(2);

	if (depth)
		return;
	depth++;
	tell("meanwhile, during %s", request->key ? request->key : "?");
	switch (below(3)) {
	case 0:
		if (outer != SIDE_GC)
			gc_step();
		break;
	case 1:
		if (outer != SIDE_ADMIN)
			admin_step();
		break;
	default:
		do
			writer_step(w);
		while (!one_in(3));
	}
	depth--;
}

static void plan_meanwhile(void)
{
	static const struct { enum store_op op; const char *prefix; } when[] = {
		{ STORE_PUT, "head" }, { STORE_PUT, "head" }, { STORE_GET, "head" },
		{ STORE_PUT, "chunk/" }, { STORE_PUT, "snapshot/" },
		{ STORE_GET, "snapshot/" },
	};
	unsigned int i = below(sizeof(when) / sizeof(when[0]));
	enum side side = one_in(2) ? below(2) : below(NR_SIDES);

	fault_clear(sides[side]);
	fault_add(sides[side], &(struct fault_rule){ .op = when[i].op,
		.prefix = when[i].prefix, .kind = FAULT_CALL, .skip = below(2),
		.times = 1, .call = meanwhile, .context = (void *)(intptr_t)side });
	if (one_in(3))
		fault_add(sides[side], &(struct fault_rule){ .op = STORE_PUT,
			.prefix = "head", .times = 1, .skip = below(2), .delay = 1000000,
			.kind = one_in(2) ? FAULT_LATE : FAULT_LOSE_REPLY });
}

static void step(void)
{
	unsigned int i;
	char name[8];

	nr_steps++;
	seen.nr = 0;
	for (i = 0; i < possible.nr; i++)
		images_add(&seen, &possible.list[i]);
	if (one_in(10))
		noise(below(NR_SIDES));
	if (one_in(3))
		plan_meanwhile();
	switch (below(16)) {
	default:
		writer_step(below(2));
		break;
	case 1: case 2: case 3:
		admin_step();
		break;
	case 4:
		gc_step();
		break;
	case 5: case 6:
		reader_step(below(NR_READERS));
		break;
	case 7:
		clock_added += 300;
		bucket_clock_add(bucket, 300);
		break;
	case 8:
		i = below(NR_SIDES);
		tell("what was late on side %u arrives", i);
		fault_release(sides[i]);
	}
	observe();
	check_head();
	i = below(NR_NAMES);
	snprintf(name, sizeof(name), "s%u", i);
	check_names("vol", &names[i], name);
	i = below(NR_CLONES);
	snprintf(name, sizeof(name), "c%u", i);
	check_names(name, &clones[i], NULL);
}

/* ---- lives ------------------------------------------------------------------------------------------------ */

static void create(void)
{
	struct volume_create_options options = { .chunk_size = IMAGE_CHUNK };
	struct store *store = clean("vol");
	struct image image = { 0 };
	int error;

	image.size = options.size = image_random_size(&rng);
	error = volume_create(store, &options);
	if (error)
		violated("create: %s", strerror(-error));
	store_close(store);
	tell("created");
	owner = head_now().writer;
	generation++;
	settle(&image);
}

static void close_all(void)
{
	unsigned int i;

	for (i = 0; i < 2; i++)
		if (writers[i].volume)
			crash(i);
	for (i = 0; i < NR_READERS; i++) {
		if (readers[i].volume)
			stage_close(volume_stage(readers[i].volume));
		readers[i].volume = NULL;
	}
	eager = false;
}

/* I5: after one more claim and gc nothing is there that is not reached. */
static void check_nothing_left(struct store *store, bool deleted)
{
	const struct verify_options verify = { 0 };
	const struct gc_options none = { 0 };
	struct verify_result verified;
	struct gc_result result;

	if (volume_gc(store, &none, &result) != 0 || volume_gc(store, &none, &result) != 0)
		violated("I5: gc fails");
	if (result.condemned || result.waiting || result.listed != result.reachable ||
	    bucket_count(bucket, "vol/") != (deleted ? 1 : result.reachable)) {
		bucket_print(bucket, "vol/");
		violated("I5: left for ever: %u objects, %llu of them reached",
			 bucket_count(bucket, "vol/"),
			 (unsigned long long)result.reachable);
	}
	if (!deleted && volume_verify(store, &verify, &verified) != 0)
		violated("verify finds faults");
}

/* Whatever was being written before is garbage after this. */
static void claim_once(void)
{
	const struct volume_options options = { .writable = true, .take_over = true };
	struct volume *volume;

	if (volume_open(clean("vol"), &options, &volume) != 0)
		violated("the last writer cannot open");
	stage_close(volume_stage(volume));
	observe();
}

static void end_life(void)
{
	const struct claim_options forced = { .take_over = true };
	struct store *store = clean("vol");
	unsigned int i;
	char name[8];

	close_all();
	claim_once();
	/* What is late may come before or after the end; dead it is in any case. */
	for (i = 0; i < NR_SIDES; i++)
		if (one_in(2))
			fault_release(sides[i]);
	check_head();
	bucket_clock_add(bucket, 100000);
	check_nothing_left(store, false);
	for (i = 0; i < NR_CLONES; i++) {
		snprintf(name, sizeof(name), "c%u", i);
		check_names(name, &clones[i], NULL);
		clone_delete(i);
	}
	for (i = 0; i < NR_NAMES; i++) {
		snprintf(name, sizeof(name), "s%u", i);
		check_names("vol", &names[i], name);
		names[i].being = ABSENT;
		names[i].has_image = false;
		volume_snapshot_delete(store, name, NULL);
	}
	claim_once();
	check_nothing_left(store, false);
	check_head();
	if (volume_delete(store, &forced) != 0)
		violated("the volume cannot be deleted");
	check_nothing_left(store, true);
	store_close(store);
}

/* @end: clock_now() from which on it need not be long. */
static void life(uint64_t seed, uint64_t end)
{
	unsigned int i;

	life_seed = seed;
	random_seed(&rng, seed);
	nr_told = 0;
	tell("life %llu", (unsigned long long)seed);
	create();
	for (i = 0; i < NR_SIDES; i++)
		noise(i);
	for (i = 0; i < STEPS && clock_now() < end; i++)
		step();
	end_life();
	nr_lives++;
}

int main(int argc, char **argv)
{
	static const struct option options[] = {
		{ "seed", required_argument, NULL, 's' },
		{ "seconds", required_argument, NULL, 't' },
		{ "verbose", no_argument, NULL, 'v' },
		{ 0 },
	};
	uint64_t seed = random_id() % 1000000000, seconds = 20, end, i;
	bool verbose = false;
	int option;

	while ((option = getopt_long(argc, argv, "s:t:v", options, NULL)) != -1) {
		if (option == 's')
			seed = strtoull(optarg, NULL, 10);
		else if (option == 't')
			seconds = strtoull(optarg, NULL, 10);
		else if (option == 'v')
			verbose = true;
		else
			return 2;
	}
	if (!verbose)
		log_open("/dev/null", LOG_LEVEL_ERROR);
	printf("walk-volume: seed %llu, %llu seconds\n", (unsigned long long)seed,
	       (unsigned long long)seconds);
	fflush(stdout);
	bucket = bucket_open();
	for (i = 0; i < NR_SIDES; i++)
		sides[i] = fault_open(bucket_client(bucket, "vol"));
	end = clock_now() + seconds * CLOCK_SECOND;
	do
		life(seed++, given_place() ? end : UINT64_MAX);
	while (clock_now() < end);
	for (i = 0; i < NR_SIDES; i++) {
		fault_release(sides[i]);
		fault_close(sides[i]);
	}
	bucket_close(bucket);
	printf("walk-volume: %llu lives, %llu steps, no violation\n",
	       (unsigned long long)nr_lives, (unsigned long long)nr_steps);
	return 0;
}
