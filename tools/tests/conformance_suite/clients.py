"""Checks of what a master owes its clients, on the wire and through the text gateway. They join the master's suite."""

import socket
import time

import replog_wire as wire
from replog_wire import Message

from . import hostile
from .common import (PATIENCE, Failure, NotRun, append_request, eventually, holds, raws, refused, request_code,
                     same, wait_for)
from .master import check, ignore, section, suite


def wait_request(client, seq, *, w=None, ack="default", timeout=None):
    return client.request(
        "WAIT_REQUEST", seq=seq, concern=wire.concern_of(w), ack=ack, timeout=wire.timeout_of(timeout))


def outcome_of(client, request_id, patience=PATIENCE):
    reply = wait_for(client.connection, f"expected: APPEND_REPLY for {request_id}",
                     lambda m: m.kind == "APPEND_REPLY" and m.id == request_id, ("ENTRIES",), patience)
    return reply.outcome


# ---------------------------------------------------------------------------------------------------------------------
section("Clients: introduction")


@check("c-hello", "6", "A master must answer a client's HELLO with its own role, id, log id, epoch, positions, "
       "roster and address.")
def _(cluster):
    end = cluster.client().ok(b"the last one", w=3, timeout=PATIENCE)[0]
    answer = cluster.client().answer
    last = cluster.s1.log[end.seq - 1]
    same("role, id, log id, epoch", (answer.role, answer.node_id, answer.log_id, answer.epoch),
         ("master", cluster.id, cluster.s1.log_id, cluster.s1.epoch))
    same("stored and prefix id", (answer.stored, answer.tail_epoch, answer.tail_digest), last.prefix)
    same("commit", answer.commit, end.seq)
    same("roster", answer.roster, [cluster.id, "s1", "s2"])
    same("master_addr", answer.master_addr, cluster.address)
    same("the epoch table", answer.epoch_table, [(cluster.s1.epoch, 1)])
    holds(0 < answer.payload_bytes_max <= 16 << 20, f"payload_bytes_max {answer.payload_bytes_max}")
    holds(answer.frame_bytes_max > answer.payload_bytes_max, f"frame_bytes_max {answer.frame_bytes_max}")
    # A client has no use for them; the page gives them no other meaning here than towards secondaries.
    led = cluster.s1.link().hello
    other = [f"{name} {getattr(answer, name)} (to secondaries {getattr(led, name)})" for name in ("run_id", "vouches")
             if getattr(answer, name) != getattr(led, name)]
    return "; ".join(other)


@check("c-wrong-role", "7.1.5", "A master must refuse a master and a secondary that dial it wrong-role.")
def _(cluster):
    for role in ("master", "secondary"):
        connection = cluster.connect()
        connection.send(wire.hello(role, node_id="s1", log_id=cluster.s1.log_id, epoch=cluster.s1.epoch, run_id=1))
        refused(connection, "wrong-role")
    cluster.client().ok(b"and goes on", w=3, timeout=PATIENCE)


@check("c-versions", "7.1.3", "A master must answer a client that speaks version 1 among others, and refuse one that "
       "speaks only later ones unknown-version.")
def _(cluster):
    connection = cluster.connect()
    connection.send(wire.hello("client", version_min=1, version_max=9))
    same("the answer", connection.receive().kind, "HELLO")
    connection = cluster.connect()
    connection.send(wire.hello("client", version_min=2, version_max=3))
    refused(connection, "unknown-version")


@check("c-name", "6", "A client's name may be empty, and up to 64 bytes long.")
def _(cluster):
    for name in ("", "n" * 64):
        cluster.client(name).ping()


# ---------------------------------------------------------------------------------------------------------------------
section("Clients: appends")


@check("c-append", "8.1", "An append must be answered OK with its number, the epoch, the nodes asked for and the "
       "holders.")
