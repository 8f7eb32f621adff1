#!/usr/bin/python3
"""TLS: certificates, certificates of clients, pre-shared keys; GnuTLS clients
(libnbd, qemu) and OpenSSL's own."""
import ctypes
import ctypes.util
import os
import socket
import ssl
import struct
import time

import nbd

from serving import (ABORT, ACK, GO, INFO, INVALID, LIST, READ, Raw, SERVE, STARTTLS, STRUCTURED,
                     Server, TLS_REQD, World, main, run_status)

MIB = 1 << 20


def make_certificates(world):
    """A folder for the server and one for a client, and one of a stranger."""
    def ca(name):
        world.run_ok('openssl', 'req', '-x509', '-newkey', 'ec', '-pkeyopt',
                     'ec_paramgen_curve:prime256v1', '-nodes', '-days', '2', '-subj',
                     '/CN=' + name, '-keyout', world.path(name + '.key'), '-out',
                     world.path(name + '.pem'), '-addext', 'basicConstraints=critical,CA:TRUE',
                     '-addext', 'keyUsage=critical,keyCertSign')

    def certificate(folder, name, authority, extra=''):
        os.makedirs(world.path(folder), exist_ok=True)
        base = world.path(folder) + '/' + name
        with open(world.path('ext'), 'w') as f:
            f.write('basicConstraints=critical,CA:FALSE\nkeyUsage=critical,digitalSignature\n'
                    + extra)
        world.run_ok('openssl', 'req', '-newkey', 'ec', '-pkeyopt',
                     'ec_paramgen_curve:prime256v1', '-nodes', '-subj', '/CN=localhost',
                     '-keyout', base + '-key.pem', '-out', world.path('csr'))
        world.run_ok('openssl', 'x509', '-req', '-in', world.path('csr'), '-days', '2', '-CA',
                     world.path(authority + '.pem'), '-CAkey', world.path(authority + '.key'),
                     '-CAcreateserial', '-extfile', world.path('ext'), '-out',
                     base + '-cert.pem')
        with open(world.path(authority + '.pem')) as f, \
                open(world.path(folder) + '/ca-cert.pem', 'w') as copy:
            copy.write(f.read())

    ca('ours')
    ca('strange')
    names = 'subjectAltName=DNS:localhost,IP:127.0.0.1\nextendedKeyUsage=serverAuth\n'
    client = 'extendedKeyUsage=clientAuth\n'
    certificate('server', 'server', 'ours', names)
    certificate('client', 'client', 'ours', client)
    certificate('stranger', 'client', 'strange', client)
    with open(world.path('ours.pem')) as f, \
            open(world.path('stranger/ca-cert.pem'), 'w') as copy:
        copy.write(f.read())	# trusts the server, is not trusted by it


class Tls(World):
    def tls(self, server, folder='client', host='localhost'):
        return 'nbds://%s:%d/?tls-certificates=%s' % (host, server.port, self.path(folder))

    def serve(self, *args):
        return Server(self, 'memory:16M', '--tcp', '127.0.0.1', *args, unix=False)

    def check_data(self, uri=None, client=None):
        client = client or nbd.NBD()
        if uri:
            client.set_uri_allow_local_file(True)
            client.connect_uri(uri)
        self.assertTrue(client.get_tls_negotiated())
        data = os.urandom(3 * MIB)
        client.pwrite(data, 12345)
        self.assertTrue(bytes(client.pread(len(data), 12345)) == data)
        client.shutdown()


