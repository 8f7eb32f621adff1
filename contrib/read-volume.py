#!/usr/bin/env python3
"""Restores an objmap volume from a directory, without objmap.

Written from objmap-volume(5) alone, with nothing but Python's standard library:
the way out when objmap itself is missing, broken or suspected.  Every checksum
is verified; what is damaged or missing is named, left as a hole in the output,
and makes the exit status 1.
"""
import argparse
import base64
import binascii
import os
import struct
import sys
import uuid

NODE_REFS = 1024
NODE_BYTES = 24576
HOLE = (0, 0, 0, 0)


class Damage(Exception):
    """What is wrong with an object, in words."""


# ---- CRC32C ----------------------------------------------------------------------
#
# A look-up a byte is 10 MB/s in Python, so frames are folded as long integers.  The
# first bit of a message is the highest coefficient of a polynomial, and bit 0 of
# int.from_bytes(message, 'little').  With the message as H * x^k + L, modulo P that
# is H * (x^k mod P) + L: some shifts and XORs of H, as many as x^k mod P has terms,
# and half the bits are gone.  For each length k is chosen so that it has few.

POLYNOMIAL = 0x11edc6f41
FEW_BITS = 1024
PIECE = 65536  # bytes folded at once: what stays in the processor's cache


def _table():
    table = []
    for byte in range(256):
        for _ in range(8):
            byte = byte >> 1 ^ (0x82f63b78 if byte & 1 else 0)
        table.append(byte)
    return table


TABLE = _table()


def _run(crc, data):
    for byte in data:
        crc = TABLE[(crc ^ byte) & 0xff] ^ crc >> 8
    return crc


def _times_x(value):
    value <<= 1
    return value ^ POLYNOMIAL if value >> 32 else value


def _power_of_x(exponent):
    """x^EXPONENT mod P."""
    result = 1
    for bit in bin(exponent)[2:]:
        square = 0
        for i in range(31, -1, -1):
            square = _times_x(square) ^ (result if result >> i & 1 else 0)
        result = _times_x(square) if bit == '1' else square
    return result