def _(cluster):
    client = cluster.client()
    for w, need in ((1, 1), (2, 2), (3, 3), ("majority", 2), ("all", 3), (None, 3)):
        request = client.send_append(b"alpha", b"", w=w, timeout=PATIENCE)
        reply = wait_for(client.connection, "expected: APPEND_REPLY", lambda m: m.kind == "APPEND_REPLY", ())
        name, placed = reply.outcome
        same("id, outcome, epoch, need", (reply.id, name, placed.epoch, placed.need),
             (request, "ok", cluster.s1.epoch, need))
        holds(placed.holders & 1 and placed.holders < 8, f"holders {placed.holders:b}")
        holds(bin(placed.holders).count("1") >= need, f"{placed.holders:b} are fewer than {need}")
        if reply.count < 2:
            client.outcomes(request + 1, 1)
    cluster.s1.wait("what was acknowledged", lambda: cluster.s1.log[-1].payload == b"")


@check("c-append-run", "7.9.2", "Every entry of a run must have exactly one outcome, whatever frames the replies "
       "come in, and numbers in the order sent.")
def _(cluster):
    client = cluster.client()
    first = client.ok(b"a", w=1, timeout=PATIENCE)[0].seq
    placed = client.ok(*(b"%d" % i for i in range(2000)), w=2, timeout=10, patience=12.0)
    same("the numbers", [one.seq for one in placed], list(range(first + 1, first + 2001)))


@check("c-append-interleaved", "7.9.2", "Two clients that append at once must get different numbers, each its own in "
       "order.")
def _(cluster):
    one, two = cluster.client(), cluster.client()
    for _ in range(50):
        one.send_append(*[b"one"] * 5, w=2, timeout=10)
        two.send_append(*[b"two"] * 5, w=2, timeout=10)
    a = [placed.seq for _, placed in one.outcomes(1, 250, 12.0)]
    b = [placed.seq for _, placed in two.outcomes(1, 250, 12.0)]
    same("the order", (a, b), (sorted(a), sorted(b)))
    same("numbers in all", len(set(a) | set(b)), 500)
    cluster.s1.has(max(a + b))
    holds(all(cluster.s1.log[seq - 1].payload == b"one" for seq in a), "an entry is not where the reply says")


@check("c-pending", "6", "A timeout that passes must be answered PENDING; the entry stays and is held by all in the "
       "end.")
def _(cluster):
    cluster.s1.on("APPEND", ignore)
    client = cluster.client()
    name, placed = client.append(b"late", w=3, timeout=0.2)[0]
    same("the outcome", (name, placed.need), ("pending", 3))
    holds(not placed.holders & 2, f"holders {placed.holders:b}, s1 has nothing")
    cluster.s1.on("APPEND", None)
    request = wait_request(client, placed.seq, w=3, timeout=15)
    name, again = outcome_of(client, request, 16.0)
    same("the outcome of a wait", (name, again.seq, again.holders), ("ok", placed.seq, 7))


@check("c-timeout-0", "6", "With a timeout of 0 an append must be answered as soon as it is in the master's log: "
       "PENDING, or OK if that was enough.")
def _(cluster):
    for secondary in cluster.secondaries:
        secondary.on("APPEND", ignore)
    client = cluster.client()
    same("w=1", client.append(b"x", w=1, timeout=0)[0][0], "ok")
    name, placed = client.append(b"x", w=2, timeout=0)[0]
    same("w=2", (name, placed.holders), ("pending", 1))


@check("c-forever", "6", "With timeout forever an append must wait until it is held.")
def _(cluster):
    cluster.s1.on("APPEND", ignore)
    client = cluster.client()
    request = client.send_append(b"x", w=3, timeout="forever")
    other = cluster.client()
    other.ok(b"y", w=2, timeout=PATIENCE)
    cluster.s1.on("APPEND", None)
    same("the outcome", client.outcomes(request, 1, 15.0)[0][0], "ok")


@check("c-no-hostage", "7.9.2", "An append that waits must hold up no later one, not on its own connection either.")
def _(cluster):
    cluster.s1.on("APPEND", ignore)
    client = cluster.client()
    slow = client.send_append(b"needs s1", w=3, timeout=30)
    quick = client.send_append(b"does not", w=2, timeout=30)
    reply = wait_for(client.connection, "expected: APPEND_REPLY", lambda m: m.kind == "APPEND_REPLY", ())
    same("the request answered first, and how", (reply.id, reply.outcome[0]), (quick, "ok"))
    cluster.s1.on("APPEND", None)
    same("the other", client.outcomes(slow, 1, 15.0)[0][0], "ok")


