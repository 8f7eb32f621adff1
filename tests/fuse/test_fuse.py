"""The FUSE file by real programs: what was flushed survives SIGKILL, however it
was written; the file behaves like a device; file systems live on it."""
import ctypes
import errno
import json
import mmap
import os
import random
import signal
import socket
import subprocess
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
import fixtures
from fixtures import OBJMAP, SEED, World, require, wait_for, wait_gone

MIB = 1 << 20
KEEP_SIZE, PUNCH_HOLE, ZERO_RANGE = 1, 2, 16
libc = ctypes.CDLL(None, use_errno=True)


def fallocate(fd, mode, offset, length):
    if libc.fallocate64(fd, mode, ctypes.c_int64(offset), ctypes.c_int64(length)) < 0:
        raise OSError(ctypes.get_errno(), 'fallocate')


class Fuse(World):
    def setUp(self):
        super().setUp()
        require('fuse')
        self.random = random.Random(SEED)

    def volume(self, size='16M', chunk='64K', name='vol'):
        self.objmap('create', 'dir:' + self.path(name), '--size', size,
                    '--chunk-size', chunk)
        return 'dir:' + self.path(name)

    def mount(self, place, *options, name='disk', **kw):
        """Mounts PLACE on a file and returns its path."""
        path = self.path(name)
        p = self.objmap('mount', place, path, '--log', self.path('log'), *options, **kw)
        self.assertEqual(p.stdout.decode(), path + '\n')
        self.mounts.append(path)
        self.pids.append(self.daemon(path))
        return path

    def daemon(self, path):
        return self.status(path)['pid']

    def status(self, path):
        return json.loads(self.objmap('status', path, '--json').stdout)

    def kill(self, path):
        pid = self.daemon(path)
        os.kill(pid, signal.SIGKILL)
        wait_gone(pid)

    def umount(self, path, *options, **kw):
        return self.objmap('umount', path, *options, **kw)

    def log(self):
        with open(self.path('log')) as f:
            return f.read()


