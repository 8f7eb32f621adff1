#!/usr/bin/python3
"""Two daemons, each on what could be a machine of its own, that take one volume from
each other again and again while both write and flush.

Every 4 KiB block that is written carries its own index and the number of the write.
After a take-over each block must hold a write that was issued to it, whole, and not an
older one than the last acknowledged flush of the loser covers; and what the loser had
acknowledged and not saved must be in what it has kept aside."""
import importlib.machinery
import importlib.util
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
import nbd  # noqa: E402


def program(path):
    """A Python program without .py as a module."""
    loader = importlib.machinery.SourceFileLoader(os.path.basename(path), path)
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader(
        loader.name, loader))
    sys.dont_write_bytecode = True
    loader.exec_module(module)
    return module


crash = program(os.path.join(fixtures.TOP, 'tests', 'crash'))
BLOCK, BLOCKS, THREADS = crash.BLOCK, crash.BLOCKS, 2


class Owner:
    """A daemon with a runtime and a state folder of its own, and who writes there."""

    def __init__(self, test, number):
        self.test, self.number = test, number
        self.dir = test.path('owner%d' % number)
        os.mkdir(self.dir)
        self.env = dict(test.env, OBJMAP_RUNTIME_DIR=self.dir + '/run',
                        OBJMAP_STATE=self.dir + '/state')
        self.where = 'nbd+unix:///?socket=' + self.dir + '/s'
        self.log = self.dir + '/log'
        with open(self.log, 'wb') as log:
            self.daemon = test.start(
                fixtures.OBJMAP, 'mount', '--foreground', '--take-over', '--memory-limit',
                test.rng.choice(('2M', '8M', '64M')), test.place, self.where, env=self.env,
                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log)
        line = self.daemon.stdout.readline()
        test.assertTrue(line, self.said())
        # Of a block: the write that was acknowledged last, and the last of all.  A
        # write that failed may have been done in part.
        self.acked, self.issued = {}, {}
        self.flushes = 0
        self.threads = []

    def said(self):
        with open(self.log, errors='replace') as f:
            return f.read()

    def connect(self):
        h = nbd.NBD()
        h.connect_uri(self.where)
        return h

    def begin(self):
        self.stop = threading.Event()
        self.threads = [threading.Thread(target=self.write, args=(
            t, self.test.rng.getrandbits(32))) for t in range(THREADS)]
        for t in self.threads:
            t.start()

    def write(self, thread, seed):
        """Until a flush or a write fails; the book knows what was issued."""
        rng, book, h = random.Random(seed), self.test.book, self.connect()
        own = BLOCKS // THREADS
        while not self.stop.is_set():
            count = rng.choice((1, 1, 2, 7, 64))
            first = thread * own + rng.randrange(own - count)
            try:
                if rng.random() < 0.15:
                    covered = book.flush_begins()
                    h.flush()
                    book.make_durable(covered)
                    self.flushes += 1
                    continue
                number = book.issue(first, count, False)
                for b in range(first, first + count):
                    self.issued[b] = number
                h.pwrite(b''.join(book.content(b, number)
                                  for b in range(first, first + count)), first * BLOCK)
                book.acknowledge(first, count, number)
                for b in range(first, first + count):
                    self.acked[b] = number
            except nbd.Error:
                return

    def has_lost(self):
        """Waits until its writers have found out."""
        for t in self.threads:
            t.join(60)
            self.test.assertFalse(t.is_alive(), 'a writer hangs: ' + self.said())

    def end(self, status):
        self.stop.set()
        for t in self.threads:
            t.join(60)
        self.daemon.send_signal(signal.SIGTERM)
        self.test.assertEqual(self.daemon.wait(60), status, self.said())
        self.daemon.stdout.close()

    def kept(self):
        """What it keeps aside, as {block: content}."""
        blocks = {}
        for folder, _, names in os.walk(self.dir + '/state'):
            if 'index' not in names:
                continue
            with open(folder + '/chunks', 'rb') as f:
                chunks = f.read()
            with open(folder + '/index') as f:
                lines = [line.split() for line in f]
            self.test.assertEqual(lines[-1][0], 'end')
            for line in lines:
                if line[0] == 'chunk':
                    offset, count, at = int(line[1]), int(line[2]), int(line[4])
                    for i in range(0, count, BLOCK):
                        blocks[(offset + i) // BLOCK] = chunks[at + i:at + i + BLOCK]
        return blocks


class Writers(world.MinioWorld):
    def setUp(self):
        super().setUp()
        self.rng = random.Random(fixtures.SEED)
        self.place = 's3://%s/vol' % self.bucket
        self.book = crash.Book()

    def look(self, owner):
        """Checks every block as OWNER reads it; returns them."""
        h = owner.connect()
        found = []
        for first in range(0, BLOCKS, 256):
            data = bytes(h.pread(256 * BLOCK, first * BLOCK))
            found += [data[i * BLOCK:(i + 1) * BLOCK] for i in range(256)]
        h.shutdown()
        for b, data in enumerate(found):
            self.book.check(b, data)
        self.book.changed.clear()
        return found

    def test_who_takes_over_finds_all_that_was_flushed_and_the_loser_keeps_the_rest(self):
        self.objmap('create', self.place, '--size', str(BLOCKS * BLOCK), '--chunk-size', '64K')
        rounds = 40 if fixtures.LONG else 5
        now, flushes, aside = Owner(self, 0), 0, 0
        now.begin()
        for n in range(1, rounds + 1):
            before = now.flushes
            fixtures.wait_for(lambda: now.flushes > before + 1, 'flushes', 60)
            time.sleep(self.rng.uniform(0, 0.5))
            other = Owner(self, n)
            now.has_lost()
            found = self.look(other)
            other.begin()		# it does not wait for the loser's end
            now.end(1)
            said = now.said()
            self.assertIn('held by', said)
            kept = now.kept()
            for b, number in now.acked.items():
                allowed = [self.book.content(b, n) for n in (number, now.issued[b])]
                self.assertTrue(found[b] in allowed or kept.get(b) in allowed,
                                'block %d, write %d is neither in the volume (%r) nor aside '
                                '(%r)\n%s' % (b, number, found[b][:16], kept.get(b, b'')[:16],
                                              said))
            if kept:
                self.assertIn('unsaved writes were kept in', said)
            flushes, aside = flushes + now.flushes, aside + len(kept)
            now = other
        now.end(0)
        print('%d take-overs, %d flushes, %d blocks kept aside' % (rounds, flushes, aside))
        self.assertGreater(aside, 0)
        self.objmap('gc', '-q', '--grace', '0', self.place)
        self.objmap('verify', '-q', self.place)
        with open(self.path('image'), 'wb') as f:
            f.write(self.objmap('copy', '-q', self.place, '-').stdout)
        with open(self.path('image'), 'rb') as f:
            for b in range(BLOCKS):
                data = f.read(BLOCK)
                self.book.check(b, data)
                if b in now.acked:	# it was let go in peace: all is saved
                    self.assertEqual(data, self.book.content(b, now.acked[b]))


if __name__ == '__main__':
    fixtures.main()
