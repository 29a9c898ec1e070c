"""What a pool's desktops may claim of hosts that are short, and when its orders are sent: the resource class.

A class stands for numbers that go together; a pool may have its own numbers instead. The share goes to the hypervisors
that know such a thing, the priority orders the queues of builds and power-ons everywhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum


class ResourceClass(StrEnum):
    CRITICAL = "critical"
    """Served first, with a part of each host kept free for it."""
    HIGH = "high"
    NORMAL = "normal"
    """As every platform treats a machine of which nothing was said."""
    LOW = "low"
    """Gets what the others leave."""
    OWN = "own"
    """None of these: an administrator gave the numbers."""


@dataclass(frozen=True, slots=True)
class Share:
    """What one machine may claim of its host, for the contract's `ResourceShare`. All but the weight in per cent."""

    weight: int = 100
    cpu_reservation_percent: int = 0
    cpu_limit_percent: int = 100
    memory_reservation_percent: int = 0

    def stored(self) -> str:
        """As a desktop's row keeps the share that its machine was given: "200/0/100/0"."""
        return "/".join(str(number) for number in asdict(self).values())


AS_BUILT = Share()
"""What a machine has that was never given a share; written as the empty string."""
UNKNOWN = "?"
"""Stored where a machine may have lost the share that it was given."""


@dataclass(frozen=True, slots=True)
class Meaning:
    """What a class stands for."""

    priority: int
    """Smaller goes first in every queue."""
    share: Share


MEANINGS: Mapping[ResourceClass, Meaning] = {
    ResourceClass.CRITICAL: Meaning(10, Share(weight=400, cpu_reservation_percent=25, memory_reservation_percent=100)),
    ResourceClass.HIGH: Meaning(30, Share(weight=200)),
    ResourceClass.NORMAL: Meaning(50, AS_BUILT),
    ResourceClass.LOW: Meaning(70, Share(weight=50)),
}

NUMBERS = ("priority", "weight", "cpu_reservation_percent", "cpu_limit_percent", "memory_reservation_percent")
"""What a class decides, as a pool's fields are called."""


def numbers_of(resource_class: ResourceClass) -> dict[str, int]:
    """The numbers of a class, by the names of a pool's fields. There are none for `OWN`: KeyError."""
    meaning = MEANINGS[resource_class]
    return {"priority": meaning.priority, **asdict(meaning.share)}


def fits(applied: str, wanted: Share) -> bool:
    """Whether a machine that was given `applied` (as stored) has what is wanted."""
    return applied == wanted.stored() or (applied == "" and wanted == AS_BUILT)


def fault_of(share: Share) -> str:
    """What contradicts itself, in words; empty if nothing does."""
    if share.cpu_reservation_percent > share.cpu_limit_percent:
        return f"Not more than the CPU limit ({share.cpu_limit_percent} %)."
    return ""


def words(share: Share) -> str:
    """What it means, on one line: "weight 400, 25 % of its vCPUs kept free"."""
    said = [f"weight {share.weight}"]
    if share.cpu_reservation_percent:
        said.append(f"{share.cpu_reservation_percent} % of its vCPUs kept free")
    if share.cpu_limit_percent < 100:
        said.append(f"at most {share.cpu_limit_percent} % of its vCPUs")
    if share.memory_reservation_percent:
        said.append(f"{share.memory_reservation_percent} % of its memory kept")
    return ", ".join(said)
