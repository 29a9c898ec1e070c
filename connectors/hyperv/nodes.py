"""Which host is asked, for what concerns one machine: the only one, or the node of a cluster that has the machine.

`Get-VM` lists only the machines of the node that is asked, so each is asked in turn, the likeliest first. What a host
does in its own time is asked for again until a deadline.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from connectors.errors import Busy, ConnectorError, HostDown, Unreachable
from connectors.hyperv import faults
from connectors.hyperv.client import encoded, script
from connectors.hyperv.rounds import Desk

Told = Mapping[str, Any]

TASK_COMMAND = f"-NoProfile -NonInteractive -ExecutionPolicy Bypass -EncodedCommand {encoded(script('task'))}"
AGAIN_S = 0.5
"""Between two questions about the same thing; a script itself waits for what takes a moment."""


def owner_of(installation: str) -> str:
    """What stands in names of checkpoints and folders, for whatever an installation is called."""
    return sha256(installation.encode()).hexdigest()[:16]


def errand(name: str, parameters: Mapping[str, object]) -> dict[str, object]:
    """One of our scripts, to be carried out by the host itself."""
    return {"s": script(name), "p": dict(parameters)}


@dataclass(frozen=True, slots=True)
class Nodes:
    desks: Sequence[Desk]
    script: str
    plain: Mapping[str, object]
    """What every question of this script holds."""
    doing: str
    """What fails if something does, as a phrase."""

    def ask(self, desk: Desk, op: str, deadline: float, **more: object) -> Told:
        """Until it is done, or absent. Raises `Busy` if it is still going on at the deadline, and what went wrong."""
        while True:
            budget_s = round(max(0.1, (deadline - time.monotonic()) * 0.75), 2)
            asked = {**self.plain, "budget_s": budget_s, "op": op, **more}
            told = desk.line.run(self.script, asked, deadline)
            desk.name = str(told.get("host") or desk.name)
            if told["state"] == "failed":
                raise self.problem(told["fault"], desk)
            if told["state"] != "running" or op == "errand":
                return told
            if time.monotonic() + AGAIN_S >= deadline:
                raise Busy(f"Host {desk.name}: {self.doing} is still going on. It will be tried again.")
            time.sleep(AGAIN_S)

    def problem(self, fault: Told, desk: Desk) -> ConnectorError:
        return faults.of_answer(fault, self.doing, desk.name or desk.address)

    def find(self, op: str, deadline: float, first: str = "", **more: object) -> tuple[Desk | None, Told]:
        """The node that has the machine, and its answer; None if none has.

        Raises `HostDown` if no other has it and one that may is silent, and what went wrong.
        """
        silent: dict[str, ConnectorError] = {}
        for desk in self._each(first):
            told = self._answer(desk, silent, op, deadline, more)
            if told is not None and told["state"] != "absent":
                return desk, told
        self._require_answers(silent)
        return None, {}

    def everywhere(self, op: str, deadline: float, first: str = "", **more: object) -> None:
        """The same of every node, for something may be left on one that the machine has gone from."""
        silent: dict[str, ConnectorError] = {}
        answers = [self._answer(desk, silent, op, deadline, more) for desk in self._each(first)]
        if not any(told is not None and told["state"] != "absent" for told in answers):
            self._require_answers(silent)

    def all_of(self, op: str, deadline: float) -> list[tuple[Desk, Told]]:
        """What each node says. Raises for one that does not answer: what is looked for may be there."""
        silent: dict[str, ConnectorError] = {}
        answers = [(desk, self._answer(desk, silent, op, deadline, {})) for desk in self.desks]
        self._require_answers(silent)
        return [(desk, told) for desk, told in answers if told is not None]

    def _each(self, first: str) -> Iterator[Desk]:
        """The likeliest first."""
        yield from sorted(self.desks, key=lambda desk: desk.address != first)

    def _answer(
        self, desk: Desk, silent: dict[str, ConnectorError], op: str, deadline: float, more: Mapping[str, object]
    ) -> Told | None:
        """None from a node that does not answer; why stands in `silent` then."""
        try:
            return self.ask(desk, op, deadline, **more)
        except Unreachable as error:
            silent[desk.address] = error
            return None

    def _require_answers(self, silent: Mapping[str, ConnectorError]) -> None:
        """Raises for nodes that did not answer: the machine may be there."""
        for address, error in silent.items():
            if len(silent) == len(self.desks):
                raise error
            words = f"Host {address}: {self.doing} failed, for it does not answer and no other node can."
            raise HostDown(f"{words} It will be tried again.", platform_words=error.message)
