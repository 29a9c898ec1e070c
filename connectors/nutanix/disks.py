"""Consistent points of machines, read as images: Prism Central gives whole disks only.

    take      1. what earlier points left is removed
              2. a recovery point of the machine (dataprotection `recovery-points`), in which all its disks stand still;
                 with Nutanix Guest Tools the guest is brought to rest for it
              3. a stand-in: a machine restored from the recovery point, which is never switched on. Images can be made
                 of machines' disks alone (ntnx_vmm_py_client 4.3.2, `Image.source`), not of recovery points
              4. an image of each wished disk of the stand-in
    read      each image's file over HTTPS, flat and whole
    release   images, stand-in and recovery point go. All three bear a name that only points of this machine and this
              installation have; the recovery point expires by itself after `LIFE`

What has changed between two recovery points Prism tells too, but their bytes only to who attaches a disk by iSCSI:
that is not built.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from connectors.base import Power
from connectors.errors import Busy, Conflict, NotFound, PlatformFault, Unsupported
from connectors.nutanix import errands, hardware, mapping, names
from connectors.nutanix.client import Json, OutOfTime, segment
from connectors.nutanix.errands import IMAGES, MACHINES, POINTS, Errand, Trail, Working
from connectors.nutanix.files import ImageSource
from connectors.nutanix.hardware import Disk
from connectors.replication import Bookmark, Consistency, PointWish
from disks.vault.points import Configuration

LIFE = timedelta(days=7)
"""After it Prism removes a recovery point that everybody has forgotten."""
IMAGE_S = 1000.0
"""How long an image may be in the making before its disk is opened."""
WHOLE = "Prism Central gives whole disks only: everything is read at every point."

CRASH, QUIET = "CRASH_CONSISTENT", "APPLICATION_CONSISTENT"


@dataclass(frozen=True, slots=True)
class NutanixPoint:
    """A recovery point, its stand-in, and images of its disks."""

    name: str
    configuration: Configuration
    taken_at: datetime
    consistency: Consistency
    images: dict[str, str]
    """Disk -> task that makes its image."""
    image_names: dict[str, str]
    working: Working = field(repr=False)
    bookmark: Bookmark | None = None
    whole: str = WHOLE

    def open(self, disk: str) -> ImageSource:
        """Raises what connectors and sources raise."""
        drive = next((one for one in self.configuration.disks if one.name == disk), None)
        if drive is None:
            raise NotFound(f"The point of {self.name!r} holds no disk {disk!r}.")
        errand = self.working(time.monotonic() + IMAGE_S, f"Making an image of {disk} of {self.name}")
        try:
            task = errands.wait(errand, self.images[disk])
            image = errands.made(errand, IMAGES, task, self.image_names[disk])
        except OutOfTime as late:
            errand.client.close()
            raise Busy(f"No image of {disk} of {self.name} was made in time. It is tried again.") from late
        except BaseException:
            errand.client.close()
            raise
        return ImageSource(errand.client, image, drive.size, f"Disk {disk} of {self.name}")

    def close(self) -> None:
        """Every source closes its own connection."""


# --- taking ----------------------------------------------------------------------------------------------------------


def take(errand: Errand, wish: PointWish, trail: Trail, working: Working) -> NutanixPoint:
    """Raises `NotFound`, `Conflict`, `Unsupported`, `Busy`."""
    errand.begin("Looking at the machine")
    seen = errand.ours(wish.machine)
    chosen = _chosen(seen.vm.name, seen.raw, wish.disks)
    release(errand, wish.machine.id, None, is_first=True)
    name = names.point_prefix(errand.surroundings.installation, wish.machine.id) + wish.key[:8]
    networks = _names_of_networks(errand)
    taken_at = datetime.now(UTC)
    point, consistency = _take_point(errand, trail, seen.vm.id, seen.raw, name)
    stand_in, raw = _stand_in(errand, trail, point, name, chosen)
    errand.begin("Making images of the disks")
    images = {
        disk.name: errands.start(
            errand, trail, IMAGES, _image_body(errand, f"{name}.{disk.name}", stand_in, copy), f"image {disk.name}"
        )
        for disk, copy in zip(chosen, raw, strict=True)
    }
    return NutanixPoint(
        name=seen.vm.name,
        configuration=hardware.read_configuration(seen.raw, chosen, networks),
        taken_at=taken_at,
        consistency=Consistency.OFF if seen.vm.power is Power.OFF else consistency,
        images=images,
        image_names={disk.name: f"{name}.{disk.name}" for disk in chosen},
        working=working,
    )


def _chosen(name: str, seen: Json, wanted: Sequence[str]) -> list[Disk]:
    """The disks to be read. Raises `NotFound`, `Unsupported`."""
    there = hardware.read_disks(seen)
    if missing := set(wanted) - {disk.name for disk in there}:
        raise NotFound(f"Machine {name!r} has no disk {min(missing)!r}. Choose among its disks anew.")
    chosen = [disk for disk in there if not wanted or disk.name in wanted]
    if not chosen:
        raise Unsupported(f"Machine {name!r} has no disk to replicate.")
    for disk in chosen:
        if disk.is_volume_group:
            raise Unsupported(
                f"Disk {disk.name} of {name!r} is a volume group, and recovery points of machines do not hold those. "
                "Choose the other disks alone."
            )
        if not disk.size:
            raise Unsupported(f"Prism Central does not tell how large disk {disk.name} of {name!r} is.")
    return chosen


def _names_of_networks(errand: Errand) -> dict[str, str]:
    listing = errand.client.list("networking", "config/subnets", errand.deadline, doing="looking at the networks")
    return {network.id: network.name for network in map(mapping.read_network, listing.items)}


def _take_point(errand: Errand, trail: Trail, machine: str, seen: Json, name: str) -> tuple[str, Consistency]:
    """Id and what a guest that starts from it finds. A guest that cannot be brought to rest goes on."""
    errand.begin("Taking a recovery point")
    is_on = mapping.read_vm(seen).power is Power.ON
    if is_on and hardware.can_quiesce(seen):
        # Of a machine that is gone meanwhile the second try tells.
        with suppress(PlatformFault, NotFound, Conflict, Unsupported):
            return _asked_for(errand, trail, machine, name, QUIET)
    return _asked_for(errand, trail, machine, name, CRASH)


def _asked_for(errand: Errand, trail: Trail, machine: str, name: str, kind: str) -> tuple[str, Consistency]:
    task = errands.wait(errand, errands.start(errand, trail, POINTS, _point_body(machine, name, kind), f"point {kind}"))
    id = errands.made(errand, POINTS, task, name, detail="recoveryPointExtId")
    told = _read(errand, f"{POINTS.path}/{segment(id)}").get("recoveryPointType")
    return id, Consistency.GUEST if told == QUIET else Consistency.CRASH


def _point_body(machine: str, name: str, kind: str) -> dict[str, Any]:
    part: dict[str, Any] = {"$objectType": "dataprotection.v4.config.VmRecoveryPoint", "vmExtId": machine}
    if kind == QUIET:
        # A full backup would have databases in the guest cut their logs, which is for their own backup to do.
        part["applicationConsistentProperties"] = {
            "$objectType": "dataprotection.v4.common.VssProperties",
            "backupType": "COPY_BACKUP",
        }
    return {
        "$objectType": "dataprotection.v4.config.RecoveryPoint",
        "name": name,
        "expirationTime": (datetime.now(UTC) + LIFE).isoformat(timespec="seconds"),
        "recoveryPointType": kind,
        "vmRecoveryPoints": [part],
    }


def _stand_in(errand: Errand, trail: Trail, point: str, name: str, chosen: Sequence[Disk]) -> tuple[str, list[Disk]]:
    """A machine of the recovery point's, never switched on, and those of its disks that stand for the chosen ones."""
    errand.begin("Restoring the recovery point beside the machine")
    where = f"{POINTS.path}/{segment(point)}"
    parts = _read(errand, where).get("vmRecoveryPoints")
    part = str(parts[0].get("extId") or "") if isinstance(parts, list) and parts else ""
    if not part:
        raise PlatformFault(f"Recovery point {name!r} on {errand.settings.endpoint} holds no machine.")
    _require_held(errand, f"{where}/vm-recovery-points/{segment(part)}", chosen)
    override = {"$objectType": "dataprotection.v4.config.AhvVmOverrideSpec", "name": name}
    body = {
        "$objectType": "dataprotection.v4.config.RecoveryPointRestorationSpec",
        "vmRecoveryPointRestoreOverrides": [
            {
                "$objectType": "dataprotection.v4.config.VmRecoveryPointRestoreOverride",
                "vmRecoveryPointExtId": part,
                "vmOverrideSpec": override,
            }
        ],
    }
    task = errands.wait(errand, errands.start(errand, trail, POINTS, body, "restore", path=f"{where}/$actions/restore"))
    machine = errands.made(errand, MACHINES, task, name, detail="vmExtIds")
    seen = errand.read(machine)
    copies = {copy.name: copy for copy in hardware.read_disks(seen.raw)} if seen is not None else {}
    for disk in chosen:
        if disk.name not in copies or copies[disk.name].size != disk.size:
            raise PlatformFault(
                f"What Prism Central {errand.settings.endpoint} restored from the recovery point has not the same disk "
                f"{disk.name} as the machine. It is removed again; report this with the version of Prism Central."
            )
    return machine, [copies[disk.name] for disk in chosen]


