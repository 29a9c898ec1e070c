"""Disks over NBD: qemu-nbd, a hypervisor's backup job, any server of the protocol. The wire is libnbd's.

Extents come from two of the server's metadata contexts (QEMU: docs/interop/nbd.txt; NBD: doc/proto.md,
"base:allocation"): `base:allocation`, where flag 2 says that a stretch reads as zeros (flag 1, a hole, says nothing
about what is read there), and `qemu:dirty-bitmap:NAME`, where flag 1 says that it was changed.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import nbd

from disks.base import Extent
from disks.errors import DiskError, OutOfSpace, SinkLost, SinkRefused, SourceLost, SourceRefused

ALLOCATION = "base:allocation"
ZERO, DIRTY = 2, 1
ASKED = 1 << 30
"""Bytes asked about at once; a server may answer for less."""
LARGEST = 32 << 20
"""Bytes of one request: what every server takes."""


@dataclass(frozen=True, slots=True)
class Tls:
    """Certificates as libnbd reads them: ca-cert.pem and, if the server asks, client-cert.pem and client-key.pem."""

    folder: Path


@dataclass(frozen=True, slots=True)
class Export:
    """Where a disk is served: a UNIX socket, or host and port."""

    name: str = ""
    socket: Path | None = None
    host: str = ""
    port: int = 10809
    tls: Tls | None = None
    """None: in the clear. Otherwise nothing is said before the server has shown a certificate for `host`."""
    command: tuple[str, ...] = ()
    """A program, with its arguments, whose standard input and output lead to the server, such as ssh; `socket` or
    `host` then only tell people where it is."""

    def __str__(self) -> str:
        return f"{self.name or 'disk'} at {self.socket or f'{self.host}:{self.port}'}"


class _Connection:
    """One connection, for one call at a time."""

    def __init__(self, export: Export, contexts: tuple[str, ...] = ()) -> None:
        self.export = export
        self._guard = threading.Lock()
        self._wire = nbd.NBD()
        self._wire.set_export_name(export.name)
        for context in contexts:
            self._wire.add_meta_context(context)
        if export.tls:
            self._wire.set_tls(nbd.TLS_REQUIRE)
            self._wire.set_tls_certificates(str(export.tls.folder))
            self._wire.set_tls_verify_peer(True)
        if export.command:
            self._wire.connect_command(list(export.command))
        elif export.socket:
            self._wire.connect_unix(str(export.socket))
        else:
            self._wire.connect_tcp(export.host, str(export.port))
        self.size = int(self._wire.get_size())

    def has(self, context: str) -> bool:
        return bool(self._wire.can_meta_context(context))

    def is_read_only(self) -> bool:
        return bool(self._wire.is_read_only())

    def can_zero(self) -> bool:
        return bool(self._wire.can_zero())

    def can_flush(self) -> bool:
        return bool(self._wire.can_flush())

    def read(self, offset: int, length: int) -> bytes:
        with self._guard:
            return bytes(self._wire.pread(length, offset))

    def write(self, offset: int, data: bytes) -> None:
        with self._guard:
            self._wire.pwrite(data, offset)

    def zero(self, offset: int, length: int) -> None:
        with self._guard:
            self._wire.zero(length, offset)

    def flush(self) -> None:
        with self._guard:
            self._wire.flush()

    def flags(self, offset: int, length: int) -> dict[str, list[tuple[int, int]]]:
        """Context -> (length, flags) of stretches from `offset` on, for as much of `length` as the server answered."""
        answers: dict[str, list[tuple[int, int]]] = {}

        def note(context: str, start: int, entries: list[int], error: object) -> int:
            answers[context] = list(zip(entries[::2], entries[1::2], strict=True))
            return 0

        with self._guard:
            self._wire.block_status(length, offset, note)
        return answers

    def close(self) -> None:
        """Idempotent. libnbd lets go of the socket when the server has been told, and when it is gone already."""
        with self._guard, suppress(nbd.Error):
            self._wire.shutdown()


class NbdSource:
    """A disk that a server holds still.

    With `bitmap` only what that dirty bitmap marks is named, and of that what is zero is named so; without it all of
    the disk is. Two threads that read share the connection one call at a time.
    """

    def __init__(self, export: Export, *, bitmap: str = "") -> None:
        """Raises `SourceLost` if nobody answers, `SourceRefused` if the server does not know the bitmap."""
        self._dirty = f"qemu:dirty-bitmap:{bitmap}" if bitmap else ""
        contexts = (ALLOCATION, self._dirty) if bitmap else (ALLOCATION,)
        try:
            self._connection = _Connection(export, contexts)
            knows = {context: self._connection.has(context) for context in contexts}
        except nbd.Error as error:
            raise SourceLost(f"Cannot open {export}: {error.string}. Check that it is being served.") from error
        if bitmap and not knows[self._dirty]:
            self.close()
            raise SourceRefused(
                f"{export} does not say what changed: it has no bitmap {bitmap}. Copy all of the disk instead."
            )
        self._knows_zeros = knows[ALLOCATION]

    @property
    def size(self) -> int:
        return self._connection.size

    def extents(self) -> Iterator[Extent]:
        offset, last = 0, None
        while offset < self.size:
            for extent in self._stretches(offset):
                offset = extent.end
                is_new = last is None or last.end != extent.offset or last.is_zero != extent.is_zero
                if last is not None and is_new:
                    yield last
                last = extent if last is None or is_new else Extent(last.offset, offset - last.offset, last.is_zero)
            offset = max(offset, self._answered)
        if last is not None:
            yield last

    def _stretches(self, offset: int) -> Iterator[Extent]:
        """What is to be copied in the part that the server answers for; its end is then in `_answered`."""
        length = min(ASKED, self.size - offset)
        if not self._dirty and not self._knows_zeros:
            self._answered = offset + length
            yield Extent(offset, length)
            return
        try:
            answers = self._connection.flags(offset, length)
        except nbd.Error as error:
            raise self._lost(error) from error
        zeros, dirty = answers.get(ALLOCATION, [(length, 0)]), answers.get(self._dirty)
        # The contexts may be answered for different lengths, and beyond what was asked: what all answered for counts.
        end = min(offset + length, *(offset + sum(part for part, _ in parts) for parts in (zeros, dirty) if parts))
        if end <= offset:
            raise SourceLost(
                f"{self._connection.export} does not say what it holds. Restart the server that serves it."
            )
        self._answered = end
        yield from _both(offset, end, zeros, dirty)

    def read(self, offset: int, length: int) -> bytes:
        try:
            if length <= LARGEST:
                return self._connection.read(offset, length)
            parts = range(offset, offset + length, LARGEST)
            return b"".join(self._connection.read(at, min(LARGEST, offset + length - at)) for at in parts)
        except nbd.Error as error:
            raise self._lost(error) from error

    def _lost(self, error: nbd.Error) -> SourceLost:
        return SourceLost(f"Cannot read {self._connection.export}: {error.string}. Check that it is still served.")

    def close(self) -> None:
        self._connection.close()


def _both(offset: int, end: int, zeros: list[tuple[int, int]], dirty: list[tuple[int, int]] | None) -> Iterator[Extent]:
    """The dirty part of a range (all of it, if there is no word about that), cut where zeros begin or end."""
    left = {"zeros": list(reversed(zeros)), "dirty": list(reversed(dirty or [(end - offset, DIRTY)]))}
    while offset < end:
        zero_part, zero_flags = left["zeros"].pop()
        dirty_part, dirty_flags = left["dirty"].pop()
        part = min(zero_part, dirty_part, end - offset)
        if zero_part > part:
            left["zeros"].append((zero_part - part, zero_flags))
        if dirty_part > part:
            left["dirty"].append((dirty_part - part, dirty_flags))
        if part and dirty_flags & DIRTY:
            yield Extent(offset, part, bool(zero_flags & ZERO))
        offset += part


class NbdSink:
    """A disk that a server lets us write, in place: until `commit` it is neither the old copy nor the new one.

    `abandon` lets go of it and cannot undo what was written: whoever serves it makes it anew.
    """

    def __init__(self, export: Export, *, is_fresh: bool = False) -> None:
        """`is_fresh`: the disk is known to read as zeros, so zeros need not be written."""
        self._is_fresh = is_fresh
        self._is_open = True
        try:
            self._connection = _Connection(export)
            is_read_only, self._can_zero = self._connection.is_read_only(), self._connection.can_zero()
        except nbd.Error as error:
            raise SinkLost(f"Cannot open {export}: {error.string}. Check that it is being served.") from error
        if is_read_only:
            self._close()
            raise SinkRefused(f"{export} is read-only. Serve it for writing.")

    @property
    def size(self) -> int:
        return self._connection.size

    def write(self, offset: int, data: bytes) -> None:
        try:
            for at in range(0, len(data), LARGEST):
                self._connection.write(offset + at, data[at : at + LARGEST] if len(data) > LARGEST else data)
        except nbd.Error as error:
            raise self._error(error) from error

    def zero(self, offset: int, length: int) -> None:
        if self._is_fresh:
            return
        try:
            for at in range(offset, offset + length, LARGEST):
                part = min(LARGEST, offset + length - at)
                if self._can_zero:
                    self._connection.zero(at, part)
                else:
                    self._connection.write(at, bytes(part))
        except nbd.Error as error:
            raise self._error(error) from error

    def commit(self) -> None:
        try:
            if self._connection.can_flush():
                self._connection.flush()
        except nbd.Error as error:
            raise self._error(error) from error
        self._close()

    def abandon(self) -> None:
        self._close()

    def _close(self) -> None:
        if self._is_open:
            self._is_open = False
            self._connection.close()

    def _error(self, error: nbd.Error) -> DiskError:
        where = self._connection.export
        if error.errno in {"ENOSPC", "EDQUOT", "EFBIG"}:
            return OutOfSpace(f"No room for {where}. Make room on the storage it lies on.")
        if error.errno in {"EPERM", "EROFS", "EACCES"}:
            return SinkRefused(f"{where} may not be written. Serve it for writing.")
        return SinkLost(f"Cannot write {where}: {error.string}. Check that it is still served.")
