"""What orders that are under way at the same time know together."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import pytest

from connectors.esxi.work import OutOfTime, Together

ASKED = 12


def order(deadline: float) -> Any:
    return SimpleNamespace(deadline=deadline, step="Looking", begin=lambda step: None)


def test_those_who_come_while_a_reading_goes_on_share_the_next_one() -> None:
    """An earlier reading would not show what they have done since."""
    together: Together[str] = Together()
    state, readings = ["before"], []
    here = threading.Barrier(ASKED)

    def read() -> dict[str, str]:
        readings.append(state[0])
        seen = state[0]
        time.sleep(0.3)
        return {"machine": seen}

    def ask(_: int) -> str | None:
        here.wait()
        return together.find("machine", time.monotonic(), order(time.monotonic() + 10), read)

    with ThreadPoolExecutor(ASKED) as crew:
        assert set(crew.map(ask, range(ASKED))) == {"before"}
    assert len(readings) <= 2
    state[0] = "after"
    assert together.find("machine", time.monotonic(), order(time.monotonic() + 10), read) == "after"


def test_a_reading_that_serves_still_is_not_repeated_and_a_failed_one_is() -> None:
    together: Together[str] = Together()
    since, tries = time.monotonic(), iter((1, 2))

    def read() -> dict[str, str]:
        if next(tries) == 1:
            raise OSError("broken")
        return {"a": "1"}

    with pytest.raises(OSError, match="broken"):
        together.find("a", since, order(since + 10), read)
    assert together.find("a", since, order(since + 10), read) == "1"
    assert together.find("b", since, order(since + 10), read) is None


def test_nobody_waits_beyond_the_deadline_for_anothers_reading() -> None:
    together: Together[str] = Together()
    is_reading, goes_on = threading.Event(), threading.Event()

    def read() -> dict[str, str]:
        is_reading.set()
        goes_on.wait(30)
        return {}

    now = time.monotonic()
    with ThreadPoolExecutor(1) as crew:
        other = crew.submit(together.find, "a", now, order(now + 20), read)
        is_reading.wait(30)
        with pytest.raises(OutOfTime):
            together.find("a", now, order(time.monotonic() + 0.05), read)
        goes_on.set()
        assert other.result() is None
