"""Consistent points of machines' disks, pushed by the host to this mover.

    take      1. what earlier points left is removed; the last one becomes a reference point if its bookmark is wanted
              2. a recovery checkpoint, consistent with the guest if it can be, else as after a power cut: from now on
                 the disks' files stand still, and the machine writes on into new ones
              3. an errand of the host's own (a scheduled task) opens them read-only and comes to our dock for work
    read      the dock hands out questions: bytes, and what has changed since a reference point (RCT, by
              Msvm_ImageManagementService.GetVirtualDiskChanges)
    release   ends the errand; the checkpoint becomes a reference point (Msvm_VirtualSystemSnapshotService.
              ConvertToReferencePoint) if its bookmark is to be kept, else it goes

A machine that is off and bears no stamp may be somebody's golden image. A checkpoint of it would later be merged into
the disk that linked clones hang from, and break them: it is read as it stands, and cannot be switched on meanwhile.

Sources: MicrosoftDocs/win32, desktop-src/HyperV_v2, Msvm_VirtualSystemSnapshotService ("only recovery snapshots can be
converted to reference points"), Msvm_VirtualSystemReferencePoint, GetVirtualDiskChanges. Never run on Windows.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar
from uuid import UUID

from connectors.base import MachineRef
from connectors.errors import Busy, ConnectorError, NotFound, Unreachable, Unsupported
from connectors.hyperv import dock, faults, mapping
from connectors.hyperv.asking import Questions
from connectors.hyperv.dock import Dock
from connectors.hyperv.hardware import OWN_NIC
from connectors.hyperv.nodes import TASK_COMMAND, Nodes, errand, owner_of
from connectors.hyperv.rounds import Desk
from connectors.hyperv.settings import HypervSettings
from connectors.replication import Bookmark, Consistency, PointWish
from disks.base import Extent
from disks.errors import SourceLost, SourceRefused
from disks.vault.points import Configuration, Drive, Nic

T = TypeVar("T")
Told = Mapping[str, Any]

POINT = "point"
"""Of a bookmark: the key of the point."""
CONNECT_S = 30.0
"""How long a host may take to start an errand and come to the dock."""
SILENCE_S = 60.0
"""A host that is not heard of for so long has lost its errand; it says something every few seconds."""
SECTOR = 4096
"""Raw disks are read in whole sectors: the largest that Hyper-V gives."""
LARGEST_READ = 4 << 20
LOOK = 1 << 36
"""Bytes of a disk of which changes are asked in one go."""
WHOLE = {
    "first": "It is the first point.",
    "forgotten": "The host does not remember the last point any more.",
    "stands": "Machines that are off and not made by Deskyard are read as they stand, and of those Hyper-V gives whole "
    "disks only.",
}


@dataclass(frozen=True, slots=True)
class Reader:
    """What taking and releasing need of a connector."""

    desks: Sequence[Desk]
    settings: HypervSettings
    installation: str
    workdir: Path
    silence_s: float = SILENCE_S
    connect_s: float = CONNECT_S

    def nodes(self, machine: MachineRef, doing: str) -> Nodes:
        plain: dict[str, object] = {
            "installation": self.installation,
            "owner": owner_of(self.installation),
            "folder": self.settings.folder.rstrip("\\"),
            "task_command": TASK_COMMAND,
            "id": machine.id.lower(),
            "stamp": mapping.stamp_of(machine.stamp),
            "key": "",
            "disks": [],
            "since": "",
            "keep": [],
        }
        return Nodes(self.desks, "points", plain, f"{doing} machine {machine.id}")


class HypervPoint:
    """A recovery checkpoint whose disks an errand of the host holds open for us."""

    def __init__(
        self, told: Told, wish: PointWish, taken_at: datetime, way: Dock, questions: Questions, silence_s: float
    ) -> None:
        self.name = str(told["name"])
        self.taken_at = taken_at
        self.consistency = Consistency(str(told["consistency"]))
        self.configuration = _configuration(told)
        self.whole = WHOLE.get(str(told["whole"]), str(told["whole"]))
        is_checkpoint = str(told["whole"]) != "stands"
        self.bookmark = Bookmark({POINT: str(UUID(wish.key))}) if is_checkpoint else None
        self._dock, self._questions = way, questions
        self._silence_s, self._host = silence_s, str(told["host"])
        self._drives = {drive.name: drive for drive in self.configuration.disks}

    def open(self, disk: str) -> PointDisk:
        """Raises `NotFound`."""
        drive = self._drives.get(disk)
        if drive is None:
            raise NotFound(f"The point of {self.name!r} holds no disk {disk!r}.")
        return PointDisk(self._questions, self._host, drive, not self.whole, self._silence_s)

    def close(self) -> None:
        self._dock.close()


@dataclass(frozen=True, slots=True)
class PointDisk:
    """A `disks.base.Source` at the other end of the dock."""

    questions: Questions
    host: str
    drive: Drive
    has_changes: bool
    silence_s: float

    @property
    def size(self) -> int:
        return self.drive.size

    def extents(self) -> Iterator[Extent]:
        """Asked for as they are needed: a large disk may have more of them than anybody wants to hold."""
        if not self.has_changes:
            yield Extent(0, self.size)
            return
        offset = end = 0
        start = 0
        while offset < self.size:
            told = self._changes(offset, min(LOOK, self.size - offset))
            offset += told.processed
            for begin, stop in told.ranges:
                # They may touch, also across two answers.
                if begin > end:
                    if end > start:
                        yield Extent(start, end - start)
                    start = begin
                end = max(end, stop)
        if end > start:
            yield Extent(start, end - start)

    def _changes(self, offset: int, length: int) -> Changes:
        return self._guarded(lambda: _changes(self._ask("changes", offset, length), offset, length))

    def read(self, offset: int, length: int) -> bytes:
        """Widened to whole sectors on the way."""
        start = offset - offset % SECTOR
        stop = min(self.size, -(-(offset + length) // SECTOR) * SECTOR)
        steps = range(start, stop, LARGEST_READ)
        parts = [self._piece(at, min(LARGEST_READ, stop - at)) for at in steps]
        data = parts[0] if len(parts) == 1 else b"".join(parts)
        found = data if (start, stop) == (offset, offset + length) else data[offset - start : offset - start + length]
        if len(found) != length:
            raise SourceLost(f"Disk {self.drive.name} of host {self.host} ends before byte {offset + length}.")
        return found

    def _piece(self, offset: int, length: int) -> bytes:
        return self._guarded(lambda: self._ask("read", offset, length))

    def _ask(self, what: str, offset: int, length: int) -> bytes:
        return self.questions.ask(what, self.drive.name, offset, length, self.silence_s)

    def _guarded(self, call: Callable[[], T]) -> T:
        """The call, its failures in the words of disks."""
        name = f"disk {self.drive.name}"
        try:
            return call()
        except dock.Silent:
            problem = f"Reading {name} broke off: host {self.host} is not heard of. It is read anew."
        except dock.Failed as failed:
            error = faults.of_answer(failed.fault, f"reading {name}", self.host)
            if isinstance(error, Unsupported):
                raise SourceRefused(faults.told_in_full(error)) from None
            problem = faults.told_in_full(error)
        except ValueError as senseless:
            problem = f"Reading {name} broke off: host {self.host} answers without sense ({senseless})."
        raise SourceLost(problem)

    def close(self) -> None:
        """The point closes the dock."""


@dataclass(frozen=True, slots=True)
class Changes:
    processed: int
    ranges: Sequence[tuple[int, int]]
    """From, to; sorted."""


def _changes(answer: bytes, offset: int, length: int) -> Changes:
    """Raises ValueError for what tells less than nothing, or of what was not asked."""
    told = dock.as_object(answer)
    processed, offsets, lengths = told.get("processed"), told.get("offsets"), told.get("lengths")
    if not isinstance(processed, int) or not 0 < processed <= length:
        raise ValueError("no progress")
    if not isinstance(offsets, list) or not isinstance(lengths, list) or len(offsets) != len(lengths):
        raise ValueError("no ranges")
    ranges = sorted((int(start), int(start) + int(size)) for start, size in zip(offsets, lengths, strict=True))
    if ranges and not offset <= ranges[0][0] <= ranges[-1][1] <= offset + length:
        raise ValueError("ranges of something else")
    return Changes(processed, ranges)


# --- taking ----------------------------------------------------------------------------------------------------------


def take(reader: Reader, wish: PointWish, first: str, deadline: float) -> tuple[HypervPoint, str]:
    """And the address of the host that has the machine. Nothing is left if it fails, as far as the host is reached.

    Raises `NotFound`, `Conflict`, `Unsupported`, `Busy`, `HostDown`, `Unreachable`.
    """
    nodes = reader.nodes(wish.machine, "taking a point of")
    key = str(UUID(wish.key))
    kept = _keys((wish.since, *wish.keep))
    asked: dict[str, object] = {"key": key, "disks": list(wish.disks), "since": _key(wish.since), "keep": kept}
    taken_at = datetime.now(UTC)
    desk, told = _taken(nodes, first, deadline, asked)
    if desk is None:
        where = ", ".join(one.name or one.address for one in reader.desks)
        raise NotFound(f"Machine {wish.machine.id} is not on {where} any more.")
    questions = Questions()
    way = Dock(desk.address, reader.settings, reader.workdir, questions)
    try:
        _serve(reader, nodes, desk, told, way, questions, key, deadline)
        return HypervPoint(told, wish, taken_at, way, questions, reader.silence_s), desk.address
    except BaseException:
        way.close()
        with suppress(ConnectorError):
            nodes.ask(desk, "release", max(deadline, time.monotonic() + 5.0), keep=kept)
        raise


def _taken(nodes: Nodes, first: str, deadline: float, asked: Mapping[str, object]) -> tuple[Desk | None, Told]:
    """With the guest's help, else without."""
    try:
        return nodes.find("take", deadline, first, **asked, consistency=Consistency.GUEST.value)
    except Busy as error:
        if error.platform_words != "Deskyard.NotQuiet":
            raise
    return nodes.find("take", deadline, first, **asked, consistency=Consistency.CRASH.value)


