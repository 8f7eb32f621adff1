#!/bin/bash
# A disk for one CI job: starts a MinIO, makes a volume that holds the files of a
# folder as an ext4 file system, mounts it while a command runs, and takes all of it
# down again, whatever happened.
#
#   contrib/recipes/ci.sh FOLDER [COMMAND ...]
#
# {} in COMMAND is the disk, a file; so is $OBJMAP_WHERE.  Without a command the file
# system is checked and listed.  Ends with the command's status.  $SIZE is the disk's
# (1G).  Where AWS_ENDPOINT_URL_S3 is set, that server is used instead of a MinIO, with
# the keys of the environment and the bucket $BUCKET.
#
# Needs no root, but /dev/fuse (docker run --device /dev/fuse --cap-add SYS_ADMIN),
# and mke2fs; uses objmap from PATH ($OBJMAP).
set -eu
top=$(cd "$(dirname "$0")/../.." && pwd)
: "${OBJMAP:=objmap}" "${BUCKET:=ci-disks}" "${SIZE:=1G}"
PATH=$PATH:/usr/sbin:/sbin

case ${1:-} in '' | -*) sed -n '2,15s/^# \{0,1\}//p' "$0" >&2; exit 2 ;; esac
folder=$1
shift
[ -d "$folder" ] || { echo "ci.sh: $folder is no folder" >&2; exit 2; }

work=$(mktemp -d)
export OBJMAP_RUNTIME_DIR=$work/run OBJMAP_STATE=$work/state
volume=s3://$BUCKET/ci-$(date +%s)-$$ disk=$work/disk made= minio=
end() {
	status=$?
	set +e
	[ ! -e "$disk" ] || "$OBJMAP" umount --quiet "$disk" >/dev/null 2>&1
	[ -z "$made" ] || [ -n "$minio" ] || "$OBJMAP" delete --yes --quiet "$volume" >/dev/null
	[ -z "$minio" ] || "$top/minio-test/minio" stop "$work/minio"
	rm -rf "$work"
	exit $status
}
trap end EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# ---- a server, unless there is one -------------------------------------------------
if [ -z "${AWS_ENDPOINT_URL_S3:-}" ]; then
	"$top/minio-test/minio" start "$work/minio" >/dev/null
	minio=yes
	set -a; . "$work/minio/env"; set +a
	# The keys go by standard input: argv can be read by everybody.
	printf 'user = "%s:%s"\n' "$AWS_ACCESS_KEY_ID" "$AWS_SECRET_ACCESS_KEY" |
		curl -fsS -K - --noproxy '*' --aws-sigv4 "aws:amz:$AWS_REGION:s3" \
			-X PUT "$AWS_ENDPOINT_URL_S3/$BUCKET"
fi

# ---- the folder, straight into a volume: no image in between ------------------------
"$OBJMAP" create "$volume" --size "$SIZE" >/dev/null
made=yes
"$OBJMAP" mount "$volume" "$disk" --run mke2fs -q -F -t ext4 -d "$folder" {}

# ---- the job ---------------------------------------------------------------------------
[ $# -gt 0 ] || set -- sh -c 'e2fsck -fn "$1" && debugfs -R "ls -l" "$1"' - {}
status=0
"$OBJMAP" mount "$volume" "$disk" --run "$@" || status=$?
exit $status
