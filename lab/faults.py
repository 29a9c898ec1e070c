"""Faults on demand: rules that a server or a world asks before it acts. The same rules, the same faults."""

from __future__ import annotations

import re
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field

KINDS: Mapping[str, str] = {
    "slow": "answers after `delay_s`",
    "hang": "takes the request and never answers, until the faults are cleared",
    "drop_before": "closes the connection before anything is done",
    "drop_after": "does it, then closes the connection without an answer",
    "truncate": "does it, and sends half of the answer",
    "status": "answers with the HTTP status `status`, nothing is done",
    "session_expires": "forgets all sessions first",
    "task_fails": "the task whose kind is meant fails at half its time",
    "task_hangs": "the task whose kind is meant never ends",
    "partial_inventory": "a listing leaves out what `where` names, as the platform does when a part is away",
}
"""Kind -> what happens. Refusing connections, changing the certificate, dying hosts and full storages are states, not
rules: `LabServer.cut_off`, `LabServer.change_certificate`, `World.kill_host`, `World.fill`."""


@dataclass(slots=True)
class Rule:
    kind: str
    where: str = ""
    """A regular expression, searched in what is asked ("POST /rest/v1/VirDomain"); empty: everything."""
    count: int = 1
    """How often it strikes; -1: for ever."""
    skip: int = 0
    """How many fitting requests it lets pass first."""
    delay_s: float = 0.0
    status: int = 503
    headers: dict[str, str] = field(default_factory=dict)
    body: str = ""
    struck: int = 0

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"There is no fault {self.kind!r}. There are: {', '.join(KINDS)}.")
        re.compile(self.where)


class Faults:
    """The rules in force. Safe among threads."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._rules: list[Rule] = []
        self.cleared = threading.Event()
        """Set when hanging requests shall let go."""

    def add(self, kind: str, where: str = "", **how: object) -> Rule:
        rule = Rule(kind, where, **how)  # type: ignore[arg-type]
        with self._guard:
            self.cleared.clear()
            self._rules.append(rule)
        return rule

    def clear(self) -> None:
        """No more faults; what hangs lets go of its connection."""
        with self._guard:
            self._rules.clear()
            self.cleared.set()

    def take(self, asked: str, *kinds: str) -> Rule | None:
        """The first rule in force of these kinds (all, if none is named) that fits; it has struck then."""
        with self._guard:
            for rule in self._rules:
                if rule.count == 0 or (kinds and rule.kind not in kinds) or not re.search(rule.where, asked):
                    continue
                if rule.skip > 0:
                    rule.skip -= 1
                    continue
                rule.count -= 1 if rule.count > 0 else 0
                rule.struck += 1
                return rule
        return None

    def rules(self) -> list[Rule]:
        with self._guard:
            return list(self._rules)
