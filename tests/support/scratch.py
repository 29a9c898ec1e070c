"""Folders of one test run; those of a run that was killed are removed by the next one.

A folder belongs to the process that holds the lock on the file `owner` in it. The kernel drops the lock however that
process ends, so "no owner" is never a guess from process ids or times.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


def scratch_root() -> Path:
    """Where all folders lie. Short: a UNIX socket's path may have 107 characters. Other users may pass through it."""
    root = Path(os.environ.get("DESKYARD_SCRATCH", f"/var/tmp/deskyard-{os.geteuid()}"))
    root.mkdir(mode=0o755, parents=True, exist_ok=True)
    return root


@contextmanager
def scratch_directory(kind: str) -> Iterator[Path]:
    """An empty folder for the length of the block. What runs in it must die with the test run: see `die_with_us`."""
    root = scratch_root()
    remove_abandoned(kind)
    folder = Path(tempfile.mkdtemp(prefix=f"{kind}-", dir=root))
    folder.chmod(0o755)
    lock = _take_ownership(folder)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)


def remove_abandoned(kind: str) -> None:
    """Removes the folders of that kind whose owner is gone."""
    for folder in scratch_root().glob(f"{kind}-*"):
        with suppress(BlockingIOError, FileNotFoundError):
            lock = _take_ownership(folder, create=False)
            try:
                shutil.rmtree(folder, ignore_errors=True)
            finally:
                os.close(lock)


def _take_ownership(folder: Path, *, create: bool = True) -> int:
    """The lock's descriptor. BlockingIOError: the folder has an owner."""
    # Close-on-exec: a child must not keep a dead run's folder alive.
    flags = os.O_RDWR | os.O_CLOEXEC | (os.O_CREAT if create else 0)
    lock = os.open(folder / "owner", flags, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        raise
    return lock
