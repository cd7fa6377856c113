"""The replog wire protocol, version 1, written after protocol.md with nothing but the standard library.

The parts stand in the order of that page: checksums, frames, heads, messages, records, connections, and a small
client at the end. Every message is described once, in the table MESSAGES; encoding, decoding and printing all follow
that table, so comparing this file with the page means comparing two tables.
"""

import re
import select
import socket
import struct
import time
from collections import namedtuple
from types import SimpleNamespace

VERSION = 1
MAGIC = b"\x52\x4c"
HEADER_BYTES = 16

BODY_MAX = (16 << 20) + (64 << 10)
BODY_MAX_BEFORE_HELLO = 8 << 10
BULK_BYTES = 256 << 10
ENTRIES_PER_FRAME = 8192

RECORD_HEADER_BYTES = 48
RECORD_BODY_MAX = (16 << 20) + 73
PRODUCER_FLAG = 1

REQUEST_CODES = {
    1: "read-only", 2: "bad-write-concern", 3: "too-large", 4: "mismatch", 5: "duplicate-mismatch",
    6: "producer-gap", 7: "producer-fenced", 8: "unknown-producer", 9: "aborted", 10: "disk-full",
    11: "busy", 12: "not-master", 13: "recovering", 14: "damaged", 15: "stopping",
    100: "unknown-verb", 101: "bad-option", 102: "bad-value", 103: "too-long", 104: "not-http",
    105: "not-found", 106: "not-ready", 107: "unreadable", 108: "denied", 109: "conflict",
    110: "master-only", 111: "secondary-only",
}
REFUSE_CODES = {
    1: "bad-frame", 2: "unknown-version", 3: "unknown-frame", 4: "frame-too-long", 5: "bad-checksum",
    6: "no-introduction", 7: "wrong-role", 8: "wrong-node", 9: "foreign-log", 10: "stale-epoch",
    11: "epoch-taken", 12: "ahead-of-master", 13: "diverged", 14: "damaged", 15: "replaced", 16: "busy",
    17: "stopping", 18: "slow-reader",
}
NACK_CODES = {
    1: "conflict", 2: "mismatch", 3: "bad-record", 4: "hold-back-full", 5: "disk-full", 6: "injected-fault",
}


class WireError(Exception):
    """Bytes that break the protocol. `code` is the name of the refusal they call for."""

    def __init__(self, code, reason):
        super().__init__(f"{code}: {reason}")
        self.code = code
        self.reason = reason


class Closed(ConnectionError):
    """The other side closed the connection."""


class Refused(Exception):
    """The other side sent a REFUSE, or refused a request."""

    def __init__(self, code, reason):
        super().__init__(f"{code}: {reason}")
        self.code = code
        self.reason = reason


# ---------------------------------------------------------------------------------------------------------------------
# Checksums

def _crc32c_table():
    table = []
    for value in range(256):
        for _ in range(8):
            value = (value >> 1) ^ (0x82F63B78 if value & 1 else 0)
        table.append(value)
    return tuple(table)


_CRC32C = _crc32c_table()
# The same for two bytes at once, which is what makes large bodies bearable.
_CRC32C_PAIRS = tuple(
    _CRC32C[(one ^ second) & 0xFF] ^ (one >> 8) for second in range(256) for one in _CRC32C)


def crc32c(data):
    """CRC-32C (Castagnoli), as of iSCSI and SSE 4.2."""
    pairs = _CRC32C_PAIRS
    crc = 0xFFFFFFFF
    even = len(data) & ~1
    for (pair,) in struct.iter_unpack("<H", memoryview(data)[:even]):
        crc = pairs[(crc ^ pair) & 0xFFFF] ^ (crc >> 16)
    for byte in data[even:]:
        crc = _CRC32C[(crc ^ byte) & 0xFF] ^ (crc >> 8)
    return crc ^ 0xFFFFFFFF


_M64 = 0xFFFFFFFFFFFFFFFF
_P1, _P2, _P3 = 0x9E3779B185EBCA87, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9
_P4, _P5 = 0x85EBCA77C2B2AE63, 0x27D4EB2F165667C5


def _rotate(value, bits):
    return ((value << bits) | (value >> (64 - bits))) & _M64


def _xxh_round(lane, word):
    return _rotate((lane + word * _P2) & _M64, 31) * _P1 & _M64


