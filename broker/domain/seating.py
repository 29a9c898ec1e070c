"""Seats on session hosts: who sits where, and which hosts are needed. Pure.

A session host takes several users at once. Whoever comes gets a seat where the smallest part of the seats is taken, so
that all hosts fill evenly; where fewer hosts would do, the emptiest ones take nobody new and empty by themselves.
Nobody is moved, and nobody is thrown off.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

SEATS_LIMIT = 200
"""More people than this are not put on one machine."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HostFacts:
    """A session host that may take somebody, if it has a free seat."""

    id: str
    taken: frozenset[int] = frozenset()
    """The numbers of the seats that are taken."""
    load_percent: int | None = None
    """How much of the hypervisor's host below it is used, of CPU or memory, whichever is more; None: not known."""
    created_at: datetime
    is_current: bool = True
    """Whether it stands on the template version that its pool builds from."""
    is_answering: bool = True
    """Its guest answers at this moment; else it is switched off and is started."""


@dataclass(frozen=True, slots=True)
class Seat:
    """Where somebody sits, and why there."""

    host: str
    number: int
    """From 1."""
    reason: str


def choose(hosts: Iterable[HostFacts], seats: int) -> Seat | None:
    """The seat that the next user gets; None if all are taken.

    First where the guest answers and the template version is the pool's, then where the smallest part of the seats is
    taken, then where the host below is least used, then the oldest.
    """
    free = [host for host in hosts if len(host.taken) < seats]
    if not free:
        return None
    first = min(free, key=_order)
    # Where a pool had more seats before, some may bear greater numbers: fewer than `seats` are taken, so one is free.
    number = next(n for n in range(1, seats + 1) if n not in first.taken)
    return Seat(first.id, number, _why(first, free, seats))


def _order(host: HostFacts) -> tuple[bool, bool, int, int, datetime, str]:
    return (not host.is_answering, not host.is_current, len(host.taken), _load(host), host.created_at, host.id)


def _why(chosen: HostFacts, free: Sequence[HostFacts], seats: int) -> str:
    """In words, as in "5 of 8 seats were taken, fewer than on any other session host with a free one."."""
    taken = f"{len(chosen.taken)} of {seats} seats were taken"
    others = [host for host in free if host.id != chosen.id]
    if not others:
        return f"{taken}; no other session host has a free one."
    if not chosen.is_answering:
        return f"{taken}; no session host with a free one answers, so this one is started."
    rivals = [host for host in others if (host.is_answering, host.is_current) == (True, chosen.is_current)]
    if not rivals:
        return f"{taken}; it alone answers and has the pool's template version."
    fewest = min(len(host.taken) for host in rivals)
    if len(chosen.taken) < fewest:
        return f"{taken}, fewer than on any other session host with a free one."
    equal = [host for host in rivals if len(host.taken) == len(chosen.taken)]
    if chosen.load_percent is not None and all(_load(host) > chosen.load_percent for host in equal):
        return f"{taken}, as on others; its host is the least used, with {chosen.load_percent} %."
    return f"{taken}, as on others; it is the oldest of them."


def _load(host: HostFacts) -> int:
    """What is not known of a host below is not taken for idle."""
    return 100 if host.load_percent is None else host.load_percent


def hosts_for(people: int, seats: int) -> int:
    """How many session hosts so many people need."""
    return -(-people // seats)


def full_words(hosts: int, taken: int, seats: int) -> str:
    """Why somebody waits."""
    if not hosts:
        return "No session host is ready."
    if taken < hosts * seats:
        return f"{taken} of {hosts * seats} seats are taken."
    which = "The only session host is full" if hosts == 1 else f"All {hosts} session hosts are full"
    return f"{which}: {taken} of {hosts * seats} seats."
