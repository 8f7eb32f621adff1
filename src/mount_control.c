/* mount_control.c: the commands a mount's control socket takes. */
#include "config.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <unistd.h>

#include "src/frontend/fuse.h"
#include "src/log.h"
#include "src/mount_parts.h"
#include "src/units.h"

/* Each runs under mount->end_lock, and while the mount has not ended. */
typedef int locked_command(struct mount *mount, const json_t *request,
			   json_t *reply, struct control_client *client);

static int need_volume(struct mount *mount, const char *what)
{
	if (!mount->export->volume) {
		log_error("%s is a plain device: %s is for volumes",
			  mount->spec.place.text, what);
		return -EOPNOTSUPP;
	}
	if (mount->export->read_only) {
		log_error("%s is mounted read-only", mount->spec.place.text);
		return -EROFS;
	}
	return 0;
}

/* What was acknowledged before the command came is in the snapshot. */
static int cmd_snapshot(struct mount *mount, const json_t *request,
			json_t *reply, struct control_client *client)
{
	const char *name = json_string_value(json_object_get(request, "name"));
	int error = need_volume(mount, "a snapshot");

	(void)reply;
	if (!error && !name) {
		log_error("a snapshot needs a name");
		error = -EINVAL;
	}
	if (!error)
		error = mount_flush(mount, client);
	if (!error)
		error = volume_snapshot(mount->export->volume, name);
	return error;
}

static int cmd_resize(struct mount *mount, const json_t *request,
		      json_t *reply, struct control_client *client)
{
	json_int_t wanted = json_integer_value(json_object_get(request, "size"));
	uint64_t size = wanted > 0 ? (uint64_t)wanted : 0;
	uint64_t now = stage_size(mount->export->stage);
	char text[UNITS_TEXT];
	int error = need_volume(mount, "resize");

	(void)client;
	if (error)
		return error;
	if (size < now) {
		log_error("%s is mounted and can only grow: it has %s; unmount it to make it smaller",
			  mount->spec.place.text, size_format(now, text));
		return -EBUSY;
	}
	error = volume_resize(mount->export->volume, size);
	if (error)
		return error;
	stage_resized(mount->export->stage, size);
#ifdef HAVE_FUSE
	if (mount->file)
		fuse_file_resized(mount->file);
#endif
	json_object_set_new(reply, "seen",
			    json_string(mount->file ? "now" : "reconnect"));
	return 0;
}

static int cmd_umount(struct mount *mount, const json_t *request,
		      json_t *reply, struct control_client *client)
{
	bool lazy = json_is_true(json_object_get(request, "lazy"));
	bool drop = json_is_true(json_object_get(request, "drop"));
	int error;

	/* Before the lock: who holds it may be trying to save, in vain. */
	if (drop) {
		atomic_store(&mount->drop, true);
		mount_set_patience(mount);
	}
	error = mount_end(mount, lazy ? MOUNT_FORCE : MOUNT_ASK_USERS,
			  client);
	/* Another's word that all may be dropped stays. */
	if (error && drop) {
		atomic_store(&mount->drop, false);
		mount_set_patience(mount);
	}
	if (error)
		return error;
	json_object_set_new(reply, "status", json_integer(mount->status));
	json_object_set_new(reply, "pid", json_integer(getpid()));
	json_object_set_new(reply, "last",
			    json_boolean(mounts_all_ended(mount->mounts)));
	return 0;
}

static int cmd_status(struct mount *mount, json_t *reply)
{
	json_t *status = mount_status(mount);
	int error = status && json_object_update(reply, status) == 0 ? 0 : -ENOMEM;

	json_decref(status);
	return error;
}

int mount_command(void *context, const json_t *request, json_t *reply,
		  struct control_client *client)
{
	static const struct {
		const char *name;
		locked_command *run;
	} commands[] = {
		{ "snapshot create", cmd_snapshot },
		{ "resize", cmd_resize },
	};
	const char *name = json_string_value(json_object_get(request, "command"));
	struct mount *mount = context;
	int error = -ESHUTDOWN;

	if (name && strcmp(name, "status") == 0)
		return cmd_status(mount, reply);
	if (name && strcmp(name, "umount") == 0)
		return cmd_umount(mount, request, reply, client);
	for (size_t i = 0; name && i < sizeof(commands) / sizeof(*commands); i++) {
		if (strcmp(commands[i].name, name) != 0)
			continue;
		pthread_mutex_lock(&mount->end_lock);
		if (!mount->ended)
			error = commands[i].run(mount, request, reply, client);
		pthread_mutex_unlock(&mount->end_lock);
		return error;
	}
	log_error("this daemon does not know the command '%s'", name ? name : "");
	return -EINVAL;
}
