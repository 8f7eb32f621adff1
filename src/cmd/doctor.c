/* doctor.c: `objmap doctor`: what this machine and a place can do, and why not.
 *
 * A "no" of the machine is a fact, not a failure: only a place that cannot be
 * used makes the exit status 1. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <curl/curl.h>
#include <libxml/xmlversion.h>
#include <openssl/crypto.h>

#include "config.h"
#include "src/clock.h"
#include "src/cmd/doctor.h"
#include "src/cmd/open.h"
#include "src/cmd/print.h"
#include "src/cmd/verbs.h"
#include "src/errors.h"
#include "src/log.h"
#include "src/random.h"
#include "src/utf8.h"
#include "src/where.h"

#define NR_FSYNCS    5
#define FILES_WANTED 4096	/* 2,048 NBD connections and room */

void note(struct findings *findings, const char *name, bool ok,
	  const char *remedy, const char *format, ...)
{
	char detail[512];
	va_list args;

	va_start(args, format);
	vsnprintf(detail, sizeof(detail), format, args);
	va_end(args);
	utf8_mend(detail);
	json_array_append_new(findings->list, json_pack("{s:s, s:b, s:s, s:s?}",
			      "what", name, "ok", (int)ok, "detail", detail,
			      "remedy", ok ? NULL : remedy));
}

/* ---- the machine --------------------------------------------------------------------- */

#ifdef HAVE_FUSE
static bool program_on_path(const char *name)
{
	const char *path = getenv("PATH");
	char file[4096];
	size_t length;

	while (path && *path) {
		length = strcspn(path, ":");
		snprintf(file, sizeof(file), "%.*s/%s", (int)length, path, name);
		if (access(file, X_OK) == 0)
			return true;
		path += length + (path[length] == ':');
	}
	return false;
}
#endif

static void look_at_fuse(struct findings *findings)
{
#ifdef HAVE_FUSE
	int fd = open("/dev/fuse", O_RDWR | O_CLOEXEC);

	if (fd < 0)
		note(findings, "volumes as files (FUSE)", false,
		     errno == ENOENT ? "modprobe fuse; in a container pass --device /dev/fuse"
		     : "run as a user who may open /dev/fuse, or mount at nbd+unix:///?socket=PATH",
		     "/dev/fuse: %s", strerror(errno));
	else if (geteuid() != 0 && !program_on_path("fusermount3"))
		note(findings, "volumes as files (FUSE)", false,
		     "install fuse3", "fusermount3 is not on PATH");
	else
		note(findings, "volumes as files (FUSE)", true, NULL,
		     "/dev/fuse can be opened");
	if (fd >= 0)
		close(fd);
#else
	note(findings, "volumes as files (FUSE)", false,
	     "build objmap with libfuse 3", "not in this build");
#endif
}

static void look_at_loop(struct findings *findings)
{
	if (access("/dev/loop-control", R_OK | W_OK) == 0)
		note(findings, "loop devices", true, NULL,
		     "a mounted file can carry a file system");
	else
		note(findings, "loop devices", false,
		     errno == ENOENT ? "modprobe loop; in a container pass the devices in"
				     : "run losetup and mount as root",
		     "/dev/loop-control: %s", strerror(errno));
}

/* A module that is loaded, built in, or there to be loaded. */
static void look_at_nbd(struct findings *findings)
{
	char path[300], line[512];
	struct utsname kernel;
	bool found = false;
	FILE *modules;

	if (access("/sys/module/nbd", F_OK) == 0) {
		note(findings, "kernel nbd client", true, NULL,
		     "the nbd module is there");
		return;
	}
	uname(&kernel);
	snprintf(path, sizeof(path), "/lib/modules/%s/modules.dep", kernel.release);
	modules = fopen(path, "re");
	while (modules && !found && fgets(line, sizeof(line), modules))
		found = strstr(line, "/nbd.ko") != NULL;
	if (modules)
		fclose(modules);
	note(findings, "kernel nbd client", found,
	     "use the file (FUSE) with a loop device instead",
	     found ? "modprobe nbd loads it" : "kernel %s has no nbd module",
	     kernel.release);
}

