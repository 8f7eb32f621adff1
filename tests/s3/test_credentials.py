#!/usr/bin/python3
"""Where S3 credentials come from: each link of the chain against a small stand-in of
what it asks, right and wrong, and what is done when they end."""
import copy
import datetime
import email.utils
import fcntl
import http.server
import json
import os
import signal
import stat
import struct
import sys
import termios
import threading
import time
import urllib.parse

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.dirname(HERE))
import fixtures  # noqa: E402
import subprocess  # noqa: E402

SHOW = os.path.join(fixtures.BUILD, 'tests', 's3', 'credentials-show')
ID, SECRET = 'AKIAEXAMPLE', 'wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY'


def at(seconds):
    """The time SECONDS from now, as services write it."""
    now = datetime.datetime.now(datetime.timezone.utc)
    return (now + datetime.timedelta(seconds=seconds)).strftime('%Y-%m-%dT%H:%M:%SZ')


def epoch(text, form='%Y-%m-%dT%H:%M:%SZ'):
    """The seconds since 1970 of what at() gives."""
    return datetime.datetime.strptime(text, form).replace(
        tzinfo=datetime.timezone.utc).timestamp()


class Service:
    """A stand-in: ANSWER(request) gives (status, text) or (status, text, headers), or
    None to say nothing at all."""

    def __init__(self, test, answer):
        self.seen = []
        service = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = 'HTTP/1.1'
            extra = {}

            def serve(self):
                count = int(self.headers.get('Content-Length') or 0)
                self.body = self.rfile.read(count).decode()
                self.form = dict(urllib.parse.parse_qsl(self.body))
                service.seen.append(copy.copy(self))
                reply = answer(self)
                if reply is None:
                    self.close_connection = True
                    return
                status, text, headers = (reply + ({},))[:3]
                self.extra = headers
                self.send_response(status)
                self.send_header('Content-Length', str(len(text)))
                self.end_headers()
                self.wfile.write(text.encode())

            do_GET = do_PUT = do_POST = serve

            def date_time_string(self, timestamp=None):
                return self.extra.get('Date') or super().date_time_string(timestamp)

            def log_message(self, *args):
                pass

        self.server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), Handler)
        self.server.daemon_threads = True
        self.server.block_on_close = False
        self.url = 'http://127.0.0.1:%d' % self.server.server_address[1]
        thread = threading.Thread(target=self.server.serve_forever, args=(0.05,))
        thread.start()
        test.addCleanup(thread.join)
        test.addCleanup(self.server.server_close)
        test.addCleanup(self.server.shutdown)


def metadata_json(n=1, seconds=3600, **more):
    return json.dumps(dict({'Code': 'Success', 'AccessKeyId': 'ID%d' % n,
                            'SecretAccessKey': 'SECRET%d' % n, 'Token': 'TOKEN%d' % n,
                            'Expiration': at(seconds)}, **more))


def sts_xml(action, n=1, seconds=3600):
    return ('<%sResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><%sResult>'
            '<Credentials><AccessKeyId>ID%d</AccessKeyId><SecretAccessKey>SECRET%d'
            '</SecretAccessKey><SessionToken>TOKEN%d</SessionToken><Expiration>%s'
            '</Expiration></Credentials></%sResult></%sResponse>' % (
                action, action, n, n, n, at(seconds), action, action))


class Credentials(fixtures.World):
    def setUp(self):
        super().setUp()
        for name in list(self.env):
            if name.startswith('AWS_') or name.lower().endswith('_proxy'):
                del self.env[name]
        self.env['AWS_EC2_METADATA_DISABLED'] = 'true'
        os.mkdir(self.path('.aws'))

    def write(self, name, text, mode=0o600):
        with open(self.path(name), 'w') as f:
            f.write(text)
        os.chmod(self.path(name), mode)
        return self.path(name)

    def config(self, text):
        self.write('.aws/config', text)

    def credentials(self, text):
        self.write('.aws/credentials', text)

    def show(self, *args, timeout=60):
        """What is found, and what is said on standard error."""
        p = subprocess.run([SHOW, *args], env=self.env, capture_output=True,
                           timeout=timeout, stdin=subprocess.DEVNULL)
        self.assertIn(p.returncode, (0, 1), p.stderr.decode(errors='replace'))
        lines = [json.loads(line) for line in p.stdout.decode().splitlines()]
        return lines, p.stderr.decode()

    def watch(self, enough, *args, tell=(), more=0):
        """What is found, again whenever it changes, until the lines are ENOUGH (or it
        has taken far too long), and for MORE seconds; what is said on standard error.
        TELL comes at each line, as long as there is any: a ! is a store that refuses
        the keys."""
        lines = []
        with open(self.path('said'), 'w+') as said, \
                self.start(SHOW, *args, '--watch', '100', stdin=subprocess.PIPE,
                           stdout=subprocess.PIPE, stderr=said) as p:
            for line in p.stdout:
                lines.append(json.loads(line))
                done = enough(lines)
                if len(lines) <= len(tell):
                    p.stdin.write(tell[len(lines) - 1])
                    p.stdin.flush()
                if done:
                    break
            if more:
                fixtures.wait_for(lambda: fcntl.ioctl(p.stdin, termios.FIONREAD, bytes(4)) ==
                                  struct.pack('i', 0), 'all to be taken')
                time.sleep(more)
            p.kill()
            lines += [json.loads(line) for line in p.stdout]
            said.seek(0)
            return lines, said.read()

    def outlasting(self, seconds, attempt):
        """ATTEMPT(SECONDS) with keys that live so long.  Where the machine stood still
        for longer, they ended before anybody saw them: again with such as live on."""
        for life in (seconds, 3 * seconds):
            try:
                return attempt(life)
            except AssertionError as error:
                print('keys of %d s: %s' % (life, str(error).splitlines()[0]), end=' ... ')
        return attempt(9 * seconds)

    def found(self, *args, **kw):
        lines, said = self.show(*args, **kw)
        self.assertNotIn('failed', lines[0], said)
        return lines[0]

    def expect(self, source, *args, id=ID, secret=SECRET, token=''):
        got = self.found(*args)
        self.assertEqual((got['id'], got['secret'], got['token']), (id, secret, token))
        self.assertIn(source, got['source'])
        return got

    def refused(self, *args, error='ENOKEY', says=()):
        """It fails, says why in one line, and no secret is in it."""
        lines, said = self.show(*args)
        self.assertEqual(lines, [{'failed': error}], said)
        for word in (says,) if isinstance(says, str) else says:
            self.assertIn(word, said)
        self.assertNotIn(SECRET, said)
        self.assertEqual(said.count('\n'), 1, said)
        return said


