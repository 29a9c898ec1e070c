"""A disk on its way to Prism Central: an upload to the object store, part by part, that becomes an image."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from connectors.errors import (
    CapacityExhausted,
    CertificateRejected,
    ConnectorError,
    CredentialsRejected,
    PlatformFault,
    Unsupported,
)
from connectors.nutanix import errands
from connectors.nutanix.client import OutOfTime
from connectors.nutanix.errands import IMAGES, Trail, Working
from connectors.nutanix.objects import ObjectStore
from disks.errors import DiskError, OutOfSpace, SinkLost, SinkRefused
from disks.qcow2 import CLUSTER, Qcow2

PART = 16 << 20
"""Bytes of a part. S3 wants 5 MiB at least, and takes 10,000 parts: disks of more than 150 GiB have larger ones."""
FIRST_PART = 8 << 20
"""Bytes of the first part, which waits in memory to the end: it begins with the header."""
MOST_PARTS = 9_900
OPEN_S = 60.0
COMMIT_S = 1000.0
"""How long the object store and the image service may take in all once a disk is sent."""
ABANDON_S = 30.0


@dataclass(slots=True)
class Parts:
    """Bytes in order -> parts of an upload, whose first one waits until the header is known."""

    size: int
    """Bytes of the disk."""
    first: bytearray = field(default_factory=lambda: bytearray(CLUSTER))
    rest: bytearray = field(default_factory=bytearray)
    number: int = 1
    """Of the last part that was given out."""

    @property
    def length(self) -> int:
        """Of every part but the first and the last: the image is larger than the disk by its tables."""
        whole = self.size + self.size // 4096 + (4 << 20)
        return max(PART, -(-whole // MOST_PARTS))

    def add(self, data: bytes) -> Iterable[tuple[int, bytes]]:
        """The parts that are full by this."""
        view = memoryview(data)
        if room := FIRST_PART - len(self.first):
            self.first += view[:room]
            view = view[room:]
        while view:
            room = self.length - len(self.rest)
            self.rest += view[:room]
            view = view[room:]
            if len(self.rest) == self.length:
                yield self._next()

    def end(self, header: bytes) -> Iterable[tuple[int, bytes]]:
        if self.rest:
            yield self._next()
        self.first[: len(header)] = header
        yield 1, bytes(self.first)

    def _next(self) -> tuple[int, bytes]:
        self.number += 1
        data, self.rest = bytes(self.rest), bytearray()
        return self.number, data


class UploadSink:
    """A `disks.base.Sink`. Memory: the first part and the one that is being gathered.

    `abandon` removes what was sent; where the line is dead it cannot, and `clear` does.
    """

    def __init__(
        self, words: str, name: str, size: int, cluster: str, trail: Trail, working: Working,
        tell: Callable[[], ObjectStore],
    ) -> None:  # fmt: skip
        """Raises `SinkLost`, `SinkRefused`, `OutOfSpace`."""
        self.image = ""
        """Its id, once it is whole."""
        self._words = words
        self._name = name
        self._cluster = cluster
        self._trail = trail
        self._working = working
        self._disk = Qcow2(size)
        self._parts = Parts(size)
        self._etags: dict[int, str] = {}
        self._upload = ""
        self._is_over = False
        try:
            self._store = tell()
            self._upload = self._store.begin(name, time.monotonic() + OPEN_S)
        except (ConnectorError, OutOfTime) as error:
            raise self._problem(error) from error

    def write(self, offset: int, data: bytes) -> None:
        for piece in self._disk.write(offset, data):
            self._send(self._parts.add(piece))

    def zero(self, offset: int, length: int) -> None:
        """Nothing to do: offsets rise, and a new image is zeros where nothing was written."""

    def _send(self, parts: Iterable[tuple[int, bytes]]) -> None:
        if self._is_over:
            raise ValueError("this copy has ended")
        for number, data in parts:
            try:
                self._etags[number] = self._store.put(
                    self._name, self._upload, number, data, time.monotonic() + COMMIT_S
                )
            except (ConnectorError, OutOfTime) as error:
                raise self._problem(error) from error

    def commit(self) -> None:
        for piece in self._disk.finish():
            self._send(self._parts.add(piece))
        self._send(self._parts.end(self._disk.header()))
        deadline = time.monotonic() + COMMIT_S
        try:
            self._store.complete(self._name, self._upload, self._etags, deadline)
            image = self._make_image(deadline)
            self._store.delete(self._name, deadline)
        except (ConnectorError, OutOfTime) as error:
            raise self._problem(error) from error
        self.image = image
        self._is_over = True
        self._store.close()

    def _make_image(self, deadline: float) -> str:
        errand = self._working(deadline, f"Making an image of {self._words}")
        try:
            task = errands.start(errand, self._trail, IMAGES, self._body(), f"image {self._name}")
            image = errands.made(errand, IMAGES, errands.wait(errand, task), self._name)
            seen = errand.client.get("vmm", f"{IMAGES.path}/{image}", deadline, doing=errand.doing).data
            size = seen.get("sizeBytes") if isinstance(seen, dict) else None
            if isinstance(size, int) and size != self._disk.size:
                raise PlatformFault(
                    f"Prism Central made an image of {size} bytes of {self._words}, which has {self._disk.size}."
                )
            return image
        finally:
            errand.client.close()

    def _body(self) -> dict[str, Any]:
        body: dict[str, Any] = {
            "$objectType": "vmm.v4.content.Image",
            "name": self._name,
            "type": "DISK_IMAGE",
            "source": {"$objectType": "vmm.v4.content.ObjectsLiteSource", "key": self._name},
        }
        return body | {"clusterLocationExtIds": [self._cluster]}

    def abandon(self) -> None:
        if self._is_over:
            return
        self._is_over = True
        deadline = time.monotonic() + ABANDON_S
        with suppress(ConnectorError, OutOfTime):
            if self._upload:
                self._store.abort(self._name, self._upload, deadline)
            self._store.delete(self._name, deadline)
        with suppress(ConnectorError, OutOfTime):
            errand = self._working(deadline, f"Removing {self._words}")
            try:
                errands.remove(errand, self._name, (IMAGES,), self._trail)
            finally:
                errand.client.close()
        self._store.close()

    def _problem(self, error: ConnectorError | OutOfTime) -> DiskError:
        words = error.message if isinstance(error, ConnectorError) else "Prism Central gives us no turn."
        if isinstance(error, CapacityExhausted):
            return OutOfSpace(f"No room for {self._words}. {words}")
        if isinstance(error, CredentialsRejected | CertificateRejected | Unsupported | PlatformFault):
            return SinkRefused(f"{self._words} cannot be sent. {words}")
        return SinkLost(f"{self._words} cannot be sent. {words}")
