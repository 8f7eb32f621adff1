#!/usr/bin/python3
"""Remote NBD exports as places: real servers (objmap's own, nbdkit, qemu-nbd),
killed and started again in the middle; keys; hostile ones."""
import json
import os
import random
import re
import signal
import socket
import struct
import subprocess
import threading
import time

import nbd

from serving import GO, READ, SEED, World, main, run_status, wait_for
from fixtures import OBJMAP, long_test
from test_tls import make_certificates

MIB = 1 << 20
NBDMAGIC = b'NBDMAGICIHAVEOPT'


class Remote(World):
    def setUp(self):
        super().setUp()
        self.sock = self.path('s')
        self.uri = 'nbd+unix:///?socket=' + self.sock

    def log(self, name):
        log = open(self.path(name), 'ab')
        self.addCleanup(log.close)
        return log

    def nbdkit(self, *args, sock=None):
        sock = sock or self.sock
        if os.path.exists(sock):
            os.unlink(sock)
        p = self.start('nbdkit', '-f', '-U', sock, *args, stderr=self.log('kitlog'))
        wait_for(lambda: os.path.exists(sock) or p.poll() is not None, 'nbdkit')
        return p

    def kill(self, process):
        process.send_signal(signal.SIGKILL)
        process.wait(20)

    def mount(self, place, *args):
        """Mounts PLACE on a second socket: (process, a client of it)."""
        sock = self.path('front')
        p = self.start(OBJMAP, 'mount', place, 'nbd+unix:///?socket=' + sock, '--foreground',
                       *args, stderr=self.log('frontlog'), stdout=self.log('frontlog'))

        def connect():
            self.assertIsNone(p.poll(), self.said())
            client = nbd.NBD()
            try:
                client.connect_unix(sock)
            except nbd.Error:
                return None
            return client
        return p, wait_for(connect, 'the mount')

    def said(self, log='frontlog'):
        with open(self.path(log)) as f:
            return f.read()

    def status(self):
        out = self.objmap('status', 'nbd+unix:///?socket=' + self.path('front'), '--json')
        status = json.loads(out.stdout)
        return status[0] if isinstance(status, list) else status

    def refused(self, uri, *words, args=(), status=1):
        p = self.objmap('info', uri, *args, status=status, timeout=40)
        for word in words:
            self.assertIn(word, p.stderr.decode())