def xxh64(data, seed=0):
    """The published 64-bit xxHash."""
    data = bytes(data)
    stripes_end = len(data) // 32 * 32
    if stripes_end:
        a, b, c, d = (seed + _P1 + _P2) & _M64, (seed + _P2) & _M64, seed, (seed - _P1) & _M64
        for w, x, y, z in struct.iter_unpack("<4Q", data[:stripes_end]):
            a, b, c, d = _xxh_round(a, w), _xxh_round(b, x), _xxh_round(c, y), _xxh_round(d, z)
        digest = (_rotate(a, 1) + _rotate(b, 7) + _rotate(c, 12) + _rotate(d, 18)) & _M64
        for lane in (a, b, c, d):
            digest = ((digest ^ _xxh_round(0, lane)) * _P1 + _P4) & _M64
    else:
        digest = (seed + _P5) & _M64
    digest = (digest + len(data)) & _M64
    at = stripes_end
    while at + 8 <= len(data):
        word = int.from_bytes(data[at:at + 8], "little")
        digest = (_rotate(digest ^ _xxh_round(0, word), 27) * _P1 + _P4) & _M64
        at += 8
    if at + 4 <= len(data):
        word = int.from_bytes(data[at:at + 4], "little")
        digest = (_rotate(digest ^ (word * _P1 & _M64), 23) * _P2 + _P3) & _M64
        at += 4
    for byte in data[at:]:
        digest = _rotate(digest ^ (byte * _P5 & _M64), 11) * _P1 & _M64
    digest = (digest ^ (digest >> 33)) * _P2 & _M64
    digest = (digest ^ (digest >> 29)) * _P3 & _M64
    return digest ^ (digest >> 32)


# ---------------------------------------------------------------------------------------------------------------------
# Frames

def encode_frame(frame_type, body, version=VERSION, flags=0, magic=MAGIC):
    """A frame around a body. Wrong values are possible on purpose: tests of receivers need them."""
    head = magic + struct.pack("<BBII", version, frame_type, flags, len(body))
    return head + struct.pack("<I", crc32c(head + body)) + body


class FrameParser:
    """Cuts a stream of bytes into frames. What it rejects, it rejects in the order of the page.

    Nothing is reserved for a length that was only announced: the buffer holds bytes that came.
    """

    def __init__(self, limit=BODY_MAX):
        self.limit = limit
        self.verify = True  # without it checksums are not looked at, which is what takes the time
        self.buffer = bytearray()

    def feed(self, data):
        self.buffer += data

    def next(self):
        """The next (type, body), or None while it is not complete. Raises WireError."""
        have = self.buffer
        if bytes(have[:2]) != MAGIC[:len(have)]:
            raise WireError("bad-frame", f"a frame begins with {MAGIC.hex()}, not {have[:2].hex()}")
        if len(have) > 2 and have[2] != VERSION:
            raise WireError("unknown-version", f"version {have[2]}")
        if len(have) < HEADER_BYTES:
            return None
        flags, length, checksum = struct.unpack_from("<III", have, 4)
        if flags:
            raise WireError("bad-frame", f"flags {flags:#x}")
        if length > self.limit:
            raise WireError("frame-too-long", f"{length} bytes, at most {self.limit}")
        if len(have) < HEADER_BYTES + length:
            return None
        frame_type, body = have[3], bytes(have[HEADER_BYTES:HEADER_BYTES + length])
        if self.verify and crc32c(have[:12] + body) != checksum:
            raise WireError("bad-checksum", f"checksum {checksum:08x} of a frame of type {frame_type:#04x}")
        del have[:HEADER_BYTES + length]
        return frame_type, body


# ---------------------------------------------------------------------------------------------------------------------
# Heads: a type is an object that writes a value to a bytearray, reads one from a Reader and prints one

class Reader:
    """Takes bytes from the front of a body; a body that is too short is a bad frame."""

    def __init__(self, data):
        self.data = data
        self.at = 0

    def left(self):
        return len(self.data) - self.at

    def take(self, count):
        if count > self.left():
            raise WireError("bad-frame", f"{count} bytes wanted, {self.left()} left")
        self.at += count
        return self.data[self.at - count:self.at]

    def rest(self):
        return self.take(self.left())


class Byte:
    def write(self, out, value):
        out.append(value)

    def read(self, reader):
        return reader.take(1)[0]

    def show(self, value):
        return str(value)


class Integer:
    """u16 to u128: one byte below 251, else a marker and the value in the shortest width that holds it."""

    MARKERS = ((0xFB, 2), (0xFC, 4), (0xFD, 8), (0xFE, 16))

    def __init__(self, width, spell=str):
        self.width = width
        self.show = spell

    def write(self, out, value):
        if value < 0:
            raise ValueError(f"{value} is negative")
        if value < 251:
            out.append(value)
            return
        for marker, width in self.MARKERS:
            if width <= self.width and value < 1 << (8 * width):
                out.append(marker)
                out += value.to_bytes(width, "little")
                return
        raise ValueError(f"{value} does not fit {self.width} bytes")

    def read(self, reader):
        first = reader.take(1)[0]
        if first < 251:
            return first
        for marker, width in self.MARKERS:
            if marker == first and width <= self.width:
                return int.from_bytes(reader.take(width), "little")
        raise WireError("bad-frame", f"marker {first:02x} in a number of {self.width} bytes")


class Bool:
    def write(self, out, value):
        out.append(1 if value else 0)

    def read(self, reader):
        value = reader.take(1)[0]
        if value > 1:
            raise WireError("bad-frame", f"a bool of {value:02x}")
        return value == 1

    def show(self, value):
        return "true" if value else "false"


