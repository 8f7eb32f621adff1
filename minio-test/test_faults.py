#!/usr/bin/python3
"""Every verb and mount under every fault: no wrong byte, no false success, no error
before the deadline, no connection and no upload left over.

A pair of fault and verb is run twice: with the fault passing (a few requests, chosen
by the seed), and with it lasting, under a short --retry-for; what cannot be had then
must not be called a success.  60 pairs are drawn;
OBJMAP_LONG=1 runs all; OBJMAP_PAIRS=FAULT:VERB,... runs those (either may be empty).
"""
import concurrent.futures
import os
import random
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)
import world  # noqa: E402
import fixtures  # noqa: E402
import proxy  # noqa: E402
import verbs  # noqa: E402

DRAWN = 60
AT_ONCE = 8
RETRY_FOR = 1.5			# of lasting faults, seconds

# What may be expected of a verb:
#   PASSES    it works while the fault passes; lasting, it fails, and not early
#   HARMLESS  it works
#   DAMAGED   once, it works; again, it may take it for damage and fail at once
#   REFUSED   it may fail at once, with the server's reason
#   LIE       nothing can tell; whatever it says, no volume may suffer
#   SENSELESS not tried: nothing can tell, and the bytes are wrong
PASSES, HARMLESS, DAMAGED, REFUSED, LIE, SENSELESS = range(6)

READS = ('get', 'list', 'list-uploads')
BODIES = READS + ('create', 'complete', 'delete-many')
CHANGES = ('put', 'part', 'copy-part', 'create', 'complete', 'delete', 'delete-many', 'abort')

# Those that cannot succeed without each of their requests.  (A list names what it could
# not look at; a mount reads ahead; what changes something can see that it is done.)
NEED_ALL = ('info', 'info-map', 'copy-out', 'copy-verify', 'copy-stream', 'snapshot-list',
            'verify', 'object-info', 'object-copy-out', 'object-verify')

# FAULT: (harm, its arguments, kinds of requests, what is expected, its word)
FAULTS = {
    'connection-refused': ('refuse', {'seconds': 0.4}, None, PASSES),
    'reset-before': ('reset-before', {}, None, PASSES),
    'reset-in-request': ('reset-in-request', {}, None, PASSES),
    'reset-in-head': ('reset-in-head', {}, None, PASSES),
    'reset-after-head': ('reset-after-head', {}, BODIES, PASSES),
    'reset-in-body': ('reset-in-body', {}, BODIES, PASSES),
    'reset-after-reply': ('reset-after-reply', {}, None, HARMLESS),
    'cut-body': ('cut', {}, BODIES, PASSES),
    'short-body': ('short', {}, BODIES, DAMAGED),
    'long-body': ('long', {}, READS, DAMAGED),
    'body-until-close': ('until-close', {}, BODIES, DAMAGED),
    'corrupt-body': ('corrupt', {}, ('get',), DAMAGED),
    'slow-drip': ('drip', {'steps': 8, 'seconds': 0.05}, None, HARMLESS),
    'stall': ('stall', {'seconds': 2.0}, None, PASSES),
    'stall-in-body': ('stall-in-body', {'seconds': 2.0}, BODIES, PASSES),
    '500': ('status', {}, None, PASSES),
    '503': ('status', {'status': 503, 'code': 'ServiceUnavailable'}, None, PASSES),
    'slow-down': ('status', {'status': 503, 'code': 'SlowDown'}, None, PASSES),
    'slow-down-early': ('status-early', {}, None, PASSES),
    '429': ('status', {'status': 429, 'code': 'TooManyRequests'}, None, PASSES),
    '408': ('status', {'status': 400, 'code': 'RequestTimeout'}, None, PASSES),
    'garbage': ('garbage', {}, None, PASSES),
    'portal': ('portal', {}, None, PASSES),
    'error-in-200': ('error-in-200', {}, None, PASSES),
    'empty-200': ('empty-200', {}, BODIES, DAMAGED),
    'reply-lost': ('reply-lost', {}, None, PASSES),
    'reply-late': ('reply-late', {'seconds': 0.5}, None, HARMLESS),
    'request-late': ('late', {'seconds': 0.4}, None, PASSES),
    'request-twice': ('twice', {'seconds': 0.4}, None, HARMLESS),
    'conflict': ('conflict', {}, ('put', 'complete'), PASSES),
    'condition-lost': ('conditions-lost', {}, ('put', 'complete'), PASSES),
    'wrong-range': ('wrong-range', {}, ('get',), PASSES),
    'range-ignored': ('range-ignored', {}, ('get',), PASSES),
    'wrong-tag': ('wrong-tag', {}, ('get',), PASSES),
    # An object can be a page of text; what else S3 says is never one.
    'wrong-type': ('wrong-type', {}, ('get',), HARMLESS),
    'wrong-type-of-list': ('wrong-type', {}, ('list', 'list-uploads'), PASSES),
    'wrong-type-of-change': ('wrong-type', {}, CHANGES, PASSES),
    'redirect': ('redirect', {'to': 'SERVER'}, None, HARMLESS),
    'redirect-301': ('redirect', {'to': 'SERVER', 'status': 301}, None, HARMLESS),
    'redirect-loop': ('redirect', {}, None, LIE),
    'expired-token': ('status', {'status': 400, 'code': 'ExpiredToken'}, None, REFUSED),
    'expired-403': ('status', {'status': 403, 'code': 'ExpiredToken'}, None, REFUSED),
    'expired-request': ('status', {'status': 403, 'code': 'RequestExpired'}, None, REFUSED),
    'forbidden': ('status', {'status': 403, 'code': 'AccessDenied'}, None, REFUSED),
    'wrong-key': ('status', {'status': 403, 'code': 'InvalidAccessKeyId'}, None, REFUSED),
    'wrong-secret': ('status', {'status': 403, 'code': 'SignatureDoesNotMatch'}, None, REFUSED),
    'no-bucket': ('status', {'status': 404, 'code': 'NoSuchBucket'}, None, REFUSED),
    'skewed-clock': ('status', {'status': 403, 'code': 'RequestTimeTooSkewed'}, None, PASSES),
    'stale-list': ('stale-list', {}, ('list',), LIE),
    'not-found': ('not-found', {}, ('get',), LIE),
    'no-metadata': ('no-metadata', {}, ('get',), LIE),
}

