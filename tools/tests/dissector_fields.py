"""What the Wireshark dissector must show for a frame, written down message by message after protocol.md."""

import time
from collections import namedtuple

import repository  # noqa: F401 (it leads to replog_wire)

import replog_wire as wire

# A field as tshark prints it: its name behind "replog.", its value, and, where numbers have names, the name.
Field = namedtuple("Field", "name value word")


def field(name, value, word=None):
    if isinstance(value, bool):
        value = int(value)
    return Field(name, value.hex() if isinstance(value, bytes) else str(value), word)


def hexadecimal(name, value, digits, word=None):
    return Field(name, f"0x{value:0{digits}x}", word)


def variant(name, value, names):
    """An enum: the number of the variant, by its name, and the variant's own field if it has one."""
    word, inner = value if isinstance(value, tuple) else (value, None)
    yield field(name, names.index(word), word)
    if inner is not None:
        yield field(f"{name}.{word}", inner)


def concern(message):
    yield from variant("concern", message.concern, ("default", "nodes", "majority", "all"))
    yield from variant("ack", message.ack, ("default", "stored", "received"))
    yield from variant("timeout", message.timeout, ("default", "forever", "micros"))


def level(message):
    return variant("level", message.level, ("local", "committed", "all", "nodes"))


def levels(message):
    yield field("commit", message.levels.commit)
    for position in message.levels.held_by:
        yield field("held_by", position)


def refusal(it):
    yield field("refusal.code", it.code, wire.REQUEST_CODES.get(it.code))
    yield field("refusal.class", "REJECTED" if it.code < 100 else "ERR")
    yield field("detail", it.detail)


def records(message):
    for record in wire.records_of(message):
        yield field("record", "")
        for name, at in (("header", 0), ("body", 4)):
            yield hexadecimal(f"record.{name}_checksum", int.from_bytes(record.raw[at:at + 4], "little"), 8)
            yield field(f"record.{name}_checksum.status", 1, "good")
        yield hexadecimal("record.digest", record.digest, 16)
        yield field("record.length", len(record.raw) - wire.RECORD_HEADER_BYTES)
        yield hexadecimal("record.flags", record.flags, 4)
        yield field("record.flags.producer", bool(record.flags & wire.PRODUCER_FLAG))
        yield hexadecimal("record.reserved", 0, 4)
        yield field("record.seq", record.seq)
        yield field("record.epoch", record.epoch)
        yield field("record.time", time_shown(record.time))
        if record.producer:
            yield field("record.producer.id", record.producer[0].decode())
            yield field("record.producer.number", record.producer[1])
        yield field("record.payload_length", len(record.payload))
        if record.payload:
            yield field("record.payload", record.payload)


