/* contract.c: random operations against a flat array.
 *
 * A round submits up to ROUND operations at once, on ranges that do not
 * overlap but often share chunks, waits for all, and compares.  Later rounds
 * overlap earlier ones. */
#include <endian.h>
#include <errno.h>
#include <inttypes.h>
#include <malloc.h>
#include <semaphore.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "src/random.h"
#include "src/stage/iov.h"
#include "tests/stage/contract.h"

#define ROUND		12
#define PIECES_MAX	48
#define EXTENTS_MAX	16
#define PATIENCE	120		/* seconds until a request is stuck */

struct operation {
	struct request request;
	struct walk *walk;
	char *data;
	struct iovec iov[PIECES_MAX];
	struct extent extents[EXTENTS_MAX];
	struct extent_list list;
	int error;
};

struct walk {
	const struct pipeline *pipeline;
	uint64_t seed;
	struct random random;
	struct stage *stage;
	uint64_t size;
	char *oracle;			/* size bytes */
	sem_t done;
	struct operation operations[ROUND];
	unsigned int nr;
	unsigned int step;		/* operations so far, for messages */
};

uint64_t contract_seed(void)
{
	const char *text = getenv("OBJMAP_TEST_SEED");

	return text ? strtoull(text, NULL, 0) : random_id();
}

unsigned int contract_operations(void)
{
	const char *text = getenv("OBJMAP_TEST_OPERATIONS");

	return text ? (unsigned int)strtoul(text, NULL, 0) : 10000;
}

static uint64_t draw(struct walk *walk, uint64_t limit)
{
	return random_below(&walk->random, limit);
}

static int wrong(struct walk *walk, const struct operation *op, const char *what)
{
	fprintf(stderr, "contract: %s, OBJMAP_TEST_SEED=%" PRIu64 ", operation %u: %s %" PRIu64
		"+%" PRIu64 " flags %x: %s (%s)\n", walk->pipeline->name,
		walk->seed, walk->step, request_op_name(op->request.op),
		op->request.offset, op->request.count, op->request.flags, what,
		strerror(-op->error));
	return 1;
}

/* ---- drawing operations ------------------------------------------------------ */

static void draw_range(struct walk *walk, uint64_t *offset, uint64_t *count)
{
	static const uint32_t units[] = { 1, 1, 512, 4096, 65536, 1 << 20 };
	/* Mostly short: what is cut at more borders costs more and shows little more. */
	static const uint32_t lengths[] = { 1, 600, 600, 4096, 4096, 4096, 70000, 70000,
					    150000, 300000, 1 << 20, 3500000 };
	uint32_t unit = units[draw(walk, 6)];
	uint32_t longest = lengths[draw(walk, 12)];

	*offset = draw(walk, walk->size) / unit * unit;
	*count = 1 + draw(walk, longest);
	if (unit > 1 && draw(walk, 2))
		*count = (*count + unit - 1) / unit * unit;
	if (*count > walk->size - *offset || draw(walk, 30) == 0)
		*count = walk->size - *offset;
	if (*count > 3500000)
		*count = 3500000;
}

static bool is_free(const struct walk *walk, uint64_t offset, uint64_t count)
{
	for (unsigned int i = 0; i < walk->nr; i++) {
		const struct request *r = &walk->operations[i].request;

		if (offset < r->offset + r->count && r->offset < offset + count)
			return false;
	}
	return true;
}

static enum request_op draw_op(struct walk *walk)
{
	static const unsigned char weights[NR_REQUEST_OPS] = {
		[REQUEST_READ] = 34, [REQUEST_WRITE] = 34, [REQUEST_ZERO] = 10,
		[REQUEST_TRIM] = 8,  [REQUEST_FLUSH] = 4,
		[REQUEST_EXTENTS] = 6, [REQUEST_PREFETCH] = 4,
	};
	uint64_t n = draw(walk, 100);
	unsigned int op = 0;

	while (n >= weights[op])
		n -= weights[op++];
	return op;
}

static unsigned int draw_flags(struct walk *walk, enum request_op op)
{
	unsigned int flags = draw(walk, 5) == 0 ? REQUEST_NOWAIT : 0;

	if ((op == REQUEST_WRITE || op == REQUEST_ZERO || op == REQUEST_TRIM) &&
	    draw(walk, 4) == 0)
		flags |= REQUEST_FUA;
	if (op == REQUEST_ZERO)
		flags |= (unsigned int)draw(walk, 4) * REQUEST_MAY_TRIM;
	return flags;
}

/* Cuts the data into pieces of any length, 0 too. */
static void draw_pieces(struct walk *walk, struct operation *op)
{
	uint64_t count = op->request.count, at = 0;
	unsigned int nr = 1 + (unsigned int)(draw(walk, 3) ? 0 : draw(walk, PIECES_MAX));

	for (unsigned int i = 0; i < nr; i++) {
		uint64_t length = i + 1 == nr ? count - at :
				  draw(walk, (count - at) / (draw(walk, 8) + 1) + 1);

		op->iov[i] = (struct iovec){ op->data + at, length };
		at += length;
	}
	op->request.iov = op->iov;
	op->request.nr_iov = nr;
}

