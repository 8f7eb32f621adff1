#!/usr/bin/python3
"""Every option, command, flag and error of the NBD server, as the protocol
text has them; by hand and by libnbd."""
import struct
import threading
import time

import nbd

from serving import (ABORT, ACK, CACHE, Closed, DF, DISC, EINVAL, EIO, ENOSPC, ENOTSUP, EOVERFLOW,
                     EPERM, EXPORT_NAME, FAST_ZERO, FLUSH, FUA, GO, INFO, INVALID, LIST, LIST_META,
                     META, NO_HOLE, READ, REP_INFO, REQ_ONE, SERVER, SET_META, STARTTLS, STATUS,
                     STRUCTURED, Server, TOO_BIG, TRIM, UNKNOWN, UNSUP, WRITE, World, ZEROES, main,
                     meta, pattern, wait_for)

MIB = 1 << 20


class Options(World):
    def setUp(self):
        super().setUp()
        self.server = Server(self, 'memory:1M', '--export', 'a:the first', '--export', 'b')

    def raw(self, **kw):
        raw = self.server.raw(**kw)
        self.addCleanup(raw.close)
        return raw

    def test_the_greeting_is_fixed_newstyle_with_no_zeroes(self):
        self.assertEqual(self.raw().server_flags, 3)

    def test_unknown_client_flags_close(self):
        self.assertTrue(self.raw(flags=0x80).closed())

    def test_export_name_answers_with_and_without_zeroes(self):
        for flags, zeroes in ((3, 0), (1, 124)):
            raw = self.raw(flags=flags)
            raw.option(EXPORT_NAME, b'a')
            size, bits = struct.unpack('>QH', raw.get(10))
            self.assertEqual(size, MIB)
            self.assertEqual(bits, 1 | 4 | 8 | 32 | 64 | 256 | 1024 | 2048)
            self.assertEqual(raw.get(zeroes), bytes(zeroes))
            self.assertEqual(raw.do(READ, 0, 512), 0)

    def test_an_unknown_export_name_closes(self):
        raw = self.raw()
        raw.option(EXPORT_NAME, b'zz')
        self.assertTrue(raw.closed())

    def test_a_long_description_ends_with_a_whole_character(self):
        """Strings have 4,096 bytes at most, and are UTF-8."""
        text = 'ab' + 'é' * 3000
        raw = Server(self, 'memory:1M', '--export', 'x:' + text).raw()
        listed = raw.ask(LIST)[0][1][5:]
        told = [data[2:] for kind, data in raw.go(b'x', [2], INFO)
                if kind == REP_INFO and data[:2] == b'\0\2']
        self.assertEqual([listed.decode(), told[0].decode()], [text[:2 + 2047]] * 2)
        raw = Server(self, 'memory:1M', '--export', 'x:a' + text).raw()
        self.assertEqual(raw.ask(LIST)[0][1][5:].decode(), 'a' + text[:2 + 2046])

    def test_list_tells_names_and_descriptions(self):
        raw = self.raw()
        self.assertEqual(raw.ask(LIST), [(SERVER, b'\0\0\0\1athe first'),
                                         (SERVER, b'\0\0\0\1b'), (ACK, b'')])
        self.assertEqual(raw.ask(LIST, b'x')[0][0], INVALID)

    def test_info_and_go_tell_all_that_is_asked(self):
        raw = self.raw()
        for option in (INFO, GO):
            replies = raw.go(b'a', (1, 2, 3, 77), option)
            told = {struct.unpack('>H', d[:2])[0]: d[2:] for k, d in replies if k == REP_INFO}
            self.assertEqual(set(told), {0, 1, 2, 3})
            self.assertEqual(struct.unpack('>QH', told[0])[0], MIB)
            self.assertEqual((told[1], told[2]), (b'a', b'the first'))
            self.assertEqual(struct.unpack('>III', told[3]), (1, 4096, 64 * MIB))
        self.assertEqual(raw.do(READ, 0, 1), 0)

    def test_wrong_names_are_told_from_malformed_ones(self):
        raw = self.raw()
        self.assertEqual(raw.go(b'zz')[0][0], UNKNOWN)
        self.assertEqual(raw.go(b'')[0][0], UNKNOWN, 'two exports: none is the default')
        self.assertEqual(raw.go(b'n' * 4097)[0][0], TOO_BIG)
        self.assertEqual(raw.go(b'n' * 4096)[0][0], UNKNOWN)
        for bad in (b'\xff', b'a\0', b'\xc0\x80', b'\xed\xa0\x80', b'\xf4\x90\x80\x80', b'\xe2\x82'):
            self.assertEqual(raw.go(bad)[0][0], INVALID, bad)
        self.assertEqual(raw.go('grün€𝄞'.encode())[0][0], UNKNOWN)
        for bad in (b'', b'\0\0\0\1', b'\0\0\0\1a', b'\0\0\0\1a\0\1', b'\0\0\0\1a\0\0x',
                    b'\xff\xff\xff\xffa\0\0'):
            self.assertEqual(raw.ask(GO, bad)[0][0], INVALID, bad)
        self.assertEqual(raw.go(b'b')[-1][0], ACK)

    def test_unknown_options_and_long_ones_are_answered_and_skipped(self):
        raw = self.raw()
        self.assertEqual(raw.ask(99, b'whatever')[0][0], UNSUP)
        self.assertEqual(raw.ask(STARTTLS)[0][0], UNSUP)
        self.assertEqual(raw.ask(INFO, b'x' * 200000)[0][0], TOO_BIG)
        self.assertEqual(raw.go(b'a')[-1][0], ACK)
        self.assertEqual(raw.do(READ, 0, 1), 0)

    def test_abort_is_acknowledged_and_closes(self):
        raw = self.raw()
        self.assertEqual(raw.ask(ABORT), [(ACK, b'')])
        self.assertTrue(raw.closed())

    def test_structured_replies_can_be_agreed_once(self):
        raw = self.raw()
        self.assertEqual(raw.ask(STRUCTURED, b'x')[0][0], INVALID)
        self.assertEqual(raw.ask(STRUCTURED), [(ACK, b'')])
        self.assertEqual(raw.ask(STRUCTURED)[0][0], INVALID)

    def test_contexts(self):
        raw = self.raw()
        self.assertEqual(raw.ask(SET_META, meta(b'a', b'base:allocation'))[0][0], INVALID,
                         'without structured replies')
        raw.ask(STRUCTURED)
        offered = (META, b'\0\0\0\0base:allocation')
        self.assertEqual(raw.ask(LIST_META, meta(b'a')), [offered, (ACK, b'')])
        self.assertEqual(raw.ask(LIST_META, meta(b'a', b'base:')), [offered, (ACK, b'')])
        self.assertEqual(raw.ask(LIST_META, meta(b'a', b'other:')), [(ACK, b'')])
        self.assertEqual(raw.ask(LIST_META, meta(b'zz'))[0][0], UNKNOWN)
        self.assertEqual(raw.ask(SET_META, meta(b'a', b'base:')), [(ACK, b'')])
        self.assertEqual(raw.ask(SET_META, meta(b'a', b'objmap:dirty')), [(ACK, b'')])
        chosen = raw.ask(SET_META, meta(b'a', b'x:y', b'base:allocation'))
        self.assertEqual(chosen, [(META, b'\0\0\0\1base:allocation'), (ACK, b'')])
        self.assertEqual(raw.ask(SET_META, meta(b'a', b'q')[:-1])[0][0], INVALID)

    def test_a_context_counts_for_its_export_only(self):
        raw = self.raw()
        raw.ask(STRUCTURED)
        raw.structured = True
        raw.ask(SET_META, meta(b'a', b'base:allocation'))
        raw.go(b'b')
        self.assertEqual(raw.do(STATUS, 0, 4096), EINVAL)


