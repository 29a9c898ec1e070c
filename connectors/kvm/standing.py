"""Machines that are off and that linked clones hang from, read as they stand: the image is fetched, then read here.

QEMU opens no disk for writing that others hang from, and without that there is no point as of other machines (`held`).
Nobody writes to such a disk either, or its clones would be lost: so its file is fetched by libvirt's own stream, as it
is, and lies in the working folder while it is read, one disk at a time.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import libvirt

from connectors.errors import ConnectorError, NotFound
from connectors.kvm import mapping
from connectors.kvm.client import Endpoint
from connectors.replication import Bookmark, Consistency
from disks.base import Extent, Source
from disks.errors import DiskError, SourceLost, SourceRefused
from disks.raw import write_error
from disks.vault.points import Configuration

WHOLE = "Linked clones hang from it: it is read as it stands."
OPEN_S = 30.0
"""How long a connection for a disk may take."""
PIECE = 1 << 20


def scratch(workdir: Path, machine: str) -> str:
    """What all files fetched of a machine begin with."""
    return str(workdir / f"kvm-standing-{machine}-")


def sweep(workdir: Path, machine: str) -> None:
    """What a mover that died left in the working folder."""
    for file in workdir.glob(f"kvm-standing-{machine}-*"):
        file.unlink(missing_ok=True)


@dataclass(frozen=True, slots=True)
class StandingPoint:
    """A `connectors.replication.Point`. Nothing of it is on the platform."""

    name: str
    machine: str
    """Uuid."""
    configuration: Configuration
    taken_at: datetime
    disks: Sequence[mapping.Disk]
    endpoint: Endpoint
    workdir: Path

    @property
    def consistency(self) -> Consistency:
        return Consistency.OFF

    @property
    def bookmark(self) -> Bookmark | None:
        return None

    @property
    def whole(self) -> str:
        return WHOLE

    def open(self, disk: str) -> Source:
        """Raises `NotFound`, `disks.errors.SourceLost`."""
        for one in self.disks:
            if one.target == disk:
                return Fetched(self, one)
        raise NotFound(f"The point of {self.name!r} holds no disk {disk!r}.")

    def close(self) -> None:
        """Every source closes its own connection."""


def point_of(
    name: str,
    machine: str,
    configuration: Configuration,
    disks: Sequence[mapping.Disk],
    endpoint: Endpoint,
    workdir: Path,
) -> StandingPoint:
    """What an earlier one left in the working folder goes."""
    sweep(workdir, machine)
    return StandingPoint(name, machine, configuration, datetime.now(UTC), disks, endpoint, workdir)


class Fetched:
    """A `disks.base.Source` that is `disks.base.Slow`: the file comes first."""

    def __init__(self, point: StandingPoint, disk: mapping.Disk) -> None:
        """Raises `SourceLost`."""
        self._point, self._disk = point, disk
        self._what = f"disk {disk.target} of {point.name!r}"
        self._file = Path(f"{scratch(point.workdir, point.machine)}{uuid4().hex[:8]}.qcow2")
        self._line = ExitStack()
        self._image: Source | None = None
        self._stream: Any = None
        self._fetched = 0
        try:
            line = point.endpoint.line(time.monotonic() + OPEN_S)
            self._connection = self._line.enter_context(line.using())
            self._volume = self._connection.storageVolLookupByPath(disk.path)
            self.size = int(self._volume.info()[1])
        except (libvirt.libvirtError, ConnectorError) as error:
            self.close()
            raise self._lost() from error

    def advance(self, until: float) -> str:
        """Raises `SourceLost`, `SourceRefused`, `OutOfSpace`."""
        if self._image is not None:
            return ""
        try:
            while self._fetch():
                if time.monotonic() >= until:
                    return f"Fetches {self._disk.target} of {self._point.name}: {self._fetched >> 20} MiB"
            self._require_off()
        except libvirt.libvirtError as error:
            raise self._lost() from error
        self._image = self._open_image()
        return ""

    def _fetch(self) -> bool:
        """Whether there is more. Raises libvirtError, `DiskError`."""
        if self._stream is None:
            self._require_off()
            self._stream = self._connection.newStream()
            self._volume.download(self._stream, 0, 0)
        data = self._stream.recv(PIECE)
        if not data:
            self._stream.finish()
            self._stream = None
            return False
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            with self._file.open("ab") as file:
                file.write(data)
        except OSError as error:
            raise write_error(error, self._file) from error
        self._fetched += len(data)
        return True

    def _require_off(self) -> None:
        if self._connection.lookupByUUIDString(self._point.machine).isActive():
            raise SourceLost(f"Machine {self._point.name!r} was switched on while it was read. It is begun anew.")

    def _open_image(self) -> Source:
        try:
            from disks.images import Format, ImageSource
        except ImportError as error:
            raise SourceRefused(
                "Disk images cannot be read here: libnbd is missing. Install it: apt-get install python3-libnbd."
            ) from error
        return ImageSource(self._file, Format.QCOW2)

    def extents(self) -> Iterator[Extent]:
        return self._fetched_image().extents()

    def read(self, offset: int, length: int) -> bytes:
        return self._fetched_image().read(offset, length)

    def _fetched_image(self) -> Source:
        if self._image is None:
            self.advance(float("inf"))
        assert self._image is not None  # noqa: S101 - for the type checker
        return self._image

    def close(self) -> None:
        image, self._image = self._image, None
        stream, self._stream = self._stream, None
        if image is not None:
            image.close()
        with suppress(libvirt.libvirtError):
            if stream is not None:
                stream.abort()
        self._volume = self._connection = None
        self._line.close()
        with suppress(OSError):
            self._file.unlink(missing_ok=True)

    def _lost(self) -> DiskError:
        where = self._point.endpoint.name
        return SourceLost(f"Reading {self._what} on {where} broke off: it is not reached any more. It is begun anew.")
