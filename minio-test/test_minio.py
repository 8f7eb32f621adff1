#!/usr/bin/python3
"""A real MinIO starts on a free port, answers, keeps what it was given, and stops."""
import os
import subprocess
import sys
import urllib.error
import urllib.request

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(os.path.dirname(HERE), 'tests'))
sys.path.insert(0, HERE)
import fixtures  # noqa: E402
import s3client  # noqa: E402
import world  # noqa: E402

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

    def test_it_starts_keeps_an_object_and_stops(self):
        d, url, keys = self.begin()
        self.assertEqual(keys['AWS_ENDPOINT_URL_S3'], url)
        s3 = s3client.Client.from_env(keys)
        world.put_bucket(s3, 'bucket')
        s3.put('bucket', 'key', b'forty-two')
        self.assertEqual(s3.get('bucket', 'key').body, b'forty-two')
        with open(d + '/pid') as f:
            pid = int(f.read())
        self.run_ok(MINIO, 'stop', d)
        fixtures.wait_gone(pid)
        with self.assertRaises(OSError):
            urllib.request.urlopen(url, timeout=20)

    def test_a_stranger_is_refused(self):
        d, url, keys = self.begin()
        def answer():
            with self.assertRaises(urllib.error.HTTPError) as e:
                urllib.request.urlopen(url + '/bucket', timeout=60)
            return None if e.exception.code == 503 else e.exception.code	# not ready
        self.assertEqual(fixtures.wait_for(answer, 'MinIO to take requests'), 403)
        self.run_ok(MINIO, 'stop', d)

    def test_a_program_that_cannot_run_is_named(self):
        p = subprocess.run([MINIO, 'find'], env=dict(self.env, MINIO='/nonexistent'),
                           capture_output=True, timeout=20)
        self.assertEqual(p.returncode, 1)
        self.assertIn(b'/nonexistent', p.stderr)


if __name__ == '__main__':
    fixtures.main()
