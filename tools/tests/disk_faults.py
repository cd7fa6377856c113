#!/usr/bin/env python3
"""What `.ci/stages/disk` runs: full disks, failing syncs, and deaths at any system call that changes the disk.

    full-master, full-secondary     the data directory is a small file system that fills up and is freed again
    small-disks                     one of 4 to 24 MiB takes entries for most of its size, and its node starts on it when it is full
    shared-disk                     a master and a secondary fill the same file system
    eio-master, eio-secondary       fdatasync fails with EIO from the N-th call on
    kill-master, kill-secondary     SIGKILL at the n-th pwritev, fdatasync, rename and so on of a thread, n = 1, 2, 3 …
"""

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from disk_nodes import Cluster, Failed, value, wait_until
from repository import TOP

MIB = 1 << 20
# Less than the disk has, and more than the node's own reserve and a step of growth leave unused.
DISK_MIB = 32
BALLAST_MIB = 6
# The calls by which the log, `meta` and names reach the disk, and how many of each by one thread are tried.
KILLS = {"pwritev": 25, "fdatasync": 25, "rename": 4, "fsync": 5, "fallocate": 4, "ftruncate": 3}
EXIT_SYNC_FAILED = 70
# From which fdatasync of the disk's thread on the disk fails.
FAILING_SYNCS = (1, 2, 3, 4, 5, 7, 10, 20, 40, 120)


def say(text):
    print(f"disk stage: {text}", flush=True)


def expect(condition, text):
    if not condition:
        raise Failed(text)


class SmallDisk:
    """A file system in memory with a ballast that can be thrown off."""

    def __init__(self, path, mib=DISK_MIB, ballast_mib=BALLAST_MIB):
        self.path = path
        path.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={mib}m", "tmpfs", path], check=True)
        (path / "ballast").write_bytes(bytes(ballast_mib * MIB))

    def free(self):
        (self.path / "ballast").unlink()

    def close(self):
        subprocess.run(["umount", "--lazy", self.path], check=True)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def full_master(binary, top):
    with SmallDisk(top / "disk") as disk:
        with Cluster(binary, top, {"master": disk.path / "data"}, ["storage.segment_size=1MiB"]) as cluster:
            refused = fill(cluster)
            expect(refused.startswith("REJECTED disk-full"), f"not refused as full: {refused}")
            with cluster.client() as client:
                for number, payload in list(cluster.answered.items()):
                    expect(payload in client.ask(f"GET {number}"), f"entry {number} cannot be read on a full disk")
            disk.free()
            count = len(cluster.answered)
            with cluster.client() as client:
                wait_until("appends to go on", lambda: cluster.append(client, "w=3")[0].startswith("OK "))
                more = cluster.append(client, "w=3", count=16, size=65536)
            expect(all(reply.startswith("OK ") for reply in more), f"after the disk was freed: {more[-1][:200]}")
            cluster.check()
            cluster.nodes["master"].kill()
            cluster.start("master")
            cluster.check()
            return f"{count} entries until it was full, {len(cluster.answered)} after it was freed"


def told(cluster, node):
    """What a node says of its disk: the word in STATUS, and whether HEALTH has one."""
    with cluster.client(node) as client:
        health = client.ask("HEALTH")
    return value(cluster.status(node)[0], "disk"), health.endswith(" disk=full")


