#!/usr/bin/python3
"""The NBD server as the program sets it up: each option of a server does what
its name says, and none does another's; TLS; nbdsh; what a goodbye begins."""
import json
import os
import resource
import socket
import subprocess
import sys
import time

import nbd

from serving import DISC, READ, Closed, Raw, World, main, run_status, wait_for, wait_gone
from fixtures import OBJMAP, TOP, free_port, require
from test_tls import make_certificates

KIB, MIB = 1 << 10, 1 << 20


class Program(World):
    def setUp(self):
        super().setUp()
        self.where = 'nbd+unix:///?socket=' + self.path('sock')

    def mount(self, place, *options, where=None, **kw):
        """Mounts and returns WHERE as it was printed."""
        out = self.objmap('mount', place, where or self.where, '--log', self.path('log'),
                          *options, **kw).stdout
        where = out.decode().strip()
        self.pid = self.status(where)['pid']
        self.pids.append(self.pid)
        return where

    def status(self, where=None):
        return json.loads(self.objmap('status', where or self.where, '--json').stdout)

    def umount(self, where=None):
        self.objmap('umount', where or self.where)

    def raw(self, **kw):
        s = socket.socket(socket.AF_UNIX)
        s.connect(self.path('sock'))
        raw = Raw(s, **kw)
        self.addCleanup(raw.close)
        return raw

    def threads(self):
        folder = '/proc/%d/task' % self.pid
        names = {}
        for task in os.listdir(folder):
            with open('%s/%s/comm' % (folder, task)) as f:
                names[task] = f.read().strip()
        return names


class Gate:
    """A device of zeros that notes each read and answers none before it is
    opened."""

    def __init__(self, world):
        self.seen, self.opened = world.path('seen'), world.path('opened')
        open(self.seen, 'w').close()
        if os.path.exists(self.opened):
            os.unlink(self.opened)
        sock = world.path('gate')
        if os.path.exists(sock):
            os.unlink(sock)
        self.process = world.start(
            'nbdkit', '-f', '-U', sock, '-t', '32', '-r', 'eval', 'get_size=echo 16M',
            'thread_model=echo parallel',
            'pread=echo $3 >>%s; until [ -e %s ]; do sleep 0.05; done; '
            'exec head -c $3 /dev/zero' % (self.seen, self.opened))
        wait_for(lambda: os.path.exists(sock), 'nbdkit')
        self.place = 'nbd+unix:///?socket=' + sock

    def count(self):
        with open(self.seen) as f:
            return len(f.readlines())

    def open(self):
        open(self.opened, 'w').close()

    def close(self):
        self.process.terminate()
        self.process.wait(20)


class Limits(Program):
    def check(self, nr_clients, count, seen, *options):
        """Of 8 reads of COUNT bytes that each client sends, SEEN reach the device
        at once; all are answered in the end."""
        gate = Gate(self)
        self.mount(gate.place, *options)
        clients = [self.raw().ready() for _ in range(nr_clients)]
        for raw in clients:
            for n in range(8):
                raw.send(READ, n * count, count, cookie=n)
        wait_for(lambda: gate.count() >= seen, 'the reads')
        time.sleep(0.2)
        self.assertEqual(gate.count(), seen)
        gate.open()
        for raw in clients:
            self.assertEqual(sorted(raw.answer(count)[0] for _ in range(8)), list(range(8)))
        self.umount()
        gate.close()

    def test_each_limit_bounds_what_it_names(self):
        """One client or two, few bytes or many: each limit has its own answer."""
        for nr_clients, count, option, value, seen in (
                (2, 4 * KIB, '--max-requests', '3', 3),
                (2, 64 * KIB, '--max-bytes', '192K', 3),
                (2, 4 * KIB, '--max-client-requests', '3', 6),
                (2, 64 * KIB, '--max-client-bytes', '192K', 6),
                (2, 128 * KIB, '--max-total-bytes', '384K', 3),
                (2, 4 * KIB, '--max-total-bytes', '1M', 16)):
            with self.subTest(option=option):
                self.check(nr_clients, count, seen, option, value)

    def test_jobs_is_how_many_requests_a_copy_and_verify_make(self):
        for nr, verb, *target in ((1, 'copy', 'null:16M'), (5, 'copy', 'null:16M'),
                                  (3, 'verify')):
            with self.subTest(verb=verb, jobs=nr):
                gate = Gate(self)
                p = self.start(OBJMAP, verb, gate.place, *target, '--jobs', str(nr), '-q',
                               stdout=subprocess.DEVNULL)
                wait_for(lambda: gate.count() >= nr, 'the reads')
                time.sleep(0.2)
                self.assertEqual(gate.count(), nr)
                gate.open()
                self.assertEqual(p.wait(60), 0)
                gate.close()

    def test_max_clients_refuses_one_more(self):
        self.mount('memory:1M', '--max-clients', '3')
        self.assertEqual(self.status()['frontend']['max_clients'], 3)
        clients = [self.raw().ready() for _ in range(3)]
        with self.assertRaises(Closed):
            self.raw().ready()
        for raw in clients:
            self.assertEqual(raw.do(READ, 0, 512), 0)
        self.umount()

    def test_descriptors_are_raised_for_the_clients_that_may_come(self):
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        self.assertGreater(hard, 2000, 'the hard limit of this machine is too low')
        self.mount('memory:1M', '--max-clients', '1000', preexec_fn=lambda:
                   resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard)))
        clients = [self.raw().ready() for _ in range(300)]
        for raw in clients:
            self.assertEqual(raw.do(READ, 0, 512), 0)
        self.assertEqual(self.status()['clients'], 300)
        for raw in clients:
            raw.close()
        self.umount()