static void operation_done(struct request *request, void *context, int error)
{
	struct operation *op = context;

	op->error = error;
	sem_post(&op->walk->done);
}

/* Adds an operation to the round, unless its range is taken. */
static void add_operation(struct walk *walk)
{
	struct operation *op = &walk->operations[walk->nr];
	enum request_op kind = draw_op(walk);
	uint64_t offset = 0, count = 0;

	if (kind != REQUEST_FLUSH) {
		draw_range(walk, &offset, &count);
		if (!is_free(walk, offset, count))
			return;
	}
	request_init(&op->request, kind, offset, count, operation_done, op);
	op->request.flags = draw_flags(walk, kind);
	op->request.stream = (uint32_t)walk->nr;
	op->walk = walk;
	op->data = NULL;
	if (kind == REQUEST_READ || kind == REQUEST_WRITE) {
		op->data = malloc(count);
		memset(op->data, (int)draw(walk, 256), count);
		for (uint64_t i = 0; kind == REQUEST_WRITE && i < count; i += 97)
			op->data[i] = (char)draw(walk, 256);
		draw_pieces(walk, op);
	}
	op->list = (struct extent_list){ op->extents, 1 + (unsigned int)draw(walk, EXTENTS_MAX), 0 };
	op->request.extents = &op->list;
	walk->nr++;
}

/* ---- what must come of them ----------------------------------------------------- */

static int check_extents(struct walk *walk, struct operation *op)
{
	uint64_t at = op->request.offset, end = at + op->request.count;

	if (op->list.nr == 0 || op->list.nr > op->list.max)
		return wrong(walk, op, "not between one and max extents");
	for (unsigned int i = 0; i < op->list.nr; i++) {
		const struct extent *e = &op->extents[i];

		if (e->count == 0 || e->count > end - at)
			return wrong(walk, op, "an extent is empty or beyond the range");
		if (i && e->flags == op->extents[i - 1].flags)
			return wrong(walk, op, "neighbours have the same flags");
		for (uint64_t b = at; e->flags & EXTENT_ZERO && b < at + e->count; b++)
			if (walk->oracle[b])
				return wrong(walk, op, "an extent is said to be zeros and is not");
		at += e->count;
	}
	return 0;
}

/* Trimmed bytes are the old ones or zeros, the same at each read. */
static int check_trim(struct walk *walk, struct operation *op)
{
	uint64_t count = op->request.count, offset = op->request.offset;
	char *data = malloc(2 * count);
	int failed = 0;

	if (stage_read(walk->stage, data, count, offset, 0) ||
	    stage_read(walk->stage, data + count, count, offset, 0))
		failed = wrong(walk, op, "reading after it failed");
	else if (memcmp(data, data + count, count) != 0)
		failed = wrong(walk, op, "two reads after it differ");
	for (uint64_t i = 0; !failed && i < count; i++)
		if (data[i] && data[i] != walk->oracle[offset + i])
			failed = wrong(walk, op, "a byte after it is neither old nor zero");
	memcpy(walk->oracle + offset, data, count);
	free(data);
	return failed;
}

static bool is_change(const struct operation *op)
{
	return op->request.op == REQUEST_WRITE || op->request.op == REQUEST_ZERO ||
	       op->request.op == REQUEST_TRIM;
}

static int check_operation(struct walk *walk, struct operation *op)
{
	struct request *r = &op->request;

	if (walk->stage->geometry.flags & STAGE_READ_ONLY && is_change(op))
		return op->error == -EROFS ? 0 : wrong(walk, op, "not refused");
	if (op->error)
		return wrong(walk, op, "failed");
	switch (r->op) {
	case REQUEST_READ:
		if (memcmp(op->data, walk->oracle + r->offset, r->count) != 0)
			return wrong(walk, op, "read other bytes than were written");
		return 0;
	case REQUEST_EXTENTS:
		return check_extents(walk, op);
	case REQUEST_TRIM:
		return check_trim(walk, op);
	case REQUEST_WRITE:
		if (walk->pipeline->content == KEEPS)
			memcpy(walk->oracle + r->offset, op->data, r->count);
		return 0;
	case REQUEST_ZERO:
		memset(walk->oracle + r->offset, 0, r->count);
		return 0;
	default:
		return 0;
	}
}

/* ---- a round --------------------------------------------------------------------- */

static int wait_for(struct walk *walk, unsigned int nr)
{
	struct timespec until;

	clock_gettime(CLOCK_REALTIME, &until);
	until.tv_sec += PATIENCE;
	while (nr) {
		if (sem_timedwait(&walk->done, &until) == 0) {
			nr--;
		} else if (errno == ETIMEDOUT) {
			fprintf(stderr, "contract: %s, OBJMAP_TEST_SEED=%" PRIu64 ": %u requests never completed\n",
				walk->pipeline->name, walk->seed, nr);
			return 1;
		}
	}
	return 0;
}

