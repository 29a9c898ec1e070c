"""Replicas that platforms keep of desktops: where each stands, and whether the desktop may go over to it as planned.

Reads what inventories wrote (`services/mirrors.py`); `services/failovers.py` begins, `failover_steps.py` carries out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from django.db.models import QuerySet

from broker.domain.failover import Kind
from broker.domain.lifecycle import State
from broker.hypervisors.abilities import can_drive_mirrors
from broker.models import Desktop, Failover, Host, Hypervisor, PoolMember, ReplicationPolicy, ReplicationSource
from connectors.replication import MirrorState

SESSION_HOST = "A session host is not moved: set it to maintenance, and it empties while its pool builds another one."
GOES_ON = (MirrorState.HEALTHY, MirrorState.WARNING)
"""States in which the last changes can still be sent."""


@dataclass(frozen=True, slots=True)
class Replica:
    """What a platform keeps of a desktop elsewhere, as it was last told."""

    to: str
    """In the platform's words; empty: nothing is kept."""
    hypervisor: Hypervisor | None
    """Where it stands, if it is registered."""
    why_not: str
    """Why the desktop cannot go over to it now; empty: it can."""


def is_watched(desktop: Desktop) -> bool:
    """Whether a policy watches what the platform replicates of it, and may fail over. One statement at most."""
    return can_drive_mirrors(desktop.hypervisor.kind) and _sources(desktop).exists()


def replica_of(desktop: Desktop) -> Replica:
    """Of several the first that the desktop can go over to, else the first with what stands in the way."""
    source = _sources(desktop).first()
    if source is None:
        words = "No policy watches what its platform replicates. Make one, and choose the desktop in it."
        return Replica("", None, words)
    found = [_replica(desktop, told) for told in source.mirrors or ()]
    if not found:
        return Replica("", None, source.fault or f"{desktop.hypervisor} was not asked yet what it replicates.")
    return next((one for one in found if not one.why_not), found[0])


def _sources(desktop: Desktop) -> QuerySet[ReplicationSource]:
    return ReplicationSource.objects.filter(
        hypervisor=desktop.hypervisor_id, platform_id=desktop.machine_id, is_chosen=True,
        policy__engine=ReplicationPolicy.Engine.PLATFORM, policy__is_enabled=True,
    ).order_by("pk")  # fmt: skip


def _replica(desktop: Desktop, told: dict[str, Any]) -> Replica:
    to = str(told["to"])
    places = _places(desktop.hypervisor, to)
    there = places[0] if len(places) == 1 else None
    return Replica(to, there, _why_not(desktop, told, places))


def _places(here: Hypervisor, to: str) -> list[Hypervisor]:
    """Hypervisors of the same kind with a host that is called so, or that are called so themselves. Domains are left
    out: one end may know the other by its short name."""
    others = Hypervisor.objects.filter(kind=here.kind).exclude(pk=here.pk).defer("secrets").order_by("name")
    wanted = _short(to)
    hosts = Host.objects.filter(hypervisor__in=others).values_list("hypervisor_id", "name")
    with_it = {id for id, name in hosts if _short(name) == wanted}
    return [one for one in others if one.pk in with_it or _short(one.name) == wanted]


def _short(name: str) -> str:
    return name.partition(".")[0].lower()


def _why_not(desktop: Desktop, told: dict[str, Any], places: list[Hypervisor]) -> str:
    here, to = desktop.hypervisor, told["to"]
    if not can_drive_mirrors(here.kind):
        return f"Deskyard does not fail over what {here} replicates. Do it there."
    if desktop.pool.is_shared:
        return SESSION_HOST
    if desktop.state != State.ASSIGNED or not desktop.machine_id:
        return f"It is {desktop.state}. Only desktops that somebody has go elsewhere."
    if not told["can_fail_over"] or told["state"] not in GOES_ON:
        return told["fault"] or f"Its replica on {to} cannot take its place now. Look at it there."
    if not places:
        return f"Its replica stands on {to}, which is no hypervisor here. Register it, or give it that name."
    if len(places) > 1:
        names = ", ".join(one.name for one in places)
        return f"Its replica stands on {to}, and there are several with a host of that name: {names}."
    there = places[0]
    for end in (here, there):
        if end.status != Hypervisor.Status.UP:
            return f"{end} is {end.get_status_display().lower()}, and both ends are needed. Fail over on the platform."
    if not PoolMember.objects.filter(pool=desktop.pool_id, hypervisor=there).exists():
        return f"{desktop.pool} does not build on {there}: add it to the pool first."
    if Failover.objects.filter(desktop=desktop, state=Failover.State.RUNNING).exclude(kind=Kind.TEST).exists():
        return "It is being moved already."
    return ""
