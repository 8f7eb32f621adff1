"""What --json prints: for every verb exactly the members that its manual page names,
and what is in those that no other test reads."""
import json
import os
import re
import shlex
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '..'))
import fixtures
from fixtures import TOP, World, wait_for

MIB = 1 << 20
CHUNK = 1 << 16

# Bold words of a page's OUTPUT that name no member: values, verbs.
OTHERS = {'status': {'direct', 'serving', 'ending', 'ended', 'dead'},
          'snapshot': {'create', 'delete', 'list'}}
# Members that a sound directory does not show: minio-test/test_verbs.py looks at
# those of a server and its troubles, tests/http/test_web.py at parts that cannot be read.
# test_mount.py stops a daemon.
ELSEWHERE = {'status': {'busy', 'queued', 'connects', 'reason', 'seconds',
                        'attempts', 'control'},
             'verify': {'offset', 'count'}}
# Their members are names of something (options, causes, operations), not fixed words.
NAMED = 'causes', 'operations', 'requests'


def named(verb):
    """Members in bold under OUTPUT of the page of VERB."""
    with open('%s/man/objmap-%s.1' % (TOP, verb)) as f:
        section = re.search(r'^\.SH OUTPUT\n(.*?)^\.SH', f.read(), re.M | re.S).group(1)
    found = set()
    for macro, rest in re.findall(r'^\.(BR?) (.*)', section, re.M):
        words = shlex.split(rest)
        for word in words if macro == 'B' else words[::2]:
            if re.fullmatch('[a-z][a-z_]*', word):
                found.add(word)
    return found - OTHERS.get(verb, set())


def printed(value, parent=None):
    """Members in VALUE, at any depth."""
    if isinstance(value, list):
        return set().union(*[printed(v, parent) for v in value])
    if not isinstance(value, dict):
        return set()
    found = set()
    for name, inner in value.items():
        if not (parent in NAMED and (isinstance(inner, dict) or parent == 'operations')):
            found.add(name)
        found |= printed(inner, name)
    return found


class Json(World):
    def setUp(self):
        super().setUp()
        self.place = 'dir:' + self.path('vol')
        self.where = 'nbd+unix:///one?socket=' + self.path('sock')

    def json(self, *args, **kw):
        return json.loads(self.objmap(*args, '--json', **kw).stdout)

    def volume(self, place=None):
        return self.json('create', place or self.place, '--size', '4M', '--chunk-size', '64K')

    def fill(self, count, place=None):
        with open(self.path('image'), 'wb') as f:
            f.write(os.urandom(count))
        return self.json('copy', '-q', '--overwrite', self.path('image'), place or self.place)

    def mount(self, place, where, *options):
        self.mounted = self.json('mount', place, where, *options)
        self.pids.append(self.mounted['pid'])
        return where

    def write(self, place, nr_chunks):
        """Other content for the first chunks of PLACE."""
        h = self.connect(self.mount(place, self.where))
        h.pwrite(os.urandom(nr_chunks * CHUNK), 0)
        h.shutdown()
        self.objmap('umount', '-q', self.where)

    def connect(self, where):
        import nbd
        h = nbd.NBD()
        h.connect_uri(where)
        return h


class Members(Json):
    def said(self):
        """{verb: what it printed, several times where it has several forms}."""
        image, clone = self.path('image'), 'dir:' + self.path('clone')
        said = {'create': [self.volume()], 'copy': [self.fill(3 * CHUNK)]}
        said['snapshot'] = [self.json('snapshot', 'create', self.place, 'one')]
        said['clone'] = [self.json('clone', self.place + '@one', clone)]
        said['list'] = [self.json('list', self.place), self.json('list', 'dir:' + self.dir)]
        self.mount(self.place, self.where, '--description', 'the one')
        said['mount'] = [self.mounted]
        said['list'].append(self.json('list', 'nbd+unix:///?socket=' + self.path('sock')))
        said['info'] = [self.json('info', '--map', '--cost', self.place),
                        self.json('info', clone), self.json('info', 'file:' + image)]
        client = self.connect(self.where)
        said['status'] = [self.json('status', self.where)]
        client.shutdown()
        if fixtures.can('fuse'):
            self.mount('memory:1M', self.path('disk'))
            self.mounts.append(self.path('disk'))
            said['status'].append(self.json('status', self.path('disk')))
            self.objmap('umount', self.path('disk'))
        remote = self.mount(self.where, 'nbd+unix:///?socket=' + self.path('remote'))
        said['status'].append(self.json('status', remote))
        self.objmap('umount', remote)
        said['umount'] = [self.json('umount', '-q', self.where)]
        with open(self.path('serve'), 'w') as f:
            f.write('[mount]\nplace = memory:1M\nwhere = %s\n' % self.where)
        said['serve'] = [self.json('serve', self.path('serve'))]
        self.pids.append(said['serve'][0]['pid'])
        self.objmap('umount', self.where)
        said['resize'] = [self.json('resize', self.place, '8M')]
        said['rollback'] = [self.json('rollback', self.place + '@one', '--yes')]
        said['gc'] = [self.json('gc', '-q', self.place)]
        said['snapshot'].append(self.json('snapshot', 'delete', self.place + '@one'))
        chunks = [os.path.join(top, n) for top, _, names in os.walk(self.path('vol/chunk'))
                  for n in names]
        os.unlink(chunks[0])
        said['verify'] = [self.json('verify', '-q', self.place, status=1),
                          self.json('verify', '-q', 'file:' + image)]
        said['delete'] = [self.json('delete', clone, '--yes', '-q')]
        said['doctor'] = [self.json('doctor')]
        said['config'] = [list(self.json('config').values())]
        return said

    def test_every_verb_prints_the_members_of_its_page_and_no_others(self):
        said = self.said()
        pages = [n[7:-2] for n in os.listdir(TOP + '/man') if re.fullmatch(r'objmap-[a-z]+\.1', n)]
        self.assertEqual(sorted(said), sorted(set(pages) - {'help', 'rescue'}))
        for verb, values in said.items():
            with self.subTest(verb=verb):
                self.assertEqual(printed(values), named(verb) - ELSEWHERE.get(verb, set()))


