#!/usr/bin/python3
"""contrib/read-volume.py, which knows a volume from objmap-volume(5) only, reads
what objmap wrote; and what is damaged is never taken for good by either."""
import importlib.util
import os
import random
import re
import struct
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '..'))
import fixtures                                                         # noqa: E402

READER = os.path.join(fixtures.TOP, 'contrib', 'read-volume.py')
MIB = 1 << 20


def load_reader():
    spec = importlib.util.spec_from_file_location('read_volume', READER)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def data_of(file):
    """Where FILE is no hole: (start, end) of each extent."""
    end = 0
    while True:
        try:
            start = os.lseek(file.fileno(), end, os.SEEK_DATA)
        except OSError:         # ENXIO: none is left
            return
        end = os.lseek(file.fileno(), start, os.SEEK_HOLE)
        yield start, end


class ReaderWorld(fixtures.World):
    def setUp(self):
        super().setUp()
        self.random = random.Random(fixtures.SEED)
        self.volume = self.path('v')

    def image(self, name, size, pieces):
        """A sparse file of SIZE bytes with random data at PIECES, [(offset, count)]."""
        path = self.path(name)
        with open(path, 'wb') as f:
            f.truncate(size)
            for offset, count in pieces:
                f.seek(offset)
                f.write(self.random.randbytes(count))
        return path

    def copy_in(self, image, *options):
        self.objmap('copy', '--quiet', image, 'dir:' + self.volume, *options,
                    timeout=120)

    def read(self, place=None, out='out', status=0, options=()):
        """Runs the reader; returns its result.  The output file is new."""
        args = [sys.executable, READER, place or self.volume, *options]
        if out:
            if os.path.exists(self.path(out)):
                os.unlink(self.path(out))
            args.append(self.path(out))
        p = subprocess.run(args, capture_output=True, text=True, timeout=300)
        self.assertEqual(p.returncode, status, p.stdout + p.stderr)
        self.assertNotIn('Traceback', p.stderr)
        return p

    def same(self, image, out='out'):
        """Compares where either file has data: the rest is holes in both."""
        with open(image, 'rb') as a, open(self.path(out), 'rb') as b:
            size = os.fstat(a.fileno()).st_size
            self.assertEqual(os.fstat(b.fileno()).st_size, size)
            for file in a, b:
                for start, end in data_of(file):
                    for at in range(start, end, MIB):
                        count = min(MIB, end - at)
                        if os.pread(a.fileno(), count, at) != \
                                os.pread(b.fileno(), count, at):
                            self.fail('bytes %d to %d differ' % (at, at + count))

    def objects(self, prefix=''):
        found = []
        for folder, _, names in os.walk(os.path.join(self.volume, prefix)):
            if '/.objmap' not in folder:
                found += [os.path.join(folder, name) for name in names]
        return sorted(found)


