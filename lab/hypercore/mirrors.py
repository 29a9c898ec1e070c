"""Replication to another cluster, as this one tells it.

Shapes: the vendor's Ansible collection and Terraform provider. What a connection that is down is called is not known to
us: "DISCONNECTED" stands for any word but ESTABLISHED.
"""

from __future__ import annotations

from typing import Any
from uuid import NAMESPACE_URL, uuid5

from lab import mirrors
from lab.hypercore.cluster import Cluster
from lab.mirrors import Course
from lab.nouns import Machine

SHOWN = 3
"""So many of the schedule's snapshots are still there."""


def replications(cluster: Cluster) -> list[dict[str, Any]]:
    return [_replication(cluster, machine) for machine in _replicated(cluster)]


def connections(cluster: Cluster) -> list[dict[str, Any]]:
    """One for each cluster that something goes to. It is well unless something of it is broken."""
    marks = [machine.marks[mirrors.MARK] for machine in _replicated(cluster)]
    broken = {mark["to"] for mark in marks if mark["course"] == Course.BROKEN}
    return [_connection(cluster, to, is_well=to not in broken) for to in sorted({mark["to"] for mark in marks})]


def snapshots(cluster: Cluster) -> list[dict[str, Any]]:
    """Those that the schedule took, which go to the other cluster."""
    return [
        _snapshot(cluster, machine, at) for machine in _replicated(cluster) for at in _times(cluster, machine)[-SHOWN:]
    ]


def _replicated(cluster: Cluster) -> list[Machine]:
    return [machine for machine in cluster.listed() if mirrors.of(machine) is not None]


def _times(cluster: Cluster, machine: Machine) -> list[float]:
    mark, now = machine.marks[mirrors.MARK], cluster.world.now
    count = int((now - mark["since"]) // mark["every_s"]) + 1
    return [mark["since"] + number * mark["every_s"] for number in range(max(0, count - SHOWN), count)]


def _id(*of: str) -> str:
    return str(uuid5(NAMESPACE_URL, "/".join(of)))


def _replication(cluster: Cluster, machine: Machine) -> dict[str, Any]:
    mark = machine.marks[mirrors.MARK]
    return {
        "uuid": _id("replication", machine.id),
        "sourceDomainUUID": machine.id,
        "targetDomainUUID": _id("replica", machine.id),
        "connectionUUID": _id("connection", cluster.id, mark["to"]),
        "label": "",
        "enable": mark["course"] != Course.PAUSED,
        "progress": {"percentComplete": _percent(cluster, machine), "blockCountDiff": 0, "blockCountSent": 0},
    }


def _percent(cluster: Cluster, machine: Machine) -> int:
    """Of the newest snapshot that has been taken."""
    arrived = mirrors.newest_at(cluster.world, machine)
    return 100 if arrived is not None and arrived >= _times(cluster, machine)[-1] else 40


def _connection(cluster: Cluster, to: str, *, is_well: bool) -> dict[str, Any]:
    return {
        "uuid": _id("connection", cluster.id, to),
        "remoteClusterInfo": {"clusterName": to, "clusterUUID": _id("cluster", to)},
        "connectionStatus": "DISCONNECTED" if to in cluster.cut_from else "ESTABLISHED",
        "replicationOK": is_well,
        "remoteNodeIPs": ["198.51.100.7"],
        "remoteNodeUUIDs": [_id("node", to)],
    }


def _snapshot(cluster: Cluster, machine: Machine, at: float) -> dict[str, Any]:
    return {
        "uuid": _id("snapshot", machine.id, str(at)),
        "domainUUID": machine.id,
        "label": "Every so often",
        "type": "AUTOMATED",
        "replication": True,
        "timestamp": int(mirrors.moment(cluster.world, at).timestamp()),
        "automatedTriggerTimestamp": 0,
        "localRetainUntilTimestamp": 0,
        "remoteRetainUntilTimestamp": 0,
        "blockCountDiffFromSerialNumber": -1,
        "replicationUUIDs": [],
        "deviceSnapshots": [],
        "domain": {"uuid": machine.id, "name": machine.name, "blockDevs": [], "bootDevices": []},
    }
