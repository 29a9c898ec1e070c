"""What a cluster answers: the records of the REST API. Pure: reads the cluster, changes nothing."""

from __future__ import annotations

from typing import Any

from lab.errors import HostDown, OutOfMemory, OutOfStorage, TaskBroke
from lab.hypercore.cluster import ALL_ROLES, Cluster
from lab.hypercore.devices import MIB, Device, Iso, Point, extra_of
from lab.nouns import Host, Machine, Power, Task, TaskState

BEGAN = 1_760_000_000
"""The world's second 0, as the cluster's clock has it."""

STATES = {Power.ON: "RUNNING", Power.OFF: "SHUTOFF", Power.PAUSED: "PAUSED", Power.SUSPENDED: "PAUSED"}
TASK_STATES = {
    TaskState.QUEUED: "QUEUED", TaskState.RUNNING: "RUNNING", TaskState.DONE: "COMPLETE", TaskState.FAILED: "ERROR",
    TaskState.CANCELLED: "ERROR",
}  # fmt: skip


def domain(cluster: Cluster, machine: Machine) -> dict[str, Any]:
    world, extra = cluster.world, extra_of(cluster.world, machine)
    addresses = list(world.addresses(machine)) if machine.power is Power.ON else []
    latest = world.tasks.get(extra.latest)
    is_up = bool(addresses) or (machine.power is Power.ON and machine.guest.is_up and machine.guest.has_agent)
    newer: dict[str, Any] = {"labels": extra.labels, "runnable": not machine.is_template} if cluster.has_labels else {}
    return {
        "uuid": machine.id,
        "nodeUUID": machine.host if machine.power is not Power.OFF else "",
        "name": machine.name,
        "description": extra.description,
        "operatingSystem": extra.operating_system,
        "state": extra_state(machine),
        "desiredDisposition": "RUNNING" if machine.power is Power.ON else "SHUTOFF",
        "tags": extra.tags,
        "mem": machine.memory_mib * MIB,
        "numVCPU": machine.vcpus,
        "machineType": extra.machine_type,
        "machineTypeKeyword": extra.machine_type_keyword,
        "guestAgentState": "AVAILABLE" if is_up else "UNAVAILABLE",
        "blockDevs": [block_device(machine, device) for device in extra.devices],
        "netDevs": [
            net_device(cluster, machine, place, addresses if place == 0 else []) for place in range(len(machine.nics))
        ],
        "bootDevices": list(extra.boot),
        "snapUUIDs": [point.uuid for point in cluster.points.values() if point.domain == machine.id],
        "snapshotScheduleUUID": extra.schedule,
        "sourceVirDomainUUID": extra.replica_of,
        "affinityStrategy": dict(extra.affinity),
        "cloudInitData": dict(extra.cloud_init),
        "created": BEGAN + int(machine.created_at),
        "modified": BEGAN + int(world.now),
        "latestTaskTag": task(cluster, latest) if latest else {"taskTag": "", "state": "UNINITIALIZED"},
        **newer,
    }


def extra_state(machine: Machine) -> str:
    return str(machine.marks.get("hypercore_state") or STATES[machine.power])


def block_device(machine: Machine, device: Device) -> dict[str, Any]:
    return {
        "uuid": device.uuid,
        "virDomainUUID": machine.id,
        "type": device.type,
        "cacheMode": device.cache_mode,
        "capacity": device.capacity,
        "allocation": 0,
        "name": device.name,
        "path": device.path or ("" if device.type == "IDE_CDROM" else f"scribe/{device.uuid}"),
        "slot": device.slot,
        "shareUUID": "",
        "disableSnapshotting": False,
        "tieringPriorityFactor": 8,
        "mountPoints": [],
        "readOnly": False,
    }


def net_device(cluster: Cluster, machine: Machine, place: int, addresses: list[str]) -> dict[str, Any]:
    nic = machine.nics[place]
    return {
        "uuid": nic.id,
        "virDomainUUID": machine.id,
        "type": extra_of(cluster.world, machine).nic_types.get(nic.id, "VIRTIO"),
        "macAddress": nic.mac,
        "vlan": cluster.world.networks[nic.network].vlan,
        "connected": nic.is_connected,
        "ipv4Addresses": addresses,
    }


def snapshot(cluster: Cluster, point: Point) -> dict[str, Any]:
    """Disks as they were stand under `domain.blockDevs`; `deviceSnapshots` knows serial numbers alone."""
    machine = cluster.world.machines.get(point.domain)
    return {
        "uuid": point.uuid,
        "domainUUID": point.domain,
        "label": point.label,
        "type": point.kind,
        "replication": point.replication,
        "timestamp": BEGAN + int(point.taken_at),
        "automatedTriggerTimestamp": 0,
        "localRetainUntilTimestamp": 0,
        "remoteRetainUntilTimestamp": 0,
        "blockCountDiffFromSerialNumber": -1,
        "replicationUUIDs": [],
        **({"labels": {}} if cluster.has_labels else {}),
        "deviceSnapshots": [{"uuid": uuid, "serialNumber": serial} for uuid, serial in point.serials.items()],
        "domain": {
            "uuid": point.domain,
            "name": machine.name if machine else "",
            "blockDevs": [block_device(machine, device) | {"virDomainUUID": point.domain} for device in point.devices]
            if machine
            else [],
            "bootDevices": list(point.boot),
        },
    }


