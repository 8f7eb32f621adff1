/* claim.c: becoming a volume's one writer, and ceasing to be it.
 *
 * A claim is a swap that puts another writer into head: from then on no swap
 * prepared by an earlier one can be applied.  Who is asked first is the holder
 * that head names; it is overruled by --take-over, or when it is surely dead:
 * the machine has booted since, or the very lock file it had locked could be
 * locked by us. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "src/log.h"
#include "src/process.h"
#include "src/random.h"
#include "src/volume/claim.h"

#define CLAIM_TRIES 8		/* swaps lost to snapshots and short claims */

/* ---- who we are --------------------------------------------------------------- */

/* The first line of @path, empty when it cannot be read or does not fit. */
static void read_line(const char *path, char *line, size_t size)
{
	FILE *file = fopen(path, "re");

	line[0] = 0;
	if (!file)
		return;
	if (!fgets(line, (int)size, file))
		line[0] = 0;
	line[strcspn(line, "\n")] = 0;
	fclose(file);
}

static void holder_fill(struct holder *holder, int lock_fd)
{
	struct stat st;

	memset(holder, 0, sizeof(*holder));
	holder->held = true;
	holder->since = (uint64_t)time(NULL);
	holder->pid = (uint64_t)getpid();
	if (stat("/proc/self/ns/pid", &st) == 0)
		holder->pid_namespace = st.st_ino;
	if (lock_fd >= 0 && fstat(lock_fd, &st) == 0) {
		holder->lock_device = st.st_dev;
		holder->lock_inode = st.st_ino;
	}
	if (gethostname(holder->host, sizeof(holder->host) - 1) != 0)
		snprintf(holder->host, sizeof(holder->host), "unknown");
	read_line("/etc/machine-id", holder->machine, sizeof(holder->machine));
	read_line("/proc/sys/kernel/random/boot_id", holder->boot,
		  sizeof(holder->boot));
}

static bool same_machine(const struct holder *a, const struct holder *b)
{
	return a->machine[0] && strcmp(a->machine, b->machine) == 0;
}

static bool same_boot(const struct holder *a, const struct holder *b)
{
	return a->boot[0] && strcmp(a->boot, b->boot) == 0;
}

/* @holder cannot be alive.  @us has the lock, or no lock inode.  Machines made from one
 * image have the same id; their names may tell them apart. */
static bool holder_is_dead(const struct holder *holder, const struct holder *us)
{
	if (same_machine(holder, us) && strcmp(holder->host, us->host) == 0 &&
	    holder->boot[0] && us->boot[0] && !same_boot(holder, us))
		return true;
	return same_boot(holder, us) && us->lock_inode != 0 &&
	       us->lock_device == holder->lock_device &&
	       us->lock_inode == holder->lock_inode;
}

/* ---- the lock ----------------------------------------------------------------------- */

static void lock_path(char path[PATH_MAX], const char *runtime_dir,
		      const uint8_t uuid[16])
{
	char text[37];

	uuid_format(uuid, text);
	snprintf(path, PATH_MAX, "%s/%s.lock", runtime_dir, text);
}

/* Opens and locks UUID.lock.  -EWOULDBLOCK: another process here has it. */
static int lock_take(const char *path, int *fd)
{
	struct stat ours, there;

	for (;;) {
		*fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
		if (*fd < 0)
			return -errno;
		if (flock(*fd, LOCK_EX | LOCK_NB) != 0) {
			int error = -errno;

			close(*fd);
			*fd = -1;
			return error;
		}
		/* A take-over may have put a new file there meanwhile. */
		if (fstat(*fd, &ours) == 0 && stat(path, &there) == 0 &&
		    ours.st_ino == there.st_ino && ours.st_dev == there.st_dev)
			return 0;
		close(*fd);
	}
}

/* With --take-over a lock that its holder still has is left to him: ours is a
 * new file under the same name. */
static int claim_lock(struct store *store, const struct claim_options *options,
		      const uint8_t uuid[16], int *fd)
{
	char path[PATH_MAX];
	int error;

	*fd = -1;
	if (!options->runtime_dir)
		return 0;
	lock_path(path, options->runtime_dir, uuid);
	error = lock_take(path, fd);
	if (error == -EWOULDBLOCK && options->take_over) {
		unlink(path);
		error = lock_take(path, fd);
	}
	if (error == -EWOULDBLOCK)
		log_debug("%s: %s is locked by another process", store->place, path);
	else if (error)
		log_error("%s: cannot lock %s: %s", store->place, path,
			  strerror(-error));
	return error;
}

