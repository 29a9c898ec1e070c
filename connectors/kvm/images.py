"""A disk on its way into a new qcow2 volume, front to back.

By libvirt's stream, in the connection itself, so over every transport; on a dead line it ends by keepalive, 20 s after
the last word (`client`): each disk has a connection of its own. Where the host is this machine and the volume's file
can be written by this process, it is: half of what a stream costs is the way through libvirtd and back. That it is the
same file is not believed but tried (`same_file`).
"""

from __future__ import annotations

import errno
import os
import secrets
import stat
import time
from contextlib import ExitStack, suppress
from typing import Any, Protocol

import libvirt

from connectors.errors import CapacityExhausted, CertificateRejected, ConnectorError, CredentialsRejected, Unsupported
from connectors.kvm import faults, mapping, volumes
from connectors.kvm.client import Endpoint
from disks.errors import DiskError, OutOfSpace, SinkLost, SinkRefused
from disks.qcow2 import CLUSTER, Qcow2

OPEN_S = 30.0
"""How long a connection for a disk may take."""
MARK = 64
"""Bytes of a mark that nobody else has."""
LARGEST = 256 << 10
"""Bytes sent at once: both ends together need a tenth less of a processor than with 512 KiB or 1 MiB, and half of what
they need with 64 KiB (libvirt 9.0, on one machine)."""

BACKLOG = 8 << 20
"""Bytes written before their way to the disk is begun."""


class VolumeSink:
    """A new qcow2 volume, filled from front to back.

    `abandon` removes the volume; where the line is dead it cannot, and `clear` does.
    """

    def __init__(self, endpoint: Endpoint, pool: str, name: str, size: int, base: str = "") -> None:
        """`base`: path of a qcow2 volume; what is not written reads as there.

        Raises `SinkLost`, `SinkRefused`, `OutOfSpace`.
        """
        self.name = name
        self.is_whole = False
        self._endpoint = endpoint
        self._image = Qcow2(size, base)
        self._base = base
        self._line = ExitStack()
        self._volume: volumes.Volume = None
        self._way: _Way | None = None
        try:
            self._open(pool)
        except (libvirt.libvirtError, ConnectorError) as error:
            self.abandon()
            raise self._problem(error) from error

    def _open(self, pool: str) -> None:
        line = self._endpoint.line(time.monotonic() + OPEN_S)
        connection = self._line.enter_context(line.using())
        # libvirt has QEMU make an empty image, of which the header stays until ours takes its place: so libvirt never
        # sees anything but a qcow2 volume there.
        storage = connection.storagePoolLookupByUUIDString(pool)
        size = self._image.size
        wanted = (
            mapping.overlay_xml(self.name, size, self._base, "qcow2")
            if self._base
            else mapping.copy_xml(self.name, size)
        )
        self._volume = storage.createXML(wanted)
        file = same_file(connection, self._volume) if self._endpoint.is_local else None
        self._way = _Upload(self._volume) if file is None else _File(file)

    def write(self, offset: int, data: bytes) -> None:
        for piece in self._image.write(offset, data):
            self._send(piece)

    def zero(self, offset: int, length: int) -> None:
        for piece in self._image.zero(offset, length):
            self._send(piece)

    def commit(self) -> None:
        for piece in self._image.finish():
            self._send(piece)
        try:
            self._open_way().end(self._image.header())
            self._way = None
            self._settle()
        except (libvirt.libvirtError, OSError) as error:
            raise self._problem(error) from error
        self.is_whole = True
        self._line.close()

    def _settle(self) -> None:
        """libvirt has no word for a flush. But of a qcow2 volume that is to be given a size, even the one it has, QEMU
        writes the header and waits until all of the file has reached the disk (qemu-img resize: fdatasync); and it
        fails for what is no image.

        libvirt refuses that for a file that takes more room than its disk's size, which it does when hardly a cluster
        is zeros: what is in such a file is as safe as the host's own writing back makes it.
        """
        size, taken = (int(value) for value in self._volume.info()[1:])
        if size != self._image.size:
            raise SinkLost(f"Volume {self.name} is not the image that was sent. It has to be written anew.")
        if taken <= size:
            self._volume.resize(size)

    def _open_way(self) -> _Way:
        if self._way is None:
            raise ValueError("this copy has ended")
        return self._way

    def _send(self, data: bytes) -> None:
        try:
            self._open_way().send(data)
        except (libvirt.libvirtError, OSError) as error:
            raise self._problem(error) from error

    def abandon(self) -> None:
        if self.is_whole:
            return
        way, self._way = self._way, None
        volume, self._volume = self._volume, None
        if way is not None:
            way.drop()
        with suppress(libvirt.libvirtError):
            if volume is not None:
                volumes.delete_volume(volume)
        del way, volume
        self._line.close()

    def _problem(self, error: libvirt.libvirtError | ConnectorError | OSError) -> DiskError:
        where = f"volume {self.name} on {self._endpoint.name}"
        if _is_full(error):
            return OutOfSpace(f"No room for {where}. Make room in its storage pool or choose another one.")
        kind = faults.kind_of(error) if isinstance(error, libvirt.libvirtError) else type(error)
        if issubclass(kind, CredentialsRejected | CertificateRejected | Unsupported):
            return SinkRefused(f"Cannot write {where}: {faults.ADVICE[kind]}")
        return SinkLost(f"Cannot write {where}: it is not reached any more, or not there. It is begun anew.")