class Text:
    def write(self, out, value):
        data = value.encode()
        u64.write(out, len(data))
        out += data

    def read(self, reader):
        data = reader.take(u64.read(reader))
        try:
            return data.decode()
        except UnicodeDecodeError as error:
            raise WireError("bad-frame", "a string that is not UTF-8") from error

    def show(self, value):
        return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'


class Bytes16:
    def write(self, out, value):
        if len(value) != 16:
            raise ValueError(f"{len(value)} bytes instead of 16")
        out += value

    def read(self, reader):
        return reader.take(16)

    def show(self, value):
        return value.hex()


class ListOf:
    def __init__(self, item):
        self.item = item

    def write(self, out, value):
        u64.write(out, len(value))
        for item in value:
            self.item.write(out, item)

    def read(self, reader):
        count = u64.read(reader)
        # Every item takes a byte at least, so a count beyond what is left is false before anything is built for it.
        if count > reader.left():
            raise WireError("bad-frame", f"a list of {count} items in {reader.left()} bytes")
        return [self.item.read(reader) for _ in range(count)]

    def show(self, value):
        return "[" + ", ".join(self.item.show(item) for item in value) + "]"


class OptionOf:
    def __init__(self, item):
        self.item = item

    def write(self, out, value):
        out.append(0 if value is None else 1)
        if value is not None:
            self.item.write(out, value)

    def read(self, reader):
        present = reader.take(1)[0]
        if present > 1:
            raise WireError("bad-frame", f"an option of {present:02x}")
        return self.item.read(reader) if present else None

    def show(self, value):
        return "none" if value is None else self.item.show(value)


class Pair:
    def __init__(self, first, second):
        self.parts = (first, second)

    def write(self, out, value):
        for part, item in zip(self.parts, value, strict=True):
            part.write(out, item)

    def read(self, reader):
        return tuple(part.read(reader) for part in self.parts)

    def show(self, value):
        return "(" + ", ".join(part.show(item) for part, item in zip(self.parts, value)) + ")"


class Enum:
    """Variants by number. The value of a variant without a field is its name, of another (name, field)."""

    def __init__(self, *variants):
        self.variants = [v if isinstance(v, tuple) else (v, None) for v in variants]

    def write(self, out, value):
        name, field = value if isinstance(value, tuple) else (value, None)
        for number, (variant, kind) in enumerate(self.variants):
            if variant == name:
                u32.write(out, number)
                if kind:
                    kind.write(out, field)
                return
        raise ValueError(f"no variant {name}")

    def read(self, reader):
        number = u32.read(reader)
        if number >= len(self.variants):
            raise WireError("bad-frame", f"variant {number} of {len(self.variants)}")
        name, kind = self.variants[number]
        return (name, kind.read(reader)) if kind else name

    def show(self, value):
        if isinstance(value, str):
            return value
        return f"{value[0]}({dict(self.variants)[value[0]].show(value[1])})"


class Struct:
    """Named fields in a row; the value is anything with these attributes, read as a SimpleNamespace."""

    def __init__(self, **fields):
        self.fields = fields

    def write(self, out, value):
        for name, kind in self.fields.items():
            kind.write(out, getattr(value, name))

    def read(self, reader):
        return SimpleNamespace(**{name: kind.read(reader) for name, kind in self.fields.items()})

    def show(self, value):
        return "{" + ", ".join(f"{name} {kind.show(getattr(value, name))}"
                               for name, kind in self.fields.items()) + "}"


def spell_code(names):
    return lambda number: f"{number} {names.get(number, '(unknown)')}"


u8 = Byte()
u16, u32, u64 = Integer(2), Integer(4), Integer(8)
hex64 = Integer(8, "{:016x}".format)
holders = Integer(16, lambda bits: "nodes " + str([k for k in range(128) if bits >> k & 1]))
boolean, text, bytes16 = Bool(), Text(), Bytes16()

LEVELS = Struct(commit=u64, held_by=ListOf(u64))
PLACED = Struct(seq=u64, epoch=u64, need=u16, holders=holders)
REFUSAL = Struct(code=Integer(2, spell_code(REQUEST_CODES)), detail=text)
CONCERN = Enum("default", ("nodes", u16), "majority", "all")
ACK_KIND = Enum("default", "stored", "received")
TIMEOUT = Enum("default", "forever", ("micros", u64))
LEVEL = Enum("local", "committed", "all", ("nodes", u16))


# ---------------------------------------------------------------------------------------------------------------------
# Messages

class Kind:
    """One row of the table of frames."""

    def __init__(self, number, tail=False, /, **fields):
        self.number = number
        self.tail = tail
        self.head = Struct(**fields)


