"""The push of a template version to a pool: its states, when it must stop, and when those who use a desktop are turned
out. Plain rules; `services/pushes.py` carries out, and `domain/planning` says which free desktops go over now.

    scheduled   it waits for its time
    running     members build from the version; desktops go over, free ones first
    done        no desktop is on another version
    stopped     so many desktops failed in a row that the version is taken to be bad
    cancelled   somebody's word, or another version took its place

One that stopped or was cancelled gives members back what they built from before. Desktops that had gone over by then
stay as they are until they are given back, or until a roll back: a push of the version before.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from broker.domain.labels import Label, Tone


class State(StrEnum):
    SCHEDULED = "scheduled"
    RUNNING = "running"
    DONE = "done"
    STOPPED = "stopped"
    CANCELLED = "cancelled"


OPEN = (State.SCHEDULED, State.RUNNING)
"""Something may still come of it."""
GIVEN_UP = (State.STOPPED, State.CANCELLED)


class Users(StrEnum):
    """How desktops that somebody uses go over."""

    LEAVE = "leave"
    """When they are given back."""
    DEADLINE = "deadline"
    """At a moment, after a notice; until then as above."""


STOPS_AFTER = 3
"""Desktops that fail in a row until a version is taken to be bad."""
NOTICE_LIMIT_MIN = 7 * 24 * 60
LABELS = {
    State.SCHEDULED: Label("Scheduled", Tone.OFF, "clock"),
    State.RUNNING: Label("Going over", Tone.BUSY, "spinner"),
    State.DONE: Label("Done", Tone.GOOD, "check"),
    State.STOPPED: Label("Stopped", Tone.BAD, "warning"),
    State.CANCELLED: Label("Cancelled", Tone.OFF, "cross"),
}


@dataclass(frozen=True, slots=True)
class Tally:
    """Where the desktops of a push stand. Those that are being deleted are not counted."""

    there: int = 0
    """Ready or in use on the version."""
    free: int = 0
    """Nobody's, on another version."""
    in_use: int = 0
    """Somebody's, on another version."""
    on_way: int = 0
    """Being built or rebuilt."""
    failed: int = 0
    aside: int = 0
    """On another version and missing or in maintenance: nothing is done to them."""

    @property
    def total(self) -> int:
        return self.there + self.free + self.in_use + self.on_way + self.failed + self.aside

    @property
    def is_over(self) -> bool:
        """Whether nothing is left that could still go over."""
        return not (self.free or self.in_use or self.on_way)

    @property
    def percent(self) -> int:
        return 100 * self.there // self.total if self.total else 100


def failed_in_a_row(failed_at: Iterable[datetime], good_at: datetime | None) -> int:
    """How many desktops failed on the version since one last became ready on it."""
    return sum(good_at is None or at > good_at for at in failed_at)


def tells_at(deadline_at: datetime, notice_min: int) -> datetime:
    """From when on users are told."""
    return deadline_at - timedelta(minutes=notice_min)


def turns_out_at(deadline_at: datetime, notice_min: int, told_at: datetime) -> datetime:
    """When somebody who was told then is turned out. Nobody has less than the notice, whatever ran late."""
    return max(deadline_at, told_at + timedelta(minutes=notice_min))
