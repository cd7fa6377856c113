"""Checks that a secondary follows protocol.md, by playing its master."""

import os
import random
import threading
import time

import replog_wire as wire
from replog_wire import Message, Prefix, encode_frame, hello, levels

from . import hostile
from .common import (
    NACKS_SEEN, PATIENCE, PROMPT, ClientSide, Failure, NotRun, Suite, append_request, flipped, holds, introduced, raws,
    refused, request_code, resident_kib, same, state_of, wait_for)
from .hostile import ABSURD, SAMPLES, as_client, attack, header, with_raw

suite = Suite()
check, section = suite.check, suite.section


# ---------------------------------------------------------------------------------------------------------------------
# The two ends: the node under test and our side of it

class Node:
    """The secondary under test, and who we are to it: one master (epoch, run id, log id) with many connections."""

    def __init__(self, address, node_id, *, write_timeout, pid=None, thorough=False):
        self.address = address
        self.id = node_id
        self.write_timeout = write_timeout
        self.pid = pid
        self.thorough = thorough
        self.connections = []
        self.run_id = int.from_bytes(os.urandom(8), "little")
        self.first_answer = self.ask(log_id=None)
        self.was_virgin = self.first_answer.log_id is None
        self.log_id = self.first_answer.log_id or os.urandom(16)
        # Above whatever it promised before, so that a second run works like the first.
        self.epoch = self.first_answer.epoch + 2

    def connect(self):
        connection = wire.Connection(self.address, PATIENCE)
        self.connections.append(connection)
        return connection

    def prepare(self):
        """Nothing: every check makes its own connections."""

    def drop_connections(self):
        for connection in self.connections:
            connection.close()
        self.connections.clear()

    def clean_up(self):
        self.drop_connections()

    def memory(self):
        """Resident KiB of the node's process, None without --pid."""
        return resident_kib(self.pid)

    def snapshot(self):
        """What hostile peers must not change."""
        return self.ask()

    def master_hello(self, state=None, role="master", **changes):
        """A HELLO of ours as the master. Our log is taken to be the node's: `state` is an answer of the node."""
        said = dict(
            node_id="conformance", peer_id=self.id, run_id=self.run_id, roster=["conformance", self.id],
            master_addr="127.0.0.1:1", payload_bytes_max=1 << 20, window_bytes=16 << 20)
        if "log_id" not in changes:
            said["log_id"] = self.log_id
        if state:
            table = [row for row in state.epoch_table if row[0] < self.epoch] + [(self.epoch, state.stored + 1)]
            said |= dict(
                stored=state.stored, tail_epoch=state.tail_epoch, tail_digest=state.tail_digest,
                settled=self.epoch,
                commit=state.commit, vouches=True,
                epoch_table=table[-64:])  # a HELLO has to fit the 8 KiB before the introduction
        return hello(role, **(said | changes))

    def ask(self, **changes):
        """What the node says of itself to a master that only asks."""
        connection = self.connect()
        answer = introduced(connection, self.master_hello(**({"epoch": 0} | changes)))
        connection.close()
        return answer

    def lead(self, **changes):
        """A connection that has the node's promise."""
        state = self.ask()
        connection = self.connect()
        own = self.master_hello(state, **({"epoch": self.epoch} | changes))
        return Leader(self, connection, own, introduced(connection, own))

    def lead_higher(self):
        """The same under the next epoch."""
        self.epoch += 1
        return self.lead()

    def client(self):
        connection = self.connect()
        answer = introduced(connection, hello("client", node_id="conformance-client"))
        return ClientSide(connection, answer)

    def still_works(self, before):
        """The proof after a hostile connection: a good one is served, and the log and the promise are as before."""
        same("the role in the answer to a client's HELLO", self.client().answer.role, "secondary")
        unchanged(self, before)


def unchanged(node, before):
    same("what the node says of itself", state_of(node.ask()), state_of(before))


class Leader:
    """A connection of the master with the node's promise, and the end of the log as we know it."""

    def __init__(self, node, connection, own, answer):
        self.node = node
        self.connection = connection
        self.hello = own
        self.epoch = own.epoch
        self.answer = answer
        self.end = Prefix(answer.stored, answer.tail_epoch, answer.tail_digest)
        self.commit = answer.commit
        self.duplicates = None
        self.heartbeats = 0

    # What is sent

    def entries(self, *payloads, after=None, epoch=None):
        """Records of these payloads behind a prefix, by default the end of the log."""
        records = []
        previous = after or self.end
        for payload in payloads:
            raw = wire.build_record(previous, self.epoch if epoch is None else epoch, payload)
            records.append(wire.read_record(raw, 0, previous.seq + 1, 0, previous.digest))
            previous = records[-1].prefix
        return records

    def levels(self):
        """As if two nodes held what is committed, and this one the rest."""
        return levels(self.commit, max(self.end.seq, self.commit), self.commit)

    def frame(self, records, previous, **changes):
        """An APPEND of these records (or of raw bytes) behind a prefix."""
        tail = records if isinstance(records, bytes) else b"".join(record.raw for record in records)
        said = dict(
            epoch=self.epoch, first=previous.seq + 1, count=len(records), previous_epoch=previous.epoch,
            previous_digest=previous.digest, levels=self.levels())
        return Message("APPEND", tail=tail, **(said | changes))

    def send(self, records, previous=None, **changes):
        self.connection.send(self.frame(records, previous or self.end, **changes))

    def store(self, *payloads):
        """Appends behind the end of the log and waits until all is stored."""
        records = self.entries(*payloads)
        self.send(records)
        self.stored(records)
        return records

    def heartbeat(self, **changes):
        self.heartbeats += 1
        said = dict(epoch=self.epoch, number=self.heartbeats, levels=self.levels())
        self.connection.send(Message("HEARTBEAT", **(said | changes)))

    def heartbeats_answered(self):
        """What was said before was heard: the last heartbeat is answered."""
        wait_for(self.connection, f"expected: HEARTBEAT_ACK {self.heartbeats}",
                 lambda m: m.kind == "HEARTBEAT_ACK" and m.number >= self.heartbeats, ("HEARTBEAT_ACK", "ACK"))

    def send_align(self, last, **changes):
        """An ALIGN at this prefix."""
        said = dict(epoch=self.epoch, last=last.seq, last_epoch=last.epoch, last_digest=last.digest)
        self.connection.send(Message("ALIGN", **(said | changes)))

    def align(self, last):
        """The same; the node agrees, and its answer says that its log ends there."""
        self.send_align(last)
        answer = wait_for(self.connection, "expected: HELLO as the answer to an ALIGN", lambda m: m.kind == "HELLO")
        same("role and id", (answer.role, answer.node_id), ("secondary", self.node.id))
        same("the end of its log", (answer.stored, answer.tail_epoch, answer.tail_digest), last)
        self.end = Prefix(*last)
        return answer

    def send_fetch(self, first, last, **changes):
        self.connection.send(Message("FETCH", **(dict(epoch=self.epoch, first=first, last=last) | changes)))

    def fetch(self, first, last, previous=None):
        """The records that answer a FETCH, verified behind `previous` if that is known."""
        self.send_fetch(first, last)
        return self.fetched(first, last, previous)

    def fetched(self, first, last, previous=None):
        answer = wait_for(self.connection, f"expected: FETCHED for entries {first} to {last}",
                          lambda m: m.kind == "FETCHED", ("HEARTBEAT_ACK", "ACK"))
        same("epoch and first of a FETCHED", (answer.epoch, answer.first), (self.epoch, first))
        holds(answer.count <= wire.ENTRIES_PER_FRAME, f"a FETCHED of {answer.count} records")
        holds(answer.count <= 1 or len(answer.tail) <= wire.BULK_BYTES,
              f"a FETCHED of {answer.count} records in {len(answer.tail)} bytes")
        records = wire.records_of(answer, previous)
        holds(not records or records[-1].seq <= last, f"a FETCHED of entries beyond {last}: {answer}")
        return records

    # What comes back

    def ack(self, what, wanted, skip=()):
        """The ACK for which `wanted` is true; others may come before it (an ACK may say less than is known later)."""
        def judge(message):
            if message.kind != "ACK":
                return False
            self.well_formed(message)
            return wanted(message)
        return wait_for(self.connection, f"expected: ACK, {what}", judge, ("HEARTBEAT_ACK", "ACK", *skip))

    def well_formed(self, ack):
        same("epoch of an ACK", ack.epoch, self.epoch)
        holds(ack.received >= ack.stored, f"an ACK with received behind stored: {ack}")
        holds(ack.stored >= self.end.seq, f"an ACK that takes stored back from {self.end.seq}: {ack}")
        holds(len(ack.held) <= 64, f"an ACK with {len(ack.held)} held ranges, at most 64 are allowed")
        last = ack.received
        for first, end in ack.held:
            holds(last < first <= end, f"held ranges are ascending and beyond received: {ack}")
            last = end
        holds(self.duplicates is None or ack.duplicates >= self.duplicates, f"duplicates went back: {ack}")

    def stored(self, records):
        """Waits until these records are stored, and nothing more; they are the end of the log then."""
        last = records[-1].prefix
        ack = self.ack(f"stored {last.seq}", lambda ack: ack.stored >= last.seq)
        same("stored in an ACK", ack.stored, last.seq)
        self.end = last
        self.duplicates = ack.duplicates
        return ack

    def nack(self, code, seq):
        """The node refuses a frame from this entry on, and its connection lives on."""
        nack = wait_for(self.connection, f"expected: NACK {code} from entry {seq}", lambda m: m.kind == "NACK",
                        ("HEARTBEAT_ACK", "ACK"))
        same("epoch, code and entry of a NACK",
             (nack.epoch, wire.NACK_CODES.get(nack.code, nack.code), nack.seq), (self.epoch, code, seq))
        NACKS_SEEN.add(code)
        return nack

    def stored_and_dropped(self, records, code, seq):
        """These records are stored, and a held run from `seq` on is dropped with this code; the ACK and the NACK come in
        either order."""
        seen = {}

        def both(message):
            if message.kind == "NACK" or message.kind == "ACK" and message.stored >= records[-1].seq:
                seen[message.kind] = message
            return len(seen) == 2
        wait_for(self.connection, f"expected: ACK with stored {records[-1].seq} and a NACK", both,
                 ("HEARTBEAT_ACK", "ACK", "NACK"))
        nack = seen["NACK"]
        same("code and entry of the NACK", (wire.NACK_CODES.get(nack.code), nack.seq), (code, seq))
        NACKS_SEEN.add(code)
        self.end = records[-1].prefix

    def rejects(self, tail, previous=None, **changes):
        """One frame with something wrong in its records: NACK bad-record, nothing of it is taken, good ones are."""
        previous = previous or self.end
        before = self.node.ask()
        self.send(tail, previous, **changes)
        self.nack("bad-record", previous.seq + 1)
        unchanged(self.node, before)
        self.store(b"a good one behind a bad one")