def time_shown(milliseconds):
    moment = time.gmtime(milliseconds // 1000)
    return time.strftime("%Y-%m-%dT%H:%M:%S", moment) + f".{milliseconds % 1000:03}000000Z"


def hello(m):
    yield field("version_min", m.version_min)
    yield field("version_max", m.version_max)
    yield from variant("role", m.role, ("master", "secondary", "client"))
    yield field("node_id", m.node_id)
    yield field("peer_id", m.peer_id)
    if m.log_id is not None:
        yield field("log_id", m.log_id)
    yield field("epoch", m.epoch)
    yield hexadecimal("run_id", m.run_id, 16)
    for epoch, first in m.epoch_table:
        yield field("epoch_table.epoch", epoch)
        yield field("epoch_table.first", first)
    yield field("stored", m.stored)
    yield field("tail_epoch", m.tail_epoch)
    yield hexadecimal("tail_digest", m.tail_digest, 16)
    yield field("settled", m.settled)
    yield field("commit", m.commit)
    yield field("vouches", m.vouches)
    for node in m.roster:
        yield field("roster", node)
    yield field("master_addr", m.master_addr)
    yield field("frame_bytes_max", m.frame_bytes_max)
    yield field("payload_bytes_max", m.payload_bytes_max)
    yield field("window_bytes", m.window_bytes)


def append(m):
    for name in ("epoch", "first", "count", "previous_epoch"):
        yield field(name, getattr(m, name))
    yield hexadecimal("previous_digest", m.previous_digest, 16)
    yield from levels(m)
    yield from records(m)


def ack(m):
    for name in ("epoch", "stored", "received"):
        yield field(name, getattr(m, name))
    for first, last in m.held:
        yield field("held.first", first)
        yield field("held.last", last)
    yield field("duplicates", m.duplicates)


def align(m):
    for name in ("epoch", "last", "last_epoch"):
        yield field(name, getattr(m, name))
    yield hexadecimal("last_digest", m.last_digest, 16)


def fetched(m):
    for name in ("epoch", "first", "count"):
        yield field(name, getattr(m, name))
    yield from records(m)


def append_request(m):
    yield field("id", m.id)
    yield field("count", m.count)
    yield from concern(m)
    if m.producer is not None:
        yield field("producer.id", m.producer[0])
        yield field("producer.number", m.producer[1])
    if m.match_seq is not None:
        yield field("match_seq", m.match_seq)
    yield field("atomic", m.atomic)
    for payload in wire.split_payloads(m.tail, m.count):
        yield field("payload.length", len(payload))
        if payload:
            yield field("payload", payload)


def append_reply(m):
    yield field("id", m.id)
    yield field("count", m.count)
    outcome, details = m.outcome
    yield field("outcome", ("ok", "pending", "unknown", "refused").index(outcome), outcome)
    if outcome == "refused":
        yield from refusal(details)
        return
    for name in ("seq", "epoch", "need"):
        yield field(name, getattr(details, name))
    yield field("holders", ", ".join(str(place) for place in range(128) if details.holders >> place & 1))


def read_request(m):
    yield field("id", m.id)
    yield field("from", m.from_)
    if m.limit is not None:
        yield field("limit", m.limit)
    yield from level(m)


def entries(m):
    for name in ("id", "first", "count", "next", "commit", "end"):
        yield field(name, getattr(m, name))
    yield from records(m)


def text(name):
    def fields(m):
        yield field("id", m.id)
        yield field("end", m.end)
        if m.tail:
            yield field(name, m.tail)
    return fields


HEADS = {
    "HELLO": hello,
    "REFUSE": lambda m: [
        field("refuse.code", m.code, wire.REFUSE_CODES.get(m.code)), field("epoch", m.epoch),
        field("reason", m.reason)],
    "APPEND": append,
    "ACK": ack,
    "NACK": lambda m: [
        field("epoch", m.epoch), field("seq", m.seq), field("nack.code", m.code, wire.NACK_CODES.get(m.code)),
        field("reason", m.reason)],
    "HEARTBEAT": lambda m: [field("epoch", m.epoch), field("number", m.number), *levels(m)],
    "HEARTBEAT_ACK": lambda m: [field("epoch", m.epoch), field("number", m.number)],
    "ALIGN": align,
    "FETCH": lambda m: [field("epoch", m.epoch), field("first", m.first), field("last", m.last)],
    "FETCHED": fetched,
    "APPEND_REQUEST": append_request,
    "APPEND_REPLY": append_reply,
    "WAIT_REQUEST": lambda m: [field("id", m.id), field("seq", m.seq), *concern(m)],
    "READ_REQUEST": read_request,
    "TAIL_REQUEST": lambda m: [field("id", m.id), *variant("start", m.start, ("new", "from", "last")), *level(m)],
    "CANCEL": lambda m: [field("id", m.id)],
    "ENTRIES": entries,
    "REQUEST_REFUSED": lambda m: [field("id", m.id), *refusal(m.refusal)],
    "COMMAND": text("line"),
    "COMMAND_REPLY": text("text"),
}

# A frame: the packet in which it ends, how long it is, its type's name, and its fields.
Frame = namedtuple("Frame", "packet size kind fields")


def expected_frame(packet, frame_type, body):
    message = wire.decode_message(frame_type, body)
    checksum = int.from_bytes(wire.encode_frame(frame_type, body)[12:16], "little")
    header = [
        hexadecimal("magic", 0x524C, 4), field("version", 1), hexadecimal("type", frame_type, 2, message.kind),
        hexadecimal("flags", 0, 8), field("length", len(body)), hexadecimal("checksum", checksum, 8),
        field("checksum.status", 1, "good")]
    return Frame(packet, wire.HEADER_BYTES + len(body), message.kind, header + list(HEADS[message.kind](message)))
