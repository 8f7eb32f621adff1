#!/bin/bash
# Installs what objmap needs, builds it, and shows its main job: a disk image
# that lives in a volume, is mounted, written, snapshotted, unmounted, mounted
# again and verified.  Everything is made in a throw-away folder; root is used
# only to install packages (sudo when you are not root), and, when you are root,
# to mount the file system itself.
#
#   contrib/demo.sh [--no-install] [PLACE | --minio]
#
# PLACE is where the volume shall be, instead of in that folder: s3://BUCKET/PREFIX
# of a bucket you have (credentials as for any S3 program, AWS_ENDPOINT_URL_S3 for a
# server that is not Amazon's).  There must be no volume yet; it is deleted at the
# end.  --minio starts a MinIO of its own, which is built first if there is none.
set -eu
cd "$(dirname "$0")/.."
top=$PWD
build=${DEMO_DIR:-$top/build}
install=yes minio= volume=dir:volume
for argument; do
	case $argument in
	--no-install) install= ;;
	--minio) minio=yes volume=s3://demo/vm7 ;;
	s3://?*/?*) volume=$argument ;;
	*) sed -n '2,13s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
	esac
done

if [ -t 1 ]; then bold=$(printf '\033[1m') dim=$(printf '\033[2m') off=$(printf '\033[0m')
else bold= dim= off=; fi
say() { printf '\n%s== %s%s\n' "$bold" "$*" "$off"; }
show() { printf '%s$ %s%s\n' "$dim" "$*" "$off"; "$@"; }

# ---- packages and build ---------------------------------------------------------
packages="autoconf automake libtool pkg-config make gcc libc6-dev libcurl4-openssl-dev
 libssl-dev libxml2-dev libjansson-dev libfuse3-dev fuse3 e2fsprogs libnbd-bin mount"
[ -z "$minio" ] || packages="$packages curl ca-certificates python3 python3-venv"
if [ -n "$install" ]; then
	missing=
	for p in $packages; do
		dpkg-query -W -f '${db:Status-Abbrev}' "$p" 2>/dev/null | grep -q '^ii' || missing="$missing $p"
	done
	if [ -n "$missing" ]; then
		say "Installing packages"
		sudo=
		[ "$(id -u)" = 0 ] || sudo=sudo
		$sudo apt-get update -q
		$sudo env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends $missing
	fi
fi
say "Building objmap in $build"
[ -x configure ] && [ configure -nt configure.ac ] || autoreconf -fi >/dev/null 2>&1
mkdir -p "$build"
(
	cd "$build"
	[ -f Makefile ] || "$top/configure" -q --without-criterion
	make -s -j"$(nproc)" all
)
PATH=$build:$PATH:/usr/sbin:/sbin

# ---- a world of its own, taken down whatever happens -----------------------------
work=$(mktemp -d "${TMPDIR:-/tmp}/objmap-demo.XXXXXX")
export OBJMAP_RUNTIME_DIR=$work/run OBJMAP_STATE=$work/state
mounted= made=
cleanup() {
	status=$?
	set +e
	[ -z "$mounted" ] || umount "$work/mnt" 2>/dev/null
	for w in "$work/disk" "nbd+unix:///disk?socket=$work/nbd"; do
		objmap umount "$w" >/dev/null 2>&1
	done
	[ -z "$made" ] || objmap delete --yes --quiet "$volume" >/dev/null 2>&1
	[ ! -e "$work/minio/pid" ] || "$top/minio-test/minio" stop "$work/minio"
	rm -rf "$work"
	[ "$status" = 0 ] || echo "demo.sh: something did not work; its last words are above" >&2
	exit "$status"
}
trap cleanup EXIT
cd "$work"
if [ -n "$minio" ]; then
	say "A MinIO, with a bucket"
	"$top/minio-test/minio" start "$work/minio"
	set -a; . "$work/minio/env"; set +a
	printf 'user = "%s:%s"\n' "$AWS_ACCESS_KEY_ID" "$AWS_SECRET_ACCESS_KEY" |
		curl -fsS -K - --noproxy '*' --aws-sigv4 aws:amz:us-east-1:s3 \
			-X PUT "$AWS_ENDPOINT_URL_S3/demo"
