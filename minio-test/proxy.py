#!/usr/bin/python3
"""A proxy between a client of S3 and its server that counts, records and does harm;
for tests only.

    proxy = Proxy(endpoint, s3)         # s3: an s3client.Client of the server
    rule = proxy.harm('reset-in-body', kind='get', key='/chunk/', skip=2, times=1)
    ...                                 # a client talks to proxy.endpoint
    rule.fired, proxy.requests(kind='get'), proxy.opened, proxy.open
    proxy.close()

Host passes unchanged, so that a signature made for the proxy's address stays valid:
the server checks it against the Host that it sees.  A connection of the client has
one of the server's beside it, and both end together.  What harm there is, is in
harms.py.

    proxy.py ENDPOINT [--port PORT] [--latency SECONDS] [--harm NAME[,NAME=VALUE...]]

runs one in the foreground, before the server at ENDPOINT whose keys are in the
environment, and prints its own endpoint.
"""
import argparse
import http.client
import os
import random
import re
import signal
import socket
import ssl
import sys
import threading
import time
import urllib.parse

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)
import harms  # noqa: E402
import s3client  # noqa: E402
from wire import PIECE, Gone, Reply, Request, SharedWire, read_head, write_head  # noqa: E402


class Exchange:
    """One request on its way; the words that harms.py speaks."""

    def __init__(self, proxy, client, server, request, healed):
        self.proxy, self.client, self.server = proxy, client, server
        self.request = request
        self.healed = healed	# how often the proxy was when the request came
        self._body = None

    def read_body(self):
        if self._body is None:
            if 'expect' in self.request.header:
                self.client.send(b'HTTP/1.1 100 Continue\r\n\r\n')
            self._body = self.client.exactly(self.request.length)
            self.request.is_read = True
        return self._body

    def head_for_server(self):
        return write_head(self.request.first, self.request.headers)

    @staticmethod
    def head_of(reply):
        return write_head(reply.first, reply.headers)

    def ask(self):
        """Passes the request on, as it came; the server's reply."""
        head = self.head_for_server()
        wire = self.server()
        if self._body is None and self.request.length > PIECE:
            if 'expect' in self.request.header:
                self.client.send(b'HTTP/1.1 100 Continue\r\n\r\n')
            wire.send(head)
            left = self.request.length
            while left:
                data = self.client.some(min(left, PIECE))
                if not data:
                    raise Gone('the client cut its body')
                wire.send(data)
                left -= len(data)
            self._body = b''
            self.request.is_read = True
        else:
            wire.send(head + self.read_body())
        reply = Reply(wire, self.request)
        self.request.served = reply.status
        return reply

    def ask_anew(self, without=(), headers=None):
        """Asks the server with a signature of the proxy's own, WITHOUT some
        headers; an s3client.Answer."""
        r = self.request
        if self.proxy.s3 is None:
            raise ValueError('a proxy without keys cannot sign')
        drop = {'host', 'authorization', 'x-amz-date', 'x-amz-content-sha256',
                'x-amz-security-token', 'content-length', 'connection', 'expect',
                'accept-encoding', 'user-agent', 'accept'} | set(without)
        kept = {n: v for n, v in r.header.items() if n not in drop}
        kept.update(headers or {})
        query = {n: v for n, v in r.query.items() if not n.startswith('X-Amz-')}
        answer = self.proxy.s3.request(r.method, r.bucket, r.key, query, kept,
                                       self.read_body(), check=False)
        r.served = answer.status
        return answer

    def relay(self, reply):
        """The server's reply as it is (or as reply.headers were changed)."""
        self.request.status = reply.status
        head = self.head_of(reply)
        for data in reply.pieces():
            if reply.is_chunked:
                data = b'%x\r\n%s\r\n' % (len(data), data)
            self.client.send(head + data)
            head = b''
        if reply.is_chunked and not reply.is_bare:
            head += b'0\r\n\r\n'
        if head:
            self.client.send(head)

    def resend_whole(self, reply, body):
        """The server's reply with another BODY; a HEAD's stays as it is."""
        if reply.is_bare:
            self.request.status = reply.status
            self.client.send(self.head_of(reply))
        else:
            self.resend(reply, body)

    def resend(self, reply, body, length=None):
        """The server's reply with another BODY, said to be LENGTH bytes long."""
        if reply.is_bare:
            return self.resend_whole(reply, b'')
        reply.set('Transfer-Encoding', None)
        reply.set('Content-Length', str(len(body) if length is None else length))
        self.request.status = reply.status
        self.client.send(self.head_of(reply) + body)

    def answer(self, status, code=None, message='made by the fault proxy', headers=(),
               body=None, content_type='application/xml', extra=''):
        """A reply of the proxy's own; CODE makes it an error of S3's."""
        if body is None:
            body = b'' if code is None else (
                '<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>%s</Code><Message>%s'
                '</Message>%s<Resource>/%s/%s</Resource><RequestId>0</RequestId></Error>' % (
                    code, message, extra, self.request.bucket,
                    urllib.parse.quote(self.request.key))).encode()
        self.request.status = status
        now = time.strftime('%a, %d %b %Y %H:%M:%S GMT', time.gmtime(
            time.time() + self.proxy.skew))
        head = write_head('HTTP/1.1 %d %s' % (status, http.client.responses.get(status, '?')), [
            ('Date', now), ('Content-Type', content_type),
            ('Content-Length', str(len(body))), *headers])
        self.client.send(head if self.request.method == 'HEAD' else head + body)

    def pass_answer(self, answer):
        """What ask_anew() gave."""
        r = self.request
        r.status = answer.status
        head = [(n, v) for n, v in answer.headers.items()
                if n not in ('transfer-encoding', 'connection', 'content-length')]
        length = answer.headers.get('content-length', '0') if r.method == 'HEAD' \
            else str(len(answer.body))
        self.client.send(write_head(
            'HTTP/1.1 %d %s' % (answer.status, http.client.responses.get(answer.status, '?')),
            head + ([] if answer.status == 204 else [('Content-Length', length)])) + answer.body)

    def spare(self):
        """The client gets all that it asked for: there was nothing to harm."""
        self.request.is_spared = True

    def reset(self):
        self.client.reset()
        raise Gone('reset')

    def end(self):
        """Closes in order; the client sees the end of what was sent."""
        try:
            self.client.sock.shutdown(socket.SHUT_WR)
        except OSError:
            pass
        self.client.close()
        raise Gone('ended')

    def wait(self, seconds):
        """Silence: until then, or the client leaves, or the proxy heals."""
        end = time.monotonic() + seconds
        while time.monotonic() < end and not self.proxy.is_closed and \
                self.healed == self.proxy.healed:
            if self.client.has_left():
                raise Gone('the client left')
            time.sleep(0.01)


