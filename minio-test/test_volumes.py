#!/usr/bin/python3
"""Volumes on a real MinIO in bad times: daemons killed, MinIO killed and restarted in
the middle of pushes, writers that are paused, buckets with versions, clocks, rights."""
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)
import world  # noqa: E402
import fixtures  # noqa: E402
import proxy  # noqa: E402
import s3client  # noqa: E402

MIB = 1 << 20


class Volumes(world.MinioWorld):
    def setUp(self):
        super().setUp()
        self.rng = random.Random(fixtures.SEED)
        self.place = 's3://%s/vol' % self.bucket
        self.daemons = 0

    def create(self, size='16M', chunk='256K', *options):
        self.objmap('create', self.place, '--size', size, '--chunk-size', chunk, *options)

    def through(self, p, **more):
        return dict(self.env, AWS_ENDPOINT_URL_S3=p.endpoint, **more)

    def mount(self, *options, env=None):
        """A daemon in the foreground; it, and an NBD handle."""
        import nbd
        self.daemons += 1
        where = 'nbd+unix:///?socket=' + self.path('s%d' % self.daemons)
        log = open(self.path('log%d' % self.daemons), 'wb')
        self.addCleanup(log.close)
        p = self.start(fixtures.OBJMAP, 'mount', '--foreground', *options, self.place, where,
                       env=env or self.env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                       stderr=log)
        self.addCleanup(p.stdout.close)
        self.assertTrue(p.stdout.readline(), self.log(self.daemons))
        h = nbd.NBD()
        h.connect_uri(where)
        p.where, p.number = where, self.daemons
        return p, h

    def log(self, number):
        with open(self.path('log%d' % number), errors='replace') as f:
            return f.read()

    def end(self, daemon, h, status=0):
        try:
            h.shutdown()
        except Exception:
            pass
        daemon.send_signal(signal.SIGTERM)
        self.assertEqual(daemon.wait(120), status, self.log(daemon.number))

    def content(self, place=None, **kw):
        return self.objmap('copy', '-q', place or self.place, '-', **kw).stdout

    def crash(self, *args, timeout):
        p = subprocess.run([os.path.join(fixtures.TOP, 'tests', 'crash'), *args, '--place',
                            's3://%s/crash' % self.bucket], env=self.env, timeout=timeout,
                           capture_output=True)
        self.assertEqual(p.returncode, 0, (p.stdout + p.stderr).decode()[-3000:])

    # ---- crashes -------------------------------------------------------------------------

    def test_killed_daemons_lose_nothing_that_was_flushed(self):
        rounds = 200 if fixtures.LONG else 6
        self.crash('--rounds', str(rounds), '--seed', str(fixtures.SEED), timeout=300 + 10 * rounds)

    def test_minio_killed_and_restarted_in_the_middle_of_pushes(self):
        """Flushes wait, none fails, and what they covered is there."""
        d = self.path('own')
        env = dict(self.env)

        def start():
            self.run_ok(world.MINIO, 'start', *self.minio_options(), d, timeout=900)
            with open(d + '/env') as f:
                keys = dict(line.strip().split('=', 1) for line in f)
            with open(d + '/pid') as f:
                self.pids.append(int(f.read()))
            return keys, self.pids[-1]

        keys, pid = start()
        p = proxy.Proxy(keys['AWS_ENDPOINT_URL_S3'])
        self.addCleanup(p.close)
        env.update(keys, AWS_ENDPOINT_URL_S3=p.endpoint)
        world.put_bucket(s3client.Client.from_env(keys), self.bucket)
        self.objmap('create', self.place, '--size', '8M', '--chunk-size', '256K', env=env)
        daemon, h = self.mount('--memory-limit', '4M', env=env)
        image = bytearray(8 * MIB)
        stop, failed, flushes = threading.Event(), [], []

        def write():
            try:
                while not stop.is_set():
                    for _ in range(6):
                        at = self.rng.randrange(2000) * 4096
                        data = self.rng.randbytes(4096)
                        h.pwrite(data, at)
                        image[at:at + 4096] = data
                    h.flush()
                    flushes.append(time.monotonic())
            except Exception as e:
                failed.append(e)

        writer = threading.Thread(target=write)
        writer.start()
        for how in (signal.SIGKILL, signal.SIGTERM) * (5 if fixtures.LONG else 1):
            before = len(flushes)
            fixtures.wait_for(lambda: len(flushes) > before + 2 or failed, 'flushes', 60)
            os.kill(pid, how)
            fixtures.wait_gone(pid, 60)
            os.unlink(d + '/pid')
            time.sleep(self.rng.uniform(0.1, 1.0))
            keys, pid = start()		# on another port, with other keys
            p.server = ('127.0.0.1', int(keys['AWS_ENDPOINT_URL_S3'].rsplit(':', 1)[1]))
            p.s3 = s3client.Client.from_env(keys)
            p.resigns = True		# the daemon's keys are those of the first start
        before = len(flushes)
        fixtures.wait_for(lambda: len(flushes) > before + 2 or failed, 'flushes', 90)
        stop.set()
        writer.join(90)
        self.assertEqual(failed, [], self.log(daemon.number))
        self.end(daemon, h)
        self.assertEqual(self.content(env=env), bytes(image))
        self.objmap('verify', '-q', self.place, env=env)

    # ---- writers ---------------------------------------------------------------------------

    def test_a_paused_writer_cannot_undo_who_took_over(self):
        """SIGSTOP in the middle of a push, a take-over, SIGCONT: the first is fenced,
        its late requests change nothing, and its data is kept beside."""
        self.create('8M')
        slow = self.proxy()
        first, h1 = self.mount(env=self.through(slow))
        h1.pwrite(b'1' * MIB, 0)
        h1.flush()
        arrives = threading.Event()
        self.addCleanup(arrives.set)
        late = slow.harm('late', kind='put', key='/head$', times=1, seconds=arrives,
                         silence=60.0)
        h1.pwrite(b'2' * MIB, 0)
        thread = threading.Thread(target=self.fails, args=(h1.flush,))
        thread.start()
        fixtures.wait_for(lambda: late.timers, 'the swap')	# all of it
        first.send_signal(signal.SIGSTOP)
        other = dict(self.env, OBJMAP_RUNTIME_DIR=self.path('run2'), OBJMAP_STATE=self.path('state2'))
        second, h2 = self.mount('--take-over', env=other)
        h2.pwrite(b'3' * 4096, MIB)
        h2.flush()
        arrives.set()
        fixtures.wait_for(lambda: late.log, 'the late swap', 20)
        self.assertNotEqual(late.log, [200])
        first.send_signal(signal.SIGCONT)
        slow.heal()
        thread.join(60)
        self.assertTrue(self.failed, 'a flush of a fenced writer succeeded')
        self.end(second, h2)
        self.end(first, h1, 1)
        got = self.content()
        self.assertEqual(got[:MIB], b'1' * MIB)
        self.assertEqual(got[MIB:MIB + 4096], b'3' * 4096)
        self.assertIn('fenced', self.log(first.number))
        kept = [n for _, _, names in os.walk(self.path('state')) for n in names]
        self.assertTrue(kept, 'the unsaved chunks are nowhere')

    failed = None

    def fails(self, act):
        try:
            act()
            self.failed = False
        except Exception:
            self.failed = True

    # ---- buckets and rights ------------------------------------------------------------------

    def test_a_bucket_with_versions_is_a_volume_like_any(self):
        self.s3.put_versioning(self.bucket)
        self.create('4M')
        daemon, h = self.mount()
        for n in range(4):
            h.pwrite(bytes([65 + n]) * MIB, MIB)
            h.flush()
        self.end(daemon, h)
        self.assertEqual(self.content()[MIB:2 * MIB], b'D' * MIB)
        self.objmap('gc', '-q', '--grace', '0', self.place)
        self.objmap('verify', '-q', self.place)
        self.objmap('delete', '--yes', '-q', self.place)
        self.objmap('gc', '-q', '--grace', '0', self.place)	# a tombstone is none's garbage
        left = [k for k in self.s3.keys(self.bucket) if '/chunk/' in k]
        self.assertEqual(left, [])
        self.assertTrue([v for v in self.s3.versions(self.bucket) if '/chunk/' in v[0]],
                        'versions are what only a lifecycle rule deletes')

    def test_who_may_only_read_can_mount_and_is_told_why_not_more(self):
        self.create('4M')
        self.s3.put_policy(self.bucket, json.dumps({
            'Version': '2012-10-17', 'Statement': [
                {'Effect': 'Allow', 'Principal': {'AWS': ['*']}, 'Action': actions,
                 'Resource': ['arn:aws:s3:::%s%s' % (self.bucket, what)]}
                for actions, what in ((['s3:GetObject'], '/*'), (['s3:ListBucket'], ''))]}))
        anonymous = dict(self.env, OBJMAP_NO_SIGN_REQUEST='yes')
        self.assertEqual(self.content(env=anonymous), bytes(4 * MIB))
        for verb in (['snapshot', 'create', self.place, 'one'],
                     ['resize', '--yes', self.place, '8M'], ['delete', '--yes', self.place]):
            begin = time.monotonic()
            r = self.objmap(*verb, env=anonymous, status=1)
            self.assertIn(b'AccessDenied', r.stderr)
            self.assertLess(time.monotonic() - begin, 32)

    def test_a_server_with_another_clock_is_followed(self):
        for skew in (7200, -86400):
            p = self.proxy()
            p.skew = skew
            env = self.through(p)
            place = '%s%d' % (self.place, skew)
            self.objmap('copy', '-q', 'pattern:3M', place, env=env)
            self.objmap('verify', '-q', place, env=env)
            self.objmap('gc', '-q', '--grace', '0', place, env=env)
            self.assertEqual(self.content(place), self.content('pattern:3M'))
            self.assertTrue([r for r in p.requests() if r.status == 403])


if __name__ == '__main__':
    fixtures.main()