class Commands(World):
    def setUp(self):
        super().setUp()
        self.server = Server(self, 'memory:1M')

    def both(self):
        for structured in (False, True):
            raw = self.server.raw().ready(structured=structured)
            self.addCleanup(raw.close)
            yield raw

    def test_what_is_written_is_read(self):
        for n, raw in enumerate(self.both()):
            data = pattern(n * 1000, 70000)
            self.assertEqual(raw.do(WRITE, 4001, len(data), payload=data), 0)
            self.assertEqual(raw.do(READ, 4001, len(data)), 0)
            self.assertEqual(raw.data, data)
            self.assertEqual(raw.do(WRITE, 4001, len(data), FUA, payload=data), 0)
            self.assertEqual(raw.do(FLUSH), 0)
            self.assertEqual(raw.do(CACHE, 0, MIB), 0)

    def test_zeroes_and_trim(self):
        for raw in self.both():
            for command, flags in ((ZEROES, 0), (ZEROES, NO_HOLE), (ZEROES, FAST_ZERO | FUA),
                                   (TRIM, 0), (TRIM, FUA)):
                self.assertEqual(raw.do(WRITE, 0, 4096, payload=b'x' * 4096), 0)
                self.assertEqual(raw.do(command, 100, 1000, flags), 0)
                self.assertEqual(raw.do(READ, 0, 4096), 0)
                if command == ZEROES:
                    self.assertEqual(raw.data, b'x' * 100 + bytes(1000) + b'x' * 2996)

    def test_out_of_range(self):
        for raw in self.both():
            for offset, count in ((MIB, 1), (MIB - 1, 2), (1 << 63, 8), ((1 << 64) - 1, 2)):
                self.assertEqual(raw.do(READ, offset, count), EINVAL)
                self.assertEqual(raw.do(WRITE, offset, count, payload=b'x' * count), ENOSPC)
                self.assertEqual(raw.do(ZEROES, offset, count), ENOSPC)
                self.assertEqual(raw.do(TRIM, offset, count), EINVAL)
                self.assertEqual(raw.do(CACHE, offset, count), EINVAL)
            self.assertEqual(raw.do(READ, MIB - 1, 1), 0)

    def test_wrong_flags_and_commands(self):
        for raw in self.both():
            self.assertEqual(raw.do(99), EINVAL)
            self.assertEqual(raw.do(READ, 0, 8, 1 << 9), EINVAL)
            self.assertEqual(raw.do(WRITE, 0, 3, NO_HOLE, payload=b'abc'), EINVAL)
            self.assertEqual(raw.do(FLUSH, 1, 0), EINVAL)
            self.assertEqual(raw.do(READ, 0, 8, DF), 0 if raw.structured else EINVAL)
            self.assertEqual(raw.do(READ, 0, 8, FUA), 0)

    def test_requests_of_no_bytes_succeed(self):
        for raw in self.both():
            for command in (READ, WRITE, TRIM, ZEROES, CACHE):
                self.assertEqual(raw.do(command, 5, 0), 0, command)

    def test_a_payload_that_is_too_long_is_skipped_or_closes(self):
        server = Server(self, 'memory:200M')
        raw = server.raw().ready(structured=True)
        self.assertEqual(raw.do(READ, 0, (64 << 20) + 1), EINVAL)
        self.assertEqual(raw.do(READ, 0, (64 << 20) + 1, DF), EOVERFLOW)
        self.assertEqual(raw.do(READ, 0, 64 << 20), 0)
        raw.send(WRITE, 0, (64 << 20) + 1)
        self.assertTrue(raw.closed())

    def test_the_largest_payload_goes_both_ways(self):
        server = Server(self, 'memory:64M')
        raw = server.raw().ready()
        data = pattern(0, MIB) * 64
        self.assertEqual(raw.do(WRITE, 0, len(data), payload=data), 0)
        self.assertEqual(raw.do(READ, 0, len(data)), 0)
        self.assertTrue(raw.data == data)

    def test_block_status_tells_holes(self):
        raw = self.server.raw().ready(structured=True)
        raw.do(WRITE, 65536, 65536, payload=b'x' * 65536)
        self.assertEqual(raw.do(STATUS, 0, MIB), 0)
        self.assertEqual(raw.kind, 5)
        self.assertEqual(struct.unpack('>7I', raw.data),
                         (1, 65536, 3, 65536, 0, MIB - 131072, 3))
        self.assertEqual(raw.do(STATUS, 0, MIB, REQ_ONE), 0)
        self.assertEqual(struct.unpack('>3I', raw.data), (1, 65536, 3))
        self.assertEqual(raw.do(STATUS, 0, 0), EINVAL)
        plain = self.server.raw().ready()
        self.assertEqual(plain.do(STATUS, 0, MIB), EINVAL, 'not agreed')

    def test_disc_answers_what_is_in_flight(self):
        raw = self.server.raw().ready()
        raw.put(b''.join(struct.pack('>IHHQQI', 0x25609513, 0, READ, n, 0, 512)
                         for n in range(50)))
        raw.send(DISC)
        self.assertEqual(sorted(raw.answer(512)[0] for _ in range(50)), list(range(50)))
        self.assertRaises(Closed, raw.get, 1)

    def test_a_wrong_magic_closes(self):
        raw = self.server.raw().ready()
        raw.send(READ, 0, 8, magic=0x12345678)
        self.assertTrue(raw.closed())

    def test_a_half_closed_client_still_gets_its_answers(self):
        raw = self.server.raw().ready()
        raw.send(READ, 0, 4096)
        raw.s.shutdown(1)
        self.assertEqual(raw.answer(4096)[1], 0)
        self.assertTrue(raw.closed())


