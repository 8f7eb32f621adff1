#!/usr/bin/python3
"""MinIO with TLS: who is believed, what is encrypted there and by whose key, and buckets
that have a host name of their own.  The long run does over TLS whatever is done without."""
import os
import re
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)
import world  # noqa: E402
import fixtures  # noqa: E402
import s3client  # noqa: E402
import test_contract  # noqa: E402
import test_object  # noqa: E402
import test_verbs  # noqa: E402
import test_volumes  # noqa: E402

MIB = 1 << 20


@fixtures.long_test
class VolumesOverTls(test_volumes.Volumes):
    over_tls = True


@fixtures.long_test
class ReadingOverTls(test_object.Reading):
    over_tls = True


@fixtures.long_test
class WritingOverTls(test_object.Writing):
    over_tls = True


@fixtures.long_test
class ServingOverTls(test_verbs.Serving):
    over_tls = True


@fixtures.long_test
class ContractOverTls(test_contract.Contract):
    over_tls = True


class TlsWorld(test_verbs.Verbs):
    over_tls = True

    def tail(self, place):
        return place.split('://', 1)[1].split('/', 1)[1].split('?')[0]

    def works(self, place, *options, **kw):
        """A volume at PLACE is copied in, mounted, written, and read back."""
        path, data = self.image(name='image-of-' + re.sub(r'\W', '', place))
        self.objmap('copy', '-q', '--verify', '--chunk-size', '64K', path, place, *options, **kw)
        where = 'nbd+unix:///?socket=' + self.path('s')
        self.objmap('mount', place, where, '--log', self.path('log'), *options, **kw)
        self.pids.append(self.status(where)['pid'])
        new = self.random.randbytes(MIB)
        self.write(where, new, MIB)
        self.objmap('umount', where)
        data = data[:MIB] + new + data[2 * MIB:]
        self.same(place, data, *options, **kw)
        self.objmap('verify', '-q', place, *options, **kw)
        return data

    def same(self, place, data, *options, **kw):
        got = self.objmap('copy', '-q', place, '-', *options, **kw).stdout
        self.assertEqual((len(got), got == data), (len(data), True))

    def refused_at_once(self, *args, **kw):
        """What it says, which fails long before --retry-for has passed."""
        begin = time.monotonic()
        said = self.objmap(*args, status=1, **kw).stderr.decode()
        self.assertLess(time.monotonic() - begin, 20, said)
        return said


class Trust(TlsWorld):
    def test_copy_mount_and_a_file_system_with_a_ca_bundle(self):
        bundle = self.env.pop('AWS_CA_BUNDLE')
        self.works(self.vol, '--ca-bundle', bundle)
        self.works('s3://%s/other?ca-bundle=%s' % (self.bucket, bundle))
        self.assertTrue(self.s3.keys(self.bucket, 'other/chunk/'))
        self.env['AWS_CA_BUNDLE'] = bundle
        self.vol += '2'
        self.carries_a_file_system()

    def test_an_object_is_read_and_written_and_a_presigned_address_is_read(self):
        data = self.random.randbytes(12 * MIB + 5)
        self.s3.put(self.bucket, 'image', data)
        where = self.mount('s3+object://%s/image' % self.bucket, '--writable')
        self.write(where, b'x' * 70000, 3 * MIB)
        self.objmap('umount', where)
        data = data[:3 * MIB] + b'x' * 70000 + data[3 * MIB + 70000:]
        self.assertEqual(self.s3.get(self.bucket, 'image').body, data)
        self.same('s3+object://%s/image' % self.bucket, data)
        self.same(self.s3.presign('GET', self.bucket, 'image'), data, '--ca-bundle',
                  self.env['AWS_CA_BUNDLE'])
        said = self.refused_at_once('copy', self.s3.presign('GET', self.bucket, 'image'), '-')
        self.assertIn('certificate', said)

    def test_nobody_else_is_believed_and_that_is_told_at_once(self):
        self.run_ok('openssl', 'req', '-x509', '-newkey', 'ec', '-pkeyopt',
                    'ec_paramgen_curve:prime256v1', '-nodes', '-keyout', self.path('k'),
                    '-out', self.path('other.pem'), '-days', '2', '-subj', '/CN=other')
        self.objmap('create', self.vol, '--size', '1M')
        self.s3.put(self.bucket, 'image', b'x' * 4096)
        where, image = self.path('disk'), self.path('image')
        with open(image, 'wb') as f:
            f.write(b'x' * 4096)
        for env in (dict(self.env, AWS_CA_BUNDLE=self.path('other.pem')),
                    {k: v for k, v in self.env.items() if k != 'AWS_CA_BUNDLE'}):
            for args in (['info', self.vol], ['mount', self.vol, where],
                         ['mount', 's3+object://%s/image' % self.bucket, where],
                         ['copy', image, self.vol + '2'], ['list', 's3://%s/' % self.bucket],
                         ['gc', self.vol]):
                said = self.refused_at_once(*args, env=env)
                self.assertIn('certificate', said)
                self.assertIn('--ca-bundle', said)
            self.assertFalse(os.path.exists(where))
        said = self.refused_at_once('info', self.vol, '--ca-bundle', self.path('none'))
        self.assertIn(self.path('none'), said)
        self.objmap('info', self.vol)

    def test_http_where_https_is_spoken_is_told_at_once(self):
        said = self.refused_at_once('info', self.vol, '--endpoint-url',
                                    self.endpoint.replace('https', 'http'))
        self.assertIn('--endpoint-url', said)


