"""What clients of a cluster saw, in the form that `replog-check` judges (see tools/sim/src/history.rs)."""

import itertools
import json
import re
import socket
import subprocess
import threading
import time

from repository import TOP

from selftest import PATIENCE_S, Reply

# A reader asks for the end of the log, which is where things happen.
READ_BACK = 40
READ_PAUSE_S = 0.1
LEVELS = ("local", "committed", "all")


def find_checker():
    """The checker, if it was built."""
    for profile in ("debug", "release"):
        path = TOP / "target" / profile / "replog-check"
        if path.is_file():
            return str(path)
    return None


class History:
    """Appends and reads of any threads, and what befell the nodes. Times are microseconds of one clock."""

    def __init__(self):
        self.lock = threading.Lock()
        self.clients = itertools.count(1)
        self.lines = []

    @staticmethod
    def now():
        return time.monotonic_ns() // 1000

    def client(self):
        """The number of a new connection."""
        return next(self.clients)

    def _note(self, line):
        with self.lock:
            self.lines.append(line)

    def sends(self, client, payload, options, total):
        """An append is about to be sent to a cluster of so many nodes; what `answered` needs."""
        words = dict(word.split("=", 1) for word in options.split())
        need = {"all": total, "majority": total // 2 + 1}.get(words["w"]) or int(words["w"])
        op = {"type": "op", "client": client, "payload": payload, "invoked": self.now(), "need": need,
              "ack": words.get("ack", "stored"), "answer": "missing"}
        if "timeout" in words:
            milliseconds = re.fullmatch(r"(\d+)(?:ms)?", words["timeout"])
            op["timeout"] = 1000 * int(milliseconds[1])
        self._note(op)
        return op

    def answered(self, op, reply):
        """What became of it: a Reply, or None if the connection ended first."""
        if reply is None:
            op.update(answer="lost", completed=self.now())
            return
        completed = self.now()
        if reply.kind in ("OK", "PENDING"):
            op.update(answer=reply.kind.lower(), seq=int(reply.value("seq")), epoch=int(reply.value("epoch")),
                      by=reply.value("by").split(","))
        elif reply.kind in ("REJECTED", "ERR"):
            op.update(answer="rejected", code=reply.split()[1])
        else:
            op.update(answer="unknown")
        op["completed"] = completed

    def restarted(self, name):
        """A new process of this node has the old log."""
        self._note({"type": "event", "node": name, "at": self.now(), "what": "restarted"})

    def read(self, line):
        self._note(line)

    def judge(self, checker, nodes, path):
        """Writes everything with the logs as the nodes have them now. The checker's words, and whether all is well."""
        with self.lock:
            lines = list(self.lines)
        names = [node.name for node in nodes]
        # The roster may have grown since; a read is judged by the levels of the roster that it was made of.
        lines = [line for line in lines if line["type"] != "read" or line["nodes"] == len(nodes)]
        head = {"type": "cluster", "nodes": names, "end": self.now()}
        with open(path, "w", encoding="utf-8") as file:
            for line in [head, *lines, *map(dump, nodes)]:
                line = {key: value for key, value in line.items() if key != "nodes" or line["type"] == "cluster"}
                file.write(json.dumps(line) + "\n")
        done = subprocess.run([checker, str(path)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
        return done.stdout.decode(errors="replace").strip(), done.returncode == 0


def dump(node):
    """A node's whole log. LIST shows no epochs; they only grow, so that a few GET find where each begins."""
    entries = [line.split(" ", 1) for line in node.entries()]

    def epoch(seq):
        return int(Reply(node.ask(f"GET {seq}", trace=False)).value("epoch"))

    def epochs(first, last):
        """The epochs of first … last, which begin and end with those given."""
        (low, its), (high, others) = first, last
        if its == others:
            return [its] * (high - low + 1)
        middle = (low + high) // 2
        at = epoch(middle)
        if middle == low:
            return [its, others]
        return epochs(first, (middle, at))[:-1] + epochs((middle, at), last)

    count = len(entries)
    found = epochs((1, epoch(1)), (count, epoch(count))) if count > 1 else [epoch(1)] * count
    return {"type": "dump", "node": node.name,
            "entries": [[int(seq), each, payload] for (seq, payload), each in zip(entries, found)]}


class Reader(threading.Thread):
    """Reads the end of one node's log again and again, at every level, whatever happens to the node."""

    def __init__(self, history, node, total, log_id):
        super().__init__(name=f"reader of {node}", daemon=True)
        self.node, self.history, self.total = node, history, total
        self.log_id = log_id
        self.stopping = threading.Event()
        self.reads = 0

    def _list(self, first, level):
        """The lines of LIST. Raises OSError if the node is away, or somebody else has its port meanwhile."""
        with socket.create_connection(self.node.address, timeout=PATIENCE_S) as connection:
            connection.sendall(f"STATUS\nLIST from={first} level={level}\n".encode())
            replies, lines = [], []
            with connection.makefile("rb") as file:
                for line in file:
                    lines.append(Reply(line.decode().rstrip("\r\n")))
                    if lines[-1].kind in ("END", "ERR"):
                        replies.append(lines)
                        lines = []
                    if len(replies) == 2:
                        break
        own = [replies[0][0].value(key) for key in ("id", "log_id")] if len(replies) == 2 else None
        # A secondary that has not heard of its master yet knows no levels.
        if own != [self.node.name, self.log_id] or replies[1][-1].kind != "END":
            raise ConnectionError(f"not {self.node}, or not able to tell")
        return replies[1][:-1], replies[1][-1]

    def run(self):
        client, end = self.history.client(), 1
        for level in itertools.cycle(LEVELS):
            if self.stopping.wait(READ_PAUSE_S):
                return
            first = max(1, end - READ_BACK)
            line = {"type": "read", "client": client, "node": self.node.name, "level": level, "from": first,
                    "invoked": self.history.now(), "nodes": self.total}
            try:
                lines, last = self._list(first, level)
            except OSError:
                # It is down, paused or cut off. Whoever comes next is another connection.
                client = self.history.client()
                continue
            entries = [each.split(" ", 1) for each in lines]
            line.update(completed=self.history.now(), commit=int(last.value("commit")),
                        seqs=[int(seq) for seq, _ in entries], items=[payload for _, payload in entries])
            self.history.read(line)
            self.reads += 1
            end = max([end, *line["seqs"]])

    def finish(self):
        self.stopping.set()
        self.join(2 * PATIENCE_S)
