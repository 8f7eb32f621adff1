#!/bin/bash
# Installs what the tests need, builds objmap, and tests it.
#
#   contrib/check.sh            what CI runs: about twelve minutes on two cores
#   contrib/check.sh --long     everything, sanitizers and valgrind included: hours
#   contrib/check.sh --no-install ...    leaves the machine's packages alone
#   contrib/check.sh --only WORD ...     suites whose name has WORD in it
#
# A test is found by its name: tests/*/test-* and race-* (programs), tests/*/test_*.py
# and minio-test/test_*.py (each a suite of clients), tests/fuzz/fuzz-*.  OBJMAP_LONG=1
# in their environment says --long.
#
# Builds and logs go to build-check (or $CHECK_DIR).  Ends with the minutes of each
# part, one line of true counts over all suites, and status 0 only if nothing failed.
set -u
cd "$(dirname "$0")/.." || exit 1
top=$PWD

long=0 install=1 only=
while [ $# -gt 0 ]; do
	case $1 in
	--long) long=1 ;;
	--no-install) install=0 ;;
	--only) only=${2:?--only needs a word}; shift ;;
	*) sed -n '2,/^$/{/^#/!q;s/^# \{0,1\}//p}' "$0" >&2; exit 2 ;;
	esac
	shift
done
dir=${CHECK_DIR:-$top/build-check}
jobs=$(nproc)
results=$dir/results logs=$dir/logs
rm -rf "$results" "$logs"
mkdir -p "$results" "$logs"
[ "$long" = 0 ] || export OBJMAP_LONG=1

# What the program needs, then what the tests do with it.
packages="autoconf automake libtool pkg-config make gcc libc6-dev
 libcurl4-openssl-dev libssl-dev libxml2-dev libjansson-dev libfuse3-dev fuse3
 libcriterion-dev libnbd-dev libnbd-bin python3 python3-libnbd nbdfuse nbdkit
 nbd-client qemu-utils fio clang lld llvm e2fsprogs xfsprogs mount util-linux iproute2
 libclang-rt-dev openssl gnutls-bin bash-completion man-db mandoc groff-base libs3-dev
 curl ca-certificates git xz-utils procps awscli s3cmd rclone python3-venv"
[ "$long" = 0 ] || packages="$packages valgrind lcov"

# ---- suites ---------------------------------------------------------------------

# suite NAME SECONDS COMMAND...: runs it with its output in logs/NAME, and keeps
# its counts in results/NAME.  A command that tells no counts is one test.
suite() {
	local name=$1 seconds=$2 log=$logs/$1 status passed failed skipped begin=$SECONDS
	local TIMEFORMAT='%0U + %0S' cpu
	shift 2
	case $name in *"$only"*) ;; *) return 0 ;; esac
	cpu=$({ time timeout -k 10 "$seconds" "$@" >"$log" 2>&1 </dev/null; } 2>&1)
	status=$?
	read -r passed failed skipped < <(counts "$log" "$status")
	echo "$passed $failed $skipped $((SECONDS - begin))" >"$results/$name"
	[ "$status" != 124 ] || echo "(ended after $seconds seconds)" >>"$log"
	printf '%-34s %4d passed %4d failed %4d skipped %5d s %5d CPU\n' \
		"$name" "$passed" "$failed" "$skipped" "$((SECONDS - begin))" "$((cpu))"
	if [ "$failed" != 0 ]; then
		sed '/^\[\(RUN \|PASS\)/d; s/^/    /' "$log" | tail -n 60
	fi
}

# counts LOG STATUS: passed, failed and skipped by what the runner printed last.
counts() {
	awk -v status="$2" '
		/^suite: [0-9]+ passed/ { p = $2; f = $4; s = $6; told = 1 }
		# Criterion leaves them out of its synthesis, and tells them with --verbose.
		/^\[SKIP\]/ { s++ }
		/Synthesis: Tested:/ {
			gsub(/[^0-9 ]/, " ")
			n = split($0, v, " ")
			# tested, passing, failing, crashing
			p += v[n - 2]; f += v[n - 1] + v[n]; told = 1
		}
		END {
			if (!told) { p = (status == 0); f = (status != 0) }
			else if (status != 0 && f == 0) f = 1
			print p + 0, f + 0, s + 0
		}' "$1"
}

# Runs the functions and suites given to it, as many at once as there are slots: more
# than there are cores, because many of them wait, for a disk or for a time to pass.
slots=$jobs
together() {
	while [ "$(jobs -rp | wc -l)" -ge "$slots" ]; do wait -n; done
	"$@" &
}

# part NAME [MINUTES]: ends a part of the run, and remembers how long it took, and
# may take in CI.
begin=$SECONDS parts=
part() {
	local took=$((SECONDS - begin)) most=
	[ "$long" = 1 ] || most=" of $2"
	printf -v parts '%s  %s %d:%02d%s' "$parts" "$1" $((took / 60)) $((took % 60)) "$most"
	begin=$SECONDS
}