class Environment(Credentials):
    def test_keys_of_the_environment_are_taken(self):
        self.env.update(AWS_ACCESS_KEY_ID=ID, AWS_SECRET_ACCESS_KEY=SECRET)
        self.expect('environment')
        self.env['AWS_SESSION_TOKEN'] = 'TOKEN'
        self.expect('environment', token='TOKEN')

    def test_half_of_a_pair_is_an_error(self):
        self.env['AWS_ACCESS_KEY_ID'] = ID
        self.refused(error='EINVAL', says='AWS_SECRET_ACCESS_KEY is not')
        del self.env['AWS_ACCESS_KEY_ID']
        self.env['AWS_SECRET_ACCESS_KEY'] = SECRET
        self.refused(error='EINVAL', says='AWS_ACCESS_KEY_ID is not')

    def test_a_stray_character_is_an_error(self):
        for bad in (SECRET + '\r', ' ' + SECRET, SECRET + '\n', 'x' * 300, 'gehe\u00efm'):
            self.env.update(AWS_ACCESS_KEY_ID=ID, AWS_SECRET_ACCESS_KEY=bad)
            self.refused(error='EINVAL', says='secret access key')

    def test_they_go_before_a_profile_of_the_environment_but_not_before_a_given_one(self):
        self.env.update(AWS_ACCESS_KEY_ID=ID, AWS_SECRET_ACCESS_KEY=SECRET,
                        AWS_PROFILE='ci')
        self.credentials('[ci]\naws_access_key_id = OTHER\n'
                         'aws_secret_access_key = other\n')
        self.expect('environment')
        self.expect('profile ci', '--profile', 'ci', id='OTHER', secret='other')

    def test_their_end_is_known_when_the_environment_says_it(self):
        self.env.update(AWS_ACCESS_KEY_ID=ID, AWS_SECRET_ACCESS_KEY=SECRET,
                        AWS_CREDENTIAL_EXPIRATION=at(-5))
        self.refused(error='EKEYEXPIRED', says='environment: its keys have expired')

        def attempt(seconds):
            self.env['AWS_CREDENTIAL_EXPIRATION'] = at(seconds)
            lines, said = self.watch(lambda lines: len(lines) == 2)
            self.assertEqual([x.get('error') for x in lines], [0, -127], said)
            self.assertIn('environment: its keys have expired', lines[1]['trouble'])
        self.outlasting(2, attempt)

    def test_nobody_needs_no_keys(self):
        got = self.found('--anonymous')
        self.assertEqual((got['anonymous'], got['id'], got['source']),
                         (True, '', 'anonymous'))


