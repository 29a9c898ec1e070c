"""Logical networks: what an administrator calls a network, and what it is on each hypervisor.

A pool names a logical network; each member's machines are put on its counterpart there. Nothing is made or changed on a
platform: what inventory listed is all that can be named.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from django.contrib.auth.models import User
from django.db import transaction

from broker.models import LogicalNetwork, Network, NetworkMapping, Pool
from broker.services import audit, nudges
from broker.services.errors import Clash
from broker.services.intake import Intake
from broker.services.permissions import Right, require
from broker.services.rows import alter, locked, refusing_duplicates

NAME_TAKEN = "There is already a network of that name."


def create_network(
    *,
    actor: User,
    name: str,
    description: str = "",
    wants_isolation: bool = False,
    counterparts: Mapping[UUID, UUID | None] | None = None,
) -> LogicalNetwork:
    """`counterparts`: hypervisor -> the row of what inventory listed there, None for none.

    Raises `Forbidden`, `Invalid`.
    """
    require(actor, Right.OPERATE)
    intake = Intake()
    network = LogicalNetwork()
    values = _cleaned(intake, network, name, description, wants_isolation)
    found = _counterparts(intake, counterparts or {})
    intake.refuse_faults("The network was not created.")
    with transaction.atomic(), refusing_duplicates("name", NAME_TAKEN):
        for field, value in values.items():
            setattr(network, field, value)
        network.save(force_insert=True)
        changes = {field: [None, value] for field, value in values.items()} | _map(network, found)
        audit.record(actor=actor, action="network.create", subject=network, changes=changes)
        nudges.announce("networks")
    return network


def change_network(
    *,
    actor: User,
    network_id: UUID,
    name: str,
    description: str = "",
    wants_isolation: bool = False,
    counterparts: Mapping[UUID, UUID | None] | None = None,
) -> LogicalNetwork:
    """Counterparts on hypervisors that are not named stay. Machines that stand keep their networks; those built or
    rebuilt from now on get the new ones. Raises `Missing`, `Forbidden`, `Invalid`."""
    require(actor, Right.OPERATE)
    with transaction.atomic(), refusing_duplicates("name", NAME_TAKEN):
        network = locked(LogicalNetwork.objects.all(), network_id, "network")
        intake = Intake()
        values = _cleaned(intake, network, name, description, wants_isolation)
        found = _counterparts(intake, counterparts or {})
        intake.refuse_faults("The network was not changed.")
        if changes := alter(network, values) | _map(network, found):
            audit.record(actor=actor, action="network.change", subject=network, changes=changes)
            for pool_id in network.pools.values_list("pk", flat=True):
                nudges.nudge(nudges.RECONCILE, pool_id)
            nudges.announce("networks")
    return network


def delete_network(*, actor: User, network_id: UUID) -> None:
    """Forget the name; the platforms' networks are not touched. Raises `Clash` while a pool is on it."""
    require(actor, Right.OPERATE)
    with transaction.atomic():
        network = locked(LogicalNetwork.objects.all(), network_id, "network")
        if pools := Pool.objects.filter(network=network).values_list("name", flat=True)[:5]:
            raise Clash(f"{network} is the network of {', '.join(pools)}. Choose another one there first.")
        audit.record(actor=actor, action="network.delete", subject=network)
        network.delete()
        nudges.announce("networks")


def _cleaned(
    intake: Intake, network: LogicalNetwork, name: str, description: str, wants_isolation: bool
) -> dict[str, Any]:
    others = LogicalNetwork.objects.exclude(pk=network.pk)
    return {
        "name": intake.free_name("name", intake.name("name", name), others, "network"),
        "description": intake.text("description", description),
        "wants_isolation": wants_isolation,
    }


def _counterparts(intake: Intake, named: Mapping[UUID, UUID | None]) -> dict[UUID, Network | None]:
    """Hypervisor -> what was chosen there; a network of another hypervisor is a fault."""
    rows = Network.objects.select_related("hypervisor").in_bulk([pk for pk in named.values() if pk])
    found: dict[UUID, Network | None] = {}
    for hypervisor_id, network_id in named.items():
        row = rows.get(network_id) if network_id else None
        if network_id and (row is None or row.hypervisor_id != hypervisor_id):
            intake.faults["counterparts"] = "One of the chosen networks is not its hypervisor's (any more)."
        found[hypervisor_id] = row
    return found


def _map(network: LogicalNetwork, wanted: Mapping[UUID, Network | None]) -> dict[str, list[Any]]:
    """Set the counterparts that differ; returns what changed, for the audit."""
    present = {m.hypervisor_id: m for m in network.mappings.select_related("network", "hypervisor")}
    changes: dict[str, list[Any]] = {}
    for hypervisor_id, chosen in wanted.items():
        before = present.get(hypervisor_id)
        if (before.network_id if before else None) == (chosen.pk if chosen else None):
            continue
        if chosen is None:
            NetworkMapping.objects.filter(logical=network, hypervisor_id=hypervisor_id).delete()
        else:
            NetworkMapping.objects.update_or_create(
                logical=network, hypervisor_id=hypervisor_id, defaults={"network": chosen}
            )
        at = before.hypervisor if before else chosen.hypervisor if chosen else None
        changes[f"on {at}"] = [before.network.name if before else None, chosen.name if chosen else None]
    return changes