class Server(Program):
    def test_block_size_is_what_clients_are_told(self):
        for options, size in (([], 4 * KIB), (['--block-size', '128K'], 128 * KIB)):
            self.mount('memory:1M', *options)
            client = nbd.NBD()
            client.connect_uri(self.where)
            self.assertEqual(client.get_block_size(nbd.SIZE_PREFERRED), size)
            client.shutdown()
            self.umount()

    def test_handshake_timeout_closes_who_says_nothing(self):
        self.mount('memory:1M', '--handshake-timeout', '1s')

        def join():
            try:
                return self.raw().ready()
            except (Closed, OSError):	# a machine that stalls: its time was over
                return None
        worker = wait_for(join, 'a client')
        start = time.monotonic()
        silent = self.raw(greet=False)
        self.assertTrue(silent.closed())
        took = time.monotonic() - start
        self.assertGreater(took, 0.9)
        self.assertLess(took, 9, 'the default is 10 s')
        self.assertEqual(worker.do(READ, 0, 512), 0)
        self.umount()

    def test_threads_is_their_number(self):
        for nr in (1, 3):
            self.mount('memory:1M', '--threads', str(nr))
            self.assertEqual(sorted(n for n in self.threads().values() if n[:4] == 'nbd-'),
                             ['nbd-%d' % i for i in range(nr)])
            self.umount()

    def yields(self, *options):
        """How often the program gave way while it polled, in 20 requests."""
        library, counted = self.path('count-yields.so'), self.path('yields')
        if not os.path.exists(library):
            require('gcc')
            self.run_ok('gcc', '-shared', '-fPIC', '-o', library,
                        TOP + '/tests/nbd/count-yields.c', '-ldl')
        self.mount('pattern:2M', '--threads', '1', *options,
                   env=dict(self.env, LD_PRELOAD=library, YIELDS=counted))
        client = self.raw().ready()
        for _ in range(20):
            self.assertEqual(client.do(READ, 0, 4 * KIB), 0)
            time.sleep(0.01)		# more than any poll lasts
        self.umount()
        return os.path.getsize(counted) if os.path.exists(counted) else 0

    def test_no_poll_sleeps_between_any_two_requests(self):
        self.assertEqual(self.yields('--no-poll'), 0)
        if len(os.sched_getaffinity(0)) > 1:	# else no loop may take the only one
            self.assertGreater(self.yields(), 0)

    def test_nbdsh(self):
        self.mount('memory:4M')
        # nbdsh runs the first python3 of the PATH; ours has libnbd's module.
        env = dict(self.env, PATH=os.path.dirname(sys.executable) + ':' + os.environ['PATH'])
        said = self.run_ok('nbdsh', '-u', self.where, '-c', 'h.pwrite(b"shell" * 100, 4000)', '-c',
                           'h.flush()', '-c', 'print(h.get_size(), h.pread(5, 4000).decode())',
                           '-c', 'h.zero(500, 4000)', '-c',
                           'print(h.pread(500, 4000) == bytes(500))', env=env).stdout
        self.assertEqual(said.split(), [b'%d' % (4 * MIB), b'shell', b'True'])
        self.umount()


