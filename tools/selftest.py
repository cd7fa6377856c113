"""What the self tests share: asking a node over its text gateway, and a report a person can read.

The tests wait for events with a deadline and never for a fixed time, because they also run on busy
machines. Durations are compared only where the difference is the point, and then loosely.
"""

import argparse
import re
import signal
import socket
import sys
import time

NAMES = ("master", "s1", "s2")
# How long something that must happen by itself may take on a busy machine.
PATIENCE_S = 30.0
# How often a node is asked while we wait for an event.
POLL_S = 0.1


class Stop(Exception):
    """The test cannot go on; the message says why."""


class Pointless(Exception):
    """A check has failed, and was reported, without which the rest of the test would mean nothing."""


class Reply(str):
    """One line of a reply."""

    @property
    def kind(self):
        """Its first word: OK, PENDING, REJECTED and so on."""
        return self.split(" ", 1)[0]

    def value(self, key):
        """The value of its word `key=value`, None if there is none. One with spaces is quoted."""
        found = re.search(rf'(?:^|\s){key}=("[^"]*"|\S*)', self)
        return found[1].strip('"') if found else None


class Call:
    """A command on a connection of its own, so that one that waits holds up no other."""

    def __init__(self, node, command, trace):
        self.node, self.command, self.trace = node, command, trace
        self.started = time.monotonic()
        self.received = b""
        self.answer = None
        self.seconds = None
        try:
            self.socket = socket.create_connection(node.address, timeout=PATIENCE_S)
            self.socket.sendall(command.encode() + b"\n")
        except OSError as error:
            raise Stop(f"{node} does not take commands: {error}") from error
        if trace:
            print(f"     {node}> {command}", flush=True)

    def _line(self, deadline):
        """The next line, or None if it has not come by the deadline."""
        while b"\n" not in self.received:
            # Asking with no time left still takes what has arrived already.
            self.socket.settimeout(max(deadline - time.monotonic(), 0.001))
            try:
                more = self.socket.recv(65536)
            except socket.timeout:
                return None
            except OSError as error:
                raise Stop(f"{self.node} broke off while answering {self.command!r}: {error}") from error
            if not more:
                raise Stop(f"{self.node} closed the connection instead of answering {self.command!r}")
            self.received += more
        line, self.received = self.received.split(b"\n", 1)
        return line.rstrip(b"\r").decode("utf-8", "replace")

    def _done(self, answer):
        self.seconds = time.monotonic() - self.started
        self.socket.close()
        self.answer = answer
        return answer

    def reply(self, within=PATIENCE_S):
        """The one-line reply. Without one in time the test cannot go on."""
        if not self.answered(within):
            raise Stop(f"{self.node} did not answer {self.command!r} within {within:g} s")
        return self.answer

    def answered(self, within=0.0):
        """Whether the one-line reply is there, or comes in time."""
        if self.answer is None:
            line = self._line(time.monotonic() + within)
            if line is None:
                return False
            self._done(Reply(line))
            if self.trace:
                print(f"     {self.node}< {line}   ({self.seconds:.1f} s after the command)", flush=True)
        return True

    def lines(self):
        """The data lines of a multi-line reply and its END line."""
        deadline = time.monotonic() + PATIENCE_S
        lines = []
        while True:
            line = self._line(deadline)
            if line is None:
                raise Stop(f"{self.node} did not finish answering {self.command!r}")
            if line == "END" or line.startswith("END "):
                return self._done((lines, Reply(line)))
            if not lines and re.match(r"(ERR|REJECTED) ", line):
                raise Stop(f"{self.node} answered {self.command!r} with: {line}")
            lines.append(line)


class Node:
    """One node, reached over its text gateway."""

    def __init__(self, name, host, port):
        self.name, self.address = name, (host, port)

    def __str__(self):
        return self.name

    def start(self, command, trace=True):
        """Sends a command and does not wait for the reply."""
        return Call(self, command, trace)

    def ask(self, command, trace=True):
        """The reply to a command that is answered in one line."""
        return self.start(command, trace).reply()

    def status(self):
        """STATUS: the node's own line, and the lines about its peers."""
        lines, _ = self.start("STATUS", trace=False).lines()
        return Reply(lines[0]), [Reply(line) for line in lines[1:]]

    def peer(self, name):
        """What the master's STATUS says about one secondary."""
        for line in self.status()[1]:
            if line.value("id") == name:
                return line
        raise Stop(f"STATUS of {self} has no line about {name}")

    def entries(self, first=1):
        """LIST: the lines `<seq> <payload>` from `first` on."""
        return self.start(f"LIST from={first}", trace=False).lines()[0]

    def next(self):
        """The number that its next entry will have."""
        return int(self.status()[0].value("next"))


