"""What a connector may be beside its contract: a reader of consistent points of machines' disks, a maker of machines
from recovery points, a teller of what its platform replicates by itself, and a driver of that.

Movers call the others, never pumps, on connector objects of their own; inventories ask the teller. A call may last as
long as the platform takes for it, within its deadline (`time.monotonic()`); bytes are read by the `disks.base.Source`
that a point opens, and written to the `disks.base.Sink` that a landing opens, without one.

A point is taken under a key. Whatever becomes of the mover, `release` with the same reference leaves nothing of any
point on the platform but the bookmarks that are to be kept: no snapshot, no job, no scratch file. It is idempotent.

A landing has a key too. The machine bears it as its stamp, like one that an order made, and exists only from `finish`
on; until then `clear` with the key leaves nothing of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Protocol, runtime_checkable

from connectors.base import MachineRef
from connectors.errors import Unsupported
from disks.base import Sink, Source
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
    keep: Sequence[Bookmark] = ()
    """Others that will be wanted later: of copies of the same machine to other places."""


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
    """What a connector has beside `connectors.base.Connector` if machines can be replicated from it.

    One whose platform can do little at once says so by `runs_at_once: ClassVar[int]`: more runs are not begun there. It
    is no member here, since whether a class has the methods could not be asked then.
    """

    def take_point(self, wish: PointWish, deadline: float) -> Point:
        """Raises `NotFound`, `Conflict` (another machine), `Unsupported` (in words: why this machine cannot be
        replicated), `Busy`."""

    def release(self, machine: MachineRef, keep: Sequence[Bookmark], deadline: float) -> None:
        """Remove all our points from the machine, and all bookmarks but `keep`. A machine that is gone is success."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LandingWish:
    """A machine to be made from a recovery point, of whatever platform that was."""

    key: str
    """UUID string, the same one for each attempt: there is one machine of it at most."""
    name: str
    configuration: Configuration
    """As the point has it: buses and models of NICs are the source platform's words."""
    storage: str
    """Platform id of the storage that takes the disks."""
    host: str | None = None
    """None: the platform's choice."""
    networks: tuple[str, ...] = ()
    """Platform ids of networks, one a NIC of the configuration in order; an empty one: that NIC is not connected."""
    booted_on: tuple[str, ...] = ()
    """Disk buses on which this system is known to boot, in the words of `BUSES`."""
    is_template: bool = False
    """What is made is a template, as `Inventory.templates` lists it and `CloneMachine` clones from: linked clones may
    hang from it, so no order of ours deletes it, starts it or changes it."""


def require_landable(configuration: Configuration, networks: Sequence[str]) -> None:
    """Raises `Unsupported` for a point from which no platform could make a machine, or for networks without a card."""
    if not configuration.disks:
        raise Unsupported("The recovery point holds no disk, so there is nothing to bring up. Choose another one.")
    if len(networks) > len(configuration.nics):
        raise Unsupported(
            f"The machine has {len(configuration.nics)} network cards, and {len(networks)} networks were named for "
            "them. Name one for each."
        )


class Landing(Protocol):
    """A machine in the making."""

    @property
    def warnings(self) -> Sequence[str]:
        """What an administrator should know, in sentences: what could not be kept of the configuration."""

    @property
    def is_done(self) -> bool:
        """An earlier attempt got to its end: `finish` tells its machine, no disk need be written."""

    def open(self, disk: str) -> Sink:
        """A new disk, all zeros, of the size that the configuration names. Raises what a sink raises."""

    def finish(self, deadline: float) -> MachineRef:
        """Once all disks are committed: the machine, powered off. Idempotent.

        Of a template the reference has the stamp with which the inventory lists it, which may be none. That it stands
        and something else of the landing cannot be taken away is no failure: `Lands.clear` is asked afterwards.
        """

    def close(self) -> None:
        """Let go of connections."""


@runtime_checkable
class Lands(Protocol):
    """What a connector has beside `connectors.base.Connector` if machines can be brought up on it from points."""

    def land(self, wish: LandingWish, deadline: float) -> Landing:
        """Removes what an unfinished attempt under the key left, and begins anew.

        Raises `NotFound` (storage, host or network), `CapacityExhausted`, `Unsupported` (in words), `Busy`.
        """

    def clear(self, key: str, deadline: float) -> None:
        """Nothing of an unfinished landing stays. A finished machine is left alone: it is deleted by an order.
        Idempotent."""


class MirrorState(StrEnum):
    """How the platform's own replication of a machine fares, as far as the platform says so."""

    HEALTHY = "healthy"
    WARNING = "warning"
    """It goes on, but not as it is set up to."""
    FAILING = "failing"
    """Nothing arrives any more, or what arrives is of no use."""
    INITIAL = "initial"
    """The first copy is not complete: there is nothing to go back to yet."""
    PAUSED = "paused"
    """Somebody has stopped it for now."""
    UNKNOWN = "unknown"
    """It is set up, and the platform does not tell how it fares."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mirror:
    """One replica that the platform keeps of a machine by itself, elsewhere. What a platform does not tell is None."""

    machine: str
    """Platform id of the machine that is replicated, never of the replica."""
    name: str
    """The machine's."""
    to: str
    """Where the replica is kept, in the platform's words: the name of a host, a cluster or a site."""
    state: MirrorState
    newest_at: datetime | None = None
    """When the state was current that the replica holds; None: there is none yet, or the platform does not tell."""
    interval_s: int | None = None
    """How often the platform replicates it."""
    fault: str = ""
    """Why it is not healthy, in a sentence that says what to do; empty if it is."""
    can_fail_over: bool = False
    """There is a whole replica that could be started in the machine's place."""


