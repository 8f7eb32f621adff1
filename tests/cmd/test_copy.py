"""objmap copy: what comes out is what went in, holes are kept, a cut copy is
never taken for a whole one and goes on, errors reach the exit status."""
import json
import os
import random
import signal
import struct
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '..'))
import fixtures
from fixtures import OBJMAP, SEED, World, require, wait_for

MIB = 1 << 20


def allocated(path):
    return os.stat(path).st_blocks * 512


class Copy(World):
    def setUp(self):
        super().setUp()
        self.random = random.Random(SEED)
        self.place = 'dir:' + self.path('vol')

    def file(self, name, data):
        with open(self.path(name), 'wb') as f:
            f.write(data)
        return self.path(name)

    def sparse(self, name, size, pieces):
        """A file of SIZE with data at some offsets; returns path and content."""
        with open(self.path(name), 'wb') as f:
            f.truncate(size)
            for offset, count in pieces:
                f.seek(offset)
                f.write(self.random.randbytes(min(count, size - offset)))
        with open(self.path(name), 'rb') as f:
            return self.path(name), f.read()

    def content(self, place):
        return self.objmap('copy', '-q', place, '-').stdout

    def info(self, place):
        return json.loads(self.objmap('info', place, '--json', '--map', '--cost').stdout)

    def stored(self, place):
        return self.info(place)['cost']['chunks']

    def test_every_pair_of_ends_carries_odd_sizes(self):
        for size in (1, 511, 65536, 65537, 3 * MIB + 7):
            data = self.random.randbytes(size)
            image = self.file('image', data)
            for source in (image, 'file:' + image, '-', 'vol'):
                for target in ('out', 'file', '-', 'vol'):
                    with self.subTest(size=size, source=source, target=target):
                        self.pair(size, data, image, source, target)

    def pair(self, size, data, image, source, target):
        new = self.path('new%d' % self.random.getrandbits(40))
        feed = {'input': data} if source == '-' else {}
        if source == 'vol':
            source = new + 's'
            self.objmap('copy', image, 'dir:' + source, '--chunk-size', '64K', '-q')
            source = 'dir:' + source
        place = {'out': new, 'file': 'file:' + new, '-': '-', 'vol': 'dir:' + new}[target]
        more = ['--size', str(size)] if target == 'vol' and source == '-' else []
        out = self.objmap('copy', source, place, '-q', *more, **feed).stdout
        if target == 'vol':
            self.assertEqual(self.info(place)['size'], size)
            self.assertEqual(self.info(place)['state'], 'live')
            out = self.content(place)
        elif target != '-':
            with open(new, 'rb') as f:
                out = f.read()
        self.assertTrue(out == data, 'what came out differs')

    def test_the_pattern_arrives_where_it_belongs(self):
        self.objmap('copy', 'pattern:5M', self.place, '--verify')
        data = self.content(self.place)
        self.assertEqual(len(data), 5 * MIB)
        for offset in range(0, 5 * MIB, 4096):
            self.assertEqual(struct.unpack_from('>Q', data, offset)[0], offset)

    def test_holes_are_kept_on_both_sides(self):
        path, data = self.sparse('sparse', 300 * MIB, [(0, 1), (100 * MIB, 70000),
                                                       (299 * MIB, 5 * MIB)])
        self.objmap('copy', path, self.place, '--verify')
        self.assertEqual(self.stored(self.place), 3)
        back = self.path('back')
        self.objmap('copy', self.place, back, '--verify')
        with open(back, 'rb') as f:
            self.assertTrue(f.read() == data)
        self.assertLess(allocated(back), 4 * MIB)
        result = json.loads(self.objmap('copy', self.place, self.path('again'),
                                        '--json').stdout)
        self.assertEqual(result['bytes'], 300 * MIB)
        self.assertLess(result['read_bytes'], 4 * MIB)

    def test_zeros_that_are_written_out_become_holes(self):
        path = self.file('zeros', bytes(10 * MIB))
        self.objmap('copy', path, self.place)
        self.assertEqual(self.stored(self.place), 0)
        p = self.objmap('copy', '-', self.path('out'), input=bytes(10 * MIB) + b'x')
        self.assertLess(allocated(self.path('out')), 2 * MIB)
        self.assertEqual(os.path.getsize(self.path('out')), 10 * MIB + 1)

    def test_overwriting_a_larger_volume_leaves_zeros_behind_the_source(self):
        old = self.file('old', self.random.randbytes(6 * MIB))
        new, data = self.sparse('new', 2 * MIB + 5, [(0, 100), (2 * MIB, 5)])
        self.objmap('copy', old, self.place, '--chunk-size', '256K')
        self.objmap('copy', new, self.place, '--overwrite', '--verify')
        self.assertTrue(self.content(self.place) ==
                        data + bytes(4 * MIB - 5))
        self.assertEqual(self.stored(self.place), 2)

    def test_overwriting_a_file_replaces_all_of_it(self):
        old = self.file('old', self.random.randbytes(3 * MIB))
        new, data = self.sparse('new', MIB, [(MIB // 2, 100)])
        self.assertIn('--overwrite', self.objmap('copy', new, old, status=1)
                      .stderr.decode())
        self.objmap('copy', new, old, '--overwrite', '--verify')
        with open(old, 'rb') as f:
            self.assertTrue(f.read() == data)

    def test_an_image_in_use_is_refused_before_it_is_touched(self):
        data = self.random.randbytes(MIB)
        image = self.file('image', data)
        where = 'nbd+unix:///?socket=' + self.path('s')
        self.objmap('mount', 'file:' + image, where)
        for source, feed in ((self.file('new', b'n' * 4096), {}), ('-', {'input': b'n' * 4096})):
            p = self.objmap('copy', source, image, '--overwrite', status=1, **feed)
            self.assertIn('open for writing', p.stderr.decode())
            with open(image, 'rb') as f:
                self.assertTrue(f.read() == data, 'it was touched')
        self.objmap('umount', where)
        self.objmap('copy', '-', image, '--overwrite', input=b'n' * 4096)
        with open(image, 'rb') as f:
            self.assertEqual(f.read(), b'n' * 4096)

    def test_a_source_that_is_cut_meanwhile_is_an_error_and_no_zeros(self):
        image = self.file('image', self.random.randbytes(4 * MIB))
        where = 'nbd+unix:///?socket=' + self.path('s')
        self.objmap('mount', 'file:' + image, where, '--read-only')
        os.truncate(image, MIB)
        p = self.objmap('copy', where, self.path('out'), status=1)
        self.assertIn('cannot be read at byte', p.stderr.decode())
        self.objmap('umount', where)

    def test_ends_with_limits_of_their_own_take_any_piece(self):
        # A piece is a chunk: longer than what one NBD request may carry.
        data = self.random.randbytes(40 * MIB + 5)
        where = 'nbd+unix:///?socket=' + self.path('s')
        self.objmap('mount', 'file:' + self.file('image', data), where, '--read-only')
        self.objmap('copy', where, self.place, '--chunk-size', '64M', '--verify')
        self.objmap('umount', where)
        self.assertTrue(self.content(self.place) == data)
        # A server that takes whole blocks only, and few of them.
        back = self.file('back', bytes(41 * MIB))
        sock = self.path('k')
        self.start('nbdkit', '-f', '-U', sock, '--filter=blocksize-policy', 'file', back,
                   'blocksize-minimum=4096', 'blocksize-maximum=256k',
                   'blocksize-error-policy=error')
        wait_for(lambda: os.path.exists(sock), 'nbdkit')
        self.objmap('copy', self.place, 'nbd+unix:///?socket=' + sock, '--overwrite', '--verify')
        with open(back, 'rb') as f:
            self.assertTrue(f.read() == data + bytes(MIB - 5))

    def test_room_is_asked_for_before_anything_is_written(self):
        big = self.file('big', bytes(2 * MIB))
        self.objmap('create', self.place, '--size', '1M')
        p = self.objmap('copy', big, self.place, '--overwrite', status=1)
        self.assertIn('has room for 1 MiB', p.stderr.decode())
        self.assertEqual(self.info(self.place)['state'], 'live')

    def test_ends_that_cannot_be_are_refused(self):
        image = self.file('image', b'x' * MIB)
        self.objmap('copy', image, self.place)
        self.objmap('snapshot', 'create', self.place, 'n')
        for args, status, says in (
                ([image, self.place + '@n'], 2, 'cannot be written to'),
                ([image, 'pattern:1G'], 1, 'cannot be written to'),
                ([image, image, '--overwrite'], 2, 'same file'),
                ([self.place, self.place, '--overwrite'], 2, 'same volume'),
                ([self.place + '@n', self.place, '--overwrite'], 2, 'objmap rollback'),
                (['-', 'dir:' + self.path('new')], 2, '--size'),
                ([image, '-', '--verify'], 2, 'cannot read standard output back'),
                ([image, self.dir], 1, 'is a directory'),
                ([image, self.path('no/such')], 1, 'No such file'),
                ([self.path('absent'), 'null:1G'], 1, 'No such file')):
            with self.subTest(args=args):
                p = self.objmap('copy', *args, status=status)
                self.assertIn(says, p.stderr.decode())

    def test_a_stream_that_is_too_long_fails(self):
        p = self.objmap('copy', '-', self.place, '--size', '1M', status=1,
                        input=bytes(MIB + 1))
        self.assertIn('has more bytes', p.stderr.decode())
        self.assertIn('objmap delete', p.stderr.decode())
        self.assertEqual(self.info(self.place)['state'], 'incomplete')

    def test_verify_tells_a_target_that_kept_nothing(self):
        p = self.objmap('copy', 'pattern:4M', 'null:4M', '--verify', status=1)
        self.assertIn('differs from what was copied, between byte', p.stderr.decode())
        self.objmap('copy', 'null:4M', 'null:4M', '--verify')

    def test_a_flipped_bit_of_a_chunk_is_never_copied_on(self):
        image = self.file('image', self.random.randbytes(MIB))
        self.objmap('copy', image, self.place, '--chunk-size', '64K')
        chunks = [os.path.join(top, f) for top, _, files in
                  os.walk(self.path('vol/chunk')) for f in files]
        chunk = self.random.choice(chunks)
        with open(chunk, 'r+b') as f:
            at = self.random.randrange(65536)
            f.seek(at)
            byte = f.read(1)[0]
            f.seek(at)
            f.write(bytes([byte ^ 1 << self.random.randrange(8)]))
        p = self.objmap('copy', self.place, self.path('out'), status=1)
        self.assertIn('cannot be read', p.stderr.decode())
        p = self.objmap('verify', self.place, status=1)
        self.assertIn(os.path.basename(chunk), p.stderr.decode())
        self.assertIn(': 1 fault in 16 chunks and ', p.stdout.decode())

    def test_a_killed_copy_is_incomplete_and_goes_on(self):
        for what in (signal.SIGKILL, signal.SIGINT):
            with self.subTest(signal=what):
                self.cut_and_resume(what)

    def cut_and_resume(self, what):
        place = 'dir:' + self.path('cut%d' % what)
        data = self.random.randbytes(48 * MIB)
        image = self.file('image', data)
        # Through a pipe that we feed slowly: it is surely in the middle.
        p = subprocess.Popen([OBJMAP, 'copy', '-', place, '--size', '48M',
                              '--chunk-size', '64K', '-q'], env=self.env,
                             stdin=subprocess.PIPE, stderr=subprocess.PIPE)
        self.pids.append(p.pid)
        p.stdin.write(data[:44 * MIB])
        p.stdin.flush()
        wait_for(lambda: os.path.exists(self.path('cut%d/head' % what)) and
                 os.path.isdir(self.path('cut%d/chunk' % what)), 'the first chunks')
        p.send_signal(what)
        p.stdin.close()
        err = p.stderr.read().decode()
        p.stderr.close()
        self.assertEqual(p.wait(20), -what if what == signal.SIGKILL else 1)
        if what == signal.SIGINT:
            self.assertIn('--resume', err)
        self.assertEqual(self.info(place)['state'], 'incomplete')
        for args in (['mount', place, 'nbd+unix:///?socket=' + self.path('s')],
                     ['copy', image, place]):
            p = self.objmap(*args, status=1)
            self.assertIn('--resume', p.stderr.decode())
        self.objmap('copy', image, place, '--resume', '--verify')
        self.assertEqual(self.info(place)['state'], 'live')
        self.assertTrue(self.content(place) == data)

    def test_resume_trusts_no_byte_that_an_earlier_copy_left(self):
        data = self.random.randbytes(4 * MIB)
        image = self.file('image', data)
        p = self.objmap('copy', '-', self.place, '--size', '4M', '--chunk-size', '64K',
                        status=1, input=data[:MIB] + bytes(MIB) +
                        self.random.randbytes(2 * MIB + 1))
        result = json.loads(self.objmap('copy', image, self.place, '--resume',
                                        '--json').stdout)
        self.assertTrue(self.content(self.place) == data)
        self.assertLessEqual(result['written_bytes'], 4 * MIB)
        p = self.objmap('copy', image, self.place, '--resume', status=1)
        self.assertIn('nothing to resume', p.stderr.decode())

    def test_resume_writes_only_what_differs(self):
        data = bytearray(self.random.randbytes(4 * MIB))
        image = self.file('image', data)
        out = self.file('out', data[:2 * MIB] + b'x' + data[2 * MIB + 1:])
        result = json.loads(self.objmap('copy', image, out, '--resume', '--json').stdout)
        self.assertEqual(result['written_bytes'], MIB)
        with open(out, 'rb') as f:
            self.assertTrue(f.read() == data)

    def test_a_full_disk_reaches_the_exit_status(self):
        d = self.tmpfs('small', 3 * MIB)
        for target in (d + '/file', 'dir:' + d + '/vol'):
            p = self.objmap('copy', 'pattern:8M', target, status=1)
            self.assertIn('No space left', p.stderr.decode())
            for f in os.listdir(d):
                subprocess.run(['rm', '-r', os.path.join(d, f)], check=True)
        with open('/dev/full', 'wb') as full:
            p = subprocess.run([OBJMAP, 'copy', '-q', 'pattern:8M', '-'], stdout=full,
                               stderr=subprocess.PIPE, env=self.env, timeout=20)
        self.assertEqual(p.returncode, 1)
        self.assertIn(b'No space left', p.stderr)

    def test_a_signal_that_whoever_started_it_ignores_ends_no_copy(self):
        p = self.start(OBJMAP, 'copy', '-', self.path('out'), '--size', '4M', '-q',
                       stdin=subprocess.PIPE, preexec_fn=lambda:
                       signal.signal(signal.SIGINT, signal.SIG_IGN))
        data = self.random.randbytes(4 * MIB)
        p.stdin.write(data[:2 * MIB])
        wait_for(lambda: os.path.exists(self.path('out')), 'the copy')
        p.send_signal(signal.SIGINT)
        p.stdin.write(data[2 * MIB:])
        p.stdin.close()
        self.assertEqual(p.wait(20), 0)
        with open(self.path('out'), 'rb') as f:
            self.assertEqual(f.read(), data)

    def test_closed_standard_descriptors_are_no_files_that_are_copied(self):
        """Else what is told on standard error would be written into the image."""
        for fd in range(3):
            p = self.start(OBJMAP, 'copy', '--overwrite', '-q', 'pattern:4G',
                           self.path('out%d' % fd), preexec_fn=lambda: os.close(fd))
            wait_for(lambda: os.path.exists(self.path('out%d' % fd)), 'the copy')
            self.assertEqual(os.readlink('/proc/%d/fd/%d' % (p.pid, fd)), '/dev/null')
            p.kill()
            p.wait(20)
            os.unlink(self.path('out%d' % fd))

    def test_a_copy_into_a_stream_that_nobody_reads_can_be_ended(self):
        p = self.start(OBJMAP, 'copy', '-q', 'pattern:1G', '-', stdout=subprocess.PIPE)
        p.stdout.read(1)                # it is in the middle of it
        p.terminate()
        self.assertEqual(p.wait(20), -signal.SIGTERM)
        p.stdout.close()

    def test_progress_is_told_unless_quiet(self):
        def start(*more):
            with open(self.path('err' + ''.join(more)), 'wb') as err:
                p = self.start(OBJMAP, 'copy', '-', 'null:1G', *more, stdin=subprocess.PIPE,
                               stdout=subprocess.PIPE, stderr=err)
            p.stdin.write(bytes(MIB))
            p.stdin.flush()
            return p

        def said(name):
            with open(self.path(name), 'rb') as f:
                return f.read()

        def end(p):
            p.stdin.close()
            p.stdin = None
            return p.communicate(timeout=20)[0]
        quiet, told = start('--quiet'), start()
        wait_for(lambda: b'objmap: copying: 1 MiB' in said('err'), 'a line')
        self.assertIn(b'1 MiB copied', end(told))
        self.assertEqual((end(quiet), said('err--quiet')), (b'', b''))


if __name__ == '__main__':
    fixtures.main()
