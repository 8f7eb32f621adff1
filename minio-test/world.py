"""A test's world with a MinIO: one server for all tests of a class, a bucket of its
own for each test, and an environment in which any S3 client finds both."""
import os
import shutil
import sys
import tempfile
import uuid

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(os.path.dirname(HERE), 'tests'))
import fixtures  # noqa: E402
import proxy  # noqa: E402
import s3client  # noqa: E402
import subprocess  # noqa: E402

MINIO = os.path.join(HERE, 'minio')


def put_bucket(s3, bucket):
    """Of a server that was just started: it says for a while that it is not ready."""
    def done():
        try:
            return s3.put_bucket(bucket)
        except s3client.S3Error as e:
            if e.status != 503:
                raise
            return None
    fixtures.wait_for(done, 'the bucket')


class MinioWorld(fixtures.World):
    """Gives self.s3 (an s3client.Client), self.bucket, self.endpoint and self.keys
    (AWS_ENDPOINT_URL_S3, AWS_ACCESS_KEY_ID ...), which self.env has too."""

    over_tls = False		# for a subclass to say

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.minio_dir = tempfile.mkdtemp(prefix='om', dir='/tmp')
        cls.addClassCleanup(shutil.rmtree, cls.minio_dir, ignore_errors=True)
        cls.start_minio()
        cls.addClassCleanup(cls.stop_minio)

    @classmethod
    def start_minio(cls):
        # The first start on a machine builds it.
        p = subprocess.run([MINIO, 'start', *cls.minio_options(), cls.minio_dir],
                           env=dict(os.environ, **cls.minio_env()), capture_output=True,
                           timeout=900)
        if p.returncode:
            raise AssertionError('minio start: ' + p.stderr.decode(errors='replace'))
        with open(cls.minio_dir + '/env') as f:
            cls.keys = dict(line.strip().split('=', 1) for line in f)
        with open(cls.minio_dir + '/pid') as f:
            cls.minio_pid = int(f.read())
        cls.endpoint = cls.keys['AWS_ENDPOINT_URL_S3']
        # It says that it is ready a little before it takes requests.
        fixtures.wait_for(cls._takes_requests, 'MinIO to take requests')

    @classmethod
    def minio_options(cls):
        return ['--tls'] if cls.over_tls else []

    @classmethod
    def minio_env(cls):
        """Settings of the server's own; for a subclass to say."""
        return {}

    @classmethod
    def _takes_requests(cls):
        s3 = s3client.Client.from_env(cls.keys)
        try:
            s3.put_bucket('om-is-it-there')
            s3.delete_bucket('om-is-it-there')
            return True
        except s3client.S3Error as error:
            if error.status != 503:
                raise
            return False

    @classmethod
    def stop_minio(cls):
        if os.path.exists(cls.minio_dir + '/pid'):
            subprocess.run([MINIO, 'stop', cls.minio_dir], capture_output=True,
                           timeout=60, check=True)

    def setUp(self):
        super().setUp()
        # No other credentials and no proxy of the caller's may interfere.
        for name in list(self.env):
            if name.startswith('AWS_') or name.lower().endswith('_proxy'):
                del self.env[name]
        self.env.update(self.keys, AWS_EC2_METADATA_DISABLED='true')
        self.s3 = s3client.Client.from_env(self.keys)
        self.bucket = 'om-' + uuid.uuid4().hex[:12]
        put_bucket(self.s3, self.bucket)

    def proxy(self, **options):
        """A fault proxy before it, that speaks TLS where it does."""
        certs = self.minio_dir + '/certs/'
        p = proxy.Proxy(self.endpoint, self.s3, tls=(
            certs + 'public.crt', certs + 'private.key') if self.over_tls else None, **options)
        self.addCleanup(p.close)
        return p