/* What would have waited, or would not have been fast, had no effect; some of
 * it is asked for again without that flag, some given up. */
static unsigned int submit_again(struct walk *walk)
{
	unsigned int nr = 0;

	for (unsigned int i = 0; i < walk->nr; i++) {
		struct operation *op = &walk->operations[i];
		struct request old = op->request;
		unsigned int flag = op->error == -EAGAIN ? REQUEST_NOWAIT :
			op->error == -EOPNOTSUPP ? REQUEST_FAST_ZERO : 0;

		if (!(old.flags & flag))
			continue;
		/* Fast zeros may have been partly written. */
		if (flag == REQUEST_NOWAIT && is_change(op) && draw(walk, 3) == 0) {
			op->error = 0;
			old.flags = 0;
			old.op = REQUEST_PREFETCH;
		}
		request_init(&op->request, old.op, old.offset, old.count,
			     operation_done, op);
		op->request.flags = old.flags & ~flag;
		op->request.iov = old.iov;
		op->request.nr_iov = old.nr_iov;
		op->request.extents = old.extents;
		nr++;
		stage_submit(walk->stage, &op->request);
	}
	return nr;
}

static int run_round(struct walk *walk)
{
	int failed;
	unsigned int wanted = 1 + (unsigned int)draw(walk, ROUND), again;

	walk->nr = 0;
	for (unsigned int tries = 0; walk->nr < wanted && tries < 4 * ROUND; tries++)
		add_operation(walk);
	for (unsigned int i = 0; i < walk->nr; i++)
		stage_submit(walk->stage, &walk->operations[i].request);
	failed = wait_for(walk, walk->nr);
	while (!failed && (again = submit_again(walk)) > 0)
		failed = wait_for(walk, again);
	for (unsigned int i = 0; i < walk->nr; i++) {
		if (!failed)
			failed = check_operation(walk, &walk->operations[i]);
		free(walk->operations[i].data);
		walk->step++;
	}
	return failed;
}

/* All of it is as the array says, and the extents cover all of it. */
static int check_whole(struct walk *walk)
{
	struct operation op = { .list = { op.extents, EXTENTS_MAX, 0 } };
	char *data = malloc(walk->size);
	int failed = 0;

	request_init(&op.request, REQUEST_READ, 0, walk->size, operation_done, &op);
	op.error = stage_read(walk->stage, data, walk->size, 0, 0);
	if (op.error || memcmp(data, walk->oracle, walk->size) != 0)
		failed = wrong(walk, &op, "the whole device is not what was written");
	for (uint64_t at = 0; !failed && at < walk->size;) {
		request_init(&op.request, REQUEST_EXTENTS, at, walk->size - at,
			     operation_done, &op);
		op.error = stage_extents(walk->stage, walk->size - at, at, &op.list);
		failed = op.error ? wrong(walk, &op, "failed") :
			 check_extents(walk, &op);
		for (unsigned int i = 0; i < op.list.nr; i++)
			at += op.extents[i].count;
	}
	free(data);
	return failed;
}

static void fill_oracle(struct walk *walk)
{
	walk->oracle = calloc(1, walk->size + 8);
	for (uint64_t at = 0; walk->pipeline->content == IS_PATTERN && at < walk->size;
	     at += 8) {
		uint64_t word = htobe64(at);

		memcpy(walk->oracle + at, &word, 8);
	}
}

int contract_run(const struct pipeline *pipeline, uint64_t seed,
		 unsigned int nr_operations)
{
	char folder[] = "/tmp/objmap-XXXXXX", command[64];
	struct walk walk = { .pipeline = pipeline, .seed = seed };
	int failed;

	fprintf(stderr, "contract: %s: OBJMAP_TEST_SEED=%" PRIu64 ", %u operations\n",
		pipeline->name, seed, nr_operations);
	random_seed(&walk.random, seed);
	/* No system calls and page faults for every buffer. */
	mallopt(M_MMAP_THRESHOLD, 32 << 20);
	mallopt(M_TRIM_THRESHOLD, 256 << 20);
	sem_init(&walk.done, 0, 0);
	if (!mkdtemp(folder) || pipeline->open(folder, &walk.stage)) {
		fprintf(stderr, "contract: %s: cannot be opened\n", pipeline->name);
		return 1;
	}
	walk.size = stage_size(walk.stage);
	fill_oracle(&walk);
	do
		failed = run_round(&walk);
	while (!failed && walk.step < nr_operations);
	if (!failed)
		failed = check_whole(&walk);
	/* A stage with requests that never ended cannot be closed. */
	if (!failed)
		stage_close(walk.stage);
	free(walk.oracle);
	snprintf(command, sizeof(command), "rm -rf %s", folder);
	return system(command) || failed;
}