class Certificates(Tls):
    def setUp(self):
        super().setUp()
        make_certificates(self)

    def serve_tls(self, *args):
        return self.serve('--tls-certificates', self.path('server'), *args)

    def test_libnbd_and_qemu(self):
        server = self.serve_tls()
        self.run_ok('nbdinfo', self.tls(server))
        self.check_data(self.tls(server))
        creds = 'tls-creds-x509,id=t,endpoint=client,dir=' + self.path('client')
        image = 'driver=nbd,host=localhost,port=%d,tls-creds=t' % server.port
        self.run_ok('qemu-img', 'info', '--object', creds, '--image-opts', image)
        self.run_ok('qemu-io', '--object', creds, '--image-opts', '-c', 'write -P 9 1M 5M', '-c',
                    'read -P 9 1M 5M', image)

    def test_a_stranger_is_let_in_unless_clients_are_verified(self):
        server = self.serve_tls()
        self.check_data(self.tls(server, 'stranger'))
        server.stop()
        server = self.serve_tls('--tls-verify-peer')
        self.check_data(self.tls(server, 'client'))
        refused = run_status('nbdinfo', self.tls(server, 'stranger'))
        self.assertNotEqual(refused.returncode, 0)
        self.check_data(self.tls(server, 'client'))

    def test_nothing_is_told_in_clear(self):
        server = self.serve_tls()
        raw = Raw(socket.create_connection(('127.0.0.1', server.port)))
        for option in (LIST, INFO, GO, STRUCTURED, 99):
            replies = raw.ask(option, b'\0\0\0\0\0\0' if option in (INFO, GO) else b'')
            self.assertEqual([k for k, _ in replies], [TLS_REQD])
        self.assertEqual(raw.ask(ABORT)[0][0], ACK)
        raw.close()
        raw = Raw(socket.create_connection(('127.0.0.1', server.port)))
        raw.option(1, b'')
        self.assertTrue(raw.closed())
        raw.close()

    def test_what_follows_starttls_in_clear_closes(self):
        server = self.serve_tls()
        raw = Raw(socket.create_connection(('127.0.0.1', server.port)))
        raw.put(struct.pack('>8sII', b'IHAVEOPT', STARTTLS, 0) +
                struct.pack('>8sII', b'IHAVEOPT', LIST, 0))
        self.assertTrue(raw.closed())
        raw.close()

    def serve_narrowly(self):
        """A server, and the only client it has: little fits on the way to him."""
        ours, theirs = socket.socketpair()
        theirs.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4608)
        server = Server(self, 'memory:1M', '--tls-certificates', self.path('server'), '--fd',
                        str(theirs.fileno()), unix=False, pass_fds=[theirs.fileno()])
        theirs.close()
        return server, Raw(ours)

    def test_a_client_that_does_not_read_the_grant_costs_no_time(self):
        """Its first words under TLS wait in the socket, and nobody spins."""
        server, raw = self.serve_narrowly()
        for _ in range(500):
            raw.option(LIST)
        raw.option(STARTTLS)
        time.sleep(0.5)
        raw.put(b'\x16\x03\x01')
        self.assertTrue(server.uses_no_cpu(2, 0.09))
        raw.close()

    def test_new_keys_that_are_asked_for_and_not_read_cost_no_time(self):
        """The server has to answer each; where it cannot, it reads no more."""
        server, raw = self.serve_narrowly()
        self.assertEqual(raw.ask(STARTTLS)[0][0], ACK)
        raw.s.setblocking(True)         # Python's own time-out is none of OpenSSL's
        # Python's ssl cannot ask for new keys.
        lib = ctypes.CDLL(ctypes.util.find_library('ssl'))
        for name in ('TLS_client_method', 'SSL_CTX_new', 'SSL_new'):
            getattr(lib, name).restype = ctypes.c_void_p
        context = ctypes.c_void_p(lib.SSL_CTX_new(ctypes.c_void_p(lib.TLS_client_method())))
        tls = ctypes.c_void_p(lib.SSL_new(context))
        self.assertEqual(lib.SSL_set_fd(tls, raw.s.fileno()), 1)
        self.assertEqual(lib.SSL_connect(tls), 1)
        for _ in range(100):            # 1: the peer has to change its keys, too
            self.assertEqual(lib.SSL_key_update(tls, 1), 1)
            self.assertEqual(lib.SSL_do_handshake(tls), 1)
        self.assertTrue(server.uses_no_cpu(1, 0.09))
        # It goes on with who reads again.
        option = struct.pack('>8sII', b'IHAVEOPT', STARTTLS, 0)
        self.assertEqual(lib.SSL_write(tls, option, len(option)), len(option))
        answer = ctypes.create_string_buffer(20)
        self.assertEqual(lib.SSL_read(tls, answer, 20), 20)
        self.assertEqual(struct.unpack('>QII', answer.raw[:16])[2], INVALID)
        lib.SSL_free(tls)
        lib.SSL_CTX_free(context)
        raw.close()

    def openssl(self, server, version):
        """A client of other make: Python's ssl is OpenSSL."""
        raw = Raw(socket.create_connection(('localhost', server.port)))
        self.assertEqual(raw.ask(STARTTLS)[0][0], ACK)
        context = ssl.create_default_context(cafile=self.path('ours.pem'))
        context.minimum_version = context.maximum_version = version
        raw.s = context.wrap_socket(raw.s, server_hostname='localhost')
        self.addCleanup(raw.close)
        return raw

    def test_tls_1_2_and_1_3_and_starttls_only_once(self):
        server = self.serve_tls()
        for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
            raw = self.openssl(server, version)
            self.assertEqual(raw.ask(STARTTLS)[0][0], INVALID)
            raw.ready()
            self.assertEqual(raw.do(READ, 0, 4 * MIB), 0)
        self.assertRaises((ssl.SSLError, OSError), self.openssl, server,
                          ssl.TLSVersion.TLSv1_1)

    def test_many_small_requests_in_one_record(self):
        server = self.serve_tls()
        raw = self.openssl(server, ssl.TLSVersion.TLSv1_3).ready()
        raw.put(b''.join(struct.pack('>IHHQQI', 0x25609513, 0, READ, n, n * 512, 512)
                         for n in range(500)))
        self.assertEqual([raw.answer(512)[0] for _ in range(500)], list(range(500)))

    def test_garbage_for_a_handshake_closes(self):
        server = self.serve_tls()
        raw = Raw(socket.create_connection(('127.0.0.1', server.port)))
        self.assertEqual(raw.ask(STARTTLS)[0][0], ACK)
        raw.put(os.urandom(1000))
        self.assertTrue(raw.closed())
        raw.close()
        self.check_data(self.tls(server))

    def test_bad_keys_are_told(self):
        folder = self.path('server')
        key = folder + '/server-key.pem'

        def told(why):
            failed = run_status(SERVE, 'memory:1M', '--tls-certificates', folder)
            self.assertEqual(failed.returncode, 1)
            self.assertIn(why, failed.stderr)
        self.run_ok('openssl', 'ec', '-in', key, '-aes256', '-passout', 'pass:geheim', '-out',
                    self.path('locked.pem'))
        os.replace(key, self.path('right.pem'))
        told(b'server-key.pem')
        os.replace(self.path('locked.pem'), key)
        told(b'without a passphrase')
        with open(key, 'w') as f:
            f.write('no key')
        told(b'cannot use this private key')
        os.replace(self.path('client/client-key.pem'), key)
        told(b'belong to server-cert.pem')
        os.replace(self.path('right.pem'), key)
        os.unlink(folder + '/server-cert.pem')
        told(b'cannot use this certificate')


