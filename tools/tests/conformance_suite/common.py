"""What all the suites share: failures, the list of checks and its runner, and waiting for messages."""

import fnmatch
import time
from collections import namedtuple
from types import SimpleNamespace

import replog_wire as wire
from replog_wire import Message

PATIENCE = 5.0      # how long any answer may take
PROMPT = 1.0        # how long the answer to a heartbeat may take
LONG = 2.0          # from here on the time of a check is printed
INTRODUCTION = 8.0  # how long a node may take to give up on a silent connection (5 s and some slack)


# Codes that were seen in a REFUSE, in an outcome or a REQUEST_REFUSED, and in a NACK of the node under test, so that
# the last section can say which were not.
REFUSALS_SEEN = set()
REQUEST_CODES_SEEN = set()
NACKS_SEEN = set()


class Failure(Exception):
    """What was seen is not what the page says."""


class NotRun(Exception):
    """The check cannot be made here; the message says why."""


def same(what, got, want):
    if got != want:
        raise Failure(f"{what}\nexpected: {show(want)}\n     got: {show(got)}")


def holds(truth, what):
    if not truth:
        raise Failure(what)


def show(value):
    if isinstance(value, bytes):
        return value.hex() if len(value) <= 64 else f"{value[:64].hex()}… ({len(value)} bytes)"
    if isinstance(value, list) and len(value) > 16:
        return f"[{', '.join(map(show, value[:8]))}, … {len(value)} in all]"
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(show, value))}]"
    if isinstance(value, dict):
        return ", ".join(f"{name} {show(item)}" for name, item in value.items())
    return str(value)


def raws(records):
    return [record.raw for record in records]


def flipped(raw, at, bit=1):
    return raw[:at] + bytes([raw[at] ^ bit]) + raw[at + 1:]


def request_code(refusal):
    code = wire.REQUEST_CODES.get(refusal.code, f"code {refusal.code}")
    REQUEST_CODES_SEEN.add(code)
    return code


# ---------------------------------------------------------------------------------------------------------------------
# The list of checks

Check = namedtuple("Check", "section name page says run")


class Suite:
    """The checks of one role, in the order they run."""

    def __init__(self):
        self.checks = []
        self.title = None
        self.whole = True  # whether all the checks are run, and not only some

    def section(self, title):
        self.title = title

    def check(self, name, page, says):
        """Registers a check: `says` is the rule it verifies, `page` the section of protocol.md where it stands. What
        the check returns is printed as a note."""
        if any(one.name == name for one in self.checks):
            raise ValueError(f"two checks are called {name}")

        def register(run):
            self.checks.append(Check(self.title, name, page, says, run))
            return run
        return register

    def selected(self, pattern):
        self.whole = pattern is None
        if self.whole:
            return self.checks
        return [one for one in self.checks
                if fnmatch.fnmatchcase(one.name, pattern)
                or fnmatch.fnmatchcase((one.section or "").lower(), pattern.lower())
                or fnmatch.fnmatchcase(one.page, pattern.lstrip("§"))]


def line_of(word, one, note=None):
    return f"  {word:8}§{one.page:7} {one.name:24} {one.says}{f' ({note})' if note else ''}"


def print_list(checks):
    title = None
    for one in checks:
        if one.section != title:
            print(f"{'' if title is None else chr(10)}{one.section}")
            title = one.section
        print(line_of("", one))


def run_all(checks, node):
    """Runs the checks against a node and prints a line for each, and the sum. Whether all passed.

    `node` has to know `prepare()`, called before every check, and `clean_up()`, called behind it, which raises Failure
    for what it finds amiss.
    """
    passed = failed = skipped = 0
    title = None
    for one in checks:
        if one.section != title:
            print(f"{'' if title is None else chr(10)}{one.section}", flush=True)
            title = one.section
        note, problem, skip = None, None, None
        start = time.monotonic()
        try:
            try:
                node.prepare()
                note = one.run(node)
            finally:
                node.clean_up()
        except NotRun as reason:
            skip = str(reason)
        except Failure as failure:
            problem = str(failure)
        except TimeoutError:
            problem = f"nothing came within {PATIENCE:.0f} s"
        except Exception as error:  # a node may do anything, and the other checks are to run all the same
            problem = f"{type(error).__name__}: {error}"
        took = time.monotonic() - start
        if took > LONG and skip is None and problem is None:
            note = f"{note}; {took:.1f} s" if note else f"{took:.1f} s"
        if problem is not None:
            failed += 1
            print(line_of("FAILED", one))
            for line in problem.splitlines():
                print(f"              {line}", flush=True)
        elif skip is not None:
            skipped += 1
            print(line_of("not run", one, skip), flush=True)
        else:
            passed += 1
            print(line_of("ok", one, note), flush=True)
    print(f"\n{passed} passed, {failed} failed" + (f", {skipped} not run" if skipped else ""), flush=True)
    return failed == 0 and passed > 0


