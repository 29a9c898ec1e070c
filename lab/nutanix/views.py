"""The world as Prism's JSON: machines, hosts, containers, subnets, tasks, recovery points.

Shapes: vendor SDKs ntnx_vmm_py_client 4.3.2, ntnx_prism_py_client 4.4.2, ntnx_clustermgmt_py_client 4.3.2 and
ntnx_networking_py_client 4.4.2; oddities as recorded on pc.2024.3.1.1: nested lists carry `$objectType` on their first
element only, containers say `markedForRemoval` (which no SDK knows), subnets keep their ETag in the body.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import NAMESPACE_URL, uuid5

from lab.errors import OutOfMemory, OutOfStorage, WorldError
from lab.nouns import Disk, Host, Machine, Network, Power, Storage, Task, TaskState
from lab.world import World

Json = dict[str, Any]

MIB = 1024 * 1024
BEGAN = datetime(2026, 1, 1, tzinfo=UTC)
"""The world's second 0."""
STAMP = {"$fv": "v4.r0"}
TASK_PREFIX = "ZXJnb24=:"
"""base64 of "ergon", the task service: `Task.extId` has it in front of the UUID."""

POWER = {Power.ON: "ON", Power.OFF: "OFF", Power.PAUSED: "PAUSED", Power.SUSPENDED: "PAUSED"}

VM_REL = "vmm:ahv:config:vm"
POINT_REL = "vmm:ahv:config:vm-recovery-point"


def time_of(seconds: float) -> str:
    return (BEGAN + timedelta(seconds=seconds)).isoformat(timespec="milliseconds")


def known_id(world: World, what: str) -> str:
    """An id for what the world does not know itself, the same in every run."""
    return str(uuid5(NAMESPACE_URL, f"{world.name}/{what}"))


def cluster_id(world: World) -> str:
    return known_id(world, "cluster")


def central_id(world: World) -> str:
    return known_id(world, "prism-central")


def typed(kind: str, items: Iterable[Json]) -> list[Json]:
    """A nested list as real servers send it: only its first element says what it is."""
    found = list(items)
    if found:
        found[0] = {"$objectType": kind, "$reserved": STAMP, **found[0]}
    return found


# --- machines --------------------------------------------------------------------------------------------------------


def vm(world: World, machine: Machine, version: tuple[int, int]) -> Json:
    marks = machine.marks
    seen: Json = {
        "$objectType": "vmm.v4.ahv.config.Vm",
        "$reserved": STAMP,
        "extId": machine.id,
        "name": machine.name,
        "createTime": time_of(machine.created_at),
        "updateTime": time_of(world.now),
        "numSockets": marks.get("sockets", machine.vcpus),
        "numCoresPerSocket": marks.get("cores", 1),
        "numThreadsPerCore": 1,
        "memorySizeBytes": machine.memory_mib * MIB,
        "powerState": marks.get("powerState") or POWER[machine.power],
        "cluster": {"extId": cluster_id(world)},
        "machineType": marks.get("machine_type", "PC"),
        "bootConfig": boot_config(marks),
        "biosUuid": machine.id,
        "generationUuid": machine.id,
        "isAgentVm": bool(marks.get("isAgentVm")),
        "protectionType": "UNPROTECTED",
        "hardwareClockTimezone": "UTC",
        "disks": typed("vmm.v4.ahv.config.Disk", _disks(world, machine)),
        "nics": typed("vmm.v4.ahv.config.Nic", (_nic(world, machine, at, version) for at in range(len(machine.nics)))),
        **marks.get("extra", {}),
    }
    if machine.power is Power.ON:
        seen["host"] = {"extId": machine.host}
    if marks.get("description"):
        seen["description"] = marks["description"]
    if marks.get("categories"):
        seen["categories"] = typed("vmm.v4.ahv.config.CategoryReference", ({"extId": id} for id in marks["categories"]))
    if machine.guest.has_agent:
        seen["guestTools"] = {
            "$objectType": "vmm.v4.ahv.config.GuestTools",
            "version": "4.1",
            "isInstalled": True,
            "isEnabled": True,
            "isReachable": machine.guest.is_up,
            "capabilities": ["VSS_SNAPSHOT"],
        }
    return seen


def boot_config(marks: Json) -> Json:
    """Secure boot is told only of machines that boot by UEFI."""
    if marks.get("firmware") != "uefi":
        return {"$objectType": "vmm.v4.ahv.config.LegacyBoot", "bootOrder": ["CDROM", "DISK", "NETWORK"]}
    return {"$objectType": "vmm.v4.ahv.config.UefiBoot", "isSecureBootEnabled": bool(marks.get("secure_boot"))}


