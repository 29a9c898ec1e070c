"""What Prism Central shows: a complete listing, or what has changed in the list of machines.

Prism's v4 API has no feed of changes, and lists machines at 2 calls of 100 a second at most. A complete reading asks
for clusters, hosts, storage, networks and machines; an incremental one reads the list of machines alone and compares. A
machine that is missing there is asked for by its id, and is gone only if Prism says so: a new machine may be listed
seconds late, and an account that lost its rights sees fewer machines without any error.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TypeVar

from connectors.base import Host, Inventory, Machine, Network, Power, Storage, Template
from connectors.errors import Busy, ConnectorError, NotFound, Unsupported
from connectors.nutanix import machines, mapping, names
from connectors.nutanix.client import Client, Json, Listing, OutOfTime, literal, segment
from connectors.nutanix.mapping import Cluster, Vm
from connectors.nutanix.settings import NutanixSettings
from connectors.nutanix.work import VMS

T = TypeVar("T")

MANY = 5
"""If more machines than this are missing from a list, the broker gets a complete listing, to judge for itself."""


@dataclass(slots=True)
class Shown:
    """What the last reading showed, to compare with."""

    machines: dict[str, Machine] = field(default_factory=dict)
    templates: dict[str, Template] = field(default_factory=dict)


@dataclass
class Reading:
    """One look, and what could not be read during it."""

    client: Client
    settings: NutanixSettings
    deadline: float
    faults: list[str] = field(default_factory=list)

    # --- complete -----------------------------------------------------------------------------------------------------

    def complete(self) -> tuple[Inventory, Shown]:
        began_at = datetime.now(UTC)
        clusters = self.clusters()
        chosen = self.chosen(clusters)
        hosts = self._hosts(chosen)
        storages = self._storages(chosen)
        networks = self._networks(chosen)
        shown = self._machines(chosen)
        if not shown.machines and not shown.templates and not self.faults:
            self.doubt_emptiness(clusters)
        inventory = Inventory(
            began_at=began_at, complete=not self.faults, hosts=hosts, storages=storages, networks=networks,
            machines=tuple(shown.machines.values()), templates=tuple(shown.templates.values()),
            partial="; ".join(self.faults),
        )  # fmt: skip
        return inventory, shown

    def clusters(self) -> list[Cluster]:
        return [mapping.read_cluster(item) for item in self.listed("clustermgmt", "config/clusters", "clusters")]

    def chosen(self, clusters: list[Cluster]) -> frozenset[str] | None:
        """Ids of the clusters to look at; None: all. Raises `NotFound` if the one in the settings is not there."""
        real = [cluster for cluster in clusters if not cluster.is_prism_central]
        if not self.settings.cluster:
            return None if self.faults else frozenset(cluster.id for cluster in real)
        found = [cluster.id for cluster in real if self.settings.cluster in (cluster.id, cluster.name)]
        if not found and not self.faults:
            raise NotFound(f"There is no cluster {self.settings.cluster!r} behind {self.settings.endpoint}.")
        return frozenset(found)

    def _hosts(self, chosen: frozenset[str] | None) -> tuple[Host, ...]:
        """Hosts of Prism Central's own pseudo-cluster are none (asking for them is refused)."""
        found = self.listed("clustermgmt", "config/hosts", "hosts")
        return tuple(
            mapping.read_host(item)
            for item in found
            if chosen is None or not mapping.cluster_of_host(item) or mapping.cluster_of_host(item) in chosen
        )

    def _storages(self, chosen: frozenset[str] | None) -> tuple[Storage, ...]:
        found = []
        for item in self.listed("clustermgmt", "config/storage-containers", "storage containers"):
            if chosen is not None and str(item.get("clusterExtId") or "") not in {"", *chosen}:
                continue
            if item.get("isInternal") is True:
                continue
            found.append(mapping.read_storage(item, self._free_bytes(item)))
        return tuple(found)

    def _free_bytes(self, item: Json) -> int | None:
        """Capacity less use, by the newest statistics; None if they tell nothing."""
        now = datetime.now(UTC)
        query = {
            "$startTime": (now - timedelta(minutes=10)).isoformat(timespec="seconds"),
            "$endTime": now.isoformat(timespec="seconds"),
            "$samplingInterval": "60",
            "$statType": "LAST",
        }
        path = f"stats/storage-containers/{segment(mapping.container_id(item))}"
        try:
            data = self._patiently(
                lambda: self.client.get("clustermgmt", path, self.deadline, query=query, doing="reading storage")
            ).data
        except (NotFound, Unsupported):
            return None
        if not isinstance(data, dict):
            return None
        capacity = mapping.latest(data.get("storageCapacityBytes"))
        used = mapping.latest(data.get("storageUsageBytes"))
        return max(0, capacity - used) if capacity is not None and used is not None else None

    def _networks(self, chosen: frozenset[str] | None) -> tuple[Network, ...]:
        """Subnets of the chosen clusters, and those that belong to none (overlays)."""
        found = []
        for item in self.listed("networking", "config/subnets", "networks"):
            places = mapping.clusters_of_subnet(item)
            if chosen is None or not places or chosen & set(places):
                found.append(mapping.read_network(item))
        return tuple(found)

    def doubt_emptiness(self, clusters: list[Cluster]) -> None:
        """Prism hides what an account may not see without a word."""
        if sum(cluster.machines for cluster in clusters if not cluster.is_prism_central) or not clusters:
            self.faults.append(
                "no machine is visible, although there are some: the account's role may not see them (View Virtual "
                "Machine)"
            )

    # --- machines -----------------------------------------------------------------------------------------------------

    def _machines(self, chosen: frozenset[str] | None) -> Shown:
        mark = self._template_category()
        shown = Shown()
        for item in self.listed("vmm", VMS, "machines"):
            vm = mapping.read_vm(item)
            if (
                not vm.id
                or vm.is_agent_vm
                or names.is_stand_in(vm.name)
                or (chosen is not None and vm.cluster and vm.cluster not in chosen)
            ):
                continue
            if self._is_template(vm, mark):
                shown.templates[vm.id] = _template(vm)
            if mark is None or mark not in vm.categories or vm.stamp is not None:
                shown.machines[vm.id] = _machine(vm)
        return shown

    def _is_template(self, vm: Vm, mark: str | None) -> bool:
        """With a category in the settings, what bears it; else whatever is off and not ours. A desktop never is."""
        if vm.stamp is not None:
            return False
        return mark in vm.categories if mark is not None else vm.power is Power.OFF

    def _template_category(self) -> str | None:
        """Id of the category in the settings, "" if there is no such category; None if none is set."""
        wanted = self.settings.template_mark
        if wanted is None:
            return None
        key, value = wanted
        query = {"$filter": f"key eq {literal(key)} and value eq {literal(value)}"}
        found = self.listed("prism", "config/categories", "categories", query)
        ids = [str(item.get("extId")) for item in found if (item.get("key"), item.get("value")) == wanted]
        if not ids:
            self.faults.append(f"there is no category {key}:{value}, so no golden image is known")
        return ids[0] if ids else ""

    # --- incremental --------------------------------------------------------------------------------------------------

    def changed(self, before: Shown) -> tuple[Inventory, Shown] | None:
        """What differs from the last reading. None if so much is missing that a complete one has to tell."""
        began_at = datetime.now(UTC)
        chosen = self.chosen(self.clusters()) if self.settings.cluster else None
        now = self._machines(chosen)
        missing = (before.machines.keys() | before.templates.keys()) - (now.machines.keys() | now.templates.keys())
        is_empty = not now.machines and not now.templates
        if (len(missing) > MANY or is_empty) and not self.faults:
            return None
        gone = []
        for id in sorted(missing):
            if not self.faults and self._is_gone(id):  # a list that could not be read tells nothing of absence
                gone.append(id)
            else:
                if id in before.machines:
                    now.machines[id] = before.machines[id]
                if id in before.templates:
                    now.templates[id] = before.templates[id]
        inventory = Inventory(
            began_at=began_at, complete=False, gone=tuple(gone), partial="; ".join(self.faults),
            machines=tuple(one for id, one in now.machines.items() if before.machines.get(id) != one),
            templates=tuple(one for id, one in now.templates.items() if before.templates.get(id) != one),
        )  # fmt: skip
        return inventory, now

    def _is_gone(self, id: str) -> bool:
        try:
            path = f"{VMS}/{segment(id)}"
            self._patiently(lambda: self.client.get("vmm", path, self.deadline, doing="looking for a machine"))
        except NotFound:
            return True
        except Unsupported as error:
            self.faults.append(f"machine {id} could not be read ({error.platform_words})")
        return False

    # --- reading ------------------------------------------------------------------------------------------------------

    def listed(self, namespace: str, path: str, what: str, query: dict[str, str] | None = None) -> list[Json]:
        """All of a kind; what may not be read makes the reading partial."""
        try:
            listing: Listing = self._patiently(
                lambda: self.client.list(namespace, path, self.deadline, query=query, doing=f"listing {what}")
            )
            if not listing.is_whole:  # it changed while it was read: once more
                listing = self._patiently(
                    lambda: self.client.list(namespace, path, self.deadline, query=query, doing=f"listing {what}")
                )
        except OutOfTime:
            self.faults.append(f"time ran out before all {what} were read")
            return []
        except ConnectorError as error:
            if error.loses_endpoint or isinstance(error, Busy):
                raise
            self.faults.append(f"{what} could not be read ({error.platform_words or error.message})")
            return []
        if not listing.is_whole:
            self.faults.append(f"fewer {what} were listed than Prism Central counts")
        return listing.items

    def _patiently(self, ask: Callable[[], T]) -> T:
        """Waits out a refusal for haste, as long as the deadline allows."""
        while True:
            try:
                return ask()
            except Busy as busy:
                wait = busy.retry_after_s or 1.0
                if time.monotonic() + wait >= self.deadline:
                    raise
                time.sleep(wait)


def _machine(vm: Vm) -> Machine:
    return Machine(
        id=vm.id, name=vm.name, power=vm.power, vcpus=vm.vcpus, memory_mib=vm.memory_mib, host=vm.host, stamp=vm.stamp,
        agent=vm.agent, addresses=vm.addresses if vm.power is Power.ON else (),
    )  # fmt: skip


def _template(vm: Vm) -> Template:
    cannot = machines.cannot_clone(vm) or ("" if vm.power is Power.OFF else "It is switched on.")
    return Template(
        id=vm.id, name=vm.name, storage=vm.disks[0].container if vm.disks else "", vcpus=vm.vcpus,
        memory_mib=vm.memory_mib, disk_mib=sum(disk.size_mib for disk in vm.disks), cannot=cannot,
    )  # fmt: skip