def _require_held(errand: Errand, where: str, chosen: Sequence[Disk]) -> None:
    """Raises `Conflict` for a disk that came or went in the moment of the recovery point."""
    told = _read(errand, where).get("diskRecoveryPoints")
    held = {str(one.get("diskExtId")) for one in told if isinstance(one, dict)} if isinstance(told, list) else set()
    for disk in chosen:
        if held and disk.id not in held:
            raise Conflict(
                f"Disk {disk.name} is not in the recovery point: the machine was changed meanwhile. Try again."
            )


def _read(errand: Errand, where: str) -> Json:
    found = errand.client.get(POINTS.namespace, where, errand.deadline, doing=errand.doing).data
    return found if isinstance(found, dict) else {}


def _image_body(errand: Errand, name: str, machine: str, disk: Disk) -> dict[str, Any]:
    source = {"$objectType": "vmm.v4.content.VmDiskSource", "extId": disk.id}
    if errand.client.version("vmm", errand.deadline) >= (4, 3):
        source["vmExtId"] = machine  # later releases want it, earlier ones do not know it
    return {"$objectType": "vmm.v4.content.Image", "name": name, "type": "DISK_IMAGE", "source": source}


# --- releasing -------------------------------------------------------------------------------------------------------


def release(errand: Errand, machine: str, trail: Trail | None, *, is_first: bool = False) -> None:
    """Nothing of ours stays of points of this machine, whether it is there or not.

    `is_first`: before a new point, which is released in its turn: one look is enough.
    """
    prefix = names.point_prefix(errand.surroundings.installation, machine)
    errands.remove(errand, prefix, (IMAGES, MACHINES, POINTS), Trail() if is_first else trail)