fi
case $volume in
s3:*)
	say "0. Is the bucket good enough?"
	show objmap doctor "$volume" ;;
esac

say "1. A disk image, made from a folder"
mkdir folder
cp "$top"/README.md "$top"/LICENSE folder/
cp -r "$top"/src "$top"/man folder/
(cd folder && find . -type f -exec sha256sum {} + | sort -k 2) >sums
show mke2fs -q -F -t ext4 -d folder image.ext4 256M

say "2. Into a volume: one command, the volume is made on the way; holes stay holes"
show objmap copy --verify image.ext4 "$volume"
case $volume in s3:*) made=yes ;; esac
show objmap info "$volume"
show objmap info --map "$volume"

if [ -w /dev/fuse ] && command -v fusermount3 >/dev/null; then
	say "3. Mounted as a file: whatever opens files can use it"
	show objmap mount "$volume" "$work/disk"
	ls -l "$work/disk"
	cmp image.ext4 "$work/disk" && echo "the file is the image, byte for byte"

	say "4. Written, with a snapshot of how it was before"
	show objmap snapshot create "$volume" before
	e2=$(mktemp -p "$work")
	seq 1 200000 >"$e2"
	show debugfs -w -R "write $e2 numbers" "$work/disk"
	sync "$work/disk"
	show objmap status "$work/disk"
	show objmap umount "$work/disk"

	say "5. Mounted again and verified"
	show objmap mount "$volume" "$work/disk"
	show e2fsck -fn "$work/disk"
	debugfs -R "dump numbers $work/numbers" "$work/disk" 2>/dev/null
	cmp "$e2" "$work/numbers" && echo "what was written is there"
	mkdir back
	debugfs -R "rdump / $work/back" "$work/disk" >/dev/null 2>&1
	(cd back && sha256sum --quiet -c ../sums) && echo "and all that was in the folder, too"
	if [ "$(id -u)" = 0 ] && mkdir mnt && mount -o loop "$work/disk" mnt 2>/dev/null; then
		mounted=yes
		say "   as root: its file system through a loop device"
		ls mnt
		echo "hello from the loop device" >mnt/hello
		umount mnt
		mounted=
	else
		say "   (not root, or no loop device here: its file system is not mounted)"
	fi
	show objmap umount "$work/disk"
else
	say "3. (no /dev/fuse or fusermount3 here: the steps that mount a file are left out)"
	show objmap snapshot create "$volume" before
fi

say "6. Served over NBD, to any NBD client"
show objmap mount "$volume" "nbd+unix:///disk?socket=$work/nbd"
show nbdinfo "nbd+unix:///disk?socket=$work/nbd"
show objmap umount "nbd+unix:///disk?socket=$work/nbd"

say "7. Every checksum, and the snapshot as it was"
show objmap verify "$volume"
show objmap snapshot list "$volume"
show objmap copy --quiet "$volume@before" before.ext4
cmp image.ext4 before.ext4 && echo "the snapshot is the first image, byte for byte"
case $volume in
s3:*)
	say "8. What that cost, and the end of it"
	show objmap info --cost "$volume"
	show objmap gc --grace 0 "$volume"
	show objmap delete --yes "$volume"
	made= ;;
esac

cat <<END

${bold}That was objmap.${off} The program is $build/objmap; next you could

    sudo make -C $build install
    objmap create s3://BUCKET/disk --size 20G && objmap mount s3://BUCKET/disk ./disk.img
    objmap create dir:/srv/disk --size 20G && objmap mount dir:/srv/disk /srv/disk.img
    objmap mount dir:/srv/disk nbd://127.0.0.1/disk
    objmap help            what it can do; objmap help mount, and so on
    objmap doctor          what this machine can do
    contrib/check.sh       the tests
END