class Durable(Fuse):
    """Each kills the daemon while the descriptor is still open: close() would
    hide an fsync that lies."""

    def survives(self, write, *options):
        place = self.volume()
        path = self.mount(place, *options)
        data = self.random.randbytes(3 * MIB + 123)
        fd = os.open(path, os.O_RDWR)
        try:
            write(fd, data)
            self.kill(path)
        finally:
            os.close(fd)
        with self.assertRaises(OSError) as refused:
            open(path)
        # ECONNABORTED: at the very moment at which its last thread ends.
        self.assertIn(refused.exception.errno, (errno.ENOTCONN, errno.ECONNABORTED))
        self.assertEqual(self.mount(place), path)
        with open(path, 'rb') as f:
            f.seek(5000)
            self.assertTrue(f.read(len(data)) == data, 'flushed data is not there')
        self.umount(path)

    def test_fsync_with_the_descriptor_open_survives_sigkill(self):
        self.survives(lambda fd, data: (os.pwrite(fd, data, 5000), os.fsync(fd)))

    def test_fdatasync_survives_sigkill(self):
        self.survives(lambda fd, data: (os.pwrite(fd, data, 5000), os.fdatasync(fd)))

    def test_a_mapping_that_was_msynced_survives_sigkill(self):
        def write(fd, data):
            with mmap.mmap(fd, 16 * MIB, mmap.MAP_SHARED) as m:
                m[5000:5000 + len(data)] = data
                m.flush()
        self.survives(write)

    def test_a_mapping_that_was_fsynced_survives_sigkill(self):
        def write(fd, data):
            m = mmap.mmap(fd, 16 * MIB, mmap.MAP_SHARED)
            m[5000:5000 + len(data)] = data
            os.fsync(fd)
            self.addCleanup(m.close)
        self.survives(write)

    def test_an_o_sync_write_survives_sigkill(self):
        def write(fd, data):
            sync = os.open('/proc/self/fd/%d' % fd, os.O_RDWR | os.O_SYNC)
            os.pwrite(sync, data, 5000)
            self.addCleanup(os.close, sync)
        self.survives(write)

    def test_an_o_direct_write_that_was_fsynced_survives_sigkill(self):
        place = self.volume()
        path = self.mount(place)
        fd = os.open(path, os.O_RDWR | os.O_DIRECT)
        buffer = mmap.mmap(-1, 2 * MIB)
        data = self.random.randbytes(2 * MIB)
        buffer[:] = data
        self.assertEqual(os.pwritev(fd, [buffer], 4096), 2 * MIB)
        os.fsync(fd)
        self.kill(path)
        os.close(fd)
        self.mount(place)
        with open(path, 'rb') as f:
            f.seek(4096)
            self.assertTrue(f.read(2 * MIB) == data)
        self.umount(path)

    def test_what_was_not_flushed_is_not_durable_before_the_flush(self):
        """The tests above could pass with a daemon that commits at each write."""
        place = self.volume()
        path = self.mount(place)
        fd = os.open(path, os.O_RDWR)
        os.pwrite(fd, b'x' * 4096, 0)
        before = self.status(path)['volume']
        self.assertGreater(before['dirty_bytes'], 0)
        os.fsync(fd)
        after = self.status(path)['volume']
        self.assertEqual(after['dirty_bytes'], 0)
        self.assertEqual(after['commits'], before['commits'] + 1)
        os.close(fd)
        self.umount(path)

    def test_the_last_close_begins_to_save_and_an_earlier_one_does_not(self):
        path = self.mount(self.volume())
        with open(path, 'r+b') as other:
            with open(path, 'r+b') as f:
                f.write(b'x' * 4096)
            with open(path, 'rb'):
                pass
            time.sleep(0.2)
            before = self.status(path)['volume']
            self.assertGreater(before['dirty_bytes'], 0)
            reader = open(path, 'rb')
            self.addCleanup(reader.close)
        after = wait_for(lambda: (v := self.status(path)['volume'])['dirty_bytes'] == 0 and v,
                         'the commit')
        self.assertEqual(after['commits'], before['commits'] + 1)
        self.assertEqual(self.status(path)['frontend']['flushes'], 0)
        reader.close()
        self.umount(path)

    def test_umount_saves_without_a_flush(self):
        place = self.volume()
        path = self.mount(place)
        data = self.random.randbytes(MIB)
        with open(path, 'r+b') as f:
            f.write(data)
        self.umount(path)
        self.mount(place)
        with open(path, 'rb') as f:
            self.assertTrue(f.read(MIB) == data)
        self.umount(path)


