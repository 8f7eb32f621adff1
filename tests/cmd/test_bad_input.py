"""What cannot be done: each mistake has a message that says what to do, its
exit status, and changes nothing."""
import hashlib
import json
import os
import pwd
import shutil
import signal
import stat
import struct
import subprocess
import sys

import nbd

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '..'))
import fixtures
from fixtures import OBJMAP, World, require, wait_for, wait_gone


def tree(path):
    """A hash of all names, kinds, modes and bytes below PATH, without the
    store's own folders: of locks and temporary files, and of probes (empty)."""
    own = ('.objmap', 'probe', 'run', 'state')
    h = hashlib.sha256()
    for top, dirs, files in os.walk(path):
        dirs[:] = sorted(d for d in dirs if d not in own or os.listdir(os.path.join(top, d))
                         and d == 'probe')
        for name in dirs + sorted(files):
            p = os.path.join(top, name)
            st = os.lstat(p)
            h.update(('%s %o\n' % (os.path.relpath(p, path), st.st_mode)).encode())
            if stat.S_ISREG(st.st_mode):
                with open(p, 'rb') as f:
                    h.update(f.read())
    return h.hexdigest()


class BadInput(World):
    def setUp(self):
        super().setUp()
        self.place = 'dir:' + self.path('vol')
        self.head = self.path('vol/head')

    def create(self, size='4M'):
        self.objmap('create', self.place, '--size', size, '--chunk-size', '64K')

    def refused(self, status, says, *args, **kw):
        before = tree(self.dir)
        p = self.objmap(*args, status=status, **kw)
        message = p.stderr.decode()
        for s in says if isinstance(says, tuple) else (says,):
            self.assertIn(s, message)
        for line in message.splitlines():
            self.assertTrue(line.startswith('objmap: '), message)
        self.assertEqual(tree(self.dir), before, 'something was changed: %s' % (args,))
        return message

    def image(self, size, name='image'):
        with open(self.path(name), 'wb') as f:
            f.write(os.urandom(size))
        return self.path(name)

    def every_verb_on(self, place, status, says, without=()):
        image = self.image(1 << 16)
        for args in (['info', place], ['info', place, '--map'],
                     ['verify', place], ['gc', place, '--grace', '0'],
                     ['delete', place, '--yes'], ['resize', place, '8M'],
                     ['snapshot', 'create', place, 'n'], ['snapshot', 'list', place],
                     ['snapshot', 'delete', place + '@n'],
                     ['rollback', place + '@n', '--yes'],
                     ['clone', place + '@n', 'dir:' + self.path('new')],
                     ['mount', place, 'nbd+unix:///?socket=' + self.path('s')],
                     ['copy', place, self.path('out')],
                     ['copy', image, place, '--overwrite']):
            if args[0] in without or ' '.join(args[:2]) in without:
                continue
            with self.subTest(verb=args):
                self.refused(status, says, *args)

    def test_sizes_out_of_range(self):
        for args, says in (
                (['--size', '0'], 'must be at least 1 B'),
                (['--size', '64T', '--chunk-size', '32K'], 'between 64 KiB and 64 MiB'),
                (['--size', '1M', '--chunk-size', '128M'], 'between 64 KiB and 64 MiB'),
                (['--size', '1M', '--chunk-size', '96K'], 'power of two'),
                (['--size', '2P'], 'a larger --chunk-size allows more'),
                (['--size', '1.5Q'], 'takes a size'),
                ([], 'create takes --size')):
            with self.subTest(args=args):
                self.refused(2, says, 'create', self.place, *args)
        self.create()
        for size, says in (('0', 'must be between'), ('128T', 'must be between'), ('x', 'no size')):
            with self.subTest(resize=size):
                self.refused(2, says, 'resize', self.place, size)

    def test_a_volume_that_exists(self):
        self.create()
        image = self.image(1 << 16)
        self.refused(1, 'objmap delete ' + self.place, 'create', self.place,
                     '--size', '1M')
        self.refused(1, '--overwrite', 'copy', image, self.place)
        self.objmap('snapshot', 'create', self.place, 'n')
        self.refused(1, 'n', 'snapshot', 'create', self.place, 'n')
        self.objmap('create', 'dir:' + self.path('other'), '--size', '1M')
        self.refused(1, 'choose another place', 'clone', self.place + '@n',
                     'dir:' + self.path('other'))

    def test_a_volume_that_does_not_exist(self):
        self.every_verb_on(self.place, 1, self.path('vol'),
                           without=('copy ' + self.path('image'),))
        os.mkdir(self.path('vol'))
        self.every_verb_on(self.place, 1, 'no volume',
                           without=('copy ' + self.path('image'),))
        self.refused(1, 'no volume', 'mount', self.place, self.path('file'))
        self.assertEqual(os.listdir(self.path('vol')), [])

    def test_a_snapshot_that_does_not_exist(self):
        self.create()
        for args in (['info', self.place + '@n'], ['rollback', self.place + '@n', '--yes'],
                     ['clone', self.place + '@n', 'dir:' + self.path('new')],
                     ['snapshot', 'delete', self.place + '@n'],
                     ['copy', self.place + '@n', self.path('out')],
                     ['verify', self.place + '@n']):
            with self.subTest(args=args):
                self.refused(1, 'no snapshot', *args)

    def damage(self, change):
        """Stores CHANGE(head's bytes) as head, in a file the store accepts."""
        with open(self.head, 'rb') as f:
            whole = f.read()
        head = bytearray(whole)
        change(head)
        with open(self.head, 'wb') as f:
            f.write(head)

    def test_a_damaged_head(self):
        self.create()

        def flip(head):
            head[40] ^= 1
        self.damage(flip)
        self.every_verb_on(self.place, 1, self.place)

    def test_a_head_that_is_cut(self):
        self.create()

        def cut(head):
            del head[50:]
        self.damage(cut)
        self.every_verb_on(self.place, 1, self.place)

    def test_a_newer_version(self):
        self.create()

        def newer(head):
            # objmap-volume(5): 8 bytes of magic, then the version; a CRC32C of
            # all before it ends the head.
            end = head_end(head)
            struct.pack_into('<I', head, 8, 2)
            struct.pack_into('<I', head, end - 4, crc32c(head[:end - 4]))
        self.damage(newer)
        self.every_verb_on(self.place, 1, 'newer')

    def test_a_full_disk_changes_no_volume_that_is_there(self):
        d = self.tmpfs('small', 2 << 20)
        self.place, self.head = 'dir:' + d + '/vol', d + '/vol/head'
        self.create()
        self.objmap('copy', '-q', '--overwrite', self.image(1 << 19), self.place)
        self.objmap('snapshot', 'create', self.place, 'n')
        self.fill_up(d)
        image = self.image(1 << 20)
        where = 'nbd+unix:///?socket=' + self.path('s')
        for args in (['create', 'dir:' + d + '/new', '--size', '1M'],
                     ['snapshot', 'create', self.place, 'two'],
                     ['snapshot', 'delete', self.place + '@n'],
                     ['clone', self.place + '@n', 'dir:' + d + '/new'],
                     ['rollback', self.place + '@n', '--yes'],
                     ['resize', self.place, '8M'],
                     ['mount', self.place, where],
                     ['delete', self.place, '--yes'],
                     ['copy', image, self.place, '--overwrite'],
                     ['copy', image, 'dir:' + d + '/new'],
                     ['copy', image, d + '/file']):
            with self.subTest(args=args):
                before = tree(d)
                p = self.objmap(*args, status=1)
                self.assertIn('No space left', p.stderr.decode())
                for made in 'new', 'file':	# an empty folder or file may be left
                    self.clear(d + '/' + made)
                self.assertEqual(tree(d), before, 'something was changed')
        os.unlink(d + '/filler')
        self.objmap('verify', '-q', self.place)
        self.objmap('mount', self.place, where)
        self.objmap('umount', where)

    def fill_up(self, folder):
        with open(folder + '/filler', 'wb', buffering=0) as f:
            try:
                while f.write(bytes(4096)):
                    pass
            except OSError:
                pass

    def test_a_flush_that_found_no_room_finds_it_once_there_is_some(self):
        d = self.tmpfs('small', 12 << 20)
        self.place, where = 'dir:' + d + '/vol', 'nbd+unix:///?socket=' + self.path('s')
        self.objmap('create', self.place, '--size', '16M')
        with open(d + '/filler', 'wb') as f:
            f.write(bytes(6 << 20))
        self.objmap('mount', self.place, where)
        client = nbd.NBD()
        client.connect_uri(where)
        client.pwrite(b'w' * (8 << 20), 0)
        for _ in range(3):		# whatever it could store, it takes back
            with self.assertRaises(nbd.Error):
                client.flush()
        os.unlink(d + '/filler')
        client.flush()
        client.shutdown()
        self.objmap('umount', where)
        self.objmap('verify', '-q', self.place)

    def test_gc_makes_room_though_a_killed_writer_cannot_be_closed(self):
        d = self.tmpfs('small', 12 << 20)
        self.place, where = 'dir:' + d + '/vol', 'nbd+unix:///?socket=' + self.path('s')
        self.objmap('create', self.place, '--size', '4M')
        for _ in range(2):
            self.objmap('copy', '-q', '--overwrite', self.image(4 << 20), self.place)
        self.objmap('mount', self.place, where)
        pid = json.loads(self.objmap('status', where, '--json').stdout)['pid']
        os.kill(pid, signal.SIGKILL)
        wait_gone(pid)
        self.fill_up(d)
        p = self.objmap('gc', self.place, '--grace', '0s', '--json')
        self.assertIn('could not be closed', p.stderr.decode())
        self.assertGreaterEqual(json.loads(p.stdout)['deleted'], 4)
        self.objmap('gc', self.place, '--grace', '0s')
        self.objmap('verify', '-q', self.place)
        self.objmap('mount', self.place, where)
        self.objmap('umount', where)

    def clear(self, path):
        """Takes away what holds not one byte, and no volume."""
        if os.path.isfile(path):
            self.assertEqual(os.path.getsize(path) % 4096, 0, 'a piece of a file')
            os.unlink(path)
        elif os.path.isdir(path):
            self.assertNotIn('head', os.listdir(path))
            shutil.rmtree(path)

    def test_a_full_disk(self):
        d = self.tmpfs('small', 2 << 20)
        image = self.image(4 << 20)
        self.place = 'dir:' + d + '/vol'
        with open(d + '/filler', 'wb') as f:
            f.write(bytes(1 << 20))
        p = self.objmap('copy', image, self.place, '--chunk-size', '64K', status=1)
        self.assertIn('No space left', p.stderr.decode())
        self.assertIn('--resume', p.stderr.decode())
        p = self.objmap('copy', image, d + '/file', status=1)
        self.assertIn('No space left', p.stderr.decode())
        os.unlink(d + '/filler')
        os.unlink(d + '/file')
        # What is there is not taken for a volume.
        p = self.objmap('mount', self.place, 'nbd+unix:///?socket=' + self.path('s'),
                        status=1)
        self.assertIn('was cut', p.stderr.decode())

    def test_a_directory_that_cannot_be_written(self):
        require('root')
        nobody = pwd.getpwnam('nobody')
        self.create()
        image = self.image(1 << 16)
        # Something that gc would have to delete.
        for _ in range(2):
            self.objmap('copy', '-q', '--overwrite', self.image(1 << 16), self.place)
        self.objmap('snapshot', 'create', self.place, 'old')
        found = json.loads(self.objmap('gc', self.place, '--grace', '0', '--dry-run',
                                       '--json').stdout)
        self.assertGreater(found['deleted'], 0)
        shutil.rmtree(self.path('run'))
        os.mkdir(self.path('run'), 0o700)
        os.chown(self.path('run'), nobody.pw_uid, nobody.pw_gid)
        os.chmod(self.dir, 0o755)
        os.chmod(image, 0o644)

        def as_nobody():
            os.setgroups([])
            os.setgid(nobody.pw_gid)
            os.setuid(nobody.pw_uid)
        env = dict(self.env, OBJMAP_STATE='/tmp')
        program = self.program_for_all()
        for args in (['create', 'dir:' + self.path('new'), '--size', '1M'],
                     ['snapshot', 'create', self.place, 'n'],
                     ['resize', self.place, '8M'],
                     ['delete', self.place, '--yes'],
                     ['copy', image, self.place, '--overwrite'],
                     ['copy', image, self.path('out')],
                     ['snapshot', 'delete', self.place + '@old'],
                     ['clone', self.place + '@old', 'dir:' + self.path('new')],
                     ['gc', self.place, '--grace', '0']):
            with self.subTest(args=args):
                message = self.refused(1, 'ermission denied', *args, env=env,
                                       program=program, preexec_fn=as_nobody)
                self.assertIn(self.dir, message)

    def on_kind(self, magic):
        """The environment of a program for which all files lie on such a file system."""
        library = self.path('fake-statfs.so')
        if not os.path.exists(library):
            require('gcc')
            self.run_ok('gcc', '-shared', '-fPIC', '-o', library,
                        fixtures.TOP + '/tests/cmd/fake-statfs.c', '-ldl')
        return dict(self.env, LD_PRELOAD=library, FAKE_STATFS=hex(magic))

    # The kernel's numbers of them; FUSE may be anything.
    NETWORK = {'NFS': 0x6969, 'CIFS': 0xff534d42, 'SMB': 0xfe534d42, 'Ceph': 0xc36400,
               '9P': 0x1021997, 'AFS': 0x5346414f, 'Coda': 0x73757245, 'Lustre': 0xbd00bd0,
               'OCFS2': 0x7461636f, 'GFS2': 0x1161970}
    FUSE, EXT4 = 0x65735546, 0xef53

    def test_a_volume_on_a_network_file_system_needs_a_word(self):
        self.create()
        for name, magic in dict(self.NETWORK, FUSE=self.FUSE).items():
            with self.subTest(kind=name):
                env = self.on_kind(magic)
                for args in (['info', self.place], ['snapshot', 'create', self.place, 'n'],
                             ['create', 'dir:' + self.path('new'), '--size', '1M']):
                    p = self.objmap(*args, status=1, env=env)
                    self.assertIn('is on a network file system (%s)' % name, p.stderr.decode())
                    self.assertIn(b'?network=yes', p.stderr)
                os.rmdir(self.path('new'))
                self.objmap('snapshot', 'create', self.place + '?network=no', name, status=1,
                            env=env)
                self.objmap('snapshot', 'create', self.place + '?network=yes', name, env=env)
        self.objmap('snapshot', 'create', self.place, 'here', env=self.on_kind(self.EXT4))
        names = [s['name'] for s in json.loads(
            self.objmap('snapshot', 'list', self.place, '--json').stdout)]
        self.assertEqual(names, [*self.NETWORK, 'FUSE', 'here'])

    def test_a_state_folder_on_a_network_file_system_is_refused(self):
        self.create()
        with open(self.head, 'rb') as f:
            head = f.read()
        for name, magic in self.NETWORK.items():
            with self.subTest(kind=name):
                p = self.objmap('mount', self.place + '?network=yes',
                                'nbd+unix:///?socket=' + self.path('s'), status=1,
                                env=self.on_kind(magic))
                self.assertIn(b'state folder ' + self.path('state').encode() +
                              b' is on a network file system (%s)' % name.encode(), p.stderr)
                self.assertIn(b'--state DIR', p.stderr)
        with open(self.head, 'rb') as f:
            self.assertEqual(f.read(), head, 'it was claimed')

    def test_a_second_writer(self):
        self.create()
        image = self.image(1 << 16)
        sock = 'nbd+unix:///?socket=' + self.path('s')
        holder = self.start(OBJMAP, 'mount', self.place, sock, '--foreground',
                            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wait_for(lambda: os.path.exists(self.path('s')), 'the mount')

        def info():
            out = self.objmap('info', self.place, '--json').stdout
            return json.loads(out)['holder']
        wait_for(info, 'the claim')
        says = ('held by', 'pid %d' % holder.pid)
        self.objmap('snapshot', 'create', self.place, 'n')
        for args in (['mount', self.place, 'nbd+unix:///?socket=' + self.path('t')],
                     ['delete', self.place, '--yes'],
                     ['copy', image, self.place, '--overwrite'],
                     ['rollback', self.place + '@n', '--yes']):
            with self.subTest(args=args):
                message = self.refused(1, says, *args)
                # Who wants to delete is not helped by reading.
                if args[0] in ('delete', 'rollback'):
                    self.assertNotIn('--read-only', message)

    def test_bad_names(self):
        self.create()
        for name in ('', 'a/b', 'a@b', 'x' * 129, 'a\nb'):
            with self.subTest(name=name):
                self.refused(2, "cannot be a snapshot's name", 'snapshot', 'create',
                             self.place, name)
        for place, says in (
                (self.path('vol'), "'dir:" + self.path('vol') + "'"),
                ('dire:x', "did you mean 'dir:'?"),
                ('zzzzzz:x', 'a place begins with'),
                ('dir:', "nothing follows 'dir:'"),
                (self.place + '@', 'no snapshot is named'),
                (self.place + '?size=1M', "takes no 'size'"),
                (self.place + '?netwrok=yes', "did you mean 'network'?"),
                ('dir:%zz', 'two hexadecimal digits'),
                ('s3://B/x', 'bucket'),
                ('https://u:p@x/y', 'user and password'),
                ('nbd+unix:///?sockte=x', "did you mean 'socket'?"),
                ('dir:x?network=maybe', "yes or no, not 'maybe'"),
                ('mem:x', 'how large'), ('mem:x?size=lots', "not 'lots'"),
                ('mem:x?size=1M&chunk-size=3M', "not '3M'"),
                ('s3://bucket/x?connections=none', 'a number between'),
                ('s3://bucket/x?sse-kms-key=k', 'needs sse=aws:kms'),
                ('s3://bucket/x?endpoint-url=nonsense', 'http://HOST'),
                ('s3+object://bucket/x?region=a/b', 'the name of one'),
                ('memory:lots', 'a size such as'),
                ('pattern:0', 'a size such as'),
                ('', 'a place is empty')):
            with self.subTest(place=place):
                self.refused(2, says, 'info', place)
        for args, says in (
                (['create', 'file:x', '--size', '1M'], 'a volume is wanted'),
                (['create', self.place + '@n', '--size', '1M'], 'names a snapshot'),
                (['rollback', self.place, '--yes'], 'VOLUME@NAME is wanted'),
                (['delete', 'mem:x?size=1M', '--yes'], 'lives in the process')):
            with self.subTest(args=args):
                self.refused(2, says, *args)

    def test_what_json_and_nbd_could_not_tell_is_refused(self):
        """Both know UTF-8 only."""
        odd = self.path('caf\udce9')
        where = 'nbd+unix:///?socket=' + self.path('s')
        for says, kw, args in (
                (b'%XX', {}, ['create', 'dir:' + odd, '--size', '1M']),
                (b'is not UTF-8', {}, ['mount', 'memory:1M', odd]),
                (b'is not UTF-8', {'cwd': odd}, ['mount', 'memory:1M', './disk']),
                (b'--description is not UTF-8', {},
                 ['mount', 'memory:1M', where, '--description', 'caf\udce9'])):
            os.makedirs(odd, exist_ok=True)
            with self.subTest(args=args):
                self.assertIn(says, self.objmap(*args, status=2, **kw).stderr)
            self.assertEqual(os.listdir(odd), [])
            os.rmdir(odd)
            self.assertFalse(os.path.lexists(odd))
        os.mkdir(odd)
        self.objmap('create', 'dir:' + self.path('caf%e9') + '/vol', '--size', '1M')
        self.assertTrue(os.path.isdir(odd + '/vol'))
        # A plain file may be called as it likes.
        image = self.image(1 << 16)
        said = json.loads(self.objmap('copy', image, odd + '/image', '--json').stdout)
        self.assertEqual(said['destination'], self.path('caf?/image'))
        said = json.loads(self.objmap('config', '--json', env=dict(
            self.env, OBJMAP_STATE=odd)).stdout)
        self.assertEqual(said['state']['value'], self.path('caf?'))

    def test_options_of_a_server_that_do_not_go_together(self):
        image, where = self.image(1 << 16), 'nbd+unix:///?socket=' + self.path('s')
        vol, key = 's3://bucket/vol', 's3+object://bucket/key'
        for given, says in (
                (['--sse-kms-key', 'k'], 'needs sse=aws:kms'),
                (['--sse', 'AES256', '--sse-kms-key', 'k'], 'needs sse=aws:kms'),
                (['--sse', 'aws:kms', '--sse-c-key-file', image], 'choose one'),
                (['--no-sign-request', '--profile', 'p'], 'choose one'),
                (['--endpoint-url', 'nonsense'], 'http://HOST'),
                (['--region', 'a/b'], 'the name of one')):
            for args in (['info', vol], ['info', key], ['verify', vol], ['gc', vol],
                         ['gc', key], ['create', vol, '--size', '1M'], ['doctor', vol],
                         ['delete', vol, '--yes'], ['list', 's3://bucket/'],
                         ['snapshot', 'create', vol, 'n'],
                         ['clone', vol + '@n', vol + '2'],
                         ['copy', vol, self.path('out')], ['copy', image, vol],
                         ['copy', key, self.path('out')],
                         ['mount', vol, where], ['mount', key, where]):
                with self.subTest(args=args + given):
                    self.refused(2, says, *args, *given)

    def test_nothing_is_deleted_without_a_yes(self):
        self.create()
        self.objmap('snapshot', 'create', self.place, 'n')
        self.refused(2, '--yes', 'delete', self.place)
        self.refused(2, '--yes', 'rollback', self.place + '@n')
        self.refused(2, '--yes', 'resize', self.place, '1M')


def crc32c(data):
    crc = 0xffffffff
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82f63b78 if crc & 1 else 0)
    return crc ^ 0xffffffff


def head_end(whole):
    """Where the head's own bytes end in the store's file: the prefix whose last
    four bytes are the CRC32C of what comes before them."""
    crc = 0xffffffff
    for end, byte in enumerate(whole):
        if end >= 16 and end + 4 <= len(whole) and \
                crc ^ 0xffffffff == struct.unpack_from('<I', whole, end)[0]:
            return end + 4
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82f63b78 if crc & 1 else 0)
    raise AssertionError('no CRC32C in head')


if __name__ == '__main__':
    fixtures.main()