# ---------------------------------------------------------------------------------------------------------------------
# Waiting

def introduced(connection, own):
    """Sends a HELLO; the answer has to be a HELLO."""
    connection.send(own)
    try:
        answer = connection.receive()
    except wire.Closed as error:
        raise Failure("the connection was closed instead of answering a HELLO") from error
    except TimeoutError as error:
        raise Failure(f"a HELLO was not answered within {PATIENCE:.0f} s") from error
    if answer.kind != "HELLO":
        raise Failure(f"a HELLO was answered by {answer}")
    return answer


def state_of(answer):
    """What a refused frame must not change."""
    return dict(log_id=answer.log_id, epoch=answer.epoch, run_id=answer.run_id, stored=answer.stored,
                tail_epoch=answer.tail_epoch, tail_digest=answer.tail_digest)


def wait_for(connection, what, wanted, skip=("HEARTBEAT_ACK",), patience=PATIENCE):
    """The first message for which `wanted` is true. Kinds in `skip` may come before it, nothing else."""
    deadline = time.monotonic() + patience
    while True:
        try:
            message = connection.receive(max(0.0, deadline - time.monotonic()))
        except TimeoutError as error:
            raise Failure(f"{what}\nnothing of the kind came within {patience:.0f} s") from error
        except wire.Closed as error:
            raise Failure(f"{what}\nthe connection was closed instead") from error
        if wanted(message):
            return message
        if message.kind not in skip:
            raise Failure(f"{what}\n     got: {message}")


def refused(connection, *codes, patience=PATIENCE, silent_close=False,
            skip=("HEARTBEAT_ACK", "ACK")):
    """The node says one of these codes in a REFUSE, and closes."""
    deadline = time.monotonic() + patience
    what = f"expected: REFUSE {' or '.join(codes)}, then the end of the connection\n     got: "
    said = None
    while True:
        try:
            message = connection.receive(max(0.0, deadline - time.monotonic()))
        except TimeoutError as error:
            raise Failure(f"{what}{said or 'nothing'}, and the connection stays open") from error
        except wire.Closed as error:
            if said or silent_close:
                return said
            raise Failure(f"{what}the end without a REFUSE") from error
        if said:
            raise Failure(f"{what}{said}, and then {message}")
        if message.kind == "REFUSE":
            said = message
            name = wire.REFUSE_CODES.get(message.code, f"code {message.code}")
            if name not in codes:
                raise Failure(f"{what}REFUSE {name} ({message.reason})")
            REFUSALS_SEEN.add(name)
        elif message.kind not in skip:
            raise Failure(f"{what}{message}")


def eventually(what, truth, patience=PATIENCE, every=0.02):
    """Asks again until `truth()` gives something true, and returns it."""
    deadline = time.monotonic() + patience
    while True:
        result = truth()
        if result:
            return result
        if time.monotonic() > deadline:
            raise Failure(f"{what}\nnothing of the kind came within {patience:.0f} s")
        time.sleep(every)


# ---------------------------------------------------------------------------------------------------------------------
# A client