def _serve(
    reader: Reader, nodes: Nodes, desk: Desk, told: Told, way: Dock, questions: Questions, key: str, deadline: float
) -> None:
    """Has the host open the disks and come to the dock. Raises what keeps it from that."""
    disks = [{"name": one["name"], "path": one["path"], "limit": one["limit"]} for one in told["disks"]]
    nodes.ask(desk, "serve", deadline, key=key, errand=errand("serve", {"to": way.told, "disks": disks}))
    if questions.wait_for_host(min(deadline, time.monotonic() + reader.connect_s)):
        return
    with suppress(Unreachable, Busy):
        state = nodes.ask(desk, "errand", max(deadline, time.monotonic() + 5.0), key=key)
        if state["state"] == "failed":
            raise nodes.problem(state["fault"], desk)
    raise Unreachable(
        f"Host {desk.name} did not come to this mover at {way.name}. Check the movers' address and ports in the "
        "hypervisor's settings, and what stands between the two."
    )


def _configuration(told: Told) -> Configuration:
    is_uefi = int(told["generation"]) == 2
    return Configuration(
        vcpus=int(told["vcpus"]),
        memory_mib=int(told["memory_mib"]),
        firmware="uefi" if is_uefi else "bios",
        secure_boot=str(told["secure"]) == "On",
        nics=tuple(_nic(nic) for nic in told["nics"]),
        disks=tuple(Drive(str(disk["name"]), str(disk["bus"]), int(disk["size"])) for disk in told["disks"]),
    )


def _nic(told: Told) -> Nic:
    mac = str(told["mac"]).lower()
    pairs = ":".join(mac[at : at + 2] for at in range(0, len(mac), 2)) if mac.strip("0") else ""
    return Nic(OWN_NIC, pairs, mapping.network_id(str(told["switch"]), int(told["vlan"])))


def _key(bookmark: Bookmark | None) -> str:
    return str(bookmark.data.get(POINT, "")) if bookmark is not None else ""


def _keys(bookmarks: Sequence[Bookmark | None]) -> list[str]:
    return sorted({_key(bookmark) for bookmark in bookmarks} - {""})


# --- releasing -------------------------------------------------------------------------------------------------------


def release(reader: Reader, machine: MachineRef, keep: Sequence[Bookmark], first: str, deadline: float) -> None:
    """Nothing of ours stays on the machine but the reference points to keep. One that is gone is success."""
    nodes = reader.nodes(machine, "releasing points of")
    nodes.everywhere("release", deadline, first, keep=_keys(tuple(keep)))
