"""Where a worker may die: every point between two durable effects. Used by the crash tests only.

`arm(name)` makes this process die (or stop) when it next passes that boundary.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from threading import Lock
from typing import Any, Literal

from broker.services import brokering, inventory, pump, reconcile


@dataclass(frozen=True)
class Boundary:
    """Just before or just after a function of a module or class."""

    place: Any
    function: str
    side: Literal["before", "after"]
    counts: Callable[[Any], bool] = lambda result: True
    """Whether the function, by its result, has done what the boundary is named after."""


BOUNDARIES: dict[str, Boundary] = {
    "builds planned, not committed": Boundary(reconcile.Work, "_build", "after"),
    "builds planned, pool not settled": Boundary(reconcile.Work, "settle", "before"),
    "lease taken": Boundary(pump, "take_lease", "after", counts=bool),
    "predecessor adopted": Boundary(pump, "adopt", "after"),
    "marked as sent": Boundary(pump, "_choose", "after", counts=bool),
    "answered, not written": Boundary(pump, "_write", "before"),
    "answer written": Boundary(pump, "_write", "after"),
    "round over": Boundary(pump, "_round", "after"),
    "lease given back": Boundary(pump, "let_go", "after"),
    "inventory read, not written": Boundary(inventory, "_read", "after"),
    "inventory written, not committed": Boundary(inventory.Writer, "write", "after"),
    "inventory committed, lease not given back": Boundary(inventory, "_let_go", "before"),
    "inventory lease given back": Boundary(inventory, "_let_go", "after"),
    "pool settled, not committed": Boundary(reconcile.Work, "tell_waiting", "after"),
    "pool settled, queue not served": Boundary(brokering, "serve_queue", "before"),
    "pool reconciled": Boundary(reconcile, "run", "after"),
}
"""In the order in which a build meets them. What happens inside a connector has boundaries of its own; see each
connector's tests."""


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def freeze() -> None:
    os.kill(os.getpid(), signal.SIGSTOP)


def arm(name: str, act: Callable[[], None] = die) -> None:
    """Act when this process next passes the boundary, once."""
    boundary = BOUNDARIES[name]
    original = getattr(boundary.place, boundary.function)
    once = Lock()

    def pass_by() -> None:
        if once.acquire(blocking=False):
            act()

    @wraps(original)
    def armed(*args: Any, **kwargs: Any) -> Any:
        if boundary.side == "before":
            pass_by()
        result = original(*args, **kwargs)
        if boundary.side == "after" and boundary.counts(result):
            pass_by()
        return result

    setattr(boundary.place, boundary.function, armed)