# `from` is a keyword of Python, hence `from_`.
MESSAGES = {
    "HELLO": Kind(
        0x01,
        version_min=u8, version_max=u8, role=Enum("master", "secondary", "client"), node_id=text, peer_id=text,
        log_id=OptionOf(bytes16), epoch=u64, run_id=hex64, epoch_table=ListOf(Pair(u64, u64)), stored=u64,
        tail_epoch=u64, tail_digest=hex64, settled=u64, commit=u64, vouches=boolean, roster=ListOf(text), master_addr=text,
        frame_bytes_max=u32, payload_bytes_max=u32, window_bytes=u64),
    "REFUSE": Kind(0x02, code=Integer(2, spell_code(REFUSE_CODES)), epoch=u64, reason=text),
    "APPEND": Kind(
        0x10, True,
        epoch=u64, first=u64, count=u32, previous_epoch=u64, previous_digest=hex64, levels=LEVELS),
    "ACK": Kind(0x11, epoch=u64, stored=u64, received=u64, held=ListOf(Pair(u64, u64)), duplicates=u64),
    "NACK": Kind(0x12, epoch=u64, seq=u64, code=Integer(2, spell_code(NACK_CODES)), reason=text),
    "HEARTBEAT": Kind(0x13, epoch=u64, number=u64, levels=LEVELS),
    "HEARTBEAT_ACK": Kind(0x14, epoch=u64, number=u64),
    "ALIGN": Kind(0x15, epoch=u64, last=u64, last_epoch=u64, last_digest=hex64),
    "FETCH": Kind(0x16, epoch=u64, first=u64, last=u64),
    "FETCHED": Kind(0x17, True, epoch=u64, first=u64, count=u32),
    "APPEND_REQUEST": Kind(
        0x40, True,
        id=u64, count=u32, concern=CONCERN, ack=ACK_KIND, timeout=TIMEOUT, producer=OptionOf(Pair(text, u64)),
        match_seq=OptionOf(u64), atomic=boolean),
    "APPEND_REPLY": Kind(
        0x41,
        id=u64, count=u32,
        outcome=Enum(("ok", PLACED), ("pending", PLACED), ("unknown", PLACED), ("refused", REFUSAL))),
    "WAIT_REQUEST": Kind(0x42, id=u64, seq=u64, concern=CONCERN, ack=ACK_KIND, timeout=TIMEOUT),
    "READ_REQUEST": Kind(0x43, id=u64, from_=u64, limit=OptionOf(u64), level=LEVEL),
    "TAIL_REQUEST": Kind(0x44, id=u64, start=Enum("new", ("from", u64), ("last", u64)), level=LEVEL),
    "CANCEL": Kind(0x45, id=u64),
    "ENTRIES": Kind(0x46, True, id=u64, first=u64, count=u32, next=u64, commit=u64, end=boolean),
    "REQUEST_REFUSED": Kind(0x47, id=u64, refusal=REFUSAL),
    "COMMAND": Kind(0x48, True, id=u64, end=boolean),
    "COMMAND_REPLY": Kind(0x49, True, id=u64, end=boolean),
}
NAMES = {kind.number: name for name, kind in MESSAGES.items()}


class Message:
    """A message: its name in `kind`, its fields as attributes, the raw bytes behind the head in `tail`."""

    def __init__(self, kind, /, tail=b"", **fields):
        wanted = MESSAGES[kind].head.fields
        if fields.keys() != wanted.keys():
            raise TypeError(f"{kind}: fields {sorted(fields.keys() ^ wanted.keys())} missing or unknown")
        if tail and not MESSAGES[kind].tail:
            raise TypeError(f"{kind} has no tail")
        self.__dict__.update(fields)
        self.kind = kind
        self.tail = tail

    def __eq__(self, other):
        return isinstance(other, Message) and self.__dict__ == other.__dict__

    def __repr__(self):
        tail = f" + {len(self.tail)} bytes" if self.tail else ""
        return self.kind + MESSAGES[self.kind].head.show(self) + tail

    def body(self):
        out = bytearray()
        MESSAGES[self.kind].head.write(out, self)
        return bytes(out) + self.tail

    def encode(self):
        return encode_frame(MESSAGES[self.kind].number, self.body())


def decode_message(frame_type, body):
    """The message of a frame. Raises WireError."""
    if frame_type not in NAMES:
        raise WireError("unknown-frame", f"type {frame_type:#04x}")
    name = NAMES[frame_type]
    reader = Reader(body)
    fields = vars(MESSAGES[name].head.read(reader))
    tail = reader.rest()
    if tail and not MESSAGES[name].tail:
        raise WireError("bad-frame", f"{len(tail)} bytes behind {name}")
    return Message(name, tail=tail, **fields)


def levels(commit, *held_by):
    return SimpleNamespace(commit=commit, held_by=list(held_by))


def hello(role, **fields):
    """A HELLO; what is not given says nothing (empty, none, 0)."""
    said = dict(
        version_min=VERSION, version_max=VERSION, node_id="", peer_id="", log_id=None, epoch=0, run_id=0,
        epoch_table=[], stored=0, tail_epoch=0, tail_digest=0, settled=0, commit=0, vouches=False, roster=[], master_addr="",
        frame_bytes_max=BODY_MAX, payload_bytes_max=0, window_bytes=0)
    return Message("HELLO", role=role, **(said | fields))


# ---------------------------------------------------------------------------------------------------------------------
# Records

