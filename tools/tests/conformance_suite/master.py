"""Checks that a master follows protocol.md towards its secondaries, by playing two of them."""

import time

import replog_wire as wire
from replog_wire import Message, encode_frame

from .cluster import DEFAULT, WINDOW
from .common import PATIENCE, REFUSALS_SEEN, NotRun, Suite, eventually, flipped, holds, raws, same
from .hostile import ABSURD, SAMPLES, header

suite = Suite()
check, section = suite.check, suite.section

IGNORE = []  # what `on` answers to say nothing


def ignore(_link, _message):
    return IGNORE


def expected_records(previous, epoch, payloads, times):
    """What the records of these payloads must look like, byte for byte; only the master knows their times."""
    out = []
    for payload, time_ms in zip(payloads, times, strict=True):
        raw = wire.build_record(previous, epoch, payload, time_ms)
        record = wire.read_record(raw, 0, previous.seq + 1, previous.epoch, previous.digest)
        out.append(record)
        previous = record.prefix
    return out


def append_frames(seen):
    return [(one.message.first, one.message.first + one.message.count - 1) for one in seen]


def refusal_at(secondary, mark, codes, patience=PATIENCE):
    """The master refuses this secondary with this code (or one of these), and closes."""
    codes = (codes,) if isinstance(codes, str) else codes
    what = f"REFUSE {' or '.join(codes)}"
    one = secondary.frame(mark, "REFUSE", what=what, patience=patience)
    got = wire.REFUSE_CODES.get(one.message.code, f"code {one.message.code}")
    holds(got in codes, f"expected: {what}\n     got: REFUSE {got} ({one.message.reason})")
    REFUSALS_SEEN.add(got)
    secondary.wait("the end of the refused connection", lambda: one.link.ended)
    return one


# ---------------------------------------------------------------------------------------------------------------------
section("Introduction: what a master says to its secondaries")


@check("hello-bytes", "6", "A master's leading HELLO must be, byte for byte, what the table says: the values known "
       "from outside in their places, the shortest form of every number, nothing behind.")
def _(cluster):
    cluster.new()
    for secondary in cluster.secondaries:
        got = secondary.frame(0, "HELLO", lambda one: one.message.epoch > 0).message
        holds(got.log_id is not None, "a leading HELLO without a log id")
        want = wire.hello(
            "master", version_min=got.version_min, version_max=got.version_max, node_id=cluster.id,
            peer_id=secondary.id, log_id=got.log_id, epoch=got.epoch, run_id=got.run_id,
            epoch_table=[(got.epoch, 1)], stored=0, tail_epoch=0, tail_digest=0, settled=got.settled, commit=0,
            vouches=got.vouches,
            roster=[cluster.id, "s1", "s2"], master_addr=cluster.address, frame_bytes_max=(16 << 20) + (64 << 10),
            payload_bytes_max=got.payload_bytes_max, window_bytes=got.window_bytes)
        same("the HELLO", got.encode(), want.encode())
        holds(got.version_min <= 1 <= got.version_max, f"version 1 is not among {got.version_min}–{got.version_max}")
        holds(0 < got.payload_bytes_max <= 16 << 20, f"payload_bytes_max {got.payload_bytes_max}")
        holds(len(got.body()) <= 8 << 10, f"a HELLO of {len(got.body())} bytes")


@check("hello-first", "7.1.1", "A master must begin every connection with HELLO, and say the same run id on all of "
       "them.")
def _(cluster):
    cluster.s1.hang_up()
    cluster.s1.link()
    ids = {one.message.run_id for secondary in cluster.secondaries for one in secondary.since(0, "HELLO")}
    same("the number of run ids", len(ids), 1)
    for secondary in cluster.secondaries:
        for link in secondary.links:
            first = next((one for one in secondary.since(0) if one.link is link), None)
            same("the first frame of a connection", first.message.kind if first else "HELLO", "HELLO")


@check("hello-ask", "7.8.1", "A master that only asks must say epoch 0, and must send nothing but HELLO and HEARTBEAT "
       "with epoch 0 until it leads.")
def _(cluster):
    cluster.fresh()
    cluster.s2.stop_listening()  # so that it has to wait for an answer and has time to ask
    cluster.s1.on("HELLO", lambda link, message: DEFAULT if message.epoch == 0 else IGNORE)
    cluster.launch()
    first = cluster.s1.frame(0, "HELLO").message
    if first.epoch:
        return "this master leads at once"
    same("log id, stored, epoch table of a virgin master that asks",
         (first.log_id, first.stored, first.epoch_table), (None, 0, []))
    cluster.s1.frame(0, "HELLO", lambda one: one.message.epoch > 0, patience=15.0)
    kinds = {one.message.kind for one in cluster.s1.since(0)}
    holds(kinds <= {"HELLO", "HEARTBEAT"}, f"before the promise came {kinds}")
    cluster.stop()


@check("new-log", "7.8.1", "A virgin master of virgin secondaries must make a new random log id at every start, with an "
       "epoch of 1 or more, and a new run id.")
def _(cluster):
    hellos = []
    for _ in range(2):
        cluster.new()
        hellos.append(cluster.s1.link().hello)
    one, two = hellos
    holds(one.log_id != two.log_id and any(one.log_id), f"log ids {one.log_id.hex()} and {two.log_id.hex()}")
    holds(one.run_id != two.run_id, f"run ids {one.run_id:016x} and {two.run_id:016x}")
    same("log id and epoch at both secondaries", (cluster.s1.log_id, cluster.s1.epoch),
         (cluster.s2.log_id, cluster.s2.epoch))


@check("waits-for-answers", "7.8.3", "A master that starts and has not enough answers must refuse appends (recovering "
       "or read-only), and serve once they are there.")
def _(cluster):
    cluster.fresh()
    for secondary in cluster.secondaries:
        secondary.on("HELLO", ignore)
    cluster.launch()
    client = cluster.client()
    code, _detail = client.refused_append(b"too early", w=1, timeout=0)
    holds(code in ("recovering", "read-only"), f"the code is {code}")
    same("entries sent", [one for s in cluster.secondaries for one in s.since(0, "APPEND")], [])
    for secondary in cluster.secondaries:
        secondary.on("HELLO", None)
        secondary.hang_up()
    cluster.ready()
    same("the first entry", cluster.s1.log[0].payload, b"ready?")
    return code


@check("one-is-enough", "7.8.3", "With one of two secondaries silent a master must serve by itself: a majority is there.")
def _(cluster):
    cluster.fresh()
    cluster.s2.on("HELLO", ignore)
    cluster.launch()
    client = cluster.client()
    eventually("an append with w=2 is OK", lambda: client.append(b"two of three", w=2, timeout=1)[0][0] == "ok", 15.0)
    same("entries sent without a promise", cluster.s2.since(0, "APPEND"), [])
    cluster.s2.on("HELLO", None)
    cluster.s2.hang_up()
    cluster.s2.has(cluster.s1.stored)


@check("no-append-before-promise", "7.6.3", "A master must send no APPEND before the secondary's HELLO answered its "
       "leading one: that answer is the promise.")
def _(cluster):
    cluster.s1.on("HELLO", ignore)
    cluster.s1.hang_up()
    mark = cluster.s1.mark()
    cluster.s1.frame(mark, "HELLO", lambda one: one.message.epoch > 0)
    cluster.client().ok(b"while s1 keeps silent", w=2, timeout=PATIENCE)
    same("entries that came", cluster.s1.since(mark, "APPEND"), [])
    cluster.s1.on("HELLO", None)
    cluster.s1.hang_up()
    cluster.s1.has(cluster.s2.stored)


def judged_answer(name, page, says, code, answer_of, patience=PATIENCE, aligned=False):
    """A secondary answers the leading HELLO wrongly: refused with the code, again at every dial, and nobody suffers.

    `aligned`: the answer calls for an ALIGN first, and the secondary answers that in the same way."""
    @check(name, page, says)
    def _(cluster):
        s1, s2 = cluster.secondaries
        mark = s1.mark()
        s1.on("HELLO", lambda link, message: DEFAULT if message.epoch == 0 else [answer_of(cluster, message)])
        if aligned:
            s1.on("ALIGN", lambda link, message: [answer_of(cluster, message)])
        s1.hang_up()
        first = refusal_at(s1, mark, code, patience)
        after = s1.mark()
        again = s1.frame(after, "HELLO", lambda one: one.link is not first.link, "another dial at the next heartbeat")
        holds(again.link is not first.link, "the refused connection goes on")
        asked = [one for one in s1.since(mark, "ALIGN") if one.link is first.link]
        same("ALIGNs on the refused connection", len(asked), int(aligned))
        same("entries sent to a refused node", s1.since(mark, "APPEND"), [])
        cluster.client().ok(b"with the other one", w=2, timeout=PATIENCE)
        cluster.becomes(s1, "unhealthy")
        status = cluster.client().command("STATUS").decode()
        line = next((line for line in status.splitlines() if line.startswith("secondary id=s1 ")), "")
        holds(" error=" in line and " error=-" not in line, f"STATUS does not show why it is refused: {line}")
        s1.answers.clear()
        s1.hang_up()
        s1.has(s2.stored)
        cluster.becomes(s1, "healthy")