class Files(Credentials):
    def test_keys_of_the_default_profile_are_taken(self):
        self.credentials('[default]\naws_access_key_id = %s\n'
                         'aws_secret_access_key=%s\n' % (ID, SECRET))
        self.expect('profile default of ~/.aws/credentials')

    def test_keys_in_config_are_taken_too(self):
        self.config('[profile ci]\naws_access_key_id = %s\naws_secret_access_key = %s\n'
                    'aws_session_token = TOKEN\n' % (ID, SECRET))
        self.env['AWS_PROFILE'] = 'ci'
        self.expect('profile ci of ~/.aws/config', token='TOKEN')

    def test_keys_of_both_files_are_not_mixed(self):
        self.config('[default]\naws_access_key_id = C\naws_secret_access_key = c\n'
                    'aws_session_token = t\n')
        self.credentials('[default]\naws_access_key_id = %s\n'
                         'aws_secret_access_key = %s\n' % (ID, SECRET))
        self.expect('~/.aws/credentials')
        self.credentials('[default]\naws_access_key_id = %s\n' % ID)
        self.refused(error='EINVAL', says='there is no secret access key')

    def test_files_can_be_elsewhere(self):
        self.env['AWS_SHARED_CREDENTIALS_FILE'] = '~/elsewhere'
        self.write('elsewhere', '[x]\naws_access_key_id = %s\n'
                   'aws_secret_access_key = %s\n' % (ID, SECRET))
        self.expect('profile x of ~/elsewhere', '--profile', 'x')

    def test_how_people_write_files(self):
        self.credentials('\ufeff'[1:] + '# mine\r\n; too\r\n\r\n[ other ]\r\n'
                         'AWS_ACCESS_KEY_ID=no\r\n[ci]\r\n\tAws_Access_Key_Id\t=\t%s  \r\n'
                         'aws_secret_access_key = %s # the new one\r\n'
                         '[ci]\r\nregion=eu\r\n' % (ID, SECRET))
        self.expect('profile ci', '--profile', 'ci')

    def test_a_profile_that_is_not_there_is_named_with_what_was_looked_at(self):
        self.config('[profile a]\nregion = x\n[b]\nregion = x\n')
        said = self.refused('--profile', 'b', says=(
            'no profile b', '~/.aws/credentials (no such file)', '~/.aws/config'))
        self.assertNotIn('~/.aws/config (no such file)', said)
        self.env['AWS_PROFILE'] = 'c'
        self.refused(says='no profile c')
        self.refused('--anonymous', '--profile', 'd', says='no profile d')

    def test_nothing_anywhere_says_what_was_looked_at_and_what_to_do(self):
        self.refused(says=('AWS_ACCESS_KEY_ID is not set', 'no profile default',
                           '~/.aws/credentials (no such file)',
                           'AWS_CONTAINER_CREDENTIALS', 'AWS_EC2_METADATA_DISABLED',
                           '--no-sign-request', '--profile'))

    def test_a_wrong_line_is_named_without_what_is_in_it(self):
        for text, line in (('[default]\naws_access_key_id = x\n%s\n' % SECRET, 3),
                           ('x = y\n', 1), ('[default\n', 1), ('[a] b\n', 1),
                           ('[default]\n= %s\n' % SECRET, 2)):
            self.credentials(text)
            self.refused(error='EINVAL', says='~/.aws/credentials: line %d' % line)

    def test_a_file_that_is_none_is_refused(self):
        self.credentials('[default]\n\0\n')
        self.refused(error='EINVAL', says='~/.aws/credentials: is no text file')
        self.credentials('[default]\n' + '# much\n' * 300000)
        self.refused(error='EFBIG', says='~/.aws/credentials')
        os.unlink(self.path('.aws/credentials'))
        os.mkdir(self.path('.aws/credentials'))
        self.refused(error='EISDIR', says='~/.aws/credentials')

    def test_secrets_that_others_can_read_are_a_warning(self):
        self.credentials('[default]\naws_access_key_id = %s\n'
                         'aws_secret_access_key = %s\n' % (ID, SECRET))
        os.chmod(self.path('.aws/credentials'), 0o644)
        lines, said = self.show()
        self.assertEqual(lines[0]['id'], ID)
        self.assertIn('chmod 600 ~/.aws/credentials', said)
        os.chmod(self.path('.aws/credentials'), stat.S_IRUSR)
        self.assertEqual(self.show()[1], '')

    def test_a_sign_in_by_sso_says_what_to_do(self):
        self.config('[profile s]\nsso_session = x\nsso_account_id = 1\n'
                    '[sso-session x]\nsso_start_url = https://x\n')
        self.refused('--profile', 's', error='EOPNOTSUPP',
                     says='aws configure export-credentials --profile s')

    def test_changed_keys_are_taken_when_the_old_ones_are_refused(self):
        text = '[default]\naws_access_key_id = %s\naws_secret_access_key = s\n'
        self.credentials(text % 'OLD')

        def enough(lines):
            self.credentials(text % 'NEW')
            return len(lines) == 2
        lines, said = self.watch(enough, tell=[b'!'])
        self.assertEqual([x['id'] for x in lines], ['OLD', 'NEW'], said)

    def test_settings(self):
        self.config('[default]\nregion = eu-west-1\noutput =\n'
                    's3 =\n  addressing_style = path\n  use_dualstack = true\n'
                    'ca_bundle = /ca ; mine\nendpoint_url = http://all\n'
                    'services = local\nlong = a\n  b\n'
                    '[services local]\ns3 = \n  endpoint_url = http://s3\n'
                    'dynamodb =\n  endpoint_url = http://db\n'
                    '[profile plain]\nendpoint_url = http://plain\n'
                    '[profile deaf]\nendpoint_url = http://deaf\n'
                    'ignore_configured_endpoint_urls = True\n'
                    '[profile "two words"]\nregion = r\n')

        def setting(name, *args):
            lines, said = self.show('--setting', name, *args)
            self.assertEqual(said, '')
            return lines[0].get('value')
        self.assertEqual(setting('region'), 'eu-west-1')
        self.assertEqual(setting('s3.addressing_style'), 'path')
        self.assertEqual(setting('s3.use_dualstack'), 'true')
        self.assertEqual(setting('ca_bundle'), '/ca')
        self.assertEqual(setting('endpoint_url'), 'http://s3')
        self.assertEqual(setting('long'), 'a\nb')
        self.assertEqual(setting('endpoint_url', '--profile', 'plain'), 'http://plain')
        self.assertEqual(setting('region', '--profile', 'two words'), 'r')
        for name, profile in (('output', 'default'), ('addressing_style', 'default'),
                              ('s3', 'default'), ('region', 'plain'),
                              ('region', 'local'), ('endpoint_url', 'deaf')):
            self.assertIsNone(setting(name, '--profile', profile), name)
        self.env['AWS_IGNORE_CONFIGURED_ENDPOINT_URLS'] = 'true'
        self.assertIsNone(setting('endpoint_url'))