class Opening(Remote):
    def test_copy_there_and_back_over_several_connections(self):
        self.nbdkit('memory', '64M')
        with open(self.path('f'), 'wb') as f:
            f.write(os.urandom(30 * MIB))
            f.truncate(64 * MIB)
        refused = self.objmap('copy', self.path('f'), self.uri, status=1)
        self.assertIn(b'--overwrite', refused.stderr)
        self.objmap('copy', self.path('f'), self.uri, '--overwrite', '--verify')
        self.objmap('copy', self.uri, self.path('g'))
        self.run_ok('cmp', self.path('f'), self.path('g'))
        # What was never written is a hole there and here.
        self.assertLess(os.stat(self.path('g')).st_blocks * 512, 32 * MIB)

    def test_a_read_only_export_is_a_read_only_place(self):
        self.nbdkit('-r', 'pattern', '8M')
        p, client = self.mount(self.uri)
        self.assertTrue(client.is_read_only())
        self.assertEqual(bytes(client.pread(8, 4096)), struct.pack('>Q', 4096))
        with open(self.path('f'), 'wb') as f:
            f.write(b'x' * 4096)
        failed = self.objmap('copy', self.path('f'), self.uri, '--overwrite', status=1)
        self.assertIn(b'cannot be written', failed.stderr)

    def test_what_cannot_be_had_is_told_at_once(self):
        self.nbdkit('--filter=exportname', 'memory', '1M', 'exportname=a',
                    'exportname-strict=true')
        self.refused('nbd+unix:///b?socket=' + self.sock, "no export named 'b'", 'objmap list')
        self.refused('nbd+unix:///?socket=' + self.path('none'), 'check the path')
        self.refused('nbd://no-such-host.invalid/', 'check the name')
        self.refused('nbd://127.0.0.1:%d/' % self.nobodys_port(), 'refused', 'given up',
                     args=('--retry-for', '1s'))

    def test_a_server_that_comes_late_is_waited_for(self):
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(self.sock)        # and does not listen: refused
        p = self.start(OBJMAP, 'info', self.uri + '&connections=1', '--json', stdout=-1,
                       stderr=self.log('late'))
        wait_for(lambda: 'trying again' in self.said('late'), 'the first try')
        self.assertIsNone(p.poll())
        # In one step: were it absent for a moment, it would be given up.
        self.nbdkit('memory', '1M', sock=self.path('late-sock'))
        os.rename(self.path('late-sock'), self.sock)
        listener.close()
        self.assertEqual(json.loads(p.communicate(timeout=20)[0])['size'], MIB)

    def test_writing_needs_a_server_that_can_make_it_durable(self):
        self.nbdkit('eval', 'get_size=echo 1M', 'pread=dd if=/dev/zero count=$3 iflag=count_bytes',
                    'pwrite=cat >/dev/null')
        p = self.objmap('mount', self.uri, 'nbd+unix:///?socket=' + self.path('x'), status=1)
        self.assertIn(b'neither flush nor FUA', p.stderr)
        self.mount(self.uri, '--read-only')

    def test_verify_names_what_cannot_be_read_and_goes_on(self):
        self.nbdkit('-r', 'eval', 'get_size=echo 5M',
                    'pread=case $(($4 / 1048576)) in 1|3) echo EIO worn out >&2; exit 1;; esac; '
                    'dd if=/dev/zero count=$3 iflag=count_bytes')
        p = self.objmap('verify', '-q', self.uri, '--json', status=1)
        said = json.loads(p.stdout)
        self.assertEqual((said['size'], said['bytes']), (5 * MIB, 3 * MIB))
        self.assertEqual(sorted((f['offset'], f['count']) for f in said['faults']),
                         [(MIB, MIB), (3 * MIB, MIB)])
        self.assertIn(b'bytes 1048576 to 2097152 cannot be read', p.stderr)

    def test_exports_are_listed_with_their_descriptions(self):
        self.run_ok('qemu-img', 'create', '-q', '-f', 'raw', self.path('img'), '3M')
        self.start('qemu-nbd', '-t', '-r', '-e', '9', '-f', 'raw', '-x', 'disk', '-D',
                   'of \x1b[31m Anna', '-k', self.sock, self.path('img'))
        wait_for(lambda: os.path.exists(self.sock), 'qemu-nbd')
        p = self.objmap('list', self.uri, '--json')
        self.assertEqual(json.loads(p.stdout), [{
            'name': 'disk', 'description': 'of ?[31m Anna', 'size': 3 * MIB, 'read_only': True}])
        self.assertIn(b'disk', self.objmap('list', self.uri).stdout)
        self.objmap('list', 'nbd+unix:///none?socket=' + self.sock, status=1)

    def test_bad_places_are_usage_errors(self):
        for uri in ('nbd:x', 'nbd://h:0/', 'nbd://a:b:c/', 'nbd://[::1/', 'nbd://h/?socket=x',
                    'nbd+unix:///x', 'nbd+unix://h/e?socket=y', 'nbd://u@h/', 'nbds://u@h/',
                    'nbd://h/?connections=0', 'nbd://h/?connections=99',
                    'nbd://h/?tls-psk-file=x', 'nbds+unix:///?socket=/x',
                    'nbds://h/?tls-verify-peer=maybe', 'nbd+unix:///?socket=/' + 'x' * 200,
                    'nbds://h/?tls-psk-file=a&tls-certificates=b'):
            self.refused(uri, 'objmap: ', status=2)