def concern_check(name, says, code, **options):
    @check(name, "6", says)
    def _(cluster):
        client = cluster.client()
        before = client.answer.stored
        got, detail = client.refused_append(b"x", b"y", **options)
        same("the code", got, code)
        holds(" - " in f" {detail}", f"the detail is no words and a sentence: {detail!r}")
        same("stored", cluster.client().answer.stored, before)


concern_check("c-w-0", "An append with w=0 must be refused bad-write-concern, and consume no "
                       "number.", "bad-write-concern", w=0,
              timeout=0)
concern_check("c-w-more", "… and one with more nodes than the roster has.", "bad-write-concern", w=4, timeout=0)
concern_check("c-w-most", "… and w=65535.", "bad-write-concern", w=65535, timeout=0)
concern_check("c-producer", "An append with a producer must be refused bad-option, while the place is "
                            "reserved.", "bad-option",
              producer=("p", 1))
concern_check("c-match", "… and one with match_seq.", "bad-option", match_seq=1)
concern_check("c-atomic", "… and an atomic one.", "bad-option", atomic=True)


@check("c-too-large", "7.9.3", "An entry over payload_bytes_max must be refused too-large, and the others of its "
       "frame taken.")
def _(cluster):
    client = cluster.client()
    most = client.answer.payload_bytes_max
    if 3 * most > client.answer.frame_bytes_max and most + 4096 > client.answer.frame_bytes_max:
        raise NotRun("no payload over the limit fits a frame")
    outcomes = client.append(b"before", b"L" * (most + 1), b"behind", w=1, timeout=PATIENCE)
    names = [name if name != "refused" else request_code(details) for name, details in outcomes]
    same("the outcomes", names, ["ok", "too-large", "ok"])
    same("the numbers", outcomes[2][1].seq, outcomes[0][1].seq + 1)


@check("c-order", "7.9.3", "A master must look at the size of a payload before its write concern, and say the same "
       "by COMMAND.")
def _(cluster):
    client = cluster.client()
    most = client.answer.payload_bytes_max
    if most + 4096 > client.answer.frame_bytes_max:
        raise NotRun("no payload over the limit fits a frame")
    outcomes = client.append(b"s", b"L" * (most + 1), b"s", w=0, timeout=0)
    same("the codes with w=0", [request_code(details) for _, details in outcomes],
         ["bad-write-concern", "too-large", "bad-write-concern"])
    same("the codes with w=9", [request_code(details) for _, details in client.append(b"L" * (most + 1), w=9)],
         ["too-large"])
    long = b"L" * (most + 1)
    for line, want in ((b"APPEND w=0 " + long, b"REJECTED too-large "), (b"APPEND w=0 s", b"REJECTED bad-write-concern "),
                       (b"APPEND id=p:1 w=0 " + long, b"ERR bad-option ")):
        answer = client.command(line)
        holds(answer.startswith(want), f"{line[:20]!r}…: {answer[:60]!r} instead of {want!r}")


@check("c-need", "6", "`need` must be the number of nodes asked for, whatever word said it.")
def _(cluster):
    client = cluster.client()
    same("need", [client.ok(b"x", w=w, timeout=PATIENCE)[0].need for w in ("majority", "all", 2)], [2, 3, 2])


@check("c-reply-frames", "6", "An APPEND_REPLY must answer requests of one APPEND_REQUEST only.")
def _(cluster):
    client = cluster.client()
    data = b"".join(append_request(i, b"x", w=1, timeout=PATIENCE).encode() for i in range(1, 41))
    client.connection.send_bytes(data)
    for _ in range(40):
        reply = wait_for(client.connection, "expected: APPEND_REPLY", lambda m: m.kind == "APPEND_REPLY", ())
        same("requests of a reply", reply.count, 1)