class Process(Credentials):
    def program(self, text, name='give keys'):
        return self.write(name, '#!/bin/sh\n' + text, 0o700)

    def by(self, command):
        self.config('[default]\ncredential_process = %s\n' % command)

    def answer(self, **more):
        return json.dumps(dict({'Version': 1, 'AccessKeyId': ID,
                                'SecretAccessKey': SECRET}, **more))

    def gives(self, text):
        self.write('answer', text)
        self.program('cat "$HOME/answer"')
        self.by('"%s"' % self.path('give keys'))

    def test_its_keys_are_taken(self):
        end = at(1000)
        self.gives(self.answer(SessionToken='T', Expiration=end))
        got = self.expect('credential_process of profile default', token='T')
        self.assertEqual(got['expires'], epoch(end))

    def test_without_an_end_they_last(self):
        self.gives(self.answer())
        self.assertEqual(self.expect('credential_process')['expires'], 0)

    def test_other_time_zones_are_understood(self):
        self.gives(self.answer(Expiration='2038-01-01T00:30:00+01:00'))
        self.assertEqual(self.found()['expires'], 2145915000)

        self.gives(self.answer(Expiration='2038-01-01T00:30:00+0100'))
        self.assertEqual(self.found()['expires'], 2145915000)

    def test_it_is_waited_for_where_nobody_is_told_of_its_end(self):
        self.gives(self.answer())
        p = subprocess.run([SHOW], env=self.env, stdout=subprocess.PIPE, timeout=60,
                           preexec_fn=lambda: signal.signal(signal.SIGCHLD,
                                                            signal.SIG_IGN))
        self.assertEqual(json.loads(p.stdout)['id'], ID)

    def test_no_shell_reads_its_line(self):
        self.program('for a; do echo "$a"; done >"$HOME/args"\n'
                     "echo '%s'" % self.answer())
        self.by('"%s" $HOME \'a  b\' c\\ d "e\\"f\\x" "" *;id # no' %
                self.path('give keys'))
        self.expect('credential_process')
        with open(self.path('args')) as f:
            self.assertEqual(f.read().split('\n')[:-1],
                             ['$HOME', 'a  b', 'c d', 'e"f\\x', '', '*;id'])

    def test_what_is_wrong_is_said(self):
        for text, error, says in (
                ('', 'EINVAL', 'no JSON object'),
                ('[]', 'EINVAL', 'no JSON object'),
                ('{"Version": 1', 'EINVAL', 'no JSON object'),
                (self.answer(Version=2), 'EINVAL', '"Version" is not 1'),
                (self.answer(AccessKeyId=''), 'EINVAL', 'no access key id'),
                (self.answer(AccessKeyId=7), 'EINVAL', 'no access key id'),
                (self.answer(SecretAccessKey=None), 'EINVAL', 'no secret access key'),
                (self.answer(Expiration='soon'), 'EINVAL', '"Expiration" is no time'),
                (self.answer(Expiration=at(-1)), 'EKEYEXPIRED', 'have expired'),
                (self.answer(SessionToken='a\nb'), 'EINVAL', 'session token'),
                (self.answer(SessionToken='x' * 9000), 'EINVAL', 'longer'),
                (' ' * 70000, 'EFBIG', 'more than 65536 bytes'),
                ('[' * 60000, 'EINVAL', 'no JSON object')):
            self.gives(text)
            self.refused(error=error, says=('credential_process', says))

    def test_a_program_that_fails_is_named(self):
        self.program('exit 3')
        self.by('"%s"' % self.path('give keys'))
        self.refused(error='EACCES', says=('give keys', 'status 3'))
        self.program('kill -9 $$')
        self.refused(error='EACCES', says=('give keys', 'signal 9'))
        self.by('/nonexistent/program')
        self.refused(error='ENOENT', says='/nonexistent/program: No such file')
        self.by('"unfinished')
        self.refused(error='EINVAL', says='quote')

    def test_whoever_it_leaves_behind_keeps_nobody_waiting(self):
        self.program("sleep 50 2>/dev/null & echo $! >\"$HOME/left\"; echo '%s'" % self.answer())
        self.by('"%s"' % self.path('give keys'))
        began = time.monotonic()
        self.expect('credential_process')
        self.assertLess(time.monotonic() - began, 25)
        with open(self.path('left')) as f:
            self.pids.append(int(f.read()))

    @fixtures.long_test
    def test_one_that_hangs_is_ended_with_all_it_started(self):
        self.program('sleep 50 & echo $! >"$HOME/left"; wait')
        self.by('"%s"' % self.path('give keys'))
        lines, said = self.show()
        self.assertEqual(lines, [{'failed': 'ETIMEDOUT'}], said)
        with open(self.path('left')) as f:
            fixtures.wait_gone(int(f.read()))

    def counting(self, life, and_then=''):
        """Each start N gives other keys IDN for so many seconds, unless AND_THEN it ends."""
        if os.path.exists(self.path('n')):
            os.unlink(self.path('n'))
        self.program('n=$(cat "$HOME/n" 2>/dev/null || echo 0); n=$((n+1))\n'
                     'echo $n >"$HOME/n"; %s\n'
                     "e=$(date -u -d '+%d seconds' +%%Y-%%m-%%dT%%H:%%M:%%SZ)\n"
                     'echo "{\\"Version\\":1,\\"AccessKeyId\\":\\"ID$n\\",'
                     '\\"SecretAccessKey\\":\\"s\\",\\"Expiration\\":\\"$e\\"}"' % (
                         and_then, life))
        self.by('"%s"' % self.path('give keys'))

    def test_what_ends_is_fetched_anew_before(self):
        def attempt(seconds):
            self.counting(seconds)
            lines, said = self.watch(lambda lines: len(lines) == 3)
            self.assertEqual([x.get('error') for x in lines], [0, 0, 0], said)
            self.assertEqual([x['id'] for x in lines], ['ID1', 'ID2', 'ID3'])
            self.assertEqual([x['generation'] for x in lines], [1, 2, 3])
        self.outlasting(4, attempt)

    def test_why_renewal_fails_is_kept_and_forgotten_when_it_works_again(self):
        self.counting(10000, '[ $n != 2 ] || exit 9')
        lines, said = self.watch(lambda lines: lines[-1].get('id') == 'ID3', tell=[b'!'])
        self.assertEqual([x['id'] for x in lines], ['ID1', 'ID1', 'ID3'], said)
        self.assertIn('status 9', lines[1]['trouble'])
        self.assertEqual(lines[2]['trouble'], '')
        self.assertIn('not renewed', said)

    def test_a_refusal_renews_once(self):
        self.counting(10000)
        lines, said = self.watch(lambda lines: len(lines) == 2, tell=[b'!!', b'!!'], more=1)
        self.assertEqual([x['id'] for x in lines], ['ID1', 'ID2'], said)
        with open(self.path('n')) as f:
            self.assertEqual(f.read(), '2\n')


