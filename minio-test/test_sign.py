#!/usr/bin/python3
"""Our signatures before a real server, and beside those of libcurl; and keys of a
role, from the server's own STS."""
import http.client
import http.server
import json
import os
import subprocess
import sys
import threading
import time
import urllib.parse

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)
import world  # noqa: E402
import fixtures  # noqa: E402
import s3client  # noqa: E402

PROGRAMS = os.path.join(fixtures.BUILD, 'tests', 's3')

# What has gone wrong in one signer or another.
KEYS = ['plain', 'a b', ' a ', 'a+b', 'a%20b', '100%', '%zz', 'a=b&c=d', 'a?b#c', '~.-_',
        "'\"", '!*()', 'a:b@c', '$,;', '[x]', '{y}|^`', 'ä/ö/☃/🐢', 'e\u0301',
        'under/score_s', 'A/a', 'x' * 200 + '/' + 'é' * 50, '.hidden/..x', 'a\\b']


class Signing(world.MinioWorld):
    def setUp(self):
        super().setUp()
        self.host = urllib.parse.urlsplit(self.endpoint).netloc

    def signed(self, env=None, **ask):
        ask = dict({'host': self.host, 'time': int(time.time())}, **ask)
        p = subprocess.run([os.path.join(PROGRAMS, 'sign-request')], env=env or self.env,
                           input=json.dumps(ask).encode() + b'\n', capture_output=True,
                           timeout=20)
        self.assertEqual(p.returncode, 0, p.stderr.decode())
        return json.loads(p.stdout)

    def send(self, method, answer, body=b'', more=()):
        connection = http.client.HTTPConnection(self.host, timeout=20)
        target = answer['path'] + ('?' + answer['query'] if answer['query'] else '')
        connection.putrequest(method, target, skip_host=True, skip_accept_encoding=True)
        for name, value in [['Host', self.host], *answer.get('headers', []), *more]:
            connection.putheader(name, value.encode())
        connection.putheader('Content-Length', str(len(body)))
        connection.endheaders(body)
        reply = connection.getresponse()
        content = reply.read()
        connection.close()
        return reply.status, content

    def ok(self, method, body=b'', env=None, **ask):
        answer = self.signed(env, method=method, body=body.decode(), **ask)
        status, content = self.send(method, answer, body)
        self.assertIn(status, (200, 204, 206), '%s %s %s' % (method, ask, content))
        return content

    def test_odd_keys(self):
        for key in KEYS:
            with self.subTest(key=key):
                path = '/%s/%s' % (self.bucket, key)
                body = ('I am ' + key).encode()
                self.ok('PUT', body, key=path)
                self.assertEqual(self.ok('GET', key=path), body)
                # The key is the one that another client knows.
                self.assertEqual(self.s3.get(self.bucket, key).body, body)

    def test_names_that_the_server_does_not_take_are_signed_well(self):
        for key in ('a//b', '//', 'a/./b', 'a/../b'):
            answer = self.signed(method='GET', key='/%s/%s' % (self.bucket, key))
            status, content = self.send('GET', answer)
            self.assertIn(status, (400, 404), content)

    def test_odd_queries(self):
        for value in KEYS + ['', '/']:
            with self.subTest(value=value):
                self.ok('GET', key='/' + self.bucket, encode=[
                    ['prefix', value], ['list-type', '2'], ['encoding-type', 'url']])
        for query in ('versioning', 'uploads', 'location=', 'acl', 'uploads&prefix=a/b',
                      'prefix=&list-type=2&delimiter=', 'list-type=2&prefix=a+b%2f%7E'):
            with self.subTest(query=query):
                self.ok('GET', key='/' + self.bucket, query=query)

    def test_headers_of_every_kind(self):
        path = '/%s/key' % self.bucket
        self.ok('PUT', b'0123456789', key=path, headers=[
            ['x-amz-meta-b', 'two  words'], ['X-Amz-Meta-A', ' a ,b'],
            ['Content-Type', 'text/plain; charset=utf-8'], ['If-None-Match', '*'],
            ['x-amz-storage-class', 'STANDARD']])
        self.assertEqual(self.ok('GET', key=path, headers=[
            ['Range', 'bytes=2-4'], ['User-Agent', 'this and that']]), b'234')
        self.assertEqual(self.s3.get(self.bucket, 'key').metadata['a'], 'a ,b')

    def test_an_unsigned_payload(self):
        path = '/%s/key' % self.bucket
        self.ok('PUT', b'content', key=path, unsigned=True)
        self.assertEqual(self.ok('GET', key=path, unsigned=True), b'content')

    def test_what_was_signed_is_what_must_come(self):
        path = '/%s/key' % self.bucket
        ask = {'method': 'PUT', 'key': path, 'body': 'content'}
        for why, answer, body, more in (
                ('XAmzContentSHA256Mismatch', self.signed(**ask), b'CONTENT', ()),
                ('SignatureDoesNotMatch', self.signed(
                    dict(self.env, AWS_SECRET_ACCESS_KEY='wrong'), **ask), b'content', ()),
                ('SignatureDoesNotMatch', dict(self.signed(**ask), query='acl'),
                 b'content', ()),
                ('RequestTimeTooSkewed', self.signed(**dict(
                    ask, time=int(time.time()) - 3600)), b'content', ()),
                ('InvalidTokenId', self.signed(
                    dict(self.env, AWS_SESSION_TOKEN='made up'), **ask), b'content', ())):
            status, content = self.send('PUT', answer, body, more)
            self.assertIn(status, (400, 403), why)
            self.assertIn(why, content.decode())
        self.assertFalse(self.s3.exists(self.bucket, 'key'))

    def test_presigned(self):
        for key in ('key', 'a b+c%/ä'):
            path = '/%s/%s' % (self.bucket, key)
            self.assertEqual(self.send('PUT', self.signed(
                method='PUT', key=path, presign=60), b'content')[0], 200)
            got = self.signed(method='GET', key=path, presign=60,
                              encode=[['response-content-type', 'text/plain; a=b']])
            self.assertEqual(self.send('GET', got), (200, b'content'))
            late = self.signed(method='GET', key=path, presign=60,
                               time=int(time.time()) - 90)
            status, content = self.send('GET', late)
            self.assertEqual(status, 403, content)
            status, content = self.send('PUT', got, b'other')
            self.assertEqual(status, 403, content)

    def role_keys(self, **more):
        """Keys of a role from MinIO's STS, found by the chain of credentials."""
        os.makedirs(self.path('.aws'), exist_ok=True)
        with open(self.path('.aws/config'), 'w') as f:
            f.write('[profile r]\nrole_arn = arn:minio:iam:::role/x\nsource_profile = b\n'
                    'duration_seconds = 900\nrole_session_name = tester\n'
                    '[profile b]\naws_access_key_id = %s\naws_secret_access_key = %s\n' % (
                        self.keys['AWS_ACCESS_KEY_ID'],
                        self.keys['AWS_SECRET_ACCESS_KEY']))
        env = {k: v for k, v in self.env.items() if not k.startswith('AWS_')}
        env.update(AWS_ENDPOINT_URL_STS=self.endpoint, AWS_EC2_METADATA_DISABLED='true',
                   **more)
        return subprocess.run([os.path.join(PROGRAMS, 'credentials-show'), '--profile',
                               'r'], env=env, capture_output=True, timeout=60)

    def test_keys_of_a_role(self):
        p = self.role_keys()
        found = json.loads(p.stdout)
        self.assertEqual(found.get('error'), 0, p.stderr.decode())
        self.assertNotEqual(found['id'], self.keys['AWS_ACCESS_KEY_ID'])
        self.assertLess(abs(found['expires'] - time.time() - 900), 30)
        env = dict(self.env, AWS_ACCESS_KEY_ID=found['id'],
                   AWS_SECRET_ACCESS_KEY=found['secret'], AWS_SESSION_TOKEN=found['token'])
        path = '/%s/a key' % self.bucket
        self.ok('PUT', b'content', env, key=path)
        self.assertEqual(self.ok('GET', env=env, key=path), b'content')
        got = self.signed(env, method='GET', key=path, presign=60)
        self.assertEqual(self.send('GET', got), (200, b'content'))
        # Without the token they are nobody's.
        answer = self.signed(dict(env, AWS_SESSION_TOKEN=''), method='GET', key=path)
        self.assertEqual(self.send('GET', answer)[0], 403)

    def test_a_role_with_wrong_keys(self):
        self.keys = dict(self.keys, AWS_SECRET_ACCESS_KEY='wrong-secret')
        p = self.role_keys()
        self.assertEqual(json.loads(p.stdout), {'failed': 'EACCES'})
        self.assertIn(b'AssumeRole', p.stderr)
        self.assertNotIn(b'wrong-secret', p.stderr)


