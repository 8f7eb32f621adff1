#!/usr/bin/python3
"""A batch of large chunks that is cut: 40 dirty chunks of 16 MiB in one commit, each an
upload in parts, of which one fails for ever, and the daemon is killed in the middle.
No partial chunk is ever readable, and the next gc leaves no upload."""
import json
import os
import signal
import subprocess
import sys
import threading

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)
import world  # noqa: E402
import fixtures  # noqa: E402

MIB = 1 << 20
NR = 40
CHUNK = 16 * MIB


class PushBatch(world.MinioWorld):
    def setUp(self):
        super().setUp()
        self.place = 's3://%s/vol' % self.bucket
        self.objmap('create', self.place, '--size', str(NR * CHUNK), '--chunk-size', str(CHUNK))

    def mount(self, *options, env=None):
        """A daemon in the foreground, and an NBD handle."""
        import nbd
        where = 'nbd+unix:///?socket=' + self.path('sock')
        with open(self.path('log'), 'wb') as log:
            p = self.start(fixtures.OBJMAP, 'mount', '--foreground', *options, self.place,
                           where, env=env or self.env, stdin=subprocess.DEVNULL,
                           stdout=subprocess.PIPE, stderr=log)
        self.addCleanup(p.stdout.close)
        with open(self.path('log'), errors='replace') as f:
            self.assertTrue(p.stdout.readline(), f.read())
        h = nbd.NBD()
        h.connect_uri(where)
        return p, h

    def gc(self, *options, **kw):
        return json.loads(self.objmap('gc', '--json', '--grace', '0', self.place, *options,
                                      timeout=120, **kw).stdout)

    def uploads(self):
        return list(self.s3.uploads(self.bucket))

    def reads_as_zeros(self):
        out = self.path('out')
        self.objmap('copy', '-q', '--overwrite', self.place, out, timeout=120)
        st = os.stat(out)
        self.assertEqual((st.st_size, st.st_blocks), (NR * CHUNK, 0),
                         'a part of the batch is read')

    def test_a_batch_that_is_cut_leaves_nothing_behind_the_next_gc(self):
        p = self.proxy()
        daemon, h = self.mount('--memory-limit', '1G',
                               env=dict(self.env, AWS_ENDPOINT_URL_S3=p.endpoint))
        for i in range(NR):
            h.pwrite(bytes([i + 1]) * CHUNK, i * CHUNK)
        # Some chunks are whole, in others a part is missing.
        failing = p.harm('status', kind='part', query='partNumber=2', skip=2)
        failed = []

        def flush():
            try:
                h.flush()
            except Exception as e:
                failed.append(e)
        thread = threading.Thread(target=flush)
        thread.start()
        fixtures.wait_for(lambda: failing.fired > 2 and p.requests('complete'),
                          'parts that fail, and a chunk that is whole', 120)
        self.reads_as_zeros()
        daemon.send_signal(signal.SIGKILL)
        daemon.wait(60)
        thread.join(60)
        fixtures.wait_for(lambda: not p.open, 'what it had sent to end')
        self.assertTrue(failed, 'a flush succeeded without its parts')
        self.assertTrue(self.uploads(), 'nothing was cut')
        self.reads_as_zeros()

        # Who cannot know that the writer is dead leaves it what it has begun.
        was = self.uploads()
        head = self.s3.get(self.bucket, 'vol/head').body
        self.gc(env=dict(self.env, OBJMAP_RUNTIME_DIR=self.path('elsewhere')))
        self.gc('--dry-run')
        self.assertEqual(self.uploads(), was)
        self.assertEqual(self.s3.get(self.bucket, 'vol/head').body, head)

        found = self.gc()
        self.assertEqual(found['aborted_uploads'], len(was))
        self.assertEqual(self.uploads(), [])
        self.assertEqual(list(self.s3.keys(self.bucket)), ['vol/head'])
        info = json.loads(self.objmap('info', '--json', self.place).stdout)
        self.assertIsNone(info['holder'])
        self.reads_as_zeros()

        # It is a volume like any.
        daemon, h = self.mount()
        h.pwrite(b'x', 5 * CHUNK)
        h.flush()
        h.shutdown()
        daemon.terminate()
        self.assertEqual(daemon.wait(60), 0)
        self.objmap('verify', '-q', self.place)
        self.assertEqual(len(list(self.s3.keys(self.bucket, 'vol/chunk/'))), 1)


if __name__ == '__main__':
    fixtures.main()
