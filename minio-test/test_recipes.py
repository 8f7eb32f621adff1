#!/usr/bin/python3
"""The recipes do what they say, on a MinIO of the environment and on one of their own."""
import os
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)
import world  # noqa: E402
import fixtures  # noqa: E402

RECIPES = os.path.join(fixtures.TOP, 'contrib', 'recipes')


class Recipes(world.MinioWorld):
    def recipe(self, name, *args, status=0, env=None, timeout=300):
        env = dict(self.env if env is None else env, OBJMAP=fixtures.OBJMAP,
                   RESCUE=os.path.join(fixtures.BUILD, 'objmap-rescue'),
                   TMPDIR=self.dir)
        p = subprocess.run([os.path.join(RECIPES, name), *args], env=env, timeout=timeout,
                           stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                           stderr=subprocess.STDOUT)
        said = p.stdout.decode(errors='replace')
        self.assertEqual(p.returncode, status, said)
        return said

    def assert_clean(self):
        left = [name for name in os.listdir(self.dir) if name.startswith('tmp.')]
        self.assertEqual(left, [])

    def test_backup_restore_on_a_given_server(self):
        fixtures.require('fuse')
        said = self.recipe('backup-restore.sh', env=dict(self.env, BUCKET=self.bucket))
        self.assertEqual(said.count("every byte is Monday's"), 2)
        self.assertIn('both name the chunk', said)
        self.assertEqual(self.s3.keys(self.bucket), [])
        self.assert_clean()

    def test_backup_restore_of_a_folder_with_a_server_of_its_own(self):
        fixtures.require('fuse')
        os.mkdir(self.path('mine'))
        with open(self.path('mine/some file'), 'wb') as f:
            f.write(os.urandom(300000))
        env = {k: v for k, v in self.env.items() if not k.startswith('AWS_')}
        said = self.recipe('backup-restore.sh', self.path('mine'), env=env)
        self.assertIn('some file is as it was', said)
        self.assertIn('both name the chunk', said)
        self.assert_clean()

    def test_backup_restore_fails_where_the_server_does(self):
        env = dict(self.env, AWS_ENDPOINT_URL_S3='http://127.0.0.1:%d' % fixtures.free_port())
        said = self.recipe('backup-restore.sh', env=env, status=1)
        self.assertIn('refused', said)
        self.assertNotIn('Traceback', said)
        self.assert_clean()

    def folder(self):
        os.mkdir(self.path('files'))
        with open(self.path('files/answer'), 'w') as f:
            f.write('forty-two')
        return self.path('files')

    def test_ci_gives_a_job_its_disk_and_takes_it_down(self):
        fixtures.require('fuse', 'mke2fs', 'debugfs')
        env = {k: v for k, v in self.env.items() if not k.startswith('AWS_')}
        said = self.recipe('ci.sh', self.folder(), env=dict(env, SIZE='64M'))
        self.assertIn('answer', said)
        self.assert_clean()

    def test_ci_ends_as_its_job_does_on_a_given_server(self):
        fixtures.require('fuse', 'mke2fs', 'debugfs')
        said = self.recipe('ci.sh', self.folder(), 'sh', '-c',
                           'debugfs -R "cat answer" "$OBJMAP_WHERE" 2>/dev/null; '
                           'test "$OBJMAP_WHERE" = {} && exit 7', status=7,
                           env=dict(self.env, BUCKET=self.bucket, SIZE='64M'))
        self.assertIn('forty-two', said)
        keys = list(self.s3.keys(self.bucket))
        self.assertEqual([k.rsplit('/', 1)[1] for k in keys], ['head'])
        self.assert_clean()

    def test_ci_refuses_what_is_no_folder(self):
        self.assertIn('no folder', self.recipe('ci.sh', '/etc/passwd', status=2))
        self.assertIn('FOLDER', self.recipe('ci.sh', status=2))


if __name__ == '__main__':
    fixtures.main()
