"""Every verb, run through the fault proxy: what it stands on is made by a healthy
client, the verb runs through the harm, and a healthy client looks at what came of it.

Each is a generator of one Run: what comes before its first yield is healthy and
prepares; between the yields is the verb, whose Result it yields; after that it is
healthy again and checks.  Whatever the verb said, its volume must be the old or the
new one; if it said that it succeeded, the new one.
"""
import json
import os
import random
import subprocess
import sys
import threading
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(os.path.dirname(HERE), 'tests'))
import fixtures  # noqa: E402

MIB = 1 << 20
BLOCK = 4096
SIZE = 3 * MIB + 12345
CHUNK = '256K'


class Wrong(Exception):
    """Data is not what it must be, or a success was none."""


class Result:
    def __init__(self, code, out, err, seconds):
        self.code, self.out, self.err, self.seconds = code, out, err, seconds

    @property
    def ok(self):
        return self.code == 0


class Run:
    """One verb on volumes of its own.  ENV reaches the server without harm,
    HARMED through the proxy."""

    def __init__(self, folder, s3, bucket, prefix, env, harmed, seed):
        os.makedirs(folder)
        self.dir, self.s3, self.bucket, self.prefix = folder, s3, bucket, prefix
        env, harmed = ({n: v for n, v in e.items() if n not in (
            'OBJMAP_LONG', 'OBJMAP_SEED', 'OBJMAP_PAIRS', 'OBJMAP_BUILD')} for e in (env, harmed))
        own = dict(OBJMAP_RUNTIME_DIR=folder + '/run', OBJMAP_STATE=folder + '/state')
        self.env, self.harmed = dict(env, **own), dict(harmed, **own)
        self.rng = random.Random(seed)
        self.top = 's3://%s/%s/' % (bucket, prefix)
        self.place = self.top + 'vol'
        self.object_key = prefix + '/object'
        self.object = 's3+object://%s/%s' % (bucket, self.object_key)
        self.daemon, self.mounted, self.lasting = None, None, False

    def data(self, size):
        """Random, with holes."""
        parts = []
        for at in range(0, size, 128 * 1024):
            count = min(128 * 1024, size - at)
            parts.append(bytes(count) if self.rng.random() < 0.3 else self.rng.randbytes(count))
        return b''.join(parts)

    def file(self, name, data):
        with open(self.dir + '/' + name, 'wb') as f:
            f.write(data)
        return f.name

    # ---- running ---------------------------------------------------------------------

    def objmap(self, *args, env=None, timeout=90, stdin=None):
        """Through the harm."""
        begin = time.monotonic()
        try:
            p = subprocess.run([fixtures.OBJMAP, *args], env=env or self.harmed, input=stdin,
                               capture_output=True, timeout=timeout)
        except subprocess.TimeoutExpired as e:
            raise Wrong('objmap %s: no end after %d s: %s' % (
                ' '.join(args), timeout, (e.stderr or b'').decode())) from None
        return Result(p.returncode, p.stdout, p.stderr.decode(errors='replace'),
                      time.monotonic() - begin)

    def must(self, *args, **kw):
        """Without the harm; it must work."""
        r = self.objmap(*args, env=self.env, **kw)
        if not r.ok:
            raise Wrong('objmap %s, without harm: exit %d: %s' % (' '.join(args), r.code, r.err))
        return r

    def content(self, place=None):
        return self.must('copy', '-q', place or self.place, '-').out

    def is_there(self, place=None):
        r = self.objmap('info', place or self.place, env=self.env)
        if r.code not in (0, 1):
            raise Wrong('info: exit %d: %s' % (r.code, r.err))
        return r.ok

    # ---- what is there before ------------------------------------------------------------

    def begin(self):
        """A volume; its content."""
        data = self.data(SIZE)
        self.must('copy', '-q', '--chunk-size', CHUNK, self.file('base', data), self.place)
        return data

    def begin_with_history(self):
        """A volume with a snapshot 'one' and garbage; content of snapshot and volume."""
        old = self.begin()
        self.must('snapshot', 'create', self.place, 'one')
        new = bytearray(old)
        for at in (5, MIB, 2 * MIB + 77):
            new[at:at + 300000] = self.rng.randbytes(300000)
        for data in (bytes(reversed(new)), bytes(new)):
            self.must('copy', '-q', '--overwrite', self.file('new', data), self.place)
        return old, bytes(new)

    def begin_object(self, size=SIZE):
        """An object; its content."""
        data = self.data(size)
        self.s3.put(self.bucket, self.object_key, data)
        return data

    # ---- what must hold afterwards ---------------------------------------------------------

    def same(self, got, *allowed):
        if got in allowed:
            return
        want = min(allowed, key=lambda a: abs(len(a) - len(got)))
        at = next((i for i, (a, b) in enumerate(zip(got, want)) if a != b), None)
        raise Wrong('%d bytes, expected %s; first difference at %s' % (
            len(got), ' or '.join(str(len(a)) for a in allowed), at))

    def same_file(self, name, data):
        with open(self.dir + '/' + name, 'rb') as f:
            self.same(f.read(), data)

    def end_check(self):
        """No checksum is wrong, and nothing is left over once gc has run."""
        self.must('verify', '-q', self.place)
        self.must('gc', '-q', '--grace', '0', self.place)
        self.must('verify', '-q', self.place)

    # ---- mounts ------------------------------------------------------------------------

    @property
    def socket(self):
        return 'nbd+unix:///?socket=' + self.dir + '/sock'

    def mount(self, *options, place=None, where=None):
        """At a socket, or a path; see start()."""
        where = where or self.socket
        return self.start(where, 'mount', *options, place or self.place, where)

    def start(self, where, *args):
        """A daemon that serves WHERE; a Result.  If it is good, there is self.h, an NBD
        handle or a File."""
        import nbd
        begin = time.monotonic()
        with open(self.dir + '/log', 'wb') as log:
            self.daemon = subprocess.Popen(
                [fixtures.OBJMAP, *args, '--foreground'], env=self.harmed,
                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log)
        killer = threading.Timer(90, self.daemon.kill)
        killer.start()
        line = self.daemon.stdout.readline()
        killer.cancel()
        if not line:
            return Result(self.daemon.wait(90), b'', self.said(), time.monotonic() - begin)
        if where.startswith('/'):
            self.mounted = where
            self.h = File(where)
        else:
            self.h = nbd.NBD()
            self.h.connect_uri(where)
        return Result(0, line, self.said(), time.monotonic() - begin)

    def said(self):
        with open(self.dir + '/log', errors='replace') as f:
            return f.read()

    def sockets(self):
        """Of the daemon's: TCP connections, those that the peer closed too."""
        here = set()
        for fd in os.listdir('/proc/%d/fd' % self.daemon.pid):
            try:
                here.add(os.readlink('/proc/%d/fd/%s' % (self.daemon.pid, fd)))
            except OSError:
                pass
        with open('/proc/net/tcp') as f:
            return sum('socket:[%s]' % line.split()[9] in here for line in list(f)[1:])

    def few_sockets(self):
        """One that is closed and the one that follows it may both be seen for a moment."""
        end = time.monotonic() + 30
        nr = self.sockets()
        while nr > 8:
            if time.monotonic() > end:
                raise Wrong('%d connections are open' % nr)
            time.sleep(0.05)
            nr = self.sockets()

    def unmount(self, env=None, timeout=90):
        """What SIGTERM made of it: drained and 0, or 1."""
        try:
            self.h.shutdown()
        except Exception:
            pass
        begin = time.monotonic()
        self.daemon.terminate()
        try:
            code = self.daemon.wait(timeout)
        except subprocess.TimeoutExpired:
            raise Wrong('the daemon does not end: ' + self.said()) from None
        self.daemon.stdout.close()
        self.daemon = None
        return Result(code, b'', self.said(), time.monotonic() - begin)

    def end(self):
        if not self.daemon:
            return
        self.daemon.kill()
        self.daemon.wait(20)
        self.daemon.stdout.close()
        self.daemon = None
        if self.mounted:
            subprocess.run(['fusermount3', '-u', '-z', self.mounted], capture_output=True,
                           timeout=60)