class ClientSide:
    """A connection of a client, with the HELLO that answered ours."""

    def __init__(self, connection, answer):
        self.connection = connection
        self.answer = answer
        self.last_id = 0
        self.done = {}  # outcomes of appends by request id

    def request(self, kind, **fields):
        self.last_id += 1
        self.connection.send(Message(kind, id=self.last_id, **fields))
        return self.last_id

    def answers(self, request_id, kind, last):
        """All answers to a request up to the one for which `last` is true. A tail may go on meanwhile."""
        messages = []
        deadline = time.monotonic() + 4 * PATIENCE
        while True:
            holds(time.monotonic() < deadline, f"expected: {kind} for request {request_id}\n     got: not enough of "
                                               f"it within {4 * PATIENCE:.0f} s, the last of them: {messages[-3:]}")
            message = wait_for(self.connection, f"expected: {kind} for request {request_id}",
                               lambda m: getattr(m, "id", None) == request_id, ("ENTRIES",))
            same(f"what answers request {request_id}", message.kind, kind)
            messages.append(message)
            if last(message):
                return messages

    def read(self, first, limit=None, level="local"):
        """The records of a read, and its last frame."""
        request_id = self.request("READ_REQUEST", from_=first, limit=limit, level=level)
        return self.entries(request_id, first, lambda frame, _: frame.end)

    def entries(self, request_id, first, enough):
        """Records of ENTRIES frames, from `first` on without a hole, and the frame that was enough."""
        records = []

        def last(frame):
            if frame.count:
                same("first of an ENTRIES frame", frame.first, max(first, 1) + len(records))
            records.extend(wire.records_of(frame))
            return enough(frame, records)
        frames = self.answers(request_id, "ENTRIES", last)
        return records, frames[-1]

    def refusal(self, request_id, kind="REQUEST_REFUSED"):
        """The name of the code and the detail of a refused request."""
        message = self.answers(request_id, kind, lambda m: True)[0]
        refusal = message.refusal if kind == "REQUEST_REFUSED" else message.outcome[1]
        if kind == "APPEND_REPLY":
            same("the outcome", message.outcome[0], "refused")
        return request_code(refusal), refusal.detail

    # Appends

    def send_append(self, *payloads, w=None, ack="default", timeout=None, **changes):
        """Sends one APPEND_REQUEST and returns the id of its first entry."""
        first = self.last_id + 1
        self.last_id += len(payloads)
        self.connection.send(append_request(first, *payloads, w=w, ack=ack, timeout=timeout, **changes))
        return first

    def outcomes(self, first, count, patience=PATIENCE):
        """The outcomes of the requests `first` on, in their order: (name, Placed or Refusal) of each single entry.
        Replies to other requests that come meanwhile are kept for later."""
        wanted = range(first, first + count)
        while any(number not in self.done for number in wanted):
            reply = wait_for(self.connection, f"expected: APPEND_REPLY for {first} to {first + count - 1}",
                             lambda m: m.kind == "APPEND_REPLY", ("ENTRIES",), patience)
            self.take_reply(reply)
        return [self.done[number] for number in wanted]

    def take_reply(self, reply):
        """Writes down the outcomes of a reply. A second outcome of a request is a failure."""
        name, details = reply.outcome
        holds(reply.count >= 1, f"an APPEND_REPLY for no request: {reply}")
        for index in range(reply.count):
            number = reply.id + index
            holds(number <= self.last_id and number not in self.done,
                  f"request {number} was not asked or is answered twice: {reply}")
            step = {} if name == "refused" else {"seq": details.seq + index}
            self.done[number] = (name, SimpleNamespace(**(vars(details) | step)))

    def append(self, *payloads, patience=PATIENCE, **options):
        return self.outcomes(self.send_append(*payloads, **options), len(payloads), patience)

    def ok(self, *payloads, patience=PATIENCE, **options):
        """Appends, all must be OK; the Placed of the entries."""
        placed = []
        for name, details in self.append(*payloads, patience=patience, **options):
            got = f"refused {request_code(details)} {details.detail}" if name == "refused" else name
            same("the outcome of an append", got, "ok")
            placed.append(details)
        return placed

    def refused_append(self, *payloads, **options):
        """Appends one frame that must be refused as a whole by one code; the code and the details."""
        codes = []
        details = []
        for name, refusal in self.append(*payloads, **options):
            same("the outcome of an append", name, "refused")
            codes.append(request_code(refusal))
            details.append(refusal.detail)
        holds(len(set(codes)) == 1, f"different codes: {codes}")
        return codes[0], details[0]

    # Commands

    def send_command(self, line):
        return self.request("COMMAND", end=True, tail=line if isinstance(line, bytes) else line.encode())

    def command(self, line):
        """The bytes that answer a line."""
        pieces = self.answers(self.send_command(line), "COMMAND_REPLY", lambda m: m.end)
        return b"".join(piece.tail for piece in pieces)

    def ping(self):
        same("the answer to PING hi", self.command(b"PING hi"), b"PONG hi\n")


def append_request(first, *payloads, w=None, ack="default", timeout=None, **changes):
    tail = b"".join(len(payload).to_bytes(4, "little") + payload for payload in payloads)
    said = dict(
        id=first, count=len(payloads), concern=wire.concern_of(w), ack=ack, timeout=wire.timeout_of(timeout),
        producer=None, match_seq=None, atomic=False, tail=tail)
    return Message("APPEND_REQUEST", **(said | changes))


# ---------------------------------------------------------------------------------------------------------------------
# Memory

def resident_kib(pid):
    """VmRSS of a process, None if it cannot be told."""
    if pid is None:
        return None
    try:
        with open(f"/proc/{pid}/status", encoding="ascii", errors="replace") as lines:
            for line in lines:
                if line.startswith("VmRSS:"):
                    return int(line.split()[1])
    except OSError:
        pass
    return None
