#!/usr/bin/env python3
"""An example: what a program in Python does with a replog node.

It appends one entry with a write concern, then many without waiting for each other, reads them back, follows the log,
and asks the node for its status. Copy what you need. All it uses is replog_wire.py next to it, which needs nothing but
the standard library, and the protocol itself is in protocol.md.

    replog dev &
    tools/example_client.py 127.0.0.1:9000
"""

import argparse
import sys

import replog_wire as wire


def append_one(client, payload, w):
    """One entry, held by `w` nodes before we go on. Returns its number.

    Four things can come of an append, and a fifth if the connection breaks: then nobody knows.
    """
    outcome, details = client.append(payload, w=w, timeout=10)
    if outcome == "ok":
        print(f"entry {details.seq} is held by {bin(details.holders).count('1')} nodes, {details.need} were asked for")
    elif outcome == "pending":
        # It is in the master's log and stays there; the other nodes get it when they can.
        print(f"entry {details.seq} is in the log, but not yet held by {details.need} nodes")
    elif outcome == "unknown":
        raise SystemExit(f"entry {details.seq} may survive or not: the master has lost its reign")
    else:
        # Refused: the entry is nowhere and never will be. Trying again is safe.
        code = wire.REQUEST_CODES.get(details.code, details.code)
        raise SystemExit(f"refused: {code} {details.detail}")
    return details.seq


def append_many(client, payloads, w):
    """Many entries, pipelined: no append waits for the answer to the one before. Returns the number of each."""
    outcomes = client.append_run(payloads, w=w)
    for payload, (outcome, details) in zip(payloads, outcomes):
        if outcome != "ok":
            raise SystemExit(f"{payload!r} is {outcome}: {details}")
    numbers = [details.seq for _, details in outcomes]
    print(f"entries {numbers[0]} to {numbers[-1]} are appended, in the order they were given")
    return numbers


def read(client, first, limit):
    """Entries that a majority of the nodes holds: they will not change any more. Returns their payloads."""
    payloads = []
    # Checksums and the chain of digests are verified on the way.
    for record in client.read(first, limit, level="committed"):
        print(f"  {record.seq} {record.payload.decode(errors='backslashreplace')}")
        payloads.append(record.payload)
    return payloads


def tail(address, first, count):
    """Follows the log from entry `first` on, until `count` entries came. A program would go on for ever."""
    request = 1
    with wire.Connection(address) as connection:
        connection.introduce(wire.hello("client", node_id="example-tail"))
        connection.send(wire.Message("TAIL_REQUEST", id=request, start=("from", first), level="committed"))
        seen = 0
        while True:
            message = connection.receive()
            if message.kind != "ENTRIES":
                raise SystemExit(f"the tail was answered with {message}")
            # Without news comes an ENTRIES without records, each heartbeat interval: the node is there.
            for record in wire.records_of(message):
                if seen < count:
                    print(f"  {record.seq} {record.payload.decode(errors='backslashreplace')}")
                    seen += 1
            if message.end:
                return
            if seen >= count:
                connection.send(wire.Message("CANCEL", id=request))


def status(client):
    """Everything that has no frame of its own is a line of the text gateway: STATUS, HEALTH, DIGEST …"""
    for line in client.command("STATUS").decode().splitlines():
        print(f"  {line}")


def write_concern(word):
    return word if word in ("majority", "all") else int(word)


def main():
    parser = argparse.ArgumentParser(description="Appends to a replog node, reads, follows, and asks for its status.")
    parser.add_argument("address", metavar="HOST:PORT", help="the wire address of the master")
    parser.add_argument("--w", type=write_concern, default="majority", help="how many nodes, majority or all")
    parser.add_argument("--count", type=int, default=5, help="how many entries to append at once, at least 1")
    arguments = parser.parse_args()
    if arguments.count < 1:
        parser.error("--count must be at least 1")

    with wire.Client(arguments.address, "example") as client:
        node = client.node
        print(f"node {node.node_id}, a {node.role} of {', '.join(node.roster) or 'no cluster yet'}")
        print("append one:")
        first = append_one(client, "hello from Python".encode(), arguments.w)
        print("append many:")
        append_many(client, [f"line {number}".encode() for number in range(1, arguments.count + 1)], arguments.w)
        print("read:")
        read(client, first, arguments.count + 1)
        print("tail:")
        tail(arguments.address, first, arguments.count + 1)
        print("status:")
        status(client)
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (wire.WireError, wire.Refused, OSError) as error:
        sys.exit(f"{type(error).__name__}: {error}")
