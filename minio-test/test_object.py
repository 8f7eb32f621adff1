#!/usr/bin/python3
"""One existing object as a device: read as it is, never as a mixture; written as whole
new versions, through faults and deaths."""
import json
import os
import random
import re
import signal
import sys
import threading
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)
import world  # noqa: E402
import fixtures  # noqa: E402
import s3client  # noqa: E402
import nbd  # noqa: E402
from fixtures import OBJMAP, SEED, wait_for, wait_gone  # noqa: E402

MIB = 1 << 20


class ObjectWorld(world.MinioWorld):
    def setUp(self):
        super().setUp()
        self.random = random.Random(SEED)
        self.mounted = 0

    def content(self, size):
        return self.random.randbytes(size)

    def place(self, key='image'):
        return 's3+object://%s/%s' % (self.bucket, key)

    def through_proxy(self):
        p = self.proxy()
        self.env['AWS_ENDPOINT_URL_S3'] = p.endpoint
        return p

    def mount(self, place, *options, **kw):
        """Serves PLACE and returns its WHERE."""
        self.mounted += 1
        where = 'nbd+unix:///?socket=' + self.path('s%d' % self.mounted)
        self.objmap('mount', place, where, '--log', self.path('log'), '--state',
                    self.path('state'), *options, **kw)
        self.pids.append(self.status(where)['pid'])
        return where

    def status(self, where):
        return json.loads(self.objmap('status', where, '--json').stdout)

    def connect(self, where):
        h = nbd.NBD()
        h.connect_uri(where)
        return h

    def log(self):
        with open(self.path('log')) as f:
            return f.read()

    def stored(self, key='image'):
        return self.s3.get(self.bucket, key).body

    def uploads(self):
        # MinIO lists those to one key only.
        return list(self.s3.uploads(self.bucket, 'image'))

    def expect_clean(self, *keys):
        """Nothing but KEYS is in the bucket, and no upload is left."""
        self.assertEqual(sorted(self.s3.keys(self.bucket)), sorted(keys))
        self.assertEqual(self.uploads(), [])

    def expect_same(self, got, wanted):
        if got != wanted:
            at = next(i for i, (a, b) in enumerate(zip(got, wanted)) if a != b) \
                if len(got) == len(wanted) else -1
            self.fail('%d bytes, %d wanted; they differ first at %d' % (
                len(got), len(wanted), at))


class Reading(ObjectWorld):
    def test_every_byte_is_the_objects_whatever_its_size(self):
        for size in (1, 4095, 65536, 3 * MIB + 12345):
            data = self.content(size)
            self.s3.put(self.bucket, 'some dir/an image+%.raw', data)
            place = 's3+object://%s/some dir/an image+%%25.raw' % self.bucket
            self.objmap('copy', place, self.path('out'), '--verify', '--overwrite')
            with open(self.path('out'), 'rb') as f:
                self.expect_same(f.read(), data)
            where = self.mount(place)
            h = self.connect(where)
            self.assertEqual(h.get_size(), size)
            self.assertTrue(h.is_read_only())
            for _ in range(20):
                at = self.random.randrange(size)
                count = self.random.randrange(1, min(size - at, 300000) + 1)
                self.expect_same(bytes(h.pread(count, at)), data[at:at + count])
            self.objmap('umount', where)

    def test_a_read_is_one_range_of_the_version_that_was_opened(self):
        p = self.through_proxy()
        self.s3.put(self.bucket, 'image', self.content(4 * MIB))
        h = self.connect(self.mount(self.place()))
        p.forget()
        h.pread(4096, MIB + 5000)
        asked = p.requests()
        self.assertEqual(len(asked), 1)
        headers = {n.lower(): v for n, v in asked[0].headers}
        self.assertEqual(headers['range'], 'bytes=%d-%d' % (MIB + 5000, MIB + 9095))
        self.assertIn('if-match', headers)

    def test_a_replaced_object_is_an_error_and_never_a_mixture(self):
        self.s3.put(self.bucket, 'image', b'a' * (2 * MIB))
        where = self.mount(self.place())
        h = self.connect(where)
        self.assertEqual(bytes(h.pread(MIB, 0)), b'a' * MIB)
        self.s3.put(self.bucket, 'image', b'b' * (2 * MIB))
        for at in (0, MIB):
            with self.assertRaises(nbd.Error):
                h.pread(MIB, at)
        self.assertIn('replaced', self.log())
        self.assertTrue(self.status(where)['store']['lost'])

    def test_an_old_version_is_read_by_its_id(self):
        self.s3.put_versioning(self.bucket)
        old = self.content(MIB)
        first = self.s3.put(self.bucket, 'image', old).version
        self.s3.put(self.bucket, 'image', self.content(MIB))
        place = self.place() + '?versionId=' + first
        h = self.connect(self.mount(place))
        self.expect_same(bytes(h.pread(MIB, 0)), old)
        p = self.objmap('mount', place, self.path('x/y'), '--writable', status=2)

    def test_what_is_not_there_is_told_in_words(self):
        self.s3.put(self.bucket, 'empty', b'')
        for place, words in ((self.place('none'), b'nosuchkey'),
                             (self.place('empty'), b'empty'),
                             ('s3+object://om-nowhere/key', b'bucket')):
            p = self.objmap('info', place, status=1)
            self.assertIn(words, p.stderr.lower())
        self.objmap('info', 's3+object://%s/' % self.bucket, status=2)
        self.objmap('mount', self.place('empty'), 'nbd://127.0.0.1:0/', '--writable',
                    '--read-only', status=2)


