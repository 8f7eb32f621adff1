"""A small S3 client for tests, on Python's standard library alone: it signs with
Signature Version 4 itself, sends each request once on a connection of its own, and
retries nothing, so that a test sees what the server said.

    s3 = s3client.Client.from_env(keys)        # keys: what minio start wrote to DIR/env
    s3.put_bucket('b')
    s3.put('b', 'key', b'content', metadata={'colour': 'red'})
    answer = s3.get('b', 'key', range=(0, 4))  # .status, .headers, .body, .metadata

A status of 300 or more raises S3Error, whose .status and .code say what it was.
"""
import base64
import datetime
import hashlib
import hmac
import http.client
import ssl
import urllib.parse
import xml.etree.ElementTree

EMPTY = hashlib.sha256(b'').hexdigest()


class S3Error(Exception):
    def __init__(self, method, path, answer):
        found = _xml(answer.body)
        self.answer = answer
        self.status = answer.status
        self.code = (found.findtext('Code') if found is not None else None) or ''
        self.message = (found.findtext('Message') if found is not None else None) or ''
        super().__init__('%s %s: %d %s %s' % (
            method, path, self.status, self.code, self.message))


class Answer:
    """What came back: status, headers (names in lower case), body."""

    def __init__(self, status, headers, body):
        self.status = status
        self.headers = {name.lower(): value for name, value in headers}
        self.body = body

    @property
    def etag(self):
        return self.headers.get('etag')

    @property
    def version(self):
        return self.headers.get('x-amz-version-id')

    @property
    def metadata(self):
        begin = 'x-amz-meta-'
        return {name[len(begin):]: value for name, value in self.headers.items()
                if name.startswith(begin)}

    @property
    def xml(self):
        """The body's tree, its names without their namespace."""
        return _xml(self.body)


def _xml(body):
    try:
        tree = xml.etree.ElementTree.fromstring(body)
    except xml.etree.ElementTree.ParseError:
        return None
    for each in tree.iter():
        each.tag = each.tag.rpartition('}')[2]
    return tree


def quote(text, safe=''):
    """As Signature Version 4 wants it: all but letters, digits and -._~ (and SAFE)."""
    return urllib.parse.quote(text, safe=safe + '-._~')


def sse_c(key):
    """The headers of a request about an object that KEY (32 bytes) encrypts."""
    name = 'x-amz-server-side-encryption-customer-'
    return {name + 'algorithm': 'AES256', name + 'key': base64.b64encode(key).decode(),
            name + 'key-md5': base64.b64encode(hashlib.md5(key).digest()).decode()}


def _query(items):
    return '&'.join(sorted('%s=%s' % (quote(k), quote(v)) for k, v in items.items()))


def _mac(key, text):
    return hmac.new(key, text.encode(), 'sha256').digest()


