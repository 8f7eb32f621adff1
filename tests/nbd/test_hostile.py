#!/usr/bin/python3
"""Peers that lie, stall, flood and vanish cost themselves only: beside each of
them a well-behaved client keeps working.  And what clients cost in memory."""
import os
import random
import socket
import struct
import threading
import time

from serving import (ABORT, ACK, Closed, DISC, EINVAL, GO, INFO, LIST, READ, Raw, SEED, STATUS,
                     STRUCTURED, Server, UNSUP, WRITE, World, main, pattern, wait_for)

MIB = 1 << 20


class Beside(threading.Thread):
    """Somebody who only wants to work: reads and checks until told to stop."""

    def __init__(self, server):
        super().__init__(daemon=True)
        self.raw = server.raw().ready()
        self.rounds = 0
        self.slowest = 0.0
        self.error = None
        self.end = False

    def run(self):
        try:
            while not self.end:
                start = time.monotonic()
                data = struct.pack('>Q', self.rounds) * 64
                assert self.raw.do(WRITE, 4096, 512, payload=data) == 0
                assert self.raw.do(READ, 4096, 512) == 0 and self.raw.data == data
                self.slowest = max(self.slowest, time.monotonic() - start)
                self.rounds += 1
                time.sleep(0.001)
        except BaseException as error:	# the test looks at it
            self.error = error