class Libcurl(fixtures.World):
    """curl --aws-sigv4 as a second opinion, where it has a right one: 7.88 signs a query
    in the order and the encoding in which it is given, a parameter without '=' as it
    is, and never sends S3's x-amz-content-sha256 (so another service is signed for)."""

    def setUp(self):
        super().setUp()
        seen = self.seen = []

        class Handler(http.server.BaseHTTPRequestHandler):
            def serve(self):
                self.rfile.read(int(self.headers.get('Content-Length') or 0))
                seen.append(self)
                self.send_response(200)
                self.end_headers()

            do_GET = do_POST = do_PUT = do_DELETE = serve

            def log_message(self, *args):
                pass

        server = http.server.HTTPServer(('127.0.0.1', 0), Handler)
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        self.addCleanup(thread.join)
        self.addCleanup(server.server_close)
        self.addCleanup(server.shutdown)
        self.host = '127.0.0.1:%d' % server.server_address[1]
        self.env.update(AWS_ACCESS_KEY_ID='ID', AWS_SECRET_ACCESS_KEY='SECRET')
        self.env.pop('AWS_SESSION_TOKEN', None)

    def test_both_sign_alike(self):
        fixtures.require('curl')
        for method, path, query, body, header in (
                ('GET', '/', '', '', ''), ('GET', '/a/b-c_d.e~f', '', '', ''),
                ('GET', '/a%20b%2B%C3%A4', '', '', ''), ('DELETE', '/key', '', '', ''),
                ('GET', '/key', 'a=1&b=2%2F3', '', ''), ('GET', '/', 'uploads=', '', ''),
                ('GET', '/key', '', '', 'Range: bytes=0-9'),
                ('GET', '/key', '', '', 'x-amz-meta-b: two  words '),
                ('POST', '/', '', 'Action=AssumeRole&Version=2011-06-15', ''),
                ('PUT', '/key', 'x=y', 'content', '')):
            args = ['curl', '-sS', '-m', '60', '-X', method, '--aws-sigv4',
                    'aws:amz:eu-west-1:sts', '-u', 'ID:SECRET', '--noproxy', '*',
                    'http://%s%s%s' % (self.host, path, '?' + query if query else '')]
            if body:
                args += ['--data-binary', body]
            if header:
                args += ['-H', header]
            self.run_ok(*args)
            theirs = self.seen[-1].headers
            moment = time.strptime(theirs['X-Amz-Date'], '%Y%m%dT%H%M%SZ')
            names = theirs['Authorization'].split('SignedHeaders=')[1].split(',')[0]
            ask = {'method': method, 'host': self.host, 'path': path, 'query': query,
                   'body': body, 'region': 'eu-west-1', 'service': 'sts',
                   'time': int(time.mktime(moment) - time.timezone),
                   'headers': [[n, theirs[n]] for n in names.split(';')
                               if n not in ('host', 'x-amz-date')]}
            p = self.run_ok(os.path.join(PROGRAMS, 'sign-request'),
                            input=json.dumps(ask).encode() + b'\n')
            ours = dict(json.loads(p.stdout)['headers'])

            def parts(text):
                return [x.strip() for x in text.split(' ', 1)[1].split(',')]
            self.assertEqual(parts(ours['Authorization']), parts(theirs['Authorization']),
                             (method, path, query))


if __name__ == '__main__':
    fixtures.main()