class Device(Fuse):
    def test_random_reads_and_writes_match_a_flat_file(self):
        size = 4 * MIB + 777
        path = self.mount('memory:%d' % size)
        model = bytearray(size)
        plain = os.open(path, os.O_RDWR)
        mapped = mmap.mmap(plain, size, mmap.MAP_SHARED)
        for step in range(400):
            offset = self.random.randrange(size)
            count = min(self.random.randrange(1, 200000), size - offset)
            kind = self.random.randrange(5)
            if kind == 0:
                data = self.random.randbytes(count)
                self.assertEqual(os.pwrite(plain, data, offset), count)
                model[offset:offset + count] = data
            elif kind == 1:
                data = self.random.randbytes(count)
                mapped[offset:offset + count] = data
                model[offset:offset + count] = data
            elif kind == 2:
                fallocate(plain, KEEP_SIZE | self.random.choice((PUNCH_HOLE, ZERO_RANGE)),
                          offset, count)
                model[offset:offset + count] = bytes(count)
            elif kind == 3:
                self.assertTrue(os.pread(plain, count, offset) ==
                                model[offset:offset + count], 'step %d' % step)
            else:
                self.assertTrue(mapped[offset:offset + count] ==
                                model[offset:offset + count], 'step %d' % step)
        os.fsync(plain)
        mapped.close()
        os.close(plain)
        with open(path, 'rb') as f:
            self.assertTrue(f.read() == model)
        self.umount(path)

    def test_o_direct_sees_what_others_wrote_and_they_see_it(self):
        path = self.mount('memory:8M')
        plain = os.open(path, os.O_RDWR)
        direct = os.open(path, os.O_RDWR | os.O_DIRECT)
        buffer = mmap.mmap(-1, 8192)
        os.pread(plain, 65536, 0)       # in the page cache now
        buffer[:] = b'd' * 8192
        self.assertEqual(os.pwritev(direct, [buffer], 4096), 8192)
        self.assertEqual(os.pread(plain, 8192, 4096), b'd' * 8192)
        os.pwrite(plain, b'p' * 4096, 8192)
        self.assertEqual(os.preadv(direct, [buffer], 4096), 8192)
        self.assertEqual(buffer[:], b'd' * 4096 + b'p' * 4096)
        os.close(plain)
        os.close(direct)
        self.umount(path)

    def test_the_size_cannot_change_and_o_trunc_destroys_nothing(self):
        path = self.mount('memory:1M')
        with open(path, 'r+b') as f:
            f.write(b'kept')
        with open(path, 'wb') as f:       # O_TRUNC
            self.assertEqual(os.fstat(f.fileno()).st_size, MIB)
            os.ftruncate(f.fileno(), MIB)
            for size in (0, 1, MIB - 1, MIB + 1):
                with self.assertRaises(OSError) as refused:
                    os.ftruncate(f.fileno(), size)
                self.assertEqual(refused.exception.errno, errno.EINVAL)
            with self.assertRaises(OSError) as full:
                os.pwrite(f.fileno(), b'x', MIB)
            self.assertEqual(full.exception.errno, errno.ENOSPC)
            self.assertEqual(os.pwrite(f.fileno(), b'x' * 100, MIB - 10), 10)
        with open(path, 'rb') as f:
            self.assertEqual(f.read(4), b'kept')
            self.assertEqual(len(f.read()), MIB - 4)
        self.assertIn('--sparse=never', self.log())
        self.umount(path)

    def test_dd_writes_it_like_a_device(self):
        data = self.random.randbytes(2 * MIB)
        with open(self.path('image'), 'wb') as f:
            f.write(data)
        path = self.mount(self.volume(size='4M'))
        self.run_ok('dd', 'if=' + self.path('image'), 'of=' + path, 'bs=1M',
                    'conv=fsync')
        self.run_ok('dd', 'if=' + self.path('image'), 'of=' + path, 'bs=1M',
                    'seek=2', 'conv=notrunc', 'oflag=direct')
        with open(path, 'rb') as f:
            self.assertTrue(f.read() == data + data)
        self.umount(path)

    def test_holes_are_found_and_made(self):
        path = self.mount(self.volume())
        fd = os.open(path, os.O_RDWR)
        with self.assertRaises(OSError) as none:
            os.lseek(fd, 0, os.SEEK_DATA)
        self.assertEqual(none.exception.errno, errno.ENXIO)
        self.assertEqual(os.lseek(fd, 5, os.SEEK_HOLE), 5)
        os.pwrite(fd, b'x' * 65536, 4 * MIB)
        os.pwrite(fd, b'x' * 131072, 8 * MIB)
        os.fsync(fd)
        self.assertEqual(os.lseek(fd, 0, os.SEEK_DATA), 4 * MIB)
        self.assertEqual(os.lseek(fd, 4 * MIB, os.SEEK_HOLE), 4 * MIB + 65536)
        self.assertEqual(os.lseek(fd, 5 * MIB, os.SEEK_DATA), 8 * MIB)
        fallocate(fd, KEEP_SIZE | PUNCH_HOLE, 4 * MIB, 65536)
        self.assertEqual(os.pread(fd, 65536, 4 * MIB), bytes(65536))
        os.fsync(fd)
        self.assertEqual(os.lseek(fd, 0, os.SEEK_DATA), 8 * MIB)
        self.assertEqual(os.lseek(fd, 8 * MIB, os.SEEK_HOLE), 8 * MIB + 131072)
        with self.assertRaises(OSError) as beyond:
            os.lseek(fd, 16 * MIB, os.SEEK_HOLE)
        self.assertEqual(beyond.exception.errno, errno.ENXIO)
        fallocate(fd, KEEP_SIZE | PUNCH_HOLE, 15 * MIB, 64 * MIB)
        for mode, code in ((0, errno.EOPNOTSUPP), (8, errno.EOPNOTSUPP),
                           (ZERO_RANGE, errno.ENOSPC)):
            with self.assertRaises(OSError) as refused:
                fallocate(fd, mode, 15 * MIB, 2 * MIB)
            self.assertEqual(refused.exception.errno, code)
        os.close(fd)
        self.umount(path)

    def test_lseek_over_very_many_extents_answers(self):
        size = 256 * MIB
        path = self.mount('file:' + self.sparse(size))
        fd = os.open(path, os.O_RDWR)
        self.assertEqual(os.lseek(fd, 4096, os.SEEK_DATA), 8192)
        holes = 0
        at = 0
        while at < 4 * MIB:
            at = os.lseek(fd, at, os.SEEK_HOLE)
            at = os.lseek(fd, at, os.SEEK_DATA)
            holes += 1
        self.assertGreater(holes, 100)
        os.close(fd)
        self.umount(path)

    def sparse(self, size):
        path = self.path('sparse')
        with open(path, 'wb') as f:
            for at in range(0, 8 * MIB, 8192):
                f.seek(at)
                f.write(b'x' * 4096)
            f.truncate(size)
        return path

    def test_a_read_only_mount_cannot_be_written(self):
        place = self.volume()
        path = self.mount(place, '--read-only')
        self.assertEqual(os.stat(path).st_mode & 0o777, 0o400)
        with self.assertRaises(OSError) as refused:
            os.open(path, os.O_RDWR)
        self.assertEqual(refused.exception.errno, errno.EROFS)
        with open(path, 'rb') as f:
            self.assertEqual(f.read(10), bytes(10))
        self.umount(path)

    def test_resize_is_seen_at_once(self):
        place = self.volume()
        path = self.mount(place)
        with open(path, 'r+b') as f:
            self.objmap('resize', place, '32M')
            self.assertEqual(os.fstat(f.fileno()).st_size, 32 * MIB)
            f.seek(32 * MIB - 4)
            f.write(b'last')
            f.flush()
            os.fsync(f.fileno())
        p = self.objmap('resize', place, '8M', '--yes', status=1)
        self.assertIn(b'only grow', p.stderr)
        self.umount(path)

    def test_a_reader_that_follows_sees_new_commits(self):
        place = self.volume()
        writer = self.mount(place)
        reader = self.mount(place, '--read-only', '--follow', '--refresh-interval',
                            '200ms', name='reader')
        with open(reader, 'rb', buffering=0) as r:
            self.assertEqual(r.read(4), bytes(4))     # in the page cache
            with open(writer, 'r+b') as f:
                f.write(b'news')
                f.flush()
                os.fsync(f.fileno())
            wait_for(lambda: os.pread(r.fileno(), 4, 0) == b'news', 'the new commit')
            # A volume that grows is a file that does.
            size = os.path.getsize(writer)
            self.objmap('resize', place, str(2 * size))
            with open(writer, 'r+b') as f:
                f.seek(2 * size - 4)
                f.write(b'tail')
                f.flush()
                os.fsync(f.fileno())
            wait_for(lambda: os.path.getsize(reader) == 2 * size, 'the new size')
            wait_for(lambda: os.pread(r.fileno(), 4, 2 * size - 4) == b'tail', 'its end')
        self.umount(reader)
        self.umount(writer)

    def test_many_readers_at_once(self):
        path = self.mount('pattern:256M')
        script = ('import os,random,sys,struct\n'
                  'f=os.open(sys.argv[1],os.O_RDONLY)\n'
                  'r=random.Random(int(sys.argv[2]))\n'
                  'for i in range(300):\n'
                  '    o=r.randrange(256*2**20-65536)//8*8\n'
                  '    b=os.pread(f,65536,o)\n'
                  '    assert b==b"".join(struct.pack(">Q",x) for x in range(o,o+65536,8)),o\n')
        running = [subprocess.Popen([sys.executable, '-c', script, path, str(i)])
                   for i in range(8)]
        try:
            self.assertEqual([p.wait(240) for p in running], [0] * 8)
        finally:
            for p in running:
                p.kill()
                p.wait()
        self.umount(path)