class File:
    """A mounted file, in the words of an NBD handle."""

    def __init__(self, path):
        self.fd = os.open(path, os.O_RDWR)

    def pread(self, count, at):
        parts = []
        while count:
            parts.append(os.pread(self.fd, count, at))
            if not parts[-1]:
                raise Wrong('the file ends at %d' % at)
            count, at = count - len(parts[-1]), at + len(parts[-1])
        return b''.join(parts)

    def pwrite(self, data, at):
        while data:
            done = os.pwrite(self.fd, data, at)
            data, at = data[done:], at + done

    def flush(self):
        os.fsync(self.fd)

    def shutdown(self):
        os.close(self.fd)


# ---- the verbs ---------------------------------------------------------------------------

def create(run):
    yield
    r = run.objmap('create', run.place, '--size', str(SIZE), '--chunk-size', CHUNK)
    yield r
    if not run.is_there():
        if r.ok:
            raise Wrong('create succeeded, and there is no volume')
        run.must('create', run.place, '--size', str(SIZE), '--chunk-size', CHUNK)
    run.same(run.content(), bytes(SIZE))
    run.end_check()


def delete(run):
    data = run.begin()
    yield
    r = run.objmap('delete', '--yes', '-q', run.place)
    yield r
    if run.is_there():
        if r.ok:
            raise Wrong('delete succeeded, and the volume is there')
        run.same(run.content(), data)
    left = sorted(run.s3.keys(run.bucket, run.prefix + '/'))
    if r.ok and left != [run.prefix + '/vol/head']:
        raise Wrong('delete succeeded, and there are %s' % left)


