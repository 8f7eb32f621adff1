/* control.h: the control socket of a mount: JSON lines between the daemon and
 * the verbs (umount, status, snapshot, resize).
 *
 * A request is one object with "command"; what comes back is any number of
 * {"progress": ...} and then one object with "error" (0 or a positive errno)
 * and, where that is not 0, "message".  Only the same user and root are heard.
 *
 *     {"command": "status"}
 *     {"command": "umount", "drop": false, "lazy": false}	answers "status" (exit
 *			status), "pid" and "last": the daemon ends with it
 *     {"command": "snapshot create", "name": NAME}	flushes first
 *     {"command": "resize", "size": BYTES}	grows only
 */
#ifndef OBJMAP_CONTROL_H
#define OBJMAP_CONTROL_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct control;
struct control_client;

/* ---- in the daemon ------------------------------------------------------------ */

/* Answers @request on a thread that may wait.  Returns 0 or -errno; members of
 * the answer are put into @reply.  What is logged meanwhile as an error is its
 * "message". */
typedef int control_command(void *context, const json_t *request,
			    json_t *reply, struct control_client *client);

/* Binds @path (a socket nobody answers at is replaced): from now on the name
 * is ours.  -EBUSY: another daemon answers there.  Others wait in the queue
 * until control_start(). */
int control_open(const char *path, struct control **control);
int control_start(struct control *control, control_command *command,
		  void *context);
/* Waits for the commands under way, then removes the socket. */
void control_close(struct control *control);

/* Tells the client how far its command is.  Steals @progress. */
void control_progress(struct control_client *client, json_t *progress);

/* Leaves RUNTIME/volume-UUID for control_of_volume(), and takes it away. */
int control_link_volume(struct control *control, const uint8_t uuid[16]);
void control_unlink_volume(struct control *control, const uint8_t uuid[16]);

/* ---- in a verb ------------------------------------------------------------------- */

typedef void control_told(void *context, const json_t *progress);

/* Sends @request (stolen) to the daemon at @path, hands every progress to
 * @told (may be NULL), and waits for the answer: *@reply, a new reference,
 * with "error" and "message".  @timeout: ns; UINT64_MAX: without end.  *@pid (may
 * be NULL) is the process that listens there, 0: not known.
 * 0: there is an answer, perhaps a bad one.  Not logged: -ECONNREFUSED or
 * -ENOENT: nobody is there; -EAGAIN: it has not taken the request, because it hangs;
 * -ETIMEDOUT; -ECONNRESET: it ended meanwhile. */
int control_call(const char *path, json_t *request, uint64_t timeout,
		 control_told *told, void *context, json_t **reply, pid_t *pid);

/* Connects to the daemon at @path.  A descriptor; -ECONNREFUSED, -ENOENT: nobody
 * listens; -EAGAIN: so many wait there already that it took no more for @patience
 * ns; or another -errno.  Not logged. */
int control_connect(const char *path, uint64_t patience);
/* The process that listens at the other end of @fd; 0: not known. */
pid_t control_peer(int fd);

/* The control socket of the daemon on this machine that writes the volume;
 * malloc'ed; NULL: there is none. */
char *control_of_volume(const uint8_t uuid[16]);

/* control_call() for a verb that changes a volume which may be mounted here:
 * asks the daemon that writes it, if there is one.  1: there is none, nothing
 * was done; 0: done; -errno, logged with what the daemon said. */
int control_ask_writer(const uint8_t uuid[16], json_t *request, json_t **reply);

/* Calls @visit for each control socket in the runtime folder. */
int control_each(void (*visit)(void *context, const char *path), void *context);

#endif
