"""http:// and https:// places against web servers of several tempers."""
import email.utils
import hashlib
import http.server
import os
import re
import signal
import ssl
import subprocess
import sys
import threading
import time
import unittest

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.dirname(HERE))
import fixtures  # noqa: E402
import nbd  # noqa: E402

MIB = 1 << 20


class Handler(http.server.BaseHTTPRequestHandler):
    """Gives ranges of self.server.data as it should, but for self.server.temper."""
    protocol_version = 'HTTP/1.1'

    def log_message(self, *args):
        pass

    def answer(self, status, headers=(), body=b''):
        self.send_response(status)
        for name, value in headers:
            self.send_header(name, value)
        self.send_header('Content-Length', str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def validators(self):
        s = self.server
        headers = [('Last-Modified', email.utils.formatdate(s.modified, usegmt=True))]
        if s.temper == 'weak':
            headers.append(('ETag', 'W/' + s.etag))
        elif s.temper not in ('dates', 'no version', 'too new'):
            headers.append(('ETag', s.etag))
        return [] if s.temper == 'no version' else headers

    def refuses(self):
        """Answers when a condition does not hold."""
        s = self.server
        if s.temper == 'no conditions':
            return False
        match = self.headers.get('If-Match')
        since = self.headers.get('If-Unmodified-Since')
        if match and match != s.etag or since and \
                email.utils.mktime_tz(email.utils.parsedate_tz(since)) < s.modified:
            self.answer(412)
            return True
        return False

    def do_GET(self):
        s = self.server
        with s.lock:
            s.seen.append((self.path, dict(self.headers)))
            special = s.special(self) if s.special else False
        if special or self.refuses():
            return
        first, last = self.headers['Range'].removeprefix('bytes=').split('-')
        first, last = int(first), min(int(last), len(s.data) - 1)
        if first >= len(s.data):
            self.answer(416, [('Content-Range', 'bytes */%d' % len(s.data))])
            return
        if s.temper == 'no ranges':
            self.answer(200, self.validators(), s.data)
            return
        body = s.data[first:last + 1]
        if s.temper == 'other range':
            first, last = first + 1, last + 1
        elif s.temper == 'short':
            body = body[:-1]
        headers = self.validators()
        if s.temper == 'gzip':
            headers.append(('Content-Encoding', 'gzip'))
        if s.temper != 'silent':
            headers.append(('Content-Range', 'bytes %d-%d/%d' % (first, last, len(s.data))))
        self.answer(206, headers, body)


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, data, temper=None, tls=None):
        super().__init__(('127.0.0.1', 0), Handler)
        self.lock = threading.Lock()
        self.seen = []
        self.special = None
        self.temper = temper
        self.replace(data, time.time() - 3600)
        if tls:
            self.socket = tls.wrap_socket(self.socket, server_side=True)
        self.base = 'http%s://127.0.0.1:%d' % ('s' if tls else '', self.server_port)
        self.url = self.base + '/disk.img'
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def handle_error(self, request, client_address):
        pass                    # the client hangs up as it likes

    def replace(self, data, modified):
        self.data = data
        self.modified = int(modified)
        self.etag = '"%s"' % hashlib.md5(data).hexdigest()

    def stop(self):
        self.shutdown()
        self.server_close()