class Roles(Credentials):
    def setUp(self):
        super().setUp()
        self.answer = lambda r: (200, sts_xml(r.form['Action']))
        self.sts = Service(self, lambda r: self.answer(r))
        self.env['AWS_ENDPOINT_URL_STS'] = self.sts.url

    def role(self, more='', source='base'):
        self.config('[profile r]\nrole_arn = arn:aws:iam::1:role/r\nsource_profile = %s\n'
                    '%s\n[profile base]\naws_access_key_id = %s\n'
                    'aws_secret_access_key = %s\nregion = xx-1\n' % (
                        source, more, ID, SECRET))

    def test_a_role_is_assumed_with_the_keys_of_another_profile(self):
        self.role('role_session_name = me@here\nexternal_id = a&b=c\n'
                  'duration_seconds = 900\nregion = eu-west-1')
        began = int(time.time())
        got = self.expect('role arn:aws:iam::1:role/r of profile r', '--profile', 'r',
                          id='ID1', secret='SECRET1', token='TOKEN1')
        self.assertIn(got['expires'] - 3600, range(began, int(time.time()) + 1))
        r, = self.sts.seen
        self.assertEqual(r.form, {
            'Action': 'AssumeRole', 'Version': '2011-06-15', 'ExternalId': 'a&b=c',
            'RoleArn': 'arn:aws:iam::1:role/r', 'RoleSessionName': 'me@here',
            'DurationSeconds': '900'})
        self.assertRegex(r.headers['Authorization'],
                         r'^AWS4-HMAC-SHA256 Credential=%s/\d{8}/eu-west-1/sts/' % ID)
        self.assertNotIn(SECRET, str(r.headers) + r.body)

    def test_one_profile_can_have_keys_and_role(self):
        self.config('[profile r]\nrole_arn = a\nsource_profile = r\n'
                    'aws_access_key_id = %s\naws_secret_access_key = %s\n' % (ID, SECRET))
        self.expect('role a', '--profile', 'r', id='ID1', secret='SECRET1',
                    token='TOKEN1')

    def test_a_role_can_be_assumed_with_a_role(self):
        self.config('[profile r]\nrole_arn = outer\nsource_profile = m\n'
                    '[profile m]\nrole_arn = inner\nsource_profile = base\n'
                    '[profile base]\naws_access_key_id = %s\n'
                    'aws_secret_access_key = %s\n' % (ID, SECRET))
        self.answer = lambda r: (200, sts_xml(r.form['Action'], len(self.sts.seen)))
        self.expect('role outer', '--profile', 'r', id='ID2', secret='SECRET2',
                    token='TOKEN2')
        self.assertEqual([r.form['RoleArn'] for r in self.sts.seen], ['inner', 'outer'])
        self.assertIn('Credential=ID1/', self.sts.seen[1].headers['Authorization'])
        self.assertEqual(self.sts.seen[1].headers['X-Amz-Security-Token'], 'TOKEN1')

    def test_the_source_can_be_the_environment(self):
        self.config('[default]\nrole_arn = a\ncredential_source = Environment\n')
        self.env.update(AWS_ACCESS_KEY_ID=ID, AWS_SECRET_ACCESS_KEY=SECRET)
        # Keys of the environment go first, unless the profile is asked for.
        self.expect('environment')
        self.expect('role a', '--profile', 'default', id='ID1', secret='SECRET1',
                    token='TOKEN1')

    def test_what_is_wrong_in_a_profile_is_said(self):
        for text, error, says in (
                ('source_profile = nobody', 'EINVAL', 'source_profile nobody is not'),
                ('source_profile = r2\n[profile r2]\nrole_arn = x\nsource_profile = r',
                 'ELOOP', 'circle'),
                ('source_profile = r2\n[profile r2]\nregion = x', 'ENOKEY', 'no keys'),
                ('credential_source = Moon', 'EINVAL', 'credential_source is none of'),
                ('credential_source = Environment', 'ENOKEY', 'AWS_ACCESS_KEY_ID'),
                ('credential_source = Environment\nsource_profile = r', 'EINVAL', 'both'),
                ('', 'EINVAL', 'has role_arn, but no source_profile'),
                ('source_profile = r\nmfa_serial = x', 'EOPNOTSUPP',
                 'export-credentials --profile r')):
            self.config('[profile r]\nrole_arn = a\n%s\n' % text)
            self.refused('--profile', 'r', error=error, says=says)
        self.assertEqual(self.sts.seen, [])

    def test_what_the_service_refuses_is_said(self):
        self.role()
        self.answer = lambda r: (403, '<ErrorResponse><Error><Code>AccessDenied</Code>'
                                 '<Message>not you</Message></Error></ErrorResponse>')
        self.refused('--profile', 'r', error='EACCES', says=(
            'AssumeRole of arn:aws:iam::1:role/r', self.sts.url,
            'AccessDenied: not you'))
        self.assertEqual(len(self.sts.seen), 1)

    def test_what_is_no_reply_is_refused(self):
        self.role()
        for text in ('', '<html/>', sts_xml('AssumeRole')[:-5],
                     sts_xml('AssumeRoleWithWebIdentity'), 'x' * 70000,
                     sts_xml('AssumeRole').replace('ID1', ''),
                     sts_xml('AssumeRole').replace('Expiration', 'Expirato')):
            self.answer = lambda r: (200, text)
            lines, said = self.show('--profile', 'r')
            self.assertIn(lines[0].get('failed'), ('EBADMSG', 'EFBIG'), (text[:50], said))
        self.answer = lambda r: (200, sts_xml('AssumeRole', seconds=-60))
        self.refused('--profile', 'r', error='EKEYEXPIRED', says='have expired')

    def test_a_server_in_trouble_is_asked_again(self):
        self.role()
        self.answer = lambda r: (503, 'busy') if len(self.sts.seen) < 3 else \
            (200, sts_xml(r.form['Action']))
        self.found('--profile', 'r')
        self.assertEqual(len(self.sts.seen), 3)
        self.answer = lambda r: (503, 'busy')
        self.refused('--profile', 'r', error='EIO', says=('status 503', self.sts.url))

    def test_a_clock_that_is_wrong_is_corrected(self):
        self.role()

        def attempt(seconds):
            self.sts.seen.clear()

            def answer(r):
                now = time.time() + 5 * 3600
                date = {'Date': email.utils.formatdate(now, usegmt=True)}
                if abs(epoch(r.headers['X-Amz-Date'], '%Y%m%dT%H%M%SZ') - now) > 600:
                    return 403, '<ErrorResponse><Error><Code>SignatureDoesNotMatch</Code>' \
                        '</Error></ErrorResponse>', date
                return 200, sts_xml('AssumeRole', len(self.sts.seen), 5 * 3600 + seconds), date
            self.answer = answer
            lines, said = self.watch(lambda lines: lines[-1].get('id') == 'ID4',
                                     '--profile', 'r')
            # A few seconds are left by the service's clock; so they are renewed.  Each
            # time one request with the wrong time tells the right one.
            self.assertEqual([x.get('id') for x in lines if x.get('id') != ''],
                             ['ID2', 'ID4'], said)
        self.outlasting(3, attempt)

    def test_nobody_there_is_said(self):
        self.role()
        self.env['AWS_ENDPOINT_URL_STS'] = 'http://127.0.0.1:%d' % self.nobodys_port()
        self.refused('--profile', 'r', error='ECONNREFUSED',
                     says=self.env['AWS_ENDPOINT_URL_STS'])
        self.env['AWS_ENDPOINT_URL_STS'] = 'localhost'
        self.refused('--profile', 'r', error='EINVAL', says='localhost is no endpoint')

    def test_web_identity_of_the_environment(self):
        self.env.update(AWS_WEB_IDENTITY_TOKEN_FILE=self.write('jwt', 'a.b+c/=\n'),
                        AWS_ROLE_ARN='arn', AWS_ROLE_SESSION_NAME='pod')
        self.expect('web identity for arn', id='ID1', secret='SECRET1', token='TOKEN1')
        r, = self.sts.seen
        self.assertEqual(r.form, {
            'Action': 'AssumeRoleWithWebIdentity', 'Version': '2011-06-15',
            'RoleArn': 'arn', 'RoleSessionName': 'pod', 'WebIdentityToken': 'a.b+c/='})
        self.assertNotIn('Authorization', r.headers)
        del self.env['AWS_ROLE_ARN']
        self.refused(error='EINVAL', says='AWS_ROLE_ARN is not')

    def test_web_identity_of_a_profile(self):
        self.config('[default]\nrole_arn = arn\nweb_identity_token_file = %s\n' %
                    self.write('jwt', 'jwt'))
        self.expect('web identity for arn of profile default', id='ID1',
                    secret='SECRET1', token='TOKEN1')
        self.write('jwt', '')
        self.refused(error='EINVAL', says='jwt: is empty')
        os.unlink(self.path('jwt'))
        self.refused(error='ENOENT', says='jwt: No such file')

    def test_the_token_is_read_anew_when_keys_are_renewed(self):
        self.write('jwt', 'one')
        self.config('[default]\nrole_arn = arn\nweb_identity_token_file = %s\n' %
                    self.path('jwt'))

        def answer(r):
            self.write('jwt', 'two')
            return 200, sts_xml(r.form['Action'], len(self.sts.seen))
        self.answer = answer
        lines, said = self.watch(lambda lines: len(lines) == 2, tell=[b'!'])
        self.assertEqual([x['id'] for x in lines], ['ID1', 'ID2'], said)
        self.assertEqual([r.form['WebIdentityToken'] for r in self.sts.seen],
                         ['one', 'two'])