# What comes before a record, and what the record leaves behind: the prefix id and the number it belongs to.
Prefix = namedtuple("Prefix", "seq epoch digest")
EMPTY = Prefix(0, 0, 0)

_COVERED = struct.Struct("<IHHQQQ")  # bytes 16 to 47: body length, flags, reserved, number, epoch, time


class Record(namedtuple("Record", "raw digest flags seq epoch time producer payload")):
    """One entry. `raw` is all of it as it stands on the wire; the rest is taken from there."""

    @property
    def prefix(self):
        return Prefix(self.seq, self.epoch, self.digest)


def build_record(previous, epoch, payload, time_ms=None, *, seq=None, flags=0, reserved=0, digest=None):
    """The bytes of the entry behind `previous`. The last four only serve to build wrong records, with checksums that
    are right, so that a receiver's later checks are reached."""
    covered = _COVERED.pack(
        len(payload), flags, reserved, previous.seq + 1 if seq is None else seq, epoch,
        int(time.time() * 1000) if time_ms is None else time_ms) + payload
    if digest is None:
        digest = xxh64(covered, previous.digest)
    rest = struct.pack("<IQ", crc32c(payload), digest) + covered
    return struct.pack("<I", crc32c(rest[:RECORD_HEADER_BYTES - 4])) + rest


def _split_producer(body):
    length = body[0] if body else 0
    if not 1 <= length <= 64 or len(body) < 1 + length + 8:
        raise WireError("bad-record", "the producer does not fit")
    number = int.from_bytes(body[1 + length:9 + length], "little")
    return (body[1:1 + length], number), body[9 + length:]


def read_record(data, at, seq, epoch, previous_digest):
    """The record at `at` of `data`, verified; `previous_digest` None: unknown, its digest is taken on trust."""
    head = data[at:at + RECORD_HEADER_BYTES]
    if len(head) < RECORD_HEADER_BYTES:
        raise WireError("bad-record", f"entry {seq}: {len(head)} bytes of a header")
    head_sum, body_sum, digest = struct.unpack_from("<IIQ", head)
    length, flags, reserved, number, own_epoch, time_ms = _COVERED.unpack_from(head, 16)
    if crc32c(head[4:]) != head_sum:
        raise WireError("bad-record", f"entry {seq}: header checksum")
    if flags & ~PRODUCER_FLAG or reserved:
        raise WireError("bad-record", f"entry {seq}: flags {flags:#x}, reserved {reserved:#x}")
    if number != seq:
        raise WireError("bad-record", f"entry {number} where {seq} must stand")
    end = at + RECORD_HEADER_BYTES + length
    if length > RECORD_BODY_MAX or end > len(data):
        raise WireError("bad-record", f"entry {seq}: a body of {length} bytes")
    body = bytes(data[at + RECORD_HEADER_BYTES:end])
    if crc32c(body) != body_sum:
        raise WireError("bad-record", f"entry {seq}: body checksum")
    if own_epoch < epoch:
        raise WireError("bad-record", f"entry {seq}: epoch {own_epoch} behind {epoch}")
    if previous_digest is not None and xxh64(data[at + 16:end], previous_digest) != digest:
        raise WireError("bad-record", f"entry {seq}: the digest does not continue the chain")
    producer, payload = _split_producer(body) if flags & PRODUCER_FLAG else (None, body)
    return Record(bytes(data[at:end]), digest, flags, number, own_epoch, time_ms, producer, payload)


def read_records(data, first, count, previous=None):
    """All `count` records of a tail, verified as a chain behind the prefix `previous`.

    Without one (ENTRIES and FETCHED do not say it) the first digest is taken on trust and the chain is verified from
    there, except in front of entry 1, where the digest is known to be 0.
    """
    epoch, digest = (previous.epoch, previous.digest) if previous else (0, 0 if first == 1 else None)
    records, at = [], 0
    for seq in range(first, first + count):
        record = read_record(data, at, seq, epoch, digest)
        records.append(record)
        at += len(record.raw)
        epoch, digest = record.epoch, record.digest
    if at != len(data):
        raise WireError("bad-record", f"{len(data) - at} bytes behind the last record")
    return records


def numbers_of(data):
    """The number and epoch of each record of a tail, by the headers alone: nothing is verified."""
    at = 0
    while at + RECORD_HEADER_BYTES <= len(data):
        length, _flags, _reserved, seq, epoch, _time = _COVERED.unpack_from(data, at + 16)
        yield seq, epoch
        at += RECORD_HEADER_BYTES + length


# Messages whose tail is a run of records.
WITH_RECORDS = ("APPEND", "FETCHED", "ENTRIES")


def records_of(message, previous=None):
    """The records of an APPEND, FETCHED or ENTRIES, verified behind `previous`, or as far as the message allows."""
    if message.kind == "APPEND":
        previous = Prefix(message.first - 1, message.previous_epoch, message.previous_digest)
    records = read_records(message.tail, message.first, message.count, previous)
    for record in records if message.kind != "ENTRIES" else ():
        if record.epoch > message.epoch:
            raise WireError("bad-record", f"entry {record.seq}: epoch {record.epoch} in a frame of {message.epoch}")
    return records


