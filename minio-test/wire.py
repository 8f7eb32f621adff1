"""HTTP/1.1 as the fault proxy reads it: connections, requests and replies, close
enough to the bytes that it can pass them on unchanged, or damaged."""
import ctypes
import fcntl
import socket
import ssl
import struct
import termios
import time
import urllib.parse

PIECE = 256 * 1024
HEAD_MAX = 256 * 1024
libc = ctypes.CDLL(None)


class Gone(Exception):
    """The exchange is over: a peer has left, or was made to."""


class Wire:
    """A connected socket, and what was read from it ahead of need."""

    def __init__(self, sock):
        self.sock, self.ahead = sock, b''
        if sock.family in (socket.AF_INET, socket.AF_INET6):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def some(self, most=PIECE):
        """Up to MOST bytes; none at the end."""
        if self.ahead:
            data, self.ahead = self.ahead[:most], self.ahead[most:]
            return data
        try:
            return self.sock.recv(most)
        except OSError as e:
            raise Gone('read: %s' % e) from None

    def exactly(self, count):
        parts = []
        while count:
            parts.append(self.some(min(count, PIECE)))
            if not parts[-1]:
                raise Gone('cut')
            count -= len(parts[-1])
        return b''.join(parts)

    def until(self, end, most=HEAD_MAX):
        """All to END and with it; b'' where nothing came at all."""
        data = b''
        while end not in data:
            more = self.some()
            if not more and not data:
                return b''
            if not more or len(data) > most:
                raise Gone('cut')
            data += more
        at = data.index(end) + len(end)
        self.ahead = data[at:] + self.ahead
        return data[:at]

    def send(self, data):
        try:
            self.sock.sendall(data)
        except OSError as e:
            raise Gone('write: %s' % e) from None

    def has_left(self):
        """Whether the peer has closed; reads nothing that matters."""
        try:
            if isinstance(self.sock, ssl.SSLSocket):
                self.sock.settimeout(0.001)
                try:
                    more = self.sock.recv(1)
                finally:
                    self.sock.settimeout(None)
            else:
                more = self.sock.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
                return not more
            self.ahead += more
            return not more
        except (BlockingIOError, TimeoutError, ssl.SSLWantReadError):
            return False
        except OSError:
            return True

    def is_connected(self):
        """Neither side has ended it, as far as the kernel has heard."""
        try:
            return self.sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] == 1
        except OSError:
            return False

    def wait_read(self, seconds=20.0):
        """Until the peer, on this machine and of IPv4, has read all that was sent."""
        end = time.monotonic() + seconds
        host, port = self.sock.getpeername()
        peer = '%08X:%04X' % (struct.unpack('=I', socket.inet_aton(host))[0], port)
        while time.monotonic() < end and not self.has_left():
            if not struct.unpack('i', fcntl.ioctl(self.sock, termios.TIOCOUTQ, bytes(4)))[0]:
                with open('/proc/net/tcp') as f:
                    rows = [line.split() for line in list(f)[1:]]
                if not any(r[1] == peer and int(r[4].split(':')[1], 16) for r in rows):
                    return
            time.sleep(0.005)

    def close(self):
        try:
            self.sock.close()
        except OSError:
            pass

    def reset(self):
        """The peer sees a reset, not an end."""
        try:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER,
                                 struct.pack('ii', 1, 0))
        except OSError:
            pass
        self.close()


class SharedWire(Wire):
    """One that another thread may end: the peer sees a reset, and the thread that
    reads it an error, after which it closes it.  That is what connecting to nothing
    does (closing would not wake that thread, shutting down would send an end)."""

    def reset_by_other(self):
        try:
            libc.connect(self.sock.fileno(), bytes(16), 16)
        except OSError:
            pass


def read_head(wire):
    """The first line and the headers, as [(name, value)]; (None, []) at the end."""
    head = wire.until(b'\r\n\r\n')
    if not head:
        return None, []
    lines = head.decode('latin-1').split('\r\n')
    pairs = [line.partition(':') for line in lines[1:] if line]
    return lines[0], [(name, value.strip()) for name, _, value in pairs]


