"""Disks of the instant hypervisor as files of real bytes: points, increments, machines made from points.

    disks/MACHINE/NAME.raw      what the machine has now
    points/MACHINE/KEY/NAME.raw  as it was; kept for as long as a bookmark names it
    landings/KEY/NAME.raw       of a machine in the making

Knobs: `fail_point` (taking one fails), `fail_read` and `fail_write` (the end is lost in the middle), `fail_release`,
`whole` (the platform has forgotten what changed),
`no_refresh` (a standby has to be made anew), `slow` (an end says so many times that it needs longer). Boundaries:
point.taken, point.read, point.released, landing.written, landing.made, refresh.written, refresh.made.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

from connectors.errors import Conflict, NotFound, PlatformFault, Unreachable, Unsupported
from connectors.replication import Bookmark, Consistency, LandingWish, PointWish, RefreshWish
from disks.base import Extent
from disks.errors import OutOfSpace, SinkLost, SourceLost
from disks.vault.points import Configuration, Drive
from tests.doubles.instant.world import MachineRow, TemplateRow, World

GRAIN = 64 << 10
SIZE = 4 << 20
ONLY = "disk-1"


def path_of(world: World, machine_id: str, name: str = ONLY) -> Path:
    """Of a disk; a machine that nobody wrote to has one of zeros."""
    file = world.folder / "disks" / machine_id / f"{name}.raw"
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("wb") as made:
            made.truncate(SIZE)
    return file


def write(world: World, machine_id: str, offset: int, data: bytes, name: str = ONLY) -> None:
    """What a guest writes."""
    with path_of(world, machine_id, name).open("r+b") as file:
        file.seek(offset)
        file.write(data)


def read(world: World, machine_id: str, name: str = ONLY) -> bytes:
    return path_of(world, machine_id, name).read_bytes()


def names(world: World, machine_id: str) -> list[str]:
    path_of(world, machine_id)
    return sorted(file.stem for file in (world.folder / "disks" / machine_id).glob("*.raw"))


def points(world: World, machine_id: str) -> list[str]:
    """Keys of those that stand on the platform."""
    return sorted(folder.name for folder in (world.folder / "points" / machine_id).glob("*"))


def landings(world: World) -> list[str]:
    return sorted(folder.name for folder in (world.folder / "landings").glob("*"))


def as_machine(template: TemplateRow) -> MachineRow:
    """A template, as what a point is taken of."""
    return MachineRow(
        template.id, template.name, "off", template.vcpus, template.memory_mib, "host-1", "", "", 0.0, 0.0, ""
    )


def take_over(world: World, template_id: str, machine_id: str) -> None:
    """A clone begins with what its template's disks hold, if anybody ever wrote to those."""
    source = world.folder / "disks" / template_id
    target = world.folder / "disks" / machine_id
    shutil.rmtree(target, ignore_errors=True)
    if source.exists():
        shutil.copytree(source, target)


# --- points -----------------------------------------------------------------------------------------------------------


class DiskFile:
    """A `disks.base.Source` on a copy."""

    def __init__(self, world: World, file: Path, before: Path | None) -> None:
        self._world, self._content = world, file.read_bytes()
        self._before = before.read_bytes() if before is not None else None
        self.size = len(self._content)

    def advance(self, until: float) -> str:
        return "The instant hypervisor takes its time" if self._world.faults.strikes("slow") else ""

    def extents(self) -> Iterator[Extent]:
        for offset in range(0, self.size, GRAIN):
            now = self._content[offset : offset + GRAIN]
            if self._before is None:
                if now.strip(b"\0"):
                    yield Extent(offset, len(now))
            elif now != self._before[offset : offset + GRAIN]:
                yield Extent(offset, len(now))

    def read(self, offset: int, length: int) -> bytes:
        self._world.faults.reach("point.read")
        if self._world.faults.strikes("fail_read"):
            raise SourceLost("The instant hypervisor went away while a disk was read. It is tried again.")
        return self._content[offset : offset + length]

    def close(self) -> None:
        self._content = b""