# ---------------------------------------------------------------------------------------------------------------------
section("Introduction")


@check("virgin", "7.2.2", "A secondary must answer a master that only asks (epoch 0), and stay as virgin as it was, "
       "whatever log id the asking names.")
def _(node):
    first = node.first_answer
    same("role and id", (first.role, first.node_id), ("secondary", node.id))
    if not node.was_virgin:
        before = node.ask()
        node.ask(log_id=os.urandom(16))
        unchanged(node, before)
        return f"not virgin: it holds {before.stored} entries and promised epoch {before.epoch}; asking changed nothing"
    same("what a virgin node says", state_of(first),
         dict(log_id=None, epoch=0, run_id=0, stored=0, tail_epoch=0, tail_digest=0))
    same("its epoch table", first.epoch_table, [])
    unchanged(node, first)  # this asking names our log id
    unchanged(node, first)


@check("vouching", "7.4.10", "A secondary that starts empty must vouch for its log only once it has what its master says "
       "is committed and what came before the master's epoch, the master having said both.")
def _(node):
    if not node.was_virgin:
        raise NotRun("the node was not virgin: it is not known what it may have lost")
    holds(not node.first_answer.vouches, "an empty log is vouched for")
    leader = node.lead(epoch_table=[])
    records = leader.entries(b"of the reign before 1", b"of the reign before 2", epoch=node.epoch - 1)
    records += leader.entries(b"of this reign", b"committed", after=records[-1].prefix)

    def vouches(what, want, told):
        leader.heartbeat(levels=told)
        leader.heartbeats_answered()
        same(f"vouches {what}", node.ask().vouches, want)
    nothing, all_four = levels(0, 4, 0), levels(4, 4, 4)
    vouches("though the master did not say where its epoch begins", False, nothing)
    leader = node.lead(epoch_table=[(node.epoch - 1, 1)])
    vouches("though the last row is of another epoch", False, nothing)
    leader = node.lead(epoch_table=[(node.epoch - 1, 1), (node.epoch, 3)])
    vouches("though the master told no levels", False, levels(0))
    vouches("though it lacks what came before the epoch", False, nothing)
    for at in (2, 3):
        leader.send(records[leader.end.seq:at], levels=all_four)
        leader.stored(records[:at])
        vouches(f"though it has {at} entries of 4 that are committed", False, all_four)
    leader.send(records[3:], levels=all_four)
    leader.stored(records)
    vouches("when it has all of them", True, all_four)
    same("and under the next epoch", node.lead_higher().answer.vouches, True)


@check("settles", "7.4.13", "A secondary that has all that came before the epoch must settle it when its master tells the levels, say "
       "so by an ACK, though nothing in it is new, and by its HELLOs from then on.")
def _(node):
    leader = node.lead_higher()
    same("settled before levels were told", leader.answer.settled < node.epoch, True)
    leader.heartbeat(levels=levels(leader.commit))
    wait_for(leader.connection, "expected: HEARTBEAT_ACK and no ACK", lambda m: m.kind == "HEARTBEAT_ACK", ())
    same("settled though the levels told were empty", node.ask().settled < node.epoch, True)
    leader.heartbeat()
    leader.ack("all that is there", lambda ack: ack.stored == leader.end.seq, ("HEARTBEAT_ACK",))
    same("settled", node.ask().settled, node.epoch)
    leader.heartbeat()
    wait_for(leader.connection, "expected: HEARTBEAT_ACK alone", lambda m: m.kind == "HEARTBEAT_ACK", ())
    return f"epoch {node.epoch}"


@check("settles-late", "7.4.13", "A secondary that lacks some of what came before the epoch must not settle it, and must say so by the "
       "ACK that reaches the beginning of the epoch.")
def _(node):
    node.epoch += 1
    state = node.ask()
    leader = node.lead(epoch_table=[row for row in state.epoch_table if row[0] < node.epoch][-60:] + [(node.epoch, state.stored + 3)])
    records = leader.entries(b"of the reign before", b"the last of it", epoch=node.epoch - 1)
    leader.send(records[:1])
    leader.stored(records[:1])
    same("settled with one entry missing", node.ask().settled < node.epoch, True)
    leader.send(records[1:])
    leader.stored(records)
    same("settled", node.ask().settled, node.epoch)


@check("limits", "6", "A secondary must say its versions and limits in its HELLO, and leave empty what only others "
       "say.")
def _(node):
    answer = node.ask()
    holds(answer.version_min <= 1 <= answer.version_max, f"version 1 is not between the versions of {answer}")
    holds(wire.BULK_BYTES < answer.frame_bytes_max <= wire.BODY_MAX, f"frame_bytes_max {answer.frame_bytes_max}")
    holds(0 < answer.payload_bytes_max <= 16 << 20, f"payload_bytes_max {answer.payload_bytes_max}")
    holds(answer.window_bytes >= wire.BULK_BYTES, f"window_bytes {answer.window_bytes}")
    same("what only others say: peer_id, roster", (answer.peer_id, answer.roster), ("", []))


@check("promise", "7.2.4", "A secondary must answer a leading HELLO by the promise: the log id, epoch and run id of "
       "the master.")
def _(node):
    answer = node.lead().answer
    same("role and id", (answer.role, answer.node_id), ("secondary", node.id))
    same("log id, epoch, run id", (answer.log_id, answer.epoch, answer.run_id), (node.log_id, node.epoch, node.run_id))


@check("promise-told", "7.2.2", "A secondary must tell the promise and the master's address to whoever asks "
       "afterwards; asking ends nothing.")
def _(node):
    leader = node.lead()
    answer = node.ask(run_id=1)
    same("log id, epoch, run id", (answer.log_id, answer.epoch, answer.run_id), (node.log_id, node.epoch, node.run_id))
    same("the master's address", answer.master_addr, leader.hello.master_addr)
    leader.store(b"the leading connection lives")


@check("ask-then-lead", "7.2.6", "A secondary must let a master ask first and lead then on the same connection.")
def _(node):
    connection = node.connect()
    state = introduced(connection, node.master_hello(epoch=0))
    own = node.master_hello(state, epoch=node.epoch)
    leader = Leader(node, connection, own, introduced(connection, own))
    same("epoch", leader.answer.epoch, node.epoch)
    leader.store(b"after asking and leading on one connection")


@check("no-peer-id", "7.2.1", "A secondary must answer a HELLO with an empty peer_id.")
def _(node):
    node.ask(peer_id="")
    node.lead(peer_id="").store(b"whoever you are")


def refused_hello(node, *codes, **changes):
    """A HELLO like a leading one but for `changes` is refused and leaves everything as it was."""
    leader = node.lead()
    before = node.ask()
    connection = node.connect()
    connection.send(node.master_hello(before, **({"epoch": node.epoch} | changes)))
    refused(connection, *codes)
    unchanged(node, before)
    leader.store(b"the leading connection lives")


@check("wrong-node", "7.2.1", "A secondary must refuse a HELLO for another node wrong-node.")
def _(node):
    refused_hello(node, "wrong-node", peer_id=node.id + "x")


@check("wrong-node-asking", "7.2.1", "… also if it only asks.")
def _(node):
    refused_hello(node, "wrong-node", peer_id=node.id + "x", epoch=0)


@check("ask-on-promised", "7.2.2", "A secondary must answer a HELLO with epoch 0 on the connection that it follows, "
       "change nothing, and go on to follow it.")
def _(node):
    leader = node.lead()
    leader.connection.send(node.master_hello(epoch=0, log_id=os.urandom(16), run_id=1, master_addr="127.0.0.1:2"))
    answer = wait_for(leader.connection, "expected: HELLO", lambda m: m.kind == "HELLO")
    same("log id, epoch, run id, master_addr", (answer.log_id, answer.epoch, answer.run_id, answer.master_addr),
         (node.log_id, node.epoch, node.run_id, leader.hello.master_addr))
    leader.store(b"it is followed all the same")


@check("hello-repeated", "7.2.6", "A secondary must answer a repeated leading HELLO on the connection that it follows, and "
       "drop what it held back; nothing is replaced.")
def _(node):
    leader = node.lead()
    records = leader.entries(b"1", b"2")
    leader.send(records[1:], records[0].prefix)
    leader.ack("with held ranges", lambda ack: ack.held)
    leader.connection.send(leader.hello)
    wait_for(leader.connection, "expected: HELLO", lambda m: m.kind == "HELLO", ("ACK",))
    leader.send(records[:1])
    same("held", leader.stored(records[:1]).held, [])


def malformed_hello(name, says, **changes):
    @check(name, "7.1.4", says)
    def _(node):
        refused_hello(node, "bad-frame", **changes)
        refused_hello(node, "bad-frame", **({"epoch": 0} | changes))


@check("masters-asking", "7.2.7", "A secondary must have room for 15 masters that ask beside the one it follows; when one "
       "more comes, the one that has asked for longest is refused busy.")
def _(node):
    leader = node.lead()
    asking = []
    for _ in range(16):
        asking.append(node.connect())
        introduced(asking[-1], node.master_hello(epoch=0))
    refused(asking[0], "busy")
    asking[1].send(Message("HEARTBEAT", epoch=0, number=1, levels=levels(0)))
    same("the answer to another", asking[1].receive().kind, "HEARTBEAT_ACK")
    leader.store(b"the leading connection lives")


@check("wrong-role", "7.1.5", "A secondary must refuse the HELLO of another secondary wrong-role.")
def _(node):
    refused_hello(node, "wrong-role", role="secondary", peer_id="")


@check("foreign-log", "7.2.1", "A secondary must refuse a master of another log foreign-log, however high its epoch.")
def _(node):
    refused_hello(node, "foreign-log", log_id=bytes(reversed(node.log_id)), epoch=node.epoch + 1)


@check("no-log", "7.2.1", "A secondary must refuse a master that leads without a log id foreign-log.")
def _(node):
    refused_hello(node, "foreign-log", log_id=None, epoch=node.epoch + 1)


@check("stale-epoch", "7.2.1", "A secondary must refuse a lower epoch than it promised stale-epoch.")
def _(node):
    refused_hello(node, "stale-epoch", epoch=node.epoch - 1)


@check("epoch-taken", "7.2.1", "A secondary must refuse the promised epoch under another run id epoch-taken.")
def _(node):
    refused_hello(node, "epoch-taken", run_id=node.run_id ^ 1)


@check("epoch-far", "7.2.1", "A secondary must refuse an epoch more than 2^32 above the promised one bad-frame.")
def _(node):
    refused_hello(node, "bad-frame", epoch=node.epoch + (1 << 32) + 1)


