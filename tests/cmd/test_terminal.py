"""What people see on a terminal: questions, and progress as a bar; and where
there is none, as a line now and then."""
import fcntl
import hashlib
import json
import os
import pty
import re
import select
import socket
import struct
import subprocess
import sys
import termios
import threading
import time

import nbd

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '..'))
import fixtures
from fixtures import OBJMAP, World, require, wait_for, wait_gone

MIB = 1 << 20
# What progress.c draws: 4 columns are enough to know it.
BAR = r'\[=*>? *\] +\d+ %  \S+ \w+ of \S+ \w+'
RATE = r'  \S+ \w+/s'
LEFT = r'  \S+ \w+ left'


class Terminal:
    """A program whose standard input, output and error are a terminal."""

    def __init__(self, world, *argv, columns=80):
        self.master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack('4H', 24, columns, 0, 0))
        self.process = world.start(*argv, stdin=slave, stdout=slave, stderr=slave)
        os.close(slave)
        world.addCleanup(os.close, self.master)
        self.said = ''

    def read(self, seconds):
        """Takes what is said within SECONDS; False: there will be no more."""
        if select.select([self.master], [], [], seconds)[0]:
            try:
                part = os.read(self.master, 65536).decode()
            except OSError:	# everybody has closed it
                return False
            self.said += part
        return True

    def expect(self, pattern, seconds=30):
        end = time.monotonic() + seconds
        while not re.search(pattern, self.said):
            more = self.read(0.2)
            if time.monotonic() > end or not more and not re.search(pattern, self.said):
                raise AssertionError('no %s in %r' % (pattern, self.said))

    def type(self, text):
        os.write(self.master, text)

    def end(self, seconds=30):
        """Its exit status."""
        end = time.monotonic() + seconds
        while self.read(0.2) and time.monotonic() < end:
            pass
        return self.process.wait(20)


class Questions(World):
    """delete, rollback and shrinking ask; only a clear yes is one."""

    NO = (b'\n', b'n\n', b'no\n', b'Y\n', b'yes, please\n', b' y\n', b'yy\n',
          b'yes' * 20 + b'\ny\n', b'\x04')
    YES = (b'y\n', b'yes\n')

    def setUp(self):
        super().setUp()
        self.place = 'dir:' + self.path('vol')

    def ask(self, answer, *args):
        terminal = Terminal(self, OBJMAP, *args)
        terminal.expect(r'\? \[y/N\] $')
        terminal.type(answer)
        return terminal.end(), terminal.said

    def info(self):
        return self.objmap('info', self.place, '--json').stdout

    def check(self, answers, question, *args):
        before = self.info()
        for answer in answers:
            with self.subTest(verb=args[0], answer=answer):
                status, said = self.ask(answer, *args)
                self.assertEqual(status, 1, said)
                self.assertIn('nothing was changed', said)
                self.assertIn(question, said)
        self.assertEqual(self.info(), before)

    def make(self):
        self.objmap('copy', '-', self.place, '--size', '4M', '--chunk-size', '64K', '-q',
                    input=b'one' * 1000)
        self.objmap('snapshot', 'create', self.place, 'one')
        self.objmap('copy', '-', self.place, '--overwrite', '-q', input=b'two' * 1000)

    def content(self):
        return self.objmap('copy', '-q', self.place, '-').stdout[:3]

    def test_anything_but_yes_changes_nothing(self):
        self.make()
        self.check(self.NO, 'shrink ' + self.place + ' from 4 MiB to 1 MiB',
                   'resize', self.place, '1M')
        self.check(self.NO[:2], 'go back to snapshot one', 'rollback', self.place + '@one')
        self.check(self.NO[:2], self.place, 'delete', self.place)
        self.assertEqual(self.content(), b'two')

    def test_yes_is_done(self):
        for answer in self.YES:
            with self.subTest(answer=answer):
                self.make()
                self.assertEqual(self.ask(answer, 'resize', self.place, '1M')[0], 0)
                self.assertEqual(json.loads(self.info())['size'], MIB)
                self.assertEqual(self.ask(answer, 'rollback', self.place + '@one')[0], 0)
                self.assertEqual(self.content(), b'one')
                self.assertEqual(self.ask(answer, 'delete', self.place)[0], 0)
                self.objmap('info', self.place, status=1)

    def test_growing_does_not_ask(self):
        self.make()
        terminal = Terminal(self, OBJMAP, 'resize', self.place, '8M')
        self.assertEqual(terminal.end(), 0)
        self.assertNotIn('?', terminal.said)


class Progress(World):
    def slow(self):
        """A place of 6 MiB that takes some seconds to read."""
        sock = self.path('slow')
        self.start('nbdkit', '-f', '-U', sock, '--filter=rate', 'pattern', '6M', 'rate=16M')
        wait_for(lambda: os.path.exists(sock), 'nbdkit')
        return 'nbd+unix:///?socket=' + sock

    def test_copy_shows_a_bar_with_rate_and_time_left(self):
        """On any width that has room for it; on a narrow one no line is broken."""
        place = self.slow()
        wide = Terminal(self, OBJMAP, 'copy', place, 'null:6M')
        narrow = Terminal(self, OBJMAP, 'copy', place, 'null:6M', columns=30)
        quiet = Terminal(self, OBJMAP, 'copy', place, 'null:6M', '--quiet')
        wide.expect('copying  ' + BAR + RATE + LEFT)
        self.assertEqual([t.end() for t in (wide, narrow, quiet)], [0, 0, 0])
        self.assertRegex(wide.said, r'6 MiB copied')
        lines = re.split(r'\r\n|\r', wide.said)
        self.assertGreater(len(lines), 4, 'the bar moves')
        self.assertLess(max(len(x.replace('\x1b[K', '')) for x in lines if 'copying' in x), 80)
        lines = [x.replace('\x1b[K', '') for x in re.split(r'\r\n|\r', narrow.said)]
        self.assertTrue(any('copying  ' in x for x in lines), lines)
        self.assertLess(max(len(x) for x in lines if 'copying' in x), 30)
        self.assertEqual(quiet.said, '')
        # The bar is taken away before the result.
        self.assertRegex(wide.said, r'\r\x1b\[Knull:6M: 6 MiB copied')