def _is_full(error: libvirt.libvirtError | ConnectorError | OSError) -> bool:
    if isinstance(error, OSError):
        return error.errno in (errno.ENOSPC, errno.EDQUOT)
    kind = faults.kind_of(error) if isinstance(error, libvirt.libvirtError) else type(error)
    return issubclass(kind, CapacityExhausted)


class _Way(Protocol):
    """From the image's second cluster on; its header comes last. Raises libvirt.libvirtError or OSError."""

    def send(self, data: bytes) -> None: ...
    def end(self, header: bytes) -> None: ...
    def drop(self) -> None:
        """Nothing is sent any more. Raises nothing."""


class _Upload:
    def __init__(self, volume: volumes.Volume) -> None:
        self._volume = volume
        self._stream = self._begin(CLUSTER, 0)

    def _begin(self, at: int, length: int) -> Any:
        stream = self._volume.connect().newStream()
        self._volume.upload(stream, at, length)
        return stream

    def send(self, data: bytes) -> None:
        at = 0
        while at < len(data):
            # Only what goes at once is cut out: the binding takes nothing but bytes.
            at += self._stream.send(data[at : at + LARGEST])

    def end(self, header: bytes) -> None:
        self._stream.finish()
        self._stream = self._begin(0, CLUSTER)
        self.send(header)
        self._stream.finish()

    def drop(self) -> None:
        with suppress(libvirt.libvirtError):
            self._stream.abort()


class _File:
    def __init__(self, file: int) -> None:
        """It becomes the owner of the descriptor."""
        self._file = file
        self._at = self._begun = CLUSTER

    def send(self, data: bytes) -> None:
        _write(self._file, data, self._at)
        self._at += len(data)
        if self._at - self._begun >= BACKLOG:
            # Linux begins to write back what it is told is not needed: at the end little is left to wait for.
            os.posix_fadvise(self._file, self._begun, self._at - self._begun, os.POSIX_FADV_DONTNEED)
            self._begun = self._at

    def end(self, header: bytes) -> None:
        # The header last: what it speaks of has reached the disk by then.
        os.fdatasync(self._file)
        _write(self._file, header, 0)
        os.fdatasync(self._file)
        self.drop()

    def drop(self) -> None:
        os.close(self._file)


def _write(file: int, data: bytes, at: int) -> None:
    rest = memoryview(data)
    while rest:
        written = os.pwrite(file, rest, at)
        at, rest = at + written, rest[written:]


def same_file(connection: Any, volume: volumes.Volume) -> int | None:
    """A descriptor of the volume's file, if it lies on this machine and may be written; else None.

    A path of the same name may be another file: libvirt may see other mounts, or stand behind a forwarded socket. So a
    mark is sent there, behind the empty image's header, and looked for here; what does not show it is not touched.
    """
    mark = secrets.token_bytes(MARK)
    stream = connection.newStream()
    volume.upload(stream, CLUSTER, MARK)
    stream.send(mark)
    stream.finish()
    try:
        file = os.open(str(volume.path()), os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return None
    with suppress(OSError):
        if stat.S_ISREG(os.fstat(file).st_mode) and os.pread(file, MARK, CLUSTER) == mark:
            return file
    os.close(file)
    return None