/* The same; a holder who was killed a moment ago is waited for. */
static int claim_lock_from(struct store *store, const struct claim_options *options,
			   const struct head *head, int *fd)
{
	const struct holder *holder = &head->holder;
	struct holder us;
	int tries = 0, lock;

	holder_fill(&us, -1);
	for (;;) {
		lock = claim_lock(store, options, head->uuid, fd);
		if (lock != -EWOULDBLOCK || !holder->held ||
		    !same_boot(holder, &us) ||
		    holder->pid_namespace != us.pid_namespace ||
		    !process_is_ending((pid_t)holder->pid) ||
		    ++tries == PROCESS_ENDING_TRIES)
			return lock;
		usleep(PROCESS_ENDING_PAUSE_US);
	}
}

/* ---- may we? --------------------------------------------------------------------------- */

static const char *since_format(uint64_t since, char text[32])
{
	time_t seconds = (time_t)since;
	struct tm tm;

	if (!localtime_r(&seconds, &tm) ||
	    !strftime(text, 32, "%Y-%m-%d %H:%M:%S", &tm))
		snprintf(text, 32, "an unknown time");
	return text;
}

static int refuse(struct store *store, const struct holder *holder,
		  const struct holder *us, bool journal, bool to_write)
{
	const char *where = same_boot(holder, us) ? "here" : "there";
	char since[32];

	if (journal)
		log_error("%s: volume is held by %s (pid %llu) since %s, with writes in "
			  "a local journal there: mount it there again, or give those "
			  "writes up with --take-over --abandon-journal",
			  store->place, holder->host,
			  (unsigned long long)holder->pid,
			  since_format(holder->since, since));
	else
		log_error("%s: volume is held by %s (pid %llu) since %s: unmount it %s, "
			  "%sor, if that writer is gone for good, add --take-over",
			  store->place, holder->host,
			  (unsigned long long)holder->pid,
			  since_format(holder->since, since), where,
			  to_write ? "mount it with --read-only, " : "");
	return -EBUSY;
}

/* Whether head's holder lets us claim.  @lock is what claim_lock() returned;
 * @to_write: not to be rolled back or deleted. */
static int may_claim(struct store *store, const struct claim_options *options,
		     const struct head *head, const struct holder *us, int lock,
		     bool to_write)
{
	const struct holder *holder = &head->holder;

	if (!holder->held) {
		if (lock != -EWOULDBLOCK)
			return 0;
		log_error("%s: another objmap on this machine is opening or closing "
			  "this volume: try again in a moment", store->place);
		return -EBUSY;
	}
	if (lock != -EWOULDBLOCK && holder_is_dead(holder, us)) {
		log_notice("%s: %s (pid %llu) did not close this volume and is gone: "
			   "going on from its last commit", store->place,
			   holder->host, (unsigned long long)holder->pid);
		return 0;
	}
	if (!options->take_over)
		return refuse(store, holder, us, false, to_write);
	if (holder->journal && !same_machine(holder, us) && !options->abandon_journal)
		return refuse(store, holder, us, true, to_write);
	log_notice("%s: taken over from %s (pid %llu): what it has not committed "
		   "stays with it", store->place, holder->host,
		   (unsigned long long)holder->pid);
	return 0;
}

int claim_probe(struct store *store, bool exclusive_word, bool *exclusive)
{
	struct store_request request = { .cause = CAUSE_HEAD };
	char key[VOLUME_KEY_MAX];
	enum store_outcome outcome;
	int error;

	key_probe(key, random_id());
	request.key = key;
	outcome = store_wait(store, STORE_PROBE, &request);
	error = outcome == STORE_REFUSED ? -EOPNOTSUPP
					 : store_errno(outcome, &request.reply);
	*exclusive = error == -EOPNOTSUPP && exclusive_word;
	if (!error || *exclusive)
		return 0;
	if (error == -EOPNOTSUPP)
		log_error("%s: this store lets a conditional put through whose condition "
			  "does not hold, so two writers could not be told apart; if "
			  "nobody else ever writes this volume, say --exclusive",
			  store->place);
	else
		log_error("%s: cannot probe the store for conditional puts: %s",
			  store->place, store_reply_reason(&request.reply));
	return error;
}

/* ---- claim -------------------------------------------------------------------------------- */

static int read_live_head(struct store *store, struct stored_head *stored)
{
	int error = head_read(store, stored);

	if (!error && stored->head.state == HEAD_DELETED) {
		log_error("%s: this volume was deleted", store->place);
		return -ENOENT;
	}
	if (error == -ENOENT)
		log_error("%s: there is no volume here; objmap create makes one",
			  store->place);
	return error;
}