class Values(Json):
    def test_resize_and_clone_tell_what_was_and_where_from(self):
        self.volume()
        self.assertEqual(self.json('resize', self.place, '8M'), {
            'place': self.place, 'size': 8 * MIB, 'size_before': 4 * MIB})
        self.objmap('snapshot', 'create', self.place, 'one')
        clone = 'dir:' + self.path('clone')
        self.assertEqual(self.json('clone', self.place + '@one', clone), {
            'place': clone, 'origin': self.place + '@one'})
        for verb in (['list'], ['snapshot', 'list']):
            shown = self.json(*verb, self.place)
            self.assertEqual([(s['kind'], s['name'], s.get('prefix')) for s in shown], [
                ('snapshot', 'one', None), ('clone', 'one', self.path('clone')[1:])])

    def test_info_tells_what_snapshots_and_origins_hold(self):
        self.volume()
        self.fill(5 * CHUNK)
        self.objmap('snapshot', 'create', self.place, 'one')
        clone = 'dir:' + self.path('clone')
        self.objmap('clone', self.place + '@one', clone)
        self.write(self.place, 2)
        self.write(clone, 1)
        cost = self.json('info', '--cost', self.place)['cost']
        self.assertEqual((cost['chunks'], cost['snapshot_chunks'], cost['origin_bytes']),
                         (5, 3, 0))
        cost = self.json('info', '--cost', clone)['cost']
        self.assertEqual((cost['chunks'], cost['origin_chunks'], cost['origin_bytes']),
                         (5, 4, 4 * CHUNK))
        info = self.json('info', 'pattern:3M')
        self.assertEqual((info['kind'], info['size']), ('pattern', 3 * MIB))
        self.assertGreaterEqual(info['max_request'], info['preferred'])
        self.assertGreaterEqual(info['preferred'], 4096)

    def test_gc_and_delete_count_what_goes_waits_and_stays(self):
        self.volume()
        self.fill(4 * CHUNK)
        self.objmap('snapshot', 'create', self.place, 'one')
        self.fill(4 * CHUNK)
        self.objmap('snapshot', 'delete', self.place + '@one')
        self.mount(self.place, self.where)
        self.objmap('umount', self.where)	# a claim: all before it is older than head
        with open(self.path('vol/README'), 'w') as f:
            f.write('mine')

        def gc(*options):
            found = self.json('gc', '-q', self.place, *options)
            return {n: found[n] for n in ('dry_run', 'condemned', 'deleted', 'waiting', 'foreign')}
        # A file that the store did not write is none of its objects.
        foreign = gc('--dry-run')['foreign']
        nr = gc('--dry-run')['condemned']
        self.assertGreaterEqual(nr, 4)
        self.assertEqual(gc('--dry-run'), dict(dry_run=True, condemned=nr, deleted=0,
                                               waiting=0, foreign=foreign))
        self.assertEqual(gc(), dict(dry_run=False, condemned=nr, deleted=0, waiting=0,
                                    foreign=foreign))
        self.assertEqual(gc(), dict(dry_run=False, condemned=0, deleted=0, waiting=nr,
                                    foreign=foreign))
        self.assertEqual(gc('--grace', '0')['deleted'], nr)
        gone = self.json('delete', self.place, '--yes', '-q')
        self.assertEqual(gone['deleted_objects'], 4)
        self.assertGreaterEqual(gone['deleted_bytes'], 4 * CHUNK)	# and their metadata

    def test_status_and_umount_tell_what_is_not_saved_and_what_was_asked(self):
        self.objmap('create', self.place, '--size', '256M', '--chunk-size', '64K')
        where = self.mount(self.place, self.where)
        status = self.json('status', where)
        self.assertEqual((status['durability'], status['volume']['oldest_dirty_seconds'],
                          status['volume']['map_nodes']), ('remote', None, 0))
        before = status
        h = self.connect(where)
        for chunk in range(600):		# more than head remembers
            h.pwrite(b'x' * CHUNK, chunk * CHUNK)
        h.flush()
        after = self.json('status', where)
        # Chunks, and for each commit head; nodes of the map, once there are too many.
        commits = after['volume']['commits'] - before['volume']['commits']
        before, after = before['store']['operations'], after['store']['operations']
        put = {n: after[n] - before[n] for n in after if after[n] != before[n]}
        self.assertEqual(list(put), ['put'])
        self.assertIn(put['put'] - 600 - commits, range(1, commits + 1))
        h.pwrite(b'y', 0)
        begin = time.monotonic()
        wait_for(lambda: time.monotonic() > begin + 0.2, 'some time')
        dirty = self.json('status', where)['volume']
        self.assertEqual((dirty['dirty_chunks'], dirty['dirty_bytes']), (1, CHUNK))
        self.assertGreaterEqual(dirty['oldest_dirty_seconds'], 0.2)
        h.shutdown()
        self.assertEqual(self.json('umount', '-q', where), {'where': where, 'saved': True})
        where = self.mount(self.place, self.where, '--durability', 'none')
        h = self.connect(where)
        h.pread(CHUNK, 5 * CHUNK)
        h.shutdown()
        status = self.json('status', where)
        self.assertEqual((status['durability'], status['volume']['map_nodes'],
                          status['volume']['map_bytes'] > 0), ('none', 1, True))
        self.objmap('umount', where)


if __name__ == '__main__':
    fixtures.main()
