"""Chunks and leaves where they lie: in their place, in the trash, noted as broken."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass

from disks.errors import Damaged, NotFound
from disks.vault.sealing import DIGEST, Seal
from disks.vault.store import Store

CHUNKS, LEAVES = "chunks", "leaves"
LEAF_CHUNKS = 1024
LEAF_SIZE = LEAF_CHUNKS * DIGEST
NOTHING = bytes(DIGEST)
"""Stands for a chunk of zeros, which is not stored."""


@dataclass(frozen=True, slots=True)
class Mark:
    """What one collection moved to the trash, and whom that waits for."""

    id: str
    runs: tuple[str, ...] | None
    """The copies that were open after the last move; None while the collection may still move."""

    def trash(self, place: str = "") -> str:
        return f"trash/{self.id}/{place}"


class Objects:
    """Safe among threads, like the store below it."""

    def __init__(self, store: Store, seal: Seal, chunk_size: int) -> None:
        self.store, self.seal, self.chunk_size = store, seal, chunk_size
        self.zeros = bytes(chunk_size)

    @staticmethod
    def place(kind: str, name: str) -> str:
        return f"{kind}/{name[:2]}/{name}"

    def read(self, kind: str, name: str) -> bytes:
        """The content, compared with its name. Raises `NotFound` and `Damaged`."""
        place = self.place(kind, name)
        content = self.seal.open_up(place, self._stored(place), self.chunk_size if kind == CHUNKS else LEAF_SIZE)
        if self.seal.name(content).hex() != name:
            raise Damaged(f"Object {place} is not what was stored. Verify the points of this vault.")
        return content

    def _stored(self, place: str) -> bytes:
        for _ in range(2):  # it may be moved back while we look through the trash
            try:
                return self.store.get(place)
            except NotFound:
                pass
            for mark in self.marks():
                try:
                    return self.store.get(mark.trash(place))
                except NotFound:
                    continue
        raise NotFound(f"Object {place} is missing in the vault. Verify the points of this vault.")

    def write(self, kind: str, name: str, content: bytes) -> int:
        """Stores it, over whatever is there; how many bytes that took."""
        place = self.place(kind, name)
        stored = self.seal.close_up(place, content)
        self.store.put(place, stored)
        return len(stored)

    def chunk_names(self, leaf: str) -> list[str]:
        """The chunks of a leaf in order, empty for those of zeros. Raises `NotFound` and `Damaged`."""
        if not leaf:
            return [""] * LEAF_CHUNKS
        content = self.read(LEAVES, leaf)
        return [
            "" if (name := content[at : at + DIGEST]) == NOTHING else name.hex()
            for at in range(0, len(content), DIGEST)
        ]

    # --- trash --------------------------------------------------------------------------------------------------------

    def marks(self) -> Iterator[Mark]:
        for listed in self.store.list("marks/"):
            try:
                told = json.loads(self.store.get(listed))
            except NotFound:
                continue
            except ValueError:
                told = None  # whoever deletes trash is not told by this one that it may
            yield Mark(listed.removeprefix("marks/"), tuple(told) if isinstance(told, list) else None)

    def take_back(self, place: str) -> bool:
        """Whether what was missing in its place is there now."""
        # A mark is written before anything is moved to its trash, so it is listed if the object lies there.
        for mark in self.marks():
            try:
                self.store.move(mark.trash(place), place)
            except NotFound:
                continue
            return True
        return self.store.exists(place)

    # --- damage -------------------------------------------------------------------------------------------------------

    def broken(self) -> set[str]:
        """Names of chunks and leaves that were found damaged and not stored anew since."""
        return {name.removeprefix("broken/") for name in self.store.list("broken/")}

    def note_broken(self, name: str) -> None:
        self.store.put(f"broken/{name}", b"")

    def note_healed(self, name: str) -> None:
        self.store.delete(f"broken/{name}")