judged_answer("answer-foreign-log", "7.6.2", "A master must refuse a secondary that answers with another log id "
              "foreign-log, show it, and dial it again.", "foreign-log",
              lambda cluster, _: cluster.s1.state(log_id=bytes(16)))
judged_answer("answer-no-log", "7.6.2", "… and one that promises without a log id likewise.", "foreign-log",
              lambda cluster, _: cluster.s1.state(log_id=None))
judged_answer("answer-low-epoch", "7.6.2", "A master must refuse a secondary that answers a leading HELLO with a lower "
              "epoch stale-epoch.", "stale-epoch", lambda cluster, message: cluster.s1.state(epoch=message.epoch - 1))
judged_answer("answer-ahead", "7.6.4", "A master must send a secondary that stored more than the master has one ALIGN, "
              "and refuse it ahead-of-master if it comes back as it was.", "ahead-of-master",
              lambda cluster, _: cluster.s1.state(stored=cluster.s1.stored + 1000, tail_digest=1), aligned=True)
judged_answer("answer-diverged", "7.6.4", "… and one whose digest at its last entry is another one likewise, "
              "diverged.", "diverged",
              lambda cluster, _: cluster.s1.state(tail_digest=cluster.s1.end.digest ^ 1), aligned=True)
judged_answer("answer-diverged-epoch", "7.6.4", "… and so if only the epoch of that entry differs.", "diverged",
              lambda cluster, _: cluster.s1.state(tail_epoch=cluster.s1.end.epoch + 5), aligned=True)
judged_answer("answer-version", "7.1.3", "A master must refuse a secondary that speaks no common version "
              "unknown-version.", "unknown-version",
              lambda cluster, _: cluster.s1.state(version_min=2, version_max=3))
judged_answer("answer-role", "7.6.1", "A master must refuse an answer that is not a secondary's wrong-role or "
                                      "wrong-node.",
              ("wrong-role", "wrong-node"),
              lambda cluster, _: wire.hello("client", node_id="s1", log_id=cluster.s1.log_id, epoch=cluster.s1.epoch))
judged_answer("answer-other-id", "7.6.1", "A master must refuse an answer under another node's id (two nodes with "
                                          "one id, or an address of the wrong node) wrong-node.", "wrong-node",
              lambda cluster, _: cluster.s1.state(node_id="s2"))


@check("answer-refused", "7.6.6", "A master that a secondary refuses must dial again at the following heartbeats, "
       "and go on with the others.")
def _(cluster):
    s1 = cluster.s1
    s1.on("HELLO", lambda _link, _message: [Message("REFUSE", code=16, epoch=s1.epoch, reason="no room today")])
    s1.hang_up()
    before = s1.dials
    cluster.client().ok(b"with the other one", w=2, timeout=PATIENCE)
    s1.wait("three more dials", lambda: s1.dials >= before + 3)
    s1.on("HELLO", None)
    s1.has(cluster.s2.stored)


@check("answer-garbage", "2", "A master must refuse wrong bytes before the secondary's HELLO like wrong bytes behind "
       "it: here a wrong checksum, bad-checksum.")
def _(cluster):
    s1 = cluster.s1
    mark = s1.mark()
    s1.on("HELLO", lambda _link, _message: [flipped(s1.state().encode(), 13)])
    s1.hang_up()
    refusal_at(s1, mark, "bad-checksum")
    s1.on("HELLO", None)
    s1.has(cluster.s2.stored)


@check("answer-no-hello", "7.1.2", "A master must refuse a secondary whose first frame is not a HELLO bad-frame or "
       "no-introduction.")
def _(cluster):
    s1 = cluster.s1
    mark = s1.mark()
    s1.on("HELLO", lambda _link, _message: [Message("HEARTBEAT_ACK", epoch=s1.epoch, number=1)])
    s1.hang_up()
    one = s1.frame(mark, "REFUSE")
    code = wire.REFUSE_CODES.get(one.message.code)
    holds(code in ("bad-frame", "no-introduction"), f"the code is {code}")
    s1.on("HELLO", None)
    s1.hang_up()
    s1.has(cluster.s2.stored)
    return code


@check("higher-promise", "7.8.6", "A master that is told of a higher promise (REFUSE stale-epoch) must send that "
       "secondary nothing under its own epoch, and never a lower one.")
def _(cluster):
    cluster.new()
    s1 = cluster.s1
    led = s1.epoch
    s1.epoch, s1.run_id = led + 6, 4711
    mark = s1.mark()
    s1.hang_up()
    s1.wait("the master to dial again, or to end", lambda: s1.since(mark, "HELLO") or not cluster.running())

    def settled():
        if not cluster.running():
            return "the master ended (deposed)"
        newest = max((one.message.epoch for one in s1.since(mark, "HELLO")), default=0)
        if newest > led + 6:
            return f"the master raised its epoch from {led} to {newest}"
        if len(s1.since(mark, "HELLO")) >= 6:
            return "the master goes on without this secondary"
        return None
    note = eventually("the master ends, raises its epoch or dials again", settled, 15.0)
    same("entries under the lower epoch", [one.message for one in s1.since(mark, "APPEND")
                                            if one.message.epoch <= led + 6], [])
    cluster.stop()
    return note


@check("higher-promise-answered", "7.6.2", "… and likewise one that is told so in the answer to a HELLO.")
def _(cluster):
    cluster.new()
    s1 = cluster.s1
    led = s1.epoch
    s1.on("HELLO", lambda _link, _message: [s1.state(epoch=led + 6, run_id=4711)])
    mark = s1.mark()
    s1.hang_up()

    def settled():
        if not cluster.running():
            return "the master ended (deposed)"
        refusals = s1.since(mark, "REFUSE")
        if refusals:
            return f"REFUSE {wire.REFUSE_CODES.get(refusals[0].message.code)}"
        newest = max((one.message.epoch for one in s1.since(mark, "HELLO")), default=0)
        return f"the epoch was raised to {newest}" if newest > led + 6 else None
    note = eventually("the master ends, refuses or raises its epoch", settled, 15.0)
    same("entries", s1.since(mark, "APPEND"), [])
    cluster.stop()
    return note


# ---------------------------------------------------------------------------------------------------------------------
section("How a master comes to lead")

HISTORY = b"the old history!"
AWAITED = 2.0  # how long a master waits for the whole roster (7.5)


def logs_of(cluster, one, two, promised=(5, 5), commit=0):
    """No master, and secondaries with these logs of one history: lists of (epoch, entries, whose they are)."""
    cluster.fresh()
    for secondary, parts, epoch in zip(cluster.secondaries, (one, two), promised):
        secondary.log_id, secondary.epoch, secondary.run_id = HISTORY, epoch, 4711
        for number, count, name in parts:
            for _ in range(count):
                end = secondary.end
                raw = wire.build_record(end, number, b"%s %d" % (name, end.seq + 1), 1_700_000_000_000 + end.seq)
                secondary.log.append(wire.read_record(raw, 0, end.seq + 1, end.epoch, end.digest))
        secondary.commit = min(commit, secondary.stored)
    return [list(secondary.log) for secondary in cluster.secondaries]


def numbers_nothing(cluster, seconds):
    """For so long the master refuses appends `recovering` and sends no entries."""
    client = cluster.client()
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        same("the code of an append", client.refused_append(b"too early", w=1, timeout=0)[0], "recovering")
        time.sleep(0.1)
    client.connection.close()
    same("entries sent", [one.message for s in cluster.secondaries for one in s.since(0, "APPEND")], [])


def led(secondary):
    """The first leading HELLO."""
    return secondary.frame(0, "HELLO", lambda one: one.message.epoch > 0, "a leading HELLO", 15.0).message


def same_history(cluster, log):
    """Both secondaries and the master hold this log, and behind it what the master numbered."""
    cluster.ready()
    epoch = cluster.s1.link().hello.epoch
    for secondary in cluster.secondaries:
        same(f"the log of {secondary.id}", raws(secondary.log[:len(log)]), raws(log))
        added = secondary.log[len(log):]
        same("what the master added", {(record.epoch, record.payload) for record in added}, {(epoch, b"ready?")})
    same("what a client reads", raws(cluster.client().read(1, limit=len(log))[0]), raws(log))
    return epoch


@check("adopts-longest", "7.8.4", "An empty master must adopt the longest log of those that vouch, by FETCH, lead in "
       "an epoch above all it heard of, and number behind it.")
def _(cluster):
    log, _ = logs_of(cluster, [(3, 10, b"a"), (5, 4, b"b")], [(3, 10, b"a"), (5, 2, b"b")], promised=(5, 9), commit=9)
    cluster.launch()
    epoch = same_history(cluster, log)
    holds(epoch > 9, f"it leads epoch {epoch}, and one promised 9")
    for secondary in cluster.secondaries:
        same("the log ids it led with", {one.message.log_id for one in secondary.since(0, "HELLO")
                                         if one.message.epoch}, {HISTORY})
    fetches = cluster.s1.since(0, "FETCH")
    same("first of the first FETCH", fetches[0].message.first, 1)
    holds(all(one.message.last <= len(log) for one in fetches), "a FETCH beyond what the secondary has")
    same("what was asked of the shorter log", cluster.s2.since(0, "FETCH"), [])
    same("what was moved aside", cluster.s1.aside + cluster.s2.aside, [])
    for secondary in cluster.secondaries:
        one = secondary.since(0, "APPEND")[0]
        holds(one.at >= fetches[-1].at, "an APPEND before the log was adopted")
        holds(one.message.levels.commit >= 9, f"the commit is {one.message.levels.commit}, and one knew 9")
        # It introduces itself again as the master of what it adopted.
        said = secondary.link().hello
        end = log[-1].prefix
        same("stored and prefix id in its last HELLO", (said.stored, said.tail_epoch, said.tail_digest), end)
        same("the epoch table", said.epoch_table, [(3, 1), (5, 11), (epoch, len(log) + 1)])
    cluster.stop()
    return f"epoch {epoch}"