class Rule:
    """Which requests a harm is done to, and how often it was."""

    def __init__(self, proxy, name, act, kind, key, query, method, skip, times,
                 probability, arguments):
        self.proxy, self.name, self.act, self.arguments = proxy, name, act, arguments
        self.kinds = None if kind is None else {kind} if isinstance(kind, str) else set(kind)
        self.key, self.query = key and re.compile(key), query and re.compile(query)
        self.method, self.skip, self.times = method, skip, times
        self.probability = probability
        self.seen = self.fired = 0
        self.log = []		# what the harm has to tell
        self.timers = []	# what it does later

    def settle(self, seconds=30):
        """Waits, after heal(), until whatever it was done to is over, and what was late
        has arrived."""
        end = time.monotonic() + seconds
        while any(r.harm == self.name and r.is_open for r in self.proxy.requests()) or \
                any(t.is_alive() for t in self.timers):
            if time.monotonic() > end:
                raise AssertionError('a request does not end: ' + self.name)
            time.sleep(0.01)

    def fires(self, r):
        """With the proxy's lock held."""
        if (self.kinds is not None and r.kind not in self.kinds) or \
           (self.method and r.method != self.method) or \
           (self.key and not self.key.search('/' + r.key)) or \
           (self.query and not self.query.search(r.query_text)):
            return False
        self.seen += 1
        if self.seen <= self.skip or (self.times is not None and self.fired >= self.times):
            return False
        if self.probability is not None and self.proxy.rng.random() >= self.probability:
            return False
        self.fired += 1
        return True


