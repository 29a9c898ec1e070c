"""Exports: a machine's disks as files on somebody's share, and beside them what kind of machine it is.

    folder/NAME.xml     the definition: libvirt's, with what is the maker's own in it, and NUL bytes behind it
    folder/UUID.qcow2   a disk; UUID is the device's, which the definition names too

The request: facts of the vendor's Ansible collection (`pathURI`) and of two exporters that others wrote against the
specification on the appliance (scale-backup; HyperCore Export Manager): `format`, `compress`,
`allowNonSequentialWrites`, `parallelCountPerTransfer`, `definitionFileName`; the last folder of the path is made; three
exports run at a time. Other changes are taken meanwhile. A machine is exported as it was when its export began.

Not known, and decided here: a fourth export waits; a machine that is being exported cannot be deleted; an export that
breaks off leaves behind what it has written.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree as Xml

from lab.errors import WorldError
from lab.hypercore.devices import DISKS, Device, copy_bytes, extra_of
from lab.hypercore.images import exported
from lab.hypercore.refused import Refused, mapping, require_known
from lab.hypercore.shares import Share, share_of
from lab.nouns import Machine, Task

if TYPE_CHECKING:
    from lab.hypercore.cluster import Cluster

TARGET = {"pathURI", "definitionFileName", "format", "compress", "allowNonSequentialWrites", "parallelCountPerTransfer"}
AT_ONCE = 3
PAD = 512
PREFIX = {"virtio": "vd", "scsi": "sd", "ide": "hd"}


@dataclass(slots=True)
class Export:
    """One that is under way."""

    share: Share
    definition: bytes
    definition_name: str
    is_compressed: bool
    frozen: dict[str, str]
    """Device -> the world's disk with its bytes as they were when the export began."""


def start(cluster: Cluster, id: str, body: Mapping[str, Any]) -> dict[str, str]:
    """POST /VirDomain/{id}/export."""
    cluster.require_role("VM Create/Edit")
    machine = cluster.machine(id)
    require_known(body, {"target", "template"})
    target = mapping(body, "target")
    require_known(target, TARGET)
    if target.get("format") not in (None, "", "qcow2"):
        raise Refused(400, "Invalid format")
    try:
        share = share_of(str(target.get("pathURI") or ""))
    except ValueError as error:
        raise Refused(400, str(error)) from None
    devices = [device for device in extra_of(cluster.world, machine).devices if device.type in DISKS]
    export = Export(
        share, definition(cluster, machine), str(target.get("definitionFileName") or f"{machine.name}.xml"),
        bool(target.get("compress")), _frozen(cluster, devices),
    )  # fmt: skip
    earlier = [task for task in cluster.beside() if task.kind == "Export"]
    answer = cluster.begin(
        "Export", "Export VM %@", [machine.name], lambda: _write(cluster, export), on=machine, is_beside=True,
        after=earlier[-AT_ONCE] if len(earlier) >= AT_ONCE else None,
    )  # fmt: skip
    task = cluster.world.tasks[cluster.tags[answer["taskTag"]]]
    cluster.world.after(task.seconds / 4, lambda: _write_some(task, export))
    cluster.world.after(task.seconds, lambda: _thaw(cluster, task, export))
    return answer


def _frozen(cluster: Cluster, devices: list[Device]) -> dict[str, str]:
    found: dict[str, str] = {}
    try:
        for device in devices:
            found[device.uuid] = copy_bytes(cluster.world, device)
    except WorldError:
        for disk in found.values():
            cluster.world.erase_disk(disk)
        raise
    return found


def _write(cluster: Cluster, export: Export) -> None:
    with tempfile.TemporaryDirectory(prefix="lab-export-") as folder, ExitStack() as images:
        definition = Path(folder) / "definition"
        definition.write_bytes(export.definition)
        files = {export.definition_name: definition}
        for device, disk in export.frozen.items():
            image = images.enter_context(exported(cluster.world, disk, is_compressed=export.is_compressed))
            files[f"{device}.qcow2"] = image
        export.share.put(files)


def _write_some(task: Task, export: Export) -> None:
    """What stands on the share while the export is under way: half of it looks whole."""
    if task.ended_at is not None or task.started_at is None:
        return
    with tempfile.TemporaryDirectory(prefix="lab-export-") as folder, suppress(WorldError):  # the task tells itself
        definition, image = Path(folder) / "definition", Path(folder) / "image"
        definition.write_bytes(export.definition[: len(export.definition) // 2])
        image.write_bytes(b"QFI\xfb" + bytes(508))
        begun = {f"{device}.qcow2": image for device in list(export.frozen)[:1]}
        export.share.put({export.definition_name: definition} | begun)


def _thaw(cluster: Cluster, task: Task, export: Export) -> None:
    if task.ended_at is None:
        cluster.world.after(1.0, lambda: _thaw(cluster, task, export))
        return
    while export.frozen:
        cluster.world.erase_disk(export.frozen.popitem()[1])


def definition(cluster: Cluster, machine: Machine) -> bytes:
    """What the definition looks like beyond disks and tags is not known; readers of it (ova2scale) strip NUL bytes."""
    extra = extra_of(cluster.world, machine)
    root = Xml.Element("domain", type="kvm")
    Xml.SubElement(root, "name").text = machine.name
    Xml.SubElement(root, "uuid").text = machine.id
    Xml.SubElement(root, "memory", unit="KiB").text = str(machine.memory_mib * 1024)
    Xml.SubElement(root, "vcpu").text = str(machine.vcpus)
    tags = Xml.SubElement(Xml.SubElement(Xml.SubElement(root, "metadata"), "scale-metadata"), "tags")
    for tag in filter(None, extra.tags.split(",")):
        Xml.SubElement(tags, "tag", name=tag)
    devices = Xml.SubElement(root, "devices")
    for device in extra.devices:
        if device.type in (*DISKS, "IDE_CDROM"):
            kind = "disk" if device.type in DISKS else "cdrom"
            disk = Xml.SubElement(devices, "disk", type="network", device=kind)
            Xml.SubElement(disk, "source", protocol="scribe", name=f"scribe/{device.uuid}")
            bus = device.type.split("_")[0].lower()
            Xml.SubElement(disk, "target", dev=f"{PREFIX[bus]}{chr(ord('a') + device.slot)}", bus=bus)
    text: bytes = Xml.tostring(root, encoding="utf-8", xml_declaration=True)
    return text + bytes(-len(text) % PAD)