@dataclass(frozen=True, slots=True)
class MirrorListing:
    """What the platform replicates by itself. A machine may have several mirrors."""

    mirrors: tuple[Mirror, ...]
    partial: str = ""
    """What could not be read, in words; unless it is empty, nothing follows from what is not listed."""


@runtime_checkable
class Mirrors(Protocol):
    """What a connector has beside `connectors.base.Connector` if its platform replicates machines by itself, and tells
    how that fares."""

    def mirrors(self, deadline: float) -> MirrorListing:
        """All machines in few calls, however many they are; none for each machine. Changes nothing.

        Raises `ConnectorError`; `Unsupported` if the platform or the account cannot tell, in words.
        """


@runtime_checkable
class DrivesMirrors(Protocol):
    """What a connector has beside `Mirrors` if a machine can go over to its platform's replica of it, as planned:
    nothing is lost. The replica bears the machine's own id there.

    1. `hand_over` where the machine is, and is off: its last changes have arrived, and it cannot be started any more
    2. `take_over` where the replica is: it is the machine, powered off, and bears its stamp
    3. `reverse` there, once it is to stay: it replicates back to where it was

    `take_back` at either end undoes 1 or 2, until 3. Two connector objects are at work, of two endpoints: whoever calls
    keeps the order, above all never 2 before 1. Movers call them, never pumps. All are idempotent, last as long as the
    platform takes within the deadline, and raise `NotFound`, `Conflict` (its stamp differs, or it stands elsewhere in
    this order), `Unsupported` (in words), `Busy`.
    """

    def hand_over(self, machine: MachineRef, deadline: float) -> None: ...

    def take_over(self, machine: MachineRef, deadline: float) -> None: ...

    def reverse(self, machine: MachineRef, deadline: float) -> None: ...

    def take_back(self, machine: MachineRef, deadline: float) -> None:
        """Also switches off what was started of a replica. Nothing to undo, or no such machine, is success."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RefreshWish:
    """A machine that a landing made is to become what a later recovery point holds."""

    machine: MachineRef
    key: str
    """UUID string, another one for each attempt."""
    configuration: Configuration
    """Of the later point. Its disks are those of the landing, in order; they may have grown."""
    mark: Bookmark
    """What `Refreshes.mark` told when we wrote on it last."""


class Refreshing(Protocol):
    """A machine on its way to a later point."""

    def open(self, disk: str) -> Sink:
        """What is never named stays as the machine has it. Raises `NotFound`, and what a sink raises."""

    def finish(self, deadline: float) -> None:
        """Once all disks are committed: the machine is what the later point holds. Until then it is what it was.

        Raises `Conflict`, `Busy`: what it holds then only its mark tells.
        """

    def close(self) -> None:
        """Let go of connections."""


@runtime_checkable
class Refreshes(Protocol):
    """What a connector has beside `Lands` if a machine can be brought to a later point by what differs alone."""

    def mark(self, machine: MachineRef, deadline: float) -> Bookmark:
        """By which it is known later whether anybody has written on its disks. Raises `NotFound`, `Conflict`."""

    def refresh(self, wish: RefreshWish, deadline: float) -> Refreshing:
        """What dead attempts left on the machine is removed.

        Raises `NotFound`, `Conflict` (it runs, is not ours, or somebody has written on it since the mark),
        `Unsupported` (in words: why it has to be brought up anew), `Busy`.
        """


BUSES = ("virtio", "scsi", "sata", "ide", "nvme")
"""Neutral words for what a disk hangs on: paravirtual block, SCSI, SATA, IDE, NVMe."""
SAFE_BUSES = ("sata", "ide")
"""What every system boots on, slow as they are."""


_BUS_WORDS = (
    ("virtioscsi", "scsi"),
    ("virtio", "virtio"),
    ("pci", "virtio"),  # Nutanix calls its paravirtual block disks so
    ("nvme", "nvme"),
    ("sata", "sata"),
    ("ahci", "sata"),
    ("ide", "ide"),
    ("scsi", "scsi"),
    ("lsi", "scsi"),  # LSI Logic, parallel and SAS
    ("buslogic", "scsi"),
)
"""What makers' words begin with, or, for SCSI alone, hold. The first that fits counts."""


def neutral_bus(word: str) -> str:
    """A platform's word for what a disk hangs on ("pvscsi", "IDE_DISK", "VIRTIO_DISK", "PCI") as one of `BUSES`; ""
    for one that is not known."""
    plain = "".join(letter for letter in word.lower() if letter.isalnum())
    for begins, bus in _BUS_WORDS:
        if plain.startswith(begins) or (begins == "scsi" and "scsi" in plain):
            return bus
    return ""


def choose_bus(offered: Sequence[str], was: str, booted_on: Sequence[str]) -> tuple[str, str]:
    """The bus for the disks of a landed machine, and a warning in words or nothing.

    `offered` are the platform's, best first; `was` is where the source had the disks, which counts as booted.
    """
    for bus in (was, *booted_on):
        if bus in offered:
            return bus, ""
    safe = next((bus for bus in SAFE_BUSES if bus in offered), offered[-1])
    return safe, (
        f"The disks hang on {safe.upper()}: this system is not known to boot on {offered[0]} here. Once it runs, add "
        f"its drivers and move the disks to be faster."
    )
