/* restore.c: many chunks at once, told about in order.
 *
 * The caller's thread walks the map and puts each piece into a ring; workers fetch,
 * verify and write the chunks among them; the caller's thread takes the pieces out
 * at the other end, in order, and says what is bad.  Memory: a chunk for each
 * worker, whatever the volume. */
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "contrib/rescue/restore.h"

#define WORKERS_MAX 64
#define RING_SIZE (2 * WORKERS_MAX)
#define MEMORY_MAX (256u << 20)		/* for chunks; one worker at least */

struct job {
	struct piece piece;
	bool done;
	struct chunk chunk;		/* what came of it, but for the bytes */
};

struct restore {
	const struct volume *volume;
	const struct output *output;
	unsigned int nr_workers;
	pthread_t workers[WORKERS_MAX];

	pthread_mutex_t lock;		/* guards what follows, up to the blank line */
	pthread_cond_t changed;
	struct job ring[RING_SIZE];
	uint64_t put, taken, retired;	/* jobs ever; retired <= taken <= put, and
					 * put - retired <= RING_SIZE */
	bool stop;			/* no worker takes another one */

	/* The caller's thread only. */
	uint64_t position;		/* all bytes before it have been told about */
	uint64_t bad_begin, bad_end;	/* a run of bad bytes not told about yet */
	uint64_t nr_chunks, nr_bad_chunks, bad_bytes, got_bytes;
	bool show;
	struct timespec begin, shown;
};

/* ---- workers -------------------------------------------------------------------------- */

/* Writes what is good of a chunk; what is bad reads as zeros. */
static int write_chunk(const struct restore *restore, uint64_t index,
		       const struct chunk *chunk)
{
	const struct head *head = &restore->volume->head;
	uint64_t offset = index * head->chunk_size, end = offset + head->chunk_size, at;
	uint32_t frame = head->frame_size;
	unsigned int i;
	size_t count;
	int error = 0;

	if (end > head->size)
		end = head->size;
	for (i = 0, at = offset; at < end && !error; i++, at += frame) {
		count = end - at < frame ? (size_t)(end - at) : frame;
		error = chunk->bad[i] ? output_zero(restore->output, at, count) :
			output_write(restore->output, chunk->bytes + (at - offset),
				     count, at);
	}
	return error;
}

static bool do_job(const struct restore *restore, struct job *job, uint8_t *bytes)
{
	struct chunk *chunk = &job->chunk;
	bool good;

	chunk->bytes = bytes;
	chunk_get(restore->volume, job->piece.first, &job->piece.ref, chunk);
	good = !chunk->lost_store && (!restore->output ||
				      !write_chunk(restore, job->piece.first, chunk));
	chunk->bytes = NULL;
	return good;
}

static void *work(void *argument)
{
	struct restore *restore = argument;
	uint8_t *bytes = malloc(restore->volume->head.chunk_size);
	struct job *job;
	bool good;

	pthread_mutex_lock(&restore->lock);
	if (!bytes) {
		fprintf(stderr, "objmap-rescue: no memory for a chunk\n");
		restore->stop = true;
	}
	for (;;) {
		while (!restore->stop && restore->taken == restore->put)
			pthread_cond_wait(&restore->changed, &restore->lock);
		if (restore->stop)
			break;
		job = &restore->ring[restore->taken++ % RING_SIZE];
		if (job->done)
			continue;
		pthread_mutex_unlock(&restore->lock);
		good = do_job(restore, job, bytes);
		pthread_mutex_lock(&restore->lock);
		job->done = good;
		restore->stop |= !good;
		pthread_cond_broadcast(&restore->changed);
	}
	pthread_cond_broadcast(&restore->changed);
	pthread_mutex_unlock(&restore->lock);
	free(bytes);
	return NULL;
}

/* ---- telling ---------------------------------------------------------------------------- */

