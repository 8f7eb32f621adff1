"""mount, umount, status and serve: the daemon that is left behind, its control
socket, its signals, NBD exports, given connections, systemd, serve files."""
import glob
import hashlib
import json
import os
import signal
import socket
import stat
import subprocess
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
import fixtures
from fixtures import OBJMAP, World, can, free_port, require, wait_for, wait_gone

MIB = 1 << 20


def nbd_handle():
    import nbd
    return nbd.NBD()


class Mount(World):
    def volume(self, name='vol', size='16M', *options):
        place = 'dir:' + self.path(name)
        self.objmap('create', place, '--size', size, '--chunk-size', '64K', *options)
        return place

    def unix(self, name='sock', export=''):
        return 'nbd+unix:///%s?socket=%s' % (export, self.path(name))

    def mount(self, place, where, *options, **kw):
        """Mounts, returns the line it prints."""
        p = self.objmap('mount', place, where, '--log', self.path('log'), *options, **kw)
        line = p.stdout.decode()
        self.assertTrue(line.endswith('\n') and line.count('\n') == 1, line)
        self.pids.append(self.status(line.strip())['pid'])
        return line.strip()

    def status(self, where):
        return json.loads(self.objmap('status', where, '--json').stdout)

    def pid(self, where):
        return self.status(where)['pid']

    def connect(self, where):
        h = nbd_handle()
        h.connect_uri(where)
        return h

    def log(self):
        with open(self.path('log')) as f:
            return f.read()


