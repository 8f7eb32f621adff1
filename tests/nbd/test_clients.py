#!/usr/bin/python3
"""The programs that people use: nbdinfo, nbdcopy, qemu-img, qemu-io, fio, nbdfuse."""
import json
import os
import random
import shutil
import subprocess
import time

from serving import SEED, Server, World, main, pattern, require, wait_for

MIB = 1 << 20


def holey_file(path, size):
    """Random data with holes, from the seed."""
    r = random.Random(SEED)
    with open(path, 'wb') as f:
        f.truncate(size)
        for at in range(0, size, MIB):
            if r.random() < 0.5:
                f.seek(at)
                f.write(r.randbytes(MIB // 2))


class Clients(World):
    def same(self, a, b):
        self.run_ok('cmp', a, b)

    def test_nbdinfo(self):
        server = Server(self, 'memory:10M', '--export', 'one:the first', '--export', 'two')
        told = json.loads(self.run_ok('nbdinfo', '--json', server.uri('one')).stdout)
        export = told['exports'][0]
        self.assertEqual((export['export-name'], export['description'], export['export-size']),
                         ('one', 'the first', 10 * MIB))
        self.assertEqual(export['contexts'], ['base:allocation'])
        self.assertEqual(export['block_size_maximum'], 64 * MIB)
        self.assertTrue(export['can_multi_conn'] and export['can_fast_zero'] and
                        export['can_cache'] and export['can_df'] and export['can_fua'])
        listed = json.loads(self.run_ok('nbdinfo', '--json', '--list', server.uri()).stdout)
        self.assertEqual([e['export-name'] for e in listed['exports']], ['one', 'two'])
        parts = json.loads(self.run_ok('nbdinfo', '--map', '--json', server.uri('one')).stdout)
        self.assertEqual([(e['offset'], e['length'], e['type']) for e in parts],
                         [(0, 10 * MIB, 3)])
        self.assertEqual(self.run_ok('nbdinfo', '--size', server.uri('two')).stdout,
                         b'%d\n' % (10 * MIB))

    def test_nbdcopy_both_ways(self):
        server = Server(self, 'memory:64M')
        holey_file(self.path('in'), 64 * MIB)
        self.run_ok('nbdcopy', '--flush', self.path('in'), server.uri())
        self.run_ok('nbdcopy', server.uri(), self.path('out'))
        self.same(self.path('in'), self.path('out'))
        parts = json.loads(self.run_ok('nbdinfo', '--map', '--json', server.uri()).stdout)
        self.assertGreater(len(parts), 2, 'holes stayed holes')

    def test_nbdcopy_of_a_pattern(self):
        server = Server(self, 'pattern:8M')
        self.run_ok('nbdcopy', '--connections=4', '--requests=16', server.uri(), self.path('out'))
        with open(self.path('out'), 'rb') as f:
            self.assertTrue(f.read() == pattern(0, 8 * MIB))

    def test_a_file_behind_it(self):
        holey_file(self.path('disk'), 16 * MIB)
        server = Server(self, 'file:' + self.path('disk'))
        self.run_ok('nbdcopy', server.uri(), self.path('out'))
        self.same(self.path('disk'), self.path('out'))
        self.run_ok('qemu-io', '-f', 'raw', '-c', 'write -f -P 7 1M 64k', '-c',
                    'read -P 7 1M 64k', '-c', 'discard 2M 1M', '-c', 'flush', server.uri())

    def test_qemu_img(self):
        server = Server(self, 'memory:64M', '--export', 'disk')
        told = json.loads(self.run_ok('qemu-img', 'info', '--output=json',
                                      server.uri('disk')).stdout)
        self.assertEqual(told['virtual-size'], 64 * MIB)
        holey_file(self.path('in'), 64 * MIB)
        self.run_ok('qemu-img', 'convert', '-n', '-f', 'raw', '-O', 'raw', '-W', '-m', '16',
                    self.path('in'), server.uri('disk'))
        self.run_ok('qemu-img', 'compare', '-f', 'raw', '-F', 'raw', self.path('in'),
                    server.uri('disk'))
        parts = json.loads(self.run_ok('qemu-img', 'map', '-f', 'raw', '--output=json',
                                       server.uri('disk')).stdout)
        self.assertTrue(any(p['zero'] for p in parts) and any(p['data'] for p in parts))
        self.run_ok('qemu-img', 'convert', '-f', 'raw', '-O', 'qcow2', server.uri('disk'),
                    self.path('out.qcow2'))
        self.run_ok('qemu-img', 'compare', '-f', 'raw', '-F', 'qcow2', self.path('in'),
                    self.path('out.qcow2'))

    def test_qemu_io(self):
        server = Server(self, 'memory:64M')
        said = self.run_ok('qemu-io', '-f', 'raw', '-c', 'write -P 1 3 100000', '-c',
                           'write -z 1000 5000', '-c', 'read -P 0 1000 5000', '-c',
                           'read -P 1 6000 94003', '-c', 'write -z -u 1M 20M', '-c',
                           'aio_write -P 5 30M 16M', '-c', 'aio_read -P 1 6000 512',
                           '-c', 'aio_flush', '-c', 'read -P 5 30M 16M', '-c', 'discard 0 64M',
                           '-c', 'flush', server.uri()).stdout
        self.assertNotIn(b'verification failed', said)
        self.assertNotIn(b'rror', said)

    def test_fio_with_verify(self):
        server = Server(self, 'memory:32M')
        for depth, size in ((1, '4k-4k'), (16, '4k-64k'), (64, '512-1m')):
            said = self.run_ok('fio', '--name=v', '--ioengine=nbd', '--uri=' + server.uri(),
                               '--rw=randwrite', '--bsrange=' + size,
                               '--iodepth=%d' % depth, '--size=32M', '--verify=crc32c',
                               '--verify_fatal=1', '--verify_state_save=0',
                               '--do_verify=1', timeout=120)
            self.assertNotIn(b'verify:', said.stderr)

    def test_fio_with_several_connections(self):
        server = Server(self, 'memory:32M')
        self.run_ok('fio', '--name=v', '--ioengine=nbd', '--uri=' + server.uri(),
                    '--rw=randrw', '--bs=4k', '--iodepth=8', '--size=4M', '--offset_increment=4M',
                    '--numjobs=8', '--thread', '--verify=crc32c', '--verify_fatal=1', '--verify_state_save=0',
                               timeout=120)
        wait_for(lambda: server.status()['clients'] == 0, 'all to be gone')

    def test_nbdfuse(self):
        require('fuse')
        server = Server(self, 'memory:16M')
        folder = self.path('m')
        os.mkdir(folder)
        self.mounts.append(folder)
        self.start('nbdfuse', folder + '/disk', server.uri(), stderr=subprocess.DEVNULL)
        wait_for(lambda: os.path.exists(folder + '/disk'), 'nbdfuse')
        holey_file(self.path('in'), 16 * MIB)
        with open(self.path('in'), 'rb') as source, open(folder + '/disk', 'r+b') as disk:
            shutil.copyfileobj(source, disk, 128 * 1024)
            disk.flush()
            os.fsync(disk.fileno())
        self.same(self.path('in'), folder + '/disk')
        self.run_ok('fusermount3', '-u', folder)
        self.run_ok('nbdcopy', server.uri(), self.path('out'))
        self.same(self.path('in'), self.path('out'))


class Idle(World):
    def test_an_idle_server_uses_no_cpu(self):
        server = Server(self, 'memory:16M')
        raw = server.raw().ready()
        for _ in range(1000):
            self.assertEqual(raw.do(0, 0, 4096), 0)
        time.sleep(1.5)		# it gives its memory back meanwhile
        self.assertTrue(server.uses_no_cpu(2, 0.02))


if __name__ == '__main__':
    main()
