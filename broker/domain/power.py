"""Which of many desktops a power action is for, and why not the others. One pure answer for people and schedules."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from uuid import UUID

from broker.domain.lifecycle import State
from broker.domain.schedules import Action, Reach, wanted_on

ON, OFF, SUSPENDED = "on", "off", "suspended"
GOING = {
    State.RECYCLING: "being recycled",
    State.RETIRING: "being deleted",
    State.GONE: "deleted",
    State.MISSING: "missing",
}
"""States without a power to switch."""
SCHEDULED = frozenset({State.READY, State.ASSIGNED})
"""What schedules switch: the rest is on its way to something else."""
ALREADY = {
    ("on", ON): "on already",
    ("resume", ON): "on already",
    ("off", OFF): "off already",
    ("shutdown", OFF): "off already",
    ("suspend", SUSPENDED): "suspended already",
    ("suspend", OFF): "switched off",
    ("reboot", OFF): "switched off",
    ("reset", OFF): "switched off",
    ("resume", OFF): "switched off",
}
"""(action, observed power) where there is nothing to do, in words."""
JUST_GIVEN = timedelta(minutes=15)
"""Whoever got a desktop so lately may still be waiting for its screen."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DesktopFacts:
    id: UUID
    name: str
    state: State
    power: str
    has_machine: bool = True
    is_busy: bool = False
    """A change of it is under way."""
    is_in_use: bool = False
    """Somebody looks at its screen."""
    is_in_maintenance: bool = False
    is_moving: bool = False
    """A failover holds it."""
    assigned_since: datetime | None = None
    """None: nobody has it."""


@dataclass(frozen=True, slots=True)
class Selection:
    """Desktops sorted by whether an action is ordered for them."""

    chosen: list[DesktopFacts] = field(default_factory=list)
    skipped: list[tuple[DesktopFacts, str]] = field(default_factory=list)
    """With why, as in "it is off already"."""

    @property
    def in_use(self) -> int:
        return sum(desktop.is_in_use for desktop in self.chosen)

    @property
    def reasons(self) -> str:
        """ "2 off already, 1 missing"; the commonest first, empty if nothing is skipped."""
        counted = Counter(why for _, why in self.skipped)
        return ", ".join(f"{number} {why}" for why, number in sorted(counted.items(), key=lambda c: (-c[1], c[0])))

    def add(self, desktop: DesktopFacts, why_not: str) -> None:
        if why_not:
            self.skipped.append((desktop, why_not))
        else:
            self.chosen.append(desktop)


def select(action: str, desktops: Iterable[DesktopFacts]) -> Selection:
    """What a person's order reaches: all that can be switched, used or not."""
    found = Selection()
    for desktop in desktops:
        found.add(desktop, _why_impossible(action, desktop))
    return found


def select_by_schedule(
    action: Action, reach: Reach, amount: int | None, desktops: Sequence[DesktopFacts], now: datetime
) -> Selection:
    """What a schedule's run reaches.

    Off spares what somebody uses or has just been given. On wants so many on, and those that are on count: desktops
    that are somebody's come first, then by name. Neither touches what is in maintenance or being changed.
    """
    found = Selection()
    mine = sorted((d for d in desktops if d.state in SCHEDULED), key=lambda d: (d.state != State.ASSIGNED, d.name))
    if action == Action.OFF:
        for desktop in mine:
            found.add(desktop, _why_spared(desktop, now) or _why_impossible("shutdown", desktop))
        return found
    short = wanted_on(len(mine), reach, amount) - sum(d.power == ON for d in mine)
    for desktop in mine:
        why_not = "in maintenance" if desktop.is_in_maintenance else _why_impossible("on", desktop)
        if not why_not and len(found.chosen) >= short:
            why_not = "not needed"
        found.add(desktop, why_not)
    return found


def _why_impossible(action: str, desktop: DesktopFacts) -> str:
    if desktop.state in GOING:
        return GOING[desktop.state]
    if desktop.is_moving:
        return "being moved"
    if not desktop.has_machine:
        return "without a machine yet"
    if desktop.is_busy:
        return "busy with another change"
    return ALREADY.get((action, desktop.power), "")


def _why_spared(desktop: DesktopFacts, now: datetime) -> str:
    if desktop.is_in_use:
        return "in use"
    if desktop.is_in_maintenance:
        return "in maintenance"
    if desktop.assigned_since is not None and now - desktop.assigned_since < JUST_GIVEN:
        return "just given to somebody"
    return ""
