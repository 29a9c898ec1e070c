"""What must hold of a vault at any moment, read from the bare objects, not by the code that is judged."""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime

from disks.errors import NotFound
from disks.vault.points import Configuration, Origin, RecoveryPoint
from disks.vault.vault import Vault
from disks.vault.writing import Run
from tests.disks.vault.stores import MemoryStore

CHUNK = 4096
ORIGIN = Origin("m-1", "desk")
CONFIGURATION = Configuration(vcpus=1, memory_mib=512, firmware="bios")
READ_AT = datetime(2026, 1, 1, tzinfo=UTC)


def commit(run: Run) -> RecoveryPoint:
    return run.commit(origin=ORIGIN, configuration=CONFIGURATION, read_at=READ_AT)


def needed(store: MemoryStore) -> set[str]:
    """Places of all that the committed points refer to. Of a leaf that is nowhere the chunks are unknown."""
    vault, places = Vault.open(store), set[str]()
    for point in vault.points():
        for leaf in {leaf for disk in point.disks for leaf in disk.leaves if leaf}:
            places.add(vault._objects.place("leaves", leaf))
            with suppress(NotFound):
                places |= {vault._objects.place("chunks", name) for name in vault._objects.chunk_names(leaf) if name}
    return places


def missed(store: MemoryStore) -> set[str]:
    """What points refer to and what lies neither in its place nor in the trash of a mark."""
    there = {name for name in store.objects if name.startswith(("chunks/", "leaves/"))}
    marks = {name.removeprefix("marks/") for name in store.objects if name.startswith("marks/")}
    for name in store.objects:
        if name.startswith("trash/"):
            _, mark, place = name.split("/", 2)
            if mark in marks:
                there.add(place)
    return needed(store) - there


def superfluous(store: MemoryStore) -> set[str]:
    """Whatever lies there that no point and no vault needs."""
    kept = needed(store) | {"vault.json"} | {name for name in store.objects if name.startswith("points/")}
    return set(store.objects) - kept