class FileSystems(Fuse):
    def loop(self, path):
        device = self.run_ok('losetup', '--find', '--show', path).stdout.decode().strip()
        self.addCleanup(subprocess.run, ['losetup', '-d', device], capture_output=True)
        return device

    def detach(self, device):
        """Somebody of this machine may look at it just now: it goes when he has done."""
        self.run_ok('losetup', '-d', device)
        loop = '/sys/block/%s/loop' % os.path.basename(device)
        wait_for(lambda: not os.path.exists(loop), 'the loop device to be let go')

    def carries(self, *mkfs):
        require('root', 'loop', mkfs[0])
        place = self.volume(size='512M', chunk='1M')
        path = self.mount(place)
        device = self.loop(path)
        self.run_ok(*mkfs, device, timeout=120)
        mnt = self.path('mnt')
        os.mkdir(mnt)
        self.run_ok('mount', device, mnt)
        self.mounts.append(mnt)
        data = self.random.randbytes(20 * MIB)
        with open(mnt + '/file', 'wb') as f:
            f.write(data)
            f.flush()
            os.fsync(f.fileno())
        self.run_ok('umount', mnt)
        # In use by the loop device: said so, and it goes on.
        p = self.umount(path, status=1)
        self.assertIn(b'in use', p.stderr)
        self.detach(device)
        self.umount(path)
        self.mount(place)
        device = self.loop(path)
        self.run_ok('mount', device, mnt)
        with open(mnt + '/file', 'rb') as f:
            self.assertTrue(f.read() == data)
        self.run_ok('umount', mnt)
        self.detach(device)
        self.umount(path)

    def test_a_loop_device_over_it_carries_ext4(self):
        self.carries('mkfs.ext4', '-q')

    def test_a_loop_device_over_it_carries_xfs(self):
        self.carries('mkfs.xfs', '-q')

    def test_mke2fs_works_on_the_file_itself(self):
        require('mke2fs', 'e2fsck')
        path = self.mount(self.volume(size='64M'))
        self.run_ok('mke2fs', '-q', '-t', 'ext4', path)
        self.run_ok('e2fsck', '-fn', path)
        self.umount(path)


