#!/usr/bin/python3
"""What every store, stage and volume must do, done on a real MinIO: the C suites with
OBJMAP_TEST_PLACE, plain and over TLS, the random walk, and the demo on a bucket."""
import os
import re
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)
import world  # noqa: E402
import fixtures  # noqa: E402
import proxy  # noqa: E402

OPERATIONS, SECONDS = (3000, 1800) if fixtures.LONG else (300, 300)


class Contract(world.MinioWorld):
    def given(self, **env):
        """An environment in which C programs find the test's bucket."""
        return dict(self.env, OBJMAP_TEST_PLACE='s3://%s/t' % self.bucket,
                    OBJMAP_TEST_OPERATIONS=str(OPERATIONS), **env)

    def program(self, program, *args, timeout=300):
        """Runs a C program of tests/ in the test's bucket, which it must use."""
        p = self.run_ok(os.path.join(fixtures.BUILD, 'tests', program), *args,
                        timeout=timeout, env=self.given())
        self.assertTrue(self.s3.keys(self.bucket), 'the program was somewhere else')
        return p

    def suite(self, program, *filters, jobs=2, timeout=SECONDS, **env):
        """Runs a C suite in the test's bucket; how many tests passed."""
        p = subprocess.run(
            [os.path.join(fixtures.BUILD, 'tests', program), '--jobs', str(jobs),
             *['--filter=' + f for f in filters]],
            env=self.given(**env), capture_output=True, timeout=timeout)
        said = (p.stdout + p.stderr).decode(errors='replace')
        found = re.search(r'Tested: .*?(\d+).*Passing: .*?(\d+)', re.sub('\x1b[^m]*m', '', said))
        self.assertTrue(found, said)
        self.assertEqual(p.returncode, 0, said[-6000:])
        self.assertEqual(found[1], found[2], said[-6000:])
        self.assertTrue(self.s3.keys(self.bucket), 'the suite was somewhere else')
        return int(found[2])

    def test_the_contract_of_stores(self):
        self.assertGreater(self.suite('store/test-store'), 40)

    def test_the_contract_of_stages(self):
        self.assertEqual(self.suite('stage/test-contract'), 2)

    def test_volumes(self):
        filters = () if fixtures.LONG else (
            'volume/@(a_missing*|fua*|what_was*|a_reader*|a_whole*|an_incomp*)',)
        self.assertGreater(self.suite('volume/test-volume', *filters), 3)

    def all_but(self, program, *slow):
        """All of a suite, or what of it takes no long waits and no hundreds of puts."""
        filters = () if fixtures.LONG else ('*/!(%s)' % '|'.join(slow),)
        return self.suite('volume/' + program, *filters, jobs=6)

    def test_races_of_writers_readers_and_gc(self):
        self.assertGreater(self.all_but('test-races', 'a_chunk_of_64_mib*', 'a_node_that*'), 23)

    def test_swaps_of_head(self):
        self.assertGreater(self.all_but('test-protocol', 'under_a_busy*', 'history*',
                                        'clones_of_clones*'), 48)

    def test_gc(self):
        self.assertGreater(self.all_but('test-gc', 'with_little_memory*',
                                        'uploads_with_long*'), 22)

    def test_verify(self):
        self.assertGreater(self.all_but('test-verify', 'goes_through_two*'), 13)

    def test_a_random_walk_violates_nothing(self):
        seconds = 600 if fixtures.LONG else 6
        p = self.program('volume/walk-volume', '--seed', str(fixtures.SEED),
                         '--seconds', str(seconds), timeout=seconds + 120)
        self.assertIn(b'no violation', p.stdout)

    @fixtures.long_test
    def test_commits_whose_steps_fail(self):
        self.assertGreater(self.suite('volume/test-commit'), 15)

    @fixtures.long_test
    def test_many_threads_swap_one_head_and_each_swap_has_one_winner(self):
        self.program('store/race-store')

    @fixtures.long_test
    def test_threads_at_one_volume_read_what_was_written(self):
        self.program('volume/race-volume', '20')

    def test_the_contract_of_stores_over_tls(self):
        cert, key = self.path('cert.pem'), self.path('key.pem')
        self.run_ok('openssl', 'req', '-x509', '-newkey', 'ec', '-pkeyopt',
                    'ec_paramgen_curve:prime256v1', '-nodes', '-keyout', key, '-out', cert,
                    '-days', '2', '-subj', '/CN=test', '-addext', 'subjectAltName=IP:127.0.0.1')
        p = proxy.Proxy(self.endpoint, self.s3, tls=(cert, key))
        self.addCleanup(p.close)
        self.suite('store/test-store', 'store/a*', AWS_ENDPOINT_URL_S3=p.endpoint,
                   AWS_CA_BUNDLE=cert)
        self.assertGreater(len(p.requests()), 20)
        # No payload is hashed where TLS guards it, and nobody else is believed.
        self.assertEqual({r.header['x-amz-content-sha256'] for r in p.requests('put')},
                         {'UNSIGNED-PAYLOAD'})
        r = self.objmap('info', 's3://%s/none' % self.bucket, status=1, timeout=60,
                        env=dict(self.env, AWS_ENDPOINT_URL_S3=p.endpoint))
        self.assertIn(b'certificate', r.stderr)

    def test_the_demo_on_a_bucket(self):
        place = 's3://%s/demo/disk' % self.bucket
        fixtures.require('fuse')
        said = fixtures.run_demo(self, place)
        self.assertIn('swaps at once', said)
        self.objmap('info', place, status=1)		# it leaves nothing behind
        self.assertEqual([k for k in self.s3.keys(self.bucket) if '/chunk/' in k], [])

    def test_the_demo_with_a_minio_of_its_own(self):
        fixtures.require('fuse', 'curl')
        for name in self.keys:
            self.env.pop(name, None)
        said = fixtures.run_demo(self, '--minio')
        self.assertIn('A MinIO, with a bucket', said)
        self.assertIn('s3://demo/vm7 is deleted', said)
        self.assertEqual(self.s3.keys(self.bucket), [])		# it was another server's
        # Its server has ended with it.
        for pid in filter(str.isdigit, os.listdir('/proc')):
            try:
                with open('/proc/%s/cmdline' % pid) as f:
                    self.assertNotIn(self.dir + '/objmap-demo', f.read())
            except OSError:
                pass		# it has ended by now


if __name__ == '__main__':
    fixtures.main()