# An object has no checksums, and its tag is all that tells one version from another.
OF_OBJECTS = {'corrupt-body': SENSELESS, 'wrong-tag': LIE}


def expectation(fault, verb):
    expected = FAULTS[fault][3]
    return OF_OBJECTS.get(fault, expected) if verb.startswith('object-') else expected


class Faults(world.MinioWorld):
    def setUp(self):
        super().setUp()
        self.counts = {}

    def run_of(self, name, p, retry_for, seed):
        prefix = '%s-%x' % (name, random.getrandbits(32))
        harmed = dict(self.env, AWS_ENDPOINT_URL_S3=p.endpoint, OBJMAP_CONNECTIONS='8',
                      OBJMAP_RETRY_FOR='%gs' % retry_for)
        return verbs.Run(self.path(prefix), self.s3, self.bucket, prefix,
                         dict(self.env, OBJMAP_RETRY_FOR='60s'), harmed, seed)

    def act(self, verb, p, retry_for, seed, harm, lasting=False):
        """Runs VERB with HARM, a function that begins it; its Result."""
        run = self.run_of(verb, p, retry_for, seed)
        run.lasting = lasting
        steps = verbs.VERBS[verb](run)
        try:
            next(steps)
            p.forget()
            rule = harm() if harm else None
            result = next(steps)
            result.rule, result.requests = rule, p.requests()
            p.heal()
            if rule:
                rule.settle()
            for _ in steps:
                pass
            if p.peak > 16:
                raise verbs.Wrong('%d connections at once' % p.peak)
            self.end_connections(p)
            # Doctor cannot take away what it may not reach, and no gc comes there.
            left = [] if verb == 'doctor' else [key for key, _ in self.s3.uploads(self.bucket)
                    if key.startswith(run.prefix + '/')]
            if left:
                raise verbs.Wrong('uploads are left: %s' % left)
            return result
        except verbs.Wrong as e:
            raise verbs.Wrong('%s\nrequests:\n  %s' % (e, '\n  '.join(
                repr(r) for r in p.requests()[:60]))) from None
        finally:
            run.end()

    def end_connections(self, p):
        end = time.monotonic() + 30
        while p.open:
            if time.monotonic() > end:
                raise verbs.Wrong('%d connections outlive the verb' % p.open)
            time.sleep(0.01)

    def fitting(self, fault, verb):
        """How many requests VERB makes when all is well that FAULT is done to."""
        kinds = FAULTS[fault][2]
        return 0 if expectation(fault, verb) == SENSELESS else sum(
            kinds is None or k in kinds for k in self.counts[verb])

    def learn(self, verb):
        if verb in verbs.NEEDS and not fixtures.can(verbs.NEEDS[verb]):
            print('%s is left out: needs %s' % (verb, verbs.NEEDS[verb]), flush=True)
            self.counts[verb] = []
            return
        p = proxy.Proxy(self.endpoint, self.s3)
        try:
            result = self.act(verb, p, 30, 1, None)
            if not result.ok:
                raise verbs.Wrong('without any harm: exit %d: %s' % (result.code, result.err))
            self.counts[verb] = [r.kind for r in result.requests]
        finally:
            p.close()

    def pair(self, fault, verb, seed):
        harm, arguments, kinds, _ = FAULTS[fault]
        expected, nr = expectation(fault, verb), self.fitting(fault, verb)
        arguments = {n: self.endpoint if v == 'SERVER' else v for n, v in arguments.items()}
        for lasting in (False, True):
            rng = random.Random('%s %s %s %d' % (fault, verb, lasting, seed))
            p = proxy.Proxy(self.endpoint, self.s3, seed=seed)
            times = None if lasting else 1 if expected == DAMAGED else rng.choice((1, 1, 2, 3))
            skip = rng.randrange(nr)
            if lasting and rng.random() < 0.5:
                skip = 0

            def begin():
                return p.harm(harm, kind=kinds, skip=skip, times=times, **arguments)
            how = '%s:%s, %s from request %d%s' % (
                fault, verb, 'lasting' if lasting else 'passing', skip,
                '' if lasting else ' %d times' % times)
            try:
                retry_for = RETRY_FOR if lasting and expected != HARMLESS else 30
                for _ in range(5):
                    result = self.act(verb, p, retry_for, seed, begin, lasting)
                    # A machine that pauses can use up so short a time without any harm.
                    if result.ok or result.rule.fired or retry_for > RETRY_FOR or \
                            result.seconds < RETRY_FOR:
                        break
                if lasting:
                    self.judge_success(result, expected, verb)
                # What doctor says of a server in trouble is no promise, if it is no yes.
                self.judge(result, LIE if verb == 'doctor' else expected, lasting, arguments)
            except verbs.Wrong as e:
                raise verbs.Wrong('%s: %s' % (how, e)) from None
            finally:
                p.close()

    @staticmethod
    def said(r):
        return 'exit %d after %.1f s: %s\nrequests:\n  %s' % (
            r.code, r.seconds, r.err.strip(), '\n  '.join(repr(q) for q in r.requests[:60]))

    def judge_success(self, r, expected, verb):
        """Of a fault that lasts: VERB cannot have got what it needs."""
        if not r.ok or expected in (HARMLESS, LIE):
            return
        # What doctor asks first is what no volume can do without.
        is_lie = verb == 'doctor' and r.rule.skip == 0
        for q in r.requests if verb in NEED_ALL else ():
            # Who asks for no version may be told of any.
            is_lie |= q.is_harmed and (q.harm != 'wrong-tag' or 'if-match' in q.header)
        if is_lie:
            raise verbs.Wrong('a success that is none: ' + self.said(r))

    def judge(self, r, expected, lasting, arguments):
        said = self.said(r)
        if r.code not in (0, 1):
            raise verbs.Wrong('a strange end: ' + said)
        if r.ok or not r.rule.fired:
            if not r.ok:
                raise verbs.Wrong('no harm was done: ' + said)
            return
        if not (r.err + r.out.decode(errors='replace')).strip():
            raise verbs.Wrong('it says nothing: ' + said)
        if expected == HARMLESS or (expected in (PASSES, DAMAGED) and not lasting):
            raise verbs.Wrong('the fault passed, the verb did not: ' + said)
        if expected == PASSES and r.seconds < RETRY_FOR * 0.9:
            raise verbs.Wrong('given up before --retry-for %g s: %s' % (RETRY_FOR, said))
        if expected == REFUSED and arguments['code'] not in r.err:
            raise verbs.Wrong('the reason %s is not named: %s' % (arguments['code'], said))

    def drawn(self):
        pairs = [(f, v) for f in FAULTS for v in verbs.VERBS]
        asked = os.environ.get('OBJMAP_PAIRS')
        if asked:
            asked = [a.split(':') for a in asked.split(',')]
            return [(f, v) for f, v in pairs if any(
                a[0] in ('', f) and a[1] in ('', v) for a in asked)]
        if fixtures.LONG:
            return pairs
        rng = random.Random(fixtures.SEED)
        rng.shuffle(pairs)
        return pairs

    def test_every_verb_under_every_fault(self):
        pairs = self.drawn()
        wanted = DRAWN if len(pairs) == len(FAULTS) * len(verbs.VERBS) and \
            not fixtures.LONG else len(pairs)
        wrong, good = [], 0
        with concurrent.futures.ThreadPoolExecutor(AT_ONCE) as pool:
            for verb, done in [(v, pool.submit(self.learn, v))
                               for v in sorted({v for _, v in pairs})]:
                try:
                    done.result()
                except verbs.Wrong as e:
                    self.fail('%s %s' % (verb, e))
            # A pair in which the fault meets no request of the verb's is not one.
            pairs = [(f, v) for f, v in pairs if self.fitting(f, v)][:wanted]
            begin = time.monotonic()
            for (fault, verb), done in [
                    ((f, v), pool.submit(self.pair, f, v, fixtures.SEED)) for f, v in pairs]:
                try:
                    done.result()
                    good += 1
                except Exception as e:
                    wrong.append((fault, verb))
                    print('WRONG %s' % (e if isinstance(e, verbs.Wrong) else repr(e)), flush=True)
        print('%d pairs, %d good, %.0f s' % (len(pairs), good, time.monotonic() - begin))
        if wrong:
            self.fail('%d of %d pairs: OBJMAP_SEED=%d OBJMAP_PAIRS=%s' % (
                len(wrong), len(pairs), fixtures.SEED, ','.join('%s:%s' % w for w in wrong)))
        self.assertGreater(good, 0)


if __name__ == '__main__':
    fixtures.main()
