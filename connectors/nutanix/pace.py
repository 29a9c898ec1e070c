"""How fast Prism Central may be asked: so many calls in any second, for all routes together and for each of its own.

Limits seen on pc.2024.3.1.1 (headers `X-Ratelimit-Limit`, `X-Api-Ratelimit-Limit` with
`X-Api-Ratelimit-Refresh-Period-Seconds`): 30 a second for the smallest Prism Central, 2 for listing VMs, 10 for a VM,
clusters, hosts and storage containers. What the server tells replaces what is written here.

The limits are the server's, whoever asks. Connector objects of one process share a pace; what other processes and other
programs take shows in `X-Ratelimit-Remaining`, for all routes together. For a route of its own only a refusal tells.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Mapping
from weakref import WeakValueDictionary

EVERYTHING = "*"
RATES: Mapping[str, float] = {EVERYTHING: 30, "GET vmm/ahv/config/vms": 2}
USUAL = 10.0
"""A route's limit until the server tells it."""
WINDOW_S = 1.05
"""A second, and a little for clocks and ways of different length."""
LONGEST_S = 300.0
"""A longer time is not believed: `X-Ratelimit-Reset` is a moment instead of a span on other gateways."""
PAUSE_S = 1.0
"""How long to stay away where a refusal does not say it."""
LONG_S = 10.0
"""A route that was only refused for so long is busy: it is no matter of taking turns any more."""


class Pace:
    """Safe among threads."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._rates: dict[str, float] = dict(RATES)
        self._taken: dict[str, deque[float]] = {}
        self._away_until: dict[str, float] = {}
        self._refused: dict[str, tuple[float, float]] = {}
        """Route -> since when it is refused, and until when it is left alone for that."""

    def take(self, route: str) -> float:
        """0.0 if the call may be made now (it counts then), else how many seconds too early it is."""
        with self._guard:
            now = time.monotonic()
            wait = max(self._wait(EVERYTHING, now), self._wait(route, now))
            if wait <= 0:
                for name in (EVERYTHING, route):
                    self._recent(name, now).append(now)
            return max(0.0, wait)

    def learn(self, route: str, headers: Mapping[str, str]) -> None:
        """What the server says of its limits, and of what is left of them."""
        period = _number(headers.get("X-Api-Ratelimit-Refresh-Period-Seconds")) or 1.0
        for name, told, seconds in (
            (EVERYTHING, headers.get("X-Ratelimit-Limit"), 1.0),
            (route, headers.get("X-Api-Ratelimit-Limit"), period),
        ):
            limit = _number(told)
            if limit and limit / seconds >= 1:
                with self._guard:
                    self._rates[name] = limit / seconds
        limit, left = _number(headers.get("X-Ratelimit-Limit")), _number(headers.get("X-Ratelimit-Remaining"))
        if limit and left is not None:
            with self._guard:
                self._count_others(int(limit - max(0.0, left)), time.monotonic())
                if left <= 0:
                    self._stay_away(EVERYTHING, _span(headers.get("X-Ratelimit-Reset")) or 0.0)

    def answered(self, route: str) -> None:
        """The route was not refused for haste."""
        with self._guard:
            self._refused.pop(route, None)

    def refused(self, route: str, headers: Mapping[str, str]) -> float:
        """The server says that its limit is hit: the route is left alone as long as it asks for. For how long it has
        said nothing else, in seconds."""
        away_s = retry_after_s(headers) or PAUSE_S
        with self._guard:
            now = time.monotonic()
            since, until = self._refused.get(route, (now, now))
            if now > until + LONG_S:  # nobody asked meanwhile: nothing is known of that time
                since = now
            self._refused[route] = (since, now + away_s)
            self._away_until[route] = max(now + away_s, self._away_until.get(route, 0.0))
            return now - since

    def _count_others(self, taken: int, now: float) -> None:
        """What the server counts beyond our own calls was taken by others, and is as good as taken by us."""
        recent = self._recent(EVERYTHING, now)
        recent.extend([now] * (taken - len(recent)))

    def _stay_away(self, name: str, seconds: float) -> None:
        """Within a second the calls that were counted tell better when there is room again."""
        if seconds > 1.0:
            self._away_until[name] = max(time.monotonic() + seconds, self._away_until.get(name, 0.0))

    def _wait(self, name: str, now: float) -> float:
        recent, room = self._recent(name, now), int(self._rates.get(name, USUAL))
        full = recent[-room] + WINDOW_S - now if len(recent) >= room else 0.0
        return max(full, self._away_until.get(name, 0.0) - now)

    def _recent(self, name: str, now: float) -> deque[float]:
        taken = self._taken.setdefault(name, deque())
        while taken and taken[0] <= now - WINDOW_S:
            taken.popleft()
        return taken


_shared: WeakValueDictionary[tuple[str, int, str], Pace] = WeakValueDictionary()
_shared_guard = threading.Lock()


def shared(address: str, port: int, account: str) -> Pace:
    """The one pace of all who ask this endpoint as this account from this process; it goes with the last of them."""
    with _shared_guard:
        name = (address.lower(), port, account)
        pace = _shared.get(name)
        if pace is None:
            pace = _shared[name] = Pace()
        return pace


def retry_after_s(headers: Mapping[str, str]) -> float | None:
    """How long the server asks to stay away, in seconds; None if it does not say."""
    told = _number(headers.get("Retry-After"))
    if told is not None:
        return min(max(told, 0.1), LONGEST_S)
    return _span(headers.get("X-Ratelimit-Reset"))


def tells_limits(headers: Mapping[str, str]) -> bool:
    """Whether it was Prism's own gateway that counted, and not somebody on the way."""
    return any(name in headers for name in ("X-Ratelimit-Limit", "X-Ratelimit-Reset", "X-Api-Ratelimit-Limit"))


def _span(text: str | None) -> float | None:
    told = _number(text)
    return max(told, 0.1) if told is not None and told <= LONGEST_S else None


def _number(text: str | None) -> float | None:
    try:
        return float(text) if text else None
    except ValueError:
        return None