@check("epoch-table-full", "6", "A master whose log has 128 epochs or more must tell the newest, its own the last of 128 "
       "rows.")
def _(cluster):
    parts = [(epoch, 1, b"a") for epoch in range(1, 131)]
    log, _ = logs_of(cluster, parts, parts, promised=(130, 130))
    cluster.launch()
    epoch = same_history(cluster, log)
    want = [(number, number) for number in range(4, 131)] + [(epoch, 131)]
    same("the epoch table", cluster.s1.link().hello.epoch_table, want)
    cluster.stop()


@check("adopts-newest-epoch", "7.8.4", "The log whose last entry has the greater epoch must win over one with more "
       "entries; what the other has behind their last common entry must be moved aside by ALIGN.")
def _(cluster):
    old, log = logs_of(cluster, [(3, 6, b"a"), (4, 6, b"lost")], [(3, 6, b"a"), (5, 2, b"b")], commit=6)
    cluster.launch()
    same_history(cluster, log)
    same("what was moved aside", raws(cluster.s1.aside), raws(old[6:]))
    one = cluster.s1.since(0, "ALIGN")[0].message
    same("the last common entry", (one.last, one.last_epoch, one.last_digest), log[5].prefix)
    same("ALIGNs to the other", cluster.s2.since(0, "ALIGN"), [])
    cluster.stop()


@check("adopts-piecewise", "7.8.4", "A master must ask on behind what it got, one FETCHED after the other, until it "
       "has everything.")
def _(cluster):
    log, _ = logs_of(cluster, [(3, 12, b"a")], [(3, 7, b"a")])
    s1 = cluster.s1
    s1.on("FETCH", lambda _link, message: [Message(
        "FETCHED", epoch=message.epoch, first=message.first, count=1, tail=s1.log[message.first - 1].raw)])
    cluster.launch()
    same_history(cluster, log)
    firsts = [one.message.first for one in s1.since(0, "FETCH")]
    same("the first entries asked for", firsts, list(range(1, 13)))
    cluster.stop()


def fetched_wrongly(name, says, answer_of):
    @check(name, "7.8.4", says)
    def _(cluster):
        log, _ = logs_of(cluster, [(3, 5, b"a")], [(3, 3, b"a")])
        s1 = cluster.s1
        wrong = []

        def answer(_link, message):
            if message.first == 1:
                return [Message("FETCHED", epoch=message.epoch, first=1, count=2, tail=b"".join(raws(s1.log[:2])))]
            if len(wrong) >= 2:
                return DEFAULT
            wrong.append(message.first)
            return [answer_of(s1, message)]
        s1.on("FETCH", answer)
        cluster.launch()
        s1.wait("two FETCHes behind what was good", lambda: len(wrong) >= 2, 15.0)
        same("their first entries", wrong, [3, 3])
        same("entries sent", s1.since(0, "APPEND") + cluster.s2.since(0, "APPEND"), [])
        same_history(cluster, log)
        cluster.stop()


fetched_wrongly("fetched-broken", "A FETCHED whose records do not verify must not be adopted, nor kept from being "
                "asked for again.", lambda s1, message: Message(
                    "FETCHED", epoch=message.epoch, first=message.first, count=1,
                    tail=flipped(s1.log[message.first - 1].raw, wire.RECORD_HEADER_BYTES)))
fetched_wrongly("fetched-other-chain", "… and likewise one whose records are good, but behind another log.",
                lambda s1, message: Message(
                    "FETCHED", epoch=message.epoch, first=message.first, count=1, tail=wire.build_record(
                        wire.Prefix(message.first - 1, 3, 4711), 3, b"of another log")))
fetched_wrongly("fetched-later-epoch", "… and one with an entry of an epoch above that of the frame.",
                lambda s1, message: Message(
                    "FETCHED", epoch=message.epoch, first=message.first, count=1, tail=wire.build_record(
                        s1.log[message.first - 2].prefix, message.epoch + 1, b"of an epoch to come")))
fetched_wrongly("fetched-none", "… and one that has none of the entries asked for.", lambda _, message: Message(
    "FETCHED", epoch=message.epoch, first=message.first, count=0))


@check("one-answer-waits", "7.8.3", "With one answer of two an empty master must stay recovering, however long it "
       "waited, and lead when the second one comes.")
def _(cluster):
    log, _ = logs_of(cluster, [(3, 5, b"a")], [(3, 5, b"a")])
    cluster.s2.stop_listening()
    cluster.launch()
    numbers_nothing(cluster, AWAITED + 1.5)
    cluster.s2.listen()
    same_history(cluster, log)
    cluster.stop()


@check("vouching-waits", "7.8.3", "A promise that does not vouch must not count for a master whose log may lack "
       "something.")
def _(cluster):
    log, _ = logs_of(cluster, [(3, 5, b"a")], [(3, 5, b"a")])
    cluster.s2.vouches = False
    cluster.launch()
    numbers_nothing(cluster, AWAITED + 1.5)
    holds(led(cluster.s2).epoch > 5, "it was not asked for its promise")
    cluster.s2.vouches = True
    cluster.s2.hang_up()
    same_history(cluster, log)
    cluster.stop()


@check("empty-answer-waits", "7.8.1", "An empty master must go on with the history that somebody reports, and never "
       "begin another; an empty secondary does not vouch for it.")
def _(cluster):
    log, _ = logs_of(cluster, [(3, 5, b"a")], [])
    cluster.s2.forget()
    cluster.launch()
    numbers_nothing(cluster, AWAITED + 1.5)
    for secondary in cluster.secondaries:
        same("the log ids it asked promises for", {one.message.log_id for one in secondary.since(0, "HELLO")
                                                   if one.message.epoch} | {HISTORY}, {HISTORY})
    same("its log", raws(cluster.s1.log), raws(log))
    cluster.stop()


@check("two-histories", "7.8.1", "A master that hears of two histories must wait, ask nobody for a promise, and leave "
       "both as they are.")
def _(cluster):
    logs = logs_of(cluster, [(3, 5, b"a")], [(3, 7, b"b")])
    cluster.s2.log_id = bytes(reversed(HISTORY))
    cluster.launch()
    numbers_nothing(cluster, AWAITED + 1.5)
    same("HELLOs that lead", [one.message for s in cluster.secondaries for one in s.since(0, "HELLO")
                              if one.message.epoch], [])
    same("the logs", [raws(s.log) for s in cluster.secondaries], [raws(log) for log in logs])
    cluster.stop()


@check("silence-is-not-empty", "7.8.1", "An empty master that hears of no history from too few nodes must not begin "
       "one.")
def _(cluster):
    cluster.fresh()
    for secondary in cluster.secondaries:
        secondary.stop_listening()
    cluster.launch()
    numbers_nothing(cluster, AWAITED + 1.0)
    for secondary in cluster.secondaries:
        secondary.listen()
    cluster.ready()
    same("the first entry", cluster.s1.log[0].payload, b"ready?")
    cluster.stop()


@check("raises-stale", "7.8.2", "A starting master that is refused stale-epoch must take an epoch above the one named, "
       "and ask everybody again.")
def _(cluster):
    log, _ = logs_of(cluster, [(3, 5, b"a")], [(3, 5, b"a")])
    s1 = cluster.s1
    s1.epoch = 50
    # To who only asks it says less, as one does that promises in between.
    s1.on("HELLO", lambda _link, message: DEFAULT if message.epoch else [s1.state(epoch=5)])
    cluster.launch()
    epoch = same_history(cluster, log)
    holds(epoch > 50, f"it leads epoch {epoch}, and one promised 50")
    same("the epoch at the other", cluster.s2.link().hello.epoch, epoch)
    cluster.stop()
    return f"from {led(s1).epoch} to {epoch}"


@check("raises-taken", "7.8.2", "… and likewise one that is refused epoch-taken.")
def _(cluster):
    log, _ = logs_of(cluster, [(3, 5, b"a")], [(3, 5, b"a")])
    s1 = cluster.s1
    taken = []

    def another(_link, message):
        if message.epoch and not taken:
            taken.append(message.epoch)
            s1.epoch, s1.run_id = message.epoch, message.run_id ^ 1
        return DEFAULT
    s1.on("HELLO", another)
    cluster.launch()
    epoch = same_history(cluster, log)
    holds(taken and epoch > taken[0], f"it leads epoch {epoch}, and {taken} was taken")
    same("the epoch at the other", cluster.s2.link().hello.epoch, epoch)
    cluster.stop()


@check("deposed", "7.8.6", "A master that leads and hears of a promise to a higher epoch must number nothing more, and "
       "answer what waits unknown; so it ends.")
