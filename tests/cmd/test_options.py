"""The command line as its table says: parsing, --help, manual pages, files,
environment, completion.  Each is compared with the program's own --help, which
is printed from the table."""
import json
import os
import re
import subprocess
import sys
import tempfile
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '..'))
import fixtures
from fixtures import OBJMAP, TOP, World

MAN = os.path.join(TOP, 'man')


def overview():
    return subprocess.run([OBJMAP, '--help'], capture_output=True, text=True,
                          timeout=30).stdout


def verbs():
    found = re.findall(r'^  ([a-z]+(?: [a-z]+)?)  +\S', overview(), re.M)
    assert 'create' in found and 'snapshot create' in found
    return found


def help_options(verb):
    """{name: (letter, argument)} of a verb's --help."""
    text = subprocess.run([OBJMAP, *verb.split(), '--help'], capture_output=True,
                          text=True, timeout=30).stdout
    found = {}
    for line in text.splitlines():
        m = re.match(r'  (?:-(\w),|   ) --([a-z0-9-]+)(?: (\S+))?', line)
        if m:
            argument = m.group(3)
            # Without an argument the text begins in its column.
            if argument and not re.search(r'^[A-Z]+$|\||^none$', argument):
                argument = None
            found[m.group(2)] = (m.group(1), argument)
    return found


def page_of(verb):
    return os.path.join(MAN, 'objmap-%s.1' % verb.split()[0])


def page_options(path):
    """{name: (letter, argument)} of the entries under OPTIONS, from the source."""
    with open(path) as f:
        source = f.read()
    section = re.search(r'^\.SH OPTIONS\n(.*?)(?=^\.SH|\Z)', source, re.M | re.S)
    found = {}
    for tag in re.findall(r'^\.TP.*\n(.*)', section.group(1) if section else '', re.M):
        tag = re.sub(r'^\.[BIR]+ |\\f.|"', '', tag).replace('\\-', '-')
        m = re.match(r'(?:-(\w) ?, )?--([a-z0-9-]+) *(\S+)?$', tag)
        if m:
            found[m.group(2)] = (m.group(1), m.group(3))
    return found


def s3_options():
    """Those of the server of an s3: place, which every verb that opens one takes."""
    text = subprocess.run([OBJMAP, 'info', '--help'], capture_output=True, text=True,
                          timeout=30).stdout
    found = re.findall(r'^ +--([a-z0-9-]+)', text.split('options for s3:')[1], re.M)
    assert 'endpoint-url' in found and 'retry-for' not in found
    return found


