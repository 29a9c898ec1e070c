"""A disk read as it comes: an image's file, which Prism sends from front to back."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterator

import requests
import urllib3

from connectors.errors import CertificateRejected, ConnectorError, CredentialsRejected, Unsupported
from connectors.nutanix.client import Client, OutOfTime, segment
from disks.base import Extent
from disks.errors import DiskError, SourceLost, SourceRefused

OPEN_S = 60.0
"""How long the beginning of an answer may keep us waiting."""
TRIES = 4
"""How often the line may break without a byte between."""
PAUSE_S = 0.3
AHEAD = 16 << 20
"""Bytes kept for those who ask out of order: a copy has two readers."""
BROKEN = (requests.RequestException, urllib3.exceptions.HTTPError, OSError)

_RANGE = re.compile(r"bytes (\d+)-\d+/(\d+)")


class ImageSource:
    """A `disks.base.Source`. One stream, begun again where it broke; memory: `AHEAD` and what is asked for."""

    def __init__(self, client: Client, image: str, size: int, name: str) -> None:
        """`client` is this source's alone. `name` is what people call the disk."""
        self._client = client
        self._image = image
        self._size = size
        self._name = name
        self._guard = threading.Lock()
        self._stream: requests.Response | None = None
        self._at = 0
        """Where the stream is."""
        self._kept: dict[int, bytes] = {}
        """What was read on the way to what was asked for: offset -> bytes."""

    @property
    def size(self) -> int:
        return self._size

    def extents(self) -> Iterator[Extent]:
        """Prism does not tell which parts hold nothing."""
        if self._size:
            yield Extent(0, self._size)

    def read(self, offset: int, length: int) -> bytes:
        """Cheap from front to back; else the stream begins anew, and where Prism can't begin in the midst, at 0."""
        with self._guard:
            found = self._from_kept(offset, length)
            if found is not None:
                return found
            gap = offset - self._at
            if not 0 <= gap <= AHEAD - sum(map(len, self._kept.values())):
                self._let_go()
                self._kept.clear()
                self._at = offset
            elif gap:
                start = self._at
                self._kept[start] = self._take(gap)
            return self._take(length)

    def _from_kept(self, offset: int, length: int) -> bytes | None:
        for start, data in self._kept.items():
            if start <= offset and offset + length <= start + len(data):
                del self._kept[start]
                before, found, after = (
                    data[: offset - start], data[offset - start : offset - start + length],
                    data[offset - start + length :],
                )  # fmt: skip
                self._kept |= {at: rest for at, rest in ((start, before), (offset + length, after)) if rest}
                return found
        return None

    def _take(self, length: int) -> bytes:
        """The next so many bytes of the stream."""
        taken, breaks = bytearray(), 0
        while len(taken) < length:
            data, words = self._more(length - len(taken))
            if data:
                taken += data
                self._at += len(data)
                breaks = 0
                continue
            self._let_go()
            breaks += 1
            if breaks >= TRIES:
                raise SourceLost(
                    f"{self._name} cannot be read to its end: the connection to Prism Central broke again and again. "
                    f"{words} It is copied anew."
                )
            time.sleep(PAUSE_S * breaks)
        return bytes(taken)

    def _more(self, length: int) -> tuple[bytes, str]:
        """At most so many bytes, or none and why."""
        try:
            stream = self._stream or self._open()
            return stream.raw.read(length, decode_content=False), "The file ended early."
        except SourceLost as error:
            return b"", error.message
        except BROKEN as error:
            return b"", f"The line broke ({type(error).__name__})."

    def _open(self) -> requests.Response:
        """At `_at`."""
        doing = f"reading {self._name}"
        self._client.patience_s = OPEN_S
        try:
            stream = self._client.stream(
                "vmm", f"content/images/{segment(self._image)}/file", time.monotonic() + OPEN_S, offset=self._at,
                doing=doing,
            )  # fmt: skip
        except (ConnectorError, OutOfTime) as error:
            raise self._problem(error) from error
        self._stream = stream
        self._skip(stream, self._start_of(stream))
        return stream

    def _start_of(self, stream: requests.Response) -> int:
        """Where in the disk the stream begins. A file that is not as large as the disk is no flat copy of it."""
        told, start = stream.headers.get("Content-Length", ""), 0
        total = int(told) if told.isdigit() else self._size
        if stream.status_code == 206:
            found = _RANGE.fullmatch(stream.headers.get("Content-Range", ""))
            start, total = (int(found[1]), int(found[2])) if found else (-1, -1)
        if total != self._size or not 0 <= start <= self._at:
            self._let_go()
            raise SourceRefused(
                f"Prism Central sends {self._name} as a file of {total} bytes, and the disk has {self._size}: that is "
                "not the disk's content as it is. Report this with the version of Prism Central."
            )
        return start

    def _skip(self, stream: requests.Response, start: int) -> None:
        left = self._at - start
        while left:
            data = stream.raw.read(min(left, 1 << 20), decode_content=False)
            if not data:
                raise urllib3.exceptions.ProtocolError("the file ended early")
            left -= len(data)

    def _problem(self, error: Exception) -> DiskError:
        if isinstance(error, CredentialsRejected | CertificateRejected | Unsupported):
            return SourceRefused(f"{self._name} cannot be read. {error.message}")
        words = error.message if isinstance(error, ConnectorError) else "Prism Central gives us no turn."
        return SourceLost(f"{self._name} cannot be read. {words}")

    def _let_go(self) -> None:
        stream, self._stream = self._stream, None
        if stream is not None:
            stream.close()

    def close(self) -> None:
        with self._guard:
            self._let_go()
            self._kept.clear()
            self._client.close()
