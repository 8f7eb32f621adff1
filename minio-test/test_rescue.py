#!/usr/bin/python3
"""objmap-rescue gives back every byte that objmap wrote, and names whatever is missing,
altered or truncated instead of giving it."""
import os
import random
import re
import subprocess
import sys
import threading

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)
import world  # noqa: E402
import fixtures  # noqa: E402
import proxy  # noqa: E402
import s3client  # noqa: E402

RESCUE = os.path.join(fixtures.BUILD, 'objmap-rescue')
K, M = 1 << 10, 1 << 20


def image_of(chunk, nr_chunks, seed, tail=12345):
    """Random chunks, holes between them, and a last chunk that is not full."""
    rng = random.Random(seed)
    parts = [rng.randbytes(chunk) if i % 3 else bytes(chunk) for i in range(nr_chunks)]
    return bytearray(b''.join(parts) + rng.randbytes(tail))


class RescueWorld(world.MinioWorld):
    def setUp(self):
        super().setUp()
        if not os.path.exists(RESCUE):
            self.fail('objmap-rescue is not built (contrib/check.sh installs libs3-dev)')
        self.rng = random.Random(fixtures.SEED)

    # ---- volumes, written by objmap ---------------------------------------------------

    def place(self, name):
        return 's3://%s/%s' % (self.bucket, name)

    def copy(self, image, name, *options):
        with open(self.path('image'), 'wb') as f:
            f.write(image)
        self.objmap('copy', '--quiet', self.path('image'), self.place(name), *options)

    def volume(self, name, image, chunk=64 * K):
        self.copy(image, name, '--chunk-size', str(chunk))

    def write(self, name, offset, data):
        """Writes some bytes into a volume as it is."""
        uri = 'nbd+unix:///v?socket=' + self.path('socket')
        script = 'import nbd, sys; h = nbd.NBD(); h.connect_uri(sys.argv[1]); ' \
            'h.pwrite(bytes.fromhex(sys.argv[3]), int(sys.argv[2])); h.shutdown()'
        self.objmap('mount', self.place(name), uri, '--run', '/usr/bin/python3',
                    '-c', script, uri, str(offset), data.hex())

    # ---- what objmap-rescue says and does --------------------------------------------

    def rescue(self, *args, status=0, endpoint=None, timeout=120, env=None):
        env = dict(self.env if env is None else env)
        if endpoint:
            env['AWS_ENDPOINT_URL_S3'] = endpoint
        p = subprocess.run([RESCUE, *args], env=env, capture_output=True,
                           timeout=timeout, stdin=subprocess.DEVNULL)
        said = p.stderr.decode()
        self.assertEqual(p.returncode, status, said + p.stdout.decode())
        return p.stdout.decode(), said

    def restored(self, name, snapshot='', **kw):
        """What comes out, the bad ranges, and what was said."""
        out = self.path('out')
        printed, said = self.rescue('--overwrite', self.bucket, name + snapshot, out, **kw)
        bad = [tuple(map(int, line.split()[1:])) for line in printed.splitlines()]
        with open(out, 'rb') as f:
            return f.read(), bad, said

    def assert_image(self, found, image):
        if found != image:
            self.assertEqual(len(found), len(image))
            at = next(i for i in range(len(image)) if found[i] != image[i])
            self.fail('byte %d differs' % at)

    def assert_rest(self, found, image, bad):
        """All is right but the BAD ranges, and these are zeros."""
        image = bytearray(image)
        for offset, count in bad:
            image[offset:offset + count] = bytes(count)
        self.assert_image(found, image)

    def chunk_key(self, name, index):
        keys = self.s3.keys(self.bucket, '%s/chunk/%02x/%08x-' % (
            name, index & 255, index))
        self.assertEqual(len(keys), 1, keys)
        return keys[0]

    def change(self, key, change, metadata=None):
        """Puts CHANGE(content) in the place of an object."""
        old = self.s3.get(self.bucket, key)
        self.s3.put(self.bucket, key, change(bytearray(old.body)),
                    metadata=old.metadata if metadata is None else metadata)

    def flip(self, offset):
        def change(body):
            body[offset] ^= 1
            return body
        return change