def _(cluster):
    cluster.new()
    s1, s2 = cluster.secondaries
    for secondary in cluster.secondaries:
        secondary.on("APPEND", ignore)
    client = cluster.client()
    waiting = client.send_append(b"waits", w=3, timeout=60)
    s2.frame(0, "APPEND", lambda one: one.message.first == s2.stored + 1)
    s1.epoch, s1.run_id = s1.epoch + 6, 4711
    mark = s2.mark()
    s1.hang_up()
    same("the outcome of what waits", client.outcomes(waiting, 1)[0][0], "unknown")
    eventually("the master ends", lambda: not cluster.running(), 15.0)
    sent = [one.message for one in s2.since(mark, "APPEND") if one.message.first > s2.stored + 1]
    same("new entries sent to the other", sent, [])
    cluster.stop()


@check("aligns-ahead", "7.6.4", "A master that leads must have a secondary with more than its own log move that aside, "
       "and serve it.")
def _(cluster):
    cluster.new()
    s1 = cluster.s1
    end = cluster.client().ok(b"in common", w=3, timeout=PATIENCE)[-1]
    mark = s1.mark()
    s1.stop_listening()
    with s1.changed:
        for payload in (b"nobody else has it", b"nor this"):
            last = s1.end
            s1.log.append(wire.read_record(wire.build_record(last, s1.epoch, payload), 0, last.seq + 1, 0, last.digest))
    s1.listen()
    s1.frame(mark, "ALIGN", lambda one: one.message.last == end.seq)
    placed = cluster.client().ok(b"the master's own", w=3, timeout=10, patience=12.0)[0]
    same("the number", placed.seq, end.seq + 1)
    same("what was moved aside", [record.payload for record in s1.aside], [b"nobody else has it", b"nor this"])
    same("the logs", raws(s1.log), raws(cluster.s2.log))
    cluster.becomes(s1, "healthy")


@check("align-refused", "7.6.6", "A secondary that answers an ALIGN damaged must be sent nothing, be shown, and be "
       "dialled again; the others must not suffer.")
def _(cluster):
    s1, s2 = cluster.secondaries
    mark = s1.mark()
    s1.on("HELLO", lambda _link, message: DEFAULT if not message.epoch else [s1.state(tail_digest=s1.end.digest ^ 1)])
    s1.on("ALIGN", lambda _link, _message: [Message("REFUSE", code=14, epoch=s1.epoch, reason="damaged of the suite")])
    s1.hang_up()
    first = s1.frame(mark, "ALIGN")
    s1.wait("the end of the connection", lambda: first.link.ended)
    s1.frame(s1.mark(), "HELLO", lambda one: one.link is not first.link, "another dial at the next heartbeat")
    cluster.client().ok(b"with the other one", w=2, timeout=PATIENCE)
    cluster.becomes(s1, "unhealthy")
    status = cluster.client().command("STATUS").decode()
    line = next((line for line in status.splitlines() if line.startswith("secondary id=s1 ")), "")
    holds(" error=" in line and " error=-" not in line, f"STATUS does not show why it is refused: {line}")
    same("entries sent to it", s1.since(mark, "APPEND"), [])
    s1.answers.clear()
    s1.hang_up()
    s1.has(s2.stored)
    cluster.becomes(s1, "healthy")


# ---------------------------------------------------------------------------------------------------------------------
section("A master with a log of its own")


def own_log(name, page, says):
    """A check that stops the master and starts it again with the log it has; such a master needs {data}."""
    def register(run):
        @check(name, page, says)
        def _(cluster):
            if not cluster.keeps_log:
                raise NotRun("--start has no {data}")
            try:
                cluster.new()
                return run(cluster)
            finally:
                cluster.stop()
        return run
    return register


def goes_on(cluster, before, log):
    """The master that was started again has the same history in a higher epoch; the new epoch."""
    epoch = same_history(cluster, log)
    after = cluster.s1.link().hello
    same("the log id", after.log_id, before.log_id)
    holds(epoch > before.epoch, f"it leads epoch {epoch} after epoch {before.epoch}")
    holds(after.run_id != before.run_id, "the run id of the process before")
    return epoch


def forget_frames(cluster):
    for secondary in cluster.secondaries:
        with secondary.changed:
            secondary.seen.clear()


def extended(secondary, epoch, *payloads):
    """Entries behind the log of a secondary, as another master numbered them."""
    with secondary.changed:
        for payload in payloads:
            end = secondary.end
            raw = wire.build_record(end, epoch, payload, 1_700_000_000_000)
            secondary.log.append(wire.read_record(raw, 0, end.seq + 1, end.epoch, end.digest))
        secondary.epoch, secondary.run_id = max(secondary.epoch, epoch), 4711


@own_log("own-log", "7.8.1", "A master with a log of its own must go on with it, in a higher epoch and as another "
         "process, and fetch nothing.")
def _(cluster):
    for end in (cluster.stop, cluster.kill, cluster.stop):
        before = cluster.s1.link().hello
        cluster.client().ok(b"one", b"two", w=3, timeout=PATIENCE)
        log = list(cluster.s1.log)
        end()
        forget_frames(cluster)
        cluster.launch()
        epoch = goes_on(cluster, before, log)
        same("FETCHes", [one.message for s in cluster.secondaries for one in s.since(0, "FETCH")], [])
        first = led(cluster.s1)
        same("stored and prefix id in its first HELLO that leads",
             (first.stored, first.tail_epoch, first.tail_digest), log[-1].prefix)
    return f"epoch {epoch} in the end"


@own_log("own-log-one-promise", "7.8.3", "… and needs no more promises than the quorum, if its log is whole.")
def _(cluster):
    before = cluster.s1.link().hello
    log = list(cluster.s1.log)
    cluster.stop()
    cluster.s2.stop_listening()
    cluster.launch()
    client = cluster.client()
    eventually("an append with w=2 is OK", lambda: client.append(b"ready?", w=2, timeout=1)[0][0] == "ok", 15.0)
    cluster.s2.listen()
    goes_on(cluster, before, log)


@own_log("own-log-no-promise", "7.8.3", "… but number nothing without them.")
def _(cluster):
    before = cluster.s1.link().hello
    log = list(cluster.s1.log)
    cluster.stop()
    for secondary in cluster.secondaries:
        secondary.stop_listening()
    forget_frames(cluster)
    cluster.launch()
    numbers_nothing(cluster, AWAITED + 1.0)
    for secondary in cluster.secondaries:
        secondary.listen()
    goes_on(cluster, before, log)


@own_log("own-log-behind", "7.8.4", "A master whose log is the beginning of a longer one must fetch only what it "
         "lacks.")
def _(cluster):
    s1, s2 = cluster.secondaries
    before = s1.link().hello
    mine = s1.stored
    cluster.stop()
    for secondary in cluster.secondaries:
        extended(secondary, before.epoch + 1, b"of another master", b"of it too")
    log = list(s1.log)
    forget_frames(cluster)
    cluster.launch()
    goes_on(cluster, before, log)
    fetches = [one.message for s in cluster.secondaries for one in s.since(0, "FETCH")]
    same("first of the first FETCH", fetches[0].first, mine + 1)


@own_log("own-log-parts", "7.8.4", "A master must move aside what it has behind the last common entry with the log it "
         "adopts, as long as it was not committed.")
def _(cluster):
    s1, s2 = cluster.secondaries
    before = s1.link().hello
    for secondary in cluster.secondaries:
        secondary.on("APPEND", ignore)
    cluster.client().ok(b"only here", b"and this", w=1, timeout=PATIENCE)
    common = s1.stored
    cluster.stop()
    for secondary in cluster.secondaries:
        secondary.answers.clear()
        extended(secondary, before.epoch + 1, b"of another master")
    log = list(s1.log)
    forget_frames(cluster)
    cluster.launch()
    goes_on(cluster, before, log)
    fetches = [one.message for s in cluster.secondaries for one in s.since(0, "FETCH")]
    same("the entries fetched", [(one.first, one.last) for one in fetches], [(common + 1, common + 1)])


@own_log("own-log-contradicted", "7.8.4", "… but if that was committed, it must refuse appends damaged, and send and "
         "change nothing.")
def _(cluster):
    s1, s2 = cluster.secondaries
    before = s1.link().hello
    records = [one.seq for one in cluster.client().ok(b"committed", b"this too", w=3, timeout=PATIENCE)]
    s1.frame(0, "HEARTBEAT", lambda one: one.message.levels.commit >= records[-1])
    kept = list(s1.log)
    cluster.stop()
    for secondary in cluster.secondaries:
        with secondary.changed:
            del secondary.log[-2:]
            secondary.commit = secondary.stored
        extended(secondary, before.epoch + 1, b"of another master")
    logs = [raws(secondary.log) for secondary in cluster.secondaries]
    forget_frames(cluster)
    cluster.launch()
    client = cluster.client()
    eventually("an append is refused damaged",
               lambda: client.refused_append(b"too late", w=1, timeout=0)[0] == "damaged", 15.0)
    same("entries sent, logs cut", [one.message for s in cluster.secondaries
                                    for one in s.since(0, "APPEND", "ALIGN", "FETCH")], [])
    same("the logs of the others", [raws(secondary.log) for secondary in cluster.secondaries], logs)
    same("what a client reads", raws(client.read(1, limit=len(kept))[0]), raws(kept))