class Proxy:
    def __init__(self, endpoint, s3=None, tls=None, port=0, seed=0, latency=0.0):
        """TLS: (certificate, key) files, for the client's side."""
        where = urllib.parse.urlsplit(endpoint)
        self.server = (where.hostname, where.port)
        self.server_tls = ssl._create_unverified_context() if where.scheme == 'https' else None
        self.s3, self.latency, self.skew = s3, latency, 0
        self.resigns = False	# every request is signed anew, with the keys of s3
        self.rng = random.Random(seed)
        self.tls = None
        if tls:
            self.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self.tls.load_cert_chain(*tls)
        self.lock = threading.Lock()
        self.rules, self.all, self.listings = [], [], {}
        self.wires = {}			# of each connection of a client: it and the server's
        self.opened = self.peak = self.healed = 0
        self.is_closed, self.is_listening = False, True
        self.is_refusing = 0		# how often it was told to
        self.listener = self._listen(port)
        self.port = self.listener.getsockname()[1]
        self.endpoint = '%s://127.0.0.1:%d' % ('https' if tls else 'http', self.port)
        self.acceptor = threading.Thread(target=self._accept, daemon=True)
        self.acceptor.start()

    @staticmethod
    def _listen(port):
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(('127.0.0.1', port))
        if not port:		# bound by number, the port stays ours while we refuse
            port = sock.getsockname()[1]
            sock.close()
            return Proxy._listen(port)
        sock.listen(256)
        return sock

    # ---- what tests ask of it ----------------------------------------------------------

    def harm(self, name, kind=None, key=None, query=None, method=None, skip=0, times=None,
             probability=None, **arguments):
        """Does harm NAME of harms.py to the requests that fit: of KIND (a word of
        kind_of(), or several), with KEY and QUERY (regular expressions; a key begins
        with '/'), but not to the first SKIP of them, and at most TIMES."""
        rule = Rule(self, name, harms.HARMS[name], kind, key, query, method, skip, times,
                    probability, arguments)
        with self.lock:
            self.rules.append(rule)
        return rule

    def heal(self):
        """No more rules; what stalls goes on."""
        with self.lock:
            self.rules = []
            self.healed += 1

    def requests(self, kind=None, key=None):
        """Those so far."""
        with self.lock:
            return [r for r in self.all if (kind is None or r.kind == kind) and
                    (key is None or re.search(key, '/' + r.key))]

    def forget(self):
        with self.lock:
            self.all, self.opened = [], len(self.wires)
            self.peak = self._connected()

    def _connected(self):
        """How many connections clients have now: one that its client has closed stays
        in wires until its thread has seen that."""
        return sum(client.is_connected() for client, _ in self.wires.values())

    @property
    def open(self):
        """Connections of clients that are open now."""
        with self.lock:
            return len(self.wires)

    def refuse(self, seconds=None):
        """Resets all connections and refuses new ones, for so long or until accept()."""
        with self.lock:
            self.is_refusing += 1
            mine = self.is_refusing
            # Shut down twice, it would listen again but give dead connections.
            if self.is_listening:
                self.listener.shutdown(socket.SHUT_RDWR)
            self.is_listening = False
            wires = [w for pair in self.wires.values() for w in pair if w]
        for w in wires:
            w.reset_by_other()
        if seconds is not None:
            threading.Timer(seconds, lambda: self.accept(mine)).start()

    def accept(self, refusal=None):
        with self.lock:
            if refusal in (None, self.is_refusing) and not self.is_closed:
                self.listener.listen(256)
                self.is_listening = True

    def close(self):
        with self.lock:
            if self.is_closed:
                return
            self.is_closed = True
            wires = [w for pair in self.wires.values() for w in pair if w]
        try:
            self.listener.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass		# it was refusing
        self.acceptor.join(10)
        self.listener.close()
        for w in wires:
            w.reset_by_other()

    # ---- connections ---------------------------------------------------------------------

    def _accept(self):
        while not self.is_closed:
            try:
                sock, _ = self.listener.accept()
            except OSError:
                time.sleep(0.005)	# refusing
                continue
            with self.lock:
                self.opened += 1
                number = self.opened
            threading.Thread(target=self._serve, args=(sock, number), daemon=True).start()

    def _connect(self, number):
        try:
            sock = socket.create_connection(self.server, 30)
            sock.settimeout(None)
            if self.server_tls:
                sock = self.server_tls.wrap_socket(sock)
        except OSError as e:
            raise Gone('server: %s' % e) from None
        wire = SharedWire(sock)
        with self.lock:
            if number in self.wires:
                self.wires[number][1] = wire
        return wire

    def _serve(self, sock, number):
        key = object()
        client = SharedWire(sock)
        with self.lock:
            self.wires[key] = [client, None]
            self.peak = max(self.peak, self._connected())
        try:
            if self.tls:
                sock.settimeout(30)
                client.sock = self.tls.wrap_socket(sock, server_side=True)
                client.sock.settimeout(None)

            def server():
                if self.wires[key][1] is None:
                    self._connect(key)
                return self.wires[key][1]

            while self._one(client, server, number):
                pass
            client.close()
        except Gone:
            client.reset()	# unless the harm has closed it already
        except (OSError, http.client.HTTPException, ValueError, KeyError) as e:
            client.reset()
            if isinstance(e, (ValueError, KeyError)):
                print('proxy: %r' % e, file=sys.stderr)
        finally:
            with self.lock:
                wire = self.wires.pop(key)[1]
            if wire:
                wire.close()

    def _one(self, client, server, number):
        first, headers = read_head(client)
        if first is None:
            return False
        if self.is_closed:		# a connection that close() did not know of yet
            raise Gone('closed')
        with self.lock:
            request = Request(len(self.all) + 1, number, first, headers)
            self.all.append(request)
            rule = next((r for r in self.rules if r.fires(request)), None)
            request.harm = rule and rule.name
            exchange = Exchange(self, client, server, request, self.healed)
        try:
            if self.latency:
                time.sleep(self.latency / 2)
            if rule:
                rule.act(exchange, rule, **rule.arguments)
            elif self.skew:
                harms.skewed(exchange)
            elif self.resigns:
                exchange.pass_answer(exchange.ask_anew())
            else:
                reply = exchange.ask()
                if request.kind == 'list':
                    self._relay_listing(exchange, reply)
                else:
                    if self.latency:
                        time.sleep(self.latency / 2)
                    exchange.relay(reply)
                if reply.header.get('connection', '').lower() == 'close':
                    return False
        finally:
            request.is_open = False
        return request.header.get('connection', '').lower() != 'close'

    def _relay_listing(self, exchange, reply):
        """Keeps the first of each listing, for a stale one later."""
        body = reply.body()
        if reply.status == 200:
            with self.lock:
                self.listings.setdefault(exchange.request.target, body)
        if self.latency:
            time.sleep(self.latency / 2)
        exchange.resend_whole(reply, body)


def main():
    ap = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    ap.add_argument('endpoint')
    ap.add_argument('--port', type=int, default=0)
    ap.add_argument('--latency', type=float, default=0.0, help='seconds of a round trip')
    ap.add_argument('--harm', action='append', default=[], metavar='NAME[,NAME=VALUE...]')
    a = ap.parse_args()
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})
    s3 = None
    if 'AWS_SECRET_ACCESS_KEY' in os.environ:
        s3 = s3client.Client.from_env(dict(os.environ, AWS_ENDPOINT_URL_S3=a.endpoint))
    proxy = Proxy(a.endpoint, s3, port=a.port, latency=a.latency)
    for text in a.harm:
        name, *settings = text.split(',')
        settings = dict(s.split('=', 1) for s in settings)
        for n in ('skip', 'times', 'status'):
            if n in settings:
                settings[n] = int(settings[n])
        for n in ('seconds', 'probability'):
            if n in settings:
                settings[n] = float(settings[n])
        proxy.harm(name, **settings)
    print(proxy.endpoint, flush=True)
    signal.sigwait({signal.SIGTERM, signal.SIGINT})
    proxy.close()


if __name__ == '__main__':
    main()