class Mountpoint(Fuse):
    def test_a_missing_file_is_made_and_removed(self):
        path = self.mount('memory:1M')
        self.assertEqual(os.stat(path).st_size, MIB)
        self.assertEqual(os.stat(path).st_mode & 0o777, 0o600)
        self.umount(path)
        self.assertFalse(os.path.exists(path))

    def test_an_empty_file_stays(self):
        open(self.path('disk'), 'w').close()
        path = self.mount('memory:1M')
        self.umount(path)
        self.assertEqual(os.stat(path).st_size, 0)

    def test_a_file_that_is_not_empty_needs_over(self):
        with open(self.path('disk'), 'w') as f:
            f.write('mine')
        p = self.objmap('mount', 'memory:1M', self.path('disk'), status=1)
        self.assertIn(b'--over', p.stderr)
        path = self.mount('memory:1M', '--over')
        self.assertEqual(os.stat(path).st_size, MIB)
        self.umount(path)
        with open(path) as f:
            self.assertEqual(f.read(), 'mine')

    def test_a_folder_is_refused_with_a_name_suggested(self):
        os.mkdir(self.path('dir'))
        p = self.objmap('mount', 'memory:1M', self.path('dir'), status=1)
        self.assertIn(self.path('dir/disk').encode(), p.stderr)

    def test_a_symbolic_link_is_refused(self):
        os.symlink('nowhere', self.path('link'))
        p = self.objmap('mount', 'memory:1M', self.path('link'), status=1)
        self.assertIn(b'symbolic link', p.stderr)

    def test_a_second_mount_on_it_is_refused(self):
        path = self.mount('memory:1M')
        p = self.objmap('mount', 'memory:2M', path, status=1)
        self.assertIn(b'objmap umount', p.stderr)
        self.assertEqual(os.stat(path).st_size, MIB)
        self.umount(path)

    def test_no_volume_is_claimed_for_a_place_where_it_cannot_be(self):
        place = self.volume()
        with open(self.path('full'), 'w') as f:
            f.write('mine')
        os.mkdir(self.path('folder'))
        os.symlink('nowhere', self.path('link'))
        busy = self.mount('memory:1M', name='busy')
        sock = 'nbd+unix:///?socket=' + self.path('sock')
        self.objmap('mount', 'memory:1M', sock)
        self.pids.append(self.daemon(sock))
        with socket.create_server(('127.0.0.1', 0)) as taken, \
                open(self.path('vol/head'), 'rb') as f:
            head = f.read()
            for where in (busy, self.path('full'), self.path('folder'), self.path('link'),
                          self.path('none/disk'), sock,
                          'nbd://127.0.0.1:%d/' % taken.getsockname()[1]):
                with self.subTest(where=where):
                    self.objmap('mount', place, where, status=2 if '/none/' in where else 1)
                    # A claim swaps head, another file: also one that was given back.
                    with open(self.path('vol/head'), 'rb') as now:
                        self.assertEqual(now.read(), head)
                    self.assertIsNone(json.loads(
                        self.objmap('info', place, '--json').stdout)['holder'])
        self.umount(self.mount(place))
        self.umount(busy)
        self.objmap('umount', sock)

    def test_a_dead_mount_is_cleaned_up_by_the_next(self):
        path = self.mount('memory:1M')
        self.kill(path)
        self.mount('memory:2M')
        self.assertEqual(os.stat(path).st_size, 2 * MIB)
        self.umount(path)
        with open('/proc/self/mounts') as f:
            self.assertNotIn(self.dir, f.read())

    def test_status_lists_a_dead_mount_and_says_what_to_do(self):
        alive = self.mount('memory:1M', name='alive')
        path = self.mount('memory:2M')
        self.kill(path)
        mounts = {m['where']: m for m in self.mounted()}
        self.assertEqual(mounts[path], {'where': path, 'place': 'memory:2M', 'state': 'dead'})
        self.assertEqual(mounts[alive]['state'], 'serving')
        p = self.objmap('status')
        self.assertRegex(p.stdout.decode(), '(?m)^%s .*memory:2M .*DEAD$' % path)
        self.assertIn('%s: its daemon has died: objmap umount' % path, p.stderr.decode())
        self.assertIn(b'its daemon has died', self.objmap('status', path, status=1).stderr)
        self.umount(path)
        self.assertEqual([m['where'] for m in self.mounted()], [alive])
        self.umount(alive)

    def test_status_is_not_kept_by_a_mount_that_hangs(self):
        # Of somebody else: nothing here knows its daemon.
        env = dict(self.env, OBJMAP_RUNTIME_DIR=self.path('run2'))
        path = self.path('hangs')
        self.objmap('mount', 'memory:1M', path, env=env)
        self.mounts.append(path)
        pid = json.loads(self.objmap('status', path, '--json', env=env).stdout)['pid']
        self.pids.append(pid)
        os.kill(pid, signal.SIGSTOP)
        try:
            self.assertEqual(self.mounted(), [])
        finally:
            os.kill(pid, signal.SIGCONT)
        self.objmap('umount', path, env=env)

    def test_umount_cleans_up_a_dead_mount_and_says_so(self):
        path = self.mount('memory:1M')
        self.kill(path)
        p = self.umount(path)
        self.assertIn(b'taken away', p.stderr)
        with open('/proc/self/mounts') as f:
            self.assertNotIn(self.dir, f.read())
        p = self.umount(path, status=1)
        self.assertIn(b'not mounted', p.stderr)

    def test_without_dev_fuse_the_cause_and_another_way_are_named(self):
        require('root', 'unshare')
        place = self.volume()
        p = subprocess.run(
            ['unshare', '-m', 'sh', '-c',
             'mount -t tmpfs none /dev && exec "$0" mount "$1" "$2"',
             OBJMAP, place, self.path('disk')],
            capture_output=True, env=self.env, timeout=30)
        self.assertEqual(p.returncode, 1)
        self.assertIn(b'/dev/fuse', p.stderr)
        self.assertIn(b'nbd+unix:', p.stderr)
        self.assertFalse(os.path.exists(self.path('disk')))
        info = json.loads(self.objmap('info', place, '--json').stdout)
        self.assertFalse(info['holder'], info)


