"""How long a desktop is somebody's, and what happens when that is over. Pure: `now` comes in.

Nobody loses data without having been told: a desktop is reclaimed only when its lease and the grace are over *and* its
user has known of the end for as long as the pool gives notice. Where nothing ran in time, the end waits for the notice.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

LONGEST_H = 24 * 366 * 5
"""Longer leases are none."""


@dataclass(frozen=True, slots=True)
class Terms:
    """What a pool says of leases."""

    lease_h: int | None
    """None: until released."""
    renewals: int
    renewal_h: int | None
    """None: by a whole lease."""
    notice_h: int
    grace_h: int
    reclaims: bool
    """Whether the desktop is taken back in the end; else its pool's owners are told."""


@dataclass(frozen=True, slots=True)
class Lease:
    """Of one assignment."""

    since: datetime
    until: datetime
    renewals: int = 0
    told_at: datetime | None = None
    end_told_at: datetime | None = None


class Step(StrEnum):
    TELL = "tell"
    """The user is told that it will end."""
    END = "end"
    """It is over; the user is told how long the desktop still waits."""
    RECLAIM = "reclaim"
    """The desktop is taken back."""
    ALARM = "alarm"
    """The pool does not take back by itself: its owners are told."""


def lease_until(terms: Terms, now: datetime, asked_h: int | None = None) -> datetime | None:
    """When a lease that begins now ends, on a whole second: whoever reads it in JSON or on a page can say it again.

    Nobody gets more than the pool gives.
    """
    if terms.lease_h is None:
        return None
    return (now + timedelta(hours=min(asked_h or terms.lease_h, terms.lease_h))).replace(microsecond=0)


def warning(lease: Lease, terms: Terms) -> timedelta:
    """How long before the end its user is told: as the pool says, in a short lease when half of it is over."""
    return min(timedelta(hours=terms.notice_h), (lease.until - lease.since) / 2)


def reclaim_at(lease: Lease, terms: Terms) -> datetime | None:
    """When the desktop may be taken back; None while its user has not been told."""
    if lease.told_at is None:
        return None
    return max(lease.until + timedelta(hours=terms.grace_h), lease.told_at + warning(lease, terms))


def step(lease: Lease, terms: Terms, now: datetime) -> Step | None:
    """What is to be done now, if anything."""
    taken_back = reclaim_at(lease, terms)
    if taken_back is None:
        if now >= lease.until:
            return Step.END
        return Step.TELL if now >= lease.until - warning(lease, terms) else None
    if now >= taken_back:
        return Step.RECLAIM if terms.reclaims else Step.ALARM
    return Step.END if lease.end_told_at is None and now >= lease.until else None


def next_at(lease: Lease, terms: Terms) -> datetime:
    """When the next step is due."""
    taken_back = reclaim_at(lease, terms)
    if taken_back is None:
        return lease.until - warning(lease, terms)
    return lease.until if lease.end_told_at is None else taken_back


def renewed(lease: Lease, terms: Terms, now: datetime) -> Lease | None:
    """The lease after one more renewal, of which its user knows nothing bad; None if there is none left.

    One that is over already is counted on from now: its user would not get what the pool gives otherwise.
    """
    length_h = terms.renewal_h or terms.lease_h
    if length_h is None or lease.renewals >= terms.renewals:
        return None
    until = max(lease.until, now).replace(microsecond=0) + timedelta(hours=length_h)
    return Lease(lease.since, until, lease.renewals + 1)


def in_words(hours: int) -> str:
    """ "8 hours", "7 days"."""
    number, unit = (hours // 24, "day") if hours % 24 == 0 else (hours, "hour")
    return f"{number} {unit}{'' if number == 1 else 's'}"


LENGTHS_H = (1, 2, 4, 8, 24, 72, 168, 336, 720, 2160)
"""What a form offers, as far as the pool gives it."""


def lengths(lease_h: int) -> list[int]:
    """What a person may choose, the longest first."""
    return [lease_h, *(hours for hours in reversed(LENGTHS_H) if hours < lease_h)]