# ---------------------------------------------------------------------------------------------------------------------
section("Replication: what a master sends")


@check("append-bytes", "4", "The records of an APPEND must be, byte for byte, what the page lays out: lengths, "
       "checksums, numbers from 1 on, epoch, and the chain digest of each.")
def _(cluster):
    cluster.new()
    payloads = [b"hello world", b"", "größer ≥ 1".encode(), bytes(range(256)), b"x" * 1000]
    placed = cluster.client().ok(*payloads, w=3, timeout=PATIENCE)
    for secondary in cluster.secondaries:
        start = placed[0].seq
        got = secondary.log[start - 1:start - 1 + len(payloads)]
        previous = secondary.log[start - 2].prefix
        want = expected_records(previous, secondary.epoch, payloads, [record.time for record in got])
        same("the records", raws(got), raws(want))
        now = time.time() * 1000
        holds(all(abs(record.time - now) < 86_400_000 for record in got), "times that are more than a day away")
    same("the numbers", [one.seq for one in placed], list(range(2, 7)))


@check("append-previous", "6", "An APPEND must carry the prefix id of the entry before its first, 0 and 0 for entry 1.")
def _(cluster):
    cluster.new()
    cluster.client().ok(*(b"%d" % i for i in range(20)), w=3, timeout=PATIENCE)
    for secondary in cluster.secondaries:
        for one in secondary.since(0, "APPEND"):
            first = one.message.first
            before = secondary.log[first - 2].prefix if first > 1 else wire.EMPTY
            same(f"the previous prefix id of an APPEND from {first} on",
                 (one.message.previous_epoch, one.message.previous_digest), (before.epoch, before.digest))
        same("first of the first APPEND", secondary.since(0, "APPEND")[0].message.first, 1)


@check("append-same-everywhere", "4", "Both secondaries must get the same bytes.")
def _(cluster):
    cluster.client().ok(*(b"same %d" % i for i in range(50)), w=3, timeout=PATIENCE)
    same("the logs", raws(cluster.s1.log), raws(cluster.s2.log))


@check("append-order", "7.9.2", "3,000 pipelined appends of one client must get their numbers in the order sent, "
       "without a hole, and must reach each secondary once.")
def _(cluster):
    cluster.new()
    client = cluster.client()
    payloads = [b"entry %d" % i for i in range(3000)]
    first = None
    for at in range(0, len(payloads), 100):
        first_of_run = client.send_append(*payloads[at:at + 100], w=3, timeout=30)
        first = first or first_of_run
    outcomes = client.outcomes(first, len(payloads), 30.0)
    same("the outcomes", {name for name, _ in outcomes}, {"ok"})
    same("the numbers", [details.seq for _, details in outcomes], list(range(2, 3002)))
    for secondary in cluster.secondaries:
        same("the payloads", [record.payload for record in secondary.log[1:]], payloads)
        same("duplicates", secondary.duplicates, 0)
    return f"{len(cluster.s1.since(0, 'APPEND'))} APPENDs"


@check("append-sizes", "9", "Bulk must be cut into frames of at most 256 KiB (or one record), and a record larger "
       "than that must come alone.")
def _(cluster):
    client = cluster.client()
    most = min(client.answer.payload_bytes_max, 400_000)
    mark = cluster.s1.mark()
    first = client.send_append(b"L" * most, w=3, timeout=15)
    client.send_append(*[b"m" * 60_000] * 6, w=3, timeout=15)
    for name, _ in client.outcomes(first, 7, 20.0):
        same("the outcome", name, "ok")
    sizes = [(one.message.count, len(one.message.tail)) for one in cluster.s1.since(mark, "APPEND")]
    if most > wire.BULK_BYTES:
        holds((1, most + wire.RECORD_HEADER_BYTES) in sizes, f"frames of {sizes}")
    return f"{len(sizes)} APPENDs"  # that none is too large is judged for every frame


@check("levels", "6", "Levels must say C(k) for every k of the roster: what one secondary lacks shows in the last one.")
def _(cluster):
    cluster.new()
    s1, s2 = cluster.secondaries
    s2.on("APPEND", ignore)
    end = cluster.client().ok(b"not acknowledged by s2", w=2, timeout=PATIENCE)[0].seq
    mark = s1.mark()
    beat = s1.frame(mark, "HEARTBEAT", lambda one: one.message.levels.held_by[0] == end).message
    same("commit and levels", (beat.levels.commit, beat.levels.held_by), (end, [end, end, end - 1]))
    # what s2 was sent and did not take is sent again some time
    s2.on("APPEND", None)
    s2.has(end)
    mark = s1.mark()
    s1.frame(mark, "HEARTBEAT", lambda one: one.message.levels.held_by == [end, end, end])


@check("levels-fall", "1", "Commit must not fall when a secondary loses its log, while C(k) may.")
def _(cluster):
    cluster.new()
    s1, s2 = cluster.secondaries
    end = cluster.client().ok(b"a", b"b", b"c", w=3, timeout=PATIENCE)[-1].seq
    for secondary in cluster.secondaries:
        secondary.on("APPEND", ignore)
        secondary.log.clear()
        secondary.hang_up()
    mark = s1.mark()
    beat = s1.frame(mark, "HEARTBEAT", lambda one: one.message.levels.held_by[2] == 0).message
    same("commit", beat.levels.commit, end)
    for secondary in cluster.secondaries:
        secondary.on("APPEND", None)
        secondary.hang_up()
        secondary.has(end)


# ---------------------------------------------------------------------------------------------------------------------
section("Acknowledgements: what a master believes")


@check("ack-cumulative", "6", "One ACK may answer many APPENDs: a master must take everything up to `stored` as "
       "stored.")
def _(cluster):
    cluster.new()
    s1 = cluster.s1
    link = s1.link()

    def silently(_link, message):
        s1.take(message)
        return IGNORE
    s1.on("APPEND", silently)
    client = cluster.client()
    first = client.send_append(b"1", w=3, timeout=10)
    s1.has(2)
    for i in range(2, 11):
        client.send_append(b"%d" % i, w=3, timeout=10)
        s1.has(i + 1)
    link.send(s1.ack())
    for name, details in client.outcomes(first, 10):
        same("the outcome", (name, bin(details.holders)), ("ok", "0b111"))


@check("ack-received", "6", "Entries an ACK lists as held count for ack=received, and not for ack=stored.")
def _(cluster):
    cluster.new()
    s1, s2 = cluster.secondaries
    s2.on("APPEND", ignore)
    s1.on("APPEND", ignore)
    client = cluster.client()
    hole = client.send_append(b"the hole", w=2, ack="received", timeout=10)
    held = client.send_append(b"held", w=2, ack="received", timeout=10)
    stored = client.send_append(b"held too, to be stored", w=2, timeout=10)
    end = s1.stored
    s1.wait("the entries", lambda: any(one.message.first + one.message.count - 1 >= end + 3
                                       for one in s1.since(0, "APPEND")))
    s1.link().send(s1.ack(held=[(end + 2, end + 3)]))
    name, details = client.outcomes(held, 1)[0]
    same("the outcome of what is held", (name, details.seq, bin(details.holders)), ("ok", end + 2, "0b11"))
    client.ping()
    client.connection.send(Message("WAIT_REQUEST", id=900, seq=end + 3, concern=("nodes", 2), ack="stored",
                                   timeout=("micros", 0)))
    reply = client.answers(900, "APPEND_REPLY", lambda m: True)[0]
    same("a wait for what is held, ack=stored", reply.outcome[0], "pending")
    for secondary in cluster.secondaries:
        secondary.on("APPEND", None)
    same("the rest", [name for name, _ in client.outcomes(hole, 1, 10.0)], ["ok"])
    same("the rest", [name for name, _ in client.outcomes(stored, 1, 10.0)], ["ok"])


@check("ack-received-prefix", "1", "`received` beyond `stored` counts for ack=received, up to and including it.")
def _(cluster):
    cluster.new()
    s1, s2 = cluster.secondaries
    end = s1.stored

    def received(_link, message):
        s1.take(message)
        return [s1.ack(stored=end)]
    s1.on("APPEND", received)
    s2.on("APPEND", ignore)
    client = cluster.client()
    first = client.send_append(b"1", b"2", b"3", w=2, ack="received", timeout=10)
    same("the outcomes", [name for name, _ in client.outcomes(first, 3)], ["ok"] * 3)
    name, _ = client.append(b"4", w=2, timeout=0.2)[0]
    same("the outcome for ack=stored", name, "pending")
    s1.on("APPEND", None)
    s1.link().send(s1.ack())


@check("ack-order", "7.7.2", "An ACK that takes `stored` back must be ignored: the connection lives, and nothing is "
       "counted less.")
def _(cluster):
    s1 = cluster.s1
    end = cluster.client().ok(b"1", b"2", w=3, timeout=PATIENCE)[-1].seq
    link = s1.link()
    link.send(s1.ack(stored=0, received=0))
    placed = cluster.client().ok(b"3", w=3, timeout=PATIENCE)[0]
    same("the number", placed.seq, end + 1)
    same("the connection", s1.link() is link, True)


