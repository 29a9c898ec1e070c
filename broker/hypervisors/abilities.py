"""What kinds of hypervisors can do beside the contract: be replicated from, be landed on, tell what they replicate by
themselves, and fail over to it. Opens nothing."""

from __future__ import annotations

from functools import cache

from connectors.registry import UnknownKind, load
from connectors.replication import DrivesMirrors, Lands, Mirrors, Refreshes, Replicates

RUNS_AT_ONCE = 8
"""Runs that movers carry out at once on one hypervisor, unless its connector says otherwise: half of a mover's, so that
one platform that is slow or full of work keeps none of the others waiting."""


@cache
def can_replicate(kind: str) -> bool:
    """Whether points of its machines can be taken. False for a kind that is not installed here."""
    return _is_a(kind, Replicates)


@cache
def can_land(kind: str) -> bool:
    """Whether machines can be brought up on it from recovery points. False for a kind that is not installed here."""
    return _is_a(kind, Lands)


@cache
def can_mirror(kind: str) -> bool:
    """Whether it tells what its platform replicates by itself. False for a kind that is not installed here."""
    return _is_a(kind, Mirrors)


@cache
def can_drive_mirrors(kind: str) -> bool:
    """Whether machines can go over to the replicas that its platform keeps. False for one that is not installed."""
    return _is_a(kind, DrivesMirrors)


@cache
def runs_at_once(kind: str) -> int:
    """How many runs movers may carry out at once on a hypervisor of this kind."""
    try:
        return int(getattr(load(kind), "runs_at_once", RUNS_AT_ONCE))
    except (UnknownKind, ImportError):
        return RUNS_AT_ONCE


@cache
def can_refresh(kind: str) -> bool:
    """Whether machines there can be brought to a later point by what changed. False for one that is not installed."""
    return _is_a(kind, Refreshes)


def _is_a(kind: str, ability: type[object]) -> bool:
    try:
        return issubclass(load(kind), ability)
    except (UnknownKind, ImportError):
        return False
