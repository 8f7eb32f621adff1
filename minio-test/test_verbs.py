"""Every verb on a real MinIO: what it says, what is in the bucket afterwards, and how
many requests it took."""
import json
import os
import random
import re
import signal
import subprocess
import sys
import time

import nbd

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(os.path.dirname(HERE), 'tests'))
import fixtures  # noqa: E402
import world  # noqa: E402
from proxy import Proxy  # noqa: E402
from fixtures import OBJMAP, require, wait_for, wait_gone  # noqa: E402

MIB = 1 << 20


class Verbs(world.MinioWorld):
    def setUp(self):
        super().setUp()
        self.random = random.Random(fixtures.SEED)
        self.vol = 's3://%s/vol' % self.bucket

    def keys_of(self, prefix=''):
        return sorted(self.s3.keys(self.bucket, prefix))

    def json(self, *args, **kw):
        return json.loads(self.objmap(*args, '--json', **kw).stdout)

    def file(self, name, data):
        with open(self.path(name), 'wb') as f:
            f.write(data)
        return self.path(name)

    def image(self, size=5 * MIB + 777, name='image'):
        """A file of random bytes with a hole in it."""
        data = bytearray(self.random.randbytes(size))
        data[size // 4:size // 2] = bytes(size // 2 - size // 4)
        return self.file(name, bytes(data)), bytes(data)

    def volume(self, **kw):
        """A volume that holds an image; the image's bytes."""
        path, data = self.image(**kw)
        self.objmap('copy', '-q', path, self.vol, '--chunk-size', '64K')
        return data

    def read(self, place, **kw):
        """What is in PLACE."""
        self.objmap('copy', '-q', '--overwrite', place, self.path('read'), **kw)
        with open(self.path('read'), 'rb') as f:
            return f.read()

    def mount(self, place, *options, where=None):
        where = where or 'nbd+unix:///?socket=' + self.path('sock')
        self.objmap('mount', place, where, '--log', self.path('log'), *options)
        self.pids.append(self.status(where)['pid'])
        return where

    def status(self, where):
        return self.json('status', where)

    def write(self, where, data, offset=0, flush=True):
        h = nbd.NBD()
        h.connect_uri(where)
        for at in range(0, len(data), MIB):
            h.pwrite(data[at:at + MIB], offset + at)
        if flush:
            h.flush()
        h.shutdown()

    def log(self):
        with open(self.path('log')) as f:
            return f.read()

    def carries_a_file_system(self):
        require('fuse', 'mke2fs', 'e2fsck')
        self.objmap('create', self.vol, '--size', '64M')
        path = self.path('disk')
        self.mount(self.vol, where=path)
        self.run_ok('mke2fs', '-q', '-F', '-t', 'ext4', '-d', fixtures.TOP + '/man', path)
        self.objmap('umount', path)
        self.mount(self.vol, '--read-only', where=path)
        self.run_ok('e2fsck', '-fn', path)
        out = self.run_ok('debugfs', '-R', 'cat objmap.1', path).stdout
        with open(fixtures.TOP + '/man/objmap.1', 'rb') as f:
            self.assertEqual(out, f.read())
        self.objmap('umount', path)


class Making(Verbs):
    def test_create_makes_a_head_and_nothing_else(self):
        made = self.json('create', self.vol, '--size', '10M')
        self.assertEqual(made['size'], 10 * MIB)
        self.assertEqual(self.keys_of(), ['vol/head'])
        p = self.objmap('create', self.vol, '--size', '1M', status=1)
        self.assertIn(b'there is a volume already', p.stderr)
        self.assertEqual(self.json('info', self.vol)['size'], 10 * MIB)
        self.assertEqual(self.keys_of(), ['vol/head'])

    def test_a_deleted_volume_leaves_a_tombstone_that_create_goes_on_from(self):
        self.volume()
        epoch = self.json('info', self.vol)['epoch']
        self.objmap('delete', self.vol, status=2)
        self.objmap('delete', self.vol, '--yes')
        self.assertEqual(self.keys_of(), ['vol/head'])
        p = self.objmap('info', self.vol, status=1)
        self.assertIn(b'deleted', p.stderr)
        self.objmap('create', self.vol, '--size', '1M')
        self.assertGreater(self.json('info', self.vol)['epoch'], epoch)
        self.assertEqual(self.read(self.vol), bytes(MIB))

    def test_what_is_stored_has_the_class_and_the_tags_that_were_asked_for(self):
        """Whole objects and those in parts; and every request says who pays."""
        proxy = self.proxy()
        options = ['--storage-class', 'REDUCED_REDUNDANCY', '--tags', 'team=disk&for=a%20b',
                   '--requester-pays']
        self.objmap('copy', '-q', self.image(12 * MIB)[0], self.vol, '--chunk-size', '8M',
                    '--multipart-threshold', '5M', '--part-size', '5M', *options,
                    env=dict(self.env, AWS_ENDPOINT_URL_S3=proxy.endpoint))
        keys = self.keys_of()
        self.assertTrue(proxy.requests('create'))
        self.assertEqual(len(keys), 3)
        for key in keys:
            self.assertEqual(self.s3.head(self.bucket, key).headers.get('x-amz-storage-class'),
                             'REDUCED_REDUNDANCY', key)
            found = self.s3.request('GET', self.bucket, key, {'tagging': ''}).xml
            self.assertEqual({t.findtext('Key'): t.findtext('Value') for t in found.iter('Tag')},
                             {'team': 'disk', 'for': 'a b'}, key)
        self.assertEqual([r for r in proxy.requests()
                          if r.header.get('x-amz-request-payer') != 'requester'], [])
        self.objmap('create', self.vol + '2', '--size', '1M')
        self.assertNotIn('x-amz-storage-class', self.s3.head(self.bucket, 'vol2/head').headers)

    def test_names_with_escapes_mean_one_key_everywhere(self):
        place = 's3://%s/a%%40b/c%%3f%%25d e' % self.bucket
        self.objmap('create', place, '--size', '1M')
        self.assertEqual(self.keys_of(), ['a@b/c?%d e/head'])
        listed = self.json('list', 's3://%s/' % self.bucket)
        self.assertEqual([v['place'] for v in listed], [place])
        self.assertEqual(self.json('info', listed[0]['place'])['size'], MIB)


class Copying(Verbs):
    def test_what_was_copied_in_comes_out_and_holes_stay_holes(self):
        path, data = self.image()
        self.objmap('copy', '--verify', '-q', path, self.vol, '--chunk-size', '64K')
        self.assertEqual(self.read(self.vol, ), data)
        cost = self.json('info', self.vol, '--cost')['cost']
        self.assertLess(cost['bytes'], len(data) * 4 // 5)
        self.objmap('copy', path, self.vol, status=1)
        self.objmap('copy', '-q', '--overwrite', path, self.vol)
        p = subprocess.run([OBJMAP, 'copy', '-q', self.vol, '-'], env=self.env,
                           capture_output=True, timeout=60)
        self.assertEqual(p.stdout, data)
        self.objmap('copy', '-q', self.vol, 'dir:' + self.path('back'))
        self.assertEqual(self.read('dir:' + self.path('back')), data)

    def test_a_copy_onto_itself_is_refused_whatever_the_place_is_written_as(self):
        self.volume()
        other = self.vol + '?endpoint-url=' + self.endpoint + '/'
        self.env['OBJMAP_ENDPOINT_URL'] = self.endpoint
        p = self.objmap('copy', '--overwrite', self.vol, other, status=2)
        self.assertIn(b'same volume', p.stderr)

    def test_a_cut_copy_is_incomplete_and_goes_on(self):
        path, data = self.image(40 * MIB)
        proxy = self.proxy()		# so that it cannot end before it is cut
        proxy.harm('reply-late', kind='put', key='/chunk/', skip=40, seconds=60)
        p = self.start(OBJMAP, 'copy', '-q', path, self.vol, '--chunk-size', '64K',
                       env=dict(self.env, AWS_ENDPOINT_URL_S3=proxy.endpoint))
        wait_for(lambda: len(self.keys_of('vol/chunk/')) > 20, 'chunks')
        p.send_signal(signal.SIGINT)
        proxy.heal()
        self.assertEqual(p.wait(60), 1)
        p = self.objmap('mount', self.vol, 'nbd+unix:///?socket=' + self.path('s'), status=1)
        self.assertIn(b'--resume', p.stderr)
        self.objmap('copy', '-q', '--resume', '--verify', path, self.vol)
        self.assertEqual(self.read(self.vol), data)

    def test_chunks_above_the_threshold_go_in_parts_and_are_the_same(self):
        path, data = self.image(45 * MIB)
        self.objmap('copy', '-q', path, self.vol, '--chunk-size', '16M',
                    '--multipart-threshold', '5M', '--part-size', '5M')
        self.assertEqual(self.read(self.vol), data)
        chunk = self.keys_of('vol/chunk/')[0]
        self.assertIn('-4"', self.s3.head(self.bucket, chunk).etag)
        self.objmap('verify', '-q', self.vol)
        self.assertEqual(list(self.s3.uploads(self.bucket)), [])


class Looking(Verbs):
    def test_list_finds_the_volumes_of_a_bucket_with_few_requests(self):
        places = ['s3://%s/%s' % (self.bucket, p) for p in ('a', 'b/c', 'b/d', 'x/y/z')]
        for place in places:
            self.objmap('create', place, '--size', '1M')
        self.objmap('create', 's3://%s/gone' % self.bucket, '--size', '1M')
        self.objmap('delete', 's3://%s/gone' % self.bucket, '--yes')
        for i in range(5):
            self.s3.put(self.bucket, 'photos/%d.jpg' % i, b'x')
        self.s3.put(self.bucket, 'other/head', b'no head of ours')
        self.s3.put(self.bucket, 'other/sub/head', b'x' * 100000)
        for text, found in (('', places), ('/', places), ('/b/', places[1:3]),
                            ('/b', places[1:3]), ('/x/', places[3:]), ('/photos/', [])):
            listed = self.json('list', 's3://%s%s' % (self.bucket, text))
            self.assertEqual([v['place'] for v in listed], found, text)
        p = self.objmap('list', 's3://%s/@x' % self.bucket, status=2)
        self.assertIn(b'a bucket only', p.stderr)
        p = self.objmap('list', 's3://no-such-%s/' % self.bucket, status=1)
        self.assertIn(b'ucket', p.stderr)

    def test_more_than_a_page_of_folders_is_gone_through(self):
        for i in range(1003):
            self.s3.put(self.bucket, 'many/%04d/x' % i, b'')
        self.objmap('create', 's3://%s/many/1002' % self.bucket, '--size', '1M')
        listed = self.json('list', 's3://%s/many/' % self.bucket)
        self.assertEqual([v['place'] for v in listed],
                         ['s3://%s/many/1002' % self.bucket])

    def test_info_tells_what_is_stored_and_what_asking_cost(self):
        self.volume()
        info = self.json('info', self.vol, '--cost', '--map')
        self.assertGreater(info['cost']['chunks'], 30)
        self.assertEqual(info['cost']['bytes'], info['cost']['chunks'] * 64 * 1024)
        head = info['cost']['requests']['head']
        self.assertLessEqual(head['requests'], 3)
        self.assertGreater(head['bytes_in'], 0)
        self.assertEqual(info['cost']['requests']['push']['requests'], 0)

    def test_a_missing_volume_bucket_and_key_are_told_apart(self):
        self.assertIn(b'objmap create', self.objmap('info', self.vol, status=1).stderr)
        p = self.objmap('info', 's3://no-such-%s/v' % self.bucket, status=1)
        self.assertIn(b'ucket', p.stderr)
        self.assertNotIn(b'objmap create makes', p.stderr)
        begin = time.monotonic()
        p = self.objmap('info', self.vol, status=1,
                        env=dict(self.env, AWS_SECRET_ACCESS_KEY='wrong'))
        self.assertIn(b'ignature', p.stderr)
        p = self.objmap('info', self.vol, status=1,
                        env=dict(self.env, AWS_ACCESS_KEY_ID='nobody'))
        self.assertNotIn(b'objmap create makes', p.stderr)
        self.assertLess(time.monotonic() - begin, 20)


class Serving(Verbs):
    def test_a_mount_commits_and_tells_what_that_cost(self):
        self.volume()
        where = self.mount(self.vol)
        before = self.status(where)
        opening = sum(c['requests'] for c in before['store']['causes'].values())
        self.assertLessEqual(opening, 10)
        self.assertEqual(before['push']['batches'], 0)
        data = self.random.randbytes(MIB)
        self.write(where, data)
        after = self.status(where)
        self.assertEqual(after['push']['batches'], 1)
        self.assertEqual(after['push']['parts'], 0)
        causes = after['store']['causes']
        self.assertEqual(causes['push']['requests'], 16)
        self.assertEqual(causes['push']['bytes_out'], MIB)
        self.assertEqual(causes['head']['requests'] -
                         before['store']['causes']['head']['requests'], 1)
        text = self.objmap('status', where).stdout.decode()
        self.assertRegex(text, r'pushed +1 batches: \d+ PUTs\n')
        self.objmap('umount', where)
        self.assertEqual(self.read(self.vol)[:MIB], data)

    def test_parts_of_large_chunks_are_counted(self):
        self.objmap('create', self.vol, '--size', '64M', '--chunk-size', '16M')
        where = self.mount(self.vol, '--part-size', '5M', '--memory-limit', '128M')
        self.write(where, self.random.randbytes(32 * MIB))
        push = self.status(where)['push']
        self.assertEqual((push['parts'], push['completes'], push['aborts']), (8, 2, 0))
        self.assertIn(b'8 parts, 2 uploads completed, 0 aborted',
                      self.objmap('status', where).stdout)
        self.objmap('umount', where)

    def counted(self, proxy, where):
        """status, whose counters are those of PROXY; its causes."""
        def seen(kind, key=None):
            return len(proxy.requests(kind, key))
        status = self.status(where)
        store, push = status['store'], status['push']
        self.assertEqual(sum(c['requests'] for c in store['causes'].values()),
                         len(proxy.requests()))
        self.assertEqual(store['operations']['get'], seen('get'))
        self.assertEqual(store['operations']['delete'], seen('delete-many') + seen('delete'))
        self.assertEqual((store['operations']['list'], seen('list')), (0, 0))
        self.assertEqual((push['parts'], push['completes'], push['aborts']),
                         (seen('part'), seen('complete'), seen('abort')))
        return status, store['causes']

    def test_status_counts_what_the_server_was_asked_by_what_it_was_for(self):
        self.objmap('create', self.vol, '--size', '256M', '--chunk-size', '64K')
        proxy = self.proxy()
        self.env['AWS_ENDPOINT_URL_S3'] = proxy.endpoint
        where = self.mount(self.vol, '--grace', '0')
        # More than head remembers, so that a node of the map is put; then once more.
        self.write(where, self.random.randbytes(33 * MIB))
        self.write(where, b'x' * 65536)
        wait_for(lambda: proxy.requests('delete-many') and not
                 self.status(where)['store']['in_flight'], 'the old chunk to be deleted')
        status, causes = self.counted(proxy, where)
        puts = {cause: len(proxy.requests('put', key)) for cause, key in (
            ('push', '/chunk/'), ('map', '/map/'), ('head', '/(head$|probe/)'))}
        self.assertEqual((puts['push'], puts['map']), (33 * 16 + 1, 1))
        self.assertEqual(status['push']['puts'], sum(puts.values()))
        self.assertEqual(status['store']['operations']['put'], sum(puts.values()))
        self.assertEqual(causes['push'], {'requests': puts['push'], 'bytes_in': 0,
                                          'bytes_out': puts['push'] * 65536})
        self.assertEqual(causes['map'], {'requests': 1, 'bytes_in': 0, 'bytes_out': 24 * 1024})
        # The probe's puts were refused, and its objects deleted, as head's.
        self.assertEqual(causes['head']['bytes_out'], sum(
            r.length for r in proxy.requests('put', '/(head$|probe/)') if r.status == 200))
        self.assertEqual(causes['gc']['requests'], len(proxy.requests('delete-many')) - 1)
        for cause in 'demand', 'prefetch', 'list':
            self.assertEqual(causes[cause], {'requests': 0, 'bytes_in': 0, 'bytes_out': 0})
        self.objmap('umount', where)

        proxy.forget()
        where = self.mount(self.vol, '--read-only')
        h = nbd.NBD()
        h.connect_uri(where)
        h.pread(4096, 100 * 65536)
        h.shutdown()
        status, causes = self.counted(proxy, where)
        self.assertEqual([(c, n['requests'], n['bytes_in']) for c, n in causes.items()
                          if n['requests'] and c != 'head'],
                         [('demand', 1, 65536), ('map', 1, 24 * 1024)])
        self.assertEqual(causes['head']['requests'], len(proxy.requests('get', '/head$')))
        self.objmap('umount', where)

    def test_status_counts_uploads_that_were_given_up(self):
        self.objmap('create', self.vol, '--size', '32M', '--chunk-size', '16M')
        proxy = self.proxy()
        self.env['AWS_ENDPOINT_URL_S3'] = proxy.endpoint
        where = self.mount(self.vol, '--part-size', '5M', '--memory-limit', '128M')
        refused = proxy.harm('status', kind='part', query='partNumber=2', times=1, status=403,
                             code='AccessDenied')
        with self.assertRaises(Exception):
            self.write(where, self.random.randbytes(16 * MIB))
        self.assertEqual(refused.fired, 1)
        def is_aborted():
            status = self.status(where)
            return status['push']['aborts'] and not status['store']['in_flight']
        wait_for(is_aborted, 'the abort')
        status, _ = self.counted(proxy, where)
        self.assertEqual((status['push']['completes'], status['push']['aborts']), (0, 1))
        self.assertEqual(list(self.s3.uploads(self.bucket)), [])
        self.write(where, b'')		# its flush takes what is still dirty
        status, _ = self.counted(proxy, where)
        self.assertEqual((status['push']['batches'], status['push']['completes'],
                          status['push']['aborts']), (1, 1, 1))
        self.assertEqual(status['volume']['failed_commits'], 1)
        self.objmap('umount', where)

    def test_a_file_carries_a_file_system(self):
        self.carries_a_file_system()

    def test_serve_takes_the_servers_options_from_its_file(self):
        self.volume()
        env = {k: v for k, v in self.env.items() if k != 'AWS_ENDPOINT_URL_S3'}
        with open(self.path('serve.conf'), 'w') as f:
            f.write('[mount]\nplace = %s\nwhere = nbd+unix:///?socket=%s\n'
                    'endpoint-url = %s\nconnections = 4\nread-only = yes\n'
                    % (self.vol, self.path('sock'), self.endpoint))
        self.objmap('serve', self.path('serve.conf'), '--log', self.path('log'), env=env)
        where = 'nbd+unix:///?socket=' + self.path('sock')
        self.pids.append(self.status(where)['pid'])
        self.objmap('umount', where)

    def test_two_writers_are_told_apart_and_one_is_fenced(self):
        self.volume()
        where = self.mount(self.vol)
        p = self.objmap('mount', self.vol, 'nbd+unix:///?socket=' + self.path('s2'), status=1)
        self.assertIn(b'held by', p.stderr)
        other = dict(self.env, OBJMAP_RUNTIME_DIR=self.path('run2'))
        self.objmap('resize', self.vol, '16M', '--take-over', env=other)
        with self.assertRaises(Exception):
            self.write(where, b'x' * 4096)
        self.assertTrue(self.status(where)['volume']['fenced'])
        p = self.objmap('umount', where, '--json', status=1)
        self.assertEqual(json.loads(p.stdout), {'where': where, 'saved': False})
        self.assertIn(b'of unsaved writes were kept in', p.stderr)

    def test_a_server_that_is_away_is_waited_for_and_status_says_why(self):
        self.volume()
        where = self.mount(self.vol)
        client = nbd.NBD()		# who says goodbye has it saved
        client.connect_uri(where)
        client.pwrite(b'x' * 4096, 0)
        self.stop_minio()
        try:
            flush = self.start(OBJMAP, 'umount', where)
            trouble = wait_for(lambda: self.status(where)['store']['trouble'], 'trouble')
            self.assertIn('head' if 'head' in trouble['reason'] else 'chunk',
                          trouble['reason'])
            self.assertIn(b'TROUBLE', self.objmap('status', where).stdout)
            # As objmap-status(1) names them.
            self.assertEqual(set(trouble), {'reason', 'seconds', 'attempts'})
            self.assertEqual(set(self.status(where)['http']),
                             {'connections', 'busy', 'queued', 'connects'})
            time.sleep(1)
            self.assertIsNone(flush.poll())
            pid = self.status(where)['pid']
            begin = time.monotonic()
            self.objmap('umount', where, '--no-drain', '--force')
            self.assertLess(time.monotonic() - begin, 25)
            wait_gone(pid)
            flush.wait(60)
            self.assertIn('dropped', self.log())
        finally:
            type(self).start_minio()

    def test_status_tells_what_an_end_waits_for(self):
        self.volume()
        where = self.mount(self.vol)
        pid = self.status(where)['pid']
        self.stop_minio()
        try:
            end = self.start(OBJMAP, 'umount', where)	# only gives the volume back
            found = wait_for(lambda: (s := self.status(where))['store']['trouble'] and s,
                             'trouble')
            self.assertEqual(found['state'], 'ending')
            self.assertIn('head', found['store']['trouble']['reason'])
            self.assertIsNone(end.poll())
            self.objmap('umount', where, '--no-drain', '--force', timeout=30)
            wait_gone(pid)
            self.assertIn('stays marked as held', self.log())
        finally:
            type(self).start_minio()

    def test_a_read_of_4_kib_gets_one_frame(self):
        self.volume()
        where = self.mount(self.vol, '--read-only')
        h = nbd.NBD()
        h.connect_uri(where)
        before = self.status(where)['store']['causes']['demand']
        h.pread(4096, 4 * MIB + 8192)
        after = self.status(where)['store']['causes']['demand']
        self.assertEqual(after['requests'] - before['requests'], 1)
        self.assertEqual(after['bytes_in'] - before['bytes_in'], 64 * 1024)
        h.shutdown()
        self.objmap('umount', where)


class Keeping(Verbs):
    def test_snapshots_rollback_and_clones(self):
        data = self.volume()
        self.objmap('snapshot', 'create', self.vol, 'one')
        where = self.mount(self.vol)
        self.write(where, b'x' * MIB)
        self.objmap('snapshot', 'create', self.vol, 'two')
        self.objmap('umount', where)
        changed = b'x' * MIB + data[MIB:]
        self.assertEqual(self.read(self.vol), changed)
        self.assertEqual(self.read(self.vol + '@one'), data)
        clone = 's3://%s/clone' % self.bucket
        self.objmap('clone', self.vol + '@one', clone)
        self.assertEqual(self.read(clone), data)
        self.objmap('rollback', self.vol + '@one', '--yes')
        self.assertEqual(self.read(self.vol), data)
        self.assertEqual(self.read(self.vol + '@two'), changed)
        self.objmap('snapshot', 'delete', self.vol + '@one')
        self.objmap('gc', '-q', '--grace', '0', self.vol)
        self.assertEqual(self.read(clone), data)
        self.objmap('verify', '-q', clone)
        names = [e['name'] for e in self.json('snapshot', 'list', self.vol)]
        self.assertIn('two', names)
        self.objmap('delete', self.vol, '--yes', status=1)

    def test_a_clone_elsewhere_is_refused_before_anything_is_written(self):
        self.volume()
        self.objmap('snapshot', 'create', self.vol, 'one')
        before = self.keys_of()
        for new in ('s3://%s/clone' % ('om-' + 'z' * 12), 'dir:' + self.path('clone'),
                    's3://%s/clone?endpoint-url=http://127.0.0.1:1' % self.bucket):
            p = self.objmap('clone', self.vol + '@one', new, status=1)
            self.assertIn(b'objmap copy', p.stderr)
        self.assertEqual(self.keys_of(), before)

    def test_resize_grows_and_shrinks(self):
        data = self.volume()
        self.objmap('resize', self.vol, '9M')
        self.assertEqual(self.read(self.vol), data + bytes(9 * MIB - len(data)))
        self.objmap('resize', self.vol, '1M', '--yes')
        self.objmap('resize', self.vol, '2M')
        self.assertEqual(self.read(self.vol), data[:MIB] + bytes(MIB))

    def test_gc_deletes_what_a_killed_daemon_left_uploads_too(self):
        self.objmap('create', self.vol, '--size', '64M', '--chunk-size', '16M')
        where = self.mount(self.vol, '--memory-limit', '128M')
        self.write(where, self.random.randbytes(16 * MIB))
        pid = self.status(where)['pid']
        os.kill(pid, signal.SIGKILL)
        wait_gone(pid)
        chunk = self.keys_of('vol/chunk/')[0]
        left = chunk.replace('/00/00000000-', '/01/00000001-')
        self.s3.put_part(self.bucket, left, self.s3.create_upload(self.bucket, left), 1,
                         b'half')
        self.s3.put(self.bucket, left.replace('/01/00000001-', '/02/00000002-'), b'half')
        where = self.mount(self.vol)
        self.objmap('umount', where)
        found = self.json('gc', self.vol, '--grace', '0')
        self.assertEqual(found['aborted_uploads'], 1)
        self.assertGreaterEqual(found['deleted'], 1)
        self.assertEqual(list(self.s3.uploads(self.bucket, left)), [])
        self.objmap('verify', '-q', self.vol)

    def test_verify_names_a_chunk_that_was_altered_and_one_that_is_missing(self):
        self.volume()
        chunks = self.keys_of('vol/chunk/')
        was = self.s3.get(self.bucket, chunks[3])
        self.s3.put(self.bucket, chunks[3], b'z' + was.body[1:], metadata=was.metadata)
        self.s3.delete(self.bucket, chunks[5])
        p = self.objmap('verify', '-q', self.vol, status=1)
        told = (p.stdout + p.stderr).decode()
        self.assertIn(chunks[3][4:], told)
        self.assertIn(chunks[5][4:], told)


class Doctor(Verbs):
    def found(self, place, status=0, **kw):
        # A wrong reply is asked for again, as long as it may be.
        p = self.objmap('doctor', place, '--json', '--retry-for', '5s', status=status, **kw)
        return {f['what']: f for f in json.loads(p.stdout)}

    # All that is looked at, in order.
    GOOD = ['credentials', 'bucket', 'endpoint', 'clock', 'absence', 'volume', 'writing',
            'ranges with metadata', 'ETags', 'GET if-match', 'PUT if-none-match',
            'PUT if-match', 'PUT if-match, missing', 'PUT if-match, right',
            'creators at once', 'swaps at once', 'list after put', 'delete many',
            'list after delete', 'complete if-match', 'uploads in parts', 'versioning',
            'latency', 'throughput']

    # What fails, and the harm that makes it fail; a tag that is not the object's
    # cannot be matched either.  Puts below probe/ are, in
    # order: one, over it, then those of the four lines PUT if-...; then the rivals.
    # Listings: the bucket, two objects, and one again.  After those in LAST there is
    # nothing left to look at.
    BROKEN = (
        ('bucket', 'status', dict(kind='list', times=1, status=403, code='AccessDenied')),
        ('absence', 'status', dict(kind='get', key='/probe/', times=1, status=403,
                                   code='AccessDenied')),
        ('volume', 'status', dict(kind='get', key='/head$', status=403,
                                  code='AccessDenied')),
        ('writing', 'status', dict(kind='put', status=403, code='AccessDenied')),
        ('overwriting', 'status', dict(kind='put', skip=1, status=403, code='AccessDenied')),
        ('ranges with metadata', 'range-ignored', dict(kind='get', key='/probe/')),
        (('ETags', 'PUT if-match, right'), 'wrong-tag', dict(kind='put', times=2)),
        ('GET if-match', 'conditions-ignored', dict(kind='get')),
        ('PUT if-none-match', 'conditions-ignored', dict(kind='put', skip=2, times=1)),
        ('PUT if-match', 'conditions-ignored', dict(kind='put', skip=3, times=1)),
        ('PUT if-match, missing', 'conditions-ignored', dict(kind='put', skip=4, times=1)),
        ('PUT if-match, right', 'status', dict(kind='put', skip=5, times=1, status=403,
                                               code='AccessDenied')),
        ('creators at once', 'conditions-ignored', dict(kind='put', skip=6,
                                                        which=['if-none-match'])),
        ('swaps at once', 'conditions-ignored', dict(kind='put', skip=6, which=['if-match'])),
        ('list after put', 'empty-list', dict(kind='list', skip=1, times=1)),
        ('list after delete', 'stale-list', dict(kind='list', skip=3)),
        ('delete many', 'status', dict(kind='delete-many', status=501,
                                       code='NotImplemented')),
        ('complete if-match', 'conditions-ignored', dict(kind='complete')),
        ('parts that are copies', 'status', dict(kind='copy-part', status=403,
                                                 code='AccessDenied')),
        ('uploads in parts', 'status', dict(kind='create', status=403,
                                            code='AccessDenied')),
        ('cleaning up', 'status', dict(kind='delete', times=1, status=403,
                                       code='AccessDenied')),
    )
    LAST = 'bucket', 'absence', 'writing', 'overwriting'
    MERELY = ('volume', 'GET if-match', 'delete many', 'complete if-match',
              'parts that are copies', 'uploads in parts', 'cleaning up')	# exit 0

    def of_the_place(self, found):
        whats = list(found)
        return whats[whats.index('credentials'):]

    def test_each_line_is_a_no_when_just_that_is_broken(self):
        for number, (broken, harm, how) in enumerate(self.BROKEN):
            broken = [broken] if isinstance(broken, str) else list(broken)
            what = broken[0]
            with self.subTest(what=what):
                proxy = self.proxy()
                rule = proxy.harm(harm, **how)
                found = self.found('%s%d' % (self.vol, number),
                                   status=0 if what in self.MERELY else 1,
                                   env=dict(self.env, AWS_ENDPOINT_URL_S3=proxy.endpoint))
                proxy.close()
                self.assertGreater(rule.fired, 0)
                looked = self.of_the_place(found)
                self.assertEqual([w for w in looked if not found[w]['ok']], broken)
                self.assertRegex(found[what]['detail'], '[^: ]$')
                self.assertEqual(what == 'volume', found[what]['remedy'] is None)
                if what in self.LAST:
                    self.assertEqual(looked[-1], what)
                else:
                    self.assertEqual([w for w in self.GOOD if w not in looked],
                                     ['complete if-match'] * (what in (
                                         'uploads in parts', 'parts that are copies')))

    def test_clock_and_credentials_are_lines_of_their_own(self):
        proxy = self.proxy()
        proxy.skew = 7200
        found = self.found(self.vol, env=dict(self.env, AWS_ENDPOINT_URL_S3=proxy.endpoint))
        self.assertEqual([w for w in self.of_the_place(found) if not found[w]['ok']], ['clock'])
        ahead = re.search(r'is (\d+) s ahead', found['clock']['detail'])
        self.assertAlmostEqual(int(ahead[1]), 7200, delta=60)	# it may be slow to look
        found = self.found(self.vol, status=1, env={n: v for n, v in self.env.items()
                                                    if not n.startswith('AWS_')})
        self.assertEqual(self.of_the_place(found), ['credentials'])
        self.assertFalse(found['credentials']['ok'])

    def test_a_good_server_is_called_good_and_nothing_is_left(self):
        found = self.found(self.vol)
        self.assertEqual(self.of_the_place(found), self.GOOD)
        self.assertEqual([f for f in found.values() if f['what'] in self.GOOD and not f['ok']],
                         [])
        self.assertEqual(self.keys_of(), [])
        self.assertIn(self.endpoint, found['endpoint']['detail'])

    def test_versioning_without_a_lifecycle_rule_is_warned_of(self):
        self.s3.put_versioning(self.bucket)
        found = self.found(self.vol)['versioning']
        self.assertFalse(found['ok'])
        self.assertIn('lifecycle rule', found['remedy'])

    def test_what_is_wrong_is_a_no_with_its_reason(self):
        found = self.found('s3://no-such-%s/v' % self.bucket, status=1)
        self.assertFalse(found['bucket']['ok'])
        found = self.found(self.vol, status=1,
                           env=dict(self.env, AWS_SECRET_ACCESS_KEY='wrong'))
        self.assertIn('ignature', found['bucket']['detail'])

    def test_a_server_that_looks_at_no_condition_is_found_out_and_refused(self):
        proxy = Proxy(self.endpoint, self.s3)
        self.addCleanup(proxy.close)
        proxy.harm('conditions-ignored')
        bad = dict(self.env, AWS_ENDPOINT_URL_S3=proxy.endpoint)
        found = self.found(self.vol, status=1, env=bad)
        for what in ('PUT if-none-match', 'PUT if-match', 'PUT if-match, missing',
                     'creators at once', 'swaps at once'):
            self.assertFalse(found[what]['ok'], found[what])
            self.assertIn('--exclusive', found[what]['remedy'])
        for what in ('writing', 'ranges with metadata', 'list after delete'):
            self.assertTrue(found[what]['ok'], found[what])
        self.assertEqual(self.keys_of(), [])

    def test_every_verb_that_changes_a_head_refuses_such_a_server_without_the_word(self):
        data = self.volume()
        for name in 'zero', 'one':
            self.objmap('snapshot', 'create', self.vol, name)
        proxy = self.proxy()
        proxy.harm('conditions-ignored')
        bad = dict(self.env, AWS_ENDPOINT_URL_S3=proxy.endpoint)
        other = 's3://%s/other' % self.bucket
        where = 'nbd+unix:///?socket=' + self.path('sock')
        path, new = self.image(name='new')
        before = self.keys_of()
        tag = self.s3.head(self.bucket, 'vol/head').etag

        def probes():
            return len(proxy.requests('put', '/probe/')) / 4
        # Each undoes what would hinder the next, when it is done by the word.
        verbs = (['create', other, '--size', '1M'], ['delete', other, '--yes'],
                 ['copy', '-q', path, other], ['copy', '-q', '--overwrite', path, self.vol],
                 ['snapshot', 'create', self.vol, 'two'], ['delete', other, '--yes'],
                 ['clone', self.vol + '@one', other], ['snapshot', 'delete', self.vol + '@zero'],
                 ['resize', self.vol, '9M'], ['rollback', self.vol + '@one', '--yes'],
                 ['delete', other, '--yes'])
        for args in verbs:
            with self.subTest(refused=args):
                proxy.forget()
                if args[1] == other and args[0] != 'create':
                    continue	# what is not there needs no word
                p = self.objmap(*args, status=1, env=bad)
                self.assertIn(b'two writers could not be told apart', p.stderr)
                self.assertIn(b'say --exclusive', p.stderr)
                self.assertEqual(probes(), 1)
        p = self.objmap('mount', self.vol, where, status=1, env=bad)
        self.assertIn(b'say --exclusive', p.stderr)
        p = self.objmap('delete', self.vol, '--yes', status=1, env=bad)
        self.assertIn(b'say --exclusive', p.stderr)
        self.assertEqual(self.keys_of(), before)
        self.assertEqual(self.s3.head(self.bucket, 'vol/head').etag, tag)
        for args in verbs:
            with self.subTest(by_the_word=args):
                proxy.forget()
                self.objmap(*args, '--exclusive', env=bad)
                heads = proxy.requests('put', '/head$')
                self.assertTrue(heads)
                self.assertEqual([r for r in heads if 'if-match' in r.header], [])
                if args[0] != 'copy':		# it creates, and opens
                    self.assertEqual(probes(), 1)
        self.assertEqual(self.read(self.vol), data)
        self.objmap('mount', self.vol, where, '--exclusive', '--log', self.path('log'),
                    env=bad)
        self.pids.append(self.status(where)['pid'])
        proxy.forget()
        self.write(where, b'x' * 4096)
        # Its daemon has probed, and has the word.
        self.objmap('snapshot', 'create', self.vol, 'three', env=bad)
        self.assertEqual(probes(), 0)
        self.write(where, b'y' * 4096)
        self.objmap('umount', where)
        self.assertEqual(self.read(self.vol), b'y' * 4096 + data[4096:])
        self.assertEqual(self.read(self.vol + '@three'), b'x' * 4096 + data[4096:])
        self.objmap('delete', self.vol, '--yes', '--exclusive', env=bad)
        self.assertEqual(self.keys_of(), ['other/head', 'vol/head'])

    def test_ranges_without_metadata_are_found_out(self):
        proxy = Proxy(self.endpoint, self.s3)
        self.addCleanup(proxy.close)
        proxy.harm('no-metadata')
        found = self.found(self.vol, status=1,
                           env=dict(self.env, AWS_ENDPOINT_URL_S3=proxy.endpoint))
        self.assertFalse(found['ranges with metadata']['ok'])
        self.assertTrue(found['PUT if-match']['ok'])

    def test_tags_that_a_get_tells_otherwise_are_found_out(self):
        proxy = Proxy(self.endpoint, self.s3)
        self.addCleanup(proxy.close)
        proxy.harm('wrong-tag', kind='get')
        found = self.found(self.vol, status=1,
                           env=dict(self.env, AWS_ENDPOINT_URL_S3=proxy.endpoint))
        self.assertFalse(found['ETags']['ok'])
        self.assertIn('than the PUT did', found['ETags']['detail'])

    def test_uploads_whose_replies_were_lost_are_found_and_aborted(self):
        for times in (1, None):		# libcurl itself sends it again after the first
            proxy = Proxy(self.endpoint, self.s3)
            self.addCleanup(proxy.close)
            proxy.harm('reply-lost', kind='create', times=times)
            found = self.found(self.vol,
                               env=dict(self.env, AWS_ENDPOINT_URL_S3=proxy.endpoint))
            self.assertEqual(found['uploads in parts']['ok'], times is not None)
            self.assertNotIn('cleaning up uploads', found)
            self.assertGreater(len(proxy.requests('create')), 1)
            self.assertEqual(list(self.s3.uploads(self.bucket)), [])
            self.assertEqual(self.keys_of(), [])

    def test_an_upload_that_it_cannot_abort_is_named(self):
        proxy = Proxy(self.endpoint, self.s3)
        self.addCleanup(proxy.close)
        proxy.harm('status', kind='copy-part', status=403, code='AccessDenied')
        rule = proxy.harm('status', kind='abort', status=403, code='AccessDenied')
        found = self.found(self.vol, env=dict(self.env, AWS_ENDPOINT_URL_S3=proxy.endpoint))
        self.assertGreater(rule.fired, 0)
        self.assertFalse(found['cleaning up uploads']['ok'])
        (key, upload), = self.s3.uploads(self.bucket)
        self.assertIn('upload to %s, id %s may be left' % (key, upload),
                      found['cleaning up uploads']['detail'])
        self.assertIn('objmap gc', found['cleaning up uploads']['remedy'])

    def test_a_signal_ends_it_and_it_cleans_up(self):
        proxy = self.proxy()		# so that it cannot end before the signal
        late = proxy.harm('reply-late', kind='put', key='/probe/', skip=1, times=1, seconds=60)
        p = self.start(OBJMAP, 'doctor', self.vol, '--json', stdout=subprocess.PIPE,
                       env=dict(self.env, AWS_ENDPOINT_URL_S3=proxy.endpoint))
        wait_for(lambda: late.fired and self.keys_of('vol/probe/'), 'objects')
        p.send_signal(signal.SIGINT)
        proxy.heal()
        self.assertEqual(p.wait(60), 1)
        p.stdout.close()
        self.assertEqual(self.keys_of(), [])


if __name__ == '__main__':
    fixtures.main()
