"""Reading a point back: every chunk and leaf, compared with its name."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from enum import StrEnum

from disks.ahead import ahead
from disks.base import Extent
from disks.errors import Cancelled, Damaged, NotFound, SinkRefused
from disks.vault.objects import CHUNKS, LEAF_CHUNKS, LEAVES, Objects
from disks.vault.points import DiskTree, RecoveryPoint

THREADS = 2
WINDOW = 6


class Fault(StrEnum):
    MISSING = "missing"
    BROKEN = "broken"
    """There, and not what was stored."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What of a disk cannot be restored."""

    disk: str
    extent: Extent
    name: str
    """Of the chunk, or of the leaf if `extent` is longer than a chunk."""
    fault: Fault


@dataclass(frozen=True, slots=True)
class Verdict:
    findings: tuple[Finding, ...]
    is_noted: bool
    """Whether the next run will read the damaged areas anew. False if the vault is read-only."""

    @property
    def is_good(self) -> bool:
        return not self.findings


def verify(
    objects: Objects,
    point: RecoveryPoint,
    progress: Callable[[int, int], None],
    is_cancelled: Callable[[], bool],
) -> Verdict:
    """Reads all of the point. Damage is reported and noted in the vault; notes about what is good again go."""
    findings: list[Finding] = []
    noted, is_noted = objects.broken(), True
    total, done = sum(disk.size for disk in point.disks), 0
    for disk in point.disks:
        with closing(ahead(_check(objects), _listed(objects, disk), threads=THREADS, window=WINDOW)) as results:
            for (kind, name, extent), fault in results:
                if is_cancelled():
                    raise Cancelled(f"The verification of point {point.id} was stopped before its end.")
                if fault:
                    findings.append(Finding(disk.name, extent, name, fault))
                    is_noted = _note(objects, name) and is_noted
                elif name in noted:
                    objects.note_healed(name)
                    noted.discard(name)
                if kind == CHUNKS:
                    progress(done + extent.end, total)
        done += disk.size
        progress(done, total)
    return Verdict(tuple(findings), is_noted)


Item = tuple[str, str, Extent]
"""Kind, name, where on the disk."""


def _listed(objects: Objects, disk: DiskTree) -> Iterator[Item]:
    """Each leaf, and after it its chunks if it can be read."""
    chunk = objects.chunk_size
    for number, leaf in enumerate(disk.leaves):
        if not leaf:
            continue
        start = number * LEAF_CHUNKS * chunk
        yield LEAVES, leaf, Extent(start, min(LEAF_CHUNKS * chunk, disk.size - start))
        try:
            names = objects.chunk_names(leaf)
        except (Damaged, NotFound):
            continue  # found by the check of the leaf itself
        for place, name in enumerate(names):
            if name:
                at = start + place * chunk
                yield CHUNKS, name, Extent(at, min(chunk, disk.size - at))


def _check(objects: Objects) -> Callable[[Item], Fault | None]:
    def check(item: Item) -> Fault | None:
        kind, name, _ = item
        try:
            objects.read(kind, name)
        except NotFound:
            return Fault.MISSING
        except Damaged:
            return Fault.BROKEN
        return None

    return check


def _note(objects: Objects, name: str) -> bool:
    try:
        objects.note_broken(name)
    except SinkRefused:
        return False
    return True
