"""A disk of a recovery point, to be read."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterator

from disks.base import Extent
from disks.vault.objects import CHUNKS, LEAF_CHUNKS, Objects
from disks.vault.points import DiskTree

KEPT_CHUNKS = 8
KEPT_LEAVES = 4


class VaultSource:
    """Every chunk is compared with its name as it is read: what comes out is what went in, or `Damaged`, `NotFound`."""

    def __init__(self, objects: Objects, tree: DiskTree) -> None:
        self._objects, self._tree = objects, tree
        self._guard = threading.Lock()
        self._chunks: OrderedDict[str, bytes] = OrderedDict()
        self._leaves: OrderedDict[str, list[str]] = OrderedDict()

    @property
    def size(self) -> int:
        return self._tree.size

    def extents(self) -> Iterator[Extent]:
        """All of the disk, in runs of data and zeros."""
        chunk, at, is_zero, end = self._objects.chunk_size, 0, False, 0
        for number, leaf in enumerate(self._tree.leaves):
            for place, name in enumerate(self._names(leaf)):
                start = (number * LEAF_CHUNKS + place) * chunk
                if start >= self.size:
                    break
                if bool(name) is is_zero and start > at:
                    yield Extent(at, start - at, is_zero)
                    at = start
                is_zero, end = not name, min(start + chunk, self.size)
        if end > at:
            yield Extent(at, end - at, is_zero)

    def changed(self, since: DiskTree) -> Iterator[Extent]:
        """What differs from that disk, in runs of data and zeros: only leaves that differ are read.

        What lies beyond the end of a smaller one counts as different.
        """
        chunk, run = self._objects.chunk_size, Extent(0, 0)
        for number, leaf in enumerate(self._tree.leaves):
            before = since.leaves[number] if number < len(since.leaves) else ""
            if leaf == before and (number + 1) * LEAF_CHUNKS * chunk <= since.size:
                continue
            names = self._names(before)
            for place, name in enumerate(self._names(leaf)):
                start = (number * LEAF_CHUNKS + place) * chunk
                if start >= self.size:
                    break
                end = min(start + chunk, self.size)
                if name == names[place] and end <= since.size:
                    continue
                if run.end == start and run.is_zero is not bool(name) and run.length:
                    run = Extent(run.offset, end - run.offset, run.is_zero)
                    continue
                if run.length:
                    yield run
                run = Extent(start, end - start, not name)
        if run.length:
            yield run

    def read(self, offset: int, length: int) -> bytes:
        parts = []
        while length:
            index, start = divmod(offset, self._objects.chunk_size)
            part = min(length, self._objects.chunk_size - start)
            content = self._chunk(index)
            parts.append(content if part == len(content) else content[start : start + part])
            offset, length = offset + part, length - part
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _chunk(self, index: int) -> bytes:
        leaf, place = divmod(index, LEAF_CHUNKS)
        name = self._names(self._tree.leaves[leaf])[place]
        if not name:
            return self._objects.zeros
        with self._guard:
            if name in self._chunks:
                self._chunks.move_to_end(name)
                return self._chunks[name]
        # Outside the lock: several threads read at once, and the same chunk twice costs only time.
        content = self._objects.read(CHUNKS, name)
        with self._guard:
            self._chunks[name] = content
            if len(self._chunks) > KEPT_CHUNKS:
                self._chunks.popitem(last=False)
        return content

    def _names(self, leaf: str) -> list[str]:
        with self._guard:
            if leaf in self._leaves:
                self._leaves.move_to_end(leaf)
                return self._leaves[leaf]
        names = self._objects.chunk_names(leaf)
        with self._guard:
            self._leaves[leaf] = names
            if len(self._leaves) > KEPT_LEAVES:
                self._leaves.popitem(last=False)
        return names

    def close(self) -> None:
        """Nothing is held open."""


class ChangedSource(VaultSource):
    """A disk of a point, of which only what differs from an earlier one's is to be copied."""

    def __init__(self, objects: Objects, tree: DiskTree, since: DiskTree) -> None:
        super().__init__(objects, tree)
        self._since = since

    def extents(self) -> Iterator[Extent]:
        return self.changed(self._since)