class Encrypted(TlsWorld):
    def key(self, name):
        return self.file(name, os.urandom(32))

    def test_with_a_key_of_ones_own_that_every_reader_needs(self):
        mine, other = self.key('mine'), self.key('other')
        own = ['--sse-c-key-file', mine]
        data = self.works(self.vol, *own)
        chunk = self.keys_of('vol/chunk/')[0]
        with self.assertRaises(s3client.S3Error) as e:	# it really is encrypted
            self.s3.get(self.bucket, chunk)
        self.assertEqual(e.exception.status, 400)
        self.objmap('snapshot', 'create', self.vol, 'one', *own)
        self.objmap('gc', '-q', '--grace', '0', self.vol, *own)
        self.same(self.vol + '@one', data, *own)
        for wrong in (['--sse-c-key-file', other], []):
            for args in (['info', self.vol], ['copy', self.vol, '-'],
                         ['mount', self.vol, self.path('disk')],
                         ['snapshot', 'create', self.vol, 'two']):
                said = self.refused_at_once(*args, *wrong)
                self.assertIn('--sse-c-key-file', said)
            self.assertFalse(os.path.exists(self.path('disk')))
        self.same(self.vol, data, *own)

    def test_parts_and_copies_of_parts_carry_the_key(self):
        own = ['--sse-c-key-file', self.key('mine')]
        data = self.random.randbytes(21 * MIB)
        image = self.file('image', data)
        self.objmap('copy', '-q', '--chunk-size', '16M', '--multipart-threshold', '5M',
                    '--part-size', '5M', image, self.vol, *own)
        self.same(self.vol, data, *own)
        self.assertEqual(list(self.s3.uploads(self.bucket)), [])
        # An object: the parts that do not change are copied by the server.
        with open(own[1], 'rb') as f:
            key = f.read()
        headers = s3client.sse_c(key)
        self.s3.put(self.bucket, 'image', data, headers=headers)
        place = 's3+object://%s/image' % self.bucket
        where = self.mount(place, '--writable', *own)
        self.write(where, b'y' * 5000, 17 * MIB)
        self.objmap('umount', where)
        data = data[:17 * MIB] + b'y' * 5000 + data[17 * MIB + 5000:]
        self.assertEqual(self.s3.get(self.bucket, 'image', headers=headers).body, data)
        self.same(place, data, *own)
        self.assertIn('--sse-c-key-file', self.refused_at_once('info', place))

    def test_a_key_of_ones_own_never_goes_without_tls(self):
        plain = self.endpoint.replace('https', 'http')
        p = self.objmap('create', self.vol, '--size', '1M', '--endpoint-url', plain,
                        '--sse-c-key-file', self.key('mine'), status=2)
        self.assertIn(b'only sent over https', p.stderr)

    def test_with_keys_of_the_servers(self):
        for n, (options, header) in enumerate((
                (['--sse', 'AES256'], 'AES256'), (['--sse', 'aws:kms'], 'aws:kms'),
                (['--sse', 'aws:kms', '--sse-kms-key', 'test-key'], 'aws:kms'))):
            place = self.vol + str(n)
            data = self.works(place, *options)
            for key in self.keys_of(self.tail(place) + '/'):
                found = self.s3.head(self.bucket, key).headers
                self.assertEqual(found.get('x-amz-server-side-encryption'), header, key)
            if header == 'aws:kms':
                self.assertIn('test-key',
                              found['x-amz-server-side-encryption-aws-kms-key-id'])
            self.same(place, data)		# whoever may read needs no word
        image = self.file('image', self.random.randbytes(17 * MIB))
        self.objmap('copy', '-q', '--verify', '--chunk-size', '16M', '--part-size', '5M', image,
                    self.vol, '--sse', 'AES256')
        said = self.refused_at_once('create', self.vol + 'x', '--size', '1M', '--sse', 'aws:kms',
                                    '--sse-kms-key', 'no-such-key')
        self.assertIn('key with given key ID does not exist', said)


class Names(TlsWorld):
    """BUCKET.ENDPOINT: the bucket in the host name."""

    def test_a_bucket_with_a_host_name_of_its_own(self):
        p = self.proxy()
        endpoint = 'https://s3.localhost:%d' % p.port
        options = ['--addressing', 'virtual', '--endpoint-url', endpoint]
        self.works(self.vol, *options)
        self.objmap('gc', '-q', '--grace', '0', self.vol, *options)
        listed = self.objmap('list', 's3://%s/' % self.bucket, *options).stdout
        self.assertIn(b'/vol', listed)
        self.assertEqual({r.header['host'] for r in p.requests()},
                         {'%s.s3.localhost:%d' % (self.bucket, p.port)})
        self.assertGreater(len(p.requests()), 40)
        # The same volume by the other name.
        self.objmap('verify', '-q', self.vol)

    def test_and_without_tls_its_signature_covers_that_name(self):
        p = world.proxy.Proxy(self.endpoint, self.s3)
        self.addCleanup(p.close)
        self.works(self.vol, '--addressing', 'virtual', '--endpoint-url',
                   'http://s3.localhost:%d' % p.port)
        self.assertEqual({r.header['host'] for r in p.requests()},
                         {'%s.s3.localhost:%d' % (self.bucket, p.port)})
        self.assertNotIn('UNSIGNED-PAYLOAD',
                         {r.header['x-amz-content-sha256'] for r in p.requests('put')})

    def test_a_bucket_that_is_not_there_is_told_by_either_name(self):
        for options in (['--addressing', 'virtual', '--endpoint-url',
                         self.endpoint.replace('127.0.0.1', 's3.localhost')], []):
            said = self.refused_at_once('info', 's3://om-no-such-bucket/v', *options)
            self.assertIn('NoSuchBucket', said)


if __name__ == '__main__':
    fixtures.main()
