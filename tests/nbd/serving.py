"""What the NBD tests share: the tests' server, and NBD spoken by hand, so
that a test can say what no honest client says."""
import json
import os
import re
import signal
import socket
import struct
import subprocess
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
from fixtures import BUILD, SEED, World, main, require, wait_for, wait_gone  # noqa: E402,F401

SERVE = os.path.join(BUILD, 'tests', 'nbd', 'nbd-serve')

READ, WRITE, DISC, FLUSH, TRIM, CACHE, ZEROES, STATUS = range(8)
FUA, NO_HOLE, DF, REQ_ONE, FAST_ZERO = 1, 2, 4, 8, 16
EXPORT_NAME, ABORT, LIST, STARTTLS, INFO, GO, STRUCTURED, LIST_META, SET_META = \
    1, 2, 3, 5, 6, 7, 8, 9, 10
ACK, SERVER, REP_INFO, META = 1, 2, 3, 4
UNSUP, INVALID, TLS_REQD, UNKNOWN, TOO_BIG = (0x80000000 | n for n in (1, 3, 5, 6, 9))
EPERM, EIO, EINVAL, ENOSPC, EOVERFLOW, ENOTSUP = 1, 5, 22, 28, 75, 95


class Server:
    """A running nbd-serve."""

    started = 0

    def __init__(self, world, place, *args, unix=True, **kw):
        Server.started += 1
        self.socket = world.path('s%d' % Server.started)
        self.log = world.path('log%d' % Server.started)
        if unix:
            args += ('--unix', self.socket)
        with open(self.log, 'wb') as log:
            self.process = world.start(SERVE, place, *args, stderr=log, **kw)
        wait_for(lambda: b'ready' in self.output() or self.process.poll() is not None,
                 'the server')
        if self.process.poll() is not None:
            raise AssertionError('nbd-serve ended: ' + self.output().decode())
        self.port = int(re.search(rb'ready (\d+)', self.output()).group(1))

    def output(self):
        with open(self.log, 'rb') as log:
            return log.read()

    def uri(self, export=''):
        return 'nbd+unix:///%s?socket=%s' % (export, self.socket)

    def status(self):
        """Its status as it is now."""
        before = self.output().count(b'}\n')
        self.process.send_signal(signal.SIGUSR1)
        said = wait_for(lambda: (out := self.output()).count(b'}\n') > before and out,
                        'the status')
        return json.loads([line for line in said.splitlines() if line[:1] == b'{'][-1])

    def stop(self):
        """Ends it as a user would; its status as it was then."""
        self.process.terminate()
        status = self.process.wait(20)
        if status:
            raise AssertionError('nbd-serve: exit %d\n%s' % (status, self.output().decode()))
        return json.loads(self.output().splitlines()[-1])

    def resident(self):
        """KiB of memory."""
        with open('/proc/%d/status' % self.process.pid) as f:
            return int(re.search(r'VmRSS:\s+(\d+)', f.read()).group(1))

    def cpu(self):
        """Seconds of CPU used."""
        with open('/proc/%d/stat' % self.process.pid) as f:
            fields = f.read().rsplit(')', 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf('SC_CLK_TCK')

    def uses_no_cpu(self, seconds, most):
        """Whether it uses at most MOST seconds of it within SECONDS: in one of several
        tries, for a machine that stalls puts off what it had to do before."""
        for _ in range(3):
            before = self.cpu()
            time.sleep(seconds)
            if (used := self.cpu() - before) <= most:
                return True
            print('%.2f s of CPU in %g s' % (used, seconds), end=' ... ')
        return False

    def raw(self, **kw):
        s = socket.socket(socket.AF_UNIX)
        s.connect(self.socket)
        return Raw(s, **kw)


class Closed(Exception):
    pass


class Raw:
    """One connection, spoken by hand."""

    def __init__(self, sock, greet=True, flags=3):
        self.s = sock
        self.s.settimeout(30)
        self.structured = False
        if greet:
            magic, option, self.server_flags = struct.unpack('>8s8sH', self.get(18))
            assert magic == b'NBDMAGIC' and option == b'IHAVEOPT'
            self.put(struct.pack('>I', flags))

    def get(self, count):
        data = b''
        while len(data) < count:
            try:
                part = self.s.recv(count - len(data))
            except ConnectionError:
                part = b''
            if not part:
                raise Closed()
            data += part
        return data

    def put(self, data):
        self.s.sendall(data)

    def close(self):
        self.s.close()

    def closed(self):
        """Whether the server closes this, within the time-out."""
        try:
            while self.s.recv(65536):
                pass
        except ConnectionError:
            pass
        return True

    def option(self, option, data=b'', length=None):
        self.put(struct.pack('>8sII', b'IHAVEOPT', option,
                             len(data) if length is None else length) + data)

    def reply(self):
        """(option, type, data)"""
        magic, option, kind, length = struct.unpack('>QIII', self.get(20))
        assert magic == 0x3e889045565a9, hex(magic)
        return option, kind, self.get(length)

    def ask(self, option, data=b'', length=None):
        """All replies to an option, the last one being ACK or an error."""
        self.option(option, data, length)
        replies = []
        while True:
            got, kind, data = self.reply()
            assert got == option
            replies.append((kind, data))
            if kind == ACK or kind & 0x80000000:
                return replies

    def go(self, name=b'', infos=(), option=GO):
        data = struct.pack('>I', len(name)) + name + struct.pack('>H', len(infos)) + \
            b''.join(struct.pack('>H', i) for i in infos)
        return self.ask(option, data)

    def ready(self, name=b'', structured=False):
        if structured:
            assert self.ask(STRUCTURED)[-1][0] == ACK
            self.structured = True
            assert self.ask(SET_META, meta(name, b'base:allocation'))[-1][0] == ACK
        assert self.go(name)[-1][0] == ACK
        return self

    def send(self, command, offset=0, count=0, flags=0, cookie=1, payload=b'',
             magic=0x25609513):
        self.put(struct.pack('>IHHQQI', magic, flags, command, cookie, offset, count)
                 + payload)

    def answer(self, count=0):
        """A simple reply: (cookie, error, COUNT bytes of data if it is no error);
        a structured one: (cookie, error, data), with the chunk's type in kind."""
        magic, = struct.unpack('>I', self.get(4))
        if magic == 0x67446698:
            error, cookie = struct.unpack('>IQ', self.get(12))
            return cookie, error, self.get(count) if count and not error else b''
        assert magic == 0x668e33ef, hex(magic)
        flags, self.kind, cookie, length = struct.unpack('>HHQI', self.get(16))
        assert flags == 1
        data = self.get(length)
        if self.kind == 32769:
            return cookie, struct.unpack('>I', data[:4])[0], b''
        return cookie, 0, data[8:] if self.kind == 1 else data

    def do(self, command, offset=0, count=0, flags=0, payload=b''):
        """The error of one command."""
        self.send(command, offset, count, flags, 7, payload)
        cookie, error, self.data = self.answer(count if command == READ else 0)
        assert cookie == 7
        return error


def meta(name, *queries):
    return struct.pack('>I', len(name)) + name + struct.pack('>I', len(queries)) + \
        b''.join(struct.pack('>I', len(q)) + q for q in queries)


def pattern(offset, count):
    """What pattern: holds: every 8 bytes their own offset, big-endian."""
    assert offset % 8 == 0 and count % 8 == 0
    return b''.join(struct.pack('>Q', at) for at in range(offset, offset + count, 8))


def run_status(*argv, **kw):
    return subprocess.run(argv, capture_output=True, timeout=30, **kw)
