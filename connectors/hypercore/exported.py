"""An export on its way to the share or there, and its disks as sources: fetched first, then served by qemu-nbd.

A qcow2 image cannot be read from front to back, and QEMU does not read shares: so a disk's file lies on this machine
while it is read, one at a time, and takes as much room there as it has data. Fetching goes on in slices, so that
whoever carries the bytes can show signs of life and be stopped.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from lxml import etree

from connectors.errors import CapacityExhausted, ConnectorError, Unsupported
from connectors.hypercore import mapping
from connectors.hypercore import work as working
from connectors.hypercore.carrying import Carrier
from connectors.hypercore.client import OutOfTime, segment
from connectors.hypercore.faults import Refusal, kind_of
from connectors.hypercore.scratch import Scratch
from connectors.hypercore.share import Remote, Share
from disks.base import Extent, Source
from disks.errors import DiskError, OutOfSpace, SourceLost, SourceRefused
from disks.raw import write_error
from disks.vault.points import Drive

DEFINITION = "point.xml"
LONGEST_DEFINITION = 4 << 20
PIECE = 1 << 20
ASK_S = 3.0
"""How often to ask how far an export is."""
SLICE_S = 5.0
STUCK_S = 3600.0
"""An export that gets no further for so long is given up."""


class Export:
    """Not safe among threads."""

    def __init__(
        self, carrier: Carrier, share: Share, *, machine: str, folder: str, files: Mapping[str, str], task: str
    ) -> None:
        """`files`: name of a disk -> id of the device that its file bears. `task`: the export's tag."""
        self.carrier = carrier
        self._share = share
        self._machine = machine
        self._folder = folder
        self._files = files
        self._tag = task
        self._percent = -1
        self._moved_at = time.monotonic()
        self._is_there = False

    def wait(self, until: float) -> str:
        """What it is at; empty once all files are there. Raises `DiskError`."""
        while not self._is_there:
            task = self._task()
            if task is None or not task.is_under_way:
                if task is not None and task.has_failed:
                    raise self._failed(task.words)
                self._require_definition()
                self._is_there = True
                break
            if task.percent != self._percent:
                self._percent, self._moved_at = task.percent, time.monotonic()
            elif time.monotonic() > self._moved_at + STUCK_S:
                raise SourceLost(f"The export of {self._machine!r} gets no further. It is begun anew.")
            if time.monotonic() >= until:
                return f"HyperCore writes its export of {self._machine}: {self._percent} %"
            time.sleep(min(ASK_S, working.TASK_S * 4, max(0.0, until - time.monotonic())))
        return ""

    def _task(self) -> mapping.Task | None:
        deadline = time.monotonic() + 60.0
        path = f"/TaskTag/{segment(self._tag)}"
        try:
            records = self.carrier.wire.get(path, deadline, "asking after the export") if self._tag else []
        except OutOfTime:
            raise SourceLost(f"{self.carrier.settings.endpoint} does not answer. It is tried again.") from None
        except Refusal as refusal:
            words = f"{self.carrier.settings.endpoint} does not say how far the export is ({refusal.status})."
            raise SourceLost(f"{words} It is tried again.") from None
        except ConnectorError as error:
            raise _lost(error) from error
        return mapping.read_task(records[0]) if records else None

    def _failed(self, words: str) -> DiskError:
        words = self.carrier.settings.redacted(words)  # they may repeat the share's address
        what = f"HyperCore's export of {self._machine!r} to {self._share.place} failed: {words}."
        if kind_of(Refusal(0, words)) is CapacityExhausted:
            return OutOfSpace(f"{what} Make room on the share.")
        return SourceLost(f"{what} Check that its nodes reach the share.")

    def _require_definition(self) -> None:
        """That the export's own list of disks has those that are wanted."""
        try:
            found = devices_of(self._share.read(self._folder, DEFINITION, LONGEST_DEFINITION))
        except ConnectorError as error:
            raise _lost(error) from error
        for name, device in self._files.items():
            if device not in found:
                raise SourceLost(f"The export of {self._machine!r} is without disk {name}. It is begun anew.")

    def open(self, disk: str) -> Remote:
        try:
            return self._share.open(self._folder, f"{self._files[disk]}.qcow2")
        except ConnectorError as error:
            raise _lost(error) from error