@check("c-append-many", "9", "A master must take 10,000 entries in one APPEND_REQUEST: what bounds it is the body.")
def _(cluster):
    placed = cluster.client().ok(*[b""] * 10_000, w=2, timeout=10, patience=12.0)
    same("the numbers", [one.seq for one in placed], list(range(placed[0].seq, placed[0].seq + 10_000)))


@check("c-largest", "9", "An entry of exactly payload_bytes_max must be taken.")
def _(cluster):
    client = cluster.client()
    client.ok(b"M" * client.answer.payload_bytes_max, w=1, timeout=10, patience=12.0)


@check("c-gone", "7.9.2", "A client that leaves has given up waiting, not the append: the entry stays and is "
       "replicated.")
def _(cluster):
    client = cluster.client()
    client.send_append(b"of one who left", w=3, timeout="forever")
    try:
        client.ping()
    except Failure:
        pass  # The append's own answer came first: it is taken all the same.
    client.connection.close()
    cluster.s1.wait("the entry", lambda: any(record.payload == b"of one who left" for record in cluster.s1.log))


# ---------------------------------------------------------------------------------------------------------------------
section("Clients: waits and reads")


@check("c-wait", "6", "A WAIT for an entry of the log must be answered like an append: OK when it is held, PENDING "
       "when its time passes.")
def _(cluster):
    client = cluster.client()
    seq = client.ok(b"x", w=3, timeout=PATIENCE)[0].seq
    for w, need in ((1, 1), (3, 3), ("majority", 2), (None, 3)):
        name, placed = outcome_of(client, wait_request(client, seq, w=w, timeout=PATIENCE))
        same("the outcome", (name, placed.seq, placed.need, placed.holders), ("ok", seq, need, 7))
    cluster.s1.on("APPEND", ignore)
    late = client.ok(b"y", w=2, timeout=PATIENCE)[0].seq
    name, placed = outcome_of(client, wait_request(client, late, w=3, timeout=0.1))
    same("the outcome", (name, placed.seq), ("pending", late))
    other = cluster.client()
    same("another connection", outcome_of(other, wait_request(other, late, w=2, timeout=1))[0], "ok")


@check("c-wait-beyond", "6", "A WAIT for an entry beyond the log must be refused not-found; with w=0 or more nodes "
       "than there are, bad-write-concern.")
def _(cluster):
    client = cluster.client()
    seq = client.ok(b"x", w=1, timeout=PATIENCE)[0].seq
    for number, w, code in ((seq + 1000, 1, "not-found"), (0, 1, None), (seq, 0, "bad-write-concern"),
                            (seq, 4, "bad-write-concern")):
        name, details = outcome_of(client, wait_request(client, number, w=w, timeout=0))
        same(f"the outcome of a wait for {number} with w={w}", name, "refused")
        got = request_code(details)
        holds(code is None or got == code, f"a wait for {number} with w={w}: {got} instead of {code}")


@check("c-read", "6", "A READ must give the entries byte for byte as they were replicated.")
def _(cluster):
    client = cluster.client()
    placed = client.ok(b"read me", b"", bytes(range(256)), w=3, timeout=PATIENCE)
    records, last = client.read(placed[0].seq)
    same("the records", raws(records), raws(cluster.s1.log[placed[0].seq - 1:placed[-1].seq]))
    same("next", last.next, placed[-1].seq + 1)
    records, _last = client.read(placed[0].seq, limit=2)
    same("with a limit of 2", raws(records), raws(cluster.s1.log[placed[0].seq - 1:placed[1].seq]))
    records, last = client.read(placed[-1].seq + 10)
    same("behind the end", (records, last.count, last.first, last.end), ([], 0, 0, True))
    first, _last = client.read(0, limit=1)
    same("from 0 is from 1", [record.seq for record in first], [1])


@check("c-read-long", "9", "A long READ must come in several frames without a hole, of at most 256 KiB or one record "
       "each.")
