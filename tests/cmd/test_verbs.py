"""What the verbs on volumes do when all goes well, and what they print: list,
info and its picture, snapshot, rollback, clone, resize, gc, verify, delete, doctor."""
import json
import os
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '..'))
import fixtures
from fixtures import World, require

MIB = 1 << 20
CHUNK = 1 << 16


class Verbs(World):
    def setUp(self):
        super().setUp()
        self.place = 'dir:' + self.path('vol')

    def create(self, place=None, size='4M'):
        self.objmap('create', place or self.place, '--size', size, '--chunk-size', '64K')

    def fill(self, count, place=None):
        """The first COUNT bytes become random; returns them."""
        data = os.urandom(count)
        self.objmap('copy', '-', place or self.place, '--overwrite', '-q', input=data)
        return data

    def write(self, place, *pieces):
        """Writes pairs of offset and bytes, and leaves the rest."""
        import nbd
        where = 'nbd+unix:///?socket=' + self.path('sock')
        self.objmap('mount', place, where)
        self.pids.append(self.json('status', where)['pid'])
        h = nbd.NBD()
        h.connect_uri(where)
        for offset, data in pieces:
            h.pwrite(data, offset)
        h.shutdown()
        self.objmap('umount', where)

    def content(self, place=None):
        return self.objmap('copy', '-q', place or self.place, '-').stdout

    def said(self, *args, **kw):
        return self.objmap(*args, **kw).stdout.decode()

    def json(self, *args, **kw):
        return json.loads(self.said(*args, '--json', **kw))


class Snapshots(Verbs):
    def test_a_snapshot_keeps_what_was_and_a_rollback_brings_it_back(self):
        self.create()
        before = self.fill(3 * CHUNK)
        self.assertEqual(self.said('snapshot', 'create', self.place, 'one'),
                         self.place + '@one\n')
        after = self.fill(3 * CHUNK)
        self.assertEqual(self.content(self.place + '@one')[:3 * CHUNK], before)
        self.assertEqual(self.content()[:3 * CHUNK], after)
        self.assertIn('what it was at snapshot one',
                      self.said('rollback', self.place + '@one', '--yes'))
        self.assertEqual(self.content()[:3 * CHUNK], before)

    def test_list_and_snapshot_list_name_them(self):
        self.create()
        self.assertEqual(self.json('snapshot', 'list', self.place), [])
        for name in ('one', 'zwei und mehr', 'drittés'):
            self.objmap('snapshot', 'create', self.place, name)
        for verb in (['snapshot', 'list'], ['list']):
            with self.subTest(verb=verb):
                self.assertEqual([s['name'] for s in self.json(*verb, self.place)],
                                 ['one', 'zwei und mehr', 'drittés'])
                self.assertTrue(all(s['size'] == 4 * MIB
                                    for s in self.json(*verb, self.place)))
                lines = self.said(*verb, self.place).splitlines()
                self.assertRegex(lines[0], 'NAME +SIZE +CREATED')
                self.assertRegex(lines[2], '^zwei und mehr +4 MiB  20')
                # By characters, not bytes.
                self.assertEqual(len({line.index('4 MiB') for line in lines[1:]}), 1)

    def test_gc_frees_what_only_a_deleted_snapshot_used(self):
        self.create()
        self.fill(4 * CHUNK)
        self.objmap('snapshot', 'create', self.place, 'one')
        self.fill(4 * CHUNK)
        self.objmap('gc', self.place, '--grace', '0')
        self.assertEqual(self.chunks(), 8)
        self.assertIn('is deleted', self.said('snapshot', 'delete', self.place + '@one'))
        self.assertEqual(self.json('snapshot', 'list', self.place), [])
        # Two visits: what is condemned at the first goes at the second.
        found = [self.json('gc', self.place, '--grace', '0') for _ in range(2)]
        self.assertEqual(self.chunks(), 4)
        self.assertGreaterEqual(sum(f['deleted'] for f in found), 4)
        self.assertIn('deleted 0 (0 B)', self.said('gc', self.place, '--grace', '0'))

    def test_gc_dry_run_says_what_it_would_do_and_does_nothing(self):
        self.create()
        self.fill(4 * CHUNK)
        self.objmap('snapshot', 'create', self.place, 'one')
        self.fill(4 * CHUNK)
        self.objmap('snapshot', 'delete', self.place + '@one')

        def files():
            return sorted((os.path.join(top, f), os.stat(os.path.join(top, f)).st_mtime_ns)
                          for top, _, names in os.walk(self.path('vol')) for f in names
                          if not f.startswith('lock-'))
        before = files()
        for _ in range(2):
            found = self.json('gc', self.place, '--grace', '0', '--dry-run')
            self.assertTrue(found['dry_run'])
            self.assertGreaterEqual(found['deleted'] + found['condemned'], 4, found)
            said = self.said('gc', self.place, '--grace', '0', '-n')
            self.assertRegex(said, 'would (delete|condemn) [1-9]')
            self.assertNotRegex(said, '(?m)^  (deleted|condemned)')
            self.assertEqual(files(), before)
        self.assertEqual(self.chunks(), 8)
        self.assertFalse(self.json('gc', self.place, '--grace', '0')['dry_run'])
        self.objmap('gc', self.place, '--grace', '0')
        self.assertEqual(self.chunks(), 4)

    def chunks(self):
        return sum(len(files) for _, _, files in os.walk(self.path('vol/chunk')))