class Restarts(Remote):
    """objmap's own server on a volume loses what was not flushed when it is
    killed: the server that a flush must not lie about."""

    def setUp(self):
        super().setUp()
        self.volume = 'dir:' + self.path('vol')
        self.objmap('create', self.volume, '--size', '64M', '--chunk-size', '64K')

    def serve(self):
        p = self.start(OBJMAP, 'mount', self.volume, self.uri, '--foreground',
                       stdout=self.log('servelog'), stderr=self.log('servelog'))

        def answers():
            s = socket.socket(socket.AF_UNIX)
            try:
                s.connect(self.sock)
                return True
            except OSError:
                return p.poll() is not None
            finally:
                s.close()
        wait_for(answers, 'the server')
        self.assertIsNone(p.poll())
        return p

    def content(self):
        self.objmap('copy', self.volume, self.path('out'), '--overwrite')
        with open(self.path('out'), 'rb') as f:
            return f.read()

    def test_what_was_acknowledged_survives_a_killed_server(self):
        server = self.serve()
        front, client = self.mount(self.uri)
        client.pwrite(b'a' * MIB, 0)
        client.pwrite(b'b' * 4096, 4096)       # over the first, in order
        client.zero(4096, 8192)
        self.kill(server)
        server = self.serve()
        data = b'a' * 4096 + b'b' * 4096 + bytes(4096) + b'a' * (MIB - 12288)
        self.assertEqual(bytes(client.pread(MIB, 0)), data)
        client.flush()
        self.kill(server)
        self.assertEqual(self.content()[:MIB], data)
        self.assertIn('written again', self.said())

    def test_random_writes_and_flushes_under_random_kills(self):
        rng = random.Random(SEED)
        server = self.serve()
        front, client = self.mount(self.uri)
        oracle = bytearray(64 * MIB)
        stop = threading.Event()
        kills, rounds = [], [0]

        def kill_now_and_then():
            nonlocal server
            # Some rounds must pass between two kills, however slow the machine.
            while not stop.is_set():
                wanted = rounds[0] + rng.randint(1, 30)
                while rounds[0] < wanted and not stop.is_set():
                    stop.wait(0.005)
                stop.wait(rng.uniform(0, 0.01))
                self.kill(server)
                stop.wait(rng.uniform(0, 0.2))
                server = self.serve()
                kills.append(1)
        killer = threading.Thread(target=kill_now_and_then)
        killer.start()
        try:
            while len(kills) < 8:
                rounds[0] += 1
                cookies = []
                for slot in rng.sample(range(16), rng.randint(1, 8)):
                    at = slot * 4 * MIB + rng.randrange(0, 1000) * 4096	# all within it
                    if rng.random() < 0.2:
                        cookies.append(client.aio_zero(65536, at))
                        oracle[at:at + 65536] = bytes(65536)
                    else:
                        data = rng.randbytes(rng.choice((512, 4096, 100000)))
                        cookies.append(client.aio_pwrite(
                            nbd.Buffer.from_bytearray(bytearray(data)), at,
                            flags=nbd.CMD_FLAG_FUA if rng.random() < 0.1 else 0))
                        oracle[at:at + len(data)] = data
                while cookies:
                    cookies = [c for c in cookies if not client.aio_command_completed(c)]
                    if cookies:
                        client.poll(1000)
                if rng.random() < 0.3:
                    client.flush()
                at = rng.randrange(0, 60 * MIB)
                self.assertTrue(bytes(client.pread(MIB, at)) == oracle[at:at + MIB])
        finally:
            stop.set()
            killer.join(60)
        client.flush()
        self.kill(server)
        self.assertTrue(self.content() == oracle)

    def test_status_tells_the_reason_and_one_line_is_logged(self):
        server = self.serve()
        front, client = self.mount(self.uri)
        self.kill(server)
        # First that the connection was closed, then that none is to be had.
        wait_for(lambda: 'efused' in (self.status()['store']['trouble'] or {}).get('reason', ''),
                 'the reason in status')
        self.serve()
        self.assertEqual(bytes(client.pread(512, 0)), bytes(512))
        wait_for(lambda: not self.status()['store']['trouble'], 'its end')
        wait_for(lambda: 'answers again' in self.said(), 'a word of it')
        self.assertEqual(self.said().count('trying again'), 1)

    def test_a_given_retry_for_bounds_the_wait(self):
        server = self.serve()
        front, client = self.mount(self.uri, '--retry-for', '4s')
        self.kill(server)
        started = time.monotonic()
        self.assertRaises(nbd.Error, client.pread, 512, 0)
        self.assertRaises(nbd.Error, client.flush)
        self.assertLess(time.monotonic() - started, 25, 'the default is 30 s each')
        self.serve()
        wait_for(lambda: not self.status()['store']['trouble'], 'the server')
        client.pread(512, 0)

    def test_a_short_retry_for_fails_nothing_of_a_server_that_is_only_slow(self):
        self.nbdkit('--filter=delay', 'memory', '1M', 'rdelay=1', 'wdelay=1')
        front, client = self.mount(self.uri, '--retry-for', '0')
        client.pwrite(b'x' * 512, 0)
        self.assertEqual(bytes(client.pread(512, 0)), b'x' * 512)
        self.assertNotIn('trying again', self.said())

    def test_a_retry_for_of_zero_tries_once(self):
        away = 'nbd://127.0.0.1:%d/' % self.nobodys_port()
        for verb, said in ('info', b'given up'), ('list', b'refused'):
            p = self.objmap(verb, away, '--retry-for', '0', status=1, timeout=20)
            self.assertIn(said, p.stderr)
            self.assertNotIn(b'trying again', p.stderr)

    def test_an_export_of_another_size_is_refused(self):
        kit = self.nbdkit('memory', '4M')
        front, client = self.mount(self.uri)
        client.pwrite(b'x' * 512, 0)
        self.kill(kit)
        kit = self.nbdkit('memory', '5M')
        self.assertRaises(nbd.Error, client.pread, 512, 0)
        self.assertRaises(nbd.Error, client.flush)
        wait_for(lambda: 'another size' in self.said(), 'a word of it')
        self.kill(kit)
        self.nbdkit('memory', '4M')
        wait_for(lambda: not self.status()['store']['trouble'], 'the former one')
        self.assertEqual(bytes(client.pread(512, 0)), b'x' * 512)
        client.flush()

    def test_a_flush_that_fails_is_told(self):
        flag = self.path('fail')
        self.nbdkit('eval', 'get_size=echo 1M', 'can_write=exit 0', 'can_flush=exit 0',
                    'pread=dd if=/dev/zero count=$3 iflag=count_bytes', 'pwrite=cat >/dev/null',
                    'flush=if [ -e %s ]; then echo ENOSPC full >&2; exit 1; fi' % flag)
        front, client = self.mount(self.uri)
        client.pwrite(b'x' * 512, 0)
        open(flag, 'w').close()
        self.assertRaises(nbd.Error, client.flush)
        os.unlink(flag)
        client.flush()

    def test_several_connections_only_where_a_flush_covers_all(self):
        def connections(wanted, *args):
            kit = self.nbdkit('-t', '16', *args)
            front, client = self.mount(self.uri)
            cookies = [client.aio_pread(nbd.Buffer(MIB), n * MIB) for n in range(8)]
            for c in cookies:
                while not client.aio_command_completed(c):
                    client.poll(1000)

            def count():
                out = run_status('ss', '-xH', 'src', self.sock).stdout
                return len([x for x in out.splitlines() if b'ESTAB' in x])
            # All but the first are made while it works.
            wait_for(lambda: count() >= wanted, 'the connections')
            n = count()
            client.shutdown()
            front.send_signal(signal.SIGTERM)
            self.assertEqual(front.wait(20), 0)
            self.kill(kit)
            self.assertEqual(n, wanted)
        connections(4, 'memory', '16M')
        connections(1, '--filter=multi-conn', 'memory', '16M', 'multi-conn-mode=disable')