class Reads(ReaderWorld):
    def check(self, size, chunk, pieces):
        image = self.image('image', size, pieces)
        self.copy_in(image, '--chunk-size', chunk)
        self.read()
        self.same(image)
        self.assertEqual(os.path.getsize(self.path('out')), size)

    def test_one_byte(self):
        self.check(1, '1M', [(0, 1)])

    def test_a_size_that_is_no_multiple_of_anything(self):
        self.check(150001, '64K', [(0, 150001)])

    def test_chunks_of_several_frames(self):
        self.check(3 * MIB + 5, '1M', [(0, MIB), (2 * MIB + 7, MIB - 9)])

    def test_the_largest_chunks(self):
        self.check(70 * MIB, '64M', [(5 * MIB, 60 * MIB)])

    def test_nothing_but_holes(self):
        self.check(5 * MIB, '64K', [])
        self.assertEqual(os.stat(self.path('out')).st_blocks, 0)

    def test_one_level_of_nodes(self):
        self.check(200 * MIB, '64K', [(i * 300000, 70000) for i in range(600)])
        self.assertTrue(self.objects('map/0'))
        self.assertLess(os.stat(self.path('out')).st_blocks * 512, 150 * MIB)

    def test_two_levels_of_nodes(self):
        self.check((70 << 30) + 5, '64K',
                   [(i * (117 << 20) + 3, 100) for i in range(600)] +
                   [((70 << 30), 5)])
        self.assertTrue(self.objects('map/1'))

    def test_what_was_written_over(self):
        first = self.image('first', 9 * MIB, [(0, 9 * MIB)])
        second = self.image('second', 9 * MIB, [(MIB, 2 * MIB), (7 * MIB, 100)])
        self.copy_in(first)
        self.copy_in(second, '--overwrite')
        self.read()
        self.same(second)

    def test_snapshots(self):
        first = self.image('first', 9 * MIB, [(0, 9 * MIB)])
        second = self.image('second', 9 * MIB, [(MIB, 2 * MIB)])
        self.copy_in(first)
        self.objmap('snapshot', 'create', 'dir:' + self.volume, 'Montag früh')
        self.copy_in(second, '--overwrite')
        self.objmap('snapshot', 'create', 'dir:' + self.volume, 'two')
        self.objmap('gc', '--grace', '0', '--quiet', 'dir:' + self.volume)
        self.read(self.volume + '@Montag früh')
        self.same(first)
        self.read(self.volume + '@two')
        self.same(second)
        p = self.read(options=['--list-snapshots'], out=None)
        self.assertEqual([line.split('\t')[0] for line in p.stdout.splitlines()],
                         ['Montag früh', 'two'])
        p = self.read(self.volume + '@three', status=1)
        self.assertIn('there is no snapshot three', p.stderr)

    def test_a_clone_and_its_parent(self):
        first = self.image('first', 9 * MIB, [(0, 9 * MIB)])
        self.copy_in(first)
        self.objmap('snapshot', 'create', 'dir:' + self.volume, 'one')
        self.objmap('clone', 'dir:%s@one' % self.volume, 'dir:' + self.path('c'))
        self.read(self.path('c'))
        self.same(first)
        os.rename(self.volume, self.path('moved'))
        p = self.read(self.path('c'), status=1)
        self.assertEqual(p.stderr.count('/v/chunk/'), 9)
        self.assertIn('is missing', p.stderr)

    def test_a_resized_volume(self):
        image = self.image('image', 3 * MIB, [(0, 3 * MIB)])
        self.copy_in(image, '--chunk-size', '64K')
        self.objmap('resize', '--yes', 'dir:' + self.volume, str(MIB + 5))
        self.objmap('resize', '--yes', 'dir:' + self.volume, str(2 * MIB))
        os.truncate(image, MIB + 5)
        os.truncate(image, 2 * MIB)
        self.read()
        self.same(image)


class Refuses(ReaderWorld):
    def setUp(self):
        super().setUp()
        self.size = 80 * MIB
        self.good = self.image('image', self.size,
                               [(i * 150000, 3000) for i in range(530)])
        self.copy_in(self.good, '--chunk-size', '64K')

    def no_wrong_byte(self):
        """What was written out is as it was, or was left out."""
        with open(self.good, 'rb') as a, open(self.path('out'), 'rb') as b:
            for at in range(0, self.size, 65536):
                expected, found = a.read(65536), b.read(65536)
                self.assertTrue(found == expected or not any(found), at)

    def both_refuse(self, what):
        p = self.read(status=1)
        self.assertIn(what, p.stderr)
        self.no_wrong_byte()
        q = self.objmap('verify', '--quiet', 'dir:' + self.volume, status=1)
        self.assertIn(what.split()[0].encode(), q.stdout + q.stderr)

    def test_a_missing_chunk(self):
        os.unlink(self.objects('chunk')[7])
        self.both_refuse('is missing')

    def test_a_missing_node(self):
        os.unlink(self.objects('map')[0])
        self.both_refuse('map/0/')

    def test_a_chunk_of_another_volume(self):
        chunk = self.objects('chunk')[0]
        with open(chunk, 'r+b') as f:
            data = bytearray(f.read())
            at = data.rindex(b'objmap-volume=') + 14
            data[at] = ord('0') if data[at] != ord('0') else ord('1')
            start = data.rindex(b'objmap-volume=')
            start = min(start, data.rindex(b'objmap-frames='))
            data[-4:] = load_reader().crc32c(data[start:-4]).to_bytes(4, 'little')
            f.seek(0)
            f.write(data)
        self.both_refuse('belongs to')

    def test_a_deleted_volume(self):
        self.objmap('delete', '--yes', 'dir:' + self.volume)
        p = self.read(status=1)
        self.assertIn('this volume was deleted', p.stderr)

    def test_a_random_bit_anywhere_is_never_taken_for_good(self):
        objects = self.objects()
        head = os.path.join(self.volume, 'head')
        node = next(o for o in objects if '/map/' in o)
        rounds = 400 if fixtures.LONG else 12
        for i in range(rounds):
            victim = (head, node, self.random.choice(objects))[i % 3]
            with open(victim, 'r+b') as f:
                data = f.read()
                at = self.random.randrange(len(data))
                f.seek(at)
                f.write(bytes([data[at] ^ 1 << self.random.randrange(8)]))
            with self.subTest(object=victim, at=at, seed=fixtures.SEED):
                p = subprocess.run([sys.executable, READER, '--overwrite', self.volume,
                                    self.path('out')], capture_output=True, text=True,
                                   timeout=300)
                q = self.objmap('verify', '--quiet', 'dir:' + self.volume, status=None)
                # What is not referred to may be damaged and nobody minds.
                if p.returncode == 0:
                    self.same(self.good)
                    self.assertEqual(q.returncode, 0)
                else:
                    self.assertEqual(p.returncode, 1, p.stderr)
                    self.assertNotIn('Traceback', p.stderr)
                    self.assertEqual(q.returncode, 1)
                    if os.path.exists(self.path('out')):
                        self.no_wrong_byte()
            with open(victim, 'wb') as f:
                f.write(data)
            if os.path.exists(self.path('out')):
                os.unlink(self.path('out'))
        self.read()
        self.same(self.good)

    def test_usage(self):
        self.read(self.path('none'), status=2)
        p = subprocess.run([sys.executable, READER, self.volume, self.good],
                           capture_output=True, text=True)
        self.assertEqual(p.returncode, 2)
        self.assertIn('--overwrite', p.stderr)

    def test_fast_still_checks_the_tables(self):
        chunk = self.objects('chunk')[0]
        with open(chunk, 'r+b') as f:
            f.seek(100)
            f.write(b'x')
        self.read(options=['--fast'])
        self.both_refuse('frame 0')


