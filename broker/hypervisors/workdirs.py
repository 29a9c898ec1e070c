"""Working directories of connectors: certificates, keys, images of disks on their way. Each goes with its connector.

A process that is killed cannot remove what it had, and an image may be as large as a disk. So each directory is locked
by whoever has it. The kernel drops the lock however that process ends, and nobody guesses by process ids or times: what
no one holds is removed by the next who makes one. Where the file system knows no such locks nothing is removed.
"""

from __future__ import annotations

import fcntl
import os
import shutil
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

PREFIX = "held-"
"""Directories of earlier releases, which held no lock, have names without it: they are left alone."""


@dataclass(frozen=True, slots=True)
class Workdir:
    """Held until it is given back or this process ends."""

    folder: Path
    _lock: int

    def give_back(self) -> None:
        """It goes with all that is in it. Never raises."""
        shutil.rmtree(self.folder, ignore_errors=True)
        os.close(self._lock)


def take(root: Path) -> Workdir:
    """A new one below this folder, readable by us alone. Removes those that nobody holds."""
    root.mkdir(parents=True, exist_ok=True, mode=0o700)
    _remove_abandoned(root)
    while True:
        folder = root / f"{PREFIX}{uuid4().hex}"
        folder.mkdir(mode=0o700)
        # Before it is locked it looks abandoned: somebody else may be removing it right now. Then another one is made.
        with suppress(FileNotFoundError):
            lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            if _is_locked(lock) is not False and folder.exists():
                return Workdir(folder, lock)
            os.close(lock)


def _is_locked(handle: int) -> bool | None:
    """By us now. None: nobody can lock anything here."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def _remove_abandoned(root: Path) -> None:
    for folder in root.glob(f"{PREFIX}*"):
        with suppress(OSError):
            handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                if _is_locked(handle):
                    shutil.rmtree(folder, ignore_errors=True)
            finally:
                os.close(handle)