class Web(fixtures.World):
    def setUp(self):
        super().setUp()
        for name in list(self.env):
            if name.lower().endswith('_proxy'):
                del self.env[name]
        self.nr_mounts = 0

    def serve(self, data=None, temper=None, tls=None):
        server = Server(os.urandom(5 * MIB + 12345) if data is None else data, temper, tls)
        self.addCleanup(server.stop)
        return server

    def fails(self, says, *args, **kw):
        began = time.monotonic()
        p = self.objmap(*args, status=1, **kw)
        self.assertIn(says, p.stderr.decode())
        self.assertLess(time.monotonic() - began, 20)
        return p.stderr.decode()

    def mount(self, place, *options):
        self.nr_mounts += 1
        socket = self.path('s%d' % self.nr_mounts)
        where = 'nbd+unix:///?socket=' + socket
        self.objmap('mount', place, where, *options)
        pid = self.mounted()[0]['pid']
        self.pids.append(pid)
        client = nbd.NBD()
        client.set_strict_mode(0)
        client.connect_unix(socket)
        return where, client

    def status(self):
        return self.mounted()[0]

    # ---- what works ------------------------------------------------------------

    def test_a_file_is_copied_whole(self):
        server = self.serve()
        self.objmap('copy', server.url, self.path('out'))
        with open(self.path('out'), 'rb') as f:
            self.assertEqual(f.read(), server.data)
        pinned = [h for _, h in server.seen if h.get('If-Match') == server.etag]
        self.assertEqual(len(pinned), len(server.seen) - 1)
        for _, headers in server.seen:
            self.assertEqual(headers['Accept-Encoding'], 'identity')

    def test_it_is_a_device_that_cannot_be_written(self):
        server = self.serve()
        where, client = self.mount(server.url)
        self.assertEqual(client.get_size(), len(server.data))
        self.assertTrue(client.is_read_only())
        for at, count in ((0, 512), (1, 4095), (65535, 70000), (len(server.data) - 7, 7)):
            self.assertEqual(client.pread(count, at), server.data[at:at + count])
        self.assertEqual(self.status()['http'], {'connections': 1, 'busy': 0, 'queued': 0,
                                                 'connects': 1})
        with self.assertRaises(nbd.Error):
            client.pwrite(b'x' * 512, 0)
        self.objmap('umount', where)

    def test_a_date_is_a_version_where_there_is_no_strong_tag(self):
        for temper in ('dates', 'weak'):
            server = self.serve(temper=temper)
            self.objmap('copy', server.url, self.path(temper))
            with open(self.path(temper), 'rb') as f:
                self.assertEqual(f.read(), server.data)
            self.assertIn('If-Unmodified-Since', server.seen[-1][1])

    def test_tls_with_a_CA_of_ones_own(self):
        pem, tls = self.path('pem'), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.run_ok('openssl', 'req', '-x509', '-newkey', 'ec', '-pkeyopt',
                    'ec_paramgen_curve:P-256', '-nodes', '-days', '2', '-subj', '/CN=x',
                    '-addext', 'subjectAltName=IP:127.0.0.1', '-keyout', pem + '.key',
                    '-out', pem)
        tls.load_cert_chain(pem, pem + '.key')
        server = self.serve(tls=tls)
        self.objmap('copy', '--ca-bundle', pem, server.url, self.path('out'))
        with open(self.path('out'), 'rb') as f:
            self.assertEqual(f.read(), server.data)
        self.fails('certificate', 'copy', server.url, self.path('out2'))
        plain = self.serve()
        server.special = lambda h: h.answer(302, [('Location', plain.url)]) or True
        self.fails('not followed', 'info', server.url, '--ca-bundle', pem)
        self.assertEqual(plain.seen, [])

    # ---- what does not -----------------------------------------------------------

    def test_a_server_that_cannot_do_it_is_refused(self):
        for temper, says in (('no ranges', 'no ranges'),
                             ('other range', 'another range'),
                             ('short', 'less than it says'),
                             ('silent', 'without saying which'),
                             ('gzip', 'encoded (gzip)'),
                             ('no version', 'neither a strong ETag')):
            with self.subTest(temper=temper):
                server = self.serve(temper=temper)
                self.assertIn(server.url, self.fails(says, 'info', server.url))

    def test_a_file_of_this_very_second_has_no_date_to_go_by(self):
        server = self.serve(temper='too new')
        server.replace(server.data, time.time() + 10)
        self.fails('neither a strong ETag', 'info', server.url)

    def test_pythons_own_server_has_no_ranges(self):
        with open(self.path('file'), 'wb') as f:
            f.write(b'x' * 10000)
        p = self.start('/usr/bin/python3', '-u', '-m', 'http.server', '--bind', '127.0.0.1',
                       '--directory', self.dir, '0', stdout=subprocess.PIPE,
                       stderr=subprocess.DEVNULL)
        self.addCleanup(p.stdout.close)
        port = re.search(rb'port (\d+)', p.stdout.readline()).group(1).decode()
        self.assertIn('download it', self.fails('no ranges', 'info',
                                                'http://127.0.0.1:%s/file' % port))

    def test_what_is_not_there_fails_at_once(self):
        server = self.serve(b'')
        self.fails('is empty', 'info', server.url)
        server.special = lambda h: h.answer(404) or True
        self.fails('no such file', 'info', server.url)
        server.special = lambda h: h.answer(403) or True
        self.fails('does not allow', 'info', server.url)
        self.fails('resolve', 'info', 'http://no-such-host.invalid/x')

    def test_secrets_are_not_shown(self):
        p = self.objmap('info', 'http://me:hunter2@127.0.0.1/x', status=2)
        self.assertNotIn(b'hunter2', p.stderr)
        self.assertIn(b'presigned', p.stderr)
        server = self.serve()
        where, client = self.mount(server.url + '?key=hunter2&a@b')
        self.assertEqual(client.pread(10, 5), server.data[5:15])
        self.assertEqual(server.seen[-1][0], '/disk.img?key=hunter2&a@b')
        self.assertNotIn(b'hunter2', self.objmap('status', '--json').stdout)
        self.assertEqual(self.status()['place'], server.url + '?...')
        self.objmap('umount', where)
        server.special = lambda h: h.answer(404) or True
        p = self.objmap('info', server.url + '?key=hunter2', status=1)
        self.assertNotIn(b'hunter2', p.stderr)

    # ---- redirects -----------------------------------------------------------------

    def test_redirects_are_followed_and_remembered(self):
        server = self.serve()
        allowed = ['/b']

        def redirect(h):
            if h.path == '/disk.img':
                h.answer(302, [('Location', allowed[0])])
            elif h.path != allowed[0]:
                h.answer(403)
            return h.path != allowed[0]

        server.special = redirect
        where, client = self.mount(server.url)
        client.pread(10, 0)
        with server.lock:
            server.seen.clear()
        self.assertEqual(client.pread(10, 70), server.data[70:80])
        self.assertEqual([path for path, _ in server.seen], ['/b'])
        allowed[0] = '/c'       # as a presigned URL that has run out
        self.assertEqual(client.pread(10, 700000), server.data[700000:700010])
        self.assertEqual([path for path, _ in server.seen], ['/b', '/b', '/disk.img', '/c'])
        self.objmap('umount', where)

    def test_bad_redirects_are_refused(self):
        server = self.serve()
        for location, says in (('/disk.img', 'too often'), ('ftp://x/', 'not followed'),
                               ('http://u:p@127.0.0.1/', 'not followed'),
                               ('file:///etc/passwd', 'not followed')):
            with self.subTest(location=location):
                server.special = lambda h: h.answer(302, [('Location', location)]) or True
                self.fails(says, 'info', server.url)
        self.assertLess(len(server.seen), 12)

    # ---- a file that changes ---------------------------------------------------------

    def test_a_replaced_file_is_an_error_and_never_a_mixture(self):
        for temper in (None, 'no conditions', 'dates'):
            with self.subTest(temper=temper):
                server = self.serve(temper=temper)
                where, client = self.mount(server.url, '--log', self.path('log'))
                self.assertEqual(client.pread(10, 0), server.data[:10])
                server.replace(os.urandom(len(server.data)), time.time())
                for _ in range(2):
                    with self.assertRaises(nbd.Error):
                        client.pread(4096, MIB)
                self.assertTrue(self.status()['store']['lost'])
                del client
                self.objmap('umount', where, status=None)
                with open(self.path('log')) as f:
                    self.assertIn('was replaced', f.read())
                os.unlink(self.path('log'))
                fixtures.wait_gone(self.pids[-1])

    # ---- trouble that passes -----------------------------------------------------------

    def test_a_server_in_trouble_is_tried_again(self):
        server = self.serve()
        left = [3]

        def trouble(h):
            left[0] -= 1
            if left[0] < 0:
                return False
            if left[0] == 1:
                h.close_connection = True   # without a word
                return True
            h.answer(503 if left[0] else 429)
            return True

        server.special = trouble
        self.objmap('copy', server.url, self.path('out'))
        with open(self.path('out'), 'rb') as f:
            self.assertEqual(f.read(), server.data)

    def test_the_time_for_opening_is_bounded(self):
        server = self.serve()
        server.special = lambda h: h.answer(500) or True
        self.fails('answers 500', 'info', server.url, '--retry-for', '1s')

    def test_a_mount_waits_and_says_why(self):
        server = self.serve()
        where, client = self.mount(server.url)
        self.assertIsNone(self.status()['store']['trouble'])
        server.special = lambda h: h.answer(503) or True
        buffer = nbd.Buffer(4096)
        cookie = client.aio_pread(buffer, 12288)
        trouble = fixtures.wait_for(lambda: client.poll(0) >= 0 and
                                    self.status()['store']['trouble'], 'its trouble')
        self.assertIn('answers 503', trouble['reason'])
        self.assertFalse(client.aio_command_completed(cookie))
        server.special = None
        end = time.monotonic() + 20
        while not client.aio_command_completed(cookie):
            self.assertLess(time.monotonic(), end)
            client.poll(100)
        self.assertEqual(buffer.to_bytearray(), server.data[12288:16384])
        self.assertIsNone(self.status()['store']['trouble'])
        self.objmap('umount', where)


if __name__ == '__main__':
    fixtures.main()
