"""What administrators do to many desktops at once, besides switching them, and which of them it is not for."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum

from broker.domain.lifecycle import Event, State, sources
from broker.domain.power import GOING, DesktopFacts, Selection


class Change(StrEnum):
    MAINTAIN = "maintain"
    """Take out of service: neither given out nor retired."""
    SERVE = "serve"
    """Put back into service."""
    RECYCLE = "recycle"
    """A fresh disk for what is nobody's."""
    RETIRE = "retire"
    """Delete with machine and disks."""


CHANGES = frozenset(change.value for change in Change)


def select(change: Change, desktops: Iterable[DesktopFacts]) -> Selection:
    found = Selection()
    for desktop in desktops:
        found.add(desktop, _why_not(change, desktop))
    return found


def _why_not(change: Change, desktop: DesktopFacts) -> str:
    if desktop.is_moving:
        return "being moved"
    if change in (Change.MAINTAIN, Change.SERVE):
        if desktop.state in (State.GONE, State.RETIRING):
            return GOING[desktop.state]
        is_wanted = change is Change.MAINTAIN
        if desktop.is_in_maintenance == is_wanted:
            return "in maintenance already" if is_wanted else "in service already"
        return ""
    if desktop.assigned_since is not None or desktop.state == State.ASSIGNED:
        return "assigned to somebody"
    if change is Change.RECYCLE:
        if not desktop.has_machine:
            return "without a machine yet"
        return "" if desktop.state in sources(Event.RETRIED) else GOING.get(desktop.state, "on its way")
    return "" if desktop.state in sources(Event.RETIRED) - {State.RETIRING} else GOING.get(desktop.state, "on its way")