@check("order-of-checks", "7.2.1", "A secondary must judge the node before the log before the epoch, and name the "
       "first thing that is wrong.")
def _(node):
    foreign = bytes(reversed(node.log_id))
    refused_hello(node, "wrong-node", peer_id=node.id + "x", log_id=foreign, epoch=node.epoch - 1)
    refused_hello(node, "foreign-log", log_id=foreign, epoch=node.epoch - 1)


malformed_hello("hello-node-id", "A secondary must refuse a master whose node id cannot be bad-frame, leading or asking.",
                node_id="no id")
malformed_hello("hello-no-node-id", "… and one without.", node_id="")
malformed_hello("hello-roster", "… and an id of the roster that cannot be.", roster=["conformance", "s 1"])
malformed_hello("hello-roster-long", "… and a roster of 129 nodes.", roster=[f"n{i}" for i in range(129)])
malformed_hello("hello-addr", "… and an address with a space.", master_addr="127.0.0.1 :1")
malformed_hello("hello-addr-long", "… and one of 256 bytes.", master_addr="a" * 254 + ":1")
malformed_hello("hello-table", "… and an epoch table that does not ascend.", epoch_table=[(2, 1), (1, 5)])
malformed_hello("hello-table-firsts", "… nor in its firsts.", epoch_table=[(1, 5), (2, 5)])
malformed_hello("hello-table-0", "… and one that begins with entry 0.", epoch_table=[(1, 0)])
malformed_hello("hello-table-long", "… and one of 129 rows.", epoch_table=[(i, i) for i in range(1, 130)])


@check("same-master-again", "7.2.5", "A secondary must accept a new connection of the same master, and end the old one "
       "with replaced.")
def _(node):
    old = node.lead()
    new = node.lead()
    refused(old.connection, "replaced")
    new.store(b"on the new connection")


@check("higher-epoch", "7.2.5", "A secondary must promise a higher epoch of the same log, and end the old connection "
       "with replaced.")
def _(node):
    old = node.lead()
    new = node.lead_higher()
    same("epoch", new.answer.epoch, node.epoch)
    refused(old.connection, "replaced")
    new.store(b"under the higher epoch")


@check("new-process", "7.2.4", "A secondary must promise a higher epoch of another process, and say its run id then.")
def _(node):
    node.lead()
    node.run_id ^= 0xFF
    answer = node.lead_higher().answer
    same("epoch, run id", (answer.epoch, answer.run_id), (node.epoch, node.run_id))


@check("versions", "7.1.3", "A secondary must answer a HELLO that speaks version 1 among others.")
def _(node):
    node.ask(version_min=1, version_max=9)


@check("no-common-version", "7.1.3", "A secondary must refuse a HELLO that speaks only later versions unknown-version.")
def _(node):
    refused_hello(node, "unknown-version", version_min=2, version_max=3)


@check("client-hello", "6", "A secondary must answer a client's HELLO with its role, id and positions.")
def _(node):
    leader = node.lead()
    leader.store(b"before a client comes")
    answer = node.client().answer
    same("role and id", (answer.role, answer.node_id), ("secondary", node.id))
    same("log id, epoch, stored, tail",
         (answer.log_id, answer.epoch, answer.stored, answer.tail_epoch, answer.tail_digest),
         (node.log_id, node.epoch, *leader.end))


# ---------------------------------------------------------------------------------------------------------------------
section("Replication: what a secondary stores and says")


@check("append-one", "7.3.9", "A secondary must store one entry and acknowledge it.")
def _(node):
    leader = node.lead()
    records = leader.entries(b"hello world")
    leader.send(records)
    ack = leader.stored(records)
    same("received and held", (ack.received, ack.held), (ack.stored, []))


@check("append-run", "7.3.9", "A secondary must acknowledge a run of 100 entries in one frame, empty ones among them, "
       "as a whole.")
def _(node):
    node.lead().store(*(b"x" * (i % 10) for i in range(100)))


@check("append-many", "9", "A secondary must take 8,193 entries in one frame: the bound of 8,192 is the sender's.")
def _(node):
    node.lead().store(*[b""] * 8193)


@check("append-large", "9", "A secondary must take one entry as large as it allows, alone in a longer frame.")
def _(node):
    leader = node.lead()
    leader.store(b"L" * min(leader.answer.payload_bytes_max, 1 << 20))


@check("append-pipelined", "7.3.9", "A secondary must take 60 frames sent without waiting, and cover them with "
       "cumulative ACKs that never go back.")
def _(node):
    leader = node.lead()
    records = leader.entries(*(b"pipelined %d" % i for i in range(180)))
    previous, acks = leader.end, []
    for at in range(0, len(records), 3):
        leader.send(records[at:at + 3], previous)
        previous = records[at + 2].prefix

    def all_stored(ack):
        holds(ack.stored >= max(acks, default=0), f"stored goes back from {max(acks, default=0)} to {ack.stored}")
        acks.append(ack.stored)
        return ack.stored >= previous.seq
    leader.ack(f"stored {previous.seq}", all_stored)
    return f"{len(acks)} ACKs"


@check("repeated", "7.3.4", "A secondary must acknowledge entries sent again, and count them as duplicates, exactly.")
def _(node):
    leader = node.lead()
    previous = leader.end
    records = leader.store(b"once", b"twice", b"three times")
    before = leader.duplicates
    leader.send(records, previous)
    leader.ack(f"duplicates {before + 3}", lambda ack: ack.duplicates >= before + 3)
    leader.send(records[1:2], records[0].prefix)
    ack = leader.ack(f"duplicates {before + 4}", lambda ack: ack.duplicates >= before + 4)
    same("stored", ack.stored, leader.end.seq)
    leader.store(b"new")
    same("duplicates", leader.duplicates, before + 4)


@check("hole", "7.3.6", "A secondary must hold entries behind a hole: named in an ACK, not stored, not visible.")
def _(node):
    leader = node.lead()
    leader.store(b"before the hole")
    start = leader.end.seq
    records = leader.entries(b"1", b"2", b"3", b"4", b"5")
    leader.send(records[2:], records[1].prefix)
    ack = leader.ack("with held ranges", lambda ack: ack.held)
    same("stored, received, held", (ack.stored, ack.received, ack.held), (start, start, [(start + 3, start + 5)]))
    same("stored in a HELLO", node.ask().stored, start)
    same("what a client reads there", raws(node.client().read(start + 1)[0]), [])


@check("filled", "7.3.7", "A secondary must store and show everything when the hole is filled.")
def _(node):
    leader = node.lead()
    records = leader.entries(b"1", b"2", b"3", b"4", b"5", b"6", b"7")
    leader.send(records[2:4], records[1].prefix)
    leader.send(records[5:], records[4].prefix)
    first = records[0].seq
    leader.ack("two held ranges", lambda ack: ack.held == [(first + 2, first + 3), (first + 5, first + 6)])
    start = leader.end
    leader.send(records[:2], start)
    ack = leader.ack(f"stored {first + 3}", lambda ack: ack.stored >= first + 3)
    same("stored and held", (ack.stored, ack.held), (first + 3, [(first + 5, first + 6)]))
    leader.send(records[4:5], records[3].prefix)
    same("held", leader.stored(records).held, [])
    same("what a client reads", raws(node.client().read(first)[0]), raws(records))


@check("held-again", "7.3.6", "A secondary must count a held entry that comes again as a duplicate.")
def _(node):
    leader = node.lead()
    leader.store(b"before the hole")
    before = leader.duplicates
    records = leader.entries(b"1", b"2", b"3")
    for _ in range(2):
        leader.send(records[1:], records[0].prefix)
    leader.ack(f"duplicates {before + 2}", lambda ack: ack.duplicates >= before + 2)
    leader.send(records[:1])
    leader.stored(records)
    same("duplicates", leader.duplicates, before + 2)


@check("held-many", "7.3.10", "A secondary must name at most 64 held ranges in an ACK, the lowest ones, and keep the "
       "others too.")
def _(node):
    leader = node.lead()
    records = leader.entries(*(b"%d" % i for i in range(140)))
    previous = [leader.end, *(record.prefix for record in records)]
    for odd_even in (1, 0):
        for at in range(odd_even, len(records), 2):
            leader.send(records[at:at + 1], previous[at])
    leader.stored(records)


@check("held-conflict", "7.3.7", "A held run that begins at or below the end of the log when its turn comes, and differs "
       "there, must be NACKed conflict.")
def _(node):
    leader = node.lead()
    leader.store(b"before the hole")
    good = leader.entries(b"1", b"2")
    other = leader.entries(b"another 2", b"3", after=Prefix(good[0].seq, good[0].epoch, good[0].digest ^ 1))
    leader.send(other, good[0].prefix, previous_digest=good[0].digest ^ 1)
    leader.ack("with held ranges", lambda ack: ack.held)
    leader.send(good)
    leader.stored_and_dropped(good, "conflict", other[0].seq)
    same("what a client reads", raws(node.client().read(good[0].seq)[0]), raws(good))
    leader.store(b"the right one")


@check("held-in-part", "7.3.6", "A run that is held in part must be held, too: a longer one in place of one with the same "
       "first entry.")
def _(node):
    leader = node.lead()
    leader.store(b"before the hole")
    records = leader.entries(b"1", b"2", b"3", b"4", b"5")
    first = records[0].seq
    leader.send(records[1:2], records[0].prefix)
    leader.send(records[1:3], records[0].prefix)
    leader.send(records[2:5], records[1].prefix)
    leader.ack("held", lambda ack: ack.held == [(first + 1, first + 4)])
    leader.send(records[:1])
    same("held", leader.stored(records).held, [])
    same("what a client reads", raws(node.client().read(first)[0]), raws(records))


@check("held-aligned", "7.3.8", "A secondary must drop what it held back when it is aligned.")
def _(node):
    leader = node.lead()
    records = leader.entries(b"1", b"2")
    leader.send(records[1:], records[0].prefix)
    leader.ack("with held ranges", lambda ack: ack.held)
    leader.send_align(leader.end)
    wait_for(leader.connection, "expected: HELLO", lambda m: m.kind == "HELLO", ("ACK",))
    leader.send(records[:1])
    same("held", leader.stored(records[:1]).held, [])


@check("held-dropped", "7.3.8", "A secondary must drop what it held back when it promises anew.")
def _(node):
    leader = node.lead()
    records = leader.entries(b"1", b"2")
    leader.send(records[1:], records[0].prefix)
    leader.ack("with held ranges", lambda ack: ack.held)
    leader = node.lead()
    leader.send(records[:1])
    same("held", leader.stored(records[:1]).held, [])


@check("held-mismatch", "7.3.7", "A secondary must drop a held entry that does not continue what came before it: NACK "
       "mismatch.")