class ReadOnly(World):
    def test_changes_are_refused_and_reads_and_flushes_are_not(self):
        server = Server(self, 'pattern:1M')
        raw = server.raw().ready()
        self.assertEqual(raw.do(WRITE, 0, 4, payload=b'abcd'), EPERM)
        self.assertEqual(raw.do(TRIM, 0, 4), EPERM)
        self.assertEqual(raw.do(ZEROES, 0, 4), EPERM)
        self.assertEqual(raw.do(FLUSH), 0)
        self.assertEqual(raw.do(READ, 4096, 4096), 0)
        self.assertEqual(raw.data, pattern(4096, 4096))
        client = nbd.NBD()
        client.connect_uri(server.uri())
        self.assertTrue(client.is_read_only())
        self.assertFalse(client.can_trim() or client.can_zero())


class Alignment(World):
    def test_requests_that_break_the_minimum_are_refused(self):
        server = Server(self, 'memory:1M', '--minimum', '512')
        raw = server.raw().ready()
        self.assertEqual(raw.do(READ, 1, 512), EINVAL)
        self.assertEqual(raw.do(WRITE, 0, 3, payload=b'abc'), EINVAL)
        self.assertEqual(raw.do(READ, 512, 512), 0)


class Errors(World):
    def test_a_refused_write_is_answered_when_its_payload_has_come(self):
        server = Server(self, 'pattern:64M')
        raw = server.raw().ready()
        for count in (5, MIB, 40 * MIB):
            raw.send(WRITE, 0, count)
            raw.put(bytes(count - 1))
            raw.s.settimeout(0.2)
            self.assertRaises(TimeoutError, raw.get, 1)
            raw.s.settimeout(30)
            raw.put(b'x')
            self.assertEqual(raw.answer()[1], EPERM)
        self.assertEqual(raw.do(WRITE, 0, 0), EPERM)
        self.assertEqual(raw.do(READ, 0, 4096), 0)
        # One that never comes whole is nobody's.
        raw.send(WRITE, 0, 4096)
        raw.put(bytes(100))
        raw.close()
        self.assertEqual(server.raw().ready().do(READ, 0, 512), 0)

    def test_each_error_of_the_stages_has_its_code(self):
        for number, code in ((5, EIO), (28, ENOSPC), (12, 12), (108, 108), (30, EPERM),
                             (122, ENOSPC), (27, ENOSPC), (22, EINVAL), (116, EIO), (110, EIO)):
            server = Server(self, 'memory:1M', '--fail-from', '4096',
                            '--fail-errno', str(number))
            raw = server.raw().ready()
            self.assertEqual(raw.do(READ, 4096, 8), code, number)
            self.assertEqual(raw.do(WRITE, 4096, 3, payload=b'abc'), code, number)
            self.assertEqual(raw.do(READ, 0, 8), 0)
            self.assertEqual(server.stop()['errors'], 2)

    def test_not_supported_is_said_for_fast_zero_only(self):
        server = Server(self, 'memory:1M', '--fail-from', '0', '--fail-errno', '95')
        raw = server.raw().ready()
        self.assertEqual(raw.do(ZEROES, 0, 8, FAST_ZERO), ENOTSUP)
        self.assertEqual(raw.do(ZEROES, 0, 8), EIO)

    def test_an_error_in_a_structured_read_keeps_the_stream_in_step(self):
        server = Server(self, 'memory:1M', '--fail-from', '4096', '--fail-errno', '5')
        raw = server.raw().ready(structured=True)
        self.assertEqual(raw.do(READ, 8192, 4096), EIO)
        self.assertEqual(raw.do(READ, 0, 4096), 0)