# ---- building -----------------------------------------------------------------------

# Three trees: as users build it (but for the static library, whose objects would
# double the work: distcheck has it); with clang, its sanitizers and the fuzz targets,
# which proves the warnings of both compilers; and for races, where Criterion would
# abort.
# Where there is a ccache, one clone profits from another.
ccache=$(command -v ccache >/dev/null && echo "ccache ")
export CCACHE_BASEDIR=$top CCACHE_NOHASHDIR=1
checked=(--disable-static 'CFLAGS=-O1 -g1' LDFLAGS=-fuse-ld=lld)
configure_tree() {	# gcc|clang|tsan
	local how
	case $1 in
	gcc) how=(--disable-static "CC=${ccache}gcc") ;;
	clang) how=(--enable-fuzzing --enable-sanitizer=address,undefined "CC=${ccache}clang" "${checked[@]}") ;;
	tsan) how=(--without-criterion --enable-sanitizer=thread "CC=${ccache}gcc" "${checked[@]}") ;;
	esac
	mkdir -p "$dir/$1" && cd "$dir/$1" || return 1
	[ -f Makefile ] || "$top/configure" --enable-werror "${how[@]}"
}

# What CI runs of a tree; with --long all of it.
build() {	# gcc|clang|tsan
	local what='check TESTS='
	case $long.$1 in
	0.clang) what="tests/leak-canary $(sources 'tests/*/test-*.c')"
		 # In a make of its own: "all" is one more make, and both would build.
		 make -C "$dir/$1" -j"$jobs" all || return ;;
	0.tsan) what="objmap tests/nbd/nbd-serve $(sources 'tests/*/race-*.c')" ;;
	esac
	make -C "$dir/$1" -j"$jobs" $what
}
sources() { (cd "$top" && ls $1 | sed 's/\.c$//' | tr '\n' ' '); }
export -f build sources
export dir top jobs long

begin=$SECONDS
if [ "$install" = 1 ]; then
	sudo=
	[ "$(id -u)" = 0 ] || sudo=sudo
	missing=$(dpkg-query -W -f '${db:Status-Abbrev} ${Package}\n' $packages 2>/dev/null |
		awk '$1 == "ii" { print $2 }' | sort | comm -13 - <(printf '%s\n' $packages | sort))
	if [ -n "$missing" ]; then
		$sudo apt-get update -q >"$logs/install" 2>&1
		if ! $sudo env DEBIAN_FRONTEND=noninteractive apt-get install -q -y \
			--no-install-recommends $missing >>"$logs/install" 2>&1; then
			tail -n 20 "$logs/install"
			echo "check.sh: the packages could not be installed; see $logs/install"
			exit 1
		fi
	fi
	echo "packages $((SECONDS - begin)) s"
fi
begin=$SECONDS
[ -x configure ] && [ configure -nt configure.ac ] ||
	autoreconf -fi >"$logs/autoreconf" 2>&1 || { cat "$logs/autoreconf"; exit 1; }

for tree in gcc clang tsan; do
	(configure_tree $tree) >"$logs/configure-$tree" 2>&1 || touch "$dir/not-configured" &
done
wait
if [ -e "$dir/not-configured" ]; then
	rm "$dir/not-configured"
	tail -n 20 "$logs"/configure-*
	exit 1
fi
echo "configured after $((SECONDS - begin)) s"

only_builds=$only only=
suite build-gcc 900 bash -c 'build gcc'
# The others are compiled while the first is tested: many of those tests wait.
compile_the_others() {
	only=
	suite build-clang 900 bash -c 'build clang'
	suite build-tsan 900 bash -c 'build tsan'
}
compile_the_others &
builder=$!
slots=$((jobs * 2))
only=$only_builds

# ---- the suites themselves -------------------------------------------------------------

export OBJMAP=$dir/gcc/objmap OBJMAP_BUILD=$dir/gcc
python=/usr/bin/python3	# Debian's: it has the nbd module
limit=400
[ "$long" = 0 ] || limit=7200