class Goodbye(Program):
    def test_disc_begins_to_save_what_was_written(self):
        place = 'dir:' + self.path('vol')
        self.objmap('create', place, '--size', '1M', '--chunk-size', '64K')
        self.mount(place)
        client, other = nbd.NBD(), nbd.NBD()
        client.connect_uri(self.where)
        other.connect_uri(self.where)
        before = self.status()['volume']
        client.pwrite(b'goodbye!' * 512, 0)
        time.sleep(0.3)
        self.assertEqual(self.status()['volume']['commits'], before['commits'],
                         'it is saved without a goodbye')
        client.shutdown()		# sends DISC, and no flush
        saved = wait_for(lambda: (v := self.status()['volume'])['dirty_bytes'] == 0 and v,
                         'the commit')
        self.assertEqual(saved['commits'], before['commits'] + 1)
        self.assertEqual(self.status()['requests']['flush']['requests'], 0)
        other.shutdown()
        self.umount()

    def test_requests_before_disc_are_answered(self):
        """... and the connection is closed only then."""
        gate = Gate(self)
        self.mount(gate.place)
        raw = self.raw().ready()
        for n in range(4):
            raw.send(READ, n * 4096, 4096, cookie=n)
        raw.send(DISC)
        wait_for(lambda: gate.count() == 4, 'the reads')
        gate.open()
        self.assertEqual(sorted(raw.answer(4096)[0] for _ in range(4)), [0, 1, 2, 3])
        self.assertTrue(raw.closed())
        self.umount()


class Tls(Program):
    def uri(self, port, folder, export=''):
        return 'nbds://127.0.0.1:%d/%s?tls-certificates=%s' % (port, export,
                                                              self.path(folder))

    def port(self, where):
        return int(where.rsplit(':', 1)[1].split('/')[0])

    def check(self, uri):
        client = nbd.NBD()
        client.set_uri_allow_local_file(True)
        client.connect_uri(uri)
        self.assertTrue(client.get_tls_negotiated())
        data = os.urandom(100000)
        client.pwrite(data, 777)
        self.assertEqual(bytes(client.pread(len(data), 777)), data)
        return client

    def refused(self, uri):
        self.assertNotEqual(run_status('nbdinfo', uri).returncode, 0, uri)

    def test_certificates_with_mount_and_serve(self):
        make_certificates(self)
        # One who does not know our CA.
        os.mkdir(self.path('wrong'))
        os.link(self.path('strange.pem'), self.path('wrong/ca-cert.pem'))
        where = self.mount('memory:1M', '--tls-certificates', self.path('server'),
                           where='nbds://127.0.0.1:0/disk')
        port = self.port(where)
        self.run_ok('nbdinfo', self.uri(port, 'client', 'disk'))
        client = self.check(self.uri(port, 'stranger', 'disk'))
        wait_for(lambda: [c['tls'] for c in self.status(where)['frontend']['connections']] ==
                 [True], 'it alone to be there')
        client.shutdown()
        self.refused(self.uri(port, 'wrong', 'disk'))
        self.refused('nbd://127.0.0.1:%d/disk' % port)
        self.refused(self.uri(port, 'client', 'other'))
        self.umount(where)

        port = free_port()
        with open(self.path('serve.conf'), 'w') as f:
            f.write('[mount]\nplace = memory:1M\nwhere = nbds://127.0.0.1:%d/one\n'
                    '[mount]\nplace = memory:2M\nwhere = %s\n' % (port, self.where))
        out = self.objmap('serve', self.path('serve.conf'), '--tls-certificates',
                          self.path('server'), '--tls-verify-peer', '--log', self.path('log'))
        where = out.stdout.decode().split()[0]
        pid = self.status(where)['pid']
        self.pids.append(pid)
        self.check(self.uri(port, 'client', 'one')).shutdown()
        self.refused(self.uri(port, 'stranger', 'one'))
        self.refused(self.uri(port, 'wrong', 'one'))
        self.refused('nbd://127.0.0.1:%d/one' % port)
        self.run_ok('nbdinfo', self.where)	# the other is without TLS
        self.umount(where)
        self.umount()
        wait_gone(pid)

    def test_pre_shared_keys(self):
        for name in ('right', 'wrong'):
            self.run_ok('psktool', '-u', 'alice', '-p', self.path(name))
            os.chmod(self.path(name), 0o600)
        where = self.mount('memory:1M', '--tls-psk', self.path('right'),
                           where='nbds://127.0.0.1:0/disk')
        uri = 'nbds://%s@127.0.0.1:%d/disk?tls-psk-file=%s'
        port = self.port(where)
        self.run_ok('nbdinfo', uri % ('alice', port, self.path('right')))
        self.check(uri % ('alice', port, self.path('right'))).shutdown()
        self.refused(uri % ('alice', port, self.path('wrong')))
        self.refused(uri % ('mallory', port, self.path('right')))
        self.refused('nbd://127.0.0.1:%d/disk' % port)
        self.umount(where)

    def test_a_unix_socket_has_tls_too(self):
        make_certificates(self)
        where = 'nbds+unix:///?socket=' + self.path('sock')
        self.mount('memory:1M', '--tls-certificates', self.path('server'), where=where)
        self.run_ok('nbdinfo', where + '&tls-certificates=' + self.path('client') +
                    '&tls-hostname=localhost')
        self.refused(self.where)
        self.umount(where)


if __name__ == '__main__':
    main()
