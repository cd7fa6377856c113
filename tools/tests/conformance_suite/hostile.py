"""Peers that keep no rule, and what a node of either role must do with them: the same checks for a master and a
secondary. `register` adds them to a suite; a node under test has to know `connect`, `client`, `snapshot`,
`still_works` and `memory`."""

import random
import re
import resource
import socket
import threading
import time
from types import SimpleNamespace

import replog_wire as wire
from replog_wire import Message, encode_frame, hello, levels

from .common import (
    INTRODUCTION, PATIENCE, REFUSALS_SEEN, ClientSide, Failure, NotRun, append_request, flipped, holds, introduced,
    refused, request_code, same, wait_for)

SOON = 3.0  # before a node gives up on silence, so that it cannot be that which ends the connection
MEBI = 1 << 10  # in KiB, the unit of memory here

ABSURD = b"\xfd" + (1 << 60).to_bytes(8, "little")
MOST = b"\xfd" + b"\xff" * 8

_LEVELS = levels(0)
SAMPLES = [
    Message("REFUSE", code=16, epoch=0, reason="busy"),
    Message("APPEND", epoch=1, first=1, count=1, previous_epoch=0, previous_digest=0, levels=_LEVELS,
            tail=wire.build_record(wire.EMPTY, 1, b"x", 0)),
    Message("ACK", epoch=1, stored=0, received=0, held=[], duplicates=0),
    Message("NACK", epoch=1, seq=1, code=1, reason=""),
    Message("HEARTBEAT", epoch=1, number=1, levels=_LEVELS),
    Message("HEARTBEAT_ACK", epoch=1, number=1),
    Message("ALIGN", epoch=1, last=0, last_epoch=0, last_digest=0),
    Message("FETCH", epoch=1, first=1, last=1),
    Message("FETCHED", epoch=1, first=1, count=0),
    append_request(1, b""),
    Message("APPEND_REPLY", id=1, count=1, outcome=("refused", REFUSED := SimpleNamespace(code=11, detail=""))),
    Message("WAIT_REQUEST", id=1, seq=1, concern="default", ack="default", timeout="default"),
    Message("READ_REQUEST", id=1, from_=1, limit=1, level="local"),
    Message("TAIL_REQUEST", id=1, start="new", level="local"),
    Message("CANCEL", id=1),
    Message("ENTRIES", id=1, first=1, count=0, next=1, commit=0, end=True),
    Message("REQUEST_REFUSED", id=1, refusal=REFUSED),
    Message("COMMAND", id=1, end=True, tail=b"PING"),
    Message("COMMAND_REPLY", id=1, end=True, tail=b"PONG\n"),
]
FROM_CLIENTS = {"APPEND_REQUEST", "WAIT_REQUEST", "READ_REQUEST", "TAIL_REQUEST", "CANCEL", "COMMAND"}


def sample(kind):
    return next(one for one in SAMPLES if one.kind == kind)


# Of a frame that is wrong in its header only the header is sent: bytes that a closing node has not read may cost the
# REFUSE before them.

def header(frame_type=0x01, length=0, **changes):
    frame = encode_frame(frame_type, b"", **changes)
    return frame[:8] + length.to_bytes(4, "little") + frame[12:]


def with_raw(message, behind=b"", **raw):
    """The frame of a message in which some fields are replaced by raw bytes; its checksum is right."""
    body = bytearray()
    for name, kind in wire.MESSAGES[message.kind].head.fields.items():
        if name in raw:
            body += raw[name]
        else:
            kind.write(body, getattr(message, name))
    return encode_frame(wire.MESSAGES[message.kind].number, bytes(body) + message.tail + behind)


def attack(node, state, data, *codes, patience=PATIENCE, silent_close=False):
    connection = state(node)
    before = node.snapshot()
    connection.send_bytes(data)
    refused(connection, *codes, patience=patience, silent_close=silent_close, skip=("HEARTBEAT_ACK", "ACK", "ENTRIES"))
    node.still_works(before)


def fresh(node):
    return node.connect()


def as_client(node):
    return node.client().connection


def prompt(node):
    """The node answers a new client at once, whatever else goes on."""
    start = time.monotonic()
    node.client().ping()
    took = time.monotonic() - start
    holds(took < SOON, f"a new client's PING took {took:.1f} s, at most {SOON:.0f} s are allowed")
    return took


def grew(node, before, most):
    """Fails if the node's memory grew by more; a note of what it was."""
    after = node.memory()
    if before is None or after is None:
        return "memory not looked at: no --pid"
    holds(after - before <= most, f"resident memory went from {before} to {after} KiB; {most} KiB more are allowed")
    return f"{before} → {after} KiB"


def shrug(connection, data):
    """Sends bytes and looks whether the node says something; all that counts is what it does for others later."""
    try:
        connection.send_bytes(data)
        while True:
            connection.receive(0.02)
    except (wire.Closed, TimeoutError, OSError):
        pass
    connection.close()


def client_hello(**changes):
    return hello("client", **({"node_id": "conformance"} | changes))


