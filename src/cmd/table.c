/* table.c: every verb, and every option. */
#include <stddef.h>

#include "src/cmd/options.h"
#include "src/cmd/verbs.h"
#include "src/place_s3.h"
#include "src/volume/format.h"

#define KIB 1024ull
#define MIB (1024 * KIB)
#define GIB (1024 * MIB)
#define MS  1000000ull

const struct option_spec option_table[] = {
	/* What can hurt: from the command line only, and none implies another. */
	{ "abandon-journal", 0, OPTION_FLAG, .command_line_only = true,
	  .text = "take over though the holder keeps unsaved writes in a journal" },
	{ "exclusive", 0, OPTION_FLAG, .command_line_only = true,
	  .text = "nobody else writes: do without a store's conditional puts" },
	{ "force", 0, OPTION_FLAG, .command_line_only = true,
	  .text = "unmount though it is in use or cannot be saved" },
	{ "no-drain", 0, OPTION_FLAG, .command_line_only = true,
	  .text = "drop what is not committed (needs --force)" },
	{ "over", 0, OPTION_FLAG, .command_line_only = true,
	  .text = "mount over a file that is not empty" },
	{ "overwrite", 0, OPTION_FLAG, .command_line_only = true,
	  .text = "write into a destination that exists" },
	{ "take-over", 0, OPTION_FLAG, .command_line_only = true,
	  .text = "claim a volume that somebody else holds" },
	{ "yes", 'y', OPTION_FLAG, .command_line_only = true,
	  .text = "do not ask" },

	/* What a volume is. */
	{ "size", 's', OPTION_SIZE, "SIZE", .minimum = 1,
	  .text = "bytes of the volume; K, M, G, T, P are powers of 1024" },
	{ "chunk-size", 0, OPTION_SIZE, "SIZE", .fallback = "1M",
	  .minimum = CHUNK_SIZE_MIN, .maximum = CHUNK_SIZE_MAX,
	  .power_of_two = true,
	  .text = "bytes of a chunk, 64K to 64M, a power of two" },
	{ "codec", 0, OPTION_CHOICE, "CODEC", .choices = "none",
	  .fallback = "none", .text = "how chunks are stored" },

	/* Opening a place. */
	{ "read-only", 'r', OPTION_FLAG, .text = "refuse every write" },
	{ "writable", 'w', OPTION_FLAG,
	  .text = "s3+object: publish a new version at each flush" },
	{ "dirty-limit", 0, OPTION_SIZE, "SIZE", .fallback = "1G",
	  .minimum = 64 * MIB, .text = "s3+object: unsaved writes kept on disk" },
	{ "direct", 0, OPTION_FLAG, .text = "without a cache (every mount of this build)" },
	{ "durability", 0, OPTION_CHOICE, "WHEN", .choices = "remote|none",
	  .later = "journal", .fallback = "remote",
	  .text = "a flush returns after the commit, or at once" },
	{ "follow", 0, OPTION_FLAG,
	  .text = "read-only: move on to newer commits of the writer" },
	{ "refresh-interval", 0, OPTION_TIME, "TIME", .fallback = "10s",
	  .minimum = 100 * MS, .text = "how often --follow looks for one" },
	{ "retry-for", 0, OPTION_TIME, "TIME", .fallback = "30s",
	  .text = "how long a store that fails for a while is tried again" },
	/* The server of an s3: place; the same names may follow its '?'. */
	{ "endpoint-url", 0, OPTION_TEXT, "URL",
	  .of_s3 = true, .text = "the S3 server (Amazon's of the region)" },
	{ "region", 0, OPTION_TEXT, "REGION", .of_s3 = true,
	  .text = "where the bucket is" },
	{ "profile", 0, OPTION_TEXT, "NAME",
	  .of_s3 = true, .text = "of ~/.aws/config and ~/.aws/credentials" },
	{ "no-sign-request", 0, OPTION_FLAG,
	  .of_s3 = true, .text = "ask without credentials, as anybody" },
	{ "addressing", 0, OPTION_CHOICE, "STYLE", .choices = "path|virtual",
	  .of_s3 = true, .text = "the bucket in the URL's path or its host name" },
	{ "ca-bundle", 0, OPTION_PATH, "FILE",
	  .of_s3 = true, .text = "certificates that the server's is checked by" },
	{ "dual-stack", 0, OPTION_FLAG,
	  .of_s3 = true, .text = "Amazon's endpoints for IPv6 and IPv4" },
	{ "sse", 0, OPTION_CHOICE, "HOW", .choices = "AES256|aws:kms",
	  .of_s3 = true, .text = "let the server encrypt what is stored" },
	{ "sse-kms-key", 0, OPTION_TEXT, "KEY", .of_s3 = true,
	  .text = "the key of --sse aws:kms" },
	{ "sse-c-key-file", 0, OPTION_PATH, "FILE",
	  .of_s3 = true, .text = "let the server encrypt with this key of 32 bytes" },
	{ "storage-class", 0, OPTION_TEXT, "CLASS",
	  .of_s3 = true, .text = "of the objects that are stored" },
	{ "requester-pays", 0, OPTION_FLAG,
	  .of_s3 = true, .text = "we pay for requests of somebody else's bucket" },
	{ "tags", 0, OPTION_TEXT, "TAGS", .of_s3 = true,
	  .text = "of the objects: NAME=VALUE&..." },
	{ "connections", 0, OPTION_NUMBER, "NUMBER", .minimum = 1,
	  .maximum = S3_CONNECTIONS_MAX, .of_s3 = true,
	  .text = "to the server at once (32)" },
	{ "multipart-threshold", 0, OPTION_SIZE, "SIZE", .fallback = "8M",
	  .minimum = S3_PART_MIN, .maximum = 5 * GIB,
	  .of_s3 = true, .text = "a longer chunk is uploaded in parts" },
	{ "part-size", 0, OPTION_SIZE, "SIZE", .fallback = "8M",
	  .minimum = S3_PART_MIN, .maximum = 5 * GIB, .of_s3 = true,
	  .text = "bytes of a part" },
	{ "memory-limit", 0, OPTION_SIZE, "SIZE", .fallback = "64M",
	  .minimum = MIB, .text = "memory for chunks that are not committed" },
	{ "map-memory", 0, OPTION_SIZE, "SIZE", .fallback = "32M",
	  .minimum = MIB, .text = "memory for the volume's map" },
	{ "grace", 0, OPTION_TIME, "TIME", .fallback = "24h",
	  .maximum = 3650ull * 24 * 3600 * 1000 * MS,
	  .text = "how long what is not used any more is kept for readers" },
	{ "state", 0, OPTION_PATH, "DIR",
	  .text = "folder for what must survive (/var/lib/objmap)" },

	/* Serving it. */
	{ "foreground", 'f', OPTION_FLAG, .text = "stay in the foreground" },
	{ "run", 0, OPTION_COMMAND, "COMMAND",
	  .text = "mount, run the rest of the line, unmount" },
	{ "log", 0, OPTION_TEXT, "WHERE",
	  .text = "stderr, syslog or a file" },
	{ "log-level", 0, OPTION_CHOICE, "LEVEL",
	  .choices = "error|warning|notice|debug", .fallback = "notice",
	  .text = "the least of what is logged" },
	{ "core", 0, OPTION_FLAG, .text = "allow core dumps" },
	{ "allow-other", 0, OPTION_FLAG,
	  .text = "let other users open the mounted file" },
	{ "description", 0, OPTION_TEXT, "TEXT",
	  .text = "of the export, for NBD clients that list" },
	{ "threads", 0, OPTION_NUMBER, "NUMBER", .minimum = 1, .maximum = 256,
	  .text = "threads that serve (one per CPU, at most 8)" },
	{ "max-requests", 0, OPTION_NUMBER, "NUMBER", .minimum = 1,
	  .maximum = 1 << 20, .text = "requests under way at once, per export" },
	{ "max-bytes", 0, OPTION_SIZE, "SIZE", .minimum = 64 * KIB,
	  .text = "bytes under way at once, per export" },
	{ "max-clients", 0, OPTION_NUMBER, "NUMBER", .fallback = "2048",
	  .minimum = 1, .maximum = 1 << 20, .text = "NBD connections at once" },
	{ "max-client-requests", 0, OPTION_NUMBER, "NUMBER", .fallback = "128",
	  .minimum = 1, .maximum = 1 << 16,
	  .text = "requests under way at once, per connection" },
	{ "max-client-bytes", 0, OPTION_SIZE, "SIZE", .fallback = "64M",
	  .minimum = 64 * KIB, .text = "bytes under way at once, per connection" },
	{ "max-total-bytes", 0, OPTION_SIZE, "SIZE", .fallback = "256M",
	  .minimum = 64 * KIB, .text = "bytes under way at once, all connections" },
	{ "handshake-timeout", 0, OPTION_TIME, "TIME", .fallback = "10s",
	  .minimum = 10 * MS, .text = "how long a client may take to begin" },
	{ "block-size", 0, OPTION_SIZE, "SIZE", .minimum = 512,
	  .maximum = 32 * MIB, .power_of_two = true,
	  .text = "preferred block size told to NBD clients" },
	{ "no-poll", 0, OPTION_FLAG, .text = "never poll before blocking" },
	{ "tls-certificates", 0, OPTION_PATH, "DIR",
	  .text = "folder of ca-cert.pem, server-cert.pem, server-key.pem" },
	{ "tls-psk", 0, OPTION_PATH, "FILE", .text = "file of USER:HEXKEY lines" },
	{ "tls-verify-peer", 0, OPTION_FLAG,
	  .text = "only clients with a certificate of our CA" },
	{ "insecure-public", 0, OPTION_FLAG,
	  .text = "listen on a public address without TLS" },

	/* What a verb does. */
	{ "map", 'm', OPTION_FLAG, .text = "draw where data is" },
	{ "cost", 0, OPTION_FLAG, .text = "count what is stored and by whom it is used" },
	{ "width", 0, OPTION_NUMBER, "COLUMNS", .minimum = 20, .maximum = 1000,
	  .text = "of the picture (the terminal's, else 80)" },
	{ "jobs", 'j', OPTION_NUMBER, "NUMBER", .minimum = 1, .maximum = 256,
	  .text = "requests under way at once (8, of a server 36)" },
	{ "verify", 0, OPTION_FLAG, .text = "read back and compare" },
	{ "resume", 0, OPTION_FLAG, .text = "go on with a copy that was cut" },
	{ "metadata-only", 0, OPTION_FLAG,
	  .text = "heads, maps and snapshots, not the chunks' content" },
	{ "dry-run", 'n', OPTION_FLAG, .text = "say what would be done, change nothing" },
	{ "timeout", 0, OPTION_TIME, "TIME", .fallback = "inf",
	  .text = "how long to wait for the drain" },
	{ "json", 0, OPTION_FLAG, .text = "print JSON" },
	{ "quiet", 'q', OPTION_FLAG, .text = "print no progress" },
	{ 0 }
};

