"""A master and its secondaries as processes of this machine, on free ports, for the tests that need no more.

Nothing waits for a fixed time: a node is there when it has printed its ready line, and the cluster when its master
says so.
"""

import argparse
import re
import subprocess
import threading
import time
from pathlib import Path

from repository import TOP

import replog_wire as wire

# How long something that must happen by itself may take on a busy machine.
PATIENCE_S = 60.0
POLL_S = 0.05


class NotReady(Exception):
    """A node or the cluster did not get ready; the message says what it said instead."""


class RealNode:
    """One process. Its log lines are read all the time, so that it never waits for somebody to take them."""

    def __init__(self, binary, *arguments):
        self.process = subprocess.Popen(
            [binary, *arguments], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
            text=True)
        self.lines = []
        self.wire = self.gateway = None
        self.settled = threading.Event()
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def _read(self):
        for line in self.process.stderr:
            self.lines.append(line.rstrip("\n"))
            found = re.search(r"ready id=\S+ role=\S+ wire=(\S+) gateway=(\S+) ", line)
            if found:
                self.wire, self.gateway = found.groups()
                self.settled.set()
        self.settled.set()

    def await_ready(self):
        self.settled.wait(PATIENCE_S)
        if not self.wire:
            raise NotReady("a node did not start; it said:\n" + "\n".join(self.lines))

    def stop(self):
        """Ends the process, gently at first, and returns its exit code."""
        self.process.terminate()
        try:
            code = self.process.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            code = self.process.wait()
        self.reader.join()
        self.process.stderr.close()
        return code


class RealCluster:
    """A master and secondaries s1, s2 … in memory, with the fault verbs allowed. To be used with `with`."""

    def __init__(self, binary, *master_arguments, ports=(0, 0, 0)):
        """`ports` are those of the wire protocol, the master's first; 0 is any free one."""
        self.nodes = []
        try:
            own = ["--gateway", "127.0.0.1:0", "--memory", "--listen"]
            names = [f"s{place}" for place in range(1, len(ports))]
            for name, port in zip(names, ports[1:]):
                self.nodes.append(RealNode(binary, "secondary", "--id", name, "--faults", *own, f"127.0.0.1:{port}"))
            for node in self.nodes:
                node.await_ready()
            roster = [word for name, node in zip(names, self.nodes) for word in ("--secondary", f"{name}={node.wire}")]
            self.master_command = [binary, "master", *roster, *master_arguments, *own]
            self.nodes.insert(0, RealNode(*self.master_command, f"127.0.0.1:{ports[0]}"))
            self.nodes[0].await_ready()
            self._await_whole(len(self.nodes))
        except BaseException:
            self.stop()
            raise

    def _await_whole(self, nodes):
        deadline = time.monotonic() + PATIENCE_S
        with wire.Client(self.nodes[0].wire) as client:
            while True:
                health = client.command("HEALTH").decode()
                if f"mode=normal present={nodes} " in health:
                    return
                if time.monotonic() > deadline:
                    raise NotReady(f"the cluster is not whole: {health}")
                time.sleep(POLL_S)

    def restart_master(self):
        """The master once more, under its address but with nothing in memory: it has to ask the others for the log."""
        code = self.nodes[0].stop()
        self.nodes[0] = RealNode(*self.master_command, self.nodes[0].wire)
        self.nodes[0].await_ready()
        self._await_whole(len(self.nodes))
        return code

    def stop(self):
        """Ends all nodes and returns their exit codes, the master's first."""
        codes = [node.stop() for node in self.nodes]
        self.nodes = []
        return codes

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()


def add_binary_option(parser):
    parser.add_argument(
        "--binary",
        default=str(TOP / "target/debug/replog"),
        help="the server's program (default: target/debug/replog)",
        type=_program,
    )


def _program(path):
    if not Path(path).is_file():
        raise argparse.ArgumentTypeError(f"{path} is not there; build it first (cargo build)")
    return path