static void look_at_userfaultfd(struct findings *findings)
{
	FILE *file = fopen("/proc/sys/vm/unprivileged_userfaultfd", "re");
	int allowed = 0;

	if (access("/dev/userfaultfd", R_OK | W_OK) == 0) {
		note(findings, "userfaultfd", true, NULL,
		     "/dev/userfaultfd can be opened");
	} else if (!file) {
		note(findings, "userfaultfd", false, "a kernel of 4.3 or newer with it",
		     "this kernel has none");
	} else if (geteuid() == 0 || (fscanf(file, "%d", &allowed) == 1 && allowed)) {
		note(findings, "userfaultfd", true, NULL, "through the system call");
	} else {
		note(findings, "userfaultfd", false,
		     "let the user open /dev/userfaultfd, or sysctl vm.unprivileged_userfaultfd=1",
		     "only root may handle the kernel's faults");
	}
	if (file)
		fclose(file);
}

static void look_at_limits(struct findings *findings)
{
	struct rlimit files;

	getrlimit(RLIMIT_NOFILE, &files);
	if (files.rlim_max >= FILES_WANTED)
		note(findings, "open files", true, NULL, "up to %llu",
		     (unsigned long long)files.rlim_max);
	else
		note(findings, "open files", false,
		     "raise the hard limit (ulimit -Hn, LimitNOFILE=)",
		     "up to %llu, %d are wanted for 2,048 NBD clients",
		     (unsigned long long)files.rlim_max, FILES_WANTED);
}

static void look_at_folders(const struct options *options,
			    struct findings *findings)
{
	const char *runtime = runtime_dir();
	char *state = state_dir(option_text(options, "state"));

	note(findings, "runtime folder", runtime != NULL,
	     "set OBJMAP_RUNTIME_DIR to a folder of your own",
	     "%s", runtime ? runtime : "cannot be had");
	note(findings, "state folder", state != NULL,
	     "give a local one with --state DIR", "%s",
	     state ? state : "cannot be had");
	free(state);
}

static void look_at_libraries(struct findings *findings)
{
	note(findings, "libraries", true, NULL,
	     "%s, libcurl %s, libxml2 %s, jansson %s",
	     OpenSSL_version(OPENSSL_VERSION),
	     curl_version_info(CURLVERSION_NOW)->version, LIBXML_DOTTED_VERSION,
	     jansson_version_str());
}

/* ---- the place -------------------------------------------------------------------------- */

static void note_place(struct findings *findings, const char *name, bool ok,
		       const char *remedy, const char *detail)
{
	note(findings, name, ok, remedy, "%s", detail);
	findings->place_failed |= !ok;
}

static void look_at_probe(struct findings *findings, struct store *store)
{
	char key[VOLUME_KEY_MAX];
	struct store_request request = { .cause = CAUSE_HEAD, .key = key };
	enum store_outcome outcome;

	key_probe(key, random_id());
	outcome = store_wait(store, STORE_PROBE, &request);
	if (outcome == STORE_DONE)
		note_place(findings, "conditional puts", true, NULL,
			   "really conditional");
	else if (outcome == STORE_REFUSED)
		note_place(findings, "conditional puts", false,
			   "use another store, or --exclusive where nobody else ever writes",
			   "the store lets puts through whose condition does not hold");
	else
		note_place(findings, "conditional puts", false,
			   "make the place writable",
			   request.reply.error ? store_reply_reason(&request.reply)
					       : "no answer");
}

/* The median of a few small writes; 0: @path cannot be written. */
static uint64_t fsync_time(const char *path)
{
	uint64_t times[NR_FSYNCS], started, t;
	char file[4096], block[4096] = { 1 };
	int fd, i, j;

	snprintf(file, sizeof(file), "%s/.objmap-doctor-XXXXXX", path);
	fd = mkostemp(file, O_CLOEXEC);
	if (fd < 0)
		return 0;
	for (i = 0; i < NR_FSYNCS; i++) {
		started = clock_now();
		if (pwrite(fd, block, sizeof(block), i * 4096) < 0 || fsync(fd) != 0)
			break;
		t = clock_now() - started;
		for (j = i; j > 0 && times[j - 1] > t; j--)
			times[j] = times[j - 1];
		times[j] = t;
	}
	close(fd);
	unlink(file);
	return i == NR_FSYNCS ? times[NR_FSYNCS / 2] : 0;
}

