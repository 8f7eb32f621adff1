#!/usr/bin/python3
"""The fault proxy does what it says, and nothing where no rule fits: seen by a plain
client that retries nothing, with MinIO behind."""
import http.client
import os
import socket
import subprocess
import sys
import threading
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)
import world  # noqa: E402
import fixtures  # noqa: E402
import harms  # noqa: E402
import proxy  # noqa: E402
import s3client  # noqa: E402

BODY = bytes(range(256)) * 1024		# 256 KiB


class ProxyTest(world.MinioWorld):
    def setUp(self):
        super().setUp()
        self.proxy = proxy.Proxy(self.endpoint, self.s3)
        self.addCleanup(self.proxy.close)
        self.c = self.client(self.proxy)
        self.impatient = self.client(self.proxy, timeout=1)	# of what never comes

    def client(self, p, **kw):
        return s3client.Client.from_env(dict(self.keys, AWS_ENDPOINT_URL_S3=p.endpoint), **kw)

    def get(self, client=None, **kw):
        return (client or self.c).get(self.bucket, 'key', **kw)

    def there(self, key='key'):
        return self.s3.exists(self.bucket, key)

    # ---- passing ---------------------------------------------------------------------

    def test_it_passes_what_no_rule_fits(self):
        self.c.put(self.bucket, 'a key/with +% marks', BODY, {'colour': 'red'})
        answer = self.c.get(self.bucket, 'a key/with +% marks', (1000, 5000))
        self.assertEqual(answer.body, BODY[1000:6000])
        self.assertEqual(answer.metadata, {'colour': 'red'})
        self.assertEqual(self.c.keys(self.bucket), ['a key/with +% marks'])
        self.c.delete_many(self.bucket, ['a key/with +% marks'])
        with self.assertRaises(s3client.S3Error) as e:
            self.c.head(self.bucket, 'a key/with +% marks')
        self.assertEqual(e.exception.status, 404)
        upload = self.c.create_upload(self.bucket, 'big')
        etag = self.c.put_part(self.bucket, 'big', upload, 1, BODY * 24)
        self.c.complete_upload(self.bucket, 'big', upload, [etag])
        upload = self.c.create_upload(self.bucket, 'big')
        self.c.abort_upload(self.bucket, 'big', upload)
        self.assertEqual(self.c.get(self.bucket, 'big').body, BODY * 24)
        self.assertEqual([r.kind for r in self.proxy.requests()], [
            'put', 'get', 'list', 'delete-many', 'head', 'create', 'part', 'complete',
            'create', 'abort', 'get'])
        self.assertTrue(all(r.harm is None and r.status == r.served
                            for r in self.proxy.requests()))

    def test_one_connection_carries_many_requests_and_is_counted(self):
        self.s3.put(self.bucket, 'key', BODY)
        where = http.client.HTTPConnection('127.0.0.1', self.proxy.port, timeout=60)
        for _ in range(5):
            url = self.c.presign('GET', self.bucket, 'key')
            where.request('GET', url[len(self.proxy.endpoint):])
            self.assertEqual(where.getresponse().read(), BODY)
        self.assertEqual((self.proxy.opened, self.proxy.open), (1, 1))
        self.assertEqual([r.connection for r in self.proxy.requests()], [1] * 5)
        where.close()
        fixtures.wait_for(lambda: self.proxy.open == 0, 'the connection to be forgotten')

    def test_it_speaks_tls_to_the_client(self):
        ca, cert, key = self.path('ca.pem'), self.path('cert.pem'), self.path('key.pem')
        self.run_ok('openssl', 'req', '-x509', '-newkey', 'ec', '-pkeyopt',
                    'ec_paramgen_curve:prime256v1', '-nodes', '-keyout', key, '-out', cert,
                    '-days', '2', '-subj', '/CN=test', '-addext', 'subjectAltName=IP:127.0.0.1')
        os.link(cert, ca)
        p = proxy.Proxy(self.endpoint, self.s3, tls=(cert, key))
        self.addCleanup(p.close)
        c = self.client(p, ca_file=ca)
        c.put(self.bucket, 'key', BODY)
        self.assertEqual(c.get(self.bucket, 'key').body, BODY)
        p.harm('reset-in-body', times=1)
        with self.assertRaises((OSError, http.client.HTTPException)):
            c.get(self.bucket, 'key')

    # ---- rules ------------------------------------------------------------------------

    def test_a_rule_fits_by_kind_key_query_and_count(self):
        self.s3.put(self.bucket, 'key', BODY)
        rule = self.proxy.harm('status', kind=('get', 'list'), key='^/key$', skip=1, times=2)
        other = self.proxy.harm('status', query='prefix=x', status=503, code='SlowDown')
        self.get()
        for _ in range(2):
            with self.assertRaises(s3client.S3Error) as e:
                self.get()
            self.assertEqual((e.exception.status, e.exception.code), (500, 'InternalError'))
        self.get()
        self.c.keys(self.bucket)
        with self.assertRaises(s3client.S3Error) as e:
            self.c.keys(self.bucket, 'x')
        self.assertEqual(e.exception.code, 'SlowDown')
        self.assertEqual((rule.seen, rule.fired, other.fired), (4, 2, 1))

    def test_chance_is_repeated_by_its_seed(self):
        def pattern(seed):
            p = proxy.Proxy(self.endpoint, self.s3, seed=seed)
            self.addCleanup(p.close)
            p.harm('status', probability=0.5)
            for _ in range(40):
                self.client(p).request('HEAD', self.bucket, check=False)
            return [r.status for r in p.requests()]

        first = pattern(7)
        self.assertEqual(first, pattern(7))
        self.assertIn(first.count(500), range(5, 36))

    # ---- each harm ----------------------------------------------------------------------

    def broken(self, harm, act, errors=(OSError, http.client.HTTPException), **arguments):
        rule = self.proxy.harm(harm, times=1, **arguments)
        with self.assertRaises(errors) as e:
            act()
        # Who waits for nothing may have gone before the proxy has looked.
        fixtures.wait_for(lambda: rule.fired == 1, harm + ' to be done')
        return e.exception

    def test_requests_that_never_arrive(self):
        def put(client=self.c):
            client.put(self.bucket, 'key', BODY)

        for harm in ('reset-before', 'reset-in-request', 'garbage'):
            self.broken(harm, put)
            self.assertFalse(self.there(), harm)
        self.broken('stall', lambda: put(self.impatient))
        self.assertFalse(self.there(), 'stall')
        def put_if_absent():
            self.c.put(self.bucket, 'key', BODY, headers={'If-None-Match': '*'})
        for harm, code in (('status', 'InternalError'), ('conditions-lost', 'PreconditionFailed'),
                           ('conflict', 'ConditionalRequestConflict')):
            self.assertEqual(self.broken(harm, put_if_absent, s3client.S3Error).code, code)
            self.assertFalse(self.there(), harm)
        for harm in ('portal', 'error-in-200', 'empty-200'):
            self.proxy.harm(harm, times=1)
            self.assertEqual(self.c.put(self.bucket, 'key', BODY).status, 200)
            self.assertFalse(self.there(), harm)
        put()
        self.assertTrue(self.there())
        e = self.broken('not-found', self.get, s3client.S3Error)
        self.assertEqual((e.status, e.code), (404, 'NoSuchKey'))

    def test_an_early_answer_ends_the_connection(self):
        self.proxy.harm('status-early', times=1)
        try:	# the client may see the answer, or only that it cannot write
            self.c.put(self.bucket, 'key', BODY * 40)
        except s3client.S3Error as e:
            self.assertEqual(e.code, 'SlowDown')
        except OSError:
            pass
        self.assertFalse(self.there())

    def test_requests_that_are_applied_and_not_answered(self):
        for i, harm in enumerate(('reply-lost', 'reset-in-head', 'reset-after-head')):
            key = 'key%d' % i
            try:
                self.c.put(self.bucket, key, BODY)
            except OSError:
                pass
            self.proxy.harm(harm, times=1)
            try:
                self.c.put(self.bucket, key, BODY[1:])
                self.assertEqual(harm, 'reset-after-head')	# nothing more was to come
            except (OSError, http.client.HTTPException):
                pass
            self.assertEqual(self.s3.get(self.bucket, key).body, BODY[1:])

    def test_bodies_that_are_cut(self):
        self.s3.put(self.bucket, 'key', BODY)
        for harm in ('reset-in-head', 'reset-after-head', 'reset-in-body', 'cut',
                     'stall-in-body', 'stall'):
            e = self.broken(harm, lambda: self.get(
                self.impatient if 'stall' in harm else self.c))
            if harm == 'cut':
                self.assertEqual(e.partial, BODY[:len(BODY) // 2])
        for harm, body in (('short', BODY[:len(BODY) // 2]), ('long', BODY + b'and more'),
                           ('until-close', BODY[:len(BODY) // 2]), ('wrong-type', BODY),
                           ('reply-late', BODY), ('drip', BODY)):
            self.proxy.harm(harm, times=1)
            begin = time.monotonic()
            self.assertEqual(self.get().body, body, harm)
            if harm in ('reply-late', 'drip'):
                self.assertGreater(time.monotonic() - begin, 0.9)

    def test_a_kept_alive_connection_that_dies_after_a_whole_reply(self):
        self.s3.put(self.bucket, 'key', BODY)
        self.proxy.harm('reset-after-reply', times=1)
        where = http.client.HTTPConnection('127.0.0.1', self.proxy.port, timeout=60)
        url = self.c.presign('GET', self.bucket, 'key')[len(self.proxy.endpoint):]
        where.request('GET', url)
        self.assertEqual(where.getresponse().read(), BODY)
        fixtures.wait_for(lambda: self.proxy.open == 0, 'the connection to die')
        with self.assertRaises(OSError):
            where.sock.sendall(b'GET / HTTP/1.1\r\n\r\n')
            if not where.sock.recv(1):
                self.fail('an end, not a reset')
        where.close()

    def test_a_harm_that_did_nothing_is_told_from_one_that_did(self):
        self.s3.put(self.bucket, 'key', BODY)
        self.s3.put(self.bucket, 'empty')
        for harm in ('short', 'cut', 'corrupt', 'reset-in-body'):
            rule = self.proxy.harm(harm)
            self.proxy.forget()
            for key in ('key', 'empty', 'none'):
                try:
                    self.c.get(self.bucket, key)
                except (OSError, http.client.HTTPException, s3client.S3Error):
                    pass
            self.assertEqual(rule.fired, 3)
            harmed = [r.key for r in self.proxy.requests() if r.is_harmed]
            self.assertEqual(harmed, ['key', 'none'] if harm in ('cut', 'reset-in-body')
                             else ['key'], harm)
            self.proxy.heal()

    def test_replies_that_are_wrong(self):
        self.s3.put(self.bucket, 'key', BODY, {'colour': 'red'})
        rule = self.proxy.harm('corrupt', times=1)
        wrong = [i for i, (a, b) in enumerate(zip(self.get().body, BODY)) if a != b]
        self.assertEqual(wrong, rule.log)
        self.proxy.harm('wrong-range', times=1)
        self.assertEqual(self.get(range=(0, 10)).headers['content-range'],
                         'bytes 4096-4105/%d' % len(BODY))
        self.proxy.harm('wrong-tag', times=1)
        self.assertNotEqual(self.get().etag, self.get().etag)
        self.proxy.harm('no-metadata', times=1)
        self.assertEqual((self.get().metadata, self.get().metadata), ({}, {'colour': 'red'}))
        self.proxy.harm('range-ignored', times=1)
        answer = self.get(range=(5, 10))
        self.assertEqual((answer.status, answer.body), (200, BODY))

    def test_refusal_ends_by_itself(self):
        self.s3.put(self.bucket, 'key', BODY)
        kept = socket.create_connection(('127.0.0.1', self.proxy.port), 60)
        kept.settimeout(60)
        fixtures.wait_for(lambda: self.proxy.open == 1, 'the connection')
        begin = time.monotonic()
        self.broken('refuse', self.get, seconds=0.5)
        with self.assertRaises(ConnectionResetError):
            kept.recv(1)
        kept.close()
        fixtures.wait_for(self.is_served, 'the end of the refusal')
        self.assertGreaterEqual(time.monotonic() - begin, 0.5)
        begin = time.monotonic()
        self.proxy.refuse(0.3)
        self.proxy.refuse(0.6)		# the longer one counts
        fixtures.wait_for(self.is_served, 'the end of both')
        self.assertGreaterEqual(time.monotonic() - begin, 0.6)

    def is_served(self):
        try:
            return self.get().body == BODY
        except ConnectionRefusedError:
            return False

    def test_a_late_put_arrives_after_a_newer_one(self):
        arrive = threading.Event()
        rule = self.proxy.harm('late', kind='put', times=1, seconds=arrive)
        with self.assertRaises(OSError):
            self.c.put(self.bucket, 'key', b'old')
        self.c.put(self.bucket, 'key', b'new')
        arrive.set()
        fixtures.wait_for(lambda: rule.log, 'the late put')
        self.assertEqual(rule.log, [200])
        self.assertEqual(self.s3.get(self.bucket, 'key').body, b'old')
        arrive = threading.Event()
        rule = self.proxy.harm('twice', kind='put', times=1, seconds=arrive)
        self.c.put(self.bucket, 'one', b'one', headers={'If-None-Match': '*'})
        arrive.set()
        fixtures.wait_for(lambda: rule.log, 'the copy')
        self.assertEqual(rule.log, [412])
        # Without an event they come by themselves.
        begin = time.monotonic()
        rule = self.proxy.harm('late', kind='put', times=1, seconds=0.3)
        with self.assertRaises(OSError):
            self.c.put(self.bucket, 'later', b'x')
        fixtures.wait_for(lambda: rule.log, 'the late put')
        self.assertGreaterEqual(time.monotonic() - begin, 0.3)
        self.assertTrue(self.there('later'))

    def test_a_stale_listing_is_of_some_time_ago(self):
        self.c.put(self.bucket, 'one')
        self.assertEqual(self.c.keys(self.bucket), ['one'])
        self.c.put(self.bucket, 'two')
        self.proxy.harm('stale-list', kind='list', times=1)
        self.assertEqual(self.c.keys(self.bucket), ['one'])
        self.assertEqual(self.c.keys(self.bucket), ['one', 'two'])

    def test_an_empty_listing_shows_nothing(self):
        self.c.put(self.bucket, 'one')
        self.proxy.harm('empty-list', kind='list', times=1)
        self.assertEqual(self.c.keys(self.bucket), [])
        self.assertEqual(self.c.keys(self.bucket), ['one'])

    def test_a_server_without_conditions(self):
        self.c.put(self.bucket, 'key', b'one')
        with self.assertRaises(s3client.S3Error):
            self.c.put(self.bucket, 'key', b'two', headers={'If-None-Match': '*'})
        self.proxy.harm('conditions-ignored', kind='put')
        self.c.put(self.bucket, 'key', b'two', headers={'If-None-Match': '*'},
                   metadata={'colour': 'red'})
        self.assertEqual(self.get().body, b'two')
        self.assertEqual(self.get().metadata, {'colour': 'red'})

    def test_a_redirect_names_its_target(self):
        self.s3.put(self.bucket, 'key', BODY)
        e = self.broken('redirect', self.get, s3client.S3Error, to=self.endpoint)
        self.assertEqual(e.status, 307)
        self.assertTrue(e.answer.headers['location'].startswith(self.endpoint + '/'))

    def test_a_server_with_another_clock_refuses_and_says_its_own(self):
        self.proxy.skew = 3600
        with self.assertRaises(s3client.S3Error) as e:
            self.c.put(self.bucket, 'key', BODY)
        self.assertEqual(e.exception.code, 'RequestTimeTooSkewed')
        self.assertFalse(self.there())
        answer = self.c.request('PUT', self.bucket, 'key', body=BODY, skew=3600)
        here = time.time()
        date = time.mktime(time.strptime(answer.headers['date'], '%a, %d %b %Y %H:%M:%S GMT'))
        self.assertAlmostEqual(date - time.timezone - here, 3600, delta=30)
        self.assertEqual(self.c.request('GET', self.bucket, 'key', skew=3600).body, BODY)

    def test_latency_is_added_once_to_a_round_trip(self):
        self.s3.put(self.bucket, 'key', b'x')
        self.proxy.latency = 0.2
        times = self.times_until(0.4, self.get)
        self.assertGreaterEqual(min(times), 0.2)
        self.assertLess(min(times), 0.4)

    @staticmethod
    def times_until(enough, act):
        """How long ACT took each time: until it took less than ENOUGH, as in a quiet
        moment, or that is not to be had."""
        times = []
        while len(times) < 50 and not (times and times[-1] < enough):
            begin = time.monotonic()
            act()
            times.append(time.monotonic() - begin)
        return times

    def test_a_delay_is_a_round_trip_for_each_request_and_two_for_the_first(self):
        self.s3.put(self.bucket, 'key', BODY * 16)
        where = self.endpoint[len('http://'):]
        line = self.start(os.path.join(fixtures.BUILD, 'minio-test/delay'), where, '200',
                          stdout=subprocess.PIPE)
        endpoint = line.stdout.readline().decode().strip()
        line.stdout.close()
        c = s3client.Client.from_env(dict(self.keys, AWS_ENDPOINT_URL_S3=endpoint))
        peer = http.client.HTTPConnection(endpoint[len('http://'):], timeout=60)
        url = c.presign('GET', self.bucket, 'key')

        def get():
            peer.request('GET', url[len(endpoint):])
            self.assertEqual(peer.getresponse().read(), BODY * 16)
        first, = self.times_until(float('inf'), get)
        times = self.times_until(0.39, get)
        peer.close()
        self.assertGreaterEqual(first, 0.4)
        self.assertGreaterEqual(min(times), 0.2)
        self.assertLess(min(times), 0.39)
        self.assertEqual(c.put(self.bucket, 'other', BODY * 16).status, 200)
        self.assertEqual(self.s3.get(self.bucket, 'other').body, BODY * 16)

    def test_healing_ends_what_stalls(self):
        self.s3.put(self.bucket, 'key', BODY)
        rule = self.proxy.harm('stall')

        def heal():
            fixtures.wait_for(lambda: rule.fired, 'a stall')
            time.sleep(0.1)
            self.proxy.heal()
        healer = threading.Thread(target=heal)
        healer.start()
        with self.assertRaises((ConnectionError, http.client.HTTPException)):
            self.get()		# it waits longer than anybody would
        healer.join()
        rule.settle()
        self.assertEqual(self.get().body, BODY)

    def test_every_harm_of_the_table_is_proven_here(self):
        with open(__file__) as f:
            text = f.read()
        self.assertEqual([n for n in harms.HARMS if "'%s'" % n not in text], [])


if __name__ == '__main__':
    fixtures.main()