class Report:
    """Prints every step and what is expected of it, and counts."""

    def __init__(self):
        self.passed = self.failed = self.steps = 0

    def step(self, text):
        self.steps += 1
        print(f"\n{self.steps}. {text}", flush=True)

    def note(self, text):
        print(f"     {text}", flush=True)

    def check(self, expected, holds, got):
        """`expected` is a sentence; `got` is shown when it does not hold."""
        if holds:
            self.passed += 1
            print(f"   OK      {expected}", flush=True)
        else:
            self.failed += 1
            print(f"   FAILED  expected: {expected}\n           but got:  {got}", flush=True)
        return holds

    def reaches(self, expected, probe, within=PATIENCE_S):
        """Asks until the probe holds. It returns whether it does, and what it saw."""
        deadline = time.monotonic() + within
        while True:
            holds, got = probe()
            if holds or time.monotonic() > deadline:
                return self.check(expected, holds, f"{got}, still after {within:g} s")
            time.sleep(POLL_S)

    def must_reach(self, expected, probe, within=PATIENCE_S):
        """As `reaches`, for what everything after it depends on."""
        if not self.reaches(expected, probe, within):
            raise Pointless

    def summary(self):
        """Prints the last line of the test; the exit code."""
        print(f"\n{self.passed} passed, {self.failed} failed", flush=True)
        return 1 if self.failed else 0


def cluster_is_whole(nodes):
    """A probe: appends are accepted, and every node is present and has everything. The master comes first."""

    def probe():
        own, peers = nodes[0].status()
        whole = own.value("mode") == "normal" and own.value("present") == str(len(nodes))
        level = all(peer.value("health") == "healthy" and peer.value("lag") == "0" for peer in peers)
        return whole and level and len(peers) == len(nodes) - 1, " | ".join([own, *peers])

    return probe


def everyone_answers(nodes):
    """A probe: each node answers PING. A cluster that has just been started may take a moment."""

    def probe():
        for node in nodes:
            try:
                answer = node.ask("PING", trace=False)
            except Stop as error:
                return False, f"{error} (start the cluster first: docker-compose up --build)"
            if not answer.startswith("PONG"):
                return False, f"{node} answered {answer!r}"
        return True, ""

    return probe


def copied_to(master, seq, nodes):
    """A probe: so many nodes hold the entry. WAIT says not-found before it has its number."""

    def probe():
        answer = master.ask(f"WAIT {seq} w={nodes} timeout=1", trace=False)
        return answer.kind == "OK", answer

    return probe


def named(nodes):
    """Their names in a sentence: `master, s1 and s2`."""
    *others, last = [node.name for node in nodes]
    return f"{', '.join(others)} and {last}"


def check_equal(report, nodes):
    """The end of every test: the same log on all nodes, entry by entry and by digest. Returns the entries."""
    report.must_reach("every node is healthy and has everything", cluster_is_whole(nodes))
    logs = [node.entries() for node in nodes]
    report.check(
        f"LIST shows the same {len(logs[0])} entries on {named(nodes)}",
        all(log == logs[0] for log in logs),
        "; ".join(f"{node}: {len(log)} entries, last {log[-1:]}" for node, log in zip(nodes, logs)),
    )
    numbers = [int(line.split(" ", 1)[0]) for line in logs[0]]
    report.check(
        "their numbers run from 1 without a hole",
        numbers == list(range(1, len(numbers) + 1)),
        f"{len(numbers)} numbers from {numbers[:1]} to {numbers[-1:]}",
    )
    digests = [node.ask("DIGEST") for node in nodes]
    report.check(
        f"DIGEST is the same on {named(nodes)}",
        all(digest.kind == "OK" and digest == digests[0] for digest in digests),
        "; ".join(f"{node}: {digest}" for node, digest in zip(nodes, digests)),
    )
    return logs[0]


def arguments(description):
    """The options that both self tests have."""
    parser = argparse.ArgumentParser(
        description=description,
        epilog="The last line is `N passed, N failed`. Exit codes: 0 all passed, 1 something "
        "failed, 2 wrong usage.",
    )
    parser.add_argument("--host", default="127.0.0.1", help="where the text gateways are (default: %(default)s)")
    parser.add_argument(
        "--ports",
        type=ports,
        default="8000,8001,8002",
        metavar="MASTER,S1,S2",
        help="the ports of the text gateways (default: %(default)s)",
    )
    return parser


def ports(text):
    """Three different port numbers, separated by commas."""
    try:
        numbers = [int(word) for word in text.split(",")]
    except ValueError:
        numbers = []
    different = len(numbers) == len(set(numbers)) == len(NAMES)
    if not different or not all(0 < number < 65536 for number in numbers):
        raise argparse.ArgumentTypeError(f"{text!r} is not three different port numbers such as 8000,8001,8002")
    return numbers


def run(test, options, clean_up):
    """Runs a test on the cluster, cleans up whatever happens, and ends the program."""
    nodes = [Node(name, options.host, port) for name, port in zip(NAMES, options.ports)]
    report = Report()
    # A test that is asked to stop still cleans up after itself.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        report.step("The cluster answers and is whole.")
        report.must_reach("master, s1 and s2 answer PING", everyone_answers(nodes))
        report.must_reach("every node is healthy and has everything", cluster_is_whole(nodes))
        try:
            test(report, nodes, options)
        finally:
            clean_up(nodes)
    except Pointless:
        report.note("The steps after this one would mean nothing.")
    except Stop as reason:
        report.check("the test runs to its end", False, reason)
    except KeyboardInterrupt:
        report.check("the test runs to its end", False, "it was interrupted")
    sys.exit(report.summary())