def _(cluster):
    client = cluster.client()
    start = client.ok(*[b"r" * 30_000] * 12, w=2, timeout=10, patience=12.0)[0].seq
    request = client.request("READ_REQUEST", from_=start, limit=None, level="local")
    frames = client.answers(request, "ENTRIES", lambda frame: frame.end)
    holds(len(frames) >= 2, f"{len(frames)} frame for 360,000 bytes")
    at = start
    for frame in frames:
        if frame.count:
            same("first", frame.first, at)
            at += len(wire.records_of(frame))
            holds(len(frame.tail) <= wire.BULK_BYTES or frame.count == 1,
                  f"{frame.count} records, {len(frame.tail)} bytes")
            holds(frame.count <= wire.ENTRIES_PER_FRAME, f"{frame.count} records")
    same("the end", at, frames[-1].next)
    same("end in the frames", [frame.end for frame in frames], [False] * (len(frames) - 1) + [True])


@check("c-levels", "1", "A read at a level must show what so many nodes hold, and nothing else.")
def _(cluster):
    client = cluster.client()
    end = client.ok(b"on three", w=3, timeout=PATIENCE)[0].seq
    cluster.s1.on("APPEND", ignore)
    client.ok(b"on two", w=2, timeout=PATIENCE)
    cluster.s2.on("APPEND", ignore)
    client.ok(b"on one", w=1, timeout=PATIENCE)
    shown = {level: client.read(end, level=level)[1].next - end
             for level in ("local", "committed", "all", ("nodes", 1), ("nodes", 2), ("nodes", 3))}
    same("what the levels show", shown, {"local": 3, "committed": 2, "all": 1, ("nodes", 1): 3, ("nodes", 2): 2,
                                         ("nodes", 3): 1})
    for level in (("nodes", 0), ("nodes", 4)):
        request = client.request("READ_REQUEST", from_=1, limit=1, level=level)
        same(f"the refusal at {level}", client.refusal(request)[0], "bad-value")


@check("c-tail", "6", "A TAIL must show what is there from its start and what comes, until a CANCEL ends it with a "
       "last ENTRIES.")
def _(cluster):
    client, writer = cluster.client(), cluster.client()
    there = writer.ok(b"there 1", b"there 2", w=3, timeout=PATIENCE)
    tails = {start: client.request("TAIL_REQUEST", start=start, level="committed")
             for start in (("from", there[0].seq), ("last", 2), "new")}
    got = {request: [] for request in tails.values()}

    def take(frame):
        if frame.kind == "ENTRIES":
            got[frame.id] += wire.records_of(frame)
        return frame.kind == "COMMAND_REPLY"
    client.send_command("PING")  # they have begun when a later request is answered
    wait_for(client.connection, "expected: COMMAND_REPLY", take, ("ENTRIES",))
    coming = writer.ok(b"coming 1", b"coming 2", b"coming 3", w=3, timeout=PATIENCE)
    want = {tails[("from", there[0].seq)]: 5, tails[("last", 2)]: 5, tails["new"]: 3}
    deadline = time.monotonic() + 2 * PATIENCE
    while any(len(got[request]) < count for request, count in want.items()) and time.monotonic() < deadline:
        take(wait_for(client.connection, "expected: ENTRIES", lambda m: m.kind == "ENTRIES", ()))
    same("what the tails show", {request: [record.seq for record in records] for request, records in got.items()},
         {request: [one.seq for one in (there + coming)[-count:]] for request, count in want.items()})
    for request in tails.values():
        client.connection.send(Message("CANCEL", id=request))
        client.answers(request, "ENTRIES", lambda frame: frame.end)
    client.ping()


@check("c-tail-idle", "7.9.9", "While a tail is idle an empty ENTRIES must come each heartbeat interval.")
def _(cluster):
    client = cluster.client()
    end = client.ok(b"x", w=3, timeout=PATIENCE)[0].seq
    tail = client.request("TAIL_REQUEST", start="new", level="local")
    frames = []
    client.answers(tail, "ENTRIES", lambda frame: frames.append(frame) or len(frames) >= 4)
    for frame in frames:
        same("first, count, next, end", (frame.first, frame.count, frame.next, frame.end), (0, 0, end + 1, False))