def split_payloads(tail, count):
    """The payloads of an APPEND_REQUEST."""
    reader = Reader(tail)
    payloads = [reader.take(int.from_bytes(reader.take(4), "little")) for _ in range(count)]
    if reader.left():
        raise WireError("bad-frame", f"{reader.left()} bytes behind the last payload")
    return payloads


def describe(message):
    """The lines that print a message for people."""
    lines = [message.kind]
    for name, kind in MESSAGES[message.kind].head.fields.items():
        lines.append(f"  {name.rstrip('_'):18} {kind.show(getattr(message, name))}")
    if message.kind in WITH_RECORDS:
        for record in records_of(message):
            producer = f" producer {record.producer}" if record.producer else ""
            lines.append(f"  record {record.seq}  epoch {record.epoch}  time {record.time}  "
                         f"digest {record.digest:016x}{producer}  {record.payload!r}")
        if message.kind == "APPEND" or message.first == 1 or not message.count:
            lines.append("  records verified")
        else:
            lines.append("  records verified, but for the first digest: the frame does not say what it continues")
    elif message.kind == "APPEND_REQUEST":
        for offset, payload in enumerate(split_payloads(message.tail, message.count)):
            lines.append(f"  payload of {message.id + offset}  {payload!r}")
    elif MESSAGES[message.kind].tail:
        lines.append(f"  tail               {message.tail!r}")
    return lines


# ---------------------------------------------------------------------------------------------------------------------
# The page itself

def bytes_of_hex(lines):
    """Hex with any spacing; `#` starts a comment."""
    return bytes.fromhex("".join("".join(line.split("#", 1)[0].split()) for line in lines))


def messages_of(data):
    """All messages of a stream; what is left over is an error here, as nothing more will come."""
    parser = FrameParser()
    parser.feed(data)
    while frame := parser.next():
        yield decode_message(*frame)
    if parser.buffer:
        raise WireError("bad-frame", f"{len(parser.buffer)} bytes of a frame that is not complete")


def encoded_again(data):
    """The messages of a stream, which must be the same bytes when they are encoded again, and whose records must
    verify. Raises WireError or ValueError."""
    messages = list(messages_of(data))
    for message in messages:
        describe(message)
    again = b"".join(message.encode() for message in messages)
    if again != data:
        raise WireError("bad-frame", f"encoded again it is {again.hex()}")
    return messages


def _hex_blocks(lines):
    """The hex blocks of a page: (number of the first line, heading above, lines)."""
    block, heading = None, ""
    for number, line in enumerate(lines, 1):
        if block is not None:
            if line.strip().startswith("```"):
                yield block
                block = None
            else:
                block[2].append(line)
        elif line.startswith("#"):
            heading = line.lstrip("# ").strip()
        elif re.fullmatch(r"```\s*hex\s*", line):
            block = (number + 1, heading, [])
    if block is not None:
        raise WireError("bad-frame", f"the hex block of line {block[0]} has no end")


def _code_table(text, title):
    """The codes of one table of section 10, by number."""
    found = re.search(rf"^### {re.escape(title)}.*?(?=^##|\Z)", text, re.M | re.S)
    rows = re.findall(r"\|\s*(\d+)\s*\|\s*`([a-z-]+)`", found[0] if found else "")
    return {int(number): name for number, name in rows}


def _frame_table(text):
    """The rows of section 5: number by name, and who has a tail."""
    rows = re.findall(r"^\| (0x[0-9A-F]{2}) \| ([A-Z_]+)( \+ tail)? \|", text, re.M)
    return {name: (int(number, 16), bool(tail)) for number, name, tail in rows}


