"""What kinds of hypervisors can do beside the contract: be replicated from, and be landed on. Opens nothing."""

from __future__ import annotations

from functools import cache

from connectors.registry import UnknownKind, load
from connectors.replication import Lands, Replicates


@cache
def can_replicate(kind: str) -> bool:
    """Whether points of its machines can be taken. False for a kind that is not installed here."""
    return _is_a(kind, Replicates)


@cache
def can_land(kind: str) -> bool:
    """Whether machines can be brought up on it from recovery points. False for a kind that is not installed here."""
    return _is_a(kind, Lands)


def _is_a(kind: str, ability: type[object]) -> bool:
    try:
        return issubclass(load(kind), ability)
    except (UnknownKind, ImportError):
        return False
