"""The runtime and the state folder of an ordinary user: where they are, whose
they must be."""
import json
import os
import shutil
import stat
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '..'))
import fixtures
from fixtures import World, require, wait_gone

USER = 100000 + os.getpid() % 100000	# nobody, and no other run's


class Folders(World):
    def setUp(self):
        super().setUp()
        require('root')
        self.fallback = '/tmp/objmap-%d' % USER
        self.remove_fallback()
        self.addCleanup(self.remove_fallback)
        self.program = self.program_for_all()
        os.chmod(self.dir, 0o711)
        self.home = self.path('home')
        self.folder(self.home)
        self.where = 'nbd+unix:///?socket=' + self.home + '/sock'
        for name in list(self.env):
            if name.startswith('OBJMAP') or name.startswith('XDG_'):
                del self.env[name]
        self.env['HOME'] = self.home
        self.place = 'dir:' + self.home + '/vol'
        self.run_as('create', self.place, '--size', '1M')

    def folder(self, path, owner=USER, mode=0o700):
        os.mkdir(path)
        os.chown(path, owner, owner)
        os.chmod(path, mode)
        return path

    def remove_fallback(self):
        if os.path.islink(self.fallback):
            os.unlink(self.fallback)
        shutil.rmtree(self.fallback, ignore_errors=True)

    def run_as(self, *args, status=0, **env):
        return self.objmap(*args, status=status, program=self.program, user=USER, group=USER,
                           extra_groups=[], cwd=self.home, env=dict(self.env, **env))

    def mount(self, **env):
        """Mounts and unmounts; returns where the control socket was, and checks
        that none but the user can get there."""
        self.run_as('mount', self.place, self.where, '--log', self.home + '/log', **env)
        pid = json.loads(self.run_as('status', self.where, '--json', **env).stdout)['pid']
        self.pids.append(pid)
        with open('/proc/net/unix') as f:
            sockets = [line.split()[7] for line in f if len(line.split()) > 7]
        found = {os.path.dirname(s) for s in sockets
                 if s.startswith((self.dir + '/', self.fallback)) and
                 len(os.path.basename(s)) == 16}
        self.assertEqual(len(found), 1, found)
        folder = found.pop()
        st = os.stat(folder)
        self.assertEqual((st.st_uid, stat.S_IMODE(st.st_mode)), (USER, 0o700))
        self.run_as('umount', self.where, **env)
        wait_gone(pid)
        return folder

    def test_they_are_where_xdg_says(self):
        run, state = self.folder(self.path('xdg-run')), self.folder(self.path('xdg-state'))
        self.assertEqual(self.mount(XDG_RUNTIME_DIR=run, XDG_STATE_HOME=state),
                         run + '/objmap')
        st = os.stat(state + '/objmap')
        self.assertEqual((st.st_uid, stat.S_IMODE(st.st_mode)), (USER, 0o700))
        self.assertFalse(os.path.exists(self.fallback))
        self.assertFalse(os.path.exists(self.home + '/.local'))

    def test_without_it_they_are_in_tmp_and_at_home(self):
        self.assertEqual(self.mount(), self.fallback)
        st = os.stat(self.home + '/.local/state/objmap')
        self.assertEqual((st.st_uid, stat.S_IMODE(st.st_mode)), (USER, 0o700))

    def test_the_variables_of_objmap_come_first(self):
        run = self.folder(self.path('xdg'))
        self.assertEqual(self.mount(XDG_RUNTIME_DIR=run, XDG_STATE_HOME=run,
                                    OBJMAP_RUNTIME_DIR=self.home + '/r',
                                    OBJMAP_STATE=self.home + '/s'), self.home + '/r')
        self.assertTrue(os.path.isdir(self.home + '/s'))
        self.assertEqual(os.listdir(run), [])

    def test_a_runtime_folder_that_is_not_safe_is_refused(self):
        """In /tmp anybody could have made it."""
        self.folder(self.path('mine'))

        def link():
            os.symlink(self.path('mine'), self.fallback)
        for what, make in (
                ("another's", lambda: self.folder(self.fallback, owner=USER + 1, mode=0o777)),
                ("root's", lambda: self.folder(self.fallback, owner=0)),
                ('open to its group', lambda: self.folder(self.fallback, mode=0o770)),
                ('open to all', lambda: self.folder(self.fallback, mode=0o777)),
                ('a link', link),
                ('a file', lambda: open(self.fallback, 'w').close())):
            with self.subTest(what=what):
                make()
                p = self.run_as('mount', self.place, self.where, status=1)
                self.assertIn('runtime folder ' + self.fallback, p.stderr.decode())
                self.assertIn('OBJMAP_RUNTIME_DIR', p.stderr.decode())
                self.assertFalse(os.path.exists(self.home + '/sock'))
                self.remove_fallback()
                if os.path.exists(self.fallback):
                    os.unlink(self.fallback)
        self.assertIsNone(json.loads(
            self.run_as('info', self.place, '--json').stdout)['holder'])
        self.assertEqual(self.mount(), self.fallback)


if __name__ == '__main__':
    fixtures.main()