def _(node):
    leader = node.lead()
    good = leader.entries(b"good")
    other = Prefix(good[0].seq, good[0].epoch, good[0].digest ^ 1)
    leader.send(leader.entries(b"behind another entry", after=other), other)
    leader.ack("with held ranges", lambda ack: ack.held)
    leader.send(good)
    leader.stored_and_dropped(good, "mismatch", good[0].seq + 1)
    leader.store(b"the right one")


@check("overlap", "7.3.4", "A secondary must store the new entries of a frame with old and new ones, and count the old "
       "ones as duplicates.")
def _(node):
    leader = node.lead()
    old = leader.store(b"old 1", b"old 2", b"old 3")
    before = leader.duplicates
    new = leader.entries(b"new 1", b"new 2")
    leader.send(old[1:] + new, old[0].prefix)
    leader.stored(new)
    same("duplicates", leader.duplicates, before + 2)
    same("what a client reads", raws(node.client().read(old[0].seq)[0]), raws(old + new))


@check("overlap-held", "7.3.7", "A secondary must store a frame over the hole and what is held behind it as a whole.")
def _(node):
    leader = node.lead()
    records = leader.entries(b"1", b"2", b"3", b"4")
    leader.send(records[1:3], records[0].prefix)
    leader.ack("with held ranges", lambda ack: ack.held)
    leader.send(records)
    same("held", leader.stored(records).held, [])
    same("what a client reads", raws(node.client().read(records[0].seq)[0]), raws(records))


@check("conflict", "7.3.4", "A secondary must answer another entry under a stored number NACK conflict, and keep the "
       "first one.")
def _(node):
    leader = node.lead()
    previous = leader.end
    first = leader.store(b"first")
    before = node.ask()
    leader.send(leader.entries(b"other", after=previous), previous)
    leader.nack("conflict", first[0].seq)
    unchanged(node, before)
    same("what a client reads", raws(node.client().read(first[0].seq)[0]), raws(first))
    more = leader.store(b"second")
    same("what a client reads", raws(node.client().read(first[0].seq)[0]), raws(first + more))


@check("conflict-overlap", "7.3.5", "A secondary must take nothing of a frame that differs in a stored entry, the new "
       "entries behind it included.")
def _(node):
    leader = node.lead()
    previous = leader.end
    first = leader.store(b"first")
    before = node.ask()
    leader.send(leader.entries(b"other", b"behind the other", after=previous), previous)
    leader.nack("conflict", first[0].seq)
    unchanged(node, before)
    same("what a client reads", raws(node.client().read(first[0].seq)[0]), raws(first))


@check("conflict-not-counted", "7.3.10", "A secondary must not count conflicting entries as duplicates.")
def _(node):
    leader = node.lead()
    previous = leader.end
    first = leader.store(b"first")
    before = leader.duplicates
    leader.send(leader.entries(b"other", after=previous), previous)
    leader.nack("conflict", first[0].seq)
    leader.store(b"second")
    same("duplicates", leader.duplicates, before)


@check("mismatch", "7.3.4", "A secondary must answer a good chain behind another log (previous digest) NACK mismatch, "
       "and take nothing.")
def _(node):
    leader = node.lead()
    before = node.ask()
    other = Prefix(leader.end.seq, leader.end.epoch, leader.end.digest ^ 1)
    leader.send(leader.entries(b"of another log", after=other), other)
    leader.nack("mismatch", leader.end.seq + 1)
    unchanged(node, before)
    leader.store(b"of this log")


@check("mismatch-epoch", "7.3.4", "… likewise if only the previous epoch differs.")
def _(node):
    leader = node.lead()
    leader.store(b"under the epoch that leads")
    before = node.ask()
    other = Prefix(leader.end.seq, leader.end.epoch - 1, leader.end.digest)
    leader.send(leader.entries(b"behind another epoch", after=other), other)
    leader.nack("mismatch", leader.end.seq + 1)
    unchanged(node, before)
    leader.store(b"behind the right one")


@check("bad-header", "4", "A secondary must answer a record with a flipped bit in its header NACK bad-record.")
def _(node):
    leader = node.lead()
    leader.rejects(flipped(leader.entries(b"payload")[0].raw, 40), count=1)


@check("bad-body", "4", "A secondary must answer a record with a flipped bit in its body NACK bad-record.")
def _(node):
    leader = node.lead()
    leader.rejects(flipped(leader.entries(b"payload")[0].raw, wire.RECORD_HEADER_BYTES + 2), count=1)


@check("bad-digest", "4", "A secondary must answer a record with right checksums and a wrong digest NACK bad-record.")
def _(node):
    leader = node.lead()
    leader.rejects(wire.build_record(leader.end, leader.epoch, b"payload", digest=1), count=1)


@check("bad-previous", "7.3.2", "A secondary must answer records that do not continue the previous digest of their own "
       "frame NACK bad-record.")
def _(node):
    leader = node.lead()
    leader.rejects(leader.entries(b"payload")[0].raw, count=1, previous_digest=leader.end.digest ^ 1)


@check("bad-number", "4", "A secondary must answer a record with another number than the frame says NACK bad-record.")
def _(node):
    leader = node.lead()
    leader.rejects(wire.build_record(leader.end, leader.epoch, b"payload", seq=leader.end.seq + 2), count=1)


@check("bad-flags", "4", "A secondary must answer a record with an unknown flag or a reserved bit NACK bad-record.")
def _(node):
    leader = node.lead()
    leader.rejects(wire.build_record(leader.end, leader.epoch, b"payload", flags=2), count=1)
    leader.rejects(wire.build_record(leader.end, leader.epoch, b"payload", reserved=1), count=1)


@check("bad-epoch", "4", "A secondary must answer a record of a lower epoch than the one before NACK bad-record.")
def _(node):
    leader = node.lead()
    leader.store(b"of the epoch that leads")
    leader.rejects(wire.build_record(leader.end, leader.epoch - 1, b"payload"), count=1)


@check("no-epoch", "4", "A secondary must answer a record of epoch 0 NACK bad-record, also behind a previous epoch of 0.")
def _(node):
    leader = node.lead()
    leader.store(b"of the epoch that leads")
    previous = Prefix(leader.end.seq, 0, leader.end.digest)
    leader.rejects(wire.build_record(previous, 0, b"payload"), previous, count=1)


@check("later-epoch", "4", "A secondary must answer a record of an epoch above that of its frame NACK bad-record.")
def _(node):
    leader = node.lead()
    leader.rejects(wire.build_record(leader.end, leader.epoch + 1, b"payload"), count=1)
    good = leader.entries(b"good")[0]
    leader.rejects(good.raw + wire.build_record(good.prefix, leader.epoch + 1, b"payload"), count=2)


def producer(name, number, payload, length=None):
    """The body of a record with a producer; `length` is what it says of its name, if that is a lie."""
    return bytes([len(name) if length is None else length]) + name + number.to_bytes(8, "little") + payload


@check("producer", "4", "A secondary must store, acknowledge and give out a record with a producer like any other, byte "
       "for byte.")
def _(node):
    leader = node.lead()
    previous, records = leader.end, []
    for body in (producer(b"p", 1, b"payload"), producer(b"n" * 64, (1 << 64) - 1, b""), producer(b"\xff ", 0, b"x")):
        raw = wire.build_record(previous, leader.epoch, body, flags=1)
        records.append(wire.read_record(raw, 0, previous.seq + 1, 0, previous.digest))
        previous = records[-1].prefix
    leader.send(records)
    leader.stored(records)
    same("what a client reads", raws(node.client().read(records[0].seq)[0]), raws(records))
    same("what a master fetches", raws(leader.fetch(records[0].seq, records[-1].seq)), raws(records))
    before = leader.duplicates
    leader.send(records, wire.Prefix(records[0].seq - 1, leader.hello.tail_epoch, leader.hello.tail_digest))
    leader.ack(f"duplicates {before + 3}", lambda ack: ack.duplicates >= before + 3)
    listed = node.client().command(f"LIST from={records[0].seq} limit=1").splitlines()[0]
    same("what the gateway lists", listed, b"%d payload" % records[0].seq)
    leader.store(b"and goes on")


@check("bad-producer", "4", "… but answer one whose body does not hold its producer NACK bad-record.")
def _(node):
    leader = node.lead()
    for body in (b"", b"\0" + bytes(8), producer(b"n" * 65, 1, b"x"), producer(b"p", 1, b"", length=2),
                 producer(b"p", 1, b"")[:-1]):
        leader.rejects(wire.build_record(leader.end, leader.epoch, body, flags=1), count=1)


@check("bad-length", "4", "A secondary must answer a record that announces 4 GiB NACK bad-record.")
def _(node):
    leader = node.lead()
    raw = bytearray(leader.entries(b"payload")[0].raw)
    raw[16:20] = b"\xff" * 4
    raw[:4] = wire.crc32c(raw[4:48]).to_bytes(4, "little")
    leader.rejects(bytes(raw), count=1)


@check("bad-second", "7.3.5", "A secondary must not take a good record before a bad one either.")
def _(node):
    leader = node.lead()
    good, bad = raws(leader.entries(b"good", b"bad"))
    leader.rejects(good + flipped(bad, 40), count=2)


@check("bad-bits", "4", "A secondary must answer each of 40 random bits flipped in a run of three NACK bad-record.")
def _(node):
    leader = node.lead()
    chance = random.Random(20)
    run = b"".join(raws(leader.entries(b"one", b"", b"a third one")))
    for _ in range(40):
        leader.send(flipped(run, chance.randrange(len(run)), 1 << chance.randrange(8)), leader.end, count=3)
        leader.nack("bad-record", leader.end.seq + 1)
    leader.store(b"a good one")


def bad_tail(node, tail_of, **changes):
    """A tail that is not `count` records: the page allows both to refuse its records and to refuse the frame."""
    leader = node.lead()
    before = node.ask()
    leader.send(tail_of(raws(leader.entries(b"one", b"two"))), leader.end, **changes)
    what = "expected: NACK bad-record, or REFUSE bad-frame"
    answer = wait_for(leader.connection, what, lambda m: m.kind in ("NACK", "REFUSE"), ("ACK",))
    names = wire.NACK_CODES if answer.kind == "NACK" else wire.REFUSE_CODES
    holds(names.get(answer.code) in ("bad-record", "bad-frame"), f"{what}\n     got: {answer}")
    node.still_works(before)
    return answer.kind


@check("tail-missing", "7.3.2", "A secondary must refuse an APPEND with fewer records than it counts.")
def _(node):
    return bad_tail(node, lambda two: two[0], count=2)


@check("tail-cut", "7.3.2", "A secondary must refuse an APPEND whose last record is cut.")
def _(node):
    return bad_tail(node, lambda two: two[0] + two[1][:-1], count=2)


