"""So many bytes a second, changeable while somebody waits."""

from __future__ import annotations

import threading
import time

import pytest

from disks.throttle import BURST_S, Throttle


def test_without_a_limit_nobody_waits() -> None:
    began = time.monotonic()
    Throttle().take(1 << 40)
    assert time.monotonic() - began < 1


def test_what_is_taken_is_no_more_than_the_rate() -> None:
    began, throttle = time.monotonic(), Throttle(100_000)
    for _ in range(20):
        throttle.take(2_000)
    assert time.monotonic() - began >= 40_000 / 100_000 - BURST_S


def test_several_share_one_rate() -> None:
    began, throttle = time.monotonic(), Throttle(100_000)
    threads = [threading.Thread(target=throttle.take, args=(20_000,)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert time.monotonic() - began >= 60_000 / 100_000 - BURST_S


def test_a_higher_rate_holds_at_once_for_who_waits() -> None:
    throttle = Throttle(1)
    waiting = threading.Thread(target=throttle.take, args=(1_000_000,))
    waiting.start()
    throttle.bytes_per_s = 1_000_000_000
    waiting.join(30)
    assert not waiting.is_alive()


def test_a_limit_that_is_taken_away_frees_who_waits() -> None:
    throttle = Throttle(1)
    waiting = threading.Thread(target=throttle.take, args=(1_000_000,))
    waiting.start()
    throttle.bytes_per_s = None
    waiting.join(30)
    assert not waiting.is_alive()


def test_who_is_cancelled_stops_waiting() -> None:
    began = time.monotonic()
    Throttle(1).take(1_000_000, lambda: time.monotonic() - began > 0.05)
    assert time.monotonic() - began < 5


def test_a_long_pause_saves_nothing_up() -> None:
    now = 0.0
    throttle = Throttle(1_000, clock=lambda: now)
    now = 3_600.0
    throttle.take(int(1_000 * BURST_S))
    waiting = threading.Thread(target=throttle.take, args=(1,), daemon=True)
    waiting.start()
    waiting.join(0.05)
    assert waiting.is_alive()
    throttle.bytes_per_s = None
    waiting.join()


def test_a_rate_that_is_not_positive_is_none() -> None:
    with pytest.raises(ValueError, match="positive"):
        Throttle(0)