class Writing(ObjectWorld):
    def begin(self, size, *options, metadata=None):
        self.data = bytearray(self.content(size))
        self.s3.put(self.bucket, 'image', bytes(self.data), metadata)
        self.where = self.mount(self.place(), '--writable', *options)
        self.h = self.connect(self.where)
        self.assertFalse(self.h.is_read_only())

    def write(self, at, data):
        self.h.pwrite(data, at)
        self.data[at:at + len(data)] = data

    def zero(self, at, count):
        self.h.zero(count, at)
        self.data[at:at + count] = bytes(count)

    def some_writes(self, nr, longest=100000):
        size = len(self.data)
        for _ in range(nr):
            at = self.random.randrange(size)
            count = self.random.randrange(1, min(longest, size - at) + 1)
            if self.random.random() < 0.2:
                self.zero(at, count)
            else:
                self.write(at, self.content(count))

    def expect_read(self):
        got = b''.join(bytes(self.h.pread(min(MIB, len(self.data) - at), at))
                       for at in range(0, len(self.data), MIB))
        self.expect_same(got, bytes(self.data))

    def test_a_flush_publishes_a_small_object_with_all_it_had(self):
        self.begin(3 * MIB + 123, metadata={'colour': 'red'})
        before = self.stored()
        self.some_writes(20)
        self.expect_read()
        self.expect_same(self.stored(), before)
        self.h.flush()
        answer = self.s3.get(self.bucket, 'image')
        self.expect_same(answer.body, bytes(self.data))
        self.assertEqual(answer.metadata['colour'], 'red')
        self.expect_read()
        self.expect_clean('image')

    def test_a_flush_of_a_large_object_copies_what_did_not_change(self):
        p = self.through_proxy()
        self.begin(40 * MIB + 4567)
        p.forget()
        for at in (17, 20 * MIB, 20 * MIB + 200000, 40 * MIB + 4000):
            self.write(at, self.content(500))
        self.h.flush()
        kinds = [r.kind for r in p.requests()]
        self.assertEqual(kinds.count('create'), 1)
        self.assertEqual(kinds.count('complete'), 1)
        self.assertGreater(kinds.count('copy-part'), 1)
        self.assertLessEqual(kinds.count('part'), 3)
        self.expect_same(self.stored(), bytes(self.data))
        self.expect_read()
        self.expect_clean('image')
        p.forget()
        self.h.flush()			# nothing to say
        self.assertEqual(p.requests(), [])

    def test_any_writes_and_flushes_give_what_a_flat_array_holds(self):
        self.begin(24 * MIB + 999)
        for _ in range(6):
            self.some_writes(25, 2 * MIB)
            self.expect_read()
            self.h.flush()
            self.expect_same(self.stored(), bytes(self.data))
            self.expect_read()
        self.expect_clean('image')

    def test_unmounting_publishes_and_ends_well(self):
        self.begin(12 * MIB)
        self.some_writes(10)
        self.h.shutdown()
        self.objmap('umount', self.where)
        self.expect_same(self.stored(), bytes(self.data))
        self.expect_clean('image')

    def test_reads_and_writes_go_on_while_a_version_is_published(self):
        p = self.through_proxy()
        self.begin(16 * MIB)
        p.forget()
        p.harm('reply-late', kind='complete', seconds=1.0)
        other = self.connect(self.where)
        errors = []

        def flush():
            try:
                self.h.flush()
            except nbd.Error as e:
                errors.append(e)
        self.write(5 * MIB, b'x' * 5000)
        flushed = bytes(self.data)
        thread = threading.Thread(target=flush)
        thread.start()
        wait_for(lambda: p.requests('complete'), 'the flush to publish')
        other.pwrite(b'y' * 4096, 9 * MIB)
        self.data[9 * MIB:9 * MIB + 4096] = b'y' * 4096
        for at in range(0, 16 * MIB, 3 * MIB):
            self.expect_same(bytes(other.pread(70000, at)),
                             bytes(self.data[at:at + 70000]))
        thread.join(30)
        self.assertEqual(errors, [])
        self.expect_same(self.stored(), flushed)
        self.h.flush()
        self.expect_same(self.stored(), bytes(self.data))

    def test_a_full_spill_publishes_and_goes_on(self):
        self.begin(16 * MIB, '--dirty-limit', '64M')
        for i in range(12):
            for at in range(0, 16 * MIB, 4 * MIB):
                # Never the same range twice, so that each takes room of its own.
                self.write(at + i * 512, self.content(2 * MIB))
        self.expect_read()
        self.h.flush()
        self.expect_same(self.stored(), bytes(self.data))
        self.expect_clean('image')

    def test_readers_do_not_keep_a_flush_waiting(self):
        self.begin(16 * MIB, '--connections', '2')
        stop = threading.Event()

        def read(seed):
            h, rng = self.connect(self.where), random.Random(seed)
            while not stop.is_set():
                h.pread(4096, rng.randrange(0, 16 * MIB - 4096))
        readers = [threading.Thread(target=read, args=(i,), daemon=True) for i in range(8)]
        for r in readers:
            r.start()
        try:
            self.write(5 * MIB, b'x' * 4096)
            self.assertIsNone(self.bounded(self.h.flush, 'a flush'))
        finally:
            stop.set()
            for r in readers:
                r.join(30)
        self.expect_same(self.stored(), bytes(self.data))

    def test_keys_of_a_running_mount_may_be_replaced(self):
        p = self.through_proxy()
        keys = {n: self.env.pop(n) for n in ('AWS_ACCESS_KEY_ID', 'AWS_SECRET_ACCESS_KEY')}
        with open(self.path('keys'), 'w') as f:
            json.dump({'Version': 1, 'AccessKeyId': keys['AWS_ACCESS_KEY_ID'],
                       'SecretAccessKey': keys['AWS_SECRET_ACCESS_KEY']}, f)
        with open(self.path('config'), 'w') as f:
            f.write('[default]\ncredential_process = sh -c "echo >>%s; cat %s"\n' % (
                self.path('asked'), self.path('keys')))
        self.env['AWS_CONFIG_FILE'] = self.path('config')
        self.begin(6 * MIB)
        asked = os.path.getsize(self.path('asked'))
        # Those that it has are known no more: it asks for others at once.
        rule = p.harm('status', kind='get', status=403, code='InvalidAccessKeyId', times=1)
        self.assertIsNone(self.bounded(lambda: self.h.pread(4096, MIB), 'a read'))
        self.assertEqual(rule.fired, 1)
        wait_for(lambda: os.path.getsize(self.path('asked')) > asked, 'the keys to be fetched')

    def test_somebody_elses_version_is_not_overwritten_and_ours_is_kept_aside(self):
        self.begin(12 * MIB)
        self.write(100, b'ours' * 1000)
        self.s3.put(self.bucket, 'image', b'theirs')
        with self.assertRaises(nbd.Error):
            self.h.flush()
        with self.assertRaises(nbd.Error):
            self.h.flush()
        self.assertEqual(self.stored(), b'theirs')
        self.assertEqual(bytes(self.h.pread(4000, 100)), b'ours' * 1000)
        self.h.shutdown()
        pid = self.status(self.where)['pid']
        p = self.objmap('umount', self.where, status=1)
        self.assertIn(b'of unsaved writes were kept in', p.stderr)
        wait_gone(pid)
        self.assertEqual(self.stored(), b'theirs')
        self.expect_clean('image')
        kept = []
        for folder, _, names in os.walk(self.path('state')):
            kept += [os.path.join(folder, n) for n in names]
        self.assertEqual(sorted(os.path.basename(k) for k in kept), ['bytes', 'index'])
        with open(next(k for k in kept if k.endswith('bytes')), 'rb') as f:
            self.assertEqual(f.read(), b'ours' * 1000)
        with open(next(k for k in kept if k.endswith('index'))) as f:
            self.assertIn('bytes 100 4000 0\n', f.read())

    def test_a_daemon_that_is_ended_saves_what_is_not_published_or_stays(self):
        p = self.through_proxy()
        self.begin(MIB)
        self.write(5, b'kept')
        self.h.shutdown()
        pid = self.status(self.where)['pid']
        p.harm('status', kind='create', status=403, code='AccessDenied')
        os.kill(pid, signal.SIGTERM)
        wait_for(lambda: 'stays mounted' in self.log(), 'a first try to fail')
        p.heal()
        os.kill(pid, signal.SIGTERM)
        wait_gone(pid)
        self.expect_same(self.stored(), bytes(self.data))

    def test_a_version_whose_answer_was_lost_is_found_out(self):
        p = self.through_proxy()
        for size in (12 * MIB, MIB):
            with self.subTest(size):
                self.begin(size)
                rule = p.harm('reply-lost', kind='complete', key='/image$', times=1)
                self.some_writes(5)
                self.h.flush()
                self.assertEqual(rule.fired, 1)
                self.expect_same(self.stored(), bytes(self.data))
                self.expect_read()
                self.some_writes(5)
                self.h.flush()
                self.expect_same(self.stored(), bytes(self.data))
                self.expect_clean('image')
                p.heal()

    def test_faults_while_publishing_never_tear_the_object(self):
        p = self.through_proxy()
        self.begin(14 * MIB)
        for harm, kind in (('status', 'create'), ('reset-before', 'part'),
                           ('reply-lost', 'part'), ('status', 'copy-part'),
                           ('error-in-200', 'copy-part'), ('error-in-200', 'complete'),
                           ('reset-before', 'complete'), ('short', 'get'),
                           ('corrupt', 'list')):
            with self.subTest(harm=harm, kind=kind):
                p.harm(harm, kind=kind, times=2)
                self.some_writes(4)
                self.h.flush()
                self.expect_same(self.stored(), bytes(self.data))
                p.heal()
        self.assertIn('publishing succeeded, after ', self.log())
        self.expect_clean('image')

    def test_a_killed_daemon_leaves_the_old_version_or_the_new_one(self):
        p = self.through_proxy()
        for kind in ('part', 'complete'):
            self.begin(14 * MIB)
            p.forget()
            old = bytes(self.data)
            p.harm('stall', kind=kind)
            self.some_writes(6)
            pid = self.status(self.where)['pid']
            thread = threading.Thread(target=lambda: self.swallow(self.h.flush))
            thread.start()
            wait_for(lambda: p.requests(kind), 'a request to stall')
            os.kill(pid, signal.SIGKILL)
            wait_gone(pid)
            thread.join(30)
            wait_for(lambda: not p.open, 'the connections to end')
            p.heal()
            self.assertIn(self.stored(), (old, bytes(self.data)))
            p.forget()
        self.assertNotEqual(self.uploads(), [])
        self.objmap('gc', self.place(), '--grace', '0s')
        self.expect_clean('image')

    def test_gc_aborts_what_a_probe_left_and_nothing_of_other_keys(self):
        self.s3.put(self.bucket, 'image', b'x')
        left = ['image', 'image.objmap-probe-0123456789abcdef']
        others = ['image2', 'other/image']
        for key in left + others:
            self.s3.create_upload(self.bucket, key)
        p = self.objmap('gc', self.place(), '--grace', '0s')
        self.assertIn(b'aborted 2 ', p.stdout)
        self.assertEqual(sorted(key for key, _ in self.s3.uploads(self.bucket)), others)

    def test_gc_asks_again_for_a_damaged_list_and_says_so_if_it_stays_damaged(self):
        p = self.through_proxy()
        self.s3.put(self.bucket, 'image', b'x')
        self.s3.create_upload(self.bucket, 'image')
        p.harm('short', kind='list-uploads')
        r = self.objmap('gc', self.place(), '--grace', '0s', '--retry-for', '1s', status=1)
        self.assertIn(b'no list of uploads', r.stderr)
        self.assertEqual(len(self.uploads()), 1)
        p.heal()
        p.harm('short', kind='list-uploads', times=1)
        self.objmap('gc', self.place(), '--grace', '0s')
        self.assertEqual(self.uploads(), [])

    def bounded(self, act, what):
        """What ACT raises, or None; it must end."""
        raised = []

        def run():
            try:
                act()
                raised.append(None)
            except (nbd.Error, OSError) as e:
                raised.append(e)
        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        thread.join(40)
        if thread.is_alive():
            os.kill(self.pids[-1], signal.SIGKILL)
            self.fail(what + ' hangs')
        return raised[0]

    def test_an_end_that_comes_late_undoes_no_later_version(self):
        p = self.through_proxy()
        self.begin(MIB, '--retry-for', '2s')
        self.write(0, b'a' * MIB)
        self.h.flush()
        comes = threading.Event()
        late = p.harm('late', kind='complete', key='/image$', seconds=comes)
        p.harm('status', kind='abort', status=503, code='SlowDown')
        self.write(0, b'b' * MIB)
        self.assertRaises(nbd.Error, self.h.flush)
        # As long as it may come nothing else is published.
        self.write(0, b'a' * MIB)
        self.assertRaises(nbd.Error, self.h.flush)
        p.heal()
        self.h.flush()			# the same bytes, and the same ETag, as at first
        comes.set()
        wait_for(lambda: len(late.log) == len(late.timers), 'what is late')
        self.assertEqual(set(late.log), {404})
        self.expect_same(self.stored(), b'a' * MIB)
        self.expect_clean('image')

    def test_no_read_waits_for_a_version_that_will_not_come(self):
        p = self.through_proxy()
        self.begin(MIB, '--retry-for', '2s')
        p.harm('reset-before', kind='complete', key='/image$')
        self.write(0, b'x' * 4096)
        with self.assertRaises(nbd.Error):
            self.h.flush()			# nobody knows what became of it
        p.heal()
        self.s3.put(self.bucket, 'image', b'theirs')
        read = self.bounded(lambda: self.h.pread(4096, 500000), 'a read')
        self.assertIsInstance(read, nbd.Error)
        self.assertIn('replaced', self.log())

    def fill(self):
        for i in range(12):
            for at in range(0, 16 * MIB, 4 * MIB):
                self.write(at + i * 512, self.content(2 * MIB))

    def fail_in_the_background(self):
        p = self.through_proxy()
        self.begin(16 * MIB, '--dirty-limit', '64M')
        p.harm('status', kind='create', status=403, code='AccessDenied')
        # There is no room, and none can be made.
        self.assertRaises(nbd.Error, self.fill)
        p.heal()
        return p

    def test_a_flush_that_makes_a_failure_in_the_background_good_succeeds(self):
        self.fail_in_the_background()
        self.h.flush()
        self.expect_same(self.stored(), bytes(self.data))
        self.expect_clean('image')

    def test_a_failure_in_the_background_that_was_made_good_fails_no_flush(self):
        p = self.fail_in_the_background()
        p.forget()
        self.fill()
        wait_for(lambda: any(r.status == 200 for r in p.requests('complete')),
                 'a version to be published')
        self.h.flush()
        self.expect_same(self.stored(), bytes(self.data))
        self.expect_clean('image')

    def test_a_read_in_doubt_ends_when_its_time_is_up(self):
        p = self.through_proxy()
        self.begin(MIB, '--retry-for', '3s')
        # Our version is there, but nobody is told, nor may look.
        p.harm('reply-lost', kind='complete', key='/image$')
        stalled = p.harm('stall', kind='get', skip=1, times=1)	# after the second half
        self.write(0, self.content(MIB // 2))
        other = self.connect(self.where)
        flush = threading.Thread(target=lambda: self.swallow(self.h.flush), daemon=True)
        flush.start()
        wait_for(lambda: stalled.fired, 'the publisher to look')
        started = time.monotonic()
        with self.assertRaises(nbd.Error):
            other.pread(4096, MIB // 2 + 5000)
        self.assertLess(time.monotonic() - started, 25)	# one alone stalls for 30
        p.heal()
        flush.join(60)
        self.expect_read()

    def test_what_cannot_be_published_can_be_dropped(self):
        p = self.through_proxy()
        self.begin(MIB)
        p.harm('status', kind='part', key='/image$', status=503, code='SlowDown')
        self.write(0, b'x' * 4096)
        thread = threading.Thread(target=lambda: self.swallow(self.h.flush), daemon=True)
        thread.start()
        # What it waits for is told meanwhile.
        trouble = wait_for(lambda: self.status(self.where)['store']['trouble'], 'a word')
        self.assertRegex(trouble['reason'], 'publishing: .*SlowDown')
        wait_for(lambda: re.search('publishing: .*SlowDown.*trying again', self.log()),
                 'the same in the log')
        self.assertIsNone(self.bounded(lambda: self.objmap(
            'umount', self.where, '--no-drain', '--force'), 'umount'))
        wait_gone(self.pids[-1])
        thread.join(10)

    def files_of_state(self, pid):
        """How many files without a name it has open there."""
        links = []
        for fd in os.listdir('/proc/%d/fd' % pid):
            try:
                links.append(os.readlink('/proc/%d/fd/%s' % (pid, fd)))
            except OSError:
                pass		# closed meanwhile
        return len([n for n in links if n.startswith(self.path('state')) and 'deleted' in n])

    def test_flushes_that_fail_pile_up_no_files(self):
        p = self.through_proxy()
        self.begin(MIB)
        p.harm('status', kind='create', key='/image$', status=403, code='AccessDenied')
        self.write(0, b'x' * 512)
        for _ in range(5):
            with self.assertRaises(nbd.Error):
                self.h.flush()
        # What waits, and where the next writes go.
        wait_for(lambda: self.files_of_state(self.pids[-1]) <= 2, 'the other files to go')
        p.heal()
        self.write(700, b'y' * 512)
        self.h.flush()
        self.expect_same(self.stored(), bytes(self.data))

    @staticmethod
    def swallow(act):
        try:
            act()
        except nbd.Error:
            pass

    def test_a_store_that_ignores_conditions_is_refused_unless_it_is_exclusive(self):
        p = self.through_proxy()
        self.s3.put(self.bucket, 'image', b'x' * MIB)
        p.harm('conditions-ignored')
        r = self.objmap('mount', self.place(), 'nbd+unix:///?socket=' + self.path('q'),
                        '--writable', '--state', self.path('state'), status=1)
        self.assertIn(b'--exclusive', r.stderr)
        self.expect_clean('image')
        self.where = self.mount(self.place(), '--writable', '--exclusive')
        h = self.connect(self.where)
        h.pwrite(b'y' * 10, 5)
        h.flush()
        self.assertEqual(self.stored(), b'x' * 5 + b'y' * 10 + b'x' * (MIB - 15))


if __name__ == '__main__':
    fixtures.main()