const char *const later_options[] = {
	"cache", "cache-size", "pull", "pull-first", "pull-order", "pull-jobs",
	"push-interval", "push-size", "push-jobs", "metrics", "persist",
	"share-cache", NULL
};
const char *const later_verbs[] = { "pull", "mark", "journal", NULL };

#define LIST(...) (const char *const[]){ __VA_ARGS__, NULL }
#define CLAIM	  "take-over", "abandon-journal", "exclusive"
/* Of every verb that opens a place; objmap-s3(7) has them. */
#define STORE	  "retry-for", "endpoint-url", "region", "profile",		\
		  "no-sign-request", "addressing", "ca-bundle", "dual-stack",	\
		  "sse", "sse-kms-key", "sse-c-key-file", "storage-class",	\
		  "requester-pays", "tags", "connections",			\
		  "multipart-threshold", "part-size"

/* Of mount and serve alike: the whole server, then each export. */
#define SERVER	"foreground", "log", "log-level", "core", "state", "threads",	\
		"max-clients", "max-client-requests", "max-client-bytes",	\
		"max-total-bytes", "handshake-timeout", "no-poll",		\
		"tls-certificates", "tls-psk", "tls-verify-peer",		\
		"insecure-public", "exclusive"
#define EXPORT	"read-only", "writable", "dirty-limit", "direct", "durability", "follow",			\
		"refresh-interval", STORE, "memory-limit", "map-memory",	\
		"grace", "max-requests", "max-bytes", "block-size",		\
		"description", "allow-other"

