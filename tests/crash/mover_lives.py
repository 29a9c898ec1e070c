"""Mover lives in forked processes, and what ends them: nobody hears of a hint, so rows alone are enough."""

from __future__ import annotations

import os
import signal
import sys
import traceback
from collections.abc import Callable
from threading import Lock

from django.db import connections

from broker.services import moving, nudges
from tests.crash.lives import FAILED


def life(doom: Callable[[], None] | None = None) -> int:
    """Fork a mover that takes all that waits, and return its pid."""
    connections.close_all()
    pid = os.fork()
    if pid:
        return pid
    try:
        nudges._deliver = lambda hints: None
        nudges.taken = lambda task, argument: None
        if doom is not None:
            doom()
        while moving.work():
            pass
    except BaseException:  # noqa: BLE001 - whatever it is, the forked child must never return into pytest
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(FAILED)
    os._exit(0)


def die_at(place: object, name: str, *, after: bool, turn: int = 1) -> None:
    """Of this process, when it passes there for the n-th time."""
    original, turns, guard = getattr(place, name), iter(range(1, 10_000)), Lock()

    def pass_by(*given: object, **named: object) -> object:
        with guard:
            is_mine = next(turns) == turn
        if is_mine and not after:
            os.kill(os.getpid(), signal.SIGKILL)
        result = original(*given, **named)
        if is_mine and after:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    setattr(place, name, pass_by)
