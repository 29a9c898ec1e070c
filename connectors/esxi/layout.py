"""Disks of a machine at one of its snapshots, and the files that they consist of. Pure.

A disk can be read by parts where it is one flat extent: a file that holds its bytes as they are. One that hangs from
another (a linked clone's, or one of a machine that has snapshots) is a chain of sparse files, and the uppermost alone
is not the disk (vSphere Web Services API reference, VirtualMachineFileLayoutEx).
"""

from __future__ import annotations

from dataclasses import dataclass

from connectors.esxi import mapping, soap
from connectors.esxi.soap import Element

FLAT = "VirtualDiskFlatVer2BackingInfo"
KEPT_BY_SNAPSHOTS = (FLAT, "VirtualDiskSeSparseBackingInfo", "VirtualDiskSparseVer2BackingInfo")
"""Backings that a snapshot holds and an export gives out."""

WORDS = {
    "ParaVirtualSCSIController": ("scsi", "pvscsi"),
    "VirtualLsiLogicController": ("scsi", "lsilogic"),
    "VirtualLsiLogicSASController": ("scsi", "lsilogicsas"),
    "VirtualBusLogicController": ("scsi", "buslogic"),
    "VirtualAHCIController": ("sata", "sata"),
    "VirtualNVMEController": ("nvme", "nvme"),
    "VirtualIDEController": ("ide", "ide"),
}
"""Controller -> what a disk on it is called by ("scsi0:1", as in .vmx files), and what recovery points call the bus."""


@dataclass(frozen=True, slots=True)
class PointDisk:
    """A disk at a snapshot."""

    name: str
    bus: str
    device: str
    """"ParaVirtualSCSIController0:1": how leases name it."""
    disk: mapping.Disk
    flat: str = ""
    """The one flat extent that it is, "[datastore] folder/name-flat.vmdk"; empty: it is not."""


def named(found: mapping.Devices) -> dict[str, tuple[mapping.Disk, mapping.Controller]]:
    """Disks by the names that we give them, in the machine's order."""
    controllers = {one.key: one for one in found.controllers}
    listed = {}
    for disk in found.disks:
        controller = controllers.get(disk.controller) or mapping.Controller(disk.controller, "", 0)
        word = WORDS.get(controller.kind, ("disk", ""))[0]
        listed[f"{word}{controller.bus}:{disk.unit}"] = (disk, controller)
    return listed


def at_point(found: mapping.Devices, layout: Element | None, snapshot: str) -> list[PointDisk]:
    """The disks of a snapshot's configuration with what `layoutEx` tells of their files."""
    flat = _flat_files(layout, snapshot)
    disks = []
    for name, (disk, controller) in named(found).items():
        is_plain = disk.kind == FLAT and not disk.parent
        disks.append(
            PointDisk(
                name=name,
                bus=WORDS.get(controller.kind, ("", "scsi"))[1],
                device=f"{controller.kind}{controller.bus}:{disk.unit}",
                disk=disk,
                flat=flat.get(disk.key, "") if is_plain else "",
            )
        )
    return disks


def _flat_files(layout: Element | None, snapshot: str) -> dict[int, str]:
    """Key of a disk -> its flat file, of those that at the snapshot consist of one such file and no other."""
    files = {soap.text(file, "key"): file for file in soap.children(layout, "file")}
    found = {}
    for point in soap.children(layout, "snapshot"):
        if soap.text(point, "key") != snapshot:
            continue
        for disk in soap.children(point, "disk"):
            units = soap.children(disk, "chain")
            keys = [key.text or "" for unit in units for key in soap.children(unit, "fileKey")]
            extents = [files[key] for key in keys if key in files and soap.text(files[key], "type") == "diskExtent"]
            if len(units) == 1 and len(extents) == 1 and soap.text(extents[0], "name").endswith("-flat.vmdk"):
                found[int(soap.text(disk, "key") or 0)] = soap.text(extents[0], "name")
    return found


def why_not_kept(disk: mapping.Disk) -> str:
    """Why no snapshot holds this disk, in words; "" if one does."""
    if disk.is_independent:
        return "it is independent, and no snapshot holds it. Make it dependent, or leave it out"
    if disk.kind not in KEPT_BY_SNAPSHOTS:
        return f"it is no ordinary virtual disk ({disk.kind}). Leave it out"
    return ""