@dataclass(frozen=True, slots=True)
class InstantPoint:
    world: World
    folder: Path
    name: str
    configuration: Configuration
    taken_at: datetime
    consistency: Consistency
    bookmark: Bookmark | None
    whole: str
    before: Path | None

    def open(self, disk: str) -> DiskFile:
        before = self.before / f"{disk}.raw" if self.before is not None else None
        return DiskFile(self.world, self.folder / f"{disk}.raw", before)

    def close(self) -> None:
        """Files are read at once."""


def take(world: World, machine: MachineRow, wish: PointWish) -> InstantPoint:
    if world.faults.strikes("fail_point"):
        raise PlatformFault(f"No point of {machine.name} can be taken. Look at the instant hypervisor's log.")
    there = names(world, machine.id)
    if missing := set(wish.disks) - set(there):
        raise NotFound(f"Machine {machine.name} has no disk {min(missing)!r}. Choose among its disks anew.")
    release(world, machine.id, [*wish.keep, *([wish.since] if wish.since else [])])
    place = world.folder / "points" / machine.id
    folder = place / wish.key
    folder.mkdir(parents=True)
    chosen = [name for name in there if not wish.disks or name in wish.disks]
    taken_at = datetime.now(UTC)
    for name in chosen:
        shutil.copy(path_of(world, machine.id, name), folder / f"{name}.raw")
    world.faults.reach("point.taken")
    before = place / str(wish.since.data["point"]) if wish.since is not None else None
    whole = "It is the first point."
    if before is not None:
        is_forgotten = world.faults.value("whole") is not None or not before.exists()
        whole = "The machine does not remember the last point any more." if is_forgotten else ""
    drives = tuple(Drive(name, "virtio", path_of(world, machine.id, name).stat().st_size) for name in chosen)
    return InstantPoint(
        world=world,
        folder=folder,
        name=machine.name,
        configuration=Configuration(machine.vcpus, machine.memory_mib, "bios", disks=drives),
        taken_at=taken_at,
        consistency=Consistency.CRASH,
        bookmark=Bookmark({"point": wish.key}),
        whole=whole,
        before=None if whole else before,
    )


def release(world: World, machine_id: str, keep: Sequence[Bookmark]) -> None:
    if world.faults.strikes("fail_release"):
        raise Unreachable("The instant hypervisor does not answer. Check that it is up.")
    kept = {str(bookmark.data["point"]) for bookmark in keep}
    for key in points(world, machine_id):
        if key not in kept:
            shutil.rmtree(world.folder / "points" / machine_id / key)
    world.faults.reach("point.released")


# --- landings ---------------------------------------------------------------------------------------------------------


class DiskInTheMaking:
    """A `disks.base.Sink`."""

    def __init__(self, world: World, file: Path, size: int) -> None:
        self._world, self._file = world, file.open("wb")
        self._path = file
        self._file.truncate(size)

    def write(self, offset: int, data: bytes) -> None:
        self._world.faults.reach("landing.written")
        if self._world.faults.strikes("storage_full"):
            raise OutOfSpace(f"No room for {self._path.name}. Make room on the storage.")
        if self._world.faults.strikes("fail_write"):
            raise SinkLost("The instant hypervisor went away while a disk was written. It is tried again.")
        self._file.seek(offset)
        self._file.write(data)

    def zero(self, offset: int, length: int) -> None:
        """It is zeros from the beginning."""

    def advance(self, until: float) -> str:
        return "The instant hypervisor takes its time" if self._world.faults.strikes("slow") else ""

    def commit(self) -> None:
        self._file.close()

    def abandon(self) -> None:
        self._file.close()
        with suppress(OSError):
            self._path.unlink()