@check("c-tail-level", "7.9.6", "A tail at a level must not show an entry before the level has it.")
def _(cluster):
    cluster.s1.on("APPEND", ignore)
    client = cluster.client()
    tail = client.request("TAIL_REQUEST", start="new", level="all")
    client.ping()
    seq = client.ok(b"on two", w=2, timeout=PATIENCE)[0].seq
    frames = []
    client.answers(tail, "ENTRIES", lambda frame: frames.append(frame) or len(frames) >= 2)
    same("entries shown", [frame.count for frame in frames], [0, 0])
    cluster.s1.on("APPEND", None)
    records, _frame = client.entries(tail, seq, lambda _, records: records)
    same("the entry", records[0].payload, b"on two")


@check("c-cancel", "7.9.8", "A CANCEL for what has ended, or never was, must be ignored.")
def _(cluster):
    client = cluster.client()
    client.read(1, limit=1)
    for request in (client.last_id, 4711, (1 << 64) - 1):
        client.connection.send(Message("CANCEL", id=request))
    client.ping()


@check("c-busy-reads", "7.9.5", "16 reads and tails may be under way on a connection; one more must be refused busy, "
       "and after a CANCEL there is room again.")
def _(cluster):
    client = cluster.client()
    tails = [client.request("TAIL_REQUEST", start="new", level="local") for _ in range(17)]
    same("the code", client.refusal(tails[16])[0], "busy")
    client.connection.send(Message("CANCEL", id=tails[0]))
    client.answers(tails[0], "ENTRIES", lambda frame: frame.end)
    client.read(1, limit=1)


# ---------------------------------------------------------------------------------------------------------------------
section("Clients: commands and pipelining")


@check("c-command", "7.9.13", "A COMMAND must be answered by exactly the bytes of the text gateway.")
def _(cluster):
    client = cluster.client()
    client.ping()
    same("an unknown verb", client.command("NONSENSE").split(b" ")[:2], [b"ERR", b"unknown-verb"])
    same("a secondary's verb", client.command("DELAY 1s").split(b" ")[:1], [b"ERR"])
    for payload in (b"one", b"two"):
        client.ok(payload, w=3, timeout=PATIENCE)
    listed = client.command("LIST limit=2")
    holds(listed.startswith(b"1 ") and listed.splitlines()[-1].startswith(b"END count=2 "), f"LIST limit=2: {listed!r}")
    helped = client.command("HELP")
    holds(helped.endswith(b"END\n") and b"APPEND" in helped, f"HELP: {helped!r}")


@check("c-command-append", "7.9.14", "APPEND as a COMMAND must be the same append.")
def _(cluster):
    client = cluster.client()
    reply = client.command("APPEND w=3 timeout=5 by command").decode()
    holds(reply.startswith("OK seq=") and "have=3/3" in reply, f"the reply: {reply!r}")
    same("the entry", cluster.s1.log[-1].payload, b"by command")


@check("c-command-tail", "7.9.16", "TAIL is no COMMAND: it must be answered ERR.")
def _(cluster):
    reply = cluster.client().command("TAIL")
    same("the class", reply.split(b" ")[0], b"ERR")


@check("c-command-end", "6", "`end` of a COMMAND must be ignored.")
def _(cluster):
    client = cluster.client()
    request = client.request("COMMAND", end=False, tail=b"PING x")
    same("the answer", client.answers(request, "COMMAND_REPLY", lambda m: m.end)[-1].tail, b"PONG x\n")


@check("c-command-order", "7.9.14", "60 commands sent at once must be answered in order.")
def _(cluster):
    client = cluster.client()
    ids = [client.send_command(b"PING %d" % i) for i in range(60)]
    ended = []
    while len(ended) < len(ids):
        piece = wait_for(client.connection, "expected: COMMAND_REPLY", lambda m: m.kind == "COMMAND_REPLY", ())
        if piece.end:
            ended.append(piece.id)
    same("the order", ended, ids)


@check("c-command-waits", "7.9.14", "APPEND commands that wait must hold up no command behind them, and each be "
       "answered in the end; beyond 64 under way they may be refused busy.")
