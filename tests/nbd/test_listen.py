#!/usr/bin/python3
"""How clients come in: UNIX sockets, TCP, given descriptors, socket activation."""
import fcntl
import os
import socket
import stat
import subprocess

from serving import READ, Raw, SERVE, Server, World, main, run_status, wait_for, wait_gone


class Unix(World):
    def test_a_socket_is_private_whatever_the_umask(self):
        for mask in (0, 0o277):
            before = os.umask(mask)
            try:
                server = Server(self, 'memory:1M')
            finally:
                os.umask(before)
            self.assertEqual(stat.S_IMODE(os.stat(server.socket).st_mode), 0o600)
            server.stop()
            self.assertFalse(os.path.exists(server.socket), 'removed at the end')

    def test_a_stale_socket_is_replaced(self):
        path = self.path('stale')
        s = socket.socket(socket.AF_UNIX)
        s.bind(path)
        s.close()
        server = Server(self, 'memory:1M', '--unix', path, unix=False)
        self.run_ok('nbdinfo', '--size', 'nbd+unix:///?socket=' + path)
        server.stop()

    def test_a_live_socket_is_refused_and_left_alone(self):
        server = Server(self, 'memory:1M')
        second = run_status(SERVE, 'memory:1M', '--unix', server.socket)
        self.assertEqual(second.returncode, 1)
        self.assertIn(b'somebody listens there already', second.stderr)
        self.run_ok('nbdinfo', '--size', server.uri())

    def test_what_is_no_socket_is_left_alone(self):
        with open(self.path('file'), 'w') as f:
            f.write('precious')
        second = run_status(SERVE, 'memory:1M', '--unix', self.path('file'))
        self.assertEqual(second.returncode, 1)
        self.assertIn(b'is no socket', second.stderr)
        with open(self.path('file')) as f:
            self.assertEqual(f.read(), 'precious')

    def test_a_folder_that_somebody_has_locked_is_told(self):
        fd = os.open(self.path(''), os.O_RDONLY)
        fcntl.flock(fd, fcntl.LOCK_SH)
        failed = run_status(SERVE, 'memory:1M', '--unix', self.path('sock'))
        os.close(fd)
        self.assertEqual(failed.returncode, 1)
        self.assertIn(b'holds a lock', failed.stderr)

    def test_bad_paths_are_told(self):
        for path, why in ((self.path('x' * 110), b'at most 107 bytes'),
                          (self.path('none/s'), b'No such file')):
            failed = run_status(SERVE, 'memory:1M', '--unix', path)
            self.assertEqual(failed.returncode, 1)
            self.assertIn(why, failed.stderr)

    def test_a_socket_that_another_server_put_there_is_not_removed(self):
        server = Server(self, 'memory:1M')
        os.unlink(server.socket)
        other = socket.socket(socket.AF_UNIX)
        other.bind(server.socket)
        server.stop()
        self.assertTrue(os.path.exists(server.socket))
        other.close()


class Tcp(World):
    def test_loopback(self):
        for address, uri in (('127.0.0.1', 'nbd://127.0.0.1:%d'),
                             ('localhost', 'nbd://localhost:%d')):
            server = Server(self, 'memory:1M', '--tcp', address, unix=False)
            self.run_ok('nbdinfo', '--size', uri % server.port)
            s = socket.create_connection(('127.0.0.1', server.port))
            self.assertEqual(Raw(s).ready().do(READ, 0, 4096), 0)
            s.close()
            server.stop()

    def test_a_machine_that_vanished_is_asked_for(self):
        """The server's end has the kernel's keep-alive timer on."""
        server = Server(self, 'memory:1M', '--tcp', '127.0.0.1', unix=False)
        s = socket.create_connection(('127.0.0.1', server.port))
        Raw(s).ready()

        def timer():
            with open('/proc/net/tcp') as table:
                for line in table.readlines()[1:]:
                    fields = line.split()
                    if int(fields[1].split(':')[1], 16) == server.port and fields[3] == '01':
                        return fields[5].split(':')[0]
        wait_for(lambda: timer() == '02', 'the keep-alive timer')
        s.close()

    def test_a_public_address_needs_protection_or_a_word(self):
        for address in ('0.0.0.0', '*'):
            refused = run_status(SERVE, 'memory:1M', '--tcp', address)
            self.assertEqual(refused.returncode, 1)
            self.assertIn(b'--insecure-public', refused.stderr)
        server = Server(self, 'memory:1M', '--tcp', '0.0.0.0', '--insecure-public', unix=False)
        self.run_ok('nbdinfo', '--size', 'nbd://127.0.0.1:%d' % server.port)

    def test_addresses_that_cannot_be_had_are_told(self):
        with socket.socket() as s:
            s.bind(('127.0.0.1', 0))
            s.listen()
            failed = run_status(SERVE, 'memory:1M', '--tcp', '127.0.0.1', '--port',
                                str(s.getsockname()[1]))
            self.assertEqual(failed.returncode, 1)
            self.assertIn(b'Address already in use', failed.stderr)
        failed = run_status(SERVE, 'memory:1M', '--tcp', 'no.such.host.invalid')
        self.assertEqual(failed.returncode, 1)
        self.assertIn(b'no such address', failed.stderr)


