#!/usr/bin/python3
"""What objmap writes into a bucket is what clients of other make find there, byte by
byte; what they copy is a volume; what they upload is a device."""
import json
import os
import random
import re
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)
import world  # noqa: E402
import fixtures  # noqa: E402

RESCUE = os.path.join(fixtures.BUILD, 'objmap-rescue')
K, M = 1 << 10, 1 << 20


class Client:
    """One client, with its configuration in the test's own folder."""

    def __init__(self, test):
        self.test = test
        fixtures.require(self.program)
        # Debian's own, whatever else is on PATH.
        self.env = dict(test.env, PATH='/usr/bin:/bin', AWS_DEFAULT_REGION='us-east-1')

    def run(self, *args):
        return self.test.run_ok(self.program, *args, env=self.env, timeout=180
                                ).stdout.decode()


class Aws(Client):
    program = 'aws'

    def run(self, *args):
        return super().run('--endpoint-url', self.test.endpoint, *args)

    def download(self, bucket, prefix, folder):
        self.run('s3', 'cp', '--quiet', '--recursive', 's3://%s/%s' % (bucket, prefix),
                 folder)

    def duplicate(self, bucket, prefix, other):
        self.run('s3', 'cp', '--quiet', '--recursive', 's3://%s/%s' % (bucket, prefix),
                 's3://%s/%s' % (bucket, other))

    def metadata(self, bucket, key):
        return json.loads(self.run('s3api', 'head-object', '--bucket', bucket, '--key', key,
                                   '--output', 'json'))['Metadata']

    def upload(self, path, bucket, key):
        self.run('s3', 'cp', '--quiet', path, 's3://%s/%s' % (bucket, key))

    def fetch(self, bucket, key, path):
        self.run('s3', 'cp', '--quiet', 's3://%s/%s' % (bucket, key), path)


class S3cmd(Client):
    program = 's3cmd'

    def __init__(self, test):
        super().__init__(test)
        host = test.endpoint.partition('://')[2]
        with open(test.path('.s3cfg'), 'w') as f:
            os.fchmod(f.fileno(), 0o600)
            f.write('[default]\naccess_key = %s\nsecret_key = %s\nhost_base = %s\n'
                    'host_bucket = %s\nuse_https = False\n' % (
                        test.keys['AWS_ACCESS_KEY_ID'],
                        test.keys['AWS_SECRET_ACCESS_KEY'], host, host))

    def download(self, bucket, prefix, folder):
        self.run('get', '--quiet', '--recursive', 's3://%s/%s/' % (bucket, prefix),
                 folder + '/')

    def duplicate(self, bucket, prefix, other):
        self.run('cp', '--quiet', '--recursive', 's3://%s/%s/' % (bucket, prefix),
                 's3://%s/%s/' % (bucket, other))

    def metadata(self, bucket, key):
        lines = self.run('info', 's3://%s/%s' % (bucket, key))
        return dict(re.findall(r'x-amz-meta-(\S+): +(\S+)', lines))

    def upload(self, path, bucket, key):
        self.run('put', '--quiet', '--multipart-chunk-size-mb=5', path,
                 's3://%s/%s' % (bucket, key))

    def fetch(self, bucket, key, path):
        self.run('get', '--quiet', 's3://%s/%s' % (bucket, key), path)


class Rclone(Client):
    program = 'rclone'

    def __init__(self, test):
        super().__init__(test)
        self.env.update(RCLONE_CONFIG_M_TYPE='s3', RCLONE_CONFIG_M_PROVIDER='Minio',
                        RCLONE_CONFIG_M_ENV_AUTH='true', RCLONE_RETRIES='1',
                        RCLONE_CONFIG_M_ENDPOINT=test.endpoint,
                        RCLONE_S3_UPLOAD_CUTOFF='8M', RCLONE_S3_CHUNK_SIZE='5M')

    def download(self, bucket, prefix, folder):
        self.run('copy', 'm:%s/%s' % (bucket, prefix), folder)

    def duplicate(self, bucket, prefix, other):
        self.run('copy', '--metadata', 'm:%s/%s' % (bucket, prefix),
                 'm:%s/%s' % (bucket, other))

    def metadata(self, bucket, key):
        return json.loads(self.run('lsjson', '--stat', '--metadata',
                                   'm:%s/%s' % (bucket, key)))['Metadata']

    def upload(self, path, bucket, key):
        self.run('copyto', path, 'm:%s/%s' % (bucket, key))

    def fetch(self, bucket, key, path):
        self.run('copyto', 'm:%s/%s' % (bucket, key), path)


