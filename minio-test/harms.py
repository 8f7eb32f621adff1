"""What the fault proxy can do to a request: one function for each harm, given the
exchange (see proxy.py) and the rule that chose it, and the table of their names.

Three sorts: the server is not asked and never sees the request; it is asked, applies
it, and the answer is lost or damaged; or it is asked something else.
"""
import calendar
import email.utils
import re
import socket
import ssl
import threading
import time


# ---- the server is not asked ------------------------------------------------------------

def refuse(x, rule, seconds=1.0):
    """Connections are reset and refused for a while."""
    x.proxy.refuse(seconds)
    x.reset()


def reset_before(x, rule):
    x.reset()


def reset_in_request(x, rule):
    """Half of the request's body gets through to the server, then both are reset."""
    head = x.head_for_server()
    wire = x.server()
    wire.send(head + x.client.exactly(x.request.length // 2))
    wire.reset()
    x.reset()


def stall(x, rule, seconds=3600.0):
    """The request is swallowed and nothing ever comes back."""
    x.read_body()
    x.wait(seconds)
    x.reset()


def status(x, rule, status=500, code='InternalError', message='made by the fault proxy',
           headers=(), extra=''):
    x.read_body()
    x.answer(status, code, message, headers, extra=extra)


def status_early(x, rule, status=503, code='SlowDown'):
    """An answer before the body was read, and the end of the connection."""
    x.answer(status, code, headers=[('Connection', 'close')])
    x.end()


def redirect(x, rule, to=None, status=307):
    """To another endpoint (TO; None: to the proxy itself, for ever)."""
    x.read_body()
    to = (to or x.proxy.endpoint).rstrip('/')
    x.answer(status, 'TemporaryRedirect' if status == 307 else 'PermanentRedirect',
             headers=[('Location', to + x.request.target)],
             extra='<Endpoint>%s</Endpoint>' % re.sub('^https?://', '', to))


def portal(x, rule):
    """What a captive portal says to everything."""
    x.read_body()
    x.answer(200, body=b'<!DOCTYPE html><html><body><h1>Welcome to the airport</h1>'
             b'<p>Log in to use the network.<br></body></html>',
             content_type='text/html; charset=utf-8')


def error_in_200(x, rule, code='InternalError'):
    """The status promises what the body takes back; S3 does it for long calls."""
    x.read_body()
    x.answer(200, code, 'We encountered an internal error. Please try again.')


def empty_200(x, rule):
    """Says done, and did nothing."""
    x.read_body()
    x.answer(200, body=b'', headers=[('ETag', '"00000000000000000000000000000000"')])


def garbage(x, rule):
    """Not HTTP at all."""
    x.read_body()
    x.client.send(b'\x16\x03\x01\x02\x00 this is not what you asked for\r\n\r\n')
    x.end()


# ---- the server has applied it, and the answer goes astray ------------------------------

def reply_lost(x, rule):
    x.ask().body()
    x.reset()


def reply_late(x, rule, seconds=1.0):
    reply = x.ask()
    body = reply.body()
    x.wait(seconds)
    x.resend_whole(reply, body)


def reset_in_head(x, rule):
    reply = x.ask()
    reply.body()
    x.client.send(x.head_of(reply)[:40])
    x.reset()


def reset_after_head(x, rule):
    reply = x.ask()
    if not reply.body():
        x.spare()
    x.client.send(x.head_of(reply))
    x.reset()


def reset_after_reply(x, rule):
    """All is well, and the kept-alive connection dies right after."""
    x.relay(x.ask())
    x.spare()
    x.client.wait_read()	# a reset throws away the rest
    x.reset()


def _half(x, reply):
    """The body, and the half of it."""
    body = reply.body()
    if not body:
        x.spare()
    return body, body[:len(body) // 2]


def _good(x):
    """The reply to damage; None: it was an error's, whose words are left alone."""
    reply = x.ask()
    if reply.status < 300:
        return reply
    x.spare()
    x.relay(reply)
    return None


def reset_in_body(x, rule):
    reply = x.ask()
    body, half = _half(x, reply)
    x.resend(reply, half, len(body))
    time.sleep(0.02)	# a reset throws away what the peer has not read
    x.reset()


def cut(x, rule):
    """Half of the body, the length of all of it, and an orderly end."""
    reply = x.ask()
    body, half = _half(x, reply)
    x.resend(reply, half, len(body))
    x.end()


def short(x, rule):
    """Half of the body, and its length says the same."""
    reply = _good(x)
    if reply:
        x.resend(reply, _half(x, reply)[1])


def long(x, rule):
    """More than was asked for, and its length says the same."""
    reply = _good(x)
    if reply:
        x.resend(reply, reply.body() + b'and more')


def until_close(x, rule):
    """Half of the body, and no length at all: it ends where the connection does."""
    reply = _good(x)
    if not reply:
        return
    half = _half(x, reply)[1]
    reply.set('Transfer-Encoding', None)
    reply.set('Content-Length', None)
    reply.set('Connection', 'close')
    x.request.status = reply.status
    x.client.send(x.head_of(reply) + half)
    x.end()


def corrupt(x, rule, at=None):
    """One bit of the body is another."""
    reply = _good(x)
    if not reply:
        return
    body = bytearray(reply.body())
    if body:
        i = x.proxy.rng.randrange(len(body)) if at is None else at % len(body)
        body[i] ^= 1 << x.proxy.rng.randrange(8)
        rule.log.append(i)
    else:
        x.spare()
    x.resend(reply, bytes(body))


def drip(x, rule, steps=20, seconds=0.05):
    """The body in small steps, each after a pause."""
    reply = x.ask()
    body = reply.body()
    step = max(1, -(-len(body) // steps))
    x.resend(reply, body[:step], len(body))
    for at in range(step, len(body), step):
        x.wait(seconds)
        x.client.send(body[at:at + step])


def stall_in_body(x, rule, seconds=3600.0):
    reply = x.ask()
    body, half = _half(x, reply)
    x.resend(reply, half, len(body))
    x.wait(seconds)
    x.reset()


def wrong_range(x, rule):
    """The bytes asked for, said to be those 4 KiB further on."""
    reply = x.ask()
    found = re.match(r'bytes (\d+)-(\d+)/(.*)', reply.header.get('content-range', ''))
    if found:
        reply.set('Content-Range', 'bytes %d-%d/%s' % (
            int(found[1]) + 4096, int(found[2]) + 4096, found[3]))
    else:
        x.spare()
    x.relay(reply)


def wrong_tag(x, rule):
    reply = x.ask()
    if 'etag' in reply.header:
        reply.set('ETag', '"0123456789abcdef0123456789abcdef"')
    else:
        x.spare()
    x.relay(reply)


def wrong_type(x, rule):
    """The right bytes as a page of text."""
    reply = x.ask()
    reply.set('Content-Type', 'text/html')
    x.relay(reply)


def no_metadata(x, rule):
    """The headers that carry metadata are lost on the way."""
    reply = x.ask()
    reply.headers = [h for h in reply.headers if not h[0].lower().startswith('x-amz-meta-')]
    x.relay(reply)


def not_found(x, rule, code='NoSuchKey'):
    """Surely a lie about an object that is there."""
    x.read_body()
    x.answer(404, code)


# ---- the server is asked something else -----------------------------------------------------

def late(x, rule, seconds=1.0, silence=0.0):
    """The client sees a reset (after SILENCE seconds); the request arrives at the
    server later: after SECONDS, or when an Event given as SECONDS is set."""
    _later(x, rule, seconds)
    x.wait(silence)
    x.reset()


def twice(x, rule, seconds=1.0):
    """All is well, and a copy of the request arrives later once more."""
    _later(x, rule, seconds)
    x.relay(x.ask())


def _later(x, rule, seconds):
    data = x.head_for_server() + x.read_body()
    event = seconds if isinstance(seconds, threading.Event) else None

    def arrive():
        if event:
            event.wait(120)
        try:
            sock = socket.create_connection(x.proxy.server, 60)
            if x.proxy.server_tls:
                sock = x.proxy.server_tls.wrap_socket(sock)
            with sock:
                sock.sendall(data)
                rule.log.append(int(sock.recv(4096).split(b' ', 2)[1]))
        except (OSError, ssl.SSLError, IndexError) as e:
            rule.log.append(repr(e))

    timer = threading.Timer(0 if event else seconds, arrive)
    timer.daemon = True
    timer.start()
    rule.timers.append(timer)


def stale_list(x, rule):
    """The first listing of this kind that was seen, whatever happened since."""
    with x.proxy.lock:
        body = x.proxy.listings.get(x.request.target)
    reply = x.ask()
    fresh = reply.body()	# or the next reply begins with it
    x.resend_whole(reply, fresh if body is None else body)
    if body is not None:
        rule.log.append(len(body))


def empty_list(x, rule):
    """A listing that shows nothing, whatever is there."""
    reply = x.ask()
    x.resend_whole(reply, re.sub(rb'<Contents>.*</Contents>', b'', reply.body(), flags=re.S))


def range_ignored(x, rule):
    """The whole object with 200, whatever range was asked for."""
    answer = x.ask_anew(without={'range'})
    if x.request.header.get('range') in (None, 'bytes=0-%d' % (len(answer.body) - 1)):
        x.spare()		# the whole is what was asked for
    x.pass_answer(answer)


def conditions_ignored(x, rule, which=('if-match', 'if-none-match')):
    """A server that knows no conditional puts."""
    x.pass_answer(x.ask_anew(without=set(which)))


def _is_conditional(x):
    return 'if-match' in x.request.header or 'if-none-match' in x.request.header


def conditions_lost(x, rule):
    """A condition that holds fails all the same, and nothing is done."""
    if not _is_conditional(x):
        x.spare()
        return x.relay(x.ask())
    rule.log.append(412)
    x.read_body()
    x.answer(412, 'PreconditionFailed')


def conflict(x, rule):
    """Two conditional requests at once, says the server, and nothing is done."""
    if not _is_conditional(x):
        x.spare()
        return x.relay(x.ask())
    rule.log.append(409)
    x.read_body()
    x.answer(409, 'ConditionalRequestConflict')


def skewed(x):
    """No rule's, but what proxy.skew does to every request: a server whose clock is proxy.skew seconds ahead: it refuses who signs with
    another time, and tells its own."""
    skew = x.proxy.skew
    said = x.request.header.get('x-amz-date') or x.request.query.get('X-Amz-Date', '')
    then = time.strptime(said, '%Y%m%dT%H%M%SZ') if said else None
    if then and abs(calendar.timegm(then) - (time.time() + skew)) > 900:
        x.read_body()
        x.answer(403, 'RequestTimeTooSkewed',
                 'The difference between the request time and the server\'s time is too large.')
        return
    answer = x.ask_anew()
    for name in ('date', 'last-modified'):
        if name in answer.headers:
            at = email.utils.parsedate_to_datetime(answer.headers[name]).timestamp()
            answer.headers[name] = email.utils.formatdate(at + skew, usegmt=True)
    answer.body = re.sub(
        rb'<LastModified>(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)', lambda m: b'<LastModified>' +
        time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(
            calendar.timegm(time.strptime(m[1].decode(), '%Y-%m-%dT%H:%M:%S')) + skew)).encode(),
        answer.body)
    x.pass_answer(answer)


HARMS = {
    'refuse': refuse,
    'reset-before': reset_before,
    'reset-in-request': reset_in_request,
    'stall': stall,
    'status': status,
    'status-early': status_early,
    'redirect': redirect,
    'portal': portal,
    'error-in-200': error_in_200,
    'empty-200': empty_200,
    'garbage': garbage,
    'reply-lost': reply_lost,
    'reply-late': reply_late,
    'reset-in-head': reset_in_head,
    'reset-after-head': reset_after_head,
    'reset-in-body': reset_in_body,
    'reset-after-reply': reset_after_reply,
    'cut': cut,
    'short': short,
    'long': long,
    'until-close': until_close,
    'corrupt': corrupt,
    'drip': drip,
    'stall-in-body': stall_in_body,
    'wrong-range': wrong_range,
    'wrong-tag': wrong_tag,
    'wrong-type': wrong_type,
    'no-metadata': no_metadata,
    'not-found': not_found,
    'late': late,
    'twice': twice,
    'stale-list': stale_list,
    'empty-list': empty_list,
    'range-ignored': range_ignored,
    'conditions-ignored': conditions_ignored,
    'conditions-lost': conditions_lost,
    'conflict': conflict,
}