class Daemon(Mount):
    def test_closed_standard_descriptors_are_no_files_of_the_daemon(self):
        def close(*descriptors):
            for fd in descriptors:
                os.close(fd)

        where = self.unix()
        # Where it is mounted cannot be told: that is an error, and it is not mounted.
        p = self.start(OBJMAP, 'mount', 'memory:1M', where,
                       preexec_fn=lambda: close(0, 1, 2))
        self.assertEqual(p.wait(60), 1)
        self.assertEqual(self.mounted(), [])
        self.run_ok(OBJMAP, 'mount', 'memory:1M', where, preexec_fn=lambda: close(0, 2))
        pid = self.pid(where)
        self.pids.append(pid)
        self.assertEqual({os.readlink('/proc/%d/fd/%d' % (pid, fd)) for fd in range(3)},
                         {'/dev/null'})
        os.kill(pid, signal.SIGTERM)    # what tells of signals has not been lost
        wait_gone(pid)

    def test_a_port_that_was_free_is_printed_and_works(self):
        where = self.mount('memory:1M', 'nbd://127.0.0.1:0/disk')
        self.assertRegex(where, r'^nbd://127\.0\.0\.1:[1-9][0-9]*/disk$')
        h = self.connect(where)
        self.assertEqual(h.get_size(), MIB)
        h.shutdown()
        self.objmap('umount', where)

    def test_json_says_where_and_who(self):
        p = self.objmap('mount', 'memory:1M', self.unix(), '--json')
        told = json.loads(p.stdout)
        self.pids.append(told['pid'])
        self.assertEqual(told['where'], self.unix())
        self.assertEqual(self.pid(self.unix()), told['pid'])
        self.objmap('umount', self.unix())

    def test_the_daemon_holds_nothing_of_the_terminal(self):
        where = self.mount('memory:1M', self.unix())
        pid = self.pid(where)
        for fd in (0, 1, 2):
            self.assertEqual(os.readlink('/proc/%d/fd/%d' % (pid, fd)), '/dev/null')
        self.assertEqual(os.getsid(pid), pid)
        with open('/proc/%d/limits' % pid) as f:
            core = [line for line in f if line.startswith('Max core')][0]
        self.assertEqual(core.split()[4:6], ['0', '0'])
        self.objmap('umount', where)

    def test_the_daemon_keeps_nothing_that_its_caller_had_open(self):
        """Neither a pipe that somebody reads to its end, nor the folder."""
        end, pipe = os.pipe()
        try:
            where = self.mount('memory:1M', self.unix(), pass_fds=[pipe], cwd=self.dir)
            self.assertEqual(os.readlink('/proc/%d/cwd' % self.pid(where)), '/')
            os.close(pipe)
            os.set_blocking(end, False)
            self.assertEqual(os.read(end, 1), b'')
        finally:
            os.close(end)
        self.objmap('umount', where)

    def test_core_keeps_the_limit(self):
        where = self.mount('memory:1M', self.unix(), '--core')
        with open('/proc/%d/limits' % self.pid(where)) as f:
            core = [line for line in f if line.startswith('Max core')][0]
        with open('/proc/self/limits') as f:
            ours = [line for line in f if line.startswith('Max core')][0]
        self.assertEqual(core, ours)
        self.objmap('umount', where)

    def test_a_failure_is_seen_where_mount_was_typed(self):
        p = self.objmap('mount', 'dir:' + self.path('none'), self.unix(), status=1)
        self.assertIn(self.path('none').encode(), p.stderr)
        self.assertEqual(p.stdout, b'')
        self.assertEqual(self.mounted(), [])
        self.assertFalse(os.path.exists(self.path('sock')))

    def test_wrong_words_are_usage_errors(self):
        for place, where in (('dir:' + self.path('x'), 'nothing'),
                             ('nowhere:/x', self.unix()),
                             ('memory:1M', 'nbd:///?socket=x'),
                             ('memory:1M', 'nbd+unix://x?socket=/tmp/x'),
                             ('memory:1M', 'nbd+unix:///x'),
                             ('memory:1M', 'nbd://127.0.0.1:99999/'),
                             ('memory:1M', 'nbd://::1/'),
                             ('memory:1M', 'http://x/'),
                             ('memory:1M', 'fd:x'),
                             ('memory:abc', self.unix()),
                             ('pattern:0', self.unix()),
                             ('null:-1', self.unix()),
                             ('memory:1M', self.unix('s' * 120)),
                             ('memory:1M', '')):
            p = self.objmap('mount', place, where, status=2)
            self.assertTrue(p.stderr.startswith(b'objmap: '), p.stderr)

    def test_wheres_that_are_not_in_this_build_are_refused_by_name(self):
        place = self.volume()
        before = self.objmap('info', place, '--json').stdout
        for where in 'nbd', '/dev/nbd0', 'uffd:' + self.path('u'):
            p = self.objmap('mount', place, where, status=2)
            self.assertEqual(p.stdout, b'')
            self.assertRegex(p.stderr.decode(), r'^objmap: %s: .*not in this build' % where)
        self.assertEqual(self.objmap('info', place, '--json').stdout, before)
        self.assertFalse(os.path.exists(self.path('u')))

    def test_options_that_contradict_are_usage_errors(self):
        place = self.volume()
        for options in (['--follow'], ['--durability', 'journal'],
                        ['--durability', 'journal', '--direct'], ['--cache', 'memory'],
                        ['--cache-size', '1G']):
            p = self.objmap('mount', place, self.unix(), *options, status=2)
            self.assertTrue(p.stderr.startswith(b'objmap: '), p.stderr)
        self.objmap('mount', 'memory:1M', self.unix(), '--follow', '--read-only', status=2)
        self.objmap('umount', self.unix(), '--no-drain', status=2)

    def test_who_asks_for_tls_is_not_served_without(self):
        with open(self.path('psk'), 'w') as f:
            f.write('me:0123456789abcdef0123456789abcdef\n')
        os.chmod(self.path('psk'), 0o600)
        for options in (['--tls-psk', self.path('psk')], ['--tls-verify-peer'],
                        ['--tls-certificates', self.dir]):
            p = self.objmap('mount', 'memory:1M', self.unix(), *options, status=2)
            self.assertIn(b'nbds:', p.stderr)
        self.objmap('mount', 'memory:1M', 'nbds://127.0.0.1:0/', status=2)
        self.objmap('mount', 'memory:1M', 'nbds://127.0.0.1:0/', '--tls-verify-peer',
                    '--tls-psk', self.path('psk'), status=2)
        # A file or the environment may mean other mounts.
        where = self.mount('memory:1M', self.unix(),
                           env=dict(self.env, OBJMAP_TLS_PSK=self.path('psk')))
        self.objmap('umount', where)

    def test_a_closed_descriptor_is_refused(self):
        p = self.objmap('mount', 'memory:1M', 'fd:77', status=1)
        self.assertIn(b'fd:77', p.stderr)
        # Low numbers are those that the program itself is about to use.
        for fd in range(3, 24):
            p = self.objmap('mount', 'memory:1M', 'fd:%d' % fd, status=1,
                            close_fds=True, stdin=subprocess.DEVNULL)
            self.assertIn(b'no such descriptor', p.stderr)

    def test_what_is_no_stream_is_refused_before_a_volume_is_claimed(self):
        place = self.volume()
        before = self.objmap('info', place, '--json').stdout
        for where in 'fd:0', '-':
            p = self.objmap('mount', place, where, status=1, stdin=subprocess.DEVNULL)
            self.assertIn(b'no connected stream', p.stderr)
        listening = socket.socket(socket.AF_UNIX)
        listening.bind(self.path('listening'))
        listening.listen()
        datagrams, pipe = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM), os.pipe()
        for fd in (listening.fileno(), datagrams.fileno(), *pipe):
            p = self.objmap('mount', place, 'fd:%d' % fd, status=1, pass_fds=[fd])
            self.assertIn(b'no connected stream', p.stderr)
        for one in listening, datagrams:
            one.close()
        for fd in pipe:
            os.close(fd)
        self.assertEqual(self.objmap('info', place, '--json').stdout, before)

    def test_a_public_address_needs_tls_or_a_word(self):
        where = 'nbd://0.0.0.0:0/'
        p = self.objmap('mount', 'memory:1M', where, status=2)
        self.assertIn(b'insecure-public', p.stderr)
        self.objmap('umount', self.mount('memory:1M', where, '--insecure-public'))

    def test_sigterm_and_sigint_save_and_end_with_zero(self):
        for number in (signal.SIGTERM, signal.SIGINT):
            place = self.volume('vol%d' % number)
            p = self.start(OBJMAP, 'mount', place, self.unix(), '--foreground',
                           stdout=subprocess.PIPE, stderr=subprocess.PIPE)
            self.assertEqual(p.stdout.readline().decode().strip(), self.unix())
            h = self.connect(self.unix())
            h.pwrite(b'signal!!' * 512, 8192)
            os.kill(p.pid, number)
            out, err = p.communicate(timeout=30)
            self.assertEqual((p.returncode, out), (0, b''), err)
            where = self.mount(place, self.unix())
            h = self.connect(where)
            self.assertEqual(h.pread(8, 8192), b'signal!!')
            h.shutdown()
            self.objmap('umount', where)

    def test_umount_saves_what_an_nbd_client_wrote_and_cuts_it_off(self):
        import nbd
        place = self.volume()
        where = self.mount(place, self.unix())
        h = self.connect(where)
        h.pwrite(b'written ' * 512, 0)
        self.objmap('umount', where)
        with self.assertRaises(nbd.Error):
            h.pread(8, 0)
        where = self.mount(place, where)
        h = self.connect(where)
        self.assertEqual(h.pread(8, 0), b'written ')
        h.shutdown()
        self.objmap('umount', where)

    def test_a_flush_makes_durable_what_another_connection_wrote(self):
        """That is what can_multi_conn promises."""
        place = self.volume()
        where = self.mount(place, self.unix())
        writer, other = self.connect(where), self.connect(where)
        self.assertTrue(writer.can_multi_conn())
        data = os.urandom(3 * MIB)
        writer.pwrite(data, 777)
        other.flush()
        pid = self.pid(where)
        os.kill(pid, signal.SIGKILL)
        wait_gone(pid)
        h = self.connect(self.mount(place, where))
        self.assertTrue(bytes(h.pread(len(data), 777)) == data)
        h.shutdown()
        self.objmap('umount', where)

    def test_a_mount_whose_where_cannot_be_printed_is_none(self):
        place = self.volume()
        with open('/dev/full', 'w') as full:
            p = subprocess.run([OBJMAP, 'mount', place, self.unix()], env=self.env,
                               stdout=full, stderr=subprocess.PIPE, timeout=60)
        self.assertEqual(p.returncode, 1)
        self.assertIn(b'unmounted again', p.stderr)
        self.assertEqual(self.mounted(), [])
        self.objmap('umount', self.mount(place, self.unix()))

    def test_a_second_writer_is_refused_and_named(self):
        place = self.volume()
        where = self.mount(place, self.unix())
        p = self.objmap('mount', place, self.unix('other'), status=1)
        self.assertIn(str(self.pid(where)).encode(), p.stderr)
        self.assertIn(b'--take-over', p.stderr)
        reader = self.mount(place, self.unix('other'), '--read-only')
        self.objmap('umount', reader)
        self.objmap('umount', where)

    def test_who_is_taken_over_is_fenced_keeps_its_data_and_says_so(self):
        import nbd
        place = self.volume()
        first = self.mount(place, self.unix())
        h = self.connect(first)
        h.pwrite(b'mine    ' * 512, 0)
        # Another runtime folder: another machine, as far as locks go.
        env = dict(self.env, OBJMAP_RUNTIME_DIR=self.path('run2'))
        second = self.unix('other')
        self.objmap('mount', place, second, '--take-over', env=env)
        told = json.loads(self.objmap('status', second, '--json', env=env).stdout)
        self.pids.append(told['pid'])
        with self.assertRaises(nbd.Error):
            h.flush()
        self.assertTrue(self.status(first)['volume']['fenced'])
        self.assertIn(b'FENCED', self.objmap('status', first).stdout)
        self.assertIn(b'FENCED', self.objmap('status').stdout)
        pid = self.pid(first)
        p = self.objmap('umount', first, status=1)
        self.assertIn(self.path('state').encode(), p.stderr)
        wait_gone(pid)
        kept = [os.path.join(d, f) for d, _, files in os.walk(self.path('state'))
                for f in files if 'fenced' in d]
        self.assertTrue(kept, 'nothing was kept')
        self.assertTrue(any(b'mine    ' * 512 in open(k, 'rb').read() for k in kept))
        self.objmap('umount', second, env=env)

    def test_what_a_fenced_mount_cannot_keep_aside_is_not_dropped(self):
        import nbd
        state = self.tmpfs('small', 1 << 20)
        place = self.volume()
        where = self.mount(place, self.unix(), '--state', state)
        h = self.connect(where)
        data = os.urandom(4 * MIB)
        h.pwrite(data, 0)
        env = dict(self.env, OBJMAP_RUNTIME_DIR=self.path('run2'))
        second = self.unix('other')
        self.objmap('mount', place, second, '--take-over', env=env)
        self.pids.append(json.loads(
            self.objmap('status', second, '--json', env=env).stdout)['pid'])
        with self.assertRaises(nbd.Error):
            h.flush()
        pid = self.pid(where)

        def kept():
            return {f: os.path.join(d, f) for d, _, files in os.walk(state)
                    for f in files if 'fenced' in d}
        for _ in range(2):
            p = self.objmap('umount', where, status=1)
            self.assertIn(b'No space left', p.stderr)
            self.assertIn(b'stays mounted', p.stderr)
            self.assertEqual(kept(), {}, 'half of it is in the way')
            self.assertEqual(h.pread(len(data), 0), data)
        os.kill(pid, signal.SIGTERM)
        time.sleep(0.5)
        self.assertEqual(self.pid(where), pid, 'a signal drops it')
        self.run_ok('mount', '-o', 'remount,size=16M', state)
        h.shutdown()
        self.objmap('umount', where, status=1)
        wait_gone(pid)
        with open(kept()['chunks'], 'rb') as f:
            self.assertEqual(f.read(), data)
        with open(kept()['index']) as f:
            self.assertRegex(f.read(), '\nend [0-9]+\n$')
        self.objmap('umount', second, env=env)

    def test_two_mounts_of_one_name_are_refused(self):
        where = self.mount('memory:1M', self.unix())
        p = self.objmap('mount', 'memory:1M', self.unix(export=''), status=1)
        self.assertIn(b'objmap: ', p.stderr)
        self.objmap('umount', where)

    def test_a_snapshot_is_asked_of_the_daemon_which_flushes_first(self):
        place = self.volume()
        where = self.mount(place, self.unix())
        h = self.connect(where)
        h.pwrite(b'before  ' * 512, 0)
        self.objmap('snapshot', 'create', place, 'one')
        h.pwrite(b'after   ' * 512, 0)
        h.flush()
        old = self.mount(place + '@one', self.unix('old'))
        o = self.connect(old)
        self.assertEqual((o.pread(8, 0), o.is_read_only()), (b'before  ', True))
        o.shutdown()
        h.shutdown()
        self.objmap('umount', old)
        self.objmap('umount', where)

    def test_durability_none_saves_at_umount_only(self):
        place = self.volume()
        where = self.mount(place, self.unix(), '--durability', 'none')
        h = self.connect(where)
        h.pwrite(b'x' * 4096, 0)
        h.flush()
        self.assertGreater(self.status(where)['volume']['dirty_bytes'], 0)
        h.shutdown()
        self.objmap('umount', where)
        where = self.mount(place, self.unix())
        h = self.connect(where)
        self.assertEqual(h.pread(4096, 0), b'x' * 4096)
        h.shutdown()
        self.objmap('umount', where)


