"""Collection of what no point refers to. Each method is a step of the protocol in `disks/vault/__init__.py`."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from disks.errors import Damaged, NotFound
from disks.vault.objects import CHUNKS, LEAVES, Mark, Objects
from disks.vault.points import RecoveryPoint

LOOK_EVERY = 64
"""Moves after which a collection looks whether its owner still takes it for alive."""


@dataclass(frozen=True, slots=True)
class Collected:
    """What one collection did."""

    moved: int = 0
    """Objects that went to the trash."""
    restored: int = 0
    deleted: int = 0
    waits_for: frozenset[str] = frozenset()
    """Runs that must end before the rest of the trash may go."""


class Collection:
    """One collection. `run` takes all steps; they are public so that tests can put anything between them.

    `points` lists all points of the vault, `open_copies` the copies that have not ended, `is_open` tells it of any run.
    Memory: the names of all chunks, some 130 MiB for each TiB in the vault.
    """

    def __init__(
        self,
        id: str,
        objects: Objects,
        *,
        points: Callable[[], Iterable[RecoveryPoint]],
        open_copies: Callable[[], Iterable[str]],
        is_open: Callable[[str], bool],
    ) -> None:
        self.id = id
        self._objects, self._store = objects, objects.store
        self._points, self._open_copies, self._is_open = points, open_copies, is_open
        self._garbage: set[str] = set()
        self._moved = self._restored = self._deleted = 0

    def find(self) -> None:
        """Step 1. Raises `Damaged` if a point or leaf cannot be read: what it refers to is not known."""
        listed = {place for kind in (CHUNKS, LEAVES) for place in self._store.list(f"{kind}/")}
        self._garbage = listed - self._referenced(listed)

    def move(self) -> None:
        """Step 2."""
        if not self._garbage:
            return
        mark = Mark(self.id, None)
        # Before the first move: whoever misses a chunk looks through the trash of all marks.
        self._write(mark)
        for number, place in enumerate(sorted(self._garbage), 1):
            if not number % LOOK_EVERY and not self._is_open(self.id):
                # Somebody took it for dead, and may have taken its mark over: what it has moved so far is noted anew.
                break
            try:
                self._store.move(place, mark.trash(place))
            except NotFound:
                continue  # another collection was first
            self._moved += 1

    def note(self) -> None:
        """Step 3."""
        if self._garbage:
            self._write(Mark(self.id, tuple(sorted(self._open_copies()))))

    def restore(self) -> None:
        """Step 4."""
        self._restore(Mark(self.id, ()))

    def sweep(self) -> Collected:
        """Step 5, for every mark of which the time has come, whoever made it."""
        waits_for: set[str] = set()
        for mark in list(self._objects.marks()):
            if mark.runs is None:
                if self._is_open(mark.id):
                    continue  # it may still move
                # Its collection died: no more is moved there, so the copies that are open now are those to wait for.
                mark = Mark(mark.id, tuple(sorted(self._open_copies())))
                self._write(mark)
            if still_open := {run for run in mark.runs or () if self._is_open(run)}:
                waits_for |= still_open
                continue
            self._empty(mark)
        self._forget_damage()
        self._store.tidy()
        return Collected(self._moved, self._restored, self._deleted, frozenset(waits_for))

    def _empty(self, mark: Mark) -> None:
        self._restore(mark)
        for place in self._in_trash(mark):
            self._store.delete(mark.trash(place))
            self._deleted += 1
        self._store.delete(f"marks/{mark.id}")

    def _restore(self, mark: Mark) -> None:
        """What points refer to goes back to its place; if it was stored anew meanwhile, that is the better one."""
        for place in self._referenced(set(self._in_trash(mark))):
            try:
                if self._store.exists(place):
                    self._store.delete(mark.trash(place))
                else:
                    self._store.move(mark.trash(place), place)
            except NotFound:
                continue  # a copy took it back
            self._restored += 1

    def _in_trash(self, mark: Mark) -> Iterator[str]:
        prefix = mark.trash()
        return (name.removeprefix(prefix) for name in list(self._store.list(prefix)))

    def _write(self, mark: Mark) -> None:
        self._store.put(f"marks/{mark.id}", json.dumps(mark.runs).encode())

    def _referenced(self, places: set[str]) -> set[str]:
        """Those of them that a point refers to. Points are listed anew at every call."""
        found: set[str] = set()
        if not places:
            return found
        seen: set[str] = set()
        for point in self._points():
            for leaf in {leaf for disk in point.disks for leaf in disk.leaves if leaf} - seen:
                seen.add(leaf)
                found.add(self._objects.place(LEAVES, leaf))
                found.update(self._objects.place(CHUNKS, name) for name in self._names(leaf, point) if name)
        return found & places

    def _names(self, leaf: str, point: RecoveryPoint) -> list[str]:
        try:
            return self._objects.chunk_names(leaf)
        except (Damaged, NotFound) as error:
            if not self._store.exists(f"points/{point.id}"):
                return []  # deleted since it was listed
            raise Damaged(
                f"Nothing is collected: a list of chunks of point {point.id} is damaged, so it is not known what that"
                " needs. Verify it and copy its source again; if that does not help, delete the point."
            ) from error

    def _forget_damage(self) -> None:
        """Notes about chunks that are no longer anywhere and that no point misses."""
        broken = self._objects.broken()
        # An open copy may still take one from the trash, and must find the note then.
        if not broken or any(True for _ in self._open_copies()) or any(True for _ in self._objects.marks()):
            return
        places = {self._objects.place(kind, name) for name in broken for kind in (CHUNKS, LEAVES)}
        still_known = {place.rpartition("/")[2] for place in self._store.present(places) | self._referenced(places)}
        for name in broken - still_known:
            self._objects.note_healed(name)
