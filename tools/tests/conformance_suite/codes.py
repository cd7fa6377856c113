"""The last section of both suites: every code of the page was seen, or it is said why it cannot be provoked here."""

import replog_wire as wire

from . import common
from .common import Failure, NotRun

ONLY_MASTER = "only a master says it"
ONLY_SECONDARY = "only a secondary says it"
RESERVED = "it belongs to what is reserved in version 1"

REFUSALS = {
    "secondary": {
        "ahead-of-master": ONLY_MASTER, "diverged": ONLY_MASTER,
        "stopping": "it needs the end of the node",
        "slow-reader": "nothing of it is sure to arrive at a peer that does not read",
    },
    "master": {
        "epoch-taken": ONLY_SECONDARY, "replaced": ONLY_SECONDARY,
        "damaged": ONLY_SECONDARY,
        "stopping": "a node that ends may close without it",
        "slow-reader": "nothing of it is sure to arrive at a peer that does not read",
    },
}
REQUESTS = {
    "secondary": {
        "read-only": ONLY_MASTER, "bad-write-concern": ONLY_MASTER, "too-large": ONLY_MASTER, "bad-option": ONLY_MASTER,
        "recovering": ONLY_MASTER, "not-found": "only a wait is refused so, which is master-only here",
        "too-long": "a line that long is answered inside COMMAND_REPLY",
        "disk-full": "it needs a full disk", "stopping": "it needs the end of the node",
    },
    "master": {
        "not-master": ONLY_SECONDARY, "master-only": ONLY_SECONDARY, "disk-full": "it needs a full disk",
        "stopping": "it needs an append in the instant between the order to stop and the end",
        "too-long": "a line that long may be answered inside COMMAND_REPLY",
    },
}
BOTH = {
    **dict.fromkeys(
        ("mismatch", "duplicate-mismatch", "producer-gap", "producer-fenced", "unknown-producer", "aborted"), RESERVED),
    "damaged": "it needs a log that is damaged on disk",
    **dict.fromkeys(("unknown-verb", "not-http", "not-ready", "unreadable", "denied", "conflict", "secondary-only"),
                    "it is said in a line of the text gateway, not in a frame of its own"),
}
NACKS = {
    "hold-back-full": "it needs --thorough", "disk-full": "it needs a full disk",
    "injected-fault": "it needs the fault verbs of a node that allows them",
}


def register(suite, role):
    """Adds a check for each code. They mean something only behind all the others."""
    suite.section(f"Codes that a {role} said in this run")

    def one(name, page, says, code, seen, why):
        @suite.check(name, page, says)
        def _(_node):
            if code in seen:
                return None
            if code in why:
                raise NotRun(why[code])
            if not suite.whole:
                raise NotRun("only some of the checks were run")
            raise Failure(f"no check provoked {code}")
    for number, code in wire.REFUSE_CODES.items():
        one(f"refuse-{code}", "10.2", f"REFUSE {number}: {code}.", code, common.REFUSALS_SEEN, REFUSALS[role])
    for number, code in wire.REQUEST_CODES.items():
        one(f"request-{code}", "10.1", f"Refusal of a request {number}: {code}.", code, common.REQUEST_CODES_SEEN,
            BOTH | REQUESTS[role])
    if role == "secondary":
        for number, code in wire.NACK_CODES.items():
            one(f"said-nack-{code}", "10.3", f"NACK {number}: {code}.", code, common.NACKS_SEEN, NACKS)
