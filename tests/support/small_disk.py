"""File systems that are small or read-only in fact, for what is full or may not be written.

Each is mounted, opened and at once unmounted from its place: it lives as long as somebody has it open, and is reached
by way of the open handle, by other processes too. Whatever ends this process, the kernel takes it away.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.prerequisites import require_root
from tests.support.scratch import scratch_directory


@contextmanager
def small_disk(size_mib: int) -> Iterator[Path]:
    """An empty folder that has room for so much."""
    path, handle = _detached("-t", "tmpfs", "-o", f"size={size_mib}m,mode=0700", "tmpfs")
    try:
        yield path
    finally:
        os.close(handle)


def read_only_view(folder: Path) -> tuple[Path, int]:
    """The same folder, which may only be read there; whoever closes the handle ends it."""
    return _detached("--bind", "-o", "ro", str(folder))


def _detached(*what: str) -> tuple[Path, int]:
    require_root("A file system of a test's own")
    with scratch_directory("disk") as place:
        there = place / "there"
        there.mkdir()
        subprocess.run(["mount", *what, there], check=True)
        try:
            handle = os.open(there, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        finally:
            subprocess.run(["umount", "--lazy", there], check=True)
    return Path(f"/proc/{os.getpid()}/fd/{handle}"), handle