class Keys(Remote):
    def tls_server(self, *args):
        with socket.create_server(('127.0.0.1', 0)) as s:
            # As systemd gives it: who connects before nbdkit is ready waits.
            self.start('sh', '-c', 'exec 3<&"$0"; LISTEN_PID=$$ LISTEN_FDS=1 exec "$@"',
                       str(s.fileno()), 'nbdkit', '-f', '--tls=require', *args, 'memory', '2M',
                       pass_fds=[s.fileno()], stderr=self.log('kitlog'))
            return s.getsockname()[1]

    def test_certificates(self):
        make_certificates(self)
        port = self.tls_server('--tls-certificates=' + self.path('server'))
        good = '?tls-certificates=' + self.path('client')
        self.objmap('info', 'nbds://localhost:%d/%s' % (port, good))
        with open(self.path('f'), 'wb') as f:
            f.write(os.urandom(2 * MIB))
        self.objmap('copy', self.path('f'), 'nbds://localhost:%d/%s' % (port, good),
                    '--overwrite', '--verify')
        self.refused('nbd://localhost:%d/' % port, 'write nbds:')
        strange = self.path('strangers')
        os.mkdir(strange)
        os.link(self.path('strange.pem'), strange + '/ca-cert.pem')
        self.refused('nbds://localhost:%d/?tls-certificates=%s' % (port, strange), 'ertificate')
        self.refused('nbds://localhost:%d/?tls-certificates=%s' % (port, self.path('nowhere')),
                     'ca-cert.pem', 'No such file')
        # The certificate is localhost's and 127.0.0.1's, not this address's.
        self.refused('nbds://127.0.0.2:%d/%s' % (port, good), args=('--retry-for', '1s'))
        self.objmap('info', 'nbds://localhost:%d/?tls-verify-peer=no&tls-certificates=%s' % (
            port, strange))

    def test_pre_shared_keys(self):
        for name in ('k', 'other'):
            self.run_ok('psktool', '-u', 'alice', '-p', self.path(name))
        port = self.tls_server('--tls-psk=' + self.path('k'))
        self.objmap('info', 'nbds://alice@127.0.0.1:%d/?tls-psk-file=%s' % (port, self.path('k')))
        self.refused('nbds://alice@127.0.0.1:%d/?tls-psk-file=%s' % (port, self.path('other')),
                     'tls-psk-file')
        self.refused('nbds://127.0.0.1:%d/?tls-psk-file=%s' % (port, self.path('none')),
                     'No such file')

    def test_tls_where_there_is_none(self):
        self.nbdkit('memory', '1M')
        self.run_ok('psktool', '-u', 'alice', '-p', self.path('k'))
        self.refused('nbds+unix://alice@/?socket=%s&tls-psk-file=%s' % (self.sock, self.path('k')),
                     'nbd:')