def _disks(world: World, machine: Machine) -> Iterator[Json]:
    """Where a disk hangs goes by its place in the list, which snapshots do not change."""
    addresses = machine.marks.get("addresses", ())
    for at, id in enumerate(machine.disks):
        bus, index = addresses[at] if at < len(addresses) else ("SCSI", at)
        yield disk(world.disks[id], bus, index)
    for at, id in enumerate(machine.marks.get("volume_groups", ())):
        yield {
            "extId": id,
            "diskAddress": {"busType": "SCSI", "index": len(machine.disks) + at},
            "backingInfo": {"$objectType": "vmm.v4.ahv.config.ADSFVolumeGroupReference", "volumeGroupExtId": id},
        }


def disk(one: Disk, bus: str, index: int) -> Json:
    return {
        "extId": one.id,
        "diskAddress": {"busType": bus, "index": index},
        "backingInfo": {
            "$objectType": "vmm.v4.ahv.config.VmDisk",
            "diskExtId": one.id,
            "diskSizeBytes": one.capacity,
            "storageContainer": {"extId": one.storage},
        },
    }


def _nic(world: World, machine: Machine, at: int, version: tuple[int, int]) -> Json:
    nic = machine.nics[at]
    info: Json = {"nicType": "NORMAL_NIC", "subnet": {"extId": nic.network}, "vlanMode": "ACCESS"}
    if addresses := _addresses(machine) if at == 0 else ():
        info["ipv4Info"] = {"learnedIpAddresses": [{"value": address, "prefixLength": 32} for address in addresses]}
    if managed := machine.marks.get("managed_address"):
        info["ipv4Config"] = {"shouldAssignIp": True, "ipAddress": {"value": managed, "prefixLength": 32}}
    model = machine.marks.get("models", {}).get(nic.id, "VIRTIO")
    backing = {"model": model, "macAddress": nic.mac, "isConnected": nic.is_connected}
    told: Json = {"extId": nic.id, "backingInfo": backing, "networkInfo": info}
    if version >= (4, 1):
        told["nicBackingInfo"] = {"$objectType": "vmm.v4.ahv.config.VirtualEthernetNic", **backing}
        told["nicNetworkInfo"] = {"$objectType": "vmm.v4.ahv.config.VirtualEthernetNicNetworkInfo", **info}
    return told


def _addresses(machine: Machine) -> tuple[str, ...]:
    """Before DHCP has answered, guests give themselves a link-local one, and Prism tells it."""
    if machine.power is not Power.ON:
        return ()
    return (machine.guest.address,) if machine.guest.is_up and machine.guest.address else ("169.254.17.4",)


# --- what stands around them -----------------------------------------------------------------------------------------


def clusters(world: World) -> list[Json]:
    """The cluster, and Prism Central itself, which lists itself as one."""
    machines = sum(not machine.is_template for machine in world.machines.values())
    return [
        {
            "$objectType": "clustermgmt.v4.config.Cluster",
            "extId": cluster_id(world),
            "name": f"{world.name}-ahv",
            "vmCount": machines + sum(machine.is_template for machine in world.machines.values()),
            "config": {
                "buildInfo": {"version": "7.0"},
                "hypervisorTypes": ["AHV"],
                "clusterFunction": ["AOS"],
            },
        },
        {
            "$objectType": "clustermgmt.v4.config.Cluster",
            "extId": central_id(world),
            "name": "Unnamed",
            "config": {"buildInfo": {"version": "pc.2024.3.1.1"}, "clusterFunction": ["PRISM_CENTRAL"]},
        },
    ]