def _(cluster):
    cluster.s1.on("APPEND", ignore)
    client = cluster.client()
    ids = [client.send_command(b"APPEND w=3 timeout=30 waits") for _ in range(70)]
    quick = client.send_command(b"PING quick")
    answers = {}

    def take(message):
        if message.kind == "REQUEST_REFUSED":
            same("the code", request_code(message.refusal), "busy")
            answers[message.id] = "busy"
        else:
            holds(message.kind == "COMMAND_REPLY" and message.end and message.id not in answers,
                  f"the answer {message}")
            answers[message.id] = message.tail.split()[0].decode()
        return True
    while quick not in answers:
        wait_for(client.connection, "expected: the answer to PING", take, ())
    cluster.s1.on("APPEND", None)
    while len(answers) < 71:
        wait_for(client.connection, "expected: COMMAND_REPLY", take, (), 15.0)
    busy = sum(answer == "busy" for answer in answers.values())
    holds(busy <= 71 - 64, f"{busy} of 71 commands are refused")
    same("the first 64", {answers[request] for request in ids[:64]}, {"OK"})
    return f"{busy} refused busy"


@check("c-command-long", "7.9.12", "A COMMAND line longer than the gateway takes must be answered ERR too-long.")
def _(cluster):
    client = cluster.client()
    most = client.answer.payload_bytes_max
    request = client.send_command(b"APPEND w=1 " + b"l" * (most + 8192))
    message = wait_for(client.connection, "expected: an answer", lambda m: getattr(m, "id", None) == request, ())
    same("what answers", message.kind, "COMMAND_REPLY")
    holds(message.tail.startswith(b"ERR too-long"), f"the reply {message.tail[:80]!r}")
    client.ping()  # the connection lives on


@check("c-mixed", "7.9.2", "Appends, waits, reads and commands pipelined on one connection must each be answered "
       "once, under their ids.")
def _(cluster):
    client = cluster.client()
    data, kinds = b"", {}
    seq = client.ok(b"x", w=3, timeout=PATIENCE)[0].seq
    for i in range(40):
        base = 1000 + 10 * i
        for message, answer in (
                (append_request(base, b"%d" % i, w=2, timeout=10), "APPEND_REPLY"),
                (Message("WAIT_REQUEST", id=base + 1, seq=seq, concern="all", ack="stored", timeout=("micros", 10)),
                 "APPEND_REPLY"),
                (Message("COMMAND", id=base + 2, end=True, tail=b"PING %d" % i), "COMMAND_REPLY")):
            data += message.encode()
            kinds[message.id] = answer
        if i % 4 == 0:
            data += Message("READ_REQUEST", id=base + 3, from_=1, limit=1, level="local").encode()
            kinds[base + 3] = "ENTRIES"
    client.connection.send_bytes(data)
    while kinds:
        message = client.connection.receive()
        if message.kind == "ENTRIES" and not message.end:
            continue
        same(f"what answers request {message.id}", message.kind,
             kinds.pop(message.id, "nothing: it was answered or not asked"))
    client.ping()


@check("c-waiting-dropped", "7.9.2", "Replies may come in any order: an append that waits must not delay the replies "
       "to others.")
def _(cluster):
    cluster.s1.on("APPEND", ignore)
    client = cluster.client()
    waits = [client.send_append(b"w", w=3, timeout=60) for _ in range(20)]
    for i in range(20):
        client.ok(b"quick %d" % i, w=2, timeout=PATIENCE)
    client.read(1, limit=1)
    client.ping()
    cluster.s1.on("APPEND", None)
    same("the outcomes", {name for name, _ in client.outcomes(waits[0], 20, 15.0)}, {"ok"})


# ---------------------------------------------------------------------------------------------------------------------
section("The text gateway of a master")


class Text:
    """A connection to the text gateway."""

    def __init__(self, cluster):
        if "{gateway}" not in cluster.template:
            raise NotRun("no {gateway} in --start")
        self.socket = socket.create_connection(wire.parse_address(cluster.gateway), PATIENCE)
        cluster.connections.append(self)
        self.data = b""

    def close(self):
        self.socket.close()

    def send(self, data):
        self.socket.sendall(data)

    def line(self, patience=PATIENCE):
        deadline = time.monotonic() + patience
        while b"\n" not in self.data:
            self.socket.settimeout(max(0.01, deadline - time.monotonic()))
            more = self.socket.recv(1 << 16)
            if not more:
                return None
            self.data += more
        line, self.data = self.data.split(b"\n", 1)
        return line.decode(errors="surrogateescape")


