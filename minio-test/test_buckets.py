#!/usr/bin/python3
"""Buckets as people have them: keys that are wrong or may do little, rights that are
taken away, buckets that are not there, clocks that are off, rules that delete.  Each
with verbs and with mounts, which must say why, at once, or wait."""
import json
import os
import re
import subprocess
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)
import world  # noqa: E402
import fixtures  # noqa: E402
import s3client  # noqa: E402
import test_verbs  # noqa: E402
from fixtures import wait_for  # noqa: E402
import nbd  # noqa: E402

MIB = 1 << 20


def manual(word):
    """The first JSON that the manual shows behind WORD, as it is printed."""
    with open(os.path.join(fixtures.TOP, 'man', 'objmap-s3.7')) as f:
        text = f.read()
    found = re.search(r'\.RS\n(\{.*?)\.RE\n', text[text.index(word):], re.S)
    return found[1].replace('\\-', '-')


class Buckets(test_verbs.Verbs):
    def role(self, policy, **more):
        """An environment whose keys may do what POLICY says."""
        env = dict(self.env, **self.s3.assume_role(policy))
        return dict(env, **more)

    def refused(self, *args, within=20, **kw):
        """What it says, which fails, and long before --retry-for has passed."""
        begin = time.monotonic()
        p = self.objmap(*args, status=1, **kw)
        self.assertLess(time.monotonic() - begin, within)
        return p.stderr.decode()

    def served(self, place, *options, env):
        """A mount of who has ENV, and a handle of it."""
        where = 'nbd+unix:///?socket=' + self.path('s')
        self.objmap('mount', place, where, '--log', self.path('log'), *options, env=env)
        self.pids.append(self.status(where)['pid'])
        h = nbd.NBD()
        h.connect_uri(where)
        return where, h

    def allow(self, *actions):
        """What anybody may do to the bucket's objects, besides listing them."""
        self.s3.put_policy(self.bucket, json.dumps({
            'Version': '2012-10-17', 'Statement': [
                {'Effect': 'Allow', 'Principal': {'AWS': ['*']}, 'Action': ['s3:ListBucket'],
                 'Resource': ['arn:aws:s3:::%s' % self.bucket]},
                {'Effect': 'Allow', 'Principal': {'AWS': ['*']}, 'Action': list(actions),
                 'Resource': ['arn:aws:s3:::%s/*' % self.bucket]}]}))

    def mounts_of(self):
        """All that could be mounted: a file and an export, of a volume and an object."""
        self.s3.put(self.bucket, 'image', b'x' * 4096)
        for place in (self.vol, 's3+object://%s/image' % self.bucket):
            yield place, self.path('disk')
            yield place, 'nbd+unix:///?socket=' + self.path('x')


class Refused(Buckets):
    def test_wrong_keys_end_every_verb_and_mount_at_once(self):
        self.objmap('create', self.vol, '--size', '1M')
        image, _ = self.image(70000)
        head = self.s3.head(self.bucket, 'vol/head').etag
        for name, value, words in (('AWS_SECRET_ACCESS_KEY', 'wrong', 'SignatureDoesNotMatch'),
                                   ('AWS_ACCESS_KEY_ID', 'nobody', 'InvalidAccessKeyId')):
            env = dict(self.env, **{name: value})
            for args in (['info', self.vol], ['list', 's3://%s/' % self.bucket],
                         ['create', self.vol + '2', '--size', '1M'],
                         ['copy', image, self.vol + '2'], ['copy', self.vol, '-'],
                         ['snapshot', 'create', self.vol, 'one'], ['gc', self.vol],
                         ['delete', '--yes', self.vol],
                         *(['mount', *m] for m in self.mounts_of())):
                self.assertIn(words, self.refused(*args, env=env), args)
        self.assertFalse(os.path.exists(self.path('disk')))
        self.assertEqual(self.s3.head(self.bucket, 'vol/head').etag, head)
        self.assertEqual(self.keys_of(), ['image', 'vol/head'])

    def test_a_bucket_that_is_not_there_is_said_at_once_to_mounts_too(self):
        for place, where in self.mounts_of():
            said = self.refused('mount', place.replace(self.bucket, 'no-such-bucket'), where)
            self.assertIn('NoSuchBucket', said)
        self.assertFalse(os.path.exists(self.path('disk')))

    def test_https_where_http_is_spoken_is_told_at_once(self):
        said = self.refused('info', self.vol, '--endpoint-url',
                            self.endpoint.replace('http', 'https'))
        self.assertRegex(said, 'TLS|SSL')

    def test_a_bucket_that_goes_away_under_a_mount_is_an_error_and_never_zeros(self):
        data = self.volume()
        where, h = self.served(self.vol, env=self.env)
        self.assertEqual(bytes(h.pread(4096, 0)), data[:4096])
        kept = [(k, self.s3.get(self.bucket, k)) for k in self.keys_of()]
        for key, _ in kept:
            self.s3.delete(self.bucket, key)
        self.s3.delete_bucket(self.bucket)
        with self.assertRaises(nbd.Error):
            h.pread(4096, 4 * MIB)
        h.pwrite(b'y' * 65536, MIB)		# a chunk: nothing of it is read first
        with self.assertRaises(nbd.Error):
            h.flush()
        self.assertIn('NoSuchBucket', self.log())
        # Brought back as it was, it is the volume again, with what was not yet saved.
        self.s3.put_bucket(self.bucket)
        for key, was in kept:
            self.s3.put(self.bucket, key, was.body, metadata=was.metadata)
        h.flush()
        h.shutdown()
        self.objmap('umount', where)
        self.assertEqual(self.read(self.vol), data[:MIB] + b'y' * 65536 + data[MIB + 65536:])


