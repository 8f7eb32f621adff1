"""What the integration tests share: a temporary world, programs with bounded
waits, probes of what this machine can do, and a closing line with true counts.

A test file is run by itself:  OBJMAP=.../objmap /usr/bin/python3 tests/AREA/test_x.py
"""
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import unittest

TOP = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
OBJMAP = os.environ.get('OBJMAP') or os.path.join(TOP, 'build', 'objmap')
BUILD = os.environ.get('OBJMAP_BUILD') or os.path.dirname(OBJMAP)
LONG = os.environ.get('OBJMAP_LONG') == '1'
SEED = int(os.environ.get('OBJMAP_SEED') or int.from_bytes(os.urandom(4), 'little'))


# ---- probes: the only reasons for a skip ---------------------------------------

def _has_fuse():
    try:
        os.close(os.open('/dev/fuse', os.O_RDWR))
    except OSError:
        return False
    return shutil.which('fusermount3') is not None


def _has_loop():
    return os.geteuid() == 0 and os.path.exists('/dev/loop-control') and \
        subprocess.run(['losetup', '-f'], capture_output=True).returncode == 0


def _can_mount_tmpfs():
    d = tempfile.mkdtemp()
    try:
        if subprocess.run(['mount', '-t', 'tmpfs', '-o', 'size=64k', 'none', d],
                          capture_output=True).returncode:
            return False
        subprocess.run(['umount', d], check=True)
        return True
    finally:
        os.rmdir(d)


PROBES = {
    'root': lambda: os.geteuid() == 0,
    'fuse': _has_fuse,
    'loop': _has_loop,
    'tmpfs': _can_mount_tmpfs,
}
_known = {}


def can(what):
    """Whether this machine can do WHAT: a key of PROBES, or a program's name."""
    if what not in _known:
        probe = PROBES.get(what)
        _known[what] = probe() if probe else shutil.which(what) is not None
    return _known[what]


def require(*what):
    """Skips the test where the machine cannot run it.  A missing program is
    a failure, not a skip: contrib/check.sh installs all that the tests need."""
    for w in what:
        if can(w):
            continue
        if w in PROBES:
            raise unittest.SkipTest('needs ' + w)
        raise AssertionError(w + ' is not installed (contrib/check.sh installs it)')


def long_test(test):
    """Marks a test for contrib/check.sh --long; elsewhere it does not exist."""
    test.only_long = True
    return test


# ---- waiting, always bounded ----------------------------------------------------

def wait_for(condition, what, seconds=20.0):
    """Polls CONDITION until it returns something true, and returns that."""
    end = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            raise AssertionError('waited %gs in vain for %s' % (seconds, what))
        time.sleep(0.01)


def wait_gone(pid, seconds=20.0):
    """Waits until process PID (a child or not) has ended."""
    def gone():
        try:
            if os.waitpid(pid, os.WNOHANG)[0] == pid:
                return True
        except ChildProcessError:
            pass
        try:
            with open('/proc/%d/stat' % pid) as f:
                fields = f.read().rsplit(')', 1)[1].split()
                # A zombie whose other threads live on has not let go of anything.
                return fields[0] == 'Z' and int(fields[17]) <= 1
        except OSError:
            return True
    wait_for(gone, 'process %d to end' % pid, seconds)