class Hostile(World):
    def serve(self, place='memory:16M', *args):
        self.server = Server(self, place, *args)

        def join():
            try:
                return Beside(self.server)
            except (Closed, OSError):	# a machine that stalls: its time to greet was over
                return None
        self.beside = wait_for(join, 'the client beside')
        self.beside.start()
        self.addCleanup(self.finish)

    def finish(self):
        self.beside.end = True
        self.beside.join(20)

    def check_beside(self):
        """The well-behaved client goes on and was never kept waiting for as long as a
        peer that holds memory may stall."""
        before = self.beside.rounds
        wait_for(lambda: self.beside.rounds > before + 20 or self.beside.error,
                 'the client beside')
        self.assertIsNone(self.beside.error)
        self.assertLess(self.beside.slowest, 9)
        self.assertIsNone(self.server.process.poll())

    def gone(self):
        """All the others are gone, and what they held."""
        self.check_beside()
        self.finish()
        self.beside.raw.close()
        wait_for(lambda: (s := self.server.status())['clients'] == 0 and
                 s['bytes_in_flight'] == 0, 'the end of all clients')
        self.server.stop()

    def insist(self, work):
        """WORK with a new connection; again with another one where the server has cut it
        off, for it hardly went on: so does anybody on a machine that stalls."""
        for _ in range(5):
            raw = self.server.raw().ready()
            raw.s.settimeout(90)
            try:
                return work(raw)
            except (Closed, ConnectionError):
                self.assertIn(b'hardly goes on', self.server.output())
            finally:
                raw.close()
        self.fail('cut off again and again')

    def test_garbage_at_every_stage(self):
        self.serve()
        r = random.Random(SEED)
        for n in range(200):
            raw = self.server.raw(greet=n % 4 != 0)
            try:
                if n % 4 == 2:
                    raw.ready(structured=n % 8 == 2)
                raw.put(r.randbytes(r.choice((1, 27, 28, 29, 4096, 70000))))
            except (OSError, Closed):
                pass
            raw.close()
        self.gone()

    def test_requests_mutated_at_random(self):
        """Well-formed magic, everything else drawn; the server answers or closes.
        The first MiB is left to the client beside."""
        self.serve()
        r = random.Random(SEED)
        for _ in range(40):
            raw = self.server.raw().ready(structured=r.random() < 0.5)
            raw.s.settimeout(0.2)
            try:
                for _ in range(50):
                    count = r.choice((0, 1, 512, 65536, MIB, 64 * MIB, (1 << 32) - 1))
                    command = r.choice((0, 0, 1, 3, 4, 5, 6, 7, 8, 77))
                    raw.send(command, r.choice((MIB, MIB + 1, 16 * MIB - 1, (1 << 64) - 1)), count,
                             r.choice((0, 0, 0, 1, 2, 4, 8, 16, 0xffff)),
                             payload=bytes(count) if command == WRITE and count <= MIB else b'')
            except (OSError, Closed):
                pass
            raw.close()
        self.gone()

    def test_options_that_lie_about_their_length(self):
        self.serve()
        for length in (1, 16, 65535, 65536, 1 << 20, (1 << 32) - 1):
            for option in (LIST, INFO, GO, STRUCTURED, 1, 10, 99):
                raw = self.server.raw()
                raw.option(option, b'\0' * 16, length)
                raw.close()
        self.gone()

    def test_a_flood_of_options_ends(self):
        self.serve()
        raw = self.server.raw()
        with self.assertRaises((Closed, OSError)):
            for _ in range(5000):
                self.assertEqual(raw.ask(99)[0][0], UNSUP)
        raw.close()
        raw = self.server.raw()
        with self.assertRaises((Closed, OSError)):	# by bytes
            for _ in range(100):
                raw.ask(99, b'x' * 30000)
        raw.close()
        self.gone()

    def test_a_client_that_does_not_read_option_replies(self):
        self.serve()
        before = self.server.resident()
        raw = self.server.raw()
        raw.s.settimeout(0.5)
        with self.assertRaises((Closed, OSError)):
            for _ in range(100000):
                raw.option(LIST)
        self.assertLess(self.server.resident() - before, 8 * 1024)
        raw.close()
        self.gone()

    def test_who_ends_a_handshake_and_does_not_read_its_end_is_ended(self):
        def abort(raw):
            raw.option(ABORT)

        def half_close(raw):
            raw.s.shutdown(socket.SHUT_WR)

        def begin(raw):
            raw.option(GO, struct.pack('>IcH', 1, b'x', 0))

        for end in abort, half_close, begin:
            ours, theirs = socket.socketpair()
            theirs.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4608)
            server = Server(self, 'memory:16M', '--handshake-ms', '700', '--export',
                            'x:' + 'd' * 3000, '--fd', str(theirs.fileno()),
                            pass_fds=[theirs.fileno()])
            theirs.close()
            raw = Raw(ours)
            for _ in range(50):         # more than the socket takes, less than stops it
                raw.option(INFO, struct.pack('>IcHH', 1, b'x', 1, 2))
            end(raw)
            with self.subTest(end=end.__name__):
                wait_for(lambda: server.status()['clients'] == 0, 'its end')
            raw.close()
            server.stop()

    def test_a_stalled_handshake_is_ended(self):
        self.serve('memory:16M', '--handshake-ms', '700')
        start = time.monotonic()
        silent, half, slow = [self.server.raw(greet=False) for _ in range(3)]
        with self.assertRaises(OSError):	# one byte now and then is no excuse
            for raw in half, slow:
                raw.put(struct.pack('>I8sII', 3, b'IHAVEOPT', GO, 60000) + b'\0\0')
            while time.monotonic() < start + 30:
                slow.put(b'a')
                time.sleep(0.05)
        self.assertTrue(silent.closed() and half.closed())
        self.assertLess(time.monotonic() - start, 9, 'the default is 10 s')
        self.check_beside()
        for raw in (silent, half, slow):
            raw.close()

    def test_a_client_that_vanishes_in_a_payload(self):
        self.serve()
        for n in range(50):
            raw = self.server.raw().ready()
            self.assertEqual(raw.do(WRITE, MIB, 16, payload=b'old' * 5 + b'!'), 0)
            raw.send(WRITE, MIB, 4 * MIB, payload=b'new' * (n * 10000))
            raw.close()
        raw = self.server.raw().ready()
        self.assertEqual(raw.do(READ, MIB, 16), 0)
        self.assertEqual(raw.data, b'old' * 5 + b'!', 'half a write is no write')
        raw.close()
        self.gone()

    def test_clients_that_do_not_read_their_replies(self):
        """More of them than the memory of all together holds."""
        self.serve('memory:64M', '--max-bytes', str(64 * MIB), '--max-client-bytes',
                   str(16 * MIB))
        before = self.server.resident()
        rude = [self.server.raw().ready() for _ in range(12)]
        for raw in rude:
            raw.s.settimeout(0.3)
            try:
                for n in range(5000):
                    raw.send(READ, 8 * MIB, 4 * MIB, cookie=n)
            except OSError:
                pass
        self.check_beside()
        self.assertLess(self.server.resident() - before, 160 * 1024)
        for raw in rude:
            raw.close()
        self.gone()

    def test_claimed_payloads_that_never_come(self):
        """They are cut off when others wait for the memory, not before."""
        self.serve('memory:64M', '--max-bytes', str(64 * MIB))
        rude = [self.server.raw().ready() for _ in range(4)]
        for raw in rude:
            raw.send(WRITE, 2 * MIB, 60 * MIB, payload=b'x' * 100)
        time.sleep(0.3)
        self.check_beside()
        self.insist(lambda raw: self.assertEqual(raw.do(READ, 16 * MIB, 16 * MIB), 0))
        for raw in rude:
            raw.close()
        self.gone()

    def test_claimed_payloads_that_come_byte_by_byte(self):
        """A byte now and then keeps no memory that others wait for."""
        self.serve('memory:64M', '--max-bytes', str(64 * MIB))
        rude = [self.server.raw().ready() for _ in range(4)]
        for raw in rude:
            raw.send(WRITE, 2 * MIB, 60 * MIB, payload=b'x' * 100)
        end = threading.Event()

        def drip():
            while not end.wait(0.5):
                for raw in rude:
                    try:
                        raw.put(b'x')
                    except OSError:
                        pass
        dripping = threading.Thread(target=drip, daemon=True)
        dripping.start()
        try:
            self.insist(lambda raw: self.assertEqual(raw.do(READ, 16 * MIB, 16 * MIB), 0))
        finally:
            end.set()
            dripping.join(20)
        for one in rude:
            one.close()
        self.gone()

    def test_many_connections_that_come_and_go(self):
        self.serve()
        for _ in range(1500):
            self.server.raw(greet=False).close()
        self.gone()