class Interop(world.MinioWorld):
    def setUp(self):
        super().setUp()
        self.rng = random.Random(fixtures.SEED)

    def clients(self):
        return [kind(self) for kind in (Aws, S3cmd, Rclone)]

    def place(self, prefix):
        return 's3://%s/%s' % (self.bucket, prefix)

    def file(self, name, content):
        with open(self.path(name), 'wb') as f:
            f.write(content)
        return self.path(name)

    def content(self, path):
        with open(path, 'rb') as f:
            return f.read()

    def volume(self, prefix, chunk):
        """A hole, a chunk, and one that is not full; what was written."""
        image = bytes(chunk) + self.rng.randbytes(chunk) + self.rng.randbytes(1000)
        self.objmap('copy', '--quiet', '--chunk-size', str(chunk),
                    self.file('image', image), self.place(prefix))
        return image

    # ---- what objmap wrote ---------------------------------------------------------------

    def test_clients_find_every_byte_that_objmap_wrote(self):
        for chunk in (64 * K, M, 16 * M):	# the last by multipart uploads
            prefix = 'v%d' % chunk
            image = self.volume(prefix, chunk)
            for client in self.clients():
                with self.subTest(client.program):
                    folder = self.path('%s-%d' % (client.program, chunk))
                    os.mkdir(folder)
                    client.download(self.bucket, prefix, folder)
                    found = sorted(os.path.relpath(os.path.join(d, f), folder)
                                   for d, _, files in os.walk(folder) for f in files)
                    self.assertEqual([prefix + '/' + f for f in found],
                                     sorted(self.s3.keys(self.bucket, prefix + '/')))
                    chunks = [f for f in found if f.startswith('chunk/')]
                    self.assertEqual(len(chunks), 2)
                    for each in chunks:
                        at = int(each.split('/')[2][:8], 16) * chunk
                        expected = image[at:at + chunk]
                        self.assertTrue(self.content(folder + '/' + each) ==
                                        expected + bytes(chunk - len(expected)), each)

    def test_clients_show_the_metadata_of_a_chunk(self):
        self.volume('v', 64 * K)
        key = self.s3.keys(self.bucket, 'v/chunk/')[0]
        expected = self.s3.head(self.bucket, key).metadata
        self.assertEqual(sorted(expected), ['objmap-frames', 'objmap-volume'])
        for client in self.clients():
            with self.subTest(client.program):
                found = client.metadata(self.bucket, key)
                self.assertEqual({name: found[name] for name in expected}, expected)

    def test_a_prefix_copied_by_a_client_is_a_volume(self):
        for chunk in (M, 16 * M):
            image = self.volume('v%d' % chunk, chunk)
            self.objmap('snapshot', 'create', self.place('v%d' % chunk), 's')
            for client in self.clients():
                with self.subTest(client.program):
                    copy = '%s-%d' % (client.program, chunk)
                    client.duplicate(self.bucket, 'v%d' % chunk, copy)
                    self.objmap('verify', '--quiet', self.place(copy))
                    for what in (copy, copy + '@s'):
                        self.objmap('copy', '--quiet', '--overwrite', self.place(what),
                                    self.path('out'))
                        self.assertTrue(self.content(self.path('out')) == image)
                        self.run_ok(RESCUE, '--overwrite', self.bucket, what,
                                    self.path('out'))
                        self.assertTrue(self.content(self.path('out')) == image)

    # ---- what others wrote -----------------------------------------------------------------

    def mounted(self, place, *run, options=()):
        uri = 'nbd+unix:///x?socket=' + self.path('socket')
        self.objmap('mount', place, uri, *options, '--run',
                    *[uri if word == 'URI' else word for word in run])

    def test_an_image_uploaded_by_a_client_is_a_device(self):
        image = self.rng.randbytes(12 * M) + bytes(M) + self.rng.randbytes(12345)
        path = self.file('image', image)
        for client in self.clients():
            with self.subTest(client.program):
                key = 'images/%s +ü=1.img' % client.program
                client.upload(path, self.bucket, key)
                self.assertIn('-', self.s3.head(self.bucket, key).etag)	# in parts
                place = 's3+object://%s/%s' % (self.bucket, key)
                self.objmap('copy', '--quiet', '--overwrite', '--verify', place,
                            self.path('out'))
                self.assertTrue(self.content(self.path('out')) == image)
                self.mounted(place, 'nbdcopy', 'URI', self.path('read'))
                self.assertTrue(self.content(self.path('read')) == image)
                self.objmap('copy', '--quiet', place, self.place(client.program))
                self.run_ok(RESCUE, '--overwrite', self.bucket, client.program,
                            self.path('out'))
                self.assertTrue(self.content(self.path('out')) == image)

    def test_clients_fetch_what_objmap_wrote_into_their_image(self):
        image = bytearray(self.rng.randbytes(12 * M + 12345))
        path = self.file('image', image)
        script = 'import nbd, sys; h = nbd.NBD(); h.connect_uri(sys.argv[1]); ' \
            'h.pwrite(b"changed" * 100, 6 << 20); h.flush(); h.shutdown()'
        image[6 * M:6 * M + 700] = b'changed' * 100
        for client in self.clients():
            with self.subTest(client.program):
                key = client.program + '.img'
                client.upload(path, self.bucket, key)
                before = self.s3.head(self.bucket, key).etag
                self.mounted('s3+object://%s/%s' % (self.bucket, key), '/usr/bin/python3',
                             '-c', script, 'URI', options=['--writable'])
                self.assertNotEqual(self.s3.head(self.bucket, key).etag, before)
                out = self.path('out-' + client.program)
                client.fetch(self.bucket, key, out)
                self.assertTrue(self.content(out) == image)


if __name__ == '__main__':
    fixtures.main()
