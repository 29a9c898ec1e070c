"""Procedures carried to their end in one call, as movers want it: the steps that orders take in many (see `work`).

A procedure looks at the cluster and begins the one change that comes next; it is called again once that has ended,
until it returns. So it does not matter what an earlier attempt has done, or how far it came.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, TypeVar

from connectors.base import Order, Surroundings
from connectors.errors import Busy, Unreachable
from connectors.hypercore import work as working
from connectors.hypercore.client import OutOfTime, Wire
from connectors.hypercore.faults import Refusal
from connectors.hypercore.settings import HyperCoreSettings
from connectors.hypercore.work import Started, Turn, View, Waiting, Work

T = TypeVar("T")

SETTLE_S = 15.0
"""How long what was asked in vain may still come about: until then nobody believes that nothing is there."""


class Carrier:
    """For one mover: not safe among threads."""

    def __init__(self, settings: HyperCoreSettings, surroundings: Surroundings, wire: Wire) -> None:
        self.settings = settings
        self.surroundings = surroundings
        self.wire = wire
        self._turn = Turn()
        self._unsure_until = 0.0

    @property
    def is_unsure(self) -> bool:
        """A change was asked, its answer was lost, and what came of it may not show yet."""
        return time.monotonic() < self._unsure_until

    def carry_out(self, key: str, deadline: float, procedure: Callable[[Work[Order]], T]) -> T:
        """Its result. Raises what connectors raise; `Busy` if it did not come to its end by the deadline."""
        receipt: dict[str, Any] = {}
        step = "Looking at the cluster"
        while True:
            view = View(self.wire, deadline, self._turn)
            work = Work(
                order=Order(key=key), settings=self.settings, surroundings=self.surroundings, view=view,
                receipt=receipt, step=step,
            )  # fmt: skip
            try:
                work.settle_task()
                return procedure(work)
            except Started:
                step, pause = work.step, working.TASK_S
            except Waiting as waiting:
                step, pause = waiting.step, waiting.poll_after_s
            except OutOfTime:
                raise self._late(step) from None
            except Refusal as refusal:
                raise work.problem(refusal) from None
            except Unreachable:
                self._unsure_until = time.monotonic() + SETTLE_S
                raise
            receipt = work.receipt
            if time.monotonic() + pause >= deadline:
                raise self._late(step)
            time.sleep(pause)

    def _late(self, step: str) -> Busy:
        return Busy(f"{self.settings.endpoint}: not done in time ({step.lower()}). It is tried again.")