def small_disks(binary, top):
    shares = []
    for mib, least in ((4, 50), (8, 65), (16, 75), (24, 80)):
        with SmallDisk(top / f"disk-{mib}", mib, 0) as disk:
            settings = ["cluster.quorum=1", "limits.payload_max=1MiB"]
            with Cluster(binary, top / f"nodes-{mib}", {"master": disk.path / "data"}, settings) as cluster:
                refused = fill(cluster, "w=1", 20000)
                expect(refused.startswith("REJECTED disk-full need="), f"{mib} MiB: {refused}")
                need, free = int(value(refused, "need")), int(value(refused, "free"))
                expect(free < need < 4 * MIB, f"{mib} MiB: {refused}")
                share = len(cluster.answered) * 20000 * 100 // (mib * MIB)
                expect(share >= least, f"{mib} MiB are full with entries for {share} %")
                shares.append(f"{share} % of {mib} MiB")
                wait_until("it to be told", lambda: told(cluster, "master") == ("full", True))
                # A start needs next to nothing, and serves what is there.
                cluster.nodes["master"].kill()
                cluster.start("master")
                wait_until("it to be told again", lambda: told(cluster, "master") == ("full", True))
                with cluster.client() as client:
                    expect(client.ask("GET 1").startswith("OK "), "a full master does not serve reads after a start")
                (disk.path / "ballast").unlink()
                subprocess.run(["mount", "-o", f"remount,size={mib + 8}m", disk.path], check=True)
                with cluster.client() as client:
                    wait_until("appends to go on", lambda: cluster.append(client, "w=3")[0].startswith("OK "))
                wait_until("room to be told", lambda: told(cluster, "master") == ("ok", False))
                cluster.check()
    return ", ".join(shares)


def shared_disk(binary, top):
    with SmallDisk(top / "disk") as disk:
        directories = {"master": disk.path / "master", "s1": disk.path / "s1"}
        with Cluster(binary, top, directories, ["storage.segment_size=1MiB"]) as cluster:
            with cluster.client() as client:
                for _ in range(DISK_MIB * 16):
                    reply = cluster.append(client, "w=3 timeout=2s", size=65536)[0]
                    if not reply.startswith("OK "):
                        break
                expect(not reply.startswith("OK "), "never full")
                for node in ("master", "s1", "s2"):
                    expect(cluster.nodes[node].process.poll() is None, f"{node} ended on a full disk")
                disk.free()
                wait_until("appends to go on", lambda: cluster.append(client, "w=3 timeout=5s")[0].startswith("OK "))
            cluster.check()
            return f"{len(cluster.answered)} entries"


