"""When a machine that a listing does not show is believed to be gone.

An empty or partial listing never means "all gone". Only complete listings count, only those that began after the
machine was last known, and two of them are needed. Many absences at once are not believed at all until an
administrator says so: a storage that is not mounted or an account that lost its rights looks just the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

LISTINGS = 2
"""Complete listings in a row that must have missed a machine."""
MANY = 5
MANY_SHARE = 0.02
"""More than both at once put the hypervisor in doubt."""


@dataclass(frozen=True, slots=True)
class Silence:
    """A known machine that the last complete listings did not show."""

    machine: str
    known_at: datetime
    """When it was last known to stand: the start of the reading that showed it, or when an operation learned it."""
    listings: int
    """Complete listings in a row, begun after `known_at`, that did not show it."""


@dataclass(frozen=True, slots=True)
class Verdict:
    gone: tuple[str, ...]
    """Believed."""
    doubted: tuple[str, ...]
    """Not believed: the hypervisor is in doubt until an administrator confirms or they come back."""
    pending: tuple[str, ...]
    """Not shown once: ask again."""


def is_evidence(*, complete: bool, began_at: datetime, known_at: datetime) -> bool:
    """Whether a listing's silence about a machine says anything."""
    return complete and began_at > known_at


def is_mass(absent: int, total: int) -> bool:
    """Whether so many absences at once, of so many machines known, are not to be believed."""
    return absent > MANY and absent > MANY_SHARE * total


def judge(silences: Sequence[Silence], *, total: int, confirmed_at: datetime | None) -> Verdict:
    """What to believe of one hypervisor's absences.

    `total` counts the machines known there, absent ones included. `confirmed_at` is an administrator's word that what
    was absent then is gone: it covers machines last known before it and no later losses.
    """
    confirmed = {s.machine for s in silences if confirmed_at is not None and s.known_at <= confirmed_at}
    open_ = [s for s in silences if s.machine not in confirmed]
    doubted = {s.machine for s in open_} if is_mass(len(open_), total) else set()
    gone = [s.machine for s in silences if s.machine not in doubted and s.listings >= LISTINGS]
    pending = [s.machine for s in silences if s.machine not in doubted and s.listings < LISTINGS]
    return Verdict(gone=tuple(gone), doubted=tuple(s.machine for s in open_ if doubted), pending=tuple(pending))
