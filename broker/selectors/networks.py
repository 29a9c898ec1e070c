"""Logical networks with their counterparts, and where a platform cannot keep what is promised of them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from uuid import UUID

from django.db.models import Count, Prefetch, QuerySet

from broker.models import Hypervisor, LogicalNetwork, Network, NetworkMapping


def networks() -> QuerySet[LogicalNetwork]:
    """Every one with its counterparts: two statements."""
    mappings = NetworkMapping.objects.select_related("hypervisor", "network").order_by("hypervisor__name")
    return LogicalNetwork.objects.prefetch_related(Prefetch("mappings", mappings))


def networks_with_pools() -> QuerySet[LogicalNetwork]:
    """The same, each with `pool_count`."""
    return networks().annotate(pool_count=Count("pools")).order_by("name")


@dataclass(frozen=True, slots=True)
class Offer:
    """What one hypervisor has to choose from."""

    hypervisor: Hypervisor
    networks: list[Network]


def offers() -> list[Offer]:
    """Every hypervisor that listed networks; two statements."""
    found: dict[UUID, list[Network]] = {}
    for network in Network.objects.all():
        found.setdefault(network.hypervisor_id, []).append(network)
    hypervisors = Hypervisor.objects.defer("secrets").filter(pk__in=found)
    return [Offer(hypervisor, found[hypervisor.pk]) for hypervisor in hypervisors]


def counterparts(logical: Iterable[UUID]) -> dict[tuple[UUID, UUID], str]:
    """(logical network, hypervisor) -> platform id of what it is there; one statement."""
    rows = NetworkMapping.objects.filter(logical__in=list(logical))
    found = rows.values_list("logical", "hypervisor", "network__platform_id")
    return {(network, hypervisor): platform_id for network, hypervisor, platform_id in found}