class ManualPages(unittest.TestCase):
    def test_the_options_of_s3_stand_once_in_the_overview_page(self):
        with open(os.path.join(MAN, 'objmap.1')) as f:
            section = re.search(r'^\.SS S3 options\n(.*?)(?=^\.S)', f.read(),
                                re.M | re.S).group(1)
        tags = [t.replace('\\-', '-')
                for t in re.findall(r'^\.TP\n\\fB\\-\\-([^\\]\S*?)\\fR', section, re.M)]
        self.assertEqual(sorted(tags), sorted(s3_options()))

    def test_every_option_is_in_its_page_and_no_other(self):
        s3 = s3_options()
        fixtures.require('mandoc')
        families = {}
        for verb in verbs():
            options = help_options(verb)
            self.assertTrue(verb == 'help' or 'help' in options, verb)
            families.setdefault(verb.split()[0], {}).update(options)
        self.assertIn('size', families['create'])
        for family, options in families.items():
            with self.subTest(verb=family):
                shown = page_options(page_of(family))
                if 'endpoint-url' in options:
                    with open(page_of(family)) as f:
                        self.assertIn('.B S3 options\nof\n.BR objmap (1)', f.read())
                    for name in s3:
                        del options[name]
                self.assertEqual(sorted(shown), sorted(options))
                for name in options:
                    self.assertEqual(shown[name], options[name], name)

    def test_what_a_section_of_a_serve_file_takes_is_listed_in_its_page(self):
        """By the program itself, which is asked for each option of mount."""
        with open(os.path.join(MAN, 'objmap-serve.1')) as f:
            text = re.search(r'^A section needs\n.*?^\.PP', f.read(), re.M | re.S).group(0)
        listed = [w.replace('\\-', '-') for w in
                  re.findall(r'^\.BR? ([a-z0-9\\-]+)(?: [,.])?$', text, re.M)]
        self.assertEqual(listed[:2], ['place', 'where'])
        with tempfile.TemporaryDirectory() as d:
            taken = {n for n in {**help_options('mount'), **help_options('copy')}
                     if n != 'help' and self.is_setting(d, n)}
        self.assertEqual(sorted(listed[2:]), sorted(taken))

    def is_setting(self, folder, name):
        path = folder + '/serve.conf'
        with open(path, 'w') as f:	# the last line keeps it from starting anything
            f.write('[mount]\n%s = \nnonsense\n' % name)
        p = subprocess.run([OBJMAP, 'serve', path], capture_output=True, text=True,
                           timeout=30, env=dict(os.environ, HOME=folder))
        self.assertEqual(p.returncode, 2)
        self.assertIn(path + ':2: ' if ':2:' in p.stderr else path + ':3: ', p.stderr)
        return 'is no setting of a [mount]' not in p.stderr

    def test_every_page_renders_without_a_warning(self):
        fixtures.require('mandoc')
        pages = [f for f in os.listdir(MAN) if re.search(r'\.[1-8]$', f)]
        self.assertGreater(len(pages), 10)
        for page in pages:
            with self.subTest(page=page):
                p = subprocess.run(['mandoc', '-Tlint', '-W', 'warning',
                                    os.path.join(MAN, page)],
                                   capture_output=True, text=True, timeout=20)
                self.assertEqual(p.stdout + p.stderr, '')

    def test_every_verb_is_in_the_overview_page(self):
        with open(os.path.join(MAN, 'objmap.1')) as f:
            page = f.read()
        for verb in verbs():
            self.assertRegex(page, r'\b%s\b' % verb.split()[0])

    def test_pages_say_nothing_of_what_is_not_in_this_build(self):
        for page in os.listdir(MAN):
            if not page.startswith('objmap') or page == 'objmap-volume.5':
                continue
            with open(os.path.join(MAN, page)) as f:
                text = f.read().replace('\\-', '-')
            for word in ('--cache', 'objmap pull'):
                self.assertNotIn(word, text, page)

    def test_help_shows_the_page(self):
        fixtures.require('man')
        p = subprocess.run([OBJMAP, 'help', 'create'], capture_output=True,
                           text=True, timeout=20, env=dict(os.environ, MANPAGER='cat'))
        self.assertEqual(p.returncode, 0)
        self.assertIn('OBJMAP-CREATE(1)', p.stdout)

    def test_help_without_man_prints_the_options(self):
        p = subprocess.run([OBJMAP, 'help', 'create'], capture_output=True,
                           text=True, timeout=20, env={'PATH': '/nonexistent'})
        self.assertEqual(p.returncode, 0)
        self.assertIn('usage: objmap create VOLUME', p.stdout)


class Parsing(World):
    def refused(self, *args, says, env=None):
        p = self.objmap(*args, status=2, env=dict(self.env, **(env or {})))
        self.assertEqual(p.stdout, b'')
        message = p.stderr.decode()
        self.assertTrue(message.startswith('objmap: '), message)
        self.assertIn(says, message)

    def test_usage_mistakes_are_told_with_what_to_do(self):
        for args, says in (
                ([], 'a verb is missing'),
                (['crate'], "did you mean 'create'?"),
                (['frobnicate'], 'objmap --help lists them'),
                (['snapshot'], 'objmap snapshot --help'),
                (['snapshot', 'crate', 'x', 'y'], "did you mean 'snapshot create'?"),
                (['--json', 'info', 'x'], 'the verb comes first'),
                (['create'], 'needs arguments; usage: objmap create VOLUME'),
                (['create', 'dir:x', 'dir:y', '--size', '1M'], 'one argument too many'),
                (['create', 'dir:x', '--sice', '1M'], 'did you mean --size?'),
                (['create', 'dir:x', '--qqqqq'], 'see objmap create --help'),
                (['create', 'dir:x', '--overwrite'], 'create does not take --overwrite'),
                (['create', 'dir:x', '-z'], 'no option -z'),
                (['create', 'dir:x', '--size'], '--size needs a value'),
                (['create', 'dir:x', '--json=1'], '--json takes no value'),
                (['create', 'dir:x', '--c', '1M'], 'could be any of'),
                (['create', 'dir:x', '--size', 'big'], 'takes a size such as'),
                (['create', 'dir:x', '--size', '-1'], 'takes a size such as'),
                (['create', 'dir:x', '--size', '99999999999999T'], 'too large'),
                (['copy', 'a', 'b', '--jobs', '0'], 'between 1 and 256'),
                (['gc', 'dir:x', '--grace', 'soon'], 'takes a time such as'),
                (['create', 'dir:x', '--codec', 'zip'], "is one of none, not 'zip'"),
                (['mount', 'dir:x', '/x', '--durability', 'journal'], 'not in this build'),
                (['mount', 'dir:x', '/x', '--cache', 'memory'], 'not in this build'),
                (['mount', 'dir:x', '/x', '--cache-size=1G'], 'not in this build'),
                (['pull', 'x'], 'not in this build')):
            with self.subTest(args=args):
                self.refused(*args, says=says)
        self.assertEqual(os.listdir(self.dir), [])

    def test_options_stand_anywhere_and_may_be_shortened(self):
        self.objmap('create', '--siz', '1M', self.path('a').join(['dir:', '']),
                    '--chunk', '64K')
        info = json.loads(self.objmap('info', '--json', 'dir:' + self.path('a')).stdout)
        self.assertEqual((info['size'], info['chunk_size']), (1 << 20, 64 << 10))

    def test_two_dashes_end_the_options(self):
        self.refused('info', '--', '--json', says="--json is no place")

    def test_full_standard_output_is_a_failure(self):
        with open('/dev/full', 'w') as full:
            p = subprocess.run([OBJMAP, '--help'], stdout=full,
                               stderr=subprocess.PIPE, timeout=30)
        self.assertEqual(p.returncode, 1)
        self.assertIn(b'standard output', p.stderr)