static void look_at_fsync(struct findings *findings, const struct place *place)
{
	uint64_t time = fsync_time(place->path);
	char text[64];

	if (time == 0) {
		note_place(findings, "writing", false,
			   "run as a user who may write there, or make room",
			   strerror(errno));
		return;
	}
	snprintf(text, sizeof(text), "a write and fsync takes %.2f ms",
		 (double)time / CLOCK_MS);
	note_place(findings, "writing", true, NULL, text);
}

static void look_at_volume(struct findings *findings, struct store *store)
{
	char size[UNITS_TEXT];
	struct head head;
	int error = volume_read_head(store, &head, NULL);

	if (error == -ENOENT || (!error && head.state == HEAD_DELETED))
		note_place(findings, "volume", true, NULL,
			   "none yet; objmap create makes one");
	else if (error)
		note_place(findings, "volume", false,
			   "see the message above; objmap verify says more",
			   error_words(error));
	else
		note_place(findings, "volume", true, NULL,
			   size_format(head.size, size));
}

static void look_at_store(const struct options *options,
			  struct findings *findings, const struct place *place)
{
	char why[512];
	struct store *store;
	int error;

	log_capture(why, sizeof(why));
	error = open_store(options, place, false, &store);
	log_capture(NULL, 0);
	if (error) {
		note_place(findings, "opening", false, "put that right, or name another place", why);
		return;
	}
	note_place(findings, "opening", true, NULL, "a directory of this machine");
	look_at_volume(findings, store);
	look_at_probe(findings, store);
	look_at_fsync(findings, place);
	store_close(store);
}

static void look_at_device(const struct options *options,
			   struct findings *findings, const struct place *place)
{
	struct device_options device;
	char size[UNITS_TEXT], why[512];
	struct stage *stage;
	int error;

	log_capture(why, sizeof(why));
	open_device_options(options, &device);
	device.read_only = true;
	error = place_open_device(place, &device, &stage);
	log_capture(NULL, 0);
	if (error) {
		note_place(findings, "opening", false, "put that right, or name another place", why);
		return;
	}
	note_place(findings, "opening", true, NULL,
		   size_format(stage_size(stage), size));
	stage_close(stage);
}

/* ---- the verb ------------------------------------------------------------------------------ */

static void print_findings(const json_t *list)
{
	const char *remedy;
	json_t *entry;
	size_t i;

	json_array_foreach(list, i, entry) {
		printf("%-4s %-24s %s\n",
		       json_is_true(json_object_get(entry, "ok")) ? "yes" : "no",
		       json_string_value(json_object_get(entry, "what")),
		       json_string_value(json_object_get(entry, "detail")));
		remedy = json_string_value(json_object_get(entry, "remedy"));
		if (remedy)
			printf("%-4s %-24s -> %s\n", "", "", remedy);
	}
}

int doctor_run(const struct options *options, int nr_arguments, char **arguments)
{
	struct findings findings = { .list = json_array() };
	struct place place;
	int error, status = EXIT_SUCCESS;

	if (nr_arguments == 1) {
		error = open_place(options, arguments[0], WANT_PLACE, &place);
		if (error) {
			json_decref(findings.list);
			return exit_status(error);
		}
	}
	look_at_fuse(&findings);
	look_at_loop(&findings);
	look_at_nbd(&findings);
	look_at_userfaultfd(&findings);
	look_at_limits(&findings);
	look_at_folders(options, &findings);
	look_at_libraries(&findings);
	if (nr_arguments == 1) {
		if (strcmp(place.scheme, "dir") == 0)
			look_at_store(options, &findings, &place);
		else if (strcmp(place.scheme, "s3") == 0)
			look_at_s3(options, &findings, &place);
		else if (!place.is_volume)
			look_at_device(options, &findings, &place);
		place_free(&place);
	}
	if (option_flag(options, "json")) {
		status = print_json(findings.list);
	} else {
		print_findings(findings.list);
		json_decref(findings.list);
	}
	return findings.place_failed ? EXIT_FAILURE : status;
}