class Keys(Tls):
    def setUp(self):
        super().setUp()
        self.keys = self.path('keys.psk')
        for user in ('alice', 'bob'):
            self.run_ok('psktool', '-u', user, '-p', self.keys)
        os.chmod(self.keys, 0o600)

    def client(self, server, user='alice', priority=None):
        client = nbd.NBD()
        client.set_tls(nbd.TLS_REQUIRE)
        client.set_tls_psk_file(self.keys)
        client.set_tls_username(user)
        client.connect_tcp('127.0.0.1', str(server.port))
        return client

    def test_libnbd_and_qemu(self):
        server = self.serve('--tls-psk', self.keys)
        for user in ('alice', 'bob'):
            self.check_data(client=self.client(server, user))
        uri = 'nbds://alice@127.0.0.1:%d/?tls-psk-file=%s' % (server.port, self.keys)
        self.run_ok('nbdinfo', uri)
        os.mkdir(self.path('q'))
        with open(self.keys) as f, open(self.path('q/keys.psk'), 'w') as copy:
            copy.write(f.read())
        creds = 'tls-creds-psk,id=t,endpoint=client,username=bob,dir=' + self.path('q')
        self.run_ok('qemu-img', 'info', '--object', creds, '--image-opts',
                    'driver=nbd,host=127.0.0.1,port=%d,tls-creds=t' % server.port)

    def test_wrong_keys_and_users_are_refused(self):
        server = self.serve('--tls-psk', self.keys)
        right = self.keys
        self.keys = self.path('other.psk')
        for user in ('alice', 'mallory'):
            self.run_ok('psktool', '-u', user, '-p', self.keys)
            self.assertRaises(nbd.Error, self.client, server, user)
        self.keys = right
        self.check_data(client=self.client(server))

    def test_both_versions_of_tls(self):
        server = self.serve('--tls-psk', self.keys)
        with open(self.keys) as f:
            line = [x for x in f.read().split() if x.startswith('alice:')][0]
        for version in ('-tls1_2', '-tls1_3'):
            # openssl s_client knows no NBD: a small relay speaks STARTTLS for it.
            relay = socket.socket()
            relay.bind(('127.0.0.1', 0))
            relay.listen()
            raw = Raw(socket.create_connection(('127.0.0.1', server.port)))
            self.assertEqual(raw.ask(STARTTLS)[0][0], ACK)
            client = self.start('openssl', 's_client', version, '-brief', '-psk_identity',
                                'alice', '-psk', line.split(':')[1], '-connect',
                                '127.0.0.1:%d' % relay.getsockname()[1], stdin=-1, stdout=-1,
                                stderr=-2)
            peer, _ = relay.accept()
            said = self.relay(client, peer, raw.s)
            self.assertIn(b'CONNECTION ESTABLISHED', said)
            for s in (relay, peer, raw.s):
                s.close()

    def relay(self, client, peer, server):
        import select
        import time
        end = time.monotonic() + 30
        said = b''
        while b'ESTABLISHED' not in said and b'rror' not in said and time.monotonic() < end:
            for s in select.select([peer, server, client.stdout], [], [], 1)[0]:
                if s is client.stdout:
                    part = os.read(s.fileno(), 4096)
                    said += part
                    if not part:
                        return said
                else:
                    data = s.recv(65536)
                    (server if s is peer else peer).sendall(data)
        client.kill()
        client.wait(20)
        client.stdin.close()
        client.stdout.close()
        return said

    def test_bad_files_are_told_without_their_secrets(self):
        secret = 'deadbeefcafe'
        for text, mode, why in (('alice:' + secret + '\n', 0o640, b'chmod 600'),
                                ('alice:' + secret + 'x\n', 0o600, b'line 1: expected USER:HEX'),
                                ('\n' + secret + '\n', 0o600, b'line 2: expected USER:HEX'),
                                ('alice:\n', 0o600, b'line 1'),
                                ('# none\n', 0o600, b'holds no key')):
            path = self.path('bad.psk')
            with open(path, 'w') as f:
                f.write(text)
            os.chmod(path, mode)
            failed = run_status(SERVE, 'memory:1M', '--tls-psk', path)
            self.assertEqual(failed.returncode, 1)
            self.assertIn(why, failed.stderr)
            self.assertNotIn(secret.encode(), failed.stderr)
        failed = run_status(SERVE, 'memory:1M', '--tls-psk', self.path('none'))
        self.assertIn(b'cannot read pre-shared keys', failed.stderr)


if __name__ == '__main__':
    main()
