"""An increment of 64 MiB into a vault, of a disk of 10 GiB and of one of 100 GiB that are both full of data.

The large disk's bytes are not made: each of its leaves names the same 1,024 chunks in another order, so that everything
that goes by leaves and by names is there, without 100 GiB of them.
"""

from __future__ import annotations

import os
import shutil
import statistics
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime

from disks.base import Extent
from disks.copying import copy
from disks.vault.folder import FolderStore
from disks.vault.objects import LEAF_CHUNKS, LEAVES
from disks.vault.points import Configuration, DiskTree, Origin, RecoveryPoint
from disks.vault.vault import Vault
from tests.bench.copying import memory, timed
from tests.bench.figures import load, report, say
from tests.bench.ground import Ground

MIB, GIB = 1 << 20, 1 << 30
SIZES_GIB = (10, 100)
CHANGED_MIB = 64
ROUNDS = 5


def run(ground: Ground) -> None:
    sizes = (1, 4) if ground.is_small else SIZES_GIB
    folder = ground.folder / "incremental"
    folder.mkdir()
    say("filling a vault")
    vault = Vault.create(FolderStore(folder))
    first = fill(vault, 64 if ground.is_small else LEAF_CHUNKS)
    bases = {size: grown(vault, first, size) for size in sizes}
    took: dict[int, list[float]] = {size: [] for size in sizes}
    for _ in range(1 if ground.is_small else ROUNDS):
        for size, base in bases.items():
            took[size].append(timed(lambda base=base: increment(vault, base)))  # type: ignore[misc]
    medians = {size: statistics.median(times) for size, times in took.items()}
    for size, median in medians.items():
        report("incremental", "increment", median, "s", disk_gib=size, changed_mib=CHANGED_MIB, load=load())
    small, large = (medians[size] for size in sizes)
    report("incremental", "ratio", large / small, "", larger=sizes[1] // sizes[0], load=load())
    report("incremental", "memory", memory() / 1024, "MiB")
    shutil.rmtree(folder)


class Changed:
    """A source of which so much has changed, in pieces of 1 MiB all over the disk."""

    def __init__(self, size: int) -> None:
        self.size = size

    def extents(self) -> Iterator[Extent]:
        step = self.size // CHANGED_MIB // MIB * MIB
        return (Extent(number * step, MIB) for number in range(CHANGED_MIB))

    def read(self, offset: int, length: int) -> bytes:
        return os.urandom(length)

    def close(self) -> None:
        """Nothing is held."""


def fill(vault: Vault, chunks: int) -> RecoveryPoint:
    """A point of a disk of so many chunks, each another one."""
    writing = vault.begin("bench", "first")
    disk = writing.disk("vda", chunks * MIB)
    for number in range(chunks):
        disk.write(number * MIB, os.urandom(MIB))
    disk.commit()
    return writing.commit(origin=ORIGIN, configuration=SHAPE, read_at=datetime.now(UTC))


ORIGIN, SHAPE = Origin("1", "disk"), Configuration(1, 1024, "bios")


def grown(vault: Vault, first: RecoveryPoint, gib: int) -> RecoveryPoint:
    """A point of a disk of so many GiB: each GiB has the first one's chunks in another order."""
    objects = vault._objects
    names = [name for name in objects.chunk_names(first.disks[0].leaves[0]) if name]
    names = (names * LEAF_CHUNKS)[:LEAF_CHUNKS]
    leaves = []
    for turn in range(gib):
        content = b"".join(bytes.fromhex(name) for name in names[turn:] + names[:turn])
        name = objects.seal.name(content).hex()
        objects.write(LEAVES, name, content)
        leaves.append(name)
    writing = vault.begin("bench", f"{gib} GiB")
    writing._disks["vda"] = _Made(DiskTree("vda", gib * GIB, tuple(leaves)))  # type: ignore[assignment]
    return writing.commit(origin=ORIGIN, configuration=SHAPE, read_at=datetime.now(UTC))


class _Made:
    def __init__(self, tree: DiskTree) -> None:
        self.tree = tree


def increment(vault: Vault, base: RecoveryPoint) -> None:
    """Copied and committed, as a mover does; the point goes again."""
    writing = vault.begin("bench", "disk", base)
    with closing(Changed(base.disks[0].size)) as source:
        disk = writing.disk("vda", source.size)
        copy(source, disk)
        disk.commit()
    made = writing.commit(origin=ORIGIN, configuration=SHAPE, read_at=datetime.now(UTC))
    vault.delete_point(made.id)