def _plan(bits):
    """How to fold BITS bits down to FEW_BITS: (bits, k, terms of x^k mod P) each."""
    plan = []
    while bits > FEW_BITS:
        power = _power_of_x((bits + 1) // 2)
        best = None
        for k in range((bits + 1) // 2, (bits + 1) // 2 + min(2000, bits // 8)):
            weight = bin(power).count('1')
            if best is None or weight < best[0]:
                best = weight, k, power
            power = _times_x(power)
        _, k, power = best
        plan.append((bits, k, [e for e in range(32) if power >> e & 1]))
        bits = k + 32
    return plan, bits


PLANS = {}


def _run_folded(crc, data):
    bits = 8 * len(data)
    if bits not in PLANS:
        PLANS[bits] = _plan(bits)
    plan, left = PLANS[bits]
    value = int.from_bytes(data, 'little') ^ crc
    for bits, k, terms in plan:
        high = value & (1 << bits - k) - 1
        value = value >> bits - k << 32
        for term in terms:
            value ^= high << 2 * k + 32 - bits - term
    value <<= -left % 8
    return _run(0, value.to_bytes((left + 7) // 8, 'little'))


def crc32c(data):
    crc, data = 0xffffffff, memoryview(data)
    for at in range(0, len(data), PIECE):
        piece = data[at:at + PIECE]
        crc = (_run if len(piece) <= FEW_BITS else _run_folded)(crc, piece)
    return crc ^ 0xffffffff


def crc32c_frames(data, frame):
    data = memoryview(data)
    return [crc32c(data[at:at + frame]) for at in range(0, len(data), frame)]


# ---- files of a directory store ---------------------------------------------------

class Directory:
    def __init__(self, path):
        self.path = path

    def get(self, key):
        """The content and the metadata of KEY; one that begins with '/' is a
        path of its own.  FileNotFoundError, or Damage."""
        with open(os.path.join(self.path, key), 'rb') as file:
            data = file.read()
        if len(data) < 40:
            raise Damage('is no whole object: only %d bytes' % len(data))
        magic, count, length, version, _, zero, crc = \
            struct.unpack('<8sQIIQII', data[-40:])
        if magic != b'objmapF1' or version != 1 or zero or length > 1536 or \
                count + length + 40 != len(data):
            raise Damage('is no whole object: its trailer does not fit')
        if crc32c(data[count:-4]) != crc:
            raise Damage('is no whole object: CRC32C of its trailer')
        metadata = {}
        for line in data[count:count + length].decode('ascii').splitlines():
            name, _, value = line.partition('=')
            metadata[name] = value
        return data[:count], metadata


# ---- head and snapshot list ------------------------------------------------------------

def sections(data, magic, known):
    """The sections of an object, in order, as (type, payload)."""
    if len(data) < 20 or data[:8] != magic:
        raise Damage('does not begin with %s' % magic.decode())
    version, length = struct.unpack_from('<II', data, 8)
    if length != len(data):
        raise Damage('is %d bytes long but says %d' % (len(data), length))
    if crc32c(data[:-4]) != struct.unpack('<I', data[-4:])[0]:
        raise Damage('has a wrong CRC32C')
    if version != 1:
        raise Damage('is of version %d; this reader knows version 1' % version)
    at = 16
    while at < len(data) - 4:
        if len(data) - 4 - at < 8:
            raise Damage('has bytes after its last section, at %d' % at)
        kind, flags, length = struct.unpack_from('<HHI', data, at)
        end = at + 8 + length
        padded = (end + 7) // 8 * 8
        if padded > len(data) - 4 or any(data[end:padded]) or flags & ~1:
            raise Damage('has a section of type %d that cannot be, at %d' % (kind, at))
        if kind in known:
            if not flags & 1:
                raise Damage('has section %d without must, at %d' % (kind, at))
            yield kind, data[at + 8:end]
        elif flags & 1:
            raise Damage('has a section of type %d that must not be ignored' % kind)
        at = padded


def check_text(data, longest):
    """DATA as text of 1 to LONGEST bytes."""
    text = data.decode()
    if not 1 <= len(data) <= longest or \
            any(c < ' ' or '\x7f' <= c <= '\x9f' for c in text):
        raise Damage('has a text that cannot be')
    return text


def check_prefix(data):
    text = check_text(data, 512)
    if any(part in ('', '.', '..') for part in text.split('/')):
        raise Damage('has a prefix that cannot be')
    return text


def check_ascii(field):
    text = field.rstrip(b'\0')
    if len(text) == len(field) or any(not 0x20 <= c < 0x7f for c in text):
        raise Damage('has a holder that cannot be')


def check_ref(ref, epoch, length):
    if ref[0] == 0:
        if ref != HOLE:
            raise Damage('has a hole that is none')
    elif ref[0] > epoch or ref[2] != length:
        raise Damage('has a ref that cannot be')
    return ref


# Bytes of the sections that have entries: at least one, at most so many.
MOST = {4: 16 * 24, 5: 1024 * 24, 6: 512 * 28, 8: 8 * (12 + 512)}


class Head:
    def __init__(self, data):
        if len(data) > 49152:
            raise Damage('is longer than a head can be')
        self.root, self.recent, self.origins, self.snapshots = [], {}, [], None
        self.incomplete = False
        last, seen = 0, set()
        for kind, payload in sections(data, b'OBJMHEAD', range(1, 10)):
            if kind <= last:
                raise Damage('has section %d after section %d' % (kind, last))
            last = kind
            seen.add(kind)
            if len(payload) > MOST.get(kind, len(payload)) or \
                    (kind in MOST and not payload):
                raise Damage('has %d bytes in section %d' % (len(payload), kind))
            if kind > 2 and not {1, 2} <= seen:
                raise Damage('has no section 1 or 2')
            try:
                self.take(kind, payload)
            except struct.error:
                raise Damage('has a section %d of a wrong length' % kind) from None
        if not {1, 2} <= seen:
            raise Damage('has no section 1 or 2')
        if self.state == 3 and seen & {5, 6, 7, 8}:
            raise Damage('has content though it was deleted')
        self.check()

    def take(self, kind, payload):
        if kind == 1:
            (self.uuid, _, self.size, self.chunk, self.frame, codec,
             self.state) = struct.unpack('<16sQQIIII', payload)
            if codec:
                raise Damage('names codec %d' % codec)
        elif kind == 2:
            self.epoch, _, self.nonce, self.committed, _ = struct.unpack('<5Q', payload)
            if not 1 <= self.epoch <= (1 << 64) - 2:
                raise Damage('has an epoch that cannot be')
        elif kind == 3:
            flags, host, machine, boot = struct.unpack('<40xI64s33s37s', payload)
            if flags & ~1:
                raise Damage('has a holder that cannot be')
            for text in host, machine, boot:
                check_ascii(text)
        elif kind == 4:
            newest = self.epoch
            for _, epoch, _ in struct.iter_unpack('<QQQ', payload):
                if epoch > newest:
                    raise Damage('has a history out of order')
                newest = epoch
        elif kind == 5:
            self.root = list(struct.iter_unpack('<QQII', payload))
        elif kind == 6:
            for chunk, *ref in struct.iter_unpack('<IQQII', payload):
                if self.recent and chunk <= max(self.recent):
                    raise Damage('has recent refs out of order')
                self.recent[chunk] = tuple(ref)
        elif kind == 7:
            self.snapshots = struct.unpack('<QQQ', payload)
            if not 1 <= self.snapshots[0] <= self.epoch + 1 or \
                    self.snapshots[2] > self.epoch:
                raise Damage('names a snapshot list that cannot be')
        elif kind == 8:
            last = at = 0
            while at < len(payload):
                epoch, length = struct.unpack_from('<QI', payload, at)
                prefix = payload[at + 12:at + 12 + length]
                if not last < epoch <= self.epoch or len(prefix) != length:
                    raise Damage('has origins that cannot be')
                self.origins.append((epoch, check_prefix(prefix)))
                last = epoch
                at += 12 + length
        elif kind == 9 and payload:
            raise Damage('has a section 9 with a payload')
        elif kind == 9:
            self.incomplete = True

    def check(self):
        if self.chunk & (self.chunk - 1) or not 65536 <= self.chunk <= 1 << 26 or \
                self.frame != max(65536, self.chunk // 128):
            raise Damage('has a chunk size that cannot be')
        self.chunks = -(-self.size // self.chunk)
        if self.state not in (1, 3) or (self.state == 1) != (self.size > 0) or \
                self.chunks > 1 << 30:
            raise Damage('has a state or size that cannot be')
        self.levels = 0 if self.chunks <= 1 << 10 else 1 if self.chunks <= 1 << 20 else 2
        if len(self.root) != -(-self.chunks // 1024 ** self.levels):
            raise Damage('has a root that does not fit its size')
        for ref in self.root:
            check_ref(ref, self.epoch, NODE_BYTES if self.levels else self.chunk)
        for chunk, ref in self.recent.items():
            check_ref(ref, self.epoch, self.chunk)
            if chunk >= self.chunks:
                raise Damage('has a recent ref beyond the last chunk')

    def key(self, name, epoch):
        """The key of an object of EPOCH, in the volume or in an origin."""
        for last, prefix in self.origins:
            if epoch <= last:
                return '/%s/%s' % (prefix, name)
        return name


def snapshot_list(data):
    """The snapshots with names: name -> (epoch, body's epoch, nonce, created, size)."""
    found = {}
    for kind, payload in sections(data, b'OBJMSNAP', (1, 2)):
        *numbers, name, prefix = struct.unpack_from('<5QHH', payload)
        if len(payload) != 44 + name + prefix or (kind == 1 and prefix):
            raise Damage('has an entry of a wrong length')
        text = check_text(payload[44:44 + name], 128)
        if '/' in text or '@' in text:
            raise Damage('has a snapshot of a name that cannot be')
        if not 0 < numbers[0] < numbers[1] or not numbers[4]:
            raise Damage('has an entry that cannot be')
        if kind == 2:
            check_prefix(payload[44 + name:])
        if kind == 1:
            if text in found:
                raise Damage('has two snapshots of one name')
            found[text] = numbers
    return found


# ---- a volume ---------------------------------------------------------------------------

class Volume:
    def __init__(self, path, fast=False):
        self.store = Directory(path)
        self.fast = fast
        self.faults = 0
        self.chunks = self.bytes = 0

    def fault(self, key, what):
        self.faults += 1
        print('%s: %s' % (key, what), file=sys.stderr)

    def get(self, key):
        """Content and metadata, or None when that is a fault (named)."""
        try:
            return self.store.get(key)
        except FileNotFoundError:
            self.fault(key, 'is missing')
        except (Damage, OSError, UnicodeDecodeError) as error:
            self.fault(key, str(error))
        return None

    def parse(self, key, parser):
        found = self.get(key)
        try:
            return found and parser(found[0])
        except (Damage, struct.error, UnicodeDecodeError) as error:
            self.fault(key, str(error))
        return None

    def head(self, snapshot):
        """The head, or the one that SNAPSHOT pinned; None after a fault."""
        head = self.parse('head', Head)
        if not head or snapshot is None:
            return head
        entry = (self.snapshots(head) or {}).get(snapshot)
        if not entry:
            self.fault('head', 'there is no snapshot %s' % snapshot)
            return None
        key = 'snapshot/body-%016x-%016x' % (entry[1], entry[2])
        body = self.parse(key, Head)
        if body and (body.epoch, body.size, body.uuid) != \
                (entry[0], entry[4], head.uuid):
            self.fault(key, 'is not the head that snapshot %s pinned' % snapshot)
            return None
        return body

    def snapshots(self, head):
        if not head.snapshots:
            return {}
        return self.parse('snapshot/list-%016x-%016x' % head.snapshots[:2],
                          snapshot_list)

    def node(self, head, level, number, ref):
        """The refs of a node; None after a fault."""
        epoch, writer, _, crc = ref
        key = head.key('map/%x/%08x-%016x-%016x' % (level, number, epoch, writer), epoch)
        found = self.get(key)
        if not found:
            return None
        if len(found[0]) != NODE_BYTES or crc32c(found[0]) != crc:
            self.fault(key, 'does not have the length and CRC32C that its ref says')
            return None
        refs = list(struct.iter_unpack('<QQII', found[0]))
        try:
            for i, each in enumerate(refs):
                check_ref(each, epoch, NODE_BYTES if level else head.chunk)
                if each[0] and (number * NODE_REFS + i) << 10 * level >= head.chunks:
                    raise Damage('has refs beyond the last chunk')
        except Damage as error:
            self.fault(key, str(error))
            return None
        return refs

    def below(self, head, level, first, refs):
        """(chunk, ref) of all chunks below the refs of a node of LEVEL, in order,
        without what is recent; ref None where a node is lost."""
        for i, ref in enumerate(refs):
            if not ref[0]:
                continue
            if level == 0:
                yield first + i, ref
                continue
            number = first + i
            inner = self.node(head, level - 1, number, ref)
            if inner is None:
                span = 1024 ** level
                print('bytes %d to %d are lost with it' % (
                    number * span * head.chunk,
                    min((number + 1) * span * head.chunk, head.size)), file=sys.stderr)
                continue
            yield from self.below(head, level - 1, number * NODE_REFS, inner)

    def refs(self, head):
        for chunk, ref in self.below(head, head.levels, 0, head.root):
            if chunk not in head.recent:
                yield chunk, ref
        for chunk, ref in head.recent.items():
            if ref[0]:
                yield chunk, ref

    def chunk(self, head, index, ref):
        """The content of a chunk; None after a fault."""
        epoch, writer, _, crc = ref
        key = head.key('chunk/%02x/%08x-%016x-%016x' % (index & 0xff, index, epoch,
                                                        writer), epoch)
        found = self.get(key)
        if not found:
            return None
        content, metadata = found
        wrong = self.chunk_fault(head, key, content, metadata, crc)
        if wrong:
            self.fault(key, '%s (bytes %d to %d of the volume)' % (
                wrong, index * head.chunk, min((index + 1) * head.chunk, head.size)))
            return None
        self.chunks += 1
        self.bytes += len(content)
        return content

    def chunk_fault(self, head, key, content, metadata, crc):
        if len(content) != head.chunk:
            return 'is %d bytes long, not %d' % (len(content), head.chunk)
        if not key.startswith('/') and \
                metadata.get('objmap-volume') != str(uuid.UUID(bytes=head.uuid)):
            return 'belongs to another volume'
        try:
            table = base64.b64decode(metadata.get('objmap-frames', ''), validate=True)
        except (binascii.Error, ValueError):
            table = b''
        frames = head.chunk // head.frame
        if len(table) != 8 * frames:
            return 'has no frame table of %d frames' % frames
        if crc32c(table) != crc:
            return 'has a frame table of another CRC32C than its ref says'
        entries = list(struct.iter_unpack('<II', table))
        if any(stored != head.frame for stored, _ in entries):
            return 'has a frame table with other lengths'
        if not self.fast:
            for i, found in enumerate(crc32c_frames(content, head.frame)):
                if found != entries[i][1]:
                    return 'frame %d has another CRC32C than its table says' % i
        return None

    def restore(self, head, out):
        """Verifies all chunks, and writes them to OUT unless it is None."""
        for index, ref in self.refs(head):
            content = self.chunk(head, index, ref)
            if content and out is not None:
                at = index * head.chunk
                out.seek(at)
                out.write(memoryview(content)[:head.size - at])


# ---- the command --------------------------------------------------------------------------

def parse_place(place):
    """DIR[@SNAPSHOT]: an '@' after the last '/' begins the snapshot's name; a
    literal one is %40."""
    folder, slash, last = place.rpartition('/')
    last, at, snapshot = last.partition('@')
    path = (folder + slash + last).replace('%40', '@')
    return path, snapshot.replace('%40', '@') if at else None


def open_output(path, overwrite, size):
    flags = os.O_RDWR | os.O_CREAT | (os.O_TRUNC if overwrite else os.O_EXCL)
    out = os.fdopen(os.open(path, flags, 0o666), 'r+b')
    out.truncate(size)
    return out


def finish(out):
    out.flush()
    os.fsync(out.fileno())
    out.close()


def print_snapshots(volume):
    head = volume.head(None)
    found = volume.snapshots(head) if head else None
    for name, (epoch, _, _, created, size) in (found or {}).items():
        print('%s\tepoch %d\tcreated %d\t%d bytes' % (name, epoch, created, size))
    return 1 if volume.faults else 0


def main():
    parser = argparse.ArgumentParser(
        description='Restore an objmap volume from a directory, or only verify it.',
        epilog='Exit status: 0 all is good; 1 something is damaged or missing '
               '(named on standard error, a hole in OUTFILE); 2 usage.')
    parser.add_argument('place', metavar='DIR[@SNAPSHOT]')
    parser.add_argument('outfile', metavar='OUTFILE', nargs='?',
                        help='a sparse image; without it everything is only verified')
    parser.add_argument('--list-snapshots', action='store_true')
    parser.add_argument('--fast', action='store_true',
                        help='do not compute the checksums of content')
    parser.add_argument('--overwrite', action='store_true',
                        help='OUTFILE may exist')
    args = parser.parse_intermixed_args()
    path, snapshot = parse_place(args.place)
    if not os.path.isdir(path):
        parser.error('%s is not a directory' % path)
    volume = Volume(path, args.fast)
    if args.list_snapshots:
        return print_snapshots(volume)

    head = volume.head(snapshot)
    if not head:
        return 1
    if head.state == 3:
        volume.fault('head', 'this volume was deleted')
        return 1
    if head.incomplete:
        volume.fault('head', 'a copy into this volume was cut: its content means '
                     'nothing yet')
    out = None
    if args.outfile:
        try:
            out = open_output(args.outfile, args.overwrite, head.size)
        except FileExistsError:
            parser.error('%s exists; --overwrite replaces it' % args.outfile)
    volume.restore(head, out)
    if out:
        finish(out)
    print('%d bytes, %d chunks %s, %d faults' % (
        head.size, volume.chunks, 'read' if args.fast else 'verified', volume.faults))
    return 1 if volume.faults else 0


if __name__ == '__main__':
    try:
        sys.exit(main())
    except OSError as error:
        print('read-volume: %s' % error, file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
