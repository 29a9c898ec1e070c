"""Sources: the machines to which the choices of a policy come, as they are now."""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from broker.domain.lifecycle import LIVE
from broker.models import (
    Assignment,
    Desktop,
    Machine,
    MachineTag,
    ReplicationChoice,
    ReplicationPolicy,
    ReplicationSource,
)
from broker.services.replication import ENGINES, can_serve, deadline_of, first_run, next_run
from broker.services.replication_runs import forget_bookmark
from broker.services.rows import alter


@dataclass(frozen=True, slots=True)
class _Chosen:
    """A machine that a choice comes to."""

    hypervisor_id: UUID
    platform_id: str
    name: str
    disks: tuple[str, ...]


def settle(policy: ReplicationPolicy, now: datetime) -> None:
    """Sources as the choices come to now. What is not chosen any more keeps its points. Inside a transaction."""
    wanted = {(one.hypervisor_id, one.platform_id): one for one in _machines(policy)}
    there = {(row.hypervisor_id, row.platform_id): row for row in policy.sources.select_for_update().order_by("pk")}
    for key, row in there.items():
        chosen = wanted.get(key)
        values: dict[str, Any] = {"is_chosen": chosen is not None}
        if chosen is None:
            values |= {"next_run_at": None, "breaks_at": None, "bookmark": None, "common": None}
            values |= {"mirrors": None, "mirrors_at": None}
            if row.bookmark is not None:
                forget_bookmark(row)
        else:
            values |= {"name": chosen.name, "disks": list(chosen.disks)}
            if not row.is_chosen and policy.is_enabled:
                values |= {"next_run_at": first_run(policy, row, now), "breaks_at": deadline_of(policy, row, now)}
        alter(row, values)
    fresh = []
    for key, chosen in wanted.items():
        if key in there:
            continue
        row = ReplicationSource(
            policy=policy, hypervisor_id=chosen.hypervisor_id, platform_id=chosen.platform_id, name=chosen.name,
            disks=list(chosen.disks),
        )  # fmt: skip
        if policy.interval_s:
            row.offset_s = zlib.crc32(row.pk.bytes) % policy.interval_s
        if policy.is_enabled:
            row.next_run_at, row.breaks_at = first_run(policy, row, now), deadline_of(policy, row, now)
        fresh.append(row)
    ReplicationSource.objects.bulk_create(fresh)


def _machines(policy: ReplicationPolicy) -> list[_Chosen]:
    """A machine that several choices come to counts once, with all of their disks: all, if one wants all."""
    found: dict[tuple[UUID, str], _Chosen] = {}
    for choice in policy.choices.select_related("policy", "desktop", "hypervisor"):
        for hypervisor_id, platform_id, name in _of(choice):
            key = hypervisor_id, platform_id
            before = found.get(key)
            disks: tuple[str, ...] = tuple(choice.disks)
            if before is not None:
                disks = tuple(dict.fromkeys((*before.disks, *disks))) if before.disks and disks else ()
            found[key] = _Chosen(hypervisor_id, platform_id, name, disks)
    return list(found.values())


def _of(choice: ReplicationChoice) -> Iterable[tuple[UUID, str, str]]:
    kinds = ReplicationChoice.Kind
    if choice.kind == kinds.MACHINE and choice.hypervisor_id is not None:
        seen = Machine.objects.filter(hypervisor=choice.hypervisor_id, platform_id=choice.platform_id)
        name = seen.values_list("name", flat=True).first()
        return [(choice.hypervisor_id, choice.platform_id, name or choice.platform_id)]
    if choice.kind == kinds.TEMPLATE and choice.template is not None:
        newest = choice.template.versions.order_by("-number").first()
        copies = newest.copies.select_related("hypervisor").order_by("created_at") if newest else []
        # Every copy of a version holds the same: one is enough, the oldest, from which the others were made.
        readable = [copy for copy in copies if can_serve(choice.policy, copy.hypervisor.kind)]
        return [(copy.hypervisor_id, copy.platform_id, copy.name) for copy in readable[:1]]
    if choice.kind == kinds.TAG:
        return _tagged(choice)
    held = Desktop.objects.filter(state__in=LIVE).exclude(machine_id="")
    if choice.kind == kinds.DESKTOP:
        rows = held.filter(pk__in=[choice.desktop_id])
    else:
        assigned = Assignment.objects.filter(pool=choice.pool_id, until=None).values("desktop_id")
        rows = held.filter(pk__in=assigned)
    return rows.values_list("hypervisor_id", "machine_id", "name")


def _tagged(choice: ReplicationChoice) -> list[tuple[UUID, str, str]]:
    """Also machines that are not listed just now: an empty listing never means that they are gone."""
    rows = MachineTag.objects.filter(tag=choice.tag).select_related("hypervisor").defer("hypervisor__secrets")
    readable = [row for row in rows if can_serve(choice.policy, row.hypervisor.kind)]
    seen = Machine.objects.filter(hypervisor__in={row.hypervisor_id for row in readable})
    ids = seen.filter(platform_id__in=[row.platform_id for row in readable])
    names = {(at, pk): name for at, pk, name in ids.values_list("hypervisor_id", "platform_id", "name")}
    return [
        (row.hypervisor_id, row.platform_id, names.get((row.hypervisor_id, row.platform_id), row.platform_id))
        for row in readable
    ]


def move_runs(policy: ReplicationPolicy, now: datetime) -> None:
    """Its rhythm is another one, or it was paused or resumed. Inside a transaction."""
    if policy.engine == ENGINES.PLATFORM:
        return
    for source in policy.sources.select_for_update().filter(is_chosen=True).order_by("pk"):
        if policy.interval_s:
            source.offset_s = zlib.crc32(source.pk.bytes) % policy.interval_s
        source.next_run_at = next_run(policy, source, now) if policy.is_enabled else None
        source.save(update_fields=["offset_s", "next_run_at"])
