"""Recovery points as data, and as the JSON that is stored."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from disks.errors import Damaged, NotFound


@dataclass(frozen=True, slots=True)
class Nic:
    model: str
    mac: str
    network: str
    """The network's name where the machine stood."""


@dataclass(frozen=True, slots=True)
class Drive:
    """A disk as the machine sees it."""

    name: str
    bus: str
    size: int


@dataclass(frozen=True, slots=True)
class Configuration:
    """What a machine needs beside its disks to stand again on any platform."""

    vcpus: int
    memory_mib: int
    firmware: str
    """"bios" or "uefi"."""
    secure_boot: bool = False
    nics: tuple[Nic, ...] = ()
    disks: tuple[Drive, ...] = ()


@dataclass(frozen=True, slots=True)
class Origin:
    """Whose disks these were. As the caller gave it; nothing here is ever looked up or made a path."""

    machine_id: str
    machine_name: str
    hypervisor_id: str = ""
    hypervisor_name: str = ""


@dataclass(frozen=True, slots=True)
class DiskTree:
    """A disk in the vault: its leaves, of 1,024 chunks each, in order. An empty name is a leaf of zeros."""

    name: str
    size: int
    leaves: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class RecoveryPoint:
    """A whole copy that can be restored. Its id is that of the run that made it."""

    id: str
    installation: str
    """Which installation made it; several may share a vault."""
    source: str
    """Whatever the installation calls what it copies: points of one source follow each other."""
    read_at: datetime
    """When the reading began: the copy is of no later moment."""
    origin: Origin
    configuration: Configuration
    disks: tuple[DiskTree, ...]

    def disk(self, name: str) -> DiskTree:
        """Raises `NotFound`."""
        for disk in self.disks:
            if disk.name == name:
                return disk
        raise NotFound(f"Point {self.id} has no disk {name!r}. Choose one of: {', '.join(d.name for d in self.disks)}.")


def to_json(point: RecoveryPoint, digest: Callable[[bytes], bytes]) -> bytes:
    """With a digest over the whole."""
    told = asdict(point) | {"read_at": point.read_at.isoformat()}
    return _canonical({"point": told, "digest": digest(_canonical(told)).hex()})


def from_json(id: str, stored: bytes, digest: Callable[[bytes], bytes]) -> RecoveryPoint:
    """Raises `Damaged` for anything but what `to_json` wrote under this id."""
    try:
        whole = json.loads(stored)
        told: dict[str, Any] = whole["point"]
        if digest(_canonical(told)).hex() != whole["digest"] or told["id"] != id:
            raise ValueError("digest or id")
        configuration = told["configuration"] | {
            "nics": tuple(Nic(**nic) for nic in told["configuration"]["nics"]),
            "disks": tuple(Drive(**disk) for disk in told["configuration"]["disks"]),
        }
        return RecoveryPoint(
            id=id,
            installation=told["installation"],
            source=told["source"],
            read_at=datetime.fromisoformat(told["read_at"]),
            origin=Origin(**told["origin"]),
            configuration=Configuration(**configuration),
            disks=tuple(DiskTree(d["name"], d["size"], tuple(d["leaves"])) for d in told["disks"]),
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise Damaged(f"Recovery point {id} is damaged and cannot be restored. Delete it.") from error


def _canonical(told: object) -> bytes:
    return json.dumps(told, sort_keys=True, separators=(",", ":")).encode()