class Many(World):
    def test_when_full_the_oldest_handshake_gives_way_else_the_new_one(self):
        server = Server(self, 'memory:1M', '--max-clients', '4')
        working = [server.raw().ready() for _ in range(2)]
        old, young = server.raw(), server.raw()
        third = server.raw().ready()
        self.assertTrue(old.closed())
        self.assertEqual(young.ask(STRUCTURED)[0][0], ACK)
        fourth = server.raw().ready()
        self.assertTrue(young.closed())
        with self.assertRaises(Closed):
            server.raw().ready()
        for raw in working + [third, fourth]:
            self.assertEqual(raw.do(READ, 0, 512), 0)
        working[0].close()

        def room():
            try:
                return server.raw().ready().do(READ, 0, 512) == 0
            except Closed:
                return False
        wait_for(room, 'room for one more')
        status = server.stop()
        self.assertGreaterEqual(status['refused'], 1)
        self.assertEqual(status['evicted'], 2)

    def test_a_thousand_idle_connections_are_cheap(self):
        server = Server(self, 'memory:16M')
        first = server.raw().ready()
        self.assertEqual(first.do(READ, 0, 4096), 0)
        before = server.resident()
        clients = [server.raw().ready(structured=True) for _ in range(1000)]
        for raw in clients:
            self.assertEqual(raw.do(READ, 0, 65536), 0)
        # Idle loops give their buffers back.
        wait_for(lambda: server.resident() - before < 4 * 1024, 'little to be resident')
        self.assertTrue(server.uses_no_cpu(1, 0.02))
        for raw in clients:
            raw.close()
        self.assertEqual(server.stop()['max_clients'], 2048)

    def test_sixty_four_busy_connections_stay_bounded(self):
        server = Server(self, 'memory:64M', '--max-bytes', str(64 * MIB))
        fill = server.raw().ready()
        self.assertEqual(fill.do(WRITE, 0, 64 * MIB, payload=pattern(0, MIB) * 64), 0)
        fill.close()
        before = server.resident()
        clients = [server.raw().ready() for _ in range(64)]
        done = []

        def ask(raw):
            for n in range(8):
                raw.send(READ, n * MIB, MIB, cookie=n)
            done.append(sorted(raw.answer(MIB)[0] for _ in range(8)))

        def work(raw):
            for _ in range(5):
                try:
                    return ask(raw)
                except (Closed, ConnectionError):
                    # So does anybody on a machine that stalls.
                    if b'hardly goes on' not in server.output():
                        raise
                    raw.close()
                    raw = server.raw().ready()
                    clients.append(raw)
        threads = [threading.Thread(target=work, args=(raw,), daemon=True) for raw in clients]
        for thread in threads:
            thread.start()
        peak = before
        while any(thread.is_alive() for thread in threads):
            peak = max(peak, server.resident())
            time.sleep(0.01)
        self.assertEqual(done, [list(range(8))] * 64)
        print('64 busy connections: %d MiB at most' % ((peak - before) >> 10), end=' ... ')
        self.assertLess(peak - before, 160 * 1024)
        for raw in clients:
            raw.close()


if __name__ == '__main__':
    main()