static void tell_run(struct restore *restore)
{
	if (restore->bad_end > restore->bad_begin) {
		printf("bad %" PRIu64 " %" PRIu64 "\n", restore->bad_begin,
		       restore->bad_end - restore->bad_begin);
		restore->bad_bytes += restore->bad_end - restore->bad_begin;
	}
	restore->bad_begin = restore->bad_end = 0;
}

static void add_bad(struct restore *restore, uint64_t begin, uint64_t end)
{
	if (begin != restore->bad_end) {
		tell_run(restore);
		restore->bad_begin = begin;
	}
	restore->bad_end = end;
}

static void clear_line(const struct restore *restore)
{
	if (restore->show)
		fprintf(stderr, "\r\033[K");
}

static void tell_chunk(struct restore *restore, const struct piece *piece,
		       const struct chunk *chunk)
{
	const struct head *head = &restore->volume->head;
	uint64_t offset = piece->first * head->chunk_size;
	uint64_t begin, end, first = 0, last = 0;
	unsigned int i, nr_told = 0;
	char key[KEY_SIZE];

	for (i = 0; i < head->chunk_size / head->frame_size; i++) {
		begin = offset + (uint64_t)i * head->frame_size;
		end = begin + head->frame_size < head->size ? begin + head->frame_size :
		      head->size;
		if (!chunk->bad[i] || begin >= end)
			continue;
		add_bad(restore, begin, end);
		first = nr_told++ ? first : begin;
		last = end - 1;
	}
	restore->nr_bad_chunks++;
	clear_line(restore);
	if (!chunk_key(restore->volume, piece->first, &piece->ref, key))
		key[0] = 0;
	fprintf(stderr, "objmap-rescue: chunk %" PRIu64 ", bytes %" PRIu64 " to %" PRIu64
		": %s/%s: %s\n", piece->first, first, last, restore->volume->bucket_name,
		key, chunk->why);
}

static void tell_progress(struct restore *restore)
{
	const double gib = 1 << 30, mib = 1 << 20;
	struct timespec now;
	double seconds;

	clock_gettime(CLOCK_MONOTONIC, &now);
	if (!restore->show || (now.tv_sec == restore->shown.tv_sec &&
			       now.tv_nsec - restore->shown.tv_nsec < 250000000))
		return;
	restore->shown = now;
	seconds = (double)(now.tv_sec - restore->begin.tv_sec) +
		  1e-9 * (double)(now.tv_nsec - restore->begin.tv_nsec);
	fprintf(stderr, "\r\033[K%.2f of %.2f GiB, %.0f MiB/s, %" PRIu64 " bad chunks",
		(double)restore->position / gib,
		(double)restore->volume->head.size / gib,
		seconds > 0 ? (double)restore->got_bytes / mib / seconds : 0,
		restore->nr_bad_chunks);
}

/* ---- the ring, from the caller's side ---------------------------------------------------- */

static int finish_piece(struct restore *restore, const struct piece *piece,
			const struct chunk *chunk)
{
	uint32_t size = restore->volume->head.chunk_size;
	uint64_t begin = piece->first * size, end = begin + piece->count * size;
	int error = 0;

	if (end > restore->volume->head.size)
		end = restore->volume->head.size;
	if (piece->kind == PIECE_CHUNK) {
		restore->nr_chunks++;
		restore->got_bytes += size;
		if (chunk->nr_bad)
			tell_chunk(restore, piece, chunk);
	} else {
		if (piece->kind == PIECE_LOST)
			add_bad(restore, begin, end);
		if (restore->output)
			error = output_zero(restore->output, begin, end - begin);
	}
	restore->position = end;
	tell_progress(restore);
	return error;
}

/* Takes the oldest piece out, waiting for it.  -1: it will not be done. */
static int retire(struct restore *restore)
{
	struct job *job = &restore->ring[restore->retired % RING_SIZE];
	bool done;

	pthread_mutex_lock(&restore->lock);
	while (!job->done && !restore->stop)
		pthread_cond_wait(&restore->changed, &restore->lock);
	done = job->done;
	/* What needs no worker goes before one has looked at it; none may look at what
	 * comes in its place before its turn. */
	if (done && restore->taken == restore->retired)
		restore->taken++;
	pthread_mutex_unlock(&restore->lock);
	if (!done || finish_piece(restore, &job->piece, &job->chunk))
		return -1;
	restore->retired++;
	return 0;
}