const struct verb verbs[] = {
	{ "create", "VOLUME --size SIZE [OPTION ...]",
	  "make a volume that reads as zeros",
	  LIST("size", "chunk-size", "codec", "exclusive", STORE, "json"),
	  1, 1, create_run },
	{ "delete", "VOLUME [OPTION ...]",
	  "delete a volume and all its snapshots",
	  LIST("yes", CLAIM, STORE, "json", "quiet"), 1, 1, delete_run },
	{ "info", "PLACE [OPTION ...]",
	  "say what a place is: size, holder, commits, snapshots, where data is",
	  LIST("map", "width", "cost", STORE, "json"), 1, 1, info_run },
	{ "list", "PLACE [OPTION ...]",
	  "list the volumes below a place, or a volume's snapshots and clones",
	  LIST(STORE, "json"), 1, 1, list_run },
	{ "mount", "PLACE WHERE [OPTION ...]",
	  "serve a place as a file or as an NBD export",
	  LIST(EXPORT, "over", "take-over", "abandon-journal", SERVER, "run",
	       "quiet", "json"), 2, -1, mount_run },
	{ "umount", "WHERE [OPTION ...]",
	  "commit what is not saved and end a mount",
	  LIST("force", "no-drain", "timeout", "quiet", "json"),
	  1, 1, umount_run },
	{ "status", "[WHERE] [OPTION ...]",
	  "say what the mounts of this machine are doing",
	  LIST("json"), 0, 1, status_run },
	{ "copy", "SOURCE DESTINATION [OPTION ...]",
	  "copy a place, a file or standard input into another",
	  LIST("size", "chunk-size", "codec", "overwrite", "resume", "verify", "jobs",
	       CLAIM, STORE, "state", "json", "quiet"), 2, 2, copy_verb_run },
	{ "snapshot create", "VOLUME NAME [OPTION ...]",
	  "keep the volume's last commit under a name",
	  LIST("exclusive", STORE, "json"), 2, 2, snapshot_create_run },
	{ "snapshot list", "VOLUME [OPTION ...]",
	  "list a volume's snapshots and clones",
	  LIST(STORE, "json"), 1, 1, snapshot_list_run },
	{ "snapshot delete", "VOLUME@NAME [OPTION ...]",
	  "give up a snapshot",
	  LIST("exclusive", STORE, "json"), 1, 1, snapshot_delete_run },
	{ "rollback", "VOLUME@NAME [OPTION ...]",
	  "make a volume what it was at a snapshot",
	  LIST("yes", CLAIM, STORE, "json"), 1, 1, rollback_run },
	{ "clone", "VOLUME@NAME NEW [OPTION ...]",
	  "make a volume that begins as another's snapshot",
	  LIST("exclusive", STORE, "json"), 2, 2, clone_run },
	{ "resize", "VOLUME SIZE [OPTION ...]",
	  "make a volume larger or smaller",
	  LIST("yes", CLAIM, STORE, "json"), 2, 2, resize_run },
	{ "gc", "VOLUME|OBJECT [OPTION ...]",
	  "delete the objects that nothing refers to any more",
	  LIST("grace", "dry-run", "exclusive", STORE, "json", "quiet"),
	  1, 1, gc_run },
	{ "verify", "PLACE [OPTION ...]",
	  "read everything and compare every checksum",
	  LIST("metadata-only", "jobs", STORE, "json", "quiet"),
	  1, 1, verify_run },
	{ "serve", "FILE [OPTION ...]",
	  "serve several places from one daemon",
	  LIST(SERVER, "quiet", "json"), 1, 1, serve_run },
	{ "doctor", "[PLACE] [OPTION ...]",
	  "say what this machine and a place can do, and why not",
	  LIST(STORE, "state", "json"), 0, 1, doctor_run },
	{ "config", "[OPTION ...]",
	  "show the options in force and where each comes from",
	  LIST("json"), 0, 0, config_run },
	{ "help", "[VERB]", "show the manual page of a verb",
	  (const char *const[]){ NULL }, 0, 2, help_run },
	{ 0 }
};