def bad_ack(name, page, says, code, message_of):
    @check(name, page, says)
    def _(cluster):
        s1 = cluster.s1
        link = s1.link()
        mark = s1.mark()
        frame = message_of(cluster, s1)
        link.send(frame)
        one = refusal_at(s1, mark, code)
        same("the connection that is refused", one.link is link, True)
        cluster.client().ok(b"and then goes on", w=3, timeout=10, patience=12.0)


bad_ack("ack-beyond", "7.7.2", "An ACK that says more is stored than was sent must be refused bad-frame.", "bad-frame",
        lambda _, s1: s1.ack(stored=s1.stored + 1000, received=s1.stored + 1000))
bad_ack("ack-beyond-received", "7.7.2", "… and one that says more was received likewise.", "bad-frame",
        lambda _, s1: s1.ack(received=s1.stored + 1000))
bad_ack("ack-beyond-held", "7.7.2", "… and one that holds what was not sent likewise.", "bad-frame",
        lambda _, s1: s1.ack(held=[(s1.stored + 900, s1.stored + 1000)]))
bad_ack("ack-backwards", "6", "An ACK with `received` below `stored` must be refused bad-frame.", "bad-frame",
        lambda _, s1: s1.ack(received=s1.stored - 1))
bad_ack("ack-range-reversed", "6", "An ACK with a range that ends before it begins must be refused "
                                   "bad-frame.", "bad-frame",
        lambda _, s1: s1.ack(held=[(s1.stored + 3, s1.stored + 2)]))
bad_ack("ack-many-ranges", "6", "An ACK with 65 ranges must be refused bad-frame.", "bad-frame",
        lambda _, s1: s1.ack(held=[(s1.stored + 2 * i, s1.stored + 2 * i) for i in range(1, 66)]))
bad_ack("nack-endless", "3", "A head of more than 256 KiB must be refused bad-frame.", "bad-frame",
        lambda _, s1: Message("NACK", epoch=s1.epoch, seq=s1.stored + 1, code=1, reason="r" * (300 << 10)))
bad_ack("ack-epoch", "7.6.7", "An ACK of another epoch must be refused stale-epoch.", "stale-epoch",
        lambda _, s1: s1.ack(epoch=s1.epoch + 1))
bad_ack("nack-epoch", "7.6.7", "A NACK of another epoch must be refused stale-epoch.", "stale-epoch",
        lambda _, s1: Message("NACK", epoch=s1.epoch + 1, seq=s1.stored + 1, code=1, reason=""))
bad_ack("heartbeat-ack-epoch", "7.6.7", "A HEARTBEAT_ACK of another epoch must be refused stale-epoch.", "stale-epoch",
        lambda _, s1: Message("HEARTBEAT_ACK", epoch=s1.epoch + 1, number=1))


@check("ack-lie", "7.6.3", "A secondary that acknowledged what it has not must be refilled from its true `stored` on "
       "when it says it in a new HELLO; what was answered stays answered, commit does not fall.")
def _(cluster):
    cluster.new()
    s1, s2 = cluster.secondaries

    def lies(_link, message):
        last = message.first + message.count - 1
        return [s1.ack(stored=last, received=last)]
    s1.on("APPEND", lies)
    end = cluster.client().ok(b"a", b"b", w=3, timeout=PATIENCE)[-1].seq
    truth = s1.stored
    s1.on("APPEND", None)
    mark = s1.mark()
    s1.hang_up()
    s1.has(end)
    same("first of the new session", s1.since(mark, "APPEND")[0].message.first, truth + 1)


# ---------------------------------------------------------------------------------------------------------------------
section("Failed attempts: how a master repeats")


def nack_check(code, name):
    @check(f"nack-{name}", "7.7.3", f"A NACK {name} is a failed attempt: the entry must be repeated on the same "
           f"connection "
           "after the ladder's first wait, and its client must hear OK only after the ACK.")
    def _(cluster):
        s1 = cluster.s1
        link = s1.link()
        mark = s1.mark()
        refused_at = []

        def once(_link, message):
            if refused_at:
                return DEFAULT
            refused_at.append(time.monotonic())
            return [Message("NACK", epoch=message.epoch, seq=message.first, code=code, reason="of the suite")]
        s1.on("APPEND", once)
        client = cluster.client()
        request = client.send_append(b"refused once", w=3, timeout=15)
        outcome, placed = client.outcomes(request, 1, 16.0)[0]
        same("the outcome", outcome, "ok")
        frames = s1.since(mark, "APPEND")
        again = [one for one in frames if one.message.first <= placed.seq < one.message.first + one.message.count]
        same("how often the entry came", len(again), 2)
        same("the connection", (again[1].link is link, link.ended), (True, None))
        waited = again[1].at - refused_at[0]
        holds(waited >= cluster.retry_delays[0] * 0.6,
              f"the repetition came {waited:.3f} s after the NACK, the wait is {cluster.retry_delays[0]} s")
        return f"after {waited * 1000:.0f} ms"


for _code, _name in (*wire.NACK_CODES.items(), (77, "of an unknown code")):
    nack_check(_code, _name.replace(" ", "-"))


@check("silence-repeats", "7.7.3", "Without progress for attempt_timeout an attempt has failed: after the ladder's "
       "waits the master must repeat, each time one frame, the waits growing, without limit, the connection kept.")
def _(cluster):
    cluster.new()
    s1 = cluster.s1
    link = s1.link()
    end = s1.stored
    s1.on("APPEND", ignore)
    mark = s1.mark()
    client = cluster.client()
    request = client.send_append(b"never acknowledged", w=3, timeout=60)
    delays = cluster.retry_delays
    rounds = len(delays) + 1  # the last one repeats
    total = sum(delays) + delays[-1] + (rounds + 1) * cluster.attempt_timeout
    s1.wait(f"{rounds} repetitions", lambda: len(s1.since(mark, "APPEND")) > rounds, 2 * total + PATIENCE)
    frames = s1.since(mark, "APPEND")
    same("the first entries of the frames", [one.message.first for one in frames], [end + 1] * len(frames))
    gaps = [b.at - a.at for a, b in zip(frames, frames[1:])]
    for index, gap in enumerate(gaps[:rounds]):
        wait = delays[min(index, len(delays) - 1)]
        holds(gap >= wait * 0.6, f"repetition {index + 1} came after {gap:.3f} s; the ladder's wait is {wait} s")
    holds(gaps[0] >= 0.6 * (cluster.attempt_timeout + delays[0]),
          f"the first repetition came after {gaps[0]:.3f} s")
    same("the connection", link.ended, None)
    s1.on("APPEND", None)
    same("the outcome in the end", client.outcomes(request, 1, 2 * total)[0][0], "ok")
    return "after " + ", ".join(f"{gap:.2f}" for gap in gaps) + " s"


@check("repeat-one-frame", "7.7.3", "A repetition must be one frame from the first missing entry on, however much is "
       "missing, while new entries keep flowing.")
def _(cluster):
    cluster.new()
    s1 = cluster.s1
    end = s1.stored
    s1.on("APPEND", ignore)
    client = cluster.client()
    mark = s1.mark()
    payload = b"r" * 100_000
    for _ in range(6):
        client.send_append(payload, w=1, timeout=0)
    client.outcomes(1, 6)
    s1.wait("all six", lambda: any(one.message.first + one.message.count - 1 >= end + 6
                                   for one in s1.since(mark, "APPEND")))
    repeated = s1.frame(mark, "APPEND", lambda one: one.message.first == end + 1 and one.at > s1.since(
        mark, "APPEND")[0].at, "the repetition").at
    fresh = client.ok(b"new", w=2, timeout=PATIENCE)[0].seq
    s1.wait("the new entry", lambda: any(one.message.first <= fresh < one.message.first + one.message.count
                                         for one in s1.since(mark, "APPEND")))
    frames = s1.since(mark, "APPEND")
    again, seen = [], end
    for one in frames:
        if one.message.first <= seen:
            again.append(one)
        seen = max(seen, one.message.first + one.message.count - 1)
    holds(all(one.message.first == end + 1 for one in again), f"repetitions: {append_frames(again)}")
    holds(repeated is not None, "no repetition")
    s1.on("APPEND", None)
    s1.has(fresh, 15.0)
    holds(s1.duplicates <= 6, f"{s1.duplicates} duplicates")
    return f"repetitions: {append_frames(again)}"


@check("rest-at-once", "7.7.4", "When a repetition is acknowledged, everything sent before it that the ACK lists "
       "neither as stored nor as received must be sent again at once, and nothing else.")
def _(cluster):
    cluster.new()
    s1 = cluster.s1
    client = cluster.client()
    end = s1.stored
    lost = {end + 1, end + 3, end + 4}
    dropped = set()

    def lossy(_link, message):
        if message.count == 1 and message.first in lost and message.first not in dropped:
            dropped.add(message.first)
            return IGNORE
        return DEFAULT
    s1.on("APPEND", lossy)
    mark = s1.mark()
    for i in range(6):
        client.ok(b"one by one %d" % i, w=2, timeout=PATIENCE)
        s1.wait("its frame", lambda i=i: any(one.message.first == end + 1 + i for one in s1.since(mark, "APPEND")))
    same("what was lost", dropped, lost)
    s1.has(end + 6, 15.0)
    frames = s1.since(mark, "APPEND")
    numbers = [seq for one in frames for seq in range(one.message.first, one.message.first + one.message.count)]
    again = sorted(seq for seq in set(numbers) if numbers.count(seq) > 1)
    same("what came again", again, sorted(lost))
    same("duplicates", s1.duplicates, 0)
    times = {}
    for one in frames:
        for seq in range(one.message.first, one.message.first + one.message.count):
            times[seq] = one.at
    gap = times[end + 4] - times[end + 1]
    holds(gap < PATIENCE, f"the rest came {gap:.3f} s after the repetition")
    return f"the rest {gap * 1000:.0f} ms after the repetition"


