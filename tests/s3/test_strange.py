#!/usr/bin/python3
"""What the verbs make of a server that answers strangely: a small stand-in."""
import http.server
import json
import os
import subprocess
import sys
import threading
import time

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
import fixtures  # noqa: E402

# An odd number of bytes, so that what is cut at any even one is cut in a character.
WORDS = 'x' + 'ä' * 200


def error(code, words='words'):
    return '<Error><Code>%s</Code><Message>%s</Message></Error>' % (code, words)


def page(text, token=None):
    return 200, '<ListBucketResult><IsTruncated>%s</IsTruncated>%s%s</ListBucketResult>' % (
        'true' if token else 'false', text,
        '<NextContinuationToken>%s</NextContinuationToken>' % token if token else '')


def folder(name):
    return '<CommonPrefixes><Prefix>%s/</Prefix></CommonPrefixes>' % name


def file(key):
    return ('<Contents><Key>%s</Key><Size>9</Size><LastModified>2026-01-02T03:04:05Z'
            '</LastModified></Contents>' % key)


class Strange(fixtures.World):
    def serve(self, answer):
        """ANSWER(request) gives (status, text) or (status, text, headers); returns the
        list of the paths that are asked for."""
        for name in list(self.env):
            if name.startswith('AWS_') or name.lower().endswith('_proxy'):
                del self.env[name]
        self.env.update(AWS_ACCESS_KEY_ID='ID', AWS_SECRET_ACCESS_KEY='SECRET')
        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = 'HTTP/1.1'

            def serve(self):
                self.rfile.read(int(self.headers.get('Content-Length') or 0))
                seen.append(self.path)
                status, text, headers = (answer(self) + ({},))[:3]
                self.send_response(status)
                for name, value in dict(headers, **{'x-amz-request-id': '1'}).items():
                    self.send_header(name, value)
                self.send_header('Content-Length', str(len(text.encode())))
                self.end_headers()
                self.wfile.write(text.encode())

            do_GET = do_PUT = do_POST = do_DELETE = serve

            def log_message(self, *args):
                pass

        seen = []
        server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), Handler)
        server.daemon_threads, server.block_on_close = True, False
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        self.addCleanup(thread.join)
        self.addCleanup(server.server_close)
        self.addCleanup(server.shutdown)
        self.env['AWS_ENDPOINT_URL'] = 'http://127.0.0.1:%d' % server.server_address[1]
        return seen


class Words(Strange):
    def test_doctor_tells_what_failed_whatever_the_server_s_words_are(self):
        self.serve(lambda r: (403, error('AccessDenied', WORDS)))
        p = self.objmap('doctor', 's3://bucket/p', '--json', status=1)
        found = {f['what']: f for f in json.loads(p.stdout)}
        self.assertFalse(found['bucket']['ok'])
        self.assertIn('AccessDenied: xä', found['bucket']['detail'])

    def test_status_tells_why_a_store_is_asked_again_whatever_its_words_are(self):
        fixtures.require('nbdcopy')
        content = 'c' * 65536

        def answer(r):
            first, last = (int(n) for n in r.headers['Range'][6:].split('-'))
            if first or last:
                return 503, error('SlowDown', WORDS)
            return 206, content[:1], {'ETag': '"e"', 'Content-Range': 'bytes 0-0/65536'}
        self.serve(answer)
        where = 'nbd+unix:///?socket=' + self.path('sock')
        with self.start(fixtures.OBJMAP, 'mount', 's3+object://bucket/k', where,
                        '--direct', '--foreground', stdout=subprocess.PIPE,
                        stderr=subprocess.DEVNULL) as daemon:
            daemon.stdout.readline()
            with self.start('nbdcopy', where, self.path('copy'),
                            stderr=subprocess.DEVNULL) as copy:
                def reason():
                    all = json.loads(self.objmap('status', where, '--json').stdout)
                    return 'SlowDown: xä' in json.dumps(all, ensure_ascii=False)
                fixtures.wait_for(reason, 'the reason')
                copy.kill()
            daemon.kill()


class Lists(Strange):
    def test_an_object_that_looks_like_an_error_is_no_error(self):
        def answer(r):
            if 'list-type' not in r.path:
                return 200, error('NoSuchBucket'), {'ETag': '"e"'}
            return page(folder('a') if r.path.endswith('prefix=') else file('a/head'))
        self.serve(answer)
        p = self.objmap('list', 's3://bucket/')
        self.assertIn("a/head: no volume's", p.stderr.decode())

    def test_a_page_that_is_followed_by_itself_ends_it(self):
        seen = self.serve(lambda r: page('', 'again'))
        p = self.objmap('list', 's3://bucket/', status=1)
        self.assertIn('no listing', p.stderr.decode())
        self.assertLess(len(seen), 5)

    def test_more_folders_than_can_be_looked_at_are_not_kept(self):
        pages = 100

        def answer(r):
            nr = int(r.path.partition('-token=')[2] or 0) + 1
            if 'prefix=&' not in r.path + '&':
                return page('')
            return page(''.join(folder('%03d%03d' % (nr, i) + 'x' * 900)
                                for i in range(1000)), nr if nr < pages else None)
        self.serve(answer)
        p = subprocess.Popen([fixtures.OBJMAP, 'list', 's3://bucket/'], env=self.env,
                             stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        usage = os.wait4(p.pid, 0)[2]
        self.assertLess(usage.ru_maxrss, 80 << 10)



class Silence(Strange):
    def test_without_time_for_it_nothing_is_tried_again(self):
        seen = self.serve(lambda r: (503, error('SlowDown')))
        for place in 's3://bucket/p', self.env['AWS_ENDPOINT_URL'] + '/disk':
            del seen[:]
            p = self.objmap('info', place, '--retry-for', '0', status=1)
            self.assertEqual(len(seen), 1, (place, p.stderr))

    @fixtures.long_test
    def test_a_short_time_for_trying_again_bounds_a_silent_try_too(self):
        over = threading.Event()

        def answer(request):
            over.wait(60)
            return 503, ''
        self.serve(answer)
        self.addCleanup(over.set)
        began = time.monotonic()
        p = self.objmap('info', 's3://bucket/p', '--retry-for', '2s', status=1)
        self.assertLess(time.monotonic() - began, 28)	# one usual try takes 30
        self.assertIn(b'nothing has moved', p.stderr)


if __name__ == '__main__':
    fixtures.main()