def info(run):
    run.begin()
    sound = run.must('info', run.place, '--json').out
    yield
    r = run.objmap('info', run.place, '--json')
    yield r
    if r.ok and r.out != sound:
        raise Wrong('info says %r, not %r' % (r.out, sound))


def info_map(run):
    run.begin_with_history()

    def known(out):
        said = json.loads(out)
        del said['cost']['requests']		# retries cost some
        return said
    sound = known(run.must('info', '--map', '--cost', run.place, '--json').out)
    yield
    r = run.objmap('info', '--map', '--cost', run.place, '--json')
    yield r
    if r.ok and known(r.out) != sound:
        raise Wrong('info says %r, not %r' % (r.out, sound))


def list_volumes(run):
    run.begin()
    run.must('create', run.place + '2', '--size', '1M')
    sound = run.must('list', run.top).out
    if b'vol2' not in sound:
        raise Wrong('list finds no volume: %r' % sound)
    yield
    r = run.objmap('list', run.top)
    yield r
    if r.ok and r.out != sound and not any(
            why in r.err for why in ('damaged', 'listed, but not there')):
        raise Wrong('list says %r, not %r, and no word of why' % (r.out, sound))


def copy_in(run):
    data = run.data(SIZE)
    image = run.file('image', data)
    yield
    r = run.objmap('copy', '-q', '--chunk-size', CHUNK, image, run.place)
    yield r
    if not r.ok:
        # A cut copy is none, or is marked incomplete and goes on.
        there = run.is_there()
        if there and run.objmap('copy', '-q', run.place, '-', env=run.env).ok:
            run.same(run.content(), data)
        run.must('copy', '-q', *(['--resume'] if there else ['--chunk-size', CHUNK]),
                 image, run.place)
    run.same(run.content(), data)
    run.end_check()


def copy_parts(run):
    """Chunks that are uploads in parts."""
    data = run.rng.randbytes(8 * MIB) * 2 + run.rng.randbytes(8 * MIB)
    image = run.file('image', data)
    for env in run.env, run.harmed:
        env.update(OBJMAP_MULTIPART_THRESHOLD='5M', OBJMAP_PART_SIZE='5M')
    yield
    r = run.objmap('copy', '-q', '--chunk-size', '8M', image, run.place)
    yield r
    if not r.ok:
        run.must('copy', '-q', *(['--resume'] if run.is_there() else ['--chunk-size', '8M']),
                 image, run.place)
    run.same(run.content(), data)
    run.end_check()