class Line:
    """The server's side of one connection, spoken by hand."""

    def __init__(self, s, size, flags, more=()):
        """Shakes hands: GO is answered, the options in MORE are acknowledged, others are
        not known."""
        self.s, self.said = s, set()
        s.sendall(NBDMAGIC + struct.pack('>H', 3))
        self.get(4)
        option = 0
        while option != GO:
            _, option, length = struct.unpack('>QII', self.get(16))
            self.get(length)
            if option == GO:
                self.reply(option, 3, struct.pack('>HQH', 0, size, flags))
            known = option == GO or option in more
            self.said.add(option)
            self.reply(option, 1 if known else 0x80000001)

    def get(self, n):
        data = b''
        while len(data) < n:
            part = self.s.recv(n - len(data))
            if not part:
                raise ConnectionError
            data += part
        return data

    def reply(self, option, kind, data=b''):
        self.s.sendall(struct.pack('>QIII', 0x3e889045565a9, option, kind, len(data)) + data)

    def command(self):
        """(kind, cookie, offset, count)"""
        return struct.unpack('>IHHQQI', self.get(28))[2:]


def serve_by_hand(test, path, talk):
    """Calls TALK with each connection to PATH, in a thread of its own."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen()
    test.addCleanup(listener.close)

    def one(s):
        try:
            talk(s)
        except OSError:
            pass
        s.close()

    def accept():
        while True:
            try:
                s, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=one, args=(s,), daemon=True).start()
    threading.Thread(target=accept, daemon=True).start()


class Hostile(Remote):
    """A server of our own that shakes hands well, and then does harm."""

    def hostile(self, answer, size=MIB, flags=1 | 4 | 8):
        self.commands = []
        self.answered = threading.Event()

        def talk(s):
            line = Line(s, size, flags, more=(8,))
            while True:
                kind, cookie, offset, count = line.command()
                self.commands.append(kind)
                if kind == 2:
                    return
                if kind == READ:
                    s.sendall(answer(cookie, offset, count))
                    self.answered.set()
        serve_by_hand(self, self.sock, talk)

    @staticmethod
    def chunk(cookie, kind, data, flags=1, length=None):
        return struct.pack('>IHHQI', 0x668e33ef, flags, kind, cookie,
                           len(data) if length is None else length) + data

    def test_no_such_answer_is_ever_data(self):
        def data(offset, count):
            return struct.pack('>Q', offset) + b'E' * count
        cases = {
            'short': lambda c, o, n: self.chunk(c, 1, data(o, n - 512)),
            'long': lambda c, o, n: self.chunk(c, 1, data(o, n + 512)),
            'nothing but an end': lambda c, o, n: self.chunk(c, 0, b''),
            'elsewhere': lambda c, o, n: self.chunk(c, 1, data(o + 4096, n)),
            'another cookie': lambda c, o, n: self.chunk(c + 99, 1, data(o, n)),
            'a simple reply': lambda c, o, n: struct.pack('>IIQ', 0x67446698, 0, c) + b'E' * n,
            'garbage': lambda c, o, n: os.urandom(200),
            'an error': lambda c, o, n: self.chunk(c, 32769, struct.pack('>IH', 5, 0)),
            'data and an error': lambda c, o, n: self.chunk(c, 1, data(o, n), 0) +
            self.chunk(c, 32769, struct.pack('>IH', 5, 0)),
            'an unknown kind': lambda c, o, n: self.chunk(c, 77, data(o, n)),
            'a hole too long': lambda c, o, n: self.chunk(c, 2, struct.pack('>QI', o, n * 2)),
        }
        for name, answer in cases.items():
            with self.subTest(name):
                self.sock = self.path(''.join(filter(str.isalpha, name)))
                self.hostile(answer)
                uri = 'nbd+unix:///?connections=1&socket=' + self.sock
                p = self.objmap('copy', '--quiet', '--retry-for', '1s', uri, '-', status=1,
                                timeout=30)
                self.assertNotIn(b'EEEE', p.stdout)

    def test_half_an_answer_is_waited_for(self):
        self.hostile(lambda c, o, n: self.chunk(c, 1, struct.pack('>Q', o) + b'E' * n)[:100])
        p = self.start(OBJMAP, 'copy', '--quiet', self.uri, self.path('out'))
        self.assertTrue(self.answered.wait(20))
        self.assertRaises(subprocess.TimeoutExpired, p.wait, 2)
        self.kill(p)
        with open(self.path('out'), 'rb') as f:
            self.assertNotIn(b'EEEE', f.read())

    def test_a_server_that_is_silent_is_told_of_once_and_waited_for(self):
        go_on = threading.Event()

        def answer(cookie, offset, count):
            go_on.wait(60)
            return self.chunk(cookie, 1, struct.pack('>Q', offset) + b'E' * count)
        self.hostile(answer)
        self.addCleanup(go_on.set)
        front, client = self.mount(self.uri)
        buffer = nbd.Buffer(4096)
        cookie = client.aio_pread(buffer, 8192)
        trouble = wait_for(lambda: self.status()['store']['trouble'], 'a word', 30)
        self.assertRegex(trouble['reason'], 'not answered a read of 4096 bytes at 8192 for 1. s')
        time.sleep(1)
        go_on.set()
        wait_for(lambda: client.aio_command_completed(cookie) or client.poll(100) < 0,
                 'the answer')
        self.assertEqual(buffer.to_bytearray(), b'E' * 4096)
        wait_for(lambda: not self.status()['store']['trouble'], 'the end of trouble')
        wait_for(lambda: 'answers again' in self.said(), 'a word of it')
        self.assertEqual(self.said().count('still waiting'), 1)
        self.assertEqual(self.said().count('answers again'), 1)

    def lost_when_silent(self, retry_for, seconds):
        silent = [True]

        def answer(cookie, offset, count):
            if silent[0]:
                return b''
            return self.chunk(cookie, 1, struct.pack('>Q', offset) + b'E' * count)
        self.hostile(answer)
        front, client = self.mount(self.uri, '--retry-for', retry_for)
        started = time.monotonic()
        self.assertRaises(nbd.Error, client.pread, 4096, 0)
        self.assertLess(time.monotonic() - started, 25, 'the default is 30 s')
        told = wait_for(lambda: re.search('not answered a read of 4096 bytes at 0 for ([0-9]+) s; '
                                          'trying again', self.said()), 'a word of it')
        self.assertGreaterEqual(int(told.group(1)), seconds)
        silent[0] = False
        wait_for(lambda: not self.status()['store']['trouble'], 'a new connection')
        self.assertEqual(bytes(client.pread(4096, 0)), b'E' * 4096)

    def test_a_server_that_is_silent_for_retry_for_is_lost(self):
        self.lost_when_silent('6s', 6)

    @long_test
    def test_a_server_is_silent_for_some_seconds_before_it_is_lost(self):
        self.lost_when_silent('0', 5)

    def test_a_flush_that_is_never_answered_fails_after_retry_for(self):
        self.hostile(lambda cookie, offset, count: b'')
        front, client = self.mount(self.uri, '--retry-for', '4s')
        cookie = client.aio_flush()

        def failed():
            try:
                self.assertFalse(client.aio_command_completed(cookie))
                return client.poll(100) < 0
            except nbd.Error:
                return True
        wait_for(failed, 'the flush to fail')
        told = wait_for(lambda: re.search('not answered a flush for ([0-9]+) s; trying again',
                                          self.said()), 'a word of it')
        self.assertGreaterEqual(int(told.group(1)), 4)
        self.assertEqual(self.commands.count(3), 1)	# it was not sent again

    @long_test
    def test_one_request_that_is_never_answered_is_given_up_though_others_are(self):
        def answer(cookie, offset, count):
            if offset == 0:
                return b''
            return self.chunk(cookie, 1, struct.pack('>Q', offset) + b'E' * count)
        self.hostile(answer)
        front, client = self.mount(self.uri + '&connections=1', '--retry-for', '5s')
        cookie, started = client.aio_pread(nbd.Buffer(4096), 0), time.monotonic()
        failed = False
        while not failed and time.monotonic() - started < 90:
            client.pread(4096, 8192)
            try:
                failed = client.aio_command_completed(cookie)
            except nbd.Error:
                failed = True
            time.sleep(0.1)
        self.assertTrue(failed)
        self.assertGreater(time.monotonic() - started, 30)
        self.assertEqual(bytes(client.pread(4096, 8192)), b'E' * 4096)

    def test_honest_answers_are_data(self):
        self.hostile(lambda c, o, n: self.chunk(c, 1, struct.pack('>Q', o) + b'E' * n))
        p = self.objmap('copy', '--quiet', self.uri, '-')
        self.assertEqual(p.stdout, b'E' * MIB)

    def test_an_empty_export_is_refused(self):
        self.hostile(lambda c, o, n: b'', size=0)
        self.refused(self.uri, 'empty')


class Memory(Remote):
    def test_a_write_across_the_longest_piece_is_taken(self):
        front, client = self.mount('memory:2G')
        client.pwrite(b'x' * 8192, (1 << 30) - 4096)
        self.assertEqual(bytes(client.pread(8192, (1 << 30) - 4096)), b'x' * 8192)


class Breaking(Remote):
    """A server of our own that can break all its connections at the very moment at which
    an answer is on its way: who asked is stopped, so that it sees both at once."""

    FLAGS = 1 | 4 | 8 | 32 | 256	# flush, FUA, trim, several connections; no zeroes

    def breaking(self, size=8 * MIB):
        self.memory, self.lines, self.when = bytearray(size), [], None
        serve_by_hand(self, self.sock, lambda s: self.talk(s, size))

    def talk(self, s, size):
        line = Line(s, size, self.FLAGS)
        self.lines.append(s)
        while True:
            kind, cookie, at, count = line.command()
            data = line.get(count) if kind == 1 else b''
            if kind == 2:
                return
            answer = struct.pack('>IIQ', 0x67446698, 0, cookie)
            if self.when and self.when(kind, data):
                self.when = None
                self.break_all(s, answer)
                return
            if kind == 1:
                self.memory[at:at + count] = data
            s.sendall(answer + (bytes(self.memory[at:at + count]) if kind == READ else b''))

    def break_all(self, s, answer):
        lines, self.lines = self.lines, []
        self.front.send_signal(signal.SIGSTOP)
        time.sleep(0.1)
        s.sendall(answer)
        for line in lines:
            try:
                line.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
        time.sleep(0.1)
        self.front.send_signal(signal.SIGCONT)

    def test_a_flush_that_is_answered_while_all_connections_break(self):
        self.breaking()
        self.front, client = self.mount(self.uri)
        wait_for(lambda: len(self.lines) > 1, 'several connections')
        client.pwrite(b'x' * 8192, 4096)
        self.when = lambda kind, data: kind == 3
        client.flush()
        self.assertIsNone(self.when)
        client.pwrite(b'y' * 4096, 0)
        client.flush()
        self.assertEqual(bytes(self.memory[:12288]), b'y' * 4096 + b'x' * 8192)

    def test_zeros_that_take_several_commands_begin_again_after_a_break(self):
        self.breaking()
        self.front, client = self.mount(self.uri)
        client.pwrite(b'x' * (4 * MIB), 0)
        client.flush()
        # It acknowledges the first of them, and is gone with what it had in memory.
        self.when = lambda kind, data: kind == 1 and not any(data)
        client.zero(4 * MIB, 0)
        client.flush()
        self.assertIsNone(self.when)
        self.assertEqual(bytes(self.memory[:4 * MIB]), bytes(4 * MIB))

    def test_a_mount_whose_last_flush_failed_does_not_end_well(self):
        flag = self.path('fail')
        self.nbdkit('eval', 'get_size=echo 1M', 'can_write=exit 0', 'can_flush=exit 0',
                    'pread=dd if=/dev/zero count=$3 iflag=count_bytes', 'pwrite=cat >/dev/null',
                    'flush=if [ -e %s ]; then rm %s; echo EIO bad >&2; exit 1; fi' % (flag, flag))
        front, client = self.mount(self.uri)
        client.pwrite(b'x' * 512, 0)
        open(flag, 'w').close()
        client.shutdown()
        front.send_signal(signal.SIGTERM)
        wait_for(lambda: 'cannot be saved' in self.said(), 'the failed flush')
        # The next one succeeds, and what the first covered may be gone.
        front.send_signal(signal.SIGTERM)
        self.assertEqual(front.wait(30), 1)


if __name__ == '__main__':
    main()
