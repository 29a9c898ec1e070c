"""How the disks of a point are read: by parts where that can be, else whole. And the sources that do it."""

from __future__ import annotations

import threading
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from uuid import uuid4

from connectors.errors import ConnectorError, Unsupported
from connectors.esxi import faults, names
from connectors.esxi.api import vim
from connectors.esxi.client import Client
from connectors.esxi.errands import CALL_S, Errand
from connectors.esxi.faults import VimFault
from connectors.esxi.layout import PointDisk
from connectors.esxi.leases import Lease
from connectors.esxi.transfer import Parts, fetch, told
from connectors.replication import Bookmark
from disks.base import Extent, Source
from disks.errors import DiskError, SourceLost, SourceRefused

CHANGES = "changes"
"""Of a bookmark: change id by disk."""
ALLOCATED = "*"
"""The change id of no point at all: what is in use is asked for."""
LEASE_S = 90.0
"""Until a lease is ready."""


def images() -> ModuleType:
    """libnbd comes from Debian alone, and desktops run without it. Raises `Unsupported`."""
    try:
        from disks import images as found
    except ImportError as error:
        raise Unsupported(
            "Disks cannot be carried on this machine: libnbd is missing. Install it: apt-get install python3-libnbd."
        ) from error
    return found


@dataclass(frozen=True, slots=True)
class Reading:
    """Where the disks of a point are."""

    client: Client
    machine: str
    snapshot: str
    """Empty: the machine itself, which is a template."""
    workdir: Path

    def changes(self, disk: PointDisk, since: str, offset: int, deadline: float) -> tuple[list[tuple[int, int]], int]:
        """Areas (start, length) from the offset on, and how far they tell of the disk. Raises `VimFault`."""
        machine = self.client.object(vim.VirtualMachine, self.machine, deadline)
        answer = machine.QueryChangedDiskAreas(
            snapshot=vim.vm.Snapshot(self.snapshot), deviceKey=disk.disk.key, startOffset=offset, changeId=since
        )
        return [(area.start, area.length) for area in answer.changedArea], answer.startOffset + answer.length


@dataclass(frozen=True, slots=True)
class Plan:
    disks: Mapping[str, PointDisk]
    whole: str
    """Why everything is read, in words."""
    since: Mapping[str, str] = field(default_factory=dict)
    """Change id by disk, if the disks are read by parts."""
    datacenters: Mapping[str, str] = field(default_factory=dict)
    """Path of the datacenter by disk."""


def plan_of(
    errand: Errand, reading: Reading, disks: Sequence[PointDisk], since: Bookmark | None, hindrance: str
) -> Plan:
    there = {disk.name: disk for disk in disks}
    if chained := [disk.name for disk in disks if not disk.flat]:
        return Plan(
            there,
            f"Disk {chained[0]} is not one flat file: it hangs from another one (as a linked clone's does, or one of a "
            "machine that has snapshots), or its storage keeps no files. vSphere gives such disks whole only.",
        )
    whole = _why_whole(disks, since, hindrance)
    asked = change_ids(since) if not whole and since is not None else {}
    if not whole and not _are_told(errand, reading, disks, asked):
        whole = (
            "vSphere cannot tell any more what changed since the last point, as after a crash of the host, a revert to "
            "a snapshot or a move of the disk."
        )
    if whole:
        asked = dict.fromkeys(there, ALLOCATED)
        if not _are_told(errand, reading, disks, asked):
            return Plan(there, whole)
    errand.begin("Looking at the datastores")
    centers = {disk.name: _datacenter(errand, disk.disk.storage) for disk in disks}
    if why := _why_no_parts(reading, disks, centers):
        return Plan(there, f"{whole} {why}" if whole else why)
    return Plan(there, whole, asked, centers)


def _why_whole(disks: Sequence[PointDisk], since: Bookmark | None, hindrance: str) -> str:
    if hindrance:
        return hindrance
    if since is None:
        return "It is the first point."
    before = change_ids(since)
    for disk in disks:
        if not disk.disk.change_id:
            return f"vSphere does not note yet what changes of disk {disk.name}. Restart the machine once."
        if disk.name not in before:
            return f"The last point did not hold disk {disk.name}."
    return ""


