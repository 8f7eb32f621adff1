"""The README's first command: contrib/demo.sh without arguments, on a volume in a folder."""
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '..'))
import fixtures
from fixtures import World, require


class Demo(World):
    def test_the_demo_runs_in_a_folder_of_its_own(self):
        require('fuse', 'mke2fs', 'debugfs', 'e2fsck', 'nbdinfo')
        said = fixtures.run_demo(self)
        self.assertNotIn('is deleted', said)


if __name__ == '__main__':
    fixtures.main()
