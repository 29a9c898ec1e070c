"""What a world consists of. Plain data: only `lab.world` changes it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class Power(StrEnum):
    ON = "on"
    OFF = "off"
    SUSPENDED = "suspended"
    """Its memory stands on disk; it goes on where it was."""
    PAUSED = "paused"
    """Its memory stays in the host's."""


@dataclass(slots=True)
class Host:
    id: str
    name: str
    vcpus: int
    memory_mib: int
    is_up: bool = True
    marks: dict[str, Any] = field(default_factory=dict)


@dataclass(slots=True)
class Storage:
    id: str
    name: str
    capacity_mib: int
    ballast_mib: int = 0
    """Taken by things that are no machine's."""


@dataclass(slots=True)
class Network:
    id: str
    name: str
    vlan: int = 0
    is_isolated: bool = False


@dataclass(slots=True)
class Disk:
    id: str
    storage: str
    capacity: int
    """In bytes: whole sectors of 512."""
    used_mib: int
    parent: str | None = None
    """The disk of which this one holds only the differences."""
    layers: tuple[str, ...] = ()
    """What it holds but does not write to any more, the lowest first (`lab.contents`); may be shared."""
    top: str = ""
    """Its own layer; empty: the one that bears the disk's id."""

    @property
    def capacity_mib(self) -> int:
        """Rounded up."""
        return -(-self.capacity // 2**20)


@dataclass(slots=True)
class Nic:
    id: str
    network: str
    mac: str
    is_connected: bool = True


@dataclass(slots=True)
class Snapshot:
    id: str
    name: str
    taken_at: float
    parent: str | None
    disks: tuple[str, ...]
    """The disks as they stood: nobody writes to them any more."""
    vcpus: int
    memory_mib: int
    power: Power
    description: str = ""


@dataclass(slots=True)
class Guest:
    """What runs inside. It is there only while the machine is on."""

    boots_s: float
    has_agent: bool = True
    ignores_shutdown: bool = False
    is_up: bool = False
    address: str = ""
    """Has one while it is up."""
    hostname: str = ""
    boots: int = 0
    """How often it has booted: a restart shows."""
    seed: dict[str, str] = field(default_factory=dict)
    """What it was given to prepare itself: hostname, user_data, answer_file, instance."""
    typed: str = ""
    """What was typed on its screen."""


@dataclass(slots=True)
class Machine:
    id: str
    number: int
    name: str
    host: str
    vcpus: int
    memory_mib: int
    power: Power
    guest: Guest
    disks: list[str] = field(default_factory=list)
    nics: list[Nic] = field(default_factory=list)
    snapshots: dict[str, Snapshot] = field(default_factory=dict)
    snapshot: str | None = None
    """The one that its disks hang from now."""
    is_template: bool = False
    folder: str = ""
    """Where it is filed; rights go by it."""
    created_at: float = 0.0
    version: int = 1
    """Grows with every change."""
    tasks: int = 0
    """How many tasks work on it now."""
    marks: dict[str, Any] = field(default_factory=dict)
    """The platform's own fields: notes, tags, extra configuration."""


class TaskState(StrEnum):
    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"


@dataclass(slots=True)
class Task:
    id: str
    kind: str
    subject: str
    """Id of what it works on, or empty."""
    act: Callable[[], Any]
    seconds: float
    queued_at: float
    started_at: float | None = None
    ended_at: float | None = None
    state: TaskState = TaskState.QUEUED
    result: Any = None
    error: Exception | None = None
    marks: dict[str, Any] = field(default_factory=dict)

    def percent(self, now: float) -> int:
        if self.state is TaskState.DONE:
            return 100
        if self.started_at is None or self.seconds <= 0:
            return 0
        return min(99, int(100 * (now - self.started_at) / self.seconds))
