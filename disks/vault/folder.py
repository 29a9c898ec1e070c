"""A store in a folder: a local disk or a mounted share.

On NFS every machine must see at once what another has written: mount with `lookupcache=none,actimeo=0`.
"""

from __future__ import annotations

import errno
import fcntl
import os
import uuid
from collections.abc import Collection, Iterator
from contextlib import suppress
from pathlib import Path

from disks.errors import DiskError, NotFound, OutOfSpace, Refused, SinkRefused, StoreLost
from disks.raw import RIGHTS, ROOM, settle
from disks.vault.store import require_name

HALF = ".half-written"
"""Folder of objects that are being written. No part of a name begins with a dot, so it is never listed."""
TRIES = 5
"""An emptied folder may be removed by one process while another puts something there."""


class FolderStore:
    """Objects are files; a name's parts are folders. The folder itself must be there: no unmounted share is filled."""

    def __init__(self, root: Path) -> None:
        """Raises `Refused` if there is no such folder."""
        self._root = root
        self._half = root / HALF
        if not root.is_dir():
            raise Refused(f"The vault's folder {root} is not there. Check the path, and that the share is mounted.")

    def put(self, name: str, content: bytes) -> None:
        target = self._path(name)
        for left in reversed(range(TRIES)):
            half = self._half / uuid.uuid4().hex
            try:
                self._write(half, content)
                target.parent.mkdir(parents=True, exist_ok=True)
                os.replace(half, target)
                settle(target.parent)
                return
            except OSError as error:
                with suppress(OSError):
                    half.unlink()
                if error.errno != errno.ENOENT or not left or not self._root.is_dir():
                    raise self._error(error, "write") from error

    def _write(self, half: Path, content: bytes) -> None:
        self._half.mkdir(exist_ok=True)
        handle = os.open(half, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            # `tidy` knows by the lock that the writer lives; where there are no locks it removes nothing.
            with suppress(OSError):
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            rest = memoryview(content)
            while rest:
                rest = rest[os.write(handle, rest) :]
            os.fsync(handle)
        finally:
            os.close(handle)

    def get(self, name: str) -> bytes:
        try:
            return self._path(name).read_bytes()
        except OSError as error:
            raise self._error(error, "read", name) from error

    def exists(self, name: str) -> bool:
        try:
            os.stat(self._path(name))
        except FileNotFoundError:
            self._require_root()
            return False
        except OSError as error:
            raise self._error(error, "read", name) from error
        return True

    def present(self, names: Collection[str]) -> set[str]:
        return {name for name in names if self.exists(name)}

    def list(self, prefix: str) -> Iterator[str]:
        """Folder by folder."""
        if prefix:
            require_name(prefix.rstrip("/"))
        yield from self._below(prefix)

    def _below(self, prefix: str) -> Iterator[str]:
        try:
            with os.scandir(self._root / prefix) as entries:
                found = sorted((entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries)
        except FileNotFoundError:
            self._require_root()
            return
        except OSError as error:
            raise self._error(error, "read", prefix) from error
        for name, is_folder in found:
            if name.startswith("."):
                continue
            if is_folder:
                yield from self._below(f"{prefix}{name}/")
            else:
                yield prefix + name

    def delete(self, name: str) -> None:
        path = self._path(name)
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise self._error(error, "write") from error
        self._prune(path.parent)

    def move(self, name: str, new_name: str) -> None:
        path, target = self._path(name), self._path(new_name)
        for left in reversed(range(TRIES)):
            try:
                target.parent.mkdir(parents=True, exist_ok=True)
                os.replace(path, target)
                settle(target.parent)
                break
            except OSError as error:
                if error.errno != errno.ENOENT or not left or not path.exists():
                    raise self._error(error, "write", name) from error
        self._prune(path.parent)

    def _prune(self, folder: Path) -> None:
        """Folders that have become empty go, up to the store's own."""
        with suppress(OSError):
            while folder != self._root:
                folder.rmdir()
                folder = folder.parent

    def tidy(self) -> None:
        with suppress(OSError):
            for half in self._half.iterdir():
                with suppress(OSError), half.open("rb") as file:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # the kernel lets go of it when the writer dies
                    half.unlink()

    def close(self) -> None:
        """Nothing is held open."""

    def _path(self, name: str) -> Path:
        return self._root / require_name(name)

    def _require_root(self) -> None:
        # A share that was unmounted must not look like a vault in which nothing is.
        if not self._root.is_dir():
            raise StoreLost(f"The vault's folder {self._root} is gone. Check that the share is mounted.")

    def _error(self, error: OSError, verb: str, name: str = "") -> DiskError:
        if error.errno in {errno.ENOENT, errno.ENOTDIR}:
            if not self._root.is_dir():
                return StoreLost(f"The vault's folder {self._root} is gone. Check that the share is mounted.")
            if name:
                return NotFound(f"{name} is not in the vault {self._root}. Read the list again.")
        if error.errno in ROOM:
            return OutOfSpace(f"The vault {self._root} is full. Make room there, or delete points and collect.")
        if error.errno in RIGHTS:
            if verb == "read":
                return Refused(f"The vault {self._root} may not be read: {error.strerror}. Check its rights.")
            return SinkRefused(f"The vault {self._root} is read-only for us: {error.strerror}. Check mount and rights.")
        return StoreLost(f"Cannot {verb} in the vault {self._root}: {error.strerror}. Check the storage it lies on.")