class Container(Credentials):
    def setUp(self):
        super().setUp()
        self.answer = lambda r: (200, metadata_json())
        self.service = Service(self, lambda r: self.answer(r))
        self.env['AWS_CONTAINER_CREDENTIALS_FULL_URI'] = self.service.url + '/keys?a=b'

    def test_its_keys_are_taken(self):
        self.env['AWS_CONTAINER_AUTHORIZATION_TOKEN'] = 'Basic abc'
        self.expect('container metadata', id='ID1', secret='SECRET1', token='TOKEN1')
        r, = self.service.seen
        self.assertEqual((r.path, r.headers['Authorization']), ('/keys?a=b', 'Basic abc'))

    def test_the_token_in_a_file_goes_first(self):
        self.env.update(AWS_CONTAINER_AUTHORIZATION_TOKEN='no',
                        AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE=self.write('t', 'yes\n'))
        self.found()
        self.assertEqual(self.service.seen[0].headers['Authorization'], 'yes')
        self.write('t', 'a\nb')
        self.refused(error='EINVAL', says='line break')

    def test_no_proxy_stands_between(self):
        self.env['http_proxy'] = 'http://127.0.0.1:%d' % self.nobodys_port()
        self.env.pop('no_proxy', None)
        self.found()

    def test_strangers_are_not_asked(self):
        for url in ('http://192.0.2.1/x', 'http://example.com/x', 'ftp://127.0.0.1/',
                    'http://127.0.0.1@192.0.2.1/', 'http://127.0.0.1.example.com/',
                    'http://169.254.170.3/', 'http://[2001:db8::1]/', 'x', 'http://a b/',
                    'http://localhost:80@192.0.2.1/'):
            self.env['AWS_CONTAINER_CREDENTIALS_FULL_URI'] = url
            self.refused(error='EINVAL', says='AWS_CONTAINER_CREDENTIALS_FULL_URI')

    def test_what_is_wrong_is_said(self):
        for status, text, error, says in (
                (404, '', 'EACCES', 'HTTP status 404'),
                (403, 'no', 'EACCES', 'HTTP status 403'),
                (500, 'no', 'EIO', 'HTTP status 500'),
                (200, '', 'EINVAL', 'no JSON object'),
                (200, '<html/>', 'EINVAL', 'no JSON object'),
                (200, '{}', 'EINVAL', 'no access key id'),
                (200, metadata_json(seconds=-5), 'EKEYEXPIRED', 'expired'),
                (200, 'x' * 70000, 'EFBIG', '/keys')):
            self.answer = lambda r: (status, text)
            self.refused(error=error, says=says)

    @fixtures.long_test
    def test_one_that_hangs_is_given_up(self):
        stop = threading.Event()
        self.addCleanup(stop.set)
        self.answer = lambda r: stop.wait(60) and None
        began = time.monotonic()
        self.refused(error='ETIMEDOUT', says='/keys')
        self.assertLess(time.monotonic() - began, 20)


