"""A disk image that a host fetches while it is still being written here.

QEMU lays a disk's blocks into the file one behind the other, in the order in which they are written first, and goes
back to none once a later one has begun: so what lies a block behind the file's end is final, but for the tables at its
beginning, which are fetched last. A disk of terabytes is on the host a moment after its last byte was written here.

    GET /image    from where `X-From` says: 206 with bytes, 204 if there are none yet, 200 with what the whole is
    GET /head     the tables
    POST /done    the host has the image whole, or says what went wrong

Each bears the number of the image (`X-Image`): what an earlier one's errand asks is refused.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path

from connectors.hyperv.dock import LONGEST_POLL_S, Failed, as_object

PIECE = 4 << 20
LARGEST_BLOCK = 256 << 20
"""Of VHDX; QEMU chooses at most 64 MiB by itself."""


class Gifts:
    """Images, one at a time, for one host."""

    def __init__(self, behind: int = LARGEST_BLOCK) -> None:
        self._behind = behind
        self._changed = threading.Condition()
        self._file = -1
        self._number = ""
        self._head = 0
        self._size = 0
        """Of the whole file; 0: it still grows."""
        self._given = 0
        """How far it has been asked for."""
        self._digest = sha256()
        self._end: Mapping[str, object] | None = None
        self._is_closed = False
        self.heard_at = 0.0
        """When the host last asked for anything of this image; 0: never."""

    # --- this side ---

    def begin(self, number: str, image: Path) -> int:
        """A new image, in which nothing but its tables stands so far; how long these are."""
        with self._changed:
            self._close_file()
            self._file = os.open(image, os.O_RDONLY | os.O_CLOEXEC)
            self._head = self._given = os.fstat(self._file).st_size
            self._number, self._size, self._digest = number, 0, sha256()
            self._end, self.heard_at = None, 0.0
            return self._head

    def grew(self) -> None:
        with self._changed:
            self._changed.notify_all()

    def complete(self) -> None:
        """Nobody writes to it any more."""
        with self._changed:
            self._size = os.fstat(self._file).st_size
            self._changed.notify_all()

    @property
    def waiting(self) -> int:
        """Bytes that stand here and have not been asked for."""
        with self._changed:
            return os.fstat(self._file).st_size - self._given if self._file >= 0 else 0

    def wait(self, seconds: float) -> bool:
        """For something to happen; whether the host has the image whole. Raises `Failed`."""
        with self._changed:
            given = self._given
            self._changed.wait_for(lambda: self._end is not None or self._given > given, seconds)
            if self._end:
                raise Failed(self._end)
            return self._end is not None

    def give_up(self) -> None:
        """The host is told when it asks next."""
        with self._changed:
            self._close_file()
            self._number = ""
            self._changed.notify_all()

    def close(self) -> None:
        with self._changed:
            self._is_closed = True
        self.give_up()

    def _close_file(self) -> None:
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    # --- the host's side ---

    def answer(self, request: str, headers: Mapping[str, str], body: bytes) -> tuple[int, bytes]:
        with self._changed:
            if self._is_closed or self._file < 0 or headers.get("x-image") != self._number:
                return 410, b""
            self.heard_at = time.monotonic()
            match request:
                case "GET /image":
                    return self._rest(headers.get("x-from", ""))
                case "GET /head":
                    return 206, os.pread(self._file, self._head, 0) if self._size else b""
                case "POST /done":
                    self._end = (as_object(body) or {"id": "Deskyard.LineLost"}) if headers.get("x-fault") else {}
                    self._changed.notify_all()
                    return 200, b""
        return 404, b""

    def _rest(self, told: str) -> tuple[int, bytes]:
        """Called with the lock, which it lets go of while it waits."""
        if not told.isdigit() or not self._head <= int(told) <= self._given:
            return 416, b""
        start, number = int(told), self._number
        self._changed.wait_for(lambda: self._number != number or self._size or self._final > start, LONGEST_POLL_S)
        if self._number != number:
            return 410, b""
        if start < self._final:
            return 206, self._piece(start, min(self._final, start + PIECE))
        if not self._size:
            return 204, b""
        return 200, self._whole()

    @property
    def _final(self) -> int:
        """Everything before it, but for the tables, is as it will be."""
        return self._size or os.fstat(self._file).st_size - self._behind

    def _piece(self, start: int, stop: int) -> bytes:
        data = os.pread(self._file, stop - start, start)
        # What was lost on its way is asked for again: it counts once.
        if start + len(data) > self._given:
            self._digest.update(data[self._given - start :])
            self._given = start + len(data)
            self._changed.notify_all()
        return data

    def _whole(self) -> bytes:
        digest = self._digest.copy()
        digest.update(os.pread(self._file, self._head, 0))
        return json.dumps({"bytes": self._size, "head": self._head, "sha256": digest.hexdigest()}).encode("ascii")