class Umount(World):
    def daemon(self, name, until):
        """Stands at the name of a mount and tells until an event how it saves 800.5
        MiB, which takes more columns than 8; then that all is saved."""
        where = 'nbd+unix:///?socket=' + self.path(name)
        control = self.path('run') + '/' + hashlib.sha256(where.encode()).hexdigest()[:16]
        os.makedirs(self.path('run'), mode=0o700, exist_ok=True)
        listener = socket.socket(socket.AF_UNIX)
        self.addCleanup(listener.close)
        listener.bind(control)
        listener.listen()

        def answer():
            with listener.accept()[0] as c:
                done = 0
                while not until.wait(0.05):
                    done += (800 * MIB - done) // 100	# it never is at the end
                    c.sendall(json.dumps({'progress': {
                        'what': 'saving', 'done': done,
                        'total': int(800.5 * MIB)}}).encode() + b'\n')
                os.unlink(control)
                c.sendall(b'{"error": 0, "status": 0, "last": false}\n')
        threading.Thread(target=answer, daemon=True).start()
        return where

    def test_progress_is_a_bar_on_a_terminal_and_a_line_now_and_then_elsewhere(self):
        saved = threading.Event()
        self.addCleanup(saved.set)
        began = time.monotonic()
        with open(self.path('err'), 'wb') as err:
            plain, quiet = (
                self.start(OBJMAP, 'umount', self.daemon(name, saved), *options,
                           stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=stderr)
                for name, options, stderr in (('plain', [], err),
                                              ('quiet', ['--quiet'], subprocess.PIPE)))
        terminal = Terminal(self, OBJMAP, 'umount', self.daemon('bar', saved))
        silent = Terminal(self, OBJMAP, 'umount', self.daemon('none', saved), '-q')
        terminal.expect('saving  ' + BAR + RATE + LEFT)
        wait_for(lambda: os.path.getsize(self.path('err')), 'a line')
        saved.set()
        self.assertEqual((terminal.end(), silent.end()), (0, 0))
        self.assertTrue(terminal.said.endswith('\r\x1b[K'), terminal.said[-80:])
        self.assertEqual(silent.said, '')
        self.assertEqual(quiet.communicate(timeout=20), (b'', b''))
        self.assertEqual(plain.communicate(timeout=20), (b'', None))
        with open(self.path('err')) as f:
            said = f.read()
        self.assertRegex(said, r'^(objmap: saving: \d+ %  \S+ MiB of 800\.5 MiB.*\n)+$')
        self.assertLessEqual(said.count('\n'), (time.monotonic() - began) / 4)

    def frozen(self):
        """A file system that takes no write until it is thawed."""
        require('root', 'loop', 'mkfs.ext4', 'fsfreeze')
        image, folder = self.path('image'), self.path('slow')
        with open(image, 'wb') as f:
            f.truncate(64 * MIB)
        self.run_ok('mkfs.ext4', '-q', image)
        os.mkdir(folder)
        self.run_ok('mount', '-o', 'loop', image, folder)
        self.mounts.append(folder)
        # Before the daemon is killed, which could not end.
        self.addCleanup(subprocess.run, ['fsfreeze', '-u', folder], capture_output=True)
        return folder

    def test_a_real_drain_tells_how_far_it_is_and_may_be_left_alone(self):
        folder = self.frozen()
        place, where = 'dir:' + folder + '/vol', 'nbd+unix:///?socket=' + self.path('sock')
        self.objmap('create', place, '--size', '16M', '--chunk-size', '256K')
        self.objmap('mount', place, where, '--log', self.path('log'))
        pid = json.loads(self.objmap('status', where, '--json').stdout)['pid']
        self.pids.append(pid)
        h = nbd.NBD()
        h.connect_uri(where)
        data = os.urandom(8 * MIB)
        h.pwrite(data, 0)
        self.run_ok('fsfreeze', '-f', folder)

        began = time.monotonic()
        p = self.objmap('umount', where, '--timeout', '1s', status=1)
        self.assertGreater(time.monotonic() - began, 0.9)
        self.assertIn(b'is still being saved', p.stderr)
        self.assertIn(where.encode(), p.stderr)

        def threads():
            return len(os.listdir('/proc/%d/task' % pid))
        before = threads()
        terminal = Terminal(self, OBJMAP, 'umount', where)
        wait_for(lambda: threads() > before, 'one that listens to it')
        time.sleep(0.2)

        def committing():
            volume = json.loads(self.objmap('status', where, '--json').stdout)['volume']
            return volume['committing_bytes'] == 8 * MIB and volume
        volume = wait_for(committing, 'the commit')
        self.assertEqual(volume['dirty_bytes'], 8 * MIB)
        # What is being committed is not counted twice.
        self.assertRegex(self.objmap('status', where).stdout.decode(), 'not saved +8 MiB,')
        self.run_ok('fsfreeze', '-u', folder)
        self.assertEqual(terminal.end(60), 0)
        wait_gone(pid)
        self.assertEqual(self.objmap('copy', '-q', place, '-').stdout[:8 * MIB], data)


if __name__ == '__main__':
    fixtures.main()