class Order(World):
    """Requests from 512 KiB on wait until the test lets them go on."""

    def setUp(self):
        super().setUp()
        self.gate = self.path('gate')
        self.server = Server(self, 'memory:1M', '--wait-from', '524288', '--wait-for', self.gate)

    def open(self):
        open(self.gate, 'w').close()

    def raw(self):
        raw = self.server.raw().ready()
        self.addCleanup(raw.close)
        return raw

    def test_a_slow_request_does_not_delay_a_fast_one(self):
        raw = self.raw()
        raw.send(READ, 524288, 4096, cookie=1)
        for n in range(100):
            raw.send(READ, 0, 4096, cookie=100 + n)
            self.assertEqual(raw.answer(4096)[0], 100 + n)
        self.open()
        self.assertEqual(raw.answer(4096)[0], 1)

    def test_nor_one_of_another_connection(self):
        slow, fast = self.raw(), self.raw()
        slow.send(WRITE, 524288, 4, payload=b'abcd')
        for _ in range(100):
            self.assertEqual(fast.do(READ, 0, 4096), 0)
        slow.s.settimeout(0.1)
        self.assertRaises(TimeoutError, slow.get, 1)
        slow.s.settimeout(30)
        self.open()
        self.assertEqual(slow.answer()[1], 0)

    def test_libnbd_pipelines_out_of_order(self):
        client = nbd.NBD()
        client.connect_uri(self.server.uri())
        done = []
        buffers = []

        def wait_until(nr):
            end = time.monotonic() + 20
            while len(done) < nr and time.monotonic() < end:
                client.poll(1000)
        for n, offset in enumerate([524288] + [n * 4096 for n in range(60)]):
            buffer = nbd.Buffer(4096)
            buffers.append(buffer)

            def finished(error, n=n):
                self.assertEqual(error if isinstance(error, int) else error.value, 0)
                done.append(n)
                return 1
            client.aio_pread(buffer, offset, finished)
        wait_until(60)
        self.assertEqual(sorted(done), list(range(1, 61)), 'the slow one comes last')
        self.open()
        wait_until(61)
        self.assertEqual(done[60:], [0])

    def test_a_write_that_is_late_is_whole(self):
        raw = self.raw()
        data = pattern(0, 65536)
        raw.send(WRITE, 600000, 65536, payload=data)
        for _ in range(10):		# into where the payload was received
            self.assertEqual(raw.do(WRITE, 0, 65536, payload=bytes(65536)), 0)
        self.open()
        self.assertEqual(raw.answer()[1], 0)
        self.assertEqual(raw.do(READ, 600000, 65536), 0)
        self.assertEqual(raw.data, data)

    def test_a_server_that_stops_answers_what_it_has_taken(self):
        raw = self.raw()
        raw.send(READ, 524288, 4096, cookie=9)
        self.assertEqual(raw.do(READ, 0, 512), 0)	# so it has taken the first
        thread = threading.Thread(target=self.server.stop)
        thread.start()
        wait_for(lambda: b'}' in self.server.output(), 'its status')
        time.sleep(0.1)		# it says that before it stops
        self.open()
        self.assertEqual(raw.answer(4096)[0], 9)
        self.assertTrue(raw.closed())
        thread.join(20)
        self.assertFalse(thread.is_alive())

    def test_a_client_that_goes_takes_nothing_with_it(self):
        raw = self.raw()
        raw.send(WRITE, 524288, 4, payload=b'abcd')
        raw.send(READ, 524288, 4096)
        self.assertEqual(raw.do(READ, 0, 512), 0)	# so it has taken both
        raw.close()
        time.sleep(0.2)
        self.open()
        other = self.raw()
        wait_for(lambda: other.do(READ, 524288, 4) == 0 and other.data == b'abcd',
                 'the write of the client that went')