def devices_of(definition: bytes) -> list[str]:
    """Ids of the disks that an export's definition names: what `source` has behind its last slash. NUL bytes are in it.

    Raises `SourceLost` for what is no definition.
    """
    parser = etree.XMLParser(resolve_entities=False, no_network=True, load_dtd=False)
    try:
        root = etree.fromstring(definition.replace(b"\0", b""), parser)
    except etree.XMLSyntaxError as error:
        raise SourceLost("The export's definition cannot be read. It is begun anew.") from error
    sources = root.iterfind(".//disk[@device='disk']/source")
    return [str(source.get("name") or "").rpartition("/")[2] for source in sources]


def _lost(error: ConnectorError) -> DiskError:
    """Of the share or the cluster, in the middle of reading."""
    return SourceRefused(error.message) if isinstance(error, Unsupported) else SourceLost(error.message)


class ExportedDisk:
    """A disk of an export: fetched first, then served from here. A `disks.base.Source`, and a `disks.base.Slow` one."""

    def __init__(self, export: Export, drive: Drive) -> None:
        self.size = drive.size
        self._export = export
        self._name = drive.name
        self._guard = threading.Lock()
        self._scratch: Scratch | None = None
        self._remote: Remote | None = None
        self._file: Any = None
        self._fetched = 0
        self._source: Source | None = None

    def advance(self, until: float) -> str:
        with self._guard:
            return self._advance(until)

    def _advance(self, until: float) -> str:
        if self._source is not None:
            return ""
        if step := self._export.wait(until):
            return step
        remote = self._remote = self._remote or self._export.open(self._name)
        path = self._place()
        while data := self._piece(remote):
            self._write(data)
            if time.monotonic() >= until:
                return f"Fetches disk {self._name} from the share: {100 * self._fetched // max(1, remote.size)} %"
        if self._fetched < remote.size:
            raise SourceLost(f"The export's file of disk {self._name} ended too soon. It is begun anew.")
        self._close_files()
        self._source = self._serve(path)
        return ""

    def _place(self) -> Path:
        self._scratch = self._scratch or Scratch(self._export.carrier.surroundings.workdir)
        return self._scratch.folder / "disk.qcow2"

    def _piece(self, remote: Remote) -> bytes:
        try:
            return remote.read(PIECE)
        except ConnectorError as error:
            raise _lost(error) from error

    def _write(self, data: bytes) -> None:
        path = self._place()
        try:
            self._file = self._file or path.open("wb")
            self._file.write(data)
        except OSError as error:
            raise write_error(error, path) from error
        self._fetched += len(data)

    def _serve(self, path: Path) -> Source:
        images = load_images()
        try:
            images.require_sound(path, images.Format.QCOW2)
            source: Source = images.ImageSource(path, images.Format.QCOW2)
        except SourceRefused as error:
            words = f"The export's file of disk {self._name} is damaged. It is begun anew. {error.message}"
            raise SourceLost(words) from error
        if source.size < self.size:
            source.close()
            raise SourceLost(f"The export's file of disk {self._name} is smaller than the disk. It is begun anew.")
        return source

    def _ready(self) -> Source:
        with self._guard:
            while self._advance(time.monotonic() + SLICE_S):
                pass
            if self._source is None:
                raise SourceLost(f"Disk {self._name} was closed.")
            return self._source

    def extents(self) -> Iterator[Extent]:
        """An image may be larger than its disk: HyperCore stores whole blocks."""
        for extent in self._ready().extents():
            if extent.offset >= self.size:
                return
            yield Extent(extent.offset, min(extent.length, self.size - extent.offset), extent.is_zero)

    def read(self, offset: int, length: int) -> bytes:
        return (self._source or self._ready()).read(offset, length)

    def _close_files(self) -> None:
        remote, self._remote = self._remote, None
        file, self._file = self._file, None
        if remote is not None:
            remote.close()
        if file is not None:
            try:
                file.close()
            except OSError as error:
                raise write_error(error, self._place()) from error

    def close(self) -> None:
        with suppress(DiskError):
            self._close_files()
        source, self._source = self._source, None
        if source is not None:
            source.close()
        if self._scratch is not None:
            self._scratch.close()


def load_images() -> Any:
    """libnbd comes from Debian alone, and desktops run without it. Raises `Unsupported`."""
    try:
        from disks import images
    except ImportError as error:
        raise Unsupported(
            "Disks cannot be read on this machine: libnbd is missing. Install it: apt-get install python3-libnbd."
        ) from error
    return images
