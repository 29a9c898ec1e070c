"""Changed block tracking: what of a disk was written since a change id (vSphere Web Services API reference,
QueryChangedDiskAreas; Virtual Disk Programming Guide, "Changed Block Tracking on Virtual Disks").

It is switched on by a setting of the machine and begins when its disks are opened anew: at a start, or when the machine
is stunned for a snapshot. The snapshot of that very moment has no change ids yet. A machine that has snapshots then
does not begin. A change id is `UUID/number`: another UUID is another history, of which nothing can be told.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lab.contents import Area, Token
from lab.errors import UnknownToken
from lab.esxi.wire import long, vim, vmodl
from lab.nouns import Machine

if TYPE_CHECKING:
    from lab.esxi.server import EsxiServer

WANTED, ON = "wanted", "on"


class Tracking:
    """Wants the world's lock."""

    def __init__(self, server: EsxiServer) -> None:
        self._server = server
        self.is_supported = True
        self.tells_allocated = True
        """Whether "*" is answered: it is not on every kind of datastore."""
        self.page = 2_000
        """Areas in an answer: the caller asks on behind what was told."""

    def configure(self, machine: Machine, wanted: bool | None) -> None:
        if wanted is False:
            machine.marks.pop("cbt", None)
        elif wanted and not machine.marks.get("cbt"):
            machine.marks["cbt"] = WANTED

    def opened(self, machine: Machine, *, had_snapshots: bool) -> None:
        """Its disks were just opened anew."""
        if machine.marks.get("cbt") == WANTED and not had_snapshots:
            machine.marks["cbt"] = ON
            for disk in machine.disks:
                self._server.world.forget_changes(disk)

    def change_id(self, machine: Machine, disk: str, point: str | None) -> str | None:
        is_tracked = machine.marks.get("points", {}).get(point, {}).get("cbt") if point else machine.marks.get("cbt")
        return str(self._server.world.change_token(disk)) if is_tracked == ON else None

    def _do_QueryChangedDiskAreas(
        self, session: Any, this: Any, snapshot: Any, deviceKey: int, startOffset: int, changeId: str
    ) -> Any:
        server = self._server
        machine = server._here(this)
        point = snapshot._moId.removeprefix("snapshot-") if snapshot else None
        if point is not None and point not in machine.snapshots:
            raise vmodl.fault.ManagedObjectNotFound(obj=snapshot)
        disks = machine.snapshots[point].disks if point else machine.disks
        index = deviceKey - 2000
        if not 0 <= index < len(disks):
            raise vmodl.fault.InvalidArgument(invalidProperty="deviceKey")
        disk = disks[index]
        capacity = server.world.disks[disk].capacity
        if not 0 <= startOffset < capacity:
            raise vmodl.fault.InvalidArgument(invalidProperty="startOffset")
        areas = [area for area in self._areas(machine, disk, point, changeId) if area.offset >= startOffset]
        told = areas[: self.page]
        end = capacity if len(told) == len(areas) else told[-1].offset + told[-1].length
        Info = vim.VirtualMachine.DiskChangeInfo
        return Info(
            startOffset=long(startOffset), length=long(end - startOffset),
            changedArea=[
                Info.DiskChangeExtent(start=long(area.offset), length=long(area.length)) for area in told
            ],
        )  # fmt: skip

    def _areas(self, machine: Machine, disk: str, point: str | None, change_id: str) -> list[Area]:
        world = self._server.world
        broken = vim.fault.FileFault(file=self._server.things.file_of(disk))
        if self.change_id(machine, disk, point) is None:
            raise broken
        if change_id == "*":
            if not self.tells_allocated:
                raise broken
            return world.allocated(disk)
        try:
            return world.changed(disk, Token.of(change_id))
        except UnknownToken:
            raise broken from None