class Ending(Fuse):
    def dirty(self):
        place = self.volume()
        path = self.mount(place)
        self.data = self.random.randbytes(MIB)
        with open(path, 'r+b') as f:
            f.write(self.data)
        return place, path, self.daemon(path)

    def check(self, place):
        path = self.mount(place)
        with open(path, 'rb') as f:
            self.assertTrue(f.read(MIB) == self.data)
        self.umount(path)

    def test_fusermount_ends_in_a_drained_clean_exit(self):
        require('fusermount3')
        place, path, pid = self.dirty()
        self.run_ok('fusermount3', '-u', path)
        wait_gone(pid)
        self.assertFalse(os.path.exists(path))
        self.check(place)

    def test_sigterm_drains_and_frees_the_file(self):
        place, path, pid = self.dirty()
        os.kill(pid, signal.SIGTERM)
        wait_gone(pid)
        self.assertFalse(os.path.exists(path))
        self.check(place)

    def test_sigterm_under_users_saves_what_they_wrote_and_ends(self):
        place = self.volume()
        path = self.mount(place)
        pid = self.daemon(path)
        self.data = self.random.randbytes(MIB)
        fd = os.open(path, os.O_RDWR)
        m = mmap.mmap(fd, 16 * MIB, mmap.MAP_SHARED)
        os.pwrite(fd, self.data[:65536], 0)
        m[65536:MIB] = self.data[65536:]      # no msync
        os.kill(pid, signal.SIGTERM)
        wait_gone(pid)
        with self.assertRaises(OSError) as cut:
            os.fsync(fd)
            os.pwrite(fd, b'x', 0)
        self.assertIn(cut.exception.errno, (errno.ENOTCONN, errno.EIO))
        os.close(fd)
        self.check(place)

    def test_umount_of_a_busy_file_is_refused_and_force_takes_it(self):
        place, path, pid = self.dirty()
        with open(path, 'r+b'):
            p = self.umount(path, status=1)
            self.assertIn(b'in use', p.stderr)
            self.assertEqual(self.daemon(path), pid)
            self.umount(path, '--force')
            wait_gone(pid)
        self.check(place)

    def test_what_others_mounted_over_it_is_not_taken_away(self):
        require('root')
        place, path, pid = self.dirty()
        with open(self.path('other'), 'w') as f:
            f.write('another file')
        self.run_ok('mount', '--bind', self.path('other'), path)
        p = self.umount(path, status=1)
        self.assertIn(b'mounted over it', p.stderr)
        os.kill(pid, signal.SIGTERM)
        wait_for(lambda: self.log().count('mounted over it') > 1, 'its refusal')
        self.umount(path, '--force', status=1)
        with open(path) as f:
            self.assertEqual(f.read(), 'another file')
        self.run_ok('umount', path)
        self.umount(path)
        wait_gone(pid)
        self.check(place)

    def test_a_copy_in_another_mount_namespace_does_not_hold_it(self):
        require('root', 'unshare')
        place, path, pid = self.dirty()
        other = self.start('unshare', '--mount', '--propagation', 'private', 'sleep', '100')

        def name():
            with open('/proc/%d/comm' % other.pid) as f:
                return f.read().strip()
        wait_for(lambda: name() == 'sleep', 'the namespace to be its own')
        self.umount(path, timeout=40)
        wait_gone(pid)
        other.kill()
        other.wait()
        self.check(place)

    def test_no_drain_drops_and_says_so(self):
        place = self.volume()
        path = self.mount(place, '--memory-limit', '64M')
        fd = os.open(path, os.O_RDWR)
        os.pwrite(fd, b'lost', 0)
        self.assertEqual(self.umount(path, '--no-drain', status=2).stdout, b'')
        self.umount(path, '--no-drain', '--force')
        os.close(fd)
        self.assertIn('dropped', self.log())
        path = self.mount(place)
        with open(path, 'rb') as f:
            self.assertEqual(f.read(4), bytes(4))
        self.umount(path)

    def test_what_cannot_be_saved_keeps_the_mount(self):
        require('root', 'tmpfs')
        small = self.tmpfs('small', 3 * MIB)
        self.objmap('create', 'dir:' + small + '/vol', '--size', '16M')
        path = self.mount('dir:' + small + '/vol', '--retry-for', '100ms')
        fd = os.open(path, os.O_RDWR)
        data = self.random.randbytes(8 * MIB)
        os.pwrite(fd, data, 0)
        os.close(fd)
        p = self.umount(path, status=1, timeout=120)
        self.assertIn(b'stays mounted', p.stderr)
        with open(path, 'rb') as f:
            self.assertTrue(f.read(8 * MIB) == data)
        self.run_ok('mount', '-o', 'remount,size=64M', small)
        self.umount(path)
        self.mount('dir:' + small + '/vol')
        with open(path, 'rb') as f:
            self.assertTrue(f.read(8 * MIB) == data)
        self.umount(path)