# A sanitizer's report is a file: a leak does not always fail the process.  Not all
# of them can bear the address layout of vm.mmap_rnd_bits above 28.
sanitized() {
	local reports
	reports=$(mktemp -d)
	export ASAN_OPTIONS=log_path=$reports/asan:detect_leaks=1:abort_on_error=0
	export UBSAN_OPTIONS=log_path=$reports/ubsan:print_stacktrace=1
	export TSAN_OPTIONS=log_path=$reports/tsan:second_deadlock_stack=1
	setarch -R "$@"
	local status=$?
	if [ -n "$(ls -A "$reports")" ]; then
		cat "$reports"/*
		status=99
	fi
	rm -rf "$reports"
	return $status
}
# The proof that the above can fail: a program that leaks must leave a report.
leak_is_seen() {
	sanitized "$1" >/dev/null 2>&1
	[ $? = 99 ]
}
export -f sanitized leak_is_seen

unit_programs() { (cd "$1" && find tests -type f -name 'test-*' -perm -u+x ! -name '*.*' ! -path '*/.libs/*' | sort); }

# The longest first, so that no core waits for one at the end.
longest='test-contract test-store test-commit test-protocol test_credentials test_reader
 test_remote test_copy test_hostile test_fuse test_verbs test_faults test_rescue'
longest_first() { sed -E "/($(echo $longest | tr ' ' '|'))(\.py)?\$/s/^/1 /;t;s/^/2 /" | sort | cut -d' ' -f2; }
unit_names=$(unit_programs "$dir/gcc" | longest_first)
seconds=20 rounds=40
[ "$long" = 0 ] || seconds=3600 rounds=1000
together suite "walk volume" $((seconds + 120)) "$dir/gcc/tests/volume/walk-volume" --seconds $seconds
together suite "crash" $((limit * 2)) $python tests/crash --rounds $rounds
# Ten thousand operations on each pipeline; the sanitizers see a part of them.
for t in $unit_names; do
	together suite "unit $(basename "$t")" $limit "$dir/gcc/$t" --jobs 1 --verbose
done
for t in $(ls tests/*/test_*.py | longest_first); do
	together suite "clients $(basename "$t" .py)" $limit $python "$t"
done
wait "$builder"

# Only with --long: 10,000 operations on each pipeline under the sanitizers (1,000
# here, 300 for races), and under ThreadSanitizer those tests of copy that try every
# pair of ends, what is refused, and how progress is told.
slots=$((jobs + 1)) operations=10000 copies=
if [ "$long" = 0 ]; then
	operations=1000
	copies=$(sed -n 's/^    def \(test_[a-z_]*\).*/Copy.\1/p' tests/cmd/test_copy.py |
		grep -v -e every_pair -e cannot_be -e progress)
fi

race_clients() {	# TEST [NAME]...
	together suite "tsan $(basename "$1" .py)" $limit env OBJMAP="$dir/tsan/objmap" \
		OBJMAP_BUILD="$dir/tsan" bash -c 'sanitized "$@"' - $python "$@"
}
race_clients tests/fuse/test_fuse.py
race_clients tests/cmd/test_copy.py $copies
race_clients tests/nbd/test_protocol.py
for t in $unit_names; do
	together suite "asan $(basename "$t")" $limit env OBJMAP_TEST_OPERATIONS=$operations \
		bash -c 'sanitized "$@"' - "$dir/clang/$t" --jobs 1 --verbose
done
together suite "asan leak-is-seen" 60 bash -c 'leak_is_seen "$@"' - "$dir/clang/tests/leak-canary"
for t in $(cd "$dir/tsan" && find tests -type f -name 'race-*' -perm -u+x ! -name '*.*' ! -path '*/.libs/*' | sort); do
	together suite "tsan $(basename "$t")" $limit env OBJMAP_TEST_OPERATIONS=$operations \
		bash -c 'sanitized "$@"' - "$dir/tsan/$t"
done
together suite "dist" 600 contrib/check-dist "$dir/gcc"
seconds=10
[ "$long" = 0 ] || seconds=600
for t in "$dir"/clang/tests/fuzz/fuzz-*; do
	case $t in *.*) continue ;; esac
	[ -f "$t" ] && [ -x "$t" ] || continue
	together suite "fuzz $(basename "$t")" $((seconds + 120)) tests/fuzz/run "$t" $seconds
done
wait
part Foundation 8

# A MinIO is built once on a machine, and that is not counted.
if [ -z "$only" ]; then
	minio-test/minio find >"$logs/minio" 2>&1 || cat "$logs/minio"
	begin=$SECONDS
fi
for t in $(ls minio-test/test_*.py | longest_first); do
	together suite "s3 $(basename "$t" .py)" $limit $python "$t"
done
wait
part S3 7

if [ "$long" = 1 ]; then
	for t in tests/*/test_*.py minio-test/test_*.py; do
		suite "asan clients $(basename "$t" .py)" $limit env OBJMAP="$dir/clang/objmap" \
			OBJMAP_BUILD="$dir/clang" bash -c 'sanitized "$@"' - $python "$t"
	done
	suite "distcheck" 3600 make -C "$dir/gcc" distcheck DISTCHECK_CONFIGURE_FLAGS=--enable-werror
	suite "valgrind mount" 900 tests/valgrind "$dir/gcc"
	part "the rest"
fi

# ---- what came of it -------------------------------------------------------------------------

awk '{ p += $1; f += $2; s += $3 } END {
	printf "%d passed, %d failed, %d skipped\n", p, f, s
	exit f > 0 || p == 0
}' "$results"/* >"$dir/closing"
status=$?
grep -hE '(\.\.\. |^)skipped|^\[SKIP\]' "$logs"/* | sort | uniq -c
[ $status = 0 ] || { echo "failed:"; cd "$results" && awk '$2 > 0 { print "    " FILENAME }' *; }
echo "minutes$parts"
cat "$dir/closing"
exit $status
