"""How much may be in flight at a hypervisor that asked to be left in peace.

Each time it answers that it is busy the budgets are halved, never under 1. When it has not said so again for a while
they come back, one doubling at a time.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

RECOVERY = timedelta(seconds=60)
"""Between two doublings on the way back."""
SETTLING = timedelta(seconds=10)
"""What was in flight before a halving may still be turned away within this; it does not halve again."""
MOST = 10
"""Halvings; a budget of 1000 is 1 by then."""


@dataclass(frozen=True, slots=True)
class Slowdown:
    """How far the budgets are lowered, as it was when `since`."""

    halvings: int = 0
    since: datetime | None = None

    def at(self, now: datetime) -> Slowdown:
        """As it is by now: every `RECOVERY` takes one halving back."""
        if self.since is None or self.halvings <= 0:
            return Slowdown()
        back = max(0, (now - self.since) // RECOVERY)
        if back >= self.halvings:
            return Slowdown()
        return Slowdown(self.halvings - back, self.since + back * RECOVERY)

    def after_busy(self, now: datetime) -> Slowdown:
        """As it is once the hypervisor has said that it is busy."""
        present = self.at(now)
        if present.since is not None and self.since is not None and now - self.since < SETTLING:
            return present
        return Slowdown(min(present.halvings + 1, MOST), now)

    def recovered_at(self) -> datetime | None:
        """When the whole budgets hold again, if nothing happens; None if they do."""
        return self.since + self.halvings * RECOVERY if self.since and self.halvings else None


def effective(budget: int, slowdown: Slowdown, now: datetime) -> int:
    """How much of a budget holds now: never under 1, unless the budget itself is."""
    return max(min(budget, 1), budget >> slowdown.at(now).halvings)