def register(suite, who, *, filled, appended):
    """Adds the checks to a suite. `who` is "A master" or "A secondary"; `filled(node, volume)` makes sure that the
    node's log has some bytes to be read, and returns their number; `appended(node, payload)` that its last entry is
    this."""
    check = suite.check

    def hostile(name, page, says, state, data_of, *codes, patience=PATIENCE, silent_close=False):
        @check(name, page, says)
        def _(node):
            attack(node, state, data_of(node), *codes, patience=patience, silent_close=silent_close)

    # -----------------------------------------------------------------------------------------------------------------
    suite.section("Frames that are wrong")

    hostile("magic-first", "2", f"{who} must refuse a wrong first byte bad-frame.", fresh,
            lambda _: header(magic=b"\x53\x4c"), "bad-frame")
    hostile("magic-second", "2", f"{who} must refuse a wrong second byte bad-frame.", fresh,
            lambda _: header(magic=b"\x52\x4d"), "bad-frame")
    hostile("magic-early", "2", "… as soon as it is there.", fresh, lambda _: b"\x52\x00",
            "bad-frame", patience=SOON)
    hostile("magic-earliest", "2", "… the first one alone.", fresh, lambda _: b"G", "bad-frame", patience=SOON)
    hostile("magic-later", "2", "… and between good frames.", as_client,
            lambda _: header(magic=b"\x52\x4d"), "bad-frame")
    hostile("http", "2", f"{who} must refuse a browser bad-frame.", fresh,
            lambda _: b"GET / HTTP/1.1\r\n\r\n", "bad-frame")
    for version in (0, 2, 255):
        hostile(f"version-{version}", "2",
                f"{who} must refuse version {version} in a header unknown-version, as soon as it is there.", fresh,
                lambda _, version=version: header(version=version)[:3], "unknown-version", patience=SOON)
    hostile("flags-low", "2", f"{who} must refuse flag 0 bad-frame.", fresh, lambda _: header(flags=1), "bad-frame")
    hostile("flags-high", "2", "… and flag 31.", fresh, lambda _: header(flags=1 << 31), "bad-frame")
    hostile("flags-later", "2", "… and a flag after the introduction.", as_client,
            lambda _: header(0x48, flags=1 << 8), "bad-frame")
    hostile("longest", "2", f"{who} must refuse an announced body of 2^32-1 bytes frame-too-long, by the header alone.",
            fresh, lambda _: header(length=(1 << 32) - 1), "frame-too-long", patience=SOON)
    hostile("longest-client", "2", "… from a client likewise.", as_client,
            lambda _: header(0x48, length=(1 << 32) - 1), "frame-too-long", patience=SOON)
    hostile("over-8k", "7.1.1", f"{who} must refuse a body of 8 KiB and a byte before the introduction frame-too-long.",
            fresh, lambda _: header(length=wire.BODY_MAX_BEFORE_HELLO + 1), "frame-too-long", patience=SOON)
    hostile("exactly-8k", "7.1.1", f"{who} must take 8 KiB before the introduction (here with a wrong checksum, "
                                   f"which is judged).",
            fresh, lambda _: header(length=wire.BODY_MAX_BEFORE_HELLO) + bytes(wire.BODY_MAX_BEFORE_HELLO),
            "bad-checksum")
    hostile("over-limit", "7.9.17", f"{who} must refuse a client's body of a byte over its frame_bytes_max "
                                   f"frame-too-long.",
            as_client, lambda node: header(0x48, length=node.client().answer.frame_bytes_max + 1), "frame-too-long",
            patience=SOON)

    for frame_type in (0x00, 0x03, 0x18, 0x20, 0x4A, 0x80, 0xF0, 0xFF):
        hostile(f"type-{frame_type:02x}", "5", f"{who} must refuse a frame of the unknown type {frame_type:#04x} "
                                               f"unknown-frame.",
                as_client, lambda _, frame_type=frame_type: encode_frame(frame_type, b"what"), "unknown-frame")
    hostile("type-fresh", "5", "… before the introduction likewise.", fresh,
            lambda _: encode_frame(0x7F, b""), "unknown-frame")
    hostile("checksum", "2", f"{who} must refuse a HELLO with a wrong checksum bad-checksum.", fresh,
            lambda _: flipped(client_hello().encode(), 12), "bad-checksum")
    hostile("checksum-body", "2", f"{who} must refuse a HELLO with a changed body bad-checksum.", fresh,
            lambda _: flipped(client_hello().encode(), 30), "bad-checksum")
    hostile("checksum-later", "2", f"{who} must refuse a command with a wrong checksum bad-checksum.", as_client,
            lambda _: flipped(Message("COMMAND", id=1, end=True, tail=b"PING").encode(), 15), "bad-checksum")
    hostile("checksum-first", "2", f"{who} must judge the checksum before the type.", as_client,
            lambda _: flipped(encode_frame(0x7F, b"what"), 12), "bad-checksum")

    for one in SAMPLES:
        if one.kind != "REFUSE":
            name = one.kind.lower().replace("_", "-")
            hostile(f"fresh-{name}", "7.1.2", f"{who} must refuse {one.kind} before the introduction no-introduction.",
                    fresh, lambda _, one=one: one.encode(), "no-introduction")
    hostile("fresh-malformed", "7.1.2", f"{who} must judge a malformed frame before the introduction as it judges it "
                                        "later: bad-frame.", fresh,
            lambda _: encode_frame(wire.MESSAGES["HEARTBEAT"].number, b"\x01"), "bad-frame")

    @check("fresh-refuse", "7.1.8", f"{who} must not answer a REFUSE, not even as the first frame: it closes.")
    def _(node):
        before = node.snapshot()
        for connection in (node.connect(), as_client(node)):
            connection.send(sample("REFUSE"))
            try:
                raise Failure(f"a REFUSE was answered by {connection.receive()}")
            except wire.Closed:
                pass
        node.still_works(before)

    for one in SAMPLES:
        name = one.kind.lower().replace("_", "-")
        if one.kind not in FROM_CLIENTS | {"REFUSE"}:
            hostile(f"client-{name}", "5", f"{who} must refuse {one.kind} from a client bad-frame.", as_client,
                    lambda _, one=one: one.encode(), "bad-frame")
        else:
            hostile(f"empty-{name}", "2", f"{who} must refuse {one.kind} without a body bad-frame.", as_client,
                    lambda _, one=one: encode_frame(wire.MESSAGES[one.kind].number, b""), "bad-frame",
                    silent_close=one.kind == "REFUSE")  # nobody has to argue with a REFUSE
    hostile("second-hello", "5", f"{who} must refuse a second HELLO of a client bad-frame.", as_client,
            lambda _: client_hello().encode(), "bad-frame")

    def bad_hello(name, says, **raw):
        hostile(name, "3", says, fresh, lambda _: with_raw(client_hello(), **raw), "bad-frame")

    bad_hello("trailing-hello", f"{who} must refuse a byte behind a HELLO bad-frame.", behind=b"\0")
    for kind in ("WAIT_REQUEST", "READ_REQUEST", "TAIL_REQUEST", "CANCEL"):
        hostile(f"trailing-{kind.lower().replace('_', '-')}", "2", f"… and a byte behind a {kind}.", as_client,
                lambda _, kind=kind: with_raw(sample(kind), b"\0"), "bad-frame")
    bad_hello("absurd-epochs", f"{who} must refuse an epoch table of 2^60 rows bad-frame.", epoch_table=ABSURD)
    bad_hello("absurd-roster", "… and a roster of 2^60 nodes.", roster=ABSURD)
    bad_hello("absurd-string", "… and a node id of 2^60 bytes.", node_id=ABSURD)
    bad_hello("absurd-most", "… and a roster of 2^64-1 nodes.", roster=MOST)
    bad_hello("not-utf8", f"{who} must refuse a string that is not UTF-8 bad-frame.", node_id=b"\x02\xff\xfe")
    bad_hello("surrogate", "… and a lone surrogate.", node_id=b"\x03\xed\xa0\x80")
    hostile("long-name", "7.1.4", f"{who} must refuse a client's name of 65 bytes bad-frame.", fresh,
            lambda _: client_hello(node_id="n" * 65).encode(), "bad-frame")
    hostile("long-name-version", "7.1.4", "… but judge the versions before.", fresh,
            lambda _: client_hello(node_id="n" * 65, version_min=2, version_max=3).encode(), "unknown-version")

    @check("ignored-fields", "6", f"{who} must ignore what a client's HELLO has no use for, whatever it says.")
    def _(node):
        connection = node.connect()
        connection.send(client_hello(
            peer_id="nobody", epoch=1 << 40, run_id=7, epoch_table=[(3, 9), (3, 1)], stored=5, vouches=True,
            roster=["?", ""], master_addr="\n", payload_bytes_max=1, window_bytes=1))
        same("the answer", connection.receive().kind, "HELLO")

    bad_hello("bad-bool", f"{who} must refuse a bool of 2 bad-frame.", vouches=b"\x02")
    bad_hello("bad-option", "… and an option of 2.", log_id=b"\x02" + bytes(16))
    bad_hello("bad-role", "… and role 3.", role=b"\x03")
    bad_hello("bad-marker", f"{who} must refuse the marker ff bad-frame.", stored=b"\xff" + bytes(16))
    bad_hello("wide-u32", "… and a u32 of eight bytes.", frame_bytes_max=b"\xfd" + bytes(8))
    bad_hello("wide-u64", "… and a u64 of sixteen bytes.", epoch=b"\xfe" + bytes(16))
    hostile("bad-level", "3", f"{who} must refuse a READ_REQUEST of level 4 bad-frame.", as_client,
            lambda _: with_raw(sample("READ_REQUEST"), level=b"\x04"), "bad-frame")
    hostile("wide-u16", "3", f"{who} must refuse a u16 of four bytes bad-frame.", as_client,
            lambda _: with_raw(sample("READ_REQUEST"), level=b"\x03\xfc" + bytes(4)), "bad-frame")
    hostile("append-tail-short", "7.9.3", f"{who} must refuse an APPEND_REQUEST whose last payload is cut "
                                          f"bad-frame.", as_client,
            lambda _: _request_with_tail(2, b"\x03\0\0\0abc\x03\0\0\0de"), "bad-frame")
    hostile("append-tail-long", "7.9.3", "… and one with bytes behind the last payload.", as_client,
            lambda _: _request_with_tail(1, b"\x03\0\0\0abcd"), "bad-frame")
    hostile("append-none", "7.9.3", f"{who} must refuse an APPEND_REQUEST of no entries bad-frame.", as_client,
            lambda _: _request_with_tail(0, b""), "bad-frame")

    @check("longer-forms", "3", "A number may be written in a longer form than needed: it is understood, or refused "
           "bad-frame.")
    def _(node):
        connection = node.connect()
        connection.send_bytes(with_raw(client_hello(), stored=b"\xfd" + bytes(8), commit=b"\xfb\0\0"))
        answer = connection.receive()
        code = wire.REFUSE_CODES.get(answer.code) if answer.kind == "REFUSE" else None
        holds(answer.kind == "HELLO" or code == "bad-frame", f"the answer is {answer}")
        return "understood" if answer.kind == "HELLO" else "refused"

    @check("short-bodies", "2", f"{who} must refuse a HELLO whose body ends early, at each of its bytes, under a right "
           "checksum bad-frame.")
    def _(node):
        body = client_hello().body()
        before = node.snapshot()
        for cut in range(len(body)):
            connection = node.connect()
            connection.send_bytes(encode_frame(0x01, body[:cut]))
            refused(connection, "bad-frame")
            connection.close()
        node.still_works(before)

    # -----------------------------------------------------------------------------------------------------------------
    suite.section("Slow, half-open and broken connections")

    @check("silence", "7.1.1", f"{who} must end a connection without a whole HELLO within 5 s with no-introduction: "
           f"one that "
           "is silent, one that stopped in the middle, and one that sends a byte every 200 ms.")
    def _(node):
        before = node.snapshot()
        start = time.monotonic()
        silent, halfway, dripping = node.connect(), node.connect(), node.connect()
        frame = client_hello(node_id="d" * 40).encode()
        halfway.send_bytes(frame[:20])
        stop = threading.Event()

        def drip():
            try:
                for byte in frame[:-1]:
                    dripping.send_bytes(bytes([byte]))
                    if stop.wait(0.2):
                        return
            except (OSError, wire.Closed):
                pass
        dripper = threading.Thread(target=drip, daemon=True)
        dripper.start()
        took = []
        try:
            for connection in (silent, halfway, dripping):
                refused(connection, "no-introduction", patience=max(1.0, start + INTRODUCTION - time.monotonic()))
                took.append(time.monotonic() - start)
        finally:
            stop.set()
            dripper.join(PATIENCE)
        holds(took[0] > 4.0, f"given up after {took[0]:.1f} s already")
        node.still_works(before)
        return "after " + ", ".join(f"{seconds:.1f}" for seconds in took) + " s"

    def trickle(connection, data, pause, every=1):
        for at, byte in enumerate(data):
            connection.send_bytes(bytes([byte]))
            if at % every == 0:
                time.sleep(pause)  # so that the bytes do not travel together: that is the point

    @check("drip", "2", f"{who} must understand frames that come one byte at a time.")
    def _(node):
        connection = node.connect()
        trickle(connection, client_hello().encode(), 0.001, 8)
        same("the answer", connection.receive().kind, "HELLO")
        trickle(connection, Message("READ_REQUEST", id=1, from_=1 << 60, limit=None, level="local").encode(), 0.001, 8)
        answer = connection.receive()
        same("the answer", (answer.kind, answer.count, answer.end), ("ENTRIES", 0, True))

    @check("drip-slowly", "7.1.1", "… and one byte each 30 ms, if the HELLO is whole within 5 s; after it there is "
           "no hurry.")
    def _(node):
        connection = node.connect()
        trickle(connection, client_hello().encode(), 0.03)
        same("the answer", connection.receive().kind, "HELLO")
        trickle(connection, Message("COMMAND", id=1, end=True, tail=b"PING slowly").encode(), 0.03)
        answer = connection.receive()
        same("the answer", (answer.kind, answer.tail), ("COMMAND_REPLY", b"PONG slowly\n"))

    @check("together", "2", f"{who} must understand frames that come all at once, one by one.")
    def _(node):
        connection = node.connect()
        ask_all = [Message("READ_REQUEST", id=i, from_=1, limit=1, level="local") for i in range(1, 11)]
        connection.send_bytes(b"".join(m.encode() for m in [client_hello(), *ask_all]))
        same("the first answer", connection.receive().kind, "HELLO")
        ended = set()
        while len(ended) < len(ask_all):
            frame = wait_for(connection, "expected: ENTRIES", lambda m: m.kind == "ENTRIES", ())
            if frame.end:
                ended.add(frame.id)

    exchange = [client_hello(), Message("COMMAND", id=1, end=True, tail=b"PING hi"),
                Message("READ_REQUEST", id=2, from_=1, limit=2, level="local"),
                Message("WAIT_REQUEST", id=3, seq=1 << 60, concern="default", ack="default", timeout=("micros", 0))]
    lengths = [len(one.encode()) for one in exchange]

    @check("cuts", "2", "A connection that ends at any byte of a whole exchange must do no harm.")
    def _(node):
        before = node.snapshot()
        whole = b"".join(one.encode() for one in exchange)
        for cut in range(1, len(whole)):
            connection = node.connect()
            connection.send_bytes(whole[:cut])
            connection.close()
            if cut % 32 == 0:
                node.still_works(before)
        node.still_works(before)
        return f"{len(whole) - 1} cuts"

    @check("cuts-half", "7.9.21", "A peer that shuts its sending side at any byte of an exchange must get no answer "
           "but to the frames that were whole, and the end of the connection.")
    def _(node):
        before = node.snapshot()
        whole = b"".join(one.encode() for one in exchange)
        connections = []
        for cut in range(0, len(whole) + 1):
            connection = node.connect()
            connection.send_bytes(whole[:cut])
            connection.socket.shutdown(socket.SHUT_WR)
            connections.append((cut, connection))
        ends = [sum(lengths[:index + 1]) for index in range(len(lengths))]
        for cut, connection in connections:
            complete = sum(cut >= end for end in ends)
            got = []
            try:
                while True:
                    message = connection.receive(INTRODUCTION)
                    if message.kind == "REFUSE" or not (message.kind == "ENTRIES" and not message.end):
                        got.append(message)
            except wire.Closed:
                pass
            except TimeoutError as error:
                raise Failure(f"cut at byte {cut}: the connection does not end") from error
            answers = [one for one in got if one.kind != "REFUSE"]
            # Requests may be answered in any order and dropped with the peer, but nothing that was not asked comes.
            holds(len(answers) <= complete, f"cut at byte {cut}: {complete} frames were whole, the answers are {got}")
            if complete:
                same(f"cut at byte {cut}: the first answer", got[0].kind, "HELLO")
        node.still_works(before)

    @check("half-open-answered", "7.9.21", "A client that shuts its sending side behind whole requests is answered "
           "before the end.")
    def _(node):
        client = node.client()
        client.send_command("PING last words")
        client.connection.socket.shutdown(socket.SHUT_WR)
        reply = client.answers(client.last_id, "COMMAND_REPLY", lambda m: m.end)[-1]
        same("the answer", reply.tail, b"PONG last words\n")
        try:
            message = client.connection.receive()
            raise Failure(f"more came: {message}")
        except wire.Closed:
            pass

    @check("half-open-tail", "7.9.21", "A client that shuts its sending side behind a TAIL_REQUEST gets what is there, "
           "the end of the tail, and the end of the connection.")
    def _(node):
        filled(node, 1 << 16)
        client = node.client()
        tail = client.request("TAIL_REQUEST", start=("last", 2), level="local")
        client.connection.socket.shutdown(socket.SHUT_WR)
        frames = client.answers(tail, "ENTRIES", lambda frame: frame.end)
        same("entries", sum(frame.count for frame in frames), 2)
        try:
            raise Failure(f"more came: {client.connection.receive()}")
        except wire.Closed:
            pass

    @check("frame-bytes-max", "7.9.11", f"{who} must keep a client's frame_bytes_max: pieces of an answer are cut for "
           "it, and less than 8 KiB counts as 8 KiB.")
    def _(node):
        for most in (8192, 10_000, 1, 0):
            client = introduced_client(node, frame_bytes_max=most)
            text = b"t" * 30_000
            client.send_command(b"PING " + text)
            got, pieces = b"", 0
            while True:
                number, body = client.connection.receive_frame()
                holds(len(body) <= max(most, 8192), f"a body of {len(body)} bytes to a client that takes {most}")
                message = wire.decode_message(number, body)
                got, pieces = got + message.tail, pieces + 1
                if message.end:
                    break
            same("the answer", got, b"PONG " + text + b"\n")
            holds(pieces > 2, f"{len(got)} bytes in {pieces} pieces")

    @check("frame-bytes-long", "7.9.11", "… and end a read or a tail with REQUEST_REFUSED too-long at an entry that "
           "does not fit.")
    def _(node):
        appended(node, b"L" * min(20_000, node.client().answer.payload_bytes_max))
        client = introduced_client(node, frame_bytes_max=8192)
        large = client.answer.stored
        request = client.request("READ_REQUEST", from_=large, limit=1, level="local")
        same("the code of a read", client.refusal(request)[0], "too-long")
        request = client.request("TAIL_REQUEST", start=("last", 1), level="local")
        same("the code of a tail", client.refusal(request)[0], "too-long")
        client.connection.send(Message("CANCEL", id=request))  # it has ended: nothing more comes of it
        client.ping()
        reader = node.client()
        same("who takes more", len(reader.read(large, limit=1)[0]), 1)

    @check("request-ids", "7.9.1", "A request id may be 0, and be used again once its answer came.")
    def _(node):
        client = node.client()
        for request in (0, 0, (1 << 64) - 1, 5, 5):
            client.connection.send(Message("COMMAND", id=request, end=True, tail=b"PING"))
            answer = client.connection.receive()
            same("kind, id, end, tail", (answer.kind, answer.id, answer.end, answer.tail),
                 ("COMMAND_REPLY", request, True, b"PONG\n"))

    @check("read-ends", "7.9.7", "A read of 0 entries, or from beyond the end, must be one ENTRIES without any, its end.")
    def _(node):
        filled(node, 1 << 16)
        client = node.client()
        for first, limit in ((1, 0), (1 << 60, None), (1 << 60, 5), ((1 << 64) - 1, None)):
            request = client.request("READ_REQUEST", from_=first, limit=limit, level="local")
            frames = client.answers(request, "ENTRIES", lambda frame: frame.end)
            same(f"frames of a read from {first}, limit {limit}",
                 [(frame.first, frame.count, frame.end) for frame in frames], [(0, 0, True)])

    @check("tail-last-0", "7.9.7", "A tail of the last 0 must be one of new entries, and one from beyond the end must "
           "wait.")
    def _(node):
        filled(node, 1 << 16)
        client = node.client()
        for start in (("last", 0), ("from", 1 << 60)):
            request = client.request("TAIL_REQUEST", start=start, level="local")
            client.ping()
            client.connection.send(Message("CANCEL", id=request))
            frames = client.answers(request, "ENTRIES", lambda frame: frame.end)
            same(f"entries of a tail from {start}", sum(frame.count for frame in frames), 0)
            same("its last frame", (frames[-1].first, frames[-1].end), (0, True))

    @check("cancel-read", "7.9.8", "A CANCEL must end a read with an ENTRIES that has none, or come too late.")
    def _(node):
        filled(node, 2 << 20)
        client = node.client()
        request = client.request("READ_REQUEST", from_=1, limit=None, level="local")
        client.connection.send(Message("CANCEL", id=request))
        client.answers(request, "ENTRIES", lambda frame: frame.end)
        client.ping()  # and nothing more of it comes

    @check("line-ends", "7.9.12", "A line end at the end of a COMMAND must be taken off; a blank line, empty or of spaces "
           "only, must be answered by one empty piece.")
    def _(node):
        client = node.client()
        for line, answer in ((b"PING x\n", b"PONG x\n"), (b"ping x\r\n", b"PONG x\n"), (b"PING x\r", None),
                             (b"", b""), (b"\n", b""), (b"   ", b""), (b"  \r\n", b"")):
            request = client.send_command(line)
            pieces = client.answers(request, "COMMAND_REPLY", lambda piece: piece.end)
            got = b"".join(piece.tail for piece in pieces)
            same(f"the answer to {line!r}", got, got if answer is None else answer)
            holds(answer != b"" or len(pieces) == 1, f"{len(pieces)} pieces for a blank line")

    @check("line-bytes", "7.9.12", "A COMMAND's line need not be UTF-8: PING gives its text back, and a verb that is none "
           "is unknown.")
    def _(node):
        client = node.client()
        client.send_command(b"PING \xff\xfe\x00x")
        same("the answer", client.answers(client.last_id, "COMMAND_REPLY", lambda m: m.end)[-1].tail,
             b"PONG \xff\xfe\x00x\n")
        client.send_command(b"\xff\xfe")
        answer = client.answers(client.last_id, "COMMAND_REPLY", lambda m: m.end)[-1].tail
        holds(answer.startswith(b"ERR unknown-verb "), f"the answer to a verb that is none: {answer!r}")

    @check("verbs", "7.9.15", f"{who} must answer the verbs that other nodes' tools rely on, in their form.")
    def _(node):
        filled(node, 1 << 16)
        client = node.client()
        role, end = client.answer.role, client.answer
        same("DIGEST", client.command("DIGEST").split()[:4],
             [b"OK", b"seq=%d" % end.stored, b"epoch=%d" % end.tail_epoch, b"digest=%016x" % end.tail_digest])
        same("DIGEST of entry 1", client.command("DIGEST 1").split()[:2], [b"OK", b"seq=1"])
        holds(client.command("DIGEST 999999999999").startswith(b"ERR not-found "), "DIGEST beyond the end")
        same("DIGEST 0", client.command("DIGEST 0"), b"OK seq=0 epoch=0 digest=0000000000000000\n")
        holds(client.command("DIGEST x").startswith(b"ERR bad-value "), "DIGEST of what is no number")
        status = client.command("STATUS").decode().splitlines()
        said = dict(word.split("=", 1) for word in status[0].split() if "=" in word)
        same("id, role, epoch, log_id", [said.get(key) for key in ("id", "role", "epoch", "log_id")],
             [end.node_id, role, str(end.epoch), end.log_id.hex()])
        holds(int(said["next"]) > end.stored and int(said["commit"]) <= end.stored, f"next and commit: {status[0]}")
        holds(status[0].startswith("node ") and status[-1] == "END", f"the lines of STATUS: {status}")
        holds(all(line.split()[0] in ("secondary", "master") for line in status[1:-1]), f"the lines of STATUS: {status}")
        health = client.command("HEALTH").split()
        holds(health[0] == b"OK" and health[1] == b"mode=" + said["mode"].encode(), f"HEALTH: {health}")
        holds(said["mode"] == "normal", f"the mode of a node that lacks nothing: {said['mode']}")
        helped = client.command("HELP").splitlines()
        holds(helped[-1] == b"END" and any(line.split()[0] == b"PING" for line in helped), f"HELP: {helped}")
        listed = client.command("LIST from=1 limit=1").splitlines()
        holds(listed[0].startswith(b"1 ") and listed[-1].startswith(b"END count=1 first=1 last=1 commit="),
              f"LIST: {listed}")
        holds(client.command("NO-SUCH-VERB").startswith(b"ERR unknown-verb "), "an unknown verb")
        same("QUIT", client.command("QUIT"), b"OK\n")
        client.ping()  # the connection lives on

    @check("verb-list", "7.9.15", f"{who} must list by default from entry 1, all, what is local, and say so; an empty list "
           "has neither first nor last.")
    def _(node):
        appended(node, b"the last one")
        client = node.client()
        last = int(client.command("DIGEST").split()[1].removeprefix(b"seq="))

        def end_of(line):
            return [dict(word.split(b"=") for word in words.split()[1:])
                    for words in client.command(line).splitlines()[-1:] if words.startswith(b"END ")][0]

        whole = end_of("LIST")
        same("first, last, count and level of LIST", [whole[key] for key in (b"first", b"last", b"count", b"level")],
             [b"1", b"%d" % last, b"%d" % last, b"local"])
        same("from the last one on", client.command(f"LIST from={last}").splitlines()[0], b"%d the last one" % last)
        for line in ("LIST limit=0", f"LIST from={last + 1}"):
            said = end_of(line)
            same(line, [said[key] for key in (b"count", b"first", b"last")], [b"0", b"-", b"-"])
        for level in ("local", "committed", "all", "1"):
            same("the level", end_of(f"LIST limit=1 level={level}")[b"level"], level.encode())
        for line, code in (("LIST from=0", b"bad-value"), ("LIST level=0", b"bad-value"), ("LIST level=200", b"bad-value"),
                           ("LIST limit=x", b"bad-value"), ("LIST nonsense", b"bad-option"),
                           ("LIST limit=1 limit=1", b"bad-option")):
            same(line, client.command(line).split()[:2], [b"ERR", code])

    @check("verb-get", "7.9.15", f"{who} must show one entry by GET, escaped as LIST escapes it, and say what is not there.")
    def _(node):
        payload = b"a\tb\\c\x01\x7f\r\n\xc3\xbc\xff"
        escaped = b"a\\tb\\\\c\\x01\\x7f\\r\\n\xc3\xbc\xff"
        appended(node, payload)
        client = node.client()
        last = int(client.command("DIGEST").split()[1].removeprefix(b"seq="))
        same("LIST", client.command(f"LIST from={last}").splitlines()[0], b"%d " % last + escaped)
        head, _, shown = client.command(f"GET {last}").partition(b" payload=")
        same("the payload of GET", shown, escaped + b"\n")
        said = dict(word.split(b"=", 1) for word in head.split()[1:])
        same("seq, epoch and bytes of GET", [head.split()[0], said[b"seq"], said[b"epoch"], said[b"bytes"]],
             [b"OK", b"%d" % last, b"%d" % client.answer.tail_epoch, b"%d" % len(payload)])
        holds(re.fullmatch(rb"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", said[b"time"]), f"the time of GET: {said[b'time']}")
        holds((said[b"by"] == b"-") == (client.answer.role == "secondary"), f"who holds it: {said[b'by']}")
        for line in ("GET 0", f"GET {last + 1}", f"DIGEST {last + 1}"):
            same(line, client.command(line).split()[:3], [b"ERR", b"not-found", b"next=%d" % (last + 1)])
        for line, code in (("GET", b"bad-value"), ("GET x", b"bad-value"), ("GET 1 2", b"bad-option")):
            same(line, client.command(line).split()[:2], [b"ERR", code])

    @check("reserved-first", "7.9.3", f"{who} must refuse an APPEND_REQUEST with anything reserved bad-option, before it "
           "looks at role, size and w.")
    def _(node):
        client = node.client()
        for reserved in (dict(producer=("p", 1)), dict(match_seq=1), dict(atomic=True)):
            request = client.send_append(b"x", w=0, **reserved)
            name, details = client.outcomes(request, 1)[0]
            same(f"the outcome of {reserved}", (name, request_code(details)), ("refused", "bad-option"))

    @check("left-at-once", "2", "100 connections that come and go without a word must do no harm.")
    def _(node):
        before = node.snapshot()
        for _ in range(100):
            node.connect().close()
        node.still_works(before)

    @check("reset", "2", "50 connections that end with a reset in the middle of a frame must do no harm.")
    def _(node):
        before = node.snapshot()
        for _ in range(50):
            connection = node.client().connection
            connection.send_bytes(header(0x48, length=5000) + bytes(100))
            connection.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            connection.close()
        node.still_works(before)

    # -----------------------------------------------------------------------------------------------------------------
    suite.section("Floods")

    @check("garbage", "2", "40 connections of random bytes must do no harm.")
    def _(node):
        before = node.snapshot()
        chance = random.Random(2020)
        for round_ in range(40):
            data = chance.randbytes(chance.randrange(1, 4096))
            # Every second one looks like a frame at first.
            shrug(node.connect(), b"\x52\x4c\x01" + data if round_ % 2 else data)
        node.still_works(before)

    @check("random-bodies", "2", "Random bodies under right checksums must do no harm, of any type.")
    def _(node):
        before = node.snapshot()
        chance = random.Random(4711)
        for frame_type in (*wire.NAMES, 0x55):
            if frame_type in (0x40, 0x48):
                continue  # these might be understood, and change something
            for state in (fresh, as_client):
                for _ in range(3):
                    shrug(state(node), encode_frame(frame_type, chance.randbytes(chance.randrange(120))))
        node.still_works(before)

    @check("huge-lengths", "2", "200 connections that announce the largest body and send little must cost little "
           "memory.")
    def _(node):
        before = node.snapshot()
        prompt(node)
        memory = node.memory()
        most = node.client().answer.frame_bytes_max
        peers = [node.client().connection for _ in range(200)]
        for peer in peers:
            peer.send_bytes(header(0x48, length=most) + bytes(64))
        took = prompt(node)
        note = grew(node, memory, 48 * MEBI)
        node.still_works(before)
        return f"{note}; PING {took * 1000:.0f} ms"

    @check("idle-connections", "7.9.20", "500 introduced clients that do nothing must hold up nobody.")
    def _(node):
        if not enough_files(600):
            raise NotRun("too few file descriptors here")
        before = node.snapshot()
        memory = node.memory()
        for _ in range(500):
            node.client()
        took = prompt(node)
        note = grew(node, memory, 64 * MEBI)
        node.still_works(before)
        return f"{note}; PING {took * 1000:.0f} ms"

    @check("connections-max", "7.9.20", f"{who} must refuse one more than connections_max connections busy, and serve "
           f"again when "
           "some are gone.")
    def _(node):
        if not enough_files(2200):
            raise NotRun("too few file descriptors here")
        before = node.snapshot()
        taken = 0
        for _ in range(2048):
            connection = node.connect()
            try:
                connection.send(client_hello())
                answer = connection.receive()
            except wire.Closed as error:
                raise Failure(f"connection {taken + 1} was closed without a REFUSE") from error
            if answer.kind == "REFUSE":
                code = wire.REFUSE_CODES.get(answer.code)
                same(f"the code behind {taken} connections", code, "busy")
                REFUSALS_SEEN.add(code)
                break
            taken += 1
        else:
            raise NotRun("it takes more than 2048 connections")
        operator = node.connect()
        operator.send(client_hello(peer_id="@operator"))
        answer = operator.receive()
        let_in = answer.kind == "HELLO"
        if let_in:
            operator = ClientSide(operator, answer)
            holds(operator.command("HEALTH").startswith(b"OK "), "an operator is not told how the node is")
            request = operator.request("READ_REQUEST", from_=1, limit=1, level="local")
            same("the code of an operator's read", operator.refusal(request)[0], "busy")
            request = operator.send_append(b"x", w=1)
            same("and of its append", request_code(operator.outcomes(request, 1)[0][1]), "busy")
        else:
            same("how an operator is refused", wire.REFUSE_CODES.get(answer.code), "busy")
        node.drop_connections()
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                node.still_works(before)
                break
            except (Failure, wire.Closed):
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.05)
        return f"behind {taken} connections; an operator is {'let in' if let_in else 'refused, too'}"

    @check("many-frames", "7.9.14", "20,000 commands of one client, its answers read, must all be answered in order, "
           "and others meanwhile promptly.")
    def _(node):
        client = node.client()
        memory = node.memory()
        count = 20_000
        data = b"".join(Message("COMMAND", id=i, end=True, tail=b"PING").encode() for i in range(1, 51))
        busy = answered = 0
        for _ in range(count // 50):
            client.connection.send_bytes(data)
            ended = []
            while len(ended) < 50:
                reply = client.connection.receive()
                holds(reply.kind in ("COMMAND_REPLY", "REQUEST_REFUSED"), f"the answer is {reply}")
                busy += reply.kind == "REQUEST_REFUSED"
                if reply.kind == "REQUEST_REFUSED" or reply.end:
                    ended.append(reply.id)
            same("the order of the answers", ended, list(range(1, 51)))
            answered += 50
            if answered % 5000 == 0:
                prompt(node)
        same("refused commands", busy, 0)
        return grew(node, memory, 32 * MEBI)

    @check("never-reads", "7.9.19", "Clients that ask for much and read nothing must hold up nobody, cost bounded "
           "memory, and be closed with slow-reader.")
    def _(node):
        volume = filled(node, 2 << 20)
        before = node.snapshot()
        prompt(node)
        memory = node.memory()
        peers = []
        for _ in range(8):
            client = node.client()
            for _ in range(16):
                client.request("READ_REQUEST", from_=1, limit=None, level="local")
            peers.append(client)
        start = time.monotonic()
        slowest = 0.0
        # Nothing shows its end to a peer that does not read, so the time has to pass.
        while time.monotonic() < start + node.write_timeout + 1.5:
            slowest = max(slowest, prompt(node))
            time.sleep(0.25)
        note = grew(node, memory, 8 * 12 * MEBI)
        # What they get when they read after all: whole frames, then REFUSE slow-reader if it found a way, then the end.
        said = None
        peers[0].connection.parser.verify = False
        try:
            while True:
                message = peers[0].connection.receive()
                if message.kind == "REFUSE":
                    said = wire.REFUSE_CODES.get(message.code)
        except (wire.Closed, wire.WireError):
            pass
        except TimeoutError as error:
            raise Failure(f"a client that read nothing for {time.monotonic() - start:.0f} s is not closed; "
                          f"write_timeout is {node.write_timeout:g} s") from error
        if said:
            same("the last words", said, "slow-reader")
            REFUSALS_SEEN.add(said)
        node.still_works(before)
        return f"{volume >> 20} MiB asked for 128 times; {note}; PING at most {slowest * 1000:.0f} ms; " \
               f"{'REFUSE slow-reader' if said else 'closed; the REFUSE found no way'}"

    @check("answers-unread", "7.9.19", "A client that asks and asks and reads no answer must not be read for ever: "
           "its sending blocks or ends, and memory stays bounded.")
    def _(node):
        prompt(node)
        memory = node.memory()
        client = node.client()
        client.connection.socket.settimeout(1.0)
        data = b"".join(Message("COMMAND", id=i, end=True, tail=b"PING").encode() for i in range(1, 3001))
        sent = 0
        try:
            while sent < 64 << 20:
                client.connection.socket.sendall(data)
                sent += len(data)
        except OSError:
            pass
        holds(sent < 64 << 20, "64 MiB of commands were taken from a client that reads nothing")
        took = prompt(node)
        note = grew(node, memory, 48 * MEBI)
        return f"{sent >> 10} KiB were taken; {note}; PING {took * 1000:.0f} ms"


def introduced_client(node, **changes):
    """A client whose HELLO says something of its own."""
    connection = node.connect()
    return ClientSide(connection, introduced(connection, client_hello(**changes)))


def _request_with_tail(count, tail):
    message = append_request(1, b"x")
    message.count, message.tail = count, tail
    return message.encode()




def enough_files(count):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < count and hard >= count:
        resource.setrlimit(resource.RLIMIT_NOFILE, (count, hard))
        return True
    return soft >= count