def copy_over(run):
    old = run.begin()
    new = bytearray(old)
    new[MIB:MIB + 700000] = run.rng.randbytes(700000)
    image = run.file('image', new)
    yield
    r = run.objmap('copy', '-q', '--overwrite', image, run.place)
    yield r
    if not r.ok:
        if run.objmap('copy', '-q', run.place, '-', env=run.env).ok:
            run.same(run.content(), old, bytes(new))
        run.must('copy', '-q', '--overwrite', image, run.place)
    run.same(run.content(), bytes(new))
    run.end_check()


def copy_resume(run):
    """What went before was cut: its input was one byte too long."""
    data = run.data(SIZE)
    image = run.file('image', data)
    cut = bytes(MIB) + data[MIB:2 * MIB] + run.rng.randbytes(SIZE - 2 * MIB) + b'x'
    if run.objmap('copy', '-q', '--chunk-size', CHUNK, '--size', str(SIZE), '-', run.place,
                  env=run.env, stdin=cut).ok or \
       b'incomplete' not in run.must('info', run.place).out:
        raise Wrong('the copy was not cut')
    yield
    r = run.objmap('copy', '-q', '--resume', image, run.place)
    yield r
    if not r.ok and run.objmap('copy', '-q', run.place, '-', env=run.env).ok:
        run.same(run.content(), data)
    elif not r.ok:
        run.must('copy', '-q', '--resume', image, run.place)
    run.same(run.content(), data)
    run.end_check()


def copy_out(run):
    data = run.begin()
    yield
    r = run.objmap('copy', '-q', run.place, run.dir + '/out')
    yield r
    if r.ok:
        run.same_file('out', data)


def copy_verify(run):
    data = run.begin()
    yield
    r = run.objmap('copy', '-q', '--verify', run.place, run.dir + '/out')
    yield r
    if r.ok:
        run.same_file('out', data)


def copy_stream(run):
    """Not a byte that is wrong may get into a pipe, where it cannot be taken back."""
    data = run.begin()
    yield
    r = run.objmap('copy', '-q', run.place, '-')
    yield r
    run.same(r.out, data if r.ok else data[:len(r.out)])


def snapshot_create(run):
    old = run.begin()
    yield
    r = run.objmap('snapshot', 'create', run.place, 'one')
    yield r
    listed = b'one' in run.must('snapshot', 'list', run.place).out
    if r.ok and not listed:
        raise Wrong('snapshot create succeeded, and there is none')
    if listed:
        run.same(run.content(run.place + '@one'), old)
    run.same(run.content(), old)
    run.end_check()


def snapshot_list(run):
    run.begin_with_history()
    sound = run.must('snapshot', 'list', run.place).out
    yield
    r = run.objmap('snapshot', 'list', run.place)
    yield r
    if r.ok and r.out != sound:
        raise Wrong('snapshot list says %r, not %r' % (r.out, sound))


def snapshot_delete(run):
    old, new = run.begin_with_history()
    yield
    r = run.objmap('snapshot', 'delete', run.place + '@one')
    yield r
    listed = b'one' in run.must('snapshot', 'list', run.place).out
    if r.ok and listed:
        raise Wrong('snapshot delete succeeded, and it is there')
    run.same(run.content(), new)
    if listed:
        run.same(run.content(run.place + '@one'), old)
    run.end_check()


def rollback(run):
    old, new = run.begin_with_history()
    yield
    r = run.objmap('rollback', '--yes', run.place + '@one')
    yield r
    run.same(run.content(), *([old] if r.ok else [old, new]))
    run.same(run.content(run.place + '@one'), old)
    run.end_check()


def clone(run):
    old, new = run.begin_with_history()
    copy = run.place + 'clone'
    yield
    r = run.objmap('clone', run.place + '@one', copy)
    yield r
    if not run.is_there(copy):
        if r.ok:
            raise Wrong('clone succeeded, and there is none')
        run.must('clone', run.place + '@one', copy)
    run.same(run.content(copy), old)
    run.same(run.content(), new)
    run.end_check()
    run.same(run.content(copy), old)


def resize(run):
    old = run.begin()
    small, large = MIB + 5, 5 * MIB
    yield
    r = run.objmap('resize', '--yes', run.place, str(small))
    r2 = run.objmap('resize', '--yes', run.place, str(large)) if r.ok else r
    yield r2
    final = old[:small] + bytes(large - small)
    if r2.ok:
        run.same(run.content(), final)
    else:
        run.same(run.content(), old, old[:small], final)
    run.end_check()


