"""Where the broker and the hypervisors disagree: machines that no desktop accounts for, desktops without a machine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from django.db.models import Exists, OuterRef, Q, QuerySet

from broker.domain.lifecycle import State
from broker.models import Desktop, Machine, Operation, Standby, TemplateCopy
from broker.models.operations import UNFINISHED
from broker.selectors.failovers import Origin, origins
from broker.selectors.hypervisors import installation, not_a_desktop

LEFT_OVER, OTHERS, UNKNOWN = "left_over", "others", "unknown"
KINDS = (LEFT_OVER, OTHERS, UNKNOWN)
"""A machine that this installation made and no desktop is; another installation's; one without any stamp."""


def drifting_machines(kind: str = "") -> QuerySet[Machine]:
    """Listed machines that no live desktop, no template and no standby is, and that nobody said to forget. Without a
    kind: those of ours and of other installations and those without a stamp."""
    copy = TemplateCopy.objects.filter(hypervisor=OuterRef("hypervisor"), platform_id=OuterRef("platform_id"))
    waits = Standby.objects.filter(hypervisor=OuterRef("hypervisor"), machine_id=OuterRef("platform_id"), is_used=False)
    found = (
        Machine.objects.filter(
            *not_a_desktop(), ~Exists(copy), ~Exists(waits), is_forgotten=False, is_template=False, absences=0
        )
        .select_related("hypervisor", "host")
        .order_by("hypervisor__name", "name", "pk")
    )
    ours = installation()
    if kind == LEFT_OVER:
        return found.filter(stamp_installation=ours)
    if kind == OTHERS:
        return found.exclude(Q(stamp_installation="") | Q(stamp_installation=ours))
    if kind == UNKNOWN:
        return found.filter(stamp_installation="")
    return found


def missing_desktops() -> QuerySet[Desktop]:
    return Desktop.objects.filter(state=State.MISSING).select_related("pool", "hypervisor")


@dataclass(frozen=True, slots=True)
class Stray:
    machine: Machine
    kind: str
    being_built: Operation | None
    """The unfinished order that makes this machine right now: not drift yet."""
    being_deleted: Operation | None
    origin: Origin | None = None
    """Why it stands there, if replication left it."""


def strays(machines: Sequence[Machine]) -> list[Stray]:
    """What to say of each machine of a page; five statements."""
    ours = installation()
    keys = {key for machine in machines if (key := _uuid(machine.stamp_key))}
    making = {str(o.pk): o for o in Operation.objects.filter(pk__in=keys, state__in=UNFINISHED)}
    deletes = Operation.objects.filter(
        hypervisor__in={m.hypervisor_id for m in machines},
        desktop=None,
        kind=Operation.Kind.DELETE,
        state__in=UNFINISHED,
    )
    deleting = {(o.hypervisor_id, o.parameters.get("machine")): o for o in deletes}
    known = origins(machines)
    return [
        Stray(
            machine,
            _kind(machine, ours),
            making.get(machine.stamp_key),
            deleting.get((machine.hypervisor_id, machine.platform_id)),
            known.get(machine.pk),
        )
        for machine in machines
    ]


def _kind(machine: Machine, ours: str) -> str:
    if not machine.stamp_installation:
        return UNKNOWN
    return LEFT_OVER if machine.stamp_installation == ours else OTHERS


def _uuid(text: str) -> UUID | None:
    try:
        return UUID(text)
    except ValueError:
        return None