def golden_head():
    with open(os.path.join(fixtures.TOP, 'tests/volume/golden-head.h')) as f:
        return bytes.fromhex(''.join(re.findall(r'"([0-9a-f]+)"', f.read())))


class Golden(fixtures.World):
    def test_the_golden_head_means_what_the_manual_says(self):
        reader = load_reader()
        data = golden_head()
        head = reader.Head(data)
        self.assertEqual((head.size, head.chunk, head.frame, head.state),
                         (150000, 65536, 65536, 1))
        self.assertEqual((head.epoch, head.nonce, head.committed),
                         (0x20003, 0x5555666677778888, 1700000100))
        self.assertEqual(head.root[0], (0x10001, 0x9999aaaabbbbcccc, 65536,
                                        0x10001 * 2654435761 & 0xffffffff))
        self.assertEqual(head.recent[2], (0, 0, 0, 0))
        self.assertEqual(head.origins, [(0x100, 'images/base')])
        self.assertEqual(head.snapshots, (0x20002, 0xabcdef, 0x20001))
        for at in range(len(data)):
            with self.assertRaises(reader.Damage, msg=at):
                reader.Head(data[:at] + bytes([data[at] ^ 4]) + data[at + 1:])

    def judged_by_objmap(self, reader, head):
        """Whether objmap takes the bytes HEAD for a head."""
        trailer = struct.pack('<8sQIIQI', b'objmapF1', len(head), 0, 1, 5, 0)
        os.makedirs(self.path('v'), exist_ok=True)
        with open(self.path('v/head'), 'wb') as f:
            f.write(head + trailer + reader.crc32c(trailer).to_bytes(4, 'little'))
        p = self.objmap('info', 'dir:' + self.path('v'), status=None)
        return b'head is damaged' not in p.stderr

    def test_what_the_manual_forbids_is_refused_by_both(self):
        reader, good = load_reader(), golden_head()
        at, payload = 16, {}
        while at < len(good) - 4:
            kind, _, length = struct.unpack_from('<HHI', good, at)
            payload[kind] = at + 8
            at += 8 + (length + 7) // 8 * 8
        self.assertTrue(self.judged_by_objmap(reader, good))
        for section, offset, new in (
                (2, 0, b'\xff' * 8),			# the last epoch
                (3, 40, b'\2'), (3, 44, b'\1'),	# a holder's flags and name
                (4, 12, b'\1'),			# newer than head
                (7, 0, bytes(8)), (7, 4, b'\1'), (7, 20, b'\1'),
                (8, 0, bytes(8)), (8, 4, b'\1'),	# an origin's epoch,
                (8, 8, b'\x0d'),		# length,
                (8, 12, b'/'), (8, 12, b'../'), (8, 12, b'\1')):	# and prefix
            at = payload[section] + offset
            head = good[:at] + new + good[at + len(new):-4]
            head += reader.crc32c(head).to_bytes(4, 'little')
            with self.subTest(section=section, offset=offset, new=new):
                self.assertFalse(self.judged_by_objmap(reader, head))
                with self.assertRaises(reader.Damage):
                    reader.Head(head)


if __name__ == '__main__':
    fixtures.main()
