"""Where a worker may die: every point between two durable effects. Used by the crash tests only.

`arm(name, passage, act)` makes this process die (or stop) when it passes that boundary for the n-th time. A marker file
keeps a restarted worker from dying again.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

from broker.services import brokering, inventory, pump, reconcile

Place = tuple[Any, str, str]
"""Module or class, function, "before" or "after"."""

BOUNDARIES: dict[str, Place] = {
    "lease taken": (pump, "take_lease", "after"),
    "predecessor adopted": (pump, "adopt", "after"),
    "marked as sent": (pump, "_choose", "after"),
    "answered, not written": (pump, "_write", "before"),
    "answer written": (pump, "_write", "after"),
    "round over": (pump, "_round", "after"),
    "lease given back": (pump, "let_go", "after"),
    "inventory read, not written": (inventory, "_read", "after"),
    "inventory written": (inventory.Writer, "write", "after"),
    "pool planned, not committed": (reconcile.Work, "tell_waiting", "after"),
    "pool reconciled": (reconcile, "run", "after"),
    "queue served": (brokering, "serve_queue", "after"),
}
"""Name -> place. What happens inside a connector has boundaries of its own; see each connector's tests."""


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def freeze() -> None:
    os.kill(os.getpid(), signal.SIGSTOP)


def arm(name: str, passage: int, marker: Path, act: Callable[[], None] = die) -> None:
    """Act when this process passes the boundary for the n-th time, once for each marker file."""
    place, function_name, when = BOUNDARIES[name]
    original = getattr(place, function_name)
    passed = 0

    def pass_by(result: Any) -> None:
        nonlocal passed
        if not result and function_name == "_choose":
            return  # nothing was marked: not this boundary
        passed += 1
        if passed >= passage and _first(marker):
            act()

    @wraps(original)
    def armed(*args: Any, **kwargs: Any) -> Any:
        if when == "before":
            pass_by(True)
            return original(*args, **kwargs)
        result = original(*args, **kwargs)
        pass_by(result)
        return result

    setattr(place, function_name, armed)


def _first(marker: Path) -> bool:
    try:
        marker.touch(exist_ok=False)
    except FileExistsError:
        return False
    return True
