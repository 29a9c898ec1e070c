"""What is read and what is written: the two contracts between which bytes of disks flow. No I/O here."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol, runtime_checkable


@dataclass(frozen=True, slots=True)
class Extent:
    """A stretch of a disk, in bytes."""

    offset: int
    length: int
    is_zero: bool = False
    """Known to read as zeros, so that nobody needs to read it."""

    @property
    def end(self) -> int:
        return self.offset + self.length


class Source(Protocol):
    """A disk that holds still while it is read."""

    @property
    def size(self) -> int:
        """Bytes of the whole disk."""
        ...

    def extents(self) -> Iterator[Extent]:
        """What is to be copied, sorted and without overlaps: everything that is not known to be unchanged.

        Since when, the source was told when it was made. A source that was told of no earlier point names all of the
        disk: what it leaves out is left as the sink has it. Raises `SourceLost`.
        """
        ...

    def read(self, offset: int, length: int) -> bytes:
        """Exactly so many bytes. May be called from several threads. Raises `SourceLost` and `Damaged`."""
        ...

    def close(self) -> None:
        """Let go. Idempotent; never raises."""
        ...


class Sink(Protocol):
    """A disk in the making. Until `commit` returns there is no copy; `abandon` leaves nothing behind.

    Offsets rise from call to call and ranges do not overlap. What is never named is what the sink began with: zeros, or
    the base it was made from. Called from one thread at a time.
    """

    def write(self, offset: int, data: bytes) -> None:
        """Raises `SinkLost`, `OutOfSpace`, `SinkRefused`. May return before the bytes have arrived."""
        ...

    def zero(self, offset: int, length: int) -> None:
        """The range reads as zeros."""
        ...

    def commit(self) -> None:
        """All that was written is durable and stands under its name. Raises what `write` raises."""
        ...

    def abandon(self) -> None:
        """As if it had never begun. Idempotent, also after a failure; no effect after `commit`. Never raises."""
        ...


@runtime_checkable
class Slow(Protocol):
    """What a source has beside its contract if it takes long until its first byte, and a sink if it does until its
    commit, because a platform has to write or take a whole file first.

    Whoever does not call it waits in `extents`, `read` or `commit`.
    """

    def advance(self, until: float) -> str:
        """Go on until then (`time.monotonic()`) at most. What it is at, in words; empty once nothing is left to wait
        for. Called of a source before the first byte, of a sink after the last one. Raises what the end raises.
        """
        ...