def _are_told(errand: Errand, reading: Reading, disks: Sequence[PointDisk], since: Mapping[str, str]) -> bool:
    """Whether vSphere answers for all of them. An id of another history it must not be asked for: it is refused."""
    errand.begin("Asking what changed")
    for disk in disks:
        asked, now = since[disk.name], disk.disk.change_id
        if not now or (asked != ALLOCATED and asked.rpartition("/")[0] != now.rpartition("/")[0]):
            return False
        try:
            reading.changes(disk, asked, 0, errand.deadline)
        except VimFault as fault:
            if not fault.is_a("FileFault", "InvalidArgument", "NotFound", "SystemError", "NotSupported"):
                raise
            return False
    return True


def _why_no_parts(reading: Reading, disks: Sequence[PointDisk], centers: Mapping[str, str]) -> str:
    """Why the datastores' files cannot be read by parts, tried with one sector of each; "" if they can."""
    for disk in disks:
        parts = Parts(reading.client, disk.flat, centers[disk.name])
        try:
            parts.read(0, min(512, disk.disk.size), disk.disk.size)
        except SourceLost:
            raise
        except DiskError as error:
            return f"All of the disks is fetched, since their files cannot be read by parts: {error.message}"
        finally:
            parts.close()
    return ""


def _datacenter(errand: Errand, storage: str) -> str:
    """The path in the inventory of the datacenter that the datastore is in, as `/folder` wants it."""
    kind, id = "Datastore", storage
    path: list[str] = []
    while True:
        seen = errand.client.object_seen(kind, id, ("name", "parent"), errand.deadline)
        parent = seen.values.get("parent") if seen else None
        if seen is None or parent is None or not parent.text:  # the folder at the very top, which paths do not name
            return "/".join(path)
        if kind == "Datacenter" or path:
            path.insert(0, names.from_wire(seen.text("name")))
        kind, id = parent.get("type") or "", parent.text


def change_ids(bookmark: Bookmark) -> dict[str, str]:
    kept = bookmark.data.get(CHANGES)
    return {str(name): str(id) for name, id in kept.items()} if isinstance(kept, Mapping) else {}


# --- the sources -----------------------------------------------------------------------------------------------------


class FlatDisk:
    """A disk that is one flat file, read by parts."""

    def __init__(self, reading: Reading, disk: PointDisk, since: str, datacenter: str, *, is_all: bool) -> None:
        """With `is_all` what is not in use is named too, as zeros."""
        self._reading, self._disk, self._since, self._is_all = reading, disk, since, is_all
        self._parts = Parts(reading.client, disk.flat, datacenter)

    @property
    def size(self) -> int:
        return self._disk.disk.size

    def extents(self) -> Iterator[Extent]:
        at = 0
        for start, length in self._areas():
            begin, end = max(start, at), min(start + length, self.size)
            if begin >= end:
                continue
            if self._is_all and begin > at:
                yield Extent(at, begin - at, is_zero=True)
            yield Extent(begin, end - begin)
            at = end
        if self._is_all and at < self.size:
            yield Extent(at, self.size - at, is_zero=True)

    def _areas(self) -> Iterator[tuple[int, int]]:
        """vSphere tells of as much of the disk as it likes; the rest is asked for from there on."""
        reached = 0
        while reached < self.size:
            try:
                areas, end = self._reading.changes(self._disk, self._since, reached, time.monotonic() + CALL_S)
            except (VimFault, ConnectorError) as error:
                raise _lost(error, self._reading.client, f"asking what changed of {self._disk.name}") from None
            yield from sorted(areas)
            if end <= reached:
                raise SourceLost(f"vSphere does not tell what changed of {self._disk.name} behind byte {reached}.")
            reached = end

    def read(self, offset: int, length: int) -> bytes:
        return self._parts.read(offset, length, self.size)

    def close(self) -> None:
        self._parts.close()