@check("tail-more", "7.3.2", "A secondary must refuse an APPEND with more records than it counts.")
def _(node):
    return bad_tail(node, lambda two: two[0] + two[1], count=1)


@check("tail-absurd", "7.3.2", "A secondary must refuse an APPEND that counts 2^32-1 records in a small tail.")
def _(node):
    return bad_tail(node, lambda two: two[0] + two[1], count=(1 << 32) - 1)


@check("append-old-epoch", "7.2.8", "A secondary must refuse an APPEND of an older epoch than the connection's "
       "stale-epoch.")
def _(node):
    leader = node.lead()
    before = node.ask()
    leader.send(leader.entries(b"payload"), epoch=leader.epoch - 1)
    refused(leader.connection, "stale-epoch")
    node.still_works(before)


@check("append-other-epoch", "7.2.8", "… and one of a newer epoch likewise.")
def _(node):
    leader = node.lead()
    before = node.ask()
    leader.send(leader.entries(b"payload"), epoch=leader.epoch + 1)
    refused(leader.connection, "stale-epoch")
    node.still_works(before)


@check("reconnect", "7.2.4", "A secondary must say after a reconnect what it stored, and go on behind it.")
def _(node):
    leader = node.lead()
    leader.store(b"one", b"two", b"three")
    end = leader.end
    leader.connection.close()
    leader = node.lead()
    same("stored and prefix id", leader.end, end)
    leader.store(b"four")


@check("epoch-table", "6", "A secondary must tell in its epoch table where the epoch of new entries began.")
def _(node):
    leader = node.lead_higher()
    first = leader.store(b"the first of its epoch", b"the second")[0]
    table = node.ask().epoch_table
    same("the newest row", table[-1:], [(node.epoch, first.seq)])
    same("the table, epochs ascending", table, sorted(table))
    holds(len(table) <= 128, f"{len(table)} rows")


@check("truncated-append", "2", "A secondary must keep nothing of an APPEND that ends in the middle.")
def _(node):
    leader = node.lead()
    before = node.ask()
    frame = leader.frame(leader.entries(b"one", b"two"), leader.end).encode()
    for cut in range(1, len(frame), 9):
        leader.connection.send_bytes(frame[:cut])
        leader.connection.close()
        leader = node.lead()
    unchanged(node, before)
    leader.store(b"whole")


# ---------------------------------------------------------------------------------------------------------------------
section("Logs that part, and entries a master asks for")


@check("align-nothing", "7.5.1", "A secondary must answer an ALIGN at its own last entry with HELLO, and keep all it "
       "has.")
def _(node):
    node.lead().store(b"kept")
    leader = node.lead()
    answer = leader.align(leader.end)
    same("what the node says of itself", state_of(answer), state_of(leader.answer))
    leader.store(b"behind what was kept")


@check("align-sets-aside", "7.5.2", "A secondary must move aside what it has behind the last common entry, answer HELLO "
       "as it is then, and show none of it any more.")
def _(node):
    records = node.lead().store(b"common 1", b"common 2", b"another way 1", b"another way 2", b"another way 3")
    leader = node.lead()
    last = records[1].prefix
    answer = leader.align(last)
    same("log id, epoch, run id", (answer.log_id, answer.epoch, answer.run_id), (node.log_id, node.epoch, node.run_id))
    same("stored and prefix id", (answer.stored, answer.tail_epoch, answer.tail_digest), last)
    same("what it says to who asks", state_of(node.ask()), state_of(answer))
    same("what a client reads", raws(node.client().read(records[0].seq)[0]), raws(records[:2]))


@check("align-then-append", "7.5.2", "… and take the master's entries under the numbers that are free now, on the same "
       "connection.")
def _(node):
    records = node.lead().store(b"common", b"another way 1", b"another way 2")
    leader = node.lead_higher()
    leader.align(records[0].prefix)
    new = leader.store(b"the master's way 1", b"the master's way 2", b"the master's way 3")
    same("the numbers", [record.seq for record in new], list(range(records[1].seq, records[1].seq + 3)))
    same("what a client reads", raws(node.client().read(records[0].seq)[0]), raws(records[:1] + new))


@check("align-epoch-table", "6", "A secondary's epoch table must lose the epochs whose entries were moved aside, and "
       "keep the others.")
def _(node):
    one = node.lead_higher().store(b"of one epoch")
    lower = node.epoch
    node.lead_higher().store(b"of the next epoch")
    before = node.ask()
    same("the last rows before", before.epoch_table[-2:], [(lower, one[0].seq), (node.epoch, one[0].seq + 1)])
    answer = node.lead().align(one[0].prefix)
    same("the epoch table", answer.epoch_table, before.epoch_table[:-1])


@check("align-again", "7.5.1", "A second ALIGN at the same entry must change nothing more.")
def _(node):
    records = node.lead().store(b"common", b"another way")
    first = node.lead().align(records[0].prefix)
    leader = node.lead()
    same("the second answer", state_of(leader.align(records[0].prefix)), state_of(first))
    leader.store(b"the master's way")


def refuses_to_align(node, leader, *last):
    """An ALIGN is refused damaged and changes nothing; the next master, which agrees, is served again."""
    before = node.ask()
    leader.send_align(Prefix(*last))
    refused(leader.connection, "damaged")
    unchanged(node, before)
    node.lead_higher().store(b"of a master that agrees")


@check("align-committed", "7.5.3", "A secondary must refuse an ALIGN below the commit it knows damaged, and must not "
       "move anything aside.")
def _(node):
    leader = node.lead()
    records = leader.store(b"committed 1", b"committed 2", b"not committed")
    leader.commit = records[1].seq
    leader.heartbeat()
    wait_for(leader.connection, "expected: HEARTBEAT_ACK", lambda m: m.kind == "HEARTBEAT_ACK", ("ACK",))
    same("the commit it knows", node.ask().commit, records[1].seq)
    refuses_to_align(node, node.lead(), *records[0].prefix)
    same("what a client reads", raws(node.client().read(records[0].seq, limit=3)[0]), raws(records))
    # Behind the commit it may be moved.
    same("stored", node.lead().align(records[1].prefix).stored, records[1].seq)


@check("align-hidden", "7.5.3", "… and show nothing behind the last common entry, and not vouch for its log, until "
       "it promises to another master.")
def _(node):
    leader = node.lead()
    records = leader.store(b"committed 1", b"committed 2")
    leader.commit = records[1].seq
    leader.heartbeat()
    wait_for(leader.connection, "expected: HEARTBEAT_ACK", lambda m: m.kind == "HEARTBEAT_ACK", ("ACK",))
    leader = node.lead()
    leader.send_align(records[0].prefix)
    refused(leader.connection, "damaged")
    for level in ("local", "committed"):
        same(f"what a client reads at {level}", raws(node.client().read(records[1].seq, level=level)[0]), [])
    holds(not node.ask().vouches, "it vouches for a log that contradicts its master's")
    more = node.lead_higher().store(b"of a master that agrees")
    same("what a client reads then", raws(node.client().read(records[1].seq)[0]), raws(records[1:] + more))


@check("align-hidden-on", "7.5.3", "… not only on that connection: until another promise it does not vouch and takes no "
       "levels, and hides all of its log if not even the entry at `last` is the same; HELLO, DIGEST and FETCH tell it.")
def _(node):
    leader = node.lead()
    records = leader.store(b"committed 1", b"committed 2")
    last = records[0].prefix
    leader.send_align(Prefix(last.seq, last.epoch, last.digest ^ 1))
    refused(leader.connection, "damaged")
    leader = node.lead()
    holds(not leader.answer.vouches, "it vouches again for the same epoch")
    same("stored", leader.answer.stored, records[1].seq)
    client = node.client()
    same("what a client reads", raws(client.read(1, limit=10)[0]), [])
    shown = client.command(f"GET {records[0].seq}")
    holds(shown.startswith(b"ERR unreadable "),
          f"GET of an entry that is not shown any more:\nexpected: ERR unreadable …\n     got: {shown!r}")
    same("DIGEST", client.command(f"DIGEST {records[1].seq}").split()[:2], [b"OK", b"seq=%d" % records[1].seq])
    same("FETCH", raws(leader.fetch(records[0].seq, records[1].seq)), raws(records))
    leader.heartbeat(levels=levels(records[1].seq, records[1].seq, records[1].seq))
    leader.heartbeats_answered()
    same("the commit it knows", node.ask().commit, leader.answer.commit)
    leader = node.lead_higher()
    holds(leader.answer.vouches, "it does not vouch for its log under another epoch")
    same("what a client reads then", raws(node.client().read(records[0].seq)[0]), raws(records))


@check("align-after-append", "7.5.1", "A secondary must carry out an ALIGN behind an APPEND on the same connection, and "
       "another one behind it.")
def _(node):
    leader = node.lead()
    records = leader.store(b"common", b"another way 1", b"another way 2")
    for last in (records[1], records[0], records[0]):
        leader.align(last.prefix)
    leader.store(b"the master's way")


@check("align-other-log", "7.5.3", "A secondary must refuse an ALIGN whose prefix id at `last` is not its own damaged, "
       "and change nothing: here another digest.")
def _(node):
    records = node.lead().store(b"one", b"two")
    last = records[0].prefix
    refuses_to_align(node, node.lead(), last.seq, last.epoch, last.digest ^ 1)


@check("align-other-epoch", "7.5.3", "… and likewise if only the epoch of that entry differs.")
def _(node):
    records = node.lead().store(b"one", b"two")
    last = records[0].prefix
    refuses_to_align(node, node.lead(), last.seq, last.epoch - 1, last.digest)


@check("align-beyond", "7.5.3", "… and likewise if it has no such entry at all.")
def _(node):
    end = node.lead().store(b"the last one")[-1].prefix
    for seq in (end.seq + 1, (1 << 64) - 1):
        refuses_to_align(node, node.lead(), seq, end.epoch, end.digest)
        end = node.lead().end


@check("align-stale", "7.2.8", "A secondary must refuse an ALIGN of another epoch stale-epoch, and change nothing.")
def _(node):
    records = node.lead().store(b"one", b"two")
    leader = node.lead()
    before = node.ask()
    leader.send_align(records[0].prefix, epoch=leader.epoch + 1)
    refused(leader.connection, "stale-epoch")
    unchanged(node, before)


@check("fetch-exact", "6", "A secondary must answer FETCH with exactly the entries asked for, byte for byte.")
def _(node):
    node.lead().store(b"before")
    records = node.lead().store(*(b"entry %d" % i for i in range(10)))
    leader = node.lead()
    for first, last in ((0, 9), (0, 0), (9, 9), (3, 6)):
        same(f"entries {records[first].seq} to {records[last].seq}",
             raws(leader.fetch(records[first].seq, records[last].seq)), raws(records[first:last + 1]))