def gc(run):
    old, new = run.begin_with_history()
    yield
    r = run.objmap('gc', '-q', '--grace', '0', run.place)
    yield r
    left = json.loads(run.must('gc', '-n', '--grace', '0', '--json', run.place).out)
    if r.ok and left['deleted'] + left['condemned'] + left['waiting']:
        raise Wrong('gc succeeded, and left %r' % left)
    run.same(run.content(), new)
    run.same(run.content(run.place + '@one'), old)
    run.end_check()


def verify(run):
    run.begin_with_history()
    yield
    r = run.objmap('verify', '-q', run.place)
    yield r


def doctor(run):
    yield
    r = run.objmap('doctor', run.place)
    yield r


def object_info(run):
    run.begin_object()
    sound = run.must('info', run.object, '--json').out
    yield
    r = run.objmap('info', run.object, '--json')
    yield r
    if r.ok and r.out != sound:
        raise Wrong('info says %r, not %r' % (r.out, sound))


def object_copy_out(run):
    data = run.begin_object()
    yield
    r = run.objmap('copy', '-q', run.object, run.dir + '/out')
    yield r
    if r.ok:
        run.same_file('out', data)


def object_verify(run):
    run.begin_object()
    yield
    r = run.objmap('verify', '-q', run.object)
    yield r


def object_gc(run):
    """Of what a killed writer left."""
    data = run.begin_object()
    upload = run.s3.create_upload(run.bucket, run.object_key)
    run.s3.put_part(run.bucket, run.object_key, upload, 1, b'left')
    yield
    r = run.objmap('gc', '--grace', '0', run.object)
    yield r
    if r.ok and list(run.s3.uploads(run.bucket, run.object_key)):
        raise Wrong('gc succeeded, and the upload is there')
    run.must('gc', '--grace', '0', run.object)
    run.same(run.s3.get(run.bucket, run.object_key).body, data)


def reads(run, data, r):
    """From the daemon whose start gave R."""
    if not r.ok:
        yield r
        return
    seen, failed, begin = [], None, time.monotonic()
    try:
        for _ in range(12):
            at = run.rng.randrange(SIZE)
            count = min(run.rng.choice((1, 4096, 100000, 600000)), SIZE - at)
            begin = time.monotonic()
            seen.append((at, bytes(run.h.pread(count, at))))
    except Exception as e:
        failed = Result(1, b'', '%s\n%s' % (e, run.said()), time.monotonic() - begin)
    yield failed or r
    for at, got in seen:
        run.same(got, data[at:at + len(got)])
    run.few_sockets()
    run.unmount()


def mount_read(run):
    data = run.begin()
    yield
    yield from reads(run, data, run.mount(
        *(['--read-only'] if run.rng.random() < 0.5 else [])))
    run.end_check()


def serve(run):
    """Of a file of one mount."""
    data = run.begin()
    file = run.file('mounts', ('[mount]\nplace = %s\nwhere = %s\n' % (
        run.place, run.socket)).encode())
    yield
    yield from reads(run, data, run.start(run.socket, 'serve', file))
    run.end_check()


def object_read(run):
    data = run.begin_object()
    yield
    yield from reads(run, data, run.mount(place=run.object))