class Log(Mount):
    TRACE = r'memory: read 4096\+512 .*stream [0-9]+'

    def read_once(self, where):
        h = self.connect(where)
        h.pread(512, 4096)
        h.shutdown()

    def test_a_file_gets_the_doorways_trace_when_all_is_wanted(self):
        for options, wanted in (([], False), (['--log-level', 'warning'], False),
                                (['--log-level', 'debug'], True)):
            with self.subTest(options=options):
                where = self.mount('memory:1M', self.unix(), *options)
                self.read_once(where)
                self.objmap('umount', where)
                (self.assertRegex if wanted else self.assertNotRegex)(self.log(), self.TRACE)
                os.unlink(self.path('log'))

    def test_standard_error_stays_open_for_the_log(self):
        where = self.unix()
        with open(self.path('err'), 'wb') as err:
            p = subprocess.run([OBJMAP, 'mount', 'memory:1M', where, '--log', 'stderr',
                                '--log-level', 'debug'], env=self.env, timeout=30, stderr=err,
                               stdout=subprocess.PIPE, stdin=subprocess.DEVNULL)
        self.assertEqual((p.returncode, p.stdout), (0, where.encode() + b'\n'))
        pid = self.pid(where)
        self.pids.append(pid)
        self.assertEqual(os.readlink('/proc/%d/fd/2' % pid), self.path('err'))
        self.read_once(where)
        self.objmap('umount', where)
        with open(self.path('err')) as f:
            self.assertRegex(f.read(), self.TRACE)

    def test_a_pipe_that_nobody_reads_fails_the_mount(self):
        os.mkfifo(self.path('fifo'))
        p = self.objmap('mount', 'memory:1M', self.unix(), '--log', self.path('fifo'), status=1)
        self.assertIn(b'fifo', p.stderr)
        self.assertEqual(self.mounted(), [])

    def test_a_file_that_cannot_be_written_fails_the_mount(self):
        p = self.objmap('mount', 'memory:1M', self.unix(), '--log', self.path('no/log'),
                        status=1)
        self.assertIn(('--log ' + self.path('no/log')).encode(), p.stderr)
        self.assertEqual(self.mounted(), [])
        self.assertFalse(os.path.exists(self.path('sock')))

    def test_syslog_is_told_and_is_what_a_daemon_writes_to_unless_told(self):
        require('root', 'tmpfs', 'unshare')
        s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.addCleanup(s.close)
        s.bind(self.path('syslog'))
        s.settimeout(20)
        for options in (['--log', 'syslog'], []):
            with self.subTest(options=options):
                # A /dev of its own, where we are the syslog.
                self.run_ok('unshare', '-m', 'sh', '-c',
                            'touch "$0/null" && mount --bind /dev/null "$0/null" && '
                            'mount -t tmpfs none /dev && touch /dev/null /dev/log && '
                            'mount --bind "$0/null" /dev/null && '
                            'mount --bind "$0/syslog" /dev/log && exec "$@"', self.dir,
                            OBJMAP, 'mount', 'memory:1M', self.unix(), '--log-level', 'debug',
                            *options)
                pid = self.pid(self.unix())
                self.pids.append(pid)
                self.read_once(self.unix())
                self.assertRegex(self.heard(s, 'memory: read'),
                                 r'^<31>.*objmap\[%d\]: %s' % (pid, self.TRACE))
                self.objmap('umount', self.unix())
                wait_gone(pid)

    def heard(self, s, wanted):
        while True:
            line = s.recv(4096).decode()
            if wanted in line:
                return line