class Unprivileged(Fuse):
    def test_other_users_are_let_in_on_request_only(self):
        require('root', 'setpriv')
        os.chmod(self.dir, 0o755)
        for options, status in (([], 1), (['--allow-other'], 0)):
            path = self.mount('memory:1M', *options)
            p = subprocess.run(['setpriv', '--reuid=65534', '--regid=65534',
                                '--clear-groups', 'head', '-c1', path],
                               capture_output=True, timeout=30)
            self.assertEqual(p.returncode, status, p.stderr)
            self.umount(path)

    def test_an_ordinary_user_mounts_through_fusermount3(self):
        require('root', 'setpriv', 'fusermount3')
        mode = os.stat('/dev/fuse').st_mode & 0o777
        os.chmod('/dev/fuse', 0o666)      # as udev has it
        self.addCleanup(os.chmod, '/dev/fuse', mode)
        os.chmod(self.dir, 0o777)
        path = self.path('disk')
        as_nobody = ['setpriv', '--reuid=65534', '--regid=65534', '--clear-groups']
        env = dict(self.env, XDG_STATE_HOME=self.dir + '/nobody')

        def run(*argv, status=0):
            p = subprocess.run([*as_nobody, *argv], capture_output=True, env=env,
                               timeout=30, cwd=self.dir)
            self.assertEqual(p.returncode, status, p.stderr)
            return p
        run(OBJMAP, 'mount', 'memory:1M', path)
        self.mounts.append(path)
        pid = json.loads(run(OBJMAP, 'status', path, '--json').stdout)['pid']
        self.pids.append(pid)
        run('dd', 'if=/dev/zero', 'of=' + path, 'bs=64k', 'count=4', 'conv=fsync')
        run('fusermount3', '-u', path)
        wait_gone(pid)
        self.assertFalse(os.path.exists(path))
        run(OBJMAP, 'mount', 'memory:1M', path)
        run(OBJMAP, 'umount', path)
        self.assertFalse(os.path.exists(path))
        # A killed daemon's mount is cleaned up by its owner too.
        run(OBJMAP, 'mount', 'memory:1M', path)
        pid = json.loads(run(OBJMAP, 'status', path, '--json').stdout)['pid']
        os.kill(pid, signal.SIGKILL)
        wait_gone(pid)
        run(OBJMAP, 'mount', 'memory:2M', path)
        run(OBJMAP, 'umount', path)
        # What keeps fusermount3 from unmounting is told as it is.
        os.mkdir(self.path('bin'))
        with open(self.path('bin/fusermount3'), 'w') as f:
            f.write('#!/bin/sh\necho fusermount3: out of luck >&2\nexit 1\n')
        os.chmod(self.path('bin/fusermount3'), 0o755)
        env['PATH'] = self.path('bin') + ':' + env['PATH']
        run(OBJMAP, 'mount', 'memory:1M', path)
        said = run(OBJMAP, 'umount', path, status=1).stderr.decode()
        self.assertIn('fusermount3: out of luck', said)
        self.assertNotIn('in use', said)
        os.unlink(self.path('bin/fusermount3'))
        user = self.start(*as_nobody, 'sh', '-c', 'exec <"$0"; echo; exec sleep 60', path,
                          stdout=subprocess.PIPE)
        user.stdout.readline()
        user.stdout.close()
        self.assertIn(b'is in use', run(OBJMAP, 'umount', path, status=1).stderr)
        user.kill()
        user.wait()
        run(OBJMAP, 'umount', path)


if __name__ == '__main__':
    fixtures.main()
