"""What a connector may be beside its contract: a reader of consistent points of machines' disks.

Movers call this, never pumps, on connector objects of their own. A call may last as long as the platform takes for it,
within its deadline (`time.monotonic()`); bytes are read by the `disks.base.Source` that a point opens, without one.

A point is taken under a key. Whatever becomes of the mover, `release` with the same reference leaves nothing of any
point on the platform but the bookmark that is to be kept: no snapshot, no job, no scratch file. It is idempotent.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Protocol, runtime_checkable

from connectors.base import MachineRef
from disks.base import Source
from disks.vault.points import Configuration


class Consistency(StrEnum):
    """What a guest that starts from the point finds."""

    GUEST = "guest"
    """Its file systems were frozen for the moment of the point."""
    CRASH = "crash"
    """As after a power cut."""
    OFF = "off"
    """The machine was off: nothing was being written."""


@dataclass(frozen=True, slots=True)
class Bookmark:
    """What the platform needs to tell what has changed since a point: small JSON, the connector's own."""

    data: Mapping[str, object]


@dataclass(frozen=True, slots=True, kw_only=True)
class PointWish:
    machine: MachineRef
    key: str
    """UUID string, another one for each attempt."""
    disks: Sequence[str] = ()
    """Names; empty: all. A disk that the machine does not have is `NotFound`."""
    since: Bookmark | None = None
    """Of the point from which only what changed is wanted."""


class Point(Protocol):
    """A machine's disks as they are at one moment."""

    @property
    def name(self) -> str:
        """The machine's, now."""

    @property
    def configuration(self) -> Configuration:
        """With the wished disks only."""

    @property
    def taken_at(self) -> datetime: ...

    @property
    def consistency(self) -> Consistency: ...

    @property
    def bookmark(self) -> Bookmark | None:
        """What to give as `since` the next time, once this point is committed; None: always everything is read."""

    @property
    def whole(self) -> str:
        """Why all areas that hold data are named and not only those that changed, in words; empty if only these are."""

    def open(self, disk: str) -> Source:
        """The disk at the point. Its extents are what has changed since the wished bookmark, else what holds data."""

    def close(self) -> None:
        """Let go of connections; the point stays until it is released."""


@runtime_checkable
class Replicates(Protocol):
    """What a connector has beside `connectors.base.Connector` if machines can be replicated from it."""

    def take_point(self, wish: PointWish, deadline: float) -> Point:
        """Raises `NotFound`, `Conflict` (another machine), `Unsupported` (in words: why this machine cannot be
        replicated), `Busy`."""

    def release(self, machine: MachineRef, keep: Bookmark | None, deadline: float) -> None:
        """Remove all our points from the machine, and all bookmarks but `keep`. A machine that is gone is success."""