class Memory(Mount):
    def test_map_memory_bounds_the_volumes_map(self):
        where = self.unix()
        found = {}
        for limit in '2M', '32M':
            # 100 nodes of 24 KiB, and more chunks than head itself holds.
            self.mount('mem:x?size=16G&chunk-size=64K', where, '--map-memory', limit)
            h = self.connect(where)
            for node in range(100):
                for chunk in range(6):
                    h.pwrite(b'x', (node * 2048 + chunk) * 65536)
            h.flush()
            for node in range(100):
                h.pread(1, node * 2048 * 65536)
            found[limit] = self.status(where)['volume']['map_bytes']
            h.shutdown()
            self.objmap('umount', where)
        self.assertGreater(found['32M'], 2 * MIB)
        self.assertLessEqual(found['2M'], 2 * MIB)


class Control(Mount):
    def control(self, where):
        names = [n for n in os.listdir(self.path('run')) if len(n) == 16]
        self.assertEqual(len(names), 1, names)
        return self.path('run/' + names[0])

    def ask(self, path, data):
        with socket.socket(socket.AF_UNIX) as s:
            s.settimeout(20)
            s.connect(path)
            answer = b''
            try:
                s.sendall(data)
                while True:
                    more = s.recv(65536)
                    if not more:
                        return answer
                    answer += more
            except (ConnectionResetError, BrokenPipeError):
                return answer       # it has said enough before it read all

    def test_the_folder_and_the_socket_are_ours_alone(self):
        where = self.mount('memory:1M', self.unix())
        self.assertEqual(stat.S_IMODE(os.stat(self.path('run')).st_mode), 0o700)
        self.assertEqual(stat.S_IMODE(os.stat(self.control(where)).st_mode), 0o600)
        self.objmap('umount', where)
        self.assertEqual([n for n in os.listdir(self.path('run')) if len(n) == 16], [])

    def test_a_runtime_folder_that_others_can_write_is_refused(self):
        os.mkdir(self.path('run'))
        os.chmod(self.path('run'), 0o777)
        p = self.objmap('mount', 'memory:1M', self.unix(), status=1)
        self.assertIn(b'OBJMAP_RUNTIME_DIR', p.stderr)

    def test_garbage_is_answered_and_hurts_nobody(self):
        where = self.mount('memory:1M', self.unix())
        path = self.control(where)
        for data in (b'\n', b'[]\n', b'{"command": 7}\n', b'{"command": "no such"}\n',
                     b'{"command": "resize"}\n', b'{"command": "resize", "size": -5}\n',
                     b'{"command": "snapshot create"}\n', b'{' * 70000 + b'\n',
                     b'\xff\xfe\n'):
            answer = self.ask(path, data)
            if answer:      # a request that is too long is cut off
                self.assertGreater(json.loads(answer)['error'], 0, data)
        idle = [socket.socket(socket.AF_UNIX) for _ in range(20)]
        for s in idle:
            s.connect(path)
        for s in idle:
            s.close()
        wait_for(lambda: self.objmap('status', where, status=None).returncode == 0,
                 'an answer')
        self.objmap('umount', where)

    def test_an_answer_that_says_nothing_is_no_success(self):
        """Whatever answers at the name of a mount."""
        self.objmap('umount', self.mount('memory:1M', self.unix()))
        name = hashlib.sha256(self.unix().encode()).hexdigest()[:16]
        with socket.socket(socket.AF_UNIX) as s:
            s.bind(self.path('run') + '/' + name)
            s.listen()
            for said in (b'{"hello": 1}\n', b'{"error": "0"}\n', b'[]\n', b'7\n', b'{}\n'):
                p = self.start(OBJMAP, 'umount', self.unix(), stderr=subprocess.DEVNULL)
                c = s.accept()[0]
                c.sendall(said)
                self.assertEqual(p.wait(20), 1, said)
                c.close()

    def test_another_user_is_not_heard(self):
        require('root', 'setpriv')
        where = self.mount('memory:1M', self.unix())
        path = self.control(where)
        for p in (self.dir, self.path('run'), path):
            os.chmod(p, 0o777)
        script = ('import socket,sys\ns=socket.socket(socket.AF_UNIX)\n'
                  's.connect(sys.argv[1])\nprint("connected", flush=True)\n'
                  'try:\n    s.sendall(b\'{"command":"status"}\\n\')\n'
                  '    print("heard" if s.recv(10) else "closed")\n'
                  'except OSError:\n    print("closed")\n')

        def ask(*as_whom):
            return subprocess.run([*as_whom, sys.executable, '-c', script, path], timeout=20,
                                  stdout=subprocess.PIPE).stdout.split()
        self.assertEqual(ask(), [b'connected', b'heard'])
        self.assertEqual(ask('setpriv', '--reuid=65534', '--clear-groups'),
                         [b'connected', b'closed'])
        os.chmod(self.path('run'), 0o700)
        self.objmap('umount', where)

    def test_status_of_all_and_of_one(self):
        one = self.mount('memory:1M', self.unix('a'))
        two = self.mount(self.volume(), self.unix('b'))
        told = {m['where']: m for m in self.mounted()}
        self.assertEqual(set(told), {one, two})
        self.assertEqual(told[two]['mode'], 'direct')
        self.assertEqual(told[two]['size'], 16 * MIB)
        self.assertIsNone(told[two]['store']['trouble'])
        text = self.objmap('status').stdout.decode()
        self.assertIn(one, text)
        h = self.connect(two)
        h.pwrite(b'x' * 4096, 0)
        self.assertEqual(self.status(two)['clients'], 1)
        self.assertGreater(self.status(two)['volume']['dirty_bytes'], 0)
        self.assertEqual(self.status(two)['requests']['write'], {'requests': 1, 'bytes': 4096})
        h.shutdown()
        self.objmap('umount', one)
        self.objmap('umount', two)
        self.objmap('status', one, status=1)

    def hang(self, where):
        """Stops the daemon of WHERE: (its pid, its control socket)."""
        def controls():
            return set(glob.glob(self.path('run/' + 16 * '[0-9a-f]')))
        before = controls()
        self.mount('memory:1M', where)
        pid = self.pid(where)
        control, = controls() - before
        os.kill(pid, signal.SIGSTOP)

        def stopped():
            with open('/proc/%d/stat' % pid) as f:
                return f.read().rsplit(')', 1)[1].split()[0] == 'T'
        wait_for(stopped, 'the daemon to stop')
        return pid, control

    def begin(self, *args):
        return self.start(OBJMAP, *args, stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    def test_daemons_that_do_not_answer_are_told_of(self):
        healthy = self.mount('memory:1M', self.unix('a'))
        pid, control = self.hang(self.unix('b'))
        hung = [(None, None, pid, control)]
        if can('fuse'):
            self.mounts.append(self.path('disk'))
            hung.append((self.path('disk'), 'memory:1M', *self.hang(self.path('disk'))))
        listed, said = self.begin('status'), self.begin('status', '--json')
        out, err = listed.communicate(timeout=40)
        self.assertEqual(listed.returncode, 1)
        self.assertIn(healthy, out.decode())
        self.assertRegex(out.decode(), r'process %d +%s.* NOT ANSWERING' % (pid, control))
        self.assertEqual(out.count(b'NOT ANSWERING'), len(hung))
        self.assertIn('process %d, does not answer' % pid, err.decode())
        told = json.loads(said.communicate(timeout=40)[0])
        self.assertEqual(said.returncode, 1)
        self.assertEqual({m['where'] for m in told if m['state'] == 'serving'}, {healthy})
        self.assertCountEqual([(m['where'], m['place'], m['pid'], m['control'])
                               for m in told if m['state'] == 'not answering'], hung)

    def test_a_full_queue_of_a_daemon_that_hangs_holds_nobody_up(self):
        where = self.path('disk') if can('fuse') else self.unix('a')
        self.mounts.append(self.path('disk'))
        pid, control = self.hang(where)
        knocks = []

        def knock():
            knocks.append(socket.socket(socket.AF_UNIX))
            knocks[-1].setblocking(False)
            try:
                knocks[-1].connect(control)
            except BlockingIOError:
                return True
        wait_for(knock, 'a full queue')
        asked = [self.begin('status'), self.begin('status', where),
                 self.begin('umount', where), self.begin('mount', 'memory:1M', where)]
        healthy = self.mount('memory:1M', self.unix('b'))
        self.objmap('umount', healthy)
        said = [p.communicate(timeout=40) for p in asked]
        self.assertEqual([p.returncode for p in asked], [1] * 4)
        for out, err in said[:3]:
            self.assertIn(b'does not answer', err)
        self.assertIn(b'NOT ANSWERING', said[0][0])
        if can('fuse'):
            self.assertIn(b'is mounted already', said[3][1])
        for s in knocks:
            s.close()
        os.kill(pid, signal.SIGCONT)
        wait_for(lambda: self.objmap('status', where, status=None).returncode == 0,
                 'an answer')

    def test_umount_of_nothing_says_so(self):
        p = self.objmap('umount', self.unix(), status=1)
        self.assertIn(b'not mounted', p.stderr)


class Run(Mount):
    def test_the_command_gets_where_and_its_status_is_ours(self):
        p = self.objmap('mount', 'memory:1M', self.unix(), '--run', 'sh', '-c',
                        'echo "$OBJMAP_WHERE"; echo "{}"; exit 7', status=7)
        self.assertEqual(p.stdout.decode().split(), [self.unix()] * 2)
        self.assertEqual(self.mounted(), [])

    def test_its_status_is_ours_also_where_the_ends_of_children_were_ignored(self):
        self.objmap('mount', 'memory:1M', self.unix(), '--run', 'sh', '-c', 'exit 7',
                    status=7, preexec_fn=lambda: signal.signal(signal.SIGCHLD,
                                                               signal.SIG_IGN))

    def test_what_it_wrote_is_saved(self):
        require('nbdcopy')
        place = self.volume()
        with open(self.path('image'), 'wb') as f:
            f.write(os.urandom(16 * MIB))
        self.objmap('mount', place, self.unix(), '--run', 'nbdcopy', self.path('image'), '{}')
        self.objmap('mount', place, self.unix(), '--read-only', '--run', 'nbdcopy', '{}',
                    self.path('copy'))
        self.run_ok('cmp', self.path('image'), self.path('copy'))

    def test_a_command_that_is_not_there_or_is_killed(self):
        p = self.objmap('mount', 'memory:1M', self.unix(), '--run', '/no/such', status=127)
        self.assertIn(b'/no/such', p.stderr)
        self.objmap('mount', 'memory:1M', self.unix(), '--run', 'sh', '-c', 'kill -9 $$',
                    status=128 + 9)
        self.assertEqual(self.mounted(), [])

    def test_it_does_not_inherit_blocked_signals(self):
        p = self.objmap('mount', 'memory:1M', self.unix(), '--run', 'grep', 'SigBlk',
                        '/proc/self/status')
        self.assertEqual(int(p.stdout.split()[1], 16), 0)

    def test_run_on_a_single_connection_is_refused(self):
        self.objmap('mount', 'memory:1M', '-', '--run', 'true', status=2)


class Streams(Mount):
    def test_dash_serves_one_connection_and_saves_at_its_end(self):
        place = self.volume()
        h = nbd_handle()
        h.connect_command([OBJMAP, 'mount', place, '-', '--state', self.path('state')])
        h.pwrite(b'by pipe ' * 512, 65536)
        h.shutdown()
        wait_for(lambda: json.loads(self.objmap('info', place, '--json').stdout)
                 .get('holder') is None, 'the volume to be let go')
        where = self.mount(place, self.unix())
        h = self.connect(where)
        self.assertEqual(h.pread(8, 65536), b'by pipe ')
        h.shutdown()
        self.objmap('umount', where)

    def setUp(self):
        super().setUp()
        # libnbd starts objmap with our own environment.
        self.saved = dict(os.environ)
        os.environ.update(self.env)
        self.addCleanup(lambda: (os.environ.clear(), os.environ.update(self.saved)))

    def use(self, ours, theirs):
        """Writes and reads through the connection whose other end was given away."""
        theirs.close()
        h = nbd_handle()
        h.connect_socket(os.dup(ours.fileno()))
        ours.close()
        h.pwrite(b'x' * 512, 0)
        self.assertEqual(h.pread(512, 0), b'x' * 512)
        h.shutdown()

    def test_a_given_descriptor_is_served_and_standard_output_is_left_alone(self):
        ours, theirs = socket.socketpair()
        p = self.start(OBJMAP, 'mount', 'memory:1M', 'fd:%d' % theirs.fileno(),
                       pass_fds=[theirs.fileno()], stdout=subprocess.PIPE,
                       stderr=subprocess.PIPE)
        self.use(ours, theirs)
        out, err = p.communicate(timeout=20)
        self.assertEqual((p.returncode, out), (0, b''), err)

    def test_nothing_is_told_into_a_connection_that_is_standard_error_too(self):
        """As under inetd."""
        for where in '-', 'fd:0':
            ours, theirs = socket.socketpair()
            p = self.start(OBJMAP, 'mount', 'memory:1M', where, '--log-level', 'debug',
                           stdin=theirs, stdout=theirs, stderr=theirs)
            self.use(ours, theirs)
            self.assertEqual(p.wait(20), 0)

    def test_systemd_sockets_are_served(self):
        h = nbd_handle()
        h.connect_systemd_socket_activation([OBJMAP, 'mount', 'memory:1M', self.unix('unused')])
        self.assertEqual(h.get_size(), MIB)
        self.assertFalse(os.path.exists(self.path('unused')))
        h.shutdown()

    def test_systemd_is_told_when_it_is_ready(self):
        s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        s.settimeout(20)
        s.bind(self.path('notify'))
        p = self.start(OBJMAP, 'mount', 'memory:1M', self.unix(), '--foreground',
                       env=dict(self.env, NOTIFY_SOCKET=self.path('notify')),
                       stdout=subprocess.DEVNULL)
        self.assertEqual(s.recv(100), b'READY=1')
        h = self.connect(self.unix())
        h.shutdown()
        p.terminate()
        self.assertEqual(s.recv(100), b'STOPPING=1')
        self.assertEqual(p.wait(20), 0)
        s.close()


class Serve(Mount):
    def conf(self, text):
        with open(self.path('serve.conf'), 'w') as f:
            f.write(text)
        return self.path('serve.conf')

    def test_several_exports_at_one_address_and_a_file(self):
        require('fuse')
        port = free_port()
        one, two = self.volume('one'), self.volume('two', '8M')
        conf = self.conf("""
# two exports at one address
[mount]
place = %s
where = nbd://127.0.0.1:%d/one
description = the first
[mount]
place = %s
where = nbd://127.0.0.1:%d/two
read-only = yes
[mount]
place = memory:3M
where = %s
""" % (one, port, two, port, self.path('disk')))
        p = self.objmap('serve', conf, '--log', self.path('log'))
        self.mounts.append(self.path('disk'))
        wheres = p.stdout.decode().split()
        self.assertEqual(len(wheres), 3)
        pids = {self.pid(w) for w in wheres}
        self.assertEqual(len(pids), 1)
        self.pids += pids
        h = nbd_handle()
        h.set_opt_mode(True)
        h.connect_uri('nbd://127.0.0.1:%d/' % port)
        names = {}
        h.opt_list(lambda name, text: names.__setitem__(name, text) or 0)
        h.opt_abort()
        self.assertEqual(names, {'one': 'the first', 'two': two})
        h = self.connect(wheres[1])
        self.assertTrue(h.is_read_only())
        h.shutdown()
        self.assertEqual(os.stat(self.path('disk')).st_size, 3 * MIB)
        # One of two at an address cannot end alone; a file can.
        for words in ((), ('--force',)):
            p = self.objmap('umount', wheres[0], *words, status=1)
            self.assertIn(b'shares its address', p.stderr)
        h = self.connect(wheres[1])
        h.shutdown()
        self.objmap('umount', self.path('disk'))
        self.assertFalse(os.path.exists(self.path('disk')))
        again = self.mount('memory:1M', self.path('disk'))
        self.objmap('umount', again)
        h = self.connect(wheres[0])
        h.pwrite(b'x' * 4096, 0)
        pid = pids.pop()
        os.kill(pid, signal.SIGTERM)
        wait_gone(pid)
        where = self.mount(one, self.unix())
        h = self.connect(where)
        self.assertEqual(h.pread(4096, 0), b'x' * 4096)
        h.shutdown()
        self.objmap('umount', where)

    def test_an_export_that_is_dropped_leaves_the_others_and_their_clients(self):
        import nbd
        back = self.mount('memory:1M', self.unix('back'))
        one, two, three = (self.unix(export=name) for name in ('one', 'two', 'three'))
        conf = self.conf(''.join('[mount]\nplace = %s\nwhere = %s\n' % mount for mount in (
            (back, one), ('memory:1M', two), ('memory:1M', three))))
        killed = self.pid(back)
        self.objmap('serve', conf, '--log', self.path('log'))
        pid = self.pid(two)
        self.pids.append(pid)
        cut, stays = self.connect(one), self.connect(two)
        os.kill(killed, signal.SIGKILL)
        wait_gone(killed)
        cut.aio_pread(nbd.Buffer(4096), 0)
        cut.aio_pwrite(nbd.Buffer.from_bytearray(bytearray(4096)), 4096)
        wait_for(lambda: self.status(one)['requests']['in_flight'] == 2, 'two requests')
        self.objmap('umount', one, '--no-drain', '--force')
        self.assertRaises(nbd.Error, lambda: [cut.poll(20000) for _ in range(9)])
        stays.pwrite(b'x' * 4096, 0)
        stays.flush()
        self.assertEqual(bytes(self.connect(two).pread(4096, 0)), b'x' * 4096)
        for gone in (one, self.unix()):     # nobody gets another disk than he had
            self.assertRaises(nbd.Error, self.connect, gone)
        self.assertEqual({m['where'] for m in self.mounted()}, {two, three})
        listed = self.objmap('list', self.unix(), '--json').stdout
        self.assertEqual([e['name'] for e in json.loads(listed)], ['two', 'three'])
        self.assertIn(b'1 other export ', self.objmap('umount', two, status=1).stderr)
        self.objmap('umount', two, '--no-drain', '--force')
        self.assertEqual(bytes(self.connect(three).pread(512, 0)), bytes(512))
        self.objmap('umount', three)
        wait_gone(pid)

    def test_every_where_is_printed_however_many(self):
        wheres = ['nbd+unix:///export-number-%d-with-a-long-name?socket=%s' %
                  (n, self.path('sock')) for n in range(150)]
        conf = self.conf(''.join('[mount]\nplace = null:1M\nwhere = %s\n' % w for w in wheres))
        p = self.objmap('serve', conf, '--log', self.path('log'))
        pid = self.pid(wheres[0])
        self.pids.append(pid)
        self.assertEqual(p.stdout.decode().split(), wheres)
        os.kill(pid, signal.SIGTERM)
        wait_gone(pid)

    def test_a_mistake_is_told_with_its_line_and_nothing_is_started(self):
        good = '[mount]\nplace = memory:1M\nwhere = %s\n' % self.unix()
        for text, line, status in (
                ('place = memory:1M\n', 1, 2),
                ('[other]\n', 1, 2),
                ('# nothing\n', None, 2),
                (good + 'nonsense\n', 4, 2),
                (good + 'read-onl = yes\n', 4, 2),
                (good + 'read-only = perhaps\n', 4, 2),
                (good + 'memory-limit = much\n', 4, 2),
                (good + 'place = memory:2M\n', 4, 2),
                (good + 'take-over = yes\n', 4, 2),
                (good + 'force = yes\n', 4, 2),
                (good + 'max-clients = 7\n', 4, 2),
                (good + '[mount]\nplace = memory:1M\n', 4, 2),
                (good + '[mount]\nplace = nowhere:1M\nwhere = %s\n' % self.unix('b'), 4, 2),
                (good + '[mount]\nplace = memory:1M\nwhere = -\n', 4, 2),
                (good + '[mount]\nplace = dir:%s\nwhere = %s\n' % (
                    self.path('none'), self.unix('b')), None, 1),
                (good + '[mount]\nplace = memory:1M\nwhere = %s\n' % self.unix(), 4, 2)):
            p = self.objmap('serve', self.conf(text), status=status)
            where = '%s:%d:' % (self.path('serve.conf'), line) if line else 'objmap:'
            self.assertIn(where.encode(), p.stderr, text)
            self.assertEqual(self.mounted(), [])
            self.assertFalse(os.path.exists(self.path('sock')), text)
        p = self.objmap('serve', self.path('missing'), status=2)
        self.assertIn(b'missing', p.stderr)


if __name__ == '__main__':
    fixtures.main()