class FetchedDisk:
    """A disk that is fetched whole into a scratch file before its first byte is read."""

    def __init__(self, reading: Reading, disk: PointDisk) -> None:
        self._reading, self._disk = reading, disk
        self._guard = threading.Lock()
        self._image: Source | None = None
        self._fetching = self._fetch()

    @property
    def size(self) -> int:
        return self._disk.disk.size

    def advance(self, until: float) -> str:
        """Goes on with the fetching (`disks.base.Slow`). Raises `SourceLost`, `SourceRefused`, `OutOfSpace`."""
        with self._guard:
            for words in self._fetching:
                if time.monotonic() >= until:
                    return words
            if self._image is None:
                raise SourceLost(f"Disk {self._disk.name} was not fetched. It is begun anew.")
            return ""

    def _whole(self) -> Source:
        if self._image is None:
            self.advance(float("inf"))
        assert self._image is not None  # noqa: S101 - for the type checker
        return self._image

    def extents(self) -> Iterator[Extent]:
        yield from self._whole().extents()

    def read(self, offset: int, length: int) -> bytes:
        return self._whole().read(offset, length)

    def close(self) -> None:
        with self._guard:
            self._fetching.close()
            if self._image is not None:
                self._image.close()

    def _fetch(self) -> Generator[str, None, None]:
        """What it is at, in words, step by step."""
        folder = self._reading.workdir
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        path = folder / f"point-{uuid4().hex}.vmdk"
        kinds = images()
        try:
            yield from self._fetch_by_lease(path)
            try:
                # QEMU reads what a file lacks as zeros and says nothing.
                kinds.require_sound(path, kinds.Format.VMDK_STREAM)
            except SourceRefused as error:
                raise SourceLost(f"Disk {self._disk.name} did not arrive whole. It is begun anew.") from error
            image: Source = kinds.ImageSource(path, kinds.Format.VMDK_STREAM)
        finally:
            # Whoever serves it has it open: from here on it goes with its last reader, whatever becomes of us.
            with suppress(OSError):
                path.unlink()
        if image.size != self.size:
            image.close()
            raise SourceLost(
                f"vSphere gave {image.size} bytes of disk {self._disk.name}, which has {self.size}. It is begun anew."
            )
        self._image = image

    def _fetch_by_lease(self, path: Path) -> Iterator[str]:
        client, name = self._reading.client, self._disk.name
        errand = Errand.of(client, time.monotonic() + LEASE_S)
        snapshot = errand.object(vim.vm.Snapshot, self._reading.snapshot)
        machine = errand.object(vim.VirtualMachine, self._reading.machine)
        export = snapshot.ExportSnapshot if self._reading.snapshot else machine.ExportVm
        lease: Lease | None = None
        try:
            lease = Lease.begin(errand, f"Fetching disk {name}", export)
            url = lease.url_of(self._disk.device)
            for so_far in fetch(client, url, path):
                lease.percent = 100 * so_far // max(1, self.size)
                yield f"Fetches disk {name}, which vSphere gives whole only: {so_far >> 20} MiB so far"
            # An answer that tells no length may end early and look whole; not every server tells this either.
            given = lease.size_of(url, time.monotonic() + CALL_S)
            if given is not None and given != path.stat().st_size:
                raise SourceLost(f"Of disk {name} not all arrived. It is begun anew.")
            lease.complete(time.monotonic() + CALL_S)
            lease = None
        except (VimFault, ConnectorError) as error:
            raise _lost(error, client, f"fetching disk {name}") from None
        finally:
            if lease is not None:
                lease.abort()


def _lost(error: VimFault | ConnectorError, client: Client, doing: str) -> DiskError:
    """What went wrong while a disk was read, as a source says it."""
    problem = faults.ours(error, doing, client.settings.endpoint) if isinstance(error, VimFault) else error
    if isinstance(error, VimFault) and error.is_a("ManagedObjectNotFound", "NotAuthenticated"):
        return SourceLost(f"The session or the point ended while {doing}. It is begun anew.")
    return told(problem, f"The disk cannot be read ({doing})", is_source=True)