def check_page(path, say=print):
    """Compares a page with this module: each hex block is decoded, encoded again and compared, and so are the
    values that its text gives. Prints a line for each; whether all is well."""
    with open(path, encoding="utf-8") as file:
        text = file.read()
    results = []

    def compare(what, got, want):
        results.append(got == want)
        say(f"ok     {what}" if got == want else f"FAILED {what}: the page has {want!r}, here it is {got!r}")

    kinds = set()
    blocks = 0
    for number, heading, lines in _hex_blocks(text.splitlines()):
        blocks += 1
        what = f"line {number} ({heading})"
        try:
            messages = encoded_again(bytes_of_hex(lines))
        except (WireError, ValueError) as error:
            results.append(False)
            say(f"FAILED {what}: {error}")
            continue
        if not messages:
            results.append(False)
            say(f"FAILED {what}: the block is empty")
            continue
        results.append(True)
        kinds.update(message.kind for message in messages)
        say(f"ok     {what}: {', '.join(message.kind for message in messages)}")
    if not blocks:
        results.append(False)
        say("FAILED the page has no hex block")

    for number, kind, digits in re.findall(r"(?<!some )\b(\d+)(?: as `(u\d+)`)? is `([0-9a-f]+)`", text):
        out = bytearray()
        {"u16": u16, "u32": u32, "u64": u64}[kind or "u64"].write(out, int(number))
        compare(f"the number {number}", out.hex(), digits)
    for number, digits in re.findall(r"some (\d+) is `([0-9a-f]+)`", text):
        out = bytearray()
        OptionOf(u64).write(out, int(number))
        compare(f"the option {number}", out.hex(), digits)
    for word, digits in re.findall(r'"(\w+)" is `([0-9a-f]+)`', text):
        out = bytearray()
        globals()["text"].write(out, word)
        compare(f"the string {word}", out.hex(), digits)
    for digits, want in re.findall(r'"(\d+)" gives ([0-9A-F]{8})', text):
        compare(f"the CRC-32C of {digits}", f"{crc32c(digits.encode()):08X}", want)
    for word, seed, want in re.findall(r'XXH64\("(\w*)", (\d+)\) = ([0-9A-F]{16})', text):
        compare(f"XXH64 of {word!r}", f"{xxh64(word.encode(), int(seed)):016X}", want)
    for last, seed, want in re.findall(r"XXH64\(00…([0-9a-f]{2}), ([0-9A-F]+)\) = ([0-9A-F]{16})", text):
        data = bytes(range(int(last, 16) + 1))
        compare(f"XXH64 of {len(data)} bytes, seed {seed}", f"{xxh64(data, int(seed, 16)):016X}", want)
    for name, want in re.findall(r"(P[1-5]) = ([0-9A-F]{16})", text):
        compare(f"the prime {name}", f"{globals()['_' + name]:016X}", want)
    frames = {name: (kind.number, kind.tail) for name, kind in MESSAGES.items()}
    compare("the table of frames", frames, _frame_table(text))
    compare("the codes of requests", REQUEST_CODES, dict(sorted(_code_table(text, "10.1").items())))
    compare("the codes of REFUSE", REFUSE_CODES, dict(sorted(_code_table(text, "10.2").items())))
    compare("the codes of NACK", NACK_CODES, dict(sorted(_code_table(text, "10.3").items())))
    missing = [name for name in MESSAGES if name not in kinds]
    if missing:
        say(f"without an example: {', '.join(missing)}")
    say(f"{sum(results)} passed, {len(results) - sum(results)} failed")
    return all(results)


# ---------------------------------------------------------------------------------------------------------------------
# Connections

def parse_address(address):
    host, _, port = address.rpartition(":")
    if not port.isdigit():
        raise ValueError(f"{address!r} is not HOST:PORT")
    return host.strip("[]") or "127.0.0.1", int(port)


class Connection:
    """A blocking connection. `timeout` (seconds) bounds every step that is not given another one.

    Receiving waits with poll and not with the socket's timeout, so that one thread may send while another receives.
    """

    def __init__(self, address, timeout=5.0):
        self._begin(socket.create_connection(parse_address(address), timeout), timeout)

    @classmethod
    def accepted(cls, accepted, timeout=5.0):
        """The side that was dialled."""
        connection = cls.__new__(cls)
        accepted.settimeout(timeout)
        connection._begin(accepted, timeout)
        return connection

    def _begin(self, connected, timeout):
        self.timeout = timeout
        self.socket = connected
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.parser = FrameParser()
        self.poll = select.poll()  # unlike select() it takes any number of files
        self.poll.register(connected, select.POLLIN)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        self.socket.close()

    def send_bytes(self, data):
        try:
            self.socket.sendall(data)
        except (BrokenPipeError, ConnectionResetError) as error:
            raise Closed(str(error)) from error

    def send(self, message):
        self.send_bytes(message.encode())

    def receive(self, timeout=None):
        """The next message, a REFUSE included. Raises TimeoutError, Closed, WireError."""
        return decode_message(*self.receive_frame(timeout))

    def receive_frame(self, timeout=None):
        """The type and the body of the next frame."""
        deadline = time.monotonic() + (self.timeout if timeout is None else timeout)
        while True:
            frame = self.parser.next()
            if frame:
                return frame
            if not self.poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
                raise TimeoutError("nothing came in time")
            try:
                data = self.socket.recv(1 << 18)
            except ConnectionResetError as error:
                raise Closed(str(error)) from error
            if not data:
                raise Closed("the connection was closed")
            self.parser.feed(data)

    def introduce(self, own):
        """Sends a HELLO and returns the one that answers it. Raises Refused."""
        self.send(own)
        answer = self.receive()
        if answer.kind == "REFUSE":
            raise Refused(REFUSE_CODES.get(answer.code, str(answer.code)), answer.reason)
        if answer.kind != "HELLO":
            raise WireError("bad-frame", f"{answer.kind} instead of a HELLO")
        if not answer.version_min <= VERSION <= answer.version_max:
            raise WireError("unknown-version", f"versions {answer.version_min} to {answer.version_max}")
        return answer


# ---------------------------------------------------------------------------------------------------------------------
# A client

def concern_of(w):
    """None: the node's default; a number of nodes; "majority" or "all"."""
    return "default" if w is None else ("nodes", w) if isinstance(w, int) else w


