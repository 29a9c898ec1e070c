"""How fast Prism Central may be asked: so many calls in any second, for all routes together and for each of its own.

Limits seen on pc.2024.3.1.1 (headers `X-Ratelimit-Limit`, `X-Api-Ratelimit-Limit` with
`X-Api-Ratelimit-Refresh-Period-Seconds`): 30 a second for the smallest Prism Central, 2 for listing VMs, 10 for a VM,
clusters, hosts and storage containers. What the server tells replaces what is written here.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Mapping

EVERYTHING = "*"
RATES: Mapping[str, float] = {EVERYTHING: 30, "GET vmm/ahv/config/vms": 2}
USUAL = 10.0
"""A route's limit until the server tells it."""
WINDOW_S = 1.05
"""A second, and a little for clocks and ways of different length."""


class Pace:
    """Safe among threads."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._rates: dict[str, float] = dict(RATES)
        self._taken: dict[str, deque[float]] = {}

    def take(self, route: str) -> float:
        """0.0 if the call may be made now (it counts then), else how many seconds too early it is."""
        with self._guard:
            now = time.monotonic()
            wait = max(self._wait(EVERYTHING, now), self._wait(route, now))
            if wait <= 0:
                for name in (EVERYTHING, route):
                    self._taken[name].append(now)
            return max(0.0, wait)

    def learn(self, route: str, headers: Mapping[str, str]) -> None:
        """What the server says of its limits."""
        period = _number(headers.get("X-Api-Ratelimit-Refresh-Period-Seconds")) or 1.0
        for name, told, seconds in (
            (EVERYTHING, headers.get("X-Ratelimit-Limit"), 1.0),
            (route, headers.get("X-Api-Ratelimit-Limit"), period),
        ):
            limit = _number(told)
            if limit and limit / seconds >= 1:
                with self._guard:
                    self._rates[name] = limit / seconds

    def _wait(self, name: str, now: float) -> float:
        taken = self._taken.setdefault(name, deque())
        while taken and taken[0] <= now - WINDOW_S:
            taken.popleft()
        room = int(self._rates.get(name, USUAL))
        return taken[-room] + WINDOW_S - now if len(taken) >= room else 0.0


def retry_after_s(headers: Mapping[str, str]) -> float | None:
    """How long the server asks to stay away, in seconds; None if it does not say."""
    for name in ("Retry-After", "X-Ratelimit-Reset"):
        told = _number(headers.get(name))
        if told is not None:
            return min(max(told, 0.1), 300.0)
    return None


def _number(text: str | None) -> float | None:
    try:
        return float(text) if text else None
    except ValueError:
        return None
