#!/bin/bash
# Backs a disk image up into a bucket, restores it in three ways, and shows what a
# damaged chunk looks like.
#
#   contrib/recipes/backup-restore.sh [FOLDER]
#
# FOLDER (else one made here) becomes an ext4 image.  Where AWS_ENDPOINT_URL_S3 is set,
# that server is used, with the keys of the environment and the bucket $BUCKET; else a
# MinIO is started for the purpose.  What it wrote there is taken away at the end.
# Needs no root; uses objmap and objmap-rescue from PATH ($OBJMAP, $RESCUE).
set -eu
top=$(cd "$(dirname "$0")/../.." && pwd)
: "${OBJMAP:=objmap}" "${RESCUE:=objmap-rescue}" "${BUCKET:=objmap-recipe}"

case ${1:-} in -*) sed -n '2,11s/^# \{0,1\}//p' "$0"; exit 2 ;; esac
work=$(mktemp -d)
export OBJMAP_RUNTIME_DIR=$work/run OBJMAP_STATE=$work/state
minio= mounted=

end() {
	status=$?
	set +e
	[ -z "$mounted" ] || "$OBJMAP" umount "$mounted" >/dev/null
	[ -z "${volume:-}" ] || [ -n "$minio" ] || s3 remove
	[ -z "$minio" ] || "$top/minio-test/minio" stop "$minio"
	rm -rf "$work"
	exit $status
}
trap end EXIT
step() { printf '\n== %s\n' "$*"; }
shown() {
	printf '$ %s\n' "$*" | sed "s|$work/||g; s|^\$ $OBJMAP |$ objmap |; s|^\$ $RESCUE |$ objmap-rescue |"
	"$@"
}

# What the recipe needs of the bucket besides: make it, damage a chunk, clear up.
s3() {
	python3 - "$top/minio-test" "$BUCKET" "$prefix" "$@" <<'END'
import os, sys
tools, bucket, prefix, what = sys.argv[1:5]
sys.path.insert(0, tools)
import s3client
s3 = s3client.Client.from_env(os.environ)
if what == 'bucket':
    try:
        s3.put_bucket(bucket)
    except s3client.S3Error as error:
        if error.code not in ('BucketAlreadyOwnedByYou', 'BucketAlreadyExists'):
            sys.exit('backup-restore: %s' % error)
    except OSError as error:
        sys.exit('backup-restore: %s: %s' % (s3.endpoint, error))
elif what == 'damage':
    key = s3.keys(bucket, prefix + '/chunk/')[0]
    old = s3.get(bucket, key)
    s3.put(bucket, key, old.body[:70000] + bytes([old.body[70000] ^ 1]) + old.body[70001:],
           metadata=old.metadata)
    print(key)
elif what == 'remove':
    for key in s3.keys(bucket, prefix + '/'):
        s3.delete(bucket, key)
END
}

if [ -z "${AWS_ENDPOINT_URL_S3:-}" ]; then
	step "A MinIO for this recipe"
	"$top/minio-test/minio" start "$work/minio"
	minio=$work/minio
	set -a
	. "$minio/env"
	set +a
fi
prefix=recipe-$$-$(od -An -N4 -tx4 /dev/urandom | tr -d ' ')
s3 bucket
volume=s3://$BUCKET/$prefix

step "A disk: ext4, from a folder"
folder=${1:-$work/folder}
if [ $# = 0 ]; then
	mkdir -p "$folder/etc"
	echo "what I must not lose" >"$folder/etc/precious"
	head -c 5000000 /dev/urandom >"$folder/data"
fi
file=$(cd "$folder" && find . -type f | sort | head -n 1)
[ -n "$file" ] || { echo "backup-restore: no file in $folder" >&2; exit 2; }
disk=$work/disk.img
kib=$(($(du -sk --apparent-size "$folder" | cut -f1) * 3 / 2 + 32768))
shown mke2fs -q -t ext4 -d "$folder" "$disk" "${kib}k"
cp --sparse=always "$disk" "$work/monday.img"

step "Monday's backup, and a snapshot that keeps it"
shown "$OBJMAP" copy --verify "$disk" "$volume"
shown "$OBJMAP" snapshot create "$volume" monday

step "Tuesday: the disk has changed, and is backed up again"
echo "written on tuesday" >"$work/note"
debugfs -w -R "write $work/note note" "$disk" 2>/dev/null
shown "$OBJMAP" copy --verify --overwrite "$disk" "$volume"
shown "$OBJMAP" snapshot list "$volume"

step "First way back: the whole image"
shown "$OBJMAP" copy --verify "$volume@monday" "$work/whole.img"
cmp "$work/whole.img" "$work/monday.img"
echo "every byte is Monday's"

step "Second way back: single files, from a read-only mount"
mounted=$work/mounted.img
shown "$OBJMAP" mount --read-only "$volume@monday" "$mounted"
# As root: mount -o ro,noload,loop mounted.img /mnt
shown debugfs -R "dump \"$file\" $work/file" "$mounted" 2>/dev/null
cmp "$work/file" "$folder/$file"
echo "${file#./} is as it was"
shown "$OBJMAP" umount "$mounted"
mounted=

step "Third way back: without objmap"
shown "$RESCUE" --list "$BUCKET" "$prefix"
shown "$RESCUE" --quiet "$BUCKET" "$prefix@monday" "$work/rescued.img"
cmp "$work/rescued.img" "$work/monday.img"
"$RESCUE" --quiet "$BUCKET" "$prefix" "$work/tuesday.img"
cmp "$work/tuesday.img" "$disk"
echo "every byte is Monday's, and Tuesday's"

step "One byte of one chunk goes bad"
key=$(s3 damage)
echo "in $BUCKET/$key"
if shown "$OBJMAP" verify "$volume@monday" >"$work/said" 2>&1; then
	echo "backup-restore: objmap verify saw nothing" >&2
	exit 1
fi
cat "$work/said"
grep -q "${key#"$prefix"/}" "$work/said"
if shown "$RESCUE" --quiet --overwrite "$BUCKET" "$prefix@monday" \
	"$work/rescued.img" >"$work/said" 2>&1; then
	echo "backup-restore: objmap-rescue saw nothing" >&2
	exit 1
fi
cat "$work/said"
grep -q "${key#"$prefix"/}" "$work/said"
# All but the bad range has been rescued, and that is a hole.
read -r offset count < <(sed -n 's/^bad //p' "$work/said")
cmp -n "$offset" "$work/rescued.img" "$work/monday.img"
cmp -i $((offset + count)) "$work/rescued.img" "$work/monday.img"
cmp -n "$count" -i "$offset:0" "$work/rescued.img" /dev/zero
echo "all but these $count bytes is rescued; both name the chunk"