class Whole(RescueWorld):
    """What is undamaged comes back to the byte."""

    def test_volumes_of_all_chunk_sizes(self):
        for chunk, nr in ((64 * K, 20), (M, 7), (16 * M, 3)):
            with self.subTest(chunk=chunk):
                image = image_of(chunk, nr, fixtures.SEED)
                self.volume('v%d' % chunk, image, chunk)
                found, bad, said = self.restored('v%d' % chunk)
                self.assert_image(found, image)
                self.assertEqual(bad, [])
                self.assertIn('%d chunks restored, 0 of them bad' % (nr - (nr + 2) // 3 + 1),
                              said)

    def test_holes_stay_holes(self):
        image = bytearray(64 * M + 1)
        image[40 * M:40 * M + 5] = b'hello'
        self.volume('v', image, M)
        found, _, _ = self.restored('v')
        self.assert_image(found, image)
        self.assertLess(os.stat(self.path('out')).st_blocks * 512, 2 * M)

    def test_snapshots_and_clones_of_clones(self):
        first = image_of(64 * K, 12, 1)
        self.copy(first, 'v', '--chunk-size', '64K')
        self.objmap('snapshot', 'create', self.place('v'), 'monday')
        second = bytearray(first)
        second[5 * 64 * K:5 * 64 * K + 9] = b'on sunday'
        second[0:9] = b'no hole !'
        self.copy(second, 'v', '--overwrite')
        self.objmap('clone', self.place('v') + '@monday', self.place('c'))
        third = bytearray(first)
        third[7 * 64 * K:7 * 64 * K + 4] = b'mine'
        self.write('c', 7 * 64 * K, b'mine')
        self.objmap('snapshot', 'create', self.place('c'), 'a b')
        self.objmap('clone', self.place('c') + '@a b', self.place('d'))
        fourth = bytearray(third)
        fourth[-4:] = b'tail'
        self.write('d', len(fourth) - 4, b'tail')
        # What was not written lies under the parents' prefixes.
        for name in 'cd':
            self.assertEqual(len(self.s3.keys(self.bucket, name + '/chunk/')), 1)
        for name, snapshot, image in (('v', '', second), ('v', '@monday', first),
                                      ('c', '', third), ('c', '@a b', third),
                                      ('d', '', fourth)):
            with self.subTest(name=name, snapshot=snapshot):
                found, bad, _ = self.restored(name, snapshot)
                self.assert_image(found, image)
        printed, _ = self.rescue('--list', self.bucket, 'v')
        kinds = [line.split('\t')[:2] for line in printed.splitlines()]
        self.assertEqual(kinds[1:], [['snapshot', 'monday'], ['clone', 'c']])
        printed, said = self.rescue(self.bucket, 'v@tuesday',
                                    self.path('none'), status=1)
        self.assertIn('no snapshot tuesday', said)
        self.assertFalse(os.path.exists(self.path('none')))

    def test_a_prefix_with_marks_in_it(self):
        image = image_of(64 * K, 2, 8)
        self.volume('hosts/a%40b%25+ü', image)
        self.assertTrue(self.s3.exists(self.bucket, 'hosts/a@b%+ü/head'))
        found, _, _ = self.restored('hosts/a%40b%25+ü')
        self.assert_image(found, image)
        self.volume('a b', image)
        _, said = self.rescue('--list', self.bucket, 'a b', status=1)
        self.assertIn('a space', said)

    def test_a_map_with_nodes(self):
        image = image_of(64 * K, 1100, 2)	# more than recent has room for
        self.volume('v', image)
        self.assertTrue(self.s3.keys(self.bucket, 'v/map/'))
        found, _, _ = self.restored('v')
        self.assert_image(found, image)

    def test_a_block_device_keeps_nothing_old(self):
        fixtures.require('root', 'loop')
        image = image_of(64 * K, 9, 3, tail=512)
        self.volume('v', image)
        self.s3.delete(self.bucket, self.chunk_key('v', 4))
        with open(self.path('disk'), 'wb') as f:
            f.write(b'\xee' * (len(image) + 4096))
        device = self.run_ok('losetup', '-f', '--show', self.path('disk')
                             ).stdout.decode().strip()
        self.addCleanup(self.run_ok, 'losetup', '-d', device)
        self.rescue(self.bucket, 'v', device, status=1)	# no --overwrite
        self.rescue('--overwrite', self.bucket, 'v', device, status=1)
        with open(device, 'rb') as f:
            found = f.read()
        self.assert_rest(found[:len(image)], image, [(4 * 64 * K, 64 * K)])
        self.assertEqual(found[len(image):], b'\xee' * 4096)

    def test_a_device_that_is_too_small_is_left_alone(self):
        fixtures.require('root', 'loop')
        self.volume('v', image_of(64 * K, 9, 3))
        with open(self.path('disk'), 'wb') as f:
            f.write(b'\xee' * (64 * K))
        device = self.run_ok('losetup', '-f', '--show', self.path('disk')
                             ).stdout.decode().strip()
        self.addCleanup(self.run_ok, 'losetup', '-d', device)
        self.rescue('--overwrite', self.bucket, 'v', device, status=1)
        with open(device, 'rb') as f:
            self.assertEqual(f.read(), b'\xee' * (64 * K))


class Damaged(RescueWorld):
    """One volume of 64 KiB chunks (a frame each) and one of 1 MiB (16 frames)."""

    def setUp(self):
        super().setUp()
        self.image = image_of(64 * K, 20, fixtures.SEED)

    def expect(self, name, image, ranges, *words, **kw):
        found, bad, said = self.restored(name, status=1, **kw)
        self.assertEqual(bad, ranges, said)
        self.assert_rest(found, image, ranges)
        for word in words:
            self.assertIn(word, said)
        printed, _ = self.rescue('--check', self.bucket, name, status=1,
                                 endpoint=kw.get('endpoint'))
        self.assertEqual(printed, ''.join('bad %d %d\n' % each for each in ranges))
        return said

    def test_missing_chunks(self):
        self.volume('v', self.image)
        keys = [self.chunk_key('v', i) for i in (4, 5, 20)]
        for key in keys:
            self.s3.delete(self.bucket, key)
        said = self.expect('v', self.image, [(4 * 64 * K, 128 * K), (20 * 64 * K, 12345)],
                           'chunk 4, bytes %d to %d: ' % (4 * 64 * K, 5 * 64 * K - 1),
                           'chunk 20, bytes %d to %d: ' % (20 * 64 * K,
                                                          20 * 64 * K + 12344),
                           '3 of them bad')
        for key in keys:
            self.assertIn('%s/%s: it is missing' % (self.bucket, key), said)

    def test_an_altered_byte_costs_its_frame_alone(self):
        image = image_of(M, 4, 5)
        self.volume('v', image, M)
        self.change(self.chunk_key('v', 2), self.flip(3 * 64 * K + 17))
        self.expect('v', image, [(2 * M + 3 * 64 * K, 64 * K)], 'chunk 2,', 'altered',
                    'first frame 3')

    def test_a_truncated_chunk_costs_its_end(self):
        image = image_of(M, 4, 6)
        self.volume('v', image, M)
        key = self.chunk_key('v', 1)
        self.change(key, lambda body: body[:5 * 64 * K + 1])
        self.expect('v', image, [(M + 5 * 64 * K, 11 * 64 * K)], key,
                    'truncated: %d bytes, not %d' % (5 * 64 * K + 1, M))

    def test_a_chunk_that_grew_or_is_empty(self):
        self.volume('v', self.image)
        self.change(self.chunk_key('v', 1), lambda body: body + b'more')
        self.change(self.chunk_key('v', 2), lambda body: b'')
        self.expect('v', self.image, [(64 * K, 128 * K)], 'more than the 65536',
                    'truncated: 0 bytes')

    def test_metadata_that_is_wrong_or_missing(self):
        self.volume('v', self.image)
        frames = self.s3.head(self.bucket, self.chunk_key('v', 1)).metadata['objmap-frames']
        uuid = self.s3.head(self.bucket, self.chunk_key('v', 1)).metadata['objmap-volume']
        for index, metadata in ((1, {}), (4, {'objmap-volume': uuid}), (7, {
                'objmap-volume': uuid[::-1], 'objmap-frames': frames}), (10, {
                    'objmap-volume': uuid, 'objmap-frames': frames})):
            self.change(self.chunk_key('v', index), lambda body: body, metadata)
        self.expect('v', self.image, [(i * 64 * K, 64 * K) for i in (1, 4, 7, 10)],
                    'without its x-amz-meta-objmap-', 'no frame table', 'another volume',
                    'frame table is not the one')

    def test_another_chunk_in_its_place(self):
        self.volume('v', self.image)
        one, two = self.chunk_key('v', 1), self.chunk_key('v', 2)
        other = self.s3.get(self.bucket, two)
        self.s3.put(self.bucket, one, other.body, metadata=other.metadata)
        self.expect('v', self.image, [(64 * K, 64 * K)], 'chunk 1,')

    def test_a_node_takes_its_chunks_along(self):
        image = image_of(64 * K, 1100, 7)
        self.volume('v', image)
        nodes = self.s3.keys(self.bucket, 'v/map/0/00000000-')
        # Chunks that changed since are in head, and are not lost.
        second = bytearray(image)
        second[100 * 64 * K:100 * 64 * K + 3] = b'new'
        self.write('v', 100 * 64 * K, b'new')
        after = self.s3.keys(self.bucket, 'v/map/0/00000000-')
        self.assertEqual(after, nodes)
        keep = self.s3.get(self.bucket, nodes[-1])
        damages = (('missing', lambda: self.s3.delete(self.bucket, nodes[-1])),
                   ('length and checksum', lambda: self.s3.put(
                       self.bucket, nodes[-1], self.flip(999)(bytearray(keep.body)))))
        for word, damage in damages:
            with self.subTest(word):
                damage()
                found, bad, said = self.restored('v', status=1)
                self.assertEqual(bad[0][0], 0)
                self.assertEqual(bad[-1][0] + bad[-1][1], 1024 * 64 * K)
                lost = sum(count for _, count in bad)
                self.assert_rest(found, second, bad)
                self.assertEqual(found[100 * 64 * K:101 * 64 * K],
                                 second[100 * 64 * K:101 * 64 * K])
                self.assertGreaterEqual(lost, 64 * K * 512)
                self.assertIn(nodes[-1] + ': ', said)
                self.assertIn('with it goes the way to bytes 0 to %d' % (
                    1024 * 64 * K - 1), said)

    def test_head_list_and_body(self):
        self.copy(self.image, 'v', '--chunk-size', '64K')
        self.objmap('snapshot', 'create', self.place('v'), 's')
        objects = {'head': self.s3.keys(self.bucket, 'v/head'),
                   'list': self.s3.keys(self.bucket, 'v/snapshot/list-'),
                   'body': self.s3.keys(self.bucket, 'v/snapshot/body-')}
        damages = [(self.flip(40), 'checksum is wrong'),
                   (lambda body: body[:-1], 'bytes long but says'),
                   (lambda body: b'', 'does not begin with OBJM'),
                   (lambda body: os.urandom(70000), ''),
                   (lambda body: b'<html>not what you wanted</html>', 'does not begin')]
        for what, keys in objects.items():
            self.assertEqual(len(keys), 1)
            keep = self.s3.get(self.bucket, keys[0])
            for damage, words in damages:
                with self.subTest(what, words=words):
                    self.s3.put(self.bucket, keys[0], damage(bytearray(keep.body)))
                    _, said = self.rescue(self.bucket, 'v@s', self.path('none'),
                                          status=1)
                    self.assertIn(keys[0] + ': ', said)
                    self.assertIn(words, said)
                    self.assertFalse(os.path.exists(self.path('none')))
            self.s3.delete(self.bucket, keys[0])
            _, said = self.rescue(self.bucket, 'v@s', self.path('none'), status=1)
            self.assertIn(keys[0] + ': it is missing', said)
            self.s3.put(self.bucket, keys[0], keep.body)
        self.rescue(self.bucket, 'v@s', self.path('good'))

    def test_a_deleted_volume_is_said_to_be(self):
        self.copy(self.image, 'v', '--chunk-size', '64K')
        self.objmap('delete', '--yes', self.place('v'))
        _, said = self.rescue(self.bucket, 'v', self.path('out'), status=1)
        self.assertIn('was deleted', said)


class OnTheWay(RescueWorld):
    """The store is sound, and the network is not."""

    def setUp(self):
        super().setUp()
        self.image = image_of(64 * K, 12, fixtures.SEED)
        self.volume('v', self.image)
        self.proxy = proxy.Proxy(self.endpoint, self.s3)
        self.addCleanup(self.proxy.close)

    def test_few_chunks_among_many_holes_are_each_fetched_once_to_their_place(self):
        image = bytearray(64 * M)
        for chunk in range(0, 1024, 146):
            image[chunk * 64 * K:(chunk + 1) * 64 * K] = self.rng.randbytes(64 * K)
        self.volume('holes', image)
        for _ in range(5):
            self.proxy.forget()
            found, bad, _ = self.restored('holes', endpoint=self.proxy.endpoint)
            self.assertTrue(found == image, 'the restored image is another one')
            self.assertEqual(bad, [])
            self.assertEqual(len(self.proxy.requests(kind='get', key='/chunk/')), 8)

    def test_what_happens_once_does_not_matter(self):
        for key in ('/head', '/chunk/'):
            for harm in ('cut', 'short', 'long', 'until-close', 'corrupt', 'reset-before',
                         'reset-in-head', 'reset-after-head', 'reset-in-body', 'status',
                         'error-in-200', 'empty-200', 'garbage', 'portal', 'no-metadata',
                         'drip'):
                with self.subTest(harm, key=key):
                    if key == '/head' and harm == 'no-metadata':
                        continue	# has none
                    rule = self.proxy.harm(harm, kind='get', key=key, times=1)
                    found, bad, said = self.restored('v', endpoint=self.proxy.endpoint)
                    self.assertEqual(rule.fired, 1)
                    self.proxy.heal()
                    self.assert_image(found, self.image)

    def test_a_body_that_is_always_cut_is_never_taken_for_whole(self):
        key = self.chunk_key('v', 5)
        for harm, words in (('cut', 'its body is cut: 32768 bytes came of 65536'),
                            ('short', 'it is truncated: 32768 bytes, not 65536'),
                            ('until-close', 'it is truncated: 32768 bytes, not 65536'),
                            ('corrupt', 'it is altered'),
                            ('not-found', 'it is missing'),
                            ('status', 'the store does not give it')):
            with self.subTest(harm):
                self.proxy.heal()
                rule = self.proxy.harm(harm, kind='get', key=key)
                found, bad, said = self.restored('v', status=1,
                                                 endpoint=self.proxy.endpoint)
                self.assertGreater(rule.fired, 0)
                self.assertEqual(bad, [(5 * 64 * K, 64 * K)])
                self.assert_rest(found, self.image, bad)
                self.assertIn('%s/%s: %s' % (self.bucket, key, words), said)

    def test_a_store_that_goes_away_ends_it(self):
        away = self.proxy.harm('stall', kind='get', key='/chunk/', skip=2)
        stop = threading.Thread(target=lambda: fixtures.wait_for(
            lambda: away.fired, 'the third chunk') and self.proxy.close())
        stop.start()
        found, bad, said = self.restored('v', status=1, endpoint=self.proxy.endpoint)
        stop.join()
        self.assertIn('stopped; nothing from byte', said)
        self.assertEqual(len(bad), 1)
        self.assertEqual(sum(bad[0]), len(self.image))
        self.assertEqual(found[:bad[0][0]], self.image[:bad[0][0]])

    def test_nobody_there(self):
        url = 'http://127.0.0.1:%d' % fixtures.free_port()
        _, said = self.rescue('--list', self.bucket, 'v', status=1, endpoint=url)
        self.assertIn('FailedToConnect', said)


class Keys(RescueWorld):
    def setUp(self):
        super().setUp()
        self.volume('v', image_of(64 * K, 3, 1))
        self.bare = {k: v for k, v in self.env.items() if not k.startswith('AWS_')}

    def check(self, env, *args, status=0):
        return self.rescue('--check', *args, self.bucket, 'v', env=env,
                           status=status)[1]

    def test_keys_come_from_the_shared_file(self):
        env = dict(self.bare, AWS_ENDPOINT_URL=self.endpoint)
        os.makedirs(self.path('.aws'))
        with open(self.path('.aws/credentials'), 'w') as f:
            f.write('# a comment\n[other]\naws_access_key_id = x\n'
                    'aws_secret_access_key = y\n\n[default]\naws_access_key_id = %s\n'
                    'aws_secret_access_key=%s\n' % (self.keys['AWS_ACCESS_KEY_ID'],
                                                    self.keys['AWS_SECRET_ACCESS_KEY']))
        self.check(env)
        self.assertIn('InvalidAccessKeyId', self.check(dict(env, AWS_PROFILE='other'),
                                                       status=1))
        self.assertIn('no profile', self.check(dict(env, AWS_PROFILE='none'), status=1))

    def test_wrong_half_and_no_keys(self):
        env = dict(self.env, AWS_SECRET_ACCESS_KEY='wrong')
        self.assertIn('SignatureDoesNotMatch', self.check(env, status=1))
        env.pop('AWS_SECRET_ACCESS_KEY')
        self.assertIn('secret is missing', self.check(env, status=1))
        env = dict(self.env, AWS_SESSION_TOKEN='t')
        self.assertIn('session token', self.check(env, status=1))
        self.assertIn('access key', self.check(self.bare, '--endpoint-url', self.endpoint,
                                               status=1))

    def test_a_bucket_that_is_not_there(self):
        _, said = self.rescue('--list', 'no-such-bucket', 'v', status=1)
        self.assertIn('NoSuchBucket', said)


class Usage(RescueWorld):
    def test_wrong_usage_is_status_2_and_touches_nothing(self):
        for args in (['b'], ['bkt', 'v'], ['bkt', 'v', 'f', 'g'], ['--lists', 'bkt', 'v'],
                     ['--check', 'bkt', 'v', 'f'], ['--list', '--check', 'bkt', 'v'],
                     ['--list', 'bkt', 'v@s'], ['bkt', 'v@', 'f'],
                     ['--connections', '0', 'bkt', 'v', 'f'],
                     ['--connections', '65', 'bkt', 'v', 'f'],
                     ['--connections', '-1', 'bkt', 'v', 'f'],
                     ['--endpoint-url', 'https://127.0.0.1', 'bkt', 'v', 'f'],
                     ['--endpoint-url', 'ftp://127.0.0.1', 'bkt', 'v', 'f'],
                     ['--endpoint-url', 'http://', 'bkt', 'v', 'f'],
                     ['--endpoint-url', 'http://k:s@127.0.0.1', 'bkt', 'v', 'f'],
                     ['--endpoint-url', 'http://127.0.0.1/base', 'bkt', 'v', 'f'],
                     ['not a bucket', 'v', 'f']):
            with self.subTest(args):
                _, said = self.rescue(*args, status=2)
                self.assertRegex(said, '^(objmap-rescue: |.*see objmap-rescue)')
        env = {k: v for k, v in self.env.items() if not k.startswith('AWS_ENDPOINT')}
        self.assertIn('no endpoint', self.rescue('bkt', 'v', 'f', status=2, env=env)[1])
        self.assertIn('TLS', self.rescue('--endpoint-url', 'https://h', 'bkt', 'v', 'f',
                                         status=2)[1])

    def test_help_names_every_option_of_the_manual(self):
        printed, _ = self.rescue('--help')
        with open(os.path.join(fixtures.TOP, 'man', 'objmap-rescue.1')) as f:
            manual = f.read().replace('\\-', '-')
        options = set(re.findall(r'--[a-z-]+', manual[:manual.index('.SH ENVIRONMENT')]))
        self.assertEqual(set(re.findall(r'--[a-z-]+', printed)), options)
        self.assertGreater(len(options), 7)

    def test_an_existing_file_is_kept(self):
        self.volume('v', image_of(64 * K, 3, 1))
        with open(self.path('f'), 'w') as f:
            f.write('precious')
        _, said = self.rescue(self.bucket, 'v', self.path('f'), status=1)
        self.assertIn('--overwrite', said)
        with open(self.path('f')) as f:
            self.assertEqual(f.read(), 'precious')


if __name__ == '__main__':
    fixtures.main()
