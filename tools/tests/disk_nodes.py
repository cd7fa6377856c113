"""A cluster on directories of its own whose nodes may run under strace, and clients that remember what was answered."""

import itertools
import re
import socket
import subprocess
import threading
import time

# How long something that must happen by itself may take on a busy machine.
PATIENCE_S = 30.0
POLL_S = 0.01
NAMES = ("master", "s1", "s2")
SECONDARIES = NAMES[1:]
# Fast enough that a restarted node is found soon, patient enough that a traced one is not given up.
SETTINGS = ("cluster.heartbeat_interval=50ms", "cluster.unhealthy_after=20", "cluster.suspected_after=10",
            "cluster.attempt_timeout=300ms", "cluster.retry_delays=100ms,200ms")


class Failed(Exception):
    """What must hold does not; the message says what."""


def wait_until(what, probe):
    deadline = time.monotonic() + PATIENCE_S
    while True:
        found = probe()
        if found:
            return found
        if time.monotonic() > deadline:
            raise Failed(f"waited {PATIENCE_S:.0f} s in vain for {what}")
        time.sleep(POLL_S)


class Client:
    """One connection to a text gateway."""

    def __init__(self, address):
        host, port = address.rsplit(":", 1)
        self.socket = socket.create_connection((host, int(port)), timeout=PATIENCE_S)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.file = self.socket.makefile("rb")

    def send(self, *lines):
        self.socket.sendall("".join(line + "\n" for line in lines).encode())

    def line(self):
        """The next line; None if the node is gone."""
        try:
            line = self.file.readline()
        except ConnectionError:
            return None
        return line[:-1].decode() if line.endswith(b"\n") else None

    def ask(self, line):
        self.send(line)
        return self.line()

    def lines(self, line):
        """The lines of a reply that ends with END, without it."""
        self.send(line)
        got = list(itertools.takewhile(lambda each: each is not None and not re.match(r"END\b", each),
                                       iter(self.line, object())))
        return got

    def close(self):
        self.file.close()
        self.socket.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def value(line, key):
    found = re.search(rf'(?:^|\s){key}=("[^"]*"|\S*)', line or "")
    return found[1].strip('"') if found else None


class Node:
    """A process; `trace` are arguments of strace, which then runs beside it and not above it."""

    def __init__(self, command, trace=()):
        if trace:
            command = ["strace", "-D", "-f", "-qq", "-ttt", *trace, "--", *command]
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                                        stderr=subprocess.PIPE, text=True, errors="replace")
        self.log = []
        self.wire = self.gateway = None
        self.settled = threading.Event()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self):
        with self.process.stderr as lines:
            for line in lines:
                self.log.append(line.rstrip("\n"))
                found = re.search(r"ready id=\S+ role=\S+ wire=(\S+) gateway=(\S+) ", line)
                if found:
                    self.wire, self.gateway = found.groups()
                    self.settled.set()
        self.settled.set()

    def is_ready(self):
        """Waits until it is ready or has ended, and says which."""
        self.settled.wait(PATIENCE_S)
        return self.wire is not None

    def wait(self):
        try:
            return self.process.wait(PATIENCE_S)
        except subprocess.TimeoutExpired as error:
            raise Failed("a node does not end") from error

    def kill(self):
        self.process.kill()
        return self.process.wait()


class Cluster:
    """A master and two secondaries below `top`, each in the directory of its name unless `dirs` says another."""

    def __init__(self, binary, top, dirs=None, settings=()):
        self.binary, self.top, self.dirs = binary, top, dirs or {}
        self.settings = [word for setting in (*SETTINGS, *settings) for word in ("--set", setting)]
        self.nodes = {}
        self.wires = {}
        # sequence number → payload, of everything that was answered OK.
        self.answered = {}
        self.counter = itertools.count(1)
        for name in SECONDARIES:
            self.start(name)
        self.start("master")
        self.wait_mode("normal", 3)

    def dir(self, name):
        return self.dirs.get(name, self.top / name)

    def launch(self, name, trace=()):
        """Starts a node, which may not live long enough to get ready."""
        own = ["--gateway", "127.0.0.1:0", "--data-dir", str(self.dir(name)), *self.settings]
        wire = self.wires.get(name, "127.0.0.1:0")
        if name == "master":
            roster = [word for each in SECONDARIES for word in ("--secondary", f"{each}={self.wires[each]}")]
            command = [self.binary, "master", "--listen", wire, *roster, *own]
        else:
            command = [self.binary, "secondary", "--id", name, "--faults", "--listen", wire, *own]
        node = self.nodes[name] = Node(command, trace)
        return node

    def start(self, name, trace=()):
        node = self.launch(name, trace)
        if not node.is_ready():
            raise Failed(f"{name} does not start: {node.log[-3:]}")
        self.wires[name] = node.wire
        return node

    def client(self, name="master"):
        return Client(self.nodes[name].gateway)

    def status(self, name="master"):
        with self.client(name) as client:
            return client.lines("STATUS")

    def health(self):
        with self.client() as client:
            return client.ask("HEALTH")

    def wait_mode(self, mode, present):
        """Until the master is in this mode with so many nodes that count."""
        return wait_until(f"mode={mode} present={present}",
                          lambda: (line := self.health()) and value(line, "mode") == mode
                          and value(line, "present") == str(present))

    def payload(self, size=0):
        return f"payload {next(self.counter)} ".ljust(size, "x")

    def note(self, payload, reply):
        """Remembers an OK; two entries under one number are a failure at once."""
        if reply and reply.startswith("OK "):
            seq = int(value(reply, "seq"))
            if self.answered.setdefault(seq, payload) != payload:
                raise Failed(f"number {seq} was answered for two entries")

    def append(self, client, options, count=1, size=0):
        """Sends appends together and returns the replies: fewer if the node went."""
        payloads = [self.payload(size) for _ in range(count)]
        try:
            client.send(*(f"APPEND {options} -- {payload}" for payload in payloads))
        except OSError:
            return []
        replies = []
        for payload in payloads:
            reply = client.line()
            if reply is None:
                break
            self.note(payload, reply)
            replies.append(reply)
        return replies

    def check(self):
        """All nodes hold the same log, and every answered entry stands where it was answered to be."""
        self.wait_mode("normal", 3)
        with self.client() as client:
            last = self.append(client, "w=3")
            if not last or not last[0].startswith("OK "):
                raise Failed(f"no append with all nodes: {last}")
            seq = value(last[0], "seq")
            digests = {client.ask(f"DIGEST {seq}")}
            log = dict(line.split(" ", 1) for line in client.lines("LIST"))
        for name in SECONDARIES:
            with self.client(name) as client:
                digests.add(client.ask(f"DIGEST {seq}"))
        if len(digests) != 1:
            raise Failed(f"the logs differ: {digests}")
        wrong = [number for number, payload in self.answered.items() if log.get(str(number)) != payload.rstrip(" ")
                 and log.get(str(number)) != payload]
        if wrong:
            raise Failed(f"answered and not there: {wrong[:5]}")
        if len(set(log.values())) != len(log):
            raise Failed("an entry stands in the log twice")

    def stop(self):
        for node in self.nodes.values():
            node.kill()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()