class Sources(World):
    """HOME of a World is its own folder."""

    def setUp(self):
        super().setUp()
        os.mkdir(self.path('.config'))
        self.file = self.path('.config/objmap.conf')

    def write(self, text):
        with open(self.file, 'w') as f:
            f.write(text)

    def shown(self, name, **env):
        p = self.objmap('config', '--json', env=dict(self.env, **env))
        entry = json.loads(p.stdout)[name]
        return entry['value'], entry['source']

    def test_the_environment_comes_before_the_file_before_the_default(self):
        self.assertEqual(self.shown('max-clients'), ('2048', 'default'))
        self.assertEqual(self.shown('jobs'), (None, 'none'))
        self.write('# mine\n\n jobs = 3  # three\nquiet=yes\ndescription = "a # b"\n')
        self.assertEqual(self.shown('jobs'), ('3', self.file))
        self.assertEqual(self.shown('quiet'), ('yes', self.file))
        self.assertEqual(self.shown('description'), ('a # b', self.file))
        self.assertEqual(self.shown('jobs', OBJMAP_JOBS='5'), ('5', 'environment'))
        self.assertEqual(self.shown('jobs', OBJMAP_JOBS=''), ('3', self.file))

    def test_the_command_line_comes_first(self):
        self.write('chunk-size = 128K\n')
        for more, size in (([], 128 << 10), (['--chunk-size', '256K'], 256 << 10)):
            place = 'dir:' + self.path('v%d' % size)
            made = self.objmap('create', place, '--size', '1M', '--json', *more)
            self.assertEqual(json.loads(made.stdout)['chunk_size'], size)

    def test_a_flag_is_taken_back(self):
        self.write('json = yes\n')
        place = 'dir:' + self.path('v')
        self.assertTrue(self.objmap('create', place, '--size', '1M').stdout
                        .startswith(b'{'))
        self.assertFalse(self.objmap('info', place, '--no-json').stdout
                         .startswith(b'{'))

    def test_the_system_file_is_the_weakest(self):
        fixtures.require('root', 'tmpfs', 'unshare')
        self.write('jobs = 3\n')
        etc = self.path('etc.conf')
        with open(etc, 'w') as f:
            f.write('jobs = 4\nchunk-size = 2M\n')
        p = self.run_ok('unshare', '-m', 'sh', '-c',
                        'mount -t tmpfs none /etc && cp "$1" /etc/objmap.conf && '
                        'exec "$0" config --json', OBJMAP, etc)
        shown = json.loads(p.stdout)
        self.assertEqual(shown['jobs'], {'value': '3', 'source': self.file})
        self.assertEqual(shown['chunk-size'],
                         {'value': '2M', 'source': '/etc/objmap.conf'})

    def test_a_flag_has_the_same_words_in_every_file(self):
        serve = self.path('serve.conf')
        where = 'nbd+unix:///?socket=' + self.path('sock')
        for word, on in (('yes', True), ('true', True), ('on', True), ('1', True),
                         ('no', False), ('false', False), ('off', False), ('0', False),
                         ('Yes', None), ('2', None), ('perhaps', None)):
            with self.subTest(word=word):
                self.write('read-only = %s\n' % word)
                p = self.objmap('config', status=2 if on is None else 0)
                said = 'read-only takes yes or no, not \'%s\'' % word
                if on is None:
                    self.assertIn(said, p.stderr.decode())
                os.unlink(self.file)
                with open(serve, 'w') as f:
                    f.write('[mount]\nplace = memory:1M\nwhere = %s\nread-only = %s\n'
                            'exclusive = %s\n' % (where, word, word))
                p = self.objmap('serve', serve, '--log', self.path('log'),
                                status=2 if on is None else 0)
                if on is None:
                    self.assertIn(serve + ':4: ' + said, p.stderr.decode())
                    continue
                told = json.loads(self.objmap('status', where, '--json').stdout)
                self.pids.append(told['pid'])
                self.assertEqual(told['read_only'], on)
                self.objmap('umount', where)

    def test_mistakes_in_a_file_are_told_with_file_and_line(self):
        for text, says in (
                ('jobs = 3\nchunk-sice = 1M\n', ":2: no option is called 'chunk-sice'; did you mean 'chunk-size'?"),
                ('jobs = many\n', ':1: jobs takes a number'),
                ('jobs = 1000\n', ':1: jobs must be between 1 and 256'),
                ('quiet = maybe\n', ':1: quiet takes yes or no'),
                ('jobs\n', ':1: a line is NAME = VALUE'),
                ('description = "a\n', 'no closing quote'),
                ('cache = memory\n', ':1: cache: not in this build'),
                ('force = yes\n', ':1: force: --force is taken from the command line only'),
                ('run = id\n', ':1: run: --run is taken from the command line only')):
            with self.subTest(text=text):
                self.write(text)
                p = self.objmap('config', status=2)
                self.assertIn((self.file + ':').encode(), p.stderr)
                self.assertIn(says, p.stderr.decode())

    def test_words_that_can_hurt_come_from_the_command_line_only(self):
        for word in ('force', 'take-over', 'abandon-journal', 'exclusive',
                     'overwrite', 'over', 'no-drain', 'yes'):
            variable = 'OBJMAP_' + word.upper().replace('-', '_')
            with self.subTest(word=word):
                p = self.objmap('config', status=2,
                                env=dict(self.env, **{variable: '1'}))
                self.assertIn(variable + ': --' + word, p.stderr.decode())
                self.write(word + ' = yes\n')
                p = self.objmap('config', status=2)
                self.assertIn('from the command line only', p.stderr.decode())
                os.unlink(self.file)

    def test_what_config_prints_can_be_its_file(self):
        self.write('description = "disk #1"\njobs = 3\ntls-psk = /my "best" keys\n')
        text = self.objmap('config').stdout.decode()
        before = json.loads(self.objmap('config', '--json').stdout)
        self.write(text)
        after = json.loads(self.objmap('config', '--json').stdout)
        self.assertEqual({n: v['value'] or 'no' for n, v in before.items()},
                         {n: v['value'] or 'no' for n, v in after.items()})

    def test_a_mistyped_variable_is_told(self):
        p = self.objmap('config', env=dict(self.env, OBJMAP_CHUNKSIZE='1M'))
        self.assertIn('is --chunk-size meant?', p.stderr.decode())


