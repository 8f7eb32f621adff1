#!/usr/bin/python3
"""s3.py: objmap on a MinIO beside what that MinIO gives at all (bench/s3-raw).

    bench/s3.py [--size MIB] [--rounds 3] [--only copy-get,cold-1,...]

Every case is run in rounds, objmap and the raw loop one after the other on the same
objects, so that a noisy machine is noisy for both; what counts are the ratios of the
medians.  The raw loop's URLs are signed beforehand.  Needs the built programs: OBJMAP
(objmap), S3_RAW (bench/s3-raw), DELAY (minio-test/delay), python3-libnbd, and a MinIO
(minio-test/minio finds or builds it).
"""
import argparse
import json
import os
import random
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
del sys.path[0]		# its nbd.py is not libnbd's
sys.path.insert(0, os.path.join(os.path.dirname(HERE), 'minio-test'))
import s3client  # noqa: E402

MIB = 1 << 20
MINIO = os.path.join(os.path.dirname(HERE), 'minio-test', 'minio')
OBJMAP = os.environ.get('OBJMAP', './objmap')
S3_RAW = os.environ.get('S3_RAW', 'bench/s3-raw')
DELAY = os.environ.get('DELAY', 'minio-test/delay')
BUCKET = 'bench'
FRAME = 65536