class Libnbd(World):
    def test_all_commands(self):
        server = Server(self, 'memory:16M')
        client = nbd.NBD()
        client.add_meta_context('base:allocation')
        client.connect_uri(server.uri())
        client.pwrite(b'abcd' * 1024, 4096, nbd.CMD_FLAG_FUA)
        self.assertEqual(bytes(client.pread(4096, 4096)), b'abcd' * 1024)
        client.zero(1000, 4096, nbd.CMD_FLAG_FAST_ZERO)
        client.trim(65536, 65536)
        client.cache(65536, 0)
        client.flush()
        extents = []
        client.block_status(16 << 20, 0, lambda c, o, e, err: extents.extend(e))
        self.assertEqual(sum(extents[::2]), 16 << 20)
        self.assertEqual(extents[1::2], [0, 3])
        chunks = []
        client.pread_structured(65536, 0, lambda b, o, s, err: chunks.append((o, len(b), s)),
                                nbd.CMD_FLAG_DF)
        self.assertEqual(chunks, [(0, 65536, nbd.READ_DATA)])
        client.set_strict_mode(0)
        with self.assertRaises(nbd.Error) as caught:
            client.pread(512, 16 << 20)
        self.assertEqual(caught.exception.errnum, EINVAL)
        with self.assertRaises(nbd.Error) as caught:
            client.pwrite(b'x' * 512, 16 << 20)
        self.assertEqual(caught.exception.errnum, ENOSPC)
        self.assertTrue(client.can_multi_conn())
        client.shutdown()
        self.assertEqual(server.stop()['accepted'], 1)


if __name__ == '__main__':
    main()