class InstantLanding:
    def __init__(self, world: World, installation: str, wish: LandingWish) -> None:
        self.world, self.installation, self.wish = world, installation, wish
        self.warnings: tuple[str, ...] = ()
        if wish.configuration.secure_boot:
            self.warnings = ("Secure boot is off: the instant hypervisor has none.",)
        self.folder = world.folder / "landings" / wish.key
        self.is_done = bool(world.machines_of(installation, wish.key)) or world.template(self.template_id) is not None
        if not self.is_done:
            clear(world, wish.key)
            self.folder.mkdir(parents=True)

    def open(self, disk: str) -> DiskInTheMaking:
        size = next(drive.size for drive in self.wish.configuration.disks if drive.name == disk)
        return DiskInTheMaking(self.world, self.folder / f"{disk}.raw", size)

    @property
    def template_id(self) -> str:
        return f"template-{self.wish.key}"

    def template(self) -> str:
        """Makes it one, once its disks are there."""
        if self.world.template(self.template_id) is not None:
            return self.template_id
        wish = self.wish
        target = self.world.folder / "disks" / self.template_id
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(target, ignore_errors=True)
        self.folder.rename(target)
        disk_mib = sum(drive.size for drive in wish.configuration.disks) >> 20
        values = [
            self.template_id, wish.name, wish.storage, wish.configuration.vcpus, wish.configuration.memory_mib,
            disk_mib, "landed",
        ]  # fmt: skip
        with self.world.change() as db:
            db.execute(f"INSERT INTO template VALUES ({', '.join('?' * len(values))})", values)
        self.world.faults.reach("landing.made")
        return self.template_id

    def machine(self) -> str:
        """Makes it, once its disks are there."""
        if made := self.world.machines_of(self.installation, self.wish.key):
            return made[0].id
        wish, machine_id = self.wish, str(uuid4())
        target = self.world.folder / "disks" / machine_id
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(target, ignore_errors=True)
        self.folder.rename(target)
        values = [
            machine_id, wish.name, "off", wish.configuration.vcpus, wish.configuration.memory_mib,
            wish.host or "host-1", self.installation, wish.key, 0.0, 0.0, "",
        ]  # fmt: skip
        with self.world.change() as db:
            db.execute(f"INSERT INTO machine VALUES ({', '.join('?' * len(values))})", values)
        self.world.faults.reach("landing.made")
        return machine_id


def clear(world: World, key: str) -> None:
    shutil.rmtree(world.folder / "landings" / key, ignore_errors=True)


# --- standbys ---------------------------------------------------------------------------------------------------------


def mark(world: World, machine_id: str) -> Bookmark:
    """By what is on its disks."""
    told = {name: hashlib.sha256(read(world, machine_id, name)).hexdigest() for name in names(world, machine_id)}
    return Bookmark(told)


class Change:
    """A `disks.base.Sink` on a copy, which takes the disk's place in the end."""

    def __init__(self, world: World, machine_id: str, name: str, size: int) -> None:
        self._world, self._place = world, path_of(world, machine_id, name)
        self._path = self._place.with_suffix(".change")
        shutil.copy(self._place, self._path)
        self._file = self._path.open("r+b")
        self._file.truncate(size)

    def write(self, offset: int, data: bytes) -> None:
        self._world.faults.reach("refresh.written")
        if self._world.faults.strikes("fail_write"):
            raise SinkLost("The instant hypervisor went away while a disk was written. It is tried again.")
        self._file.seek(offset)
        self._file.write(data)

    def zero(self, offset: int, length: int) -> None:
        self._file.seek(offset)
        self._file.write(bytes(length))

    def commit(self) -> None:
        self._file.close()

    def abandon(self) -> None:
        self._file.close()
        self._path.unlink(missing_ok=True)

    def take_place(self) -> None:
        self._path.replace(self._place)


class InstantRefreshing:
    """Death in the middle of `finish` leaves a machine that is neither the one point nor the other."""

    def __init__(self, world: World, machine: MachineRow, wish: RefreshWish) -> None:
        self._world, self._machine, self._wish = world, machine, wish
        self._changes: list[Change] = []
        if world.faults.strikes("no_refresh"):
            raise Unsupported("The instant hypervisor cannot bring this machine up to date.")
        if machine.power != "off":
            raise Conflict(f"Machine {machine.name} runs. Switch it off first.")
        if wish.mark != mark(world, machine.id):
            raise Conflict(f"A disk of {machine.name} was written to by somebody else.")

    def open(self, disk: str) -> Change:
        size = next(drive.size for drive in self._wish.configuration.disks if drive.name == disk)
        change = Change(self._world, self._machine.id, disk, size)
        self._changes.append(change)
        return change

    def finish(self, deadline: float) -> None:
        for change in self._changes:
            change.take_place()
            self._world.faults.reach("refresh.made")

    def close(self) -> None:
        for change in self._changes:
            change.abandon()