@check("c-command-bytes", "7.9.12", "The payload of an APPEND by COMMAND must be the rest of the line, byte for byte.")
def _(cluster):
    client = cluster.client()
    for payload in (b" two  spaces ", bytes(range(256)), b"a\nb", b""):
        reply = client.command(b"APPEND w=3 timeout=5 -- " + payload + b"\r\n")
        holds(reply.startswith(b"OK seq="), f"the reply {reply!r}")
        same("the payload", cluster.s1.log[-1].payload, payload)


@check("t-same", "7.9.13", "The gateway must answer a line with the same bytes as a COMMAND does.")
def _(cluster):
    client, text = cluster.client(), Text(cluster)
    for line in ("PING x", "NONSENSE", "GET 99999999", "LIST limit=1", "WAIT 99999999", "APPEND w=9 x", "DIGEST 1"):
        text.send(line.encode() + b"\n")
        for want in client.command(line).decode().splitlines():
            same(f"a line of the answer to {line}", text.line(), want)


@check("t-classes", "10.1", "The classes must be told in the first word: OK, PENDING, REJECTED and ERR.")
def _(cluster):
    cluster.s1.on("APPEND", ignore)
    text = Text(cluster)
    for line, want in (("APPEND w=2 x", "OK seq="), ("APPEND w=3 timeout=0 x", "PENDING seq="),
                       ("APPEND w=4 x", "REJECTED bad-write-concern"), ("APPEND id=p:1 x", "ERR bad-option"),
                       ("WAIT 99999999", "ERR not-found")):
        text.send(line.encode() + b"\n")
        answer = text.line()
        holds(answer is not None and answer.startswith(want), f"{line}: {answer!r} instead of {want} …")


@check("t-order", "6", "Replies on the gateway must come in the order of the commands, also when a later one is "
       "ready before.")
def _(cluster):
    cluster.s1.on("APPEND", ignore)
    text = Text(cluster)
    text.send(b"APPEND w=3 timeout=0.3 slow\nAPPEND w=2 quick\nPING end\n")
    answers = [text.line() for _ in range(3)]
    same("the first words", [answer.split()[0] for answer in answers], ["PENDING", "OK", "PONG"])


def filled(cluster, volume):
    """Makes the log long enough for reads that do not fit any buffer."""
    client = cluster.client()
    have = client.read(1, level="local", limit=1)[1].next - 1
    if have * 48 < volume:
        payload = b"f" * min(60_000, client.answer.payload_bytes_max)
        for _ in range(volume // (10 * len(payload)) + 1):
            client.ok(*[payload] * 10, w=2, timeout=10, patience=12.0)
        cluster.ready(30.0)
    return volume


def appended(cluster, payload):
    cluster.client().ok(payload, w=3, timeout=PATIENCE)


hostile.register(suite, "A master", filled=filled, appended=appended)


# ---------------------------------------------------------------------------------------------------------------------
section("The end")


@check("stopping", "10.2", "A master that is stopped must answer what waits PENDING, or end the connections with "
       "REFUSE stopping, within 5 s.")
def _(cluster):
    cluster.s1.on("APPEND", ignore)
    client = cluster.client()
    client.send_append(b"waits", w=3, timeout="forever")
    client.ping()
    idle = cluster.client()
    cluster.process.terminate()
    said = []
    try:
        while True:
            message = client.connection.receive()
            pending = message.kind == "APPEND_REPLY" and message.outcome[0] == "pending"
            said.append("pending" if pending else str(message))
    except (wire.Closed, wire.WireError):
        pass
    holds(said and said[0] == "pending", f"the waiting append was answered {said or 'nothing'}")
    refused(idle.connection, "stopping", silent_close=True)
    eventually("the process ends", lambda: not cluster.running(), 8.0)
    return f"the exit status is {cluster.process.returncode}"