class Rights(Buckets):
    def test_the_rights_of_the_manual_are_enough_for_everything(self):
        policy = manual('What keys need').replace(
            'BUCKET', self.bucket).replace('PREFIX', 'vol')
        env = self.role(policy)
        found = json.loads(self.objmap('doctor', self.vol, '--json', env=env).stdout)
        # What is not the volume's but the bucket's it may not ask.
        self.assertEqual([f['what'] for f in found if f['what'] in (
            'credentials', 'bucket', 'endpoint', 'absence', 'writing', 'PUT if-match',
            'creators at once', 'delete many', 'uploads in parts') and not f['ok']], [])
        path, data = self.image(17 * MIB)
        self.objmap('copy', '-q', '--verify', '--chunk-size', '16M', '--part-size', '5M', path,
                    self.vol, env=env)
        self.objmap('snapshot', 'create', self.vol, 'one', env=env)
        where, h = self.served(self.vol, env=env)
        h.pwrite(b'z' * MIB, MIB)
        h.flush()
        h.shutdown()
        self.objmap('umount', where, env=env)
        changed = data[:MIB] + b'z' * MIB + data[2 * MIB:]
        self.assertEqual(self.read(self.vol, env=env), changed)
        self.objmap('clone', self.vol + '@one', 's3://%s/vol/a-clone' % self.bucket, env=env)
        self.assertEqual(self.read('s3://%s/vol/a-clone' % self.bucket, env=env), data)
        self.objmap('delete', '--yes', '-q', 's3://%s/vol/a-clone' % self.bucket, env=env)
        self.objmap('resize', self.vol, '20M', env=env)
        self.objmap('rollback', '--yes', self.vol + '@one', env=env)
        self.assertEqual(self.read(self.vol, env=env), data)
        left = self.keys_of('vol/chunk/')[0].replace('/00/00000000-', '/05/00000005-')
        self.s3.create_upload(self.bucket, left)
        found = self.json('gc', '--grace', '0', self.vol, env=env)
        self.assertEqual(found['aborted_uploads'], 1)
        self.objmap('verify', '-q', self.vol, env=env)
        self.objmap('snapshot', 'delete', self.vol + '@one', env=env)
        self.objmap('delete', '--yes', '-q', self.vol, env=env)
        # And no more than that: another prefix is not theirs.
        self.assertIn('AccessDenied', self.refused(
            'create', 's3://%s/other' % self.bucket, '--size', '1M', env=env))

    def test_an_object_needs_the_rights_that_its_manual_names(self):
        """objmap-object(7), PERMISSIONS."""
        bucket = 'arn:aws:s3:::' + self.bucket
        image, probes = bucket + '/image', bucket + '/image.objmap-probe-*'

        def keys(*rights):
            return self.role(json.dumps({'Version': '2012-10-17', 'Statement': [
                {'Effect': 'Allow', 'Action': actions, 'Resource': what}
                for actions, what in rights]}))
        data = bytearray(self.random.randbytes(12 * MIB))
        self.s3.put(self.bucket, 'image', bytes(data))
        place = 's3+object://%s/image' % self.bucket
        read = (['s3:GetObject'], [image])
        self.assertEqual(self.objmap('copy', '-q', place, '-', env=keys(read)).stdout, data)
        said = self.refused('mount', place, self.path('disk'), '--writable', env=keys(read))
        self.assertIn('AccessDenied', said)
        env = keys(read, (['s3:PutObject', 's3:AbortMultipartUpload'], [image, probes]),
                   (['s3:DeleteObject'], [probes]))
        where, h = self.served(place, '--writable', env=env)
        h.pwrite(b'w' * 5000, 7 * MIB)
        h.flush()
        h.shutdown()
        self.objmap('umount', where)
        data[7 * MIB:7 * MIB + 5000] = b'w' * 5000
        self.assertEqual(self.s3.get(self.bucket, 'image').body, data)
        self.assertEqual(self.keys_of(), ['image'])
        self.s3.create_upload(self.bucket, 'image')
        self.objmap('gc', '-q', '--grace', '0', place, env=keys(
            read, (['s3:AbortMultipartUpload'], [image]),
            (['s3:ListBucketMultipartUploads'], [bucket])))
        self.assertEqual(list(self.s3.uploads(self.bucket, 'image')), [])

    def test_who_may_only_read_mounts_read_only_and_is_told_why_not_more(self):
        data = self.volume()
        head = self.s3.head(self.bucket, 'vol/head').etag
        env = self.role(json.dumps({'Version': '2012-10-17', 'Statement': [
            {'Effect': 'Allow', 'Action': 's3:ListBucket',
             'Resource': 'arn:aws:s3:::' + self.bucket},
            {'Effect': 'Allow', 'Action': 's3:GetObject',
             'Resource': 'arn:aws:s3:::%s/*' % self.bucket}]}))
        where, h = self.served(self.vol, '--read-only', env=env)
        for at in range(0, len(data) - MIB, MIB):
            self.assertEqual(bytes(h.pread(MIB, at)), data[at:at + MIB])
        h.shutdown()
        self.objmap('umount', where)
        for place, where in self.mounts_of():
            writable = ['--writable'] if '+' in place else []
            said = self.refused('mount', place, where, *writable, env=env)
            self.assertIn('AccessDenied', said)
            self.assertIn('right', said)
        self.assertFalse(os.path.exists(self.path('disk')))
        self.assertEqual(self.s3.head(self.bucket, 'vol/head').etag, head)

    def test_rights_taken_away_fail_flushes_and_given_back_nothing_is_lost(self):
        data = self.volume()
        every = ('s3:GetObject', 's3:PutObject', 's3:DeleteObject')
        self.allow(*every)
        where, h = self.served(self.vol, env=dict(self.env, OBJMAP_NO_SIGN_REQUEST='yes'))
        h.pwrite(b'a' * 4096, 0)
        h.flush()
        self.allow(every[0])
        h.pwrite(b'b' * 4096, 4096)
        with self.assertRaises(nbd.Error):
            h.flush()
        self.assertIn('AccessDenied', self.log())
        self.assertFalse(self.status(where)['volume']['fenced'])
        self.assertEqual(bytes(h.pread(8192, 0)), b'a' * 4096 + b'b' * 4096)
        self.assertEqual(self.read(self.vol)[:8192], b'a' * 4096 + data[4096:8192])
        self.allow(*every)
        h.pwrite(b'c' * 4096, 8192)
        h.flush()
        h.shutdown()
        self.objmap('umount', where)
        self.assertEqual(self.read(self.vol), b'a' * 4096 + b'b' * 4096 + b'c' * 4096 +
                         data[12288:])

    def test_who_may_not_delete_loses_nothing_and_frees_nothing(self):
        data = self.volume()
        self.allow('s3:GetObject', 's3:PutObject')
        env = dict(self.env, OBJMAP_NO_SIGN_REQUEST='yes')
        for n in range(3):
            where, h = self.served(self.vol, '--grace', '0', env=env)
            h.pwrite(b'%d' % n * MIB, MIB)
            h.flush()
            h.shutdown()
            self.objmap('umount', where)
        self.assertEqual(self.read(self.vol, env=env), data[:MIB] + b'2' * MIB + data[2 * MIB:])
        self.objmap('verify', '-q', self.vol)