static int submit(const struct piece *piece, void *context)
{
	struct restore *restore = context;
	struct job *job;

	/* With room for as many as there are workers, none of them waits. */
	while (restore->put - restore->retired >= 2 * restore->nr_workers)
		if (retire(restore))
			return -1;
	pthread_mutex_lock(&restore->lock);
	job = &restore->ring[restore->put++ % RING_SIZE];
	job->piece = *piece;
	job->done = piece->kind != PIECE_CHUNK;
	pthread_cond_broadcast(&restore->changed);
	pthread_mutex_unlock(&restore->lock);
	return 0;
}

static int start(struct restore *restore, unsigned int connections)
{
	unsigned int most = MEMORY_MAX / restore->volume->head.chunk_size;
	unsigned int wanted = connections < most ? connections : most;

	if (wanted > WORKERS_MAX)
		wanted = WORKERS_MAX;
	for (; restore->nr_workers < wanted; restore->nr_workers++)
		if (pthread_create(&restore->workers[restore->nr_workers], NULL, work,
				   restore))
			break;
	if (restore->nr_workers)
		return 0;
	fprintf(stderr, "objmap-rescue: no thread can be started\n");
	return -1;
}

static void end(struct restore *restore)
{
	unsigned int i;

	pthread_mutex_lock(&restore->lock);
	restore->stop = true;
	pthread_cond_broadcast(&restore->changed);
	pthread_mutex_unlock(&restore->lock);
	for (i = 0; i < restore->nr_workers; i++)
		pthread_join(restore->workers[i], NULL);
}

/* The chunk that could not be asked for: why is still to be told. */
static void tell_lost_store(struct restore *restore)
{
	const struct job *job;
	uint64_t i;

	for (i = restore->retired; i < restore->put; i++) {
		job = &restore->ring[i % RING_SIZE];
		if (!job->chunk.lost_store || job->piece.kind != PIECE_CHUNK)
			continue;
		fprintf(stderr, "objmap-rescue: chunk %" PRIu64 ": %s\n", job->piece.first,
			job->chunk.why);
		return;
	}
}

int restore(const struct volume *volume, const struct output *output,
	    unsigned int connections, bool show)
{
	struct restore *restore = calloc(1, sizeof(*restore));
	int result;

	if (!restore) {
		fprintf(stderr, "objmap-rescue: no memory\n");
		return -1;
	}
	restore->volume = volume;
	restore->output = output;
	restore->show = show;
	pthread_mutex_init(&restore->lock, NULL);
	pthread_cond_init(&restore->changed, NULL);
	clock_gettime(CLOCK_MONOTONIC, &restore->begin);

	result = start(restore, connections);
	if (!result)
		result = volume_walk(volume, submit, restore);
	while (!result && restore->retired < restore->put)
		result = retire(restore);
	end(restore);
	clear_line(restore);
	if (result) {
		tell_lost_store(restore);
		fprintf(stderr, "objmap-rescue: stopped; nothing from byte %" PRIu64
			" on is whole\n", restore->position);
		if (restore->position < volume->head.size)
			add_bad(restore, restore->position, volume->head.size);
	}
	tell_run(restore);
	fprintf(stderr, "objmap-rescue: %" PRIu64 " bytes, %" PRIu64 " chunks %s, %" PRIu64
		" of them bad, %" PRIu64 " bytes bad\n", volume->head.size,
		restore->nr_chunks, output ? "restored" : "verified",
		restore->nr_bad_chunks, restore->bad_bytes);
	if (!result && restore->bad_bytes)
		result = 1;
	pthread_cond_destroy(&restore->changed);
	pthread_mutex_destroy(&restore->lock);
	free(restore);
	return result;
}