def host(world: World, one: Host) -> Json:
    return {
        "$objectType": "clustermgmt.v4.config.Host",
        "extId": one.id,
        "hostName": one.name,
        "hostType": "HYPER_CONVERGED",
        "cluster": {"uuid": cluster_id(world), "name": f"{world.name}-ahv"},
        "numberOfCpuCores": max(1, one.vcpus // 2),
        "numberOfCpuThreads": one.vcpus,
        "numberOfCpuSockets": 2,
        "memorySizeBytes": one.memory_mib * MIB,
        "nodeStatus": "NORMAL",
        "hypervisor": {
            "fullName": "Nutanix 20230302.102005",
            "type": "AHV",
            "state": one.marks.get("state", "ACROPOLIS_NORMAL"),
            "acropolisConnectionState": "CONNECTED" if one.is_up else "DISCONNECTED",
        },
    }


def container(world: World, one: Storage) -> Json:
    return {
        "$objectType": "clustermgmt.v4.config.StorageContainer",
        "extId": one.id,
        "containerExtId": one.id,
        "clusterExtId": cluster_id(world),
        "clusterName": f"{world.name}-ahv",
        "name": one.name,
        "maxCapacityBytes": one.capacity_mib * MIB,
        "replicationFactor": 2,
        "isInternal": False,
        "markedForRemoval": False,
    }


def container_stats(world: World, one: Storage) -> Json:
    def series(value: int) -> list[Json]:
        return [{"timestamp": time_of(world.now - 60), "value": 0}, {"timestamp": time_of(world.now), "value": value}]

    used = one.capacity_mib - world.free_mib(one.id)
    return {
        "$objectType": "clustermgmt.v4.stats.StorageContainerStats",
        "extId": one.id,
        "containerExtId": one.id,
        "storageCapacityBytes": series(one.capacity_mib * MIB),
        "storageUsageBytes": series(used * MIB),
    }


def subnet(world: World, one: Network) -> Json:
    return {
        "$objectType": "networking.v4.config.Subnet",
        "$reserved": {"ETag": 1},
        "extId": one.id,
        "name": one.name,
        "subnetType": "VLAN",
        "networkId": one.vlan,
        "clusterReference": cluster_id(world),
        "isExternal": False,
    }


# --- tasks and recovery points ---------------------------------------------------------------------------------------

STATES = {
    TaskState.QUEUED: "QUEUED",
    TaskState.RUNNING: "RUNNING",
    TaskState.DONE: "SUCCEEDED",
    TaskState.FAILED: "FAILED",
    TaskState.CANCELLED: "CANCELED",
}


def task_reference(one: Task) -> Json:
    return {"$objectType": "prism.v4.config.TaskReference", "$reserved": STAMP, "extId": TASK_PREFIX + one.id}


def task(world: World, one: Task) -> Json:
    entities = [{"extId": id, "rel": rel} for rel, id in one.marks.get("entities", ())]
    seen: Json = {
        "$objectType": "prism.v4.config.Task",
        "$reserved": STAMP,
        "extId": TASK_PREFIX + one.id,
        "operation": one.kind,
        "operationDescription": one.kind,
        "status": STATES[one.state],
        "progressPercentage": one.percent(world.now),
        "isCancelable": False,
        "createdTime": time_of(one.queued_at),
        "clusterExtIds": [cluster_id(world)],
        "entitiesAffected": typed("prism.v4.config.EntityReference", entities),
    }
    if one.started_at is not None:
        seen["startedTime"] = time_of(one.started_at)
    if one.ended_at is not None:
        seen["completedTime"] = time_of(one.ended_at)
    if details := one.marks.get("details"):
        seen["completionDetails"] = typed(
            "common.v1.config.KVPair",
            ({"name": name, "$valueItemDiscriminator": "String", "value": value} for name, value in details.items()),
        )
    if one.error is not None:
        message, group, code = failure_words(one.error, one)
        seen["errorMessages"] = [app_message(message, group, code, kind="prism.v4.error.AppMessage")]
        seen["legacyErrorMessage"] = message
    return seen


def failure_words(error: Exception, one: Task) -> tuple[str, str, str]:
    """Message, group and code of a failed task."""
    if isinstance(error, StaleEtag):
        return "The entity has changed since it was read: VM_ETAG_MISMATCH.", "VM_ETAG_MISMATCH", "VMM-30102"
    if isinstance(error, OutOfMemory):
        message = f"NoHostResources: No host has enough available memory for VM {one.subject}."
        return message, "VM_NO_HOST_RESOURCES", "VMM-30010"
    if isinstance(error, OutOfStorage):
        return f"Insufficient storage space: storage container {error} is full.", "VM_STORAGE", "VMM-30011"
    if isinstance(error, WorldError):
        return f"The operation failed: {error}", "VM_OPERATION_FAILED", "VMM-30000"
    return f"Internal error: {error!r}", "INTERNAL_ERROR", "VMM-10000"


class StaleEtag(WorldError):
    """The ETag of the request was older than the machine when the task began."""


def point(world: World, id: str, name: str, machine: str, taken_at: float) -> Json:
    return {
        "$objectType": "vmm.v4.ahv.config.VmRecoveryPoint",
        "extId": id,
        "name": name,
        "vmExtId": machine,
        "creationTime": time_of(taken_at),
        "status": "COMPLETE",
        "recoveryPointType": "CRASH_CONSISTENT",
    }


# --- errors ----------------------------------------------------------------------------------------------------------


def app_message(message: str, group: str, code: str, *, kind: str = "vmm.v4.error.AppMessage") -> Json:
    return {
        "$objectType": kind,
        "message": message,
        "severity": "ERROR",
        "code": code,
        "locale": "en-US",
        "errorGroup": group,
    }


def app_error(namespace: str, message: str, group: str, code: str) -> Json:
    """An application error: `error` is a list."""
    kind = f"{namespace}.v4.error.ErrorResponse"
    message_kind = f"{namespace}.v4.error.AppMessage"
    return {
        "data": {"$objectType": kind, "error": [app_message(message, group, code, kind=message_kind)]},
        "$dataItemDiscriminator": kind,
    }


def schema_error(world: World, namespace: str, path: str, found: list[tuple[str, str]]) -> Json:
    """A schema error: `error` is an object."""
    details = [{"location": "body", "attributePath": where, "message": message} for where, message in found]
    error = {
        "$objectType": f"{namespace}.v4.error.SchemaValidationError",
        "timestamp": time_of(world.now),
        "statusCode": 400,
        "error": "Bad Request",
        "path": path,
        "validationErrorMessages": details,
    }
    kind = f"{namespace}.v4.error.ErrorResponse"
    return {"data": {"$objectType": kind, "error": error}, "$dataItemDiscriminator": kind}