class Volumes(Verbs):
    def test_list_finds_volumes_in_folders_below(self):
        os.makedirs(self.path('a/b'))
        for place in ('vol', 'a/one', 'a/b/two'):
            self.create('dir:' + self.path(place))
        self.objmap('delete', 'dir:' + self.path('a/one'), '--yes')
        found = self.json('list', 'dir:' + self.dir)
        self.assertEqual([v['place'] for v in found],
                         ['dir:' + self.path('a/b/two'), self.place])
        self.assertEqual({(v['size'], v['chunk_size'], v['state']) for v in found},
                         {(4 * MIB, CHUNK, 'live')})
        self.assertRegex(self.said('list', 'dir:' + self.dir),
                         r'VOLUME +SIZE +CHUNKS +STATE .*\n.*/a/b/two +4 MiB +64 KiB +live ')
        os.mkdir(self.path('empty'))
        p = self.objmap('list', 'dir:' + self.path('empty'))
        self.assertEqual(p.stdout, b'')
        self.assertIn(b'no volume is there or below', p.stderr)

    def test_list_of_a_folder_that_is_not_there_fails(self):
        p = self.objmap('list', 'dir:' + self.path('nowhere'), status=1)
        self.assertIn('nowhere', p.stderr.decode())

    def test_a_clone_is_the_snapshot_and_goes_its_own_way(self):
        self.create()
        data = self.fill(3 * CHUNK)
        self.objmap('snapshot', 'create', self.place, 'one')
        clone = 'dir:' + self.path('clone')
        self.assertIn('is a clone of', self.said('clone', self.place + '@one', clone))
        self.assertEqual(self.content(clone)[:3 * CHUNK], data)
        theirs = os.urandom(CHUNK)
        self.write(clone, (0, theirs))
        self.assertEqual(self.content(clone)[:3 * CHUNK], theirs + data[CHUNK:])
        self.assertEqual(self.content()[:3 * CHUNK], data)
        self.assertIn('in origins   2 of them', self.said('info', clone, '--cost'))
        self.objmap('verify', clone)

    def test_info_counts_the_nodes_of_the_map_too(self):
        self.create(size='256M')
        self.assertEqual(self.json('info', self.place, '--cost')['cost']['nodes'], 0)
        # More chunks than head remembers, in two leaves of the map.
        self.write(self.place, *((chunk * CHUNK, b'x' * CHUNK)
                                 for first in (0, 2048) for chunk in range(first, first + 300)))
        cost = self.json('info', self.place, '--cost')['cost']
        self.assertEqual(cost['chunks'], 600)
        self.assertEqual(cost['nodes'], self.json('verify', self.place)['nodes'])
        self.assertEqual(cost['nodes'], 2)
        self.assertEqual(cost['node_bytes'], 2 * 24 * 1024)
        self.assertIn('map          2 nodes, 48 KiB', self.said('info', self.place, '--cost'))

    def test_verify_reads_a_plain_device_through(self):
        with open(self.path('image'), 'wb') as f:
            f.truncate(5 * MIB + 12345)
        place = 'file:' + self.path('image')
        self.assertEqual(self.json('verify', '-q', place), {
            'place': place, 'size': 5 * MIB + 12345, 'bytes': 5 * MIB + 12345, 'faults': []})
        self.assertIn('can be read', self.said('verify', '-q', 'pattern:3M'))
        p = self.objmap('verify', place, '--metadata-only', status=2)
        self.assertIn(b'--metadata-only is for volumes', p.stderr)
        self.objmap('verify', 'file:' + self.path('none'), status=1)

    def test_resize_grows_and_shrinks(self):
        self.create()
        data = self.fill(4 * MIB)
        self.assertIn('8 MiB, was 4 MiB', self.said('resize', self.place, '8M'))
        self.assertEqual(self.content(), data + bytes(4 * MIB))
        self.objmap('resize', self.place, '1M', '--yes')
        self.objmap('resize', self.place, '2M')
        self.assertEqual(self.content(), data[:MIB] + bytes(MIB))

    def test_a_volume_of_memory_is_served_and_gone_with_its_mount(self):
        import nbd
        where = 'nbd+unix:///?socket=' + self.path('sock')
        self.objmap('mount', 'mem:scratch?size=8M', where)
        pid = self.json('status', where)['pid']
        self.pids.append(pid)
        h = nbd.NBD()
        h.connect_uri(where)
        data = os.urandom(100000)
        h.pwrite(data, 4 * MIB - 50000)
        h.flush()
        self.assertEqual(h.pread(100000, 4 * MIB - 50000), data)
        h.shutdown()
        status = self.json('status', where)
        self.assertEqual((status['size'], status['volume']['dirty_bytes']), (8 * MIB, 0))
        self.objmap('umount', where)
        fixtures.wait_gone(pid)