class Descriptors(World):
    def test_a_listening_socket_that_was_given(self):
        path = self.path('given')
        s = socket.socket(socket.AF_UNIX)
        s.bind(path)
        s.listen()
        server = Server(self, 'memory:1M', '--listen-fd', str(s.fileno()), unix=False,
                        pass_fds=[s.fileno()])
        s.close()
        self.run_ok('nbdinfo', '--size', 'nbd+unix:///?socket=' + path)
        server.stop()
        self.assertTrue(os.path.exists(path), 'it belongs to whoever made it')

    def test_libnbd_activates_it(self):
        """libnbd listens, sets LISTEN_FDS and starts the server: descriptor 3."""
        import nbd
        client = nbd.NBD()
        client.connect_systemd_socket_activation([SERVE, 'memory:1M', '--listen-fd', '3'])
        self.assertEqual(client.get_size(), 1 << 20)
        client.shutdown()

    def test_what_does_not_listen_is_refused(self):
        failed = run_status(SERVE, 'memory:1M', '--listen-fd', '0', stdin=subprocess.DEVNULL)
        self.assertEqual(failed.returncode, 1)
        self.assertIn(b'no listening socket', failed.stderr)
        failed = run_status(SERVE, 'memory:1M', '--fd', '0', stdin=subprocess.DEVNULL)
        self.assertEqual(failed.returncode, 1)
        self.assertIn(b'no connected stream', failed.stderr)

    def test_a_connected_socket_ends_the_server_with_its_client(self):
        ours, theirs = socket.socketpair()
        server = Server(self, 'memory:1M', '--fd', str(theirs.fileno()), unix=False,
                        pass_fds=[theirs.fileno()])
        theirs.close()
        raw = Raw(ours).ready()
        self.assertEqual(raw.do(READ, 0, 4096), 0)
        raw.close()
        wait_gone(server.process.pid)

    def test_two_pipes(self):
        """As inetd, ssh or a tunnel have it; the flags of the pipes are left as they were."""
        to_server, ours_out = os.pipe()
        ours_in, from_server = os.pipe()
        server = Server(self, 'memory:1M', '--fd', '%d,%d' % (to_server, from_server),
                        unix=False, pass_fds=[to_server, from_server])

        class Pipes:
            def settimeout(self, seconds):
                pass

            def recv(self, count):
                return os.read(ours_in, count)

            def sendall(self, data):
                while data:
                    data = data[os.write(ours_out, data):]
        raw = Raw(Pipes()).ready()
        payload = bytes(range(256)) * 1024
        self.assertEqual(raw.do(1, 0, len(payload), payload=payload), 0)
        self.assertEqual(raw.do(READ, 0, len(payload)), 0)
        self.assertTrue(raw.data == payload)
        os.close(ours_out)
        wait_gone(server.process.pid)
        self.assertTrue(os.get_blocking(to_server) and os.get_blocking(from_server))
        for fd in (to_server, from_server, ours_in):
            os.close(fd)

    def test_libnbd_starts_it_on_a_socketpair(self):
        """connect_command: the server's standard input is the socket."""
        import nbd
        client = nbd.NBD()
        client.connect_command([SERVE, 'memory:1M', '--fd', '0'])
        self.assertEqual(client.get_size(), 1 << 20)
        client.shutdown()


if __name__ == '__main__':
    main()
