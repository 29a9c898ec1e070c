"""Raw disks: files with holes, and block devices."""

from __future__ import annotations

import errno
import os
import stat
import uuid
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from disks.base import Extent
from disks.errors import DiskError, OutOfSpace, SinkLost, SinkRefused, SourceLost, SourceRefused

ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
RIGHTS = {errno.EACCES, errno.EPERM, errno.EROFS}


class RawSource:
    """A raw file or block device. Holes are zero extents; everything is named."""

    def __init__(self, path: Path) -> None:
        """Raises `SourceRefused` for what is not there, not readable, or neither file nor block device."""
        self._path = path
        try:
            self._file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise SourceRefused(
                f"Cannot open the disk {path}: {error.strerror}. Check the path and its rights."
            ) from error
        mode = os.fstat(self._file).st_mode
        if not (stat.S_ISREG(mode) or stat.S_ISBLK(mode)):
            os.close(self._file)
            raise SourceRefused(f"{path} is neither a file nor a block device. Name a disk.")
        self._is_open = True
        self._size = os.lseek(self._file, 0, os.SEEK_END)

    @property
    def size(self) -> int:
        return self._size

    def extents(self) -> Iterator[Extent]:
        offset = 0
        while offset < self._size:
            data = self._seek(offset, os.SEEK_DATA, self._size)
            if data > offset:
                yield Extent(offset, data - offset, is_zero=True)
            if data == self._size:
                return
            hole = self._seek(data, os.SEEK_HOLE, self._size)
            yield Extent(data, hole - data)
            offset = hole

    def _seek(self, offset: int, whence: int, otherwise: int) -> int:
        """Where data or a hole begins. A device or file system that knows no holes is all data."""
        try:
            return os.lseek(self._file, offset, whence)
        except OSError as error:
            if error.errno == errno.ENXIO:  # no data after this
                return otherwise
            if error.errno in {errno.EINVAL, errno.EOPNOTSUPP}:
                return offset if whence == os.SEEK_DATA else otherwise
            raise self._lost(error) from error

    def read(self, offset: int, length: int) -> bytes:
        try:
            data = os.pread(self._file, length, offset)
            while len(data) < length:
                more = os.pread(self._file, length - len(data), offset + len(data))
                if not more:
                    raise SourceLost(
                        f"{self._path} became shorter while it was read. Copy it again once it is at rest."
                    )
                data += more
        except OSError as error:
            raise self._lost(error) from error
        return data

    def _lost(self, error: OSError) -> SourceLost:
        return SourceLost(f"Cannot read the disk {self._path}: {error.strerror}. Check the storage it lies on.")

    def close(self) -> None:
        if self._is_open:
            self._is_open = False
            os.close(self._file)


class RawSink:
    """A new sparse file. It has its name once it is committed; before, it lies beside it under a name of its own."""

    def __init__(self, path: Path, size: int) -> None:
        """What stands at `path` is replaced by the commit. Raises `SinkRefused`, `OutOfSpace`."""
        self._path = path
        self._partial = path.with_name(f".{path.name}.{uuid.uuid4().hex}.partial")
        try:
            self._file: int | None = os.open(self._partial, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise write_error(error, path) from error
        try:
            os.ftruncate(self._file, size)
        except OSError as error:
            self.abandon()
            raise write_error(error, path) from error

    def write(self, offset: int, data: bytes) -> None:
        rest = memoryview(data)
        try:
            while rest:
                written = os.pwrite(self._open_file(), rest, offset)
                offset, rest = offset + written, rest[written:]
        except OSError as error:
            raise write_error(error, self._path) from error

    def zero(self, offset: int, length: int) -> None:
        """Nothing to do: offsets rise, and a new file is zeros where nothing was written."""

    def commit(self) -> None:
        file = self._open_file()
        try:
            os.fsync(file)
            os.replace(self._partial, self._path)
            settle(self._path.parent)
        except OSError as error:
            raise write_error(error, self._path) from error
        os.close(file)
        self._file = None

    def abandon(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None
            with suppress(OSError):
                self._partial.unlink()

    def _open_file(self) -> int:
        if self._file is None:
            raise ValueError("this copy has ended")
        return self._file


def settle(folder: Path) -> None:
    """What was renamed in the folder is so after a power cut too."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_error(error: OSError, path: Path) -> DiskError:
    """The group of errors that a failed write belongs to."""
    if error.errno in ROOM:
        return OutOfSpace(f"No room for {path}: {error.strerror}. Make room there or choose another place.")
    if error.errno in RIGHTS or error.errno in {errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG}:
        return SinkRefused(f"Cannot write {path}: {error.strerror}. Check the folder, its rights and its mount.")
    return SinkLost(f"Cannot write {path}: {error.strerror}. Check the storage it lies on.")
