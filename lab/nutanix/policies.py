"""Protection policies, and the recovery points that they leave here and elsewhere, as Prism Central lists them.

Shapes: vendor SDKs ntnx_datapolicies_py_client 4.3 and ntnx_dataprotection_py_client 4.4.2. A copy is a recovery point
of its own, in the other cluster, with the same location agnostic id.
"""

from __future__ import annotations

from collections.abc import Iterator

from lab import mirrors
from lab.nouns import Machine
from lab.nutanix import views
from lab.nutanix.views import Json
from lab.world import World

SHOWN = 3
"""So many recovery points are kept, here and there."""


class Policies:
    """Of one Prism Central. Where a machine goes to is a cluster of that name."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.far: set[str] = set()
        """Names of clusters that another Prism Central has."""
        self.tells_policy = True
        """Whether machines name their policy; else only their categories do."""
        self.stamps_arrival = False
        """Whether a copy bears the time of its arrival; which one it is is not known."""

    def views(self) -> Iterator[Json]:
        found = {(mark["to"], mark["every_s"]): True for _, mark in self._protected()}
        for to, every_s in found:
            yield self._policy(to, every_s)

    def clusters(self) -> Iterator[Json]:
        """Those beside our own that this Prism Central has too: nothing of ours runs there."""
        for to in sorted({mark["to"] for _, mark in self._protected()} - self.far):
            yield {
                "$objectType": "clustermgmt.v4.config.Cluster",
                "extId": self._cluster(to),
                "name": to,
                "vmCount": 0,
                "config": {
                    "buildInfo": {"version": "7.0"}, "hypervisorTypes": ["AHV"], "clusterFunction": ["AOS"],
                },
            }  # fmt: skip

    def points(self) -> Iterator[Json]:
        for machine, mark in self._protected():
            for at in _times(mark, self._world.now):
                yield self._point(machine, at, views.cluster_id(self._world))
            arrived = mirrors.newest_at(self._world, machine)
            if mark["to"] not in self.far and arrived is not None:
                for at in _times(mark, arrived):
                    yield self._point(machine, at, self._cluster(mark["to"]), is_copy=True)

    def of(self, machine: Machine) -> Json:
        """What a machine says of its protection."""
        mark = mirrors.of(machine)
        if mark is None:
            return {}
        told: Json = {"protectionType": "RULE_PROTECTED"}
        if self.tells_policy:
            told["protectionPolicyState"] = {"policy": {"extId": self._id(mark["to"], mark["every_s"])}}
        else:
            category = self._category(mark["to"], mark["every_s"])
            told["categories"] = views.typed("vmm.v4.ahv.config.CategoryReference", [{"extId": category}])
        return told

    def _protected(self) -> list[tuple[Machine, Json]]:
        found = ((machine, mirrors.of(machine)) for machine in self._world.visible())
        return [(machine, mark) for machine, mark in found if mark is not None]

    def _id(self, to: str, every_s: float) -> str:
        return views.known_id(self._world, f"policy {to} {every_s}")

    def _category(self, to: str, every_s: float) -> str:
        return views.known_id(self._world, f"category {to} {every_s}")

    def _cluster(self, name: str) -> str:
        return views.known_id(self._world, f"cluster {name}")

    def _policy(self, to: str, every_s: float) -> Json:
        local, remote = views.cluster_id(self._world), self._cluster(to)
        central = views.known_id(self._world, "far") if to in self.far else views.central_id(self._world)
        here, there = "Primary", f"Remote {to}"
        return {
            "$objectType": "datapolicies.v4.config.ProtectionPolicy",
            "$reserved": views.STAMP,
            "extId": self._id(to, every_s),
            "name": f"to {to}",
            "categoryIds": [self._category(to, every_s)],
            "isApprovalPolicyNeeded": False,
            "replicationLocations": views.typed(
                "datapolicies.v4.config.ReplicationLocation",
                [
                    _location(here, views.central_id(self._world), local, is_primary=True),
                    _location(there, central, remote, is_primary=False),
                ],
            ),
            "replicationConfigurations": views.typed(
                "datapolicies.v4.config.ReplicationConfiguration",
                [_way(here, there, every_s), _way(there, here, every_s), _way(here, "", every_s)],
            ),
        }

    def _point(self, machine: Machine, at: float, cluster: str, *, is_copy: bool = False) -> Json:
        same = views.known_id(self._world, f"point {machine.id} {at}")
        id = views.known_id(self._world, f"point {machine.id} {at} {cluster}")
        shown_at = at + (machine.marks[mirrors.MARK]["first_s"] if is_copy and self.stamps_arrival else 0.0)
        return {
            "$objectType": "dataprotection.v4.config.RecoveryPoint",
            "$reserved": views.STAMP,
            "extId": id,
            "locationAgnosticId": same,
            "name": f"{machine.name} by policy",
            "creationTime": mirrors.moment(self._world, shown_at).isoformat(timespec="milliseconds"),
            "status": "COMPLETE",
            "recoveryPointType": "CRASH_CONSISTENT",
            "isSecure": False,
            "locationReferences": [{"locationExtId": cluster}],
            "vmRecoveryPoints": views.typed(
                "dataprotection.v4.config.VmRecoveryPoint",
                [{"extId": views.known_id(self._world, f"of {id}"), "vmExtId": machine.id, "hypervisorType": "AHV"}],
            ),
        }


def _times(mark: Json, until: float) -> list[float]:
    """When the points were taken that are kept, oldest first."""
    count = int((until - mark["since"]) // mark["every_s"]) + 1
    return [mark["since"] + number * mark["every_s"] for number in range(max(0, count - SHOWN), count)]


def _location(label: str, central: str, cluster: str, *, is_primary: bool) -> Json:
    return {
        "label": label,
        "domainManagerExtId": central,
        "isPrimary": is_primary,
        "replicationSubLocation": {"$objectType": "datapolicies.v4.config.NutanixCluster", "clusterExtIds": [cluster]},
    }


def _way(source: str, remote: str, every_s: float) -> Json:
    told: Json = {
        "sourceLocationLabel": source,
        "schedule": {
            "recoveryPointType": "CRASH_CONSISTENT",
            "recoveryPointObjectiveTimeSeconds": int(every_s),
            "retention": {"$objectType": "datapolicies.v4.config.LinearRetention", "local": SHOWN, "remote": SHOWN},
        },
    }
    return told | ({"remoteLocationLabel": remote} if remote else {})
