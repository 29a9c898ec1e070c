"""Arithmetic of stretches of a disk."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from disks.base import Extent, Source


def united(first: Iterable[Extent], second: Iterable[Extent]) -> Iterator[Extent]:
    """Everything that is in either of the two, both sorted. Where they overlap the first one's word holds."""
    others = iter(second)
    other = next(others, None)
    at = 0
    for extent in first:
        while other is not None and other.offset < extent.offset:
            start, end = max(other.offset, at), min(other.end, extent.offset)
            if start < end:
                yield Extent(start, end - start, other.is_zero)
            if other.end > extent.offset:
                break
            other = next(others, None)
        yield extent
        at = extent.end
        while other is not None and other.end <= at:
            other = next(others, None)
    while other is not None:
        start = max(other.offset, at)
        if start < other.end:
            yield Extent(start, other.end - start, other.is_zero)
        other = next(others, None)


class Widened:
    """A source of which more is to be copied than it names itself, such as what is damaged in the vault."""

    def __init__(self, source: Source, also: Iterable[Extent]) -> None:
        self._source = source
        self._also = tuple(also)

    @property
    def size(self) -> int:
        return self._source.size

    def extents(self) -> Iterator[Extent]:
        return united(self._source.extents(), self._also)

    def read(self, offset: int, length: int) -> bytes:
        return self._source.read(offset, length)

    def close(self) -> None:
        self._source.close()