def fill(cluster, options="w=2", size=65536):
    """Appends until one is refused, and returns the refusal."""
    with cluster.client() as client:
        for _ in range(DISK_MIB * MIB // size + 1):
            replies = cluster.append(client, options, size=size)
            if not replies or not replies[0].startswith("OK "):
                return replies[0] if replies else "the master went"
    return "never refused"


def full_secondary(binary, top):
    with SmallDisk(top / "disk") as disk:
        with Cluster(binary, top, {"s1": disk.path / "data"}, ["storage.segment_size=1MiB"]) as cluster:

            def error():
                lines = [line for line in cluster.status() if line.startswith("secondary id=s1 ")]
                return value(lines[0], "error") or ""

            with cluster.client() as client:
                for _ in range(DISK_MIB * 16):
                    replies = cluster.append(client, "w=2", size=65536)
                    expect(replies and replies[0].startswith("OK "), f"w=2 does not go on: {replies}")
                    if "disk-full" in error():
                        break
                wait_until("the master to say that s1 is full", lambda: "disk-full" in error())
                more = cluster.append(client, "w=2", count=50, size=1000)
                expect(all(reply.startswith("OK ") for reply in more), f"w=2 does not go on: {more[-1][:200]}")
                pending = cluster.append(client, "w=3 timeout=0")[0]
                expect(pending.startswith("PENDING "), f"w=3 without s1: {pending}")
                with cluster.client("s1") as reader:
                    expect(reader.ask("GET 1").startswith("OK "), "a full secondary does not serve reads")
                disk.free()
                waited = client.ask(f"WAIT {value(pending, 'seq')} w=3")
                expect(waited.startswith("OK "), f"s1 does not catch up: {waited}")
                wait_until("the error to go", lambda: "disk-full" not in error())
            cluster.check()
            return f"{len(cluster.answered)} entries, s1 caught up by itself"


class Lockstep(threading.Thread):
    """One append at a time; notes what was answered to each payload."""

    def __init__(self, cluster, options):
        super().__init__(daemon=True)
        self.cluster, self.options = cluster, options
        self.answers = []
        self.error = None
        self.ending = threading.Event()

    def run(self):
        try:
            with self.cluster.client() as client:
                while not self.ending.is_set():
                    payload = self.cluster.payload()
                    client.send(f"APPEND {self.options} -- {payload}")
                    reply = client.line()
                    if reply is None:
                        return
                    self.cluster.note(payload, reply)
                    self.answers.append((payload, reply))
        except (OSError, Failed) as error:
            self.error = error


class Trace:
    """What strace saw of a node's syncs and of its writes to the log."""

    def __init__(self, path):
        # Thread → (name, begin, text so far) of a call that others interrupted.
        under_way = {}
        self.failed_at = None
        # Payloads that a sync which succeeded has covered.
        self.durable = set()
        written = []
        for line in path.read_text(errors="replace").splitlines():
            thread, at, text = line.split(None, 2)
            if text.startswith("<... "):
                name, begin, before = under_way.pop(thread, (None, None, ""))
                text = before + text
            else:
                name, begin = text.partition("(")[0], float(at)
            if text.endswith("<unfinished ...>"):
                under_way[thread] = (name, begin, text)
                continue
            # A call that was interrupted ended when it was resumed; `at` is that time.
            if name == "pwritev":
                written.append((float(at), {int(each) for each in re.findall(r"payload (\d+) ", text)}))
            elif name == "fdatasync" and "EIO" in text:
                self.failed_at = self.failed_at or begin
            elif name == "fdatasync" and text.endswith(" = 0"):
                for end, payloads in written:
                    if end <= begin:
                        self.durable |= payloads

    def covers(self, payload):
        return int(payload.split()[1]) in self.durable


def failing_sync(binary, top, victim):
    """The N-th fdatasync of the disk's thread and all later ones fail, for several N."""
    deaths, early = [], 0
    with Cluster(binary, top) as cluster:
        for count in FAILING_SYNCS:
            cluster.nodes[victim].kill()
            trace = top / f"trace-{count}"
            node = cluster.launch(victim, ["--seccomp-bpf", "-v", "-s", "4096", "-o", str(trace),
                                           "-e", "trace=fdatasync,pwritev",
                                           "-e", f"inject=fdatasync:error=EIO:when={count}+"])
            threads = []
            if node.is_ready() and takes_part(cluster, node, victim):
                threads = [Lockstep(cluster, options) for options in ("w=1", "w=2", "w=3")]
            for thread in threads:
                thread.start()
            code = node.wait()
            died = time.time()
            # What is heard from here on may be the work of the next process.
            answers = [each for thread in threads for each in list(thread.answers)]
            seen = Trace(trace)
            expect(seen.failed_at, f"{victim} ended with {code} before its disk failed: {node.log[-3:]}")
            expect(code == EXIT_SYNC_FAILED, f"{victim} ended with {code}: {node.log[-3:]}")
            deaths.append(died - seen.failed_at)
            expect(deaths[-1] < 1, f"{victim} took {deaths[-1]:.3f} s to end after its disk had failed")
            early += not threads
            # A node is named in an answer only if a sync of its own covered the entry.
            wrong = [(payload, reply) for payload, reply in answers
                     if victim in (value(reply, "by") or "").split(",") and not seen.covers(payload)]
            expect(not wrong, f"{victim} counts for what it never synced: {wrong[:2]}")
            # A master that is gone answers nobody. A secondary that is gone holds up those who need it.
            for thread in threads[:2] if victim != "master" else []:
                have = len(thread.answers)
                wait_until(f"{thread.options} to go on", lambda: thread.error or len(thread.answers) > have + 5)
            for thread in threads:
                thread.ending.set()
            cluster.start(victim)
            for thread in threads:
                thread.join()
                expect(not thread.error or isinstance(thread.error, ConnectionError), f"a client: {thread.error}")
            cluster.check()
    expect(early * 2 < len(deaths), f"{early} of {len(deaths)} died before anybody could append")
    return f"{len(deaths)} failures, exit code 70 within {max(deaths) * 1000:.0f} ms, {len(cluster.answered)} entries"


def killed(binary, top, victim):
    """The victim dies at the n-th call of each kind. A call that it never makes means that it dies a little later."""
    rounds, missed = 0, []
    with Cluster(binary, top, settings=["storage.segment_size=64KiB"]) as cluster:
        for call, most in KILLS.items():
            for n in range(1, most + 1):
                rounds += 1
                cluster.nodes[victim].kill()
                # Every third death is that of a secondary that begins with nothing.
                if victim != "master" and n % 3 == 0:
                    shutil.rmtree(cluster.dir(victim))
                # No filter in the kernel here: with one, strace's signals are lost.
                node = cluster.launch(victim, ["-o", "/dev/null", "-e", f"trace={call}", "-e",
                                               f"inject={call}:signal=SIGKILL:when={n}"])
                if node.is_ready() and takes_part(cluster, node, victim) and load(cluster, node, victim):
                    missed.append(f"{call} {n}")
                    node.process.kill()
                node.wait()
                cluster.start(victim)
                if rounds % 10 == 0:
                    cluster.check()
                else:
                    cluster.wait_mode("normal", 3)
        cluster.check()
    expect(len(missed) * 2 < rounds, f"{len(missed)} of {rounds} calls were never made: {', '.join(missed)}")
    return f"{rounds} deaths, {rounds - len(missed)} of them at their call, {len(cluster.answered)} entries"


def takes_part(cluster, node, victim):
    """Waits until a node that was started leads or follows, or is gone; says whether it is there."""

    def settled():
        if node.process.poll() is not None:
            return True
        try:
            status = cluster.status(victim)
        except ConnectionError:
            return False
        if victim == "master":
            return status and value(status[0], "mode") == "normal"
        return any(value(line, "connected") == "true" for line in status)

    wait_until(f"{victim} to take part", settled)
    return node.process.poll() is None


def load(cluster, node, victim):
    """Appends of more than a segment in pieces, until the node is gone; says whether it is still there."""
    try:
        with cluster.client() as client:
            for burst in range(40):
                # Those who need a dead secondary would wait for it.
                level = burst % (3 if victim == "master" else 2) + 1
                replies = cluster.append(client, f"w={level} timeout=2s", count=4, size=800)
                if not replies or node.process.poll() is not None:
                    return False
    except ConnectionError:
        # The master died before it took the connection.
        return False
    return True


SCENARIOS = {
    "full-master": full_master,
    "full-secondary": full_secondary,
    "small-disks": small_disks,
    "shared-disk": shared_disk,
    "eio-master": lambda binary, top: failing_sync(binary, top, "master"),
    "eio-secondary": lambda binary, top: failing_sync(binary, top, "s1"),
    "kill-master": lambda binary, top: killed(binary, top, "master"),
    "kill-secondary": lambda binary, top: killed(binary, top, "s1"),
}


def run(name, binary, top, failed):
    directory = top / name
    directory.mkdir()
    started = time.monotonic()
    try:
        done = SCENARIOS[name](binary, directory)
        say(f"ok {name}: {done} ({time.monotonic() - started:.0f} s)")
    except Exception as error:  # Whatever it is, the others go on and the stage fails.
        failed.append(name)
        say(f"FAILED {name}: {error!r}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binary", default=str(TOP / "target/debug/replog"), help="the server's program")
    parser.add_argument("scenarios", nargs="*", metavar="SCENARIO", help=", ".join(SCENARIOS))
    arguments = parser.parse_args()
    unknown = set(arguments.scenarios) - set(SCENARIOS)
    if unknown or not Path(arguments.binary).is_file():
        parser.error(f"no such scenario: {unknown}" if unknown else f"no {arguments.binary}: build it first")
    failed = []
    with tempfile.TemporaryDirectory(prefix="replog-disk-") as top:
        # Two at a time: most of it is waiting.
        waiting = list(arguments.scenarios or SCENARIOS)[::-1]

        def work():
            while waiting:
                run(waiting.pop(), arguments.binary, Path(top), failed)

        workers = [threading.Thread(target=work) for _ in range(2)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
