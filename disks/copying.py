"""The pump between a source and a sink: constant memory, whatever the disk."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass

from disks.ahead import ahead
from disks.base import Extent, Sink, Source
from disks.errors import Cancelled
from disks.throttle import Throttle

BLOCK = 1 << 20
"""Bytes read at once. Blocks end where multiples of it lie, as the vault's chunks do."""
GRAIN = 64 << 10
"""Zeros are looked for in pieces of this size: what qcow2 and dirty bitmaps count in."""
ZEROS = bytes(GRAIN)
READERS = 2
"""A second reader hides the way to a source that is far away; one that takes a call at a time loses nothing."""
WINDOW = 4
"""Blocks in flight."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a copy is, in bytes."""

    done: int
    """How far into the disk."""
    total: int
    """The disk's size."""
    moved: int
    """Read from the source so far."""


def copy(
    source: Source,
    sink: Sink,
    *,
    progress: Callable[[Progress], None] = lambda _: None,
    throttle: Throttle | None = None,
    is_cancelled: Callable[[], bool] = lambda: False,
) -> Progress:
    """Carry all extents of the source to the sink; returns where it ended.

    The sink is neither committed nor abandoned: that is the caller's, who may have more to check. Raises what the two
    ends raise, and `Cancelled` between two blocks. At most `WINDOW` blocks are in memory.
    """
    throttle = throttle or Throttle()
    at = Progress(0, source.size, 0)

    def fetch(block: Extent) -> bytes:
        if block.is_zero:
            return b""
        throttle.take(block.length, is_cancelled)
        require_going_on()
        return source.read(block.offset, block.length)

    def require_going_on() -> None:
        if is_cancelled():
            raise Cancelled("The copy was stopped before its end; nothing of it is kept.")

    with closing(ahead(fetch, _blocks(source), threads=READERS, window=WINDOW)) as blocks:
        for block, data in blocks:
            require_going_on()
            if block.is_zero:
                sink.zero(block.offset, block.length)
            else:
                _write(sink, block.offset, data)
            at = Progress(block.end, source.size, at.moved + len(data))
            progress(at)
    at = Progress(source.size, source.size, at.moved)
    progress(at)
    return at


def _blocks(source: Source) -> Iterator[Extent]:
    """The source's extents; data cut at multiples of BLOCK."""
    for extent in source.extents():
        if extent.is_zero:
            yield extent
            continue
        offset = extent.offset
        while offset < extent.end:
            end = min(extent.end, (offset // BLOCK + 1) * BLOCK)
            yield Extent(offset, end - offset)
            offset = end


def _write(sink: Sink, offset: int, data: bytes) -> None:
    """Runs of data and runs of zeros, each in one call."""
    size = len(data)
    start = 0
    while start < size:
        is_zero = _is_zero(data, start)
        end = min(start + GRAIN, size)
        while end < size and _is_zero(data, end) == is_zero:
            end = min(end + GRAIN, size)
        if is_zero:
            sink.zero(offset + start, end - start)
        else:
            sink.write(offset + start, data if end - start == size else data[start:end])
        start = end


def _is_zero(data: bytes, start: int) -> bool:
    # `startswith` compares in place; a slice would copy all that is copied once more.
    piece = min(GRAIN, len(data) - start)
    return data.startswith(ZEROS if piece == GRAIN else ZEROS[:piece], start)