@check("fetch-whole", "7.5.4", "A secondary must hand out its whole log from entry 1 on, as a chain, in frames that "
       "follow each other.")
def _(node):
    node.lead().store(*(b"%d" % i for i in range(50)))
    leader = node.lead()
    previous, frames = wire.EMPTY, 0
    while previous.seq < leader.end.seq:
        got = leader.fetch(previous.seq + 1, leader.end.seq, previous)
        holds(got, f"nothing from entry {previous.seq + 1} on")
        previous = got[-1].prefix
        frames += 1
    same("the last entry", previous, leader.end)
    return f"{previous.seq} entries in {frames} FETCHED"


@check("fetch-epochs", "7.5.4", "… with the epochs the entries were numbered in.")
def _(node):
    one = node.lead_higher().store(b"of one epoch")
    two = node.lead_higher().store(b"of the next epoch")
    got = node.lead_higher().fetch(one[0].seq, two[0].seq)
    same("the epochs", [record.epoch for record in got], [node.epoch - 2, node.epoch - 1])


@check("fetch-beyond", "6", "A secondary must answer count 0 where it has no entry: behind its end, at 0, and for a "
       "range that ends before it begins.")
def _(node):
    end = node.lead().store(b"the last one")[-1].seq
    leader = node.lead()
    for first, last in ((end + 1, end + 1), (end + 1, end + 1000), (end + 1000, end + 2000), (0, 0), (0, end),
                        (end, end - 1), (end + 5, 1), ((1 << 64) - 1, (1 << 64) - 1)):
        same(f"entries {first} to {last}", leader.fetch(first, last), [])
    leader.store(b"and goes on")


@check("fetch-over-the-end", "6", "A secondary that has only the beginning of what is asked for must send that.")
def _(node):
    records = node.lead().store(b"one", b"two", b"three")
    leader = node.lead()
    for last in (records[-1].seq + 1, (1 << 64) - 1):
        same(f"entries {records[1].seq} to {last}", raws(leader.fetch(records[1].seq, last)), raws(records[1:]))


@check("fetch-held", "6", "A secondary must not hand out what it only holds back.")
def _(node):
    leader = node.lead()
    records = leader.entries(b"1", b"2", b"3")
    leader.send(records[1:], records[0].prefix)
    leader.ack("with held ranges", lambda ack: ack.held)
    same("entries behind the hole", leader.fetch(records[1].seq, records[2].seq), [])


@check("fetch-bulk", "6", "A FETCHED must hold at most 256 KiB of records, and the master must get all of them by "
       "asking on.")
def _(node):
    leader = node.lead()
    payload = b"b" * min(60_000, leader.answer.payload_bytes_max)
    records = [record for _ in range(3) for record in leader.store(*[payload] * 4)]
    leader = node.lead()
    got, sizes = [], []
    while len(got) < len(records):
        frame = leader.fetch(records[len(got)].seq, records[-1].seq)
        holds(frame, f"nothing from entry {records[len(got)].seq} on")
        sizes.append(sum(map(len, raws(frame))))
        got += frame
    same("the entries", raws(got), raws(records))
    holds(max(sizes) <= wire.BULK_BYTES, f"frames of {sizes} bytes")
    return f"frames of {sizes} bytes"


@check("fetch-large", "6", "A record of more than 256 KiB must come alone in its FETCHED.")
def _(node):
    leader = node.lead()
    size = min(leader.answer.payload_bytes_max, 300_000)
    if size <= wire.BULK_BYTES:
        raise NotRun("no entry that large is allowed")
    records = leader.store(b"small") + leader.store(b"L" * size) + leader.store(b"small again")
    leader = node.lead()
    for at, record in enumerate(records):
        same(f"entries from {record.seq} on", raws(leader.fetch(record.seq, records[-1].seq)),
             raws(records[at:at + 1]))


@check("fetch-pipelined", "7.5.4", "A secondary must answer FETCHes sent at once in their order, or refuse one that comes "
       "before the answer bad-frame.")
def _(node):
    records = node.lead().store(*(b"%d" % i for i in range(30)))
    leader = node.lead()
    for record in records:
        leader.send_fetch(record.seq, record.seq)
    for at, record in enumerate(records):
        answer = wait_for(leader.connection, f"expected: FETCHED for entry {record.seq}, or REFUSE bad-frame",
                          lambda m: m.kind in ("FETCHED", "REFUSE"), ())
        if answer.kind == "REFUSE":
            same("the code", wire.REFUSE_CODES.get(answer.code), "bad-frame")
            return f"refused behind {at}"
        same("the entry", (answer.first, raws(wire.records_of(answer))), (record.seq, [record.raw]))
    return "all answered"


@check("fetch-changes-nothing", "6", "FETCH must change nothing, and the master may go on with APPEND behind it.")
def _(node):
    leader = node.lead()
    records = leader.store(b"one", b"two")
    before = node.ask()
    leader.fetch(records[0].seq, records[1].seq)
    unchanged(node, before)
    leader.store(b"three")
    leader.fetch(records[0].seq, leader.end.seq)


@check("fetch-stale", "7.2.8", "A secondary must refuse a FETCH of another epoch stale-epoch.")
def _(node):
    leader = node.lead()
    leader.send_fetch(1, 1, epoch=leader.epoch - 1)
    refused(leader.connection, "stale-epoch")


# ---------------------------------------------------------------------------------------------------------------------
section("Signs of life")


@check("heartbeat", "7.3.11", "A secondary must answer each of 300 heartbeats in order, by number, to a master that reads.")
def _(node):
    leader = node.lead()
    for _ in range(300):
        leader.heartbeat()
    for number in range(1, 301):
        answer = wait_for(leader.connection, f"expected: HEARTBEAT_ACK {number}", lambda m: True)
        same("the answer", answer, Message("HEARTBEAT_ACK", epoch=leader.epoch, number=number))


@check("heartbeat-bulk", "7.1.9", "A secondary must answer each heartbeat while 4 MiB of entries are under way.")
def _(node):
    leader = node.lead()
    payload = b"b" * min(8000, leader.answer.payload_bytes_max)
    frames, previous, volume = [], leader.end, 0
    while volume < min(4 << 20, leader.answer.window_bytes - wire.BULK_BYTES):
        records = leader.entries(*[payload] * 32, after=previous)
        frames.append(leader.frame(records, previous).encode())
        previous = records[-1].prefix
        volume += sum(map(len, raws(records)))
    sent_at, slowest, last = {}, 0.0, previous.seq

    def send():
        for frame in frames:
            leader.connection.send_bytes(frame)
            sent_at[leader.heartbeats + 1] = time.monotonic()
            leader.heartbeat()
    sender = threading.Thread(target=send, daemon=True)
    sender.start()
    answered = stored = 0
    while answered < len(frames) or stored < last:
        message = wait_for(leader.connection, f"expected: {len(frames)} HEARTBEAT_ACKs and ACK with stored {last}",
                           lambda m: m.kind in ("HEARTBEAT_ACK", "ACK"), ())
        if message.kind == "ACK":
            leader.well_formed(message)
            stored = message.stored
        else:
            answered += 1
            same("number of a HEARTBEAT_ACK", message.number, answered)
            slowest = max(slowest, time.monotonic() - sent_at[answered])
    sender.join(PATIENCE)
    holds(slowest <= PROMPT, f"the slowest answer took {slowest:.3f} s, at most {PROMPT} s are allowed")
    return f"the slowest took {slowest * 1000:.0f} ms"


@check("heartbeat-epoch", "7.2.8", "A secondary must refuse a heartbeat of another epoch stale-epoch.")
def _(node):
    leader = node.lead()
    before = node.ask()
    leader.heartbeat(epoch=leader.epoch - 1)
    refused(leader.connection, "stale-epoch")
    node.still_works(before)


# ---------------------------------------------------------------------------------------------------------------------
section("Clients")


@check("read", "6", "A secondary must give a client the entries byte for byte as they were sent.")
def _(node):
    records = node.lead().store(b"read me", b"", "größer ≥ 1".encode(), bytes(range(256)))
    got, last = node.client().read(records[0].seq)
    same("the records", raws(got), raws(records))
    same("next of the last frame", last.next, records[-1].seq + 1)


@check("read-limit", "6", "A secondary must keep the limit of a read.")
def _(node):
    records = node.lead().store(b"1", b"2", b"3", b"4")
    same("the records", raws(node.client().read(records[0].seq, limit=2)[0]), raws(records[:2]))


@check("read-beyond", "6", "A secondary must find nothing behind its end, and end the read.")
def _(node):
    leader = node.lead()
    client = node.client()
    for beyond in (1, 1000):
        same("the records", raws(client.read(leader.end.seq + beyond)[0]), [])


@check("read-long", "9", "A secondary must give a long read in several frames without a hole.")
def _(node):
    leader = node.lead()
    records = []
    for _ in range(3):
        records += leader.store(*[b"r" * min(8000, leader.answer.payload_bytes_max)] * 30)
    same("the records", raws(node.client().read(records[0].seq)[0]), raws(records))


@check("read-levels", "7.4.7", "A secondary must show as much as the level of a read allows, by what the last "
       "heartbeat said.")
def _(node):
    leader = node.lead()
    records = leader.store(b"1", b"2", b"3")
    first, second, third = (record.seq for record in records)
    leader.heartbeat(levels=levels(second, third, first))
    wait_for(leader.connection, "expected: HEARTBEAT_ACK", lambda m: m.kind == "HEARTBEAT_ACK", ("ACK",))
    client = node.client()
    same("commit in a HELLO", client.answer.commit, second)
    for level, count in (("local", 3), ("committed", 2), ("all", 1), (("nodes", 1), 3), (("nodes", 2), 1)):
        got, last = client.read(first, level=level)
        same(f"the records at level {level}", raws(got), raws(records[:count]))
        same(f"next at level {level}", last.next, first + count)
        same("commit in ENTRIES", last.commit, second)


@check("append-levels", "7.4.1", "… and by what an APPEND said.")
def _(node):
    leader = node.lead()
    one = leader.store(b"1")
    two = leader.entries(b"2")
    leader.send(two, levels=levels(one[0].seq, one[0].seq, one[0].seq))
    leader.stored(two)
    same("the committed records", raws(node.client().read(one[0].seq, level="committed")[0]), raws(one))


