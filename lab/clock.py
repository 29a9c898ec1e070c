"""Virtual time. It drives guests and tasks; deadlines of real connections never ask it."""

from __future__ import annotations

import threading
import time


class Clock:
    """Seconds since the world began: real time, `speed` times as fast, plus what was skipped. Safe among threads."""

    def __init__(self, speed: float = 1.0) -> None:
        self._guard = threading.Lock()
        self._speed = speed
        self._reached = 0.0
        self._at = time.monotonic()

    def now(self) -> float:
        with self._guard:
            return self._reached + (time.monotonic() - self._at) * self._speed

    def advance(self, seconds: float) -> None:
        """Skip ahead. Raises ValueError for a step back."""
        if seconds < 0:
            raise ValueError("time goes forward")
        with self._guard:
            self._reached += seconds

    @property
    def speed(self) -> float:
        return self._speed

    @speed.setter
    def speed(self, speed: float) -> None:
        """0 stands still: only `advance` moves it."""
        with self._guard:
            now = time.monotonic()
            self._reached += (now - self._at) * self._speed
            self._at, self._speed = now, speed
