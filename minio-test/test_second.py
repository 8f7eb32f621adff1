#!/usr/bin/python3
"""An S3 server of other make, VersityGW over a folder: what every store must do, and
what doctor says of it.  Only in the long run: it is built first."""
import os
import re
import subprocess
import sys
import urllib.error
import urllib.request

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)
sys.path.insert(0, os.path.join(os.path.dirname(HERE), 'tests'))
import fixtures  # noqa: E402
import s3client  # noqa: E402

MODULE, VERSION = 'github.com/versity/versitygw/cmd/versitygw', 'v1.8.0'


class Here(fixtures.World):
    def test_the_script_that_builds_it_wants_both_words(self):
        p = subprocess.run([os.path.join(HERE, 'go-program'), MODULE], capture_output=True,
                           env=self.env, timeout=20)
        self.assertNotEqual(p.returncode, 0)
        self.assertIn(b'usage', p.stderr)


@fixtures.long_test
class VersityGW(fixtures.World):
    def setUp(self):
        super().setUp()
        program = self.run_ok(os.path.join(HERE, 'go-program'), MODULE, VERSION,
                              timeout=1800).stdout.decode().strip()
        os.mkdir(self.path('data'))
        port = fixtures.free_port()
        # Its keys go by the environment: argv can be read by everybody.
        keys = {'AWS_ENDPOINT_URL_S3': 'http://127.0.0.1:%d' % port,
                'AWS_ACCESS_KEY_ID': 'objmap', 'AWS_SECRET_ACCESS_KEY': 'objmap-secret'}
        self.start(program, '--quiet', '--keep-alive', '--port', '127.0.0.1:%d' % port,
                   'posix', self.path('data'), stdout=subprocess.DEVNULL,
                   env=dict(self.env, ROOT_ACCESS_KEY='objmap', ROOT_SECRET_KEY='objmap-secret'))

        def answers():
            try:
                urllib.request.urlopen(keys['AWS_ENDPOINT_URL_S3'], timeout=2)
            except urllib.error.HTTPError:
                return True
            except OSError:
                return False
            return True
        fixtures.wait_for(answers, 'VersityGW')
        self.env.update(keys)
        self.s3 = s3client.Client.from_env(keys)
        self.s3.put_bucket('bucket')

    def test_the_contract_of_stores(self):
        p = subprocess.run([os.path.join(fixtures.BUILD, 'tests/store/test-store'), '--jobs', '2'],
                           env=dict(self.env, OBJMAP_TEST_PLACE='s3://bucket/t'),
                           capture_output=True, timeout=600)
        self.assertEqual(p.returncode, 0, (p.stdout + p.stderr).decode()[-3000:])

    def test_doctor_and_a_volume(self):
        said = self.objmap('doctor', 's3://bucket/d').stdout.decode()
        store = said[said.index('credentials'):]
        self.assertEqual(re.findall('^no .*', store, re.M), [])
        self.objmap('copy', '-q', '--verify', 'pattern:9M', 's3://bucket/v')
        self.objmap('verify', '-q', 's3://bucket/v')
        self.objmap('gc', '-q', '--grace', '0', 's3://bucket/v')
        self.objmap('verify', '-q', 's3://bucket/v')


if __name__ == '__main__':
    fixtures.main()
