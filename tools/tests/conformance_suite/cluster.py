"""The master under test, and the secondaries that the suite plays for it.

A played secondary keeps every rule by itself: it promises, stores what comes, holds back what comes early and
acknowledges. It writes down every frame with the time it came, and judges on the way what holds for all frames of a
master. A check changes single answers of it (`on`) and looks at what was written down.
"""

import shlex
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections import namedtuple

import replog_wire as wire
from replog_wire import Message, hello

from .common import (PATIENCE, ClientSide, Failure, eventually, holds, introduced, resident_kib, same, state_of)

# A frame that came: when (monotonic), on which link, the message.
Seen = namedtuple("Seen", "at link message")

DEFAULT = object()  # what an answer of `on` returns to leave the answer to the played secondary
WINDOW = 16 << 20


class Link:
    """One connection of the master to a played secondary."""

    def __init__(self, secondary, number, connection):
        self.secondary = secondary
        self.number = number
        self.connection = connection
        self.began = time.monotonic()
        self.hello = None       # the newest HELLO of the master
        self.answer = None      # our answer to it
        self.ended = None       # when and why the connection ended
        self.sending = threading.Lock()
        self.heartbeats = 0
        self.in_flight = {}     # record bytes by number, sent and not acknowledged
        self.stored = 0         # what our last ACK or HELLO said
        self.appended = False   # whether an APPEND came

    @property
    def leads(self):
        """Whether the master has our promise on it."""
        return (self.hello is not None and self.hello.epoch > 0 and self.answer is not None
                and self.answer.kind == "HELLO")

    def send(self, *messages):
        with self.sending:
            for message in messages:
                data = message if isinstance(message, bytes) else message.encode()
                try:
                    self.connection.send_bytes(data)
                except (OSError, wire.Closed):
                    return

    def close(self):
        try:
            self.connection.socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass


class Secondary:
    """A played secondary."""

    def __init__(self, node_id):
        self.id = node_id
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.address = f"127.0.0.1:{self.port}"
        self.changed = threading.Condition()
        self.links = []
        self.seen = []
        self.problems = []
        self.answers = {}
        self.dials = 0
        self.reading = threading.Event()  # not set: it reads nothing, on no connection
        self.reading.set()
        self.forget()
        threading.Thread(target=self._accept, args=(self.listener,), daemon=True).start()

    # The state

    def forget(self):
        """Virgin again."""
        with self.changed:
            self.log_id, self.epoch, self.run_id, self.master_addr = None, 0, 0, ""
            self.log = []           # verified records
            self.held = {}          # number: record
            self.duplicates = 0
            self.commit = 0
            self.settled = 0        # beyond the epoch of its last entry
            self.begins = 0         # the first entry of the epoch promised, 0 if not told
            self.vouches = None     # what it says of itself; None: whether it has entries
            self.aside = []         # records that an ALIGN moved aside

    @property
    def end(self):
        return self.log[-1].prefix if self.log else wire.EMPTY

    @property
    def stored(self):
        return len(self.log)

    def state(self, **changes):
        """What it says of itself."""
        table = []
        for record in self.log:
            if not table or table[-1][0] != record.epoch:
                table.append((record.epoch, record.seq))
        end = self.end
        said = dict(
            node_id=self.id, log_id=self.log_id, epoch=self.epoch, run_id=self.run_id, epoch_table=table[-128:],
            stored=end.seq, tail_epoch=end.epoch, tail_digest=end.digest,
            settled=max(self.settled, end.epoch), commit=self.commit,
            vouches=bool(self.log) if self.vouches is None else self.vouches, master_addr=self.master_addr,
            payload_bytes_max=1 << 20, window_bytes=WINDOW)
        return hello("secondary", **(said | changes))

    def ack(self, **changes):
        ranges = []
        for seq in sorted(self.held):
            if ranges and ranges[-1][1] == seq - 1:
                ranges[-1] = (ranges[-1][0], seq)
            else:
                ranges.append((seq, seq))
        said = dict(epoch=self.epoch, stored=self.stored, received=self.stored, held=ranges[:64],
                    duplicates=self.duplicates)
        return Message("ACK", **(said | changes))

    # What a check sets and asks

    def on(self, kind, answer):
        """From now on frames of this kind are answered by `answer(link, message)`: a list of messages, or DEFAULT.
        None: by itself again."""
        with self.changed:
            if answer is None:
                self.answers.pop(kind, None)
            else:
                self.answers[kind] = answer

    def stop_listening(self):
        """Dials are refused, and what is connected ends."""
        if self.listener:
            try:
                self.listener.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
            self.listener.close()
            self.listener = None
        self.hang_up()

    def listen(self):
        if self.listener is None:
            self.listener = socket.create_server(("127.0.0.1", self.port))
            threading.Thread(target=self._accept, args=(self.listener,), daemon=True).start()

    def hang_up(self):
        with self.changed:
            links = [link for link in self.links if not link.ended]
        for link in links:
            link.close()
        self.wait("the end of the connections", lambda: all(link.ended for link in links))

    def mark(self):
        """The place in what was written down; later frames stand behind it."""
        with self.changed:
            return len(self.seen)

    def since(self, mark, *kinds):
        with self.changed:
            return [one for one in self.seen[mark:] if not kinds or one.message.kind in kinds]

    def wait(self, what, truth, patience=PATIENCE):
        """Waits until `truth()` gives something true and returns it; it is asked again whenever something happened."""
        deadline = time.monotonic() + patience
        with self.changed:
            while True:
                result = truth()
                if result:
                    return result
                left = deadline - time.monotonic()
                if left <= 0:
                    raise Failure(f"expected at {self.id}: {what}\n     got: nothing of the kind within "
                                  f"{patience:.0f} s")
                self.changed.wait(min(left, 0.5))

    def frame(self, mark, kind, wanted=lambda one: True, what=None, patience=PATIENCE):
        """The first frame of the kind behind the mark for which `wanted` is true."""
        def search():
            return next((one for one in self.seen[mark:] if one.message.kind == kind and wanted(one)), None)
        return self.wait(what or f"{kind}", search, patience)

    def link(self, patience=PATIENCE):
        """The live connection that has our promise."""
        return self.wait("a connection that leads", lambda: next(
            (link for link in reversed(self.links) if link.leads and not link.ended), None), patience)

    def has(self, seq, patience=PATIENCE):
        self.wait(f"entry {seq} stored", lambda: self.stored >= seq, patience)

    def problem(self, text):
        with self.changed:
            if len(self.problems) < 20:
                self.problems.append(f"at {self.id}: {text}")

    # Its threads

    def _accept(self, listener):
        while True:
            try:
                accepted, _ = listener.accept()
            except OSError:
                return
            with self.changed:
                self.dials += 1
                link = Link(self, len(self.links), wire.Connection.accepted(accepted))
                self.links.append(link)
                self.changed.notify_all()
            threading.Thread(target=self._serve, args=(link,), daemon=True).start()

    def _serve(self, link):
        why = "closed"
        try:
            while True:
                self.reading.wait()
                frame_type, body = link.connection.receive_frame(3600.0)
                at = time.monotonic()
                message = wire.decode_message(frame_type, body)
                if message.body() != body:
                    self.problem(f"a {message.kind} that is not written in the shortest form: {body[:200].hex()}")
                with self.changed:
                    try:
                        self._judge(link, message)
                    except (Failure, wire.WireError) as failure:
                        self.problem(f"{failure}\nin {message}")
                    self.seen.append(Seen(at, link, message))
                    answer = self.answers.get(message.kind)
                    reply = answer(link, message) if answer else DEFAULT
                    if reply is DEFAULT:
                        reply = self._default(link, message)
                    for one in reply:
                        self._note(link, one)
                    self.changed.notify_all()
                link.send(*reply)
                if any(isinstance(one, Message) and one.kind == "REFUSE" for one in reply):
                    # Says its last words as rule 7.1.7 has it.
                    link.connection.socket.shutdown(socket.SHUT_WR)
                if message.kind == "REFUSE":
                    why = f"REFUSE {wire.REFUSE_CODES.get(message.code, message.code)}"
        except wire.WireError as error:
            why = f"wrong bytes: {error}"
            # Rule 7.1.10: asks who is silent here, and gives the connection up.
            if link.answer is not None or bytes(link.connection.parser.buffer) != b"\r\n\r\n":
                self.problem(why)
        except (OSError, wire.Closed, TimeoutError):
            pass
        with self.changed:
            link.ended = (time.monotonic(), why)
            self.changed.notify_all()
        link.connection.close()

    def _note(self, link, reply):
        """Keeps in mind what an answer of ours allows the master."""
        if not isinstance(reply, Message):
            return
        if reply.kind == "HELLO":
            link.answer = reply
            link.stored = reply.stored
        elif reply.kind == "ACK":
            link.stored = max(link.stored, reply.stored)
            for seq in [seq for seq in link.in_flight if seq <= reply.stored]:
                del link.in_flight[seq]

    def _judge(self, link, message):
        """What holds for every frame of a master."""
        if link.hello is None and message.kind not in ("HELLO", "REFUSE"):
            raise Failure("the first frame is not a HELLO")
        if message.kind == "HELLO":
            same("the role", message.role, "master")
            same("the peer_id", message.peer_id, self.id)
            holds(link.hello is None or message.epoch >= link.hello.epoch, "a second HELLO with a lower epoch")
            link.hello = message
            link.answer = None
            rows = message.epoch_table
            holds(len(rows) <= 128 and rows == sorted(set(rows)) and all(epoch and first for epoch, first in rows),
                  f"an epoch table that does not ascend: {rows}")
            if message.epoch:
                same("the epoch of the last row of the epoch table", rows[-1][0] if rows else None, message.epoch)
            return
        if message.kind == "REFUSE":
            return
        same(f"the epoch of {message.kind}", message.epoch, link.hello.epoch)
        if message.kind == "HEARTBEAT":
            # One that could not be written before the next was due is left out.
            holds(message.number > link.heartbeats, f"HEARTBEAT {message.number} behind {link.heartbeats}")
            link.heartbeats = message.number
            if link.hello.epoch:
                self._judge_levels(link, message.levels)
        elif message.kind == "ALIGN":
            holds(link.leads, "an ALIGN before the promise")
            holds(not link.appended, "an ALIGN behind an APPEND")
            link.answer = None  # a HELLO is to answer it
        elif message.kind == "FETCH":
            holds(link.leads, "a FETCH before the promise")
            holds(1 <= message.first <= message.last, f"a FETCH of {message.first} to {message.last}")
        elif message.kind == "APPEND":
            holds(link.leads, "an APPEND before the promise")
            link.appended = True
            self._judge_levels(link, message.levels)
            begins = link.hello.epoch_table[-1][1]
            for seq, epoch in wire.numbers_of(message.tail):
                same(f"whether entry {seq} is of the epoch that begins with {begins}",
                     epoch == link.hello.epoch, seq >= begins)
            holds(1 <= message.count <= wire.ENTRIES_PER_FRAME, f"{message.count} records in a frame")
            holds(len(message.tail) <= wire.BULK_BYTES or message.count == 1,
                  f"{message.count} records of {len(message.tail)} bytes in a frame of more than 256 KiB")
            share = len(message.tail) // message.count
            for seq in range(message.first, message.first + message.count):
                if seq > link.stored:
                    link.in_flight[seq] = share
            flying = sum(link.in_flight.values())
            holds(flying - share <= WINDOW + 8192, f"{flying} record bytes are under way, the window is {WINDOW}")
        else:
            raise Failure(f"a master sends no {message.kind} to a secondary")

    def _judge_levels(self, link, levels):
        nodes = len(link.hello.roster)
        if not levels.held_by:
            return  # A master that does not lead yet tells no levels.
        holds(link.answer is not None, "levels before the answer to a HELLO or ALIGN")
        same("the number of levels", len(levels.held_by), nodes)
        holds(all(a >= b for a, b in zip(levels.held_by, levels.held_by[1:])), f"levels that rise: {levels.held_by}")
        majority = nodes // 2 + 1
        holds(levels.commit >= levels.held_by[majority - 1],
              f"commit {levels.commit} behind C(majority) {levels.held_by[majority - 1]}")
        best = getattr(link, "commit", 0)
        holds(levels.commit >= best, f"commit fell from {best} to {levels.commit}")
        link.commit = levels.commit

    def _default(self, link, message):
        if message.kind == "HELLO":
            return [self._introduce(link, message)]
        if message.kind == "HEARTBEAT":
            self.commit = max(self.commit, message.levels.commit)
            settles = self._settle(message.levels)
            answer = Message("HEARTBEAT_ACK", epoch=message.epoch, number=message.number)
            return [answer, self.ack()] if settles else [answer]
        if message.kind == "APPEND":
            return self.take(message)
        if message.kind == "ALIGN":
            return [self.align(message)]
        if message.kind == "FETCH":
            return [self.fetched(message)]
        return []

    def _settle(self, levels):
        """Rule 7.4.13; whether it is news."""
        if not (levels.held_by and self.begins and self.stored >= self.begins - 1 and self.settled < self.epoch):
            return False
        self.settled = self.epoch
        return True

    def align(self, message):
        """Moves aside what it has behind the last common entry, unless that contradicts what was committed."""
        last = self.log[message.last - 1].prefix if 0 < message.last <= self.stored else wire.EMPTY
        if last != (message.last, message.last_epoch, message.last_digest) or self.stored > last.seq < self.commit:
            return Message("REFUSE", code=14, epoch=self.epoch, reason="damaged of the suite")
        if self.stored > last.seq:
            self.settled = min(self.settled, last.epoch)
        self.aside += self.log[last.seq:]
        del self.log[last.seq:]
        self.held.clear()
        return self.state()

    def fetched(self, message):
        """As many of the entries asked for as one frame takes."""
        tail, count = b"", 0
        for record in self.log[message.first - 1:message.last]:
            if count and (len(tail) + len(record.raw) > wire.BULK_BYTES or count == wire.ENTRIES_PER_FRAME):
                break
            tail, count = tail + record.raw, count + 1
        return Message("FETCHED", epoch=message.epoch, first=message.first, count=count, tail=tail)

    def _introduce(self, link, message):
        if message.epoch:
            if message.epoch < self.epoch:
                return Message("REFUSE", code=10, epoch=self.epoch, reason="stale-epoch of the suite")
            if message.epoch == self.epoch and message.run_id != self.run_id:
                return Message("REFUSE", code=11, epoch=self.epoch, reason="epoch-taken of the suite")
            if self.log_id is not None and message.log_id != self.log_id:
                return Message("REFUSE", code=9, epoch=self.epoch, reason="foreign-log of the suite")
            self.epoch, self.run_id, self.log_id = message.epoch, message.run_id, message.log_id
            self.master_addr = message.master_addr
            rows = message.epoch_table
            self.begins = rows[-1][1] if rows and rows[-1][0] == message.epoch else 0
            self.held.clear()
        return self.state()

    def take(self, message):
        """Stores what an APPEND brings, holds back what came early; the answers to it."""
        try:
            records = wire.records_of(message)
        except wire.WireError as error:
            self.problem(f"records that do not verify: {error}")
            return [Message("NACK", epoch=self.epoch, seq=message.first, code=3, reason=str(error))]
        for record in records:
            if record.seq <= self.stored:
                if record.raw != self.log[record.seq - 1].raw:
                    self.problem(f"another entry under the stored number {record.seq}")
                    return [Message("NACK", epoch=self.epoch, seq=record.seq, code=1, reason="conflict")]
                self.duplicates += 1
            elif record.seq in self.held:
                self.duplicates += 1
            else:
                self.held[record.seq] = record
        if message.first == self.stored + 1:
            end = self.end
            if (message.previous_epoch, message.previous_digest) != (end.epoch, end.digest):
                self.problem(f"an APPEND whose previous prefix id is not that of entry {end.seq}")
        while self.stored + 1 in self.held:
            self.log.append(self.held.pop(self.stored + 1))
        self.commit = max(self.commit, min(message.levels.commit, self.stored))
        self._settle(message.levels)
        return [self.ack()]


