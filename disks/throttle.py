"""So many bytes a second and no more, for one copy or for several that share it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

LOOK_S = 0.2
"""How long a wait lasts before cancellation is looked for again."""
BURST_S = 0.25
"""What was not used is kept for so long only: after a pause the line is not flooded."""


class Throttle:
    """Who takes more than there is goes into debt and waits until it is paid. Safe among threads."""

    def __init__(self, bytes_per_s: int | None = None, *, clock: Callable[[], float] = time.monotonic) -> None:
        """None is no limit. Raises ValueError for a rate that is not positive."""
        self._clock = clock
        self._changed = threading.Condition()
        self._left = 0.0
        self._at = clock()
        self._rate: int | None = None
        self.bytes_per_s = bytes_per_s

    @property
    def bytes_per_s(self) -> int | None:
        return self._rate

    @bytes_per_s.setter
    def bytes_per_s(self, rate: int | None) -> None:
        """Holds at once, also for those who wait."""
        if rate is not None and rate <= 0:
            raise ValueError("a rate is a positive number of bytes a second, or None")
        with self._changed:
            self._earn()
            self._rate = rate
            self._changed.notify_all()

    def take(self, amount: int, is_cancelled: Callable[[], bool] = lambda: False) -> None:
        """Returns when so many bytes may go, or early when cancelled."""
        with self._changed:
            self._earn()
            self._left -= amount
            while self._rate is not None and self._left < 0 and not is_cancelled():
                self._changed.wait(min(-self._left / self._rate, LOOK_S))
                self._earn()

    def _earn(self) -> None:
        now = self._clock()
        if self._rate is None:
            self._left = 0.0
        else:
            self._left = min(self._left + (now - self._at) * self._rate, self._rate * BURST_S)
        self._at = now