class Client:
    service = 's3'

    def __init__(self, endpoint, access_key, secret_key, region='us-east-1', token=None,
                 ca_file=None, timeout=60):
        where = urllib.parse.urlsplit(endpoint)
        self.endpoint = endpoint.rstrip('/')
        self.scheme, self.netloc = where.scheme, where.netloc
        self.access_key, self.secret_key, self.token = access_key, secret_key, token
        self.region, self.timeout = region, timeout
        self.tls = ssl.create_default_context(cafile=ca_file) \
            if where.scheme == 'https' else None

    @classmethod
    def from_env(cls, env, **kw):
        kw.setdefault('ca_file', env.get('AWS_CA_BUNDLE'))
        return cls(env['AWS_ENDPOINT_URL_S3'], env['AWS_ACCESS_KEY_ID'],
                   env['AWS_SECRET_ACCESS_KEY'], env.get('AWS_REGION', 'us-east-1'),
                   env.get('AWS_SESSION_TOKEN'), **kw)

    # ---- signing ---------------------------------------------------------------------

    def _signature(self, method, path, query, headers, payload, now):
        """The signature, the names it covers, and the scope of the key."""
        scope = '%s/%s/%s/aws4_request' % (now[:8], self.region, self.service)
        names = ';'.join(sorted(headers))
        canonical = '\n'.join([method, path, query] +
                              ['%s:%s' % (n, ' '.join(headers[n].split()))
                               for n in sorted(headers)] + ['', names, payload])
        text = '\n'.join(['AWS4-HMAC-SHA256', now, scope,
                          hashlib.sha256(canonical.encode()).hexdigest()])
        key = ('AWS4' + self.secret_key).encode()
        for part in scope.split('/'):
            key = _mac(key, part)
        return _mac(key, text).hex(), names, scope

    @staticmethod
    def _path(bucket, key):
        path = '/' + bucket
        return path + '/' + quote(key, safe='/') if key else path

    @staticmethod
    def _now(skew):
        now = datetime.datetime.now(datetime.timezone.utc)
        return (now + datetime.timedelta(seconds=skew)).strftime('%Y%m%dT%H%M%SZ')

    def presign(self, method, bucket, key='', seconds=600, skew=0, **query):
        """A URL that carries its own signature; needs no header but Host."""
        now = self._now(skew)
        query = dict(query)
        query.update({
            'X-Amz-Algorithm': 'AWS4-HMAC-SHA256', 'X-Amz-Date': now,
            'X-Amz-Credential': '%s/%s/%s/s3/aws4_request' % (
                self.access_key, now[:8], self.region),
            'X-Amz-Expires': str(seconds), 'X-Amz-SignedHeaders': 'host'})
        if self.token:
            query['X-Amz-Security-Token'] = self.token
        path, text = self._path(bucket, key), _query(query)
        signature, _, _ = self._signature(method, path, text, {'host': self.netloc},
                                          'UNSIGNED-PAYLOAD', now)
        return '%s://%s%s?%s&X-Amz-Signature=%s' % (
            self.scheme, self.netloc, path, text, signature)

    def assume_role(self, policy):
        """Keys that may do what POLICY (JSON) allows, as from_env() takes them."""
        body = urllib.parse.urlencode({
            'Action': 'AssumeRole', 'Version': '2011-06-15', 'DurationSeconds': '900',
            'Policy': policy}).encode()
        self.service = 'sts'
        try:
            found = self.request('POST', '', body=body, headers={
                'content-type': 'application/x-www-form-urlencoded'}).xml
        finally:
            self.service = 's3'
        return {'AWS_ACCESS_KEY_ID': next(found.iter('AccessKeyId')).text,
                'AWS_SECRET_ACCESS_KEY': next(found.iter('SecretAccessKey')).text,
                'AWS_SESSION_TOKEN': next(found.iter('SessionToken')).text}

    def request(self, method, bucket='', key='', query=None, headers=None, body=b'',
                skew=0, sign=True, check=True):
        """One request, signed; SKEW seconds are added to its clock.  With SIGN
        false it is anonymous; with CHECK false no status raises."""
        headers = {name.lower(): value for name, value in (headers or {}).items()}
        now = self._now(skew)
        payload = hashlib.sha256(body).hexdigest() if body else EMPTY
        path, text = self._path(bucket, key), _query(query or {})
        headers['host'] = self.netloc
        if sign:
            headers.update({'x-amz-date': now, 'x-amz-content-sha256': payload})
            if self.token:
                headers['x-amz-security-token'] = self.token
            signature, names, scope = self._signature(method, path, text, headers,
                                                      payload, now)
            headers['authorization'] = \
                'AWS4-HMAC-SHA256 Credential=%s/%s, SignedHeaders=%s, Signature=%s' % (
                    self.access_key, scope, names, signature)
        answer = self._send(method, path + ('?' + text if text else ''), headers, body)
        if check and answer.status >= 300:
            raise S3Error(method, path, answer)
        return answer

    def _send(self, method, target, headers, body):
        if self.tls:
            peer = http.client.HTTPSConnection(self.netloc, timeout=self.timeout,
                                               context=self.tls)
        else:
            peer = http.client.HTTPConnection(self.netloc, timeout=self.timeout)
        try:
            peer.request(method, target, body=body if body or method in ('PUT', 'POST')
                         else None, headers=headers)
            found = peer.getresponse()
            return Answer(found.status, found.getheaders(), found.read())
        finally:
            peer.close()

    # ---- buckets ----------------------------------------------------------------------

    def put_bucket(self, bucket):
        return self.request('PUT', bucket)

    def delete_bucket(self, bucket):
        return self.request('DELETE', bucket)

    def buckets(self):
        return [each.text for each in self.request('GET').xml.iter('Name')]

    def put_versioning(self, bucket, status='Enabled'):
        return self.request('PUT', bucket, query={'versioning': ''}, body=(
            '<VersioningConfiguration xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
            '<Status>%s</Status></VersioningConfiguration>' % status).encode())

    def versioning(self, bucket):
        """'Enabled', 'Suspended', or '' where it never was."""
        return self.request('GET', bucket, query={'versioning': ''}).xml.findtext(
            'Status') or ''

    def put_lifecycle(self, bucket, text):
        """TEXT: the XML of the rules."""
        return self.request('PUT', bucket, query={'lifecycle': ''}, body=text.encode(), headers={
            'content-md5': base64.b64encode(hashlib.md5(text.encode()).digest()).decode()})

    def put_policy(self, bucket, text):
        return self.request('PUT', bucket, query={'policy': ''}, body=text.encode())

    # ---- objects ----------------------------------------------------------------------

    def put(self, bucket, key, body=b'', metadata=None, headers=None):
        headers = dict(headers or {})
        for name, value in (metadata or {}).items():
            headers['x-amz-meta-' + name] = value
        return self.request('PUT', bucket, key, headers=headers, body=body)

    def get(self, bucket, key, range=None, version=None, headers=None):
        """RANGE: (offset, count)."""
        headers = dict(headers or {})
        if range:
            headers['range'] = 'bytes=%d-%d' % (range[0], range[0] + range[1] - 1)
        return self.request('GET', bucket, key, headers=headers,
                            query={'versionId': version} if version else None)

    def head(self, bucket, key, version=None, headers=None):
        return self.request('HEAD', bucket, key, headers=headers,
                            query={'versionId': version} if version else None)

    def exists(self, bucket, key):
        try:
            self.head(bucket, key)
        except S3Error as error:
            if error.status != 404:
                raise
            return False
        return True

    def delete(self, bucket, key, version=None, headers=None):
        return self.request('DELETE', bucket, key, headers=headers,
                            query={'versionId': version} if version else None)

    def delete_many(self, bucket, keys):
        body = '<Delete><Quiet>true</Quiet>%s</Delete>' % ''.join(
            '<Object><Key>%s</Key></Object>' % key.replace('&', '&amp;').replace(
                '<', '&lt;').replace('>', '&gt;') for key in keys)
        body = body.encode()
        return self.request('POST', bucket, query={'delete': ''}, body=body, headers={
            'content-md5': base64.b64encode(hashlib.md5(body).digest()).decode()})

    def list(self, bucket, prefix='', page=1000):
        """All keys below PREFIX, in order, as (key, size)."""
        query = {'list-type': '2', 'prefix': prefix, 'max-keys': str(page),
                 'encoding-type': 'url'}
        while True:
            tree = self.request('GET', bucket, query=query).xml
            for each in tree.iter('Contents'):
                yield (urllib.parse.unquote_plus(each.findtext('Key')),
                       int(each.findtext('Size')))
            if tree.findtext('IsTruncated') != 'true':
                return
            query['continuation-token'] = tree.findtext('NextContinuationToken')

    def keys(self, bucket, prefix=''):
        return [key for key, _ in self.list(bucket, prefix)]

    def versions(self, bucket, prefix=''):
        """All versions, as (key, version, whether a delete marker)."""
        query = {'versions': '', 'prefix': prefix}
        while True:
            tree = self.request('GET', bucket, query=query).xml
            for each in tree:
                if each.tag in ('Version', 'DeleteMarker'):
                    yield (each.findtext('Key'), each.findtext('VersionId'),
                           each.tag == 'DeleteMarker')
            if tree.findtext('IsTruncated') != 'true':
                return
            query['key-marker'] = tree.findtext('NextKeyMarker')
            query['version-id-marker'] = tree.findtext('NextVersionIdMarker')

    # ---- multipart --------------------------------------------------------------------

    def create_upload(self, bucket, key, metadata=None):
        headers = {'x-amz-meta-' + n: v for n, v in (metadata or {}).items()}
        return self.request('POST', bucket, key, query={'uploads': ''},
                            headers=headers).xml.findtext('UploadId')

    def put_part(self, bucket, key, upload, number, body):
        return self.request('PUT', bucket, key, body=body, query={
            'partNumber': str(number), 'uploadId': upload}).etag

    def complete_upload(self, bucket, key, upload, etags):
        body = '<CompleteMultipartUpload>%s</CompleteMultipartUpload>' % ''.join(
            '<Part><PartNumber>%d</PartNumber><ETag>%s</ETag></Part>' % (i + 1, etag)
            for i, etag in enumerate(etags))
        return self.request('POST', bucket, key, query={'uploadId': upload},
                            body=body.encode())

    def abort_upload(self, bucket, key, upload):
        return self.request('DELETE', bucket, key, query={'uploadId': upload})

    def uploads(self, bucket, prefix=''):
        """Unfinished uploads, as (key, id).  MinIO (unlike S3) lists none unless
        PREFIX is empty (all of the bucket) or a whole key."""
        query = {'uploads': '', 'prefix': prefix}
        while True:
            tree = self.request('GET', bucket, query=query).xml
            for each in tree.iter('Upload'):
                yield each.findtext('Key'), each.findtext('UploadId')
            if tree.findtext('IsTruncated') != 'true':
                return
            query['key-marker'] = tree.findtext('NextKeyMarker')
            query['upload-id-marker'] = tree.findtext('NextUploadIdMarker')

    def parts(self, bucket, key, upload):
        """The parts that an unfinished upload has, as (number, size)."""
        tree = self.request('GET', bucket, key, query={'uploadId': upload}).xml
        return [(int(each.findtext('PartNumber')), int(each.findtext('Size')))
                for each in tree.iter('Part')]