def not_taken(node, code, tail_of, **changes):
    """The levels of a frame that is NACKed are not taken."""
    leader = node.lead()
    records = leader.store(b"1", b"2", b"3")
    first, last = records[0].seq, records[-1].seq
    leader.heartbeat(levels=levels(first, last, first))
    leader.heartbeats_answered()
    said = levels(last, last, last)
    leader.send(*tail_of(leader, records), levels=said, **changes)
    leader.nack(code, last + 1 if code != "conflict" else first)
    same("the commit it knows", node.ask().commit, first)
    same("what it shows at level all", raws(node.client().read(first, level="all")[0]), raws(records[:1]))
    return leader, records, said


@check("levels-bad-record", "7.4.1", "A secondary must not take the levels of an APPEND that it NACKs bad-record; those of "
       "the next heartbeat it takes.")
def _(node):
    leader, records, said = not_taken(node, "bad-record", lambda leader, _: (
        [wire.read_record(leader.entries(b"x")[0].raw, 0, leader.end.seq + 1, 0, leader.end.digest)._replace(raw=flipped(
            leader.entries(b"x")[0].raw, 48))], leader.end))
    leader.heartbeat(levels=said)
    leader.heartbeats_answered()
    same("the commit it knows", node.ask().commit, records[-1].seq)


def no_more_levels(node, code, tail_of):
    leader, records, said = not_taken(node, code, tail_of)
    leader.heartbeat(levels=said)
    leader.heartbeats_answered()
    same("the commit it knows after a heartbeat", node.ask().commit, records[0].seq)
    leader.connection.send(leader.hello)
    wait_for(leader.connection, "expected: HELLO", lambda m: m.kind == "HELLO", ("ACK",))
    leader.heartbeat(levels=said)
    leader.heartbeats_answered()
    same("the commit it knows after another HELLO", node.ask().commit, records[-1].seq)


@check("levels-mismatch", "7.4.3", "… nor of one that it NACKs mismatch, and none of this connection after it, until "
       "another HELLO.")
def _(node):
    def other(leader, _):
        before = Prefix(leader.end.seq, leader.end.epoch, leader.end.digest ^ 1)
        return leader.entries(b"of another log", after=before), before
    no_more_levels(node, "mismatch", other)


@check("levels-conflict", "7.4.3", "… and conflict likewise.")
def _(node):
    def other(leader, records):
        before = Prefix(records[0].seq - 1, leader.hello.tail_epoch, leader.hello.tail_digest)
        return leader.entries(b"another", after=before), before
    no_more_levels(node, "conflict", other)


@check("levels-none", "7.4.2", "A secondary must ignore the commit of a frame that tells no levels, in HEARTBEAT and APPEND.")
def _(node):
    leader = node.lead()
    before = node.ask().commit
    records = leader.entries(b"1", b"2")
    leader.send(records, levels=levels(records[-1].seq))
    leader.stored(records)
    leader.heartbeat(levels=levels(records[-1].seq))
    leader.heartbeats_answered()
    same("the commit it knows", node.ask().commit, before)


@check("levels-hello", "7.4.1", "A secondary must not take the commit of a HELLO.")
def _(node):
    end = node.lead().store(b"1", b"2")[-1].seq
    before = node.ask().commit
    node.lead(commit=end)
    same("the commit it knows", node.ask().commit, before)


@check("levels-asking", "7.4.1", "… nor of a connection that only asks.")
def _(node):
    end = node.lead().store(b"1", b"2")[-1].seq
    before = node.ask().commit
    connection = node.connect()
    introduced(connection, node.master_hello(epoch=0))
    connection.send(Message("HEARTBEAT", epoch=0, number=1, levels=levels(end, end, end)))
    same("the answer", connection.receive().kind, "HEARTBEAT_ACK")
    same("the commit it knows", node.ask().commit, before)


@check("levels-kept", "7.4.5", "Under a new promise a secondary must keep its commit and forget the other levels until it is "
       "told anew.")
def _(node):
    leader = node.lead()
    records = leader.store(b"1", b"2")
    first, last = records[0].seq, records[1].seq
    leader.heartbeat(levels=levels(last, last, last))
    leader.heartbeats_answered()
    leader = node.lead_higher()
    same("the commit it says", leader.answer.commit, last)
    client = node.client()
    same("what it shows at level committed", raws(client.read(first, level="committed")[0]), raws(records))
    same("what it shows at level all", raws(client.read(first, level="all")[0]), [])
    leader.heartbeat(levels=levels(last, last, first))
    leader.heartbeats_answered()
    same("what it shows then", raws(client.read(first, level="all")[0]), raws(records[:1]))


@check("commit-stays", "7.4.4", "The commit that a secondary knows must not fall when it is told a lower one.")
def _(node):
    leader = node.lead()
    end = leader.store(b"1", b"2")[-1].seq
    for commit in (end, 0, end - 1):
        leader.heartbeat(levels=levels(commit, end, commit))
        leader.heartbeats_answered()
        same("the commit it knows", node.ask().commit, end)


@check("tail-from", "6", "A secondary must show a tail what is there and what comes, until it is cancelled.")
def _(node):
    leader = node.lead()
    there = leader.store(b"there 1", b"there 2")
    first = there[0].seq
    client = node.client()
    tail = client.request("TAIL_REQUEST", start=("from", first), level="local")
    got, _last = client.entries(tail, first, lambda _, records: len(records) >= 2)
    same("what is there", raws(got), raws(there))
    coming = leader.store(b"coming 1", b"coming 2")
    got, _last = client.entries(tail, first + 2, lambda _, records: len(records) >= 2)
    same("what comes", raws(got), raws(coming))
    client.connection.send(Message("CANCEL", id=tail))
    client.entries(tail, first + 4, lambda frame, _: frame.end)
    client.ping()


@check("tail-new", "6", "A secondary must show a tail from new on only what comes.")
def _(node):
    leader = node.lead()
    leader.store(b"there")
    client = node.client()
    tail = client.request("TAIL_REQUEST", start="new", level="local")
    client.ping()  # the tail has begun when a later request is answered
    coming = leader.store(b"coming")
    got, _last = client.entries(tail, coming[0].seq, lambda _, records: records)
    same("what comes", raws(got), raws(coming))


@check("tail-last", "6", "A secondary must begin a tail of the last two with them.")
def _(node):
    records = node.lead().store(b"1", b"2", b"3")
    client = node.client()
    tail = client.request("TAIL_REQUEST", start=("last", 2), level="local")
    got, _last = client.entries(tail, records[1].seq, lambda _, records: len(records) >= 2)
    same("the records", raws(got), raws(records[1:]))


@check("cancel-late", "7.9.8", "A secondary must ignore a CANCEL for what has ended, or never was.")
def _(node):
    leader = node.lead()
    client = node.client()
    client.read(leader.end.seq + 1)
    client.connection.send(Message("CANCEL", id=client.last_id))
    client.connection.send(Message("CANCEL", id=4711))
    client.ping()


@check("tails-busy", "7.9.5", "A secondary must serve 16 tails of a connection, refuse one more busy, and have room "
       "again after a CANCEL.")
def _(node):
    client = node.client()
    tails = [client.request("TAIL_REQUEST", start="new", level="local") for _ in range(17)]
    refusal = client.answers(tails[16], "REQUEST_REFUSED", lambda m: True)[0].refusal
    same("the code", request_code(refusal), "busy")
    client.connection.send(Message("CANCEL", id=tails[0]))
    client.answers(tails[0], "ENTRIES", lambda frame: frame.end)
    client.read(node.ask().stored + 1)


@check("command", "7.9.13", "A secondary must answer the COMMAND PING hi with PONG hi.")
def _(node):
    node.client().ping()


@check("command-order", "7.9.14", "A secondary must answer 30 commands sent at once in order.")
def _(node):
    client = node.client()
    ids = [client.request("COMMAND", end=True, tail=b"PING %d" % i) for i in range(30)]
    got = {}
    ended = []
    while len(ended) < len(ids):
        piece = wait_for(client.connection, "expected: COMMAND_REPLY", lambda m: m.kind == "COMMAND_REPLY", ())
        got[piece.id] = got.get(piece.id, b"") + piece.tail
        if piece.end:
            ended.append(piece.id)
    same("the order", ended, ids)
    same("the answers", [got[request_id] for request_id in ids], [b"PONG %d\n" % i for i in range(30)])


@check("append-request", "7.9.3", "A secondary must refuse a client's append not-master, each entry once.")
def _(node):
    client = node.client()
    before = node.ask()
    client.connection.send(append_request(100, b"a", b"", b"bc", w=2, timeout=1))
    answered = []
    while len(answered) < 3:
        reply = wait_for(client.connection, "expected: APPEND_REPLY", lambda m: m.kind == "APPEND_REPLY", ())
        outcome, details = reply.outcome
        same("the outcome", outcome, "refused")
        same("the code", request_code(details), "not-master")
        answered += range(reply.id, reply.id + reply.count)
    same("the requests answered", sorted(answered), [100, 101, 102])
    unchanged(node, before)


@check("wait-request", "7.9.4", "A secondary must refuse a client's wait master-only.")
def _(node):
    client = node.client()
    request = client.request("WAIT_REQUEST", seq=1, concern="all", ack="default", timeout=("micros", 1000))
    outcome, details = client.answers(request, "APPEND_REPLY", lambda m: True)[0].outcome
    same("the outcome", outcome, "refused")
    same("the code", request_code(details), "master-only")
    leader = node.lead()
    for line, start in (("APPEND x", "REJECTED not-master"), ("WAIT 1", "ERR master-only")):
        want = f"{start} master={leader.hello.master_addr} ".encode()
        answer = client.command(line)
        holds(answer.startswith(want), f"the answer to {line}: {answer!r} instead of {want!r}")


@check("wait-any", "7.9.4", "… whatever entry it asks for, also one that is not there.")
def _(node):
    client = node.client()
    for seq in (0, 1, 1 << 60):
        request = client.request("WAIT_REQUEST", seq=seq, concern="default", ack="default", timeout="forever")
        same(f"the code for {seq}", client.refusal(request, "APPEND_REPLY")[0], "master-only")


@check("levels-unknown", "7.9.6", "A secondary must refuse a level of 0 nodes, or of more than the roster has, "
       "bad-value.")
def _(node):
    leader = node.lead()
    leader.store(b"x")
    client = node.client()
    for level in (("nodes", 0), ("nodes", 129), ("nodes", 65535)):
        request = client.request("READ_REQUEST", from_=1, limit=1, level=level)
        same(f"the code at {level}", client.refusal(request)[0], "bad-value")


@check("read-zero", "6", "A secondary must take a read from 0 as one from 1.")
def _(node):
    node.lead().store(b"x")
    client = node.client()
    same("the first record", raws(client.read(0, limit=1)[0]), raws(client.read(1, limit=1)[0]))