def iso(cluster: Cluster, found: Iso) -> dict[str, Any]:
    return {
        "uuid": found.uuid,
        "name": found.name,
        "size": found.size,
        "path": found.path,
        "readyForInsert": found.is_ready,
        "mounts": cluster.mounts(found),
    }


def task(cluster: Cluster, found: Task) -> dict[str, Any]:
    message, parameters = _message(found)
    now = cluster.world.now
    return {
        "taskTag": str(found.marks.get("tag", "")),
        "progressPercent": found.percent(now),
        "state": TASK_STATES[found.state],
        "formattedDescription": str(found.marks.get("words", "")),
        "descriptionParameters": list(found.marks.get("parameters", ())),
        "formattedMessage": message,
        "messageParameters": parameters,
        "objectUUID": str(found.marks.get("created") or found.subject),
        "created": BEGAN + int(found.queued_at),
        "modified": BEGAN + int(now),
        "completed": BEGAN + int(found.ended_at) if found.ended_at is not None else 0,
        "sessionID": "",
        "nodeUUIDs": list(cluster.world.hosts)[:1],
    }


def _message(found: Task) -> tuple[str, list[str]]:
    """Why it failed, with placeholders."""
    error = found.error
    if error is None:
        return "", []
    what = str((found.marks.get("parameters") or [""])[0])
    if isinstance(error, OutOfMemory):
        return "Unable to start %@: insufficient memory on node %@", [what, str(error)]
    if isinstance(error, OutOfStorage):
        return "Unable to process %@: insufficient storage capacity", [what]
    if isinstance(error, HostDown):
        return "No node can run %@", [what]
    if isinstance(error, TaskBroke):
        return "Internal failure while working on %@", [what]
    return "%@", [str(error)]


def node(cluster: Cluster, host: Host, address: str, place: int) -> dict[str, Any]:
    """`networkStatus` stays ONLINE for a while when the node is gone: it proves nothing."""
    world = cluster.world
    storages = list(world.storages.values())
    share = max(1, len(world.hosts))
    capacity = sum(storage.capacity_mib for storage in storages) * MIB // share
    used = sum(storage.capacity_mib - world.free_mib(storage.id) for storage in storages) * MIB // share
    memory = world.used_memory_mib(host.id) * MIB
    return {
        "uuid": host.id,
        "lanIP": address,
        "backplaneIP": f"10.100.0.{10 + place}",
        "peerID": place + 1,
        "networkStatus": "ONLINE",
        "configState": "OK",
        "currentDisposition": "IN" if host.is_up else "EVACUATED",
        "allowRunningVMs": True,
        "supportsVirtualization": True,
        "virtualizationOnline": host.is_up,
        "capacity": capacity,
        "memSize": host.memory_mib * MIB,
        "totalMemUsageBytes": memory,
        "memUsagePercentage": 100 * memory / (host.memory_mib * MIB),
        "numCores": max(1, host.vcpus // 2),
        "numThreads": host.vcpus,
        "numSockets": 1,
        "cpuUsage": 5.0,
        "drives": [
            {
                "uuid": f"LAB_{place}0", "type": "SSD", "slot": 0, "capacityBytes": capacity, "usedBytes": used,
                "currentDisposition": "IN", "isHealthy": True, "errorCount": 0,
            }
        ],
    }  # fmt: skip


def conditions(cluster: Cluster) -> list[dict[str, Any]]:
    """All that there can be, each with a value: some 250 of them, a few of which hold. Names and severity are made up,
    but for updateInProgress: the field notes print no whole record."""
    is_full = cluster.tier_percent > 90
    status = (cluster.update_status or {}).get("updateStatus", {})
    updating = status.get("masterState") not in ("COMPLETE", None)
    named = [
        _condition(
            cluster, "storage.tierFull", "CRITICAL", is_full, f"SSD storage tier is {cluster.tier_percent}% full"
        ),
        _condition(cluster, "condition.updateInProgress", "INFO", updating, "An update is in progress"),
    ]
    return named + [_condition(cluster, f"condition.{n}", "ERROR", False, f"Condition {n}") for n in range(250)]


def _condition(cluster: Cluster, name: str, severity: str, value: bool, words: str) -> dict[str, Any]:
    return {"uuid": name, "name": name, "severity": severity, "value": value, "description": words, "nodeUUID": ""}


def roles() -> list[dict[str, str]]:
    return [{"uuid": f"role-{place}", "name": name} for place, name in enumerate(ALL_ROLES)]


def users(cluster: Cluster) -> list[dict[str, Any]]:
    ids = {role["name"]: role["uuid"] for role in roles()}
    return [
        {
            "uuid": cluster.user_id, "username": cluster.user, "fullName": "Deskyard", "sessionLimit": 0,
            "roleUUIDs": sorted(ids[role] for role in cluster.roles),
        }
    ]  # fmt: skip