/* One read, judgement and swap; the store is probed once, and not where
 * there is nothing to claim.  --take-over was said of the writer that was
 * there at first (@first, 0 until known), not of one who claims while we do.
 * -EAGAIN: head was changed meanwhile. */
static int claim_once(struct swap *swap, const struct claim_options *given,
		      bool keep, claim_change *change, void *context,
		      struct claim *claim, uint64_t *first, bool *probed)
{
	struct claim_options options = *given;
	struct store *store = swap->store;
	struct holder us;
	int lock, error;

	error = read_live_head(store, &swap->base);
	if (!error && !*probed)
		error = claim_probe(store, options.exclusive, &claim->exclusive);
	if (error)
		return error;
	*probed = true;
	swap->exclusive = claim->exclusive;
	if (*first == 0)
		*first = swap->base.head.writer;
	if (*first != swap->base.head.writer)
		options.take_over = false;
	lock = claim_lock_from(store, &options, &swap->base.head, &claim->lock_fd);
	if (lock && lock != -EWOULDBLOCK)
		return lock;
	holder_fill(&us, claim->lock_fd);
	error = may_claim(store, &options, &swap->base.head, &us, lock, keep);
	if (error)
		return error;
	claim->writer = random_id();
	swap->next = swap->base.head;
	head_pass_on(&swap->next, claim->writer);
	if (keep)
		swap->next.holder = us;
	error = change ? change(context, &swap->base, &swap->next) : 0;
	if (error)
		return error;
	swap->sent = false;
	error = head_swap(swap);
	if (error == -ESTALE || error == -EALREADY)
		return -EAGAIN;
	claim->head = swap->base;
	return error;
}

int claim_take(struct store *store, const struct claim_options *options,
	       bool keep, claim_change *change, void *context,
	       struct claim *claim)
{
	struct swap swap = { .store = store };
	unsigned int tries = 0;
	uint64_t first = 0;
	bool probed = false;
	int error;

	claim->lock_fd = -1;
	claim->used = 0;
	claim->exclusive = false;
	do {
		claim_drop(claim);
		error = claim_once(&swap, options, keep, change, context, claim,
				   &first, &probed);
	} while (error == -EAGAIN && ++tries < CLAIM_TRIES);
	if (error == -EAGAIN) {
		log_error("%s: head kept changing while it was claimed: try again",
			  store->place);
		error = -EBUSY;
	}
	if (error)
		claim_drop(claim);
	return error;
}

/* Whether the lock that @head's holder had locked is free. */
static int holder_lock_is_free(struct store *store, const struct claim_options *options,
			       const struct head *head)
{
	const struct holder *holder = &head->holder;
	struct holder us;
	int fd, lock;
	bool free;

	lock = claim_lock_from(store, options, head, &fd);
	if (lock)
		return lock == -EWOULDBLOCK ? 0 : lock;
	holder_fill(&us, fd);
	free = same_boot(holder, &us) && holder_is_dead(holder, &us);
	if (fd >= 0)
		close(fd);
	return free;
}

int claim_close_killed(struct store *store, const struct claim_options *options,
		       const struct head *head)
{
	struct claim claim;
	struct holder us;
	int error;

	holder_fill(&us, -1);
	if (!head->holder.held || head->holder.journal ||
	    !same_boot(&head->holder, &us))
		return 0;
	error = holder_lock_is_free(store, options, head);
	if (error != 1)
		return error;
	error = claim_take(store, options, false, NULL, NULL, &claim);
	if (error)
		return error;
	claim_drop(&claim);
	return 1;
}

int claim_release(struct store *store, struct claim *claim)
{
	struct swap swap = { .store = store, .base = claim->head,
			     .next = claim->head.head, .by_writer = true,
			     .exclusive = claim->exclusive };
	int error;

	memset(&swap.next.holder, 0, sizeof(swap.next.holder));
	if (swap.next.epoch < claim->used)
		swap.next.epoch = claim->used;	/* numbers given up stay burnt */
	swap.next.epoch++;
	error = head_swap(&swap);
	if (error == -ESTALE || error == -EALREADY)
		error = 0;	/* no longer ours: nothing to give back */
	else if (error)
		log_error("%s: the volume stays marked as held by this machine; the "
			  "next mount here goes on by itself", store->place);
	claim_drop(claim);
	return error;
}

void claim_drop(struct claim *claim)
{
	if (claim->lock_fd >= 0)
		close(claim->lock_fd);
	claim->lock_fd = -1;
}