def timeout_of(seconds):
    """None: the node's default; "forever"; seconds."""
    return "default" if seconds is None else seconds if seconds == "forever" else ("micros", int(seconds * 1_000_000))


class Client:
    """A client of one node that does one thing at a time.

    Outcomes of appends are (name, details) as in APPEND_REPLY, with `seq` counted up to the single entry.
    """

    def __init__(self, address, name="", timeout=5.0):
        self.connection = Connection(address, timeout)
        try:
            self.node = self.connection.introduce(hello("client", node_id=name))
        except BaseException:
            self.connection.close()
            raise
        self.last_id = 0

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.connection.close()

    def _take_ids(self, count=1):
        first, self.last_id = self.last_id + 1, self.last_id + count
        return first

    def _receive(self, patience=None):
        message = self.connection.receive(patience)
        if message.kind == "REFUSE":
            raise Refused(REFUSE_CODES.get(message.code, str(message.code)), message.reason)
        return message

    def _answer(self, patience, request_id, *kinds):
        message = self._receive(patience)
        if message.kind == "REQUEST_REFUSED" and message.id == request_id:
            refusal = message.refusal
            raise Refused(REQUEST_CODES.get(refusal.code, str(refusal.code)), refusal.detail)
        if message.kind not in kinds or message.id != request_id:
            raise WireError("bad-frame", f"{message} instead of an answer to {request_id}")
        return message

    def _patience(self, timeout):
        """How long to wait for an outcome. The node may take the request's timeout until it answers "pending"."""
        if timeout == "forever":
            return 365 * 86400.0
        return self.connection.timeout + (timeout or 30.0)

    def append(self, payload, w=None, ack="default", timeout=None):
        """Appends one entry and returns its outcome."""
        return self.append_run([payload], w, ack, timeout)[0]

    def append_run(self, payloads, w=None, ack="default", timeout=None, in_flight=1024):
        """Appends many entries without waiting for each other and returns their outcomes, in order.

        At most `in_flight` are without an outcome at a time: a node stops reading from a client that has too many, and
        two sides that only write would wait for each other for ever.
        """
        payloads = list(payloads)
        first_id = self._take_ids(len(payloads))
        outcomes = [None] * len(payloads)
        sent = answered = 0
        while answered < len(payloads):
            while sent < len(payloads) and sent - answered < in_flight:
                count = self._send_appends(
                    first_id + sent, payloads[sent:sent + in_flight - (sent - answered)], w, ack, timeout)
                sent += count
            reply = self._receive(self._patience(timeout))
            offset = reply.id - first_id if reply.kind == "APPEND_REPLY" else -1
            if offset < 0 or offset + reply.count > sent:
                raise WireError("bad-frame", f"{reply} answers nothing that was asked")
            name, details = reply.outcome
            for index in range(reply.count):
                if outcomes[offset + index]:
                    raise WireError("bad-frame", f"request {reply.id + index} was answered twice")
                step = {} if name == "refused" else {"seq": details.seq + index}
                outcomes[offset + index] = (name, SimpleNamespace(**(vars(details) | step)))
            answered += reply.count
        return outcomes

    def _send_appends(self, request_id, payloads, w, ack, timeout):
        """Sends as many payloads as one frame should take (one at least) and returns how many."""
        tail, count = bytearray(), 0
        for payload in payloads[:ENTRIES_PER_FRAME]:
            if count and len(tail) + len(payload) > BULK_BYTES:
                break
            tail += struct.pack("<I", len(payload)) + payload
            count += 1
        self.connection.send(Message(
            "APPEND_REQUEST", id=request_id, count=count, concern=concern_of(w), ack=ack,
            timeout=timeout_of(timeout), producer=None, match_seq=None, atomic=False, tail=bytes(tail)))
        return count

    def wait(self, seq, w=None, ack="default", timeout=None):
        """Waits until an entry is held by as many nodes as asked for and returns the outcome."""
        request_id = self._take_ids()
        self.connection.send(Message(
            "WAIT_REQUEST", id=request_id, seq=seq, concern=concern_of(w), ack=ack, timeout=timeout_of(timeout)))
        return self._answer(self._patience(timeout), request_id, "APPEND_REPLY").outcome

    def read(self, first=1, limit=None, level="local"):
        """Yields the records from `first` on that the level shows, verified as a chain."""
        request_id = self._take_ids()
        self.connection.send(Message("READ_REQUEST", id=request_id, from_=first, limit=limit, level=level))
        previous = EMPTY if first == 1 else None
        while True:
            entries = self._answer(None, request_id, "ENTRIES")
            for record in read_records(entries.tail, entries.first, entries.count, previous):
                previous = record.prefix
                yield record
            if entries.end:
                return

    def command(self, line):
        """The bytes that the text gateway answers to a line."""
        request_id = self._take_ids()
        self.connection.send(Message("COMMAND", id=request_id, end=True, tail=line.encode()))
        pieces = []
        while True:
            reply = self._answer(None, request_id, "COMMAND_REPLY")
            pieces.append(reply.tail)
            if reply.end:
                return b"".join(pieces)