class Clocks(Buckets):
    def test_a_server_with_another_clock_is_followed_by_a_mount_and_so_is_a_jump(self):
        data = self.volume()
        p = self.proxy()
        env = dict(self.env, AWS_ENDPOINT_URL_S3=p.endpoint)
        p.skew = -7200
        where, h = self.served(self.vol, env=env)
        for n, skew in enumerate((-7200, 3600 * 24 * 400, 0)):
            p.skew = skew
            h.pwrite(b'%d' % n * 4096, n * 4096)
            h.flush()
            self.assertEqual(bytes(h.pread(4096, 4 * MIB + n * 65536)),
                             data[4 * MIB + n * 65536:][:4096])
        h.shutdown()
        self.objmap('umount', where)
        self.assertTrue([r for r in p.requests() if r.status == 403])
        self.assertEqual(self.read(self.vol), b''.join(b'%d' % n * 4096 for n in range(3)) +
                         data[3 * 4096:])


class Lifecycle(Buckets):
    @classmethod
    def minio_env(cls):
        return {'MINIO_SCANNER_CYCLE': '2s', 'MINIO_SCANNER_SPEED': 'fastest'}

    def test_the_rule_of_the_manual_is_taken_and_doctor_asks_for_no_more(self):
        self.s3.put_versioning(self.bucket)
        self.assertIn(b'add a lifecycle rule', self.objmap('doctor', self.vol).stdout)
        rule = self.file('rule', manual('VERSIONED BUCKETS').replace('PREFIX', 'vol').encode())
        self.run_ok('aws', 's3api', '--endpoint-url', self.endpoint,
                    'put-bucket-lifecycle-configuration', '--bucket', self.bucket,
                    '--lifecycle-configuration', 'file://' + rule)
        found = {f['what']: f for f in self.json('doctor', self.vol)}
        self.assertTrue(found['versioning']['ok'], found['versioning'])
        data = self.volume()
        where = self.mount(self.vol)
        for n in range(3):
            self.write(where, b'%d' % n * MIB, MIB)
        self.objmap('umount', where)
        self.objmap('gc', '-q', '--grace', '0', self.vol)
        self.assertEqual(self.read(self.vol), data[:MIB] + b'2' * MIB + data[2 * MIB:])
        self.objmap('verify', '-q', self.vol)

    @fixtures.long_test
    def test_old_versions_that_expire_are_none_of_the_volumes(self):
        """MinIO counts in days; what it does at once is to keep one old version only."""
        self.s3.put_versioning(self.bucket)
        self.s3.put_lifecycle(self.bucket, (
            '<LifecycleConfiguration><Rule><ID>objmap</ID><Status>Enabled</Status>'
            '<Filter><Prefix>vol/</Prefix></Filter><NoncurrentVersionExpiration>'
            '<NewerNoncurrentVersions>1</NewerNoncurrentVersions>'
            '</NoncurrentVersionExpiration></Rule></LifecycleConfiguration>'))
        data = bytearray(self.volume())
        self.objmap('snapshot', 'create', self.vol, 'one')
        old = bytes(data)

        def versions():
            return len([v for v in self.s3.versions(self.bucket) if v[0] == 'vol/head'])

        where = self.mount(self.vol, '--grace', '0')
        end, seen = time.monotonic() + 240, 0
        while time.monotonic() < end and (seen < 10 or versions() >= seen):
            data[MIB:2 * MIB] = self.random.randbytes(MIB)
            self.write(where, bytes(data[MIB:2 * MIB]), MIB)
            seen = max(seen, versions())
        self.assertLess(versions(), seen, 'nothing expired')
        self.objmap('umount', where)
        self.objmap('gc', '-q', '--grace', '0', self.vol)
        wait_for(lambda: versions() <= 2, 'old versions to go', 240)
        self.assertEqual(self.read(self.vol), bytes(data))
        self.assertEqual(self.read(self.vol + '@one'), old)
        self.objmap('verify', '-q', self.vol)


if __name__ == '__main__':
    fixtures.main()