@check("window", "7.7.1", "A master must never have more record bytes under way to a secondary than the window of 16 "
       "MiB, but for the last record, and must go on when they are acknowledged.")
def _(cluster):
    cluster.new()
    s1, s2 = cluster.secondaries
    s2.stop_listening()
    link = s1.link()
    link.connection.parser.verify = False
    s1.on("APPEND", ignore)
    client = cluster.client()
    payload = b"w" * min(client.answer.payload_bytes_max, 500_000)
    many = (20 << 20) // len(payload)
    frame_of = client.last_id + 1
    for _ in range(many):
        client.send_append(payload, w=1, timeout=0)
    same("the outcomes", {name for name, _ in client.outcomes(frame_of, many, 30.0)}, {"ok"})
    # The size of the window, less a record, has to come; what came then is judged frame by frame.
    s1.wait("a window of records", lambda: sum(link.in_flight.values()) > WINDOW - 2 * (len(payload) + 48), 20.0)
    beats = link.heartbeats
    s1.wait("a heartbeat meanwhile", lambda: link.heartbeats > beats)
    flying = sum(link.in_flight.values())
    mark = s1.mark()
    last = max(link.in_flight)
    with s1.changed:  # before it is sent, so that what it allows is not judged by what was
        link.stored = last
        for seq in [seq for seq in link.in_flight if seq <= last]:
            del link.in_flight[seq]
    link.send(Message("ACK", epoch=s1.epoch, stored=last, received=last, held=[], duplicates=0))
    s1.frame(mark, "APPEND", lambda one: one.message.first > last, "entries behind the window")
    cluster.stop()
    return f"{flying} bytes under way"


# ---------------------------------------------------------------------------------------------------------------------
section("Sessions: what a master does after a connection ended")


@check("reconnect", "7.6.3", "After a connection ended the master must dial again, under the same epoch and run id, "
       "and begin at `stored` + 1.")
def _(cluster):
    s1 = cluster.s1
    old = s1.link()
    mark = s1.mark()
    s1.on("HELLO", ignore)
    s1.hang_up()
    end = s1.stored
    cluster.client().ok(b"meanwhile 1", b"meanwhile 2", w=2, timeout=PATIENCE)
    s1.on("HELLO", None)
    s1.hang_up()
    s1.has(end + 2)
    new = s1.link()
    same("epoch, run id, log id", (new.hello.epoch, new.hello.run_id, new.hello.log_id),
         (old.hello.epoch, old.hello.run_id, old.hello.log_id))
    first = s1.since(mark, "APPEND")[0].message
    same("first of the new session", first.first, end + 1)


@check("hello-again-positions", "6", "A master's HELLO of a later connection must say its own log: stored, prefix "
       "id, commit and epoch table.")
def _(cluster):
    s1, s2 = cluster.secondaries
    end = cluster.client().ok(b"before", w=3, timeout=PATIENCE)[0].seq
    s1.hang_up()
    said = s1.link().hello
    last = s2.log[-1].prefix
    same("stored and prefix id", (said.stored, said.tail_epoch, said.tail_digest), (end, last.epoch, last.digest))
    same("the epoch table", said.epoch_table, [(s1.epoch, 1)])
    holds(said.commit <= end, f"commit {said.commit} of {end}")


@check("shorter", "7.6.3", "A secondary that comes back with less must be sent what it lacks, from its `stored` + 1 "
       "on.")
def _(cluster):
    s1 = cluster.s1
    end = cluster.client().ok(*(b"%d" % i for i in range(10)), w=3, timeout=PATIENCE)[-1].seq
    s1.hang_up()
    s1.link()
    with s1.changed:
        del s1.log[end - 4:]
        mark = s1.mark()
    s1.hang_up()
    s1.has(end)
    same("first of the new session", s1.since(mark, "APPEND")[0].message.first, end - 3)


