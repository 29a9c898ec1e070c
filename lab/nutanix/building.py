"""Machines made from a description (`POST ahv/config/vms`): what is asked is checked before a task begins.

Rules: model classes of ntnx_vmm_py_client 4.3.2 ("Q35 is required for secure boot and does not support IDE disks").
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from lab.errors import NoSuch, WorldError
from lab.nouns import Machine
from lab.nutanix import views
from lab.nutanix.images import Images
from lab.nutanix.views import MIB, Json
from lab.world import World

FIELDS = {
    "name", "description", "numSockets", "numCoresPerSocket", "numThreadsPerCore", "memorySizeBytes", "cluster",
    "disks", "nics", "bootConfig", "machineType", "categories", "guestCustomization", "cdRoms", "powerState",
    "hardwareClockTimezone", "isScsiControllerEnabled",
}  # fmt: skip
BUSES = ("SCSI", "IDE", "PCI", "SATA")
MOST = {"SCSI": 256, "IDE": 4, "PCI": 7, "SATA": 6}
NAME_LIMIT = 80
Finding = tuple[str, str]


@dataclass(slots=True)
class Builder:
    world: World
    images: Images

    def check(self, wanted: Json) -> list[Finding]:
        """What is wrong with the description, as paths and words."""
        found = [(name, "is not known") for name in wanted if not name.startswith("$") and name not in FIELDS]
        if not 0 < len(wanted.get("name") or "") <= NAME_LIMIT:
            found.append(("name", f"size must be between 1 and {NAME_LIMIT}"))
        for name in ("numSockets", "numCoresPerSocket", "memorySizeBytes"):
            if not isinstance(wanted.get(name), int) or wanted[name] < 1:
                found.append((name, "must be at least 1"))
        if (wanted.get("cluster") or {}).get("extId") != views.cluster_id(self.world):
            found.append(("cluster.extId", "is no cluster that takes machines"))
        return [*found, *self._firmware(wanted), *self._disks(wanted), *self._nics(wanted)]

    def _firmware(self, wanted: Json) -> list[Finding]:
        boot = wanted.get("bootConfig") or {}
        kind = str(boot.get("$objectType"))
        if boot and kind not in ("vmm.v4.ahv.config.LegacyBoot", "vmm.v4.ahv.config.UefiBoot"):
            return [("bootConfig.$objectType", "is missing or unknown")]
        if boot.get("isSecureBootEnabled") and wanted.get("machineType") != "Q35":
            return [("machineType", "must be Q35 for secure boot")]
        return []

    def _disks(self, wanted: Json) -> list[Finding]:
        found: list[Finding] = []
        seen: set[tuple[str, int]] = set()
        for at, item in enumerate(wanted.get("disks") or ()):
            address, backing = item.get("diskAddress") or {}, item.get("backingInfo") or {}
            bus, index = str(address.get("busType")), address.get("index")
            where = f"disks[{at}]"
            if bus not in BUSES or not isinstance(index, int) or not 0 <= index < MOST[bus] or (bus, index) in seen:
                found.append((f"{where}.diskAddress", f"{bus} {index} is no free place"))
                continue
            seen.add((bus, index))
            if bus == "IDE" and wanted.get("machineType") == "Q35":
                found.append((f"{where}.diskAddress", "Q35 does not support IDE disks"))
            if backing.get("$objectType") != "vmm.v4.ahv.config.VmDisk":
                found.append((f"{where}.backingInfo.$objectType", "is missing or unknown"))
            container = (backing.get("storageContainer") or {}).get("extId")
            if container is not None and container not in self.world.storages:
                found.append((f"{where}.backingInfo.storageContainer", "does not exist"))
            source = (backing.get("dataSource") or {}).get("reference")
            if source is None and not isinstance(backing.get("diskSizeBytes"), int):
                found.append((f"{where}.backingInfo.diskSizeBytes", "is missing"))
            if source is not None and source.get("$objectType") != "vmm.v4.ahv.config.ImageReference":
                found.append((f"{where}.backingInfo.dataSource.reference.$objectType", "is missing or unknown"))
        return found

    def _nics(self, wanted: Json) -> list[Finding]:
        found: list[Finding] = []
        taken = {nic.mac.lower() for machine in self.world.machines.values() for nic in machine.nics}
        for at, item in enumerate(wanted.get("nics") or ()):
            network, backing = nic_of(item)
            if network not in self.world.networks:
                found.append((f"nics[{at}].nicNetworkInfo.subnet", "does not exist"))
            mac = str(backing.get("macAddress") or "").lower()
            if mac and mac in taken:
                found.append((f"nics[{at}].nicBackingInfo.macAddress", f"{mac} is in use"))
            taken.add(mac)
        return found

    # --- making -------------------------------------------------------------------------------------------------------

    def make(self, wanted: Json, listed_at: float) -> Machine:
        """Raises `NoSuch` for an image that has gone meanwhile, `OutOfStorage`: nothing is left then."""
        disks: list[str] = []
        try:
            for item in wanted.get("disks") or ():
                disks.append(self._disk(item["backingInfo"]))
        except WorldError:
            for disk in disks:
                self.world.erase_disk(disk)
            raise
        sockets, cores = wanted["numSockets"], wanted["numCoresPerSocket"]
        machine = self.world.create(
            wanted["name"], vcpus=sockets * cores, memory_mib=wanted["memorySizeBytes"] // MIB, disks=tuple(disks),
            networks=tuple(nic_of(item)[0] for item in wanted.get("nics") or ()),
        )  # fmt: skip
        models = {}
        for nic, item in zip(machine.nics, wanted.get("nics") or (), strict=True):
            backing = nic_of(item)[1]
            nic.mac = backing.get("macAddress") or nic.mac
            nic.is_connected = backing.get("isConnected", True)
            models[nic.id] = backing.get("model", "VIRTIO")
        machine.marks = self._marks(wanted) | {"models": models, "listed_at": listed_at}
        return machine

    def _disk(self, backing: Json) -> str:
        container = (backing.get("storageContainer") or {}).get("extId") or next(iter(self.world.storages))
        source = (backing.get("dataSource") or {}).get("reference")
        if source is None:
            return self.world.new_disk(container, capacity=backing["diskSizeBytes"]).id
        image = self.images.images.get(str(source.get("imageExtId")))
        if image is None:
            raise NoSuch(f"image {source.get('imageExtId')}")
        return self.world.copy_disk(image.disk, linked=False, storage=container).id

    def _marks(self, wanted: Json) -> dict[str, Any]:
        boot = wanted.get("bootConfig") or {}
        addresses = [item["diskAddress"] for item in wanted.get("disks") or ()]
        return {
            "description": wanted.get("description") or "",
            "categories": [item["extId"] for item in wanted.get("categories") or ()],
            "sockets": wanted["numSockets"],
            "cores": wanted["numCoresPerSocket"],
            "firmware": "uefi" if str(boot.get("$objectType")).endswith("UefiBoot") else "bios",
            "secure_boot": bool(boot.get("isSecureBootEnabled")),
            "machine_type": wanted.get("machineType") or "PC",
            "addresses": [[one["busType"], one["index"]] for one in addresses],
        }


def nic_of(item: Json) -> tuple[str, Json]:
    """Subnet, and what the card is; in the spelling of v4.1 or of v4.0."""
    info = item.get("nicNetworkInfo") or item.get("networkInfo") or {}
    return str((info.get("subnet") or {}).get("extId")), item.get("nicBackingInfo") or item.get("backingInfo") or {}