@check("tail-idle", "7.9.9", "A secondary must send an idle tail an empty ENTRIES each heartbeat interval.")
def _(node):
    leader = node.lead()
    leader.store(b"x")
    client = node.client()
    tail = client.request("TAIL_REQUEST", start="new", level="local")
    frames = []
    client.answers(tail, "ENTRIES", lambda frame: frames.append(frame) or len(frames) >= 2)
    for frame in frames:
        same("first, count, next, end", (frame.first, frame.count, frame.next, frame.end),
             (0, 0, leader.end.seq + 1, False))


@check("command-append", "7.9.15", "A secondary must answer APPEND as a COMMAND REJECTED not-master, and TAIL and "
       "WAIT ERR.")
def _(node):
    client = node.client()
    holds(client.command("APPEND x").startswith(b"REJECTED not-master"), "APPEND is not REJECTED not-master")
    holds(client.command("WAIT 1").startswith(b"ERR master-only"), "WAIT is not ERR master-only")
    same("the class of TAIL", client.command("TAIL").split()[0], b"ERR")


# ---------------------------------------------------------------------------------------------------------------------
section("Masters that keep no rule")


def as_leader(node):
    return node.lead().connection


def asking(node):
    connection = node.connect()
    introduced(connection, node.master_hello(epoch=0))
    return connection


def hostile_master(name, page, says, state, data_of, *codes, patience=PATIENCE):
    @check(name, page, says)
    def _(node):
        attack(node, state, data_of(node), *codes, patience=patience)


for _sample in SAMPLES:
    _name = _sample.kind.lower().replace("_", "-")
    if _sample.kind in ("APPEND", "HEARTBEAT", "ALIGN", "FETCH"):
        hostile_master(f"empty-{_name}", "2", f"A secondary must refuse {_sample.kind} without a body "
                                              f"bad-frame.", as_leader,
                       lambda _, number=wire.MESSAGES[_sample.kind].number: encode_frame(number, b""), "bad-frame")
    elif _sample.kind != "REFUSE":
        hostile_master(f"master-{_name}", "5", f"A secondary must refuse {_sample.kind} from a master that leads "
                                               f"bad-frame.",
                       as_leader, lambda _, sample=_sample: sample.encode(), "bad-frame")
hostile_master("asking-append", "7.2.3", "A secondary must refuse APPEND from a master that only asked bad-frame or "
                                         "stale-epoch.",
               asking, lambda _: hostile.sample("APPEND").encode(), "bad-frame", "stale-epoch")
for _kind in ("ALIGN", "FETCH"):
    hostile_master(f"asking-{_kind.lower()}", "7.2.3", f"… and {_kind} likewise.", asking,
                   lambda _, kind=_kind: hostile.sample(kind).encode(), "bad-frame", "stale-epoch")
    hostile_master(f"trailing-{_kind.lower()}", "2", f"A secondary must refuse a byte behind {_kind} bad-frame.",
                   as_leader, lambda _, kind=_kind: with_raw(hostile.sample(kind), b"\0"), "bad-frame")
hostile_master("client-turns-master", "5", "A secondary must refuse a client that turns into a master bad-frame or "
                                           "wrong-role.",
               as_client, lambda node: node.master_hello(epoch=node.epoch).encode(), "bad-frame", "wrong-role")
hostile_master("longest-master", "2", "A secondary must refuse a master's body of 2^32-1 bytes frame-too-long, by "
                                      "the header "
               "alone.", as_leader, lambda _: header(0x10, length=(1 << 32) - 1), "frame-too-long",
               patience=hostile.SOON)
hostile_master("trailing-heartbeat", "2", "A secondary must refuse a byte behind a HEARTBEAT bad-frame.", as_leader,
               lambda node: with_raw(Message("HEARTBEAT", epoch=node.epoch, number=1, levels=levels(0)), b"\0"),
               "bad-frame")
hostile_master("absurd-levels", "3", "A secondary must refuse levels of 2^60 nodes in a HEARTBEAT bad-frame.", as_leader,
               lambda node: encode_frame(0x13, b"\x01\x01\x00" + ABSURD), "bad-frame")
hostile_master("levels-many", "6", "A secondary must refuse levels of 129 nodes in a HEARTBEAT bad-frame.", as_leader,
               lambda node: Message("HEARTBEAT", epoch=node.epoch, number=1, levels=levels(0, *[0] * 129)).encode(),
               "bad-frame")
hostile_master("levels-rise", "6", "… and levels that rise.", as_leader,
               lambda node: Message("HEARTBEAT", epoch=node.epoch, number=1, levels=levels(0, 1, 2)).encode(),
               "bad-frame")
hostile_master("levels-rise-append", "7.3.1", "… in an APPEND, too.", as_leader,
               lambda node: Message("APPEND", epoch=node.epoch, first=1 << 40, count=1, previous_epoch=1,
                                    previous_digest=1, levels=levels(0, 1, 2), tail=wire.build_record(
                                        Prefix((1 << 40) - 1, 1, 1), 1, b"x")).encode(), "bad-frame")
hostile_master("no-records", "7.3.1", "A secondary must refuse an APPEND of no records bad-frame.", as_leader,
               lambda node: Message("APPEND", epoch=node.epoch, first=1, count=0, previous_epoch=0, previous_digest=0,
                                    levels=levels(0)).encode(), "bad-frame")
hostile_master("record-0", "7.3.1", "A secondary must refuse an APPEND from entry 0 on bad-frame.", as_leader,
               lambda node: Message("APPEND", epoch=node.epoch, first=0, count=1, previous_epoch=0, previous_digest=0,
                                    levels=levels(0), tail=wire.build_record(wire.EMPTY, 1, b"x", seq=0)).encode(),
               "bad-frame")


@check("truncated", "7.2.4", "A leading HELLO that breaks off, at each of its bytes, must promise nothing.")
def _(node):
    before = node.ask()
    frame = node.master_hello(before, epoch=node.epoch + 1).encode()
    for cut in range(len(frame)):
        connection = node.connect()
        connection.send_bytes(frame[:cut])
        connection.close()
        if cut % 16 == 0:
            node.still_works(before)
    node.still_works(before)


@check("cuts-master", "2", "A master's connection that ends at any byte of HELLO, HEARTBEAT and APPEND must leave "
       "whole frames done, and nothing of the others.")
def _(node):
    leader = node.lead()
    start = leader.end
    records = leader.entries(b"one", b"two")
    beat = Message("HEARTBEAT", epoch=leader.epoch, number=1, levels=levels(leader.commit, start.seq, leader.commit))
    frames = [node.master_hello(node.ask(), epoch=node.epoch).encode(), beat.encode(),
              leader.frame(records, start).encode()]
    whole = b"".join(frames)
    for cut in range(len(whole)):
        connection = node.connect()
        connection.send_bytes(whole[:cut])
        connection.close()
        if cut % 32 == 0:
            same("stored", node.ask().stored, start.seq)
    same("stored", node.ask().stored, start.seq)
    node.lead().store(b"whole")
    return f"{len(whole)} cuts"


@check("append-drip", "2", "A secondary must understand an APPEND that comes one byte at a time.")
def _(node):
    leader = node.lead()
    records = leader.entries(b"slowly")
    for byte in leader.frame(records, leader.end).encode():
        leader.connection.send_bytes(bytes([byte]))
    leader.stored(records)


@check("master-never-reads", "7.3.11", "A master that reads none of its answers must hold up nobody else, and cost "
       "bounded memory.")
def _(node):
    node.client().ping()
    memory = node.memory()
    leader = node.lead()
    previous = leader.end
    records = leader.store(b"again and again")
    frame = leader.frame(records, previous).encode()
    leader.connection.socket.settimeout(0.5)
    sent = 0
    try:
        while sent < 16 << 20:
            leader.connection.socket.sendall(frame * 500)
            sent += len(frame) * 500
    except OSError:
        pass
    took = hostile.prompt(node)
    note = hostile.grew(node, memory, 32 * hostile.MEBI)
    leader.connection.close()
    node.lead().store(b"and goes on")
    return f"{sent >> 10} KiB were taken; {note}; PING {took * 1000:.0f} ms"


@check("hold-back-full", "7.3.6", "A secondary that has no room for early entries must answer NACK hold-back-full, "
       "cost bounded memory, and go on.")
def _(node):
    if not node.thorough:
        raise NotRun("only with --thorough: it sends tens of MiB, which takes this program a minute")
    leader = node.lead()
    memory = node.memory()
    previous = leader.entries(b"the hole")[0].prefix
    payload = b"h" * min(60_000, leader.answer.payload_bytes_max)
    nacked, sent = None, 0
    connection = leader.connection
    while sent < 64 << 20 and not nacked:
        frames = b""
        for _ in range(4):
            run = leader.entries(*[payload] * 4, after=previous)
            frames += leader.frame(run, previous).encode()
            previous = run[-1].prefix
            sent += sum(map(len, raws(run)))
        connection.send_bytes(frames)
        if sent > 15 << 20:
            try:
                while True:
                    message = connection.receive(0.01)
                    if message.kind == "NACK":
                        nacked = message
                        break
            except TimeoutError:
                pass
    note = hostile.grew(node, memory, 96 * hostile.MEBI)
    if not nacked:
        raise Failure(f"{sent} bytes of early entries were held without a NACK")
    same("the code", wire.NACK_CODES.get(nacked.code), "hold-back-full")
    NACKS_SEEN.add("hold-back-full")
    leader = node.lead()  # a new promise drops what was held
    leader.store(b"and goes on")
    return f"after {sent >> 20} MiB; {note}"


@check("flood-heartbeats", "7.3.11", "A secondary must answer each of 20,000 heartbeats that come in heaps, in order, and "
       "others meanwhile.")
def _(node):
    leader = node.lead()
    said = levels(leader.commit, leader.end.seq, leader.commit)
    for start in range(1, 20_001, 500):
        leader.connection.send_bytes(b"".join(
            Message("HEARTBEAT", epoch=leader.epoch, number=number, levels=said).encode()
            for number in range(start, start + 500)))
        for number in range(start, start + 500):
            same("the number", wait_for(leader.connection, "expected: HEARTBEAT_ACK", lambda m: True).number, number)
    hostile.prompt(node)


def filled(node, volume):
    """Makes the log long enough for reads that do not fit any buffer."""
    leader = node.lead()
    payload = b"f" * min(60_000, leader.answer.payload_bytes_max)
    for _ in range(volume // (4 * len(payload)) + 1):
        leader.store(*[payload] * 4)
    return volume


def appended(node, payload):
    node.lead().store(payload)


hostile.register(suite, "A secondary", filled=filled, appended=appended)
section("The end")


@check("at-last", "7", "After all this a secondary must still promise, store and be read.")
def _(node):
    leader = node.lead_higher()
    records = leader.store(b"the", b"end")
    same("what a client reads", raws(node.client().read(records[0].seq)[0]), raws(records))
