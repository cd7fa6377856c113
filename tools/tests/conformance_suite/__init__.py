"""The conformance suites: secondary.py plays a master, master.py plays secondaries, clients.py plays clients of a
master, hostile.py plays peers that keep no rule. All of it is written after protocol.md."""
