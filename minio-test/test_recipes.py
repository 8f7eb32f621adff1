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


if __name__ == '__main__':
    fixtures.main()