def writes(run, old, r):
    """To the daemon whose start gave R.  Blocks hold what was written to them, whole, and
    not less than what a flush that succeeded covers."""
    if not r.ok:
        yield r
        run.same(run.content(), old)
        return
    allowed = {}			# of a block: what it may hold, oldest first
    now, seen = bytearray(old), []
    failed, begin = None, time.monotonic()
    dirty = None			# since when something is
    try:
        for _ in range(16):
            first = run.rng.randrange(SIZE // BLOCK - 40)
            count = run.rng.choice((1, 3, 40))
            new = run.rng.randbytes(count * BLOCK)
            begin = dirty = dirty or time.monotonic()
            for i in range(count):
                at = (first + i) * BLOCK
                allowed.setdefault(at, [old[at:at + BLOCK]]).append(
                    new[i * BLOCK:(i + 1) * BLOCK])
            run.h.pwrite(new, first * BLOCK)
            now[first * BLOCK:(first + count) * BLOCK] = new
            if run.rng.random() < 0.3:
                begin = dirty	# it tells what failed in the background, too
                run.h.flush()
                dirty = None
                for versions in allowed.values():
                    del versions[:-1]
            if run.rng.random() < 0.3:
                begin, at = time.monotonic(), run.rng.randrange(SIZE - 100000)
                seen.append((bytes(run.h.pread(100000, at)), bytes(now[at:at + 100000])))
    except Exception as e:
        failed = Result(1, b'', '%s\n%s' % (e, run.said()), time.monotonic() - begin)
    if failed is None and not run.lasting:	# else a drain waits, and is right
        r = run.unmount()
        if r.ok:
            for versions in allowed.values():
                del versions[:-1]
        failed = None if r.ok else r
    yield failed or r
    for got, wanted in seen:
        run.same(got, wanted)
    if run.daemon:
        run.few_sockets()
        r = run.unmount()		# healthy again: it saves the rest
        if not r.ok and not failed:
            raise Wrong('the server is well again, and unmounting fails: ' + r.err)
    got = run.content()
    for at in range(0, SIZE - BLOCK, BLOCK):
        run.same(got[at:at + BLOCK], *allowed.get(at, [old[at:at + BLOCK]]))


def mount_write(run):
    old = run.begin()
    yield
    yield from writes(run, old, run.mount('--memory-limit', '4M'))
    run.end_check()


def mount_file(run):
    old = run.begin()
    yield
    yield from writes(run, old, run.mount('--memory-limit', '4M', where=run.dir + '/disk'))
    run.end_check()


def object_write(run):
    """In parts, of which most are copies.  Others see the version before or the one that
    is flushed, whole, and that one once the flush has succeeded."""
    size = 11 * MIB + 12345
    now = bytearray(run.begin_object(size))
    versions, seen = [bytes(now)], []
    for env in run.env, run.harmed:
        env.update(OBJMAP_MULTIPART_THRESHOLD='5M', OBJMAP_PART_SIZE='5M')
    yield
    r = run.mount('--writable', place=run.object)
    if not r.ok:
        yield r
        run.same(run.s3.get(run.bucket, run.object_key).body, *versions)
        run.must('gc', '-q', '--grace', '0', run.object)
        return
    failed, begin = None, time.monotonic()
    try:
        for _ in range(3):
            for _ in range(3):
                at = run.rng.randrange(size - 100000)
                new = run.rng.randbytes(run.rng.choice((1, 4096, 70000)))
                begin = time.monotonic()
                run.h.pwrite(new, at)
                now[at:at + len(new)] = new
                seen.append((bytes(run.h.pread(100000, at)), bytes(now[at:at + 100000])))
            versions.append(bytes(now))
            begin = time.monotonic()
            run.h.flush()
            del versions[:-1]
    except Exception as e:
        failed = Result(1, b'', '%s\n%s' % (e, run.said()), time.monotonic() - begin)
    if failed is None and not run.lasting:
        r = run.unmount()
        failed = None if r.ok else r
    yield failed or r
    for got, wanted in seen:
        run.same(got, wanted)
    if run.daemon:
        r = run.unmount()		# healthy again: it publishes the rest
        if r.ok:
            versions = [bytes(now)]
        elif not failed:
            raise Wrong('the server is well again, and unmounting fails: ' + r.err)
    run.same(run.s3.get(run.bucket, run.object_key).body, *versions)
    run.must('gc', '-q', '--grace', '0', run.object)


VERBS = {f.__name__.replace('_', '-'): f for f in (
    create, delete, info, info_map, list_volumes, copy_in, copy_parts, copy_over, copy_resume,
    copy_out, copy_verify, copy_stream, snapshot_create, snapshot_list, snapshot_delete,
    rollback, clone, resize, gc, verify, doctor, mount_read, mount_write, mount_file, serve,
    object_info, object_copy_out, object_verify, object_gc, object_read, object_write)}

# What only some machines can do: a probe of fixtures.
NEEDS = {'mount-file': 'fuse'}