@check("virgin-again", "8.4", "A secondary that comes back empty must be refilled from entry 1, in runs.")
def _(cluster):
    s1 = cluster.s1
    end = cluster.client().ok(*(b"%d" % i for i in range(500)), w=3, timeout=10)[-1].seq
    s1.stop_listening()
    s1.forget()
    mark = s1.mark()
    s1.listen()
    s1.has(end, 10.0)
    frames = s1.since(mark, "APPEND")
    same("first of the first frame", frames[0].message.first, 1)
    same("the logs", raws(s1.log), raws(cluster.s2.log))
    holds(len(frames) <= 10 + end // 8192, f"{len(frames)} frames for {end} small entries")
    return f"{end} entries in {len(frames)} APPENDs"


@check("replaced", "7.7.7", "A master whose connection a secondary ends with replaced must dial again and go on.")
def _(cluster):
    s1 = cluster.s1
    link = s1.link()
    link.send(Message("REFUSE", code=15, epoch=s1.epoch, reason="a newer connection"))
    link.close()
    s1.wait("a new connection", lambda: any(one.leads and not one.ended and one is not link for one in s1.links))
    cluster.client().ok(b"on the new connection", w=3, timeout=10, patience=12.0)


# ---------------------------------------------------------------------------------------------------------------------
section("Signs of life")


@check("heartbeat-interval", "7.7.6", "A master must send each secondary one HEARTBEAT per interval, numbered from 1 "
       "on each connection.")
def _(cluster):
    s1 = cluster.s1
    link = s1.link()
    count = 12
    start = link.heartbeats
    s1.wait(f"{count} heartbeats", lambda: link.heartbeats >= start + count, count * cluster.heartbeat * 4 + PATIENCE)
    beats = [one for one in s1.since(0, "HEARTBEAT") if one.link is link][-count:]
    span = beats[-1].at - beats[0].at
    holds(span >= 0.6 * (count - 1) * cluster.heartbeat,
          f"{count} heartbeats within {span:.2f} s; the interval is {cluster.heartbeat} s")
    return f"{span / (count - 1) * 1000:.0f} ms apart"


@check("misses", "7.7.8", "Unanswered heartbeats are misses: two make a secondary suspected, five unhealthy, the first "
       "sign of life healthy; heartbeats never pause.")
def _(cluster):
    s1 = cluster.s1
    link = s1.link()
    cluster.becomes(s1, "healthy")
    s1.on("HEARTBEAT", ignore)
    path = cluster.becomes(s1, "unhealthy", 10 * cluster.heartbeat + PATIENCE)
    holds([word for word in path if word != "healthy"] in (["suspected", "unhealthy"], ["unhealthy"]),
          f"HEALTH went {' → '.join(path)}")
    beats = link.heartbeats
    s1.wait("heartbeats go on", lambda: link.heartbeats >= beats + 2)
    link.send(Message("HEARTBEAT_ACK", epoch=s1.epoch, number=link.heartbeats))
    s1.on("HEARTBEAT", None)
    cluster.becomes(s1, "healthy")
    same("the connection", link.ended, None)
    return " → ".join(path)


@check("pause", "7.7.9", "APPENDs to an unhealthy secondary must pause, repetitions too, and its first sign of life "
       "must resume them at once, on the same connection.")
def _(cluster):
    s1 = cluster.s1
    link = s1.link()
    s1.on("HEARTBEAT", ignore)
    cluster.becomes(s1, "unhealthy", 10 * cluster.heartbeat + PATIENCE)
    mark = s1.mark()
    end = cluster.client().ok(b"meanwhile", w=2, timeout=PATIENCE)[0].seq
    beats = link.heartbeats
    # Longer than an attempt and the first wait of the ladder take together.
    more = round((cluster.attempt_timeout + cluster.retry_delays[0]) / cluster.heartbeat) + 3
    s1.wait("more heartbeats", lambda: link.heartbeats >= beats + more, more * cluster.heartbeat * 4 + PATIENCE)
    same("APPENDs while unhealthy", s1.since(mark, "APPEND"), [])
    s1.on("HEARTBEAT", None)
    s1.has(end)
    same("the connection", link.ended, None)
    cluster.becomes(s1, "healthy")


@check("any-frame-answers", "7.7.6", "Any frame since the last heartbeat answers it: a secondary that sends ACKs "
       "instead stays healthy.")
def _(cluster):
    s1 = cluster.s1
    cluster.becomes(s1, "healthy")
    link = s1.link()
    s1.on("HEARTBEAT", lambda _link, _message: [s1.ack()])
    start = link.heartbeats
    client = cluster.client()
    seen = set()

    def beats():
        seen.add(cluster.health(client).get("s1"))
        return link.heartbeats >= start + 12
    eventually("12 heartbeats", beats, 12 * cluster.heartbeat * 4 + PATIENCE)
    same("HEALTH meanwhile", seen - {"suspected"}, {"healthy"})


@check("dials", "7.7.7", "Without a connection each interval is one attempt: a secondary that cannot be reached "
       "becomes unhealthy, is dialled on and on, and healthy when it is back.")
def _(cluster):
    s1 = cluster.s1
    s1.stop_listening()
    cluster.becomes(s1, "unhealthy", 10 * cluster.heartbeat + PATIENCE)
    end = cluster.client().ok(b"without it", w=2, timeout=PATIENCE)[0].seq
    s1.on("HELLO", ignore)
    before, start = s1.dials, time.monotonic()
    s1.listen()
    s1.wait("a dial", lambda: s1.dials > before)
    s1.on("HELLO", None)
    s1.hang_up()
    s1.has(end)
    cluster.becomes(s1, "healthy")
    took = time.monotonic() - start
    holds(s1.dials - before <= 2 + took / cluster.heartbeat, f"{s1.dials - before} dials within {took:.1f} s")


@check("dials-bounded", "7.7.7", "… and not dialled more often than once an interval, even if it accepts and closes at "
       "once.")
def _(cluster):
    s1 = cluster.s1

    def hang_up(link, _message):
        link.close()
        return IGNORE
    s1.on("HELLO", hang_up)
    s1.hang_up()
    before, start = s1.dials, time.monotonic()
    s1.wait("8 dials", lambda: s1.dials >= before + 8, 8 * cluster.heartbeat * 4 + PATIENCE)
    took = time.monotonic() - start
    holds(took >= 0.5 * 6 * cluster.heartbeat, f"8 dials within {took:.2f} s; the interval is {cluster.heartbeat} s")
    return f"8 dials within {took:.2f} s"


@check("read-only", "10.1", "Without a quorum appends must be refused read-only and reads go on; what waits goes on "
       "waiting, and is answered when a secondary is back.")
def _(cluster):
    s1, s2 = cluster.secondaries
    for secondary in cluster.secondaries:
        secondary.on("APPEND", ignore)
        secondary.on("HEARTBEAT", ignore)
    client = cluster.client()
    waiting = client.send_append(b"waits", w=2, timeout=60)
    for secondary in cluster.secondaries:
        cluster.becomes(secondary, "unhealthy", 10 * cluster.heartbeat + PATIENCE)
    other = cluster.client()
    code, detail = other.refused_append(b"refused", w=1, timeout=0)
    same("the code", code, "read-only")
    holds("present=1" in detail and "need=2" in detail, f"the detail: {detail}")
    records, _last = other.read(1, limit=1)
    same("a read", len(records), 1)
    for secondary in cluster.secondaries:
        secondary.answers.clear()
    same("what waited", client.outcomes(waiting, 1, 15.0)[0][0], "ok")
    eventually("appends are taken again", lambda: other.append(b"x", w=2, timeout=1)[0][0] == "ok", 10.0)
    holds(b"refused" not in [record.payload for record in s1.log], "a refused entry is in the log")


@check("half-answer", "7.7.8", "A secondary that answers heartbeats but never an APPEND stays healthy, and holds up "
       "nobody who does not need it.")
def _(cluster):
    s1 = cluster.s1
    s1.on("APPEND", ignore)
    client = cluster.client()
    for i in range(100):
        client.ok(b"%d" % i, w=2, timeout=PATIENCE)
    same("HEALTH", cluster.health(client).get("s1"), "healthy")
    same("an append with w=3", client.append(b"x", w=3, timeout=0.3)[0][0], "pending")


# ---------------------------------------------------------------------------------------------------------------------
section("Secondaries that keep no rule")


def hostile_link(name, page, says, code, data_of, patience=PATIENCE):
    """On a connection that leads the secondary sends these bytes: refused with the code, dialled and served again."""
    @check(name, page, says)
    def _(cluster):
        s1 = cluster.s1
        link = s1.link()
        mark = s1.mark()
        link.send(data_of(s1))
        one = refusal_at(s1, mark, code, patience)
        same("the connection that is refused", one.link is link, True)
        cluster.client().ok(b"and then goes on", w=3, timeout=10, patience=12.0)


hostile_link("s-magic", "2", "A master must refuse a secondary's wrong magic bad-frame.", "bad-frame",
             lambda _: header(magic=b"\x52\x00"))
hostile_link("s-version", "2", "A master must refuse version 2 in a header unknown-version.", "unknown-version",
             lambda _: header(version=2)[:3])
hostile_link("s-flags", "2", "A master must refuse flags bad-frame.", "bad-frame", lambda _: header(flags=1))
hostile_link("s-long", "2", "A master must refuse a body of 2^32-1 bytes frame-too-long, by the header alone.",
             "frame-too-long", lambda _: header(0x11, length=(1 << 32) - 1))
hostile_link("s-checksum", "2", "A master must refuse a wrong checksum bad-checksum.", "bad-checksum",
             lambda s1: flipped(s1.ack().encode(), 13))
hostile_link("s-type", "2", "A master must refuse an unknown type unknown-frame.", "unknown-frame",
             lambda _: encode_frame(0x7F, b"what"))
hostile_link("s-short", "2", "A master must refuse an ACK without a body bad-frame.", "bad-frame",
             lambda _: encode_frame(0x11, b""))
hostile_link("s-trailing", "2", "A master must refuse a byte behind an ACK bad-frame.", "bad-frame",
             lambda s1: encode_frame(0x11, s1.ack().body() + b"\0"))
hostile_link("s-absurd", "3", "A master must refuse an ACK of 2^60 ranges bad-frame.", "bad-frame",
             lambda _: encode_frame(0x11, b"\x01\x00\x00" + ABSURD))
for _sample in SAMPLES:
    if _sample.kind not in ("REFUSE", "ACK", "NACK", "HEARTBEAT_ACK"):  # FETCHED: nothing was asked for
        hostile_link(f"s-{_sample.kind.lower().replace('_', '-')}", "5",
                     f"A master must refuse {_sample.kind} from a secondary bad-frame.", "bad-frame",
                     lambda _, sample=_sample: sample.encode())


@check("s-drip", "2", "A master must understand a secondary whose answers come one byte at a time.")
def _(cluster):
    s1 = cluster.s1

    def drip(link, message):
        for reply in s1._default(link, message):
            s1._note(link, reply)
            for byte in reply.encode():
                link.send(bytes([byte]))
        return IGNORE
    for kind in ("HELLO", "APPEND", "HEARTBEAT"):
        s1.on(kind, drip)
    s1.hang_up()
    cluster.client().ok(b"drop by drop", w=3, timeout=10, patience=12.0)


@check("s-cut", "2", "A connection that ends within a secondary's answers, at each byte of its HELLO, HEARTBEAT_ACK "
       "and ACK, must do no harm.")
def _(cluster):
    cluster.new_with_quick_heartbeat()
    s1 = cluster.s1
    client = cluster.client()
    beat = Message("HEARTBEAT_ACK", epoch=s1.epoch, number=1)
    rest = beat.encode() + s1.ack().encode()
    length = len(s1.state().encode())
    at = iter(range(1, length + len(rest)))
    done = []

    def cut(link, _message):
        place = next(at, None)
        if place is None:
            done.append(True)
            return DEFAULT
        link.send((s1.state().encode() + rest)[:place])
        link.close()
        return IGNORE
    s1.on("HELLO", cut)
    s1.hang_up()
    s1.wait("the end of the cuts", lambda: done, (length + len(rest)) * cluster.heartbeat * 3 + PATIENCE)
    s1.on("HELLO", None)
    end = client.ok(b"and then goes on", w=2, timeout=PATIENCE)[0].seq
    s1.has(end)
    cluster.stop()
    return f"{length + len(rest) - 1} cuts"


@check("s-half-open", "2", "A secondary that shuts its sending side must be dialled anew.")
def _(cluster):
    s1 = cluster.s1
    link = s1.link()
    link.connection.socket.shutdown(1)
    s1.wait("a new connection", lambda: any(one is not link and one.leads and not one.ended for one in s1.links))
    cluster.client().ok(b"after half a connection", w=3, timeout=10, patience=12.0)


@check("s-never-reads", "7.7.8", "A secondary that reads nothing any more becomes unhealthy, holds up nobody, and "
       "costs the master no more memory than the window.")
def _(cluster):
    cluster.new()
    s1 = cluster.s1
    s1.link()
    before = cluster.memory()
    s1.reading.clear()
    client = cluster.client()
    payload = b"n" * 60_000
    for _ in range(10):
        client.ok(*[payload] * 2, w=2, timeout=10, patience=12.0)
    cluster.becomes(s1, "unhealthy", 10 * cluster.heartbeat + PATIENCE)
    after = cluster.memory()
    if before is not None:
        holds(after - before < 64 << 10, f"resident memory went from {before} to {after} KiB")
    s1.reading.set()
    s1.hang_up()
    s1.has(cluster.s2.stored, 15.0)
    return f"{before} → {after} KiB for 1.2 MB of entries" if before else None


@check("s-flood", "2", "A secondary that floods the master with valid ACKs must harm nobody.")
def _(cluster):
    s1 = cluster.s1
    link = s1.link()
    before = cluster.memory()
    data = s1.ack().encode() * 1000
    client = cluster.client()
    for _ in range(20):
        link.send(data)
        client.ping()
    client.ok(b"after the flood", w=3, timeout=10, patience=12.0)
    after = cluster.memory()
    if before is not None:
        holds(after - before < 32 << 10, f"resident memory went from {before} to {after} KiB")
