#!/usr/bin/python3
"""A real MinIO starts on a free port, answers, keeps what it was given, and stops."""
import datetime
import hashlib
import hmac
import os
import subprocess
import sys
import urllib.error
import urllib.parse
import urllib.request

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(os.path.dirname(HERE), 'tests'))
import fixtures  # noqa: E402

MINIO = os.path.join(HERE, 'minio')


class Minio(fixtures.World):
    def begin(self):
        d = self.path('minio')
        # The first start on a machine builds it.
        url = self.run_ok(MINIO, 'start', d, timeout=900).stdout.decode().strip()
        with open(d + '/pid') as f:
            self.pids.append(int(f.read()))
        with open(d + '/env') as f:
            keys = dict(line.strip().split('=', 1) for line in f)
        return d, url, keys

    def s3(self, url, keys, method, body=b''):
        """One request signed with Signature Version 4; its answer's body."""
        def mac(key, text):
            return hmac.new(key, text.encode(), 'sha256').digest()

        where = urllib.parse.urlsplit(url)
        now = datetime.datetime.now(datetime.timezone.utc).strftime('%Y%m%dT%H%M%SZ')
        scope = now[:8] + '/us-east-1/s3/aws4_request'
        digest = hashlib.sha256(body).hexdigest()
        names = 'host;x-amz-content-sha256;x-amz-date'
        canonical = '%s\n%s\n\nhost:%s\nx-amz-content-sha256:%s\nx-amz-date:%s\n\n%s\n%s' % (
            method, where.path, where.netloc, digest, now, names, digest)
        text = 'AWS4-HMAC-SHA256\n%s\n%s\n%s' % (
            now, scope, hashlib.sha256(canonical.encode()).hexdigest())
        key = ('AWS4' + keys['AWS_SECRET_ACCESS_KEY']).encode()
        for part in scope.split('/'):
            key = mac(key, part)
        request = urllib.request.Request(url, method=method, data=body or None, headers={
            'x-amz-content-sha256': digest, 'x-amz-date': now,
            'Authorization': 'AWS4-HMAC-SHA256 Credential=%s/%s, SignedHeaders=%s, Signature=%s' % (
                keys['AWS_ACCESS_KEY_ID'], scope, names, mac(key, text).hex())})
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(request, timeout=20) as answer:
            return answer.read()

    def test_it_starts_keeps_an_object_and_stops(self):
        d, url, keys = self.begin()
        self.assertEqual(keys['AWS_ENDPOINT_URL_S3'], url)
        self.s3(url + '/bucket', keys, 'PUT')
        self.s3(url + '/bucket/key', keys, 'PUT', b'forty-two')
        self.assertEqual(self.s3(url + '/bucket/key', keys, 'GET'), b'forty-two')
        with open(d + '/pid') as f:
            pid = int(f.read())
        self.run_ok(MINIO, 'stop', d)
        fixtures.wait_gone(pid, 1)
        with self.assertRaises(OSError):
            urllib.request.urlopen(url, timeout=2)

    def test_a_stranger_is_refused(self):
        d, url, keys = self.begin()
        with self.assertRaises(urllib.error.HTTPError) as e:
            urllib.request.urlopen(url + '/bucket', timeout=5)
        self.assertEqual(e.exception.code, 403)
        self.run_ok(MINIO, 'stop', d)

    def test_a_program_that_cannot_run_is_named(self):
        p = subprocess.run([MINIO, 'find'], env=dict(self.env, MINIO='/nonexistent'),
                           capture_output=True, timeout=20)
        self.assertEqual(p.returncode, 1)
        self.assertIn(b'/nonexistent', p.stderr)


if __name__ == '__main__':
    fixtures.main()
