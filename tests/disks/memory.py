"""A disk and a copy in memory, with what tests want to see of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from disks.base import Extent


class MemorySource:
    """`extents` are what it names; without any it names all of itself as data."""

    def __init__(self, content: bytes, extents: Iterable[Extent] | None = None) -> None:
        self.content = content
        self.named = [Extent(0, len(content))] if extents is None else list(extents)
        self.reads: list[tuple[int, int]] = []
        self.is_closed = False

    @property
    def size(self) -> int:
        return len(self.content)

    def extents(self) -> Iterator[Extent]:
        return iter(self.named)

    def read(self, offset: int, length: int) -> bytes:
        self.reads.append((offset, length))
        return self.content[offset : offset + length]

    def close(self) -> None:
        self.is_closed = True


class MemorySink:
    def __init__(self, base: bytes) -> None:
        self.content = bytearray(base)
        self.written = self.zeroed = 0
        self.at = 0

    def write(self, offset: int, data: bytes) -> None:
        self._advance(offset, len(data))
        self.written += len(data)
        self.content[offset : offset + len(data)] = data

    def zero(self, offset: int, length: int) -> None:
        self._advance(offset, length)
        self.zeroed += length
        self.content[offset : offset + length] = bytes(length)

    def _advance(self, offset: int, length: int) -> None:
        assert offset >= self.at
        self.at = offset + length

    def commit(self) -> None: ...

    def abandon(self) -> None: ...