# ---------------------------------------------------------------------------------------------------------------------
# The master

def free_port():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


class Cluster:
    """The master under test with two played secondaries. It is started at first need, and started anew by checks
    that need a new one."""

    def __init__(self, start, node_id, *, heartbeat, attempt_timeout, retry_delays, write_timeout):
        self.template = start
        self.id = node_id
        self.heartbeat = heartbeat
        self.attempt_timeout = attempt_timeout
        self.retry_delays = retry_delays
        self.write_timeout = write_timeout
        self.secondaries = [Secondary("s1"), Secondary("s2")]
        self.s1, self.s2 = self.secondaries
        self.process = None
        self.output = None
        self.connections = []
        self.data = None  # where the master keeps its log, if it can be told
        self.address = self.gateway = None
        self.starts = 0

    # The process

    def launch(self, wait=True):
        """Starts the master. The secondaries stay as they are."""
        port, gateway = free_port(), free_port()
        self.address, self.gateway = f"127.0.0.1:{port}", f"127.0.0.1:{gateway}"

        def millis(seconds):
            return f"{round(seconds * 1000)}ms"
        words = {
            "s1": self.s1.address, "s2": self.s2.address, "id": self.id, "listen": self.address,
            "gateway": self.gateway, "data": self.data, "heartbeat": millis(self.heartbeat),
            "attempt_timeout": millis(self.attempt_timeout),
            "write_timeout": millis(self.write_timeout),
            "retry_delays": ",".join(millis(delay) for delay in self.retry_delays)}
        try:
            command = [word.format_map(words) for word in shlex.split(self.template)]
        except (KeyError, ValueError, IndexError) as error:
            raise Failure(f"--start: {error} is no placeholder; there are {', '.join(sorted(words))}") from error
        self.output = tempfile.TemporaryFile()
        try:
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=self.output, stderr=self.output)
        except OSError as error:
            raise Failure(f"the master cannot be started: {error}") from error
        self.starts += 1

        def answers():
            if self.process.poll() is not None:
                raise Failure(f"the master ended with {self.process.returncode}:\n{self.said()}")
            try:
                self.client().connection.close()
                return True
            except OSError:
                return False
        if wait:
            eventually("the master answers a client's HELLO", answers, 15.0)

    def said(self):
        """The last lines of its output."""
        self.output.seek(0)
        return "\n".join(self.output.read().decode(errors="replace").splitlines()[-15:])

    @property
    def keeps_log(self):
        return "{data}" in self.template

    def kill(self):
        """Ends the process at once; it can do nothing more."""
        self.process.kill()
        self.process.wait()
        self.process = None

    def close(self):
        """Ends the process and removes its log."""
        self.stop()
        if self.data:
            shutil.rmtree(self.data, ignore_errors=True)
            self.data = None

    def stop(self):
        """Ends the process and waits for its end."""
        if self.process and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(6)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self.process = None

    @property
    def pid(self):
        return self.process.pid if self.process else None

    def running(self):
        return self.process is not None and self.process.poll() is None

    def memory(self):
        """Resident KiB of the process that was started, None if it cannot be told."""
        return resident_kib(self.pid)

    # What checks begin with

    def new(self):
        """A new master with new virgin secondaries, ready."""
        self.fresh()
        self.launch()
        self.ready()

    def new_with_quick_heartbeat(self):
        """The same, at the quickest heartbeat there is, if the master can be told: each dial waits for one."""
        usual = self.heartbeat
        if "{heartbeat}" in self.template:
            self.heartbeat = min(usual, 0.05)
        try:
            self.new()
        finally:
            self.heartbeat = usual

    def fresh(self):
        """No master and no log of one, virgin secondaries."""
        self.close()
        self.data = tempfile.mkdtemp(prefix="replog-conformance-")
        for secondary in self.secondaries:
            secondary.answers.clear()
            secondary.listen()
            secondary.hang_up()
            secondary.forget()
            with secondary.changed:
                secondary.seen.clear()
                secondary.links.clear()
                secondary.problems.clear()
                secondary.dials = 0

    def prepare(self):
        """The master and its two secondaries, everything as usual; a new one only if the last one is unusable."""
        if not self.running():
            self.new()
            return
        try:
            self.ready(4.0)
        except (Failure, OSError, wire.Closed, TimeoutError):
            self.new()  # an earlier check left it so, and has failed for it

    def ready(self, patience=15.0):
        """Both secondaries are led and hold all that the master has, and appends are taken."""
        for secondary in self.secondaries:
            secondary.link(patience)
        client = self.client()

        def taken():
            return client.append(b"ready?", w=3, timeout=PATIENCE)[0][0] == "ok"
        eventually("an append with w=3 is OK", taken, patience)
        client.connection.close()

    def drop_connections(self):
        for connection in self.connections:
            connection.close()
        self.connections.clear()

    def clean_up(self):
        self.drop_connections()
        for secondary in self.secondaries:
            secondary.reading.set()
            secondary.answers.clear()
            secondary.listen()
        problems = [problem for secondary in self.secondaries for problem in secondary.problems]
        for secondary in self.secondaries:
            secondary.problems.clear()
        if problems:
            raise Failure("\n".join(problems))

    # What hostile peers must not change

    def snapshot(self):
        return self.client().answer

    def still_works(self, before):
        answer = self.client().answer
        same("the role in the answer to a client's HELLO", answer.role, "master")
        same("what the node says of itself", state_of(answer), state_of(before))

    # Clients

    def connect(self):
        connection = wire.Connection(self.address, PATIENCE)
        self.connections.append(connection)
        return connection

    def client(self, name="conformance-client"):
        connection = self.connect()
        return ClientSide(connection, introduced(connection, hello("client", node_id=name)))

    def health(self, client=None):
        """The words `id=health` of the line HEALTH."""
        line = (client or self.client()).command("HEALTH").decode()
        return dict(word.split("=", 1) for word in line.split() if "=" in word)

    def becomes(self, secondary, health, patience=PATIENCE):
        client = self.client()
        seen = []

        def now():
            seen.append(self.health(client).get(secondary.id))
            return seen[-1] == health
        eventually(f"HEALTH says {secondary.id}={health}", now, patience)
        return [one for at, one in enumerate(seen) if at == 0 or seen[at - 1] != one]