class Info(Verbs):
    def rows(self, *args, **kw):
        said = self.said('info', '--map', *args, **kw)
        return [line[line.index('|') + 1:-1] for line in said.splitlines()
                if line.endswith('|')]

    def test_the_picture_shows_each_chunk_that_has_data(self):
        self.create()
        self.write(self.place, *((chunk * CHUNK, b'x') for chunk in (0, 7, 63)))
        cells = ''.join(self.rows(self.place))
        self.assertEqual(cells, ''.join('█' if c in (0, 7, 63) else '·' for c in range(64)))
        ascii_env = dict(self.env, LC_ALL='C')
        cells = ''.join(self.rows(self.place, env=ascii_env))
        self.assertEqual([i for i, c in enumerate(cells) if c == '#'], [0, 7, 63])
        extents = self.json('info', '--map', self.place)['map']
        self.assertEqual([(e['offset'], e['count']) for e in extents if e['data']],
                         [(0, CHUNK), (7 * CHUNK, CHUNK), (63 * CHUNK, CHUNK)])

    def test_a_cell_of_a_large_volume_is_blank_only_when_nothing_is_in_it(self):
        self.create(size='1T')
        self.fill(CHUNK)
        cells = ''.join(self.rows(self.place))
        self.assertNotEqual(cells[0], '·')
        self.assertEqual(set(cells[1:]), {'·'})
        self.assertLessEqual(len(cells), 16 * 80)

    def test_the_picture_is_as_wide_as_asked_for(self):
        self.create(size='64M')
        for width in (20, 40, 200):
            said = self.said('info', '--map', '--width', str(width), self.place)
            lines = [line for line in said.splitlines() if line.endswith('|')]
            self.assertGreater(len(lines), 0)
            cells = len(lines[0].split('|')[1])		# a power of two
            self.assertLessEqual(max(len(line) for line in lines), width, said)
            self.assertGreater(len(lines[0]) + cells, width, said)

    def test_a_plain_device_has_no_costs(self):
        p = self.objmap('info', '--cost', 'memory:1M', status=2)
        self.assertEqual(p.stdout, b'')
        self.assertIn(b'--cost is for volumes: memory:1M is a plain device', p.stderr)

    def test_a_file_has_a_picture_too(self):
        path = self.path('image')
        with open(path, 'wb') as f:
            f.truncate(4 * MIB)
            f.seek(2 * MIB)
            f.write(os.urandom(MIB))
        said = self.said('info', '--map', 'file:' + path)
        self.assertIn('size         4 MiB (4194304 bytes)', said)
        cells = ''.join(line.split('|')[1] for line in said.splitlines() if line.endswith('|'))
        quarter = len(cells) // 4
        self.assertEqual([set(cells[q * quarter:(q + 1) * quarter]) for q in range(4)],
                         [{'·'}, {'·'}, {'█'}, {'·'}])


class Doctor(Verbs):
    def doctor(self, *args, status=0, **kw):
        return {f['what']: f for f in self.json('doctor', *args, status=status, **kw)}

    def test_it_looks_at_the_machine(self):
        found = self.doctor()
        self.assertEqual(found['volumes as files (FUSE)']['ok'], fixtures.can('fuse'))
        for f in found.values():
            self.assertTrue(f['detail'], f)
            self.assertEqual(f['remedy'] is None, f['ok'], f)
        lines = self.said('doctor').splitlines()
        self.assertTrue(all(line[:5] in ('yes  ', 'no   ', '     ') for line in lines), lines)

    def test_of_a_place_it_says_whether_it_can_be_used(self):
        self.create()
        found = self.doctor(self.place)
        self.assertTrue(found['conditional puts']['ok'])
        self.assertTrue(found['writing']['ok'])
        self.assertEqual([f for top, _, files in os.walk(self.path('vol')) for f in files
                          if not f.startswith('lock-')], ['head'], 'it left something')
        self.assertFalse(all(f['ok'] for f in self.doctor(
            'dir:' + self.path('no/such/folder'), status=1).values()))

    def test_a_folder_that_cannot_be_written_is_a_no(self):
        require('root', 'setpriv')
        self.create()
        os.chmod(self.dir, 0o755)
        os.chmod(self.path('vol'), 0o755)
        p = subprocess.run(['setpriv', '--reuid=65534', '--regid=65534', '--clear-groups',
                            self.program_for_all(), 'doctor', self.place], capture_output=True, timeout=60,
                           env=dict(self.env, OBJMAP_STATE=self.path('none'),
                                    OBJMAP_RUNTIME_DIR=self.path('none')))
        self.assertEqual(p.returncode, 1, p.stdout)
        self.assertRegex(p.stdout.decode(), '(?m)^no ')
        self.assertRegex(p.stdout.decode(), '(?m)^ +-> ')


if __name__ == '__main__':
    fixtures.main()
