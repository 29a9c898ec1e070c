"""HyperCore's errors -> ours, in one table.

Sources: the vendor's field notes (github.com/ScaleComputing/RestAPIExamples, docs/hypercore-api-field-notes.md, on 9.6
to 9.8): errors are `{"error": "..."}`, a node that is being updated hangs, shows TLS errors or answers 502 with a page
of HTML, a call that comes while a task runs may be answered 500, and an SSD tier that is more than 90 % full refuses
clones and snapshots, which only `/Condition` explains. A task that fails says why in `formattedMessage`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from connectors.errors import (
    Busy,
    CapacityExhausted,
    CertificateRejected,
    Conflict,
    ConnectorError,
    CredentialsRejected,
    NotFound,
    PlatformFault,
    Unreachable,
    Unsupported,
)

BY_STATUS: dict[int, type[ConnectorError]] = {
    400: PlatformFault,
    401: CredentialsRejected,
    403: Unsupported,
    404: NotFound,
    405: Unsupported,
    408: Busy,
    409: Conflict,
    412: Conflict,
    423: Busy,
    428: Conflict,
    429: Busy,
    500: PlatformFault,
    502: Unreachable,
    503: Unreachable,
    504: Unreachable,
    507: CapacityExhausted,
}


def _table(*rows: tuple[str, type[ConnectorError]]) -> tuple[tuple[re.Pattern[str], type[ConnectorError]], ...]:
    return tuple((re.compile(words, re.IGNORECASE), kind) for words, kind in rows)


WORDS = _table(
    (r"(ssd )?tier|no space|out of space|insufficient (space|storage|capacity)|not enough (space|storage|capacity)",
     CapacityExhausted),
    (r"(insufficient|not enough|out of) (memory|ram|resources)|no node (can|has|with)", CapacityExhausted),
    (r"already exists|duplicate|in use", Conflict),
    (r"not found|does not exist|no such", NotFound),
    (r"try again|in progress|is locked|is busy", Busy),
)  # fmt: skip
"""Looked at in order, for refusals and failed tasks whose status says too little."""

VAGUE = frozenset({0, 400, 500})
"""Statuses whose words are looked at; 0 is a failed task."""

ROOM = re.compile(r"tier|storage|capacity|space", re.IGNORECASE)
"""Conditions that explain why there is no room."""

FULL = re.compile(r"(tier|storage|capacity|space).*(full|exceed|insufficient)", re.IGNORECASE)
"""Conditions that say that there is none."""

ADVICE: dict[type[ConnectorError], str] = {
    Unreachable: "Check the nodes' addresses and port 443, and whether the cluster is being updated.",
    CertificateRejected: "Check that the CA certificate or the fingerprints are the nodes'. No password was sent.",
    CredentialsRejected: "Check user and password, and that the account is not locked.",
    Busy: "It will be tried again.",
    NotFound: "It is not there any more.",
    Conflict: "It is not in the state it was thought to be in.",
    CapacityExhausted: "There is no room for it: free storage or memory on the cluster, or use another one.",
    Unsupported: "The cluster or the account's roles do not allow it.",
    PlatformFault: "HyperCore's own words are kept with the operation.",
}


class Refusal(Exception):
    """The platform said no: an HTTP status (0: a task that failed) and its words."""

    def __init__(self, status: int, words: str, retry_after_s: float | None = None) -> None:
        super().__init__(f"{status} {words}")
        self.status = status
        self.words = words
        self.retry_after_s = retry_after_s


def kind_of(refusal: Refusal, conditions: Sequence[str] = ()) -> type[ConnectorError]:
    """Which of our errors a refusal is. `conditions` are the cluster's active ones, in words."""
    if refusal.status in VAGUE:
        for pattern, kind in WORDS:
            if pattern.search(refusal.words):
                return kind
        if any(ROOM.search(condition) for condition in conditions):
            return CapacityExhausted
    return BY_STATUS.get(refusal.status, PlatformFault)


def ours(refusal: Refusal, doing: str, endpoint: str, conditions: Sequence[str] = ()) -> ConnectorError:
    """The refusal in our words. `doing` is what failed, as a phrase: "cloning the template"."""
    kind = kind_of(refusal, conditions)
    words = refusal.words
    reason = ""
    if kind is CapacityExhausted and (full := [condition for condition in conditions if ROOM.search(condition)]):
        reason = f" The cluster says: {full[0]}."
        words = f"{words} [{'; '.join(conditions)}]"
    return kind(
        f"{endpoint}: {doing} failed.{reason} {ADVICE[kind]}", platform_words=words, retry_after_s=refusal.retry_after_s
    )
