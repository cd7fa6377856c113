"""Clients that append and read through the text gateways while something else happens to the cluster.

Every payload is unique and says who sent it, so that in the end each entry of the log can be held against the answer
that its sender got.
"""

import random
import socket
import threading

from history import Reader

from selftest import PATIENCE_S, Reply

# How long an answer may take that has to wait for a node to come back.
ANSWER_S = 10 * PATIENCE_S
# Between the batches of a producer, so that a scenario of a minute makes thousands of entries and not millions.
PAUSE_S = 0.02
BATCH_MAX = 8


class Producer(threading.Thread):
    """Appends batch after batch on one connection, and notes every answer."""

    def __init__(self, node, name, options, seed, history, total):
        super().__init__(name=name, daemon=True)
        self.node, self.options = node, options
        self.history, self.total = history, total
        self.random = random.Random(seed)
        self.stopping = threading.Event()
        # (payload, reply) in the order sent. Only this thread appends; others may look at any time.
        self.answers = []
        # What ended it, if that was not `stop`.
        self.error = None

    def run(self):
        client, waiting = self.history.client(), []
        try:
            with socket.create_connection(self.node.address, timeout=ANSWER_S) as connection:
                lines = connection.makefile("rb")
                while not self.stopping.wait(PAUSE_S):
                    first = len(self.answers) + 1
                    payloads = [f"number {first + place} of {self.name} ({self.options})"
                                for place in range(self.random.randint(1, BATCH_MAX))]
                    waiting = [self.history.sends(client, each, self.options, self.total) for each in payloads]
                    connection.sendall(b"".join(f"APPEND {self.options} -- {each}\n".encode() for each in payloads))
                    for payload in payloads:
                        line = lines.readline()
                        if not line.endswith(b"\n"):
                            raise ConnectionError(f"{self.node} closed the connection instead of answering")
                        reply = Reply(line.decode().rstrip("\r\n"))
                        self.answers.append((payload, reply))
                        self.history.answered(waiting.pop(0), reply)
        except (OSError, ValueError) as error:
            self.error = error
            for op in waiting:
                self.history.answered(op, None)

    def count(self, kind="OK"):
        """How many answers of this kind it had."""
        return sum(reply.kind == kind for _, reply in list(self.answers))

    def kinds(self, since=0):
        return {reply.kind for _, reply in self.answers[since:]}


class Follower(threading.Thread):
    """TAIL from entry 1 on: what one reader of one node sees."""

    def __init__(self, node):
        super().__init__(name=f"follower of {node}", daemon=True)
        self.node = node
        self.lines = []
        self.error = None
        self.end = None
        self.socket = socket.create_connection(node.address, timeout=ANSWER_S)
        self.socket.sendall(b"TAIL from=1 level=local\n")

    def run(self):
        try:
            with self.socket.makefile("rb") as lines:
                for line in lines:
                    text = line.decode().rstrip("\r\n")
                    if text.startswith("END "):
                        self.end = Reply(text)
                    # A line with # comes while there is nothing new.
                    elif not text.startswith("#"):
                        self.lines.append(text)
        except (OSError, ValueError) as error:
            self.error = error

    def finish(self):
        """Closes the sending side: the node sends what is there and ends."""
        try:
            self.socket.shutdown(socket.SHUT_WR)
        except OSError as error:
            self.error = self.error or error
        self.join(ANSWER_S)
        self.socket.close()


class Traffic:
    """Producers with mixed write concerns, and followers of nodes that nothing happens to.

    `steady` are those whose write concern a single lost node does not touch, `patient` wait for all nodes as long as it
    takes, `hasty` want all nodes and give up waiting, `wrong` ask for what cannot be. All they see goes into `history`,
    and so does what readers of every node see.
    """

    def __init__(self, scenario, nodes, followed, history):
        self.nodes, self.history = nodes, history
        total = len(nodes)
        self.steady = self._producers(
            scenario, "steady", ["w=1", "w=1 ack=received", *(f"w={w}" for w in range(2, total)), "w=majority"])
        self.patient = self._producers(scenario, "patient", ["w=all", f"w={total}"])
        self.hasty = self._producers(scenario, "hasty", ["w=all timeout=300ms", "w=all timeout=0"])
        self.wrong = self._producers(scenario, "wrong", ["w=0", f"w={total + 1}"])
        self.producers = self.steady + self.patient + self.hasty + self.wrong
        self.followers = [Follower(node) for node in followed]
        # A node that is cut off has lost its published port, which any process may then be given.
        log_id = nodes[0].status()[0].value("log_id")
        self.readers = [Reader(history, node, total, log_id) for node in nodes]

    def _producers(self, scenario, kind, options):
        # The seed is the name: the same batches in every run.
        names = [f"{scenario}, {kind} {place}" for place in range(1, len(options) + 1)]
        return [Producer(self.nodes[0], name, each, name, self.history, len(self.nodes))
                for name, each in zip(names, options)]

    def start(self):
        for each in self.followers + self.producers + self.readers:
            each.start()

    def request_stop(self):
        for each in self.producers:
            each.stopping.set()

    def join(self):
        """Whether every producer had an answer to all it sent."""
        for each in self.producers:
            each.join(ANSWER_S)
        for each in self.readers:
            each.finish()
        return not any(each.is_alive() for each in self.producers)

    def errors(self):
        return [f"{each.name}: {each.error}" for each in self.producers + self.followers if each.error]


def fates(producers, entries):
    """Holds the answers against the log, `entries` being the lines of LIST. Returns what is wrong, in sentences."""
    wrong = []
    numbers = {}
    for line in entries:
        seq, payload = line.split(" ", 1)
        numbers.setdefault(payload, []).append(int(seq))
    for producer in producers:
        last = 0
        for payload, reply in producer.answers:
            at = numbers.pop(payload, [])
            if reply.kind in ("OK", "PENDING"):
                if at != [int(reply.value("seq") or 0)]:
                    wrong.append(f"{payload!r} was answered {reply!r} and is in the log as {at}")
                elif at[0] <= last:
                    wrong.append(f"{payload!r} is {at[0]}, not behind {last} of the same connection")
                else:
                    last = at[0]
                have, need = int(reply.value("have").split("/")[0]), int(reply.value("need"))
                if (reply.kind == "OK") != (have >= need):
                    wrong.append(f"{payload!r} was answered {reply!r}")
            elif reply.kind != "REJECTED":
                wrong.append(f"{payload!r} was answered {reply!r}")
            elif at:
                wrong.append(f"{payload!r} was answered {reply!r} and yet is in the log as {at}")
    wrong += [f"nobody had an answer for {payload!r}, entry {at}" for payload, at in numbers.items()]
    return wrong