def free_port():
    """A port for a server that is started soon: none that the kernel itself gives to
    whoever asks for any, of whom there are many when suites run at once."""
    with open('/proc/sys/net/ipv4/ip_local_port_range') as f:
        end = int(f.read().split()[0])
    while True:
        with socket.socket() as s:
            try:
                s.bind(('127.0.0.1', random.SystemRandom().randrange(end // 2, end)))
            except OSError:
                continue
            return s.getsockname()[1]


# ---- a test's world -----------------------------------------------------------------

class World(unittest.TestCase):
    """A short temporary folder with a runtime and a state folder of its own;
    whatever was started in it is ended with the test."""

    def setUp(self):
        self.dir = tempfile.mkdtemp(prefix='om', dir='/tmp')
        self.env = dict(os.environ, OBJMAP_RUNTIME_DIR=self.dir + '/run',
                        XDG_STATE_HOME=self.dir + '/state', HOME=self.dir,
                        OBJMAP_STATE=self.dir + '/state', LC_ALL='C.UTF-8')
        # HOME is the test's own, but a MinIO once built is kept for all.
        self.env.setdefault('XDG_CACHE_HOME', os.path.expanduser('~/.cache'))
        for name in ('LISTEN_FDS', 'LISTEN_PID', 'NOTIFY_SOCKET'):
            self.env.pop(name, None)
        self.pids = []
        self.mounts = []
        self.addCleanup(self._end)

    def _end(self):
        for pid in self.pids:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        # By force: a killed process may wait for an answer of its own file.
        for m in reversed(self.mounts):
            subprocess.run(['umount', '-f', '-l', m], capture_output=True, timeout=60)
        for pid in self.pids:
            wait_gone(pid)
        shutil.rmtree(self.dir, ignore_errors=True)

    def path(self, name):
        return os.path.join(self.dir, name)

    def program_for_all(self):
        """objmap where every user can run it: it may be built in a home folder."""
        path = self.path('objmap')
        shutil.copy(OBJMAP, path)
        os.chmod(path, 0o755)
        return path

    def objmap(self, *args, status=0, timeout=60, program=None, **kw):
        """Runs objmap to its end and checks its exit status."""
        kw.setdefault('stdin', subprocess.DEVNULL)
        if 'input' in kw:
            kw.pop('stdin')
        kw.setdefault('env', self.env)
        p = subprocess.run([program or OBJMAP, *args], capture_output=True,
                           timeout=timeout, **kw)
        if status is not None and p.returncode != status:
            self.fail('objmap %s: exit %d, expected %d\n%s%s' % (
                ' '.join(args), p.returncode, status,
                p.stdout.decode(errors='replace'), p.stderr.decode(errors='replace')))
        return p

    def mounted(self):
        """What status tells of each mount.  It knows the files of killed daemons of
        the whole machine: those of a test that kills at the same time are not ours."""
        return [m for m in json.loads(self.objmap('status', '--json').stdout)
                if m['state'] != 'dead' or m['where'].startswith(self.dir + '/')]

    def nobodys_port(self):
        """A port at which nobody listens, nor will until the test has ended."""
        s = socket.socket()
        self.addCleanup(s.close)
        s.bind(('127.0.0.1', 0))
        return s.getsockname()[1]

    def start(self, *argv, **kw):
        """Starts a program that is killed when the test ends, if it runs still."""
        kw.setdefault('env', self.env)
        p = subprocess.Popen(argv, **kw)
        self.pids.append(p.pid)
        return p

    def run_ok(self, *argv, timeout=60, **kw):
        kw.setdefault('env', self.env)
        p = subprocess.run(argv, capture_output=True, timeout=timeout, **kw)
        if p.returncode:
            self.fail('%s: exit %d\n%s%s' % (
                ' '.join(argv), p.returncode,
                p.stdout.decode(errors='replace'), p.stderr.decode(errors='replace')))
        return p

    def tmpfs(self, name, size):
        """A small file system of its own, to be filled."""
        require('root', 'tmpfs')
        d = self.path(name)
        os.mkdir(d)
        self.run_ok('mount', '-t', 'tmpfs', '-o', 'size=%d' % size, 'none', d)
        self.mounts.append(d)
        return d


# ---- the demo ------------------------------------------------------------------------

def run_demo(world, *arguments):
    """Runs contrib/demo.sh of the program that is tested, looks at what every volume
    shows there, the loop mount where this machine can do one, and returns what it said."""
    # It runs make, which has nothing to do, and says what it shows on both outputs.
    p = subprocess.run([os.path.join(TOP, 'contrib', 'demo.sh'), '--no-install', *arguments],
                       env=dict(world.env, DEMO_DIR=BUILD, TMPDIR=world.dir), timeout=300,
                       stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                       stderr=subprocess.STDOUT)
    said = p.stdout.decode(errors='replace')
    world.assertEqual(p.returncode, 0, said)
    for words in ('the file is the image, byte for byte', 'what was written is there',
                  'and all that was in the folder, too', 'all good',
                  'the snapshot is the first image, byte for byte', 'That was objmap.'):
        world.assertIn(words, said)
    if can('loop'):
        world.assertRegex(said, '(?s)through a loop device.*\\blost\\+found\\b')
    else:
        world.assertIn('its file system is not mounted', said)
    world.assertEqual([n for n in os.listdir(world.dir) if n.startswith('objmap-demo')], [])
    return said


# ---- the closing line -----------------------------------------------------------------

def _in_this_tier(suite):
    for test in suite:
        if isinstance(test, unittest.TestSuite):
            yield from _in_this_tier(test)
        else:
            method = getattr(test, getattr(test, '_testMethodName', ''), None)
            if LONG or not (getattr(method, 'only_long', False) or
                            getattr(type(test), 'only_long', False)):
                yield test


class _Result(unittest.TextTestResult):
    def __init__(self, *args):
        super().__init__(*args)
        self.passed = 0
        self.seconds = []

    def startTest(self, test):
        super().startTest(test)
        self.began = time.monotonic()

    def stopTest(self, test):
        super().stopTest(test)
        self.seconds.append((time.monotonic() - self.began, test.id().split('.', 1)[1]))

    def addSuccess(self, test):
        super().addSuccess(test)
        self.passed += 1


def main():
    """Runs the tests of the calling file; ends with 'suite: N passed, ...'."""
    names = [a for a in sys.argv[1:] if not a.startswith('-')]
    module = sys.modules['__main__']
    loader = unittest.defaultTestLoader
    tests = loader.loadTestsFromNames(names, module) if names else \
        loader.loadTestsFromModule(module)
    print('seed %d (OBJMAP_SEED)' % SEED)
    result = unittest.TextTestRunner(stream=sys.stdout, verbosity=2,
                                     resultclass=_Result).run(
                                         unittest.TestSuite(_in_this_tier(tests)))
    failed = len(result.failures) + len(result.errors) + len(result.unexpectedSuccesses)
    skipped = len(result.skipped) + len(result.expectedFailures)
    for seconds, name in sorted(result.seconds, reverse=True)[:5]:
        print('slow: %5.1f s %s' % (seconds, name))
    print('suite: %d passed, %d failed, %d skipped' % (result.passed, failed, skipped))
    sys.stdout.flush()
    sys.exit(1 if failed or not result.testsRun else 0)