def write_head(first, headers):
    return (first + '\r\n' + ''.join('%s: %s\r\n' % h for h in headers) +
            '\r\n').encode('latin-1')


def kind_of(method, key, query, headers):
    """What a request is for, in one word."""
    copies = 'x-amz-copy-source' in headers
    if method == 'GET':
        if key:
            return 'list-parts' if 'uploadId' in query else 'get'
        for name in ('list-type', 'uploads', 'versions', 'location'):
            if name in query:
                return {'list-type': 'list', 'uploads': 'list-uploads'}.get(name, name)
        return 'bucket'
    if method == 'HEAD':
        return 'head' if key else 'head-bucket'
    if method == 'PUT':
        if 'uploadId' in query:
            return 'copy-part' if copies else 'part'
        return 'put-bucket' if not key else 'copy' if copies else 'put'
    if method == 'POST':
        for name, kind in (('delete', 'delete-many'), ('uploads', 'create'),
                           ('uploadId', 'complete')):
            if name in query:
                return kind
    if method == 'DELETE':
        return 'abort' if 'uploadId' in query else 'delete'
    return 'other'


class Request:
    """One request, and what became of it."""

    def __init__(self, number, connection, first, headers):
        self.number, self.connection, self.at = number, connection, time.time()
        self.first, self.headers = first, headers
        self.method, self.target, _ = first.split(' ', 2)
        self.header = {name.lower(): value for name, value in headers}
        path, _, self.query_text = self.target.partition('?')
        self.bucket, _, self.key = urllib.parse.unquote(path).lstrip('/').partition('/')
        self.query = dict(urllib.parse.parse_qsl(self.query_text, keep_blank_values=True))
        self.length = int(self.header.get('content-length', '0'))
        self.kind = kind_of(self.method, self.key, self.query, self.header)
        self.harm = None	# the name of what was done to it
        self.is_spared = False	# ... which did nothing: an empty body was cut
        self.served = None	# the server's status; None: it was not asked
        self.status = None	# what the client was told; None: nothing
        self.is_open = True
        self.is_read = False	# its body, by the proxy

    @property
    def is_harmed(self):
        return self.harm is not None and not self.is_spared

    def __repr__(self):
        return '#%d on %d %s %s %s: %s%s%s' % (
            self.number, self.connection, self.kind, self.method, self.target, self.status,
            ' (%s, server %s)' % (self.harm, self.served) if self.harm else '',
            '' if self.is_read or not self.length else ', its body did not come')


class Reply:
    """The server's: head read, body not yet."""

    def __init__(self, wire, request):
        while True:
            self.first, self.headers = read_head(wire)
            if self.first is None:
                raise Gone('the server closed')
            self.status = int(self.first.split(' ', 2)[1])
            if self.status >= 200:
                break		# 100 Continue the proxy has said already
        self.wire = wire
        self.header = {name.lower(): value for name, value in self.headers}
        self.is_chunked = self.header.get('transfer-encoding', '').lower() == 'chunked'
        self.is_bare = request.method == 'HEAD' or self.status in (204, 304)
        self.length = 0 if self.is_bare else int(self.header.get('content-length', '0'))

    def pieces(self):
        """The body's bytes, each once."""
        if self.is_bare:
            return
        if self.is_chunked:
            while True:
                count = int(self.wire.until(b'\r\n').split(b';')[0], 16)
                data = self.wire.exactly(count)
                self.wire.until(b'\r\n')
                if not count:
                    return
                yield data
        left = self.length
        while left:
            data = self.wire.some(min(left, PIECE))
            if not data:
                raise Gone('the server cut its body')
            left -= len(data)
            yield data

    def body(self):
        return b''.join(self.pieces())

    def set(self, name, value):
        """Another value for a header; None: without it."""
        self.headers = [h for h in self.headers if h[0].lower() != name.lower()]
        if value is not None:
            self.headers.append((name, value))