class Completion(unittest.TestCase):
    def complete(self, *words):
        script = ('source "$1"; shift; COMP_WORDS=("$@"); '
                  'COMP_CWORD=$((${#COMP_WORDS[@]} - 1)); '
                  'compopt() { :; }; _objmap "$1"; printf "%s\\n" "${COMPREPLY[@]}"')
        p = subprocess.run(['bash', '-c', script, 'bash',
                            os.path.join(TOP, 'contrib/completion/objmap'),
                            OBJMAP, *words], capture_output=True, text=True,
                           timeout=20)
        self.assertEqual(p.stderr, '')
        return p.stdout.split()

    def test_verbs(self):
        self.assertEqual(sorted(set(v.split()[0] for v in verbs()) |
                                {'--help', '--version'}), sorted(self.complete('')))
        self.assertEqual(self.complete('cre'), ['create'])
        self.assertEqual(self.complete('snapshot', 'd'), ['delete'])
        self.assertEqual(self.complete('help', 'resi'), ['resize'])

    def test_the_options_of_every_verb_are_offered_and_no_others(self):
        for verb in verbs():
            with self.subTest(verb=verb):
                if verb != 'help':
                    self.assertEqual(
                        sorted(self.complete(*verb.split(), '--')),
                        sorted('--' + o for o in help_options(verb)))

    def test_values(self):
        self.assertEqual(sorted(self.complete('mount', 'x', 'y', '--durability', '')),
                         ['none', 'remote'])
        self.assertEqual(self.complete('create', 'dir:x', '--size', ''), [])

    def test_places_and_files(self):
        self.assertIn('pattern:', self.complete('info', 'pat'))
        offered = self.complete('info', '')
        for place in ('s3:', 's3+object:', 'dir:', 'mem:', 'file:', 'memory:', 'null:',
                      'pattern:', 'http:', 'https:'):
            self.assertIn(place, offered)
        # As in the program's own help, which has those that are built.
        self.assertEqual(offered, re.search(r'places begin with:\n(.*?)\n\n', overview(),
                                            re.S).group(1).split())
        for place in ('nbd:', 'nbds:', 'nbd+unix:', 'nbds+unix:'):
            p = subprocess.run([OBJMAP, 'info', place], capture_output=True, text=True,
                               timeout=30)
            self.assertEqual(place in offered, 'not in this build' not in p.stderr)
        self.assertIn(TOP + '/README.md',
                      self.complete('info', 'file', ':', TOP + '/READ'))


if __name__ == '__main__':
    fixtures.main()