class Bench:
    def __init__(self, folder, size, rounds):
        self.folder, self.size, self.rounds = folder, size, rounds
        self.random = random.Random(1)
        subprocess.run([MINIO, 'start', folder], check=True, stdout=subprocess.DEVNULL,
                       timeout=900)
        with open(folder + '/env') as f:
            self.keys = dict(line.strip().split('=', 1) for line in f)
        self.endpoint = self.keys['AWS_ENDPOINT_URL_S3']
        self.env = {k: v for k, v in os.environ.items() if not k.startswith('AWS_')}
        self.env.update(self.keys, OBJMAP_RUNTIME_DIR=folder + '/run',
                        AWS_EC2_METADATA_DISABLED='true')
        self.s3 = s3client.Client.from_env(self.keys)
        self.s3.put_bucket(BUCKET)
        self.file = folder + '/image'
        with open(self.file, 'wb') as f:
            for _ in range(size):
                f.write(self.random.randbytes(MIB))
        self.delays = []
        self.puts = 0

    def close(self):
        for p in self.delays:
            p.kill()
            p.wait()
        subprocess.run([MINIO, 'stop', self.folder], timeout=60)

    def delay(self, ms):
        """The endpoint of a line to the MinIO with that round-trip time."""
        p = subprocess.Popen([DELAY, self.endpoint.split('//')[1], str(ms)],
                             stdout=subprocess.PIPE, text=True)
        self.delays.append(p)
        return p.stdout.readline().strip()

    def signer(self, endpoint):
        return s3client.Client.from_env(dict(self.keys, AWS_ENDPOINT_URL_S3=endpoint))

    # ---- the two sides ---------------------------------------------------------------

    def objmap(self, *args, endpoint=None):
        """Seconds and CPU seconds of one objmap."""
        env = dict(self.env, AWS_ENDPOINT_URL_S3=endpoint or self.endpoint)
        begin = time.monotonic()
        p = subprocess.Popen([OBJMAP, *args], env=env, stdout=subprocess.DEVNULL,
                             stderr=subprocess.PIPE)
        text = p.stderr.read()
        _, status, usage = os.wait4(p.pid, 0)
        p.returncode = os.waitstatus_to_exitcode(status)
        if p.returncode:
            sys.exit('objmap %s: %s' % (' '.join(args), text.decode()))
        return {'seconds': time.monotonic() - begin, 'cpu': usage.ru_utime + usage.ru_stime}

    def raw(self, connections, what, lines, *file):
        p = subprocess.run([S3_RAW, str(connections), what, *file], input='\n'.join(lines) + '\n',
                           capture_output=True, text=True)
        if p.returncode:
            sys.exit('s3-raw: ' + p.stderr)
        return json.loads(p.stdout)

    def populate(self, prefix):
        self.objmap('copy', self.file, 's3://%s/%s' % (BUCKET, prefix), '--quiet')
        # What is as large as a chunk is one.
        self.data = [key for key, size in self.s3.list(BUCKET, prefix + '/')
                     if size == MIB]
        if len(self.data) != self.size:
            sys.exit('%d chunks of %d were found' % (len(self.data), self.size))

    # ---- cases -------------------------------------------------------------------------

    def copy_get(self, endpoint=None, lines=(16, 32)):
        signer = self.signer(endpoint or self.endpoint)
        urls = [signer.presign('GET', BUCKET, k, 3600) for k in self.data]
        for _ in range(self.rounds):
            ours = self.objmap('copy', 's3://%s/vol' % BUCKET, 'null:%dM' % self.size,
                               '--quiet', endpoint=endpoint)
            yield ours, [self.raw(n, 'get', urls) for n in lines]

    def copy_put(self):
        for _ in range(self.rounds):
            self.puts += 1
            keys = ['raw%d/%d' % (self.puts, i) for i in range(self.size)]
            urls = ['%s %d %d' % (self.s3.presign('PUT', BUCKET, k, 3600), i * MIB, MIB)
                    for i, k in enumerate(keys)]
            ours = self.objmap('copy', self.file, 's3://%s/put%d' % (BUCKET, self.puts),
                               '--quiet')
            self.s3_clear('put%d/' % self.puts)
            raws = []
            for n, *file in (16,), (32,), (16, self.file), (32, self.file):
                raws.append(self.raw(n, 'put', urls, *file))
                self.s3_clear('raw%d/' % self.puts)
            # The least that anybody must do who uploads a file: read it.
            ours['from_file'] = min(raws.pop()['cpu'], raws.pop()['cpu'])
            yield ours, raws

    def s3_clear(self, prefix):
        keys = list(self.s3.keys(BUCKET, prefix))
        for i in range(0, len(keys), 1000):
            self.s3.delete_many(BUCKET, keys[i:i + 1000])

    def cold_reads(self, depth, nr, endpoint=None, raw_lines=(1,)):
        signer = self.signer(endpoint or self.endpoint)
        for _ in range(self.rounds):
            chosen = self.random.sample(range(self.size), nr)
            ours = self.nbd_reads(depth, [i * MIB + self.random.randrange(16) * FRAME
                                          for i in chosen], endpoint)
            keys = self.random.sample(self.data, nr)
            urls = ['%s %d %d' % (signer.presign('GET', BUCKET, k, 3600),
                                  self.random.randrange(16) * FRAME, FRAME) for k in keys]
            yield ours, [self.raw(n, 'get', urls) for n in raw_lines]

    def nbd_reads(self, depth, offsets, endpoint):
        import nbd
        socket = '%s/nbd' % self.folder
        where = 'nbd+unix:///?socket=' + socket
        env = dict(self.env, AWS_ENDPOINT_URL_S3=endpoint or self.endpoint)
        p = subprocess.Popen([OBJMAP, 'mount', 's3://%s/vol' % BUCKET, where, '--read-only',
                              '--foreground', '--log', self.folder + '/log'], env=env,
                             stdout=subprocess.PIPE)
        p.stdout.readline()
        h = nbd.NBD()
        h.connect_uri(where)
        h.pread(4096, 0)		# the map is there, as on any mount in use
        buffers = [nbd.Buffer(4096) for _ in offsets]
        begin = time.monotonic()
        sent = done = 0
        failed = []

        def finished(error):
            nonlocal done
            done += 1
            if error.value:
                failed.append(error.value)
            return 1
        while done < len(offsets):
            while sent < len(offsets) and sent - done < depth:
                h.aio_pread(buffers[sent], offsets[sent], completion=finished)
                sent += 1
            h.poll(-1)
        took = time.monotonic() - begin
        if failed:
            sys.exit('a read failed')
        h.shutdown()
        p.send_signal(signal.SIGTERM)
        _, _, usage = os.wait4(p.pid, 0)
        p.returncode = 0
        return {'seconds': took, 'cpu': usage.ru_utime + usage.ru_stime}

    def first_byte(self, size):
        """Milliseconds and requests from mount to the first byte that was written."""
        place = 's3://%s/first%s' % (BUCKET, size)
        self.objmap('create', place, '--size', size)
        import nbd
        where = 'nbd+unix:///?socket=%s/first' % self.folder
        took, requests = [], 0
        for _ in range(self.rounds):
            begin = time.monotonic()
            p = subprocess.Popen([OBJMAP, 'mount', place, where, '--foreground', '--log',
                                  self.folder + '/log'], env=self.env,
                                 stdout=subprocess.PIPE)
            p.stdout.readline()
            h = nbd.NBD()
            h.connect_uri(where)
            h.pread(4096, 0)
            took.append((time.monotonic() - begin) * 1000)
            status = json.loads(subprocess.run([OBJMAP, 'status', where, '--json'],
                                               env=self.env, capture_output=True).stdout)
            requests = sum(c['requests'] for c in status['store']['causes'].values())
            h.shutdown()
            p.send_signal(signal.SIGTERM)
            p.wait()
        return statistics.median(took), requests


