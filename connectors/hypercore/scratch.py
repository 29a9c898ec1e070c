"""Places on this machine for images that are on their way. They go with whoever made them, also if that one was killed.

Each is a folder with a file `owner`, on which its maker holds a lock. The kernel drops it however the maker ends, so
nobody guesses by process ids or times: what has no owner is removed by the next one who comes.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path

PREFIX = "hypercore-disks-"


class Scratch:
    """A folder of its own in the working directory."""

    def __init__(self, workdir: Path) -> None:
        """Removes those whose makers are gone, in the working directories beside this one too."""
        remove_abandoned(workdir.parent)
        self.folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=workdir))
        mine = self.folder / "mine"
        self._owner: int | None = os.open(mine, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(self._owner, fcntl.LOCK_EX | fcntl.LOCK_NB)
        mine.rename(self.folder / "owner")  # nobody sees it without its lock

    def close(self) -> None:
        """Idempotent; never raises."""
        owner, self._owner = self._owner, None
        if owner is not None:
            shutil.rmtree(self.folder, ignore_errors=True)
            os.close(owner)


def remove_abandoned(workdirs: Path) -> None:
    for folder in workdirs.glob(f"*/{PREFIX}*"):
        with suppress(OSError):
            owner = os.open(folder / "owner", os.O_RDWR | os.O_CLOEXEC)
            try:
                fcntl.flock(owner, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
            finally:
                os.close(owner)