class Instance(Credentials):
    """Instance metadata, version 2."""

    def setUp(self):
        super().setUp()
        self.replies = {'/latest/meta-data/iam/security-credentials/': (200, 'worker'),
                        '/latest/meta-data/iam/security-credentials/worker':
                        (200, metadata_json())}
        self.token = (200, 'TOKEN==')
        self.service = Service(self, self.serve)
        del self.env['AWS_EC2_METADATA_DISABLED']
        self.env['AWS_EC2_METADATA_SERVICE_ENDPOINT'] = self.service.url + '/'

    def serve(self, r):
        if r.path == '/latest/api/token':
            if r.command != 'PUT' or \
                    not r.headers['X-aws-ec2-metadata-token-ttl-seconds'].isdigit():
                return 400, ''
            return self.token
        if r.headers['X-aws-ec2-metadata-token'] != 'TOKEN==' or r.command != 'GET':
            return 401, ''
        return self.replies.get(r.path, (404, ''))

    def test_its_keys_are_taken(self):
        self.expect('instance metadata, role worker', id='ID1', secret='SECRET1',
                    token='TOKEN1')

    def test_a_role_can_be_assumed_with_them(self):
        sts = Service(self, lambda r: (200, sts_xml(r.form['Action'], 9)))
        self.env['AWS_ENDPOINT_URL_STS'] = sts.url
        self.config('[default]\nrole_arn = a\ncredential_source = Ec2InstanceMetadata\n')
        self.expect('role a', id='ID9', secret='SECRET9', token='TOKEN9')
        self.assertIn('Credential=ID1/', sts.seen[0].headers['Authorization'])

    def test_where_there_is_none_it_is_found_out_within_a_second_or_two(self):
        self.env['AWS_EC2_METADATA_SERVICE_ENDPOINT'] = \
            'http://127.0.0.1:%d' % self.nobodys_port()
        self.refused(says='no instance metadata')
        stop = threading.Event()
        self.addCleanup(stop.set)
        slow = Service(self, lambda r: stop.wait(60) and None)
        self.env['AWS_EC2_METADATA_SERVICE_ENDPOINT'] = slow.url
        for _ in range(5):	# once, unless the machine stands still meanwhile
            began = time.monotonic()
            self.refused(says='no instance metadata')
            took = time.monotonic() - began
            if took < 3:
                break
        self.assertLess(took, 3)

    def test_an_instance_without_a_role_says_so(self):
        self.replies = {}
        self.refused(says='no role is given to this instance')

    def test_what_is_wrong_is_said(self):
        base = '/latest/meta-data/iam/security-credentials/'
        for path, reply, error, says in (
                (base, (200, '../../user-data'), 'EBADMSG', "no role's name"),
                (base, (200, ''), 'EBADMSG', "no role's name"),
                (base, (500, ''), 'EIO', 'status 500'),
                (base + 'worker', (404, ''), 'EACCES', 'status 404'),
                (base + 'worker', (200, 'worker'), 'EINVAL', 'no JSON object'),
                (base + 'worker', (200, metadata_json(Code='Failed', Message='why')),
                 'EACCES', 'Failed: why'),
                (base + 'worker', (200, metadata_json(seconds=-9)), 'EKEYEXPIRED',
                 'expired')):
            before = dict(self.replies)
            self.replies[path] = reply
            self.refused(error=error, says=says)
            self.replies = before
        self.token = (403, '')
        self.refused(error='EACCES', says='/latest/api/token: HTTP status 403')
        self.token = (200, 'x' * 300)
        self.refused(error='EBADMSG', says='no token')

    def test_nothing_else_is_asked_while_it_is_away(self):
        """Whoever was a machine's role does not become somebody else."""
        path = '/latest/meta-data/iam/security-credentials/worker'

        def attempt(seconds):
            self.credentials('')
            self.replies[path] = (200, metadata_json(seconds=seconds))

            def enough(lines):
                self.credentials('[default]\naws_access_key_id = %s\n'
                                 'aws_secret_access_key = %s\n' % (ID, SECRET))
                self.replies[path] = (500, '')
                return lines[-1].get('error') == -127 and 'status 500' in lines[-1]['trouble']
            lines, said = self.watch(enough)
            self.assertEqual(lines[0].get('id'), 'ID1', said)
            self.assertTrue(enough(lines), lines)
            self.assertEqual([x for x in lines if x['id'] == ID], [])
        self.outlasting(4, attempt)


if __name__ == '__main__':
    fixtures.main()
