"""Recovery points of Prism Central's data protection service: machines as they stood, and machines made of them again.

Shapes: vendor SDK ntnx_dataprotection_py_client 4.4.2, and what was reported of pc.7.3: a listing tells of a machine's
recovery point no more than its id, its disks stand in a reading of their own; restoring makes a new machine, which
bears all that the old one bore, description included, and may be there although its task has failed.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any

from lab.errors import NoSuch, WorldError
from lab.nouns import Machine, Power
from lab.nutanix import views
from lab.nutanix.views import Json
from lab.world import World

POINT_REL = "dataprotection:config:recovery-point"
SECONDS = {"CreateRecoveryPoint": 2.0, "RestoreRecoveryPoint": 3.0, "DeleteRecoveryPoint": 0.8}


@dataclass(slots=True)
class Kept:
    """A disk in a recovery point."""

    id: str
    of: str
    """Id of the machine's disk."""
    disk: str
    """The world's disk that stands still for it."""


@dataclass(slots=True)
class Recovery:
    """A recovery point of one machine."""

    id: str
    vm_point: str
    name: str
    machine: str
    taken_at: float
    expires: str
    kind: str
    disks: list[Kept]
    config: dict[str, Any] = field(default_factory=dict)
    """What the machine was: name, vcpus, memory_mib, networks, marks, agent."""


class RecoveryPoints:
    """All that there are."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.points: dict[str, Recovery] = {}
        self.breaks_late = False
        """Restoring fails after it has made the machine (as reported of pc.7.3.1.9)."""
        self.quiesces = True
        """Guests with an agent can be brought to rest; else points that want it fail."""

    # --- taking and dropping ------------------------------------------------------------------------------------------

    def take(self, machine: Machine, name: str, kind: str, expires: str) -> Recovery:
        """Every disk stands still at this moment. Raises `OutOfStorage`, `NoSuch` if the machine has gone."""
        if machine.id not in self._world.machines:
            raise NoSuch(machine.id)
        if kind == "APPLICATION_CONSISTENT" and machine.power is Power.ON:
            if not (machine.guest.is_up and machine.guest.has_agent):
                kind = "CRASH_CONSISTENT"  # Prism falls back by itself where there is nobody to ask
            elif not self.quiesces:
                raise WorldError("Failed to quiesce the guest: VSS writers did not answer.")
        kept = [
            Kept(self._world.new_id(), disk, self._world.copy_disk(disk, linked=False, used_mib=1).id)
            for disk in machine.disks
        ]
        config = {
            "name": machine.name, "vcpus": machine.vcpus, "memory_mib": machine.memory_mib,
            "networks": [nic.network for nic in machine.nics], "agent": machine.guest.has_agent,
            "marks": {name: value for name, value in machine.marks.items() if name not in ("listed_at", "models")},
        }  # fmt: skip
        point = Recovery(
            self._world.new_id(), self._world.new_id(), name, machine.id, self._world.now, expires, kind, kept, config
        )
        self.points[point.id] = point
        return point

    def drop(self, id: str) -> None:
        if point := self.points.pop(id, None):
            for kept in point.disks:
                self._world.erase_disk(kept.disk)

    def restore(self, id: str, name: str, listed_at: float) -> Machine:
        """A new machine, off. Raises `NoSuch`, `OutOfStorage`: nothing is left then."""
        point = self.points.get(id)
        if point is None:
            raise NoSuch(f"recovery point {id}")
        world, config = self._world, point.config
        disks: list[str] = []
        try:
            for kept in point.disks:
                disks.append(world.copy_disk(kept.disk, linked=False, used_mib=1).id)
        except WorldError:
            for disk in disks:
                world.erase_disk(disk)
            raise
        networks = tuple(network for network in config["networks"] if network in world.networks)
        machine = world.create(
            name or config["name"], vcpus=config["vcpus"], memory_mib=config["memory_mib"], disks=tuple(disks),
            networks=networks,
        )  # fmt: skip
        machine.marks = {**config["marks"], "listed_at": listed_at}
        machine.guest.has_agent = config["agent"]
        if self.breaks_late:
            raise WorldError("DATAPROTECTION_INTERNAL_ERROR: Failed to restore the recovery point.")
        return machine

    # --- showing ------------------------------------------------------------------------------------------------------

    def view(self, point: Recovery) -> Json:
        return {
            "$objectType": "dataprotection.v4.config.RecoveryPoint",
            "$reserved": views.STAMP,
            "extId": point.id,
            "name": point.name,
            "creationTime": views.time_of(point.taken_at),
            **({"expirationTime": point.expires} if point.expires else {}),
            "status": "COMPLETE",
            "recoveryPointType": point.kind,
            "isSecure": False,
            "locationReferences": [{"locationExtId": views.cluster_id(self._world)}],
            "vmRecoveryPoints": views.typed(
                "dataprotection.v4.config.VmRecoveryPoint",
                [{"extId": point.vm_point, "vmExtId": point.machine, "hypervisorType": "AHV"}],
            ),
        }

    def view_machine(self, point: Recovery) -> Json:
        """The recovery point of the machine in it: only this tells its disks."""
        disks = [{"diskRecoveryPointExtId": kept.id, "diskExtId": kept.of} for kept in point.disks]
        return {
            "$objectType": "dataprotection.v4.config.VmRecoveryPoint",
            "extId": point.vm_point,
            "name": point.name,
            "vmExtId": point.machine,
            "creationTime": views.time_of(point.taken_at),
            "recoveryPointType": point.kind,
            "hypervisorType": "AHV",
            "diskRecoveryPoints": views.typed("dataprotection.v4.common.DiskRecoveryPoint", disks),
        }

    def is_past(self, text: str) -> bool:
        """Whether a moment is over, or cannot be read."""
        try:
            moment = datetime.fromisoformat(text.replace("Z", "+00:00"))
        except ValueError:
            return True
        return moment.tzinfo is None or (moment - views.BEGAN).total_seconds() <= self._world.now

    # --- keeping ------------------------------------------------------------------------------------------------------

    def dump(self) -> list[dict[str, Any]]:
        return [asdict(point) for point in self.points.values()]

    def load(self, told: list[dict[str, Any]]) -> None:
        for one in told:
            point = Recovery(**{**one, "disks": [Kept(**kept) for kept in one["disks"]]})
            self.points[point.id] = point