def report(name, rounds, goal, cpu_goal=None):
    """Rounds of one run of ours and several of the raw loop, each with another number
    of connections.  The best number is the one with the best median: the best of each
    round would be the best of so much noise."""
    rounds = list(rounds)
    best = min(range(len(rounds[0][1])),
               key=lambda n: statistics.median(raws[n]['seconds'] for _, raws in rounds))
    pairs = [(ours, raws[best]) for ours, raws in rounds]
    ours = statistics.median(o['seconds'] for o, _ in pairs)
    raw = statistics.median(r['seconds'] for _, r in pairs)
    cpu = statistics.median(o['cpu'] for o, _ in pairs)
    raw_cpu = statistics.median(r['cpu'] for _, r in pairs)
    each = sorted(r['seconds'] / o['seconds'] for o, r in pairs)
    text = '%-12s objmap %8.3f s  raw %8.3f s  ratio %.2f (%.2f to %.2f, goal %.2f)' % (
        name, ours, raw, raw / ours, each[0], each[-1], goal)
    if cpu_goal:
        text += '  CPU %.2f s, raw %.2f s: %.2fx (goal %.1fx)' % (
            cpu, raw_cpu, cpu / raw_cpu, cpu_goal)
        if 'from_file' in pairs[0][0]:
            least = statistics.median(o['from_file'] for o, _ in pairs)
            text += '; raw that reads the file, too, %.2f s: %.2fx' % (least, cpu / least)
    print(text, flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('--size', type=int, default=1024, help='MiB of the volume')
    parser.add_argument('--rounds', type=int, default=3)
    parser.add_argument('--only', default='')
    options = parser.parse_args()
    folder = tempfile.mkdtemp(prefix='ombench')
    bench = Bench(folder, options.size, options.rounds)
    some = min(options.size, 512)
    cases = {
        'copy-put': lambda: report('copy-put', bench.copy_put(), 0.9, 1.5),
        'copy-get': lambda: report('copy-get', bench.copy_get(), 0.9, 1.5),
        'cold-1': lambda: report('cold-1', bench.cold_reads(1, some), 0.7),
        'cold-32': lambda: report('cold-32', bench.cold_reads(32, bench.size, None,
                                                              (4, 16, 32)), 0.7),
        'cold-32-5ms': lambda: report('cold-32-5ms', bench.cold_reads(
            32, bench.size, bench.delay(5), (32,)), 0.7),
        'copy-25ms': lambda: report('copy-25ms', bench.copy_get(
            bench.delay(25), (16, 32, 64)), 0.9),
        'first-1G': lambda: print('first-1G     %.0f ms, %d requests' %
                                  bench.first_byte('1G'), flush=True),
        'first-16T': lambda: print('first-16T    %.0f ms, %d requests' %
                                   bench.first_byte('16T'), flush=True),
    }
    try:
        bench.populate('vol')
        for name, run in cases.items():
            if not options.only or name in options.only.split(','):
                run()
    finally:
        bench.close()
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == '__main__':
    main()
