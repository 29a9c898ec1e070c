"""What movers have done: calls that wait for vSphere's tasks, within a deadline. Orders never do; they are polled.

A task that outlives the deadline goes on at vSphere. The call ends as `Busy`, and whoever tries again finds what it
made.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from connectors.base import Order, Surroundings
from connectors.errors import Busy
from connectors.esxi import faults, mapping
from connectors.esxi.api import vim
from connectors.esxi.client import Client
from connectors.esxi.faults import VimFault
from connectors.esxi.soap import Element
from connectors.esxi.work import POLL_S, OutOfTime, Shared, Work

RESULT_PATHS = (*mapping.TASK_PATHS, "info.result")
CANCEL_S = 10.0
CALL_S = 60.0
"""For one call while bytes flow, which have no deadline."""

FASTEST_S, SLOWEST_S = 0.04, 1.0
"""How soon a task is asked after again."""
IN_THE_WAY = ("TaskInProgress", "MethodDisabled", "ConcurrentAccess", "ResourceInUse", "FileLocked")
"""Somebody else is at the machine, or a lease that nobody holds any more has not ended yet."""


class TookTooLong(Exception):
    """A task was not done within the time that it was given; it has been cancelled."""


class Errand(Work[Order]):
    """As much of an order as looking at machines and naming steps needs."""

    _pause_s = FASTEST_S

    @classmethod
    def of(cls, client: Client, deadline: float) -> Errand:
        """One that is of no key: nothing is looked for that bears a stamp."""
        nowhere = Surroundings(installation="", workdir=Path())
        return cls(Order(key=""), Shared(client, nowhere), deadline)

    def carry_out(self, step: str, call: Callable[[], Any], within_s: float | None = None) -> Element | None:
        """Have a task done; its result. Raises `VimFault`, `Busy` where the deadline comes first, `TookTooLong`."""
        self.begin(step)
        task = str(call()._moId)
        give_up_at = None if within_s is None else time.monotonic() + within_s
        while True:
            seen = self.client.object_seen("Task", task, RESULT_PATHS, self.deadline)
            state = seen.text("info.state") if seen is not None else ""
            if seen is None:
                raise Busy(f"vSphere does not know any more what became of {self._doing()}. It is tried again.")
            if state == "success":
                return seen.values.get("info.result")
            if state == "error":
                error = seen.values.get("info.error")
                raise faults.of_task(error) if error is not None else VimFault("MethodFault")
            if give_up_at is not None and time.monotonic() >= give_up_at:
                self.object(vim.Task, task).Cancel()
                give_up_at = None
                self._await_end(task)
                raise TookTooLong
            self.pause()

    def _await_end(self, task: str) -> None:
        until = min(self.deadline, time.monotonic() + CANCEL_S)
        while time.monotonic() < until:
            seen = self.client.object_seen("Task", task, mapping.TASK_PATHS, self.deadline)
            if seen is None or seen.text("info.state") not in ("running", "queued"):
                return
            self.pause()

    def pause(self) -> None:
        """A moment, longer each time, if there is time for one. Raises `Busy`."""
        left = self.deadline - time.monotonic()
        if left <= POLL_S:
            raise Busy(f"Endpoint {self.endpoint} takes its time for {self._doing()}. It is tried again.")
        time.sleep(min(self._pause_s, left / 2))
        self._pause_s = min(SLOWEST_S, 1.5 * self._pause_s)

    def begin(self, step: str) -> None:
        """Raises `Busy` if there is no time for it."""
        self._pause_s = FASTEST_S
        try:
            super().begin(step)
        except OutOfTime:
            raise Busy(f"There was no time left for {self._doing()} at {self.endpoint}. It is tried again.") from None

    def _doing(self) -> str:
        return self.step[:1].lower() + self.step[1:]
