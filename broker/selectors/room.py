"""What is free for new desktops, as the placement rules see it: one reading for any number of pools."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from django.db.models import Count

from broker.domain import placement
from broker.domain.lifecycle import LIVE
from broker.models import Desktop, Host, Machine, Pool, PoolMember, Storage
from broker.selectors.networks import counterparts


@dataclass(frozen=True, slots=True)
class Estate:
    """Hosts and storages of some hypervisors, read once."""

    hosts: dict[UUID, list[Host]]
    storages: dict[tuple[UUID, str], Storage]
    per_member: dict[UUID | None, int]
    per_host: dict[tuple[UUID, UUID | None], int]
    images: dict[tuple[UUID, str], Machine]
    """What copies are linked to, by hypervisor and platform id."""

    counterparts: dict[tuple[UUID, UUID], str]
    """What logical networks are, by network and hypervisor."""

    def targets(self, members: Sequence[PoolMember], network_id: UUID | None = None) -> list[placement.Target]:
        """Where these members of one pool, on that logical network, could build; they need `hypervisor` and `copy`
        loaded, and may be unsaved."""
        return [
            self._target(member, host, network_id)
            for member in members
            for host in self.hosts.get(member.hypervisor_id, [])
        ]

    def _target(self, member: PoolMember, host: Host, network_id: UUID | None) -> placement.Target:
        hypervisor, copy = member.hypervisor, member.copy
        beside = self.storages.get((hypervisor.pk, copy.storage))
        storage = self.storages.get((hypervisor.pk, member.storage)) if member.storage else beside
        is_far = bool(member.storage) and member.storage != copy.storage
        return placement.Target(
            member_id=str(member.pk),
            hypervisor_id=str(hypervisor.pk),
            hypervisor=hypervisor.name,
            host_id=str(host.pk),
            host=host.name,
            vcpus=host.vcpus,
            memory_mib=host.memory_mib,
            copy_vcpus=copy.vcpus,
            copy_memory_mib=copy.memory_mib,
            copy_disk_mib=copy.disk_mib,
            used_vcpus=host.used_vcpus + host.reserved_vcpus,
            used_memory_mib=host.used_memory_mib + host.reserved_memory_mib,
            vcpu_ratio=hypervisor.vcpu_ratio,
            memory_ratio=hypervisor.memory_ratio,
            hypervisor_status=hypervisor.status,
            hypervisor_reason=hypervisor.status_reason,
            hypervisor_draining=hypervisor.is_draining,
            host_up=host.is_up,
            host_draining=host.is_draining,
            member_enabled=member.is_enabled,
            member_hold_until=member.hold_until,
            member_hold_reason=member.hold_reason,
            member_maximum=member.maximum,
            member_desktops=self.per_member.get(member.pk, 0),
            host_desktops=self.per_host.get((member.pool_id, host.pk), 0) if member.pool_id else 0,
            weight=member.weight,
            host_allowed=not member.hosts or host.platform_id in member.hosts,
            lacks_network=bool(
                network_id and not member.networks and (network_id, hypervisor.pk) not in self.counterparts
            ),
            copy=copy.name,
            copy_cannot=_cannot(self.images.get((hypervisor.pk, copy.platform_id))),
            copy_storage=(beside.name if beside else copy.storage) if is_far else "",
            copy_storage_up=not is_far or beside is None or beside.is_up,
            storage_missing=bool(member.storage) and storage is None,
            storage_id=str(storage.pk) if storage else "",
            storage=storage.name if storage else member.storage,
            storage_up=storage.is_up if storage else True,
            storage_free_mib=storage.free_mib if storage else 0,
        )


def _cannot(image: Machine | None) -> str:
    """Why an image cannot be cloned now; empty if it can, or if no listing has told of it."""
    if image is None:
        return ""
    if not image.is_template:
        return "It is not listed as a template any more; perhaps it is switched on."
    return image.template_cannot


def estate(members: Sequence[PoolMember], networks: Collection[UUID | None] = ()) -> Estate:
    """Four statements, whatever the number of members; one more for the pools' logical networks, if there are any."""
    hypervisors = {member.hypervisor_id for member in members}
    hosts: dict[UUID, list[Host]] = {}
    for host in Host.objects.filter(hypervisor__in=hypervisors):
        hosts.setdefault(host.hypervisor_id, []).append(host)
    storages = {(s.hypervisor_id, s.platform_id): s for s in Storage.objects.filter(hypervisor__in=hypervisors)}
    per_member: dict[UUID | None, int] = {}
    per_host: dict[tuple[UUID, UUID | None], int] = {}
    pools = {member.pool_id for member in members if member.pool_id}
    live = Desktop.objects.filter(pool__in=pools, state__in=LIVE).order_by()
    for pool, member, host_id, number in live.values_list("pool", "member", "target_host").annotate(n=Count("pk")):
        per_member[member] = per_member.get(member, 0) + number
        per_host[pool, host_id] = per_host.get((pool, host_id), 0) + number
    copies = {(member.hypervisor_id, member.copy.platform_id) for member in members}
    linked = Machine.objects.filter(
        hypervisor__in=hypervisors, platform_id__in={image for _, image in copies}, absences=0
    ).only("hypervisor_id", "platform_id", "is_template", "template_cannot")
    images = {(image.hypervisor_id, image.platform_id): image for image in linked}
    named = {network for network in networks if network}
    return Estate(hosts, storages, per_member, per_host, images, counterparts(named) if named else {})


def wish_of(pool: Pool) -> placement.Wish:
    """What a pool (which may be unsaved) builds next."""
    return placement.Wish(
        vcpus=pool.vcpus,
        memory_mib=pool.memory_mib,
        is_linked=pool.is_linked,
        maximum_per_host=pool.maximum_per_host,
        network=pool.network.name if pool.network else "",
    )


def preview(pool: Pool, members: Sequence[PoolMember], count: int, now: datetime) -> list[placement.Placement]:
    """Where a pool (which may be unsaved) would build its next `count` desktops; ends with the first that cannot."""
    return placement.place_many(
        wish_of(pool), count, estate(members, [pool.network_id]).targets(members, pool.network_id), now
    )


def why_nothing(pool: Pool, members: Sequence[PoolMember], known: Estate, now: datetime) -> str:
    """One sentence: why no desktop can be built now; empty if one can."""
    return placement.explain_none(placement.place(wish_of(pool), known.targets(members, pool.network_id), now))
